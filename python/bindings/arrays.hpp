// From Python arrays to views, without a copy: what does not fit is refused. The Python layer has checked the arguments
// with better sentences; these checks keep the extension safe to call directly.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "contextem/sampling.hpp"
#include "contextem/view.hpp"

namespace contextem::bindings {

namespace py = pybind11;

// Calls function(T()) for the array's dtype, float or double.
template <class Function>
auto with_real_type(const char* name, const py::dtype& dtype, const Function& function) {
    if (dtype.equal(py::dtype::of<float>())) {
        return function(float());
    }
    if (dtype.equal(py::dtype::of<double>())) {
        return function(double());
    }
    throw py::type_error(std::string(name) + ": expected float32 or float64, got " +
                         py::cast<std::string>(py::str(py::handle(dtype))));
}

// Calls function(T()) for the dtype of diffraction patterns.
template <class Function>
auto with_pixel_type(const char* name, const py::dtype& dtype, const Function& function) {
    if (dtype.equal(py::dtype::of<std::uint8_t>())) {
        return function(std::uint8_t());
    }
    if (dtype.equal(py::dtype::of<std::uint16_t>())) {
        return function(std::uint16_t());
    }
    if (dtype.equal(py::dtype::of<std::uint32_t>())) {
        return function(std::uint32_t());
    }
    if (dtype.equal(py::dtype::of<std::int8_t>())) {
        return function(std::int8_t());
    }
    if (dtype.equal(py::dtype::of<std::int16_t>())) {
        return function(std::int16_t());
    }
    if (dtype.equal(py::dtype::of<std::int32_t>())) {
        return function(std::int32_t());
    }
    if (dtype.equal(py::dtype::of<float>())) {
        return function(float());
    }
    if (dtype.equal(py::dtype::of<double>())) {
        return function(double());
    }
    throw py::type_error(std::string(name) + ": expected (u)int8, (u)int16, (u)int32, float32 or float64, got " +
                         py::cast<std::string>(py::str(py::handle(dtype))));
}

inline Index stride(const char* name, const py::array& array, int axis) {
    const Index bytes = array.strides(axis);
    if (bytes % array.itemsize() != 0) {
        throw py::value_error(std::string(name) +
                              ": expected strides that are multiples of the item size; copy it first");
    }
    return bytes / array.itemsize();
}

inline void expect_dimensions(const char* name, const py::array& array, py::ssize_t dimensions) {
    if (array.ndim() != dimensions) {
        throw py::value_error(std::string(name) + ": expected " + std::to_string(dimensions) + " dimensions, got " +
                              std::to_string(array.ndim()));
    }
}

template <class T>
ImageView<T> image_view(const py::array& image) {
    expect_dimensions("image", image, 2);
    return {static_cast<const T*>(image.data()), image.shape(0), image.shape(1), stride("image", image, 0),
            stride("image", image, 1)};
}

// The view of an image of `rows` rows, all of them where that is 0, of which the array holds those from `top` on.
// Nobody may read the others.
template <class T>
ImageView<T> band_view(const py::array& band, Index top, Index rows) {
    ImageView<T> view = image_view<T>(band);
    if (rows == 0) {
        rows = view.rows;
    }
    if (top < 0 || top + view.rows > rows) {
        throw py::value_error("top, rows: expected a band inside the image");
    }
    view.data -= top * view.row_stride;
    view.rows = rows;
    return view;
}

// Refuses positions that see rows outside of a band: those within `reach` px, as far as the image has them.
inline void expect_in_band(const PositionsView& positions, double reach, Index top, Index held, Index rows) {
    if (held == rows) {
        return;
    }
    const double last = static_cast<double>(rows - 1);
    for (Index p = 0; p < positions.count; ++p) {
        const double row = positions.data[2 * p];
        if (std::max(row - reach, 0.0) < static_cast<double>(top) ||
            std::min(row + reach, last) > static_cast<double>(top + held - 1)) {
            throw py::value_error("positions: expected some that see no more of the image than the band");
        }
    }
}

template <class T>
PatchesView<T> patches_view(const py::array& patches, Index size) {
    expect_dimensions("patches", patches, 3);
    if (patches.shape(1) != size || patches.shape(2) != size) {
        throw py::value_error("patches: expected shape (N, P, P) with the table's P");
    }
    return {static_cast<const T*>(patches.data()),
            patches.shape(0),
            size,
            stride("patches", patches, 0),
            stride("patches", patches, 1),
            stride("patches", patches, 2)};
}

template <class T>
MomentsView<T> moments_view(const char* name, const py::array& moments, Index modes) {
    expect_dimensions(name, moments, 2);
    if (moments.shape(1) != modes) {
        throw py::value_error(std::string(name) + ": expected shape (N, J) with J = " + std::to_string(modes));
    }
    return {static_cast<const T*>(moments.data()), moments.shape(0), modes, stride(name, moments, 0),
            stride(name, moments, 1)};
}

// An array whose data starts on a cache line: a view of a slightly larger one, since NumPy aligns to 16 bytes.
template <class T>
py::array_t<T> aligned_array(const std::vector<Index>& shape) {
    Index count = 1;
    for (const Index extent : shape) {
        count *= extent;
    }
    constexpr std::uintptr_t line = 64;
    py::array_t<T> block(count + static_cast<Index>(line / sizeof(T)));
    T* data = block.mutable_data();
    // NOLINTNEXTLINE(bugprone-sizeof-expression): bytes become values
    data += (line - reinterpret_cast<std::uintptr_t>(data) % line) % line / sizeof(T);
    return py::array_t<T>(shape, data, block);
}

using DoubleArray = py::array_t<double, py::array::c_style>;

inline PositionsView positions_view(const DoubleArray& positions) {
    if (positions.ndim() != 2 || positions.shape(1) != 2) {
        throw py::value_error("positions: expected shape (N, 2)");
    }
    return {positions.data(), positions.shape(0)};
}

inline PatchGrid patch_grid(Index size, const DoubleArray& matrix, bool nearest) {
    if (matrix.ndim() != 2 || matrix.shape(0) != 2 || matrix.shape(1) != 2) {
        throw py::value_error("matrix: expected shape (2, 2)");
    }
    return {size,
            matrix.at(0, 0),
            matrix.at(0, 1),
            matrix.at(1, 0),
            matrix.at(1, 1),
            nearest ? Interpolation::nearest : Interpolation::linear};
}

}  // namespace contextem::bindings
