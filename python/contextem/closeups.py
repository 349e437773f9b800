"""A classification from near by: patches of each class, and those about which a label disagrees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from contextem.columns import CLASSES
from contextem.figures import GREY_LEVELS
from contextem.views import COLOURS, bond_length, check_micrograph, draw_points, draw_scale_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from contextem.classification import Classification
    from contextem.micrograph import Micrograph

ACROSS = 9
"""Patches in a row of `draw_disagreements`."""
CAPTION: Any = {"fontsize": 7.5, "labelpad": 2.5, "linespacing": 1.2}
PATCH = 1.0
"""Half the side of a drawn patch, in lattice constants: what the classifier measures lies inside."""


def draw_classes(classification: Classification, micrograph: Micrograph, patches: int = 5) -> Figure:
    """Draw patches of every class that is present: the surest of its columns, and the least sure.

    Parameters
    ----------
    classification, micrograph
        As for `contextem.views.draw_overlay`.
    patches : int
        Largest number of the surest, and of the least sure.

    Returns
    -------
    matplotlib.figure.Figure
        One row a class, probability falling from left to right, all with the grey levels of the overlay.  Only
        columns that are counted and whose patch lies inside the image are drawn.

    Raises
    ------
    ValueError
        If `patches` is below 1, or the columns were not found in this micrograph.

    Examples
    --------
    >>> from contextem.examples import demo_micrograph
    >>> from contextem.pipeline import classify
    >>> micrograph, context, *_ = demo_micrograph()
    >>> figure = draw_classes(classify(micrograph, context), micrograph, patches=3)
    >>> len(figure.axes)  # of five classes
    30
    """
    if patches < 1:
        raise ValueError(f"patches: expected at least 1, got {patches}")
    check_micrograph(classification, micrograph)
    labels, certainty = classification.labels, classification.probabilities.max(axis=1, initial=0.0)
    shown = classification.complete & classification.counted
    rows = []
    for index in range(len(CLASSES)):
        (chosen,) = np.nonzero(shown & (labels == index))
        chosen = chosen[np.argsort(-certainty[chosen], kind="stable")]
        if len(chosen):
            rows.append((index, chosen[:patches], chosen[patches:][-patches:]))
    sheet = _Sheet(len(rows), 2 * patches, left=1.2, split=patches)
    sheet.write(sheet.left(0), 0.06, "most confident")
    sheet.write(sheet.left(patches), 0.06, "least confident")
    for i, (index, *parts) in enumerate(rows):
        count = classification.counts[CLASSES[index]]
        sheet.write(0.06, sheet.top(i) + 0.3, CLASSES[index].replace("_", " "), weight="bold", color="0.1")
        sheet.write(0.06, sheet.top(i) + 0.5, f"{count:,} columns" if count > 1 else "1 column", color="0.35")
        for start, part in zip((0, patches), parts, strict=True):
            for j, column in enumerate(part, start=start):
                axes = sheet.patch(i, j)
                _draw_patch(axes, classification, micrograph, int(column), scale_bar=i == j == 0)
                axes.set_xlabel(percent(float(certainty[column])), **CAPTION)
    return sheet.figure


def draw_disagreements(
    classification: Classification,
    micrograph: Micrograph,
    positions: ArrayLike,
    labels: ArrayLike,
    *,
    least: float = 0.9,
    most: int = 24,
) -> Figure:
    """Draw patches of columns that the classifier is sure of and that somebody has labelled differently.

    Parameters
    ----------
    classification, micrograph
        As for `contextem.views.draw_overlay`.
    positions : array_like, shape (M, 2)
        Labelled positions (row, column), px.  Each belongs to the nearest column within a third of the distance of
        neighbouring columns.
    labels : array_like of int, shape (M,)
        Indices into `contextem.columns.CLASSES`.
    least : float
        Probability from which on the classifier counts as sure.
    most : int
        Largest number of patches; the surest are drawn.

    Returns
    -------
    matplotlib.figure.Figure
        Under each patch the label, the class found instead, and its probability.

    Raises
    ------
    ValueError
        If a shape or a label does not fit, or the columns were not found in this micrograph.

    Examples
    --------
    >>> from contextem.examples import demo_micrograph
    >>> from contextem.pipeline import classify
    >>> micrograph, context, positions, labels = demo_micrograph()
    >>> labels[400:403] = 2  # call some metals X2
    >>> figure = draw_disagreements(classify(micrograph, context), micrograph, positions, labels)
    """
    check_micrograph(classification, micrograph)
    where, given = np.asarray(positions, dtype=np.float64), np.asarray(labels)
    if where.ndim != 2 or where.shape[1] != 2:
        raise ValueError(f"positions: expected shape (M, 2), row and column, got {where.shape}")
    if given.shape != (len(where),):
        raise ValueError(f"labels: expected shape ({len(where)},), one for each position, got {given.shape}")
    if given.dtype.kind not in "iu" or not np.isin(given, range(len(CLASSES))).all():
        raise ValueError(f"labels: expected indices 0 to {len(CLASSES) - 1} into contextem.columns.CLASSES")
    if len(classification) and len(where):
        distance, label = cKDTree(where).query(classification.positions)
    else:
        distance, label = np.full(len(classification), np.inf), np.zeros(len(classification), np.int64)
    near = distance < bond_length(classification) / 3
    certainty = classification.probabilities.max(axis=1, initial=0.0)
    (judged,) = np.nonzero(near & classification.complete & classification.counted & (certainty >= least))
    chosen = judged[given[label[judged]] != classification.labels[judged]]
    drawn = chosen[np.argsort(-certainty[chosen], kind="stable")][:most]
    drawn = drawn[np.lexsort((classification.labels[drawn], given[label[drawn]]))]
    sheet = _Sheet(-(-len(drawn) // ACROSS), ACROSS, under=0.55)
    text = f"label → class found: {len(chosen):,} of {len(judged):,} columns that are at least {100 * least:g} % sure"
    sheet.write(sheet.left(0), 0.06, text + (f"; the surest {len(drawn)}" if len(drawn) < len(chosen) else ""))
    for n, column in enumerate(drawn):
        axes = sheet.patch(*divmod(n, ACROSS))
        _draw_patch(axes, classification, micrograph, int(column), scale_bar=n == 0)
        old, new = (CLASSES[k].replace("_", " ") for k in (given[label[column]], classification.labels[column]))
        axes.set_xlabel(f"{old}\n→ {new}\n{percent(float(certainty[column]))}", **CAPTION)
    return sheet.figure


def percent(share: float) -> str:
    """Return a probability in per cent with one decimal; one that would be 100.0 as ``> 99.9 %``.

    Examples
    --------
    >>> percent(0.97531), percent(0.99999)
    ('97.5 %', '> 99.9 %')
    """
    return f"{100 * share:.1f} %" if share < 0.9995 else "> 99.9 %"


def _draw_patch(
    axes: Axes, classification: Classification, micrograph: Micrograph, index: int, *, scale_bar: bool
) -> None:
    """Draw the pixels around a column, ringed in the colour of its class, with its neighbours as small dots."""
    bond = bond_length(classification)
    half = np.sqrt(3) * bond * PATCH
    row, column = classification.positions[index]
    top, left = max(0, int(row - half)), max(0, int(column - half))
    pixels = micrograph.data[top : int(row + half) + 2, left : int(column + half) + 2]
    low, high = np.percentile(micrograph.data, GREY_LEVELS)
    extent = (left - 0.5, left + pixels.shape[1] - 0.5, top + pixels.shape[0] - 0.5, top - 0.5)
    axes.imshow(pixels, cmap="gray", vmin=low, vmax=high, interpolation="nearest", extent=extent)
    axes.set(xlim=(column - half, column + half), ylim=(row + half, row - half))
    around = np.abs(classification.positions - (row, column)).max(axis=1) < half - 0.3 * bond
    around[index] = False
    for label, colour in enumerate(COLOURS):
        chosen = around & (classification.labels == label)
        draw_points(axes, classification.positions[chosen], marker="o", ms=2.8, mfc=colour, mew=0.0, alpha=0.9)
    ring = {"ms": 20.0, "mfc": "none", "mec": COLOURS[int(classification.labels[index])], "mew": 1.3}
    draw_points(axes, classification.positions[[index]], marker="o", **ring)
    if scale_bar:
        draw_scale_bar(axes, classification.sampling, 1.6 * half, fontsize=6)


class _Sheet:
    """Patches in rows, laid out in inches.

    Parameters
    ----------
    down, across : int
        Rows, and patches in each.
    left : float
        Room left of the patches, inches.
    under : float
        Room under each row, inches.
    split : int, optional
        Patches in a row before a gap.
    """

    side, gap, head = 0.86, 0.07, 0.28

    def __init__(
        self, down: int, across: int, *, left: float = 0.06, under: float = 0.26, split: int | None = None
    ) -> None:
        from matplotlib.figure import Figure

        self._margin, self._under, self._split = left, under, across if split is None else split
        self._size = (self.left(across) - self.gap + 0.06, self.top(down) + 0.02)
        self.figure = Figure(figsize=self._size, facecolor="white")

    def left(self, j: int) -> float:
        """Left edge of the j-th patch, inches."""
        return self._margin + j * (self.side + self.gap) + (0.18 if j >= self._split else 0.0)

    def top(self, i: int) -> float:
        """Upper edge of the i-th row, inches from above."""
        return self.head + i * (self.side + self._under)

    def patch(self, i: int, j: int) -> Axes:
        """Add axes for a patch."""
        width, height = self._size
        box = (self.left(j) / width, 1 - (self.top(i) + self.side) / height, self.side / width, self.side / height)
        axes = self.figure.add_axes(box, xticks=[], yticks=[], facecolor="black")
        axes.spines[:].set_visible(False)
        return axes

    def write(self, left: float, top: float, text: str, **given: Any) -> None:
        """Write a line."""
        width, height = self._size
        style: dict[str, Any] = {"va": "top", "fontsize": 8.5, "color": "0.25", **given}
        self.figure.text(left / width, 1 - top / height, text, **style)
