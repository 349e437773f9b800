"""What a file may ask for, checked before memory is taken: a few bytes can claim 10^15 numbers.

Text is read up to a length, arrays up to half of the memory that this process may use.
"""

from __future__ import annotations

import json
import math
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

TEXT = 1 << 24
"""Bytes of JSON that are read: more than any file of this package has."""


def usable_memory() -> int:
    """Return the memory that this process may use, bytes: that of the machine, or less by its control group or limits.

    Examples
    --------
    >>> usable_memory() > 1 << 20
    True
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *_group_limits(), *_process_limits()])


def in_words(size: float) -> str:
    """Return a number of bytes with its unit.

    Examples
    --------
    >>> in_words(3 << 29), in_words(1 << 20)
    ('1.5 GiB', '1 MiB')
    """
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"


def check_fits(name: str, nbytes: float) -> None:
    """Raise ValueError if so many bytes are more than half of the memory that this process may use."""
    if nbytes > (most := usable_memory() // 2):
        raise ValueError(
            f"{name} asks for {in_words(nbytes)}, more than {in_words(most)}, half of the memory there is; "
            "it may be damaged or made to do harm, or needs a larger machine"
        )


def read_text(path: Path, most: int = TEXT) -> str:
    """Return the text of a file in UTF-8; raise ValueError where it is none or longer than so many bytes."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{path}: expected at most {most} bytes of text, got more")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, got something else ({error.reason})") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a file holds as JSON; raise ValueError where it holds anything else."""
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON, got something else ({error})") from error
    except RecursionError as error:
        raise ValueError(f"{path}: expected JSON, got too many brackets in each other") from error
    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004 - of what a file says
            f"{path}: expected a JSON object, got {type(value).__name__}"
        )
    return value


@contextmanager
def open_npz(file: str | os.PathLike[str] | IO[bytes]) -> Iterator[Mapping[str, Any]]:
    """Open an NPZ archive whose arrays fit into memory; no object is ever unpickled.

    An archive tells how long its members are, and none is unpacked beyond what it tells.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as error:
        raise ValueError(f"{file}: expected an NPZ archive, got something else ({error})") from error
    check_fits(f"{file}:", claimed)
    if not isinstance(file, str | os.PathLike):
        file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        yield arrays


def check_hdf5(group: Any, name: str, *, lazily: bool = False) -> None:
    """Raise ValueError if arrays below a group of HDF5 lie in another file or, unless lazily, do not fit into memory.

    The fill value of an array takes no room in a file, and what lies in another file is nothing that was given away.
    """
    import h5py

    claimed = 0

    def look(_: str, item: Any) -> None:
        nonlocal claimed
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise ValueError(f"{name}: expected its own data, got {item.name} that lies in another file")
            claimed += (item.size or 0) * item.dtype.itemsize
        elif isinstance(item, h5py.Group):
            for key in item:
                if isinstance(item.get(key, getlink=True), h5py.ExternalLink):
                    raise ValueError(  # noqa: TRY004 - of what a file says
                        f"{name}: expected its own data, got {key} that lies in another file"
                    )

    look("", group)
    group.visititems(look)
    check_fits(f"{name}:", 0 if lazily else claimed)


def check_zarr(folder: Path, *, lazily: bool = False) -> None:
    """Raise ValueError if arrays in a folder of Zarr run what is read or, unless lazily, do not fit into memory.

    One of the codecs that arrays may ask for unpickles objects.
    """
    claimed = 0
    for path in sorted(folder.rglob("*")):
        if path.name in ("zarr.json", ".zarray", ".zmetadata"):
            told = read_json(path)
            if _unpickles(told):
                raise ValueError(f"{path}: expected numbers and text, got pickled objects, which are code")
            if isinstance(shape := told.get("shape"), list):
                claimed += math.prod(side for side in shape if isinstance(side, int))  # of a byte at least
    check_fits(f"{folder.name}:", 0 if lazily else claimed)


def _unpickles(tree: Any) -> bool:
    if isinstance(tree, list):
        return any(map(_unpickles, tree))
    if not isinstance(tree, dict):
        return False
    codec = tree.get("id", tree.get("name"))
    return (isinstance(codec, str) and codec.endswith("pickle")) or any(map(_unpickles, tree.values()))


def _process_limits() -> Iterator[int]:
    """Yield the limits that a shell has set by ulimit, bytes."""
    if sys.platform == "win32":
        return
    import resource

    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit


def _group_limits(root: Path = Path("/sys/fs/cgroup"), told: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yield the limits of the control group that a container or a scheduler has put this process into, bytes."""
    with suppress(OSError):
        for line in told.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            name = "memory.max" if controllers == "" else "memory.limit_in_bytes"
            if controllers and "memory" not in controllers.split(","):
                continue
            folder = (root if controllers == "" else root / "memory") / group.lstrip("/")
            for above in (folder, *folder.parents):
                with suppress(OSError, ValueError):  # "max" is no number
                    yield int((above / name).read_text())
                if above == root:
                    break
