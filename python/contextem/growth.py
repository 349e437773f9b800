"""Growth: integer site indices propagated from one peak over the lattice that it belongs to.

No lattice is global in a micrograph that drifts, is strained or holds several grains. So indices are handed on from
neighbour to neighbour, the best backed sites first, each site predicted by an affine fit to the neighbours already
measured, whose frame b1, b2 follows the image. A ridge towards the frame handed on keeps the fit safe at the front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contextem import reference
from contextem.lattice import Floats, lattice_constant
from contextem.peaks import Peaks

Ints = NDArray[np.int64]

SNAP = 0.24
"""A peak stands at a site when it lies within this fraction of a from the predicted position."""

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
    """Hand on site indices from one peak to all sites that can be reached from it.

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
    reach = SNAP * lattice_constant(basis)
    indices, positions, support, lopsided, measured = peaks.points.grow(
        peaks.strength, seed, np.ascontiguousarray(basis), reach, *shape, 0
    )
    typical = float(np.median(support[measured])) if measured.any() else 1.0
    return Sites(indices, positions, support / max(typical, 1e-9), lopsided)


def best_seed(peaks: Peaks, candidates: Ints, basis: Floats) -> tuple[int, float]:
    """Peak round which the rigid site lattice meets most of the peaks, and the weight of those (at most 19)."""
    around = peaks.positions[candidates][:, None] + _NEIGHBOURS @ basis
    _, weight = peaks.snap(around.reshape(-1, 2), SNAP * lattice_constant(basis))
    total = weight.reshape(len(candidates), -1).sum(axis=1) + np.clip(peaks.strength[candidates], 0, 1) ** 2
    best = int(np.argmax(total))
    return int(candidates[best]), float(total[best])
