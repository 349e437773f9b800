#include "contextem/lattice.hpp"

#include <array>
#include <complex>

#include "check.hpp"

using namespace contextem;

constexpr Index rows = 26;
constexpr Index columns = 31;
constexpr Index pad = 64;
constexpr Index centre = 24;
constexpr Index side = 2 * centre;
const double pi = std::acos(-1.0);

// Spots of the hexagon with the first one at `radius` (cycles/px) and `angle` from rows to columns.
std::array<double, 2> spot(double radius, double angle, int sixth) {
    const double turn = angle + sixth * pi / 3;
    return {radius * std::cos(turn), radius * std::sin(turn)};
}

// An image (2 rows, columns): a lattice of bright columns above, one value below.
std::vector<double> lattice_above_nothing(double radius, double angle) {
    std::vector<double> image(static_cast<std::size_t>(2 * rows * columns), 3.0);
    for (Index r = 0; r < rows; ++r) {
        for (Index c = 0; c < columns; ++c) {
            for (int order = 0; order < 2; ++order) {
                for (int third = 0; third < 3; ++third) {
                    const double longer = order == 0 ? 1.0 : std::sqrt(3.0);
                    const auto [down, right] = spot(longer * radius, angle + order * pi / 6, third);
                    const double phase = 2 * pi * (down * static_cast<double>(r) + right * static_cast<double>(c));
                    image[static_cast<std::size_t>(r * columns + c)] += std::cos(phase) / (1 + order);
                }
            }
        }
    }
    return image;
}

// Power of the tile about its mean, under Hann windows, at one bin: the sum as it is defined.
double power_at(const std::vector<double>& image, Index v, Index u) {
    double mean = 0;
    for (Index i = 0; i < rows * columns; ++i) {
        mean += image[static_cast<std::size_t>(i)] / static_cast<double>(rows * columns);
    }
    std::complex<double> sum = 0;
    for (Index r = 0; r < rows; ++r) {
        for (Index c = 0; c < columns; ++c) {
            const double down = std::sin(pi * static_cast<double>(r + 1) / static_cast<double>(rows + 1));
            const double right = std::sin(pi * static_cast<double>(c + 1) / static_cast<double>(columns + 1));
            const double value = (image[static_cast<std::size_t>(r * columns + c)] - mean) * std::pow(down * right, 2);
            sum += std::polar(value, -2 * pi * static_cast<double>(v * r + u * c) / static_cast<double>(pad));
        }
    }
    return std::norm(sum);
}

int main() {
    const double radius = 0.17;
    const double angle = 0.3;
    const std::vector<double> image = lattice_above_nothing(radius, angle);
    const Index corners[] = {0, 0, rows, 0};
    const SpectrumTables tables(rows, columns, pad, centre, 0.1);  // so narrow a blur is none
    std::vector<float> power(2 * side * side);
    std::vector<float> threaded = power;
    bool varies[2];
    const ImageView<double> view = {image.data(), 2 * rows, columns, columns, 1};
    tile_spectra(view, corners, 2, tables, 1, power.data(), varies);
    tile_spectra(view, corners, 2, tables, 3, threaded.data(), varies);
    CHECK(power == threaded);
    CHECK(varies[0] && !varies[1]);
    double greatest = 0;
    for (Index v = -centre; v < centre; ++v) {
        for (Index u = -centre; u < centre; ++u) {
            greatest = std::max(greatest, power_at(image, v, u));
        }
    }
    for (Index v = -centre; v < centre; ++v) {
        for (Index u = -centre; u < centre; ++u) {
            const auto bin = static_cast<std::size_t>((v + centre) * side + u + centre);
            CHECK_NEAR(power[bin], power_at(image, v, u), 1e-5 * greatest);
            CHECK(power[bin + side * side] == 0.0f);
        }
    }

    // single precision, and a blur that keeps the sum of all bins, as little lies at the edge
    const std::vector<float> single(image.begin(), image.end());
    const SpectrumTables blurring(rows, columns, pad, centre, 1.5);
    std::vector<float> blurred(side * side);
    tile_spectra(ImageView<float>{single.data(), 2 * rows, columns, columns, 1}, corners, 1, blurring, 1,
                 blurred.data(), varies);
    double before = 0;
    double after = 0;
    for (std::size_t i = 0; i < blurred.size(); ++i) {
        before += static_cast<double>(power[i]);
        after += static_cast<double>(blurred[i]);
    }
    CHECK_NEAR(after / before, 1.0, 0.02);

    // the score is highest at the radius and the angle of the lattice, and nowhere where there is none
    std::vector<double> radii;
    std::vector<double> angles;
    for (int i = 0; i < 9; ++i) {
        radii.push_back(radius * (0.8 + 0.05 * i));
    }
    for (int i = 0; i < 20; ++i) {
        angles.push_back(angle + (i - 10) * pi / 60);
    }
    std::vector<double> scores(2 * radii.size() * angles.size());
    spoke_scores(power.data(), 2, centre, {9, 20, radii.data(), angles.data(), static_cast<double>(pad)}, 2,
                 scores.data());
    std::size_t best = 0;
    for (std::size_t i = 0; i < radii.size() * angles.size(); ++i) {
        best = scores[i] > scores[best] ? i : best;
        CHECK(scores[i + radii.size() * angles.size()] == 0.0);
    }
    CHECK(best == 4 * angles.size() + 10);

    // spots to a tenth of a bin; without any, those that were expected
    const double expected[] = {1.04 * radius, radius};
    const double turned[] = {angle + 0.03, angle};
    std::vector<double> spots(12);
    hexagon_spots(power.data(), 2, centre, static_cast<double>(pad), expected, turned, 1, spots.data());
    for (int third = 0; third < 3; ++third) {
        const std::array<double, 2> exact = spot(radius, angle, 2 * third);
        for (std::size_t axis = 0; axis < 2; ++axis) {
            const std::size_t place = 2 * static_cast<std::size_t>(third) + axis;
            CHECK_NEAR(spots[place], static_cast<double>(pad) * exact[axis], 0.1);
            CHECK_NEAR(spots[6 + place], static_cast<double>(pad) * exact[axis], 1e-9);
        }
    }
    return failures();
}
