"""The lattice as a ruler: lattices laid out by hand, distorted by known matrices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

import contextem as ctm
from contextem.calibration import DISAGREEMENT, calibrate
from contextem.columns import Columns, find_columns
from contextem.remarks import SamplingWarning
from contextem.scores import score_columns
from contextem.simulate.dataset import simulate_micrograph

A = 3.3


def honeycomb(side=60.0, turn=0.2):
    """Positions, Å, and sublattices of a honeycomb of lattice constant `A` in a square."""
    i, j = np.mgrid[-60:61, -60:61].reshape(2, -1)
    cells = A * np.stack([np.sqrt(0.75) * i, j + i / 2], axis=1)
    both = np.vstack([cells, cells + np.array([A / np.sqrt(3), 0.0])])
    c, s = np.cos(turn), np.sin(turn)
    both = both @ np.array([[c, -s], [s, c]]).T
    inside = (np.abs(both) < side / 2).all(axis=1)
    return both[inside], np.repeat([0, 1], len(cells))[inside]


def symmetric(sampling, shear, stretch):
    """(2, 2) px/Å of a scan."""
    distortion = np.array([[1.0 + stretch, shear], [shear, 1.0 - stretch]])
    return distortion / np.sqrt(np.linalg.det(distortion)) / sampling


@given(st.floats(0.1, 0.4), st.floats(-0.06, 0.06), st.floats(-0.06, 0.06), st.floats(0.0, 1.0), st.floats(-0.06, 0.06))
def test_any_distortion_is_measured_exactly(sampling, shear, stretch, turn, off):
    positions, side = honeycomb(turn=turn)
    scale = symmetric(sampling, shear, stretch)
    columns = Columns(positions @ scale.T, side, grain=np.zeros(len(side), int))
    found = calibrate(columns, A, sampling * (1 + off))
    assert found.measured
    np.testing.assert_allclose(found.scale, scale, rtol=1e-6, atol=1e-6)
    assert found.by_lattice == pytest.approx(sampling, rel=1e-6)
    assert found.disagrees == (abs(1 / (1 + off) - 1) > DISAGREEMENT)
    assert found.sampling == pytest.approx(sampling if found.disagrees else sampling * (1 + off))
    assert np.linalg.det(found.distortion) == pytest.approx(1.0)


def test_grains_of_any_orientation_measure_the_same_scan():
    scale = symmetric(0.2, 0.03, -0.01)
    one, sides = honeycomb(turn=0.1)
    two, other_sides = honeycomb(turn=0.45)
    left, right = one[:, 1] < -1.0, two[:, 1] > 1.0
    positions = np.vstack([one[left], two[right]])
    columns = Columns(
        positions @ scale.T,
        np.concatenate([sides[left], other_sides[right]]),
        grain=np.repeat([0, 1], [left.sum(), right.sum()]),
    )
    np.testing.assert_allclose(calibrate(columns, A, 0.2).scale, scale, rtol=1e-6)


def test_noise_defects_and_missing_columns_are_within_the_error():
    rng = np.random.default_rng(1)
    positions, side = honeycomb(80.0)
    scale = symmetric(0.2, 0.02, 0.0)
    misses = []
    for _ in range(40):
        pixels = positions @ scale.T + rng.normal(0.0, 0.4, positions.shape)
        pixels[rng.random(len(pixels)) < 0.03] += 2.0  # jumped
        kept = rng.random(len(pixels)) > 0.1
        found = calibrate(Columns(pixels[kept], side[kept], grain=np.zeros(kept.sum(), int)), A, 0.2)
        misses.append((found.by_lattice / 0.2 - 1.0) / found.error)
    assert np.sqrt(np.mean(np.square(misses))) == pytest.approx(1.0, abs=0.5)


def test_sublattices_need_not_be_known():
    positions, side = honeycomb()
    known = calibrate(Columns(positions / 0.21, side), A, 0.2)
    unknown = calibrate(Columns(positions / 0.21), A, 0.2)
    np.testing.assert_allclose(known.scale, unknown.scale)


def test_a_few_columns_are_no_ruler():
    positions, side = honeycomb(8.0)
    found = calibrate(Columns(positions / 0.25, side), A, 0.2)
    assert not found.measured and not found.disagrees
    assert found.sampling == found.by_lattice == pytest.approx(0.2)
    assert found.to_dict()["by_lattice_angstrom_per_px"] is None


@pytest.mark.parametrize("off", [0.97, 1.0, 1.05])
def test_a_header_that_is_off_is_overruled_in_the_classification(off):
    made = simulate_micrograph("MoS2", "V", 80e3, "HAADF", 4, sampling=0.2, dose=8000.0, strain=0.0, drift=0.0)
    stated = ctm.Micrograph(made.micrograph.data, 0.2 * off)
    result = ctm.classify(stated, ctm.Context("MoS2", "V", energy=80e3, detector="HAADF"))
    calibration = result.provenance["calibration"]
    assert calibration["stated_angstrom_per_px"] == pytest.approx(0.2 * off)
    assert calibration["by_lattice_angstrom_per_px"] == pytest.approx(0.2, rel=5e-3)
    assert calibration["used"] == ("stated" if off == 1.0 else "lattice")
    assert result.sampling == pytest.approx(0.2, rel=5e-3)


def test_a_header_that_is_far_off_is_doubted():
    made = simulate_micrograph("MoS2", "V", 80e3, "HAADF", 4, sampling=0.2, dose=8000.0, strain=0.0, drift=0.0)
    stated = ctm.Micrograph(made.micrograph.data, 0.2 * 1.08)
    with pytest.warns(
        SamplingWarning, match=r"^sampling: 0.[12]\d* Å/px by the lattice of MoS2 is 7 % below the 0.216 Å/px stated"
    ):
        result = ctm.classify(stated, ctm.Context("MoS2", "V", energy=80e3, detector="HAADF"))
    assert [each[:9] for each in result.provenance["warnings"]] == ["sampling:"]


@pytest.mark.parametrize("nothing", ["field.dm4", np.eye(64), [np.eye(64)]])
def test_what_is_no_micrograph_is_refused(nothing):
    with pytest.raises(TypeError, match=r"^micrograph: expected one of contextem.read or contextem.Micrograph, got "):
        ctm.classify(nothing, ctm.Context("MoS2", energy=80e3, detector="HAADF"))


def test_patches_of_a_sheared_scan_are_round_in_the_specimen():
    """Sheared by 5 %, the classes stay what they are: of the columns in both images nearly all keep theirs."""
    made = simulate_micrograph("WSe2", "Cr", 80e3, ctm.Detector("HAADF", 70, 200), 6, sampling=0.12, dose=20_000.0)
    image, context = made.micrograph.as_float("float64"), made.context
    shear = np.array([[1.0, 0.05], [0.05, 1.0]])
    middle = (np.array(image.shape) - 1) / 2
    sheared = ndimage.affine_transform(
        image, np.linalg.inv(shear), middle - np.linalg.inv(shear) @ middle, mode="reflect"
    )
    straight = ctm.classify(made.micrograph, context)
    bent = ctm.classify(ctm.Micrograph(sheared, 0.12), context)
    distortion = np.array(bent.provenance["calibration"]["distortion"])
    before = np.array(straight.provenance["calibration"]["distortion"])
    assert (distortion - before)[0, 1] == pytest.approx(0.05, abs=0.005)
    moved = (straight.positions[straight.complete] - middle) @ shear.T + middle
    gap = np.linalg.norm(bent.positions[bent.complete][:, None] - moved, axis=2)
    near = gap.argmin(axis=0)
    hit = gap.min(axis=0) < 2.0
    same = bent.labels[bent.complete][near] == straight.labels[straight.complete]
    assert hit.mean() > 0.8 and same[hit].mean() > 0.99


def test_eight_pixels_a_lattice_constant_are_enough():
    made = simulate_micrograph(
        "WSe2", "Cr", 80e3, ctm.Detector("HAADF", 60, 200), 8, sampling=3.32 / 8, dose=20_000.0, size=80.0
    )

    result = ctm.classify(made.micrograph, made.context)
    scores = score_columns(result, made.columns.positions, made.labels, tolerance=0.8)
    assert scores.accuracy > 0.95


@pytest.mark.experimental
@pytest.mark.parametrize(("field", "sampling"), [(2, 0.3876), (11, 0.3907)])
def test_both_detectors_of_a_real_scan_measure_the_same(experimental_data, field, sampling):
    found = []
    for name in ("haadf", "adf2"):
        micrograph = ctm.read(experimental_data / f"ti_wse2_field{field}_{name}.dm4")
        columns = find_columns(micrograph, ctm.Context("WSe2"))
        found.append(calibrate(columns, 3.32, micrograph.sampling))
    assert all(each.disagrees for each in found)
    assert found[0].by_lattice == pytest.approx(found[1].by_lattice, rel=5e-4)
    assert found[0].by_lattice == pytest.approx(sampling, rel=1e-3)
    np.testing.assert_allclose(found[0].distortion, found[1].distortion, atol=5e-4)
