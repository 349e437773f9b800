"""Strain and rotation of the lattice at every column, relative to the mean lattice of its grain.

An affine map is fitted to a column and its up to six nearest ones on the same sublattice, with e_k where these stand in
the mean lattice of the grain, e_0 = 0:

    minimise  sum_k w_k |p_k - c - F e_k|^2,      F = R U,  U = 1 + strain,

with Cauchy's weights w_k, so that one displaced column does not bend its neighbours' lattice.  F is linear in the
positions: rows of the sparse matrices Gx and Gy give its columns, averages over neighbouring columns are rows of S G,
and independent errors sigma of the positions make errors

    of exx  sigma |SGx|,    of eyy  sigma |SGy|,    of exy and rotation  sigma sqrt(|SGx|^2 + |SGy|^2) / 2,

sigma from the residuals of the fits around.

Axes: x runs along the columns (to the right), y along the rows (downwards).  exx > 0 is longer along x.  exy > 0 pulls
the lower right and the upper left corner apart.  Rotation is positive from x to y: clockwise, as seen in the image.

Rows are scanned one after the other, so that drift and jitter of a row look like strain along y: in eyy, exy and
rotation, the same all along a row.  Only exx is free of it.  `without_drift` takes off what the columns of a row share,
real strain included that does not change along rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from contextem.figures import round_length
from contextem.grain_lattices import HEXAGON, GrainLattice, cauchy_weights, grain_lattices, hexagon_slots, near_vectors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from contextem.classification import Classification

COMPONENTS = ("exx", "eyy", "exy", "rotation")
"""Of the strain, each a fraction, and the rotation, in radians."""

_TITLES = {
    "exx": r"$\varepsilon_{xx}$ (%)",
    "eyy": r"$\varepsilon_{yy}$ (%)",
    "exy": r"$\varepsilon_{xy}$ (%)",
    "rotation": "rotation (degrees)",
}

LEAST = 4
"""Neighbours without which a column has no strain of its own."""


@dataclass(frozen=True)
class StrainMap:
    """Strain of every column of a micrograph.

    Attributes
    ----------
    positions : (N, 2) float64
        (row, column), px.
    values : (N, 4) float64
        `COMPONENTS`: exx, eyy, exy as fractions, rotation in radians; NaN where neighbours are missing.
    errors : (N, 4) float64
        Their standard errors from the scatter of the columns about the local lattice: what exceeds it is strain.
        Positions are taken for independent.  `find_columns` draws noisy ones towards where their neighbours predict
        them, and rows jitter as a whole: on simulated micrographs values scatter by 1.3 times the errors at 10,000
        electrons a pixel, by 1.5 times at 2,000 and by 2.4 times at 500.
    lattices : tuple of GrainLattice
        The mean lattices that the strain is relative to.
    smoothing : int
        Columns that each value is averaged over.
    sampling : float
        Å/px.
    """

    positions: NDArray[np.float64]
    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    lattices: tuple[GrainLattice, ...]
    smoothing: int
    sampling: float

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def exx(self) -> NDArray[np.float64]:
        """(N,) strain along the columns axis, to the right."""
        return self.values[:, 0]

    @property
    def eyy(self) -> NDArray[np.float64]:
        """(N,) strain along the rows axis, downwards."""
        return self.values[:, 1]

    @property
    def exy(self) -> NDArray[np.float64]:
        """(N,) shear strain, half of the engineering one."""
        return self.values[:, 2]

    @property
    def rotation(self) -> NDArray[np.float64]:
        """(N,) radians, clockwise as seen."""
        return self.values[:, 3]

    def draw(self, axes: Axes, component: str, limit: float | None = None) -> Any:
        """Draw one component as a map, red where positive, with a scale bar.

        Parameters
        ----------
        axes : matplotlib.axes.Axes
            Axes to draw on.
        component : str
            One of `COMPONENTS`.
        limit : float, optional
            Where the colours end, as a fraction; by default at `self.limit`.

        Returns
        -------
        matplotlib.image.AxesImage
            In per cent, the rotation in degrees; for a colour bar.
        """
        if component not in COMPONENTS:
            raise ValueError(f"component: expected one of {', '.join(COMPONENTS)}, got {component!r}")
        unit = np.rad2deg(1.0) if component == "rotation" else 100.0
        limit = unit * (self.limit if limit is None else limit)
        values, extent = self._picture(COMPONENTS.index(component))
        image = axes.imshow(
            unit * values, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=extent, interpolation="nearest"
        )
        axes.set_facecolor("0.85")
        axes.set(xticks=[], yticks=[], title=_TITLES[component])
        length = round_length((extent[1] - extent[0]) * self.sampling / 50.0)  # nm, about a fifth of the width
        bar, below = 10.0 * length / self.sampling, extent[2] + 0.04 * (extent[2] - extent[3])
        axes.plot(extent[0] + np.array([0.0, bar]), [below] * 2, color="black", lw=2.0, clip_on=False)
        beside = bar + 0.03 * (extent[1] - extent[0])
        axes.text(extent[0] + beside, below, f"{length:g} nm", va="center", ha="left", fontsize="small")
        axes.set(xlim=extent[:2], ylim=extent[2:])
        return image

    @property
    def limit(self) -> float:
        """Where colours end that 98 % of all values stay within."""
        known = self.values[np.isfinite(self.values)]
        return max(float(np.quantile(abs(known), 0.98)), 1e-6) if len(known) else 0.01

    def _picture(self, index: int) -> tuple[NDArray[np.float64], tuple[float, float, float, float]]:
        """Return the value of the nearest column in each pixel of a map, NaN far from any, and where its edges are."""
        low, high = self.positions.min(axis=0), self.positions.max(axis=0)
        tree = cKDTree(self.positions)
        spacing = float(np.median(tree.query(self.positions, k=2)[0][:, 1])) if len(self.positions) > 1 else 1.0
        low, high = low - spacing, high + spacing
        step = max(float((high - low).max()) / 600, spacing / 8)
        rows, columns = (np.arange(a, b, step) for a, b in zip(low, high, strict=True))
        distance, nearest = tree.query(np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1))
        values = np.where(distance < 1.1 * spacing, self.values[nearest, index], np.nan)
        return values, (columns[0] - step / 2, columns[-1] + step / 2, rows[-1] + step / 2, rows[0] - step / 2)

    def plot(self, title: str | None = None) -> Figure:
        """Draw all four components side by side on one scale.

        Parameters
        ----------
        title : str, optional
            A line above the maps.

        Returns
        -------
        matplotlib.figure.Figure
            Save it with ``figure.savefig(path, dpi=200)``.
        """
        from matplotlib.figure import Figure

        height, width = np.ptp(self.positions, axis=0) if len(self) else (1.0, 1.0)
        size = (7.2, 6.0 * float(np.clip(height / max(width, 1e-9), 0.3, 2.0)) + 0.8)
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        for axes, component in zip(figure.subplots(2, 2).ravel(), COMPONENTS, strict=True):
            image = self.draw(axes, component)
            figure.colorbar(image, cax=axes.inset_axes((1.03, 0.0, 0.05, 1.0)), extend="both")
        if title:
            figure.suptitle(title)
        return figure


def strain_map(classification: Classification, *, smoothing: int = 13, without_drift: bool = False) -> StrainMap:
    """Measure strain and rotation at every column.

    Parameters
    ----------
    classification : Classification
        Columns on no grain, or on no known sublattice, have no strain.
    smoothing : int
        Columns of the grain, of both sublattices, each value is averaged over: 1 for none, 4 for a column and those
        bonded to it, 10, 13, 19, ... for whole shells.
    without_drift : bool
        Whether to take off the median of what columns at the same height show of drift.

    Returns
    -------
    StrainMap

    Raises
    ------
    ValueError
        If `smoothing` is less than 1.

    Examples
    --------
    >>> import contextem as ctm
    >>> from contextem.examples import demo_micrograph
    >>> example = demo_micrograph()
    >>> strain = strain_map(ctm.classify(example.micrograph, example.context))
    >>> bool(abs(np.nanmean(strain.exx)) < 0.005)
    True
    """
    if smoothing < 1:
        raise ValueError(f"smoothing: expected a number of columns, at least 1, got {smoothing}")
    here = classification
    values, errors = np.full((len(here), 4), np.nan), np.full((len(here), 4), np.nan)
    lattices = grain_lattices(here)
    for lattice in lattices:
        members = np.flatnonzero((here.grain == lattice.grain) & (here.sublattice >= 0))
        positions = here.positions[members]
        band = without_drift * lattice.lattice_constant / here.sampling / 2.0
        gradient, variance = _gradient(positions, here.sublattice[members], lattice.vectors / here.sampling)
        values[members], errors[members] = _strain(positions, gradient, variance, smoothing, band)
    return StrainMap(here.positions, values, errors, lattices, smoothing, here.sampling)


def _gradient(
    positions: NDArray[np.float64], sublattice: NDArray[np.int8], basis: NDArray[np.float64]
) -> tuple[tuple[csr_array, csr_array], NDArray[np.float64]]:
    """Return Gx and Gy, (N, N) each, and the variance of the positions about each fit, (N,) px^2, NaN without a fit."""
    n = len(positions)
    around = np.full((n, 7), -1)  # the column itself and the six around it
    around[:, 0] = np.arange(n)
    for side in (0, 1):
        mine = np.flatnonzero(sublattice == side)
        one, other, vectors = near_vectors(positions[mine], 1.5 * float(np.linalg.norm(basis, axis=1).min()))
        slot, near = hexagon_slots(vectors, basis)
        around[mine[one[near]], 1 + slot[near]] = mine[other[near]]
    there = around >= 0
    fitted = np.flatnonzero(there.sum(axis=1) > LEAST)
    around, there = around[fitted], there[fitted]
    sites = np.concatenate([[[0.0, 0.0]], HEXAGON @ basis])[:, ::-1]  # (x, y)
    design = np.column_stack([np.ones(7), sites])
    points = positions[around]
    weights = there.astype(np.float64)
    for _ in range(8):
        weighted = (weights[:, :, None] * design).transpose(0, 2, 1)  # (n, 3, 7)
        solve = np.linalg.solve(weighted @ design, weighted)
        off = points - design @ (solve @ points)
        residuals = np.hypot(off[..., 0], off[..., 1])
        used = weights
        weights = there.astype(np.float64)
        weights[there] = cauchy_weights(residuals[there], float(np.linalg.norm(basis, axis=1).min()))
    freedom = 2.0 * np.maximum(used.sum(axis=1) - 3.0, 0.5)
    variance = np.full(n, np.nan)
    variance[fitted] = (used * residuals**2).sum(axis=1) / freedom
    place = (np.repeat(fitted, 7), np.where(there, around, 0).ravel())
    gx, gy = (csr_array((np.where(there, solve[:, row], 0.0).ravel(), place), shape=(n, n)) for row in (1, 2))
    return (gx, gy), variance


def _strain(
    positions: NDArray[np.float64],
    gradient: tuple[csr_array, csr_array],
    variance: NDArray[np.float64],
    smoothing: int,
    band: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return strain and its errors, (N, 4) each, from gradients averaged over the nearest columns that have one.

    Drift is taken off in bands as high as `band`, px, unless that is 0.
    """
    n, known = len(positions), np.flatnonzero(np.isfinite(variance))
    values, errors = np.full((n, 4), np.nan), np.full((n, 4), np.nan)
    if len(known) == 0:
        return values, errors
    count = min(smoothing, len(known))
    _, nearest = cKDTree(positions[known]).query(positions[known], k=np.arange(1, count + 1))
    place = (np.repeat(np.arange(len(known)), count), known[nearest].ravel())
    mean = csr_array((np.full(nearest.size, 1.0 / count), place), shape=(len(known), n))
    gx, gy = mean @ gradient[0], mean @ gradient[1]
    x, y = positions[:, 1], positions[:, 0]
    f = np.stack([np.stack([gx @ x, gy @ x], axis=-1), np.stack([gx @ y, gy @ y], axis=-1)], axis=-2)  # F[x or y, ...]
    if band > 0.0:
        f[:, :, 1] -= _shared(y[known] / band, f[:, :, 1] - [0.0, 1.0])
    angle = np.arctan2(f[:, 1, 0] - f[:, 0, 1], f[:, 0, 0] + f[:, 1, 1])
    turn = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], axis=-1).reshape(-1, 2, 2)
    stretch = turn @ f  # R^T F
    values[known] = np.column_stack([stretch[:, 0, 0] - 1.0, stretch[:, 1, 1] - 1.0, stretch[:, 0, 1], angle])
    sigma2 = mean @ np.nan_to_num(variance)
    along_x, along_y = (np.asarray((each * each).sum(axis=1)).ravel() for each in (gx, gy))
    mixed = (along_x + along_y) / 4.0
    errors[known] = np.sqrt(sigma2[:, None] * np.column_stack([along_x, along_y, mixed, mixed]))
    return values, errors


def _shared(height: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the medians of values (N, 2) in bands of height 1, interpolated between their middles."""
    bands, which = np.unique(np.rint(height), return_inverse=True)
    order = np.argsort(which, kind="stable")
    parts = np.split(values[order], np.flatnonzero(np.diff(which[order])) + 1)
    medians = np.array([np.median(part, axis=0) for part in parts])
    return np.column_stack([np.interp(height, bands, medians[:, axis]) for axis in range(2)])
