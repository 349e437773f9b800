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

from contextem.columns import LATTICE_CONSTANTS, Columns, HasLatticeConstant, find_columns
from contextem.lattice import average_cells, find_frames, lattice_constant
from contextem.micrograph import Micrograph
from contextem.neighbours import neighbourhood

MOST_JITTER = 0.2
"""Lattice constants; a row that seems displaced by more is left where it is."""

SMOOTH = 3.0
"""Lattice constants, standard deviation of the Gaussian by which drift is smoothed along the slow direction."""

_ROUNDS = 3  # of jitter: each makes the mean over the cells sharper
_STEPS = 4  # Gauss-Newton steps a row


@dataclass(frozen=True)
class CorrectedScan:
    """A micrograph with its scan corrected, and by how much.

    Attributes
    ----------
    micrograph : Micrograph
        float32; ``provenance["scan"]`` says what was done.
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
    height = image.shape[0]
    rows, moved = np.zeros(height), np.zeros((height, 2))
    if jitter:
        rows = _jitter(image, _basis(micrograph, context))
        image = _shifted_rows(image, rows)
    if drift:
        straight = Micrograph(image.astype(np.float32), micrograph.sampling)
        moved = _drift(find_columns(straight, context), micrograph, context)
        row, column = np.mgrid[:height, : image.shape[1]].astype(np.float64)
        image = ndimage.map_coordinates(image, [row + moved[:, :1], column + moved[:, 1:]], order=3, mode="nearest")
    done = [name for name, wanted in (("jitter", jitter), ("drift", drift)) if wanted]
    return CorrectedScan(
        Micrograph(
            image.astype(np.float32),
            micrograph.sampling,
            micrograph.energy,
            micrograph.detector,
            provenance=micrograph.provenance,
            source=None if micrograph.source is None else f"{micrograph.source}, {' and '.join(done)} corrected",
        ),
        rows,
        moved,
    )


def _basis(micrograph: Micrograph, context: HasLatticeConstant | None) -> NDArray[np.float64]:
    """Return the site lattice of the best tile."""
    low, high = LATTICE_CONSTANTS if context is None else (context.lattice_constant,) * 2
    guess, reach = np.sqrt(low * high) / micrograph.sampling, 1.1 * np.sqrt(high / low) - 1.0
    data = micrograph.as_float("float32")
    frames = find_frames(np.asarray((data - data.mean()) / data.std(), np.float32), float(guess), float(reach))
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


def _drift(columns: Columns, micrograph: Micrograph, context: HasLatticeConstant | None) -> NDArray[np.float64]:
    """Return how far the specimen had moved at each row (H, 2), px, without mean and slope."""
    height = micrograph.shape[0]
    own = np.flatnonzero((columns.grain == 0) & (columns.sublattice == 0) & columns.observed)
    positions = columns.positions[own]
    a = (np.mean(LATTICE_CONSTANTS) if context is None else context.lattice_constant) / micrograph.sampling
    everyone = np.ones(len(own), bool)
    around = neighbourhood(positions, np.zeros(len(own), np.int8), everyone, float(a))
    index, seen = _indices(positions, around.second)
    # p = o + L k + slope (r - middle) + d(r): drift and lattice by turns
    moved = np.zeros((height, 2))
    rows = np.clip(np.rint(positions[:, 0]).astype(int), 0, height - 1)
    design = np.column_stack([np.ones(len(own)), index])[seen]
    for _ in range(6):
        lattice = np.linalg.lstsq(design, (positions - moved[rows])[seen], rcond=None)[0]
        miss = positions[seen] - design @ lattice
        weight = np.bincount(rows[seen], minlength=height).astype(np.float64)
        smooth = ndimage.gaussian_filter1d(weight, SMOOTH * a, mode="constant")
        for axis in range(2):
            total = np.bincount(rows[seen], miss[:, axis], minlength=height)
            moved[:, axis] = ndimage.gaussian_filter1d(total, SMOOTH * a, mode="constant") / np.maximum(smooth, 1e-9)
        # what is constant or steady is the lattice's
        line = np.polyfit(np.arange(height), moved, 1)
        moved -= np.outer(np.arange(height), line[0]) + line[1]
    return moved


def _indices(positions: NDArray[np.float64], second: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the whole numbers (N, 2) of columns on their lattice, handed on from neighbour to neighbour."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order

    there = second >= 0
    vectors = (positions[second] - positions[:, None])[there]
    # one of the six directions, and the next one 60 degrees on
    first = vectors[np.argmax(vectors @ np.array([0.3, 1.0]))]
    angle = np.arctan2(vectors[:, 0], vectors[:, 1]) - np.arctan2(first[0], first[1])
    sector = np.rint(angle / (np.pi / 3.0)).astype(int) % 6
    steps = np.array([[1, 0], [0, 1], [-1, 1], [-1, 0], [0, -1], [1, -1]])[sector]
    number = np.full(there.shape, -1)
    number[there] = np.arange(len(vectors))
    start, stop = np.nonzero(there)[0], second[there]
    n = len(positions)
    graph = csr_array((np.ones(len(start)), (start, stop)), shape=(n, n))
    middle = int(np.argmin(np.hypot(*(positions - positions.mean(axis=0)).T)))
    order, before = breadth_first_order(graph, middle)
    index = np.zeros((n, 2), dtype=np.int64)
    for column in order[1:]:
        origin = before[column]
        index[column] = index[origin] + steps[number[origin][second[origin] == column][0]]
    seen = np.zeros(n, bool)
    seen[order] = True
    return index, seen
