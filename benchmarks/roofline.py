"""What one core of this machine can do at most, and where column_moments and patch_moments stand.

    python benchmarks/roofline.py

Peaks are those of the instruction set in use (CONTEXTEM_SIMD), measured by loops that do nothing else.  Useful
multiply-adds are those that a patch needs once it is folded onto a quadrant, or onto an octant where a mode allows it;
what the kernels spend on sampling, folding and padding is not among them.  Times are CPU times of the thread, the best
of several.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import contextem as ctm
from contextem import _core

KIB = 1024
REPEATS = 7
BLAS_SETTINGS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Settings that hold OpenBLAS to other kernels or blocks than it would choose."""


@dataclass(frozen=True)
class Roofline:
    """Peaks of one core: multiply-adds/s, and bytes/s where each byte copied counts once."""

    simd: str
    float32: float
    float64: float
    l1_read: float
    l2_read: float
    l2_copy: float
    memory_read: float
    memory_copy: float

    def multiply_adds(self, dtype: type) -> float:
        """Peak in the precision of ``dtype``."""
        return float(getattr(self, np.dtype(dtype).name))

    def __str__(self) -> str:
        return (
            f"{self.simd}: {self.float32 / 1e9:.1f} / {self.float64 / 1e9:.1f} G multiply-adds/s in float32 / float64; "
            f"read {self.l1_read / 1e9:.0f} GB/s from L1, {self.l2_read / 1e9:.0f} from L2, "
            f"{self.memory_read / 1e9:.0f} from memory; copy {self.l2_copy / 1e9:.0f} GB/s within L2, "
            f"{self.memory_copy / 1e9:.0f} from and to memory"
        )


def best_time(function: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return CPU seconds of the thread, best of ``repeats`` after one to warm up."""
    return min(best_times({"": function}, repeats).values())


def best_times(
    functions: dict[Any, Callable[[], object]], repeats: int = REPEATS, clock: Callable[[], float] = time.thread_time
) -> dict[Any, float]:
    """Return the best time of each, taken in turns, so that a clock that drifts changes all alike.

    Each runs three times in its turn and the last run counts: it finds the caches as it leaves them itself, not as the
    one before it did.
    """
    best = dict.fromkeys(functions, np.inf)
    for _ in range(repeats):
        for name, function in functions.items():
            function()
            function()
            start = clock()
            function()
            best[name] = min(best[name], clock() - start)
    return best


def touched(n_bytes: int, dtype: type = np.float32) -> np.ndarray:
    """Return ones that start on a cache line, every page of them written."""
    buffer = np.ones(n_bytes + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    values = buffer[start : start + n_bytes].view(dtype)
    values.fill(1)
    return values


def measure() -> Roofline:
    """Measure the peaks of the instruction set in use."""
    count = 192 * KIB * KIB
    peaks = {
        name: count / best_time(lambda name=name: _core.multiply_adds(count, np.dtype(name)))
        for name in ("float32", "float64")
    }

    def read(n_bytes: int, passes: int) -> float:
        values = touched(n_bytes)
        return passes * n_bytes / best_time(lambda: _core.read_values(values, passes))

    def copy(n_bytes: int, passes: int) -> float:
        source, target = touched(n_bytes), touched(n_bytes)
        loop = best_time(lambda: _core.copy_values(source, target, passes)) / passes
        return n_bytes / min(loop, best_time(lambda: np.copyto(target, source)))

    return Roofline(
        _core.simd(),
        **peaks,
        l1_read=read(16 * KIB, 50_000),
        l2_read=read(256 * KIB, 2000),
        l2_copy=copy(128 * KIB, 2000),
        memory_read=read(256 * KIB * KIB, 1),
        memory_copy=copy(256 * KIB * KIB, 1),
    )


def useful_multiply_adds(basis: ctm.ZernikeBasis) -> tuple[int, int]:
    """Count multiply-adds of a patch folded onto a quadrant, and onto octants for modes of even m.

    Samples count where any mode has weight; on the axes and the diagonal some modes have none.
    """
    first = basis.size // 2
    used = (basis.weights != 0).any(axis=0).reshape(basis.size, basis.size)[first:, first:]
    even = int((basis.m % 2 == 0).sum())
    quadrant, octant = int(used.sum()), int(np.tril(used).sum())
    return quadrant * basis.n_modes, octant * even + quadrant * (basis.n_modes - even)


def cache_traffic(basis: ctm.ZernikeBasis, item: int) -> float:
    """Bytes that go between L1 and L2 for one patch, `item` bytes a value: together they are too large for L1.

    The cache lines of its rows come in; its four planes come in to be written, go out, and come in twice to be
    multiplied; the weights come in once for a panel of two vectors of patches.
    """
    quadrant, octant = useful_multiply_adds(basis)
    rows = basis.size * (basis.size * item + 64 - item)
    planes = 4 * quadrant // basis.n_modes * item
    return rows + 4 * planes + octant * item / (128 // item)


def warn_of_blas_settings() -> None:
    """Say which settings of the environment slow NumPy's BLAS."""
    found = [f"{name}={os.environ[name]}" for name in BLAS_SETTINGS if os.environ.get(name)]
    if found:
        print(f"note: {' '.join(found)} is set and changes how fast NumPy multiplies; unset it for figures to keep")


def main() -> None:
    """Print the peaks and how near the kernels come."""
    peak = measure()
    print(peak)
    rng = np.random.default_rng(0)
    image = rng.random((2048, 2048))
    for dtype, size, n_max in [(np.float32, 32, 10), (np.float32, 64, 20), (np.float64, 32, 10)]:
        basis = ctm.ZernikeBasis(n_max, size)
        count = 20_000 * 32**2 // size**2
        pixels, item = image.astype(dtype), np.dtype(dtype).itemsize
        positions = np.floor(rng.uniform(size, 2048 - size, (count, 2))) + (size - 1) / 2
        patches = ctm.extract_patches(pixels, positions, size, n_threads=1)
        expected = ctm.patch_moments(patches, basis, backend="reference")
        tolerance = 32 * np.finfo(dtype).eps * abs(basis.weights).sum(axis=1)
        kernels: dict[str, Callable[[], np.ndarray]] = {
            "column_moments": lambda p=pixels, c=positions, b=basis: ctm.column_moments(p, c, b, n_threads=1),
            "patch_moments": lambda p=patches, b=basis: ctm.patch_moments(p, b, n_threads=1),
        }
        for name, kernel in kernels.items():
            if not (abs(kernel() - expected) <= tolerance).all():
                raise AssertionError(f"{name}: differs from the reference")
        quadrant, octant = useful_multiply_adds(basis)
        n_bytes = size**2 * item
        print(
            f"\n{np.dtype(dtype)}, {size} x {size}, n_max {n_max}: {quadrant:,} multiply-adds a patch folded onto "
            f"quadrants, {octant:,} onto octants; {n_bytes:,} bytes in, {basis.n_modes * item:,} out"
        )
        for name, seconds in best_times(kernels).items():
            rate, limit = count / seconds, peak.multiply_adds(dtype)
            bounds = {"multiply-adds": octant / limit, "L1 to L2": cache_traffic(basis, item) / peak.l2_read}
            if name == "patch_moments":
                bounds["memory"] = n_bytes / peak.memory_read
            parts = ", ".join(f"{what} {1e9 * least:.0f}" for what, least in bounds.items())
            print(
                f"{name:14}  {rate / 1e6:6.3f} M patches/s; {100 * rate * quadrant / limit:5.1f} % of the peak by "
                f"quadrants, {100 * rate * octant / limit:5.1f} % by octants; {1e9 / rate:.0f} ns a patch, of which at "
                f"least {parts}: together {100 * rate * sum(bounds.values()):.0f} %"
            )


if __name__ == "__main__":
    warn_of_blas_settings()
    main()
