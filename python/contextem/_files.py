"""What a micrograph file holds: its pixels and, where they are credible, sampling, beam energy and title."""

from __future__ import annotations

import importlib
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_READERS = {
    ".dm3": "rsciio.digitalmicrograph",
    ".dm4": "rsciio.digitalmicrograph",
    ".emd": "rsciio.emd",
    ".emi": "rsciio.tia",
    ".hspy": "rsciio.hspy",
    ".mrc": "rsciio.mrc",
    ".ser": "rsciio.tia",
    ".tif": "rsciio.tiff",
    ".tiff": "rsciio.tiff",
}
SUFFIXES = (*_READERS, ".npy", ".png")
"""Suffixes of the files that can be read, in lower case."""

_ANGSTROM = {
    "m": 1e10, "meter": 1e10, "meters": 1e10, "metre": 1e10, "metres": 1e10, "mm": 1e7,
    "µm": 1e4, "um": 1e4, "micron": 1e4, "microns": 1e4, "micrometer": 1e4, "nm": 10.0, "nanometer": 10.0,
    "å": 1.0, "a": 1.0, "angstrom": 1.0, "angstroms": 1.0, "ang": 1.0, "pm": 0.01,
}  # fmt: skip

# Å/px.  A sampling outside is a calibration never made, such as the 1 Å/px of an MRC header left at its defaults, or it
# is that of an image which cannot show single columns.
_CREDIBLE_SAMPLING = (0.005, 0.9)
_CREDIBLE_ENERGY = (10e3, 3e6)  # eV

_ENERGY_NAMES = ("Acquisition_instrument.TEM.beam_energy", "Acquisition_instrument.SEM.beam_energy")
_TITLE_NAME = "General.title"
# Where files say the same that no reader maps to a common name.
_ENERGY_PATHS = ("microscope.voltage",)
_TITLE_PATHS = ("ImageList.TagGroup0.ImageTags.DataBar.Signal Name",)


class ReadError(ValueError):
    """A file is not what it should be: unreadable, damaged, of an unknown format, or without a usable image."""


@dataclass(frozen=True)
class Recording:
    """What one image in a file holds; None where the file does not say or does not say a credible value.

    Attributes
    ----------
    data : ndarray
        Pixels, any shape and dtype.
    sampling : tuple of two floats or None
        Å/px along rows and columns.
    remark : str
        Why there is no sampling, in a few words.
    energy : float or None
        Beam energy, eV.
    title : str
        Name of the image or of the detector.
    """

    data: NDArray[Any]
    sampling: tuple[float, float] | None = None
    remark: str = "the format has no place for it"
    energy: float | None = None
    title: str = ""


def load(path: Path, signal: int | str | None = None) -> Recording:
    """Read one image of a file.

    Parameters
    ----------
    path : Path
        File with one of `SUFFIXES`.
    signal : int or str, optional
        Index or name of the image in a file that holds several.

    Returns
    -------
    Recording

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If there is no such file.
    ReadError
        If the file cannot be read, or `signal` is needed and not given, or not there.
    """
    if path.is_dir():
        raise IsADirectoryError(f"path: expected a file, {path} is a directory")
    if not path.exists():
        raise FileNotFoundError(f"path: there is no file {path}")
    if path.suffix.lower() not in SUFFIXES:
        raise ReadError(f"path: expected a file with one of {', '.join(SUFFIXES)}, got {path.name}")
    if path.stat().st_size == 0:
        raise ReadError(f"path: {path.name} is empty (0 bytes)")
    with _quiet():
        try:
            recordings = _load_all(path)
        except (PermissionError, ReadError):
            raise
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold the file open
            detail = " ".join(str(error).split()) or type(error).__name__
            raise ReadError(
                f"path: {path.name} cannot be read as {path.suffix.lower()}, it may be damaged, cut short or of "
                f"another format ({detail[:200]})"
            ) from error
    return _choose(recordings, signal, path)


def _load_all(path: Path) -> list[Recording]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return [Recording(np.asarray(np.load(path, allow_pickle=False)))]
    if suffix == ".png":
        return [_load_png(path)]
    reader = importlib.import_module(_READERS[suffix]).file_reader
    options = {"select_type": "images"} if suffix == ".emd" else {}
    return [_to_recording(signal) for signal in reader(str(path), **options)]


def _load_png(path: Path) -> Recording:
    from PIL import Image

    with Image.open(path) as image:
        if image.mode not in ("L", "F", "I", "I;16", "I;16B", "I;16L"):
            raise ReadError(
                f"path: {path.name} is a picture in mode {image.mode}, expected grey values, "
                "export the grey micrograph itself"
            )
        return Recording(np.asarray(image))


def _to_recording(signal: Mapping[str, Any]) -> Recording:
    """Turn one signal of a rosettasciio reader into a recording.

    The readers leave most metadata in the layout of the file and return a `mapping` from there to common names, path in
    the file's metadata -> (common name, function of the value), for the caller to apply.
    """
    original = signal.get("original_metadata", {})
    common = {name: _look_up(signal.get("metadata", {}), name) for name in (*_ENERGY_NAMES, _TITLE_NAME)}
    for path, entry in signal.get("mapping", {}).items():
        value = _look_up(original, path)
        if entry is None or value is None or entry[0] not in common:
            continue
        with suppress(Exception):  # the function fails where the value is not what the reader's author met
            common[entry[0]] = entry[1](value) if entry[1] is not None else value
    energies = [common[name] for name in _ENERGY_NAMES] + [_look_up(original, path) for path in _ENERGY_PATHS]
    titles = [common[_TITLE_NAME]] + [_look_up(original, path) for path in _TITLE_PATHS]
    sampling, remark = _credible_sampling(signal["axes"])
    return Recording(
        data=np.squeeze(np.asarray(signal["data"])),
        sampling=sampling,
        remark=remark,
        energy=next((energy for energy in map(_credible_energy, energies) if energy is not None), None),
        title=" ".join(dict.fromkeys(title for title in titles if isinstance(title, str) and title)),
    )


def _look_up(tree: Any, path: str) -> Any:
    """Value at a path of keys joined by dots in nested mappings, None where there is none.

    The paths of rosettasciio may have an underscore where the key has a space.
    """
    for key in path.split("."):
        if not isinstance(tree, Mapping):
            return None
        spelled = {str(name).replace(" ", "_"): name for name in tree}
        if key.replace(" ", "_") not in spelled:
            return None
        tree = tree[spelled[key.replace(" ", "_")]]
    return tree


def _credible_energy(value: Any) -> float | None:
    """Beam energy in eV from one in keV or eV, which their sizes tell apart, None if it is neither."""
    try:
        energy = float(np.ravel(value)[0])
    except (TypeError, ValueError, IndexError):
        return None
    lowest, highest = _CREDIBLE_ENERGY
    for in_ev in (energy, energy * 1e3):
        if lowest <= in_ev <= highest:
            return in_ev
    return None


def _credible_sampling(axes: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, float] | None, str]:
    """Return the sampling in Å/px along rows and columns, else None and why."""
    image_axes = [axis for axis in axes if axis.get("size") != 1]
    if len(image_axes) != 2:
        return None, "the file holds no axes of an image"
    samplings = []
    image_axes.sort(key=lambda axis: int(axis.get("index_in_array") or 0))
    for name, axis in zip(("rows", "columns"), image_axes, strict=True):
        scale, units = axis.get("scale"), str(axis.get("units") or "").strip().strip("[]")
        factor = _ANGSTROM.get(units.replace("_", "").replace("\u03bc", "\u00b5").replace("\u212b", "\u00e5").lower())
        given = f"the file gives {scale} {units or 'without units'} for the {name}"
        if factor is None or scale is None:
            return None, given
        sampling = float(scale) * factor
        lowest, highest = _CREDIBLE_SAMPLING
        if not lowest <= sampling < highest:
            return None, f"{given}, which is not credible"
        samplings.append(sampling)
    return (samplings[0], samplings[1]), ""


def _choose(recordings: Sequence[Recording], signal: int | str | None, path: Path) -> Recording:
    """Return the only recording or the one asked for by index or title; a number may come as text."""
    if not recordings:
        raise ReadError(f"path: {path.name} holds no image")
    listing = ", ".join(f"{i}: {entry.title or 'untitled'} {entry.data.shape}" for i, entry in enumerate(recordings))
    if signal is None:
        if len(recordings) > 1:
            raise ReadError(f"signal: {path.name} holds several, choose one by index or name, signal=... ({listing})")
        return recordings[0]
    titles = [entry.title for entry in recordings]
    if titles.count(str(signal)) == 1 and isinstance(signal, str):
        return recordings[titles.index(signal)]
    if str(signal).isdecimal() and int(signal) < len(recordings):
        return recordings[int(signal)]
    raise ReadError(f"signal: expected index or name of one of the signals of {path.name} ({listing}), got {signal!r}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the readers log and warn about off the screen: what matters of a file is checked afterwards."""
    loggers = [logging.getLogger(name) for name in ("rsciio", "tifffile")]
    disabled = [logger.disabled for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.disabled = True
            yield
    finally:
        for logger, value in zip(loggers, disabled, strict=True):
            logger.disabled = value
