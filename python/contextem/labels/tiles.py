"""A micrograph as tiles: a pyramid of grey levels, of which a page loads the part that it shows.

Level 0 is the micrograph, and each further level has the means of 2 x 2 pixels of the one before: pixel (i, j) of level
k covers rows 2^k i to 2^k (i + 1) - 1, columns alike.  The last level is a single tile.  Grey is
255 (v - black) / (white - black), cut off at 0 and 255.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contextem.figures import GREY_LEVELS

SIDE = 512
"""Of a tile, px."""

_SAMPLED = 1 << 20  # pixels that black and white are taken from


class Tile(NamedTuple):
    """A part of one level of the pyramid.

    Attributes
    ----------
    level, row, column : int
        Its place, counted in tiles.
    pixels : ndarray, shape (<= SIDE, <= SIDE)
        As in the micrograph at level 0, uint8 at the others.
    """

    level: int
    row: int
    column: int
    pixels: NDArray[Any]


def grey_limits(data: NDArray[Any]) -> tuple[float, float]:
    """Return the values that become black and white: `contextem.figures.GREY_LEVELS`, or the extremes if these are one.

    Parameters
    ----------
    data : ndarray, shape (H, W)
        Pixels, not all alike.

    Returns
    -------
    (float, float)
        Black below white.

    Examples
    --------
    >>> grey_limits(np.eye(100))
    (0.0, 1.0)
    """
    step = int(np.ceil(np.sqrt(data.size / _SAMPLED)))
    black, white = np.percentile(data[::step, ::step], GREY_LEVELS)
    return (float(black), float(white)) if black < white else (float(data.min()), float(data.max()))


def grey(values: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    """Return pixels as grey levels.

    Parameters
    ----------
    values : ndarray
        Pixels.
    black, white : float
        Their limits.

    Returns
    -------
    ndarray of uint8
        Of the same shape.

    Examples
    --------
    >>> grey(np.array([-1.0, 0.5, 2.0]), 0.0, 1.0).tolist()
    [0, 128, 255]
    """
    levels = (values.astype(np.float32) - np.float32(black)) * np.float32(255 / (white - black))
    pixels: NDArray[np.uint8] = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
    return pixels


def pyramid(data: NDArray[Any], black: float, white: float) -> Iterator[Tile]:
    """Yield the tiles of all levels, the finest first.

    Parameters
    ----------
    data : ndarray, shape (H, W)
        Pixels of the micrograph.
    black, white : float
        Values that become black and white at level 1 and above.

    Yields
    ------
    Tile

    Examples
    --------
    >>> [(tile.level, tile.row, tile.column, tile.pixels.shape) for tile in pyramid(np.ones((300, 600)), 0.0, 1.0)]
    [(0, 0, 0, (300, 512)), (0, 0, 1, (300, 88)), (1, 0, 0, (150, 300))]
    """
    level = 0
    values = data
    while True:
        for row in range(0, values.shape[0], SIDE):
            for column in range(0, values.shape[1], SIDE):
                part = values[row : row + SIDE, column : column + SIDE]
                pixels = part if level == 0 else grey(part, black, white)
                yield Tile(level, row // SIDE, column // SIDE, np.ascontiguousarray(pixels))
        if max(values.shape) <= SIDE:
            return
        values = _halved(values)
        level += 1


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return grey levels as a PNG.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (h, w)
        Grey levels.

    Returns
    -------
    bytes

    Examples
    --------
    >>> png(np.zeros((2, 2), np.uint8))[1:4]
    b'PNG'
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


class Cache:
    """What was made before, within a bound: the part longest unused goes first.

    Parameters
    ----------
    size : int
        Bytes that are kept.

    Examples
    --------
    >>> cache = Cache(10)
    >>> [cache.get(key, lambda: b"123456", len) for key in "ab"], cache.held
    ([b'123456', b'123456'], 6)
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.held = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        """Return what is kept under a key, or make it.

        Parameters
        ----------
        key : hashable
            Its name.
        make : callable
            Makes it.
        size : callable
            Tells the bytes it takes.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        made = make()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = (made, size(made))
                self.held += self._kept[key][1]
            while self.held > self.size:
                self.held -= self._kept.popitem(last=False)[1][1]
        return made


def _halved(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return the means (ceil(H / 2), ceil(W / 2)) of 2 x 2 pixels; at an odd edge, of those there are."""
    height, width = values.shape
    half = np.empty(((height + 1) // 2, (width + 1) // 2), np.float32)
    for start in range(0, height, SIDE):  # rows that stay in the cache
        part = values[start : start + SIDE].astype(np.float32)
        part = np.pad(part, ((0, len(part) % 2), (0, width % 2)), mode="edge")
        half[start // 2 : (start + SIDE) // 2] = (
            part[::2, ::2] + part[1::2, ::2] + part[::2, 1::2] + part[1::2, 1::2]
        ) / 4
    return half
