"""Options of several commands: the specimen, its recording, which image of a file is meant, and whose labels count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

if TYPE_CHECKING:
    from contextem.micrograph import Micrograph
    from contextem.sidecar import Settings

F = TypeVar("F", bound=Callable[..., Any])

RULE_NAMES = ("majority", "unanimity", "dawid-skene")
"""Those of `contextem.labels.votes.RULES`, which takes too long to import for a line of help."""


@dataclass(frozen=True)
class Said:
    """What the options and the file of --context say of all files."""

    given: Settings
    shared: Settings
    angles: tuple[float, float] | None
    context_file: Path | None

    def of(self, file: Path) -> Settings:
        """Return what is said of one file, sidecars beside it among that."""
        from contextem.sidecar import COMMAND_LINE, settings_of

        said = settings_of(file, self.given, self.shared)
        return said if self.angles is None else said.with_angles(*self.angles, COMMAND_LINE)


def file_options(command: F) -> F:
    """Add the options that say what the specimen is, how it was recorded and which image of a file is meant.

    The command gets them as one argument `said`, a `Said`.
    """

    @wraps(command)
    def gathered(
        *arguments: Any,
        context_file: Path | None,
        inner: float | None,
        outer: float | None,
        sampling: float | None,
        estimate_sampling: bool,
        host: str | None,
        dopants: tuple[str, ...],
        energy_kev: float | None,
        detector: str | None,
        lattice_constant: float | None,
        signal: str | None,
        frame: int | None,
        **others: Any,
    ) -> Any:
        from contextem.sidecar import COMMAND_LINE, Settings, parse_settings, read_settings

        if estimate_sampling and sampling is not None:
            raise ValueError("--estimate-sampling: expected either it or --sampling, got both; leave one out")
        if (inner is None) != (outer is None):
            raise ValueError("--inner: expected together with --outer, got one of them; give both or none")
        options = {
            "host": host,
            "dopants": dopants or None,
            "energy_kev": energy_kev,
            "detector": detector,
            "lattice_constant": lattice_constant,
            "sampling": "estimate" if estimate_sampling else sampling,
            "signal": signal,
            "frame": frame,
        }
        given = parse_settings({key: value for key, value in options.items() if value is not None}, COMMAND_LINE)
        about = None if context_file is None else f"context file {context_file.name}"
        shared = Settings() if context_file is None else read_settings(context_file, about)
        angles = None if inner is None or outer is None else (inner, outer)
        return command(*arguments, said=Said(given, shared, angles, context_file), **others)

    options = [
        click.option("--host", help="Formula of the host monolayer, such as WSe2."),
        click.option("--dopant", "dopants", multiple=True, help="Element on metal sites; repeat for several."),
        click.option("--energy-kev", type=float, help="Beam energy in keV; taken from the file where it holds one."),
        click.option(
            "--detector", help="HAADF, MAADF, or ADF for lower angles; taken from the file where it names one."
        ),
        click.option("--inner", type=float, help="Inner collection semi-angle of the detector in mrad."),
        click.option("--outer", type=float, help="Outer collection semi-angle of the detector in mrad."),
        click.option(
            "--lattice-constant",
            type=float,
            help="In-plane lattice constant of the host in Å, if it is not a known host.",
        ),
        click.option(
            "--context",
            "context_file",
            type=click.Path(path_type=Path),
            help="YAML file with what is not given as options; it stands before those beside the files.",
        ),
        click.option("--sampling", type=float, help="Å/px; taken from the file where it holds one."),
        click.option(
            "--estimate-sampling", is_flag=True, help="Take the sampling from the FFT and the host's lattice constant."
        ),
        click.option("--signal", help="Name or number of the image in a file that holds several."),
        click.option("--frame", type=int, help="Number of the image in a series, from 0."),
    ]
    complete: Any = gathered
    for option in reversed(options):
        complete = option(complete)
    return cast(F, complete)


def scan_options(command: F) -> F:
    """Add the options that say how scans of diffraction patterns become images; to stand inside of `file_options`.

    What they say becomes part of the command's argument `said`.
    """

    @wraps(command)
    def gathered(
        *arguments: Any,
        said: Said,
        annuli: tuple[tuple[str, float, float], ...],
        angular_sampling: float | None,
        scan_shape: tuple[int, int] | None,
        centre: tuple[float, float] | None,
        **others: Any,
    ) -> Any:
        from contextem.sidecar import COMMAND_LINE, parse_settings

        options = {
            "detectors": [{"name": name, "inner": inner, "outer": outer} for name, inner, outer in annuli] or None,
            "angular_sampling": angular_sampling,
            "scan_shape": scan_shape,
            "centre": centre,
        }
        given = parse_settings({key: value for key, value in options.items() if value is not None}, COMMAND_LINE)
        return command(*arguments, said=replace(said, given=given.over(said.given)), **others)

    options = [
        click.option(
            "--annulus",
            "annuli",
            type=(str, float, float),
            multiple=True,
            metavar="NAME INNER OUTER",
            help="Virtual detector of 4D-STEM scans, such as HAADF 70 200, in mrad; repeat for several.",
        ),
        click.option(
            "--angular-sampling", type=float, help="Of diffraction patterns, mrad/px; from the file if known."
        ),
        click.option(
            "--scan-shape",
            type=(int, int),
            metavar="ROWS COLUMNS",
            help="Of a scan, for files that hold diffraction patterns one after another.",
        ),
        click.option(
            "--centre",
            type=(float, float),
            metavar="ROW COLUMN",
            help="Of the undiffracted beam in the patterns, px; found in their mean if left out.",
        ),
    ]
    complete: Any = gathered
    for option in reversed(options):
        complete = option(complete)
    return cast(F, complete)


def classifier_options(command: F) -> F:
    """Add the options that say how micrographs are classified: model, collection angles, correction of the scan."""
    model = click.option(
        "--model",
        "model_folder",
        type=click.Path(path_type=Path),
        help="Folder of a trained model; the packaged one by default.",
    )
    angles = click.option(
        "--estimate-angles/--no-estimate-angles",
        default=None,
        help="Take the collection angles from the image, or nominal ones; by default from the image where none are "
        "stated.",
    )
    scan = click.option(
        "--correct-scan", is_flag=True, help="Take row jitter and drift out of the image first, by its lattice."
    )
    return model(angles(scan(command)))


def rule_options(command: F) -> F:
    """Add the options that say how votes become labels."""
    rule = click.option(
        "--rule", type=click.Choice(RULE_NAMES), default="majority", show_default=True, help="What votes come to."
    )
    quorum = click.option(
        "--quorum", type=click.IntRange(1), default=2, show_default=True, help="Least votes of a label."
    )
    return rule(quorum(command))


def label_options(told: str) -> Callable[[F], F]:
    """Return what adds the options that name a store of votes, told of in these words, and say how they are counted."""

    def add(command: F) -> F:
        return click.option("--labels", type=click.Path(path_type=Path), help=told)(rule_options(command))

    return add


def read_micrograph(
    file: Path, settings: Settings, lattice_constant: float | None, frames: tuple[Path, ...]
) -> Micrograph:
    """Read a file, or average the frames of a series, as the settings tell, with the provenance that is theirs.

    Parameters
    ----------
    file : Path
        The file.
    settings : Settings
        What is said of it.
    lattice_constant : float or None
        Of the specimen, Å; needed where the sampling is to be estimated.
    frames : tuple of Path
        Files of a series, read in place of the file; may be empty.

    Returns
    -------
    Micrograph
    """
    from contextem.micrograph import read, read_series
    from contextem.series import average

    given = recording_given(settings, lattice_constant)
    micrograph = average(read_series(frames, **given)) if frames else read(file, frame=settings.frame, **given)
    return with_origins(micrograph, settings)


def recording_given(settings: Settings, lattice_constant: float | None) -> dict[str, Any]:
    """Return what settings say of a recording, as arguments of the functions that read one.

    Parameters
    ----------
    settings : Settings
        What is said of a file.
    lattice_constant : float or None
        Of the specimen, Å; needed where the sampling is to be estimated.
    """
    return {
        "sampling": settings.sampling,
        "energy": settings.energy,
        "detector": settings.detector,
        "signal": settings.signal,
        "lattice_constant": lattice_constant if settings.sampling == "estimate" else None,
    }


def with_origins(micrograph: Micrograph, settings: Settings) -> Micrograph:
    """Return a micrograph whose provenance names where the settings say what, and not only the user.

    Parameters
    ----------
    micrograph : Micrograph
        Read with what the settings say.
    settings : Settings
        With origins.
    """
    provenance = {
        name: text.replace("user", settings.origin[name], 1) if text.startswith("user") else text
        for name, text in micrograph.provenance.items()
    }
    return replace(micrograph, provenance=provenance)


def require_recording(micrograph: Micrograph, file: Path) -> None:
    """Say how to give the energy or the detector where no one tells it.

    Parameters
    ----------
    micrograph : Micrograph
        As read.
    file : Path
        What it was read from.

    Raises
    ------
    ValueError
        If one of them is not known.
    """
    for name, option in (("energy", "--energy-kev"), ("detector", "--detector")):
        if getattr(micrograph, name) is None:
            key = option[2:].replace("-", "_")
            raise ValueError(
                f"{name}: {file.name} does not tell it, give it as {option}, or as {key} in {file.stem}.yaml or "
                "contextem.yaml beside the file"
            )


def tell_left_out(names: Sequence[str]) -> None:
    """Say which files of a folder are left out, if any.

    Parameters
    ----------
    names : sequence of str
        Of the files.
    """
    if names:
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        click.echo(f"left out, as no micrographs: {', '.join(names[:8])}{more}", err=True)


def sentence(error: Exception) -> str:
    """Return what went wrong in one sentence."""
    if isinstance(error, ModuleNotFoundError) and "pip install" not in str(error):
        return f"{error.name} is not installed; install the extra that brings it, see the README"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror.lower()}"
    return " ".join(str(error).split()) or type(error).__name__
