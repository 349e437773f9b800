// What core.cpp takes from columns.cpp.
#pragma once

#include <pybind11/pybind11.h>

namespace contextem::bindings {

void define_columns(pybind11::module_& module);

}  // namespace contextem::bindings
