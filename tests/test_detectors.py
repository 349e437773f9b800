"""Several detectors at once, and series: both are one specimen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

import contextem as ctm
from contextem.detectors import GAIN, combine, strangers, superimpose
from contextem.model import Prediction
from contextem.remarks import ContextemWarning
from contextem.scores import score_columns
from contextem.series import average, average_by_detector, register
from contextem.simulate.dataset import column_groups, simulate_micrograph
from contextem.simulate.render import superpose


def prediction(seed, n=20):
    rng = np.random.default_rng(seed)
    p, alone = rng.dirichlet(np.full(5, 0.5), (2, n)).astype(np.float32)
    return Prediction(p, alone, rng.normal(size=n).astype(np.float32))


@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_combined_posteriors_are_posteriors_in_any_order(count, seed):
    told = [prediction(seed + k) for k in range(count)]
    one, other = combine(told), combine(told[::-1])
    for p in (one.probabilities, one.patch_probabilities):
        assert p.dtype == np.float32
        np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-5)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_one_detector_stands_for_itself():
    told = prediction(0)
    assert combine([told]) is told


def test_classes_of_a_site_multiply_to_a_power_and_odds_of_sites_add():
    one, two = prediction(1), prediction(2)
    both = combine([one, two]).probabilities.astype(float)
    weight = (1 + GAIN) / 2
    p, q = one.probabilities.astype(float), two.probabilities.astype(float)
    for a, b in ((0, 1), (2, 3), (2, 4)):
        expected = weight * (np.log(p[:, a] / p[:, b]) + np.log(q[:, a] / q[:, b]))
        np.testing.assert_allclose(np.log(both[:, a] / both[:, b]), expected, rtol=1e-3, atol=1e-3)

    def odds(x):
        return np.log(x[:, :2].sum(axis=1) / x[:, 2:].sum(axis=1))

    np.testing.assert_allclose(odds(both), odds(p) + odds(q), rtol=1e-3, atol=1e-3)


def test_a_sublattice_dark_in_one_image_is_seen_in_both_together():
    rng = np.random.default_rng(0)
    one, two = (ctm.Micrograph(rng.normal(5.0, s, (40, 50)), 0.2, 80e3, "HAADF") for s in (1.0, 100.0))
    both = superimpose([one, two])
    expected = sum((m.data - m.data.mean()) / m.data.std() for m in (one, two)) / 2
    np.testing.assert_allclose(both.data, expected, rtol=1e-6)
    assert both.detector is None and superimpose([one]) is one


@pytest.mark.parametrize("other", [((40, 51), 0.2), ((40, 50), 0.21)], ids=["shape", "sampling"])
def test_images_that_were_not_recorded_at_once_are_refused(other):
    shape, sampling = other
    images = [
        ctm.Micrograph(np.random.default_rng(0).normal(size=s), a) for s, a in (((40, 50), 0.2), (shape, sampling))
    ]
    with pytest.raises(ValueError, match=r"^micrograph: expected images recorded at once, with the same shape"):
        superimpose(images)


@pytest.fixture(scope="module")
def pair():
    """The same specimen and scan on two detectors, each with its own noise, and its truth."""
    made = simulate_micrograph(
        "MoS2", "Cr", 80e3, ctm.Detector("HAADF", 70, 200), 3, dose=800.0, sampling=0.2, haze=0.02
    )
    lower = ctm.Detector("MAADF", 50, 120)
    groups = column_groups(
        made.scene.layer,
        "MoS2",
        "Cr",
        80e3,
        lower,
        source_size=made.conditions["source_size"],
        aberrations=made.scene.aberrations,
    )
    image = superpose(groups, made.micrograph.shape, 0.2, made.scene.offsets)
    counts = np.random.default_rng(7).poisson(800.0 * np.maximum(image, 0.0)).astype(np.float32)
    return made, made.micrograph, ctm.Micrograph(counts, 0.2, 80e3, lower)


def test_two_detectors_tell_more_than_either(pair):
    made, one, two = pair
    context = ctm.Context("MoS2", "Cr")
    results = {"one": [one], "two": [two], "both": [one, two]}
    right = {}
    for name, images in results.items():
        result = ctm.classify(images, context, columns=made.columns)
        right[name] = np.mean(result.labels[result.complete] == made.labels[result.complete])
    assert right["both"] > max(right["one"], right["two"])
    found = ctm.classify([one, two], context)
    assert [each["context"]["detector"]["name"] for each in found.provenance["further_detectors"]] == ["MAADF"]
    assert len(found.provenance["further_micrographs"]) == 1
    assert score_columns(found, made.columns.positions, made.labels, tolerance=0.6).accuracy > 0.9


def test_the_order_of_the_detectors_does_not_matter(pair):
    made, one, two = pair
    context = ctm.Context("MoS2", "Cr")
    a, b = (ctm.classify(images, context, columns=made.columns) for images in ([one, two], [two, one]))
    np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-5)


def test_several_images_name_their_detectors_themselves(pair):
    _, one, two = pair
    with pytest.raises(ValueError, match=r"^context: expected no detector beside micrographs .*, got HAADF"):
        ctm.classify([one, two], ctm.Context("MoS2", "Cr", detector="HAADF"))
    with pytest.raises(ValueError, match=r"^micrograph: expected at least one, got none"):
        ctm.classify([], ctm.Context("MoS2", "Cr"))


def test_an_image_of_another_area_is_told_from_one_recorded_at_once(pair):
    made, one, two = pair
    other = simulate_micrograph("MoS2", "Cr", 80e3, ctm.Detector("MAADF", 50, 120), 8, dose=800.0, sampling=0.2)
    assert strangers([one, two]) == []
    elsewhere = ctm.Micrograph(other.micrograph.data, 0.2, 80e3, two.detector, source="other.dm4")
    assert elsewhere.shape == one.shape
    (remark,) = strangers([one, elsewhere])
    assert str(remark).startswith("micrograph: other.dm4 hardly looks like ")
    with pytest.warns(ContextemWarning) as caught:
        result = ctm.classify([one, elsewhere], ctm.Context("MoS2", "Cr"), columns=made.columns)
    assert str(remark) in result.provenance["warnings"] == [str(each.message) for each in caught]


@pytest.mark.experimental
def test_real_images_are_told_apart_by_far(experimental_data):
    images = {
        (field, name): ctm.read(experimental_data / f"ti_wse2_{field}_{name}.dm4")
        for field in ("field2", "field11")
        for name in ("haadf", "adf2")
    }
    for field in ("field2", "field11"):
        assert strangers([images[field, "haadf"], images[field, "adf2"]]) == []
    a, b = (
        ctm.Micrograph(each.data[:500, :500], 0.39) for each in (images["field2", "haadf"], images["field11", "adf2"])
    )
    assert len(strangers([a, b])) == 1


# Series


def frames(shifts, dose=2000.0, seed=0):
    """Noisy images of one crystal, shifted by (row, column) px."""
    made = simulate_micrograph(
        "WSe2", "Cr", 80e3, ctm.Detector("HAADF", 70, 200), 3, size=50.0, sampling=0.2, dose=dose
    )
    rng = np.random.default_rng(seed)
    scene = np.maximum(made.scene.image, 0.0)
    moved = [ndimage.shift(scene, shift, order=3, mode="nearest") for shift in shifts]
    return made, [rng.poisson(dose * np.maximum(each, 0.0)).astype(np.float32) for each in moved]


SHIFTS = np.array([[0.0, 0.0], [1.3, -0.7], [3.1, 0.4], [4.9, -2.2], [7.5, 1.1], [12.0, 5.5]])


def test_shifts_of_a_series_are_found_between_the_pixels():
    """Beyond a lattice constant, 16.6 px, no crystal could be told from itself; the sum of shifts may go further."""
    _, images = frames(SHIFTS, dose=50_000.0)
    np.testing.assert_allclose(register(images), SHIFTS, atol=0.05)


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_whole_pixels_are_found_exactly_without_noise(row, column):
    scene = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(100, 110)), 1.5)
    one, two = scene[10:90, 10:100], scene[10 - row : 90 - row, 10 - column : 100 - column]
    np.testing.assert_allclose(register([one, two])[1], [row, column], atol=0.02)


def test_the_mean_of_a_series_is_the_scene_with_less_noise():
    made, images = frames(SHIFTS, dose=20_000.0)
    series = [ctm.Micrograph(image, 0.2, 80e3, "HAADF", source="field.ser") for image in images]
    mean = average(series)
    assert mean.shape == (made.micrograph.shape[0] - 12, made.micrograph.shape[1] - 9)
    assert (mean.sampling, mean.energy, mean.detector) == (0.2, 80e3, ctm.Detector("HAADF"))
    assert mean.source == "field.ser and 5 more"
    # rows 0.. of the mean are those of the first frame, columns are cut on the left where frames moved left
    scene = 20_000.0 * made.scene.image[: mean.shape[0], 3 : 3 + mean.shape[1]][8:-8, 8:-8]
    single = images[0][: mean.shape[0], 3 : 3 + mean.shape[1]][8:-8, 8:-8]
    assert np.std(mean.data[8:-8, 8:-8] - scene) < 0.6 * np.std(single - scene)


def test_a_series_is_averaged_before_it_is_classified():
    _, images = frames(SHIFTS[:4], dose=300.0)
    series = [ctm.Micrograph(image, 0.2, 80e3, "HAADF") for image in images]
    context = ctm.Context("WSe2", "Cr")
    together, by_hand = ctm.classify(series, context), ctm.classify(average(series), context)
    np.testing.assert_allclose(together.positions, by_hand.positions, atol=1e-6)
    assert together.provenance["further_detectors"] == []
    assert len(together.provenance["further_micrographs"]) == 3


def test_frames_of_two_detectors_share_their_shifts():
    _, images = frames(SHIFTS[:3])
    high = [ctm.Micrograph(image, 0.2, 80e3, "HAADF") for image in images]
    low = [ctm.Micrograph(image[::1], 0.2, 80e3, "MAADF") for image in images]
    contexts = [ctm.Context("WSe2", "Cr").with_recording(each) for each in (*high, *low)]
    (one, two), found = average_by_detector([*high, *low], contexts)
    np.testing.assert_array_equal(one.data, two.data)
    assert [each.detector.name for each in found] == ["HAADF", "MAADF"]
    with pytest.raises(ValueError, match="as many images of each detector, got 3 of HAADF, 2 of MAADF"):
        average_by_detector([*high, *low[:2]], contexts[:5])


def test_series_that_do_not_fit_are_refused():
    rng = np.random.default_rng(0)
    one = ctm.Micrograph(rng.normal(size=(64, 64)), 0.2, detector="HAADF")
    with pytest.raises(ValueError, match="expected at least one"):
        average([])
    for other, name in [
        (ctm.Micrograph(rng.normal(size=(64, 60)), 0.2, detector="HAADF"), "shape"),
        (ctm.Micrograph(rng.normal(size=(64, 64)), 0.3, detector="HAADF"), "sampling"),
        (ctm.Micrograph(rng.normal(size=(64, 64)), 0.2, detector="MAADF"), "detector"),
    ]:
        with pytest.raises(ValueError, match=f"same {name} to be averaged"):
            average([one, other])
    assert average([one]) is one
    scene = ndimage.gaussian_filter(rng.normal(size=(90, 90)), 2)
    with pytest.raises(ValueError, match="shifted by less than 10% of their shorter side"):
        register([scene[:64, :64], scene[9:73, :64]])
