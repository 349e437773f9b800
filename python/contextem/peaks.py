"""Peaks: local maxima of the Laplacian-of-Gaussian response, the seeds of column finding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contextem import _arrays, _kernels
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


class Maxima(NamedTuple):
    """Local maxima of the peak response of an image, in row-major order of their pixels.

    Attributes
    ----------
    positions : (K, 2) float64
        Row and column, px.
    heights : (K,) float64
        The response there.
    count : (1,) int64
        How many maxima there are.
    """

    positions: Any
    heights: Any
    count: Any


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
    sigma = _sigma(lattice_constant, width)
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


def response_maxima(
    image: Any, lattice_constant: float, *, width: float = 0.12, threshold: float = 0.0, capacity: int | None = None
) -> Maxima:
    """Local maxima of the peak response of an image, each refined, on the device that holds the image.

    On every device they are the same to the last bit: `find_peaks` of `peak_response`, before the strengths.

    Parameters
    ----------
    image : array, shape (H, W), float32 or float64
        NumPy, CuPy or torch CUDA, or what these take through DLPack; the array decides where the work is done. Of mean
        about 0: the filters do not cancel a large offset quite.
    lattice_constant : float
        a, px.
    width : float
        As for `peak_response`.
    threshold : float
        Maxima are higher than that, and than 0.
    capacity : int, optional
        Length K of the result: the first K maxima, and NaN where there are fewer. With it nothing waits for a CUDA
        device, and a graph can be captured. Without it K is how many there are, which the host waits for once, on the
        current stream.

    Returns
    -------
    Maxima
        In the library and on the device of the image.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or range, or the width does not fit the shared memory of the device.
    RuntimeError
        If a graph is captured and no capacity is given.

    Examples
    --------
    >>> image = np.zeros((40, 50))
    >>> image[12, 30] = 1.0
    >>> positions, heights, count = response_maxima(image, 16.0, threshold=1e-3)
    >>> positions.tolist(), int(count[0])
    ([[12.0, 30.0]], 1)
    >>> response_maxima(image, 16.0, threshold=1e-3, capacity=2).positions.tolist()
    [[12.0, 30.0], [nan, nan]]
    """
    image = _arrays.adopt("image", image)
    _arrays.check_image(image)
    a, spread = _arrays.check_real("lattice_constant", lattice_constant), _arrays.check_real("width", width)
    if a <= 0 or spread <= 0:
        raise ValueError(f"lattice_constant, width: expected positive numbers, got {lattice_constant!r} and {width!r}")
    least = _arrays.check_real("threshold", threshold)
    room = None if capacity is None else _arrays.check_integer("capacity", capacity, 0, 2**40)
    response = _kernels.peak_response(image, _sigma(a, spread))
    if _arrays.family("image", image) != "numpy":
        return Maxima(*_kernels.local_maxima_on_device(response, least, room))
    positions, heights = _kernels.local_maxima(response)
    above = heights > least
    positions, heights = positions[above], heights[above]
    count = np.array([len(heights)])
    if room is not None:
        missing = max(0, room - len(heights))
        positions = np.concatenate([positions[:room], np.full((missing, 2), np.nan)])
        heights = np.concatenate([heights[:room], np.full(missing, np.nan)])
    return Maxima(positions, heights, count)


def _sigma(lattice_constant: float, width: float) -> float:
    """Return the standard deviation of the Gaussian, px."""
    return max(width * lattice_constant, 0.8)
