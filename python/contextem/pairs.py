"""Whether defects stand in pairs more or less often than by chance: pair numbers by lattice distance.

Columns stand at lattice distances only, so pairs are counted by shell s, r_s = a sqrt(h^2 + hk + k^2) on one
sublattice, and compared with as many defects placed at random on the same sites:

    ratio_s = pairs_s / E pairs_s,    E pairs_s = (pairs of sites in s) m (m - 1) / (n (n - 1))

for m defects on n sites, and (pairs of sites in s) m m' / (n n') for two kinds of defects.  Borders, holes and columns
that are not counted are the same for both and cancel.  A share of defects that changes across the image, or from grain
to grain, looks like clusters.

One p value goes for all shells: curves are as extreme as their furthest shell, on the scale of Anscombe's roots, on
which counts scatter evenly however few they are (https://doi.org/10.1093/biomet/35.3-4.246),

    z_s = sqrt(pairs_s + 3/8),      u = max_s |z_s - mean z_s| / std z_s    over all curves,

and p is the share of curves, the measured one among them, with u at least as great.  Where p <= 5 %, and only there,
the measured one leaves the global envelope mean z -+ u95 std z at some shell: the studentised envelope of Myllymäki et
al. (https://doi.org/10.1111/rssb.12172).

Defects are columns by their labels, each one or none.  Weights by probability would let thousands of columns that are
hardly any defects add up to more pairs than the few that are.  Wrong labels at random sites draw ratios towards one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from contextem.columns import CLASSES
from contextem.grain_lattices import grain_lattices
from contextem.sites import METAL_SITE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from contextem.classification import Classification

ENOUGH = 20
"""Defects of a kind without which their pairs tell little."""

KINDS = {
    "dopant": ("dopant",),
    "single_vacancy": ("single_vacancy",),
    "double_vacancy": ("double_vacancy",),
    "vacancy": ("single_vacancy", "double_vacancy"),
}
"""Defects by name, and their classes."""

_SITE_BASIS = np.array([[2.0, -1.0], [1.0, 1.0]]) / 3.0  # of all columns and hollows, in terms of a and b


@dataclass(frozen=True)
class PairCorrelation:
    """Pairs of defects at the distances of the lattice, and what random placement makes of them.

    Attributes
    ----------
    kind, other : str
        The two kinds of defects, one of `KINDS`; the same for pairs of one kind.
    defects, sites : (int, int)
        Number of defects of either kind, and of the sites on which they may stand.
    distance : (S,) float64
        Of the shells, Å.
    pairs : (S,) int64
        Pairs of defects.
    expected : (S,) float64
        Mean number under random placement.
    pointwise_95, global_95 : (2, S) float64
        Least and greatest ratio of 95 % of the placements, shell by shell, and for all shells together: where the
        measured ratio leaves the latter at any shell, placement was not random at the level of 5 %.
    p_value : float
        Share of placements at least as extreme as what was measured, itself counted among them.
    placements : int
        Number of random placements.
    """

    kind: str
    other: str
    defects: tuple[int, int]
    sites: tuple[int, int]
    distance: NDArray[np.float64]
    pairs: NDArray[np.int64]
    expected: NDArray[np.float64]
    pointwise_95: NDArray[np.float64]
    global_95: NDArray[np.float64]
    p_value: float
    placements: int

    @property
    def ratio(self) -> NDArray[np.float64]:
        """(S,) pairs over their expected number: the g(r) of a lattice."""
        return np.asarray(self.pairs / self.expected)

    @property
    def short_range_order(self) -> NDArray[np.float64]:
        """(S,) Warren-Cowley parameters (https://doi.org/10.1103/PhysRev.77.669) of defects of one kind.

        alpha = 1 - P(no defect at r | defect) / P(no defect): 0 for random placement, positive for clusters, negative
        for defects that avoid each other.  NaN for two kinds.
        """
        share = self.defects[0] / self.sites[0]
        alpha = share * (self.ratio - 1.0) / (1.0 - share) if self.kind == self.other and share < 1 else np.nan
        return np.broadcast_to(alpha, self.ratio.shape)

    def draw(self, axes: Axes) -> None:
        """Draw the ratio at each distance of the lattice on the bars that random placement keeps to.

        Parameters
        ----------
        axes : matplotlib.axes.Axes
            Axes to draw on.
        """
        bars = (
            (self.global_95, "0.85", 5.0, "random, 95 % overall"),
            (self.pointwise_95, "0.6", 2.0, "random, 95 % at each distance"),
        )
        for (low, high), colour, width, label in bars:
            axes.vlines(self.distance, low, high, color=colour, lw=width, label=label)
        axes.axhline(1.0, color="0.3", lw=0.6, zorder=1.5)
        axes.plot(self.distance, self.ratio, "o", color="#0072B2", ms=3.5, label="measured")
        axes.set(
            xlabel="distance (Å)",
            ylabel="pairs / pairs at random",
            title=f"{_words(self)}, p = {self.p_value:.2g}",
            xlim=(0.0, float(self.distance[-1]) * 1.04),
            ylim=(0.0, 1.5 * float(max(self.ratio.max(), self.global_95[1].max()))),
        )
        axes.legend(frameon=False, loc="upper left", labelspacing=0.2)


def pair_correlation(
    classification: Classification,
    kind: str = "dopant",
    other: str | None = None,
    *,
    r_max: float = 20.0,
    placements: int = 999,
    seed: int = 0,
) -> PairCorrelation:
    """Compare the pairs of defects with those of as many placed at random on the same sites.

    Parameters
    ----------
    classification : Classification
        Sites are the complete, counted columns of a grain whose label is one of the classes of the sublattice.
    kind : str
        One of `KINDS`.
    other : str, optional
        Another one, for pairs of two kinds on different sublattices: the first kind is placed at random, the other one
        stays, so that its own clusters do not count.
    r_max : float
        Largest distance, Å.
    placements : int
        At random, at least 19; the p value is at least 1 / (placements + 1).
    seed : int
        Same seed, same placements.

    Returns
    -------
    PairCorrelation

    Raises
    ------
    ValueError
        If a kind is not known, both stand on one sublattice, there are fewer than two defects (one of each kind), no
        two sites stand within `r_max`, or `placements` is less than 19.

    Examples
    --------
    >>> import contextem as ctm
    >>> from contextem.examples import demo_micrograph
    >>> example = demo_micrograph()
    >>> dopants = pair_correlation(ctm.classify(example.micrograph, example.context), r_max=7.0)
    >>> dopants.distance.round(1).tolist()
    [3.3, 5.8, 6.6]
    >>> dopants.p_value > 0.05
    True
    """
    here, cross = classification, other is not None and other != kind
    both = (kind, other if other is not None else kind)
    for name, value in zip(("kind", "other"), both, strict=True):
        if value not in KINDS:
            raise ValueError(f"{name}: expected one of {', '.join(KINDS)}, got {value!r}")
    on_metal = [METAL_SITE[CLASSES.index(KINDS[each][0])] for each in both]
    if cross and on_metal[0] == on_metal[1]:
        raise ValueError(f"other: expected a defect on the other sublattice than {kind}, got {other!r}")
    usable = here.counted & here.complete & (here.grain >= 0)
    sites = [np.flatnonzero(usable & (METAL_SITE[here.labels] == side)) for side in on_metal]
    classes = [np.isin(here.labels, [CLASSES.index(name) for name in KINDS[each]]) for each in both]
    first, second = (np.flatnonzero(marked[where]) for marked, where in zip(classes, sites, strict=True))
    n, m = (len(sites[0]), len(sites[1])), (len(first), len(second))
    if min(m) < (1 if cross else 2):
        found = f"{m[0]} {kind} and {m[1]} {other}" if cross else f"{m[0]}"
        raise ValueError(f"kind: expected at least {'one of each' if cross else 'two'} ({kind}), got {found}")
    if placements < 19:
        raise ValueError(f"placements: expected at least 19, for a p value of 5 %, got {placements}")
    shells, norms = _shells(here, sites, r_max, same=not cross)
    if len(norms) == 0:
        raise ValueError(f"r_max: expected a distance, Å, at which sites of {kind} stand, got {r_max}")

    def count(here: NDArray[np.int64], there: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(shells[here][:, there].data, minlength=len(norms) + 1)[1:]

    measured = count(first, second)
    rng = np.random.default_rng(seed)
    curves = np.empty((placements + 1, len(norms)), np.int64)
    curves[0] = measured
    for row in curves[1:]:
        chosen = rng.choice(n[0], m[0], replace=False, shuffle=False)
        row[:] = count(chosen, second if cross else chosen)
    chance = m[0] * m[1] / (n[0] * n[1]) if cross else m[0] * (m[0] - 1) / (n[0] * (n[0] - 1))
    expected = np.asarray(np.bincount(shells.data, minlength=len(norms) + 1)[1:] * chance, np.float64)
    pointwise = np.quantile(curves[1:], (0.025, 0.975), axis=0, method="inverted_cdf")
    roots = np.sqrt(curves + 0.375)
    centre, spread = roots.mean(axis=0), np.maximum(roots.std(axis=0), 1e-9)
    extreme = (abs(roots - centre) / spread).max(axis=1)
    allowed = np.quantile(extreme, 0.95, method="inverted_cdf")
    edges = np.maximum(centre - allowed * spread, np.sqrt(0.375)), centre + allowed * spread
    return PairCorrelation(
        kind=kind,
        other=both[1],
        defects=m,
        sites=n,
        distance=here.lattice_constant * np.sqrt(norms / 3.0),
        pairs=measured,
        expected=expected,
        pointwise_95=pointwise / expected,
        global_95=np.stack([edge**2 - 0.375 for edge in edges]) / expected,
        p_value=float(np.mean(extreme >= extreme[0])),
        placements=placements,
    )


def _shells(
    here: Classification, sites: list[NDArray[np.int64]], r_max: float, *, same: bool
) -> tuple[csr_array, NDArray[np.int64]]:
    """Return shells 1, 2, ... of pairs of sites (n, n'), each pair once, and their squared distances in a^2 / 3."""
    rows, columns, found = [], [], []
    limit = 3.0 * (r_max / here.lattice_constant) ** 2 + 1e-9
    for lattice in grain_lattices(here):
        basis = lattice.vectors / here.sampling  # px
        one, two = (np.flatnonzero(here.grain[each] == lattice.grain) for each in sites)
        # the lattice in the image may be distorted, so that a shell is no circle
        reach = (np.sqrt(limit / 3.0) + 0.3) * float(np.linalg.norm(basis, axis=1).max())
        p, q = here.positions[sites[0][one]], here.positions[sites[1][two]]
        if same:
            i, j = cKDTree(p).query_pairs(reach, output_type="ndarray").astype(np.int64).reshape(-1, 2).T
            h, k = _indices(q[j] - p[i], basis)
            norm, allowed = 3 * (h * h + h * k + k * k), 0
        else:
            pairs = cKDTree(p).sparse_distance_matrix(cKDTree(q), reach, output_type="coo_matrix")
            i, j = pairs.row.astype(np.int64), pairs.col.astype(np.int64)
            h, k = _indices(q[j] - p[i], _SITE_BASIS @ basis)
            norm, allowed = h * h + h * k + k * k, 1
        kept = (norm > 0) & (norm <= limit) & (norm % 3 == allowed)
        rows.append(one[i[kept]])
        columns.append(two[j[kept]])
        found.append(norm[kept])
    norms, shell = np.unique(np.concatenate(found) if found else np.zeros(0, np.int64), return_inverse=True)
    place = (np.concatenate(rows), np.concatenate(columns)) if rows else (shell, shell)
    shape = (len(sites[0]), len(sites[1]))
    return csr_array((shell + 1, place), shape=shape), norms


def _indices(vectors: NDArray[np.float64], basis: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the lattice indices h and k, (2, M), of vectors (M, 2)."""
    return np.asarray(np.rint(vectors @ np.linalg.inv(basis)).T, np.int64)


def _words(pairs: PairCorrelation) -> str:
    """Say what the pairs are of, with their numbers."""
    words = [each.replace("_", " ") for each in (pairs.kind, pairs.other)]
    plural = [word.replace("vacancy", "vacancies") if "vacancy" in word else f"{word}s" for word in words]
    if pairs.kind == pairs.other:
        return f"{pairs.defects[0]} {plural[0]}"
    return f"{pairs.defects[0]} {plural[0]}, {pairs.defects[1]} {plural[1]}"
