"""Labels from votes and agreement with its intervals: 20,000 columns, 5 experts, beside crowd-kit and others.

Experts who are right as often as told, each with a tenth of the columns left out. Rates are columns per second. The
competitors see the same votes in the same process, and their results are compared with ours: krippendorff and
statsmodels come with the extra `test`; crowd-kit, which needs transformers, is left out where it is not installed.
"""

from __future__ import annotations

import time
import warnings
from importlib.util import find_spec

import krippendorff
import numpy as np
import pytest
from statsmodels.stats import inter_rater

from contextem.labels.consensus import (
    VoteTable,
    bootstrap,
    dawid_skene,
    expert_confusion,
    fleiss_kappa,
    krippendorff_alpha,
    majority,
    soft_labels,
    unanimity,
)

COUNT, RIGHT = 20_000, (0.95, 0.9, 0.85, 0.8, 0.6)
SHARES = (0.42, 0.08, 0.35, 0.1, 0.05)


def said(missing):
    """True classes (N,) and what the experts say (N, E), -1 for nothing."""
    rng = np.random.default_rng(0)
    truth = rng.choice(5, COUNT, p=SHARES)
    wrong = (truth[:, None] + rng.integers(1, 5, (COUNT, len(RIGHT)))) % 5
    table = np.where(rng.random(wrong.shape) < RIGHT, truth[:, None], wrong)
    return truth, np.where(rng.random(wrong.shape) < missing, -1, table)


def votes_of(table):
    row, expert = np.nonzero(table >= 0)
    return VoteTable(row, expert, table[row, expert])


def timed(function, repeats=5):
    """Return the result and the seconds it takes, best of several."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def told(name, seconds, rival=""):
    print(f"{name:34s} {seconds * 1e3:9.1f} ms  {COUNT / seconds / 1e3:9.0f} k columns/s  {rival}")


TRUTH, TABLE = said(0.1)
COLUMNS = np.arange(COUNT)


def test_rules():
    print()
    votes, seconds = timed(lambda: votes_of(TABLE))
    told("VoteTable", seconds)
    for rule in (soft_labels, majority, unanimity):
        found, seconds = timed(lambda rule=rule: rule(votes, COLUMNS))
        told(rule.__name__, seconds)
        assert seconds < 1.0
    found = majority(votes, COLUMNS)
    agreed = found.label >= 0
    assert agreed.mean() > 0.8 and np.mean(found.label[agreed] == TRUTH[agreed]) > 0.98
    found, seconds = timed(lambda: dawid_skene(votes, COLUMNS))
    assert found.converged and seconds < 1.0
    np.testing.assert_allclose(found.quality, RIGHT, atol=0.015)
    np.testing.assert_allclose(found.priors, SHARES, atol=0.015)
    assert np.mean(found.posterior.argmax(axis=1) == TRUTH) > 0.97
    told("dawid_skene", seconds, f"{len(found.objective)} turns")


def test_dawid_skene_beside_crowd_kit():
    if find_spec("crowdkit") is None:
        pytest.skip("crowd-kit is not installed")
    votes, turns = votes_of(TABLE), 40
    found, seconds = timed(lambda: dawid_skene(votes, COLUMNS, smoothing=0.0, iterations=turns, tolerance=0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandas as pd
        from crowdkit.aggregation import DawidSkene

        frame = pd.DataFrame({"task": votes.column, "worker": votes.expert, "label": votes.label.astype(int)})
        rival, theirs = timed(lambda: DawidSkene(n_iter=turns, tol=-np.inf).fit(frame), 1)
    posterior = rival.probas_.reindex(columns=range(5))
    np.testing.assert_allclose(found.posterior[posterior.index], posterior, atol=1e-6)
    print()
    told(f"dawid_skene, {len(found.objective)} turns", seconds, f"{theirs / seconds:.0f} x crowd-kit ({theirs:.1f} s)")
    assert theirs > 10 * seconds


def test_agreement_and_its_intervals():
    votes = votes_of(TABLE)
    data = np.where(TABLE < 0, np.nan, TABLE).T
    alpha, seconds = timed(lambda: krippendorff_alpha(votes))
    rival, theirs = timed(lambda: krippendorff.alpha(reliability_data=data, level_of_measurement="nominal"))
    assert alpha == pytest.approx(rival, abs=1e-9)
    print()
    told("krippendorff_alpha", seconds, f"{theirs / seconds:.1f} x krippendorff ({theirs * 1e3:.1f} ms)")

    whole = said(0.0)[1]
    all_votes = votes_of(whole)
    kappa, seconds = timed(lambda: fleiss_kappa(all_votes))
    rival, theirs_kappa = timed(lambda: inter_rater.fleiss_kappa(inter_rater.aggregate_raters(whole)[0]))
    assert kappa == pytest.approx(rival, abs=1e-9)
    told("fleiss_kappa", seconds, f"{theirs_kappa / seconds:.1f} x statsmodels ({theirs_kappa * 1e3:.1f} ms)")

    for statistic in (krippendorff_alpha, fleiss_kappa, expert_confusion):
        found, seconds = timed(lambda statistic=statistic: bootstrap(votes, statistic), 2)
        drawn = f"{1000 * theirs / seconds:.0f} x krippendorff, 1000 times" if statistic is krippendorff_alpha else ""
        told(f"bootstrap of {statistic.__name__}", seconds, drawn)
        np.testing.assert_allclose(found.value, statistic(votes), atol=1e-9)
        assert seconds < 3.0
        if statistic is krippendorff_alpha:
            low, high = found.interval_95
            assert low < alpha < high < low + 0.02
