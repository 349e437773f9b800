"""Series of images of the same area: shifts between them by phase correlation, and their mean.

    c = F^-1 [ conj(F(a)) F(b) / |conj(F(a)) F(b)| G ],    shift = argmax c

G is a Gaussian low-pass: phases of frequencies that only noise has would drown the rest.  The highest pixel of c is
refined to where the correlation F^-1 [ conj(F(a)) F(b) ] itself is highest, which noise moves least, between the pixels
by its Fourier sum.  A crystal looks the same again one lattice vector further, so frames are registered one after the
other, each to the mean of those before it; what moves further than `MOST` of the image between two frames is refused.

Guizar-Sicairos et al., "Efficient subpixel image registration algorithms", https://doi.org/10.1364/OL.33.000156.
Kuglin and Hines, "The phase correlation image alignment method", IEEE Conf. on Cybernetics and Society (1975) 163.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from contextem.context import Context
from contextem.micrograph import Micrograph

MOST = 0.1
"""Part of the shorter side by which two frames in sequence may be shifted."""

_BLUR = 1.0  # px, of the low-pass
_STEPS = 10  # a pixel
_ROUNDS = 2  # of refinement
_SLIVER = 0.1  # px beyond the border of a frame that its outermost pixels still stand for


def average(micrographs: Sequence[Micrograph]) -> Micrograph:
    """Average a series of images of the same area after registration.

    Parameters
    ----------
    micrographs : sequence of Micrograph
        Of the same shape, sampling and detector.

    Returns
    -------
    Micrograph
        float32, cut to what all of them show, as large as possible.

    Raises
    ------
    ValueError
        If there is none, shapes, samplings or detectors differ, or they do not show the same area.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scene = ndimage.gaussian_filter(rng.normal(size=(80, 80)), 2)
    >>> frames = [Micrograph(scene[i : i + 64, 3 : 67], sampling=0.2) for i in (2, 4, 5)]
    >>> average(frames).shape
    (61, 64)
    """
    _check_alike(micrographs)
    if len(micrographs) == 1:
        return micrographs[0]
    return _mean(micrographs, register([each.as_float("float32") for each in micrographs]))


def average_by_detector(
    micrographs: Sequence[Micrograph], contexts: Sequence[Context]
) -> tuple[list[Micrograph], list[Context]]:
    """Average the images of each detector, all of them with the shifts of their sum.

    Parameters
    ----------
    micrographs : sequence of Micrograph
        Of one or several detectors; of each the same number of frames, in the same order.
    contexts : sequence of Context
        Of each image.

    Returns
    -------
    list of Micrograph, list of Context
        One a detector.

    Raises
    ------
    ValueError
        If the numbers of frames differ, or the frames of a detector cannot be averaged.
    """
    frames: dict[Any, list[Micrograph]] = {}
    of_detector: dict[Any, Context] = {}
    for micrograph, context in zip(micrographs, contexts, strict=True):
        frames.setdefault(context.detector, []).append(micrograph)
        of_detector.setdefault(context.detector, context)
    counts = {len(each) for each in frames.values()}
    if len(counts) > 1:
        listing = ", ".join(f"{len(each)} of {_name(detector)}" for detector, each in frames.items())
        raise ValueError(f"micrograph: expected as many images of each detector, got {listing}")
    for each in frames.values():
        _check_alike(each)
    if counts == {1}:
        return [each[0] for each in frames.values()], list(of_detector.values())
    at_once = zip(*frames.values(), strict=True)
    together = [np.sum([_standardised(each.as_float("float32")) for each in moment], axis=0) for moment in at_once]
    shifts = register(together)
    return [_mean(each, shifts) for each in frames.values()], list(of_detector.values())


def register(images: Sequence[NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
    """Return by how much each image is shifted against the first, (T, 2) px along (row, column).

    Parameters
    ----------
    images : sequence of (H, W) arrays
        Frames in sequence.

    Raises
    ------
    ValueError
        If a frame is shifted by more than `MOST` of the shorter side against the one before it.
    """
    shifts = np.zeros((len(images), 2))
    mean = _standardised(images[0])
    for number, image in enumerate(images[1:], start=1):
        frame = _standardised(image)
        shifts[number] = _shift(mean, frame, shifts[number - 1])
        moved = ndimage.shift(frame, -shifts[number], order=1, mode="nearest")
        mean = mean + (moved - mean) / (number + 1)
    return shifts


def _shift(
    fixed: NDArray[np.floating[Any]], moving: NDArray[np.floating[Any]], expected: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the shift of an image against another one, near the one expected."""
    shape = fixed.shape
    cross = _cross(fixed, moving)
    rows, columns = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])[None]
    gaussian = np.exp(-2.0 * (np.pi * _BLUR) ** 2 * (rows**2 + columns**2))
    correlation = fft.irfft2(cross / np.maximum(np.abs(cross), 1e-12 * np.abs(cross).max()) * gaussian, s=shape)
    reach = int(MOST * min(shape)) + 1
    near = [np.arange(round(s) - reach, round(s) + reach + 1) for s in expected]
    part = correlation[np.ix_(*(index % n for index, n in zip(near, shape, strict=True)))]
    top = np.unravel_index(np.argmax(part), part.shape)
    if any(i in (0, 2 * reach) for i in top):
        raise ValueError(
            f"micrographs: expected frames shifted by less than {MOST:.0%} of their shorter side against the one "
            "before, got one that fits nowhere; average the series with other software, or classify a single frame"
        )
    shift = np.array([index[i] for index, i in zip(near, top, strict=True)], dtype=np.float64)
    for _ in range(_ROUNDS):
        moved = ndimage.shift(moving, -shift, order=3, mode="nearest")
        shift += _between_pixels(_cross(fixed, moved), shape)
    return shift


def _cross(fixed: NDArray[np.floating[Any]], moving: NDArray[np.floating[Any]]) -> NDArray[np.complexfloating[Any]]:
    """Return the cross-spectrum of two images that fade out towards the borders."""
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in fixed.shape))
    return np.asarray(np.conj(fft.rfft2(window * fixed)) * fft.rfft2(window * moving))


def _between_pixels(cross: NDArray[np.complexfloating[Any]], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return where the correlation is highest within a pixel around 0, (2,)."""
    steps = np.linspace(-1.0, 1.0, 2 * _STEPS + 1)
    rows = np.exp(2j * np.pi * np.outer(steps, fft.fftfreq(shape[0])))
    columns = np.exp(2j * np.pi * np.outer(fft.rfftfreq(shape[1]), steps))
    part = (rows @ cross @ columns).real
    top = np.clip(np.unravel_index(np.argmax(part), part.shape), 1, 2 * _STEPS - 1)
    summit = []
    for axis in range(2):  # of the parabola through the highest value and its neighbours
        low, middle, high = (float(part[tuple(top + step * np.eye(2, dtype=int)[axis])]) for step in (-1, 0, 1))
        summit.append(steps[top[axis]] + 0.5 * (low - high) / (low - 2.0 * middle + high) / _STEPS)
    return np.array(summit)


def _standardised(image: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    return np.asarray((image - image.mean()) / image.std())


def _mean(micrographs: Sequence[Micrograph], shifts: NDArray[np.float64]) -> Micrograph:
    """Mean of shifted images, over what all of them show."""
    first = micrographs[0]
    total = np.zeros(first.shape)
    for micrograph, shift in zip(micrographs, shifts, strict=True):
        total += ndimage.shift(micrograph.as_float("float64"), -shift, order=3, mode="nearest")
    low = np.ceil(np.maximum(0.0, -shifts.min(axis=0)) - _SLIVER).astype(int)
    high = np.array(first.shape) - np.ceil(np.maximum(0.0, shifts.max(axis=0)) - _SLIVER).astype(int)
    data = np.asarray(total[low[0] : high[0], low[1] : high[1]] / len(micrographs), np.float32)
    source = None if first.source is None else f"{first.source} and {len(micrographs) - 1} more"
    origin = first.provenance | {"frames": str(len(micrographs))}
    return Micrograph(data, first.sampling, first.energy, first.detector, provenance=origin, source=source)


def _check_alike(micrographs: Sequence[Micrograph]) -> None:
    if not micrographs:
        raise ValueError("micrographs: expected at least one, got none")
    first = micrographs[0]
    for each in micrographs[1:]:
        for name in ("shape", "sampling", "detector"):
            one, other = getattr(first, name), getattr(each, name)
            if one != other:
                raise ValueError(
                    f"micrographs: expected images of the same {name} to be averaged, got {one} and {other}"
                )


def _name(detector: Any) -> str:
    return "no detector" if detector is None else str(detector.name)
