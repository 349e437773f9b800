// One Gauss-Newton step of each column, compiled once per instruction set (see CMakeLists.txt).
//
// Around column k at p the image is  b + A g(x - p) + sum_j A_j g(x - p_j),  g(x) = exp(-|x|^2 / (2 sigma^2)), with the
// neighbours j as they were in the round before. Minimise over A, b and the shift s, linearised in s,
//     sum_x w(x) (I(x) - sum_j A_j g(x - p_j) - b - A g - (A s / sigma^2) . (x - p) g)^2,
// over the window's pixels, w a Gaussian about the start. With the change of the common width as a fifth unknown,
// (A dsigma / sigma^3) |x - p|^2 g, each column has a share in that.
//
// All functions are products of one of the row and one of the column: inner products of Gaussians cost O(window side),
// exact at the border of the image too, and only the image itself is summed over O(side^2) pixels. Neighbours are
// worked on side by side, image columns too, so that no sum is reassociated: about 4 side^2 + 200 side multiplications.
// Columns read the round before and write their own step: results depend on neither threads nor order.
#include <cmath>

#include "column_kernels.hpp"
#include "simd.hpp"

namespace contextem {
namespace {

constexpr Index n = n_overlapping;
constexpr Index functions = n + 2;  // the neighbours, the column itself and 1
constexpr Index own = n;
constexpr Index one = n + 1;

constexpr Index wide = lanes<double>;
using Wide = Vec<double>;

// value = exp(value) for |value| < 700, relative error below 1e-15; beyond that as at 700.
CONTEXTEM_INLINE void exponential(Wide& value) {
    constexpr double shift = 6755399441055744.0;  // 1.5 * 2^52: the integer part moves to the lowest bits
    const Wide limit = Wide{} + 700.0;
    value = value > -limit ? value : -limit;
    value = value < limit ? value : limit;
    const Wide y = value * 1.4426950408889634;
    const Wide whole = y + shift;
    const Wide x = (y - (whole - shift)) * 0.6931471805599453;
    Wide p = x * (1.0 / 479001600.0) + 1.0 / 39916800.0;
    p = p * x + 1.0 / 3628800.0;
    p = p * x + 1.0 / 362880.0;
    p = p * x + 1.0 / 40320.0;
    p = p * x + 1.0 / 5040.0;
    p = p * x + 1.0 / 720.0;
    p = p * x + 1.0 / 120.0;
    p = p * x + 1.0 / 24.0;
    p = p * x + 1.0 / 6.0;
    p = p * x + 0.5;
    p = p * x + 1.0;
    p = p * x + 1.0;
    Vec<std::int64_t> bits;
    __builtin_memcpy(&bits, &whole, sizeof bits);
    bits = (bits + 1023) << 52;
    Wide power;
    __builtin_memcpy(&power, &bits, sizeof power);
    value = p * power;
}

// places = start, start + 1, ...
CONTEXTEM_INLINE void count_up(Index start, Wide& places) {
    for (Index i = 0; i < wide; ++i) {
        places[i] = static_cast<double>(start + i);
    }
}

// What one axis of a window contributes: functions of its pixels, and their sums.
struct Axis {
    Index first;  // pixel
    Index count;
    double* weight;             // (padded) w
    double* bent[3];            // (padded) w g x^m
    double sums[3][functions];  // sum w g x^m h over the functions h: g_j, g and 1
    double plain[functions];    // sum w h
    double third;               // sum w g^2 x^3
    double fourth;              // sum w g^2 x^4
};

void measure_axis(Axis& axis, double start, const double* centres, Index size, const ColumnModel& model, double* work,
                  Index padded) {
    axis.weight = work;
    for (Index m = 0; m < 3; ++m) {
        axis.bent[m] = work + (m + 1) * padded;
    }
    double* bent_own = work + 4 * padded;  // w g^2 x^3
    double* place = work + 5 * padded;
    const double spread = -0.5 / (model.sigma * model.sigma);
    const double window = -0.5 / (model.window_sigma * model.window_sigma);
    const Index nearest = static_cast<Index>(std::floor(start + 0.5));
    axis.first = nearest - model.half_window < 0 ? 0 : nearest - model.half_window;
    const Index last = nearest + model.half_window > size - 1 ? size - 1 : nearest + model.half_window;
    axis.count = last - axis.first + 1;
    for (Index i = 0; i < padded; i += wide) {
        Wide pixel;
        count_up(axis.first + i, pixel);
        const Wide x = pixel - centres[own];
        Wide w = (pixel - start) * (pixel - start) * window;
        Wide g = x * x * spread;
        exponential(w);
        exponential(g);
        w = pixel < static_cast<double>(axis.first + axis.count) ? w : Wide{};
        const Wide bent = w * g;
        store(place + i, x);
        store(axis.weight + i, w);
        store(axis.bent[0] + i, bent);
        store(axis.bent[1] + i, bent * x);
        store(axis.bent[2] + i, bent * x * x);
        store(bent_own + i, bent * g * x * x * x);
    }
    axis.third = 0.0;
    axis.fourth = 0.0;
    for (Index i = 0; i < axis.count; ++i) {
        axis.third += bent_own[i];
        axis.fourth += bent_own[i] * place[i];
    }
    // g(x + 1) = g(x) q(x) and q(x + 1) = q(x) exp(-1 / sigma^2)
    for (Index j = 0; j < functions; j += wide) {
        const Wide x = static_cast<double>(axis.first) - load(centres + j);
        Wide value = x * x * spread;
        Wide ratio = (2.0 * x + 1.0) * spread;
        Wide decline = Wide{} + 2.0 * spread;
        if (j <= one && one < j + wide) {
            value[one - j] = 0.0;
            ratio[one - j] = 0.0;
            decline[one - j] = 0.0;
        }
        exponential(value);
        exponential(ratio);
        exponential(decline);
        Wide sum0 = {};
        Wide sum1 = {};
        Wide sum2 = {};
        Wide plain = {};
        for (Index i = 0; i < axis.count; ++i) {
            sum0 += axis.bent[0][i] * value;
            sum1 += axis.bent[1][i] * value;
            sum2 += axis.bent[2][i] * value;
            plain += axis.weight[i] * value;
            value *= ratio;
            ratio *= decline;
        }
        store(axis.sums[0] + j, sum0);
        store(axis.sums[1] + j, sum1);
        store(axis.sums[2] + j, sum2);
        store(axis.plain + j, plain);
    }
}

// Solves the symmetric positive definite system in place by L D L^T; returns false where it is not definite.
template <int size>
bool factorise(double (&matrix)[5][5]) {
    for (int i = 0; i < size; ++i) {
        const double before = matrix[i][i];
        for (int j = 0; j < i; ++j) {
            double sum = matrix[i][j];
            for (int k = 0; k < j; ++k) {
                sum -= matrix[i][k] * matrix[j][k] * matrix[k][k];
            }
            matrix[i][j] = sum / matrix[j][j];
        }
        for (int k = 0; k < i; ++k) {
            matrix[i][i] -= matrix[i][k] * matrix[i][k] * matrix[k][k];
        }
        if (!(matrix[i][i] > 1e-10 * before)) {
            return false;
        }
    }
    return true;
}

// Of the unknowns A, b, A s_r / sigma^2, A s_c / sigma^2 and A dsigma / sigma^3.
template <class T>
void column_steps(const ImageView<T>& image, const ColumnModel& model, Index begin, Index end, double* work,
                  double* steps) {
    const Index padded = padded_side(model.half_window);
    double* row_work = work;
    double* column_work = row_work + 6 * padded;
    double* sums[4];  // over the rows: w g x^m I for m = 0 .. 2, and w I
    for (Index m = 0; m < 4; ++m) {
        sums[m] = column_work + (6 + m) * padded;
    }
    double* pixels = column_work + 10 * padded;  // (padded, padded)
    for (Index k = begin; k < end; ++k) {
        double* out = steps + step_values * k;
        const double* start = model.start + 2 * k;
        const double* centre = model.positions + 2 * k;
        out[0] = centre[0];
        out[1] = centre[1];
        out[2] = 0.0;
        out[3] = 0.0;
        out[4] = 0.0;
        out[5] = 0.0;
        double across[2][functions];
        double amplitude[n];
        for (Index j = 0; j < n; ++j) {
            const Index other = model.neighbours[k * n + j];
            across[0][j] = other < 0 ? centre[0] : model.positions[2 * other];
            across[1][j] = other < 0 ? centre[1] : model.positions[2 * other + 1];
            amplitude[j] = other < 0 ? 0.0 : model.amplitudes[other];
        }
        for (Index axis = 0; axis < 2; ++axis) {
            across[axis][own] = centre[axis];
            across[axis][one] = centre[axis];
        }
        Axis rows;
        Axis columns;
        measure_axis(rows, start[0], across[0], image.rows, model, row_work, padded);
        measure_axis(columns, start[1], across[1], image.columns, model, column_work, padded);
        if (rows.count < 1 || columns.count < 1) {
            continue;
        }
        for (Index r = 0; r < rows.count; ++r) {
            const T* line = image.data + (rows.first + r) * image.row_stride + columns.first * image.column_stride;
            double* copy = pixels + r * padded;
            for (Index c = 0; c < columns.count; ++c) {
                copy[c] = static_cast<double>(image.column_stride == 1 ? line[c] : line[c * image.column_stride]);
            }
            for (Index c = columns.count; c < padded; ++c) {
                copy[c] = 0.0;
            }
        }
        for (Index c = 0; c < padded; c += wide) {
            Wide sum0 = {};
            Wide sum1 = {};
            Wide sum2 = {};
            Wide plain = {};
            for (Index r = 0; r < rows.count; ++r) {
                const Wide pixel = load(pixels + r * padded + c);
                sum0 += rows.bent[0][r] * pixel;
                sum1 += rows.bent[1][r] * pixel;
                sum2 += rows.bent[2][r] * pixel;
                plain += rows.weight[r] * pixel;
            }
            store(sums[0] + c, sum0);
            store(sums[1] + c, sum1);
            store(sums[2] + c, sum2);
            store(sums[3] + c, plain);
        }
        double right[5] = {};
        for (Index c = 0; c < columns.count; ++c) {
            const double u0 = columns.bent[0][c];
            right[0] += sums[0][c] * u0;
            right[1] += sums[3][c] * columns.weight[c];
            right[2] += sums[1][c] * u0;
            right[3] += sums[0][c] * columns.bent[1][c];
            right[4] += sums[2][c] * u0 + sums[0][c] * columns.bent[2][c];
        }
        for (Index j = 0; j < n; ++j) {
            const double a = amplitude[j];
            right[0] -= a * rows.sums[0][j] * columns.sums[0][j];
            right[1] -= a * rows.plain[j] * columns.plain[j];
            right[2] -= a * rows.sums[1][j] * columns.sums[0][j];
            right[3] -= a * rows.sums[0][j] * columns.sums[1][j];
            right[4] -= a * (rows.sums[2][j] * columns.sums[0][j] + rows.sums[0][j] * columns.sums[2][j]);
        }
        const double r0 = rows.sums[0][own];  // sums of w g^2 x^m
        const double r1 = rows.sums[1][own];
        const double r2 = rows.sums[2][own];
        const double c0 = columns.sums[0][own];
        const double c1 = columns.sums[1][own];
        const double c2 = columns.sums[2][own];
        double matrix[5][5] = {};
        matrix[0][0] = r0 * c0;
        matrix[1][0] = rows.plain[own] * columns.plain[own];
        matrix[1][1] = rows.plain[one] * columns.plain[one];
        matrix[2][0] = r1 * c0;
        matrix[2][1] = rows.sums[1][one] * columns.plain[own];
        matrix[2][2] = r2 * c0;
        matrix[3][0] = r0 * c1;
        matrix[3][1] = rows.plain[own] * columns.sums[1][one];
        matrix[3][2] = r1 * c1;
        matrix[3][3] = r0 * c2;
        matrix[4][0] = r2 * c0 + r0 * c2;
        matrix[4][1] = rows.sums[2][one] * columns.plain[own] + rows.plain[own] * columns.sums[2][one];
        matrix[4][2] = rows.third * c0 + r1 * c2;
        matrix[4][3] = r2 * c1 + r0 * columns.third;
        matrix[4][4] = rows.fourth * c0 + 2.0 * r2 * c2 + r0 * columns.fourth;
        if (!factorise<5>(matrix)) {
            continue;
        }
        double forward[5];
        for (int i = 0; i < 5; ++i) {
            forward[i] = right[i];
            for (int j = 0; j < i; ++j) {
                forward[i] -= matrix[i][j] * forward[j];
            }
        }
        // the first unknowns only, back from the last of them: the rest is held at 0
        const int fitted = model.moves && model.movable[k] ? 4 : 2;
        double solution[4] = {};
        for (int i = fitted - 1; i >= 0; --i) {
            solution[i] = forward[i] / matrix[i][i];
            for (int j = i + 1; j < fitted; ++j) {
                solution[i] -= matrix[j][i] * solution[j];
            }
        }
        out[3] = solution[1];
        if (!(solution[0] > 0.0)) {
            continue;
        }
        out[2] = solution[0];
        const double sigma2 = model.sigma * model.sigma;
        const double down = solution[2] * sigma2 / solution[0];
        const double along = solution[3] * sigma2 / solution[0];
        const double length = std::sqrt(down * down + along * along);
        const double share = length > 0.25 * model.sigma ? 0.25 * model.sigma / length : 1.0;
        out[0] += share * down;
        out[1] += share * along;
        const double slope = solution[0] / (sigma2 * model.sigma);
        out[4] = slope * forward[4];
        out[5] = slope * slope * matrix[4][4];
    }
}

// deviations[k] = s sigma^2 / (A m), the standard deviation of the position along either axis, where s^2 is the mean of
// the squared residual weighted by w and m^2 = sum w g^2 x^2 over the whole plane.
template <class T>
void column_deviations(const ImageView<T>& image, const ColumnModel& model, const double* backgrounds, Index begin,
                       Index end, double* work, double* deviations) {
    const Index padded = padded_side(model.half_window);
    const double spread = -0.5 / (model.sigma * model.sigma);
    const double window = -0.5 / (model.window_sigma * model.window_sigma);
    const double narrow2 = 1.0 / (2.0 / (model.sigma * model.sigma) + 1.0 / (model.window_sigma * model.window_sigma));
    const double moment = std::sqrt(2.0 * 3.141592653589793) * narrow2;
    double* down = work;                       // (n + 1, padded) g_j along the rows, the column itself last
    double* across = down + (n + 1) * padded;  // and A_j g_j along the columns
    double* weights[2] = {across + (n + 1) * padded, across + (n + 2) * padded};
    double* residual = across + (n + 3) * padded;
    for (Index k = begin; k < end; ++k) {
        const double* start = model.start + 2 * k;
        const Index size[2] = {image.rows, image.columns};
        Index first[2];
        Index count[2];
        for (Index axis = 0; axis < 2; ++axis) {
            const Index nearest = static_cast<Index>(std::floor(start[axis] + 0.5));
            first[axis] = nearest - model.half_window < 0 ? 0 : nearest - model.half_window;
            const Index last = nearest + model.half_window;
            count[axis] = (last > size[axis] - 1 ? size[axis] - 1 : last) - first[axis] + 1;
            for (Index i = 0; i < padded; i += wide) {
                Wide pixel;
                count_up(first[axis] + i, pixel);
                Wide weight = (pixel - start[axis]) * (pixel - start[axis]) * window;
                exponential(weight);
                store(weights[axis] + i, pixel < static_cast<double>(first[axis] + count[axis]) ? weight : Wide{});
            }
        }
        Index terms = 0;
        for (Index j = 0; j <= n; ++j) {
            const Index other = j < n ? model.neighbours[k * n + j] : k;
            if (other < 0) {
                continue;
            }
            const double amplitude = model.amplitudes[other];
            const double row = model.positions[2 * other];
            const double column = model.positions[2 * other + 1];
            double* heights = down + terms * padded;
            double* values = across + terms * padded;
            for (Index i = 0; i < padded; i += wide) {
                Wide y;
                Wide x;
                count_up(first[0] + i, y);
                count_up(first[1] + i, x);
                y = (y - row) * (y - row) * spread;
                x = (x - column) * (x - column) * spread;
                exponential(y);
                exponential(x);
                store(heights + i, y);
                store(values + i, amplitude * x);
            }
            ++terms;
        }
        double squares = 0.0;
        double mass = 0.0;
        for (Index i = 0; i < count[0]; ++i) {
            const T* line = image.data + (first[0] + i) * image.row_stride + first[1] * image.column_stride;
            for (Index c = 0; c < padded; ++c) {
                residual[c] = 0.0;
            }
            for (Index c = 0; c < count[1]; ++c) {
                residual[c] = static_cast<double>(image.column_stride == 1 ? line[c] : line[c * image.column_stride]) -
                              backgrounds[k];
            }
            for (Index c = 0; c < padded; c += wide) {
                Wide rest = load(residual + c);
                for (Index j = 0; j < terms; ++j) {
                    const Wide values = load(across + j * padded + c);
                    rest -= down[j * padded + i] * values;
                }
                const Wide weight = load(weights[1] + c);
                store(residual + c, weight * rest * rest);
            }
            double row_squares = 0.0;
            double row_mass = 0.0;
            for (Index c = 0; c < count[1]; ++c) {
                row_squares += residual[c];
                row_mass += weights[1][c];
            }
            squares += weights[0][i] * row_squares;
            mass += weights[0][i] * row_mass;
        }
        const double sigma2 = model.sigma * model.sigma;
        const double scatter = mass > 0.0 ? std::sqrt(squares / mass) : 0.0;
        const double amplitude = model.amplitudes[k];
        deviations[k] = amplitude > 0.0 && mass > 0.0 ? scatter * sigma2 / (amplitude * moment) : HUGE_VAL;
    }
}

}  // namespace

namespace CONTEXTEM_SET {

template <class T>
RefineKernels<T> refine_kernels() {
    return {column_steps<T>, column_deviations<T>};
}

template RefineKernels<float> refine_kernels();
template RefineKernels<double> refine_kernels();

}  // namespace CONTEXTEM_SET
}  // namespace contextem
