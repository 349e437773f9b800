#include "contextem/points.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "contextem/parallel.hpp"

namespace contextem {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr Index query_grain = 512;

bool before(const PointGrid::Neighbour& a, double distance2, Index number) {
    return a.distance2 < distance2 || (a.distance2 == distance2 && a.number < number);
}

Index clamp_cell(double cell, Index count) {
    return !(cell > 0.0) ? 0 : (cell >= static_cast<double>(count - 1) ? count - 1 : static_cast<Index>(cell));
}

}  // namespace

PointGrid::PointGrid(const PositionsView& points) {
    double low[2] = {infinity, infinity};
    double high[2] = {-infinity, -infinity};
    for (Index p = 0; p < points.count; ++p) {
        for (int axis = 0; axis < 2; ++axis) {
            low[axis] = std::min(low[axis], points.data[2 * p + axis]);
            high[axis] = std::max(high[axis], points.data[2 * p + axis]);
        }
    }
    if (points.count > 0) {
        corner_[0] = low[0];
        corner_[1] = low[1];
        const double height = std::max(high[0] - low[0], 1e-300);
        const double width = std::max(high[1] - low[1], 1e-300);
        // on a line of points the square cells of the mean density would be too many
        side_ = std::max(std::sqrt(2.0 * height * width / static_cast<double>(points.count)),
                         2.0 * std::max(height, width) / static_cast<double>(points.count));
        rows_ = static_cast<Index>(height / side_) + 1;
        columns_ = static_cast<Index>(width / side_) + 1;
    }
    std::vector<Index> cells(static_cast<std::size_t>(points.count));
    starts_.assign(static_cast<std::size_t>(rows_ * columns_ + 1), 0);
    for (Index p = 0; p < points.count; ++p) {
        const Index cell = row_cell(points.data[2 * p]) * columns_ + column_cell(points.data[2 * p + 1]);
        cells[static_cast<std::size_t>(p)] = cell;
        ++starts_[static_cast<std::size_t>(cell + 1)];
    }
    for (std::size_t cell = 1; cell < starts_.size(); ++cell) {
        starts_[cell] += starts_[cell - 1];
    }
    std::vector<Index> next(starts_.begin(), starts_.end() - 1);
    positions_.resize(static_cast<std::size_t>(2 * points.count));
    numbers_.resize(static_cast<std::size_t>(points.count));
    for (Index p = 0; p < points.count; ++p) {
        const auto cell = static_cast<std::size_t>(cells[static_cast<std::size_t>(p)]);
        const auto place = static_cast<std::size_t>(next[cell]++);
        positions_[2 * place] = points.data[2 * p];
        positions_[2 * place + 1] = points.data[2 * p + 1];
        numbers_[place] = p;
    }
}

Index PointGrid::row_cell(double row) const { return clamp_cell((row - corner_[0]) / side_, rows_); }

Index PointGrid::column_cell(double column) const { return clamp_cell((column - corner_[1]) / side_, columns_); }

PointGrid::Neighbour PointGrid::nearest(double row, double column, double reach) const {
    Neighbour best = {reach * reach, -1};
    const Index top = row_cell(row - reach);
    const Index bottom = row_cell(row + reach);
    const Index left = column_cell(column - reach);
    const Index right = column_cell(column + reach);
    for (Index i = top; i <= bottom; ++i) {
        const auto begin = static_cast<std::size_t>(starts_[static_cast<std::size_t>(i * columns_ + left)]);
        const auto end = static_cast<std::size_t>(starts_[static_cast<std::size_t>(i * columns_ + right + 1)]);
        for (std::size_t place = begin; place < end; ++place) {
            const double down = positions_[2 * place] - row;
            const double along = positions_[2 * place + 1] - column;
            const double distance2 = down * down + along * along;
            const Index number = numbers_[place];
            if (distance2 < best.distance2 || (distance2 == best.distance2 && best.number > number)) {
                best = {distance2, number};
            }
        }
    }
    return best;
}

void PointGrid::nearest(double row, double column, Index k, Neighbour* found) const {
    for (Index i = 0; i < k; ++i) {
        found[i] = {infinity, -1};
    }
    const Index middle_row = row_cell(row);
    const Index middle_column = column_cell(column);
    const Index last_ring =
        std::max(std::max(middle_row, rows_ - 1 - middle_row), std::max(middle_column, columns_ - 1 - middle_column));
    for (Index ring = 0; ring <= last_ring; ++ring) {
        // everything in this ring and beyond is at least this far
        const double gap =
            std::min(std::min(row - (corner_[0] + side_ * static_cast<double>(middle_row - ring + 1)),
                              corner_[0] + side_ * static_cast<double>(middle_row + ring) - row),
                     std::min(column - (corner_[1] + side_ * static_cast<double>(middle_column - ring + 1)),
                              corner_[1] + side_ * static_cast<double>(middle_column + ring) - column));
        if (ring > 0 && gap > 0.0 && found[k - 1].distance2 < gap * gap * (1.0 - 1e-12)) {
            return;
        }
        for (Index i = std::max<Index>(0, middle_row - ring); i <= std::min(rows_ - 1, middle_row + ring); ++i) {
            const bool whole = i == middle_row - ring || i == middle_row + ring;
            for (Index j = middle_column - ring; j <= middle_column + ring; j += whole || ring == 0 ? 1 : 2 * ring) {
                if (j < 0 || j >= columns_) {
                    continue;
                }
                const auto cell = static_cast<std::size_t>(i * columns_ + j);
                for (auto place = static_cast<std::size_t>(starts_[cell]);
                     place < static_cast<std::size_t>(starts_[cell + 1]); ++place) {
                    const double down = positions_[2 * place] - row;
                    const double along = positions_[2 * place + 1] - column;
                    const double distance2 = down * down + along * along;
                    const Index number = numbers_[place];
                    if (before(found[k - 1], distance2, number)) {
                        continue;
                    }
                    Index slot = k - 1;
                    for (; slot > 0 && !before(found[slot - 1], distance2, number); --slot) {
                        found[slot] = found[slot - 1];
                    }
                    found[slot] = {distance2, number};
                }
            }
        }
    }
}

void nearest_within(const PointGrid& grid, const PositionsView& sites, double reach, int n_threads, double* distances,
                    Index* found) {
    parallel_for(sites.count, query_grain, n_threads, [&](Index begin, Index end) {
        for (Index s = begin; s < end; ++s) {
            const PointGrid::Neighbour near = grid.nearest(sites.data[2 * s], sites.data[2 * s + 1], reach);
            distances[s] = near.number < 0 ? infinity : std::sqrt(near.distance2);
            found[s] = near.number;
        }
    });
}

void nearest_k(const PointGrid& grid, const PositionsView& sites, Index k, int n_threads, double* distances,
               Index* found) {
    parallel_for(sites.count, query_grain, n_threads, [&](Index begin, Index end) {
        std::vector<PointGrid::Neighbour> near(static_cast<std::size_t>(k));
        for (Index s = begin; s < end; ++s) {
            grid.nearest(sites.data[2 * s], sites.data[2 * s + 1], k, near.data());
            for (Index i = 0; i < k; ++i) {
                distances[s * k + i] = std::sqrt(near[static_cast<std::size_t>(i)].distance2);
                found[s * k + i] = near[static_cast<std::size_t>(i)].number;
            }
        }
    });
}

}  // namespace contextem
