#include <pybind11/stl.h>

#include <cmath>
#include <utility>

#include "arrays.hpp"
#include "contextem/instruction_sets.hpp"
#include "contextem/moments.hpp"
#include "contextem/parallel.hpp"
#include "contextem/patches.hpp"
#include "contextem/roofline.hpp"
#include "contextem/zernike.hpp"
#include "core.hpp"
#include "tables.hpp"

namespace contextem::bindings {
namespace {

using Table = PackedTable<MomentTable>;

py::array extract(const py::array& image, const DoubleArray& positions, Index size, const DoubleArray& matrix,
                  bool nearest, int n_threads) {
    if (size < 1 || size > 4096) {
        throw py::value_error("size: expected 1 to 4096, got " + std::to_string(size));
    }
    return with_real_type("image", image.dtype(), [&](auto zero) -> py::array {
        using T = decltype(zero);
        const ImageView<T> view = image_view<T>(image);
        const PositionsView centres = positions_view(positions);
        const PatchGrid grid = patch_grid(size, matrix, nearest);
        py::array_t<T> patches = aligned_array<T>({centres.count, size, size});
        T* out = patches.mutable_data();
        {
            py::gil_scoped_release without_gil;
            extract_patches(view, centres, grid, n_threads, out);
        }
        return patches;
    });
}

py::array moments_of_patches(const py::array& patches, const Table& table, int n_threads) {
    return with_real_type("patches", patches.dtype(), [&](auto zero) -> py::array {
        using T = decltype(zero);
        const MomentTable<T>& packed = table.of<T>();
        const PatchesView<T> view = patches_view<T>(patches, packed.size);
        py::array_t<T> moments = aligned_array<T>({view.count, packed.n_modes});
        T* out = moments.mutable_data();
        {
            py::gil_scoped_release without_gil;
            patch_moments(view, packed, n_threads, out);
        }
        return moments;
    });
}

py::array moments_of_columns(const py::array& image, const DoubleArray& positions, const Table& table,
                             const DoubleArray& matrix, bool nearest, int n_threads, Index top, Index rows) {
    return with_real_type("image", image.dtype(), [&](auto zero) -> py::array {
        using T = decltype(zero);
        const MomentTable<T>& packed = table.of<T>();
        const ImageView<T> view = band_view<T>(image, top, rows);
        const PositionsView centres = positions_view(positions);
        const PatchGrid grid = patch_grid(packed.size, matrix, nearest);
        const double reach = grid.half() * (std::abs(grid.row_by_row) + std::abs(grid.row_by_column));
        expect_in_band(centres, reach + 1.0, top, image.shape(0), view.rows);
        py::array_t<T> moments = aligned_array<T>({centres.count, packed.n_modes});
        T* out = moments.mutable_data();
        {
            py::gil_scoped_release without_gil;
            column_moments(view, centres, grid, packed, n_threads, out);
        }
        return moments;
    });
}

double do_multiply_adds(Index count, const py::dtype& dtype) {
    return with_real_type("dtype", dtype, [count](auto zero) -> double {
        py::gil_scoped_release without_gil;
        return multiply_adds<decltype(zero)>(count);
    });
}

using FloatArray = py::array_t<float, py::array::c_style>;

Index whole_registers(const FloatArray& values) {
    if (values.size() % 128 != 0) {
        throw py::value_error("values: expected a multiple of 128, got " + std::to_string(values.size()));
    }
    return values.size();
}

float read_float32(const FloatArray& values, Index passes) {
    const Index count = whole_registers(values);
    const float* data = values.data();
    py::gil_scoped_release without_gil;
    return read_values(data, count, passes);
}

void copy_float32(const FloatArray& source, FloatArray& target, Index passes) {
    const Index count = whole_registers(source);
    if (target.size() != count) {
        throw py::value_error("target: expected as many values as source");
    }
    const float* from = source.data();
    float* to = target.mutable_data();
    py::gil_scoped_release without_gil;
    copy_values(from, count, passes, to);
}

py::array moments_at_every_pixel(const py::array& image, const Table& table, int n_threads) {
    return with_real_type("image", image.dtype(), [&](auto zero) -> py::array {
        using T = decltype(zero);
        const MomentTable<T>& packed = table.of<T>();
        const ImageView<T> view = image_view<T>(image);
        py::array_t<T> moments = aligned_array<T>({view.rows, view.columns, packed.n_modes});
        T* out = moments.mutable_data();
        {
            py::gil_scoped_release without_gil;
            dense_moments(view, packed, n_threads, out);
        }
        return moments;
    });
}

py::array indices(int n_max) {
    const ZernikeIndices modes = zernike_indices(n_max);
    const Index count = mode_count(n_max);
    py::array_t<std::int64_t> pairs({Index(2), count});
    for (Index j = 0; j < count; ++j) {
        pairs.mutable_at(0, j) = modes.n[static_cast<std::size_t>(j)];
        pairs.mutable_at(1, j) = modes.m[static_cast<std::size_t>(j)];
    }
    return pairs;
}

py::array weights(std::vector<double> (*build)(int, int), int n_max, int size) {
    if (n_max < 0 || size < 2) {
        throw py::value_error("n_max, size: expected n_max >= 0 and size >= 2");
    }
    std::vector<double> table;
    {
        py::gil_scoped_release without_gil;
        table = build(n_max, size);
    }
    const Index columns = Index(size) * size;
    return py::array_t<double>({mode_count(n_max), columns}, table.data());
}

}  // namespace
}  // namespace contextem::bindings

PYBIND11_MODULE(_core, module) {
    using namespace contextem::bindings;
    namespace py = pybind11;
    module.doc() = "The C++ kernels of contextem; call them through the Python functions, which check the arguments.";
    module.attr("version") = CONTEXTEM_VERSION;
    module.attr("compiler") = __VERSION__;
    module.def("simd", &contextem::simd_name,
               "Instruction set in use; ValueError where CONTEXTEM_SIMD names one this machine does not have.");
    module.def("simd_available", &contextem::simd_available, "Instruction sets this machine has, the narrowest first.");

    module.def(
        "thread_limit", [] { return contextem::thread_limit(); },
        "Threads that n_threads = 0 stands for in kernels called from this thread; 0: all cores.");
    module.def(
        "set_thread_limit", [](int limit) { return std::exchange(contextem::thread_limit(), limit); }, py::arg("limit"),
        "Set it for this thread; return what it was.");

    module.def("zernike_indices", &indices, py::arg("n_max"), "Degrees and orders of all modes, (2, J).");
    module.def(
        "projection_weights", [](int n_max, int size) { return weights(&contextem::projection_weights, n_max, size); },
        py::arg("n_max"), py::arg("size"), "Weights (J, P * P) of the modes at the pixel centres.");
    module.def(
        "integrated_weights", [](int n_max, int size) { return weights(&contextem::integrated_weights, n_max, size); },
        py::arg("n_max"), py::arg("size"), "Weights (J, P * P) of the modes integrated over pixels.");

    module.def("multiply_adds", &do_multiply_adds, py::arg("count"), py::arg("dtype"),
               "For benchmarks: do so many multiply-adds, a multiple of 192, in registers; return their sum.");
    module.def("read_values", &read_float32, py::arg("values").noconvert(), py::arg("passes"),
               "For benchmarks: read the values, a multiple of 128, so many times; return their sum.");
    module.def("copy_values", &copy_float32, py::arg("source").noconvert(), py::arg("target").noconvert(),
               py::arg("passes"), "For benchmarks: copy the values, a multiple of 128, so many times.");

    Table::define(module, "MomentTable", "Weights (J, P * P) packed for the kernels, in one precision.");

    module.def("extract_patches", &extract, py::arg("image"), py::arg("positions").noconvert(), py::arg("size"),
               py::arg("matrix").noconvert(), py::arg("nearest"), py::arg("n_threads"), "Patches (N, P, P).");
    module.def("patch_moments", &moments_of_patches, py::arg("patches"), py::arg("table"), py::arg("n_threads"),
               "Moments (N, J) of patches (N, P, P).");
    module.def("column_moments", &moments_of_columns, py::arg("image"), py::arg("positions").noconvert(),
               py::arg("table"), py::arg("matrix").noconvert(), py::arg("nearest"), py::arg("n_threads"),
               py::arg("top") = 0, py::arg("rows") = 0,
               "Moments (N, J) of the patches around positions (N, 2); of an image of so many rows, where given, the "
               "array holds those from `top` on.");
    module.def("dense_moments", &moments_at_every_pixel, py::arg("image"), py::arg("table"), py::arg("n_threads"),
               "Moments (H, W, J) of the patches around every pixel.");

    define_adjoint(module);
    define_columns(module);
    define_rotation(module);
    define_virtual_detectors(module);
}
