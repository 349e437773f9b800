// Asks for the memory of the next panel, bit by bit, while the present one is multiplied: there the processor waits for
// nothing. Otherwise a large stack of patches, or an image beyond the caches, comes at the latency of the memory.
//
//   patches that lie far apart   each patch is asked for
//   patches that overlap         the tiles in whose order the columns are visited are: every line of the image once
#pragma once

#include <algorithm>
#include <cmath>

#include "fold.hpp"
#include "simd.hpp"
#include "tiles.hpp"

namespace contextem {
namespace {

template <class T>
class FetchAhead {
public:
    static constexpr Index line = 64 / static_cast<Index>(sizeof(T));  // values in one of the cache

    // More memory to ask for in `steps`, before the first call of fetch: a step asks for the line of a value and that
    // of the one `second` further, then goes on by `stride`. What is beyond the capacity is not asked for.
    void add(const T* start, Index steps, Index stride, Index second) {
        if (count_ < capacity) {
            part_[count_++] = {start, steps, stride, second};
            now_ = part_[0];
        }
    }

    // Memory without gaps.
    void add(const T* start, Index count) { add(start, (count + 2 * line - 1) / (2 * line), 2 * line, line); }

    // Takes one step; none when there are no more.
    CONTEXTEM_INLINE void fetch() {
        __builtin_prefetch(now_.start, 0, 2);
        __builtin_prefetch(now_.start + now_.second, 0, 2);
        asm volatile("");  // GCC would find that a loop that only prefetches does nothing
        now_.start += now_.stride;
        if (--now_.steps == 0) {
            ++number_;
            now_ = number_ < count_ ? part_[number_] : nothing;
        }
    }

    // Takes the steps that are left.
    void finish() {
        while (now_.steps > 0) {
            fetch();
        }
    }

private:
    static constexpr Index capacity = 6 * panel_patches<T>();
    struct Part {
        const T* start;
        Index steps;
        Index stride;
        Index second;
    };

    static constexpr Part nothing = {nullptr, 0, 0, 0};  // asking for no address at all is allowed

    Index count_ = 0;
    Index number_ = 0;
    Part now_ = nothing;
    Part part_[static_cast<std::size_t>(capacity)];
};

// What the columns of a panel will read of the image.
template <class T>
class ColumnsAhead {
public:
    ColumnsAhead(const ImageView<T>& image, const PatchGrid& grid, Index count)
        : image_(image),
          down_(0.5 * static_cast<double>(grid.size) * std::fabs(grid.row_by_row)),
          right_(0.5 * static_cast<double>(grid.size) * std::fabs(grid.column_by_column)),
          overlap_(4.0 * down_ * right_ * static_cast<double>(count) >
                   static_cast<double>(image.rows) * static_cast<double>(image.columns)) {}

    void add(const double* centre, FetchAhead<T>& ahead) {
        if (overlap_) {
            add_tile(centre, ahead);
        } else {
            const Index top = clamp(centre[0] - down_, image_.rows);
            const Index bottom = clamp(centre[0] + down_, image_.rows);
            const Index left = clamp(centre[1] - right_, image_.columns);
            const Index right = clamp(centre[1] + right_, image_.columns);
            ahead.add(pixel(top, left), bottom - top + 1, image_.row_stride, (right - left) * image_.column_stride);
        }
    }

private:
    static Index clamp(double coordinate, Index extent) {
        return static_cast<Index>(std::min(std::max(coordinate, 0.0), static_cast<double>(extent - 1)));
    }

    const T* pixel(Index row, Index column) const {
        return image_.data + row * image_.row_stride + column * image_.column_stride;
    }

    // What a tile needs and the tile before it did not.
    void add_tile(const double* centre, FetchAhead<T>& ahead) {
        const Index row = clamp(centre[0], image_.rows) / tile_rows;
        const Index column = clamp(centre[1], image_.columns) / tile_columns;
        if (row == tile_row_ && column == tile_column_) {
            return;
        }
        tile_row_ = row;
        tile_column_ = column;
        const Index top = clamp(static_cast<double>(row * tile_rows) - down_, image_.rows);
        const Index bottom = clamp(static_cast<double>((row + 1) * tile_rows) + down_, image_.rows);
        const double left = static_cast<double>(column * tile_columns) + right_;
        for (Index start = 0; start < tile_columns; start += 2 * FetchAhead<T>::line) {
            ahead.add(pixel(top, clamp(left + static_cast<double>(start), image_.columns)), bottom - top + 1,
                      image_.row_stride, FetchAhead<T>::line);
        }
    }

    const ImageView<T>& image_;
    double down_;  // reach of a patch from its centre, px
    double right_;
    bool overlap_;
    Index tile_row_ = -1;
    Index tile_column_ = -1;
};

}  // namespace
}  // namespace contextem
