"""The rules the tree follows: who imports whom, types, style, and a light import."""

import ast
import doctest
import importlib
import inspect
import json
import os
import pkgutil
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def run(*command):
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


def built(name):
    return pytest.importorskip(f"contextem.{name}", reason=f"{name} was not built", exc_type=ImportError)


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


MACHINERY = r"""
contextem\._c\w+\.\w+\.__pybind11_\w+
contextem\._c\w+\.(\w+Table|Points|VirtualDetectors)
"""
"""What pybind11 adds to classes: entries of its own, and a metaclass."""


@pytest.mark.parametrize("name", ["_core", "_cuda"])
def test_stubs_name_what_the_extension_has(name, tmp_path):
    built(name)
    (tmp_path / "allowed").write_text(MACHINERY)
    (tmp_path / "mypy.ini").write_text("[mypy]\nfollow_imports = skip\n")
    options = ("--allowlist", tmp_path / "allowed", "--mypy-config-file", tmp_path / "mypy.ini")
    done = run("-m", "mypy.stubtest", f"contextem.{name}", *options, "--ignore-unused-allowlist")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["_core", "_cuda"])
def test_stubs_have_the_parameters_of_the_extension(name):
    """Names, order and what has a default, by the first line that pybind11 writes into each docstring."""
    extension = built(name)
    stub = ast.parse((ROOT / f"python/contextem/{name}.pyi").read_text())
    found = 0
    for node in stub.body:
        for function in node.body if isinstance(node, ast.ClassDef) else [node]:
            if not isinstance(function, ast.FunctionDef) or function.decorator_list:
                continue
            owner = getattr(extension, node.name) if isinstance(node, ast.ClassDef) else extension
            line = getattr(owner, function.name).__doc__.splitlines()[0]
            told = ast.parse(f"def {line.replace(' | ', ' or ')}: ...").body[0]
            for one in (function.args, told.args):
                one.names = [each.arg for each in one.args]
            assert function.args.names == told.args.names, function.name
            assert list(map(ast.dump, function.args.defaults)) == list(map(ast.dump, told.args.defaults)), function.name
            found += 1
    assert found > 10


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


def findings(source, options, database):
    """Return what clang-tidy finds in a source, and in the headers it reads."""
    import clang_tidy

    tool = Path(clang_tidy.__file__).parent / "data/bin/clang-tidy"
    done = subprocess.run([tool, "--quiet", "-p", database, *options, source], capture_output=True, text=True)
    return done.stdout + (done.stderr if done.returncode and not done.stdout else "")


@pytest.mark.parametrize(
    ("folders", "options"),
    [
        pytest.param(("cpp/src",), ("--checks=-clang-analyzer-*",), id="library"),
        pytest.param(("cpp/src", "cpp/tests", "python/bindings"), (), id="all", marks=pytest.mark.slow),
    ],
)
def test_kernels_are_tidy(folders, options, tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("no cmake on PATH")
    import pybind11

    given = {
        "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
        "CONTEXTEM_CUDA": "OFF",
        "CONTEXTEM_TESTS": "ON",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    configure = ["cmake", "-S", ROOT, "-B", tmp_path, *(f"-D{name}={value}" for name, value in given.items())]
    subprocess.run(configure, capture_output=True, check=True)
    database = tmp_path / "compile_commands.json"
    # of the instruction sets a kernel is compiled for, the last and widest
    commands = {command["file"]: command for command in json.loads(database.read_text())}
    database.write_text(json.dumps(list(commands.values())))
    sources = [file for file in commands if any(Path(file).is_relative_to(ROOT / folder) for folder in folders)]
    assert len(sources) > 20
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [*pool.map(findings, sources, repeat(options), repeat(tmp_path))]
    assert not any(found), "".join(found)


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


DOCUMENTED = {"GL05", "GL06", "GL07", "PR02", "PR05", "PR06", "PR10"}
"""Rules of numpydoc: sections that it knows, in its order, and parameters that there are."""


@pytest.mark.parametrize("name", modules())
def test_docstrings_tell_of_the_parameters_there_are(name):
    """All of them, too, wherever there is a section of parameters, and on public names."""
    from numpydoc.validate import validate

    import contextem

    wrong = []
    for thing, value in public(importlib.import_module(name)):
        found = validate(f"{name}.{thing}")
        doc = inspect.getdoc(value) or ""
        exported = value is getattr(contextem, thing, None) and "Attributes\n---" not in doc
        whole = exported or "Parameters\n---" in doc
        wrong += [
            f"{thing}: {said}" for code, said in found["errors"] if code in DOCUMENTED or (whole and code == "PR01")
        ]
    assert wrong == []


def public(module):
    """Yield names and values of the functions and classes that a module defines, and of their methods."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__ or not callable(value):
            continue
        yield name, value
        for inner, method in vars(value).items() if inspect.isclass(value) else ():
            if not inner.startswith("_") and (inspect.isfunction(method) or isinstance(method, property)):
                yield f"{name}.{inner}", method


@pytest.mark.parametrize("name", modules())
def test_examples_in_the_docstrings_run(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, extraglobs={"np": np})
    assert failed == 0
