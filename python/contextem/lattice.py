"""Local lattices of a micrograph, from the power spectra of its tiles, and averages along them.

Columns of a 1H monolayer seen along the layer normal form a honeycomb. Together with the centres of its hexagons they
form a triangular lattice of spacing b = a / sqrt(3), called the site lattice: p(i, j) = p0 + i b1 + j b2 with b1 and b2
60 degrees apart. First-order reflections lie at 2 / (sqrt(3) a), second-order ones, turned by 30 degrees, at 2 / a.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Floats = NDArray[np.float64]

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


def _power(tile: Floats, pad: int) -> Floats:
    """Power spectrum of a windowed tile, zero-padded to `pad`, blurred by about one resolution element, centred."""
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in tile.shape))
    spectrum = abs(fft.fft2((tile - tile.mean()) * window, s=(pad, pad))) ** 2
    blurred = ndimage.gaussian_filter(spectrum, 0.8 * pad / max(tile.shape), mode="wrap")
    return np.asarray(fft.fftshift(blurred), dtype=np.float64)


def _polar(power: Floats, radius: Floats, angle: Floats) -> Floats:
    """Log power over the background of the weakest of three spots, mean of both orders: (len(radius), len(angle)).

    The weakest, because a lattice has all three while scan lines and stripes have one.
    """
    pad = power.shape[0]
    total = np.zeros((len(radius), len(angle)))
    for order, offset in ((1.0, 0.0), (np.sqrt(3), np.pi / 6)):
        every = angle[:, None] + np.arange(3) * np.pi / 3 + offset
        spoke = order * radius[:, None, None] * pad
        values = ndimage.map_coordinates(
            power, [pad // 2 + spoke * np.cos(every), pad // 2 + spoke * np.sin(every)], order=1, mode="nearest"
        )
        background = np.median(values, axis=(1, 2), keepdims=True) + 1e-3 * values.max() + 1e-300
        total += np.log1p(values / background).min(axis=2) / 2
    return total


def _basis(power: Floats, radius: float, angle: float) -> Floats:
    """Site-lattice basis (2, 2) from the three first-order spots, each refined within 12 % of the ideal one."""
    pad = power.shape[0]
    ideal = np.array([[np.cos(angle + t), np.sin(angle + t)] for t in (0, 2 * np.pi / 3, 4 * np.pi / 3)]) * radius
    reach = max(2, round(0.12 * radius * pad))
    offset = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    spots = ideal.copy()
    for k, g in enumerate(ideal):
        start = np.round(g * pad).astype(int) + pad // 2
        rows, columns = start[0] + offset[0], start[1] + offset[1]
        near = np.hypot(rows - pad // 2 - g[0] * pad, columns - pad // 2 - g[1] * pad) <= reach
        values = np.where(near, power[np.clip(rows, 0, pad - 1), np.clip(columns, 0, pad - 1)], 0)
        top = np.unravel_index(np.argmax(values), values.shape)
        weight = np.where((abs(offset[0] - offset[0][top]) <= 2) & (abs(offset[1] - offset[1][top]) <= 2), values, 0)
        weight = np.clip(weight - 0.3 * weight.max(), 0, None)
        spots[k] = [((axis - pad // 2) * weight).sum() / weight.sum() / pad for axis in (rows, columns)]
    spots -= spots.mean(axis=0)  # the three add up to zero
    a1, a2 = np.linalg.inv(spots[:2]).T
    return np.array([a1 + a2, 2 * a2 - a1]) / 3


def find_frames(image: Floats, expected: float, tolerance: float) -> list[Frame]:
    """Local site lattices from the power spectra of overlapping tiles, best first.

    Parameters
    ----------
    image
        (H, W) image whose slow background is removed.
    expected
        Lattice constant expected, px.
    tolerance
        Largest relative deviation of a from the expected one.

    Returns
    -------
    list of Frame
        May be empty: what turns out to lie outside of the tolerance is left out.
    """
    shape = np.array(image.shape)
    side = np.minimum(shape, round(14 * expected))
    pad = fft.next_fast_len(int(2 * side.max()))
    starts = [
        np.unique(np.linspace(0, n - s, int(np.ceil(2 * n / s)) - 1).astype(int))
        for n, s in zip(shape, side, strict=True)
    ]
    angle = np.deg2rad(np.arange(0, 60, 1.0))
    ideal = 2 / (np.sqrt(3) * expected)
    reach = np.log1p(tolerance) + _MARGIN
    radius = ideal * np.exp(np.linspace(-reach, reach, int(reach * 200) | 1))
    tiles = []
    for r in starts[0]:
        for c in starts[1]:
            power = _power(image[r : r + side[0], c : c + side[1]], pad)
            tiles.append((np.array([r + (side[0] - 1) / 2, c + (side[1] - 1) / 2]), power))
    maps = [_polar(power, radius, angle) for _, power in tiles]
    best_angle = [m.max(axis=1) for m in maps]
    strongest = np.argsort([m.max() for m in maps])[::-1][: max(1, len(maps) // 2)]
    scale = int(np.argmax(np.sum([best_angle[k] for k in strongest], axis=0)))
    if scale in (0, len(radius) - 1):  # the flank of something beyond
        return []
    near = abs(radius / radius[scale] - 1) < 0.04
    frames = []
    for (centre, power), polar in zip(tiles, maps, strict=True):
        polar = np.where(near[:, None], polar, -np.inf)
        k, m = np.unravel_index(int(np.argmax(polar)), polar.shape)
        basis = _basis(power, float(radius[k]), float(angle[m]))
        if abs(np.log(lattice_constant(basis) / expected)) <= reach:
            frames.append(Frame(centre, basis, float(polar[k, m])))
    return sorted(frames, key=lambda frame: -frame.quality)


def average_cells(response: Floats, basis: Floats, rows: float = 0.7, columns: float = 1.5) -> Floats:
    """Average an image over its lattice translations in a Gaussian neighbourhood.

    Where noise hides single columns, their neighbours in equivalent sites show them. The neighbourhood is narrow across
    the scan rows, because drift displaces rows against each other, and wide along them.

    Parameters
    ----------
    response
        (H, W) image.
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
    width = np.array([rows, columns]) * np.hypot(*cell[0])
    weights = np.exp(-0.5 * ((shifts / width) ** 2).sum(axis=1))
    total, mass = np.zeros_like(response), np.zeros_like(response)
    ones = np.ones_like(response)
    for shift, weight in zip(shifts[weights > 0.05], weights[weights > 0.05], strict=True):
        total += weight * ndimage.shift(response, shift, order=1, mode="constant")
        mass += weight * ndimage.shift(ones, shift, order=1, mode="constant")
    return total / mass
