"""Files of earlier versions are read, those of later ones are refused in a sentence that says what to do."""

import csv
import json
import shutil
import sqlite3
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from make_results import VOTES

import contextem as ctm
from contextem import _schema
from contextem._schema import SCHEMAS, SchemaError, check_schema
from contextem.batch.store import Store
from contextem.cli import main
from contextem.columns import CLASSES
from contextem.labels.consensus import UNSURE
from contextem.labels.votes import VoteStore
from contextem.model import load_model
from contextem.simulate.dataset import SimulatedMicrograph, manifest, stored

parquet = pytest.importorskip("pyarrow.parquet")

KEPT = sorted((Path(__file__).parent / "data").glob("results-*"))


@pytest.fixture(params=KEPT, ids=[folder.name for folder in KEPT])
def kept(request, tmp_path):
    """A copy of the files of a version."""
    return Path(shutil.copytree(request.param, tmp_path / "kept"))


@pytest.fixture
def newest(tmp_path):
    return Path(shutil.copytree(KEPT[-1], tmp_path / "newest"))


def change(path, **values):
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | values))


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_there_are_files_of_this_version_and_of_all_before():
    assert [folder.name for folder in KEPT] == [f"results-{n}" for n in range(1, max(SCHEMAS.values()) + 1)]
    assert sum(path.stat().st_size for folder in KEPT for path in folder.rglob("*") if path.is_file()) < 300_000


# What was written is read


def test_a_classification_is_the_same_in_all_its_files(kept):
    result = ctm.Classification.load(kept / "field.columns.h5")
    rows = rows_of(kept / "field.columns.csv")
    table = parquet.read_table(kept / "field.columns.parquet")
    assert len(rows) == len(result) == len(table) > 50
    assert list(rows[0]) == table.column_names == list(result.table())
    for name, values in result.table().items():
        text = [row[name] for row in rows]
        if name == "class":
            assert text == table[name].to_pylist() == values.tolist()
        else:
            np.testing.assert_allclose(np.array(text, float), values, atol=6e-4)
            np.testing.assert_array_equal(table[name].to_numpy(), values)
    summary = json.loads((kept / "field.summary.json").read_text(encoding="utf-8"))
    assert summary["columns"] == len(result)
    assert summary["counts"] == {name: sum(row["class"] == name and row["unknown"] == row["contaminated"] == "0"
                                           for row in rows) for name in CLASSES}  # fmt: skip
    assert result.summary().keys() <= summary.keys()
    assert result.provenance["context"] == summary["context"]


def test_a_model_predicts_what_it_predicted(kept):
    model = load_model(kept / "model")
    with np.load(kept / "model" / "predicted.npz") as told:
        features, probabilities = told["features"], told["probabilities"]
    context = ctm.Context("WSe2", "Cr", energy=80e3, detector="HAADF")
    found = model.predict(features, model.context_features(context)).probabilities
    np.testing.assert_allclose(found, probabilities, atol=1e-5)
    assert model.info["name"] == "small" and "schema" not in model.info
    assert model.unknown_below == -3.0


def test_a_batch_goes_on_and_is_merged_to_the_same_table(kept):
    out = kept / "batch" / "out"
    before = rows_of(out / "micrographs.csv")
    store = Store(out)
    assert list(store.plan()) == ["field.tif"]
    record = store.record("field.tif")
    assert record is not None and record.finished
    assert (out / "columns" / "field.tif.parquet").stat().st_size == record.table_bytes
    done = CliRunner().invoke(main, ["batch", "merge", str(out)])
    assert done.exit_code == 0, done.output
    after = rows_of(out / "micrographs.csv")
    assert len(before) == len(after) == 1
    assert {name: after[0][name] for name in before[0]} == before[0]  # columns may be added


def test_votes_are_those_of_the_experts(kept):
    with VoteStore(kept / "labels.db") as store:
        (image,) = store.images()
        labels = store.labels(image.id)
    one, other = (np.array(each) for each in VOTES.values())
    expected = np.where(one == other, one, UNSURE)
    assert [CLASSES.index(name) if name in CLASSES else UNSURE for name in labels["class"]] == expected.tolist()


def test_simulated_micrographs_are_those_that_were_classified(kept):
    assert manifest(kept / "data")["preset"] == "tmd96"
    (path,) = stored(kept / "data")
    made = SimulatedMicrograph.load(path)
    result = ctm.Classification.load(kept / "field.columns.h5")
    assert made.case == "WSe2:Cr" and made.condition == "80 keV HAADF"
    assert len(made.labels) == len(made.columns.positions) > 50
    nearest = np.linalg.norm(made.columns.positions[:, None] - result.positions, axis=2).min(axis=1)
    assert np.median(nearest) < 1.0
    np.testing.assert_array_equal(load_votes_image(kept), made.micrograph.data)


def load_votes_image(kept):
    with VoteStore(kept / "labels.db") as store:
        (image,) = store.images()
        return store.micrograph(image.id).data


# What is of a later version is refused


LATER = rf"of schema 99, written by contextem 9\.1\.0, and contextem {ctm.__version__} reads schema 1; install"


def later_classification(folder):
    with h5py.File(folder / "field.columns.h5", "a") as file:
        file.attrs.update({"schema": 99, "contextem_version": "9.1.0", "something": 1})
    ctm.Classification.load(folder / "field.columns.h5")


def later_model(folder):
    change(folder / "model" / "model.json", schema=99, version="9.1.0", config={"kind": "transformer"})
    load_model(folder / "model")


def later_record(folder):
    change(folder / "batch/out/.batch/records/field.tif.json", schema=99, contextem_version="9.1.0", more=1)
    Store(folder / "batch/out").record("field.tif")


def later_plan(folder):
    change(folder / "batch/out/.batch/plan.json", schema=99, contextem_version="9.1.0")
    Store(folder / "batch/out").plan()


@pytest.mark.parametrize("read", [later_classification, later_model, later_record, later_plan])
def test_later_files_are_refused_with_the_version_that_reads_them(newest, read):
    with pytest.raises(ValueError, match=LATER + r" contextem 9\.1\.0 or newer$") as raised:
        read(newest)
    assert "\n" not in str(raised.value)


def test_later_stores_and_data_sets_are_refused(newest):
    raw = sqlite3.connect(newest / "labels.db")
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(ValueError, match=r"store: .*labels\.db holds a store of votes of schema 99, .* a newer one$"):
        VoteStore(newest / "labels.db")
    change(newest / "data" / "manifest.json", schema=99)
    with pytest.raises(ValueError, match=r"^folder: .*data holds a simulated data set of schema 99, "):
        stored(newest / "data")
    with np.load(newest / "data" / "field.npz") as told:
        values = dict(told)
    values["about"] = np.array(json.dumps(json.loads(str(values["about"])) | {"schema": 99}))
    np.savez(newest / "data" / "field.npz", **values)
    with pytest.raises(ValueError, match=r"^path: .*field\.npz holds a simulated data set of schema 99, "):
        SimulatedMicrograph.load(newest / "data" / "field.npz")


def test_the_command_says_it_in_one_line(newest, tmp_path):
    change(newest / "model" / "model.json", schema=2, version="1.0.0")
    np.save(tmp_path / "field.npy", np.random.default_rng(0).normal(size=(64, 64)))
    given = ["--host", "WSe2", "--energy-kev", "80", "--detector", "HAADF", "--sampling", "0.2"]
    arguments = ["classify", tmp_path / "field.npy", *given, "--model", newest / "model", "-o", tmp_path / "out"]
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == 2
    assert done.output.strip().endswith("install contextem 1.0.0 or newer")
    assert done.output.count("\n") == 1


# What is of an earlier version that is no longer read, or damaged


@pytest.mark.parametrize("kind", [kind for kind in SCHEMAS if kind in _schema._REMEDIES])
def test_what_is_no_longer_read_says_what_to_do_instead(kind, monkeypatch):
    monkeypatch.setattr(_schema, "SCHEMAS", {kind: 4})
    monkeypatch.setattr(_schema, "OLDEST", {kind: 3})
    check_schema(kind, 3, "path: a")
    check_schema(kind, 4, "path: a")
    for schema, told in ((2, "2"), (None, "None"), ("4", "'4'"), (True, "True"), (3.5, r"3\.5")):
        with pytest.raises(SchemaError, match=rf"^path: a holds a {kind} of schema {told}, .* schemas 3 to 4; \w+"):
            check_schema(kind, schema, "path: a")


def test_a_file_without_a_number_is_of_the_first_schema(newest):
    with h5py.File(newest / "field.columns.h5", "a") as file:
        del file.attrs["schema"], file.attrs["contextem_version"]
    assert len(ctm.Classification.load(newest / "field.columns.h5")) > 50
    told = json.loads((newest / "model" / "model.json").read_text())
    del told["schema"]
    (newest / "model" / "model.json").write_text(json.dumps(told))
    assert load_model(newest / "model").info["name"] == "small"


def test_a_model_with_unknown_parts_tells_who_wrote_it(newest):
    path = newest / "model" / "model.json"
    change(path, version="0.0.9", config=json.loads(path.read_text())["config"] | {"colour": "blue"})
    with pytest.raises(
        ValueError, match=r"written by contextem 0\.0\.9: .*'colour'; train it again, or install the version"
    ):
        load_model(newest / "model")


# Every file tells its schema


def test_summaries_and_tables_tell_their_schema(newest):
    assert json.loads((newest / "field.summary.json").read_text())["schema"] == SCHEMAS["classification"]
    for path in (newest / "field.columns.parquet", newest / "batch/out/columns/field.tif.parquet"):
        assert parquet.read_schema(path).metadata[b"contextem_schema"] == b"%d" % SCHEMAS["classification"]
    summary = json.loads((newest / "batch/out/summary.json").read_text())
    assert (summary["schema"], summary["contextem_version"]) == (SCHEMAS["batch"], ctm.__version__)
    assert json.loads((newest / "model/model.json").read_text())["schema"] == SCHEMAS["model"]
