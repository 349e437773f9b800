"""The mean lattice of each grain, from the six nearest columns on the sublattice of every column.

With c_k the six index pairs (1, 0), (0, 1), (-1, 1), ... and d_ik the vectors from column i to these neighbours, the
lattice vectors A = (a, b) minimise

    sum_ik w_ik |d_ik - c_k A|^2,    w = 1 / (1 + (|residual| / 2.385 s)^2)

where Cauchy's weights w (https://doi.org/10.1080/03610927708827533) let displaced columns count little.  The polar
decomposition F = V R of what turns a regular lattice with as large a cell into A gives rotation R and distortion V.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from contextem.sites import METAL_SITE

if TYPE_CHECKING:
    from contextem.classification import Classification

HEXAGON = np.array([(1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1)])
"""Indices (6, 2) of the six nearest sites of a sublattice in terms of a and b, 60 degrees from one to the next."""

CAUCHY = 2.385
"""Residuals, in standard deviations, that count half of what they would without robust weights; 95 % efficient."""

_SLOTS = np.full((5, 5), -1)  # by index pair, negative ones from the end
_SLOTS[tuple(HEXAGON.T)] = np.arange(6)
_NEAR = 1.3  # lattice constants within which the six stand, 10 % of error in the sampling allowed for
_EXACT = 1e-3  # lattice constants, the least scatter that columns are thought to have
_OFF = 0.35  # lattice constants from where the lattice has a site, beyond which a column is none of the six


@dataclass(frozen=True)
class GrainLattice:
    """The mean lattice of one grain.

    Attributes
    ----------
    grain : int
        Number of the grain.
    columns : int
        Columns that stand on it.
    vectors : (2, 2) float64
        Rows a and b, each (row, column), Å; b is a turned by about 60 degrees clockwise, as seen in the image.
    bond_direction : float
        Degrees from the column axis, clockwise as seen, of a bond from metal to chalcogen, above -60, at most 60; two
        grains whose bonds differ by 60 degrees are mirror twins.  NaN without such bonds.
    """

    grain: int
    columns: int
    vectors: NDArray[np.float64]
    bond_direction: float

    @property
    def lattice_constant(self) -> float:
        """Å, of the regular lattice with as large a cell."""
        return float(np.sqrt(2 / np.sqrt(3) * abs(np.linalg.det(self.vectors))))

    @property
    def area(self) -> float:
        """Of its columns, nm^2: half a cell each."""
        return 0.005 * self.columns * float(abs(np.linalg.det(self.vectors)))

    @property
    def rotation(self) -> float:
        """Degrees from the column axis to a lattice vector, clockwise as seen, above -30, at most 30."""
        _, turn = self._parts()
        angle = float(np.rad2deg(np.arctan2(turn[1, 0], turn[0, 0])))
        return -((30.0 - angle) % 60.0 - 30.0)

    @property
    def elongation(self) -> float:
        """By how much the lattice is longer along one direction than across: shear and scales of scan, or strain."""
        stretch, _ = self._parts()
        low, high = np.linalg.eigvalsh(stretch)
        return float(high / low - 1.0)

    @property
    def elongation_axis(self) -> float:
        """That direction in degrees from the column axis, clockwise as seen, above -90, at most 90."""
        stretch, _ = self._parts()
        x, y = np.linalg.eigh(stretch)[1][:, 1]
        return -((90.0 - float(np.rad2deg(np.arctan2(y, x)))) % 180.0 - 90.0)

    def _parts(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return V and R in F = V R, in axes x along the columns and y along the rows."""
        regular = self.lattice_constant * np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]])
        left, stretch, right = np.linalg.svd(np.linalg.solve(regular, self.vectors[:, ::-1]).T)
        return (left * stretch) @ left.T, left @ right


def grain_lattices(classification: Classification) -> tuple[GrainLattice, ...]:
    """Fit the mean lattice of every grain.

    Parameters
    ----------
    classification : Classification
        Columns on no grain, and on no known sublattice, are left out.

    Returns
    -------
    tuple of GrainLattice
        In the order of their numbers; grains in which no column has two neighbours in different directions are left
        out.

    Examples
    --------
    >>> import contextem as ctm
    >>> from contextem.examples import demo_micrograph
    >>> example = demo_micrograph()
    >>> (grain,) = grain_lattices(ctm.classify(example.micrograph, example.context))
    >>> round(grain.lattice_constant, 1)
    3.3
    """
    here = classification
    a = here.lattice_constant / here.sampling
    found = []
    for grain in np.unique(here.grain[here.grain >= 0]).tolist():
        members = np.flatnonzero(here.grain == grain)
        vectors = [
            near_vectors(here.positions[members[here.sublattice[members] == side]], _NEAR * a)[2] for side in (0, 1)
        ]
        basis = _fit(np.concatenate(vectors))
        if basis is not None:
            metal = METAL_SITE[here.labels[members]]
            bonds = _bond_direction(here.positions[members[metal]], here.positions[members[~metal]], 0.85 * a)
            found.append(GrainLattice(grain, len(members), basis * here.sampling, bonds))
    return tuple(found)


def grain_summary(classification: Classification) -> list[dict[str, float | None]]:
    """Return what a table of grains says of each: columns, lattice constant, rotation, distortion and area.

    Parameters
    ----------
    classification : Classification
        Of one micrograph.

    Returns
    -------
    list of dict
        For each grain "grain", "columns", "lattice_constant_angstrom", "rotation_degrees", "bond_direction_degrees"
        (None without bonds), "elongation", "elongation_axis_degrees" and "area_nm2", see `GrainLattice`.

    Examples
    --------
    >>> import contextem as ctm
    >>> from contextem.examples import demo_micrograph
    >>> example = demo_micrograph()
    >>> (grain,) = grain_summary(ctm.classify(example.micrograph, example.context))
    >>> grain["columns"] > 800, round(grain["area_nm2"])
    (True, 40)
    """
    return [
        {
            "grain": lattice.grain,
            "columns": lattice.columns,
            "lattice_constant_angstrom": lattice.lattice_constant,
            "rotation_degrees": lattice.rotation,
            "bond_direction_degrees": None if np.isnan(lattice.bond_direction) else lattice.bond_direction,
            "elongation": lattice.elongation,
            "elongation_axis_degrees": lattice.elongation_axis,
            "area_nm2": lattice.area,
        }
        for lattice in grain_lattices(classification)
    ]


def near_vectors(
    positions: NDArray[np.float64], reach: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return pairs i, j (M,) of positions (N, 2) within reach, each way, and the vectors (M, 2) from i to j."""
    pairs = cKDTree(positions).query_pairs(reach, output_type="ndarray") if len(positions) else np.zeros((0, 2), int)
    one, other = np.concatenate([pairs, pairs[:, ::-1]]).astype(np.int64).T
    return one, other, positions[other] - positions[one]


def hexagon_slots(
    vectors: NDArray[np.float64], basis: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return which of the six sites vectors (M, 2) lead to, (M,), -1 for none, and whether they end near it."""
    indices = np.rint(vectors @ np.linalg.inv(basis)).astype(np.int64)
    off = vectors - indices @ basis
    slot = _SLOTS[tuple(np.clip(indices, -2, 2).T)]
    a = np.sqrt(abs(np.linalg.det(basis)) * 2 / np.sqrt(3))
    return slot, np.asarray((slot >= 0) & (np.hypot(off[:, 0], off[:, 1]) < _OFF * a))


def cauchy_weights(residuals: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """Return the weight of each residual's length (M,), the scale taken from their median and the constant a, px."""
    scale = np.median(residuals) / 1.1774 if len(residuals) else 0.0  # of lengths with two normal components
    return np.asarray(1.0 / (1.0 + (residuals / (CAUCHY * max(scale, _EXACT * a))) ** 2))


def _fit(vectors: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the basis (2, 2) in px, rows a and b, that fits vectors (M, 2) to nearest sites."""
    if len(vectors) == 0:
        return None
    z = vectors[:, 1] + 1j * vectors[:, 0]
    length = float(np.median(abs(z)))
    start = np.angle(np.sum((z / abs(z)) ** 6)) / 6
    turned = length * np.exp(1j * (start + np.array([0.0, np.pi / 3])))
    basis = np.column_stack([turned.imag, turned.real])
    weights = np.ones(len(vectors))
    for _ in range(20):
        slot, near = hexagon_slots(vectors, basis)
        indices, kept, w = HEXAGON[slot[near]], vectors[near], weights[near]
        normal = indices.T @ (w[:, None] * indices)
        if np.linalg.matrix_rank(normal) < 2:
            return None
        before, basis = basis, np.linalg.solve(normal, indices.T @ (w[:, None] * kept))
        if np.max(abs(basis - before)) < 1e-7 * length:
            break
        weights = np.zeros(len(vectors))
        weights[near] = cauchy_weights(np.linalg.norm(kept - indices @ basis, axis=1), length)
    return basis


def _bond_direction(metals: NDArray[np.float64], chalcogens: NDArray[np.float64], reach: float) -> float:
    if len(metals) == 0 or len(chalcogens) == 0:
        return float("nan")
    distance, nearest = cKDTree(chalcogens).query(metals, k=np.arange(1, 4), distance_upper_bound=reach)
    there = np.isfinite(distance)
    if not there.any():
        return float("nan")
    bonds = chalcogens[nearest[there]] - np.repeat(metals, there.sum(axis=1), axis=0)
    z = bonds[:, 1] + 1j * bonds[:, 0]
    return float(np.rad2deg(np.angle(np.sum((z / abs(z)) ** 3))) / 3)
