// Moments of patches, and of columns straight from the image.
//
//   a[p, j] = sum_(k, l) w[j, k, l] patch_p[k, l]
//
// A block takes 8 patches and up to 128 modes (blockIdx.y counts groups of modes). Samples of the quadrant go by in
// strips of 64: all threads fold the strip's samples of the 8 patches into shared memory, panel[plane][sample][patch],
// then each thread adds the strip to the 8 sums of its mode, in registers. Threads of a warp read neighbouring
// weights and, modes being grouped by plane, nearly always the same panel value. Shared memory does not grow with P.
#include "check.cuh"
#include "contextem/cuda/moments.hpp"
#include "packed_table.hpp"
#include "sources.hpp"

namespace contextem::cuda {
namespace {

constexpr int patches_per_block = 8;
constexpr int modes_per_block = 128;
constexpr int strip = 64;

template <class T>
struct Panel {
    T value[n_parities][strip][patches_per_block];
};

template <class T, class Source>
__global__ void __launch_bounds__(modes_per_block)
    moments_kernel(Source source, DeviceTableView<T> table, T* __restrict__ moments /* (N, J) */) {
    __shared__ Panel<T> panel;
    const Index first_patch = Index(blockIdx.x) * patches_per_block;
    const Index column = Index(blockIdx.y) * modes_per_block + threadIdx.x;
    const bool active = column < table.n_modes;
    const int plane = active ? table.plane[column] : 0;
    T sum[patches_per_block] = {};

    for (Index start = 0; start < table.samples; start += strip) {
        const int count = static_cast<int>(min(Index(strip), table.samples - start));
        __syncthreads();  // the strip before has been read
        for (int i = threadIdx.x; i < count * patches_per_block; i += modes_per_block) {
            const int q = i % count;  // neighbouring threads take neighbouring samples of one patch
            const int slot = i / count;
            const Index p = first_patch + slot;
            const Folded<T> folded = p < source.count() ? fold_sample(source, table, p, table.sample[start + q])
                                                        : Folded<T>{{T(0), T(0), T(0), T(0)}};
            for (int k = 0; k < n_parities; ++k) {
                panel.value[k][q][slot] = folded.plane[k];
            }
        }
        __syncthreads();
        if (active) {
            const T* weights = table.weights + start * table.n_modes + column;
            for (int q = 0; q < count; ++q) {
                const T weight = weights[q * table.n_modes];
#pragma unroll
                for (int slot = 0; slot < patches_per_block; ++slot) {
                    sum[slot] = fma(weight, panel.value[plane][q][slot], sum[slot]);
                }
            }
        }
    }
    if (active) {
        const Index mode = table.mode[column];
        for (int slot = 0; slot < patches_per_block && first_patch + slot < source.count(); ++slot) {
            moments[(first_patch + slot) * table.n_modes + mode] = sum[slot];
        }
    }
}

template <class T, class Source>
void launch(const Source& source, const DeviceTableView<T>& table, T* moments, void* stream, const char* what) {
    if (source.count() == 0) {
        return;
    }
    const dim3 blocks(static_cast<unsigned>((source.count() + patches_per_block - 1) / patches_per_block),
                      static_cast<unsigned>((table.n_modes + modes_per_block - 1) / modes_per_block));
    auto* const queue = static_cast<cudaStream_t>(stream);
    moments_kernel<T, Source><<<blocks, modes_per_block, 0, queue>>>(source, table, moments);
    check_launch(what);
}

}  // namespace

template <class T>
void patch_moments(const PatchesView<T>& patches, const DeviceTableView<T>& table, T* moments, void* stream) {
    launch(PatchSource<T>{patches}, table, moments, stream, "patch_moments");
}

template <class T>
void column_moments(const ImageView<T>& image, const PositionsView& positions, const PatchGrid& grid,
                    const DeviceTableView<T>& table, T* moments, void* stream) {
    launch(ColumnSource<T>{image, positions, grid}, table, moments, stream, "column_moments");
}

template void patch_moments(const PatchesView<float>&, const DeviceTableView<float>&, float*, void*);
template void patch_moments(const PatchesView<double>&, const DeviceTableView<double>&, double*, void*);
template void column_moments(const ImageView<float>&, const PositionsView&, const PatchGrid&,
                             const DeviceTableView<float>&, float*, void*);
template void column_moments(const ImageView<double>&, const PositionsView&, const PatchGrid&,
                             const DeviceTableView<double>&, double*, void*);

}  // namespace contextem::cuda
