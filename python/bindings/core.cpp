#include <pybind11/stl.h>

#include <variant>

#include "arrays.hpp"
#include "columns.hpp"
#include "contextem/moments.hpp"
#include "contextem/patches.hpp"
#include "contextem/zernike.hpp"

namespace contextem::bindings {
namespace {

// Weights packed for the kernels of this processor, in one precision.
struct Table {
    std::variant<MomentTable<float>, MomentTable<double>> packed;

    bool folded() const {
        return std::visit([](const auto& table) { return table.folded; }, packed);
    }
    const char* dtype() const { return packed.index() == 0 ? "float32" : "float64"; }
};

Table make_table(const DoubleArray& weights, Index size, const py::dtype& dtype) {
    if (size < 1 || weights.ndim() != 2 || weights.shape(1) != size * size || weights.shape(0) < 1) {
        throw py::value_error("weights: expected shape (J, size * size)");
    }
    return with_real_type("dtype", dtype, [&](auto zero) {
        using T = decltype(zero);
        return Table{MomentTable<T>(weights.data(), weights.shape(0), size, simd_lanes<T>())};
    });
}

template <class T>
const MomentTable<T>& table_of(const Table& table) {
    if (const auto* packed = std::get_if<MomentTable<T>>(&table.packed)) {
        return *packed;
    }
    throw py::type_error(std::string("table: expected the array's precision, got ") + table.dtype());
}

py::array extract(const py::array& image, const DoubleArray& positions, Index size, const DoubleArray& matrix,
                  bool nearest, int n_threads) {
    return with_real_type("image", image.dtype(), [&](auto zero) -> py::array {
        using T = decltype(zero);
        const ImageView<T> view = image_view<T>(image);
        const PositionsView centres = positions_view(positions);
        const PatchGrid grid = patch_grid(size, matrix, nearest);
        py::array_t<T> patches({centres.count, size, size});
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
        const MomentTable<T>& packed = table_of<T>(table);
        const PatchesView<T> view = patches_view<T>(patches, packed.size);
        py::array_t<T> moments({view.count, packed.n_modes});
        T* out = moments.mutable_data();
        {
            py::gil_scoped_release without_gil;
            patch_moments(view, packed, n_threads, out);
        }
        return moments;
    });
}

py::array moments_of_columns(const py::array& image, const DoubleArray& positions, const Table& table,
                             const DoubleArray& matrix, bool nearest, int n_threads) {
    return with_real_type("image", image.dtype(), [&](auto zero) -> py::array {
        using T = decltype(zero);
        const MomentTable<T>& packed = table_of<T>(table);
        const ImageView<T> view = image_view<T>(image);
        const PositionsView centres = positions_view(positions);
        const PatchGrid grid = patch_grid(packed.size, matrix, nearest);
        py::array_t<T> moments({centres.count, packed.n_modes});
        T* out = moments.mutable_data();
        {
            py::gil_scoped_release without_gil;
            column_moments(view, centres, grid, packed, n_threads, out);
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
    module.def("simd", &contextem::simd_name, "Instruction set in use: avx512, avx2 or baseline.");

    module.def("zernike_indices", &indices, py::arg("n_max"), "Degrees and orders of all modes, (2, J).");
    module.def(
        "projection_weights",
        [](int n_max, int size) { return weights(&contextem::projection_weights, n_max, size); }, py::arg("n_max"),
        py::arg("size"), "Weights (J, P * P) of the modes at the pixel centres.");
    module.def(
        "integrated_weights",
        [](int n_max, int size) { return weights(&contextem::integrated_weights, n_max, size); }, py::arg("n_max"),
        py::arg("size"), "Weights (J, P * P) of the modes integrated over pixels.");

    py::class_<Table>(module, "MomentTable", "Weights (J, P * P) packed for the kernels, in one precision.",
                      py::module_local())
        .def(py::init(&make_table), py::arg("weights").noconvert(), py::arg("size"), py::arg("dtype"))
        .def_property_readonly("folded", &Table::folded, "Whether every mode has the parity that folding needs.")
        .def_property_readonly("dtype", &Table::dtype);

    module.def("extract_patches", &extract, py::arg("image"), py::arg("positions").noconvert(), py::arg("size"),
               py::arg("matrix").noconvert(), py::arg("nearest"), py::arg("n_threads"), "Patches (N, P, P).");
    module.def("patch_moments", &moments_of_patches, py::arg("patches"), py::arg("table"), py::arg("n_threads"),
               "Moments (N, J) of patches (N, P, P).");
    module.def("column_moments", &moments_of_columns, py::arg("image"), py::arg("positions").noconvert(),
               py::arg("table"), py::arg("matrix").noconvert(), py::arg("nearest"), py::arg("n_threads"),
               "Moments (N, J) of the patches around positions (N, 2).");

    define_columns(module);
}
