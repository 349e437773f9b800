// The blocks of the moments kernel, thread by thread between its barriers, must give what the C++ kernels give.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "check.hpp"
#include "contextem/moments.hpp"
#include "contextem/zernike.hpp"
#include "moment_tile.hpp"

using namespace contextem;

// Values before the next address that is a multiple of 16 bytes.
template <class T>
Index to_alignment(const T* address) {
    return static_cast<Index>((16 - reinterpret_cast<std::uintptr_t>(address) % 16) % 16 / sizeof(T));
}

template <class T, class Stage>
std::vector<T> emulate(const Stage& stage, const cuda::DeviceTableView<T>& table) {
    using Tile = cuda::Tile<T>;
    const T unwritten = std::numeric_limits<T>::quiet_NaN();
    std::vector<T> moments(static_cast<std::size_t>(stage.count() * table.n_modes), unwritten);
    const int threads = std::max(cuda::fewest_threads, table.most_groups * cuda::lanes);
    for (Index first_patch = 0; first_patch < stage.count(); first_patch += Tile::patches) {
        for (int y = 0; y < table.n_blocks; ++y) {
            const cuda::GroupBlock block = table.blocks[y];
            // what a thread reads without having been written in this strip is a NaN
            std::vector<T> panels(Tile::values + 4, unwritten);
            T* const shared = panels.data() + to_alignment(panels.data());
            std::vector<cuda::PatchCorner<T>> corners;
            auto kind = cuda::TileKind::on_pixels;
            if constexpr (Stage::keeps_corners) {
                bool elsewhere = false;
                bool on = true;
                bool between = true;
                for (int i = 0; i < Tile::patches; ++i) {
                    corners.push_back(stage.corner(std::min(first_patch + i, stage.count() - 1)));
                    elsewhere = elsewhere || corners.back().pixel == nullptr;
                    on = on && corners.back().on_pixels();
                    between = between && corners.back().between_pixels();
                }
                kind = cuda::tile_kind(elsewhere, on, between);
            }
            std::vector<cuda::Sums<T>> sums(static_cast<std::size_t>(threads), cuda::Sums<T>{});
            std::vector<typename Stage::Held> held(static_cast<std::size_t>(threads));
            const int strips = cuda::strip_count(table.n_quads);
            for (int strip = -1; strip < strips; ++strip) {
                T* const here = shared + strip % 2 * Tile::panel;
                T* const next = shared + (strip + 1) % 2 * Tile::panel;
                for (int t = 0; t < threads && strip + 1 < strips; ++t) {
                    const auto i = static_cast<std::size_t>(t);
                    stage.fetch(table, first_patch, strip + 1, t, threads, held[i]);
                }
                for (int t = 0; t < block.n_groups * cuda::lanes && strip >= 0; ++t) {
                    const auto& group = table.groups[block.first_group + t / cuda::lanes];
                    cuda::multiply_strip<1>(table, group, strip, t % cuda::lanes, here,
                                            sums[static_cast<std::size_t>(t)]);
                }
                if (strip >= 0) {
                    std::fill(here, here + Tile::panel, unwritten);
                }
                for (int t = threads; t-- > 0 && strip + 1 < strips;) {
                    const auto i = static_cast<std::size_t>(t);
                    stage.put(table, first_patch, strip + 1, t, threads, corners.data(), kind, held[i], next);
                }
            }
            for (int first = 0; first < Tile::patches; first += cuda::patches_at_once<T>(block)) {
                std::fill(shared, shared + Tile::values, unwritten);
                for (int t = 0; t < block.n_groups * cuda::lanes; ++t) {
                    const auto& group = table.groups[block.first_group + t / cuda::lanes];
                    put_sums(block, group, first, t % cuda::lanes, sums[static_cast<std::size_t>(t)], shared);
                }
                for (int t = 0; t < threads; ++t) {
                    write_moments(table, block, first_patch, first, stage.count(), t, threads, shared, moments.data());
                }
            }
        }
    }
    return moments;
}

// Largest distance from the moments of the same pixels in double precision, in rounding errors of T.
template <class T>
void compare(const std::vector<T>& found, const std::vector<double>& expected, const std::vector<double>& weights,
             Index modes) {
    const Index pixels = static_cast<Index>(weights.size()) / modes;
    double worst = 0.0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        double largest = 0.0;
        const double* w = weights.data() + static_cast<Index>(i) % modes * pixels;
        for (Index k = 0; k < pixels; ++k) {
            largest += std::abs(w[k]);
        }
        const double error = std::abs(static_cast<double>(found[i]) - expected[i]) / largest;
        worst = error <= worst ? worst : error;  // a NaN counts
    }
    CHECK_NEAR(worst / static_cast<double>(std::numeric_limits<T>::epsilon()), 0.0, 8.0);
}

enum class Spread { on_pixels, between_pixels, on_rows, anywhere };

// Positions whose patches of scale 1 lie on the pixels of an image, between them along both axes or only along the
// columns, or inside, at and beyond the border.
std::vector<double> positions_in(Index rows, Index columns, Index size, Index count, Spread spread) {
    std::vector<double> centres = numbers(static_cast<int>(2 * count), 2);
    const double half = 0.5 * static_cast<double>(size - 1);
    for (std::size_t i = 0; i < centres.size(); ++i) {
        const double extent = static_cast<double>(i % 2 == 0 ? rows : columns);
        if (spread == Spread::anywhere) {
            centres[i] = 1.2 * extent * centres[i] - 0.1 * extent;
        } else {
            centres[i] = half + 0.25 + (extent - 2.0 * half - 1.5) * centres[i];
        }
        const bool on_pixel = spread == Spread::on_pixels || (spread == Spread::on_rows && i % 2 == 0) ||
                              (spread == Spread::anywhere && i / 2 % 3 == 0);
        if (on_pixel) {
            centres[i] = std::floor(centres[i] - half) + half;
        }
    }
    return centres;
}

template <class T>
void columns_and_patches(int n_max, Index size, Index count, bool with_parity = true) {
    std::vector<double> weights = integrated_weights(n_max, static_cast<int>(size));
    const Index modes = mode_count(n_max);
    if (!with_parity) {
        weights[static_cast<std::size_t>(size * size / 2 + size / 3)] += 1e-3;
    }
    const MomentTable<double> reference(weights.data(), modes, size);
    const MomentTable<T> host(weights.data(), modes, size);
    CHECK(host.folded == with_parity);
    const cuda::PackedTable<T> packed(host);
    const std::vector<unsigned char> bytes = packed.bytes();
    const cuda::DeviceTableView<T> table = packed.view(bytes.data());

    const Index rows = 2 * size + 30;
    const Index columns = 2 * size + 21;
    std::vector<T> pixels;
    for (const double value : numbers(static_cast<int>(2 * rows * columns), 1)) {
        pixels.push_back(static_cast<T>(value));
    }
    const std::vector<double> exact(pixels.begin(), pixels.end());
    std::vector<double> expected(static_cast<std::size_t>(count * modes));
    for (const Spread spread : {Spread::on_pixels, Spread::between_pixels, Spread::on_rows, Spread::anywhere}) {
        const std::vector<double> centres = positions_in(rows, columns, size, count, spread);
        const PositionsView positions = {centres.data(), count};
        for (const PatchGrid grid :
             {PatchGrid{size, 1, 0, 0, 1, Interpolation::linear}, PatchGrid{size, 1, 0, 0, 1, Interpolation::nearest},
              PatchGrid{size, 0.7, 0, 0, 0.7, Interpolation::linear},
              PatchGrid{size, 0.8, 0.3, -0.3, 0.8, Interpolation::linear}}) {
            for (const Index step : {Index(1), Index(2)}) {  // pixels beside each other, and apart
                const ImageView<T> image = {pixels.data(), rows, columns, 2 * columns, step};
                column_moments(ImageView<double>{exact.data(), rows, columns, 2 * columns, step}, positions, grid,
                               reference, 1, expected.data());
                const cuda::SampleStage<T, cuda::ColumnSamples<T>> stage = {{{image, positions, grid}}};
                compare(emulate(stage, table), expected, weights, modes);
                if (grid.unit() && grid.interpolation == Interpolation::linear && spread != Spread::anywhere) {
                    for (Index p = 0; p < count; ++p) {
                        const cuda::PatchCorner<T> corner = stage.corner(p);
                        CHECK(corner.pixel != nullptr);
                        CHECK(corner.between_pixels() == (spread == Spread::between_pixels));
                        CHECK(corner.on_pixels() == (spread == Spread::on_pixels));
                    }
                }
            }
        }
    }

    // patches one after the other, and apart: both in rows of whole vectors, and the first not, a pixel further
    const Index pitch = (size + 3) / 4 * 4 + 4;
    std::vector<T> stack;
    for (const double value : numbers(static_cast<int>(count * size * pitch + 8), 3)) {
        stack.push_back(static_cast<T>(value));
    }
    const Index aligned = to_alignment(stack.data());
    const std::vector<double> exact_stack(stack.begin(), stack.end());
    for (const auto& [offset, row_stride] : {std::pair(aligned, size), {aligned, pitch}, {aligned + 1, size}}) {
        const PatchesView<T> patches = {stack.data() + offset, count, size, size * row_stride, row_stride, 1};
        patch_moments(PatchesView<double>{exact_stack.data() + offset, count, size, size * row_stride, row_stride, 1},
                      reference, 1, expected.data());
        const cuda::SampleStage<T, cuda::PatchSamples<T>> stage = {{{patches}}};
        compare(emulate(stage, table), expected, weights, modes);
        if constexpr (sizeof(T) == 4) {
            const bool fits = with_parity && size % 8 == 0 && offset == aligned;
            CHECK(cuda::VectorStage::fits(patches, table) == fits);
            if (fits) {
                compare(emulate(cuda::VectorStage{patches}, table), expected, weights, modes);
            }
        }
    }
}

// Pixels without a weight take no part, whatever they hold.
void nothing_beyond_the_disk() {
    const std::vector<double> weights = integrated_weights(4, 16);
    const cuda::PackedTable<float> packed(MomentTable<float>(weights.data(), mode_count(4), 16));
    const std::vector<unsigned char> bytes = packed.bytes();
    alignas(16) float patch[16 * 16];
    for (int i = 0; i < 16 * 16; ++i) {
        bool weighted = false;
        for (Index j = 0; j < mode_count(4); ++j) {
            weighted = weighted || weights[static_cast<std::size_t>(j * 256 + i)] != 0.0;
        }
        patch[i] = weighted ? 1.0f : std::nanf("");
    }
    CHECK(std::isnan(patch[0]));
    const cuda::VectorStage stage = {{patch, 1, 16, 256, 16, 1}};
    for (const float moment : emulate(stage, packed.view(bytes.data()))) {
        CHECK(std::isfinite(moment));
    }
}

// A neighbour without a share is not read: it may lie outside.
void nothing_beyond_the_image() {
    const std::vector<double> weights = integrated_weights(4, 16);
    const cuda::PackedTable<float> packed(MomentTable<float>(weights.data(), mode_count(4), 16));
    const std::vector<unsigned char> bytes = packed.bytes();
    std::vector<float> pixels(18 * 18, std::nanf(""));  // an image of 17 x 17, and beyond it
    for (std::size_t i = 0; i < pixels.size(); ++i) {
        pixels[i] = i / 18 < 17 && i % 18 < 17 ? 1.0f : pixels[i];
    }
    const double last[] = {8.5, 8.5, 8.5, 8.0, 8.0, 8.5};  // in the last corner, and at the last column and row
    const PatchGrid grid = {16, 1, 0, 0, 1, Interpolation::linear};
    for (const Index count : {Index(1), Index(3)}) {
        const cuda::SampleStage<float, cuda::ColumnSamples<float>> stage = {
            {{{pixels.data(), 17, 17, 18, 1}, {last, count}, grid}}};
        for (const float moment : emulate(stage, packed.view(bytes.data()))) {
            CHECK(std::isfinite(moment));
        }
    }
}

// The threads of a warp that write a panel, or read it, meet as many banks as they move words at once.
void banks() {
    using Tile = cuda::Tile<float>;
    const auto conflict_free = [](auto address) {
        bool taken[32] = {};
        for (int lane = 0; lane < 32; ++lane) {
            bool& bank = taken[address(lane) % 32];
            CHECK(!bank);
            bank = true;
        }
    };
    conflict_free([](int lane) { return lane % 4 * 4 * Tile::pitch + lane / 4; });  // VectorStage
    conflict_free([](int lane) { return lane % 16 * Tile::pitch + lane / 16; });    // SampleStage
    conflict_free([](int lane) { return lane / 2 * Tile::per_lane + lane % 2; });   // multiply: half a warp at a time
}

// Every group's width is one that the kernel has a loop for, and every mode has its place.
void groups_of_modes(int n_max, std::vector<int> widths) {
    const std::vector<double> weights = integrated_weights(n_max, 32);
    const cuda::PackedTable<float> packed(MomentTable<float>(weights.data(), mode_count(n_max), 32));
    CHECK(packed.groups.size() == widths.size());
    for (std::size_t g = 0; g < packed.groups.size(); ++g) {
        CHECK(packed.groups[g].width == widths[g]);
    }
    std::vector<int> seen(static_cast<std::size_t>(mode_count(n_max)), 0);
    for (const cuda::ModePlace& place : packed.places) {
        ++seen[static_cast<std::size_t>(place.mode)];
    }
    for (const int times : seen) {
        CHECK(times == 1);
    }
}

int main() {
    groups_of_modes(10, {21, 15, 15, 15});
    groups_of_modes(14, {21, 15, 21, 10, 21, 10, 21, 10});
    groups_of_modes(2, {6, 6, 6, 6});
    banks();
    nothing_beyond_the_disk();
    nothing_beyond_the_image();
    for (const Index count : {Index(1), Index(64), Index(70)}) {
        columns_and_patches<float>(10, 32, count);
    }
    columns_and_patches<double>(10, 32, 33);
    for (const Index size : {Index(1), Index(2), Index(3), Index(9), Index(16), Index(23), Index(40)}) {
        columns_and_patches<float>(6, size, 67);
    }
    columns_and_patches<float>(20, 64, 66);
    columns_and_patches<float>(30, 24, 5);  // two blocks of groups, and sums that do not fit the panels together
    columns_and_patches<double>(12, 23, 40);
    columns_and_patches<float>(6, 8, 65, false);
    columns_and_patches<double>(6, 9, 31, false);

    const double nowhere[2] = {std::nan(""), 3.0};
    const double pixel = 1.0;
    const PatchGrid grid = {3, 1, 0, 0, 1, Interpolation::linear};
    const cuda::ColumnSamples<double> lost = {{{&pixel, 1, 1, 1, 1}, {nowhere, 1}, grid}};
    CHECK(lost.corner(0).pixel == nullptr && std::isnan(lost.elsewhere(0, 1, 1)));
    return failures();
}
