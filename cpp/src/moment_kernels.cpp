// The kernels on patches and columns, compiled once per instruction set (see CMakeLists.txt); all but the last function
// is local.
//
//   sample.hpp        image -> rows of a patch    bilinear or nearest, zero outside
//   fold.hpp          rows -> panel               folded planes of the patches, a patch per lane
//   dense.hpp         image -> panel              the same for the patches of neighbouring pixels
//   multiply.hpp      panel x table -> moments
//   fetch_ahead.hpp   the memory of the next panel
//
// Every patch passes through the same operations whatever its lane, so results do not depend on panels or threads.
#include "moment_kernels.hpp"

#include <cstring>
#include <optional>

#include "dense.hpp"
#include "fetch_ahead.hpp"
#include "fold.hpp"
#include "multiply.hpp"
#include "sample.hpp"

namespace contextem {
namespace {

// Rows that lie where they are, for fold_patches.
template <class T>
struct RowsInPlace {
    const T* first[static_cast<std::size_t>(lanes<T>)];  // sample of every patch
    Index stride;
    Index band;

    const T* operator()(int i, Index k, Index, int) const { return first[i] + k * stride; }
};

// Rows that write(i, k, count, out, stride) puts into the workspace.
template <class T, class Write>
struct RowsWritten {
    Workspace<T>& work;
    const Write& write;
    Index stride = work.row_pitch;
    Index band = band_rows;

    const T* operator()(int i, Index k, Index count, int side) const {
        T* out = work.rows + (2 * i + side) * band_rows * work.row_pitch;
        write(i, k, count, out, work.row_pitch);
        return out;
    }
};

template <class T, class Source>
void stage_patches(const MomentTable<T>& table, const Source& source, Workspace<T>& work, Index first) {
    if (table.folded) {
        fold_patches(table, source, work.staged, work.panel + first);
    } else {
        lay_out_patches(table, source, work.staged, work.panel + first);
    }
}

// moments_of(i) tells where the moments of patch i of the panel belong.
template <class T, class MomentsOf>
void write_panel(Index n_modes, Index count, const T* sums, const MomentsOf& moments_of) {
    for (Index first = 0; first < count; first += lanes<T>) {
        const Index some = count - first < lanes<T> ? count - first : lanes<T>;
        T* rows[static_cast<std::size_t>(lanes<T>)];
        for (Index i = 0; i < some; ++i) {
            rows[i] = moments_of(first + i);
        }
        write_moments(n_modes, sums + first, rows, some);
    }
}

// Takes the patches of a panel to their moments. stage(first, count) puts lanes<T> patches from `first` on into the
// panel, of which `count` count.
template <class T, class Stage, class MomentsOf>
void panel_moments(const MomentTable<T>& table, Index count, Workspace<T>& work, FetchAhead<T>& ahead,
                   const Stage& stage, const MomentsOf& moments_of) {
    for (Index first = 0; first < count; first += lanes<T>) {
        stage(first, count - first < lanes<T> ? count - first : lanes<T>);
    }
    multiply_panel(table, work.panel, work.sums, ahead);
    ahead.finish();
    write_panel(table.n_modes, count, work.sums, moments_of);
}

template <class T>
Index panel_count(Index begin, Index end) {
    return end - begin < panel_patches<T>() ? end - begin : panel_patches<T>();
}

// Values that folding reads before and after a row.
template <class T>
Index fold_margin(const MomentTable<T>& table) {
    return table.rows < lanes<T> ? lanes<T> : 0;
}

template <class T>
void patch_range(const PatchesView<T>& patches, const MomentTable<T>& table, Index begin, Index end, Workspace<T>& work,
                 T* moments) {
    const Index size = patches.size;
    const Index margin = fold_margin(table);
    const bool plain = patches.column_stride == 1 && patches.row_stride >= size && patches.patch_stride >= size;
    const auto patch_at = [&](Index p) { return patches.data + p * patches.patch_stride; };
    // the margins of the first and the last patches lie outside of the stack
    const auto in_place = [&](Index first, Index last) {
        return plain && first * patches.patch_stride >= margin &&
               (patches.count - 1 - last) * patches.patch_stride >= margin;
    };
    for (Index start = begin; start < end; start += panel_patches<T>()) {
        FetchAhead<T> ahead;
        for (Index p = start + panel_patches<T>(); plain && p < end && p < start + 2 * panel_patches<T>(); ++p) {
            if (patches.row_stride == size) {
                ahead.add(patch_at(p), size * size);
            } else {
                ahead.add(patch_at(p), size, patches.row_stride, size - 1);
            }
        }
        const auto stage = [&](Index first, Index count) {
            RowsInPlace<T> rows = {{}, patches.row_stride, size};
            for (Index i = 0; i < lanes<T>; ++i) {  // the lanes left over repeat a patch
                rows.first[i] = patch_at(start + first + (i < count ? i : 0));
            }
            if (in_place(start + first, start + first + count - 1)) {
                stage_patches(table, rows, work, first);
                return;
            }
            const auto copy = [&](int i, Index k, Index n_rows, T* out, Index stride) {
                for (Index n = 0; n < n_rows; ++n) {
                    const T* row = rows(i, k + n, 1, 0);
                    for (Index l = 0; l < size; ++l) {
                        out[n * stride + l] = row[l * patches.column_stride];
                    }
                }
            };
            stage_patches(table, RowsWritten<T, decltype(copy)>{work, copy}, work, first);
        };
        panel_moments(table, panel_count<T>(start, end), work, ahead, stage,
                      [&](Index i) { return moments + (start + i) * table.n_modes; });
    }
}

template <class T>
void column_range(const ImageView<T>& image, const PositionsView& positions, const Index* order, const PatchGrid& grid,
                  const MomentTable<T>& table, Index begin, Index end, Workspace<T>& work, T* moments) {
    const Index margin = fold_margin(table);
    ColumnsAhead<T> columns_ahead(image, grid, positions.count);
    const bool unit = grid.unit() && image.column_stride == 1;
    const T* const first_pixel = image.data + margin;
    const T* const last_pixel = image.data + (image.rows - 1) * image.row_stride + image.columns - 1 - margin;
    for (Index start = begin; start < end; start += panel_patches<T>()) {
        FetchAhead<T> ahead;
        for (Index p = start + panel_patches<T>(); p < end && p < start + 2 * panel_patches<T>(); ++p) {
            columns_ahead.add(positions.data + 2 * order[p], ahead);
            ahead.add(moments + order[p] * table.n_modes, table.n_modes);
        }
        const auto stage = [&](Index first, Index count) {
            const auto position = [&](Index i) {  // the lanes left over repeat a patch
                return positions.data + 2 * order[start + first + (i < count ? i : 0)];
            };
            RowsInPlace<T> rows = {{}, image.row_stride, grid.size};
            bool in_place = unit;
            for (Index i = 0; i < lanes<T> && in_place; ++i) {
                const UnitPatch<T> patch(image, grid, position(i));
                rows.first[i] = patch.corner;
                in_place = patch.on_pixels() && patch.corner >= first_pixel &&
                           patch.corner + (grid.size - 1) * (image.row_stride + 1) <= last_pixel;
            }
            if (in_place) {
                stage_patches(table, rows, work, first);
                return;
            }
            std::optional<Sampler<T>> samplers[static_cast<std::size_t>(lanes<T>)];
            for (Index i = 0; i < lanes<T>; ++i) {
                samplers[i].emplace(image, grid, position(i), i, work);
            }
            const auto sample = [&](int i, Index k, Index n_rows, T* out, Index stride) {
                samplers[i]->rows(k, n_rows, out, stride);
            };
            stage_patches(table, RowsWritten<T, decltype(sample)>{work, sample}, work, first);
        };
        panel_moments(table, panel_count<T>(start, end), work, ahead, stage,
                      [&](Index i) { return moments + order[start + i] * table.n_modes; });
    }
}

template <class T>
void extract_range(const ImageView<T>& image, const PositionsView& positions, const Index* order, const PatchGrid& grid,
                   Index begin, Index end, bool past_caches, Workspace<T>& work, T* patches) {
    const Index size = grid.size;
    const bool aligned = size % lanes<T> == 0 && reinterpret_cast<std::uintptr_t>(patches) % sizeof(Vec<T>) == 0;
    for (Index number = begin; number < end; ++number) {
        const Index p = order[number];
        const Sampler<T> sampler(image, grid, positions.data + 2 * p, 0, work);
        T* out = patches + p * size * size;
        if (sampler.unit() && aligned && past_caches) {
            sampler.stream_patch(out);
        } else if (sampler.unit() || size % lanes<T> == 0) {
            sampler.rows(0, size, out, size);
        } else {
            for (Index k = 0; k < size; ++k, out += size) {
                sampler.rows(k, 1, work.rows, work.row_pitch);
                std::memcpy(out, work.rows, static_cast<std::size_t>(size) * sizeof(T));
            }
        }
    }
    stream_fence();
}

template <class T>
void dense_range(const ImageView<T>& padded, const MomentTable<T>& table, Index columns, Index begin, Index end,
                 Workspace<T>& work, T* moments) {
    for (Index row = begin; row < end; ++row) {
        for (Index start = 0; start < columns; start += panel_patches<T>()) {
            const T* corner = padded.data + row * padded.row_stride + start;
            if (table.folded) {
                fold_neighbours(table, corner, padded.row_stride, work.segments, work.panel);
            } else {
                lay_out_neighbours(table, corner, padded.row_stride, work.panel);
            }
            FetchAhead<T> nothing;
            multiply_panel(table, work.panel, work.sums, nothing);
            write_panel(table.n_modes, panel_count<T>(start, columns), work.sums,
                        [&](Index i) { return moments + (row * columns + start + i) * table.n_modes; });
        }
    }
}

}  // namespace

namespace CONTEXTEM_SET {

template <class T>
MomentKernels<T> moment_kernels() {
    return {lanes<T>, extract_range<T>, patch_range<T>, column_range<T>, dense_range<T>};
}

template MomentKernels<float> moment_kernels();
template MomentKernels<double> moment_kernels();

}  // namespace CONTEXTEM_SET
}  // namespace contextem
