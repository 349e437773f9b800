#include <cstdlib>
#include <cstring>

#include "column_kernels.hpp"
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

#define CONTEXTEM_COLUMN_KERNELS(set)                                                                     \
    ColumnKernels {                                                                                       \
        peak_kernels32_##set(), peak_kernels64_##set(), lattice_kernels_##set(), growth_kernels_##set(),  \
            refine_kernels32_##set(), refine_kernels64_##set()                                            \
    }

ColumnKernels choose_column_kernels() {
#if defined(CONTEXTEM_X86)
    if (std::strcmp(simd_name(), "avx512") == 0) {
        return CONTEXTEM_COLUMN_KERNELS(avx512);
    }
    if (std::strcmp(simd_name(), "avx2") == 0) {
        return CONTEXTEM_COLUMN_KERNELS(avx2);
    }
#endif
    return CONTEXTEM_COLUMN_KERNELS(baseline);
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

const ColumnKernels& column_kernels() {
    static const ColumnKernels chosen = choose_column_kernels();
    return chosen;
}

template <class T>
Index simd_lanes() {
    return kernels<T>().lanes;
}

template Index simd_lanes<float>();
template Index simd_lanes<double>();

}  // namespace contextem
