// Where a kernel takes sample (k, l) of patch p from: an image around a position, or a stack of patches.
#pragma once

#include "contextem/sampling.hpp"
#include "contextem/view.hpp"

namespace contextem::cuda {

template <class T>
struct ColumnSource {
    ImageView<T> image;       // (rows, columns)
    PositionsView positions;  // (N, 2)
    PatchGrid grid;

    CONTEXTEM_HD Index count() const { return positions.count; }

    CONTEXTEM_HD T operator()(Index p, Index k, Index l) const {
        const double down = static_cast<double>(k) - grid.half();
        const double right = static_cast<double>(l) - grid.half();
        const double row = sample_row(grid, positions.data[2 * p], down, right);
        const double column = sample_column(grid, positions.data[2 * p + 1], down, right);
        if (row != row || column != column) {
            return static_cast<T>(row + column);  // positions on the device are not checked: NaN shows in the result
        }
        return read_sample(image, row, column, grid.interpolation);
    }
};

template <class T>
struct PatchSource {
    PatchesView<T> patches;  // (N, P, P)

    CONTEXTEM_HD Index count() const { return patches.count; }

    CONTEXTEM_HD T operator()(Index p, Index k, Index l) const {
        return patches.data[p * patches.patch_stride + k * patches.row_stride + l * patches.column_stride];
    }
};

}  // namespace contextem::cuda
