#include "contextem/peaks.hpp"

#include <algorithm>
#include <cmath>

#include "contextem/aligned.hpp"
#include "contextem/parallel.hpp"
#include "contextem/peak_arithmetic.hpp"
#include "instruction_set.hpp"

namespace contextem {
namespace {

constexpr Index row_grain = 16;

}  // namespace

template <class T>
void peak_response(const ImageView<T>& image, double sigma, int n_threads, T* response) {
    const ResponseFilters<T> made(sigma);
    const Index radius = made.radius();
    const EvenFilters<T> filters = {made.smooth.data(), made.bend.data(), radius};
    const PeakKernels<T>& kernel = instruction_set().peaks.of<T>();
    parallel_for(image.rows, row_grain, n_threads, [&](Index begin, Index end) {
        const auto width = static_cast<std::size_t>(image.columns + 2 * radius);
        AlignedVector<T> work_smooth(width);
        AlignedVector<T> work_bend(width);
        std::vector<const T*> rows(static_cast<std::size_t>(2 * radius + 1));
        // rows whose pixels do not follow each other are laid out anew, in a ring of the rows in use
        const bool scattered = image.column_stride != 1;
        std::vector<T> ring(scattered ? rows.size() * static_cast<std::size_t>(image.columns) : 0);
        std::vector<Index> held(rows.size(), -1);
        for (Index r = begin; r < end; ++r) {
            for (Index i = -radius; i <= radius; ++i) {
                const Index source = mirrored(r + i, image.rows);
                const T* row = image.data + source * image.row_stride;
                if (scattered) {
                    const Index line = r + i - (begin - radius);
                    const auto slot = static_cast<std::size_t>(line) % rows.size();
                    T* copy = ring.data() + slot * static_cast<std::size_t>(image.columns);
                    if (held[slot] != line) {
                        for (Index c = 0; c < image.columns; ++c) {
                            copy[c] = row[c * image.column_stride];
                        }
                        held[slot] = line;
                    }
                    row = copy;
                }
                rows[static_cast<std::size_t>(i + radius)] = row;
            }
            kernel.response_row(rows.data(), filters, image.columns, made.scale, work_smooth.data(), work_bend.data(),
                                response + r * image.columns);
        }
    });
}

template <class T>
Maxima local_maxima(const ImageView<T>& response, Index top, int n_threads) {
    if (response.rows < 3 || response.columns < 3) {
        return {};
    }
    const PeakKernels<T>& kernel = instruction_set().peaks.of<T>();
    const Index inner = response.rows - 2;
    const Index bands = (inner + row_grain - 1) / row_grain;
    std::vector<Maxima> parts(static_cast<std::size_t>(bands));
    parallel_for(bands, 1, n_threads, [&](Index begin, Index end) {
        std::vector<unsigned char> marks(static_cast<std::size_t>(response.columns));
        for (Index band = begin; band < end; ++band) {
            Maxima& part = parts[static_cast<std::size_t>(band)];
            for (Index r = 1 + band * row_grain; r <= std::min(inner, (band + 1) * row_grain); ++r) {
                const T* row = response.data + r * response.row_stride;
                kernel.mark_maxima(row - response.row_stride, row, row + response.row_stride, response.columns,
                                   marks.data());
                for (Index c = 1; c < response.columns - 1; ++c) {
                    if (!marks[static_cast<std::size_t>(c)]) {
                        continue;
                    }
                    const Offset offset = to_the_top(row + c, response.row_stride);
                    part.positions.push_back(static_cast<double>(top + r) + offset.down);
                    part.positions.push_back(static_cast<double>(c) + offset.right);
                    part.heights.push_back(static_cast<double>(row[c]));
                }
            }
        }
    });
    Maxima maxima;
    for (const Maxima& part : parts) {
        maxima.positions.insert(maxima.positions.end(), part.positions.begin(), part.positions.end());
        maxima.heights.insert(maxima.heights.end(), part.heights.begin(), part.heights.end());
    }
    return maxima;
}

void local_levels(const PointGrid& grid, const PositionsView& points, const double* heights, Index k, double percentile,
                  int n_threads, double* levels) {
    parallel_for(points.count, 256, n_threads, [&](Index begin, Index end) {
        std::vector<PointGrid::Neighbour> near(static_cast<std::size_t>(k));
        std::vector<double> values(static_cast<std::size_t>(k));
        for (Index p = begin; p < end; ++p) {
            grid.nearest(points.data[2 * p], points.data[2 * p + 1], k, near.data());
            for (std::size_t i = 0; i < near.size(); ++i) {
                values[i] = heights[near[i].number];
            }
            const double place = percentile / 100.0 * static_cast<double>(k - 1);
            const auto low = static_cast<std::ptrdiff_t>(place);
            const double share = place - static_cast<double>(low);
            std::nth_element(values.begin(), values.begin() + low, values.end());
            const double first = values[static_cast<std::size_t>(low)];
            const double next = low + 1 < k ? *std::min_element(values.begin() + low + 1, values.end()) : first;
            levels[p] = first + share * (next - first);
        }
    });
}

template <class T>
void sample_image(const ImageView<T>& image, const PositionsView& positions, int n_threads, double* values) {
    parallel_for(positions.count, 2048, n_threads, [&](Index begin, Index end) {
        for (Index p = begin; p < end; ++p) {
            const double row = std::clamp(positions.data[2 * p], 0.0, static_cast<double>(image.rows - 1));
            const double column = std::clamp(positions.data[2 * p + 1], 0.0, static_cast<double>(image.columns - 1));
            const auto top = static_cast<Index>(row);
            const auto left = static_cast<Index>(column);
            const Index down = top + 1 < image.rows ? image.row_stride : 0;
            const Index right = left + 1 < image.columns ? image.column_stride : 0;
            const T* corner = image.data + top * image.row_stride + left * image.column_stride;
            const double across = column - static_cast<double>(left);
            const double upper = corner[0] * (1.0 - across) + corner[right] * across;
            const double lower = corner[down] * (1.0 - across) + corner[down + right] * across;
            const double below = row - static_cast<double>(top);
            values[p] = upper * (1.0 - below) + lower * below;
        }
    });
}

void blur_boards(const double* boards, Index count, Index rows, Index columns, double sigma, int n_threads,
                 double* blurred) {
    const std::vector<double> half = half_gaussian(sigma);
    const auto radius = static_cast<Index>(half.size()) - 1;
    const PeakKernels<double>& kernel = instruction_set().peaks.float64;
    const std::vector<double> nothing(static_cast<std::size_t>(columns), 0.0);
    parallel_for(count * rows, row_grain, n_threads, [&](Index begin, Index end) {
        AlignedVector<double> work(static_cast<std::size_t>(columns + 2 * radius), 0.0);
        std::vector<const double*> lines(static_cast<std::size_t>(2 * radius + 1));
        for (Index line = begin; line < end; ++line) {
            const Index r = line % rows;
            const double* board = boards + (line - r) * columns;
            for (Index i = -radius; i <= radius; ++i) {
                const bool inside = r + i >= 0 && r + i < rows;
                lines[static_cast<std::size_t>(i + radius)] = inside ? board + (r + i) * columns : nothing.data();
            }
            kernel.convolve_rows(lines.data(), half.data(), radius, columns, work.data() + radius);
            kernel.convolve_columns(work.data() + radius, half.data(), radius, columns, blurred + line * columns);
        }
    });
}

template void peak_response(const ImageView<float>&, double, int, float*);
template void peak_response(const ImageView<double>&, double, int, double*);
template void sample_image(const ImageView<float>&, const PositionsView&, int, double*);
template void sample_image(const ImageView<double>&, const PositionsView&, int, double*);
template Maxima local_maxima(const ImageView<float>&, Index, int);
template Maxima local_maxima(const ImageView<double>&, Index, int);

}  // namespace contextem
