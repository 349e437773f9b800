"""What a column looks like among its neighbours: features that no gain, offset or rotation of the image changes.

    a (N, J)  ->  x = (a_00 - level, a_n0, |c_nm|) / contrast      (N, J')   the rotation invariants of the column
              ->  the same m = 0 invariants, averaged over the three nearest columns, the next six, and the surroundings
                  on either sublattice; and how bright the middles of all these columns are

`level` is the mean of a_00 over the surroundings, `contrast` the root mean square there of the norm of the others.
A dark column between dark neighbours is not what it is between bright ones; and what "bright" means, only the whole
sublattice can tell: its quantiles say which share of it is doped or vacant, and how strong the noise is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_legendre

from contextem.neighbours import TOGETHER, Neighbourhood
from contextem.zernike import ZernikeBasis, rotation_invariants

CENTRE = 0.15
"""Width of the Gaussian that weighs the middle of a patch, in patch radii."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the brightness of a sublattice that a column is compared with."""


def invariant_orders(basis: ZernikeBasis) -> NDArray[np.int64]:
    """(J',) angular order ``|m|`` of each rotation invariant, in the order of `rotation_invariants`."""
    return np.asarray([m for n in range(int(basis.n.max()) + 1) for m in range(n % 2, n + 1, 2)])


def contrast_blocks(basis: ZernikeBasis) -> dict[str, int]:
    """Return the number of features of each block, in the order of `contrast_features`.

    Parameters
    ----------
    basis : ZernikeBasis
        The basis of the moments.

    Returns
    -------
    dict of str to int
        ``invariants`` and ``centre`` of the column itself, then ``first``, ``second``, ``same`` and ``other``.

    Examples
    --------
    >>> sum(contrast_blocks(ZernikeBasis(10, 32)).values())
    80
    """
    radial = int((basis.m == 0).sum())
    quantiles = len(QUANTILES)
    return {
        "invariants": len(invariant_orders(basis)),
        "centre": 1,
        "first": radial + 3,
        "second": radial + 6,
        "same": radial + quantiles,
        "other": radial + quantiles,
    }


def own_and_near(basis: ZernikeBasis) -> tuple[range, range]:
    """Return which features are of the column itself, and which of the nine columns next to it.

    Examples
    --------
    >>> own_and_near(ZernikeBasis(10, 32))
    (range(0, 37), range(37, 58))
    """
    blocks = contrast_blocks(basis)
    own = blocks["invariants"] + blocks["centre"]
    return range(own), range(own, own + blocks["first"] + blocks["second"])


def contrast_features(
    moments: NDArray[np.floating[Any]], complete: NDArray[np.bool_], around: Neighbourhood, basis: ZernikeBasis
) -> NDArray[np.float32]:
    """Turn the moments of one micrograph's columns into contrast features.

    Parameters
    ----------
    moments : (N, J)
        Of all the columns of one micrograph.
    complete : (N,) bool
        Columns whose patch lies in the image; only these set the standard of brightness.
    around : Neighbourhood
        The neighbours of each column.
    basis : ZernikeBasis
        The basis of `moments`.

    Returns
    -------
    (N, F) float32
        The blocks of `contrast_blocks` side by side.  The first one holds the rotation invariants, n by n; the others
        hold means of the m = 0 invariants, then the brightness of the middle of the columns: of each neighbour, darkest
        first, or quantiles.

    Raises
    ------
    ValueError
        If no column is complete.
    """
    if len(moments) == 0:
        return np.zeros((0, sum(contrast_blocks(basis).values())), np.float32)
    invariants = np.asarray(rotation_invariants(np.asarray(moments, np.float32), basis), np.float32)
    return contrast_of(invariants, complete, around, basis)


def contrast_of(
    invariants: NDArray[np.float32], complete: NDArray[np.bool_], around: Neighbourhood, basis: ZernikeBasis
) -> NDArray[np.float32]:
    """Turn the rotation invariants (N, J') of one micrograph's columns into contrast features.

    Parameters and result as of `contrast_features`.
    """
    features = np.empty((len(invariants), sum(contrast_blocks(basis).values())), np.float32)
    if len(features) == 0:
        return features
    if not complete.any():
        raise ValueError(
            "positions: expected at least one column whose patch lies inside the image, "
            f"got {len(features)} at the border; use a larger field of view"
        )
    orders = invariant_orders(basis)
    radial = invariants[:, orders == 0]
    energy = np.sum(np.square(invariants[:, 1:]), axis=1)
    # m = 0 invariants, brightness of the middle, energy: what is asked of the neighbours
    table = np.column_stack([radial, radial @ centre_weights(basis), energy])

    standard = table[complete].mean(axis=0)
    for start in range(0, len(features), TOGETHER):
        part = slice(start, start + TOGETHER)
        features[part] = _compared(invariants[part], table, part, standard, around)
    return features


def _compared(
    own: NDArray[np.float32],
    table: NDArray[np.float32],
    part: slice,
    standard: NDArray[np.float32],
    around: Neighbourhood,
) -> NDArray[np.float32]:
    """Features of a part of the columns, from their own invariants and what is asked of all columns, (N, wide + 2)."""
    wide = table.shape[1] - 2
    means = {}
    quantiles = {}
    for name, there in (("same", around.same[part]), ("other", around.other[part])):
        # where there are too few, the nearest stands for the missing
        indices = np.where(there < 0, there[:, :1], there)
        values = np.where((indices >= 0)[..., None], table[indices], standard)
        means[name] = values.mean(axis=1)
        places = np.rint(np.array(QUANTILES) * (indices.shape[1] - 1)).astype(int)
        quantiles[name] = np.sort(values[:, :, wide], axis=1)[:, places]
    shells = {}
    for name, near, sublattice in (("first", around.first[part], "other"), ("second", around.second[part], "same")):
        shells[name] = np.where((near >= 0)[..., None], table[near], means[sublattice][:, None])

    level = 0.5 * (means["same"][:, :1] + means["other"][:, :1])
    # the middle of a constant patch is as bright as its mean
    floor = np.finfo(np.float32).tiny
    contrast = np.sqrt(np.maximum(0.5 * (means["same"][:, -1:] + means["other"][:, -1:]), floor))
    blocks = [own[:, :1] - level, own[:, 1:], table[part, wide : wide + 1] - level]
    for name in ("first", "second"):
        shell = shells[name]
        mean = shell[:, :, :wide].mean(axis=1)
        mean[:, :1] -= level
        blocks += [mean, np.sort(shell[:, :, wide], axis=1) - level]
    for name in ("same", "other"):
        mean = means[name][:, :wide].copy()
        mean[:, :1] -= level
        blocks += [mean, quantiles[name] - level]
    return np.asarray(np.concatenate(blocks, axis=1) / contrast, np.float32)


@lru_cache(maxsize=8)
def _weights(n: tuple[int, ...]) -> NDArray[np.float32]:
    rho = (np.arange(2000) + 0.5) / 2000
    weight = rho * np.exp(-0.5 * (rho / CENTRE) ** 2)
    polynomials = [np.sqrt(order + 1.0) * eval_legendre(order // 2, 2.0 * rho**2 - 1.0) for order in n]
    return np.asarray(np.array(polynomials) @ weight / weight.sum(), np.float32)


def centre_weights(basis: ZernikeBasis) -> NDArray[np.float32]:
    """Return the weights of the m = 0 moments whose sum is the intensity in the middle of the patch, under a Gaussian.

    Examples
    --------
    >>> centre_weights(ZernikeBasis(2, 32)).astype(float).round(3).tolist()
    [1.0, -1.576]
    """
    return _weights(tuple(int(n) for n in basis.n[basis.m == 0]))
