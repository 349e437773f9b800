#include "kernels.hpp"

namespace contextem {
namespace {

Index round_up(Index n) { return (n + max_lanes - 1) / max_lanes * max_lanes; }

}  // namespace

template <class T>
Workspace<T>::Workspace(const MomentTable<T>& table, Index lanes)
    : Workspace(table.size, lanes, table.planes() * table.rows * table.rows, table.n_modes, panel_vectors * lanes) {}

template <class T>
Workspace<T>::Workspace(Index size, Index lanes, Index panel_samples, Index n_modes, Index panel_patches)
    // rows of patches that are worked on together lie together; an odd number of cache lines apart, so that they do not
    // compete for the same places in the cache
    : patch_stride((lanes * round_up(size) / max_lanes | 1) * max_lanes),
      segment_capacity(4 * size + 2),
      pitch_(round_up(size)) {
    const Index patch_values = size * patch_stride + 2 * max_lanes;
    const Index panel_values = round_up(panel_samples * panel_patches);
    const Index sum_values = round_up(n_modes * panel_patches);
    const Index segment_values = round_up(segment_capacity) + 3 * max_lanes;
    const Index share_values = round_up(size);
    values_.assign(static_cast<std::size_t>(patch_values + panel_values + sum_values + segment_values + share_values),
                   T(0));
    indices_.assign(static_cast<std::size_t>(3 * round_up(size)), 0);
    patches_ = values_.data() + max_lanes;
    panel = values_.data() + patch_values;
    sums = panel + panel_values;
    segment = sums + sum_values;
    share = segment + segment_values;
    tap = indices_.data();
    pick = tap + round_up(size);
    window = tap + 2 * round_up(size);
}

template class Workspace<float>;
template class Workspace<double>;

}  // namespace contextem
