// Every CUDA call and every launch goes through here.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace contextem::cuda {

inline void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) {
        throw std::runtime_error(std::string(what) + ": CUDA error: " + cudaGetErrorString(status));
    }
}

inline void check_launch(const char* what) { check(cudaGetLastError(), what); }

}  // namespace contextem::cuda
