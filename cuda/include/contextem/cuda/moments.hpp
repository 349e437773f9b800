// Moments of patches, and of columns straight from the image, on the device.
#pragma once

#include "contextem/cuda/device.hpp"
#include "contextem/sampling.hpp"
#include "contextem/view.hpp"

namespace contextem::cuda {

template <class T>
void patch_moments(const PatchesView<T>& patches,  // (N, P, P), device memory
                   const DeviceTableView<T>& table,
                   T* moments,  // (N, J), device memory
                   void* stream);

template <class T>
void column_moments(const ImageView<T>& image,       // (rows, columns), device memory
                    const PositionsView& positions,  // (N, 2), device memory
                    const PatchGrid& grid, const DeviceTableView<T>& table,
                    T* moments,  // (N, J), device memory
                    void* stream);

}  // namespace contextem::cuda
