"""Peaks: local maxima of the Laplacian-of-Gaussian response, the seeds of column finding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Peaks:
    """Local maxima of a peak response.

    Parameters
    ----------
    positions
        (K, 2) row and column, px.
    strength
        (K,) height over that of the bright columns near by.
    """

    positions: Floats
    strength: Floats

    @cached_property
    def tree(self) -> cKDTree:
        """KD-tree of the positions."""
        return cKDTree(self.positions)

    def snap(self, sites: Floats, reach: float) -> tuple[Floats, Floats]:
        """Positions (S, 2) of the peaks at predicted sites and how much each counts, (S,), 0 without a peak, to 1."""
        distance, number = self.tree.query(sites, distance_upper_bound=reach)
        found = np.isfinite(distance)
        number = np.where(found, number, 0)
        near = 1 - 0.9 * (np.where(found, distance, 0) / reach) ** 2
        weight = np.where(found, np.clip(self.strength[number], 0, 1) ** 2 * near, 0)
        return np.where(found[:, None], self.positions[number], sites), weight


def peak_response(image: Floats, lattice_constant: float, width: float = 0.12) -> Floats:
    """Minus the scale-normalised Laplacian of the Gaussian-blurred image: columns are positive, the mean is about zero.

    Parameters
    ----------
    image
        (H, W) image.
    lattice_constant
        a, px.
    width
        Standard deviation of the Gaussian, lattice constants; it is no less than 0.8 px.

    Returns
    -------
    (H, W) array
    """
    sigma = max(width * lattice_constant, 0.8)
    return np.asarray(-(sigma**2) * ndimage.gaussian_laplace(image, sigma), dtype=np.float64)


def find_peaks(response: Floats) -> Peaks:
    """Local maxima of a response, each refined by the quadratic through its 3x3 pixels.

    Parameters
    ----------
    response
        (H, W) image in which columns are positive, such as minus the Laplacian of a Gaussian-blurred micrograph.

    Returns
    -------
    Peaks
    """
    core = response[1:-1, 1:-1]
    rows, columns = np.nonzero((ndimage.maximum_filter(response, size=3)[1:-1, 1:-1] == core) & (core > 0))
    rows, columns = rows + 1, columns + 1
    v = {(i, j): response[rows + i, columns + j] for i in (-1, 0, 1) for j in (-1, 0, 1)}
    slope_r, slope_c = (v[1, 0] - v[-1, 0]) / 2, (v[0, 1] - v[0, -1]) / 2
    bend_r, bend_c = v[1, 0] + v[-1, 0] - 2 * v[0, 0], v[0, 1] + v[0, -1] - 2 * v[0, 0]
    twist = (v[1, 1] + v[-1, -1] - v[1, -1] - v[-1, 1]) / 4
    det = bend_r * bend_c - twist**2
    det = np.where(det > 0, det, np.inf)
    shift = np.column_stack([twist * slope_c - bend_c * slope_r, twist * slope_r - bend_r * slope_c]) / det[:, None]
    positions = np.asarray(np.column_stack([rows, columns]) + np.clip(shift, -0.5, 0.5), dtype=np.float64)
    height = v[0, 0]
    if not len(height):
        return Peaks(positions, height)
    _, near = cKDTree(positions).query(positions, k=min(24, len(positions)))
    level = np.percentile(height[np.atleast_2d(near)], 85, axis=-1)  # haze lowers the contrast of whole regions
    return Peaks(positions, height / np.maximum(level, 0.35 * np.percentile(level, 90)))
