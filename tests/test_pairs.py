"""Pairs of defects: numbers by brute force, random placement, clusters and repulsion, distorted lattices, figure."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from classified import classification, honeycomb, posterior
from matplotlib.figure import Figure
from scipy.stats import binom, kstest

from contextem.pairs import pair_correlation

A = 16.6  # px at 0.2 Å/px: the lattice constant 3.32 Å of `classification`


def doped(labels, cells, **values):
    """A classification of cells by cells with the given labels; sublattices by the sites, not by the labels."""
    positions, _, _ = honeycomb(cells, A, 7.0)
    side = np.repeat([0, 1], cells**2).astype(np.int8)
    return classification(positions, posterior(labels), **{"sublattice": side} | values)


def scattered(seed, cells=20, dopants=25, single=20, double=8):
    """Defects at random."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 2], cells**2)
    labels[rng.choice(cells**2, dopants, replace=False)] = 1
    where = cells**2 + rng.choice(cells**2, single + double, replace=False)
    labels[where[:single]], labels[where[single:]] = 3, 4
    return labels


def slow_pairs(positions, first, second, r_max, same):
    """Pairs by their distance in Å, to 0.01, one by one."""
    found = Counter()
    for i, j in itertools.combinations(first, 2) if same else itertools.product(first, second):
        r = 0.2 * np.hypot(*(positions[i] - positions[j]))
        if r <= r_max + 1e-6:
            found[round(float(r), 2)] += 1
    return found


@pytest.mark.parametrize(
    ("kind", "other", "classes"),
    [
        ("dopant", None, ((1,), (1,))),
        ("vacancy", "vacancy", ((3, 4), (3, 4))),
        ("single_vacancy", None, ((3,), (3,))),
        ("dopant", "vacancy", ((1,), (3, 4))),
        ("double_vacancy", "dopant", ((4,), (1,))),
    ],
)
def test_numbers_are_those_counted_one_by_one(kind, other, classes):
    labels, rng = scattered(1), np.random.default_rng(2)
    positions, _, _ = honeycomb(20, A, 7.0)
    hole = np.hypot(*(positions - positions.mean(axis=0)).T) < 3 * A
    result = doped(labels, 20, unknown=hole, complete=rng.random(len(labels)) > 0.1, contaminated=labels < 0)
    found = pair_correlation(result, kind, other, r_max=15.0, placements=19)
    usable = result.counted & result.complete
    sites = [np.flatnonzero(usable & np.isin(labels, (0, 1) if 1 in each else (2, 3, 4))) for each in classes]
    marked = [where[np.isin(labels[where], each)] for where, each in zip(sites, classes, strict=True)]
    same = other in (None, kind)
    expected = slow_pairs(positions, *marked, 15.0, same)
    assert {round(float(r), 2): int(n) for r, n in zip(found.distance, found.pairs, strict=True) if n} == dict(expected)
    everywhere = slow_pairs(positions, *sites, 15.0, same)
    assert found.distance.round(2).tolist() == sorted(everywhere)
    m, n = [len(each) for each in marked], [len(each) for each in sites]
    assert (found.defects, found.sites) == (tuple(m), tuple(n))
    chance = m[0] * (m[0] - 1) / n[0] / (n[0] - 1) if same else m[0] * m[1] / n[0] / n[1]
    assert found.expected == pytest.approx([chance * everywhere[r] for r in sorted(everywhere)])


def test_expected_numbers_are_the_mean_over_every_placement():
    cells, m = 4, 3
    positions, _, _ = honeycomb(cells, A, 7.0)
    every = list(itertools.combinations(range(cells**2), m))
    total = sum((slow_pairs(positions, each, each, 9.0, True) for each in every), Counter())
    labels = np.repeat([0, 2], cells**2)
    labels[:m] = 1
    found = pair_correlation(doped(labels, cells), r_max=9.0, placements=19)
    assert found.expected == pytest.approx([total[r] / len(every) for r in found.distance.round(2).tolist()])


def test_random_placement_is_told_from_none_as_often_as_stated():
    p = [pair_correlation(doped(scattered(s), 20), r_max=12.0, placements=99, seed=s).p_value for s in range(150)]
    assert kstest(p, "uniform").pvalue > 0.01
    assert np.sum(np.array(p) <= 0.05) <= binom.ppf(0.999, len(p), 0.05)


def near(positions, seed, count, reach):
    """The `count` metal sites nearest to a few centres."""
    centres = positions[np.random.default_rng(seed).choice(len(positions) // 2, count // 6, replace=False)]
    metal = positions[: len(positions) // 2]
    distance = np.min(np.hypot(*(metal[:, None] - centres).transpose(2, 0, 1)), axis=1)
    return np.random.default_rng(seed).permutation(np.flatnonzero(distance < reach * A))[:count]


@pytest.mark.parametrize("seed", range(3))
def test_clusters_are_told(seed):
    positions, labels, _ = honeycomb(20, A, 7.0)
    labels[near(positions, seed, 30, 2.1)] = 1
    found = pair_correlation(doped(labels, 20))
    assert found.p_value <= 0.01
    assert found.ratio[0] > found.global_95[1, 0] > 1
    assert found.short_range_order[0] > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_defects_that_avoid_each_other_are_told(seed):
    positions, labels, _ = honeycomb(20, A, 7.0)
    for site in np.random.default_rng(seed).permutation(400):
        chosen = np.flatnonzero(labels == 1)
        if len(chosen) < 40 and np.all(np.hypot(*(positions[chosen] - positions[site]).T) > 1.9 * A):
            labels[site] = 1
    found = pair_correlation(doped(labels, 20))
    assert found.p_value <= 0.01
    assert found.pairs[0] == 0 < found.global_95[0, :2].max()
    assert found.short_range_order[0] < 0


def test_dopants_beside_vacancies_are_told():
    positions, labels, _ = honeycomb(20, A, 7.0)
    vacancies = 400 + np.random.default_rng(0).choice(400, 20, replace=False)
    labels[vacancies] = 3
    gaps = np.hypot(*(positions[:400, None] - positions[vacancies]).transpose(2, 0, 1))
    labels[gaps.argmin(axis=0)] = 1  # each has one bonded to it
    found = pair_correlation(doped(labels, 20), "dopant", "vacancy")
    assert found.p_value <= 0.01
    assert found.distance[0] == pytest.approx(3.32 / np.sqrt(3))
    assert found.ratio[0] > 2
    assert np.isnan(found.short_range_order).all()
    assert pair_correlation(doped(scattered(3), 20), "dopant", "vacancy").p_value > 0.05


def test_short_range_order_is_that_of_warren_and_cowley():
    """From the share of neighbours that are dopants too, where every site has all its neighbours: on a torus."""
    labels = scattered(5)
    result = doped(labels, 20)
    found = pair_correlation(result, r_max=3.5, placements=19)
    positions, c = result.positions[:400], np.mean(labels[:400] == 1)
    gaps = np.hypot(*(positions[:, None] - positions).transpose(2, 0, 1))
    bonded = (gaps > 0) & (gaps < 1.1 * A)
    dopant = labels[:400] == 1
    pairs = (bonded & dopant & dopant[:, None]).sum() / 2
    by_chance = bonded.sum() / 2 * c * (25 - 1) / (400 - 1)
    other_share = 1 - c * pairs / by_chance  # of the neighbours of a dopant, borders allowed for
    assert found.short_range_order[0] == pytest.approx(1 - other_share / (1 - c))


@pytest.mark.parametrize(
    "affine", [np.array([[1.03, 0.02], [-0.01, 0.98]]), np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])]
)
def test_distorted_lattices_have_the_same_shells(affine):
    result = doped(scattered(4), 20)
    bent = replace(result, positions=result.positions @ affine.T + np.random.default_rng(0).normal(scale=0.4, size=2))
    for kinds in (("dopant", None), ("dopant", "vacancy")):
        plain, other = (pair_correlation(each, *kinds, placements=19) for each in (result, bent))
        np.testing.assert_array_equal(plain.pairs, other.pairs)
        np.testing.assert_allclose(plain.expected, other.expected)


def test_grains_have_no_pairs_with_each_other():
    one, two = doped(scattered(6), 20), doped(scattered(7), 20)
    beside = {
        name: np.concatenate([getattr(one, name), getattr(two, name)])
        for name in one.__dataclass_fields__
        if name not in ("sampling", "lattice_constant", "provenance", "positions", "grain")
    }
    both = replace(
        one,
        positions=np.concatenate([one.positions, two.positions + np.array([0.0, 21 * A])]),
        grain=np.repeat([0, 1], len(one)).astype(np.int32),
        **beside,
    )
    found = pair_correlation(both, placements=19)
    parts = [pair_correlation(each, placements=19) for each in (one, two)]
    np.testing.assert_array_equal(found.pairs, parts[0].pairs + parts[1].pairs)


def test_same_seed_same_result():
    result = doped(scattered(8), 20)
    one, two, other = (pair_correlation(result, placements=49, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.global_95, two.global_95)
    assert one.p_value == two.p_value
    assert (one.global_95 != other.global_95).any()


@pytest.mark.parametrize("seed", range(12))
def test_the_global_envelope_and_the_p_value_agree(seed):
    labels = scattered(seed)
    if seed % 2:
        labels[near(honeycomb(20, A, 7.0)[0], seed, 8, 1.1)] = 1
    found = pair_correlation(doped(labels, 20), placements=199)
    low, high = found.global_95
    outside = bool(((found.ratio < low) | (found.ratio > high)).any())
    assert outside == (found.p_value <= 0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("adatom",), "kind: expected one of dopant, single_vacancy, double_vacancy, vacancy, got 'adatom'"),
        (("dopant", "adatom"), "other: expected one of"),
        (("single_vacancy", "double_vacancy"), "other: expected a defect on the other sublattice than single_vacancy"),
        (("double_vacancy",), r"kind: expected at least two \(double_vacancy\), got 1"),
        (("dopant", "vacancy"), r"kind: expected at least one of each \(dopant\), got 0 dopant and 1 vacancy"),
    ],
)
def test_what_has_no_pairs_is_named(arguments, message):
    labels = np.repeat([0, 2], 100)
    labels[-1] = 4
    with pytest.raises(ValueError, match=message):
        pair_correlation(doped(labels, 10), *arguments)


def test_too_few_placements_are_named():
    with pytest.raises(ValueError, match="placements: expected at least 19"):
        pair_correlation(doped(scattered(0), 20), placements=18)


def test_a_distance_without_sites_is_named():
    with pytest.raises(ValueError, match="r_max: expected a distance"):
        pair_correlation(doped(scattered(0), 20), r_max=2.0)


def test_figure_shows_ratios_envelopes_and_p():
    found = pair_correlation(doped(scattered(9), 20), "vacancy", placements=99)
    axes = Figure().add_subplot()
    found.draw(axes)
    points = axes.lines[-1]
    np.testing.assert_allclose(points.get_xdata(), found.distance)
    np.testing.assert_allclose(points.get_ydata(), found.pairs / found.expected)
    assert axes.get_title() == f"28 vacancies, p = {found.p_value:.2g}"
    assert axes.get_ylim()[1] > found.ratio.max()
    assert len(axes.get_legend().get_texts()) == 3


def test_a_classification_finds_its_own_pairs():
    result = doped(scattered(9), 20)
    np.testing.assert_array_equal(
        result.pair_correlation("dopant", placements=19).pairs, pair_correlation(result, placements=19).pairs
    )
