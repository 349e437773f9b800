"""How figures are drawn: as wide as a column of a journal, in colours and dashes that everyone can tell apart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.0 / 2.54
"""Of a figure, inches: one column of a journal."""
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#999933")
"""Colours of the classifiers, in their order (Okabe and Ito)."""
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1)))
GREY_LEVELS = (0.5, 99.7)
"""Percentiles of the pixels of a micrograph that become black and white."""
STYLE: Any = {
    "font.size": 7.5,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
}


def style() -> Any:
    """Return a context in which figures are drawn and saved for a column of a journal."""
    import matplotlib as mpl

    return mpl.rc_context(STYLE)


def single(aspect: float) -> tuple[Figure, Any]:
    """Return a figure with one pair of axes, `aspect` times as high as wide."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, aspect * WIDTH), layout="constrained")
    return figure, figure.add_subplot()


def finished(figure: Figure) -> Figure:
    """Return a figure without what is not data on its axes."""
    for axes in figure.axes:
        plain(axes)
    return figure


def plain(axes: Axes) -> None:
    """Leave two spines and a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.5)


def round_length(longest: float) -> float:
    """Return the greatest of 1, 2 and 5 times a power of ten that is not above `longest`: that of a scale bar.

    Examples
    --------
    >>> round_length(4.1), round_length(0.3)
    (2.0, 0.2)
    """
    power = 10.0 ** math.floor(math.log10(longest))
    return max(float(f"{digit * power:g}") for digit in (1, 2, 5) if digit * power <= longest * (1 + 1e-9))
