#include "contextem/moments.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "contextem/parallel.hpp"
#include "kernels.hpp"

namespace contextem {
namespace {

std::size_t position(Index i) { return static_cast<std::size_t>(i); }

// The parity of one mode's weights (P, P), to rounding; -1 if they have none.
int find_parity(const double* w, Index size) {
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

// Whether a mode of the given parity is even or odd under row <-> column, to rounding.
Exchange find_exchange(const double* w, Index size, int parity) {
    if (row_sign(parity) != column_sign(parity)) {
        return Exchange::none;  // the exchange takes it to another plane
    }
    double largest = 0.0;
    double sum = 0.0;         // of the distances from even and from odd
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

// The order in which columns are visited: tile after tile of the image, so that a patch finds most of its pixels in the
// cache where its neighbours left them. Positions in random order otherwise spend half the time waiting for memory.
std::vector<Index> order_by_tile(const PositionsView& positions, Index rows, Index columns) {
    constexpr Index tile_rows = 32;
    constexpr Index tile_columns = 64;
    constexpr Index few = 256;  // not worth a pass over the tiles
    std::vector<Index> order(position(positions.count));
    if (positions.count < few) {
        std::iota(order.begin(), order.end(), Index(0));
        return order;
    }
    const auto clamp = [](double coordinate, Index extent) {
        return inside(coordinate, extent) ? static_cast<Index>(coordinate) : (coordinate > 0.0 ? extent - 1 : Index(0));
    };
    const Index tiles_across = columns / tile_columns + 1;
    const auto tile_of = [&](Index p) {
        const double* centre = positions.data + 2 * p;
        return clamp(centre[0], rows) / tile_rows * tiles_across + clamp(centre[1], columns) / tile_columns;
    };
    std::vector<Index> next(position((rows / tile_rows + 1) * tiles_across + 1), 0);
    for (Index p = 0; p < positions.count; ++p) {
        ++next[position(tile_of(p) + 1)];
    }
    std::partial_sum(next.begin(), next.end(), next.begin());
    for (Index p = 0; p < positions.count; ++p) {
        order[position(next[position(tile_of(p))]++)] = p;
    }
    return order;
}

}  // namespace

template <class T>
MomentTable<T>::MomentTable(const double* weights, Index modes, Index patch_size)
    : n_modes(modes), size(patch_size), folded(true) {
    std::vector<int> parity(position(modes));
    for (Index j = 0; j < modes; ++j) {
        parity[position(j)] = find_parity(weights + j * size * size, size);
        folded = folded && parity[position(j)] >= 0;
    }
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
                        values.push_back(plane_weight(j, row, column) * (exchange != Exchange::none && row == column ? 0.5 : 1.0));
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
    const Kernels<T>& kernel = kernels<T>();
    parallel_for(patches.count, panel_vectors * kernel.lanes, n_threads, [&](Index begin, Index end) {
        Workspace<T> work(table, kernel.lanes);
        kernel.patch_moments(patches, table, begin, end, work, moments);
    });
}

template <class T>
void column_moments(const ImageView<T>& image, const PositionsView& positions, const PatchGrid& grid,
                    const MomentTable<T>& table, int n_threads, T* moments) {
    const Kernels<T>& kernel = kernels<T>();
    const std::vector<Index> order = order_by_tile(positions, image.rows, image.columns);
    parallel_for(positions.count, panel_vectors * kernel.lanes, n_threads, [&](Index begin, Index end) {
        Workspace<T> work(table, kernel.lanes);
        kernel.column_moments(image, positions, order.data(), grid, table, begin, end, work, moments);
    });
}

template struct MomentTable<float>;
template struct MomentTable<double>;
template void patch_moments(const PatchesView<float>&, const MomentTable<float>&, int, float*);
template void patch_moments(const PatchesView<double>&, const MomentTable<double>&, int, double*);
template void column_moments(const ImageView<float>&, const PositionsView&, const PatchGrid&,
                             const MomentTable<float>&, int, float*);
template void column_moments(const ImageView<double>&, const PositionsView&, const PatchGrid&,
                             const MomentTable<double>&, int, double*);

}  // namespace contextem
