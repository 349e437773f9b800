"""Columns per second of the adjoint of column_moments, beside the forward pass and NumPy's way, in the same run.

One thread, float32, 32 x 32 samples, n_max 10, 20,000 random positions in a 2048 x 2048 image. Every result is checked
before it is timed. Times are CPU times of the thread, best of several, so that other programs disturb them little.
"""

from __future__ import annotations

import numpy as np
import pytest
from roofline import best_time

import contextem as ctm
from contextem import _core, zernike
from contextem.adjoint import column_moments_position_gradient

COUNT, SIDE, SIZE, N_MAX = 20_000, 2048, 32, 10
EPSILON = np.finfo(np.float32).eps


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    image = rng.random((SIDE, SIDE), dtype=np.float32)
    positions = rng.uniform(SIZE, SIDE - SIZE, (COUNT, 2))
    basis = ctm.ZernikeBasis(N_MAX, SIZE)
    return image, positions, basis, rng.normal(size=(COUNT, basis.n_modes)).astype(np.float32)


def rate(function, repeats: int = 7) -> float:
    """Return columns per second, best of ``repeats``."""
    return COUNT / best_time(function, repeats)


def report(rates: dict[str, float], base: str) -> None:
    print(f"\n{COUNT} columns, {SIZE} x {SIZE} float32, n_max {N_MAX}, one thread, {_core.simd()}")
    for name, value in rates.items():
        print(f"{name:34s} {value / 1e6:6.3f} M columns/s  {value / rates[base]:6.2f} x {base}")


def test_adjoint_of_columns_against_numpy(scene):
    image, positions, basis, gradient = scene
    weights = basis.weights.astype(np.float32)
    corner = np.floor(positions - (SIZE - 1) / 2).astype(np.int64)
    on_grid = corner + (SIZE - 1) / 2
    offset = (np.arange(SIZE)[:, None] * SIDE + np.arange(SIZE)).ravel()
    pixels = corner[:, :1] * SIDE + corner[:, 1:] + offset

    def numpy_way():
        flat = np.zeros(SIDE * SIDE, np.float32)
        np.add.at(flat, pixels, gradient @ weights)
        return flat.reshape(SIDE, SIDE)

    def adjoint(where, scale=1.0):
        return ctm.column_moments_adjoint(gradient, where, basis, image.shape, scale=scale, n_threads=1)

    def forward(where, scale=1.0):
        return ctm.column_moments(image, where, basis, scale=scale, n_threads=1)

    expected = numpy_way()
    assert abs(adjoint(on_grid) - expected).max() <= 32 * EPSILON * abs(expected).max()
    terms = image.max() * (abs(gradient) @ abs(basis.weights).sum(axis=1)).sum()
    for where, scale in [(positions, 1.0), (positions, 0.8), (positions, [[0.8, 0.3], [-0.3, 0.8]])]:
        forwards = np.vdot(forward(where, scale).astype(float), gradient)
        backwards = np.vdot(image, adjoint(where, scale).astype(float))
        assert abs(forwards - backwards) <= 32 * EPSILON * terms

    def slopes(scale=1.0, backend=None, part=slice(None)):
        return column_moments_position_gradient(
            gradient[part], image, positions[part], basis, scale=scale, n_threads=1, backend=backend
        )

    by_definition = slopes(backend="reference", part=slice(500))
    assert abs(slopes(part=slice(500)) - by_definition).max() <= 64 * EPSILON * abs(by_definition).max()

    report(
        {
            "NumPy g @ w + np.add.at": rate(numpy_way, 2),
            "forward, integer positions": rate(lambda: forward(on_grid)),
            "adjoint, integer positions": rate(lambda: adjoint(on_grid)),
            "forward, float positions": rate(lambda: forward(positions)),
            "adjoint, float positions": rate(lambda: adjoint(positions)),
            "position gradient": rate(slopes),
            "forward, scale 0.8": rate(lambda: forward(positions, 0.8)),
            "adjoint, scale 0.8": rate(lambda: adjoint(positions, 0.8)),
            "forward, scale 1.3": rate(lambda: forward(positions, 1.3)),
            "adjoint, scale 1.3": rate(lambda: adjoint(positions, 1.3)),
            "forward, turned grid": rate(lambda: forward(positions, [[0.8, 0.3], [-0.3, 0.8]]), 2),
            "adjoint, turned grid": rate(lambda: adjoint(positions, [[0.8, 0.3], [-0.3, 0.8]]), 2),
        },
        "NumPy g @ w + np.add.at",
    )


def test_adjoint_of_patches_against_numpy(scene):
    _, _, basis, gradient = scene
    weights = basis.weights.astype(np.float32)
    expected = gradient @ weights
    patches = ctm.patch_moments_adjoint(gradient, basis, n_threads=1)
    assert abs(patches.reshape(expected.shape) - expected).max() <= 32 * EPSILON * abs(expected).max()
    polynomials = basis._polynomials.astype(np.float32)
    expected = gradient @ polynomials
    patches = zernike.reconstruct(gradient, basis, n_threads=1)
    assert abs(patches.reshape(expected.shape) - expected).max() <= 32 * EPSILON * abs(expected).max()
    report(
        {
            "NumPy g @ w": rate(lambda: gradient @ weights),
            "patch_moments_adjoint": rate(lambda: ctm.patch_moments_adjoint(gradient, basis, n_threads=1)),
            "reconstruct": rate(lambda: zernike.reconstruct(gradient, basis, n_threads=1)),
        },
        "NumPy g @ w",
    )
