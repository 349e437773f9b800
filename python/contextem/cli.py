"""contextem classify | batch | demo | simulate | train | evaluate | info | label: the package from the shell.

Every failure that is the input's ends with one sentence and exit status 2; nothing is left half-written.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contextem import __version__
from contextem._extras import needs_extra
from contextem._options import (
    Said,
    classifier_options,
    file_options,
    label_options,
    read_micrograph,
    require_recording,
    sentence,
    tell_left_out,
)
from contextem._verbosity import VerboseGroup, verbose_option

if TYPE_CHECKING:
    from contextem.classification import Classification
    from contextem.micrograph import Micrograph
    from contextem.model import Model
    from contextem.sidecar import Settings

ENDINGS = (".columns.csv", ".overlay.png", ".summary.json")
EXPORTS = {
    "parquet": ".columns.parquet",
    "hdf5": ".columns.h5",
    "hspy": ".columns.hspy",
    "emd": ".columns.emd",
    "xyz": ".columns.xyz",
}
"""Endings of further files, by the name of their format."""
_NEEDED = {"parquet": ("pyarrow", "parquet"), "xyz": ("ase", "simulate")}
"""Package that writes a format, and the extra that brings it."""
REPORT = ".report.html"
LABEL_SCORES = "label_scores.json"
"""File for scores against the labels of experts."""
SIDECAR_HELP = """\b
A YAML file has some of these lines, in keV, mrad and Å/px, and fractions, lattice_constant, signal, frame:
  host: WSe2
  dopants: [Cr]
  energy_kev: 80
  detector: {name: HAADF, inner: 70, outer: 200}
  sampling: 0.2
"""
PRESETS = ("tmd96", "tmd576", "tmd1296", "near-z")


class _InputError(click.ClickException):
    """What is wrong with the input, in one sentence."""

    exit_code = 2


class _Sentences(VerboseGroup):
    """Turns the package's own errors into one sentence on stderr and exit status 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "batch", "label"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "batch":
            from contextem.batch.commands import batch

            return batch
        if cmd_name == "label":
            from contextem.labels.commands import label

            return label
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            click.echo(f"Warning: {message}", err=True)

        warnings.showwarning = show
        try:
            return super().invoke(ctx)
        except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
            raise _InputError(sentence(error)) from error


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="contextem")
@verbose_option
def main() -> None:
    """Classify the atomic columns of 1H MX2 monolayers in annular-dark-field STEM images."""


@main.command(epilog=SIDECAR_HELP)
@click.argument("files", nargs=-1, metavar="FILES...", type=click.Path(path_type=Path))
@file_options
@classifier_options
@click.option("--device", help="Torch device of the classifier, such as cuda.")
@click.option(
    "--also",
    type=(click.Path(path_type=Path), str),
    multiple=True,
    metavar="FILE DETECTOR",
    help="Image of another detector that recorded at the same time, and its name.",
)
@click.option("--series", is_flag=True, help="FILES are one series of the same area: averaged after registration.")
@click.option(
    "--export", "exports", type=click.Choice(tuple(EXPORTS)), multiple=True, help="Write the result in this form too."
)
@click.option(
    "--report",
    is_flag=False,
    flag_value=REPORT,
    metavar="[OUT.html]",
    help="Write a page with everything; as NAME.report.html where no name is given.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("."),
    show_default=True,
    help="Folder for the results.",
)
@click.option("--overwrite", is_flag=True, help="Replace results that exist.")
@click.option("--skip-existing", is_flag=True, help="Leave out files whose results exist, to go on after a break.")
def classify(
    files: tuple[Path, ...],
    said: Said,
    model_folder: Path | None,
    device: str | None,
    estimate_angles: bool | None,
    also: tuple[tuple[Path, str], ...],
    correct_scan: bool,
    series: bool,
    exports: tuple[str, ...],
    report: str | None,
    output: Path,
    overwrite: bool,
    skip_existing: bool,
) -> None:
    """Find and classify the atomic columns of each of FILES.

    Writes NAME.columns.csv, NAME.overlay.png and NAME.summary.json for every file into the output folder.  A folder
    among FILES stands for all micrographs in it.  A file that cannot be classified does not stop the others.

    What is not given as options is read from a YAML file: that of --context, field.yaml beside field.dm4, or
    contextem.yaml in its folder; the first that tells it counts.
    """
    from contextem.model import load_model

    if report is not None and not report.endswith(".html"):
        if not Path(report).exists():
            raise ValueError(f"--report: expected a name that ends with .html, or none behind all FILES, got {report}")
        files, report = (Path(report), *files), REPORT  # what stands behind it is the first of FILES
    if not files:
        raise ValueError("FILES: expected micrographs or folders of them, got none; name them behind the command")
    if skip_existing and overwrite:
        raise ValueError("--skip-existing: expected either it or --overwrite, got both; leave one out")
    chosen = _choose_files(files, said.context_file, output)
    frames: list[Path] = chosen if series else []
    chosen = chosen[:1] if series else chosen
    if len(chosen) > 1:
        for option, single in (("--also", also), ("--report", report not in (None, REPORT))):
            if single:
                raise ValueError(f"{option}: expected with one of FILES, got {len(chosen)}; classify them one by one")
    settings = {file: said.of(file) for file in chosen}
    alone = len(chosen) == 1  # then its failure is that of the command, and who waits at a terminal can be asked
    if alone and _at_terminal():
        settings = {file: _ask_host(each) for file, each in settings.items()}
    for each in settings.values():
        each.context()  # what is wrong or missing is told before the first file is classified
        _check_detectors(each, also)
    for package, extra in (_NEEDED[each] for each in exports if each in _NEEDED):
        with needs_extra(extra):
            importlib.import_module(package)
    if correct_scan and also:
        raise ValueError(
            "--correct-scan: expected without --also, got both: the images would no longer fit; leave it out"
        )
    run = _Run(
        device, estimate_angles, also, correct_scan, tuple(frames), tuple(dict.fromkeys(exports)), report, output
    )
    for file in chosen if skip_existing else ():
        if all(path.exists() for path in run.results(file)):
            del settings[file]
    if len(settings) < len(chosen):
        click.echo(f"skipped {len(chosen) - len(settings)} of {len(chosen)} files, whose results exist")
    results = [path for file in settings for path in run.results(file)]
    _refuse_existing(
        results, overwrite or skip_existing, "--overwrite, or leave out what is there with --skip-existing"
    )
    if settings:
        _check_folder(output)
    model = load_model(model_folder)
    if alone:
        for file, each in settings.items():
            click.echo(_classify_file(file, each, model, run, ask=_at_terminal()))
    else:
        _classify_files(settings, model, run)


@dataclass(frozen=True)
class _Run:
    """What is done with each file, apart from its settings."""

    device: str | None
    estimate_angles: bool | None
    also: tuple[tuple[Path, str], ...]
    correct_scan: bool
    frames: tuple[Path, ...]  # of a series; empty where files are no series
    exports: tuple[str, ...]
    report: str | None
    output: Path

    @property
    def endings(self) -> tuple[str, ...]:
        """Endings of what is written into the output folder."""
        page = (REPORT,) if self.report == REPORT else ()
        return (*ENDINGS, *(EXPORTS[each] for each in self.exports), *page)

    def results(self, file: Path) -> list[Path]:
        """Return all that is written of a file."""
        page = [] if self.report in (None, REPORT) else [Path(str(self.report))]
        return [*(self.output / f"{file.stem}{ending}" for ending in self.endings), *page]


def _classify_files(settings: dict[Path, Settings], model: Model, run: _Run) -> None:
    """Classify file by file; one that fails stops no other, and is told of at the end."""
    from tqdm import tqdm

    failures: dict[Path, str] = {}
    for file, said in tqdm(settings.items(), desc="classifying", unit="file", disable=None, leave=False):
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")  # what was said of one file is said of the next as well
            try:
                line = _classify_file(file, said, model, run)
            except Exception as error:  # noqa: BLE001 - told at the end, by name where it is a bug
                expected = isinstance(error, ValueError | TypeError | OSError | ModuleNotFoundError)
                failures[file] = sentence(error) if expected else f"{type(error).__name__}: {sentence(error)}"
                line = f"{file.name}: failed"
        with tqdm.external_write_mode():
            click.echo(line)
            for remark in remarks:
                click.echo(f"Warning: {file.name}: {remark.message}", err=True)
    if failures:
        lines = [f"{len(failures)} of {len(settings)} files failed:"]
        click.echo("\n".join(lines + [f"  {file}: {reason}" for file, reason in failures.items()]), err=True)
        raise click.exceptions.Exit(1)


def _classify_file(file: Path, settings: Settings, model: Model, run: _Run, *, ask: bool = False) -> str:
    """Read, classify and write one file; return what came out."""
    from contextem.micrograph import Detector
    from contextem.pipeline import classify as classify_micrograph
    from contextem.scan import correct_scan

    context = settings.context()
    micrograph = read_micrograph(file, settings, context.lattice_constant, run.frames)
    if ask:
        micrograph = _ask_recording(micrograph)
    require_recording(micrograph, file)
    if run.correct_scan:
        micrograph = correct_scan(micrograph, context).micrograph
    others = []
    for other, name in run.also:
        said = replace(settings, detector=Detector(name))
        if said.sampling == "estimate":  # one scan, one sampling
            said = replace(said, sampling=micrograph.sampling)
            said = replace(said, origin={**said.origin, "sampling": micrograph.provenance["sampling"]})
        others.append(read_micrograph(other, said, context.lattice_constant, ()))
    result = classify_micrograph(
        [micrograph, *others] if others else micrograph,
        context,
        model=model,
        device=run.device,
        estimate_angles=run.estimate_angles,
    )
    return f"{file.name}: {_describe(result, micrograph)}\n{_write_results(result, micrograph, run, file)}"


def _at_terminal() -> bool:
    return sys.stdin.isatty()


def _ask_host(settings: Settings) -> Settings:
    if settings.host is not None:
        return settings
    host = click.prompt("Host monolayer, such as WSe2")
    return replace(settings, host=host, origin={**settings.origin, "host": "user"})


def _ask_recording(micrograph: Micrograph) -> Micrograph:
    """Ask for energy and detector where neither the file nor the user told them so far."""
    from contextem.micrograph import Detector

    if micrograph.energy is None:
        micrograph = replace(micrograph, energy=1e3 * click.prompt("Beam energy in keV", type=float))
    if micrograph.detector is None:
        micrograph = replace(micrograph, detector=Detector(click.prompt("Detector, such as HAADF")))
    return micrograph


def _check_detectors(settings: Settings, also: tuple[tuple[Path, str], ...]) -> None:
    """Refuse detectors of --also that are not known, or the same twice: those would be averaged as a series."""
    from contextem.micrograph import Detector

    names = [] if settings.detector is None else [settings.detector.name]
    for file, name in also:
        if Detector(name).name in names:
            raise ValueError(
                f"--also: expected an image of another detector than {', '.join(names)}, got {name} for {file.name}; "
                "images of one detector are averaged with --series"
            )
        names.append(name)


def _check_folder(output: Path) -> None:
    """Refuse a folder for the results that cannot be written into, before anything is classified."""
    there = next(each for each in (output, *output.absolute().parents) if each.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"--output: expected a folder, got the file {there}; choose another one with -o")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"--output: expected a folder to write into, {there} is not; choose another one with -o")


def _choose_files(inputs: Sequence[Path], context_file: Path | None, output: Path) -> list[Path]:
    """Return the micrographs among what is named, and say what else the folders hold, apart from the results."""
    from contextem._files import find_files

    found, skipped = find_files(inputs)
    written = (*ENDINGS, *EXPORTS.values(), REPORT)
    files = [file for file in found if not file.name.endswith(written)]
    known = {file.with_suffix(suffix).name for file in files for suffix in (".yaml", ".yml")}
    known |= {"contextem.yaml", "contextem.yml", "" if context_file is None else context_file.name}
    skipped = [path for path in skipped if path.resolve() != output.resolve()]
    left = [path.name for path in skipped if path.name not in known and not path.name.endswith(written)]
    tell_left_out(left)
    if not files:
        raise ValueError(f"FILES: expected micrographs, found none in {', '.join(map(str, inputs))}")
    stems: dict[str, Path] = {}
    for file in files:
        if stems.setdefault(file.stem, file) != file:
            raise ValueError(
                f"FILES: expected files of different names, got {stems[file.stem]} and {file}, with results of "
                "the same name; use a folder for each"
            )
    return files


def _refuse_existing(paths: list[Path], overwrite: bool, option: str = "--overwrite") -> None:
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        more = f", and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise FileExistsError(
            f"{existing[0]}: exists already{more}; choose another folder with -o or allow it with {option}"
        )


def _describe(result: Classification, micrograph: Micrograph) -> str:
    from contextem.origins import detectors_in_words

    marked = {"unknown": result.unknown, "contaminated": result.contaminated & ~result.unknown}
    left_out = {name: int(chosen.sum()) for name, chosen in marked.items() if chosen.any()}
    counts = ", ".join(f"{count} {name}" for name, count in (result.counts | left_out).items())
    stated = f"{micrograph.sampling:.4g} Å/px ({micrograph.provenance['sampling']})"
    by_lattice = result.provenance["calibration"]["used"] == "lattice"
    sampling = f"{result.sampling:.4g} Å/px by the lattice instead of {stated}" if by_lattice else stated
    return f"{len(result)} columns ({counts}); {detectors_in_words(result)}; sampling {sampling}"


def _write_results(result: Classification, micrograph: Micrograph, run: _Run, file: Path) -> str:
    """Write all that is wanted of a file, whole or nothing of it, and say where."""
    import tempfile

    from contextem._output import whole_file

    writers: dict[str, Callable[[Path], Any]] = {
        ENDINGS[0]: result.to_csv,
        ENDINGS[1]: lambda path: result.plot(micrograph, title=_title(result)).savefig(path, dpi=200),
        ENDINGS[2]: lambda path: result.to_json(path, spatial=True),
        EXPORTS["parquet"]: result.to_parquet,
        EXPORTS["hdf5"]: result.to_hdf5,
        EXPORTS["hspy"]: lambda path: result.to_hspy(path, micrograph),
        EXPORTS["emd"]: lambda path: result.to_emd(path, micrograph),
        EXPORTS["xyz"]: lambda path: result.to_ase().write(path, format="extxyz"),
        REPORT: lambda path: result.to_html(path, micrograph),
    }
    run.output.mkdir(parents=True, exist_ok=True)
    results = run.results(file)
    with tempfile.TemporaryDirectory(prefix=f".{file.stem}.", dir=run.output) as name:
        made = [Path(name) / path.name for path in results]
        for path, ending, target in zip(made, (*run.endings, REPORT), results, strict=False):
            with _told_of(target):
                writers[ending](path)
        for path, target in zip(made, results, strict=True):
            with _told_of(target), whole_file(target) as temporary:
                shutil.copyfile(path, temporary)
    return f"wrote {', '.join(map(str, results))}"


@contextmanager
def _told_of(target: Path) -> Iterator[None]:
    """Name the file that could not be written, and what the system says of it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or sentence(error)
        raise OSError(f"{target}: could not be written ({reason.lower()}); choose another folder with -o") from error


def _title(result: Classification) -> str:
    context = result.provenance["context"]
    host = context["host"].translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
    specimen = f"{', '.join(context['dopants'])}-doped {host}" if context["dopants"] else host
    return f"{specimen}, {context['detector']['name']}, {context['energy'] / 1e3:g} keV"


@main.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("contextem-demo"),
    show_default=True,
    help="Folder for the results.",
)
def demo(output: Path) -> None:
    """Classify the packaged micrograph, whose truth is known, and print how well it went.

    Results of an earlier demo in the same folder are replaced.
    """
    from contextem.examples import demo_micrograph
    from contextem.pipeline import classify as classify_micrograph
    from contextem.scores import score_columns

    micrograph, context, positions, labels = demo_micrograph()
    start = time.perf_counter()
    result = classify_micrograph(micrograph, context)
    seconds = time.perf_counter() - start
    click.echo(f"{micrograph.source}: {_describe(result, micrograph)}; {seconds:.1f} s")
    found = score_columns(result, positions, labels, tolerance=0.5)
    click.echo(found.table())
    run = _Run(None, None, (), False, (), (), REPORT, output)
    click.echo(_write_results(result, micrograph, run, Path("demo")))


@main.command()
@click.option(
    "--preset", type=click.Choice(PRESETS), default="tmd576", show_default=True, help="Which cases and conditions."
)
@click.option(
    "--images",
    type=click.IntRange(1),
    help="Micrographs of each case and condition; 10 by default, 1 with --engine abtem.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
@click.option(
    "--engine",
    type=click.Choice(("responses", "abtem")),
    default="responses",
    show_default=True,
    help="Superposed responses of columns, or multislice of periodic cells: slow, and meant for testing.",
)
@click.option(
    "--phonons", type=click.IntRange(1), help="Frozen-phonon configurations with --engine abtem; 16 by default."
)
@click.option(
    "--device", type=click.Choice(("cpu", "gpu")), help="Where --engine abtem propagates waves; cpu by default."
)
@click.option("--workers", type=click.IntRange(1), help="Processes; one a core by default.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for the micrographs; finished ones are kept and skipped.",
)
@click.option(
    "--rebuild-responses",
    type=click.Path(path_type=Path),
    help="Instead: recompute the response library with abTEM into this file.",
)
def simulate(
    preset: str,
    images: int | None,
    seed: int,
    engine: str,
    phonons: int | None,
    device: str | None,
    workers: int | None,
    output: Path | None,
    rebuild_responses: Path | None,
) -> None:
    """Simulate micrographs with known truth."""
    if rebuild_responses is not None:
        from contextem.simulate.coherences import build

        build(rebuild_responses)
        click.echo(f"wrote {rebuild_responses}")
        return
    if output is None:
        raise ValueError("--output: expected a folder for the micrographs, got none; give one with -o")
    if engine != "abtem" and (phonons is not None or device is not None):
        raise ValueError(f"--{'device' if phonons is None else 'phonons'}: only --engine abtem takes it; leave it out")
    from contextem.simulate.dataset import generate

    written = generate(
        output,
        preset,
        images or (1 if engine == "abtem" else 10),
        seed,
        engine=engine,
        processes=workers,
        device=device or "cpu",
        phonons=phonons or 16,
    )
    click.echo(f"{output}: {len(written)} micrographs")


@main.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option(
    "--preset",
    type=click.Choice(PRESETS),
    default="tmd576",
    show_default=True,
    help="Simulated on the fly where no DATA are given.",
)
@click.option(
    "--images", type=click.IntRange(5), default=10, show_default=True, help="Micrographs of each case and condition."
)
@click.option("--epochs", type=click.IntRange(1), help="Passes over the columns; 10 by default, 6 with --labels.")
@click.option(
    "--model",
    "kind",
    type=click.Choice(("lattice", "paper")),
    default="lattice",
    show_default=True,
    help="The classifier of this package, with those it is compared with beside it; or that of the paper alone.",
)
@label_options("Instead: fine-tune a model on what experts agree on in this store of `contextem label`.")
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path),
    help="Folder of the model that is fine-tuned with --labels; the packaged one by default.",
)
@click.option(
    "--simulated",
    type=click.FloatRange(0.0, 1.0, max_open=True),
    default=0.5,
    show_default=True,
    help="Share of simulated columns among those of --labels, so that nothing is forgotten.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--workers", type=click.IntRange(1), help="Processes that simulate and measure; one a core by default.")
@click.option("--device", default="cpu", show_default=True, help="Torch device to train on.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the model.")
@click.option("--overwrite", is_flag=True, help="Replace a model that is there.")
def train(
    data: Path | None,
    preset: str,
    images: int,
    epochs: int | None,
    kind: str,
    labels: Path | None,
    rule: str,
    quorum: int,
    start: Path | None,
    simulated: float,
    seed: int,
    workers: int | None,
    device: str,
    output: Path,
    overwrite: bool,
) -> None:
    """Train the classifier, the same without context, and that of the paper, on DATA or simulated on the fly.

    Every fifth image is kept for testing.  Writes weights, accuracy curves (PNG, CSV) and what `evaluate` needs.

    With --labels, a model is fine-tuned on the labels of every second image, or of the left half of a single one, and
    scored on the others before and after.
    """
    _refuse_existing([output / "model.json"], overwrite)
    if labels is not None:
        if data is not None:
            raise ValueError(
                f"--labels: expected without DATA, got {data}; simulated images are mixed in by themselves"
            )
        options: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
        options |= {"simulated": simulated, "seed": seed, "workers": workers, "device": device}
        _fine_tune(labels, rule, quorum, start, output, options)
        return
    if start is not None:
        raise ValueError("--from: expected together with --labels, got none; give a store of votes or leave it out")
    from contextem.attention import PAPER
    from contextem.train import train_models

    train_models(
        output,
        data,
        preset=preset,
        images=images,
        epochs=epochs or 10,
        seed=seed,
        workers=workers,
        device=device,
        configs={"paper": PAPER} if kind == "paper" else None,
    )
    click.echo(f"wrote {output}; `contextem evaluate {output}` scores it")


def _fine_tune(labels: Path, rule: str, quorum: int, start: Path | None, output: Path, options: dict[str, Any]) -> None:
    """Fine-tune a model on a store of votes, write it and tell what it is worth."""
    from contextem.finetune import fine_tune, read_labels
    from contextem.model import load_model

    tuned = fine_tune(load_model(start), read_labels(labels, rule, quorum), **options)
    tuned.save(output)
    click.echo(f"{tuned.table()}\nwrote {output}; `contextem classify --model {output}` uses it")


@main.command()
@click.argument("model_folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), help="Micrographs of `contextem simulate`; their test images are scored."
)
@click.option(
    "--preset",
    type=click.Choice(PRESETS),
    default="tmd576",
    show_default=True,
    help="Simulated on the fly where no DATA are given.",
)
@click.option(
    "--images",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Test micrographs of each case and condition.",
)
@click.option(
    "--ranges",
    type=click.Choice(("reference", "wide", "both")),
    default="reference",
    show_default=True,
    help="Good micrographs with nominal collection angles, or all that occurs in practice.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes that simulate and measure; one a core by default.")
@click.option(
    "--ideal/--no-ideal",
    default=True,
    show_default=True,
    help="Whether to show what an ideal observer of the simulated micrographs could tell.",
)
@click.option(
    "--baselines",
    is_flag=True,
    help="Train other classifiers on some of the training images and score them too; needs the extra `baselines`.",
)
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="Micrographs of `contextem simulate --engine abtem`, to be scored for the model card besides.",
)
@click.option(
    "--trials",
    type=click.IntRange(1),
    help="Train again from so many seeds, and without some materials, for the model card; takes long.",
)
@click.option(
    "--unknown",
    is_flag=True,
    help="Instead: see how well adatoms, grain boundaries, second layers and wrong hosts are told from known columns.",
)
@label_options("Instead: score against what experts agree on in this store of `contextem label`.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder for the scores (JSON), a model card and figures."
)
def evaluate(
    model_folder: Path | None,
    data: Path | None,
    preset: str,
    images: int,
    ranges: str,
    workers: int | None,
    ideal: bool,
    baselines: bool,
    reference: Path | None,
    trials: int | None,
    unknown: bool,
    labels: Path | None,
    rule: str,
    quorum: int,
    output: Path | None,
) -> None:
    """Score a model (the packaged one by default) on test images, beside the same classifier without context."""
    if output is not None and output.is_file():
        raise FileExistsError(f"--output: expected a folder, got the file {output}; choose another one with -o")
    if unknown:
        _evaluate_unknown(model_folder, 12 * images, workers)
        return
    if labels is not None:
        if data is not None:
            raise ValueError(f"--labels: expected without --data, got {data}; score against one after the other")
        _evaluate_labels(model_folder, labels, rule, quorum, output)
        return
    from contextem.evaluate import predict_test_images, report
    from contextem.scores import score_predictions

    if baselines:
        with needs_extra("baselines"):
            import sklearn  # noqa: F401  (says at once that it is missing)
    predictions = predict_test_images(
        model_folder,
        data,
        preset=preset,
        images=images,
        ranges=ranges,
        workers=workers,
        ideal=ideal,
        baselines=baselines,
    )
    click.echo(report(score_predictions(predictions)))
    sets: dict[str, Any] = {}
    if reference is not None:
        sets["reference"] = predict_test_images(model_folder, reference, preset=None, images=images, workers=workers)
        click.echo(f"\n{reference}\n{report(score_predictions(sets['reference']))}")
    if trials is not None:
        from contextem.attention import ModelConfig
        from contextem.trials import measure_pool, run_trials, trial_lines

        sets["trials"] = run_trials(
            partial(measure_pool, preset, ModelConfig(), workers=workers),
            ModelConfig(),
            seeds=trials,
            record=None if output is None else output / "trials.json",
        )
        click.echo("\n".join(["", *trial_lines(sets["trials"])]))
    if output is None:
        return
    from contextem.model import packaged_model
    from contextem.report import write_report

    folder = packaged_model() if model_folder is None else model_folder
    near_z = None
    if data is None and preset != "near-z":
        near_z = predict_test_images(
            model_folder, None, preset="near-z", images=images, ranges=ranges, workers=workers, ideal=ideal
        )
    test: dict[str, Any] = {"images": len(next(iter(predictions.values())).dose)}
    if data is None:
        test |= {"preset": preset, "images of each case and condition": images, "conditions drawn from": ranges}
    facts = {"model": json.loads((folder / "model.json").read_text(encoding="utf-8")), "test": test}
    written = write_report(output, predictions, facts=facts, near_z=near_z, model_folder=folder, **sets)
    click.echo(f"wrote {', '.join(map(str, written))}")


def _evaluate_labels(model_folder: Path | None, labels: Path, rule: str, quorum: int, output: Path | None) -> None:
    from contextem._output import whole_file
    from contextem._schema import SCHEMAS
    from contextem.finetune import read_labels, score_labels
    from contextem.model import load_model

    label_set = read_labels(labels, rule, quorum)
    scores = score_labels(load_model(model_folder), label_set)
    click.echo(scores.table())
    if output is not None:
        with whole_file(output / LABEL_SCORES) as temporary:
            told = {"schema": SCHEMAS["set of scores"], "labels": label_set.facts(), "scores": scores.to_dict()}
            temporary.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        click.echo(f"wrote {output / LABEL_SCORES}")


def _evaluate_unknown(model_folder: Path | None, images: int, workers: int | None) -> None:
    from contextem.evaluate import familiarity_auroc, unknown_table
    from contextem.model import load_model

    model = load_model(model_folder)
    for found, title in ((False, "at the true positions"), (True, "at found positions")):
        scores = familiarity_auroc(model, images=images, found=found, workers=workers)
        click.echo(f"columns {title}, {images} images of each kind\n{unknown_table(scores)}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For programs; with all that is known.")
def info(as_json: bool) -> None:
    """Print what a bug report needs: build, threads, devices, libraries and model, and no paths or names."""
    from contextem.about import info as gather
    from contextem.about import info_text

    facts = gather()
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else info_text(facts))


if __name__ == "__main__":
    main()
