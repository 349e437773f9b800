"""Which sublattice is the metal's: all columns of a neighbourhood decide together.

    s_i = log (p_metal + p_dopant) - log (p_X2 + p_single + p_double)         what column i says of its own site
    t_i = mean of s_j over i and the surroundings on its sublattice, and of -s_j over those on the other
    P(metal site) = 1 / (1 + exp(-strength * t_i))

Where two chalcogens are as bright as the metal, a single column can hardly tell which of them it is; sixty can, as all
columns of a sublattice are of one kind.  What class of its site a column is remains its own affair.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contextem.columns import CLASSES

METAL_SITE = np.array([name in ("metal", "dopant") for name in CLASSES])
"""Which classes stand on metal sites."""

SURE = 8.0
"""Log odds beyond which a column's word counts no more."""


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
    for indices, sign in ((same, 1.0), (other, -1.0)):
        there = indices >= 0
        total += sign * np.where(there, odds[indices], 0.0).sum(axis=1)
        count += there.sum(axis=1)
    return np.asarray(total / count)


def agree_on_sites(
    probabilities: NDArray[np.floating], common: NDArray[np.float64], strength: float
) -> NDArray[np.float32]:
    """Return the posterior of columns whose neighbourhoods have decided which site they stand on.

    Parameters
    ----------
    probabilities : (N, 5)
        Posterior of each column by itself.
    common : (N,)
        From `common_odds`.
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
