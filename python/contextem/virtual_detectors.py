"""Virtual detectors of 4D-STEM: images of a scan, from its diffraction patterns.

Each detector is a set of pixels of the camera, its mask m; what it sees at scan position p is
s[p, d] = sum_k m[d, k] I[p, k].  All detectors are summed in one pass over the patterns.  What the kernels compute is
written in reference.py, how they do it in cpp/src/virtual_detector_kernels.cpp and cuda/src/virtual_detectors.cu.

Formula: C. Ophus, Microsc. Microanal. 25, 563 (2019), https://doi.org/10.1017/S1431927619000497.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contextem import _arrays, _kernels


def annulus(shape: tuple[int, int], centre: tuple[float, float], inner: float, outer: float) -> NDArray[np.bool_]:
    """Mask of an annular detector: the pixels whose centres lie at a distance in [inner, outer) from ``centre``.

    Rings that share a radius have no pixel in common and leave none out. A disk is an annulus with ``inner`` 0.

    Parameters
    ----------
    shape : (int, int)
        Pixels (ky, kx) of the camera.
    centre : (float, float)
        (row, column) of the optic axis in pixels, pixel centres at integers; may lie outside the camera.
    inner, outer : float
        Radii in pixels, 0 <= inner < outer; ``outer`` may be infinite.

    Returns
    -------
    ndarray of bool, shape (ky, kx)
        True where the pixel belongs to the detector.

    Raises
    ------
    ValueError
        If the shape, the centre or the radii are not such numbers.

    Examples
    --------
    >>> annulus((5, 5), (2, 2), 1, 2).astype(int)
    array([[0, 0, 0, 0, 0],
           [0, 1, 1, 1, 0],
           [0, 1, 0, 1, 0],
           [0, 1, 1, 1, 0],
           [0, 0, 0, 0, 0]])
    """
    rows, columns = _arrays.check_shape(shape)
    try:
        row, column = (_arrays.check_real("centre", coordinate) for coordinate in centre)
    except (TypeError, ValueError):
        raise ValueError(f"centre: expected (row, column), two finite numbers, got {centre!r}") from None
    if not (isinstance(inner, Real) and isinstance(outer, Real) and 0 <= inner < outer):
        raise ValueError(f"inner, outer: expected radii with 0 <= inner < outer, got {inner!r}, {outer!r}")
    inner, outer = (float(min(radius, 1e150)) for radius in (inner, outer))  # of which the squares are numbers
    distance2 = (np.arange(rows)[:, None] - row) ** 2 + (np.arange(columns) - column) ** 2
    mask: NDArray[np.bool_] = (inner**2 <= distance2) & (distance2 < outer**2)
    return mask


@dataclass(frozen=True, eq=False)
class VirtualDetectors:
    """Masks of detectors, prepared once for any number of blocks of patterns.

    Parameters
    ----------
    masks : array of bool, shape (D, ky, kx)
        At most 32 detectors; they may overlap.

    Raises
    ------
    TypeError, ValueError
        If the masks are not such an array.

    Examples
    --------
    >>> import numpy as np
    >>> bright = annulus((64, 64), (31.5, 31.5), 0, 8)
    >>> dark = annulus((64, 64), (31.5, 31.5), 12, 30)
    >>> detectors = VirtualDetectors(np.array([bright, dark]))
    >>> block = np.ones((3, 64, 64), np.uint16)
    >>> virtual_detectors(block, detectors)[0].tolist() == [bright.sum(), dark.sum()]
    True
    """

    masks: NDArray[np.bool_]
    _table: _kernels.MaskTable = field(init=False, repr=False)

    def __post_init__(self) -> None:
        masks = _arrays.check_masks(self.masks).copy()
        masks.flags.writeable = False
        object.__setattr__(self, "masks", masks)
        object.__setattr__(self, "_table", _kernels.MaskTable(masks))

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels (ky, kx) of the camera."""
        return self.masks.shape[1], self.masks.shape[2]


def virtual_detectors(
    patterns: Any, masks: ArrayLike | VirtualDetectors, *, n_threads: int = 0, backend: str | None = None
) -> Any:
    """Sum diffraction patterns over the pixels of detectors.

    Parameters
    ----------
    patterns : array, shape (S, ky, kx)
        Integers of 8, 16 or 32 bits, float32 or float64; NumPy, CuPy or torch CUDA: the array decides where the work is
        done. The pixels of a pattern have to follow each other, patterns may lie apart.
    masks : array of bool, shape (D, ky, kx), or VirtualDetectors
        At most 32 detectors; they may overlap. ``VirtualDetectors`` are prepared once for many calls.
    n_threads : int
        Threads on the CPU, 0 for all cores. The result does not depend on it.
    backend : {None, "cpp", "cuda", "reference"}
        For tests and benchmarks; None takes what fits the array.

    Returns
    -------
    array of float64, shape (S, D)
        In the patterns' library and device. Exact for integers up to 2^53; floating-point pixels are added in double,
        in an order that depends on nothing but the masks. Pixels of no detector are not read.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong shape, type or range.

    Examples
    --------
    >>> import numpy as np
    >>> patterns = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    >>> virtual_detectors(patterns, [annulus((3, 3), (1, 1), 0, 1), annulus((3, 3), (1, 1), 1, 9)])
    array([[  4.,  32.],
           [ 13., 104.]])
    """
    patterns = _arrays.adopt("patterns", patterns)
    kernels = _kernels.select(patterns, "patterns", backend)
    detectors = masks if isinstance(masks, VirtualDetectors) else VirtualDetectors(np.asarray(masks))
    _arrays.check_patterns(patterns, detectors.shape)
    return kernels.virtual_detectors(patterns, detectors._table, _arrays.check_threads(n_threads))


def sum_patterns(patterns: Any, *, total: Any = None, n_threads: int = 0, backend: str | None = None) -> Any:
    """Sum of diffraction patterns over the scan; over their number it is the mean pattern.

    Parameters
    ----------
    patterns : array, shape (S, ky, kx)
        As for :func:`virtual_detectors`.
    total : array of float64, shape (ky, kx), optional
        Sum of the blocks before, which is added to in place.
    n_threads : int
        Threads on the CPU, 0 for all cores. The result does not depend on it.
    backend : {None, "cpp", "cuda", "reference"}
        For tests and benchmarks; None takes what fits the array.

    Returns
    -------
    array of float64, shape (ky, kx)
        ``total`` if given. Exact for integers up to 2^53. On the CPU floating-point patterns are added in their order,
        so that with ``total`` the result does not depend on how a scan is cut into blocks.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong shape, type or range.

    Examples
    --------
    >>> import numpy as np
    >>> first = sum_patterns(np.full((10, 2, 2), 255, np.uint8))
    >>> sum_patterns(np.full((5, 2, 2), 1, np.uint8), total=first)
    array([[2555., 2555.],
           [2555., 2555.]])
    """
    patterns = _arrays.adopt("patterns", patterns)
    kernels = _kernels.select(patterns, "patterns", backend)
    _arrays.check_patterns(patterns)
    if total is None:
        shape = (int(patterns.shape[1]), int(patterns.shape[2]))
        on_host = _arrays.family("patterns", patterns) == "numpy"
        total = np.empty(shape) if on_host else _arrays.device_empty(shape, np.dtype(np.float64), like=patterns)
        total[...] = 0
    _arrays.check_total(total, patterns)
    kernels.sum_patterns(patterns, total, _arrays.check_threads(n_threads))
    return total
