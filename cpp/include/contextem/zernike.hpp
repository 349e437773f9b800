// Zernike polynomials and the weights of their moments, in double, by recurrence.
//
//   Z_nm(x, y) = sqrt(2 (n + 1) / (1 + [m = 0])) P_k^(0,|m|)(2 rho^2 - 1) {Re (x + i y)^m, m >= 0;
//                                                                          Im (x + i y)^|m|, m < 0}
//   with k = (n - |m|) / 2; x runs along columns, y along rows; modes in OSA/ANSI order j = (n (n + 2) + m) / 2.
//
// Jacobi recurrence: NIST DLMF 18.9.2, https://dlmf.nist.gov/18.9. (The factorial sum loses all digits by n = 50.)
#pragma once

#include <vector>

#include "contextem/view.hpp"

namespace contextem {

inline Index mode_count(int n_max) { return Index(n_max + 1) * (n_max + 2) / 2; }

// Degrees and orders of all modes up to n_max.
struct ZernikeIndices {
    std::vector<int> n;  // (J)
    std::vector<int> m;  // (J)
};
ZernikeIndices zernike_indices(int n_max);

// All modes at one point.
void zernike_at(int n_max, double x, double y, double* values /* (J) */);

// Z at the pixel centres of linspace(-1, 1, size) where rho <= 1, over the area pi size^2 / 4, as in motif-learn.
std::vector<double> projection_weights(int n_max, int size);  // (J, size * size)

// Integral of Z over each pixel's share of the unit disk, over pi; exact to rounding.
std::vector<double> integrated_weights(int n_max, int size);  // (J, size * size)

}  // namespace contextem
