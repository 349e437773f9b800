"""How many defects there are, with 95 % intervals that hold both for the sites looked at and for what is told of them.

Site i is a defect with posterior q_i, from a classifier that saw a share pi of defects where it was calibrated.  What
the image itself says is the likelihood ratio r_i, and n sites together say of the share theta of this specimen

    r_i = q_i (1 - pi) / ((1 - q_i) pi),      L(theta) = prod_i (1 - theta + theta r_i).

Multiplied out, L is a mixture of binomial likelihoods theta^k (1 - theta)^(n-k): k defects among the sites, which is
Poisson-binomial, and chance in which sites were looked at.  Sure posteriors leave one k, doubtful ones widen the mix.
With Jeffreys' prior, uniform in t where theta = sin^2 t, the interval holds the middle 95 % of the posterior.  Where
L falls from theta = 0 on, its lower end is 0 and the prior uniform there, as Brown, Cai and DasGupta modify it
(https://doi.org/10.1214/ss/1009213286); likewise at theta = 1.

Two numbers of defects are told.  `count` is the number of labels.  `expected_count` is the posterior mean of the true
number, sum_i E[theta r_i / (1 - theta + theta r_i)], in which the share in this image has taken the place of pi
(https://doi.org/10.1162/089976602753284446); the value goes by it.  They are one where columns are told for sure.  In
noise the labels count too many of a class that is rarer than in training, for X2 columns taken for vacancies do not
become rarer with the vacancies, and too few of one that is more common.

A share theta of the sites is theta / A_cell defects per area, A_cell = sqrt(3)/2 a^2 the cell of the host.  Sites are
complete columns only: the classifier was calibrated on none that the border cuts.

A density would have been told from none if it gives, in 95 % of images, more labels than false ones explain.  With b
labels expected to be false and n sites, on Poisson's statistics (Currie, https://doi.org/10.1021/ac60259a007)

    detection limit = d / n,     P(Poisson(b + d) <= c) = 5 %,     c the least with P(Poisson(b) > c) <= 5 %,

3.0 / n where no label is doubtful, about (2.71 + 3.29 sqrt(b)) / n where many are.  It is the limit for defects that
look like those of the simulations, which nearly all get their label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaincinv, pdtr

from contextem.columns import CLASSES
from contextem.sites import METAL_SITE

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
        Posterior mean of how many are.
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
        for row, each in enumerate(rows.values()):
            if not each.sites:
                continue
            low, high = (100 * end for end in each.interval_95)
            first = row == 0
            axes.plot([low, high], [row, row], color="#0072B2", lw=1.6, solid_capstyle="butt")
            axes.plot(
                100 * each.value, row, "o", color="#0072B2", ms=5, label="expected, 95 % interval" if first else None
            )
            axes.plot(
                100 * each.count / each.sites,
                row,
                "o",
                mfc="none",
                mec="#D55E00",
                ms=8,
                label="labels" if first else None,
            )
            limit = "detection limit" if first else None
            axes.plot(100 * each.detection_limit, row, "|", color="0.35", ms=14, mew=1.2, label=limit)
            density = each.value / self.cell_area
            axes.annotate(
                f"{density:.2g} cm$^{{-2}}$".replace("e+", "e") if row else f"{100 * each.value:.2g} %",
                (1.02, row),
                xycoords=("axes fraction", "data"),
                va="center",
            )
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="share of sites (%)")
        axes.set_xlim(left=0.0)
        axes.legend(frameon=False)


def densities(classification: Classification, shares: Mapping[str, float] = TRAINED_SHARES) -> Densities:
    """Estimate dopant fraction and vacancy densities.

    Parameters
    ----------
    classification : Classification
        Sites are its complete, counted columns whose label is a class of the sublattice; that a column stands on this
        sublattice is taken for granted, as all columns around have a say in it.
    shares : mapping
        Share of each defect among its sites where the posteriors were calibrated, each above 0, below 1; those of the
        packaged models by default.

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
    usable = here.counted & here.complete
    labels, probabilities = here.labels[usable], here.probabilities[usable].astype(np.float64)
    found = {}
    for name in ("dopant", "single_vacancy", "double_vacancy"):
        if not 0.0 < shares.get(name, 0.0) < 1.0:
            raise ValueError(f"shares: expected one of {name} above 0, below 1, got {shares.get(name)}")
        index = CLASSES.index(name)
        kind = METAL_SITE == METAL_SITE[index]
        on_site = kind[labels]
        p = probabilities[on_site]
        found[name] = site_fraction(
            p[:, index] / np.maximum(p[:, kind].sum(axis=1), 1e-30), labels[on_site] == index, shares[name]
        )
    return Densities(**found, cell_area=float(np.sqrt(0.75)) * here.lattice_constant**2 * 1e-16)


def site_fraction(posterior: NDArray[np.float64], labelled: NDArray[np.bool_], share: float) -> SiteFraction:
    """Estimate the share of sites that are defects.

    Parameters
    ----------
    posterior : (N,)
        Probability of each site to be a defect.
    labelled : (N,) bool
        Whether it is labelled as one.
    share : float
        Share of defects where the posteriors were calibrated, above 0, below 1.

    Returns
    -------
    SiteFraction

    Examples
    --------
    >>> sure = np.arange(4000) < 3
    >>> three = site_fraction(sure.astype(float), sure, 0.1)
    >>> round(three.expected_count, 3), [round(4000 * end, 2) for end in three.interval_95]
    (3.0, [0.84, 8.0])
    """
    n, count = len(posterior), int(np.sum(labelled))
    if n == 0:
        return SiteFraction(0, 0, 0.0, (0.0, 1.0), float("inf"))
    q = np.clip(posterior, 1e-12, 1.0 - 1e-9)
    excess = q / (1.0 - q) * ((1.0 - share) / share) - 1.0  # r - 1
    nodes, weights, interval = _posterior(excess)
    told = excess[labelled] + 1.0
    expected, true = 0.0, 0.0
    for theta, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        expected += weight * theta * float(np.sum((1.0 + excess) / (1.0 + theta * excess)))
        true += weight * theta * float(np.sum(told / (1.0 + theta * (told - 1.0))))
    limit = min(1.0, _least_told(max(0.0, count - true)) / n)
    return SiteFraction(n, count, expected, interval, limit)


def _least_told(false: float) -> float:
    """Return the mean number of defects that in 95 % of images gives more labels than false ones explain."""
    critical = int(np.searchsorted(pdtr(np.arange(int(false + 10.0 * np.sqrt(false)) + 10), false), 0.95))
    return float(gammaincinv(critical + 1, 0.95)) - false  # P(Poisson(mean) <= c) = 1 - gammainc(c + 1, mean)


def _posterior(
    excess: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    """Return nodes and weights of the posterior of theta, and the interval that holds 95 % of it."""
    none, everyone = bool(np.sum(excess) <= 0.0), bool(np.sum(excess / (1.0 + excess)) >= 0.0)

    def likelihood(t: float) -> float:
        return float(np.sum(np.log1p(np.sin(t) ** 2 * excess)))

    if none:
        best = 0.0
    elif everyone:
        best = np.pi / 2
    else:
        theta = brentq(lambda share: float(np.sum(excess / (1.0 + share * excess))), 0.0, 1.0, xtol=1e-12)
        best = float(np.arcsin(np.sqrt(theta)))
    least = likelihood(best) - _DEPTH
    ends = [
        end if likelihood(end) >= least else brentq(lambda t: likelihood(t) - least, *sorted((end, best)))
        for end in (0.0, np.pi / 2)
    ]
    t = np.linspace(ends[0], ends[1], _NODES)
    density = np.exp([likelihood(each) - least - _DEPTH for each in t])
    density *= np.sin(t) if none and not everyone else np.cos(t) if everyone and not none else 1.0
    steps = (density[1:] + density[:-1]) / 2.0
    below = np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()
    low, high = np.sin(np.interp((0.025, 0.975), below, t)) ** 2
    return np.sin(t) ** 2, density / density.sum(), (0.0 if none else float(low), 1.0 if everyone else float(high))
