"""benchmarks/gpu_check.py as far as it goes without a device: checks on the C++ kernels, table, JSON and status."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import contextem as ctm
from contextem import _kernels

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks/gpu_check.py"


@pytest.fixture(scope="module")
def gpu_check():
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu_check"]


def test_a_dry_run_checks_every_section(gpu_check, tmp_path, capsys):
    pytest.importorskip("torch")
    assert gpu_check.main(["--dry-run", "--json", str(tmp_path / "numbers.json")]) == 0
    report = json.loads((tmp_path / "numbers.json").read_text())
    lines = report["lines"]
    assert {line["section"] for line in lines} == {
        "copy",
        "patch_moments",
        "column_moments",
        "extract_patches",
        "virtual_detectors",
        "sum_patterns",
        "peaks",
        "pipeline",
    }
    assert all(line["right"] and line["value"] > 0 for line in lines)
    assert {line["bar"] for line in lines if line["case"].startswith(("integer positions", "bilinear"))} == {1.5, 80}
    assert report["device"] == "CPU, dry run" and report["build"] == _kernels.describe()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(lines) + 3 and printed[2].startswith("section")


@pytest.mark.parametrize("broken", ["patch_moments", "column_moments", "extract_patches"])
def test_a_wrong_result_is_found(gpu_check, monkeypatch, broken):
    right = getattr(ctm, broken)

    def wrong(*arguments, backend=None, **options):
        result = right(*arguments, backend=backend, **options)
        if backend is None:  # the last one alone is off
            result[-1] += 1e-4
        return result

    monkeypatch.setattr(ctm, broken, wrong)
    lines = gpu_check.Checks(gpu_check.Host(), gpu_check.TINY)
    section = list(getattr(lines, broken)())
    assert not any(line.right for line in section)
    assert gpu_check.exit_status(section) == gpu_check.exit_status(section, bars=False) == 1
    assert "WRONG" in gpu_check.table(section)


@pytest.mark.parametrize("wrong", ["position", "number"])
def test_a_wrong_peak_is_found(gpu_check, monkeypatch, wrong):
    right = gpu_check.response_maxima

    def found(*arguments, **options):
        positions, heights, count = right(*arguments, **options)
        positions[-1] += 1e-9
        return (positions, heights, count) if wrong == "position" else (positions[:-1], heights[:-1], count)

    monkeypatch.setattr(gpu_check, "response_maxima", found)
    section = list(gpu_check.Checks(gpu_check.Host(), gpu_check.TINY).peaks())
    assert len(section) == 3 and not any(line.right for line in section)


def test_a_wrong_posterior_is_found_and_one_way_to_reach_the_bar_is_enough(gpu_check, monkeypatch):
    host = gpu_check.Host()
    section = list(gpu_check.Checks(host, gpu_check.TINY).pipeline())
    assert all(line.right for line in section)
    assert [line.bar for line in section if line.value == max(each.value for each in section)] == [10.0]
    assert [line.bar for line in section].count(None) == 1
    classifier = host.classifier

    def wrong(*arguments):
        posterior = classifier(*arguments)
        return lambda image: posterior(image)[:, ::-1]

    monkeypatch.setattr(host, "classifier", wrong)
    assert not any(line.right for line in gpu_check.Checks(host, gpu_check.TINY).pipeline())


def test_a_section_that_fails_stops_no_other(gpu_check, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu_check, "virtual_detectors", lambda *_: 1 / 0)
    assert gpu_check.main(["--dry-run", "--json", str(tmp_path / "numbers.json")]) == 1
    lines = json.loads((tmp_path / "numbers.json").read_text())["lines"]
    (failed,) = [line for line in lines if not line["right"]]
    assert failed["case"] == "failed: ZeroDivisionError" and failed["value"] is None
    assert "ZeroDivisionError: division by zero" in capsys.readouterr().err


def test_bars_and_bounds_decide_the_status(gpu_check):
    line = gpu_check.Line
    good = line("a", "b", 90.0, "%", 1.0, 16.0, 85.0)
    missed = line("a", "b", 80.0, "%", 1.0, 16.0, 85.0)
    assert gpu_check.exit_status([good]) == 0
    assert gpu_check.exit_status([good, missed]) == 3
    assert gpu_check.exit_status([good, missed], bars=False) == 0
    for wrong in (17.0, float("nan")):
        assert gpu_check.exit_status([missed, line("a", "b", 90.0, "%", wrong, 16.0, 85.0)]) == 1
    text = gpu_check.table([good, missed])
    assert text.splitlines()[1].split()[-4:] == ["met", "1", "of", "16"]
    assert "missed" in text.splitlines()[2]


def test_without_a_device_it_says_so(gpu_check, capsys, tmp_path):
    if _kernels.describe()["cuda_devices"] > 0:
        pytest.skip("this machine has a CUDA device")
    assert gpu_check.main(["--json", str(tmp_path / "numbers.json")]) == 2
    assert "no CUDA device" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_errors_are_counted_in_rounding_errors(gpu_check):
    basis = ctm.ZernikeBasis(2, 9)
    unit = np.finfo(np.float32).eps * abs(basis.weights).sum(axis=1)
    found = np.zeros((3, 6), np.float32)
    assert gpu_check.moment_error(found, found + 5 * 2.0 * unit, basis, 2.0) == pytest.approx(5, rel=1e-5)
    found[1, 2] = np.nan
    assert np.isnan(gpu_check.moment_error(found, np.zeros((3, 6)), basis, 2.0))
    assert gpu_check.some(1_000_000)[-1] == 999_999 and len(gpu_check.some(7)) == 7
