"""How many defects there are, with 95 % intervals that hold both for the sites looked at and for what is told of them.

Posteriors q_ik hold the shares pi_k of the classes where the classifier was calibrated; what the image itself says of
site i are the likelihoods q_ik / pi_k.  With r_i the ratio of that of a defect k to that of the other classes, in their
proportions in this image, n sites together say of the share theta of this specimen

    r_i = (q_ik / pi_k) / sum_j rho_j q_ij / pi_j,      L(theta) = prod_i (1 - theta + theta r_i).

Multiplied out, L is a mixture of binomial likelihoods theta^k (1 - theta)^(n-k): k defects among the sites, which is
Poisson-binomial, and chance in which sites were looked at.  Sure posteriors leave one k, doubtful ones widen the mix.
With Jeffreys' prior, uniform in t where theta = sin^2 t, the interval holds the middle 95 % of the posterior.  Where
L falls from theta = 0 on, its lower end is 0 and the prior uniform there, as Brown, Cai and DasGupta modify it
(https://doi.org/10.1214/ss/1009213286); likewise at theta = 1.

Two numbers of defects are told.  `count` is the number of labels.  `expected_count` is n times the likeliest theta,
which is the sum of the posteriors once the shares in this image have taken the place of pi
(https://doi.org/10.1162/089976602753284446); the value goes by it.  They are one where columns are told for sure.  In
noise the labels count too many of a class that is rarer than in training, for X2 columns taken for vacancies do not
become rarer with the vacancies, and too few of one that is more common.  The plain sum of the posteriors errs likewise.

The interval does not hold what all columns of an image share, such as a detector whose angles are not those stated.
A share theta of the sites is theta / A_cell defects per area, A_cell = sqrt(3)/2 a^2 the cell of the host.  Sites are
complete columns only: the classifier was calibrated on none that the border cuts.

A density would have been told from none if it gives, in 95 % of images, more labels than false ones explain.  With b
labels expected to be false and n sites, on Poisson's statistics (Currie, https://doi.org/10.1021/ac60259a007)

    detection limit = d / n,     P(Poisson(b + d) <= c) = 5 %,     c the least with P(Poisson(b) > c) <= 5 %,

3.0 / n where no label is doubtful, about (2.71 + 3.29 sqrt(b)) / n where many are.  It counts defects that get their
label: where noise hides a part of them, divide it by the recall.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import gammaincinv, pdtr

from contextem.columns import CLASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from contextem.classification import Classification

TRAINED_SHARES: Mapping[str, float] = MappingProxyType(
    {"dopant": 0.105, "single_vacancy": 0.0825, "double_vacancy": 0.0825}
)
"""Share of each defect among the sites of its sublattice in the images that the packaged models are calibrated on."""

_NODES = 513  # of the posterior, over about 12 of its standard deviations
_DEPTH = 18.0  # log likelihood below its maximum at which they end


@dataclass(frozen=True)
class SiteFraction:
    """The share of sites that are defects of a class.

    Attributes
    ----------
    sites : int
        Sites looked at.
    count : int
        Those labelled as defects.
    expected_count : float
        Those that are, most likely: sites times the likeliest share.
    interval_95 : (float, float)
        Of the fraction in the specimen; (0, 1) without sites.
    detection_limit : float
        Least fraction that would have been told from none; infinite without sites.
    """

    sites: int
    count: int
    expected_count: float
    interval_95: tuple[float, float]
    detection_limit: float

    @property
    def value(self) -> float:
        """Expected count over sites; NaN without sites."""
        return self.expected_count / self.sites if self.sites else float("nan")

    def summary(self, scale: float = 1.0) -> dict[str, Any]:
        """Return "value", "interval_95", "count", "expected_count", "sites" and "detection_limit" for JSON.

        Parameters
        ----------
        scale : float
            By which fractions are multiplied, as 1 / area of a cell for densities.
        """
        some = self.sites > 0
        return {
            "value": self.value * scale if some else None,
            "interval_95": [end * scale for end in self.interval_95] if some else None,
            "count": self.count,
            "expected_count": self.expected_count,
            "sites": self.sites,
            "detection_limit": self.detection_limit * scale if some else None,
        }


@dataclass(frozen=True)
class Densities:
    """What a paper says of the defects of a specimen.

    Attributes
    ----------
    dopant, single_vacancy, double_vacancy : SiteFraction
        Of the metal sites, and of the chalcogen columns.
    cell_area : float
        cm^2, of the cell of the host; a cell has one site of either kind.
    """

    dopant: SiteFraction
    single_vacancy: SiteFraction
    double_vacancy: SiteFraction
    cell_area: float

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return the dopant fraction and the vacancy densities (cm^-2) for JSON, see `SiteFraction.summary`."""
        return {
            "dopant_fraction": self.dopant.summary(),
            "single_vacancy_density_per_cm2": self.single_vacancy.summary(1.0 / self.cell_area),
            "double_vacancy_density_per_cm2": self.double_vacancy.summary(1.0 / self.cell_area),
        }

    def draw(self, axes: Axes) -> None:
        """Draw share of sites with 95 % interval, share of labels and detection limit of each kind of defect.

        Parameters
        ----------
        axes : matplotlib.axes.Axes
            Axes to draw on.
        """
        rows = {
            "dopants": self.dopant,
            "single vacancies": self.single_vacancy,
            "double vacancies": self.double_vacancy,
        }
        known = {row: each for row, each in enumerate(rows.values()) if each.sites}
        ends = [v for each in known.values() for v in (*each.interval_95, each.detection_limit) if v > 0.0]
        left, right = (100 * min(ends) / 2, min(100.0, 100 * max(ends) * 2)) if ends else (0.1, 100.0)
        axes.set(xscale="log", xlim=(left, right), ylim=(len(rows) - 0.5, -0.5), xlabel="share of sites (%)")
        axes.set_yticks(range(len(rows)), list(rows))
        axes.xaxis.set_major_formatter("{x:g}")
        handles: dict[str, Any] = {}
        for row, each in known.items():
            low, high = (100 * end for end in each.interval_95)
            (handles["95 % interval"],) = axes.plot([max(low, left), high], [row, row], color="#0072B2", lw=1.6)
            if low <= left:
                axes.plot(left, row, "<", color="#0072B2", ms=5, clip_on=False)
            (limit,) = axes.plot(100 * each.detection_limit, row, "|", color="0.35", ms=14, mew=1.2, ls="none")
            handles["detection limit"] = limit
            if each.count:
                where = 100 * each.count / each.sites
                (handles["labels"],) = axes.plot(where, row, "o", mfc="none", mec="#D55E00", ms=8)
            if 100 * each.value > left:
                (handles["expected"],) = axes.plot(100 * each.value, row, "o", color="#0072B2", ms=5)
            words = _words(each, 100.0, " %") if row == 0 else _words(each, 1.0 / self.cell_area, " cm$^{-2}$")
            axes.annotate(words, (1.03, row), xycoords=("axes fraction", "data"), va="center")
        order = [name for name in ("expected", "95 % interval", "labels", "detection limit") if name in handles]
        axes.legend(
            [handles[name] for name in order], order, frameon=False, ncols=4, loc="lower center",
            bbox_to_anchor=(0.5, 1.0), columnspacing=1.2, handlelength=1.4,
        )  # fmt: skip


def densities(classification: Classification, shares: Mapping[str, float] | None = None) -> Densities:
    """Estimate dopant fraction and vacancy densities.

    Parameters
    ----------
    classification : Classification
        Sites are its complete, counted columns whose label is a class of the sublattice; that a column stands on this
        sublattice is taken for granted, as all columns around have a say in it.
    shares : mapping, optional
        Share of each defect among its sites where the posteriors were calibrated, each above 0, below 1; by default
        those that the model tells, or of the packaged models.

    Returns
    -------
    Densities

    Raises
    ------
    ValueError
        If a share is missing or out of range.

    Examples
    --------
    >>> import contextem as ctm
    >>> from contextem.examples import demo_micrograph
    >>> example = demo_micrograph()
    >>> found = densities(ctm.classify(example.micrograph, example.context)).dopant
    >>> found.count, round(found.expected_count), found.sites
    (24, 24, 350)
    """
    here = classification
    if shares is None:
        shares = {**TRAINED_SHARES, **here.provenance.get("model", {}).get("defect_shares", {})}
    for name in TRAINED_SHARES:
        if not 0.0 < shares.get(name, 0.0) < 1.0:
            raise ValueError(f"shares: expected one of {name} above 0, below 1, got {shares.get(name)}")
    usable = here.counted & here.complete
    found: dict[str, SiteFraction] = {}
    for host, *defects in (("metal", "dopant"), ("X2", "single_vacancy", "double_vacancy")):
        classes = [CLASSES.index(name) for name in (host, *defects)]
        among = [shares[name] for name in defects]
        posteriors = here.probabilities[usable & np.isin(here.labels, classes)][:, classes]
        fractions = site_fractions(posteriors, [1.0 - sum(among), *among])
        found |= dict(zip(defects, fractions[1:], strict=True))
    return Densities(**found, cell_area=float(np.sqrt(0.75)) * here.lattice_constant**2 * 1e-16)


def site_fractions(posteriors: NDArray[np.floating[Any]], shares: ArrayLike) -> tuple[SiteFraction, ...]:
    """Estimate the shares of all classes that stand on sites of one kind.

    Parameters
    ----------
    posteriors : (N, C)
        Of the classes of each site; rows need not add up to one.
    shares : (C,)
        Share of each class where the posteriors were calibrated, each above 0, together 1.

    Returns
    -------
    tuple of SiteFraction
        One a class.

    Examples
    --------
    >>> sure = np.repeat(np.eye(2), (3997, 3), axis=0)
    >>> _, three = site_fractions(sure, (0.9, 0.1))
    >>> round(three.expected_count, 3), [round(4000 * end, 2) for end in three.interval_95]
    (3.0, [0.84, 8.0])
    """
    p = np.asarray(posteriors, np.float64)
    n = len(p)
    if n == 0:
        return tuple(SiteFraction(0, 0, 0.0, (0.0, 1.0), float("inf")) for _ in range(p.shape[1]))
    likelihoods = np.clip(p / p.sum(axis=1, keepdims=True), 1e-10, 1.0) / np.asarray(shares)
    theta, labels = most_likely_shares(likelihoods), p.argmax(axis=1)
    found = []
    for index, best in enumerate(theta.tolist()):
        excess = _excess(likelihoods, theta, index)
        labelled = excess[labels == index]
        true = best * float(np.sum((1.0 + labelled) / (1.0 + best * labelled)))
        limit = min(1.0, _least_told(max(0.0, len(labelled) - true)) / n)
        found.append(SiteFraction(n, len(labelled), n * best, _interval(excess, best), limit))
    return tuple(found)


def most_likely_shares(likelihoods: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the shares (C,) of the classes that make the columns likeliest.

    Parameters
    ----------
    likelihoods : (N, C)
        Of each class given what is seen of a column, up to a factor a column, above 0; N at least 1.

    Examples
    --------
    >>> most_likely_shares(np.array([[1.0, 1e-9], [1e-9, 1.0], [1.0, 1e-9], [1.0, 1.0]])).round(3).tolist()
    [0.667, 0.333]
    """
    kinds = likelihoods.shape[1]
    theta: NDArray[np.float64] = np.full(kinds, 1.0 / kinds)
    for _ in range(200):  # each share in turn, the others in proportion: their sum of logarithms is concave
        before = theta
        for index in range(kinds):
            best = _most_likely(_excess(likelihoods, theta, index))
            theta = (1.0 - best) * _others(theta, index)
            theta[index] = best
        if kinds == 2 or np.max(abs(theta - before)) < 1e-7:
            break
    return theta


def _others(theta: NDArray[np.float64], index: int) -> NDArray[np.float64]:
    """Return the shares of the other classes among themselves, evenly where there are none."""
    other = np.arange(len(theta)) != index
    total = float(theta[other].sum())
    return np.asarray(other * theta / total if total > 0.0 else other / (len(theta) - 1))


def _excess(likelihoods: NDArray[np.float64], theta: NDArray[np.float64], index: int) -> NDArray[np.float64]:
    """Return r - 1, (N,), with r the likelihood ratio of a class and of the others in their proportions."""
    return np.asarray(likelihoods[:, index] / (likelihoods @ _others(theta, index)) - 1.0)


def _words(fraction: SiteFraction, scale: float, unit: str) -> str:
    """Write a share with its interval, or its upper end where that is all that is known, for a figure."""
    low, value, high = (scale * each for each in (fraction.interval_95[0], fraction.value, fraction.interval_95[1]))
    power = int(np.floor(np.log10(high)))
    plain = -4 < power < 4
    factor, places = (1.0, max(0, 2 - power)) if plain else (10.0**power, 2)
    ends = [f"{each / factor:.{places}f}" for each in (low, value, high)]
    interval = f"< {ends[2]}" if fraction.interval_95[0] == 0.0 else f"{ends[1]} ({ends[0]} to {ends[2]})"
    return interval + ("" if plain else f" $\\times$ 10$^{{{power}}}$") + unit


def _least_told(false: float) -> float:
    """Return the mean number of defects that in 95 % of images gives more labels than false ones explain."""
    critical = int(np.searchsorted(pdtr(np.arange(int(false + 10.0 * np.sqrt(false)) + 10), false), 0.95))
    return float(gammaincinv(critical + 1, 0.95)) - false  # P(Poisson(mean) <= c) = 1 - gammainc(c + 1, mean)


def _most_likely(excess: NDArray[np.float64]) -> float:
    """Return the share theta at which the likelihood is greatest; its logarithm is concave."""

    def slope(theta: float) -> float:
        return float(np.sum(excess / (1.0 + theta * excess)))

    if slope(0.0) <= 0.0:
        return 0.0
    return 1.0 if slope(1.0) >= 0.0 else float(brentq(slope, 0.0, 1.0, xtol=1e-12))


def _interval(excess: NDArray[np.float64], best: float) -> tuple[float, float]:
    """Return the interval of theta that holds 95 % of its posterior."""

    def likelihood(t: float) -> float:
        return float(np.sum(np.log1p(np.sin(t) ** 2 * excess)))

    top = float(np.arcsin(np.sqrt(best)))
    most = likelihood(top)
    ends = [
        end
        if likelihood(end) >= most - _DEPTH
        else float(brentq(lambda t: likelihood(t) - most + _DEPTH, *sorted((end, top)), xtol=1e-9))
        for end in (0.0, np.pi / 2)
    ]
    t = np.linspace(ends[0], ends[1], _NODES)
    density = np.exp([likelihood(each) - most for each in t])
    if best in (0.0, 1.0):
        density *= np.sin(t) if best == 0.0 else np.cos(t)  # the prior uniform there
    steps = (density[1:] + density[:-1]) / 2.0
    below = np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()
    low, high = np.sin(np.interp((0.025, 0.975), below, t)) ** 2
    return (0.0 if best == 0.0 else float(low), 1.0 if best == 1.0 else float(high))
