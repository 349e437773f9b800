// Peaks, pixel by pixel: the arithmetic that the C++ and the CUDA kernels share, which so find the same to the last
// bit.
#pragma once

#include <vector>

#include "contextem/gaussian.hpp"
#include "contextem/sampling.hpp"
#include "contextem/view.hpp"

namespace contextem {

// Halves k[0 .. radius] of the two even filters of the response along each axis, and what their sum is multiplied by.
template <class T>
struct ResponseFilters {
    std::vector<T> smooth;  // Gaussian
    std::vector<T> bend;    // its second derivative
    T scale;

    explicit ResponseFilters(double sigma) : scale(static_cast<T>(-sigma * sigma)) {
        double i = 0.0;
        for (const double value : half_gaussian(sigma)) {
            const double x = i++ / sigma;
            smooth.push_back(static_cast<T>(value));
            bend.push_back(static_cast<T>((x * x - 1.0) / (sigma * sigma) * value));
        }
    }

    Index radius() const { return static_cast<Index>(smooth.size()) - 1; }
};

// Index of the pixel that a mirrored line of `count` shows at `place`: ... 1 0 | 0 1 ... count - 1 | count - 1 ...
CONTEXTEM_HD Index mirrored(Index place, Index count) {
    while (place < 0 || place >= count) {  // once, but where the line is shorter than a filter
        place = place < 0 ? -1 - place : 2 * count - 1 - place;
    }
    return place;
}

// Whether row[0] is above 0 and no lower than the eight pixels round it.
template <class T>
CONTEXTEM_HD bool is_maximum(const T* above, const T* row, const T* below) {
    const T v = row[0];
    T most = above[-1] > above[0] ? above[-1] : above[0];
    most = above[1] > most ? above[1] : most;
    most = row[-1] > most ? row[-1] : most;
    most = row[1] > most ? row[1] : most;
    most = below[-1] > most ? below[-1] : most;
    most = below[0] > most ? below[0] : most;
    most = below[1] > most ? below[1] : most;
    return (v > T(0)) & (v >= most);
}

struct Offset {
    double down;
    double right;
};

CONTEXTEM_HD double within_half(double value) { return value < -0.5 ? -0.5 : value > 0.5 ? 0.5 : value; }

// From a pixel to the top of the quadratic through the nine round it, at most half a pixel along either axis.
template <class T>
CONTEXTEM_HD Offset to_the_top(const T* pixel, Index row_stride) {
    const auto v = [&](Index i, Index j) { return static_cast<double>(pixel[i * row_stride + j]); };
    const double slope_r = (v(1, 0) - v(-1, 0)) / 2;
    const double slope_c = (v(0, 1) - v(0, -1)) / 2;
    const double bend_r = v(1, 0) + v(-1, 0) - 2 * v(0, 0);
    const double bend_c = v(0, 1) + v(0, -1) - 2 * v(0, 0);
    const double twist = (v(1, 1) + v(-1, -1) - v(1, -1) - v(-1, 1)) / 4;
    const double det = bend_r * bend_c - twist * twist;
    if (!(det > 0.0)) {
        return {0.0, 0.0};
    }
    return {within_half((twist * slope_c - bend_c * slope_r) / det),
            within_half((twist * slope_r - bend_r * slope_c) / det)};
}

}  // namespace contextem
