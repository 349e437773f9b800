// What a block of the moments kernel does, thread by thread: plain C++, tested on the host. See moments.cu.
#pragma once

#include <cmath>
#include <cstdint>

#include "contextem/cuda/device.hpp"
#include "contextem/sampling.hpp"
#include "contextem/view.hpp"
#include "packed_table.hpp"
#include "sources.hpp"
#include "unroll.hpp"

namespace contextem::cuda {

constexpr int lanes = 32;
constexpr int fewest_threads = 128;
constexpr int strip_quads = 4;
constexpr int strip_samples = 4 * strip_quads;

// Patches of a block, and panels in shared memory: panel[plane][sample of the strip][patch]. The pitch lets 8 patches x
// 4 quads, 2 patches x 16 samples and 32 x two neighbouring patches each meet 32 different banks.
template <class T>
struct Tile {
    static constexpr int per_lane = sizeof(T) == 4 ? 2 : 1;  // patches
    static constexpr int patches = per_lane * lanes;
    static constexpr int pitch = patches + 2;
    static constexpr int plane = strip_samples * pitch;
    static constexpr int panel = n_parities * plane;
    static constexpr int values = 2 * panel;  // one is multiplied while the other is filled
};

template <class T, int n>
struct alignas(n * sizeof(T) < 16 ? n * sizeof(T) : 16) Values {
    T value[n];
};

// Read once: not to push the weights out of the cache.
CONTEXTEM_HD Values<float, 4> read_once(const float* where) {
#if defined(__CUDA_ARCH__)
    const float4 found = __ldcs(reinterpret_cast<const float4*>(where));
    return {{found.x, found.y, found.z, found.w}};
#else
    return {{where[0], where[1], where[2], where[3]}};
#endif
}

// Through the read-only cache.
CONTEXTEM_HD float read_constant(const float* where) {
#if defined(__CUDA_ARCH__)
    return __ldg(where);
#else
    return *where;
#endif
}

CONTEXTEM_HD double read_constant(const double* where) {
#if defined(__CUDA_ARCH__)
    return __ldg(where);
#else
    return *where;
#endif
}

CONTEXTEM_HD Values<float, 4> read_weights(const float* where) {
#if defined(__CUDA_ARCH__)
    const float4 found = __ldg(reinterpret_cast<const float4*>(where));
    return {{found.x, found.y, found.z, found.w}};
#else
    return {{where[0], where[1], where[2], where[3]}};
#endif
}

CONTEXTEM_HD Values<double, 4> read_weights(const double* where) {
#if defined(__CUDA_ARCH__)
    const double2 one = __ldg(reinterpret_cast<const double2*>(where));
    const double2 two = __ldg(reinterpret_cast<const double2*>(where) + 1);
    return {{one.x, one.y, two.x, two.y}};
#else
    return {{where[0], where[1], where[2], where[3]}};
#endif
}

CONTEXTEM_HD int strip_count(int n_quads) { return (n_quads + strip_quads - 1) / strip_quads; }

// Number of the first sample of a strip, or of all samples for the strip after the last.
template <class T>
CONTEXTEM_HD int strip_begin(const DeviceTableView<T>& table, int strip) {
    const int quad = strip * strip_quads;
    return table.quads[quad < table.n_quads ? quad : table.n_quads].sample;
}

// To the place of a sample of a patch in the first plane of a panel, and those in the other planes.
template <class T>
CONTEXTEM_HD void put_folded(const Folded<T>& folded, T* where) {
    CONTEXTEM_UNROLL
    for (int k = 0; k < n_parities; ++k) {
        where[k * Tile<T>::plane] = folded.plane[k];
    }
}

// The first sample of a patch, where all samples share one offset between pixels; none for any other patch.
template <class T>
struct PatchCorner {
    const T* pixel;
    T down;  // shares of the next pixels
    T right;

    CONTEXTEM_HD bool on_pixels() const { return !(down > T(0) || right > T(0)); }
    CONTEXTEM_HD bool between_pixels() const { return down > T(0) && right > T(0); }  // along both axes
};

// What all patches of a block are: their samples pixels, between pixels along both axes, either, or anywhere.
enum class TileKind { on_pixels, between_pixels, mixed, anywhere };

CONTEXTEM_HD TileKind tile_kind(bool some_elsewhere, bool all_on, bool all_between) {
    return some_elsewhere ? TileKind::anywhere
           : all_on       ? TileKind::on_pixels
           : all_between  ? TileKind::between_pixels
                          : TileKind::mixed;
}

// ---- patches with every row a whole number of 16-byte vectors, P a multiple of 8 -----------------------------------

// What a thread holds of the next strip: for each of its quads the four that meet, those on the left in descending
// order of the columns. Neighbouring threads take neighbouring quads of a patch.
struct HeldQuads {
    static constexpr int most = Tile<float>::patches * strip_quads / fewest_threads;
    Values<float, 4> below_right[most];
    Values<float, 4> below_left[most];
    Values<float, 4> above_right[most];
    Values<float, 4> above_left[most];
};

struct VectorStage {
    static constexpr bool keeps_corners = false;
    static constexpr int together = 1;
    using Held = HeldQuads;
    PatchesView<float> patches;

    static bool fits(const PatchesView<float>& patches, const DeviceTableView<float>& table) {
        return table.folded && patches.size % 8 == 0 && patches.column_stride == 1 && patches.row_stride % 4 == 0 &&
               patches.patch_stride % 4 == 0 && reinterpret_cast<std::uintptr_t>(patches.data) % 16 == 0;
    }

    CONTEXTEM_HD Index count() const { return patches.count; }

    CONTEXTEM_HD void fetch(const DeviceTableView<float>& table, Index first_patch, int strip, int thread, int threads,
                            Held& held) const {
        const int number = strip * strip_quads + thread % strip_quads;
        if (number >= table.n_quads) {
            return;
        }
        const Quad quad = table.quads[number];
        const Index half = patches.size / 2;
        const Index down = (2 * quad.row + 1) * patches.row_stride;  // between the rows that meet
        const float* const right = patches.data + (half - 1 - quad.row) * patches.row_stride + half + quad.column;
        const Index left = -2 * quad.column - 4;
        CONTEXTEM_UNROLL
        for (int i = 0; i < HeldQuads::most; ++i) {
            const int slot = (thread + i * threads) / strip_quads;
            if (slot < Tile<float>::patches) {
                const Index patch = first_patch + slot < patches.count ? first_patch + slot : patches.count - 1;
                const float* const above = right + patch * patches.patch_stride;
                held.above_right[i] = read_once(above);
                held.above_left[i] = read_once(above + left);
                held.below_right[i] = read_once(above + down);
                held.below_left[i] = read_once(above + down + left);
            }
        }
    }

    CONTEXTEM_HD void put(const DeviceTableView<float>& table, Index, int strip, int thread, int threads,
                          const PatchCorner<float>*, TileKind, const Held& held, float* panel) const {
        const int number = strip * strip_quads + thread % strip_quads;
        const Quad quad = table.quads[number < table.n_quads ? number : table.n_quads];
        float* const first = panel + (quad.sample - strip_begin(table, strip)) * Tile<float>::pitch;
        CONTEXTEM_UNROLL
        for (int i = 0; i < HeldQuads::most; ++i) {
            const int slot = (thread + i * threads) / strip_quads;
            CONTEXTEM_UNROLL
            for (int k = 0; k < 4; ++k) {
                if (slot < Tile<float>::patches && k < quad.count) {
                    put_folded(fold(held.below_right[i].value[k], held.below_left[i].value[3 - k],
                                    held.above_right[i].value[k], held.above_left[i].value[3 - k]),
                               first + k * Tile<float>::pitch + slot);
                }
            }
        }
    }
};

// ---- any patches, and columns of an image ---------------------------------------------------------------------------

template <class T>
struct PatchSamples {
    PatchesView<T> patches;

    CONTEXTEM_HD Index count() const { return patches.count; }
    CONTEXTEM_HD Index row_stride() const { return patches.row_stride; }
    CONTEXTEM_HD Index column_stride() const { return patches.column_stride; }
    CONTEXTEM_HD PatchCorner<T> corner(Index p) const { return {patches.data + p * patches.patch_stride, T(0), T(0)}; }
    CONTEXTEM_HD T elsewhere(Index, Index, Index) const { return T(0); }  // not reached: every patch has a corner
};

template <class T>
struct ColumnSamples {
    ColumnSource<T> source;

    CONTEXTEM_HD Index count() const { return source.count(); }
    CONTEXTEM_HD Index row_stride() const { return source.image.row_stride; }
    CONTEXTEM_HD Index column_stride() const { return source.image.column_stride; }

    CONTEXTEM_HD PatchCorner<T> corner(Index p) const {
        const ImageView<T>& image = source.image;
        const UnitCorner found = unit_corner(source.positions.data + 2 * p, source.grid, image.rows, image.columns);
        if (!found.inside) {
            return {nullptr, T(0), T(0)};
        }
        return {image.data + found.top.index * image.row_stride + found.left.index * image.column_stride,
                static_cast<T>(found.top.share), static_cast<T>(found.left.share)};
    }

    CONTEXTEM_HD T elsewhere(Index p, Index k, Index l) const { return source(p, k, l); }
};

// A sample per thread at a time: neighbouring threads take neighbouring samples of a patch. Nothing is held.
template <class T, class Samples>
struct SampleStage {
    static constexpr bool keeps_corners = true;
    static constexpr int together = 2;
    static constexpr int slots_together = sizeof(T) == 4 ? 2 : 1;  // as registers are left
    struct Held {};
    Samples samples;

    CONTEXTEM_HD Index count() const { return samples.count(); }
    CONTEXTEM_HD PatchCorner<T> corner(Index p) const { return samples.corner(p); }

    CONTEXTEM_HD void fetch(const DeviceTableView<T>&, Index, int, int, int, Held&) const {}

    CONTEXTEM_HD void put(const DeviceTableView<T>& table, Index first_patch, int strip, int thread, int threads,
                          const PatchCorner<T>* corners, TileKind patches, const Held&, T* panel) const {
        const int number = strip * strip_quads + thread % strip_samples / 4;
        const Quad quad = table.quads[number < table.n_quads ? number : table.n_quads];
        if (thread % 4 >= quad.count) {
            return;
        }
        // a table that is not folded has the patch itself as its only plane
        const Index half = table.folded ? table.size / 2 : 0;
        const Index below = half + quad.row;
        const Index right = half + quad.column + thread % 4;
        const Index above = table.size - 1 - below;
        const Index left = table.size - 1 - right;
        const Index row_stride = samples.row_stride();
        const Index first = below * row_stride + right * samples.column_stride();
        const Index up = (above - below) * row_stride;
        const Index back = (left - right) * samples.column_stride();
        T* const out = panel + (quad.sample - strip_begin(table, strip) + thread % 4) * Tile<T>::pitch;
        // read(slot, offset, k, l) gives sample (k, l) of the patch in a slot, `offset` from its corner
        const auto fill = [&](const auto& read) {
            if (!table.folded) {
                for (int slot = thread / strip_samples; slot < Tile<T>::patches; slot += threads / strip_samples) {
                    out[slot] = read(slot, first, below, right);
                }
                return;
            }
#if defined(__CUDA_ARCH__)
#pragma unroll slots_together
#endif
            for (int slot = thread / strip_samples; slot < Tile<T>::patches; slot += threads / strip_samples) {
                put_folded(fold(read(slot, first, below, right), read(slot, first + back, below, left),
                                read(slot, first + up, above, right), read(slot, first + up + back, above, left)),
                           out + slot);
            }
        };
        if (patches == TileKind::on_pixels) {
            fill([&](int slot, Index offset, Index, Index) { return read_constant(corners[slot].pixel + offset); });
        } else if (patches == TileKind::between_pixels && samples.column_stride() == 1) {
            fill([&](int slot, Index offset, Index, Index) { return between(corners[slot], offset, 1, row_stride); });
        } else if (patches != TileKind::anywhere) {
            fill([&](int slot, Index offset, Index, Index) { return between(corners[slot], offset); });
        } else {
            fill([&](int slot, Index offset, Index k, Index l) {
                const Index p = first_patch + slot < count() ? first_patch + slot : count() - 1;
                return corners[slot].pixel == nullptr ? samples.elsewhere(p, k, l) : between(corners[slot], offset);
            });
        }
    }

private:
    // A neighbour without a share is not read: it may lie outside.
    CONTEXTEM_HD T between(const PatchCorner<T>& corner, Index offset) const {
        return between(corner, offset, corner.right > T(0) ? samples.column_stride() : 0,
                       corner.down > T(0) ? samples.row_stride() : 0);
    }

    CONTEXTEM_HD T between(const PatchCorner<T>& corner, Index offset, Index next_column, Index next_row) const {
        const T* const pixel = corner.pixel + offset;
        const auto column = [&](const T* here, const T* next) {
            const T value = read_constant(here);
            return std::fma(corner.down, read_constant(next) - value, value);
        };
        const T* const lower = pixel + next_row;
        const T value = column(pixel, lower);
        return std::fma(corner.right, column(pixel + next_column, lower + next_column) - value, value);
    }
};

// ---- panel x weights ------------------------------------------------------------------------------------------------

template <class T>
struct Sums {
    T value[widest_group][Tile<T>::per_lane];
};

template <int width, int together, class T>
CONTEXTEM_HD void multiply(const T* weights /* (count, row_pitch) */, const T* plane /* (count, pitch) */, int count,
                           Sums<T>& sums) {
    constexpr int per_lane = Tile<T>::per_lane;
#if defined(__CUDA_ARCH__)
#pragma unroll together
#endif
    for (; count > 0; --count, weights += row_pitch(width), plane += Tile<T>::pitch) {
        const auto sample = *reinterpret_cast<const Values<T, per_lane>*>(plane);
        CONTEXTEM_UNROLL
        for (int i = 0; i < width; i += 4) {
            const auto weight = read_weights(weights + i);
            CONTEXTEM_UNROLL
            for (int k = 0; k < 4 && i + k < width; ++k) {
                CONTEXTEM_UNROLL
                for (int h = 0; h < per_lane; ++h) {
                    sums.value[i + k][h] = std::fma(weight.value[k], sample.value[h], sums.value[i + k][h]);
                }
            }
        }
    }
}

// Adds a strip to the sums of one thread, whose warp takes `group`; so many samples `together` as registers are left.
template <int together, class T>
CONTEXTEM_HD void multiply_strip(const DeviceTableView<T>& table, const ModeGroup& group, int strip, int lane,
                                 const T* panel, Sums<T>& sums) {
    const int begin = strip_begin(table, strip);
    const int count = strip_begin(table, strip + 1) - begin;
    const T* weights = table.weights + group.weights + begin * row_pitch(group.width);
    const T* plane = panel + group.plane * Tile<T>::plane + lane * Tile<T>::per_lane;
    switch (group.width) {  // the same for the whole warp
        case 6:
            multiply<6, together>(weights, plane, count, sums);
            break;
        case 10:
            multiply<10, together>(weights, plane, count, sums);
            break;
        case 15:
            multiply<15, together>(weights, plane, count, sums);
            break;
        default:
            multiply<21, together>(weights, plane, count, sums);
    }
}

// ---- sums -> moments, by way of shared memory so that neighbouring threads write neighbouring moments ---------------

// Patches whose sums fit into the panels together.
template <class T>
CONTEXTEM_HD int patches_at_once(const GroupBlock& block) {
    const int fit = Tile<T>::values / block.pitch;
    return fit < Tile<T>::patches ? fit : Tile<T>::patches;
}

template <class T>
CONTEXTEM_HD void put_sums(const GroupBlock& block, const ModeGroup& group, int first, int lane, const Sums<T>& sums,
                           T* out /* (patches_at_once, pitch) */) {
    CONTEXTEM_UNROLL
    for (int h = 0; h < Tile<T>::per_lane; ++h) {
        const int patch = lane * Tile<T>::per_lane + h - first;
        if (patch >= 0 && patch < patches_at_once<T>(block)) {
            CONTEXTEM_UNROLL
            for (int i = 0; i < widest_group; ++i) {
                if (i < group.width) {
                    out[patch * block.pitch + group.column + i] = sums.value[i][h];
                }
            }
        }
    }
}

template <class T>
CONTEXTEM_HD void write_moments(const DeviceTableView<T>& table, const GroupBlock& block, Index first_patch, int first,
                                Index count, int thread, int threads, const T* out, T* moments /* (N, J) */) {
    for (int patch = thread / lanes; patch < patches_at_once<T>(block); patch += threads / lanes) {
        const Index p = first_patch + first + patch;
        if (first + patch < Tile<T>::patches && p < count) {
            for (int i = thread % lanes; i < block.n_places; i += lanes) {
                const ModePlace place = table.places[block.first_place + i];
                moments[p * table.n_modes + place.mode] = out[patch * block.pitch + place.column];
            }
        }
    }
}

}  // namespace contextem::cuda
