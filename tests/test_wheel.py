"""What pip gets: the source distribution, the wheel built from it alone, and the package installed from the wheel."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator, Sequence
from email.parser import HeaderParser
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import contextem

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = ROOT / "tests" / "installed" / "installed_package.py"
MEGABYTE = 2**20
SYSTEM = {"ld-linux-x86-64", "ld-linux-aarch64", "libc", "libgcc_s", "libm", "libpthread", "libstdc++"}
"""Libraries that an extension may link."""


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Run a command that finds no package in the checkout, and return what it said."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_CORE"))}
    done = subprocess.run(command, cwd=cwd, env={**outside, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source distribution of the checkout."""
    if shutil.which("cmake") is None:
        pytest.skip("no cmake on PATH")
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder, ROOT)
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def source(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution unpacked, outside any repository."""
    folder = tmp_path_factory.mktemp("source")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    assert not any((parent / ".git").exists() for parent in folder.parents)
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel without the CUDA kernels, built from the source distribution without git and without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "bin").mkdir()
    git = folder / "bin" / "git"
    git.write_text(f"#!/bin/sh\ntouch {folder}/asked-git\nexit 1\n")
    git.chmod(0o755)
    alone = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        alone = []  # then proxies that are not there have to do
    nowhere = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "ftp")}
    path = f"{git.parent}{os.pathsep}{os.environ['PATH']}"
    build(source, folder / "dist", "OFF", alone, PATH=path, PIP_NO_INDEX="1", **nowhere)
    assert not (folder / "asked-git").exists()
    (found,) = (folder / "dist").iterdir()
    return found


def build(source: Path, folder: Path, cuda: str, alone: Sequence[str] = (), **environment: str) -> None:
    """Build the wheel with what the environment of the tests has of the build requirements."""
    options = ["--wheel", "--no-isolation", f"-Ccmake.define.CONTEXTEM_CUDA={cuda}", "--outdir", str(folder)]
    run(*alone, sys.executable, "-m", "build", *options, source, **environment)


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"contextem-{contextem.__version__}.dist-info/METADATA").decode()
    return HeaderParser().parsestr(text)


def test_the_sdist_holds_what_git_would_track(sdist, tmp_path):
    """And no more: git's own reading of .gitignore is the judge, also where there is no repository."""
    if shutil.which("git") is None:
        pytest.skip("no git on PATH")
    run("git", "init", "--quiet", "--bare", tmp_path / "empty")
    git = ("git", f"--git-dir={tmp_path / 'empty'}", f"--work-tree={ROOT}")
    listed = run(*git, "ls-files", "-z", "--others", "--exclude-standard")
    tracked = {name for name in listed.strip("\0").split("\0") if not name.startswith(".ci/")}
    assert {"pyproject.toml", "CMakeLists.txt", "cuda/src/moments.cu", "tests/test_wheel.py", "LICENSE"} <= tracked
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert all(member.isreg() for member in members)
    top = f"contextem-{contextem.__version__}/"
    assert {member.name.removeprefix(top) for member in members} == {*tracked, "PKG-INFO"}


def test_the_wheel_holds_the_package_and_nothing_else(wheel, source):
    tree = source / "python"
    package = {str(path.relative_to(tree)) for path in (tree / "contextem").rglob("*") if path.is_file()}
    (core,) = (name for name in names(wheel) if name.endswith(".so"))
    assert re.fullmatch(r"contextem/_core\.[\w.-]+\.so", core)
    about = f"contextem-{contextem.__version__}.dist-info/"
    assert {name for name in names(wheel) if not name.startswith(about)} == package | {core}
    assert {f"{about}licenses/LICENSE", f"{about}licenses/python/bindings/THIRD_PARTY.md"} <= names(wheel)
    for needed in (
        "py.typed",
        "_core.pyi",
        "_cuda.pyi",
        "data/responses.npz",
        "data/model/model.safetensors",
        "data/model/without_context/model.json",
        "examples/demo.tif",
        "examples/jobs/slurm_array.sh",
        "examples/notebooks/4_classify.ipynb",
        "labels/static/index.html",
        "templates/report.html",
    ):
        assert f"contextem/{needed}" in names(wheel)


def test_what_the_wheel_says_of_itself(wheel):
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert wheel.name == f"contextem-{contextem.__version__}-{tag}-{tag}-linux_{platform.machine()}.whl"
    told = metadata(wheel)
    assert (told["Version"], told["License-Expression"]) == (contextem.__version__, "MIT")
    assert told["Requires-Python"] == ">=3.11"
    classifiers = told.get_all("Classifier")
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in range(11, 15)} <= set(classifiers)


def test_the_wheel_is_small(wheel):
    # the CUDA kernels add 3 MB to what may be 25 MB in all
    assert wheel.stat().st_size < 12 * MEGABYTE


def audited(wheel: Path) -> str:
    """Return the policy of a wheel after a look at the libraries that it takes from the system."""
    told = " ".join(run(sys.executable, "-m", "auditwheel", "show", wheel).split())
    linked = set(re.findall(r"([\w+-]+)\.so[.\d]* with versions", told))
    assert {"libc", "libstdc++"} <= linked <= SYSTEM
    found = re.search(r'is consistent with the following platform tag: "(\w+)"', told)
    assert found is not None, told
    return found[1]


def test_auditwheel_finds_a_manylinux_policy(wheel):
    assert re.fullmatch(rf"manylinux_2_\d+_{platform.machine()}", audited(wheel))


def requirements(found: Sequence[str], extras: set[str]) -> Iterator[Requirement]:
    for requirement in map(Requirement, found):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": each}) for each in {"", *extras}):
            yield requirement


def required(found: Sequence[str], extras: set[str]) -> dict[str, Distribution]:
    """Return what is installed of all that some requirements need, and theirs in turn, by name."""
    result: dict[str, Distribution] = {}
    left = list(requirements(found, extras))
    done = set()
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        if (name, *sorted(requirement.extras)) in done:
            continue
        done.add((name, *sorted(requirement.extras)))
        result[name] = distribution(name)
        left += requirements(result[name].requires or [], requirement.extras)
    return result


def link(installed: Distribution, site: Path) -> None:
    """Let every file of a distribution be found in another environment."""
    assert installed.files is not None, f"{installed.name} was not installed by pip"
    for file in installed.files:
        origin = Path(str(installed.locate_file(file)))
        if ".." not in file.parts and origin.exists():  # programs lie above
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(origin)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with the wheel and what it requires: no other file of this one can be imported.

    What is required comes from here instead of an index, which takes a second instead of half a minute.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for installed in required(metadata(wheel).get_all("Requires-Dist"), set()).values():
        link(installed, site)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel)
    run(sys.executable, "-m", "pip", "--python", python, "check")
    return python


def test_the_installed_package_passes_its_tests(environment, tmp_path):
    told = run(environment, "-P", INSTALLED, cwd=tmp_path)
    assert told.splitlines()[-1] == "OK", told  # with none skipped: no extra is there


@pytest.mark.slow
def test_and_where_pip_chose_what_it_requires(wheel, tmp_path):
    venv.create(tmp_path / "environment", symlinks=True, with_pip=True)
    python = tmp_path / "environment" / "bin" / "python"
    run(python, "-m", "pip", "install", "--constraint", ROOT / "constraints.txt", wheel)
    assert run(python, "-P", INSTALLED, cwd=tmp_path).splitlines()[-1] == "OK"


@pytest.mark.slow
def test_the_wheel_with_cuda_kernels(source, environment, tmp_path):
    """For all architectures of a release: small, links neither the CUDA runtime nor torch, imports without a driver."""
    if shutil.which("nvcc") is None:
        pytest.skip("not on PATH: nvcc")
    build(source, tmp_path, "ON")
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        kernels = sum(file.compress_size for file in archive.infolist() if "/_cuda." in file.filename)
    print(f"\n{wheel.stat().st_size / MEGABYTE:.1f} MB, {kernels / MEGABYTE:.1f} MB of them CUDA; {audited(wheel)}")
    assert 0 < kernels < wheel.stat().st_size < 25 * MEGABYTE
    run(sys.executable, "-m", "pip", "--python", environment, "install", "--no-index", "--no-deps", "--force", wheel)
    assert run(environment, "-P", INSTALLED, cwd=tmp_path, CONTEXTEM_CUDA="ON").splitlines()[-1] == "OK"


def test_a_release_has_these_wheels():
    told = [
        run(
            sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", "linux", "--archs", machine
        )
        for machine in ("x86_64", "aarch64")
    ]
    versions = [f"cp3{minor}" for minor in range(11, 15)]
    assert [text.split() for text in told] == [
        [f"{each}-manylinux_{machine}" for each in versions] for machine in ("x86_64", "aarch64")
    ]
