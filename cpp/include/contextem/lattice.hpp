// Local lattices from power spectra of tiles: the spectra, how well hexagons of spots fit them, where the spots are.
#pragma once

#include <vector>

#include "contextem/aligned.hpp"
#include "contextem/view.hpp"

namespace contextem {

// Of tiles (rows, columns): window, Fourier factors up to `centre` bins of 1 / pad, and the blur that follows.
struct SpectrumTables {
    Index rows;
    Index columns;
    Index centre;                   // c: bins -c .. c - 1 are kept along either axis
    Index width;                    // c + 1 padded to whole vectors
    std::vector<float> row_window;  // (rows)
    std::vector<float> column_window;
    AlignedVector<float> column_cos;  // (columns - columns / 2, width) bin u at the offset of column columns / 2 + j
    AlignedVector<float> column_sin;
    AlignedVector<float> row_cos;  // (rows - rows / 2, width) likewise
    AlignedVector<float> row_sin;
    std::vector<float> blur;  // (radius + 1) half of the Gaussian

    SpectrumTables(Index tile_rows, Index tile_columns, Index pad, Index kept, double blur_sigma);
    Index work_size() const;
};

// Power spectra of windowed tiles about their means, zero-padded to (pad, pad), in bins -c .. c - 1 of either axis,
// blurred by a Gaussian. varies[t]: whether tile t holds more than one value.
template <class T>
void tile_spectra(const ImageView<T>& image, const Index* corners,  // (n, 2)
                  Index count, const SpectrumTables& tables, int n_threads,
                  float* power,   // (n, 2 c, 2 c)
                  bool* varies);  // (n)

// Where a hexagon's three spots of either order are looked for, in units of 1 / pad.
struct SpokeTable {
    Index radii;
    Index angles;
    const double* radius;  // (radii) cycles/px
    const double* angle;   // (angles) rad
    double pad;
};

// Log power over the background of the weakest of three spots, mean over first and second order.
void spoke_scores(const float* power,  // (n, 2 c, 2 c)
                  Index count, Index centre, const SpokeTable& table, int n_threads,
                  double* scores);  // (n, radii, angles)

// Centres of gravity, bins, of the strongest spots within 12 % of the three ideal first-order ones.
void hexagon_spots(const float* power,  // (n, 2 c, 2 c)
                   Index count, Index centre, double pad,
                   const double* radius,  // (n) cycles/px
                   const double* angle,   // (n) rad
                   int n_threads,
                   double* spots);  // (n, 3, 2)

}  // namespace contextem
