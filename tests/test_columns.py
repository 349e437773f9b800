"""find_columns: on synthetic crystals whose sites are known, on simulated and on labelled micrographs."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_fields import agreement, read_labels
from scipy.spatial import cKDTree

from contextem import columns as columns_module
from contextem.columns import CLASSES, Columns, find_columns, lattice_frames
from contextem.lattice import lattice_constant
from contextem.micrograph import Micrograph, read
from contextem.simulate.dataset import simulate_micrograph

METAL, DOPANT, X2, SINGLE, DOUBLE = range(5)
BRIGHTNESS = {METAL: 1.0, DOPANT: 0.3, X2: 0.5, SINGLE: 0.25, DOUBLE: 0.0}
SPACING = 12.0  # lattice constant of the synthetic crystals, px
LATTICE = 3.3  # and Å


@dataclass(frozen=True)
class Host:
    lattice_constant: float = LATTICE


@dataclass(frozen=True)
class Scene:
    image: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    spacing: float = SPACING

    @property
    def micrograph(self) -> Micrograph:
        return Micrograph(self.image, LATTICE / self.spacing)


def honeycomb(size, spacing, angle, origin):
    """Metal, chalcogen and hollow sites of a perfect crystal that covers the image."""
    count = int(2 * size / spacing) + 4
    i, j = (axis.ravel()[:, None] for axis in np.mgrid[-count:count, -count:count])
    a1, a2 = spacing * np.array([[np.sin(t), np.cos(t)] for t in (angle, angle + np.pi / 3)])
    metal = size / 2 + np.asarray(origin) + i * a1 + j * a2
    return metal, metal + (a1 + a2) / 3, metal + 2 * (a1 + a2) / 3


def paint(size, positions, brightness, width, dose, rng):
    """Gaussian columns on a weak background, Poisson counts."""
    image = np.full((size, size), 0.03)
    reach = int(np.ceil(4 * width))
    for (row, column), peak in zip(positions, brightness, strict=True):
        top, left = max(int(row) - reach, 0), max(int(column) - reach, 0)
        bottom, right = int(row) + reach + 1, int(column) + reach + 1
        if peak and bottom > 0 and right > 0 and top < size and left < size:
            r, c = np.ogrid[top : min(bottom, size), left : min(right, size)]
            image[top:bottom, left:right] += peak * np.exp(-((r - row) ** 2 + (c - column) ** 2) / (2 * width**2))
    return rng.poisson(image * dose).astype(np.uint16)


def make_scene(kind="perfect", seed=0, size=192, spacing=SPACING, dose=200.0, faults=0.05):
    rng = np.random.default_rng(seed)
    angle, toward = rng.uniform(0, np.pi, 2)
    metal, chalcogen, hollow = honeycomb(size, spacing, angle, rng.uniform(0, spacing, 2))
    if kind == "twin":
        toward = angle  # the boundary runs along a lattice row
    normal = np.array([np.cos(toward), -np.sin(toward)])
    here = lambda sites: (sites - size / 2) @ normal > 0  # noqa: E731
    if kind == "twin":
        chalcogen = np.concatenate([chalcogen[here(chalcogen)], hollow[~here(hollow)]])
    if kind == "tilt":
        other = honeycomb(size, spacing, angle + np.deg2rad(22), rng.uniform(0, spacing, 2))
        metal = np.concatenate([metal[here(metal)], other[0][~here(other[0])]])
        chalcogen = np.concatenate([chalcogen[here(chalcogen)], other[1][~here(other[1])]])
    positions = np.concatenate([metal, chalcogen])
    labels = np.repeat([METAL, X2], [len(metal), len(chalcogen)])
    lot = rng.random(len(positions))
    labels = np.where((labels == X2) & (lot < 2 * faults), np.where(lot < faults, DOUBLE, SINGLE), labels)
    labels = np.where((labels == METAL) & (lot < faults), DOPANT, labels)
    if kind == "hole":
        away = np.hypot(*(positions - size / 2).T) > 3 * spacing
        positions, labels = positions[away], labels[away]
    if kind == "edge":
        positions, labels = positions[here(positions)], labels[here(positions)]
    if kind == "drift":  # rows slide against each other, as when the specimen moves during the scan
        positions[:, 1] += 0.35 * spacing * np.sin(2 * np.pi * positions[:, 0] / (8 * spacing))
    if kind == "strain":
        positions = (positions - size / 2) @ (np.eye(2) + rng.normal(0, 0.015, (2, 2))) + size / 2
    positions = positions + rng.normal(0, 0.012 * spacing, positions.shape)
    if kind == "tilt":  # no two columns on top of each other in the boundary
        pairs = cKDTree(positions).query_pairs(0.45 * spacing, output_type="ndarray")
        single = np.setdiff1d(np.arange(len(positions)), pairs[:, 1])
        positions, labels = positions[single], labels[single]
    image = paint(size, positions, [BRIGHTNESS[label] for label in labels], 0.17 * spacing, dose, rng)
    inside = ((positions >= 0) & (positions <= size - 1)).all(axis=1)
    return Scene(image, positions[inside], labels[inside], spacing)


def compare(found, truth, shape, tolerance, margin):
    """Which true and which found columns, away from the border, are each other's nearest within the tolerance."""
    there, forth = cKDTree(found).query(truth)
    back, home = cKDTree(truth).query(found)
    inner = [((p > margin) & (p < np.array(shape) - 1 - margin)).all(axis=1) for p in (truth, found)]
    hit = (there < tolerance) & (home[forth] == np.arange(len(truth)))
    right = (back < tolerance) & (forth[home] == np.arange(len(found)))
    return hit, inner[0], right, inner[1]


def score(scene, columns, tolerance=0.15):
    """Recall and precision one lattice constant inside of the border."""
    a = scene.spacing
    hit, inner, right, inner_found = compare(columns.positions, scene.positions, scene.image.shape, tolerance * a, a)
    return hit[inner].mean(), right[inner_found].mean()


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


class TestColumns:
    def test_keeps_what_it_is_given(self):
        columns = Columns([[1, 2], [3, 4]], sublattice=[0, 1], observed=[True, False])
        assert len(columns) == 2
        assert columns.positions.dtype == np.float64
        assert columns.positions.tolist() == [[1.0, 2.0], [3.0, 4.0]]
        assert columns.sublattice.tolist() == [0, 1] and columns.sublattice.dtype == np.int8
        assert columns.observed.tolist() == [True, False]

    def test_is_apart_from_the_array_given(self):
        positions = np.zeros((3, 2))
        columns = Columns(positions)
        positions[:] = 7
        assert not columns.positions.any()

    def test_unknown_sublattice_and_observed_by_default(self):
        columns = Columns(np.ones((2, 2)))
        assert columns.sublattice.tolist() == [-1, -1] and columns.observed.all()
        assert columns.grain.tolist() == [-1, -1]

    def test_grains_are_counted_from_0(self):
        columns = Columns(np.ones((3, 2)), grain=[0, 7, -1])
        assert columns.grain.tolist() == [0, 7, -1] and columns.grain.dtype == np.int32

    def test_may_be_empty(self):
        assert Columns([]).positions.shape == Columns(np.empty((0, 2))).positions.shape == (0, 2)

    def test_do_not_change_and_are_told_apart_by_which_they_are(self):
        columns = Columns(np.ones((2, 2)))
        again = copy.copy(columns)
        assert columns == columns and columns != again and len({columns, again}) == 2
        with pytest.raises(FrozenInstanceError):
            columns.grain = np.zeros(2)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((np.ones((3, 3)),), ValueError, r"positions: expected shape \(N, 2\)"),
            ((np.ones(4),), ValueError, r"positions: expected shape \(N, 2\)"),
            ((np.ones(2),), ValueError, r"positions: expected shape \(N, 2\)"),
            ((np.ones(1),), ValueError, r"positions: expected shape \(N, 2\)"),
            ((np.ones((2, 1)),), ValueError, r"positions: expected shape \(N, 2\)"),
            ((np.ones((2, 2, 2)),), ValueError, r"positions: expected shape \(N, 2\)"),
            ((np.empty((0, 3)),), ValueError, r"positions: expected shape \(N, 2\)"),
            (([[np.inf, 1.0]],), ValueError, "positions: expected finite"),
            (([[np.nan, 1.0]],), ValueError, "positions: expected finite"),
            (([["a", "b"]],), TypeError, "positions: expected real numbers"),
            ((np.ones((1, 2), dtype=complex),), TypeError, "positions: expected real numbers"),
            ((np.ones((2, 2)), [0]), ValueError, r"sublattice: expected shape \(2,\)"),
            ((np.ones((2, 2)), [0, 2]), ValueError, "sublattice: expected integers"),
            ((np.ones((2, 2)), [0.0, 1.0]), ValueError, "sublattice: expected integers"),
            ((np.ones((2, 2)), None, [True]), ValueError, r"observed: expected shape \(2,\)"),
            ((np.ones((2, 2)), None, [1, 0]), TypeError, "observed: expected booleans"),
            ((np.ones((2, 2)), [0, -2]), ValueError, "sublattice: expected integers"),
            ((np.ones((2, 2)), None, None, [0]), ValueError, r"grain: expected shape \(2,\)"),
            ((np.ones((2, 2)), None, None, [0, -2]), ValueError, "grain: expected integers from 0, or -1"),
            ((np.ones((2, 2)), None, None, [0.0, 1.0]), ValueError, "grain: expected integers from 0, or -1"),
        ],
    )
    def test_says_what_does_not_fit(self, arguments, error, message):
        with pytest.raises(error, match=message):
            Columns(*arguments)


def test_class_order():
    assert CLASSES == ("metal", "dopant", "X2", "single_vacancy", "double_vacancy")


@pytest.mark.parametrize("kind", ["perfect", "drift", "strain", "hole", "edge"])
@pytest.mark.parametrize("seed", [1, 2])
def test_finds_all_columns_and_no_others(kind, seed):
    scene = make_scene(kind, seed)
    recall, precision = score(scene, find_columns(scene.micrograph, Host()))
    assert recall >= 0.99 and precision >= 0.99


@pytest.mark.parametrize("kind", ["perfect", "drift"])
def test_double_vacancies_are_sites_without_a_peak(kind):
    scene = make_scene(kind, seed=3)
    columns = find_columns(scene.micrograph, Host())
    hit, inner, _, _ = compare(columns.positions, scene.positions, scene.image.shape, 0.15 * SPACING, SPACING)
    vacancies = inner & (scene.labels == DOUBLE)
    assert vacancies.sum() >= 10 and hit[vacancies].all()
    _, number = cKDTree(columns.positions).query(scene.positions)
    assert columns.observed[number[vacancies]].mean() <= 0.1
    assert columns.observed[number[inner & (scene.labels == METAL)]].all()


def test_sublattices_are_told_apart():
    scene = make_scene(seed=4)
    columns = find_columns(scene.micrograph, Host())
    _, inner, _, _ = compare(columns.positions, scene.positions, scene.image.shape, np.inf, SPACING)
    _, number = cKDTree(columns.positions).query(scene.positions)
    metal = np.isin(scene.labels, (METAL, DOPANT))
    assert (columns.sublattice[number[inner & metal]] == 0).all()
    assert (columns.sublattice[number[inner & ~metal]] == 1).all()


@pytest.mark.parametrize("seed", [5, 6])
def test_mirror_twin_swaps_chalcogen_and_hollow(seed):
    scene = make_scene("twin", seed)
    columns = find_columns(scene.micrograph, Host())
    recall, precision = score(scene, columns)
    assert recall >= 0.985 and precision >= 0.985
    # the metal sublattice runs through the boundary
    _, number = cKDTree(columns.positions).query(scene.positions)
    assert (columns.sublattice[number[scene.labels == METAL]] == 0).mean() >= 0.97


@pytest.mark.parametrize("seed", [7, 8])
def test_tilted_grains_are_both_indexed(seed):
    scene = make_scene("tilt", seed)
    recall, precision = score(scene, find_columns(scene.micrograph, Host()))
    assert recall >= 0.97 and precision >= 0.97


def test_nothing_is_invented_in_vacuum():
    scene = make_scene("edge", seed=9)
    columns = find_columns(scene.micrograph, Host())
    away, _ = cKDTree(scene.positions).query(columns.positions)
    assert (away < 0.7 * SPACING).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_triangular_flake_has_all_its_columns_on_the_lattice_to_the_corners(seed):
    rng = np.random.default_rng(seed)
    angle = 0.2 + seed
    metal, chalcogen, _ = honeycomb(200, SPACING, angle, (1.0, 2.0))
    positions = np.concatenate([metal, chalcogen])
    normals = [np.array([np.sin(t), np.cos(t)]) for t in angle + np.deg2rad([90, 210, 330])]
    flake = np.all([(positions - 100) @ normal < 3.6 * SPACING for normal in normals], axis=0)
    brightness = np.repeat([BRIGHTNESS[METAL], BRIGHTNESS[X2]], [len(metal), len(chalcogen)])[flake]
    positions = positions[flake] + rng.normal(0, 0.012 * SPACING, (flake.sum(), 2))
    image = paint(200, positions, brightness, 0.17 * SPACING, 200.0, rng)
    columns = find_columns(Micrograph(image, LATTICE / SPACING), Host())
    gap, number = cKDTree(columns.positions).query(positions)
    assert (gap < 0.15 * SPACING).all() and (columns.sublattice[number] >= 0).all()
    assert len(columns) <= len(positions) + 5


def test_masked_half():
    scene = make_scene(seed=20, size=256)
    image = scene.image.copy()
    image[:, :128] = 0
    columns = find_columns(Micrograph(image, LATTICE / SPACING), Host())
    assert (columns.positions[:, 1] > 128 - 0.5 * SPACING).all()
    right = scene.positions[:, 1] > 128 + SPACING
    gap, _ = cKDTree(columns.positions).query(scene.positions[right])
    assert np.mean(gap < 0.15 * SPACING) >= 0.97


@pytest.mark.parametrize("tile", [None, 70])
def test_lattices_are_looked_for_in_an_image_of_mean_0_and_deviation_1(tile):
    data = make_scene(seed=22, size=150).image[:, :141] + 1e6  # an offset a thousand times the contrast
    image, frames = lattice_frames(Micrograph(data, LATTICE / SPACING), Host(), tile=tile)
    expected = (data - data.mean()) / data.std()
    np.testing.assert_allclose(image.whole(), expected, atol=1e-5)
    np.testing.assert_allclose(image.rows(70, 150), expected[70:], atol=1e-5)
    assert lattice_constant(frames[0].basis) == pytest.approx(SPACING, rel=0.02)
    quality = [frame.quality for frame in frames]
    assert quality == sorted(quality, reverse=True)


def test_noise_does_not_scatter_columns_more_than_the_crystal_does():
    """At 20 electrons a pixel: fits alone are off by 0.027 a; by 0.017 a the crystal scatters them itself."""
    scene = make_scene(seed=10, dose=20.0)
    columns = find_columns(scene.micrograph, Host())
    hit, inner, _, _ = compare(columns.positions, scene.positions, scene.image.shape, 0.15 * SPACING, SPACING)
    miss, _ = cKDTree(columns.positions).query(scene.positions)
    assert rms(miss[inner & hit & (scene.labels == X2)]) < 0.022 * SPACING


@pytest.mark.parametrize("seed", range(3))
def test_peaks_and_predictions_are_averaged_nearly_as_well_as_with_their_errors_known(seed):
    """Against averages weighted by true variances; a tenth is the price of doubting peaks far off."""
    rng = np.random.default_rng(seed)
    n, spread = 5000, 0.3
    true = rng.uniform(0, 500, (n, 2))
    predicted = true + rng.normal(0, spread, (n, 2))
    weight = rng.uniform(0.05, 1, n)
    error = (0.1 / weight)[:, None]
    peaks = true + error * rng.normal(size=(n, 2))
    best = (predicted / spread**2 + peaks / error**2) / (1 / spread**2 + 1 / error**2)
    own = rng.random(n) > 0.05
    peaks = np.where(own[:, None], peaks, true + rng.choice([-3, 3], (n, 2)))
    miss = columns_module._combine(predicted, peaks, weight, spread) - true
    assert rms(miss[own]) < 1.15 * rms((best - true)[own])
    assert rms(miss[~own]) < 1.2 * spread
    away = np.array([-700.0, 300.0])
    np.testing.assert_allclose(
        columns_module._combine(predicted + away, peaks + away, weight, spread), true + miss + away, atol=1e-9
    )


@pytest.mark.parametrize("scan", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_fits_and_predictions_are_averaged_as_well_as_with_the_errors_of_the_scan_known(seed, scan):
    rng = np.random.default_rng(seed)
    n, spread = 5000, 0.3
    true = rng.uniform(0, 500, (n, 2))
    predicted = true + rng.normal(0, spread, (n, 2))
    deviation = rng.uniform(0.05, 0.6, n)
    error = np.hypot(deviation, scan)[:, None]
    fitted = true + error * rng.normal(size=(n, 2))
    best = (predicted / spread**2 + fitted / error**2) / (1 / spread**2 + 1 / error**2)
    assert rms(columns_module._blend(predicted, fitted, deviation, spread) - true) < 1.01 * rms(best - true)


@pytest.mark.parametrize("average", [columns_module._combine, columns_module._blend])
def test_averages_do_not_depend_on_the_unit(average):
    """Of positions and of how far they stray; a weight has no unit, a deviation has that of the positions."""
    rng = np.random.default_rng(4)
    predicted, quality = rng.uniform(0, 50, (200, 2)), rng.uniform(0.1, 1, 200)
    measured = predicted + rng.normal(0, 0.4, (200, 2))
    plain = average(predicted, measured, quality, 0.3)
    scaled = average(8 * predicted, 8 * measured, quality * (8 if average is columns_module._blend else 1), 8 * 0.3)
    np.testing.assert_allclose(scaled, 8 * plain, rtol=1e-12)


def test_positions_are_precise():
    scene = make_scene(seed=10, dose=5000.0)
    columns = find_columns(scene.micrograph, Host())
    hit, inner, _, _ = compare(columns.positions, scene.positions, scene.image.shape, 0.15 * SPACING, SPACING)
    miss, _ = cKDTree(columns.positions).query(scene.positions)
    rms = [np.sqrt(np.mean(miss[inner & hit & (scene.labels == label)] ** 2)) for label in (METAL, X2)]
    assert max(rms) < 0.012 * SPACING  # static disorder alone is 0.017 a: the peaks were used, not only the lattice


def test_a_tolerance_of_a_fifth_is_the_most():
    scene = make_scene(seed=11)
    micrograph = Micrograph(scene.image, LATTICE / SPACING * 1.17)
    assert min(score(scene, find_columns(micrograph, Host(), tolerance=0.2))) >= 0.99
    with pytest.raises(ValueError, match="no lattice"):
        find_columns(micrograph, Host())


@pytest.mark.parametrize("factor", [0.93, 1.07])
def test_sampling_may_be_off(factor):
    scene = make_scene(seed=11)
    micrograph = Micrograph(scene.image, LATTICE / SPACING * factor)
    columns = find_columns(micrograph, Host())
    assert min(score(scene, columns)) >= 0.99
    assert micrograph.sampling == LATTICE / SPACING * factor


def test_lattice_constant_is_not_needed():
    scene = make_scene(seed=12)
    assert min(score(scene, find_columns(scene.micrograph))) >= 0.99


def test_coarse_and_noisy():
    scene = make_scene(seed=13, size=110, spacing=8.3, dose=12.0)
    assert min(score(scene, find_columns(scene.micrograph, Host()))) >= 0.97


@settings(max_examples=8)
@given(seed=st.integers(0, 2**16), turns=st.integers(1, 3), flip=st.booleans())
def test_turning_the_image_turns_the_columns(seed, turns, flip):
    scene = make_scene(seed=seed, size=96)
    image = np.rot90(scene.image, turns)
    plain = find_columns(scene.micrograph, Host()).positions
    if flip:
        image = image.T
    turned = find_columns(Micrograph(image.copy(), LATTICE / SPACING), Host()).positions
    if flip:
        turned = turned[:, ::-1]
    for _ in range(turns):  # undo: np.rot90 sends (r, c) to (W - 1 - c, r)
        turned = np.column_stack([turned[:, 1], 95 - turned[:, 0]])
    hit, inner, _, _ = compare(turned, plain, (96, 96), 0.06 * SPACING, SPACING)
    assert hit[inner].all()


@settings(max_examples=8)
@given(gain=st.floats(1e-12, 1e12), offset=st.floats(-1e3, 1e3))
def test_gain_and_offset_do_not_matter(gain, offset):
    scene = make_scene(seed=14, size=96)
    image = scene.image.astype(np.float64)
    plain = find_columns(Micrograph(image, LATTICE / SPACING), Host())
    other = find_columns(Micrograph(image * gain + offset * gain, LATTICE / SPACING), Host())
    np.testing.assert_allclose(other.positions, plain.positions, atol=1e-5)
    np.testing.assert_array_equal(other.observed, plain.observed)


@settings(max_examples=6)
@given(rows=st.integers(0, 40), columns=st.integers(0, 40))
def test_cropping_moves_the_columns(rows, columns):
    scene = make_scene(seed=15, size=160)
    plain = find_columns(scene.micrograph, Host()).positions
    part = scene.image[rows : rows + 110, columns : columns + 110]
    moved = find_columns(Micrograph(part, LATTICE / SPACING), Host()).positions
    there = plain - (rows, columns)
    kept = ((there > 0) & (there < 109)).all(axis=1)
    hit, inner, _, _ = compare(moved, there[kept], (110, 110), 0.06 * SPACING, 1.5 * SPACING)
    assert hit[inner].all()


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64, np.float32, np.float64])
def test_pixel_type_does_not_matter(dtype):
    scene = make_scene(seed=16, size=96)
    plain = find_columns(scene.micrograph, Host()).positions
    other = find_columns(Micrograph(scene.image.astype(dtype), LATTICE / SPACING), Host()).positions
    np.testing.assert_array_equal(other, plain)


NOISE = np.random.default_rng(0).poisson(20.0, (128, 128))


@pytest.mark.parametrize(
    ("image", "sampling"),
    [
        (NOISE, 0.25),
        (np.sin(np.arange(128) / 3.0) + np.zeros((128, 1)), 0.25),
        (np.add.outer(np.cos(np.arange(128) / 2.0), np.cos(np.arange(128) / 2.0)), 0.25),
        (np.eye(128), 0.25),
        (make_scene(seed=17, size=160).image, LATTICE / SPACING * 1.5),
        (make_scene(seed=17, size=160).image, LATTICE / SPACING * 0.75),
    ],
    ids=["noise", "stripes", "square", "line", "coarse", "fine"],
)
def test_says_when_there_is_no_lattice(image, sampling):
    with pytest.raises(ValueError, match=r"no lattice with a lattice constant of 3.00 to 3.63 Å is seen at .* Å/px"):
        find_columns(Micrograph(image, sampling), Host())


def test_says_when_the_image_is_too_small():
    scene = make_scene(seed=18, size=47)
    with pytest.raises(ValueError, match="expected at least 48 px a side, four lattice constants, got 47 x 47"):
        find_columns(scene.micrograph, Host())


def test_both_sides_of_an_image_that_is_too_small_are_named():
    image = make_scene(seed=18, size=60).image[:40]
    with pytest.raises(ValueError, match="four lattice constants, got 40 x 60"):
        find_columns(Micrograph(image, LATTICE / SPACING), Host())


def test_four_lattice_constants_are_enough():
    scene = make_scene(seed=18, size=50)
    assert len(find_columns(scene.micrograph, Host())) >= 0.85 * len(scene.positions)


@pytest.mark.parametrize("detector", ["BF", "ABF"])
def test_bright_field_is_refused(detector):
    with pytest.raises(ValueError, match=f"expected a dark-field detector, .* got {detector}"):
        find_columns(Micrograph(NOISE, 0.25, detector=detector), Host())


def test_arguments_of_the_wrong_kind():
    micrograph = make_scene(seed=19, size=64).micrograph
    with pytest.raises(TypeError, match="micrograph: expected a Micrograph"):
        find_columns(micrograph.data, Host())
    with pytest.raises(TypeError, match="context: expected a Context"):
        find_columns(micrograph, "WSe2")
    with pytest.raises(ValueError, match="context: expected a positive lattice constant"):
        find_columns(micrograph, Host(-1.0))
    for constant in (0.0, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"context: expected a positive lattice constant in Å, got {constant}"):
            find_columns(micrograph, Host(constant))
    for tolerance in (8.0, 1.1, 0.21, 0.0, -0.1, np.nan):
        with pytest.raises(ValueError, match=rf"tolerance: expected a fraction above 0, at most 0\.2, got {tolerance}"):
            find_columns(micrograph, Host(), tolerance=tolerance)
    with pytest.raises(TypeError, match="positional"):
        find_columns(micrograph, Host(), 0.1)


def test_simulated_micrographs():
    """All five classes within 0.5 Å at 1000 e/px and above, one lattice constant inside of the border."""

    met, sites, right, found = np.zeros(5), np.zeros(5), 0, 0
    hosts = [metal + chalcogen for metal in ("Mo", "W", "Nb", "Ta") for chalcogen in ("S2", "Se2", "Te2")]
    for seed, host in enumerate(2 * hosts):
        dopant = ("Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu")[seed % 8]
        energy = (60e3, 80e3, 200e3, 300e3)[seed % 4]
        detector = "HAADF" if seed < 12 else "MAADF"
        sampling = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)[seed % 7]
        dose = (1000.0, 2000.0, 10000.0)[seed % 3]
        simulated = simulate_micrograph(host, dopant, energy, detector, 900 + seed, sampling=sampling, dose=dose)
        columns = find_columns(simulated.micrograph, simulated.context)
        hit, inner, good, inner_found = compare(
            columns.positions,
            simulated.columns.positions,
            simulated.micrograph.shape,
            0.5 / sampling,
            simulated.context.lattice_constant / sampling,
        )
        sites += np.bincount(simulated.labels[inner], minlength=5)
        met += np.bincount(simulated.labels[inner & hit], minlength=5)
        right, found = right + good[inner_found].sum(), found + inner_found.sum()
    assert (sites >= 200).all()
    assert met.sum() >= 0.995 * sites.sum() and right >= 0.995 * found
    assert (met >= 0.99 * sites).all(), dict(zip(CLASSES, met / sites, strict=True))


@pytest.mark.experimental
@pytest.mark.parametrize("image", ["haadf", "adf2"])
@pytest.mark.parametrize("field", [2, 11])
def test_titanium_doped_fields(experimental_data, field, image):
    micrograph = read(experimental_data / f"ti_wse2_field{field}_{image}.dm4")
    columns = find_columns(micrograph, Host(3.32))
    positions, labels = read_labels(experimental_data / f"ti_wse2_field{field}_columns.csv")
    recall, of_vacancies, extra = agreement(columns.positions, positions, labels, 0.8 / micrograph.sampling)
    assert recall >= 0.97
    assert of_vacancies >= 0.90
    assert extra <= 0.03


@pytest.mark.experimental
def test_chromium_doped_field(experimental_data):
    micrograph = Micrograph(np.load(experimental_data / "cr_wse2_field9_adf2.npy"), 0.257)
    positions, labels = read_labels(experimental_data / "cr_wse2_field9_columns.csv")
    recall, of_vacancies, extra = agreement(
        find_columns(micrograph, Host(3.32)).positions, positions, labels, 0.8 / 0.257
    )
    assert recall >= 0.97 and of_vacancies >= 0.90 and extra <= 0.03


@pytest.mark.parametrize("seed", [108, 299, 356])
def test_columns_that_the_border_cuts_stay_in_the_image(seed):
    """Their fits lie outside."""
    made = simulate_micrograph("WSe2", "V", 80e3, "HAADF", seed, size=40.0, sampling=0.16, dose=1500.0)
    positions = find_columns(made.micrograph, made.context).positions
    high = np.array(made.micrograph.shape) - 0.5
    assert (positions >= -0.5).all() and (positions <= high).all()
    assert ((positions == -0.5) | (positions == high)).any()
