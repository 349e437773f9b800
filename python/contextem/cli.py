"""contextem classify | demo | simulate | train | evaluate | info: the package from the shell.

Every failure that is the input's ends with one sentence and exit status 2; nothing is left half-written.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from contextem import __version__

if TYPE_CHECKING:
    from contextem.classification import Classification
    from contextem.context import Context
    from contextem.micrograph import Micrograph

F = TypeVar("F", bound=Callable[..., Any])
ENDINGS = (".columns.csv", ".overlay.png", ".summary.json")
PRESETS = ("tmd96", "tmd576", "tmd1296", "near-z")


class _InputError(click.ClickException):
    """What is wrong with the input, in one sentence."""

    exit_code = 2


class _Sentences(click.Group):
    """Turns the package's own errors into one sentence on stderr and exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            click.echo(f"Warning: {message}", err=True)

        warnings.showwarning = show
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            raise _InputError(
                f"{error.name} is not installed; install the extra that brings it, see the README"
            ) from error
        except (ValueError, TypeError, OSError) as error:
            raise _InputError(" ".join(str(error).split()) or type(error).__name__) from error


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="contextem")
def main() -> None:
    """Classify the atomic columns of 1H MX2 monolayers in annular-dark-field STEM images."""


def context_options(command: F) -> F:
    """Add the options that say what the specimen is and how it was recorded."""
    options = [
        click.option("--host", required=True, help="Formula of the host monolayer, such as WSe2."),
        click.option("--dopant", "dopants", multiple=True, help="Element on metal sites; repeat for several."),
        click.option("--energy-kev", type=float, help="Beam energy in keV; taken from the file where it holds one."),
        click.option("--detector", help="HAADF, MAADF, LAADF; taken from the file where it names one."),
        click.option(
            "--lattice-constant",
            type=float,
            help="In-plane lattice constant of the host in Å, if it is not a known host.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _make_context(
    host: str, dopants: tuple[str, ...], energy_kev: float | None, detector: str | None, lattice_constant: float | None
) -> Context:
    from contextem.context import Context

    if energy_kev is not None and energy_kev >= 1000:
        raise ValueError(f"--energy-kev: expected keV (80 for 80 keV), got {energy_kev:g}; that would be eV")
    energy = None if energy_kev is None else 1e3 * energy_kev
    return Context(host, dopants, energy, detector, lattice_constant=lattice_constant)


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@context_options
@click.option("--sampling", type=float, help="Å/px; taken from the file where it holds one.")
@click.option(
    "--estimate-sampling", is_flag=True, help="Take the sampling from the FFT and the host's lattice constant."
)
@click.option("--signal", help="Name or number of the image in a file that holds several.")
@click.option(
    "--model",
    "model_folder",
    type=click.Path(path_type=Path),
    help="Folder of a trained model; the packaged one by default.",
)
@click.option("--device", help="Torch device of the classifier, such as cuda.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("."),
    show_default=True,
    help="Folder for the results.",
)
@click.option("--overwrite", is_flag=True, help="Replace results that exist.")
def classify(
    files: tuple[Path, ...],
    host: str,
    dopants: tuple[str, ...],
    energy_kev: float | None,
    detector: str | None,
    lattice_constant: float | None,
    sampling: float | None,
    estimate_sampling: bool,
    signal: str | None,
    model_folder: Path | None,
    device: str | None,
    output: Path,
    overwrite: bool,
) -> None:
    """Find and classify the atomic columns of each of FILES.

    Writes NAME.columns.csv, NAME.overlay.png and NAME.summary.json for every file into the output folder.
    """
    from tqdm import tqdm

    from contextem.micrograph import read
    from contextem.model import load_model
    from contextem.pipeline import classify as classify_micrograph

    if estimate_sampling and sampling is not None:
        raise ValueError("--estimate-sampling: expected either it or --sampling, got both; leave one out")
    context = _make_context(host, dopants, energy_kev, detector, lattice_constant)
    _refuse_existing([output / f"{file.stem}{ending}" for file in files for ending in ENDINGS], overwrite)
    model = load_model(model_folder)
    for file in tqdm(files, desc="classifying", unit="file", disable=None, leave=False):
        micrograph = read(
            file,
            sampling="estimate" if estimate_sampling else sampling,
            lattice_constant=context.lattice_constant if estimate_sampling else None,
            energy=context.energy,
            detector=context.detector,
            signal=int(signal) if signal is not None and signal.isdigit() else signal,
        )
        result = classify_micrograph(micrograph, context, model=model, device=device)
        written = _write_results(result, micrograph, output, file.stem)
        tqdm.write(f"{file.name}: {_describe(result, micrograph)}\n{written}")


def _refuse_existing(paths: list[Path], overwrite: bool) -> None:
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        raise FileExistsError(
            f"{existing[0]}: exists already; choose another folder with -o or allow it with --overwrite"
        )
    if len(set(paths)) < len(paths):
        raise ValueError("FILES: expected files of different names, got the same name twice; use a folder for each")


def _describe(result: Classification, micrograph: Micrograph) -> str:
    unknown = {"unknown": int(result.unknown.sum())} if result.unknown.any() else {}
    counts = ", ".join(f"{count} {name}" for name, count in (result.counts | unknown).items())
    origin = micrograph.provenance["sampling"]
    return f"{len(result)} columns ({counts}); sampling {micrograph.sampling:.4g} Å/px ({origin})"


def _write_results(result: Classification, micrograph: Micrograph, folder: Path, stem: str) -> str:
    """Write table, picture and summary, all three or none, and say where."""
    import tempfile

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{stem}.", dir=folder) as name:
        made = [Path(name) / f"{stem}{ending}" for ending in ENDINGS]
        result.to_csv(made[0])
        result.plot(micrograph, title=_title(result)).savefig(made[1], dpi=200)
        result.to_json(made[2])
        for path in made:
            path.replace(folder / path.name)
    return f"wrote {', '.join(str(folder / path.name) for path in made)}"


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
    click.echo(_write_results(result, micrograph, output, "demo"))


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
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True)
@click.option(
    "--model",
    "kind",
    type=click.Choice(("lattice", "paper")),
    default="lattice",
    show_default=True,
    help="The classifier of this package, with those it is compared with beside it; or that of the paper alone.",
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
    epochs: int,
    kind: str,
    seed: int,
    workers: int | None,
    device: str,
    output: Path,
    overwrite: bool,
) -> None:
    """Train the classifier, the same without context, and that of the paper, on DATA or simulated on the fly.

    Every fifth image is kept for testing.  Writes weights, accuracy curves (PNG, CSV) and what `evaluate` needs.
    """
    _refuse_existing([output / "model.json"], overwrite)
    from contextem.attention import PAPER
    from contextem.train import train_models

    train_models(
        output,
        data,
        preset=preset,
        images=images,
        epochs=epochs,
        seed=seed,
        workers=workers,
        device=device,
        configs={"paper": PAPER} if kind == "paper" else None,
    )
    click.echo(f"wrote {output}; `contextem evaluate {output}` scores it")


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
    output: Path | None,
) -> None:
    """Score a model (the packaged one by default) on test images, beside the same classifier without context."""
    if unknown:
        _evaluate_unknown(model_folder, 12 * images, workers)
        return
    from contextem.evaluate import predict_test_images, report
    from contextem.scores import score_predictions

    if output is not None and output.is_file():
        raise FileExistsError(f"--output: expected a folder, got the file {output}; choose another one with -o")
    if baselines:
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


def _evaluate_unknown(model_folder: Path | None, images: int, workers: int | None) -> None:
    from contextem.evaluate import familiarity_auroc, unknown_table
    from contextem.model import load_model

    model = load_model(model_folder)
    for found, title in ((False, "at the true positions"), (True, "at found positions")):
        scores = familiarity_auroc(model, images=images, found=found, workers=workers)
        click.echo(f"columns {title}, {images} images of each kind\n{unknown_table(scores)}")


@main.command()
def info() -> None:
    """Print version, kernels, devices and model."""
    import torch

    from contextem import _kernels
    from contextem.model import load_model

    kernels = _kernels.describe()
    cuda = str(kernels["cuda"])
    if kernels["cuda_runtime"]:
        cuda += f", runtime {kernels['cuda_runtime'] // 1000}.{kernels['cuda_runtime'] % 1000 // 10}"
    facts = {
        "contextem": __version__,
        "Python": sys.version.split()[0],
        "kernels": kernels["simd"],
        "instruction sets": ", ".join(kernels["simd_available"]),
        "compiler": kernels["compiler"],
        "CUDA": f"{cuda}, {kernels['cuda_devices']} devices",
        "torch": torch.__version__,
        "model": load_model().info.get("name", "unnamed"),
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
