// Moments of patches, and of columns straight from the image.
//
//   a[p, j] = sum_(k, l) w[j, k, l] patch_p[k, l]
//
// Every mode is even or odd under row -> -row and column -> -column. The patch is folded once onto its lower right
// quadrant by sums and differences (four planes, one per parity), then each plane is multiplied by the quarter table of
// the modes of that parity: a quarter of the multiply-adds. Patches are worked in panels against the packed table, so
// that each table entry is loaded once per panel; only samples inside the disk take part.
#pragma once

#include <vector>

#include "contextem/aligned.hpp"
#include "contextem/sampling.hpp"
#include "contextem/view.hpp"

namespace contextem {

// One plane of a folded patch and the modes that read it.
template <class T>
struct TableBlock {
    int plane;                 // plane of the folded patch (Parity); 0 when the table is not folded
    std::vector<Index> modes;  // columns of the result
    Index width;               // modes.size(), padded to the vector width
    AlignedVector<T> weights;   // (samples, width): one row per sample in the order of MomentTable::row_lengths
};

// Weights (J, P, P) in the form that the kernels read.
template <class T>
struct MomentTable {
    // lanes: modes are padded to a multiple of this.
    MomentTable(const double* weights, Index n_modes, Index size, Index lanes);

    Index n_modes;
    Index size;
    bool folded;  // false when a mode has no parity: the kernels then read the whole patch
    Index rows;   // of a plane: ceil(P / 2) folded, P otherwise
    std::vector<Index> row_lengths;  // samples in each row of a plane, up to the last non-zero weight
    std::vector<TableBlock<T>> blocks;
};

// Name of the instruction set in use: "avx512", "avx2" or "baseline".
const char* simd_name();

// Modes per vector register of that instruction set.
template <class T>
Index simd_lanes();

template <class T>
void patch_moments(const PatchesView<T>& patches,  // (N, P, P)
                   const MomentTable<T>& table,
                   int n_threads,
                   T* moments);                    // (N, J)

template <class T>
void column_moments(const ImageView<T>& image,       // (rows, columns)
                    const PositionsView& positions,  // (N, 2)
                    const PatchGrid& grid,
                    const MomentTable<T>& table,
                    int n_threads,
                    T* moments);                     // (N, J)

}  // namespace contextem
