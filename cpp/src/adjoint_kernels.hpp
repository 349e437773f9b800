// The adjoint kernels of one instruction set and their working memory.
#pragma once

#include "contextem/adjoint.hpp"
#include "contextem/aligned.hpp"

namespace contextem {

constexpr Index adjoint_panel = 12;  // gradients multiplied together

// Memory of one thread.
template <class T>
class AdjointWorkspace {
public:
    AdjointWorkspace(const AdjointTable<T>& table, const PatchGrid& grid);

    T* patch;  // (P, patch_stride); the values before and after every row are 0
    Index patch_stride;
    T* planes;           // (adjoint_panel, n_parities, plane_stride)
    Index plane_stride;  // samples of a plane and what a vector load may read beyond them
    T* coefficients;     // (modes, adjoint_panel)
    T* lines;            // (2, line_stride) two image rows
    Index line_stride;
    T* turned;   // (P, patch_stride) the patch, transposed
    T* across;   // (segment_capacity, patch_stride) the transposed patch spread over image columns
    T* upright;  // (P, segment_capacity) the same, not transposed
    Index segment_capacity;

private:
    AlignedVector<T> values_;
};

// Rows [begin, end) of an image of `rows` rows: the part that one thread writes.
template <class T>
struct Band {
    T* image;  // (rows, columns)
    Index rows;
    Index columns;
    Index begin;
    Index end;
};

// None allocates or throws.
template <class T>
struct AdjointKernels {
    // patches [begin, end)
    void (*patches)(const MomentsView<T>& gradient, const AdjointTable<T>&, Index begin, Index end,
                    AdjointWorkspace<T>&, T* patches);
    // columns order[0, count), in that order
    void (*columns)(const MomentsView<T>& gradient, const PositionsView&, const Index* order, Index count,
                    const PatchGrid&, const AdjointTable<T>&, AdjointWorkspace<T>&, const Band<T>&);
    void (*positions)(const MomentsView<T>& gradient, const ImageView<T>&, const PositionsView&, const Index* order,
                      Index count, const PatchGrid&, const AdjointTable<T>&, AdjointWorkspace<T>&, double* slopes);
};

}  // namespace contextem
