// Arrays arrive as descriptions (contextem._arrays.DeviceArray): address, shape, strides, dtype, device. Launches
// return at once; the stream of the caller orders them.
#include <pybind11/stl.h>

#include <limits>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "arrays.hpp"
#include "contextem/cuda/adjoint.hpp"
#include "contextem/cuda/device.hpp"
#include "contextem/cuda/moments.hpp"
#include "contextem/cuda/patches.hpp"
#include "contextem/cuda/peaks.hpp"
#include "contextem/cuda/virtual_detectors.hpp"

namespace contextem::bindings {
namespace {

struct DeviceArray {
    std::uintptr_t pointer;
    std::vector<Index> shape;
    std::vector<Index> strides;
    py::dtype dtype;
    int device;
};

DeviceArray device_array(const char* name, const py::object& description, std::size_t dimensions, int device) {
    DeviceArray array{py::cast<std::uintptr_t>(description.attr("pointer")),
                      py::cast<std::vector<Index>>(description.attr("shape")),
                      py::cast<std::vector<Index>>(description.attr("strides")),
                      py::dtype::from_args(description.attr("dtype")), py::cast<int>(description.attr("device"))};
    if (array.shape.size() != dimensions || array.strides.size() != dimensions) {
        throw py::value_error(std::string(name) + ": expected " + std::to_string(dimensions) + " dimensions");
    }
    if (device >= 0 && array.device != device) {
        throw py::value_error(std::string(name) + ": expected CUDA device " + std::to_string(device) + ", got " +
                              std::to_string(array.device));
    }
    return array;
}

template <class T>
ImageView<T> image_view(const DeviceArray& array) {
    return {reinterpret_cast<const T*>(array.pointer), array.shape[0], array.shape[1], array.strides[0],
            array.strides[1]};
}

PositionsView positions_view(const DeviceArray& array) {
    if (!array.dtype.equal(py::dtype::of<double>()) || array.shape[1] != 2 ||
        (array.shape[0] > 0 && (array.strides[0] != 2 || array.strides[1] != 1))) {
        throw py::value_error("positions: expected C-contiguous float64 of shape (N, 2)");
    }
    return {reinterpret_cast<const double*>(array.pointer), array.shape[0]};
}

// The result, which the Python layer has just allocated: contiguous and of the expected shape.
template <class T>
T* output(const DeviceArray& array, const std::vector<Index>& shape) {
    if (array.shape != shape || !array.dtype.equal(py::dtype::of<T>())) {
        throw py::value_error("out: expected an array of the result's shape and precision");
    }
    return reinterpret_cast<T*>(array.pointer);
}

struct Table {
    std::variant<std::unique_ptr<cuda::DeviceTable<float>>, std::unique_ptr<cuda::DeviceTable<double>>> packed;
};

Table make_table(const DoubleArray& weights, Index size, const py::dtype& dtype, int device) {
    if (size < 1 || weights.ndim() != 2 || weights.shape(1) != size * size || weights.shape(0) < 1) {
        throw py::value_error("weights: expected shape (J, size * size)");
    }
    return with_real_type("dtype", dtype, [&](auto zero) {
        using T = decltype(zero);
        const MomentTable<T> table(weights.data(), weights.shape(0), size);
        return Table{std::make_unique<cuda::DeviceTable<T>>(table, device)};
    });
}

template <class T>
const cuda::DeviceTable<T>& table_of(const Table& table) {
    if (const auto* packed = std::get_if<std::unique_ptr<cuda::DeviceTable<T>>>(&table.packed)) {
        return **packed;
    }
    throw py::type_error("table: expected the array's precision");
}

void extract(const py::object& image, const py::object& positions, const DoubleArray& matrix, bool nearest,
             const py::object& out, std::uintptr_t stream) {
    const DeviceArray source = device_array("image", image, 2, -1);
    const DeviceArray centres = device_array("positions", positions, 2, source.device);
    const DeviceArray result = device_array("out", out, 3, source.device);
    with_real_type("image", source.dtype, [&](auto zero) {
        using T = decltype(zero);
        const PatchGrid grid = patch_grid(result.shape[1], matrix, nearest);
        const PositionsView view = positions_view(centres);
        const cuda::DeviceGuard guard(source.device);
        cuda::extract_patches(image_view<T>(source), view, grid, output<T>(result, {view.count, grid.size, grid.size}),
                              reinterpret_cast<void*>(stream));
    });
}

void moments_of_patches(const py::object& patches, const Table& table, const py::object& out, std::uintptr_t stream) {
    const DeviceArray source = device_array("patches", patches, 3, -1);
    const DeviceArray result = device_array("out", out, 2, source.device);
    with_real_type("patches", source.dtype, [&](auto zero) {
        using T = decltype(zero);
        const cuda::DeviceTable<T>& packed = table_of<T>(table);
        const Index size = packed.view().size;
        if (source.shape[1] != size || source.shape[2] != size || packed.device() != source.device) {
            throw py::value_error("patches: expected shape (N, P, P) with the table's P, on the table's device");
        }
        const PatchesView<T> view = {reinterpret_cast<const T*>(source.pointer),
                                     source.shape[0],
                                     size,
                                     source.strides[0],
                                     source.strides[1],
                                     source.strides[2]};
        const cuda::DeviceGuard guard(source.device);
        cuda::patch_moments(view, packed.view(), output<T>(result, {view.count, packed.view().n_modes}),
                            reinterpret_cast<void*>(stream));
    });
}

void moments_of_columns(const py::object& image, const py::object& positions, const Table& table,
                        const DoubleArray& matrix, bool nearest, const py::object& out, std::uintptr_t stream) {
    const DeviceArray source = device_array("image", image, 2, -1);
    const DeviceArray centres = device_array("positions", positions, 2, source.device);
    const DeviceArray result = device_array("out", out, 2, source.device);
    with_real_type("image", source.dtype, [&](auto zero) {
        using T = decltype(zero);
        const cuda::DeviceTable<T>& packed = table_of<T>(table);
        if (packed.device() != source.device) {
            throw py::value_error("table: expected the image's device");
        }
        const PatchGrid grid = patch_grid(packed.view().size, matrix, nearest);
        const PositionsView view = positions_view(centres);
        const cuda::DeviceGuard guard(source.device);
        cuda::column_moments(image_view<T>(source), view, grid, packed.view(),
                             output<T>(result, {view.count, packed.view().n_modes}), reinterpret_cast<void*>(stream));
    });
}

struct AdjointWeights {
    std::variant<std::unique_ptr<cuda::DeviceAdjointTable<float>>, std::unique_ptr<cuda::DeviceAdjointTable<double>>>
        packed;
};

AdjointWeights make_adjoint(const DoubleArray& weights, Index size, const py::dtype& dtype, int device) {
    if (size < 1 || weights.ndim() != 2 || weights.shape(1) != size * size || weights.shape(0) < 1) {
        throw py::value_error("weights: expected shape (J, size * size)");
    }
    return with_real_type("dtype", dtype, [&](auto zero) {
        using T = decltype(zero);
        const AdjointTable<T> table(weights.data(), weights.shape(0), size);
        return AdjointWeights{std::make_unique<cuda::DeviceAdjointTable<T>>(table, device)};
    });
}

template <class T>
const cuda::AdjointTableView<T>& adjoint_of(const AdjointWeights& table, int device) {
    const auto* packed = std::get_if<std::unique_ptr<cuda::DeviceAdjointTable<T>>>(&table.packed);
    if (packed == nullptr || (**packed).device() != device) {
        throw py::type_error("table: expected the gradient's precision and device");
    }
    return (**packed).view();
}

template <class T>
MomentsView<T> gradient_view(const DeviceArray& array, Index modes) {
    if (array.shape[1] != modes) {
        throw py::value_error("gradient: expected shape (N, J) with J = " + std::to_string(modes));
    }
    return {reinterpret_cast<const T*>(array.pointer), array.shape[0], modes, array.strides[0], array.strides[1]};
}

// Memory of at least so many bytes, which the Python layer has just allocated.
void* scratch_memory(const DeviceArray& array, std::size_t bytes) {
    if (!array.dtype.equal(py::dtype::of<std::uint8_t>()) || static_cast<std::size_t>(array.shape[0]) < bytes) {
        throw py::value_error("scratch: expected " + std::to_string(bytes) + " bytes as uint8");
    }
    return reinterpret_cast<void*>(array.pointer);
}

void expect_rows(const PositionsView& positions, Index count) {
    if (positions.count != count) {
        throw py::value_error("gradient: expected one row per position, got " + std::to_string(count) + " for " +
                              std::to_string(positions.count));
    }
}

void adjoint_to_patches(const py::object& gradient, const AdjointWeights& table, const py::object& out,
                        std::uintptr_t stream) {
    const DeviceArray source = device_array("gradient", gradient, 2, -1);
    const DeviceArray result = device_array("out", out, 3, source.device);
    with_real_type("gradient", source.dtype, [&](auto zero) {
        using T = decltype(zero);
        const cuda::AdjointTableView<T>& packed = adjoint_of<T>(table, source.device);
        const MomentsView<T> view = gradient_view<T>(source, packed.n_modes);
        const cuda::DeviceGuard guard(source.device);
        cuda::patch_moments_adjoint(view, packed, output<T>(result, {view.count, packed.size, packed.size}),
                                    reinterpret_cast<void*>(stream));
    });
}

std::size_t image_scratch(Index count, Index rows, Index columns, Index size, const py::dtype& dtype, int device) {
    return with_real_type("dtype", dtype, [&](auto zero) {
        const cuda::DeviceGuard guard(device);
        return cuda::column_adjoint_scratch<decltype(zero)>(count, rows, columns, size);
    });
}

void adjoint_to_image(const py::object& gradient, const py::object& positions, const AdjointWeights& table,
                      const DoubleArray& matrix, bool nearest, const py::object& scratch, const py::object& out,
                      std::uintptr_t stream) {
    const DeviceArray source = device_array("gradient", gradient, 2, -1);
    const DeviceArray centres = device_array("positions", positions, 2, source.device);
    const DeviceArray memory = device_array("scratch", scratch, 1, source.device);
    const DeviceArray result = device_array("out", out, 2, source.device);
    with_real_type("gradient", source.dtype, [&](auto zero) {
        using T = decltype(zero);
        const cuda::AdjointTableView<T>& packed = adjoint_of<T>(table, source.device);
        const MomentsView<T> view = gradient_view<T>(source, packed.n_modes);
        const PositionsView where = positions_view(centres);
        expect_rows(where, view.count);
        const Index rows = result.shape[0];
        const Index columns = result.shape[1];
        const cuda::DeviceGuard guard(source.device);
        const std::size_t bytes = cuda::column_adjoint_scratch<T>(view.count, rows, columns, packed.size);
        cuda::column_moments_adjoint(view, where, patch_grid(packed.size, matrix, nearest), packed, rows, columns,
                                     scratch_memory(memory, bytes), output<T>(result, {rows, columns}),
                                     reinterpret_cast<void*>(stream));
    });
}

std::size_t slope_scratch(Index count, Index size, const py::dtype& dtype) {
    return with_real_type("dtype", dtype,
                          [&](auto zero) { return cuda::position_gradient_scratch<decltype(zero)>(count, size); });
}

void gradient_of_positions(const py::object& gradient, const py::object& image, const py::object& positions,
                           const AdjointWeights& table, const DoubleArray& matrix, const py::object& scratch,
                           const py::object& out, std::uintptr_t stream) {
    const DeviceArray source = device_array("gradient", gradient, 2, -1);
    const DeviceArray pixels = device_array("image", image, 2, source.device);
    const DeviceArray centres = device_array("positions", positions, 2, source.device);
    const DeviceArray memory = device_array("scratch", scratch, 1, source.device);
    const DeviceArray result = device_array("out", out, 2, source.device);
    if (!source.dtype.equal(pixels.dtype)) {
        throw py::type_error("gradient: expected the image's precision");
    }
    with_real_type("gradient", source.dtype, [&](auto zero) {
        using T = decltype(zero);
        const cuda::AdjointTableView<T>& packed = adjoint_of<T>(table, source.device);
        const MomentsView<T> view = gradient_view<T>(source, packed.n_modes);
        const PositionsView where = positions_view(centres);
        expect_rows(where, view.count);
        const cuda::DeviceGuard guard(source.device);
        cuda::column_moments_position_gradient(
            view, image_view<T>(pixels), where, patch_grid(packed.size, matrix, false), packed,
            scratch_memory(memory, cuda::position_gradient_scratch<T>(view.count, packed.size)),
            output<double>(result, {view.count, 2}), reinterpret_cast<void*>(stream));
    });
}

void response_of_image(const py::object& image, double sigma, const py::object& out, std::uintptr_t stream) {
    const DeviceArray source = device_array("image", image, 2, -1);
    const DeviceArray result = device_array("out", out, 2, source.device);
    if (!(sigma > 0.0 && sigma < std::numeric_limits<double>::infinity())) {
        throw py::value_error("sigma: expected a positive width in px");
    }
    if (source.shape[0] < 1 || source.shape[1] < 1) {
        throw py::value_error("image: expected at least one pixel");
    }
    with_real_type("image", source.dtype, [&](auto zero) {
        using T = decltype(zero);
        const cuda::DeviceGuard guard(source.device);
        cuda::peak_response(image_view<T>(source), sigma, output<T>(result, source.shape),
                            reinterpret_cast<void*>(stream));
    });
}

std::size_t scratch_of_maxima(Index rows, Index columns, int device) {
    const cuda::DeviceGuard guard(device);
    return cuda::maxima_scratch(rows, columns);
}

// The response and its scratch, as both steps take them.
template <class T>
std::pair<ImageView<T>, void*> response_and_scratch(const DeviceArray& response, const DeviceArray& scratch) {
    const ImageView<T> view = image_view<T>(response);
    if (view.column_stride != 1 && view.columns > 1) {
        throw py::value_error("response: expected rows of adjacent pixels; copy it first");
    }
    return {view, scratch_memory(scratch, cuda::maxima_scratch(view.rows, view.columns))};
}

void number_of_maxima(const py::object& response, double threshold, const py::object& scratch, const py::object& count,
                      std::uintptr_t stream) {
    const DeviceArray source = device_array("response", response, 2, -1);
    const DeviceArray memory = device_array("scratch", scratch, 1, source.device);
    const DeviceArray result = device_array("count", count, 1, source.device);
    with_real_type("response", source.dtype, [&](auto zero) {
        const cuda::DeviceGuard guard(source.device);
        const auto [view, place] = response_and_scratch<decltype(zero)>(source, memory);
        cuda::count_maxima(view, threshold, place, output<Index>(result, {1}), reinterpret_cast<void*>(stream));
    });
}

void maxima_into(const py::object& response, const py::object& scratch, const py::object& positions,
                 const py::object& heights, std::uintptr_t stream) {
    const DeviceArray source = device_array("response", response, 2, -1);
    const DeviceArray memory = device_array("scratch", scratch, 1, source.device);
    const DeviceArray places = device_array("positions", positions, 2, source.device);
    const DeviceArray tops = device_array("heights", heights, 1, source.device);
    with_real_type("response", source.dtype, [&](auto zero) {
        const cuda::DeviceGuard guard(source.device);
        const auto [view, marks] = response_and_scratch<decltype(zero)>(source, memory);
        const Index capacity = tops.shape[0];
        cuda::write_maxima(view, marks, capacity, output<double>(places, {capacity, 2}),
                           output<double>(tops, {capacity}), reinterpret_cast<void*>(stream));
    });
}

using MaskArray = py::array_t<bool, py::array::c_style>;

// Patterns (S, ky, kx), pixels of each adjacent.
template <class T>
PatternsView<T> patterns_view(const DeviceArray& array) {
    const Index columns = array.shape[2];
    const bool adjacent =
        (columns == 1 || array.strides[2] == 1) && (array.shape[1] == 1 || array.strides[1] == columns);
    if (array.shape[0] > 0 && !adjacent) {
        throw py::value_error("patterns: expected the pixels of each pattern one after the other; copy them first");
    }
    return {reinterpret_cast<const T*>(array.pointer), array.shape[0], array.shape[1] * columns,
            array.strides[0] * static_cast<Index>(sizeof(T))};
}

class Detectors {
public:
    Detectors(const MaskArray& masks, int device) {
        expect_dimensions("masks", masks, 3);
        rows_ = masks.shape(1);
        columns_ = masks.shape(2);
        if (masks.shape(0) > max_detectors || rows_ * columns_ > std::numeric_limits<std::int32_t>::max()) {
            throw py::value_error("masks: expected at most 32 detectors and fewer than 2^31 pixels");
        }
        lists_ = std::make_unique<cuda::DeviceDetectors>(masks.data(), masks.shape(0), rows_ * columns_, device);
    }

    void sum(const py::object& patterns, const py::object& out, std::uintptr_t stream) const {
        const DeviceArray source = device_array("patterns", patterns, 3, lists_->device());
        const DeviceArray result = device_array("out", out, 2, source.device);
        if (source.shape[1] != rows_ || source.shape[2] != columns_) {
            throw py::value_error("patterns: expected the shape of the masks");
        }
        with_pixel_type("patterns", source.dtype, [&](auto zero) {
            using T = decltype(zero);
            const PatternsView<T> view = patterns_view<T>(source);
            const cuda::DeviceGuard guard(source.device);
            cuda::virtual_detectors(view, *lists_, output<double>(result, {view.count, lists_->count()}),
                                    reinterpret_cast<void*>(stream));
        });
    }

private:
    Index rows_;
    Index columns_;
    std::unique_ptr<cuda::DeviceDetectors> lists_;
};

void add_patterns(const py::object& patterns, const py::object& parts, const py::object& total, std::uintptr_t stream) {
    const DeviceArray source = device_array("patterns", patterns, 3, -1);
    const DeviceArray scratch = device_array("parts", parts, 3, source.device);
    const DeviceArray result = device_array("total", total, 2, source.device);
    with_pixel_type("patterns", source.dtype, [&](auto zero) {
        using T = decltype(zero);
        const PatternsView<T> view = patterns_view<T>(source);
        const std::vector<Index> shape = {source.shape[1], source.shape[2]};
        const cuda::DeviceGuard guard(source.device);
        cuda::sum_patterns(view, output<double>(scratch, {cuda::scan_parts, shape[0], shape[1]}),
                           output<double>(result, shape), reinterpret_cast<void*>(stream));
    });
}

}  // namespace
}  // namespace contextem::bindings

PYBIND11_MODULE(_cuda, module) {
    using namespace contextem::bindings;
    namespace py = pybind11;
    module.doc() = "The CUDA kernels of contextem; call them through the Python functions, which check the arguments.";
    module.def("device_count", &contextem::cuda::device_count, "Number of CUDA devices; 0 without a driver.");
    module.def("runtime_version", &contextem::cuda::runtime_version, "Version of the CUDA runtime: 13000 for 13.0.");

    module.def("driver_version", &contextem::cuda::driver_version,
               "The newest CUDA that the driver supports: 13000 for 13.0; 0 without a driver.");
    module.def(
        "is_capturing",
        [](std::uintptr_t stream, int device) {
            const contextem::cuda::DeviceGuard guard(device);
            return contextem::cuda::is_capturing(reinterpret_cast<void*>(stream));
        },
        py::arg("stream"), py::arg("device"), "Whether a stream of a device is being captured into a graph.");

    py::class_<Table>(module, "MomentTable", "Weights (J, P * P) packed in the memory of one device, in one precision.",
                      py::module_local())
        .def(py::init(&make_table), py::arg("weights").noconvert(), py::arg("size"), py::arg("dtype"),
             py::arg("device"));

    module.def("extract_patches", &extract, py::arg("image"), py::arg("positions"), py::arg("matrix").noconvert(),
               py::arg("nearest"), py::arg("out"), py::arg("stream"), "Patches (N, P, P) into out.");
    module.def("patch_moments", &moments_of_patches, py::arg("patches"), py::arg("table"), py::arg("out"),
               py::arg("stream"), "Moments (N, J) of patches (N, P, P) into out.");
    module.def("column_moments", &moments_of_columns, py::arg("image"), py::arg("positions"), py::arg("table"),
               py::arg("matrix").noconvert(), py::arg("nearest"), py::arg("out"), py::arg("stream"),
               "Moments (N, J) of the patches around positions (N, 2) into out.");

    py::class_<AdjointWeights>(module, "AdjointTable",
                               "Weights (J, P * P) packed for the adjoint in the memory of one device.",
                               py::module_local())
        .def(py::init(&make_adjoint), py::arg("weights").noconvert(), py::arg("size"), py::arg("dtype"),
             py::arg("device"));
    module.def("patch_moments_adjoint", &adjoint_to_patches, py::arg("gradient"), py::arg("table"), py::arg("out"),
               py::arg("stream"), "Patches (N, P, P), the gradient (N, J) times the weights, into out.");
    module.def("column_adjoint_scratch", &image_scratch, py::arg("count"), py::arg("rows"), py::arg("columns"),
               py::arg("size"), py::arg("dtype"), py::arg("device"), "Bytes of scratch of column_moments_adjoint.");
    module.def("column_moments_adjoint", &adjoint_to_image, py::arg("gradient"), py::arg("positions"), py::arg("table"),
               py::arg("matrix").noconvert(), py::arg("nearest"), py::arg("scratch"), py::arg("out"), py::arg("stream"),
               "Image (rows, columns), the adjoint of column_moments, into out.");
    module.def("position_gradient_scratch", &slope_scratch, py::arg("count"), py::arg("size"), py::arg("dtype"),
               "Bytes of scratch of column_moments_position_gradient.");
    module.def("column_moments_position_gradient", &gradient_of_positions, py::arg("gradient"), py::arg("image"),
               py::arg("positions"), py::arg("table"), py::arg("matrix").noconvert(), py::arg("scratch"),
               py::arg("out"), py::arg("stream"), "Gradient (N, 2) with respect to positions into out.");

    module.def("peak_response", &response_of_image, py::arg("image"), py::arg("sigma"), py::arg("out"),
               py::arg("stream"), "Minus sigma^2 times the Laplacian of the Gaussian-blurred image (H, W) into out.");
    module.def("maxima_scratch", &scratch_of_maxima, py::arg("rows"), py::arg("columns"), py::arg("device"),
               "Bytes of scratch of count_maxima, which write_maxima reads.");
    module.def("count_maxima", &number_of_maxima, py::arg("response"), py::arg("threshold"), py::arg("scratch"),
               py::arg("count"), py::arg("stream"),
               "Mark the maxima of a response (H, W) above a threshold, and above 0; their number into count (1).");
    module.def("write_maxima", &maxima_into, py::arg("response"), py::arg("scratch"), py::arg("positions"),
               py::arg("heights"), py::arg("stream"),
               "Refined positions (K, 2) and heights (K) of the first K marked maxima, NaN where there are fewer.");

    py::class_<Detectors>(module, "VirtualDetectors", "Masks (D, ky, kx) prepared in the memory of one device.",
                          py::module_local())
        .def(py::init<const MaskArray&, int>(), py::arg("masks").noconvert(), py::arg("device"))
        .def("sum", &Detectors::sum, py::arg("patterns"), py::arg("out"), py::arg("stream"),
             "Sums (S, D) of patterns (S, ky, kx) over the pixels of each detector into out.");
    module.attr("SCAN_PARTS") = contextem::cuda::scan_parts;
    module.def("sum_patterns", &add_patterns, py::arg("patterns"), py::arg("parts"), py::arg("total"),
               py::arg("stream"),
               "Add all patterns (S, ky, kx) to total (ky, kx); parts (SCAN_PARTS, ky, kx) is scratch.");
}
