// Weights packed for a kernel, in one of two precisions.
#pragma once

#include <memory>
#include <string>
#include <variant>

#include "arrays.hpp"

namespace contextem::bindings {

// Table<T> is built from weights (J, P * P), J and P.
template <template <class> class Table>
class PackedTable {
public:
    PackedTable(const DoubleArray& weights, Index size, const py::dtype& dtype) {
        if (size < 1 || weights.ndim() != 2 || weights.shape(1) != size * size || weights.shape(0) < 1) {
            throw py::value_error("weights: expected shape (J, size * size)");
        }
        with_real_type("dtype", dtype, [&](auto zero) {
            using T = decltype(zero);
            packed_ = std::make_shared<const Table<T>>(weights.data(), weights.shape(0), size);
        });
    }

    bool folded() const {
        return std::visit([](const auto& table) { return table->folded; }, packed_);
    }
    const char* dtype() const { return packed_.index() == 0 ? "float32" : "float64"; }

    // The table, if its precision is that of the array.
    template <class T>
    const Table<T>& of() const {
        if (const auto* table = std::get_if<std::shared_ptr<const Table<T>>>(&packed_)) {
            return **table;
        }
        throw py::type_error(std::string("table: expected the array's precision, got ") + dtype());
    }

    static void define(py::module_& module, const char* name, const char* documentation) {
        py::class_<PackedTable>(module, name, documentation, py::module_local())
            .def(py::init<const DoubleArray&, Index, const py::dtype&>(), py::arg("weights").noconvert(),
                 py::arg("size"), py::arg("dtype"))
            .def_property_readonly("folded", &PackedTable::folded,
                                   "Whether every mode has the parity that folding needs.")
            .def_property_readonly("dtype", &PackedTable::dtype);
    }

private:
    std::variant<std::shared_ptr<const Table<float>>, std::shared_ptr<const Table<double>>> packed_;
};

}  // namespace contextem::bindings
