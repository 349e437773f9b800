from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem._arrays import DeviceArray

class MomentTable:
    def __init__(self, weights: NDArray[np.float64], size: int, dtype: np.dtype[Any], device: int) -> None: ...

class AdjointTable:
    def __init__(self, weights: NDArray[np.float64], size: int, dtype: np.dtype[Any], device: int) -> None: ...

class VirtualDetectors:
    def __init__(self, masks: NDArray[np.bool_], device: int) -> None: ...
    def sum(self, patterns: DeviceArray, out: DeviceArray, stream: int) -> None: ...

SCAN_PARTS: int

def device_count() -> int: ...
def runtime_version() -> int: ...
def driver_version() -> int: ...
def is_capturing(stream: int, device: int) -> bool: ...
def extract_patches(
    image: DeviceArray,
    positions: DeviceArray,
    matrix: NDArray[np.float64],
    nearest: bool,
    out: DeviceArray,
    stream: int,
) -> None: ...
def patch_moments(patches: DeviceArray, table: MomentTable, out: DeviceArray, stream: int) -> None: ...
def column_moments(
    image: DeviceArray,
    positions: DeviceArray,
    table: MomentTable,
    matrix: NDArray[np.float64],
    nearest: bool,
    out: DeviceArray,
    stream: int,
) -> None: ...
def sum_patterns(patterns: DeviceArray, parts: DeviceArray, total: DeviceArray, stream: int) -> None: ...
def patch_moments_adjoint(gradient: DeviceArray, table: AdjointTable, out: DeviceArray, stream: int) -> None: ...
def column_adjoint_scratch(
    count: int, rows: int, columns: int, size: int, dtype: np.dtype[Any], device: int
) -> int: ...
def column_moments_adjoint(
    gradient: DeviceArray,
    positions: DeviceArray,
    table: AdjointTable,
    matrix: NDArray[np.float64],
    nearest: bool,
    scratch: DeviceArray,
    out: DeviceArray,
    stream: int,
) -> None: ...
def position_gradient_scratch(count: int, size: int, dtype: np.dtype[Any]) -> int: ...
def column_moments_position_gradient(
    gradient: DeviceArray,
    image: DeviceArray,
    positions: DeviceArray,
    table: AdjointTable,
    matrix: NDArray[np.float64],
    scratch: DeviceArray,
    out: DeviceArray,
    stream: int,
) -> None: ...
def peak_response(image: DeviceArray, sigma: float, out: DeviceArray, stream: int) -> None: ...
def maxima_scratch(rows: int, columns: int, device: int) -> int: ...
def count_maxima(
    response: DeviceArray, threshold: float, scratch: DeviceArray, count: DeviceArray, stream: int
) -> None: ...
def write_maxima(
    response: DeviceArray, scratch: DeviceArray, positions: DeviceArray, heights: DeviceArray, stream: int
) -> None: ...
