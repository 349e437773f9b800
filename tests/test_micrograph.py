"""Micrographs: what is read from files of each format, what is refused and how, and sampling from the spectrum."""

import math
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from microscope_files import write_dm, write_emi, write_mrc, write_ser, write_signal, write_velox

from contextem.micrograph import DETECTORS, Detector, Micrograph, ReadError, estimate_sampling, read
from contextem.periodicity import hexagonal_period

SUFFIXES = (".dm3", ".dm4", ".emd", ".emi", ".hspy", ".mrc", ".npy", ".png", ".ser", ".tif", ".tiff", ".zspy")

IMAGE = np.random.default_rng(7).integers(0, 60_000, (24, 32)).astype(np.uint16)


def dm_image(data=IMAGE, *, scale=(0.02, 0.02), units="nm", voltage=80_000.0, name="HAADF") -> dict:
    tags = {} if voltage is None else {"Microscope Info": {"Voltage": voltage}}
    return {"data": data, "scale": scale, "units": units, "tags": tags, "name": name}


def lattice_image(
    shape, period, *, angle=0.2, chalcogen=0.9, width=0.15, distortion=None, counts=30.0, contamination=0.0, seed=0
) -> np.ndarray:
    """Poisson counts of Gaussian columns on a honeycomb whose two sublattices have weights 1 and `chalcogen`."""
    rng = np.random.default_rng(seed)
    distortion = np.eye(2) if distortion is None else distortion
    cos, sin = math.cos(angle), math.sin(angle)
    basis = period * np.array([[1.0, 0.0], [0.5, math.sqrt(0.75)]]) @ [[cos, sin], [-sin, cos]] @ distortion.T
    reach = int(2 * max(shape) / period) + 2
    indices = np.stack(np.mgrid[-reach : reach + 1, -reach : reach + 1], axis=-1).reshape(-1, 2)
    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    image = np.full(shape, 0.1)
    for weight, offset in ((1.0, 0.0), (chalcogen, 1 / 3)):
        positions = (indices + offset) @ basis + np.array(shape) / 2
        positions = positions[((positions > -period) & (positions < np.array(shape) + period)).all(axis=1)]
        spread = width * period
        along_rows = np.exp(-((rows[:, None] - positions[:, 0]) ** 2) / (2 * spread**2))
        image += weight * along_rows @ np.exp(-((columns - positions[:, 1:]) ** 2) / (2 * spread**2))
    if contamination:
        from scipy.ndimage import gaussian_filter

        haze = gaussian_filter(rng.normal(size=shape), 1.5 * period)
        image += contamination * haze / haze.std()
    return rng.poisson(counts * np.clip(image, 0, None)).astype(np.float32)


# Micrograph


def test_a_micrograph_keeps_pixels_and_dtype():
    for dtype in ("uint8", "int16", "uint32", "float16", "float32", "float64"):
        data = np.arange(12, dtype=dtype).reshape(3, 4)
        micrograph = Micrograph(data, 0.2)
        assert micrograph.data is data
        assert micrograph.shape == (3, 4)


def test_the_other_byte_order_becomes_that_of_the_machine():
    data = IMAGE.astype(IMAGE.dtype.newbyteorder())
    micrograph = Micrograph(data, 0.2)
    assert micrograph.data.dtype == np.uint16
    assert micrograph.data.dtype.isnative
    np.testing.assert_array_equal(micrograph.data, IMAGE)


def test_as_float():
    micrograph = Micrograph(IMAGE[:, ::2], 0.2)
    for dtype in (np.float32, np.float64):
        pixels = micrograph.as_float(dtype)
        assert pixels.dtype == dtype
        assert pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, IMAGE[:, ::2])
    single = IMAGE.astype(np.float32)
    assert Micrograph(single, 0.2).as_float() is single
    with pytest.raises(TypeError, match=r"^dtype: expected float32 or float64, got int32$"):
        micrograph.as_float("int32")


def test_provenance_has_an_entry_for_each_value_that_is_known():
    assert Micrograph(IMAGE, 0.2).provenance == {"sampling": "user"}
    micrograph = Micrograph(IMAGE, 0.2, 80e3, "BF", provenance={"sampling": "file", "energy": "file"})
    assert micrograph.provenance == {"sampling": "file", "energy": "file", "detector": "user"}
    assert "detector" not in Micrograph(IMAGE, 0.2, provenance={"detector": "file"}).provenance


def test_a_micrograph_survives_pickle():
    micrograph = Micrograph(IMAGE, 0.2, 80e3, Detector("HAADF", 70, 200), source="a.dm4")
    again = pickle.loads(pickle.dumps(micrograph))
    np.testing.assert_array_equal(again.data, IMAGE)
    assert vars(again) | {"data": None} == vars(micrograph) | {"data": None}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((8, 8)), "data: expected an image with contrast, got 0.0 in every pixel"),
        (np.diag([np.nan] * 8), "data: expected finite pixels, got 8 NaN or infinite ones, replace or crop them"),
        (np.diag([-np.inf] * 4), "data: expected finite pixels, got 4 NaN or infinite ones, replace or crop them"),
        (np.arange(8.0), "data: expected one image of shape (H, W), got shape (8,)"),
        (np.zeros((0, 8)), "data: expected one image of shape (H, W), got shape (0, 8)"),
        (np.float64(1), "data: expected a NumPy array of shape (H, W), got float64"),
        ([[1.0, 2.0]], "data: expected a NumPy array of shape (H, W), got list"),
        (np.eye(8, dtype=bool), "data: expected real numbers, got bool"),
        (np.eye(8, dtype=complex), "data: expected real numbers, got complex128"),
        (np.eye(8).astype(object), "data: expected real numbers, got object"),
    ],
)
def test_pixels_that_cannot_be_used(data, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        Micrograph(data, 0.2)
    assert str(caught.value) == message


def test_stacks_and_colour_images_say_what_to_do():
    with pytest.raises(ValueError, match=r"^data: .* got a stack of shape \(5, 8, 9\), .* one of them$"):
        Micrograph(np.ones((5, 8, 9)), 0.2)
    for channels in (3, 4):
        with pytest.raises(ValueError, match=rf"^data: .* a colour image of shape \(8, 9, {channels}\), .* grey"):
            Micrograph(np.ones((8, 9, channels)), 0.2)


@pytest.mark.parametrize("sampling", [0, -1, 4e16, math.nan, math.inf])
def test_a_sampling_that_cannot_be(sampling):
    with pytest.raises(ValueError, match=r"^sampling: expected Å/px, 0.001 to 5, got"):
        Micrograph(IMAGE, sampling)


@pytest.mark.parametrize("sampling", [None, "0.2", True, (0.2, 0.2)])
def test_a_sampling_that_is_no_number(sampling):
    with pytest.raises(TypeError, match=r"^sampling: expected a number in Å/px, got"):
        Micrograph(IMAGE, sampling)


def test_an_energy_in_kev():
    with pytest.raises(ValueError, match=r"^energy: expected eV \(80 keV is 80e3\), got 80$"):
        Micrograph(IMAGE, 0.2, 80)


def test_detectors():
    assert Micrograph(IMAGE, 0.2, detector="ABF").detector == Detector("ABF")
    assert Detector(**Detector("MAADF", 40, 80).to_dict()) == Detector("MAADF", 40, 80)
    for arguments, message in {
        ("SE",): "detector: expected one of HAADF, MAADF, LAADF, ABF, BF, ADF, got 'SE'",
        ("haadf",): "detector: expected one of HAADF, MAADF, LAADF, ABF, BF, ADF, got 'haadf', did you mean 'HAADF'?",
        ("HAADF", -1): "inner: expected a collection semi-angle of 0 to 1000 mrad, got -1",
        ("HAADF", 70, math.nan): "outer: expected a collection semi-angle of 0 to 1000 mrad, got nan",
        ("HAADF", 200, 70): "outer: expected an angle above inner = 200 mrad, got 70",
        ("HAADF", 0.07, 0.2): "outer: expected mrad (200 mrad is 200), got 0.2",
    }.items():
        with pytest.raises(ValueError) as caught:
            Detector(*arguments)
        assert str(caught.value) == message
    with pytest.raises(TypeError, match=r"^detector: expected a Detector or one of HAADF"):
        Micrograph(IMAGE, 0.2, detector=1)


# Reading each format


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", "float64"])
def test_dm(tmp_path, version, dtype):
    data = (IMAGE % 200).astype(dtype)
    path = tmp_path / f"image.dm{version}"
    write_dm(path, [dm_image(data)], version)
    micrograph = read(path)
    np.testing.assert_array_equal(micrograph.data, data)
    assert micrograph.data.dtype == dtype
    assert micrograph.sampling == pytest.approx(0.2)
    assert (micrograph.energy, micrograph.detector, micrograph.source) == (80e3, Detector("HAADF"), path.name)
    assert micrograph.provenance == {"sampling": "file", "energy": "file", "detector": "file"}


def test_ser(tmp_path):
    write_ser(tmp_path / "image.ser", IMAGE, (2e-11, 2e-11))
    micrograph = read(tmp_path / "image.ser")
    np.testing.assert_array_equal(micrograph.data, IMAGE)
    assert micrograph.sampling == pytest.approx(0.2)
    assert (micrograph.energy, micrograph.detector) == (None, None)


def test_emi_brings_the_energy_that_ser_lacks(tmp_path):
    write_emi(tmp_path / "image.emi", 200.0, IMAGE, (2e-11, 2e-11))
    micrograph = read(tmp_path / "image.emi")
    np.testing.assert_array_equal(micrograph.data, IMAGE)
    assert (micrograph.energy, micrograph.provenance["energy"]) == (200e3, "file")


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
def test_mrc(tmp_path, dtype):
    data = (IMAGE // 2).astype(dtype)
    write_mrc(tmp_path / "image.mrc", data, (24 * 0.2, 32 * 0.2))
    micrograph = read(tmp_path / "image.mrc")
    np.testing.assert_array_equal(micrograph.data, data)
    assert micrograph.sampling == pytest.approx(0.2, rel=1e-6)


def test_an_mrc_header_that_was_never_calibrated_gives_no_sampling(tmp_path):
    write_mrc(tmp_path / "image.mrc", IMAGE, (24, 32))
    with pytest.raises(ReadError, match=r"^sampling: image.mrc holds no credible sampling"):
        read(tmp_path / "image.mrc")


def test_velox_emd(tmp_path):
    write_velox(tmp_path / "image.emd", {"HAADF": IMAGE}, 2e-11, 80_000)
    micrograph = read(tmp_path / "image.emd")
    np.testing.assert_array_equal(micrograph.data, IMAGE)
    assert micrograph.sampling == pytest.approx(0.2)
    assert (micrograph.energy, micrograph.detector) == (80e3, Detector("HAADF"))


@pytest.mark.parametrize(("scale", "units"), [(0.02, "nm"), (2e-5, "µm"), (0.2, "Å"), (20.0, "pm"), (2e-11, "m")])
@pytest.mark.parametrize("suffix", [".hspy", ".emd", ".tif"])
def test_hspy_ncem_emd_and_tif_in_any_unit(tmp_path, suffix, scale, units):
    path = tmp_path / f"image{suffix}"
    if suffix == ".tif" and units == "m":
        scale, units = 2e-8, "mm"  # the writer rounds 2e-11 to 0
    write_signal(path, IMAGE, scale=scale, units=units)
    micrograph = read(path)
    np.testing.assert_array_equal(micrograph.data, IMAGE)
    assert micrograph.sampling == pytest.approx(0.2, rel=1e-3)
    assert micrograph.provenance["sampling"] == "file"


@pytest.mark.parametrize("instrument", ["TEM", "SEM"])
def test_the_energy_of_hspy_is_in_kev(tmp_path, instrument):
    write_signal(tmp_path / "a.hspy", IMAGE, metadata={"Acquisition_instrument": {instrument: {"beam_energy": 60.0}}})
    assert read(tmp_path / "a.hspy").energy == 60e3


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", ">i4", "<f8"])
def test_npy(tmp_path, dtype):
    np.save(tmp_path / "image.npy", (IMAGE % 250).astype(dtype))
    micrograph = read(tmp_path / "image.npy", sampling=0.2, energy=80e3, detector="MAADF")
    np.testing.assert_array_equal(micrograph.data, IMAGE % 250)
    assert micrograph.data.dtype == np.dtype(dtype).newbyteorder("=")
    assert micrograph.provenance == {"sampling": "user", "energy": "user", "detector": "user"}


def test_npy_with_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "image.npy", np.array([[1, "a"]], dtype=object))
    with pytest.raises(ReadError, match=r"^path: image.npy cannot be read"):
        read(tmp_path / "image.npy", sampling=0.2)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png(tmp_path, dtype):
    from PIL import Image

    data = (IMAGE % 250).astype(dtype)
    Image.fromarray(data).save(tmp_path / "image.png")
    micrograph = read(tmp_path / "image.png", sampling=0.2)
    np.testing.assert_array_equal(micrograph.data, data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "1"])
def test_a_png_that_is_no_grey_image_is_refused(tmp_path, mode):
    from PIL import Image

    Image.fromarray((IMAGE % 250).astype(np.uint8)).convert(mode).save(tmp_path / "image.png")
    with pytest.raises(ReadError, match=rf"^path: image.png is a picture in mode {mode}, .* export the grey"):
        read(tmp_path / "image.png", sampling=0.2)


def test_a_tif_in_colour_is_refused(tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "image.tif", np.stack([IMAGE] * 3, axis=-1), photometric="rgb")
    with pytest.raises(ReadError, match=r"^path: image.tif .* colour .* grey micrograph"):
        read(tmp_path / "image.tif", sampling=0.2)


def test_a_suffix_in_upper_case(tmp_path):
    write_dm(tmp_path / "IMAGE.DM4", [dm_image()], 4)
    assert read(tmp_path / "IMAGE.DM4").energy == 80e3


# Sampling, energy and detector of a file


def test_what_the_caller_says_takes_precedence(tmp_path):
    write_dm(tmp_path / "image.dm4", [dm_image()], 4)
    micrograph = read(tmp_path / "image.dm4", sampling=0.3, energy=60e3, detector=Detector("MAADF", 40, 80))
    assert (micrograph.sampling, micrograph.energy, micrograph.detector) == (0.3, 60e3, Detector("MAADF", 40, 80))
    assert set(micrograph.provenance.values()) == {"user"}


@pytest.mark.parametrize("scale", [-1.0, 0.0, 1.0, 4e16, math.nan])
@pytest.mark.parametrize("units", ["nm", "", "1/nm", "s"])
def test_a_scale_that_means_nothing_counts_as_missing(tmp_path, scale, units):
    path = tmp_path / "image.dm4"
    write_dm(path, [dm_image(scale=(scale, scale), units=units)], 4)
    with pytest.raises(ReadError, match=r"^sampling: image.dm4 holds no .*\(the file gives .*--sampling.*--estimate"):
        read(path)
    assert read(path, sampling=0.2).provenance["sampling"] == "user"


def test_rows_and_columns_of_different_sampling(tmp_path):
    path = tmp_path / "image.dm4"
    write_dm(path, [dm_image(scale=(0.02, 0.0202))], 4)
    with pytest.raises(ReadError, match=r"^sampling: image.dm4 has pixels that are not square, 0.2 Å .* 0.202 Å"):
        read(path)
    assert read(path, sampling=0.2).sampling == 0.2
    write_dm(path, [dm_image(scale=(0.02, 0.02004))], 4)
    assert read(path).sampling == pytest.approx(0.2002, rel=1e-5)


@pytest.mark.parametrize("voltage", [0.0, -80e3, 1.0, 4e16, math.nan, None])
def test_a_voltage_that_means_nothing_counts_as_missing(tmp_path, voltage):
    write_dm(tmp_path / "image.dm4", [dm_image(voltage=voltage)], 4)
    micrograph = read(tmp_path / "image.dm4")
    assert micrograph.energy is None
    assert "energy" not in micrograph.provenance


@pytest.mark.parametrize(
    ("title", "detector"),
    [
        *((name, name) for name in DETECTORS),
        ("Area 3 haadf_2", "HAADF"),
        ("BF-S", "BF"),
        ("ADF1_2", None),
        ("HAADF and BF", None),
        ("", None),
        ("HAADFs", None),
    ],
)
def test_a_detector_is_recognised_by_its_whole_name(tmp_path, title, detector):
    write_dm(tmp_path / "image.dm4", [dm_image(name=title)], 4)
    micrograph = read(tmp_path / "image.dm4")
    assert (None if micrograph.detector is None else micrograph.detector.name) == detector
    assert ("detector" in micrograph.provenance) == (detector is not None)


# Several signals, stacks


def test_of_several_signals_one_must_be_chosen(tmp_path):
    path = tmp_path / "image.emd"
    write_velox(path, {"HAADF": IMAGE, "BF": IMAGE[::-1]}, 2e-11, 80_000)
    with pytest.raises(ReadError, match=r"^signal: .* holds several images.*0: HAADF \(24, 32\), 1: BF \(24, 32\)"):
        read(path)
    for signal in ("BF", 1, "1"):
        micrograph = read(path, signal=signal)
        np.testing.assert_array_equal(micrograph.data, IMAGE[::-1])
        assert micrograph.detector == Detector("BF")
    for signal in ("DF", 2, -1, "2", ""):
        with pytest.raises(ReadError, match=rf"^signal: expected index or name .*0: HAADF.* got {signal!r}$"):
            read(path, signal=signal)


def test_of_signals_with_the_same_name_the_index_decides(tmp_path):
    write_dm(tmp_path / "image.dm4", [dm_image(), dm_image(IMAGE[::-1])], 4)
    with pytest.raises(ReadError, match=r"^signal: expected index or name"):
        read(tmp_path / "image.dm4", signal="HAADF")
    np.testing.assert_array_equal(read(tmp_path / "image.dm4", signal=1).data, IMAGE[::-1])


@pytest.mark.parametrize("suffix", [".hspy", ".emd", ".npy", ".mrc", ".tif"])
def test_a_stack_is_refused(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    stack = np.stack([IMAGE] * 5)
    if suffix == ".npy":
        np.save(path, stack)
    elif suffix == ".mrc":
        write_mrc(path, stack, (24 * 0.2, 32 * 0.2))
    else:
        write_signal(path, stack)
    message = (
        rf"^frame: image{suffix} holds a series of 5 images of 24 x 32 px, choose one as .* \(0 to 4\), or read all"
    )
    with pytest.raises(ReadError, match=message):
        read(path, sampling=0.2)


def test_a_stack_of_one_image_is_an_image(tmp_path):
    write_signal(tmp_path / "image.hspy", IMAGE[None])
    np.testing.assert_array_equal(read(tmp_path / "image.hspy").data, IMAGE)


def test_a_spectrum_is_refused(tmp_path):
    write_dm(tmp_path / "image.dm4", [dm_image(IMAGE[0], scale=(0.02,))], 4)
    with pytest.raises(ReadError, match=r"^path: image.dm4 holds no image .* got shape \(32,\)"):
        read(tmp_path / "image.dm4")


def test_pixels_of_a_file_are_checked(tmp_path):
    for name, data in {"nan": np.full((8, 8), np.nan), "constant": np.ones((8, 8)), "complex": np.eye(8) * 1j}.items():
        np.save(tmp_path / f"{name}.npy", data)
        with pytest.raises(ReadError, match=rf"^path: {name}.npy holds no image that can be used \(data: expected"):
            read(tmp_path / f"{name}.npy", sampling=0.2)


# Files that are not what they should be


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^path: there is no file .*nothing.dm4$"):
        read(tmp_path / "nothing.dm4")


def test_a_directory(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"^path: expected a file, .* is a directory$"):
        read(tmp_path)


def test_an_unknown_suffix_lists_the_known(tmp_path):
    (tmp_path / "image.docx").write_bytes(b"abc")
    with pytest.raises(ReadError, match=r"^path: expected a file with one of \.dm3, .*\.png, got image.docx$"):
        read(tmp_path / "image.docx")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"row,column,class\n1,2,metal\n" * 40, bytes(3000)])
def test_empty_text_and_zeros_under_any_suffix(tmp_path, capfd, suffix, content):
    path = tmp_path / f"image{suffix}"
    path.write_bytes(content)
    with pytest.raises(ReadError) as caught:
        read(path, sampling=0.2)
    message = str(caught.value)
    assert message.startswith(f"path: image{suffix} ")
    assert ("is empty" in message) == (content == b"")
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=3000), suffix=st.sampled_from(SUFFIXES))
def test_no_bytes_get_past_as_anything_but_a_read_error(tmp_path, content, suffix):
    path = tmp_path / f"image{suffix}"
    path.write_bytes(content)
    with pytest.raises(ReadError):
        read(path, sampling=0.2)


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("suffix", [".dm3", ".dm4", ".ser", ".mrc", ".hspy", ".tif", ".npy", ".png", ".emd"])
def test_a_file_cut_short(tmp_path, suffix, part):
    path = tmp_path / f"image{suffix}"
    data = np.random.default_rng(1).integers(0, 250, (80, 90)).astype(np.uint16)
    if suffix in (".dm3", ".dm4"):
        write_dm(path, [dm_image(data)], int(suffix[-1]))
    elif suffix == ".ser":
        write_ser(path, data, (2e-11, 2e-11))
    elif suffix == ".mrc":
        write_mrc(path, data, (80 * 0.2, 90 * 0.2))
    elif suffix == ".npy":
        np.save(path, data)
    elif suffix == ".png":
        from PIL import Image

        Image.fromarray(data).save(path)
    else:
        write_signal(path, data)
    np.testing.assert_array_equal(read(path, sampling=0.2).data, data)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ReadError, match=rf"^path: image{suffix} "):
        read(path, sampling=0.2)


def test_reading_leaves_logging_and_warnings_as_they_were(tmp_path):
    import logging

    write_dm(tmp_path / "image.dm4", [dm_image()], 4)
    before = list(warnings.filters)
    read(tmp_path / "image.dm4")
    assert warnings.filters == before
    assert not logging.getLogger("rsciio").disabled


def test_importing_loads_neither_readers_nor_torch():
    code = (
        "import sys, contextem.micrograph\n"
        "heavy = {'rsciio', 'torch', 'matplotlib', 'h5py', 'PIL', 'dask'}\n"
        "assert not (heavy | {'scipy'}) & set(sys.modules)\n"
        "import contextem.context\n"  # expects intensities, for which responses are computed with SciPy
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Sampling from the spectrum


@settings(max_examples=15, deadline=None)
@given(
    sampling=st.floats(0.10, 0.42),
    a=st.floats(3.18, 3.71),
    angle=st.floats(0, math.pi),
    chalcogen=st.sampled_from([0.3, 0.6, 0.9, 1.0, 1.4, 1.8]),
    counts=st.sampled_from([2.0, 10.0, 100.0]),
    contamination=st.sampled_from([0.0, 0.3]),
    shear=st.floats(-0.02, 0.02),
    aspect=st.floats(0.8, 1.3),
    seed=st.integers(0, 1000),
)
def test_the_sampling_is_found_to_a_percent(sampling, a, angle, chalcogen, counts, contamination, shear, aspect, seed):
    side = max(128, int(40 / sampling))
    image = lattice_image(
        (side, int(aspect * side)),
        a / sampling,
        angle=angle,
        chalcogen=chalcogen,
        counts=counts,
        contamination=contamination,
        distortion=np.array([[1.0, shear], [0.0, 1.0]]),
        seed=seed,
    )
    assert estimate_sampling(image, a) == pytest.approx(sampling, rel=0.01)


def test_with_11_stronger_than_10_the_lattice_is_still_that_of_10():
    image = lattice_image((256, 256), 12.0, chalcogen=1.0, width=0.05, counts=1000.0)
    power = np.abs(np.fft.fft2(image - image.mean(), s=(2048, 2048))) ** 2
    frequency = np.hypot(np.fft.fftfreq(2048)[:, None], np.fft.fftfreq(2048))
    first = 2 / (math.sqrt(3) * 12.0)

    def ring(k: float) -> float:
        return power[np.abs(frequency - k) < 0.005].max()

    assert ring(math.sqrt(3) * first) > 2 * ring(first)
    assert hexagonal_period(image) == pytest.approx(12.0, rel=2e-3)


def test_an_image_without_noise():
    assert hexagonal_period(lattice_image((200, 240), 14.3, counts=1e7)) == pytest.approx(14.3, rel=2e-3)


def test_the_sampling_does_not_depend_on_gain_offset_orientation_or_dtype():
    image = lattice_image((256, 200), 11.0, counts=50.0).astype(np.uint16)
    expected = estimate_sampling(image, 3.32)
    assert expected == pytest.approx(3.32 / 11.0, rel=2e-3)
    for other in (image.astype(np.float64) * 7 + 3e4, image.T, image[::-1], np.rot90(image).copy()):
        assert estimate_sampling(other, 3.32) == pytest.approx(expected, rel=1e-4)
    assert estimate_sampling(image, 3.18) == pytest.approx(expected * 3.18 / 3.32)


@pytest.mark.parametrize(
    "image",
    [
        np.random.default_rng(0).normal(size=(256, 256)),
        np.random.default_rng(1).poisson(3, size=(200, 300)),
        np.cumsum(np.random.default_rng(2).normal(size=(256, 256)), axis=0),
        np.hypot(*np.mgrid[:200, :200]),
        np.sin(np.arange(256) / 2.0) * np.ones((256, 1)) + np.random.default_rng(3).normal(size=(256, 256)),
        sum(np.sin(x / 2.0) for x in np.mgrid[:256, :256]) + np.random.default_rng(4).normal(size=(256, 256)),
        np.eye(8),
    ],
    ids=["noise", "counts", "drift", "cone", "stripes", "squares", "tiny"],
)
def test_without_a_hexagonal_lattice_there_is_no_estimate(image):
    with pytest.raises(ValueError, match=r"^data: expected an image of a hexagonal lattice, found none"):
        estimate_sampling(image, 3.32)


def test_arguments_of_the_estimate():
    image = lattice_image((128, 128), 11.0)
    with pytest.raises(ValueError, match=r"^lattice_constant: expected Å, 2 to 6, got 0.332$"):
        estimate_sampling(image, 0.332)
    with pytest.raises(ValueError, match=r"^data: expected an image with contrast"):
        estimate_sampling(np.ones((64, 64)), 3.32)


def test_reading_with_an_estimate_says_so(tmp_path):
    np.save(tmp_path / "image.npy", lattice_image((200, 200), 11.0))
    micrograph = read(tmp_path / "image.npy", sampling="estimate", lattice_constant=3.32)
    assert micrograph.sampling == pytest.approx(3.32 / 11.0, rel=5e-3)
    assert micrograph.provenance["sampling"] == "estimated from the FFT with a = 3.32 Å"
    for arguments in ({"sampling": "estimate"}, {"sampling": "guess", "lattice_constant": 3.32}):
        with pytest.raises(ValueError, match=r"^sampling: expected a number in Å/px, or 'estimate' together with"):
            read(tmp_path / "image.npy", **arguments)
    with pytest.raises(ValueError, match=r"^lattice_constant: expected only with sampling='estimate', got 3.32$"):
        read(tmp_path / "image.npy", sampling=0.2, lattice_constant=3.32)


# The labelled micrographs


@pytest.mark.experimental
@pytest.mark.parametrize("field", ["2", "11"])
@pytest.mark.parametrize("detector", ["haadf", "adf2"])
def test_ti_wse2(experimental_data, field, detector):
    path = experimental_data / f"ti_wse2_field{field}_{detector}.dm4"
    micrograph = read(path)
    assert (micrograph.shape, micrograph.data.dtype) == ((512, 512), np.uint32)
    assert micrograph.sampling == pytest.approx(0.3988, abs=1e-4)
    assert (micrograph.energy, micrograph.detector) == (80e3, None)
    assert micrograph.provenance == {"sampling": "file", "energy": "file"}

    estimated = read(path, sampling="estimate", lattice_constant=3.32)
    assert estimated.sampling == pytest.approx(3.32 / period_of_labels(path), rel=0.003)


def period_of_labels(path: Path) -> float:
    """Lattice constant in px from the labelled metal columns: triangles of neighbours have the area sqrt(3)/4 a**2."""
    from scipy.spatial import Delaunay

    table = np.genfromtxt(
        re.sub("_(haadf|adf2).dm4", "_columns.csv", str(path)), delimiter=",", names=True, dtype=None, encoding="utf-8"
    )
    metal = np.stack([table["row"], table["column"]], axis=1)[np.isin(table["class"], ["metal", "dopant"])] * 1.0
    corners = metal[Delaunay(metal).simplices]
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    whole = (np.abs(edges / np.median(edges) - 1) < 0.2).all(axis=1)
    areas = np.abs(np.linalg.det(corners[whole, 1:] - corners[whole, :1])) / 2
    return math.sqrt(4 * areas.mean() / math.sqrt(3))


@pytest.mark.experimental
@pytest.mark.parametrize("length", [1, 8, 100, 5_000, 156_380, 400_000, 1_200_000, 1_215_100])
def test_a_real_dm4_cut_short(experimental_data, tmp_path, length):
    content = (experimental_data / "ti_wse2_field2_haadf.dm4").read_bytes()
    (tmp_path / "cut.dm4").write_bytes(content[:length])
    with pytest.raises(ReadError, match=r"^path: cut.dm4 cannot be read as .dm4, it may be damaged, cut short"):
        read(tmp_path / "cut.dm4")
