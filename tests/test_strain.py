"""Strain: analytic fields, steps, noise and its errors, displaced and missing columns, scan drift, figure."""

from dataclasses import replace

import numpy as np
import pytest
from classified import classification, honeycomb, posterior
from hypothesis import given
from hypothesis import strategies as st

import contextem as ctm
from contextem.micrograph import Detector
from contextem.simulate.dataset import simulate_micrograph
from contextem.strain import COMPONENTS, strain_map

A = 16.6  # px at 0.2 Å/px: the lattice constant 3.32 Å of `classification`


def moved(cells, displacement, turn=8.0, **values):
    """A grain whose columns at (x, y), px, are displaced by displacement(x, y) = (ux, uy)."""
    positions, labels, _ = honeycomb(cells, A, turn)
    x, y = positions[:, 1], positions[:, 0]
    ux, uy = displacement(x, y)
    return classification(np.column_stack([y + uy, x + ux]), posterior(labels), **values), x, y


def inside(cells):
    """Which columns are four cells and more from the border of a grain."""
    indices = honeycomb(cells)[2]
    return ((indices >= 4) & (indices < cells - 4)).all(axis=1)


def test_an_ideal_lattice_has_no_strain():
    result, _, _ = moved(12, lambda x, y: (0 * x, 0 * y))
    found = strain_map(result)
    known = np.isfinite(found.values).all(axis=1)
    assert known.mean() > 0.9
    np.testing.assert_allclose(found.values[known], 0.0, atol=1e-9)


WAVE = 60 * A
Q = 2 * np.pi / WAVE


@pytest.mark.parametrize("smoothing", [1, 13])
@pytest.mark.parametrize("turn", [0.0, 17.0])
def test_a_smooth_field_has_its_analytic_strain(smoothing, turn):
    """Up to the mean, which is that of the grain itself, and to what changes within a few columns."""
    amplitude = 0.012 / Q

    def displacement(x, y):
        return amplitude * np.sin(Q * x) * np.cos(0.6 * Q * y), 0.5 * amplitude * np.cos(0.7 * Q * x + 1) * np.sin(
            Q * y
        )

    result, x, y = moved(50, displacement, turn)
    duxdx = 0.012 * np.cos(Q * x) * np.cos(0.6 * Q * y)
    duxdy = -0.6 * 0.012 * np.sin(Q * x) * np.sin(0.6 * Q * y)
    duydx = -0.7 * 0.006 * np.sin(0.7 * Q * x + 1) * np.sin(Q * y)
    duydy = 0.006 * np.cos(0.7 * Q * x + 1) * np.cos(Q * y)
    expected = np.column_stack([duxdx, duydy, (duxdy + duydx) / 2, (duydx - duxdy) / 2])
    found = strain_map(result, smoothing=smoothing)
    known = np.isfinite(found.values).all(axis=1) & inside(50)
    offset = np.median(found.values[known] - expected[known], axis=0)
    np.testing.assert_allclose(found.values[known] - offset, expected[known], atol=6e-4)
    assert np.ptp(expected[known], axis=0).min() > 5e-3
    # the reference is the mean lattice of the grain
    np.testing.assert_allclose(np.nanmean(found.values, axis=0), 0.0, atol=1e-3)


@given(st.floats(-0.02, 0.02), st.floats(-0.02, 0.02), st.floats(-0.02, 0.02), st.floats(-0.03, 0.03))
def test_a_step_of_strain_is_given_back(exx, eyy, exy, turn):
    """Below y = 0 the lattice is affine relative to that above, F = R (1 + e)."""
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    stretch = np.array([[1 + exx, exy], [exy, 1 + eyy]])
    positions, labels, _ = honeycomb(14, A, 8.0)
    other = (rotation @ stretch @ positions[:, ::-1].T).T[:, ::-1] + [0.0, 40 * A]
    both = classification(
        np.concatenate([positions, other]),
        posterior(np.tile(labels, 2)),
        sublattice=np.tile(labels // 2, 2).astype(np.int8),
    )
    found = strain_map(both, smoothing=1)

    def gradients(values):
        e = np.nanmedian(values, axis=0)
        turned = np.array([[np.cos(e[3]), -np.sin(e[3])], [np.sin(e[3]), np.cos(e[3])]])
        return turned @ np.array([[1 + e[0], e[2]], [e[2], 1 + e[1]]])

    one, two = gradients(found.values[: len(labels)]), gradients(found.values[len(labels) :])
    np.testing.assert_allclose(two @ np.linalg.inv(one), rotation @ stretch, atol=1e-6)


def test_signs_are_those_of_the_axes():
    """x to the right, y downwards: longer to the right below, turned clockwise on the right."""
    result, _, y = moved(30, lambda x, y: (0.01 * x * np.clip(y / A / 20, -1, 1), 0 * y), 0.0)
    found = strain_map(result)
    lower = y > np.quantile(y, 0.8)
    assert np.nanmean(found.exx[lower]) > np.nanmean(found.exx[~lower])
    result, x, _ = moved(30, lambda x, y: (0 * x, 0.0005 * np.clip(x, 0, None) ** 2 / A), 0.0)
    found = strain_map(result)
    right = x > np.quantile(x, 0.8)
    assert np.nanmean(found.rotation[right]) > np.nanmean(found.rotation[~right])
    assert np.nanmean(found.exy[right]) > np.nanmean(found.exy[~right])


@pytest.mark.parametrize("smoothing", [1, 4, 13, 37])
def test_errors_are_those_of_the_noise(smoothing):
    noise = np.random.default_rng(smoothing).normal(scale=0.2, size=(2, 2 * 40**2))
    result, _, _ = moved(40, lambda x, y: noise)
    found = strain_map(result, smoothing=smoothing)
    known = np.isfinite(found.values).all(axis=1) & inside(40)
    scores = found.values[known] / found.errors[known]
    np.testing.assert_allclose(scores.std(axis=0), 1.0, atol=0.2)
    assert abs(scores.mean(axis=0)).max() < 0.2


def test_smoothing_makes_errors_smaller():
    noise = np.random.default_rng(0).normal(scale=0.2, size=(2, 2 * 20**2))
    result, _, _ = moved(20, lambda x, y: noise)
    errors = [np.nanmedian(strain_map(result, smoothing=n).errors, axis=0) for n in (1, 4, 13, 37)]
    assert (np.diff(errors, axis=0) < 0).all()
    np.testing.assert_allclose(errors[0][:2], 0.2 / (np.sqrt(3) * A), rtol=0.25)  # of a hexagon: sigma / (sqrt(3) a)


def test_a_displaced_column_does_not_bend_the_lattice_around():
    noise = np.random.default_rng(3).normal(scale=0.02, size=(2, 2 * 16**2))
    plain, x, y = moved(16, lambda x, y: noise)
    middle = int(np.argmin(np.hypot(x - x.mean(), y - y.mean())))
    positions = plain.positions.copy()
    positions[middle] += [0.0, 0.15 * A]
    before, after = (strain_map(each, smoothing=1) for each in (plain, replace(plain, positions=positions)))
    others = np.arange(len(plain)) != middle
    assert np.nanmax(abs(after.values - before.values)[others]) < 6e-3  # least squares: 0.15 / 3 = 5e-2
    assert (np.isfinite(after.values) == np.isfinite(before.values)).all()


def test_strain_is_missing_only_where_neighbours_are():
    whole, x, y = moved(16, lambda x, y: (0 * x, 0 * y))
    middle = int(np.argmin(np.hypot(x - x.mean(), y - y.mean())))
    gaps = np.hypot(x - x[middle], y - y[middle])
    for lost, known in (
        (gaps == 0, True),
        ((gaps > 0) & (gaps < 0.65 * A), True),
        ((gaps > 0) & (gaps < 1.1 * A), False),
    ):
        grain = np.where(lost, -1, 0).astype(np.int32)
        found = strain_map(replace(whole, grain=grain), smoothing=1)
        assert np.isnan(found.values[lost]).all()
        if not lost[middle]:
            assert np.isfinite(found.values[middle]).all() == known
        near = ~lost & (gaps > 1.1 * A) & (gaps < 3 * A)  # at least four of their neighbours are there
        np.testing.assert_allclose(found.values[near], 0.0, atol=1e-9)
    h, k = honeycomb(16)[2].T
    neighbours = sum(((h + i >= 0) & (h + i < 16) & (k + j >= 0) & (k + j < 16)).astype(int)
                     for i, j in ((1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1)))  # fmt: skip
    np.testing.assert_array_equal(np.isfinite(strain_map(whole, smoothing=1).exx), neighbours >= 4)


def test_columns_on_no_grain_have_none():
    whole, _, _ = moved(12, lambda x, y: (0 * x, 0 * y))
    found = strain_map(replace(whole, grain=np.full(len(whole), -1, np.int32)))
    assert np.isnan(found.values).all()
    assert found.lattices == ()
    assert found.limit > 0


def test_drift_of_the_rows_is_taken_off():
    """Rows displaced by any smooth function of their height leave what changes along rows."""

    def drift(x, y):
        return 0.8 * np.sin(0.35 * y / A), 0.6 * np.cos(0.3 * y / A)

    def real(x, y):
        return 0.006 * x * np.sin(2 * np.pi * x / (40 * A)), 0 * y

    calm, _, _ = moved(40, real)
    shaken, _, _ = moved(40, lambda x, y: tuple(a + b for a, b in zip(real(x, y), drift(x, y), strict=True)))
    true, seen, cleaned = strain_map(calm), strain_map(shaken), strain_map(shaken, without_drift=True)
    kept = inside(40)
    error = [np.nanstd((each.values - true.values)[kept], axis=0) for each in (seen, cleaned)]
    assert (error[0][1:] > 5e-3).all()
    assert (error[1][1:] < 2.5e-3).all()
    np.testing.assert_allclose(seen.exx[kept], true.exx[kept], atol=2e-3)


def test_found_columns_show_the_strain_of_the_true_ones():
    made = simulate_micrograph(
        "WSe2", None, 80e3, Detector("HAADF", 70.0, 200.0), 5,
        size=80.0, sampling=0.2, dose=5e3, drift=0.5, jitter=0.02, disorder=0.02, strain=0.01, vacancy_fraction=0.05,
    )  # fmt: skip
    found = ctm.classify(made.micrograph, made.context)
    true = classification(
        made.columns.positions, posterior(made.labels), sampling=found.sampling, sublattice=made.columns.sublattice
    )
    seen, expected = found.strain(), true.strain()
    gaps = np.hypot(*(seen.positions[:, None] - expected.positions).transpose(2, 0, 1))
    partner = gaps.argmin(axis=1)
    pairs = np.isfinite(seen.exx) & np.isfinite(expected.exx[partner]) & (gaps.min(axis=1) < 2.0)
    for index in (1, 2, 3):
        one, two = seen.values[pairs, index], expected.values[partner[pairs], index]
        assert np.corrcoef(one, two)[0, 1] > 0.95
    assert np.std(seen.exx[pairs] - expected.exx[partner[pairs]]) < 5e-3


def test_smoothing_over_nothing_is_named():
    whole, _, _ = moved(6, lambda x, y: (0 * x, 0 * y))
    with pytest.raises(ValueError, match="smoothing: expected a number of columns, at least 1, got 0"):
        strain_map(whole, smoothing=0)


def test_a_component_that_is_none_is_named():
    from matplotlib.figure import Figure

    whole, _, _ = moved(6, lambda x, y: (0 * x, 0 * y))
    with pytest.raises(ValueError, match="component: expected one of exx, eyy, exy, rotation, got 'ezz'"):
        strain_map(whole).draw(Figure().add_subplot(), "ezz")


def test_figure_shows_four_maps_on_one_scale():
    result, _, _ = moved(30, lambda x, y: (0.5 * np.sin(2 * np.pi * x / (20 * A)) * A / 4, 0 * y), 0.0)
    found = strain_map(result)
    figure = found.plot("WSe2")
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert len(panels) == len(COMPONENTS)
    ends = [panel.images[0].get_clim() for panel in panels]
    assert all(low == -high for low, high in ends)
    assert ends[0] == ends[1] == ends[2]
    assert np.deg2rad(ends[3][1]) == pytest.approx(ends[0][1] / 100)
    shown = panels[0].images[0]
    assert 99 <= 100 * np.mean(abs(found.exx[np.isfinite(found.exx)]) <= 1.3 * found.limit)
    # a column's colour is where the column is
    left, right, bottom, top = shown.get_extent()
    picture = shown.get_array()
    index = int(np.nanargmax(found.exx))
    row, column = found.positions[index]
    i = int((row - top) / (bottom - top) * picture.shape[0])
    j = int((column - left) / (right - left) * picture.shape[1])
    assert picture[i, j] == pytest.approx(100 * found.exx[index])
    bars = [text.get_text() for text in panels[0].texts]
    assert len(bars) == 1
    length = float(bars[0].removesuffix(" nm"))
    drawn = np.ptp(panels[0].lines[0].get_xdata()) * result.sampling / 10
    assert drawn == pytest.approx(length)
    assert 0.05 < drawn / ((right - left) * result.sampling / 10) <= 0.2
