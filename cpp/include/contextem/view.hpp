// Non-owning views of arrays: a pointer, a shape and strides counted in elements. 64-bit throughout.
#pragma once

#include <cstdint>
#include <functional>

namespace contextem {

using Index = std::int64_t;

// An image I[row, column].
template <class T>
struct ImageView {
    const T* data;     // (rows, columns)
    Index rows;
    Index columns;
    Index row_stride;
    Index column_stride;
};

// An image that is made band by band: calling it with rows [first, last) gives a view of the whole image of which only
// these are there to be read, until the next call.
template <class T>
using BandSource = std::function<ImageView<T>(Index first, Index last)>;

// Patches p[patch, row, column], all of one square size.
template <class T>
struct PatchesView {
    const T* data;     // (count, size, size)
    Index count;
    Index size;
    Index patch_stride;
    Index row_stride;
    Index column_stride;
};

// Moments a[row, mode], or a gradient with respect to them: one row per patch or column.
template <class T>
struct MomentsView {
    const T* data;     // (count, modes)
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
