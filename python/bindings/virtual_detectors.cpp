#include "contextem/virtual_detectors.hpp"

#include <limits>

#include "arrays.hpp"
#include "core.hpp"

namespace contextem::bindings {
namespace {

using MaskArray = py::array_t<bool, py::array::c_style>;

// Patterns (S, ky, kx), pixels of each adjacent.
template <class T>
PatternsView<T> patterns_view(const py::array& patterns) {
    expect_dimensions("patterns", patterns, 3);
    const Index rows = patterns.shape(1);
    const Index columns = patterns.shape(2);
    const auto item = static_cast<Index>(sizeof(T));
    const bool adjacent =
        (columns == 1 || patterns.strides(2) == item) && (rows == 1 || patterns.strides(1) == columns * item);
    if (patterns.size() > 0 && !adjacent) {
        throw py::value_error("patterns: expected the pixels of each pattern one after the other; copy it first");
    }
    return {static_cast<const T*>(patterns.data()), patterns.shape(0), rows * columns, patterns.strides(0)};
}

class Detectors {
public:
    explicit Detectors(const MaskArray& masks)
        : zones_(zones_of(masks)), rows_(masks.shape(1)), columns_(masks.shape(2)) {}

    py::array_t<double> sum(const py::array& patterns, int n_threads) const {
        return with_pixel_type("patterns", patterns.dtype(), [&](auto zero) {
            using T = decltype(zero);
            const PatternsView<T> view = patterns_view<T>(patterns);
            if (patterns.shape(1) != rows_ || patterns.shape(2) != columns_) {
                throw py::value_error("patterns: expected the shape of the masks, (" + std::to_string(rows_) + ", " +
                                      std::to_string(columns_) + ")");
            }
            py::array_t<double> sums({view.count, zones_.count});
            double* out = sums.mutable_data();
            {
                py::gil_scoped_release without_gil;
                virtual_detectors(view, zones_, n_threads, out);
            }
            return sums;
        });
    }

private:
    static DetectorZones zones_of(const MaskArray& masks) {
        expect_dimensions("masks", masks, 3);
        const Index pixels = masks.shape(1) * masks.shape(2);
        if (masks.shape(0) > max_detectors || pixels > std::numeric_limits<std::int32_t>::max()) {
            throw py::value_error("masks: expected at most 32 detectors and fewer than 2^31 pixels");
        }
        return {masks.data(), masks.shape(0), pixels};
    }

    DetectorZones zones_;
    Index rows_;
    Index columns_;
};

void add_patterns(const py::array& patterns, py::array_t<double, py::array::c_style>& total, int n_threads) {
    with_pixel_type("patterns", patterns.dtype(), [&](auto zero) {
        using T = decltype(zero);
        const PatternsView<T> view = patterns_view<T>(patterns);
        if (total.ndim() != 2 || total.shape(0) != patterns.shape(1) || total.shape(1) != patterns.shape(2)) {
            throw py::value_error("total: expected the shape of a pattern");
        }
        double* out = total.mutable_data();
        {
            py::gil_scoped_release without_gil;
            sum_patterns(view, n_threads, out);
        }
    });
}

}  // namespace

void define_virtual_detectors(py::module_& module) {
    py::class_<Detectors>(module, "VirtualDetectors", "Masks (D, ky, kx) prepared for the kernel.", py::module_local())
        .def(py::init<const MaskArray&>(), py::arg("masks").noconvert())
        .def("sum", &Detectors::sum, py::arg("patterns"), py::arg("n_threads"),
             "Sums (S, D) of patterns (S, ky, kx) over the pixels of each detector.");
    module.def("sum_patterns", &add_patterns, py::arg("patterns"), py::arg("total").noconvert(), py::arg("n_threads"),
               "Add all patterns (S, ky, kx) to total (ky, kx).");
}

}  // namespace contextem::bindings
