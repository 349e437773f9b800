"""The context of a micrograph: what the specimen is made of and how it was recorded, as one vector.

Either as physics: how bright each class of column is expected to be, see `contextem.intensities`.  Or as in the paper:
the composition as electron configurations, the occupation of each subshell 1s ... 7p divided by its capacity
2 (2 l + 1), so that every entry lies in 0..1 and elements of one group look alike in their valence shells; beam energy
and detector as one-hot vectors.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from contextem.columns import CLASSES
from contextem.elements import CAPACITY, SUBSHELLS, SYMBOLS, atomic_shares, electron_configuration
from contextem.intensities import expected_intensities
from contextem.micrograph import (
    DETECTOR_NAMES,
    DETECTORS,
    LATTICE_CONSTANT_RANGE,
    Detector,
    Micrograph,
    check_energy,
    check_number,
    other_case,
)

Encoding = Literal["intensities", "roles", "composition"]

ROLES = ("M", "X", "dopant")
ENERGIES = (60e3, 80e3, 100e3, 120e3, 200e3, 300e3)
"""Beam energies with a place in the context vector, eV."""

ENERGY_TOLERANCE = 0.01
"""Relative distance up to which a beam energy counts as one of `ENERGIES`: a high tension is rarely set to the volt."""

INTENSITY_FLOOR = 0.05
"""Added to a ratio of intensities before its logarithm is taken: what is fainter counts as no atom."""

NOMINAL_FRACTION = 0.05
"""Fraction of the metal sites a dopant is taken to occupy in the composition where the caller gives none."""


class Host(NamedTuple):
    """A 1H MX2 monolayer: its elements and its two lengths in Å.

    Attributes
    ----------
    metal, chalcogen : str
        Element symbols.
    lattice_constant : float
        In-plane lattice constant a, Å.
    thickness : float
        Distance between the two chalcogen planes, Å.
    """

    metal: str
    chalcogen: str
    lattice_constant: float
    thickness: float


HOSTS: Mapping[str, Host] = MappingProxyType(
    {
        "MoS2": Host("Mo", "S", 3.18, 3.13),
        "MoSe2": Host("Mo", "Se", 3.32, 3.34),
        "MoTe2": Host("Mo", "Te", 3.55, 3.61),
        "WS2": Host("W", "S", 3.18, 3.14),
        "WSe2": Host("W", "Se", 3.32, 3.36),
        "WTe2": Host("W", "Te", 3.56, 3.62),
        "NbS2": Host("Nb", "S", 3.35, 3.13),
        "NbSe2": Host("Nb", "Se", 3.48, 3.37),
        "NbTe2": Host("Nb", "Te", 3.70, 3.68),
        "TaS2": Host("Ta", "S", 3.34, 3.12),
        "TaSe2": Host("Ta", "Se", 3.47, 3.35),
        "TaTe2": Host("Ta", "Te", 3.71, 3.66),
        "TiS2": Host("Ti", "S", 3.35, 3.01),
        "VS2": Host("V", "S", 3.19, 2.96),
        "ReSe2": Host("Re", "Se", 3.47, 3.10),
    }
)
"""Hosts with known lengths, by formula."""


@dataclass(frozen=True)
class Context:
    """Composition of the specimen and conditions of the recording.

    Parameters
    ----------
    host : str
        Formula MX2 of the host monolayer, for example ``"WSe2"``.
    dopants : str or sequence of str
        Elements that may sit on metal sites; a single one may be given as a plain string.
    energy : float, optional
        Beam energy, eV.  `vector` needs it.
    detector : Detector or str, optional
        The detector, or its name, one of `contextem.micrograph.DETECTOR_NAMES`.  `vector` needs it.
    fractions : mapping of str to float, optional
        Fraction of the metal sites each dopant occupies, between 0 and 1; for all dopants or for none.  Without it the
        composition takes `NOMINAL_FRACTION` for each.
    lattice_constant : float, optional
        In-plane lattice constant a, Å.  Taken from `HOSTS`, and needed for a host that is not there.
    provenance : mapping of str to str, optional
        Origin of single values, by name, where it is not the caller; see the attribute.

    Attributes
    ----------
    host, dopants, energy, detector, lattice_constant
        As above; a single dopant as a tuple, the detector as a `Detector`.
    fractions : dict of str to float
        One entry for each dopant.
    provenance : dict of str to str
        Origin of each value that is known: ``"user"``, ``"table"`` (`HOSTS`), ``"default"`` or that of the micrograph.

    Raises
    ------
    ValueError
        If a formula, element, fraction, energy, detector or lattice constant is not a possible one, or if the lattice
        constant of the host is not known.
    TypeError
        If an argument is of the wrong type.

    Examples
    --------
    >>> context = Context("WSe2", ("Cr",), energy=80e3, detector="HAADF")
    >>> context.metal, context.chalcogen, context.lattice_constant
    ('W', 'Se', 3.32)
    >>> context.vector().shape
    (10,)
    """

    host: str
    dopants: tuple[str, ...]
    energy: float | None
    detector: Detector | None
    fractions: dict[str, float] = field(hash=False)
    lattice_constant: float
    provenance: dict[str, str] = field(hash=False, compare=False)

    def __init__(
        self,
        host: str,
        dopants: str | Sequence[str] = (),
        energy: float | None = None,
        detector: Detector | str | None = None,
        *,
        fractions: Mapping[str, float] | None = None,
        lattice_constant: float | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        metal = parse_formula(host)[0]
        checked_dopants = _check_dopants(dopants, metal, host)
        values: dict[str, Any] = {
            "host": host,
            "dopants": checked_dopants,
            "energy": None if energy is None else check_energy(energy),
            "detector": Detector(detector) if isinstance(detector, str) else detector,
            "fractions": _check_fractions(fractions, checked_dopants),
            "lattice_constant": _check_lattice_constant(lattice_constant, host),
        }
        if not isinstance(values["detector"], Detector | None):
            raise TypeError(f"detector: expected a Detector or one of {', '.join(DETECTOR_NAMES)}, got {detector!r}")
        origin = {name: "user" for name, value in values.items() if value}
        if fractions is None and checked_dopants:
            origin["fractions"] = "default"
        if lattice_constant is None:
            origin["lattice_constant"] = "table"
        values["provenance"] = origin | dict(provenance or {})
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def metal(self) -> str:
        """Symbol of the host's metal."""
        return parse_formula(self.host)[0]

    @property
    def chalcogen(self) -> str:
        """Symbol of the host's chalcogen."""
        return parse_formula(self.host)[1]

    @property
    def thickness(self) -> float | None:
        """Distance between the two chalcogen planes, Å; None for a host that is not in `HOSTS`."""
        known = find_host(self.host)
        return None if known is None else known.thickness

    def with_recording(self, micrograph: Micrograph) -> Context:
        """Return this context with what it lacks of energy and detector taken from a micrograph.

        Parameters
        ----------
        micrograph : Micrograph
            Its energy and detector count only where this context has none: what the user says stands.

        Returns
        -------
        Context
            With the micrograph's provenance for the values taken from it.

        Examples
        --------
        >>> micrograph = Micrograph(np.eye(8), sampling=0.2, energy=80e3, detector="HAADF")
        >>> Context("WSe2", "Cr").with_recording(micrograph).energy
        80000.0
        """
        taken = [name for name in ("energy", "detector") if getattr(self, name) is None]
        taken = [name for name in taken if getattr(micrograph, name) is not None]
        return Context(
            self.host,
            self.dopants,
            micrograph.energy if "energy" in taken else self.energy,
            micrograph.detector if "detector" in taken else self.detector,
            fractions=self.fractions,
            lattice_constant=self.lattice_constant,
            provenance=self.provenance | {name: micrograph.provenance[name] for name in taken},
        )

    def vector(self, encoding: Encoding = "intensities") -> NDArray[np.float32]:
        """Encode the context for the classifier.

        Parameters
        ----------
        encoding : {"intensities", "roles", "composition"}
            ``"intensities"``: for each class the logarithm of the brightness expected of it, over that of the metal and
            over that of two chalcogens.
            ``"roles"``: the shell occupations of metal, chalcogen and dopant side by side (several dopants: their mean
            weighted by fraction; none: zeros), beam energy one-hot over `ENERGIES`, detector one-hot over
            ``DETECTORS``.  ``"composition"``: the same with the sum of the occupations weighted by atomic fraction.

        Returns
        -------
        ndarray of float32, shape (F,)
            F is 10 for intensities, 68 for roles, 30 for composition.  `feature_names` names the entries.

        Raises
        ------
        ValueError
            If energy or detector is missing, the energy is none of `ENERGIES` to within `ENERGY_TOLERANCE`, or the
            response library does not reach the collection angles.

        Examples
        --------
        >>> vector = Context("WSe2", energy=80e3, detector="HAADF").vector("composition")
        >>> [name for name, x in zip(feature_names("composition"), vector) if name.startswith("energy") and x]
        ['energy 80 keV']
        """
        _check_encoding(encoding)
        conditions = [self._energy_one_hot(), self._detector_one_hot()]
        if encoding == "intensities":
            assert self.energy is not None and self.detector is not None
            ratios = expected_intensities(self.metal, self.chalcogen, self.fractions, self.energy, self.detector)
            both = ratios[:, None] / ratios[[[CLASSES.index("metal"), CLASSES.index("X2")]]]  # (class, standard)
            return np.log(both + INTENSITY_FLOOR).ravel().astype(np.float32)
        metal, chalcogen = _shells(self.metal), _shells(self.chalcogen)
        doped = math.fsum(self.fractions.values())
        dopant = np.zeros(len(SUBSHELLS))  # mean over the dopants
        for symbol, fraction in self.fractions.items():
            dopant += fraction / doped * _shells(symbol)
        if encoding == "roles":
            blocks = [metal, chalcogen, dopant]
        else:
            blocks = [((1.0 - doped) * metal + doped * dopant + 2.0 * chalcogen) / 3.0]
        return np.concatenate([*blocks, *conditions]).astype(np.float32)

    def _energy_one_hot(self) -> NDArray[np.float64]:
        known = ", ".join(f"{energy / 1e3:g}e3" for energy in ENERGIES)
        if self.energy is None:
            raise ValueError(
                f"energy: the context vector needs the beam energy in eV, one of {known}, got None; "
                "give energy=... or --energy-kev"
            )
        one_hot = np.isclose(ENERGIES, self.energy, rtol=ENERGY_TOLERANCE, atol=0.0)
        if not one_hot.any():
            raise ValueError(f"energy: expected one of the known beam energies {known} eV, got {self.energy:g}")
        return one_hot.astype(np.float64)

    def _detector_one_hot(self) -> NDArray[np.float64]:
        if self.detector is None:
            raise ValueError(
                f"detector: the context vector needs one of {', '.join(DETECTOR_NAMES)}, got None; "
                "give detector=... or --detector"
            )
        return np.array([self.detector.kind == name for name in DETECTORS], dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold, provenance among them.

        Returns
        -------
        dict
            What `from_dict` takes.

        Examples
        --------
        >>> Context.from_dict(Context("WSe2", "Cr").to_dict()) == Context("WSe2", "Cr")
        True
        """
        return {
            "host": self.host,
            "dopants": list(self.dopants),
            "energy": self.energy,
            "detector": None if self.detector is None else self.detector.to_dict(),
            "fractions": dict(self.fractions),
            "lattice_constant": self.lattice_constant,
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Context:
        """Make the context that `to_dict` wrote.

        Parameters
        ----------
        values : mapping
            As `to_dict` returns it.

        Returns
        -------
        Context

        Raises
        ------
        TypeError, ValueError
            As for `Context`.
        """
        detector = values.get("detector")
        return cls(**{**values, "detector": Detector(**detector) if isinstance(detector, Mapping) else detector})


def parse_formula(host: str) -> tuple[str, str]:
    """Return metal and chalcogen of a formula MX2.

    Parameters
    ----------
    host : str
        For example ``"WSe2"``, or ``"W(S0.6Se0.4)2"`` for an alloy in the mean-field picture.

    Returns
    -------
    metal, chalcogen : str
        Element symbol of the metal; symbol, or symbols with shares, of the chalcogen.

    Raises
    ------
    TypeError
        If `host` is not a string.
    ValueError
        If it is not a formula MX2 of two different elements.

    Examples
    --------
    >>> parse_formula("WSe2")
    ('W', 'Se')
    """
    if not isinstance(host, str):
        raise TypeError(f"host: expected a formula MX2 such as 'WSe2', got {host!r}")
    match = re.fullmatch(r"([A-Z][a-z]?)(?:([A-Z][a-z]?)|\(([A-Za-z0-9.]+)\))2", host)
    if match is None:
        raise ValueError(f"host: expected a formula MX2 such as 'WSe2', got {host!r}{other_case(host, HOSTS)}")
    metal, chalcogen = match[1], match[2] or match[3]
    for symbol in (metal, chalcogen):
        try:
            elements = atomic_shares(symbol)
        except ValueError:
            mixed = "no mixture of elements whose shares add up to 1" if symbol == match[3] else "no element"
            raise ValueError(
                f"host: expected a formula MX2 of chemical elements, got {host!r}, and {symbol!r} is {mixed}"
            ) from None
        if symbol == chalcogen and metal in elements:
            raise ValueError(f"host: expected a formula MX2 of two different elements, got {host!r}")
    return metal, chalcogen


def find_host(formula: str) -> Host | None:
    """Return elements and lengths of a host; of an alloy, the means over its chalcogens.

    Parameters
    ----------
    formula : str
        As for `parse_formula`.

    Returns
    -------
    Host or None
        None where `HOSTS` does not tell.

    Examples
    --------
    >>> find_host("Mo(S0.5Te0.5)2").lattice_constant
    3.365
    """
    metal, chalcogen = parse_formula(formula)
    shares = atomic_shares(chalcogen)
    pure = [HOSTS.get(f"{metal}{symbol}2") for symbol in shares]
    lengths = [(host.lattice_constant, host.thickness) for host in pure if host is not None]
    if len(lengths) < len(pure):
        return None
    a, t = np.array(list(shares.values())) @ np.array(lengths)
    return Host(metal, chalcogen, float(round(a, 6)), float(round(t, 6)))


def feature_names(encoding: Encoding = "intensities") -> tuple[str, ...]:
    """Return the names of the entries of `Context.vector`.

    Parameters
    ----------
    encoding : {"intensities", "roles", "composition"}
        As for `Context.vector`.

    Returns
    -------
    tuple of str
        F names in the order of the vector.

    Raises
    ------
    ValueError
        If the encoding is not known.

    Examples
    --------
    >>> feature_names("roles")[0], feature_names("roles")[-1]
    ('M 1s', 'detector BF')
    """
    _check_encoding(encoding)
    if encoding == "intensities":
        return tuple(f"{column} / {standard}" for column, standard in itertools.product(CLASSES, ("metal", "X2")))
    shells = [f"{role} {shell}" for role in ROLES for shell in SUBSHELLS] if encoding == "roles" else list(SUBSHELLS)
    energies = [f"energy {energy / 1e3:g} keV" for energy in ENERGIES]
    return (*shells, *energies, *(f"detector {name}" for name in DETECTORS))


def _shells(species: str) -> NDArray[np.float64]:
    """Occupation of each subshell of an element, or the mean over those of an alloy, over its capacity, (19,)."""
    mean = np.zeros(len(SUBSHELLS))
    for symbol, share in atomic_shares(species).items():
        configuration = electron_configuration(symbol)
        mean += share * np.array([count / CAPACITY[shell[1]] for shell, count in configuration.items()])
    return mean


def _check_encoding(encoding: str) -> None:
    if encoding not in get_args(Encoding):
        raise ValueError(f"encoding: expected one of {', '.join(get_args(Encoding))}, got {encoding!r}")


def _check_dopants(dopants: str | Sequence[str], metal: str, host: str) -> tuple[str, ...]:
    if not isinstance(dopants, Sequence):
        raise TypeError(f"dopants: expected symbols of chemical elements such as ('Cr',), got {dopants!r}")
    symbols = (dopants,) if isinstance(dopants, str) else tuple(dopants)
    for symbol in symbols:
        if symbol not in SYMBOLS:
            guess = other_case(symbol, SYMBOLS)
            raise ValueError(f"dopants: expected symbols of chemical elements such as 'Cr', got {symbol!r}{guess}")
        if symbol == metal:
            raise ValueError(f"dopants: expected elements other than the metal of the host {host}, got {symbol!r}")
    if len(set(symbols)) != len(symbols):
        raise ValueError(f"dopants: expected each element once, got {', '.join(symbols)}")
    return symbols


def _check_fractions(fractions: Mapping[str, float] | None, dopants: tuple[str, ...]) -> dict[str, float]:
    if fractions is None:
        return dict.fromkeys(dopants, NOMINAL_FRACTION)
    if not isinstance(fractions, Mapping):
        raise TypeError(f"fractions: expected a mapping such as {{'Cr': 0.02}}, got {fractions!r}")
    if set(fractions) != set(dopants):
        raise ValueError(f"fractions: expected one for each dopant {list(dopants)}, got them for {list(fractions)}")
    unit = "parts of the metal sites"
    checked = {symbol: check_number("fractions", fractions[symbol], unit, (0.0, 1.0)) for symbol in dopants}
    if min(checked.values(), default=1.0) == 0.0 or math.fsum(checked.values()) >= 1.0:
        raise ValueError(f"fractions: expected each above 0 and a sum below 1, got {checked}")
    return checked


def _check_lattice_constant(lattice_constant: float | None, host: str) -> float:
    if lattice_constant is None:
        known = find_host(host)
        if known is None:
            raise ValueError(
                f"lattice_constant: the lattice constant of {host} is not known (known hosts: {', '.join(HOSTS)}), "
                "give it in Å as lattice_constant=..."
            )
        return known.lattice_constant
    return check_number("lattice_constant", lattice_constant, "Å", LATTICE_CONSTANT_RANGE)
