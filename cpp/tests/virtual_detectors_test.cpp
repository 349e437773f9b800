#include "contextem/virtual_detectors.hpp"

#include <limits>
#include <memory>

#include "check.hpp"

using namespace contextem;

namespace {

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

// Three detectors, of which the first two overlap and the last is broken into single pixels.
std::unique_ptr<bool[]> masks_of(Index pixels) {
    std::unique_ptr<bool[]> masks(new bool[at(3 * pixels)]);
    for (Index k = 0; k < pixels; ++k) {
        masks[at(k)] = 4 * k < 3 * pixels;
        masks[at(pixels + k)] = 2 * k > pixels && k % 61 > 13;
        masks[at(2 * pixels + k)] = k % 7 == 3;
    }
    return masks;
}

// Every pixel once in each detector that sees it; also from three threads, and in two blocks with a gap.
template <class T>
void compare(Index pixels) {
    constexpr Index count = 5;
    const Index apart = pixels + 3;
    std::vector<T> values(at(count * apart));
    const std::vector<double> random = numbers(static_cast<int>(count * apart), 1);
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = i % 5 == 0 ? std::numeric_limits<T>::max() : static_cast<T>(100.0 * random[i]);
        if (std::numeric_limits<T>::is_integer && i % 5 == 1) {
            values[i] = std::numeric_limits<T>::lowest();
        } else if (!std::numeric_limits<T>::is_integer && i % 5 == 0) {
            values[i] = T(1e6);
        }
    }
    const std::unique_ptr<bool[]> masks = masks_of(pixels);
    const DetectorZones detectors(masks.get(), 3, pixels);
    const PatternsView<T> view = {values.data(), count, pixels, apart * static_cast<Index>(sizeof(T))};
    std::vector<double> one(at(3 * count));
    std::vector<double> many = one;
    virtual_detectors(view, detectors, 1, one.data());
    virtual_detectors(view, detectors, 3, many.data());
    CHECK(one == many);
    for (Index p = 0; p < count; ++p) {
        for (Index d = 0; d < 3; ++d) {
            double sum = 0;
            for (Index k = 0; k < pixels; ++k) {
                sum += masks[at(d * pixels + k)] ? static_cast<double>(values[at(p * apart + k)]) : 0.0;
            }
            CHECK_NEAR(one[at(3 * p + d)], sum, std::numeric_limits<T>::is_integer ? 0.0 : 1e-12 * std::abs(sum));
        }
    }

    std::vector<double> total(at(pixels), 0.5);
    std::vector<double> parts = total;
    sum_patterns(view, 3, total.data());
    sum_patterns(PatternsView<T>{view.data, 2, pixels, view.pattern_stride}, 1, parts.data());
    sum_patterns(PatternsView<T>{view.data + 2 * apart, 3, pixels, view.pattern_stride}, 1, parts.data());
    CHECK(total == parts);
    for (Index k = 0; k < pixels; ++k) {
        double sum = 0.5;
        for (Index p = 0; p < count; ++p) {
            sum += static_cast<double>(values[at(p * apart + k)]);
        }
        CHECK(total[at(k)] == sum);
    }
}

}  // namespace

int main() {
    for (Index pixels : {1, 7, 8, 9, 31, 32, 63, 64, 65, 1000, 128 * 128, 256 * 257 + 5}) {
        compare<std::int8_t>(pixels);
        compare<std::uint8_t>(pixels);
        compare<std::int16_t>(pixels);
        compare<std::uint16_t>(pixels);
        compare<std::int32_t>(pixels);
        compare<std::uint32_t>(pixels);
        compare<float>(pixels);
        compare<double>(pixels);
    }

    // no detector sees anything
    const bool nothing[4] = {};
    const DetectorZones blind(nothing, 1, 4);
    const std::uint16_t pattern[4] = {1, 2, 3, 4};
    double sum = -1.0;
    virtual_detectors(PatternsView<std::uint16_t>{pattern, 1, 4, 8}, blind, 1, &sum);
    CHECK(sum == 0.0);
    return failures();
}
