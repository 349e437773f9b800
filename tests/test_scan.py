"""Scan correction: rows and drift displaced by known amounts."""

import numpy as np
import pytest
from labelled_fields import read_field
from scipy import ndimage

import contextem as ctm
from contextem.scan import correct_scan
from contextem.scores import score_columns
from contextem.simulate.dataset import simulate_micrograph

SAMPLING, SMOOTH = 0.2, 16.6  # Å/px; px, a lattice constant


def simulated(**given):
    conditions = {"size": 80.0, "dose": 8000.0, "sampling": SAMPLING, "jitter": 0.15, "drift": 0.3, "strain": 0.0}
    return simulate_micrograph("WSe2", "Cr", 80e3, "HAADF", 41, **conditions | given)


def truth(made):
    """How far rows and specimen are displaced, px: what the rows share with their neighbours is drift."""
    displaced = -made.scene.offsets / SAMPLING
    rows = np.arange(len(displaced))
    jitter = displaced[:, 1] - ndimage.gaussian_filter1d(displaced[:, 1], SMOOTH, mode="nearest")
    line = np.polyfit(rows, displaced, 1)
    drift = displaced - np.outer(rows, line[0]) - line[1]
    return jitter, ndimage.gaussian_filter1d(drift, SMOOTH / 2, axis=0)


@pytest.fixture(scope="module")
def corrected():
    made = simulated()
    return made, correct_scan(made.micrograph, made.context)


def test_jitter_and_drift_are_measured(corrected):
    made, found = corrected
    jitter, drift = truth(made)
    assert np.std(found.jitter - jitter) < 0.3 * np.std(jitter)
    inner = slice(20, -20)
    assert (np.std((found.drift - drift)[inner], axis=0) < 0.15 * np.std(drift[inner], axis=0)).all()


def test_what_is_corrected_is_smaller_the_next_time(corrected):
    made, found = corrected
    again = correct_scan(found.micrograph, made.context)
    assert np.std(again.jitter) < 0.4 * np.std(found.jitter)
    assert np.std(again.drift) < 0.2 * np.std(found.drift)


def test_columns_of_the_corrected_image_stand_on_a_straighter_lattice(corrected):
    made, found = corrected
    spread = {}
    for name, micrograph in (("raw", made.micrograph), ("corrected", found.micrograph)):
        result = ctm.classify(micrograph, made.context)
        strain = result.strain()
        spread[name] = np.nanstd([strain.eyy, strain.exy])
    assert spread["corrected"] < 0.5 * spread["raw"]


def test_classes_stay_what_they_are(corrected):
    made, found = corrected
    result = ctm.classify(found.micrograph, made.context)
    rows = np.rint(made.columns.positions[:, 0]).astype(int)
    # drift moves columns by less than half the tolerance
    scores = score_columns(result, made.columns.positions - found.drift[rows], made.labels, tolerance=0.6)
    before = score_columns(
        ctm.classify(made.micrograph, made.context), made.columns.positions, made.labels, tolerance=0.6
    )
    assert scores.accuracy > before.accuracy - 0.005


def test_a_steady_scan_is_left_alone():
    made = simulated(jitter=0.0, drift=0.0)
    found = correct_scan(made.micrograph, made.context)
    assert np.std(found.jitter) < 0.1
    assert np.abs(found.drift).max() < 0.3
    difference = found.micrograph.data - made.micrograph.data
    assert np.std(difference) < 0.5 * np.std(made.micrograph.data)


@pytest.mark.parametrize(("jitter", "drift"), [(True, False), (False, True), (False, False)])
def test_each_is_corrected_only_where_that_is_wanted(jitter, drift):
    made = simulated()
    found = correct_scan(made.micrograph, made.context, jitter=jitter, drift=drift)
    assert found.jitter.any() == jitter and found.drift.any() == drift
    changed = not np.allclose(found.micrograph.data, made.micrograph.data, atol=1e-2)
    assert changed == (jitter or drift)
    assert (found.micrograph.sampling, found.micrograph.energy) == (SAMPLING, 80e3)
    wanted = [name for name, on in (("jitter", jitter), ("drift", drift)) if on]
    assert found.micrograph.source.endswith(f"{' and '.join(wanted)} corrected" if wanted else made.micrograph.source)


def test_it_is_the_same_every_time():
    made = simulated(dose=1000.0)
    one, two = (correct_scan(made.micrograph, made.context).micrograph.data for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_noise_is_refused():
    noise = ctm.Micrograph(np.random.default_rng(0).normal(size=(200, 200)), SAMPLING)
    with pytest.raises(ValueError, match=r"^micrograph: no lattice"):
        correct_scan(noise, ctm.Context("WSe2"))


@pytest.mark.experimental
def test_a_real_scan_becomes_straighter(experimental_data):
    field = read_field(experimental_data, "Ti:WSe2 field 2")
    found = correct_scan(field.haadf, field.context)
    spread = {}
    for name, micrograph in (("raw", field.haadf), ("corrected", found.micrograph)):
        result = ctm.classify(micrograph, field.context)
        spread[name] = np.nanstd(result.strain().eyy)
    assert spread["corrected"] < 0.9 * spread["raw"]
    assert score_columns(result, field.positions, field.labels, tolerance=0.8, count_extra=False).macro_f1 > 0.93
