"""A classification as a whole: the micrograph with the classes of its columns, with their entropies, and a map.

All figures are made without pyplot, hence without a window; save them with ``figure.savefig(path, dpi=200)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from contextem.columns import CLASSES
from contextem.figures import GREY_LEVELS, round_length

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from contextem.classification import Classification
    from contextem.micrograph import Micrograph

# Safe for colour-blind readers (Okabe and Ito), and told apart by marker as well.
COLOURS = ("#56B4E9", "#D55E00", "#009E73", "#F0E442", "#CC79A7")
MARKERS = ("o", "D", "o", "^", "s")
SIDE = 7.2
"""Least width of a drawn micrograph, inches; dense ones get room for their columns, up to twice as much."""
HOSTS = ("metal", "X2")
"""Classes of a perfect crystal, drawn as dots; the others are drawn as outlines, around what they mark."""
PALE = 0.45
"""Opacity of a column whose patch leaves the image."""


class _Canvas(NamedTuple):
    """A micrograph drawn to the edge of a figure.

    Attributes
    ----------
    figure, axes
        The axes have the pixels of the micrograph.
    bond : float
        Distance of neighbouring columns, points of the figure.
    scale : float
        Width of the image over `SIDE`, and with it the size of letters: they stay legible when the figure is shrunk.
    """

    figure: Figure
    axes: Axes
    bond: float
    scale: float


def draw_overlay(classification: Classification, micrograph: Micrograph, title: str | None = None) -> Figure:
    """Draw the micrograph with its columns marked by class, a scale bar and a legend with counts.

    Unknown columns are crossed out, contaminated ones are grey rings, those whose patch leaves the image are pale.
    Where there is more than one grain, each has an outline and its number, and columns on no lattice have a ring.

    Parameters
    ----------
    classification : Classification
        N columns.
    micrograph : Micrograph
        The image they were found in.
    title : str, optional
        A line above the image.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the columns were not found in this micrograph.

    Examples
    --------
    >>> from contextem.examples import demo_micrograph
    >>> from contextem.pipeline import classify
    >>> micrograph, context, *_ = demo_micrograph()
    >>> figure = draw_overlay(classify(micrograph, context), micrograph, "Cr-doped WSe₂")
    >>> [text.get_text() for text in figure.legends[0].get_texts()][0]
    'metal  400'
    """
    off = off_lattice(classification)
    hidden, unknown = classification.contaminated, classification.unknown & ~classification.contaminated
    pale = ~classification.complete & classification.counted
    marks: list[tuple[str, NDArray[np.bool_], dict[str, Any]]] = [
        ("unknown", unknown, {"marker": "x", "mec": "white", "mew": 1.2}),
        ("contaminated", hidden, {"marker": "o", "mfc": "none", "mec": "0.65", "mew": 1.0}),
        ("on no lattice", off, {"marker": "h", "mfc": "none", "mec": "white", "mew": 0.8}),
    ]
    second_row = pale.any() or any(chosen.any() for _, chosen, _ in marks)
    canvas = _canvas(classification, micrograph, title, bottom=0.68 if second_row else 0.42)
    rows: list[list[Line2D]] = [[], []]
    for name, colour, marker in zip(CLASSES, COLOURS, MARKERS, strict=True):
        chosen = (classification.labels == CLASSES.index(name)) & classification.counted
        style = _style(name, colour, marker, canvas.bond)
        draw_points(canvas.axes, classification.positions[chosen & ~pale], **style)
        draw_points(
            canvas.axes, classification.positions[chosen & pale], **style | {"alpha": PALE, "path_effects": None}
        )
        key = _style(name, colour, marker, 14.0 * canvas.scale)
        rows[0].append(_key(name.replace("_", " "), int(chosen.sum()), **key))
    for name, chosen, mark in marks:
        if chosen.any():
            size = (0.85 if chosen is off else 0.5) * canvas.bond
            seen = {"ms": max(size, 4.0), "path_effects": _halo(2 * mark["mew"]), "zorder": 4}
            draw_points(canvas.axes, classification.positions[chosen], **mark | seen)
            rows[1].append(_key(name, int(chosen.sum()), ms=6.5 * canvas.scale, **mark | {"mec": "0.4"}))
    if pale.any():
        key = {"marker": "o", "ms": 6.0 * canvas.scale, "mew": 0.0, "color": "0.25", "alpha": PALE}
        rows[1].append(_key("pale: patch leaves the image", int(pale.sum()), **key))
    _draw_grains(canvas.axes, classification, micrograph.shape)
    for row, height in zip(rows, (0.36, 0.1) if second_row else (0.1,), strict=False):
        _legend(canvas, row, height * canvas.scale)
    return canvas.figure


def draw_entropy(classification: Classification, micrograph: Micrograph, title: str | None = None) -> Figure:
    """Draw how undecided the classification of every column is: entropy over the dimmed micrograph.

    Parameters
    ----------
    classification, micrograph, title
        As for `draw_overlay`.

    Returns
    -------
    matplotlib.figure.Figure
        Columns are coloured by the entropy of their posterior, 0 to 1 bit and above: 1 bit is as good as a coin tossed
        between two classes.  The higher it is, the larger the dot.

    Examples
    --------
    >>> from contextem.examples import demo_micrograph
    >>> from contextem.pipeline import classify
    >>> micrograph, context, *_ = demo_micrograph()
    >>> image, scale = draw_entropy(classify(micrograph, context), micrograph).axes
    >>> scale.get_xlabel()
    'entropy (bits)'
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    canvas = _canvas(classification, micrograph, title, bottom=0.62, opacity=0.45)
    order = np.argsort(classification.entropy, kind="stable")  # the undecided lie on top
    entropy, positions = classification.entropy[order], classification.positions[order]
    dots = canvas.axes.scatter(
        positions[:, 1],
        positions[:, 0],
        s=(_dot(canvas.bond) * (0.8 + 0.8 * np.minimum(entropy, 1.0))) ** 2,
        c=entropy,
        cmap=ListedColormap(colormaps["plasma"](np.linspace(0.2, 1.0, 256))),  # its darkest are lost on the image
        vmin=0.0,
        vmax=1.0,
        linewidths=0.0,
    )
    width, height = canvas.figure.get_size_inches()
    wide, high, bottom = (canvas.scale * inches for inches in (3.2, 0.1, 0.42))
    box = canvas.figure.add_axes((0.5 - wide / 2 / width, bottom / height, wide / width, high / height))
    bar = canvas.figure.colorbar(dots, cax=box, orientation="horizontal", extend="max", ticks=(0, 0.25, 0.5, 0.75, 1))
    bar.outline.set_visible(False)
    box.tick_params(labelsize=8 * canvas.scale, length=2, pad=1.5)
    box.set_xlabel("entropy (bits)", fontsize=8.5 * canvas.scale, labelpad=1.5)
    return canvas.figure


def draw_map(classification: Classification) -> Figure:
    """Draw where the columns of each class are, without the micrograph: the host as faint dots, the defects on them.

    Parameters
    ----------
    classification : Classification
        N columns.

    Returns
    -------
    matplotlib.figure.Figure
        Small, whatever N is.

    Examples
    --------
    >>> from contextem.examples import demo_micrograph
    >>> from contextem.pipeline import classify
    >>> micrograph, context, *_ = demo_micrograph()
    >>> len(draw_map(classify(micrograph, context)).axes)
    1
    """
    from matplotlib.figure import Figure

    lowest = classification.positions.min(axis=0, initial=np.inf) if len(classification) else np.zeros(2)
    height, width = np.maximum(np.ptp(classification.positions, axis=0) if len(classification) else 1.0, np.ones(2))
    side, border = 3.4 / max(height, width), 0.05  # inches/px, inches
    figure = Figure(figsize=(side * width + 2 * border, side * height + 2 * border))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xticks=[], yticks=[], facecolor="0.1")
    axes.spines[:].set_visible(False)
    edge = border / side
    axes.set(xlim=(lowest[1] - edge, lowest[1] + width + edge), ylim=(lowest[0] + height + edge, lowest[0] - edge))
    bond = 72 * side * bond_length(classification)
    for index, (name, colour, marker) in enumerate(zip(CLASSES, COLOURS, MARKERS, strict=True)):
        chosen = classification.positions[classification.counted & (classification.labels == index)]
        if name in HOSTS:
            draw_points(axes, chosen, marker="o", ms=float(np.clip(0.4 * bond, 0.5, 4.0)), mfc=colour, mew=0, alpha=0.4)
        else:
            draw_points(
                axes, chosen, marker=marker, ms=float(np.clip(0.8 * bond, 2.6, 7.0)), mfc=colour, mew=0, zorder=3
            )
    left_out = {"marker": "x", "ms": float(np.clip(0.7 * bond, 2.2, 5.0)), "mec": "white", "mew": 0.7}
    draw_points(axes, classification.positions[~classification.counted], **left_out, zorder=3)
    return figure


def bond_length(classification: Classification) -> float:
    """Distance of neighbouring columns, px."""
    return float(classification.lattice_constant / np.sqrt(3) / classification.sampling)


def off_lattice(classification: Classification) -> NDArray[np.bool_]:
    """Return which columns stand on no lattice, (N,) bool, where it is known of others that they stand on one."""
    return (classification.grain < 0) & (classification.grain >= 0).any()


def check_micrograph(classification: Classification, micrograph: Micrograph) -> None:
    """Raise ValueError unless the columns may have been found in the micrograph.

    Its sampling may be the one that was stated or the one by the lattice.
    """
    outside = (classification.positions < -0.5) | (classification.positions > np.array(micrograph.shape) - 0.5)
    known = (classification.stated_sampling, classification.sampling)
    if outside.any() or not np.isclose(micrograph.sampling, known, rtol=1e-6).any():
        height, width = micrograph.shape
        raise ValueError(
            f"micrograph: expected the one that was classified, of {known[0]:g} Å/px and with all columns inside, got "
            f"one of {micrograph.sampling:g} Å/px and {height} x {width} px with {outside.any(axis=1).sum()} outside"
        )


def draw_points(axes: Axes, positions: NDArray[np.float64], **style: Any) -> None:
    """Mark positions (row, column), px, (N, 2), on axes that have the pixels of an image."""
    axes.plot(positions[:, 1], positions[:, 0], linestyle="none", **style)


def draw_scale_bar(axes: Axes, sampling: float, longest: float, *, fontsize: float) -> None:
    """Draw a bar of a round length, at most `longest` px, on a dark ground."""
    from matplotlib.font_manager import FontProperties
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    length = round_length(longest * sampling / 10)  # nm
    bar = AnchoredSizeBar(
        axes.transData,
        10 * length / sampling,
        f"{length:g} nm",
        "lower left",
        pad=0.4,
        borderpad=0.6,
        sep=3,
        color="white",
        size_vertical=0.035 * longest,
        label_top=True,
        fontproperties=FontProperties(size=fontsize),
    )
    bar.patch.set(facecolor="black", alpha=0.65, linewidth=0)
    bar.set_zorder(6)
    axes.add_artist(bar)


def _canvas(
    classification: Classification, micrograph: Micrograph, title: str | None, *, bottom: float, opacity: float = 1.0
) -> _Canvas:
    """Draw the micrograph with `bottom` inches of room under it, times the scale."""
    from matplotlib.figure import Figure

    check_micrograph(classification, micrograph)
    height, width = micrograph.shape
    bond = bond_length(classification)
    scale = float(np.clip(0.11 * width / bond / SIDE, 1.0, 2.0))
    side, border, top = scale * SIDE, 0.08, (0.35 * scale if title else 0.08)
    total = (side + 2 * border, side * height / width + top + scale * bottom)
    figure = Figure(figsize=total, facecolor="white")
    box = (border / total[0], scale * bottom / total[1], side / total[0], side * height / width / total[1])
    axes = figure.add_axes(box, facecolor="black")
    axes.spines[:].set_visible(False)
    low, high = np.percentile(micrograph.data, GREY_LEVELS)
    axes.imshow(micrograph.data, cmap="gray", vmin=low, vmax=high, interpolation="nearest", alpha=opacity, zorder=1)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    if title:
        axes.set_title(title, fontsize=11 * scale, pad=6 * scale)
    draw_scale_bar(axes, classification.sampling, 0.2 * width, fontsize=9 * scale)
    return _Canvas(figure, axes, 72 * side / width * bond, scale)


def _dot(bond: float) -> float:
    """Diameter of the dot on a column of the host, points: it touches neither neighbour nor leaves the column."""
    return float(np.clip(0.4 * bond, 1.2, 9.0))


def _style(name: str, colour: str, marker: str, bond: float) -> dict[str, Any]:
    """Marker of a class: dots for the host, outlines on a dark ground for what is to be found in it."""
    if name in HOSTS:
        return {"marker": marker, "ms": _dot(bond), "mfc": colour, "mew": 0.0, "alpha": 0.85, "zorder": 2}
    edge = float(np.clip(0.07 * bond, 1.0, 1.6))
    outline = {"mfc": "none", "mec": colour, "mew": edge, "path_effects": _halo(edge + 1.2)}
    return {"marker": marker, "ms": max(0.6 * bond, 6.2), "alpha": 1.0, "zorder": 3} | outline


def _halo(width: float) -> list[Any]:
    """Black ground, `width` points wide, on which a line is seen in the brightest parts of an image."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground="black")]


def _key(name: str, count: int, **style: Any) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="none", label=f"{name}  {count:,}", **style)


def _legend(canvas: _Canvas, row: Sequence[Line2D], bottom: float) -> None:
    """Write one row of the legend, `bottom` inches above the edge, in letters small enough for it."""
    # letters are about six tenths of the font size wide, a marker and the gap to the next entry four times it
    wide = 0.58 * sum(len(str(key.get_label())) for key in row) + 3.8 * len(row)
    legend = canvas.figure.legend(
        handles=row,
        loc="lower center",
        ncols=len(row),
        frameon=False,
        fontsize=canvas.scale * min(9.0, 72 * SIDE / wide),
        handletextpad=0.2,
        columnspacing=1.4,
        borderpad=0.0,
        bbox_to_anchor=(0.5, bottom / canvas.figure.get_size_inches()[1]),
    )
    legend.set_in_layout(False)


def _draw_grains(axes: Axes, classification: Classification, shape: tuple[int, int]) -> None:
    """Draw an outline around each grain, and its number, where there are several."""
    grains = np.unique(classification.grain[classification.grain >= 0])
    if len(grains) < 2:
        return
    bond = bond_length(classification)
    rows, columns = (np.arange(0, length + bond / 2, bond / 2) for length in shape)
    raster = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    distance, nearest = cKDTree(classification.positions).query(raster)
    owner = np.where(distance < 2 * bond, classification.grain[nearest], -1)
    for grain in grains:
        inside = gaussian_filter((owner == grain).astype(np.float32), 1.5)
        axes.contour(columns, rows, inside, levels=[0.5], colors="white", linewidths=1.2).set_path_effects(_halo(2.6))
        row, column = np.median(classification.positions[classification.grain == grain], axis=0)
        style: dict[str, Any] = {
            "color": "white",
            "fontsize": 11,
            "ha": "center",
            "zorder": 5,
            "path_effects": _halo(2.6),
        }
        axes.text(column, row, f"grain {grain}", **style)
