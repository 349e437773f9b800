// Folds patches onto their lower right quadrant and lays them out with one patch per lane.
//
//   planes[parity](row, column) = (P(+,+) +- P(-,+)) +- (P(+,-) +- P(-,-)),   P(+-row, +-column), signs by parity
//   panel[plane][row][column][patch],   row, column < ceil(P / 2)
//
// The four rows of a patch that meet are folded as they lie in the image or the stack of patches, a pixel per lane; then
// as many patches as there are lanes are transposed, plane by plane. What follows has no lane left over for any J.
//
// Work for one patch: P^2 pixels read once, 2 P^2 additions, P^2 values transposed (log2(lanes) shuffles a vector) and
// written once. Samples beyond the last of a row that has a weight are left out.
#pragma once

#include "contextem/moments.hpp"
#include "kernels.hpp"
#include "simd.hpp"

namespace contextem {
namespace {

// Patches multiplied together.
template <class T>
constexpr Index panel_patches() {
    return panel_vectors * lanes<T>;
}

// Patches of one vector: sample (k, l) of patch i is first[i][k * stride + l]. Up to lanes<T> values before and after a
// row may be read; what they hold does not matter.
template <class T>
struct PatchRows {
    const T* first[static_cast<std::size_t>(lanes<T>)];
    Index stride;
};

// Calls function(start, count) for the chunks of lanes<T> columns that cover the first `length` of `rows` columns. The
// last chunk reaches back rather than beyond the row, if the row is long enough.
template <class T, class Function>
CONTEXTEM_INLINE void for_chunks(Index length, Index rows, const Function& function) {
    for (Index begin = 0; begin < length; begin += lanes<T>) {
        const Index start = begin + lanes<T> > rows && rows >= lanes<T> ? rows - lanes<T> : begin;
        function(start, length - start < lanes<T> ? length - start : lanes<T>);
    }
}

// `staged` holds a vector of values of each patch; writes the first `count` of the transposed vectors.
template <class T>
CONTEXTEM_INLINE void store_transposed(const Vec<T>* staged, Index count, T* panel) {
    Vec<T> value[static_cast<std::size_t>(lanes<T>)];
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; ++i) {
        value[i] = staged[i];
    }
    transpose<T>(value);
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; ++i) {
        if (i < count) {
            store(panel + i * panel_patches<T>(), value[i]);
        }
    }
}

template <class T>
void fold_patches(const MomentTable<T>& table, const PatchRows<T>& patches, T* panel) {
    const Index first = table.size - table.rows;  // row and column of the quadrant's first sample
    const Index plane_size = table.rows * table.rows * panel_patches<T>();
    Vec<T> staged[n_parities][static_cast<std::size_t>(lanes<T>)];
    for (Index row = 0; row < table.rows; ++row) {
        const Index below = (first + row) * patches.stride;
        const Index above = (table.rows - 1 - row) * patches.stride;
        for_chunks<T>(table.row_lengths[static_cast<std::size_t>(row)], table.rows, [&](Index start, Index count) {
            const Index right = first + start;
            const Index left = table.rows - lanes<T> - start;
            for (int i = 0; i < lanes<T>; ++i) {
                const T* patch = patches.first[i];
                const Folded<Vec<T>> folded =
                    fold(load(patch + below + right), reverse<T>(load(patch + below + left)),
                         load(patch + above + right), reverse<T>(load(patch + above + left)));
                for (int parity = 0; parity < n_parities; ++parity) {
                    staged[parity][i] = folded.plane[parity];
                }
            }
            for (int parity = 0; parity < n_parities; ++parity) {
                store_transposed(staged[parity], count,
                                 panel + parity * plane_size + (row * table.rows + start) * panel_patches<T>());
            }
        });
    }
}

// A table without parity: the only plane is the patch itself.
template <class T>
void lay_out_patches(const MomentTable<T>& table, const PatchRows<T>& patches, T* panel) {
    Vec<T> staged[static_cast<std::size_t>(lanes<T>)];
    for (Index row = 0; row < table.rows; ++row) {
        for_chunks<T>(table.row_lengths[static_cast<std::size_t>(row)], table.rows, [&](Index start, Index count) {
            for (int i = 0; i < lanes<T>; ++i) {
                staged[i] = load(patches.first[i] + row * patches.stride + start);
            }
            store_transposed(staged, count, panel + (row * table.rows + start) * panel_patches<T>());
        });
    }
}

}  // namespace
}  // namespace contextem
