"""The response of a column: the fraction of the beam that reaches the detector when the probe stands beside it.

    I(p) = integral over |k| < cutoff of  R(k) exp(2 pi i k p) d2k                       static atoms
    R(k) -> R(k) exp(-2 pi^2 s^2 k^2)                         blurred: thermal displacement or source of rms s

The image of a column on an annular detector is a band-limited function: R vanishes beyond the diameter of the aperture,
2 semiangle / wavelength.  So R, and not the response, is what a column is rendered from: positions, thermal vibration
and source size are exact factors of it, and the tails of the probe are complete.

The library holds what R of any probe follows from, the mutual coherence of the waves that a column scatters
(see `contextem.probe`), ring by ring of the detector, so that any collection angles can be asked for.

The two chalcogens of a column are not the sum of two atoms: the first focuses the probe onto the second, and the waves
interfere.  Pairs therefore have entries of their own, averaged over the thermal vibration of their separation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import ArrayLike, NDArray
from scipy.special import j0

from contextem.elements import atomic_shares
from contextem.micrograph import Detector
from contextem.probe import (
    FOCUSED,
    Aberrations,
    aperture_grid,
    expansion,
    general_transfer,
    rise,
    round_transfer,
)

ELEMENTS = ("Mo", "W", "Nb", "Ta", "S", "Se", "Te", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zr", "Re")
PAIR_DISTANCES: Mapping[str, tuple[float, ...]] = {"S": (2.98, 3.13), "Se": (3.10, 3.36), "Te": (3.64,)}
"""Distances between the two atoms of a chalcogen column for which pairs are computed, Å."""

SEMIANGLES: Mapping[float, float] = {60e3: 32.0, 80e3: 30.0, 100e3: 30.0, 120e3: 30.0, 200e3: 25.0, 300e3: 25.0}
"""Semi-angle of convergence, mrad, by beam energy, eV."""

THERMAL_METAL, THERMAL_CHALCOGEN = 0.06, 0.075
"""Root mean square thermal displacement along one direction, Å."""

DETECTOR_ANGLES: Mapping[str, tuple[float, float]] = {
    "HAADF": (70.0, 200.0),
    "MAADF": (50.0, 120.0),
    "ADF": (40.0, 95.0),
}
"""Inner and outer collection angle, mrad, of a detector that is only named."""

ANGLE_RANGES: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "HAADF": ((60.0, 80.0), (170.0, 220.0)),
    "MAADF": ((36.0, 58.0), (85.0, 135.0)),
    "ADF": ((30.0, 52.0), (60.0, 125.0)),
}
"""Range of inner and of outer collection angle, mrad, that a detector may have which is only named."""

REACH = 3.0
"""How far the outermost rays of a probe may miss the focus, Å."""


@dataclass(frozen=True)
class Response:
    """Response of a column, per electron of the beam, static atoms.

    Attributes
    ----------
    cutoff : float
        Highest spatial frequency, 1/Å.
    coefficients : ndarray of float64, shape (C,)
        Of the expansion of R(k), averaged over all directions, in `contextem.probe`, Å^2.
    harmonics : ndarray of complex128, shape (H, C)
        The same for the angular orders 1 to H; those of -m follow, as the image is real.  None for a round probe.
    """

    cutoff: float
    coefficients: NDArray[np.float64]
    harmonics: NDArray[np.complex128] | None = None

    def transfer(self, k: ArrayLike, blur: float = 0.0) -> NDArray[np.float64]:
        """Return R at spatial frequencies k, averaged over all directions.

        Parameters
        ----------
        k : array_like
            Spatial frequencies, 1/Å.
        blur : float
            Standard deviation of a Gaussian that blurs the response, Å.

        Returns
        -------
        ndarray of float64, shape of k
            Å^2; 0 beyond the cutoff.
        """
        frequencies = np.asarray(k, dtype=np.float64)
        values = expansion(frequencies / self.cutoff, len(self.coefficients)) @ self.coefficients
        return np.asarray(values * np.exp(-2.0 * (np.pi * blur * frequencies) ** 2))

    def angular_transfer(self, k: ArrayLike, blur: float = 0.0) -> NDArray[np.complex128]:
        """Return what exp(i m theta) is multiplied with in R(k), for the angular orders m = 1 to H.

        Parameters
        ----------
        k, blur
            As for `transfer`.

        Returns
        -------
        ndarray of complex128, shape (H,) + k.shape
            Å^2.
        """
        frequencies = np.asarray(k, dtype=np.float64)
        kappa = frequencies / self.cutoff
        orders: NDArray[Any] = np.zeros((0, len(self.coefficients))) if self.harmonics is None else self.harmonics
        values = np.moveaxis(expansion(kappa, len(self.coefficients)) @ orders.T, -1, 0)
        rises = [rise(m, kappa) for m in range(1, len(orders) + 1)]
        gaussian = np.exp(-2.0 * (np.pi * blur * frequencies) ** 2)
        return np.asarray(values * np.reshape(rises, values.shape) * gaussian)

    def radial(self, r: ArrayLike, blur: float = 0.0) -> NDArray[np.float64]:
        """Return the response at distances r, averaged over all directions.

        Parameters
        ----------
        r : array_like
            Distance of the probe from the column, Å.
        blur : float
            Standard deviation of a Gaussian that blurs the response, Å.

        Returns
        -------
        ndarray of float64, shape of r
            Fraction of the beam.

        Examples
        --------
        >>> response = library().response("W", 80e3, Detector("HAADF", 60, 170))
        >>> bool(0.06 < response.radial(0.0) < 0.08)
        True
        """
        distances = np.asarray(r, dtype=np.float64)
        return np.asarray(j0(2.0 * np.pi * np.multiply.outer(distances, nodes(self.cutoff))) @ self.spectrum(blur))

    def spectrum(self, blur: float = 0.0) -> NDArray[np.float64]:
        """Return the weights v (K,) with which the response is R(r) = sum_n v_n J_0(2 pi k_n r), k_n from `nodes`.

        Parameters
        ----------
        blur : float
            Standard deviation of a Gaussian that blurs the response, Å.

        Examples
        --------
        >>> response = library().response("W", 80e3, Detector("HAADF", 60, 170))
        >>> bool(np.isclose(response.spectrum(0.4).sum(), response.radial(0.0, 0.4)))
        True
        """
        kappa, weight, functions = _quadrature(len(self.coefficients))
        k = self.cutoff * kappa
        values = functions @ self.coefficients * np.exp(-2.0 * (np.pi * blur * k) ** 2)
        return np.asarray(2.0 * np.pi * self.cutoff * weight * k * values)


def nodes(cutoff: float) -> NDArray[np.float64]:
    """Return the spatial frequencies (K,), 1/Å, at which responses up to a cutoff are summed."""
    return cutoff * _quadrature(1)[0]


@cache
def _quadrature(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Nodes (K,) and weights (K,) of an integral over k/cutoff from 0 to 1, and `count` functions there, (K, count)."""
    node, weight = leggauss(200)
    kappa = 0.5 * (node + 1.0)
    return kappa, 0.5 * weight, expansion(kappa, count)


@dataclass(frozen=True, eq=False)
class ResponseLibrary:
    """Coherences of all columns, energies and detector rings.

    Attributes
    ----------
    species : tuple of str
        S names: elements, and pairs as for example ``"Se2@3.36"``, the distance in Å.
    energies, cutoffs : ndarray of float64, shape (E,)
        eV; 1/Å.
    edges : ndarray of float64, shape (E, B + 1)
        Edges of the detector rings, mrad.
    coherences : ndarray of float32, shape (S, E, B, K)
        Packed as in `contextem.probe`, Å^2.
    about : dict
        Where it comes from: programs, settings, command, checksum.
    """

    species: tuple[str, ...]
    energies: NDArray[np.float64]
    cutoffs: NDArray[np.float64]
    edges: NDArray[np.float64]
    coherences: NDArray[np.float32] = field(repr=False)
    about: dict[str, Any] = field(repr=False)

    def response(
        self,
        symbol: str,
        energy: float,
        detector: Detector | str,
        defocus: float = 0.0,
        aberrations: Aberrations = FOCUSED,
    ) -> Response:
        """Return the response of one atom.

        Parameters
        ----------
        symbol : str
            Element, or elements with shares as `contextem.elements.atomic_shares` reads them: their mean.
        energy : float
            Beam energy, eV: one of those of the library.
        detector : Detector or str
            Without angles, those of `DETECTOR_ANGLES` are taken.
        defocus : float
            Å, relative to the plane of the atom, positive where the focus lies behind it.
        aberrations : Aberrations
            Of the probe; its own defocus is added.

        Returns
        -------
        Response

        Raises
        ------
        ValueError
            If the library does not hold it.
        """
        shares = atomic_shares(symbol)
        if not shares.keys() <= set(ELEMENTS):
            raise ValueError(f"symbol: expected one of {', '.join(ELEMENTS)}, got {symbol!r}")
        return self._respond(tuple(shares.items()), energy, detector, defocus, aberrations)

    def pair(
        self,
        symbol: str,
        thickness: float,
        energy: float,
        detector: Detector | str,
        defocus: float = 0.0,
        aberrations: Aberrations = FOCUSED,
    ) -> Response:
        """Return the response of two chalcogens on top of each other, averaged over their thermal separation.

        The vibration of their midpoint, of rms `THERMAL_CHALCOGEN` / sqrt(2), is left to the caller's blur.

        Parameters
        ----------
        symbol : str
            S, Se or Te, or two of them with shares as for `response`.
        thickness : float
            Distance of the two atoms, Å; between two computed distances linearly interpolated.  In an alloy each
            element has the computed distance next to it.
        energy, detector, defocus, aberrations
            As for `response`; the defocus is relative to the midpoint.

        Returns
        -------
        Response

        Raises
        ------
        ValueError
            If the library does not hold it.
        """
        elements = atomic_shares(symbol)
        shares: list[tuple[str, float]] = []
        for element, share in elements.items():
            if element not in PAIR_DISTANCES:
                raise ValueError(f"symbol: expected a chalcogen, one of {', '.join(PAIR_DISTANCES)}, got {symbol!r}")
            distances = PAIR_DISTANCES[element]
            low, high = distances[0] - 0.1, distances[-1] + 0.1
            if len(elements) == 1 and not low <= thickness <= high:
                raise ValueError(f"thickness: expected {low:.2f} to {high:.2f} Å for {element}, got {thickness:g}")
            parts = [share * float(np.interp(thickness, distances, one)) for one in np.eye(len(distances))]
            shares += zip((pair_name(element, t) for t in distances), parts, strict=True)
        return self._respond(tuple(shares), energy, detector, defocus, aberrations)

    # the columns of one image share a probe, and are asked for more than once
    @lru_cache(maxsize=64)  # noqa: B019
    def _respond(
        self,
        shares: tuple[tuple[str, float], ...],
        energy: float,
        detector: Detector | str,
        defocus: float,
        aberrations: Aberrations,
    ) -> Response:
        i = int(np.argmin(np.abs(self.energies - energy)))
        if abs(self.energies[i] - energy) > 0.01 * energy:
            known = ", ".join(f"{e / 1e3:g}e3" for e in self.energies)
            raise ValueError(f"energy: expected one of {known} eV, got {energy:g}")
        probe = replace(aberrations, defocus=aberrations.defocus + defocus)
        semiangle, cutoff = SEMIANGLES[float(self.energies[i])], float(self.cutoffs[i])
        if not probe.reach(semiangle) <= REACH:
            raise ValueError(
                f"aberrations: expected rays that miss the focus by at most {REACH:g} Å, "
                f"got {probe.reach(semiangle):.2g} Å for {probe} at {semiangle:g} mrad"
            )
        weights = ring_weights(self.edges[i], *collection_angles(detector))
        rings = sum(share * self.coherences[self.species.index(name), i] for name, share in shares)
        coherence = weights @ np.asarray(rings, dtype=np.float64)
        wavelength = 2e-3 * semiangle / cutoff
        if probe.round:
            return Response(cutoff, _round_probe(probe, semiangle, wavelength) @ coherence)
        harmonics = general_transfer(coherence, _general_probe(probe, semiangle, wavelength))
        return Response(cutoff, harmonics[0].real.copy(), harmonics[1:])


@lru_cache(maxsize=256)
def _round_probe(aberrations: Aberrations, semiangle: float, wavelength: float) -> NDArray[np.float64]:
    def phase(rho: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(aberrations.phase(1e-3 * semiangle * rho, np.zeros_like(rho), wavelength))

    return round_transfer(phase)


@lru_cache(maxsize=256)
def _general_probe(aberrations: Aberrations, semiangle: float, wavelength: float) -> NDArray[np.complex64]:
    grid = aperture_grid()
    return grid.probe(aberrations.phase(np.float32(1e-3 * semiangle) * grid.rho, grid.azimuth, wavelength))


def semiangle_of(energy: float) -> float:
    """Return the semi-angle of convergence, mrad, of the library's energy next to `energy`, eV.

    Examples
    --------
    >>> semiangle_of(80e3)
    30.0
    """
    return SEMIANGLES[min(SEMIANGLES, key=lambda known: abs(known - energy))]


def lowest_angle(energy: float) -> float:
    """Return the least collection angle in the library, mrad, at its energy next to `energy`, eV.

    Examples
    --------
    >>> lowest_angle(80e3) > semiangle_of(80e3)
    True
    """
    responses = library()
    return float(responses.edges[int(np.argmin(np.abs(responses.energies - energy))), 0])


def collection_angles(detector: Detector | str) -> tuple[float, float]:
    """Return inner and outer collection angle of a detector, mrad; those of `DETECTOR_ANGLES` where it has none."""
    known = Detector(detector) if isinstance(detector, str) else detector
    if known.inner is not None and known.outer is not None:
        return known.inner, known.outer
    if known.name not in DETECTOR_ANGLES:
        named = ", ".join(DETECTOR_ANGLES)
        raise ValueError(f"detector: only {named} have default angles, give inner and outer in mrad for {known.name}")
    inner, outer = DETECTOR_ANGLES[known.name]
    return (inner if known.inner is None else known.inner, outer if known.outer is None else known.outer)


def ring_weights(edges: NDArray[np.float64], inner: float, outer: float) -> NDArray[np.float64]:
    """Return the share of each ring that lies between two angles.

    Within a ring the intensity per angle is taken to fall as the inverse square of the angle.  What is scattered beyond
    the last ring is left out: about the square of inner over last angle of the signal, and of nearly the same share for
    all elements.

    Parameters
    ----------
    edges : ndarray, shape (B + 1,)
        Ascending, mrad.
    inner, outer : float
        mrad.

    Returns
    -------
    ndarray of float64, shape (B,)
        0 to 1.

    Raises
    ------
    ValueError
        If the inner angle lies outside the rings.

    Examples
    --------
    >>> ring_weights(np.array([40.0, 60.0, 80.0]), 48.0, 80.0).round(3).tolist()
    [0.5, 1.0]
    """
    if not edges[0] <= inner < min(outer, edges[-1]):
        raise ValueError(
            f"detector: expected an inner angle from {edges[0]:g} to {edges[-1]:g} mrad, got {inner:g} to {outer:g}; "
            "the bright-field disk and higher angles are not in the response library"
        )
    low, high = np.clip(inner, edges[:-1], edges[1:]), np.clip(outer, edges[:-1], edges[1:])
    return np.asarray((1 / low - 1 / high) / (1 / edges[:-1] - 1 / edges[1:]))


def pair_name(symbol: str, distance: float) -> str:
    """Return the name of a pair in the library, for example ``"Se2@3.36"``."""
    return f"{symbol}2@{distance:.2f}"


@cache
def library() -> ResponseLibrary:
    """Return the library that comes with the package.

    Returns
    -------
    ResponseLibrary

    Examples
    --------
    >>> library().coherences.dtype
    dtype('float32')
    """
    with files("contextem").joinpath("data/responses.npz").open("rb") as file:
        return load(file)


def load(path: Any) -> ResponseLibrary:
    """Read a library.

    Parameters
    ----------
    path : path-like or binary file
        Written by `contextem.simulate.coherences.build`.

    Returns
    -------
    ResponseLibrary

    Raises
    ------
    ValueError
        If the checksum does not fit the numbers.
    """
    with np.load(path) as data:
        about = json.loads(str(data["about"]))
        coherences = data["coherences"]
        if hashlib.sha256(coherences.tobytes()).hexdigest() != about["sha256"]:
            raise ValueError(f"{path}: the checksum does not fit; rebuild the library with {about['command']!r}")
        numbers = {name: data[name] for name in ("energies", "cutoffs", "edges")}
        species = tuple(str(name) for name in data["species"])
    return ResponseLibrary(species, **numbers, coherences=coherences, about=about)
