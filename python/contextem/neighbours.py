"""Who stands beside whom: the two sublattices of a monolayer, and the nearest columns of either around each column.

In a honeycomb the three nearest columns stand on the other sublattice, a / sqrt(3) away, the next six on the same one,
a away.  Which of the two is the metal the geometry cannot tell; that is left to the classifier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from contextem._threads import thread_count

SURROUNDINGS = 30
"""Columns of each sublattice that stand for the surroundings of a column."""

SECOND_NEIGHBOURS = 1.3
"""Lattice constants within which the six next nearest columns stand."""

TOGETHER = 2**15
"""Columns whose neighbours are looked for at once: what is found of these is a kilobyte a column."""

_FIRST = 0.85  # the same for the three nearest


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Indices of the columns around each column; -1 where there is none.

    Attributes
    ----------
    first : (N, 3) int64
        Nearest columns, on the other sublattice.
    second : (N, 6) int64
        Next nearest columns, on the same sublattice.
    same, other : (N, K) int32
        Complete columns of the same and of the other sublattice, the nearest first, the column itself left out; K is at
        most `SURROUNDINGS`, and at least 1.
    side : (N,) int8
        Sublattice of the column, 0 or 1.
    grain : (N,) int32
        Number of the grain it is in, as given; one for all where none is.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.int32]
    other: NDArray[np.int32]
    side: NDArray[np.int8]
    grain: NDArray[np.int32]

    def surroundings(self, kept: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return `same` and `other` of the columns kept (N,), counted among these, each `SURROUNDINGS` wide."""
        number = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)
        tables = [np.full((int(kept.sum()), SURROUNDINGS), -1, np.int32) for _ in range(2)]
        for table, indices in zip(tables, (self.same, self.other), strict=True):
            table[:, : indices.shape[1]] = number[indices[kept]]
        return tables[0], tables[1]


def neighbourhood(
    positions: NDArray[np.float64],
    sublattice: NDArray[np.int8],
    complete: NDArray[np.bool_],
    lattice_constant: float,
    grain: NDArray[np.int32] | None = None,
) -> Neighbourhood:
    """Find the columns around each column.

    Parameters
    ----------
    positions : (N, 2)
        (row, column), px or Å.
    sublattice : (N,)
        0 or 1; -1 where it is not known: it is then told from the bonds.
    complete : (N,) bool
        Columns whose patch lies in the image.
    lattice_constant : float
        In the unit of the positions.
    grain : (N,) int32, optional
        Number of the grain of each column.

    Returns
    -------
    Neighbourhood

    Examples
    --------
    >>> ring = np.array([[0.0, 0.0], [5.8, 0.0], [-2.9, 5.0], [-2.9, -5.0]])
    >>> around = neighbourhood(ring, np.array([0, 1, 1, 1]), np.ones(4, bool), 10.0)
    >>> sorted(around.first[0].tolist()), around.first[1].tolist()
    ([1, 2, 3], [0, -1, -1])
    """
    sides = two_sublattices(positions, sublattice, lattice_constant)
    n = len(positions)
    first, second = np.full((n, 3), -1), np.full((n, 6), -1)
    wide = max(1, min(SURROUNDINGS, *(int((complete & (sides == side)).sum()) for side in (0, 1))))
    same, other = np.full((n, wide), -1, np.int32), np.full((n, wide), -1, np.int32)
    workers, everyone = thread_count(), cKDTree(positions)
    members = [np.flatnonzero(complete & (sides == side)) for side in (0, 1)]
    trees = [cKDTree(positions[each]) for each in members]
    for mine in _together(sides):
        side = int(sides[mine[0]])
        distance, near = everyone.query(
            positions[mine], k=np.arange(1, 12), workers=workers
        )  # the column itself among them
        there = (near < n) & (near != mine[:, None])
        opposite = there & (sides[np.where(there, near, 0)] != side)
        first[mine] = _leading(near, opposite & (distance < _FIRST * lattice_constant), 3)
        second[mine] = _leading(near, there & ~opposite & (distance < SECOND_NEIGHBOURS * lattice_constant), 6)
        for table, theirs in ((same, side), (other, 1 - side)):
            if len(members[theirs]) == 0:
                continue
            _, found = trees[theirs].query(positions[mine], k=np.arange(1, wide + 2), workers=workers)
            indices = np.append(members[theirs], -1)[found]
            # whether the column itself came before
            past = np.logical_or.accumulate(indices[:, :-1] == mine[:, None], axis=1)
            table[mine] = np.where(past, indices[:, 1:], indices[:, :-1])
    return Neighbourhood(first, second, same, other, sides, np.zeros(n, np.int32) if grain is None else grain)


def _together(sides: NDArray[np.int8]) -> Iterator[NDArray[np.int64]]:
    """Yield the numbers of columns of one sublattice, `TOGETHER` at a time."""
    for side in (0, 1):
        mine = np.flatnonzero(sides == side)
        for start in range(0, len(mine), TOGETHER):
            yield mine[start : start + TOGETHER]


def two_sublattices(
    positions: NDArray[np.float64], sublattice: NDArray[np.int8], lattice_constant: float
) -> NDArray[np.int8]:
    """Assign every column to one of two sublattices, so that bonded columns stand on different ones.

    Parameters
    ----------
    positions : (N, 2)
        (row, column) in px.
    sublattice : (N,)
        0 or 1, which stand, or -1: these follow from their bonds to the others.
    lattice_constant : float
        px.

    Returns
    -------
    (N,) int8
        0 or 1.  Where nothing connects two parts of the image, each is numbered by itself.

    Examples
    --------
    >>> chain = np.array([[0.0, 0.0], [5.0, 3.0], [10.0, 0.0], [15.0, 3.0]])
    >>> two_sublattices(chain, np.array([-1, -1, 1, -1]), 10.0).tolist()
    [1, 0, 1, 0]
    """
    sides = np.array(sublattice, dtype=np.int8)
    unknown = np.flatnonzero(sides < 0)
    if len(unknown) == 0:
        return sides
    pairs = cKDTree(positions).query_pairs(_FIRST * lattice_constant, output_type="ndarray")
    pairs = pairs[(sides[pairs] < 0).any(axis=1)]
    n = len(positions)
    bonds = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    parts, part = connected_components(bonds, directed=False)
    # bonds from the first column of each part
    _, roots = np.unique(part, return_index=True)
    steps = dijkstra(bonds, directed=False, indices=roots, unweighted=True, min_only=True)
    parity = (steps % 2).astype(np.int8)
    known = sides >= 0
    against = np.bincount(part[known], parity[known] != sides[known], minlength=parts)
    flip = 2 * against > np.bincount(part[known], minlength=parts)
    sides[unknown] = parity[unknown] ^ flip[part[unknown]]
    return sides


def _leading(indices: NDArray[np.int64], wanted: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Return the first `count` wanted entries of each row, (N, count), -1 where there are fewer."""
    order = np.argsort(~wanted, axis=1, kind="stable")[:, :count]
    return np.where(np.take_along_axis(wanted, order, 1), np.take_along_axis(indices, order, 1), -1)
