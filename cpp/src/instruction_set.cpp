#include "instruction_set.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "contextem/instruction_sets.hpp"

namespace contextem {
namespace {

// Those this processor can run, the narrowest first.
std::vector<InstructionSet> available_sets() {
    std::vector<InstructionSet> sets = {baseline::kernel_set()};
#if defined(CONTEXTEM_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        sets.push_back(avx2::kernel_set());
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq")) {
        sets.push_back(avx512::kernel_set());
    }
#endif
    return sets;
}

InstructionSet choose() {
    const std::vector<InstructionSet> sets = available_sets();
    const char* variable = std::getenv("CONTEXTEM_SIMD");  // NOLINT(concurrency-mt-unsafe): once
    const std::string wanted = variable == nullptr ? "" : variable;
    if (wanted.empty()) {
        return sets.back();
    }
    std::string names;
    for (const InstructionSet& set : sets) {
        if (wanted == set.name) {
            return set;
        }
        names += (names.empty() ? "" : ", ") + std::string(set.name);
    }
    throw std::invalid_argument("CONTEXTEM_SIMD: expected one of the instruction sets of this machine (" + names +
                                "), got '" + wanted + "'");
}

}  // namespace

std::vector<const char*> simd_available() {
    std::vector<const char*> names;
    for (const InstructionSet& set : available_sets()) {
        names.push_back(set.name);
    }
    return names;
}

const InstructionSet& instruction_set() {
    static const InstructionSet chosen = choose();
    return chosen;
}

const char* simd_name() { return instruction_set().name; }

}  // namespace contextem
