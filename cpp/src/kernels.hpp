// The kernels of one instruction set, their working memory, and the choice among them at run time.
#pragma once

#include "contextem/aligned.hpp"
#include "contextem/moments.hpp"
#include "contextem/sampling.hpp"
#include "contextem/view.hpp"

namespace contextem {

constexpr int panel_vectors = 2;     // vectors of patches, a patch per lane, that are multiplied together
constexpr Index max_lanes = 16;      // of the widest register and the smallest type
constexpr Index max_panel = max_lanes * panel_vectors;

// Memory of one thread.
template <class T>
class Workspace {
public:
    // Patches only, for extract_patches.
    explicit Workspace(Index size) : Workspace(size, 1, 0, 0, 0) {}
    Workspace(const MomentTable<T>& table, Index lanes);

    T* patch(Index i) { return patches_ + i * pitch_; }  // rows patch_stride apart, lanes rows of other patches between

    Index patch_stride;    // a patch row may be written up to the next multiple of max_lanes
    T* panel;              // (planes, rows, columns, panel_patches)
    T* sums;               // (J, panel_patches)
    T* segment;            // (segment_capacity) an image row between two rows; 3 max_lanes readable values follow
    Index segment_capacity;
    T* share;              // (P, padded) share of the next value at each patch column
    Index* tap;            // (P) position in the segment of each patch column
    void* pick;            // (P, padded) the same, counted from its chunk's window, as integers of the size of T
    Index* window;         // (chunks of P) first value of the segment that a chunk of patch columns reads

private:
    Workspace(Index size, Index lanes, Index panel_samples, Index n_modes, Index panel_patches);

    Index pitch_;
    T* patches_;
    AlignedVector<T> values_;
    AlignedVector<Index> indices_;
};

// Each function works on the patches [begin, end), column_moments on order[begin, end); none allocates or throws.
template <class T>
struct Kernels {
    Index lanes;  // patches per vector register
    void (*extract_patches)(const ImageView<T>&, const PositionsView&, const PatchGrid&, Index begin, Index end,
                            Workspace<T>&, T* patches);
    void (*patch_moments)(const PatchesView<T>&, const MomentTable<T>&, Index begin, Index end, Workspace<T>&,
                          T* moments);
    void (*column_moments)(const ImageView<T>&, const PositionsView&, const Index* order, const PatchGrid&,
                           const MomentTable<T>&, Index begin, Index end, Workspace<T>&, T* moments);
};

struct InstructionSet {
    const char* name;
    Kernels<float> float32;
    Kernels<double> float64;
};

const InstructionSet& baseline_kernels();
#if defined(CONTEXTEM_X86)
const InstructionSet& avx2_kernels();
const InstructionSet& avx512_kernels();
#endif

// The widest one this processor has, or the one named by CONTEXTEM_SIMD. Chosen once; throws std::invalid_argument
// where CONTEXTEM_SIMD names one that it does not have.
const InstructionSet& instruction_set();

template <class T>
const Kernels<T>& kernels();

}  // namespace contextem
