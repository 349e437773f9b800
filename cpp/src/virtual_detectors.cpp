#include "contextem/virtual_detectors.hpp"

#include <algorithm>
#include <map>

#include "contextem/parallel.hpp"
#include "instruction_set.hpp"

namespace contextem {
namespace {

constexpr Index grain_bytes = 1 << 20;  // starting a thread takes as long as reading some hundred thousand

// Windows of `width` pixels that cover the runs, none of them beyond the pattern.
Windows windows_of(const std::vector<Run>& runs, Index width, Index pixels) {
    Windows windows;
    if (pixels < width) {
        return windows;
    }
    for (const Run& run : runs) {
        Index start = run.begin;
        for (; start + width <= run.end; start += width) {
            windows.whole.push_back(static_cast<std::int32_t>(start));
        }
        const Index rest = run.end - start;
        if (rest > 0) {
            const bool first = start + width <= pixels;  // its first pixels count, else its last
            windows.parts.push_back({static_cast<std::int32_t>(first ? start : run.end - width),
                                     static_cast<std::int32_t>(first ? 2 * width - rest : rest)});
        }
    }
    return windows;
}

}  // namespace

DetectorZones::DetectorZones(const bool* masks, Index n_detectors, Index n_pixels)
    : count(n_detectors), pixels(n_pixels) {
    std::map<std::uint32_t, std::vector<Run>> runs_of;
    std::uint32_t before = 0;
    for (Index k = 0; k < pixels; ++k) {
        std::uint32_t seen_by = 0;
        for (Index d = 0; d < count; ++d) {
            seen_by |= static_cast<std::uint32_t>(masks[d * pixels + k]) << d;
        }
        const auto pixel = static_cast<std::int32_t>(k);
        if (seen_by != 0) {
            std::vector<Run>& runs = runs_of[seen_by];
            if (seen_by != before) {
                runs.push_back({pixel, pixel});
            }
            runs.back().end = pixel + 1;
        }
        before = seen_by;
    }
    for (auto& [seen_by, runs] : runs_of) {
        Zone zone = {seen_by, 0, std::move(runs), {}};
        for (const Run& run : zone.runs) {
            zone.pixels += run.end - run.begin;
        }
        for (std::size_t i = 0; i < zone.windows.size(); ++i) {
            zone.windows[i] = windows_of(zone.runs, window_bytes >> i, pixels);
        }
        zones.push_back(std::move(zone));
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
