"""Growth: integer site indices propagated from one peak over the lattice that it belongs to.

No lattice is global in a micrograph that drifts, is strained or holds several grains. So indices are handed on from
neighbour to neighbour, the best backed sites first, each site predicted by an affine fit to the neighbours already
measured, whose frame b1, b2 follows the image. A ridge towards the frame handed on keeps the fit safe at the front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contextem.lattice import Floats, lattice_constant
from contextem.peaks import Peaks

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SNAP = 0.24
"""A peak stands at a site when it lies within this fraction of a from the predicted position."""

_WIDTH = 1.1  # of the neighbourhood of a fit, site spacings
_RIDGE = 0.2  # against changes of the frame, in weights of a neighbour


def _hexagon(radius: int) -> Ints:
    """Offsets of all sites within `radius` steps without the origin, the nearest first: (3 r (r + 1), 2)."""
    step = np.arange(-radius, radius + 1)
    i, j = (axis.ravel() for axis in np.meshgrid(step, step, indexing="ij"))
    hops = np.maximum(np.maximum(abs(i), abs(j)), abs(i + j))
    inside = (hops > 0) & (hops <= radius)
    order = np.argsort((i * i + i * j + j * j)[inside], kind="stable")
    return np.asarray(np.column_stack([i, j])[inside][order])


_NEIGHBOURS = _hexagon(3)  # (36, 2)
_DISTANCE2 = (_NEIGHBOURS**2).sum(axis=1) + _NEIGHBOURS.prod(axis=1)  # (36,) squared distance, site spacings
_OFFSETS = _NEIGHBOURS @ np.array([[1, 0], [0.5, np.sqrt(0.75)]])  # (36, 2) Cartesian, site spacings


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


def _fit(measured: Floats, weights: Floats, origin: Floats, frames: Floats) -> tuple[Floats, Floats]:
    """Weighted affine fits of neighbour positions over their index offsets d_k, with a ridge towards a prior frame.

    For each site minimise over its position q and its frame F, with p_k and w_k measured positions and weights,
        sum_k w_k exp(-|d_k|^2 / (2 width^2)) |p_k - q - d_k F|^2  +  ridge |F - F_prior|^2,
    twice, the second time with outliers weighted down (Cauchy). A wide neighbourhood or a stiff ridge lags behind where
    drift bends the lattice within a few rows, a narrow one follows noise.

    Parameters
    ----------
    measured, weights
        (S, 36, 2) and (S, 36).
    origin, frames
        (S, 2) first guess of q and (S, 2, 2) prior frames.

    Returns
    -------
    (S, 2) positions and (S, 2, 2) frames
    """
    design = np.column_stack([np.ones(len(_NEIGHBOURS)), _NEIGHBOURS])  # (36, 3)
    products = (design[:, :, None] * design[:, None, :]).reshape(-1, 9)
    penalty = np.diag([1e-9, _RIDGE, _RIDGE])
    residual = measured - _NEIGHBOURS @ frames - origin[:, None]  # (S, 36, 2)
    weights = weights * np.exp(-_DISTANCE2 / (2 * _WIDTH**2))
    scale2 = (2 * 0.08) ** 2 * abs(np.linalg.det(frames))[:, None]
    robust = weights
    for _ in range(2):
        normal = (robust @ products).reshape(-1, 3, 3) + penalty
        solution = np.linalg.solve(normal, design.T @ (robust[..., None] * residual))  # (S, 3, 2)
        robust = weights / (1 + ((residual - design @ solution) ** 2).sum(axis=2) / scale2)
    return origin + solution[:, 0], frames + solution[:, 1:]


class _Growth:
    """One grain under growth: tables over a dense board of indices, addressed by flat site numbers."""

    def __init__(self, peaks: Peaks, seed: int, basis: Floats, shape: tuple[int, int]) -> None:
        self.peaks = peaks
        self.limit = np.array(shape) - 1.0
        self.reach = SNAP * lattice_constant(basis)
        start = peaks.positions[seed]
        corners = np.array([[0, 0], [0, shape[1]], [shape[0], 0], shape]) - start
        self.middle = np.ceil(abs(corners @ np.linalg.inv(basis)).max(axis=0) * 1.2).astype(np.int64) + 6
        self.board = tuple(2 * self.middle + 1)
        size = int(np.prod(self.board))
        self.around = _NEIGHBOURS @ np.array([self.board[1], 1])  # steps in flat numbers, (36,)
        self.predicted, self.measured = np.zeros((size, 2)), np.zeros((size, 2))
        self.frames = np.zeros((size, 2, 2))
        self.weight = np.zeros(size)
        self.visited = np.zeros(size, dtype=bool)
        self.open = np.zeros(self.board, dtype=bool)
        self.open[3:-3, 3:-3] = True  # sites all of whose neighbours are on the board
        self.open = self.open.ravel()
        first = int(np.ravel_multi_index(tuple(self.middle), self.board))
        sites = np.append(self.around, 0) + first
        self.enter(sites, start + self.indices(sites) @ basis, np.broadcast_to(basis, (len(sites), 2, 2)))

    def indices(self, sites: Ints) -> Ints:
        return np.asarray(np.column_stack(np.unravel_index(sites, self.board)) - self.middle)

    def inside(self, sites: Ints) -> Bools:
        return np.asarray(((self.predicted[sites] >= 0) & (self.predicted[sites] <= self.limit)).all(axis=1))

    def enter(self, sites: Ints, predicted: Floats, frames: Floats) -> None:
        """Set sites to predicted positions and frames, and measure them."""
        self.visited[sites] = True
        self.predicted[sites], self.frames[sites] = predicted, frames
        self.measured[sites], self.weight[sites] = self.peaks.snap(predicted, self.reach)

    def spread(self) -> None:
        """Visit all sites that can be reached, in waves, the best backed first: they lead round noise and holes."""
        fresh = np.flatnonzero(self.visited)
        waiting = np.empty(0, dtype=np.int64)
        while True:
            near = (fresh[self.inside(fresh), None] + self.around[:6]).ravel()
            waiting = np.unique(np.concatenate([waiting, near[self.open[near] & ~self.visited[near]]]))
            if not len(waiting):
                return
            around = waiting[:, None] + self.around
            backing = self.weight[around].sum(axis=1)
            ready = backing >= max(1.0, 0.6 * backing.max())
            if not ready.any():
                return
            fresh, around, waiting = waiting[ready], around[ready], waiting[~ready]
            nearest = around[:, :6]
            share = self.visited[nearest] / self.visited[nearest].sum(axis=1, keepdims=True)
            frames = np.einsum("sk,skdx->sdx", share, self.frames[nearest])
            guess = np.einsum("sk,skx->sx", share, self.predicted[nearest] - _NEIGHBOURS[:6] @ frames)
            fit = _fit(self.measured[around], self.weight[around], guess, frames)
            self.enter(fresh, *fit)

    def settle(self) -> None:
        """Fit every site again, from neighbours on all sides."""
        sites = np.flatnonzero(self.visited & self.open)
        around = sites[:, None] + self.around
        for _ in range(2):
            guess, frames = self.predicted[sites], self.frames[sites]
            fit = _fit(self.measured[around], self.weight[around], guess, frames)
            self.enter(sites, *fit)

    def sites(self) -> Sites:
        """Collect the sites visited and the evidence round each."""
        sites = np.flatnonzero(self.visited & self.open)
        inside = self.inside(sites)
        around = sites[:, None] + self.around
        expected = np.zeros(len(self.visited))
        expected[sites] = inside
        near = np.exp(-_DISTANCE2 / 2)
        share = expected[around] * near
        met = self.weight[around] * near
        support = met.sum(axis=1) / np.maximum(share.sum(axis=1), 1e-9)
        measured = inside & (self.weight[sites] > 0)
        typical = float(np.median(support[measured])) if measured.any() else 1.0
        met, share = self.weight[around], expected[around]
        lean = met @ _OFFSETS / np.maximum(met.sum(axis=1, keepdims=True), 1e-9)
        lean -= share @ _OFFSETS / np.maximum(share.sum(axis=1, keepdims=True), 1e-9)
        return Sites(
            self.indices(sites),
            self.predicted[sites],
            np.where(inside, support / max(typical, 1e-9), 0.0),
            np.hypot(lean[:, 0], lean[:, 1]),
        )


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
    growth = _Growth(peaks, seed, basis, shape)
    growth.spread()
    growth.settle()
    return growth.sites()


def best_seed(peaks: Peaks, candidates: Ints, basis: Floats) -> tuple[int, float]:
    """Peak round which the rigid site lattice meets most of the peaks, and the weight of those (at most 19)."""
    around = peaks.positions[candidates][:, None] + _NEIGHBOURS[:18] @ basis
    _, weight = peaks.snap(around.reshape(-1, 2), SNAP * lattice_constant(basis))
    total = weight.reshape(len(candidates), -1).sum(axis=1) + np.clip(peaks.strength[candidates], 0, 1) ** 2
    best = int(np.argmax(total))
    return int(candidates[best]), float(total[best])
