#include "contextem/adjoint.hpp"

#include "check.hpp"
#include "contextem/moments.hpp"
#include "contextem/zernike.hpp"

using namespace contextem;

namespace {

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

// Patches by the definition: every gradient times every weight; also from three threads.
template <class T>
void compare_patches(int size, bool with_parity, double tolerance) {
    const Index modes = mode_count(8);
    const std::vector<double> weights =
        with_parity ? integrated_weights(8, size) : numbers(static_cast<int>(modes) * size * size, 3);
    const AdjointTable<T> table(weights.data(), modes, size);
    CHECK(table.folded == with_parity);

    const int count = 37;  // three panels and a part
    const std::vector<double> values = numbers(count * static_cast<int>(modes), 4);
    const std::vector<T> gradient(values.begin(), values.end());
    std::vector<T> one(at(count * size * size));
    std::vector<T> many = one;
    const MomentsView<T> view = {gradient.data(), count, modes, modes, 1};
    patch_moments_adjoint(view, table, 1, one.data());
    patch_moments_adjoint(view, table, 3, many.data());
    CHECK(one == many);
    for (Index p = 0; p < count; ++p) {
        for (Index i = 0; i < size * size; ++i) {
            double sum = 0;
            double scale = 0;
            for (Index j = 0; j < modes; ++j) {
                const double weight = weights[at(j * size * size + i)];
                sum += weight * static_cast<double>(gradient[at(p * modes + j)]);
                scale += std::abs(weight);
            }
            CHECK_NEAR(static_cast<double>(one[at(p * size * size + i)]), sum, tolerance * scale);
        }
    }
}

// <moments(I), g> = <I, adjoint(g)>, and the same bits from any number of threads.
void compare_images(const PatchGrid& grid) {
    constexpr Index rows = 90;
    constexpr Index columns = 70;
    constexpr Index count = 300;
    const Index modes = mode_count(5);
    const std::vector<double> weights = integrated_weights(5, static_cast<int>(grid.size));
    const AdjointTable<double> adjoint(weights.data(), modes, grid.size);
    const MomentTable<double> table(weights.data(), modes, grid.size);
    const std::vector<double> image = numbers(rows * columns, 1);
    const std::vector<double> gradient = numbers(static_cast<int>(count * modes), 2);
    std::vector<double> centres = numbers(2 * count, 3);
    for (double& coordinate : centres) {
        coordinate = 100.0 * coordinate - 5.0;
    }
    const PositionsView positions = {centres.data(), count};
    const MomentsView<double> view = {gradient.data(), count, modes, modes, 1};

    std::vector<double> moments(at(count * modes));
    column_moments(ImageView<double>{image.data(), rows, columns, columns, 1}, positions, grid, table, 1,
                   moments.data());
    std::vector<double> one(at(rows * columns), 7.0);
    std::vector<double> many = one;
    column_moments_adjoint(view, positions, grid, adjoint, rows, columns, 1, one.data());
    column_moments_adjoint(view, positions, grid, adjoint, rows, columns, 5, many.data());
    CHECK(one == many);
    double forward = 0;
    double backward = 0;
    for (std::size_t i = 0; i < moments.size(); ++i) {
        forward += moments[i] * gradient[i];
    }
    for (std::size_t i = 0; i < image.size(); ++i) {
        backward += image[i] * one[i];
    }
    CHECK_NEAR(forward, backward, 1e-12 * std::abs(forward));
}

}  // namespace

int main() {
    for (int size : {3, 8, 17, 32, 33}) {
        for (bool with_parity : {true, false}) {
            compare_patches<float>(size, with_parity, 16 * 1.2e-7);
            compare_patches<double>(size, with_parity, 16 * 2.3e-16);
        }
    }
    for (const Interpolation interpolation : {Interpolation::linear, Interpolation::nearest}) {
        for (Index size : {7, 8}) {
            compare_images({size, 1, 0, 0, 1, interpolation});
            compare_images({size, 0.6, 0, 0, 1.7, interpolation});
            compare_images({size, 0, 1, -1, 0, interpolation});
            compare_images({size, 0.8, 0.3, -0.3, 0.8, interpolation});
            compare_images({size, 9, 0, 0, -9, interpolation});
        }
    }

    // far outside, and on an image of one pixel
    const std::vector<double> weights = integrated_weights(2, 8);
    const AdjointTable<double> table(weights.data(), mode_count(2), 8);
    const double centres[] = {1e300, -1e300, 0.5, 0.5};
    const std::vector<double> ones(2 * 6, 1.0);
    double pixel = -1.0;
    column_moments_adjoint(MomentsView<double>{ones.data(), 2, 6, 6, 1}, PositionsView{centres, 2},
                           PatchGrid{8, 1, 0, 0, 1, Interpolation::linear}, table, 1, 1, 0, &pixel);
    double expected = 0;
    for (Index j = 0; j < 6; ++j) {
        expected += weights[at(j * 64 + 3 * 8 + 3)];
    }
    CHECK_NEAR(pixel, expected, 1e-16);

    // on a ramp of slopes (2, -3), each position's slope is that times the sum of its gradient's patch
    std::vector<double> ramp(40 * 50);
    for (Index i = 0; i < 40 * 50; ++i) {
        ramp[at(i)] = 2.0 * static_cast<double>(i / 50) - 3.0 * static_cast<double>(i % 50);
    }
    const double inner[] = {20.3, 19.6, 14.0, 31.0};
    const double first_mode[] = {1, 0, 0, 0, 0, 0, 0.5, 0, 0, 0, 0, 0};
    std::vector<double> slopes(4);
    column_moments_position_gradient(MomentsView<double>{first_mode, 2, 6, 6, 1},
                                     ImageView<double>{ramp.data(), 40, 50, 50, 1}, PositionsView{inner, 2},
                                     PatchGrid{8, 1, 0, 0, 1, Interpolation::linear}, table, 1, slopes.data());
    CHECK_NEAR(slopes[0], 2.0, 1e-13);
    CHECK_NEAR(slopes[1], -3.0, 1e-13);
    CHECK_NEAR(slopes[2], 1.0, 1e-13);
    CHECK_NEAR(slopes[3], -1.5, 1e-13);
    return failures();
}
