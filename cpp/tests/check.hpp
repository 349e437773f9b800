// Two checks, a counter, and numbers to work on: all that these tests need.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

inline int& failure_count() {
    static int count = 0;
    return count;
}

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            std::printf("%s:%d: %s is false\n", __FILE__, __LINE__, #condition); \
            ++failure_count();                                                   \
        }                                                                        \
    } while (false)

#define CHECK_NEAR(actual, expected, tolerance)                                                  \
    do {                                                                                         \
        const double a_ = (actual), e_ = (expected);                                             \
        if (!(std::abs(a_ - e_) <= (tolerance))) {                                               \
            std::printf("%s:%d: %s is %.17g, not %.17g\n", __FILE__, __LINE__, #actual, a_, e_); \
            ++failure_count();                                                                   \
        }                                                                                        \
    } while (false)

// Exit status of a test program.
inline int failures() { return failure_count() == 0 ? 0 : 1; }

// Reproducible numbers in [0, 1), by a linear congruence.
inline std::vector<double> numbers(int count, std::uint64_t seed) {
    std::vector<double> values(static_cast<std::size_t>(count));
    std::uint64_t state = 0x9e3779b97f4a7c15ull * (seed + 1);
    for (double& value : values) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        value = static_cast<double>(state >> 11) * 0x1p-53;
    }
    return values;
}
