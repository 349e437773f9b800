// One vector register of T, as wide as the instruction set this file is compiled for. Everything here is inlined: the
// kernels are compiled once per instruction set and must not share an out-of-line copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
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
    typedef T type __attribute__((vector_size(CONTEXTEM_VECTOR_BYTES)));
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

template <class T, std::size_t... I>
CONTEXTEM_INLINE Vec<T> splat(T value, std::index_sequence<I...>) {
    return Vec<T>{(static_cast<void>(I), value)...};
}

template <class T>
CONTEXTEM_INLINE Vec<T> splat(T value) {
    return splat(value, std::make_index_sequence<lanes<T>>());
}

template <class T, std::size_t... I>
CONTEXTEM_INLINE Vec<T> reverse(Vec<T> value, std::index_sequence<I...>) {
    return __builtin_shufflevector(value, value, static_cast<int>(sizeof...(I) - 1 - I)...);
}

template <class T>
CONTEXTEM_INLINE Vec<T> reverse(Vec<T> value) {
    return reverse<T>(value, std::make_index_sequence<lanes<T>>());
}

// An integer as wide as T, to number lanes with.
template <class T>
using LaneIndex = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

// window[index[i]] for every lane i, with 0 <= index[i] < 2 * lanes
#if defined(__AVX512F__)
CONTEXTEM_INLINE Vec<float> pick(const float* window, const std::int32_t* index) {
    return _mm512_permutex2var_ps(load(window), _mm512_loadu_si512(index), load(window + lanes<float>));
}
CONTEXTEM_INLINE Vec<double> pick(const double* window, const std::int64_t* index) {
    return _mm512_permutex2var_pd(load(window), _mm512_loadu_si512(index), load(window + lanes<double>));
}
#else
template <class T>
CONTEXTEM_INLINE Vec<T> pick(const T* window, const LaneIndex<T>* index) {
    Vec<T> value;
    for (int i = 0; i < lanes<T>; ++i) {
        value[i] = window[index[i]];
    }
    return value;
}
#endif

// a * b + c, fused where the instruction set can
#if defined(__AVX512F__)
CONTEXTEM_INLINE Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> c) {
    return _mm512_fmadd_ps(a, b, c);
}
CONTEXTEM_INLINE Vec<double> multiply_add(Vec<double> a, Vec<double> b, Vec<double> c) {
    return _mm512_fmadd_pd(a, b, c);
}
#elif defined(__AVX2__)
CONTEXTEM_INLINE Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> c) {
    return _mm256_fmadd_ps(a, b, c);
}
CONTEXTEM_INLINE Vec<double> multiply_add(Vec<double> a, Vec<double> b, Vec<double> c) {
    return _mm256_fmadd_pd(a, b, c);
}
#else
template <class V>
CONTEXTEM_INLINE V multiply_add(V a, V b, V c) {
    return a * b + c;
}
#endif

}  // namespace
}  // namespace contextem
