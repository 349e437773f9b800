#include "kernels.hpp"

namespace contextem {

template <class T>
Workspace<T>::Workspace(Index size, Index rows, Index n_planes, Index max_width) {
    const auto round_up = [](Index n) { return (n + max_lanes - 1) / max_lanes * max_lanes; };
    patch_stride = round_up(size) + 2 * max_lanes;
    segment_capacity = 4 * size + 2;
    const Index patch_values = size * patch_stride + 2 * max_lanes;
    const Index panel_values = n_planes * rows * round_up(rows) * panel_patches;
    const Index sum_values = panel_patches * round_up(max_width);
    const Index segment_values = round_up(segment_capacity) + 3 * max_lanes;
    const Index share_values = round_up(size);
    values_.assign(static_cast<std::size_t>(patch_values + panel_values + sum_values + segment_values + share_values),
                   T(0));
    indices_.assign(static_cast<std::size_t>(3 * round_up(size)), 0);
    patch = values_.data() + max_lanes;
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
