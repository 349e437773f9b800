// Virtual detectors and sums of patterns, on the device; see contextem/virtual_detectors.hpp.
#pragma once

#include <array>
#include <cstdint>

#include "contextem/view.hpp"
#include "contextem/virtual_detectors.hpp"

namespace contextem::cuda {

// Neighbouring pixels that are read at once, and which of them count: bit i for pixel i.
struct DetectorVector {
    std::int32_t number;  // of the vector in the pattern
    std::uint32_t pixels;
};

// The vectors [first, last) of the list whose pixels exactly these detectors see.
struct DetectorSpan {
    std::uint32_t detectors;
    std::int32_t first;
    std::int32_t last;
};

// What the kernel reads for vectors of one width.
struct DetectorListView {
    const DetectorVector* vectors;
    const DetectorSpan* spans;
    int n_spans;
};

// Owns the lists for vectors of 1, 2, 4, 8 and 16 pixels in the memory of one device; none where a pattern is no whole
// number of them. Construction copies and waits; nothing else here does.
class DeviceDetectors {
public:
    DeviceDetectors(const bool* masks /* (count, pixels) */, Index count, Index pixels, int device);
    ~DeviceDetectors();
    DeviceDetectors(const DeviceDetectors&) = delete;
    DeviceDetectors& operator=(const DeviceDetectors&) = delete;

    const DetectorListView& list(int log2_width) const { return lists_[static_cast<std::size_t>(log2_width)]; }
    Index count() const { return count_; }
    Index pixels() const { return pixels_; }
    int device() const { return device_; }

private:
    Index count_;
    Index pixels_;
    int device_;
    void* memory_ = nullptr;
    std::array<DetectorListView, 5> lists_{};
};

template <class T>
void virtual_detectors(const PatternsView<T>& patterns,  // (S, K), device memory
                       const DeviceDetectors& detectors,
                       double* sums,  // (S, D), device memory
                       void* stream);

constexpr Index scan_parts = 64;

// Adds to `total`, by way of the sums of as many parts of the scan.
template <class T>
void sum_patterns(const PatternsView<T>& patterns,  // (S, K), device memory
                  double* parts,                    // (scan_parts, K), device memory, overwritten
                  double* total,                    // (K), device memory
                  void* stream);

}  // namespace contextem::cuda
