"""What a micrograph file holds: its pixels and, where they are credible, sampling, beam energy and title."""

from __future__ import annotations

import gc
import glob
import importlib
import io
import logging
import math
import re
import struct
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem._bounds import check_fits, check_hdf5, check_zarr, in_words

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
    ".zspy": "rsciio.zspy",
}
SUFFIXES = (*_READERS, ".npy", ".png")
"""Suffixes of the files that can be read, in lower case."""

MAPPED_FROM = 2**28
"""Bytes of a file from which on its pixels, where they lie in it as they are, stay there until they are looked at."""

MOST_PACKED = 2000
"""Times its length that the pixels of a compressed TIF may be: noise is packed by two, zeros by a thousand."""

_SCANNED = "compute images of them: `contextem batch --annulus HAADF 70 200`, or contextem.virtual_images"
_DIFFRACTION = f"holds diffraction patterns, {_SCANNED}"
_LOSSY = "is a picture whose compression changed the grey values, export the micrograph itself, as tif or dm4"
_REFUSED = {
    ".blo": _DIFFRACTION,
    ".mib": _DIFFRACTION,
    ".jpeg": _LOSSY,
    ".jpg": _LOSSY,
    ".webp": _LOSSY,
}

_ANGSTROM = {
    "m": 1e10, "meter": 1e10, "meters": 1e10, "metre": 1e10, "metres": 1e10, "mm": 1e7,
    "µm": 1e4, "um": 1e4, "micron": 1e4, "microns": 1e4, "micrometer": 1e4, "nm": 10.0, "nanometer": 10.0,
    "å": 1.0, "a": 1.0, "angstrom": 1.0, "angstroms": 1.0, "ang": 1.0, "pm": 0.01,
}  # fmt: skip

_NO_LENGTH = r"1 ?/|\^-1|\bk?ev\b|rad\b"  # reciprocal lengths, energies, angles

# Å/px.  A sampling outside is a calibration never made, such as the 1 Å/px of an MRC header left at its defaults, or it
# is that of an image which cannot show single columns.
_CREDIBLE_SAMPLING = (0.005, 0.9)
_CREDIBLE_ENERGY = (10e3, 3e6)  # eV
# mrad.  What detectors in use reach; Velox writes 0 to 0 for angles that were never calibrated.
_CREDIBLE_OUTER = (5.0, 400.0)

_ENERGY_NAMES = ("Acquisition_instrument.TEM.beam_energy", "Acquisition_instrument.SEM.beam_energy")
_TITLE_NAME = "General.title"
_FILE_NAME = "General.original_filename"
# Where files say the same that no reader maps to a common name.
_ENERGY_PATHS = ("microscope.voltage",)
_TITLE_PATHS = ("ImageList.TagGroup0.ImageTags.DataBar.Signal Name",)
_PROCESSED = ("DCFI", "Unrecognized_image_signal")  # titles of images of one detector that leave out which
_EXTRAS = {"numcodecs": "batch", "scikit-image": "batch", "zarr": "batch"}  # that bring packages of readers


class ReadError(ValueError):
    """A file is not what it should be: unreadable, damaged, of an unknown format, or without a usable image."""


@dataclass(frozen=True)
class Recording:
    """What one image, or series of images, in a file holds; None where the file says nothing credible.

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
    part : str
        Name of the file the image lies in, where that is another than the one that was opened.
    angles : tuple of two floats or None
        Inner and outer collection semi-angle of the detector, mrad.
    framed : bool
        Whether three-dimensional data are images one after another, not spectra side by side.
    spatial : bool
        Whether the axes, as far as they have units, are those of an image and not of a diffraction pattern or spectrum.
    """

    data: NDArray[Any]
    sampling: tuple[float, float] | None = None
    remark: str = "the format has no place for it"
    energy: float | None = None
    title: str = ""
    part: str = ""
    angles: tuple[float, float] | None = None
    framed: bool = True
    spatial: bool = True

    @property
    def is_image(self) -> bool:
        """Whether the data are one image of real numbers."""
        return self.data.ndim == 2 and self.data.dtype.kind in "iuf"

    @property
    def is_series(self) -> bool:
        """Whether the data are several images of real numbers, (T, H, W)."""
        return self.data.ndim == 3 and self.data.size > 0 and self.data.dtype.kind in "iuf" and self.framed


def load(path: Path, signal: int | str | None = None, frame: int | None = None) -> Recording:
    """Read one image of a file.

    Parameters
    ----------
    path : Path
        File with one of `SUFFIXES`.
    signal : int or str, optional
        Index or name of the image, or series of images, in a file that holds several.
    frame : int, optional
        Index of the image in a series.

    Returns
    -------
    Recording
        Of one image.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If there is no such file.
    ReadError
        If the file cannot be read, or `signal` or `frame` is needed and not given, or not there.
    """
    recording = _read(path, signal)
    if not recording.is_series:
        if frame not in (None, 0):
            raise ReadError(f"frame: {path.name} holds one image and no series, leave it out; got {frame!r}")
        return recording
    count, height, width = recording.data.shape
    if frame is None:
        raise ReadError(
            f"frame: {path.name} holds a series of {count} images of {height} x {width} px, choose one as frame=... or "
            f"--frame (0 to {count - 1}), or read all with contextem.read_series, align and average them"
        )
    if isinstance(frame, bool) or not isinstance(frame, int) or not 0 <= frame < count:
        raise ReadError(f"frame: expected 0 to {count - 1}, the images of {path.name}, got {frame!r}")
    return replace(recording, data=recording.data[frame])


def open_recording(path: Path, signal: int | str | None = None) -> Recording:
    """Open an image or a series without reading its pixels, as far as the format allows that.

    Parameters
    ----------
    path, signal
        As for `load`.

    Returns
    -------
    Recording
        Its data may be memory-mapped, or lazy in another way: they are read by ``np.asarray(data[k])``.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, ReadError
        As for `load`.
    """
    return _read(path, signal, lazy=True)


def count_frames(path: Path, signal: int | str | None = None) -> int:
    """Return how many images a series holds, 1 for a single image, without reading them.

    Parameters
    ----------
    path, signal
        As for `load`.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, ReadError
        As for `load`.
    """
    recording = open_recording(path, signal)
    return len(recording.data) if recording.is_series else 1


def load_series(path: Path, signal: int | str | None = None) -> list[Recording]:
    """Read the images of a series, or the only image of a file.

    Parameters
    ----------
    path, signal
        As for `load`.

    Returns
    -------
    list of Recording
        In the order of the file.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, ReadError
        As for `load`.
    """
    recording = _read(path, signal)
    return [replace(recording, data=data) for data in recording.data] if recording.is_series else [recording]


def find_files(inputs: Sequence[Path], suffixes: Sequence[str] = SUFFIXES) -> tuple[list[Path], list[Path]]:
    """Return the files that are named, that match a pattern, or that lie in a folder.

    Parameters
    ----------
    inputs : sequence of Path
        Files, patterns with ``*``, ``?`` or ``[...]``, and folders.
    suffixes : sequence of str
        Of what can be read, in lower case.

    Returns
    -------
    files : list of Path
        Every file once, those of a folder or pattern sorted by name.  From folders only what can be read by its name,
        and of an EMI file the SER files that belong to it.
    skipped : list of Path
        What else the folders hold, hidden files apart.

    Raises
    ------
    FileNotFoundError
        If nothing matches a pattern.
    """
    files: list[Path] = []
    skipped: list[Path] = []
    for given in inputs:
        if given.is_dir() and not _is_store(given):
            entries = sorted(entry for entry in given.iterdir() if not entry.name.startswith("."))
            names = {entry.name for entry in entries}
            for entry in entries:
                readable = entry.suffix.lower() in suffixes and (entry.is_file() or _is_store(entry))
                # One recording is not read twice: the SER file, with what the EMI file says of it, stands for both.
                doubled = entry.suffix.lower() == ".emi" and f"{entry.stem}_1.ser" in names
                (files if readable and not doubled else skipped).append(entry)
        elif not given.exists() and glob.has_magic(str(given)):
            matches = sorted(map(Path, glob.glob(str(given))))  # noqa: PTH207 - Path.glob takes no absolute pattern
            if not matches:
                raise FileNotFoundError(f"path: no file matches {given}")
            files.extend(matches)
        else:
            files.append(given)
    return list(dict.fromkeys(files)), skipped


def _is_store(path: Path) -> bool:
    """Whether a folder is a file in the sense of a format."""
    return path.suffix.lower() in (".zarr", ".zspy")


def _read(path: Path, signal: int | str | None, *, lazy: bool = False) -> Recording:
    """Read what is asked for, an image or a series; its pixels only unless lazy."""
    check_there(path, SUFFIXES, _REFUSED)
    with reading(path):
        recording = _choose(_load_all(path, lazy), signal, path)
        if lazy:
            return recording
        check_fits(f"{path.name}:", recording.data.nbytes)
        return replace(recording, data=np.asarray(recording.data))


def check_there(
    path: Path,
    suffixes: Sequence[str],
    refused: Mapping[str, str],
    is_store: Callable[[Path], bool] | None = None,
) -> None:
    """Raise what is wrong with a file before it is opened: not there, a folder, empty, of a suffix that is not read."""
    suffix = path.suffix.lower()
    if path.is_dir() and not (is_store or _is_store)(path):
        raise IsADirectoryError(f"path: expected a file, {path} is a directory")
    if not path.exists():
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        meant = get_close_matches(path.name, beside, 1)
        guess = f", did you mean {path.with_name(meant[0])}?" if meant else ""
        raise FileNotFoundError(f"path: there is no file {path}{guess}")
    if suffix in refused:
        raise ReadError(f"path: {path.name} {refused[suffix]}")
    if suffix not in suffixes:
        raise ReadError(f"path: expected a file with one of {', '.join(suffixes)}, got {path.name}")
    if path.is_file() and path.stat().st_size == 0:
        raise ReadError(f"path: {path.name} is empty (0 bytes)")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Keep readers in the block quiet, and turn what they raise into a `ReadError` that names the file."""
    suffix = path.suffix.lower()
    with _quiet():
        try:
            yield
        except Exception as error:
            _let_go(error)
            if isinstance(error, PermissionError | ReadError):
                raise
            detail = " ".join(str(error).split()) or type(error).__name__
            package = _missing_package(error, suffix)
            if package is not None:
                lacking = f"path: {path.name} can only be read with the package {package}, which is not installed"
                if package in _EXTRAS:
                    raise ReadError(f"{lacking}, it comes with pip install 'contextem[{_EXTRAS[package]}]'") from error
                raise ReadError(
                    f"{lacking}, install it (pip install {package}) or save the image in another way ({detail[:200]})"
                ) from error
            raise ReadError(
                f"path: {path.name} cannot be read as {suffix}, it may be damaged, cut short or of "
                f"another format ({detail[:200]})"
            ) from error


def _let_go(error: Exception) -> None:
    """Close what a reader has left open where it failed, and have the error hold nothing of it.

    Files in cycles of references would stay open for long.
    """
    import tifffile

    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for value in [value for frame in frames for value in frame.f_locals.values()]:
        if isinstance(value, io.IOBase | tifffile.TiffFile):
            value.close()
    traceback.clear_frames(error.__traceback__)
    for frame in frames:
        frame.f_locals.keys()  # before Python 3.13 a frame keeps what was seen in it until it is looked at again


def _missing_package(error: Exception, suffix: str) -> str | None:
    """Name of the package a reader lacks: for a compression, for Zarr, for spectra beside the images."""
    named = re.search(r"'([\w.]+)' (?:package|library)", str(error))
    if named is None and not isinstance(error, ModuleNotFoundError):
        return None
    if suffix in (".tif", ".tiff"):
        return "imagecodecs"  # brings every compression, also those for which tifffile tries other packages first
    module = (named[1] if named else getattr(error, "name", None) or str(error)).split(".")[0]
    return {"skimage": "scikit-image"}.get(module, module)


def _load_all(path: Path, lazy: bool) -> list[Recording]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        data = _mapped_npy(path)  # which it is only if it is as long as it says
        data = np.asarray(data if lazy or _is_large(path) else np.array(data))
        return [Recording(data, framed=not _may_be_colour(data))]
    if suffix == ".png":
        return [_load_png(path)]
    reader = importlib.import_module(_READERS[suffix]).file_reader
    _check_claims(path, suffix, lazy)
    # The reader of tif files never closes one that is read lazily.
    options = {"lazy": lazy and suffix not in (".tif", ".tiff")} | (_emd_options(path) if suffix == ".emd" else {})
    signals = _described_by_emi(path, reader) if suffix == ".ser" else []
    if suffix in (".tif", ".tiff", ".mrc") and _is_large(path):
        signals = _mapped(path, reader)
    recordings = [_to_recording(signal, path.name) for signal in signals or reader(str(path), **options)]
    if not recordings and suffix == ".emi":
        raise ReadError(f"path: {path.name} describes images that lie in {path.stem}_1.ser, ..., and none is there")
    return recordings


def _check_claims(path: Path, suffix: str, lazy: bool) -> None:
    """Raise ValueError if a reader would take more memory than there is, or run what it reads.

    What is not compressed is as long as its file.  Of the files of py4DSTEM a reader takes no more than is asked for.
    """
    if suffix == ".zspy":
        check_zarr(path, lazily=lazy)
    elif suffix in (".emd", ".hspy"):
        import h5py

        with h5py.File(path) as file:
            if suffix == ".hspy" or "Version" in file:
                check_hdf5(file.get("Data/Image", file), path.name, lazily=lazy)
    elif suffix == ".mrc":
        with path.open("rb") as file:
            sides = struct.unpack("<3i", file.read(12).ljust(12, b"\0"))
        if min(sides) < 0 or math.prod(sides) > path.stat().st_size:  # whose chunks a reader would count for hours
            raise ValueError(f"expected pixels, got {path.stat().st_size} bytes that stand for {sides[::-1]} of them")
    elif suffix in (".tif", ".tiff") and not _is_large(path):
        import tifffile

        with path.open("rb") as file:
            claimed = sum(series.nbytes for series in tifffile.TiffFile(file).series)
        check_fits(f"{path.name}:", claimed)
        if claimed > MOST_PACKED * path.stat().st_size:  # to make up what is not there takes minutes
            raise ValueError(f"expected pixels, got {path.stat().st_size} bytes that stand for {in_words(claimed)}")


def _is_large(path: Path) -> bool:
    return path.stat().st_size >= MAPPED_FROM


def _mapped_npy(path: Path) -> NDArray[Any]:
    """Map the array of an NPY file; one that lies there column by column is read."""
    with path.open("rb") as file:
        if file.read(6) != np.lib.format.MAGIC_PREFIX:
            raise ReadError(f"path: {path.name} is no NPY file, by its first bytes; save the image with numpy.save")
    data: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return data if data.flags.c_contiguous else np.load(path, allow_pickle=False)


def _mapped(path: Path, reader: Callable[..., list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Read a TIF or MRC file, but for its pixels, which are mapped; nothing where they are compressed or scattered."""
    import tifffile

    try:
        pixels = None if path.suffix.lower() == ".mrc" else tifffile.memmap(path, series=0, mode="r")
    except ValueError:
        return []
    signals = reader(str(path), lazy=True)
    lazy = signals[0]["data"]
    if pixels is None:
        header = signals[0]["original_metadata"]["std_header"]
        pixels = np.memmap(path, lazy.dtype, "r", 1024 + int(np.ravel(header["NEXT"])[0]), lazy.shape)
    if len(signals) == 1 and pixels.shape == lazy.shape and lazy.dtype.kind in "iuf":
        signals[0]["data"] = pixels
    else:
        signals = []
    del lazy
    gc.collect()  # the reader of TIF leaves the file open for pixels that are read later
    return signals


def _emd_options(path: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(path) as file:
        velox = "Version" in file
    if velox:  # of images recorded together with spectra all frames
        return {"select_type": "images", "load_SI_image_stack": True}
    # An image of py4DSTEM lies inside the data it was made of, no stack with them, which may not fit into memory.
    return {"stack_group": False, "lazy": True}


def _described_by_emi(path: Path, reader: Callable[[str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Read a SER file as part of its EMI file, which knows the beam energy; return nothing where there is none."""
    belongs = re.fullmatch(r"(.+)_\d+", path.stem)
    description = path.with_name(f"{belongs[1]}.emi") if belongs else path
    if belongs and description.exists():
        with suppress(Exception):  # the SER file can be read without it
            signals = reader(str(description))
            return [signal for signal in signals if look_up(signal["metadata"], _FILE_NAME) == path.name]
    return []


def _load_png(path: Path) -> Recording:
    from PIL import Image

    with Image.open(path) as image:
        if image.mode not in ("L", "F", "I", "I;16", "I;16B", "I;16L"):
            raise ReadError(
                f"path: {path.name} is a picture in mode {image.mode}, expected grey values, "
                "export the grey micrograph itself"
            )
        return Recording(np.asarray(image))


def _to_recording(signal: Mapping[str, Any], file_name: str) -> Recording:
    """Turn one signal of a rosettasciio reader into a recording.

    The readers leave most metadata in the layout of the file and return a `mapping` from there to common names, path in
    the file's metadata -> (common name, function of the value), for the caller to apply.
    """
    original = signal.get("original_metadata", {})
    names = (*_ENERGY_NAMES, _TITLE_NAME, _FILE_NAME)
    common = {name: look_up(signal.get("metadata", {}), name) for name in names}
    for path, entry in signal.get("mapping", {}).items():
        value = look_up(original, path)
        if entry is None or value is None or entry[0] not in common:
            continue
        with suppress(Exception):  # the function fails where the value is not what the reader's author met
            common[entry[0]] = entry[1](value) if entry[1] is not None else value
    energies = [common[name] for name in _ENERGY_NAMES] + [look_up(original, path) for path in _ENERGY_PATHS]
    titles = [common[_TITLE_NAME]] + [look_up(original, path) for path in _TITLE_PATHS]
    if titles[0] in _PROCESSED:
        titles.append(look_up(original, "BinaryResult.Detector"))
    unit = re.search(r"^ImageJ=.*^unit=([^\n]*)", str(look_up(original, "ImageDescription")), re.DOTALL | re.MULTILINE)
    axes = [axis for axis in signal["axes"] if axis.get("size") != 1]
    if unit is not None:  # the reader knows no other than micron
        axes = [{**axis, "units": axis.get("units") or unit[1]} for axis in axes]
    axes.sort(key=lambda axis: int(axis.get("index_in_array") or 0))
    sampling, remark = credible_sampling(axes)
    return Recording(
        data=np.squeeze(signal["data"]),
        sampling=sampling,
        remark=remark,
        energy=next((energy for energy in map(credible_energy, energies) if energy is not None), None),
        title=" ".join(dict.fromkeys(title for title in titles if isinstance(title, str) and title)),
        part="" if common[_FILE_NAME] in (None, file_name) else str(common[_FILE_NAME]),
        angles=_credible_angles(original),
        framed=_are_framed(axes),
        spatial=not any(re.search(_NO_LENGTH, plain(str(axis.get("units")))) for axis in axes[-2:]),
    )


def look_up(tree: Any, path: str) -> Any:
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


def credible_energy(value: Any) -> float | None:
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


def _credible_angles(original: Mapping[str, Any]) -> tuple[float, float] | None:
    """Inner and outer collection semi-angle, mrad, that Velox writes in rad for each of its detectors."""
    detector = f"Detectors.Detector-{look_up(original, 'BinaryResult.DetectorIndex')}"
    limits = [look_up(original, f"{detector}.CollectionAngleRange.{end}") for end in ("begin", "end")]
    try:
        inner, outer = (round(1e3 * float(angle), 2) for angle in limits)
    except (TypeError, ValueError):
        return None
    lowest, highest = _CREDIBLE_OUTER
    return (inner, outer) if 0.0 <= inner < outer and lowest <= outer <= highest else None


def _are_framed(axes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last two of three axes are those of an image, and the first does not count energies."""
    if len(axes) != 3:
        return False
    first = f"{axes[0].get('name')} {axes[0].get('units')}".lower()
    spectral = re.search(f"energy|wavelength|{_NO_LENGTH}", first) is not None
    coloured = any(axis.get("name") == "sample" for axis in axes)  # of a tif: samples of a pixel
    return not (spectral or coloured or any(axis.get("navigate") for axis in axes[1:]))


def _may_be_colour(data: NDArray[Any]) -> bool:
    return data.ndim == 3 and data.shape[2] in (3, 4)


def credible_sampling(axes: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, float] | None, str]:
    """Return the sampling in Å/px along rows and columns, the last two axes, else None and why."""
    if not 2 <= len(axes) <= 3:
        return None, "the file holds no axes of an image"
    samplings = []
    for name, axis in zip(("rows", "columns"), axes[-2:], strict=True):
        scale, units = axis.get("scale"), str(axis.get("units") or "").strip().strip("[]")
        factor = _ANGSTROM.get(plain(units))
        given = f"the file gives {scale} {units or 'without units'} for the {name}"
        if factor is None or scale is None:
            return None, given
        sampling = float(scale) * factor
        lowest, highest = _CREDIBLE_SAMPLING
        if not lowest <= sampling < highest:
            return None, f"{given}, which is not credible"
        samplings.append(sampling)
    return (samplings[0], samplings[1]), ""


def plain(units: str) -> str:
    """Units in lower case, without the underscores of NCEM's EMD, escapes of ImageJ and twins of Unicode resolved."""
    units = re.sub(r"\\u([0-9A-Fa-f]{4})", lambda code: chr(int(code[1], 16)), units)
    return units.replace("_", "").replace("\u03bc", "\u00b5").replace("\u212b", "\u00e5").lower()


def _choose(recordings: Sequence[Recording], signal: int | str | None, path: Path) -> Recording:
    """Return the recording asked for by index or title, a number may come as text; by default the only one."""
    if not recordings:
        raise ReadError(f"path: {path.name} holds no image")
    names = [entry.title or entry.part or "untitled" for entry in recordings]
    listing = ", ".join(
        f"{i}: {name} {entry.data.shape}" for i, (name, entry) in enumerate(zip(names, recordings, strict=True))
    )
    if signal is None:
        # A line profile, a spectrum or a diffraction pattern beside the only image leaves no choice.
        images = [entry for entry in recordings if entry.is_image or entry.is_series]
        images = [entry for entry in images if entry.spatial] or images or list(recordings[:1])
        if len(images) > 1:
            raise ReadError(
                f"signal: {path.name} holds several images, choose one by index or name as signal=... or --signal "
                f"({listing})"
            )
        chosen = images[0]
    else:
        if names.count(str(signal)) == 1 and isinstance(signal, str):
            chosen = recordings[names.index(signal)]
        elif str(signal).isdecimal() and int(signal) < len(recordings):
            chosen = recordings[int(signal)]
        else:
            raise ReadError(
                f"signal: expected index or name of one of the signals of {path.name} ({listing}), got {signal!r}"
            )
    if chosen.data.ndim > 3 or (chosen.data.ndim == 3 and not chosen.framed and not _may_be_colour(chosen.data)):
        raise ReadError(
            f"path: {path.name} holds no image but data of shape {chosen.data.shape}, spectra or diffraction "
            f"patterns; of patterns, {_SCANNED}"
        )
    return chosen


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the readers log and warn about off the screen: what matters of a file is checked afterwards."""
    importlib.import_module("rsciio")  # sets its own level when it is imported
    loggers = [logging.getLogger(name) for name in ("rsciio", "tifffile")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)  # of the readers' own loggers below it, too
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
