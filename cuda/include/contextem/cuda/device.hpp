// Devices, and the packed weights in a device's memory. A stream is a void* (a cudaStream_t) in all these headers, so
// that they can be included without CUDA.
#pragma once

#include <cstdint>

#include "contextem/moments.hpp"
#include "contextem/view.hpp"

namespace contextem::cuda {

int device_count();               // 0 without a driver
int runtime_version();            // of the runtime built in: 13000 for 13.0
int driver_version();             // the newest runtime that the driver supports; 0 without one
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

// Up to four neighbouring samples of the quadrant (or of the patch), up to the last with a weight in their row.
struct Quad {
    std::int32_t row;     // from the first of the quadrant
    std::int32_t column;  // a multiple of 4
    std::int32_t count;
    std::int32_t sample;  // number of the first
};

// Modes of one plane that a warp takes.
struct ModeGroup {
    std::int32_t plane;
    std::int32_t width;    // sums of a thread: the modes, filled up by some of weight 0
    std::int32_t column;   // of the first among the sums of the block
    std::int32_t weights;  // where its rows begin: (samples, width rounded up to a multiple of 4)
};

// Groups that share a block of threads, and the moments that they give.
struct GroupBlock {
    std::int32_t first_group;
    std::int32_t n_groups;
    std::int32_t first_place;
    std::int32_t n_places;
    std::int32_t pitch;  // sums of a patch in the block, made odd
};

// A column of the result and the sum that belongs there.
struct ModePlace {
    std::int32_t mode;
    std::int32_t column;
};

// What the kernel of the moments reads.
template <class T>
struct DeviceTableView {
    const T* weights;
    const Quad* quads;  // (n_quads + 1); the last tells the number of samples
    const ModeGroup* groups;
    const GroupBlock* blocks;  // (n_blocks)
    const ModePlace* places;   // (n_modes), of each block in the order of the modes
    int n_quads;
    int n_blocks;
    int most_groups;  // of a block
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
