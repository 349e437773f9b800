"""``{import-rules}``: who may import whom, as pyproject.toml has it and the tests enforce it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


class ImportRules(SphinxDirective):
    """The contracts of import-linter in words."""

    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Return a section of text for each contract."""
        import tomllib

        self.env.note_dependency(str(PROJECT))
        rules = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
        return [node for rule in rules for node in self.parse_text_to_nodes(_in_words(rule))]


def _in_words(rule: dict[str, Any]) -> str:
    title = f"**{rule['name'][0].upper()}{rule['name'][1:]}.**"
    if rule["type"] == "layers":
        inside = f" (in `{rule['containers'][0]}`)" if "containers" in rule else ""
        rows = "\n".join(f"1. {_names(layer.split('|'))}" for layer in rule["layers"])
        return f"{title} Each may import those below it{inside}, and none above or beside it:\n\n{rows}\n"
    direct = "import themselves" if rule.get("allow_indirect_imports") else "import, themselves or through others,"
    return f"{title} These may not {direct} {_names(rule['forbidden_modules'])}: {_names(rule['source_modules'])}.\n"


def _names(modules: list[str]) -> str:
    return ", ".join(f"`{module.strip().removeprefix('contextem.')}`" for module in modules)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("import-rules", ImportRules)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
