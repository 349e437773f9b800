// Non-owning views of arrays: a pointer, a shape and strides counted in elements. 64-bit throughout.
#pragma once

#include <cstdint>

namespace contextem {

using Index = std::int64_t;

// An image I[row, column].
template <class T>
struct ImageView {
    const T* data;  // (rows, columns)
    Index rows;
    Index columns;
    Index row_stride;
    Index column_stride;
};

// Patches p[patch, row, column], all of one square size.
template <class T>
struct PatchesView {
    const T* data;  // (count, size, size)
    Index count;
    Index size;
    Index patch_stride;
    Index row_stride;
    Index column_stride;
};

// Moments a[row, mode], or a gradient with respect to them: one row per patch or column.
template <class T>
struct MomentsView {
    const T* data;  // (count, modes)
    Index count;
    Index modes;
    Index row_stride;
    Index mode_stride;
};

// Positions, C-contiguous (row, column) pairs in pixels, pixel centres at integers.
struct PositionsView {
    const double* data;  // (count, 2)
    Index count;
};

}  // namespace contextem
