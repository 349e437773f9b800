// Virtual detectors of 4D-STEM: sums of diffraction patterns over the pixels of detectors, and sums over patterns.
//
//   virtual detectors   s[p, d] = sum over the pixels k of detector d of I[p, k]
//   sum of patterns     t[k]    = t0[k] + sum_p I[p, k]
//
// Detectors may overlap. Their pixels are parted into zones, each of the pixels that the same detectors see, so that
// every pixel is added once however many detectors there are, and one that none sees is never read. A zone is a list
// of windows of 64 bytes, as many pixels as fit: whole ones, and those of which only some pixels count. A pattern that
// is smaller than a window counts as the first pixels of one.
//
// Integers are summed exactly. Floating-point pixels are added in double in an order that depends on the detectors
// alone (on the pattern's number in t): not on the threads, the instruction set, or how the scan is cut into blocks.
// T is any of (u)int8, (u)int16, (u)int32, float and double. Patterns need not be aligned.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "contextem/view.hpp"

namespace contextem {

constexpr Index max_detectors = 32;
constexpr Index window_bytes = 64;

// Diffraction patterns I[pattern, pixel], each of adjacent pixels.
template <class T>
struct PatternsView {
    const T* data;  // (count, pixels)
    Index count;
    Index pixels;          // of a pattern
    Index pattern_stride;  // in bytes
};

// Of every pixel the detectors that see it: bit d for detector d.
std::vector<std::uint32_t> detectors_of_pixels(const bool* masks /* (count, pixels) */, Index count, Index pixels);

// A window of which only some pixels count.
struct PartWindow {
    std::uint64_t pixels;  // bit i: pixel start + i
    std::int32_t start;
};

struct Windows {
    std::vector<std::int32_t> whole;  // the first pixel of each
    std::vector<PartWindow> parts;
};

// The pixels that exactly these detectors see.
struct Zone {
    std::uint32_t detectors;  // bit d: detector d
    Windows windows;
};

// A part of the pattern that stays in the nearest cache while its zones are summed one after the other.
struct PatternBand {
    std::vector<Zone> zones;
    std::vector<std::int32_t> fetches;  // windows of the band after it, in their order; as many as those of all zones
};

struct DetectorZones {
    // masks (n_detectors, n_pixels): at most 32, below 2^31
    DetectorZones(const bool* masks, Index n_detectors, Index n_pixels);

    Index count;
    Index pixels;
    std::array<std::vector<PatternBand>, 4> bands;  // for pixels of 1, 2, 4 and 8 bytes
};

template <class T>
void virtual_detectors(const PatternsView<T>& patterns,  // (S, K)
                       const DetectorZones& detectors, int n_threads,
                       double* sums);  // (S, D)

// Adds to `total`.
template <class T>
void sum_patterns(const PatternsView<T>& patterns,  // (S, K)
                  int n_threads,
                  double* total);  // (K)

}  // namespace contextem
