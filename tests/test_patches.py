"""extract_patches, patch_complete and antialias against scipy and by hand."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import strategies
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

import contextem as ctm
from contextem.patches import antialias, patch_complete


def assert_close(actual, expected, image, coordinate_error=0.0):
    """Within 8 eps of the largest pixel: three blends of two operations each, and the rounding of the share."""
    assert actual.dtype == image.dtype
    largest = max(1e-30, abs(image).max())
    # a pixel apart, two values differ by up to twice the largest, along either axis
    tolerance = 8 * np.finfo(image.dtype).eps + 4 * coordinate_error
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * largest)


@given(strategies.cases())
def test_both_backends_equal_scipy(case):
    expected = oracles.interpolated_patches(case.image, case.positions, case.size, case.scale, case.interpolation)
    for backend in ("cpp", "reference"):
        patches = ctm.extract_patches(
            case.image, case.positions, case.size, scale=case.scale, interpolation=case.interpolation, backend=backend
        )
        assert_close(patches, expected, case.image)


@given(st.integers(0, 1000), st.integers(1, 40), strategies.dtypes)
def test_positions_without_a_binary_fraction(seed, size, dtype):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(90, 95)).astype(dtype)
    positions = rng.uniform(25, 65, (20, 2))
    scale = rng.uniform(0.3, 1.1)
    for s in (1.0, scale):
        expected = oracles.interpolated_patches(image, positions, size, s, "linear")
        patches = ctm.extract_patches(image, positions, size, scale=s)
        assert_close(patches, expected, image, coordinate_error=95 * np.finfo(np.float64).eps)


@pytest.mark.parametrize("size", [1, 2, 5, 8, 17, 32])
def test_a_patch_on_pixels_is_a_slice(backend, size):
    image = np.random.default_rng(0).random((40, 50), dtype=np.float32)
    centre = np.array([[4 + (size - 1) / 2, 9 + (size - 1) / 2]])
    patch = ctm.extract_patches(image, centre, size, backend=backend)[0]
    np.testing.assert_array_equal(patch, image[4 : 4 + size, 9 : 9 + size])


def test_a_matrix_turns_the_patch(backend):
    image = np.random.default_rng(0).random((40, 50))
    upright = ctm.extract_patches(image, [(20, 20)], 9, backend=backend)[0]
    # sample (k, l) is taken from (l, -k)
    turned = ctm.extract_patches(image, [(20, 20)], 9, scale=[[0, 1], [-1, 0]], backend=backend)[0]
    np.testing.assert_array_equal(turned, upright[:, ::-1].T)


def test_samples_outside_are_zero(backend):
    image = np.ones((10, 10))
    patches = ctm.extract_patches(image, [(0, 0), (9, 9.25), (-20, 5), (1e300, -1e300)], 3, backend=backend)
    np.testing.assert_array_equal(patches[0], [[0, 0, 0], [0, 1, 1], [0, 1, 1]])
    np.testing.assert_array_equal(patches[1], [[1, 0, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(patches[2:], 0)


def test_two_samples_between_the_same_pixels_at_the_border():
    rng = np.random.default_rng(0)
    image = rng.random((12, 18))[:, ::2]  # pixels apart are read one by one
    positions = np.array([[6.0, 0.0], [6.0, 8.0], [0.0, 4.0]])
    for scale in (0.7, [[0.7, 0], [0, -0.7]]):
        patches = ctm.extract_patches(image, positions, 3, scale=scale)
        expected = ctm.extract_patches(image, positions, 3, scale=scale, backend="reference")
        np.testing.assert_allclose(patches, expected, atol=1e-12)


def test_a_constant_image_gives_exactly_that_constant(backend):
    image = np.full((60, 60), np.float32(0.1))
    positions = np.random.default_rng(0).uniform(25, 35, (20, 2))
    for scale in (1.0, 0.77, [[0.9, 0.1], [-0.1, 0.9]]):
        assert (ctm.extract_patches(image, positions, 16, scale=scale, backend=backend) == np.float32(0.1)).all()


def test_the_last_pixel_of_a_buffer_is_not_passed():
    # a NaN beyond every border pixel shows any read outside the view
    padded = np.full((34, 36), np.nan)
    padded[1:-1, 1:-1] = 1.0
    view = padded[1:-1, 1:-1]
    rows, columns = np.meshgrid(np.arange(0, 32, 0.5), np.arange(0, 34, 0.5), indexing="ij")
    positions = np.stack([rows.ravel(), columns.ravel()], axis=1)
    for size, scale in [(16, 1.0), (17, 1.0), (16, 0.5), (3, 4.0), (9, [[0.5, 0.5], [-0.5, 0.5]])]:
        for layout in (view, view.T.copy().T):
            patches = ctm.extract_patches(layout, positions, size, scale=scale)
            assert np.isin(patches, [0.0, 1.0]).all()


def test_no_positions_give_no_patches(backend):
    assert ctm.extract_patches(np.ones((9, 9)), np.zeros((0, 2)), 5, backend=backend).shape == (0, 5, 5)
    assert ctm.extract_patches(np.ones((9, 9)), [], 5, backend=backend).shape == (0, 5, 5)


@given(strategies.cases(), st.sampled_from([1, 2, 3, 7]))
def test_threads_do_not_change_a_bit(case, n_threads):
    arguments = {"scale": case.scale, "interpolation": case.interpolation}
    one = ctm.extract_patches(case.image, case.positions, case.size, n_threads=1, **arguments)
    many = ctm.extract_patches(case.image, case.positions, case.size, n_threads=n_threads, **arguments)
    np.testing.assert_array_equal(one, many)


@given(strategies.cases())
@example(strategies.Case(np.ones((8, 8)), np.array([[3.5, 3.5], [4, 3.5], [3.5, 3]]), 8, 1.0, "linear"))
def test_complete_means_that_no_sample_was_outside(case):
    ones = np.ones(case.image.shape)
    patches = ctm.extract_patches(ones, case.positions, case.size, scale=case.scale)
    complete = patch_complete(case.image.shape, case.positions, case.size, scale=case.scale)
    assert complete.dtype == bool
    np.testing.assert_array_equal(complete, (patches == 1).all(axis=(1, 2)))


def test_antialias_removes_what_the_patch_grid_cannot_hold():
    row = np.arange(64)
    fine = np.tile(np.cos(np.pi * row), (64, 1)) + 5.0
    assert antialias(fine, 1.0) is fine
    assert antialias(fine, 0.5) is fine
    smooth = antialias(fine.astype(np.float32), 3.0)
    assert smooth.dtype == np.float32
    # a Gaussian of sigma passes exp(-(sigma k)^2 / 2) of a wave of wave number k = pi
    passed = np.exp(-((0.5 * np.sqrt(8) * np.pi) ** 2) / 2)
    assert abs(smooth[20:40, 20:40] - 5).max() < 2 * passed + 1e-4
    coarse = np.tile(np.cos(2 * np.pi * row / 16), (64, 1))
    expected = np.exp(-((0.5 * np.sqrt(1.25) * 2 * np.pi / 16) ** 2) / 2)
    assert antialias(coarse, 1.5)[32, 32] == pytest.approx(expected, rel=2e-3)


IMAGE = np.ones((20, 20))


@pytest.mark.parametrize(
    ("error", "sentence", "change"),
    [
        (ValueError, r"positions: expected shape \(N, 2\), got \(17, 3\)", {"positions": np.zeros((17, 3))}),
        (ValueError, r"positions: expected shape \(N, 2\), got \(2,\)", {"positions": [1, 2]}),
        (
            ValueError,
            r"positions: expected finite numbers, got \[nan, 2\.0\] in row 1",
            {"positions": [(1, 1), (np.nan, 2)]},
        ),
        (ValueError, r"positions: expected finite numbers, got \[inf, 2\.0\] in row 0", {"positions": [(np.inf, 2)]}),
        (TypeError, r"positions: expected real numbers \(row, column\), got complex128", {"positions": [(1j, 2)]}),
        (TypeError, r"positions: expected real numbers \(row, column\), got <U1", {"positions": [("a", "b")]}),
        (
            TypeError,
            r"image: expected float32 or float64, got uint16; convert with image\.astype\('float32'\)",
            {"image": IMAGE.astype(np.uint16)},
        ),
        (TypeError, "image: expected float32 or float64, got float16", {"image": IMAGE.astype(np.float16)}),
        (TypeError, "image: expected float32 or float64, got >f8", {"image": IMAGE.astype(">f8")}),
        (TypeError, "image: expected float32 or float64, got complex128", {"image": IMAGE * 1j}),
        (
            TypeError,
            "image: expected a NumPy array, a CuPy array or a torch CUDA tensor, got list",
            {"image": IMAGE.tolist()},
        ),
        (TypeError, "image: masked arrays are not supported", {"image": np.ma.masked_array(IMAGE)}),
        (
            ValueError,
            r"image: expected shape \(H, W\) with at least one pixel, got \(20, 20, 3\)",
            {"image": np.ones((20, 20, 3))},
        ),
        (
            ValueError,
            r"image: expected shape \(H, W\) with at least one pixel, got \(0, 5\)",
            {"image": np.ones((0, 5))},
        ),
        (ValueError, "size: expected an integer from 1 to 4096, got 0", {"size": 0}),
        (ValueError, r"size: expected an integer from 1 to 4096, got 4\.0", {"size": 4.0}),
        (ValueError, "scale: expected a positive number or an invertible 2x2 matrix, got 0", {"scale": 0}),
        (ValueError, "scale: expected a positive number or an invertible 2x2 matrix, got nan", {"scale": float("nan")}),
        (ValueError, "scale: expected a positive number or an invertible 2x2 matrix", {"scale": [[1, 1], [1, 1]]}),
        (ValueError, "scale: expected a positive number or an invertible 2x2 matrix", {"scale": [1, 2, 3]}),
        (TypeError, "scale: expected a number or a 2x2 matrix, got 'big'", {"scale": "big"}),
        (ValueError, "interpolation: expected one of linear, nearest, got 'cubic'", {"interpolation": "cubic"}),
        (ValueError, "n_threads: expected an integer from 0 to 1024, got -1", {"n_threads": -1}),
        (ValueError, "backend: expected one of cpp, cuda, reference, got 'metal'", {"backend": "metal"}),
        (
            TypeError,
            "image: backend 'cuda' expects a CuPy array or torch CUDA tensor, got ndarray",
            {"backend": "cuda"},
        ),
    ],
)
def test_bad_input_gets_one_sentence(error, sentence, change):
    arguments = {"image": IMAGE, "positions": [(5, 5)], "size": 4} | change
    with pytest.raises(error, match=sentence) as caught:
        ctm.extract_patches(arguments.pop("image"), arguments.pop("positions"), arguments.pop("size"), **arguments)
    assert "\n" not in str(caught.value)


def test_integer_and_float32_positions_are_taken_exactly():
    image = np.random.default_rng(0).random((20, 20))
    expected = ctm.extract_patches(image, np.array([[7.0, 9.0]]), 5)
    for dtype in (np.int32, np.uint8, np.float32):
        np.testing.assert_array_equal(ctm.extract_patches(image, np.array([[7, 9]], dtype=dtype), 5), expected)


def test_indices_are_of_64_bits(tmp_path):
    # more than 2^31 pixels, of which the file holds only those written
    side, size, path = 50_000, 33, tmp_path / "sparse"
    try:
        pixels = np.memmap(path, np.float32, "w+", shape=(side, side))
    except OSError as error:
        pytest.skip(f"no file of {4 * side**2:,} bytes can be made: {error}")
    if path.stat().st_blocks * 512 > pixels.nbytes // 100:
        pytest.skip("this file system has no sparse files")
    path.unlink()  # the mapping stays
    rng = np.random.default_rng(0)
    corner = rng.random((100, 120), dtype=np.float32)
    pixels[-100:, -120:] = corner
    image = np.asarray(pixels)
    origin = np.array([side - 100, side - 120])
    positions = rng.integers(0, 64 * np.array([110, 130]), (40, 2)) / 64
    assert image.size - 100 * side > 2**31
    basis = ctm.ZernikeBasis(4, size)
    for scale in (1.0, 0.75, [[0.75, 0.25], [-0.25, 0.75]]):
        for interpolation in ("linear", "nearest"):
            arguments = {"scale": scale, "interpolation": interpolation}
            patches = ctm.extract_patches(image, positions + origin, size, **arguments)
            inside = (positions > size).all(axis=1)  # the others see what lies before the corner
            np.testing.assert_array_equal(
                patches[inside], ctm.extract_patches(corner, positions[inside], size, **arguments)
            )
            moments = ctm.column_moments(image, positions + origin, basis, **arguments)
            np.testing.assert_array_equal(
                moments[inside], ctm.column_moments(corner, positions[inside], basis, **arguments)
            )
            np.testing.assert_array_equal(moments, ctm.patch_moments(patches, basis))
    far_apart = sliding_window_view(image, (size, size))[:: side - 100, side - 120]
    expected = ctm.patch_moments(np.stack([np.zeros_like(corner[:size, :size]), corner[:size, :size]]), basis)
    np.testing.assert_array_equal(ctm.patch_moments(far_apart, basis), expected)
