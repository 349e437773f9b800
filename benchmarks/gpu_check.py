"""Check the CUDA kernels against the C++ ones and print their rates: python benchmarks/gpu_check.py, on a CUDA machine.

Every result is compared before it is timed; exit status 1 if one differs, 2 if there is no device.
"""

from __future__ import annotations

import sys

import numpy as np

import contextem as ctm
from contextem import _kernels


def main() -> int:
    """Run the checks; return the exit status."""
    facts = _kernels.describe()
    print(facts)
    if facts["cuda_devices"] == 0:
        print("no CUDA device")
        return 2
    import torch

    rng = np.random.default_rng(0)
    count, side = 1_000_000, 4096
    failed = False
    for dtype, size, n_max, scale in [
        (np.float32, 32, 10, 1.0),
        (np.float32, 32, 10, 1.3),
        (np.float32, 23, 12, [[0.8, 0.3], [-0.3, 0.8]]),
        (np.float32, 64, 20, 1.0),
        (np.float64, 32, 10, 0.7),
    ]:
        basis = ctm.ZernikeBasis(n_max, size)
        host, centres = rng.random((side, side)).astype(dtype), rng.uniform(-10, side + 10, (count, 2))
        image, positions = torch.as_tensor(host, device="cuda"), torch.as_tensor(centres, device="cuda")
        moments = ctm.column_moments(image, positions, basis, scale=scale)
        expected = ctm.column_moments(host, centres[:20_000], basis, scale=scale)
        unit = np.finfo(dtype).eps * abs(basis.weights).sum(axis=1)
        worst = (abs(moments[:20_000].cpu().numpy() - expected) / unit).max()
        failed = failed or not worst <= 16
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(5):
            ctm.column_moments(image, positions, basis, scale=scale)
        stop.record()
        torch.cuda.synchronize()
        rate = 5 * count / start.elapsed_time(stop) / 1e3
        case = f"{np.dtype(dtype)} P {size} n_max {n_max} scale {scale}"
        print(f"{case}: {rate:.1f} M columns/s, differs by {worst:.1f} eps")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
