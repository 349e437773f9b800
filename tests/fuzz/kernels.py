"""The kernels as Python calls them: every argument of every function; what is accepted is what the reference says."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from contextem.adjoint import column_moments_adjoint, column_moments_position_gradient, patch_moments_adjoint
from contextem.columns import Columns
from contextem.dense import dense_moments
from contextem.micrograph import Micrograph
from contextem.moments import column_moments, patch_moments
from contextem.patches import antialias, extract_patches, patch_complete
from contextem.virtual_detectors import VirtualDetectors, annulus, sum_patterns, virtual_detectors
from contextem.zernike import MODES, ZernikeBasis, reconstruct, rotate, rotation_invariants
from fuzz.arrays import FLOATS, SIDES, array, positions, threads
from fuzz.draw import Broken, Draw, expected

INSTRUMENTED = (
    *("contextem._arrays", "contextem._kernels", "contextem.adjoint", "contextem.columns", "contextem.dense"),
    *("contextem.micrograph", "contextem.moments", "contextem.patches", "contextem.virtual_detectors"),
    *("contextem.zernike", "contextem.reference"),
)

BASES = [ZernikeBasis(4, 8), ZernikeBasis(3, 7, "projection"), ZernikeBasis(6, 16, "lstsq"), ZernikeBasis(0, 3)]
DETECTORS = VirtualDetectors([np.eye(8, dtype=bool), np.ones((8, 8), bool)])


def scale(draw: Draw) -> Any:
    matrix = [[draw.real(), draw.real()], [draw.real(), draw.real()]]
    return draw.choice((1.0, 1.0, 0.5, 2.5, draw.real(), matrix, draw.value()))


def interpolation(draw: Draw) -> Any:
    return draw.choice(("linear", "linear", "nearest", draw.value()))


def shape(draw: Draw) -> Any:
    return draw.choice(((12, 9), (1, 33), (draw.integer(), draw.integer()), draw.value()))


def of_basis(function: Callable[..., Any], *extents: int | None) -> Callable[[Draw], Any]:
    def call(draw: Draw) -> Any:
        basis = draw.choice(BASES)
        sides = [{-1: basis.n_modes, -2: basis.size}.get(side, side) for side in extents]
        return function, (array(draw, *sides, dtype=draw.choice(FLOATS)), basis), {}

    return call


def _extract(draw: Draw) -> Any:
    size = draw.choice((*SIDES, 8, 8, draw.integer(), draw.value()))
    image = array(draw, None, None, dtype=draw.choice(FLOATS))
    return (
        extract_patches,
        (image, positions(draw, 1 if size == 4096 else None), size),
        {"scale": scale(draw), "interpolation": interpolation(draw)},
    )


def _column(draw: Draw) -> Any:
    image = array(draw, None, None, dtype=draw.choice(FLOATS))
    options = {"scale": scale(draw), "interpolation": interpolation(draw)}
    return column_moments, (image, positions(draw), draw.choice(BASES)), options


def _dense(draw: Draw) -> Any:
    image = array(draw, None, None, dtype=draw.choice(FLOATS))
    return dense_moments, (image, draw.choice(BASES)), {"method": draw.choice(("auto", "direct", "fft", "x"))}


def _rotate(draw: Draw) -> Any:
    basis = draw.choice(BASES)
    angle = draw.choice((0.5, draw.real(), draw.value()))
    return rotate, (array(draw, None, basis.n_modes, dtype=draw.choice(FLOATS)), basis, angle), {}


def _column_adjoint(draw: Draw) -> Any:
    basis, count = draw.choice(BASES), draw.below(5)
    gradient = array(draw, count, basis.n_modes, dtype=draw.choice(FLOATS))
    options = {"scale": scale(draw), "interpolation": interpolation(draw)}
    return column_moments_adjoint, (gradient, positions(draw, count), basis, shape(draw)), options


def _slope(draw: Draw) -> Any:
    basis, count, dtype = draw.choice(BASES), draw.below(5), draw.choice(FLOATS)
    gradient, image = array(draw, count, basis.n_modes, dtype=dtype), array(draw, None, None, dtype=dtype)
    return column_moments_position_gradient, (gradient, image, positions(draw, count), basis), {"scale": scale(draw)}


def _detectors(draw: Draw) -> Any:
    return virtual_detectors, (array(draw, None, 8, 8), DETECTORS), {}


def _total(draw: Draw) -> Any:
    total = array(draw, 8, 8, dtype="float64") if draw.chance() else None
    return sum_patterns, (array(draw, None, 8, 8),), {"total": total}


CALLS: tuple[Callable[[Draw], Any], ...] = (
    _extract,
    _column,
    _dense,
    _rotate,
    _column_adjoint,
    _slope,
    _detectors,
    _total,
    of_basis(patch_moments, None, -2, -2),
    of_basis(rotation_invariants, None, -1),
    of_basis(reconstruct, None, -1),
    of_basis(patch_moments_adjoint, None, -1),
)
OTHERS: tuple[Callable[[Draw], Any], ...] = (
    lambda draw: VirtualDetectors(array(draw, draw.below(40), None, None, dtype="bool")),
    lambda draw: annulus(shape(draw), draw.choice(((3.0, 4.0), draw.value())), draw.real(), draw.real()),
    lambda draw: ZernikeBasis(
        draw.integer(), draw.choice((8, 9, draw.below(40), draw.value())), draw.choice((*MODES, draw.value()))
    ),
    lambda draw: antialias(array(draw, None, None), draw.choice((1.0, 2.0, draw.real()))),
    lambda draw: patch_complete(shape(draw), positions(draw), draw.choice((8, draw.integer())), scale=scale(draw)),
    lambda draw: Columns(positions(draw), array(draw, None), array(draw, None), array(draw, None)),
    lambda draw: Micrograph(array(draw, None, None), draw.choice((0.2, draw.real(), draw.value()))),
)


def target(data: bytes) -> None:
    draw = Draw(data)
    kind = draw.below(len(CALLS) + len(OTHERS))
    refused = (ValueError, TypeError, MemoryError)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        with expected(*refused):
            if kind >= len(CALLS):
                OTHERS[kind - len(CALLS)](draw)
                return
            function, arguments, options = CALLS[kind](draw)
            n_threads = threads(draw)
            got = function(*arguments, **options, n_threads=n_threads)
            if options.get("method") is not None or got.size > 1 << 18 or options.get("total") is not None:
                return
            plain = (np.asarray(each) if isinstance(each, np.ndarray) else each for each in arguments)
            wanted = function(*plain, **options, backend="reference")
            if got.shape != wanted.shape or got.dtype != wanted.dtype:
                raise Broken(
                    f"{function.__name__}: expected {wanted.shape} {wanted.dtype}, got {got.shape} {got.dtype}"
                )
            size = float(np.abs(np.nan_to_num(wanted, posinf=0, neginf=0)).max(initial=0.0))
            finite = np.isfinite(wanted)
            if size < 1e30 and finite.all() and not np.allclose(got, wanted, rtol=1e-3, atol=1e-3 * size + 1e-30):
                raise Broken(
                    f"{function.__name__}: differs from the reference by {np.abs(got - wanted).max()} of {size}"
                )


def seeds() -> Iterator[bytes]:
    for kind in range(len(CALLS) + len(OTHERS)):
        for length in (8, 40, 120):
            yield bytes([kind]) + bytes((7 * i * (kind + 1) + length) % 251 for i in range(length))
