// A sampled Gaussian, for filters along an axis.
#pragma once

#include <cmath>
#include <vector>

#include "contextem/view.hpp"

namespace contextem {

// Where the Gaussian is cut: at four standard deviations.
inline Index gaussian_radius(double sigma) { return static_cast<Index>(4.0 * sigma + 0.5); }

// The half k[0 .. radius] of a Gaussian of unit sum (sigma, pixels).
inline std::vector<double> half_gaussian(double sigma) {
    const Index radius = gaussian_radius(sigma);
    std::vector<double> half;
    double sum = 0.0;
    for (Index i = 0; i <= radius; ++i) {
        const double x = static_cast<double>(i) / sigma;
        half.push_back(std::exp(-0.5 * x * x));
        sum += (i == 0 ? 1.0 : 2.0) * half.back();
    }
    for (double& value : half) {
        value /= sum;
    }
    return half;
}

}  // namespace contextem
