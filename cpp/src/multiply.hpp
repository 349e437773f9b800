// Multiplies folded patches by the packed table: sums over the samples of a quadrant, or of an octant where the modes
// allow it.
//
//   sum[j][p] = sum_q w[q, j] planes(p, q)                              modes without exchange symmetry
//   sum[j][p] = sum_q w[q, j] (planes(p, q) +- planes(p, q~))           q~ is q with row and column exchanged
//
// A block of modes shares a plane and a symmetry. Two vectors of patches times up to 12 modes (6 with SSE2 and AVX2)
// are held in registers over all samples; each weight is read once per panel as a scalar and serves every patch. n_max
// 10 on 32 x 32 samples: 10,308 multiply-adds a patch of the 56,496 that the disk's pixels would take.
#pragma once

#include <array>

#include "contextem/moments.hpp"
#include "fetch_ahead.hpp"
#include "fold.hpp"
#include "moment_kernels.hpp"
#include "simd.hpp"

namespace contextem {
namespace {

// Two registers each, of 32 or 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int max_modes = 12;
#else
constexpr int max_modes = 6;
#endif

// Modes [mode, mode + n_modes) of a block.
template <int n_modes, Exchange exchange, class T>
void multiply(const TableBlock<T>& block, Index mode, const T* plane, T* sums, FetchAhead<T>& ahead) {
    Vec<T> sum[n_modes][panel_vectors];
#pragma GCC unroll 12
    for (int j = 0; j < n_modes; ++j) {
#pragma GCC unroll 2
        for (int v = 0; v < panel_vectors; ++v) {
            sum[j][v] = splat(T(0));
        }
    }
    const Index width = static_cast<Index>(block.modes.size());
    const T* weights = block.weights.data() + mode;
    const SamplePair* const end = block.samples.data() + block.samples.size();
    for (const SamplePair* sample = block.samples.data(); sample != end; ++sample, weights += width) {
        ahead.fetch();
        Vec<T> value[panel_vectors];
        for (int v = 0; v < panel_vectors; ++v) {
            value[v] = load(plane + sample->here * panel_patches<T>() + v * lanes<T>);
            if constexpr (exchange != Exchange::none) {
                const Vec<T> there = load(plane + sample->there * panel_patches<T>() + v * lanes<T>);
                value[v] = exchange == Exchange::even ? value[v] + there : value[v] - there;
            }
        }
#pragma GCC unroll 24
        for (int j = 0; j < n_modes; ++j) {
            const Vec<T> weight = splat(weights[j]);
#pragma GCC unroll 2
            for (int v = 0; v < panel_vectors; ++v) {
                sum[j][v] = multiply_add(value[v], weight, sum[j][v]);
            }
        }
    }
    for (int j = 0; j < n_modes; ++j) {
        T* out = sums + block.modes[static_cast<std::size_t>(mode + j)] * panel_patches<T>();
        for (int v = 0; v < panel_vectors; ++v) {
            store(out + v * lanes<T>, sum[j][v]);
        }
    }
}

template <class T>
using Multiply = void (*)(const TableBlock<T>&, Index mode, const T* plane, T* sums, FetchAhead<T>& ahead);

// The instances for 1, 2, .. max_modes modes.
template <Exchange exchange, class T, std::size_t... I>
constexpr std::array<Multiply<T>, max_modes> instances(std::index_sequence<I...>) {
    return {multiply<static_cast<int>(I) + 1, exchange, T>...};
}

template <class T>
void multiply_panel(const MomentTable<T>& table, const T* panel, T* sums, FetchAhead<T>& ahead) {
    constexpr auto counts = std::make_index_sequence<max_modes>();
    static constexpr std::array<Multiply<T>, max_modes> by_exchange[] = {instances<Exchange::none, T>(counts),
                                                                         instances<Exchange::even, T>(counts),
                                                                         instances<Exchange::odd, T>(counts)};
    for (const TableBlock<T>& block : table.blocks) {
        const T* plane = panel + block.plane * table.rows * table.rows * panel_patches<T>();
        const Index count = static_cast<Index>(block.modes.size());
        const Index passes = (count + max_modes - 1) / max_modes;
        for (Index pass = 0; pass < passes; ++pass) {  // of nearly equal size
            const Index begin = count * pass / passes;
            const Index end = count * (pass + 1) / passes;
            by_exchange[static_cast<int>(block.exchange)][static_cast<std::size_t>(end - begin - 1)](
                block, begin, plane, sums, ahead);
        }
    }
}

// Sums (J, panel_patches) to the rows of up to lanes<T> patches of the result.
template <class T>
void write_moments(Index n_modes, const T* sums, T* const* rows, Index count) {
    Index mode = 0;
    if (count == lanes<T> && n_modes >= lanes<T>) {
        while (mode < n_modes) {
            const Index start = mode + lanes<T> <= n_modes ? mode : n_modes - lanes<T>;
            Vec<T> value[static_cast<std::size_t>(lanes<T>)];
#pragma GCC unroll 16
            for (int i = 0; i < lanes<T>; ++i) {
                value[i] = load(sums + (start + i) * panel_patches<T>());
            }
            transpose<T>(value);
#pragma GCC unroll 16
            for (int i = 0; i < lanes<T>; ++i) {
                store(rows[i] + start, value[i]);
            }
            mode = start + lanes<T>;
        }
        return;
    }
    for (; mode < n_modes; ++mode) {
        for (Index i = 0; i < count; ++i) {
            rows[i][mode] = sums[mode * panel_patches<T>() + i];
        }
    }
}

}  // namespace
}  // namespace contextem
