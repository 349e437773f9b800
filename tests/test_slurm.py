"""Batches on a SLURM cluster: a real one of one node that lives as long as these tests."""

import contextlib
import os
import socket
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from one_node_slurm import one_node

pytestmark = pytest.mark.slurm
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def test_array_tasks_know_their_place_and_their_exit_codes_are_seen(slurm, tmp_path):
    script = """#!/bin/sh
    echo "$SLURM_ARRAY_TASK_ID $SLURM_ARRAY_TASK_MIN $SLURM_ARRAY_TASK_COUNT $SLURM_ARRAY_TASK_STEP $1 $WORD" > \
        "$SLURM_ARRAY_TASK_ID.txt"
    [ "$SLURM_ARRAY_TASK_ID" -ne 4 ] || exit 7
    """
    job = slurm.sbatch(script, "argument", array="2-6:2", env={"WORD": "word"}, cwd=tmp_path)
    states = slurm.wait(job)
    assert {task: (state.name, state.exit_code, state.signal) for task, state in states.items()} == {
        2: ("COMPLETED", 0, 0),
        4: ("FAILED", 7, 0),
        6: ("COMPLETED", 0, 0),
    }
    for task in (2, 4, 6):
        assert (tmp_path / f"{task}.txt").read_text().split() == [str(task), "2", "3", "2", "argument", "word"]


def test_cancelled_killed_and_requeued_tasks_are_seen_as_such(slurm, tmp_path):
    """Task 1 sleeps until it is cancelled, task 2 kills itself, task 3 ends at once when it is started again."""
    script = """#!/bin/sh
    touch "started.$SLURM_ARRAY_TASK_ID"
    case "$SLURM_ARRAY_TASK_ID.${SLURM_RESTART_COUNT:-0}" in
      1.*|3.0) exec sleep 300 ;;
      2.*) kill -KILL $$ ;;
    esac
    """
    job = slurm.sbatch(script, options=("--requeue",), array="1-3", cwd=tmp_path)
    started = [tmp_path / f"started.{task}" for task in (1, 2, 3)]
    end = time.monotonic() + 30
    while not all(file.exists() for file in started):
        assert time.monotonic() < end, slurm.states(job)
        time.sleep(0.1)
    slurm.run("scontrol", "requeue", f"{job}_3")
    slurm.run("scancel", f"{job}_1")
    states = slurm.wait(job)
    assert states[1].name == "CANCELLED" and states[1].restarts == 0
    assert (states[2].name, states[2].signal) == ("FAILED", 9)
    assert (states[3].name, states[3].exit_code, states[3].restarts) == ("COMPLETED", 0, 1)


def test_job_that_depends_on_an_array_runs_after_it_whatever_became_of_it(slurm, tmp_path):
    array = slurm.sbatch("#!/bin/sh\nsleep 0.5; echo task >> log; exit $SLURM_ARRAY_TASK_ID", array="0-1", cwd=tmp_path)
    after = slurm.sbatch("#!/bin/sh\necho after >> log", options=(f"--dependency=afterany:{array}",), cwd=tmp_path)
    assert slurm.wait(after)[0].name == "COMPLETED"
    assert (tmp_path / "log").read_text().split() == ["task", "task", "after"]
    assert [slurm.states(array)[task].name for task in (0, 1)] == ["COMPLETED", "FAILED"]


def test_daemons_listen_on_loopback_alone(slurm):
    devices = Path(f"/proc/{slurm.first}/net/dev").read_text().splitlines()[2:]
    assert [device.split(":")[0].strip() for device in devices] == ["lo"]
    listening = Path(f"/proc/{slurm.first}/net/tcp").read_text()
    for port in (6817, 6818):
        assert f":{port:04X} 00000000:0000 0A" in listening
        with socket.socket() as outside:
            assert outside.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("ends", [contextlib.nullcontext, partial(pytest.raises, ZeroDivisionError)])
def test_nothing_is_left_of_a_cluster(slurm, ends):
    """Neither daemons nor jobs, of one that ends or fails; `slurm` is asked for its skips."""
    with ends() as error, one_node() as cluster:
        cluster.wait(cluster.sbatch("#!/bin/sh\nsetsid sleep 300 & sleep 300"), until={"RUNNING"})
        space = os.readlink(f"/proc/{cluster.first}/ns/pid")
        assert len(processes_in(space)) >= 5
        if error is not None:
            raise ZeroDivisionError
    assert processes_in(space) == [] and not cluster.folder.exists()


def processes_in(space):
    """Return the processes of a namespace."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "ns" / "pid") == space:
                found.append(process.name)
        except OSError:  # has ended, or is a zombie
            continue
    return found
