"""Moments at every pixel against column_moments, the reference and scipy's correlation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

import contextem as ctm
from contextem import _core, dense, zernike

METHODS = ("direct", "fft")


@dataclass
class Case:
    image: np.ndarray
    basis: ctm.ZernikeBasis

    @property
    def centres(self):
        """Where the patches of all pixels are centred, (H, W, 2)."""
        return np.moveaxis(np.indices(self.image.shape), 0, -1) + (1 - self.basis.size % 2) / 2

    @property
    def rounding(self):
        """The scale on which a patch's sum rounds: eps sum |w| max |image|, (J,)."""
        return np.finfo(self.image.dtype).eps * abs(self.basis.weights).sum(axis=1) * abs(self.image).max()

    @property
    def rounding_of_tiles(self):
        """The scale on which transforms round: eps |w| |image| in the Euclidean norm, (J,)."""
        norm = np.linalg.norm(self.image.astype(float))
        return np.finfo(self.image.dtype).eps * np.linalg.norm(self.basis.weights, axis=1) * norm


@st.composite
def cases(draw):
    """Draw an image of any layout, often smaller than the patch, and a basis."""
    drawn = draw(strategies.cases(max_positions=0))
    mode = draw(st.sampled_from(["integrated", "projection"]))
    return Case(drawn.image, ctm.ZernikeBasis(draw(st.integers(0, 8)), drawn.size, mode))


def assert_within(actual, expected, tolerance):
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert (abs(actual - expected) <= tolerance).all()


@given(cases())
def test_direct_equals_the_reference_and_the_moments_of_columns(case):
    moments = ctm.dense_moments(case.image, case.basis, method="direct")
    by_definition = ctm.dense_moments(case.image, case.basis, backend="reference")
    assert_within(moments, by_definition, 16 * case.rounding)
    columns = ctm.column_moments(case.image, case.centres.reshape(-1, 2), case.basis)
    np.testing.assert_array_equal(moments, columns.reshape(moments.shape))  # inside, and beyond the border as well


@given(cases())
def test_transforms_equal_the_reference(case):
    moments = ctm.dense_moments(case.image, case.basis, method="fft")
    by_definition = ctm.dense_moments(case.image, case.basis, backend="reference")
    assert_within(moments, by_definition, 8 * case.rounding_of_tiles + 16 * case.rounding)


@pytest.mark.parametrize("mode", zernike.MODES)
@pytest.mark.parametrize(("height", "width", "size", "n_max"), [(700, 330, 33, 10), (350, 640, 64, 6)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_tiles_are_one_image(height, width, size, n_max, mode, dtype):
    image = np.random.default_rng(0).normal(size=(height, width)).astype(dtype)
    case = Case(image, ctm.ZernikeBasis(n_max, size, mode))
    assert np.prod(dense.Tiling.of(image.shape, size).count) > 1
    moments = ctm.dense_moments(image, case.basis, method="fft")
    direct = ctm.dense_moments(image, case.basis, method="direct")
    assert_within(moments, direct, 8 * case.rounding_of_tiles)


@pytest.mark.parametrize("method", [*METHODS, "auto"])
@pytest.mark.parametrize("size", [3, 4, 7, 8])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (3, 5), (13, 12)])
def test_correlation_of_scipy(method, size, height, width):
    image = np.random.default_rng(0).normal(size=(height, width))
    basis = ctm.ZernikeBasis(3, size)
    moments = ctm.dense_moments(image, basis, method=method)
    first = size // 2  # scipy's first entry has but the first pixel, under the last sample of the patch
    for mode, weights in enumerate(basis.weights.reshape(-1, size, size)):
        whole = signal.correlate2d(image, weights, mode="full")
        expected = whole[first : first + height, first : first + width]
        np.testing.assert_allclose(moments[..., mode], expected, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
@given(case=cases(), n_threads=st.sampled_from([2, 3, 5]))
def test_threads_and_strides_do_not_change_a_bit(method, case, n_threads):
    one = ctm.dense_moments(case.image, case.basis, method=method, n_threads=1)
    many = ctm.dense_moments(case.image, case.basis, method=method, n_threads=n_threads)
    np.testing.assert_array_equal(one, many)
    copied = ctm.dense_moments(np.ascontiguousarray(case.image), case.basis, method=method)
    np.testing.assert_array_equal(one, copied)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [8, 9])
def test_bands_are_parts_of_the_whole(method, size):
    image = np.random.default_rng(0).normal(size=(90, 50))
    basis = ctm.ZernikeBasis(4, size)
    whole = ctm.dense_moments(image, basis, method=method)
    above = (size - 1) // 2
    for first in range(0, 90, 37):
        last = min(first + 37, 90)
        top = max(first - above, 0)
        band = ctm.dense_moments(image[top : last + size - 1 - above], basis, method=method)[first - top : last - top]
        np.testing.assert_allclose(band, whole[first:last], atol=0 if method == "direct" else 1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_calls_from_many_threads_agree(method):
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(60 + i % 3, 70)) for i in range(12)]
    basis = ctm.ZernikeBasis(6, 20)
    alone = [ctm.dense_moments(image, basis, method=method) for image in images]
    dense.SPECTRA.clear()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: ctm.dense_moments(image, basis, method=method), images))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


PATHS = """
import numpy as np
import contextem as ctm
from contextem import _core

rng = np.random.default_rng(0)
worst = 0.0
for dtype in (np.float32, np.float64):
    for size, height, width in [(3, 1, 1), (4, 5, 70), (9, 40, 3), (17, 30, 90), (32, 20, 33), (47, 50, 60)]:
        for mode in ("integrated", "projection"):
            basis = ctm.ZernikeBasis(10, size, mode)
            image = rng.random((height, width)).astype(dtype)
            moments = ctm.dense_moments(image, basis, method="direct")
            difference = abs(moments - ctm.dense_moments(image, basis, backend="reference"))
            worst = max(worst, (difference / np.finfo(dtype).eps / abs(basis.weights).sum(axis=1)).max())
print(_core.simd(), worst)
"""


@pytest.mark.parametrize("name", _core.simd_available())
def test_every_instruction_set_equals_the_reference(name, run_under):
    run = run_under(name, PATHS)
    assert run.returncode == 0, run.stderr
    used, worst = run.stdout.split()
    assert used == name
    assert float(worst) < 16


@pytest.mark.parametrize(("size", "faster"), [(5, "direct"), (90, "fft")])
def test_auto_takes_the_faster_method(size, faster):
    image = np.random.default_rng(0).normal(size=(64, 80)).astype(np.float32)
    basis = ctm.ZernikeBasis(4, size)
    assert dense.direct_is_faster(image.shape, basis) == (faster == "direct")
    results = {method: ctm.dense_moments(image, basis, method=method) for method in METHODS}
    assert (results["direct"] != results["fft"]).any()
    np.testing.assert_array_equal(ctm.dense_moments(image, basis), results[faster])


@pytest.mark.parametrize("simd", dense.DIRECT)
@pytest.mark.parametrize("n_max", [2, 10, 20])
def test_patches_have_one_size_from_which_transforms_are_faster(simd, n_max, monkeypatch):
    monkeypatch.setattr(_core, "simd", lambda: simd)
    direct = [dense.direct_is_faster((512, 512), ctm.ZernikeBasis(n_max, size)) for size in range(5, 97, 4)]
    assert direct[0]
    assert not direct[-1]
    assert direct == sorted(direct, reverse=True)


def test_a_pixel_that_is_not_finite_spoils_its_own_patches_only():
    image = np.ones((64, 80), np.float32)
    image[5, 6] = np.inf
    basis = ctm.ZernikeBasis(2, 64)
    assert not dense.direct_is_faster(image.shape, basis)
    moments = ctm.dense_moments(image, basis)
    np.testing.assert_array_equal(moments, ctm.dense_moments(image, basis, method="direct"))
    assert np.isfinite(moments[40:, 40:]).all()


def test_spectra_are_kept_up_to_a_limit():
    kept = dense.Spectra(limit=100)
    made = []

    def spectrum(name, n_bytes):
        return kept.get(name, lambda: made.append(name) or np.zeros(n_bytes, np.uint8))

    first = spectrum("a", 40)
    spectrum("b", 40)
    assert spectrum("a", 40) is first  # used last, so that b goes first
    spectrum("c", 40)
    assert list(kept.kept) == ["a", "c"]
    assert kept.n_bytes == 80
    spectrum("b", 40)
    assert made == ["a", "b", "c", "b"]
    assert spectrum("whole", 101).nbytes == 101
    assert (len(kept.kept), kept.n_bytes) == (0, 0)
    kept.clear()


def test_spectra_serve_the_next_image_and_stay_bounded(monkeypatch):
    spectra = dense.Spectra(limit=400_000)
    monkeypatch.setattr(dense, "SPECTRA", spectra)
    rng = np.random.default_rng(0)
    basis = ctm.ZernikeBasis(3, 20)
    ctm.dense_moments(rng.random((30, 40)), basis, method="fft")
    before = dict(spectra.kept)
    assert len(before) == 2  # ten modes, eight in a group
    ctm.dense_moments(rng.random((30, 40)), basis, method="fft")
    assert all(spectra.kept[key] is value for key, value in before.items())
    for height in range(20, 60, 5):
        ctm.dense_moments(rng.random((height, 40)), basis, method="fft")
        assert 0 < spectra.n_bytes == sum(value.nbytes for value in spectra.kept.values()) <= spectra.limit
    kept = dict(spectra.kept)
    ctm.dense_moments(rng.random((200, 200)), basis, method="fft")  # too large to keep: nothing else goes for it
    assert dict(spectra.kept) == kept


def test_kept_spectra_of_one_precision_do_not_serve_the_other():
    image = np.random.default_rng(0).random((30, 40))
    basis = ctm.ZernikeBasis(3, 20)
    single = ctm.dense_moments(image.astype(np.float32), basis, method="fft")
    double = ctm.dense_moments(image, basis, method="fft")
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    exact = ctm.dense_moments(image, basis, backend="reference")
    assert abs(double - exact).max() < 1e-14 < abs(single - exact).max()


def test_bad_input_gets_one_sentence():
    basis, image = ctm.ZernikeBasis(4, 9), np.ones((20, 20))
    with pytest.raises(ValueError, match=r"image: expected shape \(H, W\) with at least one pixel, got \(3, 20, 20\)"):
        ctm.dense_moments(np.ones((3, 20, 20)), basis)
    with pytest.raises(ValueError, match=r"image: expected shape \(H, W\) with at least one pixel, got \(0, 20\)"):
        ctm.dense_moments(image[:0], basis)
    with pytest.raises(TypeError, match="image: expected float32 or float64, got int32"):
        ctm.dense_moments(image.astype(np.int32), basis)
    with pytest.raises(TypeError, match="image: expected a NumPy array, a CuPy array or a torch CUDA tensor, got list"):
        ctm.dense_moments(image.tolist(), basis)
    with pytest.raises(ValueError, match="method: expected one of auto, direct, fft, got 'fast'"):
        ctm.dense_moments(image, basis, method="fast")
    with pytest.raises(ValueError, match="n_threads: expected an integer from 0 to 1024, got -1"):
        ctm.dense_moments(image, basis, n_threads=-1)
    with pytest.raises(ValueError, match="backend: expected one of cpp, reference, got 'cuda'"):
        ctm.dense_moments(image, basis, backend="cuda")
    with pytest.raises(ValueError, match="backend: expected None for method 'fft', got 'reference'"):
        ctm.dense_moments(image, basis, method="fft", backend="reference")
    image[3, 4] = np.nan
    with pytest.raises(ValueError, match="image: expected finite pixels for method 'fft'"):
        ctm.dense_moments(image, basis, method="fft")


def test_an_array_in_cuda_memory_is_refused(monkeypatch):
    monkeypatch.setattr("contextem._arrays.family", lambda name, array: "torch")
    with pytest.raises(TypeError, match=r"image: expected a NumPy array, .* no CUDA kernel yet; copy it to the host"):
        ctm.dense_moments(np.ones((20, 20)), ctm.ZernikeBasis(4, 9))


@pytest.mark.parametrize("method", METHODS)
def test_strides_that_are_no_multiple_of_the_item(method):
    record = np.zeros((20, 20), dtype=np.dtype([("value", "f4"), ("flag", "u1")]))
    if method == "fft":
        assert not ctm.dense_moments(record["value"], ctm.ZernikeBasis(4, 9), method=method).any()
        return
    with pytest.raises(ValueError, match="image: expected strides that are multiples of the item size"):
        ctm.dense_moments(record["value"], ctm.ZernikeBasis(4, 9), method=method)
