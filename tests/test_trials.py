"""Trials: folds do not overlap, nothing held out is trained on, an interrupted run goes on."""

import json
from itertools import pairwise

import numpy as np
import pytest

from contextem import trials
from contextem.attention import ModelConfig
from contextem.contrast import contrast_blocks
from contextem.train import LabelledColumns
from contextem.trials import HELD_OUT, Pool, folds, run_trial, run_trials, trial_lines

CONFIG = ModelConfig(n_max=2, size=8, width=8, heads=2, depth=1, tokens=2, hidden=16)
CASES = ("WSe2:Cr", "MoS2:Cr", "MoS2:V", "W(S0.40Se0.60)2:V", "Mo(S0.20Te0.80)2:Cr", "WTe2:None")


def made_pool():
    """Sixty images of ten columns whose features tell their classes; alloys are in no fold."""
    rng = np.random.default_rng(0)
    case = np.repeat(CASES, 10)
    fold = np.array([-1 if "(" in name else i % 10 for i, name in enumerate(case)])
    labels = np.tile(np.arange(10) % 5, 60)
    features = sum(contrast_blocks(CONFIG.basis).values())
    contrast = rng.normal(size=(600, features)).astype(np.float32)
    contrast[:, :5] += 6 * np.eye(5, dtype=np.float32)[labels]
    columns = LabelledColumns(
        contrast=contrast,
        labels=labels,
        weight=np.ones(600, np.float32),
        same=np.full((600, 2), -1, np.int32),
        other=np.full((600, 2), -1, np.int32),
        side=np.zeros(600, np.int8),
        image=np.repeat(np.arange(60), 10),
        intensities=np.zeros((60, 10), np.float32),
        context=np.zeros((60, 68), np.float32),
        composition=np.zeros((60, 30), np.float32),
        case=case,
        condition=np.full(60, "80 keV HAADF"),
        dose=np.where(np.arange(60) % 3 == 0, 500.0, 5000.0),
    )
    return Pool(columns, fold, np.arange(60) % 2 == 1)


def test_folds_of_a_trial_are_apart_and_of_both_ranges():
    for trial in range(5):
        test, validation = folds(trial)
        assert not set(test) & set(validation)
        assert {f % 2 for f in test} == {f % 2 for f in validation} == {0, 1}
    assert sorted(f for trial in range(5) for f in folds(trial)[0]) == list(range(10))


@pytest.mark.parametrize(
    ("held_out", "left"),
    [
        ("WSe2", {"WSe2:Cr", "W(S0.40Se0.60)2:V"}),
        ("host W", {"WSe2:Cr", "W(S0.40Se0.60)2:V", "WTe2:None"}),
        ("dopant Cr", {"WSe2:Cr", "MoS2:Cr", "Mo(S0.20Te0.80)2:Cr"}),
        ("all selenides", {"WSe2:Cr", "W(S0.40Se0.60)2:V"}),
    ],
)
def test_what_is_held_out_is_not_trained_on_and_alone_is_scored(held_out, left, monkeypatch):
    seen = {}

    def train(training, validation, test, *_, **__):
        seen.update(training=training, validation=validation, test=test)
        raise InterruptedError

    monkeypatch.setattr(trials, "train", train)
    with pytest.raises(InterruptedError):
        run_trial(made_pool(), 0, CONFIG, epochs=1, held_out=held_out)
    assert not left & {*seen["training"].case, *seen["validation"].case}
    assert set(seen["test"].case) == {name for name in left if "(" not in name}
    assert set(CASES) - left == set(seen["training"].case)


def test_trials_learn_are_recorded_and_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "HELD_OUT", {"dopant Cr": HELD_OUT["dopant Cr"]})
    record, calls = tmp_path / "trials.json", []

    def pool():
        calls.append(1)
        return made_pool()

    found = run_trials(pool, CONFIG, seeds=2, epochs=150, record=record)
    assert list(found["trials"]) == ["seed 0", "seed 1", "without context", "without dopant Cr"]
    assert found["trials"]["seed 0"]["all"]["accuracy"] > 0.9
    again = json.loads(record.read_text())
    del again["trials"]["seed 1"]
    record.write_text(json.dumps(again))
    more = run_trials(pool, CONFIG, seeds=2, epochs=150, record=record)
    assert more["trials"] == found["trials"]
    run_trials(pool, CONFIG, seeds=2, epochs=150, record=record)
    assert len(calls) == 2
    with pytest.raises(ValueError, match="expected trials of 3 epochs"):
        run_trials(pool, CONFIG, seeds=2, epochs=3, record=record)
    lines = trial_lines(found)
    assert all(a.count("|") == b.count("|") for a, b in pairwise(lines))
    assert any(line.startswith("| 2 seeds, all |") and "±" in line for line in lines)
    assert any("trained without dopant Cr, >= 3000 e/px" in line for line in lines)
