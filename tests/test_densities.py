"""Shares of defects: intervals against closed forms, enumeration and simulated truth; detection limit; figure."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from classified import classification, posterior
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.optimize import brentq
from scipy.special import betaln, expit
from scipy.stats import beta, binom, poisson

import contextem as ctm
from contextem.densities import TRAINED_SHARES, densities, most_likely_shares, site_fractions
from contextem.micrograph import Detector
from contextem.simulate.conditions import REFERENCE, WIDE
from contextem.simulate.dataset import simulate_micrograph


def one_share(q, share):
    """The estimate for a defect with posteriors q (N,)."""
    return site_fractions(np.column_stack([1 - q, q]), (1 - share, share))[1]


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.01, 0.9))
def test_what_is_told_for_sure_gives_the_interval_of_jeffreys(counts, share):
    count, total = counts
    found = one_share((np.arange(total) < count).astype(float), share)
    prior = (1.0 if count == 0 else 0.5, 1.0 if count == total else 0.5)
    low, high = beta.ppf((0.025, 0.975), count + prior[0], total - count + prior[1])
    expected = (0.0 if count == 0 else low, 1.0 if count == total else high)
    assert found.interval_95 == pytest.approx(expected, rel=2e-3, abs=1e-7)
    assert (found.count, found.sites) == (count, total)
    assert found.expected_count == pytest.approx(count, abs=1e-4 * total)


def by_enumeration(ratios):
    """Interval and likeliest share from every way of choosing the true defects: a mixture of Beta distributions."""
    n = len(ratios)
    ways = np.zeros(n + 1)
    for chosen in itertools.product((False, True), repeat=n):
        ways[sum(chosen)] += math.prod(r for r, c in zip(ratios, chosen, strict=True) if c)
    k = np.arange(n + 1)
    theta = np.linspace(0, 1, 20001)
    with np.errstate(divide="ignore"):
        likelihood = (ways * theta[:, None] ** k * (1 - theta[:, None]) ** (n - k)).sum(axis=1)
    best = theta[likelihood.argmax()]
    a, b = (1.0 if best == 0 else 0.5), (1.0 if best == 1 else 0.5)
    weights = np.log(np.maximum(ways, 1e-300)) + betaln(k + a, n - k + b)
    weights = np.exp(weights - weights.max())
    weights /= weights.sum()

    def quantile(p):
        return brentq(lambda t: weights @ beta.cdf(t, k + a, n - k + b) - p, 0, 1)

    return (0.0 if best == 0 else quantile(0.025)), (1.0 if best == 1 else quantile(0.975)), best


@given(st.lists(st.floats(-6, 6), min_size=1, max_size=9), st.floats(0.02, 0.5))
def test_doubt_is_the_mixture_over_all_numbers_of_true_defects(logs, share):
    ratios = np.exp(logs)
    q = ratios * share / (ratios * share + 1 - share)
    low, high, best = by_enumeration(ratios)
    found = one_share(q, share)
    if 1e-3 < best < 1 - 1e-3 or best == found.value:  # next to 0 and 1 the grid of the oracle does not tell the prior
        assert found.interval_95 == pytest.approx((low, high), abs=2e-3)
        assert found.value == pytest.approx(best, abs=1e-4)


def trial(seed, n, theta, apart, share):
    """Posteriors, calibrated at `share`, of n sites of which theta are defects that look `apart` sigma different."""
    rng = np.random.default_rng([seed, 1])
    defect = rng.random(n) < theta
    seen = rng.normal(size=n) + apart * defect
    return defect, expit(apart * (seen - apart / 2) + math.log(share / (1 - share)))


@pytest.mark.parametrize(
    ("n", "theta", "apart", "least", "most"),
    [
        (4000, 3 / 4000, 20, 0.93, 0.97),  # rare, and told for sure
        (4000, 3 / 4000, 6, 0.93, 0.98),  # rare, a few false ones among them
        (4000, 0.3 / 4000, 6, 0.93, 0.98),  # none there most times
        (2000, 0.01, 4, 0.93, 0.97),  # the truth a tenth of what the classifier is used to
        (2000, 0.10, 3, 0.93, 0.97),
        (1000, 0.50, 2, 0.93, 0.97),  # labels miss half of them
    ],
)
def test_intervals_cover_and_expected_counts_are_right(n, theta, apart, least, most):
    trials = [trial(seed, n, theta, apart, 0.1) for seed in range(300)]
    found = [one_share(q, 0.1) for _, q in trials]
    covered = np.mean([each.interval_95[0] <= theta <= each.interval_95[1] for each in found])
    assert least <= covered <= most
    true = np.array([defect.sum() for defect, _ in trials])
    expected = np.array([each.expected_count for each in found])
    error = (expected - true).std() / math.sqrt(len(trials))
    assert abs((expected - true).mean()) < 4 * error + 0.1


def test_labels_and_plain_sums_are_wrong_where_the_classifier_is_used_to_more():
    trials = [trial(seed, 4000, 3 / 4000, 5, 0.1) for seed in range(50)]
    true, labels, plain, expected = np.mean(
        [(d.sum(), (q > 0.5).sum(), q.sum(), one_share(q, 0.1).expected_count) for d, q in trials], axis=0
    )
    assert labels > 2 * true
    assert plain > 3 * true
    assert expected == pytest.approx(true, rel=0.3)


def slow_shares(likelihoods, steps=20000):
    """Expectation maximisation of Saerens, Latinne and Decaestecker."""
    theta = np.full(likelihoods.shape[1], 1 / likelihoods.shape[1])
    for _ in range(steps):
        q = likelihoods * theta
        theta = (q / q.sum(axis=1, keepdims=True)).mean(axis=0)
    return theta


@pytest.mark.parametrize("seed", range(6))
def test_shares_of_three_classes_are_those_of_expectation_maximisation(seed):
    rng = np.random.default_rng(seed)
    likelihoods = np.exp(rng.normal(scale=1.5, size=(60, 3)))
    likelihoods[:20, 0] *= 20
    np.testing.assert_allclose(most_likely_shares(likelihoods), slow_shares(likelihoods), atol=2e-4)


def test_three_classes_are_each_covered():
    true, shares = np.array([0.9, 0.08, 0.02]), np.array([0.8, 0.1, 0.1])
    covered = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        z = rng.choice(3, 1500, p=true)
        seen = rng.normal(size=(1500, 3)) + 2.5 * np.eye(3)[z]
        q = np.exp(2.5 * seen) * shares
        found = site_fractions(q / q.sum(axis=1, keepdims=True), shares)
        covered.append([each.interval_95[0] <= t <= each.interval_95[1] for each, t in zip(found, true, strict=True)])
    assert (np.mean(covered, axis=0) >= 0.92).all()
    assert (np.mean(covered, axis=0) <= 0.98).all()


def test_what_tells_nothing_leaves_everything_possible():
    found = one_share(np.full(400, 0.1), 0.1)
    low, high = found.interval_95
    assert low < 0.01
    assert high > 0.99


def test_none_found_bounds_the_share_from_above():
    found = one_share(np.full(4000, 1e-6), 0.1)
    assert (found.count, found.expected_count, found.value) == (0, 0.0, 0.0)
    assert found.interval_95[0] == 0.0
    assert found.interval_95[1] == pytest.approx(1 - 0.025 ** (1 / 4000), rel=5e-3)
    assert found.detection_limit == pytest.approx(-math.log(0.05) / 4000, rel=1e-3)


@pytest.mark.parametrize("false", [0.5, 3.0, 12.0, 80.0])
def test_detection_limit_is_currie_s(false):
    n, told, doubtful = 5000, 100, round(2 * false)
    q = np.zeros(n)
    q[:told], q[told : told + doubtful] = 1.0, 0.5 + 1e-9  # labelled, and every other one of them wrongly
    found = one_share(q, q.mean())
    assert (found.count, found.expected_count) == (told + doubtful, pytest.approx(told + false, rel=1e-3))
    critical = next(c for c in itertools.count() if poisson.sf(c, false) <= 0.05)
    assert poisson.cdf(critical, false + n * found.detection_limit) == pytest.approx(0.05, rel=1e-2)


def test_the_detection_limit_is_what_is_detected():
    """Labels at that density exceed, in 95 % of images, what false ones alone give in 95 %."""
    n, apart, share = 4000, 5, 0.1
    limits = [one_share(trial(seed, n, 0.0, apart, share)[1], share).detection_limit for seed in range(100)]
    false = np.array([(trial(seed, n, 0.0, apart, share)[1] > 0.5).sum() for seed in range(400)])
    critical = np.quantile(false, 0.95)
    there = [(trial(seed, n, np.mean(limits), apart, share)[1] > 0.5).sum() > critical for seed in range(1000, 1400)]
    assert 0.90 <= np.mean(there) <= 0.985


LABELS = [0] * 40 + [1] * 10 + [2] * 45 + [3] * 4 + [4]


def test_incomplete_and_unknown_columns_are_no_sites():
    whole = classification(np.zeros((100, 2)), posterior(LABELS))
    part = np.isin(np.arange(100), (0, 40, 50, 95, 99))
    for name, hidden in (("complete", ~part), ("unknown", part), ("contaminated", part)):
        found = densities(replace(whole, **{name: hidden}))
        assert [each.sites for each in (found.dopant, found.single_vacancy, found.double_vacancy)] == [48, 47, 47]
        assert [each.count for each in (found.dopant, found.single_vacancy, found.double_vacancy)] == [9, 3, 0]


def test_nothing_to_look_at_says_nothing():
    found = densities(classification(np.zeros((0, 2)), np.zeros((0, 5))))
    assert found.dopant.interval_95 == (0.0, 1.0)
    assert math.isnan(found.dopant.value)
    assert math.isinf(found.dopant.detection_limit)
    assert found.summary()["dopant_fraction"]["value"] is None


@pytest.mark.parametrize("shares", [{}, {**TRAINED_SHARES, "dopant": 0.0}, {**TRAINED_SHARES, "dopant": 1.0}])
def test_shares_that_are_none_are_named(shares):
    with pytest.raises(ValueError, match="shares: expected one of dopant above 0, below 1"):
        densities(classification(np.zeros((100, 2)), posterior(LABELS)), shares)


def test_trained_shares_are_those_of_the_simulated_micrographs():
    """Both ranges in turn; half of the vacancies are double ones."""
    both = [np.mean([np.mean(getattr(r, name)) for r in (WIDE, REFERENCE)]) for name in WIDE.__dataclass_fields__]
    mean = dict(zip(WIDE.__dataclass_fields__, both, strict=True))
    assert TRAINED_SHARES["dopant"] == pytest.approx(mean["dopant_fraction"])
    assert TRAINED_SHARES["single_vacancy"] == pytest.approx(mean["vacancy_fraction"] / 2)
    assert TRAINED_SHARES["double_vacancy"] == pytest.approx(mean["vacancy_fraction"] / 2)


def test_noisy_micrographs_with_few_vacancies_are_told_better_than_by_labels():
    true = labels = expected = 0.0
    covered = []
    for seed in range(10):
        made = simulate_micrograph(
            "WSe2", "Cr", 80e3, Detector("HAADF", 70.0, 200.0), seed,
            size=90.0, ranges=REFERENCE, dose=600.0, vacancy_fraction=0.01, dopant_fraction=0.01,
        )  # fmt: skip
        result = ctm.classify(made.micrograph, made.context, columns=made.columns)
        found = densities(result)
        true += np.sum(made.labels[result.complete & result.counted] == 3)
        labels, expected = labels + found.single_vacancy.count, expected + found.single_vacancy.expected_count
        each = (found.dopant, 0.01), (found.single_vacancy, 0.005), (found.double_vacancy, 0.005)
        covered += [f.interval_95[0] <= share <= f.interval_95[1] for f, share in each]
    assert abs(expected - true) < abs(labels - true)
    assert sum(covered) >= binom.ppf(0.001, len(covered), 0.95)


def test_summary_goes_into_json():
    found = densities(classification(np.zeros((100, 2)), posterior(LABELS)))
    assert json.loads(json.dumps(found.summary())) == found.summary()


def test_figure_shows_shares_intervals_labels_and_limits():
    few = replace(classification(np.zeros((100, 2)), posterior(LABELS, 1 - 1e-6)), unknown=np.arange(100) == 99)
    found = densities(few)
    axes = Figure().add_subplot()
    found.draw(axes)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["dopants", "single vacancies", "double vacancies"]
    points = {round(float(x), 1) for line in axes.lines for x in line.get_xdata()}
    assert {20.0, 8.2} <= points  # 10 of 50, 4 of 49 sites
    words = [text.get_text() for text in axes.texts]
    low, high = (100 * end for end in found.dopant.interval_95)
    assert words[0] == f"20.0 ({low:.1f} to {high:.1f}) %"
    assert words[2].startswith("< ")  # the only double vacancy is unknown
    assert words[2].endswith("$\\times$ 10$^{13}$ cm$^{-2}$")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "expected", "95 % interval", "labels", "detection limit",
    ]  # fmt: skip


def test_the_shares_a_model_tells_take_the_place_of_those_of_the_packaged_one():
    result = classification(np.zeros((40, 2)), posterior([0] * 30 + [1] * 10, 0.6))
    other = {"dopant": 0.4}
    told = replace(result, provenance={"model": {"defect_shares": other}})
    assert densities(told).dopant == densities(result, {**TRAINED_SHARES, **other}).dopant
    assert densities(told).dopant != densities(result).dopant
