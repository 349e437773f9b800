"""How one atomic column scatters the probe: transmission functions without aliasing, and the response of a column.

    T(x) = exp(i sigma V(x))                                       transmission function of a plane of atoms
    psi_0(x; p) = IFFT[ A(k) exp(-2 pi i k p) ]                    probe at p; A: aperture and phase of the defocus
    psi_j+1 = IFFT[ exp(-i pi lambda k^2 dz) FFT[ T_j psi_j ] ]    from one plane to the next
    I_b(p) = sum over k in ring b of |FFT[ T_last psi_last ]|^2    fraction of the beam on ring b of the detector

V is the sum of abTEM's projected scattering factors, each with the exact phase of its atom, on a grid of `FINEST`
spacing, at least four times finer than that of the waves; T, not V, is cropped to the coarser grid in Fourier space:
exp(i sigma V) of a heavy atom has structure far finer than the waves can use, which would fold back into the detector.

Multislice: Kirkland, "Advanced Computing in Electron Microscopy", https://doi.org/10.1007/978-3-030-33260-0.
Scattering factors: Lobato and Van Dyck, https://doi.org/10.1107/S205327331401643X.  abTEM: Madsen and Susi,
https://doi.org/10.12688/openreseurope.13015.2.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from contextem._extras import needs_extra

FINEST = 0.0125
"""Largest spacing of the grid on which exp(i sigma V) is formed, Å.

With twice this spacing a column of W varies by 4 % with its position between the grid points.
"""


def fast_even_size(minimum: float) -> int:
    """Return the smallest even number of at least `minimum` with no prime factor above 5.

    Parameters
    ----------
    minimum : float
        Number of grid points needed.

    Returns
    -------
    int

    Examples
    --------
    >>> fast_even_size(241.3)
    250
    """
    size = 2 * int(np.ceil(minimum / 2))
    while _largest_prime_factor(size) > 5:
        size += 2
    return size


def _largest_prime_factor(n: int) -> int:
    largest, p = 1, 2
    while n > 1:
        while n % p == 0:
            largest, n = p, n // p
        p += 1
    return largest


def transmission_function(
    symbols: Sequence[str], positions: ArrayLike, lengths: Sequence[float], gpts: Sequence[int], energy: float
) -> NDArray[np.complex128]:
    """Compute the transmission function of atoms projected on one plane, periodic in both directions.

    Parameters
    ----------
    symbols : sequence of str
        N elements.
    positions : array_like, shape (N, 2)
        Where the atoms are, Å.
    lengths : (float, float)
        Size of the cell, Å.
    gpts : (int, int)
        Even numbers of grid points of the waves.
    energy : float
        Beam energy, eV.

    Returns
    -------
    ndarray of complex128, shape gpts
        exp(i sigma V), band-limited to what the grid can hold.  Its modulus is not exactly 1 for that reason.

    Examples
    --------
    >>> t = transmission_function(["W"], [[4.0, 4.0]], (8.0, 8.0), (160, 160), energy=80e3)
    >>> bool(abs(t[80, 80] - t[0, 0]) > 0.5)
    True
    """
    with needs_extra("simulate"):
        from abtem.core.energy import energy2sigma
        from abtem.parametrizations import LobatoParametrization

    atoms = np.asarray(positions, dtype=np.float64).reshape(-1, 2)
    factors = [max(4, int(np.ceil(length / (n * FINEST)))) for n, length in zip(gpts, lengths, strict=True)]
    fine = [factor * n for factor, n in zip(factors, gpts, strict=True)]
    kx, ky = (fft.fftfreq(n, length / n) for n, length in zip(fine, lengths, strict=True))
    k_squared = kx[:, None] ** 2 + ky**2
    tables: Any = LobatoParametrization()
    potential = np.zeros(fine, dtype=np.complex128)
    for symbol in sorted(set(symbols)):
        x, y = atoms[[s == symbol for s in symbols]].T
        phases = np.exp(-2j * np.pi * np.outer(kx, x)) @ np.exp(-2j * np.pi * np.outer(y, ky))
        potential += tables.projected_scattering_factor(symbol)(k_squared) * phases
    pixel_area = np.prod(lengths) / np.prod(fine)
    phase = energy2sigma(energy) * fft.ifft2(potential, overwrite_x=True).real / pixel_area
    spectrum = fft.fft2(np.exp(1j * phase), overwrite_x=True)
    half = [n // 2 for n in gpts]
    # the Nyquist row and column are left at 0: they have no partner of opposite sign on an even grid
    cropped = np.zeros(tuple(gpts), dtype=np.complex128)
    for rows in (slice(0, half[0]), slice(1 - half[0], None)):
        for columns in (slice(0, half[1]), slice(1 - half[1], None)):
            cropped[rows, columns] = spectrum[rows, columns]
    return np.asarray(fft.ifft2(cropped, overwrite_x=True) / np.prod(factors))


class ColumnScan:
    """Scans a probe over atoms in the middle of a square box, ring by ring of the detector.

    Parameters
    ----------
    energy : float
        Beam energy, eV.
    semiangle : float
        Semi-angle of convergence, mrad.
    edges : sequence of float
        B + 1 ascending edges of the B detector rings, mrad.
    """

    def __init__(self, energy: float, semiangle: float, edges: Sequence[float]) -> None:
        with needs_extra("simulate"):
            from abtem.core.energy import energy2wavelength

        self.energy, self.semiangle = energy, semiangle
        self.edges = np.asarray(edges, dtype=np.float64)
        self.wavelength = float(energy2wavelength(energy))
        self.length = length = fair_length(1e-3 * semiangle / self.wavelength)
        # products T psi reach max angle + semi-angle beyond the grid before they fold back onto the detector
        highest = (self.edges[-1] + semiangle + 2.0) * 1e-3
        self.gpts = fast_even_size(2.0 * highest * length / self.wavelength)
        self.frequencies = fft.fftfreq(self.gpts, length / self.gpts)
        self.k_squared = self.frequencies[:, None] ** 2 + self.frequencies**2
        self._spectra: dict[str, NDArray[np.complex128]] = {}

    @property
    def cutoff(self) -> float:
        """Highest spatial frequency of an image, 1/Å: the diameter of the aperture."""
        return 2e-3 * self.semiangle / self.wavelength

    @cached_property
    def rings(self) -> NDArray[np.float32]:
        """Share of each pixel of the diffraction pattern in each ring, (gpts^2, B)."""
        angles = np.sqrt(self.k_squared) * self.wavelength * 1e3
        pixel = self.wavelength * 1e3 / self.length
        return np.column_stack([ring_shares(angles, pixel, *pair).ravel() for pair in itertools.pairwise(self.edges)])

    def probes(self, positions: NDArray[np.float64], defocus: float) -> NDArray[np.complex64]:
        """Return probes at `positions` (P, 2), Å from the middle of the box, each of total intensity 1: (P, n, n)."""
        with needs_extra("simulate"):
            import abtem

        probe = abtem.Probe(
            energy=self.energy,
            semiangle_cutoff=self.semiangle,
            soft=False,
            defocus=defocus,
            extent=self.length,
            gpts=self.gpts,
        )
        aperture = fft.fft2(np.squeeze(probe.build(scan=(0.0, 0.0), lazy=False).array).astype(np.complex128))
        aperture *= self.gpts / np.sqrt((np.abs(aperture) ** 2).sum())
        ramps = np.exp(-2j * np.pi * (positions[:, :, None] + self.length / 2) * self.frequencies)
        waves = (aperture * ramps[:, 0, :, None] * ramps[:, 1, None, :]).astype(np.complex64)
        return np.asarray(fft.ifft2(waves, overwrite_x=True))

    def transmission(self, symbol: str, position: Sequence[float]) -> NDArray[np.complex64]:
        """Transmission function of one atom at `position`, Å from the middle of the box."""
        if symbol not in self._spectra:
            lengths, gpts = (self.length,) * 2, (self.gpts,) * 2
            centred = transmission_function([symbol], [[self.length / 2] * 2], lengths, gpts, self.energy)
            self._spectra[symbol] = fft.fft2(centred)
        # to move a single atom is to move all of exp(i sigma V)
        x, y = (np.exp(-2j * np.pi * self.frequencies * shift) for shift in position)
        return np.asarray(fft.ifft2(self._spectra[symbol] * np.outer(x, y)).astype(np.complex64))

    def aperture(self) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
        """Pixels of the spectrum inside the aperture: index (K, 2), distance in units of its radius, azimuth (K,)."""
        index = np.argwhere(np.sqrt(self.k_squared) * self.wavelength * 1e3 < self.semiangle)
        kx, ky = self.frequencies[index].T
        return index, np.hypot(kx, ky) * self.wavelength * 1e3 / self.semiangle, np.arctan2(ky, kx)

    def coherence(
        self,
        amplitudes: NDArray[np.complex128],
        planes: Sequence[NDArray[np.complex64]],
        distance: float = 0.0,
    ) -> NDArray[np.complex64]:
        """Mutual coherence on each ring of what W waves become that are given by their spectra inside the aperture.

        The wave that is not scattered is left out: it stays inside the aperture, where no ring is.

        Parameters
        ----------
        amplitudes : ndarray, shape (W, K)
            At the pixels of `aperture`.
        planes : sequence of ndarray, shape (n, n)
            Transmission functions.
        distance : float
            Of the planes, Å.

        Returns
        -------
        ndarray of complex64, shape (B, W, W)
            Integral over the ring of S_i conj(S_j), Å^2.
        """
        index, _, _ = self.aperture()
        # the atoms stand in the middle of the box
        centred = amplitudes * (1 - 2 * (index.sum(axis=1) % 2))
        chosen = self.rings.any(axis=1)
        propagator = self.propagator(distance)
        scattered = np.empty((len(amplitudes), int(chosen.sum())), dtype=np.complex64)
        for i, amplitude in enumerate(centred):
            spectrum = np.zeros((self.gpts, self.gpts), dtype=np.complex64)
            spectrum[tuple(index.T)] = amplitude
            wave = fft.fft2(fft.ifft2(spectrum) * planes[0], overwrite_x=True)
            for plane in planes[1:]:
                wave = fft.fft2(fft.ifft2(wave * propagator, overwrite_x=True) * plane, overwrite_x=True)
                spectrum *= propagator
            scattered[i] = (wave - spectrum).ravel()[chosen]
        products = scattered[:, None] * scattered[None].conj()
        # from the sum over pixels of the box to the integral over the detector
        return np.asarray(np.moveaxis(products @ self.rings[chosen], -1, 0) * np.float32(self.length**2))

    def propagator(self, distance: float) -> NDArray[np.complex64]:
        """Take spectra over a distance, Å; angles that no detector sees are lost."""
        beyond = np.sqrt(self.k_squared) * self.wavelength * 1e3 > self.edges[-1] + 5.0
        phase = np.exp(-1j * np.pi * self.wavelength * self.k_squared * distance)
        return np.asarray(np.where(beyond, 0.0, phase), dtype=np.complex64)

    def detect(
        self, probes: NDArray[np.complex64], planes: Sequence[NDArray[np.complex64]], distance: float = 0.0
    ) -> NDArray[np.float64]:
        """Send probes (P, n, n) through planes `distance` Å apart; fraction of the beam on each ring, (P, B)."""
        propagator = self.propagator(distance)
        detected = np.empty((len(probes), len(self.edges) - 1))
        # a batch of one wave stays in the cache
        for i, probe in enumerate(probes):
            wave = fft.fft2(probe * planes[0], overwrite_x=True)
            for plane in planes[1:]:
                wave = fft.fft2(fft.ifft2(wave * propagator, overwrite_x=True) * plane, overwrite_x=True)
            intensity = wave.real**2 + wave.imag**2
            detected[i] = intensity.reshape(-1) @ self.rings
        return detected / self.gpts**2


def fair_length(radius: float) -> float:
    """Return the side of a box, 16 Å or little more, whose pixels fill an aperture to its exact area.

    The peak of a probe is proportional to the area of the aperture.  Counting whole pixels of any box errs by one or
    two percent, and an aperture with a tapered edge by three, since it is the amplitude that is tapered.

    Parameters
    ----------
    radius : float
        Of the aperture, 1/Å.

    Returns
    -------
    float
        Å.

    Examples
    --------
    >>> length = fair_length(0.72)
    >>> 16.0 <= length < 17.0
    True
    """
    index = np.arange(-int(20 * radius), int(20 * radius) + 1)
    squares = index[:, None] ** 2 + index**2
    lengths = np.arange(16.0, 17.0, 0.005)
    areas = np.pi * (radius * lengths) ** 2
    counts = np.array([(squares < (radius * length) ** 2).sum() for length in lengths])
    return float(lengths[np.argmax(np.abs(counts / areas - 1.0) < 1e-3)])


def ring_shares(angles: NDArray[np.float64], pixel: float, inner: float, outer: float) -> NDArray[np.float32]:
    """Return which share of each pixel of a diffraction pattern an annular detector sees.

    Whole pixels would do for a large cell; in a small one they are so wide that the inner angle would be off by a mrad.

    Parameters
    ----------
    angles : ndarray
        Scattering angle at the middle of each pixel, mrad.
    pixel : float
        Width of a pixel, mrad.
    inner, outer : float
        Collection angles, mrad.

    Returns
    -------
    ndarray of float32, shape of angles
        0 to 1.

    Examples
    --------
    >>> ring_shares(np.array([10.0, 20.0, 21.0, 30.0]), 4.0, 20.0, 40.0).tolist()
    [0.0, 0.5, 0.75, 1.0]
    """
    within_inner, within_outer = (np.clip((edge - angles) / pixel + 0.5, 0.0, 1.0) for edge in (inner, outer))
    return (within_outer - within_inner).astype(np.float32)


def thermal_separations(rms: float, radii: int, angles: int = 3) -> NDArray[np.float64]:
    """Quadrature nodes for the separation of two atoms that vibrate independently.

    Parameters
    ----------
    rms : float
        Root mean square displacement of one atom along one direction, Å.
    radii, angles : int
        Number of nodes: Gauss-Laguerre in the squared distance, equidistant in angle.

    Returns
    -------
    ndarray of float64, shape (radii * angles, 3)
        Separation (x, y) in Å and weight; the weights add to 1.

    Examples
    --------
    >>> nodes = thermal_separations(0.1, 4)
    >>> round(float(nodes[:, 2] @ nodes[:, 0] ** 2), 6)
    0.02
    """
    squared, weights = np.polynomial.laguerre.laggauss(radii)
    # the separation has twice the variance of one atom
    radius = 2.0 * rms * np.sqrt(squared)
    turn = 2.0 * np.pi / angles * (np.arange(angles) + 0.5 * (np.arange(radii) % 2)[:, None])
    shares = np.repeat(weights[:, None] / angles, angles, axis=1)
    return np.stack([radius[:, None] * np.cos(turn), radius[:, None] * np.sin(turn), shares], axis=-1).reshape(-1, 3)
