"""The packaged job scripts: they parse, and what they call exists."""

import os
import re
import subprocess
from importlib.resources import as_file, files

import pytest

from contextem.batch.commands import batch

FOLDER = files("contextem") / "examples" / "jobs"
SCRIPTS = sorted(script.name for script in FOLDER.iterdir() if script.is_file())
SBATCH = {"--parsable", "--dependency", "--wrap"}
"""Options of sbatch, in the comments."""


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name.endswith(".sh")])
def test_script_parses(name):
    done = subprocess.run(["bash", "-n"], input=(FOLDER / name).read_bytes(), capture_output=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_options_are_those_of_the_command(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if re.search(r"contextem batch|--context|--scheduler", line)]
    used = set(re.findall(r"(?<![\w-])(--[a-z-]+|-o)\b", "\n".join(lines)))
    known = {option for parameter in batch.commands["run"].params for option in parameter.opts}
    assert {"--context", "-o"} <= used - SBATCH <= known


def test_one_node_takes_all_cards_and_hands_on_arguments_and_status(tmp_path):
    (tmp_path / "contextem").write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 3\n')
    (tmp_path / "contextem").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with as_file(FOLDER / "one_node.sh") as script:
        done = subprocess.run(["bash", script, "a b.dm4", "-o", "out"], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("batch|a b.dm4|-o|out|--device|cuda:all|", 3)


def test_dask_asks_slurm_for_the_threads_and_the_time_that_the_script_says(monkeypatch):
    """The script that dask-jobqueue would submit, from the very arguments of the example."""
    jobqueue = pytest.importorskip("dask_jobqueue.slurm")
    asked = {}

    class Cluster:
        scheduler_address = "tcp://192.0.2.7:8786"

        def __init__(self, **settings):
            asked["script"] = jobqueue.SLURMJob(self.scheduler_address, "worker", **settings).job_script()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            asked["closed"] = True

        def adapt(self, **limits):
            asked["limits"] = limits

    def run(command, **_):
        asked["command"] = command[1:]
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(jobqueue, "SLURMCluster", Cluster)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("sys.argv", ["dask_slurm.py", "a.dm4", "-o", "out"])
    space = {"__name__": "example"}
    exec(compile((FOLDER / "dask_slurm.py").read_text(encoding="utf-8"), "dask_slurm.py", "exec"), space)
    assert space["main"]() == 3
    assert asked["closed"] and asked["limits"] == {"minimum_jobs": 1, "maximum_jobs": 8}
    assert asked["command"] == (
        ["-m", "contextem.cli", "batch", "a.dm4", "-o", "out", "--scheduler", Cluster.scheduler_address]
    )
    directives = re.findall(r"^#SBATCH (.*)$", asked["script"], re.MULTILINE)
    assert {"-n 1", "--cpus-per-task=2", "--mem=8G", "-t 04:00:00"} <= set(directives)
    assert "--nthreads 2" in asked["script"] and "export OMP_NUM_THREADS=1" in asked["script"]
