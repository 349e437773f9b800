// One vector register of T, as wide as the instruction set this file is compiled for. Everything here is inlined: the
// kernels are compiled once per instruction set and must not share an out-of-line copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "contextem/view.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define CONTEXTEM_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define CONTEXTEM_VECTOR_BYTES 32
#else
#define CONTEXTEM_VECTOR_BYTES 16
#endif

#define CONTEXTEM_INLINE inline __attribute__((always_inline))

namespace contextem {
namespace {

template <class T>
struct Register {
    typedef T type __attribute__((vector_size(CONTEXTEM_VECTOR_BYTES)));  // NOLINT(modernize-use-using): of GCC
};

template <class T>
using Vec = typename Register<T>::type;

template <class T>
constexpr int lanes = CONTEXTEM_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T>
CONTEXTEM_INLINE Vec<T> load(const T* pointer) {
    Vec<T> value;
    __builtin_memcpy(&value, pointer, sizeof value);
    return value;
}

template <class T>
CONTEXTEM_INLINE void store(T* pointer, Vec<T> value) {
    __builtin_memcpy(pointer, &value, sizeof value);
}

// A store past the caches, for results that are too large for them: the line written to is not read first. The address
// is a multiple of the vector's size; stream_fence orders such stores before whatever follows.
#if defined(__AVX512F__)
CONTEXTEM_INLINE void stream(float* pointer, Vec<float> value) { _mm512_stream_ps(pointer, value); }
CONTEXTEM_INLINE void stream(double* pointer, Vec<double> value) { _mm512_stream_pd(pointer, value); }
#elif defined(__AVX2__)
CONTEXTEM_INLINE void stream(float* pointer, Vec<float> value) { _mm256_stream_ps(pointer, value); }
CONTEXTEM_INLINE void stream(double* pointer, Vec<double> value) { _mm256_stream_pd(pointer, value); }
#elif defined(__SSE2__)
CONTEXTEM_INLINE void stream(float* pointer, Vec<float> value) { _mm_stream_ps(pointer, value); }
CONTEXTEM_INLINE void stream(double* pointer, Vec<double> value) { _mm_stream_pd(pointer, value); }
#else
template <class T>
CONTEXTEM_INLINE void stream(T* pointer, Vec<T> value) {
    store(pointer, value);
}
#endif

CONTEXTEM_INLINE void stream_fence() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

template <class T, std::size_t... I>
CONTEXTEM_INLINE Vec<T> splat(T value, std::index_sequence<I...>) {
    return Vec<T>{(static_cast<void>(I), value)...};
}

template <class T>
CONTEXTEM_INLINE Vec<T> splat(T value) {
    return splat(value, std::make_index_sequence<lanes<T>>());
}

// An integer as wide as T.
template <class T>
using LaneIndex = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

// Lane numbers, with which a vector is picked from a window of memory: window[index[i] - from] for every lane i, where
// 0 <= index[i] - from < 2 * lanes.
#if defined(__AVX512F__)
template <class T>
using PickIndex = __m512i;
template <class T>
CONTEXTEM_INLINE PickIndex<T> pick_index(const std::int32_t* index, Index from) {
    const auto start = static_cast<std::int32_t>(from);
    if constexpr (sizeof(T) == 4) {
        return _mm512_sub_epi32(_mm512_loadu_si512(index), _mm512_set1_epi32(start));
    } else {
        const __m256i lane =
            _mm256_sub_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(index)), _mm256_set1_epi32(start));
        return _mm512_maskz_cvtepi32_epi64(0xff, lane);  // GCC 12 warns of the one without a mask
    }
}
CONTEXTEM_INLINE Vec<float> pick(const float* window, PickIndex<float> index) {
    return _mm512_permutex2var_ps(load(window), index, load(window + lanes<float>));
}
CONTEXTEM_INLINE Vec<double> pick(const double* window, PickIndex<double> index) {
    return _mm512_permutex2var_pd(load(window), index, load(window + lanes<double>));
}
#elif defined(__AVX2__)
template <class T>
struct PickIndex {
    __m256i lane;  // 32 bits each; doubles use the lower half
};
template <class T>
CONTEXTEM_INLINE PickIndex<T> pick_index(const std::int32_t* index, Index from) {
    const __m256i start = _mm256_set1_epi32(static_cast<std::int32_t>(from));
    return {_mm256_sub_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(index)), start)};
}
CONTEXTEM_INLINE Vec<float> pick(const float* window, PickIndex<float> index) {
    const __m256 all = _mm256_castsi256_ps(_mm256_set1_epi32(-1));  // for the same reason
    return _mm256_mask_i32gather_ps(_mm256_setzero_ps(), window, index.lane, all, 4);
}
CONTEXTEM_INLINE Vec<double> pick(const double* window, PickIndex<double> index) {
    const __m256d all = _mm256_castsi256_pd(_mm256_set1_epi32(-1));
    return _mm256_mask_i32gather_pd(_mm256_setzero_pd(), window, _mm256_castsi256_si128(index.lane), all, 8);
}
#else
template <class T>
struct PickIndex {
    std::int32_t lane[static_cast<std::size_t>(lanes<T>)];
};
template <class T>
CONTEXTEM_INLINE PickIndex<T> pick_index(const std::int32_t* index, Index from) {
    PickIndex<T> picked;
    for (int i = 0; i < lanes<T>; ++i) {
        picked.lane[i] = index[i] - static_cast<std::int32_t>(from);
    }
    return picked;
}
template <class T>
CONTEXTEM_INLINE Vec<T> pick(const T* window, const PickIndex<T>& index) {
    Vec<T> value;
    for (int i = 0; i < lanes<T>; ++i) {
        value[i] = window[index.lane[i]];
    }
    return value;
}
#endif

// a * b + c, fused where the instruction set can
#if defined(__AVX512F__)
CONTEXTEM_INLINE Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
CONTEXTEM_INLINE Vec<double> multiply_add(Vec<double> a, Vec<double> b, Vec<double> c) {
    return _mm512_fmadd_pd(a, b, c);
}
#elif defined(__AVX2__)
CONTEXTEM_INLINE Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm256_fmadd_ps(a, b, c); }
CONTEXTEM_INLINE Vec<double> multiply_add(Vec<double> a, Vec<double> b, Vec<double> c) {
    return _mm256_fmadd_pd(a, b, c);
}
#elif defined(__aarch64__)
CONTEXTEM_INLINE Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> c) { return vfmaq_f32(c, a, b); }
CONTEXTEM_INLINE Vec<double> multiply_add(Vec<double> a, Vec<double> b, Vec<double> c) { return vfmaq_f64(c, a, b); }
#else
template <class V>
CONTEXTEM_INLINE V multiply_add(V a, V b, V c) {
    return a * b + c;
}
#endif

template <class T, std::size_t... I>
CONTEXTEM_INLINE Vec<T> reverse(Vec<T> value, std::index_sequence<I...>) {
    return __builtin_shufflevector(value, value, static_cast<int>(sizeof...(I) - 1 - I)...);
}

template <class T>
CONTEXTEM_INLINE Vec<T> reverse(Vec<T> value) {
    return reverse<T>(value, std::make_index_sequence<lanes<T>>());
}

// The upper half of a, then that of b.
template <class T, std::size_t... I>
CONTEXTEM_INLINE Vec<T> upper_halves(Vec<T> a, Vec<T> b, std::index_sequence<I...>) {
    constexpr std::size_t half = sizeof...(I) / 2;
    return __builtin_shufflevector(a, b, static_cast<int>(I + half + I / half * half)...);
}

template <class T>
CONTEXTEM_INLINE Vec<T> upper_halves(Vec<T> a, Vec<T> b) {
    return upper_halves<T>(a, b, std::make_index_sequence<lanes<T>>());
}

// ---- transpose ------------------------------------------------------------------------------------------------------

// Transposes 4 x 4 floats, or 2 x 2 doubles, in each 16 bytes of 4, or 2, vectors.
template <std::size_t... I>
CONTEXTEM_INLINE void transpose_blocks(Vec<float>* v, std::index_sequence<I...>) {
    const auto low = [](Vec<float> a, Vec<float> b) {  // a0 b0 a1 b1
        return __builtin_shufflevector(a, b, static_cast<int>(I / 4 * 4 + I % 4 / 2 + I % 2 * sizeof...(I))...);
    };
    const auto high = [](Vec<float> a, Vec<float> b) {  // a2 b2 a3 b3
        return __builtin_shufflevector(a, b, static_cast<int>(I / 4 * 4 + I % 4 / 2 + 2 + I % 2 * sizeof...(I))...);
    };
    const Vec<float> even_low = low(v[0], v[2]);
    const Vec<float> even_high = high(v[0], v[2]);
    const Vec<float> odd_low = low(v[1], v[3]);
    const Vec<float> odd_high = high(v[1], v[3]);
    v[0] = low(even_low, odd_low);
    v[1] = high(even_low, odd_low);
    v[2] = low(even_high, odd_high);
    v[3] = high(even_high, odd_high);
}

template <std::size_t... I>
CONTEXTEM_INLINE void transpose_blocks(Vec<double>* v, std::index_sequence<I...>) {
    const Vec<double> first = v[0];
    const Vec<double> second = v[1];
    v[0] = __builtin_shufflevector(first, second, static_cast<int>(I / 2 * 2 + I % 2 * sizeof...(I))...);
    v[1] = __builtin_shufflevector(first, second, static_cast<int>(I / 2 * 2 + 1 + I % 2 * sizeof...(I))...);
}

// A vector of 16-byte blocks of two: blocks of a count from 0, those of b go on.
template <class T, int... block, std::size_t... I>
CONTEXTEM_INLINE Vec<T> take_blocks(Vec<T> a, Vec<T> b, std::integer_sequence<int, block...>,
                                    std::index_sequence<I...>) {
    constexpr int side = 16 / static_cast<int>(sizeof(T));
    constexpr int blocks[] = {block...};
    return __builtin_shufflevector(a, b, (blocks[I / side] * side + static_cast<int>(I) % side)...);
}

template <class T, int... block>
CONTEXTEM_INLINE Vec<T> take_blocks(Vec<T> a, Vec<T> b) {
    return take_blocks<T>(a, b, std::integer_sequence<int, block...>(), std::make_index_sequence<lanes<T>>());
}

// Transposes the square of 16-byte blocks of vectors that lie `step` apart.
template <class T>
CONTEXTEM_INLINE void transpose_square_of_blocks(Vec<T>* v, Index step) {
#if CONTEXTEM_VECTOR_BYTES == 64
    const Vec<T> first_low = take_blocks<T, 0, 1, 4, 5>(v[0], v[step]);
    const Vec<T> first_high = take_blocks<T, 2, 3, 6, 7>(v[0], v[step]);
    const Vec<T> second_low = take_blocks<T, 0, 1, 4, 5>(v[2 * step], v[3 * step]);
    const Vec<T> second_high = take_blocks<T, 2, 3, 6, 7>(v[2 * step], v[3 * step]);
    v[0] = take_blocks<T, 0, 2, 4, 6>(first_low, second_low);
    v[step] = take_blocks<T, 1, 3, 5, 7>(first_low, second_low);
    v[2 * step] = take_blocks<T, 0, 2, 4, 6>(first_high, second_high);
    v[3 * step] = take_blocks<T, 1, 3, 5, 7>(first_high, second_high);
#elif CONTEXTEM_VECTOR_BYTES == 32
    const Vec<T> low = take_blocks<T, 0, 2>(v[0], v[step]);
    v[step] = take_blocks<T, 1, 3>(v[0], v[step]);
    v[0] = low;
#else
    static_cast<void>(v);
    static_cast<void>(step);  // one block
#endif
}

// Value j of vector i becomes value i of vector j.
template <class T>
CONTEXTEM_INLINE void transpose(Vec<T> (&v)[static_cast<std::size_t>(lanes<T>)]) {
    constexpr int side = 16 / static_cast<int>(sizeof(T));
#pragma GCC unroll 4
    for (int i = 0; i < lanes<T>; i += side) {
        transpose_blocks(v + i, std::make_index_sequence<lanes<T>>());
    }
#pragma GCC unroll 4
    for (int i = 0; i < side; ++i) {
        transpose_square_of_blocks<T>(v + i, side);
    }
}

}  // namespace
}  // namespace contextem
