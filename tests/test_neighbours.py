"""Neighbours of columns, against counting all distances; sublattices told from bonds, against how they were made."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from strategies import Honeycomb, honeycombs

from contextem.neighbours import SURROUNDINGS, neighbourhood, two_sublattices

FIRST, SECOND = 0.85, 1.3  # lattice constants


def expected(positions, sides, complete, a):
    """All four tables from all the distances, column by column."""
    n = len(positions)
    wide = max(1, min(SURROUNDINGS, *(int((complete & (sides == side)).sum()) for side in (0, 1))))
    first, second = np.full((n, 3), -1), np.full((n, 6), -1)
    same, other = np.full((n, wide), -1), np.full((n, wide), -1)
    distances = cdist(positions, positions)
    for i in range(n):
        order = [j for j in np.argsort(distances[i]) if j != i]
        bonded = [j for j in order[:10] if sides[j] != sides[i] and distances[i, j] < FIRST * a]
        next_ones = [j for j in order[:10] if sides[j] == sides[i] and distances[i, j] < SECOND * a]
        alike = [j for j in order if complete[j] and sides[j] == sides[i]]
        unlike = [j for j in order if complete[j] and sides[j] != sides[i]]
        for table, found in ((first, bonded), (second, next_ones), (same, alike), (other, unlike)):
            found = found[: table.shape[1]]
            table[i, : len(found)] = found
    return first, second, same, other


def tables(around):
    return around.first, around.second, around.same, around.other


@settings(max_examples=40)
@given(honeycombs(), st.integers(0, 2**32 - 1))
def test_neighbours_are_those_of_all_the_distances(crystal, seed):
    complete = np.random.default_rng(seed).random(len(crystal)) < 0.8
    around = neighbourhood(crystal.positions, crystal.sides, complete, crystal.spacing)
    for got, wanted in zip(
        tables(around), expected(crystal.positions, crystal.sides, complete, crystal.spacing), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


@settings(max_examples=20)
@given(honeycombs())
def test_sublattices_told_from_bonds_are_those_it_was_made_of(crystal):
    told = two_sublattices(crystal.positions, np.full(len(crystal), -1, np.int8), crystal.spacing)
    assert np.isin(told, (0, 1)).all()
    swapped = told ^ crystal.sides
    for part in np.unique(crystal.parts):
        assert len(np.unique(swapped[crystal.parts == part])) == 1
    # neighbours do not depend on which of the two is called 0, where one part holds all
    if crystal.parts.max() == 0:
        complete = np.ones(len(crystal), bool)
        here, there = (
            neighbourhood(crystal.positions, sides, complete, crystal.spacing)
            for sides in (crystal.sides, np.full(len(crystal), -1, np.int8))
        )
        for one, two in zip(tables(here), tables(there), strict=True):
            np.testing.assert_array_equal(one, two)


@settings(max_examples=20)
@given(honeycombs(missing=0.0), st.floats(0.0, 0.9), st.integers(0, 2**32 - 1))
def test_unknown_columns_in_a_known_lattice_get_their_sublattice(crystal, share, seed):
    given_sides = np.where(np.random.default_rng(seed).random(len(crystal)) < share, -1, crystal.sides).astype(np.int8)
    if (given_sides < 0).all():
        return
    before = given_sides.copy()
    np.testing.assert_array_equal(two_sublattices(crystal.positions, given_sides, crystal.spacing), crystal.sides)
    np.testing.assert_array_equal(given_sides, before)


def test_what_is_known_stands_even_against_its_bonds():
    crystal = Honeycomb.made(10.0, 6, seed=1)
    told = crystal.sides.copy()
    told[7] ^= 1
    np.testing.assert_array_equal(two_sublattices(crystal.positions, told, 10.0), told)
    told[[3, 20]] = -1
    expected_sides = crystal.sides.copy()
    expected_sides[7] ^= 1
    alone = two_sublattices(crystal.positions, told, 10.0)
    np.testing.assert_array_equal(alone[told >= 0], told[told >= 0])
    np.testing.assert_array_equal(alone[[3, 20]], expected_sides[[3, 20]])


def test_parts_that_nothing_connects_are_told_apart_each_by_itself():
    one, two = Honeycomb.made(10.0, 5, seed=2), Honeycomb.made(10.0, 4, seed=3)
    positions = np.vstack([one.positions, two.positions + 500.0])
    sides = np.concatenate([one.sides, two.sides])
    unknown = np.full(len(sides), -1, np.int8)
    swapped = two_sublattices(positions, unknown, 10.0) ^ sides
    assert len(set(swapped[: len(one)])) == len(set(swapped[len(one) :])) == 1
    # one known column tells its own part, and no other
    anchored = unknown.copy()
    anchored[[4, len(one) + 4]] = sides[[4, len(one) + 4]]
    np.testing.assert_array_equal(two_sublattices(positions, anchored, 10.0), sides)
    around = neighbourhood(positions, unknown, np.ones(len(sides), bool), 10.0)
    assert (around.first[: len(one)] < len(one)).all()
    assert ((around.first[len(one) :] >= len(one)) | (around.first[len(one) :] < 0)).all()


def test_thousands_of_lonely_columns_take_no_time():
    grid = 30.0 * np.stack(np.mgrid[:100, :100], axis=-1).reshape(-1, 2)
    assert np.isin(two_sublattices(grid, np.full(len(grid), -1, np.int8), 10.0), (0, 1)).all()


def test_one_column_has_no_neighbours_and_no_columns_none():
    for side in (-1, 0, 1):
        around = neighbourhood(np.array([[5.0, 5.0]]), np.array([side], np.int8), np.ones(1, bool), 10.0)
        assert [table.tolist() for table in tables(around)] == [[[-1] * 3], [[-1] * 6], [[-1]], [[-1]]]
    none = neighbourhood(np.zeros((0, 2)), np.zeros(0, np.int8), np.zeros(0, bool), 10.0)
    assert [table.shape for table in tables(none)] == [(0, 3), (0, 6), (0, 1), (0, 1)]
    assert two_sublattices(np.zeros((0, 2)), np.zeros(0, np.int8), 10.0).shape == (0,)


@pytest.mark.parametrize("complete_share", [0.0, 0.1, 1.0])
def test_surroundings_are_as_many_as_both_sublattices_hold(complete_share):
    crystal = Honeycomb.made(10.0, 8, seed=4)
    complete = np.random.default_rng(0).random(len(crystal)) < complete_share
    around = neighbourhood(crystal.positions, crystal.sides, complete, 10.0)
    fewest = min((complete & (crystal.sides == side)).sum() for side in (0, 1))
    assert around.same.shape == around.other.shape == (len(crystal), max(1, min(SURROUNDINGS, fewest)))
    for table in (around.same, around.other):
        assert complete[table[table >= 0]].all()
    if complete_share:
        assert (around.other >= 0).all()
        # the column itself is not counted
        assert ((around.same < 0).sum(axis=1) <= complete).all()
    assert not (around.same == np.arange(len(crystal))[:, None]).any()
    own = crystal.sides[:, None]
    assert (np.where(around.same >= 0, crystal.sides[around.same], own) == own).all()


def test_columns_on_top_of_each_other_are_not_their_own_neighbours():
    crystal = Honeycomb.made(10.0, 6, seed=5)
    positions = np.vstack([crystal.positions, crystal.positions[:9]])
    sides = np.concatenate([crystal.sides, crystal.sides[:9]])
    around = neighbourhood(positions, sides, np.ones(len(sides), bool), 10.0)
    for table in tables(around):
        assert not (table == np.arange(len(sides))[:, None]).any()


@settings(max_examples=20)
@given(honeycombs(), st.integers(0, 2**32 - 1))
def test_neighbours_move_with_a_turned_shifted_and_shuffled_image(crystal, seed):
    rng = np.random.default_rng(seed)
    complete = rng.random(len(crystal)) < 0.9
    order = rng.permutation(len(crystal))
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    before = neighbourhood(crystal.positions, crystal.sides, complete, crystal.spacing)
    after = neighbourhood(
        crystal.positions[order] @ turn.T + 40.0, crystal.sides[order], complete[order], crystal.spacing
    )
    for one, two in zip(tables(before), tables(after), strict=True):
        np.testing.assert_array_equal(np.where(two >= 0, order[two], -1), one[order])
