"""Figures of a batch: defects of each micrograph beside what chance gives, and what tells whether to trust them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from contextem.batch.review import disagreements
from contextem.batch.spread import Quantity, Shares, jeffreys
from contextem.figures import LINES, plain, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.2
"""Of a figure, inches."""
SINGLE = 300
"""Micrographs up to which each has its interval; of more, stretches of neighbours have one."""
STRETCHES = 150
_BINS = 24
_FAR = 2.5  # times the end of the others' intervals, from which on a value is drawn at the edge
_VALUE, _ODD, _CHANCE = LINES[0], LINES[1], "0.15"
_ORDER = "micrograph, in the order of their names"


def draw_defects(
    found: Mapping[Quantity, Shares],
    count: int,
    odd: Collection[int] = (),
    doubtful: Collection[int] = (),
    frames: NDArray[np.int64] | None = None,
) -> Figure:
    """Draw the defects of micrographs one after the other, and how often each share is found beside what chance gives.

    Parameters
    ----------
    found : mapping of Quantity to Shares
        Of the same micrographs.
    count : int
        Micrographs, those without sites too.
    odd : collection of int
        Indices of those that are marked.
    doubtful : collection of int
        Indices of those that have no say in mean and chance.
    frames : ndarray, shape (count,), optional
        Number of each, where they are frames of one series.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(WIDTH, 0.6 + 1.4 * len(found)), layout="constrained", facecolor="white")
        panels = figure.subplots(len(found), 2, squeeze=False, sharex="col", sharey="row", width_ratios=(3.2, 1.0))
        times, what = (np.arange(1, count + 1), "micrograph") if frames is None else (frames, "frame")
        most = 1.0
        for (quantity, each), (left, right) in zip(found.items(), panels, strict=True):
            sound = each.without(doubtful)
            sound = sound if len(sound.where) else each
            top = _top(each, sound)
            scale, unit = _unit(quantity, each.scale, top)
            _draw_order(left, each, times, scale, top, np.isin(each.where, list(odd)), what)
            left.axhline(scale * sound.mean, color="0.4", lw=0.8, ls=(0, (4, 3)), zorder=1, label="mean")
            most = max(most, _draw_distribution(right, each, sound, scale, top))
            left.set_ylabel(f"{quantity.words}\n({unit})")
            left.set_ylim(-0.04 * top * scale, top * scale)
            plain(left)
            plain(right)
        panels[-1, 0].set_xlabel(_ORDER if frames is None else "frame")
        panels[-1, 0].margins(x=0.015)
        panels[-1, 1].set_xlim(0.0, 1.08 * most)
        panels[-1, 1].set_xlabel(f"{what}s")
        for axes, ticks in zip(panels[-1], ("auto", 4), strict=True):
            axes.xaxis.get_major_locator().set_params(integer=True, nbins=ticks)
        figure.align_ylabels(panels[:, 0])
        _legend(figure, panels)
        figure.canvas.draw()
        return figure


def draw_quality(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw entropy, unknown and contaminated columns and the sampling by the lattice of all micrographs.

    Parameters
    ----------
    groups : mapping of str to sequence of mapping
        Summaries of the micrographs of each specimen, by its name.

    Returns
    -------
    matplotlib.figure.Figure
        Specimens one after the other, those beyond the eighth in grey.
    """
    from matplotlib.figure import Figure

    words = (
        "mean entropy\n(bits)",
        "unknown\ncolumns (%)",
        "contaminated\ncolumns (%)",
        "sampling: lattice\nover stated (%)",
    )
    with style():
        figure = Figure(figsize=(WIDTH, 5.0), layout="constrained", facecolor="white")
        panels = figure.subplots(len(words), 1, sharex=True)
        size = float(np.clip(60.0 / math.sqrt(max(1, sum(map(len, groups.values())))), 1.0, 4.5))
        most, start = np.array([0.1, 1.0, 1.0, 1.0]), 1
        for number, (name, summaries) in enumerate(groups.items()):
            colour, label = (LINES[number], name) if number < len(LINES) else ("0.6", None)
            label = "others" if number == len(LINES) else label
            where = np.arange(start, start + len(summaries))
            start += len(summaries)
            for row, values in enumerate(_quality(summaries)):
                most[row] = np.nanmax([most[row], *np.abs(values)])
                panels[row].plot(where, values, "o", ms=size, mew=0, alpha=0.8, color=colour, label=label, zorder=3)
        for axes, word, top in zip(panels, words, most, strict=True):
            axes.set_ylabel(word)
            axes.set_ylim(-0.08 * top, 1.08 * top)
            plain(axes)
        panels[-1].axhline(0.0, color="0.4", lw=0.7, zorder=1)
        panels[-1].set_ylim(-1.1 * most[-1], 1.1 * most[-1])
        panels[-1].set_xlabel(_ORDER.replace(",", ", by specimen,") if len(groups) > 1 else _ORDER)
        panels[-1].margins(x=0.015)
        panels[-1].xaxis.get_major_locator().set_params(integer=True)
        figure.align_ylabels(panels)
        if len(groups) > 1:
            _legend(figure, panels[:1, None], columns=3)
        figure.canvas.draw()
        return figure


def _quality(summaries: Sequence[Mapping[str, Any]]) -> Sequence[NDArray[np.float64]]:
    """Return what `draw_quality` shows of each micrograph."""
    columns = np.array([max(1, each["columns"]) for each in summaries], float)
    unknown, contaminated = (np.array([each[name] for each in summaries]) for name in ("unknown", "contaminated"))
    entropy = np.array([each["mean_entropy_bits"] for each in summaries], float)  # None is NaN
    return entropy, 100 * unknown / columns, 100 * contaminated / columns, 100 * disagreements(summaries)


def _top(found: Shares, sound: Shares) -> float:
    """Return the share at which an axis ends: values far beyond those of sound micrographs are not on it."""
    end = float(max(np.quantile(sound.high, 0.9), np.quantile(sound.values, 0.98)))
    return 1.06 * max(end, min(float(found.values.max()), _FAR * end))


def _unit(quantity: Quantity, per_site: float, top: float) -> tuple[float, str]:
    """Return by what shares are multiplied for an axis, and the unit there."""
    if not quantity.per_area:
        return 100.0, "%"
    power = math.floor(math.log10(0.8 * per_site * top))
    return per_site / 10.0**power, f"10$^{{{power}}}$ cm$^{{-2}}$"


def _draw_order(
    axes: Axes, found: Shares, times: NDArray[np.int64], scale: float, top: float, odd: NDArray[np.bool_], what: str
) -> None:
    where, values = times[found.where], scale * found.values
    beyond = found.values > top
    for label, chosen, colour in ((f"a {what}", ~odd, _VALUE), ("one to look at", odd, _ODD)):
        shown = chosen & ~beyond
        if len(where) <= SINGLE:
            size, alpha = float(np.clip(45.0 / math.sqrt(len(where)), 2.2, 4.5)), 1.0
            low, high = scale * found.low[shown], scale * found.high[shown]
            axes.vlines(where[shown], low, high, colors=colour, lw=0.7, alpha=0.55, zorder=2)
        else:
            size, alpha = float(np.clip(40.0 / math.sqrt(len(where)), 0.5, 2.0)), 0.3
        if shown.any():
            alike: Any = {"color": colour, "mew": 0, "label": label}
            if colour == _ODD:
                axes.plot(where[shown], values[shown], "o", ms=max(size, 2.4), zorder=4, **alike)
            else:
                axes.plot(where[shown], values[shown], "o", ms=size, alpha=alpha, zorder=3, **alike)
        edge = chosen & beyond
        axes.plot(where[edge], np.full(edge.sum(), 0.97 * scale * top), "^", color=colour, ms=4.5, mew=0, zorder=4)
    for time, value in list(zip(where[beyond], values[beyond], strict=True))[:5]:
        axes.annotate(
            f"{value:.3g}", (time, 0.97 * scale * top), (4, -1), textcoords="offset points", va="center", fontsize=7
        )
    if len(where) > SINGLE:
        _draw_stretches(axes, found, where, scale)


def _draw_stretches(axes: Axes, found: Shares, where: NDArray[np.int64], scale: float) -> None:
    """Draw the share of neighbours together, with its interval."""
    starts = np.linspace(0, len(where), STRETCHES + 1).astype(int)[:-1]
    sure = found.sure_sites
    sites, expected, middles = (np.add.reduceat(each, starts) for each in (sure, found.values * sure, where))
    middles = middles / np.diff([*starts, len(where)])
    low, high = jeffreys(expected, sites)
    axes.vlines(middles, scale * low, scale * high, colors=_CHANCE, lw=0.7, zorder=5)
    label = f"{len(where) / STRETCHES:.0f} in a row, 95 % interval"
    axes.plot(middles, scale * expected / sites, "o", color=_CHANCE, ms=1.8, mew=0, zorder=5, label=label)


def _draw_distribution(axes: Axes, found: Shares, sound: Shares, scale: float, top: float) -> float:
    """Draw a histogram of the shares, and that of as many micrographs that differ by chance alone; return the most."""
    sites = found.sure_sites
    usual = float(np.median(sites))
    width = max(1, math.ceil(usual * top / _BINS)) / usual  # whole defects, so that bins hold as many values each
    edges = width * np.arange(math.ceil(top / width) + 2) - 0.5 / usual
    counts = np.histogram(found.values, edges)[0]
    kept, times = np.unique(np.round(sites), return_counts=True)
    # the binomial distribution up to k + 1/2 defects, k real, so that it does not beat with the bins
    most = np.clip(edges[1:, None] * kept, 0.0, kept)
    below = np.append(0.0, betainc(kept - most + 0.5, most + 0.5, 1.0 - sound.mean) @ times)
    axes.stairs(counts, scale * edges, orientation="horizontal", fill=True, color=_VALUE, alpha=0.45, label="found")
    chance: Any = {"color": _CHANCE, "lw": 1.0, "label": "chance alone"}
    axes.stairs(np.diff(below), scale * edges, orientation="horizontal", **chance)
    return float(max(counts.max(), np.diff(below).max()))


def _legend(figure: Figure, panels: NDArray[Any], columns: int | None = None) -> None:
    """Write what is told by the colours of all panels above them, once."""
    from matplotlib.lines import Line2D

    entries: dict[str, Any] = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    legend = figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside upper center",
        ncols=columns or len(entries),
        frameon=False,
        columnspacing=1.4,
        handlelength=1.6,
    )
    for handle in legend.legend_handles:
        if isinstance(handle, Line2D):
            handle.set(markersize=4.5, alpha=None)
