"""Doped 1H MX2 monolayers with chalcogen vacancies: columns to render, and atoms for abTEM.

Seen along the beam a 1H monolayer is a honeycomb: metal columns at n1 a1 + n2 a2, chalcogen columns (two atoms,
`thickness` apart) at n1 a1 + n2 a2 + (a1 + a2) / 3, and a hollow in the middle of each hexagon.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from contextem._extras import needs_extra
from contextem.columns import CLASSES
from contextem.context import HOSTS, Host, find_host

METAL, DOPANT, X2, SINGLE_VACANCY, DOUBLE_VACANCY = range(len(CLASSES))


@dataclass(frozen=True, eq=False)
class Monolayer:
    """Columns of a monolayer.

    Attributes
    ----------
    sites : ndarray of float64, shape (N, 2)
        Sites of the lattice, Å.
    displacements : ndarray of float64, shape (N, 2)
        From the sites to the atoms, Å.
    labels : ndarray of int8, shape (N,)
        Index into `contextem.columns.CLASSES`.
    upper : ndarray of bool, shape (N,)
        Whether the chalcogen left in a single vacancy is the one that the beam meets first.
    """

    sites: NDArray[np.float64] = field(repr=False)
    displacements: NDArray[np.float64] = field(repr=False)
    labels: NDArray[np.int8] = field(repr=False)
    upper: NDArray[np.bool_] = field(repr=False)

    @property
    def sublattice(self) -> NDArray[np.int8]:
        """0 for metal sites, 1 for chalcogen sites, (N,)."""
        return (self.labels >= X2).astype(np.int8)

    @property
    def atoms(self) -> NDArray[np.float64]:
        """Where the atoms are, Å, (N, 2)."""
        return self.sites + self.displacements


def honeycomb(
    lattice_constant: float,
    low: ArrayLike,
    high: ArrayLike,
    *,
    transform: ArrayLike = ((1, 0), (0, 1)),
    origin: ArrayLike = (0, 0),
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Return the sites of a honeycomb inside a rectangle.

    Parameters
    ----------
    lattice_constant : float
        Å.
    low, high : array_like, shape (2,)
        Corners of the rectangle, Å.
    transform : array_like, shape (2, 2)
        Rotation and strain of the lattice, applied about `origin`.
    origin : array_like, shape (2,)
        Where a metal site is, Å.

    Returns
    -------
    sites : ndarray of float64, shape (N, 2)
        Å.
    sublattice : ndarray of int8, shape (N,)
        0 metal, 1 chalcogen.

    Examples
    --------
    >>> sites, sublattice = honeycomb(3.32, (0, 0), (90, 90))
    >>> round(len(sites) / 90**2 * 3.32**2 * 3**0.5 / 4, 1)
    1.0
    """
    vectors = lattice_constant * np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]]) @ np.transpose(transform)
    corners = np.array(list(itertools.product(*np.transpose([low, high]))))
    indices = (corners - origin) @ np.linalg.inv(vectors)
    first, last = np.floor(indices.min(axis=0)) - 1, np.ceil(indices.max(axis=0)) + 1
    n1, n2 = np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(first, last, strict=True)), indexing="ij")
    metals = np.column_stack([n1.ravel(), n2.ravel()]) @ vectors + origin
    sites = np.concatenate([metals, metals + vectors.sum(axis=0) / 3.0])
    sublattice = np.repeat(np.array([0, 1], dtype=np.int8), len(metals))
    inside = ((sites >= low) & (sites < high)).all(axis=1)
    return sites[inside], sublattice[inside]


def place_defects(
    sublattice: NDArray[np.int8],
    rng: np.random.Generator,
    *,
    dopant_fraction: float,
    single_fraction: float,
    double_fraction: float,
) -> NDArray[np.int8]:
    """Draw a class for each site.

    Parameters
    ----------
    sublattice : ndarray of int8, shape (N,)
        0 metal, 1 chalcogen.
    rng : numpy.random.Generator
        Source of randomness.
    dopant_fraction : float
        Of the metal sites.
    single_fraction, double_fraction : float
        Of the chalcogen columns.

    Returns
    -------
    ndarray of int8, shape (N,)
        Index into `contextem.columns.CLASSES`.

    Raises
    ------
    ValueError
        If a fraction is not between 0 and 1.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> place_defects(np.array([0, 1, 1]), rng, dopant_fraction=1, single_fraction=0, double_fraction=1).tolist()
    [1, 4, 4]
    """
    vacancies = single_fraction + double_fraction
    fractions = {
        "dopant_fraction": dopant_fraction,
        "single_fraction": single_fraction,
        "double_fraction": double_fraction,
        "single_fraction + double_fraction": vacancies,
    }
    for name, fraction in fractions.items():
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"{name}: expected a fraction between 0 and 1, got {fraction!r}")
    u = rng.random(len(sublattice))
    metal = np.where(u < dopant_fraction, DOPANT, METAL)
    chalcogen = np.select([u < double_fraction, u < vacancies], [DOUBLE_VACANCY, SINGLE_VACANCY], X2)
    return np.where(sublattice == 0, metal, chalcogen).astype(np.int8)


def relax(
    sites: NDArray[np.float64],
    labels: NDArray[np.int8],
    bond: float,
    fractions: NDArray[np.float64],
    period: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return how far the metal neighbours of vacancies are drawn towards them.

    Parameters
    ----------
    sites : ndarray, shape (N, 2)
        Å.
    labels : ndarray of int8, shape (N,)
        Index into `contextem.columns.CLASSES`.
    bond : float
        Projected distance of neighbouring columns, Å.
    fractions : ndarray, shape (N,)
        By which fraction of the bond the neighbours of this column move, if it is a vacancy.
    period : ndarray of float64, shape (2,), optional
        Size of the periodic cell that holds the sites, Å.

    Returns
    -------
    ndarray of float64, shape (N, 2)
        Displacements, Å.
    """
    displacements = np.zeros_like(sites)
    vacancies, metals = np.flatnonzero(labels > X2), np.flatnonzero(labels < X2)
    if len(vacancies) and len(metals):
        # a vacancy has three bonds; the next metals are twice as far
        tree = cKDTree(sites[metals], boxsize=period)
        near = tree.query(sites[vacancies], k=3, distance_upper_bound=1.25 * bond)[1]
        which, bonds = np.nonzero(near < len(metals))
        moved, towards = metals[near[which, bonds]], vacancies[which]
        away = sites[towards] - sites[moved]
        if period is not None:
            away -= period * np.rint(away / period)
        np.add.at(displacements, moved, fractions[towards, None] * away)
    return displacements


def doped_monolayer(
    lattice_constant: float,
    low: ArrayLike,
    high: ArrayLike,
    rng: np.random.Generator,
    *,
    transform: ArrayLike = ((1, 0), (0, 1)),
    dopant_fraction: float = 0.1,
    single_fraction: float = 0.09,
    double_fraction: float = 0.09,
    disorder: float = 0.0,
    relaxation: tuple[float, float] = (0.0, 0.0),
) -> Monolayer:
    """Draw a monolayer that covers a rectangle.

    Parameters
    ----------
    lattice_constant : float
        Å.
    low, high : array_like, shape (2,)
        Corners of the rectangle, Å.
    rng : numpy.random.Generator
        Source of randomness, for the origin of the lattice too.
    transform : array_like, shape (2, 2)
        Rotation and strain.
    dopant_fraction, single_fraction, double_fraction : float
        As for `place_defects`.
    disorder : float
        Standard deviation of the static displacement of a column along each direction, Å.
    relaxation : (float, float)
        Range of the fraction of the bond by which the metals around a vacancy move towards it.

    Returns
    -------
    Monolayer

    Examples
    --------
    >>> layer = doped_monolayer(3.32, (0, 0), (30, 30), np.random.default_rng(1), disorder=0.04)
    >>> bool(0.02 < layer.displacements.std() < 0.06)
    True
    """
    origin = np.asarray(low) + rng.uniform(0.0, lattice_constant, 2)
    sites, sublattice = honeycomb(lattice_constant, low, high, transform=transform, origin=origin)
    labels = place_defects(
        sublattice,
        rng,
        dopant_fraction=dopant_fraction,
        single_fraction=single_fraction,
        double_fraction=double_fraction,
    )
    pull = rng.uniform(*relaxation, len(sites))
    displacements = relax(sites, labels, lattice_constant / np.sqrt(3.0), pull) + rng.normal(0.0, disorder, sites.shape)
    return Monolayer(sites, displacements, labels, rng.random(len(sites)) < 0.5)


def supercell(
    host: str,
    dopant: str | None,
    repeats: tuple[int, int],
    rng: np.random.Generator,
    *,
    dopant_fraction: float = 0.1,
    single_fraction: float = 0.09,
    double_fraction: float = 0.09,
    disorder: float = 0.0,
    relaxation: tuple[float, float] = (0.0, 0.0),
) -> tuple[Any, Monolayer]:
    """Build a periodic doped monolayer for abTEM.

    The cell is orthogonal, a x sqrt(3) a times `repeats`, and 1.5 times the thickness t high, with the chalcogen planes
    at 0.25 t and 1.25 t and the metal plane at 0.75 t: three slices of t/2 keep every plane and their distances.

    Parameters
    ----------
    host : str
        One of `contextem.context.HOSTS`.
    dopant : str or None
        Element at the doped metal sites.
    repeats : (int, int)
        Number of a x sqrt(3) a cells along x and y.
    rng : numpy.random.Generator
        Source of randomness.
    dopant_fraction, single_fraction, double_fraction : float
        As for `place_defects`.
    disorder, relaxation
        As for `doped_monolayer`.

    Returns
    -------
    atoms : ase.Atoms
        Periodic along x and y.
    monolayer : Monolayer
        Its columns, in the cell.

    Examples
    --------
    >>> atoms, monolayer = supercell("WSe2", "Cr", (2, 1), np.random.default_rng(0), double_fraction=0.0)
    >>> len(monolayer.labels), len(atoms) == 12 - int((monolayer.labels == SINGLE_VACANCY).sum())
    (8, True)
    """
    with needs_extra("simulate"):
        from ase import Atoms

    known = host_of(host)
    a, t = known.lattice_constant, known.thickness
    cell = np.array([repeats[0] * a, repeats[1] * np.sqrt(3.0) * a])
    # away from the corner, so that no site lies on the border of the cell
    sites, sublattice = honeycomb(a, (0.0, 0.0), cell, origin=(0.1 * a, 0.1 * a))
    labels = place_defects(
        sublattice,
        rng,
        dopant_fraction=dopant_fraction if dopant else 0.0,
        single_fraction=single_fraction,
        double_fraction=double_fraction,
    )
    upper = rng.random(len(sites)) < 0.5
    pull = rng.uniform(*relaxation, len(sites))
    displacements = relax(sites, labels, a / np.sqrt(3.0), pull, cell) + rng.normal(0.0, disorder, sites.shape)
    symbols: list[str] = []
    positions: list[NDArray[np.float64]] = []
    for site, label, first in zip(sites + displacements, labels, upper, strict=True):
        symbol = known.chalcogen if label >= X2 else dopant if label == DOPANT and dopant else known.metal
        planes = {X2: [0.25, 1.25], SINGLE_VACANCY: [0.25 if first else 1.25], DOUBLE_VACANCY: []}.get(label, [0.75])
        symbols += [symbol] * len(planes)
        positions += [np.array([*site, plane * t]) for plane in planes]
    atoms = Atoms(symbols, positions=positions, cell=[*cell, 1.5 * t], pbc=(True, True, False))
    return atoms, Monolayer(sites, displacements, labels, upper)


def host_of(formula: str) -> Host:
    """Return elements and lengths of a host.

    Parameters
    ----------
    formula : str
        One of `contextem.context.HOSTS`.

    Returns
    -------
    Host

    Raises
    ------
    ValueError
        If it is not known.
    """
    known = find_host(formula)
    if known is None:
        raise ValueError(f"host: expected one of {', '.join(HOSTS)}, or an alloy of two of them, got {formula!r}")
    return known
