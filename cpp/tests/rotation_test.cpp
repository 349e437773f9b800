#include "contextem/rotation.hpp"

#include <limits>

#include "check.hpp"

using namespace contextem;

namespace {

// Modes a_00, a_1-1, a_11 of many rows, of which every second value is read.
template <class T>
void compare(double tolerance) {
    constexpr Index count = 9001;  // three threads, the last with a part of a grain
    const std::vector<double> values = numbers(count * 6, 1);
    const std::vector<T> moments(values.begin(), values.end());
    const MomentsView<T> view = {moments.data(), count, 3, 6, 2};

    const InvariantPlan pairs = {{0, 2}, {0, 1}};
    std::vector<T> one(count * 2);
    std::vector<T> many = one;
    rotation_invariants(view, pairs, 1, one.data());
    rotation_invariants(view, pairs, 3, many.data());
    CHECK(one == many);

    const RotationPlan<T> quarter = {{0, 2, 1}, {1, 0, 0}, {0, -1, 1}};
    std::vector<T> turned(count * 3);
    rotate_moments(view, quarter, 3, turned.data());
    for (std::size_t p = 0; p < count; ++p) {
        const T* a = moments.data() + 6 * p;
        CHECK(one[2 * p] == a[0]);
        const double modulus = std::hypot(static_cast<double>(a[2]), static_cast<double>(a[4]));
        CHECK_NEAR(static_cast<double>(one[2 * p + 1]), modulus, tolerance * modulus);
        CHECK(turned[3 * p] == a[0] && turned[3 * p + 1] == -a[4] && turned[3 * p + 2] == a[2]);
    }
}

template <class T>
T modulus(T a, T b) {
    const T pair[] = {a, b};
    const InvariantPlan plan = {{0}, {1}};
    T result = T(-1);
    rotation_invariants(MomentsView<T>{pair, 1, 2, 2, 1}, plan, 1, &result);
    return result;
}

template <class T>
void check_extremes() {
    const T infinity = std::numeric_limits<T>::infinity();
    const T nan = std::numeric_limits<T>::quiet_NaN();
    const T largest = std::numeric_limits<T>::max();
    const T smallest = std::numeric_limits<T>::denorm_min();
    CHECK(modulus(largest, T(0)) == largest);
    CHECK(modulus(-largest, largest) == infinity);
    CHECK(modulus(largest / 5 * 3, largest / 5 * 4) > largest / 2);
    CHECK(std::isfinite(modulus(largest / 10 * 6, largest / 10 * 6)));
    CHECK(modulus(smallest, T(0)) == smallest);
    CHECK(modulus(3 * smallest, 4 * smallest) == 5 * smallest);
    CHECK(modulus(T(0), T(0)) == T(0));
    CHECK(modulus(infinity, nan) == infinity && modulus(nan, -infinity) == infinity);
    CHECK(std::isnan(modulus(nan, T(1))) && std::isnan(modulus(T(1), nan)));
}

}  // namespace

int main() {
    compare<float>(1.2e-7);
    compare<double>(4.5e-16);
    check_extremes<float>();
    check_extremes<double>();
    return failures();
}
