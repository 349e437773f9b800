"""A micrograph: its pixels, what is known of how it was recorded, and where each of these values comes from.

Sampling is in Å/px and beam energy in eV, whatever the file holds.
"""

from __future__ import annotations

import math
import numbers
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from contextem._files import ReadError, Recording, load, load_series, open_recording
from contextem.periodicity import hexagonal_period

__all__ = [
    "DETECTORS",
    "DETECTOR_NAMES",
    "Detector",
    "Micrograph",
    "ReadError",
    "Series",
    "check_energy",
    "check_number",
    "estimate_sampling",
    "open_series",
    "read",
    "read_series",
]

DETECTORS = ("HAADF", "MAADF", "LAADF", "ABF", "BF")
"""Kinds of detector, from high to low collection angles."""

DETECTOR_NAMES = (*DETECTORS, "ADF")
"""What a detector may be called; "ADF" is annular dark field at lower angles than those of HAADF, whatever they are."""

ENERGY_RANGE = (10e3, 3e6)
"""Beam energies that a transmission microscope may have, eV."""

LATTICE_CONSTANT_RANGE = (2.0, 6.0)
"""Lattice constants a monolayer may have, Å."""

SQUARE_PIXELS = 0.005
"""Relative difference of the sampling along rows and columns up to which pixels count as square."""

DARK_FIELDS = {"HAADF": 60.0, "MAADF": 40.0, "LAADF": 5.0}
"""Inner collection angle from which on a dark field is called so, mrad; none is believed to begin below the last."""

_BLOCK = 256  # rows that are checked at once

PARTS = ("signal", "frame", "frames")
"""What of a file a micrograph may be: an image, one of a series, or the mean of a number of them."""

SAMPLING_RANGE = (1e-3, 5.0)
"""Samplings that may show atomic columns, Å/px; a value outside stands for a calibration that was never made."""


@dataclass(frozen=True)
class Detector:
    """A detector and, where they are known, its collection angles.

    Parameters
    ----------
    name : str
        One of `DETECTOR_NAMES`.
    inner, outer : float, optional
        Collection semi-angles, mrad.

    Raises
    ------
    ValueError
        If the name is not known or the angles are not 0 <= inner < outer <= 1000 mrad.

    Examples
    --------
    >>> Detector("HAADF", inner=70, outer=200)
    Detector(name='HAADF', inner=70, outer=200)
    """

    name: str
    inner: float | None = None
    outer: float | None = None

    def __post_init__(self) -> None:
        if self.name not in DETECTOR_NAMES:
            guess = other_case(self.name, DETECTOR_NAMES)
            raise ValueError(f"detector: expected one of {', '.join(DETECTOR_NAMES)}, got {self.name!r}{guess}")
        for key in ("inner", "outer"):
            angle = getattr(self, key)
            if angle is not None and not (_is_real(angle) and 0.0 <= angle <= 1e3):
                raise ValueError(f"{key}: expected a collection semi-angle of 0 to 1000 mrad, got {angle!r}")
        if self.outer is not None and not (self.inner or 0.0) < self.outer:
            raise ValueError(f"outer: expected an angle above inner = {self.inner} mrad, got {self.outer!r}")
        if self.outer is not None and self.outer < 1.0:
            raise ValueError(f"outer: expected mrad (200 mrad is 200), got {self.outer!r}")

    @property
    def kind(self) -> str:
        """Which of `DETECTORS` it is: an "ADF" stands for one at medium angles."""
        return "MAADF" if self.name == "ADF" else self.name

    def to_dict(self) -> dict[str, Any]:
        """Return name and angles as plain values that JSON can hold."""
        return {"name": self.name, "inner": self.inner, "outer": self.outer}


@dataclass(frozen=True, init=False, eq=False)
class Micrograph:
    """An image of atomic columns with sampling, beam energy and detector.

    Parameters
    ----------
    data : ndarray, shape (H, W)
        Pixels: finite real numbers, not all alike.  Kept in the dtype given and not copied, save that the byte order of
        the machine replaces the other one.  A `numpy.memmap` stays in its file.
    sampling : float
        Å/px, the same along rows and columns.
    energy : float, optional
        Beam energy, eV.
    detector : Detector or str, optional
        The detector, or its name, one of `DETECTOR_NAMES`.
    provenance : mapping of str to str, optional
        Origin of ``"sampling"``, ``"energy"`` and ``"detector"``, by name; ``"user"`` for a value that is given and not
        in it.  Beside them what of a file it is, as far as that was chosen: ``"signal"``, ``"frame"``, and the number
        of ``"frames"`` that were averaged.
    source : str, optional
        Name of the file.

    Attributes
    ----------
    data, sampling, energy, detector, provenance, source
        As above; the detector as a `Detector`, and provenance has an entry for each value that is known.

    Raises
    ------
    ValueError
        If a value is not a possible one.
    TypeError
        If `data` does not hold real numbers or an argument is of the wrong type.

    Examples
    --------
    >>> micrograph = Micrograph(np.eye(64), sampling=0.2, energy=80e3, detector="HAADF")
    >>> micrograph.shape, micrograph.provenance["sampling"]
    ((64, 64), 'user')
    """

    data: NDArray[Any] = field(repr=False)
    sampling: float
    energy: float | None
    detector: Detector | None
    provenance: dict[str, str]
    source: str | None

    def __init__(
        self,
        data: NDArray[Any],
        sampling: float,
        energy: float | None = None,
        detector: Detector | str | None = None,
        *,
        provenance: Mapping[str, str] | None = None,
        source: str | None = None,
    ) -> None:
        known: dict[str, Any] = {"sampling": check_number("sampling", sampling, "Å/px", SAMPLING_RANGE)}
        known["energy"] = None if energy is None else check_energy(energy)
        known["detector"] = Detector(detector) if isinstance(detector, str) else detector
        if not isinstance(known["detector"], Detector | None):
            raise TypeError(f"detector: expected a Detector or one of {', '.join(DETECTOR_NAMES)}, got {detector!r}")
        origin = {name: "user" for name, value in known.items() if value is not None}
        origin |= {name: text for name, text in (provenance or {}).items() if name in (*origin, *PARTS)}
        for name, value in {"data": _check_data(data), **known, "provenance": origin, "source": source}.items():
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, (H, W)."""
        return (self.data.shape[0], self.data.shape[1])

    def as_float(self, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return the pixels as floating-point numbers.

        Parameters
        ----------
        dtype : dtype
            float32 or float64.  In float32, integers above 2**24 (16,777,216) are rounded.

        Returns
        -------
        ndarray, shape (H, W)
            C-contiguous; the data themselves, not a copy, where they are so already.

        Raises
        ------
        TypeError
            If `dtype` is neither float32 nor float64.

        Examples
        --------
        >>> Micrograph(np.eye(64, dtype="uint16"), sampling=0.2).as_float().dtype
        dtype('float32')
        """
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"dtype: expected float32 or float64, got {np.dtype(dtype)}")
        return np.ascontiguousarray(self.data, dtype=dtype)

    def _repr_html_(self) -> str:
        from contextem._html import micrograph_html

        return micrograph_html(self)


def read(
    path: str | os.PathLike[str],
    *,
    sampling: float | Literal["estimate"] | None = None,
    energy: float | None = None,
    detector: Detector | str | None = None,
    signal: int | str | None = None,
    frame: int | None = None,
    lattice_constant: float | None = None,
) -> Micrograph:
    """Read a micrograph from a dm3, dm4, emd, emi, ser, mrc, tif, hspy, zspy, npy or png file.

    Sampling, beam energy, name and collection angles of the detector are taken from the file where it holds credible
    ones.  What the caller gives takes precedence; to a detector given by name alone the file adds the angles, unless it
    names another one.

    The pixels of an npy, mrc or tif file of 256 MB or more, where they are not compressed, are not read but mapped:
    they stay in the file, which must be left as it is while the micrograph is in use.

    Parameters
    ----------
    path : str or path-like
        The file.
    sampling : float or "estimate", optional
        Å/px.  Needed where the file holds none; ``"estimate"`` finds it from the spectrum, see `estimate_sampling`.
    energy : float, optional
        Beam energy, eV.
    detector : Detector or str, optional
        The detector, or its name, one of `DETECTOR_NAMES`.
    signal : int or str, optional
        Index or name of the image, or series of images, in a file that holds several.
    frame : int, optional
        Index of the image in a series, such as the pages of a tif or the frames of a Velox file.
    lattice_constant : float, optional
        Lattice constant of the specimen, Å; for ``sampling="estimate"``.

    Returns
    -------
    Micrograph
        Its provenance says of each value whether it comes from ``"file"`` or ``"user"``, or how it was estimated.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If there is no such file.
    ReadError
        If the file cannot be read, holds several images and none is chosen, holds no grey image of finite pixels with
        contrast, or holds no credible sampling and none is given.
    ValueError, TypeError
        If an argument is not a possible one.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "image.npy"
    ...     np.save(path, np.eye(64))
    ...     micrograph = read(path, sampling=0.2)
    >>> micrograph.sampling, micrograph.energy, micrograph.provenance
    (0.2, None, {'sampling': 'user'})
    """
    path = Path(path)
    part = {"signal": signal, "frame": frame}
    return _to_micrograph(load(path, signal, frame), path.name, sampling, energy, detector, lattice_constant, part)


def read_series(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    sampling: float | Literal["estimate"] | None = None,
    energy: float | None = None,
    detector: Detector | str | None = None,
    signal: int | str | None = None,
    lattice_constant: float | None = None,
) -> list[Micrograph]:
    """Read images of one field of view that were recorded one after another.

    Parameters
    ----------
    paths : str or path-like, or iterable of them
        One file that holds a series, or the files of the images in their order; each of them may hold a series, too.
    sampling, energy, detector, signal, lattice_constant
        As for `read`.  An estimate is the median over the images in which a lattice is seen.

    Returns
    -------
    list of Micrograph
        Of the same shape, sampling, energy and detector.  The source of an image in a series ends with its index.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, ReadError, TypeError
        As for `read`.
    ValueError
        If there is no file, or the images differ in more than their pixels; and as for `read`.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "series.npy"
    ...     np.save(path, np.stack([np.eye(64)] * 5))
    ...     frames = read_series(path, sampling=0.2)
    >>> len(frames), frames[0].shape, frames[4].source
    (5, (64, 64), 'series.npy[4]')
    """
    recordings: list[tuple[Recording, str]] = []
    for path in map(Path, [paths] if isinstance(paths, str | os.PathLike) else paths):
        found = load_series(path, signal)
        names = [path.name] if len(found) == 1 else [f"{path.name}[{i}]" for i in range(len(found))]
        recordings.extend(zip(found, names, strict=True))
    if not recordings:
        raise ValueError("paths: expected at least one file, got none")
    estimate = sampling == "estimate" and lattice_constant is not None
    if estimate:
        sampling, origin = _estimate_of_series([recording.data for recording, _ in recordings], lattice_constant)
        lattice_constant = None
    part = {"signal": signal}
    frames = [_to_micrograph(*each, sampling, energy, detector, lattice_constant, part) for each in recordings]
    if estimate:
        frames = [replace(frame, provenance=frame.provenance | {"sampling": origin}) for frame in frames]
    return _check_alike(frames)


class Series(Sequence[Micrograph]):
    """The images of one file, each read when it is asked for; see `open_series`."""

    def __init__(self, recording: Recording, source: str, said: Mapping[str, Any]) -> None:
        self._recording, self._source, self._said = recording, source, said

    def __len__(self) -> int:
        return len(self._recording.data) if self._recording.is_series else 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns of an image, (H, W)."""
        return tuple(self._recording.data.shape[-2:])

    @overload
    def __getitem__(self, frame: int) -> Micrograph: ...
    @overload
    def __getitem__(self, frame: slice) -> list[Micrograph]: ...
    def __getitem__(self, frame: int | slice) -> Micrograph | list[Micrograph]:
        if isinstance(frame, slice):
            return [self[each] for each in range(*frame.indices(len(self)))]
        if not -len(self) <= frame < len(self):
            raise IndexError(f"frame: expected 0 to {len(self) - 1}, the images of {self._source}, got {frame}")
        data, source = self._recording.data, self._source
        if self._recording.is_series:
            frame %= len(self)
            data, source = data[frame], f"{source}[{frame}]"
        if (compute := getattr(data, "compute", None)) is not None:
            data = compute(scheduler="synchronous")  # here: a worker of dask would hand the open file to others
        return _to_micrograph(replace(self._recording, data=np.asarray(data)), source, **self._said)


def open_series(
    path: str | os.PathLike[str],
    *,
    sampling: float | Literal["estimate"] | None = None,
    energy: float | None = None,
    detector: Detector | str | None = None,
    signal: int | str | None = None,
    lattice_constant: float | None = None,
) -> Series:
    """Open a file that holds a series, or one image, without reading more than is asked for.

    Parameters
    ----------
    path : str or path-like
        The file.
    sampling, energy, detector, signal, lattice_constant
        As for `read`; an estimate is made of each image by itself.

    Returns
    -------
    Series
        Of `Micrograph`; an image that cannot be used raises `ReadError` when it is asked for.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, ReadError, TypeError
        As for `read`.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "series.npy"
    ...     np.save(path, np.stack([np.eye(64)] * 5))
    ...     series = open_series(path, sampling=0.2)
    ...     len(series), series[4].source
    (5, 'series.npy[4]')
    """
    path = Path(path)
    said = {"sampling": sampling, "energy": energy, "detector": detector, "lattice_constant": lattice_constant}
    return Series(open_recording(path, signal), path.name, said | {"part": {"signal": signal}})


def _to_micrograph(
    recording: Recording,
    source: str,
    sampling: float | str | None,
    energy: float | None,
    detector: Detector | str | None,
    lattice_constant: float | None,
    part: Mapping[str, int | str | None],
) -> Micrograph:
    """Join what a file holds with what the caller gives."""
    try:
        data = _check_data(recording.data)
    except (TypeError, ValueError) as error:
        raise ReadError(f"path: {source} holds no image that can be used ({error})") from error
    provenance = {name: str(chosen) for name, chosen in part.items() if chosen is not None}
    sampling, provenance["sampling"] = _choose_sampling(sampling, lattice_constant, data, recording, source)
    if energy is None and recording.energy is not None:
        energy = recording.energy
        provenance["energy"] = "file"
    detector = Detector(detector) if isinstance(detector, str) else detector
    named = _recognise_detector(recording.title, recording.angles)
    if detector is None:
        detector = named
        provenance["detector"] = "file"
    elif detector == Detector(detector.name) and recording.angles and (named is None or named.name == detector.name):
        detector = Detector(detector.name, *recording.angles)
        provenance["detector"] = "user, angles from the file"
    return Micrograph(data, sampling, energy, detector, provenance=provenance, source=source)


def _estimate_of_series(images: Sequence[NDArray[Any]], lattice_constant: float | None) -> tuple[float, str]:
    """Return the median of the samplings estimated of the images that show a lattice, Å/px, and how it came about."""
    assert lattice_constant is not None
    found, failure = [], None
    for image in images:
        try:
            found.append(estimate_sampling(image, lattice_constant))
        except ValueError as error:
            failure = error
    if failure is not None and not found:
        raise failure
    of = f"of {len(found)} of {len(images)} images "
    return float(np.median(found)), f"estimated from the FFT {of}with a = {lattice_constant:g} Å"


def _check_alike(frames: Sequence[Micrograph]) -> list[Micrograph]:
    """Return the images of a series with the sampling of the first, if they differ in nothing but their pixels."""
    first = frames[0]
    for frame in frames[1:]:
        alike = abs(frame.sampling - first.sampling) <= SQUARE_PIXELS * first.sampling
        differing = [name for name in ("shape", "energy", "detector") if getattr(frame, name) != getattr(first, name)]
        for name in differing if alike else ["sampling", *differing]:
            raise ValueError(
                f"paths: expected images of the same {name}, got {getattr(first, name)} in {first.source} and "
                f"{getattr(frame, name)} in {frame.source}, leave out what does not belong to the series"
            )
    return [replace(frame, sampling=first.sampling) for frame in frames]


def _choose_sampling(
    sampling: float | str | None, lattice_constant: float | None, data: NDArray[Any], recording: Recording, source: str
) -> tuple[float, str]:
    """Return the sampling in Å/px that the caller gives, asks to estimate, or leaves to the file, and its origin."""
    if isinstance(sampling, str):
        if sampling != "estimate" or lattice_constant is None:
            raise ValueError(
                "sampling: expected a number in Å/px, or 'estimate' together with lattice_constant=... in Å, "
                f"got {sampling!r} and lattice_constant={lattice_constant!r}"
            )
        return estimate_sampling(data, lattice_constant), f"estimated from the FFT with a = {lattice_constant:g} Å"
    if lattice_constant is not None:
        raise ValueError(f"lattice_constant: expected only with sampling='estimate', got {lattice_constant!r}")
    if sampling is not None:
        return sampling, "user"
    if recording.sampling is None:
        raise ReadError(
            f"sampling: {source} holds no credible sampling ({recording.remark}), give it in Å/px as sampling=... "
            "or --sampling, or have it estimated from the lattice with sampling='estimate' or --estimate-sampling"
        )
    rows, columns = recording.sampling
    if abs(rows - columns) > SQUARE_PIXELS * min(rows, columns):
        raise ReadError(
            f"sampling: {source} has pixels that are not square, {rows:.4g} Å from row to row and {columns:.4g} Å "
            "from column to column, resample the image or give one value as sampling=... or --sampling"
        )
    return math.sqrt(rows * columns), "file"


def _recognise_detector(title: str, angles: tuple[float, float] | None) -> Detector | None:
    """Return the single detector that a title such as "HAADF_2" names as a word of its own, with its angles.

    Of a dark field that is only called so, such as "DF4", "DF-I" or "ADF1", the inner angle tells which one it is.
    """
    words = {word.upper() for word in re.findall("[A-Za-z]+", title)}
    named = [name for name in DETECTORS if name in words]
    dark = bool(words & {"ADF", "DF"})
    if angles is not None and (dark or {"ABF", "BF"}.isdisjoint(named)) and angles[0] < DARK_FIELDS["LAADF"]:
        angles = None
    if not named and dark and angles is not None:
        named = [next(name for name, inner in DARK_FIELDS.items() if angles[0] >= inner)]
    if len(named) != 1 or (dark and named[0] in ("ABF", "BF")):
        return None
    return Detector(named[0], *angles) if angles is not None else Detector(named[0])


def estimate_sampling(data: NDArray[Any], lattice_constant: float) -> float:
    """Estimate the sampling of an image from its spectrum and the lattice constant of the specimen.

    Parameters
    ----------
    data : ndarray, shape (H, W)
        Image of a hexagonal monolayer.
    lattice_constant : float
        In-plane lattice constant a, Å.

    Returns
    -------
    float
        Å/px: a over the period of the lattice in pixels.

    Raises
    ------
    TypeError
        If `data` does not hold real numbers.
    ValueError
        If `data` is no image with contrast, if the lattice constant is not 2 to 6 Å, or if no lattice is seen.

    Examples
    --------
    >>> rows, columns = np.mgrid[:128, :128]
    >>> k = 2 / (np.sqrt(3) * 16.6)
    >>> angles = np.deg2rad([10, 70, 130])
    >>> image = sum(np.cos(2 * np.pi * k * (np.cos(t) * rows + np.sin(t) * columns)) for t in angles)
    >>> round(estimate_sampling(image, lattice_constant=3.32), 3)
    0.2
    """
    lattice_constant = check_number("lattice_constant", lattice_constant, "Å", LATTICE_CONSTANT_RANGE)
    return lattice_constant / hexagonal_period(_check_data(data))


def check_energy(energy: float) -> float:
    """Return a beam energy in eV as a float, if it is a possible one.

    Parameters
    ----------
    energy : float
        Beam energy, eV.

    Returns
    -------
    float
        The same.

    Raises
    ------
    TypeError
        If it is not a number.
    ValueError
        If it is outside `ENERGY_RANGE`; from 1 to 1000 it is taken for keV and the message says so.

    Examples
    --------
    >>> check_energy(80_000)
    80000.0
    """
    if _is_real(energy) and 1.0 <= energy < 1000.0:
        raise ValueError(f"energy: expected eV ({energy:g} keV is {energy:g}e3), got {energy:g}")
    return check_number("energy", energy, "eV", ENERGY_RANGE)


def check_number(name: str, value: float, unit: str, limits: tuple[float, float]) -> float:
    """Return a number as a float, if it lies within limits.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : float
        The number.
    unit : str
        Its unit, for the message.
    limits : tuple of two floats
        Least and greatest value allowed.

    Returns
    -------
    float
        The same.

    Raises
    ------
    TypeError
        If it is not a real number.
    ValueError
        If it is outside the limits, or NaN.

    Examples
    --------
    >>> check_number("sampling", 20, "Å/px", (0.001, 5.0))
    Traceback (most recent call last):
    ...
    ValueError: sampling: expected Å/px, 0.001 to 5, got 20
    """
    if not _is_real(value):
        raise TypeError(f"{name}: expected a number in {unit}, got {value!r}")
    lowest, highest = limits
    if not lowest <= value <= highest:
        raise ValueError(f"{name}: expected {unit}, {lowest:g} to {highest:g}, got {in_figures(value)}")
    return float(value)


def in_figures(value: float) -> str:
    """Return a number in a few figures; an integer beyond all floating-point numbers is infinite.

    Examples
    --------
    >>> in_figures(80e3), in_figures(-(10**400))
    ('80000', '-inf')
    """
    try:
        return f"{value:g}"
    except OverflowError:
        return "inf" if value > 0 else "-inf"


def other_case(given: object, known: Iterable[str]) -> str:
    """Return the question whether a name was meant that differs in nothing but capitals; nothing where there is none.

    Examples
    --------
    >>> other_case("haadf", DETECTOR_NAMES), other_case("EELS", DETECTOR_NAMES)
    (", did you mean 'HAADF'?", '')
    """
    meant = [name for name in known if name.lower() == str(given).lower()]
    return f", did you mean {meant[0]!r}?" if meant else ""


def _is_real(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)


def _check_data(data: NDArray[Any]) -> NDArray[Any]:
    if not isinstance(data, np.ndarray):
        raise TypeError(f"data: expected a NumPy array of shape (H, W), got {type(data).__name__}")
    if data.dtype.names is not None:
        raise TypeError("data: expected real numbers, got a colour image, use the grey micrograph itself")
    if data.dtype.kind not in "iuf":
        raise TypeError(f"data: expected real numbers, got {data.dtype}")
    if data.ndim == 3 and data.shape[2] in (3, 4):
        raise ValueError(
            f"data: expected one grey image of shape (H, W), got a colour image of shape {data.shape}, "
            "use the grey micrograph itself"
        )
    if data.ndim > 2:
        raise ValueError(
            f"data: expected one image of shape (H, W), got a stack of shape {data.shape}, align and sum the images or "
            "choose one of them"
        )
    if data.ndim < 2 or 0 in data.shape:
        raise ValueError(f"data: expected one image of shape (H, W), got shape {data.shape}")
    bad, low, high = 0, data[0, 0], data[0, 0]
    for start in range(0, len(data), _BLOCK):  # of an image that is mapped from a file the rest may stay there
        block = data[start : start + _BLOCK]
        if data.dtype.kind == "f":
            bad += block.size - int(np.count_nonzero(np.isfinite(block)))
        low, high = min(low, block.min()), max(high, block.max())
    if bad:
        raise ValueError(f"data: expected finite pixels, got {bad} NaN or infinite ones, replace or crop them")
    if low == high:
        raise ValueError(f"data: expected an image with contrast, got {data.flat[0]} in every pixel")
    return data if data.dtype.isnative else data.astype(data.dtype.newbyteorder("="))
