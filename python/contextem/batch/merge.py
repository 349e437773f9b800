"""What a batch has come to: a table of its micrographs, of its failures, and a summary of all."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contextem import __version__
from contextem._output import whole_file
from contextem._schema import SCHEMAS
from contextem.batch.lock import locked
from contextem.batch.store import Record, Store
from contextem.columns import CLASSES

logger = logging.getLogger(__name__)

DEFECTS = {
    "dopant_fraction": "dopant fraction of the metal sites",
    "single_vacancy_density_per_cm2": "single vacancies per cm²",
    "double_vacancy_density_per_cm2": "double vacancies per cm²",
}
"""What is told of defects in a summary, by its name there."""


@dataclass(frozen=True)
class Merged:
    """What a batch has come to.

    Attributes
    ----------
    output : Path
        Its folder.
    micrographs : list of dict
        The summary of each, in the order of their names.
    failures : list of dict
        "name" and "reason" of those that could not be classified.
    left : list of str
        Parts that are not finished.
    """

    output: Path
    micrographs: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    left: list[str]

    @property
    def columns(self) -> int:
        """Columns of all micrographs."""
        return sum(each["columns"] for each in self.micrographs)

    def told(self) -> str:
        """Say what was merged, in one line."""
        micrographs = "1 micrograph" if len(self.micrographs) == 1 else f"{len(self.micrographs):,} micrographs"
        failed = f", {len(self.failures):,} failed" if self.failures else ""
        left = f", parts not done yet: {len(self.left):,}" if self.left else ""
        return f"{micrographs}, {self.columns:,} columns{failed}{left}: {self.output}"


def merge(output: Path, *, zarr: bool = False) -> Merged:
    """Join what all shares of a batch have done.

    Writes micrographs.csv, failures.csv, summary.json and report.html; the tables of the columns are one data set as
    they lie in columns/, ``pandas.read_parquet("out/columns")``.

    Parameters
    ----------
    output : Path
        Folder of the batch.
    zarr : bool
        Whether columns.zarr is written too.

    Returns
    -------
    Merged

    Raises
    ------
    ValueError
        If there is no batch in the folder.
    Occupied
        If a run works on it.
    """
    store = Store(output)
    plan = store.plan()
    if not plan:
        raise ValueError(f"output: expected a folder that `contextem batch` has worked on, got {output}")
    with store.full_disk_told(), locked(store.locks, None):
        records = {name: store.record(name) for name in sorted(plan, key=lambda name: (plan[name]["table"], name))}
        merged = _merged(output, records)
        _write_csv(output / "micrographs.csv", map(_row, merged.micrographs), _COLUMNS)
        _write_csv(output / "failures.csv", _failures(merged), ("micrograph", "reason"))
        groups = specimens(merged)
        _write_summary(output / "summary.json", merged, groups)
        if zarr:
            from contextem.batch.zarr_table import write_zarr

            write_zarr(output / "columns.zarr", [store.tables / plan[name]["table"] for name in records])
        from contextem.batch.report import write_report

        write_report(output / "report.html", merged, groups)
    logger.info("merged %s", merged.told())
    return merged


def _merged(output: Path, records: Mapping[str, Record | None]) -> Merged:
    micrographs: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    for record in records.values():
        if record is not None:
            micrographs += record.micrographs
            failures += record.failures
    return Merged(output, micrographs, failures, [name for name, record in records.items() if record is None])


_COLUMNS = (
    "micrograph", "frame", "host", "dopants", "detectors", "energy_kev", "sampling_angstrom_per_px", "columns",
    *CLASSES,
    "unknown", "contaminated", "not_complete", "mean_entropy_bits",
    *(f"{name}{end}" for name in DEFECTS for end in ("", "_low", "_high")),
    "warnings",
)  # fmt: skip


def _row(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what micrographs.csv tells of a micrograph."""
    context = summary["context"]
    row: dict[str, Any] = {
        **{name: summary.get(name) for name in _COLUMNS},
        **summary["counts"],
        "micrograph": summary["name"],
        "host": context["host"],
        "dopants": " ".join(context["dopants"]),
        "detectors": _detectors(summary),
        "energy_kev": _energy(summary),
        "sampling_angstrom_per_px": f"{summary['sampling_angstrom_per_px']:.5g}",
        "warnings": "; ".join(summary["warnings"]),
    }
    if summary["mean_entropy_bits"] is not None:
        row["mean_entropy_bits"] = f"{summary['mean_entropy_bits']:.5f}"
    for name in DEFECTS:
        told = summary.get(name)
        values = (told["value"], *told["interval_95"]) if told is not None and told["sites"] else ("", "", "")
        for end, value in zip(("", "_low", "_high"), values, strict=True):
            row[f"{name}{end}"] = "" if value == "" else f"{value:.5g}"
    return row


def _detectors(summary: Mapping[str, Any]) -> str:
    return " ".join(each["context"]["detector"]["name"] for each in (summary, *summary["further_detectors"]))


def _energy(summary: Mapping[str, Any]) -> str:
    """Return the beam energy in keV."""
    return f"{summary['context']['energy'] / 1e3:g}"


def _failures(merged: Merged) -> list[dict[str, str]]:
    failed = [{"micrograph": each["name"], "reason": each["reason"]} for each in merged.failures]
    return failed + [{"micrograph": name, "reason": "not done yet, run the same command again"} for name in merged.left]


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _write_summary(path: Path, merged: Merged, groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write what all micrographs together have come to, by host, dopants, energy and detectors."""
    told = {
        "schema": SCHEMAS["batch"],
        "micrographs": len(merged.micrographs),
        "columns": merged.columns,
        "failures": len(merged.failures),
        "not_done": len(merged.left),
        "specimens": [_specimen(name, summaries) for name, summaries in groups.items()],
        "contextem_version": __version__,
    }
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def specimens(merged: Merged) -> dict[str, list[dict[str, Any]]]:
    """Return the summaries of the micrographs by what was imaged and how, the most of them first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for summary in merged.micrographs:
        context = summary["context"]
        dopants = f":{','.join(context['dopants'])}" if context["dopants"] else ""
        name = f"{context['host']}{dopants}, {_energy(summary)} keV, {_detectors(summary)}"
        groups.setdefault(name, []).append(summary)
    return dict(sorted(groups.items(), key=lambda each: (-len(each[1]), each[0])))


def _specimen(name: str, summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return counts, and of each kind of defect the mean over the micrographs and how far these differ."""
    import numpy as np

    counts: Counter[str] = Counter()
    for summary in summaries:
        counts.update(summary["counts"])
    told: dict[str, Any] = {"name": name, "micrographs": len(summaries), "counts": dict(counts)}
    for defect in DEFECTS:
        found = [each[defect] for each in summaries if each.get(defect) is not None and each[defect]["sites"]]
        if not found:
            continue
        values = np.array([each["value"] for each in found])
        sites = np.array([each["sites"] for each in found])
        told[defect] = {
            "mean": float(np.average(values, weights=sites)),
            "standard_deviation_of_micrographs": float(values.std(ddof=1)) if len(values) > 1 else None,
            "sites": int(sites.sum()),
        }
    return told
