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

def simd() -> str: ...
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
def patch_moments(patches: NDArray[Any], table: MomentTable, n_threads: int) -> NDArray[Any]: ...
def column_moments(
    image: NDArray[Any],
    positions: NDArray[np.float64],
    table: MomentTable,
    matrix: NDArray[np.float64],
    nearest: bool,
    n_threads: int,
) -> NDArray[Any]: ...
