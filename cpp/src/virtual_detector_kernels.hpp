// The kernels of the virtual detectors for one instruction set.
#pragma once

#include "contextem/virtual_detectors.hpp"

namespace contextem {

// None allocates or throws.
template <class T>
struct VirtualDetectorKernels {
    // patterns [begin, end)
    void (*detectors)(const PatternsView<T>&, const DetectorZones&, Index begin, Index end, double* sums);
    // pixels [begin, end) of all patterns
    void (*sum)(const PatternsView<T>&, Index begin, Index end, double* total);
};

}  // namespace contextem
