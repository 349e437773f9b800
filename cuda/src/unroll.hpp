// Loops that a kernel needs unrolled, for registers to hold their arrays; on the host it does not matter.
#pragma once

#if defined(__CUDA_ARCH__)
#define CONTEXTEM_UNROLL _Pragma("unroll")
#else
#define CONTEXTEM_UNROLL
#endif
