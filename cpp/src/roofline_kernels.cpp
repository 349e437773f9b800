// Compiled once per instruction set, as moment_kernels.cpp is. Every loop keeps enough independent registers in flight
// for the latency of two pipelines: 12 sums fit the 16 registers of SSE2 and AVX2 and cover 4 cycles x 2 fused, 6 x 2
// unfused.
#include "roofline_kernels.hpp"

#include "simd.hpp"

namespace contextem {
namespace {

constexpr int chains = 12;
constexpr Index unrolled = 8;

template <class T, int n>
T total(const Vec<T> (&sums)[n]) {
    T values[lanes<T>];
    T sum = T(0);
    for (const Vec<T>& each : sums) {
        store(values, each);
        for (T value : values) {
            sum += value;
        }
    }
    return sum;
}

template <class T>
T multiply_adds(Index count) {
    Vec<T> sums[chains];
    for (int i = 0; i < chains; ++i) {
        sums[i] = splat(static_cast<T>(i));  // equal chains would be computed once
    }
    const Vec<T> half = splat(T(0.5));
    const Vec<T> one = splat(T(1));  // sums tend to 2 and never become subnormal
    for (Index step = 0; step < count; step += chains * lanes<T>) {
#pragma GCC unroll 12
        for (Vec<T>& sum : sums) {
            sum = multiply_add(sum, half, one);
        }
    }
    return total<T>(sums);
}

float read_values(const float* values, Index count, Index passes) {
    Vec<float> sums[unrolled] = {};
    for (Index pass = 0; pass < passes; ++pass) {
        for (Index start = 0; start < count; start += unrolled * lanes<float>) {
#pragma GCC unroll 8
            for (Index i = 0; i < unrolled; ++i) {
                sums[i] += load(values + start + i * lanes<float>);
            }
        }
    }
    return total<float>(sums);
}

void copy_values(const float* source, Index count, Index passes, float* target) {
    for (Index pass = 0; pass < passes; ++pass) {
        for (Index start = 0; start < count; start += unrolled * lanes<float>) {
#pragma GCC unroll 8
            for (Index i = 0; i < unrolled; ++i) {
                store(target + start + i * lanes<float>, load(source + start + i * lanes<float>));
            }
        }
        asm volatile("" ::: "memory");  // the next pass has to copy again
    }
}

}  // namespace

namespace CONTEXTEM_SET {

RooflineKernels roofline_kernels() { return {multiply_adds<float>, multiply_adds<double>, read_values, copy_values}; }

}  // namespace CONTEXTEM_SET
}  // namespace contextem
