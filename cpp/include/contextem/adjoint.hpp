// The adjoint of the moments: from a gradient with respect to moments to one with respect to pixels or positions.
//
//   patches     q[p, k, l] = sum_j g[p, j] w[j, k, l]
//   image       G[r, c]    = sum_p sum_(k, l) q[p, k, l] t_p,k,l[r, c]
//   positions   D[p]       = sum_(k, l) q[p, k, l] grad I(c_p + S d_kl)
//
// t_p,k,l[r, c] is the share with which sample (k, l) of patch p reads pixel (r, c), see sampling.hpp; so
// <moments(I), g> = <I, G> for every image I. grad I is that of the linear interpolation, constant between pixels.
// With the values of the polynomials in place of the weights, the patches q are the reconstruction of the moments g.
#pragma once

#include <vector>

#include "contextem/aligned.hpp"
#include "contextem/sampling.hpp"
#include "contextem/view.hpp"

namespace contextem {

// The modes of one parity.
template <class T>
struct AdjointBlock {
    int plane;                 // plane of the folded patch (Parity) that they write; 0 when the table is not folded
    std::vector<Index> modes;  // of the gradient
    AlignedVector<T> weights;  // (modes, samples) of the table
};

// Weights (J, P, P) in the form that the adjoint reads: one quadrant if every mode has a parity, else the whole patch;
// of each row the samples up to the last non-zero weight, row after row.
template <class T>
struct AdjointTable {
    AdjointTable(const double* weights /* (J, P, P) */, Index n_modes, Index size);

    Index n_modes;
    Index size;
    bool folded;
    Index rows;                      // of a plane: ceil(P / 2) folded, P otherwise
    std::vector<Index> row_begins;   // (rows) first sample of each row
    std::vector<Index> row_lengths;  // (rows)
    Index samples;                   // of a plane, padded to whole cache lines
    std::vector<AdjointBlock<T>> blocks;
};

template <class T>
void patch_moments_adjoint(const MomentsView<T>& gradient,  // (N, J)
                           const AdjointTable<T>& table, int n_threads,
                           T* patches);  // (N, P, P)

template <class T>
void column_moments_adjoint(const MomentsView<T>& gradient,  // (N, J)
                            const PositionsView& positions,  // (N, 2)
                            const PatchGrid& grid, const AdjointTable<T>& table, Index rows, Index columns,
                            int n_threads,
                            T* image);  // (rows, columns)

// For linear interpolation, whatever the grid's.
template <class T>
void column_moments_position_gradient(const MomentsView<T>& gradient,  // (N, J)
                                      const ImageView<T>& image,       // (rows, columns)
                                      const PositionsView& positions,  // (N, 2)
                                      const PatchGrid& grid, const AdjointTable<T>& table, int n_threads,
                                      double* slopes);  // (N, 2)

}  // namespace contextem
