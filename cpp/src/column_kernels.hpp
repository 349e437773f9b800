// The kernels of column finding in one instruction set.
#pragma once

#include "contextem/growth.hpp"
#include "contextem/lattice.hpp"
#include "contextem/refine.hpp"
#include "contextem/view.hpp"

namespace contextem {

constexpr Index peak_block = 64;  // columns convolved together

// Halves k[0 .. radius] of two even filters along each axis.
template <class T>
struct EvenFilters {
    const T* smooth;  // Gaussian
    const T* bend;    // its second derivative
    Index radius;
};

template <class T>
struct PeakKernels {
    // One row of the response. rows: the 2 radius + 1 image rows round it; work: (columns + 2 radius) each.
    void (*response_row)(const T* const* rows, const EvenFilters<T>&, Index columns, T scale, T* work_smooth,
                         T* work_bend, T* response);
    // marks[c] = 1 where pixel c of `row` is a maximum, for 1 <= c < columns - 1.
    void (*mark_maxima)(const T* above, const T* row, const T* below, Index columns, unsigned char* marks);
    // sum[c] = k[0] rows[r][c] + sum_i k[i] (rows[r - i][c] + rows[r + i][c])
    void (*convolve_rows)(const T* const* rows, const T* filter, Index radius, Index columns, T* sum);
    // sum[c] = k[0] row[c] + sum_i k[i] (row[c - i] + row[c + i]); row is readable `radius` before and after
    void (*convolve_columns)(const T* row, const T* filter, Index radius, Index columns, T* sum);
};

struct LatticeKernels {
    // Power (2 c + 1, width) in bins u = 0 .. c of a windowed tile; work: work_size() values.
    void (*tile_power)(const float* tile, const SpectrumTables&, float* work, float* power);
};

struct GrowthKernels {
    // From first guesses (count, 2) and prior frames (count, 2, 2) to positions and frames, (count, 6).
    void (*fit_sites)(const SiteBoard&, const Index* sites, Index count, const double* origins, const double* frames,
                      double* fitted);
};

// Side of a window, padded to whole vectors.
inline __attribute__((always_inline)) Index padded_side(Index half_window) { return (2 * half_window + 8) / 8 * 8; }

// Work memory of a step, in values.
inline __attribute__((always_inline)) Index refine_work(Index half_window) {
    return padded_side(half_window) * (2 * n_overlapping + 5 + padded_side(half_window));
}

template <class T>
struct RefineKernels {
    // Steps of the columns [begin, end) into steps (N, step_values); work: refine_work values.
    void (*column_steps)(const ImageView<T>&, const ColumnModel&, Index begin, Index end, double* work, double* steps);
    // Standard deviations (N) of the positions of the columns [begin, end) of a model that fits.
    void (*column_deviations)(const ImageView<T>&, const ColumnModel&, const double* backgrounds, Index begin,
                              Index end, double* work, double* deviations);
};

}  // namespace contextem
