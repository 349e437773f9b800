"""The CUDA backend: what can be checked without a device, and the kernels where there is one."""

from __future__ import annotations

import sys
import types
import warnings
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import pytest
import strategies
from hypothesis import HealthCheck, given, settings

import contextem as ctm
from contextem import _arrays, _kernels, adjoint
from contextem.peaks import response_maxima
from contextem.virtual_detectors import VirtualDetectors, sum_patterns, virtual_detectors

BUILT = _kernels.describe()["cuda"] == "built"
needs_extension = pytest.mark.skipif(not BUILT, reason="the CUDA extension was not built: no nvcc")


# ---- without a device: a stand-in for cupy whose arrays describe host memory ---------------------------------------


@dataclass(frozen=True)
class Device(nullcontext):
    id: int = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


class DeviceLookalike:
    """Describes a NumPy array the way cupy describes device memory."""

    def __init__(self, host, device=0):
        self.host, self.device = host, Device(device)

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    __cuda_array_interface__ = property(lambda self: self.host.__array_interface__)

    def __len__(self):
        return len(self.host)

    def __setitem__(self, index, value):
        self.host[index] = value


@pytest.fixture
def cupy(monkeypatch):
    module = types.ModuleType("cupy")
    module.ndarray = DeviceLookalike
    module.empty = lambda shape, dtype: DeviceLookalike(np.empty(shape, dtype))
    module.hypot = np.hypot
    module.cuda = types.SimpleNamespace(get_current_stream=lambda: types.SimpleNamespace(ptr=1234))
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


class Recorder:
    """Stands in for the extension: keeps what it was called with."""

    def __init__(self):
        self.calls = []

    def MomentTable(self, *arguments):
        self.calls.append(("MomentTable", arguments))
        return "table"

    def is_capturing(self, stream, device):
        return False

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, arguments))


@pytest.fixture
def extension(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(_kernels, "_cuda_module", lambda: recorder)
    return recorder


def test_device_arrays_go_to_the_extension_on_the_callers_stream(cupy, extension):
    host = np.random.default_rng(0).random((20, 30), dtype=np.float32)
    image, positions = cupy.ndarray(host[:, ::2]), cupy.ndarray(np.zeros((4, 2)))
    basis = ctm.ZernikeBasis(3, 9)
    moments = ctm.column_moments(image, positions, basis, scale=0.5, interpolation="nearest")
    assert isinstance(moments, DeviceLookalike) and moments.shape == (4, 10) and moments.dtype == np.float32
    (made, arguments), (called, (source, centres, table, matrix, nearest, out, stream)) = extension.calls
    assert (made, arguments[1:]) == ("MomentTable", (9, np.dtype(np.float32), 0))
    assert (called, table, nearest, stream) == ("column_moments", "table", True, 1234)
    assert source == _arrays.DeviceArray(host.ctypes.data, (20, 15), (30, 2), np.dtype(np.float32), 0)
    assert centres.shape == (4, 2) and centres.strides == (2, 1)
    assert out.pointer == moments.host.ctypes.data
    np.testing.assert_array_equal(matrix, 0.5 * np.eye(2))

    ctm.column_moments(image, positions, basis)
    assert [name for name, _ in extension.calls].count("MomentTable") == 1  # kept with the basis


def test_patches_and_extraction_go_to_the_extension(cupy, extension):
    patches = cupy.ndarray(np.zeros((5, 9, 9)))
    assert ctm.patch_moments(patches, ctm.ZernikeBasis(2, 9)).shape == (5, 6)
    image, positions = cupy.ndarray(np.zeros((20, 20))), cupy.ndarray(np.zeros((7, 2)))
    assert ctm.extract_patches(image, positions, 11).shape == (7, 11, 11)
    assert [name for name, _ in extension.calls] == ["MomentTable", "patch_moments", "extract_patches"]


def test_diffraction_patterns_go_to_the_extension(cupy, extension, monkeypatch):
    prepared = types.SimpleNamespace(sum=lambda *arguments: extension.calls.append(("sum", arguments)))
    made = []
    monkeypatch.setattr(extension, "VirtualDetectors", lambda *call: made.append(call) or prepared, raising=False)
    monkeypatch.setattr(extension, "SCAN_PARTS", 64, raising=False)
    patterns, detectors = cupy.ndarray(np.zeros((7, 5, 6), np.uint16)[::2]), VirtualDetectors(np.ones((2, 5, 6), bool))
    for _ in range(2):
        sums = virtual_detectors(patterns, detectors)
        assert sums.shape == (4, 2) and sums.dtype == np.float64
    total = sum_patterns(patterns)
    assert total.shape == (5, 6) and (total.host == 0).all()
    assert sum_patterns(patterns, total=total) is total
    assert len(made) == 1 and made[0][1] == 0  # kept with the detectors
    (called, (source, out, stream)), _, (added, (_, parts, target, _)), _ = extension.calls
    assert (called, added, stream) == ("sum", "sum_patterns", 1234)
    assert source.strides == (60, 6, 1) and out.shape == (4, 2)
    assert parts.shape == (64, 5, 6) and target.pointer == total.host.ctypes.data
    for bad in (cupy.ndarray(np.zeros((4, 5, 12), np.uint16)[:, :, ::2]), cupy.ndarray(np.zeros((4, 10, 6))[:, ::2])):
        with pytest.raises(ValueError, match="patterns: expected the pixels of each pattern one after the other"):
            virtual_detectors(bad, detectors)
    with pytest.raises(ValueError, match=r"total: expected a C-contiguous array .* on the device of the patterns"):
        sum_patterns(patterns, total=cupy.ndarray(np.zeros((5, 6)), 1))
    with pytest.raises(TypeError, match="total: expected float64 in the library of the patterns"):
        sum_patterns(patterns, total=np.zeros((5, 6)))


def test_unfit_device_positions_get_one_sentence(cupy, extension):
    image = cupy.ndarray(np.zeros((20, 20)))
    for positions, error, sentence in [
        (
            np.zeros((4, 2)),
            TypeError,
            "positions: expected a cupy array on the image's device, got ndarray; convert with cupy.asarray",
        ),
        ([(1, 2)], TypeError, "positions: expected a cupy array on the image's device, got list"),
        (cupy.ndarray(np.zeros((4, 3))), ValueError, r"positions: expected shape \(N, 2\), got \(4, 3\)"),
        (cupy.ndarray(np.zeros((4, 2), np.float32)), TypeError, "positions: expected float64, got float32"),
        (cupy.ndarray(np.zeros((8, 2))[::2]), ValueError, "positions: expected a C-contiguous array"),
        (
            cupy.ndarray(np.zeros((4, 2)), 1),
            ValueError,
            "positions: expected an array on CUDA device 0 like the image, got one on device 1",
        ),
    ]:
        with pytest.raises(error, match=sentence):
            ctm.extract_patches(image, positions, 9)
    assert extension.calls == []


def test_a_device_array_cannot_be_forced_to_the_host(cupy):
    image, positions = cupy.ndarray(np.zeros((20, 20))), cupy.ndarray(np.zeros((4, 2)))
    with pytest.raises(TypeError, match="image: backend 'cpp' expects a NumPy array, got DeviceLookalike"):
        ctm.extract_patches(image, positions, 9, backend="cpp")


def test_a_build_without_cuda_says_so(cupy, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(_kernels.importlib, "import_module", missing)
    with pytest.raises(RuntimeError, match="this build of contextem has no CUDA extension; rebuild it where nvcc"):
        ctm.patch_moments(cupy.ndarray(np.zeros((5, 9, 9))), ctm.ZernikeBasis(2, 9))
    assert _kernels.describe()["cuda"] == "not built"


class Foreign:
    """An array of another library, of which only the exchange is known."""

    def __init__(self, host, device=None, interface=None):
        self.host = host
        if device is not None:
            self.__dlpack__ = lambda **_: None
            self.__dlpack_device__ = lambda: (device, 0)
        if interface is not None:
            self.__cuda_array_interface__ = interface


@pytest.mark.parametrize("device", [2, 13])
def test_arrays_of_other_libraries_are_taken_through_dlpack(cupy, extension, device):
    cupy.from_dlpack = lambda array: DeviceLookalike(array.host)
    image, positions = Foreign(np.ones((20, 20)), device, {"mask": 1}), Foreign(np.ones((4, 2)), device)
    basis = ctm.ZernikeBasis(2, 9)
    assert isinstance(ctm.column_moments(image, positions, basis), DeviceLookalike)
    assert ctm.extract_patches(image, positions, 5).shape == (4, 5, 5)
    assert ctm.patch_moments(Foreign(np.zeros((3, 9, 9)), device), basis).shape == (3, 6)
    assert ctm.patch_moments_adjoint(Foreign(np.zeros((3, 6)), device), basis).shape == (3, 9, 9)
    with pytest.raises(TypeError, match="positions: expected a cupy array on the image's device, got ndarray"):
        ctm.column_moments(image, positions.host, basis)


def test_arrays_of_other_libraries_are_taken_through_their_interface(cupy, extension):
    cupy.asarray = lambda array: DeviceLookalike(array.host)
    patches = Foreign(np.zeros((3, 9, 9)), interface={"data": (1, False)})
    assert ctm.patch_moments(patches, ctm.ZernikeBasis(2, 9)).shape == (3, 6)
    masked = Foreign(np.zeros((3, 9, 9)), interface={"data": (1, False), "mask": object()})
    with pytest.raises(TypeError, match="patches: masked arrays are not supported"):
        ctm.patch_moments(masked, ctm.ZernikeBasis(2, 9))


def test_arrays_of_other_libraries_are_refused_where_nothing_takes_them(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "cupy", None)
    basis = ctm.ZernikeBasis(2, 9)
    with pytest.raises(TypeError, match="patches: got Foreign in CUDA memory, which is taken through CuPy or a CUDA"):
        ctm.patch_moments(Foreign(np.zeros((3, 9, 9)), 2), basis)
    for other in (Foreign(np.zeros((3, 9, 9)), 1), Foreign(np.zeros((3, 9, 9)), 10), object()):
        with pytest.raises(TypeError, match="patches: expected a NumPy array, a CuPy array or a torch CUDA tensor"):
            ctm.patch_moments(other, basis)


def test_torch_does_not_copy_what_lies_on_another_device(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "cupy", None)
    copied = torch.zeros(3)
    monkeypatch.setattr(torch, "as_tensor", lambda array, device: copied)
    with pytest.raises(ValueError, match="image: expected an array on torch's current CUDA device"):
        _arrays.adopt("image", Foreign(None, interface={"data": (4096, False)}))
    assert _arrays.adopt("image", Foreign(None, interface={"data": (copied.data_ptr(), False)})) is copied


def test_a_numpy_array_is_told_the_way_to_the_device():
    with pytest.raises(TypeError, match=r"expects a CuPy array .* move it there with cupy\.asarray\(image\) or torch"):
        ctm.column_moments(np.zeros((20, 20)), np.zeros((4, 2)), ctm.ZernikeBasis(2, 9), backend="cuda")


def test_a_table_is_not_uploaded_into_a_graph(cupy, extension, monkeypatch):
    monkeypatch.setattr(extension, "is_capturing", lambda stream, device: (stream, device) == (1234, 0))
    patches, basis = cupy.ndarray(np.zeros((5, 9, 9))), ctm.ZernikeBasis(2, 9)
    with pytest.raises(RuntimeError, match=r"MomentTable: .* before a graph is captured.*; call the function once"):
        ctm.patch_moments(patches, basis)
    with pytest.raises(RuntimeError, match="AdjointTable: expected a table that is on CUDA device 0 before a graph"):
        ctm.patch_moments_adjoint(cupy.ndarray(np.zeros((5, 6))), basis)
    monkeypatch.setattr(extension, "is_capturing", lambda stream, device: False)
    ctm.patch_moments(patches, basis)
    monkeypatch.setattr(extension, "is_capturing", lambda stream, device: True)
    assert ctm.patch_moments(patches, basis).shape == (5, 6)  # the table is there


@pytest.mark.parametrize("device", [0, 1])
def test_the_device_is_that_of_the_array(cupy, extension, device):
    cupy.empty = lambda shape, dtype: DeviceLookalike(np.empty(shape, dtype), device)
    ctm.patch_moments(DeviceLookalike(np.zeros((5, 9, 9)), device), ctm.ZernikeBasis(2, 9))
    (_, (*_, made_on)), (_, (source, _, out, _)) = extension.calls
    assert made_on == source.device == out.device == device


def test_out_of_memory_is_one_sentence(cupy, extension):
    class OutOfMemoryError(RuntimeError):
        pass

    def full(shape, dtype):
        raise OutOfMemoryError

    cupy.empty = full
    with pytest.raises(MemoryError, match=r"out of memory on CUDA device 0: 240 bytes were wanted .* shape \(5, 6\)"):
        ctm.patch_moments(cupy.ndarray(np.zeros((5, 9, 9))), ctm.ZernikeBasis(2, 9))


def test_adjoints_on_mixed_devices_get_one_sentence(cupy, extension):
    basis = ctm.ZernikeBasis(2, 9)
    gradient, positions = cupy.ndarray(np.zeros((4, 6))), cupy.ndarray(np.zeros((4, 2)))
    slopes = adjoint.column_moments_position_gradient
    for image, error, sentence in [
        (np.zeros((20, 20)), TypeError, "image: expected a cupy array like the gradient, got ndarray"),
        (DeviceLookalike(np.zeros((20, 20)), 1), ValueError, "image: expected an array on CUDA device 0 like the grad"),
        (cupy.ndarray(np.zeros((20, 20), np.float32)), TypeError, "image: expected float64 like the gradient"),
    ]:
        with pytest.raises(error, match=sentence):
            slopes(gradient, image, positions, basis)
    with pytest.raises(TypeError, match="positions: expected a cupy array on the gradient's device, got ndarray"):
        ctm.column_moments_adjoint(gradient, np.zeros((4, 2)), basis, (20, 20))
    with pytest.raises(ValueError, match="positions: expected an array on CUDA device 0 like the gradient, got one on"):
        ctm.column_moments_adjoint(gradient, DeviceLookalike(np.zeros((4, 2)), 1), basis, (20, 20))
    assert extension.calls == []


@needs_extension
def test_the_extension_imports_without_a_driver():
    facts = _kernels.describe()
    assert (facts["cuda_driver"] == 0) <= (facts["cuda_devices"] == 0)
    assert facts["cuda_devices"] >= 0
    assert facts["cuda_runtime"] >= 11000


@needs_extension
def test_the_extension_checks_what_it_is_given(cupy):
    from contextem import _cuda

    matrix = np.eye(2)

    def describe(host, device=0):
        return _arrays.device_array(DeviceLookalike(host, device))

    with pytest.raises(ValueError, match="image: expected 2 dimensions"):
        _cuda.extract_patches(
            describe(np.zeros(3)), describe(np.zeros((1, 2))), matrix, False, describe(np.zeros((1, 3, 3))), 0
        )
    with pytest.raises(ValueError, match="positions: expected CUDA device 0, got 1"):
        _cuda.extract_patches(
            describe(np.zeros((3, 3))), describe(np.zeros((1, 2)), 1), matrix, False, describe(np.zeros((1, 3, 3))), 0
        )
    with pytest.raises(TypeError, match="image: expected float32 or float64, got int64"):
        _cuda.extract_patches(
            describe(np.zeros((3, 3), int)), describe(np.zeros((1, 2))), matrix, False, describe(np.zeros((1, 3, 3))), 0
        )


@needs_extension
def test_the_extension_checks_images_and_responses(cupy):
    from contextem import _cuda

    def describe(*shape, dtype=np.float64, step=1):
        return _arrays.device_array(DeviceLookalike(np.zeros((*shape[:-1], shape[-1] * step), dtype)[..., ::step]))

    image, out = describe(4, 4), describe(4, 4)
    for sigma in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="sigma: expected a positive width in px"):
            _cuda.peak_response(image, sigma, out, 0)
    with pytest.raises(ValueError, match="image: expected at least one pixel"):
        _cuda.peak_response(describe(0, 4), 1.0, describe(0, 4), 0)
    with pytest.raises(TypeError, match="response: expected float32 or float64, got int32"):
        _cuda.count_maxima(describe(4, 4, dtype=np.int32), 0.0, describe(9), describe(1), 0)
    if _kernels.describe()["cuda_devices"] > 0:
        with pytest.raises(ValueError, match="response: expected rows of adjacent pixels; copy it first"):
            _cuda.count_maxima(describe(4, 4, step=2), 0.0, describe(9), describe(1), 0)
        with pytest.raises(ValueError, match=r"scratch: expected \d+ bytes as uint8"):
            _cuda.count_maxima(image, 0.0, describe(9, dtype=np.uint8), describe(1), 0)


@needs_extension
def test_a_machine_without_a_device_gets_the_reason(cupy):
    if _kernels.describe()["cuda_devices"] > 0:
        pytest.skip("this machine has a CUDA device")
    image, positions = cupy.ndarray(np.zeros((20, 20))), cupy.ndarray(np.zeros((4, 2)))
    with pytest.raises(RuntimeError, match="CUDA error: "):
        ctm.extract_patches(image, positions, 9)
    with pytest.raises(RuntimeError, match="CUDA error: "):
        ctm.column_moments(image, positions, ctm.ZernikeBasis(2, 9))
    with pytest.raises(RuntimeError, match="CUDA error: "):
        response_maxima(image, 9.0, capacity=5)


# ---- with a device ---------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(strategies.cases())
def test_cuda_equals_the_reference(cuda_arrays, case):
    basis = ctm.ZernikeBasis(8, case.size)
    arguments = {"scale": case.scale, "interpolation": case.interpolation}
    image, positions = cuda_arrays(case.image.copy()), cuda_arrays(case.positions)
    unit = np.finfo(case.image.dtype).eps * abs(case.image).max()
    patches = ctm.extract_patches(image, positions, case.size, **arguments)
    expected = ctm.extract_patches(case.image, case.positions, case.size, backend="reference", **arguments)
    assert (abs(patches.cpu().numpy() - expected) <= 8 * unit).all()
    bound = 16 * unit * abs(basis.weights).sum(axis=1)
    expected = ctm.column_moments(case.image, case.positions, basis, backend="reference", **arguments)
    assert (abs(ctm.column_moments(image, positions, basis, **arguments).cpu().numpy() - expected) <= bound).all()
    assert (abs(ctm.patch_moments(patches, basis).cpu().numpy() - expected) <= bound).all()


@pytest.mark.gpu
def test_cuda_takes_strided_tensors_and_other_streams(cuda_arrays):
    import torch

    basis = ctm.ZernikeBasis(20, 40)
    rng = np.random.default_rng(0)
    host, centres = rng.normal(size=(300, 200)).astype(np.float32), rng.uniform(0, 150, (1000, 2))
    image, positions = cuda_arrays(host).T[:, ::2], cuda_arrays(centres)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        moments = ctm.column_moments(image, positions, basis)
    stream.synchronize()
    expected = ctm.column_moments(host.T[:, ::2], centres, basis, backend="reference")
    bound = 16 * np.finfo(np.float32).eps * abs(host).max() * abs(basis.weights).sum(axis=1)
    assert (abs(moments.cpu().numpy() - expected) <= bound).all()


@pytest.mark.gpu
@pytest.mark.parametrize(("size", "n_max"), [(32, 10), (16, 10), (23, 10), (64, 20), (40, 12), (24, 30)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_patch_moments_of_every_layout(cuda_arrays, size, n_max, dtype):
    basis = ctm.ZernikeBasis(n_max, size)
    rng = np.random.default_rng(0)
    for count in (1, 63, 64, 65, 1000):  # tiles of 64 and 32 patches, whole and not
        host = rng.random((count, size, size + 8)).astype(dtype)
        stack = cuda_arrays(host)
        for patches, values in [
            (stack[:, :, :size].contiguous(), host[:, :, :size]),  # vectors of 16 bytes, where the side allows it
            (stack[:, :, :size], host[:, :, :size]),  # rows apart
            (stack[:, :, 1 : size + 1], host[:, :, 1 : size + 1]),  # not aligned
            (stack[:, :, :size].transpose(1, 2), host[:, :, :size].transpose(0, 2, 1)),
        ]:
            expected = values.reshape(count, -1).astype(np.float64) @ basis.weights.T
            bound = 16 * np.finfo(dtype).eps * abs(basis.weights).sum(axis=1)
            moments = ctm.patch_moments(patches, basis).cpu().numpy()
            assert (abs(moments - expected) <= bound).all()


@pytest.mark.gpu
def test_column_moments_of_a_large_image(cuda_arrays):
    basis = ctm.ZernikeBasis(10, 32)
    rng = np.random.default_rng(0)
    host, centres = rng.random((1500, 1400)).astype(np.float32), rng.uniform(-10, 1500, (20_001, 2))
    centres[::2] = np.floor(centres[::2]) + 0.5  # on pixels, between others
    image, positions = cuda_arrays(host), cuda_arrays(centres)
    bound = 16 * np.finfo(np.float32).eps * abs(basis.weights).sum(axis=1)
    for options in ({}, {"interpolation": "nearest"}, {"scale": 1.3}, {"scale": [[0.9, 0.3], [-0.3, 0.9]]}):
        moments = ctm.column_moments(image, positions, basis, **options).cpu().numpy()
        expected = ctm.column_moments(host.astype(np.float64), centres, basis, **options)
        assert (abs(moments - expected) <= bound).all()


@pytest.mark.gpu
def test_pixels_beyond_the_disk_take_no_part(cuda_arrays):
    basis = ctm.ZernikeBasis(10, 32)
    patches = np.random.default_rng(0).random((100, 32, 32)).astype(np.float32)
    beside = np.where(abs(basis.weights).max(axis=0).reshape(32, 32) > 0, patches, np.float32(np.nan))
    moments = ctm.patch_moments(cuda_arrays(beside), basis).cpu().numpy()
    np.testing.assert_array_equal(moments, ctm.patch_moments(cuda_arrays(patches), basis).cpu().numpy())


@pytest.mark.gpu
def test_weights_without_parity(cuda_arrays):
    weights = np.random.default_rng(0).normal(size=(7, 81))
    table = _kernels.WeightTable(weights, 9)
    patches = np.random.default_rng(1).random((70, 9, 9))
    moments = _kernels.select(cuda_arrays(patches), "patches", None).patch_moments(cuda_arrays(patches), table, 0)
    np.testing.assert_allclose(moments.cpu().numpy(), patches.reshape(70, -1) @ weights.T, atol=1e-12)


@pytest.mark.gpu
def test_cuda_shows_positions_that_are_not_finite(cuda_arrays):
    moments = ctm.column_moments(
        cuda_arrays(np.ones((20, 20))), cuda_arrays(np.array([[np.nan, 5.0], [9.0, 9.0]])), ctm.ZernikeBasis(2, 9)
    )
    assert moments[0].isnan().all() and not moments[1].isnan().any()


@pytest.mark.gpu
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(strategies.cases())
def test_the_adjoint_equals_the_reference(cuda_arrays, case):
    basis = ctm.ZernikeBasis(6, case.size)
    shape, sampling = case.image.shape, {"scale": case.scale, "interpolation": case.interpolation}
    host = np.random.default_rng(0).normal(size=(len(case.positions), basis.n_modes)).astype(case.image.dtype)
    image, gradient, positions = cuda_arrays(case.image.copy()), cuda_arrays(host), cuda_arrays(case.positions)
    eps = np.finfo(host.dtype).eps
    largest = abs(host).astype(float) @ abs(basis.weights)
    patches = ctm.patch_moments_adjoint(gradient, basis).cpu().numpy().reshape(largest.shape)
    assert (abs(patches - host.astype(float) @ basis.weights) <= 16 * eps * largest).all()
    pixels = ctm.column_moments_adjoint(gradient, positions, basis, shape, **sampling)
    arguments = case.positions, basis, shape
    expected = ctm.column_moments_adjoint(host, *arguments, backend="reference", **sampling)
    bound = 32 * eps * largest.max(initial=0) * (1 + abs(case.positions).size) * basis.size
    assert (abs(pixels.cpu().numpy() - expected) <= bound).all()
    again = ctm.column_moments_adjoint(gradient, positions, basis, shape, **sampling)
    assert (pixels == again).all()  # to the last bit
    slopes = adjoint.column_moments_position_gradient(gradient, image, positions, basis, scale=case.scale)
    expected = adjoint.column_moments_position_gradient(
        host, case.image, case.positions, basis, scale=case.scale, backend="reference"
    )
    assert (abs(slopes.cpu().numpy() - expected) <= 64 * eps * abs(case.image).max() * largest.sum(initial=0)).all()


@pytest.mark.gpu
def test_the_adjoint_of_many_columns_is_the_same_every_time(cuda_arrays):
    rng = np.random.default_rng(0)
    basis, shape = ctm.ZernikeBasis(8, 32), (900, 700)
    positions, gradient = rng.uniform(-5, 900, (60_000, 2)), rng.normal(size=(60_000, basis.n_modes)).astype(np.float32)
    first = ctm.column_moments_adjoint(cuda_arrays(gradient), cuda_arrays(positions), basis, shape)
    second = ctm.column_moments_adjoint(cuda_arrays(gradient), cuda_arrays(positions), basis, shape)
    assert (first == second).all()
    expected = ctm.column_moments_adjoint(gradient, positions, basis, shape)
    assert abs(first.cpu().numpy() - expected).max() <= 1e-4 * abs(expected).max()


@pytest.mark.gpu
def test_graphs_are_captured_and_played_again(cuda_arrays):
    import torch

    from contextem import autograd

    rng = np.random.default_rng(0)
    basis = ctm.ZernikeBasis(6, 24)
    image, positions = cuda_arrays(rng.random((200, 150), dtype=np.float32)), cuda_arrays(rng.uniform(0, 150, (500, 2)))
    with warnings.catch_warnings(), pytest.raises(RuntimeError, match="MomentTable: expected a table that is on CUDA"):
        warnings.simplefilter("ignore")  # the graph remains empty
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            ctm.column_moments(image, positions, basis)
    moments = ctm.column_moments(image, positions, basis)  # uploads the table
    pixels = ctm.column_moments_adjoint(moments, positions, basis, (200, 150))
    adjoint.column_moments_position_gradient(moments, image, positions, basis)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ctm.column_moments(image, positions, basis)
        back = ctm.column_moments_adjoint(captured, positions, basis, (200, 150))
        slopes = adjoint.column_moments_position_gradient(captured, image, positions, basis)
        invariants = autograd.rotation_invariants(captured, basis), ctm.rotation_invariants(captured, basis)
    graph.replay()
    assert (captured == moments).all() and (back == pixels).all()
    assert all((found == ctm.rotation_invariants(moments, basis)).all() for found in invariants)
    image.copy_(image.flip(0))
    graph.replay()
    assert (captured == ctm.column_moments(image, positions, basis)).all()
    assert (slopes == adjoint.column_moments_position_gradient(captured, image, positions, basis)).all()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (2, 70), (3, 3), (33, 129), (500, 700), (1037, 2001)])
def test_peaks_are_those_of_the_host_to_the_last_bit(cuda_arrays, shape, dtype):
    image = np.random.default_rng(0).normal(size=shape).astype(dtype)
    on_card, wide = cuda_arrays(image), cuda_arrays(np.repeat(np.asfortranarray(image), 2, axis=1))[:, ::2]
    for a in (5.0, 19.0, 32.0, 100.0):
        response = _kernels.peak_response(image, max(0.12 * a, 0.8))
        for pixels in (on_card, wide):
            np.testing.assert_array_equal(_kernels.peak_response(pixels, max(0.12 * a, 0.8)).cpu().numpy(), response)
        for threshold in (0.0, 0.5 * float(response.max())):
            for capacity in (None, 0, 7, response.size + 5):
                expected = response_maxima(image, a, threshold=threshold, capacity=capacity)
                found = response_maxima(on_card, a, threshold=threshold, capacity=capacity)
                for one, other in zip(found, expected, strict=True):
                    assert one.is_cuda
                    np.testing.assert_array_equal(one.cpu().numpy(), other)


@pytest.mark.gpu
def test_every_pixel_of_a_plateau_is_a_peak_on_the_device_too(cuda_arrays):
    response = np.ones((300, 1000), np.float32)
    positions, heights, count = _kernels.local_maxima_on_device(cuda_arrays(response), 0.0, None)
    assert int(count[0]) == len(positions) == 298 * 998 and (heights == 1).all()
    np.testing.assert_array_equal(positions.cpu().numpy(), _kernels.local_maxima(response)[0])


@pytest.mark.gpu
def test_peaks_in_a_graph_and_on_a_stream_of_the_caller(cuda_arrays):
    import torch

    rng = np.random.default_rng(0)
    images = [rng.normal(size=(400, 300)).astype(np.float32) for _ in range(2)]
    image, expected = cuda_arrays(images[0]), [response_maxima(each, 16.0, capacity=2000) for each in images]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        found = response_maxima(image, 16.0)
    stream.synchronize()
    np.testing.assert_array_equal(found.positions.cpu().numpy(), response_maxima(images[0], 16.0).positions)
    with warnings.catch_warnings(), pytest.raises(RuntimeError, match="capacity: expected a number of peaks to make"):
        warnings.simplefilter("ignore")  # the graph remains empty
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            response_maxima(image, 16.0)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = response_maxima(image, 16.0, capacity=2000)
    for each, wanted in zip(images, expected, strict=True):
        image.copy_(cuda_arrays(each))
        graph.replay()
        for one, other in zip(captured, wanted, strict=True):
            np.testing.assert_array_equal(one.cpu().numpy(), other)


@pytest.mark.gpu
def test_a_filter_too_wide_for_the_device_is_one_sentence(cuda_arrays):
    with pytest.raises(ValueError, match=r"sigma: expected at most \d+\.\d+ px on this device, got 60\.\d+; bin the"):
        response_maxima(cuda_arrays(np.zeros((50, 50), np.float32)), 500.0)


@pytest.mark.gpu
def test_many_streams_at_once(cuda_arrays):
    import torch

    rng = np.random.default_rng(0)
    images = [cuda_arrays(rng.random((300, 300), dtype=np.float32)) for _ in range(8)]
    positions = cuda_arrays(rng.uniform(0, 300, (5000, 2)))
    torch.cuda.synchronize()
    basis = ctm.ZernikeBasis(8, 32)  # its table is uploaded by whichever stream comes first
    streams, found = [torch.cuda.Stream() for _ in images], []
    for stream, image in zip(streams, images, strict=True):
        with torch.cuda.stream(stream):
            moments = ctm.column_moments(image, positions, basis)
            found.append((moments, ctm.column_moments_adjoint(moments, positions, basis, (300, 300))))
    torch.cuda.synchronize()
    for image, (moments, pixels) in zip(images, found, strict=True):
        expected = ctm.column_moments(image, positions, basis)
        assert (moments == expected).all()
        assert (pixels == ctm.column_moments_adjoint(expected, positions, basis, (300, 300))).all()


@pytest.mark.gpu
def test_a_second_device_is_that_of_the_array(cuda_arrays):
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device")
    image = torch.rand(100, 100, device="cuda:1")
    positions, basis = torch.full((3, 2), 50.0, dtype=torch.float64, device="cuda:1"), ctm.ZernikeBasis(4, 16)
    moments = ctm.column_moments(image, positions, basis)
    assert moments.device == image.device and torch.cuda.current_device() == 0
    expected = ctm.column_moments(image.cpu().numpy(), positions.cpu().numpy(), basis)
    np.testing.assert_allclose(moments.cpu().numpy(), expected, atol=1e-5)
    with pytest.raises(ValueError, match="positions: expected an array on CUDA device 1 like the image, got one on"):
        ctm.column_moments(image, positions.to("cuda:0"), basis)


@pytest.mark.gpu
def test_objects_with_an_interface_alone(cuda_arrays):
    host = np.random.default_rng(0).normal(size=(5, 9, 9))
    tensor, basis = cuda_arrays(host), ctm.ZernikeBasis(3, 9)
    exchanged = types.SimpleNamespace(__dlpack__=tensor.__dlpack__, __dlpack_device__=tensor.__dlpack_device__)
    described = types.SimpleNamespace(__cuda_array_interface__=tensor.__cuda_array_interface__)
    expected = ctm.patch_moments(tensor, basis)
    for other in (exchanged, described):
        assert (ctm.patch_moments(other, basis) == expected).all()


@pytest.mark.gpu
def test_memory_that_is_not_there_is_one_sentence(cuda_arrays):
    patches = cuda_arrays(np.zeros((1, 9, 9), np.float32)).expand(2**33, 9, 9)
    with pytest.raises(MemoryError, match="out of memory on CUDA device 0: "):
        ctm.patch_moments(patches, ctm.ZernikeBasis(20, 9))
