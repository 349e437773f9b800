"""The spine as a whole: simulated micrographs whose truth is known, and the labelled experimental ones."""

import numpy as np
import pytest

import contextem as ctm
from contextem.evidence import better_context
from contextem.examples import demo_micrograph
from contextem.measurement import measure
from contextem.model import Model, load_model
from contextem.remarks import ContextWarning, ExtrapolationWarning
from contextem.responses import DETECTOR_ANGLES
from contextem.scores import score_columns
from contextem.simulate.conditions import REFERENCE
from contextem.simulate.dataset import simulate_micrograph


@pytest.fixture(scope="module")
def simulated():
    return simulate_micrograph(
        "MoS2", "V", 80e3, ctm.Detector("HAADF", 70, 200), 5, ranges=REFERENCE, sampling=0.15, dose=8000.0
    )


@pytest.fixture(scope="module")
def result(simulated):
    return ctm.classify(simulated.micrograph, simulated.context)


def test_demo_is_classified_as_its_truth_says():
    demo = demo_micrograph()
    assert demo.micrograph.provenance["sampling"] == "file"
    scores = score_columns(ctm.classify(demo.micrograph, demo.context), demo.positions, demo.labels, tolerance=0.5)
    assert scores.support.sum() > 600
    assert scores.accuracy > 0.97
    assert np.nanmin(scores.recall) > 0.85


def test_simulated_columns_are_found_and_classified(simulated, result):
    scores = score_columns(result, simulated.columns.positions, simulated.labels, tolerance=0.5)
    assert scores.accuracy > 0.93
    assert (scores.missed.sum() + scores.extra.sum()) / scores.support.sum() < 0.01


def test_gain_and_offset_of_the_detector_do_not_matter(simulated, result):
    data = 0.01 * simulated.micrograph.data.astype("f8") + 7.0
    other = ctm.classify(ctm.Micrograph(data, 0.15), simulated.context)
    assert len(other) == len(result)
    np.testing.assert_allclose(other.positions, result.positions, atol=1e-3)
    assert np.mean(other.labels == result.labels) > 0.995


def test_own_columns_are_classified_as_given(simulated, result):
    chosen = np.flatnonzero(result.complete)[::7]
    columns = ctm.Columns(result.positions, observed=result.observed)
    again = ctm.classify(simulated.micrograph, simulated.context, columns=columns)
    np.testing.assert_allclose(again.probabilities[chosen], result.probabilities[chosen], atol=1e-5)
    np.testing.assert_allclose(again.familiarity[chosen], result.familiarity[chosen], atol=1e-4)
    np.testing.assert_array_equal(again.observed, result.observed)


def test_own_columns_are_classified_alike_with_and_without_sublattice(simulated):
    truth = simulated.columns
    sides = {"told": truth.sublattice, "swapped": 1 - truth.sublattice, "unknown": None}
    sides["partly"] = np.where(np.arange(len(truth)) % 3 == 0, -1, truth.sublattice)
    results = {
        name: ctm.classify(simulated.micrograph, simulated.context, columns=ctm.Columns(truth.positions, each))
        for name, each in sides.items()
    }
    for name in ("swapped", "unknown", "partly"):
        np.testing.assert_allclose(results[name].probabilities, results["told"].probabilities, atol=1e-5)
        np.testing.assert_array_equal(results[name].unknown, results["told"].unknown)


def test_few_columns_in_view_are_unknown(result):
    assert result.familiarity.shape == result.unknown.shape == (len(result),)
    assert not result.unknown[~result.complete].any()
    assert result.unknown.mean() < 0.1
    model = ctm.load_model()
    np.testing.assert_array_equal(result.unknown, result.complete & (result.familiarity < model.unknown_below))
    assert sum(result.counts.values()) == len(result) - result.unknown.sum()


def test_a_model_without_familiarity_calls_nothing_unknown(simulated):
    packaged = ctm.load_model()
    info = {name: value for name, value in packaged.info.items() if name != "unknown_below"}
    plain = ctm.classify(simulated.micrograph, simulated.context, model=Model(packaged.network, info))
    assert not plain.unknown.any()
    assert plain.provenance["better_context"] is None


CASES = [
    (host, dopant, energy, detector, seed)
    for seed, (host, dopant, energy, detector) in enumerate(
        [
            ("MoS2", "V", 80e3, "HAADF"),
            ("MoSe2", "Cr", 60e3, "HAADF"),
            ("MoTe2", "Fe", 200e3, "HAADF"),
            ("WS2", "Ti", 80e3, "MAADF"),
            ("WSe2", "Cr", 80e3, "HAADF"),
            ("WTe2", "Co", 300e3, "HAADF"),
            ("NbS2", "Mn", 100e3, "MAADF"),
            ("NbSe2", "Cu", 80e3, "HAADF"),
            ("NbTe2", "Ni", 120e3, "HAADF"),
            ("TaS2", "V", 80e3, "HAADF"),
            ("TaSe2", "Ti", 60e3, "MAADF"),
            ("TaTe2", None, 200e3, "MAADF"),
        ]
    )
]


@pytest.mark.parametrize(("host", "dopant", "energy", "detector", "seed"), CASES, ids=str)
def test_the_right_context_fits(host, dopant, energy, detector, seed):
    """Warnings are errors here: none is given."""
    made = simulate_micrograph(
        host, dopant, energy, ctm.Detector(detector, *DETECTOR_ANGLES[detector]), seed, ranges=REFERENCE, dose=5000.0
    )
    for context in (made.context, ctm.Context(host, made.context.dopants, energy, detector)):
        told = ctm.classify(made.micrograph, context)
        assert told.provenance["better_context"] is None
        assert told.unknown[told.complete].mean() < 0.1


@pytest.mark.parametrize(("host", "wrong"), [("MoS2", "MoTe2"), ("NbTe2", "NbS2"), ("MoTe2", "MoS2")])
def test_a_wrong_chalcogen_is_told_and_a_better_host_named(host, wrong):
    made = simulate_micrograph(
        host, "V", 80e3, ctm.Detector("HAADF", 70, 200), 21, ranges=REFERENCE, sampling=0.15, dose=8000.0
    )
    # of the true lattice constant, so that nothing but brightness tells
    context = ctm.Context(wrong, "V", 80e3, "HAADF", lattice_constant=made.context.lattice_constant)
    with pytest.warns(ContextWarning, match=f"looks less like {wrong} on HAADF than like ") as caught:
        told = ctm.classify(made.micrograph, context)
    better = told.provenance["better_context"]
    assert better["host"] != wrong
    assert str(caught[0].message).startswith(
        f"context: the image looks less like {wrong} on HAADF than like {better['host']} on"
    )
    assert str(caught[0].message).endswith("; check host and detector")
    model = ctm.load_model()
    contrast, complete, _ = measure(made.micrograph, made.columns, context.lattice_constant, model.config)
    fits = [
        model.predict(contrast[complete], each.vector()).familiarity.mean()
        for each in (made.context, ctm.Context.from_dict(better), context)
    ]
    assert min(fits[:2]) > fits[2] + 1.0
    # the check itself is the same every time
    assert better_context(contrast[complete], context, model) == better_context(contrast[complete], context, model)


def test_only_hosts_the_model_was_trained_on_are_proposed():
    packaged = ctm.load_model()
    made = simulate_micrograph(
        "MoS2", "V", 80e3, ctm.Detector("HAADF", 70, 200), 22, ranges=REFERENCE, sampling=0.15, dose=8000.0
    )
    wrong = ctm.Context("MoTe2", "V", 80e3, "HAADF", lattice_constant=3.18)
    contrast, complete, _ = measure(made.micrograph, made.columns, wrong.lattice_constant, packaged.config)
    assert better_context(contrast[complete], wrong, packaged).host in packaged.info["training"]["hosts"]
    for hosts in (["NbS2", "MoTe2"], ["MoTe2"], []):
        model = Model(packaged.network, packaged.info | {"training": packaged.info["training"] | {"hosts": hosts}})
        found = better_context(contrast[complete], wrong, model)
        assert found is None or found.host in hosts
    facts = {"misfit_below": packaged.misfit_below}
    assert better_context(contrast[complete], wrong, Model(packaged.network, facts)) is not None


def test_nothing_is_proposed_where_there_is_nothing_to_judge_by(simulated):
    packaged = ctm.load_model()
    blind = load_model("without_context")
    contrast = np.random.default_rng(0).normal(size=(50, 80)).astype(np.float32)
    assert better_context(contrast, simulated.context, blind) is None
    assert better_context(contrast[:0], simulated.context, packaged) is None


def test_columns_outside_the_image_are_named(simulated):
    with pytest.raises(ValueError, match=r"inside the image of \d+ x \d+ px, got 1 outside, the first at \(5, 900\)"):
        ctm.classify(simulated.micrograph, simulated.context, columns=ctm.Columns([[50.0, 50.0], [5.0, 900.0]]))


def test_wrong_context_is_a_worse_one(simulated):
    """MoS2 read as MoTe2: metal and X2 swap, the ambiguity that context resolves."""
    wrong = ctm.Context("MoTe2", "V", energy=80e3, detector="HAADF", lattice_constant=3.18)
    truth = (simulated.columns.positions, simulated.labels)
    right = score_columns(ctm.classify(simulated.micrograph, simulated.context), *truth, tolerance=0.5)
    with pytest.warns(ContextWarning, match="looks less like MoTe2"):
        mistaken = score_columns(ctm.classify(simulated.micrograph, wrong), *truth, tolerance=0.5)
    assert mistaken.accuracy < right.accuracy - 0.1


def test_energy_and_detector_are_asked_for_by_name(simulated):
    bare = ctm.Micrograph(simulated.micrograph.data, 0.15)
    with pytest.raises(ValueError, match="energy"):
        ctm.classify(bare, ctm.Context("MoS2", "V", detector="HAADF"))
    with pytest.raises(ValueError, match="detector"):
        ctm.classify(bare, ctm.Context("MoS2", "V", energy=80e3))


def test_what_the_model_never_saw_is_refused_or_warned_of(simulated):
    with pytest.raises(ValueError, match="80 keV LAADF"):
        ctm.classify(simulated.micrograph, ctm.Context("MoS2", "V", energy=80e3, detector="LAADF"))
    with pytest.warns(ExtrapolationWarning, match="not trained on Pd"):
        ctm.classify(simulated.micrograph, ctm.Context("MoS2", "Pd", energy=80e3, detector="HAADF"))


@pytest.mark.parametrize("factor", [1 / np.sqrt(3), np.sqrt(3)])
def test_a_sampling_off_by_the_root_of_three_is_refused(factor):
    """Every third site of the true lattice makes a lattice too, or the true one is every third of another."""
    made = simulate_micrograph(
        "WSe2", "Cr", 80e3, ctm.Detector("HAADF", 70, 200), 6, ranges=REFERENCE, sampling=0.25, dose=8000.0, size=80.0
    )
    wrong = ctm.Micrograph(made.micrograph.data, 0.25 * factor)
    with pytest.raises(ValueError, match=r"^sampling: expected about 0\.2[45]\d* Å/px"):
        ctm.classify(wrong, made.context)


@pytest.mark.experimental
@pytest.mark.parametrize("sampling", [0.22, 0.24, 0.3, 0.5, 0.6])
def test_a_real_image_at_the_sampling_of_another_lattice_is_refused(sampling, experimental_data):
    micrograph = ctm.read(experimental_data / "ti_wse2_field11_haadf.dm4", sampling=sampling, detector="HAADF")
    with pytest.raises(ValueError, match=r"^sampling: expected about 0\.39\d* Å/px, at which the spectrum"):
        ctm.classify(micrograph, ctm.Context("WSe2", "Ti", energy=80e3))
