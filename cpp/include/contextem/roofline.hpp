// What one core can do at most with the instruction set in use: loops for benchmarks to hold the kernels against.
#pragma once

#include "contextem/view.hpp"

namespace contextem {

// Does `count` multiply-adds of T, a multiple of 192, fused where the instruction set can. Returns their sum.
template <class T>
T multiply_adds(Index count);

// Reads the values, a multiple of 128, `passes` times. Returns their sum.
float read_values(const float* values, Index count, Index passes);

// Copies the values, a multiple of 128, `passes` times.
void copy_values(const float* source, Index count, Index passes, float* target);

}  // namespace contextem
