// What Verilator's FST writer takes of liblz4, so that waveforms need no package of the system: blocks in the LZ4 block
// format (lz4_Block_format.md), compressed by the last occurrence of every four bytes.

#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

namespace metronome {

constexpr int kMinMatch = 4;       // bytes
constexpr int kLastLiterals = 5;   // a block ends with so many literals
constexpr int kLastMatch = 12;     // and no match begins in so many bytes before its end
constexpr int kMaxDistance = 65535;
constexpr int kHashBits = 12;

inline uint32_t read4(const uint8_t* at) {
    uint32_t value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

// What a nibble of 15 leaves of a length.
inline uint8_t* put_length(uint8_t* out, int rest) {
    for (; rest >= 255; rest -= 255) *out++ = 255;
    *out++ = static_cast<uint8_t>(rest);
    return out;
}

// Literals, and behind them a match of `length` bytes `distance` back; none where `length` is 0.
inline uint8_t* put_sequence(uint8_t* out, const uint8_t* literals, int count, int distance, int length) {
    const int more = length ? length - kMinMatch : 0;
    *out++ = static_cast<uint8_t>((count < 15 ? count : 15) << 4 | (more < 15 ? more : 15));
    if (count >= 15) out = put_length(out, count - 15);
    if (count) std::memcpy(out, literals, count);
    out += count;
    if (!length) return out;
    *out++ = static_cast<uint8_t>(distance);
    *out++ = static_cast<uint8_t>(distance >> 8);
    return more >= 15 ? put_length(out, more - 15) : out;
}

}  // namespace metronome

// The number of bytes written; 0 if `capacity` is less than `LZ4_compressBound(size)`.
inline int LZ4_compress_default(const char* source, char* destination, int size, int capacity) {
    using namespace metronome;
    if (capacity < LZ4_compressBound(size)) return 0;
    const auto* in = reinterpret_cast<const uint8_t*>(source);
    auto* out = reinterpret_cast<uint8_t*>(destination);
    std::vector<int> last(1 << kHashBits, -kMaxDistance - 1);
    int done = 0;  // bytes before this one are written
    for (int at = 0; at <= size - kLastMatch;) {
        const uint32_t four = read4(in + at);
        int& seen = last[four * 2654435761u >> (32 - kHashBits)];
        const int from = seen;
        seen = at;
        if (at - from > kMaxDistance || read4(in + from) != four) {
            ++at;
            continue;
        }
        int length = kMinMatch;
        while (at + length < size - kLastLiterals && in[from + length] == in[at + length]) ++length;
        out = put_sequence(out, in + done, at - done, at - from, length);
        done = at += length;
    }
    out = put_sequence(out, in + done, size - done, 0, 0);
    return static_cast<int>(out - reinterpret_cast<uint8_t*>(destination));
}
