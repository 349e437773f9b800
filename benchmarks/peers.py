"""column_moments, patch_moments and extract_patches against what else computes or copies the same, in one process.

    python benchmarks/peers.py [--native FOLDER]

Every result is checked before it is timed: against backend="reference", motif-learn and mahotas against the projection
basis, which has their convention.  One thread (BLAS is held to it by threadpoolctl, torch by set_num_threads), random
positions in a 2048 x 2048 image.  Times are CPU times of the thread, the best of several, candidates in turns.  What is
not installed is left out; the extra `bench` brings it.  Bars that are missed are printed, wrong results raise.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from roofline import best_times, warn_of_blas_settings

import contextem as ctm
from contextem import _core

SIDE, COUNT = 2048, 20_000
CHECKED = 200
"""Patches of each candidate that are compared with the reference."""
FEW = 50
"""Patches for mahotas, which is slow."""
MATRIX = ((0.9, 0.3), (-0.3, 0.9))
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "fused, integer positions": ("centres", {}),
    "fused, float positions": ("between", {}),
    "fused, nearest": ("between", {"interpolation": "nearest"}),
    "fused, scale 0.8": ("between", {"scale": 0.8}),
    "fused, scale 1.3": ("between", {"scale": 1.3}),
    "fused, 2x2 matrix": ("between", {"scale": MATRIX}),
}
"""column_moments: which positions, and the other arguments."""
GATHERS = ("NumPy, gather + sgemm", "torch, gather + mm")
PRODUCTS = ("NumPy, sgemm alone", "torch, mm alone")
MOTIF, MAHOTAS = "motif-learn, extract + moments", "mahotas, zernike_moments"
FUSED, BETWEEN, PATCHES = "fused, integer positions", "fused, float positions", "patch_moments"


def optional(name: str) -> ModuleType | None:
    """Import a peer, or say that it is left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its imports, not ours
            return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed: left out")
        return None


@dataclass(frozen=True)
class Scene:
    """An image, positions on and between its pixels, and a basis."""

    size: int = 32
    n_max: int = 10
    dtype: Any = np.float32

    def __str__(self) -> str:
        return f"{self.size} x {self.size}, n_max {self.n_max}, {np.dtype(self.dtype)}"

    @cached_property
    def image(self) -> np.ndarray:
        return np.random.default_rng(0).random((SIDE, SIDE)).astype(self.dtype)

    @cached_property
    def corners(self) -> np.ndarray:
        margin = self.size
        return np.random.default_rng(1).integers(margin, SIDE - 2 * margin, (COUNT, 2))

    @cached_property
    def centres(self) -> np.ndarray:
        return self.corners + (self.size - 1) / 2

    @cached_property
    def between(self) -> np.ndarray:
        return self.centres + np.random.default_rng(2).random((COUNT, 2))

    @cached_property
    def basis(self) -> Any:
        return ctm.ZernikeBasis(self.n_max, self.size)

    @cached_property
    def weights(self) -> np.ndarray:
        return np.ascontiguousarray(self.basis.weights.T.astype(self.dtype))

    @cached_property
    def tolerance(self) -> np.ndarray:
        return 32 * np.finfo(self.dtype).eps * abs(self.basis.weights).sum(axis=1)

    def gather(self) -> np.ndarray:
        windows = sliding_window_view(self.image, (self.size, self.size))
        return windows[self.corners[:, 0], self.corners[:, 1]]

    @cached_property
    def patches(self) -> np.ndarray:
        patches = ctm.extract_patches(self.image, self.centres, self.size)
        np.testing.assert_array_equal(patches, self.gather())
        return patches


@dataclass(frozen=True)
class Candidate:
    """A way to moments, what its first ones have to be, and how far they may be off."""

    run: Callable[[], Any]
    expected: np.ndarray
    tolerance: Any

    def check(self, name: str) -> int:
        """Raise where the result is wrong; return how many patches it is of."""
        moments = np.asarray(self.run())
        worst = (abs(moments[: len(self.expected)] - self.expected) / self.tolerance).max()
        if not worst <= 1:
            raise AssertionError(f"{name}: differs from the reference by {worst:.2g} times what rounding allows")
        return len(moments)


def reference_of(scene: Scene, which: str, arguments: dict[str, Any]) -> np.ndarray:
    positions = getattr(scene, which)[:CHECKED]
    return ctm.column_moments(scene.image, positions, scene.basis, backend="reference", **arguments)


def own(scene: Scene, names: tuple[str, ...] = tuple(OURS)) -> dict[str, Candidate]:
    """Return the kernels of this package: patch_moments, and column_moments as named."""
    found = {
        name: Candidate(
            partial(ctm.column_moments, scene.image, getattr(scene, which), scene.basis, n_threads=1, **arguments),
            reference_of(scene, which, arguments),
            scene.tolerance,
        )
        for name in names
        for which, arguments in [OURS[name]]
    }
    return {
        **found,
        PATCHES: Candidate(
            partial(ctm.patch_moments, scene.patches, scene.basis, n_threads=1),
            reference_of(scene, "centres", {}),
            scene.tolerance,
        ),
    }


def products(
    scene: Scene, torch: ModuleType | None, names: tuple[str, ...] = GATHERS + PRODUCTS
) -> dict[str, Candidate]:
    """Return the matrix product of NumPy and torch, after gathering the patches and alone."""
    expected = reference_of(scene, "centres", {})
    rows = scene.patches.reshape(COUNT, -1)
    runs: dict[str, Callable[[], Any]] = {
        GATHERS[0]: lambda: scene.gather().reshape(COUNT, -1) @ scene.weights,
        PRODUCTS[0]: lambda: rows @ scene.weights,
    }
    if torch is not None:
        windows = torch.from_numpy(scene.image).unfold(0, scene.size, 1).unfold(1, scene.size, 1)
        row, column = torch.from_numpy(scene.corners).T
        flat, weights = torch.from_numpy(rows), torch.from_numpy(scene.weights)
        runs[GATHERS[1]] = lambda: torch.mm(windows[row, column].reshape(COUNT, -1), weights)
        runs[PRODUCTS[1]] = lambda: torch.mm(flat, weights)
    return {name: Candidate(runs[name], expected, scene.tolerance) for name in names if name in runs}


def packages(scene: Scene) -> dict[str, Candidate]:
    """Return the packages that compute Zernike moments."""
    basis = ctm.ZernikeBasis(scene.n_max, scene.size, "projection")
    found = {}
    if (features := optional("mtflearn.features")) is not None:
        polynomials = features.ZPs(n_max=scene.n_max, size=scene.size)
        points = (scene.corners[:, ::-1] + scene.size // 2).astype(float)  # x, y
        expected = ctm.patch_moments(scene.patches[:CHECKED].astype(float), basis, backend="reference")

        def extract_and_transform() -> np.ndarray:
            patches = features.KeyPoints(points, scene.image, scene.size).extract_patches()
            return polynomials.fit_transform(patches).data

        found[MOTIF] = Candidate(extract_and_transform, expected, 1e-9)
    if (mahotas := optional("mahotas")) is not None:
        sys.path.append(str(Path(__file__).parents[1] / "tests"))
        import oracles

        half, few = (scene.size - 1) / 2, scene.patches[:FEW].astype(float)
        totals = few.reshape(len(few), -1)[:, basis.weights[0] != 0].sum(axis=1, keepdims=True)
        moduli = ctm.rotation_invariants(ctm.patch_moments(few, basis, backend="reference"), basis)
        n, order = np.array(basis.invariant_labels).T

        def each() -> np.ndarray:
            one = mahotas.features.zernike_moments
            return np.array([one(patch, half, degree=scene.n_max, cm=(half, half)) for patch in few])

        found[MAHOTAS] = Candidate(each, oracles.mahotas_modulus(moduli, n, order, scene.size, totals), 1e-8)
    return found


def rates(candidates: dict[str, Candidate], repeats: int = 9) -> dict[str, float]:
    """Return patches per second of each, after checking them."""
    counts = {name: candidate.check(name) for name, candidate in candidates.items()}
    seconds = best_times({name: candidate.run for name, candidate in candidates.items()}, repeats)
    return {name: counts[name] / seconds[name] for name in candidates}


def fastest(found: dict[str, float], names: tuple[str, ...]) -> float:
    return max(found[name] for name in names if name in found)


def advantage(scene: Scene, torch: ModuleType | None) -> float:
    """Return patches per second of the fused kernel over those of the faster matrix product alone."""
    found = rates({**products(scene, torch, PRODUCTS), **own(scene, (FUSED,))})
    print(f"{scene}: fused {found[FUSED] / 1e6:.3f}, product {fastest(found, PRODUCTS) / 1e6:.3f} M patches/s")
    return found[FUSED] / fastest(found, PRODUCTS)


def two_threads(scene: Scene) -> float:
    """Return how much faster two threads are, by the clock on the wall."""
    run = partial(ctm.column_moments, scene.image, scene.centres, scene.basis)
    seconds = best_times({n: partial(run, n_threads=n) for n in (1, 2)}, 15, time.perf_counter)
    return seconds[1] / seconds[2]


def share_of_copy(scene: Scene, count: int, *, fresh: bool) -> float:
    """Return the bandwidth of extract_patches over that of a copy of as many bytes.

    Fresh: both write to pages that the system has just handed out, as for any large array.  Otherwise the copy goes to
    a buffer that was written before, and the patches are few enough that the allocator hands out again what it had.
    """
    source = scene.patches[:count].copy()
    target = np.empty_like(source)

    def extract() -> np.ndarray:
        return ctm.extract_patches(scene.image, scene.centres[:count], scene.size, n_threads=1)

    def copy() -> None:
        np.copyto(target, source)

    np.testing.assert_array_equal(extract(), source)
    seconds = best_times({"extract": extract, "copy": source.copy if fresh else copy}, 15)
    return seconds["copy"] / seconds["extract"]


def rates_of(core: Path, package: Path) -> dict[str, float]:
    """Return the rates of the kernels with another _core, from a process of its own."""
    package.mkdir(parents=True, exist_ok=True)
    for file in Path(ctm.__file__).parent.iterdir():
        link = package / file.name
        if not link.exists():
            link.symlink_to(core if file.name.startswith("_core.") and file.suffix == ".so" else file)
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    command = [sys.executable, __file__, "--rates"]
    run = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(run.stdout)
    return found


def against_native(folder: Path) -> float:
    """Return the least share that a kernel of this build has of its rate in the native one, from processes in turns."""
    [native] = folder.resolve().glob("**/_core*.so")
    portable: dict[str, list[float]] = {}
    tuned: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as root:
        for _ in range(3):
            for build, core, found in (("portable", Path(_core.__file__), portable), ("native", native, tuned)):
                for name, rate in rates_of(core, Path(root) / build / "contextem").items():
                    found.setdefault(name, []).append(rate)
    shares = {name: max(portable[name]) / max(tuned[name]) for name in tuned}
    print("portable / native: " + "; ".join(f"{name} {share:.2f}" for name, share in shares.items()))
    return min(shares.values())


def main(native: Path | None) -> None:
    """Print the table and the bars."""
    scene, torch = Scene(), optional("torch")
    held = [f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"]
    if (threadpools := optional("threadpoolctl")) is not None:
        threadpools.threadpool_limits(1)
        held.append("threadpool_limits(1)")
    if torch is not None:
        torch.set_num_threads(1)
        held.append("torch.set_num_threads(1)")
    warn_of_blas_settings()
    print(f"{platform.machine()}, {_core.simd()}; NumPy {np.__version__}; one thread by {', '.join(held)}")

    found = rates({**products(scene, torch), **packages(scene), **own(scene)})
    gather, product = fastest(found, GATHERS), fastest(found, PRODUCTS)
    print(f"\n{scene}, {COUNT:,} positions in {SIDE} x {SIDE} px ({FEW} for mahotas)\n")
    print("| path | M patches/s | x gather + sgemm | x sgemm |\n|---|---|---|---|")
    for name, rate in found.items():
        print(f"| {name} | {rate / 1e6:.4f} | {rate / gather:.3g} | {rate / product:.3g} |")
    print()

    near = found[FUSED] / product
    bars = [
        ("fused at integer positions / gather + sgemm", found[FUSED] / gather, 8),
        ("fused / sgemm alone", near, 3.5),
    ]
    for name, bar in ((MOTIF, 50), (MAHOTAS, 1000)):
        if name in found:
            bars.append((f"fused / {name}", found[FUSED] / found[name], bar))
    bars += [
        ("fused at float positions / at integer ones", found[BETWEEN] / found[FUSED], 0.6),
        ("patch_moments / sgemm alone", found[PATCHES] / product, 3.5),
        ("n_max 20: fused / sgemm alone", advantage(Scene(n_max=20), torch), 4),
    ]
    for other in (Scene(64), Scene(16), Scene(23), Scene(dtype=np.float64)):
        bars.append((f"{other}: advantage over sgemm / that above", advantage(other, torch) / near, 0.7))
    bars += [
        ("two threads / one, wall time", two_threads(scene), 1.8),
        ("extract_patches / copy, fresh pages", share_of_copy(scene, COUNT, fresh=True), 0.7),
        ("extract_patches / copy, 8 MB reused", share_of_copy(scene, 2000, fresh=False), 0.7),
    ]
    if native is not None:
        bars.append(("portable build / -march=native", against_native(native), 0.9))
    print("\n| what | value | bar | |\n|---|---|---|---|")
    for what, value, bar in bars:
        print(f"| {what} | {value:.3g} | {bar:g} | {'met' if value >= bar else 'missed'} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--native", type=Path, metavar="FOLDER", help="folder of a _core built with CONTEXTEM_NATIVE=ON"
    )
    parser.add_argument("--rates", action="store_true", help="only print the rates of the kernels, as JSON")
    options = parser.parse_args()
    if options.rates:
        print(json.dumps(rates(own(Scene()), 5)))
    else:
        main(options.native)
