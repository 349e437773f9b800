// The packed weights in the layout of the CUDA kernel, and what the kernel does with one sample: plain C++, tested on
// the host.
#pragma once

#include <cstdint>
#include <vector>

#include "contextem/cuda/device.hpp"
#include "contextem/moments.hpp"
#include "contextem/sampling.hpp"

namespace contextem::cuda {

template <class T>
struct PackedTable {
    std::vector<T> weights;            // (samples, n_modes)
    std::vector<std::int32_t> sample;  // (samples)
    std::vector<std::int32_t> mode;    // (n_modes)
    std::vector<std::int32_t> plane;   // (n_modes)
    Index size;
    bool folded;

    explicit PackedTable(const MomentTable<T>& table) : size(table.size), folded(table.folded) {
        // every sample of a quadrant with its own weights: what a block says of an octant is written out
        std::vector<std::int32_t> number(static_cast<std::size_t>(table.rows * table.rows));
        for (Index row = 0; row < table.rows; ++row) {
            for (Index column = 0; column < table.row_lengths[static_cast<std::size_t>(row)]; ++column) {
                number[static_cast<std::size_t>(row * table.rows + column)] =
                    static_cast<std::int32_t>(sample.size());
                sample.push_back(static_cast<std::int32_t>(row * table.size + column));
            }
        }
        weights.assign(sample.size() * static_cast<std::size_t>(table.n_modes), T(0));
        for (const TableBlock<T>& block : table.blocks) {
            const std::size_t first = mode.size();
            const std::size_t count = block.modes.size();
            for (const Index j : block.modes) {
                mode.push_back(static_cast<std::int32_t>(j));
                plane.push_back(block.plane);
            }
            const auto add = [&](std::int32_t where, const T* values, T sign) {
                T* out = weights.data() +
                         static_cast<std::size_t>(number[static_cast<std::size_t>(where)] * table.n_modes) + first;
                for (std::size_t i = 0; i < count; ++i) {
                    out[i] += sign * values[i];
                }
            };
            for (std::size_t q = 0; q < block.samples.size(); ++q) {
                const T* values = block.weights.data() + q * count;
                add(block.samples[q].here, values, T(1));
                if (block.exchange != Exchange::none) {
                    add(block.samples[q].there, values, block.exchange == Exchange::even ? T(1) : T(-1));
                }
            }
        }
    }

    // The same table at other addresses: `indices` holds sample, mode and plane, one after the other.
    DeviceTableView<T> at(const T* weights_address, const std::int32_t* indices) const {
        return {weights_address,
                indices,
                indices + sample.size(),
                indices + sample.size() + mode.size(),
                static_cast<Index>(sample.size()),
                static_cast<Index>(mode.size()),
                size,
                folded};
    }

    std::vector<std::int32_t> indices() const {
        std::vector<std::int32_t> all = sample;
        all.insert(all.end(), mode.begin(), mode.end());
        all.insert(all.end(), plane.begin(), plane.end());
        return all;
    }
};

// Sample `index` of patch p, folded; a table that is not folded has the patch itself as its only plane.
template <class T, class Source>
CONTEXTEM_HD Folded<T> fold_sample(const Source& source, const DeviceTableView<T>& table, Index p, std::int32_t index) {
    const Index size = table.size;
    const Index row = index / size;
    const Index column = index % size;
    if (!table.folded) {
        return {{source(p, row, column), T(0), T(0), T(0)}};
    }
    const Index below = size / 2 + row;
    const Index right = size / 2 + column;
    const Index above = size - 1 - below;
    const Index left = size - 1 - right;
    return fold(source(p, below, right), source(p, below, left), source(p, above, right), source(p, above, left));
}

}  // namespace contextem::cuda
