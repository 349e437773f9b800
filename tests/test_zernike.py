"""ZernikeBasis against exact arithmetic, published conventions and its own symmetries."""

from __future__ import annotations

import pickle
import warnings
from fractions import Fraction

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import contextem as ctm
from contextem import reference, zernike

GOLDEN = {  # motif-learn 0.1.2, n_max 10, patch sin(0.3 i) + cos(0.2 j) + 0.01 i j
    (32, 0): [2.1343219405, 1.0743831219, 1.0594719156, 0.4452096752, 0.5509664862, 0.0608221377],
    (32, 60): [-0.1028891854, -0.0192392625, -0.0183269018, -0.0169240872, -0.1292340796, -0.0039000076],
    (23, 0): [0.8076298059, 0.0189788471, 0.017753657, 0.227101539, 0.1783774335, 0.1115594932],
}


def golden_patch(size):
    i, j = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    return np.sin(0.3 * i) + np.cos(0.2 * j) + 0.01 * i * j


@pytest.mark.parametrize(("size", "first"), GOLDEN)
def test_projection_has_the_published_values(size, first):
    moments = ctm.ZernikeBasis(10, size, "projection").weights @ golden_patch(size).ravel()
    np.testing.assert_allclose(moments[first : first + 6], GOLDEN[size, first], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("n_max", "size"), [(10, 32), (12, 23), (20, 47)])
def test_projection_equals_motif_learn(n_max, size):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports, not ours
        features = pytest.importorskip("mtflearn.features", reason="motif-learn is not installed")
        theirs = features.ZPs(n_max=n_max, size=size)
    ours = ctm.ZernikeBasis(n_max, size, "projection")
    np.testing.assert_array_equal(ours.n, theirs.n)
    np.testing.assert_array_equal(ours.m, theirs.m)
    patches = np.random.default_rng(0).random((3, size, size))
    expected = theirs.fit_transform(patches).data
    np.testing.assert_allclose(ctm.patch_moments(patches, ours), expected, rtol=0, atol=1e-9)


def test_projection_equals_mahotas_up_to_its_norm():
    mahotas = pytest.importorskip("mahotas", reason="mahotas is not installed")
    size = 33
    patch = 0.1 + np.random.default_rng(1).random((size, size))
    half = (size - 1) / 2
    theirs = mahotas.features.zernike_moments(patch, half, degree=10, cm=(half, half))
    basis = ctm.ZernikeBasis(10, size, "projection")
    moduli = ctm.rotation_invariants(basis.weights @ patch.ravel(), basis)
    n, order = np.array(basis.invariant_labels).T
    total = patch.ravel()[basis.weights[0] != 0].sum()
    np.testing.assert_allclose(oracles.mahotas_modulus(moduli, n, order, size, total), theirs, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("n_max", [6, 20, 60])
def test_polynomials_equal_exact_rational_arithmetic(n_max):
    # a coarse projection table is the polynomials at rational points
    size = 9
    basis = ctm.ZernikeBasis(n_max, size, "projection")
    values = basis.weights.reshape(-1, size, size) * (np.pi * size**2 / 4)
    points = [(4, 4), (3, 6), (4, 8), (7, 2), (1, 4), (6, 1), (4, 5)]
    for row, column in points[: 3 if n_max > 40 else None]:
        x, y = Fraction(2 * column - 8, 8), Fraction(2 * row - 8, 8)
        exact = [oracles.zernike(int(n), int(m), x, y) for n, m in zip(basis.n, basis.m, strict=True)]
        largest = np.sqrt(2 * (basis.n + 1))  # of a mode anywhere in the disk
        np.testing.assert_allclose(values[:, row, column] / largest, exact / largest, atol=2e-14, rtol=0)


@pytest.mark.parametrize(
    ("size", "pixels"), [(8, [(0, 2), (1, 1), (4, 7), (3, 3), (2, 0)]), (7, [(3, 3), (0, 3), (1, 0), (3, 6), (5, 4)])]
)
def test_integrated_equals_adaptive_quadrature(size, pixels):
    basis = ctm.ZernikeBasis(4, size)
    for row, column in pixels:
        exact = [
            oracles.pixel_integral(int(n), int(m), size, row, column) for n, m in zip(basis.n, basis.m, strict=True)
        ]
        np.testing.assert_allclose(basis.weights.reshape(-1, size, size)[:, row, column], exact, atol=1e-10, rtol=0)


@given(st.integers(0, 12), st.integers(3, 40))
def test_integrated_leaves_a_constant_alone(n_max, size):
    sums = ctm.ZernikeBasis(n_max, size).weights.sum(axis=1)
    np.testing.assert_allclose(sums, np.eye(len(sums))[0], atol=1e-13)


@pytest.mark.parametrize("mode", ["projection", "integrated"])
@pytest.mark.parametrize(("n_max", "size"), [(3, 4), (10, 23), (12, 32)])
def test_weights_equal_the_reference(mode, n_max, size):
    build = reference.projection_weights if mode == "projection" else reference.integrated_weights
    expected = build(n_max, size)
    actual = ctm.ZernikeBasis(n_max, size, mode).weights
    np.testing.assert_allclose(actual, expected, rtol=0, atol=64 * np.finfo(float).eps * abs(expected).max())


@given(st.integers(0, 10), st.integers(23, 40), st.integers(0, 1000))
def test_least_squares_returns_the_coefficients_of_a_reconstruction(n_max, size, seed):
    basis = ctm.ZernikeBasis(n_max, size, "lstsq")
    moments = np.random.default_rng(seed).normal(size=(2, basis.n_modes))
    patches = zernike.reconstruct(moments, basis)
    np.testing.assert_allclose(ctm.patch_moments(patches, basis), moments, atol=1e-12)


def test_reconstruct_evaluates_the_sum_of_polynomials():
    basis = ctm.ZernikeBasis(3, 9, "projection")
    moments = np.random.default_rng(0).normal(size=(1, basis.n_modes))
    value = sum(
        a * oracles.zernike(int(n), int(m), Fraction(1, 2), Fraction(-1, 4))
        for a, n, m in zip(moments[0], basis.n, basis.m, strict=True)
    )
    assert zernike.reconstruct(moments, basis)[0, 3, 6] == pytest.approx(value, abs=1e-13)
    assert zernike.reconstruct(moments, basis)[0, 0, 0] == 0.0


@pytest.mark.parametrize("mode", zernike.MODES)
@pytest.mark.parametrize("size", [23, 32])
def test_a_quarter_turn_is_exact(mode, size):
    basis = ctm.ZernikeBasis(10, size, mode)
    patches = np.random.default_rng(2).normal(size=(4, size, size))
    moments = ctm.patch_moments(patches, basis)
    # theta is counted from +column to +row, np.rot90 turns from +row to +column
    turned = ctm.patch_moments(np.rot90(patches, 1, axes=(1, 2)).copy(), basis)
    np.testing.assert_allclose(zernike.rotate(moments, basis, np.pi / 2), turned, atol=1e-12)
    np.testing.assert_allclose(
        ctm.rotation_invariants(moments, basis), ctm.rotation_invariants(turned, basis), atol=1e-12
    )


@given(st.floats(-10, 10), st.floats(-10, 10))
def test_rotations_compose_and_keep_the_invariants(first, second):
    basis = ctm.ZernikeBasis(8, 9)
    moments = np.random.default_rng(3).normal(size=(2, basis.n_modes))
    twice = zernike.rotate(zernike.rotate(moments, basis, first), basis, second)
    np.testing.assert_allclose(twice, zernike.rotate(moments, basis, first + second), atol=1e-12)
    np.testing.assert_allclose(
        ctm.rotation_invariants(twice, basis), ctm.rotation_invariants(moments, basis), atol=1e-12
    )


@given(
    st.integers(0, 12),
    st.lists(st.integers(0, 5), max_size=3),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from(["C", "step", "flip", "transpose"]),
    st.floats(-10, 10),
)
def test_invariants_and_rotation_equal_the_reference(n_max, leading, dtype, layout, angle):
    basis = ctm.ZernikeBasis(n_max, 9)
    shape = (*leading, basis.n_modes)
    block = np.random.default_rng(0).normal(size=[2 * extent for extent in shape]).astype(dtype)
    corner = block[tuple(slice(extent) for extent in shape)]
    moments = {
        "C": corner.copy(),
        "step": block[(slice(None, None, 2),) * len(shape)],
        "flip": corner[(slice(None, None, -1),) * len(shape)],
        "transpose": np.moveaxis(np.ascontiguousarray(np.moveaxis(corner, 0, -1)), -1, 0),
    }[layout]
    invariants = ctm.rotation_invariants(moments, basis)
    expected = ctm.rotation_invariants(moments, basis, backend="reference")
    assert invariants.shape == (*leading, len(basis.invariant_labels)) and invariants.dtype == dtype
    np.testing.assert_allclose(invariants, expected, rtol=2 * np.finfo(dtype).eps, atol=0)
    rotated = zernike.rotate(moments, basis, angle)
    expected = zernike.rotate(moments, basis, angle, backend="reference")
    assert rotated.shape == shape and rotated.dtype == dtype
    tolerance = 2 * np.finfo(dtype).eps * abs(moments).max(initial=1)
    np.testing.assert_allclose(rotated, expected, rtol=0, atol=tolerance)


@given(st.integers(0, 12), st.integers(3, 40), st.sampled_from(["integrated", "projection"]), st.integers(0, 20))
def test_reconstruct_equals_the_reference(n_max, size, mode, count):
    basis = ctm.ZernikeBasis(n_max, size, mode)
    for dtype in (np.float32, np.float64):
        moments = np.random.default_rng(0).normal(size=(count, basis.n_modes)).astype(dtype)
        patches = zernike.reconstruct(moments, basis)
        expected = zernike.reconstruct(moments, basis, backend="reference")
        assert patches.shape == (count, size, size) and patches.dtype == dtype
        terms = abs(moments) @ abs(basis._polynomials).astype(dtype)
        tolerance = 16 * np.finfo(dtype).eps * terms.reshape(patches.shape)
        assert (abs(patches - expected) <= tolerance).all()


def test_threads_do_not_change_a_bit_of_what_is_made_of_moments():
    basis = ctm.ZernikeBasis(6, 9)
    moments = np.random.default_rng(0).normal(size=(20_001, basis.n_modes)).astype(np.float32)
    for made in (
        lambda n: ctm.rotation_invariants(moments, basis, n_threads=n),
        lambda n: zernike.rotate(moments, basis, 0.3, n_threads=n),
        lambda n: zernike.reconstruct(moments[:1000], basis, n_threads=n),
    ):
        one = made(1)
        for n in (2, 3):
            np.testing.assert_array_equal(made(n), one)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_invariants_neither_overflow_nor_underflow(dtype):
    basis = ctm.ZernikeBasis(1, 8)
    information = np.finfo(dtype)
    large, small = information.max / 10, information.smallest_subnormal
    pairs = np.array(
        [(6 * large, 6 * large), (3 * small, 4 * small), (0, 0), (np.inf, np.nan), (np.nan, -np.inf), (np.nan, 1)]
    ).astype(dtype)
    moments = np.column_stack([np.ones(len(pairs), dtype), pairs])
    moduli = ctm.rotation_invariants(moments, basis)[:, 1]
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(moduli, np.hypot(*pairs.T), rtol=2 * information.eps)


def rotation_spread(mode, size):
    """Standard deviation of the invariants over 19 rotations of smooth fields, relative to their norm without a_00."""
    basis = ctm.ZernikeBasis(10, size, mode)
    axis = (2 * np.arange(size) + 1 - size) / size
    y, x = np.meshgrid(axis, axis, indexing="ij")
    spreads = []
    for seed in range(3):
        field = oracles.smooth_field(seed)
        angles = np.linspace(0, np.pi / 2, 19)
        patches = np.array([field(x * np.cos(a) - y * np.sin(a), x * np.sin(a) + y * np.cos(a)) for a in angles])
        invariants = ctm.rotation_invariants(ctm.patch_moments(patches, basis), basis)
        spreads.append(np.linalg.norm(invariants.std(axis=0)) / np.linalg.norm(invariants[:, 1:].mean(axis=0)))
    return np.mean(spreads)


@pytest.mark.parametrize("size", [23, 31, 47])
def test_invariants_hardly_change_when_a_smooth_field_rotates(size):
    projection, integrated, lstsq = (rotation_spread(mode, size) for mode in ("projection", "integrated", "lstsq"))
    # the point-sampled mask of the projection convention costs per cents, the integrated weights well under one
    assert 0.01 < projection < 0.12
    assert integrated < 0.006
    assert integrated < projection / 8
    assert lstsq < integrated


def test_modes_are_in_osa_order():
    basis = ctm.ZernikeBasis(10, 16)
    np.testing.assert_array_equal((basis.n * (basis.n + 2) + basis.m) // 2, np.arange(66))
    assert len(basis.invariant_labels) == 36
    assert basis.invariant_labels[:5] == ((0, 0), (1, 1), (2, 0), (2, 2), (3, 1))


def test_invariants_are_signed_for_m_0_and_keep_the_dtype():
    basis = ctm.ZernikeBasis(2, 8)
    moments = np.array([[-1, 3, 4, 6, -2, 8]], dtype=np.float32)
    invariants = ctm.rotation_invariants(moments, basis)
    assert invariants.dtype == np.float32
    np.testing.assert_array_equal(invariants, [[-1, 5, -2, 10]])


def test_a_basis_compares_hashes_and_pickles_by_its_parameters():
    basis = ctm.ZernikeBasis(4, 12, "lstsq")
    copy = pickle.loads(pickle.dumps(basis))
    assert copy == basis and hash(copy) == hash(basis) and copy != ctm.ZernikeBasis(4, 12)
    np.testing.assert_array_equal(copy.weights, basis.weights)
    with pytest.raises(ValueError, match="read-only"):
        basis.weights[0, 0] = 1.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((-1, 16), "n_max: expected an integer from 0 to 60, got -1"),
        ((61, 16), "n_max: expected an integer from 0 to 60, got 61"),
        ((2.5, 16), "n_max: expected an integer"),
        ((True, 16), "n_max: expected an integer"),
        ((4, 2), "size: expected an integer from 3 to 4096, got 2"),
        ((4, 16, "exact"), "mode: expected one of integrated, lstsq, projection, got 'exact'"),
        ((20, 23, "lstsq"), "n_max: 20 is too high for least squares on 23 pixels"),
        ((20, 5, "lstsq"), "n_max: 20 is too high for least squares on 5 pixels"),
    ],
)
def test_bad_bases_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        ctm.ZernikeBasis(*arguments)


def test_bad_moments_are_refused():
    basis = ctm.ZernikeBasis(2, 8)
    with pytest.raises(ValueError, match=r"moments: expected shape \(\.\.\., 6\) for this basis, got \(3, 5\)"):
        ctm.rotation_invariants(np.zeros((3, 5)), basis)
    with pytest.raises(TypeError, match="moments: expected float32 or float64, got int64"):
        ctm.rotation_invariants(np.zeros((3, 6), dtype=int), basis)
    with pytest.raises(ValueError, match="angle: expected a finite number, got nan"):
        zernike.rotate(np.zeros((3, 6)), basis, float("nan"))
    with pytest.raises(ValueError, match=r"moments: expected shape \(N, 6\), got \(6,\)"):
        zernike.reconstruct(np.zeros(6), basis)
