// Samples the patch around a position: image -> rows of P samples; see sampling.hpp for the index rule.
//
// Four ways, the fastest that applies:
//   in_place    scale 1, on the pixels: the row is where it is in the image
//   unit        scale 1: every sample has the same offset between pixels
//   separable   a scale along the axes: a patch row is an image row between two rows (the segment), read at columns that
//               are the same in every row
//   general     any 2x2 matrix: sample by sample
//
// Work for one patch, in vectors of lanes samples: nothing; 2 P (P + 1) / lanes blends; P (s P + P) / lanes blends and
// 2 P^2 / lanes permutations for a scale s; P^2 times four scattered reads and three blends.
#pragma once

#include <cstring>

#include "kernels.hpp"
#include "simd.hpp"

namespace contextem {
namespace {

template <class T>
CONTEXTEM_INLINE Vec<T> blend_vectors(Vec<T> a, Vec<T> b, Vec<T> share) {
    return multiply_add(share, b - a, a);
}

// Taps of a line of samples: sample l reads pixel index[l] + origin and, by its share, the next one.
template <class T>
struct LineTaps {
    Index begin;  // samples [begin, end) lie inside of the image
    Index end;
    Index origin;          // of the pixels that are read
    Index width;           // of these, neighbours included
    std::int32_t* index;   // (P, padded)
    T* share;              // (P, padded)
};

// Finds the taps of samples at position + step (l - half), which are monotonic in l, in an image of `extent` pixels.
template <class T>
void find_taps(double position, double step, const PatchGrid& grid, Index extent, Index padded, LineTaps<T>& taps) {
    const double half = grid.half();
    const auto coordinate = [&](Index l) { return position + (step * (static_cast<double>(l) - half) + 0.0); };
    taps.begin = 0;
    taps.end = grid.size;
    while (taps.begin < taps.end && !inside(coordinate(taps.begin), extent)) {
        ++taps.begin;
    }
    while (taps.end > taps.begin && !inside(coordinate(taps.end - 1), extent)) {
        --taps.end;
    }
    if (taps.begin == taps.end) {
        taps.width = 0;
        return;
    }
    const Tap first = make_tap(coordinate(taps.begin), grid.interpolation);
    const Tap last = make_tap(coordinate(taps.end - 1), grid.interpolation);
    const Tap& low = first.index < last.index ? first : last;
    const Tap& high = first.index < last.index ? last : first;
    taps.origin = low.index;
    taps.width = high.index - low.index + (high.share > 0.0 ? 2 : 1);
    // counted from the origin, which is exact, in 32 bits: these loops are vectorised
    const double origin = static_cast<double>(taps.origin);
    const double last_coordinate = static_cast<double>(extent - 1);
    const bool linear = grid.interpolation == Interpolation::linear;
    for (Index l = 0; l < grid.size; ++l) {
        double x = coordinate(l);
        x = x < 0.0 ? 0.0 : (x > last_coordinate ? last_coordinate : x);  // outside: read anything, zeroed later
        const double from_origin = (linear ? x : x + 0.5) - origin;
        const double clamped = from_origin < 0.0 ? 0.0 : from_origin;
        const std::int32_t index = static_cast<std::int32_t>(clamped);
        taps.index[l] = index;
        taps.share[l] = linear ? static_cast<T>(clamped - static_cast<double>(index)) : T(0);
    }
    for (Index l = grid.size; l < padded; ++l) {
        taps.index[l] = taps.index[grid.size - 1];
        taps.share[l] = T(0);
    }
}

template <class T>
class Sampler {
public:
    // Storage of this patch: see Workspace.
    Sampler(const ImageView<T>& image, const PatchGrid& grid, const double* position, Index number, Workspace<T>& work)
        : image_(image), grid_(grid), position_(position), work_(work) {
        way_ = Way::general;
        if (grid.unit() && image.column_stride == 1 && grid.size >= lanes<T> && find_unit()) {
            return;
        }
        if (grid.separable()) {
            find_separable(number);
        }
    }

    // Writes rows [first, first + count) of the patch, `stride` apart. A row may be written up to the next multiple of
    // lanes<T> values, but for a patch of scale 1 that lies inside the image.
    void rows(Index first, Index count, T* out, Index stride) {
        if (way_ == Way::unit || way_ == Way::in_place) {
            unit_rows(first, count, out, stride);
            return;
        }
        for (Index k = first; k < first + count; ++k, out += stride) {
            way_ == Way::separable ? separable_row(k, out) : general_row(k, out);
        }
    }

    bool writes_whole_vectors() const { return way_ != Way::unit && way_ != Way::in_place; }

    // The first sample if all of them are pixels of the image, nullptr otherwise.
    const T* in_place() const { return way_ == Way::in_place ? corner_ : nullptr; }

private:
    enum class Way { in_place, unit, separable, general };

    bool find_unit() {
        const double row = position_[0] - grid_.half();
        const double column = position_[1] - grid_.half();
        if (!inside(row, image_.rows) || !inside(column, image_.columns)) {
            return false;
        }
        // in integers, because row + size - 1 may round onto the border
        const Tap above = make_tap(row, Interpolation::linear);
        const Tap before = make_tap(column, Interpolation::linear);
        if (above.index + grid_.size + (above.share > 0.0 ? 1 : 0) > image_.rows ||
            before.index + grid_.size + (before.share > 0.0 ? 1 : 0) > image_.columns) {
            return false;
        }
        const Tap top = make_tap(row, grid_.interpolation);
        const Tap left = make_tap(column, grid_.interpolation);
        corner_ = image_.data + top.index * image_.row_stride + left.index;
        down_ = static_cast<T>(top.share);
        right_ = static_cast<T>(left.share);
        way_ = top.share == 0.0 && left.share == 0.0 ? Way::in_place : Way::unit;
        return true;
    }

    // A pixel row is blended along the columns once and used twice. The last vector overlaps the one before it, so that
    // nothing beyond the patch is read or written; a neighbour without a share is not read.
    void unit_rows(Index first, Index count, T* out, Index stride) const {
        const Index size = grid_.size;
        const Index next_row = image_.row_stride;
        const Index next_column = right_ > T(0) ? 1 : 0;
        const Index inner = down_ > T(0) || first + count < size ? count : count - 1;  // rows whose next one is read
        const Vec<T> down = splat(down_);
        const Vec<T> right = splat(right_);
        for (Index start = 0; start < size; start += lanes<T>) {
            const Index column = start + lanes<T> <= size ? start : size - lanes<T>;
            const T* pixel = corner_ + first * next_row + column;
            T* to = out + column;
            Vec<T> upper = blend_vectors<T>(load(pixel), load(pixel + next_column), right);
            for (Index k = 0; k < inner; ++k, to += stride) {
                pixel += next_row;
                const Vec<T> lower = blend_vectors<T>(load(pixel), load(pixel + next_column), right);
                store(to, blend_vectors<T>(upper, lower, down));
                upper = lower;
            }
            if (inner < count) {
                store(to, upper);
            }
        }
    }

    void find_separable(Index number) {
        columns_ = {0, 0, 0, 0, work_.indices + number * 2 * work_.row_pitch, work_.shares + number * 2 * work_.row_pitch};
        rows_ = {0, 0, 0, 0, columns_.index + work_.row_pitch, columns_.share + work_.row_pitch};
        find_taps(position_[1], grid_.column_by_column, grid_, image_.columns, work_.row_pitch, columns_);
        find_taps(position_[0], grid_.row_by_row, grid_, image_.rows, work_.row_pitch, rows_);
        if (columns_.width > work_.segment_capacity) {
            return;
        }
        // whole vectors of the segment are read where the image has them
        reach_ = (columns_.width + lanes<T> - 1) / lanes<T> * lanes<T>;
        if (image_.column_stride != 1 || reach_ > image_.columns) {
            reach_ = columns_.width;
        } else if (columns_.origin + reach_ > image_.columns) {
            const Index shift = columns_.origin + reach_ - image_.columns;
            columns_.origin -= shift;
            for (Index l = 0; l < grid_.size; ++l) {
                columns_.index[l] += static_cast<std::int32_t>(shift);
            }
        }
        // a vector of samples reads a window of the segment; up to scale 2 that is two vectors, which are permuted
        windows_ = work_.windows + number * work_.row_pitch;
        permutes_ = true;
        for (Index start = 0; start < grid_.size; start += lanes<T>) {
            const Index last = start + lanes<T> < grid_.size ? start + lanes<T> - 1 : grid_.size - 1;
            const Index from = columns_.index[start] < columns_.index[last] ? columns_.index[start] : columns_.index[last];
            const Index to = columns_.index[start] < columns_.index[last] ? columns_.index[last] : columns_.index[start];
            windows_[start / lanes<T>] = from;
            permutes_ = permutes_ && to - from < 2 * lanes<T>;
        }
        way_ = Way::separable;
    }

    void read_segment(const T* pixel, Index next_row, T share) const {
        T* segment = work_.segment;
        if (image_.column_stride == 1 && reach_ % lanes<T> == 0) {
            const Vec<T> shares = splat(share);
            for (Index x = 0; x < reach_; x += lanes<T>) {
                store(segment + x, blend_vectors<T>(load(pixel + x), load(pixel + x + next_row), shares));
            }
            segment[reach_] = segment[reach_ - 1];  // read by taps without a share
            return;
        }
        for (Index x = 0; x < columns_.width; ++x) {
            const T* value = pixel + x * image_.column_stride;
            segment[x] = blend(value[0], value[next_row], share);
        }
        segment[columns_.width] = segment[columns_.width - 1];
    }

    void separable_row(Index k, T* out) const {
        if (k < rows_.begin || k >= rows_.end || columns_.begin == columns_.end) {
            std::memset(out, 0, static_cast<std::size_t>(grid_.size) * sizeof(T));
            return;
        }
        const T* pixel = image_.data + (rows_.origin + rows_.index[k]) * image_.row_stride +
                         columns_.origin * image_.column_stride;
        read_segment(pixel, rows_.share[k] > T(0) ? image_.row_stride : 0, rows_.share[k]);
        if (permutes_) {
            for (Index l = 0; l < grid_.size; l += lanes<T>) {
                const Index window = windows_[l / lanes<T>];
                const PickIndex<T> index = pick_index<T>(columns_.index + l, window);
                const T* values = work_.segment + window;
                store(out + l, blend_vectors<T>(pick(values, index), pick(values + 1, index), load(columns_.share + l)));
            }
        } else {
            for (Index l = columns_.begin; l < columns_.end; ++l) {
                const T* value = work_.segment + columns_.index[l];
                out[l] = blend(value[0], value[1], columns_.share[l]);
            }
        }
        for (Index l = 0; l < columns_.begin; ++l) {
            out[l] = T(0);
        }
        for (Index l = columns_.end; l < grid_.size; ++l) {
            out[l] = T(0);
        }
    }

    void general_row(Index k, T* out) const {
        const double down = static_cast<double>(k) - grid_.half();
        for (Index l = 0; l < grid_.size; ++l) {
            const double right = static_cast<double>(l) - grid_.half();
            out[l] = read_sample(image_, sample_row(grid_, position_[0], down, right),
                                 sample_column(grid_, position_[1], down, right), grid_.interpolation);
        }
    }

    const ImageView<T>& image_;
    const PatchGrid& grid_;
    const double* position_;
    Workspace<T>& work_;
    Way way_;
    const T* corner_ = nullptr;  // in_place, unit: the first sample's pixel
    T down_ = T(0);              // and the shares of the next ones
    T right_ = T(0);
    LineTaps<T> rows_ = {};      // separable
    LineTaps<T> columns_ = {};
    Index* windows_ = nullptr;   // (chunks of P) first value of the segment that a vector of samples reads
    Index reach_ = 0;            // of the segment
    bool permutes_ = false;
};

// The pixel of the last column of a patch's first row, near enough to ask for its memory.
template <class T>
const T* top_right(const ImageView<T>& image, const PatchGrid& grid, const double* position) {
    const auto clamp = [](double coordinate, Index extent) {
        return inside(coordinate, extent) ? static_cast<Index>(coordinate) : Index(0);
    };
    return image.data + clamp(position[0] - grid.half(), image.rows) * image.row_stride +
           clamp(position[1] + grid.half(), image.columns) * image.column_stride;
}

}  // namespace
}  // namespace contextem
