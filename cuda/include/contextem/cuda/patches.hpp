// Patches around positions, on the device; see contextem/sampling.hpp for the index rule.
#pragma once

#include "contextem/sampling.hpp"
#include "contextem/view.hpp"

namespace contextem::cuda {

template <class T>
void extract_patches(const ImageView<T>& image,       // (rows, columns), device memory
                     const PositionsView& positions,  // (N, 2), device memory
                     const PatchGrid& grid,
                     T* patches,  // (N, P, P), device memory
                     void* stream);

}  // namespace contextem::cuda
