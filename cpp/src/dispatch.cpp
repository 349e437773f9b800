#include <cstdlib>
#include <cstring>

#include "kernels.hpp"

namespace contextem {
namespace {

const InstructionSet& choose() {
#if defined(CONTEXTEM_X86)
    const char* wanted = std::getenv("CONTEXTEM_SIMD");
    const auto allowed = [wanted](const char* name) { return wanted == nullptr || std::strcmp(wanted, name) == 0; };
    __builtin_cpu_init();
    if (allowed("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
        return avx512_kernels();
    }
    if (allowed("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return avx2_kernels();
    }
#endif
    return baseline_kernels();
}

}  // namespace

const InstructionSet& instruction_set() {
    static const InstructionSet& chosen = choose();
    return chosen;
}

template <>
const Kernels<float>& kernels<float>() {
    return instruction_set().float32;
}

template <>
const Kernels<double>& kernels<double>() {
    return instruction_set().float64;
}

const char* simd_name() { return instruction_set().name; }

}  // namespace contextem
