#include "contextem/refine.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>
#include <vector>

#include "contextem/aligned.hpp"
#include "contextem/parallel.hpp"
#include "contextem/points.hpp"
#include "instruction_set.hpp"

namespace contextem {
namespace {

constexpr int rounds = 6;
constexpr int still_rounds = 1;       // the first of them: amplitudes only
constexpr double half_window = 0.65;  // spacings
constexpr double window_sigma = 0.8;  // spacings
constexpr Index column_grain = 128;

// Numbers of the columns by bands of rows, four spacings high, and by column within.
std::vector<Index> in_bands(const PositionsView& columns, double spacing) {
    std::vector<Index> order(static_cast<std::size_t>(columns.count));
    std::iota(order.begin(), order.end(), Index(0));
    const auto band = [&](Index k) { return std::floor(columns.data[2 * k] / (4.0 * spacing)); };
    std::sort(order.begin(), order.end(), [&](Index a, Index b) {
        const double first = band(a);
        const double second = band(b);
        return std::tie(first, columns.data[2 * a + 1], a) < std::tie(second, columns.data[2 * b + 1], b);
    });
    return order;
}

// The nearest others within reach of each column, (N, n_overlapping), -1 for none.
std::vector<Index> overlapping(const PositionsView& columns, double reach, int n_threads) {
    std::vector<Index> neighbours(static_cast<std::size_t>(columns.count * n_overlapping), -1);
    const PointGrid grid(columns);
    parallel_for(columns.count, column_grain, n_threads, [&](Index begin, Index end) {
        PointGrid::Neighbour near[n_overlapping + 1];
        for (Index k = begin; k < end; ++k) {
            grid.nearest(columns.data[2 * k], columns.data[2 * k + 1], n_overlapping + 1, near);
            Index* filled = &neighbours[static_cast<std::size_t>(k * n_overlapping)];
            Index* const full = filled + n_overlapping;
            for (const PointGrid::Neighbour& each : near) {
                if (each.number >= 0 && each.number != k && each.distance2 < reach * reach && filled != full) {
                    *filled++ = each.number;
                }
            }
        }
    });
    return neighbours;
}

}  // namespace

template <class T>
double refine_columns(const ImageView<T>& image, const PositionsView& start, const unsigned char* movable, double sigma,
                      double spacing, double furthest, int n_threads, double* positions, double* amplitudes,
                      double* deviations) {
    const Index count = start.count;
    // columns that lie side by side are fitted one after the other: bands of the image stay in the cache
    const std::vector<Index> order = in_bands(start, spacing);
    std::vector<double> from(static_cast<std::size_t>(2 * count));
    std::vector<unsigned char> may(static_cast<std::size_t>(count));
    for (Index k = 0; k < count; ++k) {
        const Index given = order[static_cast<std::size_t>(k)];
        std::copy_n(start.data + 2 * given, 2, &from[static_cast<std::size_t>(2 * k)]);
        may[static_cast<std::size_t>(k)] = movable[given];
    }
    const std::vector<Index> neighbours = overlapping({from.data(), count}, 2.2 * spacing, n_threads);
    std::vector<double> current = from;
    std::vector<double> heights(static_cast<std::size_t>(count), 0.0);
    std::vector<double> steps(static_cast<std::size_t>(step_values * count));
    ColumnModel model = {from.data(),    may.data(), neighbours.data(), current.data(),
                         heights.data(), sigma,      0,                 0.0,
                         false};
    model.half_window = std::max<Index>(2, static_cast<Index>(std::lround(half_window * spacing)));
    model.window_sigma = window_sigma * spacing;
    for (int round = 0; round < rounds; ++round) {
        model.moves = round >= still_rounds;
        parallel_for(count, column_grain, n_threads, [&](Index begin, Index end) {
            AlignedVector<double> work(static_cast<std::size_t>(refine_work(model.half_window)));
            instruction_set().refine.of<T>().column_steps(image, model, begin, end, work.data(), steps.data());
        });
        double change = 0.0;
        double curvature = 0.0;
        for (Index k = 0; k < count; ++k) {
            const double* step = &steps[static_cast<std::size_t>(step_values * k)];
            std::copy_n(step, 2, &current[static_cast<std::size_t>(2 * k)]);
            heights[static_cast<std::size_t>(k)] = step[2];
            change += step[4];
            curvature += step[5];
        }
        if (round > 0 && curvature > 0.0) {
            model.sigma = std::clamp(model.sigma + change / curvature, 0.8 * model.sigma, 1.25 * model.sigma);
        }
    }
    std::vector<double> backgrounds(static_cast<std::size_t>(count));
    for (Index k = 0; k < count; ++k) {
        backgrounds[static_cast<std::size_t>(k)] = steps[static_cast<std::size_t>(step_values * k + 3)];
    }
    std::vector<double> scatter(static_cast<std::size_t>(count));
    parallel_for(count, column_grain, n_threads, [&](Index begin, Index end) {
        AlignedVector<double> work(static_cast<std::size_t>(refine_work(model.half_window)));
        instruction_set().refine.of<T>().column_deviations(image, model, backgrounds.data(), begin, end, work.data(),
                                                   scatter.data());
    });
    for (Index k = 0; k < count; ++k) {
        const double* before = &from[static_cast<std::size_t>(2 * k)];
        const double* after = &current[static_cast<std::size_t>(2 * k)];
        const double down = after[0] - before[0];
        const double along = after[1] - before[1];
        const bool near = down * down + along * along <= furthest * furthest;
        const Index given = order[static_cast<std::size_t>(k)];
        std::copy_n(near ? after : before, 2, positions + 2 * given);
        amplitudes[given] = heights[static_cast<std::size_t>(k)];
        deviations[given] = scatter[static_cast<std::size_t>(k)];
    }
    return model.sigma;
}

template double refine_columns(const ImageView<float>&, const PositionsView&, const unsigned char*, double, double,
                               double, int, double*, double*, double*);
template double refine_columns(const ImageView<double>&, const PositionsView&, const unsigned char*, double, double,
                               double, int, double*, double*, double*);

}  // namespace contextem
