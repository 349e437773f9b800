"""What the report says of estimates in words, against provenance written by hand; and how to do it again."""

import shlex
from dataclasses import replace

import numpy as np
import pytest
from classified import classification, posterior

import contextem as ctm
from contextem.calibration import Calibration
from contextem.cli import classify as classify_command
from contextem.commands import commands
from contextem.context import Context
from contextem.micrograph import Detector, Micrograph
from contextem.origins import detectors_in_words, origin_rows
from contextem.series import average


def evidence(detector, *estimates, used=True, origin="user"):
    """What the provenance holds of one detector; each estimate is inner, outer, measured, expected, weight."""
    context = Context("WSe2", "Ti", 80e3, detector, provenance={"detector": origin})
    return {
        "context": context.to_dict(),
        "collection_angles_by_image": [
            {
                "detector": {"name": detector.name, "inner": inner, "outer": outer},
                "x2_over_metal_measured": measured,
                "x2_over_metal_expected": expected,
                "weight": weight,
            }
            for inner, outer, measured, expected, weight in estimates
        ],
        "collection_angles_by_image_used": used,
    }


def made(sampling=0.25, source="a.dm4", *, detector="HAADF", origin=None, **provenance):
    """A classification of 60 columns with a provenance, and its micrograph."""
    positions = 12.0 + 8.0 * np.stack(np.divmod(np.arange(60), 10), axis=1)
    micrograph = Micrograph(
        np.random.default_rng(0).normal(size=(70, 100)).astype("f4"),
        sampling,
        80e3,
        detector,
        provenance=origin,
        source=source,
    )
    return classification(positions, posterior(np.arange(60) % 5, 0.97), provenance=provenance), micrograph


def rows(result, micrograph):
    return [(each["name"], each["value"], each["origin"]) for each in origin_rows(result, micrograph)]


# Detectors


def test_estimated_angles_are_told_as_such_and_to_the_mrad():
    told = evidence(Detector("HAADF", 63.02304, 179.0691), (63.02304, 179.0691, 0.852, 0.852, 1.0))
    result, micrograph = made(**told)
    found = rows(result, micrograph)
    assert ("detector", "HAADF", "the user") in found
    assert (
        "collection angles",
        "63 to 179 mrad",
        "the image: X2 is 0.85 times as bright as the metal",
    ) in found
    assert detectors_in_words(result) == "HAADF 63–179 mrad by the image"
    assert not [name for name, *_ in found if name.endswith("of the recording")]  # nothing twice


def test_both_ways_to_explain_an_image_are_told_with_their_probabilities():
    told = evidence(
        Detector("HAADF", 80.0, 220.0), (80.0, 220.0, 0.74, 0.78, 0.8), (60.0, 170.0, 0.95, 0.95, 0.2)
    )  # fmt: skip
    first, second = (each for each in rows(*made(**told)) if "mrad" in each[1])
    assert first[:2] == ("collection angles", "80 to 220 mrad, with a probability of 80.0 %")
    assert first[2].endswith("0.74 times as bright as the metal; 0.78 times is the nearest that such a detector gives")
    assert second[:2] == ("or", "60 to 170 mrad, with a probability of 20.0 %")
    assert "nearest" not in second[2]


def test_angles_by_the_image_that_were_not_used_stand_beside_those_stated():
    told = evidence(Detector("HAADF", 70, 200.5), (63.0, 179.0, 0.85, 0.85, 1.0), used=False, origin="command line")
    found = rows(*made(**told))
    assert ("collection angles", "70 to 200.5 mrad", "the command line") in found
    assert ("collection angles by the image, not used", "63 to 179 mrad") in [each[:2] for each in found]
    assert detectors_in_words(made(**told)[0]) == "HAADF 70–200.5 mrad"


@pytest.mark.parametrize(
    ("detector", "origin", "expected"),
    [
        (Detector("HAADF"), "user", ("70 to 200 mrad", "nominal ones of HAADF")),
        (Detector("ADF", 38, 90), "user, angles from the file", ("38 to 90 mrad", "the file")),
    ],
)
def test_angles_that_nobody_estimated(detector, origin, expected):
    told = evidence(detector, used=False, origin=origin)
    found = rows(*made(**told))
    assert ("collection angles", *expected) in found
    assert ("detector", detector.name, "the user") in found


def test_every_detector_is_told_with_its_file():
    first = evidence(Detector("HAADF", 63.0, 179.0), (63.0, 179.0, 0.85, 0.85, 1.0))
    second = evidence(Detector("ADF", 34.6, 76.0), (34.6, 76.0, 1.35, 1.35, 1.0))
    result, micrograph = made(
        **first, further_detectors=[second], further_micrographs=[{"source": "b.dm4", "provenance": {}}]
    )
    found = rows(result, micrograph)
    assert detectors_in_words(result) == "HAADF 63–179 mrad by the image and ADF 35–76 mrad by the image"
    assert [each[:2] for each in found if each[0].startswith(("detector", "collection"))] == [
        ("detector 1", "HAADF"),
        ("collection angles 1", "63 to 179 mrad"),
        ("detector 2", "ADF"),
        ("collection angles 2", "35 to 76 mrad"),
    ]
    assert ("further file", "b.dm4", "") in found


def test_what_the_file_says_otherwise_is_told():
    told = evidence(Detector("HAADF"), used=False)
    _, micrograph = made()
    result, _ = made(**told)
    other = Micrograph(micrograph.data, 0.25, 200e3, "MAADF", provenance={"energy": "file", "detector": "file"})
    found = rows(result, other)
    assert ("beam energy of the recording", "200 keV", "the file") in found
    assert ("detector of the recording", "MAADF", "the file") in found


# Sublattices


def test_the_least_certain_grain_is_named():
    grains = [{"grain": n, "posterior": p, "columns": 9, "metal_sublattice": 0} for n, p in ((0, 0.99), (4, 0.7))]
    assert (
        "sublattice of the metal",
        "certain to 70.0 %, that is in grain 4, the least certain of 2",
        "all columns of a grain",
    ) in rows(*made(sublattices=grains))
    assert "certain to 99.0 %" in [value for _, value, _ in rows(*made(sublattices=grains[:1]))]


# Calibration


def calibration(stated, scale, error=1e-4, *, measured=True):
    return Calibration(stated, np.asarray(scale, float), measured, error).to_dict()


def test_the_sampling_by_the_lattice_is_told_with_error_unit_and_use():
    result, micrograph = made(sampling=0.4, calibration=calibration(0.4, np.eye(2) / 0.39))
    found = {name: (value, origin) for name, value, origin in rows(replace(result, sampling=0.39), micrograph)}
    assert found["sampling stated"] == ("0.4 Å/px", "the user")
    value, origin = found["sampling by the lattice"]
    assert value == "0.39000 ± 0.00004 Å/px, 2.5 % below that stated and used in place of it"
    assert origin == "the columns, the lattice constant of 3.32 Å taken for exact"
    assert "3.9 × 2.73 nm" in found["image"][0]  # 100 x 70 px of 0.39 Å


def test_a_sampling_that_agrees_is_kept():
    found = dict(each[:2] for each in rows(*made(calibration=calibration(0.25, np.eye(2) / 0.251))))
    assert (
        found["sampling by the lattice"]
        == "0.25100 ± 0.00003 Å/px, 0.4 % above that stated and too near to it to be used"
    )


def test_too_few_columns_are_no_ruler():
    found = dict(each[:2] for each in rows(*made(calibration=calibration(0.25, np.eye(2) / 0.25, measured=False))))
    assert found["sampling by the lattice"].startswith("not measured")
    assert "distortion of the lattice" not in found


@pytest.mark.parametrize("angle", [0, 30, 90, 149])
def test_a_distortion_is_told_as_seen(angle):
    along = np.array([-np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))])  # rows run downwards
    scale = (np.eye(2) + 0.03 * np.outer(along, along)) / 0.25
    found = dict(each[:2] for each in rows(*made(calibration=calibration(0.25, scale))))
    assert found["distortion of the lattice"].startswith(
        f"3 % longer along {angle}° than across, from the rows counter"
    )


# To do it again


def stated(detector="HAADF", further=(), by_image=None, **context):
    context = Context("WSe2", "Ti", 80e3, detector, **context)
    return {"context": context.to_dict(), "further_detectors": list(further), "estimate_angles": by_image}


def parsed(shell):
    """Options of a command, as click reads them."""
    words = shlex.split(shell)
    assert words[:2] == ["contextem", "classify"]
    return classify_command.make_context("classify", words[2:]).params


@pytest.mark.parametrize("origin", ["user", "command line", "contextem.yaml"])
def test_a_sampling_that_someone_said_is_said_again(origin):
    result, micrograph = made(stated=stated(), origin={"sampling": origin})
    shell, script = commands(result, micrograph)
    assert parsed(shell)["sampling"] == 0.25
    assert "ctm.read('a.dm4', sampling=0.25)" in script
    result, micrograph = made(stated=stated(), origin={"sampling": "file"})
    assert parsed(commands(result, micrograph)[0])["sampling"] is None


@pytest.mark.parametrize("origin", ["user", "command line"])
def test_a_lattice_constant_of_ones_own_is_said_again(origin):
    context = stated(lattice_constant=3.3, provenance={"lattice_constant": origin})
    shell, script = commands(*made(stated=context))
    assert parsed(shell)["lattice_constant"] == 3.3
    assert "lattice_constant=3.3)" in script
    assert parsed(commands(*made(stated=stated()))[0])["lattice_constant"] is None


def test_the_image_that_was_chosen_is_chosen_again(tmp_path):
    np.save(tmp_path / "stack.npy", np.random.default_rng(0).normal(size=(3, 70, 100)))
    micrograph = ctm.read(tmp_path / "stack.npy", sampling=0.25, frame=2, signal=0)
    assert micrograph.provenance == {"signal": "0", "frame": "2", "sampling": "user"}
    result, _ = made(stated=stated())
    shell, script = commands(result, micrograph)
    assert (parsed(shell)["frame"], parsed(shell)["signal"]) == (2, "0")
    assert "ctm.read('stack.npy', sampling=0.25, signal=0, frame=2)" in script
    assert ("frame of the file", "2", "the user") in rows(result, micrograph)


def test_a_series_is_named_as_one():
    _, micrograph = made()
    result, _ = made(stated=stated())
    mean = average([micrograph, micrograph, micrograph])
    (shell,) = commands(result, mean)
    assert parsed(shell)["series"]
    assert [str(file) for file in parsed(shell)["files"]] == ["FILES"]
    assert ("series", "mean of 3 frames, over what all of them show", "registration") in rows(result, mean)


def test_all_detectors_are_in_the_command_and_in_the_script():
    adf = Detector("ADF").to_dict()
    about = {"further_micrographs": [{"source": "b.dm4", "provenance": {}}]}
    shell, script = commands(*made(**about, stated=stated(further=[adf])))
    assert [(str(file), name) for file, name in parsed(shell)["also"]] == [("b.dm4", "ADF")]
    assert "    ctm.read('b.dm4', sampling=0.25, detector=ctm.Detector('ADF'))," in script.splitlines()
    assert "context = ctm.Context('WSe2', ('Ti',), energy=80e3)" in script.splitlines()
    assert script.endswith("ctm.classify(micrographs, context)")
    compile(script, "script", "exec")
    with_angles = Detector("ADF", 40, 90).to_dict()  # which --also cannot say
    (script,) = commands(*made(**about, stated=stated(further=[with_angles])))
    assert "detector=ctm.Detector('ADF', inner=40, outer=90)" in script
