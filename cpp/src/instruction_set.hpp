// The kernels of one instruction set and the choice among the sets at run time.
//
// The sources *_kernels.cpp and kernel_set.cpp are compiled once per set, each time with CONTEXTEM_SET as the name of
// the namespace that their results live in; all else in them is local.
#pragma once

#include <type_traits>

#include "adjoint_kernels.hpp"
#include "column_kernels.hpp"
#include "moment_kernels.hpp"
#include "roofline_kernels.hpp"
#include "rotation_kernels.hpp"
#include "virtual_detector_kernels.hpp"

namespace contextem {

// Kernels for both precisions.
template <template <class> class Kernels>
struct BothPrecisions {
    Kernels<float> float32;
    Kernels<double> float64;

    template <class T>
    const Kernels<T>& of() const {
        if constexpr (sizeof(T) == sizeof(float)) {
            return float32;
        } else {
            return float64;
        }
    }
};

// Kernels for every type of pixel that detectors record.
template <template <class> class Kernels>
struct EveryPixelType {
    Kernels<std::int8_t> int8;
    Kernels<std::uint8_t> uint8;
    Kernels<std::int16_t> int16;
    Kernels<std::uint16_t> uint16;
    Kernels<std::int32_t> int32;
    Kernels<std::uint32_t> uint32;
    Kernels<float> float32;
    Kernels<double> float64;

    template <class T>
    const Kernels<T>& of() const {
        if constexpr (std::is_same_v<T, std::int8_t>) {
            return int8;
        } else if constexpr (std::is_same_v<T, std::uint8_t>) {
            return uint8;
        } else if constexpr (std::is_same_v<T, std::int16_t>) {
            return int16;
        } else if constexpr (std::is_same_v<T, std::uint16_t>) {
            return uint16;
        } else if constexpr (std::is_same_v<T, std::int32_t>) {
            return int32;
        } else if constexpr (std::is_same_v<T, std::uint32_t>) {
            return uint32;
        } else if constexpr (std::is_same_v<T, float>) {
            return float32;
        } else {
            return float64;
        }
    }
};

struct InstructionSet {
    const char* name;
    BothPrecisions<MomentKernels> moments;
    BothPrecisions<AdjointKernels> adjoint;
    BothPrecisions<RotationKernels> rotation;
    BothPrecisions<PeakKernels> peaks;
    BothPrecisions<RefineKernels> refine;
    LatticeKernels lattice;
    GrowthKernels growth;
    EveryPixelType<VirtualDetectorKernels> virtual_detectors;
    RooflineKernels roofline;
};

namespace baseline {
InstructionSet kernel_set();
}
#if defined(CONTEXTEM_X86)
namespace avx2 {
InstructionSet kernel_set();
}
namespace avx512 {
InstructionSet kernel_set();
}
#endif

// The widest one this processor has, or the one named by CONTEXTEM_SIMD. Chosen once.
const InstructionSet& instruction_set();

}  // namespace contextem
