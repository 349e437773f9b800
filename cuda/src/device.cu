#include "contextem/cuda/device.hpp"

#include <vector>

#include "check.cuh"
#include "packed_table.hpp"

namespace contextem::cuda {

int device_count() {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) {
        cudaGetLastError();  // no driver or no device: not an error here, and not to be found by the next check
        return 0;
    }
    return count;
}

int runtime_version() {
    int version = 0;
    check(cudaRuntimeGetVersion(&version), "runtime_version");
    return version;
}

int driver_version() {
    int version = 0;
    if (cudaDriverGetVersion(&version) != cudaSuccess) {
        cudaGetLastError();
        return 0;
    }
    return version;
}

bool is_capturing(void* stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    const cudaError_t asked = cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status);
    if (asked == cudaErrorStreamCaptureImplicit) {  // the legacy stream, while another one is captured
        cudaGetLastError();
        return true;
    }
    check(asked, "stream");
    return status != cudaStreamCaptureStatusNone;
}

DeviceGuard::DeviceGuard(int device) : previous_(0) {
    check(cudaGetDevice(&previous_), "device");
    if (device != previous_) {
        check(cudaSetDevice(device), "device");
    }
}

DeviceGuard::~DeviceGuard() { cudaSetDevice(previous_); }

template <class T>
DeviceTable<T>::DeviceTable(const MomentTable<T>& table, int device) : device_(device) {
    const PackedTable<T> packed(table);
    const std::vector<unsigned char> bytes = packed.bytes();
    const DeviceGuard guard(device);
    check(cudaMalloc(&memory_, bytes.size()), "moment table");
    const cudaError_t copied = copy_to_device(memory_, bytes.data(), bytes.size());
    if (copied != cudaSuccess) {
        cudaFree(memory_);
        check(copied, "moment table");
    }
    view_ = packed.view(memory_);
}

template <class T>
DeviceTable<T>::~DeviceTable() {
    cudaFree(memory_);  // fails harmlessly when the process is already taking the context down
}

template class DeviceTable<float>;
template class DeviceTable<double>;

}  // namespace contextem::cuda
