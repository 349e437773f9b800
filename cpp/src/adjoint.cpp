#include "contextem/adjoint.hpp"

#include <algorithm>
#include <cmath>

#include "contextem/parallel.hpp"
#include "instruction_set.hpp"
#include "parity.hpp"
#include "tiles.hpp"

namespace contextem {
namespace {

std::size_t position(Index i) { return static_cast<std::size_t>(i); }

Index round_up(Index count, Index step) { return (count + step - 1) / step * step; }

template <class T>
constexpr Index line_values = static_cast<Index>(cache_line / sizeof(T));

// Image rows beyond a position that its samples and their neighbours reach.
double reach(const PatchGrid& grid) {
    return grid.half() * (std::abs(grid.row_by_row) + std::abs(grid.row_by_column)) + 1.0;
}

}  // namespace

template <class T>
AdjointTable<T>::AdjointTable(const double* weights, Index modes, Index patch_size) : n_modes(modes), size(patch_size) {
    const std::vector<int> parity = find_parities(weights, modes, size);
    folded = !parity.empty();
    const Index first = folded ? size / 2 : 0;
    rows = size - first;
    const auto weight = [&](Index j, Index row, Index column) {
        return weights[(j * size + first + row) * size + first + column];
    };

    Index count = 0;
    for (Index row = 0; row < rows; ++row) {
        Index length = 0;
        for (Index j = 0; j < modes; ++j) {
            for (Index column = length; column < rows; ++column) {
                length = weight(j, row, column) != 0.0 ? column + 1 : length;
            }
        }
        row_begins.push_back(count);
        row_lengths.push_back(length);
        count += length;
    }
    samples = round_up(count, line_values<T>);

    for (int plane = 0; plane < (folded ? n_parities : 1); ++plane) {
        AdjointBlock<T> block;
        block.plane = plane;
        for (Index j = 0; j < modes; ++j) {
            if (!folded || parity[position(j)] == plane) {
                block.modes.push_back(j);
            }
        }
        if (block.modes.empty()) {
            continue;
        }
        block.weights.assign(block.modes.size() * position(samples), T(0));
        T* line = block.weights.data();
        for (const Index j : block.modes) {
            for (Index row = 0; row < rows; ++row) {
                for (Index column = 0; column < row_lengths[position(row)]; ++column) {
                    line[row_begins[position(row)] + column] = static_cast<T>(weight(j, row, column));
                }
            }
            line += samples;
        }
        blocks.push_back(std::move(block));
    }
}

template <class T>
AdjointWorkspace<T>::AdjointWorkspace(const AdjointTable<T>& table, const PatchGrid& grid) {
    constexpr Index pad = line_values<T>;
    patch_stride = round_up(table.size, pad) + 2 * pad;
    plane_stride = table.samples + pad;
    line_stride = round_up(table.size + 1, pad);
    segment_capacity = round_up(grid.unit() ? table.size + 1 : 4 * table.size + 2, pad);
    const Index padded = round_up(table.size, pad);  // rows that a transposition reads or writes
    const Index patch_values = padded * patch_stride + 2 * pad;
    const Index plane_values = adjoint_panel * n_parities * plane_stride;
    const Index coefficient_values = round_up(table.n_modes * adjoint_panel, pad);
    const Index turned_values = padded * patch_stride;
    const Index segment_values = segment_capacity * patch_stride;
    const Index upright_values = padded * segment_capacity;
    values_.assign(position(patch_values + plane_values + coefficient_values + 2 * line_stride + turned_values +
                            segment_values + upright_values),
                   T(0));
    patch = values_.data() + pad;
    planes = values_.data() + patch_values;
    coefficients = planes + plane_values;
    lines = coefficients + coefficient_values;
    turned = lines + 2 * line_stride;
    across = turned + turned_values;
    upright = across + segment_values;
}

template <class T>
void patch_moments_adjoint(const MomentsView<T>& gradient, const AdjointTable<T>& table, int n_threads, T* patches) {
    const AdjointKernels<T>& kernel = instruction_set().adjoint.of<T>();
    const PatchGrid grid = {table.size, 1.0, 0.0, 0.0, 1.0, Interpolation::linear};
    parallel_for(gradient.count, adjoint_panel, n_threads, [&](Index begin, Index end) {
        AdjointWorkspace<T> work(table, grid);
        kernel.patches(gradient, table, begin, end, work, patches);
    });
}

// Each thread owns a band of image rows and visits the columns that reach into it, in the same order as every other
// thread: a pixel sums its columns in that order, whatever the bands. What straddles two bands is computed in both.
template <class T>
void column_moments_adjoint(const MomentsView<T>& gradient, const PositionsView& positions, const PatchGrid& grid,
                            const AdjointTable<T>& table, Index rows, Index columns, int n_threads, T* image) {
    const AdjointKernels<T>& kernel = instruction_set().adjoint.of<T>();
    const std::vector<Index> order = order_by_tile(positions, rows, columns);
    const double beyond = reach(grid);
    const Index least = static_cast<Index>(std::min(4.0 * beyond, static_cast<double>(rows)));  // two patches high
    parallel_for(rows, std::max<Index>(1, least), n_threads, [&](Index begin, Index end) {
        std::fill(image + begin * columns, image + end * columns, T(0));
        std::vector<Index> reaching;
        for (const Index p : order) {
            const double row = positions.data[2 * p];
            if (row + beyond >= static_cast<double>(begin) && row - beyond < static_cast<double>(end)) {
                reaching.push_back(p);
            }
        }
        AdjointWorkspace<T> work(table, grid);
        kernel.columns(gradient, positions, reaching.data(), static_cast<Index>(reaching.size()), grid, table, work,
                       Band<T>{image, rows, columns, begin, end});
    });
}

template <class T>
void column_moments_position_gradient(const MomentsView<T>& gradient, const ImageView<T>& image,
                                      const PositionsView& positions, const PatchGrid& grid,
                                      const AdjointTable<T>& table, int n_threads, double* slopes) {
    const AdjointKernels<T>& kernel = instruction_set().adjoint.of<T>();
    PatchGrid linear = grid;
    linear.interpolation = Interpolation::linear;
    const std::vector<Index> order = order_by_tile(positions, image.rows, image.columns);
    parallel_for(positions.count, adjoint_panel, n_threads, [&](Index begin, Index end) {
        AdjointWorkspace<T> work(table, linear);
        kernel.positions(gradient, image, positions, order.data() + begin, end - begin, linear, table, work, slopes);
    });
}

template struct AdjointTable<float>;
template struct AdjointTable<double>;
template class AdjointWorkspace<float>;
template class AdjointWorkspace<double>;
template void patch_moments_adjoint(const MomentsView<float>&, const AdjointTable<float>&, int, float*);
template void patch_moments_adjoint(const MomentsView<double>&, const AdjointTable<double>&, int, double*);
template void column_moments_adjoint(const MomentsView<float>&, const PositionsView&, const PatchGrid&,
                                     const AdjointTable<float>&, Index, Index, int, float*);
template void column_moments_adjoint(const MomentsView<double>&, const PositionsView&, const PatchGrid&,
                                     const AdjointTable<double>&, Index, Index, int, double*);
template void column_moments_position_gradient(const MomentsView<float>&, const ImageView<float>&, const PositionsView&,
                                               const PatchGrid&, const AdjointTable<float>&, int, double*);
template void column_moments_position_gradient(const MomentsView<double>&, const ImageView<double>&,
                                               const PositionsView&, const PatchGrid&, const AdjointTable<double>&, int,
                                               double*);

}  // namespace contextem
