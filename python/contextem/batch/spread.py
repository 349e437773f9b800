"""How far micrographs differ in their defects, and how far they would by chance.

Micrograph i has n_i sites and the share p_i of defects.  Were the share p the same in all, counting alone would scatter
p_i with the variance p (1 - p) / n_i.  Doubtful labels scatter it further: the interval of `contextem.densities` is
then wider than Jeffreys' for as many sure labels, and n_i is divided by the square of how much.  That p is the same is
tested by

    X^2 = sum_i z_i^2,     z_i = (p_i - p) / sqrt(p (1 - p) / n_i),

whose mean is M - 1 for M micrographs.  With few defects it scatters more than chi square does, z_i^2 by 2 + (1 - 6pq) /
(npq) with q = 1 - p; the p value is that of the gamma distribution of this mean and variance.  What chance does not
explain is the standard deviation beyond it, from the analysis of variance of shares
(https://doi.org/10.1111/j.0006-341X.1999.00137.x).  A trend along a series is tested as by Armitage
(https://doi.org/10.2307/3001775).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, gammaincc, ndtr, stdtrit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quantity:
    """What is told of the defects of a micrograph.

    Attributes
    ----------
    name : str
        In a summary.
    words : str
        In a sentence.
    defect : str
        The class of column.
    per_area : bool
        Whether it is told by area, cm^-2, and not as a share of the sites.
    """

    name: str
    words: str
    defect: str
    per_area: bool


QUANTITIES = (
    Quantity("dopant_fraction", "dopants on metal sites", "dopant", False),
    Quantity("single_vacancy_density_per_cm2", "single vacancies", "single_vacancy", True),
    Quantity("double_vacancy_density_per_cm2", "double vacancies", "double_vacancy", True),
)


@dataclass(frozen=True)
class Shares:
    """Share of defects in each of M micrographs that have sites.

    Attributes
    ----------
    where : ndarray, shape (M,)
        Index of each among all that were asked for.
    sites, expected : ndarray, shape (M,)
        Sites, and those that are defects.
    low, high : ndarray, shape (M,)
        The interval of each share.
    scale : float
        By which shares are multiplied to be told: 100 for per cent, sites per cm^2 for densities.
    """

    where: NDArray[np.int64]
    sites: Floats
    expected: Floats
    low: Floats
    high: Floats
    scale: float

    @property
    def values(self) -> Floats:
        """The share in each."""
        return np.asarray(self.expected / self.sites)

    @property
    def mean(self) -> float:
        """The share of all sites together; NaN without any."""
        return float(self.expected.sum() / self.sites.sum()) if len(self.sites) else math.nan

    @cached_property
    def sure_sites(self) -> Floats:
        """As many sites with sure labels would tell the share as well, (M,)."""
        low, high = jeffreys(self.expected, self.sites)
        return np.asarray(self.sites / np.maximum(1.0, (self.high - self.low) / (high - low)) ** 2)

    @property
    def deviations(self) -> Floats:
        """Deviation of each from the mean over what chance gives, (M,)."""
        p, sure = self.mean, self.sure_sites
        if not 0.0 < p < 1.0:
            return np.zeros(len(sure))
        return np.asarray((self.values - p) / np.sqrt(p * (1.0 - p) / sure))

    def without(self, left_out: Collection[int]) -> Shares:
        """Return those of other micrographs than some, given by their index among all that were asked for."""
        kept = ~np.isin(self.where, list(left_out))
        arrays = {name: getattr(self, name)[kept] for name in ("where", "sites", "expected", "low", "high")}
        return Shares(**arrays, scale=self.scale)


def shares(summaries: Sequence[Mapping[str, Any]], quantity: Quantity) -> Shares:
    """Return the shares of a quantity in micrographs, by their summaries."""
    where = [i for i, each in enumerate(summaries) if (each.get(quantity.name) or {}).get("sites")]
    told = [summaries[i][quantity.name] for i in where]
    constants = np.array([float(summaries[i]["lattice_constant_angstrom"]) for i in where])
    per_cm2 = 1e16 / (math.sqrt(0.75) * constants**2) if quantity.per_area else np.ones(len(where))
    ends = np.array([each["interval_95"] for each in told], float).reshape(-1, 2) / per_cm2[:, None]
    scale = float(np.median(per_cm2)) if quantity.per_area and where else 100.0
    return Shares(
        np.array(where, np.int64),
        np.array([each["sites"] for each in told], float),
        np.array([each["expected_count"] for each in told], float),
        ends[:, 0],
        ends[:, 1],
        scale,
    )


@dataclass(frozen=True)
class Trend:
    """A straight line along a series.

    Attributes
    ----------
    start, end : float
        Share at the first and the last frame.
    p_value : float
        That of none, on either side.
    """

    start: float
    end: float
    p_value: float


@dataclass(frozen=True)
class Spread:
    """How far micrographs differ in a share, in units of the share.

    Attributes
    ----------
    mean : float
        Of all sites together.
    interval_95 : (float, float)
        Of the mean of such micrographs.
    deviation : float or None
        Standard deviation of the micrographs; None for a single one.
    by_chance, beyond : float or None
        What of it chance alone gives, and what comes on top of it.
    p_value : float or None
        Of a spread as large by chance alone.
    """

    mean: float
    interval_95: tuple[float, float]
    deviation: float | None = None
    by_chance: float | None = None
    beyond: float | None = None
    p_value: float | None = None


def spread(found: Shares) -> Spread:
    """Tell real differences between micrographs from chance.

    Parameters
    ----------
    found : Shares
        Of at least one micrograph.

    Returns
    -------
    Spread

    Examples
    --------
    >>> counts, sites = np.array([5.0, 80.0, 31.0, 4.0]), np.full(4, 1000.0)
    >>> told = spread(Shares(np.arange(4), sites, counts, *jeffreys(counts, sites), scale=100.0))
    >>> round(told.deviation, 3), round(told.by_chance, 3), round(told.beyond, 3), told.p_value < 1e-9
    (0.036, 0.005, 0.035, True)
    """
    count = len(found.sites)
    if count == 1:
        return Spread(found.mean, (float(found.low[0]), float(found.high[0])))
    p, sure = found.mean, found.sure_sites
    pq = p * (1.0 - p)
    told = {"deviation": float(found.values.std(ddof=1)), "by_chance": float(np.sqrt(np.mean(pq / sure)))}
    interval = _interval_of_mean(found)
    if pq == 0.0:
        return Spread(p, interval, **told, beyond=0.0, p_value=1.0)
    middle = float(np.average(found.values, weights=sure))  # of which the deviations are the least
    between = middle * (1.0 - middle)
    square = float(np.sum(sure * (found.values - middle) ** 2)) / between
    variance = (count - 1) / count * float(np.sum(2.0 + (1.0 - 6.0 * between) / (sure * between)))
    p_value = float(gammaincc((count - 1) ** 2 / variance, square * (count - 1) / variance))
    weight = sure.sum() - np.sum(sure**2) / sure.sum() - (count - 1)
    correlation = max(0.0, float((square - (count - 1)) / weight)) if weight > 0 else 0.0
    return Spread(p, interval, **told, beyond=math.sqrt(min(1.0, correlation) * between), p_value=p_value)


def trend(found: Shares, times: Floats) -> Trend | None:
    """Fit a straight line along a series; None for fewer than three frames, or without defects.

    Parameters
    ----------
    found : Shares
        Of M frames.
    times : ndarray, shape (M,)
        Number of each.
    """
    n, p = found.sure_sites, found.mean
    if len(n) < 3 or not 0.0 < p < 1.0 or np.ptp(times) == 0.0:
        return None
    middle, mean = float(np.average(times, weights=n)), float(np.average(found.values, weights=n))
    moment = float(np.sum(n * (times - middle) ** 2))
    slope = float(np.sum(n * (times - middle) * found.values)) / moment
    z = slope * math.sqrt(moment / (mean * (1.0 - mean)))
    start, end = (max(0.0, mean + slope * (float(time) - middle)) for time in (times.min(), times.max()))
    return Trend(start, end, 2.0 * float(ndtr(-abs(z))))


def jeffreys(counts: Floats, sites: Floats) -> tuple[Floats, Floats]:
    """Return the ends of the 95 % intervals of shares whose labels are all sure, as `contextem.densities` does.

    Examples
    --------
    >>> low, high = jeffreys(np.array([0.0, 3.0]), np.array([100.0, 4000.0]))
    >>> (100 * high[0]).round(2).item(), (4000 * low[1]).round(2).item(), (4000 * high[1]).round(1).item()
    (3.59, 0.85, 8.0)
    """
    none, all_ = counts <= 0.0, counts >= sites
    first, second = counts + np.where(none, 1.0, 0.5), sites - counts + np.where(all_, 1.0, 0.5)
    second = np.where(none, sites + 1.0, second)
    first = np.where(all_, sites + 1.0, first)
    low = np.where(none, 0.0, betaincinv(first, second, 0.025))
    return low, np.where(all_, 1.0, betaincinv(first, second, 0.975))


def _interval_of_mean(found: Shares) -> tuple[float, float]:
    """Return the interval of the mean: as of so many sites as make it as uncertain as it is.

    Whichever is more: what counting gives, or what the differences between micrographs do.
    """
    p, n, count = found.mean, found.sites, len(found.sites)
    total, pq = float(n.sum()), p * (1.0 - p)
    counting = float(np.sum(n**2 / found.sure_sites)) / total
    differing = 0.0
    if pq > 0.0:
        student = float(stdtrit(count - 1, 0.975)) / 1.96
        differing = student**2 * count / (count - 1) * float(np.sum((n * (found.values - p)) ** 2)) / total / pq
    sites = total / max(counting, differing)
    low, high = jeffreys(np.array([p * sites]), np.array([sites]))
    return float(low[0]), float(high[0])
