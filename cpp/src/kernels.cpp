// The three kernels, compiled once per instruction set (see CMakeLists.txt); all but the last function is local.
//
//   sample.hpp    image -> patch (P, P)     bilinear or nearest, zero outside
//   fold.hpp      patches -> panel          folded planes of the patches, a patch per lane
//   multiply.hpp  panel x table -> moments
//
// Every patch passes through the same operations whatever its lane, so results do not depend on panels or threads.
#include "kernels.hpp"

#include <cstring>

#include "fold.hpp"
#include "multiply.hpp"
#include "sample.hpp"

namespace contextem {
namespace {

// Takes patches first, first + 1, .. of a panel to their moments. rows_of(first, count) tells where up to lanes<T>
// patches lie, moments_of(i) where the moments of patch i belong.
template <class T, class RowsOf, class MomentsOf>
void panel_moments(const MomentTable<T>& table, Index count, Workspace<T>& work, const RowsOf& rows_of,
                   const MomentsOf& moments_of) {
    for (Index first = 0; first < count; first += lanes<T>) {
        const Index some = count - first < lanes<T> ? count - first : lanes<T>;
        PatchRows<T> patches = rows_of(first, some);
        for (Index i = some; i < lanes<T>; ++i) {  // the lanes left over repeat a patch
            patches.first[i] = patches.first[0];
        }
        if (table.folded) {
            fold_patches(table, patches, work.panel + first);
        } else {
            lay_out_patches(table, patches, work.panel + first);
        }
    }
    multiply_panel(table, work.panel, work.sums);
    for (Index first = 0; first < count; first += lanes<T>) {
        const Index some = count - first < lanes<T> ? count - first : lanes<T>;
        T* rows[static_cast<std::size_t>(lanes<T>)];
        for (Index i = 0; i < some; ++i) {
            rows[i] = moments_of(first + i);
        }
        write_moments(table.n_modes, work.sums + first, rows, some);
    }
}

template <class T>
Index panel_count(Index begin, Index end) {
    return end - begin < panel_patches<T>() ? end - begin : panel_patches<T>();
}

// Whether a patch can be read where it lies, lanes<T> values around it included: these are pixels of `block`.
template <class T>
bool readable(const T* patch, Index row_stride, Index size, const T* begin, const T* end) {
    return patch - begin >= lanes<T> && end - patch >= (size - 1) * row_stride + size + lanes<T>;
}

template <class T>
void patch_range(const PatchesView<T>& patches, const MomentTable<T>& table, Index begin, Index end, Workspace<T>& work,
                 T* moments) {
    const bool in_place = patches.column_stride == 1;
    for (Index start = begin; start < end; start += panel_patches<T>()) {
        const auto rows_of = [&](Index first, Index some) {
            PatchRows<T> rows = {{}, in_place ? patches.row_stride : work.patch_stride};
            for (Index i = 0; i < some; ++i) {
                const T* patch = patches.data + (start + first + i) * patches.patch_stride;
                if (!in_place) {
                    T* copy = work.patch(i);
                    for (Index k = 0; k < patches.size; ++k) {
                        for (Index l = 0; l < patches.size; ++l) {
                            copy[k * work.patch_stride + l] = patch[k * patches.row_stride + l * patches.column_stride];
                        }
                    }
                    patch = copy;
                }
                rows.first[i] = patch;
            }
            return rows;
        };
        panel_moments(table, panel_count<T>(start, end), work, rows_of,
                      [&](Index i) { return moments + (start + i) * table.n_modes; });
    }
}

template <class T>
void column_range(const ImageView<T>& image, const PositionsView& positions, const Index* order, const PatchGrid& grid,
                  const MomentTable<T>& table, Index begin, Index end, Workspace<T>& work, T* moments) {
    const bool unit = grid.unit() && image.column_stride == 1;
    for (Index start = begin; start < end; start += panel_patches<T>()) {
        const Index* panel = order + start;
        const auto rows_of = [&](Index first, Index some) {
            PatchRows<T> rows = {{}, image.row_stride};
            bool in_place = unit;  // all of them lie on the pixels of the image
            for (Index i = 0; i < some && in_place; ++i) {
                const UnitPatch patch = unit_patch(image, positions.data + 2 * panel[first + i], grid);
                in_place = patch.inside && patch.on_pixels();
                rows.first[i] = image.data + patch.top.index * image.row_stride + patch.left.index;
            }
            if (!in_place) {
                rows.stride = work.patch_stride;
                for (Index i = 0; i < some; ++i) {
                    sample_patch(image, positions.data + 2 * panel[first + i], grid, work, work.patch(i),
                                 work.patch_stride);
                    rows.first[i] = work.patch(i);
                }
            }
            return rows;
        };
        panel_moments(table, panel_count<T>(start, end), work, rows_of,
                      [&](Index i) { return moments + panel[i] * table.n_modes; });
    }
}

template <class T>
void extract_range(const ImageView<T>& image, const PositionsView& positions, const PatchGrid& grid, Index begin,
                   Index end, Workspace<T>& work, T* patches) {
    for (Index p = begin; p < end; ++p) {
        sample_patch(image, positions.data + 2 * p, grid, work, work.patch(0), work.patch_stride);
        T* out = patches + p * grid.size * grid.size;
        for (Index k = 0; k < grid.size; ++k) {
            std::memcpy(out + k * grid.size, work.patch(0) + k * work.patch_stride,
                        static_cast<std::size_t>(grid.size) * sizeof(T));
        }
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
