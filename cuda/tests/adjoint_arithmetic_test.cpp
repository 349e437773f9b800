// What the CUDA kernels of the adjoint do per block, thread after thread, must give what the C++ kernels give.
#include "adjoint_arithmetic.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "check.hpp"
#include "contextem/adjoint.hpp"
#include "contextem/zernike.hpp"
#include "driver.hpp"

using namespace contextem;

namespace {

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

// patches_kernel, its blocks in reverse order.
template <class T>
void run_patches(const MomentsView<T>& gradient, const cuda::RowsInOrder& rows, const cuda::AdjointTableView<T>& table,
                 T* patches) {
    std::fill(patches, patches + rows.count * table.size * table.size, T(0));
    for (Index number = cuda::adjoint_blocks(rows.count, table.samples); number-- > 0;) {
        const cuda::AdjointBlockIndex block = cuda::adjoint_block(number, table.samples);
        std::vector<cuda::AdjointSums<T>> sums(cuda::adjoint_threads, cuda::AdjointSums<T>{});
        for (Index start = 0; start < table.n_modes; start += cuda::mode_strip) {
            const int n = static_cast<int>(std::min<Index>(cuda::mode_strip, table.n_modes - start));
            T coefficients[cuda::mode_strip * cuda::adjoint_group];
            std::fill(std::begin(coefficients), std::end(coefficients), std::numeric_limits<T>::quiet_NaN());
            for (int thread = 0; thread < cuda::adjoint_threads; ++thread) {
                cuda::stage_coefficients(gradient, rows, block.first_patch, table, start, n, thread, coefficients);
            }
            for (int thread = 0; thread < cuda::adjoint_threads; ++thread) {
                if (block.first_sample + thread < table.samples) {
                    cuda::add_modes(table, block.first_sample + thread, start, n, coefficients, sums[at(thread)]);
                }
            }
        }
        for (int thread = 0; thread < cuda::adjoint_threads; ++thread) {
            for (int slot = 0; slot < cuda::adjoint_group; ++slot) {
                if (block.first_sample + thread < table.samples && block.first_patch + slot < rows.count) {
                    cuda::unfold(table, block.first_sample + thread, sums[at(thread)], slot,
                                 patches + (block.first_patch + slot) * table.size * table.size);
                }
            }
        }
    }
}

// column_moments_adjoint, with `part` patches in memory at once.
template <class T>
std::vector<T> run_image(const MomentsView<T>& gradient, const PositionsView& positions, const PatchGrid& grid,
                         const cuda::AdjointTableView<T>& table, Index rows, Index columns, Index part) {
    const cuda::Bins bins(rows, columns, grid);
    std::vector<std::int32_t> order(at(positions.count));
    std::iota(order.begin(), order.end(), 0);
    std::vector<std::int32_t> bin;
    for (Index p = 0; p < positions.count; ++p) {
        bin.push_back(bins.of(positions.data + 2 * p));
        CHECK(bin.back() >= 0 && bin.back() < bins.count());
    }
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return bin[at(a)] < bin[at(b)]; });
    std::vector<std::int32_t> sorted;
    for (const std::int32_t p : order) {
        sorted.push_back(bin[at(p)]);
    }
    std::vector<std::int32_t> starts;
    for (Index number = 0; number <= bins.count(); ++number) {
        starts.push_back(static_cast<std::int32_t>(cuda::first_in_bin(sorted.data(), positions.count, number)));
    }
    CHECK(starts.front() == 0 && starts.back() == positions.count);

    std::vector<T> image(at(rows * columns), T(0));
    for (Index begin = 0; begin < positions.count; begin += part) {
        const Index end = std::min(begin + part, positions.count);
        std::vector<T> patches(at((end - begin) * grid.size * grid.size));
        run_patches(gradient, cuda::RowsInOrder{order.data(), begin, end - begin}, table, patches.data());
        for (Index tile = bins.count(); tile-- > 0;) {
            const Index top = tile / bins.across;
            const Index left = tile % bins.across;
            const cuda::BinRange around = cuda::bins_around(bins, top, left);
            for (Index row = top * cuda::bin_rows; row < std::min((top + 1) * cuda::bin_rows, rows); ++row) {
                for (Index column = left * cuda::bin_columns;
                     column < std::min((left + 1) * cuda::bin_columns, columns); ++column) {
                    T& pixel = image[at(row * columns + column)];
                    pixel = cuda::gather_columns(patches.data(), begin, end, order.data(), starts.data(), positions,
                                                 grid, cuda::invert(grid), bins, around, row, column, pixel);
                }
            }
        }
    }
    return image;
}

template <class T>
std::vector<double> run_slopes(const MomentsView<T>& gradient, const ImageView<T>& image,
                               const PositionsView& positions, const PatchGrid& grid,
                               const cuda::AdjointTableView<T>& table) {
    std::vector<T> patches(at(positions.count * grid.size * grid.size));
    run_patches(gradient, cuda::RowsInOrder{nullptr, 0, positions.count}, table, patches.data());
    std::vector<double> slopes;
    for (Index p = 0; p < positions.count; ++p) {
        cuda::Slope lane[cuda::warp_lanes];
        for (int i = 0; i < cuda::warp_lanes; ++i) {
            lane[i] =
                cuda::lane_slope(image, positions.data + 2 * p, grid, patches.data() + p * grid.size * grid.size, i);
        }
        for (int distance = cuda::warp_lanes / 2; distance > 0; distance /= 2) {
            for (int i = 0; i < distance; ++i) {
                lane[i].along_rows += lane[i + distance].along_rows;
                lane[i].along_columns += lane[i + distance].along_columns;
            }
        }
        slopes.push_back(lane[0].along_rows);
        slopes.push_back(lane[0].along_columns);
    }
    return slopes;
}

template <class T>
void compare(const std::vector<T>& found, const std::vector<T>& expected, double tolerance) {
    double largest = 0;
    for (const T value : expected) {
        largest = std::max(largest, std::abs(static_cast<double>(value)));
    }
    CHECK(found.size() == expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
        CHECK_NEAR(static_cast<double>(found[i]), static_cast<double>(expected[i]), tolerance * largest + 1e-300);
    }
}

template <class T>
void patches_and_columns(int size, int n_max, bool with_parity, double tolerance) {
    std::vector<double> weights = integrated_weights(n_max, size);
    if (!with_parity) {
        weights[1] += 1.0;
    }
    const Index modes = mode_count(n_max);
    const AdjointTable<T> host(weights.data(), modes, size);
    CHECK(host.folded == with_parity);
    const cuda::PackedAdjoint<T> packed(host);
    const cuda::AdjointTableView<T> table = packed.at(packed.weights.data(), packed.indices.data());
    CHECK(table.first[n_parities] == modes);

    constexpr Index count = 45;  // groups of eight, and a part
    constexpr Index rows = 53;
    constexpr Index columns = 71;
    std::vector<T> values;
    for (const double value : numbers(static_cast<int>(2 * count * modes), 1)) {
        values.push_back(static_cast<T>(value - 0.4));
    }
    const MomentsView<T> gradient = {values.data(), count, modes, 2 * modes, 2};  // strided
    std::vector<T> patches(at(count * size * size));
    std::vector<T> expected = patches;
    run_patches(gradient, cuda::RowsInOrder{nullptr, 0, count}, table, patches.data());
    patch_moments_adjoint(gradient, host, 1, expected.data());
    compare(patches, expected, tolerance);

    std::vector<double> centres = numbers(2 * count, 2);
    for (Index p = 0; p < count; ++p) {  // inside, at and beyond the border, some on pixels
        double* centre = centres.data() + 2 * p;
        centre[0] = 70.0 * centre[0] - 8.0;
        centre[1] = 90.0 * centre[1] - 9.0;
        if (p % 3 == 0) {
            centre[0] = std::floor(centre[0]) + 0.5 * (size % 2 == 0);
            centre[1] = std::floor(centre[1]) + 0.5 * (size % 2 == 0);
        }
    }
    centres[8] = centres[10] = centres[12] = 20.25;  // several in one place
    centres[9] = centres[11] = centres[13] = 30.75;
    centres[30] = 1e300;
    centres[33] = -1e300;
    const PositionsView positions = {centres.data(), count};
    std::vector<T> pixels;
    for (const double value : numbers(static_cast<int>(rows * 2 * columns), 3)) {
        pixels.push_back(static_cast<T>(value));
    }
    const ImageView<T> image = {pixels.data(), rows, columns, 2 * columns, 2};
    for (const Interpolation interpolation : {Interpolation::linear, Interpolation::nearest}) {
        for (const PatchGrid grid :
             {PatchGrid{size, 1, 0, 0, 1, interpolation}, PatchGrid{size, 0.3, 0, 0, 0.3, interpolation},
              PatchGrid{size, 2.75, 0, 0, -1.5, interpolation}, PatchGrid{size, 0, 1, -1, 0, interpolation},
              PatchGrid{size, 0.8, 0.3, -0.3, 0.8, interpolation}, PatchGrid{size, 0.5, 0.5, 0.1, 0.7, interpolation},
              PatchGrid{size, 40, 3, 0, 30, interpolation}}) {
            std::vector<T> whole(at(rows * columns));
            column_moments_adjoint(gradient, positions, grid, host, rows, columns, 1, whole.data());
            const std::vector<T> found = run_image(gradient, positions, grid, table, rows, columns, 8);
            compare(found, whole, 4 * tolerance);
            CHECK(found == run_image(gradient, positions, grid, table, rows, columns, 24));  // to the last bit
            std::vector<double> slopes(at(2 * count));
            column_moments_position_gradient(gradient, image, positions, grid, host, 1, slopes.data());
            compare(run_slopes(gradient, image, positions, grid, table), slopes, 4 * tolerance);
        }
    }
}

void positions_that_are_no_numbers() {
    const std::vector<double> weights = integrated_weights(2, 8);
    const AdjointTable<double> host(weights.data(), 6, 8);
    const cuda::PackedAdjoint<double> packed(host);
    const cuda::AdjointTableView<double> table = packed.at(packed.weights.data(), packed.indices.data());
    const double nan = std::nan("");
    const double centres[] = {nan, 5.0, 9.0, 9.0};
    const std::vector<double> ones(12, 1.0);
    const std::vector<double> pixels(20 * 20, 1.0);
    const MomentsView<double> gradient = {ones.data(), 2, 6, 6, 1};
    const PatchGrid grid = {8, 1, 0, 0, 1, Interpolation::linear};
    const std::vector<double> slopes =
        run_slopes(gradient, ImageView<double>{pixels.data(), 20, 20, 20, 1}, PositionsView{centres, 2}, grid, table);
    CHECK(std::isnan(slopes[0]) && std::isnan(slopes[1]) && !std::isnan(slopes[2]) && !std::isnan(slopes[3]));
    std::vector<double> alone(400);
    column_moments_adjoint(MomentsView<double>{ones.data() + 6, 1, 6, 6, 1}, PositionsView{centres + 2, 1}, grid, host,
                           20, 20, 1, alone.data());
    compare(run_image(gradient, PositionsView{centres, 2}, grid, table, 20, 20, 8), alone, 1e-14);
}

void scratch() {
    const cuda::AdjointScratch layout(1000, 77, 5000, 4096);
    const std::size_t offsets[] = {layout.bins,   layout.sorted,  layout.numbers, layout.order,
                                   layout.starts, layout.sorting, layout.patches, layout.total};
    const std::size_t sizes[] = {4000, 4000, 4000, 4000, 78 * 4, 5000, 4096};
    for (std::size_t i = 0; i < 7; ++i) {
        CHECK(offsets[i] % 256 == 0 && offsets[i] + sizes[i] <= offsets[i + 1]);
    }
    CHECK(cuda::patches_at_once<float>(5, 32) == 8);
    CHECK(cuda::patches_at_once<float>(Index(1) << 30, 32) * 32 * 32 * 4 <= Index(cuda::patch_scratch));
    CHECK(cuda::patches_at_once<double>(100, 4096) == 8);
    CHECK(cuda::patches_at_once<double>(0, 9) == 0);
}

void drivers() {
    CHECK(cuda::driver_sentence(12040, 13000).find("the driver supports CUDA 12.4, this build needs 13.0 or newer") !=
          std::string::npos);
    CHECK(cuda::driver_sentence(0, 13000).find("no CUDA driver is installed") != std::string::npos);
}

}  // namespace

int main() {
    for (const int size : {3, 8, 17, 32}) {
        patches_and_columns<double>(size, 6, true, 1e-14);
        patches_and_columns<float>(size, 6, true, 5e-6);
    }
    patches_and_columns<double>(16, 12, true, 1e-14);  // two strips of modes
    patches_and_columns<double>(9, 6, false, 1e-14);
    positions_that_are_no_numbers();
    scratch();
    drivers();
    return failures();
}
