// Growth of a lattice: site indices handed on from peak to peak, each site predicted by a fit to its neighbours.
#pragma once

#include <vector>

#include "contextem/points.hpp"
#include "contextem/view.hpp"

namespace contextem {

constexpr Index n_around = 36;  // neighbours of a site within three steps

// What the fits of a growth read: tables over a board of sites, by flat site number.
struct SiteBoard {
    const double* measured;  // (sites, 2) peak at the site, px; the predicted position where there is none
    const double* weight;    // (sites) how much the peak counts, 0 to 1
    const Index* around;     // (n_around) steps to the neighbours in flat numbers
    const double* offsets;   // (n_around, 2) and in indices i, j
    const double* near;      // (n_around) weight of a neighbour by its distance
    double ridge;            // against changes of the frame, in weights of a neighbour
};

// Weight 0 to 1 of peaks by their strength (K) and by their distance from the site, nothing beyond `reach`, px.
struct PeakWeights {
    const PointGrid& grid;
    const PositionsView positions;
    const double* strength;
    double reach;

    // Position and weight of the peak at a predicted site; the site itself and 0 where there is none.
    double snap(const double* site, double* position) const;
};

void snap_sites(const PeakWeights& peaks, const PositionsView& sites, int n_threads,
                double* positions,  // (S, 2)
                double* weights);   // (S)

struct GrownSites {
    std::vector<Index> indices;     // (S, 2) i, j
    std::vector<double> predicted;  // (S, 2) px
    std::vector<double> support;    // (S) weight of the peaks met round the site over that expected; 0 outside
    std::vector<double> lopsided;   // (S) distance between the centres of what was met and expected, site spacings
    std::vector<char> measured;     // (S) whether the site is in the image and has a peak
};

// Hands on the indices from the site at `start` to all sites that can be reached in an image of (height, width).
GrownSites grow_sites(const PeakWeights& peaks, const double* start, const double* basis, Index height, Index width,
                      int n_threads);

}  // namespace contextem
