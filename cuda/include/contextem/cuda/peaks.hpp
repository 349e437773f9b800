// Peaks of an image on the device: response and maxima as contextem/peaks.hpp defines them, to the last bit.
#pragma once

#include <cstddef>

#include "contextem/view.hpp"

namespace contextem::cuda {

// Throws std::invalid_argument where the filters do not fit the shared memory of the device.
template <class T>
void peak_response(const ImageView<T>& image,  // (rows, columns), device memory
                   double sigma,
                   T* response,  // (rows, columns), device memory
                   void* stream);

// How many maxima there are is known on the device alone: count them, make room, write them.
std::size_t maxima_scratch(Index rows, Index columns);  // bytes

template <class T>
void count_maxima(const ImageView<T>& response,  // (rows, columns), device memory, pixels of a row adjacent
                  double threshold,              // heights are above it, and above 0
                  void* scratch,                 // (maxima_scratch), device memory; keeps what write_maxima needs
                  Index* count,                  // (1), device memory
                  void* stream);

// The first `capacity` maxima in row-major order; where there are fewer, the rest of the room is NaN.
template <class T>
void write_maxima(const ImageView<T>& response, const void* scratch, Index capacity,
                  double* positions,  // (capacity, 2), device memory
                  double* heights,    // (capacity), device memory
                  void* stream);

}  // namespace contextem::cuda
