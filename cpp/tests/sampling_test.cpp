#include "contextem/sampling.hpp"

#include <limits>

#include "check.hpp"

using namespace contextem;

int main() {
    CHECK(inside(0.0, 3) && inside(2.0, 3) && !inside(-1e-300, 3) && !inside(2.0000000000000004, 3));
    CHECK(!inside(std::nan(""), 3) && !inside(std::numeric_limits<double>::infinity(), 3) && !inside(0.0, 0));

    CHECK(make_tap(2.25, Interpolation::linear).index == 2 && make_tap(2.25, Interpolation::linear).share == 0.25);
    CHECK(make_tap(2.5, Interpolation::nearest).index == 3 && make_tap(2.5, Interpolation::nearest).share == 0.0);
    CHECK(make_tap(2.25, Interpolation::nearest).index == 2);

    // blend is exact where both values are equal
    CHECK(blend(0.1f, 0.1f, 0.3f) == 0.1f);

    // rows (1 2 3), (5 7 9), read at the centre of four pixels, on the last pixel, and outside
    const double pixels[] = {1, 2, 3, 5, 7, 9};
    const ImageView<double> image = {pixels, 2, 3, 3, 1};
    CHECK_NEAR(read_sample(image, 0.5, 1.5, Interpolation::linear), (2 + 3 + 7 + 9) / 4.0, 0);
    CHECK_NEAR(read_sample(image, 1.0, 2.0, Interpolation::linear), 9, 0);
    CHECK_NEAR(read_sample(image, 0.5, 1.25, Interpolation::nearest), 7, 0);
    CHECK_NEAR(read_sample(image, 1.01, 2.0, Interpolation::linear), 0, 0);
    CHECK_NEAR(read_sample(image, 0.0, -0.01, Interpolation::linear), 0, 0);
    const ImageView<double> transposed = {pixels, 3, 2, 1, 3};
    CHECK_NEAR(read_sample(transposed, 2.0, 0.5, Interpolation::linear), 6, 0);

    // the four planes of a fold carry the four parities: only the matching one survives
    for (int parity = 0; parity < n_parities; ++parity) {
        const double row = row_sign(parity);
        const double column = column_sign(parity);
        const Folded<double> folded = fold(1.0, column, row, row * column);
        for (int plane = 0; plane < n_parities; ++plane) {
            CHECK_NEAR(folded.plane[plane], plane == parity ? 4.0 : 0.0, 0);
        }
    }

    const PatchGrid grid = {5, 2.0, 0.5, -0.5, 3.0, Interpolation::linear};
    CHECK_NEAR(sample_row(grid, 10.0, -2.0, 1.0), 10 - 4 + 0.5, 0);
    CHECK_NEAR(sample_column(grid, 10.0, -2.0, 1.0), 10 + 1 + 3, 0);
    CHECK(!grid.separable() && !grid.unit() && grid.half() == 2.0);

    // two samples inside, between the same pixels: the second reads the next pixel, in either direction
    const PatchGrid fine = {3, 0.75, 0, 0, -0.75, Interpolation::linear};
    for (const double step : {fine.row_by_row, fine.column_by_column}) {
        const LineReach reach = line_reach(fine, 0.0, step, 9);
        CHECK(reach.end - reach.begin == 2 && reach.origin == 0 && reach.width == 2);
    }
    return failures();
}
