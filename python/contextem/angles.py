"""Collection angles estimated from the image: how bright X2 is over the metal tells where the detector begins.

    q = (I_X - I_H) / (I_M - I_H),    s = (I_B - I_H) / sqrt((I_M - I_H) (I_X - I_H))

with I at metal columns M, X2 columns X, hollow sites H and midpoints of bonds B, medians over the micrograph.  No gain
or offset changes them.  The same is summed up from the response library, for a blur and collection angles:

    I(p) = sum_j f_M(|p - m_j|) + sum_j f_X(|p - x_j|)

s tells the blur, q then the angles.  Low angles show X2 brighter, high ones the metal.  q alone cannot tell inner from
outer angle: both move together along the range that the name of the detector allows, through its nominal angles.

Where metal and X2 are about as bright, it may not tell either which of the two sublattices is the metal's: then there
are two estimates, and how well each explains the image is its weight, exp(-(log q / q_expected)^2 / 2 sigma^2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import j0

from contextem.background import local_background
from contextem.columns import Columns
from contextem.context import Context
from contextem.micrograph import Detector, Micrograph
from contextem.neighbours import Neighbourhood
from contextem.responses import (
    ANGLE_RANGES,
    DETECTOR_ANGLES,
    THERMAL_CHALCOGEN,
    THERMAL_METAL,
    library,
    lowest_angle,
    nodes,
)
from contextem.tiles import TiledImage, pixels

BLURS = (0.2, 1.0)
"""Least and greatest standard deviation of the Gaussian of source, vibration and pixels, Å."""

DEFOCUS = 12.0
"""Defocus at which brightness is compared, Å."""

SIGMA = 0.02
"""Standard deviation of the log of a measured ratio."""

MISMATCH = 0.1
"""Log of measured over expected X2/M from which on angles do not explain the image; defects are mixed into either."""

FEWEST = 30
"""Columns of either sublattice without which nothing is estimated."""

_REACH = 8.0  # Å, columns that count in the sum
_POINTS = np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.5], [0.0, 2.0]])  # M, X, B, H, in bonds


@dataclass(frozen=True)
class AngleEstimate:
    """Collection angles by the brightness of the columns.

    Attributes
    ----------
    detector : Detector
        Named as stated, with the angles that fit best.
    ratio : float
        X2/M over the hollow, as measured.
    expected : float
        The same by the response library at the angles of `detector`.
    blur : float
        Standard deviation of the Gaussian that blurs the image, Å.
    metal_side : int
        Which sublattice is taken for the metal's, as `contextem.neighbours.Neighbourhood` numbers them.
    """

    detector: Detector
    ratio: float
    expected: float
    blur: float
    metal_side: int

    @property
    def mismatch(self) -> float:
        """Log of measured over expected X2/M: about 0 where some angles of the named detector explain the image."""
        return float(np.log(self.ratio / self.expected))

    @property
    def explains(self) -> bool:
        """Whether the angles explain the image."""
        return abs(self.mismatch) < MISMATCH

    @property
    def likelihood(self) -> float:
        """Likelihood of the measured ratio, 1 where it is as expected."""
        return float(np.exp(-0.5 * (self.mismatch / SIGMA) ** 2))

    def mismatch_at(self, context: Context) -> float:
        """Log of measured over expected X2/M at the angles of a context, nominal ones where it has none."""
        assert context.detector is not None
        metal, chalcogens, _ = expected_brightness(context, context.detector, self.blur)
        return float(np.log(self.ratio * metal / chalcogens))

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as plain values that JSON can hold."""
        return {
            "detector": self.detector.to_dict(),
            "x2_over_metal_measured": self.ratio,
            "x2_over_metal_expected": self.expected,
            "blur_angstrom": self.blur,
        }


def estimate_angles(
    micrograph: Micrograph, columns: Columns, around: Neighbourhood, context: Context
) -> list[AngleEstimate]:
    """Estimate the collection angles of a named detector from its image.

    Parameters
    ----------
    micrograph : Micrograph
        The image.
    columns : Columns
        Its columns.
    around : Neighbourhood
        Of these columns.
    context : Context
        With host, energy and the name of the detector.

    Returns
    -------
    list of AngleEstimate
        One for either sublattice being the metal's, the better first; empty where too few columns are seen or the
        response library lacks host, energy or detector.

    Examples
    --------
    >>> from contextem.columns import find_columns
    >>> from contextem.examples import demo_micrograph
    >>> from contextem.neighbours import neighbourhood
    >>> demo = demo_micrograph()
    >>> columns = find_columns(demo.micrograph, demo.context)
    >>> everywhere = np.ones(len(columns), bool)
    >>> a = demo.context.lattice_constant / demo.micrograph.sampling
    >>> around = neighbourhood(columns.positions, columns.sublattice, everywhere, a)
    >>> best, _ = estimate_angles(demo.micrograph, columns, around, demo.context)
    >>> best.explains, best.metal_side
    (True, 0)
    """
    assert context.detector is not None and context.energy is not None
    if context.detector.name not in ANGLE_RANGES or context.thickness is None:
        return []
    seen = _brightness(pixels(micrograph.data), columns, around)
    if seen is None:
        return []
    try:
        fits = [_fit(context, seen, metal_side) for metal_side in (0, 1)]
    except ValueError:  # an element or an energy that the library lacks
        return []
    return sorted(fits, key=lambda fit: abs(fit.mismatch))


class Brightness(NamedTuple):
    """Median intensities over that of the hollow sites: of either sublattice, and of the midpoints of the bonds."""

    sides: tuple[float, float]
    bonds: float


def _brightness(image: TiledImage, columns: Columns, around: Neighbourhood) -> Brightness | None:
    background = local_background(image, columns.positions, around)
    whole = columns.observed & np.isfinite(background) & (around.first >= 0).all(axis=1)
    if min((whole & (around.side == side)).sum() for side in (0, 1)) < FEWEST:
        return None
    above = image.sample(columns.positions) - background
    sides = [float(np.median(above[whole & (around.side == side)])) for side in (0, 1)]
    if min(sides) <= 0:
        return None
    bonds = (columns.positions[whole][:, None] + columns.positions[around.first[whole]]) / 2
    at_bonds = image.sample(bonds.reshape(-1, 2)).reshape(-1, 3) - background[whole, None]
    return Brightness((sides[0], sides[1]), float(np.median(at_bonds)))


def _fit(context: Context, seen: Brightness, metal_side: int) -> AngleEstimate:
    """Find blur and angles at which X2/M, and the midpoints of the bonds, are as bright as measured."""
    ratio = seen.sides[1 - metal_side] / seen.sides[metal_side]
    middle = seen.bonds / math.sqrt(seen.sides[0] * seen.sides[1])
    assert context.detector is not None and context.energy is not None
    name, energy = context.detector.name, context.energy

    def expected(detector: Detector) -> tuple[float, float]:
        """Return X2/M, and the blur at which the midpoints of the bonds are as bright as measured."""

        def excess(blur: float) -> float:
            m, x, b = expected_brightness(context, detector, blur)
            return float(b / np.sqrt(m * x)) - middle

        blur = _root(excess, *BLURS)
        m, x, _ = expected_brightness(context, detector, blur)
        return float(x / m), blur

    t = _root(lambda t: float(np.log(expected(detector_at(name, t, energy))[0] / ratio)), -1.0, 1.0)
    found = detector_at(name, t, energy)
    return AngleEstimate(found, float(ratio), *expected(found), metal_side)


def _root(function: Any, low: float, high: float) -> float:
    """Return where a function vanishes between two ends, or the end at which it is the nearer to 0."""
    at_low, at_high = function(low), function(high)
    if at_low * at_high > 0:
        return low if abs(at_low) < abs(at_high) else high
    return float(brentq(function, low, high, xtol=2e-3))


def detector_at(name: str, t: float, energy: float) -> Detector:
    """Return a detector on the path from the lowest angles of its name, t = -1, past nominal ones, 0, to the highest.

    Examples
    --------
    >>> detector_at("HAADF", 0.0, 80e3)
    Detector(name='HAADF', inner=70.0, outer=200.0)
    """
    angles = [
        float(np.interp(t, (-1.0, 0.0, 1.0), (low, nominal, high)))
        for (low, high), nominal in zip(ANGLE_RANGES[name], DETECTOR_ANGLES[name], strict=True)
    ]
    return Detector(name, max(angles[0], lowest_angle(energy)), angles[1])


def expected_brightness(context: Context, detector: Detector, blur: float) -> NDArray[np.float64]:
    """Return the intensity of the perfect host at metal, X2 and midpoint of a bond, over that of the hollow site.

    Parameters
    ----------
    context : Context
        Host and energy.
    detector : Detector
        With angles.
    blur : float
        Standard deviation of the Gaussian of source, vibration and pixels, Å.

    Returns
    -------
    (3,) float64
        Fractions of the beam.

    Examples
    --------
    >>> context = Context("WSe2", energy=80e3, detector="HAADF")
    >>> metal, chalcogens, _ = expected_brightness(context, Detector("HAADF", 70, 200), 0.45)
    >>> round(float(chalcogens / metal), 2)
    0.8
    """
    assert context.energy is not None and context.thickness is not None
    responses = library()
    metal = responses.response(context.metal, context.energy, detector, DEFOCUS)
    chalcogen = responses.pair(context.chalcogen, context.thickness, context.energy, detector, DEFOCUS)
    total = np.zeros(len(_POINTS))
    for response, site, thermal in (
        (metal, 0, THERMAL_METAL),
        (chalcogen, 1, THERMAL_CHALCOGEN / np.sqrt(2.0)),
    ):
        waves = _lattice_sums(context.lattice_constant, site, response.cutoff)
        total += waves @ response.spectrum(float(np.hypot(blur, thermal)))
    return np.asarray(total[:3] - total[3])


@lru_cache(maxsize=32)
def _lattice_sums(a: float, site: int, cutoff: float) -> NDArray[np.float64]:
    """Return sum_j J_0(2 pi k |p - r_j|) over the columns of a sublattice, for M, X, B, H and `nodes`, (4, K)."""
    bond = a / np.sqrt(3.0)
    i, j = np.mgrid[-4:5, -4:5].reshape(2, -1)
    columns = a * np.stack([i + j / 2, j * np.sqrt(0.75)], axis=1) + bond * _POINTS[site]
    distance = np.hypot(*(bond * _POINTS[:, None] - columns).transpose(2, 0, 1))
    shells, shell = np.unique(np.round(distance, 6), return_inverse=True)
    waves = np.where(shells < _REACH, j0(2.0 * np.pi * np.multiply.outer(nodes(cutoff), shells)), 0.0)
    return np.asarray(waves[:, shell.ravel()].reshape(-1, *distance.shape).sum(axis=2).T)
