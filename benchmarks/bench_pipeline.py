"""From micrograph to classes: 1024 x 1024 px, about 8,000 columns; the share of each stage in the time."""

import time

import numpy as np

import contextem as ctm
from contextem.calibration import calibrate
from contextem.contrast import contrast_features
from contextem.measurement import measure
from contextem.moments import column_moments
from contextem.neighbours import neighbourhood
from contextem.patches import patch_complete
from contextem.scores import score_columns
from contextem.simulate.dataset import simulate_micrograph

REPEATS = 10
BAR = 50_000
"""Columns a second that moments are to become probabilities at, on two cores."""


def test_micrograph_of_eight_thousand_columns(capsys):
    simulated = simulate_micrograph("WSe2", "Cr", 80e3, "HAADF", 3, size=195.0, sampling=195 / 1024, dose=5000.0)
    micrograph, context, model = simulated.micrograph, simulated.context, ctm.load_model()
    a = context.lattice_constant
    best = np.full(5, np.inf)
    for _ in range(3):
        marks = [time.perf_counter()]
        columns = ctm.find_columns(micrograph, context)
        marks.append(time.perf_counter())
        calibration = calibrate(columns, a, micrograph.sampling)
        marks.append(time.perf_counter())
        contrast, complete, around = measure(micrograph, columns, a, model.config, calibration.scale)
        marks.append(time.perf_counter())
        prediction = model.predict(contrast, model.context_features(context), around)
        marks.append(time.perf_counter())
        result = ctm.classify(micrograph, context)
        marks.append(time.perf_counter())
        best = np.minimum(best, np.diff(marks))

    np.testing.assert_allclose(result.probabilities, prediction.probabilities, atol=1e-5)
    np.testing.assert_allclose(result.familiarity, prediction.familiarity, atol=1e-4)
    scores = score_columns(result, simulated.columns.positions, simulated.labels, tolerance=0.5)
    assert scores.accuracy > 0.93
    assert complete.mean() > 0.9
    with capsys.disabled():
        print(
            f"\n{len(columns)} columns in {micrograph.shape[0]} x {micrograph.shape[1]} px, best of 3 (the bar is 3 s)"
        )
        show(("columns", "calibration", "measured", "classifier"), best[:4], len(columns))
        print(f"classify     {1e3 * best[4]:8.1f} ms  {len(columns) / best[4]:>10,.0f} columns/s")


def test_moments_become_probabilities(capsys):
    simulated = simulate_micrograph("WSe2", "Cr", 80e3, "HAADF", 3, size=195.0, sampling=195 / 1024, dose=5000.0)
    micrograph, context, columns = simulated.micrograph, simulated.context, simulated.columns
    model = ctm.load_model()
    basis, spacing = model.config.basis, context.lattice_constant / micrograph.sampling
    scale = model.config.patch_step(context.lattice_constant) / micrograph.sampling
    moments = column_moments(micrograph.as_float("float32"), columns.positions, basis, scale=scale)
    complete = patch_complete(micrograph.shape, columns.positions, model.config.size, scale=scale)
    features = model.context_features(context)
    best = np.full(3, np.inf)
    for _ in range(REPEATS):
        marks = [time.perf_counter()]
        around = neighbourhood(columns.positions, columns.sublattice, complete, spacing)
        marks.append(time.perf_counter())
        contrast = contrast_features(moments, complete, around, basis)
        marks.append(time.perf_counter())
        prediction = model.predict(contrast, features, around)
        marks.append(time.perf_counter())
        best = np.minimum(best, np.diff(marks))

    right = prediction.probabilities.argmax(axis=1) == simulated.labels
    assert right[complete].mean() > 0.93
    with capsys.disabled():
        print(f"\nmoments of {len(columns)} columns, best of {REPEATS} (the bar is {BAR:,} columns/s on two cores)")
        show(("neighbours", "contrast", "classifier"), best, len(columns))


def show(stages, seconds, count):
    for stage, each in zip((*stages, "together"), (*seconds, seconds.sum()), strict=True):
        print(f"{stage:<12} {1e3 * each:8.1f} ms  {count / each:>10,.0f} columns/s")
