"""Tiles of large images: the result never depends on them, and memory does not grow with the image as without them."""

import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import contextem as ctm
from contextem import _core, _files, _kernels
from contextem.examples import demo_micrograph
from contextem.lattice import find_frames
from contextem.measurement import measure
from contextem.peaks import find_peaks, peak_response
from contextem.tiles import PIXELS, TiledImage, pixels, tiled

pytestmark = pytest.mark.filterwarnings("ignore:context. the image looks less like")  # made of Gaussians

CONTEXT = ctm.Context("WSe2", ("Cr",), energy=80e3, detector="HAADF")
SAMPLING = 0.2
A = CONTEXT.lattice_constant / SAMPLING

IMAGE = np.random.default_rng(1).normal(size=(61, 47)).astype(np.float32)


def two_grains():
    """Image of two grains whose border runs down the middle, with vacancies, one column hidden, and noise; uint16."""
    shape = (240, 300)
    rng = np.random.default_rng(5)
    image = np.zeros(shape)
    for turn, inside in ((0.1, lambda c: c < 148), (0.45, lambda c: c > 154)):
        i, j = np.mgrid[-40:41, -40:41].reshape(2, -1)
        along, across = A * np.array([np.sin(turn), np.cos(turn)]), A * np.array([np.cos(turn), -np.sin(turn)])
        cell = np.stack([along, 0.5 * along + np.sqrt(0.75) * across])
        for height, shift in ((1.0, [0.0, 0.0]), (0.8, [1 / 3, 1 / 3])):
            sites = [120.0, 150.0] + (np.stack([i, j], axis=1) + shift) @ cell
            sites = sites[((sites > -5) & (sites < np.array(shape) + 5)).all(axis=1) & inside(sites[:, 1])]
            bright = height * np.where(rng.random(len(sites)) < 0.08, 0.45, 1.0)
            bright[np.argmin(abs(sites - [64.0, 80.0]).sum(axis=1))] = 0.0  # on the border of tiles of 64 rows
            for (r, c), h in zip(sites, bright, strict=True):
                top, left = max(0, int(r) - 10), max(0, int(c) - 10)
                y, x = np.mgrid[top : min(shape[0], int(r) + 11), left : min(shape[1], int(c) + 11)]
                image[top : top + len(y), left : left + y.shape[1]] += h * np.exp(
                    -((y - r) ** 2 + (x - c) ** 2) / (2 * (0.15 * A) ** 2)
                )
    return ctm.Micrograph(rng.poisson(400 * image + 60).astype(np.uint16), SAMPLING)


ARRAYS = ("positions", "sublattice", "grain", "observed", "probabilities", "patch_probabilities", "familiarity")
FLAGS = ("complete", "unknown", "contaminated")
NAMES = ("example", "two grains")


@cache
def micrograph_of(name):
    """Micrograph and context."""
    example = demo_micrograph()
    return (example.micrograph, example.context) if name == "example" else (two_grains(), CONTEXT)


@cache
def whole(name):
    """Classification without tiles."""
    return ctm.classify(*micrograph_of(name))


def check_same(name, found, arrays=(*ARRAYS, *FLAGS)):
    for array in arrays:
        np.testing.assert_array_equal(getattr(found, array), getattr(whole(name), array), err_msg=array)


def test_the_image_of_two_grains_is_what_the_property_is_about():
    found = whole("two grains")
    assert len(np.unique(found.grain[found.grain >= 0])) == 2
    assert (~found.observed).any() and (~found.complete).any()
    hidden = found.positions[~found.observed]
    assert (abs(hidden - [64.0, 80.0]).max(axis=1) < 6.0).any()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8)
@given(tile=st.integers(1, 600))
def test_the_classification_does_not_depend_on_tiles(name, tile):
    found = ctm.classify(*micrograph_of(name), tile=tile)
    check_same(name, found)
    assert found.provenance == whole(name).provenance


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tile", [1, 17, 64, 101, 239, 240, 241, 511, 2**31])
def test_nor_do_the_columns(name, tile):
    check_same(name, ctm.find_columns(*micrograph_of(name), tile=tile), ARRAYS[:4])


def test_nor_does_it_where_noise_hides_columns_and_cells_are_averaged():
    noisy = two_grains().data[:, :150] + np.random.default_rng(2).normal(0, 250, (240, 150))
    micrograph = ctm.Micrograph(noisy, SAMPLING)
    expected = ctm.find_columns(micrograph, CONTEXT)
    for tile in (50, 130):
        found = ctm.find_columns(micrograph, CONTEXT, tile=tile)
        np.testing.assert_array_equal(found.positions, expected.positions)


@settings(max_examples=20)
@given(tile=st.integers(1, 150), finer=st.floats(0.6, 1.8), turn=st.floats(-0.3, 0.3))
def test_features_do_not_depend_on_tiles_whatever_the_patch(tile, finer, turn):
    rng = np.random.default_rng(3)
    image = ctm.Micrograph(rng.normal(size=(140, 90)).astype(np.float32), sampling=0.2)
    columns = ctm.Columns(rng.uniform(-0.5, [139.5, 89.5], (60, 2)))
    columns = ctm.Columns(np.vstack([columns.positions, [[70.0, 45.0]]]))
    config, scale = ctm.load_model().config, finer / 0.2 * np.array([[1.0, turn], [turn, 1.1]])
    expected = measure(image, columns, 3.2, config, scale)
    found = measure(image, columns, 3.2, config, scale, tile=tile)
    np.testing.assert_array_equal(found.contrast, expected.contrast)
    np.testing.assert_array_equal(found.complete, expected.complete)


def test_neighbours_and_features_do_not_depend_on_how_many_are_worked_on_at_once(monkeypatch):
    whole("example")
    for module in ("neighbours", "contrast", "sites", "background"):
        monkeypatch.setattr(f"contextem.{module}.TOGETHER", 37)
    check_same("example", ctm.classify(*micrograph_of("example")))


@given(tile=st.integers(1, 70), sigma=st.floats(0.5, 4.0))
def test_filters_and_maxima_do_not_depend_on_tiles(tile, sigma):
    image = TiledImage(IMAGE.shape, lambda first, last: IMAGE[first:last], tile=tile)
    response = peak_response(image, sigma, width=1.0)
    expected = _kernels.peak_response(IMAGE, max(sigma, 0.8))
    np.testing.assert_array_equal(response.whole(), expected)
    np.testing.assert_array_equal(response.rows(20, 31), expected[20:31])
    found, peaks = find_peaks(response), find_peaks(expected)
    np.testing.assert_array_equal(found.positions, peaks.positions)
    np.testing.assert_array_equal(found.strength, peaks.strength)


@given(tile=st.integers(1, 70))
def test_samples_do_not_depend_on_tiles_and_are_those_of_scipy(tile):
    rng = np.random.default_rng(tile)
    positions = np.vstack([rng.uniform(-3, [64, 50], (200, 2)), rng.integers(0, 47, (20, 2)), np.zeros((0, 2))])
    values = pixels(IMAGE, tile).sample(positions)
    np.testing.assert_array_equal(values, tiled(IMAGE).sample(positions))
    inside = np.clip(positions, 0, np.array(IMAGE.shape) - 1)
    np.testing.assert_allclose(values, ndimage.map_coordinates(IMAGE, inside.T, order=1, mode="nearest"), atol=1e-6)
    assert pixels(IMAGE, tile).sample(np.zeros((0, 2))).shape == (0,)


@given(tile=st.integers(1, 300))
def test_lattices_do_not_depend_on_tiles(tile):
    data = micrograph_of("two grains")[0].data
    expected = find_frames(pixels(data), A, 0.1)
    found = find_frames(pixels(data, tile), A, 0.1)
    assert len(expected) > 1
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.basis, other.basis)
        np.testing.assert_array_equal(one.centre, other.centre)
        assert one.quality == other.quality


@given(tile=st.integers(1, 70))
def test_every_position_belongs_to_one_tile(tile):
    image = pixels(IMAGE, tile)
    positions = np.random.default_rng(tile).uniform(-5, 66, (100, 2))
    owned = list(image.by_tile(positions))
    assert sorted(np.concatenate([own for *_, own in owned])) == list(range(100))
    borders = list(image.tiles())
    assert borders[0][0] == 0 and borders[-1][1] == 61
    for first, last, own in owned:
        assert (first, last) in borders
        row = np.clip(positions[own, 0], 0, 60)
        assert ((row >= first) & (row < last)).all()


def test_a_single_tile_is_made_once_and_several_are_not_kept():
    for tile, expected in ((61, [(0, 61)]), (20, [(0, 21), (30, 35)])):
        asked = []

        def make(first, last, asked=asked):
            asked.append((first, last))
            return IMAGE[first:last]

        image = TiledImage(IMAGE.shape, make, tile=tile)
        np.testing.assert_array_equal(image.rows(0, 21), IMAGE[:21])
        np.testing.assert_array_equal(image.rows(30, 35), IMAGE[30:35])
        assert asked == expected
    assert TiledImage((100, 64), None).tile == PIXELS // 64


@pytest.mark.parametrize("tile", [0, -3, 2.5, "all"])
def test_tiles_have_rows(tile):
    with pytest.raises(ValueError, match="tile: expected an integer from 1"):
        ctm.classify(*micrograph_of("example"), tile=tile)


def test_kernels_refuse_what_lies_beyond_a_band():
    with pytest.raises(ValueError, match="band inside the image"):
        _kernels.sample_image(IMAGE, np.ones((1, 2)), top=2, rows=60)
    with pytest.raises(ValueError, match="see no more of the image than the band"):
        _kernels.sample_image(IMAGE[10:20], np.array([[20.5, 3.0]]), top=10, rows=61)
    table = ctm.ZernikeBasis(2, 9).table
    with pytest.raises(ValueError, match="see no more of the image than the band"):
        _kernels.band_moments(IMAGE[10:20], 10, 61, np.array([[14.0, 20.0]]), table, np.eye(2))
    with pytest.raises(ValueError, match="rows asked for"):
        start, movable = np.ones((1, 2)), np.ones(1, bool)
        _core.refine_columns(lambda a, b: IMAGE[a : b - 1], 61, 61, IMAGE.dtype, start, movable, 1.0, 3.0, 1.0, 0)


def test_what_the_rows_raise_comes_through():
    def fail(first, last):
        raise OSError("the disk is gone")

    image = TiledImage((40, 40), fail, tile=20)
    with pytest.raises(OSError, match="the disk is gone"):
        _kernels.refine_columns(image, np.full((1, 2), 20.0), np.ones(1, bool), 1.0, 5.0, 1.0)


def save_npy(path, data):
    np.save(path, data)


def save_tif(path, data):
    tifffile.imwrite(path, data)


def save_mrc(path, data):
    header = np.zeros(256, np.int32)
    header[:4] = data.shape[1], data.shape[0], 1, 6  # uint16
    header[7:10] = header[:3]
    header[10:13] = np.array((*data.shape[::-1], 1), np.float32).view(np.int32)
    header[16:19] = 1, 2, 3
    header[52] = int.from_bytes(b"MAP ", "little")
    header[53] = 0x00004444
    path.write_bytes(header.tobytes() + data.tobytes())


@pytest.mark.parametrize(("suffix", "save"), [("npy", save_npy), ("tif", save_tif), ("mrc", save_mrc)])
def test_large_files_are_mapped_and_say_the_same(tmp_path, monkeypatch, suffix, save):
    path = tmp_path / f"image.{suffix}"
    save(path, micrograph_of("two grains")[0].data)
    read = ctm.read(path, sampling=SAMPLING, energy=80e3, detector="HAADF")
    assert suffix == "mrc" or not is_mapped(read.data)
    monkeypatch.setattr(_files, "MAPPED_FROM", path.stat().st_size)
    mapped = ctm.read(path, sampling=SAMPLING, energy=80e3, detector="HAADF")
    assert is_mapped(mapped.data) and mapped.data.dtype == np.uint16
    np.testing.assert_array_equal(mapped.data, read.data)
    np.testing.assert_array_equal(mapped.data, micrograph_of("two grains")[0].data)
    assert mapped.provenance == read.provenance
    found = ctm.classify(mapped, CONTEXT, tile=100)
    np.testing.assert_array_equal(found.probabilities, whole("two grains").probabilities)


def test_what_cannot_be_mapped_is_read(tmp_path, monkeypatch):
    data = micrograph_of("two grains")[0].data
    monkeypatch.setattr(_files, "MAPPED_FROM", 1)
    tifffile.imwrite(tmp_path / "compressed.tif", data, compression="zlib")
    np.save(tmp_path / "columns.npy", np.asfortranarray(data))
    np.save(tmp_path / "swapped.npy", data.astype(">u2"))
    tifffile.imwrite(tmp_path / "swapped.tif", data, byteorder=">")
    for name in ("compressed.tif", "columns.npy", "swapped.npy", "swapped.tif"):
        read = ctm.read(tmp_path / name, sampling=SAMPLING)
        assert not is_mapped(read.data) and read.data.dtype.isnative
        np.testing.assert_array_equal(read.data, data)


def test_a_memmap_stays_one_and_is_checked(tmp_path):
    data = np.memmap(tmp_path / "pixels", np.float32, "w+", shape=(700, 40))
    with pytest.raises(ValueError, match="contrast"):
        ctm.Micrograph(data, SAMPLING)
    data[600, 3] = 1.0
    assert ctm.Micrograph(data, SAMPLING).data is data
    data[699, 39] = np.nan
    with pytest.raises(ValueError, match="got 1 NaN"):
        ctm.Micrograph(data, SAMPLING)


def is_mapped(array):
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


PROGRAM = """
import sys, time
from pathlib import Path
import numpy as np
import contextem as ctm
ctm.classify(ctm.Micrograph(np.load(sys.argv[1], mmap_mode="r")[:300, :300], 0.2), ctm.Context(
    "WSe2", ("Cr",), energy=80e3, detector="HAADF"))
def peak():  # getrusage knows the parent's, too
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before, start = peak(), time.perf_counter()
micrograph = ctm.read(sys.argv[1], sampling=0.2)
context = ctm.Context("WSe2", ("Cr",), energy=80e3, detector="HAADF")
found = ctm.classify(micrograph, context, tile=int(sys.argv[2]) if len(sys.argv) > 2 else None)
print(len(found), before, peak(), time.perf_counter() - start)
"""


def save_large(path, side):
    """Save an image of about side^2 / 127 columns: a crystal, over and over, with noise everywhere; uint16."""
    rng = np.random.default_rng(0)
    rows, columns = 69, 60  # cells of 1024 x 2048 px
    height, width = 2048, 1024
    step = np.array([height / rows, width / columns])
    sites = np.stack(np.mgrid[:rows, :columns], axis=-1).reshape(-1, 2) * step
    metal = np.vstack([sites, sites + step / 2])
    crystal = np.zeros((height, width))
    for where, bright in ((metal, 1.0), (metal + np.array([step[0] / 3, 0.0]), 0.8)):
        at = np.floor(where).astype(int) % [height, width]
        kinds = bright * np.where(rng.random(len(at)) < 0.04, 0.5, 1.0)
        np.add.at(crystal, tuple(at.T), kinds)
    crystal = ndimage.gaussian_filter(crystal, 0.15 * step[1], mode="wrap")
    crystal = 60.0 + 400.0 * crystal / crystal.max()
    data = np.lib.format.open_memmap(path, "w+", np.uint16, (side, side))
    for first in range(0, side, 512):
        block = np.tile(crystal[np.arange(first, min(first + 512, side)) % height], (1, -(-side // width)))
        data[first : first + 512] = rng.poisson(block[:, :side])
    data.flush()


def run(path, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-c", PROGRAM, str(path), *map(str, arguments)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, before, after, seconds = done.stdout.split()
    return int(count), int(before), int(after), float(seconds)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux tells it")
def test_memory_does_not_hold_copies_of_a_large_image(tmp_path):
    save_large(tmp_path / "large.npy", 4096)
    count, before, after, _ = run(tmp_path / "large.npy", 256)
    assert count > 110_000
    assert (after - before) / 4096**2 < 20.0  # 16 are columns, 2 the image; copies of it in float32 would add 12


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux tells it")
def test_an_image_of_16384_pixels_a_side(tmp_path, capsys):
    save_large(tmp_path / "large.npy", 16384)
    count, before, after, seconds = run(tmp_path / "large.npy")
    with capsys.disabled():
        print(
            f"\n16384 x 16384 px, {count} columns: {seconds:.0f} s, peak {after / 1e9:.2f} GB, "
            f"{(after - before) / 16384**2:.1f} bytes a pixel more than before"
        )
    assert count > 1_800_000
    assert (after - before) / 16384**2 < 12.0
