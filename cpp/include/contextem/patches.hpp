// Patches around positions; see sampling.hpp for the index rule.
#pragma once

#include "contextem/sampling.hpp"
#include "contextem/view.hpp"

namespace contextem {

template <class T>
void extract_patches(const ImageView<T>& image,       // (rows, columns)
                     const PositionsView& positions,  // (N, 2)
                     const PatchGrid& grid, int n_threads,
                     T* patches);  // (N, P, P)

}  // namespace contextem
