// The lists of the virtual detectors, and what a thread does with one vector of pixels: plain C++, tested on the host.
#pragma once

#include <cstdint>
#include <map>
#include <type_traits>
#include <vector>

#include "contextem/cuda/virtual_detectors.hpp"
#include "contextem/sampling.hpp"

namespace contextem::cuda {

struct DetectorList {
    std::vector<DetectorVector> vectors;
    std::vector<DetectorSpan> spans;

    // For vectors of `width` pixels; empty where a pattern is no whole number of them.
    DetectorList(const std::vector<std::uint32_t>& seen_by, Index width) {
        std::map<std::uint32_t, std::vector<DetectorVector>> vectors_of;
        const auto pixels = static_cast<Index>(seen_by.size());
        for (Index k = 0; k < pixels && pixels % width == 0; ++k) {
            if (const std::uint32_t detectors = seen_by[static_cast<std::size_t>(k)]) {
                std::vector<DetectorVector>& found = vectors_of[detectors];
                const auto number = static_cast<std::int32_t>(k / width);
                if (found.empty() || found.back().number != number) {
                    found.push_back({number, 0});
                }
                found.back().pixels |= 1u << (k % width);
            }
        }
        for (const auto& [detectors, found] : vectors_of) {
            const auto first = static_cast<std::int32_t>(vectors.size());
            vectors.insert(vectors.end(), found.begin(), found.end());
            spans.push_back({detectors, first, static_cast<std::int32_t>(vectors.size())});
        }
    }
};

// Exact for integers.
template <class T>
using PixelSum = std::conditional_t<std::is_floating_point_v<T>, double, std::int64_t>;

// The lowest four bits, each as the lowest of a byte.
CONTEXTEM_HD std::uint32_t bytes_of_bits(std::uint32_t bits) { return ((bits & 0xfu) * 0x00204081u) & 0x01010101u; }

// To a sum, four bytes times those of `counting`, 0 or 1.
CONTEXTEM_HD std::int32_t add_bytes(const std::uint8_t* bytes, std::uint32_t counting, std::int32_t sum) {
#if defined(__CUDA_ARCH__)
    return static_cast<std::int32_t>(
        __dp4a(*reinterpret_cast<const std::uint32_t*>(bytes), counting, static_cast<std::uint32_t>(sum)));
#else
    for (int i = 0; i < 4; ++i) {
        sum += bytes[i] * static_cast<std::int32_t>((counting >> (8 * i)) & 1u);
    }
    return sum;
#endif
}

CONTEXTEM_HD std::int32_t add_bytes(const std::int8_t* bytes, std::uint32_t counting, std::int32_t sum) {
#if defined(__CUDA_ARCH__)
    return __dp4a(*reinterpret_cast<const std::int32_t*>(bytes), static_cast<std::int32_t>(counting), sum);
#else
    for (int i = 0; i < 4; ++i) {
        sum += bytes[i] * static_cast<std::int32_t>((counting >> (8 * i)) & 1u);
    }
    return sum;
#endif
}

// Of `width` pixels those that count; 16 of 16 bits do not overflow 32.
template <int width, class T>
CONTEXTEM_HD PixelSum<T> sum_of_vector(const T* pixels, std::uint32_t counting) {
    using Sum = std::conditional_t<std::is_integral_v<T> && sizeof(T) <= 2, std::int32_t, PixelSum<T>>;
    Sum sum = 0;
    if constexpr (sizeof(T) == 1 && width % 4 == 0) {  // four at a time
        for (int i = 0; i < width; i += 4) {
            sum = add_bytes(pixels + i, bytes_of_bits(counting >> i), sum);
        }
    } else {
        for (int i = 0; i < width; ++i) {
            sum += (counting >> i) & 1u ? static_cast<Sum>(pixels[i]) : Sum(0);
        }
    }
    return static_cast<PixelSum<T>>(sum);
}

// log2 of the widest vector of up to 16 bytes that every pattern is a whole number of, at addresses that fit it.
CONTEXTEM_HD int log2_width(std::uintptr_t address, Index pattern_stride, Index pixels, Index item) {
    int log2 = 4;
    while (log2 > 0 && ((item << log2) > 16 || address % static_cast<std::uintptr_t>(item << log2) != 0 ||
                        pattern_stride % (item << log2) != 0 || pixels % (Index(1) << log2) != 0)) {
        --log2;
    }
    return log2;
}

// First pattern of a part of the scan.
CONTEXTEM_HD Index part_begin(Index count, Index part) {
    return count / scan_parts * part + count % scan_parts * part / scan_parts;
}

}  // namespace contextem::cuda
