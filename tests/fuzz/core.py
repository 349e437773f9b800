"""The extension as nobody should call it: behind the checks of the Python layer, every argument at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from contextem import _core
from fuzz.arrays import FLOATS, array, positions, threads
from fuzz.draw import Draw, expected

INSTRUMENTED = ("fuzz.arrays",)

WEIGHTS = np.random.default_rng(0).normal(size=(6, 64))
TABLES = {dtype: _core.MomentTable(WEIGHTS, 8, np.dtype(dtype)) for dtype in FLOATS}
ADJOINT = {dtype: _core.AdjointTable(WEIGHTS, 8, np.dtype(dtype)) for dtype in FLOATS}
MASKS = _core.VirtualDetectors(np.ones((2, 8, 8), bool))


def _call(draw: Draw) -> object:
    """Call one of the functions; small numbers mostly, since n^2 of what is asked for is made."""
    dtype = draw.choice(FLOATS)
    other = draw.choice((dtype, dtype, dtype, *FLOATS))
    image = array(draw, None, None, dtype=dtype)
    matrix = draw.choice((np.eye(2), array(draw, 2, 2, dtype="float64")))
    number = lambda: draw.choice((draw.below(20), draw.below(20), draw.integer()))  # noqa: E731
    n = threads(draw)
    rows = draw.choice((0, 0, 20, draw.integer()))
    top = draw.choice((0, 0, 3, draw.integer()))
    count = draw.below(5)
    gradient = array(draw, count, 6, dtype=other)
    near = draw.choice((True, False))
    match draw.below(20):
        case 0:
            return _core.extract_patches(image, positions(draw), number(), matrix, near, n)
        case 1:
            return _core.dense_moments(image, TABLES[other], n)
        case 2:
            return _core.patch_moments(array(draw, None, 8, 8, dtype=dtype), TABLES[other], n)
        case 3:
            return _core.column_moments(image, positions(draw), TABLES[other], matrix, near, n, top, rows)
        case 4:
            return _core.patch_moments_adjoint(gradient, ADJOINT[other], n)
        case 5:
            return _core.column_moments_adjoint(
                gradient, positions(draw, count), ADJOINT[other], matrix, near, number(), number(), n
            )
        case 6:
            return _core.column_moments_position_gradient(
                gradient, image, positions(draw, count), ADJOINT[other], matrix, n
            )
        case 7:
            return _core.rotation_invariants(gradient, array(draw, 4, dtype="int32"), array(draw, 4, dtype="int32"), n)
        case 8:
            return _core.rotate(
                gradient,
                array(draw, 6, dtype="int32"),
                array(draw, 6, dtype="float64"),
                array(draw, 6, dtype="float64"),
                n,
            )
        case 9:
            return MASKS.sum(array(draw, None, 8, 8), n)
        case 10:
            return _core.sum_patterns(array(draw, None, 8, 8), array(draw, 8, 8, dtype="float64"), n)
        case 11:
            return _core.peak_response(image, draw.choice((1.0, 2.0, draw.real())), n)
        case 12:
            return _core.local_maxima(image, n, top)
        case 13:
            return _core.sample_image(image, positions(draw), n, top, rows)
        case 14:
            return _core.blur_boards(array(draw, None, None, None, dtype="float64"), draw.real(), n)
        case 15:
            corners = array(draw, None, 2, dtype="int64")
            pad, centre = (draw.choice((8, 16, draw.below(80))) for _ in "pc")
            return _core.tile_spectra(image, corners, draw.below(40), draw.below(40), pad, centre, draw.real(), n)
        case 16:
            power = array(draw, 2, 16, 16, dtype="float32")
            spots = _core.spoke_scores if near else _core.hexagon_spots
            radius = array(draw, None, dtype="float64")
            return spots(power, draw.real(), radius, array(draw, *np.shape(radius), dtype="float64"), n)
        case 17:
            points = _core.Points(positions(draw))
            sites = positions(draw)
            points.within(sites, draw.real(), n)
            points.nearest(sites, draw.below(9), n)
            strength = array(draw, count, dtype="float64")
            points.levels(strength, draw.below(9), draw.real(), n)
            return points.snap(strength, sites, draw.real(), n)
        case 18:
            points, side = _core.Points(positions(draw, count)), [draw.below(64), draw.below(64)]
            strength = array(draw, count, dtype="float64")
            return points.grow(strength, number(), 4 * matrix, draw.real(), *side, n)
        case _:
            pixels = np.ones((20, 20), dtype)
            movable = array(draw, count, dtype="bool")
            sigma, spacing, furthest = (draw.choice((1.0, 2.0, 4.0, draw.real())) for _ in "abc")
            return _core.refine_columns(
                lambda first, last: pixels[first:last] if near else draw.value(),
                draw.choice((20, draw.below(64))),
                draw.choice((20, draw.integer())),
                np.dtype(other),
                positions(draw, count),
                movable,
                sigma,
                spacing,
                furthest,
                n,
            )


def target(data: bytes) -> None:
    # pybind11 tells all signatures of a function
    with np.errstate(all="ignore"), expected(ValueError, TypeError, MemoryError, lines=10**6):
        _call(Draw(data))


def seeds() -> Iterator[bytes]:
    for length in (20, 60, 200):
        for start in range(20):
            yield bytes((11 * i + start * 37) % 256 for i in range(length))
