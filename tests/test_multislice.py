"""Multislice: the beams of an aperture against abTEM's probes, the micrographs made of them, and superposition."""

import itertools
import json
import sys
import types
from dataclasses import replace

import abtem
import numpy as np
import pytest
from ase import Atoms
from click.testing import CliRunner
from scipy import fft

from contextem.cli import main
from contextem.context import HOSTS
from contextem.micrograph import Detector
from contextem.probe import Aberrations
from contextem.responses import library
from contextem.simulate import dataset, scattering
from contextem.simulate.agreement import agreement, displaced
from contextem.simulate.dataset import SimulatedMicrograph
from contextem.simulate.multislice import scan_image, scan_probes, simulate_multislice
from contextem.simulate.render import superpose
from contextem.simulate.smatrix import array_module, frozen_phonons, scatter_beams
from contextem.simulate.structures import X2, supercell

DETECTORS = ("HAADF", "MAADF")
SMALL = {"repeats": (2, 1), "phonons": 1, "size": 14.0}


@pytest.fixture(scope="module")
def specimen():
    return supercell("MoS2", "V", (3, 2), np.random.default_rng(0), dopant_fraction=0.2, single_fraction=0.2)


@pytest.fixture(scope="module")
def beams(specimen):
    return scatter_beams(specimen[0], 80e3, DETECTORS, phonons=2, seed=4)


# ------------------------------------------------------------------------------------------------------------- beams


@pytest.mark.parametrize("defocus", [0.0, 21.0])
def test_beams_add_up_to_the_probes_of_abtem(specimen, beams, defocus):
    atoms, layer = specimen
    points = np.concatenate([layer.sites, np.random.default_rng(1).uniform(0.0, 9.0, (12, 2))])
    expected = scan_probes(atoms, points, 80e3, DETECTORS, phonons=2, seed=4, defocus=defocus)
    # of whole pixels, as abTEM's aperture; what is left comes from abTEM's tapered limit of the waves
    found = beams.intensities(points, beams.probe(defocus, subpixels=1))
    assert (np.abs(found - expected).max(axis=0) < 1.5e-3 * expected.max(axis=0)).all()


def test_gram_matrices_are_hermitian_and_positive(beams):
    np.testing.assert_allclose(beams.gram, beams.gram.conj().swapaxes(1, 2), atol=1e-7 * np.abs(beams.gram).max())
    for gram in beams.gram:
        values = np.linalg.eigvalsh(gram)
        assert values[0] > -1e-5 * values[-1]
        assert np.diag(gram).real.max() < 1.0


@pytest.mark.parametrize("defocus", [0.0, 30.0])
def test_mean_of_the_image_is_what_the_beams_scatter_one_by_one(beams, defocus):
    correlation = beams.probe(defocus)
    grid = np.stack(np.meshgrid(*(np.arange(32) / 32 * x for x in beams.lengths), indexing="ij"), -1).reshape(-1, 2)
    image = beams.intensities(grid, correlation)
    alone = [np.diag(correlation * gram).real.sum() / np.trace(correlation).real for gram in beams.gram]
    np.testing.assert_allclose(image.mean(axis=0), alone, rtol=1e-6)
    assert image.min() > 0.0


def test_fourier_series_is_that_of_a_real_band_limited_image(beams):
    frequencies, coefficients = beams.fourier(beams.probe(12.0))
    found = dict(
        zip(map(tuple, np.rint(frequencies * beams.lengths).astype(int).tolist()), coefficients.T, strict=True)
    )
    assert len(found) == len(coefficients.T)
    for (i, j), value in found.items():
        np.testing.assert_allclose(value, found[-i, -j].conj(), atol=1e-8)
    beyond = np.hypot(*frequencies.T) > 2e-3 * beams.semiangle / beams.wavelength
    assert np.abs(coefficients[:, beyond]).max(initial=0.0) < 1e-4 * np.abs(coefficients).max()


def test_aberrations_are_those_of_abtem(beams):
    terms = {"C12": 25.0, "phi12": 0.4, "C23": 800.0, "phi23": -0.2, "C30": 1e4}
    found = beams.probe(9.0, terms, subpixels=1)
    probe = abtem.Probe(
        energy=80e3, semiangle_cutoff=30.0, soft=False, defocus=9.0 + beams.depth, aberrations=terms,
        extent=beams.lengths, gpts=(96, 108),
    )  # fmt: skip
    waves = np.fft.fft2(np.squeeze(probe.build(scan=(0.0, 0.0), lazy=False).array))[tuple(beams.index.T)]
    expected = np.outer(waves, waves.conj()) / np.abs(waves).max() ** 2
    np.testing.assert_allclose(found, expected, atol=2e-3)
    with pytest.raises(ValueError, match="aberrations: expected symbols"):
        beams.probe(aberrations={"astigmatism": 1.0})


def test_a_fair_aperture_gives_the_same_peak_in_every_cell():
    t = 3.36
    fair, whole = [], []
    for length in (8.0, 8.3, 8.6, 9.0):
        atoms = Atoms("W", positions=[(length / 2, length / 2, 0.75 * t)], cell=(length, length, 1.5 * t))
        one = scatter_beams(atoms, 80e3, ["HAADF"], phonons=1, thermal=(0.0, 0.0))
        points = [[length / 2, length / 2]]
        fair.append(one.intensities(points, one.probe())[0, 0])
        whole.append(one.intensities(points, one.probe(subpixels=1))[0, 0])
    expected = float(library().response("W", 80e3, "HAADF").radial(0.0))
    np.testing.assert_allclose(fair, expected, rtol=0.01)
    assert np.ptp(fair) < 0.35 * np.ptp(whole)


def test_the_way_through_a_gpu_gives_the_same(specimen, beams, monkeypatch):
    # NumPy in the clothes of CuPy: batches of waves, and copies back
    cupy = types.ModuleType("cupy")
    vars(cupy).update({name: getattr(np, name) for name in ("asarray", "pad", "empty", "stack")})
    cupy.fft, cupy.asnumpy = fft, np.asarray
    cupy.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=lambda: 1))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    found = scatter_beams(specimen[0], 80e3, DETECTORS, phonons=2, seed=4, device="gpu")
    np.testing.assert_allclose(found.gram, beams.gram, atol=1e-6 * np.abs(beams.gram).max())
    cupy.cuda.runtime.getDeviceCount = lambda: 0
    with pytest.raises(ValueError, match="device: gpu needs an NVIDIA GPU"):
        array_module("gpu")


def test_beams_cannot_be_sent_anywhere(specimen):
    with pytest.raises(ValueError, match="device: expected cpu or gpu, got 'tpu'"):
        array_module("tpu")
    with pytest.raises(ValueError, match="semiangle: give it in mrad"):
        scatter_beams(specimen[0], 150e3, ["HAADF"])


# ------------------------------------------------------------------------------------------------------- micrographs


def test_an_image_is_scanned_where_the_transformed_cell_lies(beams):
    turn, offsets = np.array([[0.8, -0.62], [0.6, 0.81]]), np.random.default_rng(2).normal(0, 0.3, (7, 2))
    origin, drawn = np.array([1.5, 4.0]), {"sampling": 0.4, "defocus": 11.0, "source_size": 0.0}
    image = scan_image(beams, drawn, (7, 5), offsets, turn, origin)
    for (i, j), value in np.ndenumerate(image):
        point = np.linalg.inv(turn) @ (np.array([i, j]) * 0.4 + offsets[i]) + origin
        assert value == pytest.approx(beams.intensities([point], beams.probe(11.0))[0, 0], abs=1e-9)
    # a Gaussian source is the mean over its points, which Gauss-Hermite quadrature takes
    blurred = scan_image(beams, drawn | {"source_size": 0.3}, (7, 5), offsets, turn, origin)
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    mean = sum(
        a * b * scan_image(beams, drawn, (7, 5), offsets + 0.3 * np.array([x, y]), turn, origin)
        for (x, a), (y, b) in itertools.product(zip(nodes, weights, strict=True), repeat=2)
    ) / (2.0 * np.pi)
    np.testing.assert_allclose(blurred, mean, atol=1e-6)


def test_a_multislice_image_looks_like_the_superposed_one():
    atoms, layer = supercell("MoS2", "V", (3, 2), np.random.default_rng(1), disorder=0.04, relaxation=(0.02, 0.05))
    beams = scatter_beams(atoms, 80e3, ["HAADF"], phonons=16)
    drawn = {"sampling": 0.2, "defocus": 15.0, "source_size": 0.35}
    shape = tuple(int(length / 0.2) for length in beams.lengths)
    image = scan_image(beams, drawn, shape, np.zeros((shape[0], 2)), np.eye(2), np.zeros(2))
    groups = dataset.column_groups(layer, "MoS2", "V", 80e3, "HAADF", defocus=15.0, source_size=0.35)
    expected = superpose(groups, shape, 0.2, period=beams.lengths)
    error = (image - expected) / expected.max()
    # on the flanks of a column the mean displacement of a few phonon configurations counts, at its centre it does not
    centres = np.rint(layer.atoms / 0.2).astype(int)
    centres = centres[(centres < shape).all(axis=1)]
    assert np.abs(error[tuple(centres.T)]).max() < 0.03
    assert error.std() < 0.02
    assert abs(error.mean()) < 0.005


def test_aberrations_turn_with_the_axes_of_the_cell():
    # no pairs: those of superposition vibrate
    fractions = {"single_fraction": 1.0, "double_fraction": 0.0}
    atoms, layer = supercell("WSe2", "Cr", (2, 1), np.random.default_rng(1), **fractions)
    beams = scatter_beams(atoms, 80e3, ["MAADF"], phonons=1, thermal=(0.0, 0.0))
    drawn, aberrations = {"sampling": 0.2, "defocus": 10.0, "source_size": 0.3}, Aberrations(10.0, 9.0, 0.3, 500.0, 1.2)
    turn = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    image = scan_image(beams, drawn, (30, 30), np.zeros((30, 2)), turn, np.zeros(2), aberrations.turned(0.7))
    # the points of the turned image, in the cell as it lies
    points = np.moveaxis(np.mgrid[:30, :30] * 0.2, 0, -1).reshape(-1, 2) @ turn
    groups = dataset.column_groups(layer, "WSe2", "Cr", 80e3, "MAADF", aberrations=aberrations.turned(0.7))
    still = [replace(group, blur=0.3) for group in groups]
    expected = superpose(still, (900, 1), 0.0, points, period=beams.lengths).reshape(30, 30)
    assert np.abs(image - expected).max() < 0.01 * expected.max()
    unturned = dataset.column_groups(layer, "WSe2", "Cr", 80e3, "MAADF", aberrations=aberrations)
    wrong = superpose([replace(g, blur=0.3) for g in unturned], (900, 1), 0.0, points, period=beams.lengths)
    assert np.abs(image - wrong.reshape(30, 30)).max() > 0.06 * expected.max()


@pytest.mark.parametrize("coma", [0.0, 500.0])
def test_truth_lies_where_the_columns_are_seen(coma):
    given = {
        "jitter": 0.0, "disorder": 0.0, "relaxation": 0.0, "background": 0.0, "haze": 0.0, "readout": 0.0,
        "vacancy_fraction": 0.0, "dose": 1e9, "sampling": 0.1, "source_size": 0.3, "defocus": 0.0, "drift": 0.4,
        "coma": coma,
    }  # fmt: skip
    simulated = simulate_multislice("WS2", None, 80e3, "HAADF", 4, **SMALL | {"phonons": 4, "size": 24.0}, **given)
    image = simulated.micrograph.data.astype(float)
    metals = simulated.columns.positions[simulated.labels == 0]
    metals = metals[((metals > 10) & (metals < np.array(image.shape) - 10)).all(axis=1)]
    grid = np.mgrid[-6:7, -6:7].reshape(2, -1).T
    shifts = []
    for centre in metals:
        start = np.rint(centre).astype(int)
        weight = image[tuple((start + grid).T)]
        weight = np.clip(weight - 0.5 * weight.max(), 0, None)
        shifts.append((weight @ (start + grid) / weight.sum() - centre) * 0.1)
    assert len(shifts) > 25
    # four configurations leave a mean displacement of 0.03 Å
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.04
    assert np.abs(shifts).max() < 0.12
    a = HOSTS["WS2"].lattice_constant
    area = np.prod(np.array(image.shape) - 1) * 0.1**2
    assert len(simulated.labels) * a**2 * np.sqrt(3) / 4 == pytest.approx(area, rel=0.12)


def test_same_seed_same_micrograph_and_the_conditions_tell_the_engine():
    one, same, other = (simulate_multislice("MoS2", "V", 80e3, "HAADF", s, **SMALL) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.micrograph.data, same.micrograph.data)
    assert one.conditions == same.conditions
    assert one.conditions["dose"] != other.conditions["dose"]
    assert {"engine": "abtem", "phonons": 1, "repeats": [2, 1]}.items() <= one.conditions.items()
    superposed = dataset.simulate_micrograph("MoS2", "V", 80e3, "HAADF", 1, size=14.0)
    assert superposed.conditions.keys() < one.conditions.keys()
    assert superposed.conditions["rotation"] != one.conditions["rotation"]


# --------------------------------------------------------------------------------------------------------- data sets


def test_a_set_of_multislice_images_is_written_resumed_and_read(tmp_path, monkeypatch):
    monkeypatch.setitem(dataset.PRESETS, "small", ((("WS2", "Cr"), ("MoS2", None)), ((80e3, "HAADF"),)))
    options = {"engine": "abtem", "processes": 1, "phonons": 1, "repeats": (1, 1), "size": 12.0}
    files = dataset.generate(tmp_path, "small", 1, **options)
    about = dataset.manifest(tmp_path)
    assert (about["engine"], about["phonons"], about["abTEM"]) == ("abtem", 1, abtem.__version__)
    before = files[1].stat().st_mtime_ns
    files[0].unlink()
    assert dataset.generate(tmp_path, "small", 1, **options) == files == dataset.stored(tmp_path)
    assert files[1].stat().st_mtime_ns == before
    recipe = dataset.recipes("small", 1, ranges="reference")[0]
    made = recipe.simulate("abtem", phonons=1, repeats=(1, 1), size=12.0)
    read = SimulatedMicrograph.load(files[0])
    np.testing.assert_array_equal(read.micrograph.data, made.micrograph.data)
    assert read.conditions == made.conditions
    assert read.micrograph.detector == Detector("HAADF", 70.0, 200.0)
    with pytest.raises(ValueError, match="holds another data set"):
        dataset.generate(tmp_path, "small", 1, **options | {"phonons": 2})
    with pytest.raises(ValueError, match="holds another data set"):
        dataset.generate(tmp_path, "small", 1, processes=1)
    with pytest.raises(ValueError, match="engine: expected one of responses, abtem"):
        dataset.generate(tmp_path, "small", 1, engine="drprobe")


def test_a_manifest_without_engine_is_of_responses(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"preset": "tmd96", "files": []}))
    assert dataset.manifest(tmp_path)["engine"] == "responses"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--engine", "abtem", "--device", "gpu"), ["cupy", "contextem[cuda13]"]),
        (("--phonons", "4"), ["--phonons", "--engine abtem"]),
        (("--device", "cpu"), ["--device", "--engine abtem"]),
    ],
)
def test_the_shell_refuses_in_one_sentence(tmp_path, monkeypatch, arguments, words):
    monkeypatch.setitem(sys.modules, "cupy", None)
    done = CliRunner().invoke(main, ["simulate", *arguments, "-o", str(tmp_path / "set")])
    assert done.exit_code == 2
    assert done.output.startswith("Error: ") and done.output.count("\n") == 1
    assert all(word in done.output for word in words)
    assert not (tmp_path / "set").exists()


# --------------------------------------------------------------------------------- agreement with full abTEM multislice


def test_columns_stand_where_their_atoms_are():
    atoms, layer = supercell("WSe2", "Cr", (4, 3), np.random.default_rng(5), single_fraction=0.3)
    (planes,) = frozen_phonons(atoms, 1, (0.06, 0.075), seed=2)
    moved = displaced(layer, [xy for _, xy in planes]).atoms
    every = np.concatenate([xy for _, xy in planes])
    for site, atom, label in zip(layer.sites, moved, layer.labels, strict=True):
        near = every[np.hypot(*(every - site).T) < 0.6]
        assert len(near) == {0: 1, 1: 1, 2: 2, 3: 1, 4: 0}[label]
        np.testing.assert_allclose(atom, near.mean(axis=0) if len(near) else site, atol=1e-9)


def test_one_atom_agrees_with_abtem():
    # in a cell of another size the aperture holds up to 2 % more or fewer pixels than its area
    length, t = scattering.ColumnScan(80e3, 30.0, (60.0, 170.0)).length, 3.36
    atoms = Atoms("W", positions=[(length / 2, length / 2, 0.75 * t)], cell=(length, length, 1.5 * t))
    distance = np.array([0.0, 0.3, 0.6, 1.2, 2.5])
    points = np.column_stack([length / 2 + distance, np.full(5, length / 2)])
    for defocus in (0.0, 21.0):
        found = scan_probes(atoms, points, 80e3, ["HAADF"], thermal=(0.0, 0.0), phonons=1, defocus=defocus)[:, 0]
        expected = library().response("W", 80e3, "HAADF", defocus).radial(distance)
        np.testing.assert_allclose(expected, found, atol=0.006 * found[0])


def test_superposition_agrees_with_multislice():
    found = agreement("MoS2", "V", 80e3, DETECTORS, defoci=(0.0, 20.0), repeats=(3, 2), phonons=32)
    assert set(found.labels) >= {0, 1, 2}
    assert_agreement(found)


@pytest.mark.slow
@pytest.mark.parametrize("energy", [60e3, 80e3, 200e3])
@pytest.mark.parametrize(("host", "dopant"), [("WSe2", "Cr"), ("MoS2", "V"), ("NbTe2", "Cu")])
def test_superposition_agrees_with_multislice_in_every_case(host, dopant, energy):
    found = agreement(host, dopant, energy, DETECTORS, defoci=(0.0, 20.0), phonons=96)
    assert_agreement(found)


def assert_agreement(found):
    pairs = found.labels == X2
    assert np.abs(found.errors[:, ~pairs]).max() < 0.02
    # separations vary from configuration to configuration
    assert np.abs(found.errors[:, pairs]).max() < 0.03
    for label in np.unique(found.labels):
        assert np.abs(found.errors[:, found.labels == label].mean(axis=1)).max() < 0.015
