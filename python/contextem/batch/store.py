"""The output folder of a batch: where everything lies, what is finished, and what is left.

    columns/NAME.parquet     a row a column, of one input
    images/NAME.DETECTOR.tif images of virtual detectors of a 4D-STEM scan, with their angles
    log/SHARD.jsonl          a line a part: when, how long, how much memory
    .batch/plan.json         the parts, and where their inputs lie
    .batch/records/NAME.json written last: that a part is finished, with the summaries of its micrographs

and, once merged, micrographs.csv, failures.csv, summary.json, report.html with figures/, and columns.zarr where it is
asked for.  Every file appears whole, under its name, or not at all; what a killed run leaves is hidden, under a
temporary name, and the next one removes it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contextem._output import whole_file
from contextem.batch.plan import Part
from contextem.micrograph import Detector

SCHEMA = 1
"""Version of the files in the output folder."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NoRoom(OSError):
    """The disk of the output folder is full: no part can be finished any more."""


def is_full_disk(error: BaseException) -> bool:
    """Whether a file could not be written because there is no room for it."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


@dataclass(frozen=True)
class Record:
    """What became of a part.

    Attributes
    ----------
    part : str
        Its name.
    fingerprint : str
        What it depended on, see `Part.fingerprint`.
    micrographs : list of dict
        The summary of each, with its "name" and "frame" in front.
    failures : list of dict
        "name" and "reason" of each that could not be classified, and whether that is "final": its own fault, and
        not one of the disk, the memory or a worker.
    table_bytes : int
        Size of its table; 0 where there is none.
    """

    part: str
    fingerprint: str
    micrographs: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    table_bytes: int = 0

    @property
    def finished(self) -> bool:
        """Whether another run would come to the same."""
        return all(each["final"] for each in self.failures)

    @property
    def columns(self) -> int:
        """Columns in its table."""
        return sum(each["columns"] for each in self.micrographs)


def outdated_of(plan: Mapping[str, dict[str, Any]], parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return what was planned of the inputs of these parts, and is none of them: an input was cut otherwise."""
    names, inputs = {part.name for part in parts}, {part.input for part in parts}
    return [each for each in plan.values() if each["input"] in inputs and each["name"] not in names]


class Store:
    """An output folder.

    Parameters
    ----------
    folder : Path
        Made by what is written first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def locks(self) -> Path:
        """Folder of the locks."""
        return self.folder / ".batch" / "locks"

    @property
    def tables(self) -> Path:
        """Folder of the tables."""
        return self.folder / "columns"

    @contextmanager
    def full_disk_told(self) -> Iterator[None]:
        """Raise `NoRoom`, which says what to do, where something in the block finds the disk full."""
        try:
            yield
        except OSError as error:
            if not is_full_disk(error):
                raise
            raise NoRoom(
                f"output: {self.folder} cannot take any more ({os.strerror(error.errno or 0).lower()}); what is "
                "finished stays, make room and run the same command again"
            ) from error

    def table(self, part: Part) -> Path:
        """Return where the table of a part lies."""
        return self.tables / part.table

    def image(self, part: Part, detector: Detector) -> Path:
        """Return where the image of a virtual detector lies."""
        name = f"{detector.name}-{detector.inner:g}-{detector.outer:g}"
        return self.folder / "images" / f"{part.input}.{name}.tif"

    def log(self, name: str) -> Path:
        """Return where the log of a run lies."""
        return self.folder / "log" / f"{name}.jsonl"

    def record(self, name: str) -> Record | None:
        """Return what became of a part, None while nothing did.

        Raises
        ------
        ValueError
            If it was written by a version that keeps other records.
        """
        path = self._record(name)
        if not path.exists():
            return None
        told = json.loads(path.read_text(encoding="utf-8"))
        if told.pop("schema", None) != SCHEMA:
            raise ValueError(
                f"output: expected records of schema {SCHEMA}, got {path} of another version of contextem; choose "
                "another folder with -o"
            )
        return Record(**told)

    def write_record(self, record: Record) -> None:
        """Say that a part is finished; to be done when everything else of it is written."""
        told = {"schema": SCHEMA, **vars(record)}
        with whole_file(self._record(record.part)) as temporary:
            temporary.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")

    def is_whole(self, part: Part, record: Record) -> bool:
        """Whether the table that a record tells of is there, and has its size."""
        return self.table_bytes(part) == record.table_bytes

    def table_bytes(self, part: Part) -> int:
        """Return the size of the table of a part, 0 where there is none."""
        path = self.table(part)
        return path.stat().st_size if path.exists() else 0

    def remove(self, part: Part) -> None:
        """Remove what was made of a part, first that it is finished."""
        self._record(part.name).unlink(missing_ok=True)
        self.table(part).unlink(missing_ok=True)

    def plan(self) -> dict[str, dict[str, Any]]:
        """Return all parts that were ever planned, by name.

        Raises
        ------
        ValueError
            If the plan cannot be read.
        """
        path = self.folder / ".batch" / "plan.json"
        if not path.exists():
            return {}
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if told["schema"] != SCHEMA:
                raise ValueError(f"schema {told['schema']}")
            return {each["name"]: each for each in told["parts"]}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"output: expected the plan of a batch of schema {SCHEMA}, got {path}; choose another folder with -o"
            ) from error

    def replan(self, before: dict[str, dict[str, Any]], parts: Sequence[Part]) -> None:
        """Add parts to the plan as it is, and remove what is outdated; nobody may do so at the same time."""
        outdated = outdated_of(before, parts)
        for each in outdated:
            self._record(each["name"]).unlink(missing_ok=True)
            (self.tables / each["table"]).unlink(missing_ok=True)
            with suppress(OSError):  # a folder of tables that has others, or is none
                (self.tables / each["table"]).parent.rmdir()
        after = {name: each for name, each in before.items() if each not in outdated}
        after |= {part.name: part.to_dict() for part in parts}
        if after != before:
            told = {"schema": SCHEMA, "parts": list(after.values())}
            with whole_file(self.folder / ".batch" / "plan.json") as temporary:
                temporary.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def sweep(self) -> None:
        """Remove temporary files that killed runs have left; nobody may be at work."""
        for folder in (self.tables, self.folder / "images", self.folder / ".batch" / "records"):
            for path in folder.rglob(".*"):
                if path.is_file():
                    path.unlink()
        for path in self.folder.glob(".columns.zarr.*"):
            shutil.rmtree(path)

    def _record(self, name: str) -> Path:
        return self.folder / ".batch" / "records" / f"{name}.json"
