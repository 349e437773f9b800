"""Models and the labels of experts: scores counted by hand, halves that do not touch, what fine-tuning is worth."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import contextem as ctm
from contextem import finetune
from contextem.attention import ModelConfig
from contextem.cli import main
from contextem.columns import CLASSES, Columns
from contextem.contrast import own_and_near
from contextem.labels.actions import Vote
from contextem.labels.votes import VoteStore
from contextem.measurement import measure
from contextem.model import Model, load_model
from contextem.neighbours import SECOND_NEIGHBOURS
from contextem.simulate.conditions import REFERENCE
from contextem.simulate.dataset import simulate_micrograph


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def simulated(seed=4):
    return simulate_micrograph(
        "WSe2", "Cr", 80e3, "HAADF", seed=seed, size=60.0, ranges=REFERENCE, sampling=0.25, dose=3000.0
    )


def cast(store, image, expert, votes):
    """Votes (N,) of one expert on all columns, -1 for none."""
    items = [Vote(tuple(np.flatnonzero(votes == k).tolist()), k) for k in range(6) if (votes == k).any()]
    store.cast(image, expert, f"import-{image}", 1, items)


def made_store(path, *images, context=True, experts=3):
    """Each expert errs on a tenth of the columns and votes on nine tenths; return the votes (images, experts, N)."""
    rng = np.random.default_rng(0)
    votes = []
    with VoteStore(path) as store:
        voters = [store.expert_of(store.add_expert(f"expert {k}")) for k in range(experts)]
        for number, each in enumerate(images):
            told = each.context.to_dict() if context else None
            image = store.add_image(each.micrograph, Columns(each.columns.positions), told, f"field {number}")
            n = len(each.labels)
            own = np.where(rng.random((experts, n)) < 0.1, rng.integers(0, 5, (experts, n)), each.labels)
            own = np.where(rng.random((experts, n)) < 0.9, own, -1)
            for voter, cast_votes in zip(voters, own, strict=True):
                cast(store, image, voter, cast_votes)
            votes.append(own)
    return votes


def by_hand(votes):
    """Classes of a majority of two thirds of at least two votes, else -1; the numbers of disputed and unlabelled."""
    labels, disputed, unlabelled = [], 0, 0
    for column in votes.T:
        own = [vote for vote in column.tolist() if vote >= 0]
        best = max(range(5), key=own.count)
        if not own:
            unlabelled += 1
            labels.append(-1)
        elif len(own) < 2 or 3 * own.count(best) < 2 * len(own):
            disputed += 1
            labels.append(-1)
        else:
            labels.append(best)
    return np.array(labels), disputed, unlabelled


@pytest.fixture(scope="module")
def field():
    return simulated()


@pytest.fixture(scope="module")
def store(field, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "labels.db"
    return path, made_store(path, field)[0]


@pytest.fixture(scope="module")
def damaged():
    """The packaged model, with what it asks a column for each class disturbed."""
    model = load_model()
    with torch.no_grad():
        classes = model.network.classes
        classes += 0.5 * torch.randn(classes.shape, generator=torch.Generator().manual_seed(0))
    return model


def test_labels_are_those_of_the_votes(field, store):
    path, votes = store
    labels = finetune.read_labels(path)
    expected, disputed, unlabelled = by_hand(votes)
    (image,) = labels.images
    np.testing.assert_array_equal(image.labels, expected)
    np.testing.assert_allclose(image.positions, field.columns.positions)
    shares = [(votes == k).sum(axis=0) / np.maximum((votes >= 0).sum(axis=0), 1) for k in range(5)]
    np.testing.assert_allclose(image.shares.T, shares)
    assert labels.left_out() == {"disputed": disputed, "unlabelled": unlabelled}
    assert disputed > 0
    assert image.context == field.context
    facts = labels.facts()
    assert facts["images"][0]["columns"] == {name: int((expected == k).sum()) for k, name in enumerate(CLASSES)}
    assert facts == json.loads(json.dumps(facts))
    stricter = finetune.read_labels(path, "unanimity", 3)
    assert (stricter.images[0].labels >= 0).sum() == ((votes == votes[0]) & (votes >= 0)).all(axis=0).sum()
    assert finetune.read_labels(path).fingerprint == labels.fingerprint != stricter.fingerprint


def test_scores_are_those_counted_by_hand(field, store):
    path, votes = store
    expected, disputed, unlabelled = by_hand(votes)
    model = load_model()
    found = finetune.score_labels(model, finetune.read_labels(path))
    result = ctm.classify(field.micrograph, field.context, model=model)
    confusion, paired = np.zeros((5, 5), int), 0
    for position, label in zip(field.columns.positions, expected, strict=True):
        gap = np.hypot(*(result.positions - position).T)
        nearest = int(gap.argmin())
        if label >= 0 and gap[nearest] < 0.8 / field.micrograph.sampling and result.complete[nearest]:
            confusion[label, result.probabilities[nearest].argmax()] += 1
            paired += 1
    assert paired > 400
    np.testing.assert_array_equal(found.scores.confusion, confusion)
    assert found.scores.missed.sum() == found.scores.extra.sum() == 0
    right = np.diag(confusion)
    f1 = 2 * right / (confusion.sum(axis=0) + confusion.sum(axis=1))
    assert found.scores.macro_f1 == pytest.approx(f1.mean())
    assert 0.0 < found.scores.calibration_error < 0.1
    assert (found.disputed, found.unlabelled) == (disputed, unlabelled)
    assert f"left out: {disputed} disputed columns, {unlabelled} unlabelled ones" in found.table()


def test_a_labelled_column_that_is_not_found_is_missed_and_a_disputed_one_is_not(store):
    labels = finetune.read_labels(store[0])
    (image,) = labels.images
    hollow = np.argmin(np.hypot(*(image.positions - 120.0).T))
    nowhere = image.positions[hollow] + [0.0, 4.0]  # half way between columns
    for label, missed in ((2, 1), (finetune.NO_CLASS, 0)):
        moved = replace(image, positions=np.vstack([image.positions, nowhere]), labels=np.append(image.labels, label))
        scores = finetune.score_labels(load_model(), replace(labels, images=(moved,))).scores
        assert scores.missed.sum() == missed


def test_images_are_pooled(field, tmp_path):
    votes = made_store(tmp_path / "labels.db", field, simulated(5))
    labels, model = finetune.read_labels(tmp_path / "labels.db"), load_model()
    scores = finetune.score_labels(model, labels)
    assert list(scores.by_image) == ["field 0", "field 1"]
    assert scores.scores.support.sum() == sum(each.support.sum() for each in scores.by_image.values())
    assert scores.disputed == sum(by_hand(each)[1] for each in votes)
    assert "field 1: " in scores.table()


# What is held out


def labelled(count, rng, known=0.8):
    positions = rng.uniform(0.0, 60.0, (count, 2))
    columns = finetune.LabelledColumns(
        contrast=np.zeros((count, 1), np.float32),
        labels=np.zeros(count, np.int64),
        weight=(rng.random(count) < known).astype(np.float32),
        same=np.zeros((count, 0), np.int32),
        other=np.zeros((count, 0), np.int32),
        side=np.zeros(count, np.int8),
        image=np.zeros(count, np.int64),
        **{name: np.zeros((1, 1), np.float32) for name in ("intensities", "context", "composition")},
        case=np.array(["a"]),
        condition=np.array(["b"]),
        dose=np.array([1.0]),
    )
    return finetune.MeasuredLabels(columns, np.zeros((count, 5)), positions, 4.0)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=5), st.integers(0, 100))
def test_no_image_and_no_patch_is_on_both_sides(names, seed):
    rng = np.random.default_rng(seed)
    images = [labelled(30, rng) for _ in names]
    trained, tested = (part.reshape(len(names), 30) for part in finetune.halves(images, names))
    assert not (trained & tested).any()
    for name in set(names):
        same = [k for k, each in enumerate(names) if each == name]
        both = trained[same].any() and tested[same].any()
        assert not both or len(set(names)) == 1
    for each, left, right in zip(images, trained, tested, strict=True):
        assert not (left | right)[each.columns.weight == 0].any()
        if left.any() and right.any():
            gaps = np.hypot(*(each.positions[left][:, None] - each.positions[right][None]).transpose(2, 0, 1))
            assert gaps.min() > 2 * each.reach


def test_the_image_beyond_the_reach_tells_nothing_of_a_column(field, store):
    model = load_model()
    (image,) = finetune.read_labels(store[0]).images
    context = field.context
    lattice = context.lattice_constant
    reach = (model.config.patch_radius + SECOND_NEIGHBOURS) * lattice
    half = image.micrograph.data.copy()
    half[:, 120:] = half[:, 120:][:, ::-1]  # another right half
    seen = []
    for data in (image.micrograph.data, half):
        micrograph = replace(image.micrograph, data=data)
        columns = Columns(image.positions, field.columns.sublattice)
        seen.append(measure(micrograph, columns, lattice, model.config).contrast)
    places = image.positions * image.micrograph.sampling
    inner = ((places > reach) & (places < 60.0 - reach)).all(axis=1)  # with all nine neighbours
    left = inner & (places[:, 1] < 30.0 - reach - 0.5)
    assert left.sum() > 100
    before, after = map(alone, seen)
    np.testing.assert_allclose(before[left], after[left], atol=1e-4)
    assert np.abs(before - after)[inner & ~left].max() > 0.1


def alone(contrast):
    """Features of a column and the nine next to it, without offset and gain, which the surroundings set."""
    own, near = own_and_near(ModelConfig().basis)
    part = contrast[:, own.start : near.stop].astype(float)
    middle, radial = own.stop - 1, near.start
    levelled = [0, *range(radial + 6, radial + 9), radial, radial + 9, *range(radial + 15, radial + 21)]
    part[:, levelled] -= part[:, [middle]]
    part[:, middle] = 0.0
    return part / np.linalg.norm(part[:, 1:middle], axis=1, keepdims=True)


# Fine-tuning


def test_a_damaged_model_gets_better_on_what_is_held_out_and_forgets_nothing(store, damaged, tmp_path):
    labels = finetune.read_labels(store[0])
    weights = deepcopy(damaged.network.state_dict())
    tuned = finetune.fine_tune(damaged, labels, images=40, workers=1)
    before, after = tuned.held_out
    assert before.macro_f1 < 0.9
    assert after.macro_f1 > before.macro_f1 + 0.05
    assert after.support.sum() == before.support.sum() > 150
    assert tuned.simulated[1].accuracy > tuned.simulated[0].accuracy - 0.01
    for name, value in damaged.network.state_dict().items():  # it stays as it is
        assert torch.equal(value, weights[name])

    tuned.save(tmp_path / "tuned")
    again = load_model(tmp_path / "tuned")
    assert again.info == tuned.model.info
    assert {path.name for path in (tmp_path / "tuned").iterdir()} == {"model.json", "model.safetensors", "model.pt2"}
    facts = again.info["labels"]
    assert facts["store"] == labels.fingerprint
    assert (facts["rule"], facts["quorum"], facts["simulated_share"]) == ("majority", 2, 0.5)
    assert sum(facts["trained_on"].values()) == tuned.trained
    assert sum(facts["held_out"].values()) == after.support.sum()
    assert facts["scores"]["held_out"]["after"]["macro_f1"] == after.macro_f1
    assert again.info["name"].endswith("fine-tuned")
    assert again.info["version"] == ctm.__version__
    assert finetune.score_labels(again, labels).scores.macro_f1 > finetune.score_labels(damaged, labels).scores.macro_f1


def test_the_packaged_model_loses_nothing(store):
    tuned = finetune.fine_tune(load_model(), finetune.read_labels(store[0]), images=40, workers=1)
    assert tuned.simulated[1].accuracy > tuned.simulated[0].accuracy - 0.01
    assert tuned.held_out[1].accuracy > tuned.held_out[0].accuracy - 0.01


def test_the_classifier_of_the_paper_is_tuned_too(store):
    before = load_model("paper")
    tuned = finetune.fine_tune(before, finetune.read_labels(store[0]), images=10, epochs=1, workers=1)
    assert tuned.model.config == before.config
    assert tuned.held_out[1].accuracy > tuned.held_out[0].accuracy - 0.02
    assert tuned.model.unknown_below == -np.inf


@given(st.integers(10, 60), st.integers(0, 1000))
def test_every_other_simulated_image_is_of_a_labelled_specimen_in_each_part(images, seed):
    context = ctm.Context("MoS2", ("V", "Re"), 81e3, "ADF")
    image = finetune.LabelledMicrograph("a", "b", None, context, *[np.zeros(0)] * 4)
    model = Model(None, {"training": {"hosts": ["WS2"], "dopants": ["Cr"], "conditions": ["200 keV HAADF"]}})
    sources = finetune.simulated_sources(finetune.LabelSet("", "", 2, (image,)), model, images, seed)
    own = {("MoS2", dopant, 80e3, "MAADF") for dopant in ("V", "Re")}
    said = [(each.host, each.dopant, each.energy, each.detector) for each in sources]
    assert set(said[::2]) == own
    assert set(said[1::2]) == {("WS2", "Cr", 200e3, "HAADF")}
    split = finetune.split_by_seed(sources)
    for part in (split.training, split.validation, split.test):
        assert {each.host for each in part} == {"MoS2", "WS2"}


def test_without_simulated_images_images_are_held_out_whole(field, damaged, tmp_path):
    made_store(tmp_path / "labels.db", field, simulated(5))
    labels = finetune.read_labels(tmp_path / "labels.db")
    tuned = finetune.fine_tune(damaged, labels, simulated=0.0, epochs=30)
    assert tuned.simulated is None
    assert tuned.held_out[1].macro_f1 > tuned.held_out[0].macro_f1
    second = finetune.score_labels(load_model(), labels).by_image["field 1"].support.sum()
    assert tuned.held_out[0].support.sum() == pytest.approx(second, rel=0.05)
    for name in ("unknown_below", "usual_familiarity", "misfit_below"):
        assert tuned.model.info[name] == damaged.info[name]


def test_votes_that_are_split_are_learnt_as_split():
    """Of columns that look the same and have two thirds of their votes for one class, two thirds is what is told."""
    model = load_model()
    n = 400
    columns = labelled(n, np.random.default_rng(0), known=1.0).columns
    features = len(model.network.mean)
    columns = replace(
        columns,
        contrast=np.tile(model.network.mean.numpy(), (n, 1)).astype(np.float32),
        intensities=np.zeros((1, 10), np.float32),
    )
    assert columns.contrast.shape == (n, features)
    shares = np.tile([2 / 3, 1 / 3, 0.0, 0.0, 0.0], (n, 1))
    tuned, _ = finetune.train(
        columns, columns, columns, model.config, epochs=100, batch_size=n, unknown=False, start=model, shares=shares
    )
    tuned.network.temperature.copy_(model.network.temperature)
    tuned.info.clear()
    told = tuned.predict(columns.contrast[:1], columns.intensities[0]).probabilities[0]
    np.testing.assert_allclose(told, shares[0], atol=0.02)


# Refusals


def test_what_cannot_be_scored_or_trained_on_is_refused_in_one_sentence(field, store, tmp_path):
    path, _ = store
    with pytest.raises(ValueError, match=r"rule: expected one of majority, unanimity, dawid-skene, got 'loudest'"):
        finetune.read_labels(path, "loudest")
    with pytest.raises(FileNotFoundError, match="labels: expected a store of votes"):
        finetune.read_labels(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(ValueError, match="labels: expected at least one column whose class experts agree on"):
        finetune.read_labels(path, quorum=4)
    made_store(tmp_path / "bare.db", field, context=False)
    with pytest.raises(ValueError, match="labels: expected the context of each labelled image, got none of field 0"):
        finetune.read_labels(tmp_path / "bare.db")
    labels = finetune.read_labels(path)
    (image,) = labels.images
    few = replace(image, labels=np.where(np.arange(len(image.labels)) < 15, image.labels, -1))
    with pytest.raises(ValueError, match="labels: expected at least 20 labelled columns to train on"):
        finetune.fine_tune(load_model(), replace(labels, images=(few,)))
    with pytest.raises(ValueError, match="simulated: expected a share from 0 to below 1, got 1"):
        finetune.fine_tune(load_model(), labels, simulated=1.0)
    with pytest.raises(ValueError, match="images: expected at least 10 simulated images, got 9"):
        finetune.fine_tune(load_model(), labels, images=9)


def run(*arguments):
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def test_commands(store, tmp_path):
    path, votes = store
    _, disputed, unlabelled = by_hand(votes)
    code, told = run("evaluate", "--labels", path, "-o", tmp_path / "scores")
    assert code == 0, told
    assert f"left out: {disputed} disputed columns" in told
    written = json.loads((tmp_path / "scores" / "label_scores.json").read_text())
    assert written["scores"]["unlabelled"] == unlabelled
    assert written["labels"]["rule"] == "majority"

    code, told = run(
        "train", "--labels", path, "--simulated", 0, "--epochs", 1, "-o", tmp_path / "tuned", "--rule", "dawid-skene"
    )
    assert code == 0, told
    assert "held out, after" in told
    facts = load_model(tmp_path / "tuned").info["labels"]
    assert (facts["rule"], facts["epochs"]) == ("dawid-skene", 1)
    code, told = run("evaluate", tmp_path / "tuned", "--labels", path, "--quorum", 3)
    assert code == 0, told

    refused = [
        (("train", "--labels", path, "-o", tmp_path / "tuned"), "exists"),
        (("train", tmp_path, "--labels", path, "-o", tmp_path / "other"), "--labels: expected without DATA"),
        (("train", "--from", tmp_path / "tuned", "-o", tmp_path / "other"), "--from: expected together with --labels"),
        (("train", "--labels", path, "--quorum", 9, "-o", tmp_path / "other"), "expected at least one column"),
        (("evaluate", "--labels", path, "--data", tmp_path), "--labels: expected without --data"),
        (("evaluate", "--labels", tmp_path / "none.db"), "expected a store of votes, found no file"),
        (("evaluate", "--labels", path, "--rule", "loudest"), "--rule"),
    ]
    for arguments, words in refused:
        code, told = run(*arguments)
        assert code == 2, told
        assert words in told
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("step", ["train", "calibrate_model", "save"])
def test_an_interrupted_run_leaves_nothing(store, tmp_path, monkeypatch, step):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    if step == "save":
        monkeypatch.setattr(Model, "exported", interrupt)
    else:
        monkeypatch.setattr(finetune, step, interrupt)
    share = "0" if step == "save" else "0.5"
    monkeypatch.setattr(finetune, "simulated_sources", few_sources(finetune.simulated_sources))
    code, _ = run(
        "train", "--labels", store[0], "--simulated", share, "--epochs", 1, "--workers", 1, "-o", tmp_path / "new" / "m"
    )
    assert code != 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not (tmp_path / "new" / "m").exists()


def few_sources(sources):
    return lambda labels, model, images, seed: sources(labels, model, 10, seed)
