"""Hypothesis strategies for the kernels.

Positions and scales are multiples of 1/64 and 1/16, so that sample coordinates are exact in double precision and a
sample on the border or half-way between pixels is there for every implementation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

dtypes = st.sampled_from([np.float32, np.float64])
sizes = st.integers(3, 40)
interpolations = st.sampled_from(["linear", "nearest"])
scalar_scales = st.integers(4, 64).map(lambda i: i / 16)
quarter_turns = st.sampled_from([[[1, 0], [0, 1]], [[0, 1], [-1, 0]], [[-1, 0], [0, -1]], [[0, -1], [1, 0]]])


@st.composite
def matrix_scales(draw):
    entries = st.integers(-24, 24).map(lambda i: i / 16)
    matrix = np.array([[draw(entries), draw(entries)], [draw(entries), draw(entries)]])
    # far enough from singular for any rounding
    if abs(np.linalg.det(matrix)) < 0.05:
        matrix = matrix + 2 * np.eye(2)
    if abs(np.linalg.det(matrix)) < 0.05:
        matrix = np.array([[1.0, 0.25], [-0.25, 1.0]])
    return matrix


scales = st.one_of(st.just(1.0), scalar_scales, matrix_scales())


@dataclass
class Case:
    image: np.ndarray
    positions: np.ndarray
    size: int
    scale: object
    interpolation: str


@st.composite
def cases(draw, max_positions: int = 30):
    """Draw an image of any layout, positions inside, at and beyond its border, and a patch grid."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    image = rng.normal(size=(2 * height, 2 * width)).astype(draw(dtypes))
    layout = draw(st.sampled_from(["C", "F", "step", "flip", "transpose"]))
    if layout == "F":
        image = np.asfortranarray(image[:height, :width])
    elif layout == "step":
        image = image[::2, 1::2]
    elif layout == "flip":
        image = image[:height, :width][::-1, ::-1]
    elif layout == "transpose":
        image = np.ascontiguousarray(image[:height, :width].T).T
    else:
        image = np.ascontiguousarray(image[:height, :width])
    n = draw(st.integers(0, max_positions))
    reach = np.array([height, width]) * 64
    positions = rng.integers(-reach // 4, reach + reach // 4, (n, 2)) / 64
    if n and draw(st.booleans()):
        positions[: n // 2] = np.round(positions[: n // 2] * 2) / 2
    return Case(image, positions, draw(sizes), draw(scales), draw(interpolations))


@dataclass
class Honeycomb:
    """Columns of a slightly disordered honeycomb, so that no two distances are the same."""

    positions: np.ndarray
    sides: np.ndarray
    spacing: float

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def parts(self):
        """Which columns are connected by bonds."""
        pairs = cKDTree(self.positions).query_pairs(0.85 * self.spacing, output_type="ndarray")
        bonds = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(self), len(self)))
        return connected_components(bonds, directed=False)[1]

    @classmethod
    def made(cls, spacing, cells, *, seed, angle=0.2, strain=0.0, missing=0.0):
        rng = np.random.default_rng(seed)
        i, j = (axis.ravel()[:, None] for axis in np.mgrid[:cells, :cells])
        a1, a2 = spacing * np.array([[np.sin(t), np.cos(t)] for t in (angle, angle + np.pi / 3)])
        metal = i * a1 + j * a2
        positions = np.vstack([metal, metal + (a1 + a2) / 3])
        sides = np.repeat([0, 1], len(metal)).astype(np.int8)
        positions = positions @ (np.eye(2) + strain * rng.uniform(-1, 1, (2, 2)))
        positions += rng.uniform(-0.02, 0.02, positions.shape) * spacing
        kept = rng.permutation(len(positions))[: round((1 - missing) * len(positions))]
        return cls(positions[kept], sides[kept], spacing)


@st.composite
def honeycombs(draw, missing: float = 0.25):
    """Draw a honeycomb of any size, turn, strain and scale, part of its columns missing."""
    return Honeycomb.made(
        draw(st.floats(2.0, 60.0)),
        draw(st.integers(1, 9)),
        seed=draw(st.integers(0, 2**32 - 1)),
        angle=draw(st.floats(0.0, 2 * np.pi)),
        strain=draw(st.floats(0.0, 0.04)),
        missing=draw(st.floats(0.0, missing)),
    )
