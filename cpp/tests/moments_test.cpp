#include "contextem/moments.hpp"

#include "check.hpp"
#include "contextem/patches.hpp"
#include "contextem/zernike.hpp"

using namespace contextem;

// Moments by the definition: every weight times every sample.
template <class T>
void compare(int size, bool with_parity, double tolerance) {
    const Index modes = mode_count(8);
    std::vector<double> weights = integrated_weights(8, size);
    if (!with_parity) {
        weights = numbers(static_cast<int>(modes) * size * size, 3);
    }
    const MomentTable<T> table(weights.data(), modes, size);
    CHECK(table.folded == with_parity);

    const int count = 37;  // three panels and a part
    const std::vector<double> values = numbers(count * size * size, 4);
    const std::vector<T> patches(values.begin(), values.end());
    std::vector<T> one(static_cast<std::size_t>(count * modes));
    std::vector<T> many = one;
    const PatchesView<T> view = {patches.data(), count, size, Index(size) * size, size, 1};
    patch_moments(view, table, 1, one.data());
    patch_moments(view, table, 3, many.data());
    CHECK(one == many);
    for (Index p = 0; p < count; ++p) {
        for (Index j = 0; j < modes; ++j) {
            double sum = 0;
            double scale = 0;
            for (Index i = 0; i < size * size; ++i) {
                const double weight = weights[static_cast<std::size_t>(j * size * size + i)];
                sum += weight * static_cast<double>(patches[static_cast<std::size_t>(p * size * size + i)]);
                scale += std::abs(weight);
            }
            CHECK_NEAR(static_cast<double>(one[static_cast<std::size_t>(p * modes + j)]), sum, tolerance * scale);
        }
    }
}

// Moments at every pixel are those of columns at the same places.
template <class T>
void compare_dense(int size, double tolerance) {
    constexpr Index rows = 21;
    constexpr Index columns = 50;  // a panel and a part
    const Index modes = mode_count(4);
    const MomentTable<T> table(integrated_weights(4, size).data(), modes, size);
    const std::vector<double> values = numbers(static_cast<int>(rows * columns), 5);
    const std::vector<T> pixels(values.begin(), values.end());
    const ImageView<T> image = {pixels.data(), rows, columns, columns, 1};
    std::vector<double> places;
    for (Index row = 0; row < rows; ++row) {
        for (Index column = 0; column < columns; ++column) {
            const double beside = size % 2 == 0 ? 0.5 : 0.0;  // the middle of an even patch lies between pixels
            places.insert(places.end(), {static_cast<double>(row) + beside, static_cast<double>(column) + beside});
        }
    }
    std::vector<T> expected(static_cast<std::size_t>(rows * columns * modes));
    std::vector<T> dense = expected;
    std::vector<T> threaded = expected;
    column_moments(image, PositionsView{places.data(), rows * columns},
                   PatchGrid{size, 1, 0, 0, 1, Interpolation::linear}, table, 1, expected.data());
    dense_moments(image, table, 1, dense.data());
    dense_moments(image, table, 3, threaded.data());
    CHECK(dense == threaded);
    for (std::size_t i = 0; i < dense.size(); ++i) {
        CHECK_NEAR(static_cast<double>(dense[i]), static_cast<double>(expected[i]), tolerance);
    }
}

int main() {
    for (int size : {3, 8, 13}) {
        compare_dense<float>(size, 64 * 1.2e-7);
        compare_dense<double>(size, 64 * 2.3e-16);
    }
    for (int size : {3, 8, 17, 32, 33}) {
        for (bool with_parity : {true, false}) {
            compare<float>(size, with_parity, 16 * 1.2e-7);
            compare<double>(size, with_parity, 16 * 2.3e-16);
        }
    }

    // modes of even order are folded onto octants: 113 pairs of samples for 21 modes, 101 of two samples for 15; the
    // other 30 modes have the 214 samples of a quadrant
    const std::vector<double> usual = integrated_weights(10, 32);
    CHECK(MomentTable<float>(usual.data(), mode_count(10), 32).multiply_adds() == 113 * 21 + 101 * 15 + 214 * 30);

    // far outside, on one pixel, and on an image smaller than the patch
    const std::vector<double> weights = integrated_weights(2, 8);
    const MomentTable<double> table(weights.data(), mode_count(2), 8);
    const double pixel = 2.0;
    const double centres[] = {1e300, -1e300, 0.5, 0.5};
    std::vector<double> moments(2 * 6, -1.0);
    column_moments(ImageView<double>{&pixel, 1, 1, 1, 1}, PositionsView{centres, 2},
                   PatchGrid{8, 1, 0, 0, 1, Interpolation::linear}, table, 0, moments.data());
    CHECK_NEAR(moments[0], 0, 0);
    CHECK_NEAR(moments[6], 2.0 * weights[3 * 8 + 3], 1e-16);
    return failures();
}
