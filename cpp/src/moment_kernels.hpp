// The kernels on patches and columns of one instruction set, and their working memory.
#pragma once

#include "contextem/aligned.hpp"
#include "contextem/moments.hpp"
#include "contextem/sampling.hpp"
#include "contextem/view.hpp"

namespace contextem {

constexpr int panel_vectors = 2;  // vectors of patches, a patch per lane, that are multiplied together
constexpr Index max_lanes = 16;   // of the widest register and the smallest type
constexpr Index band_rows = 8;    // rows sampled at a time: those of as many patches as lanes stay in the cache

// Memory of one thread, for patches of as many as there are lanes.
template <class T>
class Workspace {
public:
    // One patch, for extract_patches.
    explicit Workspace(Index size) : Workspace(size, 1, 0, 0, 0) {}
    Workspace(const MomentTable<T>& table, Index lanes);

    Index row_pitch;        // P, padded to whole vectors
    T* rows;                // (lanes, 2, band_rows, row_pitch) sampled; max_lanes readable values lie before and after
    T* shares;              // (lanes, 2, row_pitch) taps of a patch, see LineTaps
    std::int32_t* indices;  // (lanes, 2, row_pitch)
    Index* windows;         // (lanes, row_pitch)
    T* segments;            // (band_rows, segment_pitch) image rows between two rows, 3 max_lanes more to read
                            // also (2, P + panel_patches + lanes) sums and differences of rows of neighbouring patches
    Index segment_pitch;
    T* staged;  // (planes, lanes, lanes)
    T* panel;   // (planes, rows, rows, panel_patches)
    T* sums;    // (J, panel_patches)

private:
    Workspace(Index size, Index lanes, Index staged_values, Index panel_values, Index sum_values);

    AlignedVector<T> values_;
    AlignedVector<std::int32_t> indices_;
    AlignedVector<Index> windows_;
};

// Each function works on the patches [begin, end), those of columns on order[begin, end); none allocates or throws.
template <class T>
struct MomentKernels {
    Index lanes;  // patches per vector register
    void (*extract_patches)(const ImageView<T>&, const PositionsView&, const Index* order, const PatchGrid&,
                            Index begin, Index end, bool past_caches, Workspace<T>&, T* patches);
    void (*patch_moments)(const PatchesView<T>&, const MomentTable<T>&, Index begin, Index end, Workspace<T>&,
                          T* moments);
    void (*column_moments)(const ImageView<T>&, const PositionsView&, const Index* order, const PatchGrid&,
                           const MomentTable<T>&, Index begin, Index end, Workspace<T>&, T* moments);
    // rows [begin, end) of the result; the image has P / 2 zeros more on every side and a panel more at the right
    void (*dense_moments)(const ImageView<T>& padded, const MomentTable<T>&, Index columns, Index begin, Index end,
                          Workspace<T>&, T* moments);
};

}  // namespace contextem
