"""How to do it again: the command and the script that give the same classification."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from contextem.context import find_host

if TYPE_CHECKING:
    from contextem.classification import Classification
    from contextem.micrograph import Micrograph


def commands(classification: Classification, micrograph: Micrograph) -> list[str]:
    """Return what classifies a micrograph again: a script in Python and, before it, a command where one says it all.

    Parameters
    ----------
    classification : Classification
        Its provenance tells the context.
    micrograph : Micrograph
        Its provenance tells what the user said of it, and its source which file it is.

    Returns
    -------
    list of str
        Nothing where the context is not known; of a series the command alone, with FILES for its files.

    Examples
    --------
    >>> from contextem.examples import demo_micrograph
    >>> from contextem.pipeline import classify
    >>> micrograph, context, *_ = demo_micrograph()
    >>> shell, script = commands(classify(micrograph, context), micrograph)
    >>> shell.startswith("contextem classify demo.tif --host WSe2 --dopant Cr --energy-kev 80 --detector HAADF")
    True
    >>> script.splitlines()[2]
    "micrograph = ctm.read('demo.tif')"
    """
    said = classification.provenance.get("stated")
    if said is None:
        return []
    context, by_image = said["context"], said["estimate_angles"]
    further = [each["source"] or "FILE" for each in classification.provenance.get("further_micrographs", ())]
    detectors = said.get("further_detectors", [])
    series = "frames" in micrograph.provenance or len(further) != len(detectors)
    if series and detectors:
        return []  # the shell takes series of one detector
    also = list(zip(further, detectors, strict=False))
    told = context["energy"] is not None and context["detector"] is not None and not _said(context, "fractions")
    words = []
    if told and not any(_angles(detector) for _, detector in also):
        words = _shell(context, micrograph, series)
        for file, detector in also:
            words += ["--also", file, detector["name"]]
        if by_image is not None:
            words.append("--estimate-angles" if by_image else "--no-estimate-angles")
    estimate = "" if by_image is None else f", estimate_angles={by_image}"
    shell = [" ".join(map(shlex.quote, words))] if words else []
    if series:
        return shell
    if also:
        every = [(micrograph.source or "FILE", context["detector"]), *also]
        reading = [
            f"    ctm.read({', '.join([*_reading(context, micrograph, file), f'detector={_detector(detector)}'])}),"
            for file, detector in every
        ]
        read = "\n".join(["micrographs = [", *reading, "]"])
        context = {**context, "detector": None}
    else:
        read = f"micrograph = ctm.read({', '.join(_reading(context, micrograph, micrograph.source or 'FILE'))})"
    script = (
        f"import contextem as ctm\n\n{read}\n"
        f"context = ctm.Context({', '.join(_stating(context))})\n"
        f"result = ctm.classify({'micrographs' if also else 'micrograph'}, context{estimate})"
    )
    return [*shell, script]


def _said(context: Mapping[str, Any], name: str) -> bool:
    """Whether someone said fractions or lattice constant, and other ones than would be taken anyway."""
    if name == "lattice_constant" and (known := find_host(context["host"])) is not None:
        return bool(context[name] != known.lattice_constant)
    return context["provenance"].get(name) not in (None, "table", "default")


def _sampling(micrograph: Micrograph) -> float | str | None:
    """Return the sampling that someone said, Å/px, or "estimate", or nothing where it is the file's."""
    origin = micrograph.provenance["sampling"]
    return "estimate" if origin.startswith("estimated") else None if origin == "file" else micrograph.sampling


def _part(micrograph: Micrograph) -> dict[str, str]:
    """Return which image of its file it is, as far as that was chosen."""
    return {name: micrograph.provenance[name] for name in ("signal", "frame") if name in micrograph.provenance}


def _reading(context: Mapping[str, Any], micrograph: Micrograph, file: str) -> list[str]:
    """Arguments of `read`."""
    words, sampling = [repr(file)], _sampling(micrograph)
    if sampling is not None:
        words.append(f"sampling={sampling!r}")
    if sampling == "estimate":
        words.append(f"lattice_constant={context['lattice_constant']!r}")
    return [*words, *(f"{name}={each if each.isdigit() else repr(each)}" for name, each in _part(micrograph).items())]


def _stating(context: Mapping[str, Any]) -> list[str]:
    """Arguments of `Context`."""
    words = [repr(context["host"]), repr(tuple(context["dopants"]))]
    if context["energy"] is not None:
        words.append(f"energy={context['energy'] / 1e3:.12g}e3")
    if context["detector"] is not None:
        words.append(f"detector={_detector(context['detector'])}")
    return words + [f"{name}={context[name]!r}" for name in ("fractions", "lattice_constant") if _said(context, name)]


def _detector(detector: Mapping[str, Any]) -> str:
    angles = "".join(f", {name}={angle!r}" for name, angle in _angles(detector).items())
    return f"ctm.Detector({detector['name']!r}{angles})"


def _shell(context: Mapping[str, Any], micrograph: Micrograph, series: bool) -> list[str]:
    """Words of the command."""
    files = ["FILES", "--series"] if series else [micrograph.source or "FILE"]
    words = ["contextem", "classify", *files, "--host", context["host"]]
    for symbol in context["dopants"]:
        words += ["--dopant", symbol]
    words += ["--energy-kev", f"{context['energy'] / 1e3:.12g}", "--detector", context["detector"]["name"]]
    for name, angle in _angles(context["detector"]).items():
        words += [f"--{name}", repr(angle)]
    if _said(context, "lattice_constant"):
        words += ["--lattice-constant", repr(context["lattice_constant"])]
    sampling = _sampling(micrograph)
    if sampling is not None:
        words += ["--estimate-sampling"] if sampling == "estimate" else ["--sampling", repr(sampling)]
    for name, each in _part(micrograph).items():
        words += [f"--{name}", each]
    return words


def _angles(detector: Mapping[str, Any]) -> dict[str, float]:
    return {name: detector[name] for name in ("inner", "outer") if detector[name] is not None}
