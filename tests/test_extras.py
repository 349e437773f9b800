"""Packages that come with an extra: wherever one is imported, the error where it is missing names that extra."""

from __future__ import annotations

import ast
import itertools
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import contextem

PACKAGE = Path(contextem.__file__).parent
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
NOT_INSTALLED = {"cupy": "cupy-cuda13x", "libertem": "libertem"}
"""Packages of extras that the tests do without, and who brings them."""
DISTRIBUTIONS = packages_distributions()
INSTALLED = {canonicalize_name(name) for found in DISTRIBUTIONS.values() for name in found}


def brought(extra: str | None) -> list[Requirement]:
    """Return what the package, or one of its extras, asks for; with what extras within it ask for."""
    found = []
    for requirement in map(Requirement, PROJECT["dependencies"] if extra is None else EXTRAS[extra]):
        found += (
            itertools.chain(*map(brought, requirement.extras)) if requirement.name == "contextem" else [requirement]
        )
    return found


def names(requirements: Iterable[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def with_theirs(requirement: Requirement) -> set[str]:
    """Return a distribution and those that it asks for itself, where it is installed."""
    found = names([requirement])
    if found & INSTALLED:
        extras = ({"extra": extra} for extra in ("", *requirement.extras))
        theirs = [(each.marker, each) for each in map(Requirement, requires(requirement.name) or [])]
        for extra in extras:
            found |= names(each for marker, each in theirs if marker is None or marker.evaluate(extra))
    return found


def distributions_of(module: str) -> set[str]:
    top = module.partition(".")[0]
    return {canonicalize_name(name) for name in DISTRIBUTIONS.get(top, (NOT_INSTALLED.get(top, top),))}


def extra_named_by(node: ast.With) -> str | None:
    """Return what `with needs_extra("...")` says."""
    for item in node.items:
        call = item.context_expr
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "needs_extra":
            (argument,) = call.args
            return ast.literal_eval(argument) if isinstance(argument, ast.Constant) else ast.unparse(argument)
    return None


def imports(node: ast.AST, extra: str | None = None) -> Iterator[tuple[str, int, str | None]]:
    """Yield what is imported when the program runs: module, line, and the extra that is named if that fails."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno, extra) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield str(child.module), child.lineno, extra
        elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith("import_module"):
            constants = (argument.value for argument in child.args[:1] if isinstance(argument, ast.Constant))
            yield from ((str(name), child.lineno, extra) for name in constants)
        yield from imports(child, (extra_named_by(child) or extra) if isinstance(child, ast.With) else extra)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_of_optional_packages_name_the_extra(path):
    required = names(brought(None)) | {"h5py"}  # h5py by rosettasciio[hdf5]
    for module, line, extra in imports(ast.parse(path.read_text(encoding="utf-8"))):
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top == "contextem" or distributions_of(module) & required:
            continue
        assert extra is not None, f"{path}:{line}: {module} is imported without needs_extra"
        assert distributions_of(module) & set().union(*map(with_theirs, brought(extra))), (
            f"{path}:{line}: {module} is not in [{extra}]"
        )


def test_the_judge_sees_imports_and_extras():
    program = """
import numpy
if TYPE_CHECKING:
    import ase
def f():
    with suppress(ValueError), needs_extra("batch"):
        import zarr.codecs
    from abtem.core import energy
    importlib.import_module("libertem.api")
"""
    assert list(imports(ast.parse(program))) == [
        ("numpy", 2, None),
        ("zarr.codecs", 7, "batch"),
        ("abtem.core", 8, None),
        ("libertem.api", 9, None),
    ]
    assert names(brought("jobqueue")) >= {"dask-jobqueue", "zarr", "pyarrow"}
    assert with_theirs(Requirement("dask[distributed]")) >= {"distributed", "cloudpickle"}
    assert "distributed" not in with_theirs(Requirement("dask"))
