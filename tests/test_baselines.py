"""Baselines: one interface, better than chance where the truth is simple."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from contextem import baselines
from contextem.attention import ModelConfig
from contextem.columns import CLASSES
from contextem.simulate.dataset import Recipe
from contextem.train import LabelledColumns

CONFIG = ModelConfig(n_max=8, size=24)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def columns(seed, count=600, classes=(0, 1, 2, 3, 4)):
    """Classes at corners of feature space, which the context of the image turns round."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, count)
    image = rng.integers(0, 4, count)
    context = np.eye(4, dtype=np.float32)
    contrast = np.eye(5, dtype=np.float32)[(labels + image % 2) % 5] + rng.normal(0, 0.1, (count, 5))
    names = np.array(["a"] * 4)
    return LabelledColumns(
        contrast=contrast.astype(np.float32),
        labels=labels,
        weight=np.ones(count, np.float32),
        same=np.zeros((count, 0), np.int32),
        other=np.zeros((count, 0), np.int32),
        side=np.zeros(count, np.int8),
        image=image,
        intensities=context,
        context=context,
        composition=context,
        case=names,
        condition=names,
        dose=np.ones(4),
    )


@pytest.mark.parametrize("name", baselines.TABULAR)
def test_posteriors_are_rows_of_probabilities(name):
    fitted = baselines.TABULAR[name](columns(0))
    test = columns(1, 200)
    posterior = fitted.predict(test)
    assert posterior.shape == (200, len(CLASSES))
    np.testing.assert_allclose(posterior.sum(axis=1), 1.0, rtol=1e-5)
    accuracy = (posterior.argmax(axis=1) == test.labels).mean()
    # a linear classifier cannot turn the classes round by the context
    assert accuracy > (0.3 if name == "logistic" else 0.9)
    assert fitted.predict(columns(2, 0)).shape == (0, 5)


@pytest.mark.parametrize("name", baselines.TABULAR)
def test_classes_that_were_not_trained_get_nothing(name):
    fitted = baselines.TABULAR[name](columns(0, 300, classes=(0, 2, 3)))
    posterior = fitted.predict(columns(1, 50))
    assert not posterior[:, [1, 4]].any()


def test_training_is_the_same_for_the_same_seed():
    one, two = (baselines.fit_perceptron(columns(0)).predict(columns(1, 50)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", ["logistic", "boosting"])
def test_a_column_stands_for_as_many_as_its_weight(name):
    """Where features do not tell two classes apart, the posterior is the share of their weights."""
    training = columns(0, 600, classes=(0, 2))
    blind = replace(
        training,
        contrast=np.zeros_like(training.contrast),
        context=np.zeros_like(training.context),
        weight=np.where(training.labels == 0, 3.0, 1.0).astype(np.float32),
    )
    total = np.bincount(blind.labels, blind.weight, minlength=5)
    posterior = baselines.TABULAR[name](blind).predict(blind)
    np.testing.assert_allclose(posterior, np.tile(total / total.sum(), (600, 1)), atol=0.01)


def test_baselines_read_the_invariants_alone():
    training, test = columns(0), columns(1, 50)
    padded = [
        replace(each, contrast=np.pad(each.contrast, ((0, 0), (0, baselines.INVARIANTS - 5))))
        for each in (training, test)
    ]
    longer = [replace(each, contrast=np.pad(each.contrast, ((0, 0), (0, 9)), constant_values=7.0)) for each in padded]
    one, two = (baselines.fit_logistic(fit).predict(seen) for fit, seen in (padded, longer))
    np.testing.assert_array_equal(one, two)


SOURCES = [Recipe(host, "Cr", 80e3, "HAADF", seed, "reference") for seed in range(3) for host in ("WS2", "MoTe2")]


@pytest.fixture(scope="module")
def patches():
    return baselines.measure_patches(SOURCES, CONFIG, per_class=15, workers=1)


def test_patches_are_those_of_the_image(patches):
    assert patches.patches.shape == (len(patches), 32, 32)
    assert np.isfinite(patches.patches).all()
    assert np.bincount(patches.labels[patches.image == 0]).max() == 15
    middle = patches.patches[:, 13:19, 13:19].astype(float).mean(axis=(1, 2))
    heavy = patches.case[patches.image] == "WS2:Cr"
    assert middle[heavy & (patches.labels == 0)].min() > middle[heavy & (patches.labels == 4)].max()
    few = baselines.measure_patches(SOURCES[:1], CONFIG, most=7, workers=1)
    assert len(few) == 7
    assert few.case.tolist() == ["WS2:Cr"]


def test_network_learns_from_pixels_and_context(patches):
    network = baselines.fit_network(patches, epochs=15, batch_size=32)
    test = baselines.measure_patches([Recipe("WS2", "Cr", 80e3, "HAADF", 4, "reference")], CONFIG, most=99, workers=1)
    posterior = network.predict(test)
    np.testing.assert_allclose(posterior.sum(axis=1), 1.0, rtol=1e-5)
    assert (posterior.argmax(axis=1) == test.labels).mean() > 0.7
