"""Pages and parts of pages: templates in which every value is escaped, and what a notebook shows of a micrograph."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contextem._output import whole_file
from contextem.figures import GREY_LEVELS, round_length

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from contextem.micrograph import Micrograph

DOTS_PER_INCH = 150
THUMBNAIL = 320
"""Longer side of a micrograph in a notebook, px."""
ORIGINS = {
    "file": "the file",
    "user": "the user",
    "command line": "the command line",
    "table": "the table of hosts",
    "default": "default",
}
"""What is said of where a value comes from; other words stand as they are."""


def fill(template: str, **values: Any) -> str:
    """Return a template of the package with its values, escaped; a missing one is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("contextem"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def picture(
    figure: Figure,
    alt: str,
    caption: str = "",
    *,
    dots_per_inch: int = DOTS_PER_INCH,
    path: Path | None = None,
) -> dict[str, Any]:
    """Return a figure as a picture for a template, with what is said of it; write it to a file too if one is named."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dots_per_inch)
    if path is not None:
        with whole_file(path) as temporary:
            temporary.write_bytes(file.getvalue())
    width, height = (round(float(side) * dots_per_inch) for side in figure.get_size_inches())
    return {"png": _data_uri(file), "width": width, "height": height, "alt": alt, "caption": caption}


def _data_uri(file: io.BytesIO) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def row(name: str, value: str, origin: str | None = None) -> dict[str, str]:
    """Return a row of a table of values and their origins."""
    return {"name": name, "value": value, "origin": ORIGINS.get(str(origin), str(origin or ""))}


def recording_rows(micrograph: Micrograph, of: str = "", sampling: float | None = None) -> Iterator[dict[str, str]]:
    """Yield the facts of a micrograph with their origin.

    `of` stands after energy and detector; `sampling`, Å/px, replaces the micrograph's in the size of the field.
    """
    origin = micrograph.provenance
    if micrograph.source is not None:
        yield row("file", micrograph.source)
    for name in ("signal", "frame"):
        if name in origin:
            yield row(f"{name} of the file", origin[name], "user")
    if "frames" in origin:
        yield row("series", f"mean of {origin['frames']} frames, over what all of them show", "registration")
    height, width = micrograph.shape
    yield row("image", f"{width} × {height} px, {field(micrograph, sampling)} nm, {micrograph.data.dtype}")
    yield row(
        "sampling" if sampling is None else "sampling stated", f"{micrograph.sampling:.5g} Å/px", origin.get("sampling")
    )
    if micrograph.energy is not None:
        yield row(f"beam energy{of}", f"{micrograph.energy / 1e3:g} keV", origin.get("energy"))
    if micrograph.detector is not None:
        yield row(f"detector{of}", detector_words(micrograph.detector.to_dict()), origin.get("detector"))


def field(micrograph: Micrograph, sampling: float | None = None) -> str:
    """Return width and height in nm, by another sampling than the micrograph's if one is given, Å/px."""
    height, width = (0.1 * (sampling or micrograph.sampling) * side for side in micrograph.shape)
    return f"{width:.3g} × {height:.3g}"


def detector_words(detector: Mapping[str, Any]) -> str:
    """Return name and angles of a detector."""
    inner, outer = detector["inner"], detector["outer"]
    return detector["name"] if inner is None or outer is None else f"{detector['name']} {inner:g}–{outer:g} mrad"


def specimen(host: str, dopants: Sequence[str]) -> str:
    """Return what a specimen is called.

    Examples
    --------
    >>> specimen("WSe2", ["Cr"]), specimen("MoS2", [])
    ('Cr-doped WSe₂', 'MoS₂')
    """
    formula = host.translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
    return f"{', '.join(dopants)}-doped {formula}" if dopants else formula


def number(value: float, digits: int = 2) -> str:
    """Return significant digits, of what is 10,000 or more as a multiple of a power of ten.

    Examples
    --------
    >>> number(0.0473), number(52.31), number(3.14e13), number(5.0312, 4)
    ('0.047', '52.3', '3.1 × 10¹³', '5.031')
    """
    if value >= 1e4:
        power = math.floor(math.log10(value) + 1e-9)
        return f"{value / 10.0**power:.{digits - 1}f} × {_power(power)}"
    if value >= 9.95:
        return f"{value:.{max(1, digits - math.floor(math.log10(value)) - 1)}f}"
    return f"{value:#.{digits}g}" if value >= 1e-4 else "0"


def interval(low: float, high: float) -> str:
    """Return both ends of an interval, as multiples of one power of ten where the higher one is.

    Examples
    --------
    >>> interval(0.5, 1.25), interval(4e12, 1.2e13), interval(5.012, 5.034)
    ('0.50 to 1.2', '(0.40 to 1.2) × 10¹³', '5.012 to 5.034')
    """
    digits = digits_of(low, high)
    if high < 1e4:
        return f"{number(low, digits)} to {number(high, digits)}"
    power = math.floor(math.log10(high) + 1e-9)
    return f"({number(low / 10.0**power, digits)} to {number(high / 10.0**power, digits)}) × {_power(power)}"


def digits_of(low: float, high: float) -> int:
    """Return how many digits tell the ends of an interval apart, two at least."""
    return min(6, 2 + math.floor(math.log10(0.5 * high / (high - low)))) if 0.0 < high - low < 0.05 * high else 2


def _power(power: int) -> str:
    return f"10{str(power).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def micrograph_html(micrograph: Micrograph) -> str:
    """Return what a notebook shows of a micrograph: a small picture with a scale bar, and the facts with their origin.

    Parameters
    ----------
    micrograph : Micrograph
        Of any size.

    Returns
    -------
    str
        HTML, some ten to a hundred kilobytes.
    """
    from PIL import Image

    low, high = np.percentile(micrograph.data, GREY_LEVELS)
    grey = np.clip((micrograph.as_float() - low) * (255.0 / max(high - low, np.finfo(np.float32).tiny)), 0, 255)
    image = Image.fromarray(grey.astype(np.uint8))
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "png")
    pixel = micrograph.sampling * micrograph.shape[1] / image.width  # of the small picture, Å
    length = round_length(0.3 * image.width * pixel / 10)
    return fill(
        "micrograph.html",
        image={"png": _data_uri(file), "width": image.width, "height": image.height, "alt": "the micrograph"},
        bar={"text": f"{length:g} nm", "width": round(10 * length / pixel)},
        origins=list(recording_rows(micrograph)),
    )
