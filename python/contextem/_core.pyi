from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

version: str
compiler: str

class MomentTable:
    def __init__(self, weights: NDArray[np.float64], size: int, dtype: np.dtype[Any]) -> None: ...
    @property
    def folded(self) -> bool: ...
    @property
    def dtype(self) -> str: ...

class AdjointTable:
    def __init__(self, weights: NDArray[np.float64], size: int, dtype: np.dtype[Any]) -> None: ...
    @property
    def folded(self) -> bool: ...
    @property
    def dtype(self) -> str: ...

def simd() -> str: ...
def simd_available() -> list[str]: ...
def thread_limit() -> int: ...
def set_thread_limit(limit: int) -> int: ...
def multiply_adds(count: int, dtype: np.dtype[Any]) -> float: ...
def read_values(values: NDArray[np.float32], passes: int) -> float: ...
def copy_values(source: NDArray[np.float32], target: NDArray[np.float32], passes: int) -> None: ...
def zernike_indices(n_max: int) -> NDArray[np.int64]: ...
def projection_weights(n_max: int, size: int) -> NDArray[np.float64]: ...
def integrated_weights(n_max: int, size: int) -> NDArray[np.float64]: ...
def extract_patches(
    image: NDArray[Any],
    positions: NDArray[np.float64],
    size: int,
    matrix: NDArray[np.float64],
    nearest: bool,
    n_threads: int,
) -> NDArray[Any]: ...
def dense_moments(image: NDArray[Any], table: MomentTable, n_threads: int) -> NDArray[Any]: ...
def patch_moments(patches: NDArray[Any], table: MomentTable, n_threads: int) -> NDArray[Any]: ...
def column_moments(
    image: NDArray[Any],
    positions: NDArray[np.float64],
    table: MomentTable,
    matrix: NDArray[np.float64],
    nearest: bool,
    n_threads: int,
    top: int = 0,
    rows: int = 0,
) -> NDArray[Any]: ...
def patch_moments_adjoint(gradient: NDArray[Any], table: AdjointTable, n_threads: int) -> NDArray[Any]: ...
def column_moments_adjoint(
    gradient: NDArray[Any],
    positions: NDArray[np.float64],
    table: AdjointTable,
    matrix: NDArray[np.float64],
    nearest: bool,
    rows: int,
    columns: int,
    n_threads: int,
) -> NDArray[Any]: ...
def column_moments_position_gradient(
    gradient: NDArray[Any],
    image: NDArray[Any],
    positions: NDArray[np.float64],
    table: AdjointTable,
    matrix: NDArray[np.float64],
    n_threads: int,
) -> NDArray[np.float64]: ...
def rotation_invariants(
    moments: NDArray[Any], cosine: NDArray[np.int32], sine: NDArray[np.int32], n_threads: int
) -> NDArray[Any]: ...
def rotate(
    moments: NDArray[Any],
    partner: NDArray[np.int32],
    along: NDArray[np.float64],
    across: NDArray[np.float64],
    n_threads: int,
) -> NDArray[Any]: ...

class Points:
    def __init__(self, positions: NDArray[np.float64]) -> None: ...
    def within(
        self, sites: NDArray[np.float64], reach: float, n_threads: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]: ...
    def nearest(
        self, sites: NDArray[np.float64], k: int, n_threads: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]: ...
    def levels(
        self, heights: NDArray[np.float64], k: int, percentile: float, n_threads: int
    ) -> NDArray[np.float64]: ...
    def snap(
        self, strength: NDArray[np.float64], sites: NDArray[np.float64], reach: float, n_threads: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
    def grow(
        self,
        strength: NDArray[np.float64],
        seed: int,
        basis: NDArray[np.float64],
        reach: float,
        height: int,
        width: int,
        n_threads: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]: ...

class VirtualDetectors:
    def __init__(self, masks: NDArray[np.bool_]) -> None: ...
    def sum(self, patterns: NDArray[Any], n_threads: int) -> NDArray[np.float64]: ...

def sum_patterns(patterns: NDArray[Any], total: NDArray[np.float64], n_threads: int) -> None: ...
def peak_response(image: NDArray[Any], sigma: float, n_threads: int) -> NDArray[Any]: ...
def local_maxima(
    response: NDArray[Any], n_threads: int, top: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def sample_image(
    image: NDArray[Any], positions: NDArray[np.float64], n_threads: int, top: int = 0, rows: int = 0
) -> NDArray[np.float64]: ...
def blur_boards(boards: NDArray[np.float64], sigma: float, n_threads: int) -> NDArray[np.float64]: ...
def tile_spectra(
    image: NDArray[Any],
    corners: NDArray[np.int64],
    rows: int,
    columns: int,
    pad: int,
    centre: int,
    sigma: float,
    n_threads: int,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]: ...
def spoke_scores(
    power: NDArray[np.float32], pad: float, radius: NDArray[np.float64], angle: NDArray[np.float64], n_threads: int
) -> NDArray[np.float64]: ...
def hexagon_spots(
    power: NDArray[np.float32], pad: float, radius: NDArray[np.float64], angle: NDArray[np.float64], n_threads: int
) -> NDArray[np.float64]: ...
def refine_columns(
    rows_of: Callable[[int, int], NDArray[Any]],
    height: int,
    tile: int,
    dtype: np.dtype[Any],
    start: NDArray[np.float64],
    movable: NDArray[np.bool_],
    sigma: float,
    spacing: float,
    furthest: float,
    n_threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]: ...
