// Drives Verilated `fpga.gateware.back_door.LinkedBoard`s that are joined at their pins. C ABI.
//
// The builder puts before this file: `#define BIT_PARTS n` and `#define CYCLE_PARTS d`, for n/d cycles a bit of the
// serial line; `#define PINS n`, data pins of a link; `#define RATIO n`, clocks of a link in a core cycle; `#define
// STEP_PS n` and `#define LONGEST n`, of an input delay; `#define LINKS(X)`, X(n) for each link of a board; then
// serial_line.h.
//
// Time is in femtoseconds. The pins change at the edges of a board's clocks. A line carries each change to the other
// end, where it arrives after the line's delay. The clock that comes with the data triggers the receiver; at each of
// its edges, every data pin is what its line carried `delay + input delay` before.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "Vlinked_board.h"
#include "verilated.h"

namespace {

using Time = int64_t;
constexpr Time kPs = 1000;
constexpr Time kNever = INT64_MAX;
constexpr int kHistory = 256;     // changes of the pins that a line remembers
constexpr int kLock = 64;         // edges of a clock that comes over a link until a PLL has locked
constexpr int kClocks = RATIO;    // of a link in a core cycle
#define COUNT(n) +1
constexpr int kLinks = 0 LINKS(COUNT);

struct Rack;
struct Board;

// One direction of a link, at the board that receives.
struct Line {
    struct Change {
        Time time;
        uint32_t levels;  // data pins, then the clock
    };
    std::array<Time, PINS + 1> delay{};  // of each pin and the clock
    Time jitter = 0;                     // greatest of any edge, either way
    uint32_t cut = 0;                    // lines that are dead
    double errors = 0;                   // probability of a wrong bit
    std::array<Change, kHistory> history{};
    uint64_t changes = 0;
    std::deque<std::pair<Time, bool>> clock;  // edges that are under way
    std::array<int, PINS> steps{};            // of the input delays
    uint32_t moved = 0;
    std::mt19937_64 random{0};
    uint64_t until_wrong = UINT64_MAX;
    uint64_t bits = 0, wrong = 0;

    Line() { history.fill({INT64_MIN, 0}); }

    void seed(uint64_t value, double rate) {
        random.seed(value);
        errors = rate;
        draw();
    }

    void draw() {
        until_wrong = errors > 0 ? std::geometric_distribution<uint64_t>(errors)(random) : UINT64_MAX;
    }

    Time shaken(Time time) { return jitter ? time + std::uniform_int_distribution<Time>(-jitter, jitter)(random) : time; }

    // The sender's pins from now on.
    void change(Time now, uint32_t levels) {
        const uint32_t before = history[(changes - 1) % kHistory].levels;
        if (levels == before) return;
        history[changes++ % kHistory] = {now, levels};
        if ((levels ^ before) >> PINS & 1 && !(cut >> PINS & 1)) {
            const Time last = clock.empty() ? INT64_MIN : clock.back().first;
            clock.emplace_back(std::max(last + 1, shaken(now + delay[PINS])), levels >> PINS & 1);
        }
    }

    bool level(int pin, Time when) const {
        for (uint64_t n = changes; n-- > 0 && n + kHistory > changes;)
            if (history[n % kHistory].time <= when) return history[n % kHistory].levels >> pin & 1;
        return false;
    }

    // What the data pins carry at the receiver's registers.
    uint32_t sample(Time now) {
        uint32_t found = 0;
        for (int pin = 0; pin < PINS; ++pin) {
            bool bit = level(pin, shaken(now - delay[pin] - steps[pin] * STEP_PS * kPs)) && !(cut >> pin & 1);
            ++bits;
            if (until_wrong-- == 0) {
                bit = !bit;
                ++wrong;
                draw();
            }
            found |= static_cast<uint32_t>(bit) << pin;
        }
        return found;
    }

    // The pulses to the input delays in a core cycle.
    void adjust(uint32_t loads, uint32_t moves) {
        for (int pin = 0; pin < PINS; ++pin) {
            if (loads >> pin & 1) steps[pin] = 0;
            else if ((moves & ~moved) >> pin & 1) steps[pin] = std::min(steps[pin] + 1, LONGEST);
        }
        moved = moves;
    }
};

struct Board {
    Rack* rack = nullptr;
    VerilatedContext context;
    Vlinked_board top{&context, "board"};
    std::array<Line, kLinks> in;
    std::array<Line*, kLinks> out{};
    int parent = -1;           // link whose clock it takes, or -1
    Time half = 0;             // of a period of its own oscillator, in the link's clock
    Time phase = 0;            // from the parent's edge to its own
    std::deque<std::pair<Time, bool>> edges;  // of its clock that are due
    int turn = 0;              // edges of it in this core cycle
    int edges_seen = 0;
    Time last_edge = 0;
    uint64_t cycle = 0;
    int quiet = 0, from = -1, to = -1;
    ToBoard rx;
    FromBoard tx;

    Time next() const { return edges.empty() ? kNever : edges.front().first; }
    bool dead() const;  // it has no clock, or is in reset

    void drive(Time now) {
#define DRIVE(n)                                                                             \
        if (out[n]) out[n]->change(now, top.out_data_##n | static_cast<uint32_t>(top.out_clock_##n) << PINS);
        LINKS(DRIVE)
    }

    // An edge of its own clocks. Returns whether a core cycle has begun.
    bool edge() {
        const auto [now, rises] = edges.front();
        edges.pop_front();
        if (parent < 0) edges.emplace_back(now + half, !rises);
        else watch(now);
        if (rises == (turn & 1)) turn = (turn + 1) % (2 * kClocks);  // an edge was lost
        const bool begins = turn == 0;
        if (begins) top.rx = from < 0 ? 1 : rx.next(from);
        top.fast = rises;
        top.clk = turn < kClocks;
        turn = (turn + 1) % (2 * kClocks);
        top.eval();
        drive(now);
        if (begins) begin();
        return begins;
    }

    void begin() {
        ++cycle;
        tx.take(top.tx, to);
#define ADJUST(n) in[n].adjust(top.loads_##n, top.moves_##n);
        LINKS(ADJUST)
        const bool busy = rx.left || tx.left || top.running;
        quiet = busy ? 0 : quiet + 1;
    }

    // A PLL that takes the clock of a link: in reset until it has locked, and again after a gap.
    void watch(Time now) {
        if (now - last_edge > 8 * half) edges_seen = 0;
        last_edge = now;
        if (edges_seen < kLock) ++edges_seen;
        top.rst = edges_seen < kLock;
    }

    // An edge of the clock that comes over a link.
    void arrive(int n) {
        const auto [now, rising] = in[n].clock.front();
        in[n].clock.pop_front();
        if (n == parent) edges.emplace_back(std::max(now + phase, edges.empty() ? 0 : edges.back().first), rising);
        const uint32_t data = in[n].sample(now);
#define ARRIVE(k)                                                                            \
        if (n == k) top.in_data_##k = data, top.in_clock_##k = rising;
        LINKS(ARRIVE)
        top.eval();
    }
};

struct Rack {
    Time now = 0;
    std::vector<std::unique_ptr<Board>> boards;

    // The next edge of any clock. Returns whether a core cycle of `wanted` has begun.
    bool step(const Board* wanted) {
        Time first = kNever;
        Board* which = nullptr;
        int link = -1;
        for (auto& board : boards) {
            if (board->next() < first) first = board->next(), which = board.get(), link = -1;
            for (int n = 0; n < kLinks; ++n)
                if (!board->in[n].clock.empty() && board->in[n].clock.front().first < first)
                    first = board->in[n].clock.front().first, which = board.get(), link = n;
        }
        now = first;
        if (link >= 0) return which->arrive(link), false;
        return which->edge() && which == wanted;
    }
};

bool Board::dead() const {
    return top.rst || (parent >= 0 && edges.empty() && rack->now - last_edge > 16 * half);
}

}  // namespace

extern "C" {

Rack* rack_create(uint32_t count, const int64_t* halves, const int64_t* phases, const int32_t* parents) {
    auto rack = std::make_unique<Rack>();
    for (uint32_t n = 0; n < count; ++n) {
        auto board = std::make_unique<Board>();
        board->rack = rack.get();
        board->parent = parents[n];
        board->half = halves[n];
        board->phase = phases[n];
        board->top.rx = 1;
        board->top.rst = 1;
        board->top.follows = parents[n] + 1;
        board->top.eval();
        if (board->parent < 0) {
            for (int k = 0; k < 8 * kClocks; ++k) {  // its PLL has locked
                board->top.fast = k % 2 == 0;
                board->top.clk = k % (2 * kClocks) < kClocks;
                board->top.eval();
            }
            board->top.rst = 0;
            board->edges.emplace_back(phases[n], true);
        }
        rack->boards.push_back(std::move(board));
    }
    return rack.release();
}

void rack_destroy(Rack* rack) {
    for (auto& board : rack->boards) board->top.final();
    delete rack;
}

Board* rack_board(Rack* rack, uint32_t n) { return rack->boards[n].get(); }

int64_t rack_time(const Rack* rack) { return rack->now; }

// What link `out` of one board sends arrives at link `in` of another.
void rack_connect(Board* sender, uint32_t out, Board* receiver, uint32_t in) { sender->out[out] = &receiver->in[in]; }

// The lines that end at a link: delays in ps of the data pins and the clock, jitter in ps, dead lines, wrong bits.
void rack_lines(Board* receiver, uint32_t in, const int64_t* delays, int64_t jitter, uint32_t cut, double errors,
                uint64_t seed) {
    Line& line = receiver->in[in];
    for (int pin = 0; pin <= PINS; ++pin) line.delay[pin] = delays[pin] * kPs;
    line.jitter = jitter * kPs;
    line.cut = cut;
    line.seed(seed, errors);
}

// Bits that the lines have carried to a link, and those of them that were made wrong.
void rack_bits(const Board* receiver, uint32_t in, uint64_t* found) {
    found[0] = receiver->in[in].bits;
    found[1] = receiver->in[in].wrong;
}

// A board's own clock from now on: half a period of its link's clock, in fs.
void rack_clock(Board* board, int64_t half) { board->half = half; }

uint64_t board_cycle(const Board* board) { return board->cycle; }

int board_running(const Board* board) { return board->top.running; }

// Passes up to `cycles` core cycles, with the bytes of `from` to the board and its replies to `to`. Returns 1 at once
// when nothing happens on this board any more until a byte comes, otherwise 0. A board without a clock is at rest.
int board_run(Board* board, int from, int to, uint64_t cycles) {
    board->from = from;
    board->to = to;
    const Time end = board->rack->now + static_cast<Time>(cycles) * 2 * kClocks * board->half;
    for (uint64_t passed = 0; passed < cycles && board->rack->now < end;) {
        if (!board->rack->step(board)) continue;
        ++passed;
        if (board->quiet > kQuiet) return 1;
    }
    if (!board->dead()) return 0;
    board->rx = ToBoard{};  // what comes now is lost
    board->tx = FromBoard{};
    for (char byte; from >= 0 && read(from, &byte, 1) == 1;) {}
    return 1;
}

struct Access {  // program.image.ACCESS
    uint32_t space, addr, data[4];
};

// Host writes by the back door, one a cycle. The board must be at rest.
void board_write(Board* board, const Access* writes, uint64_t count) {
    board->top.back_write = 1;
    for (uint64_t i = 0; i < count && !board->dead(); ++i) {
        board->top.back_space = writes[i].space;
        board->top.back_addr = writes[i].addr;
        std::memcpy(&board->top.back_wdata, writes[i].data, sizeof writes[i].data);
        const Time end = board->rack->now + 100 * kClocks * board->half;
        while (!board->rack->step(board) && board->rack->now < end) {}
    }
    board->top.back_write = 0;
}
}
