"""Files of the tree as pages of the site, so that a formula can point to the code that computes it.

``{source}`cpp/include/contextem/moments.hpp``` links to the page of a file; ``{implemented} moments.py moments.hpp
test_moments.py`` makes a line of such links, of names that are looked for in `FOLDERS`.  A file that is not there is
an error.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from docutils import nodes
from jinja2 import Template
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import CppLexer, PythonLexer, TextLexer
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import ReferenceRole, SphinxDirective

ROOT = Path(__file__).resolve().parents[3]
LEXERS = {".py": PythonLexer, ".cpp": CppLexer, ".hpp": CppLexer, ".cu": CppLexer, ".cuh": CppLexer}

FOLDERS = ("python/contextem", "cpp/include/contextem", "cpp/src", "cuda/src", "tests", "")

_shown: set[str] = set()


class SourceRole(ReferenceRole):
    """A link to the page of a file of the tree."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the link."""
        if not (ROOT / self.target).is_file():
            message = self.inliner.reporter.error(f"source: no file {self.target} in the tree", line=self.lineno)
            return [], [message]
        return [_link(self.env, self.target, self.title if self.has_explicit_title else self.target)], []


class Implemented(SphinxDirective):
    """A line of links to the files that implement and test what stands above it."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return the line."""
        line = nodes.paragraph(classes=["implemented"])
        for name in self.arguments[0].split():
            path = next(
                (f"{folder}/{name}".lstrip("/") for folder in FOLDERS if (ROOT / folder / name).is_file()), None
            )
            if path is None:
                raise self.error(f"implemented: no file {name} in the tree")
            line += [nodes.Text(" · ")] if line.children else []
            line += _link(self.env, path, name)
        return [line]


def _link(env: BuildEnvironment, path: str, text: str) -> nodes.reference:
    _shown.add(path)
    up = "../" * env.docname.count("/")
    link = nodes.reference("", "", internal=True, refuri=f"{up}sources/{path}.html")
    link += nodes.literal(text, text)
    return link


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


def write_pages(app: Sphinx, exception: Exception | None) -> None:
    """Write the page of every file that something points to; it has no navigation, which takes longer than the rest."""
    if exception is not None or app.builder.format != "html":
        return
    formatter = HtmlFormatter(linenos="inline", lineanchors="line", anchorlinenos=True)
    template = Template((Path(app.srcdir) / "_templates/source.html").read_text(encoding="utf-8"))
    for path in sorted(_shown):
        lexer = LEXERS.get(Path(path).suffix, TextLexer)()
        body = highlight((ROOT / path).read_text(encoding="utf-8"), lexer, formatter)
        page = Path(app.outdir) / f"sources/{path}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (path.count("/") + 1)
        page.write_text(template.render(path=path, body=body, up=up, title=app.config.html_title), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the role, the directive and the pages."""
    app.add_role("source", SourceRole())
    app.add_directive("implemented", Implemented)
    app.connect("build-finished", write_pages)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
