"""Zernike basis: modes, weights, rotation, invariants and reconstruction.

A patch is described by its moments a[j] = sum_i w[j, i] patch[i]; every convention of Zernike moments is one table w.

Formulas: F. Zernike, Physica 1, 689 (1934), https://doi.org/10.1016/S0031-8914(34)80259-5;
M. R. Teague, J. Opt. Soc. Am. 70, 920 (1980), https://doi.org/10.1364/JOSA.70.000920.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem import _arrays, _kernels

MODES = ("integrated", "lstsq", "projection")
MAX_CONDITION = 1e4


@dataclass(frozen=True)
class ZernikeBasis:
    """Zernike polynomials up to degree ``n_max`` on a square patch, as a table of weights.

    The unit disk is inscribed in the patch; x runs along columns and y along rows, theta = atan2(y, x), and

        Z_nm = sqrt(2 (n + 1) / (1 + [m = 0])) R_n^|m|(rho) (cos m theta, m >= 0; sin |m| theta, m < 0).

    Parameters
    ----------
    n_max : int
        Highest radial degree, 0 to 60: J = (n_max + 1) (n_max + 2) / 2 modes in OSA/ANSI order,
        j = (n (n + 2) + m) / 2.
    size : int
        Patch side P in samples, at least 3.
    mode : {"integrated", "lstsq", "projection"}
        "integrated": the weight of a pixel is the exact integral of Z over its share of the disk, over pi; a constant
        patch has a_00 = 1 and nothing else.
        "lstsq": least-squares coefficients of the disk's pixels; of smooth patches the most accurate under rotation.
        "projection": Z at the pixel centres of ``linspace(-1, 1, P)`` over pi P^2 / 4, as motif-learn has it.

    Attributes
    ----------
    n, m : ndarray of int64, shape (J,)
        Degree and order of each mode; m >= 0 is the cosine, m < 0 the sine.
    weights : ndarray of float64, shape (J, P * P)
        Moments are ``patches.reshape(-1, P * P) @ weights.T``. Read-only.

    Raises
    ------
    ValueError
        If an argument is out of range, or if "lstsq" is asked of a patch too small for ``n_max``.

    Examples
    --------
    >>> import numpy as np
    >>> basis = ZernikeBasis(n_max=2, size=16)
    >>> basis.n.tolist(), basis.m.tolist()
    ([0, 1, 1, 2, 2, 2], [0, -1, 1, -2, 0, 2])
    >>> abs(np.round(basis.weights @ np.ones(16 * 16), 12)).tolist()
    [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """

    n_max: int
    size: int
    mode: str = "integrated"
    n: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    m: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    weights: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    table: _kernels.WeightTable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        n_max = _arrays.check_integer("n_max", self.n_max, 0, 60)
        size = _arrays.check_size(self.size, smallest=3)
        if self.mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {self.mode!r}")
        n, m = _kernels.zernike_indices(n_max)
        weights = _kernels.zernike_weights(n_max, size, "projection" if self.mode == "projection" else "integrated")
        if self.mode == "lstsq":
            weights, condition = _kernels.least_squares_weights(weights)
            if condition > MAX_CONDITION:
                raise ValueError(
                    f"n_max: {n_max} is too high for least squares on {size} pixels (condition {condition:.0e}, limit "
                    f"{MAX_CONDITION:.0e}); lower n_max, enlarge size or take mode='integrated'"
                )
        for name, array in (("n", n), ("m", m), ("weights", weights)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "table", _kernels.WeightTable(weights, size))

    def __reduce__(self) -> tuple[type[ZernikeBasis], tuple[int, int, str]]:
        return ZernikeBasis, (self.n_max, self.size, self.mode)

    @property
    def n_modes(self) -> int:
        """Number of modes J."""
        return len(self.n)

    @cached_property
    def invariant_labels(self) -> tuple[tuple[int, int], ...]:
        """``(n, |m|)`` of every invariant of :func:`rotation_invariants`, sorted by n, then ``|m|``."""
        return tuple((n, m) for n in range(self.n_max + 1) for m in range(n % 2, n + 1, 2))

    @cached_property
    def invariant_modes(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Mode numbers of ``(n, +|m|)`` and of ``(n, -|m|)`` for every invariant, equal where m = 0; both (J',)."""
        n, m = np.array(self.invariant_labels).T
        return ((n * (n + 2) + m) // 2).astype(np.int32), ((n * (n + 2) - m) // 2).astype(np.int32)

    @cached_property
    def _partner(self) -> NDArray[np.int32]:
        """Mode number of (n, -m) for every mode."""
        return ((self.n * (self.n + 2) - self.m) // 2).astype(np.int32)

    @cached_property
    def _polynomials(self) -> NDArray[np.float64]:
        """Value of each mode at each pixel (its mean over the pixel's share of the disk), (J, P * P)."""
        if self.mode == "projection":
            return self.weights * (np.pi * self.size**2 / 4)
        integrated = _kernels.zernike_weights(self.n_max, self.size, "integrated")
        share = integrated[0]
        values = np.zeros_like(integrated)
        np.divide(integrated, share, out=values, where=share > 1e-14)
        return values

    @cached_property
    def _polynomial_table(self) -> _kernels.WeightTable:
        """The polynomials in the place of the weights: their adjoint is the reconstruction."""
        return _kernels.WeightTable(self._polynomials, self.size)


def rotation_invariants(moments: Any, basis: ZernikeBasis, *, n_threads: int = 0, backend: str | None = None) -> Any:
    """Rotation-invariant coefficients: signed a_n0 where m = 0, the modulus of (a_n,+m, a_n,-m) otherwise.

    Parameters
    ----------
    moments : array, shape (..., J)
        Moments in the order of ``basis``; NumPy, CuPy or torch CUDA.
    basis : ZernikeBasis
        The basis they belong to.
    n_threads : int
        Threads on the CPU, 0 for all cores. The result does not depend on it.
    backend : {None, "cpp", "cuda", "reference"}
        For tests and benchmarks; None takes what fits the array.

    Returns
    -------
    array, shape (..., J')
        In the order of ``basis.invariant_labels``; 36 for n_max 10. Same library, device and dtype as ``moments``.

    Raises
    ------
    TypeError, ValueError
        If moments are not floating point or do not have J columns.

    Examples
    --------
    >>> import numpy as np
    >>> basis = ZernikeBasis(n_max=1, size=8)
    >>> rotation_invariants(np.array([[-2.0, 3.0, 4.0]]), basis).tolist()
    [[-2.0, 5.0]]
    """
    moments = _arrays.adopt("moments", moments)
    kernels = _kernels.select(moments, "moments", backend)
    _arrays.check_moments(moments, basis.n_modes)
    return kernels.rotation_invariants(moments, *basis.invariant_modes, _arrays.check_threads(n_threads))


def rotate(
    moments: NDArray[Any], basis: ZernikeBasis, angle: float, *, n_threads: int = 0, backend: str | None = None
) -> NDArray[Any]:
    """Moments of the same patches sampled along axes turned by ``angle``.

    The sample at polar angle theta is taken from theta + angle (theta = atan2(row, column)), so that
    c = a_n,+m + i a_n,-m is multiplied by exp(-i m angle).

    Parameters
    ----------
    moments : ndarray, shape (..., J)
        Moments in the order of ``basis``.
    basis : ZernikeBasis
        The basis they belong to.
    angle : float
        Angle in radians.
    n_threads : int
        Threads on the CPU, 0 for all cores. The result does not depend on it.
    backend : {None, "cpp", "reference"}
        For tests and benchmarks; None takes what fits the array.

    Returns
    -------
    ndarray, shape (..., J)
        Moments in the dtype of ``moments``.

    Raises
    ------
    TypeError, ValueError
        If moments are not a floating-point NumPy array with J columns or the angle is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> basis = ZernikeBasis(n_max=1, size=8)
    >>> np.round(rotate(np.array([[1.0, 0.0, 2.0]]), basis, np.pi / 2), 12).tolist()
    [[1.0, -2.0, 0.0]]
    """
    kernels = _kernels.select_host(moments, "moments", backend)
    _arrays.check_moments(moments, basis.n_modes)
    turn = np.abs(basis.m) * _arrays.check_real("angle", angle)
    along, across = np.cos(turn), np.sign(basis.m) * np.sin(turn)
    rotated: NDArray[Any] = kernels.rotate(moments, basis._partner, along, across, _arrays.check_threads(n_threads))
    return rotated


def reconstruct(
    moments: NDArray[Any], basis: ZernikeBasis, *, n_threads: int = 0, backend: str | None = None
) -> NDArray[Any]:
    """Evaluate sum_j a_j Z_j on the patch grid; zero outside the disk.

    Parameters
    ----------
    moments : ndarray, shape (N, J)
        Moments in the order of ``basis``.
    basis : ZernikeBasis
        The basis they belong to.
    n_threads : int
        Threads on the CPU, 0 for all cores. The result does not depend on it.
    backend : {None, "cpp", "reference"}
        For tests and benchmarks; None takes what fits the array.

    Returns
    -------
    ndarray, shape (N, P, P)
        Patches in the dtype of ``moments``. With mode "lstsq" their moments are ``moments`` again.

    Raises
    ------
    TypeError, ValueError
        If moments are not a floating-point NumPy array of shape (N, J).

    Examples
    --------
    >>> import numpy as np
    >>> basis = ZernikeBasis(n_max=4, size=16, mode="lstsq")
    >>> moments = np.ones((1, 15))
    >>> bool(np.allclose(reconstruct(moments, basis).reshape(1, -1) @ basis.weights.T, moments))
    True
    """
    kernels = _kernels.select_host(moments, "moments", backend)
    _arrays.check_moments(moments, basis.n_modes)
    if moments.ndim != 2:
        raise ValueError(f"moments: expected shape (N, {basis.n_modes}), got {moments.shape}")
    patches: NDArray[Any] = kernels.patch_moments_adjoint(
        moments, basis._polynomial_table, _arrays.check_threads(n_threads)
    )
    return patches
