// A Verilated model behind a few functions; TOP and PORTS are defined in front of this text, and TAKE where inputs are
// taken at a port's edge.
#include "verilated.h"
#include <cstdint>
#include <cstring>
#include <memory>

struct Model {
    VerilatedContext context;
    TOP top{&context};
    bool changed = true;

    void take() {
#ifdef TAKE
        if (changed) {
            top.TAKE = 1;
            top.eval();
            top.TAKE = 0;
            top.eval();
        }
#endif
        changed = false;
    }
};

extern "C" {
__attribute__((visibility("default"))) void* create() {
    auto* model = new Model;
#ifdef TAKE
    model->top.TAKE = 0;
#endif
    model->top.clk = 0;
    model->top.rst = 0;
    model->top.eval();
    return model;
}
__attribute__((visibility("default"))) void destroy(void* model) { delete static_cast<Model*>(model); }
__attribute__((visibility("default"))) void run(void* pointer, uint64_t cycles) {
    auto& top = static_cast<Model*>(pointer)->top;
    static_cast<Model*>(pointer)->take();
    for (uint64_t n = 0; n < cycles; n++) {
        top.clk = 1;
        top.eval();
        top.clk = 0;
        top.eval();
    }
}
#define GET(port) if (number == n++) std::memcpy(bytes, &top.port, sizeof top.port);
__attribute__((visibility("default"))) void get(void* pointer, int number, void* bytes) {
    auto& top = static_cast<Model*>(pointer)->top;
    int n = 0;
    PORTS(GET)
}
#define PUT(port) if (number == n++) std::memcpy(&top.port, bytes, sizeof top.port);
__attribute__((visibility("default"))) void put(void* pointer, int number, const void* bytes) {
    auto& top = static_cast<Model*>(pointer)->top;
    static_cast<Model*>(pointer)->changed = true;
    int n = 0;
    PORTS(PUT)
}
}
