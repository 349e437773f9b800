"""Simulated truth: responses of columns, their sum, and the data sets."""

import contextlib
import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.chebyshev import chebval
from scipy import ndimage, stats
from scipy.spatial import cKDTree
from scipy.special import jv

from contextem import probe, responses
from contextem.columns import CLASSES
from contextem.context import HOSTS
from contextem.micrograph import Detector
from contextem.probe import Aberrations
from contextem.responses import library
from contextem.simulate import coherences, dataset, scattering
from contextem.simulate.conditions import WIDE, Ranges
from contextem.simulate.dataset import CASES, NEAR_Z, SimulatedMicrograph, simulate_micrograph
from contextem.simulate.multislice import scan_probes
from contextem.simulate.noise import poisson, smooth_noise
from contextem.simulate.render import Group, superpose
from contextem.simulate.structures import X2, Monolayer, doped_monolayer, honeycomb, relax, supercell

CLEAN = {
    "jitter": 0.0, "drift": 0.0, "disorder": 0.0, "relaxation": 0.0, "strain": 0.0, "background": 0.0, "haze": 0.0,
    "readout": 0.0, "defocus": 0.0, "vacancy_fraction": 0.0, "dopant_fraction": 0.0, "astigmatism": 0.0, "coma": 0.0,
    "spherical": 0.0,
}  # fmt: skip


def slow_radial(response, r, blur):
    """Hankel integral by the trapezoidal rule, from the definition in the head of responses.py."""
    k = np.linspace(0.0, response.cutoff, 4001)
    kappa = k / response.cutoff
    transfer = chebval(2 * kappa - 1, response.coefficients) * (1 - kappa) * np.exp(-2 * np.pi**2 * blur**2 * k**2)
    return np.array([np.trapezoid(2 * np.pi * k * transfer * jv(0, 2 * np.pi * k * x), k) for x in r])


def perfect_crystal(formula):
    """A large perfect monolayer around a metal column at the origin, and its bond vectors to chalcogen and hollow."""
    a = HOSTS[formula].lattice_constant
    sites, sublattice = honeycomb(a, (-25, -25), (25, 25))
    labels = np.where(sublattice == 0, 0, X2).astype(np.int8)
    layer = Monolayer(sites, np.zeros_like(sites), labels, np.zeros(len(sites), bool))
    bond = np.array([a / 2, a / (2 * np.sqrt(3))])
    return layer, bond, bond * [-1, -1]


# ------------------------------------------------------------------------------------------------ the shipped library


def test_library_is_complete_and_small():
    shipped = library()
    assert shipped.coherences.shape == (22, 6, 33, 146)
    assert np.isfinite(shipped.coherences).all()
    assert 0 < responses.files("contextem").joinpath("data/responses.npz").stat().st_size < 8e6
    assert set(shipped.energies) == {60e3, 80e3, 100e3, 120e3, 200e3, 300e3}
    wanted = {x for host, dopant in CASES + NEAR_Z for x in (HOSTS[host].metal, HOSTS[host].chalcogen, dopant)}
    assert wanted <= set(shipped.species)
    assert (shipped.edges[:, 0] > [responses.SEMIANGLES[e] for e in shipped.energies]).all()
    assert {"command", "abTEM", "sha256"} <= set(shipped.about)


def test_library_with_changed_numbers_is_refused(tmp_path):
    source = responses.files("contextem").joinpath("data/responses.npz")
    with source.open("rb") as file, np.load(file) as data:
        arrays = dict(data)
    arrays["coherences"] = arrays["coherences"] * np.float32(1.01)
    np.savez(tmp_path / "responses.npz", **arrays)
    with pytest.raises(ValueError, match="checksum does not fit"):
        responses.load(tmp_path / "responses.npz")


@pytest.mark.parametrize(("energy", "name"), [(60e3, "Cr"), (80e3, "S2@3.13")])
def test_library_is_what_the_code_computes(energy, name):
    computed = coherences.compute(energy, name)
    shipped = library()
    stored = shipped.coherences[shipped.species.index(name), list(shipped.energies).index(energy)]
    assert np.abs(computed - stored).max() < 1e-4 * np.abs(stored).max()


def test_an_interrupted_build_goes_on(tmp_path, monkeypatch):
    computed, allowed = [], 5

    def compute(energy, name):
        if len(computed) == allowed:
            raise KeyboardInterrupt
        computed.append((energy, name))
        return np.full((33, 146), float(len(name)))

    class Here:
        map = staticmethod(map)

    monkeypatch.setattr(coherences, "compute", compute)
    monkeypatch.setattr(coherences, "process_pool", lambda _: contextlib.nullcontext(Here()))
    target = tmp_path / "responses.npz"
    with pytest.raises(KeyboardInterrupt):
        coherences.build(target, progress=False, energies=(60e3,))
    assert not target.exists()
    allowed = 100
    built = coherences.build(target, progress=False, energies=(60e3,))
    assert len(computed) == len(set(computed)) == 22
    assert [file.name for file in tmp_path.iterdir()] == ["responses.npz"]
    assert (built.coherences[:, 0, 0, 0] == [len(name) for name in built.species]).all()
    assert built.about["rings"]["60000"] == built.edges[0].tolist()


PEAKS = {
    "Ta": 0.995, "Te": 0.711, "Mo": 0.528, "Nb": 0.511, "Zr": 0.496, "Se": 0.404, "Ni": 0.306, "Co": 0.288, "Fe": 0.270,
    "Mn": 0.252, "Cr": 0.235, "V": 0.216, "Ti": 0.200, "S": 0.114,
}  # fmt: skip


def test_peaks_of_single_atoms_relative_to_tungsten():
    # coarser grids without oversampling lower W by some per cent, hence the tolerance
    detector = Detector("HAADF", 60, 170)
    peak = {x: float(library().response(x, 80e3, detector).radial(0.0)) for x in (*PEAKS, "W")}
    for element, expected in PEAKS.items():
        assert peak[element] / peak["W"] == pytest.approx(expected, rel=0.05), element
    assert sorted(PEAKS, key=peak.__getitem__) == sorted(PEAKS, key=PEAKS.__getitem__)


RATIOS = {
    (40, 60): 1.43, (40, 80): 1.33, (40, 120): 1.18, (50, 80): 1.23, (50, 120): 1.04, (60, 120): 0.90, (60, 200): 0.88,
    (70, 120): 0.78, (70, 200): 0.79, (80, 120): 0.69, (80, 200): 0.75,
}  # fmt: skip


@pytest.mark.parametrize("angles", RATIOS)
def test_contrast_of_selenium_pairs_and_tungsten(angles):
    layer, to_pair, to_hollow = perfect_crystal("WSe2")
    groups = dataset.column_groups(layer, "WSe2", None, 80e3, Detector("HAADF", *angles), source_size=0.45)
    points = np.array([[0.0, 0.0], to_pair, to_hollow])
    metal, pair, hollow = superpose(groups, (3, 1), 0.0, points, period=(60.0, 60.0))[:, 0]
    assert (pair - hollow) / (metal - hollow) == pytest.approx(RATIOS[angles], rel=0.07)


def test_transfer_of_many_angles_adds_up():
    detectors = [Detector("HAADF", *angles) for angles in ((50, 83), (83, 200), (50, 200))]
    low, high, whole = (library().response("W", 80e3, detector).coefficients for detector in detectors)
    np.testing.assert_allclose(low + high, whole, rtol=1e-12, atol=1e-15)


@given(st.lists(st.floats(40.0, 220.0), min_size=3, max_size=3, unique=True))
def test_ring_weights_are_additive_and_shares(angles):
    edges = np.array([40.0, 50.0, 80.0, 220.0])
    a, b, c = sorted(angles)
    parts = responses.ring_weights(edges, a, b) + responses.ring_weights(edges, b, c)
    np.testing.assert_allclose(parts, responses.ring_weights(edges, a, c), atol=1e-12)
    assert ((parts >= -1e-12) & (parts <= 1 + 1e-12)).all()


def test_interpolation_between_thicknesses_and_defoci_is_smooth():
    pair = [float(library().pair("S", t, 80e3, "HAADF").radial(0.0)) for t in (2.98, 3.055, 3.13)]
    assert pair[1] == pytest.approx((pair[0] + pair[2]) / 2, rel=1e-9)
    computed = scattering.ColumnScan(80e3, 30.0, (33.0, 70.0, 200.0))
    probe = computed.probes(np.zeros((1, 2)), 20.0)
    exact = computed.detect(probe, [computed.transmission("Mo", (0.0, 0.0))])[0, 1]
    assert float(library().response("Mo", 80e3, "HAADF", 20.0).radial(0.0)) == pytest.approx(exact, rel=5e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: library().response("Au", 80e3, "HAADF"), "symbol: expected one of Mo"),
        (lambda: library().response("W", 90e3, "HAADF"), "energy: expected one of 60e3"),
        (lambda: library().response("W", 80e3, "HAADF", 190.0), "aberrations: expected rays that miss the focus by"),
        (lambda: library().response("W", 80e3, "HAADF", 9.0, Aberrations(coma=np.nan)), "aberrations: expected rays"),
        (lambda: library().response("W", 80e3, Detector("HAADF", 20, 200)), "bright-field disk"),
        (lambda: library().response("W", 80e3, "LAADF"), "only HAADF, MAADF, ADF have default angles"),
        (lambda: library().pair("W", 3.1, 80e3, "HAADF"), "symbol: expected a chalcogen"),
        (lambda: library().pair("Se", 4.0, 80e3, "HAADF"), "thickness: expected 3.00 to 3.46"),
    ],
)
def test_what_the_library_lacks_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------------------------------------ how responses are computed


def disks_overlap(kappa):
    """Common share of two disks whose middles are kappa diameters apart."""
    return 2 / np.pi * (np.arccos(kappa) - kappa * np.sqrt(1 - kappa**2))


def test_a_point_in_focus_has_the_autocorrelation_of_the_aperture():
    coherence = np.zeros(146)
    coherence[0] = 3.0
    kappa = np.linspace(0, 1, 30)
    in_focus = probe.round_transfer(np.zeros_like) @ coherence
    by_grid = probe.general_transfer(coherence, probe.aperture_grid().probe(np.zeros(probe.aperture_grid().rho.shape)))
    for coefficients in (in_focus, by_grid[0].real):
        found = responses.Response(1.0, coefficients).transfer(kappa)
        np.testing.assert_allclose(found, 3.0 * disks_overlap(kappa), atol=3e-3)
    assert np.abs(by_grid[1:]).max() < 0.02


@given(st.integers(0, 2**32 - 1))
def test_hermitian_matrices_are_packed_without_loss(seed):
    rng = np.random.default_rng(seed)
    sizes = (6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1)
    parts = [rng.normal(size=(2, n, n)) + 1j * rng.normal(size=(2, n, n)) for n in sizes]
    hermitian = [part + part.conj().swapaxes(1, 2) for part in parts]
    packed = probe.pack(hermitian)
    assert packed.shape == (2, 146)
    for i in range(2):
        for matrix, whole in zip(hermitian, probe.unpack(packed[i]), strict=True):
            expected = np.zeros((6, 6), complex)
            expected[: matrix.shape[1], : matrix.shape[1]] = matrix[i]
            assert (whole == expected).all()


@pytest.mark.parametrize(("symbol", "energy"), [("W", 60e3), ("Se", 80e3), ("Mo", 300e3)])
@pytest.mark.parametrize("detector", ["MAADF", "HAADF"])
@pytest.mark.parametrize(("defocus", "spherical"), [(0.0, 0.0), (40.0, 0.0), (10.0, -2e4)])
def test_a_round_probe_is_the_limit_of_any_probe(symbol, energy, detector, defocus, spherical):
    r = np.linspace(0, 5, 50)
    of_round = library().response(symbol, energy, detector, defocus, Aberrations(spherical=spherical))
    of_any = library().response(symbol, energy, detector, defocus, Aberrations(0.0, 1e-9, spherical=spherical))
    assert of_round.harmonics is None
    assert of_any.harmonics is not None
    np.testing.assert_allclose(of_any.radial(r), of_round.radial(r), atol=3e-3 * of_round.radial(0.0))
    harmonic = superpose([Group(of_any, 0.2, np.array([[4.0, 4.0]]))], (40, 40), 0.2, period=(16.0, 16.0))
    plain = superpose([Group(of_round, 0.2, np.array([[4.0, 4.0]]))], (40, 40), 0.2, period=(16.0, 16.0))
    np.testing.assert_allclose(harmonic, plain, atol=4e-3 * plain.max())


ABERRATED = {
    "astigmatism": Aberrations(astigmatism=10.0, astigmatism_angle=0.6),
    "coma": Aberrations(coma=500.0, coma_angle=2.1),
    "spherical": Aberrations(spherical=2e4),
    "all": Aberrations(15.0, 8.0, 2.0, 400.0, -0.7, -1.5e4),
    "strong": Aberrations(-20.0, 15.0, 1.0, 800.0, 4.0, 2e4),
    "very strong": Aberrations(60.0, 30.0, 1.0),
}


@pytest.mark.parametrize("name", ABERRATED)
def test_one_atom_in_an_aberrated_probe_agrees_with_abtem(name):
    from ase import Atoms

    length, t = scattering.ColumnScan(80e3, 30.0, (60.0, 170.0)).length, 3.36
    atoms = Atoms("W", positions=[(length / 2, length / 2, 0.75 * t)], cell=(length, length, 1.5 * t))
    turn, distance = np.arange(16) * 2.4, np.linspace(0.0, 2.5, 16)
    points = length / 2 + distance[:, None] * np.column_stack([np.cos(turn), np.sin(turn)])
    detectors = [Detector("HAADF", *angles) for angles in ((70, 200), (50, 120), (31, 80))]
    found = scan_probes(atoms, points, 80e3, detectors, thermal=(0, 0), phonons=1, aberrations=ABERRATED[name])
    for detector, expected in zip(detectors, found.T, strict=True):
        response = library().response("W", 80e3, detector, aberrations=ABERRATED[name])
        group = Group(response, 0.0, np.array([[length / 2, length / 2]]))
        image = superpose([group], (16, 1), 0.0, points, period=(length, length))[:, 0]
        np.testing.assert_allclose(image, expected, atol=0.01 * expected.max())


@pytest.mark.parametrize(("energy", "semiangle"), [(80e3, 30.0), (300e3, 25.0)])
def test_a_pair_in_an_aberrated_probe_agrees_with_probes_sent_through_it(energy, semiangle):
    import abtem

    scan = scattering.ColumnScan(energy, semiangle, (semiangle * 1.05, 60.0, 180.0))
    aberrations, thickness = Aberrations(12.0, 8.0, 0.4, 300.0, 1.0, 1e4), 3.36
    half = scan.length / 2
    points = np.array([[0.0, 0.0], [0.3, 0.1], [-0.4, 0.5], [0.1, -0.8], [1.5, 1.0]])
    built = abtem.Probe(
        energy=energy, semiangle_cutoff=semiangle, soft=False, extent=scan.length, gpts=scan.gpts,
        defocus=12.0 + thickness / 2, C12=8.0, phi12=0.4, C21=300.0, phi21=1.0, C30=1e4,
    ).build(scan=abtem.CustomScan(points + half), lazy=False).array  # fmt: skip
    built = (built * scan.gpts / np.sqrt((np.abs(built[0]) ** 2).sum() * scan.gpts**2)).astype(np.complex64)
    expected = sum(
        w * scan.detect(built, [scan.transmission("Se", (s * x / 2, s * y / 2)) for s in (-1, 1)], thickness)
        for x, y, w in scattering.thermal_separations(responses.THERMAL_CHALCOGEN, 4)
    )
    for i, angles in enumerate(((semiangle * 1.05, 60.0), (60.0, 180.0))):
        response = library().pair("Se", thickness, energy, Detector("HAADF", *angles), aberrations=aberrations)
        group = Group(response, 0.0, np.array([[half, half]]))
        image = superpose([group], (5, 1), 0.0, points + half, period=(scan.length,) * 2)[:, 0]
        np.testing.assert_allclose(image, expected[:, i], atol=0.01 * expected[:, i].max())


@pytest.mark.parametrize("radii", [3, 6])
def test_thermal_separations_have_the_moments_of_two_gaussians(radii):
    x, y, weight = scattering.thermal_separations(0.08, radii).T
    variance = 2 * 0.08**2
    assert weight.sum() == pytest.approx(1)
    assert weight @ (x * y) == pytest.approx(0, abs=1e-12)
    assert weight @ x**2 == pytest.approx(variance)
    assert weight @ (x**2 + y**2) ** 2 == pytest.approx(8 * variance**2)


def test_a_column_scatters_alike_wherever_it_stands_between_grid_points():
    scan = scattering.ColumnScan(80e3, 30.0, (60.0, 170.0))
    detected = []
    for shift in (0.0, 0.011, 0.023, 0.037):
        probe = scan.probes(np.array([[shift, -shift]]), 0.0)
        detected.append(scan.detect(probe, [scan.transmission("W", (shift, -shift))])[0, 0])
    assert np.ptp(detected) < 2e-3 * np.mean(detected)


def test_transmission_function_is_that_of_abtem_for_a_light_atom():
    from abtem import Potential
    from ase import Atoms

    # on a grid point abTEM places atoms exactly, and the weak phase of sulphur hardly aliases
    atoms = Atoms("S", positions=[(4.0, 4.0, 1.0)], cell=(8.0, 8.0, 2.0))
    potential = Potential(atoms, gpts=(320, 320), slice_thickness=2.0, projection="infinite", parametrization="lobato")
    expected = potential.build(lazy=False).transmission_function(80e3).array[0]
    found = scattering.transmission_function(["S"], [[4.0, 4.0]], (8.0, 8.0), (320, 320), 80e3)
    # away from the core; a phase common to all pixels does not scatter
    expected, found = expected / expected[0, 0], found / found[0, 0]
    distance = np.hypot(*(np.mgrid[:320, :320] - 160)) * 8.0 / 320
    np.testing.assert_allclose(np.angle(found / expected)[distance > 0.15], 0.0, atol=0.01)


# ---------------------------------------------------------------------------------------------------- superposition


def test_superposition_is_the_sum_of_the_radial_functions():
    rng = np.random.default_rng(5)
    shape, sampling = (36, 44), 0.27
    positions = rng.uniform(-3.0, 13.0, (12, 2))
    offsets = np.column_stack([rng.normal(0, 0.1, 36), 0.4 * np.sin(np.arange(36) / 9)])
    kinds = [("W", 0.3, positions[:5]), ("Se", 0.41, positions[5:])]
    groups = [Group(library().response(x, 80e3, "MAADF", 12.0), blur, p) for x, blur, p in kinds]
    expected = np.zeros(shape)
    r = np.linspace(0, 25, 1001)
    for group in groups:
        radial = slow_radial(group.response, r, group.blur)
        for (i, j), (x, y) in itertools.product(np.ndindex(shape), group.positions):
            distance = np.hypot(i * sampling + offsets[i, 0] - x, j * sampling + offsets[i, 1] - y)
            expected[i, j] += np.interp(distance, r, radial)
    image = superpose(groups, shape, sampling, offsets)
    assert np.abs(image - expected).max() < 0.005 * expected.max()


def test_mean_of_an_image_is_the_scattering_per_area():
    a = HOSTS["MoS2"].lattice_constant
    atoms, cell = supercell("MoS2", None, (3, 2), np.random.default_rng(0), single_fraction=0.0, double_fraction=0.0)
    lengths = atoms.cell.lengths()[:2]
    groups = dataset.column_groups(cell, "MoS2", None, 80e3, "HAADF")
    points = np.stack(
        np.meshgrid(*(np.arange(n) / n * x for n, x in zip((36, 36), lengths, strict=True)), indexing="ij"), -1
    )
    image = superpose(groups, (36 * 36, 1), 0.0, points.reshape(-1, 2), period=tuple(lengths))
    area = a**2 * np.sqrt(3) / 2
    total = sum(float(g.response.transfer(0.0)) for g in groups)
    assert image.mean() == pytest.approx(total / area, rel=1e-6)


def test_smooth_noise_is_smooth_in_every_dimension():
    line, plane = (smooth_noise(shape, 4.0, np.random.default_rng(1)) for shape in ((200,), (60, 80)))
    for noise in (line, plane):
        assert noise.std() == pytest.approx(1)
        assert noise.mean() == pytest.approx(0, abs=1e-12)
        for axis in range(noise.ndim):
            assert np.diff(noise, axis=axis).std() < 0.3


def test_superposition_of_columns_that_are_not_round():
    response = library().response("W", 80e3, "MAADF", aberrations=ABERRATED["all"])
    positions = np.array([[3.1, 4.2], [6.0, 9.5]])
    image = superpose([Group(response, 0.15, positions)], (20, 30), 0.37, period=(13.0, 14.0))
    expected = np.zeros((20, 30))
    x, y = np.arange(20) * 0.37, np.arange(30) * 0.37
    for i, j in itertools.product(range(-20, 21), range(-21, 22)):
        kx, ky = i / 13, j / 14
        k, theta = np.hypot(kx, ky), np.arctan2(ky, kx)
        if k >= response.cutoff:
            continue
        value = complex(response.transfer(k))
        for m, harmonic in enumerate(response.angular_transfer(k), start=1):
            value += harmonic * np.exp(1j * m * theta) + (-1) ** m * harmonic.conj() * np.exp(-1j * m * theta)
        value *= np.exp(-2 * (np.pi * 0.15 * k) ** 2) / (13 * 14)
        for row, column in positions:
            expected += (value * np.exp(2j * np.pi * (kx * (x[:, None] - row) + ky * (y - column)))).real
    np.testing.assert_allclose(image, expected, atol=2e-5 * expected.max())


def test_superposition_in_single_precision_is_close():
    layer = doped_monolayer(3.3, (-6, -6), (42, 30), np.random.default_rng(3))
    groups = dataset.column_groups(layer, "WSe2", "Cr", 200e3, "MAADF", defocus=9.0, source_size=0.3)
    offsets = np.random.default_rng(4).normal(0.0, 0.2, (120, 2))
    exact = superpose(groups, (120, 80), 0.3, offsets)
    single = superpose(groups, (120, 80), 0.3, offsets, dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, exact, atol=1e-5 * exact.max())


def test_a_large_source_leaves_out_only_what_it_has_blurred_away():
    response = library().response("W", 300e3, "HAADF")
    image = superpose([Group(response, 0.6, np.array([[5.0, 5.0]]))], (50, 50), 0.2, period=(24.0, 24.0))
    index = np.arange(-int(24 * response.cutoff), int(24 * response.cutoff) + 1) / 24
    k = np.hypot(index[:, None], index)
    chebyshev = chebval(2 * k / response.cutoff - 1, response.coefficients) * np.maximum(1 - k / response.cutoff, 0)
    wave = np.exp(2j * np.pi * np.outer(np.arange(50) * 0.2 - 5.0, index))
    expected = (wave @ (chebyshev * np.exp(-2 * (np.pi * 0.6 * k) ** 2)) @ wave.T).real / 24**2
    np.testing.assert_allclose(image, expected, atol=2e-5 * expected.max())


@pytest.mark.parametrize("mean", [3.0, 11.9, 12.0, 12.7, 20.3, 300.0, 5000.0])
def test_counts_have_the_poisson_distribution(mean):
    count = 2_000_000
    drawn = poisson(np.full(count, mean, np.float32), np.random.default_rng(int(mean)))
    assert drawn.dtype == np.float32
    assert (drawn == np.rint(drawn)).all()
    exact = stats.poisson(float(np.float32(mean)))
    values, counts = np.unique(drawn, return_counts=True)
    # the largest distance that 1 sample in 1000 of this size has, plus what the expansion may be off
    assert np.abs(np.cumsum(counts) / count - exact.cdf(values)).max() < 1.95 / np.sqrt(count) + 5e-5
    wanted = [float(moment) for moment in exact.stats("mvs")]
    deviation = np.sqrt([wanted[1], wanted[1] ** 2 * (2 + 1 / mean), 6.0 + 20 / mean]) / np.sqrt(count)
    found = [drawn.mean(dtype=float), drawn.var(dtype=float), stats.skew(drawn.astype(float))]
    assert (np.abs(np.subtract(found, wanted)) < 4 * deviation + np.multiply(wanted, [1e-5, 2e-4, 5e-4])).all()


def test_counts_of_nothing_and_of_very_much():
    drawn = poisson(np.array([0.0, 1e-30, 1e9], np.float32), np.random.default_rng(0))
    assert drawn[:2].tolist() == [0.0, 0.0]
    assert drawn[2] == pytest.approx(1e9, abs=6e9**0.5 * 5)


def test_smooth_noise_has_the_spectrum_of_the_gaussian():
    for shape, sigma, dtype in (((144, 101), 5.0, np.float32), ((120, 90), 0.5, np.float64)):
        rng = np.random.default_rng(2)
        noise = [smooth_noise(shape, sigma, rng, dtype) for _ in range(200)]
        assert noise[0].dtype == dtype
        power = np.mean([np.abs(np.fft.fft2(one.astype(float))) ** 2 for one in noise], axis=0)
        k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
        expected = np.exp(-4 * (np.pi * sigma * k) ** 2)
        expected[0, 0] = 0.0
        expected *= np.prod(shape) ** 2 / expected.sum()
        strong = expected > 1e-3 * expected.max()
        ratio = power[strong] / expected[strong]
        assert ratio.mean() == pytest.approx(1, abs=0.02)
        assert ratio.std() < 0.15


# -------------------------------------------------------------------------------------------------------- structures


@settings(max_examples=15)
@given(st.floats(2.9, 3.8), st.floats(0, 6.3), st.floats(-0.02, 0.02))
def test_honeycomb_has_three_neighbours_of_the_other_kind(a, angle, strain):
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    sites, sublattice = honeycomb(a, (0, 0), (30, 26), transform=rotation * (1 + strain))
    bond = a * (1 + strain) / np.sqrt(3)
    distance, index = cKDTree(sites).query(sites, k=5)
    inner = ((sites > 4) & (sites < [26, 22])).all(axis=1)
    np.testing.assert_allclose(distance[inner, 1:4], bond, rtol=1e-9)
    assert (distance[inner, 4] > 1.5 * bond).all()
    assert (sublattice[index[inner, 1:4]] != sublattice[inner, None]).all()


def test_metals_move_towards_a_vacancy_and_nothing_else_moves():
    sites, sublattice = honeycomb(3.3, (0, 0), (20, 20))
    labels = np.where(sublattice == 0, 0, 2).astype(np.int8)
    vacancy = int(np.argmin(np.where(sublattice == 1, np.hypot(*(sites - 10).T), np.inf)))
    labels[vacancy] = 4
    moved = relax(sites, labels, 3.3 / np.sqrt(3), np.full(len(sites), 0.05))
    before, after = (np.hypot(*(s - sites[vacancy]).T) for s in (sites, sites + moved))
    changed = np.flatnonzero(np.hypot(*moved.T))
    assert len(changed) == 3
    assert (sublattice[changed] == 0).all()
    np.testing.assert_allclose(after[changed], 0.95 * before[changed])


def test_relaxation_does_not_stop_at_the_border_of_a_periodic_cell():
    atoms, layer = supercell("WSe2", None, (4, 3), np.random.default_rng(2), disorder=0.0, relaxation=(0.05, 0.05))
    cell, bond = np.array(atoms.cell.lengths()[:2]), HOSTS["WSe2"].lattice_constant / np.sqrt(3)
    pulled = np.zeros_like(layer.sites)
    for vacancy, copy in itertools.product(layer.sites[layer.labels > X2], itertools.product((-1, 0, 1), repeat=2)):
        away = vacancy + copy * cell - layer.sites
        near = (np.hypot(*away.T) < 1.1 * bond) & (layer.labels < X2)
        pulled += 0.05 * away * near[:, None]
    assert np.abs(pulled).max() > 0.05
    np.testing.assert_allclose(layer.displacements, pulled, atol=1e-9)
    metals = atoms.positions[[symbol == "W" for symbol in atoms.get_chemical_symbols()], :2]
    np.testing.assert_allclose(metals, layer.atoms[layer.labels == 0])


def test_supercell_has_the_atoms_its_labels_tell():
    atoms, layer = supercell("NbTe2", "Cu", (4, 3), np.random.default_rng(2))
    count = np.bincount(layer.labels, minlength=5)
    assert Counter(atoms.get_chemical_symbols()) == {"Nb": count[0], "Cu": count[1], "Te": 2 * count[2] + count[3]}
    t = HOSTS["NbTe2"].thickness
    planes = np.unique(np.round(atoms.positions[:, 2] / t, 6))
    np.testing.assert_allclose(planes, [0.25, 0.75, 1.25])
    for symbol, xy in zip(atoms.get_chemical_symbols(), atoms.positions[:, :2], strict=True):
        label = layer.labels[np.argmin(np.hypot(*(layer.sites - xy).T))]
        assert symbol == {0: "Nb", 1: "Cu"}.get(label, "Te")


def test_fractions_are_met():
    layer = doped_monolayer(
        3.3,
        (0, 0),
        (200, 200),
        np.random.default_rng(0),
        dopant_fraction=0.1,
        single_fraction=0.06,
        double_fraction=0.03,
    )
    count = np.bincount(layer.labels, minlength=5)
    np.testing.assert_allclose(count[1] / count[:2].sum(), 0.1, atol=0.015)
    np.testing.assert_allclose(count[3:] / count[2:].sum(), [0.06, 0.03], atol=0.01)
    with pytest.raises(ValueError, match=r"single_fraction \+ double_fraction"):
        doped_monolayer(3.3, (0, 0), (9, 9), np.random.default_rng(0), single_fraction=0.6, double_fraction=0.6)


# -------------------------------------------------------------------------------------------------------- micrographs


def test_the_sets_of_cases():
    assert len(set(CASES)) == 96
    assert len(set(NEAR_Z)) == 18
    assert not set(CASES) & set(NEAR_Z)
    assert all(HOSTS[host].metal != dopant for host, dopant in CASES + NEAR_Z)
    assert len(dataset.recipes("tmd576", 1)) == 576
    assert not {r.name for r in dataset.recipes("tmd96", 3)} & {r.name for r in dataset.recipes("tmd96", 3, seed=3)}


@pytest.mark.parametrize(("host", "dopant"), [CASES[0], CASES[50], NEAR_Z[3], ("WSe2", None)])
@pytest.mark.parametrize(("energy", "detector"), dataset.CONDITIONS)
def test_a_micrograph_of_any_case(host, dopant, energy, detector):
    simulated = simulate_micrograph(host, dopant, energy, detector, seed=3, size=24.0)
    micrograph, conditions = simulated.micrograph, simulated.conditions
    assert micrograph.data.dtype == np.float32
    assert micrograph.energy == energy
    assert micrograph.shape[0] == round(24.0 / micrograph.sampling)
    for name, (low, high) in vars(WIDE).items():
        assert low <= conditions[name] <= high, name
    positions, labels = simulated.columns.positions, simulated.labels
    assert ((positions >= 0) & (positions <= np.array(micrograph.shape) - 1)).all()
    assert ((labels >= 2) == (simulated.columns.sublattice == 1)).all()
    assert simulated.columns.observed.all()
    assert (dopant is None) == (not (labels == 1).any())
    a = HOSTS[host].lattice_constant
    area = np.prod(np.array(micrograph.shape) - 1) * micrograph.sampling**2
    assert len(labels) * a**2 * np.sqrt(3) / 4 == pytest.approx(area, rel=0.12)
    assert simulated.context.host == host
    assert simulated.context.detector == micrograph.detector


def test_a_micrograph_may_be_large():
    simulated = simulate_micrograph("MoS2", "V", 80e3, "HAADF", 2, size=150.0, sampling=0.25)
    assert simulated.micrograph.shape == (600, 600)
    assert len(simulated.labels) == pytest.approx(150**2 / (HOSTS["MoS2"].lattice_constant ** 2 * 3**0.5 / 4), rel=0.05)
    corner = simulated.micrograph.data[-100:, -100:]
    assert corner.mean() == pytest.approx(simulated.micrograph.data.mean(), rel=0.4)


def test_same_seed_same_micrograph_and_others_differ():
    one, same, other = (simulate_micrograph("WSe2", "Cr", 80e3, "HAADF", s, size=15.0, sampling=0.3) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.micrograph.data, same.micrograph.data)
    np.testing.assert_array_equal(one.columns.positions, same.columns.positions)
    assert one.conditions == same.conditions
    assert (one.micrograph.data != other.micrograph.data).any()
    moved = simulate_micrograph("WSe2", "V", 80e3, "HAADF", 1, size=15.0, sampling=0.3)
    assert moved.conditions["rotation"] != one.conditions["rotation"]


@pytest.mark.parametrize(("drift", "coma"), [(0.0, 0.0), (0.6, 0.0), (0.0, 500.0)])
def test_truth_lies_where_the_columns_are_seen(drift, coma):
    # W in WS2 stands out, so that the centre of mass of a small window tells where it is
    given = CLEAN | {"drift": drift, "coma": coma, "dose": 1e9, "sampling": 0.1, "source_size": 0.3}
    simulated = simulate_micrograph("WS2", None, 80e3, "HAADF", 4, **given)
    image = simulated.micrograph.data.astype(float)
    metals = simulated.columns.positions[simulated.labels == 0]
    metals = metals[((metals > 10) & (metals < np.array(image.shape) - 10)).all(axis=1)]
    assert len(metals) > 80
    grid = np.mgrid[-6:7, -6:7].reshape(2, -1).T
    for centre in metals:
        start = np.rint(centre).astype(int)
        weight = image[tuple((start + grid).T)]
        weight = np.clip(weight - 0.5 * weight.max(), 0, None)
        assert np.abs(weight @ (start + grid) / weight.sum() - centre).max() * 0.1 < 0.06


def test_counts_are_poisson_with_readout_noise():
    given = CLEAN | {"sampling": 0.25, "source_size": 0.4, "dose": 3000.0}
    quiet = simulate_micrograph("MoSe2", None, 80e3, "MAADF", 9, **given)
    assert (quiet.micrograph.data == np.rint(quiet.micrograph.data)).all()
    exact = simulate_micrograph("MoSe2", None, 80e3, "MAADF", 9, **given | {"dose": 1e10}).micrograph.data / 1e10
    excess = (quiet.micrograph.data - 3000 * exact) / np.sqrt(3000 * exact)
    assert excess.mean() == pytest.approx(0, abs=0.03)
    assert excess.std() == pytest.approx(1, abs=0.03)
    noisy = simulate_micrograph("MoSe2", None, 80e3, "MAADF", 9, **given | {"readout": 2.0})
    assert (noisy.micrograph.data - quiet.micrograph.data).std() == pytest.approx(2.0, rel=0.05)


def test_classes_differ_in_brightness_as_they_should():
    given = CLEAN | {
        "dose": 1e9,
        "sampling": 0.12,
        "source_size": 0.35,
        "vacancy_fraction": 0.3,
        "dopant_fraction": 0.2,
    }
    simulated = simulate_micrograph("WSe2", "Cr", 80e3, Detector("HAADF", 70, 200), 2, **given)
    value = ndimage.map_coordinates(simulated.micrograph.data.astype(float), simulated.columns.positions.T, order=3)
    median = {name: np.median(value[simulated.labels == i]) for i, name in enumerate(CLASSES)}
    order = ["metal", "X2", "single_vacancy", "dopant", "double_vacancy"]
    assert sorted(median, key=median.__getitem__, reverse=True) == order


def test_contamination_adds_light_and_clouds():
    given = CLEAN | {"dose": 1e9, "sampling": 0.3, "source_size": 0.4}
    levels = [
        simulate_micrograph("WSe2", None, 80e3, "HAADF", 2, **given | more).micrograph.data / 1e9
        for more in ({}, {"background": 0.5}, {"haze": 0.3})
    ]
    even, clouds = levels[1] - levels[0], levels[2] - levels[0]
    assert even.std() < 0.01 * even.mean()
    assert clouds.std() > 0.3 * clouds.mean() > 0
    assert clouds.min() > -3e-3 * levels[0].max()


def test_rendering_needs_neither_abtem_nor_ase():
    program = (
        "import sys; sys.modules.update(abtem=None, ase=None)\n"
        "from contextem.simulate.dataset import simulate_micrograph\n"
        "assert len(simulate_micrograph('WSe2', 'Cr', 80e3, 'HAADF', 1, size=12.0).labels) > 10\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("arguments", "given", "error", "message"),
    [
        (("XY2", "Cr", 80e3, "HAADF"), {}, ValueError, "host"),
        (("WSe2", "Cr", 80, "HAADF"), {}, ValueError, "eV"),
        (("WSe2", "Cr", 90e3, "HAADF"), {}, ValueError, "energy: expected one of"),
        (("WSe2", "Au", 80e3, "HAADF"), {}, ValueError, "symbol: expected one of"),
        (("WSe2", "Cr", 80e3, "SE"), {}, ValueError, "detector"),
        (("WSe2", "Cr", 80e3, "HAADF"), {"dose": -1.0}, ValueError, "dose: expected a positive number"),
        (("WSe2", "Cr", 80e3, "HAADF"), {"sampling": 0.0}, ValueError, "sampling: expected a positive number"),
        (("WSe2", "Cr", 80e3, "HAADF"), {"doze": 1.0}, TypeError, "doze: not a condition"),
        (("WSe2", "Cr", 80e3, "HAADF"), {"size": 1.0}, ValueError, "size: expected at least 16 px"),
    ],
)
def test_what_cannot_be_simulated_is_named(arguments, given, error, message):
    with pytest.raises(error, match=message):
        simulate_micrograph(*arguments, 1, **given)


# ---------------------------------------------------------------------------------------------------------- data sets


@pytest.fixture
def small_preset(monkeypatch):
    preset = ((("WSe2", "Cr"), ("MoS2", None)), ((80e3, "HAADF"),))
    monkeypatch.setitem(dataset.PRESETS, "small", preset)


def test_a_data_set_is_written_resumed_and_read(tmp_path, small_preset):
    options = {"size": 12.0, "ranges": Ranges(sampling=(0.3, 0.4))}
    files = dataset.generate(tmp_path / "set", "small", 2, processes=1, **options)
    assert len(files) == 4
    before = {file: file.stat().st_mtime_ns for file in files}
    files[1].unlink()
    with pytest.raises(ValueError, match="lacks 1 of 4"):
        dataset.stored(tmp_path / "set")
    assert dataset.generate(tmp_path / "set", "small", 2, processes=1, **options) == files
    assert [file.stat().st_mtime_ns == before[file] for file in files] == [True, False, True, True]
    assert dataset.stored(tmp_path / "set") == files
    assert not [file for file in (tmp_path / "set").iterdir() if file.name.startswith(".")]
    for recipe, file in zip(dataset.recipes("small", 2), files, strict=True):
        read, made = SimulatedMicrograph.load(file), recipe.simulate(**options)
        np.testing.assert_array_equal(read.micrograph.data, made.micrograph.data)
        np.testing.assert_array_equal(read.columns.positions, made.columns.positions)
        np.testing.assert_array_equal(read.labels, made.labels)
        assert read.context == made.context
        assert read.conditions == made.conditions
        assert read.micrograph.sampling == made.micrograph.sampling
    with pytest.raises(ValueError, match="holds another data set"):
        dataset.generate(tmp_path / "set", "small", 2, processes=1, size=13.0)


def test_unknown_preset_and_missing_folder_are_named(tmp_path):
    with pytest.raises(ValueError, match="preset: expected one of tmd96"):
        dataset.recipes("tmd97", 1)
    with pytest.raises(ValueError, match="images_per_case"):
        dataset.recipes("tmd96", 0)
    with pytest.raises(ValueError, match=r"manifest\.json"):
        dataset.stored(tmp_path)


def test_a_damaged_micrograph_is_told_as_such(tmp_path):
    simulate_micrograph("WSe2", None, 80e3, "HAADF", 1, size=16.0, sampling=0.25).save(tmp_path / "whole.npz")
    archive = bytearray((tmp_path / "whole.npz").read_bytes())
    end = archive.rindex(b"PK\x05\x06")  # which tells where the list of members begins
    archive[end + 16 : end + 20] = (int.from_bytes(archive[end + 16 : end + 20], "little") + 100_000).to_bytes(
        4, "little"
    )
    (tmp_path / "damaged.npz").write_bytes(archive)
    with pytest.raises(ValueError, match=r"^\S+damaged.npz: expected a simulated micrograph, got another file \("):
        SimulatedMicrograph.load(tmp_path / "damaged.npz")
    with pytest.raises(FileNotFoundError):
        SimulatedMicrograph.load(tmp_path / "nothing.npz")
