"""Expected intensities: against the peaks of the response library itself, and where it holds none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextem.columns import CLASSES
from contextem.elements import SYMBOLS, atomic_number
from contextem.intensities import BLUR, DEFOCUS, column_peak, expected_intensities
from contextem.micrograph import Detector
from contextem.responses import ELEMENTS, PAIR_DISTANCES, SEMIANGLES, library

HAADF = Detector("HAADF", 70.0, 200.0)
METAL, DOPANT, X2, SINGLE, DOUBLE = range(5)

detectors = st.sampled_from([Detector("HAADF"), HAADF, Detector("HAADF", 60.0, 180.0), Detector("MAADF")])
energies = st.sampled_from(sorted(SEMIANGLES))


@settings(max_examples=25)
@given(
    st.sampled_from(["Mo", "W", "Nb", "Ta"]),
    st.sampled_from(sorted(PAIR_DISTANCES)),
    st.sampled_from(["Cr", "V", "Re"]),
    energies,
    detectors,
)
def test_ratios_are_those_of_the_librarys_own_peaks(metal, chalcogen, dopant, energy, detector):
    ratios = expected_intensities(metal, chalcogen, {dopant: 0.05}, energy, detector)
    responses = library()
    atoms = {x: responses.response(x, energy, detector, DEFOCUS) for x in (metal, chalcogen, dopant)}
    pair = responses.pair(chalcogen, PAIR_DISTANCES[chalcogen][-1], energy, detector, DEFOCUS)
    peaks = [float(each.radial(0.0, BLUR)) for each in (atoms[metal], atoms[dopant], pair, atoms[chalcogen])]
    assert ratios == pytest.approx([*np.array(peaks) / peaks[0], 0.0], rel=1e-9)
    assert ratios.shape == (len(CLASSES),)
    assert ratios[METAL] == 1.0
    assert 1.5 * ratios[SINGLE] < ratios[X2] < 3.5 * ratios[SINGLE]  # the first atom focuses the beam on the second


def test_no_dopant_is_as_bright_as_nothing():
    ratios = expected_intensities("W", "Se", {}, 80e3, HAADF)
    assert ratios[DOPANT] == ratios[DOUBLE] == 0.0


def test_several_dopants_are_their_mean_weighted_by_fraction():
    both = expected_intensities("W", "Se", {"Cr": 0.03, "Re": 0.01}, 80e3, HAADF)
    one, other = (expected_intensities("W", "Se", {x: 0.2}, 80e3, HAADF) for x in ("Cr", "Re"))
    assert both == pytest.approx(0.75 * one + 0.25 * other)


@settings(max_examples=30)
@given(st.sampled_from(sorted(set(SYMBOLS[20:83]) - set(ELEMENTS), key=atomic_number)), energies, detectors)
def test_an_element_the_library_lacks_lies_between_its_neighbours(symbol, energy, detector):
    known = sorted(ELEMENTS, key=atomic_number)
    below = [x for x in known if atomic_number(x) < atomic_number(symbol)]
    above = [x for x in known if atomic_number(x) > atomic_number(symbol)]
    peak = column_peak(symbol, energy, detector)
    low = column_peak(below[-1], energy, detector)
    if above:
        ends = sorted((low, column_peak(above[0], energy, detector)))
        assert ends[0] < peak < ends[1]
    else:
        assert peak > low


def test_palladium_is_read_off_the_line_between_molybdenum_and_tellurium():
    z = {x: np.log(atomic_number(x)) for x in ("Mo", "Pd", "Te")}
    peaks = {x: np.log(column_peak(x, 80e3, HAADF)) for x in z}
    share = (z["Pd"] - z["Mo"]) / (z["Te"] - z["Mo"])
    assert peaks["Pd"] == pytest.approx((1 - share) * peaks["Mo"] + share * peaks["Te"])


def test_interpolated_peaks_rise_with_the_atomic_number():
    between = SYMBOLS[atomic_number("Mo") - 1 : atomic_number("Te")]
    peaks = [column_peak(symbol, 80e3, HAADF) for symbol in between]
    assert between[-1] == "Te"
    assert (np.diff(peaks) > 0).all()
    pairs = [column_peak(symbol, 80e3, HAADF, pair=True) for symbol in ("S", "As", "Se", "Te")]
    assert (np.diff(pairs) > 0).all()


@settings(max_examples=20)
@given(st.integers(1, 99), st.booleans())
def test_an_alloy_is_the_mean_of_its_ends(percent, pair):
    share = percent / 100
    ends = [column_peak(x, 80e3, HAADF, pair=pair) for x in ("S", "Te")]
    peak = column_peak(f"S{1 - share:.2f}Te{share:.2f}", 80e3, HAADF, pair=pair)
    assert peak == pytest.approx((1 - share) * ends[0] + share * ends[1])
    assert ends[0] < peak < ends[1]


@pytest.mark.parametrize("name", ["HAADF", "MAADF"])
def test_a_detector_without_angles_has_nominal_ones(name):
    nominal = {"HAADF": (70.0, 200.0), "MAADF": (50.0, 120.0)}[name]
    plain, stated = (column_peak("W", 80e3, detector) for detector in (Detector(name), Detector(name, *nominal)))
    assert plain == stated


@pytest.mark.parametrize(
    ("energy", "detector", "sentence"),
    [
        (150e3, HAADF, r"^energy: expected one of 60e3, .*300e3 eV, got 150000$"),
        (80e3, Detector("LAADF"), r"^detector: only HAADF, MAADF, ADF have default angles, give inner .* LAADF$"),
        (80e3, Detector("HAADF", 5.0, 200.0), r"^detector: expected an inner angle from .* mrad, got 5 to 200; "),
        (80e3, Detector("HAADF", 300.0, 900.0), r"^detector: expected an inner angle .* mrad, got 300 to 900; "),
    ],
)
def test_what_the_library_does_not_hold_gets_one_sentence(energy, detector, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        expected_intensities("W", "Se", {"Cr": 0.05}, energy, detector)
    assert "\n" not in str(caught.value)


def test_an_unknown_element_is_named():
    with pytest.raises(ValueError, match=r"^species: expected a chemical element such as 'Se', .* got 'Xx'$"):
        column_peak("Xx", 80e3, HAADF)


def test_beyond_the_last_ring_an_outer_angle_makes_no_difference():
    peaks = [column_peak("W", 80e3, Detector("HAADF", 70.0, outer)) for outer in (180.0, 220.0, 370.0)]
    assert peaks[0] < peaks[1] == peaks[2]
