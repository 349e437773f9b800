// What the CUDA kernel does per sample and mode, done in a loop, must equal the C++ kernels.
#include <cmath>
#include <vector>

#include "check.hpp"
#include "contextem/moments.hpp"
#include "contextem/patches.hpp"
#include "contextem/zernike.hpp"
#include "packed_table.hpp"
#include "sources.hpp"

using namespace contextem;

template <class Source>
std::vector<double> emulate(const Source& source, const cuda::DeviceTableView<double>& table) {
    std::vector<double> moments(static_cast<std::size_t>(source.count() * table.n_modes), 0.0);
    for (Index p = 0; p < source.count(); ++p) {
        for (Index column = 0; column < table.n_modes; ++column) {
            double sum = 0.0;
            for (Index q = 0; q < table.samples; ++q) {
                const Folded<double> folded = cuda::fold_sample(source, table, p, table.sample[q]);
                sum += table.weights[q * table.n_modes + column] * folded.plane[table.plane[column]];
            }
            moments[static_cast<std::size_t>(p * table.n_modes + table.mode[column])] = sum;
        }
    }
    return moments;
}

void columns_and_patches(int size, bool with_parity) {
    std::vector<double> weights = integrated_weights(6, size);
    if (!with_parity) {
        weights[1] += 1.0;
    }
    const Index modes = mode_count(6);
    const MomentTable<double> host(weights.data(), modes, size);
    CHECK(host.folded == with_parity);
    const cuda::PackedTable<double> packed(MomentTable<double>(weights.data(), modes, size));
    const std::vector<std::int32_t> indices = packed.indices();
    const cuda::DeviceTableView<double> table = packed.at(packed.weights.data(), indices.data());

    const std::vector<double> pixels = numbers(50 * 40, 1);
    const ImageView<double> image = {pixels.data(), 50, 40, 40, 1};
    std::vector<double> centres = numbers(2 * 30, 2);
    for (double& coordinate : centres) {
        coordinate = 60.0 * coordinate - 5.0;  // inside, at and beyond the border
    }
    const PositionsView positions = {centres.data(), 30};
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
        std::vector<double> expected(static_cast<std::size_t>(30 * modes));
        column_moments(image, positions, grid, host, 1, expected.data());
        const std::vector<double> from_columns = emulate(columns, table);
        const PatchesView<double> view = {patches.data(), 30, size, Index(size) * size, size, 1};
        const std::vector<double> from_patches = emulate(cuda::PatchSource<double>{view}, table);
        for (std::size_t i = 0; i < expected.size(); ++i) {
            CHECK_NEAR(from_columns[i], expected[i], 1e-13);
            CHECK_NEAR(from_patches[i], expected[i], 1e-13);
        }
    }
}

int main() {
    columns_and_patches(9, true);
    columns_and_patches(16, true);
    columns_and_patches(8, false);

    const double nowhere[2] = {std::nan(""), 3.0};
    const double pixel = 1.0;
    const PatchGrid grid = {3, 1, 0, 0, 1, Interpolation::linear};
    const cuda::ColumnSource<double> lost = {{&pixel, 1, 1, 1, 1}, {nowhere, 1}, grid};
    CHECK(std::isnan(lost(0, 1, 1)));
    return failures();
}
