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

// Scopes name only the words of deep banks (hw/ram.v), which the page fills directly.
namespace {
struct Bank {
    const char* scope;
    void* words;
};
Bank banks[64];
int known = 0;
}  // namespace

VerilatedScope::VerilatedScope(VerilatedSyms* syms, const char* scope, const char* identifier, const char* definition,
                               int8_t timeunit, Type type)
    : m_symsp{syms}, m_namep{scope}, m_identifierp{identifier}, m_defnamep{definition}, m_timeunit{timeunit},
      m_type{type} {}
VerilatedScope::~VerilatedScope() = default;

VerilatedVar* VerilatedScope::varInsert(const char*, void* words, bool, VerilatedVarType, int, int, int, ...) VL_MT_UNSAFE {
    if (known == sizeof banks / sizeof *banks) __builtin_trap();
    banks[known++] = {m_namep, words};
    return nullptr;
}

void* deep_bank(const char* scope) {
    for (int n = 0; n < known; ++n) {
        if (!std::strcmp(banks[n].scope, scope)) return banks[n].words;
    }
    return nullptr;
}

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
