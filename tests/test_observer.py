"""The ideal observer, against analytic Bayes errors, whole images rendered anew, and its own promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator
from scipy.special import expit
from scipy.stats import norm, poisson

from contextem.columns import CLASSES
from contextem.simulate.dataset import SimulatedMicrograph, column_groups, simulate_micrograph
from contextem.simulate.observer import (
    class_shares,
    evidence_of_places,
    ideal_posterior,
    log_likelihoods,
    with_equal_priors,
)
from contextem.simulate.render import superpose
from contextem.simulate.structures import DOPANT, METAL, SINGLE_VACANCY, X2, Monolayer, doped_monolayer

STILL = np.zeros((400, 2))


@pytest.mark.parametrize("readout", [0.0, 6.0])
def test_error_on_two_flat_classes_is_the_overlap_of_two_gaussians(readout):
    """M pixels of mean b or b + d: sqrt(M) d / sqrt(b + r^2) apart, in units of the noise."""
    rng = np.random.default_rng(5)
    base, more, radius = 200.0, 4.0, 3.2
    places = np.stack(np.meshgrid(*[np.arange(8.0, 392.0, 8.0)] * 2), axis=-1).reshape(-1, 2)
    own = rng.integers(0, 2, len(places))
    rows, columns = np.mgrid[:400, :400]
    expected = np.full((400, 400), base)
    pixels = 0
    for place, kind in zip(places, own, strict=True):
        disk = (rows - place[0]) ** 2 + (columns - place[1]) ** 2 < radius**2
        expected[disk] += more * kind
        pixels = disk.sum()
    counts = rng.poisson(expected) + rng.normal(0.0, readout, expected.shape)
    likelihoods = log_likelihoods(
        counts + readout**2,
        expected + readout**2,
        places,
        own,
        np.tile([0.0, more], (9, 9, 1)),
        sampling=1.0,
        offsets=STILL,
        radius=radius,
    )
    error = (likelihoods.argmax(axis=1) != own).mean()
    bayes = norm.cdf(-np.sqrt(pixels) * more / 2 / np.sqrt(base + more / 2 + readout**2))
    assert 0.1 < bayes < 0.3
    assert error == pytest.approx(bayes, abs=3 * np.sqrt(bayes * (1 - bayes) / len(places)))


@given(seed=st.integers(0, 1000), k=st.integers(0, 3), radius=st.floats(1.0, 6.0))
def test_likelihood_ratio_does_not_depend_on_which_class_is_the_true_one(seed, k, radius):
    rng = np.random.default_rng(seed)
    responses = rng.uniform(0.0, 30.0, (15, 15, 4))
    counts = rng.poisson(40.0, (40, 40))
    expected = np.full((40, 40), 40.0)
    place, offsets = rng.uniform(5, 35, (1, 2)), rng.normal(0, 0.1, (40, 2))
    settings = {"sampling": 1.0, "offsets": offsets, "radius": radius}
    there = log_likelihoods(counts, expected, place, np.array([0]), responses, **settings)
    # the same image, had the column been of class k
    rows, columns = np.mgrid[:40, :40]
    down, along = rows + offsets[:, :1] - place[0, 0], columns + offsets[:, 1:] - place[0, 1]
    grid = np.linspace(-radius, radius, 15)
    more = RegularGridInterpolator((grid, grid), responses[..., k] - responses[..., 0], bounds_error=False)
    near = down**2 + along**2 < radius**2
    other = expected.copy()
    other[near] += more(np.column_stack([down[near], along[near]]))
    here = log_likelihoods(counts, other, place, np.array([k]), responses, **settings)
    np.testing.assert_allclose(there - there[:, k : k + 1], here, atol=1e-8)
    assert abs(here[0, k]) < 1e-9


def test_likelihoods_equal_those_of_whole_images_rendered_anew():
    simulated = simulate_micrograph(
        "MoS2", "Cr", 80e3, "MAADF", 3, size=16.0, sampling=0.2, dose=3000.0, readout=0.0, vacancy_fraction=0.4
    )
    scene, drawn = simulated.scene, simulated.conditions
    posterior = ideal_posterior(simulated, radius=5.0, places=False)
    tested = 0
    for row in np.flatnonzero(simulated.labels >= X2)[10:40]:
        n = np.flatnonzero(scene.inside)[row]
        logs = []
        for label, upper in ((X2, True), (SINGLE_VACANCY, True), (SINGLE_VACANCY, False), (4, True)):
            labels, first = scene.layer.labels[[n, n]].copy(), np.array([scene.layer.upper[n], upper])
            labels[1] = label
            rendered = []
            for i in range(2):
                one = Monolayer(
                    scene.layer.sites[[n]], scene.layer.displacements[[n]], labels[i : i + 1], first[i : i + 1]
                )
                groups = column_groups(
                    one,
                    "MoS2",
                    "Cr",
                    80e3,
                    simulated.context.detector,
                    source_size=drawn["source_size"],
                    aberrations=scene.aberrations,
                )
                shape = simulated.micrograph.shape
                rendered.append(superpose(groups, shape, 0.2, scene.offsets) if groups else np.zeros(shape))
            mean = drawn["dose"] * np.maximum(scene.image + rendered[1] - rendered[0], 1e-9)
            logs.append(poisson.logpmf(simulated.micrograph.data.round(), mean).sum())
        weights = np.exp(np.array(logs) - max(logs)) * [0.6, 0.1, 0.1, 0.2]
        expected = np.array([weights[0], weights[1] + weights[2], weights[3]]) / weights.sum()
        np.testing.assert_allclose(posterior[row, X2:], expected, atol=0.02)
        tested += 1
    assert tested > 15


def test_places_of_the_metals_tell_of_vacancies_as_well_as_they_should():
    """The evidence is a likelihood ratio: those who trust it are right as often as they think."""
    right, sure = [], []
    for seed in range(8):
        layer = doped_monolayer(
            3.3,
            (0, 0),
            (80, 80),
            np.random.default_rng(seed),
            single_fraction=0.2,
            double_fraction=0.1,
            disorder=0.05,
            relaxation=(0.02, 0.05),
        )
        evidence = evidence_of_places(layer, 3.3 / np.sqrt(3), 0.05, (0.02, 0.05))
        assert not evidence[layer.labels < X2].any()
        inner = (layer.labels >= X2) & ((layer.sites > 6) & (layer.sites < 74)).all(axis=1)
        p = expit(evidence[inner] + np.log(0.3 / 0.7))
        sure.append(p)
        right.append(layer.labels[inner] > X2)
    right, sure = np.concatenate(right), np.concatenate(sure)
    assert ((sure > 0.5) == right).mean() > 0.8
    for low in np.arange(0.0, 1.0, 0.1):
        chosen = (sure >= low) & (sure < low + 0.1)
        error = right[chosen].mean() - sure[chosen].mean()
        assert abs(error) < 4 * np.sqrt(sure[chosen].mean() * (1 - sure[chosen].mean()) / chosen.sum())


def test_places_say_nothing_where_nothing_relaxes():
    layer = doped_monolayer(3.3, (0, 0), (30, 30), np.random.default_rng(1), disorder=0.05)
    np.testing.assert_allclose(evidence_of_places(layer, 1.9, 0.05, (0.0, 0.0)), 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("host", "dopant", "energy"), [("WS2", "Ti", 200e3), ("TaS2", "W", 80e3), ("MoTe2", None, 60e3)]
)
def test_with_electrons_without_end_it_is_always_right(host, dopant, energy):
    simulated = simulate_micrograph(host, dopant, energy, "HAADF", 2, sampling=0.3, dose=1e9)
    assert (ideal_posterior(simulated).argmax(axis=1) == simulated.labels).all()


@pytest.mark.parametrize("readout", [0.0, 1.0])
def test_posteriors_are_calibrated(readout):
    """At this dose many pixels hold less than the readout noise."""
    right, confidence = [], []
    for seed in range(25):
        given = {"dopant_fraction": 0.11, "vacancy_fraction": 0.18, "readout": readout}
        simulated = simulate_micrograph("WS2", "Co", 200e3, "HAADF", seed, sampling=0.4, dose=300.0, **given)
        posterior = ideal_posterior(simulated)
        right.append(posterior.argmax(axis=1) == simulated.labels)
        confidence.append(posterior.max(axis=1))
    right, confidence = np.concatenate(right), np.concatenate(confidence)
    assert 0.8 < right.mean() < 0.95
    noise = np.sqrt((confidence * (1 - confidence)).sum()) / len(right)
    assert abs(right.mean() - confidence.mean()) < 3 * noise
    for low, high in ((0.4, 0.6), (0.6, 0.8), (0.8, 0.95)):
        chosen = (confidence >= low) & (confidence < high)
        spread = np.sqrt(0.25 / chosen.sum())
        assert abs(right[chosen].mean() - confidence[chosen].mean()) < 4 * spread


@settings(max_examples=12)
@given(
    seed=st.integers(0, 99),
    dose=st.floats(1.0, 1e6),
    dopant=st.sampled_from(["V", "Nb", None]),
    equal=st.booleans(),
    readout=st.sampled_from([0.0, 1.0]),
)
def test_rows_add_up_to_one_within_the_classes_of_the_site(seed, dose, dopant, equal, readout):
    simulated = simulate_micrograph(
        "MoSe2", dopant, 80e3, "HAADF", seed, size=12.0, sampling=0.3, dose=dose, readout=readout, background=0.0
    )
    posterior = ideal_posterior(simulated)
    if equal:
        posterior = with_equal_priors(posterior, class_shares(simulated))
    assert posterior.shape == (len(simulated.columns), len(CLASSES))
    assert (posterior >= 0.0).all()
    np.testing.assert_allclose(posterior.sum(axis=1), 1.0, atol=1e-12)
    metal = simulated.columns.sublattice == 0
    assert not posterior[metal, X2:].any()
    assert not posterior[~metal, :X2].any()
    if dopant is None:
        assert (posterior[metal, METAL] == 1.0).all()


def test_equal_priors_find_more_of_the_rare_classes():
    simulated = simulate_micrograph("WS2", "Re", 80e3, "HAADF", 1, sampling=0.2, dose=3000.0)
    posterior = ideal_posterior(simulated)
    balanced = with_equal_priors(posterior, class_shares(simulated))
    recall = [(p.argmax(axis=1) == DOPANT)[simulated.labels == DOPANT].mean() for p in (posterior, balanced)]
    assert recall[0] < 0.3 < recall[1]


def test_a_micrograph_from_a_file_is_refused(tmp_path):
    simulated = simulate_micrograph("WSe2", "Cr", 80e3, "HAADF", 1, size=12.0, sampling=0.3)
    simulated.save(tmp_path / "one.npz")
    with pytest.raises(ValueError, match="simulate it again"):
        ideal_posterior(SimulatedMicrograph.load(tmp_path / "one.npz"))
