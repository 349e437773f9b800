"""How docstrings become pages: formulas keep their lines, single backticks link where they name something documented.

The docstrings are written to be read in an editor: an indented formula stands there without a mark, and parameters
stand in single backticks as public names do.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

LONGEST = 80
"""Characters of the value of a constant that is shown."""


def keep_formulas(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Make literal blocks of what is indented before the first section."""
    end = next((i for i, line in enumerate(lines[1:]) if line and re.fullmatch("-+", line)), len(lines))
    kept: list[str] = []
    inside = False
    for i, line in enumerate(lines[:end]):
        if line.startswith("    ") and not inside:
            before = next((each for each in reversed(kept) if each), "")
            if not before.endswith("::") and not before.startswith(("-", ".. ", ":")):
                kept += [*([""] if kept and kept[-1] else []), "::", ""]
            inside = True
        elif line and not line.startswith("    ") and inside:
            if lines[i - 1]:
                kept.append("")
            inside = False
        kept.append(line)
    lines[:end] = kept


def only_own(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what a module imports from elsewhere, aliases of types, and fields of named tuples told above them."""
    if str(getattr(obj, "__doc__", "")).startswith("Alias for field number"):
        return True
    module = getattr(obj, "__module__", None) or "contextem"
    foreign = not module.startswith("contextem") or isinstance(obj, type(list[int]))
    return True if foreign and what == "module" else None


def leave_out_long_values(app: Sphinx, domain: str, kind: str, content: addnodes.desc_content) -> None:
    """Leave out the value of a constant that does not fit into a line."""
    if domain == "py" and kind in ("data", "attribute") and content.parent is not None:
        for value in list(content.parent.findall(addnodes.desc_annotation)):
            if len(value.astext()) > LONGEST:
                value.parent.remove(value)


def plain_defaults(app: Sphinx, command: Any, lines: list[str]) -> None:
    """Show the default of an option that is a path as it is typed."""
    lines[:] = [re.sub(r"PosixPath\('(.*?)'\)", r"\1", line) for line in lines]


def resolve(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, content: nodes.TextElement
) -> nodes.reference | nodes.TextElement | None:
    """Resolve `Columns` to contextem.Columns wherever one object only has this name; leave parameters as code."""
    if node.get("refdomain") != "py" or node.get("reftype") != "obj":
        return None
    target = node["reftarget"].removeprefix("contextem.")
    objects = env.domains["py"].objects  # type: ignore[attr-defined]
    found = {
        (entry.docname, entry.node_id)
        for name, entry in objects.items()
        if name.endswith(f".{target}") and not entry.aliased
    }
    if len(found) != 1:
        return content
    docname, anchor = found.pop()
    return make_refnode(app.builder, node["refdoc"], docname, anchor, content)


def setup(app: Sphinx) -> dict[str, Any]:
    """Prepare docstrings before numpydoc takes them, and make single backticks refer to Python objects."""
    app.setup_extension("sphinx_click")
    app.config.default_role = "py:obj"
    app.connect("autodoc-process-docstring", keep_formulas, priority=100)
    app.connect("autodoc-skip-member", only_own)
    app.connect("sphinx-click-process-options", plain_defaults)
    app.connect("object-description-transform", leave_out_long_values)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
