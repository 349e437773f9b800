"""Where every value of a classification comes from, as rows (quantity, value, origin) of a table in words.

What the program estimated is told beside what it was told: sampling and distortion by the lattice, collection angles by
the brightness of the columns, and which sublattice is the metal's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from contextem._html import detector_words, recording_rows, row
from contextem.closeups import percent
from contextem.micrograph import Detector
from contextem.responses import DETECTOR_ANGLES

if TYPE_CHECKING:
    from contextem.classification import Classification
    from contextem.micrograph import Micrograph


def origin_rows(classification: Classification, micrograph: Micrograph) -> list[dict[str, str]]:
    """Return the table of all values that the classification rests on.

    Parameters
    ----------
    classification : Classification
        Its provenance is told, as far as it goes.
    micrograph : Micrograph
        The image that was classified.

    Returns
    -------
    list of dict
        Each with ``name``, ``value`` and ``origin``.

    Examples
    --------
    >>> from contextem.examples import demo_micrograph
    >>> from contextem.pipeline import classify
    >>> micrograph, context, *_ = demo_micrograph()
    >>> rows = origin_rows(classify(micrograph, context), micrograph)
    >>> [each["value"] for each in rows if each["name"] == "collection angles"]
    ['70 to 200 mrad']
    """
    about = classification.provenance
    told = [about, *about.get("further_detectors", ())]
    return [
        *_context_rows(classification),
        *(each for i, one in enumerate(told) for each in _detector_rows(one, f" {i + 1}" if len(told) > 1 else "")),
        *_sublattice_rows(classification),
        *_image_rows(classification, micrograph),
        *_calibration_rows(classification),
    ]


def detectors_in_words(classification: Classification) -> str:
    """Return names and collection angles of all detectors, and whether the angles are those by the image.

    Examples
    --------
    >>> from contextem.examples import demo_micrograph
    >>> from contextem.pipeline import classify
    >>> micrograph, context, *_ = demo_micrograph()
    >>> detectors_in_words(classify(micrograph, context))
    'HAADF 70–200 mrad'
    """
    words = []
    for one in (classification.provenance, *classification.provenance.get("further_detectors", ())):
        context = one.get("context")
        if context is not None and context["detector"] is not None:
            used = one.get("collection_angles_by_image_used", False)
            detector = _whole(context["detector"]) if used else context["detector"]
            words.append(detector_words(detector) + (" by the image" if used else ""))
    return " and ".join(words)


def _context_rows(classification: Classification) -> Iterator[dict[str, str]]:
    context = classification.provenance.get("context")
    if context is None:
        yield row("lattice constant", f"{classification.lattice_constant:g} Å")
        return
    origin = context.get("provenance", {})
    yield row("host", context["host"], origin.get("host"))
    yield row("lattice constant", f"{context['lattice_constant']:g} Å", origin.get("lattice_constant"))
    yield row("dopants", ", ".join(context["dopants"]) or "none", origin.get("dopants"))
    for symbol, fraction in context["fractions"].items():
        yield row(f"expected share of {symbol}", f"{100 * fraction:g} % of the metal sites", origin.get("fractions"))
    if context["energy"] is not None:
        yield row("beam energy", f"{context['energy'] / 1e3:g} keV", origin.get("energy"))


def _detector_rows(told: Mapping[str, Any], number: str) -> Iterator[dict[str, str]]:
    """Yield name and collection angles of a detector; `number` tells it from others."""
    detector = (told.get("context") or {}).get("detector")
    if detector is None:
        return
    origin = str(told["context"].get("provenance", {}).get("detector", ""))
    yield row(f"detector{number}", detector["name"], origin.removesuffix(", angles from the file"))
    by_image, used = told.get("collection_angles_by_image", ()), told.get("collection_angles_by_image_used", False)
    if not used:
        if None not in (detector["inner"], detector["outer"]):
            yield row(f"collection angles{number}", _angles(**detector), "file" if "angles from" in origin else origin)
        elif detector["name"] in DETECTOR_ANGLES:
            nominal = _angles(*DETECTOR_ANGLES[detector["name"]])
            yield row(f"collection angles{number}", nominal, f"nominal ones of {detector['name']}")
    for i, each in enumerate(by_image):
        several = f", with a probability of {percent(each['weight'])}" if len(by_image) > 1 else ""
        measured, expected = each["x2_over_metal_measured"], each["x2_over_metal_expected"]
        seen = f"the image: X2 is {measured:.2f} times as bright as the metal"
        if abs(measured / expected - 1) > 0.02:
            seen += f"; {expected:.2f} times is the nearest that such a detector gives"
        name = f"collection angles{number}" if used else f"collection angles{number} by the image, not used"
        yield row(
            name if i == 0 else "or",
            f"{_angles(**_whole(each['detector']))}{several}",
            seen,
        )


def _angles(inner: float, outer: float, **_: object) -> str:
    return f"{inner:g} to {outer:g} mrad"


def _whole(detector: Mapping[str, Any]) -> dict[str, Any]:
    """Return a detector with angles in whole mrad: estimates are no better."""
    return {"name": detector["name"], "inner": round(detector["inner"]), "outer": round(detector["outer"])}


def _sublattice_rows(classification: Classification) -> Iterator[dict[str, str]]:
    """Yield how sure it is which sublattice is the metal's: of the grain in which it is the least so."""
    grains = classification.provenance.get("sublattices", ())
    if grains:
        least = min(grains, key=lambda each: float(each["posterior"]))
        where = f", that is in grain {least['grain']}, the least certain of {len(grains)}" if len(grains) > 1 else ""
        yield row(
            "sublattice of the metal", f"certain to {percent(least['posterior'])}{where}", "all columns of a grain"
        )


def _image_rows(classification: Classification, micrograph: Micrograph) -> Iterator[dict[str, str]]:
    """Yield what is told of the image, without energy and detector where these are those of the context."""
    context = classification.provenance.get("context") or {}
    told = []
    if context.get("energy") == micrograph.energy:
        told.append("beam energy of the recording")
    detector = context.get("detector") or {}
    if detector and micrograph.detector in (Detector(detector["name"]), Detector(**detector)):
        told.append("detector of the recording")
    for further in classification.provenance.get("further_micrographs", ()):
        yield row("further file", str(further["source"] or "not named"))
    for each in recording_rows(micrograph, " of the recording", classification.sampling):
        if each["name"] not in told:
            yield each


def _calibration_rows(classification: Classification) -> Iterator[dict[str, str]]:
    """Yield sampling and distortion by the lattice, and which sampling is used."""
    told = classification.provenance.get("calibration", {})
    stated, measured = told.get("stated_angstrom_per_px"), told.get("by_lattice_angstrom_per_px")
    if stated is None:
        return
    if measured is None:
        yield row("sampling by the lattice", "not measured, as too few columns stand on a lattice")
        return
    error = measured * told["by_lattice_relative_error"]
    digits = max(4, -math.floor(math.log10(error))) if error > 0 else 5
    off = 100 * (measured / stated - 1.0)
    differs = f"{abs(off):.2g} % {'above' if off > 0 else 'below'} that stated"
    used = "used in place of it" if told["used"] == "lattice" else "too near to it to be used"
    yield row(
        "sampling by the lattice",
        f"{measured:.{digits}f} ± {error:.{digits}f} Å/px, {differs} and {used}",
        f"the columns, the lattice constant of {classification.lattice_constant:g} Å taken for exact",
    )
    length, axes = np.linalg.eigh(np.asarray(told["distortion"], np.float64))
    angle = np.rad2deg(np.arctan2(-axes[0, 1], axes[1, 1])) % 180.0  # rows run downwards
    longer = f"{100 * (length[1] / length[0] - 1):.2g} % longer along {angle:.0f}° than across"
    yield row(
        "distortion of the lattice",
        f"{longer}, from the rows counter-clockwise; taken out of the patches",
        "the columns",
    )
