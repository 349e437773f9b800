// Moments of patches, and of columns straight from the image.
//
//   a[p, j] = sum_(k, l) w[j, k, l] patch_p[k, l]
//
// Every mode is even or odd under row -> -row and under column -> -column. The patch is folded once onto its lower
// right quadrant by sums and differences (four planes, one per parity), and each plane is multiplied by the quarter
// table of the modes of that parity. Modes of even order are even or odd under row <-> column too: their planes are
// folded once more, onto an octant. Only samples with a weight take part. src/fold.hpp and src/multiply.hpp are the two
// steps.
#pragma once

#include <cstdint>
#include <vector>

#include "contextem/aligned.hpp"
#include "contextem/sampling.hpp"
#include "contextem/view.hpp"

namespace contextem {

// Symmetry of a mode under row <-> column, as far as it is made use of.
enum class Exchange { none, even, odd };

// Two samples of a plane that share a weight but for its sign; the same one twice on the diagonal.
struct SamplePair {
    std::int32_t here;   // row * MomentTable::rows + column
    std::int32_t there;  // row and column exchanged
};

// One plane of a folded patch and modes that read it alike.
template <class T>
struct TableBlock {
    int plane;  // of the folded patch (Parity); 0 when the table is not folded
    Exchange exchange;
    std::vector<Index> modes;         // columns of the result
    std::vector<SamplePair> samples;  // those with a weight
    AlignedVector<T> weights;         // (samples, modes)
};

// Weights (J, P, P) in the form that the kernels read.
template <class T>
struct MomentTable {
    MomentTable(const double* weights, Index n_modes, Index size);

    Index n_modes;
    Index size;
    bool folded;                     // false when a mode has no parity: the kernels then read the whole patch
    Index rows;                      // of a plane: ceil(P / 2) folded, P otherwise
    std::vector<Index> row_lengths;  // samples in each row of a plane, up to the last with a weight
    std::vector<TableBlock<T>> blocks;

    Index planes() const { return folded ? n_parities : 1; }
    Index multiply_adds() const;  // for one patch
};

template <class T>
void patch_moments(const PatchesView<T>& patches,  // (N, P, P)
                   const MomentTable<T>& table, int n_threads,
                   T* moments);  // (N, J)

template <class T>
void column_moments(const ImageView<T>& image,       // (rows, columns)
                    const PositionsView& positions,  // (N, 2)
                    const PatchGrid& grid, const MomentTable<T>& table, int n_threads,
                    T* moments);  // (N, J)

// Moments at every pixel: those of the patch whose sample (k, l) is pixel (row + k, column + l) - (P - 1) / 2, rounded
// down; pixels outside of the image count as 0.
template <class T>
void dense_moments(const ImageView<T>& image,  // (rows, columns)
                   const MomentTable<T>& table, int n_threads,
                   T* moments);  // (rows, columns, J)

}  // namespace contextem
