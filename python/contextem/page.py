"""What is shown of micrographs and classifications in a browser: a report of one file, and what a notebook displays.

A report needs nothing but itself: pictures are in it, it runs no script and asks no host for anything.  Every text from
a file is escaped.
"""

from __future__ import annotations

import base64
import io
import math
import os
import platform
import shlex
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from contextem import __version__
from contextem._output import whole_file
from contextem.classification import Classification, wilson_interval
from contextem.columns import CLASSES
from contextem.micrograph import Micrograph
from contextem.views import (
    COLOURS,
    GREY_LEVELS,
    HOSTS,
    MARKERS,
    between_grains,
    draw_classes,
    draw_entropy,
    draw_map,
    draw_overlay,
    round_length,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150
THUMBNAIL = 320
"""Longer side of a micrograph in a notebook, px."""
ORIGINS = {"file": "the file", "user": "the user", "table": "the table of hosts", "default": "default"}
"""What is said of where a value comes from; other words stand as they are."""


def write_report(
    path: str | os.PathLike[str], classification: Classification, micrograph: Micrograph, *, overwrite: bool = True
) -> None:
    """Write what was found in a micrograph as one page that opens in any browser and prints on A4.

    Parameters
    ----------
    path : str or path-like
        The file, an ``.html``.
    classification : Classification
        Its provenance tells context, model, warnings and calibration, as far as they are in it.
    micrograph : Micrograph
        The image that was classified.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    FileExistsError
        If the file exists and may not be replaced.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from contextem.examples import demo_micrograph
    >>> from contextem.pipeline import classify
    >>> micrograph, context, *_ = demo_micrograph()
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "demo.html"
    ...     write_report(path, classify(micrograph, context), micrograph)
    ...     "<h1>Cr-doped WSe₂</h1>" in path.read_text(encoding="utf-8")
    True
    """
    text = _fill("report.html", **_report(classification, micrograph))
    with whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def classification_html(classification: Classification) -> str:
    """Return what a notebook shows of a classification: a map of its columns, counts, fractions, densities, warnings.

    Parameters
    ----------
    classification : Classification
        Of any number of columns.

    Returns
    -------
    str
        HTML, some ten to a hundred kilobytes.
    """
    alt = f"map of the columns by class: {_counted(classification)}"
    return _fill(
        "classification.html",
        title=_specimen(classification),
        facts=f"{len(classification):,} columns",
        warnings=_warnings(classification),
        classes=_class_rows(classification),
        flags=_flag_rows(classification),
        map=_picture(draw_map(classification), alt),
    )


def micrograph_html(micrograph: Micrograph) -> str:
    """Return what a notebook shows of a micrograph: a small picture with a scale bar, and the facts with their origin.

    Parameters
    ----------
    micrograph : Micrograph
        Of any size.

    Returns
    -------
    str
        HTML, some ten to a hundred kilobytes.
    """
    from PIL import Image

    low, high = np.percentile(micrograph.data, GREY_LEVELS)
    grey = np.clip((micrograph.as_float() - low) * (255.0 / max(high - low, np.finfo(np.float32).tiny)), 0, 255)
    image = Image.fromarray(grey.astype(np.uint8))
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "png")
    pixel = micrograph.sampling * micrograph.shape[1] / image.width  # of the small picture, Å
    length = round_length(0.3 * THUMBNAIL * pixel / 10)
    return _fill(
        "micrograph.html",
        image={"png": _data_uri(file), "width": image.width, "height": image.height, "alt": "the micrograph"},
        bar={"text": f"{length:g} nm", "width": round(10 * length / pixel)},
        origins=list(_recording_rows(micrograph)),
    )


def _fill(template: str, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("contextem"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def _report(classification: Classification, micrograph: Micrograph) -> dict[str, Any]:
    """Values of the report's template."""
    counted = _counted(classification)
    return {
        "title": _specimen(classification),
        "facts": ", ".join(_facts(classification, micrograph)),
        "warnings": _warnings(classification),
        "verdict": _verdict(classification, micrograph),
        "tiles": _tiles(classification),
        "classes": _class_rows(classification),
        "flags": _flag_rows(classification),
        "cell": f"a = {classification.lattice_constant:.4g} Å",
        "overlay": _picture(
            draw_overlay(classification, micrograph),
            f"The micrograph with every column marked by its class: {counted}",
            "Dots are the host; outlines are defects. Crosses and rings are not counted.",
        ),
        "patches": _picture(
            draw_classes(classification, micrograph),
            f"Patches of each class, the surest and the least sure, with their probabilities: {counted}",
            "Probability falls from left to right; under each patch that of the class named on the left. All patches "
            "have the grey levels of the micrograph above. Dots mark what the neighbours are.",
        ),
        "entropy": _picture(
            draw_entropy(classification, micrograph),
            "The dimmed micrograph with every column coloured by the entropy of its posterior, 0 to 1 bit",
            "Entropy of the posterior of every column. At 0 bits one class is certain; 1 bit is as good as a coin "
            "tossed between two.",
        ),
        "parts": [],
        "origins": [
            *_context_rows(classification),
            *_recording_rows(micrograph, " of the recording"),
            *_calibration_rows(classification),
        ],
        "commands": _commands(classification, micrograph),
        "versions": _versions(classification),
    }


def _specimen(classification: Classification) -> str:
    context = classification.provenance.get("context")
    if context is None:
        return "Classified columns"
    host = context["host"].translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
    return f"{', '.join(context['dopants'])}-doped {host}" if context["dopants"] else str(host)


def _facts(classification: Classification, micrograph: Micrograph) -> Iterator[str]:
    if micrograph.source is not None:
        yield micrograph.source
    context = classification.provenance.get("context")
    if context is not None and context["detector"] is not None:
        yield _detector_words(context["detector"])
    if context is not None and context["energy"] is not None:
        yield f"{context['energy'] / 1e3:g} keV"
    yield f"{_field(micrograph)} nm"
    yield f"{micrograph.sampling:.4g} Å/px"


def _field(micrograph: Micrograph) -> str:
    height, width = (0.1 * micrograph.sampling * side for side in micrograph.shape)
    return f"{width:.3g} × {height:.3g}"


def _detector_words(detector: Mapping[str, Any]) -> str:
    inner, outer = detector["inner"], detector["outer"]
    return detector["name"] if inner is None or outer is None else f"{detector['name']} {inner:g}–{outer:g} mrad"


def _counted(classification: Classification) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in classification.counts.items())


def _warnings(classification: Classification) -> list[str]:
    return [str(warning) for warning in classification.provenance.get("warnings", ())]


def _verdict(classification: Classification, micrograph: Micrograph) -> str:
    context = classification.provenance.get("context", {})
    dopants = " or ".join(context.get("dopants", ())) or "a dopant"
    summary = classification.summary()
    dopant = summary["dopant_fraction"]
    vacancies = [classification.counts[name] for name in ("single_vacancy", "double_vacancy")]
    sites = summary["single_vacancy_density_per_cm2"]["sites"]
    left_out = int(np.sum(~classification.counted))
    return " ".join(
        [
            f"{len(classification):,} columns in {_field(micrograph)} nm.",
            f"Of {dopant['sites']:,} metal sites, {_have(dopant['count'], 'is', 'are')} {dopants};",
            f"of {sites:,} chalcogen sites, {_have(vacancies[0], 'lacks', 'lack')} one atom"
            f" and {_have(vacancies[1], 'lacks', 'lack')} both.",
            *([f"{_have(left_out, 'column is', 'columns are')} not counted."] if left_out else []),
        ]
    )


def _have(count: int, singular: str, plural: str) -> str:
    return f"{count:,} {singular}" if count == 1 else f"{count:,} {plural}" if count else f"none {singular}"


def _tiles(classification: Classification) -> list[dict[str, str]]:
    """Dopant fraction and vacancy densities as large figures."""
    summary = classification.summary()
    tiles = []
    for name, key, unit in (
        ("dopant, of the metal sites", "dopant_fraction", "%"),
        ("single vacancies", "single_vacancy_density_per_cm2", "cm⁻²"),
        ("double vacancies", "double_vacancy_density_per_cm2", "cm⁻²"),
    ):
        found = summary[key]
        if found["value"] is None:
            tiles.append({"name": name, "value": "–", "interval": "no such sites"})
            continue
        low, high = found["interval_95"]
        if not found["count"]:
            value, interval = "none seen", f"95 %: at most {_number(high, unit)}"
        else:
            value, interval = _number(found["value"], unit), f"95 %: {_range(low, high, unit)}"
        tiles.append({"name": name, "value": value, "interval": interval})
    return tiles


def _number(value: float, unit: str) -> str:
    """Two or three significant digits with the unit: a share in per cent, a density as a power of ten."""
    if unit == "%":
        return f"{_digits(100 * value)} %"
    power = math.floor(math.log10(value)) if value > 0 else 0
    return f"{_digit(value / 10.0**power)} × 10{_superscript(power)} {unit}".strip()


def _range(low: float, high: float, unit: str) -> str:
    """Both ends of an interval, without the unit of a density."""
    if unit == "%":
        return f"{_digits(100 * low)} to {_digits(100 * high)} %"
    power = math.floor(math.log10(high)) if high > 0 else 0
    low, high = (value / 10.0**power for value in (low, high))
    return f"{_digit(low)} to {_digit(high)} × 10{_superscript(power)}"


def _digit(value: float) -> str:
    return f"{value:.1f}" if value >= 0.095 or value == 0 else f"{value:.1g}"


def _digits(value: float) -> str:
    return f"{value:.1f}" if value >= 9.95 else f"{value:.2f}" if value >= 0.095 or value == 0 else f"{value:.2g}"


def _superscript(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _class_rows(classification: Classification) -> list[dict[str, str]]:
    """Of every class: count, share, density, certainty."""
    counts, labels = classification.counts, classification.labels
    per_area = 1e16 / (np.sqrt(3) / 2 * classification.lattice_constant**2)  # sites of each sublattice, cm^-2
    certainty = classification.probabilities.max(axis=1, initial=0.0)
    rows = []
    for index, name in enumerate(CLASSES):
        metals = CLASSES[:2]
        sites = sum(counts[other] for other in (metals if name in metals else CLASSES[2:]))
        low, high = wilson_interval(counts[name], sites)
        known = counts[name] > 0
        among = certainty[classification.counted & (labels == index)]
        rows.append(
            {
                "name": name.replace("_", " "),
                "marker": MARKERS[index],
                "colour": COLOURS[index],
                "count": f"{counts[name]:,}",
                "share": _number(counts[name] / sites, "%") if known else "–",
                "share_interval": _range(low, high, "%") if sites else "–",
                "density": "" if name in HOSTS else _number(counts[name] / sites * per_area, "") if known else "–",
                "density_interval": _range(low * per_area, high * per_area, "") if sites and name not in HOSTS else "",
                "certainty": f"{100 * among.mean():.1f} %" if known else "–",
            }
        )
    return rows


def _flag_rows(classification: Classification) -> list[dict[str, str]]:
    """How many columns something special is said of."""
    rows = (
        (
            "unknown",
            classification.unknown,
            "looks like none of the classes, as adatoms, grain boundaries, second layers do; not counted",
        ),
        (
            "contaminated",
            classification.contaminated,
            "under so much carbon that the class cannot be told; not counted",
        ),
        ("at the border", ~classification.complete, "the patch leaves the image; counted, with less to go by"),
        (
            "without a peak",
            ~classification.observed,
            "a site that the lattice demands and the image leaves dark; counted",
        ),
        ("between grains", between_grains(classification), "stands on no lattice"),
    )
    return [{"name": name, "count": f"{int(chosen.sum()):,}", "meaning": meaning} for name, chosen, meaning in rows]


def _picture(figure: Figure, alt: str, caption: str = "") -> dict[str, Any]:
    """Picture of a figure for a template, and what is said with it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
    width, height = (round(float(side) * DOTS_PER_INCH) for side in figure.get_size_inches())
    return {"png": _data_uri(file), "width": width, "height": height, "alt": alt, "caption": caption}


def _data_uri(file: io.BytesIO) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _row(name: str, value: str, origin: str | None) -> dict[str, str]:
    return {"name": name, "value": value, "origin": ORIGINS.get(str(origin), str(origin or ""))}


def _recording_rows(micrograph: Micrograph, of: str = "") -> Iterator[dict[str, str]]:
    origin = micrograph.provenance
    if micrograph.source is not None:
        yield _row("file", micrograph.source, None)
    height, width = micrograph.shape
    yield _row("image", f"{width} × {height} px, {_field(micrograph)} nm, {micrograph.data.dtype}", None)
    yield _row("sampling", f"{micrograph.sampling:.5g} Å/px", origin.get("sampling"))
    if micrograph.energy is not None:
        yield _row(f"beam energy{of}", f"{micrograph.energy / 1e3:g} keV", origin.get("energy"))
    if micrograph.detector is not None:
        yield _row(f"detector{of}", _detector_words(micrograph.detector.to_dict()), origin.get("detector"))


def _context_rows(classification: Classification) -> Iterator[dict[str, str]]:
    context = classification.provenance.get("context")
    if context is None:
        yield _row("lattice constant", f"{classification.lattice_constant:g} Å", None)
        return
    origin = context.get("provenance", {})
    yield _row("host", context["host"], origin.get("host"))
    yield _row("dopants", ", ".join(context["dopants"]) or "none", origin.get("dopants"))
    for symbol, fraction in context["fractions"].items():
        yield _row(f"expected share of {symbol}", f"{100 * fraction:g} % of the metal sites", origin.get("fractions"))
    if context["energy"] is not None:
        yield _row("beam energy", f"{context['energy'] / 1e3:g} keV", origin.get("energy"))
    if context["detector"] is not None:
        yield _row("detector", _detector_words(context["detector"]), origin.get("detector"))
    yield _row("lattice constant", f"{context['lattice_constant']:g} Å", origin.get("lattice_constant"))


def _calibration_rows(classification: Classification) -> Iterator[dict[str, str]]:
    calibration = classification.provenance.get("calibration")
    if isinstance(calibration, Mapping):
        for name, value in calibration.items():
            text = f"{value:.5g}" if isinstance(value, float) else str(value)
            yield _row(f"calibration: {str(name).replace('_', ' ')}", text, None)
    elif calibration is not None:
        yield _row("calibration", str(calibration), None)


def _commands(classification: Classification, micrograph: Micrograph) -> list[str]:
    """How to classify again: in Python and, where the command line can say all of it, in the shell."""
    context = classification.provenance.get("context")
    if context is None:
        return []
    file = micrograph.source or "FILE"
    chosen = {name for name, origin in context["provenance"].items() if origin == "user"}
    origin = micrograph.provenance
    estimated = origin["sampling"].startswith("estimated")
    reading = [repr(file)]
    if estimated:
        reading += ["sampling='estimate'", f"lattice_constant={context['lattice_constant']!r}"]
    elif origin["sampling"] == "user":
        reading.append(f"sampling={micrograph.sampling!r}")
    detector = context["detector"]
    angles = {} if detector is None else {name: detector[name] for name in ("inner", "outer") if detector[name]}
    words = [repr(context["host"]), repr(tuple(context["dopants"]))]
    if context["energy"] is not None:
        words.append(f"energy={context['energy'] / 1e3:g}e3")
    if detector is not None:
        named = f"{detector['name']!r}"
        inside = ", ".join([named, *(f"{name}={angle!r}" for name, angle in angles.items())])
        words.append(f"detector=ctm.Detector({inside})" if angles else f"detector={named}")
    for name in ("fractions", "lattice_constant"):
        if name in chosen:
            words.append(f"{name}={context[name]!r}")
    script = (
        "import contextem as ctm\n\n"
        f"micrograph = ctm.read({', '.join(reading)})\n"
        f"context = ctm.Context({', '.join(words)})\n"
        "result = ctm.classify(micrograph, context)"
    )
    if angles or "fractions" in chosen or context["energy"] is None or detector is None:
        return [script]
    shell = ["contextem", "classify", shlex.quote(file), "--host", shlex.quote(context["host"])]
    for symbol in context["dopants"]:
        shell += ["--dopant", symbol]
    shell += ["--energy-kev", f"{context['energy'] / 1e3:g}", "--detector", detector["name"]]
    if "lattice_constant" in chosen:
        shell += ["--lattice-constant", f"{context['lattice_constant']:g}"]
    if estimated:
        shell.append("--estimate-sampling")
    elif origin["sampling"] == "user":
        shell += ["--sampling", f"{micrograph.sampling!r}"]
    return [" ".join(shell), script]


def _versions(classification: Classification) -> dict[str, str]:
    model = classification.provenance.get("model", {})
    versions = {
        "contextem": classification.provenance.get("contextem_version", __version__),
        "model": " ".join(str(model[name]) for name in ("name", "version") if name in model) or "not recorded",
        "Python": platform.python_version(),
    }
    for name, package in (("NumPy", "numpy"), ("SciPy", "scipy"), ("PyTorch", "torch")):
        try:
            versions[name] = version(package)
        except PackageNotFoundError:
            continue
    return versions
