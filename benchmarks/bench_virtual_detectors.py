"""Virtual detectors from a 4D file in the page cache: what summing costs beside reading, and LiberTEM on the same file.

Bright field, annular dark field and HAADF together, of 1.5 GiB of uint16 patterns. The bar is to reach 80 % of the rate
at which the file is copied out of the page cache by read(2), block after block, into a buffer that stays in the cache.
Rates count all bytes of the file, of which the detectors see three quarters. On one thread they are by its CPU time, on
two by the clock on the wall; best of several, candidates in turns. Every result is compared with the definition's
before it is timed.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import optional
from roofline import best_time, best_times

from contextem import _core
from contextem.diffraction import read_scan
from contextem.geometry import Geometry
from contextem.micrograph import Detector
from contextem.virtual import virtual_images
from contextem.virtual_detectors import VirtualDetectors, annulus, sum_patterns, virtual_detectors

BYTES, BAR = 3 << 29, 0.8
BLOCK, LARGE_BLOCK = 512 << 10, 16 << 20
"""What stays in the L2 cache, and what makes the cost of a call vanish where nothing is copied."""
READ, COPIED = "read(2)", "np.copyto from mmap"
SUMMED, SUMMED_MAP, WHOLE = "read(2), then sums", "sums from mmap", "virtual_images"
HEADER = 128
"""Bytes before the patterns, in the format of npy."""


@dataclass(frozen=True)
class Scan:
    """A file of patterns of ``side`` x ``side`` pixels, and the sums of its detectors."""

    path: Path
    side: int
    geometry: Geometry
    rings: tuple[Detector, ...]
    detectors: VirtualDetectors
    expected: np.ndarray

    @property
    def count(self) -> int:
        return len(self.expected)

    @property
    def pattern_bytes(self) -> int:
        return 2 * self.side**2

    def blocks(self, part: tuple[int, int], n_bytes: int) -> Iterator[slice]:
        step = max(1, n_bytes // self.pattern_bytes)
        for first in range(*part, step):
            yield slice(first, min(first + step, part[1]))

    def read(self, sums: np.ndarray | None, part: tuple[int, int], n_bytes: int = BLOCK) -> None:
        """Read patterns into a buffer that is used again, and sum them there if asked to."""
        step = max(1, n_bytes // self.pattern_bytes)
        buffer = np.empty((step, self.side, self.side), np.uint16)
        with self.path.open("rb", buffering=0) as file:
            file.seek(HEADER + part[0] * self.pattern_bytes)
            for block in self.blocks(part, n_bytes):
                patterns = buffer[: block.stop - block.start]
                assert file.readinto(patterns) == patterns.nbytes
                if sums is not None:
                    sums[block] = virtual_detectors(patterns, self.detectors, n_threads=1)

    def map(self, sums: np.ndarray | None, part: tuple[int, int]) -> None:
        """Map the file and sum it where it is, or copy it into a buffer that is used again."""
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            patterns = np.frombuffer(mapped, np.uint16, offset=HEADER).reshape(-1, self.side, self.side)
            buffer = np.empty((max(1, BLOCK // self.pattern_bytes), self.side, self.side), np.uint16)
            for block in self.blocks(part, BLOCK if sums is None else LARGE_BLOCK):
                if sums is None:
                    np.copyto(buffer[: block.stop - block.start], patterns[block])
                else:
                    sums[block] = virtual_detectors(patterns[block], self.detectors, n_threads=1)
            del patterns  # or the map cannot be closed

    def images(self, n_threads: int) -> np.ndarray:
        """Do what `contextem batch` does: open the file, look for lone pixels in a sample, sum, make images."""
        scan = read_scan(self.path, sampling=0.2, angular_sampling=1.0)
        images = virtual_images(scan, self.rings, centre=self.geometry, n_threads=n_threads)
        return np.stack([image.data.ravel() for image in images], axis=1)

    def ways(self, n_threads: int) -> dict[str, Callable[[], np.ndarray | None]]:
        edges = [self.count * i // n_threads for i in range(n_threads + 1)]
        parts = list(pairwise(edges))

        def all_parts(work: Callable[..., None], *, summed: bool) -> np.ndarray | None:
            sums = np.empty_like(self.expected) if summed else None
            if n_threads == 1:
                work(sums, parts[0])
                return sums
            with ThreadPoolExecutor(n_threads) as pool:
                list(pool.map(partial(work, sums), parts))
            return sums

        return {
            READ: partial(all_parts, self.read, summed=False),
            COPIED: partial(all_parts, self.map, summed=False),
            SUMMED: partial(all_parts, partial(self.read, n_bytes=4 << 20), summed=True),
            SUMMED_MAP: partial(all_parts, self.map, summed=True),
        } | ({WHOLE: partial(self.images, n_threads)} if n_threads > 1 else {})


@pytest.fixture(scope="module", params=[256, 128])
def scan(request, tmp_path_factory):
    side = request.param
    centre = side / 2 - 0.3, side / 2 + 0.4
    radii = (0, 0.1), (0.12, 0.25), (0.25, 0.49)
    rings = tuple(Detector("BF" if inner == 0 else "ADF", inner * side, outer * side) for inner, outer in radii)
    masks = np.array([annulus((side, side), centre, ring.inner, ring.outer) for ring in rings])
    count, path = BYTES // (2 * side**2), tmp_path_factory.mktemp("scan") / "patterns.npy"
    some = np.random.default_rng(0).integers(0, 4000, (256, side, side)).astype(np.uint16)
    sums, pixels = virtual_detectors(some, masks, backend="reference"), masks.sum(axis=(1, 2))
    expected = np.empty((count, len(masks)))
    with path.open("wb") as file:
        shape = (64, count // 64, side, side)
        np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": shape})
        assert file.tell() == HEADER
        for number, first in enumerate(range(0, count, len(some))):
            (some + np.uint16(number)).tofile(file)
            expected[first : first + len(some)] = sums + number * pixels
    yield Scan(path, side, Geometry(centre, None, None, "user", None, 0), rings, VirtualDetectors(masks), expected)
    path.unlink()


@pytest.mark.parametrize("n_threads", [1, 2])
def test_from_a_file_against_reading_it(scan, n_threads):
    ways = scan.ways(n_threads)
    for name in ways.keys() - {READ, COPIED}:
        np.testing.assert_array_equal(ways[name](), scan.expected)
    seconds = best_times(ways, 3, time.thread_time if n_threads == 1 else time.perf_counter)
    print(f"\n{scan.side} x {scan.side} uint16, {n_threads} threads, {_core.simd()}")
    for name, duration in seconds.items():
        print(f"{name:22s} {BYTES / duration / 1e9:6.1f} GB/s  {seconds[READ] / duration:5.2f} x read(2)")
    best = seconds[READ] / min(seconds[SUMMED], seconds[SUMMED_MAP])
    print(f"bar {BAR}: {'met' if best >= BAR else 'missed'} at {best:.2f}")


def test_blocks_of_all_sizes(scan):
    part = 0, scan.count
    sums = np.empty_like(scan.expected)
    sizes = [n_bytes << 10 for n_bytes in (128, 256, 512, 1024, 2048, 8192)]
    ways = {(n, summed): partial(scan.read, sums if summed else None, part, n) for n in sizes for summed in (0, 1)}
    seconds = best_times(ways, 2)
    print(f"\n{scan.side} x {scan.side}, GB/s of one thread by KiB in a block: read(2) / read(2), then sums")
    print("; ".join(f"{n >> 10}: " + " / ".join(f"{BYTES / seconds[n, s] / 1e9:.1f}" for s in (0, 1)) for n in sizes))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("side", [64, 128, 256])
def test_in_memory(side, dtype):
    centre = side / 2 - 0.3, side / 2 + 0.4
    rings = [annulus((side, side), centre, a * side, b * side) for a, b in ((0, 0.1), (0.12, 0.25), (0.25, 0.49))]
    detectors, rates = VirtualDetectors(np.array(rings)), []
    for n_bytes in (BLOCK, 256 << 20):
        shape = n_bytes // (side**2 * np.dtype(dtype).itemsize), side, side
        patterns = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
        found, total = virtual_detectors(patterns, detectors, n_threads=1), sum_patterns(patterns, n_threads=1)
        np.testing.assert_array_equal(found[:8], virtual_detectors(patterns[:8], detectors, backend="reference"))
        np.testing.assert_array_equal(total, patterns.sum(axis=0, dtype=float))
        zones = detectors._table.prepared()  # the checks of a call take 5 us, as long as a block of this size
        for kernel in (partial(zones.sum, patterns, 1), partial(_core.sum_patterns, patterns, total, 1)):
            passes = max(1, (64 << 20) // n_bytes)
            rates.append(passes * n_bytes / best_time(lambda k=kernel, n=passes: [k() for _ in range(n)], 3) / 1e9)
    print(
        f"\n{side} x {side} {dtype}, one thread, GB/s: detectors {rates[0]:.1f} from the cache, {rates[2]:.1f} from "
        f"memory; sum of patterns {rates[1]:.1f}, {rates[3]:.1f}"
    )


def test_against_libertem(scan):
    if (api := optional("libertem.api")) is None:
        pytest.skip("LiberTEM is not installed")
    import libertem
    from libertem.udf.masks import ApplyMasksUDF

    masks = scan.detectors.masks.astype(np.float32)
    context = api.Context.make_with("inline")
    data = context.load(
        "raw", path=str(scan.path), dtype="uint16", nav_shape=(scan.count // 128, 128), sig_shape=scan.detectors.shape
    )

    def by_libertem(use_sparse: bool) -> Any:
        udf = ApplyMasksUDF(mask_factories=lambda: masks, use_sparse=use_sparse)
        return context.run_udf(dataset=data, udf=udf)["intensity"].data.reshape(scan.expected.shape)

    name = f"LiberTEM {libertem.__version__}, "
    ways = {name + "dense masks": partial(by_libertem, False), name + "sparse masks": partial(by_libertem, True)}
    for way in ways.values():
        np.testing.assert_allclose(way(), scan.expected, rtol=1e-5)  # it sums in float32
    own = scan.ways(1)
    ways |= {name: own[name] for name in (READ, SUMMED, SUMMED_MAP)}
    seconds = best_times(ways, 1, time.process_time)
    print(f"\n{scan.side} x {scan.side} uint16, inline executor, by CPU time of the process")
    for name, duration in seconds.items():
        print(f"{name:32s} {BYTES / duration / 1e9:6.2f} GB/s")
