"""The lattice as the ruler: how the regular lattice of the host is distorted in the image.

    v = V R u / a       v (2,) px between two columns of a sublattice, a apart in the specimen along the unit vector u

The rotation R is that of the grain; what is left, the symmetric V (2, 2) px/Å, is sampling and distortion of the scan,
and the same for all grains: V = I / sampling where the header is right and the scan undistorted.  A rotation of the
scan cannot be told from one of the specimen, nor its shear from a homogeneous strain; patches are to be undistorted
either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from contextem._threads import thread_count
from contextem.columns import Columns
from contextem.neighbours import two_sublattices

DISAGREEMENT = 0.01
"""Relative difference between the sampling stated and that by the lattice from which on the lattice is believed."""

FEWEST = 60
"""Pairs of neighbours without which a lattice is no ruler."""

_REACH = 0.3  # how far a neighbour may be from where it is expected, of the distance
_CLIPPED = 2.5  # standard deviations beyond which a pair counts less
_ITERATIONS = 8


@dataclass(frozen=True)
class Calibration:
    """Sampling and distortion of an image.

    Attributes
    ----------
    stated : float
        Sampling stated by file or user, Å/px.
    scale : (2, 2) float64
        px/Å along (row, column), symmetric: V above.
    measured : bool
        False where too few columns were found: `scale` is then what is stated.
    error : float
        Relative standard error of the sampling by the lattice, the lattice constant taken for exact.
    """

    stated: float
    scale: NDArray[np.float64]
    measured: bool
    error: float

    @property
    def by_lattice(self) -> float:
        """Sampling by the lattice, Å/px: the root of the area that a square pixel covers."""
        return float(1.0 / np.sqrt(np.linalg.det(self.scale)))

    @property
    def disagrees(self) -> bool:
        """Whether the sampling by the lattice differs from the stated one by more than `DISAGREEMENT`."""
        return self.measured and abs(self.by_lattice / self.stated - 1.0) > DISAGREEMENT

    @property
    def sampling(self) -> float:
        """Sampling to go by, Å/px: that of the lattice where the two disagree."""
        return self.by_lattice if self.disagrees else self.stated

    @property
    def distortion(self) -> NDArray[np.float64]:
        """(2, 2) symmetric, of determinant 1: what the scan does to (row, column) apart from its sampling."""
        return self.scale * self.by_lattice

    def to_dict(self) -> dict[str, Any]:
        """Return both samplings, which one is used, and the distortion, as plain values that JSON can hold."""
        return {
            "stated_angstrom_per_px": self.stated,
            "by_lattice_angstrom_per_px": self.by_lattice if self.measured else None,
            "by_lattice_relative_error": self.error if self.measured else None,
            "used": "lattice" if self.disagrees else "stated",
            "distortion": self.distortion.tolist(),
        }


def calibrate(columns: Columns, lattice_constant: float, sampling: float) -> Calibration:
    """Measure sampling and distortion of an image by the lattice its columns stand on.

    Parameters
    ----------
    columns : Columns
        As found, or your own.
    lattice_constant : float
        Of the host, Å.
    sampling : float
        As stated, Å/px; right to about 15 %.

    Returns
    -------
    Calibration
        The stated sampling and no distortion where fewer than `FEWEST` pairs of neighbours are seen.

    Examples
    --------
    >>> i, j = np.mgrid[:20, :20].reshape(2, -1)
    >>> metal = np.stack([8.0 * np.sqrt(0.75) * i, 8.0 * (j + i / 2)], axis=1)
    >>> columns = Columns(np.vstack([metal, metal + [0.0, 8.0 / np.sqrt(3)]]), np.repeat([0, 1], 400))
    >>> found = calibrate(columns, 3.2, 0.41)
    >>> round(found.by_lattice, 4), found.disagrees
    (0.4, True)
    """
    on_lattice = columns.grain >= 0 if (columns.grain >= 0).any() else np.ones(len(columns), bool)
    seen = np.flatnonzero(columns.observed & on_lattice)
    vectors, grain = _vectors(
        columns.positions[seen], columns.sublattice[seen], columns.grain[seen], lattice_constant / sampling
    )
    scales, pairs, errors = [], [], []
    for number in np.unique(grain):
        own = vectors if len(np.unique(grain)) == 1 else vectors[grain == number]
        if len(own) >= FEWEST:
            stretch, error = _stretch(own)
            scales.append(stretch / lattice_constant)
            pairs.append(len(own))
            errors.append(error / np.sqrt(np.linalg.det(stretch)))
    if not scales:
        return Calibration(sampling, np.eye(2) / sampling, False, np.inf)
    share = np.array(pairs) / np.sum(pairs)
    return Calibration(
        sampling, np.einsum("g,gij->ij", share, scales), True, float(np.sqrt(np.sum((share * errors) ** 2)))
    )


def _vectors(
    positions: NDArray[np.float64], sublattice: NDArray[np.int8], grain: NDArray[np.int32], a: float
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Vectors (K, 2) from columns to those about a, px, away on the same sublattice and grain, and the grain (K,)."""
    sides = two_sublattices(positions, sublattice, a)
    vectors, grains = [np.zeros((0, 2))], [np.zeros(0, np.int32)]
    for side in (0, 1):
        own = np.flatnonzero(sides == side)
        if len(own) < FEWEST // 6:
            continue
        distance, near = cKDTree(positions[own]).query(positions[own], k=7, workers=thread_count())
        near = own[near]
        there = (np.abs(distance / a - 1.0) < _REACH) & (grain[near] == grain[own, None])
        vectors.append((positions[near] - positions[own, None])[there])
        grains.append(np.broadcast_to(grain[own, None], there.shape)[there])
    return np.concatenate(vectors), np.concatenate(grains)


def _stretch(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Symmetric stretch (2, 2) of a hexagon of unit vectors that gives the vectors (K, 2), and its standard error.

    By least squares, those far off counting less (Huber); the six directions are those of a regular hexagon at first.
    """
    turn = np.angle(np.mean(np.exp(6j * np.arctan2(vectors[:, 0], vectors[:, 1])))) / 6.0
    affine = np.median(np.hypot(*vectors.T)) * np.eye(2)
    weight = np.ones(len(vectors))
    for _ in range(_ITERATIONS):
        unit = _ideal(vectors @ np.linalg.inv(affine).T, turn)
        weighted = unit * weight[:, None]
        affine = np.linalg.solve(weighted.T @ unit, weighted.T @ vectors).T
        del weighted
        miss = np.hypot(*np.subtract(vectors, fitted := unit @ affine.T, out=fitted).T)
        spread = np.median(miss) / np.sqrt(2.0 * np.log(2.0))  # per axis, of a Rayleigh distribution
        weight = np.minimum(1.0, _CLIPPED * spread / np.maximum(miss, 1e-12))
    # affine = V R: the rotation that `turn` has left belongs to the grain
    u, singular, _ = np.linalg.svd(affine)
    # every pair is seen from both of its ends
    return (u * singular) @ u.T, float(spread / np.sqrt(len(vectors) / 2.0))


def _ideal(straight: NDArray[np.float64], turn: float) -> NDArray[np.float64]:
    """Return the nearest of the six unit vectors of a hexagon, turned from columns to rows, for each vector (K, 2)."""
    angle = np.arctan2(straight[:, 0], straight[:, 1])
    step = np.rint((angle - turn) / (np.pi / 3.0))
    angle = turn + step * (np.pi / 3.0)
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)
