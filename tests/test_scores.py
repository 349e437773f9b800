"""Scores, against counting by hand and scikit-style definitions written out."""

import json
from dataclasses import replace

import numpy as np
import pytest
from classified import classification
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from contextem.columns import CLASSES
from contextem.scores import (
    Predictions,
    Scores,
    match_columns,
    reliability,
    score,
    score_columns,
    score_predictions,
    subsets,
)


def posterior(predicted):
    return np.eye(5, dtype=np.float32)[np.asarray(predicted)]


def test_scores_of_a_case_counted_by_hand():
    truth = np.array([0, 0, 0, 0, 2, 2, 3, 3])
    scores = score(posterior([0, 0, 0, 2, 2, 2, 3, 2]), truth)
    assert scores.accuracy == 6 / 8
    assert scores.recall[[0, 2, 3]].tolist() == [3 / 4, 1.0, 1 / 2]
    assert scores.precision[[0, 2, 3]].tolist() == [1.0, 2 / 4, 1.0]
    assert scores.f1[[0, 2, 3]] == pytest.approx([6 / 7, 4 / 6, 2 / 3])
    assert scores.balanced_accuracy == pytest.approx((0.75 + 1 + 0.5) / 3)
    assert scores.macro_f1 == pytest.approx((6 / 7 + 2 / 3 + 2 / 3) / 3)
    assert np.isnan(scores.recall[[1, 4]]).all()
    assert scores.entropy == pytest.approx(0.0, abs=1e-6)
    assert "75.00" in scores.table()
    json.dumps(scores.to_dict(), allow_nan=False)


def test_entropy_of_ignorance_is_log2_of_five():
    assert score(np.full((3, 5), 0.2, np.float32), np.array([0, 1, 2])).entropy == pytest.approx(np.log2(5))


def test_calibration_error_counted_by_hand():
    sure = np.array([[0.9, 0.1, 0, 0, 0]] * 4 + [[0.5, 0.3, 0.2, 0, 0]] * 2)
    truth = np.array([0, 0, 0, 1, 1, 2])
    found = reliability(sure, truth, bins=10)
    assert found.columns.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 4]
    assert found.accuracy[[5, 9]].tolist() == [0.0, 0.75]
    assert found.error == pytest.approx((2 * 0.5 + 4 * 0.15) / 6)
    assert score(sure, truth).to_dict()["expected_calibration_error"] == pytest.approx(
        score(sure, truth).calibration_error
    )
    assert np.isnan(reliability(sure[:0], truth[:0]).error)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_calibration_error_lies_between_that_of_one_bin_and_one(seed, bins):
    """One bin compares mean with mean; more bins can only find more."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(5, 0.4), 50)
    labels = rng.integers(0, 5, 50)
    whole = abs(p.max(axis=1).mean() - (p.argmax(axis=1) == labels).mean())
    assert whole - 1e-12 <= reliability(p, labels, bins).error <= 1.0


def predictions(seed=0, images=24, wrong=0.1):
    """Posteriors that are wrong as often as told, of images of two cases, two conditions and many doses."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, 40 * images)
    p = np.where(rng.random(len(labels)) < wrong, rng.integers(0, 5, len(labels)), labels)
    return Predictions(
        0.9 * np.eye(5)[p] + 0.02,
        labels,
        np.repeat(np.arange(images), 40),
        np.array(["WS2:Cr", "MoTe2:Cr"])[np.arange(images) % 2],
        np.array(["80 keV HAADF", "60 keV MAADF"])[np.arange(images) // 2 % 2],
        np.geomspace(500.0, 18000.0, images),
    )


def test_subsets_part_the_columns_by_dose_condition_and_case():
    seen = predictions()
    scores = score_predictions({"one": seen, "two": predictions(1)}, by_case=True)
    assert list(scores["one"]) == list(scores["two"]) == list(subsets(seen, by_case=True))
    total = scores["one"]["all"].support.sum()
    for part in (("e/px",), ("keV",), (":",)):
        assert sum(s.support.sum() for name, s in scores["one"].items() if part[0] in name) == total
    assert "WS2:Cr" not in score_predictions({"one": seen})["one"]
    by_image = seen.accuracy_by_image()
    assert by_image.mean() == pytest.approx(scores["one"]["all"].accuracy)
    assert by_image[3] == score(seen.probabilities[120:160], seen.labels[120:160]).accuracy


def test_missed_and_extra_columns_count_against():
    confusion = np.diag([8, 0, 9, 0, 0])
    scores = Scores(confusion, 0.0, missed=np.array([2, 0, 0, 0, 0]), extra=np.array([0, 0, 1, 0, 0]))
    assert scores.recall[0] == 0.8
    assert scores.precision[2] == 0.9
    assert scores.accuracy == 17 / 19
    assert "2 columns not found, 1 found where there is none" in scores.table()


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_matching_is_the_best_assignment_when_columns_are_apart(seed, n):
    rng = np.random.default_rng(seed)
    grid = 4.0 * np.array([[i % 6, i // 6] for i in range(n)])
    labelled = rng.permutation(grid)
    found = rng.permutation(grid + rng.uniform(-0.9, 0.9, grid.shape))[: rng.integers(1, n + 1)]
    pairs = match_columns(found, labelled, 1.5)
    cost = cdist(found, labelled)
    rows, cols = linear_sum_assignment(cost)
    kept = cost[rows, cols] <= 1.5
    assert sorted(zip(*pairs, strict=True)) == sorted(zip(rows[kept], cols[kept], strict=True))


def test_nothing_matches_nothing():
    assert [len(part) for part in match_columns(np.zeros((0, 2)), np.ones((3, 2)), 1.0)] == [0, 0]


def test_score_columns_counts_partners_misses_and_extras_inside_the_frame():
    rows, cols = np.mgrid[0:10, 0:10] * 10.0
    truth = np.column_stack([rows.ravel(), cols.ravel()])
    labels = np.where((truth[:, 0] // 10) % 2 == 0, 0, 2)
    kept = np.ones(100, bool)
    kept[44] = False  # not found: row 40, a metal
    positions = np.vstack([truth[kept] + 0.3, [[45.0, 45.0]]])  # and one found where there is none
    predicted = np.append(labels[kept], 3)
    predicted[10] = 3  # truth[10], row 10: X2 taken for a vacancy, but at the border
    predicted[11] = 3  # truth[11]: X2 taken for a vacancy
    complete = ((positions > 5) & (positions < 85)).all(axis=1)
    result = classification(positions, posterior(predicted), complete=complete)
    scores = score_columns(result, truth, labels, tolerance=0.5)
    assert scores.support.sum() == 64
    assert scores.missed.tolist() == [1, 0, 0, 0, 0]
    assert scores.extra.tolist() == [0, 0, 0, 1, 0]
    assert scores.confusion[CLASSES.index("X2"), CLASSES.index("single_vacancy")] == 1
    assert np.trace(scores.confusion) == 62
    # what is unknown keeps its class and is scored by it
    unknown = replace(result, unknown=np.arange(100) % 3 == 0)
    np.testing.assert_array_equal(score_columns(unknown, truth, labels, tolerance=0.5).confusion, scores.confusion)
    lenient = score_columns(result, truth, labels, tolerance=0.5, count_extra=False)
    assert lenient.extra.sum() == 0
