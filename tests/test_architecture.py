"""The rules the tree follows: who imports whom, types, style, and a light import."""

import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def run(*command):
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("-c", "from importlinter.cli import lint_imports_command as c; c()"), id="imports"),
        pytest.param(("-m", "ruff", "check", "python", "tests", "benchmarks"), id="style"),
        pytest.param(("-m", "mypy"), id="types"),
    ],
)
def test_rule_holds(command):
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_kernels_are_formatted():
    import clang_format

    sources = [
        str(path)
        for folder in ("benchmarks", "cpp", "cuda", "python/bindings")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".cpp", ".hpp", ".cu", ".cuh"}
    ]
    assert len(sources) > 50
    tool = Path(clang_format.__file__).parent / "data/bin/clang-format"
    done = subprocess.run(
        [tool, "--dry-run", "-Werror", *sources], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_import_loads_nothing_heavy():
    heavy = ("torch", "matplotlib", "dask", "scipy", "rsciio", "abtem", "ase", "h5py")
    done = run("-c", f"import sys, contextem; print([m for m in {heavy!r} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_loads_and_is_documented():
    import contextem

    for name in contextem.__all__:
        assert getattr(contextem, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = contextem.nonsense


def modules():
    import contextem

    return [
        module.name for module in pkgutil.walk_packages(contextem.__path__, "contextem.") if "._c" not in module.name
    ]


@pytest.mark.parametrize("name", modules())
def test_examples_in_the_docstrings_run(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, extraglobs={"np": np})
    assert failed == 0
