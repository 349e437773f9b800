"""The mean lattice of a grain: given back from ideal, distorted, noisy, twinned and simulated ones."""

from dataclasses import replace

import numpy as np
import pytest
from classified import classification, honeycomb, posterior
from hypothesis import given
from hypothesis import strategies as st

import contextem as ctm
from contextem.grain_lattices import grain_lattices, grain_summary
from contextem.micrograph import Detector
from contextem.simulate.dataset import simulate_micrograph

A = 16.6  # px at 0.2 Å/px: the lattice constant 3.32 Å of `classification`


def crystal(cells=12, turn=0.0, affine=((1, 0), (0, 1)), seed=None, **values):
    """An ideal grain turned by degrees, then deformed by a matrix on (x, y), with 0.3 px of noise from a seed."""
    positions, labels, _ = honeycomb(cells, A, turn)
    positions = (positions[:, ::-1] @ np.transpose(affine))[:, ::-1]
    if seed is not None:
        positions = positions + np.random.default_rng(seed).normal(scale=0.3, size=positions.shape)
    return classification(positions, posterior(labels), **values)


def apart(one, other, period):
    """Degrees between two directions that repeat after a period."""
    return abs((one - other + period / 2) % period - period / 2)


@given(st.floats(-180, 180))
def test_a_turned_grain_tells_by_how_much(turn):
    (found,) = grain_lattices(crystal(turn=turn))
    assert found.columns == 288
    assert found.lattice_constant == pytest.approx(3.32)
    assert -30 < found.rotation <= 30
    assert apart(found.rotation, turn, 60) < 1e-6
    assert -60 < found.bond_direction <= 60
    assert apart(found.bond_direction, turn + 30, 120) < 1e-6
    assert found.elongation < 1e-9
    assert found.area == pytest.approx(0.01 * 144 * 3.32**2 * np.sqrt(3) / 2)


@given(st.floats(0, 360), st.floats(0.002, 0.06), st.floats(-90, 90), st.floats(-0.03, 0.03))
def test_a_distorted_grain_tells_scale_and_elongation(turn, elongation, axis, growth):
    along = np.array([np.cos(np.deg2rad(axis)), np.sin(np.deg2rad(axis))])
    stretch = np.eye(2) + elongation * np.outer(along, along)
    stretch *= (1 + growth) / np.sqrt(np.linalg.det(stretch))
    (found,) = grain_lattices(crystal(turn=turn, affine=stretch))
    assert found.lattice_constant == pytest.approx(3.32 * (1 + growth), rel=1e-6)
    assert found.elongation == pytest.approx(elongation, rel=1e-4)
    assert apart(found.elongation_axis, axis, 180) < 0.01
    assert apart(found.rotation, turn, 60) < 1e-4


def test_lattice_vectors_lead_from_column_to_column():
    (found,) = grain_lattices(crystal(turn=11.0))
    step = 3.32 * np.exp(1j * np.deg2rad([11.0, 71.0]))
    np.testing.assert_allclose(found.vectors, np.column_stack([step.imag, step.real]), atol=1e-9)


def test_noise_and_displaced_columns_hardly_move_it():
    noisy = crystal(cells=20, turn=5.0, seed=1)
    strays = np.random.default_rng(2).choice(len(noisy), 40, replace=False)
    positions = noisy.positions.copy()
    positions[strays] += 4.0
    (found,) = grain_lattices(replace(noisy, positions=positions))
    assert found.lattice_constant == pytest.approx(3.32, rel=2e-3)
    assert found.rotation == pytest.approx(5.0, abs=0.1)
    assert found.elongation < 4e-3


def test_grains_are_told_one_by_one_and_twins_by_their_bonds():
    one, two = crystal(turn=3.0), crystal(turn=63.0)
    joined = {
        name: np.concatenate([getattr(one, name), getattr(two, name)])
        for name in one.__dataclass_fields__
        if isinstance(getattr(one, name), np.ndarray)
    }
    joined["positions"][288:, 1] += 40 * A
    joined["grain"][288:] = 4
    joined["grain"][:5] = -1
    both = grain_lattices(replace(one, **joined))
    assert [(each.grain, each.columns) for each in both] == [(0, 283), (4, 288)]
    assert both[0].rotation == pytest.approx(both[1].rotation)
    assert apart(both[0].bond_direction, both[1].bond_direction, 120) == pytest.approx(60)


@pytest.mark.parametrize("members", [0, 1, 2])
def test_grains_too_small_for_a_lattice_are_left_out(members):
    assert grain_lattices(replace(crystal(), grain=np.where(np.arange(288) < members, 0, -1).astype(np.int32))) == ()


def test_columns_of_one_sublattice_have_no_bonds():
    whole = crystal()
    (found,) = grain_lattices(replace(whole, grain=np.where(whole.labels == 0, 0, -1).astype(np.int32)))
    assert np.isnan(found.bond_direction)
    (row,) = grain_summary(replace(whole, grain=np.where(whole.labels == 0, 0, -1).astype(np.int32)))
    assert row["bond_direction_degrees"] is None


def test_the_summary_of_a_simulated_grain_is_that_of_its_true_columns():
    made = simulate_micrograph(
        "WSe2", None, 80e3, Detector("HAADF", 70.0, 200.0), 3, size=70.0, strain=0.02, drift=0.0, jitter=0.02, dose=3e3
    )
    found = ctm.classify(made.micrograph, made.context)
    (row,) = grain_summary(found)
    true = made.columns
    placed = classification(true.positions, posterior(made.labels), sampling=found.sampling, sublattice=true.sublattice)
    (expected,) = grain_summary(placed)
    assert row["lattice_constant_angstrom"] == pytest.approx(expected["lattice_constant_angstrom"], rel=2e-3)
    assert apart(row["rotation_degrees"], expected["rotation_degrees"], 60) < 0.15
    assert apart(row["bond_direction_degrees"], expected["bond_direction_degrees"], 120) < 1.5
    assert expected["elongation"] > 0.005
    assert row["elongation"] == pytest.approx(expected["elongation"], abs=3e-3)
    assert row["area_nm2"] == pytest.approx(49, rel=0.1)
    assert row["columns"] == len(found)


def test_a_real_micrograph_has_one_grain_of_tungsten_diselenide(experimental_data):
    micrograph = ctm.read(experimental_data / "ti_wse2_field2_haadf.dm4", detector="HAADF")
    result = ctm.classify(micrograph, ctm.Context("WSe2", "Ti", energy=80e3, detector="HAADF"))
    (row,) = grain_summary(result)
    assert row["lattice_constant_angstrom"] == pytest.approx(3.32, rel=0.05)
    assert row["columns"] > 8000
    width, height = (0.1 * n * result.sampling for n in micrograph.shape)
    assert row["area_nm2"] == pytest.approx(width * height, rel=0.02)
