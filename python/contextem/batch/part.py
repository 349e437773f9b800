"""Doing one part of a batch: read, classify and write its micrographs, one after the other."""

from __future__ import annotations

import errno
import os
import platform
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contextem._extras import needs_extra
from contextem._files import open_recording
from contextem._options import read_micrograph, recording_given, require_recording, sentence, with_origins
from contextem._output import whole_file
from contextem._stages import stage, timed_stages
from contextem._threads import thread_limit
from contextem.batch.plan import Options, Part
from contextem.batch.store import Record, Store
from contextem.context import Context
from contextem.diffraction import read_scan
from contextem.export.images import write_image
from contextem.export.tables import arrow_table
from contextem.micrograph import Micrograph, open_series
from contextem.model import Model, load_model
from contextem.pipeline import classify
from contextem.scan import correct_scan
from contextem.virtual import virtual_images

if TYPE_CHECKING:
    from contextem.classification import Classification

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NoRoom(OSError):
    """The disk of the output folder is full: no part can be finished any more."""


@dataclass(frozen=True)
class Work:
    """What a worker is told beside the part.

    Attributes
    ----------
    output : str
        Folder of the results, absolute.
    options : Options
        What is done with every input.
    device : str or None
        A torch device for classifier and virtual detectors; None for the CPU.
    memory : int
        Bytes that a part may take.
    threads : int
        Threads that a part may use.
    """

    output: str
    options: Options
    device: str | None
    memory: int
    threads: int


@dataclass(frozen=True)
class Outcome:
    """What doing a part came to.

    Attributes
    ----------
    part : str
        Its name.
    record : Record
        As it lies in the output folder.
    seconds : float
        It took.
    stages : mapping of str to float
        Seconds of each stage.
    peak_memory : int
        Bytes, the most that the process held so far.
    worker : str
        Host and process.
    device : str
        Where the classifier ran.
    """

    part: str
    record: Record
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)
    peak_memory: int = 0
    worker: str = ""
    device: str = "cpu"


def do_part(part: Part, work: Work) -> Outcome:
    """Read, classify and write the micrographs of a part; a micrograph that fails stops no other.

    Parameters
    ----------
    part : Part
        To be done, whether it was done before or not.
    work : Work
        How.

    Returns
    -------
    Outcome

    Raises
    ------
    NoRoom
        If the disk of the output folder is full.
    """
    import torch

    start = time.perf_counter()
    store = Store(Path(work.output))
    micrographs: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    store.remove(part)
    torch.set_num_threads(1)  # its sums depend on how many it has
    with thread_limit(work.threads), timed_stages() as stages:
        model = _model(work.options.model)
        with _full_disk_told(work.output), _table(store.table(part)) as write:
            for name, frame, read in _recordings(part, work, store):
                try:
                    images, context = read()
                    result = classify(
                        images,
                        context,
                        model=model,
                        device=work.device,
                        estimate_angles=work.options.estimate_angles,
                    )
                except NoRoom:
                    raise
                except Exception as error:
                    traceback.clear_frames(error.__traceback__)  # they hold images
                    failures.append({"name": name, **_failure(error)})
                else:
                    with stage("table"):
                        micrographs.append({"name": name, "frame": frame, **result.summary()})
                        write(result, name, frame)
        with _full_disk_told(work.output):
            size = store.table_bytes(part)
            record = Record(part.name, part.fingerprint(work.options), micrographs, failures, size)
            store.write_record(record)
    return Outcome(
        part.name,
        record,
        time.perf_counter() - start,
        stages,
        peak_memory(),
        f"{platform.node()}:{os.getpid()}",
        work.device or "cpu",
    )


def failed(part: Part, options: Options, error: BaseException) -> Outcome:
    """Return the outcome of a part whose worker failed, for reasons of its own."""
    failure = {"name": part.name, **_failure(error), "final": False}
    return Outcome(part.name, Record(part.name, part.fingerprint(options), [], [failure]), 0.0)


def peak_memory() -> int:
    """Return the most bytes that this process has held in memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


@lru_cache(maxsize=1)
def _model(folder: str | None) -> Model:
    return load_model(folder)


Reading = Callable[[], tuple[Micrograph | list[Micrograph], Context]]


def _recordings(part: Part, work: Work, store: Store) -> Iterator[tuple[str, int | None, Reading]]:
    """Yield name and frame of each micrograph, and what reads it with its context."""
    settings, path = part.settings, Path(part.path)
    context = settings.context()
    if part.may_be_scan and not _is_image(path, settings.signal):
        yield part.name, None, lambda: (_images(part, work, store), context)
        return

    def prepared(read: Callable[[], Micrograph]) -> Reading:
        def prepare() -> tuple[Micrograph, Context]:
            with stage("read"):
                micrograph = with_origins(read(), settings)
            require_recording(micrograph, path)
            if work.options.correct_scan:
                with stage("scan correction"):
                    micrograph = correct_scan(micrograph, context).micrograph
            return micrograph, context

        return prepare

    def alone(frames: tuple[Path, ...] = ()) -> Reading:
        return prepared(lambda: read_micrograph(path, settings, context.lattice_constant, frames))

    if settings.frame is not None:
        yield part.name, settings.frame, alone()
        return
    try:
        with stage("read"):
            series = open_series(path, **recording_given(settings, context.lattice_constant))
    except Exception:
        yield part.name, None, alone()  # it says what is wrong, or reads what cannot be opened lazily
        return
    if len(series) == 1:
        yield part.name, None, prepared(lambda: series[0])
    elif work.options.series == "average":
        yield part.name, None, alone((path,))
    else:
        for frame in range(*(part.frames or (0, len(series)))):
            yield f"{part.input}[{frame}]", frame, prepared(partial(series.__getitem__, frame))


def _is_image(path: Path, signal: int | str | None) -> bool:
    try:
        return open_recording(path, signal).is_image
    except (OSError, ValueError):
        return False


def _images(part: Part, work: Work, store: Store) -> list[Micrograph]:
    """Compute the images that the detectors of a scan would have made, and leave them in the output folder."""
    settings = part.settings
    detectors = settings.detectors
    if detectors is None and settings.detector is not None and settings.detector.inner is not None:
        detectors = (settings.detector,)
    if detectors is None:
        raise ValueError(
            f"detectors: {part.name} is a scan of diffraction patterns, say what images to compute of it, as "
            "--annulus HAADF 70 200, or as detectors in a YAML file"
        )
    sampling = settings.sampling
    if sampling == "estimate":
        raise ValueError(f"sampling: expected a number in Å/px for {part.name}, a scan, got estimate")
    scan = read_scan(
        part.path,
        sampling=sampling,
        angular_sampling=settings.angular_sampling,
        energy=settings.energy,
        scan_shape=settings.scan_shape,
        signal=settings.signal,
    )
    with stage("virtual detectors"):
        images = virtual_images(
            scan, detectors, centre=settings.centre, memory=work.memory // 2, n_threads=work.threads
        )
    images = [with_origins(image, settings) for image in images]
    for image, detector in zip(images, detectors, strict=True):
        require_recording(image, Path(part.path))
        write_image(store.image(part, detector.name), image)
    return images


def _failure(error: BaseException) -> dict[str, Any]:
    """Say what went wrong, and whether it would again: a fault of the input and of what is said of it."""
    final = isinstance(error, ValueError | TypeError)
    told = sentence(error) if isinstance(error, Exception) else type(error).__name__
    expected = final or isinstance(error, OSError | ModuleNotFoundError)
    return {"reason": told if expected else f"{type(error).__name__}: {told}", "final": final}


@contextmanager
def _full_disk_told(output: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        reason = (error.strerror or sentence(error)).lower()
        raise NoRoom(
            error.errno,
            f"output: {output} cannot take any more ({reason}); what is finished stays, make room and run the same "
            "command again",
        ) from error


@contextmanager
def _table(path: Path) -> Iterator[Callable[[Classification, str, int | None], None]]:
    """Yield what writes the rows of a micrograph; the table appears when all are written, if there are any."""
    with needs_extra("batch"):
        import pyarrow as pa
        from pyarrow import parquet
    writer: Any = None
    with ExitStack() as opened:

        def write(result: Classification, name: str, frame: int | None) -> None:
            nonlocal writer
            rows = arrow_table(result)
            names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(rows), np.int32)), [name])
            frames = pa.array([frame] * len(rows), pa.int32())
            rows = rows.add_column(0, "micrograph", names).add_column(1, "frame", frames)
            if writer is None:
                temporary = opened.enter_context(whole_file(path))
                writer = opened.enter_context(parquet.ParquetWriter(temporary, rows.schema))
            writer.write_table(rows)

        yield write
