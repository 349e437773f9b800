"""Patches around columns: for looking, labelling and training.  The moments do not need them, see moments.py.

Sample (k, l) of the patch at position (r, c) with scale S (image pixels per patch sample) lies at
(r, c) + S (k - (P - 1) / 2, l - (P - 1) / 2); samples outside the image count as 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from contextem import _arrays, _kernels


def extract_patches(
    image: Any,
    positions: Any,
    size: int,
    *,
    scale: ArrayLike = 1.0,
    interpolation: str = "linear",
    n_threads: int = 0,
    backend: str | None = None,
) -> Any:
    """Square patches of an image around positions.

    Parameters
    ----------
    image : array, shape (H, W), float32 or float64
        NumPy (any strides), CuPy or torch CUDA, or what these take through DLPack; the array decides where the work is
        done.
    positions : array, shape (N, 2)
        (row, column) in pixels, pixel centres at integers. For a CUDA image: float64 of the same library and device.
    size : int
        Patch side P in samples.
    scale : float or (2, 2) array
        Image pixels per patch sample; a matrix acts on (row, column) offsets.
    interpolation : {"linear", "nearest"}
        How samples between pixels are taken.
    n_threads : int
        Threads on the CPU, 0 for all cores. The result does not depend on it.
    backend : {None, "cpp", "cuda", "reference"}
        For tests and benchmarks; None takes what fits the array.

    Returns
    -------
    array, shape (N, P, P)
        In the image's library, device and dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong shape, type or range, or a position is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.arange(25.0).reshape(5, 5)
    >>> extract_patches(image, [(2, 2)], 3)[0].tolist()
    [[6.0, 7.0, 8.0], [11.0, 12.0, 13.0], [16.0, 17.0, 18.0]]
    """
    image = _arrays.adopt("image", image)
    kernels = _kernels.select(image, "image", backend)
    _arrays.check_image(image)
    positions = kernels.check_positions(positions, image, "image")
    return kernels.extract_patches(
        image,
        positions,
        _arrays.check_size(size),
        _arrays.check_scale(scale),
        _arrays.check_interpolation(interpolation),
        _arrays.check_threads(n_threads),
    )


def patch_complete(
    shape: tuple[int, int], positions: ArrayLike, size: int, *, scale: ArrayLike = 1.0
) -> NDArray[np.bool_]:
    """Tell which patches lie wholly inside an image.

    Parameters
    ----------
    shape : (int, int)
        Image shape (H, W).
    positions : array, shape (N, 2)
        (row, column) in pixels.
    size : int
        Patch side P in samples.
    scale : float or (2, 2) array
        Image pixels per patch sample.

    Returns
    -------
    ndarray of bool, shape (N,)
        True where no sample of the P x P patch is outside.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong shape, type or range.

    Examples
    --------
    >>> patch_complete((32, 32), [(16, 16), (2, 16)], 9).tolist()
    [True, False]
    """
    if len(shape) != 2:
        raise ValueError(f"shape: expected (H, W), got {tuple(shape)}")
    centres = _arrays.check_positions(positions)
    matrix = _arrays.check_scale(scale)
    half = (_arrays.check_size(size) - 1) / 2
    # a sample is linear in its index, so the four corners decide; summed in the order of the kernels
    corners = np.array([(-half, -half), (-half, half), (half, -half), (half, half)])
    offsets = matrix[:, 0] * corners[:, :1] + matrix[:, 1] * corners[:, 1:]
    samples = centres[:, None, :] + offsets
    complete: NDArray[np.bool_] = ((samples >= 0) & (samples <= np.subtract(shape, 1))).all(axis=(1, 2))
    return complete


def antialias(image: NDArray[Any], scale: float) -> NDArray[Any]:
    """Low-pass an image that is finer than the patch grid, so that sampling it does not alias.

    Parameters
    ----------
    image : ndarray, shape (H, W), float32 or float64
        The image.
    scale : float
        Image pixels per patch sample. Above 1 the image is blurred by a Gaussian of sigma = 0.5 sqrt(scale^2 - 1)
        pixels, otherwise it is returned as it is.

    Returns
    -------
    ndarray, shape (H, W)
        In the image's dtype.

    Raises
    ------
    TypeError, ValueError
        If the image is not a (H, W) float array or the scale is not a positive number.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.ones((8, 8))
    >>> antialias(image, 1.0) is image, bool(np.allclose(antialias(image, 2.0), 1.0))
    (True, True)
    """
    _arrays.check_image(image)
    if _arrays.family("image", image) != "numpy":
        raise TypeError(f"image: expected a NumPy array, got {type(image).__name__}; copy it to the host first")
    if not 0 < _arrays.check_real("scale", scale) <= 4096:
        raise ValueError(f"scale: expected a positive number, at most 4096, got {scale!r}")
    if scale <= 1:
        return image
    smooth: NDArray[Any] = ndimage.gaussian_filter(image, _blur(scale), mode="nearest", radius=blur_radius(scale))
    return smooth


def blur_radius(scale: float) -> int:
    """Return by how many pixels on either side `antialias` mixes: four standard deviations.

    Examples
    --------
    >>> blur_radius(1.0), blur_radius(2.0)
    (0, 3)
    """
    return int(4.0 * _blur(scale) + 0.5)


def _blur(scale: float) -> float:
    return 0.5 * float(np.sqrt(max(scale * scale - 1.0, 0.0)))
