// Drives a Verilated `fpga.gateware.top.Core` by the bytes of a file descriptor, the master of a pseudo-terminal. C ABI.
//
// The builder puts before this file: `#define BACK_DOOR` if the top is a `fpga.gateware.back_door.BackDoor`, and
// serial_line.h with what that needs.

#include <cstdint>
#include <cstring>
#include <memory>

#include "Vboard.h"
#include "verilated.h"

namespace {

struct Board {
    VerilatedContext context;
    Vboard top{&context, "board"};
    uint64_t cycle = 0;
    int quiet = 0;
    ToBoard out;
    FromBoard in;

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
