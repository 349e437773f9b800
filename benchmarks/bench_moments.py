"""Patches per second of the fused column_moments, and of NumPy's way in the same run.

One thread, float32, 32 x 32 samples, n_max 10, 20,000 random positions in a 2048 x 2048 image. Every result is checked
before it is timed. Times are CPU times of the thread, best of several, so that other programs disturb them little.
"""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import contextem as ctm
from contextem import _core

COUNT, SIDE, SIZE, N_MAX = 20_000, 2048, 32, 10


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    image = rng.random((SIDE, SIDE), dtype=np.float32)
    positions = rng.uniform(SIZE, SIDE - SIZE, (COUNT, 2))
    return image, positions, ctm.ZernikeBasis(N_MAX, SIZE)


def rate(function, repeats: int = 7) -> float:
    """Return patches per second, best of ``repeats`` after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        function()
        times.append(time.thread_time() - start)
    return COUNT / min(times)


def require_one_blas_thread() -> None:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    if "1" not in {os.environ.get(name) for name in names}:
        print("note: set OMP_NUM_THREADS=1 to hold BLAS to one thread; only the calling thread's time is counted")


def test_fused_against_numpy(scene):
    image, positions, basis = scene
    require_one_blas_thread()
    corner = np.floor(positions - (SIZE - 1) / 2).astype(np.int64)
    on_grid = corner + (SIZE - 1) / 2
    windows = sliding_window_view(image, (SIZE, SIZE))
    weights = np.ascontiguousarray(basis.weights.T.astype(np.float32))

    def gather():
        return windows[corner[:, 0], corner[:, 1]].reshape(COUNT, -1)

    gathered = gather()
    product = gathered @ weights
    fused = ctm.column_moments(image, on_grid, basis, n_threads=1)
    tolerance = 32 * np.finfo(np.float32).eps * abs(basis.weights).sum(axis=1)
    assert (abs(fused - product) <= tolerance).all()

    between = ctm.column_moments(image, positions[:500], basis, n_threads=1)
    expected = ctm.column_moments(image, positions[:500], basis, backend="reference")
    assert (abs(between - expected) <= tolerance).all()

    numpy_rate = rate(lambda: gather() @ weights)
    print(f"\n{COUNT} columns, {SIZE} x {SIZE} float32, n_max {N_MAX}, one thread, {_core.simd()}")
    for name, value in {
        "NumPy gather + sgemm": numpy_rate,
        "sgemm alone": rate(lambda: gathered @ weights),
        "fused, integer positions": rate(lambda: ctm.column_moments(image, on_grid, basis, n_threads=1)),
        "fused, float positions": rate(lambda: ctm.column_moments(image, positions, basis, n_threads=1)),
        "fused, scale 0.8": rate(lambda: ctm.column_moments(image, positions, basis, scale=0.8, n_threads=1)),
        "fused, scale 1.3": rate(lambda: ctm.column_moments(image, positions, basis, scale=1.3, n_threads=1)),
    }.items():
        print(f"{name:26s} {value / 1e6:6.3f} M patches/s  {value / numpy_rate:5.2f} x NumPy gather + sgemm")
