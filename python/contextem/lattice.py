"""Local lattices of a micrograph, from the power spectra of its tiles, and averages along them.

Columns of a 1H monolayer seen along the layer normal form a honeycomb. Together with the centres of its hexagons they
form a triangular lattice of spacing b = a / sqrt(3), called the site lattice: p(i, j) = p0 + i b1 + j b2 with b1 and b2
60 degrees apart. First-order reflections lie at 2 / (sqrt(3) a), second-order ones, turned by 30 degrees, at 2 / a.
"""

from __future__ import annotations

import itertools
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


class _Spectrum:
    """Power spectrum of a windowed tile up to the frequency `limit`, cycles/px, blurred by a resolution element."""

    def __init__(self, tile: Floats, limit: float) -> None:
        self.pad = fft.next_fast_len(2 * max(tile.shape))  # bins per cycle/px
        window = np.outer(*(np.hanning(n + 2)[1:-1] for n in tile.shape))
        padded = fft.fft2(((tile - tile.mean()) * window).astype(np.float32), s=(self.pad, self.pad))
        self.centre = min(int(np.ceil(limit * self.pad)) + 4, self.pad // 2)  # bin of frequency 0, either axis
        kept = np.arange(-self.centre, self.centre)
        power = abs(padded[np.ix_(kept, kept)]).astype(np.float64) ** 2
        blurred = ndimage.gaussian_filter(power, 0.8 * self.pad / max(tile.shape), mode="nearest")
        self.power = blurred.astype(np.float32)  # there is one per tile

    def polar(self, radius: Floats, angle: Floats) -> Floats:
        """Log power over the background of the weakest of three spots, mean of both orders: (len(radius), len(angle)).

        The weakest, because a lattice has all three while scan lines and stripes have one.
        """
        total = np.zeros((len(radius), len(angle)))
        for order, offset in ((1.0, 0.0), (np.sqrt(3), np.pi / 6)):
            every = angle[:, None] + np.arange(3) * np.pi / 3 + offset
            spoke = order * radius[:, None, None] * self.pad
            where = [self.centre + spoke * np.cos(every), self.centre + spoke * np.sin(every)]
            values = ndimage.map_coordinates(self.power, where, order=1, mode="nearest")
            background = np.median(values, axis=(1, 2), keepdims=True) + 1e-3 * values.max() + 1e-300
            total += np.log1p(values / background).min(axis=2) / 2
        return total

    def basis(self, radius: float, angle: float) -> Floats:
        """Site-lattice basis (2, 2) from the three first-order spots, each looked for within 12 % of the ideal one."""
        turns = angle + np.array([0, 2, 4]) * np.pi / 3
        spots = radius * self.pad * np.column_stack([np.cos(turns), np.sin(turns)])
        rows, columns = np.indices(self.power.shape) - self.centre
        for k, ideal in enumerate(spots):
            near = np.hypot(rows - ideal[0], columns - ideal[1]) <= max(2.0, 0.12 * radius * self.pad)
            top = np.argmax(np.where(near, self.power, 0))
            r, c = np.unravel_index(top, self.power.shape)
            peak = (slice(max(r - 2, 0), r + 3), slice(max(c - 2, 0), c + 3))
            weight = np.clip(self.power[peak] - 0.3 * self.power[r, c], 0, None)
            spots[k] = [(axis[peak] * weight).sum() / weight.sum() for axis in (rows, columns)]
        spots -= spots.mean(axis=0)  # the three add up to zero
        a1, a2 = np.linalg.inv(spots[:2] / self.pad).T
        return np.array([a1 + a2, 2 * a2 - a1]) / 3


def find_frames(image: Floats, expected: float, tolerance: float) -> list[Frame]:
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
        np.unique(np.linspace(0, n - s, int(np.ceil(2 * n / s)) - 1).astype(int))
        for n, s in zip(image.shape, side, strict=True)
    ]
    ideal = 2 / (np.sqrt(3) * expected)
    reach = np.log1p(tolerance) + _MARGIN
    radius = ideal * np.exp(np.linspace(-reach, reach, int(reach * 200) | 1))
    angle = np.deg2rad(np.arange(0, 60, 1.0))
    spectra, centres = [], []
    for corner in itertools.product(*starts):
        tile = image[corner[0] : corner[0] + side[0], corner[1] : corner[1] + side[1]]
        if np.ptp(tile) == 0:  # masked or saturated
            continue
        spectra.append(_Spectrum(tile, float(np.sqrt(3) * radius[-1])))
        centres.append(np.array(corner) + (side - 1) / 2)
    maps = [spectrum.polar(radius, angle) for spectrum in spectra]
    strongest = sorted(maps, key=np.max)[len(maps) // 2 :]
    scale = int(np.argmax(np.sum([polar.max(axis=1) for polar in strongest], axis=0)))
    if scale in (0, len(radius) - 1):  # the flank of something beyond
        return []
    other_scale = abs(radius / radius[scale] - 1) >= 0.04
    frames = []
    for spectrum, centre, polar in zip(spectra, centres, maps, strict=True):
        polar[other_scale] = -np.inf
        k, m = np.unravel_index(int(np.argmax(polar)), polar.shape)
        basis = spectrum.basis(float(radius[k]), float(angle[m]))
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
    frequencies = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])
    transfer = np.zeros((shape[0], shape[1] // 2 + 1))
    mass = np.zeros(response.shape)
    for shift, weight in zip(shifts, weights, strict=True):
        phases = [np.exp(2j * np.pi * f * s) for f, s in zip(frequencies, shift, strict=True)]
        transfer += weight * (phases[0].real * phases[1].real - phases[0].imag * phases[1].imag)  # pairs +-: real
        there = [np.arange(n) - s for n, s in zip(response.shape, shift, strict=True)]
        mass += weight * np.outer(*((t >= 0) & (t <= n - 1) for t, n in zip(there, response.shape, strict=True)))
    total = fft.irfft2(fft.rfft2(response, s=shape) * transfer, s=shape)[: response.shape[0], : response.shape[1]]
    return np.asarray(total / mass)
