// The rotation kernels of one instruction set; each works on the rows [begin, end).
#pragma once

#include "contextem/rotation.hpp"

namespace contextem {

template <class T>
struct RotationKernels {
    void (*invariants)(const MomentsView<T>&, const std::int32_t* cosine, const std::int32_t* sine, Index count,
                       Index begin, Index end, T* invariants);
    void (*rotate)(const MomentsView<T>&, const std::int32_t* partner, const T* along, const T* across, Index begin,
                   Index end, T* rotated);
};

struct RotationInstructionSet {
    const char* name;
    RotationKernels<float> float32;
    RotationKernels<double> float64;
};

const RotationInstructionSet& baseline_rotation_kernels();
#if defined(CONTEXTEM_X86)
const RotationInstructionSet& avx2_rotation_kernels();
const RotationInstructionSet& avx512_rotation_kernels();
#endif

}  // namespace contextem
