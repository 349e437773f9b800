"""Which sublattice is the metal's: all columns of a neighbourhood, and all of a grain, decide together.

    s_i = log (p_metal + p_dopant) - log (p_X2 + p_single + p_double)         what column i says of its own site
    l_i = mean of s_j over i and the surroundings on its sublattice, and of -s_j over those on the other
    g_i = the same mean over the whole grain
    P(metal site) = 1 / (1 + exp(-strength * (l_i + g_i) / 2))

Where two chalcogens are as bright as the metal, a single column can hardly tell which of them it is; sixty can, as all
columns of a sublattice are of one kind, and a grain still better, unless the lattice was taken for another one in
places, which the neighbourhood tells.  What class of its site a column is remains its own affair.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from contextem.columns import CLASSES
from contextem.neighbours import TOGETHER

METAL_SITE = np.array([name in ("metal", "dopant") for name in CLASSES])
"""Which classes stand on metal sites."""

SURE = 8.0
"""Log odds beyond which a column's word counts no more."""


class Surroundings(Protocol):
    """Columns around each column, as `contextem.neighbours.Neighbourhood` has them."""

    @property
    def same(self) -> NDArray[np.integer[Any]]:
        """(N, K) on the same sublattice; -1 for none."""

    @property
    def other(self) -> NDArray[np.integer[Any]]:
        """(N, K) on the other sublattice; -1 for none."""

    @property
    def side(self) -> NDArray[np.integer[Any]]:
        """(N,) sublattice of the column, 0 or 1."""

    @property
    def grain(self) -> NDArray[np.integer[Any]]:
        """(N,) number of the grain it is in."""


def site_odds(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the log odds of each column (N,) to stand on a metal site, at most `SURE` either way.

    Examples
    --------
    >>> site_odds(np.array([[0.5, 0.25, 0.25, 0.0, 0.0]])).round(3).tolist()
    [1.099]
    """
    p = np.asarray(probabilities, np.float64)
    metal, chalcogen = p[:, METAL_SITE].sum(axis=1), p[:, ~METAL_SITE].sum(axis=1)
    tiny = np.exp(-2.0 * SURE)
    odds = np.log(np.maximum(metal, tiny)) - np.log(np.maximum(chalcogen, tiny))
    return np.asarray(np.clip(odds, -SURE, SURE))


def common_odds(
    probabilities: NDArray[np.floating], same: NDArray[np.integer], other: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return the mean t of the log odds that a neighbourhood gives each column (N,) to stand on a metal site.

    Parameters
    ----------
    probabilities : (N, 5)
        Posterior of each column by itself.
    same, other : (N, K) int
        Columns around on the same and on the other sublattice; -1 for none.

    Examples
    --------
    >>> p = np.array([[0.4, 0.0, 0.6, 0.0, 0.0], [0.9, 0.0, 0.1, 0.0, 0.0]])
    >>> common_odds(p, np.array([[1], [0]]), np.array([[-1], [-1]])).round(2).tolist()
    [0.9, 0.9]
    """
    odds = site_odds(probabilities)
    total, count = odds.copy(), np.ones(len(odds))
    for start in range(0, len(odds), TOGETHER):
        part = slice(start, start + TOGETHER)
        for indices, sign in ((same[part], 1.0), (other[part], -1.0)):
            there = indices >= 0
            total[part] += sign * np.where(there, odds[indices], 0.0).sum(axis=1)
            count[part] += there.sum(axis=1)
    return np.asarray(total / count)


def grain_odds(
    probabilities: NDArray[np.floating], side: NDArray[np.integer], grain: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return the mean of the log odds that all columns of a grain give each column (N,) to stand on a metal site.

    Parameters
    ----------
    probabilities : (N, 5)
        Posterior of each column by itself.
    side : (N,) int
        Sublattice of each column, 0 or 1.
    grain : (N,) int
        Number of its grain; negative ones are grains too.

    Examples
    --------
    >>> p = np.array([[0.4, 0.0, 0.6, 0.0, 0.0], [0.1, 0.0, 0.9, 0.0, 0.0], [0.9, 0.0, 0.1, 0.0, 0.0]])
    >>> grain_odds(p, np.array([0, 1, 1]), np.array([0, 0, 1])).round(2).tolist()
    [0.9, -0.9, 2.2]
    """
    sign = np.where(side == 0, 1.0, -1.0)
    _, which = np.unique(grain, return_inverse=True)
    total = np.bincount(which, sign * site_odds(probabilities))
    return np.asarray(sign * (total / np.bincount(which))[which] if len(which) else np.zeros(0))


def shared_odds(probabilities: NDArray[np.floating], around: Surroundings) -> NDArray[np.float64]:
    """Return the mean (N,) of what the neighbourhood and the grain of each column say of its site.

    Parameters
    ----------
    probabilities : (N, 5)
        Posterior of each column by itself.
    around : Surroundings
        Neighbourhood and grain of each column.
    """
    local = common_odds(probabilities, around.same, around.other)
    return 0.5 * (local + grain_odds(probabilities, around.side, around.grain))


def agree_on_sites(
    probabilities: NDArray[np.floating], common: NDArray[np.float64], strength: float
) -> NDArray[np.float32]:
    """Return the posterior of columns whose neighbourhoods have decided which site they stand on.

    Parameters
    ----------
    probabilities : (N, 5)
        Posterior of each column by itself.
    common : (N,)
        From `shared_odds`.
    strength : float
        How much is made of it; 0 leaves the posterior as it is.

    Returns
    -------
    (N, 5) float32
        Rows add up to one.

    Examples
    --------
    >>> p = np.array([[0.4, 0.0, 0.5, 0.1, 0.0]])
    >>> agree_on_sites(p, np.array([2.0]), 3.0).round(3).tolist()
    [[0.9980000257492065, 0.0, 0.0020000000949949026, 0.0, 0.0]]
    """
    p = np.asarray(probabilities, np.float64)
    if strength == 0.0:
        return np.asarray(p, np.float32)
    metal = 1.0 / (1.0 + np.exp(-np.clip(strength * common, -60.0, 60.0)))
    shares = np.where(METAL_SITE, metal[:, None], 1.0 - metal[:, None])
    tiny = np.finfo(np.float64).tiny
    totals = np.where(METAL_SITE, p[:, METAL_SITE].sum(axis=1)[:, None], p[:, ~METAL_SITE].sum(axis=1)[:, None])
    return np.asarray(p / np.maximum(totals, tiny) * shares, np.float32)


def sublattice_posteriors(
    probabilities: NDArray[np.floating], sublattice: NDArray[np.integer], grain: NDArray[np.integer]
) -> list[dict[str, Any]]:
    """Return for each grain which of its sublattices is the metal's, and how likely that is.

    Parameters
    ----------
    probabilities : (N, 5)
        Posterior of the columns.
    sublattice : (N,) int
        0 or 1; -1 for columns on neither, which are left out.
    grain : (N,) int
        Number of the grain; -1 for none.

    Returns
    -------
    list of dict
        For each grain ``grain``, ``columns``, ``metal_sublattice`` and ``posterior``: the mean over its columns.

    Examples
    --------
    >>> p = np.array([[0.9, 0.0, 0.1, 0.0, 0.0], [0.1, 0.0, 0.9, 0.0, 0.0]])
    >>> sublattice_posteriors(p, np.array([1, 0]), np.array([0, 0]))
    [{'grain': 0, 'columns': 2, 'metal_sublattice': 1, 'posterior': 0.9}]
    """
    told = []
    for number in np.unique(grain[sublattice >= 0]):
        own = (grain == number) & (sublattice >= 0)
        metal = np.asarray(probabilities)[own][:, METAL_SITE].sum(axis=1, dtype=np.float64)
        first = float(np.mean(np.where(sublattice[own] == 0, metal, 1.0 - metal)))
        told.append(
            {
                "grain": int(number),
                "columns": int(own.sum()),
                "metal_sublattice": 0 if first >= 0.5 else 1,
                "posterior": max(first, 1.0 - first),
            }
        )
    return told
