// The harness of `make sim` (sim's harness.cpp stands before this file), and what a page wants besides: to stop where a
// token ends, and memory for what it hands over.

#include <cstdlib>

void* deep_bank(const char* scope);  // of runtime.cpp

extern "C" {

// Passes cycles until `running` falls or `cycles` have passed; returns how many passed.
uint32_t sim_advance(Sim* sim, uint32_t cycles) {
    uint32_t passed = 0;
    while (passed < cycles) {
        sim->tick();
        ++passed;
        if (!sim->top.running) break;
    }
    return passed;
}

void* sim_buffer(uint32_t bytes) { return std::malloc(bytes); }

// The words of a deep bank, as sim/rtl/deep_banks.cpp gives them: uint8 [quad, lane, plane]; null if there is none.
void* sim_bank(const char* scope) { return deep_bank(scope); }
}
