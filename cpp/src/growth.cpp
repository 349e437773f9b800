#include "contextem/growth.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>

#include "contextem/parallel.hpp"
#include "instruction_set.hpp"

namespace contextem {
namespace {

constexpr Index reach_steps = 3;     // of a fit; sites this close to the border of the board are not visited
constexpr double fit_width = 1.1;    // of the neighbourhood of a fit, site spacings
constexpr double frame_ridge = 0.2;  // against changes of the frame, in weights of a neighbour
constexpr Index site_grain = 256;

// Offsets of all sites within three steps without the origin, the nearest first.
struct Neighbourhood {
    std::array<Index, 2 * n_around> steps;
    std::array<double, 2 * n_around> offsets;    // the same
    std::array<double, 2 * n_around> cartesian;  // site spacings
    std::array<double, n_around> distance2;      // squared, site spacings

    Neighbourhood() {
        std::vector<std::array<Index, 2>> hexagon;
        for (Index i = -reach_steps; i <= reach_steps; ++i) {
            for (Index j = -reach_steps; j <= reach_steps; ++j) {
                const Index hops = std::max(std::max(std::abs(i), std::abs(j)), std::abs(i + j));
                if (hops > 0 && hops <= reach_steps) {
                    hexagon.push_back({i, j});
                }
            }
        }
        const auto far = [](const std::array<Index, 2>& d) { return d[0] * d[0] + d[0] * d[1] + d[1] * d[1]; };
        std::stable_sort(hexagon.begin(), hexagon.end(), [&](const auto& a, const auto& b) { return far(a) < far(b); });
        for (std::size_t k = 0; k < n_around; ++k) {
            steps[2 * k] = hexagon[k][0];
            steps[2 * k + 1] = hexagon[k][1];
            offsets[2 * k] = static_cast<double>(hexagon[k][0]);
            offsets[2 * k + 1] = static_cast<double>(hexagon[k][1]);
            cartesian[2 * k] = offsets[2 * k] + 0.5 * offsets[2 * k + 1];
            cartesian[2 * k + 1] = std::sqrt(0.75) * offsets[2 * k + 1];
            distance2[k] = static_cast<double>(far(hexagon[k]));
        }
    }
};

// Zeroed memory of which only the pages that are written take room: most of a board stays empty.
template <class T>
class Board {
public:
    explicit Board(Index count) : values_(static_cast<T*>(std::calloc(static_cast<std::size_t>(count), sizeof(T)))) {
        if (!values_) {
            throw std::bad_alloc();
        }
    }
    T* data() { return values_.get(); }
    T& operator[](Index place) { return values_.get()[place]; }
    const T& operator[](Index place) const { return values_.get()[place]; }

private:
    struct Free {
        void operator()(T* pointer) const { std::free(pointer); }
    };
    std::unique_ptr<T, Free> values_;
};

class Growth {
public:
    Growth(const PeakWeights& peaks, const double* start, const double* basis, Index height, Index width, int n_threads)
        : peaks_(peaks),
          limit_{static_cast<double>(height - 1), static_cast<double>(width - 1)},
          n_threads_(n_threads),
          middle_{middle(start, basis, height, width)},
          rows_(2 * middle_[0] + 1),
          columns_(2 * middle_[1] + 1),
          predicted_(2 * rows_ * columns_),
          measured_(2 * rows_ * columns_),
          frames_(4 * rows_ * columns_),
          weight_(rows_ * columns_),
          visited_(rows_ * columns_),
          queued_(rows_ * columns_) {
        for (std::size_t k = 0; k < n_around; ++k) {
            around_[k] = hexagon_.steps[2 * k] * columns_ + hexagon_.steps[2 * k + 1];
            near_[k] = std::exp(-hexagon_.distance2[k] / (2 * fit_width * fit_width));
        }
        const Index first = middle_[0] * columns_ + middle_[1];
        for (std::size_t k = 0; k <= n_around; ++k) {
            const Index site = k < n_around ? first + around_[k] : first;
            const Index row = site / columns_;
            const double i = static_cast<double>(row - middle_[0]);
            const double j = static_cast<double>(site % columns_ - middle_[1]);
            const double fitted[6] = {start[0] + i * basis[0] + j * basis[2],
                                      start[1] + i * basis[1] + j * basis[3],
                                      basis[0],
                                      basis[1],
                                      basis[2],
                                      basis[3]};
            enter(site, fitted);
            fresh_.push_back(site);
        }
        visited_sites_ = fresh_;
    }

    // Visits all sites that can be reached, in waves, the best backed first: they lead round noise and holes.
    void spread() {
        std::vector<Index> waiting;
        std::vector<Index> ready;
        std::vector<double> backing;
        for (;;) {
            for (const Index site : fresh_) {
                if (!inside(site)) {
                    continue;
                }
                for (std::size_t k = 0; k < 6; ++k) {
                    const Index next = site + around_[k];
                    if (open(next) && !visited_[next] && !queued_[next]) {
                        queued_[next] = 1;
                        waiting.push_back(next);
                    }
                }
            }
            if (waiting.empty()) {
                return;
            }
            std::sort(waiting.begin(), waiting.end());
            backing.resize(waiting.size());
            double most = 0.0;
            for (std::size_t s = 0; s < waiting.size(); ++s) {
                double sum = 0.0;
                for (const Index step : around_) {
                    sum += weight_[waiting[s] + step];
                }
                backing[s] = sum;
                most = std::max(most, sum);
            }
            const double enough = std::max(1.0, 0.6 * most);
            ready.clear();
            std::size_t left = 0;
            for (std::size_t s = 0; s < waiting.size(); ++s) {
                if (backing[s] >= enough) {
                    ready.push_back(waiting[s]);
                } else {
                    waiting[left++] = waiting[s];
                }
            }
            waiting.resize(left);
            if (ready.empty()) {
                return;
            }
            fit(ready, [this](Index site, double* origin, double* frame) { hand_on(site, origin, frame); });
            visited_sites_.insert(visited_sites_.end(), ready.begin(), ready.end());
            fresh_ = ready;
        }
    }

    // Fits every site again, twice, from neighbours on all sides.
    void settle() {
        inner_ = visited_sites_;
        std::sort(inner_.begin(), inner_.end());
        inner_.erase(std::remove_if(inner_.begin(), inner_.end(), [this](Index site) { return !open(site); }),
                     inner_.end());
        for (int round = 0; round < 2; ++round) {
            fit(inner_, [this](Index site, double* origin, double* frame) {
                std::copy_n(&predicted_[2 * site], 2, origin);
                std::copy_n(&frames_[4 * site], 4, frame);
            });
        }
    }

    GrownSites sites() {
        const auto count = static_cast<Index>(inner_.size());
        Board<double> expected(rows_ * columns_);
        for (const Index site : inner_) {
            expected[site] = inside(site) ? 1.0 : 0.0;
        }
        GrownSites grown;
        grown.indices.resize(static_cast<std::size_t>(2 * count));
        grown.predicted.resize(static_cast<std::size_t>(2 * count));
        grown.support.resize(static_cast<std::size_t>(count));
        grown.lopsided.resize(static_cast<std::size_t>(count));
        grown.measured.resize(static_cast<std::size_t>(count));
        std::array<double, n_around> near;
        for (std::size_t k = 0; k < n_around; ++k) {
            near[k] = std::exp(-hexagon_.distance2[k] / 2);
        }
        parallel_for(count, site_grain, n_threads_, [&](Index begin, Index end) {
            for (Index s = begin; s < end; ++s) {
                const auto at = static_cast<std::size_t>(s);
                const Index site = inner_[at];
                double met = 0.0;
                double shared = 0.0;
                double weights = 0.0;
                double shares = 0.0;
                double lean[2] = {0.0, 0.0};
                double centre[2] = {0.0, 0.0};
                for (std::size_t k = 0; k < n_around; ++k) {
                    const double w = weight_[site + around_[k]];
                    const double e = expected[site + around_[k]];
                    met += w * near[k];
                    shared += e * near[k];
                    weights += w;
                    shares += e;
                    for (std::size_t axis = 0; axis < 2; ++axis) {
                        lean[axis] += w * hexagon_.cartesian[2 * k + axis];
                        centre[axis] += e * hexagon_.cartesian[2 * k + axis];
                    }
                }
                const bool within = expected[site] > 0.0;
                weights = std::max(weights, 1e-9);
                shares = std::max(shares, 1e-9);
                grown.indices[2 * at] = site / columns_ - middle_[0];
                grown.indices[2 * at + 1] = site % columns_ - middle_[1];
                std::copy_n(&predicted_[2 * site], 2, &grown.predicted[2 * at]);
                grown.support[at] = within ? met / std::max(shared, 1e-9) : 0.0;
                grown.lopsided[at] =
                    std::hypot(lean[0] / weights - centre[0] / shares, lean[1] / weights - centre[1] / shares);
                grown.measured[at] = within && weight_[site] > 0.0;
            }
        });
        return grown;
    }

private:
    // Half the board: as far as the corners of the image are, and a fifth.
    static std::array<Index, 2> middle(const double* start, const double* basis, Index height, Index width) {
        const double cell = basis[0] * basis[3] - basis[1] * basis[2];
        double far[2] = {0.0, 0.0};
        for (int corner = 0; corner < 4; ++corner) {
            const double down = (corner / 2 ? static_cast<double>(height) : 0.0) - start[0];
            const double right = (corner % 2 ? static_cast<double>(width) : 0.0) - start[1];
            far[0] = std::max(far[0], std::abs((down * basis[3] - right * basis[2]) / cell));
            far[1] = std::max(far[1], std::abs((right * basis[0] - down * basis[1]) / cell));
        }
        // a start far outside, or cells of less than a pixel, would take a board that no memory holds
        const double pixels = static_cast<double>(height) * static_cast<double>(width);
        if (!(far[0] * far[1] <= 16.0 * pixels + 1e6 && far[0] + far[1] <= 1e6 + 16.0 * pixels)) {
            throw std::invalid_argument("seed, basis: expected a point in the image and sites at least a pixel apart");
        }
        return {static_cast<Index>(std::ceil(1.2 * far[0])) + 6, static_cast<Index>(std::ceil(1.2 * far[1])) + 6};
    }

    // Whether all neighbours of a site are on the board.
    bool open(Index site) const {
        const Index i = site / columns_;
        const Index j = site % columns_;
        return i >= reach_steps && i < rows_ - reach_steps && j >= reach_steps && j < columns_ - reach_steps;
    }

    bool inside(Index site) const {
        const double* place = &predicted_[2 * site];
        return place[0] >= 0.0 && place[0] <= limit_[0] && place[1] >= 0.0 && place[1] <= limit_[1];
    }

    void enter(Index site, const double* fitted) {
        visited_[site] = 1;
        std::copy_n(fitted, 2, &predicted_[2 * site]);
        std::copy_n(fitted + 2, 4, &frames_[4 * site]);
        weight_[site] = peaks_.snap(fitted, &measured_[2 * site]);
    }

    // First guess for a new site: means over its nearest neighbours visited.
    void hand_on(Index site, double* origin, double* frame) const {
        double count = 0.0;
        std::fill_n(frame, 4, 0.0);
        for (std::size_t k = 0; k < 6; ++k) {
            count += visited_[site + around_[k]];
        }
        for (std::size_t k = 0; k < 6; ++k) {
            const Index next = site + around_[k];
            for (Index x = 0; visited_[next] && x < 4; ++x) {
                frame[x] += frames_[4 * next + x] / count;
            }
        }
        std::fill_n(origin, 2, 0.0);
        for (std::size_t k = 0; k < 6; ++k) {
            const Index next = site + around_[k];
            for (Index axis = 0; visited_[next] && axis < 2; ++axis) {
                const double step =
                    hexagon_.offsets[2 * k] * frame[axis] + hexagon_.offsets[2 * k + 1] * frame[2 + axis];
                origin[axis] += (predicted_[2 * next + axis] - step) / count;
            }
        }
    }

    // Fits the sites, all from the state before, then enters them.
    template <class Guess>
    void fit(const std::vector<Index>& sites, const Guess& guess) {
        const auto count = static_cast<Index>(sites.size());
        fitted_.resize(static_cast<std::size_t>(6 * count));
        const SiteBoard board = {measured_.data(),        weight_.data(), around_.data(),
                                 hexagon_.offsets.data(), near_.data(),   frame_ridge};
        const auto fit_sites = instruction_set().growth.fit_sites;
        parallel_for(count, site_grain, n_threads_, [&](Index begin, Index end) {
            std::vector<double> origins(static_cast<std::size_t>(2 * (end - begin)));
            std::vector<double> frames(static_cast<std::size_t>(4 * (end - begin)));
            for (Index s = begin; s < end; ++s) {
                guess(sites[static_cast<std::size_t>(s)], &origins[static_cast<std::size_t>(2 * (s - begin))],
                      &frames[static_cast<std::size_t>(4 * (s - begin))]);
            }
            fit_sites(board, sites.data() + begin, end - begin, origins.data(), frames.data(),
                      &fitted_[6 * static_cast<std::size_t>(begin)]);
        });
        parallel_for(count, site_grain, n_threads_, [&](Index begin, Index end) {
            for (Index s = begin; s < end; ++s) {
                enter(sites[static_cast<std::size_t>(s)], &fitted_[static_cast<std::size_t>(6 * s)]);
            }
        });
    }

    const Neighbourhood hexagon_;
    const PeakWeights& peaks_;
    const double limit_[2];
    const int n_threads_;
    const std::array<Index, 2> middle_;
    const Index rows_;
    const Index columns_;
    Board<double> predicted_;  // (sites, 2)
    Board<double> measured_;   // (sites, 2)
    Board<double> frames_;     // (sites, 2, 2)
    Board<double> weight_;
    Board<char> visited_;
    Board<char> queued_;
    std::array<Index, n_around> around_;
    std::array<double, n_around> near_;
    std::vector<Index> fresh_;
    std::vector<Index> visited_sites_;
    std::vector<Index> inner_;  // visited, and all neighbours on the board
    std::vector<double> fitted_;
};

}  // namespace

double PeakWeights::snap(const double* site, double* position) const {
    const PointGrid::Neighbour near = grid.nearest(site[0], site[1], reach);
    if (near.number < 0) {
        position[0] = site[0];
        position[1] = site[1];
        return 0.0;
    }
    position[0] = positions.data[2 * near.number];
    position[1] = positions.data[2 * near.number + 1];
    const double height = std::clamp(strength[near.number], 0.0, 1.0);
    return height * height * (1.0 - 0.9 * near.distance2 / (reach * reach));
}

void snap_sites(const PeakWeights& peaks, const PositionsView& sites, int n_threads, double* positions,
                double* weights) {
    parallel_for(sites.count, 512, n_threads, [&](Index begin, Index end) {
        for (Index s = begin; s < end; ++s) {
            weights[s] = peaks.snap(sites.data + 2 * s, positions + 2 * s);
        }
    });
}

GrownSites grow_sites(const PeakWeights& peaks, const double* start, const double* basis, Index height, Index width,
                      int n_threads) {
    Growth growth(peaks, start, basis, height, width, n_threads);
    growth.spread();
    growth.settle();
    return growth.sites();
}

}  // namespace contextem
