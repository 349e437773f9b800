"""Figures: every column is drawn where it is and as what it is, and captions tell the numbers that belong to them."""

from dataclasses import replace

import numpy as np
import pytest
from classified import classification, posterior
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from contextem.classification import Classification
from contextem.closeups import PATCH, draw_classes, draw_disagreements, percent
from contextem.columns import CLASSES
from contextem.figures import round_length
from contextem.micrograph import Micrograph
from contextem.views import COLOURS, PALE, draw_entropy, draw_map, draw_overlay

ARRAYS = set(Classification.__dataclass_fields__) - {"sampling", "lattice_constant", "provenance"}
LABELS = np.array([0] * 40 + [1] * 10 + [2] * 45 + [3] * 4 + [4])
MICROGRAPH = Micrograph(np.random.default_rng(1).normal(size=(100, 120)).astype("f4"), 0.2)


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    return classification(
        rng.uniform(25, 75, (100, 2)), posterior(LABELS, rng.uniform(0.5, 0.99, 100).astype(np.float32))
    )


def special(result):
    """The same with columns of every special kind, some of two kinds at once."""
    number = np.arange(100)
    return replace(
        result,
        unknown=np.isin(number, (5, 40, 41, 99)),
        contaminated=np.isin(number, (6, 99)),
        complete=~np.isin(number, (0, 5, 42)),
        grain=np.where(np.isin(number, (7, 50)), -1, (result.positions[:, 1] > 50).astype(np.int32)),
    )


def points(line):
    """Row and column of what a line marks."""
    return np.column_stack([line.get_ydata(), line.get_xdata()])


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def scale_bars(axes):
    return [bar.txt_label.get_text() for bar in axes.artists if isinstance(bar, AnchoredSizeBar)]


# Overlay


def test_overlay_shows_image_columns_legend_and_scale_bar(result, tmp_path):
    figure = result.plot(MICROGRAPH, title="WSe2")
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.images[0].get_array(), MICROGRAPH.data)
    assert axes.get_title() == "WSe2"
    drawn = np.concatenate([points(line) for line in axes.lines])
    assert sorted(map(tuple, drawn)) == sorted(map(tuple, result.positions))
    assert texts(figure.legends[0]) == [f"{n.replace('_', ' ')}  {c}" for n, c in result.counts.items()]
    assert len(figure.legends) == 1
    assert scale_bars(axes) == ["0.2 nm"]  # a fifth of 24 Å is 0.48 nm
    figure.savefig(tmp_path / "a.png", dpi=50)


def test_every_class_has_its_colour_and_dots_are_the_host(result):
    lines = draw_overlay(result, MICROGRAPH).axes[0].lines
    for index, colour in enumerate(COLOURS):
        (line,) = (each for each in lines if np.array_equal(points(each), result.positions[LABELS == index]))
        face, edge = line.get_markerfacecolor(), line.get_markeredgecolor()
        assert to_hex(face if index in (0, 2) else edge) == colour.lower()
        assert (face == "none") == (index not in (0, 2))


def test_special_columns_have_marks_of_their_own(result):
    some = special(result)
    figure = draw_overlay(some, MICROGRAPH)
    lines = figure.axes[0].lines
    marks = {line.get_marker(): points(line) for line in lines[-3:]}
    np.testing.assert_array_equal(marks["x"], result.positions[[5, 40, 41]])  # 99 is contaminated, which says more
    np.testing.assert_array_equal(marks["o"], result.positions[[6, 99]])
    np.testing.assert_array_equal(marks["h"], result.positions[[7, 50]])  # around the mark of the class
    pale = np.concatenate([points(line) for line in lines if line.get_alpha() == PALE])
    np.testing.assert_array_equal(pale, result.positions[[0, 42]])  # 5 is unknown, and not counted anyway
    assert sum(len(points(line)) for line in lines[:-1]) == len(result)
    classes, marked = map(texts, figure.legends)
    assert classes[:2] == ["metal  38", "dopant  8"]
    assert marked == ["unknown  3", "contaminated  2", "on no lattice  2", "pale: patch leaves the image  2"]


def test_grains_are_outlined_where_there_are_several(result):
    (axes,) = draw_overlay(special(result), MICROGRAPH).axes
    assert [text.get_text() for text in axes.texts] == ["grain 0", "grain 1"]
    assert axes.texts[0].get_position()[0] < 50 < axes.texts[1].get_position()[0]
    outlines = [each for each in axes.collections if len(each.get_paths()[0].vertices)]
    assert len(outlines) == 2
    (axes,) = draw_overlay(result, MICROGRAPH).axes
    assert not axes.texts
    assert not axes.collections


@pytest.mark.parametrize("copies", [1, 300])
@pytest.mark.parametrize("size", [100, 600])
def test_the_legend_fits_under_the_picture_whatever_it_counts(result, copies, size):
    some = special(result)
    values = {name: np.concatenate([getattr(some, name)] * copies) for name in ARRAYS}
    figure = replace(some, **values).plot(Micrograph(np.eye(size, dtype="f4"), 0.2))
    canvas = FigureCanvasAgg(figure)
    image = figure.axes[0].get_window_extent(canvas.get_renderer())
    extents = [legend.get_window_extent(canvas.get_renderer()) for legend in figure.legends]
    for extent in extents:
        assert 0 <= extent.x0 < extent.x1 <= figure.bbox.x1
        assert 0 <= extent.y0 < extent.y1 <= image.y0
    assert extents[1].y1 <= extents[0].y0


def test_nothing_classified_is_drawn_too():
    empty = classification(np.zeros((0, 2)), np.zeros((0, 5)))
    for figure in (draw_overlay(empty, MICROGRAPH), draw_entropy(empty, MICROGRAPH), draw_classes(empty, MICROGRAPH)):
        FigureCanvasAgg(figure).draw()
    FigureCanvasAgg(draw_map(empty)).draw()


# Entropy and map


def test_entropies_are_drawn_with_the_highest_on_top(result):
    axes, bar = draw_entropy(result, MICROGRAPH, "WSe2").axes
    (dots,) = axes.collections
    order = np.argsort(result.entropy)
    np.testing.assert_allclose(dots.get_array(), result.entropy[order])
    np.testing.assert_array_equal(dots.get_offsets()[:, ::-1], result.positions[order])
    assert np.all(np.diff(dots.get_sizes()) >= 0)
    assert dots.get_clim() == (0.0, 1.0)
    assert bar.get_xlabel() == "entropy (bits)"
    assert axes.images[0].get_alpha() < 0.5
    assert scale_bars(axes) == ["0.2 nm"]


@pytest.mark.parametrize("draw", [draw_overlay, draw_entropy, draw_classes])
def test_another_micrograph_is_refused(result, draw):
    for other in (Micrograph(np.eye(64), 0.2), Micrograph(MICROGRAPH.data, 0.3)):
        with pytest.raises(ValueError, match=r"^micrograph: expected the one that was classified, of 0.2 Å/px and"):
            draw(result, other)
    by_lattice = replace(result, sampling=0.19, provenance={"calibration": {"stated_angstrom_per_px": 0.2}})
    for sampling in (0.2, 0.19):
        draw(by_lattice, Micrograph(MICROGRAPH.data, sampling))


def test_the_map_holds_every_column(result):
    some = special(result)
    (axes,) = draw_map(some).axes
    drawn = np.concatenate([points(line) for line in axes.lines])
    assert sorted(map(tuple, drawn)) == sorted(map(tuple, result.positions))
    assert len(points(axes.lines[-1])) == 5  # not counted


# Patches


def test_patches_run_from_the_surest_to_the_least_sure(result):
    figure = draw_classes(result, MICROGRAPH, patches=3)
    assert len(figure.axes) == 3 * 6 + 4 + 1
    certainty = result.probabilities.max(axis=1)
    of_metals = np.sort(certainty[LABELS == 0])[::-1]
    captions = [axes.get_xlabel() for axes in figure.axes[:6]]
    assert captions == [percent(float(each)) for each in (*of_metals[:3], *of_metals[-3:])]
    words = [text.get_text() for text in figure.texts]
    assert words[:4] == ["most confident", "least confident", "metal", "40 columns"]
    assert words[-2:] == ["double vacancy", "1 column"]


def test_patches_show_the_pixels_around_the_column_in_shared_grey_levels(result):
    figure = draw_classes(result, MICROGRAPH, patches=2)
    assert len({axes.images[0].get_clim() for axes in figure.axes}) == 1
    half = PATCH * result.lattice_constant / result.sampling
    chosen = np.flatnonzero(LABELS == 4)[0]
    axes = figure.axes[-1]
    row, column = result.positions[chosen]
    assert axes.get_xlim() == pytest.approx((column - half, column + half))
    assert axes.get_ylim() == pytest.approx((row + half, row - half))
    left, right, bottom, top = axes.images[0].get_extent()
    pixels = MICROGRAPH.data[int(top + 0.5) : int(bottom + 0.5), int(left + 0.5) : int(right + 0.5)]
    np.testing.assert_array_equal(axes.images[0].get_array(), pixels)
    assert left <= column - half
    assert right >= column + half
    np.testing.assert_array_equal(points(axes.lines[-1]), result.positions[[chosen]])
    assert to_hex(axes.lines[-1].get_markeredgecolor()) == COLOURS[4].lower()


def test_patches_are_of_columns_that_count_and_lie_inside(result):
    some = special(result)
    figure = draw_classes(some, MICROGRAPH, patches=40)
    centres = np.array([points(axes.lines[-1])[0] for axes in figure.axes])
    inside = some.complete & some.counted
    assert sorted(map(tuple, centres)) == sorted(map(tuple, result.positions[inside]))
    with pytest.raises(ValueError, match="patches: expected at least 1, got 0"):
        draw_classes(result, MICROGRAPH, patches=0)


# Disagreements


def grid(n=30):
    """Columns 8 px apart, half of them metal, whose bond is 9.58 px."""
    positions = 25.0 + 8.0 * np.stack(np.divmod(np.arange(n), 6), axis=1)
    labels = np.arange(n) % 2 * 2
    certainty = np.linspace(0.85, 0.999, n).astype(np.float32)
    return classification(positions, posterior(labels, certainty)), labels


def test_disagreements_are_those_of_columns_that_are_sure():
    result, labels = grid()
    given = labels.copy()
    given[[0, 20, 29]] = 3  # the classifier is not sure of 0
    offset = np.random.default_rng(2).uniform(-1, 1, (30, 2))
    figure = draw_disagreements(result, MICROGRAPH, result.positions + offset, given, least=0.9)
    centres = [points(axes.lines[-1])[0] for axes in figure.axes]
    assert sorted(map(tuple, centres)) == sorted(map(tuple, result.positions[[20, 29]]))
    captions = {axes.get_xlabel() for axes in figure.axes}
    assert captions == {"single vacancy\n→ metal\n95.3 %", "single vacancy\n→ X2\n99.9 %"}
    sure = int((result.probabilities.max(axis=1) >= 0.9).sum())
    assert figure.texts[0].get_text() == f"label → class found: 2 of {sure} columns that are at least 90 % sure"


def test_the_surest_disagreements_are_drawn():
    result, labels = grid()
    figure = draw_disagreements(result, MICROGRAPH, result.positions, (labels + 1) % 5, most=4)
    centres = sorted(tuple(points(axes.lines[-1])[0]) for axes in figure.axes)
    assert centres == sorted(map(tuple, result.positions[-4:]))
    assert figure.texts[0].get_text().endswith("; the surest 4")


def test_labels_far_from_any_column_and_columns_that_do_not_count_are_no_disagreements():
    result, labels = grid()
    apart = replace(result, unknown=np.arange(30) == 28, complete=np.arange(30) != 27)
    given = labels.copy()
    given[[27, 28]] = 1
    assert not draw_disagreements(apart, MICROGRAPH, result.positions, given).axes
    assert not draw_disagreements(result, MICROGRAPH, result.positions + 3.5, 3 + 0 * labels).axes
    assert not draw_disagreements(result, MICROGRAPH, np.zeros((0, 2)), np.zeros(0, int)).axes
    empty = classification(np.zeros((0, 2)), np.zeros((0, 5)))
    assert not draw_disagreements(empty, MICROGRAPH, result.positions, labels).axes


@pytest.mark.parametrize(
    ("positions", "labels", "words"),
    [
        (np.zeros((3, 3)), np.zeros(3, int), r"positions: expected shape \(M, 2\), row and column, got \(3, 3\)"),
        (np.zeros((3, 2)), np.zeros(2, int), r"labels: expected shape \(3,\), one for each position, got \(2,\)"),
        (np.zeros((1, 2)), np.array([5]), "labels: expected indices 0 to 4"),
        (np.zeros((1, 2)), np.array([0.5]), "labels: expected indices 0 to 4"),
    ],
)
def test_labels_that_do_not_fit_are_named(positions, labels, words):
    with pytest.raises(ValueError, match=words):
        draw_disagreements(grid()[0], MICROGRAPH, positions, labels)


# Words and lengths


def test_probabilities_never_become_certainties():
    assert [percent(p) for p in (0.5, 0.99949, 0.9995, 1.0)] == ["50.0 %", "99.9 %", "> 99.9 %", "> 99.9 %"]


@given(st.floats(1e-6, 1e6))
def test_scale_bars_have_the_greatest_round_length_that_fits(longest):
    rounds = [digit * 10.0**power for power in range(-8, 8) for digit in (1, 2, 5)]
    below = [each for each in rounds if each <= longest * (1 + 1e-9)]
    assert round_length(longest) == pytest.approx(below[-1])


def test_class_names_fit_the_order_of_colours():
    assert len(COLOURS) == len(CLASSES)
