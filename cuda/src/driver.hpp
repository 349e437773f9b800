// What a driver that cannot run this build is told: plain C++, tested on the host.
#pragma once

#include <string>

namespace contextem::cuda {

inline std::string version_name(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Versions as CUDA counts them: 13000 for 13.0; driver 0 where there is none.
inline std::string driver_sentence(int driver, int runtime) {
    if (driver == 0) {
        return "CUDA error: no CUDA driver is installed; install one that supports CUDA " + version_name(runtime) +
               " or newer, or pass NumPy arrays";
    }
    return "CUDA error: the driver supports CUDA " + version_name(driver) + ", this build needs " +
           version_name(runtime) + " or newer; update the driver, or pass NumPy arrays";
}

}  // namespace contextem::cuda
