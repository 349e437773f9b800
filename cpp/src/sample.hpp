// Samples the patch around a position: image -> rows of P samples; see sampling.hpp for the index rule.
//
// Four ways, the fastest that applies (a patch on the pixels of the image need not be sampled at all):
//   unit        scale 1: every sample has the same offset between pixels
//   separable   a scale along the axes: a patch row is an image row between two rows (the segment), read at columns
//               that are the same in every row
//   inner       any 2x2 matrix, inside the image: the taps of a row together, then its samples
//   general     any 2x2 matrix: sample by sample
//
// Work for one patch, in vectors of lanes samples: 2 P (P + 1) / lanes blends; P (s P + P) / lanes blends and
// 2 P^2 / lanes permutations for a scale s; P^2 times four scattered reads and three blends.
#pragma once

#include <algorithm>

#include "moment_kernels.hpp"
#include "simd.hpp"

namespace contextem {
namespace {

template <class T>
CONTEXTEM_INLINE Vec<T> blend_vectors(Vec<T> a, Vec<T> b, Vec<T> share) {
    return multiply_add(share, b - a, a);
}

// Taps of a line of samples: sample l reads pixel index[l] + origin and, by its share, the next one.
template <class T>
struct LineTaps : LineReach {
    std::int32_t* index;  // (P, padded)
    T* share;             // (P, padded)
};

// Finds the taps of the samples of a line in an image of `extent` pixels.
template <class T>
void find_taps(double position, double step, const PatchGrid& grid, Index extent, Index padded, LineTaps<T>& taps) {
    static_cast<LineReach&>(taps) = line_reach(grid, position, step, extent);
    if (taps.width == 0) {
        return;
    }
    // Counted from the origin, which is exact, in 32 bits: this loop is vectorised.
    const double origin = static_cast<double>(taps.origin);
    const bool linear = grid.interpolation == Interpolation::linear;
    const double shift = linear ? 0.0 : 0.5;
    const T weight = linear ? T(1) : T(0);
    std::int32_t* __restrict index = taps.index;
    T* __restrict share = taps.share;
    for (Index l = taps.begin; l < taps.end; ++l) {
        const double from_origin = (line_coordinate(grid, position, step, l) + shift) - origin;
        index[l] = static_cast<std::int32_t>(from_origin);
        share[l] = weight * static_cast<T>(from_origin - static_cast<double>(index[l]));
    }
    // samples outside read anything and are zeroed afterwards
    for (Index l = 0; l < taps.begin; ++l) {
        index[l] = index[taps.begin];
        share[l] = T(0);
    }
    for (Index l = taps.end; l < padded; ++l) {
        index[l] = index[taps.end - 1];
        share[l] = T(0);
    }
}

// A patch of scale 1 that lies inside an image of column stride 1: all samples share one offset between pixels.
template <class T>
struct UnitPatch {
    const T* corner = nullptr;  // pixel of the first sample; none if the patch reaches beyond the image
    T down = T(0);              // shares of the next pixels
    T right = T(0);

    UnitPatch() = default;
    UnitPatch(const ImageView<T>& image, const PatchGrid& grid, const double* position) {
        const UnitCorner found = unit_corner(position, grid, image.rows, image.columns);
        if (found.inside) {
            corner = image.data + found.top.index * image.row_stride + found.left.index;
            down = static_cast<T>(found.top.share);
            right = static_cast<T>(found.left.share);
        }
    }

    bool on_pixels() const { return corner != nullptr && down == T(0) && right == T(0); }
};

template <class T>
class Sampler {
public:
    // Storage of this patch: see Workspace.
    Sampler(const ImageView<T>& image, const PatchGrid& grid, const double* position, Index number, Workspace<T>& work)
        : image_(image), grid_(grid), position_(position), work_(work) {
        if (grid.unit() && image.column_stride == 1 && grid.size >= lanes<T>) {
            unit_ = UnitPatch<T>(image, grid, position);
            if (unit_.corner != nullptr) {
                way_ = Way::unit;
                return;
            }
        }
        const Index storage = number * 2 * work_.row_pitch;
        columns_ = {{}, work_.indices + storage, work_.shares + storage};
        rows_ = {{}, columns_.index + work_.row_pitch, columns_.share + work_.row_pitch};
        if (grid.separable() && find_separable(number)) {
            way_ = Way::separable;
        } else if (find_inner()) {
            way_ = Way::inner;
        }
    }

    // Writes rows [first, first + count) of the patch, `stride` apart. A row may be written up to the next multiple of
    // lanes<T> values, but for a patch of scale 1 that lies inside the image.
    void rows(Index first, Index count, T* out, Index stride) const {
        if (way_ == Way::unit) {
            unit_rows(first, count, out, stride, [](T* to, Vec<T> value) { store(to, value); });
            return;
        }
        if (way_ == Way::separable) {
            for (Index done = 0; done < count; done += band_rows) {
                const Index some = count - done < band_rows ? count - done : band_rows;
                separable_rows(first + done, some, out + done * stride, stride);
            }
            return;
        }
        for (Index k = first; k < first + count; ++k, out += stride) {
            way_ == Way::inner ? inner_row(k, out) : general_row(k, out);
        }
    }

    // Scale 1 and inside the image.
    bool unit() const { return way_ == Way::unit; }

    // The whole patch of a position inside the image past the caches, to a place where every vector is aligned.
    void stream_patch(T* out) const {
        unit_rows(0, grid_.size, out, grid_.size, [](T* to, Vec<T> value) { stream(to, value); });
    }

private:
    enum class Way { unit, separable, inner, general };

    // A pixel row is blended along the columns once and used twice. The last vector overlaps the one before it, so that
    // nothing beyond the patch is read or written; a neighbour without a share is not read.
    template <class Put>
    void unit_rows(Index first, Index count, T* out, Index stride, const Put& put) const {
        const Index size = grid_.size;
        const Index next_row = image_.row_stride;
        const auto column_at = [&](Index start) { return start + lanes<T> <= size ? start : size - lanes<T>; };
        if (unit_.on_pixels()) {
            const T* pixel = unit_.corner + first * next_row;
            for (Index k = 0; k < count; ++k, pixel += next_row, out += stride) {
                for (Index start = 0; start < size; start += lanes<T>) {
                    put(out + column_at(start), load(pixel + column_at(start)));
                }
            }
            return;
        }
        const Index next_column = unit_.right > T(0) ? 1 : 0;
        // rows whose next one is read
        const Index inner = unit_.down > T(0) || first + count < size ? count : count - 1;
        const Vec<T> down = splat(unit_.down);
        const Vec<T> right = splat(unit_.right);
        const auto blended = [&](const T* pixel) {
            return blend_vectors<T>(load(pixel), load(pixel + next_column), right);
        };
        for (Index start = 0; start < size; start += 2 * lanes<T>) {  // two vectors, the second maybe the first again
            const Index one = column_at(start);
            const Index two = column_at(start + lanes<T> < size ? start + lanes<T> : start);
            const T* pixel = unit_.corner + first * next_row;
            T* to = out;
            Vec<T> upper_one = blended(pixel + one);
            Vec<T> upper_two = blended(pixel + two);
            for (Index k = 0; k < inner; ++k, to += stride) {
                pixel += next_row;
                const Vec<T> lower_one = blended(pixel + one);
                const Vec<T> lower_two = blended(pixel + two);
                put(to + one, blend_vectors<T>(upper_one, lower_one, down));
                put(to + two, blend_vectors<T>(upper_two, lower_two, down));
                upper_one = lower_one;
                upper_two = lower_two;
            }
            if (inner < count) {
                put(to + one, upper_one);
                put(to + two, upper_two);
            }
        }
    }

    // Returns false if the segment would be too long to be worth it.
    bool find_separable(Index number) {
        find_taps(position_[1], grid_.column_by_column, grid_, image_.columns, work_.row_pitch, columns_);
        find_taps(position_[0], grid_.row_by_row, grid_, image_.rows, work_.row_pitch, rows_);
        if (columns_.width > work_.segment_pitch - 3 * max_lanes) {
            return false;
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
            const Index from = std::min(columns_.index[start], columns_.index[last]);
            const Index to = std::max(columns_.index[start], columns_.index[last]);
            windows_[start / lanes<T>] = from;
            permutes_ = permutes_ && to - from < 2 * lanes<T>;
        }
        return true;
    }

    void read_segment(const T* pixel, Index next_row, T share, T* segment) const {
        if (image_.column_stride == 1 && reach_ % lanes<T> == 0) {
            const Vec<T> shares = splat(share);
            for (Index x = 0; x < reach_; x += lanes<T>) {
                store(segment + x, blend_vectors<T>(load(pixel + x), load(pixel + x + next_row), shares));
            }
            segment[reach_] = pixel[reach_ - 1];  // read by taps without a share
            return;
        }
        for (Index x = 0; x < columns_.width; ++x) {
            const T* value = pixel + x * image_.column_stride;
            segment[x] = blend(value[0], value[next_row], share);
        }
        segment[columns_.width] = segment[columns_.width - 1];
    }

    // Up to band_rows rows: first their segments, then what they read there, so that it has arrived in the cache.
    void separable_rows(Index first, Index count, T* out, Index stride) const {
        if (columns_.begin == columns_.end) {
            for (Index r = 0; r < count; ++r) {
                std::fill(out + r * stride, out + r * stride + grid_.size, T(0));
            }
            return;
        }
        const Index pitch = work_.segment_pitch;
        bool lit[static_cast<std::size_t>(band_rows)];
        for (Index r = 0; r < count; ++r) {
            const Index k = first + r;
            lit[r] = k >= rows_.begin && k < rows_.end;
            if (lit[r]) {
                const T* pixel = image_.data + (rows_.origin + rows_.index[k]) * image_.row_stride +
                                 columns_.origin * image_.column_stride;
                read_segment(pixel, rows_.share[k] > T(0) ? image_.row_stride : 0, rows_.share[k],
                             work_.segments + r * pitch);
            }
        }
        if (permutes_) {
            for (Index l = 0; l < grid_.size; l += lanes<T>) {
                const Index window = windows_[l / lanes<T>];
                const PickIndex<T> index = pick_index<T>(columns_.index + l, window);
                const Vec<T> share = load(columns_.share + l);
                const T* values = work_.segments + window;
                for (Index r = 0; r < count; ++r, values += pitch) {
                    store(out + r * stride + l, blend_vectors<T>(pick(values, index), pick(values + 1, index), share));
                }
            }
        } else {
            for (Index r = 0; r < count; ++r) {
                for (Index l = columns_.begin; l < columns_.end; ++l) {
                    const T* value = work_.segments + r * pitch + columns_.index[l];
                    out[r * stride + l] = blend(value[0], value[1], columns_.share[l]);
                }
            }
        }
        for (Index r = 0; r < count; ++r) {
            std::fill(out + r * stride, out + r * stride + (lit[r] ? columns_.begin : grid_.size), T(0));
            std::fill(out + r * stride + (lit[r] ? columns_.end : grid_.size), out + r * stride + grid_.size, T(0));
        }
    }

    // Whether all samples lie inside: they are linear in (k, l), so the corners decide.
    bool find_inner() {
        const double half = grid_.half();
        double top = position_[0];
        double left = position_[1];
        for (const double down : {-half, half}) {
            for (const double right : {-half, half}) {
                const double row = sample_row(grid_, position_[0], down, right);
                const double column = sample_column(grid_, position_[1], down, right);
                if (!inside(row, image_.rows) || !inside(column, image_.columns)) {
                    return false;
                }
                top = std::min(top, row);
                left = std::min(left, column);
            }
        }
        rows_.origin = static_cast<Index>(top);
        columns_.origin = static_cast<Index>(left);
        return true;
    }

    // The taps of a row are found together, counted from the origin, as in find_taps.
    void inner_row(Index k, T* out) const {
        const double down = static_cast<double>(k) - grid_.half();
        const double half = grid_.half();
        const double top = static_cast<double>(rows_.origin);
        const double left = static_cast<double>(columns_.origin);
        const bool linear = grid_.interpolation == Interpolation::linear;
        const double shift = linear ? 0.0 : 0.5;
        const T weight = linear ? T(1) : T(0);
        const Index size = grid_.size;
        std::int32_t* __restrict row = rows_.index;
        std::int32_t* __restrict column = columns_.index;
        T* __restrict row_share = rows_.share;
        T* __restrict column_share = columns_.share;
        const PatchGrid grid = grid_;
        const double r = position_[0];
        const double c = position_[1];
        for (Index l = 0; l < size; ++l) {
            const double right = static_cast<double>(l) - half;
            const double from_top = (sample_row(grid, r, down, right) + shift) - top;
            const double from_left = (sample_column(grid, c, down, right) + shift) - left;
            row[l] = static_cast<std::int32_t>(from_top);
            column[l] = static_cast<std::int32_t>(from_left);
            row_share[l] = weight * static_cast<T>(from_top - static_cast<double>(row[l]));
            column_share[l] = weight * static_cast<T>(from_left - static_cast<double>(column[l]));
        }
        const T* pixel = image_.data + rows_.origin * image_.row_stride + columns_.origin * image_.column_stride;
        for (Index l = 0; l < size; ++l) {
            const T* here = pixel + row[l] * image_.row_stride + column[l] * image_.column_stride;
            const Index next_row = row_share[l] > T(0) ? image_.row_stride : 0;
            const Index next_column = column_share[l] > T(0) ? image_.column_stride : 0;
            out[l] = blend(blend(here[0], here[next_row], row_share[l]),
                           blend(here[next_column], here[next_row + next_column], row_share[l]), column_share[l]);
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
    Way way_ = Way::general;
    UnitPatch<T> unit_;
    LineTaps<T> rows_ = {};  // separable
    LineTaps<T> columns_ = {};
    Index* windows_ = nullptr;  // (chunks of P) first value of the segment that a vector of samples reads
    Index reach_ = 0;           // of the segment
    bool permutes_ = false;
};

}  // namespace
}  // namespace contextem
