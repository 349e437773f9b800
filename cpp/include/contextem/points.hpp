// Points of the plane sorted into square cells, so that the nearest ones are found among few.
//
//   cell(p) = floor((p - corner) / side), about two points a cell
//
// Of points equally near the first one counts, so that answers do not depend on the cells.
//
// O(N) to build, O(1) a query for points spread evenly. Queries are const and thread-safe.
#pragma once

#include <vector>

#include "contextem/view.hpp"

namespace contextem {

class PointGrid {
public:
    struct Neighbour {
        double distance2;  // squared, px
        Index number;      // -1: none
    };

    explicit PointGrid(const PositionsView& points);

    Index count() const { return static_cast<Index>(numbers_.size()); }

    // Nearest point closer than `reach`, which must be finite.
    Neighbour nearest(double row, double column, double reach) const;

    // The k nearest points, nearest first; the places that are left over say none.
    void nearest(double row, double column, Index k, Neighbour* found) const;  // (k)

private:
    Index row_cell(double row) const;
    Index column_cell(double column) const;

    double corner_[2] = {0.0, 0.0};
    double side_ = 1.0;
    Index rows_ = 1;
    Index columns_ = 1;
    std::vector<Index> starts_;      // (rows * columns + 1) first point of each cell
    std::vector<double> positions_;  // (N, 2) in the order of the cells
    std::vector<Index> numbers_;     // (N)
};

void nearest_within(const PointGrid& grid, const PositionsView& sites, double reach, int n_threads,
                    double* distances,  // (S) infinity: none
                    Index* found);      // (S) -1: none

void nearest_k(const PointGrid& grid, const PositionsView& sites, Index k, int n_threads,
               double* distances,  // (S, k)
               Index* found);      // (S, k)

}  // namespace contextem
