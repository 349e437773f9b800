#include "contextem/zernike.hpp"

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>

#include "contextem/sampling.hpp"

namespace contextem {
namespace {

constexpr double pi = 3.14159265358979323846;

std::size_t position(Index i) { return static_cast<std::size_t>(i); }

// Mode number of (n, m).
Index mode(int n, int m) { return (Index(n) * (n + 2) + m) / 2; }

Parity parity_of(int m) {
    if (m >= 0) {
        return m % 2 == 0 ? even_even : even_odd;
    }
    return m % 2 == 0 ? odd_odd : odd_even;
}

// Nodes and weights of Gauss-Legendre quadrature on [-1, 1], by Newton's method on P_n.
struct Quadrature {
    std::vector<double> nodes;
    std::vector<double> weights;
};

Quadrature gauss_legendre(int count) {
    Quadrature rule{std::vector<double>(position(count)), std::vector<double>(position(count))};
    for (int i = 0; i < count; ++i) {
        double t = std::cos(pi * (i + 0.75) / (count + 0.5));
        double slope = 1.0;
        for (int step = 0; step < 100; ++step) {
            double before = 1.0;
            double value = t;
            for (int n = 2; n <= count; ++n) {
                const double next = ((2 * n - 1) * t * value - (n - 1) * before) / n;
                before = value;
                value = next;
            }
            slope = count == 1 ? 1.0 : count * (t * value - before) / (t * t - 1.0);
            const double change = value / slope;
            t -= change;
            if (std::abs(change) < 1e-16) {
                break;
            }
        }
        rule.nodes[position(i)] = t;
        rule.weights[position(i)] = 2.0 / ((1.0 - t * t) * slope * slope);
    }
    return rule;
}

// Integrates all modes over rectangles of the first quadrant, cut by the unit circle.
class DiskIntegrator {
public:
    explicit DiskIntegrator(int n_max)
        : n_max_(n_max),
          // exact for polynomials of degree n_max along a straight edge; the arc's integrand is analytic in its angle
          straight_(gauss_legendre(n_max / 2 + 1)),
          arc_(gauss_legendre(n_max + 12)),
          values_(position(mode_count(n_max))) {}

    // Adds the integrals to sums (J). Rows up to where the arc enters from the right are whole, those above end at it.
    void add(double x0, double x1, double y0, double y1, double* sums) {
        const double top = std::min(y1, std::sqrt(std::max(0.0, 1.0 - x0 * x0)));
        const double entry = std::sqrt(std::max(0.0, 1.0 - x1 * x1));
        const double bend = std::min(std::max(entry, y0), std::max(top, y0));
        if (bend > y0) {
            const double half = 0.5 * (bend - y0);
            for (std::size_t i = 0; i < straight_.nodes.size(); ++i) {
                add_row(x0, x1, y0 + half * (straight_.nodes[i] + 1.0), half * straight_.weights[i], sums);
            }
        }
        if (top > bend) {
            // y = sin(angle) makes the square root of the arc smooth
            const double low = std::asin(bend);
            const double half = 0.5 * (std::asin(top) - low);
            for (std::size_t i = 0; i < arc_.nodes.size(); ++i) {
                const double angle = low + half * (arc_.nodes[i] + 1.0);
                add_row(x0, std::cos(angle), std::sin(angle), half * arc_.weights[i] * std::cos(angle), sums);
            }
        }
    }

private:
    void add_row(double x0, double x1, double y, double weight, double* sums) {
        const double half = 0.5 * (x1 - x0);
        for (std::size_t i = 0; i < straight_.nodes.size(); ++i) {
            zernike_at(n_max_, x0 + half * (straight_.nodes[i] + 1.0), y, values_.data());
            const double area = weight * half * straight_.weights[i];
            for (std::size_t j = 0; j < values_.size(); ++j) {
                sums[j] += area * values_[j];
            }
        }
    }

    int n_max_;
    Quadrature straight_;
    Quadrature arc_;
    std::vector<double> values_;
};

// Completes a (J, P, P) table from the octant row <= column of its lower right quadrant, so that mirrored weights are
// equal to the last bit: theta -> pi / 2 - theta exchanges row and column, then each mode's parity gives the quadrants.
void mirror(int n_max, Index size, std::vector<double>& table) {
    const Index first = size / 2;
    for (int n = 0; n <= n_max; ++n) {
        for (int m = -n; m <= n; m += 2) {
            const int order = std::abs(m);
            double* w = table.data() + mode(n, m) * size * size;
            const double* partner = table.data() + mode(n, order % 2 == 0 ? m : -m) * size * size;
            const int turns = order / 2 + (m < 0 && order % 2 == 0 ? 1 : 0);
            const double exchanged = turns % 2 == 0 ? 1.0 : -1.0;
            for (Index row = first; row < size; ++row) {
                for (Index column = first; column < row; ++column) {
                    w[row * size + column] = exchanged * partner[column * size + row];
                }
            }
            const double flip_row = row_sign(parity_of(m));
            const double flip_column = column_sign(parity_of(m));
            for (Index row = first; row < size; ++row) {
                for (Index column = first; column < size; ++column) {
                    const double value = w[row * size + column];
                    const Index other_row = size - 1 - row;
                    const Index other_column = size - 1 - column;
                    w[row * size + other_column] = flip_column * value;
                    w[other_row * size + column] = flip_row * value;
                    w[other_row * size + other_column] = flip_row * flip_column * value;
                }
            }
        }
    }
}

}  // namespace

ZernikeIndices zernike_indices(int n_max) {
    ZernikeIndices indices;
    for (int n = 0; n <= n_max; ++n) {
        for (int m = -n; m <= n; m += 2) {
            indices.n.push_back(n);
            indices.m.push_back(m);
        }
    }
    return indices;
}

void zernike_at(int n_max, double x, double y, double* values) {
    const double t = 2.0 * (x * x + y * y) - 1.0;
    std::complex<double> power(1.0, 0.0);  // (x + i y)^m
    for (int m = 0; m <= n_max; ++m) {
        double before = 0.0;
        double jacobi = 1.0;  // P_k^(0, m)(t)
        for (int k = 0; 2 * k + m <= n_max; ++k) {
            const int n = 2 * k + m;
            const double radial = std::sqrt(2.0 * (n + 1) / (m == 0 ? 2.0 : 1.0)) * jacobi;
            values[mode(n, m)] = radial * power.real();
            if (m > 0) {
                values[mode(n, -m)] = radial * power.imag();
            }
            double next;
            if (k == 0) {  // the general step is 0 / 0 here for m = 0
                next = 0.5 * ((m + 2) * t - m);
            } else {
                const double s = 2.0 * k + m;
                const double a = (s + 1.0) * ((s + 2.0) * s * t - double(m) * m);
                const double b = 2.0 * k * (k + m) * (s + 2.0);
                next = (a * jacobi - b * before) / (2.0 * (k + 1) * (k + m + 1) * s);
            }
            before = jacobi;
            jacobi = next;
        }
        power *= std::complex<double>(x, y);
    }
}

std::vector<double> projection_weights(int n_max, int size) {
    const Index modes = mode_count(n_max);
    const Index pixels = Index(size) * size;
    std::vector<double> table(position(modes * pixels), 0.0);
    std::vector<double> values(position(modes));
    const double area = pi * static_cast<double>(pixels) / 4.0;
    for (Index row = size / 2; row < size; ++row) {
        for (Index column = row; column < size; ++column) {
            // the mask is decided in integers, so that it is symmetric whatever the rounding
            const Index a = 2 * row - (size - 1);
            const Index b = 2 * column - (size - 1);
            if (a * a + b * b > Index(size - 1) * (size - 1)) {
                continue;
            }
            zernike_at(n_max, double(b) / (size - 1), double(a) / (size - 1), values.data());
            for (Index j = 0; j < modes; ++j) {
                table[position(j * pixels + row * size + column)] = values[position(j)] / area;
            }
        }
    }
    mirror(n_max, size, table);
    return table;
}

std::vector<double> integrated_weights(int n_max, int size) {
    const Index modes = mode_count(n_max);
    const Index pixels = Index(size) * size;
    std::vector<double> table(position(modes * pixels), 0.0);
    std::vector<double> sums(position(modes));
    const ZernikeIndices indices = zernike_indices(n_max);
    DiskIntegrator integrator(n_max);
    const auto edge = [size](Index sample) {
        return static_cast<double>(2 * sample - size) / static_cast<double>(size);
    };
    for (Index row = size / 2; row < size; ++row) {
        for (Index column = row; column < size; ++column) {
            // the middle row and column of an odd patch straddle an axis: integrate one half, parity gives the other
            const bool middle_row = 2 * row == size - 1;
            const bool middle_column = 2 * column == size - 1;
            const double y0 = middle_row ? 0.0 : edge(row);
            const double x0 = middle_column ? 0.0 : edge(column);
            std::fill(sums.begin(), sums.end(), 0.0);
            integrator.add(x0, edge(column + 1), y0, edge(row + 1), sums.data());
            for (Index j = 0; j < modes; ++j) {
                const Parity parity = parity_of(indices.m[position(j)]);
                double integral = sums[position(j)];
                integral *= middle_row ? 1 + row_sign(parity) : 1;
                integral *= middle_column ? 1 + column_sign(parity) : 1;
                table[position(j * pixels + row * size + column)] = integral / pi;
            }
        }
    }
    mirror(n_max, size, table);
    return table;
}

}  // namespace contextem
