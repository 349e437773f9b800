"""What a batch is: its inputs in parts, each with what is said of it, and who works on which.

A part is what is done at once and written as a whole: one file, or a stretch of frames of a long series.  The plan lies
in the output folder, so that workers that start at different times agree on it, and only grows: a file that came later
is added, one that is there keeps its name.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from contextem import __version__
from contextem._files import SUFFIXES, count_frames
from contextem.micrograph import Detector
from contextem.sidecar import Settings

__all__ = ["Options", "Part", "Shard", "make_parts", "model_digest", "named"]

SPLIT = 512 << 20
"""Bytes from which on a file is looked into: whether it is a series, to be done in parts of about this size."""


@dataclass(frozen=True)
class Options:
    """What is done with every input alike.

    Attributes
    ----------
    model : str
        Folder of the model.
    model_digest : str
        What tells this model from any other.
    series : str
        What becomes of the frames of a series: each of the "frames" a micrograph, or their "average" one.
    estimate_angles : bool or None
        As for `contextem.classify`.
    correct_scan : bool
        Whether row jitter and drift are taken out first.
    """

    model: str
    model_digest: str
    series: str = "frames"
    estimate_angles: bool | None = None
    correct_scan: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return what results depend on, as values that JSON can hold."""
        told = asdict(self)
        del told["model"]  # wherever it lies
        return told


@dataclass(frozen=True)
class Part:
    """What is done at once.

    Attributes
    ----------
    name : str
        Of the input, with as many of its folders as tell it from others; ends with the frames where they are a part.
    path : str
        Of the input, absolute.
    size, modified : int
        Bytes, and nanoseconds since 1970; 0 where there is no such file.
    settings : Settings
        What is said of the input.
    frames : (int, int) or None
        First frame, and the one behind the last; None for all there are.
    """

    name: str
    path: str
    size: int
    modified: int
    settings: Settings
    frames: tuple[int, int] | None = None

    @property
    def may_be_scan(self) -> bool:
        """Whether it is one, of diffraction patterns, unless it holds a single image: so it is said, or its suffix."""
        said_of_scan = (self.settings.detectors, self.settings.scan_shape)
        return said_of_scan != (None, None) or Path(self.path).suffix.lower() not in SUFFIXES

    @property
    def table(self) -> PurePosixPath:
        """Where its table lies among the others: one a input, or a folder with one for each stretch of frames."""
        if self.frames is None:
            return PurePosixPath(f"{self.name}.parquet")
        return PurePosixPath(f"{self.input}.parquet") / f"frames-{self.frames[0]:06d}.parquet"

    @property
    def input(self) -> str:
        """Name of the input, without frames."""
        return self.name if self.frames is None else self.name.rpartition("[")[0]

    def fingerprint(self, options: Options) -> str:
        """Return a digest of what its result depends on: the input, what is said of it, what is done, the version."""
        facts = {
            "size": self.size,
            "modified": self.modified,
            "said": said(self.settings),
            "frames": self.frames,
            "options": options.to_dict(),
            "contextem": __version__,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return it as values that JSON can hold, apart from the settings."""
        return {"name": self.name, "input": self.input, "path": self.path, "table": str(self.table)}


@dataclass(frozen=True)
class Shard:
    """The share of one of several workers: every count-th part.

    Examples
    --------
    >>> Shard.parse("2/3").of(range(7))
    [1, 4]
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``i/n``.

        Raises
        ------
        ValueError
            If it is not a share with 1 <= i <= n.
        """
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ValueError(f"--shard: expected i/n with 1 <= i <= n, such as 2/3, got {text}")
        return cls(int(number), int(count))

    @classmethod
    def of_slurm(cls, environment: Mapping[str, str] = os.environ) -> Shard | None:
        """Return the share of a task of a SLURM array, None outside of one.

        Parameters
        ----------
        environment : mapping
            SLURM_ARRAY_TASK_ID, _MIN, _STEP and _COUNT among it.

        Raises
        ------
        ValueError
            If the tasks of the array are no regular row, such as 1,2,7: their shares would not be clear.

        Examples
        --------
        >>> names = ("ID", "MIN", "MAX", "STEP", "COUNT")
        >>> task = {f"SLURM_ARRAY_TASK_{name}": value for name, value in zip(names, "40821", strict=True)}
        >>> Shard.of_slurm(task | {"SLURM_ARRAY_TASK_COUNT": "5"})
        Shard(number=3, count=5)
        """
        if "SLURM_ARRAY_TASK_ID" not in environment:
            return None
        names = ("ID", "MIN", "MAX", "STEP", "COUNT")
        task, first, last, step, count = (int(environment.get(f"SLURM_ARRAY_TASK_{name}", 1)) for name in names)
        if (last - first) // step + 1 != count:
            raise ValueError(
                f"--shard: expected an array of regular tasks such as 1-{count}, got {count} of {first} to {last}; "
                "number them so, or give --shard"
            )
        return cls((task - first) // step + 1, count)

    def of(self, parts: Iterable[Any]) -> list[Any]:
        """Return the share of this worker."""
        return list(parts)[self.number - 1 :: self.count]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def make_parts(settings: Mapping[Path, Settings], names: Mapping[str, str], series: str) -> list[Part]:
    """Return the parts of inputs.

    Parameters
    ----------
    settings : mapping of Path to Settings
        The inputs, and what is said of each.
    names : mapping of str to str
        By absolute path the names of inputs that have theirs already.
    series : str
        As in `Options`.

    Returns
    -------
    list of Part
        In the order of the inputs.
    """
    paths = {str(path.absolute()): path for path in settings}
    given = named([path for path in paths if path not in names], set(names.values())) | dict(names)
    parts: list[Part] = []
    for absolute, path in paths.items():
        status = path.stat() if path.exists() else None
        size, modified = (0, 0) if status is None else (status.st_size, status.st_mtime_ns)
        whole = Part(given[absolute], absolute, size, modified, settings[path])
        parts.extend(_stretches(whole) if series == "frames" and size >= SPLIT else [whole])
    return parts


def _stretches(whole: Part) -> list[Part]:
    """Cut a long series into stretches of frames; what cannot be looked into fails when it is its turn."""
    if whole.settings.frame is not None or whole.may_be_scan:
        return [whole]
    try:
        count = count_frames(Path(whole.path), whole.settings.signal)
    except (OSError, ValueError):
        return [whole]
    pieces = min(count, -(-whole.size // SPLIT))
    if pieces < 2:
        return [whole]
    length = -(-count // pieces)
    return [
        Part(
            f"{whole.name}[{first}:{min(first + length, count)}]",
            whole.path,
            whole.size,
            whole.modified,
            whole.settings,
            (first, min(first + length, count)),
        )
        for first in range(0, count, length)
    ]


def named(paths: Sequence[str], taken: set[str]) -> dict[str, str]:
    """Return a name for each path: that of the file, behind as many folders as it takes to be the only one.

    Parameters
    ----------
    paths : sequence of str
        Absolute.
    taken : set of str
        Names that are given already.

    Examples
    --------
    >>> named(["/scratch/a/field.dm4", "/scratch/b/field.dm4", "/scratch/b/other.dm4"], set())
    {'/scratch/a/field.dm4': 'a/field.dm4', '/scratch/b/field.dm4': 'b/field.dm4', '/scratch/b/other.dm4': 'other.dm4'}
    """
    names: dict[str, str] = {}
    left, folders = list(paths), 0
    while left:
        tails = {path: "/".join(Path(path).parts[1:][-1 - folders :]) for path in left}
        counts: dict[str, int] = {}
        for tail in tails.values():
            counts[tail] = counts.get(tail, 0) + 1
        longest = {path: folders + 2 > len(Path(path).parts[1:]) for path in left}
        alone = [path for path in left if longest[path] or (counts[tails[path]] == 1 and tails[path] not in taken)]
        names |= {path: tails[path] for path in alone}
        taken = taken | {tails[path] for path in alone}
        left = [path for path in left if path not in names]
        folders += 1
    return {path: names[path] for path in paths}


def said(settings: Settings) -> dict[str, Any]:
    """Return what is said of an input as values that JSON can hold, wherever it is said."""
    told: dict[str, Any] = {}
    for name, value in vars(settings).items():
        if name == "origin" or value is None:
            continue
        if isinstance(value, Detector):
            value = value.to_dict()
        elif name == "detectors":
            value = [each.to_dict() for each in value]
        elif isinstance(value, Mapping):
            value = dict(value)
        told[name] = value
    return told


def model_digest(folder: Path) -> str:
    """Return what tells a model from any other: a digest of its two files."""
    digest = hashlib.sha256()
    for name in ("model.json", "model.safetensors"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
