"""contextem batch INPUT... | contextem batch merge: many micrographs, series and 4D-STEM scans from the shell."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contextem._extras import needs_extra
from contextem._options import Said, classifier_options, file_options, scan_options, tell_left_out
from contextem._verbosity import VerboseGroup

if TYPE_CHECKING:
    from contextem.batch.engines import Engine
    from contextem.batch.run import Run

FOLDER_SCANS = (".blo", ".de5", ".h5", ".hdf5", ".mib", ".zarr")
"""Suffixes of scans, beside those of micrographs, that a folder is searched for."""
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class _Batch(VerboseGroup):
    """Takes inputs where it is not told what to do."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Batch, subcommand_metavar="INPUT... [OPTIONS] | merge OUT")
def batch() -> None:
    """Classify many micrographs, series and 4D-STEM scans, on this machine or on a cluster.

    `contextem batch INPUT...` goes on where an earlier run stopped: what is finished is not done again.  Shares of the
    work are done by `--shard i/n`, anywhere and in any order, and joined by `contextem batch merge OUT`.
    """


@batch.command(short_help="Classify what is named; what `contextem batch INPUT...` stands for.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path))
@file_options
@scan_options
@click.option(
    "--series",
    type=click.Choice(("frames", "average")),
    default="frames",
    show_default=True,
    help="Of a series classify each frame, or their average after registration.",
)
@classifier_options
@click.option("--workers", type=click.IntRange(1), help="Parts at once; by default one for each core.")
@click.option("--processes", is_flag=True, help="Workers are processes, a dask cluster on this machine.")
@click.option("--scheduler", metavar="ADDRESS", help="Workers are those of a dask scheduler, or of its scheduler file.")
@click.option(
    "--device",
    help="Torch device such as cuda; cuda:all takes a process for each card of this machine.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Do the I-th of N shares only; by default that of the task, in a SLURM array.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    help="Such as 8G, which all workers of this machine may take; by default half of it.",
)
@click.option("--profile", is_flag=True, help="Say at the end where the time went.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the results; shared by all."
)
@click.option("--overwrite", is_flag=True, help="Replace results that were made with other settings.")
def run(
    inputs: tuple[Path, ...],
    said: Said,
    series: str,
    model_folder: Path | None,
    estimate_angles: bool | None,
    correct_scan: bool,
    workers: int | None,
    processes: bool,
    scheduler: str | None,
    device: str | None,
    shard: str | None,
    memory: str | None,
    profile: bool,
    output: Path,
    overwrite: bool,
) -> None:
    """Classify micrographs, series and 4D-STEM scans; the same command goes on after a break.

    INPUT are files, folders and patterns.  Writes columns/NAME.parquet for each, and for all of them micrographs.csv,
    failures.csv, summary.json and report.html; with --shard these are left to `contextem batch merge`.

    What is not given as options is read from a YAML file: that of --context, field.yaml beside field.dm4, or
    contextem.yaml in its folder; the first that tells it counts.
    """
    from contextem.batch.memory import default_memory
    from contextem.batch.merge import merge as merge_shares
    from contextem.batch.part import Work
    from contextem.batch.plan import Options, Shard, make_parts, model_digest
    from contextem.batch.run import run as run_parts
    from contextem.batch.store import Store
    from contextem.model import find_model, load_model

    with needs_extra("batch"):
        import pyarrow  # noqa: F401 - every worker needs it
    share = (Shard.of_slurm() or Shard()) if shard is None else Shard.parse(shard)
    limit = default_memory() if memory is None else _bytes(memory)
    load_model(model_folder)  # what is wrong with it is told before anything else is done
    folder = find_model(model_folder).absolute()
    options = Options(str(folder), model_digest(folder), series, estimate_angles, correct_scan)
    settings = {file: said.of(file) for file in _chosen(inputs, output)}
    for each in settings.values():
        each.context()  # what is missing is told before the first is classified
    planned = {each["path"]: each["input"] for each in Store(output).plan().values()}
    parts = make_parts(settings, planned, series)
    work = Work(str(output.absolute()), options, None if device == "cpu" else device, limit, 1)
    engine, work = _engine(work, workers, processes, scheduler)
    with engine as ready:
        done = run_parts(parts, work, ready, shard=share, overwrite=overwrite)
    click.echo(_told(done, output))
    if profile:
        click.echo(_profile(done))
    if share.count == 1:
        click.echo(merge_shares(output).told())
    else:
        click.echo(f"when all {share.count} shares are done: contextem batch merge {output}")
    _tell_failures(done.failures)


@batch.command()
@click.argument("output", metavar="OUT", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--zarr", is_flag=True, help="Write columns.zarr too, the table of all columns as Zarr arrays.")
def merge(output: Path, zarr: bool) -> None:
    """Join what the shares of a batch have done: tables of all micrographs and failures, summary and report."""
    from contextem.batch.merge import merge as merge_shares

    merged = merge_shares(output, zarr=zarr)
    click.echo(merged.told())
    if merged.left:
        raise click.exceptions.Exit(1)
    _tell_failures(merged.failures)


def _chosen(inputs: Sequence[Path], output: Path) -> list[Path]:
    """Return the files that are named, that lie in the folders or match the patterns, without those of the output."""
    from contextem._files import SUFFIXES, find_files

    found, skipped = find_files(inputs, (*SUFFIXES, *FOLDER_SCANS))
    inside = output.resolve()
    files = [file for file in found if not file.resolve().is_relative_to(inside)]
    left = [path.name for path in skipped if path.suffix not in (".yaml", ".yml") and path.resolve() != inside]
    tell_left_out(left)
    if not files:
        raise ValueError(f"INPUT: expected micrographs or scans, found none in {', '.join(map(str, inputs))}")
    return files


def _engine(
    work: Any, workers: int | None, processes: bool, scheduler: str | None
) -> tuple[AbstractContextManager[Engine], Any]:
    """Return who does the work, and the work as they are told."""
    from dataclasses import replace

    from contextem._threads import available_cores
    from contextem.batch.engines import Threads, card_cluster, connected, local_cluster

    if scheduler is not None and (processes or workers is not None):
        raise ValueError("--scheduler: expected without --workers and --processes, it has workers of its own")
    if work.device == "cuda:all":
        cards = _cards()
        work = replace(work, device="cuda")
        if scheduler is not None:
            return connected(scheduler), work
        return card_cluster(cards, work.memory), work
    if scheduler is not None:
        return connected(scheduler), work
    if processes:
        return local_cluster(workers or available_cores(), 1, work.memory), work
    return nullcontext(Threads(workers)), work


def _cards() -> list[str]:
    """Return the numbers or names of the cards that this process sees."""
    import torch

    count = torch.cuda.device_count()
    if count == 0:
        raise ValueError("--device: expected cards for cuda:all, torch sees none; leave it out for the CPU")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(card) for card in range(count)]


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([\d.]+)\s*([kmgt]?)i?b?", text.strip().lower())
    try:
        size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    except ValueError:
        size = 0
    if size < 1 << 28:
        raise ValueError(f"--memory: expected a size of at least 256M, such as 8G, got {text}")
    return size


def _told(done: Run, output: Path) -> str:
    rate = f", {done.columns / done.seconds:,.0f} columns/s" if done.columns else ""
    skipped = f", {done.skipped} were finished before" if done.skipped else ""
    return f"{done.parts - done.skipped} of {done.parts} parts done in {done.seconds:.1f} s{rate}{skipped}: {output}"


def _profile(done: Run) -> str:
    total = sum(done.stages.values())
    lines = [f"{'stage':<18}{'s':>10}{'share':>8}"]
    for name, seconds in sorted(done.stages.items(), key=lambda each: -each[1]):
        lines.append(f"{name:<18}{seconds:>10.2f}{100 * seconds / total:>7.1f}%")
    return "\n".join([*lines, f"{'all workers':<18}{total:>10.2f}"])


def _tell_failures(failures: Sequence[dict[str, Any]]) -> None:
    if not failures:
        return
    lines = [f"{len(failures)} failed, see failures.csv:"]
    lines += [f"  {each['name']}: {each['reason']}" for each in failures[:10]]
    click.echo("\n".join([*lines, *(["  ..."] if len(failures) > 10 else [])]), err=True)
    raise click.exceptions.Exit(1)
