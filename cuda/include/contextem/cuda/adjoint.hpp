// The adjoint of the moments on the device; see contextem/adjoint.hpp for the formulas.
//
// Everything here gives the same bits every time: no sum depends on the order in which threads happen to run.
#pragma once

#include <cstddef>
#include <cstdint>

#include "contextem/adjoint.hpp"
#include "contextem/cuda/device.hpp"
#include "contextem/sampling.hpp"
#include "contextem/view.hpp"

namespace contextem::cuda {

// What the kernels read: a row of samples of the quadrant (or of the patch) per mode, modes grouped by plane.
template <class T>
struct AdjointTableView {
    const T* weights;             // (n_modes, samples)
    const std::int32_t* mode;     // (n_modes) column of the gradient
    const std::int32_t* sample;   // (samples) row * rows + column, counted from the corner of the quadrant
    Index first[n_parities + 1];  // modes of plane k: [first[k], first[k + 1])
    Index samples;
    Index n_modes;
    Index size;
    Index rows;  // of the quadrant
    bool folded;
};

// Owns that table in the memory of one device. Construction copies and waits; nothing else here does.
template <class T>
class DeviceAdjointTable {
public:
    DeviceAdjointTable(const AdjointTable<T>& table, int device);
    ~DeviceAdjointTable();
    DeviceAdjointTable(const DeviceAdjointTable&) = delete;
    DeviceAdjointTable& operator=(const DeviceAdjointTable&) = delete;

    const AdjointTableView<T>& view() const { return view_; }
    int device() const { return device_; }

private:
    int device_;
    void* memory_ = nullptr;
    AdjointTableView<T> view_{};
};

template <class T>
void patch_moments_adjoint(const MomentsView<T>& gradient,  // (N, J), device memory
                           const AdjointTableView<T>& table,
                           T* patches,  // (N, P, P), device memory
                           void* stream);

// Bytes of scratch that the next function wants for so many columns, at most 2^31 - 1 of them.
template <class T>
std::size_t column_adjoint_scratch(Index count, Index rows, Index columns, Index size);

template <class T>
void column_moments_adjoint(const MomentsView<T>& gradient,  // (N, J), device memory
                            const PositionsView& positions,  // (N, 2), device memory
                            const PatchGrid& grid, const AdjointTableView<T>& table, Index rows, Index columns,
                            void* scratch,  // device memory, overwritten
                            T* image,       // (rows, columns), device memory
                            void* stream);

// Bytes of scratch that the next function wants.
template <class T>
std::size_t position_gradient_scratch(Index count, Index size);

// For linear interpolation, whatever the grid's.
template <class T>
void column_moments_position_gradient(const MomentsView<T>& gradient,  // (N, J), device memory
                                      const ImageView<T>& image,       // (rows, columns), device memory
                                      const PositionsView& positions,  // (N, 2), device memory
                                      const PatchGrid& grid, const AdjointTableView<T>& table,
                                      void* scratch,   // device memory, overwritten
                                      double* slopes,  // (N, 2), device memory
                                      void* stream);

}  // namespace contextem::cuda
