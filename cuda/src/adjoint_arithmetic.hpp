// What each thread of the adjoint's kernels does: plain C++, tested on the host.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "contextem/cuda/adjoint.hpp"
#include "unroll.hpp"

namespace contextem::cuda {

constexpr int adjoint_group = 8;      // patches of a block
constexpr int adjoint_threads = 128;  // samples of a block
constexpr int mode_strip = 64;        // modes in shared memory at once

// ---- the table ------------------------------------------------------------------------------------------------------

template <class T>
struct PackedAdjoint {
    std::vector<T> weights;             // (n_modes, samples)
    std::vector<std::int32_t> indices;  // mode (n_modes), then sample (samples)
    AdjointTableView<T> shape{};        // without addresses

    explicit PackedAdjoint(const AdjointTable<T>& table) {
        std::vector<std::int32_t> sample;
        for (Index row = 0; row < table.rows; ++row) {
            for (Index column = 0; column < table.row_lengths[static_cast<std::size_t>(row)]; ++column) {
                sample.push_back(static_cast<std::int32_t>(row * table.rows + column));
            }
        }
        const Index samples = static_cast<Index>(sample.size());
        shape.samples = samples;
        shape.n_modes = table.n_modes;
        shape.size = table.size;
        shape.rows = table.rows;
        shape.folded = table.folded;
        int plane = 0;
        for (const AdjointBlock<T>& block : table.blocks) {  // in the order of their planes
            for (; plane < block.plane; ++plane) {
                shape.first[plane + 1] = static_cast<Index>(indices.size());
            }
            for (std::size_t j = 0; j < block.modes.size(); ++j) {
                indices.push_back(static_cast<std::int32_t>(block.modes[j]));
                const T* line = block.weights.data() + static_cast<Index>(j) * table.samples;
                weights.insert(weights.end(), line, line + samples);
            }
        }
        for (; plane < n_parities; ++plane) {
            shape.first[plane + 1] = static_cast<Index>(indices.size());
        }
        indices.insert(indices.end(), sample.begin(), sample.end());
    }

    AdjointTableView<T> at(const T* weights_address, const std::int32_t* indices_address) const {
        AdjointTableView<T> view = shape;
        view.weights = weights_address;
        view.mode = indices_address;
        view.sample = indices_address + view.n_modes;
        return view;
    }
};

// ---- from gradients to patches --------------------------------------------------------------------------------------

// The rows of a gradient that a launch takes: `count` of them, which `order` names from `begin` on, or those
// themselves.
struct RowsInOrder {
    const std::int32_t* order;
    Index begin;
    Index count;

    CONTEXTEM_HD Index row(Index i) const { return order != nullptr ? order[begin + i] : begin + i; }
};

// Blocks count the groups of samples first, then those of patches.
struct AdjointBlockIndex {
    Index first_patch;
    Index first_sample;
};

CONTEXTEM_HD Index sample_groups(Index samples) { return (samples + adjoint_threads - 1) / adjoint_threads; }

CONTEXTEM_HD AdjointBlockIndex adjoint_block(Index block, Index samples) {
    const Index groups = sample_groups(samples);
    return {block / groups * adjoint_group, block % groups * adjoint_threads};
}

inline Index adjoint_blocks(Index count, Index samples) {
    return (count + adjoint_group - 1) / adjoint_group * sample_groups(samples);
}

// Modes [start, start + n) of the table, of the patches of a block; missing patches count as 0.
template <class T>
CONTEXTEM_HD void stage_coefficients(const MomentsView<T>& gradient, const RowsInOrder& rows, Index first_patch,
                                     const AdjointTableView<T>& table, Index start, int n, int thread,
                                     T* coefficients /* (mode_strip, adjoint_group) */) {
    for (int i = thread; i < n * adjoint_group; i += adjoint_threads) {
        const int j = i % n;  // neighbouring threads take neighbouring modes of one row
        const int slot = i / n;
        const Index p = first_patch + slot;
        coefficients[j * adjoint_group + slot] =
            p < rows.count
                ? gradient.data[rows.row(p) * gradient.row_stride + table.mode[start + j] * gradient.mode_stride]
                : T(0);
    }
}

template <class T>
struct AdjointSums {
    T plane[n_parities][adjoint_group];
};

// Adds those modes to the planes of sample q, plane by plane, so that the sums stay in registers.
template <class T>
CONTEXTEM_HD void add_modes(const AdjointTableView<T>& table, Index q, Index start, int n, const T* coefficients,
                            AdjointSums<T>& sums) {
    using std::fma;
    CONTEXTEM_UNROLL
    for (int plane = 0; plane < n_parities; ++plane) {
        const Index begin = table.first[plane] > start ? table.first[plane] : start;
        const Index end = table.first[plane + 1] < start + n ? table.first[plane + 1] : start + n;
        for (Index j = begin; j < end; ++j) {
            const T weight = table.weights[j * table.samples + q];
            const T* values = coefficients + (j - start) * adjoint_group;
            CONTEXTEM_UNROLL
            for (int slot = 0; slot < adjoint_group; ++slot) {
                sums.plane[plane][slot] = fma(weight, values[slot], sums.plane[plane][slot]);
            }
        }
    }
}

// The up to four samples of a patch that sample q of the quadrant stands for. The middle row and column of an odd patch
// are written twice; the lower right one is the last.
template <class T>
CONTEXTEM_HD void unfold(const AdjointTableView<T>& table, Index q, const AdjointSums<T>& sums, int slot,
                         T* patch /* (P, P) */) {
    const Index row = table.sample[q] / table.rows;
    const Index column = table.sample[q] % table.rows;
    if (!table.folded) {
        patch[row * table.size + column] = sums.plane[0][slot];
        return;
    }
    const Index below = table.size - table.rows + row;
    const Index right = table.size - table.rows + column;
    const Index above = table.rows - 1 - row;
    const Index left = table.rows - 1 - column;
    const T even_row = sums.plane[even_even][slot] + sums.plane[even_odd][slot];
    const T odd_row = sums.plane[odd_even][slot] + sums.plane[odd_odd][slot];
    const T even_row_left = sums.plane[even_even][slot] - sums.plane[even_odd][slot];
    const T odd_row_left = sums.plane[odd_even][slot] - sums.plane[odd_odd][slot];
    patch[above * table.size + left] = even_row_left - odd_row_left;
    patch[above * table.size + right] = even_row - odd_row;
    patch[below * table.size + left] = even_row_left + odd_row_left;
    patch[below * table.size + right] = even_row + odd_row;
}

// ---- from patches to the image --------------------------------------------------------------------------------------

constexpr Index bin_rows = 8;
constexpr Index bin_columns = 32;

// The image in bins, which are also the tiles of pixels that blocks own. Columns are sorted by the bin they stand in,
// those outside by the nearest one.
struct Bins {
    Index rows;  // of the image
    Index columns;
    Index down;  // bins
    Index across;
    double row_reach;  // pixels beyond a position that its samples and their neighbours reach
    double column_reach;

    Bins(Index image_rows, Index image_columns, const PatchGrid& grid)
        : rows(image_rows),
          columns(image_columns),
          down((image_rows + bin_rows - 1) / bin_rows),
          across((image_columns + bin_columns - 1) / bin_columns),
          row_reach(grid.half() * (std::abs(grid.row_by_row) + std::abs(grid.row_by_column)) + 1.0),
          column_reach(grid.half() * (std::abs(grid.column_by_row) + std::abs(grid.column_by_column)) + 1.0) {}

    CONTEXTEM_HD Index count() const { return down * across; }

    static CONTEXTEM_HD Index pixel(double coordinate, Index extent) {
        return inside(coordinate, extent) ? static_cast<Index>(coordinate) : (coordinate > 0.0 ? extent - 1 : Index(0));
    }

    CONTEXTEM_HD Index bin_row(double row) const { return pixel(row, rows) / bin_rows; }
    CONTEXTEM_HD Index bin_column(double column) const { return pixel(column, columns) / bin_columns; }

    CONTEXTEM_HD std::int32_t of(const double* position) const {
        return static_cast<std::int32_t>(bin_row(position[0]) * across + bin_column(position[1]));
    }
};

// Bins [top, bottom] x [left, right] hold all columns that reach into a tile.
struct BinRange {
    Index top;
    Index bottom;
    Index left;
    Index right;
};

CONTEXTEM_HD BinRange bins_around(const Bins& bins, Index tile_row, Index tile_column) {
    const double top = static_cast<double>(tile_row * bin_rows);
    const double left = static_cast<double>(tile_column * bin_columns);
    return {bins.bin_row(top - bins.row_reach), bins.bin_row(top + static_cast<double>(bin_rows) + bins.row_reach),
            bins.bin_column(left - bins.column_reach),
            bins.bin_column(left + static_cast<double>(bin_columns) + bins.column_reach)};
}

// How many of the sorted bins come before `bin`.
CONTEXTEM_HD Index first_in_bin(const std::int32_t* sorted, Index count, Index bin) {
    Index low = 0;
    Index high = count;
    while (low < high) {
        const Index middle = low + (high - low) / 2;
        if (sorted[middle] < bin) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

// The inverse of the grid's matrix: from pixels to samples.
struct InverseGrid {
    double k_by_row;
    double k_by_column;
    double l_by_row;
    double l_by_column;
};

inline InverseGrid invert(const PatchGrid& grid) {
    const double determinant = grid.row_by_row * grid.column_by_column - grid.row_by_column * grid.column_by_row;
    return {grid.column_by_column / determinant, -grid.row_by_column / determinant, -grid.column_by_row / determinant,
            grid.row_by_row / determinant};
}

// With which share a tap reads a pixel; 0 if it does not.
template <class T>
CONTEXTEM_HD T share_of(Tap tap, Index pixel) {
    if (pixel == tap.index) {
        return T(1) - static_cast<T>(tap.share);
    }
    return pixel == tap.index + 1 ? static_cast<T>(tap.share) : T(0);
}

// sum, and what pixel (row, column) gets back from a patch: of the samples that lie less than a pixel away, which are
// among those of a parallelogram's bounding box.
template <class T>
CONTEXTEM_HD T gather(const T* patch /* (P, P) */, const double* position, const PatchGrid& grid,
                      const InverseGrid& inverse, const Bins& bins, Index row, Index column, T sum) {
    const double down = static_cast<double>(row) - position[0];
    const double right = static_cast<double>(column) - position[1];
    if (!(down <= bins.row_reach && -down <= bins.row_reach && right <= bins.column_reach &&
          -right <= bins.column_reach)) {
        return sum;  // out of reach, or no number
    }
    const double half = grid.half();
    const double last = static_cast<double>(grid.size - 1);
    const double k_centre = half + inverse.k_by_row * down + inverse.k_by_column * right;
    const double l_centre = half + inverse.l_by_row * down + inverse.l_by_column * right;
    const double k_width = std::fabs(inverse.k_by_row) + std::fabs(inverse.k_by_column);
    const double l_width = std::fabs(inverse.l_by_row) + std::fabs(inverse.l_by_column);
    const double k_begin = std::fmax(std::floor(k_centre - k_width), 0.0);
    const double k_end = std::fmin(std::ceil(k_centre + k_width), last);
    const double l_begin = std::fmax(std::floor(l_centre - l_width), 0.0);
    const double l_end = std::fmin(std::ceil(l_centre + l_width), last);
    for (double k = k_begin; k <= k_end; k += 1.0) {
        for (double l = l_begin; l <= l_end; l += 1.0) {
            const double y = sample_row(grid, position[0], k - half, l - half);
            const double x = sample_column(grid, position[1], k - half, l - half);
            if (inside(y, bins.rows) && inside(x, bins.columns)) {
                const T down_share = share_of<T>(make_tap(y, grid.interpolation), row);
                const T right_share = share_of<T>(make_tap(x, grid.interpolation), column);
                sum += right_share * (down_share * patch[static_cast<Index>(k) * grid.size + static_cast<Index>(l)]);
            }
        }
    }
    return sum;
}

// sum, and what a pixel gets back from all patches in memory, which are those of the sorted columns [begin, end). A
// pixel meets its columns in their sorted order, whatever the parts they come in.
template <class T>
CONTEXTEM_HD T gather_columns(const T* patches /* (end - begin, P, P) */, Index begin, Index end,
                              const std::int32_t* order, const std::int32_t* starts /* (bins + 1) */,
                              const PositionsView& positions, const PatchGrid& grid, const InverseGrid& inverse,
                              const Bins& bins, const BinRange& around, Index row, Index column, T sum) {
    const Index area = grid.size * grid.size;
    for (Index bin = around.top; bin <= around.bottom; ++bin) {
        Index first = starts[bin * bins.across + around.left];
        Index stop = starts[bin * bins.across + around.right + 1];
        first = first > begin ? first : begin;
        stop = stop < end ? stop : end;
        for (Index i = first; i < stop; ++i) {
            sum = gather(patches + (i - begin) * area, positions.data + 2 * static_cast<Index>(order[i]), grid, inverse,
                         bins, row, column, sum);
        }
    }
    return sum;
}

// ---- from patches to positions --------------------------------------------------------------------------------------

struct Slope {
    double along_rows;
    double along_columns;
};

// Sample (k, l) of the gradient with respect to a patch times the slope of the image there: towards the next pixel, 0
// on the last row or column and outside.
template <class T>
CONTEXTEM_HD Slope sample_slope(const ImageView<T>& image, const double* position, const PatchGrid& grid, Index k,
                                Index l, T sample) {
    const double below = static_cast<double>(k) - grid.half();
    const double beside = static_cast<double>(l) - grid.half();
    const double row = sample_row(grid, position[0], below, beside);
    const double column = sample_column(grid, position[1], below, beside);
    if (row != row || column != column) {
        return {row + column, row + column};  // positions on the device are not checked: NaN shows in the result
    }
    if (!inside(row, image.rows) || !inside(column, image.columns)) {
        return {0.0, 0.0};
    }
    const Tap down = make_tap(row, Interpolation::linear);
    const Tap right = make_tap(column, Interpolation::linear);
    const Index next_row = down.index + 1 < image.rows ? image.row_stride : 0;
    const Index next_column = right.index + 1 < image.columns ? image.column_stride : 0;
    const T* pixel = image.data + down.index * image.row_stride + right.index * image.column_stride;
    const T upper = pixel[next_column] - pixel[0];
    const T lower = pixel[next_row + next_column] - pixel[next_row];
    const T before = pixel[next_row] - pixel[0];
    const T after = pixel[next_row + next_column] - pixel[next_column];
    const double value = static_cast<double>(sample);
    return {value * static_cast<double>(blend(before, after, static_cast<T>(right.share))),
            value * static_cast<double>(blend(upper, lower, static_cast<T>(down.share)))};
}

constexpr int warp_lanes = 32;

// What a lane of the warp that owns a column sums.
template <class T>
CONTEXTEM_HD Slope lane_slope(const ImageView<T>& image, const double* position, const PatchGrid& grid,
                              const T* patch /* (P, P) */, int lane) {
    Slope sum = {0.0, 0.0};
    for (Index i = lane; i < grid.size * grid.size; i += warp_lanes) {
        const Slope slope = sample_slope(image, position, grid, i / grid.size, i % grid.size, patch[i]);
        sum.along_rows += slope.along_rows;
        sum.along_columns += slope.along_columns;
    }
    return sum;
}

// ---- scratch --------------------------------------------------------------------------------------------------------

constexpr std::size_t patch_scratch = std::size_t(64) << 20;

// Patches that are in memory at once: whole groups, at least one.
template <class T>
Index patches_at_once(Index count, Index size) {
    const std::size_t bytes = static_cast<std::size_t>(size * size) * sizeof(T);
    const Index groups = static_cast<Index>(patch_scratch / (bytes * adjoint_group));
    const Index most = std::max<Index>(groups, 1) * adjoint_group;
    return std::min(most, (count + adjoint_group - 1) / adjoint_group * adjoint_group);
}

// Where in the scratch of column_moments_adjoint things lie, from its beginning, each on 256 bytes.
struct AdjointScratch {
    std::size_t bins;
    std::size_t sorted;
    std::size_t numbers;
    std::size_t order;
    std::size_t starts;
    std::size_t sorting;
    std::size_t patches;
    std::size_t total;

    AdjointScratch(Index count, Index n_bins, std::size_t sorting_bytes, std::size_t patch_bytes) : total(0) {
        const std::size_t list = static_cast<std::size_t>(count) * sizeof(std::int32_t);
        bins = take(list);
        sorted = take(list);
        numbers = take(list);
        order = take(list);
        starts = take(static_cast<std::size_t>(n_bins + 1) * sizeof(std::int32_t));
        sorting = take(sorting_bytes);
        patches = take(patch_bytes);
    }

private:
    std::size_t take(std::size_t bytes) {
        const std::size_t begin = total;
        total += (bytes + 255) / 256 * 256;
        return begin;
    }
};

}  // namespace contextem::cuda
