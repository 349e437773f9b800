// Virtual detectors and sums of patterns.
//
//   s[p, d] = sum over the pixels k of detector d of I[p, k];  t[k] = t0[k] + sum_p I[p, k]
//
// Detectors: a warp takes a few patterns. Zone by zone its threads go along the zone's list of vectors, up to 16 bytes
// each, and read the same vector of all its patterns: one entry of the list serves them all, and their loads are under
// way together. The sum of a zone meets in the warp by a fixed tree; lane d keeps detector d, of which there are at
// most as many as lanes. No shared memory, no barrier.
//
// Sums of patterns: a thread adds one vector along one part of the scan; a second kernel adds the parts in their order.
#include "contextem/cuda/virtual_detectors.hpp"

#include <algorithm>
#include <vector>

#include "check.cuh"
#include "contextem/cuda/device.hpp"
#include "detector_lists.hpp"

namespace contextem::cuda {
namespace {

constexpr int lanes = 32;
constexpr int threads = 256;
constexpr Index many_warps = 8192;  // that fill a large device: then a warp takes four patterns

template <int bytes>
struct Word;
template <>
struct Word<1> {
    using type = unsigned char;
};
template <>
struct Word<2> {
    using type = unsigned short;
};
template <>
struct Word<4> {
    using type = unsigned int;
};
template <>
struct Word<8> {
    using type = uint2;
};
template <>
struct Word<16> {
    using type = uint4;
};

template <class T, int width>
struct Pixels {
    union {
        typename Word<width* static_cast<int>(sizeof(T))>::type word;
        T pixel[width];
    };
};

template <class T, int width>
__device__ Pixels<T, width> read_vector(const char* pattern, Index number) {
    using Read = typename Word<width* static_cast<int>(sizeof(T))>::type;
    Pixels<T, width> pixels;
    pixels.word = __ldg(reinterpret_cast<const Read*>(pattern) + number);
    return pixels;
}

__device__ std::int64_t from_lane(std::int64_t value, int distance) {
    return __shfl_xor_sync(0xffffffffu, static_cast<long long>(value), distance);
}
__device__ double from_lane(double value, int distance) { return __shfl_xor_sync(0xffffffffu, value, distance); }

template <class T, int width, int together>
__global__ void __launch_bounds__(threads)
    detectors_kernel(const char* __restrict__ patterns, Index count, Index stride, DetectorListView list,
                     int n_detectors, double* __restrict__ sums /* (S, D) */) {
    const int lane = static_cast<int>(threadIdx.x) % lanes;
    const Index first = (Index(blockIdx.x) * (threads / lanes) + threadIdx.x / lanes) * together;
    if (first >= count) {
        return;  // the whole warp
    }
    const char* pattern[together];
    for (int i = 0; i < together; ++i) {
        pattern[i] = patterns + min(first + i, count - 1) * stride;
    }
    PixelSum<T> own[together] = {};
    for (int z = 0; z < list.n_spans; ++z) {
        const DetectorSpan span = list.spans[z];
        PixelSum<T> sum[together] = {};
#pragma unroll 2
        for (int v = span.first + lane; v < span.last; v += lanes) {
            const DetectorVector vector = list.vectors[v];
            Pixels<T, width> pixels[together];
#pragma unroll
            for (int i = 0; i < together; ++i) {
                pixels[i] = read_vector<T, width>(pattern[i], vector.number);
            }
#pragma unroll
            for (int i = 0; i < together; ++i) {
                sum[i] += sum_of_vector<width>(pixels[i].pixel, vector.pixels);
            }
        }
#pragma unroll
        for (int i = 0; i < together; ++i) {
            for (int distance = lanes / 2; distance > 0; distance /= 2) {
                sum[i] += from_lane(sum[i], distance);
            }
            own[i] += (span.detectors >> lane) & 1u ? sum[i] : PixelSum<T>(0);
        }
    }
    for (int i = 0; i < together && first + i < count; ++i) {
        if (lane < n_detectors) {
            sums[(first + i) * n_detectors + lane] = static_cast<double>(own[i]);
        }
    }
}

template <class T, int width>
__global__ void __launch_bounds__(threads)
    part_kernel(const char* __restrict__ patterns, Index count, Index stride, Index vectors,
                double* __restrict__ parts /* (scan_parts, K) */) {
    const Index number = Index(blockIdx.x) * threads + threadIdx.x;
    if (number >= vectors) {
        return;
    }
    const Index part = blockIdx.y;
    const Index last = part_begin(count, part + 1);
    PixelSum<T> sum[width] = {};
#pragma unroll 4
    for (Index p = part_begin(count, part); p < last; ++p) {
        const Pixels<T, width> pixels = read_vector<T, width>(patterns + p * stride, number);
#pragma unroll
        for (int i = 0; i < width; ++i) {
            sum[i] += static_cast<PixelSum<T>>(pixels.pixel[i]);
        }
    }
    for (int i = 0; i < width; ++i) {
        parts[(part * vectors + number) * width + i] = static_cast<double>(sum[i]);
    }
}

__global__ void __launch_bounds__(threads)
    total_kernel(const double* __restrict__ parts /* (scan_parts, K) */, Index pixels, double* __restrict__ total) {
    const Index k = Index(blockIdx.x) * threads + threadIdx.x;
    if (k < pixels) {
        double sum = 0.0;
        for (Index part = 0; part < scan_parts; ++part) {
            sum += parts[part * pixels + k];
        }
        total[k] += sum;
    }
}

unsigned blocks_of(Index items, Index each) { return static_cast<unsigned>((items + each - 1) / each); }

// Calls launch(width) with the widest vectors that fit, as an integral constant.
template <class T, class Launch>
void with_width(const PatternsView<T>& patterns, const Launch& launch) {
    switch (log2_width(reinterpret_cast<std::uintptr_t>(patterns.data), patterns.pattern_stride, patterns.pixels,
                       static_cast<Index>(sizeof(T)))) {
        case 4:
            if constexpr (sizeof(T) == 1) {
                launch(std::integral_constant<int, 4>());
            }
            break;
        case 3:
            if constexpr (sizeof(T) <= 2) {
                launch(std::integral_constant<int, 3>());
            }
            break;
        case 2:
            if constexpr (sizeof(T) <= 4) {
                launch(std::integral_constant<int, 2>());
            }
            break;
        case 1:
            launch(std::integral_constant<int, 1>());
            break;
        default:
            launch(std::integral_constant<int, 0>());
    }
}

}  // namespace

DeviceDetectors::DeviceDetectors(const bool* masks, Index count, Index pixels, int device)
    : count_(count), pixels_(pixels), device_(device) {
    const std::vector<std::uint32_t> seen_by = detectors_of_pixels(masks, count, pixels);
    std::vector<DetectorList> lists;
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < lists_.size(); ++i) {
        lists.emplace_back(seen_by, Index(1) << i);
        bytes += lists.back().vectors.size() * sizeof(DetectorVector);
        bytes += lists.back().spans.size() * sizeof(DetectorSpan);
    }
    const DeviceGuard guard(device);
    check(cudaMalloc(&memory_, std::max<std::size_t>(bytes, 1)), "virtual detectors");
    auto* next = static_cast<unsigned char*>(memory_);
    const auto copy = [&next, this](const auto& values) {
        using Value = typename std::decay_t<decltype(values)>::value_type;
        const std::size_t size = values.size() * sizeof(Value);
        const cudaError_t copied = copy_to_device(next, values.data(), size);
        if (copied != cudaSuccess) {
            cudaFree(memory_);
            check(copied, "virtual detectors");
        }
        const auto* address = reinterpret_cast<const Value*>(next);
        next += size;
        return address;
    };
    for (std::size_t i = 0; i < lists_.size(); ++i) {  // 8-byte vectors first: they need the wider alignment
        lists_[i].vectors = copy(lists[i].vectors);
        lists_[i].n_spans = static_cast<int>(lists[i].spans.size());
    }
    for (std::size_t i = 0; i < lists_.size(); ++i) {
        lists_[i].spans = copy(lists[i].spans);
    }
}

DeviceDetectors::~DeviceDetectors() {
    cudaFree(memory_);  // fails harmlessly when the process is already taking the context down
}

template <class T>
void virtual_detectors(const PatternsView<T>& patterns, const DeviceDetectors& detectors, double* sums, void* stream) {
    if (patterns.count == 0) {
        return;
    }
    auto* const queue = static_cast<cudaStream_t>(stream);
    const auto* bytes = reinterpret_cast<const char*>(patterns.data);
    const auto n_detectors = static_cast<int>(detectors.count());
    with_width(patterns, [&](auto log2) {
        constexpr int width = 1 << decltype(log2)::value;
        const DetectorListView& list = detectors.list(decltype(log2)::value);
        constexpr int warps = threads / lanes;
        if (patterns.count >= 4 * many_warps) {
            detectors_kernel<T, width, 4><<<blocks_of(patterns.count, 4 * warps), threads, 0, queue>>>(
                bytes, patterns.count, patterns.pattern_stride, list, n_detectors, sums);
        } else {
            detectors_kernel<T, width, 1><<<blocks_of(patterns.count, warps), threads, 0, queue>>>(
                bytes, patterns.count, patterns.pattern_stride, list, n_detectors, sums);
        }
        check_launch("virtual_detectors");
    });
}

template <class T>
void sum_patterns(const PatternsView<T>& patterns, double* parts, double* total, void* stream) {
    if (patterns.count == 0) {
        return;
    }
    auto* const queue = static_cast<cudaStream_t>(stream);
    const auto* bytes = reinterpret_cast<const char*>(patterns.data);
    with_width(patterns, [&](auto log2) {
        constexpr int width = 1 << decltype(log2)::value;
        const Index vectors = patterns.pixels / width;
        const dim3 blocks(blocks_of(vectors, threads), static_cast<unsigned>(scan_parts));
        part_kernel<T, width>
            <<<blocks, threads, 0, queue>>>(bytes, patterns.count, patterns.pattern_stride, vectors, parts);
        check_launch("sum_patterns");
    });
    total_kernel<<<blocks_of(patterns.pixels, threads), threads, 0, queue>>>(parts, patterns.pixels, total);
    check_launch("sum_patterns");
}

#define CONTEXTEM_INSTANTIATE(T)                                                                     \
    template void virtual_detectors(const PatternsView<T>&, const DeviceDetectors&, double*, void*); \
    template void sum_patterns(const PatternsView<T>&, double*, double*, void*);
CONTEXTEM_INSTANTIATE(std::int8_t)
CONTEXTEM_INSTANTIATE(std::uint8_t)
CONTEXTEM_INSTANTIATE(std::int16_t)
CONTEXTEM_INSTANTIATE(std::uint16_t)
CONTEXTEM_INSTANTIATE(std::int32_t)
CONTEXTEM_INSTANTIATE(std::uint32_t)
CONTEXTEM_INSTANTIATE(float)
CONTEXTEM_INSTANTIATE(double)
#undef CONTEXTEM_INSTANTIATE

}  // namespace contextem::cuda
