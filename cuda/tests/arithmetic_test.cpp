// What the threads of the detector kernels do, and where samples come from, must equal the C++ kernels.
#include <cmath>
#include <vector>

#include "check.hpp"
#include "contextem/patches.hpp"
#include "contextem/virtual_detectors.hpp"
#include "detector_lists.hpp"
#include "sources.hpp"

using namespace contextem;

// The lists of every width that fits, worked through as a warp does, must give what the C++ kernel gives.
template <class T, int width>
void detector_lists(Index pixels) {
    bool masks[3 * 600];
    for (Index k = 0; k < pixels; ++k) {
        masks[k] = 4 * k < 3 * pixels;
        masks[pixels + k] = 2 * k > pixels && k % 61 > 13;
        masks[2 * pixels + k] = k % 7 == 3;
    }
    std::vector<T> pattern;
    for (const double value : numbers(static_cast<int>(pixels), 3)) {
        pattern.push_back(static_cast<T>(200.0 * value - (std::is_signed_v<T> ? 100.0 : 0.0)));
    }
    double expected[3];
    const PatternsView<T> view = {pattern.data(), 1, pixels, pixels * static_cast<Index>(sizeof(T))};
    virtual_detectors(view, DetectorZones(masks, 3, pixels), 1, expected);

    const cuda::DetectorList list(detectors_of_pixels(masks, 3, pixels), width);
    CHECK(list.spans.empty() == (pixels % width != 0));
    double found[3] = {};
    for (const cuda::DetectorSpan& span : list.spans) {
        cuda::PixelSum<T> sum = 0;
        for (int lane = 0; lane < 32; ++lane) {
            for (std::int32_t v = span.first + lane; v < span.last; v += 32) {
                const cuda::DetectorVector& vector = list.vectors[static_cast<std::size_t>(v)];
                sum += cuda::sum_of_vector<width>(pattern.data() + vector.number * width, vector.pixels);
            }
        }
        for (unsigned d = 0; d < 3; ++d) {
            found[d] += (span.detectors >> d) & 1u ? static_cast<double>(sum) : 0.0;
        }
    }
    for (int d = 0; d < 3 && pixels % width == 0; ++d) {
        CHECK_NEAR(found[d], expected[d], std::is_integral_v<T> ? 0.0 : 1e-10);
    }
}

template <class T>
void detectors_of_any_width() {
    for (Index pixels : {Index(1), Index(16), Index(96), Index(97), Index(600)}) {
        detector_lists<T, 1>(pixels);
        detector_lists<T, 2>(pixels);
        detector_lists<T, 4>(pixels);
        detector_lists<T, 8>(pixels);
        detector_lists<T, 16>(pixels);
    }
}

void vectors_and_parts() {
    CHECK(cuda::log2_width(4096, 131072, 65536, 2) == 3);  // 16 bytes
    CHECK(cuda::log2_width(4096, 65536, 65536, 1) == 4);
    CHECK(cuda::log2_width(4096, 65536 * 8, 65536, 8) == 1);
    CHECK(cuda::log2_width(4104, 131072, 65536, 2) == 2);      // the first pattern begins between vectors
    CHECK(cuda::log2_width(4096, 131072 + 4, 65536, 2) == 1);  // and here the second
    CHECK(cuda::log2_width(4096, 2 * 65 * 65, 65 * 65, 2) == 0);
    CHECK(cuda::log2_width(4096, 4096, 6, 1) == 1);  // a vector may not reach beyond the pattern
    for (Index count : {Index(1), Index(63), Index(64), Index(1000), Index(1) << 40}) {
        CHECK(cuda::part_begin(count, 0) == 0 && cuda::part_begin(count, cuda::scan_parts) == count);
        for (Index part = 0; part < cuda::scan_parts; ++part) {
            const Index length = cuda::part_begin(count, part + 1) - cuda::part_begin(count, part);
            CHECK(length == count / cuda::scan_parts || length == count / cuda::scan_parts + 1);
        }
    }
    for (std::uint32_t bits = 0; bits < 32; ++bits) {
        std::uint32_t bytes = 0;
        for (int i = 0; i < 4; ++i) {
            bytes |= ((bits >> i) & 1u) << (8 * i);
        }
        CHECK(cuda::bytes_of_bits(bits) == bytes);
    }
    std::uint16_t largest[8];
    for (std::uint16_t& pixel : largest) {
        pixel = 65535;
    }
    CHECK(cuda::sum_of_vector<8>(largest, 0xffu) == 8 * 65535);
    CHECK(cuda::sum_of_vector<8>(largest, 0x11u) == 2 * 65535);
    const std::uint32_t wide[2] = {0xffffffffu, 0xffffffffu};
    CHECK(cuda::sum_of_vector<2>(wide, 3u) == 2 * std::int64_t(0xffffffffu));
    const float beside[2] = {std::nanf(""), 2.5f};
    CHECK(cuda::sum_of_vector<2>(beside, 2u) == 2.5);
}

// extract_patches writes what ColumnSource gives.
void samples_of_columns() {
    const std::vector<double> pixels = numbers(50 * 40, 1);
    const ImageView<double> image = {pixels.data(), 50, 40, 40, 1};
    std::vector<double> centres = numbers(2 * 30, 2);
    for (double& coordinate : centres) {
        coordinate = 60.0 * coordinate - 5.0;  // inside, at and beyond the border
    }
    const PositionsView positions = {centres.data(), 30};
    for (const Index size : {Index(8), Index(9)}) {
        for (const PatchGrid grid : {PatchGrid{size, 1, 0, 0, 1, Interpolation::linear},
                                     PatchGrid{size, 0.7, 0, 0, 0.7, Interpolation::nearest},
                                     PatchGrid{size, 0.8, 0.3, -0.3, 0.8, Interpolation::linear}}) {
            const cuda::ColumnSource<double> columns = {image, positions, grid};
            std::vector<double> patches(static_cast<std::size_t>(30 * size * size));
            extract_patches(image, positions, grid, 1, patches.data());
            for (Index i = 0; i < 30 * size * size; ++i) {
                const double sample = columns(i / (size * size), i / size % size, i % size);
                CHECK_NEAR(sample, patches[static_cast<std::size_t>(i)], 1e-14);
            }
        }
    }
}

int main() {
    detectors_of_any_width<std::int8_t>();
    detectors_of_any_width<std::uint8_t>();
    detectors_of_any_width<std::int16_t>();
    detectors_of_any_width<std::int32_t>();
    detectors_of_any_width<float>();
    detectors_of_any_width<double>();
    vectors_and_parts();
    samples_of_columns();

    const double nowhere[2] = {std::nan(""), 3.0};
    const double pixel = 1.0;
    const PatchGrid grid = {3, 1, 0, 0, 1, Interpolation::linear};
    const cuda::ColumnSource<double> lost = {{&pixel, 1, 1, 1, 1}, {nowhere, 1}, grid};
    CHECK(std::isnan(lost(0, 1, 1)));
    return failures();
}
