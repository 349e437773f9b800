#include "contextem/patches.hpp"

#include "contextem/parallel.hpp"
#include "instruction_set.hpp"
#include "tiles.hpp"

namespace contextem {
namespace {

constexpr Index large = Index(1) << 25;  // bytes that caches are not expected to keep until they are read

}  // namespace

template <class T>
void extract_patches(const ImageView<T>& image, const PositionsView& positions, const PatchGrid& grid, int n_threads,
                     T* patches) {
    const MomentKernels<T>& kernel = instruction_set().moments.of<T>();
    const Index bytes = positions.count * grid.size * grid.size * static_cast<Index>(sizeof(T));
    const bool past_caches = bytes > large;
    const std::vector<Index> order = order_by_tile(positions, image.rows, image.columns);
    parallel_for(positions.count, 64, n_threads, [&](Index begin, Index end) {
        Workspace<T> work(grid.size);
        kernel.extract_patches(image, positions, order.data(), grid, begin, end, past_caches, work, patches);
    });
}

template void extract_patches(const ImageView<float>&, const PositionsView&, const PatchGrid&, int, float*);
template void extract_patches(const ImageView<double>&, const PositionsView&, const PatchGrid&, int, double*);

}  // namespace contextem
