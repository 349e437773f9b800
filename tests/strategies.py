"""Hypothesis strategies for the kernels.

Positions and scales are multiples of 1/64 and 1/16, so that sample coordinates are exact in double precision and a
sample on the border or half-way between pixels is there for every implementation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

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
