"""Images of a monolayer as the sum of the responses of its columns, exact at every pixel.

    I(p) = (L_x L_y)^-1 sum_k F(k) exp(2 pi i k p),    F(k) = sum_g R_g(|k|) sum_n exp(-2 pi i k x_n)

Each group g of columns shares one response R_g (see `contextem.simulate.responses`), which is band-limited: a few
ten thousand k hold the whole image.  The exponentials factorise into rows and columns: F and I are matrix products, a
pixel may lie anywhere (each row of the scan has its own shift), and nothing is interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from contextem.simulate.responses import Response

MARGIN = 6.0
"""Å around the image where columns still count; the image repeats beyond."""


@dataclass(frozen=True, eq=False)
class Group:
    """Columns with a common response.

    Attributes
    ----------
    response : Response
        Of static atoms.
    blur : float
        Standard deviation of the Gaussian of source size and thermal vibration, Å.
    positions : ndarray of float64, shape (N, 2)
        Row and column direction, Å.
    """

    response: Response
    blur: float
    positions: NDArray[np.float64] = field(repr=False)


def superpose(
    groups: Sequence[Group],
    shape: tuple[int, int],
    sampling: float,
    offsets: NDArray[np.float64] | None = None,
    *,
    period: tuple[float, float] | None = None,
) -> NDArray[np.float64]:
    """Add up the responses of all columns.

    Parameters
    ----------
    groups : sequence of Group
        Columns; those further than `MARGIN` outside the image are mirrored in by the periodicity, so leave them out.
    shape : (int, int)
        H, W.
    sampling : float
        Å/px.
    offsets : ndarray, shape (H, 2), optional
        Where each row of the scan lies relative to its nominal place, Å: drift and jitter.
    period : (float, float), optional
        Size of a periodic cell, Å.  By default the image plus `MARGIN` on each side.

    Returns
    -------
    ndarray of float64, shape (H, W)
        Fraction of the beam at the probe positions (row, column) * sampling + offsets[row].

    Examples
    --------
    >>> from contextem.simulate.responses import library
    >>> tungsten = library().response("W", 80e3, "HAADF")
    >>> image = superpose([Group(tungsten, 0.3, np.array([[3.0, 4.0]]))], (40, 50), 0.2)
    >>> np.unravel_index(image.argmax(), image.shape)
    (np.int64(15), np.int64(20))
    """
    height, width = shape
    shifts = np.zeros((height, 2)) if offsets is None else offsets
    if period is None:
        reach = 2.0 * MARGIN + np.ptp(shifts, axis=0)
        lengths = np.array(shape) * sampling + reach
    else:
        lengths = np.asarray(period, dtype=np.float64)
    cutoff = max(group.response.cutoff for group in groups)
    last = [int(cutoff * length) for length in lengths]
    # the image is real: half of the k tell all, those with ky > 0 twice
    kx = np.arange(-last[0], last[0] + 1) / lengths[0]
    ky = np.arange(last[1] + 1) / lengths[1]
    k = np.hypot(kx[:, None], ky)
    spectrum = np.zeros(k.shape, dtype=np.complex128)
    radii = np.linspace(0.0, cutoff, 1024)
    for group in groups:
        x, y = group.positions.T
        structure = np.exp(-2j * np.pi * np.outer(kx, x)) @ np.exp(-2j * np.pi * np.outer(y, ky))
        spectrum += np.interp(k, radii, group.response.transfer(radii, group.blur)) * structure
    spectrum *= np.where(ky > 0.0, 2.0, 1.0) / lengths.prod()
    rows = np.arange(height) * sampling + shifts[:, 0]
    lines = np.exp(2j * np.pi * np.outer(rows, kx)) @ spectrum
    lines *= np.exp(2j * np.pi * np.outer(shifts[:, 1], ky))
    angles = 2.0 * np.pi * np.outer(ky, np.arange(width) * sampling)
    return np.asarray(lines.real @ np.cos(angles) - lines.imag @ np.sin(angles))


def smooth_noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return periodic Gaussian noise of mean 0 and variance 1, low-passed by a Gaussian.

    Parameters
    ----------
    shape : tuple of int
        Of the result.
    sigma : float
        Standard deviation of the Gaussian, px.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray of float64, shape `shape`

    Examples
    --------
    >>> noise = smooth_noise((64, 64), 3.0, np.random.default_rng(0))
    >>> round(float(noise.std()), 6), bool(abs(np.diff(noise, axis=0)).max() < 1.5)
    (1.0, True)
    """
    spectrum = fft.rfftn(rng.standard_normal(shape))
    for axis, n in enumerate(shape):
        k = fft.rfftfreq(n) if axis == len(shape) - 1 else fft.fftfreq(n)
        gaussian = np.exp(-2.0 * (np.pi * sigma * k) ** 2)
        spectrum *= gaussian.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    spectrum.flat[0] = 0.0
    noise = fft.irfftn(spectrum, shape)
    return np.asarray(noise / noise.std())
