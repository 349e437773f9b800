"""Check the CUDA kernels against double precision, then time them: python benchmarks/gpu_check.py, on a CUDA machine.

    python benchmarks/gpu_check.py [--json FILE] [--dry-run]

Nothing is built. Every result is compared before it is timed. Times are medians of CUDA events; inputs rotate among
buffers that no cache holds together. One line for each case, with its bar, comes last, and all of it goes to a JSON
file. Rates of moving bytes stand beside a device-to-device copy, which counts what it reads and what it writes.

Exit status: 0 all right and every bar met; 1 a result is wrong or a section failed; 2 no CUDA device; 3 all right, but
a bar is missed. --dry-run does the same at tiny sizes on the CPU, where bars say nothing (status 0 or 1).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import contextem as ctm
from contextem import _kernels, reference
from contextem.columns import Columns
from contextem.measurement import measure
from contextem.peaks import response_maxima
from contextem.virtual_detectors import VirtualDetectors, annulus, sum_patterns, virtual_detectors

EPS = 16.0
"""Allowed error of a moment in rounding errors of sum |w| max |I|: 2e-6 in single precision."""
CHECKED = 500
"""Patches and columns that are compared."""
CHECKED_SIDE = 512
"""Side of the image whose peaks and labels are all compared, at most."""
BATCHES = (2**16, 2**13)
"""Columns that the classifier takes at once; the fewer, in a graph."""


@dataclass(frozen=True)
class Sizes:
    """How much is timed."""

    patches: tuple[int, ...] = (1_000_000, 4_000_000)
    other_patches: int = 1_000_000
    side: int = 4096
    spacing: float = 4.0
    lattice: float = 8.0
    camera: int = 256
    scan: int = 16_384
    repeats: int = 15


TINY = Sizes((70, 130), 70, 160, 12.0, 16.0, 32, 40, 2)


@dataclass(frozen=True)
class Line:
    """One case: what it reached, how far off its result was, and what it should reach."""

    section: str
    case: str
    value: float
    unit: str
    error: float = 0.0
    allowed: float = 0.0
    bar: float | None = None

    @property
    def right(self) -> bool:
        """Whether the result is within its bound; a NaN is not."""
        return bool(self.error <= self.allowed)

    @property
    def met(self) -> bool:
        """Whether the bar, if there is one, is reached."""
        return self.bar is None or bool(self.value >= self.bar)


class Crystal:
    """Image of a honeycomb of lattice constant a, px, bright on one sublattice, with noise; and its columns."""

    def __init__(self, side: int, a: float) -> None:
        self.context = ctm.Context("WSe2", energy=80e3, detector="HAADF")
        self.sampling = self.context.lattice_constant / a
        height = a * np.sqrt(0.75)
        reach = int(side / height) + 2
        i, j = np.mgrid[:reach, -reach : reach + 2].reshape(2, -1)
        metal = np.stack([height * i, a * (j + i / 2)], axis=1)
        positions = np.concatenate([metal, metal + np.array([height * 2 / 3, 0.0])])
        side_of = np.repeat([0, 1], len(metal))
        inside = ((positions >= 0) & (positions <= side - 1)).all(axis=1)
        self.columns = Columns(positions[inside], side_of[inside], grain=np.zeros(inside.sum(), int))
        row, column = np.arange(side)[:, None], np.arange(side)
        waves = [(2.0, 0.0), (1.0, 1.0), (1.0, -1.0)]  # halves of 1 / height and 1 / a
        self.image = np.random.default_rng(0).normal(0, 0.1, (side, side)).astype(np.float32)
        for first, brightness in ((0.0, 1.0), (height * 2 / 3, 0.6)):
            for u, v in waves:
                phase = np.pi * (u * (row - first) / height) + 2 * np.pi * v * column / a
                self.image += (brightness * np.cos(phase)).astype(np.float32)

    def posterior_on_host(self, model: ctm.Model) -> Callable[[Any], Any]:
        """What the method says of an image on the host."""

        def posterior(image: np.ndarray) -> np.ndarray:
            micrograph = ctm.Micrograph(image, self.sampling)
            measured = measure(micrograph, self.columns, self.context.lattice_constant, model.config)
            return model.predict(measured.contrast, model.context_features(self.context), measured.around).probabilities

        return posterior


class Host:
    """Stands in for a device: NumPy arrays and the C++ kernels."""

    name = "CPU, dry run"

    def put(self, array: np.ndarray) -> Any:
        """Copy to the device."""
        return array.copy()

    def get(self, array: Any) -> np.ndarray:
        """Copy to the host."""
        return np.asarray(array)

    def random(self, *shape: int) -> Any:
        """Uniform in [0, 1), single precision."""
        return np.random.default_rng(0).random(shape, dtype=np.float32)

    def repeat(self, block: np.ndarray, times: int) -> Any:
        """The block so many times along its first axis."""
        return np.tile(block, (times, *[1] * (block.ndim - 1)))

    def copy(self, source: Any) -> Callable[[], Any]:
        """A call that copies an array into another."""
        target = np.empty_like(source)
        return lambda: np.copyto(target, source)

    def buffers(self, _n_bytes: int) -> int:
        """How many buffers of this size no cache holds together."""
        return 2

    def classifier(self, crystal: Crystal, model: ctm.Model, _batch: int) -> Callable[[Any], Any]:
        """From an image of the crystal to the posterior of its columns."""
        return crystal.posterior_on_host(model)

    def graph(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """The same work without its launches, where a device can."""
        return call

    def seconds(self, calls: Sequence[Callable[[], Any]], repeats: int) -> float:
        """Median time of the calls, which take turns."""
        times = []
        for i in range(repeats):
            start = time.perf_counter()
            calls[i % len(calls)]()
            times.append(time.perf_counter() - start)
        return float(np.median(times))


class Cuda(Host):
    """The current CUDA device, by way of torch."""

    def __init__(self) -> None:
        import torch

        self.torch = torch
        properties = torch.cuda.get_device_properties(0)
        self.name = properties.name
        self._cache = getattr(properties, "L2_cache_size", 1 << 26)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.manual_seed(0)

    def put(self, array: np.ndarray) -> Any:
        return self.torch.from_numpy(np.ascontiguousarray(array)).cuda()

    def get(self, array: Any) -> np.ndarray:
        return np.asarray(array.cpu().numpy())

    def random(self, *shape: int) -> Any:
        return self.torch.rand(shape, device="cuda")

    def repeat(self, block: np.ndarray, times: int) -> Any:
        # by way of signed integers: few operations know the unsigned ones
        signed = {1: self.torch.int8, 2: self.torch.int16, 4: self.torch.int32}[block.dtype.itemsize]
        there = self.put(block)
        return there.view(signed).repeat(times, *[1] * (block.ndim - 1)).view(there.dtype)

    def copy(self, source: Any) -> Callable[[], Any]:
        target = self.torch.empty_like(source)
        return lambda: target.copy_(source)

    def buffers(self, n_bytes: int) -> int:
        return 1 + 4 * self._cache // n_bytes

    def classifier(self, crystal: Crystal, model: ctm.Model, batch: int) -> Callable[[Any], Any]:
        from contextem.on_device import DeviceClassifier

        features = model.context_features(crystal.context)
        a = crystal.context.lattice_constant
        judge = DeviceClassifier(model, features, 1 / crystal.sampling, a, batch_size=batch)
        columns = judge.put(crystal.columns, crystal.image.shape)
        return lambda image: judge(image, columns).probabilities

    def graph(self, call: Callable[[], Any]) -> Callable[[], Any]:
        call()
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph):
            call()
        return graph.replay

    def seconds(self, calls: Sequence[Callable[[], Any]], repeats: int) -> float:
        for call in calls:
            call()
        start, stop = self.torch.cuda.Event(enable_timing=True), self.torch.cuda.Event(enable_timing=True)
        times = []
        for i in range(repeats):
            start.record()
            calls[i % len(calls)]()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop) / 1e3)
        return float(np.median(times))


def moment_error(found: np.ndarray, expected: np.ndarray, basis: ctm.ZernikeBasis, largest: float) -> float:
    """Largest distance in rounding errors of what the largest value could give; NaN if there is one."""
    unit = np.finfo(found.dtype).eps * largest * abs(basis.weights).sum(axis=1)
    return float((abs(found - expected) / unit).max())


def some(count: int) -> np.ndarray:
    """Indices to compare: the first, the last, and some between."""
    return np.unique(np.concatenate([np.arange(min(count, 100)), np.linspace(0, count - 1, CHECKED).astype(int)]))


class Checks:
    """The sections; each yields its lines. The first measures the copy that others are compared with."""

    def __init__(self, device: Host, sizes: Sizes) -> None:
        self.device, self.sizes = device, sizes
        self.copy_rate = float("nan")

    def copy(self) -> Iterator[Line]:
        """Bytes a second that a copy reads and writes together."""
        source = self.device.random(self.sizes.patches[0], 32, 32)
        seconds = self.device.seconds([self.device.copy(source)], self.sizes.repeats)
        self.copy_rate = 2 * n_bytes(source) / seconds
        yield Line("copy", f"{n_bytes(source) / 1e9:.1f} GB", self.copy_rate / 1e9, "GB/s")

    def _patches(self, count: int, size: int, n_max: int, dtype: Any, bar: float | None) -> Iterator[Line]:
        basis = ctm.ZernikeBasis(n_max, size)
        patches = self.device.random(count, size, size)
        if dtype is np.float64:
            patches = patches.astype(np.float64) if isinstance(patches, np.ndarray) else patches.double()
        moments = ctm.patch_moments(patches, basis)
        chosen = some(count)
        exact = self.device.get(patches[chosen]).astype(np.float64).reshape(len(chosen), -1)
        error = moment_error(self.device.get(moments[chosen]), exact @ basis.weights.T, basis, 1.0)
        copies = [patches] + [patches + 0 for _ in range(self.device.buffers(n_bytes(patches)) - 1)]
        calls = [lambda one=one: ctm.patch_moments(one, basis) for one in copies]
        seconds = self.device.seconds(calls, self.sizes.repeats)
        case = f"{count / 1e6:g} M of {size} x {size}, n_max {n_max}, {np.dtype(dtype).name}"
        share = 100 * (n_bytes(patches) + n_bytes(moments)) / seconds / self.copy_rate
        yield Line("patch_moments", f"{case}: {count / seconds / 1e6:.4g} M/s", share, "% of copy", error, EPS, bar)

    def patch_moments(self) -> Iterator[Line]:
        """32 x 32 at n_max 10, each patch read once."""
        for count in self.sizes.patches:
            yield from self._patches(count, 32, 10, np.float32, 85.0)

    def other_sizes(self) -> Iterator[Line]:
        """Other sides, more modes, double precision."""
        count = self.sizes.other_patches
        for size, n_max, dtype in [
            (16, 10, np.float32),
            (23, 10, np.float32),
            (64, 10, np.float32),
            (32, 20, np.float32),
            (64, 20, np.float32),
            (32, 10, np.float64),
        ]:
            yield from self._patches(max(count * 32 * 32 // (size * size) // 4, 10), size, n_max, dtype, None)

    def lattice(self, shift: float) -> np.ndarray:
        """Positions row by row, as find_columns gives them: on pixels of patches of even side, or off by < shift."""
        steps = np.arange(20, self.sizes.side - 20, self.sizes.spacing)
        positions = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
        return np.floor(positions) + 0.5 + np.random.default_rng(0).uniform(-shift, shift, positions.shape)

    def column_moments(self) -> Iterator[Line]:
        """From the image, at the rate at which gathered patches could be read at all, and a half more."""
        basis = ctm.ZernikeBasis(10, 32)
        side = self.sizes.side
        images = [self.device.random(side, side) for _ in range(self.device.buffers(4 * side * side))]
        host = self.device.get(images[0]).astype(np.float64)
        for case, shift, scale, bar in [
            ("integer positions", 0.0, 1.0, 1.5),
            ("bilinear", 0.5, 1.0, 1.5),
            ("scale 1.3", 0.5, 1.3, None),
            ("2 x 2 matrix", 0.5, [[0.9, 0.3], [-0.3, 0.9]], None),
        ]:
            centres = self.lattice(shift)
            positions = self.device.put(centres)
            moments = ctm.column_moments(images[0], positions, basis, scale=scale)
            chosen = some(len(centres))
            expected = ctm.column_moments(host, centres[chosen], basis, scale=scale, backend="reference")
            error = moment_error(self.device.get(moments[chosen]), expected, basis, 1.0)
            calls = [lambda one=one: ctm.column_moments(one, positions, basis, scale=scale) for one in images]  # noqa: B023
            rate = len(centres) / self.device.seconds(calls, self.sizes.repeats)
            case = f"{case}: {len(centres) / 1e6:.2g} M of 32 x 32, {rate / 1e6:.4g} M/s"
            yield Line("column_moments", case, rate * 4096 / self.copy_rate, "x reading", error, EPS, bar)

    def peers(self) -> Iterator[Line]:
        """Beside torch: patches gathered and multiplied by the weights, and a convolution at the same centres."""
        import torch

        basis = ctm.ZernikeBasis(10, 32)
        side, step = self.sizes.side, int(self.sizes.spacing)
        image = self.device.random(side, side)
        pixels = torch.as_tensor(image)
        weights = torch.as_tensor(self.device.put(basis.weights.astype(np.float32)))
        first = torch.arange(0, side - 31, step, device=pixels.device)
        corners = torch.cartesian_prod(first, first)
        positions = self.device.put(corners.cpu().numpy() + 15.5)
        along = torch.arange(32, device=pixels.device)

        def gathered() -> Any:
            rows, columns = corners[:, :1] + along, corners[:, 1:] + along
            return pixels[rows[:, :, None], columns[:, None, :]].flatten(1) @ weights.T

        def convolved() -> Any:
            return torch.nn.functional.conv2d(pixels[None, None], weights.reshape(-1, 1, 32, 32), stride=step)[0]

        def ours() -> Any:
            return ctm.column_moments(image, positions, basis)

        moments = self.device.get(ours())
        own = self.device.seconds([ours], self.sizes.repeats)
        for case, bar, peer, result in [
            ("gather + sgemm", 5.0, gathered, gathered),
            ("conv2d", 2.0, convolved, lambda: convolved().flatten(1).T),
        ]:
            error = moment_error(moments, result().cpu().numpy().astype(np.float64), basis, 1.0)
            ratio = self.device.seconds([peer], self.sizes.repeats) / own
            yield Line("column_moments", f"beside torch {case}", ratio, "x as fast", error, 4 * EPS, bar)

    def extract_patches(self) -> Iterator[Line]:
        """What is written, beside what a copy reads and writes."""
        image = self.device.random(self.sizes.side, self.sizes.side)
        host = self.device.get(image)
        for case, shift in [("integer positions", 0.0), ("bilinear", 0.5)]:
            centres = self.lattice(shift)
            positions = self.device.put(centres)
            patches = ctm.extract_patches(image, positions, 32)
            chosen = some(len(centres))
            expected = ctm.extract_patches(host, centres[chosen], 32, backend="reference")
            error = float(abs(self.device.get(patches[chosen]) - expected).max() / np.finfo(np.float32).eps)
            call = lambda: ctm.extract_patches(image, positions, 32)  # noqa: B023, E731
            seconds = self.device.seconds([call], self.sizes.repeats)
            share = 100 * n_bytes(patches) / seconds / self.copy_rate
            yield Line(
                "extract_patches", f"{case}: {len(centres) / seconds / 1e6:.4g} M/s", share, "% of copy", error, 8, 80
            )

    def diffraction(self) -> Iterator[Line]:
        """Bright field, annular dark field and HAADF in one pass over what they see; and the sum of all patterns."""
        side, scan = self.sizes.camera, self.sizes.scan
        centre = (0.5 * (side - 1), 0.5 * (side - 1))
        radii = [(0.0, 0.2), (0.2, 0.35), (0.35, 0.5)]
        masks = np.array([annulus((side, side), centre, side * inner, side * outer) for inner, outer in radii])
        detectors = VirtualDetectors(masks)
        seen = masks.any(axis=0).sum() / side**2
        rng = np.random.default_rng(0)
        times = -(-scan // 64)
        for dtype in (np.uint8, np.uint16, np.float32):
            block = rng.integers(0, 250, (64, side, side)).astype(dtype)
            patterns = self.device.repeat(block, times)
            sums = self.device.get(virtual_detectors(patterns, detectors))
            exact = np.einsum("skl,dkl->sd", block.astype(np.float64), masks)
            error = float(abs(sums.reshape(times, 64, -1) - exact).max())
            seconds = self.device.seconds([lambda: virtual_detectors(patterns, detectors)], self.sizes.repeats)  # noqa: B023
            share = 100 * seen * n_bytes(patterns) / seconds / self.copy_rate
            case = f"3 annuli, {np.dtype(dtype).name}, {len(sums) / seconds / 1e6:.4g} M patterns/s"
            yield Line("virtual_detectors", case, float(share), "% of copy", error, 0.0, 85.0)
            total = self.device.get(sum_patterns(patterns))
            error = float(abs(total - times * block.astype(np.float64).sum(axis=0)).max())
            seconds = self.device.seconds([lambda: sum_patterns(patterns)], self.sizes.repeats)  # noqa: B023
            share = 100 * n_bytes(patterns) / seconds / self.copy_rate
            yield Line("sum_patterns", np.dtype(dtype).name, share, "% of copy", error, 0.0, 85.0)

    def peaks(self) -> Iterator[Line]:
        """From an image to the positions of all its peaks: the same as on the host, to the last bit."""
        side, a, sigma = self.sizes.side, 32.0, 0.12 * 32.0
        part = self.device.random(min(side, CHECKED_SIDE), min(side, CHECKED_SIDE)) - 0.5
        host = self.device.get(part)
        found = [self.device.get(each) for each in response_maxima(part, a)[:2]]
        expected = _kernels.local_maxima(_kernels.peak_response(host, sigma))
        same = all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
        off = self.device.get(_kernels.peak_response(part, sigma)) - reference.peak_response(host, sigma)
        error = float(abs(off).max() / np.finfo(np.float32).eps) if same else float("nan")
        images = [self.device.random(side, side) - 0.5 for _ in range(self.device.buffers(4 * side * side))]
        room = side * side // 64
        for case, bar, call in [
            ("room for 1 in 64 pixels", 1.0, lambda image: response_maxima(image, a, capacity=room)),
            ("the host waits for their number", 1.0, lambda image: response_maxima(image, a)),
            ("response alone", None, lambda image: _kernels.peak_response(image, sigma)),
        ]:
            calls = [lambda image=image, call=call: call(image) for image in images]
            rate = side * side / self.device.seconds(calls, self.sizes.repeats)
            yield Line("peaks", f"a = {a:g} px, {case}", rate / 1e9, "Gpixel/s", error, 50, bar)

    def pipeline(self) -> Iterator[Line]:
        """From an image to the labels of its columns, which the packaged model gives; where they are is known."""
        model, side, a = ctm.load_model(), self.sizes.side, self.sizes.lattice
        small = Crystal(min(side, CHECKED_SIDE), a)
        expected = small.posterior_on_host(model)(small.image)
        crystal = Crystal(side, a)
        images = [self.device.put(crystal.image)]
        images += [images[0] + 0 for _ in range(self.device.buffers(4 * side * side) - 1)]
        lines = []
        for batch in BATCHES:
            found = self.device.get(self.device.classifier(small, model, batch)(self.device.put(small.image)))
            posterior = self.device.classifier(crystal, model, batch)
            calls = [lambda image=image, posterior=posterior: posterior(image) for image in images]
            case = f"{len(crystal.columns) / 1e6:.2g} M columns, {batch:,} at once"
            if batch == min(BATCHES):
                calls, case = [self.device.graph(call) for call in calls], f"{case}, in a graph"
            rate = len(crystal.columns) / self.device.seconds(calls, self.sizes.repeats)
            error = float(abs(found - expected).max())
            lines.append(Line("pipeline", case, rate / 1e6, "M columns/s", error, 2e-3))
        best = max(line.value for line in lines)
        yield from (replace(line, bar=10.0) if line.value == best else line for line in lines)

    def all_lines(self) -> list[Line]:
        """Every section; one that fails becomes a line that is not right, and the others go on."""
        lines = []
        for section in (
            self.copy,
            self.patch_moments,
            self.column_moments,
            self.peers,
            self.other_sizes,
            self.extract_patches,
            self.diffraction,
            self.peaks,
            self.pipeline,
        ):
            try:
                lines += list(section())
            except Exception as failure:  # noqa: BLE001 - a line of the table says which
                traceback.print_exc()
                case = f"failed: {type(failure).__name__}"
                lines.append(Line(section.__name__, case, float("nan"), "", float("nan")))
        return lines


def n_bytes(array: Any) -> int:
    """Size of a NumPy array or a tensor."""
    return int(np.prod(array.shape)) * int(array.itemsize)


def table(lines: Sequence[Line]) -> str:
    """The lines below each other."""
    rows = [("section", "case", "value", "unit", "bar", "", "error")]
    for line in lines:
        bar = "" if line.bar is None else f"{line.bar:g}"
        verdict = "WRONG" if not line.right else "" if line.bar is None else "met" if line.met else "missed"
        error = f"{line.error:.2g} of {line.allowed:g}" if line.allowed or line.error else ""
        rows.append((line.section, line.case, f"{line.value:.4g}", line.unit, bar, verdict, error))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def exit_status(lines: Sequence[Line], *, bars: bool = True) -> int:
    """0, 1 or 3, as said at the top."""
    if not all(line.right for line in lines):
        return 1
    return 3 if bars and not all(line.met for line in lines) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--json", type=Path, default=Path("gpu_check.json"), help="where the numbers go")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU")
    options = parser.parse_args(arguments)
    facts = _kernels.describe()
    if not options.dry_run and facts["cuda_devices"] == 0:
        print(f"no CUDA device: the extension is {facts['cuda']}")
        return 2
    device, sizes = (Host(), TINY) if options.dry_run else (Cuda(), Sizes())
    start = time.perf_counter()
    lines = Checks(device, sizes).all_lines()
    records = [asdict(line) | {"right": line.right, "met": line.met} for line in lines]
    records = [{k: None if v != v else v for k, v in record.items()} for record in records]  # JSON knows no NaN
    report = {"device": device.name, "build": facts, "seconds": time.perf_counter() - start, "lines": records}
    options.json.write_text(json.dumps(report, indent=1, allow_nan=False))
    print(f"{device.name}, {report['seconds']:.0f} s, all numbers in {options.json}\n\n{table(lines)}")
    return exit_status(lines, bars=not options.dry_run)


if __name__ == "__main__":
    sys.exit(main())
