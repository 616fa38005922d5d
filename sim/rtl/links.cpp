// Follows harness.cpp for chips with links (sim.rtl.linked): runs of the chips of a rack, in one thread or several.
//
// A chip runs ahead by itself up to its next RECEIVE. There it waits until the other chip has sent the flit that
// arrives in this cycle, or has passed the cycle in which it would have had to. Cycles are counted from the one in which
// all chips are ready, so a flit is known by the cycle of its arrival, whatever the order in which threads run.
//
// The builder puts before this file: `#define SIDES(X) X(0, W, ports) X(1, E, ports)`, of those that have ports, and
// `#define PLANE bytes`, of a flit.

#include <algorithm>
#include <chrono>
#include <thread>

namespace {

constexpr uint64_t FLITS = 1024;  // that a channel holds: more than there are slots in a link's latency
constexpr uint64_t TURN = 1 << 16;  // cycles that a chip runs at most before others have their turn

// One direction of a link. Its memory is the caller's; all zero but for the first two at the start of a run.
struct Channel {
    uint64_t latency;
    uint64_t patience;  // the sender's turn ends so many cycles after a flit; 0: it does not end for a flit
    alignas(64) uint64_t sent;  // by the sender: flits so far
    uint64_t passed;            // by the sender: flits of all earlier cycles are there
    alignas(64) uint64_t taken;  // by the receiver
    uint64_t closed;             // by the receiver: it takes no more
    struct {
        uint64_t arrival;
        uint8_t data[24];
    } flits[FLITS];
};

struct Change {  // of a flit that is sent: wrong bits
    uint64_t flit;
    uint8_t bits[24];
};

enum Outcome : int64_t { BLOCKED = -1, MISSING = -2, LOST = -3, LATE = -4 };  // LOST: a flit was not taken

uint64_t get(const uint64_t& from) { return __atomic_load_n(&from, __ATOMIC_ACQUIRE); }
void set(uint64_t& to, uint64_t value) { __atomic_store_n(&to, value, __ATOMIC_RELEASE); }

struct Port {
    Channel *out = nullptr, *in = nullptr;
    const Change* changes = nullptr;
    uint64_t change_count = 0;
};

struct Linked {
    Sim* sim;
    Port ports[2][8];
    uint64_t began = 0, since = 0, tokens = 0;
    uint64_t reached = 0;  // cycle at the end of the last turn: other libraries do not know where a Sim has its own
    int64_t ended = 0;
    bool entered = false, sends_done = false;  // of the present cycle: its start is seen, its flits are sent
    uint64_t pause = 0;  // cycle in which the turn ends
    uint64_t fault[2] = {0, 0};  // side * 8 + port, and cycle, of MISSING and LOST

    uint64_t now() const { return sim->cycle - began; }

    // False if the channel is full. A flit that nobody will take is only counted.
    bool send(Port& port, const void* data) {
        Channel& out = *port.out;
        const uint64_t number = out.sent;
        if (number - get(out.taken) >= FLITS) {
            if (!get(out.closed)) return false;
            set(out.sent, number + 1);
            return true;
        }
        if (out.patience) pause = std::min(pause, sim->cycle + out.patience);
        auto& flit = out.flits[number % FLITS];
        flit.arrival = now() + out.latency;
        std::memcpy(flit.data, data, PLANE);
        if (port.change_count && port.changes->flit == number) {
            for (int i = 0; i < PLANE; ++i) flit.data[i] ^= port.changes->bits[i];
            ++port.changes, --port.change_count;
        }
        set(out.sent, number + 1);
        return true;
    }

    // Of the present cycle; false if a channel is full.
    bool send_all() {
#define SEND(side, name, count) \
    if (sim->top.send_##name) { \
        for (int n = 0; n < count; ++n) \
            if ((sim->top.send_##name >> n & 1) && ports[side][n].out && !(sent_mask >> (8 * side + n) & 1)) { \
                if (!send(ports[side][n], &sim->top.data_##name)) return false; \
                sent_mask |= 1u << (8 * side + n); \
            } \
    }
        SIDES(SEND)
#undef SEND
        sent_mask = 0;
        return true;
    }
    uint32_t sent_mask = 0;

    void pass(uint64_t cycle) {
        for (auto& side : ports)
            for (auto& port : side)
                if (port.out) set(port.out->passed, cycle);
    }

    // Let nobody wait for this chip any more.
    void close() {
        pass(~uint64_t{0} >> 1);
        for (auto& side : ports)
            for (auto& port : side)
                if (port.in) set(port.in->closed, 1);
    }

    // Puts the flit that arrives now at the chip's input; 0, or an outcome.
    int64_t take(Channel* in, void* input) {
        if (!in) return MISSING;
        const uint64_t passed = get(in->passed);
        if (in->taken == get(in->sent)) return passed + in->latency > now() ? int64_t{MISSING} : int64_t{BLOCKED};
        const auto& flit = in->flits[in->taken % FLITS];
        if (flit.arrival != now()) return flit.arrival < now() ? LOST : MISSING;
        std::memcpy(input, flit.data, PLANE);
        sim->inputs_changed = true;
        set(in->taken, in->taken + 1);
        return 0;
    }

    int64_t take_all() {
#define TAKE(side, name, count) \
    if (sim->top.take_##name) { \
        for (int n = 0; n < count; ++n) \
            if ((sim->top.take_##name >> n & 1) && !(taken_mask >> (8 * side + n) & 1)) { \
                auto* input = reinterpret_cast<uint8_t*>(&sim->top.flits_##name) + n * PLANE; \
                if (const int64_t outcome = take(ports[side][n].in, input)) { \
                    fault[0] = 8 * side + n, fault[1] = now(); \
                    return outcome; \
                } \
                taken_mask |= 1u << (8 * side + n); \
            } \
    }
        SIDES(TAKE)
#undef TAKE
        taken_mask = 0;
        return 0;
    }
    uint32_t taken_mask = 0;  // ports whose flit of the present cycle is taken, if another port's is waited for

    // The present cycle's flits; 0, or an outcome.
    int64_t exchange() {
        if (!sends_done && !send_all()) return BLOCKED;
        sends_done = true;
        pass(now() + 1);
        return take_all();
    }

    // Runs until the last token has ended, nothing more can be done, or the turn ends: tokens that ended, or an outcome.
    int64_t run(uint64_t max_cycles, uint64_t* cycles_per_token) {
        pause = sim->cycle + TURN;
        for (;;) {
            if (!entered) {
                if (sim->cycle >= pause) return BLOCKED;
                const bool start = sim->top.token_start, over = !sim->top.running;
                if (start || over) {
                    if (ended >= 0 && static_cast<uint64_t>(ended) < tokens)
                        cycles_per_token[ended] = sim->cycle - since;
                    if (!over || ended >= 0) ++ended;
                    since = sim->cycle;
                }
                if (over) return ended < 0 ? 0 : ended;
                if (now() >= max_cycles) return LATE;
                entered = true;
            }
            if (const int64_t outcome = exchange()) return outcome;
            entered = sends_done = false;
            sim->tick();
        }
    }
};

}  // namespace

extern "C" {

uint64_t link_channel_bytes() { return sizeof(Channel); }

Linked* link_create(Sim* sim) {
    auto* linked = new Linked;
    linked->sim = sim;
    return linked;
}

void link_destroy(Linked* linked) { delete linked; }

void link_connect(Linked* linked, uint32_t side, uint32_t port, Channel* out, Channel* in) {
    linked->ports[side][port].out = out;
    linked->ports[side][port].in = in;
}

// Wrong bits of flits in the next run, in order of flits; they must stay until it ends.
void link_changes(Linked* linked, uint32_t side, uint32_t port, const Change* changes, uint64_t count) {
    linked->ports[side][port].changes = changes;
    linked->ports[side][port].change_count = count;
}

// Starts tokens, which wait for the others. Returns 1 if the first one is ready, 0 if it has no bucket, -4 if neither.
int64_t link_start(Linked* linked, uint32_t tokens, uint64_t max_cycles) {
    Sim* sim = linked->sim;
    const uint32_t data[4] = {tokens, 0, 0, 0};
    sim->top.begin = 0;
    sim->inputs_changed = true;
    sim->write(SPACE_CONTROL, CONTROL_RUN, data);
    sim->tick();  // `running` shows two cycles after the access
    for (uint64_t n = 0; n < max_cycles && sim->top.running; ++n, sim->tick()) {
        if (!sim->top.ready) continue;
        linked->began = sim->cycle;
        linked->tokens = tokens;
        linked->ended = -1;
        linked->entered = linked->sends_done = false;
        linked->sent_mask = linked->taken_mask = 0;
        sim->top.begin = 1;
        sim->inputs_changed = true;
        return 1;
    }
    return sim->top.running ? LATE : 0;
}

// A chip's turn with the tokens of link_start: tokens that ended, or an outcome. After any but BLOCKED nobody waits for
// this chip any more.
int64_t link_step(Linked* linked, uint64_t max_cycles, uint64_t* cycles_per_token) {
    const int64_t outcome = linked->run(max_cycles, cycles_per_token);
    if (outcome != BLOCKED) linked->close();
    linked->reached = linked->sim->cycle;
    return outcome;
}

struct Job {  // a chip, perhaps of another library, and what becomes of it
    Linked* linked;
    int64_t (*step)(Linked*, uint64_t, uint64_t*);  // its library's
    uint64_t* cycles_per_token;
    int64_t outcome;
    uint64_t fault[2];
};

// A turn of all chips that have not ended. Returns whether any is left, and counts tries without a cycle in `tries`.
int link_turn(Job* jobs, uint64_t count, uint64_t max_cycles, uint32_t* tries) {
    bool waits = false;
    ++*tries;
    for (uint64_t n = 0; n < count; ++n) {
        Job& job = jobs[n];
        if (job.outcome != BLOCKED) continue;
        const uint64_t before = job.linked->reached;
        job.outcome = job.step(job.linked, max_cycles, job.cycles_per_token);
        std::memcpy(job.fault, job.linked->fault, sizeof job.fault);
        if (job.linked->reached != before || job.outcome != BLOCKED) *tries = 0;
        waits |= job.outcome == BLOCKED;
    }
    return waits;
}

// Wait after some tries for chips elsewhere.
void link_wait(uint32_t tries) {
    if (tries > 2000) std::this_thread::sleep_for(std::chrono::microseconds(50));
    else if (tries > 200) std::this_thread::yield();
}

// Runs chips in turn in this thread, each as far as it gets, until all have ended. Other threads run other chips.
void link_run(Job* jobs, uint64_t count, uint64_t max_cycles) {
    for (uint32_t tries = 0; link_turn(jobs, count, max_cycles, &tries);) link_wait(tries);
}
}
