"""Images of a monolayer as the sum of the responses of its columns, exact at every pixel.

    I(p) = (L_x L_y)^-1 sum_k F(k) exp(2 pi i k p),    F(k) = sum_g R_g(k) G_g(k),    G_g(k) = sum_n exp(-2 pi i k x_n)

Each group g of columns shares one response R_g (see `contextem.responses`), which is band-limited: a few
ten thousand k hold the whole image, fewer where a large source blurs it.  The exponentials factorise into rows and
columns: F and I are matrix products, a pixel may lie anywhere (each row of the scan has its own shift), and no pixel is
interpolated.  With C, S the cosine and the sine of 2 pi k_x x_n, c, s those of 2 pi k_y y_n, for k_x >= 0

    G(k_x, k_y) + G(-k_x, k_y) = 2 (C c^T - i C s^T),    G(k_x, k_y) - G(-k_x, k_y) = -2 (S s^T + i S c^T)

so that one real matrix product of a quarter of the k does for each group.  The parts of R even and odd in k_x are

    R_0 + 2 sum_m a_m (cos m theta | i sin m theta),   2 sum_m b_m (-sin m theta | i cos m theta),   (even m | odd m)

where a_m + i b_m is what exp(i m theta) has in R; the sums are empty for a round probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem.responses import Response

MARGIN = 6.0
"""Å around the image where columns still count; the image repeats beyond."""

NEGLIGIBLE = 1e-6
"""Fraction of the largest value of the spectrum below which higher spatial frequencies are left out."""

TABLE = 1024
"""Points of the table from which ``R(|k|)`` is interpolated."""


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
    dtype: type[np.float32 | np.float64] = np.float64,
) -> NDArray[Any]:
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
    dtype : {numpy.float64, numpy.float32}
        Of the matrix products and of the result; float32 errs by about 1e-6 of the brightest pixel.

    Returns
    -------
    ndarray of dtype, shape (H, W)
        Fraction of the beam at the probe positions (row, column) * sampling + offsets[row].

    Examples
    --------
    >>> from contextem.responses import library
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
    tables, cutoff = _tables(groups)
    # the image is real: half of the k tell all, those with ky > 0 twice; and those with kx < 0 come with -kx
    kx, ky = (np.arange(int(cutoff * length) + 1) / length for length in lengths)
    place = np.hypot(kx[:, None], ky) * ((TABLE - 1) / cutoff)
    # one more interval of zeros takes the corners beyond the cutoff
    index = np.minimum(place.astype(np.intp), TABLE)
    fraction = (place - index).astype(dtype)
    turns = _turns(kx, ky, tables.shape[1] // 2, dtype)
    even, odd = np.zeros((2, *place.shape), dtype=np.result_type(dtype, np.complex64))
    for group, table in zip(groups, tables.astype(dtype), strict=True):
        x, y = group.positions.T
        structure = _waves(kx, x, dtype).reshape(-1, len(x)) @ _waves(ky, y, dtype).reshape(-1, len(x)).T
        (cc, cs), (sc, ss) = structure.reshape(2, len(kx), 2, len(ky)).swapaxes(1, 2)
        orders = 1 if group.response.harmonics is None else len(table)
        steps = np.diff(table[:orders], append=dtype(0.0))
        transfer = np.take(table[:orders], index, axis=1) + fraction * np.take(steps, index, axis=1)
        even_structure, odd_structure = cc - 1j * cs, -ss - 1j * sc
        even += transfer[0] * even_structure
        odd += transfer[0] * odd_structure
        if orders > 1:
            parts = transfer[1:].reshape(2, -1, *place.shape) * turns
            # m = 1, 3, ... make the imaginary part
            even_part, odd_part = parts[:, 1::2].sum(axis=1) + 1j * parts[:, ::2].sum(axis=1)
            even += even_part * even_structure + odd_part * odd_structure
            odd += even_part * odd_structure + odd_part * even_structure
    twice = np.outer(np.where(kx > 0.0, 2.0, 1.0), np.where(ky > 0.0, 2.0, 1.0)) / lengths.prod()
    even, odd = even * twice.astype(dtype), odd * twice.astype(dtype)
    rows = np.arange(height) * sampling + shifts[:, 0]
    spectrum = np.block([[even.real, even.imag], [-odd.imag, odd.real]])
    lines = np.concatenate(_waves(kx, rows, dtype)).T @ spectrum
    real, imaginary = lines[:, : len(ky)], lines[:, len(ky) :]
    cosine, sine = _waves(shifts[:, 1], ky, dtype)
    shifted = np.concatenate([real * cosine - imaginary * sine, -real * sine - imaginary * cosine], axis=1)
    return np.asarray(shifted @ np.concatenate(_waves(ky, np.arange(width) * sampling, dtype)))


def _tables(groups: Sequence[Group]) -> tuple[NDArray[np.float64], float]:
    """R of each group at `TABLE` equidistant |k| and one 0 beyond, (G, 1 + 2 M, TABLE + 1); and the highest |k|.

    First the angular order 0, then the real parts a_m of the others, then the imaginary parts b_m.
    """
    highest = max(group.response.cutoff for group in groups)
    radii = np.linspace(0.0, highest, TABLE // 4)
    transfers = np.abs([group.response.transfer(radii, group.blur) for group in groups])
    last = np.flatnonzero((transfers > NEGLIGIBLE * transfers.max()).any(axis=0)).max(initial=0)
    cutoff = float(radii[min(last + 1, len(radii) - 1)])
    radii = np.linspace(0.0, cutoff, TABLE)
    angular = [group.response.angular_transfer(radii, group.blur) for group in groups]
    most = max(map(len, angular))
    tables = np.zeros((len(groups), 1 + 2 * most, TABLE + 1))
    for table, group, orders in zip(tables, groups, angular, strict=True):
        table[0, :-1] = group.response.transfer(radii, group.blur)
        table[1 : 1 + len(orders), :-1] = orders.real
        table[1 + most : 1 + most + len(orders), :-1] = orders.imag
    return tables, cutoff


def _turns(
    kx: NDArray[np.float64], ky: NDArray[np.float64], orders: int, dtype: type[np.floating[Any]]
) -> NDArray[Any]:
    """Factors of a_m and of b_m without the i of odd m, (2, M, ...)."""
    k = (kx[:, None] + 1j * ky).astype(np.result_type(dtype, np.complex64))
    k /= np.maximum(np.abs(k), np.finfo(dtype).tiny)
    turns = np.empty((2, orders, *k.shape), dtype=dtype)
    power = np.ones_like(k)
    for m in range(1, orders + 1):
        power *= k
        parts = (power.imag, power.real) if m % 2 else (power.real, -power.imag)
        turns[0, m - 1], turns[1, m - 1] = parts
    return 2.0 * turns


def _waves(k: NDArray[np.floating[Any]], x: NDArray[np.floating[Any]], dtype: type[np.floating[Any]]) -> NDArray[Any]:
    """Cosine and sine of 2 pi k x, (2, K, N); whole turns are taken off in double precision."""
    turns = np.outer(k, x)
    turns -= np.rint(turns)
    angles = (2.0 * np.pi * turns).astype(dtype)
    return np.stack([np.cos(angles), np.sin(angles)])
