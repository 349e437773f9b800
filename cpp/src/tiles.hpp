// The order in which columns are visited: tile after tile of the image, so that a patch finds most of its pixels in the
// cache where its neighbours left them. Positions in random order otherwise spend half the time waiting for memory.
#pragma once

#include <numeric>
#include <vector>

#include "contextem/sampling.hpp"
#include "contextem/view.hpp"

namespace contextem {

constexpr Index tile_rows = 32;
constexpr Index tile_columns = 256;

inline std::vector<Index> order_by_tile(const PositionsView& positions,  // (N, 2)
                                        Index rows, Index columns) {
    constexpr Index few = 256;  // not worth a pass over the tiles
    std::vector<Index> order(static_cast<std::size_t>(positions.count));
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
    std::vector<Index> next(static_cast<std::size_t>((rows / tile_rows + 1) * tiles_across + 1), 0);
    for (Index p = 0; p < positions.count; ++p) {
        ++next[static_cast<std::size_t>(tile_of(p) + 1)];
    }
    std::partial_sum(next.begin(), next.end(), next.begin());
    for (Index p = 0; p < positions.count; ++p) {
        order[static_cast<std::size_t>(next[static_cast<std::size_t>(tile_of(p))]++)] = p;
    }
    return order;
}

}  // namespace contextem
