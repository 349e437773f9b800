"""The most likely mistakes, as `python/docs/errors.md` shows them: what it says is said is what is said."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import contextem as ctm
from contextem.cli import main
from contextem.simulate.dataset import simulate_micrograph

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "python/docs/errors.md").read_text(encoding="utf-8")
SHELL = re.findall(r"^\$ contextem (.+)\n((?:Error|Warning): .+)$", PAGE, re.MULTILINE)
PYTHON = re.findall(r"^>>> (.+)\n(\w+Error: .+)$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A field of WSe2, a vacuum, a series, a scan, and results of the field."""
    folder = tmp_path_factory.mktemp("mistakes")
    rng = np.random.default_rng(0)
    field = simulate_micrograph("WSe2", "Ti", 80e3, "HAADF", 5, size=30.0, sampling=0.2, dose=5000.0).micrograph.data
    np.save(folder / "field.npy", field)
    np.save(folder / "vacuum.npy", rng.poisson(100, (256, 256)).astype(np.float32))
    np.save(folder / "series.npy", np.stack([field] * 3))
    np.save(folder / "scan.npy", rng.poisson(3, (32, 32, 16, 16)).astype(np.uint16))
    said = "--host WSe2 --sampling 0.2 --energy-kev 80 --detector HAADF".split()
    done = CliRunner().invoke(
        main, ["classify", str(folder / "field.npy"), *said, "-o", str(folder / "results")], catch_exceptions=False
    )
    assert done.exit_code == 0
    return folder


def test_the_page_has_the_ten_most_likely_and_each_has_its_section():
    rows = re.findall(r"^\| (\d+) \| \[(.+)\]\(#(.+)\) \| (error|warning) \|$", PAGE, re.MULTILINE)
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 10
    titles = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles] == [row[2] for row in rows]
    assert len(SHELL) + len(PYTHON) == PAGE.count("$ contextem") + PAGE.count(">>> ")


@pytest.mark.filterwarnings("default:context")
@pytest.mark.parametrize(("command", "sentence"), SHELL, ids=[sentence[:40] for _, sentence in SHELL])
def test_what_the_shell_says(command, sentence, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["contextem"])
    if "is not installed" in sentence:
        monkeypatch.setitem(sys.modules, sentence.split(":")[1].strip(), None)
        monkeypatch.delitem(sys.modules, "contextem.labels.server", raising=False)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    done = CliRunner().invoke(main, shlex.split(command))
    assert sentence in done.stderr.splitlines()
    if sentence.startswith("Error"):
        assert done.exit_code == 2
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    else:
        assert done.exit_code == 0


@pytest.mark.parametrize(("code", "sentence"), PYTHON, ids=[sentence[:40] for _, sentence in PYTHON])
def test_what_python_says(code, sentence):
    names = {
        "ctm": ctm,
        "basis": ctm.ZernikeBasis(10, 32),
        "image": np.zeros((64, 64), np.float32),
        "positions": np.zeros((3, 2)) + 32,
        "patches": np.zeros((3, 32, 32), np.float32),
        "context": ctm.Context("WSe2"),
    }
    kind, message = sentence.split(": ", 1)
    with pytest.raises(Exception, match=f"^{re.escape(message)}$") as raised:
        eval(code, names)
    assert type(raised.value).__name__ == kind


def test_what_cmake_says_of_missing_headers():
    said = (ROOT / "python/CMakeLists.txt").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^Python\.h: .+$", PAGE, re.MULTILINE)
    text = "".join(re.findall(r'"([^"]*)"', said[said.index("Python.h") - 1 : said.index("endif")]))
    assert text.replace("${Python_EXECUTABLE}", ".venv/bin/python") == shown
