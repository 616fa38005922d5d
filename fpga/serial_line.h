// The serial line of a simulated board, bit by bit, with file descriptors at its other end.
//
// The builder puts before this file: `#define BIT_PARTS n` and `#define CYCLE_PARTS d`, for n/d cycles a bit.

#include <unistd.h>

#include <cstdint>

namespace {

constexpr int kQuiet = 400;  // cycles after the last byte in which a reply would have begun

// Bits of a byte that goes to the board. Times are in parts of a cycle.
struct ToBoard {
    uint8_t buffer[4096];
    ssize_t filled = 0, taken = 0;
    uint32_t bits = 1;
    int left = 0, timer = BIT_PARTS;  // of the present bit, or of the first one of the next byte

    // The level of the line in the next cycle.
    bool next(int fd) {
        if (left == 0 && !load(fd)) return true;
        const bool level = bits & 1;
        timer -= CYCLE_PARTS;
        if (timer < CYCLE_PARTS) {
            timer += BIT_PARTS;
            bits >>= 1;
            --left;
        }
        return level;
    }

    bool load(int fd) {
        if (taken == filled) {
            taken = 0;
            filled = read(fd, buffer, sizeof buffer);
            if (filled <= 0) return filled = 0, false;
        }
        bits = 0x200u | buffer[taken++] << 1;
        left = 10;
        return true;
    }
};

// Bytes that come from the board, each bit sampled in its middle.
struct FromBoard {
    uint32_t bits = 0;
    int left = 0, timer = 0;

    void take(bool level, int fd) {
        if (left == 0) {
            if (level) return;
            left = 9;
            timer = BIT_PARTS + BIT_PARTS / 2;
        } else if (timer < CYCLE_PARTS) {
            timer += BIT_PARTS;
            bits = bits >> 1 | static_cast<uint32_t>(level) << 8;
            if (--left == 0) emit(fd);
        }
        timer -= CYCLE_PARTS;
    }

    void emit(int fd) {
        const uint8_t byte = bits & 0xFF;
        if (bits & 0x100) (void)!write(fd, &byte, 1);  // as on a board: lost if nobody reads
    }
};

}  // namespace
