"""Images that annular detectors would have made, computed from a scan of diffraction patterns.

    I_d(s) = sum over pixels k of P(s, k)    where    inner_d <= a |k - c| < outer_d

P(s, k) is the pattern at position s of the scan, c the centre of the undiffracted beam, a the angular sampling in
mrad/px.  Patterns stream from the file in blocks, one for each thread.  Each sum is that of one pattern, so that block
size and number of threads leave no trace in the image.

Ophus, "Four-Dimensional Scanning Transmission Electron Microscopy (4D-STEM): From Scanning Nanodiffraction to
Ptychography and Beyond", https://doi.org/10.1017/S1431927619000497.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem._arrays import PIXEL_TYPES, check_card
from contextem._files import ReadError
from contextem._threads import thread_count
from contextem.diffraction import BLOCK, DiffractionScan
from contextem.geometry import Geometry, find_geometry, share_on_detector
from contextem.micrograph import Detector, Micrograph
from contextem.remarks import DiffractionWarning
from contextem.virtual_detectors import VirtualDetectors, annulus, sum_patterns, virtual_detectors

__all__ = ["MEMORY", "VirtualImages", "compute_images", "scan_geometry", "virtual_images"]

MEMORY = 512 * 2**20
"""Bytes that reading may take, where nothing is said."""

_SAMPLE = 256 * 2**20  # bytes read to find the centre
_FEWEST = 1024  # patterns read for that, of a scan that has so many
_LONE_PIXEL = 0.1  # share of the sum over an annulus from which on a single pixel is told
_FULL = 0.995  # share of an annulus on the detector up to which it is told

_DARK = ("HAADF", "MAADF", "LAADF", "ADF")


@dataclass(frozen=True)
class VirtualImages:
    """Images that annular detectors would have made.

    Attributes
    ----------
    images : tuple of Micrograph
        One for each detector.
    geometry : Geometry
        Where the undiffracted beam meets the detector.
    remarks : tuple of str
        What the reader should know of them.
    """

    images: tuple[Micrograph, ...]
    geometry: Geometry
    remarks: tuple[str, ...]


def scan_geometry(scan: DiffractionScan, *, centre: tuple[float, float] | None = None) -> Geometry:
    """Find where the undiffracted beam meets the detector, from the mean of patterns all over the scan.

    Parameters
    ----------
    scan : DiffractionScan
        About one in 64 of its patterns is read, but 1024 at least of a scan that has so many, and 256 MiB at most.
    centre : tuple of two floats, optional
        (row, column), px, where it is known; radius and descan are found all the same.

    Returns
    -------
    Geometry

    Raises
    ------
    ReadError
        If the file cannot be read.
    ValueError
        If the centre is not on the detector, or not given and no clear disc is seen: none that stands out, one that the
        edge of the detector cuts, or that a beam stop hides.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from contextem.diffraction import read_scan
    >>> rows, columns = np.mgrid[:64, :64]
    >>> disc = (np.hypot(rows - 30.5, columns - 33) < 12).astype("uint16")
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "scan.npy"
    ...     np.save(path, np.broadcast_to(disc, (4, 4, 64, 64)))
    ...     geometry = scan_geometry(read_scan(path, angular_sampling=2.0))
    >>> np.round(geometry.centre, 3).tolist(), round(geometry.semiangle)
    ([30.5, 33.0], 24)
    """
    return find_geometry(*_sample(scan), centre=centre, angular_sampling=scan.angular_sampling)


def virtual_images(
    scan: DiffractionScan,
    detectors: Sequence[Detector],
    *,
    centre: tuple[float, float] | Geometry | None = None,
    memory: int | None = None,
    n_threads: int = 0,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Micrograph]:
    """Compute the images that annular detectors would have made.

    Parameters
    ----------
    scan : DiffractionScan
        With sampling and angular sampling.
    detectors : sequence of Detector
        Each with inner and outer angle.  A pixel belongs to it where inner <= angle of its centre < outer.
    centre : tuple of two floats or Geometry, optional
        Where the undiffracted beam meets the detector, (row, column), px; found by `scan_geometry` where it is missing.
    memory : int, optional
        Bytes that reading may take; 512 MiB by default.
    n_threads : int
        Threads that read and sum; 0 for all cores.
    device : str, optional
        A torch device such as "cuda" that sums in place of the CPU; patterns reach it through page-locked memory, while
        others are read.
    progress : callable, optional
        Called with the number of patterns that are done, and of all.

    Returns
    -------
    list of Micrograph
        One for each detector, (sy, sx); float32 where this holds the sums exactly, such as counts up to 16,777,216,
        else float64.  The provenance of the detector tells the centre and how it came about.

    Raises
    ------
    ReadError
        If the file cannot be read, or not in so little memory.
    ValueError, TypeError
        If sampling, angular sampling, angles of a detector or the centre are missing or not possible, nothing of an
        annulus is on the detector, or an image has no contrast.

    Warns
    -----
    DiffractionWarning
        Of descan, of an annulus that leaves the detector, of one of dark field that the undiffracted beam reaches, and
        of a single pixel that makes more than a tenth of an image.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from contextem.diffraction import read_scan
    >>> rows, columns = np.mgrid[:64, :64]
    >>> distance = np.hypot(rows - 30.5, columns - 33)
    >>> brightness = np.arange(16, dtype="uint16").reshape(4, 4, 1, 1)
    >>> patterns = 100 * (distance < 9) + brightness * ((distance >= 15) & (distance < 28))
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "scan.npy"
    ...     np.save(path, patterns)
    ...     scan = read_scan(path, sampling=0.2, angular_sampling=4.0)
    ...     images = virtual_images(scan, [Detector("HAADF", 60, 110)])
    >>> images[0].shape, images[0].provenance["detector"]
    ((4, 4), 'virtual detector, centre (30.50, 33.00) px of the bright disc in the mean of 16 patterns')
    """
    computed = compute_images(
        scan, detectors, centre=centre, memory=memory, n_threads=n_threads, device=device, progress=progress
    )
    for remark in computed.remarks:
        warnings.warn(remark, DiffractionWarning, stacklevel=2)
    return list(computed.images)


def compute_images(
    scan: DiffractionScan,
    detectors: Sequence[Detector],
    *,
    centre: tuple[float, float] | Geometry | None = None,
    memory: int | None = None,
    n_threads: int = 0,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VirtualImages:
    """Do what `virtual_images` does, and return what it warns of in place of warning.

    Parameters
    ----------
    scan, detectors, centre, memory, n_threads, device, progress
        As there.

    Returns
    -------
    VirtualImages

    Raises
    ------
    ReadError, ValueError, TypeError
        As there.
    """
    detectors = _check_detectors(detectors)
    if scan.sampling is None:
        raise ValueError(
            f"sampling: {scan.source} holds no credible sampling of the scan, give it in Å/px as sampling=... or "
            "--sampling"
        )
    if scan.angular_sampling is None:
        raise ValueError(
            f"angular_sampling: {scan.source} holds no credible calibration of its patterns as an angle (reciprocal "
            "lengths need the beam energy), give it in mrad/px as angular_sampling=... or --angular-sampling"
        )
    quarters, numbers = _sample(scan)
    if isinstance(centre, Geometry):
        geometry = centre
    else:
        geometry = find_geometry(quarters, numbers, centre=centre, angular_sampling=scan.angular_sampling)
    masks, remarks = _masks(scan, detectors, scan.angular_sampling, geometry)
    remarks += _lone_pixels(quarters.sum(axis=0), detectors, masks)
    summed = VirtualDetectors(masks)
    sums = _stream(scan, summed, MEMORY if memory is None else memory, n_threads, device, progress)
    images = tuple(
        _image(scan, image.reshape(scan.shape[:2]), detector, geometry)
        for image, detector in zip(sums.T, detectors, strict=True)
    )
    return VirtualImages(images, geometry, tuple(f"{scan.source}: {remark}" for remark in remarks))


def _sample(scan: DiffractionScan) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return sums (4, ky, kx) and numbers (4,) of patterns spread over each quarter of the scan."""
    rows, columns, *pattern = scan.shape
    most = max(4, _SAMPLE // (math.prod(pattern) * scan.dtype.itemsize))
    wanted = min(most, max(rows * columns // 64, _FEWEST))
    step = math.isqrt(max(1, rows * columns // wanted))
    while math.ceil(rows / step) * math.ceil(columns / step) > most:
        step += 1
    chosen = [
        row * columns + column
        for row in range((rows - 1) % step // 2, rows, step)
        for column in range((columns - 1) % step // 2, columns, step)
    ]
    quarters, numbers = np.zeros((4, *pattern)), np.zeros(4, dtype=np.intp)
    for number, values in scan.patterns.pick(chosen):
        row, column = divmod(number, columns)
        quarter = 2 * (2 * row >= rows) + (2 * column >= columns)
        sum_patterns(_summable(values)[None], total=quarters[quarter], n_threads=1)
        numbers[quarter] += 1
    if not np.isfinite(quarters).all():
        raise ReadError(f"path: {scan.source} holds patterns with NaN or infinite pixels, replace them")
    return quarters, numbers


def _masks(
    scan: DiffractionScan, detectors: Sequence[Detector], angular_sampling: float, geometry: Geometry
) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which pixels each detector sees (D, ky, kx), and what is to be warned of."""
    shape, remarks, masks = (scan.shape[2], scan.shape[3]), list(geometry.remarks), []
    for detector in detectors:
        assert detector.inner is not None and detector.outer is not None
        inner, outer = detector.inner / angular_sampling, detector.outer / angular_sampling
        mask = annulus(shape, geometry.centre, inner, outer)
        if not mask.any():
            raise ValueError(
                f"detectors: expected an annulus on the detector of {shape[0]} x {shape[1]} px and "
                f"{angular_sampling:g} mrad/px, got {_name(detector)}, of which nothing is on it"
            )
        share = share_on_detector(shape, geometry.centre, inner, outer)
        if share < _FULL:
            remarks.append(
                f"{share:.0%} of the annulus of {_name(detector)} is on the detector, the rest is not counted"
            )
        if detector.name in _DARK and geometry.radius is not None and inner < geometry.radius:
            remarks.append(
                f"the undiffracted beam reaches {geometry.radius * angular_sampling:.1f} mrad and with that into the "
                f"annulus of {_name(detector)}, so that bright field leaks into dark field"
            )
        masks.append(mask)
    return np.stack(masks), remarks


def _lone_pixels(mean: NDArray[np.float64], detectors: Sequence[Detector], masks: NDArray[np.bool_]) -> list[str]:
    """Tell of detectors whose image one pixel makes for the most part."""
    remarks = []
    for detector, mask in zip(detectors, masks, strict=True):
        seen = np.abs(mean[mask])
        if seen.size > 2 / _LONE_PIXEL and seen.max() > _LONE_PIXEL * seen.sum():
            share = seen.max() / seen.sum()
            row, column = (int(index) for index in np.argwhere(mask)[int(seen.argmax())])
            remarks.append(
                f"the pixel at ({row}, {column}) makes {share:.0%} of the image of {_name(detector)}, as a hot one "
                "would"
            )
    return remarks


def _stream(
    scan: DiffractionScan,
    detectors: VirtualDetectors,
    memory: int,
    n_threads: int,
    device: str | None,
    progress: Callable[[int, int], None] | None,
) -> NDArray[np.float64]:
    """Return what each detector sees of each pattern, (sy sx, D).

    Each thread takes jobs in turn, with a buffer of its own, and does all of them by itself: that is faster than to
    share the patterns of a block among threads.
    """
    patterns = scan.patterns
    device = None if device is None else check_card(device)
    readers = max(1, min(n_threads or thread_count(), memory // patterns.least))
    nbytes = max(patterns.least, min(BLOCK, memory // readers)) if patterns.least <= memory else memory
    jobs = patterns.jobs(nbytes)
    sums = np.zeros((patterns.count, len(detectors.masks)))
    waiting, lock, done = iter(jobs), threading.Lock(), 0

    def take() -> tuple[int, ...] | None:
        with lock:
            return next(waiting, None)

    def work() -> None:
        nonlocal done, waiting
        try:
            summing = _on_host(detectors) if device is None else _on_card(detectors, device)
            with patterns.open(nbytes, None if device is None else _page_locked) as read:
                while (job := take()) is not None:
                    for first, block in read(job):
                        sums[first : first + len(block)] = summing(_summable(block))
                        if progress is not None:
                            with lock:
                                done += len(block)
                                progress(done, patterns.count)
        except BaseException:
            waiting = iter(())  # nothing is left for the others
            raise

    with ThreadPoolExecutor(readers) as pool:
        working = [pool.submit(work) for _ in range(min(readers, len(jobs)))]
        try:
            for worker in working:
                worker.result()
        finally:
            waiting = iter(())
    return sums


def _summable(patterns: NDArray[Any]) -> NDArray[Any]:
    """Return patterns in a dtype that the kernels take."""
    return patterns if patterns.dtype.name in PIXEL_TYPES else patterns.astype(np.float64)


def _on_host(detectors: VirtualDetectors) -> Callable[[NDArray[Any]], Any]:
    return lambda block: virtual_detectors(block, detectors, n_threads=1)


def _on_card(detectors: VirtualDetectors, device: str) -> Callable[[NDArray[Any]], Any]:
    """Return what sums a block on a card, in a stream of its own, and waits for nothing but that.

    The copy of the sums to the host comes last in the stream and is waited for: when it is there, the block has been
    read, and its memory may be filled again.
    """
    import torch

    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def summing(block: NDArray[Any]) -> Any:
        run, step = _in_one_run(block)
        with torch.cuda.stream(stream):
            there = torch.from_numpy(run).to(device, non_blocking=True)
            pixels = there.view(getattr(torch, block.dtype.name))
            patterns = pixels.as_strided(block.shape, (step, block.shape[2], 1))
            return virtual_detectors(patterns, detectors).cpu().numpy()

    return summing


def _in_one_run(block: NDArray[Any]) -> tuple[NDArray[np.uint8], int]:
    """Return the bytes from the first pixel of a block to its last, and the pixels from one pattern to the next.

    What lies between patterns comes along, so that the card reads page-locked memory as it is; torch would otherwise
    put the patterns together in other memory first.
    """
    size, item = math.prod(block.shape[1:]), block.itemsize
    step = block.strides[0]
    adjacent = block.strides[1:] == (block.shape[2] * item, item)
    if not (adjacent and step % item == 0 and step >= size * item and block.flags.writeable):
        block, step = np.array(block, order="C"), size * item
    first = block[0].reshape(-1).view(np.uint8)
    return np.lib.stride_tricks.as_strided(first, ((len(block) - 1) * step + size * item,), (1,)), step // item


def _page_locked(shape: Any, dtype: Any) -> NDArray[Any]:
    """Return memory that a card reads while the CPU does something else."""
    import torch

    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    memory: NDArray[np.uint8] = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
    return np.asarray(memory.view(dtype).reshape(shape))


def _image(scan: DiffractionScan, sums: NDArray[np.float64], detector: Detector, geometry: Geometry) -> Micrograph:
    single = sums.astype(np.float32)
    row, column = geometry.centre
    how = "given" if geometry.origin == "user" else geometry.origin
    assert scan.sampling is not None
    try:
        return Micrograph(
            single if np.array_equal(single, sums) else np.ascontiguousarray(sums),
            scan.sampling,
            scan.energy,
            detector,
            provenance={
                **scan.provenance,
                "detector": f"virtual detector, centre ({row:.2f}, {column:.2f}) px {how}",
            },
            source=scan.source,
        )
    except ValueError as error:
        raise ValueError(f"detectors: the image of {_name(detector)} cannot be used ({error})") from error


def _name(detector: Detector) -> str:
    return f"{detector.name} ({detector.inner:g} to {detector.outer:g} mrad)"


def _check_detectors(detectors: Sequence[Detector]) -> list[Detector]:
    detectors = list(detectors)
    if not detectors or not all(isinstance(detector, Detector) for detector in detectors):
        raise TypeError(f"detectors: expected one Detector or more in a list, got {detectors!r}")
    for detector in detectors:
        if detector.inner is None or detector.outer is None:
            raise ValueError(f"detectors: expected inner and outer angle of each in mrad, got none of {detector.name}")
    return detectors
