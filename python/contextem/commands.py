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
        Nothing where the context is not known.

    Examples
    --------
    >>> from contextem.examples import demo_micrograph
    >>> from contextem.pipeline import classify
    >>> micrograph, context, *_ = demo_micrograph()
    >>> (script,) = commands(classify(micrograph, context), micrograph)
    >>> script.splitlines()[2]
    "micrograph = ctm.read('demo.tif')"
    """
    context = classification.provenance.get("context")
    if context is None:
        return []
    script = (
        "import contextem as ctm\n\n"
        f"micrograph = ctm.read({', '.join(_reading(context, micrograph))})\n"
        f"context = ctm.Context({', '.join(_stating(context))})\n"
        "result = ctm.classify(micrograph, context)"
    )
    detector, stated = context["detector"], context["provenance"]
    if context["energy"] is None or detector is None or _angles(detector) or stated.get("fractions") == "user":
        return [script]
    return [" ".join(map(shlex.quote, _shell(context, micrograph))), script]


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
    if context["provenance"].get("lattice_constant") == "user":
        words += ["--lattice-constant", repr(context["lattice_constant"])]
    if origin.startswith("estimated"):
        words.append("--estimate-sampling")
    elif origin == "user":
        words += ["--sampling", repr(micrograph.sampling)]
    return words


def _angles(detector: Mapping[str, Any]) -> dict[str, float]:
    return {name: detector[name] for name in ("inner", "outer") if detector[name] is not None}
