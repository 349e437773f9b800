#include "moment_kernels.hpp"

namespace contextem {
namespace {

Index round_up(Index n) { return (n + max_lanes - 1) / max_lanes * max_lanes; }

}  // namespace

template <class T>
Workspace<T>::Workspace(const MomentTable<T>& table, Index lanes)
    : Workspace(table.size, lanes, table.planes() * lanes * lanes,
                table.planes() * table.rows * table.rows * panel_vectors * lanes,
                table.n_modes * panel_vectors * lanes) {}

template <class T>
Workspace<T>::Workspace(Index size, Index lanes, Index staged_values, Index panel_values, Index sum_values)
    : row_pitch(round_up(size)), segment_pitch(round_up(4 * size + 2) + 3 * max_lanes) {
    const Index pair = 2 * row_pitch;
    Index total = 0;
    const auto reserve = [&total](Index count) {
        const Index start = total;
        total += round_up(count);
        return start;
    };
    const Index at_rows = reserve(lanes * band_rows * pair + 2 * max_lanes) + max_lanes;
    const Index at_shares = reserve(lanes * pair);
    const Index at_segments = reserve(band_rows * segment_pitch);
    const Index at_staged = reserve(staged_values);
    const Index at_panel = reserve(panel_values);
    const Index at_sums = reserve(sum_values);
    values_.assign(static_cast<std::size_t>(total), T(0));
    indices_.assign(static_cast<std::size_t>(lanes * pair), 0);
    windows_.assign(static_cast<std::size_t>(lanes * row_pitch), 0);
    rows = values_.data() + at_rows;
    shares = values_.data() + at_shares;
    segments = values_.data() + at_segments;
    staged = values_.data() + at_staged;
    panel = values_.data() + at_panel;
    sums = values_.data() + at_sums;
    indices = indices_.data();
    windows = windows_.data();
}

template class Workspace<float>;
template class Workspace<double>;

}  // namespace contextem
