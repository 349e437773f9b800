// The instruction sets that the kernels are compiled for.
#pragma once

#include <vector>

namespace contextem {

// Names of those this processor has, the narrowest first: "sse2", "avx2", "avx512" on x86-64, "neon" on aarch64,
// "generic" elsewhere, "native" in a build with CONTEXTEM_NATIVE. The last is used unless CONTEXTEM_SIMD names another.
std::vector<const char*> simd_available();

// Name of the one in use.
const char* simd_name();

}  // namespace contextem
