"""Scans of diffraction patterns in batches: images are computed of them, in little memory, and then classified."""

import resource
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from batches import ANGULAR_SAMPLING, ANNULI, scan_images, write_scan
from click.testing import CliRunner

import contextem as ctm
from contextem.cli import main
from contextem.simulate.dataset import simulate_micrograph

parquet = pytest.importorskip("pyarrow.parquet")
GIB = 1 << 30


def run(*arguments):
    return CliRunner().invoke(main, ["batch", *map(str, arguments)])


@pytest.fixture(scope="module")
def images():
    return scan_images()


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("scans")
    write_scan(path / "scan.npy", images)
    annuli = "".join(f"  - {{name: {name}, inner: {inner}, outer: {outer}}}\n" for name, (inner, outer) in ANNULI.items())
    (path / "contextem.yaml").write_text(
        f"host: WSe2\ndopants: [Cr]\nenergy_kev: 80\nsampling: 0.2\nangular_sampling: {ANGULAR_SAMPLING}\n"
        f"detectors:\n{annuli}"
    )
    return path


def test_images_are_what_the_detectors_would_have_counted(folder, images, tmp_path):
    result = run(folder / "scan.npy", "-o", tmp_path)
    assert result.exit_code == 0, result.output
    for name, counts in images.items():
        image = ctm.read(tmp_path / "images" / f"scan.npy.{name}.tif")
        np.testing.assert_array_equal(image.data, counts)
        assert image.sampling == pytest.approx(0.2, rel=1e-6)


def test_columns_are_those_of_classify_with_both_images(folder, images, tmp_path):
    assert run(folder / "scan.npy", "-o", tmp_path).exit_code == 0
    micrographs = [
        ctm.Micrograph(counts.astype(np.float32), 0.2, 80e3, ctm.Detector(name, *ANNULI[name]))
        for name, counts in images.items()
    ]
    expected = ctm.classify(micrographs, ctm.Context("WSe2", ("Cr",)))
    table = parquet.read_table(tmp_path / "columns" / "scan.npy.parquet")
    np.testing.assert_array_equal(table["row"].to_numpy(), expected.positions[:, 0])
    np.testing.assert_allclose(table["probability"].to_numpy(), expected.probabilities.max(axis=1), atol=1e-6)


def test_annuli_on_the_command_line_stand_before_those_of_files(folder, images, tmp_path):
    result = run(folder / "scan.npy", "-o", tmp_path, "--annulus", "HAADF", *ANNULI["HAADF"])
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["scan.npy.HAADF.tif"]


def test_images_and_scans_side_by_side(folder, images, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "contextem.yaml").write_text((folder / "contextem.yaml").read_text())
    (data / "scan.npy").symlink_to(folder / "scan.npy")
    np.save(data / "image.npy", images["HAADF"])
    result = run(data, "-o", tmp_path / "out", "--detector", "HAADF")
    assert result.exit_code == 0, result.output
    assert "2 micrographs" in result.output


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("detectors", "say what images to compute of it"),
        ("angular_sampling", "angular_sampling: scan.npy holds no credible calibration"),
        ("energy_kev", "energy: scan.npy does not tell it"),
        ("sampling", "sampling: scan.npy holds no credible sampling of the scan"),
    ],
)
def test_what_is_not_known_of_a_scan_is_asked_for(folder, tmp_path, line, told):
    (tmp_path / "scan.npy").symlink_to(folder / "scan.npy")
    lines = (folder / "contextem.yaml").read_text().splitlines()
    kept = [each for each in lines if not each.startswith((f"{line}:", "  -") if line == "detectors" else f"{line}:")]
    (tmp_path / "contextem.yaml").write_text("\n".join([*kept, ""]))
    result = run(tmp_path / "scan.npy", "-o", tmp_path / "out")
    assert result.exit_code == 1 and told in result.output, result.output


def test_sixteen_gibibytes_in_two(tmp_path):
    """A sparse file: of each pattern one page is written, that with the disc and a part of the annulus."""
    counts = np.rint(
        simulate_micrograph("WSe2", "Cr", 80e3, "HAADF", 5, size=102.4, sampling=0.2, dose=5000.0).micrograph.data
    ).astype(np.uint16)[:, :256]
    patterns = np.lib.format.open_memmap(tmp_path / "scan.npy", "w+", np.uint16, (512, 256, 256, 256))
    assert patterns.nbytes == 16 * GIB
    band = patterns[:, :, 124:132]  # one page of 4096 bytes, but for the header
    rows, columns = np.mgrid[-3.5:4.5, -127.5:128.5]
    band[:, :, np.hypot(rows, columns) < 3.6] = 3000
    band[:, :, 4, 10], band[:, :, 3, 245] = counts // 2, counts - counts // 2
    del band, patterns
    given = {"--host": "WSe2", "--dopant": "Cr", "--energy-kev": 80, "--sampling": 0.2, "--angular-sampling": 1.5}
    options = [str(each) for pair in given.items() for each in pair]
    done = subprocess.run(
        [sys.executable, "-m", "contextem.cli", "batch", "scan.npy", "-o", "out", "--memory", "2G", *options]
        + ["--annulus", "HAADF", "70", "190"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_DATA, (2 * GIB, 2 * GIB)),
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(ctm.read(tmp_path / "out" / "images" / "scan.npy.HAADF.tif").data, counts)
    (tmp_path / "scan.npy").unlink()
