"""Carbon under the columns, on images made of Gaussians."""

import numpy as np
import pytest
from test_calibration import A, honeycomb

import contextem as ctm
from contextem.background import HEAVY, haze, local_background
from contextem.neighbours import neighbourhood
from contextem.remarks import ClassificationWarning
from contextem.simulate.dataset import simulate_micrograph

SAMPLING = 0.2


def crystal(level=None):
    """Image of Gaussians, metal 1 and chalcogen 0.7 high, over a background; positions and neighbours."""
    positions, side = honeycomb(50.0)
    pixels = positions / SAMPLING + 140.0
    row, column = np.mgrid[:280, :280]
    image = np.zeros((280, 280)) if level is None else level(row, column)
    for (r, c), s in zip(pixels, side, strict=True):
        near = np.s_[max(0, int(r) - 8) : int(r) + 9, max(0, int(c) - 8) : int(c) + 9]
        image[near] += (0.7 if s else 1.0) * np.exp(-((row[near] - r) ** 2 + (column[near] - c) ** 2) / (2 * 2.0**2))
    around = neighbourhood(pixels, side.astype(np.int8), np.ones(len(side), bool), A / SAMPLING)
    return image.astype(np.float32), pixels, around


def test_a_slope_is_the_background():
    def slope(row, column):
        return 3.0 + 0.01 * row + 0.02 * column

    image, pixels, around = crystal(slope)
    background = local_background(image, pixels, around)
    whole = (around.first >= 0).all(axis=1)
    # tails of the six columns around a hollow site reach it
    over = background[whole] - slope(*pixels[whole].T)
    assert np.ptp(over) < 0.02 and 0.0 < np.median(over) < 0.1


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (250.0, -40.0)])
def test_a_cloud_is_measured_in_columns_whatever_gain_and_offset(gain, offset):
    def cloud(row, column):
        return 2.0 * np.exp(-((row - 60.0) ** 2 + (column - 60.0) ** 2) / (2 * 40.0**2))

    image, pixels, around = crystal(cloud)
    carbon = haze(gain * image + np.float32(offset), pixels, around)
    inner = (np.abs(pixels - 140.0) < 100.0).all(axis=1)
    np.testing.assert_allclose(carbon[inner], cloud(*pixels[inner].T), atol=0.12)


def test_without_hollow_sites_there_is_no_carbon_to_tell():
    around = neighbourhood(np.array([[5.0, 5.0]]), np.zeros(1, np.int8), np.ones(1, bool), 10.0)
    assert haze(np.ones((10, 10), np.float32), np.array([[5.0, 5.0]]), around).tolist() == [0.0]


def test_columns_under_heavy_carbon_are_flagged_and_not_counted():
    made = simulate_micrograph(
        "WSe2", "Cr", 80e3, "HAADF", 9, dose=8000.0, sampling=0.2, haze=0.01, vacancy_fraction=0.1
    )
    image = made.micrograph.as_float("float64")
    row, column = np.mgrid[: image.shape[0], : image.shape[1]]
    peak = np.quantile(image, 0.99) - np.quantile(image, 0.05)
    cloud = 3.0 * peak * np.exp(-((row - 50.0) ** 2 + (column - 50.0) ** 2) / (2 * 25.0**2))
    noisy = image + np.random.default_rng(0).poisson(cloud)
    with pytest.warns(
        ClassificationWarning, match=r"^columns: \d\d % look like none of the classes; .* or carbon in the image$"
    ):
        result = ctm.classify(ctm.Micrograph(noisy, 0.2), ctm.Context("WSe2", "Cr", 80e3, "HAADF"))
    distance = np.hypot(*(result.positions - 50.0).T)
    assert result.contaminated[distance < 20.0].mean() > 0.95
    assert not result.contaminated[distance > 70.0].any()
    assert not (result.counted & result.contaminated).any()
    clean = ctm.classify(made.micrograph, ctm.Context("WSe2", "Cr", 80e3, "HAADF"))
    assert not clean.contaminated.any()
    assert HEAVY == 1.0


def test_scale_and_offset_leave_the_flags():
    made = simulate_micrograph("WSe2", "Cr", 80e3, "HAADF", 9, dose=8000.0, sampling=0.2, haze=0.6)
    context = ctm.Context("WSe2", "Cr", 80e3, "HAADF")
    one = ctm.classify(made.micrograph, context)
    two = ctm.classify(ctm.Micrograph(0.3 * made.micrograph.as_float("float64") + 11.0, 0.2), context)
    assert one.contaminated.any()
    assert np.mean(one.contaminated == two.contaminated) > 0.995
