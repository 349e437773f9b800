// The weights in the layout of the CUDA kernel (DeviceTableView): plain C++, tested on the host.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "contextem/cuda/device.hpp"
#include "contextem/moments.hpp"
#include "contextem/sampling.hpp"

namespace contextem::cuda {

// Sums that a thread may keep for each of its patches: the kernel has a loop for each. Up to n_max 10 they are the
// numbers of modes of a plane; more modes make several groups.
constexpr int group_widths[] = {6, 10, 15, 21};
constexpr int widest_group = 21;
constexpr int groups_per_block = 16;  // warps

CONTEXTEM_HD constexpr int row_pitch(int width) { return (width + 3) / 4 * 4; }

template <class T>
struct PackedTable {
    std::vector<T> weights;
    std::vector<Quad> quads;
    std::vector<ModeGroup> groups;
    std::vector<GroupBlock> blocks;
    std::vector<ModePlace> places;
    Index n_modes;
    Index size;
    bool folded;

    explicit PackedTable(const MomentTable<T>& table) : n_modes(table.n_modes), size(table.size), folded(table.folded) {
        const std::vector<std::int32_t> number = list_quads(table);
        place_of_.resize(static_cast<std::size_t>(n_modes));
        for (int plane = 0; plane < n_parities; ++plane) {
            std::vector<Index> modes;
            for (const TableBlock<T>& block : table.blocks) {
                if (block.plane == plane) {
                    modes.insert(modes.end(), block.modes.begin(), block.modes.end());
                }
            }
            for (std::size_t first = 0; first < modes.size(); first += widest_group) {
                const std::size_t last = std::min(first + widest_group, modes.size());
                add_group(plane, {modes.begin() + static_cast<Index>(first), modes.begin() + static_cast<Index>(last)});
            }
        }
        for (const TableBlock<T>& block : table.blocks) {
            for (std::size_t i = 0; i < block.modes.size(); ++i) {
                const Place place = place_of_[static_cast<std::size_t>(block.modes[i])];
                const Index pitch = row_pitch(groups[place.group].width);
                T* const out = weights.data() + groups[place.group].weights + place.column;
                const auto add = [&](std::int32_t where, T value) {
                    out[number[static_cast<std::size_t>(where)] * pitch] += value;
                };
                for (std::size_t q = 0; q < block.samples.size(); ++q) {
                    const T value = block.weights[q * block.modes.size() + i];
                    add(block.samples[q].here, value);
                    if (block.exchange != Exchange::none) {
                        add(block.samples[q].there, block.exchange == Exchange::even ? value : -value);
                    }
                }
            }
        }
        make_blocks();
    }

    // All of it one after the other; view() says where what lies, from the address of a copy on.
    std::vector<unsigned char> bytes() const {
        std::vector<unsigned char> all;
        const auto append = [&](const auto& values) {
            const auto* first = reinterpret_cast<const unsigned char*>(values.data());
            all.insert(all.end(), first, first + values.size() * sizeof(values[0]));
        };
        append(weights);  // first: read 16 bytes at a time
        append(quads);
        append(groups);
        append(blocks);
        append(places);
        return all;
    }

    DeviceTableView<T> view(const void* address) const {
        const auto* w = static_cast<const T*>(address);
        const auto* q = reinterpret_cast<const Quad*>(w + weights.size());
        const auto* g = reinterpret_cast<const ModeGroup*>(q + quads.size());
        const auto* b = reinterpret_cast<const GroupBlock*>(g + groups.size());
        const auto* p = reinterpret_cast<const ModePlace*>(b + blocks.size());
        int widest = 0;
        for (const GroupBlock& block : blocks) {
            widest = std::max(widest, block.n_groups);
        }
        return {w,      q,       g,    b,     p, static_cast<int>(quads.size()) - 1, static_cast<int>(blocks.size()),
                widest, n_modes, size, folded};
    }

private:
    struct Place {
        std::size_t group;
        std::size_t column;
    };

    // Returns the number of every sample of a plane.
    std::vector<std::int32_t> list_quads(const MomentTable<T>& table) {
        std::vector<std::int32_t> number(static_cast<std::size_t>(table.rows * table.rows));
        std::int32_t sample = 0;
        for (Index row = 0; row < table.rows; ++row) {
            const Index length = table.row_lengths[static_cast<std::size_t>(row)];
            for (Index column = 0; column < length; column += 4) {
                const auto count = static_cast<std::int32_t>(std::min<Index>(4, length - column));
                quads.push_back({static_cast<std::int32_t>(row), static_cast<std::int32_t>(column), count, sample});
                for (std::int32_t i = 0; i < count; ++i) {
                    number[static_cast<std::size_t>(row * table.rows + column + i)] = sample++;
                }
            }
        }
        quads.push_back({0, 0, 0, sample});
        return number;
    }

    void add_group(int plane, const std::vector<Index>& modes) {
        int width = widest_group;
        for (const int candidate : group_widths) {
            if (candidate >= static_cast<int>(modes.size())) {
                width = candidate;
                break;
            }
        }
        for (std::size_t i = 0; i < modes.size(); ++i) {
            place_of_[static_cast<std::size_t>(modes[i])] = {groups.size(), i};
        }
        groups.push_back({plane, width, 0, static_cast<std::int32_t>(weights.size())});
        group_modes_.push_back(modes);
        weights.resize(weights.size() + static_cast<std::size_t>(quads.back().sample * row_pitch(width)), T(0));
    }

    void make_blocks() {
        for (std::size_t first = 0; first < groups.size(); first += groups_per_block) {
            const std::size_t last = std::min(first + groups_per_block, groups.size());
            std::int32_t columns = 0;
            std::vector<ModePlace> found;
            for (std::size_t g = first; g < last; ++g) {
                groups[g].column = columns;
                for (std::size_t i = 0; i < group_modes_[g].size(); ++i) {
                    found.push_back({static_cast<std::int32_t>(group_modes_[g][i]), columns + static_cast<int>(i)});
                }
                columns += groups[g].width;
            }
            std::sort(found.begin(), found.end(), [](auto a, auto b) { return a.mode < b.mode; });
            blocks.push_back({static_cast<std::int32_t>(first), static_cast<std::int32_t>(last - first),
                              static_cast<std::int32_t>(places.size()), static_cast<std::int32_t>(found.size()),
                              columns | 1});
            places.insert(places.end(), found.begin(), found.end());
        }
    }

    std::vector<std::vector<Index>> group_modes_;
    std::vector<Place> place_of_;
};

}  // namespace contextem::cuda
