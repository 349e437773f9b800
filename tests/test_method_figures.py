"""Figures of the method page: they show what their captions say, and the files are written."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from contextem.columns import CLASSES
from contextem.examples import method


def test_what_is_left_of_a_patch_falls_with_the_degree():
    figure = method.draw_reconstruction()
    left = [float(axes.get_xlabel().removesuffix(" %")) for axes in figure.axes if axes.get_xlabel()]
    table = np.reshape(left, (len(CLASSES), len(method.DEGREES)))
    assert (np.diff(table, axis=1) < 0).all()
    assert table[:, method.DEGREES.index(4)].min() > 50  # a middle is hardly told from its neighbours
    assert table[:, method.DEGREES.index(10)].max() < 10
    assert table[:, -1].max() < 1


def test_moduli_stay_while_moments_turn():
    left, right = method.draw_rotation().axes
    curves = [line.get_ydata() for line in left.get_lines()]
    for cosine, sine, modulus in zip(curves[::3], curves[1::3], curves[2::3], strict=True):
        np.testing.assert_allclose(np.hypot(cosine, sine), modulus, rtol=1e-9)
        assert np.std(modulus) < 0.02 * np.ptp(cosine)
    change = {line.get_label(): line.get_ydata() for line in right.get_lines()}
    assert (np.array(change["integrated"]) < np.array(change["projection"]) / 5).all()
    assert (np.array(change["integrated"]) < np.array(change["lstsq"])).all()


def test_noise_widens_the_clouds():
    axes = method.draw_noise().axes
    scatter = []
    for bottom in axes[len(method.DOSES) :]:
        clouds = {line.get_label(): line.get_xdata() for line in bottom.get_lines()}
        assert list(clouds) == [name.replace("_", " ") for name in CLASSES]
        assert min(len(cloud) for cloud in clouds.values()) >= 10
        scatter.append(np.mean([np.std(cloud) for cloud in clouds.values()]))
    assert (np.diff(scatter) < 0).all()


def test_metal_and_chalcogens_change_places():
    for axes in method.draw_brightness().axes:
        lines = {line.get_label(): np.array(line.get_ydata()) for line in axes.get_lines()}
        assert (lines["X2"] > 1).any() and (lines["X2"] < 1).any()
        assert (lines["single vacancy"] < lines["X2"]).all()


def test_command_writes_every_figure(tmp_path):
    done = CliRunner().invoke(method.main, ["-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert {path.stem for path in tmp_path.iterdir()} == set(method.FIGURES)
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert image.size[0] == pytest.approx(method.WIDE * 220, abs=2)
