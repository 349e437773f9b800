"""Arrays of the host through a card piece by piece, for inputs beyond its memory.

    staging   host array -> page-locked memory          by the CPU, while the card copies and computes
    copying   page-locked memory -> card                a stream of its own
    computing kernel, and its result back to the host   another one

Everything is there twice, so that one piece is copied while the one before is computed.  Page-locked memory is filled
again when its copy has left, memory of the card when the kernel that reads it is done.  A patch is computed from the
same numbers in whatever piece it comes, so that results do not depend on the pieces.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from contextem import _arrays, _kernels
from contextem._threads import thread_count

CHUNK = 256 * 2**20
"""Bytes of a piece where nothing is said."""

Array = NDArray[Any]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Piece:
    """Columns that are computed at once, and rows [first, last) of the image, in which their patches lie."""

    first: int
    last: int
    columns: NDArray[np.intp]


def column_pieces(shape: tuple[int, int], positions: Float64, reach: float, itemsize: int, chunk: int) -> list[Piece]:
    """Divide columns so that neither their rows of an image nor they themselves take more than ``chunk`` bytes.

    An image that fits is one band. Of others each band is at least as high as a patch, ``reach`` px to either side of
    its position; columns come from top to bottom. A column is 512 bytes: its position, its moments, and room to spare.
    """
    height, width = shape
    most = max(1, chunk // 512)
    rows = max(1, chunk // (width * itemsize))
    order = np.argsort(positions[:, 0], kind="stable")
    if rows >= height:
        return [Piece(0, height, order[start : start + most]) for start in range(0, len(order), most)]
    row = positions[order, 0]
    low = np.clip(np.floor(row - reach), 0, height - 1).astype(np.intp)
    high = np.maximum(np.clip(np.ceil(row + reach) + 1, 1, height).astype(np.intp), low + 1)
    pieces, start = [], 0
    while start < len(order):
        stop = int(np.searchsorted(high, low[start] + rows, side="right"))
        stop = max(stop, start + 1)
        first, last = int(low[start]), int(high[stop - 1])
        pieces += [Piece(first, last, order[part : min(part + most, stop)]) for part in range(start, stop, most)]
        start = stop
    return pieces


def patch_pieces(count: int, patch_bytes: int, chunk: int) -> list[slice]:
    """Divide patches so that none of the pieces takes more than ``chunk`` bytes, if a patch does not."""
    most = max(1, chunk // patch_bytes)
    return [slice(start, min(start + most, count)) for start in range(0, count, most)]


class Card(Protocol):
    """A device with two streams, on which work is queued that runs while the host goes on."""

    def locked(self, nbytes: int) -> NDArray[np.uint8]:
        """Page-locked memory of the host."""

    def is_locked(self, array: Array) -> bool:
        """Whether an array lies in such memory already, without gaps."""

    def fill(self, to: Array, array: Array) -> None:
        """Copy an array of the host to another."""

    def memory(self, nbytes: int) -> Any:
        """Memory of the card, (nbytes,) uint8."""

    def event(self) -> Any:
        """Return what is recorded in a stream, and waited for with ``synchronize``."""

    def copy(self, to: Any, host: Array, after: Any, done: Any) -> None:
        """Queue a copy to the card that waits for one event and records another."""

    def compute(self, work: Callable[[], Any], out: Array, after: list[Any], done: list[Any]) -> None:
        """Queue work that waits for events; its result goes to page-locked ``out``, then other events are recorded."""

    def finish(self) -> None:
        """Wait for everything."""


class TorchCard:
    """A CUDA device, through torch."""

    def __init__(self, device: str) -> None:
        torch: Any = importlib.import_module("torch")
        self._torch, self._device = torch, device
        self._copying, self._computing = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self._threads = min(8, thread_count())  # one copies slower than PCI Express does
        self._fillers = ThreadPoolExecutor(self._threads)

    def locked(self, nbytes: int) -> NDArray[np.uint8]:
        memory: NDArray[np.uint8] = self._torch.empty(nbytes, dtype=self._torch.uint8, pin_memory=True).numpy()
        return memory

    def is_locked(self, array: Array) -> bool:
        if not (array.flags.c_contiguous and array.flags.writeable):  # torch warns of what it could write to
            return False
        return bool(self._torch.from_numpy(array).is_pinned())

    def fill(self, to: Array, array: Array) -> None:
        parts = np.linspace(0, len(array), self._threads + 1).astype(int)
        for part in [self._fillers.submit(np.copyto, to[a:b], array[a:b]) for a, b in pairwise(parts)]:
            part.result()

    def memory(self, nbytes: int) -> Any:
        memory = _arrays.device_memory(nbytes, self._device)
        # it may have been somebody else's on the stream that it was allocated on
        self._copying.wait_stream(self._torch.cuda.current_stream(memory.device))
        return memory

    def event(self) -> Any:
        return self._torch.cuda.Event()

    def copy(self, to: Any, host: Array, after: Any, done: Any) -> None:
        with self._torch.cuda.stream(self._copying):
            self._copying.wait_event(after)
            to.copy_(self._torch.from_numpy(host), non_blocking=True)
            done.record(self._copying)

    def compute(self, work: Callable[[], Any], out: Array, after: list[Any], done: list[Any]) -> None:
        with self._torch.cuda.stream(self._computing):
            for event in after:
                self._computing.wait_event(event)
            self._torch.from_numpy(out).copy_(work(), non_blocking=True)
            for event in done:
                event.record(self._computing)

    def finish(self) -> None:
        self._fillers.shutdown()
        self._copying.synchronize()
        self._computing.synchronize()


@contextmanager
def _working(card: Card) -> Iterator[None]:
    """Give no memory back that a card still reads or writes, whatever happens."""
    try:
        yield
    finally:
        card.finish()


class _Uplink:
    """Memory of the card that arrays of the same dtype are sent to, one after the other."""

    def __init__(self, card: Card, nbytes: int, dtype: np.dtype[Any], direct: bool) -> None:
        self._card, self._dtype = card, dtype
        self._staging = None if direct else card.locked(nbytes)
        self._memory = card.memory(nbytes)
        self.arrived, self.free = card.event(), card.event()

    def send(self, array: Array) -> Any:
        """Start to copy an array; return where it will be when ``arrived`` has happened."""
        self.arrived.synchronize()  # the copy before has left
        if self._staging is None:
            host = array
        else:
            host = self._staging[: array.nbytes].view(self._dtype).reshape(array.shape)
            self._card.fill(host, array)
        there = _arrays.device_view(self._memory, array.shape, self._dtype)
        self._card.copy(there, host, self.free, self.arrived)
        return there


class _Downlink:
    """Page-locked memory that results come back to."""

    def __init__(self, card: Card, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.memory = card.locked(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)
        self.arrived = card.event()
        self._waiting: tuple[Array, Any, Array] | None = None

    def expect(self, out: Array, where: Any, memory: Array) -> None:
        self._waiting = out, where, memory

    def collect(self) -> None:
        """Wait for the result that is on its way, and put it where it belongs."""
        if self._waiting is not None:
            out, where, memory = self._waiting
            self.arrived.synchronize()
            out[where] = memory
            self._waiting = None


def column_moments(
    image: Array,
    positions: Float64,
    table: _kernels.WeightTable,
    matrix: Float64,
    interpolation: str,
    card: Card,
    chunk: int,
) -> Array:
    """Moments (N, J) of columns of an image (H, W) of the host, computed on a card."""
    out = np.empty((len(positions), len(table.weights)), image.dtype)
    height, width = image.shape
    reach = (table.size - 1) / 2 * float(np.abs(matrix[0]).sum()) + 1
    pieces = column_pieces((height, width), positions, reach, image.itemsize, chunk)
    if not pieces:
        return out
    most = max(len(piece.columns) for piece in pieces)
    nbytes = max(piece.last - piece.first for piece in pieces) * width * image.itemsize
    bands, direct = len({(piece.first, piece.last) for piece in pieces}), card.is_locked(image)
    images = [_Uplink(card, nbytes, image.dtype, direct) for _ in range(min(bands, 2))]
    centres = [_Uplink(card, most * 16, np.dtype(np.float64), False) for _ in range(2)]
    results = [_Downlink(card, (most, out.shape[1]), out.dtype) for _ in range(2)]
    held, band, sent = None, None, 0
    with _working(card):
        for number, piece in enumerate(pieces):
            if held != (piece.first, piece.last):
                held, link = (piece.first, piece.last), images[sent % 2]
                band, sent = link.send(image[piece.first : piece.last]), sent + 1
            where, result = centres[number % 2], results[number % 2]
            there = where.send(positions[piece.columns])
            result.collect()

            def work(band: Any = band, top: int = piece.first, there: Any = there) -> Any:
                return _kernels.band_moments_on_device(band, top, height, there, table, matrix, interpolation)

            memory = result.memory[: len(piece.columns)]
            card.compute(work, memory, [link.arrived, where.arrived], [link.free, where.free, result.arrived])
            result.expect(out, piece.columns, memory)
        for result in results:
            result.collect()
    return out


def patch_moments(patches: Array, table: _kernels.WeightTable, card: Card, chunk: int) -> Array:
    """Moments (N, J) of patches (N, P, P) of the host, computed on a card."""
    out = np.empty((len(patches), len(table.weights)), patches.dtype)
    patch_bytes = table.size**2 * patches.itemsize
    pieces = patch_pieces(len(patches), patch_bytes, chunk)
    if not pieces:
        return out
    most, direct = pieces[0].stop, card.is_locked(patches)
    links = [_Uplink(card, most * patch_bytes, patches.dtype, direct) for _ in range(2)]
    results = [_Downlink(card, (most, out.shape[1]), out.dtype) for _ in range(2)]
    with _working(card):
        for number, piece in enumerate(pieces):
            link, result = links[number % 2], results[number % 2]
            there = link.send(patches[piece])
            result.collect()

            def work(there: Any = there) -> Any:
                return _kernels.select(there, "patches", "cuda").patch_moments(there, table, 0)

            memory = result.memory[: piece.stop - piece.start]
            card.compute(work, memory, [link.arrived], [link.free, result.arrived])
            result.expect(out, piece, memory)
        for result in results:
            result.collect()
    return out
