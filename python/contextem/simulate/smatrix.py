"""The images of all probes at once: multislice of each plane wave of the aperture (PRISM without interpolation).

    S_k(q)  = FFT[ T_3 P T_2 P T_1 exp(2 pi i k x) ]                  exit wave of the plane wave k
    M_kk'   = sum_q D(q) S_k(q) conj(S_k'(q))                         Gram matrix of the beams on a detector
    C_kk'   = < A(k + s) conj(A(k' + s)) >_s                          the probe; s runs over a pixel of reciprocal space
    F(Q)    = sum over k' - k = Q of C_kk' M_kk' / sum_k C_kk         Fourier coefficients of the image
    I(x)    = sum_Q F(Q) exp(2 pi i Q x)                              fraction of the beam on the detector

T, P: transmission functions and propagator as in `contextem.simulate.scattering`; D: share of each pixel of the
diffraction pattern on the detector; A(k) = exp(-i chi(k)) inside the aperture.  An image is band-limited to the
diameter of the aperture, so F is short, whatever the number of probe positions.  M is linear in the intensity and does
not know the probe: it is averaged over frozen phonons once, and defocus and aberrations are chosen afterwards.

The mean over s is what a cell of infinite size would have: a beam at the edge of the aperture counts with the share of
its pixel inside, and a probe does not meet its own periodic images.  Counting whole pixels errs by one or two percent.

Multislice: Kirkland, "Advanced Computing in Electron Microscopy", https://doi.org/10.1007/978-3-030-33260-0.
PRISM: Ophus, https://doi.org/10.1186/s40679-017-0046-1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft
from tqdm import tqdm

from contextem._extras import needs_extra
from contextem.micrograph import Detector, check_energy
from contextem.responses import SEMIANGLES, THERMAL_CHALCOGEN, THERMAL_METAL, collection_angles
from contextem.simulate.scattering import fast_even_size, ring_shares, transmission_function

PLANES = 3
"""Slices of a monolayer: chalcogen, metal, chalcogen."""

REACH = 1.1
"""Waves are propagated up to this many times the outermost angle plus the semi-angle.

Waves beyond, scattered back by the next plane, are missing: with 1.0 in place of 1.1 an Se pair is off by 0.3 %.
"""

NYQUIST = 1.3
"""Highest angle on the grid, in units of the outermost angle plus the semi-angle.

What two planes scatter further folds back; 1.5 in place of 1.3 changes columns by less than 0.1 %.
"""

SUBPIXELS = 16
"""Points along each side of a pixel of reciprocal space at which the aperture is evaluated."""


@dataclass(frozen=True, eq=False)
class Beams:
    """What the plane waves of an aperture do together on the detectors.

    Attributes
    ----------
    lengths : (float, float)
        Size of the periodic cell, Å.
    wavelength : float
        Å.
    semiangle : float
        Semi-angle of convergence, mrad.
    depth : float
        Distance of the metal plane from the plane where the waves enter, Å.
    index : ndarray of int, shape (N, 2)
        Wave vectors, in units of 1 / lengths.
    gram : ndarray of complex128, shape (D, N, N)
        M for each detector, averaged over the frozen phonons.
    """

    lengths: tuple[float, float]
    wavelength: float
    semiangle: float
    depth: float
    index: NDArray[np.int64] = field(repr=False)
    gram: NDArray[np.complex128] = field(repr=False)

    def probe(
        self, defocus: float = 0.0, aberrations: Mapping[str, float] | None = None, subpixels: int = SUBPIXELS
    ) -> NDArray[np.complex128]:
        """Return C, the correlation of the beams in a probe, (N, N).

        Parameters
        ----------
        defocus : float
            Relative to the metal plane, Å, positive where the focus lies behind it.
        aberrations : mapping of str to float, optional
            Others by abTEM's symbols, Å and radians: ``{"C12": 20.0, "phi12": 0.3}``.
        subpixels : int
            Points along each side of a pixel; 1 makes the aperture of whole pixels, as abTEM does.

        Returns
        -------
        ndarray of complex128, shape (N, N)
        """
        steps = (np.arange(subpixels) + 0.5) / subpixels - 0.5
        kx, ky = ((self.index[:, i, None] + steps) / self.lengths[i] for i in range(2))
        alpha = self.wavelength * np.hypot(kx[:, :, None], ky[:, None, :]).reshape(len(self.index), -1)
        phi = np.arctan2(ky[:, None, :], kx[:, :, None]).reshape(alpha.shape)
        # the waves enter above the metal plane
        terms = {**(aberrations or {}), "C10": -(defocus + self.depth)}
        chi = 2.0 * np.pi / self.wavelength * _path_difference(alpha, phi, terms)
        amplitude = np.where(alpha <= 1e-3 * self.semiangle, np.exp(-1j * chi), 0.0)
        return np.asarray(amplitude @ amplitude.conj().T / subpixels**2)

    def fourier(self, correlation: NDArray[np.complex128]) -> tuple[NDArray[np.float64], NDArray[np.complex128]]:
        """Return the Fourier series of the images.

        Parameters
        ----------
        correlation : ndarray of complex128, shape (N, N)
            The probe, from `probe`.

        Returns
        -------
        frequencies : ndarray of float64, shape (K, 2)
            Q, 1/Å.
        coefficients : ndarray of complex128, shape (D, K)
            F, fraction of the beam.
        """
        span = 2 * int(np.abs(self.index).max()) + 1
        difference = (self.index[None, :] - self.index[:, None] + span) @ [2 * span + 1, 1]
        codes, which = np.unique(difference, return_inverse=True)
        weights = (correlation * self.gram).reshape(len(self.gram), -1) / np.trace(correlation).real
        coefficients = np.empty((len(self.gram), len(codes)), dtype=np.complex128)
        for row, weight in zip(coefficients, weights, strict=True):
            row.real, row.imag = (np.bincount(which.ravel(), part) for part in (weight.real, weight.imag))
        frequencies = np.stack(np.divmod(codes, 2 * span + 1), axis=-1) - span
        return frequencies / np.array(self.lengths), coefficients

    def intensities(self, positions: ArrayLike, correlation: NDArray[np.complex128]) -> NDArray[np.float64]:
        """Return what a probe scanned over some points sees.

        Parameters
        ----------
        positions : array_like, shape (P, 2)
            Å.
        correlation : ndarray of complex128, shape (N, N)
            The probe, from `probe`.

        Returns
        -------
        ndarray of float64, shape (P, D)
            Fraction of the beam on each detector.
        """
        frequencies, coefficients = self.fourier(correlation)
        waves = np.exp(2j * np.pi * (np.asarray(positions, dtype=np.float64) @ frequencies.T))
        return np.asarray((waves @ coefficients.T).real)


def scatter_beams(
    atoms: Any,
    energy: float,
    detectors: Sequence[Detector | str],
    *,
    semiangle: float | None = None,
    phonons: int = 16,
    thermal: tuple[float, float] = (THERMAL_METAL, THERMAL_CHALCOGEN),
    seed: int = 0,
    device: str = "cpu",
    progress: bool = False,
) -> Beams:
    """Send every plane wave of the aperture through a monolayer by multislice.

    Parameters
    ----------
    atoms : ase.Atoms
        As `contextem.simulate.structures.supercell` builds it: three planes in a cell of three slices.
    energy : float
        Beam energy, eV.
    detectors : sequence of Detector or str
        D detectors.
    semiangle : float, optional
        Semi-angle of convergence, mrad; by default that of `SEMIANGLES` for this energy.
    phonons : int
        Number of frozen-phonon configurations to average.
    thermal : (float, float)
        Root mean square displacement of metals and of chalcogens along one direction, Å.
    seed : int
        Of the displacements.
    device : {"cpu", "gpu"}
        Where the waves are propagated; "gpu" needs CuPy.
    progress : bool
        Whether to show a progress bar on a terminal.

    Returns
    -------
    Beams

    Raises
    ------
    ValueError
        If the energy has no default semi-angle and none is given, or the device is not there.

    Examples
    --------
    >>> from contextem.simulate.structures import supercell
    >>> atoms, _ = supercell("WSe2", None, (1, 1), np.random.default_rng(0))
    >>> beams = scatter_beams(atoms, 60e3, ["HAADF"], semiangle=20.0, phonons=1)
    >>> bool(np.allclose(beams.gram[0], beams.gram[0].conj().T))
    True
    """
    with needs_extra("simulate"):
        from abtem.core.energy import energy2wavelength

    beam = check_energy(energy)
    convergence = convergence_angle(beam, semiangle)
    xp, transform = array_module(device)
    wavelength = float(energy2wavelength(beam))
    lengths = (float(atoms.cell.lengths()[0]), float(atoms.cell.lengths()[1]))
    thickness = float(atoms.cell.lengths()[2]) / PLANES
    angles = [collection_angles(detector) for detector in detectors]
    outermost = max(outer for _, outer in angles)
    gpts = grid(lengths, wavelength, outermost, convergence)
    kx, ky = (fft.fftfreq(n, length / n) for n, length in zip(gpts, lengths, strict=True))
    k = np.hypot(kx[:, None], ky)
    propagator = np.exp(-1j * np.pi * wavelength * thickness * k**2)
    propagator = np.where(k * wavelength * 1e3 > REACH * (outermost + convergence), 0.0, propagator) / np.prod(gpts)
    pixel = wavelength * 1e3 / float(np.sqrt(np.prod(lengths)))
    shares = np.stack([ring_shares(k * wavelength * 1e3, pixel, *pair) for pair in angles]).reshape(len(angles), -1)
    seen = np.flatnonzero(shares.any(axis=0))
    amplitudes, pixels = xp.asarray(np.sqrt(shares[:, seen])), xp.asarray(seen)
    kernel = xp.asarray(propagator.astype(np.complex64))
    index = _beams_of(lengths, 1e-3 * convergence / wavelength)
    gram = np.zeros((len(angles), len(index), len(index)), dtype=np.complex128)
    planes = frozen_phonons(atoms, phonons, thermal, seed)
    for plane in tqdm(planes, total=phonons, desc="frozen phonons", disable=None if progress else True, leave=False):
        first, *later = (
            xp.asarray(transmission_function(symbols, xy, lengths, gpts, beam).astype(np.complex64))
            for symbols, xy in plane
        )
        exits = _exit_waves(first, later, kernel, index, pixels, xp, transform)
        for total, amplitude in zip(gram, amplitudes, strict=True):
            weighted = exits * amplitude
            product = weighted @ weighted.conj().T
            total += product if xp is np else xp.asnumpy(product)
    return Beams(lengths, wavelength, convergence, thickness, index, gram / phonons)


def _exit_waves(
    first: Any, later: Sequence[Any], propagator: Any, index: NDArray[np.int64], seen: Any, xp: Any, transform: Any
) -> Any:
    """Exit waves, (N, pixels seen), of the plane waves `index` (N, 2)."""
    reach = int(np.abs(index).max())
    rows, columns = first.shape
    # the spectrum of T exp(2 pi i k x) is that of T, shifted by k
    spectrum = xp.pad(transform.fft2(first) / np.float32(rows * columns), reach, mode="wrap")
    exits = xp.empty((len(index), len(seen)), dtype=np.complex64)
    # one wave at a time stays in the cache of a CPU; a GPU wants many
    batch = 1 if xp is np else 64
    for start in range(0, len(index), batch):
        corners = reach - index[start : start + batch]
        wave = xp.stack([spectrum[i : i + rows, j : j + columns] for i, j in corners.tolist()])
        for transmission in later:
            wave = transform.fft2(transform.ifft2(wave * propagator, norm="forward") * transmission)
        exits[start : start + batch] = wave.reshape(len(wave), -1)[:, seen]
    return exits


def frozen_phonons(
    atoms: Any, phonons: int, thermal: tuple[float, float], seed: int
) -> Iterator[list[tuple[list[str], NDArray[np.float64]]]]:
    """Displace the atoms of a monolayer at random, plane by plane.

    Parameters
    ----------
    atoms : ase.Atoms
        Three planes in a cell of three slices.
    phonons : int
        How often.
    thermal : (float, float)
        Root mean square displacement of metals and of chalcogens along one direction, Å.
    seed : int
        Of the displacements.

    Yields
    ------
    list of (list of str, ndarray of float64 of shape (N, 2))
        Elements and positions, Å, of each plane.
    """
    symbols = np.array(atoms.get_chemical_symbols())
    plane = np.minimum((atoms.positions[:, 2] / atoms.cell.lengths()[2] * PLANES).astype(int), PLANES - 1)
    rms = np.where(plane == PLANES // 2, *thermal)
    rng = np.random.default_rng(seed)
    for _ in range(phonons):
        xy = atoms.positions[:, :2] + rng.normal(size=(len(atoms), 2)) * rms[:, None]
        yield [(symbols[plane == i].tolist(), xy[plane == i]) for i in range(PLANES)]


def grid(lengths: Sequence[float], wavelength: float, outermost: float, semiangle: float) -> tuple[int, int]:
    """Return even numbers of grid points, fast to transform, that reach `NYQUIST` times the angles, mrad."""
    highest = NYQUIST * 1e-3 * (outermost + semiangle)
    return tuple(fast_even_size(2.0 * highest * length / wavelength) for length in lengths)  # type: ignore[return-value]


def convergence_angle(energy: float, semiangle: float | None) -> float:
    """Return the semi-angle of convergence, mrad: the given one, or that of `SEMIANGLES`."""
    if semiangle is not None:
        return semiangle
    if energy not in SEMIANGLES:
        raise ValueError(f"semiangle: give it in mrad, there is no default for {energy:g} eV")
    return SEMIANGLES[energy]


def array_module(device: str) -> tuple[Any, Any]:
    """Return the array module of a device and its Fourier transforms.

    Raises
    ------
    ValueError
        If the device is not known or not there.
    ModuleNotFoundError
        If CuPy is not installed.
    """
    if device == "cpu":
        return np, fft
    if device != "gpu":
        raise ValueError(f"device: expected cpu or gpu, got {device!r}")
    with needs_extra("cuda13"):
        import cupy

    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise ValueError("device: gpu needs an NVIDIA GPU and its driver, and one of them is missing here") from error
    if count == 0:
        raise ValueError("device: gpu needs an NVIDIA GPU, and there is none here")
    return cupy, cupy.fft


def _beams_of(lengths: Sequence[float], radius: float) -> NDArray[np.int64]:
    """Wave vectors whose pixels of reciprocal space touch the aperture of `radius`, 1/Å, in units of 1 / lengths."""
    reach = [int(radius * length) + 1 for length in lengths]
    grids = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij")
    index = np.stack(grids, axis=-1).reshape(-1, 2)
    nearest = np.maximum(np.abs(index) - 0.5, 0.0) / np.array(lengths)
    return np.asarray(index[np.hypot(*nearest.T) < radius])


def _path_difference(
    alpha: NDArray[np.float64], phi: NDArray[np.float64], terms: Mapping[str, float]
) -> NDArray[np.float64]:
    """Aberration function in Å: sum over C_nm of alpha^(n+1) C_nm cos(m (phi - phi_nm)) / (n + 1)."""
    total = np.zeros_like(alpha)
    for name, value in terms.items():
        if name.startswith("phi"):
            continue
        if not (known := re.fullmatch(r"C(\d)(\d)", name)):
            raise ValueError(f"aberrations: expected symbols such as C12 and phi12, got {name!r}")
        n, m = (int(digit) for digit in known.groups())
        total += value / (n + 1) * alpha ** (n + 1) * np.cos(m * (phi - terms.get(f"phi{n}{m}", 0.0)))
    return total
