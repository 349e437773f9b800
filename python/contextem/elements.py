"""The 118 elements and the electron configurations of their neutral ground states.

The configurations follow the Madelung rule (subshells fill in the order of n + l, then n) with the known exceptions in
a table.  Those of the heaviest elements, from rutherfordium on, rest on calculation.

References
----------
NIST Atomic Spectra Database, ground states: https://doi.org/10.18434/T4W30F
"""

from __future__ import annotations

import math
import re
from functools import cache
from types import MappingProxyType

SYMBOLS: tuple[str, ...] = tuple(
    """
    H He
    Li Be B C N O F Ne
    Na Mg Al Si P S Cl Ar
    K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
    Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe
    Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn
    Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
    """.split()
)
"""Symbols by atomic number: ``SYMBOLS[Z - 1]``."""

SUBSHELLS: tuple[str, ...] = tuple("1s 2s 2p 3s 3p 3d 4s 4p 4d 4f 5s 5p 5d 5f 6s 6p 6d 7s 7p".split())
"""Every subshell occupied in the ground state of some element, by n, then l."""

CAPACITY = MappingProxyType({"s": 2, "p": 6, "d": 10, "f": 14})
"""Electrons a subshell holds: 2 (2 l + 1)."""

_MADELUNG = tuple(sorted(SUBSHELLS, key=lambda shell: (int(shell[0]) + "spdf".index(shell[1]), int(shell[0]))))

# The subshells in which the ground state departs from the Madelung rule.
_EXCEPTIONS: dict[str, dict[str, int]] = {
    "Cr": {"3d": 5, "4s": 1},
    "Cu": {"3d": 10, "4s": 1},
    "Nb": {"4d": 4, "5s": 1},
    "Mo": {"4d": 5, "5s": 1},
    "Ru": {"4d": 7, "5s": 1},
    "Rh": {"4d": 8, "5s": 1},
    "Pd": {"4d": 10, "5s": 0},
    "Ag": {"4d": 10, "5s": 1},
    "La": {"4f": 0, "5d": 1},
    "Ce": {"4f": 1, "5d": 1},
    "Gd": {"4f": 7, "5d": 1},
    "Pt": {"5d": 9, "6s": 1},
    "Au": {"5d": 10, "6s": 1},
    "Ac": {"5f": 0, "6d": 1},
    "Th": {"5f": 0, "6d": 2},
    "Pa": {"5f": 2, "6d": 1},
    "U": {"5f": 3, "6d": 1},
    "Np": {"5f": 4, "6d": 1},
    "Cm": {"5f": 7, "6d": 1},
    "Lr": {"6d": 0, "7p": 1},
}


def atomic_number(symbol: str) -> int:
    """Return the atomic number of an element.

    Parameters
    ----------
    symbol : str
        Symbol as in `SYMBOLS`, for example ``"Se"``.

    Returns
    -------
    int
        1 to 118.

    Raises
    ------
    ValueError
        If there is no such element.

    Examples
    --------
    >>> atomic_number("W")
    74
    """
    if symbol not in SYMBOLS:
        raise ValueError(f"symbol: expected one of the 118 chemical elements such as 'W' or 'Se', got {symbol!r}")
    return SYMBOLS.index(symbol) + 1


@cache
def atomic_shares(species: str) -> MappingProxyType[str, float]:
    """Return the elements of a species and the share of each.

    Parameters
    ----------
    species : str
        A symbol, or symbols with their shares in the mean-field picture of an alloy, for example ``"S0.6Te0.4"``.

    Returns
    -------
    mapping of str to float
        By symbol; the shares add up to 1.

    Raises
    ------
    ValueError
        If an element is not known, occurs twice, or the shares do not add up to 1.

    Examples
    --------
    >>> dict(atomic_shares("Se")), dict(atomic_shares("S0.6Te0.4"))
    ({'Se': 1.0}, {'S': 0.6, 'Te': 0.4})
    """
    if species in SYMBOLS:
        return MappingProxyType({species: 1.0})
    parts = re.findall(r"([A-Z][a-z]?)(0?\.\d+)", species)
    shares = {symbol: float(share) for symbol, share in parts}
    if (
        "".join(symbol + share for symbol, share in parts) != species
        or not set(shares) <= set(SYMBOLS)
        or len(shares) < len(parts)
        or not math.isclose(math.fsum(shares.values()), 1.0, abs_tol=1e-6)
    ):
        raise ValueError(
            "species: expected a chemical element such as 'Se', or elements with shares that add up to 1 such as "
            f"'S0.6Te0.4', got {species!r}"
        )
    return MappingProxyType(shares)


@cache
def _configuration(symbol: str) -> MappingProxyType[str, int]:
    remaining = atomic_number(symbol)
    occupation = dict.fromkeys(SUBSHELLS, 0)
    for shell in _MADELUNG:
        occupation[shell] = min(remaining, CAPACITY[shell[1]])
        remaining -= occupation[shell]
    return MappingProxyType(occupation | _EXCEPTIONS.get(symbol, {}))


def electron_configuration(symbol: str) -> dict[str, int]:
    """Return the electrons in each subshell of a neutral atom in its ground state.

    Parameters
    ----------
    symbol : str
        Symbol as in `SYMBOLS`.

    Returns
    -------
    dict of str to int
        Electrons by subshell, one entry for each of `SUBSHELLS`, zeros among them; they add up to the atomic number.

    Raises
    ------
    ValueError
        If there is no such element.

    References
    ----------
    NIST Atomic Spectra Database, https://doi.org/10.18434/T4W30F

    Examples
    --------
    >>> {shell: count for shell, count in electron_configuration("Cr").items() if count}
    {'1s': 2, '2s': 2, '2p': 6, '3s': 2, '3p': 6, '3d': 5, '4s': 1}
    """
    return dict(_configuration(symbol))
