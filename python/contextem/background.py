"""What lies under the columns: the intensity of the hollow sites, and the carbon it tells of.

    b_i = mean of I(2 p_i - p_j) over the three bonds of column i          the hollow sites beside it
    h_i = (mean of b over i, its first and its second neighbours - clean) / peak

`clean` is the least that is met in the micrograph (the 5 % quantile), `peak` how far the brighter sublattice stands out
of its background (the median): carbon is measured in columns.  Nothing is subtracted from the image: patches are
compared with patches beside them, see `contextem.contrast`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem.neighbours import TOGETHER, Neighbourhood
from contextem.tiles import TiledImage, tiled

HEAVY = 1.0
"""Carbon, in columns of the brighter sublattice, under which half of the single vacancies of simulated micrographs are
missed; the class of such columns is not to be relied on."""

CLEAN = 0.05
"""Quantile of the background that counts as clean."""


def local_background(
    image: NDArray[Any] | TiledImage, positions: NDArray[np.float64], around: Neighbourhood
) -> NDArray[np.float64]:
    """Return the mean intensity of the hollow sites beside each column.

    Parameters
    ----------
    image : (H, W) float32 or float64, or TiledImage
        The micrograph.
    positions : (N, 2)
        (row, column) of the columns, px.
    around : Neighbourhood
        Of these columns.

    Returns
    -------
    (N,) float64
        NaN where no hollow site lies in the image.

    Examples
    --------
    >>> from contextem.neighbours import neighbourhood
    >>> pair = np.array([[10.0, 10.0], [10.0, 14.0]])
    >>> around = neighbourhood(pair, np.array([0, 1], np.int8), np.ones(2, bool), 7.0)
    >>> image = np.zeros((20, 30), np.float32)
    >>> image[10, 18] = 3.0
    >>> local_background(image, pair, around).tolist()
    [0.0, 3.0]
    """
    hollow = 2.0 * positions[:, None] - positions[around.first]
    inside = ((hollow >= 0) & (hollow <= np.array(image.shape) - 1)).all(axis=2) & (around.first >= 0)
    values = np.full(inside.shape, np.nan)
    values[inside] = tiled(image).sample(hollow[inside])
    return _mean(values)


def haze(
    image: NDArray[Any] | TiledImage, positions: NDArray[np.float64], around: Neighbourhood
) -> NDArray[np.float64]:
    """Return how much carbon lies on each column, in columns of the brighter sublattice.

    Parameters
    ----------
    image : (H, W) float32 or float64, or TiledImage
        The micrograph.
    positions : (N, 2)
        (row, column) of the columns, px.
    around : Neighbourhood
        Of these columns.

    Returns
    -------
    (N,) float64
        h above; 0 where nothing can be told.
    """
    background = local_background(image, positions, around)
    if not np.isfinite(background).any():
        return np.zeros(len(positions))
    smooth = np.empty(len(positions))
    for start in range(0, len(positions), TOGETHER):
        own = np.arange(start, min(start + TOGETHER, len(positions)))
        near = np.column_stack([own, around.first[own], around.second[own]])
        smooth[own] = _mean(np.where(near >= 0, background[near], np.nan))
    above = tiled(image).sample(positions) - background
    peak = max(np.nanmedian(above[around.side == side]) for side in (0, 1) if (around.side == side).any())
    if not peak > 0:
        return np.zeros(len(positions))
    carbon = (smooth - np.nanquantile(smooth, CLEAN)) / peak
    return np.asarray(np.nan_to_num(np.maximum(carbon, 0.0)))


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each row over what is not NaN; NaN where there is nothing."""
    there = np.isfinite(values)
    count = there.sum(axis=1)
    return np.where(count > 0, np.where(there, values, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)
