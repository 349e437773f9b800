"""The report of a batch: one page of what all its micrographs have come to, made of their summaries alone.

Like that of one micrograph it needs nothing but itself, and every text is escaped.  However many micrographs there are,
it stays a page: tables tell the first of what they list, and where the rest is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contextem import __version__
from contextem._html import ORIGINS, detector_words, fill, interval, number, picture, specimen
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
        _section(figures, name, summaries, odd[name], [each.index for of, each in listed if of == name])
        for name, summaries in list(groups.items())[:DRAWN]
    ]
    warned = [(each["name"], text) for each in merged.micrographs for text in each["warnings"]]
    failed = [(each["name"], each["reason"]) for each in merged.failures]
    return {
        "title": _title(groups),
        "facts": ", ".join(
            [
                _counted(len(merged.micrographs), "micrograph"),
                _counted(merged.columns, "column"),
                _counted(len(failed), "failure"),
                f"{_counted(len(merged.left), 'part')} not done",
            ]
        ),
        "left": _left(merged.left),
        "verdict": _verdict(merged, groups, len(ranked)),
        "tiles": _tiles(merged, len(groups), len(ranked)),
        "specimens": [_specimen_row(name, summaries) for name, summaries in list(groups.items())[:ROWS]],
        "more_specimens": max(0, len(groups) - ROWS),
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
    if not names:
        return "No micrograph could be classified"
    if len(names) > 3:
        names = [*names[:3], f"{len(names) - 3} more"]
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _left(names: Sequence[str]) -> str:
    if not names:
        return ""
    are = "part is" if len(names) == 1 else "parts are"
    first = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names):,} {are} not done yet: {first}. Run the same command again; what is finished stays."


def _verdict(merged: Merged, groups: Mapping[str, Summaries], odd: int) -> str:
    if not groups:
        return "None of the inputs could be classified; the reasons are below."
    told = [f"{_counted(merged.columns, 'column')} in {_counted(len(merged.micrographs), 'micrograph')}."]
    for name, summaries in list(groups.items())[:3]:
        words = [
            f"{_value(quantity, found.scale, spread(found).mean, spread(found).interval_95)} {quantity.words}"
            for quantity, found in _found(summaries).items()
        ]
        if words:
            told.append(f"{name.partition(',')[0]}: {', '.join(words)}.")
    if odd:
        told.append(f"{_counted(odd, 'micrograph')} {'deserves' if odd == 1 else 'deserve'} a look.")
    else:
        told.append("No micrograph stands out.")
    return " ".join(told)


def _value(quantity: Quantity, scale: float, mean: float, ends: tuple[float, float]) -> str:
    """Return a value, or its upper end where there may be none."""
    if ends[0] * scale <= 0.0:
        return f"less than {number(scale * ends[1])} {_unit(quantity)}"
    return f"{number(scale * mean)} {_unit(quantity)}"


def _unit(quantity: Quantity) -> str:
    return "cm⁻²" if quantity.per_area else "%"


def _chance(p_value: float) -> str:
    return "p < 10⁻⁶" if p_value < 1e-6 else f"p = {p_value:.2g}"


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
        {"name": "failures", "value": f"{failed:,}", "note": "see failures" if failed else "all could be classified"},
    ]


# Specimens


def _found(summaries: Summaries) -> dict[Quantity, Shares]:
    """Return what is told of defects: dopants where there are any, and nothing where there are no sites."""
    doped = bool(summaries[0]["context"]["dopants"])
    found = {each: shares(summaries, each) for each in QUANTITIES if doped or each.defect != "dopant"}
    return {quantity: each for quantity, each in found.items() if len(each.where)}


def _specimen_row(name: str, summaries: Summaries) -> dict[str, Any]:
    found = _found(summaries)
    cells = []
    for quantity in QUANTITIES:
        if quantity not in found:
            cells.append(("–", ""))
            continue
        scale, told = found[quantity].scale, spread(found[quantity])
        low, high = (scale * end for end in told.interval_95)
        cells.append((f"{number(scale * told.mean)} {_unit(quantity)}", interval(low, high)))
    return {
        "name": name,
        "micrographs": f"{len(summaries):,}",
        "columns": f"{sum(each['columns'] for each in summaries):,}",
        "cells": cells,
    }


def _section(
    figures: Path, name: str, summaries: Summaries, odd: Sequence[Odd], marked: Sequence[int]
) -> dict[str, Any]:
    found, frames = _found(summaries), _frames(summaries)
    doubtful = [each.index for each in odd if each.doubtful]
    if len(doubtful) * 2 > len(summaries):
        doubtful = []  # what most have in common does not tell them from the others
    rows, remarks = [], []
    for quantity, each in found.items():
        told = spread(each)
        sound = each.without(doubtful)
        without = spread(sound) if 0 < len(sound.where) < len(each.where) else None
        line = None if frames is None else trend(sound, frames[sound.where].astype(float))
        remarks.append(_remark(quantity, each.scale, told, without, line, frames is not None))
        rows.append(_spread_row(quantity, each, told, quantity.words))
        if without is not None:
            rows.append(_spread_row(quantity, sound, without, "without those whose columns are doubtful"))
    slug = re.sub(r"[^A-Za-z0-9]+", "-", name.translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789"))).strip("-")
    drawn = None
    if found:
        file = figures / f"defects-{slug[:80]}.png"
        drawn = picture(
            draw_defects(found, len(summaries), marked, doubtful, frames),
            f"Defects of {len(summaries)} micrographs of {name}, one after the other, and their distribution beside that "
            f"which chance alone would give. {' '.join(remarks)}",
            _caption(len(summaries), frames is not None, bool(doubtful), file),
            dots_per_inch=DOTS_PER_INCH,
            path=file,
        )
    return {
        "id": f"specimen-{slug}",
        "name": name,
        "remarks": [each for each in remarks if each],
        "picture": drawn,
        "rows": rows,
        "classes": _classes(summaries),
    }


def _frames(summaries: Summaries) -> NDArray[np.int64] | None:
    """Return the number of each micrograph among the frames of a series, if they all are of one."""
    series = {each["name"].rpartition("[")[0] if each["frame"] is not None else None for each in summaries}
    if len(summaries) < 2 or len(series) > 1 or None in series:
        return None
    return np.array([each["frame"] for each in summaries], np.int64)


def _remark(
    quantity: Quantity, scale: float, told: Spread, without: Spread | None, line: Trend | None, series: bool
) -> str:
    """Say whether micrographs differ by more than chance."""
    if told.p_value is None or told.mean == 0.0:
        return ""
    what, unit = "frames" if series else "micrographs", _unit(quantity)
    start = f"{quantity.words[0].upper()}{quantity.words[1:]}"
    if line is not None and line.p_value < SURE:
        rise = "rise" if line.end > line.start else "fall"
        ends = " to ".join(f"{number(scale * each)} {unit}" for each in (line.start, line.end))
        return f"{start} {rise} along the series, from {ends} by a straight line ({_chance(line.p_value)})."

    def differ(spread: Spread) -> str:
        assert spread.p_value is not None and spread.beyond is not None
        if spread.p_value < SURE:
            return (
                f"differ between {what} by more than chance: by a standard deviation of "
                f"{number(scale * spread.beyond)} {unit} beyond it ({_chance(spread.p_value)})"
            )
        return f"differ between {what} by no more than chance ({_chance(spread.p_value)})"

    if without is None or without.p_value is None:
        return f"{start} {differ(told)}."
    return f"{start} {differ(told)}; without those whose columns are doubtful they {differ(without)}."


def _spread_row(quantity: Quantity, found: Shares, told: Spread, name: str) -> dict[str, Any]:
    scale, index, main = found.scale, CLASSES.index(quantity.defect), name == quantity.words
    values = ["–" if each is None else number(scale * each) for each in (told.deviation, told.by_chance, told.beyond)]
    return {
        "name": name,
        "marker": MARKERS[index] if main else "",
        "colour": COLOURS[index],
        "micrographs": f"{len(found.where):,}",
        "sites": f"{found.sites.sum():,.0f}",
        "mean": f"{number(scale * told.mean)} {_unit(quantity)}",
        "interval": interval(*(scale * end for end in told.interval_95)),
        "range": interval(scale * float(found.values.min()), scale * float(found.values.max())),
        "deviation": values[0],
        "by_chance": values[1],
        "beyond": values[2],
        "p_value": "–" if told.p_value is None else _chance(told.p_value).removeprefix("p ").removeprefix("= "),
    }


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


def _classes(summaries: Summaries) -> list[dict[str, str]]:
    counts: Counter[str] = Counter()
    for each in summaries:
        counts.update(each["counts"])
        counts.update(
            {name: each[name] for name in ("columns", "unknown", "contaminated", "not_observed", "not_complete")}
        )
    columns = max(1, counts["columns"])
    rows = [
        {"name": name.replace("_", " "), "marker": marker, "colour": colour, "count": counts[name]}
        for name, marker, colour in zip(CLASSES, MARKERS, COLOURS, strict=True)
    ] + [
        {"name": words, "marker": "", "colour": "", "count": counts[name]}
        for name, words in (
            ("unknown", "unknown"),
            ("contaminated", "contaminated"),
            ("not_complete", "at the border"),
            ("not_observed", "without a peak"),
        )
    ]
    return [each | {"count": f"{each['count']:,}", "share": f"{100 * each['count'] / columns:.2f} %"} for each in rows]


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
            f"The sampling by the lattice is {100 * np.median(measured):+.2f} % off that stated in the median, from "
            f"{100 * measured.min():+.1f} to {100 * measured.max():+.1f} %; that by the lattice was used in "
            f"{_counted(used, 'micrograph')}."
        )
    file = figures / "quality.png"
    drawn = picture(
        draw_quality(groups),
        f"Entropy, unknown and contaminated columns and the sampling of {len(every)} micrographs. {' '.join(remarks)}",
        "At 0 bits one class of a column is certain; 1 bit is as good as a coin tossed between two. Unknown columns look "
        "like none of the classes, contaminated ones lie under carbon; neither is counted. "
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
        for quantity, value, origin in _facts(summary):
            found.setdefault(quantity, Counter())[value, ORIGINS.get(origin, origin)] += 1
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
        by_image = ", angles by the image" if each.get("collection_angles_by_image_used") else ""
        source = str(told.get("provenance", {}).get("detector", ""))
        yield "detector", detector_words(told["detector"]) + by_image, source


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
