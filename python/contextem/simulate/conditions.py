"""What the conditions of simulated micrographs are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from contextem.micrograph import Detector
from contextem.responses import ANGLE_RANGES, collection_angles, lowest_angle

Range = tuple[float, float]
"""Lowest and highest value that may be drawn."""


@dataclass(frozen=True)
class Ranges:
    """What the conditions of a micrograph are drawn from, uniformly unless said otherwise.

    Attributes
    ----------
    sampling : Range
        Å/px.
    dose : Range
        Electrons per pixel, log-uniform.
    source_size : Range
        Standard deviation of the Gaussian source, Å.
    defocus : Range
        Å.
    strain : Range
        Standard deviation of each component of the strain.
    jitter, drift : Range
        Standard deviation, along each direction, of the row jitter and of the smooth drift within the image, Å.
    disorder : Range
        Standard deviation of the static displacement of a column along one direction, Å.
    relaxation : Range
        Fraction of the bond by which metals move towards a vacancy, drawn for each vacancy.
    dopant_fraction : Range
        Of the metal sites.
    vacancy_fraction : Range
        Of the chalcogen columns; half of the vacancies are double ones.
    background : Range
        Even level of support and contamination, in units of the peak of a metal column.
    haze : Range
        Mean level of clouds of contamination, in units of the peak of a metal column, log-uniform.
    carbon : Range
        Standard deviation of the fine structure of the clouds, relative to their level.
    readout : Range
        Standard deviation of the Gaussian readout noise, electrons.
    astigmatism, astigmatism_angle, coma, coma_angle, spherical : Range
        Of the probe, as in `contextem.probe.Aberrations`, Å and radians.
    """

    sampling: Range = (0.10, 0.42)
    dose: Range = (400.0, 20_000.0)
    source_size: Range = (0.25, 0.55)
    defocus: Range = (0.0, 40.0)
    strain: Range = (0.0, 0.01)
    jitter: Range = (0.0, 0.15)
    drift: Range = (0.0, 0.6)
    disorder: Range = (0.02, 0.06)
    relaxation: Range = (0.02, 0.05)
    dopant_fraction: Range = (0.0, 0.2)
    vacancy_fraction: Range = (0.0, 0.3)
    background: Range = (0.0, 0.3)
    haze: Range = (0.005, 0.3)
    carbon: Range = (0.05, 0.25)
    readout: Range = (0.0, 1.0)
    # at 30 mrad and 80 keV each changes the phase by at most pi/4
    astigmatism: Range = (0.0, 10.0)
    astigmatism_angle: Range = (0.0, np.pi)
    coma: Range = (0.0, 500.0)
    coma_angle: Range = (0.0, 2.0 * np.pi)
    spherical: Range = (-20_000.0, 20_000.0)


WIDE = Ranges()
"""What micrographs are like in practice, contaminated and coarse ones included; the collection angles are drawn too."""

REFERENCE = Ranges(
    sampling=(0.10, 0.40),
    source_size=(0.25, 0.45),
    strain=(0.01, 0.01),
    jitter=(0.0, 0.05),
    disorder=(0.04, 0.04),
    dopant_fraction=(0.06, 0.16),
    vacancy_fraction=(0.18, 0.18),
    background=(0.02, 0.02),
    haze=(0.005, 0.15),
    carbon=(0.25, 0.25),
    astigmatism=(0.0, 0.0),
    coma=(0.0, 0.0),
    spherical=(0.0, 0.0),
)
"""What published accuracies are measured on: good micrographs, with the nominal collection angles of the detector."""

RANGES: Mapping[str, Ranges] = {"wide": WIDE, "reference": REFERENCE}
"""Ranges by name."""

LOG_UNIFORM = ("dose", "haze")
SIGNED = ("astigmatism_angle", "coma_angle", "spherical")


def draw_conditions(rng: np.random.Generator, ranges: Ranges, given: Mapping[str, float]) -> dict[str, float]:
    """Draw the conditions of one micrograph.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness; as many numbers are drawn whatever is given.
    ranges : Ranges
        What is drawn from.
    given : mapping of str to float
        Values that stand.

    Returns
    -------
    dict of str to float

    Raises
    ------
    TypeError
        If a name is not in `Ranges`.
    ValueError
        If a value is negative that cannot be, or not a number.
    """
    names = [f.name for f in fields(ranges)]
    if unknown := set(given) - set(names):
        raise TypeError(f"{min(unknown)}: not a condition; expected one of {', '.join(names)}")
    drawn = {}
    for name in names:
        low, high = getattr(ranges, name)
        u = float(rng.random())
        drawn[name] = float(low * (high / low) ** u if name in LOG_UNIFORM else low + u * (high - low))
    for name, value in given.items():
        if not (np.isfinite(value) if name in SIGNED else value >= 0.0) or (
            name in ("sampling", "dose") and value == 0.0
        ):
            raise ValueError(f"{name}: expected a {'' if name in SIGNED else 'positive '}number, got {value!r}")
        drawn[name] = float(value)
    return drawn


def draw_angles(rng: np.random.Generator, detector: Detector, energy: float) -> Detector:
    """Draw the collection angles that a detector lacks.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    detector : Detector
        Its angles stand; one that is not in `ANGLE_RANGES` gets default ones.
    energy : float
        Beam energy, eV: the bright-field disk is avoided.

    Returns
    -------
    Detector
        With both angles.
    """
    inner_range, outer_range = ANGLE_RANGES.get(detector.name, ((0.0, 0.0), (0.0, 0.0)))
    lowest = lowest_angle(energy)
    drawn = [float(rng.uniform(max(low, lowest), max(high, lowest))) for low, high in (inner_range, outer_range)]
    if detector.name not in ANGLE_RANGES:
        return Detector(detector.name, *collection_angles(detector))
    inner, outer = (drawn[j] if angle is None else angle for j, angle in enumerate((detector.inner, detector.outer)))
    return Detector(detector.name, inner, outer)
