"""Consensus of experts: rules and agreement against plain loops, other packages, and experts whose errors are known."""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter
from dataclasses import FrozenInstanceError

import krippendorff
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from statsmodels.stats import inter_rater

from contextem.columns import CLASSES
from contextem.labels import consensus
from contextem.labels.consensus import (
    UNSURE,
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

NONE = -1
LABELS = range(len(CLASSES))
RULES = [majority, unanimity, dawid_skene]


def votes_of(table):
    """Votes of a table (N, E) with -1 for none; column 10 i and expert 3 e + 2."""
    table = np.asarray(table)
    row, expert = np.nonzero(table != NONE)
    return VoteTable(10 * row, 3 * expert + 2, table[row, expert])


def columns_of(table):
    return 10 * np.arange(len(table))


def consensus_of(table, rule=majority, **arguments):
    return rule(votes_of(table), columns_of(table), **arguments)


def tables(least=0, labels=(NONE, *LABELS, UNSURE)):
    """Tables of up to 8 columns and 5 experts, mostly few classes, so that experts agree now and then."""

    def filled(shape, among):
        row = st.lists(st.sampled_from(among), min_size=shape[1], max_size=shape[1])
        return st.lists(row, min_size=shape[0], max_size=shape[0]).map(lambda t: np.array(t).reshape(shape))

    shapes = st.tuples(st.integers(least, 8), st.integers(1, 5))
    return st.tuples(shapes, st.sampled_from([labels, labels[:4]])).flatmap(lambda drawn: filled(*drawn))


def experts_with(confusion, truth, seed, missing=0.0):
    """Votes (N, E) of experts who err by their confusion matrices (E, 5, 5), some left out."""
    rng = np.random.default_rng(seed)
    draws = rng.random((len(truth), len(confusion), 1))
    said = (draws > np.cumsum(confusion, axis=2)[:, truth].transpose(1, 0, 2)[..., :-1]).sum(axis=2)
    return np.where(rng.random(said.shape) < missing, NONE, said)


def confusions(right, seed):
    """Confusion matrices (E, 5, 5) of experts who are right as often as told, and err unevenly."""
    rng = np.random.default_rng(seed)
    off = rng.dirichlet(np.ones(4), (len(right), 5))
    found = np.zeros((len(right), 5, 5))
    for (e, k), share in zip(np.ndindex(len(right), 5), np.repeat(right, 5), strict=True):
        found[e, k] = np.insert((1 - share) * off[e, k], k, share)
    return found


# rules


@given(tables(), st.integers(1, 3), st.sampled_from([0.51, 0.6, 2 / 3, 0.75, 1.0]))
def test_majority_is_that_of_a_count_by_hand(table, quorum, share):
    found = consensus_of(table, quorum=quorum, share=share)
    assert found.column.tolist() == [10 * row for row in range(len(table))]
    for row, said in enumerate(table.tolist()):
        counts = Counter(label for label in said if label in LABELS)
        n = sum(counts.values())
        assert found.votes[row] == n
        assert found.shares[row].tolist() == [counts[label] / n if n else 0.0 for label in LABELS]
        (best, most) = counts.most_common(1)[0] if counts else (NONE, 0)
        agreed = n >= quorum and most >= share * n - 1e-12
        assert found.label[row] == (best if agreed else -1)
        assert found.status[row] == ("agreed" if agreed else "disputed" if n else "unlabelled")


@given(tables(), st.integers(1, 3))
def test_unanimity_takes_no_other_vote(table, quorum):
    found = consensus_of(table, unanimity, quorum=quorum)
    for label, said in zip(found.label.tolist(), table.tolist(), strict=True):
        classes = [each for each in said if each in LABELS]
        assert label == (classes[0] if len(classes) >= quorum and len(set(classes)) == 1 else -1)


def test_two_thirds_of_three_and_of_six_are_two_thirds():
    assert consensus_of([[1, 1, 0, -1, -1, -1], [1, 1, 1, 1, 0, 2]]).label.tolist() == [1, 1]


def test_a_lone_vote_is_disputed_and_no_label():
    found = consensus_of([[3], [UNSURE], [NONE]])
    assert found.status.tolist() == ["disputed", "unlabelled", "unlabelled"]
    assert found.label.tolist() == [-1, -1, -1]
    assert consensus_of([[3]], quorum=1).label.tolist() == [3]


@pytest.mark.parametrize("rule", RULES)
def test_two_votes_are_enough_and_one_is_not_unless_told_otherwise(rule):
    """Of experts who never err, so that no rule doubts what the one of them says."""
    table = np.repeat(np.tile(LABELS, 40)[:, None], 4, axis=1)
    table[0, 1:] = table[1, 2:] = table[2, 3:] = NONE
    by_default = consensus_of(table, rule)
    assert by_default.label[:4].tolist() == [-1, 1, 2, 3]
    assert by_default.votes[:4].tolist() == [1, 2, 3, 4]
    assert consensus_of(table, rule, quorum=1).label[:4].tolist() == [0, 1, 2, 3]
    assert consensus_of(table, rule, quorum=3).label[:4].tolist() == [-1, -1, 2, 3]


def plain_dawid_skene(table, a, turns):
    """The formulas of the module, with products of probabilities and loops."""
    said = [{e: v for e, v in enumerate(row) if v in LABELS} for row in table.tolist()]
    said = [row for row in said if row]
    posterior = [[sum(v == k for v in row.values()) / len(row) for k in LABELS] for row in said]
    objective = []
    for _ in range(turns):
        priors = [(sum(t[k] for t in posterior) + a) / (len(said) + 5 * a) for k in LABELS]
        confusion = {}
        for e, k in itertools.product(range(table.shape[1]), LABELS):
            mass = [sum(t[k] for t, row in zip(posterior, said, strict=True) if row.get(e) == v) + a for v in LABELS]
            confusion[e, k] = [m / sum(mass) if sum(mass) else 0.2 for m in mass]
        joint = [[priors[k] * math.prod(confusion[e, k][v] for e, v in row.items()) for k in LABELS] for row in said]
        posterior = [[p / sum(row) for p in row] for row in joint]
        likelihood = sum(math.log(sum(row)) for row in joint)
        smooth = [math.log(p) for row in (priors, *confusion.values()) for p in row] if a else [0.0]
        objective.append(likelihood + a * sum(smooth))
    return np.array(posterior).reshape(-1, 5), np.array(priors), confusion, np.array(objective)


@given(tables(1), st.sampled_from([0.0, 0.1, 1.0]), st.integers(1, 6))
@example(np.array([[0, 0, 1], [0, 1, 2], [UNSURE, UNSURE, NONE], [1, 1, 1]]), 0.1, 3)  # a column of unsure votes only
@settings(max_examples=60)
def test_dawid_skene_follows_its_formulas(table, a, turns):
    voted, experts = np.isin(table, LABELS).any(axis=1), np.flatnonzero((table != NONE).any(axis=0))
    assume(voted.any())
    found = consensus_of(table, dawid_skene, smoothing=a, iterations=turns, tolerance=0.0)
    done = len(found.objective)  # fewer where nothing moves at all
    posterior, priors, confusion, objective = plain_dawid_skene(table[:, experts], a, done)
    np.testing.assert_allclose(found.posterior[voted], posterior, atol=1e-9)
    np.testing.assert_allclose(found.posterior[~voted], np.tile(priors, (sum(~voted), 1)), atol=1e-9)
    np.testing.assert_allclose(found.priors, priors, atol=1e-9)
    np.testing.assert_allclose(found.objective, objective, atol=1e-7)
    assert found.experts.tolist() == (3 * experts + 2).tolist()
    expected = np.array([[confusion[e, k] for k in LABELS] for e in range(len(experts))])
    np.testing.assert_allclose(found.confusion, expected, atol=1e-9)
    np.testing.assert_allclose(found.quality, [np.diag(c) @ priors for c in expected], atol=1e-9)


@given(tables(1), st.sampled_from([0.0, 0.1, 2.0]))
def test_no_turn_lowers_the_objective(table, a):
    found = consensus_of(table, dawid_skene, smoothing=a, iterations=50)
    assert (np.diff(found.objective) >= -1e-9 * (1 + abs(found.objective[:-1]))).all()


def test_dawid_skene_turns_until_nothing_moves_or_as_often_as_it_may():
    table = np.array([[0, 0, 1], [1, 1, 1], [0, 2, 0], [3, 3, 3]])
    for turns in (1, 4):
        found = consensus_of(table, dawid_skene, iterations=turns, tolerance=0.0)
        assert len(found.objective) == turns and not found.converged
    # one mind and no smoothing: the shares of the votes are the posteriors already
    found = consensus_of([[0, 0], [1, 1]], dawid_skene, smoothing=0.0, tolerance=0.0)
    assert len(found.objective) == 1 and found.converged


TRUTH = np.random.default_rng(5).choice(5, 6000, p=[0.42, 0.08, 0.35, 0.1, 0.05])


def test_dawid_skene_recovers_experts():
    """Within what 5 standard errors of a binomial share allow for each cell, were the truth known."""
    confusion = confusions([0.95, 0.9, 0.85, 0.8, 0.6], 1)
    found = consensus_of(experts_with(confusion, TRUTH, 2, missing=0.1), dawid_skene)
    assert found.converged
    share = np.bincount(TRUTH) / len(TRUTH)
    np.testing.assert_allclose(found.priors, share, atol=0.015)
    spread = np.sqrt((confusion * (1 - confusion) + 1e-3) / (0.9 * len(TRUTH) * share)[:, None])
    assert (abs(found.confusion - confusion) < 5 * spread).all()
    np.testing.assert_allclose(found.quality, np.einsum("k,ekk->e", share, confusion), atol=0.02)
    assert (np.diff(found.quality) < 0).all()
    named = found.label >= 0
    assert named.mean() > 0.9
    claimed = found.posterior.max(axis=1)[named].mean()
    assert np.mean(found.label[named] == TRUTH[named]) == pytest.approx(claimed, abs=0.01)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("right", [[0.9] * 5, [0.95, 0.6, 0.6], [0.97, 0.8, 0.5, 0.5, 0.5]], ids=str)
def test_dawid_skene_is_at_least_as_good_as_majority(right, seed):
    table = experts_with(confusions(right, seed), TRUTH, 100 + seed, missing=0.05)
    voted = (table != NONE).any(axis=1)
    found = consensus_of(table, dawid_skene)
    by_model = np.mean(found.posterior.argmax(axis=1)[voted] == TRUTH[voted])
    shares = soft_labels(votes_of(table), columns_of(table))[voted]
    tied = shares == shares.max(axis=1, keepdims=True)  # ties by lot, on average
    by_votes = np.mean(tied[np.arange(len(tied)), TRUTH[voted]] / tied.sum(axis=1))
    assert by_model >= by_votes - 0.002
    if len(set(right)) > 1:
        assert by_model > by_votes + 0.02


def test_an_expert_who_always_says_the_same_is_found_out():
    table = experts_with(confusions([0.9, 0.9, 0.9], 3), TRUTH, 4)
    table = np.column_stack([table, np.zeros(len(table), int), np.zeros(len(table), int)])
    found = consensus_of(table, dawid_skene)
    assert (found.confusion[3:, :, 0] > 0.99).all()
    assert np.mean(found.posterior.argmax(axis=1) == TRUTH) > 0.93


# what changes nothing, and what changes accordingly


@given(tables(), st.randoms(use_true_random=False), st.sampled_from(RULES))
def test_the_order_of_votes_does_not_matter(table, random, rule):
    votes, columns = votes_of(table), columns_of(table)
    order = np.array(random.sample(range(len(votes)), len(votes)), dtype=int)
    other = VoteTable(votes.column[order], votes.expert[order], votes.label[order])
    one, two = rule(votes, columns), rule(other, columns)
    for name in vars(one):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    for statistic in (krippendorff_alpha, fleiss_kappa, expert_confusion):
        np.testing.assert_array_equal(statistic(votes), statistic(other))


@given(tables(1), st.randoms(use_true_random=False), st.sampled_from(RULES))
def test_columns_may_come_in_any_order(table, random, rule):
    order = np.array(random.sample(range(len(table)), len(table)))
    one, two = consensus_of(table, rule), rule(votes_of(table), columns_of(table)[order])
    for name in ("column", "label", "shares", "votes", "status"):
        np.testing.assert_array_equal(getattr(one, name)[order], getattr(two, name))


@given(tables(1), st.randoms(use_true_random=False))
def test_experts_by_other_numbers_say_the_same(table, random):
    order = np.array(random.sample(range(table.shape[1]), table.shape[1]))
    one, two = votes_of(table), votes_of(table[:, order])
    np.testing.assert_array_equal(majority(one, columns_of(table)).label, majority(two, columns_of(table)).label)
    by_one, by_two = (dawid_skene(v, columns_of(table), iterations=20, tolerance=0.0) for v in (one, two))
    np.testing.assert_allclose(by_one.posterior, by_two.posterior, atol=1e-9)
    place = np.searchsorted(one.experts, 3 * order[(two.experts - 2) // 3] + 2)
    np.testing.assert_allclose(by_one.confusion[place], by_two.confusion, atol=1e-9)
    np.testing.assert_allclose(by_one.quality[place], by_two.quality, atol=1e-9)
    np.testing.assert_allclose(krippendorff_alpha(one), krippendorff_alpha(two))
    np.testing.assert_array_equal(expert_confusion(one)[np.ix_(place, place)], expert_confusion(two))


@given(tables(1), st.permutations(LABELS))
def test_classes_by_other_names_permute_the_result(table, names):
    renamed = np.array([*names, UNSURE, NONE])[table]
    one, two = consensus_of(table), consensus_of(renamed)
    np.testing.assert_array_equal(two.shares[:, names], one.shares)
    np.testing.assert_array_equal(two.label, np.array([*names, -1])[one.label])
    by_one, by_two = (consensus_of(t, dawid_skene, iterations=20, tolerance=0.0) for t in (table, renamed))
    np.testing.assert_allclose(by_two.posterior[:, names], by_one.posterior, atol=1e-9)
    np.testing.assert_allclose(by_two.confusion[:, names][:, :, names], by_one.confusion, atol=1e-9)
    for statistic in (krippendorff_alpha, fleiss_kappa):
        np.testing.assert_allclose(statistic(votes_of(renamed)), statistic(votes_of(table)))


@given(tables(1), st.integers(0, 7), st.sampled_from(LABELS))
def test_an_agreeing_vote_never_lowers_its_share(table, row, label):
    more = np.column_stack([table, np.full(len(table), NONE)])
    more[row % len(table), -1] = label
    one, two = consensus_of(table), consensus_of(more)
    row %= len(table)
    assert two.shares[row, label] >= one.shares[row, label]
    assert one.label[row] != label or two.label[row] == label
    np.testing.assert_array_equal(np.delete(one.label, row), np.delete(two.label, row))


@given(tables(1), st.integers(0, 2**40 - 1))
def test_unsure_votes_change_no_label_and_no_agreement(table, which):
    unsure = (which >> np.arange(table.size)).reshape(table.shape) & 1 == 1
    more, less = (np.where((table == NONE) & unsure, UNSURE, table), np.where(table == UNSURE, NONE, table))
    for rule in RULES:
        one, two = consensus_of(more, rule), consensus_of(less, rule)
        for name in ("label", "shares", "votes", "status"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    for statistic in (krippendorff_alpha, fleiss_kappa):
        np.testing.assert_array_equal(statistic(votes_of(more)), statistic(votes_of(less)))


# agreement


def plain_alpha(table):
    """By pairs of values, as Krippendorff defines coincidences."""
    seen, total = 0.0, Counter()
    for row in table.tolist():
        values = [v for v in row if v in LABELS]
        if len(values) >= 2:
            total.update(values)
            seen += sum(a != b for a, b in itertools.permutations(values, 2)) / (len(values) - 1)
    n = sum(total.values())
    chance = sum(total[a] * total[b] for a, b in itertools.permutations(LABELS, 2))
    return 1 - (n - 1) * seen / chance if chance else math.nan


def plain_kappa(table):
    """Fleiss and Cuzick's for each class against the others, averaged with the weights p q."""
    rows = [[v for v in row if v in LABELS] for row in table.tolist()]
    rows = [row for row in rows if len(row) >= 2]
    n = sum(map(len, rows))
    above = below = 0.0
    for label in LABELS:
        p = sum(row.count(label) for row in rows) / n if n else 0.0
        within = sum(row.count(label) * (1 - row.count(label) / len(row)) for row in rows)
        if 0.0 < p < 1.0:
            above += p * (1 - p) - within / (n - len(rows))
            below += p * (1 - p)
    return above / below if below else math.nan


@given(tables())
def test_agreement_is_that_of_plain_sums(table):
    assert krippendorff_alpha(votes_of(table)) == pytest.approx(plain_alpha(table), abs=1e-9, nan_ok=True)
    assert fleiss_kappa(votes_of(table)) == pytest.approx(plain_kappa(table), abs=1e-9, nan_ok=True)


@given(tables(1))
def test_experts_are_compared_column_by_column(table):
    found = expert_confusion(votes_of(table))
    experts = np.flatnonzero((table != NONE).any(axis=0))
    expected = np.zeros(found.shape)
    for row, (a, one), (b, two) in itertools.product(table, enumerate(experts), enumerate(experts)):
        if row[one] in LABELS and row[two] in LABELS:
            expected[a, b, row[one], row[two]] += 1
    np.testing.assert_array_equal(found, expected)


def uneven(seed):
    return experts_with(confusions([0.9, 0.8, 0.7, 0.6], seed), TRUTH[:300], seed, missing=0.2)


@pytest.mark.parametrize("seed", range(3))
def test_alpha_is_that_of_krippendorff(seed):
    table = uneven(seed)
    data = np.where(table == NONE, np.nan, table).T
    expected = krippendorff.alpha(reliability_data=data, level_of_measurement="nominal")
    assert krippendorff_alpha(votes_of(table)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_kappa_is_that_of_statsmodels_where_all_vote(seed):
    table = experts_with(confusions([0.9, 0.8, 0.7, 0.6], seed), TRUTH[:300], seed)
    counts, _ = inter_rater.aggregate_raters(table)
    assert fleiss_kappa(votes_of(table)) == pytest.approx(inter_rater.fleiss_kappa(counts), abs=1e-9)


def test_alpha_of_the_worked_example():
    """Krippendorff's: 12 units, 4 observers, alpha 0.743."""
    said = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
        [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
    ]
    table = np.array(said).T
    assert krippendorff_alpha(votes_of(np.where(table == NONE, NONE, table - 1))) == pytest.approx(0.743, abs=5e-4)


def test_kappa_of_fleiss_example():
    """14 raters, 10 subjects, 5 classes: kappa 0.210."""
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    table = np.array([np.repeat(LABELS, row) for row in counts])
    assert fleiss_kappa(votes_of(table)) == pytest.approx(0.210, abs=5e-4)


# bootstrap

STATISTICS = [krippendorff_alpha, fleiss_kappa, expert_confusion]


@given(tables(1), st.lists(st.integers(0, 3), min_size=16, max_size=16), st.sampled_from(STATISTICS))
def test_a_weight_is_how_often_a_column_is_there(table, weights, statistic):
    table = table[(table != NONE).any(axis=1)]
    assume(len(table))
    weights = np.add(np.reshape(weights[: 2 * len(table)], (2, -1)), [[1], [0]])  # all columns once, some left out
    found = statistic(votes_of(table), weights)
    repeated = [statistic(votes_of(np.repeat(table, row, axis=0))) for row in weights]
    np.testing.assert_allclose(found[0], repeated[0], atol=1e-9)
    if np.shape(repeated[1]) == np.shape(found[1]):  # else an expert is left out altogether
        np.testing.assert_allclose(found[1], repeated[1], atol=1e-9)


@given(tables(1), st.floats(1e-3, 1e3))
def test_kappa_knows_columns_by_their_shares(table, scale):
    """Sums over columns are divided by each other, so that a unit of the weights cancels."""
    votes = votes_of(table)
    ones = np.ones(len(votes.columns))
    np.testing.assert_allclose(fleiss_kappa(votes, scale * ones), fleiss_kappa(votes, ones), atol=1e-9)


@pytest.mark.parametrize("statistic", [krippendorff_alpha, fleiss_kappa])
def test_intervals_are_those_of_columns_drawn_one_by_one(statistic):
    table = uneven(3)
    table = table[(table != NONE).any(axis=1)]
    found = bootstrap(votes_of(table), statistic, repeats=4000)
    assert found.value == pytest.approx(statistic(votes_of(table)), abs=1e-12)
    rng = np.random.default_rng(9)
    drawn = [statistic(votes_of(table[rng.integers(0, len(table), len(table))])) for _ in range(4000)]
    np.testing.assert_allclose(found.interval_95, np.quantile(drawn, (0.025, 0.975)), atol=0.1 * np.ptp(drawn) / 6)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Alpha of endless columns from the same experts, in 95 % of 200 samples of 200."""
    confusion = confusions([0.9, 0.8, 0.7], 1)
    truth = np.random.default_rng(0).choice(5, 200_000, p=[0.42, 0.08, 0.35, 0.1, 0.05])
    table = experts_with(confusion, truth, 1)
    true = krippendorff_alpha(votes_of(table))
    held = 0
    for part in np.split(table[:40_000], 200):
        low, high = bootstrap(votes_of(part), krippendorff_alpha, repeats=500).interval_95
        held += low <= true <= high
    assert 0.89 <= held / 200 <= 0.99


def test_bootstrap_of_confusion_has_an_interval_for_each_cell():
    table = uneven(4)
    found = bootstrap(votes_of(table), expert_confusion, repeats=200)
    np.testing.assert_array_equal(found.value, expert_confusion(votes_of(table)))
    low, high = found.interval_95
    assert low.shape == high.shape == (4, 4, 5, 5)
    often = found.value > 20
    assert often.any() and (low[often] < found.value[often]).all() and (found.value[often] < high[often]).all()


def test_bootstrap_depends_on_the_seed_only():
    votes = votes_of(uneven(5))
    one, two, other = (bootstrap(votes, krippendorff_alpha, seed=seed).interval_95 for seed in (1, 1, 2))
    assert one == two != other


def test_draws_are_made_in_blocks_that_do_not_show(monkeypatch):
    votes = votes_of(uneven(6))
    drawn = []

    def alpha(votes, weights):
        drawn.append(weights.shape)
        return krippendorff_alpha(votes, weights)

    whole = bootstrap(votes, alpha, repeats=50)
    assert drawn[0] == drawn[1][1:] and drawn[1:] == [(50, *drawn[0])]
    monkeypatch.setattr(consensus, "_BLOCK", 8 * drawn[0][0] + 1)
    drawn.clear()
    assert bootstrap(votes, alpha, repeats=50).interval_95 == whole.interval_95
    assert [shape[0] for shape in drawn[1:]] == [8] * 6 + [2]
    monkeypatch.setattr(consensus, "_BLOCK", 1)  # however many patterns there are, one draw at a time is made
    drawn.clear()
    assert bootstrap(votes, alpha, repeats=50).interval_95 == whole.interval_95
    assert [shape[0] for shape in drawn[1:]] == [1] * 50


def test_draws_that_a_statistic_is_undefined_for_are_left_out():
    """Four columns in five are metal to both: a draw without the fifth has nothing to disagree on."""
    found = bootstrap(votes_of([[0, 0]] * 4 + [[1, 0]]), krippendorff_alpha)
    assert np.isfinite(found.interval_95).all()


# edges


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "table",
    [np.full((3, 2), NONE), np.full((3, 2), UNSURE), np.zeros((0, 2), int)],
    ids=["no votes", "unsure", "empty"],
)
def test_without_votes_for_classes_nothing_is_labelled(rule, table):
    found = consensus_of(table, rule)
    assert found.status.tolist() == ["unlabelled"] * len(table)
    assert found.label.tolist() == [-1] * len(table)
    assert found.shares.shape == (len(table), 5) and not found.shares.any()
    votes = votes_of(table)
    assert math.isnan(krippendorff_alpha(votes)) and math.isnan(fleiss_kappa(votes))
    assert np.isnan(bootstrap(votes, krippendorff_alpha, repeats=10).interval_95).all()
    assert not expert_confusion(votes).any()
    if rule is dawid_skene:
        np.testing.assert_allclose(found.posterior, 0.2)


@pytest.mark.parametrize("rule", RULES)
def test_one_expert_labels_with_a_quorum_of_one_only(rule):
    table = np.array([[0], [1], [2], [0]])
    assert (consensus_of(table, rule).label == -1).all()
    assert consensus_of(table, rule, quorum=1, **{"smoothing": 0.0} if rule is dawid_skene else {}).label.tolist() == [
        0, 1, 2, 0,
    ]  # fmt: skip
    assert math.isnan(krippendorff_alpha(votes_of(table))) and math.isnan(fleiss_kappa(votes_of(table)))


def test_experts_of_one_mind_agree_and_of_one_class_say_nothing():
    assert krippendorff_alpha(votes_of([[0, 0], [1, 1]])) == fleiss_kappa(votes_of([[0, 0], [1, 1]])) == 1.0
    assert math.isnan(krippendorff_alpha(votes_of([[0, 0], [0, 0]])))
    assert math.isnan(fleiss_kappa(votes_of([[0, 0], [0, 0]])))


def test_votes_and_what_is_made_of_them_do_not_change_and_are_told_apart_by_who_they_are():
    votes = votes_of([[0, 0], [1, 1]])
    made = [votes, *(rule(votes, [0, 10]) for rule in RULES), bootstrap(votes, krippendorff_alpha, repeats=5)]
    for each in made:
        again = copy.copy(each)
        assert each == each and each != again and len({each, again}) == 2
        with pytest.raises(FrozenInstanceError):
            setattr(each, next(iter(vars(each))), None)


def test_a_vote_on_a_column_that_is_not_there_is_an_error():
    votes = votes_of([[0, 0], [1, 1]])
    for rule in (*RULES, soft_labels):
        with pytest.raises(ValueError, match=r"columns: expected all columns that are voted on, got none .* number 10"):
            rule(votes, [0, 20])
        with pytest.raises(ValueError, match="got none with the number 0"):
            rule(votes, [])
        with pytest.raises(ValueError, match="columns: expected each number once, got 10 more often"):
            rule(votes, [0, 20, 10, 20, 10])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([1, 2], [1], [0, 0]), ValueError, r"expert: expected shape \(2,\)"),
        (([[1]], [1], [0]), ValueError, r"column: expected shape \(n,\), got \(1, 1\)"),
        (([1.0], [1], [0]), TypeError, "column: expected integers, got dtype float64"),
        (([1], [1], [6]), ValueError, "label: expected classes 0 to 4, or 5 for unsure, got 6"),
        (([1], [1], [-1]), ValueError, "label: expected classes 0 to 4, or 5 for unsure, got -1"),
        (([1], [1], [256]), ValueError, "label: .* got 256"),
        (([1, 2, 3], [1, 1, 1], [0, 9, 7]), ValueError, "label: .* got 9"),
        (([1, 1], [4, 4], [0, 5]), ValueError, "got more of expert 4 for column 1: keep the last"),
        (([8, 8, 8, 1, 9, 9], [4, 9, 9, 4, 4, 4], [0] * 6), ValueError, "expert 9 for column 8: keep the last"),
    ],
)
def test_votes_that_are_none_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        VoteTable(*arguments)


@pytest.mark.parametrize(
    ("rule", "arguments", "words"),
    [
        (majority, {"share": 0.5}, "share: expected a number above 0.5, at most 1, got 0.5"),
        (majority, {"share": 1.1}, "share: "),
        (majority, {"quorum": 0}, "quorum: expected an integer from 1, got 0"),
        (unanimity, {"quorum": 0}, "quorum: "),
        (dawid_skene, {"certainty": 0.5}, "certainty: "),
        (dawid_skene, {"smoothing": -0.1}, "smoothing: expected a finite number from 0, got -0.1"),
        (dawid_skene, {"smoothing": math.inf}, "smoothing: expected a finite number from 0, got inf"),
        (dawid_skene, {"tolerance": math.nan}, "tolerance: "),
        (dawid_skene, {"iterations": 0}, "iterations: expected an integer from 1, got 0"),
    ],
)
def test_parameters_out_of_range_are_named(rule, arguments, words):
    with pytest.raises(ValueError, match=words):
        consensus_of([[0, 0]], rule, **arguments)


def test_bootstrap_draws_at_least_once():
    with pytest.raises(ValueError, match="repeats: expected an integer from 1"):
        bootstrap(votes_of([[0, 0]]), krippendorff_alpha, repeats=0)


# crowd-kit, where it is installed: it needs transformers, which the tests can do without


@pytest.fixture
def crowdkit():
    return pytest.importorskip("crowdkit.aggregation")


def frame_of(table):
    import pandas as pd

    votes = votes_of(table)
    return pd.DataFrame({"task": votes.column, "worker": votes.expert, "label": votes.label.astype(int)})


@pytest.mark.filterwarnings("ignore")
def test_majority_is_that_of_crowd_kit(crowdkit):
    table = uneven(6)
    found = consensus_of(table, quorum=1, share=0.5 + 1e-9)
    rival = crowdkit.MajorityVote()
    shares = rival.fit_predict_proba(frame_of(table)).reindex(columns=LABELS, fill_value=0.0)
    np.testing.assert_allclose(found.shares[shares.index // 10], shares, atol=1e-12)
    agreed = found.label >= 0
    np.testing.assert_array_equal(found.label[agreed], rival.labels_[found.column[agreed]])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("turns", [1, 5, 60])
def test_dawid_skene_is_that_of_crowd_kit(crowdkit, turns):
    """Without smoothing and after as many turns; crowd-kit keeps 1e-10 of what never happens, and one estimate more."""
    table = uneven(7)
    rival = crowdkit.DawidSkene(n_iter=turns, tol=-np.inf).fit(frame_of(table))
    found, next_one = (
        consensus_of(table, dawid_skene, smoothing=0.0, iterations=n, tolerance=0.0) for n in (turns, turns + 1)
    )
    posterior = rival.probas_.reindex(columns=LABELS)
    np.testing.assert_allclose(found.posterior[posterior.index // 10], posterior, atol=1e-6)
    np.testing.assert_allclose(next_one.priors, rival.priors_.reindex(LABELS), atol=1e-6)
    errors = rival.errors_.reindex([(e, v) for e in found.experts for v in LABELS])[[*LABELS]]
    np.testing.assert_allclose(next_one.confusion.transpose(0, 2, 1).reshape(-1, 5), errors, atol=1e-6)
