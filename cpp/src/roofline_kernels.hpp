// The loops of roofline.hpp for one instruction set.
#pragma once

#include "contextem/view.hpp"

namespace contextem {

struct RooflineKernels {
    float (*multiply_adds_float32)(Index count);
    double (*multiply_adds_float64)(Index count);
    float (*read_values)(const float* values, Index count, Index passes);
    void (*copy_values)(const float* source, Index count, Index passes, float* target);
};

}  // namespace contextem
