"""``{ranges}``: what the conditions of simulated micrographs are drawn from, as the package has it."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from numpydoc.docscrape import ClassDoc
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from contextem.simulate.conditions import RANGES, Ranges


class RangesTable(SphinxDirective):
    """A row for each condition: what it is, and its range in each set of ranges."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows = [
            f"| condition | {' | '.join(f'`{name.upper()}`' for name in RANGES)} | |",
            "|" + "---|" * (len(RANGES) + 2),
        ]
        for entry in ClassDoc(Ranges)["Attributes"]:
            for name in entry.name.split(", "):
                values = [_in_words(getattr(ranges, name)) for ranges in RANGES.values()]
                rows.append(f"| `{name}` | {' | '.join(values)} | {' '.join(entry.desc)} |")
        return self.parse_text_to_nodes("\n".join(rows) + "\n")


def _in_words(bounds: tuple[float, float]) -> str:
    low, high = (f"{round(value, 3):g}" for value in bounds)
    return low if low == high else f"{low} to {high}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("ranges", RangesTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
