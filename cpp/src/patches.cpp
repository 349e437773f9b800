#include "contextem/patches.hpp"

#include "contextem/parallel.hpp"
#include "kernels.hpp"

namespace contextem {

template <class T>
void extract_patches(const ImageView<T>& image, const PositionsView& positions, const PatchGrid& grid, int n_threads,
                     T* patches) {
    const Kernels<T>& kernel = kernels<T>();
    parallel_for(positions.count, 64, n_threads, [&](Index begin, Index end) {
        Workspace<T> work(grid.size);
        kernel.extract_patches(image, positions, grid, begin, end, work, patches);
    });
}

template void extract_patches(const ImageView<float>&, const PositionsView&, const PatchGrid&, int, float*);
template void extract_patches(const ImageView<double>&, const PositionsView&, const PatchGrid&, int, double*);

}  // namespace contextem
