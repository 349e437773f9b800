"""The kernels under the address and undefined-behaviour sanitizers: the C++ tests, then those of Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import contextem

ROOT = Path(__file__).resolve().parents[1]
KERNEL_TESTS = [f"tests/test_{name}.py" for name in ("moments", "patches", "dense", "zernike", "adjoint", "peaks")]
FOREIGN = "torch or motif_learn or mahotas"
"""Tests that load other compiled packages, which are not built for the sanitizers."""


@pytest.fixture(scope="module")
def runtimes() -> str:
    """Libraries to preload, so that a Python that was not built for the sanitizers can load what was."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None or shutil.which("cmake") is None:
        pytest.skip("no C++ compiler or no cmake on PATH")
    # libstdc++ too: the sanitizers look up what throws exceptions when they are loaded
    names = ("libasan.so", "libubsan.so", "libstdc++.so")
    found = [
        subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in names
    ]
    probe = [sys.executable, "-c", "pass"]
    environment = {**os.environ, "LD_PRELOAD": ":".join(found), "ASAN_OPTIONS": "detect_leaks=0"}
    run = subprocess.run(probe, env=environment, capture_output=True, text=True)
    if not all(Path(path).is_absolute() for path in found) or run.returncode != 0 or run.stderr:
        pytest.skip(f"{compiler} has no sanitizer runtime that Python can preload")
    return ":".join(found)


def run(command: list[str], **more: str) -> str:
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **more}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_kernels_under_the_sanitizers(runtimes, tmp_path):
    pybind11 = pytest.importorskip("pybind11", reason="pybind11 is not installed: no extension can be built")
    build, package = tmp_path / "build", tmp_path / "contextem"
    options = {
        "CONTEXTEM_PYTHON": "ON",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "SKBUILD_PROJECT_VERSION": contextem.__version__,
    }
    run(["cmake", "--preset", "sanitize", "-B", str(build), *(f"-D{key}={value}" for key, value in options.items())])
    run(["cmake", "--build", str(build), "--parallel", "2"])
    assert "100% tests passed" in run(["ctest", "--test-dir", str(build), "--output-on-failure"])

    # the package as it is, but for _core
    package.mkdir()
    for file in Path(contextem.__file__).parent.iterdir():
        if not file.name.startswith(("_core.", "__pycache__")) or file.suffix == ".pyi":
            (package / file.name).symlink_to(file)
    [core] = (build / "python").glob("_core*.so")
    assert b"__asan_init" in core.read_bytes()
    (package / core.name).symlink_to(core)
    pytest_options = ["-q", "-s", "-p", "no:cacheprovider", "--hypothesis-profile", "few", "-k", f"not ({FOREIGN})"]
    finished = run(
        [sys.executable, "-m", "pytest", *pytest_options, *KERNEL_TESTS],
        LD_PRELOAD=runtimes,
        ASAN_OPTIONS="detect_leaks=0:halt_on_error=1",
        UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1",
        PYTHONMALLOC="malloc",
        PYTHONPATH=str(tmp_path),
        PYTHONDONTWRITEBYTECODE="1",
        OMP_NUM_THREADS="1",
    )
    assert " passed" in finished
