"""patch_moments and column_moments against the reference and their own invariances."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st

import contextem as ctm
from contextem import _core, zernike

MODES = st.sampled_from(zernike.MODES)


def bound(basis, largest, dtype):
    """16 eps of sum |w| |patch|, the scale on which a sum of products rounds; patches themselves are good to 8 eps."""
    return 16 * np.finfo(dtype).eps * largest * abs(basis.weights).sum(axis=1)


def assert_close(actual, expected, basis, largest):
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert (abs(actual - expected) <= bound(basis, largest, actual.dtype)).all()


@given(strategies.cases(), st.integers(0, 8), st.sampled_from(["integrated", "projection"]))
def test_cpp_equals_the_reference_and_fused_equals_two_steps(case, n_max, mode):
    basis = ctm.ZernikeBasis(n_max, case.size, mode)
    arguments = {"scale": case.scale, "interpolation": case.interpolation}
    largest = abs(case.image).max()
    fused = ctm.column_moments(case.image, case.positions, basis, **arguments)
    assert_close(
        fused, ctm.column_moments(case.image, case.positions, basis, backend="reference", **arguments), basis, largest
    )
    patches = ctm.extract_patches(case.image, case.positions, case.size, **arguments)
    assert_close(ctm.patch_moments(patches, basis, backend="reference"), fused, basis, largest)
    np.testing.assert_array_equal(ctm.patch_moments(patches, basis), fused)


@pytest.mark.parametrize(
    ("n_max", "size", "mode"),
    [(10, 32, "integrated"), (20, 47, "projection"), (12, 23, "lstsq"), (30, 65, "integrated")],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_bases_equal_the_reference(n_max, size, mode, dtype):
    basis = ctm.ZernikeBasis(n_max, size, mode)
    patches = np.random.default_rng(0).normal(size=(29, size, size)).astype(dtype)
    exact = patches.astype(np.float64).reshape(29, -1) @ basis.weights.T
    assert (abs(ctm.patch_moments(patches, basis) - exact) <= bound(basis, abs(patches).max(), dtype)).all()


@given(st.integers(0, 10), st.integers(3, 33), strategies.dtypes, st.integers(0, 100))
def test_patches_of_any_strides(n_max, size, dtype, seed):
    basis = ctm.ZernikeBasis(n_max, size)
    block = np.random.default_rng(seed).normal(size=(10, 2 * size, size)).astype(dtype)
    for view in (block[::2, ::2], block[::-1, :size, ::-1], block[:, :size].transpose(0, 2, 1)):
        np.testing.assert_array_equal(ctm.patch_moments(view, basis), ctm.patch_moments(view.copy(), basis))


@given(strategies.cases(max_positions=60), st.sampled_from([2, 3, 5]))
def test_threads_chunks_and_order_do_not_change_a_bit(case, n_threads):
    basis = ctm.ZernikeBasis(4, case.size)
    arguments = {"scale": case.scale, "interpolation": case.interpolation}
    one = ctm.column_moments(case.image, case.positions, basis, n_threads=1, **arguments)
    np.testing.assert_array_equal(
        one, ctm.column_moments(case.image, case.positions, basis, n_threads=n_threads, **arguments)
    )
    half = len(case.positions) // 2
    parts = [ctm.column_moments(case.image, part, basis, **arguments) for part in np.split(case.positions, [half])]
    np.testing.assert_array_equal(one, np.concatenate(parts))
    backwards = ctm.column_moments(case.image, case.positions[::-1], basis, **arguments)
    np.testing.assert_array_equal(one, backwards[::-1])


def test_calls_from_many_threads_agree():
    rng = np.random.default_rng(0)
    image, positions = rng.random((200, 200)), rng.uniform(0, 200, (3000, 2))
    basis = ctm.ZernikeBasis(10, 23)
    alone = ctm.column_moments(image, positions, basis)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: ctm.column_moments(image, positions, ctm.ZernikeBasis(10, 23)), range(8)):
            np.testing.assert_array_equal(result, alone)


@given(strategies.cases(), st.floats(-8, 8), st.floats(-8, 8), MODES)
def test_linear_in_the_image(case, a, b, mode):
    basis = ctm.ZernikeBasis(3, max(case.size, 8), mode)
    first = case.image.astype(np.float64)
    second = np.random.default_rng(0).normal(size=first.shape)
    arguments = {"scale": case.scale, "interpolation": case.interpolation}
    combined = ctm.column_moments(a * first + b * second, case.positions, basis, **arguments)
    parts = a * ctm.column_moments(first, case.positions, basis, **arguments) + b * ctm.column_moments(
        second, case.positions, basis, **arguments
    )
    largest = abs(a) * abs(first).max() + abs(b) * abs(second).max()
    assert (abs(combined - parts) <= 4 * bound(basis, largest, np.float64)).all()


@given(st.integers(0, 10), st.integers(3, 33), MODES.filter(lambda mode: mode != "lstsq"), st.integers(0, 100))
def test_adjoint(n_max, size, mode, seed):
    # <moments(patch), a> = <patch, sum_j a_j w_j>, where w_j is Z_j times the pixel's share of the disk's area
    basis = ctm.ZernikeBasis(n_max, size, mode)
    rng = np.random.default_rng(seed)
    patches, a = rng.normal(size=(3, size, size)), rng.normal(size=(3, basis.n_modes))
    forward = (ctm.patch_moments(patches, basis) * a).sum()
    share = np.full(size * size, 4 / (np.pi * size**2)) if mode == "projection" else basis.weights[0]
    backward = (patches.reshape(3, -1) * zernike.reconstruct(a, basis).reshape(3, -1) * share).sum()
    assert forward == pytest.approx(backward, abs=1e-10)


@given(st.integers(0, 12), st.integers(3, 40), st.integers(0, 50))
def test_a_constant_image_has_a_00_and_nothing_else(n_max, size, seed):
    basis = ctm.ZernikeBasis(n_max, size)
    positions = np.random.default_rng(seed).uniform(45, 55, (13, 2))
    moments = ctm.column_moments(np.full((100, 100), 3.0), positions, basis)
    np.testing.assert_allclose(moments, 3.0 * np.tile(np.eye(basis.n_modes)[0], (13, 1)), atol=1e-12)


@pytest.mark.parametrize("size", [23, 32])
@pytest.mark.parametrize("mode", zernike.MODES)
def test_a_turned_grid_is_a_rotation(size, mode, backend):
    basis = ctm.ZernikeBasis(10, size, mode)
    rng = np.random.default_rng(0)
    image, positions = rng.normal(size=(90, 90)), rng.uniform(30, 60, (7, 2))
    upright = ctm.column_moments(image, positions, basis, backend=backend)
    for turns in range(4):
        cosine, sine = round(np.cos(turns * np.pi / 2)), round(np.sin(turns * np.pi / 2))
        matrix = [
            [cosine, sine],
            [-sine, cosine],
        ]  # x = column, y = row: the sample at theta is taken from theta + angle
        turned = ctm.column_moments(image, positions, basis, scale=matrix, backend=backend)
        np.testing.assert_allclose(turned, zernike.rotate(upright, basis, turns * np.pi / 2), atol=1e-12)


def test_gain_and_offset_act_as_they_should():
    basis = ctm.ZernikeBasis(6, 24)
    rng = np.random.default_rng(1)
    image, positions = rng.normal(size=(80, 80)), rng.uniform(15, 65, (9, 2))
    moments = ctm.column_moments(image, positions, basis)
    changed = ctm.column_moments(2.5 * image + 7.0, positions, basis)
    expected = 2.5 * moments
    expected[:, 0] += 7.0
    np.testing.assert_allclose(changed, expected, atol=1e-11)


def test_a_table_without_parity_is_multiplied_whole():
    rng = np.random.default_rng(0)
    for size, modes in [(5, 3), (16, 20), (23, 40)]:
        for dtype in (np.float32, np.float64):
            weights = rng.normal(size=(modes, size * size))
            table = _core.MomentTable(weights, size, np.dtype(dtype))
            assert not table.folded
            patches = rng.normal(size=(31, size, size)).astype(dtype)
            exact = patches.astype(np.float64).reshape(31, -1) @ weights.T
            tolerance = 16 * np.finfo(dtype).eps * abs(patches).max() * abs(weights).sum(axis=1)
            assert (abs(_core.patch_moments(patches, table, 0) - exact) <= tolerance).all()


@pytest.mark.parametrize("mode", zernike.MODES)
@pytest.mark.parametrize("size", [9, 16, 23])
def test_every_basis_is_folded(mode, size):
    basis = ctm.ZernikeBasis(4, size, mode)
    assert basis.table.packed(np.dtype(np.float32)).folded
    assert basis.table.packed(np.dtype(np.float32)) is basis.table.packed(np.dtype(np.float32))


PATHS = """
import numpy as np
import contextem as ctm
from contextem import _core

rng = np.random.default_rng(0)
worst = 0.0
for dtype in (np.float32, np.float64):
    for size, scale in [(1, 1.0), (2, 1.0), (3, 0.5), (17, [[0.8, 0.3], [-0.3, 0.8]]), (23, 1.0), (32, 1.0), (32, 0.7)]:
        basis = ctm.ZernikeBasis(10, max(size, 3))
        image = rng.random((90, 90)).astype(dtype)
        for count in (0, 1, 40):
            positions = rng.integers(-5 * 64, 95 * 64, (count, 2)) / 64  # coordinates are exact
            moments = ctm.column_moments(image, positions, basis, scale=scale)
            expected = ctm.column_moments(image, positions, basis, scale=scale, backend="reference")
            patches = ctm.extract_patches(image, positions, size, scale=scale)
            exact = ctm.extract_patches(image, positions, size, scale=scale, backend="reference")
            assert moments.shape == expected.shape and patches.shape == exact.shape == (count, size, size)
            unit = np.finfo(dtype).eps * abs(basis.weights).sum(axis=1)
            worst = max(worst, (abs(moments - expected) / unit).max(initial=0))
            worst = max(worst, (abs(patches - exact) / np.finfo(dtype).eps).max(initial=0))
            whole = rng.random((count, basis.size, basis.size)).astype(dtype)
            expected = whole.reshape(count, basis.size**2) @ basis.weights.T
            worst = max(worst, (abs(ctm.patch_moments(whole, basis) - expected) / unit).max(initial=0))
print(_core.simd(), worst)
"""


@pytest.mark.parametrize("name", _core.simd_available())
def test_every_instruction_set_equals_the_reference(name, run_under):
    run = run_under(name, PATHS)
    assert run.returncode == 0, run.stderr
    used, worst = run.stdout.split()
    assert used == name
    assert float(worst) < 16


def test_an_instruction_set_that_is_not_there_is_an_error(run_under):
    run = run_under("baseline", PATHS)
    expected = (
        "ValueError: CONTEXTEM_SIMD: expected one of the instruction sets of this machine "
        f"({', '.join(_core.simd_available())}), got 'baseline'"
    )
    assert run.returncode != 0
    assert run.stderr.strip().splitlines()[-1] == expected


def test_no_positions_give_no_moments(backend):
    basis = ctm.ZernikeBasis(4, 9)
    assert ctm.column_moments(np.ones((9, 9)), np.zeros((0, 2)), basis, backend=backend).shape == (0, 15)
    assert ctm.patch_moments(np.ones((0, 9, 9)), basis, backend=backend).shape == (0, 15)


@settings(max_examples=20)
@given(st.integers(3, 40), st.integers(0, 10))
def test_scale_two_reads_every_second_pixel(size, seed):
    basis = ctm.ZernikeBasis(5, size)
    image = np.random.default_rng(seed).normal(size=(200, 200))
    centre = (np.array([[45.0, 47.0]]) + (size - 1) / 2) if size % 2 else np.array([[45.5, 47.5]]) + (size - 2) / 2
    fine = ctm.column_moments(image, 2 * centre, basis, scale=2.0)
    coarse = ctm.column_moments(image[::2, ::2], centre, basis)
    np.testing.assert_allclose(fine, coarse, atol=1e-12)


def test_bad_input_gets_one_sentence():
    basis = ctm.ZernikeBasis(4, 9)
    image = np.ones((20, 20))
    with pytest.raises(ValueError, match=r"patches: expected shape \(N, 9, 9\) for this basis, got \(5, 8, 8\)"):
        ctm.patch_moments(np.ones((5, 8, 8)), basis)
    with pytest.raises(ValueError, match=r"patches: expected shape \(N, 9, 9\) for this basis, got \(9, 9\)"):
        ctm.patch_moments(np.ones((9, 9)), basis)
    with pytest.raises(
        TypeError, match=r"patches: expected float32 or float64, got int64; convert with patches\.astype"
    ):
        ctm.patch_moments(np.ones((5, 9, 9), dtype=int), basis)
    with pytest.raises(TypeError, match="image: expected float32 or float64, got int32"):
        ctm.column_moments(image.astype(np.int32), [(1, 1)], basis)
    with pytest.raises(ValueError, match=r"positions: expected shape \(N, 2\), got \(17, 3\)"):
        ctm.column_moments(image, np.ones((17, 3)), basis)
    with pytest.raises(ValueError, match="positions: expected finite numbers"):
        ctm.column_moments(image, [(np.nan, 1)], basis)
    with pytest.raises(
        TypeError, match="patches: backend 'cuda' expects a CuPy array or torch CUDA tensor, got ndarray"
    ):
        ctm.patch_moments(np.ones((5, 9, 9)), basis, backend="cuda")


def test_a_torch_tensor_on_the_cpu_is_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"image: got a torch tensor on cpu; convert with image\.numpy\(\)"):
        ctm.column_moments(torch.ones(20, 20), [(1, 1)], ctm.ZernikeBasis(4, 9))


def test_strides_that_are_no_multiple_of_the_item_are_refused():
    record = np.zeros((20, 20), dtype=np.dtype([("value", "f4"), ("flag", "u1")]))
    with pytest.raises(ValueError, match="image: expected strides that are multiples of the item size"):
        ctm.column_moments(record["value"], [(10, 10)], ctm.ZernikeBasis(4, 9))
