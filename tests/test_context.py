"""Context: formulas, electron configurations, encodings, and the one sentence each mistake gets."""

import json
import math
import pickle
import re
import warnings
from dataclasses import FrozenInstanceError
from decimal import Decimal

import numpy as np
import pytest
from ase.data import covalent_radii
from hypothesis import given
from hypothesis import strategies as st

from contextem.columns import CLASSES
from contextem.context import (
    ENERGIES,
    HOSTS,
    INTENSITY_FLOOR,
    NOMINAL_FRACTION,
    Context,
    feature_names,
    find_host,
    parse_formula,
)
from contextem.elements import CAPACITY, SUBSHELLS, SYMBOLS, atomic_number, atomic_shares, electron_configuration
from contextem.intensities import expected_intensities
from contextem.micrograph import DETECTORS, Detector, Micrograph

# mendeleev has 6d9 7s1 and 6d10 7s1; relativistic calculations find the second s electron bound more tightly, as in
# 6d9 7s2 of roentgenium (https://doi.org/10.1103/PhysRevLett.73.3203).
CALCULATED = {"Ds": "[Rn] 5f14 6d8 7s2", "Rg": "[Rn] 5f14 6d9 7s2"}

BLOCK = len(SUBSHELLS)


def parsed(configuration: str, table: dict[str, str]) -> dict[str, int]:
    """Occupied subshells of a configuration such as "[Ar] 3d5 4s"."""
    occupied: dict[str, int] = {}
    for word in configuration.split():
        if word.startswith("["):
            occupied |= parsed(table[word.strip("[]")], table)
        else:
            occupied[word[:2]] = int(word[2:] or 1)
    return occupied


@pytest.fixture(scope="module")
def mendeleev_table() -> dict[str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mendeleev.db import get_session
        from mendeleev.models import Element

        session = get_session()
        rows = session.query(Element.symbol, Element.econf).all()
        session.close()
        session.get_bind().dispose()
    return dict(map(tuple, rows))


def context(**changes) -> Context:
    return Context(**({"host": "WSe2", "dopants": ("Cr",), "energy": 80e3, "detector": "HAADF"} | changes))


def named(context: Context, encoding: str) -> dict[str, float]:
    names = feature_names(encoding)
    vector = context.vector(encoding)
    assert vector.shape == (len(names),)
    return dict(zip(names, vector.tolist(), strict=True))


# Elements


def test_every_element_has_as_many_electrons_as_its_atomic_number():
    assert len(SYMBOLS) == len(set(SYMBOLS)) == 118
    for number, symbol in enumerate(SYMBOLS, start=1):
        configuration = electron_configuration(symbol)
        assert tuple(configuration) == SUBSHELLS
        assert sum(configuration.values()) == number == atomic_number(symbol)
        assert all(0 <= count <= CAPACITY[shell[1]] for shell, count in configuration.items())


def test_all_118_configurations_are_those_of_mendeleev(mendeleev_table):
    expected = mendeleev_table | CALCULATED
    assert set(expected) == set(SYMBOLS)
    assert expected["Cr"] == "[Ar] 3d5 4s"
    for symbol in SYMBOLS:
        occupied = {shell: count for shell, count in electron_configuration(symbol).items() if count}
        assert occupied == parsed(expected[symbol], expected), symbol


def test_a_configuration_is_the_callers_own_copy():
    electron_configuration("W")["1s"] = 0
    assert electron_configuration("W")["1s"] == 2


def test_an_unknown_symbol_is_named():
    with pytest.raises(ValueError, match=r"^symbol: expected one of the 118 chemical elements .* got 'Xx'$"):
        electron_configuration("Xx")


@given(st.lists(st.sampled_from(SYMBOLS), min_size=2, max_size=4, unique=True), st.data())
def test_shares_of_a_mixture_are_those_written(symbols, data):
    cuts = sorted(
        data.draw(st.lists(st.integers(1, 99), min_size=len(symbols) - 1, max_size=len(symbols) - 1, unique=True))
    )
    percent = np.diff([0, *cuts, 100])
    species = "".join(f"{symbol}{p / 100:.2f}" for symbol, p in zip(symbols, percent, strict=True))
    shares = atomic_shares(species)
    assert list(shares) == symbols
    assert list(shares.values()) == pytest.approx(percent / 100)
    assert math.fsum(shares.values()) == pytest.approx(1.0)


def test_an_element_is_a_mixture_of_itself():
    assert all(dict(atomic_shares(symbol)) == {symbol: 1.0} for symbol in SYMBOLS)
    with pytest.raises(TypeError):
        atomic_shares("S0.6Te0.4")["S"] = 0.5


@pytest.mark.parametrize("species", ["", "Xx", "S0.6Te0.5", "S0.5S0.5", "Xx0.5Te0.5", "S0.5Te", "S0.5 Te0.5", "S1.0"])
def test_what_is_no_mixture_gets_one_sentence(species):
    with pytest.raises(ValueError, match=rf"^species: expected a chemical element .*, got {re.escape(repr(species))}$"):
        atomic_shares(species)


# Formula, host, dopants


@given(st.sampled_from(SYMBOLS), st.sampled_from(SYMBOLS))
def test_every_pair_of_elements_makes_a_formula_and_none_is_read_as_another(metal, chalcogen):
    formula = f"{metal}{chalcogen}2"
    if metal == chalcogen:
        with pytest.raises(ValueError, match="two different elements"):
            parse_formula(formula)
    else:
        assert parse_formula(formula) == (metal, chalcogen)


@given(st.text(max_size=8))
def test_any_text_is_a_formula_or_one_sentence(text):
    try:
        metal, chalcogen = parse_formula(text)
    except ValueError as error:
        assert str(error).startswith("host: expected a formula MX2")
        assert repr(text) in str(error)
    else:
        assert text in (f"{metal}{chalcogen}2", f"{metal}({chalcogen})2")


@pytest.mark.parametrize(
    "host", ["", "WSe", "wse2", "WSe3", "W2Se", "MoSSe", "WSe2 ", "WSe₂", "XxSe2", "WXx2", "SeSe2"]
)
def test_a_formula_that_does_not_parse_gets_one_sentence(host):
    with pytest.raises(ValueError, match=rf"^host: expected a formula MX2 .*{re.escape(repr(host))}"):
        Context(host)


def test_a_host_that_is_no_string():
    with pytest.raises(TypeError, match=r"^host: expected a formula MX2 such as 'WSe2', got 74$"):
        Context(74)


@pytest.mark.parametrize("host", HOSTS)
def test_a_known_host_brings_its_lengths(host):
    made = Context(host)
    assert f"{made.metal}{made.chalcogen}2" == host
    assert made.lattice_constant == HOSTS[host].lattice_constant
    assert made.thickness == HOSTS[host].thickness
    assert made.provenance == {"host": "user", "lattice_constant": "table"}


def test_lattice_constants_and_thicknesses_of_a_few_hosts():
    assert HOSTS["WSe2"][2:] == (3.32, 3.36)
    assert HOSTS["MoS2"][2:] == (3.18, 3.13)
    assert HOSTS["TaTe2"][2:] == (3.71, 3.66)
    assert len(HOSTS) == 15


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_lengths_of_a_host_give_bonds_as_long_as_its_elements_ask_for(host):
    """Six chalcogens round a metal in a prism about as high as wide, with bonds a little shorter than covalent ones."""
    radii = covalent_radii[[atomic_number(host.metal), atomic_number(host.chalcogen)]]
    bond = math.hypot(host.lattice_constant / math.sqrt(3), host.thickness / 2)
    assert 0.89 < bond / radii.sum() < 0.95
    assert 0.88 < host.thickness / host.lattice_constant < 1.03


def test_an_alloy_is_a_host_between_its_ends():
    assert parse_formula("Mo(S0.5Te0.5)2") == ("Mo", "S0.5Te0.5")
    made = Context("Mo(S0.25Te0.75)2", "V", 80e3, "HAADF")
    assert (made.metal, made.chalcogen) == ("Mo", "S0.25Te0.75")
    for length in ("lattice_constant", "thickness"):
        ends = [getattr(HOSTS[name], length) for name in ("MoS2", "MoTe2")]
        assert getattr(made, length) == pytest.approx(0.25 * ends[0] + 0.75 * ends[1], abs=1e-6)
    sulphur, tellurium = (Context(host, "V", 80e3, "HAADF") for host in ("MoS2", "MoTe2"))
    shells = 0.25 * sulphur.vector("roles") + 0.75 * tellurium.vector("roles")
    np.testing.assert_allclose(made.vector("roles"), shells, rtol=1e-6)
    x2, single = 2 * CLASSES.index("X2"), 2 * CLASSES.index("single_vacancy")
    for entry in (x2, single):
        assert sulphur.vector()[entry] < made.vector()[entry] < tellurium.vector()[entry]
    assert Context.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_hosts_are_found_with_their_elements_and_lengths():
    assert all(find_host(formula) == host for formula, host in HOSTS.items())
    assert find_host("HfSe2") is None
    assert find_host("Mo(S0.5Po0.5)2") is None
    found = find_host("W(S0.2Se0.3Te0.5)2")
    assert (found.metal, found.chalcogen) == ("W", "S0.2Se0.3Te0.5")
    assert found.lattice_constant == pytest.approx(0.2 * 3.18 + 0.3 * 3.32 + 0.5 * 3.56, abs=1e-6)
    decimal = Decimal("0.1234") * Decimal("3.18") + Decimal("0.8766") * Decimal("3.55")
    assert find_host("Mo(S0.1234Te0.8766)2").lattice_constant == float(decimal)
    decimal = Decimal("0.1234") * Decimal("3.13") + Decimal("0.8766") * Decimal("3.61")
    assert find_host("Mo(S0.1234Te0.8766)2").thickness == float(decimal)
    with pytest.raises(ValueError, match=r"^host: expected a formula MX2"):
        find_host("Mo")


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("Mo(S0.5Te0.4)2", "'S0.5Te0.4' is no mixture of elements whose shares add up to 1"),
        ("Mo(S0.5Xx0.5)2", "'S0.5Xx0.5' is no mixture of elements"),
        ("Xx(S0.5Te0.5)2", "'Xx' is no element"),
        ("Mo(S0.5Mo0.5)2", "two different elements"),
        ("Mo(S0.5Te0.5)", "such as 'WSe2'"),
        ("Mo(S 0.5 Te 0.5)2", "such as 'WSe2'"),
    ],
)
def test_an_alloy_that_does_not_parse_gets_one_sentence(host, words):
    with pytest.raises(ValueError, match=r"^host: expected a formula MX2 ") as caught:
        Context(host)
    assert words in str(caught.value)
    assert repr(host) in str(caught.value)


def test_an_unknown_host_needs_a_lattice_constant():
    with pytest.raises(ValueError, match=r"^lattice_constant: .* of HfSe2 .* \(known hosts: MoS2, .*give it in Å"):
        Context("HfSe2")
    made = Context("HfSe2", lattice_constant=3.75)
    assert (made.lattice_constant, made.thickness) == (3.75, None)
    assert made.provenance["lattice_constant"] == "user"


@pytest.mark.parametrize("value", [0.332, 33.2, -3.32, math.nan, math.inf])
def test_a_lattice_constant_that_is_not_in_angstrom(value):
    with pytest.raises(ValueError, match=r"^lattice_constant: expected Å, 2 to 6, got"):
        Context("WSe2", lattice_constant=value)


def test_a_lattice_constant_that_is_no_number():
    with pytest.raises(TypeError, match=r"^lattice_constant: expected a number in Å, got '3.32'$"):
        Context("WSe2", lattice_constant="3.32")


def test_one_dopant_may_be_a_plain_string():
    assert Context("WSe2", "Cr").dopants == ("Cr",)
    assert Context("WSe2", ["Cr", "V"]).dopants == ("Cr", "V")
    assert Context("WSe2").dopants == ()


@pytest.mark.parametrize(
    ("dopants", "message"),
    [
        ("Xx", "dopants: expected symbols of chemical elements such as 'Cr', got 'Xx'"),
        ("cr", "dopants: expected symbols of chemical elements such as 'Cr', got 'cr', did you mean 'Cr'?"),
        ("Cr,V", "dopants: expected symbols of chemical elements such as 'Cr', got 'Cr,V'"),
        (("Cr", ""), "dopants: expected symbols of chemical elements such as 'Cr', got ''"),
        (("Cr", 24), "dopants: expected symbols of chemical elements such as 'Cr', got 24"),
        ("W", "dopants: expected elements other than the metal of the host WSe2, got 'W'"),
        (("Cr", "Cr"), "dopants: expected each element once, got Cr, Cr"),
    ],
)
def test_dopants_that_cannot_be(dopants, message):
    with pytest.raises(ValueError) as caught:
        Context("WSe2", dopants)
    assert str(caught.value) == message


def test_dopants_that_are_no_sequence():
    with pytest.raises(TypeError, match=r"^dopants: expected symbols of chemical elements such as \('Cr',\), got 24$"):
        Context("WSe2", 24)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 2, math.nan])
def test_a_fraction_lies_between_0_and_1(fraction):
    with pytest.raises(ValueError, match=r"^fractions: expected .*, got"):
        Context("WSe2", "Cr", fractions={"Cr": fraction})


@pytest.mark.parametrize("fraction", [-0.1, 1.1, 2, math.nan])
def test_a_fraction_is_told_its_unit(fraction):
    with pytest.raises(ValueError, match=rf"^fractions: expected parts of the metal sites, 0 to 1, got {fraction}$"):
        Context("WSe2", "Cr", fractions={"Cr": fraction})


@pytest.mark.parametrize("fractions", [{}, {"V": 0.1}, {"Cr": 0.1, "V": 0.1}])
def test_fractions_are_for_all_dopants_and_no_others(fractions):
    with pytest.raises(ValueError, match=r"^fractions: expected one for each dopant \['Cr'\], got them for"):
        Context("WSe2", "Cr", fractions=fractions)


def test_fractions_leave_some_of_the_host():
    with pytest.raises(ValueError, match=r"^fractions: expected each above 0 and a sum below 1, got {'Cr': 0.6"):
        Context("WSe2", ("Cr", "V"), fractions={"Cr": 0.6, "V": 0.6})


@pytest.mark.parametrize("fractions", [0.1, {"Cr": "0.1"}])
def test_fractions_of_the_wrong_type(fractions):
    with pytest.raises(TypeError, match=r"^fractions: expected"):
        Context("WSe2", "Cr", fractions=fractions)


# Energy and detector


@pytest.mark.parametrize("energy", [60, 80, 300.0])
def test_an_energy_in_kev_is_told_from_ev(energy):
    with pytest.raises(ValueError, match=rf"^energy: expected eV \({energy:g} keV is {energy:g}e3\), got {energy:g}$"):
        context(energy=energy)


@pytest.mark.parametrize("energy", [0, -80e3, 5e3, 4e16, math.inf, -math.inf, math.nan])
def test_an_energy_that_no_microscope_has(energy):
    with pytest.raises(ValueError, match=r"^energy: expected eV, 10000 to 3e\+06, got"):
        context(energy=energy)


@pytest.mark.parametrize("energy", ["80e3", True, 80e3 + 0j, [80e3]])
def test_an_energy_that_is_no_number(energy):
    with pytest.raises(TypeError, match=r"^energy: expected a number in eV, got"):
        context(energy=energy)


def test_an_energy_without_a_place_in_the_vector():
    assert context(energy=150e3).energy == 150e3
    with pytest.raises(ValueError, match=r"^energy: .* 60e3, 80e3, 100e3, 120e3, 200e3, 300e3 eV, got 150000$"):
        context(energy=150e3).vector()


def test_a_high_tension_off_by_less_than_a_percent_is_the_nominal_one():
    np.testing.assert_array_equal(context(energy=79.9e3).vector(), context().vector())
    for energy in (59_406, 60_606):  # within a percent of themselves
        np.testing.assert_array_equal(context(energy=energy).vector("roles"), context(energy=60e3).vector("roles"))
    for energy in (59_405, 60_607, 78e3):
        with pytest.raises(ValueError, match=r"^energy: expected one of"):
            context(energy=energy).vector("roles")


def test_the_vector_needs_energy_and_detector():
    with pytest.raises(ValueError, match=r"^energy: .* the beam energy in eV, one of 60e3, .* got None; give energy="):
        context(energy=None).vector()
    with pytest.raises(ValueError, match=r"^detector: .* needs one of HAADF, .*ADF, got None; give detector="):
        context(detector=None).vector()


def test_a_detector_may_be_a_name_or_have_angles():
    assert context().detector == Detector("HAADF")
    assert context(detector=Detector("HAADF", 70, 200)).detector.outer == 200
    np.testing.assert_array_equal(context(detector=Detector("HAADF", 70, 200)).vector(), context().vector())


def test_an_unknown_detector_lists_the_known():
    with pytest.raises(ValueError, match=r"^detector: expected one of HAADF, MAADF, LAADF, ABF, BF, ADF, got 'SE'$"):
        context(detector="SE")
    with pytest.raises(TypeError, match=r"^detector: expected a Detector or one of HAADF, .* got 3$"):
        context(detector=3)


@pytest.mark.parametrize("encoding", ["intensities", "roles", "composition"])
def test_every_encoding_asks_for_energy_and_detector(encoding):
    for missing in ("energy", "detector"):
        with pytest.raises(ValueError, match=rf"^{missing}: the context vector needs "):
            context(**{missing: None}).vector(encoding)


@pytest.mark.parametrize(
    ("detector", "sentence"),
    [
        ("LAADF", "detector: only HAADF, MAADF, ADF have default angles, give inner and outer in mrad for LAADF"),
        (Detector("HAADF", 2.0, 200.0), "detector: expected an inner angle from "),
    ],
)
def test_collection_angles_the_library_does_not_reach(detector, sentence):
    with pytest.raises(ValueError) as caught:
        context(detector=detector).vector()
    assert str(caught.value).startswith(sentence)
    assert context(detector=detector).vector("roles").any()


# Encodings


def test_intensities_are_the_default_and_tell_how_bright_each_class_is_expected():
    made = context()
    np.testing.assert_array_equal(made.vector(), made.vector("intensities"))
    assert feature_names() == feature_names("intensities")
    entries = named(made, "intensities")
    assert len(entries) == 2 * len(CLASSES) == 10
    ratios = expected_intensities("W", "Se", {"Cr": 0.05}, 80e3, Detector("HAADF"))
    for name, ratio in zip(CLASSES, ratios, strict=True):
        assert entries[f"{name} / metal"] == pytest.approx(np.log(ratio + INTENSITY_FLOOR), abs=1e-6)
        assert entries[f"{name} / X2"] == pytest.approx(np.log(ratio / ratios[2] + INTENSITY_FLOOR), abs=1e-6)
    assert entries["metal / metal"] == entries["X2 / X2"]
    assert entries["double_vacancy / metal"] == pytest.approx(np.log(INTENSITY_FLOOR))


def test_a_single_sulphur_beside_tungsten_is_not_taken_for_nothing():
    """The faintest column with an atom, in the host of the strongest contrast."""
    entries = named(context(host="WS2"), "intensities")
    assert entries["single_vacancy / metal"] > entries["double_vacancy / metal"] + np.log(1.5)


@given(
    host=st.sampled_from([*sorted(HOSTS), "Mo(S0.5Te0.5)2", "W(S0.1Se0.9)2"]),
    dopants=st.lists(st.sampled_from(["Sc", "Zr", "Cr", "Fe", "Co", "Cu", "Hf", "Pd"]), unique=True, max_size=3),
    energy=st.sampled_from(ENERGIES),
    detector=st.sampled_from(["HAADF", "MAADF", Detector("HAADF", 60, 180)]),
)
def test_every_vector_of_intensities_is_finite_and_darkest_where_nothing_is(host, dopants, energy, detector):
    vector = Context(host, dopants, energy, detector).vector()
    assert vector.dtype == np.float32
    by_class = vector.reshape(len(CLASSES), 2)
    assert np.isfinite(by_class).all()
    np.testing.assert_allclose(by_class[-1], np.log(INTENSITY_FLOOR), rtol=1e-6)
    assert (by_class[:4] >= by_class[-1]).all()
    assert (by_class[1] > by_class[-1]).all() == bool(dopants)
    # less is left in a column that misses a chalcogen
    assert (by_class[2] > by_class[3]).all()


def test_roles_side_by_side():
    entries = named(context(), "roles")
    assert len(entries) == 3 * BLOCK + len(ENERGIES) + len(DETECTORS) == 68
    # W [Xe] 4f14 5d4 6s2, Se [Ar] 3d10 4s2 4p4, Cr [Ar] 3d5 4s1
    assert (entries["M 4f"], entries["M 5d"], entries["M 6s"], entries["M 6p"]) == pytest.approx((1.0, 0.4, 1.0, 0.0))
    assert (entries["X 3d"], entries["X 4p"], entries["X 4d"]) == pytest.approx((1.0, 4 / 6, 0.0))
    assert (entries["dopant 3d"], entries["dopant 4s"], entries["dopant 4p"]) == pytest.approx((0.5, 0.5, 0.0))
    assert {name for name, value in entries.items() if name.startswith("energy") and value} == {"energy 80 keV"}
    assert {name for name, value in entries.items() if name.startswith("detector") and value} == {"detector HAADF"}


def test_composition_is_the_mean_over_the_atoms_of_the_formula_unit():
    made = context(dopants=("Cr", "V"), fractions={"Cr": 0.10, "V": 0.02})
    entries = named(made, "composition")
    assert len(entries) == BLOCK + len(ENERGIES) + len(DETECTORS) == 30
    # per formula unit 0.88 W, 0.10 Cr, 0.02 V, 2 Se; 3d is full but for Cr (5 of 10) and V (3 of 10)
    assert entries["3d"] == pytest.approx((0.88 + 0.10 * 0.5 + 0.02 * 0.3 + 2) / 3)
    assert entries["4f"] == pytest.approx(0.88 / 3)
    electrons = sum(entries[shell] * CAPACITY[shell[1]] for shell in SUBSHELLS)
    assert electrons == pytest.approx((0.88 * 74 + 0.10 * 24 + 0.02 * 23 + 2 * 34) / 3)


def test_composition_without_fractions_takes_the_nominal_one_and_says_so():
    assert context().provenance["fractions"] == "default"
    given_alike = context(fractions={"Cr": NOMINAL_FRACTION})
    assert given_alike.provenance["fractions"] == "user"
    np.testing.assert_array_equal(context().vector("composition"), given_alike.vector("composition"))


def test_the_dopant_block_is_the_mean_weighted_by_fraction():
    both = context(dopants=("Cr", "V"), fractions={"Cr": 0.03, "V": 0.01}).vector("roles")
    chromium, vanadium = context(dopants="Cr").vector("roles"), context(dopants="V").vector("roles")
    np.testing.assert_allclose(both, 0.75 * chromium + 0.25 * vanadium, rtol=1e-6)


def test_without_dopants_their_block_is_zero():
    vector = context(dopants=()).vector("roles")
    assert not vector[2 * BLOCK : 3 * BLOCK].any()
    assert vector[:BLOCK].any()


def test_the_order_of_dopants_does_not_matter():
    for encoding in ("intensities", "roles", "composition"):
        one = context(dopants=("Cr", "V"), fractions={"V": 0.01, "Cr": 0.03}).vector(encoding)
        other = context(dopants=("V", "Cr"), fractions={"V": 0.01, "Cr": 0.03}).vector(encoding)
        np.testing.assert_allclose(one, other, rtol=1e-6)


@given(
    host=st.sampled_from(sorted(HOSTS)),
    dopants=st.lists(st.sampled_from(["Sc", "Zr", "Cr", "Fe", "Co", "Cu", "Hf", "Pd"]), unique=True, max_size=3),
    energy=st.sampled_from(ENERGIES),
    detector=st.sampled_from(DETECTORS),
    encoding=st.sampled_from(["roles", "composition"]),
)
def test_every_vector_lies_in_0_to_1_and_shows_one_energy_and_one_detector(host, dopants, energy, detector, encoding):
    made = Context(host, dopants, energy, detector)
    vector = made.vector(encoding)
    assert vector.dtype == np.float32
    assert vector.shape == (len(feature_names(encoding)),)
    assert ((vector >= 0) & (vector <= 1)).all()
    tail = len(ENERGIES) + len(DETECTORS)
    expected = [e == energy for e in ENERGIES] + [d == detector for d in DETECTORS]
    np.testing.assert_array_equal(vector[-tail:], expected)
    assert Context.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_different_compositions_differ():
    hosts = {Context(host, "Fe", 80e3, "HAADF").vector().tobytes() for host in HOSTS}
    assert len({Context(host, "Fe", 80e3, "HAADF").vector("roles").tobytes() for host in HOSTS}) == len(HOSTS)
    metals = ("Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu")
    dopants = {context(dopants=metal).vector("composition").tobytes() for metal in metals}
    assert (len(hosts), len(dopants)) == (len(HOSTS), len(metals))


def test_an_unknown_encoding():
    for call in (context().vector, feature_names):
        with pytest.raises(ValueError, match=r"^encoding: expected one of intensities, roles, composition, got 'sum'$"):
            call("sum")


# Provenance and storage


def test_what_the_context_lacks_comes_from_the_micrograph():
    pixels = np.arange(64.0).reshape(8, 8)
    micrograph = Micrograph(pixels, 0.2, 60e3, "MAADF", provenance={"energy": "file", "detector": "file"})
    filled = Context("WSe2", "Cr").with_recording(micrograph)
    assert (filled.energy, filled.detector.name) == (60e3, "MAADF")
    assert (filled.provenance["energy"], filled.provenance["fractions"]) == ("file", "default")
    assert filled.provenance["lattice_constant"] == "table"

    said = context().with_recording(micrograph)
    assert (said.energy, said.detector.name, said.provenance["energy"]) == (80e3, "HAADF", "user")

    assert Context("WSe2").with_recording(Micrograph(pixels, 0.2)).energy is None


def test_a_context_survives_json_and_pickle():
    made = context(detector=Detector("HAADF", 70, 200), fractions={"Cr": 0.02})
    for again in (Context.from_dict(json.loads(json.dumps(made.to_dict()))), pickle.loads(pickle.dumps(made))):
        assert again == made
        assert again.provenance == made.provenance
        assert hash(again) == hash(made)


def test_contexts_are_equal_wherever_their_values_come_from():
    read, said = context(provenance={"energy": "file"}), context()
    assert read.provenance != said.provenance
    assert read == said and hash(read) == hash(said)


def test_a_context_does_not_change():
    with pytest.raises(FrozenInstanceError):
        context().energy = 60e3
