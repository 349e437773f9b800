"""Moments at every pixel of an image against motif-learn and SciPy, and where transforms overtake the direct kernel.

    python benchmarks/bench_dense.py

motif-learn's way is ZPs(n_max, size).fit_transform(image): fftconvolve of the image with all polynomials at once; its
moments of an even P are those of the pixel above and to the left.  SciPy's is fftconvolve of the image with one
mode's weights after the other, all in float32.  Float32 images, one thread each (CPU times of the thread, best of
several in turns); what is compared is checked before it is timed, in the projection basis, which is motif-learn's.
A bar that is missed is printed, a wrong result raises.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy
from peers import optional
from roofline import best_times
from scipy.signal import fftconvolve

import contextem as ctm
from contextem import _core, dense

BAR = 5
"""Times as fast as motif-learn, at least."""
SCENES = ((512, 32, 10), (512, 64, 10), (1024, 32, 10), (1024, 64, 10), (512, 32, 20))
"""Side of the image, P and n_max."""
SIZES = (16, 24, 32, 40, 48, 56, 64, 96, 128, 192)
MOTIF, SCIPY = "motif-learn, ZPs.fit_transform", "SciPy, fftconvolve a mode at a time"
OURS = {f"dense_moments, {method}": method for method in ("direct", "fft", "auto")}


def image_of(side: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(0).random((side, side)).astype(dtype)


def by_scipy(image: np.ndarray, basis: ctm.ZernikeBasis) -> np.ndarray:
    """Return moments (J, H, W), placed as ours."""
    size, (height, width) = basis.size, image.shape
    flipped = basis.weights.reshape(-1, size, size)[:, ::-1, ::-1].astype(image.dtype)
    first = size // 2
    moments = np.empty((basis.n_modes, height, width), image.dtype)
    for weights, moment in zip(flipped, moments, strict=True):
        moment[...] = fftconvolve(image, weights)[first : first + height, first : first + width]
    return moments


def check(name: str, moments: np.ndarray, expected: np.ndarray, basis: ctm.ZernikeBasis, image: np.ndarray) -> None:
    """Raise where moments (H, W, J) differ by more than float32 transforms of the image round."""
    unit = np.finfo(np.float32).eps * np.linalg.norm(basis.weights, axis=1) * np.linalg.norm(image)
    worst = (abs(moments - expected) / unit).max()
    if not worst <= 8:
        raise AssertionError(f"{name}: differs from the direct kernel in float64 by {worst:.2g} eps |w| |image|")


def compare(side: int, size: int, n_max: int) -> dict[str, float]:
    """Return pixels per second of each way, after checking it against the kernel in float64 and that by definition."""
    image, basis = image_of(side), ctm.ZernikeBasis(n_max, size, "projection")
    expected = ctm.dense_moments(image.astype(np.float64), basis, method="direct")
    few = slice(0, 2 * size)
    by_definition = ctm.dense_moments(image[few, few].astype(np.float64), basis, backend="reference")
    reached = 2 * size - size // 2  # pixels whose patches lie in the corner or beyond the border of the image
    np.testing.assert_allclose(
        expected[:reached, :reached], by_definition[:reached, :reached], atol=1e-12 * abs(by_definition).max()
    )
    ways: dict[str, Callable[[], Any]] = {
        name: partial(ctm.dense_moments, image, basis, method=method, n_threads=1) for name, method in OURS.items()
    }
    for name, way in ways.items():
        check(name, way(), expected, basis, image)
    ways[SCIPY] = partial(by_scipy, image, basis)
    check(SCIPY, np.moveaxis(ways[SCIPY](), 0, -1), expected, basis, image)
    if (features := optional("mtflearn.features")) is not None:
        polynomials = features.ZPs(n_max=n_max, size=size)
        ways[MOTIF] = lambda: polynomials.fit_transform(image)
        shift = 1 - size % 2
        found = np.moveaxis(ways[MOTIF]().data, 0, -1)[shift:, shift:]
        check(MOTIF, found, expected[: side - shift, : side - shift], basis, image)
    seconds = best_times(ways, 2)
    return {name: side**2 / seconds[name] for name in ways}


def methods(side: int, n_max: int, dtype: Any, n_threads: int) -> str:
    """Return a row of the table of sizes: milliseconds of both methods, the rule's choice in bold."""
    image, cells = image_of(side, dtype), []
    clock = time.thread_time if n_threads == 1 else time.perf_counter
    for size in SIZES:
        basis = ctm.ZernikeBasis(n_max, size)
        ways = {m: partial(ctm.dense_moments, image, basis, method=m, n_threads=n_threads) for m in ("direct", "fft")}
        seconds = best_times(ways, 2, clock)
        texts = {m: f"{1e3 * s:.3g}" for m, s in seconds.items()}
        chosen = "direct" if dense.direct_is_faster(image.shape, basis) else "fft"
        texts[chosen] = f"**{texts[chosen]}**"
        cells.append(f"{texts['direct']} / {texts['fft']}")
    return f"| {side}, n_max {n_max}, {np.dtype(dtype)}, {n_threads} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print the rates with the bars, and the table of sizes."""
    held = f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"
    print(f"{platform.machine()}, {_core.simd()}; NumPy {np.__version__}, SciPy {scipy.__version__}; {held}")
    print("\nM pixels/s, one thread, float32 image\n")
    print("| image, P, n_max | " + " | ".join((*OURS, SCIPY, MOTIF)) + " | auto / motif-learn | auto / SciPy |")
    print("|" + "---|" * (len(OURS) + 5))
    bars = []
    for side, size, n_max in SCENES:
        found = compare(side, size, n_max)
        rates = " | ".join(f"{found[name] / 1e6:.3g}" if name in found else "" for name in (*OURS, SCIPY, MOTIF))
        own, ratio = found["dense_moments, auto"], ""
        if MOTIF in found:
            bars.append((f"{side}, {size}, {n_max}", own / found[MOTIF]))
            ratio = f"{own / found[MOTIF]:.3g}"
        print(f"| {side}, {size}, {n_max} | {rates} | {ratio} | {own / found[SCIPY]:.3g} |", flush=True)
    print("\n| dense_moments / motif-learn | value | bar | |\n|---|---|---|---|")
    for scene, value in bars:
        print(f"| {scene} | {value:.3g} | {BAR} | {'met' if value >= BAR else 'missed'} |")
    print("\nms, direct / fft by P; bold: what auto takes\n")
    print("| image, n_max, dtype, threads | " + " | ".join(map(str, SIZES)) + " |\n|" + "---|" * (len(SIZES) + 1))
    for side, n_max, dtype, n_threads in (
        (128, 10, np.float32, 1),
        (512, 10, np.float32, 1),
        (512, 10, np.float32, 2),
        (512, 10, np.float64, 1),
        (512, 20, np.float32, 1),
        (512, 20, np.float32, 2),
        (1024, 10, np.float32, 1),
        (1024, 10, np.float32, 2),
    ):
        print(methods(side, n_max, dtype, n_threads), flush=True)


if __name__ == "__main__":
    sys.exit(main())
