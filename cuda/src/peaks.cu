// Peaks: the Laplacian-of-Gaussian response, and its local maxima.
//
//   response[r, c] = -sigma^2 sum_ij (k2[i] k0[j] + k0[i] k2[j]) I[r + i, c + j]     |i|, |j| <= R = round(4 sigma)
//   maximum[r, c] = response > 0, > threshold, and no lower than its eight neighbours, moved to the top of a quadratic
//
// Filters, mirroring and order of additions are those of the C++ kernels (contextem/peak_arithmetic.hpp), and nothing
// is contracted: both find the same peaks to the last bit.
//
// Response: a block takes 32 rows of up to 128 columns. Down the rows first, for both filters at once, a thread eight
// pixels of a column, whose neighbours at distance i pass through its registers, two loads from the cache a step; then
// along the columns from shared memory, a lane a row, eight pixels at a time in the same way. The radius is not bound
// to the code: the tile narrows until two blocks fit.
//
// Maxima: a warp marks 32 neighbouring pixels, a bit each; bits are counted and summed up (CUB), so that every word
// knows where its maxima belong: row-major order whatever runs first. A third kernel writes them. The count stays on
// the device.
//
// For a float image and R = 15 (sigma 3.8, a lattice constant of 32 px) that is 12 bytes of device memory a pixel, 4
// read and 4 written by the response and 4 read again for the marks, and 430 instructions of a warp for 32 pixels; see
// benchmarks/README.md.
#include "contextem/cuda/peaks.hpp"

#include <thrust/iterator/transform_iterator.h>

#include <algorithm>
#include <cub/device/device_scan.cuh>
#include <stdexcept>
#include <string>

#include "check.cuh"
#include "peak_tile.hpp"

namespace contextem::cuda {
namespace {

constexpr int threads = 256;
constexpr int lanes = 32;

unsigned blocks_of(Index items, Index each) {
    return static_cast<unsigned>(std::min<Index>((items + each - 1) / each, 1 << 20));
}

template <class T>
__global__ void __launch_bounds__(response_threads)
    response_kernel(ImageView<T> image, const __grid_constant__ DeviceFilters<T> filters, ResponseTile tile,
                    Index tiles_across, T* __restrict__ response /* (rows, columns) */) {
    extern __shared__ __align__(16) unsigned char memory[];
    T* const shared = reinterpret_cast<T*>(memory);
    const int thread = static_cast<int>(threadIdx.x);
    const Index first_row = Index(blockIdx.x) / tiles_across * tile_rows;
    const Index first_column = Index(blockIdx.x) % tiles_across * tile.columns;
    fill_tile(image, filters, tile, first_row, first_column, thread, shared);
    __syncthreads();
    convolve_across(filters, tile, thread, shared);
    __syncthreads();
    write_tile(tile, image.rows, image.columns, first_row, first_column, thread, shared, response);
}

template <class T>
__global__ void __launch_bounds__(threads) mark_kernel(ImageView<T> response, double threshold, Index words,
                                                       std::uint32_t* __restrict__ marks /* (words + 1) */) {
    const Index across = words_across(response.columns);
    const Index lane = threadIdx.x % lanes;
    const Index step = Index(gridDim.x) * (threads / lanes);
    for (Index word = Index(blockIdx.x) * (threads / lanes) + threadIdx.x / lanes; word <= words; word += step) {
        const bool peak =
            word < words && is_peak(response, threshold, word / across, word % across * word_pixels + lane);
        const std::uint32_t bits = __ballot_sync(0xffffffffu, peak);
        if (lane == 0) {
            marks[word] = bits;
        }
    }
}

template <class T>
__global__ void __launch_bounds__(threads)
    write_kernel(ImageView<T> response, Index words, const std::uint32_t* __restrict__ marks,
                 const Index* __restrict__ before /* (words + 1) */, Index capacity,
                 double* __restrict__ positions /* (capacity, 2) */, double* __restrict__ heights /* (capacity) */) {
    const Index start = Index(blockIdx.x) * threads + threadIdx.x;
    const Index step = Index(gridDim.x) * threads;
    for (Index number = start; number < words; number += step) {
        write_word(response, number, marks[number], before[number], capacity, positions, heights);
    }
    const double nothing = nan("");
    for (Index i = before[words] + start; i < capacity; i += step) {
        positions[2 * i] = positions[2 * i + 1] = heights[i] = nothing;
    }
}

struct CountBits {
    __host__ __device__ Index operator()(std::uint32_t word) const { return count_bits(word); }
};

// What lies where in the scratch: marks, where the maxima of each word begin, and what CUB needs.
struct MaximaScratch {
    Index words;
    std::size_t before;
    std::size_t scan;
    std::size_t scan_bytes;

    MaximaScratch(Index rows, Index columns) : words(rows * words_across(columns)), scan_bytes(0) {
        before = aligned(static_cast<std::size_t>(words + 1) * sizeof(std::uint32_t));
        scan = before + aligned(static_cast<std::size_t>(words + 1) * sizeof(Index));
        check(sum_up(nullptr, scan_bytes, nullptr, nullptr, nullptr), "local_maxima");
    }

    std::size_t bytes() const { return scan + scan_bytes; }

    cudaError_t sum_up(void* memory, std::size_t& bytes, const std::uint32_t* marks, Index* starts,
                       cudaStream_t queue) const {
        const auto counts = thrust::make_transform_iterator(marks, CountBits());
        return cub::DeviceScan::ExclusiveSum(memory, bytes, counts, starts, words + 1, queue);
    }

private:
    static std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }
};

template <class Value>
Value* at(void* scratch, std::size_t offset) {
    return reinterpret_cast<Value*>(static_cast<unsigned char*>(scratch) + offset);
}

template <class Value>
const Value* at(const void* scratch, std::size_t offset) {
    return reinterpret_cast<const Value*>(static_cast<const unsigned char*>(scratch) + offset);
}

std::size_t largest_shared() {
    int device = 0;
    int bytes = 0;
    check(cudaGetDevice(&device), "peak_response");
    check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "peak_response");
    return static_cast<std::size_t>(bytes);
}

}  // namespace

template <class T>
void peak_response(const ImageView<T>& image, double sigma, T* response, void* stream) {
    const std::size_t limit = largest_shared();
    const ResponseTile tile = response_tile(gaussian_radius(sigma), sizeof(T), limit);
    if (tile.columns == 0) {
        throw std::invalid_argument("sigma: expected at most " + std::to_string(widest_sigma(sizeof(T), limit)) +
                                    " px on this device, got " + std::to_string(sigma) +
                                    "; bin the image, or pass a NumPy array");
    }
    const ResponseFilters<T> made(sigma);
    DeviceFilters<T> filters;
    std::copy(made.smooth.begin(), made.smooth.end(), filters.smooth);
    std::copy(made.bend.begin(), made.bend.end(), filters.bend);
    filters.scale = made.scale;
    filters.radius = tile.radius;
    const auto bytes = static_cast<int>(sizeof(T)) * tile.values();
    check(cudaFuncSetAttribute(response_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
          "peak_response");
    const Index across = (image.columns + tile.columns - 1) / tile.columns;
    const Index blocks = across * ((image.rows + tile_rows - 1) / tile_rows);
    response_kernel<T><<<static_cast<unsigned>(blocks), response_threads, static_cast<std::size_t>(bytes),
                         static_cast<cudaStream_t>(stream)>>>(image, filters, tile, across, response);
    check_launch("peak_response");
}

std::size_t maxima_scratch(Index rows, Index columns) { return MaximaScratch(rows, columns).bytes(); }

template <class T>
void count_maxima(const ImageView<T>& response, double threshold, void* scratch, Index* count, void* stream) {
    auto* const queue = static_cast<cudaStream_t>(stream);
    MaximaScratch layout(response.rows, response.columns);
    auto* const marks = at<std::uint32_t>(scratch, 0);
    auto* const before = at<Index>(scratch, layout.before);
    mark_kernel<T>
        <<<blocks_of(layout.words + 1, threads / lanes), threads, 0, queue>>>(response, threshold, layout.words, marks);
    check_launch("local_maxima");
    check(layout.sum_up(at<unsigned char>(scratch, layout.scan), layout.scan_bytes, marks, before, queue),
          "local_maxima");
    check(cudaMemcpyAsync(count, before + layout.words, sizeof(Index), cudaMemcpyDeviceToDevice, queue),
          "local_maxima");
}

template <class T>
void write_maxima(const ImageView<T>& response, const void* scratch, Index capacity, double* positions, double* heights,
                  void* stream) {
    if (capacity == 0) {
        return;
    }
    const MaximaScratch layout(response.rows, response.columns);
    write_kernel<T>
        <<<blocks_of(std::max(layout.words, capacity), threads), threads, 0, static_cast<cudaStream_t>(stream)>>>(
            response, layout.words, at<std::uint32_t>(scratch, 0), at<Index>(scratch, layout.before), capacity,
            positions, heights);
    check_launch("local_maxima");
}

#define CONTEXTEM_INSTANTIATE(T)                                                   \
    template void peak_response(const ImageView<T>&, double, T*, void*);           \
    template void count_maxima(const ImageView<T>&, double, void*, Index*, void*); \
    template void write_maxima(const ImageView<T>&, const void*, Index, double*, double*, void*);
CONTEXTEM_INSTANTIATE(float)
CONTEXTEM_INSTANTIATE(double)
#undef CONTEXTEM_INSTANTIATE

}  // namespace contextem::cuda
