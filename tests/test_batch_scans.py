"""Scans of diffraction patterns in batches: images are computed of them, in little memory, and then classified."""

import csv
import json
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
    annuli = "".join(
        f"  - {{name: {name}, inner: {inner}, outer: {outer}}}\n" for name, (inner, outer) in ANNULI.items()
    )
    (path / "contextem.yaml").write_text(
        f"host: WSe2\ndopants: [Cr]\nenergy_kev: 80\nsampling: 0.2\nangular_sampling: {ANGULAR_SAMPLING}\n"
        f"detectors:\n{annuli}"
    )
    return path


def test_images_are_what_the_detectors_would_have_counted(folder, images, tmp_path):
    result = run(folder / "scan.npy", "-o", tmp_path)
    assert result.exit_code == 0, result.output
    for name, counts in images.items():
        image = ctm.read(tmp_path / "images" / f"scan.npy.{name}-{ANNULI[name][0]:g}-{ANNULI[name][1]:g}.tif")
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
    (record,) = (tmp_path / ".batch" / "records").iterdir()
    (summary,) = json.loads(record.read_text())["micrographs"]
    assert summary["warnings"] == []
    assert summary["geometry"]["centre"] == pytest.approx([31.5, 31.5], abs=0.01)


def test_annuli_on_the_command_line_stand_before_those_of_files(folder, tmp_path):
    result = run(folder / "scan.npy", "-o", tmp_path, "--annulus", "HAADF", *ANNULI["HAADF"])
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["scan.npy.HAADF-70-190.tif"]


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
        ("detectors", "compute images of them: `contextem batch --annulus HAADF 70 200`"),
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
    """A sparse file: of each pattern eight rows are written, those with the disc and a part of the annulus."""
    simulated = simulate_micrograph("WSe2", "Cr", 80e3, "HAADF", 5, size=51.2, sampling=0.2, dose=5000.0)
    counts = np.rint(simulated.micrograph.data[:, :128]).astype(np.uint16)
    shape, side = counts.shape, 512
    rows, columns = np.mgrid[-3.5:4.5, -255.5:256.5]
    bands = np.zeros((*shape, 8, side), np.uint16)
    bands[:, :, np.hypot(rows, columns) < 3.6] = 3000
    bands[:, :, 4, 10], bands[:, :, 3, 495] = counts // 2, counts - counts // 2
    size, first = 2 * side**2, 2 * side * (side // 2 - 4)
    with (tmp_path / "scan.npy").open("wb") as file:
        header = {"descr": "<u2", "fortran_order": False, "shape": (*shape, side, side)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for number, band in enumerate(bands.reshape(-1, 8 * side)):
            file.seek(start + number * size + first)
            file.write(band.tobytes())
        file.truncate(start + counts.size * size)
    assert counts.size * size == 16 * GIB
    given = {"--host": "WSe2", "--dopant": "Cr", "--energy-kev": 80, "--sampling": 0.2, "--angular-sampling": 0.75}
    options = [str(each) for pair in given.items() for each in pair]
    command = [sys.executable, "-m", "contextem.cli", "batch", "scan.npy", "-o", "out", "--memory", "2G", *options]
    done = subprocess.run(
        [*command, "--annulus", "HAADF", "70", "190"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_DATA, (2 * GIB, 2 * GIB)),
    )
    (tmp_path / "scan.npy").unlink()
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(ctm.read(tmp_path / "out" / "images" / "scan.npy.HAADF-70-190.tif").data, counts)
    (line,) = (tmp_path / "out" / "log" / "shard-1-of-1.jsonl").read_text().splitlines()
    assert json.loads(line)["peak_memory_bytes"] < 1.2 * GIB


def test_what_is_to_be_known_of_a_scan_is_among_the_warnings(folder, tmp_path):
    result = run(folder / "scan.npy", "-o", tmp_path, "--annulus", "HAADF", 70, 210)
    assert result.exit_code == 0, result.output
    with (tmp_path / "micrographs.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert "of the annulus of HAADF (70 to 210 mrad) is on the detector, the rest is not counted" in row["warnings"]
