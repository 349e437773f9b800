#include "contextem/virtual_detectors.hpp"

#include <algorithm>
#include <map>

#include "contextem/parallel.hpp"
#include "instruction_set.hpp"

namespace contextem {
namespace {

constexpr Index band_windows = 256;     // 16 KiB
constexpr Index grain_bytes = 1 << 20;  // starting a thread takes as long as reading some hundred thousand

// The bands of a pattern in windows of `width` pixels that lie side by side, the last one at the end of the pattern.
std::vector<PatternBand> bands_of(const std::vector<std::uint32_t>& seen_by, Index width) {
    const auto pixels = static_cast<Index>(seen_by.size());
    std::vector<PatternBand> bands;
    std::vector<std::vector<std::int32_t>> used;  // of each band the windows that any detector sees
    for (Index first_of_band = 0; first_of_band < pixels; first_of_band += band_windows * width) {
        std::map<std::uint32_t, Windows> windows_of;
        used.emplace_back();
        const Index stop_of_band = std::min(first_of_band + band_windows * width, pixels);
        for (Index first = first_of_band; first < stop_of_band; first += width) {
            const auto start = static_cast<std::int32_t>(std::max<Index>(0, std::min(first, pixels - width)));
            std::map<std::uint32_t, std::uint64_t> pixels_of;
            for (Index k = first; k < std::min(first + width, pixels); ++k) {
                if (const std::uint32_t detectors = seen_by[static_cast<std::size_t>(k)]) {
                    pixels_of[detectors] |= std::uint64_t(1) << (k - start);
                }
            }
            for (const auto& [detectors, counting] : pixels_of) {
                Windows& windows = windows_of[detectors];
                if (counting == ~std::uint64_t(0) >> (64 - width)) {
                    windows.whole.push_back(start);
                } else {
                    windows.parts.push_back({counting, start});
                }
            }
            if (!pixels_of.empty()) {
                used.back().push_back(start);
            }
        }
        if (windows_of.empty()) {
            used.pop_back();
            continue;
        }
        bands.emplace_back();
        for (auto& [detectors, windows] : windows_of) {
            bands.back().zones.push_back({detectors, std::move(windows)});
        }
    }
    for (std::size_t b = 0; b < bands.size(); ++b) {
        std::size_t count = 0;
        for (const Zone& zone : bands[b].zones) {
            count += zone.windows.whole.size() + zone.windows.parts.size();
        }
        const std::vector<std::int32_t>& after = used[(b + 1) % bands.size()];
        for (std::size_t i = 0; i < count; ++i) {
            bands[b].fetches.push_back(after[i * after.size() / count]);
        }
    }
    return bands;
}

}  // namespace

std::vector<std::uint32_t> detectors_of_pixels(const bool* masks, Index count, Index pixels) {
    std::vector<std::uint32_t> seen_by(static_cast<std::size_t>(pixels));
    for (Index d = 0; d < count; ++d) {
        for (Index k = 0; k < pixels; ++k) {
            seen_by[static_cast<std::size_t>(k)] |= static_cast<std::uint32_t>(masks[d * pixels + k]) << d;
        }
    }
    return seen_by;
}

DetectorZones::DetectorZones(const bool* masks, Index n_detectors, Index n_pixels)
    : count(n_detectors), pixels(n_pixels) {
    const std::vector<std::uint32_t> seen_by = detectors_of_pixels(masks, count, pixels);
    for (std::size_t i = 0; i < bands.size(); ++i) {
        bands[i] = bands_of(seen_by, window_bytes >> i);
    }
}

template <class T>
void virtual_detectors(const PatternsView<T>& patterns, const DetectorZones& detectors, int n_threads, double* sums) {
    const auto& kernel = instruction_set().virtual_detectors.of<T>();
    const Index bytes = std::max<Index>(1, patterns.pixels * static_cast<Index>(sizeof(T)));
    parallel_for(patterns.count, std::max<Index>(1, grain_bytes / bytes), n_threads,
                 [&](Index begin, Index end) { kernel.detectors(patterns, detectors, begin, end, sums); });
}

template <class T>
void sum_patterns(const PatternsView<T>& patterns, int n_threads, double* total) {
    const auto& kernel = instruction_set().virtual_detectors.of<T>();
    const Index column = std::max<Index>(1, patterns.count * window_bytes);
    const Index windows = std::max<Index>(1, grain_bytes / column);
    parallel_for(patterns.pixels, windows * window_bytes / static_cast<Index>(sizeof(T)), n_threads,
                 [&](Index begin, Index end) { kernel.sum(patterns, begin, end, total); });
}

#define CONTEXTEM_INSTANTIATE(T)                                                                 \
    template void virtual_detectors(const PatternsView<T>&, const DetectorZones&, int, double*); \
    template void sum_patterns(const PatternsView<T>&, int, double*);
CONTEXTEM_INSTANTIATE(std::int8_t)
CONTEXTEM_INSTANTIATE(std::uint8_t)
CONTEXTEM_INSTANTIATE(std::int16_t)
CONTEXTEM_INSTANTIATE(std::uint16_t)
CONTEXTEM_INSTANTIATE(std::int32_t)
CONTEXTEM_INSTANTIATE(std::uint32_t)
CONTEXTEM_INSTANTIATE(float)
CONTEXTEM_INSTANTIATE(double)
#undef CONTEXTEM_INSTANTIATE

}  // namespace contextem
