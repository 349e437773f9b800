"""Files of the tree as pages of the site, so that a formula can point to the code that computes it.

``{source}`cpp/include/contextem/moments.hpp``` links to the page of a file; a file that is not there is an error.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import CppLexer, PythonLexer, TextLexer
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import ReferenceRole

ROOT = Path(__file__).resolve().parents[3]
LEXERS = {".py": PythonLexer, ".cpp": CppLexer, ".hpp": CppLexer, ".cu": CppLexer, ".cuh": CppLexer}

_shown: set[str] = set()


class SourceRole(ReferenceRole):
    """A link to the page of a file of the tree."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the link."""
        if not (ROOT / self.target).is_file():
            message = self.inliner.reporter.error(f"source: no file {self.target} in the tree", line=self.lineno)
            return [], [message]
        _shown.add(self.target)
        text = self.title if self.has_explicit_title else self.target
        up = "../" * self.env.docname.count("/")
        link = nodes.reference("", "", internal=True, refuri=f"{up}sources/{self.target}.html")
        link += nodes.literal(text, text)
        return [link], []


def page_of(module: str, name: str) -> str | None:
    """Return the page and line at which an object of a module is defined, seen from a folder of the site."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    module = getattr(found, "__module__", None) or module  # public names are defined further in
    stem = ROOT / "python" / module.replace(".", "/")
    place = next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)
    if place is None:
        return None
    analyzer = ModuleAnalyzer.for_module(module)
    analyzer.analyze()
    definition = analyzer.tags.get(getattr(found, "__qualname__", name))
    if definition is None:
        return None
    path = place.relative_to(ROOT).as_posix()
    _shown.add(path)
    return f"../sources/{path}.html#line-{definition[1]}"


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the page of every file that something points to."""
    formatter = HtmlFormatter(linenos="inline", lineanchors="line", anchorlinenos=True, cssclass="highlight source")
    for path in sorted(_shown):
        text = (ROOT / path).read_text(encoding="utf-8")
        body = highlight(text, LEXERS.get(Path(path).suffix, TextLexer)(), formatter)
        yield f"sources/{path}", {"title": path, "body": body}, "source.html"


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the role and the pages."""
    app.add_role("source", SourceRole())
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
