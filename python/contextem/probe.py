"""The image that any probe makes of a column, from the mutual coherence of the waves that the column scatters.

    M(k, k') = sum over q on the detector of S_k(q) conj(S_k'(q))            S_k: what a plane wave k becomes
             = sum_mnn' C^m_nn' Z_n^m(k) conj(Z_n'^m(k'))                    on the disk of the aperture, of radius k0
    R(Q) = (pi k0^2)^-1 integral A(k-Q) conj(A(k)) M(k-Q, k) d2k,    A(k) = aperture * exp(-i chi(k))
    chi = 2 pi / wavelength (a^2/2 (A1 cos 2(phi - phi_A) - C1) + a^3/3 B cos(phi - phi_B) + a^4/4 C3)

with ``a = wavelength |k|``.  The image is I(p) = integral R(Q) exp(2 pi i Q p) d2Q.  M does not depend on the probe,
and it is smooth: a few Zernike polynomials (orthonormal on the unit disk) hold it, and a column that looks alike from
all sides couples only those of one angular order m, -m like m.  C is a Hermitian matrix for each m; its eigenvectors
are coherent modes, so that R is a sum of autocorrelations, taken by FFT on a grid over the aperture of means over its
pixels.  R is kept as coefficients of
``kappa^min(|m|, 2) (1 - kappa) T_c(2 kappa - 1) exp(i m theta), kappa = |Q| / 2 k0``.

Mutual coherence: Rodenburg and Bates, https://doi.org/10.1098/rsta.1992.0050.  Signs are those of abTEM: Madsen and
Susi, https://doi.org/10.12688/openreseurope.13015.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy import fft
from scipy.special import eval_jacobi, j0, jv

ORDER = 10
"""Highest radial order of the Zernike polynomials."""

COEFFICIENTS = 16
"""Chebyshev coefficients of R, for each angular order."""

HARMONICS = 12
"""Highest angular order of R."""

PIXELS = 32
"""Pixels across the aperture."""

POINTS = 4
"""Points along each side of such a pixel at which the phase is evaluated."""

ROUND_REACH = 9.0
"""Distance to which the image of a round probe is fitted, in units of 1/k0."""

WEAKEST = 1e-4
"""Share of the detected intensity below which a coherent mode is left out."""


@dataclass(frozen=True)
class Aberrations:
    """Geometric aberrations of the probe, with the signs of `abtem.Probe`.

    Angles are counted from the direction of the rows' index (down the image) towards that of the columns' index.

    Attributes
    ----------
    defocus : float
        C1, Å; positive where the focus lies behind the atoms (abTEM's ``defocus``, -C10).
    astigmatism, astigmatism_angle : float
        Two-fold astigmatism A1, Å, and its direction, radians (C12, phi12).
    coma, coma_angle : float
        Coma, Å, and its direction, radians (C21, phi21; three times the B2 of other authors).
    spherical : float
        C3, Å (C30).

    Examples
    --------
    >>> Aberrations(defocus=20.0).round, Aberrations(astigmatism=5.0).round
    (True, False)
    """

    defocus: float = 0.0
    astigmatism: float = 0.0
    astigmatism_angle: float = 0.0
    coma: float = 0.0
    coma_angle: float = 0.0
    spherical: float = 0.0

    @property
    def round(self) -> bool:
        """Whether the probe has rotational symmetry."""
        return self.astigmatism == 0.0 and self.coma == 0.0

    @property
    def symbols(self) -> dict[str, float]:
        """All but the defocus, by abTEM's symbols."""
        return {
            "C12": self.astigmatism,
            "phi12": self.astigmatism_angle,
            "C21": self.coma,
            "phi21": self.coma_angle,
            "C30": self.spherical,
        }

    def turned(self, angle: float) -> Aberrations:
        """Return them as seen from axes that are turned by an angle, radians.

        Examples
        --------
        >>> Aberrations(coma=300.0, coma_angle=1.5).turned(1.0).coma_angle
        0.5
        """
        return replace(self, astigmatism_angle=self.astigmatism_angle - angle, coma_angle=self.coma_angle - angle)

    def reach(self, semiangle: float) -> float:
        """Return how far the outermost rays may miss the focus, Å, for a semi-angle in mrad.

        Examples
        --------
        >>> round(Aberrations(defocus=-40.0, coma=300.0).reach(30.0), 2)
        1.47
        """
        a = 1e-3 * semiangle
        return a * (abs(self.defocus) + abs(self.astigmatism)) + a**2 * abs(self.coma) + a**3 * abs(self.spherical)

    def shift(self, semiangle: float) -> NDArray[np.float64]:
        """Return where coma moves the peak of the probe, (row, column) in Å, for a semi-angle in mrad.

        It is the tilt that leaves the least variance of the phase over the aperture.

        Examples
        --------
        >>> Aberrations(coma=300.0).shift(30.0).round(3).tolist()
        [0.06, 0.0]
        """
        direction = np.array([np.cos(self.coma_angle), np.sin(self.coma_angle)])
        return 2.0 / 9.0 * self.coma * (1e-3 * semiangle) ** 2 * direction

    def phase(self, angle: NDArray[Any], azimuth: NDArray[Any], wavelength: float) -> NDArray[Any]:
        """Return chi, radians, at polar angles and azimuths, radians, for a wavelength, Å.

        Parameters
        ----------
        angle, azimuth : ndarray
            Radians.
        wavelength : float
            Å.

        Returns
        -------
        ndarray
            Radians.

        Examples
        --------
        >>> edge = np.array([0.03])
        >>> Aberrations(defocus=-20.0).phase(edge, edge, 0.0418).round(2).tolist()
        [1.35]
        """
        twofold = self.astigmatism * np.cos(2.0 * (azimuth - self.astigmatism_angle)) - self.defocus
        comatic = self.coma * np.cos(azimuth - self.coma_angle)
        path = angle**2 / 2.0 * twofold + angle**3 / 3.0 * comatic + angle**4 / 4.0 * self.spherical
        return np.asarray(2.0 * np.pi / wavelength * path)


FOCUSED = Aberrations()
"""No aberrations."""


def radial_modes(m: int, rho: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the radial parts of the Zernike polynomials of angular order m, orthonormal on the unit disk.

    Parameters
    ----------
    m : int
        0 to `ORDER`.
    rho : ndarray
        Distance from the middle of the aperture, in units of its radius.

    Returns
    -------
    ndarray of float64, shape (n,) + rho.shape
        For the radial orders m, m + 2, ...

    Examples
    --------
    >>> radial_modes(0, np.array([0.0, 1.0]))[1].round(3).tolist()
    [-1.732, 1.732]
    """
    return np.array(
        [np.sqrt(n + 1.0) * rho**m * eval_jacobi((n - m) // 2, 0, m, 2.0 * rho**2 - 1.0) for n in orders(m)]
    )


def orders(m: int) -> range:
    """Radial orders that go with the angular order m."""
    return range(m, ORDER + 1, 2)


@cache
def blocks() -> tuple[tuple[int, slice], ...]:
    """List each angular order m and where its matrix lies among the packed numbers of a coherence."""
    stops = np.cumsum([0, *(len(orders(m)) ** 2 for m in range(ORDER + 1))])
    return tuple((m, slice(int(stops[m]), int(stops[m + 1]))) for m in range(ORDER + 1))


def pack(matrices: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Write Hermitian matrices as as many real numbers: real parts on and above the diagonal, imaginary parts below.

    Parameters
    ----------
    matrices : sequence of ndarray, shape (..., n, n)
        For m = 0 to `ORDER`.

    Returns
    -------
    ndarray, shape (..., K)

    Examples
    --------
    >>> pack([np.array([[1.0, 2.0 + 3.0j], [2.0 - 3.0j, 4.0]])]).tolist()
    [1.0, 2.0, -3.0, 4.0]
    """
    numbers = [np.where(np.tri(m.shape[-1]).T > 0.0, m.real, m.imag).reshape(*m.shape[:-2], -1) for m in matrices]
    return np.concatenate(numbers, axis=-1)


def unpack(packed: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return the matrices that `pack` wrote, (O + 1, n, n), those of higher m filled up with zeros to the same size."""
    real, imaginary = np.append(packed, 0.0)[_places()]
    return np.asarray(real + 1j * (np.tril(imaginary, -1) - np.triu(imaginary, 1)))


@cache
def _places() -> NDArray[np.intp]:
    """Which packed number is the real and which the imaginary part of each element, (2, O + 1, n, n); K for 0."""
    most, last = len(orders(0)), blocks()[-1][1].stop
    places = np.full((2, ORDER + 1, most, most), last)
    for m, where in blocks():
        count = len(orders(m))
        number = np.arange(where.start, where.stop).reshape(count, count)
        upper = np.tri(count).T > 0.0
        places[0, m, :count, :count] = np.where(upper, number, number.T)
        places[1, m, :count, :count] = np.where(upper, number.T, number)
    return places


def expansion(kappa: NDArray[np.float64], count: int = COEFFICIENTS) -> NDArray[np.float64]:
    """Return the radial functions of the expansion of R at k/cutoff = kappa (...,), as (..., count); 0 beyond 1."""
    inside = np.clip(kappa, 0.0, 1.0)
    polynomials = chebvander(2.0 * inside - 1.0, count - 1).reshape(*inside.shape, count)
    return np.asarray(polynomials * (1.0 - inside)[..., None])


def rise(m: int, kappa: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the factor that the angular order m of R has besides: it vanishes at k = 0."""
    return np.asarray(kappa ** min(m, 2))


def round_transfer(phase: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return what takes the packed numbers of a coherence to the coefficients of R, for a round probe.

    The waves of the Zernike polynomials are Hankel transforms; the coefficients are fitted to the image that they make.

    Parameters
    ----------
    phase : callable
        chi, radians, at distances from the middle of the aperture in units of its radius.

    Returns
    -------
    ndarray of float64, shape (C, K)
    """
    rho, weight, bessel, fit = _round_tables()
    aperture = 2.0 * weight * rho * np.exp(-1j * phase(rho))
    columns = []
    for m, _ in blocks():
        waves = (radial_modes(m, rho) * aperture) @ bessel[m]
        count = len(waves)
        products = waves[:, None] * waves[None].conj()
        # two polynomials stand for their exchange too
        twice = 2.0 - np.eye(count)[..., None]
        images = twice * np.where(np.tri(count).T[..., None] > 0.0, products.real, products.imag.swapaxes(0, 1))
        # the last equation is that of R(0)
        equations = np.concatenate([images, np.eye(count)[..., None]], axis=-1).reshape(count**2, -1)
        columns.append((1.0 if m == 0 else 2.0) * equations @ fit.T)
    return np.concatenate(columns).T


@cache
def _round_tables() -> tuple[NDArray[np.float64], ...]:
    """Nodes and weights over the radius, Bessel functions (m, nodes, points), fit (C, points + 1) to the image."""
    node, weight = leggauss(64)
    rho, weight = 0.5 * (node + 1.0), 0.5 * weight
    points = np.linspace(0.0, ROUND_REACH, 160)
    bessel = np.array([jv(m, 2.0 * np.pi * np.outer(rho, points)) for m in range(ORDER + 1)])
    node, weights = leggauss(200)
    kappa, share = 0.5 * (node + 1.0), 0.5 * weights
    # in units of the radius of the aperture, of which the cutoff is two
    hankel = 8.0 * np.pi * j0(4.0 * np.pi * np.outer(points, kappa)) * (share * kappa) @ expansion(kappa)
    # the image is sum_c coefficient_c * hankel_c; pi is the area of the disk
    design = np.concatenate([hankel / np.pi, expansion(np.zeros(1))])
    return rho, weight, bessel, np.linalg.pinv(design)


@dataclass(frozen=True)
class ApertureGrid:
    """The pixels of the aperture, and what is computed on them once.

    Attributes
    ----------
    rho, azimuth : ndarray of float32, shape (P, s, P, s)
        Of the points in each pixel: distance from the middle in units of the radius; direction, radians.
    share : ndarray of float32, shape (P, s, P, s)
        Of what surrounds each point: inside the aperture, of the area of the pixel.
    modes : ndarray of complex64, shape (O + 1, n, P^2)
        Zernike polynomials of each m, mean over the inner part of each pixel; 0 where m has fewer than n.
    projection : ndarray of float32, shape ((2 H + 1) C, 4 P^2)
        Takes the squared modulus of Fourier transforms to the coefficients of R: those of the angular order 0, the real
        parts of the others and their imaginary parts.
    level : ndarray of float64, shape (2 H + 1, C)
        What R(0) adds to the coefficients.
    """

    rho: NDArray[np.float32]
    azimuth: NDArray[np.float32]
    share: NDArray[np.float32]
    modes: NDArray[np.complex64]
    projection: NDArray[np.float32]
    level: NDArray[np.float64]

    def probe(self, phase: NDArray[Any]) -> NDArray[np.complex64]:
        """Mean of the aperture function over each pixel, (P^2,), from chi at the points."""
        # a mean of products with cosine and sine is faster than one of exponentials
        parts = [(self.share * f(phase)).sum(axis=(1, 3)) for f in (np.cos, np.sin)]
        return np.asarray(parts[0] - 1j * parts[1], dtype=np.complex64).ravel()


@cache
def aperture_grid() -> ApertureGrid:
    """Return the grid over the aperture.

    Returns
    -------
    ApertureGrid
    """
    points, parts = PIXELS * POINTS, 8
    centre = (np.arange(points) + 0.5) * (2.0 / points) - 1.0
    x, y = np.meshgrid(centre, centre, indexing="ij")
    fine = (np.arange(parts * points) + 0.5) * (2.0 / (parts * points)) - 1.0
    inside = (fine[:, None] ** 2 + fine**2 < 1.0).astype(np.float64)
    share = inside.reshape(points, parts, points, parts).mean(axis=(1, 3)) / POINTS**2
    rho, azimuth = np.hypot(x, y), np.arctan2(y, x)
    split = (PIXELS, POINTS, PIXELS, POINTS)
    total = share.reshape(split).sum(axis=(1, 3))
    modes = np.zeros((ORDER + 1, len(orders(0)), PIXELS**2), dtype=np.complex64)
    for m, _ in blocks():
        weighted = radial_modes(m, np.minimum(rho, 1.0)) * np.exp(1j * m * azimuth) * share
        sums = weighted.reshape(-1, *split).sum(axis=(2, 4))
        modes[m, : len(sums)] = (sums / np.maximum(total, 1e-12)).reshape(len(sums), -1)
    projection, level = _projection(total)
    rho, azimuth, share = (array.reshape(split).astype(np.float32) for array in (rho, azimuth, share))
    return ApertureGrid(rho, azimuth, share, modes, projection, level)


def _projection(share: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    size, pixel = 2 * PIXELS, 2.0 / PIXELS
    x, y = np.meshgrid(*(fft.fftfreq(size, 1.0 / size) * pixel,) * 2, indexing="ij")
    distance = np.hypot(x, y)
    # the means over pixels damp the waves far from the column
    damping = np.sinc(fft.fftfreq(size)) ** 2
    damping = damping[:, None] * damping
    # at Q = 0 pixels at the rim count by the square of their share: the overlap of two disks is put right
    counted = fft.ifft2(np.abs(fft.fft2(share, (size, size))) ** 2 / damping).real * pixel**2
    half = np.clip(distance / 2.0, 0.0, 1.0)
    overlap = 2.0 * np.arccos(half) - 2.0 * half * np.sqrt(1.0 - half**2)
    known = (half < 1.0) & (counted > 1e-2 * counted.max())
    kappa, theta = half[known], np.arctan2(y, x)[known]
    # at Q = 0 the sum of the diagonal of the coherence is exact
    exact = len(kappa)
    kappa, theta = np.append(kappa, 0.0), np.append(theta, 0.0)
    weight = np.append(np.ones(exact), 20.0)
    radial = expansion(kappa)
    order = np.array([0, *range(1, HARMONICS + 1), *range(1, HARMONICS + 1)])
    even = order % 2 == 0
    rises = 2.0 * np.array([rise(m, kappa) for m in range(1, HARMONICS + 1)])
    cosines, sines = (rises * f(order[1 : HARMONICS + 1, None] * theta) for f in (np.cos, np.sin))
    # R(-Q) = conj(R(Q)): even orders make its real part, odd ones its imaginary part
    angular = np.concatenate([np.ones((1, len(kappa))), cosines, -sines])
    angular[~even] = np.concatenate([sines, cosines])[~even[1:]]
    rows = np.zeros((len(order), COEFFICIENTS, len(kappa)), dtype=np.complex128)
    for chosen, part in ((even, 1.0), (~even, -1.0j)):
        design = (angular[chosen, None] * radial.T).reshape(-1, len(kappa)) * weight
        rows[chosen] = part * (weight * np.linalg.pinv(design, rcond=1e-8).T).reshape(-1, COEFFICIENTS, len(kappa))
    weighted = np.zeros((*rows.shape[:2], size, size), dtype=np.complex128)
    weighted[..., known] = rows[..., :exact] * (overlap[known] / counted[known] * pixel**2 / np.pi)
    projection = (fft.fft2(weighted) / size**2).real / damping
    return projection.reshape(-1, size**2).astype(np.float32), rows[..., exact].real.copy()


def general_transfer(coherence: NDArray[np.float64], probe: NDArray[np.complex64]) -> NDArray[np.complex128]:
    """Return the coefficients of R for any probe.

    Parameters
    ----------
    coherence : ndarray, shape (K,)
        Packed numbers of a coherence, Å^2.
    probe : ndarray, shape (P^2,)
        From `ApertureGrid.probe`.

    Returns
    -------
    ndarray of complex128, shape (H + 1, C)
        For the angular orders 0 to `HARMONICS`, Å^2.
    """
    grid, size = aperture_grid(), 2 * PIXELS
    values, vectors = np.linalg.eigh(unpack(coherence))
    total = 2.0 * values.sum() - values[0].sum()
    amplitudes = (vectors * np.sqrt(np.maximum(values, 0.0))[:, None]).swapaxes(1, 2).astype(np.complex64)
    strong = values > WEAKEST * total
    # the same for -m
    fields = [(amplitudes @ grid.modes)[strong], (amplitudes[1:] @ grid.modes[1:].conj())[strong[1:]]]
    waves = (np.concatenate(fields) * probe).reshape(-1, PIXELS, PIXELS)
    images = fft.fft(fft.fft(waves, size, axis=2), size, axis=1, overwrite_x=True)
    image = (images.real**2 + images.imag**2).sum(axis=0)
    found = (grid.projection @ image.ravel()).reshape(-1, COEFFICIENTS).astype(np.float64)
    found += total * grid.level
    return np.asarray(
        found[: HARMONICS + 1] + 1j * np.concatenate([np.zeros((1, COEFFICIENTS)), found[HARMONICS + 1 :]])
    )
