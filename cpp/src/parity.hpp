// The parities of modes, found in their weights.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "contextem/sampling.hpp"
#include "contextem/view.hpp"

namespace contextem {

// To rounding; -1 if the weights have none.
inline int find_parity(const double* w /* (P, P) */, Index size) {
    double largest = 0.0;
    for (Index i = 0; i < size * size; ++i) {
        largest = std::max(largest, std::abs(w[i]));
    }
    const double tolerance = 1e-10 * largest;
    for (int parity = 0; parity < n_parities; ++parity) {
        bool matches = true;
        for (Index row = 0; row < size && matches; ++row) {
            for (Index column = 0; column < size && matches; ++column) {
                const double value = w[row * size + column];
                const double other_row = w[(size - 1 - row) * size + column];
                const double other_column = w[row * size + (size - 1 - column)];
                matches = std::abs(value - row_sign(parity) * other_row) <= tolerance &&
                          std::abs(value - column_sign(parity) * other_column) <= tolerance;
            }
        }
        if (matches) {
            return parity;
        }
    }
    return -1;
}

// Parities of all modes; empty if one has none, so that the table cannot be folded.
inline std::vector<int> find_parities(const double* weights /* (J, P, P) */, Index modes, Index size) {
    std::vector<int> parities;
    for (Index j = 0; j < modes; ++j) {
        parities.push_back(find_parity(weights + j * size * size, size));
        if (parities.back() < 0) {
            return {};
        }
    }
    return parities;
}

}  // namespace contextem
