"""Figures of the pages, drawn by the examples of the package when the site is built, into ``_figures``.

They are drawn again when a file of the package is newer than they are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.application import Sphinx
from sphinx.util import logging

import contextem
from contextem._output import whole_file
from contextem.examples import figure1, method
from contextem.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PACKAGE = Path(contextem.__file__).parent
FIGURES: dict[str, Callable[[], Figure]] = {
    **method.FIGURES,
    "figure1": lambda: figure1.draw(figure1.compare()),
}


def draw_figures(app: Sphinx) -> None:
    """Draw what is missing or older than the package."""
    newest = max(path.stat().st_mtime for path in (*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.safetensors")))
    for name, draw in FIGURES.items():
        target = Path(app.srcdir) / "_figures" / f"{name}.png"
        if target.exists() and target.stat().st_mtime > newest:
            continue
        logging.getLogger(__name__).info("drawing %s", name)
        with style(), whole_file(target) as temporary:
            draw().savefig(temporary, dpi=220)


def setup(app: Sphinx) -> dict[str, Any]:
    """Draw the figures before the pages are read."""
    app.connect("builder-inited", draw_figures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
