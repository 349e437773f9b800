// Convolutions and maxima row by row, compiled once per instruction set (see CMakeLists.txt).
//
//   response[r, c] = -sigma^2 sum_ij (k2[i] k0[j] + k0[i] k2[j]) I[r + i, c + j]     |i|, |j| <= R = round(4 sigma)
//       k0 Gaussian of unit sum, k2[i] = (i^2 / sigma^4 - 1 / sigma^2) k0[i]; I mirrored at its border
//   maximum[r, c] = I[r, c] > 0 and I[r, c] >= I[r + i, c + j] for all |i|, |j| <= 1
//
// Separable: down the rows first, for both filters at once, then along the columns; even filters, so 4 (R + 1)
// multiplications a pixel. Columns are taken in blocks that stay in registers. Every row is computed by the same
// instructions wherever it stands, so results do not depend on the split over threads.
#include "column_kernels.hpp"
#include "contextem/peak_arithmetic.hpp"

namespace contextem {
namespace {

// Calls block(first column, width); inlined, so that the width of whole blocks is a constant and registers hold them.
template <class Block>
inline __attribute__((always_inline)) void in_blocks(Index columns, const Block& block) {
    Index c = 0;
    for (; c + peak_block <= columns; c += peak_block) {
        block(c, peak_block);
    }
    if (c < columns) {
        block(c, columns - c);
    }
}

template <class T>
void response_row(const T* const* rows, const EvenFilters<T>& filters, Index columns, T scale, T* work_smooth,
                  T* work_bend, T* response) {
    const Index radius = filters.radius;
    T* smooth = work_smooth + radius;
    T* bend = work_bend + radius;
    in_blocks(columns, [&](Index c, Index width) __attribute__((always_inline)) {
        T low[peak_block];
        T high[peak_block];
        const T* middle = rows[radius] + c;
        for (Index x = 0; x < width; ++x) {
            low[x] = filters.smooth[0] * middle[x];
            high[x] = filters.bend[0] * middle[x];
        }
        for (Index i = 1; i <= radius; ++i) {
            const T* above = rows[radius - i] + c;
            const T* below = rows[radius + i] + c;
            const T k0 = filters.smooth[i];
            const T k2 = filters.bend[i];
            for (Index x = 0; x < width; ++x) {
                const T both = above[x] + below[x];
                low[x] += k0 * both;
                high[x] += k2 * both;
            }
        }
        for (Index x = 0; x < width; ++x) {
            smooth[c + x] = low[x];
            bend[c + x] = high[x];
        }
    });
    for (Index i = 0; i < radius; ++i) {  // mirrored, again and again where the row is shorter than the filter
        const Index before = mirrored(-1 - i, columns);
        const Index after = mirrored(columns + i, columns);
        smooth[-1 - i] = smooth[before];
        bend[-1 - i] = bend[before];
        smooth[columns + i] = smooth[after];
        bend[columns + i] = bend[after];
    }
    in_blocks(columns, [&](Index c, Index width) __attribute__((always_inline)) {
        T sum[peak_block];
        for (Index x = 0; x < width; ++x) {
            sum[x] = filters.bend[0] * smooth[c + x] + filters.smooth[0] * bend[c + x];
        }
        for (Index i = 1; i <= radius; ++i) {
            const T k0 = filters.smooth[i];
            const T k2 = filters.bend[i];
            const T* low = smooth + c;
            const T* high = bend + c;
            for (Index x = 0; x < width; ++x) {
                sum[x] += k2 * (low[x - i] + low[x + i]) + k0 * (high[x - i] + high[x + i]);
            }
        }
        for (Index x = 0; x < width; ++x) {
            response[c + x] = scale * sum[x];
        }
    });
}

template <class T>
void mark_maxima(const T* above, const T* row, const T* below, Index columns, unsigned char* marks) {
    for (Index c = 1; c < columns - 1; ++c) {
        marks[c] = is_maximum(above + c, row + c, below + c);
    }
}

template <class T>
void convolve_rows(const T* const* rows, const T* filter, Index radius, Index columns, T* sum) {
    in_blocks(columns, [&](Index c, Index width) __attribute__((always_inline)) {
        T total[peak_block];
        for (Index x = 0; x < width; ++x) {
            total[x] = filter[0] * rows[radius][c + x];
        }
        for (Index i = 1; i <= radius; ++i) {
            const T* above = rows[radius - i] + c;
            const T* below = rows[radius + i] + c;
            const T k = filter[i];
            for (Index x = 0; x < width; ++x) {
                total[x] += k * (above[x] + below[x]);
            }
        }
        for (Index x = 0; x < width; ++x) {
            sum[c + x] = total[x];
        }
    });
}

template <class T>
void convolve_columns(const T* row, const T* filter, Index radius, Index columns, T* sum) {
    in_blocks(columns, [&](Index c, Index width) __attribute__((always_inline)) {
        T total[peak_block];
        for (Index x = 0; x < width; ++x) {
            total[x] = filter[0] * row[c + x];
        }
        for (Index i = 1; i <= radius; ++i) {
            const T* value = row + c;
            const T k = filter[i];
            for (Index x = 0; x < width; ++x) {
                total[x] += k * (value[x - i] + value[x + i]);
            }
        }
        for (Index x = 0; x < width; ++x) {
            sum[c + x] = total[x];
        }
    });
}

}  // namespace

namespace CONTEXTEM_SET {

template <class T>
PeakKernels<T> peak_kernels() {
    return {response_row<T>, mark_maxima<T>, convolve_rows<T>, convolve_columns<T>};
}

template PeakKernels<float> peak_kernels();
template PeakKernels<double> peak_kernels();

}  // namespace CONTEXTEM_SET
}  // namespace contextem
