"""Virtual detectors and sums of patterns against sums by einsum and by Python's integers and fractions."""

from __future__ import annotations

import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextem import _core
from contextem._arrays import PIXEL_TYPES
from contextem.virtual_detectors import VirtualDetectors, annulus, sum_patterns, virtual_detectors

INTEGERS = [name for name in PIXEL_TYPES if not name.startswith("float")]
dtypes = st.sampled_from(PIXEL_TYPES)
sides = st.integers(1, 70)


def random_patterns(rng, shape, dtype):
    """Fill the whole range of an integer type; floats of all sizes and signs."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    return (rng.normal(size=shape) * 10.0 ** rng.integers(-3, 4, shape)).astype(dtype)


@st.composite
def scans(draw, max_patterns=6):
    """Draw patterns and masks of any shape, from rings to single pixels that lie anywhere."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(sides), draw(sides)
    patterns = random_patterns(rng, (draw(st.integers(0, max_patterns)), *shape), draw(dtypes))
    masks = []
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            centre = rng.uniform(-0.2, 1.2, 2) * shape
            inner = draw(st.integers(0, 30))
            masks.append(annulus(shape, tuple(centre), inner, inner + draw(st.integers(1, 30))))
        else:
            masks.append(rng.random(shape) < draw(st.sampled_from([0.0, 0.03, 0.5, 0.97, 1.0])))
    return patterns, np.array(masks)


def assert_sums(actual, patterns, masks):
    """Integers by einsum in float64, which is exact here; floats to 8 eps of the sum of moduli."""
    exact = np.einsum("skl,dkl->sd", patterns.astype(float), masks.astype(float))
    assert actual.shape == exact.shape and actual.dtype == np.float64
    if patterns.dtype.kind == "f":
        moduli = np.einsum("skl,dkl->sd", abs(patterns.astype(float)), masks.astype(float))
        assert (abs(actual - exact) <= 8 * np.finfo(float).eps * moduli).all()
    else:
        np.testing.assert_array_equal(actual, exact)


@given(scans())
def test_sums_equal_einsum(scan):
    patterns, masks = scan
    for backend in ("cpp", "reference"):
        assert_sums(virtual_detectors(patterns, masks, backend=backend), patterns, masks)


@given(scans(), st.integers(0, 2**32 - 1))
def test_pixels_without_a_detector_are_not_seen(scan, seed):
    patterns, masks = scan
    elsewhere = ~masks.any(axis=0)
    changed = patterns.copy()
    changed[:, elsewhere] = random_patterns(np.random.default_rng(seed), changed[:, elsewhere].shape, patterns.dtype)
    if patterns.dtype.kind == "f":
        changed[:, elsewhere] = np.nan
    np.testing.assert_array_equal(virtual_detectors(changed, masks), virtual_detectors(patterns, masks))


@given(scans(max_patterns=40), st.sampled_from([2, 3, 7]), st.integers(1, 39))
def test_threads_and_blocks_do_not_change_a_bit(scan, n_threads, block):
    patterns, masks = scan
    detectors = VirtualDetectors(masks)
    whole = virtual_detectors(patterns, detectors, n_threads=1)
    np.testing.assert_array_equal(virtual_detectors(patterns, detectors, n_threads=n_threads), whole)
    blocks = [patterns[i : i + block] for i in range(0, max(1, len(patterns)), block)]
    parts = [virtual_detectors(part, detectors, n_threads=1) for part in blocks]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    total = np.zeros(patterns.shape[1:])
    for part in blocks:
        assert sum_patterns(part, total=total, n_threads=1) is total
    np.testing.assert_array_equal(sum_patterns(patterns, n_threads=n_threads), total)


def test_threads_share_a_long_scan():
    rng = np.random.default_rng(0)
    masks = np.array([annulus((64, 61), (31.2, 30.1), r, r + 9) for r in (0, 5, 20)])
    for dtype in ("uint8", "float32"):
        patterns = random_patterns(rng, (1500, 64, 61), dtype)
        one, many = (virtual_detectors(patterns, masks, n_threads=n) for n in (1, 3))
        np.testing.assert_array_equal(one, many)
        one, many = (sum_patterns(patterns, n_threads=n) for n in (1, 3))
        np.testing.assert_array_equal(one, many)
        np.testing.assert_array_equal(one, sum_patterns(patterns, backend="reference"))


@given(scans(), st.integers(-8, 8), st.integers(-8, 8))
def test_linear_in_the_patterns(scan, a, b):
    patterns, masks = scan
    first = np.round(np.clip(patterns.astype(float), -1e6, 1e6))  # so that every sum is exact
    second = np.roll(first[::-1], 3, axis=2)
    parts = a * virtual_detectors(first, masks) + b * virtual_detectors(second, masks)
    np.testing.assert_array_equal(virtual_detectors(a * first + b * second, masks), parts)


@given(scans(), st.integers(0, 2**32 - 1))
def test_the_union_of_disjoint_masks_is_their_sum(scan, seed):
    patterns, masks = scan
    if patterns.dtype.kind == "f":
        patterns = np.round(np.clip(patterns, -1e6, 1e6))
    whole = masks[0]
    owner = np.random.default_rng(seed).integers(0, 3, whole.shape)
    parts = np.array([whole & (owner == i) for i in range(3)])
    sums = virtual_detectors(patterns, np.concatenate([parts, whole[None]]))
    np.testing.assert_array_equal(sums[:, :3].sum(axis=1), sums[:, 3])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_extreme_integers_are_summed_exactly(dtype, backend):
    for extreme in (np.iinfo(dtype).min, np.iinfo(dtype).max):
        patterns = np.full((3, 513, 257), extreme, dtype)
        masks = np.array([np.ones((513, 257), bool), annulus((513, 257), (200, 100), 60, 90)])
        expected = [int(extreme) * int(mask.sum()) for mask in masks]
        assert virtual_detectors(patterns, masks, backend=backend).tolist() == [expected] * 3
        assert (sum_patterns(patterns, backend=backend) == 3 * int(extreme)).all()


def test_lanes_overflow_neither_in_large_patterns_nor_in_long_scans():
    large = np.full((1, 1, 2**22 + 7), 65535, np.uint16)
    assert virtual_detectors(large, np.ones((1, *large.shape[1:]), bool)).item() == 65535 * large.size
    for dtype, count in (("uint8", 1000), ("int8", 1000), ("uint16", 2**17 + 3), ("int16", 2**17 + 3)):
        for extreme in (np.iinfo(dtype).min, np.iinfo(dtype).max):
            assert sum_patterns(np.full((count, 1, 9), extreme, dtype)).tolist() == [[count * int(extreme)] * 9]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_are_summed_in_double(dtype):
    rng = np.random.default_rng(0)
    pattern = random_patterns(rng, (1, 97, 101), dtype)
    mask = annulus((97, 101), (47.3, 51.8), 10, 40)
    exact = sum(Fraction(float(value)) for value in pattern[0, mask])
    moduli = float(abs(pattern[0, mask].astype(float)).sum())
    found = virtual_detectors(pattern, mask[None]).item()
    assert abs(found - float(exact)) <= 4 * np.finfo(float).eps * moduli
    for special in (np.nan, np.inf, -np.inf):
        pattern[0, 47, 70] = special
        np.testing.assert_array_equal(virtual_detectors(pattern, [mask, ~mask])[0, 0], special)
        assert np.isfinite(virtual_detectors(pattern, [~mask])).all()


@given(scans())
def test_sum_of_patterns(scan):
    patterns, _ = scan
    found = sum_patterns(patterns)
    assert found.dtype == np.float64
    one_after_the_other = np.add.reduce(patterns.astype(float), axis=0)  # along the first axis NumPy adds in order
    np.testing.assert_array_equal(found, one_after_the_other)
    np.testing.assert_array_equal(sum_patterns(patterns, backend="reference"), found)


def test_as_many_detectors_as_fit_each_overlap_all():
    rng = np.random.default_rng(0)
    patterns, masks = random_patterns(rng, (5, 40, 40), "uint16"), rng.random((32, 40, 40)) < 0.5
    assert_sums(virtual_detectors(patterns, masks), patterns, masks)


@pytest.mark.parametrize("dtype", PIXEL_TYPES)
def test_patterns_may_lie_apart_and_at_any_address(dtype):
    rng = np.random.default_rng(0)
    masks = np.array([annulus((33, 29), (15, 14), 3, 9)])
    whole = random_patterns(rng, (12, 33, 29), dtype)
    expected, total = virtual_detectors(whole, masks), sum_patterns(whole)
    np.testing.assert_array_equal(virtual_detectors(whole[::-2], masks), expected[::-2])
    np.testing.assert_array_equal(sum_patterns(whole[4:9:2]), sum_patterns(whole[4:9:2].copy()))
    np.testing.assert_array_equal(virtual_detectors(np.broadcast_to(whole[3], (4, 33, 29)), masks), expected[[3] * 4])
    framed = np.zeros(12, [("header", "u1", 3), ("pattern", dtype, (33, 29))])  # as files hold them
    framed["pattern"] = whole
    np.testing.assert_array_equal(virtual_detectors(framed["pattern"], masks), expected)
    np.testing.assert_array_equal(sum_patterns(framed["pattern"]), total)


def test_a_ring_holds_the_pixels_at_its_distances():
    for shape, centre, inner, outer in [((9, 12), (4, 5), 2, 5), ((8, 8), (3.5, 3.5), 0, 2.5), ((5, 5), (-3, 2), 3, 7)]:
        mask = annulus(shape, centre, inner, outer)
        for row, column in np.ndindex(shape):
            distance2 = (Fraction(row) - Fraction(centre[0])) ** 2 + (Fraction(column) - Fraction(centre[1])) ** 2
            assert mask[row, column] == (Fraction(inner) ** 2 <= distance2 < Fraction(outer) ** 2)
    rings = [annulus((64, 64), (31.5, 30.25), *radii) for radii in ((0, 7.5), (7.5, 20), (20, np.inf))]
    assert (np.sum(rings, axis=0) == 1).all()


DIGEST = """
import numpy as np, zlib
from contextem import _core
from contextem._arrays import PIXEL_TYPES
from contextem.virtual_detectors import annulus, sum_patterns, virtual_detectors
rng = np.random.default_rng(0)
print(_core.simd())
check = 0
for dtype in PIXEL_TYPES:
    for shape in ((3, 2), (37, 41), (128, 130)):
        patterns = (rng.normal(size=(9, *shape)) * 60).astype(dtype)
        masks = [annulus(shape, (shape[0] / 2, shape[1] / 3), *radii) for radii in ((0, 9), (7, 23), (30, 31))]
        for sums in (virtual_detectors(patterns, [*masks, rng.random(shape) < 0.5]), sum_patterns(patterns)):
            check = zlib.crc32(sums.tobytes(), check)
print(check)
"""


def test_every_instruction_set_gives_the_same_bits(run_under):
    digests = set()
    for name in _core.simd_available():
        run = run_under(name, DIGEST)
        assert run.returncode == 0, run.stderr
        used, digest = run.stdout.split()
        assert used == name
        digests.add(digest)
    assert len(digests) == 1


def test_bad_input_gets_one_sentence():
    patterns, masks = np.zeros((4, 5, 6), np.uint16), np.ones((2, 5, 6), bool)
    for bad, error, sentence in [
        (patterns[0], ValueError, r"patterns: expected shape \(S, 5, 6\), got \(5, 6\)"),
        (patterns[:, :4], ValueError, r"patterns: expected shape \(S, 5, 6\), got \(4, 4, 6\)"),
        (
            patterns.astype(">u2"),
            TypeError,
            "patterns: expected int8, uint8, .* in native byte order, got >u2; convert",
        ),
        (patterns.astype(complex), TypeError, "patterns: expected int8, .*, got complex128"),
        (
            np.zeros((4, 5, 7), np.uint16)[:, :, :6],
            ValueError,
            "patterns: expected the pixels of each pattern one after",
        ),
        (np.zeros((4, 6, 5)).transpose(0, 2, 1), ValueError, "patterns: expected the pixels of each pattern one after"),
        (
            patterns.tolist(),
            TypeError,
            "patterns: expected a NumPy array, a CuPy array or a torch CUDA tensor, got list",
        ),
        (np.ma.array(patterns), TypeError, "patterns: masked arrays are not supported"),
    ]:
        with pytest.raises(error, match=sentence):
            virtual_detectors(bad, masks)
    with pytest.raises(
        ValueError, match=r"patterns: expected shape \(S, ky, kx\) with at least one pixel, got \(3, 0, 2\)"
    ):
        sum_patterns(np.zeros((3, 0, 2)))
    for bad, error, sentence in [
        (masks[0], ValueError, r"masks: expected shape \(D, ky, kx\) with D from 1 to 32, got \(5, 6\)"),
        (np.ones((33, 5, 6), bool), ValueError, r"D from 1 to 32, got \(33, 5, 6\)"),
        (masks.astype(float), TypeError, "masks: expected bool, got float64; a pixel counts once or not at all"),
    ]:
        with pytest.raises(error, match=sentence):
            virtual_detectors(patterns, bad)
    for bad, error, sentence in [
        (
            np.zeros((5, 6), np.float32),
            TypeError,
            "total: expected float64 in the library of the patterns, got float32",
        ),
        (np.zeros((6, 5)), ValueError, r"total: expected shape \(5, 6\) like a pattern, got \(6, 5\)"),
        (np.zeros((6, 5)).T, ValueError, "total: expected a C-contiguous array that can be written to"),
        (np.broadcast_to(0.0, (5, 6)), ValueError, "total: expected a C-contiguous array that can be written to"),
    ]:
        with pytest.raises(error, match=sentence):
            sum_patterns(patterns, total=bad)
    with pytest.raises(ValueError, match="n_threads: expected an integer from 0 to 1024, got -1"):
        virtual_detectors(patterns, masks, n_threads=-1)
    with pytest.raises(ValueError, match=r"centre: expected \(row, column\), two finite numbers, got \(1, nan\)"):
        annulus((5, 6), (1, np.nan), 0, 1)
    for radii in [(-1, 2), (2, 2), (0, np.nan), ("0", 2)]:
        with pytest.raises(ValueError, match="inner, outer: expected radii with 0 <= inner < outer, got"):
            annulus((5, 6), (1, 2), *radii)


def test_the_extension_refuses_what_does_not_fit():
    detectors = _core.VirtualDetectors(np.ones((2, 5, 6), bool))
    with pytest.raises(ValueError, match=r"patterns: expected the shape of the masks, \(5, 6\)"):
        detectors.sum(np.zeros((4, 6, 5), np.uint8), 0)
    with pytest.raises(ValueError, match="patterns: expected 3 dimensions, got 2"):
        detectors.sum(np.zeros((5, 6), np.uint8), 0)
    with pytest.raises(ValueError, match="patterns: expected the pixels of each pattern one after the other"):
        detectors.sum(np.zeros((4, 10, 6), np.uint8)[:, ::2], 0)
    with pytest.raises(TypeError, match=r"patterns: expected \(u\)int8, .* or float64, got bool"):
        detectors.sum(np.zeros((4, 5, 6), bool), 0)
    with pytest.raises(ValueError, match="masks: expected at most 32 detectors"):
        _core.VirtualDetectors(np.ones((33, 5, 6), bool))
    with pytest.raises(ValueError, match="total: expected the shape of a pattern"):
        _core.sum_patterns(np.zeros((4, 5, 6), np.uint8), np.zeros((5, 5)), 0)


def test_masks_are_kept_as_they_were(monkeypatch):
    masks = np.ones((1, 5, 6), bool)
    detectors = VirtualDetectors(masks)
    masks[:] = False
    patterns = np.ones((2, 5, 6), np.uint8)
    assert virtual_detectors(patterns, detectors).tolist() == [[30], [30]]
    with pytest.raises(ValueError, match="read-only"):
        detectors.masks[0, 0, 0] = False
    prepared = []
    monkeypatch.setattr(_core, "VirtualDetectors", prepared.append)
    virtual_detectors(patterns, detectors)
    assert prepared == []  # kept from the first call


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", PIXEL_TYPES)
def test_cuda_equals_the_reference(cuda_arrays, dtype):
    if not hasattr(sys.modules["torch"], dtype):
        pytest.skip(f"this torch has no {dtype}")
    rng = np.random.default_rng(0)
    for shape in ((256, 256), (64, 64), (37, 41), (5, 3), (1, 1)):
        masks = [annulus(shape, (shape[0] / 2, shape[1] / 3), *radii) for radii in ((0, 9), (7, 23), (30, 90))]
        masks = np.array([*masks, rng.random(shape) < 0.5])
        for count in (0, 1, 7, 300):
            patterns = random_patterns(rng, (count, *shape), dtype)
            on_device = cuda_arrays(patterns)
            assert_sums(virtual_detectors(on_device, masks).cpu().numpy(), patterns, masks)
            assert_sums(virtual_detectors(on_device[::3], masks).cpu().numpy(), patterns[::3], masks)
            found, expected = sum_patterns(on_device).cpu().numpy(), sum_patterns(patterns)
            bound = 0 if np.dtype(dtype).kind in "iu" else 300 * np.finfo(float).eps * abs(patterns).sum(0, dtype=float)
            assert (abs(found - expected) <= bound).all()
