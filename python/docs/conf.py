"""How the site is built: ``python -m sphinx -W -n python/docs build/site``.  Nothing is fetched.

Pages are MyST Markdown; the reference comes from the docstrings, the figures from the examples of the package, the
import rules from pyproject.toml.
"""

from __future__ import annotations

import sys
from pathlib import Path

from numpydoc.xref import DEFAULT_LINKS

import contextem

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "contextem"
author = "the contextem developers"
release = version = contextem.__version__
html_title = f"{project} {release}"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.linkcode",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "numpydoc",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
    "ranges",
    "rendered_figures",
    "rules",
    "source_pages",
]
exclude_patterns = ["_build", "extensions", "Thumbs.db", ".DS_Store"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "fieldlist", "substitution"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # files of the tree that are included begin with a title of their own

# Types stand in the docstrings with their shapes and units.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_show_inherited_class_members = False
DEFAULT_LINKS.clear()  # they lead to the pages of other projects, which are not asked for
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"  # but what stands in the aliases
numpydoc_xref_aliases = {
    name: f"contextem.{name}" for name in contextem.__all__ if isinstance(getattr(contextem, name), type)
}

smartquotes = False  # options keep their dashes, strings their quotes

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_static_path = ["_static"]
templates_path = ["_templates"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
highlight_language = "none"  # formulas in docstrings; code says what it is
pygments_style = "friendly"
pygments_dark_style = "monokai"


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Return where the source of a documented object is shown, seen from the pages of the reference."""
    from source_pages import page_of

    return page_of(info["module"], info["fullname"]) if domain == "py" else None
