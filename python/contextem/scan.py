"""Correction of the scan: jitter of single rows, and slow drift, both measured by the lattice.

    jitter    s(r) = argmin_s sum_c [ I(r, c) - g R(r, c - s) ]^2         R: mean of the image over lattice translations
    drift     p_n = o + L k_n + d(r_n),    d smooth, without mean and slope

Neighbouring cells show what a row would look like had it not been displaced; a displacement along the row moves it
against them.  The columns p_n, with whole numbers k_n on the lattice L, tell how the specimen moved while the image was
taken; a steady motion is a shear, which `contextem.calibration` takes out of the patches without touching the image.

Jones and Nellist, "Identifying and correcting scan noise and drift in the scanning transmission electron microscope",
https://doi.org/10.1017/S1431927613001402.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.interpolate import BSpline
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order
from scipy.spatial import cKDTree

from contextem.columns import Columns, HasLatticeConstant, find_columns, lattice_frames
from contextem.grain_lattices import HEXAGON
from contextem.lattice import average_cells, lattice_constant
from contextem.micrograph import Micrograph

MOST_JITTER = 0.2
"""Lattice constants; a row that seems displaced by more is left where it is."""

KNOTS = 2.0
"""Columns of a sublattice from one knot to the next of the spline that drift is along the slow direction."""

FEWEST = 60
"""Columns of a sublattice without which drift is not measured."""

_PASSES = 2  # of drift and jitter, each with the other one corrected
_ROUNDS = 6  # of jitter: each makes the mean over the cells sharper
_STEPS = 4  # Gauss-Newton steps a row


@dataclass(frozen=True)
class CorrectedScan:
    """A micrograph with its scan corrected, and by how much.

    Attributes
    ----------
    micrograph : Micrograph
        float32; its source says what was corrected.
    jitter : (H,) float64
        How far each row was displaced along itself, px.
    drift : (H, 2) float64
        How far the specimen had moved at each row, beyond steady motion, px along (row, column).
    """

    micrograph: Micrograph
    jitter: NDArray[np.float64]
    drift: NDArray[np.float64]


def correct_scan(
    micrograph: Micrograph, context: HasLatticeConstant | None = None, *, jitter: bool = True, drift: bool = True
) -> CorrectedScan:
    """Correct row jitter and slow drift of a micrograph; `contextem.classify` does without it.

    Parameters
    ----------
    micrograph : Micrograph
        Image of a crystal, rows along the fast direction of the scan.
    context : Context, optional
        Its lattice constant, Å, as for `find_columns`.
    jitter, drift : bool
        What to correct.

    Returns
    -------
    CorrectedScan

    Raises
    ------
    ValueError
        If no lattice is seen.

    Examples
    --------
    >>> from contextem.examples import demo_micrograph
    >>> demo = demo_micrograph()
    >>> corrected = correct_scan(demo.micrograph, demo.context)
    >>> corrected.micrograph.shape == demo.micrograph.shape, corrected.jitter.shape == demo.micrograph.shape[:1]
    (True, True)
    """
    image = micrograph.as_float("float64")
    rows, moved = np.zeros(len(image)), np.zeros((len(image), 2))
    for _ in range(_PASSES):
        straight = _shifted_rows(image, rows)
        moved = _drift(find_columns(_like(micrograph, straight), context), len(image))
        if jitter:
            # cells are alike only where drift does not bend the lattice; along the rows it is taken out exactly
            steady = _shifted_rows(straight, moved[:, 1])
            rows += _jitter(steady, _basis(_like(micrograph, steady), context))
    image = _shifted_rows(image, rows)
    if drift:
        image = _without_drift(image, moved)
    else:
        moved = np.zeros_like(moved)
    done = " and ".join(name for name, wanted in (("jitter", jitter), ("drift", drift)) if wanted)
    return CorrectedScan(
        Micrograph(
            image.astype(np.float32),
            micrograph.sampling,
            micrograph.energy,
            micrograph.detector,
            provenance=micrograph.provenance,
            source=f"{micrograph.source}, {done} corrected" if micrograph.source and done else micrograph.source,
        ),
        rows,
        moved,
    )


def _like(micrograph: Micrograph, image: NDArray[np.float64]) -> Micrograph:
    return Micrograph(image.astype(np.float32), micrograph.sampling)


def _without_drift(image: NDArray[np.float64], moved: NDArray[np.float64]) -> NDArray[np.float64]:
    """Resample an image where the specimen would have been without drift (H, 2), px."""
    row, column = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float64)
    return np.asarray(
        ndimage.map_coordinates(image, [row + moved[:, :1], column + moved[:, 1:]], order=3, mode="nearest")
    )


def _basis(micrograph: Micrograph, context: HasLatticeConstant | None) -> NDArray[np.float64]:
    """Return the site lattice of the best tile."""
    _, frames = lattice_frames(micrograph, context)
    if not frames:
        raise ValueError("micrograph: no lattice is seen, so the scan cannot be corrected by it; classify it as it is")
    return frames[0].basis


def _jitter(image: NDArray[np.float64], basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much each row (H,) is displaced along itself, px."""
    most = MOST_JITTER * lattice_constant(basis)
    level = ndimage.gaussian_filter(image, lattice_constant(basis))
    flat = image - level
    total = np.zeros(len(image))
    for _ in range(_ROUNDS):
        mean = average_cells(_shifted_rows(flat, total).astype(np.float32), basis).astype(np.float64)
        shift = total.copy()
        for _ in range(_STEPS):
            expected = _shifted_rows(mean, -shift)
            slope = np.gradient(expected, axis=1)
            gain = (flat * expected).sum(axis=1) / np.maximum((expected**2).sum(axis=1), 1e-12)
            # moved by s, the row is expected - s slope
            step = -((flat - gain[:, None] * expected) * slope).sum(axis=1)
            step /= np.maximum(gain * (slope**2).sum(axis=1), 1e-12)
            shift = np.clip(shift + step, -most, most)
        total = np.where(np.abs(shift) < most, shift, 0.0)
        # the cells follow slow displacements; those are drift
        total -= ndimage.gaussian_filter1d(total, lattice_constant(basis), mode="nearest")
    return total


def _shifted_rows(image: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move each row back by its shift along itself (H,), px: band-limited, mirrored beyond its ends."""
    width = image.shape[1]
    mirrored = np.concatenate([image, image[:, ::-1]], axis=1)
    turns = np.exp(2j * np.pi * np.outer(shift, fft.rfftfreq(2 * width)))
    return np.asarray(fft.irfft(fft.rfft(mirrored, axis=1) * turns, n=2 * width, axis=1)[:, :width])


def _drift(columns: Columns, height: int) -> NDArray[np.float64]:
    """Return how far the specimen had moved at each row (H, 2), px, without mean and slope."""
    own = np.flatnonzero((columns.grain == 0) & (columns.sublattice == 0) & columns.observed)
    positions = columns.positions[own]
    if len(own) < FEWEST:
        return np.zeros((height, 2))
    index, seen = _indices(positions)
    positions, index = positions[seen], index[seen]
    lattice = np.column_stack([np.ones(len(index)), index])
    # a spline of the rows of the image would explain these rows by themselves: it is one of the rows of the lattice
    steady = (lattice @ np.linalg.lstsq(lattice, positions, rcond=None)[0])[:, 0]
    spacing = np.sqrt(np.ptp(positions, axis=0).prod() / len(positions))
    inner = np.linspace(steady.min(), steady.max(), max(2, round(np.ptp(steady) / (KNOTS * spacing)) + 1))
    knots = np.concatenate([np.repeat(inner[0], 3), inner, np.repeat(inner[-1], 3)])
    design = np.hstack([lattice, BSpline.design_matrix(steady, knots, 3).toarray()])
    weight = np.ones(len(index))
    for _ in range(4):  # columns far off count less
        solution = np.linalg.lstsq(design * weight[:, None], positions * weight[:, None], rcond=None)[0]
        miss = np.hypot(*(positions - design @ solution).T)
        weight = np.sqrt(np.minimum(1.0, 2.0 * np.median(miss) / np.maximum(miss, 1e-9)))
    grid = np.linspace(inner[0], inner[-1], 2 * height)
    drift = np.asarray(BSpline.design_matrix(grid, knots, 3).toarray() @ solution[lattice.shape[1] :])
    line = np.polyfit(grid, drift, 1)  # what is constant or steady is the lattice's
    drift -= np.outer(grid, line[0]) + line[1]
    rows = np.interp(np.arange(height), grid + drift[:, 0], grid)
    return np.column_stack([np.interp(rows, grid, drift[:, axis]) for axis in range(2)])


def _indices(positions: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return whole numbers (N, 2) of the columns of one sublattice, handed on from neighbour to neighbour.

    And which columns were reached: (N,).
    """
    n = len(positions)
    distance, near = cKDTree(positions).query(positions, k=min(7, n))
    typical = float(np.median(distance[:, 1:]))
    pairs = np.abs(distance / typical - 1.0) < 0.25
    start, stop = np.nonzero(pairs)[0], near[pairs]
    vectors = positions[stop] - positions[start]
    # the six directions, counted from the one that is nearest to that of the columns
    turn = np.arctan2(vectors[:, 0], vectors[:, 1])
    offset = np.angle(np.mean(np.exp(6j * turn))) / 6.0
    sector = np.rint((turn - offset) / (np.pi / 3.0)).astype(int) % 6
    steps = HEXAGON[sector]
    step = {(int(i), int(j)): k for k, (i, j) in enumerate(zip(start, stop, strict=True))}
    middle = int(np.argmin(np.hypot(*(positions - positions.mean(axis=0)).T)))
    order, before = breadth_first_order(csr_array((np.ones(len(start)), (start, stop)), shape=(n, n)), middle)
    index = np.zeros((n, 2), dtype=np.int64)
    for column in order[1:]:
        origin = int(before[column])
        index[column] = index[origin] + steps[step[origin, int(column)]]
    seen = np.zeros(n, bool)
    seen[order] = True
    return index, seen
