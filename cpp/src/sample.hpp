// Samples the patch around a position: image -> patch (P, P), see sampling.hpp for the index rule.
//
// Three ways, the fastest that applies; all round alike where they overlap:
//   unit        scale 1, inside the image: every sample has the same offset between pixels
//   separable   a scale along the axes: a patch row is an image row between two rows, read at fixed columns
//   general     any 2x2 matrix: sample by sample
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace contextem {
namespace {

template <class T>
CONTEXTEM_INLINE Vec<T> blend_vectors(Vec<T> a, Vec<T> b, Vec<T> share) {
    return multiply_add(share, b - a, a);
}

// Scale 1, patch inside the image, unit stride: all samples share one offset between pixels. Rows are blended along the
// columns once and used twice. The last vector overlaps the one before it, so that nothing beyond the patch is read.
template <class T>
void sample_unit(const ImageView<T>& image, Tap top, Tap left, Index size, T* patch, Index stride) {
    const Index next_row = top.share > 0.0 ? image.row_stride : 0;
    const Index next_column = left.share > 0.0 ? 1 : 0;
    const Vec<T> down = splat(static_cast<T>(top.share));
    const Vec<T> right = splat(static_cast<T>(left.share));
    const T* corner = image.data + top.index * image.row_stride + left.index;
    for (Index start = 0; start < size; start += lanes<T>) {
        const Index column = start + lanes<T> <= size ? start : size - lanes<T>;
        const T* pixel = corner + column;
        Vec<T> upper = blend_vectors<T>(load(pixel), load(pixel + next_column), right);
        for (Index row = 0; row < size; ++row) {
            // the row after the last is read only where it has a share
            pixel += row + 1 < size ? image.row_stride : next_row;
            const Vec<T> lower = blend_vectors<T>(load(pixel), load(pixel + next_column), right);
            store(patch + row * stride + column, blend_vectors<T>(upper, lower, down));
            upper = lower;
        }
    }
}

// Any scale along the axes: each patch row is an image row between two rows (the segment), read at fixed taps.
//
// plan_columns finds the patch columns [begin, end) that lie inside the image and where in the segment they read. A
// vector of patch columns reads a window of the segment; up to scale 2 that is two registers, which the taps permute.
struct ColumnPlan {
    Index begin;
    Index end;
    Index low;       // image column of the segment's first value
    Index width;     // of the segment
    bool permutes;   // every chunk's window fits two registers
};

template <class T>
ColumnPlan plan_columns(const ImageView<T>& image, double position, const PatchGrid& grid, Workspace<T>& work) {
    const Index size = grid.size;
    const double half = grid.half();
    const auto column_at = [&](Index l) { return sample_column(grid, position, 0.0, static_cast<double>(l) - half); };

    ColumnPlan plan = {0, size, 0, 0, true};  // coordinates are monotonic: the columns inside are one range
    while (plan.begin < plan.end && !inside(column_at(plan.begin), image.columns)) {
        ++plan.begin;
    }
    while (plan.end > plan.begin && !inside(column_at(plan.end - 1), image.columns)) {
        --plan.end;
    }
    if (plan.begin == plan.end) {
        return plan;
    }
    const Tap first = make_tap(column_at(plan.begin), grid.interpolation);
    const Tap last = make_tap(column_at(plan.end - 1), grid.interpolation);
    const Tap& high = first.index < last.index ? last : first;
    plan.low = first.index < last.index ? first.index : last.index;
    plan.width = high.index - plan.low + (high.share > 0.0 ? 2 : 1);
    if (plan.width > work.segment_capacity) {
        return plan;
    }

    auto* pick_index = static_cast<LaneIndex<T>*>(work.pick);
    for (Index start = 0; start < size; start += lanes<T>) {
        const Index stop = start + lanes<T> < size ? start + lanes<T> : size;
        Index least = plan.width;
        Index greatest = 0;
        for (Index l = start; l < stop; ++l) {
            // columns outside read anything and are zeroed afterwards
            const Index within = l < plan.begin ? plan.begin : (l < plan.end ? l : plan.end - 1);
            const Tap tap = make_tap(column_at(within), grid.interpolation);
            work.tap[l] = tap.index - plan.low;
            work.share[l] = static_cast<T>(tap.share);
            least = work.tap[l] < least ? work.tap[l] : least;
            greatest = work.tap[l] > greatest ? work.tap[l] : greatest;
        }
        work.window[start / lanes<T>] = least;
        plan.permutes = plan.permutes && greatest - least < 2 * lanes<T>;
        for (Index l = start; l < stop; ++l) {
            pick_index[l] = static_cast<LaneIndex<T>>(work.tap[l] - least);
        }
    }
    return plan;
}

template <class T>
void read_segment(const T* __restrict pixel, Index column_stride, Index next_row, T share, Index width,
                  T* __restrict segment) {
    if (column_stride == 1) {
        for (Index x = 0; x < width; ++x) {
            segment[x] = blend(pixel[x], pixel[x + next_row], share);
        }
    } else {
        for (Index x = 0; x < width; ++x) {
            segment[x] = blend(pixel[x * column_stride], pixel[x * column_stride + next_row], share);
        }
    }
    segment[width] = segment[width - 1];  // read by taps without a share
}

// Returns false if the segment would be too long to be worth it. Writes up to max_lanes values beyond a row.
template <class T>
bool sample_separable(const ImageView<T>& image, double row_position, double column_position, const PatchGrid& grid,
                      Workspace<T>& work, T* patch, Index stride) {
    const Index size = grid.size;
    const ColumnPlan plan = plan_columns(image, column_position, grid, work);
    if (plan.width > work.segment_capacity) {
        return false;
    }
    const auto* pick_index = static_cast<const LaneIndex<T>*>(work.pick);
    for (Index k = 0; k < size; ++k) {
        T* out = patch + k * stride;
        const double row = sample_row(grid, row_position, static_cast<double>(k) - grid.half(), 0.0);
        Index begin = plan.begin;
        Index end = plan.end;
        if (begin == end || !inside(row, image.rows)) {
            begin = end = size;
        } else {
            const Tap down = make_tap(row, grid.interpolation);
            read_segment(image.data + down.index * image.row_stride + plan.low * image.column_stride,
                         image.column_stride, down.share > 0.0 ? image.row_stride : 0, static_cast<T>(down.share),
                         plan.width, work.segment);
            if (plan.permutes) {
                for (Index l = 0; l < size; l += lanes<T>) {
                    const T* window = work.segment + work.window[l / lanes<T>];
                    store(out + l, blend_vectors<T>(pick(window, pick_index + l), pick(window + 1, pick_index + l),
                                                    load(work.share + l)));
                }
            } else {
                for (Index l = begin; l < end; ++l) {
                    out[l] = blend(work.segment[work.tap[l]], work.segment[work.tap[l] + 1], work.share[l]);
                }
            }
        }
        for (Index l = 0; l < begin; ++l) {
            out[l] = T(0);
        }
        for (Index l = end; l < size; ++l) {
            out[l] = T(0);
        }
    }
    return true;
}

template <class T>
void sample_general(const ImageView<T>& image, double row_position, double column_position, const PatchGrid& grid,
                    T* patch, Index stride) {
    const double half = grid.half();
    for (Index k = 0; k < grid.size; ++k) {
        for (Index l = 0; l < grid.size; ++l) {
            const double down = static_cast<double>(k) - half;
            const double right = static_cast<double>(l) - half;
            patch[k * stride + l] =
                read_sample(image, sample_row(grid, row_position, down, right),
                            sample_column(grid, column_position, down, right), grid.interpolation);
        }
    }
}

// The first pixel of a patch of scale 1 that lies inside the image, and the shares between pixels.
struct UnitPatch {
    bool inside;
    Tap top;
    Tap left;
    bool on_pixels() const { return top.share == 0.0 && left.share == 0.0; }
};

template <class T>
UnitPatch unit_patch(const ImageView<T>& image, const double* position, const PatchGrid& grid) {
    const double row = position[0] - grid.half();
    const double column = position[1] - grid.half();
    if (!inside(row, image.rows) || !inside(column, image.columns)) {
        return {false, {0, 0.0}, {0, 0.0}};
    }
    // in integers, because row + size - 1 may round onto the border
    const Tap above = make_tap(row, Interpolation::linear);
    const Tap before = make_tap(column, Interpolation::linear);
    const bool within = above.index + grid.size + (above.share > 0.0 ? 1 : 0) <= image.rows &&
                        before.index + grid.size + (before.share > 0.0 ? 1 : 0) <= image.columns;
    return {within, make_tap(row, grid.interpolation), make_tap(column, grid.interpolation)};
}

template <class T>
void sample_patch(const ImageView<T>& image, const double* position, const PatchGrid& grid, Workspace<T>& work, T* patch,
                  Index stride) {
    if (grid.unit() && image.column_stride == 1 && grid.size >= lanes<T>) {
        const UnitPatch unit = unit_patch(image, position, grid);
        if (unit.inside) {
            sample_unit(image, unit.top, unit.left, grid.size, patch, stride);
            return;
        }
    }
    if (grid.separable() && sample_separable(image, position[0], position[1], grid, work, patch, stride)) {
        return;
    }
    sample_general(image, position[0], position[1], grid, patch, stride);
}

}  // namespace
}  // namespace contextem
