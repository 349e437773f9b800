// Affine fits of neighbour positions over their index offsets, compiled once per instruction set (see CMakeLists.txt).
//
// For each site minimise over its position q and its frame F (rows b1, b2), with p_k and w_k measured positions and
// weights of its 36 neighbours at the offsets d_k, g_k their weight by distance,
//     sum_k w_k g_k |p_k - q - d_k F|^2  +  ridge |F - F_prior|^2,
// twice, the second time with outliers weighted down (Cauchy) at twice 8 % of the site spacing. One 3 x 3 system for
// both coordinates, solved by L D L^T. Eight sites are fitted side by side, so that no sum is reassociated, and every
// site by the same instructions; about 2,000 operations a site.
#include <cmath>

#include "column_kernels.hpp"

namespace contextem {
namespace {

constexpr Index together = 8;

void fit_sites(const SiteBoard& board, const Index* sites, Index count, const double* origins, const double* frames,
               double* fitted) {
    for (Index start = 0; start < count; start += together) {
        double origin[2][together];
        double frame[4][together];
        double scale2[together];
        Index first[together];
        for (Index l = 0; l < together; ++l) {
            const Index s = start + l < count ? start + l : count - 1;
            first[l] = sites[s];
            origin[0][l] = origins[2 * s];
            origin[1][l] = origins[2 * s + 1];
            for (Index x = 0; x < 4; ++x) {
                frame[x][l] = frames[4 * s + x];
            }
            const double cell = frame[0][l] * frame[3][l] - frame[1][l] * frame[2][l];
            scale2[l] = 0.16 * 0.16 * (cell < 0.0 ? -cell : cell);
        }
        double down[n_around][together];
        double right[n_around][together];
        double weight[n_around][together];
        for (Index k = 0; k < n_around; ++k) {
            const double i = board.offsets[2 * k];
            const double j = board.offsets[2 * k + 1];
            for (Index l = 0; l < together; ++l) {
                const Index place = first[l] + board.around[k];
                down[k][l] = board.measured[2 * place];
                right[k][l] = board.measured[2 * place + 1];
                weight[k][l] = board.weight[place];
            }
            for (Index l = 0; l < together; ++l) {
                down[k][l] -= i * frame[0][l] + j * frame[2][l] + origin[0][l];
                right[k][l] -= i * frame[1][l] + j * frame[3][l] + origin[1][l];
                weight[k][l] *= board.near[k];
            }
        }
        double q[2][together] = {};  // change of the position, of b1 and of b2, down and right
        double b1[2][together] = {};
        double b2[2][together] = {};
        for (int round = 0; round < 2; ++round) {
            double n00[together] = {};
            double n01[together] = {};
            double n02[together] = {};
            double n11[together] = {};
            double n12[together] = {};
            double n22[together] = {};
            double r0[2][together] = {};
            double r1[2][together] = {};
            double r2[2][together] = {};
            for (Index k = 0; k < n_around; ++k) {
                const double i = board.offsets[2 * k];
                const double j = board.offsets[2 * k + 1];
                for (Index l = 0; l < together; ++l) {
                    double w = weight[k][l];
                    if (round == 1) {
                        const double off_down = down[k][l] - (q[0][l] + i * b1[0][l] + j * b2[0][l]);
                        const double off_right = right[k][l] - (q[1][l] + i * b1[1][l] + j * b2[1][l]);
                        w /= 1.0 + (off_down * off_down + off_right * off_right) / scale2[l];
                    }
                    n00[l] += w;
                    n01[l] += w * i;
                    n02[l] += w * j;
                    n11[l] += w * (i * i);
                    n12[l] += w * (i * j);
                    n22[l] += w * (j * j);
                    const double wd = w * down[k][l];
                    const double wr = w * right[k][l];
                    r0[0][l] += wd;
                    r1[0][l] += wd * i;
                    r2[0][l] += wd * j;
                    r0[1][l] += wr;
                    r1[1][l] += wr * i;
                    r2[1][l] += wr * j;
                }
            }
            for (Index l = 0; l < together; ++l) {
                // L D L^T of the symmetric positive definite normal matrix
                const double d0 = n00[l] + 1e-9;
                const double l10 = n01[l] / d0;
                const double l20 = n02[l] / d0;
                const double d1 = n11[l] + board.ridge - l10 * n01[l];
                const double l21 = (n12[l] - l20 * n01[l]) / d1;
                const double d2 = n22[l] + board.ridge - l20 * n02[l] - l21 * l21 * d1;
                for (int axis = 0; axis < 2; ++axis) {
                    const double y0 = r0[axis][l];
                    const double y1 = r1[axis][l] - l10 * y0;
                    const double y2 = r2[axis][l] - l20 * y0 - l21 * y1;
                    const double x2 = y2 / d2;
                    const double x1 = y1 / d1 - l21 * x2;
                    q[axis][l] = y0 / d0 - l10 * x1 - l20 * x2;
                    b1[axis][l] = x1;
                    b2[axis][l] = x2;
                }
            }
        }
        for (Index l = 0; l < together && start + l < count; ++l) {
            double* out = fitted + 6 * (start + l);
            out[0] = origin[0][l] + q[0][l];
            out[1] = origin[1][l] + q[1][l];
            out[2] = frame[0][l] + b1[0][l];
            out[3] = frame[1][l] + b1[1][l];
            out[4] = frame[2][l] + b2[0][l];
            out[5] = frame[3][l] + b2[1][l];
        }
    }
}

}  // namespace

namespace CONTEXTEM_SET {

GrowthKernels growth_kernels() { return {fit_sites}; }

}  // namespace CONTEXTEM_SET
}  // namespace contextem
