"""Grain numbers: every column stands on the lattice whose number it has, in bicrystals whose grains are known."""

import numpy as np
import pytest
from scipy.spatial import cKDTree
from test_columns import (
    BRIGHTNESS,
    DOPANT,
    DOUBLE,
    LATTICE,
    METAL,
    SINGLE,
    SPACING,
    X2,
    Host,
    honeycomb,
    make_scene,
    paint,
)

from contextem.columns import find_columns
from contextem.micrograph import Micrograph
from contextem.simulate.anomalies import anomaly_at, simulate_anomaly

SIZE = 288  # px
AWAY = 2.0  # lattice constants from the boundary, from which on a column has its whole neighbourhood in one grain


def bicrystal(turn, seed, hole=0.0):
    """Image, positions, which grain and whether metal, and a function that tells the distance from the boundary, in a.

    The second grain is turned by so many degrees, by 60 a mirror twin, and displaced at random. Of metals 5 % are
    dopants, of X2 columns 5 % single and 5 % double vacancies; columns within `hole`, in a, of the middle are missing.
    """
    rng = np.random.default_rng([seed, round(10 * turn)])
    angle, toward = rng.uniform(0, np.pi, 2)
    normal = np.array([np.cos(toward), np.sin(toward)])

    def distance(positions):
        return (positions - SIZE / 2) @ normal / SPACING

    positions, grain, metal = [], [], []
    for number, (turned, side) in enumerate(((angle, -1), (angle + np.deg2rad(turn), 1))):
        metals, chalcogens, _ = honeycomb(SIZE, SPACING, turned, rng.uniform(0, SPACING, 2))
        for sites, is_metal in ((metals, True), (chalcogens, False)):
            own = sites[side * distance(sites) > 0]
            positions.append(own)
            grain.append(np.full(len(own), number))
            metal.append(np.full(len(own), is_metal))
    positions, grain, metal = (np.concatenate(each) for each in (positions, grain, metal))
    pairs = cKDTree(positions).query_pairs(0.45 * SPACING, output_type="ndarray")
    kept = np.setdiff1d(np.arange(len(positions)), pairs[:, 1])
    kept = kept[np.hypot(*(positions[kept] - SIZE / 2).T) > hole * SPACING]
    positions, grain, metal = positions[kept], grain[kept], metal[kept]
    lot = rng.random(len(positions))
    labels = np.where(metal, np.where(lot < 0.05, DOPANT, METAL), np.where(lot < 0.05, DOUBLE, X2))
    labels[~metal & (lot > 0.95)] = SINGLE
    positions = positions + rng.normal(0, 0.012 * SPACING, positions.shape)
    image = paint(SIZE, positions, [BRIGHTNESS[label] for label in labels], 0.17 * SPACING, 200.0, rng)
    return image, positions, grain, metal, distance


def check(columns, positions, grain, metal, distance):
    """Away from the boundary every column has the number and the sublattice of its grain."""
    gap, nearest = cKDTree(positions).query(columns.positions)
    sure = (gap < 0.15 * SPACING) & (abs(distance(columns.positions)) > AWAY)
    assert columns.grain.max() == 1
    names = [np.bincount(columns.grain[sure & (grain[nearest] == k) & (columns.grain >= 0)]).argmax() for k in (0, 1)]
    assert sorted(names) == [0, 1]
    assert np.mean(columns.grain[sure] != np.array(names)[grain[nearest[sure]]]) <= 0.005
    assert np.mean((columns.sublattice[sure] == 0) != metal[nearest[sure]]) <= 0.005
    assert np.mean(gap[abs(distance(columns.positions)) > AWAY] > 0.3 * SPACING) <= 0.01


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("turn", [5, 8, 12, 16, 20, 25, 30])
def test_no_grain_goes_on_across_a_rotated_boundary(turn, seed):
    image, *truth = bicrystal(turn, seed)
    check(find_columns(Micrograph(image, LATTICE / SPACING), Host()), *truth)


@pytest.mark.parametrize("seed", range(1, 7))
def test_mirror_twins_are_numbered_apart(seed):
    image, *truth = bicrystal(60, seed)
    check(find_columns(Micrograph(image, LATTICE / SPACING), Host()), *truth)


@pytest.mark.parametrize("turn", [7, 15, 60])
def test_a_hole_in_the_boundary_holds_no_columns(turn):
    image, *truth = bicrystal(turn, 4, hole=3.5)
    columns = find_columns(Micrograph(image, LATTICE / SPACING), Host())
    check(columns, *truth)
    assert np.hypot(*(columns.positions - SIZE / 2).T).min() > 2.8 * SPACING


@pytest.mark.parametrize("kind", ["perfect", "drift", "strain", "hole"])
def test_a_single_crystal_is_one_grain(kind):
    columns = find_columns(make_scene(kind, seed=21).micrograph, Host())
    assert (columns.grain == 0).mean() > 0.995 and columns.grain.max() == 0


def test_a_contrast_that_changes_gradually_is_no_twin():
    """X2 is the brighter sublattice at the left, metal at the right, as aberrations that vary over the field do it."""
    rng = np.random.default_rng(5)
    metal, chalcogen, _ = honeycomb(SIZE, SPACING, 0.3, (3.0, 1.0))
    positions = np.concatenate([metal, chalcogen])
    side = np.repeat([1, -1], [len(metal), len(chalcogen)])
    brightness = 0.75 + side * 0.25 * np.clip(2 * positions[:, 1] / SIZE - 0.7, -1, 1)
    image = paint(SIZE, positions, brightness, 0.17 * SPACING, 300.0, rng)
    columns = find_columns(Micrograph(image, LATTICE / SPACING), Host())
    assert (columns.grain == 0).mean() > 0.99
    _, nearest = cKDTree(positions).query(columns.positions)
    assert np.mean((columns.sublattice == 0) == (side[nearest] == 1)) > 0.99


@pytest.mark.parametrize("seed", [5, 6, 9])
def test_a_second_layer_leaves_one_grain(seed):
    anomaly = simulate_anomaly("bilayer AA", "WSe2", "Cr", 80e3, "HAADF", seed=seed, dose=5000.0, size=80.0)
    columns = find_columns(anomaly.simulated.micrograph, anomaly.context)
    assert columns.grain.max() == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_adatoms_in_hollow_sites_stand_on_no_lattice(seed):
    anomaly = simulate_anomaly("adatom in hollow", "WSe2", "Cr", 80e3, "HAADF", seed=seed, dose=5000.0, size=80.0)
    columns = find_columns(anomaly.simulated.micrograph, anomaly.context)
    off, fate = columns.grain < 0, anomaly_at(anomaly, columns.positions)
    assert off[fate == 1].all()
    assert np.count_nonzero(fate == 1) >= 0.9 * np.count_nonzero(anomaly.anomalous == 1)
    assert off[fate == 0].mean() < 0.005


@pytest.mark.parametrize("seed", [0, 3, 6])
def test_grains_of_a_simulated_micrograph(seed):
    """Two grains about the same size, as their lattices tell: each sees the six directions of one orientation."""
    anomaly = simulate_anomaly("rotated boundary", "WSe2", "Cr", 80e3, "HAADF", seed=seed, dose=5000.0, size=80.0)
    columns = find_columns(anomaly.simulated.micrograph, anomaly.context)
    assert columns.grain.max() == 1
    known = anomaly_at(anomaly, columns.positions) == 0
    a = anomaly.context.lattice_constant / anomaly.simulated.micrograph.sampling
    for grain in (0, 1):
        own = columns.positions[known & (columns.grain == grain) & (columns.sublattice == 0)]
        pairs = cKDTree(own).query_pairs(1.2 * a, output_type="ndarray")
        row, column = (own[pairs[:, 1]] - own[pairs[:, 0]]).T
        turn = np.exp(6j * np.arctan2(row, column))
        off = np.rad2deg(np.angle(turn * np.conj(turn.sum()))) / 6
        columns_off = np.mean(abs(off) > 10)  # drift shears, so a single vector may be some degrees off
        assert columns_off < 0.03
