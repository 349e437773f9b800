// The parts of the extension _core that have a file of their own.
#pragma once

#include <pybind11/pybind11.h>

namespace contextem::bindings {

void define_adjoint(pybind11::module_& module);
void define_columns(pybind11::module_& module);
void define_rotation(pybind11::module_& module);
void define_virtual_detectors(pybind11::module_& module);

}  // namespace contextem::bindings
