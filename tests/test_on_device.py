"""The method on a card: what it says is what the host says, from the same image."""

from __future__ import annotations

import numpy as np
import pytest
import stand_in_card
import torch

import contextem as ctm
from contextem.calibration import calibrate
from contextem.columns import Columns
from contextem.examples import demo_micrograph
from contextem.measurement import measure
from contextem.on_device import DeviceClassifier
from contextem.sites import agree_on_sites, shared_odds


@pytest.fixture(scope="module")
def example():
    """Image, columns with some that no lattice holds, context, model, scale."""
    demo = demo_micrograph()
    columns, model = ctm.find_columns(demo.micrograph, demo.context), ctm.load_model()
    grain = np.where(columns.positions[:, 1] > demo.micrograph.shape[1] / 2, 7, columns.grain)
    columns = Columns(columns.positions, columns.sublattice, columns.observed, grain)
    scale = calibrate(columns, demo.context.lattice_constant, demo.micrograph.sampling).scale
    return demo.micrograph, columns, demo.context, model, scale


def host_says(micrograph, columns, context, model, scale):
    measured = measure(micrograph, columns, context.lattice_constant, model.config, scale)
    return model.predict(measured.contrast, model.context_features(context), measured.around)


def expect_the_same(found, expected):
    probabilities = found.probabilities.cpu().numpy()
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=2e-3)
    assert np.mean(abs(probabilities - expected.probabilities)) < 2e-5
    np.testing.assert_allclose(found.familiarity.cpu().numpy(), expected.familiarity, atol=2e-2)
    labels = found.labels.cpu().numpy()
    np.testing.assert_array_equal(labels, probabilities.argmax(axis=1))
    clear = np.diff(np.sort(expected.probabilities, axis=1)[:, -2:])[:, 0] > 0.01
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(labels[clear], expected.probabilities.argmax(axis=1)[clear])


@pytest.mark.parametrize("low_passed", [True, False])
def test_a_card_says_what_the_host_says(monkeypatch, example, low_passed):
    micrograph, columns, context, model, scale = example
    if not low_passed:  # coarser than the patches
        pixels = np.ascontiguousarray(micrograph.data[::2, ::2])
        micrograph = ctm.Micrograph(pixels, 2 * micrograph.sampling, micrograph.energy, micrograph.detector)
        inside = (columns.positions / 2 <= np.subtract(pixels.shape, 0.6)).all(axis=1)
        parts = (columns.positions / 2, columns.sublattice, columns.observed, columns.grain)
        columns, scale = Columns(*(part[inside] for part in parts)), scale / 2
    expected = host_says(micrograph, columns, context, model, scale)
    stand_in_card.install(monkeypatch)
    image = torch.from_numpy(np.ascontiguousarray(micrograph.data, np.float32))
    results = []
    for batch_size in (10_000, 97):
        judge = DeviceClassifier(
            model,
            model.context_features(context),
            scale,
            context.lattice_constant,
            device="cpu",
            batch_size=batch_size,
        )
        assert (len(judge.taps) > 1) == low_passed
        results.append(judge(image, judge.put(columns, micrograph.shape)))
        expect_the_same(results[-1], expected)
    np.testing.assert_allclose(results[0].probabilities, results[1].probabilities, atol=1e-4)


def test_columns_of_one_sublattice_alone(monkeypatch, example):
    micrograph, columns, context, model, scale = example
    own = columns.sublattice == 0
    columns = Columns(columns.positions[own], columns.sublattice[own], columns.observed[own], columns.grain[own])
    expected = host_says(micrograph, columns, context, model, scale)
    stand_in_card.install(monkeypatch)
    judge = DeviceClassifier(model, model.context_features(context), scale, context.lattice_constant, device="cpu")
    image = torch.from_numpy(np.ascontiguousarray(micrograph.data, np.float32))
    expect_the_same(judge(image, judge.put(columns, micrograph.shape)), expected)


def test_neighbourhoods_and_grains_decide_as_on_the_host(monkeypatch, example):
    micrograph, columns, context, model, scale = example
    around = measure(micrograph, columns, context.lattice_constant, model.config, scale).around
    logits = np.random.default_rng(0).normal(0, 0.7, (len(columns), 5)).astype(np.float32)
    logits[columns.grain == 7, 0] += 0.2
    alone = torch.softmax(torch.from_numpy(logits), dim=1)
    expected = agree_on_sites(alone.numpy(), shared_odds(alone.numpy(), around), model.info["site_strength"])
    assert abs(expected - alone.numpy()).max() > 0.1
    stand_in_card.install(monkeypatch)
    judge = DeviceClassifier(model, model.context_features(context), scale, context.lattice_constant, device="cpu")
    monkeypatch.setattr(judge, "network", lambda contrast, _: (torch.from_numpy(logits), torch.zeros(len(contrast))))
    image = torch.from_numpy(np.ascontiguousarray(micrograph.data, np.float32))
    found = judge(image, judge.put(columns, micrograph.shape))
    np.testing.assert_allclose(found.probabilities.numpy(), expected, atol=1e-6)


def test_the_network_of_the_model_stays_where_it_is(example):
    _, _, context, model, scale = example
    judge = DeviceClassifier(model, model.context_features(context), scale, context.lattice_constant, device="meta")
    assert next(judge.network.parameters()).is_meta and not next(model.network.parameters()).is_meta


def test_columns_at_the_border_alone_are_refused(example):
    _, columns, context, model, scale = example
    judge = DeviceClassifier(model, model.context_features(context), scale, context.lattice_constant, device="cpu")
    with pytest.raises(
        ValueError, match="columns: expected at least one column whose patch lies inside the image, got"
    ):
        judge.put(columns, (9, 9))


@pytest.mark.gpu
def test_the_whole_way_on_a_card(cuda_arrays, example):
    micrograph, columns, context, model, scale = example
    expected = host_says(micrograph, columns, context, model, scale)
    image = cuda_arrays(np.ascontiguousarray(micrograph.data, np.float32))
    judge = DeviceClassifier(model, model.context_features(context), scale, context.lattice_constant)
    there = judge.put(columns, micrograph.shape)
    first = judge(image, there)
    expect_the_same(first, expected)
    torch.cuda.set_sync_debug_mode("error")  # nothing waits
    try:
        again = judge(image, there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all((one == other).all() for one, other in zip(again, first, strict=True))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = judge(image, there)
    graph.replay()
    assert (captured.labels == first.labels).all()
