"""Doing one part of a batch: read, classify and write its micrographs, one after the other."""

from __future__ import annotations

import math
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
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
from contextem.batch.memory import BYTES_PER_MICROGRAPH, BYTES_PER_PIXEL, Budget, peak_memory
from contextem.batch.plan import Options, Part
from contextem.batch.store import Record, Store, is_full_disk
from contextem.context import Context
from contextem.diffraction import read_scan
from contextem.export.images import write_image
from contextem.export.tables import arrow_table
from contextem.micrograph import Micrograph, open_series
from contextem.model import Model, load_model
from contextem.pipeline import classify
from contextem.scan import correct_scan
from contextem.virtual import MEMORY, compute_images

if TYPE_CHECKING:
    from contextem.classification import Classification


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
    torch.set_num_threads(1)  # its sums depend on how many it has
    with thread_limit(work.threads), timed_stages() as stages, store.full_disk_told():
        store.remove(part)
        try:
            recordings = _recordings(part, work, store)
        except Exception as error:  # noqa: BLE001 - told in the summary
            recordings = []
            failures.append({"name": part.name, **_failure(error)})
        with _table(store.table(part)) as write:
            for recording in recordings:
                try:
                    result, summary = _classify(recording, work)
                except Exception as error:
                    if is_full_disk(error):
                        raise
                    traceback.clear_frames(error.__traceback__)  # they hold images
                    failures.append({"name": recording.name, **_failure(error)})
                else:
                    with stage("table"):
                        micrographs.append(summary)
                        write(result, recording.name, recording.frame)
        fingerprint, size = part.fingerprint(work.options), store.table_bytes(part)
        record = Record(part.name, fingerprint, micrographs, failures, size)
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


@lru_cache(maxsize=1)
def _model(options: Options) -> Model:
    return load_model(options.model)


@lru_cache(maxsize=1)
def _budget(memory: int) -> Budget:
    return Budget(memory)


@dataclass(frozen=True)
class _Recording:
    """One micrograph of a part: its name, its frame, the bytes that it takes, and what reads it.

    What is read are the images of one or several detectors, and what is to be told of how they came about.
    """

    name: str
    frame: int | None
    nbytes: int
    read: Callable[[], tuple[Sequence[Micrograph], dict[str, Any]]]
    context: Context


def _classify(recording: _Recording, work: Work) -> tuple[Classification, dict[str, Any]]:
    """Return the columns of a micrograph, and what is to be told of it."""
    with _budget(work.memory).reserved(recording.nbytes, recording.name):
        images, told = recording.read()
        result = classify(
            images,
            recording.context,
            model=_model(work.options),
            device=work.device,
            estimate_angles=work.options.estimate_angles,
        )
        with stage("table"):
            summary = {"name": recording.name, "frame": recording.frame, **result.summary()}
        return result, summary | told | {"warnings": [*told.get("warnings", ()), *summary["warnings"]]}


def _recordings(part: Part, work: Work, store: Store) -> list[_Recording]:
    """Open a part, without reading more than it takes to say what is in it."""
    settings, path = part.settings, Path(part.path)
    context = settings.context()
    if part.may_be_scan and not _is_image(path, settings.signal):
        return [_scan(part, work, store, context)]

    def recording(name: str, frame: int | None, nbytes: int, read: Callable[[], Micrograph]) -> _Recording:
        def prepared() -> tuple[Sequence[Micrograph], dict[str, Any]]:
            with stage("read"):
                micrograph = with_origins(read(), settings)
            require_recording(micrograph, path)
            if work.options.correct_scan:
                with stage("scan correction"):
                    micrograph = correct_scan(micrograph, context).micrograph
            return [micrograph], {}

        return _Recording(name, frame, nbytes, prepared, context)

    read_as_said = partial(read_micrograph, path, settings, context.lattice_constant)
    with stage("read"):
        series = open_series(path, **recording_given(settings, context.lattice_constant))
    nbytes = BYTES_PER_MICROGRAPH + BYTES_PER_PIXEL * math.prod(series.shape)
    if settings.frame is not None:
        return [recording(part.name, settings.frame, nbytes, partial(read_as_said, ()))]
    if len(series) == 1:
        return [recording(part.name, None, nbytes, partial(series.__getitem__, 0))]
    if work.options.series == "average":
        return [recording(part.name, None, nbytes + 2 * part.size, partial(read_as_said, (path,)))]
    frames = range(*(part.frames or (0, len(series))))
    return [recording(f"{part.input}[{k}]", k, nbytes, partial(series.__getitem__, k)) for k in frames]


def _is_image(path: Path, signal: int | str | None) -> bool:
    try:
        return open_recording(path, signal).is_image
    except (OSError, ValueError):
        return False


def _scan(part: Part, work: Work, store: Store, context: Context) -> _Recording:
    """Open a scan of diffraction patterns; reading it computes the images that its detectors would have made."""
    settings, sampling, detectors = part.settings, part.settings.sampling, part.settings.detectors
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
    if detectors is None and settings.detector is not None and settings.detector.inner is not None:
        detectors = (settings.detector,)
    if detectors is None:
        raise ValueError(
            f"detectors: {part.name} is a scan of diffraction patterns, say what images to compute of it, as "
            "--annulus HAADF 70 200, or as detectors in a YAML file"
        )
    chosen, streaming = detectors, min(MEMORY, work.memory // 4)

    def images() -> tuple[Sequence[Micrograph], dict[str, Any]]:
        with stage("virtual detectors"):
            computed = compute_images(
                scan,
                chosen,
                centre=settings.centre,
                memory=streaming,
                n_threads=work.threads,
                device=work.device,
            )
        for image, detector in zip(computed.images, chosen, strict=True):
            require_recording(image, Path(part.path))
            write_image(store.image(part, detector), image)
        told = {"geometry": computed.geometry.to_dict(), "warnings": computed.remarks}
        return [with_origins(image, settings) for image in computed.images], told

    pixels = (BYTES_PER_PIXEL + 8 * len(chosen)) * math.prod(scan.shape[:2])
    return _Recording(part.name, None, streaming + BYTES_PER_MICROGRAPH + pixels, images, context)


def _failure(error: BaseException) -> dict[str, Any]:
    """Say what went wrong, and whether it would again: a fault of the input and of what is said of it."""
    final = isinstance(error, ValueError | TypeError)
    told = sentence(error) if isinstance(error, Exception) else type(error).__name__
    expected = final or isinstance(error, OSError | ModuleNotFoundError)
    return {"reason": told if expected else f"{type(error).__name__}: {told}", "final": final}


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
