"""Where the undiffracted beam meets the detector: centre and radius of its disc in a diffraction pattern.

    level    t = (mean of what is brighter than t + mean of what is not) / 2
    weight   w = (M - t) / (b - d) + 1/2, cut to 0 ... 1, on the bright disc and one pixel around it
    centre   c = sum(w x) / sum(w)            radius    r = sqrt(sum(w) / pi)

M is the mean pattern after a median over 3 x 3 pixels, which takes out hot pixels and single lines, and a slight blur
against shot noise; b and d are the two means.  The weight is 1 within the disc, however the intensity varies there, and
counts pixels at its edge by their share.  A region that is no disc is refused: one of another area than its second
moments tell, with a hole, or longer than wide, such as a beam behind its stop.  The level is that of Ridler and
Calvard, "Picture thresholding using an iterative selection method", https://doi.org/10.1109/TSMC.1978.4310039.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["Disc", "Geometry", "NoDiscError", "find_disc", "find_geometry", "share_on_detector"]

LEAST_RADIUS = 2.0
"""px; a smaller bright spot is not told from a Bragg reflection or a defect of the detector."""

TOLD_DESCAN = 1.0
"""px; how far the disc may move over the scan before it is told."""

TOLD_OFFSET = 2.0
"""px; how far a centre that is given may lie from that of the disc before it is told."""

_ROUND = 0.08  # relative difference of the radii that area and second moments give, and of the two half axes
_HOLE = 0.01  # share of a disc up to which a hole in it is one of shot noise
_BLUR = 1.0  # px
_LEAST_SHARE = 0.5  # of the pixels above the level: in the disc
_LEAST_CONTRAST = 2.0  # of the disc over what surrounds it


class NoDiscError(ValueError):
    """A diffraction pattern shows no clear disc of the undiffracted beam."""


@dataclass(frozen=True)
class Disc:
    """The bright disc of a pattern.

    Attributes
    ----------
    centre : tuple of two floats
        (row, column), px.
    radius : float
        px.
    """

    centre: tuple[float, float]
    radius: float


@dataclass(frozen=True)
class Geometry:
    """Where the undiffracted beam meets the detector.

    Attributes
    ----------
    centre : tuple of two floats
        (row, column), px.
    radius : float or None
        Of the disc, px; None where the centre was given and no clear disc is seen.
    descan : float or None
        Longest way from the centre of the disc in a quarter of the scan to that in another one, px; None where the
        quarters do not show it.
    origin : str
        How the centre came about: ``"user"``, or how it was found.
    semiangle : float or None
        Of convergence, mrad: radius times angular sampling.
    patterns : int
        How many the mean was taken of.
    remarks : tuple of str
        What is to be warned of: descan, what could not be checked, a centre that is not that of the disc.
    """

    centre: tuple[float, float]
    radius: float | None
    descan: float | None
    origin: str
    semiangle: float | None
    patterns: int
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)


def find_disc(pattern: NDArray[np.float64]) -> Disc:
    """Find the disc of the undiffracted beam.

    Parameters
    ----------
    pattern : ndarray, shape (ky, kx)
        Mean of diffraction patterns.

    Returns
    -------
    Disc

    Raises
    ------
    NoDiscError
        If no region stands out, it is no disc, or the edge of the detector cuts it.

    Examples
    --------
    >>> rows, columns = np.mgrid[:64, :64]
    >>> disc = find_disc((np.hypot(rows - 30.5, columns - 33) < 12).astype(float))
    >>> np.round(disc.centre, 3).tolist(), round(disc.radius, 1)
    ([30.5, 33.0], 12.0)
    """
    smooth = ndimage.gaussian_filter(ndimage.median_filter(pattern, 3, mode="nearest"), _BLUR, mode="nearest")
    level, bright, dark = _level(smooth)
    regions, count = ndimage.label(smooth > level)
    if count == 0:
        raise NoDiscError("it is the same everywhere")
    brightness = ndimage.sum_labels(smooth, regions, np.arange(1, count + 1))
    region = _without_small_holes(regions == 1 + int(np.argmax(brightness)))
    area = int(np.count_nonzero(region))
    around = ndimage.binary_dilation(region, iterations=3) & ~ndimage.binary_dilation(region)
    surround = float(smooth[around].mean()) if around.any() else dark
    if area < math.pi * LEAST_RADIUS**2 or area < _LEAST_SHARE * np.count_nonzero(regions):
        raise NoDiscError("no region of it stands out")
    if smooth[region].mean() < _LEAST_CONTRAST * surround:
        raise NoDiscError("its brightest region does not stand out from what surrounds it")
    if region[[0, -1]].any() or region[:, [0, -1]].any():
        raise NoDiscError("its bright disc is cut by the edge of the detector")
    _check_round(region)
    rim = ndimage.binary_dilation(region)
    weight = np.where(rim, np.clip((smooth - level) / (bright - dark) + 0.5, 0.0, 1.0), 0.0)
    weight[ndimage.binary_erosion(region)] = 1.0
    total = float(weight.sum())
    row = float(weight.sum(axis=1) @ np.arange(weight.shape[0])) / total
    column = float(weight.sum(axis=0) @ np.arange(weight.shape[1])) / total
    return Disc((row, column), math.sqrt(total / math.pi))


def find_geometry(
    quarters: NDArray[np.float64],
    numbers: NDArray[np.intp],
    *,
    centre: tuple[float, float] | None = None,
    angular_sampling: float | None = None,
) -> Geometry:
    """Find where the undiffracted beam meets the detector, and how far it moves over the scan.

    Parameters
    ----------
    quarters : ndarray, shape (4, ky, kx)
        Sums of the patterns in each quarter of the scan.
    numbers : ndarray, shape (4,)
        How many patterns these are.
    centre : tuple of two floats, optional
        (row, column), px, where it is known.
    angular_sampling : float, optional
        mrad/px.

    Returns
    -------
    Geometry

    Raises
    ------
    ValueError
        If the centre is not on the detector, or not given and no clear disc is seen.

    Examples
    --------
    >>> rows, columns = np.mgrid[:64, :64]
    >>> pattern = (np.hypot(rows - 30.5, columns - 33) < 12).astype(float)
    >>> geometry = find_geometry(np.stack([pattern] * 4), np.full(4, 1), angular_sampling=2.0)
    >>> np.round(geometry.centre, 3).tolist(), geometry.descan, round(geometry.semiangle)
    ([30.5, 33.0], 0.0, 24)
    """
    count = int(numbers.sum())
    if centre is not None:
        centre = _check_centre(centre, (quarters.shape[1], quarters.shape[2]))
    disc: Disc | None = None
    try:
        disc = find_disc(quarters.sum(axis=0) / count)
    except NoDiscError as error:
        if centre is None:
            raise ValueError(
                f"centre: no disc of the undiffracted beam is found in the mean pattern, {error}; give where it is, in "
                "px, as centre=(row, column) or --centre"
            ) from None
    places = [] if disc is None else [quarter.centre for quarter in _discs(quarters, numbers)]
    descan = max(math.dist(a, b) for a in places for b in places) if len(places) > 1 else None
    return Geometry(
        centre=centre or _centre_of(disc),
        radius=None if disc is None else disc.radius,
        descan=descan,
        origin="user" if centre is not None else f"of the bright disc in the mean of {count} patterns",
        semiangle=None if disc is None or angular_sampling is None else disc.radius * angular_sampling,
        patterns=count,
        remarks=tuple(_remarks(centre, disc, descan)),
    )


def share_on_detector(shape: tuple[int, int], centre: tuple[float, float], inner: float, outer: float) -> float:
    """Return the share of the area of an annulus that lies on the detector.

    Parameters
    ----------
    shape : tuple of two ints
        Of the detector, px.
    centre : tuple of two floats
        (row, column), px.
    inner, outer : float
        Radii, px.

    Returns
    -------
    float
        0 to 1; from sixteen points in each pixel.

    Examples
    --------
    >>> share_on_detector((65, 65), (32, 32), 5, 30), round(share_on_detector((65, 65), (32, -0.5), 5, 30), 2)
    (1.0, 0.5)
    """
    reach = min(*(place + 0.5 for place in centre), *(size - 0.5 - at for size, at in zip(shape, centre, strict=True)))
    if outer <= reach:
        return 1.0
    rows, columns = ((np.arange(4 * size) + 0.5) / 4 - 0.5 - at for size, at in zip(shape, centre, strict=True))
    squared = rows[:, None] ** 2 + columns**2
    inside = int(np.count_nonzero((squared >= inner**2) & (squared < outer**2))) / 16
    return min(1.0, inside / (math.pi * (outer**2 - inner**2)))


def _level(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the level between bright and dark, and the means of both."""
    level = 0.5 * (float(values.min()) + float(values.max()))
    bright = dark = level
    for _ in range(100):
        above = values > level
        if not above.any() or above.all():
            break
        bright, dark = float(values[above].mean()), float(values[~above].mean())
        previous, level = level, 0.5 * (bright + dark)
        if level == previous:
            break
    return level, bright, dark


def _without_small_holes(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill the holes that shot noise leaves."""
    holes, count = ndimage.label(~region)
    areas = np.bincount(holes.ravel(), minlength=count + 1)
    return np.asarray(region | (areas < _HOLE * np.count_nonzero(region))[holes])


def _check_round(region: NDArray[np.bool_]) -> None:
    """Raise if a region is no disc, with half a pixel for its edge."""
    rows, columns = np.nonzero(region)
    half_axes = 2.0 * np.sqrt(np.linalg.eigvalsh(np.cov(rows, columns, bias=True)))
    radius = math.sqrt(len(rows) / math.pi)
    allowed = _ROUND + 0.5 / radius
    if not np.array_equal(ndimage.binary_fill_holes(region), region):
        raise NoDiscError(
            "its brightest region has a hole, as if a beam stop hid the beam or too few electrons made it"
        )
    if np.abs(half_axes / radius - 1.0).max() > allowed or half_axes[1] / half_axes[0] > 1.0 + allowed:
        raise NoDiscError(
            "its brightest region is no disc, as if a beam stop hid a part of it or too few electrons made it"
        )


def _discs(quarters: NDArray[np.float64], numbers: NDArray[np.intp]) -> list[Disc]:
    """Return the disc in each quarter of the scan, nothing unless all show it."""
    try:
        return [find_disc(quarter / number) for quarter, number in zip(quarters, numbers, strict=True) if number]
    except NoDiscError:
        return []


def _centre_of(disc: Disc | None) -> tuple[float, float]:
    assert disc is not None  # else a centre is given
    return disc.centre


def _remarks(centre: tuple[float, float] | None, disc: Disc | None, descan: float | None) -> Iterator[str]:
    if disc is None:
        yield "no clear disc of the undiffracted beam is seen, so that the centre that is given is not checked"
        return
    offset = 0.0 if centre is None else math.dist(centre, disc.centre)
    if centre is not None and offset > TOLD_OFFSET:
        yield (
            f"the centre that is given, ({centre[0]:.1f}, {centre[1]:.1f}) px, is {offset:.1f} px "
            f"from that of the undiffracted beam, ({disc.centre[0]:.1f}, {disc.centre[1]:.1f}) px"
        )
    if descan is None:
        yield "not every quarter of the scan shows the undiffracted beam by itself, so that descan is not checked"
    elif descan > TOLD_DESCAN:
        yield (
            f"the undiffracted beam moves by {descan:.1f} px over the scan, so that detectors see other angles in its "
            "quarters; align the descan, or scan a smaller field"
        )


def _check_centre(centre: tuple[float, float], shape: tuple[int, int]) -> tuple[float, float]:
    row, column = centre
    if not (-0.5 <= row <= shape[0] - 0.5 and -0.5 <= column <= shape[1] - 0.5):
        raise ValueError(
            f"centre: expected (row, column) on the detector of {shape[0]} x {shape[1]} px, got ({row:g}, {column:g})"
        )
    return float(row), float(column)
