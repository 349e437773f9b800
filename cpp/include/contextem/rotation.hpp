// Rotation of moments, and what no rotation changes of them. Both work on the pairs (a_n,+m, a_n,-m) of each row.
//
//   invariants   b[p, i] = sqrt(a[p, cosine_i]^2 + a[p, sine_i]^2);   a[p, cosine_i], signed, where m = 0
//   rotation     b[p, j] = along_j a[p, j] + across_j a[p, partner_j]
//
// The modulus neither overflows nor underflows where it can be represented, and errs by at most 1 unit in the last
// place; it is infinite where either part is.
#pragma once

#include <cstdint>
#include <vector>

#include "contextem/view.hpp"

namespace contextem {

// Modes of each invariant.
struct InvariantPlan {
    std::vector<std::int32_t> cosine;  // (J')
    std::vector<std::int32_t> sine;    // (J')
};

// What each mode of the turned moments is made of.
template <class T>
struct RotationPlan {
    std::vector<std::int32_t> partner;  // (J)
    std::vector<T> along;               // (J)
    std::vector<T> across;              // (J)
};

template <class T>
void rotation_invariants(const MomentsView<T>& moments,  // (N, J)
                         const InvariantPlan& plan, int n_threads,
                         T* invariants);  // (N, J')

template <class T>
void rotate_moments(const MomentsView<T>& moments,  // (N, J)
                    const RotationPlan<T>& plan, int n_threads,
                    T* rotated);  // (N, J)

}  // namespace contextem
