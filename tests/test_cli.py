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

from contextem.cli import ENDINGS, EXPORTS, REPORT, main
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
    assert summary["context"]["provenance"]["energy"] == "command line"
    assert summary["micrograph"]["provenance"]["sampling"] == "command line"
    assert summary["model"]["name"]
    assert (tmp_path / "out" / "field 1.overlay.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_columns_are_told_beside_the_counts(micrograph_file, tmp_path):
    """With a threshold no column passes, every complete one is unknown."""
    folder = tmp_path / "model"
    strict = load_model()
    Model(strict.network, strict.info | {"unknown_below": 1e6}).save(folder, export=False)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = classify(micrograph_file, tmp_path / "out", "--model", folder)
    assert done.exit_code == 0, done.output
    assert "Warning: columns: 100 % look like none of the classes; check host, dopants" in done.output
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
    given = ("--host", "WSe2", "--dopant", "Cr", "--energy-kev", 80, "--detector", "HAADF", "--estimate-sampling")
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
    "series": (np.random.default_rng(0).normal(size=(3, 64, 64)), "--frame (0 to 2)"),
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
    (tmp_path / "folder").mkdir()
    assert_refused(classify(tmp_path / "folder", tmp_path / "out"), "found none")


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
    assert_refused(run("classify", "-o", tmp_path), "FILES: expected micrographs")
    assert not (tmp_path / "out").exists()


def test_many_files_are_classified_and_namesakes_refused(micrograph_file, tmp_path):
    other = tmp_path / "field 2.npy"
    other.write_bytes(micrograph_file.read_bytes())
    assert classify(micrograph_file, tmp_path / "out", other).exit_code == 0
    assert len(list((tmp_path / "out").iterdir())) == 6
    namesake = tmp_path / "field 1.tif"
    assert_refused(classify(micrograph_file, tmp_path / "two", namesake), "same name", "field 1.npy", "field 1.tif")


# Reports, several detectors, and where results go


def test_a_file_behind_report_is_one_of_the_files(micrograph_file, tmp_path):
    given = ("--host", "WSe2", "--dopant", "Cr", "--energy-kev", 80, "--detector", "HAADF", "--sampling", 0.2)
    done = run("classify", "--report", micrograph_file, *given, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "field 1.report.html").exists()
    done = classify(micrograph_file, tmp_path / "named", "--report", tmp_path / "mine.html")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "mine.html").exists()
    assert not (tmp_path / "named" / "field 1.report.html").exists()
    refused = classify(micrograph_file, tmp_path / "none", "--report", tmp_path / "mine.pdf")
    assert_refused(refused, "--report: expected a name that ends with .html", "mine.pdf")


def test_what_the_line_tells(micrograph_file, tmp_path):
    done = classify(micrograph_file, tmp_path)
    summary = summary_of(tmp_path / "field 1.summary.json")
    assert summary["collection_angles_by_image_used"]
    inner, outer = (round(summary["context"]["detector"][name]) for name in ("inner", "outer"))
    assert f"; HAADF {inner}–{outer} mrad by the image; sampling 0.2 Å/px (command line)" in done.output
    assert f"{summary['counts']['metal']} metal, " in done.output


def test_detectors_at_once_are_of_different_names(micrograph_file, tmp_path):
    for names in (["HAADF"], ["ADF", "ADF"]):
        also = [word for name in names for word in ("--also", micrograph_file, name)]
        refused = classify(micrograph_file, tmp_path / "out", *also)
        assert_refused(
            refused, "--also: expected an image of another detector than HAADF", f"got {names[-1]} for", "--series"
        )
    assert_refused(classify(micrograph_file, tmp_path / "out", "--also", micrograph_file, "EELS"), "HAADF", "EELS")


def test_detectors_at_once_share_an_estimated_sampling(micrograph_file, tmp_path):
    """Two estimates would differ by more than images recorded at once may."""
    image = np.load(micrograph_file)
    np.save(tmp_path / "second.npy", image + np.random.default_rng(0).normal(0, image.std(), image.shape))
    given = ("--host", "WSe2", "--dopant", "Cr", "--energy-kev", 80, "--detector", "HAADF", "--estimate-sampling")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = run("classify", micrograph_file, *given, "--also", tmp_path / "second.npy", "MAADF", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    summary = summary_of(tmp_path / "field 1.summary.json")
    assert (
        summary["further_micrographs"][0]["provenance"]["sampling"] == summary["micrograph"]["provenance"]["sampling"]
    )


def test_a_warning_names_its_file_and_is_told_of_each(micrograph_file, tmp_path):
    for name in ("a.npy", "b.npy"):
        (tmp_path / name).write_bytes(micrograph_file.read_bytes())
    given = ("--host", "WSe2", "--dopant", "Cr", "--energy-kev", 80, "--detector", "HAADF", "--sampling", 0.213)
    done = run("classify", tmp_path / "a.npy", tmp_path / "b.npy", *given, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    lines = [line for line in done.output.splitlines() if line.startswith("Warning")]
    assert [line.split(": ")[1:3] for line in lines] == [["a.npy", "sampling"], ["b.npy", "sampling"]]


def test_a_folder_that_cannot_be_written_into_is_refused_before_anything_is_read(
    tmp_path, micrograph_file, monkeypatch
):
    monkeypatch.setattr("contextem.cli._classify_file", lambda *_, **__: pytest.fail("was classified"))
    for output in (micrograph_file, micrograph_file / "out"):
        assert_refused(
            classify(micrograph_file, output), f"--output: expected a folder, got the file {micrograph_file}"
        )
    monkeypatch.setattr("os.access", lambda path, mode: mode == os.R_OK)  # root may write anywhere
    assert_refused(
        classify(micrograph_file, tmp_path / "out"), f"--output: expected a folder to write into, {tmp_path}"
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(28, "No space left on device"), "no space left on device"), (OSError("h5 failed"), "h5 failed")],
)
def test_what_cannot_be_written_is_named(micrograph_file, tmp_path, monkeypatch, error, reason):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("contextem.classification.Classification.to_json", fail)
    refused = classify(micrograph_file, tmp_path / "out")
    assert_refused(refused, f"field 1.summary.json: could not be written ({reason}); choose another folder with -o")
    assert not list((tmp_path / "out").iterdir())


# Files that speak of micrographs


@pytest.fixture
def folder(micrograph_file, tmp_path):
    """Folder of two micrographs and what is said of them."""
    for name in ("a.npy", "b.npy"):
        (tmp_path / "fields" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "fields" / name).write_bytes(micrograph_file.read_bytes())
    (tmp_path / "fields" / "contextem.yaml").write_text(
        "host: WSe2\ndopants: Cr\nenergy_kev: 80\ndetector: {name: HAADF, inner: 70, outer: 200}\nsampling: 0.25\n"
    )
    (tmp_path / "fields" / "a.yaml").write_text("sampling: 0.2\nfractions: {Cr: 0.03}\n")
    return tmp_path / "fields"


def summary_of(path):
    return json.loads(path.read_text())


def test_what_is_said_beside_the_files(folder):
    (folder / "notes.txt").write_text("")
    (folder / "c.yaml").write_text("sampling: 0.25")
    (folder / "feild.yaml").write_text("sampling: 0.3")
    done = run("classify", folder, "-o", folder, "--sampling", "0.2", "--context", folder / "c.yaml")
    assert done.exit_code == 0, done.output
    assert "left out, as no micrographs: feild.yaml, notes.txt\n" in done.output
    a, b = (summary_of(folder / f"{name}.summary.json") for name in "ab")
    assert a["context"]["host"] == b["context"]["host"] == "WSe2"
    assert a["context"]["dopants"] == ["Cr"]
    assert a["context"]["detector"] == {"name": "HAADF", "inner": 70, "outer": 200}
    assert (a["context"]["fractions"], b["context"]["fractions"]) == ({"Cr": 0.03}, {"Cr": 0.05})
    assert a["context"]["provenance"] == {
        "host": "sidecar contextem.yaml",
        "dopants": "sidecar contextem.yaml",
        "fractions": "sidecar a.yaml",
        "energy": "sidecar contextem.yaml",
        "detector": "sidecar contextem.yaml",
        "lattice_constant": "table",
    }
    assert b["context"]["provenance"]["fractions"] == "default"
    assert a["micrograph"]["provenance"]["sampling"] == "command line"
    # the pictures written there are no micrographs
    assert_refused(run("classify", folder / "[ab].npy", "-o", folder), "exists already, and 5 more", "--skip-existing")
    assert "skipped 2 of 2 files" in run("classify", folder, "-o", folder, "--skip-existing").output


def test_the_command_line_stands_before_all(folder, tmp_path):
    (tmp_path / "context.yaml").write_text("energy_kev: 60\nsampling: 0.2\n")
    given = ("--context", tmp_path / "context.yaml", "--inner", 80, "--outer", 180, "--dopant", "V")
    done = run("classify", folder / "b.npy", *given, "-o", tmp_path)
    assert done.exit_code == 0, done.output
    context = summary_of(tmp_path / "b.summary.json")["context"]
    assert (context["energy"], context["dopants"]) == (60e3, ["V"])
    assert context["detector"] == {"name": "HAADF", "inner": 80.0, "outer": 180.0}
    origins = context["provenance"]
    assert (origins["energy"], origins["detector"]) == ("context file context.yaml", "command line")
    assert "sampling 0.2 Å/px (context file context.yaml)" in done.output


def test_one_failing_file_stops_no_other(folder, tmp_path):
    np.save(folder / "bad.npy", np.ones((64, 64)))
    done = run("classify", folder, "-o", tmp_path / "out", "--sampling", "0.2")
    assert done.exit_code == 1, done.output
    assert "bad.npy: failed\n" in done.output
    told = done.output[done.output.index("1 of 3 files failed:") :]
    assert told.count("\n") == 2
    assert (
        f"  {folder / 'bad.npy'}: path: bad.npy holds no image that can be used (data: expected an image with" in told
    )
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_an_error_no_one_thought_of_stops_no_other(folder, tmp_path, monkeypatch):
    import contextem.pipeline

    original = contextem.pipeline.classify

    def fails_once(micrograph, *arguments, **options):
        if micrograph.source == "a.npy":
            raise RuntimeError("out of luck")
        return original(micrograph, *arguments, **options)

    monkeypatch.setattr(contextem.pipeline, "classify", fails_once)
    done = run("classify", folder, "-o", tmp_path / "out", "--sampling", "0.2")
    assert done.exit_code == 1
    assert "a.npy: RuntimeError: out of luck" in done.output
    assert (tmp_path / "out" / "b.summary.json").exists()


def test_an_interrupted_run_leaves_whole_results_and_goes_on(folder, tmp_path, monkeypatch):
    from contextem.classification import Classification

    original = Classification.to_json

    def interrupted(self, path, **options):
        if "b." in path.name:
            raise KeyboardInterrupt
        return original(self, path, **options)

    given = ("classify", folder, "-o", tmp_path / "out", "--sampling", "0.2", "--skip-existing")
    with monkeypatch.context() as patch:
        patch.setattr(Classification, "to_json", interrupted)
        assert run(*given).exit_code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"a{ending}" for ending in ENDINGS]
    (tmp_path / "out" / f"b{ENDINGS[0]}").write_text("of a run that was killed")
    before = (tmp_path / "out" / "a.summary.json").stat().st_mtime_ns
    done = run(*given)
    assert done.exit_code == 0, done.output
    assert "skipped 1 of 2 files" in done.output
    assert (tmp_path / "out" / "a.summary.json").stat().st_mtime_ns == before
    assert (tmp_path / "out" / f"b{ENDINGS[0]}").read_text() != "of a run that was killed"
    assert_refused(run(*given, "--overwrite"), "--skip-existing", "--overwrite")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hosts: WSe2", ["a.yaml", "hosts: unknown key, did you mean host?", "energy_kev"]),
        ("host: WSe", ["host: expected a formula", "(sidecar a.yaml)"]),
        ("energy_kev: 80000", ["a.yaml: energy_kev: expected keV"]),
        ("detector: {name: HAADF, inner: 70}", ["a.yaml: detector: expected both inner and outer"]),
        ("detector: EELS", ["a.yaml: detector: expected one of HAADF", "EELS"]),
        ("fractions: {V: 0.02}", ["fractions: expected one for each dopant", "(sidecar a.yaml)"]),
        ("- WSe2", ["a.yaml: expected lines such as"]),
        ("host: [", ["a.yaml: expected YAML"]),
    ],
)
def test_what_is_wrong_beside_a_file_is_told_before_any_is_classified(folder, tmp_path, text, words):
    (folder / "a.yaml").write_text(text)
    assert_refused(run("classify", folder / "b.npy", folder / "a.npy", "-o", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_asked_for_by_name(micrograph_file, tmp_path):
    given = {"--host": "WSe2", "--energy-kev": "80", "--detector": "HAADF", "--sampling": "0.2"}
    expected = {
        "--host": ["host:", "--host", "contextem.yaml"],
        "--energy-kev": ["energy:", "--energy-kev", "energy_kev in field 1.yaml"],
        "--detector": ["detector:", "--detector", "detector in field 1.yaml"],
        "--sampling": ["sampling:", "--sampling"],
    }
    for left_out, words in expected.items():
        options = [text for name, value in given.items() if name != left_out for text in (name, value)]
        assert_refused(run("classify", micrograph_file, *options, "-o", tmp_path / "out"), *words)
    assert_refused(classify(micrograph_file, tmp_path / "out", "--inner", 70), "--outer")
    options = ("--host", "WSe2", "--inner", 70, "--outer", 200)
    assert_refused(run("classify", micrograph_file, *options, "-o", tmp_path / "out"), "inner:", "--detector")
    assert_refused(classify(micrograph_file, tmp_path / "out", "--context", tmp_path / "absent.yaml"), "absent.yaml")
    assert not (tmp_path / "out").exists()


def test_at_a_terminal_what_is_missing_for_one_file_is_asked(micrograph_file, tmp_path, monkeypatch):
    monkeypatch.setattr("contextem.cli._at_terminal", lambda: True)
    arguments = ["classify", str(micrograph_file), "--dopant", "Cr", "--sampling", "0.2", "-o", str(tmp_path)]
    done = CliRunner().invoke(main, arguments, input="WSe2\n80\nHAADF\n")
    assert done.exit_code == 0, done.output
    context = summary_of(tmp_path / "field 1.summary.json")["context"]
    assert (context["host"], context["energy"], context["detector"]["name"]) == ("WSe2", 80e3, "HAADF")
    assert {context["provenance"][name] for name in ("host", "energy", "detector")} == {"user"}
    (tmp_path / "other.npy").write_bytes(micrograph_file.read_bytes())
    assert_refused(run(*arguments, tmp_path / "other.npy"), "host:", "--host")


def test_an_image_of_a_series(micrograph_file, tmp_path):
    image = np.load(micrograph_file)
    np.save(tmp_path / "series.npy", np.stack([np.zeros_like(image), image]))
    assert classify(tmp_path / "series.npy", tmp_path, "--frame", 1).exit_code == 0
    assert summary_of(tmp_path / "series.summary.json")["columns"] > 150


def test_the_packaged_micrograph_with_a_file_beside_it(tmp_path):
    from importlib.resources import as_file, files

    from contextem.examples import demo_micrograph

    with as_file(files("contextem") / "examples" / "demo.tif") as path:
        (tmp_path / "demo.tif").write_bytes(path.read_bytes())
    context = demo_micrograph().context
    (tmp_path / "demo.yml").write_text(
        f"host: {context.host}\ndopants: {list(context.dopants)}\nenergy_kev: {context.energy / 1e3:g}\n"
        f"detector: {context.detector.name}\n"
    )
    done = run("classify", tmp_path / "demo.tif", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    provenance = summary_of(tmp_path / "demo.summary.json")["micrograph"]["provenance"]
    assert provenance == {"sampling": "file", "energy": "sidecar demo.yml", "detector": "sidecar demo.yml"}


def test_demo_prints_scores_and_writes_results(tmp_path):
    done = run("demo", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    assert "accuracy" in done.output
    assert "double_vacancy" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "demo.columns.csv",
        "demo.overlay.png",
        "demo.report.html",
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


@pytest.fixture(scope="module")
def demo_file(tmp_path_factory):
    """The packaged micrograph in a folder of its own, and what is to be said of it."""
    from importlib.resources import files

    path = tmp_path_factory.mktemp("demo") / "demo.tif"
    path.write_bytes((files("contextem") / "examples" / "demo.tif").read_bytes())
    return path


SAID = ("--host", "WSe2", "--dopant", "Cr", "--energy-kev", 80, "--detector", "HAADF")


def test_every_export_and_the_report_are_written_with_the_rest(demo_file, tmp_path):
    exports = [word for name in EXPORTS for word in ("--export", name)]
    done = run("classify", demo_file, *SAID, *exports, "-o", tmp_path / "out", "--report")
    assert done.exit_code == 0, done.output
    expected = {f"demo{ending}" for ending in (*ENDINGS, *EXPORTS.values(), REPORT)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    # what was written is no input of the next run
    again = run("classify", tmp_path / "out", *SAID, "-o", tmp_path / "out")
    assert_refused(again, "found none")


def test_the_report_may_have_a_name_of_its_own(demo_file, tmp_path):
    done = run("classify", demo_file, *SAID, "-o", tmp_path / "out", "--report", tmp_path / "pages" / "field.html")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "pages" / "field.html").read_text().startswith("<!DOCTYPE html>")
    before_the_file = run("classify", "--report", demo_file, *SAID, "-o", tmp_path / "new")
    assert before_the_file.exit_code == 0 and (tmp_path / "new" / "demo.report.html").exists()
    refused = run("classify", demo_file, *SAID, "-o", tmp_path / "newer", "--report", "field.pdf")
    assert_refused(refused, "--report", ".html", "field.pdf")


def test_two_detectors_are_classified_together(demo_file, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = run("classify", demo_file, *SAID, "--also", demo_file, "MAADF", "--no-estimate-angles", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    assert "Warning: context: the image looks less like WSe2 on MAADF than like WSe2 on HAADF of" in done.output
    summary = json.loads((tmp_path / "demo.summary.json").read_text())
    assert [each["context"]["detector"]["name"] for each in summary["further_detectors"]] == ["MAADF"]
    refused = run("classify", demo_file, *SAID, "--also", demo_file, "SE", "-o", tmp_path / "new")
    assert_refused(refused, "detector", "'SE'")


def test_a_series_is_averaged(demo_file, tmp_path):
    data = tifffile.imread(demo_file).astype(np.float32)
    for number, shift in enumerate((0, 1, 3)):
        np.save(tmp_path / f"frame{number}.npy", np.roll(data, shift, axis=0))
    frames = [tmp_path / f"frame{number}.npy" for number in range(3)]
    done = run("classify", *frames, *SAID, "--sampling", 0.125, "--series", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(f"frame0{each}" for each in ENDINGS)


def test_angles_are_taken_from_the_image_or_not(demo_file, tmp_path):
    angles = {}
    for word in ("--estimate-angles", "--no-estimate-angles"):
        done = run("classify", demo_file, *SAID, word, "-o", tmp_path / word)
        assert done.exit_code == 0, done.output
        summary = json.loads((tmp_path / word / "demo.summary.json").read_text())
        angles[word] = summary["context"]["detector"]["inner"]
    assert angles["--estimate-angles"] == pytest.approx(70, abs=5)
    assert angles["--no-estimate-angles"] is None


def test_the_scan_may_be_corrected_first(demo_file, tmp_path):
    done = run("classify", demo_file, *SAID, "--correct-scan", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "demo.summary.json").read_text())
    assert summary["micrograph"]["source"] == "demo.tif, jitter and drift corrected"
    assert_refused(run("classify", demo_file, *SAID, "--correct-scan", "--also", demo_file, "MAADF"), "--correct-scan")
