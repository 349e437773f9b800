"""Peaks, nearest points and refined positions: the kernels against their definition and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import stand_in_card
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial import cKDTree

from contextem import _core, _kernels, reference
from contextem.lattice import find_frames
from contextem.peaks import Peaks, find_peaks, peak_response, response_maxima

SHAPES = [(1, 1), (1, 9), (7, 2), (3, 3), (33, 70), (130, 201)]
A = 16.0  # lattice constant of the crystals below, px
WIDTH = 0.155 * A


def crystal(size=96, seed=0, vacant=0.15):
    """Image of Gaussians of three brightnesses displaced from a honeycomb, some missing; positions; those inside."""
    rng = np.random.default_rng(seed)
    i, j = (axis.ravel()[:, None] for axis in np.mgrid[-12:12, -12:12])
    a1, a2 = A * np.array([[np.sin(t), np.cos(t)] for t in (0.4, 0.4 + np.pi / 3)])
    metal = size / 2 + i * a1 + j * a2
    positions = np.concatenate([metal, metal + (a1 + a2) / 3]) + rng.normal(0, 0.012 * A, (2 * len(metal), 2))
    brightness = np.repeat([1.0, 0.5], len(metal))
    brightness[rng.random(len(brightness)) < 0.1] = 0.3
    brightness[len(metal) :][rng.random(len(metal)) < vacant] = 0.0
    near = ((positions > -2 * A) & (positions < size + 2 * A)).all(axis=1) & (brightness > 0)
    positions, brightness = positions[near], brightness[near]
    grid = np.indices((size, size)).reshape(2, -1).T
    image = np.full(size * size, 0.1)
    for position, peak in zip(positions, brightness, strict=True):
        image += peak * np.exp(-((grid - position) ** 2).sum(axis=1) / (2 * WIDTH**2))
    inside = ((positions >= 0) & (positions <= size - 1)).all(axis=1)
    return image.reshape(size, size), positions, inside


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [0.8, 2.1, 5.0])
def test_response_is_the_laplacian_of_the_gaussian(shape, sigma, dtype):
    image = np.random.default_rng(1).normal(size=shape).astype(dtype)
    response = _kernels.peak_response(image, sigma)
    assert response.dtype == dtype
    tolerance = 50 * np.finfo(dtype).eps
    np.testing.assert_allclose(response, reference.peak_response(image, sigma), atol=tolerance)
    oracle = -(sigma**2) * ndimage.gaussian_laplace(image.astype(np.float64), sigma)
    np.testing.assert_allclose(response, oracle, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_and_strides_change_no_bit(dtype):
    image = np.random.default_rng(2).normal(size=(151, 203)).astype(dtype)
    response = _kernels.peak_response(image, 2.3, n_threads=1)
    maxima = _kernels.local_maxima(response, n_threads=1)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(_kernels.peak_response(image, 2.3, n_threads=threads), response)
        for one, other in zip(_kernels.local_maxima(response, n_threads=threads), maxima, strict=True):
            np.testing.assert_array_equal(one, other)
    wide = np.repeat(np.repeat(image, 2, axis=0), 3, axis=1)
    for strided in (np.asfortranarray(image), wide[::2, ::3], image[::-1, ::-1][::-1, ::-1]):
        np.testing.assert_array_equal(_kernels.peak_response(strided, 2.3), response)


def old_rule(response):
    """Maxima by the maximum filter: (row, column) pairs, row by row."""
    core = response[1:-1, 1:-1]
    most = ndimage.maximum_filter(response, size=3)[1:-1, 1:-1]
    return np.argwhere((most == core) & (core > 0)) + 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_maxima_are_those_of_the_definition(shape, dtype):
    response = np.random.default_rng(3).normal(size=shape).astype(dtype)
    positions, heights = _kernels.local_maxima(response)
    expected, tops = reference.local_maxima(response)
    np.testing.assert_allclose(positions, expected, atol=1e-12)
    np.testing.assert_array_equal(heights, tops)
    np.testing.assert_array_equal(heights, response[tuple(old_rule(response).T)])


@given(
    hnp.arrays(
        np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([-1, 0, 1, 2])
    )
)
def test_every_pixel_of_a_plateau_is_a_maximum(response):
    positions, heights = _kernels.local_maxima(response)
    pixels = old_rule(response)
    assert len(positions) == len(pixels)
    assert (abs(positions - pixels) <= 0.5).all()
    np.testing.assert_array_equal(heights, response[tuple(pixels.T)])
    np.testing.assert_allclose(positions, reference.local_maxima(response)[0], atol=1e-12)


def test_quadratic_finds_the_top_of_a_parabola():
    rows, columns = np.mgrid[:9, :9]
    response = 10 - (rows - 4.3) ** 2 - 2 * (columns - 3.8) ** 2 - 0.5 * (rows - 4.3) * (columns - 3.8)
    positions, heights = _kernels.local_maxima(response)
    np.testing.assert_allclose(positions, [[4.3, 3.8]], atol=1e-12)
    assert heights[0] == response[4, 4]


def test_strength_is_relative_to_the_peaks_near_by():
    response = np.zeros((60, 60))
    response[5:60:10, 5:60:10] = 2.0
    peaks = find_peaks(response)
    assert len(peaks.strength) == 36
    np.testing.assert_allclose(peaks.strength, 1.0)
    np.testing.assert_array_equal(find_peaks(np.zeros((5, 5))).strength, [])


@pytest.mark.parametrize("threshold", [0.0, 0.15, 100.0])
def test_maxima_of_the_response_above_a_threshold(threshold):
    image = crystal(96, vacant=0.0)[0] - 0.3
    positions, heights, count = response_maxima(image, A, width=0.1, threshold=threshold)
    expected, tops = reference.local_maxima(reference.peak_response(image, 0.1 * A))
    above = tops > threshold
    assert count.tolist() == [above.sum()] and (above.sum() > 20) == (threshold < 1)
    np.testing.assert_allclose(positions, expected[above], atol=1e-9)
    np.testing.assert_allclose(heights, tops[above], atol=1e-12)
    for capacity in (0, 5, len(heights) + 3):
        room = response_maxima(image, A, width=0.1, threshold=threshold, capacity=capacity)
        held = min(capacity, len(heights))
        np.testing.assert_array_equal(room.positions[:held], positions[:held])
        np.testing.assert_array_equal(room.heights[:held], heights[:held])
        assert room.positions.shape == (capacity, 2) and room.heights.shape == (capacity,)
        assert np.isnan(room.positions[held:]).all() and np.isnan(room.heights[held:]).all()
        assert room.count.tolist() == count.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_maxima_of_a_torch_image_on_a_card_stay_there(monkeypatch, dtype):
    torch = pytest.importorskip("torch")
    card = stand_in_card.install(monkeypatch)
    image = np.random.default_rng(6).normal(size=(90, 120)).astype(dtype)
    expected = response_maxima(image, A, threshold=0.1)
    on_card = torch.from_numpy(np.repeat(image, 2, axis=1))[:, ::2]
    found = response_maxima(on_card, A, threshold=0.1)
    assert card.calls == ["peak_response", "count_maxima", "write_maxima"]
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, torch.Tensor) and one.numpy().dtype == other.dtype
        np.testing.assert_array_equal(one.numpy(), other)
    card.capturing = True  # nobody can wait for the count, nor has to where there is room
    with pytest.raises(RuntimeError, match="capacity: expected a number of peaks to make room for while a graph is"):
        response_maxima(on_card, A)
    for capacity in (3, 1000):
        room = response_maxima(on_card, A, threshold=0.1, capacity=capacity)
        on_host = response_maxima(image, A, threshold=0.1, capacity=capacity)
        for one, other in zip(room, on_host, strict=True):
            np.testing.assert_array_equal(one.numpy(), other)
    with pytest.raises(TypeError, match="image: expected a NumPy array, got Tensor, for which there is no CUDA kernel"):
        find_peaks(on_card)


POINTS = np.random.default_rng(4).uniform(-50, 300, (700, 2))


@pytest.mark.parametrize(
    "points", [POINTS, POINTS[:1], POINTS * [1, 0], POINTS * [1, 1e-9], np.round(POINTS / 40) * 40]
)
def test_nearest_points(points):
    sites = np.random.default_rng(5).uniform(-80, 330, (400, 2))
    k = min(9, len(points))
    distances, numbers = _kernels.Points(points).nearest(sites, k, 2)
    expected, _ = cKDTree(points).query(sites, k=k)
    np.testing.assert_allclose(distances, expected.reshape(len(sites), k), rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(points[numbers] - sites[:, None], axis=2), distances, rtol=1e-12)
    distances, numbers = _kernels.Points(points).within(sites, 15.0, 2)
    expected, _ = cKDTree(points).query(sites, distance_upper_bound=15.0)
    np.testing.assert_allclose(distances, expected, rtol=1e-12)
    np.testing.assert_array_equal(numbers < 0, np.isinf(expected))


def test_neighbours_do_not_depend_on_threads():
    rng = np.random.default_rng(4)
    grid = _kernels.Points(rng.uniform(0, 900, (20_000, 2)))
    sites, heights = rng.uniform(-20, 920, (20_000, 2)), rng.random(20_000)
    queries = (
        lambda threads: grid.nearest(sites, 7, threads),
        lambda threads: grid.within(sites, 9.0, threads),
        lambda threads: grid.levels(heights, 24, 85.0, threads),
        lambda threads: grid.snap(heights, sites, 9.0, threads),
    )
    for query in queries:
        for one, many in zip(query(1), query(3), strict=True):
            np.testing.assert_array_equal(one, many)


def test_more_neighbours_than_points_are_none():
    distances, numbers = _kernels.Points(POINTS[:2]).nearest(POINTS[:1], 3, 1)
    assert numbers.tolist() == [[0, 1, -1]] and np.isinf(distances[0, 2])
    distances, numbers = _kernels.Points(np.zeros((0, 2))).nearest(POINTS[:1], 1, 1)
    assert numbers.tolist() == [[-1]]
    assert _kernels.Points(np.zeros((0, 2))).within(POINTS[:1], 1.0, 1)[1].tolist() == [-1]


def test_levels_are_percentiles_of_the_neighbours_heights():
    heights = np.random.default_rng(6).normal(size=len(POINTS))
    _, near = cKDTree(POINTS).query(POINTS, k=24)
    expected = np.percentile(heights[near], 85, axis=1)
    np.testing.assert_allclose(_kernels.Points(POINTS).levels(heights, 24, 85.0, 2), expected, rtol=1e-12)


def test_snap_is_as_defined():
    rng = np.random.default_rng(7)
    peaks = Peaks(POINTS, rng.uniform(0, 1.4, len(POINTS)))
    sites = rng.uniform(-60, 310, (300, 2))
    for one, other in zip(peaks.snap(sites, 9.0), reference.snap(POINTS, peaks.strength, sites, 9.0), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_between_pixels(dtype):
    rng = np.random.default_rng(11)
    image = rng.normal(size=(23, 31)).astype(dtype)
    positions = np.concatenate([rng.uniform(-5, 36, (200, 2)), [[0, 0], [22, 30], [22, 4.5], [7.25, 30]]])
    values = _kernels.sample_image(image, positions)
    np.testing.assert_allclose(values, reference.bilinear(image, *positions.T), atol=1e-14)
    oracle = ndimage.map_coordinates(image, positions.T, np.float64, order=1, mode="nearest")
    np.testing.assert_allclose(values, oracle, atol=1e-12)
    np.testing.assert_array_equal(_kernels.sample_image(np.asfortranarray(image), positions, n_threads=3), values)


def test_boards_are_blurred_as_by_scipy():
    boards = np.random.default_rng(8).normal(size=(4, 31, 77))
    for sigma in (1.7, 12.0):
        blurred = _kernels.blur_boards(boards, sigma, n_threads=1)
        np.testing.assert_allclose(blurred, reference.blur_boards(boards, sigma), atol=1e-14)
        oracle = [ndimage.gaussian_filter(board, sigma, mode="constant") for board in boards]
        np.testing.assert_allclose(blurred, oracle, atol=1e-14)
        np.testing.assert_array_equal(blurred, _kernels.blur_boards(boards, sigma, n_threads=3))


@pytest.mark.parametrize("side", [(48, 48), (37, 50), (51, 33)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spectra_and_hexagons_are_as_defined(side, dtype):
    image = crystal(128)[0].astype(dtype)
    corners = np.array([[0, 0], [11, 30], [128 - side[0], 128 - side[1]]])
    radius = 2 / (np.sqrt(3) * A) * np.linspace(0.9, 1.1, 7)
    angle = np.deg2rad(np.arange(0, 60, 4.0))
    arguments = (120, 24, 0.8 * 120 / 50)
    power, varies = _kernels.tile_spectra(image, corners, np.array(side), *arguments, n_threads=1)
    assert varies.all()
    for spectrum, (top, left) in zip(power, corners, strict=True):
        expected = reference.tile_spectrum(image[top : top + side[0], left : left + side[1]], *arguments)
        np.testing.assert_allclose(spectrum, expected, rtol=1e-3, atol=1e-6 * expected.max())
    scores = _kernels.spoke_scores(power, 120, radius, angle, n_threads=1)
    expected = [reference.spoke_scores(spectrum, 120, radius, angle) for spectrum in power]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    turns = np.array([0.3, 0.35, 0.4])
    spots = _kernels.hexagon_spots(power, 120, np.full(3, radius[3]), turns, n_threads=1)
    expected = [reference.hexagon_spots(each, 120, radius[3], turn) for each, turn in zip(power, turns, strict=True)]
    np.testing.assert_allclose(spots, expected, rtol=1e-4)
    for threads in (2, 5):
        again, _ = _kernels.tile_spectra(image, corners, np.array(side), *arguments, n_threads=threads)
        np.testing.assert_array_equal(again, power)
        np.testing.assert_array_equal(_kernels.spoke_scores(power, 120, radius, angle, n_threads=threads), scores)


def test_tiles_of_one_value_are_told():
    image = np.random.default_rng(9).normal(size=(40, 80))
    image[:, :40] = 0.25
    power, varies = _kernels.tile_spectra(image, np.array([[0, 0], [0, 40]]), np.array([40, 40]), 80, 16, 1.5)
    assert varies.tolist() == [False, True]
    assert not power[0].any() and power[1].any()


def test_growth_is_as_defined():
    image, _, _ = crystal(140, seed=2)
    image = image + np.random.default_rng(0).normal(0, 0.05, image.shape)
    response = peak_response(image, A)
    peaks = find_peaks(response)
    basis = find_frames(image, A, 0.1)[0].basis
    seed = int(np.argmin(np.hypot(*(peaks.positions - 70).T) + 20 * (peaks.strength < 0.7)))
    expected = reference.grow(peaks.positions, peaks.strength, seed, basis, 0.24 * A, image.shape)
    grow = [
        peaks.points.grow(peaks.strength, seed, np.ascontiguousarray(basis), 0.24 * A, *image.shape, threads)
        for threads in (1, 3)
    ]
    for one, other in zip(*grow, strict=True):
        np.testing.assert_array_equal(one, other)
    indices, positions = grow[0][:2]
    assert {tuple(site) for site in indices.tolist()} == expected.keys()
    np.testing.assert_allclose(positions, [expected[tuple(site)] for site in indices.tolist()], atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", [0, 1])
def test_refinement_is_as_defined(seed, dtype):
    rng = np.random.default_rng(seed)
    image, positions, inside = crystal(80, seed)
    image = (image + rng.normal(0, 0.02, image.shape)).astype(dtype)
    start = positions[inside] + rng.uniform(-0.5, 0.5, (inside.sum(), 2))
    movable = rng.random(len(start)) < 0.9
    arguments = (image, start, movable, 0.17 * A, A / np.sqrt(3), 0.1 * A)
    expected = reference.refine_columns(*arguments)
    for threads in (1, 2, 5):
        for one, other in zip(_kernels.refine_columns(*arguments, n_threads=threads), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    strided = np.asfortranarray(image)
    for one, other in zip(_kernels.refine_columns(strided, *arguments[1:]), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(expected[0][~movable], start[~movable])


def test_refinement_does_not_depend_on_threads_or_on_the_order():
    image, positions, inside = crystal(200, seed=3)
    start = positions[inside]
    arguments = (0.16 * A, A / np.sqrt(3), 0.15 * A)
    movable = np.ones(len(start), dtype=bool)
    one = _kernels.refine_columns(image, start, movable, *arguments, n_threads=1)
    for threads in (2, 7):
        for first, second in zip(one, _kernels.refine_columns(image, start, movable, *arguments, n_threads=threads)):  # noqa: B905
            np.testing.assert_array_equal(first, second)
    order = np.random.default_rng(0).permutation(len(start))
    other = _kernels.refine_columns(image, start[order], movable, *arguments)
    np.testing.assert_array_equal(other[0], one[0][order])


def test_refinement_undoes_the_pull_of_the_neighbours():
    image, positions, inside = crystal(200, seed=4)
    peaks = find_peaks(peak_response(image, A)).positions
    away, number = cKDTree(peaks).query(positions)
    known = (away < 0.2 * A) & inside
    inner = ((positions > A) & (positions < 199 - A)).all(axis=1)[known]
    start, truth = peaks[number[known]], positions[known]
    refined, amplitudes, _, sigma = _kernels.refine_columns(
        image, start, np.ones(len(start), dtype=bool), 0.17 * A, A / np.sqrt(3), 0.2 * A
    )
    rms = [np.sqrt(((each - truth)[inner] ** 2).sum(axis=1).mean()) for each in (start, refined)]
    assert rms[0] > 0.05 and rms[1] < 0.2 * rms[0]
    assert sigma == pytest.approx(WIDTH, rel=0.01)
    assert np.sort(amplitudes[inner])[-1] == pytest.approx(1.0, abs=0.03)


def test_deviations_tell_the_error():
    rng = np.random.default_rng(10)
    image, positions, inside = crystal(300, seed=5, vacant=0.0)
    image = image + rng.normal(0, 0.1, image.shape)
    inner = ((positions > A) & (positions < 299 - A)).all(axis=1)[inside]
    start = positions[inside]
    refined, _, deviation, _ = _kernels.refine_columns(
        image, start, np.ones(len(start), dtype=bool), WIDTH, A / np.sqrt(3), 0.3 * A
    )
    pull = (refined - start)[inner] / deviation[inner, None]
    assert 0.9 < np.sqrt(np.mean(pull**2)) < 1.3


def test_columns_that_move_too_far_or_see_nothing_stay():
    image, positions, inside = crystal(96, seed=6)
    start = positions[inside] + [1.0, 0.0]
    everything = np.ones(len(start), dtype=bool)
    refined, _, _, _ = _kernels.refine_columns(image, start, everything, WIDTH, A / np.sqrt(3), 0.3)
    np.testing.assert_array_equal(refined, start)
    dark = np.zeros((40, 40))
    refined, amplitudes, deviation, _ = _kernels.refine_columns(
        dark, np.array([[20.0, 20.0]]), np.ones(1, dtype=bool), 3.0, 9.0, 3.0
    )
    assert refined.tolist() == [[20.0, 20.0]] and amplitudes[0] == 0 and np.isinf(deviation[0])
    far = np.array([[-400.0, 20.0], [20.0, 900.0]])
    refined, amplitudes, _, _ = _kernels.refine_columns(dark + 1, far, np.ones(2, dtype=bool), 3.0, 9.0, 3.0)
    np.testing.assert_array_equal(refined, far)
    nothing = _kernels.refine_columns(dark, np.zeros((0, 2)), np.ones(0, dtype=bool), 3.0, 9.0, 3.0)
    assert nothing[0].shape == (0, 2)


@settings(max_examples=20)
@given(gain=st.floats(1e-3, 1e3), offset=st.floats(-10, 10))
def test_refinement_follows_gain_and_offset(gain, offset):
    image, positions, inside = crystal(80, seed=7)
    movable = np.ones(inside.sum(), dtype=bool)
    arguments = (positions[inside] + 0.3, movable, WIDTH, A / np.sqrt(3), 0.2 * A)
    plain = _kernels.refine_columns(image, *arguments)
    other = _kernels.refine_columns(gain * (image + offset), *arguments)
    np.testing.assert_allclose(other[0], plain[0], atol=1e-7)
    np.testing.assert_allclose(other[1], gain * plain[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: _kernels.peak_response(np.zeros((4, 4), dtype=int), 2.0),
            TypeError,
            "image: expected float32 or float64",
        ),
        (lambda: _kernels.peak_response(np.zeros(4), 2.0), ValueError, r"image: expected shape \(H, W\)"),
        (lambda: _kernels.peak_response(np.zeros((4, 4)), 0.0), ValueError, "sigma: expected a width"),
        (lambda: _kernels.peak_response(np.zeros((4, 4)), np.nan), ValueError, "sigma: expected a width"),
        (lambda: _kernels.local_maxima(np.zeros(4)), ValueError, r"image: expected shape \(H, W\)"),
        (
            lambda: response_maxima(np.zeros((9, 9)), -1.0),
            ValueError,
            r"lattice_constant, width: expected positive numbers, got -1.0 and 0.12",
        ),
        (
            lambda: response_maxima(np.zeros((9, 9)), 9.0, capacity=-1),
            ValueError,
            r"capacity: expected an integer from 0 to \d+, got -1",
        ),
        (
            lambda: response_maxima(np.zeros((9, 9)), 9.0, threshold=np.nan),
            ValueError,
            "threshold: expected a finite number, got nan",
        ),
        (lambda: response_maxima(np.zeros(9), 9.0), ValueError, r"image: expected shape \(H, W\)"),
        (
            lambda: _core.local_maxima(np.zeros((4, 8))[:, ::2], 1),
            ValueError,
            "response: expected rows of adjacent pixels",
        ),
        (lambda: _kernels.Points(np.zeros((3, 3))), ValueError, r"positions: expected shape \(N, 2\)"),
        (lambda: _kernels.Points(POINTS).within(POINTS, np.inf, 1), ValueError, "reach: expected a positive distance"),
        (lambda: _kernels.Points(POINTS).nearest(POINTS, 0, 1), ValueError, "k: expected at least 1"),
        (
            lambda: _kernels.Points(POINTS).grow(np.zeros(700), 700, np.eye(2), 1.0, 9, 9, 1),
            ValueError,
            "seed: expected the number of a point",
        ),
        (
            lambda: _kernels.tile_spectra(np.zeros((9, 9)), np.array([[5, 5]]), np.array([5, 5]), 10, 4, 1.0),
            ValueError,
            "corners: expected tiles inside the image",
        ),
        (
            lambda: _kernels.refine_columns(np.zeros((9, 9)), POINTS, np.ones(3, dtype=bool), 1.0, 3.0, 1.0),
            ValueError,
            r"movable: expected shape \(N,\)",
        ),
        (
            lambda: _kernels.refine_columns(np.zeros((9, 9)), POINTS * np.nan, np.ones(700, dtype=bool), 1.0, 3.0, 1.0),
            ValueError,
            "positions: expected finite numbers",
        ),
    ],
)
def test_says_what_does_not_fit(call, error, message):
    with pytest.raises(error, match=message):
        call()
