"""The versions that pyproject.toml admits are those that are tested: the pinned ones, and the lowest."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import contextem

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOWEST = ROOT / "tests" / "constraints-lowest.txt"
USER_EXTRAS = ("baselines", "simulate", "parquet", "label", "batch", "jobqueue")
"""Extras whose lowest versions are tested; the cards and LiberTEM need what is not everywhere."""
NOT_LOWEST = {"torch"}
"""Of which no lowest version is tested, see docs/compatibility.md."""
SELECTION = (
    *("test_zernike", "test_moments", "test_columns", "test_micrograph", "test_classification", "test_model"),
    *("test_pipeline", "test_results", "test_sidecar", "test_votes"),
)
"""Tests that pass with the lowest versions: every stage, every reader, every file."""


def pinned(path):
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    named = (line.partition("==") for line in lines if line)
    return {canonicalize_name(name): Version(version) for name, _, version in named}


def required(*extras):
    """Requirements without extras, and those of some."""
    told = [*PROJECT["dependencies"], *(each for extra in extras for each in EXTRAS[extra])]
    return [Requirement(each) for each in told if not each.startswith("contextem[")]


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_pinned_versions_are_admitted(extra):
    pins = pinned(ROOT / "constraints.txt")
    missing = {"libertem", "cupy-cuda12x", "cupy-cuda13x"}
    for each in required(*([] if extra is None else [extra])):
        name = canonicalize_name(each.name)
        assert name in pins or name in missing, f"{name} is not in constraints.txt"
        if name in pins:
            assert each.specifier.contains(pins[name], prereleases=True), f"{each} does not admit {pins[name]}"


def test_lowest_versions_are_the_lower_bounds():
    lowest, bounds = pinned(LOWEST), {}
    for each in required(*USER_EXTRAS):
        (bound,) = [Version(clause.version) for clause in each.specifier if clause.operator == ">="]
        assert bounds.setdefault(canonicalize_name(each.name), bound) == bound, f"two bounds of {each.name}"
    assert lowest == {name: bound for name, bound in bounds.items() if name not in NOT_LOWEST}


def test_supported_pythons_are_stated_once():
    stated = [each.rsplit(" ", 1)[1] for each in PROJECT["classifiers"] if "Python :: 3." in each]
    assert PROJECT["requires-python"] == f">={stated[0]}"
    cmake = (ROOT / "python" / "CMakeLists.txt").read_text(encoding="utf-8")
    assert f"find_package(Python {stated[0]} " in cmake
    table = (ROOT / "python" / "docs" / "compatibility.md").read_text(encoding="utf-8")
    for version in stated:
        assert f"| {version} |" in table


@pytest.mark.slow
def test_the_lowest_versions_pass(tmp_path):
    """Two to ten minutes: an environment with the lowest versions, and the torch of this one."""
    from importlib.metadata import version

    python = tmp_path / "lowest" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "lowest"], check=True)
    torch = version("torch").partition("+")[0]
    wanted = [str(each) for each in required(*USER_EXTRAS) if each.name not in NOT_LOWEST]
    install = [python, "-m", "pip", "install", "--quiet", "-c", LOWEST]
    for packages in ([f"torch=={torch}"], [*wanted, "pytest", "hypothesis", "httpx"]):
        done = subprocess.run([*install, *packages], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    environment = {**os.environ, "PYTHONPATH": str(Path(contextem.__file__).parents[1])}
    tests = [ROOT / "tests" / f"{name}.py" for name in SELECTION]
    # old packages are used by new ones in ways that these warn of: nothing of ours
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=", *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
