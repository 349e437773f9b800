"""From micrograph to classes: 1024 x 1024 px, about 8,000 columns; the share of each stage in the time."""

import time

import numpy as np

import contextem as ctm
from contextem.pipeline import measure
from contextem.scores import score_columns
from contextem.simulate.dataset import simulate_micrograph


def test_micrograph_of_eight_thousand_columns(capsys):
    simulated = simulate_micrograph("WSe2", "Cr", 80e3, "HAADF", 3, size=195.0, sampling=195 / 1024, dose=5000.0)
    micrograph, context, model = simulated.micrograph, simulated.context, ctm.load_model()
    best = np.full(3, np.inf)
    for _ in range(3):
        marks = [time.perf_counter()]
        columns = ctm.find_columns(micrograph, context)
        marks.append(time.perf_counter())
        contrast, complete = measure(micrograph, columns, context.lattice_constant, model.config)
        marks.append(time.perf_counter())
        probabilities = model.predict(contrast, model.context_features(context))
        marks.append(time.perf_counter())
        best = np.minimum(best, np.diff(marks))

    result = ctm.classify(micrograph, context)
    np.testing.assert_allclose(result.probabilities, probabilities, atol=1e-5)
    scores = score_columns(result, simulated.columns.positions, simulated.labels, tolerance=0.5)
    assert scores.accuracy > 0.93
    assert complete.mean() > 0.9
    with capsys.disabled():
        print(
            f"\n{len(columns)} columns in {micrograph.shape[0]} x {micrograph.shape[1]} px, best of 3 (the bar is 3 s)"
        )
        for stage, seconds in zip(("columns", "moments", "classifier"), best, strict=True):
            print(f"{stage:<12} {seconds:6.2f} s  {len(columns) / seconds:>10,.0f} columns/s")
        print(f"{'together':<12} {best.sum():6.2f} s  {len(columns) / best.sum():>10,.0f} columns/s")
