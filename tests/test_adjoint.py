"""The adjoint of the moments: its definition, the reference, and what must not change it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

import contextem as ctm
from contextem import _core, reference, zernike
from contextem.adjoint import column_moments_position_gradient

MODES = st.sampled_from(["integrated", "projection"])
MATRIX = [[0.8, 0.3], [-0.3, 0.8]]


def gradient_of(case, basis, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(len(case.positions), basis.n_modes)).astype(case.image.dtype)


def sampling(case):
    return {"scale": case.scale, "interpolation": case.interpolation}


def matrix_of(scale):
    return np.asarray(scale, float) if np.ndim(scale) == 2 else float(scale) * np.eye(2)


def pixel_bound(gradient, positions, basis, shape, scale, interpolation, c=32):
    """c eps times the sum of the absolute values of all that a pixel adds up."""
    parts = abs(gradient).astype(float), positions, abs(basis.weights), basis.size, matrix_of(scale)
    largest = reference.column_moments_adjoint(*parts, interpolation, shape)
    return c * np.finfo(gradient.dtype).eps * largest + np.finfo(gradient.dtype).tiny


@given(strategies.cases(), st.integers(0, 8), MODES)
def test_adjointness(case, n_max, mode):
    basis = ctm.ZernikeBasis(n_max, case.size, mode)
    gradient = gradient_of(case, basis)
    moments = ctm.column_moments(case.image, case.positions, basis, **sampling(case))
    image = ctm.column_moments_adjoint(gradient, case.positions, basis, case.image.shape, **sampling(case))
    assert image.shape == case.image.shape and image.dtype == gradient.dtype
    forward = np.vdot(moments.astype(float), gradient)
    backward = np.vdot(case.image, image.astype(float))
    # 32 eps of the sum of the absolute values of all products
    terms = abs(case.image).max() * (abs(gradient) @ abs(basis.weights).sum(axis=1)).sum()
    assert abs(forward - backward) <= 32 * np.finfo(gradient.dtype).eps * terms


@pytest.mark.parametrize("scale", [1.0, 0.7, MATRIX])
def test_adjointness_where_the_parity_of_the_weights_is_rounded(scale):
    basis = ctm.ZernikeBasis(10, 23, "lstsq")
    rng = np.random.default_rng(0)
    image, positions = rng.normal(size=(70, 80)), rng.uniform(-5, 75, (40, 2))
    gradient = rng.normal(size=(40, basis.n_modes))
    forward = np.vdot(ctm.column_moments(image, positions, basis, scale=scale), gradient)
    adjoint = ctm.column_moments_adjoint(gradient, positions, basis, image.shape, scale=scale)
    assert forward == pytest.approx(np.vdot(image, adjoint), rel=0, abs=1e-12)


@given(strategies.cases(), st.integers(0, 8), MODES)
def test_cpp_equals_the_reference(case, n_max, mode):
    basis = ctm.ZernikeBasis(n_max, case.size, mode)
    gradient, shape = gradient_of(case, basis), case.image.shape
    arguments = gradient, case.positions, basis, shape
    actual = ctm.column_moments_adjoint(*arguments, **sampling(case))
    expected = ctm.column_moments_adjoint(*arguments, backend="reference", **sampling(case))
    assert actual.dtype == expected.dtype
    assert (abs(actual - expected) <= pixel_bound(*arguments, case.scale, case.interpolation)).all()


@given(st.integers(0, 12), st.integers(3, 40), MODES, strategies.dtypes, st.integers(0, 30))
def test_patches_equal_the_product_with_the_weights(n_max, size, mode, dtype, count):
    basis = ctm.ZernikeBasis(n_max, size, mode)
    gradient = np.random.default_rng(count).normal(size=(count, basis.n_modes)).astype(dtype)
    patches = ctm.patch_moments_adjoint(gradient, basis)
    assert patches.shape == (count, size, size) and patches.dtype == dtype
    exact = gradient.astype(float) @ basis.weights
    tolerance = 16 * np.finfo(dtype).eps * (abs(gradient).astype(float) @ abs(basis.weights)) + np.finfo(dtype).tiny
    assert (abs(patches.reshape(exact.shape) - exact) <= tolerance).all()
    by_definition = ctm.patch_moments_adjoint(gradient, basis, backend="reference")
    assert (abs(patches - by_definition).reshape(exact.shape) <= 2 * tolerance).all()


@pytest.mark.parametrize(
    ("n_max", "size", "mode"),
    [(10, 32, "integrated"), (10, 32, "lstsq"), (12, 23, "lstsq"), (20, 47, "projection"), (20, 65, "integrated")],
)
def test_large_bases(n_max, size, mode):
    basis = ctm.ZernikeBasis(n_max, size, mode)
    gradient = np.random.default_rng(0).normal(size=(29, basis.n_modes))
    exact = gradient @ basis.weights
    # the weights of least squares have their parity to 1e-10 only
    tolerance = 1e-10 * abs(exact).max() if mode == "lstsq" else 1e-14 * abs(exact).max()
    assert abs(ctm.patch_moments_adjoint(gradient, basis).reshape(29, -1) - exact).max() <= tolerance


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
@pytest.mark.parametrize("scale", [1.0, 0.5, 1.75, MATRIX, [[0, 1], [-1, 0]]])
@pytest.mark.parametrize("size", [4, 5])
def test_it_is_the_transpose_of_the_dense_matrix(size, scale, interpolation):
    shape = (7, 9)
    basis = ctm.ZernikeBasis(3, size)
    # inside, on the border and its corner, on pixels and between them, astride and outside
    positions = np.array([(3.3, 4.6), (0, 0), (6, 8), (3, 4), (2.5, 4.5), (-1.25, 3.5), (6.75, 9.5), (40, 40)])
    unit_images = np.eye(63).reshape(63, *shape)
    arguments = {"scale": scale, "interpolation": interpolation}
    dense = np.array([ctm.column_moments(image, positions, basis, **arguments).ravel() for image in unit_images])
    gradient = np.random.default_rng(0).normal(size=(len(positions), basis.n_modes))
    image = ctm.column_moments_adjoint(gradient, positions, basis, shape, **arguments)
    np.testing.assert_allclose(image.ravel(), dense @ gradient.ravel(), rtol=0, atol=1e-14)


@given(strategies.cases(), st.floats(-8, 8), st.floats(-8, 8))
def test_linear_in_the_gradient(case, a, b):
    basis = ctm.ZernikeBasis(3, case.size)
    first, second = (gradient_of(case, basis, seed).astype(float) for seed in (1, 2))

    def adjoint(gradient):
        return ctm.column_moments_adjoint(gradient, case.positions, basis, case.image.shape, **sampling(case))

    bound = pixel_bound(
        abs(a * first) + abs(b * second), case.positions, basis, case.image.shape, case.scale, case.interpolation
    )
    combined, parts = adjoint(a * first + b * second), a * adjoint(first) + b * adjoint(second)
    assert (abs(combined - parts) <= 2 * bound).all()


@given(strategies.cases(max_positions=60), st.sampled_from([2, 3, 5, 64]))
def test_threads_do_not_change_a_bit(case, n_threads):
    basis = ctm.ZernikeBasis(4, case.size)
    arguments = gradient_of(case, basis), case.positions, basis, case.image.shape
    one = ctm.column_moments_adjoint(*arguments, n_threads=1, **sampling(case))
    many = ctm.column_moments_adjoint(*arguments, n_threads=n_threads, **sampling(case))
    np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
@pytest.mark.parametrize("scale", [1.0, 0.75, 3.0, 6.0, MATRIX])
def test_threads_share_a_large_image(scale, interpolation):
    rng = np.random.default_rng(0)
    positions = rng.uniform(-10, 610, (900, 2))
    basis = ctm.ZernikeBasis(5, 9)
    gradient = rng.normal(size=(900, basis.n_modes)).astype(np.float32)
    arguments = gradient, positions, basis, (600, 500)
    options = {"scale": scale, "interpolation": interpolation}
    one = ctm.column_moments_adjoint(*arguments, n_threads=1, **options)
    for n_threads in (2, 7):
        np.testing.assert_array_equal(one, ctm.column_moments_adjoint(*arguments, n_threads=n_threads, **options))
    expected = ctm.column_moments_adjoint(*arguments, backend="reference", **options)
    assert (abs(one - expected) <= pixel_bound(*arguments, scale, interpolation)).all()


def test_samples_closer_than_a_pixel_at_the_border():
    # those inside start on a pixel and end before the next one, or the other way round
    basis = ctm.ZernikeBasis(6, 3)
    gradient = np.random.default_rng(0).normal(size=(4, basis.n_modes))
    positions = np.array([(4.0, 0.0), (0.0, 4.0), (4.0, 8.0), (6.0, 4.0)])
    for scale in (0.3, [[0.3, 0], [0, -0.3]], [[-0.3, 0], [0, 0.3]]):
        arguments = gradient, positions, basis, (7, 9)
        actual = ctm.column_moments_adjoint(*arguments, scale=scale)
        expected = ctm.column_moments_adjoint(*arguments, scale=scale, backend="reference")
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-15)
        image = np.random.default_rng(1).normal(size=(7, 9))
        actual = ctm.column_moments(image, positions, basis, scale=scale)
        expected = ctm.column_moments(image, positions, basis, scale=scale, backend="reference")
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-14)


def test_parts_of_the_columns_add_up():
    rng = np.random.default_rng(1)
    basis, shape = ctm.ZernikeBasis(6, 16), (90, 70)
    positions = rng.uniform(-4, 90, (50, 2))
    gradient = rng.normal(size=(50, basis.n_modes))
    whole = ctm.column_moments_adjoint(gradient, positions, basis, shape)
    halves = [
        ctm.column_moments_adjoint(gradient[part], positions[part], basis, shape)
        for part in (slice(20), slice(20, None))
    ]
    np.testing.assert_allclose(sum(halves), whole, rtol=0, atol=1e-14)
    patches = ctm.patch_moments_adjoint(gradient, basis, n_threads=1)
    parts = [ctm.patch_moments_adjoint(part, basis, n_threads=3) for part in np.split(gradient, [5, 31])]
    np.testing.assert_array_equal(np.concatenate(parts), patches)


@given(st.integers(0, 8), st.integers(3, 20), strategies.dtypes)
def test_gradients_of_any_strides(n_max, size, dtype):
    basis = ctm.ZernikeBasis(n_max, size)
    n_modes = basis.n_modes
    block = np.random.default_rng(0).normal(size=(14, 2 * n_modes)).astype(dtype)
    wide = np.random.default_rng(1).normal(size=(n_modes, 7)).astype(dtype)
    positions = np.random.default_rng(2).uniform(0, 20, (7, 2))
    for view in (
        block[::2, ::2],
        block[7:, n_modes:][::-1, ::-1],
        wide.T,
        np.broadcast_to(block[0, :n_modes], (7, n_modes)),
    ):
        np.testing.assert_array_equal(
            ctm.patch_moments_adjoint(view, basis), ctm.patch_moments_adjoint(view.copy(), basis)
        )
        np.testing.assert_array_equal(
            ctm.column_moments_adjoint(view, positions, basis, (20, 21)),
            ctm.column_moments_adjoint(view.copy(), positions, basis, (20, 21)),
        )


def test_a_table_without_parity_is_multiplied_whole():
    rng = np.random.default_rng(0)
    for size, modes in [(5, 3), (16, 20), (23, 40)]:
        for dtype in (np.float32, np.float64):
            weights = rng.normal(size=(modes, size * size))
            weights[:, : size // 2] = 0.0  # rows need not be full
            table = _core.AdjointTable(weights, size, np.dtype(dtype))
            assert not table.folded
            gradient = rng.normal(size=(31, modes)).astype(dtype)
            exact = gradient.astype(float) @ weights
            tolerance = 16 * np.finfo(dtype).eps * (abs(gradient).astype(float) @ abs(weights))
            assert (abs(_core.patch_moments_adjoint(gradient, table, 0).reshape(31, -1) - exact) <= tolerance).all()


def test_no_positions_give_an_empty_image(backend):
    basis = ctm.ZernikeBasis(4, 9)
    nothing = np.zeros((0, 15), np.float32)
    image = ctm.column_moments_adjoint(nothing, np.zeros((0, 2)), basis, (5, 6), backend=backend)
    np.testing.assert_array_equal(image, np.zeros((5, 6), np.float32))
    assert ctm.patch_moments_adjoint(nothing, basis, backend=backend).shape == (0, 9, 9)
    slopes = column_moments_position_gradient(nothing, image, np.zeros((0, 2)), basis, backend=backend)
    assert slopes.shape == (0, 2)


# ---- with respect to positions --------------------------------------------------------------------------------------


@given(strategies.cases(), st.integers(0, 8), st.sampled_from([1, 2, 5]))
def test_position_gradient_equals_the_reference(case, n_max, n_threads):
    basis = ctm.ZernikeBasis(n_max, case.size)
    gradient = gradient_of(case, basis)
    arguments = gradient, case.image, case.positions, basis
    actual = column_moments_position_gradient(*arguments, scale=case.scale, n_threads=n_threads)
    expected = column_moments_position_gradient(*arguments, scale=case.scale, backend="reference")
    assert actual.shape == expected.shape == case.positions.shape and actual.dtype == np.float64
    # 32 eps of the sum of |q| times the largest slope, plus what rounded shares do to it
    largest = abs(gradient).astype(float) @ abs(basis.weights).sum(axis=1)
    tolerance = 32 * np.finfo(gradient.dtype).eps * 4 * abs(case.image).max() * largest
    assert (abs(actual - expected) <= tolerance[:, None]).all()


@pytest.mark.parametrize("scale", [1.0, 0.5, [[0.5, 0.25], [-0.25, 0.5]]])
@pytest.mark.parametrize("size", [8, 9])
def test_position_gradient_is_the_difference_quotient(size, scale):
    rng = np.random.default_rng(0)
    basis = ctm.ZernikeBasis(5, size)
    image = rng.normal(size=(40, 50))
    # no sample within a step of a pixel line, along which the moments are smooth
    positions = rng.integers(10, 28, (12, 2)) + rng.choice([1 / 16, 3 / 16], (12, 2))
    gradient = rng.normal(size=(12, basis.n_modes))
    slopes = column_moments_position_gradient(gradient, image, positions, basis, scale=scale)
    step = 2.0**-8
    for axis in (0, 1):
        shift = step * np.eye(2)[axis]
        ahead, behind = (ctm.column_moments(image, positions + s * shift, basis, scale=scale) for s in (1, -1))
        quotient = ((ahead - behind) * gradient).sum(axis=1) / (2 * step)
        np.testing.assert_allclose(slopes[:, axis], quotient, rtol=0, atol=1e-11)


# ---- instruction sets and refusals ----------------------------------------------------------------------------------

DIGEST = """
import numpy as np, contextem as ctm
from contextem import _core
from contextem.adjoint import column_moments_position_gradient
rng = np.random.default_rng(0)
print(_core.simd())
worst = 0.0
for dtype in (np.float32, np.float64):
    for size, scale in [(23, 1.0), (32, 1.0), (32, 0.7), (17, [[0.8, 0.3], [-0.3, 0.8]])]:
        basis = ctm.ZernikeBasis(10, size)
        image, positions = rng.random((90, 90)).astype(dtype), rng.uniform(-5, 95, (40, 2))
        gradient = rng.normal(size=(40, basis.n_modes)).astype(dtype)
        arguments = gradient, positions, basis, image.shape
        expected = ctm.column_moments_adjoint(*arguments, scale=scale, backend="reference")
        unit = np.finfo(dtype).eps * abs(expected).max()
        worst = max(worst, abs(ctm.column_moments_adjoint(*arguments, scale=scale) - expected).max() / unit)
        slopes, by_definition = (
            column_moments_position_gradient(gradient, image, positions, basis, scale=scale, backend=backend)
            for backend in (None, "reference")
        )
        worst = max(worst, abs(slopes - by_definition).max() / (np.finfo(dtype).eps * abs(by_definition).max()))
print(worst)
"""


@pytest.mark.parametrize("name", _core.simd_available())
def test_every_instruction_set_equals_the_reference(name, run_under):
    run = run_under(name, DIGEST)
    assert run.returncode == 0, run.stderr
    used, worst = run.stdout.split()
    assert used == name
    assert float(worst) < 32


class DeviceLookalike:
    shape, ndim, dtype = (3, 15), 2, np.dtype(np.float32)


def test_bad_input_gets_one_sentence(monkeypatch):
    basis, positions = ctm.ZernikeBasis(4, 9), np.zeros((3, 2))
    gradient = np.ones((3, 15))
    with pytest.raises(ValueError, match=r"gradient: expected shape \(N, 15\) for this basis, got \(3, 14\)"):
        ctm.patch_moments_adjoint(np.ones((3, 14)), basis)
    with pytest.raises(ValueError, match=r"gradient: expected shape \(3, 15\), a row per position, got \(4, 15\)"):
        ctm.column_moments_adjoint(np.ones((4, 15)), positions, basis, (20, 20))
    with pytest.raises(TypeError, match="gradient: expected float32 or float64, got int64"):
        ctm.patch_moments_adjoint(np.ones((3, 15), dtype=int), basis)
    with pytest.raises(ValueError, match="positions: expected finite numbers"):
        ctm.column_moments_adjoint(gradient, [(np.nan, 1)] * 3, basis, (20, 20))
    for shape in [(20,), (20, 0), (20, 20, 1), 20, (2.5, 3)]:
        with pytest.raises(ValueError, match=r"shape: expected \(H, W\), two positive integers, got"):
            ctm.column_moments_adjoint(gradient, positions, basis, shape)
    with pytest.raises(TypeError, match="image: expected float64 like the gradient, got float32; convert one of them"):
        column_moments_position_gradient(gradient, np.ones((20, 20), np.float32), positions, basis)
    with pytest.raises(TypeError, match="gradient: backend 'cuda' expects a CuPy array or torch CUDA tensor, got nd"):
        ctm.patch_moments_adjoint(gradient, basis, backend="cuda")
    cupy = type(sys)("cupy")
    cupy.ndarray = DeviceLookalike
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    sentence = (
        "{}: expected a NumPy array, got DeviceLookalike, for which there is no CUDA kernel yet; "
        "copy it to the host first"
    )
    for name, call in [
        ("moments", lambda: zernike.rotate(DeviceLookalike(), basis, 0.1)),
        ("moments", lambda: zernike.reconstruct(DeviceLookalike(), basis)),
    ]:
        with pytest.raises(TypeError, match=sentence.format(name)):
            call()


def test_the_extension_refuses_what_does_not_fit():
    basis = ctm.ZernikeBasis(2, 8)
    table = _core.AdjointTable(basis.weights, 8, np.dtype(np.float64))
    assert table.folded and table.dtype == "float64"
    with pytest.raises(TypeError, match="table: expected the array's precision, got float64"):
        _core.patch_moments_adjoint(np.ones((3, 6), np.float32), table, 0)
    with pytest.raises(ValueError, match=r"gradient: expected shape \(N, J\) with J = 6"):
        _core.patch_moments_adjoint(np.ones((3, 5)), table, 0)
    with pytest.raises(ValueError, match="gradient: expected one row per position, got 3 for 2"):
        _core.column_moments_adjoint(np.ones((3, 6)), np.ones((2, 2)), table, np.eye(2), False, 9, 9, 0)
    record = np.zeros((20, 6), dtype=np.dtype([("value", "f4"), ("flag", "u1")]))
    with pytest.raises(ValueError, match="gradient: expected strides that are multiples of the item size"):
        ctm.patch_moments_adjoint(record["value"], basis)
