// Sums of int8 products: y[n][o] = sum over i of w[o][i] * x[n][i]. Sums of up to 133,000 products fit their 32 bits.
#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EACH_MACHINE __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define EACH_MACHINE
#endif

// N rows of x meet a row of w while it is in the registers.
template <int N>
static inline __attribute__((always_inline)) void row(const int8_t *w, const int8_t *x, int64_t ins, int32_t *y,
                                                      int64_t outs) {
    int32_t sum[N] = {};
    for (int64_t i = 0; i < ins; i++)
        for (int n = 0; n < N; n++) sum[n] += int16_t(w[i]) * int16_t(x[n * ins + i]);
    for (int n = 0; n < N; n++) y[n * outs] = sum[n];
}

extern "C" EACH_MACHINE void int8_sums(const int8_t *w, int64_t stride, const int8_t *x, int64_t rows, int64_t ins,
                                       int32_t *y, int64_t outs) {
    for (int64_t o = 0; o < outs; o++) {
        int64_t n = 0;
        for (; n + 4 <= rows; n += 4) row<4>(w + o * stride, x + n * ins, ins, y + n * outs + o, outs);
        for (; n < rows; n++) row<1>(w + o * stride, x + n * ins, ins, y + n * outs + o, outs);
    }
}
