// Devices, and the packed weights in a device's memory. A stream is a void* (a cudaStream_t) in all these headers, so
// that they can be included without CUDA.
#pragma once

#include <cstdint>

#include "contextem/moments.hpp"
#include "contextem/view.hpp"

namespace contextem::cuda {

int device_count();         // 0 without a driver
int runtime_version();      // of the runtime built in: 13000 for 13.0
int driver_version();       // the newest runtime that the driver supports; 0 without one
bool is_capturing(void* stream);  // into a graph, so that nothing can be allocated or waited for

// Makes a device current for a scope.
class DeviceGuard {
public:
    explicit DeviceGuard(int device);
    ~DeviceGuard();
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

private:
    int previous_;
};

// What a kernel reads: one row of weights per sample of the quadrant (or of the patch), modes grouped by plane.
template <class T>
struct DeviceTableView {
    const T* weights;            // (samples, n_modes)
    const std::int32_t* sample;  // (samples) row * size + column, counted from the corner of the lower right quadrant
    const std::int32_t* mode;    // (n_modes) column of the result
    const std::int32_t* plane;   // (n_modes) plane of the folded patch
    Index samples;
    Index n_modes;
    Index size;
    bool folded;
};

// Owns that table in the memory of one device. Construction copies and waits; nothing else here does.
template <class T>
class DeviceTable {
public:
    DeviceTable(const MomentTable<T>& table, int device);
    ~DeviceTable();
    DeviceTable(const DeviceTable&) = delete;
    DeviceTable& operator=(const DeviceTable&) = delete;

    const DeviceTableView<T>& view() const { return view_; }
    int device() const { return device_; }

private:
    int device_;
    void* memory_ = nullptr;
    DeviceTableView<T> view_{};
};

}  // namespace contextem::cuda
