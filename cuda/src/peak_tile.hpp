// What a block of the peak kernels does, thread by thread: plain C++, tested on the host. See peaks.cu.
#pragma once

#include <cstddef>
#include <cstdint>

#include "contextem/peak_arithmetic.hpp"
#include "contextem/sampling.hpp"
#include "contextem/view.hpp"
#include "unroll.hpp"

namespace contextem::cuda {

// ---- response -------------------------------------------------------------------------------------------------------

constexpr int response_threads = 256;
constexpr int tile_rows = 32;  // a lane each where columns are convolved
constexpr int together = 8;    // neighbouring pixels of a thread, along the filter
constexpr int most_radius = 160;

// The filters as an argument of the kernel: they lie in constant memory, and nothing is copied beforehand.
template <class T>
struct DeviceFilters {
    T smooth[most_radius + 1];
    T bend[most_radius + 1];
    T scale;
    int radius;
};

// The part of a response that a block makes, and its shared memory: both convolutions down the rows, mirrored on, and
// the response. Odd pitches let the rows of a warp meet different banks.
struct ResponseTile {
    int radius;
    int columns;

    CONTEXTEM_HD int width() const { return columns + 2 * radius; }
    CONTEXTEM_HD int pitch() const { return width() | 1; }
    CONTEXTEM_HD int out_pitch() const { return columns | 1; }
    CONTEXTEM_HD int values() const { return tile_rows * (2 * pitch() + out_pitch()); }
};

// The widest tile of which a multiprocessor takes two, or the narrowest; one of 0 columns if that does not fit either.
inline ResponseTile response_tile(Index radius, std::size_t item, std::size_t limit) {
    if (radius > most_radius) {
        return {0, 0};
    }
    for (const int columns : {128, 64, 32}) {
        const ResponseTile tile = {static_cast<int>(radius), columns};
        if (2 * item * static_cast<std::size_t>(tile.values()) <= limit) {
            return tile;
        }
    }
    const ResponseTile narrow = {static_cast<int>(radius), 32};
    return item * static_cast<std::size_t>(narrow.values()) <= limit ? narrow : ResponseTile{0, 0};
}

// The largest standard deviation that has a tile.
inline double widest_sigma(std::size_t item, std::size_t limit) {
    Index radius = most_radius;
    while (radius > 0 && response_tile(radius, item, limit).columns == 0) {
        --radius;
    }
    return (static_cast<double>(radius) + 0.25) / 4.0;
}

// The values at distance i on either side of `together` neighbours. As i goes up, one comes in on each side and the
// others stay where they are, in registers: place j of distance i is slot j - i before and j + i after.
template <class T>
struct Sides {
    T before[together];
    T after[together];

    template <class Read>
    CONTEXTEM_HD void begin(const Read& read) {
        CONTEXTEM_UNROLL
        for (int j = 0; j < together; ++j) {
            before[j] = after[j] = read(j);
        }
    }

    // turn: i modulo `together`, a constant once loops are unrolled
    template <class Read>
    CONTEXTEM_HD void widen(int i, int turn, const Read& read) {
        before[(together - turn) % together] = read(-i);
        after[(together - 1 + turn) % together] = read(together - 1 + i);
    }

    CONTEXTEM_HD T sum(int j, int turn) const {
        return before[(j + together - turn) % together] + after[(j + turn) % together];
    }
};

// Calls step(i, i modulo `together`) for i = 1 .. radius.
template <class Step>
CONTEXTEM_HD void each_distance(int radius, const Step& step) {
    for (int first = 1; first <= radius; first += together) {
        CONTEXTEM_UNROLL
        for (int k = 0; k < together; ++k) {
            if (first + k <= radius) {
                step(first + k, (1 + k) % together);
            }
        }
    }
}

// read(j): pixel j of a column, 0 .. together - 1 being those of the thread.
template <class T, class Read>
CONTEXTEM_HD void convolve_down(const Read& read, const DeviceFilters<T>& filters, T* smooth, T* bend, int pitch) {
    Sides<T> pixels;
    pixels.begin(read);
    T low[together];
    T high[together];
    CONTEXTEM_UNROLL
    for (int j = 0; j < together; ++j) {
        low[j] = filters.smooth[0] * pixels.before[j];
        high[j] = filters.bend[0] * pixels.before[j];
    }
    each_distance(filters.radius, [&](int i, int turn) {
        pixels.widen(i, turn, read);
        CONTEXTEM_UNROLL
        for (int j = 0; j < together; ++j) {
            const T both = pixels.sum(j, turn);
            low[j] += filters.smooth[i] * both;
            high[j] += filters.bend[i] * both;
        }
    });
    CONTEXTEM_UNROLL
    for (int j = 0; j < together; ++j) {
        smooth[j * pitch] = low[j];
        bend[j * pitch] = high[j];
    }
}

// A thread's part of both convolutions down the rows: neighbouring threads take neighbouring columns.
template <class T>
CONTEXTEM_HD void fill_tile(const ImageView<T>& image, const DeviceFilters<T>& filters, const ResponseTile& tile,
                            Index first_row, Index first_column, int thread, T* shared) {
    const int width = tile.width();
    const int pitch = tile.pitch();
    for (int part = thread; part < width * (tile_rows / together); part += response_threads) {
        const int row = part / width * together;
        const int column = part % width;
        const T* const line =
            image.data + mirrored(first_column - tile.radius + column, image.columns) * image.column_stride;
        T* const smooth = shared + row * pitch + column;
        T* const bend = smooth + tile_rows * pitch;
        const Index top = first_row + row;
        if (top >= tile.radius && top + together + tile.radius <= image.rows) {
            const T* const first = line + top * image.row_stride;
            convolve_down([&](int j) { return first[j * image.row_stride]; }, filters, smooth, bend, pitch);
        } else {
            convolve_down([&](int j) { return line[mirrored(top + j, image.rows) * image.row_stride]; }, filters,
                          smooth, bend, pitch);
        }
    }
}

// A thread's part of the convolution along the columns: the lanes of a warp take the rows of the tile.
template <class T>
CONTEXTEM_HD void convolve_across(const DeviceFilters<T>& filters, const ResponseTile& tile, int thread, T* shared) {
    const int row = thread % tile_rows;
    const T* const smooth = shared + row * tile.pitch() + tile.radius;
    const T* const bend = smooth + tile_rows * tile.pitch();
    T* const out = shared + 2 * tile_rows * tile.pitch() + row * tile.out_pitch();
    for (int column = thread / tile_rows * together; column < tile.columns;
         column += response_threads / tile_rows * together) {
        const auto read_low = [&](int j) { return smooth[column + j]; };
        const auto read_high = [&](int j) { return bend[column + j]; };
        Sides<T> low;
        Sides<T> high;
        low.begin(read_low);
        high.begin(read_high);
        T sum[together];
        CONTEXTEM_UNROLL
        for (int j = 0; j < together; ++j) {
            sum[j] = filters.bend[0] * low.before[j] + filters.smooth[0] * high.before[j];
        }
        each_distance(filters.radius, [&](int i, int turn) {
            low.widen(i, turn, read_low);
            high.widen(i, turn, read_high);
            CONTEXTEM_UNROLL
            for (int j = 0; j < together; ++j) {
                sum[j] += filters.bend[i] * low.sum(j, turn) + filters.smooth[i] * high.sum(j, turn);
            }
        });
        CONTEXTEM_UNROLL
        for (int j = 0; j < together; ++j) {
            out[column + j] = filters.scale * sum[j];
        }
    }
}

// A thread's part of what leaves the tile: neighbouring threads write neighbouring pixels.
template <class T>
CONTEXTEM_HD void write_tile(const ResponseTile& tile, Index rows, Index columns, Index first_row, Index first_column,
                             int thread, const T* shared, T* response /* (rows, columns) */) {
    const T* const out = shared + 2 * tile_rows * tile.pitch();
    for (int i = thread; i < tile_rows * tile.columns; i += response_threads) {
        const int row = i / tile.columns;
        const int column = i % tile.columns;
        if (first_row + row < rows && first_column + column < columns) {
            response[(first_row + row) * columns + first_column + column] = out[row * tile.out_pitch() + column];
        }
    }
}

// ---- maxima: a bit of a word for each of 32 neighbouring pixels, rows filled up to whole words
// -----------------------

constexpr int word_pixels = 32;

CONTEXTEM_HD Index words_across(Index columns) { return (columns + word_pixels - 1) / word_pixels; }

template <class T>
CONTEXTEM_HD bool is_peak(const ImageView<T>& response, double threshold, Index row, Index column) {
    if (row < 1 || row >= response.rows - 1 || column < 1 || column >= response.columns - 1) {
        return false;
    }
    const T* const pixel = response.data + row * response.row_stride + column;
    return is_maximum(pixel - response.row_stride, pixel, pixel + response.row_stride) &&
           static_cast<double>(*pixel) > threshold;
}

CONTEXTEM_HD int count_bits(std::uint32_t word) {
#if defined(__CUDA_ARCH__)
    return __popc(word);
#else
    return __builtin_popcount(word);
#endif
}

CONTEXTEM_HD int lowest_bit(std::uint32_t word) {
#if defined(__CUDA_ARCH__)
    return __ffs(static_cast<int>(word)) - 1;
#else
    return __builtin_ctz(word);
#endif
}

// The peaks of a word, of which `before` stand in earlier ones, as far as there is room.
template <class T>
CONTEXTEM_HD void write_word(const ImageView<T>& response, Index number, std::uint32_t word, Index before,
                             Index capacity, double* positions /* (capacity, 2) */, double* heights /* (capacity) */) {
    const Index across = words_across(response.columns);
    const Index row = number / across;
    for (; word != 0 && before < capacity; word &= word - 1, ++before) {
        const Index column = number % across * word_pixels + lowest_bit(word);
        const T* const pixel = response.data + row * response.row_stride + column;
        const Offset offset = to_the_top(pixel, response.row_stride);
        positions[2 * before] = static_cast<double>(row) + offset.down;
        positions[2 * before + 1] = static_cast<double>(column) + offset.right;
        heights[before] = static_cast<double>(*pixel);
    }
}

}  // namespace contextem::cuda
