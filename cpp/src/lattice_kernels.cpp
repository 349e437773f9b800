// Power spectrum of one tile, compiled once per instruction set (see CMakeLists.txt).
//
//   P[v, u] = |sum_jk t[j, k] exp(-2 pi i (v j + u k) / pad)|^2      t (rows, columns), u = 0 .. c, v = -c .. c
//
// A pruned Fourier transform as two matrix products, for c is a small part of pad. Offsets are counted from the tile's
// centre, where the cosine is even and the sine odd: rows and columns are folded first, which halves the products; the
// other half plane follows from P[-v, -u] = P[v, u]. About c rows columns + 2 c^2 rows multiplications.
// Blocks of one register of bins by 4 lines stay in registers.
#include "column_kernels.hpp"
#include "simd.hpp"

namespace contextem {
namespace {

constexpr Index bins = lanes<float>;          // in a register
constexpr Index lines = 4;                    // of the first product; two registers each
constexpr Index lines2 = bins == 16 ? 4 : 2;  // of the second; four registers each
using Bins = Vec<float>;

void tile_power(const float* tile, const SpectrumTables& tables, float* work, float* power) {
    const Index rows = tables.rows;
    const Index columns = tables.columns;
    const Index width = tables.width;
    const float* column_cos = tables.column_cos.data();
    const float* column_sin = tables.column_sin.data();
    const float* row_cos = tables.row_cos.data();
    const float* row_sin = tables.row_sin.data();
    const Index half_columns = columns - columns / 2;
    const Index half_rows = rows - rows / 2;
    const Index padded_rows = (rows + lines - 1) / lines * lines;
    float* even = work;  // (padded_rows, half_columns)
    float* odd = even + padded_rows * half_columns;
    float* real = odd + padded_rows * half_columns;  // (padded_rows, width)
    float* imag = real + padded_rows * width;
    float* fold = imag + padded_rows * width;  // (4, half_rows, width)

    for (Index r = 0; r < padded_rows; ++r) {
        for (Index j = 0; j < half_columns; ++j) {
            const Index after = columns / 2 + j;
            const Index before = columns - 1 - after;
            const float a = r < rows ? tile[r * columns + after] : 0.0f;
            const float b = r < rows && before != after ? tile[r * columns + before] : 0.0f;
            even[r * half_columns + j] = a + b;
            odd[r * half_columns + j] = before != after ? a - b : 0.0f;
        }
    }
    for (Index u = 0; u < width; u += bins) {
        for (Index r = 0; r < padded_rows; r += lines) {
            Bins sum_even[lines] = {};
            Bins sum_odd[lines] = {};
            for (Index j = 0; j < half_columns; ++j) {
                const Bins cosine = load(column_cos + j * width + u);
                const Bins sine = load(column_sin + j * width + u);
#pragma GCC unroll 4
                for (Index i = 0; i < lines; ++i) {
                    sum_even[i] = multiply_add(splat(even[(r + i) * half_columns + j]), cosine, sum_even[i]);
                    sum_odd[i] = multiply_add(splat(odd[(r + i) * half_columns + j]), sine, sum_odd[i]);
                }
            }
            for (Index i = 0; i < lines; ++i) {
                store(real + (r + i) * width + u, sum_even[i]);
                store(imag + (r + i) * width + u, -sum_odd[i]);
            }
        }
    }
    float* even_real = fold;
    float* even_imag = even_real + half_rows * width;
    float* odd_real = even_imag + half_rows * width;
    float* odd_imag = odd_real + half_rows * width;
    for (Index j = 0; j < half_rows; ++j) {
        const Index after = rows / 2 + j;
        const Index before = rows - 1 - after;
        const float other = before != after ? 1.0f : 0.0f;
        for (Index x = 0; x < width; ++x) {
            const float a = real[after * width + x];
            const float b = imag[after * width + x];
            even_real[j * width + x] = a + other * real[before * width + x];
            even_imag[j * width + x] = b + other * imag[before * width + x];
            odd_real[j * width + x] = other * (a - real[before * width + x]);
            odd_imag[j * width + x] = other * (b - imag[before * width + x]);
        }
    }
    // power of the half plane u >= 0 in rows -c .. c of `power`, (2 c + 1, width)
    const Index c = tables.centre;
    for (Index u = 0; u < width; u += bins) {
        for (Index v = 0; v < width; v += lines2) {
            Bins cos_real[lines2] = {};
            Bins cos_imag[lines2] = {};
            Bins sin_real[lines2] = {};
            Bins sin_imag[lines2] = {};
            for (Index j = 0; j < half_rows; ++j) {
                const Bins a = load(even_real + j * width + u);
                const Bins b = load(even_imag + j * width + u);
                const Bins d = load(odd_real + j * width + u);
                const Bins e = load(odd_imag + j * width + u);
#pragma GCC unroll 4
                for (Index i = 0; i < lines2; ++i) {
                    const Bins cosine = splat(row_cos[j * width + v + i]);
                    const Bins sine = splat(row_sin[j * width + v + i]);
                    cos_real[i] = multiply_add(cosine, a, cos_real[i]);
                    cos_imag[i] = multiply_add(cosine, b, cos_imag[i]);
                    sin_real[i] = multiply_add(sine, d, sin_real[i]);
                    sin_imag[i] = multiply_add(sine, e, sin_imag[i]);
                }
            }
            for (Index i = 0; i < lines2 && v + i <= c; ++i) {
                const Bins a = cos_real[i] + sin_imag[i];
                const Bins b = cos_imag[i] - sin_real[i];
                const Bins d = cos_real[i] - sin_imag[i];
                const Bins e = cos_imag[i] + sin_real[i];
                store(power + (c + v + i) * width + u, a * a + b * b);
                store(power + (c - v - i) * width + u, d * d + e * e);
            }
        }
    }
}

}  // namespace

namespace CONTEXTEM_SET {

LatticeKernels lattice_kernels() { return {tile_power}; }

}  // namespace CONTEXTEM_SET
}  // namespace contextem
