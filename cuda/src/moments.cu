// Moments of patches, and of columns straight from the image.
//
//   a[p, j] = sum_(k, l) w[j, k, l] patch_p[k, l]
//
// A block takes 64 patches (32 in double precision), two per lane, and a warp a group of up to 21 modes of one plane,
// whose sums stay in registers. Samples of the quadrant go by in strips of 16:
//
//   fetch      the next strip's pixels -> registers, 16 bytes at a time (patches whose rows allow it; others in `put`)
//   multiply   this strip: panel[plane][sample][patch] from shared memory, weights by broadcast from the L1 cache
//   put        the next strip's pixels, folded -> the other panel; one barrier
//
// so that loads are under way while the multiply-adds run. Sums go out by way of shared memory, a row of moments at a
// time. Shared memory does not grow with P or J; blockIdx.y counts groups beyond 16 warps. The diagonal fold is left
// out: it needs the whole quadrant at once, and a patch of 32 x 32 at n_max 10 takes 441 multiply-adds of a warp where
// the time to read it leaves room for 1,500 instructions (see benchmarks/README.md).
#include <algorithm>

#include "check.cuh"
#include "contextem/cuda/moments.hpp"
#include "moment_tile.hpp"

namespace contextem::cuda {
namespace {

template <class T, class Stage>
__global__ void __launch_bounds__(groups_per_block* lanes)
    moments_kernel(Stage stage, DeviceTableView<T> table, T* __restrict__ moments /* (N, J) */) {
    __shared__ alignas(16) T panels[Tile<T>::values];
    __shared__ PatchCorner<T> corners[Stage::keeps_corners ? Tile<T>::patches : 1];
    const int thread = static_cast<int>(threadIdx.x);
    const int threads = static_cast<int>(blockDim.x);
    const int lane = thread % lanes;
    const Index first_patch = Index(blockIdx.x) * Tile<T>::patches;
    const GroupBlock block = table.blocks[blockIdx.y];
    const bool multiplies = thread / lanes < block.n_groups;
    const ModeGroup group = table.groups[block.first_group + (multiplies ? thread / lanes : 0)];
    TileKind kind = TileKind::on_pixels;
    if constexpr (Stage::keeps_corners) {
        bool elsewhere = false;
        bool on = true;
        bool between = true;
        for (int i = thread; i < Tile<T>::patches; i += threads) {
            const PatchCorner<T> corner = stage.corner(min(first_patch + i, stage.count() - 1));
            elsewhere = elsewhere || corner.pixel == nullptr;
            on = on && corner.on_pixels();
            between = between && corner.between_pixels();
            corners[i] = corner;
        }
        elsewhere = __syncthreads_or(elsewhere);
        on = __syncthreads_and(on);
        kind = tile_kind(elsewhere, on, __syncthreads_and(between));
    }

    Sums<T> sums = {};
    typename Stage::Held held;
    const int strips = strip_count(table.n_quads);
    for (int strip = -1; strip < strips; ++strip) {
        const bool more = strip + 1 < strips;
        if (more) {
            stage.fetch(table, first_patch, strip + 1, thread, threads, held);
        }
        if (strip >= 0 && multiplies) {
            multiply_strip<Stage::together>(table, group, strip, lane, panels + strip % 2 * Tile<T>::panel, sums);
        }
        if (more) {
            stage.put(table, first_patch, strip + 1, thread, threads, corners, kind, held,
                      panels + (strip + 1) % 2 * Tile<T>::panel);
        }
        __syncthreads();
    }

    for (int first = 0; first < Tile<T>::patches; first += patches_at_once<T>(block)) {
        if (multiplies) {
            put_sums(block, group, first, lane, sums, panels);
        }
        __syncthreads();
        write_moments(table, block, first_patch, first, stage.count(), thread, threads, panels, moments);
        __syncthreads();
    }
}

template <class T, class Stage>
void launch(const Stage& stage, const DeviceTableView<T>& table, T* moments, void* stream, const char* what) {
    if (stage.count() == 0) {
        return;
    }
    const dim3 blocks(static_cast<unsigned>((stage.count() + Tile<T>::patches - 1) / Tile<T>::patches),
                      static_cast<unsigned>(table.n_blocks));
    const int threads = std::max(fewest_threads, table.most_groups * lanes);
    moments_kernel<T, Stage><<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(stage, table, moments);
    check_launch(what);
}

}  // namespace

template <class T>
void patch_moments(const PatchesView<T>& patches, const DeviceTableView<T>& table, T* moments, void* stream) {
    if constexpr (sizeof(T) == 4) {
        if (VectorStage::fits(patches, table)) {
            launch(VectorStage{patches}, table, moments, stream, "patch_moments");
            return;
        }
    }
    launch(SampleStage<T, PatchSamples<T>>{{{patches}}}, table, moments, stream, "patch_moments");
}

template <class T>
void column_moments(const ImageView<T>& image, const PositionsView& positions, const PatchGrid& grid,
                    const DeviceTableView<T>& table, T* moments, void* stream) {
    launch(SampleStage<T, ColumnSamples<T>>{{{image, positions, grid}}}, table, moments, stream, "column_moments");
}

template void patch_moments(const PatchesView<float>&, const DeviceTableView<float>&, float*, void*);
template void patch_moments(const PatchesView<double>&, const DeviceTableView<double>&, double*, void*);
template void column_moments(const ImageView<float>&, const PositionsView&, const PatchGrid&,
                             const DeviceTableView<float>&, float*, void*);
template void column_moments(const ImageView<double>&, const PositionsView&, const PatchGrid&,
                             const DeviceTableView<double>&, double*, void*);

}  // namespace contextem::cuda
