"""Peaks: local maxima of the Laplacian-of-Gaussian response, the seeds of column finding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem import _kernels
from contextem.tiles import TiledImage, tiled

Floats = NDArray[np.float64]
Image = NDArray[Any] | TiledImage

_NEIGHBOURS = 24  # peaks whose heights a peak's strength is measured by


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
    def points(self) -> _kernels.Points:
        """The positions, sorted to find the nearest."""
        return _kernels.Points(self.positions)

    def snap(self, sites: Floats, reach: float) -> tuple[Floats, Floats]:
        """Positions (S, 2) of the peaks at predicted sites and how much each counts, (S,), 0 without a peak, to 1."""
        return self.points.snap(self.strength, sites, reach, 0)


def peak_response(image: Image, lattice_constant: float, width: float = 0.12) -> TiledImage:
    """Minus the scale-normalised Laplacian of the Gaussian-blurred image: columns are positive, the mean is about zero.

    Parameters
    ----------
    image
        (H, W) image, float32 or float64.
    lattice_constant
        a, px.
    width
        Standard deviation of the Gaussian, lattice constants; it is no less than 0.8 px.

    Returns
    -------
    TiledImage
        (H, W), of the image's dtype.
    """
    sigma = max(width * lattice_constant, 0.8)
    return tiled(image).filtered(lambda part: _kernels.peak_response(part, sigma), int(4 * sigma + 0.5))


def find_peaks(response: Image) -> Peaks:
    """Local maxima of a response, each refined by the quadratic through its 3x3 pixels.

    Parameters
    ----------
    response
        (H, W) image in which columns are positive, such as minus the Laplacian of a Gaussian-blurred micrograph.

    Returns
    -------
    Peaks
    """
    response = tiled(response)
    found = []
    for first, last in response.tiles():
        top = max(0, first - 1)
        found.append(_kernels.local_maxima(response.rows(top, min(response.shape[0], last + 1)), top=top))
    positions, height = (np.concatenate(part) for part in zip(*found, strict=True))
    if not len(height):
        return Peaks(positions, height)
    level = _kernels.Points(positions).levels(height, min(_NEIGHBOURS, len(height)), 85.0, 0)
    # haze lowers the contrast of whole regions
    return Peaks(positions, height / np.maximum(level, 0.35 * np.percentile(level, 90)))
