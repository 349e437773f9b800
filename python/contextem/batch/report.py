"""The report of a batch: one page of what all its micrographs have come to, made of their summaries alone.

Like that of one micrograph it needs nothing but itself, and every text is escaped.  However many micrographs there are,
it stays a page: tables tell the first of what they list, and where the rest is.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contextem import __version__
from contextem._html import ORIGINS, detector_words, digits_of, fill, interval, number, picture, specimen
from contextem._output import whole_file
from contextem.batch.charts import SINGLE, draw_defects, draw_quality
from contextem.batch.review import Odd, disagreements, kinds, odd_ones
from contextem.batch.spread import QUANTITIES, Quantity, Shares, Spread, Trend, shares, spread, trend
from contextem.columns import CLASSES
from contextem.views import COLOURS, MARKERS

if TYPE_CHECKING:
    from contextem.batch.merge import Merged

DRAWN = 6
"""Specimens that have a section of their own."""
LISTED, FAILED, KINDS, ROWS = 20, 50, 20, 50
"""Micrographs to look at, failures, kinds of them and of warnings, and specimens that are listed."""
DOTS_PER_INCH = 200
FLAGS = {
    "unknown": "unknown",
    "contaminated": "contaminated",
    "not_complete": "at the border",
    "not_observed": "without a peak",
}
"""What columns are told to be beside their class, by its name in a summary."""
SURE = 0.01
"""p value below which micrographs are said to differ."""
_LONG = 300  # letters of what is quoted

Summaries = Sequence[Mapping[str, Any]]


def write_report(path: Path, merged: Merged, specimens: Mapping[str, Summaries]) -> None:
    """Write what a batch has come to as one page, and its figures beside it.

    Parameters
    ----------
    path : Path
        The page; figures are written into ``figures`` beside it.
    merged : Merged
        What the batch has come to.
    specimens : mapping of str to sequence of mapping
        The summaries of its micrographs by what was imaged and how.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from contextem.batch.merge import Merged, specimens
    >>> from contextem.examples import demo_micrograph
    >>> from contextem.pipeline import classify
    >>> micrograph, context, *_ = demo_micrograph()
    >>> told = {"name": "demo.tif", "frame": None, **classify(micrograph, context).summary()}
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "report.html"
    ...     merged = Merged(path.parent, [told], [], [])
    ...     write_report(path, merged, specimens(merged))
    ...     "<h1>Cr-doped WSe₂</h1>" in path.read_text(encoding="utf-8")
    True
    """
    text = fill("batch.html", **_page(path.parent / "figures", merged, specimens))
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _page(figures: Path, merged: Merged, specimens: Mapping[str, Summaries]) -> dict[str, Any]:
    """Values of the template."""
    groups = {_name(key, summaries): summaries for key, summaries in specimens.items()}
    odd = {name: odd_ones(summaries) for name, summaries in groups.items()}
    ranked = sorted(((name, each) for name in odd for each in odd[name]), key=lambda pair: -pair[1].weight)
    listed = ranked[:LISTED]
    sections = [
        _section(figures, number, name, summaries, odd[name], [each.index for of, each in listed if of == name])
        for number, (name, summaries) in enumerate(list(groups.items())[:DRAWN], start=1)
    ]
    warned = [(each["name"], text) for each in merged.micrographs for text in each["warnings"]]
    failed = [(each["name"], each["reason"]) for each in merged.failures]
    return {
        "title": _title(groups) or ("No micrograph could be classified" if failed else "Nothing is done yet"),
        "facts": ", ".join(
            [
                _counted(len(merged.micrographs), "micrograph"),
                _counted(merged.columns, "column"),
                _counted(len(failed), "failure"),
                f"{_counted(len(merged.left), 'part')} not done",
            ]
        ),
        "left": _left(merged.left),
        "verdict": _verdict(merged, groups, odd),
        "tiles": _tiles(merged, len(groups), len(ranked)),
        "specimens": [_specimen_row(name, summaries) for name, summaries in list(groups.items())[:ROWS]],
        "more_specimens": max(0, len(groups) - ROWS),
        "classes": [
            {"name": name.replace("_", " "), "marker": marker, "colour": colour}
            for name, marker, colour in zip(CLASSES, MARKERS, COLOURS, strict=True)
        ],
        "flags": list(FLAGS.values()),
        "quantities": [quantity.words for quantity in QUANTITIES],
        "sections": sections,
        "more_sections": len(groups) - len(sections),
        "quality": _quality(figures, groups) if groups else None,
        "odd": [_odd_row(name, groups[name][each.index], each) for name, each in listed],
        "more_odd": len(ranked) - len(listed),
        "warnings": _kinds(warned),
        "failures": _kinds(failed) if len(failed) > 10 else None,
        "failed": [{"name": name, "reason": _short(reason)} for name, reason in failed[:FAILED]],
        "more_failed": max(0, len(failed) - FAILED),
        "origins": [
            {"specimen": name, **row} for name, summaries in list(groups.items())[:DRAWN] for row in _origins(summaries)
        ],
        "several": len(groups) > 1,
        "versions": _versions(merged.micrographs),
    }


# In words


def _name(key: str, summaries: Summaries) -> str:
    """Return what the micrographs of a group have in common."""
    context = summaries[0]["context"]
    return f"{specimen(context['host'], context['dopants'])}, {key.partition(', ')[2]}"


def _title(groups: Mapping[str, Summaries]) -> str:
    names = list(
        dict.fromkeys(specimen(each[0]["context"]["host"], each[0]["context"]["dopants"]) for each in groups.values())
    )
    if len(names) > 3:
        names = [*names[:3], f"{len(names) - 3} more"]
    return _listed(names)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _left(names: Sequence[str]) -> str:
    if not names:
        return ""
    are = "part is" if len(names) == 1 else "parts are"
    first = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names):,} {are} not done yet: {first}. Run the same command again; what is finished stays."


def _verdict(merged: Merged, groups: Mapping[str, Summaries], odd: Mapping[str, Sequence[Odd]]) -> str:
    if not groups:
        return "None of the inputs could be classified; the reasons are below." if merged.failures else ""
    told = [f"{_counted(merged.columns, 'column')} in {_counted(len(merged.micrographs), 'micrograph')}."]
    if len(groups) == 1:
        found = _found(next(iter(groups.values())))
        values = [f"{_value(quantity, each)} {quantity.words}" for quantity, each in found.items()]
        told += [f"{', '.join(values)}."] if values else []
    differing: dict[str, list[str]] = {}
    for name, summaries in groups.items():
        for quantity, each in _found(summaries).items():
            p_value = spread(_sound(each, _doubtful(odd[name], len(summaries)))).p_value
            if p_value is not None and p_value < SURE:
                differing.setdefault(quantity.words, []).append(name.partition(",")[0] if len(groups) > 1 else "")
    alike = " of one specimen" if len(groups) > 1 else ""
    if differing:
        where = [
            words + (f" ({', '.join(dict.fromkeys(names))})" if all(names) and len(names) < 4 else "")
            for words, names in differing.items()
        ]
        told.append(f"Micrographs{alike} differ by more than chance in {_listed(where)}.")
    elif len(merged.micrographs) > len(groups):
        told.append(f"Micrographs{alike} differ in their defects by no more than chance.")
    count = sum(map(len, odd.values()))
    told.append(
        f"{_counted(count, 'micrograph')} deserve{'s' if count == 1 else ''} a look."
        if count
        else "No micrograph stands out."
    )
    return " ".join(told)


def _listed(words: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def _value(quantity: Quantity, found: Shares) -> str:
    """Return the mean, or its upper end where there may be none."""
    told = spread(found)
    if told.interval_95[0] <= 0.0:
        return f"less than {_number(quantity, found.scale * told.interval_95[1])}"
    return _number(quantity, found.scale * told.mean, digits_of(*told.interval_95))


def _number(quantity: Quantity, value: float, digits: int = 2) -> str:
    """Return a value with its unit, in one line."""
    return f"{number(value, digits)} {_unit(quantity)}".replace(" ", "\N{NO-BREAK SPACE}")


def _unit(quantity: Quantity) -> str:
    return "cm⁻²" if quantity.per_area else "%"


def _chance(p_value: float) -> str:
    told = "p < 10⁻⁶" if p_value < 1e-6 else f"p = {p_value:.2g}"
    return told.replace(" ", "\N{NO-BREAK SPACE}")


def _short(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"


def _tiles(merged: Merged, groups: int, odd: int) -> list[dict[str, str]]:
    done = len(merged.micrographs)
    each = f"{merged.columns / done:,.0f} in a micrograph" if done else ""
    failed = len(merged.failures)
    return [
        {"name": "micrographs", "value": f"{done:,}", "note": f"of {_counted(groups, 'specimen')}, as imaged"},
        {"name": "columns", "value": f"{merged.columns:,}", "note": each},
        {"name": "to look at", "value": f"{odd:,}", "note": "see what to look at first" if odd else "none stands out"},
        {"name": "failures", "value": f"{failed:,}", "note": "see failures" if failed else "none"},
    ]


# Specimens


def _found(summaries: Summaries) -> dict[Quantity, Shares]:
    """Return what is told of defects: dopants where there are any, and nothing where there are no sites."""
    doped = bool(summaries[0]["context"]["dopants"])
    found = {each: shares(summaries, each) for each in QUANTITIES if doped or each.defect != "dopant"}
    return {quantity: each for quantity, each in found.items() if len(each.where)}


def _doubtful(odd: Sequence[Odd], count: int) -> list[int]:
    """Return those whose columns are doubtful, none where most are: they would not be told from others."""
    doubtful = [each.index for each in odd if each.doubtful]
    return doubtful if 2 * len(doubtful) < count else []


def _sound(found: Shares, doubtful: Sequence[int]) -> Shares:
    """Return those whose columns are not doubtful, or all where these have no sites."""
    sound = found.without(doubtful)
    return sound if len(sound.where) else found


def _specimen_row(name: str, summaries: Summaries) -> dict[str, Any]:
    found = _found(summaries)
    cells = []
    for quantity in QUANTITIES:
        if quantity not in found:
            cells.append(("–", ""))
            continue
        ends = spread(found[quantity]).interval_95
        cells.append((_value(quantity, found[quantity]), interval(*(found[quantity].scale * end for end in ends))))
    return {
        "name": name,
        "micrographs": f"{len(summaries):,}",
        "columns": f"{sum(each['columns'] for each in summaries):,}",
        "cells": cells,
        "counts": [
            f"{sum(each['counts'][name] if name in CLASSES else each[name] for each in summaries):,}"
            for name in (*CLASSES, *FLAGS)
        ],
    }


def _section(
    figures: Path, number: int, name: str, summaries: Summaries, odd: Sequence[Odd], marked: Sequence[int]
) -> dict[str, Any]:
    found, frames = _found(summaries), _frames(summaries)
    doubtful = _doubtful(odd, len(summaries))
    rows, remarks = [], []
    if doubtful:
        names = [summaries[index]["name"] for index in doubtful]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        of = "micrograph are" if len(names) == 1 else "micrographs are"
        remarks.append(f"The columns of {len(names):,} {of} doubtful: {', '.join(names[:3])}{more}.")
    for quantity, each in found.items():
        sound = _sound(each, doubtful)
        pair = [spread(each)] + ([spread(sound)] if len(sound.where) < len(each.where) else [])
        line = None if frames is None else trend(sound, frames[sound.where].astype(float))
        remarks.append(_remark(quantity, each.scale, pair, line, frames is not None))
        rows += _spread_rows(quantity, [each, sound][: len(pair)], pair)
    drawn = None
    if found and len(summaries) > 1:
        slug = re.sub(r"[^A-Za-z0-9]+", "-", name.translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789"))).strip("-")
        file = figures / f"defects-{number}-{slug[:80]}.png"
        drawn = picture(
            draw_defects(found, len(summaries), marked, doubtful, frames),
            f"Defects of {len(summaries)} micrographs of {name}, one after the other, and their distribution beside "
            f"that which chance alone would give. {' '.join(remarks)}",
            _caption(len(summaries), frames is not None, bool(doubtful), file),
            dots_per_inch=DOTS_PER_INCH,
            path=file,
        )
    return {
        "id": f"specimen-{number}",
        "name": name,
        "remarks": [each for each in remarks if each],
        "picture": drawn,
        "rows": rows,
    }


def _frames(summaries: Summaries) -> NDArray[np.int64] | None:
    """Return the number of each micrograph among the frames of a series, if they all are of one."""
    series = {each["name"].rpartition("[")[0] if each["frame"] is not None else None for each in summaries}
    if len(summaries) < 2 or len(series) > 1 or None in series:
        return None
    return np.array([each["frame"] for each in summaries], np.int64)


def _remark(quantity: Quantity, scale: float, pair: Sequence[Spread], line: Trend | None, series: bool) -> str:
    """Say whether micrographs, and those of them that are not doubtful, differ by more than chance."""
    if pair[0].p_value is None or pair[0].mean == 0.0:
        return ""
    what = "frames" if series else "micrographs"
    start = f"{quantity.words[0].upper()}{quantity.words[1:]}"
    if line is not None and line.p_value < SURE:
        rise = "rise" if line.end > line.start else "fall"
        ends = " to ".join(_number(quantity, scale * each) for each in (line.start, line.end))
        return f"{start} {rise} along the series, from {ends} by a straight line ({_chance(line.p_value)})."

    def differ(told: Spread) -> str:
        assert told.p_value is not None and told.beyond is not None
        if told.p_value >= SURE:
            return f"by no more than chance ({_chance(told.p_value)})"
        return f"by {_number(quantity, scale * told.beyond)} beyond chance ({_chance(told.p_value)})"

    last = pair[-1]
    alike = last is pair[0] or last.p_value is None or min(pair[0].p_value, last.p_value) >= SURE
    without = "" if alike else f"; without the doubtful ones, {differ(last)}"
    return f"{start} differ between {what} {differ(pair[0])}{without}."


def _spread_rows(quantity: Quantity, of: Sequence[Shares], told: Sequence[Spread]) -> list[dict[str, Any]]:
    """Return all that is told of the differences, as multiples of one unit."""
    index, factor = CLASSES.index(quantity.defect), of[0].scale
    unit = "%"
    if quantity.per_area:
        largest = factor * max(told[0].mean, told[0].deviation or 0.0, told[0].interval_95[1])
        power = math.floor(math.log10(largest))
        factor, unit = factor / 10.0**power, f"{number(10.0**power).removeprefix('1.0 × ')} cm⁻²"

    def value(share: float | None) -> str:
        return "–" if share is None else number(factor * share)

    return [
        {
            "name": f"{quantity.words} ({unit})"
            if each is of[0]
            else f"without {len(of[0].where) - len(each.where):,} doubtful",
            "marker": MARKERS[index] if each is of[0] else "",
            "colour": COLOURS[index],
            "sites": f"{each.sites.sum():,.0f}",
            "mean": number(factor * one.mean, digits_of(*one.interval_95)),
            "interval": interval(*(factor * end for end in one.interval_95)),
            "range": "–"
            if len(each.where) == 1
            else interval(*(factor * end(each.values) for end in (np.min, np.max))),
            "deviation": value(one.deviation),
            "by_chance": value(one.by_chance),
            "beyond": value(one.beyond),
            "p_value": "–" if one.p_value is None else _chance(one.p_value)[2:].removeprefix("=").strip(),
        }
        for each, one in zip(of, told, strict=True)
    ]


def _caption(count: int, series: bool, doubtful: bool, file: Path) -> str:
    what = "frame" if series else "micrograph"
    return " ".join(
        [
            f"Left: every {what}, with its 95 % interval as a thin line"
            if count <= SINGLE
            else f"Left: every {what} in blue, and neighbours together in black, with their 95 % interval",
            "(triangles: beyond the axis, with the value). Orange are those listed under what to look at first.",
            f"Right: how many {what}s have such a value, and the black outline how many would if all were of one "
            "specimen and differed by counting and doubtful labels alone.",
            *([f"Dashed mean and outline leave out {what}s whose columns are doubtful."] if doubtful else []),
            f"File: {file.parent.name}/{file.name}",
        ]
    )


# Quality, warnings, failures


def _quality(figures: Path, groups: Mapping[str, Summaries]) -> dict[str, Any]:
    every = [each for summaries in groups.values() for each in summaries]
    entropy = [each["mean_entropy_bits"] for each in every if each["mean_entropy_bits"] is not None]
    off = disagreements(every)
    measured = off[np.isfinite(off)]
    remarks = []
    if entropy:
        worst = max(every, key=lambda each: each["mean_entropy_bits"] or 0.0)
        remarks.append(
            f"Mean entropy of the columns: {np.median(entropy):.2g} bits in the median micrograph, "
            f"{max(entropy):.2g} bits in {worst['name']}."
        )
    for name in ("unknown", "contaminated"):
        share = sum(each[name] for each in every) / max(1, sum(each["columns"] for each in every))
        some = sum(each[name] > 0.02 * each["columns"] for each in every)
        remarks.append(
            f"{100 * share:.2g} % of the columns are {name}; more than 2 % in {_counted(some, 'micrograph')}."
        )
    if len(measured):
        used = sum(each.get("calibration", {}).get("used") == "lattice" for each in every)
        remarks.append(
            f"The sampling by the lattice differs from that stated by {100 * np.median(measured):+.2f} % in the median "
            f"micrograph, {100 * measured.min():+.1f} to {100 * measured.max():+.1f} % in all; it was used instead in "
            f"{_counted(used, 'micrograph')}.".replace("-", "−")
        )
    file = figures / "quality.png"
    drawn = picture(
        draw_quality(groups),
        f"Entropy, unknown and contaminated columns and the sampling of {len(every)} micrographs. {' '.join(remarks)}",
        "At 0 bits one class of a column is certain; 1 bit is as good as a coin tossed between two. Unknown columns "
        "look like none of the classes, contaminated ones lie under carbon; neither is counted. "
        f"File: {file.parent.name}/{file.name}",
        dots_per_inch=DOTS_PER_INCH,
        path=file,
    )
    return {"remarks": remarks, "picture": drawn}


def _odd_row(name: str, summary: Mapping[str, Any], odd: Odd) -> dict[str, Any]:
    return {"name": summary["name"], "specimen": name, "reasons": [_short(reason) for reason in odd.reasons]}


def _kinds(told: Sequence[tuple[str, str]]) -> dict[str, Any]:
    found = kinds(told)
    return {
        "rows": [
            {"count": f"{each.count:,}", "example": _short(each.example), "name": each.name} for each in found[:KINDS]
        ],
        "more": max(0, len(found) - KINDS),
    }


# Where it comes from


def _origins(summaries: Summaries) -> Iterator[dict[str, str]]:
    """Yield every quantity that results rest on, its values and where they come from, the most frequent first."""
    found: dict[str, Counter[tuple[str, str]]] = {}
    samplings: dict[str, list[float]] = {}
    for summary in summaries:
        own = f"sidecar {Path(str(summary.get('micrograph', {}).get('source'))).stem}.yaml"
        for quantity, value, origin in _facts(summary):
            told = "the YAML file beside each" if origin == own else ORIGINS.get(origin, origin)
            found.setdefault(quantity, Counter())[value, told] += 1
        origin = str(summary.get("micrograph", {}).get("provenance", {}).get("sampling", ""))
        stated = summary.get("calibration", {}).get("stated_angstrom_per_px", summary["sampling_angstrom_per_px"])
        samplings.setdefault(ORIGINS.get(origin, origin), []).append(stated)
    counted = found | {"sampling stated": Counter()}
    for origin, values in samplings.items():
        low, high = min(values), max(values)
        words = f"{low:.4g} Å/px" if high - low < 1e-4 * low else f"{low:.4g} to {high:.4g} Å/px"
        counted["sampling stated"][words, origin] = len(values)
    for quantity, values_ in counted.items():
        for (value, origin), count in values_.most_common(3):
            yield {"name": quantity, "value": value, "origin": origin, "micrographs": f"{count:,}"}
        if len(values_) > 3:
            rest = sum(values_.values()) - sum(count for _, count in values_.most_common(3))
            yield {"name": quantity, "value": f"{len(values_) - 3:,} others", "origin": "", "micrographs": f"{rest:,}"}


def _facts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    context = summary["context"]
    origin = context.get("provenance", {})
    yield "host", context["host"], str(origin.get("host", ""))
    yield "lattice constant", f"{context['lattice_constant']:g} Å", str(origin.get("lattice_constant", ""))
    yield "dopants", ", ".join(context["dopants"]) or "none", str(origin.get("dopants", ""))
    yield "beam energy", f"{context['energy'] / 1e3:g} keV", str(origin.get("energy", ""))
    for each in (summary, *summary["further_detectors"]):
        told = each["context"]
        by_image = each.get("collection_angles_by_image_used")
        words = f"{told['detector']['name']}, angles by each image" if by_image else detector_words(told["detector"])
        yield "detector", words, str(told.get("provenance", {}).get("detector", ""))


def _versions(summaries: Summaries) -> list[dict[str, str]]:
    made = Counter(str(each.get("contextem_version", "not recorded")) for each in summaries)
    models = Counter(
        " ".join(str(each["model"][name]) for name in ("name", "version") if name in each.get("model", {})) or "unnamed"
        for each in summaries
        if "model" in each
    )
    rows = [("model", name, count) for name, count in models.most_common(5)]
    rows += [("contextem", name, count) for name, count in made.most_common(5)]
    told = [{"name": name, "value": value, "count": _counted(count, "micrograph")} for name, value, count in rows]
    return [*told, {"name": "contextem", "value": __version__, "count": "this page"}]
