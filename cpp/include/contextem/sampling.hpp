// Where the samples of a patch lie, how a pixel value is read there, and how a patch is folded: the arithmetic that the
// C++ and the CUDA kernels share.
//
//   sample (k, l) of the patch at (r, c):  (r, c) + S (k - h, l - h),  h = (P - 1) / 2,  S a 2x2 matrix, px per sample
//   a sample outside [0, rows - 1] x [0, columns - 1] counts as 0
//   linear:   between the four pixels around it, first along the rows' axis, then along the columns'
//   nearest:  the pixel at floor(coordinate + 1/2)
//
// The build contracts nothing into fused multiply-adds (-ffp-contract=off, --fmad=false), so coordinates are rounded
// the same way on every path and a sample on the border is inside for all of them or for none.
#pragma once

#include "contextem/view.hpp"

#if defined(__CUDACC__)
#define CONTEXTEM_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
// always inlined: the kernels are compiled once per instruction set, and an out-of-line copy could be shared by all
#define CONTEXTEM_HD inline __attribute__((always_inline))
#else
#define CONTEXTEM_HD inline
#endif

namespace contextem {

enum class Interpolation { linear, nearest };

// The patch grid: side and the matrix S that maps (k - h, l - h) to image offsets.
struct PatchGrid {
    Index size;
    double row_by_row;        // d row / d k
    double row_by_column;     // d row / d l
    double column_by_row;     // d column / d k
    double column_by_column;  // d column / d l
    Interpolation interpolation;

    CONTEXTEM_HD double half() const { return 0.5 * static_cast<double>(size - 1); }
    CONTEXTEM_HD bool separable() const { return row_by_column == 0.0 && column_by_row == 0.0; }
    CONTEXTEM_HD bool unit() const { return separable() && row_by_row == 1.0 && column_by_column == 1.0; }
};

CONTEXTEM_HD double sample_row(const PatchGrid& grid, double position, double k, double l) {
    return position + (grid.row_by_row * k + grid.row_by_column * l);
}

CONTEXTEM_HD double sample_column(const PatchGrid& grid, double position, double k, double l) {
    return position + (grid.column_by_row * k + grid.column_by_column * l);
}

CONTEXTEM_HD bool inside(double coordinate, Index extent) {
    return coordinate >= 0.0 && coordinate <= static_cast<double>(extent - 1);  // false for NaN
}

// One coordinate inside the image: pixel `index` and the share of pixel index + 1. A share of 0 needs no neighbour.
struct Tap {
    Index index;
    double share;
};

CONTEXTEM_HD Tap make_tap(double coordinate, Interpolation interpolation) {
    if (interpolation == Interpolation::nearest) {
        return {static_cast<Index>(coordinate + 0.5), 0.0};
    }
    const Index index = static_cast<Index>(coordinate);  // coordinate >= 0: truncation is floor
    return {index, coordinate - static_cast<double>(index)};
}

// Of a separable grid: where sample i of a line along either axis lies, at `step` pixels per sample.
CONTEXTEM_HD double line_coordinate(const PatchGrid& grid, double position, double step, Index i) {
    return position + (step * (static_cast<double>(i) - grid.half()) + 0.0);  // as in sample_row and sample_column
}

// Samples [begin, end) of such a line lie inside the image, one range since coordinates are monotonic. They read the
// pixels [origin, origin + width), neighbours included.
struct LineReach {
    Index begin;
    Index end;
    Index origin;
    Index width;
};

CONTEXTEM_HD LineReach line_reach(const PatchGrid& grid, double position, double step, Index extent) {
    LineReach reach = {0, grid.size, 0, 0};
    while (reach.begin < reach.end && !inside(line_coordinate(grid, position, step, reach.begin), extent)) {
        ++reach.begin;
    }
    while (reach.end > reach.begin && !inside(line_coordinate(grid, position, step, reach.end - 1), extent)) {
        --reach.end;
    }
    if (reach.begin == reach.end) {
        return reach;
    }
    const Tap first = make_tap(line_coordinate(grid, position, step, reach.begin), grid.interpolation);
    const Tap last = make_tap(line_coordinate(grid, position, step, reach.end - 1), grid.interpolation);
    const bool ascending = first.index < last.index || (first.index == last.index && first.share < last.share);
    const Tap& high = ascending ? last : first;
    reach.origin = ascending ? first.index : last.index;
    reach.width = high.index - reach.origin + (high.share > 0.0 ? 2 : 1);
    return reach;
}

// The first sample of a patch of scale 1 that lies inside the image: all samples share its offset between pixels.
struct UnitCorner {
    bool inside;
    Tap top;
    Tap left;
};

// The corner is compared with the last one inside, which is exact: row + P - 1 might round onto the border.
CONTEXTEM_HD UnitCorner unit_corner(const double* position, const PatchGrid& grid, Index rows, Index columns) {
    const double row = position[0] - grid.half();
    const double column = position[1] - grid.half();
    if (!(grid.unit() && row >= 0.0 && row <= static_cast<double>(rows - grid.size) && column >= 0.0 &&
          column <= static_cast<double>(columns - grid.size))) {
        return {false, {0, 0.0}, {0, 0.0}};
    }
    return {true, make_tap(row, grid.interpolation), make_tap(column, grid.interpolation)};
}

// Exact for a == b, unlike (1 - share) a + share b.
template <class T>
CONTEXTEM_HD T blend(T a, T b, T share) {
    return a + share * (b - a);
}

template <class T>
CONTEXTEM_HD T read_sample(const ImageView<T>& image, double row, double column, Interpolation interpolation) {
    if (!inside(row, image.rows) || !inside(column, image.columns)) {
        return T(0);
    }
    const Tap down = make_tap(row, interpolation);
    const Tap right = make_tap(column, interpolation);
    const Index next_row = down.share > 0.0 ? image.row_stride : 0;
    const Index next_column = right.share > 0.0 ? image.column_stride : 0;
    const T* pixel = image.data + down.index * image.row_stride + right.index * image.column_stride;
    const T down_share = static_cast<T>(down.share);
    const T first = blend(pixel[0], pixel[next_row], down_share);
    const T second = blend(pixel[next_column], pixel[next_row + next_column], down_share);
    return blend(first, second, static_cast<T>(right.share));
}

// Parity of a mode under row -> -row and column -> -column; it names the plane of a folded patch that the mode reads.
//   even_even  cos m, m even     even_odd  cos m, m odd      odd_even  sin m, m odd     odd_odd  sin m, m even
enum Parity { even_even = 0, even_odd = 1, odd_even = 2, odd_odd = 3, n_parities = 4 };

CONTEXTEM_HD int row_sign(int parity) { return parity < odd_even ? 1 : -1; }
CONTEXTEM_HD int column_sign(int parity) { return parity % 2 == 0 ? 1 : -1; }

// The four samples (+-row, +-column) of a patch, folded onto its lower right quadrant. T may be a vector of samples.
template <class T>
struct Folded {
    T plane[n_parities];
};

template <class T>
CONTEXTEM_HD Folded<T> fold(T plus_plus, T plus_minus, T minus_plus, T minus_minus) {  // signs of (row, column)
    const T sum_plus = plus_plus + minus_plus;
    const T sum_minus = plus_minus + minus_minus;
    const T difference_plus = plus_plus - minus_plus;
    const T difference_minus = plus_minus - minus_minus;
    return {{sum_plus + sum_minus, sum_plus - sum_minus, difference_plus + difference_minus,
             difference_plus - difference_minus}};
}

}  // namespace contextem
