"""The adjoint of the moments: from a gradient with respect to moments back to pixels and positions.

Moments are linear in the pixels, a = A I, so that every gradient with respect to an image is A^T times one with respect
to its moments: <column_moments(I), g> = <I, column_moments_adjoint(g)>.  What the kernels compute is written in
reference.py, how they do it in cpp/src/adjoint_kernels.cpp and cuda/src/adjoint.cu; autograd.py makes both
differentiable in torch.  On a CUDA device pixels gather what they get back in a fixed order, with no atomic additions:
results do not change from run to run.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from contextem import _arrays, _kernels
from contextem.zernike import ZernikeBasis


def patch_moments_adjoint(gradient: Any, basis: ZernikeBasis, *, n_threads: int = 0, backend: str | None = None) -> Any:
    """Adjoint of :func:`contextem.patch_moments`: q[p, i] = sum_j g[p, j] w[j, i].

    Parameters
    ----------
    gradient : array, shape (N, J), float32 or float64
        Gradient with respect to the moments, any strides; NumPy, CuPy or torch CUDA: the array decides where the work
        is done.
    basis : ZernikeBasis
        Basis of the moments.
    n_threads : int
        Threads on the CPU, 0 for all cores. The result does not depend on it.
    backend : {None, "cpp", "cuda", "reference"}
        For tests and benchmarks.

    Returns
    -------
    array, shape (N, P, P)
        Gradient with respect to the patches, in library, device and dtype of ``gradient``.

    Raises
    ------
    TypeError, ValueError
        If the gradient does not fit the basis, or is not floating point.

    Examples
    --------
    >>> import numpy as np
    >>> import contextem as ctm
    >>> basis = ctm.ZernikeBasis(4, 16)
    >>> rng = np.random.default_rng(0)
    >>> patches, gradient = rng.normal(size=(3, 16, 16)), rng.normal(size=(3, 15))
    >>> bool(np.isclose(np.vdot(ctm.patch_moments(patches, basis), gradient),
    ...                 np.vdot(patches, patch_moments_adjoint(gradient, basis))))
    True
    """
    gradient = _arrays.adopt("gradient", gradient)
    kernels = _kernels.select(gradient, "gradient", backend)
    _arrays.check_gradient(gradient, basis.n_modes)
    return kernels.patch_moments_adjoint(gradient, basis.table, _arrays.check_threads(n_threads))


def column_moments_adjoint(
    gradient: Any,
    positions: Any,
    basis: ZernikeBasis,
    shape: tuple[int, int],
    *,
    scale: ArrayLike = 1.0,
    interpolation: str = "linear",
    n_threads: int = 0,
    backend: str | None = None,
) -> Any:
    """Adjoint of :func:`contextem.column_moments` in the image.

    Every sample of every patch is put back onto the pixels it was read from, by its interpolation weights; samples
    outside the image contribute nothing. Patches are never stored.

    Parameters
    ----------
    gradient : array, shape (N, J), float32 or float64
        Gradient with respect to the moments, any strides; NumPy, CuPy or torch CUDA: the array decides where the work
        is done.
    positions : array, shape (N, 2)
        (row, column) in pixels, as given to ``column_moments``. Beside a gradient in CUDA memory: float64 of the same
        library and device, of which those that are not finite contribute nothing.
    basis : ZernikeBasis
        Basis of the moments.
    shape : (int, int)
        Image shape (H, W).
    scale : float or (2, 2) array
        Image pixels per patch sample, as given to ``column_moments``.
    interpolation : {"linear", "nearest"}
        As given to ``column_moments``.
    n_threads : int
        Threads on the CPU, 0 for all cores. The result does not depend on it.
    backend : {None, "cpp", "cuda", "reference"}
        For tests and benchmarks.

    Returns
    -------
    array, shape (H, W)
        Gradient with respect to the image, in library, device and dtype of ``gradient``; the same bits every time.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong shape, type, range or device.

    Examples
    --------
    >>> import numpy as np
    >>> import contextem as ctm
    >>> basis, positions = ctm.ZernikeBasis(4, 16), [(20.25, 31.5), (3.0, 40.0)]
    >>> rng = np.random.default_rng(0)
    >>> image, gradient = rng.normal(size=(48, 64)), rng.normal(size=(2, 15))
    >>> adjoint = column_moments_adjoint(gradient, positions, basis, image.shape)
    >>> bool(np.isclose(np.vdot(ctm.column_moments(image, positions, basis), gradient), np.vdot(image, adjoint)))
    True
    """
    gradient = _arrays.adopt("gradient", gradient)
    kernels = _kernels.select(gradient, "gradient", backend)
    centres = kernels.check_positions(positions, gradient, "gradient")
    _arrays.check_gradient(gradient, basis.n_modes, len(centres))
    return kernels.column_moments_adjoint(
        gradient,
        centres,
        basis.table,
        _arrays.check_scale(scale),
        _arrays.check_interpolation(interpolation),
        _arrays.check_shape(shape),
        _arrays.check_threads(n_threads),
    )


def column_moments_position_gradient(
    gradient: Any,
    image: Any,
    positions: Any,
    basis: ZernikeBasis,
    *,
    scale: ArrayLike = 1.0,
    n_threads: int = 0,
    backend: str | None = None,
) -> Any:
    """Gradient with respect to the positions of :func:`contextem.column_moments` with linear interpolation.

    The interpolated image has a slope everywhere but on the lines through pixel centres. There, as at integer
    positions with odd P, it is the one towards larger coordinates; on the last row and column, and for samples
    outside the image, it counts as 0.

    Parameters
    ----------
    gradient : array, shape (N, J), float32 or float64
        Gradient with respect to the moments, any strides; NumPy, CuPy or torch CUDA: the array decides where the work
        is done.
    image : array, shape (H, W)
        The image, in library, device and dtype of ``gradient``, any strides.
    positions : array, shape (N, 2)
        (row, column) in pixels.
    basis : ZernikeBasis
        Basis of the moments.
    scale : float or (2, 2) array
        Image pixels per patch sample.
    n_threads : int
        Threads on the CPU, 0 for all cores. The result does not depend on it.
    backend : {None, "cpp", "cuda", "reference"}
        For tests and benchmarks.

    Returns
    -------
    array of float64, shape (N, 2)
        sum_j g[p, j] d a[p, j] / d (row, column).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong shape, type, range or device.

    Examples
    --------
    On a ramp of slope 2 along the rows, a_00 rises by 2 per pixel:

    >>> import numpy as np
    >>> import contextem as ctm
    >>> ramp = 2.0 * np.arange(40.0)[:, None] * np.ones(40)
    >>> slopes = column_moments_position_gradient(np.ones((1, 1)), ramp, [(20.3, 19.6)], ctm.ZernikeBasis(0, 16))
    >>> slopes.round(12).tolist()
    [[2.0, 0.0]]
    """
    gradient = _arrays.adopt("gradient", gradient)
    kernels = _kernels.select(gradient, "gradient", backend)
    centres = kernels.check_positions(positions, gradient, "gradient")
    dtype = _arrays.check_gradient(gradient, basis.n_modes, len(centres))
    image = _arrays.adopt("image", image)
    _arrays.check_same_device("image", image, gradient, "gradient")
    if _arrays.check_image(image) != dtype:
        raise TypeError(f"image: expected {dtype} like the gradient, got {image.dtype}; convert one of them")
    return kernels.column_moments_position_gradient(
        gradient, image, centres, basis.table, _arrays.check_scale(scale), _arrays.check_threads(n_threads)
    )
