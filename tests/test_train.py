"""Training and evaluation: split by image, columns measured as found ones are, calibrated, files complete."""

import csv
import json
import re
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from contextem import evaluate as evaluation
from contextem import train as training
from contextem.attention import ModelConfig, build_classifier
from contextem.columns import CLASSES
from contextem.context import parse_formula
from contextem.contrast import contrast_blocks
from contextem.model import Model, load_model
from contextem.simulate.dataset import DOPANTS, METALS, Recipe, alloy_recipes, recipes

CONFIG = ModelConfig(n_max=8, size=24, width=24, heads=2, depth=1, tokens=4, hidden=48)
PAPER = replace(CONFIG, kind="paper", context="composition")


def few(preset, images, seed=0, *, ranges):
    """Two hosts whose metal and X2 columns swap brightness, one condition."""
    assert preset == "few"
    return [
        Recipe(host, "Cr", 80e3, "HAADF", seed + i, "reference") for i in range(images) for host in ("WS2", "MoTe2")
    ]


@pytest.fixture
def split(monkeypatch):
    monkeypatch.setattr(training, "recipes", few)
    return training.split_sources(None, "few", 5, 0)


@pytest.fixture(autouse=True)
def one_thread():
    """Matrices as small as these are multiplied faster by one thread than shared by several on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Splitting


@settings(max_examples=25)
@given(images=st.integers(1, 45), more=st.integers(0, 20), seed=st.integers(0, 10_000))
def test_images_are_split_by_the_last_digit_of_their_seed_however_many_there_are(images, more, seed):
    split, longer = (training.split_sources(None, "near-z", count, seed) for count in (images, images + more))
    parts = {"training": {0, 1, 2, 5, 6, 7}, "validation": {3, 8}, "test": {4, 9}}
    for name, digits in parts.items():
        sources = getattr(split, name)
        assert {source.seed % 10 for source in sources} == digits & {(seed + i) % 10 for i in range(images)}
        assert set(sources) <= set(getattr(longer, name))
    everything = split.training + split.validation + split.test
    assert Counter(everything) == Counter(recipes("near-z", images, seed))


def test_stored_images_are_split_by_the_number_at_the_end_of_their_name(tmp_path):
    names = [f"{recipe.name}.npz" for recipe in few("few", 12, 7, ranges="both")]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "manifest.json").write_text(json.dumps({"preset": "few", "files": names}))
    split = training.split_sources(tmp_path, "", 0, 0)
    assert {path.stem.rsplit("-", 1)[1] for path in split.test} == {"9", "14"}
    assert {path.stem.rsplit("-", 1)[1] for path in split.validation} == {"8", "13", "18"}
    assert len(split.training) + len(split.test) + len(split.validation) == len(names)


@settings(max_examples=25)
@given(
    st.integers(1, 300),
    st.integers(0, 1000),
    st.lists(st.sampled_from(["S", "Se", "Te"]), min_size=2, unique=True),
)
def test_alloys_mix_the_asked_chalcogens_and_no_others(count, seed, chalcogens):
    made = alloy_recipes(count, seed, chalcogens)
    assert made == alloy_recipes(count, seed, chalcogens)
    assert len(made) == count
    for recipe in made:
        metal, one, share, other, rest = re.fullmatch(
            r"(\w+)\(([A-Z][a-z]?)(0\.\d+)([A-Z][a-z]?)(0\.\d+)\)2", recipe.host
        ).groups()
        assert metal in METALS
        assert one != other
        assert {one, other} <= set(chalcogens)
        assert float(share) + float(rest) == pytest.approx(1.0)
        assert recipe.dopant in (*DOPANTS, *METALS, "Zr", "Re", None)
        assert recipe.dopant != parse_formula(recipe.host)[0]


def test_alloys_are_trained_on_beside_the_hosts(split, monkeypatch):
    asked = {}

    def remember(sources, config, *, label, **_):
        asked[label] = list(sources)

    monkeypatch.setattr(training, "measure_sources", remember)
    training.training_data(None, "few", 20, 0, CONFIG, 1)
    whole = training.split_sources(None, "few", 20, 0)
    hosts = [source for source in asked["training images"] if "(" not in source.host]
    alloys = [source for source in asked["training images"] if "(" in source.host]
    assert hosts == whole.training
    assert len(alloys) == round(training.ALLOYS * len(hosts))
    assert Counter(asked["validation images"]) == Counter(whole.validation)
    assert Counter(asked["test images"]) == Counter(whole.test)


# Measuring


@settings(max_examples=30)
@given(st.lists(st.integers(0, 90), min_size=5, max_size=5), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_weights_of_a_few_add_up_to_all_of_each_class(counts, per_class, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(5), counts))
    chosen, weight = training.few_of_each(labels, per_class, rng)
    assert len(set(chosen.tolist())) == len(chosen)
    assert np.bincount(labels[chosen], minlength=5).tolist() == [min(count, per_class) for count in counts]
    np.testing.assert_allclose(np.bincount(labels[chosen], weight, minlength=5), counts, rtol=1e-5)


def test_columns_carry_the_context_of_their_image(split):
    columns = training.measure_sources(split.test, CONFIG, workers=1)
    assert len(columns) == len(columns.contrast) == len(columns.image) > 200
    for i, source in enumerate(split.test):
        simulated = source.simulate()
        stated = training.stated_context(simulated.context, np.random.default_rng([source.seed, 13]))
        for encoding in ("intensities", "roles", "composition"):
            np.testing.assert_array_equal(columns.context_of(encoding)[i], stated.vector(encoding))
        assert columns.dose[i] == simulated.conditions["dose"]
    assert columns.context_of("none").shape == (2, 0)
    assert columns.case.tolist() == ["WS2:Cr", "MoTe2:Cr"]
    assert columns.condition.tolist() == ["80 keV HAADF"] * 2
    assert np.isfinite(columns.contrast).all()
    assert (columns.weight == 1).all()


def test_every_other_context_states_the_detector_by_name_alone(split):
    context = split.test[0].simulate().context
    rng = np.random.default_rng(0)
    stated = [training.stated_context(context, rng) for _ in range(400)]
    bare = [each for each in stated if each.detector.inner is None]
    assert 150 < len(bare) < 250
    assert all(each == context for each in stated if each.detector.inner is not None)
    assert {(each.host, each.dopants, each.energy, each.detector.name) for each in bare} == {
        ("WS2", ("Cr",), 80e3, "HAADF")
    }


def test_stored_and_simulated_micrographs_measure_alike(split, tmp_path):
    simulated = split.test[0].simulate()
    path = tmp_path / f"{split.test[0].name}.npz"
    simulated.save(path)
    there, here = (training.measure_sources([source], CONFIG, workers=1) for source in (path, split.test[0]))
    for field in fields(there):
        np.testing.assert_array_equal(getattr(there, field.name), getattr(here, field.name))


def test_training_columns_are_limited_by_class_and_stand_for_the_others(split):
    columns = training.measure_sources(split.test[:1], CONFIG, per_class=3, workers=1)
    everyone = training.measure_sources(split.test[:1], CONFIG, workers=1)
    assert np.bincount(columns.labels, minlength=5).tolist() == [3] * 5
    np.testing.assert_allclose(
        np.bincount(columns.labels, columns.weight, minlength=5), np.bincount(everyone.labels, minlength=5), rtol=1e-5
    )


def drawn(seed=0, images=6, count=40, config=CONFIG):
    """Columns whose class shows in their features, turned round by the context of the image, as their neighbours."""
    rng = np.random.default_rng(seed)
    n = images * count
    labels, image = rng.integers(0, 5, n), np.repeat(np.arange(images), count)
    blocks = contrast_blocks(config.basis)
    own = blocks["invariants"] + blocks["centre"]
    # what the host is, one of three, shows in the neighbours of each column, and in the context
    kind = np.random.default_rng(99).normal(size=(3, 10))[np.arange(images) % 3]
    contrast = rng.normal(0.0, 0.3, (n, sum(blocks.values())))
    contrast[np.arange(n), labels] += 2.0
    contrast[:, own : own + 10] += 2 * kind[image]
    # columns of the same image around each, some missing
    starts = np.searchsorted(image, image)[:, None]
    around = starts + rng.integers(0, n // images, (2, n, 3))
    around = np.where(rng.random(around.shape) < 0.2, -1, around).astype(np.int32)
    return training.LabelledColumns(
        contrast=contrast.astype(np.float32),
        labels=labels,
        weight=rng.uniform(0.5, 3.0, n).astype(np.float32),
        same=around[0],
        other=around[1],
        side=rng.integers(0, 2, n).astype(np.int8),
        image=image,
        intensities=kind.astype(np.float32),
        context=rng.normal(size=(images, 68)).astype(np.float32),
        composition=rng.normal(size=(images, 30)).astype(np.float32),
        case=np.array([f"case {i}" for i in range(images)]),
        condition=np.array(["a", "b"] * images)[:images],
        dose=np.linspace(1.0, 2.0, images),
    )


@given(st.lists(st.booleans(), min_size=6, max_size=6))
def test_columns_of_chosen_images_keep_all_that_is_theirs(chosen):
    columns, kept = drawn(), np.array(chosen)
    part = columns.of_images(kept)
    mine = kept[columns.image]
    assert len(part) == 40 * kept.sum() == mine.sum()
    assert len(part.dose) == kept.sum()
    for name in ("contrast", "labels", "weight"):
        np.testing.assert_array_equal(getattr(part, name), getattr(columns, name)[mine])
    for name in ("case", "condition", "dose", "intensities", "context", "composition"):
        np.testing.assert_array_equal(getattr(part, name)[part.image], getattr(columns, name)[columns.image][mine])
    for name in ("same", "other"):
        before, after = getattr(columns, name)[mine], getattr(part, name)
        np.testing.assert_array_equal(before < 0, after < 0)
        np.testing.assert_array_equal(part.contrast[after[after >= 0]], columns.contrast[before[before >= 0]])


def test_columns_put_together_are_those_of_the_parts_and_come_apart_again():
    parts = [drawn(0, images=2), drawn(1, images=3)]
    whole = training.concatenate(parts)
    first = np.arange(5) < 2
    for part, images in zip(parts, (first, ~first), strict=True):
        again = whole.of_images(images)
        for each in fields(part):
            np.testing.assert_array_equal(getattr(again, each.name), getattr(part, each.name))
    chosen = np.arange(len(whole)) % 3 == 0
    some = whole.of_columns(chosen)
    np.testing.assert_array_equal(some.contrast, whole.contrast[chosen])
    np.testing.assert_array_equal(some.image, whole.image[chosen])
    assert len(some.dose) == 5


def test_few_columns_of_each_class_stand_for_all():
    columns = drawn()
    few = columns.few(3, seed=1)
    assert few.same.shape == few.other.shape == (len(few), 0)
    for image in range(6):
        for label in range(5):
            here, there = ((c.image == image) & (c.labels == label) for c in (columns, few))
            assert there.sum() == min(3, here.sum())
            assert few.weight[there].sum() == pytest.approx(here.sum())


# Calibration and familiarity


def fresh(config=CONFIG, seed=0):
    torch.manual_seed(seed)
    return Model(build_classifier(config).eval(), {})


def nll(model, columns):
    p = training.predict(model, columns).probabilities.astype(float)
    return np.average(-np.log(np.maximum(p[np.arange(len(columns)), columns.labels], 1e-30)), weights=columns.weight)


@pytest.mark.parametrize("config", [CONFIG, PAPER], ids=["lattice", "paper"])
def test_calibration_makes_the_validation_columns_likeliest(config):
    model, columns = fresh(config), drawn(1, images=60)
    # classes as the model says they are, until it is made over-sure
    posterior = training.predict(model, columns).probabilities
    labels = (np.random.default_rng(0).random((len(columns), 1)) > posterior.cumsum(axis=1)).sum(axis=1).clip(0, 4)
    columns = replace(columns, labels=labels)
    model.network.temperature.fill_(0.2)
    before = nll(model, columns)
    training.calibrate(model, columns)
    best, at_best = nll(model, columns), float(model.network.temperature)
    assert best < before
    assert at_best == pytest.approx(1.0, rel=0.3)
    for factor in (0.9, 1.1):
        model.network.temperature.fill_(factor * at_best)
        assert nll(model, columns) >= best - 1e-6
    # a calibrated model stays as it is
    model.network.temperature.fill_(at_best)
    training.calibrate(model, columns)
    assert float(model.network.temperature) == pytest.approx(at_best, rel=0.02)


def test_the_shares_of_defects_are_those_of_the_weighted_columns():
    columns = drawn(5, images=20)
    shares = training.defect_shares(columns)
    total = {label: columns.weight[columns.labels == label].sum() for label in range(5)}
    assert shares["dopant"] == pytest.approx(total[1] / (total[0] + total[1]))
    for label, name in ((3, "single_vacancy"), (4, "double_vacancy")):
        assert shares[name] == pytest.approx(total[label] / (total[2] + total[3] + total[4]))
    undoped = replace(columns, labels=np.where(columns.labels == 1, 0, columns.labels))
    assert set(training.defect_shares(undoped)) == {"single_vacancy", "double_vacancy"}
    model = fresh()
    training.calibrate(model, columns)
    assert model.info["defect_shares"] == shares


def test_calibration_calls_the_wanted_share_unknown():
    model, columns = fresh(), drawn(2, images=50, count=100)
    training.calibrate(model, columns)
    familiarity = training.predict(model, columns).familiarity
    unknown = familiarity < model.unknown_below
    share = columns.weight[unknown].sum() / columns.weight.sum()
    assert share == pytest.approx(training.UNKNOWN_QUANTILE, abs=1e-3)
    paper = fresh(PAPER)
    training.calibrate(paper, columns)
    assert paper.unknown_below == -np.inf


def test_familiarity_tells_columns_from_those_with_another_context_or_other_neighbours():
    columns, validation = drawn(3, images=60), drawn(4, images=60)
    model, _ = training.train(columns, validation, validation, CONFIG, epochs=25, batch_size=256)
    context = validation.intensities[validation.image]
    as_they_are = model.predict(validation.contrast, context).familiarity
    # forty columns an image, the next image is of another host
    swapped = model.predict(validation.contrast, np.roll(context, 40, axis=0)).familiarity
    blocks = contrast_blocks(CONFIG.basis)
    own = blocks["invariants"] + blocks["centre"]
    near = own + blocks["first"] + blocks["second"]
    mixed = validation.contrast.copy()
    mixed[:, own:near] = np.roll(mixed[:, own:near], 40, axis=0)
    misfit = model.predict(mixed, context).familiarity
    for wrong in (swapped, misfit):
        above = (as_they_are[:, None] > wrong[None]).mean()  # area under the ROC curve
        assert above > 0.9
    assert (as_they_are < model.unknown_below).mean() < 0.03 < (swapped < model.unknown_below).mean()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("context", ["intensities", "none"])
def test_the_familiarity_of_the_smallest_batches_is_a_number(count, context):
    config = replace(CONFIG, context=context)
    network, columns = fresh(config).network, drawn()
    contrast = torch.from_numpy(columns.contrast[:count])
    vector = torch.from_numpy(columns.context_of(context)[columns.image[:count]])
    familiarity = network(contrast, vector)[1]
    loss = training.familiarity_loss(network, contrast, vector, familiarity)
    assert loss >= functional.softplus(-familiarity).mean()
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_training_is_the_same_for_the_same_seed_and_its_last_batch_may_be_small():
    columns, validation = drawn(5), drawn(6)
    assert len(columns) % 239 == 1
    models = [
        training.train(columns, validation, validation, CONFIG, epochs=2, batch_size=239, seed=seed)[0]
        for seed in (0, 0, 1)
    ]
    one, two, three = (training.predict(model, validation).probabilities for model in models)
    np.testing.assert_array_equal(one, two)
    assert np.isfinite(one).all()
    assert (one != three).any()


# The whole


@pytest.fixture
def folder(split, tmp_path):
    configs = {"with context": CONFIG, "without context": replace(CONFIG, context="none"), "paper": PAPER}
    training.train_models(
        tmp_path / "model", None, preset="few", images=10, epochs=40, seed=0, workers=1, configs=configs
    )
    return tmp_path / "model"


def test_train_and_evaluate_whole(folder):
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    files = {"model.safetensors", "model.json", "accuracy.csv"}
    beside = {f"{place}/{name}" for place in ("without_context", "paper") for name in files}
    assert names == files | beside | {"accuracy.png", "model.pt2"}
    with (folder / "accuracy.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 41))
    assert float(rows[-1]["test"]) > 0.7 > 2 * float(rows[0]["train"])
    facts = json.loads((folder / "model.json").read_text())
    assert facts["training"]["hosts"] == ["MoTe2", "WS2"]
    assert "Cr" in facts["training"]["dopants"]
    assert np.isfinite(load_model(folder).unknown_below)
    assert load_model(folder / "without_context").config.context == "none"
    assert load_model(folder / "paper").config.kind == "paper"

    scores = evaluation.evaluate_model(folder, None, preset=None, images=1, workers=1)
    assert list(scores) == ["with context", "without context", "paper"]
    assert scores["with context"]["all"].accuracy == pytest.approx(float(rows[-1]["test"]), abs=0.08)
    total = scores["with context"]["all"].support.sum()
    assert scores["with context"]["80 keV HAADF"].support.sum() == total
    text = evaluation.report(scores)
    assert "with context" in text
    assert "mean entropy, bits" in text

    seen = evaluation.predict_test_images(folder, None, preset=None, images=1, workers=1, ideal=True, baselines=True)
    assert list(seen)[:3] == ["with context", "without context", "paper"]
    assert {"logistic", "boosting", "perceptron", "pixel network", evaluation.IDEAL} < set(seen)
    scores = evaluation.score_predictions(seen)
    assert scores[evaluation.IDEAL]["all"].accuracy > 0.99
    assert scores["boosting"]["all"].accuracy > 0.8
    # the observer is asked about the columns the model is, but for those at the border
    assert scores[evaluation.IDEAL]["all"].support.sum() == pytest.approx(total, rel=0.1)


def stored_set(folder, engine, seeds=range(10, 15)):
    """A data set of small superposed micrographs that calls itself one of an engine."""
    files = []
    for seed in seeds:
        recipe = Recipe("WS2", "Cr", 80e3, "HAADF", seed, "reference")
        files.append(f"{recipe.name}.npz")
        recipe.simulate(size=30.0).save(folder / files[-1])
    about = {"preset": "tmd96", "options": {}, "classes": list(CLASSES), "engine": engine, "files": files}
    (folder / "manifest.json").write_text(json.dumps(about))


def test_of_abtems_images_all_are_for_testing(tmp_path):
    stored_set(tmp_path, "abtem")
    seen = evaluation.predict_test_images(None, tmp_path, preset=None, images=1, workers=1)
    for predictions in seen.values():
        assert len(predictions.dose) == 5
        assert (np.bincount(predictions.image, minlength=5) > 20).all()
    stored_set(tmp_path, "responses")
    seen = evaluation.predict_test_images(None, tmp_path, preset=None, images=1, workers=1)
    assert {len(predictions.dose) for predictions in seen.values()} == {1}


def test_baselines_are_not_trained_on_abtems_images(tmp_path, monkeypatch):
    stored_set(tmp_path, "abtem", range(10, 12))
    trained_on = {}

    def remember(sources, config, *, label, **_):
        trained_on[label] = list(sources)
        raise InterruptedError

    model = load_model()
    monkeypatch.setattr(evaluation, "measure_sources", remember)
    with pytest.raises(InterruptedError):
        evaluation.predict_with_baselines(model, tmp_path, [], drawn(), preset="near-z")
    assert trained_on["baseline images"]
    assert all(isinstance(source, Recipe) for source in trained_on["baseline images"])


def test_unknown_presets_are_named():
    with pytest.raises(ValueError, match="preset"):
        recipes("tmd1", 1)
