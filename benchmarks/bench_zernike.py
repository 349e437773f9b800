"""Rows per second of rotation_invariants and rotate, beside their NumPy definitions and a copy of the same bytes.

One thread, 200,000 rows of 66 moments (n_max 10). Every result is checked before it is timed. A copy into memory that
exists is the bandwidth; one into fresh memory, as every result here is, pays for its pages too.
"""

from __future__ import annotations

import numpy as np
import pytest
from roofline import best_time

import contextem as ctm
from contextem import _core, zernike

COUNT, N_MAX = 200_000, 10


def rate(function, repeats: int = 9) -> float:
    """Return rows per second, best of ``repeats``."""
    return COUNT / best_time(function, repeats)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_invariants_and_rotation_against_numpy(dtype):
    basis = ctm.ZernikeBasis(N_MAX, 32)
    moments = np.random.default_rng(0).normal(size=(COUNT, basis.n_modes)).astype(dtype)
    existing = np.empty_like(moments)

    def invariants(backend=None):
        return ctm.rotation_invariants(moments, basis, n_threads=1, backend=backend)

    def rotate(backend=None):
        return zernike.rotate(moments, basis, 0.3, n_threads=1, backend=backend)

    np.testing.assert_allclose(invariants(), invariants("reference"), rtol=2 * np.finfo(dtype).eps)
    tolerance = 2 * np.finfo(dtype).eps * abs(moments).max()
    np.testing.assert_allclose(rotate(), rotate("reference"), rtol=0, atol=tolerance)

    copy = rate(lambda: np.copyto(existing, moments))
    bandwidth = 2 * moments.nbytes * copy / COUNT
    print(f"\n{COUNT} rows of {basis.n_modes} {np.dtype(dtype).name} moments, one thread, {_core.simd()}")
    print(f"{'copy into existing memory':28s} {copy / 1e6:7.1f} M rows/s  {bandwidth / 1e9:6.1f} GB/s")
    print(f"{'copy into fresh memory':28s} {rate(moments.copy) / 1e6:7.1f} M rows/s")
    for name, function in {"rotation_invariants": invariants, "rotate": rotate}.items():
        moved = moments.nbytes + function().nbytes
        numpy_way, cpp = rate(lambda f=function: f("reference"), 3), rate(function)
        share = cpp * moved / COUNT / bandwidth
        print(
            f"{name:28s} {cpp / 1e6:7.1f} M rows/s  {cpp * moved / COUNT / 1e9:6.1f} GB/s  "
            f"{cpp / numpy_way:5.1f} x NumPy ({numpy_way / 1e6:.1f} M rows/s)  {share:5.1%} of the copy's bandwidth"
        )
