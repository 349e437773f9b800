"""Figure 1: the context does what the figure says it does, and the files are written."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from contextem.examples import figure1


@pytest.fixture(scope="module")
def pair():
    return figure1.compare()


def test_both_materials_have_the_same_sites_and_look_alike(pair):
    one, two = pair.micrographs
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_allclose(one.columns.positions, two.columns.positions, atol=1e-9)
    assert one.micrograph.shape == two.micrograph.shape
    assert pair.contrast == pytest.approx((1.65, 1.82), rel=0.06)
    alike = np.corrcoef(one.scene.image.ravel(), two.scene.image.ravel())[0, 1]
    assert alike > 0.9


def test_the_right_context_is_better_than_the_other_and_than_none(pair):
    mean = {way: np.mean([accuracy[way] for accuracy in pair.accuracy]) for way in figure1.WAYS}
    assert mean["its own context"] > mean["the other's context"]
    for accuracy in pair.accuracy:
        assert accuracy["its own context"] > 0.97
        assert accuracy["its own context"] >= accuracy["the other's context"]
        assert accuracy["its own context"] > accuracy["no context"] + 0.05


def test_figure_rings_the_wrong_columns(pair):
    axes = figure1.draw(pair).axes
    assert len(axes) == 8
    right = pair.accuracy[1]["no context"]
    rings = axes[7].get_lines()[-1].get_xdata()
    complete = pair.classified[1]["no context"].complete.sum()
    assert len(rings) == round((1 - right) * complete)
    assert axes[7].get_xlabel() == f"{100 * right:.1f} % right"


def test_command_writes_figure_and_numbers(tmp_path):
    done = CliRunner().invoke(figure1.main, ["-o", str(tmp_path / "here")])
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == ["figure1.json", "figure1.pdf", "figure1.png"]
    facts = json.loads((tmp_path / "here" / "figure1.json").read_text())
    assert list(facts) == ["WTe2:Ti", "NbSe2:Cu"]
    with Image.open(tmp_path / "here" / "figure1.png") as image:
        assert image.size[0] == pytest.approx(8.0 / 2.54 * 400, abs=2)
