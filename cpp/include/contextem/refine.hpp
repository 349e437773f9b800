// Sub-pixel positions of columns: a superposition of Gaussians of one width, fitted column by column to the image less
// all others.
#pragma once

#include <functional>

#include "contextem/view.hpp"

namespace contextem {

constexpr Index n_overlapping = 14;  // columns that the fit of one takes away: the nearest ones
constexpr Index step_values = 6;     // of a column: row, column, amplitude, background, two sums for the width

// An image that is made band by band: calling it with rows [first, last) gives a view of the whole image of which only
// these are there to be read, until the next call.
template <class T>
using BandSource = std::function<ImageView<T>(Index first, Index last)>;

// A superposition of Gaussians and the windows in which it is fitted.
struct ColumnModel {
    const double* start;           // (N, 2) where the windows stand, px
    const unsigned char* movable;  // (N) whether the position may change
    const Index* neighbours;       // (N, n_overlapping) -1: none
    const double* positions;       // (N, 2) px
    const double* amplitudes;      // (N)
    double sigma;                  // width of the Gaussians, px
    Index half_window;             // pixels on either side of the one nearest to the start
    double window_sigma;           // of the Gaussian weight of the pixels about the start, px
    bool moves;                    // fit positions too, not only amplitudes and backgrounds
};

// Moves columns to where the superposition fits the image best; returns the common width of the Gaussians, px.
// In each of the rounds the columns are taken band by band, and see the image of the band and half a window around it.
template <class T>
double refine_columns(const BandSource<T>& image,  // (rows, columns)
                      Index rows,
                      Index tile,                    // rows of a band; the result does not depend on it
                      const PositionsView& start,    // (N, 2)
                      const unsigned char* movable,  // (N) the others stay, and are taken away from their neighbours
                      double sigma,                  // first guess of the width, px
                      double spacing,                // between nearest columns, px
                      double furthest,               // px; a column that moves further than this keeps its start
                      int n_threads,
                      double* positions,    // (N, 2)
                      double* amplitudes,   // (N)
                      double* deviations);  // (N) of the positions along either axis, by the residual, px

}  // namespace contextem
