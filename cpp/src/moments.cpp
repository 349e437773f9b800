#include "contextem/moments.hpp"

#include <algorithm>
#include <cmath>

#include "contextem/parallel.hpp"
#include "instruction_set.hpp"
#include "parity.hpp"
#include "tiles.hpp"

namespace contextem {
namespace {

std::size_t position(Index i) { return static_cast<std::size_t>(i); }

// Whether a mode of the given parity is even or odd under row <-> column, to rounding.
Exchange find_exchange(const double* w, Index size, int parity) {
    if (row_sign(parity) != column_sign(parity)) {
        return Exchange::none;  // the exchange takes it to another plane
    }
    double largest = 0.0;
    double sum = 0.0;  // of the distances from even and from odd
    double difference = 0.0;
    for (Index row = 0; row < size; ++row) {
        for (Index column = 0; column < size; ++column) {
            const double here = w[row * size + column];
            const double there = w[column * size + row];
            largest = std::max(largest, std::abs(here));
            sum = std::max(sum, std::abs(here + there));
            difference = std::max(difference, std::abs(here - there));
        }
    }
    const double tolerance = 1e-10 * largest;
    return difference <= tolerance ? Exchange::even : (sum <= tolerance ? Exchange::odd : Exchange::none);
}

}  // namespace

template <class T>
MomentTable<T>::MomentTable(const double* weights, Index modes, Index patch_size) : n_modes(modes), size(patch_size) {
    const std::vector<int> parity = find_parities(weights, modes, size);
    folded = !parity.empty();
    const Index first = folded ? size / 2 : 0;
    rows = size - first;

    // weight of sample (row, column) of a plane; the middle of an odd patch is folded onto itself and counted twice
    const auto plane_weight = [&](Index j, Index row, Index column) {
        const bool odd = folded && size % 2 == 1;
        const double share = (odd && row == 0 ? 0.5 : 1.0) * (odd && column == 0 ? 0.5 : 1.0);
        return share * weights[(j * size + first + row) * size + first + column];
    };

    row_lengths.assign(position(rows), 0);
    for (int plane = 0; plane < planes(); ++plane) {
        for (const Exchange exchange : {Exchange::none, Exchange::even, Exchange::odd}) {
            TableBlock<T> block = {plane, exchange, {}, {}, {}};
            for (Index j = 0; j < modes; ++j) {
                if (!folded || parity[position(j)] == plane) {
                    if (exchange == (folded ? find_exchange(weights + j * size * size, size, plane) : Exchange::none)) {
                        block.modes.push_back(j);
                    }
                }
            }
            for (Index row = 0; row < rows && !block.modes.empty(); ++row) {
                for (Index column = exchange == Exchange::none ? 0 : row; column < rows; ++column) {
                    std::vector<double> values;
                    double largest = 0.0;
                    for (const Index j : block.modes) {
                        const bool twice = exchange != Exchange::none && row == column;
                        values.push_back(plane_weight(j, row, column) * (twice ? 0.5 : 1.0));
                        largest = std::max(largest, std::abs(values.back()));
                    }
                    if (largest > 0.0 && !(exchange == Exchange::odd && row == column)) {
                        block.samples.push_back({static_cast<std::int32_t>(row * rows + column),
                                                 static_cast<std::int32_t>(column * rows + row)});
                        block.weights.insert(block.weights.end(), values.begin(), values.end());
                        const auto lengthen = [&](Index r, Index length) {
                            row_lengths[position(r)] = std::max(row_lengths[position(r)], length);
                        };
                        lengthen(row, column + 1);
                        if (exchange != Exchange::none) {
                            lengthen(column, row + 1);
                        }
                    }
                }
            }
            if (!block.modes.empty()) {
                blocks.push_back(std::move(block));
            }
        }
    }
}

template <class T>
Index MomentTable<T>::multiply_adds() const {
    Index count = 0;
    for (const TableBlock<T>& block : blocks) {
        count += static_cast<Index>(block.weights.size());
    }
    return count;
}

template <class T>
void patch_moments(const PatchesView<T>& patches, const MomentTable<T>& table, int n_threads, T* moments) {
    const MomentKernels<T>& kernel = instruction_set().moments.of<T>();
    parallel_for(patches.count, panel_vectors * kernel.lanes, n_threads, [&](Index begin, Index end) {
        Workspace<T> work(table, kernel.lanes);
        kernel.patch_moments(patches, table, begin, end, work, moments);
    });
}

template <class T>
void column_moments(const ImageView<T>& image, const PositionsView& positions, const PatchGrid& grid,
                    const MomentTable<T>& table, int n_threads, T* moments) {
    const MomentKernels<T>& kernel = instruction_set().moments.of<T>();
    const std::vector<Index> order = order_by_tile(positions, image.rows, image.columns);
    parallel_for(positions.count, panel_vectors * kernel.lanes, n_threads, [&](Index begin, Index end) {
        Workspace<T> work(table, kernel.lanes);
        kernel.column_moments(image, positions, order.data(), grid, table, begin, end, work, moments);
    });
}

template <class T>
void dense_moments(const ImageView<T>& image, const MomentTable<T>& table, int n_threads, T* moments) {
    const MomentKernels<T>& kernel = instruction_set().moments.of<T>();
    const Index before = (table.size - 1) / 2;
    const Index panel = panel_vectors * kernel.lanes;
    const Index columns = (image.columns + panel - 1) / panel * panel + table.size + panel;
    AlignedVector<T> values(position((image.rows + table.size) * columns), T(0));
    for (Index row = 0; row < image.rows; ++row) {
        T* out = values.data() + (row + before) * columns + before;
        for (Index column = 0; column < image.columns; ++column) {
            out[column] = image.data[row * image.row_stride + column * image.column_stride];
        }
    }
    const ImageView<T> padded = {values.data(), image.rows + table.size, columns, columns, 1};
    parallel_for(image.rows, 1, n_threads, [&](Index begin, Index end) {
        Workspace<T> work(table, kernel.lanes);
        kernel.dense_moments(padded, table, image.columns, begin, end, work, moments);
    });
}

template struct MomentTable<float>;
template struct MomentTable<double>;
template void patch_moments(const PatchesView<float>&, const MomentTable<float>&, int, float*);
template void patch_moments(const PatchesView<double>&, const MomentTable<double>&, int, double*);
template void column_moments(const ImageView<float>&, const PositionsView&, const PatchGrid&, const MomentTable<float>&,
                             int, float*);
template void column_moments(const ImageView<double>&, const PositionsView&, const PatchGrid&,
                             const MomentTable<double>&, int, double*);
template void dense_moments(const ImageView<float>&, const MomentTable<float>&, int, float*);
template void dense_moments(const ImageView<double>&, const MomentTable<double>&, int, double*);

}  // namespace contextem
