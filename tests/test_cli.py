"""The command line: results whole or not at all, and one sentence with exit status 2 for every wrong input."""

import csv
import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from contextem.cli import main
from contextem.micrograph import Detector
from contextem.model import Model, load_model
from contextem.simulate.conditions import REFERENCE
from contextem.simulate.dataset import simulate_micrograph

NOMINAL = Detector("HAADF", 70.0, 200.0)


@pytest.fixture(scope="module")
def micrograph_file(tmp_path_factory):
    simulated = simulate_micrograph("WSe2", "Cr", 80e3, "HAADF", 4, sampling=0.2, dose=5000.0, size=40.0)
    path = tmp_path_factory.mktemp("cli") / "field 1.npy"
    np.save(path, simulated.micrograph.data)
    return path


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def classify(path, output, *more, host="WSe2", energy="80"):
    given = ("--host", host, "--dopant", "Cr", "--energy-kev", energy, "--detector", "HAADF", "--sampling", "0.2")
    return run("classify", path, *given, "-o", output, *more)


def assert_refused(done, *words):
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    sentence = done.output.strip()
    assert sentence.startswith("Error: ") or "Usage:" in sentence
    for word in words:
        assert word in sentence, sentence
    assert sentence.count("\n") == 0 or "Usage:" in sentence


def test_classify_writes_table_picture_and_summary(micrograph_file, tmp_path):
    done = classify(micrograph_file, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "field 1.columns.csv",
        "field 1.overlay.png",
        "field 1.summary.json",
    ]
    with (tmp_path / "out" / "field 1.columns.csv").open() as file:
        rows = list(csv.DictReader(file))
    summary = json.loads((tmp_path / "out" / "field 1.summary.json").read_text())
    assert summary["columns"] == len(rows) > 150
    assert sum(summary["counts"].values()) + summary["unknown"] == len(rows)
    assert sum(int(row["unknown"]) for row in rows) == summary["unknown"]
    assert sum(row["class"] == "X2" and row["unknown"] == "0" for row in rows) == summary["counts"]["X2"]
    assert summary["better_context"] is None
    assert "Warning" not in done.output
    assert summary["context"]["host"] == "WSe2"
    assert summary["context"]["provenance"]["energy"] == "user"
    assert summary["micrograph"]["provenance"]["sampling"] == "user"
    assert summary["model"]["name"]
    assert (tmp_path / "out" / "field 1.overlay.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_columns_are_told_beside_the_counts(micrograph_file, tmp_path):
    """With a threshold no column passes, every complete one is unknown."""
    folder = tmp_path / "model"
    strict = load_model()
    Model(strict.network, strict.info | {"unknown_below": 1e6}).save(folder, export=False)
    done = classify(micrograph_file, tmp_path / "out", "--model", folder)
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "out" / "field 1.summary.json").read_text())
    assert summary["unknown"] == summary["columns"] - summary["not_complete"] > 100
    assert f"{summary['unknown']} unknown" in done.output
    assert sum(summary["counts"].values()) == summary["not_complete"]


def test_a_context_that_does_not_fit_is_warned_of_and_told_in_the_summary(tmp_path):
    simulated = simulate_micrograph("MoS2", "Cr", 80e3, NOMINAL, 4, ranges=REFERENCE, sampling=0.2, dose=5000.0)
    np.save(tmp_path / "field.npy", simulated.micrograph.data)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = classify(tmp_path / "field.npy", tmp_path / "out", "--lattice-constant", "3.18", host="MoTe2")
    assert done.exit_code == 0, done.output
    assert "Warning: context: the image looks less like MoTe2 on HAADF than like " in done.output
    summary = json.loads((tmp_path / "out" / "field.summary.json").read_text())
    assert summary["context"]["host"] == "MoTe2"
    assert summary["better_context"]["host"].endswith("S2")


def test_second_run_overwrites_only_when_told(micrograph_file, tmp_path):
    assert classify(micrograph_file, tmp_path).exit_code == 0
    before = (tmp_path / "field 1.summary.json").read_bytes()
    assert_refused(classify(micrograph_file, tmp_path), "exists already", "--overwrite")
    assert classify(micrograph_file, tmp_path, "--overwrite").exit_code == 0
    assert (tmp_path / "field 1.summary.json").read_bytes() == before


def test_sampling_can_be_estimated_and_says_so(micrograph_file, tmp_path):
    given = ("--host", "WSe2", "--energy-kev", 80, "--detector", "HAADF", "--estimate-sampling")
    done = run("classify", micrograph_file, *given, "-o", tmp_path)
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "field 1.summary.json").read_text())
    assert summary["sampling_angstrom_per_px"] == pytest.approx(0.2, rel=0.02)
    assert "estimated" in summary["micrograph"]["provenance"]["sampling"]


def test_missing_sampling_says_how_to_give_it(micrograph_file, tmp_path):
    done = run("classify", micrograph_file, "--host", "WSe2", "--energy-kev", 80, "--detector", "HAADF", "-o", tmp_path)
    assert_refused(done, "sampling", "--sampling", "--estimate-sampling")


BAD_IMAGES = {
    "nan": (np.where(np.eye(64) > 0, np.nan, np.arange(64.0)), "data"),
    "infinite": (np.where(np.eye(64) > 0, np.inf, np.arange(64.0)), "data"),
    "constant": (np.ones((64, 64)), "data"),
    "one dimension": (np.arange(64.0), "(64,)"),
    "stack": (np.random.default_rng(0).normal(size=(3, 64, 64)), "(3, 64, 64)"),
    "rgb": (np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), "(64, 64, 3)"),
    "too small": (np.random.default_rng(0).normal(size=(24, 24)), "24"),
    "complex": (np.eye(64) + 1j, "complex"),
    "noise": (np.random.default_rng(0).normal(size=(200, 200)), "lattice"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_are_refused_in_one_sentence(name, tmp_path):
    image, word = BAD_IMAGES[name]
    np.save(tmp_path / "bad.npy", image)
    assert_refused(classify(tmp_path / "bad.npy", tmp_path / "out"), word)
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_bad_files_are_refused_in_one_sentence(tmp_path):
    (tmp_path / "empty.dm4").write_bytes(b"")
    (tmp_path / "text.dm4").write_text("a shopping list\n" * 40)
    (tmp_path / "empty.npy").write_bytes(b"")
    tifffile.imwrite(tmp_path / "colour.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    for name in ("empty.dm4", "text.dm4", "empty.npy", "colour.tif", "absent.dm4"):
        assert_refused(classify(tmp_path / name, tmp_path / "out"), name)
    (tmp_path / "notes.docx").write_bytes(b"PK")
    assert_refused(classify(tmp_path / "notes.docx", tmp_path / "out"), ".docx")
    assert_refused(classify(tmp_path, tmp_path / "out"))


@pytest.mark.experimental
def test_truncated_dm4_is_refused(experimental_data, tmp_path):
    whole = (experimental_data / "ti_wse2_field2_haadf.dm4").read_bytes()
    (tmp_path / "cut.dm4").write_bytes(whole[: len(whole) // 2])
    assert_refused(classify(tmp_path / "cut.dm4", tmp_path / "out"), "cut.dm4")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "WSe"}, ["host", "WSe"]),
        ({"host": "XySe2"}, ["host", "Xy"]),
        ({"host": "HfS2"}, ["HfS2", "lattice"]),
        ({"energy": "80000"}, ["--energy-kev", "keV"]),
        ({"energy": "137"}, ["energy", "80e3"]),
    ],
)
def test_wrong_context_is_refused(micrograph_file, tmp_path, options, words):
    assert_refused(classify(micrograph_file, tmp_path / "out", **options), *words)
    assert not (tmp_path / "out").exists()


def test_wrong_dopant_detector_and_model_are_refused(micrograph_file, tmp_path):
    assert_refused(classify(micrograph_file, tmp_path / "out", "--dopant", "Xx"), "dopant", "Xx")
    assert_refused(classify(micrograph_file, tmp_path / "out", "--detector", "EELS"), "HAADF", "EELS")
    assert_refused(classify(micrograph_file, tmp_path / "out", "--detector", "BF"), "BF")
    assert_refused(classify(micrograph_file, tmp_path / "out", "--model", tmp_path), "model.json")
    assert_refused(classify(micrograph_file, tmp_path / "out", "--estimate-sampling"), "--sampling")
    assert_refused(run("classify", "-o", tmp_path), "Usage")
    assert not (tmp_path / "out").exists()


def test_many_files_are_classified_and_namesakes_refused(micrograph_file, tmp_path):
    other = tmp_path / "field 2.npy"
    other.write_bytes(micrograph_file.read_bytes())
    assert classify(micrograph_file, tmp_path / "out", other).exit_code == 0
    assert len(list((tmp_path / "out").iterdir())) == 6
    assert_refused(classify(micrograph_file, tmp_path / "two", micrograph_file), "same name")


def test_demo_prints_scores_and_writes_results(tmp_path):
    done = run("demo", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    assert "accuracy" in done.output
    assert "double_vacancy" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "demo.columns.csv",
        "demo.overlay.png",
        "demo.summary.json",
    ]
    assert run("demo", "-o", tmp_path).exit_code == 0


def test_info_names_kernels_devices_and_model():
    done = run("info")
    assert done.exit_code == 0, done.output
    for word in ("contextem", "kernels", "instruction sets", "CUDA", "devices", "torch", "model"):
        assert word in done.output
    rows = dict(line.split("  ", 1) for line in done.output.splitlines())
    assert rows["kernels"].strip() in rows["instruction sets"].split(", ")


def test_info_tells_of_an_instruction_set_that_is_not_there():
    command = [sys.executable, "-m", "contextem.cli", "info"]
    environment = {**os.environ, "CONTEXTEM_SIMD": "sse1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "expected one of the instruction sets of this machine" in done.stdout
    assert "got 'sse1'" in done.stdout


def test_version():
    import contextem

    assert contextem.__version__ in run("--version").output


def test_simulate_and_train_say_what_they_need(tmp_path):
    assert_refused(run("simulate", "--preset", "tmd96"), "--output")
    assert_refused(run("train", tmp_path / "nothing", "-o", tmp_path / "model"), "manifest.json")
    assert_refused(run("evaluate", tmp_path), "model.json")
