#include "contextem/peaks.hpp"

#include <algorithm>
#include <cmath>

#include "check.hpp"
#include "contextem/growth.hpp"
#include "contextem/lattice.hpp"
#include "contextem/points.hpp"
#include "contextem/refine.hpp"

using namespace contextem;

namespace {

template <class T>
ImageView<T> view(const std::vector<T>& values, Index rows, Index columns) {
    return {values.data(), rows, columns, columns, 1};
}

// A bowl r^2 has the Laplacian 4 everywhere, a constant 0: away from the border at least, where the image is mirrored.
template <class T>
void test_response(double tolerance) {
    const Index rows = 41;
    const Index columns = 83;
    std::vector<T> bowl(static_cast<std::size_t>(rows * columns));
    const std::vector<T> flat(bowl.size(), T(7));
    for (Index r = 0; r < rows; ++r) {
        for (Index c = 0; c < columns; ++c) {
            const double y = static_cast<double>(r - 20) / 10.0;
            const double x = static_cast<double>(c - 41) / 10.0;
            bowl[static_cast<std::size_t>(r * columns + c)] = static_cast<T>(y * y + x * x);
        }
    }
    const double sigma = 2.0;
    std::vector<T> response(bowl.size());
    peak_response(view(bowl, rows, columns), sigma, 2, response.data());
    for (Index c = 10; c < columns - 10; ++c) {
        CHECK_NEAR(response[static_cast<std::size_t>(20 * columns + c)], -sigma * sigma * 0.04, 0.01);
    }
    peak_response(view(flat, rows, columns), sigma, 1, response.data());
    CHECK_NEAR(*std::max_element(response.begin(), response.end()), 0.0, 0.02);  // k2 does not sum to 0 quite

    std::vector<T> noise;
    for (const double value : numbers(static_cast<int>(rows * columns), 3)) {
        noise.push_back(static_cast<T>(value));
    }
    peak_response(view(noise, rows, columns), sigma, 1, response.data());
    for (const int threads : {2, 5}) {
        std::vector<T> other(noise.size());
        peak_response(view(noise, rows, columns), sigma, threads, other.data());
        CHECK(other == response);
    }
    // turned about the diagonal, the response turns along; read through strides, it is the same
    std::vector<T> turned(noise.size());
    for (Index r = 0; r < rows; ++r) {
        for (Index c = 0; c < columns; ++c) {
            turned[static_cast<std::size_t>(c * rows + r)] = noise[static_cast<std::size_t>(r * columns + c)];
        }
    }
    std::vector<T> other(noise.size());
    peak_response(ImageView<T>{turned.data(), rows, columns, 1, rows}, sigma, 2, other.data());
    CHECK(other == response);
    peak_response(view(turned, columns, rows), sigma, 2, other.data());
    for (Index r = 0; r < rows; ++r) {
        for (Index c = 0; c < columns; ++c) {
            CHECK_NEAR(other[static_cast<std::size_t>(c * rows + r)],
                       response[static_cast<std::size_t>(r * columns + c)], tolerance);
        }
    }
    const std::vector<T> pixel = {T(3)};
    T single = T(0);
    peak_response(view(pixel, 1, 1), 1.0, 1, &single);
    CHECK_NEAR(single, 0.0, 0.02);
}

void test_maxima() {
    // a peak, a plateau of two pixels, one below 0 and one on the border
    const std::vector<double> image = {
        0, 0, 0, 0, 9, 0, 0,  //
        0, 3, 0, 0, 0, 0, 0,  //
        0, 1, 0, 0, 2, 2, 0,  //
        0, 0, 0, 0, 0, 0, 0,  //
        0, 0, 0, 0, 0, 0, 0,  //
    };
    for (const int threads : {1, 3}) {
        const Maxima maxima = local_maxima(view(image, 5, 7), 0, threads);
        CHECK(maxima.heights == (std::vector<double>{3, 2, 2}));
        CHECK(maxima.positions.size() == 6);
        CHECK_NEAR(maxima.positions[0], 1.0 + 0.1, 1e-12);  // slope 1/2 over bend 5
        CHECK_NEAR(maxima.positions[1], 1.0, 1e-12);
    }
    CHECK(local_maxima(view(image, 2, 7), 0, 1).heights.empty());
    const Maxima lower = local_maxima(ImageView<double>{image.data() + 7, 4, 7, 7, 1}, 1, 1);  // without the first row
    CHECK(lower.heights == (std::vector<double>{2, 2}));
    CHECK_NEAR(lower.positions[0], 2.0, 1e-12);
}

void test_points() {
    std::vector<double> points = numbers(600, 4);
    for (double& value : points) {
        value *= 50.0;
    }
    const PositionsView all = {points.data(), 300};
    const PointGrid grid(all);
    const std::vector<double> sites = numbers(200, 5);
    for (Index s = 0; s < 100; ++s) {
        const double row = 70.0 * sites[static_cast<std::size_t>(2 * s)] - 10.0;
        const double column = 70.0 * sites[static_cast<std::size_t>(2 * s + 1)] - 10.0;
        std::vector<double> distances;
        for (Index p = 0; p < all.count; ++p) {
            const double y = points[static_cast<std::size_t>(2 * p)] - row;
            const double x = points[static_cast<std::size_t>(2 * p + 1)] - column;
            distances.push_back(y * y + x * x);
        }
        std::sort(distances.begin(), distances.end());
        PointGrid::Neighbour near[7];
        grid.nearest(row, column, 7, near);
        for (std::size_t i = 0; i < 7; ++i) {
            CHECK_NEAR(near[i].distance2, distances[i], 1e-12);
        }
        const PointGrid::Neighbour one = grid.nearest(row, column, 4.0);
        CHECK((one.number >= 0) == (distances[0] < 16.0));
        CHECK(one.number < 0 || one.number == near[0].number);
    }
    CHECK(grid.nearest(std::nan(""), 0.0, 1.0).number == -1);
    const double twice[4] = {1.0, 1.0, 1.0, 1.0};  // of equally near points the first one counts
    CHECK(PointGrid({twice, 2}).nearest(1.5, 1.0, 2.0).number == 0);
}

void test_refinement() {
    // three columns that overlap, on a background
    const double truth[6] = {20.3, 20.7, 20.1, 30.4, 29.2, 25.6};
    const double brightness[3] = {1.0, 0.4, 0.7};
    const double width = 2.7;
    std::vector<double> image(50 * 52, 0.3);
    for (Index r = 0; r < 50; ++r) {
        for (Index c = 0; c < 52; ++c) {
            for (int k = 0; k < 3; ++k) {
                const double y = static_cast<double>(r) - truth[2 * k];
                const double x = static_cast<double>(c) - truth[2 * k + 1];
                image[static_cast<std::size_t>(r * 52 + c)] +=
                    brightness[k] * std::exp(-(y * y + x * x) / (2 * width * width));
            }
        }
    }
    double start[6];
    for (int i = 0; i < 6; ++i) {
        start[i] = truth[i] + (i % 2 == 0 ? 0.4 : -0.3);
    }
    const unsigned char movable[3] = {1, 1, 1};
    double positions[6];
    double amplitudes[3];
    double deviations[3];
    const BandSource<double> whole = [&](Index, Index) { return view(image, 50, 52); };
    const double sigma =
        refine_columns(whole, 50, 50, {start, 3}, movable, 2.5, 10.0, 2.0, 1, positions, amplitudes, deviations);
    CHECK_NEAR(sigma, width, 0.02);
    for (const Index tile : {1, 9, 30}) {  // all but the rows asked for are missing
        std::vector<double> rows;
        const BandSource<double> bands = [&](Index first, Index last) {
            rows.assign(image.size(), std::nan(""));
            std::copy(image.begin() + first * 52, image.begin() + last * 52, rows.begin() + first * 52);
            return view(rows, 50, 52);
        };
        double other[6];
        double heights[3];
        double scatter[3];
        const double wide =
            refine_columns(bands, 50, tile, {start, 3}, movable, 2.5, 10.0, 2.0, 1, other, heights, scatter);
        CHECK(wide == sigma);
        CHECK(std::equal(positions, positions + 6, other));
        CHECK(std::equal(deviations, deviations + 3, scatter));
    }
    for (int i = 0; i < 6; ++i) {
        CHECK_NEAR(positions[i], truth[i], 0.01);
    }
    for (int k = 0; k < 3; ++k) {
        CHECK_NEAR(amplitudes[k], brightness[k], 0.02);
        CHECK(deviations[k] > 0.0 && deviations[k] < 0.05);
    }
}

void test_spectrum_of_a_wave() {
    const Index side = 40;
    std::vector<double> image(side * side);
    for (Index r = 0; r < side; ++r) {
        for (Index c = 0; c < side; ++c) {
            const double turns = (6.0 * static_cast<double>(r) + 9.0 * static_cast<double>(c)) / 80.0;
            image[static_cast<std::size_t>(r * side + c)] = 5.0 + std::cos(2.0 * std::acos(-1.0) * turns);
        }
    }
    const SpectrumTables tables(side, side, 80, 16, 0.5);
    const Index corner[2] = {0, 0};
    std::vector<float> power(32 * 32);
    bool varies = false;
    tile_spectra(view(image, side, side), corner, 1, tables, 1, power.data(), &varies);
    CHECK(varies);
    const Index top = std::max_element(power.begin(), power.end()) - power.begin();
    const Index row = top / 32 - 16;
    const Index column = top % 32 - 16;
    CHECK((row == 6 && column == 9) || (row == -6 && column == -9));
    CHECK_NEAR(power[22 * 32 + 25] / power[10 * 32 + 7], 1.0, 1e-5);
}

void test_growth_over_a_perfect_lattice() {
    std::vector<double> points;
    for (Index i = -8; i <= 8; ++i) {
        for (Index j = -8; j <= 8; ++j) {
            points.push_back(50.0 + 6.0 * static_cast<double>(i));
            points.push_back(50.0 + 3.0 * static_cast<double>(i) + 7.0 * static_cast<double>(j));
        }
    }
    const auto count = static_cast<Index>(points.size() / 2);
    const std::vector<double> strength(static_cast<std::size_t>(count), 1.0);
    const PositionsView positions = {points.data(), count};
    const PointGrid grid(positions);
    const double start[2] = {50.0, 50.0};
    const double basis[4] = {6.2, 3.0, 0.0, 6.9};
    const GrownSites grown = grow_sites({grid, positions, strength.data(), 2.0}, start, basis, 100, 100, 2);
    int met = 0;
    for (std::size_t s = 0; s < grown.support.size(); ++s) {
        const Index i = grown.indices[2 * s];
        const Index j = grown.indices[2 * s + 1];
        if (i >= -6 && i <= 6 && j >= -6 && j <= 6 && grown.measured[s]) {
            ++met;
            CHECK_NEAR(grown.predicted[2 * s], 50.0 + 6.0 * static_cast<double>(i), 0.05);
            const double along = 3.0 * static_cast<double>(i) + 7.0 * static_cast<double>(j);
            CHECK_NEAR(grown.predicted[2 * s + 1], 50.0 + along, 0.05);
            CHECK(std::max(std::abs(i), std::abs(j)) > 3 || grown.lopsided[s] < 0.3);
        }
    }
    CHECK(met > 100);
}

}  // namespace

int main() {
    test_response<double>(1e-12);
    test_response<float>(1e-5);
    test_maxima();
    test_points();
    test_refinement();
    test_spectrum_of_a_wave();
    test_growth_over_a_perfect_lattice();
    return failures();
}
