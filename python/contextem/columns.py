"""Where the atomic columns are: peaks of the image, completed by the lattice they stand on.

The way there: peaks (maxima of the Laplacian of the Gaussian) and lattice (from spectra of tiles) -> growth (site
indices handed on from peak to peak) -> grains (which sublattice is hollow, which grain owns the ground) -> columns.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contextem import _kernels
from contextem.grains import Grain, find_grains
from contextem.growth import FEWEST, SNAP
from contextem.lattice import Frame, average_cells, find_frames, lattice_constant
from contextem.micrograph import Micrograph
from contextem.peaks import Peaks, find_peaks, peak_response
from contextem.tiles import TiledImage

logger = logging.getLogger(__name__)

CLASSES = ("metal", "dopant", "X2", "single_vacancy", "double_vacancy")
"""Classes of a column, in the order of every table of probabilities."""

LATTICE_CONSTANTS = (3.1, 3.75)
"""Shortest and longest in-plane lattice constant among 1H MX2 monolayers, Å."""

_LEAST_QUALITY = 1.2  # of the best tile, in which noise reaches 1.1
_COARSE = 0.2  # lattice constants, width of the Gaussian where noise hides single columns
_CLEAR = 0.8  # clarity above which averaging over cells has nothing to add
_PEAK_SPREAD = 0.02  # lattice constants, standard deviation of peaks about where their neighbours predict them
_SPREAD = 0.015  # and of columns; displacements in a crystal are less, scans add to them
_COLUMN_WIDTH = 0.16  # lattice constants, first guess of the standard deviation of a column
_FURTHEST = 0.15  # lattice constants; a column whose refinement moves it further keeps its position
_CALIBRATION = 1.2  # true over calculated deviation, on simulated Gaussian columns
_MISFIT = 0.002  # lattice constants, displacement of a bright column by what the fit of its neighbours leaves
_FAINT, _BRIGHT = 0.3, 0.5  # strength of a peak on no site, and in a hollow one, that is a column; noise reaches 0.5
_ROOM = 0.35  # lattice constants; no two columns stand closer
_LOPSIDED = 0.95  # site spacings; sites in the last row of a flake have about this much


class HasLatticeConstant(Protocol):
    """What is asked of a context: the lattice constant of the host, Å."""

    @property
    def lattice_constant(self) -> float:
        """In-plane lattice constant, Å."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Atomic columns of a micrograph.

    Parameters
    ----------
    positions : array_like, shape (N, 2)
        Row and column, px, pixel centres at integers.
    sublattice : array_like, shape (N,), optional
        0 or 1 for the two atomic sublattices; -1 where it is not known (default). `find_columns` calls the brighter
        one 0 in every grain.
    observed : array_like, shape (N,), optional
        Whether the image has a peak there (default); False for a site that only the lattice tells.
    grain : array_like, shape (N,), optional
        Number of the lattice a column stands on, from 0, mirror twins counted apart; -1 where it stands on none, or
        where that is not known (default).

    Raises
    ------
    TypeError
        If positions are not real numbers.
    ValueError
        If a shape or a value does not fit.

    Examples
    --------
    >>> columns = Columns([[10.0, 12.5], [14.0, 12.5]])
    >>> len(columns), columns.observed.tolist(), columns.sublattice.tolist()
    (2, [True, True], [-1, -1])
    """

    positions: NDArray[np.float64]
    sublattice: NDArray[np.int8]
    observed: NDArray[np.bool_]
    grain: NDArray[np.int32]

    def __init__(
        self,
        positions: ArrayLike,
        sublattice: ArrayLike | None = None,
        observed: ArrayLike | None = None,
        grain: ArrayLike | None = None,
    ) -> None:
        given = np.asarray(positions)
        if given.dtype.kind not in "iuf":
            raise TypeError(f"positions: expected real numbers (row, column) in px, got dtype {given.dtype}")
        if given.size == 0 and given.ndim <= 1:
            given = given.reshape(0, 2)
        if given.ndim != 2 or given.shape[1] != 2:
            raise ValueError(f"positions: expected shape (N, 2), row and column, got {given.shape}")
        if not np.isfinite(given).all():
            raise ValueError("positions: expected finite numbers, got NaN or infinity")
        n = len(given)
        side = np.full(n, -1) if sublattice is None else np.asarray(sublattice)
        seen = np.ones(n, dtype=bool) if observed is None else np.asarray(observed)
        lattice = np.full(n, -1) if grain is None else np.asarray(grain)
        for name, values in (("sublattice", side), ("observed", seen), ("grain", lattice)):
            if values.shape != (n,):
                raise ValueError(f"{name}: expected shape ({n},), one value per position, got {values.shape}")
        if side.dtype.kind not in "iu" or not np.isin(side, (-1, 0, 1)).all():
            raise ValueError("sublattice: expected integers -1, 0 or 1, got other values")
        if seen.dtype != bool:
            raise TypeError(f"observed: expected booleans, got dtype {seen.dtype}")
        if lattice.dtype.kind not in "iu" or (lattice < -1).any():
            raise ValueError("grain: expected integers from 0, or -1, got other values")
        object.__setattr__(self, "positions", np.array(given, dtype=np.float64))
        object.__setattr__(self, "sublattice", side.astype(np.int8))
        object.__setattr__(self, "observed", np.array(seen))
        object.__setattr__(self, "grain", lattice.astype(np.int32))

    def __len__(self) -> int:
        return len(self.positions)


def find_columns(
    micrograph: Micrograph,
    context: HasLatticeConstant | None = None,
    *,
    tolerance: float = 0.1,
    tile: int | None = None,
) -> Columns:
    """Find all atomic columns of a dark-field micrograph, those without a peak included.

    Peaks are indexed on the honeycomb lattice, grain by grain. Every site of the two atomic sublattices is a column,
    whether a peak stands there or not; the sites of the third, the hollow one, are not. Bright peaks on no lattice, as
    between grains, and in hollow sites, as of adatoms, are columns of sublattice and grain -1.

    Parameters
    ----------
    micrograph : Micrograph
        Annular-dark-field image of a 1H monolayer, with columns bright.
    context : Context, optional
        What is known of the specimen; only its `lattice_constant`, Å, is used. Without it lattice constants from 3.1 to
        3.75 Å are tried.
    tolerance : float
        Relative deviation of the lattice constant in the image from the one expected, as from a sampling that is off;
        0 < tolerance <= 0.2. The image is the better ruler: the lattice constant is measured within this range.
    tile : int, optional
        Rows of a large image that are worked on at once; it changes the memory needed, never the result. By default as
        many as have about 2**24 pixels. An image in which noise hides single columns is worked on as a whole.

    Returns
    -------
    Columns
        Positions come from the neighbours and, as far as noise lets it improve on them, from the image, to which the
        observed columns are fitted as Gaussians that overlap.

    Raises
    ------
    TypeError
        If micrograph or context is not what it should be.
    ValueError
        If the image is smaller than four lattice constants a side, is not a dark-field image or shows no lattice.

    Examples
    --------
    >>> row, column = np.mgrid[:96, :96] * 2 / np.sqrt(3) / 16  # lattice constant 16 px
    >>> angles = np.deg2rad([0, 60, 120])
    >>> hexagons = -sum(np.cos(2 * np.pi * (row * np.sin(t) + column * np.cos(t))) for t in angles)
    >>> columns = find_columns(Micrograph(hexagons, sampling=0.2))
    >>> gaps = np.linalg.norm(columns.positions[:, None] - columns.positions, axis=2)
    >>> round(float(np.median(np.sort(gaps)[:, 1])))  # nearest neighbours: a / sqrt(3), px
    9
    """
    if not isinstance(micrograph, Micrograph):
        raise TypeError(f"micrograph: expected a Micrograph, as read() returns, got {type(micrograph).__name__}")
    if micrograph.detector is not None and micrograph.detector.name in ("BF", "ABF"):
        raise ValueError(
            f"micrograph: expected a dark-field detector, in which columns are bright, got {micrograph.detector.name}"
        )
    if not 0 < tolerance <= 0.2:
        raise ValueError(f"tolerance: expected a fraction above 0, at most 0.2, got {tolerance}")
    shortest, longest = _tolerated_range(context, tolerance)
    guess = float(np.sqrt(shortest * longest)) / micrograph.sampling  # px
    if min(micrograph.shape) < 4 * guess:
        raise ValueError(
            f"micrograph: expected at least {int(np.ceil(4 * guess))} px a side, four lattice constants, "
            f"got {micrograph.shape[0]} x {micrograph.shape[1]}"
        )
    unseen = (
        f"micrograph: no lattice with a lattice constant of {shortest:.2f} to {longest:.2f} Å is seen at "
        f"{micrograph.sampling:.4g} Å/px; check the sampling and the host"
    )
    image, frames = lattice_frames(micrograph, context, tolerance, tile)
    if not frames or frames[0].quality < _LEAST_QUALITY:
        raise ValueError(unseen)
    a = lattice_constant(frames[0].basis)
    logger.info("lattice constant %.2f px, %.3f Å at the stated sampling", a, a * micrograph.sampling)
    response = peak_response(image, a)
    peaks = find_peaks(response)
    grains = find_grains(peaks, frames, response)
    clarity = _clarity(grains, peaks, response, SNAP * a)
    if clarity < _CLEAR:
        coarse = peak_response(image, a, width=_COARSE)
        averaged = find_peaks(average_cells(coarse.whole(), frames[0].basis))
        grains = max(grains, find_grains(averaged, frames, coarse), key=lambda each: _explained(each, coarse))
    if not grains:
        raise ValueError(unseen)
    parts = [_columns_of(grain, peaks, a) for grain in grains]
    if clarity >= _CLEAR:
        parts = _with_others(parts, grains, peaks, a)
    columns = Columns(
        _refined(image, parts, a),
        np.concatenate([part.sublattice for part in parts]),
        np.concatenate([part.observed for part in parts]),
        _numbered(parts),
    )
    logger.info("%d columns, grains: %d", len(columns), columns.grain.max(initial=-1) + 1)
    return columns


def lattice_frames(
    micrograph: Micrograph,
    context: HasLatticeConstant | None,
    tolerance: float = 0.1,
    tile: int | None = None,
) -> tuple[TiledImage, list[Frame]]:
    """Return the image of mean 0 and standard deviation 1, and the local lattices in it, the best first.

    Parameters
    ----------
    micrograph, context, tolerance, tile
        As for `find_columns`.

    Returns
    -------
    TiledImage, list of Frame
        (H, W), float32; there may be no frames.
    """
    shortest, longest = _tolerated_range(context, tolerance)
    guess = float(np.sqrt(shortest * longest)) / micrograph.sampling
    image = _standardised(micrograph.data, tile)
    return image, find_frames(image, guess, float(np.sqrt(longest / shortest)) - 1)


def _standardised(data: NDArray[Any], tile: int | None = None) -> TiledImage:
    """Image of mean 0 and standard deviation 1: truncated kernels do not cancel a large offset quite."""
    blocks = [slice(start, start + 64) for start in range(0, len(data), 64)]  # rows that stay in the cache
    mean = sum(float(np.sum(data[block], dtype=np.float64)) for block in blocks) / data.size
    variance = sum(float(np.sum(np.subtract(data[block], mean, dtype=np.float64) ** 2)) for block in blocks) / data.size

    def make(first: int, last: int) -> NDArray[np.float32]:
        rows = np.empty((last - first, data.shape[1]), dtype=np.float32)
        for start in range(0, last - first, 64):
            block = data[first + start : min(first + start + 64, last)]
            rows[start : start + 64] = np.subtract(block, mean, dtype=np.float64) * (1 / np.sqrt(variance))
        return rows

    return TiledImage((data.shape[0], data.shape[1]), make, tile=tile)


def _expected_range(context: HasLatticeConstant | None) -> tuple[float, float]:
    """Shortest and longest lattice constant expected, Å."""
    if context is None:
        return LATTICE_CONSTANTS
    a = getattr(context, "lattice_constant", None)
    if not isinstance(a, int | float | np.floating):
        raise TypeError(f"context: expected a Context, or None, got {type(context).__name__}")
    if not 0 < a < np.inf:
        raise ValueError(f"context: expected a positive lattice constant in Å, got {a}")
    return float(a), float(a)


def _tolerated_range(context: HasLatticeConstant | None, tolerance: float) -> tuple[float, float]:
    """Shortest and longest lattice constant looked for, Å."""
    shortest, longest = _expected_range(context)
    return shortest / (1 + tolerance), longest * (1 + tolerance)


@dataclass(frozen=True, eq=False)
class _Found:
    """Columns before their positions are refined.

    Parameters
    ----------
    predicted
        (N, 2) position that the neighbours predict, px; that of the peak where there is no lattice.
    start
        (N, 2) position to refine, px.
    sublattice, observed
        (N,) as in `Columns`.
    domain
        (N,) as in `contextem.grains.Grain`; -1 where there is no lattice.
    """

    predicted: NDArray[np.float64]
    start: NDArray[np.float64]
    sublattice: NDArray[np.int64]
    observed: NDArray[np.bool_]
    domain: NDArray[np.int64]

    def take(self, chosen: NDArray[np.bool_]) -> _Found:
        """Return the columns chosen, (N,)."""
        return _Found(
            self.predicted[chosen],
            self.start[chosen],
            self.sublattice[chosen],
            self.observed[chosen],
            self.domain[chosen],
        )


def _columns_of(grain: Grain, peaks: Peaks, a: float) -> _Found:
    """Columns of one grain; sites beyond its edge need a peak of their own."""
    grain = grain.take(grain.sublattice >= 0)
    measured, weight = peaks.snap(grain.positions, SNAP * a)
    keep = (weight > 0.02) | (grain.lopsided < _LOPSIDED)
    grain, measured, weight = grain.take(keep), measured[keep], weight[keep]
    start = grain.positions.copy()
    seen = weight > 0
    start[seen] = _combine(start[seen], measured[seen], weight[seen], _PEAK_SPREAD * a)
    return _Found(grain.positions, start, grain.sublattice, seen, grain.domain)


def _numbered(parts: list[_Found]) -> NDArray[np.int64]:
    """Return the number (N,) of the lattice each column stands on, the largest first; -1 for none.

    Lattices of fewer columns than a grain has are strips of a boundary, unless there is no other.
    """
    keys = np.concatenate([np.where(part.domain < 0, -1, 6 * k + part.domain) for k, part in enumerate(parts)])
    lattices, which, count = np.unique(keys, return_inverse=True, return_counts=True)
    count[lattices < 0] = 0
    rank = np.argsort(np.argsort(-count, kind="stable"), kind="stable")
    return np.where(count >= max(1, min(2 * FEWEST / 3, count.max())), rank, -1)[which]


def _refined(image: TiledImage, parts: list[_Found], a: float) -> NDArray[np.float64]:
    """Positions (N, 2) of the columns of all parts: fitted to the image where observed, less what overlaps."""
    start = np.concatenate([part.start for part in parts])
    observed = np.concatenate([part.observed for part in parts])
    fitted, amplitude, deviation, _ = _kernels.refine_columns(
        image, start, observed, _COLUMN_WIDTH * a, a / np.sqrt(3), _FURTHEST * a
    )
    # neighbours are not Gaussian to the last: what they leave displaces the dim columns most
    misfit = _MISFIT * a * np.percentile(amplitude, 85) / np.maximum(amplitude, 1e-9)
    deviation = np.minimum(np.hypot(_CALIBRATION * deviation, misfit), a)
    first = 0
    for part in parts:
        own = np.arange(first, first + len(part.start))[part.observed]
        first += len(part.start)
        if (part.sublattice >= 0).any() and len(own):
            fitted[own] = _blend(part.predicted[part.observed], fitted[own], deviation[own], _SPREAD * a)
    return np.clip(fitted, -0.5, np.array(image.shape) - 0.5)  # of columns that the border cuts the fit may leave it


def _combine(
    predicted: NDArray[np.float64], measured: NDArray[np.float64], weight: NDArray[np.float64], spread: float
) -> NDArray[np.float64]:
    """Average predicted and measured positions by their variances.

    The neighbours predict a position within `spread`, px. What the measured ones deviate from that beyond it is their
    own error; it is estimated from the columns of similar weight.
    """
    groups = _alike(weight)
    variance = np.interp(weight, [weight[group].mean() for group in groups], _variance(measured - predicted, groups))
    own = np.maximum(variance - spread**2, 0.1 * spread**2)
    total = spread**2 + own
    miss2 = ((measured - predicted) ** 2).sum(axis=1)
    share = spread**2 / total / (1 + miss2 / (8 * total))  # a peak far off is less likely to be the column's own
    return np.asarray(predicted + share[:, None] * (measured - predicted))


def _blend(
    predicted: NDArray[np.float64], fitted: NDArray[np.float64], deviation: NDArray[np.float64], spread: float
) -> NDArray[np.float64]:
    """Average predicted and fitted positions by their variances.

    Columns stand within `spread`, px, of where their neighbours predict them; what fitted ones scatter beyond it and
    beyond their deviations, (N,) px, is error of the scan. It is estimated from columns of similar deviation.
    """
    own = deviation**2
    groups = _alike(own)
    scatter = np.interp(own, [own[group].mean() for group in groups], _variance(fitted - predicted, groups))
    own = np.maximum(own, scatter - spread**2)
    return np.asarray(predicted + (spread**2 / (spread**2 + own))[:, None] * (fitted - predicted))


def _alike(values: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Numbers of the columns in groups of similar value, the least first."""
    return np.array_split(np.argsort(values), max(1, min(12, len(values) // 25)))


def _variance(miss: NDArray[np.float64], groups: list[NDArray[np.int64]]) -> list[float]:
    """Variance per axis of offsets (N, 2) in each group, from the median of their lengths (Rayleigh)."""
    length2 = (miss**2).sum(axis=1)
    return [float(np.median(length2[group])) / (2 * np.log(2)) for group in groups]


def _with_others(parts: list[_Found], grains: list[Grain], peaks: Peaks, a: float) -> list[_Found]:
    """Add peaks that are no columns of a lattice but have some round them: between grains, adatoms in hollow sites.

    A site without a peak that such a peak leaves no room for is no column.
    """
    bright = peaks.strength > _FAINT
    position, strong = peaks.positions[bright], peaks.strength[bright] > _BRIGHT
    columns = np.concatenate([part.start for part in parts])
    to_columns, _ = _kernels.Points(columns).nearest(position, 3, 0)
    to_seen, _ = _kernels.Points(columns[np.concatenate([part.observed for part in parts])]).nearest(position, 1, 0)
    to_site, _ = _kernels.Points(np.concatenate([grain.positions for grain in grains])).within(position, 0.25 * a, 0)
    off = np.where(strong, to_seen[:, 0], np.where(np.isinf(to_site), to_columns[:, 0], 0.0)) > _ROOM * a
    free = off & (to_columns[:, 2] < 1.1 * a)
    if not free.any():
        return parts
    room = _kernels.Points(position[free & strong])
    nowhere = np.full(np.count_nonzero(free), -1)
    return [
        *(part.take(part.observed | np.isinf(room.within(part.start, _ROOM * a, 0)[0])) for part in parts),
        _Found(position[free], position[free], nowhere, nowhere < 0, nowhere),
    ]


def _explained(grains: list[Grain], response: TiledImage) -> float:
    """Peak response summed over all columns: it averages to zero over sites put at random."""
    columns = np.concatenate([np.empty((0, 2)), *(grain.positions[grain.sublattice >= 0] for grain in grains)])
    return float(response.sample(columns).sum())


def _clarity(grains: list[Grain], peaks: Peaks, response: TiledImage, reach: float) -> float:
    """Response where its neighbours predict a column, over that of the peak found there; noise moves peaks off."""
    if not grains:
        return 0.0
    columns = np.concatenate([grain.positions[grain.sublattice >= 0] for grain in grains])
    snapped, weight = peaks.snap(columns, reach)
    met = weight > 0
    values = response.sample(np.concatenate([columns[met], snapped[met]]))
    here, top = (part.sum() for part in np.split(values, 2))
    return float(here / top) if top > 0 else 0.0
