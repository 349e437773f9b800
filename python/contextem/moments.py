"""Zernike moments of patches, and of columns straight from the image.

Moments are linear in the pixels: a[p, j] = sum_i w[j, i] I(c_p + S d_i), with d_i the patch grid and I the interpolated
image.  column_moments never stores a patch; what both kernels compute is written in reference.py, how they do it in
cpp/src/moment_kernels.cpp and cuda/src/moments.cu.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from contextem import _arrays, _kernels, _streaming
from contextem.zernike import ZernikeBasis


def patch_moments(
    patches: Any,
    basis: ZernikeBasis,
    *,
    n_threads: int = 0,
    device: str | None = None,
    chunk: int | None = None,
    backend: str | None = None,
) -> Any:
    """Moments of patches.

    Parameters
    ----------
    patches : array, shape (N, P, P), float32 or float64
        NumPy (any strides), CuPy or torch CUDA, or what these take through DLPack; the array decides where the work is
        done.
    basis : ZernikeBasis
        Basis of the same patch side P.
    n_threads : int
        Threads on the CPU, 0 for all cores. The result does not depend on it.
    device : str, optional
        A CUDA device of torch, such as "cuda:0", through which a NumPy array goes piece by piece, however large it is;
        the result is a NumPy array. Arrays in page-locked memory go straight, others by way of some.
    chunk : int, optional
        Bytes of such a piece, two of which are on the device at once; 256 MiB by default. The result does not depend on
        it.
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
    if device is not None or chunk is not None:
        card, nbytes = _card("patches", patches, device, chunk, backend)
        _arrays.check_patches(patches, basis.size)
        return _streaming.patch_moments(patches, basis.table, card, nbytes)
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
    device: str | None = None,
    chunk: int | None = None,
    backend: str | None = None,
) -> Any:
    """Moments of the patches around positions, without storing the patches.

    Parameters
    ----------
    image : array, shape (H, W), float32 or float64
        NumPy (any strides), CuPy or torch CUDA, or what these take through DLPack; the array decides where the work is
        done.
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
    device : str, optional
        A CUDA device of torch, such as "cuda:0", through which a NumPy array goes piece by piece, however large it is;
        the result is a NumPy array. Arrays in page-locked memory go straight, others by way of some.
    chunk : int, optional
        Bytes of such a piece, two of which are on the device at once; 256 MiB by default. The result does not depend on
        it. An image that is larger goes up in bands of rows.
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
    if device is not None or chunk is not None:
        card, nbytes = _card("image", image, device, chunk, backend)
        _arrays.check_image(image)
        return _streaming.column_moments(
            image,
            _arrays.check_positions(positions),
            basis.table,
            _arrays.check_scale(scale),
            _arrays.check_interpolation(interpolation),
            card,
            nbytes,
        )
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


def _card(
    name: str, array: Any, device: str | None, chunk: int | None, backend: str | None
) -> tuple[_streaming.Card, int]:
    """Return the card that a NumPy array goes through, and the bytes of a piece."""
    if device is None:
        raise ValueError(f"chunk: expected a device beside it, such as 'cuda:0', got {chunk!r} alone; leave it out")
    if _arrays.family(name, _arrays.adopt(name, array)) != "numpy":
        raise TypeError(
            f"{name}: expected a NumPy array with device={device!r}, got {type(array).__name__}, which decides "
            f"by itself where the work is done; leave out device"
        )
    if backend not in (None, "cuda"):
        raise ValueError(f"backend: expected None or 'cuda' with device={device!r}, got {backend!r}")
    nbytes = _streaming.CHUNK if chunk is None else _arrays.check_integer("chunk", chunk, 1, 2**62)
    return _streaming.TorchCard(_arrays.check_card(device)), nbytes
