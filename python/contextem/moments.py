"""Zernike moments of patches, and of columns straight from the image.

Moments are linear in the pixels: a[p, j] = sum_i w[j, i] I(c_p + S d_i), with d_i the patch grid and I the interpolated
image.  column_moments never stores a patch; what both kernels compute is written in reference.py, how they do it in
cpp/src/moment_kernels.cpp and cuda/src/moments.cu.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from contextem import _arrays, _kernels
from contextem.zernike import ZernikeBasis


def patch_moments(patches: Any, basis: ZernikeBasis, *, n_threads: int = 0, backend: str | None = None) -> Any:
    """Moments of patches.

    Parameters
    ----------
    patches : array, shape (N, P, P), float32 or float64
        NumPy (any strides), CuPy or torch CUDA, or what these take through DLPack; the array decides where the work is done.
    basis : ZernikeBasis
        Basis of the same patch side P.
    n_threads : int
        Threads on the CPU, 0 for all cores. The result does not depend on it.
    backend : {None, "cpp", "cuda", "reference"}
        For tests and benchmarks; None takes what fits the array.

    Returns
    -------
    array, shape (N, J)
        In the patches' library, device and dtype.

    Raises
    ------
    TypeError, ValueError
        If the patches do not fit the basis or are not floating point.

    Examples
    --------
    >>> import numpy as np
    >>> from contextem import ZernikeBasis
    >>> patch_moments(np.ones((1, 16, 16)), ZernikeBasis(2, 16)).round(12).tolist()[0][0]
    1.0
    """
    patches = _arrays.adopt("patches", patches)
    kernels = _kernels.select(patches, "patches", backend)
    _arrays.check_patches(patches, basis.size)
    return kernels.patch_moments(patches, basis.table, _arrays.check_threads(n_threads))


def column_moments(
    image: Any,
    positions: Any,
    basis: ZernikeBasis,
    *,
    scale: ArrayLike = 1.0,
    interpolation: str = "linear",
    n_threads: int = 0,
    backend: str | None = None,
) -> Any:
    """Moments of the patches around positions, without storing the patches.

    Parameters
    ----------
    image : array, shape (H, W), float32 or float64
        NumPy (any strides), CuPy or torch CUDA, or what these take through DLPack; the array decides where the work is done.
    positions : array, shape (N, 2)
        (row, column) in pixels, pixel centres at integers. For a CUDA image: float64 of the same library and device.
    basis : ZernikeBasis
        Basis; its size is the patch side.
    scale : float or (2, 2) array
        Image pixels per patch sample; a matrix acts on (row, column) offsets.
    interpolation : {"linear", "nearest"}
        How samples between pixels are taken. Samples outside the image count as 0.
    n_threads : int
        Threads on the CPU, 0 for all cores. The result does not depend on it.
    backend : {None, "cpp", "cuda", "reference"}
        For tests and benchmarks; None takes what fits the array.

    Returns
    -------
    array, shape (N, J)
        In the image's library, device and dtype; equals ``patch_moments(extract_patches(...), basis)`` to rounding.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong shape, type or range, or a position is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from contextem import ZernikeBasis
    >>> column_moments(np.ones((64, 64)), [(30.25, 31.5)], ZernikeBasis(2, 16)).round(12).tolist()[0][0]
    1.0
    """
    image = _arrays.adopt("image", image)
    kernels = _kernels.select(image, "image", backend)
    _arrays.check_image(image)
    positions = kernels.check_positions(positions, image, "image")
    return kernels.column_moments(
        image,
        positions,
        basis.table,
        _arrays.check_scale(scale),
        _arrays.check_interpolation(interpolation),
        _arrays.check_threads(n_threads),
    )
