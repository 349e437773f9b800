#include "contextem/roofline.hpp"

#include "instruction_set.hpp"

namespace contextem {

template <>
float multiply_adds<float>(Index count) {
    return instruction_set().roofline.multiply_adds_float32(count);
}

template <>
double multiply_adds<double>(Index count) {
    return instruction_set().roofline.multiply_adds_float64(count);
}

float read_values(const float* values, Index count, Index passes) {
    return instruction_set().roofline.read_values(values, count, passes);
}

void copy_values(const float* source, Index count, Index passes, float* target) {
    instruction_set().roofline.copy_values(source, count, passes, target);
}

}  // namespace contextem
