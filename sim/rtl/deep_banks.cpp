// Follows harness.cpp for chips with deep banks of MEM (hw/ram.v): their words, for contents that would take the host
// port a cycle for every plane of a quad.

#include "verilated_syms.h"

// The words of the bank of this scope, in order; null if there is none.
extern "C" void* sim_bank(const Sim* sim, const char* scope) {
    const VerilatedScope* bank = sim->context.scopeFind(scope);
    VerilatedVar* words = bank ? bank->varFind("words") : nullptr;
    return words ? words->datap() : nullptr;
}
