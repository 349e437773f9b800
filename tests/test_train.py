"""Training and evaluation: split by image, columns measured as found ones are, files complete."""

import csv
import json

import numpy as np
import pytest
import torch

from contextem import evaluate as evaluation
from contextem import train as training
from contextem.model import ModelConfig, load_model
from contextem.simulate.dataset import Recipe, recipes

CONFIG = ModelConfig(n_max=8, size=24, width=24, heads=2, depth=1, dropout=0.0)


def few(preset, images, seed=0, *, ranges):
    """Two hosts whose metal and X2 columns swap brightness, one condition."""
    assert preset == "few"
    return [
        Recipe(host, "Cr", 80e3, "HAADF", seed + i, "reference") for i in range(images) for host in ("WS2", "MoTe2")
    ]


@pytest.fixture
def sources(monkeypatch):
    monkeypatch.setattr(training, "recipes", few)
    return training.training_and_test_sources(None, "few", 5, 0)


def test_every_fifth_image_is_for_testing_whatever_is_trained():
    small, large = (training.training_and_test_sources(None, "tmd96", images, 0) for images in (5, 10))
    assert len(small[0]), len(small[1]) == (4 * 96, 96)
    assert set(small[0]) < set(large[0])
    assert set(small[1]) < set(large[1])
    assert not set(large[0]) & set(large[1])


def test_columns_carry_the_context_of_their_image(sources):
    columns = training.measure_sources(sources[1], CONFIG, workers=1)
    assert len(columns) == len(columns.contrast) == len(columns.image) > 200
    first = [source.simulate() for source in sources[1]]
    for i, simulated in enumerate(first):
        np.testing.assert_array_equal(columns.context[i], simulated.context.vector("roles"))
        assert columns.dose[i] == simulated.conditions["dose"]
    assert columns.case.tolist() == ["WS2:Cr", "MoTe2:Cr"]
    assert np.isfinite(columns.contrast).all()


def test_stored_and_simulated_micrographs_measure_alike(sources, tmp_path):
    simulated = sources[1][0].simulate()
    path = tmp_path / f"{sources[1][0].name}.npz"
    simulated.save(path)
    there, here = (training.measure_sources([source], CONFIG, workers=1) for source in (path, sources[1][0]))
    np.testing.assert_array_equal(there.contrast, here.contrast)
    np.testing.assert_array_equal(there.labels, here.labels)


def test_training_columns_are_limited_by_class(sources):
    columns = training.measure_sources(sources[1][:1], CONFIG, per_class=3, workers=1)
    assert np.bincount(columns.labels, minlength=5).tolist() == [3] * 5


@pytest.fixture
def one_thread():
    """Matrices as small as these are multiplied faster by one thread than shared by several on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(sources, tmp_path, one_thread):
    training.train_models(
        tmp_path / "model", None, preset="few", images=5, epochs=100, seed=0, workers=1, config=CONFIG
    )
    return tmp_path / "model"


def test_train_and_evaluate_whole(folder, monkeypatch):
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    files = {"model.safetensors", "model.json", "accuracy.csv"}
    assert names == files | {f"without_context/{name}" for name in files} | {"accuracy.png"}
    with (folder / "accuracy.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 101))
    assert float(rows[-1]["test"]) > 0.7 > 2 * float(rows[0]["train"])
    facts = json.loads((folder / "model.json").read_text())
    assert facts["training"]["hosts"] == ["MoTe2", "WS2"]
    assert facts["training"]["dopants"] == ["Cr"]
    assert load_model(folder / "without_context").config.context == "none"

    scores = evaluation.evaluate_model(folder, None, preset=None, images=1, workers=1)
    assert list(scores) == ["with context", "without context"]
    assert scores["with context"]["all"].balanced_accuracy == pytest.approx(float(rows[-1]["test"]), abs=0.08)
    total = scores["with context"]["all"].support.sum()
    assert scores["with context"]["80 keV HAADF"].support.sum() == total
    text = evaluation.report(scores)
    assert "with context" in text
    assert "mean entropy, bits" in text

    seen = evaluation.predict_test_images(folder, None, preset=None, images=1, workers=1, ideal=True, baselines=True)
    assert list(seen)[:2] == ["with context", "without context"]
    assert {"logistic", "boosting", "perceptron", "pixel network", evaluation.IDEAL} < set(seen)
    scores = evaluation.score_predictions(seen)
    assert scores[evaluation.IDEAL]["all"].accuracy > 0.99
    assert scores["boosting"]["all"].accuracy > 0.8
    # the observer is asked about the columns the model is, but for those at the border
    assert scores[evaluation.IDEAL]["all"].support.sum() == pytest.approx(total, rel=0.1)


def test_unknown_presets_are_named():
    with pytest.raises(ValueError, match="preset"):
        recipes("tmd1", 1)
