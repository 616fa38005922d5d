// Drives a Verilated chip without a line of Python per cycle. C ABI; one `Sim` is one chip.
//
// The builder puts before this file: the numbers of `arch.host_map.c_defines`, `#define PROBES(X) X(name) X(name) ...`
// (the debug build's outputs, in the order of the flat probe buffer; empty otherwise) and, for a build with waveforms,
// `#define TRACE` and `#define TRACE_HEADER`: Verilator's class that writes them, and where it is declared.

#include <cstdint>
#include <cstring>
#include <memory>

#include "Vchip.h"
#include "Vchip___024root.h"
#include "verilated.h"
#ifdef TRACE
#include TRACE_HEADER
#endif

// Verilator's own evaluation of what happens at a clock edge, without inputs; null if this version has none.
bool Vchip___024root___eval_phase__act(Vchip___024root*) __attribute__((weak));
bool Vchip___024root___eval_phase__nba(Vchip___024root*) __attribute__((weak));

namespace {

// Lets the model take the clock as low at the last evaluation, and says whether that can be done.
template <class Root>
auto take_as_low(Root& root, int) -> decltype(root.__Vtrigprevexpr___TOP__clk__0, bool()) {
    root.__Vtrigprevexpr___TOP__clk__0 = 0;
    return true;
}
template <class Root>
bool take_as_low(Root&, long) {
    return false;
}

struct Access {  // program.image.ACCESS
    uint32_t space, addr;
    uint32_t data[4];
};

struct Sim {
    VerilatedContext context;
    Vchip top{&context, "chip"};
    uint64_t cycle = 0;
#ifdef TRACE
    TRACE trace;
    bool tracing = false;
#endif

    // Whether falling edges are left out, and inputs that are as before. Nothing in the chip happens at them; they are a
    // fifth of the time. Waveforms show them.
    const bool brief =
#ifdef TRACE
        false;
#else
        take_as_low(*top.rootp, 0) && Vchip___024root___eval_phase__act && Vchip___024root___eval_phase__nba;
#endif
    bool inputs_changed = true;

    // One cycle passes; afterwards all outputs show the new one.
    void tick() {
        top.clk = 1;
        if (brief && !inputs_changed) {
            do {
                while (Vchip___024root___eval_phase__act(top.rootp)) {}
            } while (Vchip___024root___eval_phase__nba(top.rootp));
        } else {
            top.eval();
        }
        ++cycle;
        dump(0);
        top.clk = 0;
        if (brief)
            take_as_low(*top.rootp, 0);
        else
            top.eval();
        dump(1);
        inputs_changed = false;
    }

    // Of waveforms, a half of the present cycle: cycle n begins at time 2 n.
    void dump(int half) {
#ifdef TRACE
        if (tracing) trace.dump(2 * cycle + half);
#else
        (void)half;
#endif
    }

    void access(uint32_t space, uint32_t addr, bool read = false) {
        top.host_space = space;
        top.host_addr = addr;
        top.host_read = read;
        inputs_changed = true;
    }

    void reset(bool on) {
        top.rst = on;
        inputs_changed = true;
    }

    void write(uint32_t space, uint32_t addr, const uint32_t* data) {
        access(space, addr);
        std::memcpy(&top.host_wdata, data, 16);
        top.host_write = 1;
        tick();
        top.host_write = 0;
        inputs_changed = true;
    }

    void take(uint32_t* data) const { std::memcpy(data, &top.host_rdata, 16); }
};

}  // namespace

extern "C" {

Sim* sim_create(const char* trace_path) {
    auto sim = std::make_unique<Sim>();
#ifdef TRACE
    if (trace_path) {
        sim->context.traceEverOn(true);
        sim->top.trace(&sim->trace, 99);
        sim->trace.open(trace_path);
    }
#endif
    sim->reset(true);
    sim->tick();
    sim->tick();
    sim->reset(false);
    sim->cycle = 0;
#ifdef TRACE
    sim->tracing = trace_path != nullptr;  // cycles are counted from here on, and so is the waveforms' time
#else
    (void)trace_path;
#endif
    sim->dump(1);
    return sim.release();
}

void sim_destroy(Sim* sim) {
#ifdef TRACE
    if (sim->tracing) sim->trace.close();
#endif
    sim->top.final();
    delete sim;
}

int sim_brief(const Sim* sim) { return sim->brief; }

uint64_t sim_cycle(const Sim* sim) { return sim->cycle; }

// Writes in the given order, one a cycle.
void sim_write(Sim* sim, const Access* accesses, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) sim->write(accesses[i].space, accesses[i].addr, accesses[i].data);
}

// Reads `count` consecutive words of a space, one a cycle.
void sim_read(Sim* sim, uint32_t space, uint32_t addr, uint64_t count, uint32_t* data) {
    for (uint64_t i = 0; i < count + HOST_READ - 1; ++i) {
        sim->access(space, addr + static_cast<uint32_t>(i), i < count);
        sim->tick();
        if (i >= HOST_READ - 1) sim->take(data + 4 * (i - (HOST_READ - 1)));
    }
    sim->access(space, addr);
}

void sim_step(Sim* sim, uint64_t cycles) {
    for (uint64_t i = 0; i < cycles; ++i) sim->tick();
}

int sim_running(const Sim* sim) { return sim->top.running; }

int sim_token_start(const Sim* sim) { return sim->top.token_start; }

// Runs `tokens` tokens from the present position until `running` falls, at most `max_cycles` cycles. Stores the cycles
// from each token_start pulse to the next, or to the fall of `running`, as counted here. Returns the number of tokens
// that ended, or -1 if the time ran out.
int64_t sim_run(Sim* sim, uint32_t tokens, uint64_t max_cycles, uint64_t* cycles_per_token) {
    const uint32_t data[4] = {tokens, 0, 0, 0};
    const uint64_t begin = sim->cycle;
    sim->write(SPACE_CONTROL, CONTROL_RUN, data);
    sim->tick();  // `running` shows two cycles after the access
    int64_t ended = -1;
    uint64_t since = 0;
    for (;; sim->tick()) {
        const bool start = sim->top.token_start, over = !sim->top.running;
        if (start || over) {
            if (ended >= 0 && ended < tokens) cycles_per_token[ended] = sim->cycle - since;
            if (!over || ended >= 0) ++ended;
            since = sim->cycle;
        }
        if (over) return ended < 0 ? 0 : ended;
        if (sim->cycle - begin >= max_cycles) return -1;
    }
}

uint64_t sim_probe_bytes() {
    uint64_t total = 0;
#define SIZE(name) total += sizeof(Vchip::name);
    PROBES(SIZE)
#undef SIZE
    return total;
}

// Copies all probes of the present cycle, each in the bytes that Verilator keeps it in (1, 2, 4, 8, or words of 4).
void sim_probes(const Sim* sim, uint8_t* out) {
    (void)sim;
    (void)out;
#define COPY(name) std::memcpy(out, &sim->top.name, sizeof sim->top.name), out += sizeof sim->top.name;
    PROBES(COPY)
#undef COPY
}
}
