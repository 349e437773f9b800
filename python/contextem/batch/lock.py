"""Who works on an output folder: a second run on the same share of it is refused, with the name of the first.

Locks are those of the operating system (flock): they end with the process that holds them, however it ends, and hold
across the nodes of a cluster on file systems that pass them on, such as NFS, GPFS, and Lustre mounted with flock.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from contextem._bounds import read_json
from contextem._output import whole_file
from contextem.batch.plan import Shard

_GATE = "gate.lock"
_PATIENCE = 120.0  # s that others may take to see who is there


class Occupied(OSError):
    """Another run works on the output folder."""


@contextmanager
def locked(folder: Path, shard: Shard | None) -> Iterator[None]:
    """Hold the lock of a share of the output folder.

    Parameters
    ----------
    folder : Path
        For the files of the locks; made if it is missing.
    shard : Shard or None
        The share; None for all of it, as merging takes.

    Raises
    ------
    Occupied
        If a run holds this share, or divides the work in another way.
    """
    name = _name(shard)
    with gate(folder):
        for other in _held(folder):
            if not _can_work_beside(name, other):
                raise Occupied(
                    f"output: {folder.parent.parent} is being worked on by {_holder(folder, other)}; wait until it has "
                    "finished, or choose another folder with -o"
                )
        own = FileLock(folder / f"{name}.lock")
        own.acquire(blocking=False)
        try:
            with whole_file(folder / f"{name}.json") as temporary:
                temporary.write_text(json.dumps(_this_process()), encoding="utf-8")
        except BaseException:
            own.release()
            raise
    try:
        yield
    finally:
        own.release()


def gate(folder: Path) -> FileLock:
    """Return a lock that all runs take for a moment, one after the other, as a context.

    Parameters
    ----------
    folder : Path
        For the files of the locks; made if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / _GATE, timeout=_PATIENCE)


def is_alone(folder: Path, shard: Shard | None) -> bool:
    """Whether no other share is being worked on than this one, whose lock is held, as long as the gate is.

    Parameters
    ----------
    folder, shard
        As for `locked`.
    """
    return _held(folder) == [_name(shard)]


def _name(shard: Shard | None) -> str:
    return "whole" if shard is None or shard.count == 1 else f"shard-{shard.number}-of-{shard.count}"


def _held(folder: Path) -> list[str]:
    return [path.stem for path in sorted(folder.glob("*.lock")) if path.name != _GATE and _is_held(path)]


def _can_work_beside(name: str, other: str) -> bool:
    """Whether both are shares of the same division."""
    counts = [re.fullmatch(r"shard-\d+-of-(\d+)", each) for each in (name, other)]
    return name != other and None not in counts and counts[0][1] == counts[1][1]  # type: ignore[index]


def _is_held(path: Path) -> bool:
    try:
        with FileLock(path, blocking=False):
            return False
    except Timeout:
        return True


def _this_process() -> dict[str, str | int]:
    job = os.environ.get("SLURM_JOB_ID")
    return {
        "host": platform.node(),
        "process": os.getpid(),
        "user": _user(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        **({} if job is None else {"slurm_job": job}),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return str(os.getuid())


def _holder(folder: Path, name: str) -> str:
    """Who holds a lock, in words."""
    share = "" if name == "whole" else f" ({name.replace('-', ' ')})"
    try:
        told = read_json(folder / f"{name}.json")
        job = f", SLURM job {told['slurm_job']}" if "slurm_job" in told else ""
        return f"process {told['process']} of {told['user']} on {told['host']} since {told['since']}{job}{share}"
    except (KeyError, OSError, ValueError):
        return "another run"
