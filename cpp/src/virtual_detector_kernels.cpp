// The kernels of the virtual detectors, compiled once per instruction set (see CMakeLists.txt); all but the last
// function is local.
//
// A pattern is summed zone by zone, a zone window by window: two loops without a branch, so that the short runs of a
// thin ring cost no mispredicted one. Reading a window asks for the same one of the next pattern: patterns that lie in
// memory arrive as if read in order. Threads own ranges of patterns, or of pixels.
#include "virtual_detector_kernels.hpp"

#include "simd.hpp"

namespace contextem {
namespace {

// An integer twice as wide, and the one without a sign.
template <class T>
struct Twice;
template <>
struct Twice<std::int8_t> {
    using type = std::int16_t;
};
template <>
struct Twice<std::uint8_t> {
    using type = std::uint16_t;
};
template <>
struct Twice<std::int16_t> {
    using type = std::int32_t;
};
template <>
struct Twice<std::uint16_t> {
    using type = std::uint32_t;
};
template <>
struct Twice<std::int32_t> {
    using type = std::int64_t;
};
template <>
struct Twice<std::uint32_t> {
    using type = std::uint64_t;
};

template <class T>
using Wide = typename Twice<T>::type;

template <class T>
constexpr bool is_real = std::is_floating_point_v<T>;

template <class T>
constexpr Index window_pixels = window_bytes / static_cast<Index>(sizeof(T));

// Bits of the pixels that count: as many as a window has, between as many that do not.
alignas(64) constexpr struct Counting {
    unsigned char bytes[3 * static_cast<std::size_t>(window_bytes)] = {};
    constexpr Counting() {
        for (std::size_t i = 0; i < static_cast<std::size_t>(window_bytes); ++i) {
            bytes[static_cast<std::size_t>(window_bytes) + i] = 0xff;
        }
    }
} counting;

template <class T>
CONTEXTEM_INLINE T value_at(const T* pointer) {
    T value;
    __builtin_memcpy(&value, pointer, sizeof value);
    return value;
}

template <class T>
CONTEXTEM_INLINE const T* pattern_at(const PatternsView<T>& patterns, Index p) {
    return reinterpret_cast<const T*>(reinterpret_cast<const char*>(patterns.data) + p * patterns.pattern_stride);
}

// ---- the sum of a zone ----------------------------------------------------------------------------------------------

// Integers. Two neighbours make one lane of twice the width: `all` adds whole lanes, modulo its width, and `upper` the
// second neighbours, from which the first ones follow. Signed ones are moved to begin at 0 first.
template <class T>
class IntegerSum {
public:
    using Lane = std::make_unsigned_t<Wide<T>>;
    static constexpr int bits = 8 * static_cast<int>(sizeof(T));
    static constexpr bool is_signed = std::is_signed_v<T>;
    static constexpr Index capacity = Index(1) << bits;  // windows that overflow no lane

    CONTEXTEM_INLINE void add(const T* window) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
            add_lanes(v, lanes_of(window, v));
        }
    }

    CONTEXTEM_INLINE void add(const T* window, const unsigned char* counts) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
            Vec<Lane> mask;
            __builtin_memcpy(&mask, counts + v * CONTEXTEM_VECTOR_BYTES, sizeof mask);
            add_lanes(v, lanes_of(window, v) & mask);
        }
    }

    // What has been added since it was last called.
    CONTEXTEM_INLINE std::int64_t take() {
        std::uint64_t sum = 0;
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
            const Vec<Lane> lower = all_[v] - (upper_[v] << bits);
            Lane values[2][static_cast<std::size_t>(lanes<Lane>)];
            store(values[0], lower);
            store(values[1], upper_[v]);
            for (int i = 0; i < lanes<Lane>; ++i) {
                sum += static_cast<std::uint64_t>(values[0][i]) + values[1][i];
            }
            all_[v] = upper_[v] = Vec<Lane>{};
        }
        return static_cast<std::int64_t>(sum);
    }

    // By how much `pixels` of them were moved.
    static std::int64_t moved(Index pixels) { return is_signed ? pixels << (bits - 1) : 0; }

private:
    static constexpr int vectors = static_cast<int>(window_bytes) / CONTEXTEM_VECTOR_BYTES;

    static CONTEXTEM_INLINE Vec<Lane> lanes_of(const T* window, int v) {
        Vec<Lane> value;
        __builtin_memcpy(&value, reinterpret_cast<const char*>(window) + v * CONTEXTEM_VECTOR_BYTES, sizeof value);
        if constexpr (is_signed) {
            constexpr Lane sign = static_cast<Lane>(Lane(1) << (bits - 1));
            value ^= splat(static_cast<Lane>(sign | static_cast<Lane>(sign << bits)));
        }
        return value;
    }

    CONTEXTEM_INLINE void add_lanes(int v, Vec<Lane> value) {
        all_[v] += value;
        upper_[v] += value >> bits;
    }

    Vec<Lane> all_[static_cast<std::size_t>(vectors)] = {};
    Vec<Lane> upper_[static_cast<std::size_t>(vectors)] = {};
};

// Floating point. Pixel i of every window is added, in double, to sum i.
template <class T>
class RealSum {
public:
    static constexpr Index capacity = Index(1) << 62;

    CONTEXTEM_INLINE void add(const T* window) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) {
            sums_[v] += doubles(bits_of(window, v));
        }
    }

    CONTEXTEM_INLINE void add(const T* window, const unsigned char* counts) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) {
            sums_[v] += doubles(bits_of(window, v) & bits_of(counts, v));  // NaN beside the detector is not seen
        }
    }

    CONTEXTEM_INLINE double take() {
        double values[static_cast<std::size_t>(window_pixels<T>)];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) {
            store(values + v * lanes<double>, sums_[v]);
            sums_[v] = Vec<double>{};
        }
        for (Index half = window_pixels<T> / 2; half > 0; half /= 2) {
            for (Index i = 0; i < half; ++i) {
                values[i] += values[i + half];
            }
        }
        return values[0];
    }

    static double moved(Index) { return 0.0; }

private:
    static constexpr int vectors = static_cast<int>(window_pixels<T>) / lanes<double>;
    static constexpr int bytes = lanes<double> * static_cast<int>(sizeof(T));  // that become one vector of doubles
    typedef T Reals __attribute__((vector_size(lanes<double> * sizeof(T))));
    typedef LaneIndex<T> Bits __attribute__((vector_size(lanes<double> * sizeof(T))));

    static CONTEXTEM_INLINE Bits bits_of(const void* start, int v) {
        Bits value;
        __builtin_memcpy(&value, static_cast<const char*>(start) + v * bytes, sizeof value);
        return value;
    }

    static CONTEXTEM_INLINE Vec<double> doubles(Bits value) {
        Reals reals;
        __builtin_memcpy(&reals, &value, sizeof reals);
        return __builtin_convertvector(reals, Vec<double>);
    }

    Vec<double> sums_[static_cast<std::size_t>(vectors)] = {};
};

template <class T>
using ZoneSum = std::conditional_t<is_real<T>, RealSum<T>, IntegerSum<std::conditional_t<is_real<T>, int, T>>>;

// Exact for integers.
template <class T>
using Total = std::conditional_t<is_real<T>, double, std::int64_t>;

constexpr int width_index(std::size_t size) { return size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3; }

// `ahead`: bytes from a pattern to the one that is asked for.
template <class T>
CONTEXTEM_INLINE Total<T> sum_windows(const T* pattern, const Windows& windows, Index ahead) {
    ZoneSum<T> sum;
    Total<T> total = 0;
    Index room = sum.capacity;
    const auto add_each = [&](Index count, const auto& add) {
        for (Index i = 0; i < count;) {
            const Index stop = count - i < room ? count : i + room;
            room -= stop - i;
            for (; i < stop; ++i) {
                add(i);
            }
            if (room == 0) {
                total += sum.take();
                room = sum.capacity;
            }
        }
    };
    const auto window_at = [pattern, ahead](std::int32_t start) {
        const T* window = pattern + start;
        __builtin_prefetch(reinterpret_cast<const char*>(window) + ahead, 0, 2);
        return window;
    };
    const std::int32_t* whole = windows.whole.data();
    const PartWindow* parts = windows.parts.data();
    add_each(static_cast<Index>(windows.whole.size()), [&](Index i) { sum.add(window_at(whole[i])); });
    add_each(static_cast<Index>(windows.parts.size()), [&](Index i) {
        sum.add(window_at(parts[i].start), counting.bytes + parts[i].shift * static_cast<Index>(sizeof(T)));
    });
    return total + sum.take();
}

// Of a pattern that is smaller than a window.
template <class T>
Total<T> sum_runs(const T* pattern, const std::vector<Run>& runs) {
    Total<T> total = 0;
    for (std::size_t r = 0; r < runs.size(); ++r) {
        for (std::int32_t k = runs[r].begin; k < runs[r].end; ++k) {
            total += static_cast<Total<T>>(value_at(pattern + k));
        }
    }
    return total;
}

template <class T>
void detectors_of(const PatternsView<T>& patterns, const DetectorZones& detectors, Index begin, Index end,
                  double* sums) {
    const bool small = patterns.pixels < window_pixels<T>;
    const Zone* zones = detectors.zones.data();
    const Index n_zones = static_cast<Index>(detectors.zones.size());
    for (Index p = begin; p < end; ++p) {
        const T* pattern = pattern_at(patterns, p);
        const Index ahead = p + 1 < end ? patterns.pattern_stride : 0;
        Total<T> totals[static_cast<std::size_t>(max_detectors)] = {};
        for (Index z = 0; z < n_zones; ++z) {
            const Zone& zone = zones[z];
            Total<T> sum;
            if (small) {
                sum = sum_runs(pattern, zone.runs);
            } else {
                sum = sum_windows(pattern, zone.windows[width_index(sizeof(T))], ahead);
                sum -= ZoneSum<T>::moved(zone.pixels);
            }
            for (std::uint32_t left = zone.detectors; left != 0; left &= left - 1) {
                totals[__builtin_ctz(left)] += sum;
            }
        }
        for (Index d = 0; d < detectors.count; ++d) {
            sums[p * detectors.count + d] = static_cast<double>(totals[d]);
        }
    }
}

// ---- sums over patterns ---------------------------------------------------------------------------------------------

constexpr Index tile = 2048;  // pixels whose sums stay in the nearest cache while all patterns go by
constexpr Index together = 4;  // patterns that are added at a time

// Adds patterns to sums[0, count), in their order.
template <class T, class Sum>
CONTEXTEM_INLINE void add_patterns(const PatternsView<T>& patterns, Index first, Index last, Index pixel, Index count,
                                   Sum* __restrict sums) {
    const auto value = [](const T* pixels, Index k) { return static_cast<Sum>(value_at(pixels + k)); };
    Index p = first;
    for (; p + together <= last; p += together) {
        const T* a = pattern_at(patterns, p) + pixel;
        const T* b = pattern_at(patterns, p + 1) + pixel;
        const T* c = pattern_at(patterns, p + 2) + pixel;
        const T* d = pattern_at(patterns, p + 3) + pixel;
        for (Index k = 0; k < count; ++k) {
            sums[k] = static_cast<Sum>(sums[k] + value(a, k) + value(b, k) + value(c, k) + value(d, k));
        }
    }
    for (; p < last; ++p) {
        const T* a = pattern_at(patterns, p) + pixel;
        for (Index k = 0; k < count; ++k) {
            sums[k] = static_cast<Sum>(sums[k] + value(a, k));
        }
    }
}

template <class T>
void sum_of(const PatternsView<T>& patterns, Index begin, Index end, double* total) {
    for (Index pixel = begin; pixel < end; pixel += tile) {
        const Index count = end - pixel < tile ? end - pixel : tile;
        if constexpr (is_real<T>) {
            add_patterns(patterns, 0, patterns.count, pixel, count, total + pixel);
        } else {
            constexpr Index capacity = Index(1) << (8 * sizeof(T) - 1);  // patterns that overflow no sum
            alignas(64) Wide<T> sums[static_cast<std::size_t>(tile)];
            for (Index first = 0; first < patterns.count; first += capacity) {
                const Index last = patterns.count - first < capacity ? patterns.count : first + capacity;
                for (Index k = 0; k < count; ++k) {
                    sums[k] = 0;
                }
                add_patterns(patterns, first, last, pixel, count, sums);
                for (Index k = 0; k < count; ++k) {
                    total[pixel + k] += static_cast<double>(sums[k]);
                }
            }
        }
    }
}

}  // namespace

namespace CONTEXTEM_SET {

template <class T>
VirtualDetectorKernels<T> virtual_detector_kernels() {
    return {detectors_of<T>, sum_of<T>};
}

template VirtualDetectorKernels<std::int8_t> virtual_detector_kernels();
template VirtualDetectorKernels<std::uint8_t> virtual_detector_kernels();
template VirtualDetectorKernels<std::int16_t> virtual_detector_kernels();
template VirtualDetectorKernels<std::uint16_t> virtual_detector_kernels();
template VirtualDetectorKernels<std::int32_t> virtual_detector_kernels();
template VirtualDetectorKernels<std::uint32_t> virtual_detector_kernels();
template VirtualDetectorKernels<float> virtual_detector_kernels();
template VirtualDetectorKernels<double> virtual_detector_kernels();

}  // namespace CONTEXTEM_SET
}  // namespace contextem
