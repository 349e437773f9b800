// The adjoint of the moments.
//
//   patches     q[p, k, l] = sum_j g[p, j] w[j, k, l]
//   image       G[r, c]    = sum_p sum_(k, l) q[p, k, l] t_p,k,l[r, c]
//   positions   D[p]       = sum_(k, l) q[p, k, l] grad I(c_p + S d_kl)
//
// Patches: a block takes 8 patches and 128 samples of the quadrant, one per thread. Modes go by in strips of 64, whose
// coefficients of the 8 patches lie in shared memory; neighbouring threads read neighbouring weights, and the 4 x 8
// sums stay in registers.
//
// Image: gathered, not scattered, so that no atomic addition makes the last bit change from run to run. Columns are
// sorted by bins of 8 x 32 pixels (a stable radix sort, CUB's), then each pixel is a thread that adds what it gets back
// from the columns around it, in their sorted order. Patches come in parts of 64 MiB, which mostly stay in the cache;
// the order of additions does not depend on the parts.
//
// Positions: a warp per column sums its samples in a fixed order.
#include <algorithm>
#include <cub/device/device_radix_sort.cuh>
#include <limits>

#include "adjoint_arithmetic.hpp"
#include "check.cuh"
#include "contextem/cuda/adjoint.hpp"

namespace contextem::cuda {
namespace {

constexpr int threads = 256;

unsigned blocks_of(Index count) {
    return static_cast<unsigned>(std::min<Index>((count + threads - 1) / threads, 1 << 20));
}

template <class T>
__global__ void __launch_bounds__(adjoint_threads)
    patches_kernel(MomentsView<T> gradient, RowsInOrder rows, AdjointTableView<T> table,
                   T* __restrict__ patches /* (count, P, P) */) {
    __shared__ T coefficients[mode_strip * adjoint_group];
    const int thread = static_cast<int>(threadIdx.x);
    const AdjointBlockIndex block = adjoint_block(Index(blockIdx.x), table.samples);
    const Index q = block.first_sample + thread;
    AdjointSums<T> sums = {};
    for (Index start = 0; start < table.n_modes; start += mode_strip) {
        const int n = static_cast<int>(min(Index(mode_strip), table.n_modes - start));
        __syncthreads();  // the strip before has been read
        stage_coefficients(gradient, rows, block.first_patch, table, start, n, thread, coefficients);
        __syncthreads();
        if (q < table.samples) {
            add_modes(table, q, start, n, coefficients, sums);
        }
    }
    if (q < table.samples) {
#pragma unroll
        for (int slot = 0; slot < adjoint_group; ++slot) {
            if (block.first_patch + slot < rows.count) {
                unfold(table, q, sums, slot, patches + (block.first_patch + slot) * table.size * table.size);
            }
        }
    }
}

__global__ void bins_kernel(PositionsView positions, Bins bins, std::int32_t* __restrict__ bin /* (N) */,
                            std::int32_t* __restrict__ number /* (N) */) {
    const Index step = Index(gridDim.x) * threads;
    for (Index p = Index(blockIdx.x) * threads + threadIdx.x; p < positions.count; p += step) {
        bin[p] = bins.of(positions.data + 2 * p);
        number[p] = static_cast<std::int32_t>(p);
    }
}

__global__ void starts_kernel(const std::int32_t* __restrict__ sorted /* (count) */, Index count, Index n_bins,
                              std::int32_t* __restrict__ starts /* (n_bins + 1) */) {
    const Index step = Index(gridDim.x) * threads;
    for (Index bin = Index(blockIdx.x) * threads + threadIdx.x; bin <= n_bins; bin += step) {
        starts[bin] = static_cast<std::int32_t>(first_in_bin(sorted, count, bin));
    }
}

template <class T>
__global__ void __launch_bounds__(bin_rows* bin_columns)
    gather_kernel(const T* __restrict__ patches /* (end - begin, P, P) */, Index begin, Index end,
                  const std::int32_t* __restrict__ order, const std::int32_t* __restrict__ starts,
                  PositionsView positions, PatchGrid grid, InverseGrid inverse, Bins bins,
                  T* __restrict__ image /* (rows, columns) */) {
    for (Index tile = blockIdx.x; tile < bins.count(); tile += gridDim.x) {
        const Index tile_row = tile / bins.across;
        const Index tile_column = tile % bins.across;
        const Index row = tile_row * bin_rows + threadIdx.y;
        const Index column = tile_column * bin_columns + threadIdx.x;
        if (row < bins.rows && column < bins.columns) {
            T* const pixel = image + row * bins.columns + column;
            *pixel = gather_columns(patches, begin, end, order, starts, positions, grid, inverse, bins,
                                    bins_around(bins, tile_row, tile_column), row, column, *pixel);
        }
    }
}

template <class T>
__global__ void slopes_kernel(const T* __restrict__ patches /* (count, P, P) */, Index begin, Index count,
                              ImageView<T> image, PositionsView positions, PatchGrid grid,
                              double* __restrict__ slopes /* (N, 2) */) {
    const Index step = Index(gridDim.x) * (threads / warp_lanes);
    const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
    for (Index i = Index(blockIdx.x) * (threads / warp_lanes) + threadIdx.x / warp_lanes; i < count; i += step) {
        Slope sum =
            lane_slope(image, positions.data + 2 * (begin + i), grid, patches + i * grid.size * grid.size, lane);
        for (int distance = warp_lanes / 2; distance > 0; distance /= 2) {
            sum.along_rows += __shfl_down_sync(0xffffffffu, sum.along_rows, distance);
            sum.along_columns += __shfl_down_sync(0xffffffffu, sum.along_columns, distance);
        }
        if (lane == 0) {
            slopes[2 * (begin + i)] = sum.along_rows;
            slopes[2 * (begin + i) + 1] = sum.along_columns;
        }
    }
}

template <class T>
void launch_patches(const MomentsView<T>& gradient, const RowsInOrder& rows, const AdjointTableView<T>& table,
                    T* patches, cudaStream_t queue, const char* what) {
    const std::size_t bytes = static_cast<std::size_t>(rows.count * table.size * table.size) * sizeof(T);
    check(cudaMemsetAsync(patches, 0, bytes, queue), what);  // what no mode sees is 0
    if (table.samples > 0) {
        const Index blocks = adjoint_blocks(rows.count, table.samples);
        patches_kernel<T><<<static_cast<unsigned>(blocks), adjoint_threads, 0, queue>>>(gradient, rows, table, patches);
        check_launch(what);
    }
}

std::size_t sorting_bytes(Index count) {
    std::size_t bytes = 0;
    std::int32_t* const nothing = nullptr;
    check(cub::DeviceRadixSort::SortPairs(nullptr, bytes, nothing, nothing, nothing, nothing, count),
          "column_moments_adjoint");
    return bytes;
}

int bits_of(Index largest) {
    int bits = 1;
    while (bits < 31 && (largest >> bits) != 0) {
        ++bits;
    }
    return bits;
}

template <class T>
AdjointScratch column_layout(Index count, const Bins& bins, Index size) {
    if (count > std::numeric_limits<std::int32_t>::max() || bins.count() >= std::numeric_limits<std::int32_t>::max()) {
        throw std::invalid_argument("positions, shape: expected fewer than 2^31 columns and 2^39 pixels");
    }
    const std::size_t patch_bytes = static_cast<std::size_t>(patches_at_once<T>(count, size) * size * size) * sizeof(T);
    return AdjointScratch(count, bins.count(), sorting_bytes(count), patch_bytes);
}

}  // namespace

template <class T>
DeviceAdjointTable<T>::DeviceAdjointTable(const AdjointTable<T>& table, int device) : device_(device) {
    const PackedAdjoint<T> packed(table);
    // one allocation, weights first: they need the widest alignment
    const std::size_t weight_bytes = packed.weights.size() * sizeof(T);
    const std::size_t index_bytes = packed.indices.size() * sizeof(std::int32_t);
    const DeviceGuard guard(device);
    check(cudaMalloc(&memory_, std::max<std::size_t>(weight_bytes + index_bytes, 1)), "adjoint table");
    auto* bytes = static_cast<unsigned char*>(memory_);
    cudaError_t copied = copy_to_device(bytes, packed.weights.data(), weight_bytes);
    if (copied == cudaSuccess) {
        copied = copy_to_device(bytes + weight_bytes, packed.indices.data(), index_bytes);
    }
    if (copied != cudaSuccess) {
        cudaFree(memory_);
        check(copied, "adjoint table");
    }
    view_ = packed.at(reinterpret_cast<const T*>(bytes), reinterpret_cast<const std::int32_t*>(bytes + weight_bytes));
}

template <class T>
DeviceAdjointTable<T>::~DeviceAdjointTable() {
    cudaFree(memory_);  // fails harmlessly when the process is already taking the context down
}

template <class T>
void patch_moments_adjoint(const MomentsView<T>& gradient, const AdjointTableView<T>& table, T* patches, void* stream) {
    if (gradient.count > 0) {
        launch_patches(gradient, RowsInOrder{nullptr, 0, gradient.count}, table, patches,
                       static_cast<cudaStream_t>(stream), "patch_moments_adjoint");
    }
}

template <class T>
std::size_t column_adjoint_scratch(Index count, Index rows, Index columns, Index size) {
    const PatchGrid grid = {size, 1.0, 0.0, 0.0, 1.0, Interpolation::linear};
    return column_layout<T>(count, Bins(rows, columns, grid), size).total;
}

template <class T>
void column_moments_adjoint(const MomentsView<T>& gradient, const PositionsView& positions, const PatchGrid& grid,
                            const AdjointTableView<T>& table, Index rows, Index columns, void* scratch, T* image,
                            void* stream) {
    constexpr const char* what = "column_moments_adjoint";
    auto* const queue = static_cast<cudaStream_t>(stream);
    check(cudaMemsetAsync(image, 0, static_cast<std::size_t>(rows * columns) * sizeof(T), queue), what);
    const Index count = positions.count;
    if (count == 0) {
        return;
    }
    const Bins bins(rows, columns, grid);
    const AdjointScratch layout = column_layout<T>(count, bins, grid.size);
    auto* const bytes = static_cast<unsigned char*>(scratch);
    const auto list = [bytes](std::size_t offset) { return reinterpret_cast<std::int32_t*>(bytes + offset); };
    std::int32_t* const order = list(layout.order);
    std::int32_t* const starts = list(layout.starts);
    auto* const patches = reinterpret_cast<T*>(bytes + layout.patches);

    bins_kernel<<<blocks_of(count), threads, 0, queue>>>(positions, bins, list(layout.bins), list(layout.numbers));
    check_launch(what);
    std::size_t sorting = layout.patches - layout.sorting;
    check(cub::DeviceRadixSort::SortPairs(bytes + layout.sorting, sorting, list(layout.bins), list(layout.sorted),
                                          list(layout.numbers), order, count, 0, bits_of(bins.count()), queue),
          what);
    starts_kernel<<<blocks_of(bins.count() + 1), threads, 0, queue>>>(list(layout.sorted), count, bins.count(), starts);
    check_launch(what);

    const Index part = patches_at_once<T>(count, grid.size);
    const unsigned tiles = static_cast<unsigned>(std::min<Index>(bins.count(), 1 << 20));
    const dim3 tile(static_cast<unsigned>(bin_columns), static_cast<unsigned>(bin_rows));
    for (Index begin = 0; begin < count; begin += part) {
        const Index end = std::min(begin + part, count);
        launch_patches(gradient, RowsInOrder{order, begin, end - begin}, table, patches, queue, what);
        gather_kernel<T>
            <<<tiles, tile, 0, queue>>>(patches, begin, end, order, starts, positions, grid, invert(grid), bins, image);
        check_launch(what);
    }
}

template <class T>
std::size_t position_gradient_scratch(Index count, Index size) {
    return static_cast<std::size_t>(patches_at_once<T>(count, size) * size * size) * sizeof(T);
}

template <class T>
void column_moments_position_gradient(const MomentsView<T>& gradient, const ImageView<T>& image,
                                      const PositionsView& positions, const PatchGrid& grid,
                                      const AdjointTableView<T>& table, void* scratch, double* slopes, void* stream) {
    constexpr const char* what = "column_moments_position_gradient";
    auto* const queue = static_cast<cudaStream_t>(stream);
    auto* const patches = static_cast<T*>(scratch);
    const Index part = patches_at_once<T>(positions.count, grid.size);
    for (Index begin = 0; begin < positions.count; begin += part) {
        const Index count = std::min(part, positions.count - begin);
        launch_patches(gradient, RowsInOrder{nullptr, begin, count}, table, patches, queue, what);
        slopes_kernel<T><<<blocks_of(count * warp_lanes), threads, 0, queue>>>(patches, begin, count, image, positions,
                                                                               grid, slopes);
        check_launch(what);
    }
}

#define CONTEXTEM_INSTANTIATE(T)                                                                                     \
    template class DeviceAdjointTable<T>;                                                                            \
    template void patch_moments_adjoint(const MomentsView<T>&, const AdjointTableView<T>&, T*, void*);               \
    template std::size_t column_adjoint_scratch<T>(Index, Index, Index, Index);                                      \
    template void column_moments_adjoint(const MomentsView<T>&, const PositionsView&, const PatchGrid&,              \
                                         const AdjointTableView<T>&, Index, Index, void*, T*, void*);                \
    template std::size_t position_gradient_scratch<T>(Index, Index);                                                 \
    template void column_moments_position_gradient(const MomentsView<T>&, const ImageView<T>&, const PositionsView&, \
                                                   const PatchGrid&, const AdjointTableView<T>&, void*, double*,     \
                                                   void*);
CONTEXTEM_INSTANTIATE(float)
CONTEXTEM_INSTANTIATE(double)
#undef CONTEXTEM_INSTANTIATE

}  // namespace contextem::cuda
