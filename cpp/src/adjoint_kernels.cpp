// The adjoint kernels, compiled once per instruction set (see CMakeLists.txt); all but the last function is local.
//
//   stage     gradient (N, J) -> coefficients   12 rows, modes grouped by parity
//   multiply  coefficients x table -> planes    planes[p, parity, i] = sum of g[p, j] w[j, i] over the modes j of a
//                                               parity: sums of 12 patches x 2 registers of samples stay in registers
//   unfold    planes -> patch (P, P)            sums and differences of the four planes, one quadrant each
//   spread    patch -> image                    every sample onto the pixels it was read from, by its shares
//
// Multiply-adds of one patch: J D / 4, with D the samples in the disk (13,700 at 32 x 32, 66 modes); 3 (P + 1)^2 more
// to spread it at scale 1. Threads own bands of image rows, or patches. Every patch passes through the same
// instructions wherever it stands, and a pixel sums its columns in the order given, so results do not depend on the
// threads.
#include "adjoint_kernels.hpp"

#include <cstring>

#include "simd.hpp"

namespace contextem {
namespace {

// ---- stage and multiply ---------------------------------------------------------------------------------------------

// rows: the gradient's rows of this panel; those missing from a full panel count as 0.
template <class T>
void stage(const MomentsView<T>& gradient, const Index* rows, Index count, const AdjointBlock<T>& block,
           T* coefficients /* (modes of the block, adjoint_panel) */) {
    const Index n_modes = static_cast<Index>(block.modes.size());
    const Index* modes = block.modes.data();
    for (Index i = 0; i < adjoint_panel; ++i) {
        const T* row = i < count ? gradient.data + rows[i] * gradient.row_stride : nullptr;
        for (Index j = 0; j < n_modes; ++j) {
            coefficients[j * adjoint_panel + i] = row != nullptr ? row[modes[j] * gradient.mode_stride] : T(0);
        }
    }
}

template <int n_patches, int n_vectors, class T>
void multiply(const T* coefficients /* (modes, adjoint_panel) */, const T* weights /* (modes, samples) */,
              Index n_modes, Index samples, T* planes /* (n_patches, patch_stride) */, Index patch_stride) {
    Vec<T> sum[n_patches][n_vectors] = {};
    for (Index j = 0; j < n_modes; ++j) {
        Vec<T> weight[n_vectors];
#pragma GCC unroll 2
        for (int v = 0; v < n_vectors; ++v) {
            weight[v] = load(weights + v * lanes<T>);
        }
#pragma GCC unroll 12
        for (int i = 0; i < n_patches; ++i) {
            const Vec<T> value = splat(coefficients[i]);
#pragma GCC unroll 2
            for (int v = 0; v < n_vectors; ++v) {
                sum[i][v] = multiply_add(value, weight[v], sum[i][v]);
            }
        }
        coefficients += adjoint_panel;
        weights += samples;
    }
    for (int i = 0; i < n_patches; ++i) {
        for (int v = 0; v < n_vectors; ++v) {
            store(planes + i * patch_stride + v * lanes<T>, sum[i][v]);
        }
    }
}

// Two registers of samples for as many patches as the register file holds sums of.
constexpr int wide_patches = CONTEXTEM_VECTOR_BYTES == 64 ? 12 : 6;

template <class T>
void multiply_panel(const MomentsView<T>& gradient, const Index* rows, Index count, const AdjointTable<T>& table,
                    AdjointWorkspace<T>& work) {
    const Index patch_stride = n_parities * work.plane_stride;
    for (const AdjointBlock<T>& block : table.blocks) {
        stage(gradient, rows, count, block, work.coefficients);
        const Index n_modes = static_cast<Index>(block.modes.size());
        const T* weights = block.weights.data();
        T* planes = work.planes + block.plane * work.plane_stride;
        Index sample = 0;
        for (; sample + 2 * lanes<T> <= table.samples; sample += 2 * lanes<T>) {
            for (Index i = 0; i < adjoint_panel; i += wide_patches) {
                multiply<wide_patches, 2>(work.coefficients + i, weights + sample, n_modes, table.samples,
                                          planes + i * patch_stride + sample, patch_stride);
            }
        }
        if (sample < table.samples) {
            multiply<static_cast<int>(adjoint_panel), 1>(work.coefficients, weights + sample, n_modes, table.samples,
                                                         planes + sample, patch_stride);
        }
    }
}

// ---- unfold ---------------------------------------------------------------------------------------------------------

template <class T>
using LaneVec = typename Register<LaneIndex<T>>::type;

template <class T, std::size_t... I>
CONTEXTEM_INLINE LaneVec<T> lane_numbers(std::index_sequence<I...>) {
    return LaneVec<T>{static_cast<LaneIndex<T>>(I)...};
}

// The first `count` lanes of a vector, 0 in the others.
template <class T>
CONTEXTEM_INLINE Vec<T> first_lanes(Vec<T> value, Index count) {
    const LaneVec<T> numbers = lane_numbers<T>(std::make_index_sequence<lanes<T>>());
    const LaneVec<T> mask = numbers < splat(static_cast<LaneIndex<T>>(count < lanes<T> ? count : lanes<T>));
    return mask ? value : Vec<T>{};
}

// Vectors run past a row's last sample into padding, with zeros.
template <class T>
void unfold_patch(const AdjointTable<T>& table, Index slot, AdjointWorkspace<T>& work) {
    const T* planes = work.planes + slot * n_parities * work.plane_stride;
    const Index* begins = table.row_begins.data();
    const Index* lengths = table.row_lengths.data();
    if (!table.folded) {
        for (Index row = 0; row < table.rows; ++row) {
            for (Index column = 0; column < lengths[row]; column += lanes<T>) {
                store(work.patch + row * work.patch_stride + column,
                      first_lanes<T>(load(planes + begins[row] + column), lengths[row] - column));
            }
        }
        return;
    }
    const Index first = table.size - table.rows;  // first row and column of the lower right quadrant
    for (Index row = 0; row < table.rows; ++row) {
        T* below = work.patch + (first + row) * work.patch_stride;
        T* above = work.patch + (table.rows - 1 - row) * work.patch_stride;
        for (Index column = 0; column < lengths[row]; column += lanes<T>) {
            const T* sample = planes + begins[row] + column;
            Vec<T> plane[n_parities];
            for (int parity = 0; parity < n_parities; ++parity) {
                plane[parity] = first_lanes<T>(load(sample + parity * work.plane_stride), lengths[row] - column);
            }
            // signs of (row, column) come back out: fold() is its own transpose
            const Vec<T> even_row = plane[even_even] + plane[even_odd];
            const Vec<T> odd_row = plane[odd_even] + plane[odd_odd];
            const Vec<T> even_row_left = plane[even_even] - plane[even_odd];
            const Vec<T> odd_row_left = plane[odd_even] - plane[odd_odd];
            const Index right = first + column;
            const Index left = table.rows - column - lanes<T>;
            // the middle row and column of an odd patch are written twice; the lower right one is the last
            store(above + left, reverse<T>(even_row_left - odd_row_left));
            store(above + right, even_row - odd_row);
            store(below + left, reverse<T>(even_row_left + odd_row_left));
            store(below + right, even_row + odd_row);
        }
    }
}

// ---- spread ---------------------------------------------------------------------------------------------------------

template <class T>
CONTEXTEM_INLINE bool owns(const Band<T>& band, Index row) {
    return row >= band.begin && row < band.end;
}

template <class T>
void add_line(const T* __restrict line, T share, Index width, T* __restrict out) {
    for (Index x = 0; x < width; ++x) {
        out[x] += share * line[x];
    }
}

// Rows and columns are rounded up to whole registers, so both arrays need room for that.
template <class T>
void transpose_array(const T* in, Index in_stride, Index rows, Index columns, T* out, Index out_stride) {
    constexpr int n = lanes<T>;
    for (Index row = 0; row < rows; row += n) {
        for (Index column = 0; column < columns; column += n) {
            Vec<T> block[n];
#pragma GCC unroll 16
            for (int i = 0; i < n; ++i) {
                block[i] = load(in + (row + i) * in_stride + column);
            }
            transpose<T>(block);
#pragma GCC unroll 16
            for (int i = 0; i < n; ++i) {
                store(out + (column + i) * out_stride + row, block[i]);
            }
        }
    }
}

// All samples share one offset between pixels: each patch row is blended with itself moved by one column, then added to
// two image rows.
template <class T>
void spread_unit(Tap top, Tap left, Index size, AdjointWorkspace<T>& work, const Band<T>& band) {
    const T right = static_cast<T>(left.share);
    const T stays = T(1) - right;
    const T down = static_cast<T>(top.share);
    const T remains = T(1) - down;
    const Index height = size + (top.share > 0.0 ? 1 : 0);
    const Index width = size + (left.share > 0.0 ? 1 : 0);
    const Index first = band.begin > top.index ? band.begin - top.index : 0;
    const Index stop = band.end - top.index < height ? band.end - top.index : height;
    if (first >= stop) {
        return;
    }
    const auto blend_row = [&](Index row, T* __restrict line) {
        if (row < 0 || row == size) {
            std::memset(line, 0, static_cast<std::size_t>(width) * sizeof(T));
            return;
        }
        const T* __restrict samples = work.patch + row * work.patch_stride;
        for (Index x = 0; x < width; ++x) {
            line[x] = stays * samples[x] + right * samples[x - 1];
        }
    };
    T* above = work.lines;
    T* current = work.lines + work.line_stride;
    blend_row(first - 1, above);
    for (Index row = first; row < stop; ++row) {
        blend_row(row, current);
        T* __restrict out = band.image + (top.index + row) * band.columns + left.index;
        const T* __restrict a = above;
        const T* __restrict c = current;
        for (Index x = 0; x < width; ++x) {
            out[x] += down * a[x] + remains * c[x];
        }
        T* const next = above;
        above = current;
        current = next;
    }
}

// Any scale along the axes: the patch is spread over a segment of image columns, each of its rows alike, then over
// rows. Returns false if the segment would be too long to be worth it.
template <class T>
bool spread_separable(const double* position, const PatchGrid& grid, AdjointWorkspace<T>& work, const Band<T>& band) {
    const Index size = grid.size;
    const LineReach reach = line_reach(grid, position[1], grid.column_by_column, band.columns);
    if (reach.width == 0) {
        return true;
    }
    if (reach.width > work.segment_capacity) {
        return false;
    }

    transpose_array(work.patch, work.patch_stride, size, size, work.turned, work.patch_stride);
    std::memset(work.across, 0, static_cast<std::size_t>(reach.width * work.patch_stride) * sizeof(T));
    for (Index l = reach.begin; l < reach.end; ++l) {
        const Tap tap = make_tap(line_coordinate(grid, position[1], grid.column_by_column, l), grid.interpolation);
        const T share = static_cast<T>(tap.share);
        const T* samples = work.turned + l * work.patch_stride;
        T* line = work.across + (tap.index - reach.origin) * work.patch_stride;
        add_line(samples, T(1) - share, size, line);
        if (tap.share > 0.0) {
            add_line(samples, share, size, line + work.patch_stride);
        }
    }
    transpose_array(work.across, work.patch_stride, reach.width, size, work.upright, work.segment_capacity);
    for (Index k = 0; k < size; ++k) {
        const double row = line_coordinate(grid, position[0], grid.row_by_row, k);
        if (!inside(row, band.rows)) {
            continue;
        }
        const Tap tap = make_tap(row, grid.interpolation);
        const T share = static_cast<T>(tap.share);
        const T* line = work.upright + k * work.segment_capacity;
        if (owns(band, tap.index)) {
            add_line(line, T(1) - share, reach.width, band.image + tap.index * band.columns + reach.origin);
        }
        if (tap.share > 0.0 && owns(band, tap.index + 1)) {
            add_line(line, share, reach.width, band.image + (tap.index + 1) * band.columns + reach.origin);
        }
    }
    return true;
}

// Calls use(value, down, right) for each sample inside an image, with its taps along the rows and the columns.
template <class T, class Use>
CONTEXTEM_INLINE void for_each_sample(const AdjointWorkspace<T>& work, const double* position, const PatchGrid& grid,
                                      Index rows, Index columns, Interpolation interpolation, const Use& use) {
    const double half = grid.half();
    for (Index k = 0; k < grid.size; ++k) {
        const double below = static_cast<double>(k) - half;
        for (Index l = 0; l < grid.size; ++l) {
            const double beside = static_cast<double>(l) - half;
            const double row = sample_row(grid, position[0], below, beside);
            const double column = sample_column(grid, position[1], below, beside);
            if (inside(row, rows) && inside(column, columns)) {
                use(work.patch[k * work.patch_stride + l], make_tap(row, interpolation),
                    make_tap(column, interpolation));
            }
        }
    }
}

template <class T>
void spread_general(const double* position, const PatchGrid& grid, const AdjointWorkspace<T>& work,
                    const Band<T>& band) {
    const auto spread = [&](T value, Tap down, Tap right) {
        const T down_share = static_cast<T>(down.share);
        const T right_share = static_cast<T>(right.share);
        const auto add = [&](Index image_row, T part) {
            if (owns(band, image_row)) {
                T* pixel = band.image + image_row * band.columns + right.index;
                pixel[0] += (T(1) - right_share) * part;
                if (right.share > 0.0) {
                    pixel[1] += right_share * part;
                }
            }
        };
        add(down.index, (T(1) - down_share) * value);
        if (down.share > 0.0) {
            add(down.index + 1, down_share * value);
        }
    };
    for_each_sample(work, position, grid, band.rows, band.columns, grid.interpolation, spread);
}

template <class T>
void spread_patch(const double* position, const PatchGrid& grid, AdjointWorkspace<T>& work, const Band<T>& band) {
    const UnitCorner corner = unit_corner(position, grid, band.rows, band.columns);
    if (corner.inside) {
        spread_unit(corner.top, corner.left, grid.size, work, band);
    } else if (!grid.separable() || !spread_separable(position, grid, work, band)) {
        spread_general(position, grid, work, band);
    }
}

// ---- slopes ---------------------------------------------------------------------------------------------------------

// Sum of each sample's gradient times the slope of the image there. On a pixel the slope is the one towards the next
// pixel; on the last row or column there is none, and it counts as 0.
//
// All samples share one offset between pixels, and each has a next one along both axes: summed column by column.
template <class T>
void sum_slopes_unit(const ImageView<T>& image, Tap top, Tap left, Index size, AdjointWorkspace<T>& work,
                     double* slopes /* (2) */) {
    const T down = static_cast<T>(top.share);
    const T right = static_cast<T>(left.share);
    T* __restrict along_rows = work.lines;
    T* __restrict along_columns = work.lines + work.line_stride;
    for (Index l = 0; l < size; ++l) {
        along_rows[l] = along_columns[l] = T(0);
    }
    for (Index k = 0; k < size; ++k) {
        const T* __restrict pixel = image.data + (top.index + k) * image.row_stride + left.index;
        const T* __restrict below = pixel + image.row_stride;
        const T* __restrict value = work.patch + k * work.patch_stride;
        for (Index l = 0; l < size; ++l) {
            along_rows[l] += value[l] * blend(below[l] - pixel[l], below[l + 1] - pixel[l + 1], right);
            along_columns[l] += value[l] * blend(pixel[l + 1] - pixel[l], below[l + 1] - below[l], down);
        }
    }
    slopes[0] = slopes[1] = 0.0;
    for (Index l = 0; l < size; ++l) {
        slopes[0] += static_cast<double>(along_rows[l]);
        slopes[1] += static_cast<double>(along_columns[l]);
    }
}

template <class T>
void sum_slopes_general(const ImageView<T>& image, const double* position, const PatchGrid& grid,
                        const AdjointWorkspace<T>& work, double* slopes /* (2) */) {
    double along_rows = 0.0;
    double along_columns = 0.0;
    const auto sum = [&](T sample, Tap down, Tap right) {
        const Index next_row = down.index + 1 < image.rows ? image.row_stride : 0;
        const Index next_column = right.index + 1 < image.columns ? image.column_stride : 0;
        const T* pixel = image.data + down.index * image.row_stride + right.index * image.column_stride;
        const T upper = pixel[next_column] - pixel[0];
        const T lower = pixel[next_row + next_column] - pixel[next_row];
        const T before = pixel[next_row] - pixel[0];
        const T after = pixel[next_row + next_column] - pixel[next_column];
        const double value = static_cast<double>(sample);
        along_rows += value * static_cast<double>(blend(before, after, static_cast<T>(right.share)));
        along_columns += value * static_cast<double>(blend(upper, lower, static_cast<T>(down.share)));
    };
    for_each_sample(work, position, grid, image.rows, image.columns, Interpolation::linear, sum);
    slopes[0] = along_rows;
    slopes[1] = along_columns;
}

template <class T>
void sum_slopes(const ImageView<T>& image, const double* position, const PatchGrid& grid, AdjointWorkspace<T>& work,
                double* slopes /* (2) */) {
    const UnitCorner corner = unit_corner(position, grid, image.rows, image.columns);
    if (corner.inside && image.column_stride == 1 && corner.top.index + grid.size < image.rows &&
        corner.left.index + grid.size < image.columns) {
        sum_slopes_unit(image, corner.top, corner.left, grid.size, work, slopes);
    } else {
        sum_slopes_general(image, position, grid, work, slopes);
    }
}

// ---- the three kernels ----------------------------------------------------------------------------------------------

// Calls use(slot) for each of `count` gradients in turn, with its patch in work.patch; row_of(i) is the gradient's row.
template <class T, class RowOf, class Use>
CONTEXTEM_INLINE void for_each_patch(const MomentsView<T>& gradient, Index count, const AdjointTable<T>& table,
                                     AdjointWorkspace<T>& work, const RowOf& row_of, const Use& use) {
    for (Index start = 0; start < count; start += adjoint_panel) {
        Index rows[adjoint_panel];
        const Index n = count - start < adjoint_panel ? count - start : adjoint_panel;
        for (Index i = 0; i < n; ++i) {
            rows[i] = row_of(start + i);
        }
        multiply_panel(gradient, rows, n, table, work);
        // rows come in any order: those of the next panel are on their way while this one is used
        for (Index i = start + n; i < count && i < start + n + adjoint_panel; ++i) {
            const T* row = gradient.data + row_of(i) * gradient.row_stride;
            for (Index j = 0; j < gradient.modes; j += static_cast<Index>(cache_line / sizeof(T))) {
                __builtin_prefetch(row + j * gradient.mode_stride);
            }
        }
        for (Index i = 0; i < n; ++i) {
            unfold_patch(table, i, work);
            use(rows[i]);
        }
    }
}

template <class T>
void patch_range(const MomentsView<T>& gradient, const AdjointTable<T>& table, Index begin, Index end,
                 AdjointWorkspace<T>& work, T* patches) {
    const Index size = table.size;
    for_each_patch(
        gradient, end - begin, table, work, [begin](Index i) { return begin + i; },
        [&](Index p) {
            T* out = patches + p * size * size;
            for (Index row = 0; row < size; ++row) {
                const T* __restrict line = work.patch + row * work.patch_stride;
                for (Index column = 0; column < size; ++column) {
                    out[row * size + column] = line[column];
                }
            }
        });
}

template <class T>
void column_range(const MomentsView<T>& gradient, const PositionsView& positions, const Index* order, Index count,
                  const PatchGrid& grid, const AdjointTable<T>& table, AdjointWorkspace<T>& work, const Band<T>& band) {
    for_each_patch(
        gradient, count, table, work, [order](Index i) { return order[i]; },
        [&](Index p) { spread_patch(positions.data + 2 * p, grid, work, band); });
}

template <class T>
void position_range(const MomentsView<T>& gradient, const ImageView<T>& image, const PositionsView& positions,
                    const Index* order, Index count, const PatchGrid& grid, const AdjointTable<T>& table,
                    AdjointWorkspace<T>& work, double* slopes) {
    for_each_patch(
        gradient, count, table, work, [order](Index i) { return order[i]; },
        [&](Index p) { sum_slopes(image, positions.data + 2 * p, grid, work, slopes + 2 * p); });
}

}  // namespace

namespace CONTEXTEM_SET {

template <class T>
AdjointKernels<T> adjoint_kernels() {
    return {patch_range<T>, column_range<T>, position_range<T>};
}

template AdjointKernels<float> adjoint_kernels();
template AdjointKernels<double> adjoint_kernels();

}  // namespace CONTEXTEM_SET
}  // namespace contextem
