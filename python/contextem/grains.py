"""Grains: the sites of each lattice in the image, and which of their three sublattices is hollow.

A site (i, j) belongs to one of three cosets, (i - j) mod 3: metal, chalcogen and hollow. Nothing but the lattice tells
an empty chalcogen site, a double vacancy, from a hollow one; so the cosets are compared over whole neighbourhoods.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from contextem import _kernels
from contextem.growth import FEWEST, SUPPORT, Bools, Ints, Sites, best_seed, grow
from contextem.lattice import Frame, lattice_constant
from contextem.peaks import Floats, Image, Peaks
from contextem.tiles import TiledImage, tiled

CONTRAST = 0.4
"""Least contrast between the sublattices round a site of the lattice, over that in the best parts of the grain."""

_SHEARS = [np.array([[1.0, slope], [0.0, 1.0]]) for slope in (0.0, -0.2, 0.2)]  # of rows against each other, by drift
_SAME = 0.15  # lattice constants, between sites of one lattice found twice
_TWIN_WIDTH = 3.0  # of the neighbourhood in which the atomic sublattices are compared, index steps
_WIDTHS = (12.0, 6.0, 3.0, 1.7)  # of the neighbourhoods in which cosets are compared, index steps


@dataclass(frozen=True, eq=False)
class Grain:
    """Sites of one grain, all of them in the image and on the lattice.

    Parameters
    ----------
    positions
        (S, 2) position that the neighbours of a site predict, row and column, px.
    sublattice
        (S,) -1 hollow, 0 the brighter and 1 the darker atomic sublattice.
    value
        (S,) peak response of the image at the site.
    contrast
        (S,) difference between the brightest and the darkest sublattice round the site.
    lopsided
        (S,) how far the evidence stands to one side, in site spacings: about 0 inside of a grain, 1 beyond its edge.
    domain
        (S,) which of the three cosets is hollow and which is the brighter one, 0 to 5: mirror twins share the lattice,
        not both of them. -1 where it is neither, as between twins.
    """

    positions: Floats
    sublattice: Ints
    value: Floats
    contrast: Floats
    lopsided: Floats
    domain: Ints

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, chosen: Bools) -> Grain:
        """Return the grain of the sites chosen, (S,)."""
        return Grain(
            self.positions[chosen],
            self.sublattice[chosen],
            self.value[chosen],
            self.contrast[chosen],
            self.lopsided[chosen],
            self.domain[chosen],
        )


class _Cosets:
    """Local means of the peak response over each coset of the sites."""

    def __init__(self, indices: Ints, value: Floats, counts: Bools) -> None:
        self.index = indices - indices.min(axis=0)
        self.coset = (indices[:, 0] - indices[:, 1]) % 3
        self.value = value
        self.own = [counts & (self.coset == k) for k in range(3)]
        extent = self.index.max(axis=0) + 1
        self.place = np.ravel_multi_index(tuple(self.index.T), extent)
        self.extent = (int(extent[0]), int(extent[1]))

    def local(self, width: float) -> tuple[Floats, Floats]:
        """Means and their squared standard errors in Gaussian neighbourhoods, (3, S) each."""
        mean, error2 = np.empty((2, 3, len(self.value)))
        for coset, sites in enumerate(self.own):
            blurred = _kernels.blur_boards(self._boards(sites), width)
            mass, first, second = (board.ravel().take(self.place) for board in blurred)
            mass = np.maximum(mass, 1e-6)
            mean[coset] = first / mass
            error2[coset] = np.maximum(second / mass - mean[coset] ** 2, 0) / np.maximum(mass * 4 * np.pi * width**2, 1)
        return mean, error2

    def _boards(self, sites: Bools) -> Floats:
        """Powers 0 to 2 of the value at the sites (S,), each in its place on a board of its own."""
        boards = np.zeros((3, *self.extent))
        for power, board in enumerate(boards):
            board.ravel()[self.place[sites]] = self.value[sites] ** power
        return boards

    def hollow(self) -> Ints:
        """Darkest coset round each site, (S,), from the smallest neighbourhood that tells.

        That is the one in which the darkest differs from the second darkest by five standard errors; where none does,
        the whole grain. So the hollow changes within a cell or two at a mirror twin, and noise does not change it.
        """
        whole = [self.value[sites].mean() if sites.any() else 0.0 for sites in self.own]
        hollow = np.full(len(self.value), int(np.argmin(whole)))
        for width in _WIDTHS:
            darkest, sure = self._darkest(width)
            hollow = np.where(sure, darkest, hollow)
        return self._sharpen(hollow)

    def _darkest(self, width: float) -> tuple[Ints, Bools]:
        """Darkest coset in the neighbourhood of each site, (S,), and whether it differs from the second darkest."""
        mean, error2 = self.local(width)
        a, b, c = mean
        darkest = np.where(a <= b, np.where(a <= c, 0, 2), np.where(b <= c, 1, 2))
        brightest = np.where(c >= b, np.where(c >= a, 2, 0), np.where(b >= a, 1, 0))
        second = 3 - darkest - brightest
        every = np.arange(len(self.value))
        gap = mean[second, every] - mean[darkest, every]
        return darkest, gap > 5 * np.sqrt(error2[second, every] + error2[darkest, every])

    def bright(self, hollow: Ints) -> Ints:
        """Brighter atomic coset at each site, (S,): that whose mean over all sites of the same hollow one is larger.

        But in twins: there the difference changes its sign within a few sites, from more than half of what it is
        elsewhere to less than minus that. Dopants and aberrations change it less, or gradually.
        """
        every = np.arange(len(self.value))
        step = np.ones(len(self.value), dtype=np.int64)
        for empty in np.unique(hollow):
            here = hollow == empty
            first, second = (here & (self.coset == (empty + k) % 3) for k in (1, 2))
            if first.any() and second.any() and self.value[first].mean() < self.value[second].mean():
                step[here] = 2
        brighter, darker = (hollow + step) % 3, (hollow - step) % 3
        mean, error2 = self.local(_TWIN_WIDTH)
        lead = mean[brighter, every] - mean[darker, every]
        error = np.sqrt(error2[brighter, every] + error2[darker, every])
        half = np.median(abs(lead)) / 2
        board = np.zeros(self.extent)
        board.ravel()[self.place] = lead
        parts, count = ndimage.label(board < 0)
        part = parts.ravel()[self.place]
        twins = np.bincount(part[lead < -np.maximum(5 * error, half)], minlength=count + 1) >= FEWEST
        if twins.any():
            least, most = (extreme(board, size=7) for extreme in (ndimage.minimum_filter, ndimage.maximum_filter))
            border = (parts > 0) & (ndimage.maximum_filter(board, size=3) > 0)
            abrupt = border & (least < -half) & (most > half)
            total, steep = (np.bincount(parts[where], minlength=count + 1) for where in (border, abrupt))
            twins &= 2 * steep > total
        return np.where(twins[part], darker, brighter)

    def _sharpen(self, hollow: Ints) -> Ints:
        """Within two steps of a change of the hollow coset let each site's own brightness decide, where it can."""
        board = np.full(self.index.max(axis=0) + 1, -1)
        board[self.index[:, 0], self.index[:, 1]] = hollow
        least = ndimage.minimum_filter(np.where(board < 0, 3, board), size=5, mode="constant", cval=3)
        most = ndimage.maximum_filter(board, size=5, mode="constant", cval=-1)
        least, most = (side[self.index[:, 0], self.index[:, 1]] for side in (least, most))
        between = least != most
        if not between.any():
            return hollow
        rivals = np.isin(self.coset, np.unique(hollow[between]))
        empty = self.value[~between & (self.coset == hollow)]
        full = self.value[~between & rivals & (self.coset != hollow)]
        if min(len(empty), len(full)) < 10 or full.mean() - empty.mean() < 2 * np.hypot(full.std(), empty.std()):
            return hollow
        decides = between & ((self.coset == least) | (self.coset == most))
        other = least + most - self.coset
        occupied = self.value > (full.mean() + empty.mean()) / 2
        return np.where(decides, np.where(occupied, other, self.coset), hollow)


def _judge(sites: Sites, response: TiledImage) -> Grain:
    """Keep the sites on the lattice and tell their sublattices."""
    value = response.sample(sites.positions)
    supported = sites.support >= SUPPORT
    if not supported.any():
        nothing, none = np.zeros(0), np.zeros(0, dtype=np.int64)
        return Grain(np.zeros((0, 2)), none, nothing, nothing, nothing, none)
    cosets = _Cosets(sites.indices, value, supported)
    contrast = np.ptp(cosets.local(_WIDTHS[-1])[0], axis=0)
    sound = supported & (contrast >= CONTRAST * np.percentile(contrast[supported], 90))
    cosets = _Cosets(sites.indices[sound], value[sound], np.ones(np.count_nonzero(sound), dtype=bool))
    hollow = cosets.hollow()
    bright = cosets.bright(hollow)
    sublattice = np.where(cosets.coset == hollow, -1, np.where(cosets.coset == bright, 0, 1))
    domain = _domains(cosets.index, 2 * hollow + (bright - hollow) % 3 - 1)
    return Grain(sites.positions[sound], sublattice, value[sound], contrast[sound], sites.lopsided[sound], domain)


def _domains(index: Ints, order: Ints) -> Ints:
    """Which of the orders of the cosets (S,) the sites have; -1 in pieces smaller than a grain, as in boundaries."""
    domain = order.copy()
    orders = np.unique(order)
    for one in orders if len(orders) > 1 else ():
        board = np.zeros(index.max(axis=0) + 1, dtype=bool)
        board[tuple(index[order == one].T)] = True
        pieces, count = ndimage.label(board, np.ones((3, 3)))
        small = np.bincount(pieces.ravel(), minlength=count + 1) < FEWEST
        domain[(order == one) & small[pieces[tuple(index.T)]]] = -1
    return domain


def find_grains(peaks: Peaks, frames: list[Frame], response: Image) -> list[Grain]:
    """Index the peaks grain by grain: from the best tile first, then from what is left unexplained.

    Parameters
    ----------
    peaks
        Peaks to index.
    frames
        Local lattices, the best first.
    response
        (H, W) peak response of the image, by which the sublattices are told.

    Returns
    -------
    list of Grain
        Without overlap; may be empty.
    """
    response = tiled(response)
    a = lattice_constant(frames[0].basis)
    bright = np.flatnonzero(peaks.strength > 0.5)
    if len(bright) < 8:
        return []
    positions = peaks.positions[bright]
    near = _kernels.Points(positions).nearest(positions, 8, 0)[1]
    left = np.ones(len(bright), dtype=bool)
    hopeful = np.arange(len(bright))  # left, and among others that are
    grains: list[Grain] = []
    second = [(frame, _SHEARS) for frame in frames]  # finds what drift or overgrowth has kept from the first round
    for frame, shears in [(frame, _SHEARS[:1]) for frame in frames] + second:
        if len(hopeful) < 5:
            break
        distance = np.hypot(*(positions[hopeful] - frame.centre).T)
        candidates = hopeful[np.argsort(distance)[: min(80, np.count_nonzero(distance < 7 * a))]]
        if len(candidates) < 5:
            continue
        seeds = [best_seed(peaks, bright[candidates], frame.basis @ shear) for shear in shears]
        best = int(np.argmax([weight for _, weight in seeds]))
        seed, weight = seeds[best]
        if weight < 4:
            continue
        grain = _judge(grow(peaks, seed, frame.basis @ shears[best], response.shape), response)
        if len(grain) < FEWEST:
            continue
        points = _kernels.Points(grain.positions)
        again = [other for other in grains if _same_ground(points, grain, other, a)]
        if any(len(other) >= len(grain) for other in again):
            continue
        grains = [other for other in grains if other not in again] + [grain]
        gap, _ = points.within(positions, 0.3 * a, 0)
        left &= ~np.isfinite(gap)
        hopeful = np.flatnonzero(left & (left[near].mean(axis=1) > 0.6))
    return _separate(grains, a)


def _same_ground(points: _kernels.Points, grain: Grain, other: Grain, a: float) -> bool:
    """Whether two grains are one lattice found twice: the smaller one's sites are the other's too, by majority."""
    gap, _ = points.within(other.positions, _SAME * a, 0)
    return bool(2 * np.count_nonzero(np.isfinite(gap)) > min(len(grain), len(other)))


def _separate(grains: list[Grain], a: float) -> list[Grain]:
    """Give ground that several grains claim to the one whose sublattices show the most contrast there."""
    apart = []
    points = [_kernels.Points(grain.positions) for grain in grains]
    for number, grain in enumerate(grains):
        keep = np.ones(len(grain), dtype=bool)
        for other_number, other in enumerate(grains):
            if other_number != number:
                gap, nearest = points[other_number].within(grain.positions, 0.4 * a, 0)
                claimed = np.isfinite(gap)
                rival = other.contrast[np.where(claimed, nearest, 0)]
                keep &= ~claimed | (grain.contrast > rival) | ((grain.contrast == rival) & (number < other_number))
        if keep.any():
            apart.append(grain.take(keep))
    return apart
