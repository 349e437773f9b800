"""The response of a column: the fraction of the beam that reaches the detector when the probe stands beside it.

    I(p) = 2 pi  integral_0^cutoff  R(k) J0(2 pi k |p|) k dk                             static atoms
    R(k) -> R(k) exp(-2 pi^2 s^2 k^2)                         blurred: thermal displacement or source of rms s

The image of a column on an annular detector is a band-limited function: R vanishes beyond the diameter of the aperture,
2 semiangle / wavelength.  So R, the Hankel transform of the response, is stored and not the response: positions,
thermal vibration and source size are exact factors of it, and the tails of the probe are complete.  R is kept as
coefficients of the Chebyshev polynomials T_c(2 k/cutoff - 1) times (1 - k/cutoff), ring by ring of the detector, so
that any collection angles can be asked for.

The two chalcogens of a column are not the sum of two atoms: the first focuses the probe onto the second, and the waves
interfere.  Pairs therefore have entries of their own, averaged over the thermal vibration of their separation.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from numpy.polynomial.legendre import leggauss
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from scipy.special import j0
from tqdm import tqdm

from contextem._output import whole_file
from contextem._processes import process_pool
from contextem.micrograph import Detector

ELEMENTS = ("Mo", "W", "Nb", "Ta", "S", "Se", "Te", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zr", "Re")
PAIR_DISTANCES: Mapping[str, tuple[float, ...]] = {"S": (2.98, 3.13), "Se": (3.10, 3.36), "Te": (3.64,)}
"""Distances between the two atoms of a chalcogen column for which pairs are computed, Å."""

SEMIANGLES: Mapping[float, float] = {60e3: 32.0, 80e3: 30.0, 100e3: 30.0, 120e3: 30.0, 200e3: 25.0, 300e3: 25.0}
"""Semi-angle of convergence, mrad, by beam energy, eV."""

THERMAL_METAL, THERMAL_CHALCOGEN = 0.06, 0.075
"""Root mean square thermal displacement along one direction, Å."""

DEFOCI = (-2.0, 7.0, 16.0, 25.0, 34.0, 43.0)
"""Defoci of the library, Å, positive where the focus lies behind the atoms."""

ANGLES = (40.0, 45.0, 50.0, 55.0, 60.0, 65.0, 70.0, 80.0, 90.0, 100.0, 110.0, 120.0, 140.0, 160.0, 180.0, 200.0, 220.0)
"""Edges of the detector rings, mrad; one more edge, just outside the bright-field disk, comes before them."""

DETECTOR_ANGLES: Mapping[str, tuple[float, float]] = {"HAADF": (70.0, 200.0), "MAADF": (50.0, 120.0)}
"""Inner and outer collection angle, mrad, of a detector that is only named."""

COEFFICIENTS = 16
SCAN_POINTS = 48
SEPARATION_RADII: Mapping[bool, int] = {False: 4, True: 6}
"""Radial quadrature nodes of the separation of a pair, up to 120 keV and above: faster waves resolve it more finely."""


@dataclass(frozen=True)
class Response:
    """Response of a column, per electron of the beam, static atoms.

    Attributes
    ----------
    cutoff : float
        Highest spatial frequency, 1/Å.
    coefficients : ndarray of float64, shape (C,)
        Of the Chebyshev expansion of R(k) in the module's head, Å^2.
    """

    cutoff: float
    coefficients: NDArray[np.float64]

    def transfer(self, k: ArrayLike, blur: float = 0.0) -> NDArray[np.float64]:
        """Return R at spatial frequencies k.

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

    def radial(self, r: ArrayLike, blur: float = 0.0) -> NDArray[np.float64]:
        """Return the response at distances r.

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
        node, weight = _legendre_nodes()
        k = 0.5 * self.cutoff * (node + 1.0)
        integrand = np.pi * self.cutoff * weight * k * self.transfer(k, blur)
        return np.asarray(j0(2.0 * np.pi * np.multiply.outer(np.asarray(r, dtype=np.float64), k)) @ integrand)


@cache
def _legendre_nodes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return leggauss(200)


def expansion(kappa: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return the functions of the expansion of R at k/cutoff = kappa (...,), as (..., count); 0 beyond 1."""
    inside = np.clip(kappa, 0.0, 1.0)
    polynomials = chebvander(2.0 * inside - 1.0, count - 1).reshape(*inside.shape, count)
    return np.asarray(polynomials * (1.0 - inside)[..., None])


@dataclass(frozen=True, eq=False)
class ResponseLibrary:
    """Responses of all columns, energies, defoci and detector rings.

    Attributes
    ----------
    species : tuple of str
        S names: elements, and pairs as for example ``"Se2@3.36"``, the distance in Å.
    energies, cutoffs : ndarray of float64, shape (E,)
        eV; 1/Å.
    defoci : ndarray of float64, shape (F,)
        Å.
    edges : ndarray of float64, shape (E, B + 1)
        Edges of the detector rings, mrad.
    coefficients : ndarray of float32, shape (S, E, F, B, C)
        Å^2.
    about : dict
        Where it comes from: programs, settings, command, checksum.
    """

    species: tuple[str, ...]
    energies: NDArray[np.float64]
    cutoffs: NDArray[np.float64]
    defoci: NDArray[np.float64]
    edges: NDArray[np.float64]
    coefficients: NDArray[np.float32] = field(repr=False)
    about: dict[str, Any] = field(repr=False)

    def response(self, symbol: str, energy: float, detector: Detector | str, defocus: float = 0.0) -> Response:
        """Return the response of one atom.

        Parameters
        ----------
        symbol : str
            Element.
        energy : float
            Beam energy, eV: one of those of the library.
        detector : Detector or str
            Without angles, those of `DETECTOR_ANGLES` are taken.
        defocus : float
            Å, relative to the plane of the atom, positive where the focus lies behind it.

        Returns
        -------
        Response

        Raises
        ------
        ValueError
            If the library does not hold it.
        """
        if symbol not in ELEMENTS:
            raise ValueError(f"symbol: expected one of {', '.join(ELEMENTS)}, got {symbol!r}")
        return self._select(symbol, energy, detector, defocus)

    def pair(
        self, symbol: str, thickness: float, energy: float, detector: Detector | str, defocus: float = 0.0
    ) -> Response:
        """Return the response of two chalcogens on top of each other, averaged over their thermal separation.

        The vibration of their midpoint, of rms `THERMAL_CHALCOGEN` / sqrt(2), is left to the caller's blur.

        Parameters
        ----------
        symbol : str
            S, Se or Te.
        thickness : float
            Distance of the two atoms, Å; between two computed distances linearly interpolated.
        energy, detector, defocus
            As for `response`; the defocus is relative to the midpoint.

        Returns
        -------
        Response

        Raises
        ------
        ValueError
            If the library does not hold it.
        """
        if symbol not in PAIR_DISTANCES:
            raise ValueError(f"symbol: expected a chalcogen, one of {', '.join(PAIR_DISTANCES)}, got {symbol!r}")
        distances = PAIR_DISTANCES[symbol]
        low, high = distances[0] - 0.1, distances[-1] + 0.1
        if not low <= thickness <= high:
            raise ValueError(f"thickness: expected {low:.2f} to {high:.2f} Å for {symbol}, got {thickness:g}")
        pairs = [self._select(pair_name(symbol, t), energy, detector, defocus) for t in distances]
        mixed = [np.interp(thickness, distances, c) for c in np.transpose([pair.coefficients for pair in pairs])]
        return Response(pairs[0].cutoff, np.array(mixed))

    def _select(self, name: str, energy: float, detector: Detector | str, defocus: float) -> Response:
        i = int(np.argmin(np.abs(self.energies - energy)))
        if abs(self.energies[i] - energy) > 0.01 * energy:
            known = ", ".join(f"{e / 1e3:g}e3" for e in self.energies)
            raise ValueError(f"energy: expected one of {known} eV, got {energy:g}")
        if not self.defoci[0] <= defocus <= self.defoci[-1]:
            raise ValueError(f"defocus: expected {self.defoci[0]:g} to {self.defoci[-1]:g} Å, got {defocus:g}")
        weights = ring_weights(self.edges[i], *collection_angles(detector))
        # a spline is linear in the numbers that it passes through
        shares = self._spline(defocus)[:, None] * weights
        rings = self.coefficients[self.species.index(name), i].astype(np.float64)
        return Response(float(self.cutoffs[i]), np.tensordot(shares, rings, 2))

    @cached_property
    def _spline(self) -> Any:
        return CubicSpline(self.defoci, np.eye(len(self.defoci)))


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

    Within a ring the intensity per angle is taken to fall as the inverse square of the angle.

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
        If an angle lies outside the rings.

    Examples
    --------
    >>> ring_weights(np.array([40.0, 60.0, 80.0]), 48.0, 80.0).round(3).tolist()
    [0.5, 1.0]
    """
    if not edges[0] <= inner < outer <= edges[-1]:
        raise ValueError(
            f"detector: expected angles from {edges[0]:g} to {edges[-1]:g} mrad, got {inner:g} to {outer:g}; "
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
    >>> library().coefficients.dtype
    dtype('float32')
    """
    with files("contextem").joinpath("data/responses.npz").open("rb") as file:
        return load(file)


def load(path: Any) -> ResponseLibrary:
    """Read a library.

    Parameters
    ----------
    path : path-like or binary file
        Written by `build`.

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
        coefficients = data["coefficients"]
        if hashlib.sha256(coefficients.tobytes()).hexdigest() != about["sha256"]:
            raise ValueError(f"{path}: the checksum does not fit; rebuild the library with {about['command']!r}")
        numbers = {name: data[name] for name in ("energies", "cutoffs", "defoci", "edges")}
        species = tuple(str(name) for name in data["species"])
    return ResponseLibrary(species, **numbers, coefficients=coefficients, about=about)


def build(
    path: str | os.PathLike[str],
    progress: bool = True,
    *,
    energies: Sequence[float] = tuple(SEMIANGLES),
    processes: int | None = None,
) -> ResponseLibrary:
    """Compute the library with abTEM's potentials and write it.

    Parameters
    ----------
    path : path-like
        File to write, ``.npz``.
    progress : bool
        Whether to show a progress bar on a terminal.
    energies : sequence of float
        Beam energies, eV, each one of `SEMIANGLES`.
    processes : int, optional
        How many to use; by default as many as there are processors.

    Returns
    -------
    ResponseLibrary
    """
    import abtem

    names = [*ELEMENTS, *(pair_name(x, t) for x, distances in PAIR_DISTANCES.items() for t in distances)]
    # the most expensive first, so that no process is left with a long one at the end
    jobs = sorted(itertools.product(energies, names), key=lambda job: (-job[0], "@" not in job[1]))
    with process_pool(processes) as pool:
        computed = tqdm(
            pool.map(compute, *zip(*jobs, strict=True)),
            total=len(jobs), desc="responses", unit="column", disable=None if progress else True,
        )  # fmt: skip
        table = dict(zip(jobs, computed, strict=True))
    coefficients = np.stack([np.stack([table[e, name] for e in energies]) for name in names]).astype(np.float32)
    about = {
        "command": "contextem simulate --rebuild-responses",
        "abTEM": abtem.__version__,
        "scattering factors": "Lobato and Van Dyck 2014",
        "semiangles": {f"{e:g}": SEMIANGLES[e] for e in energies},
        "pair thermal displacement": THERMAL_CHALCOGEN,
        "shape": "species, energy, defocus, ring, coefficient",
        "sha256": hashlib.sha256(coefficients.tobytes()).hexdigest(),
    }
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            species=np.array(names),
            energies=np.array(energies, dtype=np.float64),
            cutoffs=np.array([_scan(e).cutoff for e in energies]),
            defoci=np.array(DEFOCI),
            edges=np.array([_scan(e).edges for e in energies]),
            coefficients=coefficients,
            about=np.array(json.dumps(about)),
        )
    return load(path)


@cache
def _scan(energy: float) -> Any:
    from contextem.simulate.scattering import ColumnScan

    first = max(30.0, np.ceil(1.1 * SEMIANGLES[energy]))
    return ColumnScan(energy, SEMIANGLES[energy], (first, *ANGLES))


def compute(energy: float, name: str) -> NDArray[np.float64]:
    """Compute the response of one column at all defoci of the library.

    Parameters
    ----------
    energy : float
        Beam energy, eV.
    name : str
        Element, or pair as `pair_name` writes it.

    Returns
    -------
    ndarray of float64, shape (F, B, C)
        Coefficients, Å^2.
    """
    from contextem.simulate.scattering import scan_positions, thermal_separations

    scan = _scan(energy)
    # out to beyond half the diagonal's projection: the fit knows that the box is periodic
    positions = scan_positions(SCAN_POINTS, 0.66 * scan.length)
    symbol, _, distance = name.partition("2@")
    thickness = float(distance or 0.0)
    if thickness:
        nodes = thermal_separations(THERMAL_CHALCOGEN, SEPARATION_RADII[energy > 150e3])
        planes = [(w, [scan.transmission(symbol, (s * x / 2, s * y / 2)) for s in (-1, 1)]) for x, y, w in nodes]
    else:
        planes = [(1.0, [scan.transmission(symbol, (0.0, 0.0))])]
    detected = []
    for defocus in DEFOCI:
        # the focus is counted from the midpoint of a pair, the wave from its first atom
        probes = scan.probes(positions, defocus + thickness / 2)
        detected.append(sum(weight * scan.detect(probes, stack, thickness) for weight, stack in planes))
    return fit_transfer(positions, np.array(detected), scan.length, scan.cutoff)


def fit_transfer(
    positions: NDArray[np.float64], intensities: NDArray[np.float64], length: float, cutoff: float
) -> NDArray[np.float64]:
    """Fit the transfer function of a column that stands in a periodic box to intensities seen around it.

    I(p) = length^-2 sum over k in (Z / length)^2 of R(|k|) cos(2 pi k p), linear in the coefficients of R.

    Parameters
    ----------
    positions : ndarray, shape (P, 2)
        Probe positions relative to the column, Å.
    intensities : ndarray, shape (F, P, B)
        Fractions of the beam.
    length : float
        Side of the box, Å.
    cutoff : float
        1/Å.

    Returns
    -------
    ndarray of float64, shape (F, B, C)
        Coefficients, Å^2.
    """
    index = np.arange(-int(cutoff * length), int(cutoff * length) + 1) / length
    kx, ky = (k.ravel() for k in np.meshgrid(index, index, indexing="ij"))
    waves = np.cos(2.0 * np.pi * (np.outer(positions[:, 0], kx) + np.outer(positions[:, 1], ky)))
    design = waves @ expansion(np.hypot(kx, ky) / cutoff, COEFFICIENTS) / length**2
    return np.asarray(np.einsum("cp,fpb->fbc", np.linalg.pinv(design), intensities))
