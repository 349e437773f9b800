"""Collection angles by the image: simulated at known angles, and real images of two detectors."""

import numpy as np
import pytest

import contextem as ctm
from contextem.angles import detector_at, estimate_angles, expected_brightness
from contextem.evidence import with_angles
from contextem.neighbours import neighbourhood
from contextem.remarks import ClassificationWarning, ContextWarning
from contextem.responses import ANGLE_RANGES, DETECTOR_ANGLES, THERMAL_CHALCOGEN, THERMAL_METAL, library
from contextem.simulate.dataset import simulate_micrograph
from contextem.simulate.render import Group, superpose

CLEAN = {
    "dose": 20_000.0,
    "sampling": 0.15,
    "vacancy_fraction": 0.02,
    "dopant_fraction": 0.02,
    "haze": 0.01,
    "strain": 0.0,
    "defocus": 12.0,
    "astigmatism": 0.0,
    "coma": 0.0,
    "spherical": 0.0,
}


def estimates(made, name, sides=None):
    columns = made.columns if sides is None else ctm.Columns(made.columns.positions, sides)
    a = made.context.lattice_constant / made.micrograph.sampling
    around = neighbourhood(columns.positions, columns.sublattice, np.ones(len(columns), bool), a)
    context = ctm.Context(made.context.host, made.context.dopants, made.context.energy, name)
    return estimate_angles(made.micrograph, columns, around, context)


@pytest.mark.parametrize("host", ["WSe2", "MoS2", "TaSe2"])
@pytest.mark.parametrize(("name", "inner", "outer"), [("HAADF", 65, 185), ("MAADF", 42, 99), ("ADF", 35, 77)])
def test_angles_on_the_path_are_found(host, name, inner, outer):
    made = simulate_micrograph(host, "Cr", 80e3, ctm.Detector(name, inner, outer), 3, **CLEAN)
    best, other = estimates(made, name)
    assert best.explains and best.metal_side == 0
    assert best.detector.inner == pytest.approx(inner, abs=2.5)
    assert best.detector.outer == pytest.approx(outer, abs=8)
    assert abs(other.mismatch) >= abs(best.mismatch)
    # a Gaussian of source and pixels
    assert best.blur == pytest.approx(made.conditions["source_size"], abs=0.1)


def test_the_expected_brightness_is_that_of_a_rendered_crystal():
    context, detector, blur = ctm.Context("WSe2", energy=80e3, detector="HAADF"), ctm.Detector("HAADF", 62, 190), 0.4
    a, height = 3.32, 3.32 * np.sqrt(3)
    cell = np.array([[0.0, 0.0], [height / 2, a / 2]])
    i, j = np.mgrid[:4, :6].reshape(2, -1)
    origin = np.stack([i * height, j * a], axis=1)[:, None]
    metal = (origin + cell).reshape(-1, 2)
    chalcogen = metal + np.array([a / np.sqrt(3), 0.0])
    groups = [
        Group(library().response("W", 80e3, detector, 12.0), np.hypot(blur, THERMAL_METAL), metal),
        Group(
            library().pair("Se", 3.36, 80e3, detector, 12.0), np.hypot(blur, THERMAL_CHALCOGEN / np.sqrt(2)), chalcogen
        ),
    ]
    step = height / 240  # metal, midpoint, chalcogen and hollow stand at rows 0, 40, 80 and 160 of the cell
    image = superpose(groups, (161, 1), step, period=(4 * height, 6 * a))
    at = image[[0, 80, 40], 0] - image[160, 0]
    np.testing.assert_allclose(expected_brightness(context, detector, blur), at, rtol=2e-3)


@pytest.mark.parametrize("name", ANGLE_RANGES)
def test_the_path_runs_from_the_lowest_past_nominal_to_the_highest_angles(name):
    (inner, higher), (outer, farther) = ANGLE_RANGES[name]
    low, nominal, high = (detector_at(name, t, 80e3) for t in (-1.0, 0.0, 1.0))
    assert (nominal.inner, nominal.outer) == DETECTOR_ANGLES[name]
    assert (high.inner, high.outer) == (higher, farther)
    assert low.outer == outer and inner <= low.inner < inner + 1.0
    ratios = [
        np.divide(*expected_brightness(ctm.Context("WSe2", energy=80e3), d, 0.4)[1::-1]) for d in (low, nominal, high)
    ]
    assert ratios[0] > ratios[1] > ratios[2]


def test_which_sublattice_is_which_does_not_matter():
    made = simulate_micrograph("MoS2", "V", 80e3, ctm.Detector("HAADF", 70, 200), 3, **CLEAN)
    told, swapped = estimates(made, "HAADF"), estimates(made, "HAADF", 1 - made.columns.sublattice)
    for one, two in zip(told, swapped, strict=True):
        assert one.ratio == pytest.approx(two.ratio)
        assert one.metal_side == 1 - two.metal_side


def test_another_host_is_not_explained():
    made = simulate_micrograph("MoS2", "V", 80e3, ctm.Detector("HAADF", 70, 200), 3, **CLEAN)
    columns = made.columns
    around = neighbourhood(columns.positions, columns.sublattice, np.ones(len(columns), bool), 3.18 / 0.15)
    wrong = ctm.Context("MoTe2", "V", 80e3, "HAADF", lattice_constant=3.18)
    assert not any(each.explains for each in estimate_angles(made.micrograph, columns, around, wrong))


def test_nothing_is_estimated_without_columns_detector_or_responses():
    made = simulate_micrograph("MoS2", "V", 80e3, "HAADF", 3, size=12.0, sampling=0.2)
    assert estimates(made, "HAADF") == []
    larger = simulate_micrograph("MoS2", "V", 80e3, "HAADF", 3, **CLEAN)
    assert estimates(larger, "LAADF") == []
    columns = larger.columns
    around = neighbourhood(columns.positions, columns.sublattice, np.ones(len(columns), bool), 3.18 / 0.15)
    strange = ctm.Context("PdS2", energy=80e3, detector="HAADF", lattice_constant=3.18)
    assert estimate_angles(larger.micrograph, columns, around, strange) == []


def test_angles_are_used_where_none_are_stated_or_where_that_is_wanted():
    made = simulate_micrograph("WSe2", "Cr", 80e3, ctm.Detector("HAADF", 61, 172), 5, **CLEAN)
    named = ctm.Context("WSe2", "Cr", 80e3, "HAADF")
    stated = ctm.Context("WSe2", "Cr", 80e3, ctm.Detector("HAADF", 75, 210))
    used = {}
    for context, wanted in [(named, None), (named, False), (stated, None), (stated, True)]:
        result = ctm.classify(made.micrograph, context, estimate_angles=wanted)
        found = result.provenance["context"]["detector"]["inner"]
        used[context.detector.inner, wanted] = found
        assert result.provenance["collection_angles_by_image_used"] == (found not in (None, 75))
        assert ("collection_angles" in result.provenance["context"]["provenance"]) == (found not in (None, 75))
    assert used[None, False] is None and used[75, None] == 75
    assert used[None, None] == used[75, True] == pytest.approx(61, abs=2)


def test_where_either_sublattice_may_be_the_metals_both_count():
    """Of WSe2 at 51 to 130 mrad the columns are equally bright: nobody could tell them apart."""
    made = simulate_micrograph(
        "WSe2", None, 80e3, ctm.Detector("MAADF", 51, 130), 2, **CLEAN | {"vacancy_fraction": 0.0}
    )
    with pytest.warns(
        ClassificationWarning, match=r"^sublattices: which one is the metal's is certain to \d\d % only in grain 0"
    ):
        result = ctm.classify(made.micrograph, ctm.Context("WSe2", energy=80e3, detector="MAADF"))
    ways = result.provenance["collection_angles_by_image"]
    assert len(ways) == 2 and sum(way["weight"] for way in ways) == pytest.approx(1.0)
    (grain,) = result.provenance["sublattices"]
    assert grain["posterior"] < 0.95
    assert result.probabilities.max(axis=1).mean() < 0.95


@pytest.mark.parametrize(
    ("true", "stated"),
    [(("ADF", 33, 80), "HAADF"), (("HAADF", 80, 220), ctm.Detector("MAADF", 36, 85))],
    ids=["lower angles as HAADF", "high angles as MAADF"],
)
def test_a_detector_that_does_not_give_the_brightness_that_is_seen_is_warned_of(true, stated):
    made = simulate_micrograph("MoS2", "V", 80e3, ctm.Detector(*true), 5, **CLEAN)
    with pytest.warns(
        ContextWarning, match=r"looks less like MoS2 on|or have the collection angles estimated"
    ) as caught:
        result = ctm.classify(made.micrograph, ctm.Context("MoS2", "V", 80e3, stated))
    assert result.provenance["warnings"] == [str(each.message) for each in caught]


def test_an_estimate_is_plain_values_and_its_context_says_where_the_angles_come_from():
    made = simulate_micrograph("WSe2", "Cr", 80e3, ctm.Detector("HAADF", 65, 185), 3, **CLEAN)
    best = estimates(made, "HAADF")[0]
    context = with_angles(made.context, best)
    assert context.detector == best.detector
    assert context.fractions == made.context.fractions
    assert context.provenance["collection_angles"].startswith("image: X2/M = 0.8")
    assert best.to_dict()["x2_over_metal_measured"] == best.ratio
    assert 0.0 < best.likelihood <= 1.0
    assert best.mismatch_at(context) == pytest.approx(best.mismatch, abs=1e-3)


@pytest.mark.experimental
@pytest.mark.parametrize("field", [2, 11])
def test_the_lower_angle_image_of_the_real_fields_stated_as_haadf_is_warned_of(experimental_data, field):
    micrograph = ctm.read(experimental_data / f"ti_wse2_field{field}_adf2.dm4", detector="HAADF")
    with pytest.warns(ContextWarning, match=r"looks less like WSe2 on HAADF of .* than like WSe2 on ADF of 3\d to"):
        ctm.classify(micrograph, ctm.Context("WSe2", "Ti", energy=80e3))


@pytest.mark.experimental
@pytest.mark.parametrize("field", [2, 11])
def test_the_two_detectors_of_the_real_fields(experimental_data, field):
    """About 60 to 200 and 30 to 80 mrad would fit: see the table of X2/M against angles for WSe2 at 80 keV."""
    context = ctm.Context("WSe2", "Ti", energy=80e3)
    for image, name, inner, outer in (("haadf", "HAADF", (60, 66), (170, 190)), ("adf2", "ADF", (30, 38), (60, 85))):
        micrograph = ctm.read(experimental_data / f"ti_wse2_field{field}_{image}.dm4", detector=name)
        detector = ctm.classify(micrograph, context).provenance["context"]["detector"]
        assert inner[0] <= detector["inner"] <= inner[1]
        assert outer[0] <= detector["outer"] <= outer[1]
