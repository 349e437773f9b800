// Every CUDA call and every launch goes through here.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "driver.hpp"

namespace contextem::cuda {

inline void check(cudaError_t status, const char* what) {
    if (status == cudaErrorInsufficientDriver) {
        int driver = 0;
        int runtime = 0;
        cudaDriverGetVersion(&driver);
        cudaRuntimeGetVersion(&runtime);
        throw std::runtime_error(std::string(what) + ": " + driver_sentence(driver, runtime));
    }
    if (status != cudaSuccess) {
        throw std::runtime_error(std::string(what) + ": CUDA error: " + cudaGetErrorString(status));
    }
}

inline void check_launch(const char* what) { check(cudaGetLastError(), what); }

// Copies and waits: a copy from pageable memory may return before it has arrived, and streams that do not follow the
// legacy one would read too early.
inline cudaError_t copy_to_device(void* to, const void* from, std::size_t bytes) {
    const cudaError_t copied = cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice);
    return copied == cudaSuccess ? cudaStreamSynchronize(cudaStreamLegacy) : copied;
}

}  // namespace contextem::cuda
