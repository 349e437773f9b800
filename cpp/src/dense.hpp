// Moments at every pixel: the patches of neighbouring pixels fill a panel without being transposed.
//
// The patches of a panel lie side by side in one image row, a patch per lane: their samples (row, column) are values
// that follow each other in memory. The two rows that meet are added and subtracted once for the whole panel, then the
// columns; fold.hpp has the formula, multiply.hpp the rest.
//
// Work for one pixel: P / 2 (P + panel) / panel + P^2 additions, and the multiply-adds of its moments.
#pragma once

#include "contextem/moments.hpp"
#include "fold.hpp"
#include "moment_kernels.hpp"
#include "simd.hpp"

namespace contextem {
namespace {

// The patch of the first pixel of a panel begins at `corner`; panel_patches<T>() + P - 1 values of its rows are read.
template <class T>
void fold_neighbours(const MomentTable<T>& table, const T* corner, Index row_stride, T* sums, T* panel) {
    const Index rows = table.rows;
    const Index first = table.size - rows;
    const Index width = (panel_patches<T>() + table.size + lanes<T> - 1) / lanes<T> * lanes<T>;
    const Index plane_size = rows * rows * panel_patches<T>();
    T* differences = sums + width;
    for (Index row = 0; row < rows; ++row) {
        const T* below = corner + (first + row) * row_stride;
        const T* above = corner + (rows - 1 - row) * row_stride;
        for (Index x = 0; x < width; x += lanes<T>) {
            store(sums + x, load(below + x) + load(above + x));
            store(differences + x, load(below + x) - load(above + x));
        }
        for (Index column = 0; column < table.row_lengths[static_cast<std::size_t>(row)]; ++column) {
            T* out = panel + (row * rows + column) * panel_patches<T>();
            for (Index v = 0; v < panel_patches<T>(); v += lanes<T>, out += lanes<T>) {
                const Index right = first + column + v;
                const Index left = rows - 1 - column + v;
                store(out + even_even * plane_size, load(sums + right) + load(sums + left));
                store(out + even_odd * plane_size, load(sums + right) - load(sums + left));
                store(out + odd_even * plane_size, load(differences + right) + load(differences + left));
                store(out + odd_odd * plane_size, load(differences + right) - load(differences + left));
            }
        }
    }
}

template <class T>
void lay_out_neighbours(const MomentTable<T>& table, const T* corner, Index row_stride, T* panel) {
    for (Index row = 0; row < table.rows; ++row) {
        for (Index column = 0; column < table.row_lengths[static_cast<std::size_t>(row)]; ++column) {
            T* out = panel + (row * table.rows + column) * panel_patches<T>();
            for (Index v = 0; v < panel_patches<T>(); v += lanes<T>) {
                store(out + v, load(corner + row * row_stride + column + v));
            }
        }
    }
}

}  // namespace
}  // namespace contextem
