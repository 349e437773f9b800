// The kernels of the virtual detectors, compiled once per instruction set (see CMakeLists.txt); all but the last
// function is local.
//
// A pattern is summed band by band, a band zone by zone, a zone window by window: two loops without a branch, so that
// the short runs of a thin ring cost no mispredicted one. Each window asks for one of the band after, those in the
// order of the memory: it delivers twice as fast as when asked zone by zone. Threads own ranges of patterns, or of
// pixels.
#include "virtual_detector_kernels.hpp"

#include "simd.hpp"

namespace contextem {
namespace {

// An integer twice as wide.
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

constexpr int registers = static_cast<int>(window_bytes) / CONTEXTEM_VECTOR_BYTES;  // of a window

// An unsigned integer of so many bytes.
template <std::size_t size>
using Unsigned = std::conditional_t<
    size == 1, std::uint8_t,
    std::conditional_t<size == 2, std::uint16_t, std::conditional_t<size == 4, std::uint32_t, std::uint64_t>>>;

template <class U>
CONTEXTEM_INLINE Vec<U> whole_register(const void* window, int v) {
    return load(static_cast<const U*>(window) + v * lanes<U>);
}

// 0 where the bit of a pixel is not set; such pixels are read, but what they hold is not looked at.
#if defined(__AVX512BW__)
template <class U>
CONTEXTEM_INLINE Vec<U> part_register(const void* window, std::uint64_t pixels, int) {
    if constexpr (sizeof(U) == 1) {
        return reinterpret_cast<Vec<U>>(_mm512_maskz_loadu_epi8(pixels, window));
    } else if constexpr (sizeof(U) == 2) {
        return reinterpret_cast<Vec<U>>(_mm512_maskz_loadu_epi16(static_cast<__mmask32>(pixels), window));
    } else if constexpr (sizeof(U) == 4) {
        return reinterpret_cast<Vec<U>>(_mm512_maskz_loadu_epi32(static_cast<__mmask16>(pixels), window));
    } else {
        return reinterpret_cast<Vec<U>>(_mm512_maskz_loadu_epi64(static_cast<__mmask8>(pixels), window));
    }
}
#else
template <class U, std::size_t... I>
CONTEXTEM_INLINE Vec<U> bit_of_lane(std::index_sequence<I...>) {
    return Vec<U>{static_cast<U>(U(1) << (I % (8 * sizeof(U))))...};
}

template <std::size_t... I>
CONTEXTEM_INLINE Vec<std::uint64_t> byte_of_lane(std::uint64_t bits, std::index_sequence<I...>) {
    return Vec<std::uint64_t>{(((bits >> (8 * I)) & 0xff) * 0x0101010101010101u)...};
}

template <class U>
CONTEXTEM_INLINE Vec<U> part_register(const void* window, std::uint64_t pixels, int v) {
    const std::uint64_t bits = pixels >> (v * lanes<U>);
    Vec<U> everywhere;  // all bits of a lane's own, in every lane
    if constexpr (sizeof(U) == 1) {
        everywhere = reinterpret_cast<Vec<U>>(byte_of_lane(bits, std::make_index_sequence<lanes<std::uint64_t>>()));
    } else {
        everywhere = splat(static_cast<U>(bits));
    }
    const Vec<U> own = bit_of_lane<U>(std::make_index_sequence<lanes<U>>());
    return whole_register<U>(window, v) & reinterpret_cast<Vec<U>>((everywhere & own) == own);
}
#endif

// Lanes added by twos until they have 64 bits.
template <class U>
CONTEXTEM_INLINE Vec<std::uint64_t> added_by_twos(Vec<U> value) {
    if constexpr (sizeof(U) == 8) {
        return value;
    } else {
        using Lane = Unsigned<2 * sizeof(U)>;
        constexpr int bits = 8 * sizeof(U);
        const auto pairs = reinterpret_cast<Vec<Lane>>(value);
        const Vec<Lane> lower = splat(static_cast<Lane>((Lane(1) << bits) - 1));
        return added_by_twos<Lane>((pairs & lower) + (pairs >> bits));
    }
}

// The first half of a register in double, and the last.
#if defined(__AVX512F__)
CONTEXTEM_INLINE Vec<double> doubles(__m256 half) { return _mm512_maskz_cvtps_pd(0xff, half); }
CONTEXTEM_INLINE Vec<double> first_doubles(Vec<float> value) {
    return doubles(__builtin_shufflevector(value, value, 0, 1, 2, 3, 4, 5, 6, 7));  // GCC 12 warns of the intrinsic
}
CONTEXTEM_INLINE Vec<double> last_doubles(Vec<float> value) {
    return doubles(__builtin_shufflevector(value, value, 8, 9, 10, 11, 12, 13, 14, 15));
}
#elif defined(__AVX2__)
CONTEXTEM_INLINE Vec<double> first_doubles(Vec<float> value) { return _mm256_cvtps_pd(_mm256_castps256_ps128(value)); }
CONTEXTEM_INLINE Vec<double> last_doubles(Vec<float> value) { return _mm256_cvtps_pd(_mm256_extractf128_ps(value, 1)); }
#else
CONTEXTEM_INLINE Vec<double> first_doubles(Vec<float> value) {
    return Vec<double>{static_cast<double>(value[0]), static_cast<double>(value[1])};
}
CONTEXTEM_INLINE Vec<double> last_doubles(Vec<float> value) {
    return Vec<double>{static_cast<double>(value[2]), static_cast<double>(value[3])};
}
#endif

// Integers. Two neighbours make one lane of twice the width: `all` adds whole lanes, modulo its width, and `upper` the
// second neighbours, from which the first ones follow. Signed ones are moved to begin at 0.
template <class T>
class IntegerSum {
public:
    using U = std::make_unsigned_t<T>;
    using Lane = Unsigned<2 * sizeof(T)>;
    static constexpr int bits = 8 * static_cast<int>(sizeof(T));
    static constexpr Index capacity = Index(1) << bits;  // windows that overflow no lane

    CONTEXTEM_INLINE void add(int v, Vec<U> pixels) {
        auto value = reinterpret_cast<Vec<Lane>>(pixels);
        if constexpr (std::is_signed_v<T>) {
            value ^= reinterpret_cast<Vec<Lane>>(splat(static_cast<U>(U(1) << (bits - 1))));
        }
        all_[v] += value;
        upper_[v] += value >> bits;
    }

    // The sum of as many windows, and from then on of others.
    CONTEXTEM_INLINE std::int64_t take(Index windows) {
        Vec<std::uint64_t> sums = {};
#pragma GCC unroll 4
        for (int v = 0; v < registers; ++v) {
            sums += added_by_twos<Lane>(all_[v] - (upper_[v] << bits)) + added_by_twos<Lane>(upper_[v]);
            all_[v] = upper_[v] = Vec<Lane>{};
        }
        std::uint64_t total = 0;
        for (int i = 0; i < lanes<std::uint64_t>; ++i) {
            total += sums[i];
        }
        const Index moved = std::is_signed_v<T> ? (windows * window_pixels<T>) << (bits - 1) : 0;
        return static_cast<std::int64_t>(total) - moved;
    }

private:
    Vec<Lane> all_[static_cast<std::size_t>(registers)] = {};
    Vec<Lane> upper_[static_cast<std::size_t>(registers)] = {};
};

// Floating point. Pixel i of every window is added, in double, to sum i.
template <class T>
class RealSum {
public:
    using U = Unsigned<sizeof(T)>;
    static constexpr Index capacity = Index(1) << 62;

    CONTEXTEM_INLINE void add(int v, Vec<U> pixels) {
        if constexpr (sizeof(T) == sizeof(double)) {
            sums_[v] += reinterpret_cast<Vec<double>>(pixels);
        } else {
            sums_[2 * v] += first_doubles(reinterpret_cast<Vec<T>>(pixels));
            sums_[2 * v + 1] += last_doubles(reinterpret_cast<Vec<T>>(pixels));
        }
    }

    CONTEXTEM_INLINE double take(Index) {
        double values[static_cast<std::size_t>(window_pixels<T>)];
#pragma GCC unroll 8
        for (int i = 0; i < count; ++i) {
            store(values + i * lanes<double>, sums_[i]);
            sums_[i] = Vec<double>{};
        }
        for (Index half = window_pixels<T> / 2; half > 0; half /= 2) {
            for (Index i = 0; i < half; ++i) {
                values[i] += values[i + half];
            }
        }
        return values[0];
    }

private:
    static constexpr int count = static_cast<int>(window_pixels<T>) / lanes<double>;

    Vec<double> sums_[static_cast<std::size_t>(count)] = {};
};

template <class T>
using ZoneSum = std::conditional_t<is_real<T>, RealSum<T>, IntegerSum<std::conditional_t<is_real<T>, int, T>>>;

// Exact for integers.
template <class T>
using Total = std::conditional_t<is_real<T>, double, std::int64_t>;

// Before each window calls fetch().
template <class T, class Fetch>
CONTEXTEM_INLINE Total<T> sum_windows(const T* pattern, const Windows& windows, const Fetch& fetch) {
    using Sum = ZoneSum<T>;
    Sum sum;
    Total<T> total = 0;
    Index room = Sum::capacity;
    const auto add_each = [&](Index count, const auto& pixels_of) {
        for (Index i = 0; i < count;) {
            const Index stop = count - i < room ? count : i + room;
            room -= stop - i;
            for (; i < stop; ++i) {
                fetch();
#pragma GCC unroll 4
                for (int v = 0; v < registers; ++v) {
                    sum.add(v, pixels_of(i, v));
                }
            }
            if (room == 0) {
                total += sum.take(Sum::capacity);
                room = Sum::capacity;
            }
        }
    };
    using U = typename Sum::U;
    const std::int32_t* whole = windows.whole.data();
    const PartWindow* parts = windows.parts.data();
    add_each(static_cast<Index>(windows.whole.size()),
             [&](Index i, int v) { return whole_register<U>(pattern + whole[i], v); });
    add_each(static_cast<Index>(windows.parts.size()),
             [&](Index i, int v) { return part_register<U>(pattern + parts[i].start, parts[i].pixels, v); });
    return total + sum.take(Sum::capacity - room);
}

template <class T>
void detectors_of(const PatternsView<T>& patterns, const DetectorZones& detectors, Index begin, Index end,
                  double* sums) {
    const std::vector<PatternBand>& bands = detectors.bands[sizeof(T) == 1   ? 0
                                                            : sizeof(T) == 2 ? 1
                                                            : sizeof(T) == 4 ? 2
                                                                             : 3];
    T padded[static_cast<std::size_t>(window_pixels<T>)] = {};
    for (Index p = begin; p < end; ++p) {
        const T* pattern = pattern_at(patterns, p);
        const T* next = pattern_at(patterns, p + 1 < end ? p + 1 : p);
        if (patterns.pixels < window_pixels<T>) {
            __builtin_memcpy(padded, pattern, static_cast<std::size_t>(patterns.pixels) * sizeof(T));
            pattern = padded;
        }
        Total<T> totals[static_cast<std::size_t>(max_detectors)] = {};
        for (std::size_t b = 0; b < bands.size(); ++b) {
            const T* fetched = b + 1 < bands.size() ? pattern : next;
            const std::int32_t* fetch = bands[b].fetches.data();
            for (const Zone& zone : bands[b].zones) {
                const Total<T> sum = sum_windows(pattern, zone.windows,
                                                 [&fetch, fetched] { __builtin_prefetch(fetched + *fetch++, 0, 3); });
                for (std::uint32_t left = zone.detectors; left != 0; left &= left - 1) {
                    totals[__builtin_ctz(left)] += sum;
                }
            }
        }
        for (Index d = 0; d < detectors.count; ++d) {
            sums[p * detectors.count + d] = static_cast<double>(totals[d]);
        }
    }
}

// ---- sums over patterns ---------------------------------------------------------------------------------------------

constexpr Index tile = 2048;   // pixels whose sums stay in the nearest cache while all patterns go by
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
