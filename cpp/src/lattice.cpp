#include "contextem/lattice.hpp"

#include <algorithm>
#include <cmath>

#include "contextem/gaussian.hpp"
#include "contextem/parallel.hpp"
#include "instruction_set.hpp"

namespace contextem {
namespace {

const double pi = std::acos(-1.0);

std::vector<float> hann(Index size) {
    std::vector<float> window;
    for (Index i = 1; i <= size; ++i) {
        const double phase = 2.0 * pi * static_cast<double>(i) / static_cast<double>(size + 1);
        window.push_back(static_cast<float>(0.5 - 0.5 * std::cos(phase)));
    }
    return window;
}

void fill_factors(Index size, Index width, Index pad, AlignedVector<float>& cosines, AlignedVector<float>& sines) {
    for (Index j = 0; j < size - size / 2; ++j) {
        const double offset = static_cast<double>(size / 2 + j) - 0.5 * static_cast<double>(size - 1);
        for (Index u = 0; u < width; ++u) {
            const double phase = 2.0 * pi * static_cast<double>(u) * offset / static_cast<double>(pad);
            cosines.push_back(static_cast<float>(std::cos(phase)));
            sines.push_back(static_cast<float>(std::sin(phase)));
        }
    }
}

// Bilinear between the bins of a spectrum; bins outside are the nearest inside.
struct BinTap {
    Index place;  // of the upper left bin
    Index down;   // to the next row and column, 0 at the end
    Index right;
    float row_share;
    float column_share;
};

BinTap bin_tap(double row, double column, Index side) {
    const auto axis = [side](double place, Index& index, Index& step, float& share) {
        const double within = std::clamp(place, 0.0, static_cast<double>(side - 1));
        index = std::min(static_cast<Index>(within), side - 1);
        step = index + 1 < side ? 1 : 0;
        share = static_cast<float>(within - static_cast<double>(index));
    };
    BinTap tap = {};
    Index top = 0;
    Index left = 0;
    axis(row, top, tap.down, tap.row_share);
    axis(column, left, tap.right, tap.column_share);
    tap.place = top * side + left;
    tap.down *= side;
    return tap;
}

double median(std::vector<float>& values) {
    const auto middle = static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), values.begin() + middle, values.end());
    const double upper = values[static_cast<std::size_t>(middle)];
    if (values.size() % 2 == 1) {
        return upper;
    }
    return 0.5 * (upper + static_cast<double>(*std::max_element(values.begin(), values.begin() + middle)));
}

}  // namespace

SpectrumTables::SpectrumTables(Index tile_rows, Index tile_columns, Index pad, Index kept, double blur_sigma)
    : rows(tile_rows),
      columns(tile_columns),
      centre(kept),
      width((kept + 16) / 16 * 16),
      row_window(hann(tile_rows)),
      column_window(hann(tile_columns)) {
    fill_factors(columns, width, pad, column_cos, column_sin);
    fill_factors(rows, width, pad, row_cos, row_sin);
    for (double value : half_gaussian(blur_sigma)) {
        blur.push_back(static_cast<float>(value));
    }
}

Index SpectrumTables::work_size() const {
    const Index padded_rows = (rows + 3) / 4 * 4;
    return 2 * padded_rows * (columns - columns / 2) + 2 * padded_rows * width + 4 * (rows - rows / 2) * width;
}

template <class T>
void tile_spectra(const ImageView<T>& image, const Index* corners, Index count, const SpectrumTables& tables,
                  int n_threads, float* power, bool* varies) {
    const InstructionSet& kernels = instruction_set();
    const Index c = tables.centre;
    const Index side = 2 * c;
    const Index width = tables.width;
    const auto radius = static_cast<Index>(tables.blur.size()) - 1;
    parallel_for(count, 1, n_threads, [&](Index begin, Index end) {
        std::vector<float> tile(static_cast<std::size_t>(tables.rows * tables.columns));
        AlignedVector<float> work(static_cast<std::size_t>(tables.work_size()));
        AlignedVector<float> half(static_cast<std::size_t>((side + 1) * width));
        std::vector<float> whole(static_cast<std::size_t>(side * side));
        std::vector<float> line(static_cast<std::size_t>(side + 2 * radius));
        std::vector<const float*> lines(static_cast<std::size_t>(2 * radius + 1));
        for (Index t = begin; t < end; ++t) {
            const T* corner = image.data + corners[2 * t] * image.row_stride + corners[2 * t + 1] * image.column_stride;
            const T one = corner[0];
            bool same = true;
            double sum = 0.0;
            for (Index r = 0; r < tables.rows; ++r) {
                double row_sum = 0.0;
                for (Index j = 0; j < tables.columns; ++j) {
                    const T value = corner[r * image.row_stride + j * image.column_stride];
                    same = same && value == one;
                    row_sum += static_cast<double>(value);
                }
                sum += row_sum;
            }
            varies[t] = !same;
            float* out = power + t * side * side;
            if (same) {
                std::fill(out, out + side * side, 0.0f);
                continue;
            }
            const double mean = sum / static_cast<double>(tables.rows * tables.columns);
            for (Index r = 0; r < tables.rows; ++r) {
                const float row_window = tables.row_window[static_cast<std::size_t>(r)];
                for (Index j = 0; j < tables.columns; ++j) {
                    const double value = static_cast<double>(corner[r * image.row_stride + j * image.column_stride]);
                    const float window = row_window * tables.column_window[static_cast<std::size_t>(j)];
                    tile[static_cast<std::size_t>(r * tables.columns + j)] = static_cast<float>(value - mean) * window;
                }
            }
            kernels.lattice.tile_power(tile.data(), tables, work.data(), half.data());
            for (Index v = -c; v < c; ++v) {
                float* row = whole.data() + (v + c) * side;
                for (Index u = 0; u < c; ++u) {
                    row[c + u] = half[static_cast<std::size_t>((c + v) * width + u)];
                }
                for (Index u = 1; u <= c; ++u) {
                    row[c - u] = half[static_cast<std::size_t>((c - v) * width + u)];
                }
            }
            for (Index r = 0; r < side; ++r) {
                for (Index i = -radius; i <= radius; ++i) {
                    const Index row = std::clamp<Index>(r + i, 0, side - 1);
                    lines[static_cast<std::size_t>(i + radius)] = whole.data() + row * side;
                }
                float* first = line.data() + radius;
                float* last = first + side - 1;
                kernels.peaks.float32.convolve_rows(lines.data(), tables.blur.data(), radius, side, first);
                std::fill(line.data(), first, *first);
                std::fill(last + 1, last + 1 + radius, *last);
                kernels.peaks.float32.convolve_columns(first, tables.blur.data(), radius, side, out + r * side);
            }
        }
    });
}

void spoke_scores(const float* power, Index count, Index centre, const SpokeTable& table, int n_threads,
                  double* scores) {
    const Index side = 2 * centre;
    const double orders[2] = {1.0, std::sqrt(3.0)};
    std::vector<BinTap> taps;  // (2, radii, angles, 3)
    for (int order = 0; order < 2; ++order) {
        for (Index k = 0; k < table.radii; ++k) {
            const double spoke = orders[order] * table.radius[k] * table.pad;
            for (Index m = 0; m < table.angles; ++m) {
                for (int third = 0; third < 3; ++third) {
                    const double turn = table.angle[m] + third * pi / 3 + order * pi / 6;
                    taps.push_back(bin_tap(static_cast<double>(centre) + spoke * std::cos(turn),
                                           static_cast<double>(centre) + spoke * std::sin(turn), side));
                }
            }
        }
    }
    parallel_for(count, 1, n_threads, [&](Index begin, Index end) {
        const auto ring = static_cast<std::size_t>(3 * table.angles);
        std::vector<float> values(static_cast<std::size_t>(table.radii) * ring);
        std::vector<float> sorted(ring);
        for (Index t = begin; t < end; ++t) {
            const float* spectrum = power + t * side * side;
            double* score = scores + t * table.radii * table.angles;
            std::fill(score, score + table.radii * table.angles, 0.0);
            for (std::size_t order = 0; order < 2; ++order) {
                float greatest = 0.0f;
                for (std::size_t i = 0; i < values.size(); ++i) {
                    const BinTap& tap = taps[order * values.size() + i];
                    const float* bin = spectrum + tap.place;
                    const float upper = bin[0] + tap.column_share * (bin[tap.right] - bin[0]);
                    const float lower = bin[tap.down] + tap.column_share * (bin[tap.down + tap.right] - bin[tap.down]);
                    values[i] = upper + tap.row_share * (lower - upper);
                    greatest = std::max(greatest, values[i]);
                }
                for (Index k = 0; k < table.radii; ++k) {
                    const float* around = values.data() + static_cast<std::size_t>(k) * ring;
                    std::copy(around, around + ring, sorted.begin());
                    const double background = median(sorted) + 1e-3 * static_cast<double>(greatest) + 1e-300;
                    for (Index m = 0; m < table.angles; ++m) {
                        const float weakest = std::min(std::min(around[3 * m], around[3 * m + 1]), around[3 * m + 2]);
                        score[k * table.angles + m] += std::log1p(static_cast<double>(weakest) / background) / 2;
                    }
                }
            }
        }
    });
}

void hexagon_spots(const float* power, Index count, Index centre, double pad, const double* radius, const double* angle,
                   int n_threads, double* spots) {
    const Index side = 2 * centre;
    parallel_for(count, 16, n_threads, [&](Index begin, Index end) {
        for (Index t = begin; t < end; ++t) {
            const float* spectrum = power + t * side * side;
            const double far = radius[t] * pad;
            const double reach = std::max(2.0, 0.12 * far);
            for (int third = 0; third < 3; ++third) {
                const double turn = angle[t] + 2 * third * pi / 3;
                const double ideal[2] = {far * std::cos(turn), far * std::sin(turn)};
                const auto first = [&](int axis) {
                    return std::max<Index>(0, static_cast<Index>(std::ceil(ideal[axis] - reach)) + centre);
                };
                const auto last = [&](int axis) {
                    return std::min<Index>(side - 1, static_cast<Index>(std::floor(ideal[axis] + reach)) + centre);
                };
                Index top = 0;
                Index left = 0;
                float most = 0.0f;
                for (Index r = first(0); r <= last(0); ++r) {
                    for (Index c = first(1); c <= last(1); ++c) {
                        const bool near = std::hypot(static_cast<double>(r - centre) - ideal[0],
                                                     static_cast<double>(c - centre) - ideal[1]) <= reach;
                        if (near && spectrum[r * side + c] > most) {
                            most = spectrum[r * side + c];
                            top = r;
                            left = c;
                        }
                    }
                }
                double mass = 0.0;
                double moment[2] = {0.0, 0.0};
                for (Index r = std::max<Index>(0, top - 2); r <= std::min(side - 1, top + 2); ++r) {
                    for (Index c = std::max<Index>(0, left - 2); c <= std::min(side - 1, left + 2); ++c) {
                        const double value = static_cast<double>(spectrum[r * side + c]);
                        const double weight = std::max(0.0, value - 0.3 * static_cast<double>(most));
                        mass += weight;
                        moment[0] += weight * static_cast<double>(r - centre);
                        moment[1] += weight * static_cast<double>(c - centre);
                    }
                }
                for (int axis = 0; axis < 2; ++axis) {
                    spots[(t * 3 + third) * 2 + axis] = mass > 0.0 ? moment[axis] / mass : ideal[axis];
                }
            }
        }
    });
}

template void tile_spectra(const ImageView<float>&, const Index*, Index, const SpectrumTables&, int, float*, bool*);
template void tile_spectra(const ImageView<double>&, const Index*, Index, const SpectrumTables&, int, float*, bool*);

}  // namespace contextem
