"""Scans of diffraction patterns: every format read back bit for bit, images against sums pixel by pixel, and failures.

Real files are those of HyperSpy 1.7, see `test_formats.py`.
"""

import json
import math
import pickle
import subprocess
import sys
import warnings
from contextlib import nullcontext

import emdfile
import h5py
import numpy as np
import pytest
import stand_in_card
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from microscope_files import write_blo, write_dm, write_mib, write_mrc, write_py4dstem, write_signal, write_zspy

from contextem import virtual
from contextem.diffraction import read_scan, wavelength
from contextem.geometry import Geometry, NoDiscError, find_disc, find_geometry, share_on_detector
from contextem.micrograph import Detector, ReadError
from contextem.remarks import DiffractionWarning
from contextem.virtual import scan_geometry, virtual_images

ROWS, COLUMNS, SIDE = 9, 7, 48
CENTRE, RADIUS = (22.5, 25.0), 8.0
MRAD = 4.0  # a pixel
DETECTORS = [Detector("HAADF", 60, 86), Detector("LAADF", 33, 60), Detector("BF", 0, 20)]


def simulate(rows=ROWS, columns=COLUMNS, side=SIDE, centre=CENTRE, dtype=np.uint16, seed=3):
    """Counts of a bright disc, and of rings around it that change from position to position."""
    rng = np.random.default_rng(seed)
    distance = np.hypot(*(np.indices((side, side)) - np.reshape(centre, (2, 1, 1))))
    near = rng.uniform(0.5, 4.0, (rows, columns, 1, 1)) * ((distance > RADIUS + 1) & (distance < 15))
    far = rng.uniform(0.2, 2.0, (rows, columns, 1, 1)) * (distance >= 15)
    return rng.poisson(150.0 * (distance < RADIUS) + near + far).clip(0, 255).astype(dtype)


DATA = simulate()


def expected(data, detector, centre, mrad=MRAD):
    """The image, pixel by pixel in plain Python: an independent sum."""
    inside = [
        (i, j)
        for i in range(data.shape[2])
        for j in range(data.shape[3])
        if detector.inner <= math.dist((i, j), centre) * mrad < detector.outer
    ]
    return [[sum(data[r, c, i, j].item() for i, j in inside) for c in range(data.shape[1])] for r in range(len(data))]


@pytest.fixture
def npy(tmp_path):
    np.save(tmp_path / "scan.npy", DATA)
    return read_scan(tmp_path / "scan.npy", sampling=0.2, angular_sampling=MRAD)


# Images


def test_images_are_the_sums_of_the_pixels(npy):
    images = virtual_images(npy, DETECTORS, centre=CENTRE)
    for image, detector in zip(images, DETECTORS, strict=True):
        np.testing.assert_array_equal(image.data, expected(DATA, detector, CENTRE))
        assert (image.data.dtype, image.detector, image.sampling, image.source) == ("f4", detector, 0.2, "scan.npy")
        assert image.provenance["detector"] == "virtual detector, centre (22.50, 25.00) px given"


def test_the_centre_is_found(npy):
    geometry = scan_geometry(npy)
    assert geometry.centre == pytest.approx(CENTRE, abs=0.1)
    assert geometry.radius == pytest.approx(RADIUS, abs=0.3)
    assert geometry.semiangle == geometry.radius * MRAD
    assert geometry.descan < 0.2
    assert geometry.patterns == ROWS * COLUMNS
    assert Geometry(**json.loads(json.dumps(geometry.to_dict()))).radius == geometry.radius
    images = virtual_images(npy, DETECTORS)
    again = virtual_images(npy, DETECTORS, centre=geometry)
    for image, same, detector in zip(images, again, DETECTORS, strict=True):
        np.testing.assert_array_equal(image.data, expected(DATA, detector, geometry.centre))
        np.testing.assert_array_equal(image.data, same.data)
    assert images[0].provenance["detector"].endswith("px of the bright disc in the mean of 63 patterns")


@given(
    memory=st.integers(2 * DATA[0, 0].nbytes, 3 * DATA.nbytes),
    n_threads=st.integers(0, 3),
    chunks=st.tuples(st.integers(1, ROWS), st.integers(1, COLUMNS), st.sampled_from([16, SIDE])),
)
def test_neither_blocks_nor_threads_nor_chunks_leave_a_trace(tmp_path_factory, memory, n_threads, chunks):
    folder = tmp_path_factory.mktemp("scan")
    values = DATA * np.float32(1.1)  # sums that depend on their order
    np.save(folder / "scan.npy", values)
    with h5py.File(folder / "scan.h5", "w") as file:
        file.create_dataset("scan/data", data=values, chunks=(*chunks[:2], chunks[2], SIDE), compression="gzip")
    said = {"sampling": 0.2, "angular_sampling": MRAD}
    whole = virtual_images(read_scan(folder / "scan.npy", **said), DETECTORS, centre=CENTRE)
    assert whole[0].data.dtype == np.float64  # float32 would not hold the sums exactly
    least = 2 * chunks[0] * chunks[1] * values[0, 0].nbytes
    for name, bytes_ in (("scan.npy", 2 * memory), ("scan.h5", 2 * max(memory, least))):
        images = virtual_images(
            read_scan(folder / name, **said), DETECTORS, centre=CENTRE, memory=bytes_, n_threads=n_threads
        )
        for image, other in zip(images, whole, strict=True):
            np.testing.assert_array_equal(image.data, other.data)


@given(nbytes=st.integers(2 * DATA[0, 0].nbytes, 2 * DATA.nbytes), high=st.integers(1, 4), wide=st.integers(1, 4))
def test_blocks_hold_every_pattern_once(tmp_path_factory, nbytes, high, wide):
    folder = tmp_path_factory.mktemp("scan")
    np.save(folder / "scan.npy", DATA)
    with h5py.File(folder / "scan.h5", "w") as file:
        file.create_dataset("data", data=DATA, chunks=(high, wide, SIDE, SIDE))
    for name, least in (("scan.npy", 0), ("scan.h5", 2 * high * wide * DATA[0, 0].nbytes)):
        found = np.zeros((ROWS * COLUMNS, SIDE, SIDE), dtype=int)
        allowed = max(nbytes, least)
        for first, block in read_scan(folder / name).blocks(allowed):
            assert block.nbytes <= allowed
            found[first : first + len(block)] += block
        np.testing.assert_array_equal(found.reshape(DATA.shape), DATA)


def test_progress_and_a_failure_in_a_reader(npy):
    done = []
    virtual_images(npy, DETECTORS[:1], memory=8 * DATA[0, 0].nbytes, progress=lambda *numbers: done.append(numbers))
    assert done[-1] == (63, 63)
    assert [number for number, _ in done] == sorted(number for number, _ in done)

    def fail(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        virtual_images(npy, DETECTORS[:1], memory=8 * DATA[0, 0].nbytes, progress=fail)


# Formats

NM = ("nm", "nm", "1/nm", "1/nm")
SCALE = (0.02, 0.02, 1.0, 1.0)
TEM = {"Acquisition_instrument": {"TEM": {"beam_energy": 80.0}}}


def write_emdfile(path, data):
    """As py4DSTEM from 0.14 on does."""
    dims = [0.2, 0.2, 0.1, 0.1]
    cube = emdfile.Array(data, name="cube", dims=dims, dim_units=["A", "A", "A^-1", "A^-1"])
    emdfile.save(path, cube, mode="o")


def write_old_py4dstem(path, data):
    """As py4DSTEM before 0.13 did."""
    with h5py.File(path, "w") as file:
        file.attrs.update(version_major=0, version_minor=12)
        group = file.create_group("4DSTEM_experiment/data/datacubes/datacube_0")
        group.attrs["emd_group_type"] = 1
        group["data"] = data
        for i, (step, unit) in enumerate(zip([0.2, 0.2, 0.1, 0.1], ["A", "A", "A^-1", "A^-1"], strict=True)):
            group[f"dim{i + 1}"] = step * np.arange(data.shape[i])
            group[f"dim{i + 1}"].attrs["units"] = np.bytes_(f"[{unit}]")


def write_zarr(path, data, **options):
    zarr.create_array(store=path, data=data, **options)


def write_chunked(path, data):
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data", data=data, chunks=(2, 3, 16, SIDE), compression="gzip", shuffle=True)


A = 1e2 * wavelength(80e3)  # mrad/px of 1/nm
FORMATS = {
    # writer, what is said, what comes of sampling, angular sampling and energy
    "scan.npy": (np.save, {}, None, None, None),
    "stack.npy": (lambda path, data: np.save(path, data.reshape(-1, SIDE, SIDE)), "shape", None, None, None),
    "big.npy": (lambda path, data: np.save(path, data.astype(">u2")), {}, None, None, None),
    "scan.mrc": (lambda path, data: write_mrc(path, data.reshape(-1, SIDE, SIDE), (1, 1)), "shape", None, None, None),
    "scan.mib": (write_mib, "shape", None, None, None),
    "quad.mib": (lambda path, data: write_mib(path, data, header=768), "shape", None, None, None),
    "said.mib": (lambda path, data: write_mib(path, data, description=True), {}, None, None, None),
    "scan.blo": (write_blo, {}, 0.2, None, 80e3),
    "scan.dm4": (
        lambda path, data: write_dm(
            path, [{"data": data, "scale": SCALE, "tags": {"Microscope Info": {"Voltage": 80e3}}}], 4
        ),
        {},
        0.2,
        None,
        80e3,
    ),
    "scan.hspy": (lambda path, data: write_signal(path, data, scale=SCALE, units=NM, metadata=TEM), {}, 0.2, A, 80e3),
    "scan.zspy": (lambda path, data: write_zspy(path, data, scale=SCALE, units=NM, metadata=TEM), {}, 0.2, A, 80e3),
    "ncem.emd": (lambda path, data: write_signal(path, data, scale=SCALE, units=NM), {"energy": 80e3}, 0.2, A, 80e3),
    "ncem.de5": (
        lambda path, data: (
            write_signal(path.with_suffix(".emd"), data, scale=SCALE, units=""),
            path.with_suffix(".emd").rename(path),
        ),
        {},
        None,
        None,
        None,
    ),
    "py4d.emd": (
        lambda path, data: write_py4dstem(path, data, data.sum((2, 3)), data.mean((0, 1)), 0.2),
        {"energy": 80e3},
        0.2,
        20 * A / 10 * 1,
        80e3,
    ),
    "emdfile.h5": (write_emdfile, {"energy": 80e3}, 0.2, A, 80e3),
    "old.h5": (write_old_py4dstem, {"energy": 80e3}, 0.2, A, 80e3),
    "chunked.h5": (write_chunked, {}, None, None, None),
    "scan.zarr": (lambda path, data: write_zarr(path, data, chunks=(2, 3, 16, SIDE)), {}, None, None, None),
    "plain.zarr": (
        lambda path, data: write_zarr(path, data, chunks=data.shape, compressors=None),
        {},
        None,
        None,
        None,
    ),
    "old.zarr": (
        lambda path, data: write_zarr(path, data, chunks=data.shape, compressors=None, zarr_format=2),
        {},
        None,
        None,
        None,
    ),
}
CONTIGUOUS = {
    *(
        "scan.npy",
        "stack.npy",
        "big.npy",
        "scan.mrc",
        "scan.mib",
        "quad.mib",
        "said.mib",
        "scan.blo",
        "plain.zarr",
        "scan.dm4",
    ),
    *("old.zarr", "py4d.emd", "emdfile.h5", "old.h5"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_images(tmp_path, name, npy):
    write, said, sampling, angular_sampling, energy = FORMATS[name]
    data = DATA.astype(np.uint8) if name.endswith(".blo") else DATA
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(tmp_path / name, data)
    scan = read_scan(tmp_path / name, **({"scan_shape": (ROWS, COLUMNS)} if said == "shape" else said))
    assert (scan.shape, scan.dtype, scan.dtype.isnative, scan.source) == (DATA.shape, data.dtype, True, name)
    assert (scan.sampling, scan.angular_sampling, scan.energy) == pytest.approx((sampling, angular_sampling, energy))
    assert (type(scan.patterns).__name__ == "Records") == (name in CONTIGUOUS)
    scan = pickle.loads(pickle.dumps(scan))  # goes to other processes
    patterns = np.zeros((ROWS * COLUMNS, SIDE, SIDE), dtype=scan.dtype)
    for first, block in scan.blocks(max(200_000, scan.patterns.least)):
        patterns[first : first + len(block)] = block
    np.testing.assert_array_equal(patterns.reshape(DATA.shape), data)
    scan = read_scan(tmp_path / name, sampling=0.2, angular_sampling=MRAD, scan_shape=(ROWS, COLUMNS))
    for image, other in zip(virtual_images(scan, DETECTORS), virtual_images(npy, DETECTORS), strict=True):
        np.testing.assert_array_equal(image.data, other.data)
        assert image.data.dtype == other.data.dtype


@pytest.mark.parametrize("name", ["scan.npy", "big.npy", "quad.mib", "scan.blo", "scan.mrc", "py4d.emd", "old.zarr"])
def test_a_card_sums_what_lies_in_page_locked_memory(tmp_path, npy, name, monkeypatch):
    # on a stand-in: what the card gets are runs of the memory that the file was read into, headers included
    expected = virtual_images(npy, DETECTORS)
    locked, sent = [], []

    def page_locked(shape, dtype):
        locked.append(np.empty(shape, dtype))
        return locked[-1]

    def from_numpy(array):
        assert array.ndim == 1 and array.flags.c_contiguous and array.flags.writeable
        sent.append(any(np.shares_memory(array, memory) for memory in locked))
        return share(array)

    write, *_ = FORMATS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(tmp_path / name, DATA.astype(np.uint8) if name.endswith(".blo") else DATA)
    scan = read_scan(tmp_path / name, sampling=0.2, angular_sampling=MRAD, scan_shape=(ROWS, COLUMNS))
    stand_in_card.install(monkeypatch)
    share = torch.from_numpy
    monkeypatch.setattr(torch, "from_numpy", from_numpy)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(virtual, "check_card", lambda device: device)
    monkeypatch.setattr(virtual, "_page_locked", page_locked)
    memory = max(200_000, scan.patterns.least)
    for image, other in zip(virtual_images(scan, DETECTORS, device="cpu", memory=memory), expected, strict=True):
        np.testing.assert_array_equal(image.data, other.data)
    assert sent and all(sent)


def test_blocks_that_are_not_one_run_are_put_together():
    block = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    frozen, odd = block.copy(), np.zeros((4, 61), np.uint8)
    frozen.flags.writeable = False
    odd = odd[:, 1:].view(np.int16).reshape(4, 5, 6)  # headers of one byte
    for patterns in (block, block[::2], block[::-1], block[:, ::-1], block[:, :, ::2], block[:1], frozen, odd):
        run, step = virtual._in_one_run(patterns)
        pixels = run.view(np.int16)
        found = [pixels[i * step :][: patterns[0].size].reshape(patterns.shape[1:]) for i in range(len(patterns))]
        np.testing.assert_array_equal(found, patterns)
        assert run.flags.writeable


def test_devices_that_cannot_be(npy, monkeypatch):
    with pytest.raises(ValueError, match="device: expected a CUDA device such as 'cuda:0', or none for the CPU, got"):
        virtual_images(npy, DETECTORS, device="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="device: torch sees no CUDA device"):
        virtual_images(npy, DETECTORS, device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("n_threads", [1, 4])
def test_a_card_gives_the_same_images(cuda_arrays, npy, n_threads):
    images = virtual_images(npy, DETECTORS, device="cuda", memory=200_000, n_threads=n_threads)
    for image, other in zip(images, virtual_images(npy, DETECTORS), strict=True):
        np.testing.assert_array_equal(image.data, other.data)


def test_one_of_several_scans(tmp_path):
    with h5py.File(tmp_path / "scans.h5", "w") as file:
        file["first/data"], file["second/data"], file["spectra/data"] = DATA, DATA[::-1], np.ones((2, 3, 4))
    with pytest.raises(
        ReadError, match=r"^signal: scans.h5 holds several scans, .*0: first \(9, 7, 48, 48\), 1: second"
    ):
        read_scan(tmp_path / "scans.h5")
    for signal in ("second", 1, "1"):
        scan = read_scan(tmp_path / "scans.h5", signal=signal)
        (_, block), *_ = scan.blocks()
        assert scan.provenance["signal"] == str(signal)
        np.testing.assert_array_equal(block[0], DATA[-1, 0])
    with pytest.raises(ReadError, match=r"^signal: expected index or name of one of the scans of scans.h5"):
        read_scan(tmp_path / "scans.h5", signal="third")


def test_real_blockfile(real):
    """HyperSpy's own: 4 x 5 patterns of 144 x 144 px."""
    scan = read_scan(real("blockfile_data/test2.blo"), sampling=0.2, angular_sampling=1.0)
    from rsciio.blockfile import file_reader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = file_reader(str(real("blockfile_data/test2.blo")))[0]["data"]
    assert scan.shape == data.shape
    ((first, block),) = scan.blocks()
    assert first == 0
    np.testing.assert_array_equal(block.reshape(data.shape), data)


def test_real_emd(real):
    """Prismatic's patterns; the reader of rosettasciio is the oracle."""
    from rsciio.emd import file_reader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = [
            s["data"]
            for s in file_reader(str(real("emd_files/Si100_4D.emd")), stack_group=False)
            if s["data"].ndim == 4
        ]
    scan = read_scan(real("emd_files/Si100_4D.emd"), signal=0)
    ((_, block),) = scan.blocks()
    np.testing.assert_array_equal(block.reshape(scan.shape), data[0])


# Calibration


def test_reciprocal_lengths_need_the_energy(tmp_path):
    write_signal(tmp_path / "scan.hspy", DATA, scale=SCALE, units=NM)
    scan = read_scan(tmp_path / "scan.hspy")
    assert (scan.angular_sampling, scan.provenance) == (None, {"sampling": "file", "scan_shape": "file"})
    with pytest.raises(
        ValueError, match=r"^angular_sampling: scan.hspy holds no .* need the beam energy\), give it in"
    ):
        virtual_images(scan, DETECTORS)
    scan = read_scan(tmp_path / "scan.hspy", energy=80e3)
    assert scan.angular_sampling == pytest.approx(4.1757, rel=1e-4)  # 0.041757 Å times 0.1/Å
    assert scan.provenance["angular_sampling"] == "file"
    write_signal(tmp_path / "scan.hspy", DATA, scale=(0.02, 0.02, 4.0, 4.0), units=("nm", "nm", "mrad", "mrad"))
    assert read_scan(tmp_path / "scan.hspy").angular_sampling == pytest.approx(4.0)
    write_signal(tmp_path / "scan.hspy", DATA, scale=(0.02, 0.02, 4.0, 5.0), units=("nm", "nm", "mrad", "mrad"))
    with pytest.raises(
        ReadError, match=r"^angular_sampling: scan.hspy has pixels that are not square, 4 mrad .* 5 mrad"
    ):
        read_scan(tmp_path / "scan.hspy")
    assert read_scan(tmp_path / "scan.hspy", angular_sampling=4.5).angular_sampling == 4.5


def test_gatan_files_that_keep_images_instead_of_patterns(tmp_path):
    units = {"scale": (1.0, 1.0, 0.02, 0.02)}
    write_dm(tmp_path / "scan.dm4", [{"data": DATA, "units": "mrad"} | units], 4)
    with pytest.raises(ReadError, match=r"^path: scan.dm4 keeps the scan pixel by pixel of the detector, save it"):
        read_scan(tmp_path / "scan.dm4")
    write_dm(tmp_path / "image.dm4", [{"data": DATA[0, 0]}], 4)
    with pytest.raises(ReadError, match=r"^path: image.dm4 holds 0 scans of diffraction patterns, expected one"):
        read_scan(tmp_path / "image.dm4")


def test_wavelength_is_that_of_abtem():
    from abtem.core.energy import energy2wavelength

    for energy in (30e3, 60e3, 80e3, 200e3, 300e3):
        assert wavelength(energy) == pytest.approx(energy2wavelength(energy), rel=1e-6)


# Failures


@pytest.mark.parametrize(
    ("scan_shape", "message"),
    [
        (None, r"^scan_shape: stack.npy holds 63 patterns one after another and does not tell rows and columns"),
        (
            (9, 8),
            r"^scan_shape: stack.npy holds 63 patterns, 9 fewer than a scan of 9 x 8 has; give .* \(7 of 8 patterns",
        ),
        ((9, 6), r"^scan_shape: stack.npy holds 63 patterns, 9 more than a scan of 9 x 6 has; patterns of the flyback"),
        ((9, 0), r"^scan_shape: expected the numbers of rows and columns such as \(256, 256\), got \(9, 0\)"),
        (63, r"^scan_shape: expected the numbers of rows and columns"),
    ],
)
def test_shapes_of_a_scan_that_cannot_be(tmp_path, scan_shape, message):
    np.save(tmp_path / "stack.npy", DATA.reshape(-1, SIDE, SIDE))
    with pytest.raises(ValueError, match=message):
        read_scan(tmp_path / "stack.npy", scan_shape=scan_shape)


def test_another_shape_than_that_of_the_file(npy, tmp_path):
    with pytest.raises(ValueError, match=r"^scan_shape: scan.npy says 9 x 7, got 7 x 9; leave it out"):
        read_scan(tmp_path / "scan.npy", scan_shape=(7, 9))
    np.save(tmp_path / "square.npy", DATA.reshape(-1, SIDE, SIDE)[:49])
    with pytest.raises(ValueError, match=r"--scan-shape such as 7 7$"):
        read_scan(tmp_path / "square.npy")


@pytest.mark.parametrize("name", ["scan.npy", "scan.blo", "said.mib", "py4d.emd", "scan.mrc"])
def test_files_that_were_cut_short(tmp_path, name):
    path = tmp_path / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        FORMATS[name][0](path, DATA.astype(np.uint8) if name.endswith(".blo") else DATA)
    path.write_bytes(path.read_bytes()[: -DATA[0].nbytes])
    with pytest.raises(
        ReadError, match=rf"^path: {name} (ends after \d+ of 63 patterns|cannot be read as .* cut short)"
    ):
        read_scan(path, scan_shape=(ROWS, COLUMNS))


def test_a_file_that_shrinks_while_it_is_read(npy, tmp_path):
    path = tmp_path / "scan.npy"
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(ReadError, match=r"^path: scan.npy has become shorter while it was read"):
        list(npy.blocks())


def test_files_without_patterns(tmp_path):
    np.save(tmp_path / "image.npy", DATA[0, 0])
    with pytest.raises(
        ReadError, match=r"^path: image.npy holds data of shape \(48, 48\), expected diffraction patterns"
    ):
        read_scan(tmp_path / "image.npy")
    np.save(tmp_path / "complex.npy", DATA.astype(complex))
    with pytest.raises(ReadError, match=r"^path: complex.npy holds patterns of complex128, expected real numbers"):
        read_scan(tmp_path / "complex.npy")
    np.save(tmp_path / "fortran.npy", np.asfortranarray(DATA))
    with pytest.raises(
        ReadError, match=r"^path: fortran.npy is in Fortran order, save it with numpy.ascontiguousarray"
    ):
        read_scan(tmp_path / "fortran.npy")
    with h5py.File(tmp_path / "image.h5", "w") as file:
        file["image"] = DATA[0, 0]
    with pytest.raises(ReadError, match=r"^path: image.h5 holds no diffraction patterns"):
        read_scan(tmp_path / "image.h5")
    (tmp_path / "damaged.h5").write_bytes(b"damaged")
    with pytest.raises(ReadError, match=r"^path: damaged.h5 cannot be read as .h5"):
        read_scan(tmp_path / "damaged.h5")
    with pytest.raises(ReadError, match=r"^path: expected a file with one of .*.mib"):
        read_scan(tmp_path / "scan.txt") if (tmp_path / "scan.txt").write_text("x") else None
    with pytest.raises(FileNotFoundError, match="path: there is no file"):
        read_scan(tmp_path / "absent.npy")
    with pytest.raises(IsADirectoryError):
        read_scan(tmp_path)


def test_a_package_that_is_missing(tmp_path, monkeypatch):
    write_zarr(tmp_path / "scan.zarr", DATA)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ReadError, match=r"^path: scan.zarr .* the package zarr, .* pip install 'contextem\[batch\]'$"):
        read_scan(tmp_path / "scan.zarr")


def test_chunks_that_are_damaged(tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", data=DATA, chunks=(1, 1, SIDE, SIDE), compression="gzip", fletcher32=True)
        place = data.id.get_chunk_info_by_coord((4, 0, 0, 0)).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 20 : place + 40] = bytes(20)
    path.write_bytes(content)
    scan = read_scan(path, sampling=0.2, angular_sampling=MRAD)
    with pytest.raises(ReadError, match=r"^path: scan.h5 cannot be read from row \d of the scan on"):
        virtual_images(scan, DETECTORS)


def test_chunks_larger_than_the_memory(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("data", data=DATA, chunks=(ROWS, COLUMNS, SIDE, SIDE), compression="gzip")
    scan = read_scan(tmp_path / "scan.h5", sampling=0.2, angular_sampling=MRAD)
    with pytest.raises(
        ReadError, match=r"^memory: scan.h5 cannot be read in 0.1907 MiB, its chunks have, .* 0.5537 MiB"
    ):
        virtual_images(scan, DETECTORS, memory=200_000)
    with pytest.raises(
        ReadError, match=r"^memory: .* give more as memory=... or --memory, or save it in smaller chunks"
    ):
        next(scan.blocks(1000))


def test_what_virtual_images_refuses(npy, tmp_path):
    with pytest.raises(ValueError, match=r"^sampling: scan.npy holds no credible sampling of the scan"):
        virtual_images(read_scan(tmp_path / "scan.npy", angular_sampling=MRAD), DETECTORS)
    with pytest.raises(ValueError, match=r"^angular_sampling: scan.npy holds no credible calibration"):
        virtual_images(read_scan(tmp_path / "scan.npy", sampling=0.2), DETECTORS)
    with pytest.raises(
        ValueError, match=r"^detectors: expected inner and outer angle of each in mrad, got none of HAADF"
    ):
        virtual_images(npy, [Detector("HAADF")])
    for detectors in ([], ["HAADF"]):
        with pytest.raises(TypeError, match=r"^detectors: expected one Detector or more in a list"):
            virtual_images(npy, detectors)
    with pytest.raises(ValueError, match=r"^detectors: .* got HAADF \(200 to 300 mrad\), of which nothing is on it"):
        virtual_images(npy, [Detector("HAADF", 200, 300)])
    with pytest.raises(
        ValueError, match=r"^centre: expected \(row, column\) on the detector of 48 x 48 px, got \(50, 3\)"
    ):
        virtual_images(npy, DETECTORS, centre=(50, 3))
    np.save(tmp_path / "same.npy", np.broadcast_to(DATA[0, 0], DATA.shape))
    scan = read_scan(tmp_path / "same.npy", sampling=0.2, angular_sampling=MRAD)
    with pytest.raises(
        ValueError, match=r"^detectors: the image of HAADF \(60 to 86 mrad\) cannot be used .* contrast"
    ):
        virtual_images(scan, DETECTORS)


# Geometry


def pattern(centre=CENTRE, radius=RADIUS, side=SIDE, noise=0.0):
    """A disc whose edge pixels count by their share, from points ten times as fine."""
    fine = (np.arange(10 * side) + 0.5) / 10 - 0.5
    inside = np.hypot(fine[:, None] - centre[0], fine - centre[1]) < radius
    shares = inside.reshape(side, 10, side, 10).mean(axis=(1, 3))
    return 100.0 * shares + noise * np.random.default_rng(5).random((side, side)) + 1.0


@given(row=st.floats(15, 32), column=st.floats(15, 32), radius=st.floats(4, 13), noise=st.floats(0, 20))
@settings(max_examples=30)
def test_disc_is_found_where_it_is(row, column, radius, noise):
    disc = find_disc(pattern((row, column), radius, noise=noise))
    assert disc.centre == pytest.approx((row, column), abs=0.15)
    assert disc.radius == pytest.approx(radius, abs=0.5)


def test_few_electrons_are_enough():
    """Two to three electrons a pixel of the disc in the mean of all patterns."""
    counts = np.random.default_rng(7).poisson(0.025 * pattern((100.3, 120.8), 30.0, 256))
    disc = find_disc(counts.astype(float))
    assert disc.centre == pytest.approx((100.3, 120.8), abs=0.3)
    assert disc.radius == pytest.approx(30.0, abs=1.0)


def test_the_sample_is_spread_over_a_large_scan(tmp_path):
    """The beam moves from the first to the last column of 300 x 40 positions, of which one in 11 or so is read."""
    disc = np.stack([pattern((8.0, 8.0 + shift), 4.0, 18) for shift in (0, 1)]).astype(np.uint8)
    np.save(tmp_path / "scan.npy", disc[np.arange(40) // 20 * np.ones((300, 1), dtype=int)])
    geometry = scan_geometry(read_scan(tmp_path / "scan.npy"))
    assert geometry.centre == pytest.approx((8.0, 8.5), abs=0.1)
    assert geometry.descan == pytest.approx(1.0, abs=0.05)
    assert 1000 < geometry.patterns < 2000


def test_defects_of_the_detector_do_not_move_the_disc():
    values = pattern()
    clean = find_disc(values)
    values[3, 40] = values[30, 5] = 1e7
    values[:, 44] = 5e4  # a line that is saturated
    values[23, 24] = 0  # a dead pixel in the disc
    found = find_disc(values)
    assert found.centre == pytest.approx(clean.centre, abs=0.05)
    assert found.radius == pytest.approx(clean.radius, abs=0.05)


def test_intensity_in_the_disc_does_not_move_it():
    values = pattern(radius=12.0)
    values *= 1.0 + 0.4 * np.sin(np.arange(SIDE) / 3.0)
    assert find_disc(values).centre == pytest.approx(CENTRE, abs=0.4)


def behind_a_stop(values):
    values[20:26, 22:] = 0.0
    return values


def behind_a_round_stop(values):
    values[np.hypot(*(np.indices(values.shape) - np.reshape(CENTRE, (2, 1, 1)))) < 5] = 0.0
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((SIDE, SIDE)), "it is the same everywhere"),
        (np.random.default_rng(2).poisson(3.0, (SIDE, SIDE)).astype(float), "stand.* out"),
        (pattern((3.0, 20.0)), "its bright disc is cut by the edge of the detector"),
        (behind_a_stop(pattern(radius=12.0)), "no disc, as if a beam stop hid a part of it"),
        (behind_a_round_stop(pattern(radius=12.0)), "has a hole, as if a beam stop hid the beam or too few"),
        (pattern() + pattern((22.5, 10.0)), "no region of it stands out|no disc"),
    ],
)
def test_patterns_without_a_clear_disc(values, message):
    with pytest.raises(NoDiscError, match=message):
        find_disc(values)
    quarters, numbers = np.stack([values] * 4), np.ones(4, dtype=int)
    with pytest.raises(
        ValueError, match=r"^centre: no disc of the undiffracted beam .* as centre=\(row, column\) or --cen"
    ):
        find_geometry(quarters, numbers)
    geometry = find_geometry(quarters, numbers, centre=(20, 21), angular_sampling=2.0)
    assert (geometry.centre, geometry.radius, geometry.semiangle, geometry.origin) == ((20.0, 21.0), None, None, "user")
    assert geometry.remarks == (
        "no clear disc of the undiffracted beam is seen, so that the centre that is given is not checked",
    )


def test_descan_is_told(tmp_path):
    data = np.concatenate([simulate(rows=4), simulate(rows=4, centre=(22.5, 28.0))])
    np.save(tmp_path / "scan.npy", data)
    scan = read_scan(tmp_path / "scan.npy", sampling=0.2, angular_sampling=MRAD)
    assert scan_geometry(scan).descan == pytest.approx(3.0, abs=0.2)
    with pytest.warns(DiffractionWarning, match=r"^scan.npy: the undiffracted beam moves by [23]\.\d px over the scan"):
        virtual_images(scan, DETECTORS[:1])


def test_a_centre_that_is_not_that_of_the_disc_is_told(npy):
    with pytest.warns(
        DiffractionWarning, match=r"^scan.npy: the centre that is given, \(25.0, 22.5\) px, is 3.5 px from that of"
    ):
        virtual_images(npy, DETECTORS[:1], centre=CENTRE[::-1])


def test_quarters_without_a_disc_are_told():
    quarters = np.stack([pattern()] * 3 + [np.ones((SIDE, SIDE))])
    geometry = find_geometry(quarters, np.ones(4, dtype=int))
    assert geometry.descan is None
    assert geometry.remarks == (
        "not every quarter of the scan shows the undiffracted beam by itself, so that descan is not checked",
    )


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.float64])
def test_pixels_of_other_types(tmp_path, dtype):
    np.save(tmp_path / "scan.npy", DATA.astype(dtype))
    scan = read_scan(tmp_path / "scan.npy", sampling=0.2, angular_sampling=MRAD)
    (image,) = virtual_images(scan, DETECTORS[:1], centre=CENTRE)
    np.testing.assert_array_equal(image.data, expected(DATA, DETECTORS[0], CENTRE))


def test_annuli_that_leave_the_detector_or_reach_the_beam_are_told(npy):
    with pytest.warns(
        DiffractionWarning, match=r"^scan.npy: \d\d% of the annulus of HAADF \(60 to 120 mrad\) is on the detector"
    ):
        virtual_images(npy, [Detector("HAADF", 60, 120)])
    with pytest.warns(
        DiffractionWarning, match=r"reaches 3\d\.\d mrad and with that into the annulus of LAADF \(20 to 60 mrad\)"
    ):
        virtual_images(npy, [Detector("LAADF", 20, 60)])


def test_a_hot_pixel_is_told(tmp_path):
    data = DATA.copy()
    data[:, :, 22, 8] = 5000
    np.save(tmp_path / "scan.npy", data)
    scan = read_scan(tmp_path / "scan.npy", sampling=0.2, angular_sampling=MRAD)
    with pytest.warns(DiffractionWarning, match=r"^scan.npy: the pixel at \(22, 8\) makes \d\d% of the image of HAADF"):
        virtual_images(scan, DETECTORS[:1])


@given(row=st.floats(-0.4, 47), column=st.floats(-0.4, 47), inner=st.floats(0, 30), width=st.floats(3, 30))
@settings(max_examples=20)
def test_share_of_an_annulus(row, column, inner, width):
    """Against random points in the annulus."""
    rng = np.random.default_rng(0)
    radius = np.sqrt(rng.uniform(inner**2, (inner + width) ** 2, 40_000))
    angle = rng.uniform(0, 2 * np.pi, radius.size)
    on = [
        (at + radius * part > -0.5) & (at + radius * part < 47.5)
        for at, part in ((row, np.sin(angle)), (column, np.cos(angle)))
    ]
    assert share_on_detector((48, 48), (row, column), inner, inner + width) == pytest.approx(
        (on[0] & on[1]).mean(), abs=0.02
    )


# Memory


@pytest.mark.skipif(sys.platform != "linux", reason="resource limits are those of Linux")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """A file of 3 GiB, sparse, in a process that may have 1 GiB of data."""
    path = tmp_path / "scan.npy"
    shape = (192, 128, 256, 256)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": shape})
        start = file.tell()
        file.truncate(start + 2 * math.prod(shape))
        brightness = {}
        for number in (0, 77, 5000, 24_575):
            file.seek(start + number * 2 * 256 * 256)
            file.write(np.full(256 * 256, number % 251 + 1, dtype="<u2").tobytes())
            brightness[number] = number % 251 + 1
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))\n"
        "import contextem as ctm\n"
        "scan = ctm.read_scan(sys.argv[1], sampling=0.2, angular_sampling=1.0)\n"
        "image, = ctm.virtual_images(scan, [ctm.Detector('HAADF', 60, 100)], centre=(127.5, 127.5), n_threads=1)\n"
        "print({int(i): int(image.data.flat[i]) for i in image.data.ravel().nonzero()[0]})\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True)
    pixels = sum(60 <= math.dist((i, j), (127.5, 127.5)) < 100 for i in range(256) for j in range(256))
    assert done.stdout.strip() == str({number: value * pixels for number, value in brightness.items()}), done.stderr


# LiberTEM


def test_what_libertem_is_needed_for(tmp_path, monkeypatch):
    (tmp_path / "scan.seq").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "libertem", None)
    monkeypatch.setitem(sys.modules, "libertem.api", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'contextem\[libertem\]'"):
        read_scan(tmp_path / "scan.seq")


def test_what_libertem_reads(tmp_path):
    """EMPAD: 130 rows, of which the last two are no pixels."""
    pytest.importorskip("libertem", reason="the extra libertem is not installed")
    data = simulate(4, 5, 128, (60.0, 66.0), np.float32)
    raw = np.zeros((20, 130, 128), dtype="<f4")
    raw[:, :128] = data.reshape(20, 128, 128)
    raw.tofile(tmp_path / "scan_x5_y4.raw")
    (tmp_path / "scan.xml").write_text(
        '<?xml version="1.0"?><root><raw_file filename="scan_x5_y4.raw"/><pix_x>5</pix_x><pix_y>4</pix_y>'
        '<scan_parameters mode="acquire"><scan_resolution_x>5</scan_resolution_x>'
        "<scan_resolution_y>4</scan_resolution_y>"
        "</scan_parameters></root>"
    )
    scan = read_scan(tmp_path / "scan.xml", sampling=0.2, angular_sampling=MRAD)
    assert scan.shape == (4, 5, 128, 128)
    patterns = np.zeros((20, 128, 128), dtype="f4")
    for first, block in scan.blocks(300_000):
        patterns[first : first + len(block)] = block
    np.testing.assert_array_equal(patterns.reshape(data.shape), data)
    (image,) = virtual_images(scan, DETECTORS[:1])
    np.testing.assert_array_equal(image.data, expected(data, DETECTORS[0], scan_geometry(scan).centre))
    with pytest.raises(ValueError, match=r"^scan_shape: scan.xml holds 20 patterns, 5 more than a scan of 3 x 5 has"):
        read_scan(tmp_path / "scan.xml", scan_shape=(3, 5))
    with pytest.raises(ValueError, match=r"^scan_shape: scan.xml holds 20 patterns, 5 fewer than a scan of 5 x 5 has"):
        read_scan(tmp_path / "scan.xml", scan_shape=(5, 5))


def test_package_that_blockfiles_need_is_named(tmp_path, monkeypatch):
    write_blo(tmp_path / "scan.blo", DATA.astype(np.uint8))
    for module in [name for name in sys.modules if name.startswith("rsciio.blockfile")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr("rsciio.blockfile")
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(
        ReadError, match=r"^path: scan.blo .* package scikit-image, .* pip install 'contextem\[batch\]'$"
    ):
        read_scan(tmp_path / "scan.blo")
