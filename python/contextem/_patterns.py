"""Diffraction patterns in files, read block by block into one buffer that is used again.

    Records      one run of records of the same size, each a header and a pattern, read at an offset
    Chunks       an array of HDF5 or Zarr in chunks, which may be compressed, read chunk by chunk
    Partitions   what LiberTEM reads

What is in memory does not grow with the file.  Files are not mapped into memory, since what is mapped counts as the
system likes.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from contextem._extras import needs_extra
from contextem._files import ReadError

Job = tuple[int, ...]
Read = Callable[[Job], Iterator[tuple[int, NDArray[Any]]]]
Empty = Callable[[Any, Any], NDArray[Any]]
"""Returns memory of a shape and dtype, as `numpy.empty` does."""


class Patterns(Protocol):
    """The diffraction patterns of a file in the order of the scan.

    `jobs` divides them into pieces that fit into so many bytes, in the order of the file; `open` yields what reads one
    piece after another, as blocks of patterns that follow each other, with the number of their first one; a block is
    valid until the next.  `pick` reads single patterns, of which the numbers rise, and tells which one it yields.
    """

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Of a pattern, (ky, kx)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels, in the byte order of the machine."""
        ...

    @property
    def least(self) -> int:
        """Bytes without which nothing can be read."""
        ...

    def jobs(self, nbytes: int) -> list[Job]:
        """Divide the patterns."""
        ...

    def open(self, nbytes: int, empty: Empty | None = None) -> AbstractContextManager[Read]:
        """Yield what reads a job made for as many bytes; into memory that `empty` gives where one is wanted."""
        ...

    def pick(self, numbers: Sequence[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        """Read single patterns."""
        ...


@dataclass(frozen=True)
class Records:
    """Patterns in one run of records of the same size.

    Attributes
    ----------
    path : Path
        The file.
    offset : int
        Bytes before the first record.
    header : int
        Bytes of a record before its pattern.
    count : int
        Records.
    shape : tuple of two ints
        Of a pattern.
    stored : dtype
        Of the pixels in the file.
    """

    path: Path
    offset: int
    header: int
    count: int
    shape: tuple[int, int]
    stored: np.dtype[Any]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored.newbyteorder("=")

    @property
    def stride(self) -> int:
        """Bytes of a record."""
        return self.header + math.prod(self.shape) * self.stored.itemsize

    @property
    def least(self) -> int:
        return self.stride

    def check_complete(self) -> Records:
        """Raise if the file ends before its last record does."""
        there = max(0, self.path.stat().st_size - self.offset) // self.stride
        if there < self.count:
            raise ReadError(
                f"path: {self.path.name} ends after {there} of {self.count} patterns, it was cut short; copy it again, "
                "or keep the rows of the scan that are whole"
            )
        return self

    def jobs(self, nbytes: int) -> list[Job]:
        _check_memory(self.path, self.least, nbytes, "a pattern has")
        return _pieces(self.count, nbytes // self.stride)

    @contextmanager
    def open(self, nbytes: int, empty: Empty | None = None) -> Iterator[Read]:
        with self.path.open("rb", buffering=0) as file:
            copied = empty is not None or not self.stored.isnative
            take = self._copied(file, nbytes, empty or np.empty) if copied else partial(self._mapped, file)

            def read(job: Job) -> Iterator[tuple[int, NDArray[Any]]]:
                first, stop = job
                records = take(self.offset + first * self.stride, (stop - first) * self.stride)
                block = records.reshape(-1, self.stride)[:, self.header :].view(self.stored).reshape(-1, *self.shape)
                yield first, block if self.stored.isnative else block.byteswap(inplace=True).view(self.dtype)

            yield read

    def _mapped(self, file: FileIO, start: int, size: int) -> NDArray[np.uint8]:
        """Map a piece of the file, until nothing looks at it any more."""
        self._check_length(start + size)
        before = start % mmap.ALLOCATIONGRANULARITY
        piece = mmap.mmap(file.fileno(), before + size, access=mmap.ACCESS_READ, offset=start - before)
        return np.frombuffer(piece, np.uint8, size, before)

    def _copied(self, file: FileIO, nbytes: int, empty: Empty) -> Callable[[int, int], NDArray[np.uint8]]:
        """Return what reads a piece of the file into memory that is used again."""
        buffer = empty(min(self.count, nbytes // self.stride) * self.stride, np.uint8)

        def take(start: int, size: int) -> NDArray[np.uint8]:
            self._check_length(start + size)
            wanted = memoryview(buffer.data)[:size]
            file.seek(start)
            while wanted:
                wanted = wanted[file.readinto(wanted) or self._ended() :]
            return buffer[:size]

        return take

    def _check_length(self, length: int) -> None:
        """Raise if the file has become shorter than so many bytes."""
        if self.path.stat().st_size < length:
            self._ended()

    def _ended(self) -> int:
        raise ReadError(f"path: {self.path.name} has become shorter while it was read")

    def pick(self, numbers: Sequence[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        with self.open(self.stride, np.empty) as read:
            for number in numbers:
                for _, block in read((number, number + 1)):
                    yield number, block[0]


@dataclass(frozen=True)
class Chunks:
    """Patterns in an array that is read by slices.

    Attributes
    ----------
    path : Path
        The file.
    opened : callable
        Opens the array.
    scan_shape : tuple of two ints
        Rows and columns; of a stack (T, ky, kx) T and 1.
    shape : tuple of two ints
        Of a pattern.
    dtype : dtype
        Of the pixels, in the byte order of the machine.
    chunk : tuple of two ints
        Rows and columns of the scan in a chunk.
    axes : str
        How the axes lie in the array: ``"scan"`` (sy, sx, ky, kx), ``"stack"`` (T, ky, kx), or either ``"reversed"``.
    """

    path: Path
    opened: Callable[[], AbstractContextManager[Any]]
    scan_shape: tuple[int, int]
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    chunk: tuple[int, int]
    axes: str = "scan"

    @property
    def count(self) -> int:
        return math.prod(self.scan_shape)

    @property
    def least(self) -> int:
        # as much again as the buffer holds is needed to take the chunks apart
        return 2 * math.prod(map(min, self.chunk, self.scan_shape)) * self._pattern

    @property
    def _pattern(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def jobs(self, nbytes: int) -> list[Job]:
        _check_memory(self.path, self.least, nbytes, "its chunks have, with what it takes to decompress them,")
        patterns = nbytes // 2 // self._pattern
        (rows, columns), (high, wide) = self.scan_shape, map(min, self.chunk, self.scan_shape)
        across = min(columns, patterns // high // wide * wide)
        down = patterns // columns // high * high if across == columns else high
        return [(*band, *part) for band in _pieces(rows, max(down, high)) for part in _pieces(columns, across)]

    @contextmanager
    def open(self, nbytes: int, empty: Empty | None = None) -> Iterator[Read]:
        buffer = (empty or np.empty)((min(self.count, nbytes // 2 // self._pattern), *self.shape), self.dtype)
        with self.opened() as array:

            def read(job: Job) -> Iterator[tuple[int, NDArray[Any]]]:
                first, last, left, right = job
                across = right - left
                block = buffer[: (last - first) * across]
                self._copy(array, job, block)
                if across == self.scan_shape[1]:
                    yield first * across, block
                    return
                for row in range(first, last):
                    yield row * self.scan_shape[1] + left, block[(row - first) * across :][:across]

            yield read

    def pick(self, numbers: Sequence[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        (rows, columns), (high, wide) = self.scan_shape, map(min, self.chunk, self.scan_shape)
        chunks: dict[tuple[int, int], list[int]] = {}
        for number in numbers:
            row, column = divmod(number, columns)
            chunks.setdefault((row // high * high, column // wide * wide), []).append(number)
        buffer = np.empty((high * wide, *self.shape), dtype=self.dtype)
        with self.opened() as array:
            for (top, left), chosen in chunks.items():  # each is taken apart once
                bottom, right = min(top + high, rows), min(left + wide, columns)
                block = buffer[: (bottom - top) * (right - left)]
                self._copy(array, (top, bottom, left, right), block)
                for number in chosen:
                    row, column = divmod(number, columns)
                    yield number, block[(row - top) * (right - left) + column - left]

    def _copy(self, array: Any, job: Job, block: NDArray[Any]) -> None:
        """Read a piece of the scan into memory that is there."""
        rows, columns = slice(*job[:2]), slice(*job[2:])
        where = (rows,) if self.axes.startswith("stack") else (rows, columns)
        shape = tuple(part.stop - part.start for part in where)
        target = block.reshape(*shape, *self.shape)
        try:
            if self.axes.endswith("reversed"):
                target[...] = np.asarray(array[(..., *where[::-1])]).T
            elif hasattr(array, "read_direct"):
                array.read_direct(target, where)
            else:
                target[...] = array[where]
        except OSError as error:
            raise ReadError(
                f"path: {self.path.name} cannot be read from row {job[0]} of the scan on ({error})"
            ) from error


@dataclass(frozen=True)
class Partitions:
    """Patterns that LiberTEM reads.

    Attributes
    ----------
    path : Path
        The file.
    data : libertem DataSet
        What LiberTEM found there.
    count : int
        Patterns.
    shape : tuple of two ints
        Of a pattern.
    dtype : dtype
        Of the pixels.
    """

    path: Path
    data: Any
    count: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    @property
    def least(self) -> int:
        return 2 * math.prod(self.shape) * self.dtype.itemsize

    def jobs(self, nbytes: int) -> list[Job]:
        _check_memory(self.path, self.least, nbytes, "a pattern has twice over")
        return [(number,) for number, _ in enumerate(self.data.get_partitions())]

    @contextmanager
    def open(self, nbytes: int, empty: Empty | None = None) -> Iterator[Read]:
        partitions = list(self.data.get_partitions())
        depth = max(1, nbytes // self.least)

        def read(job: Job) -> Iterator[tuple[int, NDArray[Any]]]:
            yield from self._tiles(partitions[job[0]], depth)

        yield read

    def pick(self, numbers: Sequence[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        chosen = np.zeros(self.count, dtype=bool)
        chosen[list(numbers)] = True
        tiles = (block for piece in self.data.get_partitions() for _, block in self._tiles(piece, 1, chosen))
        for number, block in zip(numbers, tiles, strict=True):
            yield number, block[0]

    def _tiles(
        self, piece: Any, depth: int, chosen: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        with needs_extra("libertem"):
            from libertem.common import Shape
            from libertem.io.dataset.base import TilingScheme

        tile_shape = Shape((depth, *self.shape), sig_dims=2)
        scheme = TilingScheme.make_for_shape(tileshape=tile_shape, dataset_shape=self.data.shape)
        for tile in piece.get_tiles(scheme, dest_dtype=self.dtype, roi=chosen):
            yield int(tile.tile_slice.origin[0]), np.asarray(tile.data)


def _pieces(count: int, size: int) -> list[Job]:
    return [(first, min(first + size, count)) for first in range(0, count, size)]


def _check_memory(path: Path, least: int, nbytes: int, what: str) -> None:
    if nbytes < least:
        raise ReadError(
            f"memory: {path.name} cannot be read in {nbytes / 2**20:.4g} MiB, {what} {least / 2**20:.4g} MiB; give "
            "more as memory=... or --memory, or save it in smaller chunks"
        )
