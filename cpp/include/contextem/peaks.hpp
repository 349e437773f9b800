// Peaks of an image: the Laplacian-of-Gaussian response, its local maxima, and the heights round each of them.
#pragma once

#include <vector>

#include "contextem/points.hpp"
#include "contextem/view.hpp"

namespace contextem {

// Minus sigma^2 times the Laplacian of the image blurred by a Gaussian of standard deviation `sigma`, px; the image is
// mirrored at its border and the Gaussian ends at 4 sigma.
template <class T>
void peak_response(const ImageView<T>& image,  // (rows, columns)
                   double sigma, int n_threads,
                   T* response);  // (rows, columns)

struct Maxima {
    std::vector<double> positions;  // (K, 2), row-major order of the pixels
    std::vector<double> heights;    // (K)
};

// Pixels above 0 and no lower than the eight round them, each moved by at most half a pixel to the top of the quadratic
// through these nine. Every pixel of a plateau is one; pixels of the border are none.
template <class T>
Maxima local_maxima(const ImageView<T>& response,  // (rows, columns), from a row of a larger image on
                    Index top,                     // that row: positions are those in the larger image
                    int n_threads);

// Percentile (linear between order statistics) of the heights of the k points nearest to each point, itself included.
void local_levels(const PointGrid& grid, const PositionsView& points, const double* heights, Index k, double percentile,
                  int n_threads,
                  double* levels);  // (K)

// Values between pixels, bilinear; beyond the border those of the nearest pixel.
template <class T>
void sample_image(const ImageView<T>& image, const PositionsView& positions, int n_threads,
                  double* values);  // (N)

// Each of n images blurred by a Gaussian of standard deviation `sigma` that ends at 4 sigma; 0 outside the images.
void blur_boards(const double* boards,  // (n, rows, columns)
                 Index count, Index rows, Index columns, double sigma, int n_threads,
                 double* blurred);  // (n, rows, columns)

}  // namespace contextem
