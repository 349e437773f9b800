"""A stand-in for a CUDA device: torch tensors of the host that say they lie there, and the C++ kernels at addresses."""

from __future__ import annotations

import numpy as np

from contextem import _arrays, _core, _kernels


def at_address(description):
    """The memory that a DeviceArray describes, as an array."""
    if 0 in description.shape:
        return np.empty(description.shape, description.dtype)

    memory = type("Memory", (), {})()
    memory.__array_interface__ = {
        "data": (description.pointer, False),
        "shape": description.shape,
        "strides": tuple(step * description.dtype.itemsize for step in description.strides),
        "typestr": description.dtype.str,
        "version": 3,
    }
    return np.asarray(memory)


class HostExtension:
    """What contextem._cuda offers, on the host; keeps the names of what was called."""

    SCAN_PARTS = 64

    def __init__(self):
        self.calls, self.capturing = [], False

    def is_capturing(self, stream, device):
        return self.capturing

    def MomentTable(self, weights, size, dtype, device):
        return _core.MomentTable(weights, size, dtype)

    def AdjointTable(self, weights, size, dtype, device):
        return _core.AdjointTable(weights, size, dtype)

    def VirtualDetectors(self, masks, device):
        zones = _core.VirtualDetectors(masks)

        class Detectors:
            def sum(self, patterns, out, stream):
                at_address(out)[...] = zones.sum(at_address(patterns), 1)

        return Detectors()

    def patch_moments(self, patches, table, out, stream):
        self.calls.append("patch_moments")
        at_address(out)[...] = _core.patch_moments(at_address(patches), table, 1)

    def column_moments(self, image, positions, table, matrix, nearest, out, stream):
        self.calls.append("column_moments")
        moments = _core.column_moments(at_address(image), at_address(positions).copy(), table, matrix, nearest, 1)
        at_address(out)[...] = moments

    def patch_moments_adjoint(self, gradient, table, out, stream):
        self.calls.append("patch_moments_adjoint")
        at_address(out)[...] = _core.patch_moments_adjoint(at_address(gradient), table, 1)

    def column_adjoint_scratch(self, count, rows, columns, size, dtype, device):
        return 1000 + count

    def column_moments_adjoint(self, gradient, positions, table, matrix, nearest, scratch, out, stream):
        self.calls.append("column_moments_adjoint")
        assert scratch.shape == (1000 + positions.shape[0],) and scratch.dtype == np.uint8
        at_address(out)[...] = _core.column_moments_adjoint(
            at_address(gradient), at_address(positions).copy(), table, matrix, nearest, *out.shape, 1
        )

    def position_gradient_scratch(self, count, size, dtype):
        return 2000 + count

    def column_moments_position_gradient(self, gradient, image, positions, table, matrix, scratch, out, stream):
        self.calls.append("column_moments_position_gradient")
        assert scratch.shape == (2000 + positions.shape[0],) and scratch.dtype == np.uint8
        at_address(out)[...] = _core.column_moments_position_gradient(
            at_address(gradient), at_address(image), at_address(positions).copy(), table, matrix, 1
        )

    def peak_response(self, image, sigma, out, stream):
        self.calls.append("peak_response")
        at_address(out)[...] = _core.peak_response(at_address(image), sigma, 1)

    def maxima_scratch(self, rows, columns, device):
        return 3000 + rows * columns

    def count_maxima(self, response, threshold, scratch, count, stream):
        self.calls.append("count_maxima")
        assert scratch.shape == (3000 + response.shape[0] * response.shape[1],) and scratch.dtype == np.uint8
        positions, heights = _core.local_maxima(at_address(response), 1)
        self.marked = positions[heights > threshold], heights[heights > threshold]
        at_address(count)[...] = len(self.marked[1])

    def write_maxima(self, response, scratch, positions, heights, stream):
        self.calls.append("write_maxima")
        for out, found in zip((positions, heights), self.marked, strict=True):
            room = at_address(out)
            room[...] = np.nan
            room[: len(found)] = found[: len(room)]


def install(monkeypatch):
    """Let torch tensors of the host count as tensors in CUDA memory; return what stands in for the extension."""
    import torch

    def empty(shape, dtype, like):
        return torch.empty(shape, dtype=getattr(torch, dtype.name))

    extension = HostExtension()
    monkeypatch.setattr(_kernels, "_cuda_module", lambda: extension)
    monkeypatch.setattr(_arrays, "in_cuda", lambda tensor: True)
    monkeypatch.setattr(_arrays, "device_of", lambda array: 0)
    monkeypatch.setattr(_arrays, "device_stream", lambda like: 77)
    monkeypatch.setattr(_arrays, "device_empty", empty)
    return extension
