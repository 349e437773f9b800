// Collects the kernels of one instruction set.
#include "instruction_set.hpp"

namespace contextem::CONTEXTEM_SET {

template <class T>
MomentKernels<T> moment_kernels();
template <class T>
AdjointKernels<T> adjoint_kernels();
template <class T>
RotationKernels<T> rotation_kernels();
template <class T>
PeakKernels<T> peak_kernels();
template <class T>
RefineKernels<T> refine_kernels();
LatticeKernels lattice_kernels();
GrowthKernels growth_kernels();
template <class T>
VirtualDetectorKernels<T> virtual_detector_kernels();
RooflineKernels roofline_kernels();

InstructionSet kernel_set() {
    return {CONTEXTEM_SET_NAME,
            {moment_kernels<float>(), moment_kernels<double>()},
            {adjoint_kernels<float>(), adjoint_kernels<double>()},
            {rotation_kernels<float>(), rotation_kernels<double>()},
            {peak_kernels<float>(), peak_kernels<double>()},
            {refine_kernels<float>(), refine_kernels<double>()},
            lattice_kernels(),
            growth_kernels(),
            {virtual_detector_kernels<std::int8_t>(), virtual_detector_kernels<std::uint8_t>(),
             virtual_detector_kernels<std::int16_t>(), virtual_detector_kernels<std::uint16_t>(),
             virtual_detector_kernels<std::int32_t>(), virtual_detector_kernels<std::uint32_t>(),
             virtual_detector_kernels<float>(), virtual_detector_kernels<double>()},
            roofline_kernels()};
}

}  // namespace contextem::CONTEXTEM_SET
