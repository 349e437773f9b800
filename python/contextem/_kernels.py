"""From an array to the backend that works on it: NumPy to C++, CuPy and torch CUDA to CUDA.

All three backends compute what reference.py defines. Arguments arrive here checked.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from contextem import _arrays, _core, reference

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Modes = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class WeightTable:
    """Weights (J, P * P) of a basis, packed on demand for each precision, device and backend."""

    weights: Float64
    size: int
    _packed: dict[tuple[str, int], Any] = field(default_factory=dict, repr=False)
    _adjoint: dict[tuple[str, int], Any] = field(default_factory=dict, repr=False)

    def packed(self, dtype: np.dtype[Any]) -> _core.MomentTable:
        """Return the table of the C++ kernels."""
        key = (dtype.name, -1)
        if key not in self._packed:
            self._packed[key] = _core.MomentTable(self.weights, self.size, dtype)
        table: _core.MomentTable = self._packed[key]
        return table

    def adjoint(self, dtype: np.dtype[Any]) -> _core.AdjointTable:
        """Return the table of the adjoint in C++."""
        key = (dtype.name, -1)
        if key not in self._adjoint:
            self._adjoint[key] = _core.AdjointTable(self.weights, self.size, dtype)
        table: _core.AdjointTable = self._adjoint[key]
        return table

    def on_device(self, dtype: np.dtype[Any], device: int, stream: int) -> Any:
        """Return the table of the CUDA kernels, in the memory of ``device``."""
        return _uploaded(self._packed, (dtype.name, device), "MomentTable", (self.weights, self.size, dtype), stream)

    def adjoint_on_device(self, dtype: np.dtype[Any], device: int, stream: int) -> Any:
        """Return the table of the adjoint in CUDA, in the memory of ``device``."""
        return _uploaded(self._adjoint, (dtype.name, device), "AdjointTable", (self.weights, self.size, dtype), stream)


@dataclass(frozen=True, eq=False)
class MaskTable:
    """Masks (D, ky, kx) of virtual detectors, prepared on demand for each device and backend."""

    masks: NDArray[np.bool_]
    _prepared: dict[tuple[str, int], Any] = field(default_factory=dict, repr=False)

    def prepared(self) -> _core.VirtualDetectors:
        """Return the zones of the C++ kernel."""
        key = ("masks", -1)
        if key not in self._prepared:
            self._prepared[key] = _core.VirtualDetectors(self.masks)
        zones: _core.VirtualDetectors = self._prepared[key]
        return zones

    def on_device(self, device: int, stream: int) -> Any:
        """Return the zones of the CUDA kernel, in the memory of ``device``."""
        return _uploaded(self._prepared, ("masks", device), "VirtualDetectors", (self.masks,), stream)


def _uploaded(
    tables: dict[tuple[str, int], Any], key: tuple[str, int], kind: str, arguments: tuple[Any, ...], stream: int
) -> Any:
    """Return a table in the memory of device ``key[1]``; it is copied there once, which a capture does not allow."""
    if key not in tables:
        cuda, device = _cuda_module(), key[1]
        if cuda.is_capturing(stream, device):
            raise RuntimeError(
                f"{kind}: expected a table that is on CUDA device {device} before a graph is captured, since it cannot "
                f"be copied there meanwhile; call the function once before, with the same basis or detectors and dtype"
            )
        tables.setdefault(key, getattr(cuda, kind)(*arguments, device))  # of two threads the first one's stays
    return tables[key]


class Kernels(Protocol):
    """The kernels of one backend."""

    def check_positions(self, positions: Any, like: Any, name: str) -> Any:
        """Positions in the form this backend takes, beside the array ``like`` that is called ``name``."""

    def extract_patches(
        self, image: Any, positions: Any, size: int, matrix: Float64, interpolation: str, n_threads: int
    ) -> Any:
        """Patches (N, P, P)."""

    def patch_moments(self, patches: Any, table: WeightTable, n_threads: int) -> Any:
        """Moments (N, J) of patches (N, P, P)."""

    def column_moments(
        self, image: Any, positions: Any, table: WeightTable, matrix: Float64, interpolation: str, n_threads: int
    ) -> Any:
        """Moments (N, J) of the patches around positions (N, 2)."""

    def rotation_invariants(self, moments: Any, cosine: Modes, sine: Modes, n_threads: int) -> Any:
        """Invariants (..., J') of moments (..., J)."""

    def virtual_detectors(self, patterns: Any, table: MaskTable, n_threads: int) -> Any:
        """Of each pattern (S, ky, kx) the sum in each detector: (S, D)."""

    def sum_patterns(self, patterns: Any, total: Any, n_threads: int) -> None:
        """Add patterns (S, ky, kx) to their total (ky, kx)."""

    def patch_moments_adjoint(self, gradient: Any, table: WeightTable, n_threads: int) -> Any:
        """Patches (N, P, P) from a gradient (N, J) with respect to their moments."""

    def column_moments_adjoint(
        self,
        gradient: Any,
        positions: Any,
        table: WeightTable,
        matrix: Float64,
        interpolation: str,
        shape: tuple[int, int],
        n_threads: int,
    ) -> Any:
        """Image (H, W) from a gradient (N, J) with respect to the moments of its columns."""

    def column_moments_position_gradient(
        self, gradient: Any, image: Any, positions: Any, table: WeightTable, matrix: Float64, n_threads: int
    ) -> Any:
        """Gradient (N, 2) with respect to positions (N, 2), from one (N, J) with respect to the moments."""


class HostKernels(Kernels, Protocol):
    """The kernels of a backend that works on NumPy arrays, among them those that CUDA has not."""

    def dense_moments(self, image: Any, table: WeightTable, n_threads: int) -> Any:
        """Moments (H, W, J) of the patch around every pixel of an image (H, W)."""

    def rotate(self, moments: Any, partner: Modes, along: Float64, across: Float64, n_threads: int) -> Any:
        """Moments (..., J) turned by an angle."""


class _Reference:
    """Plain NumPy."""

    def check_positions(self, positions: Any, like: Array, name: str) -> Float64:
        return _arrays.check_positions(positions)

    def extract_patches(
        self, image: Array, positions: Float64, size: int, matrix: Float64, interpolation: str, n_threads: int
    ) -> Array:
        return reference.extract_patches(image, positions, size, matrix, interpolation)

    def patch_moments(self, patches: Array, table: WeightTable, n_threads: int) -> Array:
        return reference.patch_moments(patches, table.weights)

    def column_moments(
        self, image: Array, positions: Float64, table: WeightTable, matrix: Float64, interpolation: str, n_threads: int
    ) -> Array:
        return reference.column_moments(image, positions, table.weights, table.size, matrix, interpolation)

    def dense_moments(self, image: Array, table: WeightTable, n_threads: int) -> Array:
        return reference.dense_moments(image, table.weights, table.size)

    def patch_moments_adjoint(self, gradient: Array, table: WeightTable, n_threads: int) -> Array:
        return reference.patch_moments_adjoint(gradient, table.weights, table.size)

    def column_moments_adjoint(
        self,
        gradient: Array,
        positions: Float64,
        table: WeightTable,
        matrix: Float64,
        interpolation: str,
        shape: tuple[int, int],
        n_threads: int,
    ) -> Array:
        return reference.column_moments_adjoint(
            gradient, positions, table.weights, table.size, matrix, interpolation, shape
        )

    def column_moments_position_gradient(
        self, gradient: Array, image: Array, positions: Float64, table: WeightTable, matrix: Float64, n_threads: int
    ) -> Float64:
        return reference.column_moments_position_gradient(gradient, image, positions, table.weights, table.size, matrix)

    def rotation_invariants(self, moments: Array, cosine: Modes, sine: Modes, n_threads: int) -> Array:
        return reference.rotation_invariants(moments, cosine, sine)

    def rotate(self, moments: Array, partner: Modes, along: Float64, across: Float64, n_threads: int) -> Array:
        return reference.rotate(moments, partner, along, across)

    def virtual_detectors(self, patterns: Array, table: MaskTable, n_threads: int) -> Float64:
        return reference.virtual_detectors(patterns, table.masks)

    def sum_patterns(self, patterns: Array, total: Float64, n_threads: int) -> None:
        reference.sum_patterns(patterns, total)


class _Cpp:
    """C++ threads on NumPy arrays."""

    def check_positions(self, positions: Any, like: Array, name: str) -> Float64:
        return _arrays.check_positions(positions)

    def extract_patches(
        self, image: Array, positions: Float64, size: int, matrix: Float64, interpolation: str, n_threads: int
    ) -> Array:
        return _core.extract_patches(image, positions, size, matrix, interpolation == "nearest", n_threads)

    def patch_moments(self, patches: Array, table: WeightTable, n_threads: int) -> Array:
        return _core.patch_moments(patches, table.packed(patches.dtype), n_threads)

    def column_moments(
        self, image: Array, positions: Float64, table: WeightTable, matrix: Float64, interpolation: str, n_threads: int
    ) -> Array:
        packed = table.packed(image.dtype)
        return _core.column_moments(image, positions, packed, matrix, interpolation == "nearest", n_threads)

    def dense_moments(self, image: Array, table: WeightTable, n_threads: int) -> Array:
        return _core.dense_moments(image, table.packed(image.dtype), n_threads)

    def patch_moments_adjoint(self, gradient: Array, table: WeightTable, n_threads: int) -> Array:
        return _core.patch_moments_adjoint(gradient, table.adjoint(gradient.dtype), n_threads)

    def column_moments_adjoint(
        self,
        gradient: Array,
        positions: Float64,
        table: WeightTable,
        matrix: Float64,
        interpolation: str,
        shape: tuple[int, int],
        n_threads: int,
    ) -> Array:
        packed = table.adjoint(gradient.dtype)
        nearest = interpolation == "nearest"
        return _core.column_moments_adjoint(gradient, positions, packed, matrix, nearest, *shape, n_threads)

    def column_moments_position_gradient(
        self, gradient: Array, image: Array, positions: Float64, table: WeightTable, matrix: Float64, n_threads: int
    ) -> Float64:
        packed = table.adjoint(gradient.dtype)
        return _core.column_moments_position_gradient(gradient, image, positions, packed, matrix, n_threads)

    def rotation_invariants(self, moments: Array, cosine: Modes, sine: Modes, n_threads: int) -> Array:
        rows = moments.reshape(-1, moments.shape[-1])  # copied where the leading axes do not collapse into one
        return _core.rotation_invariants(rows, cosine, sine, n_threads).reshape(*moments.shape[:-1], len(cosine))

    def rotate(self, moments: Array, partner: Modes, along: Float64, across: Float64, n_threads: int) -> Array:
        rows = moments.reshape(-1, moments.shape[-1])
        return _core.rotate(rows, partner, along, across, n_threads).reshape(moments.shape)

    def virtual_detectors(self, patterns: Array, table: MaskTable, n_threads: int) -> Float64:
        return table.prepared().sum(patterns, n_threads)

    def sum_patterns(self, patterns: Array, total: Float64, n_threads: int) -> None:
        _core.sum_patterns(patterns, total, n_threads)


class _Cuda:
    """CUDA on CuPy arrays and torch tensors, on the caller's current stream; the result is of the input's library."""

    def check_positions(self, positions: Any, like: Any, name: str) -> Any:
        positions = _arrays.adopt("positions", positions)
        _arrays.check_device_positions(positions, like, name)
        return positions

    def extract_patches(
        self, image: Any, positions: Any, size: int, matrix: Float64, interpolation: str, n_threads: int
    ) -> Any:
        source = _arrays.device_array(image)
        patches = _arrays.device_empty((len(positions), size, size), source.dtype, like=image)
        _cuda_module().extract_patches(
            source,
            _arrays.device_array(positions),
            matrix,
            interpolation == "nearest",
            _arrays.device_array(patches),
            _arrays.device_stream(image),
        )
        return patches

    def patch_moments(self, patches: Any, table: WeightTable, n_threads: int) -> Any:
        source, stream = _arrays.device_array(patches), _arrays.device_stream(patches)
        moments = _arrays.device_empty((len(patches), len(table.weights)), source.dtype, like=patches)
        _cuda_module().patch_moments(
            source,
            table.on_device(source.dtype, source.device, stream),
            _arrays.device_array(moments),
            stream,
        )
        return moments

    def column_moments(
        self, image: Any, positions: Any, table: WeightTable, matrix: Float64, interpolation: str, n_threads: int
    ) -> Any:
        return band_moments_on_device(image, 0, int(image.shape[0]), positions, table, matrix, interpolation)

    def patch_moments_adjoint(self, gradient: Any, table: WeightTable, n_threads: int) -> Any:
        source, stream = _arrays.device_array(gradient), _arrays.device_stream(gradient)
        patches = _arrays.device_empty((len(gradient), table.size, table.size), source.dtype, like=gradient)
        packed = table.adjoint_on_device(source.dtype, source.device, stream)
        _cuda_module().patch_moments_adjoint(source, packed, _arrays.device_array(patches), stream)
        return patches

    def column_moments_adjoint(
        self,
        gradient: Any,
        positions: Any,
        table: WeightTable,
        matrix: Float64,
        interpolation: str,
        shape: tuple[int, int],
        n_threads: int,
    ) -> Any:
        source, stream, cuda = _arrays.device_array(gradient), _arrays.device_stream(gradient), _cuda_module()
        packed = table.adjoint_on_device(source.dtype, source.device, stream)
        nbytes = cuda.column_adjoint_scratch(len(positions), *shape, table.size, source.dtype, source.device)
        scratch = _arrays.device_empty((nbytes,), np.dtype(np.uint8), like=gradient)
        image = _arrays.device_empty(shape, source.dtype, like=gradient)
        cuda.column_moments_adjoint(
            source,
            _arrays.device_array(positions),
            packed,
            matrix,
            interpolation == "nearest",
            _arrays.device_array(scratch),
            _arrays.device_array(image),
            stream,
        )
        return image

    def column_moments_position_gradient(
        self, gradient: Any, image: Any, positions: Any, table: WeightTable, matrix: Float64, n_threads: int
    ) -> Any:
        source, stream, cuda = _arrays.device_array(gradient), _arrays.device_stream(gradient), _cuda_module()
        packed = table.adjoint_on_device(source.dtype, source.device, stream)
        nbytes = cuda.position_gradient_scratch(len(positions), table.size, source.dtype)
        scratch = _arrays.device_empty((nbytes,), np.dtype(np.uint8), like=gradient)
        slopes = _arrays.device_empty((len(positions), 2), np.dtype(np.float64), like=gradient)
        cuda.column_moments_position_gradient(
            source,
            _arrays.device_array(image),
            _arrays.device_array(positions),
            packed,
            matrix,
            _arrays.device_array(scratch),
            _arrays.device_array(slopes),
            stream,
        )
        return slopes

    def rotation_invariants(self, moments: Any, cosine: Modes, sine: Modes, n_threads: int) -> Any:
        invariants = _arrays.hypot(_arrays.columns(moments, cosine), _arrays.columns(moments, sine))
        for place in np.flatnonzero(cosine == sine).tolist():
            invariants[..., place] = moments[..., int(cosine[place])]
        return invariants

    def virtual_detectors(self, patterns: Any, table: MaskTable, n_threads: int) -> Any:
        source, stream = _arrays.device_array(patterns), _arrays.device_stream(patterns)
        sums = _arrays.device_empty((len(patterns), len(table.masks)), np.dtype(np.float64), like=patterns)
        table.on_device(source.device, stream).sum(source, _arrays.device_array(sums), stream)
        return sums

    def sum_patterns(self, patterns: Any, total: Any, n_threads: int) -> None:
        source, cuda = _arrays.device_array(patterns), _cuda_module()
        parts = _arrays.device_empty((cuda.SCAN_PARTS, *total.shape), np.dtype(np.float64), like=patterns)
        cuda.sum_patterns(
            source, _arrays.device_array(parts), _arrays.device_array(total), _arrays.device_stream(patterns)
        )


_HOST: dict[str, HostKernels] = {"cpp": _Cpp(), "reference": _Reference()}
_BACKENDS: dict[str, Kernels] = {"cpp": _HOST["cpp"], "cuda": _Cuda(), "reference": _HOST["reference"]}


def select(array: Any, name: str, backend: str | None) -> Kernels:
    """Return the backend for an array; ``backend`` overrides it where the array's memory allows."""
    on_host = _arrays.family(name, array) == "numpy"
    if backend is None:
        return _BACKENDS["cpp" if on_host else "cuda"]
    if backend not in _BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(_BACKENDS)}, got {backend!r}")
    if on_host == (backend == "cuda"):
        expected, move = "NumPy array", "copy it to the host first"
        if backend == "cuda":
            expected = "CuPy array or torch CUDA tensor"
            move = f"move it there with cupy.asarray({name}) or torch.as_tensor({name}, device='cuda')"
        raise TypeError(f"{name}: backend {backend!r} expects a {expected}, got {type(array).__name__}; {move}")
    return _BACKENDS[backend]


def select_host(array: Any, name: str, backend: str | None) -> HostKernels:
    """Return the backend of a function that CUDA has not; ``backend`` overrides it."""
    _arrays.check_host(name, array)
    if backend is None:
        return _HOST["cpp"]
    if backend not in _HOST:
        raise ValueError(f"backend: expected one of {', '.join(_HOST)}, got {backend!r}")
    return _HOST[backend]


class RowSource(Protocol):
    """An image that is made in bands of rows, such as a `contextem.tiles.TiledImage`."""

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""

    @property
    def tile(self) -> int:
        """Rows that are made at once, but for those that are seen around them."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""

    def rows(self, first: int, last: int) -> Array:
        """Rows [first, last), (last - first, W)."""


Points = _core.Points
"""Points of the plane sorted into cells, to find the nearest of them."""


def peak_response(image: Any, sigma: float, *, n_threads: int = 0) -> Any:
    """Minus sigma^2 times the Laplacian of the Gaussian-blurred image, (H, W), in the image's library and dtype."""
    dtype = _arrays.check_image(image)
    if _arrays.family("image", image) == "numpy":
        return _core.peak_response(image, sigma, n_threads)
    response = _arrays.device_empty(tuple(image.shape), dtype, like=image)
    _cuda_module().peak_response(
        _arrays.device_array(image), float(sigma), _arrays.device_array(response), _arrays.device_stream(image)
    )
    return response


def local_maxima(response: Array, *, top: int = 0, n_threads: int = 0) -> tuple[Float64, Float64]:
    """Refined positions (K, 2) and heights (K,) of the local maxima above 0 of a response (H, W).

    With ``top`` the response is that of the rows from there on, and positions are those in the whole; neither its first
    nor its last row is searched.
    """
    _arrays.check_image(response)
    return _core.local_maxima(np.ascontiguousarray(response), n_threads, top)


def local_maxima_on_device(response: Any, threshold: float, capacity: int | None) -> tuple[Any, Any, Any]:
    """Refined positions (K, 2) and heights (K,) of the local maxima of a CUDA response (H, W), and their count (1,).

    Above the threshold, and above 0. With a capacity K is that, the rest NaN where there are fewer; without one the
    host waits for the count.
    """
    source, stream, cuda = _arrays.device_array(response), _arrays.device_stream(response), _cuda_module()
    if capacity is None and cuda.is_capturing(stream, source.device):
        raise RuntimeError(
            "capacity: expected a number of peaks to make room for while a graph is captured, since the host cannot "
            "wait for their count, got None"
        )
    room = _arrays.device_empty((cuda.maxima_scratch(*source.shape, source.device),), np.dtype(np.uint8), like=response)
    scratch, count = _arrays.device_array(room), _arrays.device_empty((1,), np.dtype(np.int64), like=response)
    cuda.count_maxima(source, threshold, scratch, _arrays.device_array(count), stream)
    size = int(count[0]) if capacity is None else capacity
    positions = _arrays.device_empty((size, 2), np.dtype(np.float64), like=response)
    heights = _arrays.device_empty((size,), np.dtype(np.float64), like=response)
    cuda.write_maxima(source, scratch, _arrays.device_array(positions), _arrays.device_array(heights), stream)
    return positions, heights, count


def sample_image(image: Array, positions: Float64, *, top: int = 0, rows: int = 0, n_threads: int = 0) -> Float64:
    """Values (N,) of an image at positions (N, 2) between its pixels; beyond the border those of the nearest pixel.

    With ``rows`` the image has so many, and the array (h, W) is those from ``top`` on; positions see no others.
    """
    _arrays.check_image(image)
    return _core.sample_image(image, _arrays.check_positions(positions), n_threads, top, rows)


def band_moments(
    band: Array, top: int, rows: int, positions: Float64, table: WeightTable, matrix: Float64, *, n_threads: int = 0
) -> Array:
    """Moments (N, J) of the columns of an image of ``rows`` rows of which the band (h, W) is those from ``top`` on.

    The patches at positions (N, 2), in the image, read no others; bilinear between pixels.
    """
    _arrays.check_image(band)
    centres = _arrays.check_positions(positions)
    return _core.column_moments(band, centres, table.packed(band.dtype), matrix, False, n_threads, top, rows)


def band_moments_on_device(
    band: Any, top: int, rows: int, positions: Any, table: WeightTable, matrix: Float64, interpolation: str
) -> Any:
    """Moments (N, J) of the columns of an image of ``rows`` rows of which a CUDA array is those from ``top`` on.

    The patches at positions (N, 2), in the image, read no others.
    """
    part, stream = _arrays.device_array(band), _arrays.device_stream(band)
    # where the image would begin; nobody looks there
    first = part.pointer - top * part.strides[0] * part.dtype.itemsize
    moments = _arrays.device_empty((len(positions), len(table.weights)), part.dtype, like=band)
    _cuda_module().column_moments(
        replace(part, pointer=first, shape=(rows, part.shape[1])),
        _arrays.device_array(positions),
        table.on_device(part.dtype, part.device, stream),
        matrix,
        interpolation == "nearest",
        _arrays.device_array(moments),
        stream,
    )
    return moments


def blur_boards(boards: Float64, sigma: float, *, n_threads: int = 0) -> Float64:
    """Images (n, H, W) blurred by a Gaussian of standard deviation ``sigma``, px; outside of them is 0."""
    return _core.blur_boards(boards, sigma, n_threads)


def tile_spectra(
    image: Array,
    corners: NDArray[np.int64],
    side: NDArray[np.int64],
    pad: int,
    centre: int,
    sigma: float,
    *,
    n_threads: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Blurred power spectra (n, 2 c, 2 c) of windowed tiles, and whether each tile varies, (n,)."""
    _arrays.check_image(image)
    return _core.tile_spectra(image, corners, int(side[0]), int(side[1]), pad, centre, float(sigma), n_threads)


def spoke_scores(
    power: NDArray[np.float32], pad: int, radius: Float64, angle: Float64, *, n_threads: int = 0
) -> Float64:
    """Log power over the background of the weakest of three spots, mean of both orders: (n, R, A)."""
    return _core.spoke_scores(power, float(pad), radius, angle, n_threads)


def hexagon_spots(
    power: NDArray[np.float32], pad: int, radius: Float64, angle: Float64, *, n_threads: int = 0
) -> Float64:
    """Centres of gravity, bins, of the strongest spots near the three ideal ones of each tile: (n, 3, 2)."""
    return _core.hexagon_spots(power, float(pad), radius, angle, n_threads)


def refine_columns(
    image: Array | RowSource,
    start: Float64,
    movable: NDArray[np.bool_],
    sigma: float,
    spacing: float,
    furthest: float,
    *,
    n_threads: int = 0,
) -> tuple[Float64, Float64, Float64, float]:
    """Positions (N, 2), amplitudes and deviations (N,) and common width, px, of Gaussian columns that overlap."""
    if isinstance(image, np.ndarray):
        _arrays.check_image(image)
        whole = image
        source, height, tile, dtype = (lambda first, last: whole[first:last]), len(image), len(image), image.dtype
    else:
        source, height, tile, dtype = image.rows, image.shape[0], image.tile, image.dtype
    centres = _arrays.check_positions(start)
    return _core.refine_columns(source, height, tile, dtype, centres, movable, sigma, spacing, furthest, n_threads)


def zernike_indices(n_max: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Degrees and orders of all modes up to ``n_max``, both (J,)."""
    n, m = _core.zernike_indices(n_max)
    return n.copy(), m.copy()


def zernike_weights(n_max: int, size: int, mode: str) -> Float64:
    """Weights (J, P * P) of mode "projection" or "integrated"."""
    return _core.projection_weights(n_max, size) if mode == "projection" else _core.integrated_weights(n_max, size)


def least_squares_weights(integrated: Float64) -> tuple[Float64, float]:
    """Weights (J, P * P) of mode "lstsq" from the integrated ones, and the condition of their Gram matrix."""
    return reference.least_squares_weights(integrated)


def _cuda_module() -> ModuleType:
    """Import the CUDA extension, or say what to do where it was not built."""
    try:
        return importlib.import_module("contextem._cuda")
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "this build of contextem has no CUDA extension; rebuild it where nvcc is on PATH, with "
            "--config-settings=cmake.define.CONTEXTEM_CUDA=ON, or pass NumPy arrays"
        ) from error


def describe() -> dict[str, Any]:
    """Describe the compiled kernels: version, compiler, instruction sets, and the state of CUDA."""
    try:
        simd = _core.simd()
    except ValueError as error:
        simd = f"none: {error}"
    facts: dict[str, Any] = {
        "version": _core.version,
        "compiler": _core.compiler,
        "simd": simd,
        "simd_available": _core.simd_available(),
        "cuda": "not built",
        "cuda_runtime": None,
        "cuda_driver": 0,
        "cuda_devices": 0,
    }
    try:
        cuda = importlib.import_module("contextem._cuda")
    except ModuleNotFoundError:
        return facts
    except ImportError as error:
        return {**facts, "cuda": f"built, but does not load: {error}"}
    return {
        **facts,
        "cuda": "built",
        "cuda_runtime": cuda.runtime_version(),
        "cuda_driver": cuda.driver_version(),
        "cuda_devices": cuda.device_count(),
    }
