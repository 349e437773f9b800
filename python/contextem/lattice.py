"""Local lattices of a micrograph, from the power spectra of its tiles, and averages along them.

Columns of a 1H monolayer seen along the layer normal form a honeycomb. Together with the centres of its hexagons they
form a triangular lattice of spacing b = a / sqrt(3), called the site lattice: p(i, j) = p0 + i b1 + j b2 with b1 and b2
60 degrees apart. First-order reflections lie at 2 / (sqrt(3) a), second-order ones, turned by 30 degrees, at 2 / a.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from contextem import _kernels
from contextem._threads import thread_count
from contextem.tiles import TiledImage, tiled

Floats = NDArray[np.float64]
Image = NDArray[Any]

_MARGIN = 0.04  # of the search for the scale beyond its tolerance


@dataclass(frozen=True)
class Frame:
    """A local site lattice found in the power spectrum of a tile.

    Parameters
    ----------
    centre
        (2,) centre of the tile (row, column), px.
    basis
        (2, 2) rows b1 and b2, px.
    quality
        Log power over the background of the weakest reflection, mean of first and second order; noise reaches 1.1.
    """

    centre: Floats
    basis: Floats
    quality: float


def lattice_constant(basis: Floats) -> float:
    """Lattice constant a = sqrt(3) b of a site lattice, px: that of the regular one with as large a cell."""
    return float(np.sqrt(2 * np.sqrt(3) * abs(np.linalg.det(basis))))


def find_frames(image: Image | TiledImage, expected: float, tolerance: float) -> list[Frame]:
    """Local site lattices from the power spectra of overlapping tiles, best first.

    Parameters
    ----------
    image
        (H, W) image.
    expected
        Lattice constant expected, px.
    tolerance
        Largest relative deviation of a from the expected one.

    Returns
    -------
    list of Frame
        May be empty: what turns out to lie outside of the tolerance is left out.
    """
    side = np.minimum(image.shape, round(14 * expected))
    starts = [
        np.unique(np.linspace(0, n - s, int(np.ceil(2 * n / s)) - 1).astype(np.int64))
        for n, s in zip(image.shape, side, strict=True)
    ]
    ideal = 2 / (np.sqrt(3) * expected)
    reach = np.log1p(tolerance) + _MARGIN
    radius = ideal * np.exp(np.linspace(-reach, reach, int(reach * 200) | 1))
    angle = np.deg2rad(np.arange(0, 60, 1.0))
    corners = np.array(list(itertools.product(*starts)))
    limit = float(np.sqrt(3) * radius[-1])
    source = tiled(image)
    parts = _parts(corners[:, 0], int(side[0]), source.tile)

    @lru_cache(maxsize=1)  # those of a large image, in several parts, are computed twice and not kept
    def spectra(number: int) -> tuple[_Spectra, NDArray[np.bool_]]:
        own = corners[parts[number]]
        rows = source.rows(int(own[0, 0]), int(own[-1, 0] + side[0]))
        return _Spectra.of_tiles(rows, own - [own[0, 0], 0], side, limit)

    tops, turns = np.empty((len(corners), len(radius))), np.empty((len(corners), len(radius)), np.int64)
    for number, part in enumerate(parts):
        spectrum, seen = spectra(number)
        scores = spectrum.scores(radius, angle)
        turns[part] = scores.argmax(axis=2)
        tops[part] = np.where(seen[:, None], scores.max(axis=2), -np.inf)  # others are masked or saturated
    varies = tops.max(axis=1) > -np.inf
    if not varies.any():
        return []
    strongest = np.argsort(tops.max(axis=1), kind="stable")[len(tops) - (np.count_nonzero(varies) + 1) // 2 :]
    scale = int(np.argmax(tops[strongest].sum(axis=0)))
    if scale in (0, len(radius) - 1):  # the flank of something beyond
        return []
    tops[:, abs(radius / radius[scale] - 1) >= 0.04] = -np.inf
    best = np.argmax(tops, axis=1)
    quality, turn = (np.take_along_axis(table, best[:, None], 1)[:, 0] for table in (tops, turns))
    bases = np.empty((len(corners), 2, 2))
    for number, part in reversed(list(enumerate(parts))):
        bases[part] = spectra(number)[0].bases(radius[best[part]], angle[turn[part]])
    frames = [
        Frame(corners[tile] + (side - 1) / 2, bases[tile], float(quality[tile]))
        for tile in np.flatnonzero(varies)
        if abs(np.log(lattice_constant(bases[tile]) / expected)) <= reach
    ]
    return sorted(frames, key=lambda frame: -frame.quality)


def _parts(tops: NDArray[np.int64], height: int, most: int) -> list[slice]:
    """Split tiles of a height, sorted by their first rows (n,), where they would reach over more than so many rows."""
    starts = [0]
    for number in np.flatnonzero(np.diff(tops)) + 1:
        if tops[number] + height - tops[starts[-1]] > most:
            starts.append(int(number))
    return [slice(*ends) for ends in itertools.pairwise([*starts, len(tops)])]


@dataclass(frozen=True, eq=False)
class _Spectra:
    """Power spectra (n, 2 c, 2 c) of windowed tiles, blurred by a resolution element, with `pad` bins per cycle/px."""

    power: NDArray[np.float32]
    pad: int

    @classmethod
    def of_tiles(
        cls, image: Image, corners: NDArray[np.int64], side: NDArray[np.int64], limit: float
    ) -> tuple[_Spectra, NDArray[np.bool_]]:
        """Spectra of tiles at corners (n, 2) up to the frequency `limit`, cycles/px, and whether each tile varies."""
        pad = fft.next_fast_len(2 * int(side.max()))
        centre = min(int(np.ceil(limit * pad)) + 4, pad // 2)
        power, varies = _kernels.tile_spectra(image, corners, side, pad, centre, 0.8 * pad / side.max())
        return cls(power, pad), varies

    def scores(self, radius: Floats, angle: Floats) -> Floats:
        """Log power over the background of the weakest of three spots, mean of both orders: (n, R, A).

        The weakest, because a lattice has all three while scan lines and stripes have one.
        """
        return _kernels.spoke_scores(self.power, self.pad, radius, angle)

    def bases(self, radius: Floats, angle: Floats) -> Floats:
        """Site-lattice bases (n, 2, 2) from three first-order spots, each looked for within 12 % of the ideal one."""
        spots = _kernels.hexagon_spots(self.power, self.pad, radius, angle)
        spots -= spots.mean(axis=1, keepdims=True)  # the three add up to zero
        vectors = np.linalg.inv(spots[:, :2] / self.pad)  # columns a1, a2
        a1, a2 = vectors[:, :, 0], vectors[:, :, 1]
        return np.stack([a1 + a2, 2 * a2 - a1], axis=1) / 3


def average_cells(response: Image, basis: Floats, rows: float = 0.7, columns: float = 1.5) -> Image:
    """Average an image over its lattice translations in a Gaussian neighbourhood.

    Where noise hides single columns, their neighbours in equivalent sites show them. The neighbourhood is narrow across
    the scan rows, because drift displaces rows against each other, and wide along them.

    Parameters
    ----------
    response
        (H, W) image, band-limited: the translations are exact in Fourier space.
    basis
        (2, 2) site lattice, rows b1 and b2, px.
    rows, columns
        Standard deviation of the neighbourhood along either axis, lattice constants.

    Returns
    -------
    (H, W) array
    """
    cell = np.array([basis[0] + basis[1], 2 * basis[1] - basis[0]])
    step = np.arange(-6, 7)
    shifts = np.stack(np.meshgrid(step, step), axis=-1).reshape(-1, 2) @ cell
    weights = np.exp(-0.5 * ((shifts / lattice_constant(basis) / (rows, columns)) ** 2).sum(axis=1))
    shifts, weights = shifts[weights > 0.05], weights[weights > 0.05]
    shape = [
        fft.next_fast_len(n + int(np.ceil(most)), real=True)
        for n, most in zip(response.shape, abs(shifts).max(axis=0), strict=True)
    ]
    # sum of w cos(2 pi f . s), for the shifts come in pairs +-s
    turns = [
        2 * np.pi * np.outer(f, s)
        for f, s in zip((fft.fftfreq(shape[0]), fft.rfftfreq(shape[1])), shifts.T, strict=True)
    ]
    rows_part = np.hstack([weights * np.cos(turns[0]), -weights * np.sin(turns[0])]).astype(response.dtype)
    transfer = rows_part @ np.hstack([np.cos(turns[1]), np.sin(turns[1])]).astype(response.dtype).T
    there = [np.arange(n)[:, None] - s for n, s in zip(response.shape, shifts.T, strict=True)]
    seen = [((t >= 0) & (t <= n - 1)).astype(response.dtype) for t, n in zip(there, response.shape, strict=True)]
    edge, like = np.unique(seen[0], axis=0, return_inverse=True)  # rows away from the border are all alike
    mass = (weights.astype(response.dtype) * edge) @ seen[1].T
    workers = thread_count()
    spectrum = fft.rfft2(response, s=shape, workers=workers)
    spectrum *= transfer
    total = fft.irfft2(spectrum, s=shape, workers=workers, overwrite_x=True)[: response.shape[0], : response.shape[1]]
    total /= mass[like]
    return np.ascontiguousarray(total)
