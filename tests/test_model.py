"""The classifier: features no gain, offset or rotation changes; prediction; files it is kept in."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contextem.columns import CLASSES
from contextem.context import Context
from contextem.model import (
    CONTEXT_TOKENS,
    AttentionClassifier,
    Model,
    ModelConfig,
    contrast_features,
    load_model,
    packaged_model,
)
from contextem.moments import column_moments
from contextem.patches import patch_complete

CONFIG = ModelConfig(n_max=6, size=16, width=16, heads=2, depth=1)
CONTEXT = Context("WSe2", "Cr", energy=80e3, detector="HAADF")


@pytest.fixture(scope="module")
def columns():
    rng = np.random.default_rng(3)
    positions = rng.uniform(10, 86, (60, 2))
    image = rng.normal(size=(96, 96))
    for row, column in positions:
        rows, cols = np.mgrid[:96, :96]
        image += 5 * np.exp(-((rows - row) ** 2 + (cols - column) ** 2) / 8)
    return image, positions


def features(image, positions):
    complete = patch_complete(image.shape, positions, CONFIG.size)
    moments = column_moments(np.ascontiguousarray(image), positions, CONFIG.basis)
    return contrast_features(moments, positions, complete, CONFIG.basis)


def network(config=CONFIG, seed=0):
    torch.manual_seed(seed)
    made = AttentionClassifier(config)
    torch.nn.init.normal_(made.class_token)
    return Model(made.eval(), {"name": "test"})


@settings(max_examples=10)
@given(gain=st.floats(1e-3, 1e3), offset=st.floats(-100, 100))
def test_features_do_not_know_gain_and_offset(columns, gain, offset):
    image, positions = columns
    np.testing.assert_allclose(features(gain * image + gain * offset, positions), features(image, positions), atol=2e-4)


def test_features_do_not_know_the_orientation_of_the_image(columns):
    image, positions = columns
    turned = np.rot90(image)  # (row, column) -> (W - 1 - column, row)
    moved = np.column_stack([image.shape[1] - 1 - positions[:, 1], positions[:, 0]])
    np.testing.assert_allclose(features(turned, moved), features(image, positions), atol=2e-5)


def test_features_have_one_column_more_than_the_paper_has_invariants(columns):
    assert ModelConfig().n_max == 10
    image, positions = columns
    invariants = (CONFIG.n_max // 2 + 1) * (CONFIG.n_max - CONFIG.n_max // 2 + 1)
    assert features(image, positions).shape == (len(positions), invariants + 1)


def test_columns_at_the_border_do_not_set_the_standard(columns):
    image, positions = columns
    with_border = np.vstack([positions, [[0.0, 0.0], [95.0, 3.0]]])
    np.testing.assert_allclose(features(image, with_border)[:-2], features(image, positions), atol=1e-6)


def test_only_border_columns_are_refused():
    moments = np.ones((2, 28))
    with pytest.raises(ValueError, match="at least one column whose patch lies inside the image"):
        contrast_features(moments, np.zeros((2, 2)), np.zeros(2, bool), CONFIG.basis)


def test_no_columns_give_no_features():
    none = contrast_features(np.zeros((0, 28)), np.zeros((0, 2)), np.zeros(0, bool), CONFIG.basis)
    assert none.shape == (0, 17)
    assert network().predict(none, network().context_features(CONTEXT)).shape == (0, 5)


@pytest.mark.parametrize("encoding", ["roles", "composition"])
def test_context_tokens_cover_the_context_vector(encoding):
    assert sum(CONTEXT_TOKENS[encoding]) == len(CONTEXT.vector(encoding))


def test_posteriors_add_up_and_do_not_depend_on_the_batch(columns):
    model = network()
    contrast = features(*columns)
    context = model.context_features(CONTEXT)
    whole = model.predict(contrast, context)
    assert whole.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(model.predict(contrast, context, batch_size=7), whole, atol=1e-5)
    each = np.repeat(context[None], len(contrast), axis=0)
    np.testing.assert_allclose(model.predict(contrast, each), whole, atol=1e-5)


def test_context_changes_the_posterior_and_none_has_no_place_for_it(columns):
    contrast = features(*columns)
    model = network()
    there = model.predict(contrast, model.context_features(CONTEXT))
    other = model.predict(contrast, model.context_features(Context("MoS2", "V", energy=200e3, detector="MAADF")))
    assert np.abs(there - other).max() > 1e-3
    blind = network(replace(CONFIG, context="none"))
    assert blind.context_features(CONTEXT).shape == (0,)
    assert blind.predict(contrast, blind.context_features(CONTEXT)).shape == (len(contrast), 5)


def test_saved_model_is_the_same_model(columns, tmp_path):
    model = network()
    model.network.mean.normal_()
    model.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    contrast = features(*columns)
    context = model.context_features(CONTEXT)
    np.testing.assert_array_equal(loaded.predict(contrast, context), model.predict(contrast, context))
    facts = json.loads((tmp_path / "m" / "model.json").read_text())
    assert facts["classes"] == list(CLASSES)
    assert facts["config"]["basis_mode"] == "integrated"
    assert {"version", "name"} <= facts.keys()


def test_missing_foreign_and_broken_models_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a folder with model\.json"):
        load_model(tmp_path)
    network().save(tmp_path)
    facts = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**facts, "classes": ["cat", "dog"]}))
    with pytest.raises(ValueError, match="got cat, dog"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(facts))
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match="contextem train"):
        load_model(tmp_path)


def test_packaged_model_is_small_and_knows_how_it_was_made():
    folder = packaged_model()
    assert sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) < 2_000_000
    info = load_model().info
    assert info["training"]["preset"]
    assert load_model().config.n_max == 10
