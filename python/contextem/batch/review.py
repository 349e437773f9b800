"""What to look at in a batch first: micrographs that stand out, and warnings and failures by their kind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem.batch.spread import QUANTITIES, shares

ODD = 4.0
"""Robust standard deviations from the other micrographs beyond which one stands out."""
UNKNOWN, CONTAMINATED, ENTROPY, SAMPLING = 0.02, 0.1, 0.1, 0.02
"""Shares of the columns, bits and relative difference up to which no micrograph stands out."""
_MOST = 10.0  # that one reason counts, in multiples of what it takes to stand out
_NUMBER = re.compile(r"(?<![A-Za-z])\d")


@dataclass
class Odd:
    """A micrograph that deserves a look.

    Attributes
    ----------
    index : int
        Among the micrographs of its group.
    reasons : list of str
        Why.
    weight : float
        How much.
    doubtful : bool
        Whether for another reason than the share of a defect.
    """

    index: int
    reasons: list[str] = field(default_factory=list)
    weight: float = 0.0
    doubtful: bool = False


def odd_ones(summaries: Sequence[Mapping[str, Any]]) -> list[Odd]:
    """Return the micrographs of a specimen that deserve a look, the most of them first.

    Those with warnings; those that differ from the others of the specimen in unknown or contaminated columns, entropy
    or sampling, or in the share of a defect by more than chance and what the others differ.

    Parameters
    ----------
    summaries : sequence of mapping
        Of micrographs of one specimen, imaged alike.

    Returns
    -------
    list of Odd
    """
    odd: dict[int, Odd] = {}

    def add(index: int, reason: str, weight: float, *, doubtful: bool = True) -> None:
        each = odd.setdefault(index, Odd(index))
        each.reasons.append(reason)
        each.weight += min(weight, _MOST)
        each.doubtful |= doubtful

    for index, summary in enumerate(summaries):
        for warning in summary["warnings"]:
            add(index, warning, 3.0)
    columns = np.array([max(1, each["columns"]) for each in summaries], float)
    for name, least in (("unknown", UNKNOWN), ("contaminated", CONTAMINATED)):
        share = np.array([each[name] for each in summaries]) / columns
        for index, excess in _above(share, least):
            add(index, f"{name} columns: {100 * share[index]:.2g} %", excess)
    entropy = np.array([each["mean_entropy_bits"] or 0.0 for each in summaries])
    for index, excess in _above(entropy, ENTROPY):
        add(index, f"mean entropy: {entropy[index]:.2g} bits", excess)
    off = disagreements(summaries)
    for index, excess in _above(np.abs(np.nan_to_num(off - _median(off))), SAMPLING):
        if not any(each.startswith("sampling") for each in summaries[index]["warnings"]):
            direction = "above" if off[index] > 0 else "below"
            add(index, f"sampling by the lattice {100 * abs(off[index]):.1f} % {direction} that stated", excess)
    for quantity in QUANTITIES:
        found = shares(summaries, quantity)
        deviations = found.deviations
        scale = max(1.0, _deviation(deviations))
        for place in np.flatnonzero(np.abs(deviations) > ODD * scale):
            times = found.values[place] / found.mean
            usual = found.mean * found.sites[place]
            often = f"{times:.2g} times the mean" if times else f"none, where {usual:.2g} are usual"
            weight = float(abs(deviations[place])) / scale / ODD
            add(int(found.where[place]), f"{quantity.words}: {often}", weight, doubtful=False)
    return sorted(odd.values(), key=lambda each: (-each.weight, each.index))


def disagreements(summaries: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Return by how much the sampling by the lattice is above that stated, relative, (M,); NaN where not measured."""
    told = [each.get("calibration", {}) for each in summaries]
    return np.array(
        [
            each["by_lattice_angstrom_per_px"] / each["stated_angstrom_per_px"] - 1.0
            if each.get("by_lattice_angstrom_per_px")
            else np.nan
            for each in told
        ],
        float,
    )


@dataclass(frozen=True)
class Kind:
    """Texts that differ in numbers and names of files only.

    Attributes
    ----------
    count : int
        How many.
    example : str
        One of them.
    name : str
        The micrograph it is said of.
    """

    count: int
    example: str
    name: str


def kinds(told: Iterable[tuple[str, str]]) -> list[Kind]:
    """Return what is said of micrographs by kind, the most frequent first.

    Parameters
    ----------
    told : iterable of (str, str)
        Name of a micrograph, and what is said of it.

    Returns
    -------
    list of Kind

    Examples
    --------
    >>> noise = "{}: no lattice is seen at {} Å/px"
    >>> for each in kinds([(name, noise.format(name, 0.1 * i)) for i, name in enumerate(("a.tif", "b.tif"))]):
    ...     print(each.count, each.example)
    2 a.tif: no lattice is seen at 0.0 Å/px
    """
    found: dict[str, Kind] = {}
    for name, text in told:
        file = PurePosixPath(name).name
        start = _NUMBER.split(text.replace(file, "").replace(file.rpartition("[")[0] or file, ""), maxsplit=1)[0]
        before = found.get(start)
        found[start] = Kind(1, text, name) if before is None else Kind(before.count + 1, before.example, before.name)
    return sorted(found.values(), key=lambda each: -each.count)


def _above(values: NDArray[np.float64], least: float) -> Iterable[tuple[int, float]]:
    """Return the index of each that stands out above the others and a least value, and how far, as a ratio."""
    limit = max(least, _median(values) + ODD * _deviation(values))
    return [(int(index), float(values[index] / limit)) for index in np.flatnonzero(values > limit)]


def _median(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else 0.0


def _deviation(values: NDArray[np.float64]) -> float:
    """Return the standard deviation by the median deviation from the median."""
    return 1.4826 * _median(np.abs(values - _median(values))) if len(values) else 0.0
