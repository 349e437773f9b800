#include "contextem/adjoint.hpp"

#include <pybind11/stl.h>

#include "arrays.hpp"
#include "core.hpp"
#include "tables.hpp"

namespace contextem::bindings {
namespace {

using Table = PackedTable<AdjointTable>;

void expect_rows(const PositionsView& positions, Index count) {
    if (positions.count != count) {
        throw py::value_error("gradient: expected one row per position, got " + std::to_string(count) + " for " +
                              std::to_string(positions.count));
    }
}

py::array adjoint_to_patches(const py::array& gradient, const Table& table, int n_threads) {
    return with_real_type("gradient", gradient.dtype(), [&](auto zero) -> py::array {
        using T = decltype(zero);
        const AdjointTable<T>& packed = table.of<T>();
        const MomentsView<T> view = moments_view<T>("gradient", gradient, packed.n_modes);
        py::array_t<T> patches({view.count, packed.size, packed.size});
        T* out = patches.mutable_data();
        {
            py::gil_scoped_release without_gil;
            patch_moments_adjoint(view, packed, n_threads, out);
        }
        return patches;
    });
}

py::array adjoint_to_image(const py::array& gradient, const DoubleArray& positions, const Table& table,
                           const DoubleArray& matrix, bool nearest, Index rows, Index columns, int n_threads) {
    return with_real_type("gradient", gradient.dtype(), [&](auto zero) -> py::array {
        using T = decltype(zero);
        const AdjointTable<T>& packed = table.of<T>();
        const MomentsView<T> view = moments_view<T>("gradient", gradient, packed.n_modes);
        const PositionsView centres = positions_view(positions);
        expect_rows(centres, view.count);
        if (rows < 1 || columns < 1) {
            throw py::value_error("rows, columns: expected at least one pixel");
        }
        const PatchGrid grid = patch_grid(packed.size, matrix, nearest);
        py::array_t<T> image({rows, columns});
        T* out = image.mutable_data();
        {
            py::gil_scoped_release without_gil;
            column_moments_adjoint(view, centres, grid, packed, rows, columns, n_threads, out);
        }
        return image;
    });
}

py::array gradient_of_positions(const py::array& gradient, const py::array& image, const DoubleArray& positions,
                                const Table& table, const DoubleArray& matrix, int n_threads) {
    if (!gradient.dtype().equal(image.dtype())) {
        throw py::type_error("gradient: expected the image's precision");
    }
    return with_real_type("gradient", gradient.dtype(), [&](auto zero) -> py::array {
        using T = decltype(zero);
        const AdjointTable<T>& packed = table.of<T>();
        const MomentsView<T> view = moments_view<T>("gradient", gradient, packed.n_modes);
        const ImageView<T> pixels = image_view<T>(image);
        const PositionsView centres = positions_view(positions);
        expect_rows(centres, view.count);
        const PatchGrid grid = patch_grid(packed.size, matrix, false);
        py::array_t<double> slopes({centres.count, Index(2)});
        double* out = slopes.mutable_data();
        {
            py::gil_scoped_release without_gil;
            column_moments_position_gradient(view, pixels, centres, grid, packed, n_threads, out);
        }
        return slopes;
    });
}

}  // namespace

void define_adjoint(py::module_& module) {
    Table::define(module, "AdjointTable", "Weights (J, P * P) packed for the adjoint, in one precision.");

    module.def("patch_moments_adjoint", &adjoint_to_patches, py::arg("gradient"), py::arg("table"),
               py::arg("n_threads"), "Patches (N, P, P): the gradient (N, J) times the weights.");
    module.def("column_moments_adjoint", &adjoint_to_image, py::arg("gradient"), py::arg("positions").noconvert(),
               py::arg("table"), py::arg("matrix").noconvert(), py::arg("nearest"), py::arg("rows"), py::arg("columns"),
               py::arg("n_threads"), "Image (rows, columns): the adjoint of column_moments.");
    module.def("column_moments_position_gradient", &gradient_of_positions, py::arg("gradient"), py::arg("image"),
               py::arg("positions").noconvert(), py::arg("table"), py::arg("matrix").noconvert(), py::arg("n_threads"),
               "Gradient (N, 2) with respect to positions, for linear interpolation.");
}

}  // namespace contextem::bindings
