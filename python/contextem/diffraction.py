"""Scans of diffraction patterns (4D-STEM) in files: shape, calibration and origin of each, and the patterns in blocks.

Where a file gives reciprocal lengths, its angular sampling is wavelength times that of k, with the relativistic

    wavelength = h c / sqrt(E (E + 2 m c^2))
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem._files import ReadError
from contextem._patterns import Patterns
from contextem._scan_files import SCAN_SUFFIXES, load_scan
from contextem.micrograph import SAMPLING_RANGE, SQUARE_PIXELS, check_energy, check_number

__all__ = ["SCAN_SUFFIXES", "DiffractionScan", "read_scan", "wavelength"]

ANGULAR_SAMPLING_RANGE = (1e-3, 100.0)
"""Angular samplings that a diffraction pattern may have, mrad/px."""

BLOCK = 16 * 2**20
"""Bytes of a block: what it costs to ask for one is little beside reading it."""

_HC = 12398.41984  # eV Å
_REST_ENERGY = 510998.95  # eV


@dataclass(frozen=True)
class DiffractionScan:
    """Diffraction patterns on a grid of scan positions, in a file.

    Attributes
    ----------
    shape : tuple of four ints
        (sy, sx, ky, kx): rows and columns of the scan, and of a pattern.  Rows of a pattern are in the order of the
        file; HyperSpy shows those of mib files upside down.
    dtype : dtype
        Of the pixels, in the byte order of the machine.
    sampling : float or None
        Of the scan, Å/px.
    angular_sampling : float or None
        Of a pattern, mrad/px.
    energy : float or None
        Beam energy, eV.
    provenance : dict of str to str
        Whether a value that is known comes from the ``"file"`` or the ``"user"``, by name; ``"scan_shape"`` too.
        Beside them the ``"signal"``, where one was chosen.
    source : str
        Name of the file.
    patterns : Patterns
        Where the patterns lie and how they are read.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    sampling: float | None
    angular_sampling: float | None
    energy: float | None
    provenance: dict[str, str]
    source: str
    patterns: Patterns = field(repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        """Size of the pixels, bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def blocks(self, nbytes: int = BLOCK) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield all patterns, block by block, in the order of the file.

        Parameters
        ----------
        nbytes : int
            What may be in memory.

        Yields
        ------
        first : int
            Number of the first pattern of the block; that at row r and column c of the scan is number r sx + c.
        block : ndarray, shape (S, ky, kx)
            Patterns that follow each other.  Valid until the next block is asked for, which takes the same memory.

        Raises
        ------
        ReadError
            If the file cannot be read, or not in so little memory.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "scan.npy"
        ...     np.save(path, np.arange(6 * 16, dtype="uint16").reshape(2, 3, 4, 4))
        ...     [(first, block.shape) for first, block in read_scan(path).blocks(nbytes=150)]
        [(0, (4, 4, 4)), (4, (2, 4, 4))]
        """
        jobs = self.patterns.jobs(nbytes)
        with self.patterns.open(nbytes) as read:
            for job in jobs:
                yield from read(job)


def read_scan(
    path: str | os.PathLike[str],
    *,
    sampling: float | None = None,
    angular_sampling: float | None = None,
    energy: float | None = None,
    scan_shape: tuple[int, int] | None = None,
    signal: int | str | None = None,
) -> DiffractionScan:
    """Open a file of diffraction patterns; none of them is read yet.

    Parameters
    ----------
    path : str or path-like
        mib, blo, mrc, npy, dm3, dm4, HDF5 (hspy, emd, de5, h5), Zarr (zarr, zspy); with the extra ``libertem`` also
        frms6, gtg, seq, tvips and those that an hdr or xml file describes.
    sampling : float, optional
        Of the scan, Å/px.
    angular_sampling : float, optional
        Of a pattern, mrad/px.
    energy : float, optional
        Beam energy, eV; without it reciprocal lengths are no angles.
    scan_shape : tuple of two ints, optional
        Rows and columns of the scan, for files that hold patterns one after another.
    signal : int or str, optional
        Index or name of the scan in a file that holds several.

    Returns
    -------
    DiffractionScan
        What is given stands before what the file says.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If there is no such file.
    ReadError
        If the file cannot be read, is cut short, holds no scan, or several and none is chosen.
    ValueError, TypeError
        If an argument is not a possible one, or the shape of the scan is not that of the file or not known.
    ModuleNotFoundError
        If LiberTEM is needed and not installed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "scan.npy"
    ...     np.save(path, np.zeros((6, 4, 4), dtype="uint16"))
    ...     scan = read_scan(path, sampling=0.2, angular_sampling=1.5, scan_shape=(2, 3))
    >>> scan.shape, scan.provenance
    ((2, 3, 4, 4), {'sampling': 'user', 'angular_sampling': 'user', 'scan_shape': 'user'})
    """
    path = Path(path)
    if scan_shape is not None:
        scan_shape = check_scan_shape(scan_shape)
    given: dict[str, float | None] = {
        "sampling": None if sampling is None else check_number("sampling", sampling, "Å/px", SAMPLING_RANGE),
        "angular_sampling": None if angular_sampling is None else check_angular_sampling(angular_sampling),
        "energy": None if energy is None else check_energy(energy),
    }
    found = load_scan(path, signal, scan_shape)
    known = dict(given)
    known["energy"] = found.energy if given["energy"] is None else given["energy"]
    if given["sampling"] is None:
        known["sampling"] = _square(found.sampling, "sampling", "Å", path.name)
    if given["angular_sampling"] is None:
        angles = found.angles
        if angles is None and found.waves is not None and known["energy"] is not None:
            factor = 1e3 * wavelength(known["energy"])
            angles = (factor * found.waves[0], factor * found.waves[1])
        if angles is not None and not all(_is_credible(angle) for angle in angles):
            angles = None
        known["angular_sampling"] = _square(angles, "angular_sampling", "mrad", path.name)
    shape = _join_scan_shape(scan_shape, found.scan_shape, found.patterns.count, path.name)
    provenance = {name: "file" if given[name] is None else "user" for name, value in known.items() if value is not None}
    provenance |= {"scan_shape": "file" if scan_shape is None else "user"}
    return DiffractionScan(
        shape=(*shape, *found.patterns.shape),
        dtype=found.patterns.dtype,
        **known,
        provenance=provenance | ({} if signal is None else {"signal": str(signal)}),
        source=path.name,
        patterns=found.patterns,
    )


def wavelength(energy: float) -> float:
    """Return the relativistic wavelength of electrons.

    Parameters
    ----------
    energy : float
        eV.

    Returns
    -------
    float
        Å.

    Examples
    --------
    >>> round(wavelength(80e3), 5), round(wavelength(300e3), 5)
    (0.04176, 0.01969)
    """
    return _HC / math.sqrt(energy * (energy + 2.0 * _REST_ENERGY))


def check_angular_sampling(angular_sampling: float) -> float:
    """Return an angular sampling in mrad/px as a float, if it is a possible one, else raise what is wrong."""
    return check_number("angular_sampling", angular_sampling, "mrad/px", ANGULAR_SAMPLING_RANGE)


def check_scan_shape(scan_shape: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns of a scan, if they are two whole numbers above 0, else raise what is wrong."""
    numbers = tuple(scan_shape) if isinstance(scan_shape, list | tuple) else ()
    if len(numbers) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers):
        raise ValueError(f"scan_shape: expected the numbers of rows and columns such as (256, 256), got {scan_shape!r}")
    return numbers[0], numbers[1]


def _join_scan_shape(
    given: tuple[int, int] | None, stated: tuple[int, int] | None, count: int, source: str
) -> tuple[int, int]:
    """Return the shape of a scan of so many patterns, from the user or from the file."""
    shape = given or stated
    if shape is None:
        side = math.isqrt(count)
        such = f" such as {side} {side}" if side**2 == count else ""
        raise ValueError(
            f"scan_shape: {source} holds {count} patterns one after another and does not tell rows and columns of the "
            f"scan, give them as scan_shape=(rows, columns) or --scan-shape{such}"
        )
    wanted = math.prod(shape)
    if wanted > count:
        raise ValueError(
            f"scan_shape: {source} holds {count} patterns, {wanted - count} fewer than a scan of {shape[0]} x "
            f"{shape[1]} has; give the rows that are whole ({count // shape[1]} of {shape[1]} patterns), or copy the "
            "file again"
        )
    if wanted < count:
        raise ValueError(
            f"scan_shape: {source} holds {count} patterns, {count - wanted} more than a scan of {shape[0]} x "
            f"{shape[1]} has; patterns of the flyback count as columns of each row, others have to be taken out of the "
            "file"
        )
    if given is not None and stated is not None and given != stated:
        raise ValueError(
            f"scan_shape: {source} says {stated[0]} x {stated[1]}, got {given[0]} x {given[1]}; leave it out"
        )
    return shape


def _square(values: tuple[float, float] | None, name: str, unit: str, source: str) -> float | None:
    """Return the sampling of square pixels."""
    if values is None:
        return None
    rows, columns = values
    if abs(rows - columns) > SQUARE_PIXELS * min(rows, columns):
        raise ReadError(
            f"{name}: {source} has pixels that are not square, {rows:.4g} {unit} from row to row and {columns:.4g} "
            f"{unit} from column to column; give one value as {name}=... or --{name.replace('_', '-')}"
        )
    return math.sqrt(rows * columns)


def _is_credible(angle: float) -> bool:
    return ANGULAR_SAMPLING_RANGE[0] <= angle <= ANGULAR_SAMPLING_RANGE[1]
