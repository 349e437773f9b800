"""Zernike moments at every pixel of an image, for maps of motifs.

Two ways to the same numbers: directly, by the folded kernels that compute moments of patches (cpp/src/dense.hpp), at a
cost that grows with P^2; and by Fourier transforms, at a cost that hardly depends on P.  The image is cut into tiles
that overlap by P - 1 pixels (overlap-save), so that the transforms stay in the cache and the spectra of the weights
serve every tile.

Formula: the correlation theorem by overlap-save, T. G. Stockham, Proc. AFIPS 28, 229 (1966),
https://doi.org/10.1145/1464182.1464209.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from contextem import _arrays, _core, _kernels
from contextem.zernike import ZernikeBasis

METHODS = ("auto", "direct", "fft")
GROUP = 8
"""Modes that one thread transforms before their moments are written."""
SMALLEST_TILE = 320
"""Side in pixels below which overlaps cost more than the cache saves."""
DIRECT = {"avx512": 1.2e-12, "avx2": 2.2e-12, "sse2": 5.2e-12}
"""Seconds of the direct method per pixel, sample of its patch and mode (folding counts as 50 modes)."""
TRANSFORM, CALLS = 2.7e-9, 6e-6
"""Seconds of a transform, its product included: per pixel of the tile, and at least."""

Array = NDArray[Any]


def dense_moments(
    image: Array, basis: ZernikeBasis, *, method: str = "auto", n_threads: int = 0, backend: str | None = None
) -> Array:
    """Moments of the patch around every pixel of an image.

    For odd P, entry (r, c) belongs to the patch centred on pixel (r, c); for even P to that centred on
    (r + 1/2, c + 1/2): in both cases sample (k, l) is pixel (r + k - h, c + l - h) with h = floor((P - 1) / 2). Where
    the patch lies inside the image this is ``column_moments(image, [centre], basis)``; pixels outside count as 0.

    Parameters
    ----------
    image : ndarray, shape (H, W), float32 or float64
        Any strides; may be smaller than the patch.
    basis : ZernikeBasis
        Basis; its size is the patch side P.
    method : {"auto", "direct", "fft"}
        "direct": exact to the rounding of each patch's own sum. "fft": by Fourier transforms, with errors relative to
        the brightest pixels of a tile of about 4 P. "auto": whichever is faster, directly where a pixel is not finite.
    n_threads : int
        Threads, 0 for all cores. The result does not depend on it.
    backend : {None, "cpp", "reference"}
        For tests and benchmarks: the kernels of the direct method.

    Returns
    -------
    ndarray, shape (H, W, J)
        In the dtype of ``image``.

    Raises
    ------
    TypeError, ValueError
        If the image is not a floating-point NumPy array of two axes, or an argument is out of range.

    Notes
    -----
    The result holds H W J values (277 MB for 1024 x 1024 px, n_max 10, float32). Beside it, "direct" needs a copy of
    the image, "fft" a few and at most 128 MB of spectra that are kept for the next image. To work band by band, take
    rows r0 to r1 with the h rows above and the P - 1 - h rows below that their patches reach::

        top = max(r0 - h, 0)
        band = dense_moments(image[top : r1 + size - 1 - h], basis)[r0 - top : r1 - top]

    Examples
    --------
    >>> import numpy as np
    >>> import contextem as ctm
    >>> image, basis = np.random.default_rng(0).random((48, 64)), ctm.ZernikeBasis(4, 16)
    >>> moments = dense_moments(image, basis)
    >>> moments.shape
    (48, 64, 15)
    >>> bool(np.allclose(moments[20, 30], ctm.column_moments(image, [(20.5, 30.5)], basis)[0]))
    True
    """
    kernels = _kernels.select_host(image, "image", backend)
    _arrays.check_image(image)
    threads = _arrays.check_threads(n_threads)
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if method == "fft" and backend is not None:
        raise ValueError(f"backend: expected None for method 'fft', got {backend!r}; take method='direct'")
    if method == "auto":
        direct = backend is not None or direct_is_faster(image.shape, basis) or not np.isfinite(image).all()
        method = "direct" if direct else "fft"
    elif method == "fft" and not np.isfinite(image).all():
        raise ValueError(
            "image: expected finite pixels for method 'fft', got some that are not and would spoil whole tiles; "
            "fill them, or take method='direct'"
        )
    if method == "fft":
        return _by_transforms(image, basis, threads)
    moments: Array = kernels.dense_moments(image, basis.table, threads)
    return moments


@dataclass(frozen=True)
class Tiling:
    """Tiles of an image: each holds the patches of ``step`` (rows, columns) pixels and is transformed as ``shape``."""

    step: tuple[int, int]
    shape: tuple[int, int]
    count: tuple[int, int]

    @classmethod
    def of(cls, extents: tuple[int, int], size: int) -> Tiling:
        """Cut an image into tiles of equal sides, of four patches or a little less, where it is that large."""
        along = max(SMALLEST_TILE, 4 * size) - size + 1
        count = [-(-extent // along) for extent in extents]
        step = [-(-extent // n) for extent, n in zip(extents, count, strict=True)]
        shape = [fft.next_fast_len(s + size - 1, real=True) for s in step]
        return cls((step[0], step[1]), (shape[0], shape[1]), (count[0], count[1]))


def direct_is_faster(extents: tuple[int, int], basis: ZernikeBasis) -> bool:
    """Say which method takes less time for an image of shape (H, W)."""
    # Float32, one thread, 512 x 512 px: as fast at P = 47 (n_max 10, 73 ms) and 53 (n_max 20, 255 ms) with AVX-512, 33
    # and 37 with AVX2, 21 and 22 with SSE2. Two threads or small images move that up, float64 down by about 6.
    tiling, modes = Tiling.of(extents, basis.size), basis.n_modes
    direct = DIRECT.get(_core.simd(), DIRECT["sse2"]) * math.prod(extents) * basis.size**2 * (50 + modes)
    transforms = modes * math.prod(tiling.count)
    return direct <= transforms * (TRANSFORM * math.prod(tiling.shape) + CALLS)


@dataclass
class Spectra:
    """Spectra of weights, kept while they fit into ``limit`` bytes: the least recently used go first."""

    limit: int
    kept: OrderedDict[Any, Array] = field(default_factory=OrderedDict)
    n_bytes: int = 0
    lock: Lock = field(default_factory=Lock)

    def get(self, key: Any, make: Callable[[], Array]) -> Array:
        """Return what is kept under ``key``, or make and keep it."""
        with self.lock:
            if key in self.kept:
                self.kept.move_to_end(key)
                return self.kept[key]
        made = make()
        with self.lock:
            if key not in self.kept:
                self.kept[key] = made
                self.n_bytes += made.nbytes
            while self.n_bytes > self.limit:
                self.n_bytes -= self.kept.popitem(last=False)[1].nbytes
        return made

    def clear(self) -> None:
        """Forget all."""
        with self.lock:
            self.kept.clear()
            self.n_bytes = 0


SPECTRA = Spectra(limit=128 * 2**20)


def _by_transforms(image: Array, basis: ZernikeBasis, n_threads: int) -> Array:
    """Moments (H, W, J) as correlations of tiles with the weights."""
    height, width = image.shape
    tiling = Tiling.of((height, width), basis.size)
    (down, across), (rows, columns), (n_down, n_across) = tiling.step, tiling.shape, tiling.count
    before = (basis.size - 1) // 2
    padded = np.zeros(((n_down - 1) * down + rows, (n_across - 1) * across + columns), image.dtype)
    seen = padded[before : before + height, before : before + width]
    seen[...] = image[: seen.shape[0], : seen.shape[1]]
    corners = [(i * down, j * across) for i in range(n_down) for j in range(n_across)]
    moments = np.empty((height, width, basis.n_modes), image.dtype)

    def spectrum_of(corner: tuple[int, int]) -> Array:
        row, column = corner
        spectrum: Array = fft.rfft2(padded[row : row + rows, column : column + columns])
        return spectrum

    def transform(first: int) -> None:
        """Write the moments of a group of modes."""
        weights = _spectra_of(basis, first, tiling.shape, image.dtype)
        group = np.empty((down, across, len(weights)), image.dtype)
        for (row, column), spectrum in zip(corners, spectra, strict=True):
            for mode, weight in enumerate(weights):
                whole_rows = fft.ifft(spectrum * weight, axis=0, overwrite_x=True)[:down]  # the others overlap
                group[..., mode] = fft.irfft(whole_rows, columns, axis=1)[:, :across]
            target = moments[row : row + down, column : column + across, first : first + len(weights)]
            target[...] = group[: target.shape[0], : target.shape[1]]

    spectra = _in_threads(spectrum_of, corners, n_threads)
    _in_threads(transform, range(0, basis.n_modes, GROUP), n_threads)
    return moments


def _spectra_of(basis: ZernikeBasis, first: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    """Conjugate spectra of a group of modes, (GROUP, rows, columns // 2 + 1); kept where those of all modes fit."""

    def make() -> Array:
        weights = basis.weights[first : first + GROUP].reshape(-1, basis.size, basis.size).astype(dtype)
        return np.array([np.conj(fft.rfft2(weight, shape)) for weight in weights])

    whole = basis.n_modes * shape[0] * (shape[1] // 2 + 1) * 2 * dtype.itemsize
    return SPECTRA.get((basis, first, shape, dtype.name), make) if whole <= SPECTRA.limit else make()


def _in_threads(function: Callable[[Any], Any], items: Iterable[Any], n_threads: int) -> list[Any]:
    """Map in ``n_threads`` threads, 0 for all cores."""
    items = list(items)
    threads = min(n_threads or _cores(), len(items))
    if threads == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
