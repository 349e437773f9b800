// Folds patches onto their lower right quadrant and lays them out with one patch per lane.
//
//   planes[parity](row, column) = (P(+,+) +- P(-,+)) +- (P(+,-) +- P(-,-)),   P(+-row, +-column), signs by parity
//   panel[plane][row][column][patch],   row, column < ceil(P / 2)
//
// The two rows of a patch that meet are folded as they lie in the image or the stack of patches, a pixel per lane; then
// as many patches as there are lanes are transposed, plane by plane. What follows has no lane left over for any J.
//
// Work for one patch: P^2 pixels read once, 2 P^2 additions, P^2 values transposed (log2(lanes) shuffles a vector) and
// written once. Samples beyond the last of a row that has a weight are left out.
#pragma once

#include "contextem/moments.hpp"
#include "moment_kernels.hpp"
#include "simd.hpp"

namespace contextem {
namespace {

// Patches multiplied together.
template <class T>
constexpr Index panel_patches() {
    return panel_vectors * lanes<T>;
}

// `staged` holds a vector of values of each patch; writes the first `count` of the transposed vectors and, where
// plane_size is given, those from the half on to the next plane.
template <class T>
CONTEXTEM_INLINE void store_transposed(const T* staged, Index count, T* panel, Index plane_size = 0) {
    Vec<T> value[static_cast<std::size_t>(lanes<T>)];
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; ++i) {
        value[i] = load(staged + i * lanes<T>);
    }
    transpose<T>(value);
    const int vectors = plane_size > 0 ? lanes<T> / 2 : lanes<T>;
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; ++i) {
        if (i < vectors && i < count) {
            store(panel + i * panel_patches<T>(), value[i]);
        }
    }
#pragma GCC unroll 16
    for (int i = lanes<T> / 2; i < lanes<T>; ++i) {
        if (plane_size > 0 && i - lanes<T> / 2 < count) {
            store(panel + plane_size + (i - lanes<T> / 2) * panel_patches<T>(), value[i]);
        }
    }
}

// Calls function(start, count) for the chunks of lanes<T> columns that cover the first `length` of `rows` columns. The
// last chunk reaches back rather than beyond the row, if the row is long enough.
template <class T, class Function>
CONTEXTEM_INLINE void for_chunks(Index length, Index rows, const Function& function) {
    for (Index begin = 0; begin < length; begin += lanes<T>) {
        const Index start = begin + lanes<T> > rows && rows >= lanes<T> ? rows - lanes<T> : begin;
        function(start, length - start < lanes<T> ? length - start : lanes<T>);
    }
}

// Rows of a patch come from a source in bands of up to source.band rows:
//   source(i, k, count, side)  rows [k, k + count) of patch i, source.stride apart. The bands of both sides, 0 and 1,
//   and of all patches stay where they are until the next ones are asked for. Up to lanes<T> values before and after a
//   row may be read, whatever they hold.
template <class T, class Source>
void fold_patches(const MomentTable<T>& table, const Source& source, T* staged, T* panel) {
    constexpr Index block = lanes<T> * lanes<T>;  // staged: (planes, lanes, lanes)
    constexpr Index half = lanes<T> / 2;
    const Index rows = table.rows;
    const Index first = table.size - rows;  // row and column of the quadrant's first sample
    const Index stride = source.stride;
    const Index plane_size = rows * rows * panel_patches<T>();
    const T* below[static_cast<std::size_t>(lanes<T>)];
    const T* above[static_cast<std::size_t>(lanes<T>)];
    for (Index begin = 0; begin < rows; begin += source.band) {
        const Index band = rows - begin < source.band ? rows - begin : source.band;
        for (int i = 0; i < lanes<T>; ++i) {
            below[i] = source(i, first + begin, band, 0);
            above[i] = source(i, rows - begin - band, band, 1);
        }
        for (Index row = begin; row < begin + band; ++row) {
            const Index length = table.row_lengths[static_cast<std::size_t>(row)];
            const Index down = (row - begin) * stride;
            const Index up = (begin + band - 1 - row) * stride;
            // the four rows of patch i that meet, from a column on the right and from its mirror image
            const auto folded = [&](int i, Index right, Index left) {
                return fold(load(below[i] + down + right), reverse<T>(load(below[i] + down + left)),
                            load(above[i] + up + right), reverse<T>(load(above[i] + up + left)));
            };
            if (length <= half) {
                // vectors centred on the patch: what counts is in their upper halves, so two planes share one
                for (int i = 0; i < lanes<T>; ++i) {
                    const Folded<Vec<T>> planes = folded(i, first - half, rows - half);
                    for (int parity = 0; parity < n_parities; parity += 2) {
                        store(staged + parity * block + i * lanes<T>,
                              upper_halves<T>(planes.plane[parity], planes.plane[parity + 1]));
                    }
                }
                for (int parity = 0; parity < n_parities; parity += 2) {
                    store_transposed(staged + parity * block, length,
                                     panel + parity * plane_size + row * rows * panel_patches<T>(), plane_size);
                }
                continue;
            }
            for_chunks<T>(length, rows, [&](Index start, Index count) {
                for (int i = 0; i < lanes<T>; ++i) {
                    const Folded<Vec<T>> planes = folded(i, first + start, rows - lanes<T> - start);
                    for (int parity = 0; parity < n_parities; ++parity) {
                        store(staged + parity * block + i * lanes<T>, planes.plane[parity]);
                    }
                }
                for (int parity = 0; parity < n_parities; ++parity) {
                    store_transposed(staged + parity * block, count,
                                     panel + parity * plane_size + (row * rows + start) * panel_patches<T>());
                }
            });
        }
    }
}

// A table without parity: the only plane is the patch itself.
template <class T, class Source>
void lay_out_patches(const MomentTable<T>& table, const Source& source, T* staged, T* panel) {
    const T* rows[static_cast<std::size_t>(lanes<T>)];
    for (Index begin = 0; begin < table.rows; begin += source.band) {
        const Index band = table.rows - begin < source.band ? table.rows - begin : source.band;
        for (int i = 0; i < lanes<T>; ++i) {
            rows[i] = source(i, begin, band, 0);
        }
        for (Index row = begin; row < begin + band; ++row) {
            for_chunks<T>(table.row_lengths[static_cast<std::size_t>(row)], table.rows, [&](Index start, Index count) {
                for (int i = 0; i < lanes<T>; ++i) {
                    store(staged + i * lanes<T>, load(rows[i] + (row - begin) * source.stride + start));
                }
                store_transposed(staged, count, panel + (row * table.rows + start) * panel_patches<T>());
            });
        }
    }
}

}  // namespace
}  // namespace contextem
