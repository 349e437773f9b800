"""How to do it again: the command and the script that give the same classification."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
        Nothing where the context is not known, or several images were put together.

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
    if said is None or classification.provenance.get("further_micrographs"):
        return []
    context, by_image = said["context"], said["estimate_angles"]
    estimate = "" if by_image is None else f", estimate_angles={by_image}"
    script = (
        "import contextem as ctm\n\n"
        f"micrograph = ctm.read({', '.join(_reading(context, micrograph))})\n"
        f"context = ctm.Context({', '.join(_stating(context))})\n"
        f"result = ctm.classify(micrograph, context{estimate})"
    )
    if context["energy"] is None or context["detector"] is None or context["provenance"].get("fractions") == "user":
        return [script]
    words = _shell(context, micrograph)
    if by_image is not None:
        words.append("--estimate-angles" if by_image else "--no-estimate-angles")
    return [" ".join(map(shlex.quote, words)), script]


def _reading(context: Mapping[str, Any], micrograph: Micrograph) -> list[str]:
    """Arguments of `read`."""
    origin = micrograph.provenance["sampling"]
    words = [repr(micrograph.source or "FILE")]
    if origin.startswith("estimated"):
        words += ["sampling='estimate'", f"lattice_constant={context['lattice_constant']!r}"]
    elif origin == "user":
        words.append(f"sampling={micrograph.sampling!r}")
    return words


def _stating(context: Mapping[str, Any]) -> list[str]:
    """Arguments of `Context`."""
    words = [repr(context["host"]), repr(tuple(context["dopants"]))]
    if context["energy"] is not None:
        words.append(f"energy={context['energy'] / 1e3:.12g}e3")
    if (detector := context["detector"]) is not None:
        angles = "".join(f", {name}={angle!r}" for name, angle in _angles(detector).items())
        words.append(f"detector=ctm.Detector({detector['name']!r}{angles})")
    for name in ("fractions", "lattice_constant"):
        if context["provenance"].get(name) == "user":
            words.append(f"{name}={context[name]!r}")
    return words


def _shell(context: Mapping[str, Any], micrograph: Micrograph) -> list[str]:
    """Words of the command."""
    origin = micrograph.provenance["sampling"]
    words = ["contextem", "classify", micrograph.source or "FILE", "--host", context["host"]]
    for symbol in context["dopants"]:
        words += ["--dopant", symbol]
    words += ["--energy-kev", f"{context['energy'] / 1e3:.12g}", "--detector", context["detector"]["name"]]
    for name, angle in _angles(context["detector"]).items():
        words += [f"--{name}", repr(angle)]
    if context["provenance"].get("lattice_constant") == "user":
        words += ["--lattice-constant", repr(context["lattice_constant"])]
    if origin.startswith("estimated"):
        words.append("--estimate-sampling")
    elif origin == "user":
        words += ["--sampling", repr(micrograph.sampling)]
    return words


def _angles(detector: Mapping[str, Any]) -> dict[str, float]:
    return {name: detector[name] for name in ("inner", "outer") if detector[name] is not None}
