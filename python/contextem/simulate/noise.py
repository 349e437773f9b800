"""Noise of a micrograph: smooth fields of contamination and drift, and the counting of electrons.

    n = floor( l + sqrt(l) w + 1/3 + w^2/6 - (w/36 + w^3/72) / sqrt(l) + (-8/405 + 7 w^2/810 + w^4/270) / l )

turns a standard normal w into a Poisson number of mean l: the expansion of the inverse distribution function, whose
error falls as l^(-3/2).  From a mean of `EXPANDED` on, its distribution function is nowhere off by more than 5e-5, and
mean, variance and skewness are those of the Poisson distribution to relative 1e-5, 2e-4 and 5e-4.

Giles, "Algorithm 955: approximation of the inverse Poisson cumulative distribution function",
https://doi.org/10.1145/2699466.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

EXPANDED = 12.0
"""Mean from which Poisson numbers are drawn by the expansion."""

BAND = 0.84
"""Highest frequency of a field smoothed by a Gaussian of 1 px, 1/px: its amplitude is 1e-6 there."""


def poisson(mean: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw Poisson numbers: exactly where few are expected, by the expansion in the module's head where many are.

    Parameters
    ----------
    mean : ndarray of float32
        Not negative.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray of float32, shape of mean
        Whole numbers; above 2^24 those that float32 can hold.

    Examples
    --------
    >>> counts = poisson(np.full((200, 200), 50.0, np.float32), np.random.default_rng(0))
    >>> round(float(counts.mean())), round(float(counts.var()))
    (50, 50)
    """
    w = rng.standard_normal(mean.shape, dtype=np.float32)
    enough = np.maximum(mean, np.float32(EXPANDED))
    root, square = np.sqrt(enough), w * w
    last = square * (7 / 810) + square * square * (1 / 270) - 8 / 405
    counts = np.asarray(last / enough, dtype=np.float32)
    counts -= w * (1 / 36 + square * (1 / 72)) / root
    counts += square * (1 / 6) + 1 / 3
    counts += root * w
    counts += enough
    np.maximum(np.floor(counts, out=counts), 0.0, out=counts)
    few = mean < EXPANDED
    counts[few] = rng.poisson(mean[few])
    return counts


def smooth_noise(
    shape: tuple[int, ...], sigma: float, rng: np.random.Generator, dtype: type[np.floating[Any]] = np.float64
) -> NDArray[Any]:
    """Return periodic Gaussian noise of mean 0 and variance 1, low-passed by a Gaussian.

    Parameters
    ----------
    shape : tuple of int
        Of the result.
    sigma : float
        Standard deviation of the Gaussian, px.
    rng : numpy.random.Generator
        Source of randomness.
    dtype : {numpy.float64, numpy.float32}
        Of the result.

    Returns
    -------
    ndarray of dtype, shape `shape`

    Examples
    --------
    >>> noise = smooth_noise((64, 64), 3.0, np.random.default_rng(0))
    >>> round(float(noise.std()), 6), bool(abs(np.diff(noise, axis=0)).max() < 1.5)
    (1.0, True)
    """
    # white noise is drawn only as finely as the Gaussian lets it through
    coarse = [min(n, 2 * int(np.ceil(BAND * n / sigma)) + 1) if sigma > 0.0 else n for n in shape]
    spectrum = fft.rfftn(rng.standard_normal(coarse).astype(dtype))
    for axis, n in enumerate(coarse):
        k = fft.rfftfreq(n, 1 / n) if axis == len(shape) - 1 else fft.fftfreq(n, 1 / n)
        gaussian = np.exp(-2.0 * (np.pi * sigma * k / shape[axis]) ** 2).astype(dtype)
        spectrum *= gaussian.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    spectrum.flat[0] = 0.0
    for axis, (few, n) in enumerate(zip(coarse[:-1], shape, strict=False)):
        # the frequencies that are missing lie between the positive and the negative ones
        parts = np.split(spectrum, [(few + 1) // 2], axis)
        gap = [n - few if i == axis else length for i, length in enumerate(spectrum.shape)]
        spectrum = fft.ifft(np.concatenate([parts[0], np.zeros(gap, spectrum.dtype), parts[1]], axis), axis=axis)
    noise = fft.irfft(spectrum, shape[-1])
    return np.asarray(noise / noise.std())
