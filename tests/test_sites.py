"""Which sublattice is the metal's: what one column cannot tell, its neighbourhood can."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from contextem.sites import (
    METAL_SITE,
    agree_on_sites,
    common_odds,
    grain_odds,
    shared_odds,
    site_odds,
    sublattice_posteriors,
)


def posteriors(n, seed):
    return np.random.default_rng(seed).dirichlet(np.full(5, 0.3), n)


def slow_common_odds(probabilities, same, other):
    """The mean of the head of sites.py, column by column."""
    word = [
        np.clip(np.log(max(p[0] + p[1], 1e-300)) - np.log(max(p[2] + p[3] + p[4], 1e-300)), -8, 8)
        for p in probabilities
    ]
    found = []
    for i in range(len(probabilities)):
        heard = [word[i]] + [word[j] for j in same[i] if j >= 0] + [-word[j] for j in other[i] if j >= 0]
        found.append(sum(heard) / len(heard))
    return np.array(found)


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_common_odds_are_the_mean_of_what_all_say(n, seed):
    rng = np.random.default_rng(seed)
    p = posteriors(n, seed)
    same, other = rng.integers(-1, n, (2, n, 4))
    np.testing.assert_allclose(common_odds(p, same, other), slow_common_odds(p, same, other), atol=1e-9)


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 20.0), arrays(float, 9, elements=st.floats(-8, 8)))
def test_rows_stay_posteriors_and_classes_of_a_site_keep_their_ratio(seed, strength, common):
    p = posteriors(9, seed)
    agreed = agree_on_sites(p, common, strength)
    np.testing.assert_allclose(agreed.sum(axis=1), 1.0, atol=1e-5)
    for site in (METAL_SITE, ~METAL_SITE):
        before, after = (x[:, site] / np.maximum(x[:, site].sum(axis=1, keepdims=True), 1e-12) for x in (p, agreed))
        told = agreed[:, site].sum(axis=1) > 1e-4
        np.testing.assert_allclose(after[told], before[told], atol=2e-3)


def test_no_strength_changes_nothing():
    p = posteriors(20, 1)
    np.testing.assert_allclose(agree_on_sites(p, site_odds(p), 0.0), p, atol=1e-7)


def test_a_doubtful_column_hears_its_neighbourhood():
    """Column 0 says X2 by a hair; three neighbours on its sublattice and the other sublattice say metal."""
    p = np.array([[0.45, 0.0, 0.55, 0.0, 0.0], *[[0.8, 0.1, 0.1, 0.0, 0.0]] * 3, *[[0.1, 0.0, 0.8, 0.1, 0.0]] * 3])
    same = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [5, 6, -1], [4, 6, -1], [4, 5, -1]])
    other = np.array([[4, 5, 6]] * 4 + [[0, 1, 2]] * 3)
    agreed = agree_on_sites(p, common_odds(p, same, other), 3.0)
    assert agreed.argmax(axis=1).tolist() == [0, 0, 0, 0, 2, 2, 2]
    assert agreed[0, 0] > 0.99


@pytest.mark.parametrize("certain", [0, 2])
def test_certainty_is_finite(certain):
    p = np.eye(5)[[certain]]
    none = np.full((1, 3), -1)
    odds = common_odds(p, none, none)
    assert abs(odds[0]) == 8.0
    assert agree_on_sites(p, odds, 20.0).argmax() == certain


def slow_grain_odds(probabilities, side, grain):
    """The mean of the head of sites.py over a grain, column by column."""
    word = site_odds(probabilities)
    found = []
    for i in range(len(word)):
        heard = [word[j] if side[j] == side[i] else -word[j] for j in range(len(word)) if grain[j] == grain[i]]
        found.append(sum(heard) / len(heard))
    return np.array(found)


class Around(NamedTuple):
    same: np.ndarray
    other: np.ndarray
    side: np.ndarray
    grain: np.ndarray


@given(st.integers(1, 15), st.integers(0, 2**32 - 1))
def test_a_grain_tells_the_mean_of_all_its_columns(n, seed):
    rng = np.random.default_rng(seed)
    p, side, grain = posteriors(n, seed), rng.integers(0, 2, n), rng.integers(-1, 3, n)
    np.testing.assert_allclose(grain_odds(p, side, grain), slow_grain_odds(p, side, grain), atol=1e-9)
    # which sublattice is called which does not matter
    np.testing.assert_allclose(grain_odds(p, 1 - side, grain), grain_odds(p, side, grain), atol=1e-12)
    around = Around(*rng.integers(-1, n, (2, n, 4)), side, grain)
    mean = (slow_common_odds(p, around.same, around.other) + slow_grain_odds(p, side, grain)) / 2
    np.testing.assert_allclose(shared_odds(p, around), mean, atol=1e-9)


def test_a_neighbourhood_that_errs_is_overruled_by_its_grain():
    """Three neighbours call themselves X2, with the ten others of their sublattice against them."""
    n = 13
    p = np.tile([0.85, 0.0, 0.15, 0.0, 0.0], (n, 1))
    p[:3] = [0.3, 0.0, 0.7, 0.0, 0.0]
    same = np.full((n, 2), -1)
    same[:3] = [[1, 2], [0, 2], [0, 1]]
    around = Around(same, np.full((n, 2), -1), np.zeros(n, int), np.zeros(n, int))
    alone = agree_on_sites(p, common_odds(p, around.same, around.other), 2.0)
    together = agree_on_sites(p, shared_odds(p, around), 2.0)
    assert alone[0].argmax() == 2 and together[0].argmax() == 0


def test_each_grain_has_its_metal_and_how_sure_that_is():
    p = np.array([[0.9, 0, 0.1, 0, 0], [0.2, 0, 0.8, 0, 0], [0.3, 0, 0.7, 0, 0], [0.6, 0, 0, 0.4, 0], [1, 0, 0, 0, 0]])
    told = sublattice_posteriors(p, np.array([0, 1, 0, 1, -1]), np.array([0, 0, 1, 1, -1]))
    assert [(each["grain"], each["columns"], each["metal_sublattice"]) for each in told] == [(0, 2, 0), (1, 2, 1)]
    assert [each["posterior"] for each in told] == pytest.approx([0.85, 0.65])
    assert sublattice_posteriors(p[:0], np.zeros(0, int), np.zeros(0, int)) == []
