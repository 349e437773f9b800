"""Fixtures of the whole suite."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import one_node_slurm
import pytest

hypothesis.settings.register_profile(
    "deterministic", derandomize=True, deadline=None, database=None, print_blob=True, max_examples=50
)
hypothesis.settings.register_profile("few", hypothesis.settings.get_profile("deterministic"), max_examples=8)
hypothesis.settings.register_profile(  # of a mutant it matters that a test fails, not on how small an example
    "mutants",
    hypothesis.settings.get_profile("deterministic"),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    max_examples=20,
)
hypothesis.settings.load_profile("deterministic")

HAS_TORCH = importlib.util.find_spec("torch") is not None
NO_TORCH = "no torch for this Python: what needs it is left out"


COMMANDS = ("test_about", "test_batch", "test_jobs", "test_logging", "test_notebooks", "test_slurm", "test_label_page")
"""Beginnings of modules that classify in processes of their own, where nothing tells that torch is missing."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what classifies in other processes where there is no torch."""
    for item in items:
        if not HAS_TORCH and item.path.name.startswith(COMMANDS):
            item.add_marker(pytest.mark.skip(reason=NO_TORCH))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Skip modules that import torch where there is none, so that all the others are tested there."""
    report = yield
    if not HAS_TORCH and report.failed and "No module named 'torch'" in str(report.longrepr):
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: {NO_TORCH}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Skip tests that come to need torch where there is none."""
    report = yield
    error = None if call.excinfo is None else call.excinfo.value
    if not HAS_TORCH and report.failed and isinstance(error, ModuleNotFoundError) and error.name == "torch":
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, f"Skipped: {NO_TORCH}")
    return report


@pytest.fixture(params=["cpp", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    """Run a test once per backend that works on NumPy arrays."""
    return str(request.param)


@pytest.fixture
def run_under() -> Callable[[str, str], subprocess.CompletedProcess[str]]:
    """Return a function that runs a Python program under an instruction set, by name, in a process of its own."""

    def run(simd: str, program: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "CONTEXTEM_SIMD": simd}
        return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def experimental_data() -> Path:
    """Folder of the labelled micrographs; the test is skipped where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "experimental"
    folder = Path(os.environ.get("CONTEXTEM_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no labelled micrographs: set CONTEXTEM_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def cuda_arrays():
    """Return a function that moves a NumPy array to a CUDA device; the test is skipped where there is none."""
    from contextem import _kernels

    facts = _kernels.describe()
    if facts["cuda_devices"] == 0:
        pytest.skip(f"no CUDA device: the extension is {facts['cuda']}")
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no array library for CUDA: torch is a CPU build")
    return lambda array: torch.as_tensor(array, device="cuda")


@pytest.fixture(scope="module")
def slurm() -> Iterator[one_node_slurm.Slurm]:
    """Cluster of one node; the test is skipped where CONTEXTEM_SLURM is not 1 or none can be started."""
    if os.environ.get("CONTEXTEM_SLURM") != "1":
        pytest.skip("SLURM is not asked for: set CONTEXTEM_SLURM=1")
    if (reason := one_node_slurm.missing()) is not None:
        pytest.skip(f"no SLURM: {reason}")
    with one_node_slurm.one_node() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of HyperSpy's test files; those in archives unpacked beside."""
    folder = os.environ.get("CONTEXTEM_FORMATS")
    if folder is None:
        pytest.skip("CONTEXTEM_FORMATS does not name a folder with the test files of HyperSpy 1.7")

    def find(name: str) -> Path:
        archive, _, member = name.partition("!")
        if not member:
            return Path(folder) / name
        target = tmp_path_factory.getbasetemp() / "real"
        with zipfile.ZipFile(Path(folder) / archive) as file:
            return Path(file.extract(member, target))

    return find
