// The kernels themselves, compiled once per instruction set (see CMakeLists.txt); all but the last function is local.
//
//   sample   image -> patch (P, P)          bilinear or nearest, zero outside
//   fold     patch -> planes                sums and differences of the four quadrants; interleaved by vector:
//                                           panel[plane][row][chunk][patch][lane], so the addresses of the patches of a
//                                           panel differ by constants
//   multiply planes x packed table -> sums  12 patches against 1 or 2 registers of modes, held in registers throughout
//   scatter  sums -> moments (N, J)         undoes the grouping of modes by parity
//
// Every patch passes through the same instructions wherever it stands, so results do not depend on panels or threads.
#include "kernels.hpp"

#include "simd.hpp"

namespace contextem {
namespace {

// ---- sample ---------------------------------------------------------------------------------------------------------

template <class T>
CONTEXTEM_INLINE Vec<T> blend_vectors(Vec<T> a, Vec<T> b, Vec<T> share) {
    return multiply_add(share, b - a, a);
}

// Scale 1, patch inside the image, unit stride: all samples share one offset between pixels. Rows are blended along the
// columns once and used twice. The last vector overlaps the one before it, so that nothing beyond the patch is read.
template <class T>
void sample_unit(const ImageView<T>& image, Tap top, Tap left, Index size, T* patch, Index stride) {
    const Index next_row = top.share > 0.0 ? image.row_stride : 0;
    const Index next_column = left.share > 0.0 ? 1 : 0;
    const Vec<T> down = splat(static_cast<T>(top.share));
    const Vec<T> right = splat(static_cast<T>(left.share));
    const T* corner = image.data + top.index * image.row_stride + left.index;
    for (Index start = 0; start < size; start += lanes<T>) {
        const Index column = start + lanes<T> <= size ? start : size - lanes<T>;
        const T* pixel = corner + column;
        Vec<T> upper = blend_vectors<T>(load(pixel), load(pixel + next_column), right);
        for (Index row = 0; row < size; ++row) {
            // the row after the last is read only where it has a share
            pixel += row + 1 < size ? image.row_stride : next_row;
            const Vec<T> lower = blend_vectors<T>(load(pixel), load(pixel + next_column), right);
            store(patch + row * stride + column, blend_vectors<T>(upper, lower, down));
            upper = lower;
        }
    }
}

// Any scale along the axes: each patch row is an image row between two rows (the segment), read at fixed taps.
//
// plan_columns finds the patch columns [begin, end) that lie inside the image and where in the segment they read. A
// vector of patch columns reads a window of the segment; up to scale 2 that is two registers, which the taps permute.
struct ColumnPlan {
    Index begin;
    Index end;
    Index low;       // image column of the segment's first value
    Index width;     // of the segment
    bool permutes;   // every chunk's window fits two registers
};

template <class T>
ColumnPlan plan_columns(const ImageView<T>& image, double position, const PatchGrid& grid, Workspace<T>& work) {
    const Index size = grid.size;
    const double half = grid.half();
    const auto column_at = [&](Index l) { return sample_column(grid, position, 0.0, static_cast<double>(l) - half); };

    ColumnPlan plan = {0, size, 0, 0, true};  // coordinates are monotonic: the columns inside are one range
    while (plan.begin < plan.end && !inside(column_at(plan.begin), image.columns)) {
        ++plan.begin;
    }
    while (plan.end > plan.begin && !inside(column_at(plan.end - 1), image.columns)) {
        --plan.end;
    }
    if (plan.begin == plan.end) {
        return plan;
    }
    const Tap first = make_tap(column_at(plan.begin), grid.interpolation);
    const Tap last = make_tap(column_at(plan.end - 1), grid.interpolation);
    const Tap& high = first.index < last.index ? last : first;
    plan.low = first.index < last.index ? first.index : last.index;
    plan.width = high.index - plan.low + (high.share > 0.0 ? 2 : 1);
    if (plan.width > work.segment_capacity) {
        return plan;
    }

    auto* pick_index = static_cast<LaneIndex<T>*>(work.pick);
    for (Index start = 0; start < size; start += lanes<T>) {
        const Index stop = start + lanes<T> < size ? start + lanes<T> : size;
        Index least = plan.width;
        Index greatest = 0;
        for (Index l = start; l < stop; ++l) {
            // columns outside read anything and are zeroed afterwards
            const Index within = l < plan.begin ? plan.begin : (l < plan.end ? l : plan.end - 1);
            const Tap tap = make_tap(column_at(within), grid.interpolation);
            work.tap[l] = tap.index - plan.low;
            work.share[l] = static_cast<T>(tap.share);
            least = work.tap[l] < least ? work.tap[l] : least;
            greatest = work.tap[l] > greatest ? work.tap[l] : greatest;
        }
        work.window[start / lanes<T>] = least;
        plan.permutes = plan.permutes && greatest - least < 2 * lanes<T>;
        for (Index l = start; l < stop; ++l) {
            pick_index[l] = static_cast<LaneIndex<T>>(work.tap[l] - least);
        }
    }
    return plan;
}

template <class T>
void read_segment(const T* __restrict pixel, Index column_stride, Index next_row, T share, Index width,
                  T* __restrict segment) {
    if (column_stride == 1) {
        for (Index x = 0; x < width; ++x) {
            segment[x] = blend(pixel[x], pixel[x + next_row], share);
        }
    } else {
        for (Index x = 0; x < width; ++x) {
            segment[x] = blend(pixel[x * column_stride], pixel[x * column_stride + next_row], share);
        }
    }
    segment[width] = segment[width - 1];  // read by taps without a share
}

// Returns false if the segment would be too long to be worth it.
template <class T>
bool sample_separable(const ImageView<T>& image, double row_position, double column_position, const PatchGrid& grid,
                      Workspace<T>& work) {
    const Index size = grid.size;
    const ColumnPlan plan = plan_columns(image, column_position, grid, work);
    if (plan.width > work.segment_capacity) {
        return false;
    }
    const auto* pick_index = static_cast<const LaneIndex<T>*>(work.pick);
    for (Index k = 0; k < size; ++k) {
        T* out = work.patch + k * work.patch_stride;
        const double row = sample_row(grid, row_position, static_cast<double>(k) - grid.half(), 0.0);
        Index begin = plan.begin;
        Index end = plan.end;
        if (begin == end || !inside(row, image.rows)) {
            begin = end = size;
        } else {
            const Tap down = make_tap(row, grid.interpolation);
            read_segment(image.data + down.index * image.row_stride + plan.low * image.column_stride,
                         image.column_stride, down.share > 0.0 ? image.row_stride : 0, static_cast<T>(down.share),
                         plan.width, work.segment);
            if (plan.permutes) {
                for (Index l = 0; l < size; l += lanes<T>) {
                    const T* window = work.segment + work.window[l / lanes<T>];
                    store(out + l, blend_vectors<T>(pick(window, pick_index + l), pick(window + 1, pick_index + l),
                                                    load(work.share + l)));
                }
            } else {
                for (Index l = begin; l < end; ++l) {
                    out[l] = blend(work.segment[work.tap[l]], work.segment[work.tap[l] + 1], work.share[l]);
                }
            }
        }
        for (Index l = 0; l < begin; ++l) {
            out[l] = T(0);
        }
        for (Index l = end; l < size; ++l) {
            out[l] = T(0);
        }
    }
    return true;
}

template <class T>
void sample_general(const ImageView<T>& image, double row_position, double column_position, const PatchGrid& grid,
                    Workspace<T>& work) {
    const double half = grid.half();
    for (Index k = 0; k < grid.size; ++k) {
        for (Index l = 0; l < grid.size; ++l) {
            const double down = static_cast<double>(k) - half;
            const double right = static_cast<double>(l) - half;
            work.patch[k * work.patch_stride + l] =
                read_sample(image, sample_row(grid, row_position, down, right),
                            sample_column(grid, column_position, down, right), grid.interpolation);
        }
    }
}

template <class T>
void sample_patch(const ImageView<T>& image, const double* position, const PatchGrid& grid, Workspace<T>& work) {
    if (grid.unit() && image.column_stride == 1 && grid.size >= lanes<T>) {
        const double row = position[0] - grid.half();
        const double column = position[1] - grid.half();
        if (inside(row, image.rows) && inside(column, image.columns)) {
            // in integers, because row + size - 1 may round onto the border
            const Tap above = make_tap(row, Interpolation::linear);
            const Tap before = make_tap(column, Interpolation::linear);
            if (above.index + grid.size + (above.share > 0.0 ? 1 : 0) <= image.rows &&
                before.index + grid.size + (before.share > 0.0 ? 1 : 0) <= image.columns) {
                sample_unit(image, make_tap(row, grid.interpolation), make_tap(column, grid.interpolation), grid.size,
                            work.patch, work.patch_stride);
                return;
            }
        }
    }
    if (grid.separable() && sample_separable(image, position[0], position[1], grid, work)) {
        return;
    }
    sample_general(image, position[0], position[1], grid, work);
}

// A stored patch takes the place of a sampled one.
template <class T>
void copy_patch(const PatchesView<T>& patches, Index p, Workspace<T>& work) {
    const T* patch = patches.data + p * patches.patch_stride;
    for (Index k = 0; k < patches.size; ++k) {
        T* out = work.patch + k * work.patch_stride;
        for (Index l = 0; l < patches.size; ++l) {
            out[l] = patch[k * patches.row_stride + l * patches.column_stride];
        }
    }
}

// ---- fold -----------------------------------------------------------------------------------------------------------

template <class T>
Index chunks(const MomentTable<T>& table) {
    return (table.rows + lanes<T> - 1) / lanes<T>;
}

// Address of one vector of patch `slot` in the panel.
template <class T>
T* panel_vector(const MomentTable<T>& table, Index plane, Index row, Index chunk, Index slot, T* panel) {
    return panel + (((plane * table.rows + row) * chunks(table) + chunk) * panel_patches + slot) * lanes<T>;
}

// Vectors run past the quadrant's last column; what they read there is padding and its products are never formed.
template <class T>
void fold_patch(const MomentTable<T>& table, const Workspace<T>& work, Index slot) {
    const Index size = table.size;
    const Index first = size - table.rows;  // first row and column of the lower right quadrant
    for (Index row = 0; row < table.rows; ++row) {
        const T* below = work.patch + (first + row) * work.patch_stride;
        const T* above = work.patch + (table.rows - 1 - row) * work.patch_stride;
        for (Index chunk = 0; chunk < chunks(table); ++chunk) {
            const Index right = first + chunk * lanes<T>;
            const Index left = table.rows - (chunk + 1) * lanes<T>;
            const Folded<Vec<T>> folded =
                fold(load(below + right), reverse<T>(load(below + left)), load(above + right),
                     reverse<T>(load(above + left)));
            for (int plane = 0; plane < n_parities; ++plane) {
                store(panel_vector(table, plane, row, chunk, slot, work.panel), folded.plane[plane]);
            }
        }
    }
}

// A table without parity: the only plane is the patch itself.
template <class T>
void stage_whole_patch(const MomentTable<T>& table, const Workspace<T>& work, Index slot) {
    for (Index row = 0; row < table.rows; ++row) {
        for (Index chunk = 0; chunk < chunks(table); ++chunk) {
            store(panel_vector(table, 0, row, chunk, slot, work.panel),
                  load(work.patch + row * work.patch_stride + chunk * lanes<T>));
        }
    }
}

template <class T>
void stage_patch(const MomentTable<T>& table, const Workspace<T>& work, Index slot) {
    if (table.folded) {
        fold_patch(table, work, slot);
    } else {
        stage_whole_patch(table, work, slot);
    }
}

// ---- multiply -------------------------------------------------------------------------------------------------------

// sums[i][v] = sum over samples of panel[sample][i] * weights[sample][v]: n_patches patches, n_vectors registers.
template <int n_patches, int n_vectors, class T>
void multiply(const MomentTable<T>& table, const T* panel, const T* weights, Index width, T* sums) {
    Vec<T> sum[n_patches][n_vectors] = {};
    const Index n_chunks = chunks(table);
    for (Index row = 0; row < table.rows; ++row) {
        const Index length = table.row_lengths[static_cast<std::size_t>(row)];
        for (Index chunk = 0; chunk < n_chunks; ++chunk) {
            const T* tile = panel + (row * n_chunks + chunk) * panel_patches * lanes<T>;
            const Index rest = length - chunk * lanes<T>;
            const Index stop = rest < lanes<T> ? rest : lanes<T>;
            for (Index column = 0; column < stop; ++column, weights += width) {
                Vec<T> weight[n_vectors];
#pragma GCC unroll 2
                for (int v = 0; v < n_vectors; ++v) {
                    weight[v] = load(weights + v * lanes<T>);
                }
#pragma GCC unroll 12
                for (int i = 0; i < n_patches; ++i) {
                    const Vec<T> value = splat(tile[i * lanes<T> + column]);
#pragma GCC unroll 2
                    for (int v = 0; v < n_vectors; ++v) {
                        sum[i][v] = multiply_add(value, weight[v], sum[i][v]);
                    }
                }
            }
        }
    }
    for (int i = 0; i < n_patches; ++i) {
        for (int v = 0; v < n_vectors; ++v) {
            store(sums + i * width + v * lanes<T>, sum[i][v]);
        }
    }
}

// Two registers of modes for as many patches as the register file holds sums of: 32 registers with AVX-512, 16 before.
constexpr int wide_patches = CONTEXTEM_VECTOR_BYTES == 64 ? 12 : 6;

template <class T>
void multiply_panel(const MomentTable<T>& table, Workspace<T>& work, const Index* patch, Index count, T* moments) {
    const Index plane_size = table.rows * chunks(table) * panel_patches * lanes<T>;
    for (const TableBlock<T>& block : table.blocks) {
        const T* panel = work.panel + block.plane * plane_size;
        const T* weights = block.weights.data();
        const Index width = block.width;
        Index mode = 0;
        for (; mode + 2 * lanes<T> <= width; mode += 2 * lanes<T>) {
            for (Index i = 0; i < panel_patches; i += wide_patches) {
                multiply<wide_patches, 2>(table, panel + i * lanes<T>, weights + mode, width,
                                          work.sums + i * width + mode);
            }
        }
        if (mode < width) {
            multiply<static_cast<int>(panel_patches), 1>(table, panel, weights + mode, width, work.sums + mode);
        }
        const Index* modes = block.modes.data();
        const Index n_modes = static_cast<Index>(block.modes.size());
        for (Index i = 0; i < count; ++i) {
            T* out = moments + patch[i] * table.n_modes;
            const T* sums = work.sums + i * width;
            for (Index j = 0; j < n_modes; ++j) {
                out[modes[j]] = sums[j];
            }
        }
    }
}

// ---- the three kernels ----------------------------------------------------------------------------------------------

template <class T>
void extract_range(const ImageView<T>& image, const PositionsView& positions, const PatchGrid& grid, Index begin,
                   Index end, Workspace<T>& work, T* patches) {
    for (Index p = begin; p < end; ++p) {
        sample_patch(image, positions.data + 2 * p, grid, work);
        T* out = patches + p * grid.size * grid.size;
        for (Index k = 0; k < grid.size; ++k) {
            const T* row = work.patch + k * work.patch_stride;
            for (Index l = 0; l < grid.size; ++l) {
                out[k * grid.size + l] = row[l];
            }
        }
    }
}

template <class T>
void patch_range(const PatchesView<T>& patches, const MomentTable<T>& table, Index begin, Index end, Workspace<T>& work,
                 T* moments) {
    for (Index start = begin; start < end; start += panel_patches) {
        Index panel[panel_patches];
        const Index count = end - start < panel_patches ? end - start : panel_patches;
        for (Index i = 0; i < count; ++i) {
            panel[i] = start + i;
            copy_patch(patches, panel[i], work);
            stage_patch(table, work, i);
        }
        multiply_panel(table, work, panel, count, moments);
    }
}

template <class T>
void column_range(const ImageView<T>& image, const PositionsView& positions, const Index* order, const PatchGrid& grid,
                  const MomentTable<T>& table, Index begin, Index end, Workspace<T>& work, T* moments) {
    for (Index start = begin; start < end; start += panel_patches) {
        const Index* panel = order + start;
        const Index count = end - start < panel_patches ? end - start : panel_patches;
        for (Index i = 0; i < count; ++i) {
            sample_patch(image, positions.data + 2 * panel[i], grid, work);
            stage_patch(table, work, i);
        }
        multiply_panel(table, work, panel, count, moments);
    }
}

template <class T>
constexpr Kernels<T> all = {lanes<T>, extract_range<T>, patch_range<T>, column_range<T>};

}  // namespace

const InstructionSet& CONTEXTEM_KERNELS() {
    static constexpr InstructionSet set = {CONTEXTEM_KERNELS_NAME, all<float>, all<double>};
    return set;
}

}  // namespace contextem
