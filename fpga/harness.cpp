// Drives a Verilated `fpga.gateware.top.Core` by the bytes of a file descriptor, the master of a pseudo-terminal. C ABI.
//
// The builder puts before this file: `#define BIT_PARTS n` and `#define CYCLE_PARTS d`, for n/d cycles a bit; and
// `#define BACK_DOOR` if the top is a `fpga.gateware.back_door.BackDoor`.

#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <memory>

#include "Vboard.h"
#include "verilated.h"

namespace {

constexpr int kQuiet = 400;  // cycles after the last byte in which a reply would have begun

// Bits of a byte that goes to the board. Times are in parts of a cycle.
struct Out {
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
struct In {
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

struct Board {
    VerilatedContext context;
    Vboard top{&context, "board"};
    uint64_t cycle = 0;
    int quiet = 0;
    Out out;
    In in;

    void tick() {
        top.clk = 1;
        top.eval();
        top.clk = 0;
        top.eval();
        ++cycle;
    }
};

}  // namespace

extern "C" {

Board* board_create() {
    auto board = std::make_unique<Board>();
    board->top.rx = 1;
    board->top.rst = 1;
    board->tick();
    board->tick();
    board->top.rst = 0;
    board->cycle = 0;
    return board.release();
}

void board_destroy(Board* board) {
    board->top.final();
    delete board;
}

uint64_t board_cycle(const Board* board) { return board->cycle; }

int board_running(const Board* board) { return board->top.running; }

// Passes up to `cycles` cycles, with the bytes of `from` and the replies to `to`. Returns 1 at once when nothing happens
// any more until a byte comes, otherwise 0.
int board_run(Board* board, int from, int to, uint64_t cycles) {
    for (uint64_t i = 0; i < cycles; ++i) {
        board->top.rx = board->out.next(from);
        board->tick();
        board->in.take(board->top.tx, to);
        const bool busy = board->out.left || board->in.left || board->top.running;
        board->quiet = busy ? 0 : board->quiet + 1;
        if (board->quiet > kQuiet) return 1;
    }
    return 0;
}

#ifdef BACK_DOOR
struct Access {  // program.image.ACCESS
    uint32_t space, addr, data[4];
};

// Host writes by the back door, one a cycle. The board must be at rest.
void board_write(Board* board, const Access* writes, uint64_t count) {
    board->top.back_write = 1;
    for (uint64_t i = 0; i < count; ++i) {
        board->top.back_space = writes[i].space;
        board->top.back_addr = writes[i].addr;
        std::memcpy(&board->top.back_wdata, writes[i].data, sizeof writes[i].data);
        board->tick();
    }
    board->top.back_write = 0;
}
#endif
}
