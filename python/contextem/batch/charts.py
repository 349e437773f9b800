"""Figures of a batch: defects of each micrograph beside what chance gives, and how far the micrographs can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

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
_VALUE, _ODD, _CHANCE = LINES[0], LINES[1], "0.15"


def draw_defects(
    found: Mapping[Quantity, Shares], count: int, odd: Sequence[int], frames: NDArray[np.int64] | None = None
) -> Figure:
    """Draw the defects of micrographs one after the other, and how often each share is found beside what chance gives.

    Parameters
    ----------
    found : mapping of Quantity to Shares
        Of the same micrographs.
    count : int
        Micrographs, those without sites too.
    odd : sequence of int
        Indices of those that are marked.
    frames : ndarray, shape (count,), optional
        Number of each, where they are frames of one series.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(WIDTH, 0.55 + 1.45 * len(found)), layout="constrained", facecolor="white")
        panels = figure.subplots(len(found), 2, squeeze=False, sharex="col", sharey="row", width_ratios=(3.2, 1.0))
        times = np.arange(1, count + 1) if frames is None else frames
        for (quantity, each), (left, right) in zip(found.items(), panels, strict=True):
            scale, unit = _unit(quantity, each)
            _draw_order(left, each, times, scale, np.isin(each.where, odd))
            _draw_distribution(right, each, scale)
            left.set_ylabel(f"{quantity.words}\n({unit})")
            top = _top(each) * scale
            left.set_ylim(-0.03 * top, top)
            for axes in (left, right):
                plain(axes)
        panels[-1, 0].set_xlabel("micrograph, in the order of their names" if frames is None else "frame")
        panels[-1, 0].margins(x=0.015)
        panels[-1, 0].xaxis.get_major_locator().set_params(integer=True)
        panels[-1, 1].set_xlabel("micrographs")
        panels[-1, 1].xaxis.get_major_locator().set_params(integer=True, nbins=4)
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

    with style():
        figure = Figure(figsize=(WIDTH, 5.0), layout="constrained", facecolor="white")
        panels = figure.subplots(4, 1, sharex=True)
        start, total = 1, sum(map(len, groups.values()))
        size = float(np.clip(60.0 / math.sqrt(max(1, total)), 1.0, 4.5))
        colours = [*LINES, *["0.6"] * max(0, len(groups) - len(LINES))]
        for (name, summaries), colour in zip(groups.items(), colours, strict=False):
            where = np.arange(start, start + len(summaries))
            start += len(summaries)
            label = name if colour in LINES else "others" if start > total else None
            for axes, values in zip(panels, _quality(summaries), strict=True):
                axes.plot(where, values, "o", ms=size, mew=0, alpha=0.8, color=colour, label=label, clip_on=False)
        words = ("mean entropy\n(bits)", "unknown\ncolumns (%)", "contaminated\ncolumns (%)", "sampling by lattice\n− stated (%)")
        for axes, word in zip(panels, words, strict=True):
            axes.set_ylabel(word)
            plain(axes)
        for axes, least in zip(panels[:3], (0.1, 1.0, 1.0), strict=True):
            axes.set_ylim(0.0, max(least, 1.08 * max((float(np.nanmax(line.get_ydata())) for line in axes.lines), default=0.0)))
        panels[3].axhline(0.0, color="0.4", lw=0.7, zorder=0)
        widest = max([1.0, *(1.15 * np.nanmax(np.abs(y)) for line in panels[3].lines if np.isfinite(y := np.asarray(line.get_ydata())).any())])
        panels[3].set_ylim(-widest, widest)
        panels[3].set_xlabel("micrograph, by specimen, in the order of their names" if len(groups) > 1 else "micrograph, in the order of their names")
        panels[3].margins(x=0.015)
        panels[3].xaxis.get_major_locator().set_params(integer=True)
        figure.align_ylabels(panels)
        if len(groups) > 1:
            handles, labels = panels[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper center", ncols=min(3, len(labels)), frameon=False, markerscale=max(1.0, 4 / size))
        figure.canvas.draw()
        return figure


def _quality(summaries: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.float64], ...]:
    columns = np.array([max(1, each["columns"]) for each in summaries], float)
    entropy = np.array([np.nan if each["mean_entropy_bits"] is None else each["mean_entropy_bits"] for each in summaries])
    unknown, contaminated = (np.array([each[name] for each in summaries]) for name in ("unknown", "contaminated"))
    return entropy, 100 * unknown / columns, 100 * contaminated / columns, 100 * disagreements(summaries)


def _unit(quantity: Quantity, found: Shares) -> tuple[float, str]:
    """Return by what shares are multiplied for an axis, and the unit there."""
    if not quantity.per_area:
        return 100.0, "%"
    power = math.floor(math.log10(found.scale * _top(found)))
    return found.scale / 10.0**power, f"10$^{{{power}}}$ cm$^{{-2}}$"


def _top(found: Shares) -> float:
    """Return the share at which an axis ends: all are inside, and the most of their intervals."""
    return 1.06 * float(max(found.values.max(), np.quantile(found.high, 0.9)))


def _draw_order(axes: Axes, found: Shares, times: NDArray[np.int64], scale: float, odd: NDArray[np.bool_]) -> None:
    where = times[found.where]
    axes.axhline(scale * found.mean, color="0.4", lw=0.8, ls=(0, (4, 3)), zorder=1, label="mean of all sites")
    values = scale * found.values
    lines: dict[str, Any] = {"lw": 0.7, "alpha": 0.55, "zorder": 2}
    if len(where) <= SINGLE:
        size = float(np.clip(45.0 / math.sqrt(len(where)), 2.2, 4.5))
        for chosen, colour, label in ((~odd, _VALUE, "a micrograph, 95 % interval"), (odd, _ODD, "one to look at")):
            if chosen.any():
                axes.vlines(where[chosen], scale * found.low[chosen], scale * found.high[chosen], colors=colour, **lines)
                axes.plot(where[chosen], values[chosen], "o", color=colour, ms=size, mew=0, zorder=3, label=label)
        return
    size = float(np.clip(40.0 / math.sqrt(len(where)), 0.5, 2.0))
    axes.plot(where[~odd], values[~odd], "o", color=_VALUE, ms=size, mew=0, alpha=0.3, zorder=1.5, label="a micrograph")
    if odd.any():
        axes.plot(where[odd], values[odd], "o", color=_ODD, ms=2.4, mew=0, zorder=4, label="one to look at")
    starts = np.linspace(0, len(where), STRETCHES + 1).astype(int)[:-1]
    sites, expected = (np.add.reduceat(each, starts) for each in (found.sure_sites, found.values * found.sure_sites))
    middles = np.add.reduceat(where.astype(float), starts) / np.diff([*starts, len(where)])
    low, high = jeffreys(expected, sites)
    label = f"about {len(where) / STRETCHES:.0f} neighbours together, 95 % interval"
    axes.vlines(middles, scale * low, scale * high, colors=_CHANCE, lw=0.7, zorder=5)
    axes.plot(middles, scale * expected / sites, "o", color=_CHANCE, ms=1.8, mew=0, zorder=5, label=label)


def _draw_distribution(axes: Axes, found: Shares, scale: float) -> None:
    """Draw a histogram of the shares, and that of as many micrographs that differ by chance alone."""
    sites, p = found.sure_sites, found.mean
    width = max(1.06 * float(found.values.max()) / _BINS, 1.0 / float(np.median(sites)))
    edges = width * (np.arange(math.ceil(float(found.values.max()) / width + 0.5) + 1) - 0.5)
    counts = np.histogram(found.values, edges)[0]
    axes.stairs(counts, scale * edges, orientation="horizontal", fill=True, color=_VALUE, alpha=0.45, label="found")
    ends = np.append(edges, edges[-1] + width * np.arange(1, 4))
    kept, times = np.unique(np.round(sites), return_counts=True)
    below = np.array([np.sum(times * np.where(end < 0, 0.0, bdtr(np.floor(np.clip(end, 0, 1) * kept), kept, p))) for end in ends])
    axes.stairs(np.diff(below), scale * ends, orientation="horizontal", color=_CHANCE, lw=1.0, label="chance alone")
    axes.set_xlim(0.0, 1.08 * max(float(counts.max()), float(np.diff(below).max())))


def _legend(figure: Figure, panels: NDArray[Any]) -> None:
    entries: dict[str, Any] = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    legend = figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=len(entries), frameon=False, columnspacing=1.4, handlelength=1.6)
    for handle in legend.legend_handles:
        if hasattr(handle, "set_markersize"):
            handle.set_markersize(max(3.5, handle.get_markersize()))
            handle.set_alpha(None)
