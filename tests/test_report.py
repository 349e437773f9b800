"""What an evaluation leaves behind: every file, every number where it belongs, figures in the asked size."""

import json

import numpy as np
import pytest
from PIL import Image
from test_scores import predictions

from contextem import report
from contextem.curves import Curves, curves_figure, read_curves
from contextem.evaluate import IDEAL, IDEAL_BALANCED
from contextem.model import packaged_model
from contextem.scores import score_predictions

SEEN = {
    "with context": predictions(0, wrong=0.05),
    "without context": predictions(1, wrong=0.3),
    "logistic": predictions(2, wrong=0.5),
    IDEAL: predictions(3, wrong=0.01),
    IDEAL_BALANCED: predictions(3, wrong=0.01),
}
FACTS = {"model": {"name": "a model", "training": {"images": 7, "hosts": ["WS2", "MoTe2"]}}, "test": {"preset": "few"}}


def test_report_writes_scores_card_and_figures(tmp_path):
    written = report.write_report(
        tmp_path / "new" / "folder", SEEN, facts=FACTS, near_z=SEEN, model_folder=packaged_model()
    )
    figures = ["accuracy.png", "confusion.png", "dose.png", "reliability.png"]
    assert [path.name for path in written] == ["scores.json", "card.md", *figures]
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(p.name for p in written)
    plain = json.loads(written[0].read_text())
    assert list(plain["scores"]) == list(plain["near_z"]) == list(SEEN)
    accuracy = score_predictions(SEEN)["logistic"]["80 keV HAADF"].accuracy
    assert plain["scores"]["logistic"]["80 keV HAADF"]["accuracy"] == accuracy
    assert plain["facts"]["test"] == {"preset": "few"}
    for path in written[2:]:
        with Image.open(path) as image:
            assert image.size[0] == pytest.approx(8.0 / 2.54 * 300, abs=2)


def test_card_states_training_scores_and_limits():
    scores = score_predictions(SEEN, by_case=True)
    text = report.card(scores, scores, FACTS, ["dose.png"])
    assert text.startswith("# a model\n")
    for words in ("- images: 7", "- hosts: WS2, MoTe2", "- preset: few", "| WS2:Cr |", "![dose](dose.png)", "ideal"):
        assert words in text
    row = next(line for line in text.splitlines() if line.startswith("| logistic |"))
    all_columns = scores["logistic"]["all"]
    assert f"{100 * all_columns.macro_f1:.2f} | {100 * all_columns.calibration_error:.2f}" in row
    # every table has as many cells in each row as in its head
    tables = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert min(tables) >= 5
    assert "scatter nearly" not in report.card(scores, {}, FACTS)
    assert "Calibration error" in report.card({"one": scores["logistic"]}, {}, {})


def test_entropy_reduction_is_that_of_the_mean_entropies():
    scores = score_predictions({"with context": predictions(0), "without context": predictions(1)})
    assert report.entropy_reduction(scores) == pytest.approx(0.0, abs=1e-9)
    assert report.entropy_reduction({"with context": scores["with context"]}) is None


def test_figures_hold_a_line_for_each_classifier():
    axes = report.dose_figure(SEEN).axes[0]
    assert [line.get_label() for line in axes.get_lines()] == list(SEEN)
    means = axes.get_lines()[0].get_ydata()
    by_image = SEEN["with context"].accuracy_by_image()
    assert 100 - means[0] == pytest.approx(100 * by_image[:4].mean())
    legend = report.reliability_figure(SEEN).legends[0]
    error = 100 * score_predictions(SEEN)["with context"]["all"].calibration_error
    assert legend.get_texts()[0].get_text() == f"with context, {error:.2f} %"
    scores = {name: by["all"] for name, by in score_predictions(SEEN).items()}
    panels = report.confusion_figure(scores).axes
    assert len(panels) == 2
    shown = panels[0].texts[1].get_text()
    assert int(shown.replace(",", "")) == scores["with context"].confusion[0, 0]


def test_curves_come_back_from_the_folder_of_a_model(tmp_path):
    curves = Curves([0.5, 0.7], [0.6, 0.75])
    curves.to_csv(tmp_path / "accuracy.csv")
    assert read_curves(tmp_path) == {"with context": curves}
    lines = curves_figure({"with context": curves}).axes[0].get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), [60.0, 75.0])
    assert read_curves(tmp_path / "nothing") == {}
