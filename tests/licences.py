"""The licences of what the package needs, as the table in docs/security.md: `python tests/licences.py` prints it."""

from __future__ import annotations

import tomllib
from importlib.metadata import metadata
from pathlib import Path

from packaging.requirements import Requirement

from contextem.about import NO_USER_EXTRAS

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"

STATED = {"cupy-cuda12x": "MIT", "cupy-cuda13x": "MIT", "libertem": "MIT"}
"""Of packages that are not installed with the tests, as their authors state them."""

SHORT = 60  # characters; a longer field has the text of the licence


def licence(package: str) -> str:
    """Return the licence that a package says it has."""
    if package.lower() in STATED:
        return STATED[package.lower()]
    told = metadata(package)
    named = (told.get("License-Expression"), told.get("License"))
    classified = [each.split(" :: ")[-1] for each in told.get_all("Classifier") or () if each.startswith("License ::")]
    short = [each for each in (*named, *classified) if each and "\n" not in each and len(each) <= SHORT]
    return short[0] if short else " ".join((named[0] or "").split()) or "see its metadata"


def packages() -> dict[str, str]:
    """Return what each direct dependency is for: "always", or the names of extras."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    groups = {"always": project["dependencies"]} | {name: extras[name] for name in extras if name not in NO_USER_EXTRAS}
    needed: dict[str, list[str]] = {}
    for group, requirements in groups.items():
        for name in dict.fromkeys(Requirement(each).name.lower() for each in requirements):
            if name != "contextem" and "always" not in needed.get(name, ()):
                needed.setdefault(name, []).append(group)
    return {name: ", ".join(of) for name, of in needed.items()}


def table() -> str:
    """Return the table in Markdown."""
    rows = [(name, needed, licence(name)) for name, needed in packages().items()]
    lines = [
        f"| {name} | {needed} | {'**' + said + '**' if is_copyleft(said) else said} |" for name, needed, said in rows
    ]
    return "\n".join(["| package | needed for | licence |", "| --- | --- | --- |", *lines])


def is_copyleft(said: str) -> bool:
    """Whether what is distributed together with a package has to be free, too: the GPL and its kin."""
    return "GPL" in said or "GNU" in said


if __name__ == "__main__":
    print(table())
