// What a Verilated chip needs of Verilator's runtime, for WebAssembly: verilated.cpp brings files, plusargs, threads and
// printing, which the chip uses nowhere and a browser does not have. One chip, one thread, no messages.

#include <cstring>

#include "verilated.h"

class VerilatedContextImpData final {};

VerilatedContext::Serialized::Serialized() : m_timeunit{-9}, m_timeprecision{-12} {}
VerilatedContext::VerilatedContext() = default;
VerilatedContext::~VerilatedContext() = default;
void VerilatedContext::addModel(const VerilatedModel*) {}
void VerilatedContext::executingFinal(bool) VL_MT_SAFE {}
void VerilatedContext::timeunit(int) VL_MT_SAFE {}

VerilatedModel::VerilatedModel(VerilatedContext& context) : m_context{context} {}
std::unique_ptr<VerilatedTraceConfig> VerilatedModel::traceConfig() const { return nullptr; }

VerilatedSyms::VerilatedSyms(VerilatedContext* contextp) : _vm_contextp__{contextp}, __Vm_evalMsgQp{nullptr} {}
VerilatedSyms::~VerilatedSyms() = default;

void Verilated::endOfEval(VerilatedEvalMsgQueue*) VL_MT_SAFE {}
void Verilated::stackCheck(QData) VL_MT_UNSAFE {}
void VlDeleter::deleteAll() {}  // no classes in the chip, so nothing was ever put here

unsigned VlOs::getProcessDefaultParallelism() VL_MT_SAFE { return 1; }

WDataOutP VL_ZERO_RESET_W(int bits, WDataOutP words) VL_MT_SAFE {
    std::memset(words, 0, VL_WORDS_I(bits) * sizeof(EData));
    return words;
}

// "Did not converge" and the like: a bug of the RTL. The module traps, and the page says so.
void VL_FATAL_MT(const char*, int, const char*, const char*) VL_MT_SAFE { __builtin_trap(); }
