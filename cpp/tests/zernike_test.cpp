#include "contextem/zernike.hpp"

#include "check.hpp"

using namespace contextem;

int main() {
    const ZernikeIndices modes = zernike_indices(4);
    CHECK(mode_count(4) == 15 && modes.n.size() == 15 && modes.n[12] == 4 && modes.m[12] == 0);

    // closed forms: tilt, defocus, astigmatism, spherical aberration
    const double x = 0.3, y = -0.55, square = x * x + y * y;
    std::vector<double> z(15);
    zernike_at(4, x, y, z.data());
    CHECK_NEAR(z[0], 1, 1e-15);
    CHECK_NEAR(z[1], 2 * y, 1e-15);
    CHECK_NEAR(z[2], 2 * x, 1e-15);
    CHECK_NEAR(z[3], std::sqrt(6.0) * 2 * x * y, 1e-15);
    CHECK_NEAR(z[4], std::sqrt(3.0) * (2 * square - 1), 1e-15);
    CHECK_NEAR(z[5], std::sqrt(6.0) * (x * x - y * y), 1e-15);
    CHECK_NEAR(z[12], std::sqrt(5.0) * (6 * square * square - 6 * square + 1), 1e-14);

    // R_n^m(1) = 1 for every mode, also where the factorial form has lost all digits
    std::vector<double> rim(static_cast<std::size_t>(mode_count(60)));
    zernike_at(60, 1.0, 0.0, rim.data());
    for (int n = 0; n <= 60; ++n) {
        for (int m = n % 2; m <= n; m += 2) {
            const double norm = std::sqrt(2.0 * (n + 1) / (m == 0 ? 2 : 1));
            CHECK_NEAR(rim[static_cast<std::size_t>((n * (n + 2) + m) / 2)] / norm, 1, 1e-13);
        }
    }

    // the integrated weights of a constant are the integrals of the modes over the disk
    for (int size : {3, 8, 23, 32}) {
        const std::vector<double> weights = integrated_weights(12, size);
        for (Index j = 0; j < mode_count(12); ++j) {
            double sum = 0;
            for (Index i = 0; i < size * size; ++i) {
                sum += weights[static_cast<std::size_t>(j * size * size + i)];
            }
            CHECK_NEAR(sum, j == 0 ? 1 : 0, 1e-13);
        }
    }

    // motif-learn 0.1.2: first moment of sin(0.3 i) + cos(0.2 j) + 0.01 i j at P = 32
    const std::vector<double> weights = projection_weights(1, 32);
    double moment = 0;
    for (int i = 0; i < 32; ++i) {
        for (int j = 0; j < 32; ++j) {
            const double pixel = std::sin(0.3 * i) + std::cos(0.2 * j) + 0.01 * i * j;
            moment += weights[static_cast<std::size_t>(i) * 32 + static_cast<std::size_t>(j)] * pixel;
        }
    }
    CHECK_NEAR(moment, 2.1343219405, 1e-9);
    return failures();
}
