"""Figures of the pages, drawn by the examples of the package when the site is built.

Each example has `draw_all`, which returns its figures by name; they are drawn again when a file of the package is
newer than they are.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Draw the figures before the pages are read."""
    return {"parallel_read_safe": True, "parallel_write_safe": True}
