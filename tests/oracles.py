"""Independent formulas that the implementation is checked against; nothing here imports contextem."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import factorial

import numpy as np
from scipy import integrate, ndimage


def radial_coefficients(n: int, m: int) -> dict[int, Fraction]:
    """Exact coefficients {power: value} of R_n^m from the factorial sum, in rational numbers."""
    return {
        n - 2 * k: Fraction(
            (-1) ** k * factorial(n - k), factorial(k) * factorial((n + m) // 2 - k) * factorial((n - m) // 2 - k)
        )
        for k in range((n - m) // 2 + 1)
    }


def radial(n: int, m: int, rho: Fraction) -> float:
    """R_n^m(rho), exact until the last rounding."""
    return float(sum(value * rho**power for power, value in radial_coefficients(n, m).items()))


def zernike(n: int, m: int, x: Fraction, y: Fraction) -> float:
    """Z_nm(x, y) from exact arithmetic in x and y; only the norm is rounded.

    rho^|m| cos(m theta) and rho^|m| sin(|m| theta) are real and imaginary part of (x + i y)^|m|, and
    R_n^m / rho^m is a polynomial in rho^2.
    """
    order = abs(m)
    real, imaginary = Fraction(1), Fraction(0)
    for _ in range(order):
        real, imaginary = real * x - imaginary * y, real * y + imaginary * x
    square = x * x + y * y
    rest = sum(value * square ** ((power - order) // 2) for power, value in radial_coefficients(n, order).items())
    angular = real if m >= 0 else imaginary
    return float(rest * angular) * np.sqrt(2 * (n + 1) / (2 if m == 0 else 1))


def zernike_polar(n: int, m: int, rho: float, theta: float) -> float:
    """Z_nm in polar coordinates, by the factorial sum in floating point: for low degrees."""
    value = sum(float(c) * rho**power for power, c in radial_coefficients(n, abs(m)).items())
    angular = np.cos(m * theta) if m >= 0 else np.sin(-m * theta)
    return value * angular * np.sqrt(2 * (n + 1) / (2 if m == 0 else 1))


def pixel_integral(n: int, m: int, size: int, row: int, column: int) -> float:
    """Adaptive quadrature of Z_nm over a pixel's share of the unit disk, over pi."""
    x0, x1 = (2 * column - size) / size, (2 * column + 2 - size) / size
    y0, y1 = (2 * row - size) / size, (2 * row + 2 - size) / size

    def along_row(y: float) -> float:
        reach = np.sqrt(max(0.0, 1 - y * y))
        low, high = max(x0, -reach), min(x1, reach)
        if low >= high:
            return 0.0
        return integrate.quad(lambda x: zernike_polar(n, m, np.hypot(x, y), np.arctan2(y, x)), low, high, epsabs=1e-12)[
            0
        ]

    corners = sorted(
        {
            s * v
            for edge in (x0, x1)
            if abs(edge) < 1
            for s in (-1, 1)
            for v in [np.sqrt(1 - edge * edge)]
            if y0 < s * v < y1
        }
    )
    bounds = [y0, *corners, y1]
    return sum(integrate.quad(along_row, a, b, epsabs=1e-12)[0] for a, b in pairwise(bounds)) / np.pi


def interpolated_patches(image, positions, size: int, scale, interpolation: str):
    """Patches by scipy's interpolation: order 1 or 0 in double, zero outside."""
    offset = np.arange(size) - (size - 1) / 2
    grid = np.stack(np.meshgrid(offset, offset, indexing="ij"))
    matrix = np.asarray(scale, float) if np.ndim(scale) == 2 else float(scale) * np.eye(2)
    shift = np.tensordot(matrix, grid, axes=1)
    image = np.asarray(image, np.float64)
    patches = []
    for position in np.asarray(positions, float):
        where = position[:, None, None] + shift
        if interpolation == "nearest":
            inside = ((where >= 0) & (where <= np.array(image.shape)[:, None, None] - 1)).all(axis=0)
            where = np.where(inside, np.floor(where + 0.5), -1)
        patches.append(ndimage.map_coordinates(image, where, order=1, mode="constant", cval=0.0))
    return np.array(patches).reshape(-1, size, size)


def mahotas_modulus(moduli, n, order, size: int, total: float):
    """From |c_nm| of the projection convention to the values of mahotas.features.zernike_moments.

    mahotas has (n + 1) / pi |sum f R e^(-i m theta)| with f scaled to sum 1 over the disk; the projection convention
    has sqrt(2 (n + 1) / (1 + [m = 0])) / (pi P^2 / 4) |sum I R e^(-i m theta)|.
    """
    norm = np.sqrt(2 * (n + 1) / np.where(order == 0, 2, 1)) / (np.pi * size**2 / 4)
    return (n + 1) / np.pi * np.abs(moduli) / norm / total


def smooth_field(seed: int, waves: int = 12):
    """Return a smooth function f(x, y) on the unit disk: a sum of plane waves of up to 1.5 periods across it."""
    rng = np.random.default_rng(seed)
    k = rng.uniform(-4.7, 4.7, (waves, 2))
    phase, amplitude = rng.uniform(0, 2 * np.pi, waves), rng.normal(size=waves)

    def field(x, y):
        return sum(a * np.cos(kx * x + ky * y + p) for a, (kx, ky), p in zip(amplitude, k, phase, strict=True))

    return field
