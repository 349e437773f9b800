#include "contextem/rotation.hpp"

#include "contextem/aligned.hpp"
#include "contextem/parallel.hpp"
#include "instruction_set.hpp"

namespace contextem {
namespace {

constexpr Index grain = 4096;  // rows: starting a thread takes as long as some thousand of them

}  // namespace

template <class T>
void rotation_invariants(const MomentsView<T>& moments, const InvariantPlan& plan, int n_threads, T* invariants) {
    const RotationKernels<T>& kernel = instruction_set().rotation.of<T>();
    parallel_for(moments.count, grain, n_threads, [&](Index begin, Index end) {
        AlignedVector<T> pairs(2 * static_cast<std::size_t>(rotation_rows) * plan.cosine.size());
        kernel.invariants(moments, plan, begin, end, pairs.data(), invariants);
    });
}

template <class T>
void rotate_moments(const MomentsView<T>& moments, const RotationPlan<T>& plan, int n_threads, T* rotated) {
    const RotationKernels<T>& kernel = instruction_set().rotation.of<T>();
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
