"""Formats and their traps: real files, series, several images, compressions, detectors, and what is refused why.

Real files are those that HyperSpy 1.7 ships with its tests (`hyperspy/tests/io` of the wheel); CONTEXTEM_FORMATS names
the folder they were unpacked to.
"""

import json
import subprocess
import sys

import dask
import h5py
import numpy as np
import pytest
import tifffile
from microscope_files import (
    write_dm,
    write_emi,
    write_mrc,
    write_py4dstem,
    write_ser,
    write_signal,
    write_velox,
    write_zspy,
)
from PIL import Image

from contextem._files import find_files
from contextem.micrograph import Detector, Micrograph, ReadError, open_series, read, read_series

IMAGE = np.random.default_rng(11).integers(0, 60_000, (24, 32)).astype(np.uint16)
SERIES = np.stack([np.roll(IMAGE, shift, axis=1) for shift in range(5)])
NM = {"scale": (0.02, 0.02), "units": "nm"}


def dm_image(data=IMAGE, *, name="HAADF", **options) -> dict:
    return {"data": data, "tags": {"Microscope Info": {"Voltage": 80_000.0}}, "name": name} | NM | options


# Real files


REAL = {
    "dm3_2D_data/multi_signal.dm3": ((512, 512), 0.17751578, 300e3, "HAADF"),
    "dm3_2D_data/test_STEM_image.dm3": ((68, 68), None, 200e3, None),
    "dm3_locale/Fei HAADF-DE_location.dm3": ((4, 16), None, 200e3, "HAADF"),
    "dm4_2D_data/test-1.dm4": ((2, 2), None, None, None),
    "dm4_2D_data/test-MonarcCL_mono-image.dm4": ((2, 2), None, None, None),
    "emd_files/example_image.emd": ((3, 3), None, None, None),
    "emd_files/fei_emd_files.zip!fei_emd_image.emd": ((512, 512), None, 200e3, "HAADF"),
    "FEI_new/128x128-TEM_search.emi": ((128, 128), None, 200e3, None),
    "FEI_new/128x128-TEM_search_1.ser": ((128, 128), None, 200e3, None),
    "FEI_old/64x64_TEM_images_acquire_1.ser": ((64, 64), None, 200e3, None),
    "hdf5_files/example2_v2.2.hspy": ((10, 10), None, 200e3, None),
    "hdf5_files/example2_v3.1.hspy": ((16, 16), None, 200e3, None),
    "tiff_files/test_loading_image_saved_with_DM.tif": ((68, 68), None, None, None),
    "tiff_files/test_loading_image_saved_with_imageJ.tif": ((68, 68), None, None, None),
    "tiff_files/test_loading_image_saved_with_imageJ_no_scale.tif": ((68, 68), None, None, None),
    "tiff_files/TVIPS_bin4.zip!TVIPS_bin4.tif": ((1024, 1024), None, 99e3, None),
    "tiff_files/tiff_FEI_Helios.zip!FEI-Helios-Ebeam-16bits.tif": ((471, 512), None, None, None),
    "tiff_files/tiff_Zeiss_SEM.zip!test_tiff_Zeiss_SEM_1k.tif": ((768, 1024), None, 25e3, None),
    "tiff_files/optical_Zeiss_AxioVision_BW.tif": ((10, 13), None, None, None),
}


@pytest.mark.parametrize("name", REAL)
def test_real_images(real, name, capfd):
    """Of most the sampling is that of no atomic resolution, or was never calibrated: then it has to be given."""
    shape, sampling, energy, detector = REAL[name]
    if sampling is None:
        with pytest.raises(ReadError, match=r"^sampling: .* holds no credible sampling"):
            read(real(name))
    micrograph = read(real(name), sampling=None if sampling else 0.2)
    assert micrograph.shape == shape
    assert micrograph.sampling == pytest.approx(sampling or 0.2)
    assert micrograph.energy == energy
    assert (micrograph.detector and micrograph.detector.name) == detector
    assert capfd.readouterr() == ("", "")


REAL_SERIES = {
    "emd_files/fei_example_tem_stack.emd": ((2, 3, 3), 0.08172883),
    "FEI_old/03_Scanning Preview.emi": ((5, 128, 128), None),
    "FEI_old/16x16x5_STEM_BF_DF_preview_2.ser": ((5, 16, 16), None),
    "dm_stackbuilder_plugin/test_stackbuilder_imagestack.dm3": ((3, 2, 16), None),
    "dm4_3D_data/test-1.dm4": ((2, 2, 2), None),
    "tiff_files/test_loading_image_saved_with_imageJ_stack.tif": ((2, 68, 68), None),
}


@pytest.mark.parametrize("name", REAL_SERIES)
def test_real_series(real, name):
    (count, *shape), sampling = REAL_SERIES[name]
    with pytest.raises(ReadError, match=rf"^frame: .* a series of {count} images of {shape[0]} x {shape[1]} px"):
        read(real(name))
    frames = read_series(real(name), sampling=None if sampling else 0.2)
    assert [frame.shape for frame in frames] == [tuple(shape)] * count
    assert frames[0].sampling == pytest.approx(sampling or 0.2)
    one = read(real(name), frame=1, sampling=None if sampling else 0.2)
    np.testing.assert_array_equal(one.data, frames[1].data)


REAL_REFUSED = {
    "FEI_old/16x16_STEM_BF_DF_acquire.emi": "signal: .* several images.*0: 16x16_STEM_BF_DF_acquire_1.ser",
    "emd_files/fei_example_dpc_titles.emd": "signal: .* several images.*3: DF4-C .* 8: Filtered iDPC",
    "emd_files/Si100_4D.emd": r"path: .* no image but data of shape \(11, 11, 8, 8\)",
    "emd_files/Si100_3D.emd": r"path: .* no image but data of shape \(37, 22, 22\)",
    "emd_files/fei_example_complex_fft.emd": "path: .* real numbers, got complex64",
    "emd_files/fei_emd_files.zip!fei_emd_spectrum.emd": "path: .* holds no image",
    "FEI_new/16x16-spectrum_image_5x5x4000-not_square.emi": r"path: .* no image but data of shape \(5, 5, 4000\)",
    "dm4_3D_data/EELS_SI.dm4": r"path: .* no image but data of shape \(2048, 2, 2\)",
    "dm3_1D_data/test-EELS_spectrum.dm3": "path: .* holds no image that can be used",
    "emd_files/Si100_2x1x1_3D.emd": "path: .* an image with contrast, got 0.0 in every pixel",
    "emd_files/example_object_dtype_data.emd": "path: .* cannot be read as .emd",
    "dm3_2D_data/test_diffraction_pattern.dm3": "sampling: .* 1/nm for the rows",
    "FEI_old/64x64_diffraction_acquire_1.ser": "sampling: .* 1 / nm for the rows",
    "blockfile_data/test1.blo": "path: .* diffraction patterns, compute images of them",
    "tiff_files/optical_Zeiss_AxioVision_RGB.tif": "path: .* colour image",
    "tiff_files/test_rgba16.zip!test_rgba16.tif": "path: .* colour image",
}


@pytest.mark.parametrize("name", REAL_REFUSED)
def test_real_files_without_an_image(real, name):
    with pytest.raises(ReadError, match=f"^{REAL_REFUSED[name]}"):
        read(real(name))


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("tiff_files/olympus_SIS.tif", "imagecodecs"),
        ("emd_files/fei_emd_files.zip!fei_SI_SuperX-HAADF_10frames_10x50.emd", "sparse"),
    ],
)
def test_real_files_that_need_another_package(real, name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ReadError, match=rf"^path: .* the package {package}, .* \(pip install {package}\)"):
        read(real(name))


# Files with traps


def test_a_thumbnail_is_no_second_image(tmp_path):
    images = [dm_image((IMAGE % 200).astype(np.uint8)[::2, ::2], name=""), dm_image()]
    write_dm(tmp_path / "image.dm4", images, 4, thumbnails=(0,))
    np.testing.assert_array_equal(read(tmp_path / "image.dm4").data, IMAGE)
    write_dm(tmp_path / "image.dm4", images, 4)
    with pytest.raises(ReadError, match=r"^signal: .*0: untitled \(12, 16\), 1: HAADF \(24, 32\)"):
        read(tmp_path / "image.dm4")


def test_a_profile_beside_the_only_image_leaves_no_choice(tmp_path):
    write_dm(tmp_path / "image.dm3", [dm_image(IMAGE[0], scale=(0.02,), name="profile"), dm_image()], 3)
    np.testing.assert_array_equal(read(tmp_path / "image.dm3").data, IMAGE)
    with pytest.raises(ReadError, match=r"^path: .* got shape \(32,\)"):
        read(tmp_path / "image.dm3", signal="profile")


def test_each_axis_has_its_own_units(tmp_path):
    write_signal(tmp_path / "image.hspy", IMAGE, scale=(0.2, 2e-5), units=("Å", "µm"))
    assert read(tmp_path / "image.hspy").sampling == pytest.approx(0.2)
    write_signal(tmp_path / "image.hspy", IMAGE, scale=(0.2, 2e-5), units=("nm", "µm"))
    with pytest.raises(ReadError, match=r"^sampling: .* gives 0.2 nm for the rows, which is not credible"):
        read(tmp_path / "image.hspy")


@pytest.mark.parametrize("units", ["n_m", "nm", "NM", "[n_m]", "nanometer"])
def test_spellings_of_nanometre(tmp_path, units):
    write_signal(tmp_path / "image.hspy", IMAGE, units=units)
    assert read(tmp_path / "image.hspy").sampling == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("unit", "pixel"), [("nm", 0.02), ("\\u00B5m", 2e-5), ("\\u00C5", 0.2), ("pm", 20.0), ("micron", 2e-5)]
)
def test_a_tif_calibrated_by_imagej(tmp_path, unit, pixel):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(1 / pixel, 1 / pixel), metadata={"unit": unit})
    assert read(path).sampling == pytest.approx(0.2, rel=1e-4)


def test_pages_of_a_tif(tmp_path):
    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, SERIES, photometric="minisblack")
    np.testing.assert_array_equal(read(path, sampling=0.2, frame=3).data, SERIES[3])
    with pytest.raises(ReadError, match=r"^frame: expected 0 to 4, the images of pages.tif, got 5$"):
        read(path, sampling=0.2, frame=5)
    with tifffile.TiffWriter(tmp_path / "sizes.tif") as file:
        for image in (IMAGE, IMAGE[::2, ::2]):
            file.write(image, photometric="minisblack")
    with pytest.raises(ReadError, match=r"^signal: .* several images.*0: untitled \(24, 32\), 1: untitled \(12, 16\)"):
        read(tmp_path / "sizes.tif", sampling=0.2)
    np.testing.assert_array_equal(read(tmp_path / "sizes.tif", sampling=0.2, signal=1).data, IMAGE[::2, ::2])


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_samples_of_a_pixel_are_no_series(tmp_path, planar):
    data = np.stack([IMAGE] * 3, axis=-1 if planar == "contig" else 0)
    tifffile.imwrite(tmp_path / "image.tif", data, photometric="minisblack", planarconfig=planar)
    with pytest.raises(ReadError, match=r"^path: image.tif holds no image"):
        read(tmp_path / "image.tif", sampling=0.2)


@pytest.mark.parametrize("compression", ["tiff_deflate", "tiff_adobe_deflate", "packbits", "raw"])
def test_compressions_that_need_no_further_package(tmp_path, compression, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    Image.fromarray(IMAGE).save(tmp_path / "image.tif", compression=compression)
    np.testing.assert_array_equal(read(tmp_path / "image.tif", sampling=0.2).data, IMAGE)


def test_compressions_that_do(tmp_path):
    """In a process of its own, since tifffile decides on import what it can decode."""
    Image.fromarray(IMAGE).save(tmp_path / "image.tif", compression="tiff_lzw")
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from contextem.micrograph import read, ReadError\n"
        "try: read(sys.argv[1], sampling=0.2)\n"
        "except ReadError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "image.tif"], capture_output=True, text=True)
    assert done.stdout.startswith(
        "path: image.tif can only be read with the package imagecodecs, which is not installed"
    )
    assert "pip install imagecodecs" in done.stdout
    assert done.stderr == ""


def test_zspy_folder_and_what_it_needs(tmp_path, monkeypatch):
    write_zspy(tmp_path / "image.zspy", IMAGE, metadata={"Acquisition_instrument": {"TEM": {"beam_energy": 60.0}}})
    micrograph = read(tmp_path / "image.zspy")
    np.testing.assert_array_equal(micrograph.data, IMAGE)
    assert (micrograph.sampling, micrograph.energy) == (pytest.approx(0.2), 60e3)
    assert micrograph.detector == Detector("HAADF")
    for name in [name for name in sys.modules if name.startswith("rsciio.zspy")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ReadError, match=r"^path: image.zspy .* the package zarr, .* pip install 'contextem\[batch\]'$"):
        read(tmp_path / "image.zspy")


def test_an_image_beside_the_4d_data_it_was_made_of(tmp_path):
    data = np.random.default_rng(0).normal(size=(6, 7, 4, 5))
    write_py4dstem(tmp_path / "scan.emd", data, data.sum((2, 3)), data.mean((0, 1)), 0.2)
    micrograph = read(tmp_path / "scan.emd")
    np.testing.assert_array_equal(micrograph.data, data.sum((2, 3)))
    assert micrograph.sampling == pytest.approx(0.2)
    message = r"^path: scan.emd holds no image but data of shape \(6, 7, 4, 5\), .* contextem.virtual_images"
    with pytest.raises(ReadError, match=message) as caught:
        read(tmp_path / "scan.emd", signal="scan")
    assert caught is not None  # the error does not hold the file open
    with h5py.File(tmp_path / "scan.emd", "a"):  # is not possible while someone reads
        pass


def test_velox_frames_beside_spectra(tmp_path, monkeypatch):
    """The reader gives all frames when asked to, and asks for a package it does not need for the images."""
    write_velox(tmp_path / "map.emd", {"HAADF": SERIES}, 2e-11, 80e3, spectra=True)
    monkeypatch.setitem(sys.modules, "sparse", None)
    with pytest.raises(ReadError, match=r"^path: map.emd .* the package sparse, .* \(pip install sparse\)"):
        read(tmp_path / "map.emd")
    monkeypatch.delitem(sys.modules, "sparse")
    (tmp_path / "sparse.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    np.testing.assert_array_equal(read(tmp_path / "map.emd", frame=4).data, SERIES[4])


def test_ser_takes_the_energy_from_the_emi_it_belongs_to(tmp_path):
    write_emi(tmp_path / "image.emi", 200.0, IMAGE, (2e-11, 2e-11))
    micrograph = read(tmp_path / "image_1.ser")
    assert (micrograph.energy, micrograph.provenance["energy"]) == (200e3, "file")
    assert micrograph.detector is None
    (tmp_path / "image.emi").write_bytes(b"damaged")
    micrograph = read(tmp_path / "image_1.ser")
    np.testing.assert_array_equal(micrograph.data, IMAGE)
    assert (micrograph.sampling, micrograph.energy) == (pytest.approx(0.2), None)
    (tmp_path / "image_1.ser").unlink()
    write_emi(tmp_path / "alone.emi", 200.0, IMAGE, (2e-11, 2e-11))
    (tmp_path / "alone_1.ser").unlink()
    with pytest.raises(ReadError, match=r"^path: alone.emi describes images that lie in alone_1.ser, ..., and none is"):
        read(tmp_path / "alone.emi")


def test_readers_do_not_write_to_the_screen(tmp_path, capfd):
    """The EMI reader warns of a SER file that the EMI file says nothing of, through a logger below the reader's own."""
    write_emi(tmp_path / "image.emi", 200.0, IMAGE, (2e-11, 2e-11))
    write_ser(tmp_path / "image_2.ser", IMAGE[::-1], (2e-11, 2e-11))
    np.testing.assert_array_equal(read(tmp_path / "image.emi", signal="image_2.ser").data, IMAGE[::-1])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("scan.mib", "holds diffraction patterns, compute images of them: `contextem batch --annulus"),
        ("scan.blo", r"holds diffraction patterns, .* or contextem.virtual_images$"),
        ("image.jpg", "is a picture whose compression changed the grey values"),
        ("image.JPEG", "is a picture whose compression changed the grey values"),
    ],
)
def test_what_is_refused_for_a_reason(tmp_path, name, reason):
    (tmp_path / name).write_bytes(b"abc")
    with pytest.raises(ReadError, match=rf"^path: {name} {reason}"):
        read(tmp_path / name)


def test_a_format_without_a_reader(tmp_path):
    (tmp_path / "image.dcm").write_bytes(b"abc")
    with pytest.raises(ReadError, match=r"^path: expected a file with one of .*\.zspy.*, got image.dcm$"):
        read(tmp_path / "image.dcm")


# Detectors


@pytest.mark.parametrize(
    ("title", "limits", "detector"),
    [
        ("HAADF", (0.07, 0.2), Detector("HAADF", 70, 200)),
        ("HAADF", (0, 0), Detector("HAADF")),
        ("HAADF", (0.2, 0.07), Detector("HAADF")),
        ("HAADF", (0.001, 0.2), Detector("HAADF")),
        ("HAADF", (70, 200), Detector("HAADF")),
        ("BF-S", (0, 0.012), Detector("BF", 0, 12)),
        ("ABF", (0.01, 0.022), Detector("ABF", 10, 22)),
        ("DF4", (0.065, 0.2), Detector("HAADF", 65, 200)),
        ("DF-O", (0.045, 0.09), Detector("MAADF", 45, 90)),
        ("DF-I", (0.025, 0.04), Detector("LAADF", 25, 40)),
        ("DF4", (0.0006, 0.0034), None),
        ("DF4", (0, 0), None),
        ("Ceta", (0.025, 0.04), None),
    ],
)
def test_velox_tells_detector_and_angles(tmp_path, title, limits, detector):
    write_velox(tmp_path / "image.emd", {title: IMAGE}, 2e-11, 80e3, angles={title: limits})
    micrograph = read(tmp_path / "image.emd")
    assert micrograph.detector == detector
    assert micrograph.provenance.get("detector") == (None if detector is None else "file")


def test_each_image_has_the_angles_of_its_own_detector(tmp_path):
    angles = {"BF": (0, 0.01), "HAADF": (0.06, 0.2)}
    write_velox(tmp_path / "image.emd", {"BF": IMAGE, "HAADF": IMAGE[::-1]}, 2e-11, 80e3, angles=angles)
    assert read(tmp_path / "image.emd", signal="HAADF").detector == Detector("HAADF", 60, 200)
    assert read(tmp_path / "image.emd", signal="BF").detector == Detector("BF", 0, 10)


def test_an_image_integrated_by_velox_has_the_detector_of_its_frames(tmp_path):
    angles = {"HAADF": (0.06, 0.2)}
    write_velox(tmp_path / "image.emd", {"HAADF": IMAGE}, 2e-11, 80e3, angles=angles, integrated=True)
    assert read(tmp_path / "image.emd").detector == Detector("HAADF", 60, 200)


def test_a_detector_given_by_name_gets_the_angles_of_the_file(tmp_path):
    write_velox(tmp_path / "image.emd", {"DF4": IMAGE}, 2e-11, 80e3, angles={"DF4": (0.045, 0.09)})
    named = read(tmp_path / "image.emd", detector="MAADF")
    assert (named.detector, named.provenance["detector"]) == (Detector("MAADF", 45, 90), "user, angles from the file")
    for detector in ("HAADF", Detector("MAADF", 50, 100)):
        given = read(tmp_path / "image.emd", detector=detector)
        assert given.detector == (Detector(detector) if isinstance(detector, str) else detector)
        assert given.provenance["detector"] == "user"


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("HAADF_2", "HAADF"),
        ("SuperScan (MAADF)", "MAADF"),
        ("LAADF 3", "LAADF"),
        ("ABF", "ABF"),
        ("ADF2", None),
        ("DF-S", None),
        ("STEM BF DF", None),
        ("HAADF DF4", "HAADF"),
        ("LABF", None),
        ("TEM, BrightField, MAG1", None),
    ],
)
def test_names_of_detectors(tmp_path, title, name):
    write_dm(tmp_path / "image.dm4", [dm_image(name=title)], 4)
    assert read(tmp_path / "image.dm4").detector == (None if name is None else Detector(name))


# Series


@pytest.mark.parametrize("suffix", [".dm4", ".npy", ".mrc", ".tif", ".hspy", ".emd"])
def test_a_series_in_one_file(tmp_path, suffix):
    path = tmp_path / f"series{suffix}"
    given = {} if suffix in (".dm4", ".hspy", ".emd") else {"sampling": 0.2}
    if suffix == ".dm4":
        write_dm(path, [dm_image(SERIES, scale=(1.0, 0.02, 0.02))], 4)
    elif suffix == ".npy":
        np.save(path, SERIES)
    elif suffix == ".mrc":
        write_mrc(path, SERIES, (24 * 0.2, 32 * 0.2))
    elif suffix == ".emd":
        write_velox(path, {"HAADF": SERIES}, 2e-11, 80e3)
    else:
        write_signal(path, SERIES)
    frames = read_series(path, **given)
    np.testing.assert_array_equal([frame.data for frame in frames], SERIES)
    assert [frame.sampling for frame in frames] == [pytest.approx(0.2)] * 5
    assert {frame.provenance["sampling"] for frame in frames} == {"user" if given else "file"}
    assert [frame.source for frame in frames] == [f"series{suffix}[{i}]" for i in range(5)]
    np.testing.assert_array_equal(read(path, frame=2, **given).data, SERIES[2])
    for frame in (5, -1, True, "1"):
        with pytest.raises(ReadError, match=r"^frame: expected 0 to 4, the images of series"):
            read(path, frame=frame, **given)


def test_frames_are_read_here_whatever_scheduler_dask_would_take(tmp_path):
    """Such as the cluster whose worker asks for them, to which open files cannot be handed."""
    write_signal(tmp_path / "series.hspy", SERIES)

    def scheduler(*_, **__):
        raise AssertionError("dask was asked to compute elsewhere")

    with dask.config.set(scheduler=scheduler):
        frames = open_series(tmp_path / "series.hspy")
        np.testing.assert_array_equal(frames[3].data, SERIES[3])


def test_a_series_in_several_files(tmp_path):
    paths = [tmp_path / f"{i}.dm4" for i in range(3)]
    for i, path in enumerate(paths):
        write_dm(path, [dm_image(SERIES[i], scale=(0.02 + 1e-5 * i, 0.02))], 4)
    frames = read_series(paths)
    np.testing.assert_array_equal([frame.data for frame in frames], SERIES[:3])
    assert [frame.source for frame in frames] == ["0.dm4", "1.dm4", "2.dm4"]
    assert len({frame.sampling for frame in frames}) == 1
    assert {(frame.energy, frame.detector) for frame in frames} == {(80e3, Detector("HAADF"))}
    np.testing.assert_array_equal(read_series(str(paths[1]))[0].data, SERIES[1])
    np.save(tmp_path / "more.npy", SERIES)
    assert len(read_series([tmp_path / "more.npy", tmp_path / "more.npy"], sampling=0.2)) == 10


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({"data": IMAGE[:20]}, "shape"),
        ({"scale": (0.021, 0.021)}, "sampling"),
        ({"tags": {"Microscope Info": {"Voltage": 60_000.0}}}, "energy"),
        ({"name": "MAADF"}, "detector"),
    ],
)
def test_images_that_are_no_series(tmp_path, other, name):
    write_dm(tmp_path / "0.dm4", [dm_image()], 4)
    write_dm(tmp_path / "1.dm4", [dm_image() | other], 4)
    with pytest.raises(
        ValueError, match=rf"^paths: expected images of the same {name}, got .* in 0.dm4 and .* in 1.dm4"
    ):
        read_series([tmp_path / "0.dm4", tmp_path / "1.dm4"])


def test_what_is_wrong_with_a_series(tmp_path):
    with pytest.raises(ValueError, match=r"^paths: expected at least one file, got none$"):
        read_series([])
    np.save(tmp_path / "series.npy", np.stack([IMAGE, np.ones_like(IMAGE)]))
    with pytest.raises(ReadError, match=r"^path: series.npy\[1\] holds no image .* with contrast"):
        read_series(tmp_path / "series.npy", sampling=0.2)
    np.save(tmp_path / "image.npy", IMAGE)
    with pytest.raises(ReadError, match=r"^frame: image.npy holds one image and no series, leave it out; got 1$"):
        read(tmp_path / "image.npy", frame=1, sampling=0.2)


def test_the_sampling_of_a_series_is_estimated_once(tmp_path):
    from test_micrograph import lattice_image

    images = [lattice_image((160, 160), 11.0, seed=i) for i in range(3)]
    noise = np.random.default_rng(0).normal(size=(160, 160)).astype(np.float32)
    np.save(tmp_path / "series.npy", np.stack([*images, noise]))
    frames = read_series(tmp_path / "series.npy", sampling="estimate", lattice_constant=3.32)
    assert [frame.sampling for frame in frames] == [pytest.approx(3.32 / 11.0, rel=5e-3)] * 4
    assert frames[0].provenance["sampling"] == "estimated from the FFT of 3 of 4 images with a = 3.32 Å"
    np.save(tmp_path / "noise.npy", np.stack([noise, noise.T]))
    with pytest.raises(ValueError, match=r"^data: expected an image of a hexagonal lattice"):
        read_series(tmp_path / "noise.npy", sampling="estimate", lattice_constant=3.32)
    with pytest.raises(ValueError, match=r"^sampling: expected a number in Å/px, or 'estimate' together with"):
        read_series(tmp_path / "series.npy", sampling="estimate")


# Folders


def test_files_of_a_folder(tmp_path):
    for name in ("b.dm4", "a.TIF", "notes.txt", "._b.dm4", "scan_1.ser", "scan.emi", "only.emi"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "store.zspy").mkdir()
    (tmp_path / "more").mkdir()
    (tmp_path / "folder.npy").mkdir()
    files, skipped = find_files([tmp_path])
    assert [path.name for path in files] == ["a.TIF", "b.dm4", "only.emi", "scan_1.ser", "store.zspy"]
    assert [path.name for path in skipped] == ["folder.npy", "more", "notes.txt", "scan.emi"]
    files, skipped = find_files([tmp_path / "b.dm4", tmp_path / "*.emi", tmp_path / "absent.dm4", tmp_path / "b.dm4"])
    assert [path.name for path in files] == ["b.dm4", "only.emi", "scan.emi", "absent.dm4"]
    assert skipped == []
    with pytest.raises(FileNotFoundError, match=r"^path: no file matches .*\*\.mrc$"):
        find_files([tmp_path / "*.mrc"])


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    np.save(tmp_path / "field[1].npy", IMAGE)
    assert find_files([tmp_path / "field[1].npy"]) == ([tmp_path / "field[1].npy"], [])


def test_micrographs_of_a_series_keep_what_json_needs(tmp_path):
    np.save(tmp_path / "series.npy", SERIES)
    frame = read_series(tmp_path / "series.npy", sampling=0.2, energy=80e3, detector="HAADF")[0]
    assert isinstance(frame, Micrograph)
    assert json.loads(json.dumps(frame.provenance)) == {"sampling": "user", "energy": "user", "detector": "user"}


@pytest.mark.parametrize("sides", [(1 << 24, 1 << 24, 1), (-5, 3, 2)])
def test_an_mrc_that_claims_more_than_it_holds_is_refused_at_once(sides, tmp_path):
    write_mrc(tmp_path / "image.mrc", np.ones((12, 10), np.uint16), (2.4, 2.0))
    content = (tmp_path / "image.mrc").read_bytes()
    (tmp_path / "image.mrc").write_bytes(np.array(sides, "<i4").tobytes() + content[12:])
    for reader in (read, open_series):
        with pytest.raises(ReadError, match=r"^path: image.mrc cannot be read .* bytes that stand for \("):
            reader(tmp_path / "image.mrc", sampling=0.2)
