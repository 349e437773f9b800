// The rotation kernels, compiled once per instruction set (see CMakeLists.txt); all but the last function is local.
//
// Each row is read once and written once: J values in, J' or J out, one square root or two multiplications per value.
// The loops over modes gather from the row, which the compiler turns into vector instructions. Threads own ranges of
// rows; every row passes through the same instructions wherever it stands.
#include "rotation_kernels.hpp"

#include "simd.hpp"

namespace contextem {
namespace {

// No float overflows or underflows when squared in double.
CONTEXTEM_INLINE float modulus(float a, float b) {
    const double x = static_cast<double>(a);
    const double y = static_cast<double>(b);
    return static_cast<float>(__builtin_sqrt(x * x + y * y));
}

// Scaled by a power of two where a square would overflow or lose digits.
CONTEXTEM_INLINE double modulus(double a, double b) {
    const double x = __builtin_fabs(a);
    const double y = __builtin_fabs(b);
    const double larger = x > y ? x : y;
    const double down = larger > 0x1p+500 ? 0x1p-600 : 1.0;
    const double scale = larger < 0x1p-450 ? 0x1p+600 : down;
    const double up = larger > 0x1p+500 ? 0x1p+600 : 1.0;
    const double back = larger < 0x1p-450 ? 0x1p-600 : up;
    return __builtin_sqrt((x * scale) * (x * scale) + (y * scale) * (y * scale)) * back;
}

// Infinite where a part is, though the other be NaN.
template <class T>
CONTEXTEM_INLINE T modulus_or_infinity(T a, T b) {
    const T infinity = static_cast<T>(__builtin_inf());
    const T size = modulus(a, b);
    const T checked = __builtin_fabs(a) == infinity ? infinity : size;
    return __builtin_fabs(b) == infinity ? infinity : checked;
}

template <class T>
void invariants_of(const MomentsView<T>& moments, const std::int32_t* __restrict cosine,
                   const std::int32_t* __restrict sine, Index count, Index begin, Index end, T* invariants) {
    const Index step = moments.mode_stride;
    for (Index p = begin; p < end; ++p) {
        const T* __restrict row = moments.data + p * moments.row_stride;
        T* __restrict out = invariants + p * count;
        if (step == 1) {
            for (Index i = 0; i < count; ++i) {
                out[i] = modulus_or_infinity(row[cosine[i]], row[sine[i]]);
            }
        } else {
            for (Index i = 0; i < count; ++i) {
                out[i] = modulus_or_infinity(row[cosine[i] * step], row[sine[i] * step]);
            }
        }
        for (Index i = 0; i < count; ++i) {
            if (cosine[i] == sine[i]) {
                out[i] = row[cosine[i] * step];
            }
        }
    }
}

template <class T>
void rotate_rows(const MomentsView<T>& moments, const std::int32_t* __restrict partner, const T* __restrict along,
                 const T* __restrict across, Index begin, Index end, T* rotated) {
    const Index step = moments.mode_stride;
    for (Index p = begin; p < end; ++p) {
        const T* __restrict row = moments.data + p * moments.row_stride;
        T* __restrict out = rotated + p * moments.modes;
        if (step == 1) {
            for (Index j = 0; j < moments.modes; ++j) {
                out[j] = along[j] * row[j] + across[j] * row[partner[j]];
            }
        } else {
            for (Index j = 0; j < moments.modes; ++j) {
                out[j] = along[j] * row[j * step] + across[j] * row[partner[j] * step];
            }
        }
    }
}

template <class T>
constexpr RotationKernels<T> all = {invariants_of<T>, rotate_rows<T>};

}  // namespace

const RotationInstructionSet& CONTEXTEM_ROTATION_KERNELS() {
    static constexpr RotationInstructionSet set = {CONTEXTEM_KERNELS_NAME, all<float>, all<double>};
    return set;
}

}  // namespace contextem
