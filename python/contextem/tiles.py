"""Images too large to be copied whole: made tile by tile, where they are looked at.

A tile is a band of whole rows, as they lie in memory and in files.  Whatever is computed of a tile sees the rows around
it as far as it reaches (the halo); each pixel, maximum and column belongs to the one tile its row is in, and keeps its
position in the image.  So everything is computed from the same numbers in the same order whatever the tiles are, and an
image that is not tiled is one of a single tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem import _arrays, _kernels

PIXELS = 2**24
"""Pixels of a tile, about; an image of no more is a single one."""

Floats = NDArray[np.float64]


class TiledImage:
    """An image whose rows are computed when they are asked for; those of a single tile are kept.

    Parameters
    ----------
    shape
        (H, W) of the image.
    make
        Computes the rows [first, last), (last - first, W) of `dtype`; each the same whichever are asked for.
    dtype
        float32 or float64.
    tile
        Rows of a tile; by default as many as have about `PIXELS` pixels.

    Raises
    ------
    ValueError
        If `tile` is not a positive integer.

    Examples
    --------
    >>> image = TiledImage((4, 3), lambda first, last: np.full((last - first, 3), 2.0), np.float64, tile=3)
    >>> list(image.tiles()), image.rows(1, 3).shape, image.sample(np.array([[2.5, 1.0]])).tolist()
    ([(0, 3), (3, 4)], (2, 3), [2.0])
    """

    def __init__(
        self,
        shape: tuple[int, int],
        make: Callable[[int, int], NDArray[Any]],
        dtype: Any = np.float32,
        tile: int | None = None,
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.tile = max(1, PIXELS // shape[1]) if tile is None else _arrays.check_integer("tile", tile, 1, 2**31)
        self._make = make
        self._whole: NDArray[Any] | None = None

    def rows(self, first: int, last: int) -> NDArray[Any]:
        """Return the rows [first, last)."""
        if self.tile < self.shape[0]:
            return self._make(first, last)
        return self.whole()[first:last]

    def whole(self) -> NDArray[Any]:
        """Return all rows."""
        if self._whole is not None:
            return self._whole
        whole = self._make(0, self.shape[0])
        if self.tile >= self.shape[0]:
            self._whole = whole
        return whole

    def tiles(self) -> Iterator[tuple[int, int]]:
        """Yield first and last row, exclusive, of each tile."""
        for first in range(0, self.shape[0], self.tile):
            yield first, min(first + self.tile, self.shape[0])

    def by_tile(self, positions: Floats) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """Yield first and last row of each tile that positions (N, 2), px, lie in, and the numbers of these.

        What lies beyond the image belongs to the tile next to it.
        """
        number = np.clip(positions[:, 0], 0, self.shape[0] - 1).astype(np.int64) // self.tile
        order = np.argsort(number, kind="stable")
        starts = np.flatnonzero(np.diff(number[order], prepend=-1))
        for own in np.split(order, starts[1:]) if len(order) else ():
            first = int(number[own[0]]) * self.tile
            yield first, min(first + self.tile, self.shape[0]), own

    def filtered(self, kernel: Callable[[NDArray[Any]], NDArray[Any]], halo: int) -> TiledImage:
        """Return the image that a filter makes of this one.

        Parameters
        ----------
        kernel
            From an image (h, W) to one of the same shape and dtype; at its borders it may do as it likes.
        halo
            Rows that it sees on either side of each.
        """

        def make(first: int, last: int) -> NDArray[Any]:
            top = max(0, first - halo)
            seen = self.rows(top, min(self.shape[0], last + halo))
            return kernel(seen)[first - top : last - top]

        return TiledImage(self.shape, make, self.dtype, self.tile)

    def sample(self, positions: Floats) -> Floats:
        """Return values (N,) between pixels at positions (N, 2), bilinear; beyond the border those of the nearest."""
        positions = _arrays.check_positions(positions)
        values = np.empty(len(positions))
        for first, last, own in self.by_tile(positions):
            band = self.rows(top := max(0, first - 1), min(self.shape[0], last + 2))
            values[own] = _kernels.sample_image(band, positions[own], top=top, rows=self.shape[0])
        return values


def tiled(image: NDArray[Any] | TiledImage) -> TiledImage:
    """Return an image (H, W) of float32 or float64 as it is, as a single tile."""
    if isinstance(image, TiledImage):
        return image
    _arrays.check_image(image)
    _arrays.check_host("image", image)
    return TiledImage(image.shape, lambda first, last: image[first:last], image.dtype, max(1, len(image)))


def pixels(data: NDArray[Any], tile: int | None = None) -> TiledImage:
    """Return the pixels (H, W) of a micrograph as float32.

    Parameters
    ----------
    data
        Real numbers; may be mapped from a file.
    tile
        As for `TiledImage`.
    """
    return TiledImage(data.shape, lambda first, last: np.ascontiguousarray(data[first:last], np.float32), tile=tile)
