#include "contextem/rotation.hpp"

#include <algorithm>

#include "arrays.hpp"
#include "core.hpp"

namespace contextem::bindings {
namespace {

using ModeArray = py::array_t<std::int32_t, py::array::c_style>;

// Modes (count) as a vector, each in [0, n_modes).
std::vector<std::int32_t> modes(const char* name, const ModeArray& array, Index count, Index n_modes) {
    expect_dimensions(name, array, 1);
    if (array.shape(0) != count) {
        throw py::value_error(std::string(name) + ": expected " + std::to_string(count) + " modes, got " +
                              std::to_string(array.shape(0)));
    }
    std::vector<std::int32_t> numbers(array.data(), array.data() + count);
    for (const std::int32_t number : numbers) {
        if (number < 0 || number >= n_modes) {
            throw py::value_error(std::string(name) + ": expected modes from 0 to " + std::to_string(n_modes - 1) +
                                  ", got " + std::to_string(number));
        }
    }
    return numbers;
}

// One factor per mode (J), in the precision of the moments.
template <class T>
std::vector<T> factors(const char* name, const DoubleArray& array, Index count) {
    expect_dimensions(name, array, 1);
    if (array.shape(0) != count) {
        throw py::value_error(std::string(name) + ": expected one factor per mode");
    }
    std::vector<T> values(static_cast<std::size_t>(count));
    std::transform(array.data(), array.data() + count, values.begin(),
                   [](double each) { return static_cast<T>(each); });
    return values;
}

Index mode_count_of(const py::array& moments) {
    expect_dimensions("moments", moments, 2);
    return moments.shape(1);
}

py::array invariants(const py::array& moments, const ModeArray& cosine, const ModeArray& sine, int n_threads) {
    const Index n_modes = mode_count_of(moments);
    const InvariantPlan plan = {modes("cosine", cosine, cosine.size(), n_modes),
                                modes("sine", sine, cosine.size(), n_modes)};
    return with_real_type("moments", moments.dtype(), [&](auto zero) -> py::array {
        using T = decltype(zero);
        const MomentsView<T> view = moments_view<T>("moments", moments, n_modes);
        py::array_t<T> result({view.count, static_cast<Index>(plan.cosine.size())});
        T* out = result.mutable_data();
        {
            py::gil_scoped_release without_gil;
            rotation_invariants(view, plan, n_threads, out);
        }
        return result;
    });
}

py::array rotate(const py::array& moments, const ModeArray& partner, const DoubleArray& along,
                 const DoubleArray& across, int n_threads) {
    const Index n_modes = mode_count_of(moments);
    return with_real_type("moments", moments.dtype(), [&](auto zero) -> py::array {
        using T = decltype(zero);
        const RotationPlan<T> plan = {modes("partner", partner, n_modes, n_modes), factors<T>("along", along, n_modes),
                                      factors<T>("across", across, n_modes)};
        const MomentsView<T> view = moments_view<T>("moments", moments, n_modes);
        py::array_t<T> result({view.count, n_modes});
        T* out = result.mutable_data();
        {
            py::gil_scoped_release without_gil;
            rotate_moments(view, plan, n_threads, out);
        }
        return result;
    });
}

}  // namespace

void define_rotation(py::module_& module) {
    module.def("rotation_invariants", &invariants, py::arg("moments"), py::arg("cosine").noconvert(),
               py::arg("sine").noconvert(), py::arg("n_threads"), "Invariants (N, J') of moments (N, J).");
    module.def("rotate", &rotate, py::arg("moments"), py::arg("partner").noconvert(), py::arg("along").noconvert(),
               py::arg("across").noconvert(), py::arg("n_threads"), "Moments (N, J) turned by one angle.");
}

}  // namespace contextem::bindings
