#include "contextem/rotation.hpp"

#include <cstring>

#include "contextem/aligned.hpp"
#include "contextem/moments.hpp"
#include "contextem/parallel.hpp"
#include "rotation_kernels.hpp"

namespace contextem {
namespace {

constexpr Index grain = 4096;  // rows: starting a thread takes as long as some thousand of them

// The kernels of the instruction set in use.
const RotationInstructionSet& rotation_instruction_set() {
#if defined(CONTEXTEM_X86)
    for (const auto& set : {&avx512_rotation_kernels, &avx2_rotation_kernels}) {
        if (std::strcmp(set().name, simd_name()) == 0) {
            return set();
        }
    }
#endif
    return baseline_rotation_kernels();
}

template <class T>
const RotationKernels<T>& rotation_kernels();
template <>
const RotationKernels<float>& rotation_kernels<float>() {
    return rotation_instruction_set().float32;
}
template <>
const RotationKernels<double>& rotation_kernels<double>() {
    return rotation_instruction_set().float64;
}

}  // namespace

template <class T>
void rotation_invariants(const MomentsView<T>& moments, const InvariantPlan& plan, int n_threads, T* invariants) {
    const RotationKernels<T>& kernel = rotation_kernels<T>();
    parallel_for(moments.count, grain, n_threads, [&](Index begin, Index end) {
        AlignedVector<T> pairs(2 * static_cast<std::size_t>(rotation_rows) * plan.cosine.size());
        kernel.invariants(moments, plan, begin, end, pairs.data(), invariants);
    });
}

template <class T>
void rotate_moments(const MomentsView<T>& moments, const RotationPlan<T>& plan, int n_threads, T* rotated) {
    const RotationKernels<T>& kernel = rotation_kernels<T>();
    parallel_for(moments.count, grain, n_threads, [&](Index begin, Index end) {
        AlignedVector<T> partners(static_cast<std::size_t>(rotation_rows) * plan.partner.size());
        kernel.rotate(moments, plan, begin, end, partners.data(), rotated);
    });
}

template void rotation_invariants(const MomentsView<float>&, const InvariantPlan&, int, float*);
template void rotation_invariants(const MomentsView<double>&, const InvariantPlan&, int, double*);
template void rotate_moments(const MomentsView<float>&, const RotationPlan<float>&, int, float*);
template void rotate_moments(const MomentsView<double>&, const RotationPlan<double>&, int, double*);

}  // namespace contextem
