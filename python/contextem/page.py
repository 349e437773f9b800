"""What is shown of a classification in a browser: a report of one page, and what a notebook displays.

A report needs nothing but itself: pictures are in it, it runs no script and asks no host for anything.  Every text from
a file is escaped.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from contextem import __version__
from contextem._html import field, fill, interval, number, picture, specimen
from contextem._output import whole_file
from contextem.closeups import draw_classes, percent
from contextem.columns import CLASSES
from contextem.commands import commands
from contextem.densities import SiteFraction, densities
from contextem.figures import style
from contextem.origins import detectors_in_words, origin_rows
from contextem.pairs import ENOUGH, KINDS, PairCorrelation, pair_correlation
from contextem.strain import COMPONENTS, StrainMap, strain_map
from contextem.views import (
    COLOURS,
    MARKERS,
    draw_entropy,
    draw_map,
    draw_overlay,
    off_lattice,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from contextem.classification import Classification
    from contextem.micrograph import Micrograph


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
    ValueError
        If the columns were not found in this micrograph.

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
    text = fill("report.html", **_report(classification, micrograph))
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
    return fill(
        "classification.html",
        title=_specimen(classification),
        facts=", ".join([f"{len(classification):,} columns", *_facts(classification)]),
        warnings=_warnings(classification),
        classes=_class_rows(classification),
        defects={each["name"]: each for each in _defect_rows(classification)},
        flags=_flag_rows(classification),
        map=picture(draw_map(classification), f"Map of the columns by class: {_counted(classification)}"),
    )


def _report(classification: Classification, micrograph: Micrograph) -> dict[str, Any]:
    """Values of the template of the report."""
    counted = _counted(classification)
    return {
        "title": _specimen(classification),
        "facts": ", ".join(
            [
                *([] if micrograph.source is None else [micrograph.source]),
                f"{field(micrograph, classification.sampling)} nm",
                *_facts(classification),
            ]
        ),
        "warnings": _warnings(classification),
        "verdict": _verdict(classification, micrograph),
        "tiles": _tiles(classification),
        "classes": _class_rows(classification),
        "defects": _defect_rows(classification),
        "flags": _flag_rows(classification),
        "cell": f"a = {classification.lattice_constant:.4g} Å",
        "overlay": picture(
            draw_overlay(classification, micrograph),
            f"The micrograph with every column marked by its class: {counted}",
            "Dots are the host, outlines the defects. Crosses and grey rings are not counted.",
        ),
        "patches": picture(
            draw_classes(classification, micrograph),
            f"Patches of each class, the surest and the least sure, with their probabilities: {counted}",
            "The probability under each patch is that of the class named on the left; it falls from left to right. All "
            "patches have the grey levels of the micrograph above. Dots mark the classes of the neighbours.",
        ),
        "entropy": picture(
            draw_entropy(classification, micrograph),
            "The dimmed micrograph with every column coloured by the entropy of its posterior, 0 to 1 bit",
            "Entropy of the posterior of every column. At 0 bits one class is certain; 1 bit is as good as a coin "
            "tossed between two.",
        ),
        "parts": [*_pair_part(classification), *_strain_part(classification)],
        "origins": origin_rows(classification, micrograph),
        "commands": commands(classification, micrograph),
        "versions": _versions(classification),
    }


def _specimen(classification: Classification) -> str:
    context = classification.provenance.get("context")
    if context is None:
        return "Classified columns"
    return specimen(context["host"], context["dopants"])


def _facts(classification: Classification) -> Iterator[str]:
    """Yield how it was recorded, in few words."""
    if words := detectors_in_words(classification):
        yield words
    context = classification.provenance.get("context")
    if context is not None and context["energy"] is not None:
        yield f"{context['energy'] / 1e3:g} keV"
    by_lattice = abs(classification.sampling / classification.stated_sampling - 1.0) > 1e-6
    stated = f" by the lattice, {classification.stated_sampling:.4g} stated" if by_lattice else ""
    yield f"{classification.sampling:.4g} Å/px{stated}"


def _counted(classification: Classification) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in classification.counts.items())


def _warnings(classification: Classification) -> list[str]:
    return [str(warning) for warning in classification.provenance.get("warnings", ())]


def _verdict(classification: Classification, micrograph: Micrograph) -> str:
    found = densities(classification)
    dopants = " or ".join(classification.provenance.get("context", {}).get("dopants", ())) or "a dopant"
    single, double = found.single_vacancy, found.double_vacancy
    sentences = [
        f"{len(classification):,} columns in {field(micrograph, classification.sampling)} nm.",
        f"Of {found.dopant.sites:,} metal sites, {_have(found.dopant.count, 'is', 'are')} {dopants};",
        f"of {single.sites:,} chalcogen sites, {_have(single.count, 'lacks', 'lack')} one atom"
        f" and {_have(double.count, 'lacks', 'lack')} both.",
    ]
    if not classification.counted.all():
        left_out = int(np.sum(~classification.counted))
        sentences.append(f"{_have(left_out, 'column is', 'columns are')} left out, as unknown or contaminated.")
    return " ".join(sentences)


def _have(count: int, singular: str, plural: str) -> str:
    return f"{count:,} {plural}" if count > 1 else f"1 {singular}" if count else f"none {singular}"


def _tiles(classification: Classification) -> list[dict[str, str]]:
    """Dopant fraction and vacancy densities, in large letters."""
    found = densities(classification)
    per_area = 1.0 / found.cell_area
    shown = (
        ("dopants on metal sites", found.dopant, 100.0, "%"),
        ("single vacancies", found.single_vacancy, per_area, "cm⁻²"),
        ("double vacancies", found.double_vacancy, per_area, "cm⁻²"),
    )
    return [{"name": name, **_tile(each, scale, unit)} for name, each, scale, unit in shown]


def _tile(found: SiteFraction, scale: float, unit: str) -> dict[str, str]:
    if not found.sites:
        return {"value": "–", "note": "no such sites"}
    low, high = (scale * end for end in found.interval_95)
    if low > 0:
        return {
            "value": f"{number(scale * found.value)} {unit}",
            "note": f"95 %: {interval(low, high)} {unit}",
        }
    return {"value": f"< {number(high)} {unit}", "note": "with 95 %; there may be none"}


def _class_rows(classification: Classification) -> list[dict[str, str]]:
    """How many columns of each class there are, and how sure that is."""
    certainty, labels = classification.probabilities.max(axis=1, initial=0.0), classification.labels
    rows = []
    for index, (name, count) in enumerate(classification.counts.items()):
        among = certainty[classification.counted & (labels == index)]
        rows.append(
            {
                "name": name.replace("_", " "),
                "marker": MARKERS[index],
                "colour": COLOURS[index],
                "count": f"{count:,}",
                "certainty": percent(float(among.mean())) if count else "–",
            }
        )
    return rows


def _defect_rows(classification: Classification) -> list[dict[str, str]]:
    """Fractions and densities of the defects; no fraction is told where there are no sites."""
    found = densities(classification)
    rows = []
    for name in ("dopant", "single_vacancy", "double_vacancy"):
        each: SiteFraction = getattr(found, name)
        (low, high), area, index = each.interval_95, found.cell_area, CLASSES.index(name)
        value = each.value if each.value > 0.01 * high else 0.0
        values = (
            {
                "share": f"{number(100 * value)} %",
                "share_interval": f"{interval(100 * low, 100 * high)} %",
                "density": number(value / area),
                "density_interval": interval(low / area, high / area),
                "limit": f"{number(100 * each.detection_limit)} %",
            }
            if each.sites
            else dict.fromkeys(("share", "share_interval", "density", "density_interval", "limit"), "–")
        )
        rows.append(
            {
                "name": name.replace("_", " "),
                "marker": MARKERS[index],
                "colour": COLOURS[index],
                "count": f"{each.count:,}",
                "expected": f"{each.expected_count:,.1f}",
                "sites": f"{each.sites:,}",
            }
            | values
        )
    return rows


def _flag_rows(classification: Classification) -> list[dict[str, str]]:
    """How many columns something special is said of."""
    rows = (
        (
            "unknown",
            classification.unknown,
            "like none of the classes: adatom, grain boundary, second layer; not counted",
        ),
        ("contaminated", classification.contaminated, "under too much carbon for the class to be told; not counted"),
        ("at the border", ~classification.complete, "the patch leaves the image; no site of fractions and densities"),
        ("without a peak", ~classification.observed, "sites that the lattice demands and the image leaves dark"),
        ("on no lattice", off_lattice(classification), "between grains, or adatoms in hollow sites; not counted"),
    )
    return [{"name": name, "count": f"{int(chosen.sum()):,}", "meaning": meaning} for name, chosen, meaning in rows]


def _pair_part(classification: Classification) -> Iterator[dict[str, Any]]:
    """Pair numbers of the defects that are not too few."""
    usable = classification.counted & classification.complete & (classification.grain >= 0)
    counts = np.bincount(classification.labels[usable], minlength=len(CLASSES))
    kinds = [kind for kind, names in KINDS.items() if len(names) == 1 and counts[CLASSES.index(names[0])] >= ENOUGH]
    if kinds:
        pairs = [pair_correlation(classification, kind) for kind in kinds]
        below = [f"{each.kind.replace('_', ' ')} {each.p_value:.2g}" for each in pairs]
        yield {
            "id": "pairs",
            "title": "Pairs of defects",
            "picture": picture(
                _pair_figure(pairs),
                f"Pairs of defects over pairs at random, by distance; p values: {', '.join(below)}",
                "Pairs at each distance of the lattice, over those of as many defects placed at random on the same "
                "sites. Where any dot leaves its light bar, they do not stand at random, at a level of 5 %.",
            ),
        }


def _pair_figure(pairs: list[PairCorrelation]) -> Figure:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(7.2, 2.6), layout="constrained", facecolor="white")
        for axes, each in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
            each.draw(axes)
            axes.get_legend().remove()
            axes.set_title(axes.get_title(), fontsize=8)
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.canvas.draw()
        return figure


def _strain_part(classification: Classification) -> Iterator[dict[str, Any]]:
    strain = strain_map(classification)
    if np.isfinite(strain.values).any():
        deviations = 100 * np.nanstd(strain.values[:, :3], axis=0)
        spread = ", ".join(
            f"{name.replace('e', 'ε')} {each:.2g} %" for name, each in zip(COMPONENTS[:3], deviations, strict=True)
        )
        yield {
            "id": "strain",
            "title": "Strain",
            "picture": picture(
                _strain_figure(strain),
                f"Maps of the strain and the rotation of the lattice; standard deviations: {spread}",
                f"Relative to the mean lattice of the grain, with standard deviations {spread}; x runs to the right, y "
                "downwards. Scan errors strain an image as a specimen would: bands along the rows are theirs.",
            ),
        }


def _strain_figure(strain: StrainMap) -> Figure:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(7.2, 2.55), layout="constrained", facecolor="white")
        panels = figure.subplots(1, len(COMPONENTS))
        images = [strain.draw(axes, component) for axes, component in zip(panels, COMPONENTS, strict=True)]
        for axes in panels:
            axes.set_title(axes.get_title(), fontsize=8)
            axes.spines[:].set_visible(False)
        bar: dict[str, Any] = {"orientation": "horizontal", "aspect": 40, "pad": 0.03}
        figure.colorbar(images[0], ax=panels[:3], shrink=0.4, **bar)
        figure.colorbar(images[3], ax=panels[3], **bar | {"aspect": 17})
        for each in figure.axes[len(panels) :]:
            each.spines[:].set_visible(False)
        figure.canvas.draw()
        return figure


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
