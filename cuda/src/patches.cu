// Patches around positions.
//
//   patches[p, k, l] = I((r_p, c_p) + S (k - h, l - h)),  h = (P - 1) / 2;  see contextem/sampling.hpp
//
// One thread per sample, neighbouring threads along l: writes are coalesced, reads nearly so.
#include <algorithm>

#include "check.cuh"
#include "contextem/cuda/patches.hpp"
#include "sources.hpp"

namespace contextem::cuda {
namespace {

constexpr int threads = 256;

template <class T>
__global__ void extract_kernel(ColumnSource<T> source, T* __restrict__ patches /* (N, P, P) */) {
    const Index size = source.grid.size;
    const Index total = source.count() * size * size;
    const Index step = Index(gridDim.x) * threads;
    for (Index i = Index(blockIdx.x) * threads + threadIdx.x; i < total; i += step) {
        const Index row = i / size;
        patches[i] = source(row / size, row % size, i % size);
    }
}

}  // namespace

template <class T>
void extract_patches(const ImageView<T>& image, const PositionsView& positions, const PatchGrid& grid, T* patches,
                     void* stream) {
    const Index total = positions.count * grid.size * grid.size;
    if (total == 0) {
        return;
    }
    const Index blocks = std::min<Index>((total + threads - 1) / threads, 1 << 20);
    extract_kernel<T><<<static_cast<unsigned>(blocks), threads, 0, static_cast<cudaStream_t>(stream)>>>(
        ColumnSource<T>{image, positions, grid}, patches);
    check_launch("extract_patches");
}

template void extract_patches(const ImageView<float>&, const PositionsView&, const PatchGrid&, float*, void*);
template void extract_patches(const ImageView<double>&, const PositionsView&, const PatchGrid&, double*, void*);

}  // namespace contextem::cuda
