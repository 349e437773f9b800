"""Both classifiers: prediction, context, the files they are kept in, and the program exported from them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from contextem._threads import thread_limit
from contextem.attention import CONTEXT_TOKENS, LatticeClassifier, ModelConfig, PaperClassifier, build_classifier
from contextem.columns import CLASSES
from contextem.context import Context
from contextem.contrast import contrast_blocks
from contextem.model import Model, Prediction, load_model, packaged_model
from contextem.remarks import ExtrapolationWarning

LATTICE = ModelConfig(n_max=6, size=16, width=16, heads=2, depth=2, tokens=4, hidden=24)
PAPER = replace(LATTICE, kind="paper", context="composition")
KINDS = {
    "lattice": LATTICE,
    "lattice without context": replace(LATTICE, context="none"),
    "paper": PAPER,
    "paper by roles": replace(PAPER, context="roles"),
    "paper by intensities": replace(PAPER, context="intensities"),
    "paper without context": replace(PAPER, context="none"),
}
CONTEXT = Context("WSe2", "Cr", energy=80e3, detector="HAADF")
OTHER = Context("MoS2", "V", energy=200e3, detector="MAADF")

kinds = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


def made(config=LATTICE, seed=0, **info):
    """A network of random weights whose every part counts."""
    torch.manual_seed(seed)
    network = build_classifier(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        network.mean.normal_()
        network.scale.uniform_(0.5, 2.0)
    return Model(network.eval(), {"name": "test", **info})


def contrast(count=60, config=LATTICE, seed=0):
    features = sum(contrast_blocks(config.basis).values())
    return np.random.default_rng(seed).normal(size=(count, features)).astype(np.float32)


def assert_alike(one: Prediction, two: Prediction, tolerance=1e-5):
    np.testing.assert_allclose(one.probabilities, two.probabilities, atol=tolerance)
    np.testing.assert_allclose(one.familiarity, two.familiarity, atol=10 * tolerance)


@pytest.mark.parametrize("encoding", ["intensities", "roles", "composition"])
def test_context_tokens_cover_the_context_vector(encoding):
    assert sum(CONTEXT_TOKENS[encoding]) == len(CONTEXT.vector(encoding))


def test_each_kind_has_its_classifier():
    assert isinstance(build_classifier(LATTICE), LatticeClassifier)
    assert isinstance(build_classifier(PAPER), PaperClassifier)
    with pytest.raises(ValueError, match=r"^context: expected 'intensities' or 'none' .* got 'roles'$"):
        ModelConfig(context="roles")


@kinds
def test_predictions_do_not_depend_on_the_batch_nor_on_how_the_context_is_given(config):
    model, seen = made(config), contrast(61)
    context = model.context_features(CONTEXT)
    whole = model.predict(seen, context)
    assert whole.probabilities.shape == (61, len(CLASSES))
    assert whole.familiarity.shape == (61,)
    assert whole.probabilities.dtype == whole.familiarity.dtype == np.float32
    assert whole.probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    each = np.repeat(context[None], len(seen), axis=0)
    for size in (1, 7, 60, 61, 1000):
        assert_alike(model.predict(seen, context, batch_size=size), whole)
        assert_alike(model.predict(seen, each, batch_size=size), whole)
    for i in (0, 30, 60):
        alone = model.predict(seen[i : i + 1], context)
        assert_alike(alone, Prediction(*(part[i : i + 1] for part in whole)))


@kinds
def test_batches_side_by_side_come_to_the_same_bits(config):
    model, seen = made(config), contrast(200)
    context, before = model.context_features(CONTEXT), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = []
        for threads in (1, 2, 5):
            with thread_limit(threads):
                found.append(model.predict(seen, context, batch_size=16))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@kinds
def test_each_column_is_seen_in_its_own_context(config):
    model, seen = made(config), contrast(20)
    one, other = model.context_features(CONTEXT), model.context_features(OTHER)
    mixed = np.stack([one, other] * 10)
    got = model.predict(seen, mixed)
    for start, context in enumerate((one, other)):
        wanted = model.predict(seen[start::2], context)
        assert_alike(Prediction(*(part[start::2] for part in got)), wanted)


@kinds
def test_context_changes_the_posterior_and_none_has_no_place_for_it(config):
    model, seen = made(config), contrast()
    there, other = (model.context_features(context) for context in (CONTEXT, OTHER))
    difference = np.abs(model.predict(seen, there).probabilities - model.predict(seen, other).probabilities).max()
    if config.context == "none":
        assert there.shape == (0,)
        assert difference == 0
        for missing in ({"energy": None}, {"detector": None}):
            stated = {"energy": 80e3, "detector": "HAADF"} | missing
            with pytest.raises(ValueError, match=next(iter(missing))):
                model.context_features(Context("WSe2", **stated))
    else:
        np.testing.assert_array_equal(there, CONTEXT.vector(config.context))
        assert difference > 1e-3


@kinds
def test_no_columns_have_no_classes(config):
    model = made(config)
    none = model.predict(contrast(0), model.context_features(CONTEXT))
    assert none.probabilities.shape == (0, 5)
    assert none.familiarity.shape == (0,)


def test_the_paper_looks_at_the_column_alone_and_judges_no_familiarity():
    model, seen = made(PAPER), contrast()
    own = contrast_blocks(PAPER.basis)["invariants"]
    shuffled = np.concatenate([seen[:, :own], np.roll(seen[:, own:], 1, axis=0)], axis=1)
    context = model.context_features(CONTEXT)
    before, after = model.predict(seen, context), model.predict(shuffled, context)
    np.testing.assert_array_equal(before.probabilities, after.probabilities)
    assert not before.familiarity.any()
    lattice = made(LATTICE)
    assert lattice.predict(seen, lattice.context_features(CONTEXT)).familiarity.std() > 0.01


@kinds
def test_temperature_sharpens_and_flattens_but_does_not_change_the_order(config):
    model, seen = made(config), contrast()
    context = model.context_features(CONTEXT)
    plain = model.predict(seen, context)
    model.network.temperature.fill_(2.0)
    flat = model.predict(seen, context)
    expected = np.sqrt(plain.probabilities)
    np.testing.assert_allclose(flat.probabilities, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_array_equal(flat.familiarity, plain.familiarity)


def test_features_beyond_all_bounds_do_not_break_it():
    model = made()
    wild = contrast(5)
    wild[0], wild[1] = 1e30, -1e30
    found = model.predict(wild, model.context_features(CONTEXT))
    assert np.isfinite(found.probabilities).all()
    assert np.isfinite(found.familiarity).all()


@kinds
def test_saved_model_is_the_same_model(config, tmp_path):
    model, seen = made(config, unknown_below=-1.5), contrast()
    model.network.temperature.fill_(1.3)
    model.save(tmp_path / "m", export=False)
    loaded = load_model(tmp_path / "m")
    assert loaded.config == config
    assert loaded.unknown_below == -1.5
    context = model.context_features(CONTEXT)
    for one, two in zip(loaded.predict(seen, context), model.predict(seen, context), strict=True):
        np.testing.assert_array_equal(one, two)
    facts = json.loads((tmp_path / "m" / "model.json").read_text())
    assert facts["classes"] == list(CLASSES)
    assert facts["config"]["basis_mode"] == "integrated"
    assert {"version", "name"} <= facts.keys()
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["model.json", "model.safetensors"]


def assert_exported(path, model, config):
    program = torch.export.load(path).module()
    for count in (1, 2, 5, 64, 300):
        seen = torch.from_numpy(contrast(count, config, seed=count))
        contexts = torch.from_numpy(
            np.stack([model.context_features(CONTEXT), model.context_features(OTHER)] * count)[:count]
        )
        with torch.inference_mode():
            for got, wanted in zip(program(seen, contexts), model.network(seen, contexts), strict=True):
                np.testing.assert_allclose(got.numpy(), wanted.numpy(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["lattice", "lattice without context", "paper"])
def test_the_exported_program_is_the_network(name, tmp_path):
    model = made(KINDS[name])
    model.network.temperature.fill_(0.8)
    model.save(tmp_path)
    assert_exported(tmp_path / "model.pt2", model, KINDS[name])


def test_the_exported_program_of_the_packaged_model_is_its_network(tmp_path):
    model = load_model()
    model.save(tmp_path)
    program = torch.export.load(tmp_path / "model.pt2").module()
    for count in (1, 3, 200):
        seen = torch.from_numpy(contrast(count, model.config))
        contexts = torch.from_numpy(np.repeat(model.context_features(CONTEXT)[None], count, axis=0))
        with torch.inference_mode():
            logits, familiarity = program(seen, contexts)
            expected = model.network(seen, contexts)
        np.testing.assert_allclose(torch.softmax(logits, 1), torch.softmax(expected[0], 1), atol=1e-6)
        np.testing.assert_allclose(familiarity, expected[1], rtol=1e-5, atol=1e-5)


def test_unknown_columns_need_a_threshold():
    assert made().unknown_below == -np.inf
    assert made(unknown_below=-0.25).unknown_below == -0.25
    packaged = load_model()
    assert np.isfinite(packaged.unknown_below)
    assert packaged.info["unknown_below"] == packaged.unknown_below


def test_missing_foreign_and_broken_models_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a folder with model\.json"):
        load_model(tmp_path)
    made().save(tmp_path, export=False)
    facts = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**facts, "classes": ["cat", "dog"]}))
    with pytest.raises(ValueError, match="got cat, dog"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({**facts, "config": {"colour": "blue"}}))
    with pytest.raises(ValueError, match="contextem train"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(facts))
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match="contextem train"):
        load_model(tmp_path)


def test_conditions_and_elements_it_was_not_trained_with_are_told():
    training = {"hosts": ["WSe2"], "dopants": ["Cr"], "conditions": ["80 keV HAADF"]}
    model = made(training=training)
    assert len(model.context_features(CONTEXT)) == 10
    with pytest.raises(ValueError, match=r"trained with \(80 keV HAADF\), got 200 keV MAADF"):
        model.context_features(OTHER)
    with pytest.warns(ExtrapolationWarning, match="not trained on MoS2 and V; its probabilities are extrapolated"):
        model.context_features(Context("MoS2", "V", energy=80e3, detector="HAADF"))


def test_packaged_models_are_small_and_know_how_they_were_made():
    folder = Path(packaged_model())
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 2_000_000
    assert not list(folder.rglob("*.pt2"))
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        model = load_model(place)
        assert model.info["training"]["preset"]
        assert model.config.n_max == 10
    assert load_model().config.context == "intensities"
