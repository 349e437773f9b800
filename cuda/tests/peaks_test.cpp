// The blocks of the peak kernels, thread by thread between their barriers, must give what the C++ kernels give.
#include "contextem/peaks.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "check.hpp"
#include "peak_tile.hpp"

using namespace contextem;

template <class T>
cuda::DeviceFilters<T> filters_of(double sigma) {
    const ResponseFilters<T> made(sigma);
    cuda::DeviceFilters<T> filters;
    std::fill(filters.smooth, filters.smooth + cuda::most_radius + 1, std::numeric_limits<T>::quiet_NaN());
    std::fill(filters.bend, filters.bend + cuda::most_radius + 1, std::numeric_limits<T>::quiet_NaN());
    std::copy(made.smooth.begin(), made.smooth.end(), filters.smooth);
    std::copy(made.bend.begin(), made.bend.end(), filters.bend);
    filters.scale = made.scale;
    filters.radius = static_cast<int>(made.radius());
    return filters;
}

// What a thread reads without having been written, or leaves unwritten, is a NaN.
template <class T>
std::vector<T> emulate(const ImageView<T>& image, double sigma, std::size_t limit) {
    const T unwritten = std::numeric_limits<T>::quiet_NaN();
    std::vector<T> response(static_cast<std::size_t>(image.rows * image.columns), unwritten);
    const cuda::DeviceFilters<T> filters = filters_of<T>(sigma);
    const cuda::ResponseTile tile = cuda::response_tile(filters.radius, sizeof(T), limit);
    CHECK(tile.columns > 0);
    for (Index row = 0; row < image.rows; row += cuda::tile_rows) {
        for (Index column = 0; column < image.columns; column += tile.columns) {
            std::vector<T> shared(static_cast<std::size_t>(tile.values()), unwritten);
            for (int t = cuda::response_threads; t-- > 0;) {
                cuda::fill_tile(image, filters, tile, row, column, t, shared.data());
            }
            for (int t = 0; t < cuda::response_threads; ++t) {
                cuda::convolve_across(filters, tile, t, shared.data());
            }
            for (int t = cuda::response_threads; t-- > 0;) {
                cuda::write_tile(tile, image.rows, image.columns, row, column, t, shared.data(), response.data());
            }
        }
    }
    return response;
}

template <class T>
std::vector<T> noise(Index count, std::uint64_t seed) {
    std::vector<T> pixels;
    for (const double value : numbers(static_cast<int>(count), seed)) {
        pixels.push_back(static_cast<T>(value - 0.5));
    }
    return pixels;
}

// To the last bit, at every width of the tile, wherever the pixels lie.
template <class T>
void responses() {
    const std::vector<T> pixels = noise<T>(140 * 2 * 300, 1);
    for (const double sigma : {0.8, 1.0, 2.3, 3.8, 9.0}) {
        for (const auto& [rows, columns] : {std::pair<Index, Index>(1, 1), {1, 40}, {33, 3}, {70, 131}, {140, 300}}) {
            for (const ImageView<T> image : {ImageView<T>{pixels.data(), rows, columns, columns, 1},
                                             ImageView<T>{pixels.data(), rows, columns, 1, rows},
                                             ImageView<T>{pixels.data(), rows, columns, 2 * columns, 2}}) {
                std::vector<T> expected(static_cast<std::size_t>(rows * columns));
                peak_response(image, sigma, 1, expected.data());
                for (const std::size_t limit : {std::size_t(1) << 20, std::size_t(99) << 10, std::size_t(40) << 10}) {
                    if (cuda::response_tile(gaussian_radius(sigma), sizeof(T), limit).columns > 0) {
                        CHECK(emulate(image, sigma, limit) == expected);
                    }
                }
            }
        }
    }
}

void tiles() {
    const std::size_t hopper = 227 << 10;
    const std::size_t least = 99 << 10;  // of the architectures that kernels are compiled for
    CHECK(cuda::response_tile(15, 4, hopper).columns == 128);
    CHECK(cuda::response_tile(15, 4, least).columns == 64);
    CHECK(cuda::response_tile(cuda::most_radius, 4, least).columns == 32);
    CHECK(cuda::response_tile(cuda::most_radius + 1, 4, std::size_t(1) << 30).columns == 0);
    CHECK(cuda::response_tile(cuda::most_radius, 8, least).columns == 0);
    for (const std::size_t item : {std::size_t(4), std::size_t(8)}) {
        for (Index radius = 0; radius <= cuda::most_radius; ++radius) {
            const cuda::ResponseTile tile = cuda::response_tile(radius, item, least);
            CHECK(item * static_cast<std::size_t>(tile.values()) <= least);
            CHECK(tile.columns % cuda::together == 0);
        }
        const double sigma = cuda::widest_sigma(item, least);
        CHECK(cuda::response_tile(gaussian_radius(sigma), item, least).columns > 0);
        CHECK(cuda::response_tile(gaussian_radius(sigma) + 1, item, least).columns == 0);
    }
    CHECK(cuda::widest_sigma(8, least) > 15.0);
}

// A maximum of a word takes its place after those of the words before, in the order of the C++ kernel.
template <class T>
void maxima(const std::vector<T>& values, Index rows, Index columns, double threshold) {
    const ImageView<T> response = {values.data(), rows, columns, columns, 1};
    Maxima expected = local_maxima(response, 0, 1);
    std::vector<double> positions;
    std::vector<double> heights;
    for (std::size_t i = 0; i < expected.heights.size(); ++i) {
        if (expected.heights[i] > threshold) {
            positions.insert(positions.end(), {expected.positions[2 * i], expected.positions[2 * i + 1]});
            heights.push_back(expected.heights[i]);
        }
    }
    const Index across = cuda::words_across(columns);
    std::vector<std::uint32_t> marks(static_cast<std::size_t>(rows * across), 0);
    std::vector<Index> before(1, 0);
    for (std::size_t word = 0; word < marks.size(); ++word) {
        for (int lane = 0; lane < cuda::word_pixels; ++lane) {
            const auto number = static_cast<Index>(word);
            const Index column = number % across * cuda::word_pixels + lane;
            marks[word] |= cuda::is_peak(response, threshold, number / across, column) ? 1u << lane : 0u;
        }
        before.push_back(before.back() + cuda::count_bits(marks[word]));
    }
    CHECK(before.back() == static_cast<Index>(heights.size()));
    for (const Index room : {Index(0), Index(1), before.back() / 2, before.back(), before.back() + 3}) {
        const double unwritten = -77.0;
        std::vector<double> found(static_cast<std::size_t>(2 * room), unwritten);
        std::vector<double> tops(static_cast<std::size_t>(room), unwritten);
        for (std::size_t word = marks.size(); word-- > 0;) {
            cuda::write_word(response, static_cast<Index>(word), marks[word], before[word], room, found.data(),
                             tops.data());
        }
        for (std::size_t i = 0; i < tops.size(); ++i) {
            const bool there = i < heights.size();
            CHECK(tops[i] == (there ? heights[i] : unwritten));
            CHECK(found[2 * i] == (there ? positions[2 * i] : unwritten));
            CHECK(found[2 * i + 1] == (there ? positions[2 * i + 1] : unwritten));
        }
    }
}

template <class T>
void maxima_of_any_shape() {
    for (const auto& [rows, columns] : {std::pair<Index, Index>(1, 1), {2, 40}, {3, 3}, {7, 31}, {9, 32}, {40, 133}}) {
        for (const double threshold : {0.0, 0.3, 10.0}) {
            maxima(noise<T>(rows * columns, 5), rows, columns, threshold);
        }
        maxima(std::vector<T>(static_cast<std::size_t>(rows * columns), T(1)), rows, columns, 0.0);  // a plateau
    }
    std::vector<T> broken = noise<T>(40 * 133, 6);
    for (std::size_t i = 0; i < broken.size(); i += 7) {
        broken[i] = std::numeric_limits<T>::quiet_NaN();
    }
    maxima(broken, 40, 133, 0.0);
}

// The rows of a tile, a lane each, meet 32 different banks.
void banks() {
    for (int radius = 0; radius <= cuda::most_radius; ++radius) {
        const cuda::ResponseTile tile = cuda::response_tile(radius, 4, 227 << 10);
        for (const int pitch : {tile.pitch(), tile.out_pitch()}) {
            bool taken[32] = {};
            for (int lane = 0; lane < 32; ++lane) {
                bool& bank = taken[lane * pitch % 32];
                CHECK(!bank);
                bank = true;
            }
        }
    }
}

int main() {
    responses<float>();
    responses<double>();
    tiles();
    maxima_of_any_shape<float>();
    maxima_of_any_shape<double>();
    banks();
    return failures();
}
