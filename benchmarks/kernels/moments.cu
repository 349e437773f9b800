// Steps towards the moments kernel, each checked against double precision and timed: 32 x 32 patches, n_max 10.
//
//   naive   a thread per (patch, mode), the weights as they are
//   tiled   a block takes 8 patches and every mode: strips of 64 samples in shared memory, a mode per thread
//   folded  the same on the four planes of the folded patch: a quarter of the multiply-adds
//   final   cuda/src/moments.cu: 64 patches, two per lane, up to 21 modes per warp in registers
//
// From the root of the repository, for the device at hand (baseline is the plain C++ library):
//
//   nvcc -std=c++17 -O3 -arch=native --fmad=false -DCONTEXTEM_SET=baseline -DCONTEXTEM_SET_NAME='"baseline"'
//   -Icpp/include -Icpp/src -Icuda/include -Icuda/src benchmarks/kernels/moments.cu cuda/src/moments.cu
//   cuda/src/device.cu cpp/src/*.cpp -o ladder && ./ladder
//
// Exit status 1 if a result is off, 2 if there is no device. Inputs rotate among buffers of 1 GiB each, so that no
// cache holds them; GB/s count each patch read once and each moment written once, beside a device-to-device copy
// counted the same way.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "check.cuh"
#include "contextem/cuda/device.hpp"
#include "contextem/cuda/moments.hpp"
#include "contextem/zernike.hpp"

namespace {

using contextem::Folded;
using contextem::Index;
using contextem::cuda::check;

constexpr int side = 32;
constexpr int half = side / 2;
constexpr int pixels = side * side;
constexpr int n_modes = 66;
constexpr Index count = Index(1) << 18;
constexpr int buffers = 3;
constexpr int repeats = 15;

__global__ void naive(const float* patches, const float* weights /* (pixels, J) */, float* moments) {
    const Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count * n_modes) {
        const float* patch = patches + i / n_modes * pixels;
        float sum = 0.0f;
        for (int k = 0; k < pixels; ++k) {
            sum = fmaf(weights[k * n_modes + i % n_modes], patch[k], sum);
        }
        moments[i] = sum;
    }
}

// `planes` of which a mode reads one, of `samples` each.
template <bool folded>
__global__ void __launch_bounds__(128)
    tiled(const float* patches, const float* weights /* (samples, J) */, const int* plane_of, float* moments) {
    constexpr int together = 8;
    constexpr int strip = 64;
    constexpr int planes = folded ? 4 : 1;
    constexpr int samples = pixels / planes;
    __shared__ float panel[planes][strip][together];
    const Index first = Index(blockIdx.x) * together;
    const int mode = static_cast<int>(threadIdx.x);
    const int plane = folded && mode < n_modes ? plane_of[mode] : 0;
    float sum[together] = {};
    for (int start = 0; start < samples; start += strip) {
        __syncthreads();
        for (int i = static_cast<int>(threadIdx.x); i < strip * together; i += 128) {
            const int q = start + i % strip;
            const float* patch = patches + (first + i / strip) * pixels;
            if (folded) {
                const int below = half + q / half;
                const int right = half + q % half;
                const int above = side - 1 - below;
                const int left = side - 1 - right;
                const Folded<float> value = contextem::fold(patch[below * side + right], patch[below * side + left],
                                                            patch[above * side + right], patch[above * side + left]);
                for (int k = 0; k < planes; ++k) {
                    panel[k][i % strip][i / strip] = value.plane[k];
                }
            } else {
                panel[0][i % strip][i / strip] = patch[q];
            }
        }
        __syncthreads();
        if (mode < n_modes) {
            for (int q = 0; q < strip; ++q) {
                const float weight = weights[(start + q) * n_modes + mode];
                for (int p = 0; p < together; ++p) {
                    sum[p] = fmaf(weight, panel[plane][q][p], sum[p]);
                }
            }
        }
    }
    for (int p = 0; p < together && mode < n_modes; ++p) {
        moments[(first + p) * n_modes + mode] = sum[p];
    }
}

int plane_of_mode(int m) {
    return m >= 0 ? (m % 2 == 0 ? contextem::even_even : contextem::even_odd)
                  : (m % 2 == 0 ? contextem::odd_odd : contextem::odd_even);
}

template <class T>
T* to_device(const std::vector<T>& values) {
    T* memory = nullptr;
    check(cudaMalloc(&memory, values.size() * sizeof(T)), "allocation");
    check(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "copy");
    return memory;
}

// Median milliseconds of launch(i), i counting the repeats.
template <class Launch>
double milliseconds(const Launch& launch) {
    cudaEvent_t start;
    cudaEvent_t stop;
    check(cudaEventCreate(&start), "event");
    check(cudaEventCreate(&stop), "event");
    std::vector<float> times(repeats);
    launch(0);
    for (int i = 0; i < repeats; ++i) {
        check(cudaEventRecord(start), "event");
        launch(i);
        check(cudaEventRecord(stop), "event");
        check(cudaEventSynchronize(stop), "kernel");
        check(cudaEventElapsedTime(&times[static_cast<std::size_t>(i)], start, stop), "event");
    }
    std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
    return times[repeats / 2];
}

}  // namespace

int main() {
    if (contextem::cuda::device_count() == 0) {
        std::puts("no CUDA device");
        return 2;
    }
    const std::vector<double> table = contextem::integrated_weights(10, side);  // (J, pixels)
    const contextem::ZernikeIndices indices = contextem::zernike_indices(10);
    std::vector<float> plain(static_cast<std::size_t>(pixels * n_modes));
    std::vector<float> quarter(static_cast<std::size_t>(half * half * n_modes));
    std::vector<int> planes;
    for (int j = 0; j < n_modes; ++j) {
        planes.push_back(plane_of_mode(indices.m[static_cast<std::size_t>(j)]));
        for (int k = 0; k < pixels; ++k) {
            const auto weight = static_cast<float>(table[static_cast<std::size_t>(j * pixels + k)]);
            plain[static_cast<std::size_t>(k * n_modes + j)] = weight;
            if (k / side >= half && k % side >= half) {
                const int q = (k / side - half) * half + k % side - half;
                quarter[static_cast<std::size_t>(q * n_modes + j)] = weight;
            }
        }
    }
    std::mt19937 random(0);
    std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
    std::vector<float> host(static_cast<std::size_t>(count * pixels));
    for (float& value : host) {
        value = uniform(random);
    }
    const float* patches[buffers];
    for (const float*& buffer : patches) {
        buffer = to_device(host);
    }
    float* const moments = to_device(std::vector<float>(static_cast<std::size_t>(count * n_modes)));
    float* const target = to_device(host);
    const float* const plain_weights = to_device(plain);
    const float* const quarter_weights = to_device(quarter);
    const int* const plane_of = to_device(planes);
    const contextem::cuda::DeviceTable<float> packed(contextem::MomentTable<float>(table.data(), n_modes, side), 0);

    const double copied = 2.0 * static_cast<double>(host.size()) * sizeof(float);
    const double copy =
        copied / 1e6 / milliseconds([&](int i) {
            check(cudaMemcpyAsync(target, patches[i % buffers], host.size() * sizeof(float), cudaMemcpyDeviceToDevice),
                  "copy");
        });
    std::printf("device copy: %.0f GB/s\n\n%-8s %12s %8s %10s %9s %10s\n", copy, "kernel", "M patches/s", "GB/s",
                "% of copy", "TFLOP/s", "worst eps");

    bool wrong = false;
    const auto step = [&](const char* name, double multiply_adds, const auto& launch) {
        check(cudaMemset(moments, 0xff, count * n_modes * sizeof(float)), "poison");  // NaN
        const double time = milliseconds([&](int i) { launch(patches[i % buffers]); });
        check(cudaGetLastError(), name);
        std::vector<float> found(static_cast<std::size_t>(count * n_modes));
        check(cudaMemcpy(found.data(), moments, found.size() * sizeof(float), cudaMemcpyDeviceToHost), "copy");
        double worst = 0.0;  // in rounding errors of the largest sum that pixels in [0, 1) could give
        for (Index p = 0; p < count; p += p < 200 || p >= count - 200 ? 1 : 9973) {
            for (int j = 0; j < n_modes; ++j) {
                double sum = 0.0;
                double largest = 0.0;
                for (int k = 0; k < pixels; ++k) {
                    const double weight = table[static_cast<std::size_t>(j * pixels + k)];
                    sum += weight * static_cast<double>(host[static_cast<std::size_t>(p * pixels + k)]);
                    largest += std::abs(weight);
                }
                const double error = std::abs(found[static_cast<std::size_t>(p * n_modes + j)] - sum) / largest;
                worst = error <= worst ? worst : error;
            }
        }
        worst /= 0x1p-23;
        wrong = wrong || !(worst <= 16.0);
        const double rate = static_cast<double>(count) / time / 1e3;
        const double gigabytes = rate * (pixels + n_modes) * sizeof(float) / 1e3;
        std::printf("%-8s %12.1f %8.0f %9.1f%% %9.2f %10.2f\n", name, rate, gigabytes, 100.0 * gigabytes / copy,
                    rate * 2e-6 * multiply_adds, worst);
    };
    constexpr unsigned blocks = count / 8;
    step("naive", 1.0 * pixels * n_modes, [&](const float* p) {
        naive<<<static_cast<unsigned>((count * n_modes + 255) / 256), 256>>>(p, plain_weights, moments);
    });
    step("tiled", 1.0 * pixels * n_modes,
         [&](const float* p) { tiled<false><<<blocks, 128>>>(p, plain_weights, plane_of, moments); });
    step("folded", 0.25 * pixels * n_modes,
         [&](const float* p) { tiled<true><<<blocks, 128>>>(p, quarter_weights, plane_of, moments); });
    const contextem::cuda::DeviceTableView<float>& view = packed.view();
    step("final", 214.0 * n_modes, [&](const float* p) {  // samples of the quadrant with a weight
        contextem::cuda::patch_moments<float>({p, count, side, pixels, side, 1}, view, moments, nullptr);
    });
    return wrong ? 1 : 0;
}
