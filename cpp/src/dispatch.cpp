#include <cstdlib>
#include <stdexcept>
#include <string>

#include "contextem/instruction_sets.hpp"
#include "contextem/roofline.hpp"
#include "kernels.hpp"
#include "roofline_kernels.hpp"

namespace contextem {
namespace {

// One compilation of the kernels.
struct Path {
    const InstructionSet* kernels;
    const RooflineKernels* roofline;
};

// Those this processor can run, the narrowest first.
std::vector<Path> available_paths() {
    std::vector<Path> paths = {{&baseline_kernels(), &baseline_roofline()}};
#if defined(CONTEXTEM_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        paths.push_back({&avx2_kernels(), &avx2_roofline()});
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq")) {
        paths.push_back({&avx512_kernels(), &avx512_roofline()});
    }
#endif
    return paths;
}

Path choose() {
    const std::vector<Path> paths = available_paths();
    const char* variable = std::getenv("CONTEXTEM_SIMD");
    const std::string wanted = variable == nullptr ? "" : variable;
    if (wanted.empty()) {
        return paths.back();
    }
    std::string names;
    for (const Path& path : paths) {
        if (wanted == path.kernels->name) {
            return path;
        }
        names += (names.empty() ? "" : ", ") + std::string(path.kernels->name);
    }
    throw std::invalid_argument("CONTEXTEM_SIMD: expected one of the instruction sets of this machine (" + names +
                                "), got '" + wanted + "'");
}

const Path& path_in_use() {
    static const Path chosen = choose();
    return chosen;
}

}  // namespace

std::vector<const char*> simd_available() {
    std::vector<const char*> names;
    for (const Path& path : available_paths()) {
        names.push_back(path.kernels->name);
    }
    return names;
}

const InstructionSet& instruction_set() { return *path_in_use().kernels; }

template <>
const Kernels<float>& kernels<float>() {
    return instruction_set().float32;
}

template <>
const Kernels<double>& kernels<double>() {
    return instruction_set().float64;
}

const char* simd_name() { return instruction_set().name; }

template <>
float multiply_adds<float>(Index count) {
    return path_in_use().roofline->multiply_adds_float32(count);
}

template <>
double multiply_adds<double>(Index count) {
    return path_in_use().roofline->multiply_adds_float64(count);
}

float read_values(const float* values, Index count, Index passes) {
    return path_in_use().roofline->read_values(values, count, passes);
}

void copy_values(const float* source, Index count, Index passes, float* target) {
    path_in_use().roofline->copy_values(source, count, passes, target);
}

}  // namespace contextem
