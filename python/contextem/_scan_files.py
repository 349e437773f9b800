"""What the file of a scan of diffraction patterns holds: where they lie, and what it says of scan, angles and beam.

The files of HDF5 and Zarr are those of HyperSpy, of NCEM's EMD, to which those of Direct Electron and py4DSTEM belong,
and any other one with an array of four or three dimensions.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from contextem._bounds import check_zarr
from contextem._extras import needs_extra
from contextem._files import ReadError, check_there, credible_energy, credible_sampling, look_up, plain, reading
from contextem._patterns import Chunks, Partitions, Patterns, Records

HDF5_SUFFIXES = (".de5", ".emd", ".h5", ".hdf5", ".hspy")
ZARR_SUFFIXES = (".zarr", ".zspy")
LIBERTEM_SUFFIXES = (".frms6", ".gtg", ".hdr", ".seq", ".tvips", ".xml")
"""Read with LiberTEM: pnCCD, K2 IS, Merlin's and EMPAD's description beside the data, StreamPix, TVIPS."""

SCAN_SUFFIXES = (".blo", ".dm3", ".dm4", ".mib", ".mrc", ".npy", *HDF5_SUFFIXES, *ZARR_SUFFIXES, *LIBERTEM_SUFFIXES)
"""Suffixes of the files that may hold a scan, in lower case."""

_SQUARE_BY_DEFAULT = (".gtg", ".seq", ".tvips")  # LiberTEM takes scans in these files for square, which is a guess

# 1/Å, and mrad, by the spellings of `plain`, spaces, brackets and carets taken out
_WAVES = {"1/å": 1.0, "1/a": 1.0, "å-1": 1.0, "a-1": 1.0, "1/angstrom": 1.0, "1/nm": 0.1, "nm-1": 0.1, "1/m": 1e-10}
_ANGLES = {"mrad": 1.0, "rad": 1e3, "milliradian": 1.0, "radian": 1e3}


@dataclass(frozen=True)
class ScanRecording:
    """What a file holds of a scan; None where it says nothing credible.

    Attributes
    ----------
    patterns : Patterns
        The data.
    scan_shape : tuple of two ints or None
        Rows and columns.
    sampling : tuple of two floats or None
        Of the scan, Å/px along rows and columns.
    angles, waves : tuple of two floats or None
        Of a pattern along rows and columns: mrad/px, or 1/Å/px.
    energy : float or None
        Beam energy, eV.
    """

    patterns: Patterns
    scan_shape: tuple[int, int] | None = None
    sampling: tuple[float, float] | None = None
    angles: tuple[float, float] | None = None
    waves: tuple[float, float] | None = None
    energy: float | None = None


def load_scan(path: Path, signal: int | str | None, scan_shape: tuple[int, int] | None) -> ScanRecording:
    """Find the scan of a file.

    Parameters
    ----------
    path : Path
        File with one of `SCAN_SUFFIXES`.
    signal : int or str, optional
        Index or name of the data in a file that holds several.
    scan_shape : tuple of two ints, optional
        Rows and columns, for LiberTEM, which else takes what the file says.

    Returns
    -------
    ScanRecording

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If there is no such file.
    ReadError
        If the file cannot be read, is cut short, or holds no scan, or several and none is chosen.
    ModuleNotFoundError
        If LiberTEM is needed and not installed.
    """
    check_there(path, SCAN_SUFFIXES, {}, lambda folder: folder.suffix.lower() in ZARR_SUFFIXES)
    suffix = path.suffix.lower()
    if suffix in LIBERTEM_SUFFIXES:
        with needs_extra("libertem"):
            importlib.import_module("libertem.api")
    with reading(path):
        if suffix in LIBERTEM_SUFFIXES:
            found = {"": _libertem(path, scan_shape)}
        elif suffix in HDF5_SUFFIXES:
            found = _arrays(path, _opened_hdf5)
        elif suffix in ZARR_SUFFIXES:
            found = _arrays(path, _opened_zarr)
        else:
            found = {"": _SINGLE[suffix](path)}
        return _choose(found, signal, path)


def _choose(found: Mapping[str, ScanRecording], signal: int | str | None, path: Path) -> ScanRecording:
    """Return the scan asked for by index or name; by default the only one, one that has a shape before stacks."""
    names = list(found)
    listing = ", ".join(f"{i}: {name} {_shape_of(found[name])}" for i, name in enumerate(names))
    if not found:
        raise ReadError(f"path: {path.name} holds no diffraction patterns, expected data of 4 or 3 dimensions")
    if signal is None:
        scans = [name for name in names if found[name].scan_shape is not None] or names
        if len(scans) > 1:
            raise ReadError(
                f"signal: {path.name} holds several scans, choose one by index or name as signal=... or --signal "
                f"({listing})"
            )
        chosen = scans[0]
    elif str(signal) in names:
        chosen = str(signal)
    elif str(signal).isdecimal() and int(signal) < len(names):
        chosen = names[int(signal)]
    else:
        raise ReadError(
            f"signal: expected index or name of one of the scans of {path.name} ({listing}), got {signal!r}"
        )
    recording = found[chosen]
    if recording.patterns.dtype.kind not in "iuf":
        raise ReadError(f"path: {path.name} holds patterns of {recording.patterns.dtype}, expected real numbers")
    if min(recording.patterns.count, *recording.patterns.shape, recording.patterns.dtype.itemsize) < 1:
        raise ReadError(f"path: {path.name} holds patterns of {recording.patterns.shape} px, expected some pixels")
    if isinstance(recording.patterns, Records):
        recording.patterns.check_complete()
    return recording


def _shape_of(recording: ScanRecording) -> tuple[int, ...]:
    return (*(recording.scan_shape or (recording.patterns.count,)), *recording.patterns.shape)


# Formats of one scan a file


def _npy(path: Path) -> ScanRecording:
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, transposed, dtype = read(file)
        offset = file.tell()
    if transposed:
        raise ReadError(f"path: {path.name} is in Fortran order, save it with numpy.ascontiguousarray")
    return _contiguous(path, offset, shape, dtype)


def _mib(path: Path) -> ScanRecording:
    """Merlin's frames; the description beside them tells the shape of the scan where a line was triggered at a time."""
    from rsciio.quantumdetector._api import MIBProperties, parse_hdr_file

    frames = MIBProperties()
    frames.parse_file(str(path))
    if frames.raw or frames.dtype is None or frames.head_size is None:
        raise ReadError(f"path: {path.name} holds raw frames of the detector, convert it to mib of 8, 16 or 32 bit")
    stored = np.dtype(frames.dtype).newbyteorder(">")
    records = Records(path, 0, frames.head_size, 0, frames.merlin_size, stored)
    count = path.stat().st_size // records.stride
    scan_shape = None
    beside = path.with_suffix(".hdr")
    if beside.exists():
        with suppress(KeyError, ValueError, ZeroDivisionError):  # it is not needed where the user tells the shape
            said = parse_hdr_file(beside)
            total, columns = (int(said[f"Frames {name} (Number)"]) for name in ("in Acquisition", "per Trigger"))
            rows = total // columns
            # all in one row is a scan that was triggered once
            scan_shape = (rows, columns) if min(rows, columns) > 1 and total % columns == 0 else None
    if scan_shape is not None:
        count = max(count, math.prod(scan_shape))
    return ScanRecording(Records(path, 0, frames.head_size, count, frames.merlin_size, stored), scan_shape)


def _blo(path: Path) -> ScanRecording:
    """NanoMegas' blockfile; its pixels are lengths on the screen, and its camera length is seldom the true one."""
    from rsciio import blockfile

    signal = blockfile.file_reader(str(path), lazy=True)[0]
    header = signal["original_metadata"]["blockfile_header"]
    rows, columns, side = (int(header[name]) for name in ("NY", "NX", "DP_SZ"))
    return ScanRecording(
        Records(path, int(header["Data_offset_2"]), 6, rows * columns, (side, side), np.dtype(np.uint8)),
        (rows, columns),
        credible_sampling([{"scale": float(header[name]), "units": "nm"} for name in ("SY", "SX")])[0],
        energy=credible_energy(header["Beam_energy"]),
    )


def _mrc(path: Path) -> ScanRecording:
    """MRC, and the movies of Direct Electron with the description beside them."""
    from rsciio import mrc

    signal = mrc.file_reader(str(path), lazy=True)[0]
    described = signal["original_metadata"].get("de_metadata", {})
    if described.get("Scan - Type", "Raster") != "Raster":
        raise ReadError(f"path: {path.name} is a scan of another order than row by row, sort it with HyperSpy")
    header = signal["original_metadata"]["std_header"]
    data = signal["data"]
    recording = _contiguous(path, 1024 + int(header["NEXT"]), data.shape, data.dtype)
    scan = [axis for axis in signal["axes"] if axis["units"] == "nm" and axis["navigate"]]
    return replace(recording, sampling=_sampling(scan))


def _dm(path: Path) -> ScanRecording:
    """Gatan's format; it may hold an image of the scan for each pixel of the detector instead of patterns."""
    reader = importlib.import_module("rsciio.digitalmicrograph").file_reader
    signals = reader(str(path), lazy=True)
    numbers = [number for number, signal in enumerate(signals) if signal["data"].ndim == 4]
    if len(numbers) != 1:
        raise ReadError(f"path: {path.name} holds {len(numbers)} scans of diffraction patterns, expected one")
    signal = signals[numbers[0]]
    data, axes = signal["data"], sorted(signal["axes"], key=lambda axis: axis["index_in_array"])
    if any(_reciprocal(axis) for axis in axes[:2]):
        raise ReadError(
            f"path: {path.name} keeps the scan pixel by pixel of the detector, save it with HyperSpy, pattern by "
            "pattern"
        )
    image = "ImageList.TagGroup0"
    offset = look_up(signal["original_metadata"], f"{image}.ImageData.Data.offset")
    voltage = look_up(signal["original_metadata"], f"{image}.ImageTags.Microscope Info.Voltage")
    angles, waves = _calibration(axes[2:])
    return replace(
        _contiguous(path, int(offset), data.shape, data.dtype),
        sampling=_sampling(axes[:2]),
        angles=angles,
        waves=waves,
        energy=credible_energy(voltage),
    )


_SINGLE: Mapping[str, Callable[[Path], ScanRecording]] = {
    ".blo": _blo,
    ".dm3": _dm,
    ".dm4": _dm,
    ".mib": _mib,
    ".mrc": _mrc,
    ".npy": _npy,
}


def _libertem(path: Path, scan_shape: tuple[int, int] | None) -> ScanRecording:
    with needs_extra("libertem"):
        from libertem.api import Context
        from libertem.io.dataset.base import BufferedBackend

    options: dict[str, Any] = {} if scan_shape is None else {"nav_shape": scan_shape}
    data = Context.make_with("inline").load("auto", path=str(path), io_backend=BufferedBackend(), **options)
    navigation, shape = tuple(map(int, data.shape.nav)), tuple(map(int, data.shape.sig))
    if len(shape) != 2:
        raise ReadError(f"path: {path.name} holds patterns of shape {shape}, expected two dimensions")
    # it leaves out or makes up patterns where their number is not that of the scan
    differing = data.get_sync_offset_info()
    count = math.prod(navigation) + differing["frames_ignored_end"] - differing["frames_inserted_end"]
    patterns = Partitions(path, data, count, (shape[0], shape[1]), np.dtype(data.dtype))
    told = len(navigation) == 2 and path.suffix.lower() not in _SQUARE_BY_DEFAULT
    return ScanRecording(patterns, (navigation[0], navigation[1]) if told else None)


def _contiguous(path: Path, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> ScanRecording:
    """Take an array of 4 or 3 dimensions, without a gap between its patterns, for a scan."""
    if len(shape) not in (3, 4) or 0 in shape:
        raise ReadError(
            f"path: {path.name} holds data of shape {tuple(shape)}, expected diffraction patterns (sy, sx, ky, kx), or "
            "(T, ky, kx) one after another"
        )
    *scan, rows, columns = map(int, shape)
    records = Records(path, offset, 0, math.prod(scan), (rows, columns), dtype)
    return ScanRecording(records, (scan[0], scan[1]) if len(scan) == 2 else None)


# Formats of named arrays, HDF5 and Zarr


@contextmanager
def _opened_hdf5(path: Path) -> Iterator[Any]:
    import h5py

    with h5py.File(path) as file:
        yield file


@contextmanager
def _opened_zarr(path: Path) -> Iterator[Any]:
    with needs_extra("batch"):
        import zarr

    check_zarr(path, lazily=True)
    yield zarr.open(str(path), mode="r")


def _arrays(path: Path, opened: Callable[[Path], AbstractContextManager[Any]]) -> dict[str, ScanRecording]:
    """Return the arrays of 4 and 3 dimensions in a file, by name: that of their group, or their path."""
    with opened(path) as root:
        found: list[tuple[str, Any, Any]] = []
        if hasattr(root, "shape"):  # one array of Zarr
            found.append(("", root, None))
        elif hasattr(root, "visititems"):
            root.visititems(lambda name, item: found.append((name, item, item.parent)) if _many(item) else None)
        else:
            members = dict(root.members(max_depth=None))
            for name, item in sorted(members.items()):
                if _many(item):
                    found.append((name, item, members.get(name.rpartition("/")[0], root)))
        energy = None if hasattr(root, "shape") else _stated_energy(root)
        names = [name.rsplit("/", 2)[-2] if "/" in name else name for name, *_ in found]
        return {
            short if names.count(short) == 1 else name: _array(path, opened, name, array, group, energy)
            for short, (name, array, group) in zip(names, found, strict=True)
            if _many(array)
        }


def _many(item: Any) -> bool:
    return len(getattr(item, "shape", ())) in (3, 4) and 0 not in item.shape


def _array(
    path: Path,
    opened: Callable[[Path], AbstractContextManager[Any]],
    name: str,
    array: Any,
    group: Any,
    energy: float | None,
) -> ScanRecording:
    axes = [_axis(group, i) for i in range(len(array.shape))]
    kinds = [_reciprocal(axis) for axis in axes]
    told = any(kinds) and not all(kinds)
    # Files of NCEM begin with what changes fastest, those of py4DSTEM and Prismatic do not.
    ncem = group is not None and "emd_group_type" in group.attrs and "dim0" not in group
    backwards = ncem and name.endswith("data") and "4DSTEM_experiment" not in name
    backwards = (kinds[0] and not kinds[-1]) if told else backwards
    shape, axes = (tuple(array.shape)[::-1], axes[::-1]) if backwards else (tuple(array.shape), axes)
    *scan, rows, columns = shape
    scan_shape = (scan[0], scan[1]) if len(scan) == 2 else None
    patterns: Patterns | None = None
    place = None if backwards else _place(path, array)
    if place is not None:
        patterns = _contiguous(*place, shape, array.dtype).patterns
    else:
        chunks = getattr(array, "chunks", None) or (1,) * len(shape)
        chunks = chunks[::-1] if backwards else chunks
        if min(chunks) < 1:
            raise ReadError(f"path: {path.name} holds {name or 'an array'} in chunks of {chunks}, expected some pixels")
        patterns = Chunks(
            path,
            partial(_opened_array, opened, path, name),
            scan_shape or (scan[0], 1),
            (rows, columns),
            np.dtype(array.dtype).newbyteorder("="),
            (chunks[0], chunks[1] if len(scan) == 2 else 1),
            ("scan" if len(scan) == 2 else "stack") + (" reversed" if backwards else ""),
        )
    sampling = None if scan_shape is None else _sampling(axes[:2])
    return ScanRecording(patterns, scan_shape, sampling, *_calibration(axes[-2:]), energy)


@contextmanager
def _opened_array(opened: Callable[[Path], AbstractContextManager[Any]], path: Path, name: str) -> Iterator[Any]:
    with opened(path) as root:
        yield root[name] if name else root


def _place(path: Path, array: Any) -> tuple[Path, int] | None:
    """File and offset of an array that lies there in one piece as it is in memory, None where it does not."""
    if hasattr(array, "id"):  # HDF5
        if array.chunks is not None or array.external or array.is_virtual or array.file.userblock_size:
            return None
        offset = array.id.get_offset()
        return None if offset is None else (path, int(offset))
    if array.chunks != array.shape or getattr(array, "shards", None) is not None or array.filters or array.compressors:
        return None
    if array.order != "C":
        return None
    key = array.metadata.encode_chunk_key((0,) * len(array.shape))
    file = path / array.path / key
    return (file, 0) if file.is_file() and file.stat().st_size == array.nbytes else None


def _axis(group: Any, number: int) -> dict[str, Any]:
    """Scale and units of an axis of the data in a group of HyperSpy, or of EMD, which counts from 0 or from 1."""
    if group is None:
        return {"scale": None, "units": ""}
    if f"axis-{number}" in group:
        said = group[f"axis-{number}"].attrs
        return {"scale": said.get("scale"), "units": _text(said.get("units"))}
    first = 0 if "dim0" in group else 1
    if f"dim{number + first}" in group:
        dimension = group[f"dim{number + first}"]
        values = np.ravel(dimension[...])
        if values.dtype.kind in "iuf" and values.size > 1:
            return {"scale": float(values[1] - values[0]), "units": _text(dimension.attrs.get("units"))}
    return {"scale": None, "units": ""}


def _stated_energy(root: Any) -> float | None:
    """Beam energy where HyperSpy and NCEM write it, eV."""
    places = [("microscope", "voltage")]
    if "Experiments" in root:
        inside = [f"Experiments/{name}/metadata/Acquisition_instrument/TEM" for name in root["Experiments"]]
        places += [(place, "beam_energy") for place in inside]
    stated = [credible_energy(root[place].attrs.get(name)) for place, name in places if place in root]
    return next((energy for energy in stated if energy is not None), None)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")


# Axes


def _sampling(axes: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    return credible_sampling(axes)[0] if len(axes) == 2 else None


def _spelling(axis: Mapping[str, Any]) -> str:
    return re.sub(r"[\s^()\[\]]", "", plain(str(axis.get("units") or ""))).replace("\u207b\u00b9", "-1").lower()


def _reciprocal(axis: Mapping[str, Any]) -> bool:
    return _spelling(axis) in _WAVES or _spelling(axis) in _ANGLES


def _calibration(
    axes: Sequence[Mapping[str, Any]],
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Return mrad/px, and 1/Å/px, of the rows and columns of a pattern; None for what the units are not."""
    both = []
    for factors in (_ANGLES, _WAVES):
        values = [
            abs(float(axis["scale"])) * factors[_spelling(axis)]
            for axis in axes
            if _spelling(axis) in factors and axis["scale"]
        ]
        both.append((values[0], values[1]) if len(values) == 2 else None)
    return both[0], both[1]
