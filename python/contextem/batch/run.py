"""A batch: what is not yet done of it is done, once, however often it is run and wherever it was stopped."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from contextem.batch.engines import Engine
from contextem.batch.lock import gate, is_alone, locked
from contextem.batch.part import Outcome, Work
from contextem.batch.plan import Options, Part, Shard
from contextem.batch.store import Store, outdated_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What a run came to.

    Attributes
    ----------
    parts, skipped : int
        Parts of this share, and how many of them were finished before.
    columns : int
        Classified by this run.
    seconds : float
        It took.
    failures : list of dict
        "name" and "reason", those of finished parts included.
    stages : mapping of str to float
        Seconds of all workers in each stage.
    """

    parts: int
    skipped: int
    columns: int
    seconds: float
    failures: list[dict[str, Any]]
    stages: dict[str, float]


def run(
    parts: Sequence[Part], work: Work, engine: Engine, *, shard: Shard | None = None, overwrite: bool = False
) -> Run:
    """Do the share of a worker of a batch, apart from what is finished.

    Parameters
    ----------
    parts : sequence of Part
        All of the batch.
    work : Work
        What is done, and into which folder.
    engine : Engine
        Who does it.
    shard : Shard, optional
        The share; all by default.
    overwrite : bool
        Whether parts that were finished with other settings or another model are done again.

    Returns
    -------
    Run

    Raises
    ------
    Occupied
        If another run works on this share.
    NoRoom
        If the disk of the output folder is full.
    ValueError
        If parts were finished with other settings and are not to be overwritten.
    """
    store, shard = Store(Path(work.output)), shard or Shard()
    start = time.perf_counter()
    with store.full_disk_told(), locked(store.locks, shard):
        own = shard.of(parts)
        with gate(store.locks):
            if is_alone(store.locks, shard):
                store.sweep()
            left, failures = _left(own, store, work.options, overwrite)
            plan = store.plan()
            outdated = [each["name"] for each in outdated_of(plan, parts) if store.record(each["name"])]
            if outdated and not overwrite:
                raise _others(store, outdated)
            store.replan(plan, parts)
        logger.info("%d of %d parts to do, results in %s", len(left), len(own), work.output)
        columns, stages = 0, Counter[str]()
        for outcome in _told(engine.run(left, work), len(own), len(own) - len(left), store.log(_log_name(shard))):
            columns += outcome.record.columns
            failures += outcome.record.failures
            stages.update(outcome.stages)
    return Run(len(own), len(own) - len(left), columns, time.perf_counter() - start, failures, dict(stages))


def _left(
    parts: Sequence[Part], store: Store, options: Options, overwrite: bool
) -> tuple[list[Part], list[dict[str, Any]]]:
    """Return the parts that are left to do, and the failures of the others."""
    left: list[Part] = []
    others: list[str] = []
    failures: list[dict[str, Any]] = []
    for part in parts:
        record = store.record(part.name)
        if record is None or not record.finished or not store.is_whole(part, record):
            left.append(part)
        elif record.fingerprint == part.fingerprint(options):
            failures += record.failures
        elif record.micrographs and not overwrite:
            others.append(part.name)
        else:
            left.append(part)
    if others:
        raise _others(store, others)
    return left, failures


def _others(store: Store, names: Sequence[str]) -> ValueError:
    """Return what to raise where results of these parts are those of other inputs, or of another way to do them."""
    more = f" and of {len(names) - 1} more" if len(names) > 1 else ""
    return ValueError(
        f"output: {store.folder} holds results of {names[0]}{more} that were made of another file, with other "
        "settings, another model or another version; replace them with --overwrite, or choose another folder with -o"
    )


def _told(outcomes: Iterator[Outcome], parts: int, finished: int, log: Path) -> Iterator[Outcome]:
    """Pass outcomes on, show how far it is, and write a line of the log for each."""
    log.parent.mkdir(parents=True, exist_ok=True)
    columns, start = 0, time.perf_counter()
    with (
        log.open("a", encoding="utf-8") as file,
        tqdm(total=parts, initial=finished, desc="classifying", unit="part", disable=None) as bar,
    ):
        for outcome in outcomes:
            columns += outcome.record.columns
            bar.set_postfix_str(f"{columns / (time.perf_counter() - start):,.0f} columns/s", refresh=False)
            bar.update()
            logger.info("%s: %d columns, %.2f s", outcome.part, outcome.record.columns, outcome.seconds)
            for failure in outcome.record.failures:
                logger.info("%s: failed, %s", failure["name"], failure["reason"])
            file.write(json.dumps(_line(outcome), ensure_ascii=False) + "\n")
            file.flush()
            yield outcome


def _line(outcome: Outcome) -> dict[str, Any]:
    """Return what the log tells of a part."""
    record = outcome.record
    return {
        "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
        "part": outcome.part,
        "micrographs": len(record.micrographs),
        "failures": len(record.failures),
        "columns": record.columns,
        "seconds": round(outcome.seconds, 4),
        "columns_per_second": round(record.columns / outcome.seconds) if outcome.seconds else 0,
        "peak_memory_bytes": outcome.peak_memory,
        "device": outcome.device,
        "worker": outcome.worker,
        "stages": {name: round(seconds, 4) for name, seconds in outcome.stages.items()},
    }


def _log_name(shard: Shard) -> str:
    return f"shard-{shard.number}-of-{shard.count}"
