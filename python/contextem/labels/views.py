"""What is shown of one column: its patch, what Zernike moments keep of it, and means of patches by own votes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem.columns import CLASSES
from contextem.labels.tiles import SIDE, Cache, grey
from contextem.labels.votes import Expert, ImageInfo, Missing, VoteStore
from contextem.patches import antialias, extract_patches
from contextem.zernike import ZernikeBasis, reconstruct

SAMPLES = 48
"""Of a patch, a side."""

WIDTH = 6.6
"""Of a patch, Å: two lattice constants."""

DEGREE = 10
"""Highest radial degree of the moments that are shown."""

AVERAGED = 16
"""Most votes for a class whose patches are averaged, the last ones by number."""


class Views:
    """Patches of the columns of a store, with the pixels they are taken from kept within a bound.

    Parameters
    ----------
    store : VoteStore
        The store.
    size : int
        Bytes of pixels that are kept.
    """

    def __init__(self, store: VoteStore, size: int = 64 << 20) -> None:
        self.store = store
        self._tiles = Cache(size)
        self._basis = ZernikeBasis(DEGREE, SAMPLES, "lstsq")

    def view(self, image: int, expert: Expert, number: int) -> dict[str, Any]:
        """Return what is shown of a column, in grey levels.

        Parameters
        ----------
        image : int
            Number of the image.
        expert : Expert
            In whose eyes, and by whose votes.
        number : int
            Of the column.

        Returns
        -------
        dict
            "size" P; "patch" and "reconstruction", (P, P); "means", (P, P) by the names of the classes voted for.

        Raises
        ------
        Missing
            If there is no such column in these eyes.
        """
        info = self.store.image(image)
        columns = self.store.columns(image, expert)
        here = np.flatnonzero(columns.ids == number)
        if not len(here):
            raise Missing(f"column: expected the number of a column that is there, got {number}")
        patch = self._patch(info, columns.positions[here[0]])
        moments = patch.reshape(1, -1) @ self._basis.weights.T.astype(np.float32)
        shown = {"patch": patch, "reconstruction": reconstruct(moments, self._basis)[0]}
        means = {}
        for label, name in enumerate(CLASSES):
            voted = np.flatnonzero(columns.own == label)[-AVERAGED:]
            if len(voted):
                means[name] = np.mean([self._patch(info, columns.positions[k]) for k in voted], axis=0)
        levels = {name: grey(values, info.black, info.white).tolist() for name, values in (shown | means).items()}
        return {
            "size": SAMPLES,
            "patch": levels.pop("patch"),
            "reconstruction": levels.pop("reconstruction"),
            "means": levels,
        }

    def _patch(self, info: ImageInfo, position: NDArray[np.float64]) -> NDArray[np.float32]:
        scale = WIDTH / SAMPLES / info.sampling
        reach = int(np.ceil(scale * (SAMPLES / 2 + 4)))
        size = (info.height, info.width)
        top, left = (max(0, int(at) - reach) for at in position)
        bottom, right = (min(end, int(at) + reach + 1) for at, end in zip(position, size, strict=True))
        region = antialias(self._region(info.id, top, left, bottom, right).astype(np.float32), max(scale, 1.0))
        patch: NDArray[np.float32] = extract_patches(
            region, [position - (top, left)], SAMPLES, scale=scale, n_threads=1
        )[0]
        return patch

    def _region(self, image: int, top: int, left: int, bottom: int, right: int) -> NDArray[Any]:
        rows, columns = (range(a // SIDE, (b - 1) // SIDE + 1) for a, b in ((top, bottom), (left, right)))
        whole = np.block([[self._tile(image, row, column) for column in columns] for row in rows])
        i, j = rows[0] * SIDE, columns[0] * SIDE
        return np.ascontiguousarray(whole[top - i : bottom - i, left - j : right - j])

    def _tile(self, image: int, row: int, column: int) -> Any:
        def load() -> NDArray[Any]:
            return self.store.tile(image, 0, row, column)

        return self._tiles.get((image, row, column), load, lambda tile: tile.nbytes)
