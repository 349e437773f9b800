// The rotation kernels, compiled once per instruction set (see CMakeLists.txt); all but the last function is local.
//
// Each row is read once and written once: J values in, J' or J out, one square root or two multiplications per value.
// The modes of some rows are gathered one by one into the order of the result, then worked on by whole vectors. Threads
// own ranges of rows; every value passes through the same operations wherever it stands.
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

// The modes of a row in the order of a plan.
template <class T>
CONTEXTEM_INLINE void gather(const T* __restrict row, Index step, const std::int32_t* __restrict modes, Index count,
                             T* __restrict out) {
    for (Index i = 0; i < count; ++i) {
        out[i] = row[modes[i] * step];
    }
}

template <class T>
void invariants_of(const MomentsView<T>& moments, const InvariantPlan& plan, Index begin, Index end, T* pairs,
                   T* invariants) {
    const Index count = static_cast<Index>(plan.cosine.size());
    const std::int32_t* cosine = plan.cosine.data();
    const std::int32_t* sine = plan.sine.data();
    const Index step = moments.mode_stride;
    for (Index start = begin; start < end; start += rotation_rows) {
        const Index stop = start + rotation_rows < end ? start + rotation_rows : end;
        const T* __restrict first = pairs;
        const T* __restrict second = pairs + rotation_rows * count;
        for (Index p = start; p < stop; ++p) {
            const T* row = moments.data + p * moments.row_stride;
            gather(row, step, cosine, count, pairs + (p - start) * count);
            gather(row, step, sine, count, pairs + (rotation_rows + p - start) * count);
        }
        T* __restrict out = invariants + start * count;
        for (Index i = 0; i < (stop - start) * count; ++i) {
            out[i] = modulus_or_infinity(first[i], second[i]);
        }
        for (Index i = 0; i < count; ++i) {
            if (cosine[i] == sine[i]) {
                for (Index p = 0; p < stop - start; ++p) {
                    out[p * count + i] = first[p * count + i];
                }
            }
        }
    }
}

template <class T>
void rotate_rows(const MomentsView<T>& moments, const RotationPlan<T>& plan, Index begin, Index end, T* partners,
                 T* rotated) {
    const Index count = moments.modes;
    const T* __restrict along = plan.along.data();
    const T* __restrict across = plan.across.data();
    const Index step = moments.mode_stride;
    for (Index start = begin; start < end; start += rotation_rows) {
        const Index stop = start + rotation_rows < end ? start + rotation_rows : end;
        for (Index p = start; p < stop; ++p) {
            gather(moments.data + p * moments.row_stride, step, plan.partner.data(), count,
                   partners + (p - start) * count);
        }
        for (Index p = start; p < stop; ++p) {
            const T* __restrict row = moments.data + p * moments.row_stride;
            const T* __restrict partner = partners + (p - start) * count;
            T* __restrict out = rotated + p * count;
            if (step == 1) {
                for (Index j = 0; j < count; ++j) {
                    out[j] = along[j] * row[j] + across[j] * partner[j];
                }
            } else {
                for (Index j = 0; j < count; ++j) {
                    out[j] = along[j] * row[j * step] + across[j] * partner[j];
                }
            }
        }
    }
}

}  // namespace

namespace CONTEXTEM_SET {

template <class T>
RotationKernels<T> rotation_kernels() {
    return {invariants_of<T>, rotate_rows<T>};
}

template RotationKernels<float> rotation_kernels();
template RotationKernels<double> rotation_kernels();

}  // namespace CONTEXTEM_SET
}  // namespace contextem
