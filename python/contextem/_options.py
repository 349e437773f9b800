"""Options of several commands: the specimen, its recording, which image of a file is meant, and whose labels count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from contextem.micrograph import Micrograph
    from contextem.sidecar import Settings

F = TypeVar("F", bound=Callable[..., Any])

RULE_NAMES = ("majority", "unanimity", "dawid-skene")
"""Those of `contextem.labels.votes.RULES`, which takes too long to import for a line of help."""


def context_options(command: F) -> F:
    """Add the options that say what the specimen is and how it was recorded."""
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
    ]
    for option in reversed(options):
        command = option(command)
    return command


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

    said: dict[str, Any] = {
        "sampling": settings.sampling,
        "energy": settings.energy,
        "detector": settings.detector,
        "signal": settings.signal,
        "lattice_constant": lattice_constant if settings.sampling == "estimate" else None,
    }
    micrograph = average(read_series(frames, **said)) if frames else read(file, frame=settings.frame, **said)
    provenance = {
        name: text.replace("user", settings.origin[name], 1) if text.startswith("user") else text
        for name, text in micrograph.provenance.items()
    }
    return replace(micrograph, provenance=provenance)
