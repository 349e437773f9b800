"""Growth: integer site indices propagated from one peak over the lattice that it belongs to.

No lattice is global in a micrograph that drifts, is strained or holds several grains. So indices are handed on from
neighbour to neighbour, the best backed sites first, each site predicted by an affine fit to the neighbours already
measured, whose frame b1, b2 follows the image. A ridge towards the frame handed on keeps the fit safe at the front.

A growth that comes to a grain boundary goes on into the other grain: its frame turns with the lattice. Scans move whole
rows, so they turn no lattice vector that lies along a row. With M = B^-1 F for the frame F of a site and B at the seed,
rows b1 and b2, scan errors leave M_10 = 0, and a grain turned by w has M_10 = -sin w. Where that is seen, the growth is
repeated without the peaks there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from contextem import _kernels, reference
from contextem.lattice import Floats, lattice_constant
from contextem.peaks import Peaks

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SNAP = 0.24
"""A peak stands at a site when it lies within this fraction of a from the predicted position."""

SUPPORT = 0.35
"""Least weight of peaks round a site of the lattice, over that of a typical site."""

FEWEST = 30
"""Least number of sites of a grain."""

_TURN = np.sin(np.deg2rad(2.5))  # between two grains; half of the least angle at which they are told apart
_TURN_WIDTH = 2.0  # of the neighbourhood over which the turn is averaged, index steps
_AT_SEED = 5  # index steps round the seed, the ground that is certainly its own

_NEIGHBOURS = reference.hexagon(2)  # (18, 2)


@dataclass(frozen=True, eq=False)
class Sites:
    """Sites reached by a growth, those included where the lattice has ended.

    Parameters
    ----------
    indices
        (S, 2) site indices i, j.
    positions
        (S, 2) position that the neighbours of a site predict, row and column, px.
    support
        (S,) weight of the peaks met round the site over that of a typical site, 0 outside of the image.
    lopsided
        (S,) how far these peaks stand to one side, in site spacings: about 0 inside of a grain, 1 beyond its edge.
    """

    indices: Ints
    positions: Floats
    support: Floats
    lopsided: Floats


def grow(peaks: Peaks, seed: int, basis: Floats, shape: tuple[int, int]) -> Sites:
    """Hand on site indices from one peak to all sites of its grain that can be reached from it.

    Parameters
    ----------
    peaks
        Peaks of the image.
    seed
        Number of the peak to start from; it gets the indices (0, 0).
    basis
        (2, 2) site lattice round it, rows b1 and b2, px.
    shape
        (H, W) of the image.

    Returns
    -------
    Sites
    """
    own = np.ones(len(peaks.positions), dtype=bool)
    while True:
        here = peaks if own.all() else Peaks(peaks.positions[own], peaks.strength[own])
        sites = _spread(here, int(np.count_nonzero(own[:seed])), basis, shape)
        turned = _turned(sites, basis)
        if not turned.any():
            return sites
        _, nearest = _kernels.Points(sites.positions).nearest(peaks.positions, 1, 0)
        lost = own & turned[nearest[:, 0]]
        lost[seed] = False
        if not lost.any():
            return sites
        own &= ~lost


def _spread(peaks: Peaks, seed: int, basis: Floats, shape: tuple[int, int]) -> Sites:
    """Hand on site indices from one peak to all sites that can be reached from it, of whatever grain."""
    reach = SNAP * lattice_constant(basis)
    indices, positions, support, lopsided, measured = peaks.points.grow(
        peaks.strength, seed, np.ascontiguousarray(basis), reach, *shape, 0
    )
    typical = float(np.median(support[measured])) if measured.any() else 1.0
    return Sites(indices, positions, support / max(typical, 1e-9), lopsided)


def _turned(sites: Sites, basis: Floats) -> Bools:
    """Tell which sites, (S,), belong to lattices turned against that of the seed, as many together as a grain has.

    They are turned by more than half of the least angle between grains, and by five times the scatter of single sites.
    """
    index = sites.indices - sites.indices.min(axis=0) + 1
    row = np.full(index.max(axis=0) + 2, np.nan)
    supported = sites.support >= SUPPORT
    row[tuple(index[supported].T)] = sites.positions[supported, 0]
    down, right = ((np.roll(row, -1, axis) - np.roll(row, 1, axis)) / 2 for axis in (0, 1))  # row parts of b1 and b2
    slope = np.linalg.inv(basis)[1]
    turn = slope[0] * down + slope[1] * right
    known = np.isfinite(turn)
    turn[~known] = 0.0
    mass, total = _kernels.blur_boards(np.stack([known, turn]), _TURN_WIDTH)
    mean = total / np.maximum(mass, 1e-9)
    at_seed = index[(sites.indices == 0).all(axis=1)][0]
    own = np.zeros_like(known)
    own[tuple(slice(max(k - _AT_SEED, 0), k + _AT_SEED + 1) for k in at_seed)] = True
    own &= known
    limit = max(_TURN, 5 * float(np.median(abs(turn - mean)[known])) / 0.6745) if own.any() else np.inf
    away = np.zeros_like(mean)
    for _ in range(3):
        if own.any():
            away = abs(mean - np.median(mean[own]))
            own = known & (away < limit)
    label, count = ndimage.label(known & (away >= limit), np.ones((3, 3)))
    many = np.bincount(label.ravel(), minlength=count + 1) >= FEWEST
    many[0] = False
    return np.asarray(many[label[tuple(index.T)]])


def best_seed(peaks: Peaks, candidates: Ints, basis: Floats) -> tuple[int, float]:
    """Peak round which the rigid site lattice meets most of the peaks, and the weight of those (at most 19)."""
    around = peaks.positions[candidates][:, None] + _NEIGHBOURS @ basis
    _, weight = peaks.snap(around.reshape(-1, 2), SNAP * lattice_constant(basis))
    total = weight.reshape(len(candidates), -1).sum(axis=1) + np.clip(peaks.strength[candidates], 0, 1) ** 2
    best = int(np.argmax(total))
    return int(candidates[best]), float(total[best])
