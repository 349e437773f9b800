"""The period of a hexagonal lattice in an image, from its spectrum.

The image of a lattice with basis vectors of length a at 60° has its first-order reflections {10} on a ring of six at
k = 2 / (sqrt(3) a), the next, {11}, on a ring sqrt(3) times as wide and turned by 30°.  Either may be the stronger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Basis = NDArray[np.float64]  # two reciprocal vectors as rows, (2, 2) cycles/px

_SHORTEST_SIDE = 512
_LARGEST_SIDE = 2048
_SHORTEST_PERIOD = 3.0
_CANDIDATES = 60

# A reflection must exceed, and a triple must exceed together, what noise reaches in the area searched with exp(-value).
_REFLECTION = 3.0
_TRIPLE = 24.0

# Reflections closer to the centre of the spectrum drown in the window, in resolution elements.
_LOWEST = 3.0

# {10} has at least a quarter of the power of {11}: (M**2 + X**2 - M X) / (M + X)**2 is least for M = X, and the probe
# weakens the higher order more; half of that is asked for, and less over noise, which is stronger nearer to the centre.
_LOWER_POWER = 0.12
_LOWER_EXCESS = 0.03

# Below this part of the power of {10} a {11} reflection may be the fringe of the window.
_USABLE_POWER = 1e-3

# Half width of a reflection, in resolution elements.
_WIDTH = 3.0

# How far the lattice in the image may be from a regular one, of the length of a reciprocal vector.
_DISTORTION = 0.08

# How far a reflection may be from where two others put it, of its length.
_CLOSURE = 0.02

# Orders of diffraction that may outshine {10}: their length over that of {10}, and their angle to it.
_HIGHER_ORDERS = ((math.sqrt(3.0), 30.0), (2.0, 0.0))


def hexagonal_period(image: NDArray[Any]) -> float:
    """Return the lattice constant of the hexagonal lattice in an image, in pixels.

    Parameters
    ----------
    image : ndarray, shape (H, W)
        Finite real numbers; of an image above 2048 pixels a side the centre is used.

    Returns
    -------
    float
        Lattice constant, px: that of the regular lattice with the same area per cell, so that drift, which shears the
        image, leaves it as it is.

    Raises
    ------
    ValueError
        If no hexagonal lattice stands out of the noise.

    Examples
    --------
    >>> rows, columns = np.mgrid[:128, :128]
    >>> k = 2 / (np.sqrt(3) * 12.5)
    >>> angles = np.deg2rad([10, 70, 130])
    >>> image = sum(np.cos(2 * np.pi * k * (np.cos(t) * rows + np.sin(t) * columns)) for t in angles)
    >>> round(hexagonal_period(image), 1)
    12.5
    """
    if min(image.shape) >= 16:
        # A Hann window keeps what is strong from spilling over the spectrum, a flatter one gives each part its weight.
        spectrum = _Spectrum(_faded(image, 0.5))
        basis = spectrum.strongest_hexagon()
        if basis is not None:
            basis = _Spectrum(_faded(image, 0.15)).refined(spectrum.first_order(basis))
            return math.sqrt(2.0 / (math.sqrt(3.0) * abs(float(np.linalg.det(basis)))))
    raise ValueError(
        f"data: expected an image of a hexagonal lattice, found none in this one of shape {image.shape}, "
        "so give the sampling instead of having it estimated"
    )


def _faded(image: NDArray[Any], part: float) -> NDArray[np.float64]:
    """Centre of the image less its mean, faded out over a part of each side towards the borders, (H, W)."""
    height, width = (min(side, _LARGEST_SIDE) for side in image.shape)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    centre = image[top : top + height, left : left + width].astype(np.float64)
    window = _tukey(height, part)[:, None] * _tukey(width, part)[None, :]
    centre = (centre - np.average(centre, weights=window)) * window
    faded: NDArray[np.float64] = centre / np.abs(centre).max()
    return faded


def _tukey(length: int, part: float) -> NDArray[np.float64]:
    """Window that rises as sin**2 over a part of its length at either end; with a half it is that of Hann."""
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1.0
    window: NDArray[np.float64] = np.sin(0.5 * np.pi * np.minimum(distance / (part * length), 1.0)) ** 2
    return window


@dataclass(frozen=True)
class _Reflection:
    vector: Vector  # (2,) cycles/px along rows and columns
    power: float
    excess: float  # power in units in which noise follows the exponential law P(x > t) = exp(-t)
    bins: int  # bins of the spectrum it was looked for in

    @property
    def significance(self) -> float:
        """Minus the logarithm of the chance to meet it in noise."""
        return self.excess - math.log(self.bins)


class _Spectrum:
    """Power spectrum of a faded image over the noise at the same distance from its centre."""

    def __init__(self, image: NDArray[np.float64]) -> None:
        self.image = image
        self.resolution = 1.0 / min(image.shape)  # cycles/px
        shape = tuple(max(side, _SHORTEST_SIDE) for side in image.shape)
        power = self.power = np.abs(np.fft.fftshift(np.fft.fft2(image, s=shape))) ** 2
        self.frequencies = tuple(np.fft.fftshift(np.fft.fftfreq(side)) for side in shape)
        radius = np.hypot(self.frequencies[0][:, None], self.frequencies[1][None, :])
        ring = np.rint(radius / (2.0 * self.resolution)).astype(np.intp)
        order = np.argsort(ring, axis=None, kind="stable")
        groups = np.split(power.ravel()[order], np.cumsum(np.bincount(ring.ravel()))[:-1])
        median = np.array([np.median(group) for group in groups])
        self.excess = math.log(2.0) * power / np.maximum(median, 1e-12 * power.max())[ring]
        # Near the centre stand the window and slow changes of the background, beyond the shortest period nothing.
        self.excess[(radius < _LOWEST * self.resolution) | (radius > 2.0 / (math.sqrt(3.0) * _SHORTEST_PERIOD))] = 0.0

    def strongest_hexagon(self) -> Basis | None:
        """Reciprocal basis of the six reflections that stand out most, of any order; None if none do."""
        best, best_significance = None, 0.0
        for first in self._peaks():
            second = self._strongest_near(_rotated(first.vector, 60.0), _DISTORTION)
            third = self._strongest_near(second.vector - first.vector, _CLOSURE)
            significance = sum(reflection.significance for reflection in (first, second, third))
            if significance > best_significance and _stands_out([first, second, third]):
                best, best_significance = np.array([first.vector, second.vector]), significance
        return best

    def first_order(self, basis: Basis) -> Basis:
        """Reciprocal basis of the {10} reflections, given that of any order of diffraction."""
        basis = self.refined(basis)
        higher = [self._strongest_near(vector, 0.0) for vector in _triple(basis)]
        for factor, angle in _HIGHER_ORDERS:
            vectors = _triple(_turned(basis, angle) / factor)
            lower = [self._strongest_near(vector, _CLOSURE) for vector in vectors]
            if (
                _stands_out(lower)
                and _power(lower) > _LOWER_POWER * _power(higher)
                and _excess(lower) > _LOWER_EXCESS * _excess(higher)
            ):
                return self.first_order(np.array(vectors[:2]))
        return basis

    def refined(self, basis: Basis) -> Basis:
        """Reciprocal basis by least squares from the {10} and {11} reflections that stand out."""
        orders = np.array([(1, 0), (0, 1), (-1, 1), (1, 1), (-1, 2), (-2, 1)], dtype=np.float64)
        found = [self._strongest_near(order @ basis, 0.0) for order in orders]
        least = _USABLE_POWER * _power(found[:3])
        used = [i for i, r in enumerate(found) if r.significance > _REFLECTION and r.power > least]
        if len(used) < 2:
            return basis
        centroids = np.array([self._centroid(found[i]) for i in used])
        solution: Basis = np.linalg.lstsq(orders[used], centroids, rcond=None)[0]
        return solution

    def _peaks(self) -> list[_Reflection]:
        """Highest peaks of one half of the spectrum."""
        left = self.excess.copy()
        left[: left.shape[0] // 2] = 0.0
        bins = int(np.count_nonzero(left))
        peaks = []
        for _ in range(_CANDIDATES):
            peak = np.unravel_index(np.argmax(left), left.shape)
            vector = np.array([frequency[i] for frequency, i in zip(self.frequencies, peak, strict=True)])
            peaks.append(_Reflection(vector, float(self.power[peak]), float(left[peak]), bins))
            left[self._window(vector, 2.0 * self.resolution)] = 0.0
        return peaks

    def _strongest_near(self, vector: Vector, tolerance: float) -> _Reflection:
        """Highest peak about a vector, within one resolution element and a tolerance relative to its length."""
        reach = self.resolution + tolerance * float(np.hypot(*vector))
        window = self._window(vector, reach)
        part = self.excess[window]
        if part.size == 0:
            return _Reflection(vector, 0.0, 0.0, 1)
        start = np.unravel_index(np.argmax(part), part.shape)
        row, column = self._summit(int(window[0].start + start[0]), int(window[1].start + start[1]))
        position = np.array([self.frequencies[0][row], self.frequencies[1][column]])
        # What rises further and further out of the window is the flank of something else.
        inside = np.abs(position - vector).max() <= reach + self.resolution
        excess = float(self.excess[row, column]) if inside else 0.0
        return _Reflection(position, float(self.power[row, column]), excess, part.size)

    def _summit(self, row: int, column: int) -> tuple[int, int]:
        """Highest bin that is reached by going uphill from bin to bin."""
        while True:
            top, left = max(row - 1, 0), max(column - 1, 0)
            around = self.excess[top : row + 2, left : column + 2]
            step = np.unravel_index(np.argmax(around), around.shape)
            if around[step] <= self.excess[row, column]:
                return row, column
            row, column = int(top + step[0]), int(left + step[1])

    def _centroid(self, reflection: _Reflection) -> Vector:
        """Mean frequency of the power above noise about a reflection: drift widens reflections."""
        window = self._window(reflection.vector, _WIDTH * self.resolution)
        noise = reflection.power / reflection.excess
        weights = np.maximum(self.power[window] - noise, 0.0)
        rows, columns = self.frequencies[0][window[0]], self.frequencies[1][window[1]]
        return np.array(
            [np.average(rows, weights=weights.sum(axis=1)), np.average(columns, weights=weights.sum(axis=0))]
        )

    def _window(self, vector: Vector, reach: float) -> tuple[slice, slice]:
        """Slices of the bins within a reach of a vector along both axes."""
        lowest = [np.searchsorted(f, x - reach) for f, x in zip(self.frequencies, vector, strict=True)]
        highest = [np.searchsorted(f, x + reach, "right") for f, x in zip(self.frequencies, vector, strict=True)]
        return slice(lowest[0], highest[0]), slice(lowest[1], highest[1])


def _stands_out(triple: Sequence[_Reflection]) -> bool:
    significances = [reflection.significance for reflection in triple]
    return min(significances) > _REFLECTION and sum(significances) > _TRIPLE


def _power(reflections: Sequence[_Reflection]) -> float:
    """Geometric mean of their power."""
    return math.prod(reflection.power for reflection in reflections) ** (1.0 / len(reflections))


def _excess(reflections: Sequence[_Reflection]) -> float:
    """Geometric mean of their power over noise."""
    return math.prod(reflection.excess for reflection in reflections) ** (1.0 / len(reflections))


def _triple(basis: Basis) -> tuple[Vector, Vector, Vector]:
    """Vectors of a hexagon at 0°, 60° and 120°."""
    return basis[0], basis[1], basis[1] - basis[0]


def _rotated(vector: Vector, angle: float) -> Vector:
    """Vector (2,) turned by an angle in degrees from rows to columns."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return np.array([cos * vector[0] - sin * vector[1], sin * vector[0] + cos * vector[1]])


def _turned(basis: Basis, angle: float) -> Basis:
    """Basis turned by an angle in its own, possibly sheared, frame, where its vectors stand at 60°."""
    regular = np.array([[1.0, 0.0], [0.5, math.sqrt(0.75)]])
    frame = np.linalg.solve(regular, basis)
    turned: Basis = np.array([_rotated(vector, angle) for vector in regular]) @ frame
    return turned
