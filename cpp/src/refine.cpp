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

// Columns [begin, end) that lie in a band, and the rows [first, last) of the image that their windows reach.
struct ColumnBand {
    Index begin;
    Index end;
    Index first;
    Index last;
};

// Splits columns that are sorted as by in_bands where their windows, all together, would reach over more than `tile`
// rows and those of one of these bands.
std::vector<ColumnBand> bands_of(const std::vector<double>& columns, double spacing, Index reach, Index rows,
                                 Index tile) {
    std::vector<ColumnBand> bands;
    double before = 0.0;
    for (std::size_t k = 0; 2 * k < columns.size(); ++k) {
        const double row = columns[2 * k];
        const double place = std::floor(row / (4.0 * spacing));
        const double nearest = std::floor(std::clamp(row, 0.0, static_cast<double>(rows - 1)) + 0.5);
        const Index first = std::max<Index>(0, static_cast<Index>(nearest) - reach);
        const Index last = std::min(rows, static_cast<Index>(nearest) + reach + 1);
        const auto number = static_cast<Index>(k);
        if (bands.empty() || (place != before && last - bands.back().first > tile)) {
            bands.push_back({number, number, first, last});
        }
        before = place;
        ColumnBand& band = bands.back();
        band.end = number + 1;
        band.first = std::min(band.first, first);
        band.last = std::max(band.last, last);
    }
    return bands;
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
double refine_columns(const BandSource<T>& image, Index rows, Index tile, const PositionsView& start,
                      const unsigned char* movable, double sigma, double spacing, double furthest, int n_threads,
                      double* positions, double* amplitudes, double* deviations) {
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
    ColumnModel model = {from.data(), may.data(), neighbours.data(), current.data(), heights.data(), sigma, 0,
                         0.0,         false};
    model.half_window = std::max<Index>(2, static_cast<Index>(std::lround(half_window * spacing)));
    model.window_sigma = window_sigma * spacing;
    const std::vector<ColumnBand> bands = bands_of(from, spacing, model.half_window, rows, tile);
    for (int round = 0; round < rounds; ++round) {
        model.moves = round >= still_rounds;
        for (const ColumnBand& band : bands) {
            const ImageView<T> view = image(band.first, band.last);
            parallel_for(band.end - band.begin, column_grain, n_threads, [&](Index begin, Index end) {
                AlignedVector<double> work(static_cast<std::size_t>(refine_work(model.half_window)));
                instruction_set().refine.of<T>().column_steps(view, model, band.begin + begin, band.begin + end,
                                                              work.data(), steps.data());
            });
        }
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
    for (const ColumnBand& band : bands) {
        const ImageView<T> view = image(band.first, band.last);
        parallel_for(band.end - band.begin, column_grain, n_threads, [&](Index begin, Index end) {
            AlignedVector<double> work(static_cast<std::size_t>(refine_work(model.half_window)));
            instruction_set().refine.of<T>().column_deviations(view, model, backgrounds.data(), band.begin + begin,
                                                               band.begin + end, work.data(), scatter.data());
        });
    }
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

template double refine_columns(const BandSource<float>&, Index, Index, const PositionsView&, const unsigned char*,
                               double, double, double, int, double*, double*, double*);
template double refine_columns(const BandSource<double>&, Index, Index, const PositionsView&, const unsigned char*,
                               double, double, double, int, double*, double*, double*);

}  // namespace contextem
