"""How bright the classes of column are expected to be, from the physics of the stated experiment.

For a composition, a beam energy and the collection angles of a detector, the response library tells the peak of every
column.  Ratios of these peaks are the context the classifier generalises best from: a chalcogen it has never seen is to
it one more ratio, while its electron shells are a new word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from contextem.elements import atomic_number, atomic_shares
from contextem.micrograph import Detector
from contextem.responses import ELEMENTS, PAIR_DISTANCES, library

BLUR = 0.45
"""Standard deviation of the Gaussian of source and vibration at which peaks are compared, Å."""

DEFOCUS = 12.0
"""Defocus at which peaks are compared, Å: it is seldom known, and matters little for their ratios."""


@lru_cache(maxsize=4096)
def column_peak(species: str, energy: float, detector: Detector, *, pair: bool = False) -> float:
    """Return the peak of a column of one atom, or of a pair of chalcogens.

    Parameters
    ----------
    species : str
        Element, or elements with shares as `contextem.elements.atomic_shares` reads them: the mean of their peaks.
    energy : float
        Beam energy, eV.
    detector : Detector
        Without angles, nominal ones are taken.
    pair : bool
        Whether two such atoms stand on top of each other.

    Returns
    -------
    float
        Fraction of the beam.  An element the response library lacks is interpolated from its neighbours in atomic
        number, log by log.

    Raises
    ------
    ValueError
        If the library does not hold the energy or the angles.

    Examples
    --------
    >>> tungsten, selenium = (column_peak(x, 80e3, Detector("HAADF")) for x in ("W", "Se"))
    >>> 0.3 < selenium / tungsten < 0.5
    True
    """
    total = 0.0
    for symbol, share in atomic_shares(species).items():
        known = PAIR_DISTANCES if pair else ELEMENTS
        if symbol in known:
            peak = _peak(symbol, energy, detector, pair)
        elif pair:
            # what the second atom adds changes slowly with the atomic number
            gains = [column_peak(x, energy, detector, pair=True) / column_peak(x, energy, detector) for x in known]
            peak = column_peak(symbol, energy, detector) * _interpolate(symbol, tuple(known), gains)
        else:
            peak = _interpolate(symbol, ELEMENTS, [_peak(x, energy, detector, False) for x in ELEMENTS])
        total += share * peak
    return total


def _peak(symbol: str, energy: float, detector: Detector, pair: bool) -> float:
    responses = library()
    if pair:
        return float(responses.pair(symbol, PAIR_DISTANCES[symbol][-1], energy, detector, DEFOCUS).radial(0.0, BLUR))
    return float(responses.response(symbol, energy, detector, DEFOCUS).radial(0.0, BLUR))


def _interpolate(symbol: str, known: Iterable[str], values: Sequence[float]) -> float:
    """Interpolate values of known elements at another one, linear in the logarithms, straight on beyond them."""
    pairs = sorted(zip((atomic_number(x) for x in known), values, strict=True))
    z, table = np.log(np.array(pairs)).T
    at = float(np.log(atomic_number(symbol)))
    i = int(np.clip(np.searchsorted(z, at), 1, len(z) - 1))
    weight = (at - z[i - 1]) / (z[i] - z[i - 1])
    return float(np.exp((1.0 - weight) * table[i - 1] + weight * table[i]))


def expected_intensities(
    metal: str, chalcogen: str, dopants: Mapping[str, float], energy: float, detector: Detector
) -> NDArray[np.float64]:
    """Return the peaks of the five classes over that of the metal.

    Parameters
    ----------
    metal, chalcogen : str
        Species of the host.
    dopants : dict of str to float
        Weight of each dopant; empty where there is none.
    energy : float
        Beam energy, eV.
    detector : Detector
        Without angles, nominal ones are taken.

    Returns
    -------
    (5,) float64
        In the order of `contextem.columns.CLASSES`.  0 for what leaves no atom, and for the dopant where there is none.

    Examples
    --------
    >>> ratios = expected_intensities("W", "Se", {"Cr": 1.0}, 80e3, Detector("HAADF"))
    >>> ratios.round(1).tolist()
    [1.0, 0.2, 0.8, 0.4, 0.0]
    """
    weight = sum(dopants.values())
    dopant = sum(share / weight * column_peak(symbol, energy, detector) for symbol, share in dopants.items())
    peaks = [
        column_peak(metal, energy, detector),
        dopant,
        column_peak(chalcogen, energy, detector, pair=True),
        column_peak(chalcogen, energy, detector),
        0.0,
    ]
    return np.array(peaks) / peaks[0]
