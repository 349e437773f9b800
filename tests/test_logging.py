"""What is done is logged by loggers of the modules, unheard until somebody listens, and shown by --verbose."""

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from tqdm import tqdm

import contextem as ctm
from contextem._stages import stage, timed_stages
from contextem._verbosity import AboveBars
from contextem.batch.commands import batch
from contextem.cli import main
from contextem.labels.commands import label
from contextem.simulate.dataset import simulate_micrograph

GIVEN = ("--host", "WSe2", "--dopant", "Cr", "--energy-kev", "80", "--detector", "HAADF", "--sampling", "0.2")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    made = simulate_micrograph("WSe2", "Cr", 80e3, "HAADF", 4, sampling=0.2, dose=5000.0, size=30.0)
    path = tmp_path_factory.mktemp("logged") / "field.npy"
    np.save(path, made.micrograph.data)
    return path


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def classify(file, output, *more, before=()):
    return run(*before, "classify", file, *GIVEN, "-o", output, *more)


def leaves(group, path=()):
    for name, command in sorted(group.commands.items()):
        yield from leaves(command, (*path, name)) if hasattr(command, "commands") else [((*path, name), command)]


def test_nothing_is_said_until_it_is_asked_for(file, tmp_path):
    program = f"""
import contextem as ctm
micrograph = ctm.read({str(file)!r}, sampling=0.2, energy=80e3, detector="HAADF")
ctm.classify(micrograph, ctm.Context("WSe2", "Cr"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_stages_are_told_by_the_loggers_of_their_modules(file, caplog):
    with caplog.at_level("INFO", logger="contextem"):
        micrograph = ctm.read(file, sampling=0.2, energy=80e3, detector="HAADF")
        result = ctm.classify(micrograph, ctm.Context("WSe2", "Cr"))
    told = {record.name: record.getMessage() for record in caplog.records}
    assert list(told) == [
        "contextem.micrograph",
        "contextem.model",
        "contextem.columns",
        "contextem.pipeline",
        "contextem.evidence",
    ]
    assert told["contextem.micrograph"] == "field.npy: 150 x 150 px, 0.2 Å/px (user), HAADF"
    assert told["contextem.columns"] == f"{len(result)} columns, grains: 1"
    assert told["contextem.pipeline"].startswith(f"{len(result)} columns in ")
    assert f"{result.counts['X2']} X2" in told["contextem.pipeline"]
    assert {record.levelname for record in caplog.records} == {"INFO"}
    assert len(caplog.records) < 10, "records are of stages, not of columns"


def test_seconds_of_stages_are_told_at_debug_and_gathered_all_the_same(caplog):
    with caplog.at_level("DEBUG", logger="contextem"), timed_stages() as seconds, stage("moments"):
        pass
    assert list(seconds) == ["moments"]
    (record,) = caplog.records
    assert record.name == "contextem.stages"
    assert record.getMessage() == f"moments: {seconds['moments']:.3f} s"
    caplog.clear()
    with caplog.at_level("INFO", logger="contextem"), stage("moments"):
        pass
    assert caplog.records == []


def test_every_command_takes_verbose_once_and_in_front_too():
    commands = dict([*leaves(main), *leaves(batch, ("batch",)), *leaves(label, ("label",))])
    assert len(commands) >= 12
    for path in commands:
        shown = run(*path, "--help").output
        assert shown.count("-v, --verbose") == 1, path
    assert "-v, --verbose" in run("--help").output


def test_verbose_speaks_on_stderr_and_leaves_stdout_as_it_is(file, tmp_path):
    plain = classify(file, tmp_path / "a")
    verbose = classify(file, tmp_path / "b", "-v")
    assert plain.exit_code == verbose.exit_code == 0, verbose.output
    assert verbose.stdout.replace(str(tmp_path / "b"), "") == plain.stdout.replace(str(tmp_path / "a"), "")
    assert plain.stderr == ""
    lines = verbose.stderr.splitlines()
    assert len(lines) == len(set(lines)), "each is said once"
    assert [line.split()[1] for line in lines][:2] == ["contextem.model:", "contextem.micrograph:"]
    one, two = ((tmp_path / name / "field.summary.json").read_text() for name in "ab")
    assert json.loads(one) == json.loads(two)


def test_in_front_and_behind_are_twice_and_tell_the_seconds_too(file, tmp_path):
    done = classify(file, tmp_path, "--verbose", before=("-v",))
    assert done.exit_code == 0, done.output
    assert sum("contextem.stages: columns: 0." in line for line in done.stderr.splitlines()) == 1


def test_a_command_leaves_the_loggers_as_they_were(file, tmp_path):
    logger = logging.getLogger("contextem")
    before = logger.level, list(logger.handlers)
    assert [type(each) for each in before[1]] == [logging.NullHandler]
    assert "contextem.stages: columns: 0." in classify(file, tmp_path, "-vv").stderr
    assert (logger.level, logger.handlers) == before
    assert run("-v", "classify", tmp_path / "none.npy", *GIVEN).exit_code == 2
    assert (logger.level, logger.handlers) == before


def test_a_batch_tells_of_its_parts(file, tmp_path):
    pytest.importorskip("pyarrow")
    done = run("batch", file, *GIVEN, "-o", tmp_path / "out", "--workers", 1, "-v")
    assert done.exit_code == 0, done.output
    told = [line.split(" ", 1)[1] for line in done.stderr.splitlines() if "contextem.batch." in line]
    assert told[0].startswith("contextem.batch.run: 1 of 1 parts to do")
    assert told[1].startswith("contextem.batch.run: field.npy: ")
    assert told[2].startswith("contextem.batch.merge: merged 1 micrograph, ")
    assert run("batch", "merge", "-v", tmp_path / "out").stderr.count("contextem.batch.merge: merged") == 1


def test_records_stand_above_a_progress_bar(capsys):
    handler = AboveBars()
    with tqdm(total=2, file=sys.stderr, desc="classifying", ascii=True) as bar:
        bar.update()
        handler.emit(logging.LogRecord("contextem.columns", 20, "", 0, "%d columns", (3,), None))
    shown = capsys.readouterr().err
    before, after = shown.split("3 columns\n")
    assert before.endswith("\r"), "the bar is cleared first"
    assert "classifying" in after, "and drawn anew below"


def test_a_handler_that_cannot_write_says_so_and_stops_nothing(capsys, monkeypatch):
    handler = AboveBars()
    handler.emit(logging.LogRecord("contextem", 20, "", 0, "%d columns", ("three",), None))
    assert "Logging error" in capsys.readouterr().err
