"""Checks at the boundary, one sentence each, and the three array families: NumPy, CuPy, torch CUDA tensors.

The array decides the device.  A family is recognised without importing it: an array of a library that was never
imported cannot arrive here.  Arrays of other libraries that lie in CUDA memory become one of these, which shares it.
"""

from __future__ import annotations

import importlib
import math
import sys
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

INTERPOLATIONS = ("linear", "nearest")
PIXEL_TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
"""What cameras record, in native byte order."""
MOST_DETECTORS = 32
"""Virtual detectors that are summed together."""


_CUDA_MEMORY = (2, 13)  # kDLCUDA and kDLCUDAManaged of DLPack


@dataclass(frozen=True)
class DeviceArray:
    """What a kernel needs to know of a CUDA array: address, shape, strides in elements, dtype and its device."""

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    device: int


def family(name: str, array: Any) -> str:
    """Return "numpy", "cupy" or "torch" (CUDA tensors only); everything else is refused."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name}: masked arrays are not supported, since the mask would be ignored; fill it first")
    if isinstance(array, np.ndarray):
        return "numpy"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        if not in_cuda(array):
            raise TypeError(f"{name}: got a torch tensor on {array.device}; convert with {name}.numpy() for the CPU")
        return "torch"
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return "cupy"
    raise TypeError(
        f"{name}: expected a NumPy array, a CuPy array or a torch CUDA tensor, got {type(array).__name__}; "
        f"convert with numpy.asarray"
    )


def in_cuda(tensor: Any) -> bool:
    """Tell whether a torch tensor lies in CUDA memory."""
    return bool(tensor.is_cuda)


def adopt(name: str, array: Any) -> Any:
    """Return an array in CUDA memory, of a library that is neither CuPy nor torch, as one of these that shares it.

    DLPack comes first, since it lets the current stream wait for the one that wrote the array, without the host;
    ``__cuda_array_interface__`` is what remains for those that have nothing else. Every other object is returned.
    """
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    known = [np.ndarray, list, tuple]
    known += [torch.Tensor] if torch is not None else []
    known += [cupy.ndarray] if cupy is not None else []
    if isinstance(array, tuple(known)):
        return array
    exchanged = hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__")
    if exchanged and int(array.__dlpack_device__()[0]) not in _CUDA_MEMORY:
        return array
    interface = None if exchanged else getattr(array, "__cuda_array_interface__", None)
    if not exchanged and interface is None:
        return array
    if interface is not None and interface.get("mask") is not None:
        raise TypeError(f"{name}: masked arrays are not supported, since the mask would be ignored; fill it first")
    for library in sorted(("cupy", "torch"), key=lambda module: module not in sys.modules):
        try:
            taker = importlib.import_module(library)
        except ImportError:
            continue
        if library == "torch" and not taker.cuda.is_available():
            continue
        if exchanged:
            return taker.from_dlpack(array)
        if library == "cupy":
            return taker.asarray(array)
        shared = taker.as_tensor(array, device="cuda")
        if interface is not None and int(shared.data_ptr()) != int(interface["data"][0] or 0):
            raise ValueError(
                f"{name}: expected an array on torch's current CUDA device, since another one is copied; set it by "
                f"torch.cuda.set_device"
            )
        return shared
    raise TypeError(
        f"{name}: got {type(array).__name__} in CUDA memory, which is taken through CuPy or a CUDA build of torch; "
        f"install one of them"
    )


def check_host(name: str, array: Any) -> None:
    """Accept a NumPy array only, where CUDA has no kernel."""
    if family(name, array) != "numpy":
        raise TypeError(
            f"{name}: expected a NumPy array, got {type(array).__name__}, for which there is no CUDA kernel yet; "
            f"copy it to the host first"
        )


def _dtype(name: str, array: Any) -> np.dtype[Any]:
    """Return the array's dtype if it is float32 or float64 in native byte order."""
    text = str(array.dtype).removeprefix("torch.")
    if text not in ("float32", "float64"):
        convert = f"{name}.float()" if hasattr(array, "is_cuda") else f"{name}.astype('float32')"
        raise TypeError(f"{name}: expected float32 or float64, got {text}; convert with {convert}")
    return np.dtype(text)


def check_image(image: Any) -> np.dtype[Any]:
    """Accept a (H, W) float32 or float64 array of any supported family; return its dtype."""
    family("image", image)
    if image.ndim != 2 or 0 in image.shape:
        raise ValueError(f"image: expected shape (H, W) with at least one pixel, got {tuple(image.shape)}")
    return _dtype("image", image)


def check_patches(patches: Any, size: int) -> np.dtype[Any]:
    """Accept (N, P, P) float32 or float64 patches of the basis' size; return their dtype."""
    family("patches", patches)
    if patches.ndim != 3 or tuple(patches.shape[1:]) != (size, size):
        raise ValueError(f"patches: expected shape (N, {size}, {size}) for this basis, got {tuple(patches.shape)}")
    return _dtype("patches", patches)


def check_moments(moments: Any, count: int) -> str:
    """Accept moments (..., J) of a basis of ``count`` modes; return the array family."""
    kind = family("moments", moments)
    if moments.ndim < 1 or moments.shape[-1] != count:
        raise ValueError(f"moments: expected shape (..., {count}) for this basis, got {tuple(moments.shape)}")
    _dtype("moments", moments)
    return kind


def check_gradient(gradient: Any, modes: int, rows: int | None = None) -> np.dtype[Any]:
    """Accept a gradient with respect to moments: (N, J) of a basis of ``modes`` modes, N = ``rows`` if given."""
    family("gradient", gradient)
    if gradient.ndim != 2 or gradient.shape[1] != modes or rows not in (None, gradient.shape[0]):
        expected = f"(N, {modes}) for this basis" if rows is None else f"({rows}, {modes}), a row per position"
        raise ValueError(f"gradient: expected shape {expected}, got {tuple(gradient.shape)}")
    return _dtype("gradient", gradient)


def check_patterns(patterns: Any, shape: tuple[int, int] | None = None) -> None:
    """Accept diffraction patterns (S, ky, kx) without gaps between pixels, of ``shape`` (ky, kx) if given."""
    on_host = family("patterns", patterns) == "numpy"
    extents = tuple(int(extent) for extent in patterns.shape)
    if len(extents) != 3 or 0 in extents[1:] or shape not in (None, extents[1:]):
        expected = "(S, ky, kx) with at least one pixel" if shape is None else f"(S, {shape[0]}, {shape[1]})"
        raise ValueError(f"patterns: expected shape {expected}, got {extents}")
    text = str(patterns.dtype).removeprefix("torch.")
    if text not in PIXEL_TYPES:
        raise TypeError(
            f"patterns: expected {', '.join(PIXEL_TYPES)} in native byte order, got {text}; convert with "
            f"patterns.astype"
        )
    strides = patterns.strides[1:] if on_host else device_array(patterns).strides[1:]
    item = patterns.itemsize if on_host else 1
    adjacent = strides[1] == item or extents[2] == 1, strides[0] == extents[2] * item or extents[1] == 1
    if extents[0] > 0 and not all(adjacent):
        raise ValueError("patterns: expected the pixels of each pattern one after the other; copy them first")


def check_masks(masks: ArrayLike) -> NDArray[np.bool_]:
    """Return masks (D, ky, kx) of detectors as a C-contiguous array of bool."""
    array = np.asarray(masks)
    if array.ndim != 3 or 0 in array.shape or len(array) > MOST_DETECTORS:
        raise ValueError(f"masks: expected shape (D, ky, kx) with D from 1 to {MOST_DETECTORS}, got {array.shape}")
    if array.dtype != np.bool_:
        raise TypeError(f"masks: expected bool, got {array.dtype}; a pixel counts once or not at all")
    return np.ascontiguousarray(array)


def check_total(total: Any, patterns: Any) -> None:
    """Accept a sum (ky, kx) of patterns that can be added to: float64, of the same library and device."""
    kind, shape = family("patterns", patterns), tuple(patterns.shape[1:])
    if family("total", total) != kind or str(total.dtype).removeprefix("torch.") != "float64":
        raise TypeError(f"total: expected float64 in the library of the patterns, got {total.dtype} of {type(total)}")
    if tuple(total.shape) != shape:
        raise ValueError(f"total: expected shape {shape} like a pattern, got {tuple(total.shape)}")
    if kind == "numpy":
        fit = total.flags.c_contiguous and total.flags.writeable
    else:
        fit = device_array(total).strides == (shape[1], 1) and device_of(total) == device_of(patterns)
    if not fit:
        raise ValueError("total: expected a C-contiguous array that can be written to, on the device of the patterns")


def check_shape(shape: Any) -> tuple[int, int]:
    """Return an image shape as (H, W), both positive."""
    try:
        height, width = (check_integer("shape", extent, 1, 2**31) for extent in shape)
    except (TypeError, ValueError):
        raise ValueError(f"shape: expected (H, W), two positive integers, got {shape!r}") from None
    return height, width


def check_positions(positions: ArrayLike) -> NDArray[np.float64]:
    """Return positions as a C-contiguous float64 (N, 2) array of finite numbers."""
    array = np.asarray(positions)
    if array.size == 0 and array.ndim == 1:
        array = array.reshape(0, 2)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"positions: expected shape (N, 2), got {array.shape}")
    if array.dtype.kind not in "fiu":
        raise TypeError(f"positions: expected real numbers (row, column), got {array.dtype}")
    array = np.ascontiguousarray(array, dtype=np.float64)
    finite = np.isfinite(array)
    if not finite.all():
        bad = int(np.argmin(finite.all(axis=1)))
        raise ValueError(f"positions: expected finite numbers, got {array[bad].tolist()} in row {bad}; remove it")
    return array


def check_device_positions(positions: Any, like: Any, name: str) -> None:
    """Accept float64 (N, 2) positions of the same family and device as the CUDA array ``like``, called ``name``."""
    expected = family(name, like)
    if isinstance(positions, (np.ndarray, list, tuple)) or family("positions", positions) != expected:
        raise TypeError(
            f"positions: expected a {expected} array on the {name}'s device, got {type(positions).__name__}; "
            f"convert with {expected}.asarray"
        )
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise ValueError(f"positions: expected shape (N, 2), got {tuple(positions.shape)}")
    if str(positions.dtype).removeprefix("torch.") != "float64":
        raise TypeError(f"positions: expected float64, got {positions.dtype}; convert it first")
    if device_array(positions).strides != (2, 1):
        raise ValueError("positions: expected a C-contiguous array, got a strided one; copy it first")
    check_same_device("positions", positions, like, name)


def check_same_device(name: str, array: Any, like: Any, other: str) -> None:
    """Accept an array of the library and on the CUDA device of another one."""
    expected, got = family(other, like), family(name, array)
    if got != expected:
        raise TypeError(f"{name}: expected a {expected} array like the {other}, got {type(array).__name__}; convert it")
    if expected != "numpy" and device_of(array) != device_of(like):
        raise ValueError(
            f"{name}: expected an array on CUDA device {device_of(like)} like the {other}, "
            f"got one on device {device_of(array)}"
        )


def check_scale(scale: ArrayLike) -> NDArray[np.float64]:
    """Return the scale (image pixels per patch sample) as a 2x2 float64 matrix on (row, column) offsets."""
    try:
        array = np.asarray(scale, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"scale: expected a number or a 2x2 matrix, got {scale!r}") from None
    if array.ndim == 0 and np.isfinite(array) and array > 0:
        return np.eye(2) * float(array)
    if array.shape == (2, 2) and np.isfinite(array).all() and array[0, 0] * array[1, 1] != array[0, 1] * array[1, 0]:
        return np.ascontiguousarray(array)
    raise ValueError(f"scale: expected a positive number or an invertible 2x2 matrix, got {array.tolist()}")


def check_size(size: Any, smallest: int = 1) -> int:
    """Return the patch side as int."""
    return check_integer("size", size, smallest, 4096)


def check_integer(name: str, value: Any, low: int, high: int) -> int:
    """Return ``value`` as int if it is an integer in [low, high]."""
    if not isinstance(value, Integral) or isinstance(value, bool) or not low <= int(value) <= high:
        raise ValueError(f"{name}: expected an integer from {low} to {high}, got {value!r}")
    return int(value)


def check_real(name: str, value: Any) -> float:
    """Return ``value`` as a finite float."""
    try:
        finite = isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        finite = False
    if not finite:
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return float(value)


def check_interpolation(interpolation: str) -> str:
    """Accept "linear" or "nearest"."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation: expected one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}")
    return interpolation


def check_threads(n_threads: Any) -> int:
    """Accept 0 (all cores) or a positive number of threads."""
    return check_integer("n_threads", n_threads, 0, 1024)


def columns(moments: Any, numbers: NDArray[np.int32]) -> Any:
    """Return some columns of CUDA moments (..., J); a list of them as index would be uploaded, and waited for."""
    return sys.modules[family("moments", moments)].stack([moments[..., j] for j in numbers.tolist()], -1)


def hypot(a: Any, b: Any) -> Any:
    """Return sqrt(a^2 + b^2) in the arrays' own library, without overflow."""
    return sys.modules[family("moments", a)].hypot(a, b)


def device_of(array: Any) -> int:
    """Index of the CUDA device an array lives on."""
    if family("array", array) == "torch":
        return int(array.device.index)
    return int(array.device.id)


def device_array(array: Any) -> DeviceArray:
    """Describe a CUDA array, without a copy and without waiting for it."""
    device = device_of(array)
    if family("array", array) == "torch":
        dtype = np.dtype(str(array.dtype).removeprefix("torch."))
        shape, strides = (tuple(int(n) for n in extents) for extents in (array.shape, array.stride()))
        return DeviceArray(int(array.data_ptr()), shape, strides, dtype, device)
    interface = array.__cuda_array_interface__
    dtype = np.dtype(interface["typestr"])
    shape = tuple(int(n) for n in interface["shape"])
    steps = interface.get("strides")
    if steps is None:
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    else:
        strides = tuple(int(step) // dtype.itemsize for step in steps)
    return DeviceArray(int(interface["data"][0] or 0), shape, strides, dtype, device)


def device_empty(shape: tuple[int, ...], dtype: np.dtype[Any], like: Any) -> Any:
    """Allocate an uninitialised array of the same family on the same device as ``like``."""
    try:
        if family("array", like) == "torch":
            torch = sys.modules["torch"]
            return torch.empty(shape, dtype=getattr(torch, dtype.name), device=like.device)
        cupy = sys.modules["cupy"]
        with like.device:
            return cupy.empty(shape, dtype)
    except Exception as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's and CuPy's have no parent in common
            raise
        raise MemoryError(
            f"out of memory on CUDA device {device_of(like)}: {math.prod(shape) * dtype.itemsize:,} bytes were wanted "
            f"for an array of shape {shape}; pass fewer positions or patches at a time, or a NumPy array and device"
        ) from error


def device_memory(nbytes: int, device: str) -> Any:
    """Allocate (nbytes,) of uint8 on a torch device."""
    torch = sys.modules["torch"]
    with torch.cuda.device(device):
        return device_empty((nbytes,), np.dtype(np.uint8), torch.empty(0, device=device))


def device_view(memory: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """View the beginning of a torch tensor of uint8 as an array."""
    part = memory[: math.prod(shape) * dtype.itemsize]
    return part.view(getattr(sys.modules["torch"], dtype.name)).reshape(shape)


def check_card(device: Any) -> str:
    """Accept a CUDA device that torch can use, such as "cuda" or "cuda:1"."""
    torch: Any = importlib.import_module("torch")
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        place = None
    if place is None or place.type != "cuda":
        raise ValueError(f"device: expected a CUDA device such as 'cuda:0', or none for the CPU, got {device!r}")
    if not torch.cuda.is_available():
        why = (
            "it is a build for the CPU"
            if torch.version.cuda is None
            else "there is none, or no driver that is new enough"
        )
        raise RuntimeError(f"device: torch sees no CUDA device ({why}), got {device!r}; leave it out for the CPU")
    if place.index is not None and place.index >= torch.cuda.device_count():
        raise ValueError(f"device: expected one of {torch.cuda.device_count()} CUDA devices, got {device!r}")
    return str(place)


def device_stream(like: Any) -> int:
    """Address of the caller's current stream of the library and device that ``like`` belongs to."""
    if family("array", like) == "torch":
        return int(sys.modules["torch"].cuda.current_stream(like.device).cuda_stream)
    with like.device:
        return int(sys.modules["cupy"].cuda.get_current_stream().ptr)
