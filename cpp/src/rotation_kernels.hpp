// The rotation kernels of one instruction set; each works on the rows [begin, end).
#pragma once

#include "contextem/rotation.hpp"

namespace contextem {

constexpr Index rotation_rows = 16;  // rows whose modes are gathered together

template <class T>
struct RotationKernels {
    void (*invariants)(const MomentsView<T>&, const InvariantPlan&, Index begin, Index end,
                       T* pairs /* (2, rotation_rows, J') */, T* invariants);
    void (*rotate)(const MomentsView<T>&, const RotationPlan<T>&, Index begin, Index end,
                   T* partners /* (rotation_rows, J) */, T* rotated);
};

}  // namespace contextem
