"""Batches on a SLURM cluster: a real one of one node that lives as long as these tests."""

import contextlib
import csv
import os
import socket
import sys
import time
from functools import partial
from importlib.resources import files
from pathlib import Path

import pytest
import tifffile
from one_node_slurm import one_node

from contextem.examples import demo_micrograph

pytestmark = pytest.mark.slurm
JOBS = files("contextem") / "examples" / "jobs"


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
        space = Path(f"/proc/{cluster.first}/ns/pid").readlink()
        assert len(processes_in(space)) >= 5
        if error is not None:
            raise ZeroDivisionError
    assert processes_in(space) == [] and not cluster.folder.exists()


@pytest.fixture
def commands(tmp_path):
    """Return an environment in which `contextem` is this one, whether it is installed or not."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "contextem").write_text(f'#!/bin/sh\nexec {sys.executable} -m contextem.cli "$@"\n')
    (folder / "contextem").chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("name", "more"),
    [("slurm_array.sh", "--workers|2|--memory|6144M|"), ("slurm_gpu.sh", "--device|cuda|--memory|12288M|")],
)
def test_packaged_scripts_are_accepted_and_hand_on_their_arguments(slurm, commands, tmp_path, name, more):
    """The command in the place of contextem writes down what it is given."""
    fake = tmp_path / "bin" / "contextem"
    fake.write_text('#!/bin/sh\nprintf "%s|" "$@" > "$SLURM_ARRAY_TASK_ID.txt"\n')
    job = slurm.sbatch(JOBS / name, "a b.tif", "-o", "out", array="1-2", env=commands, cwd=tmp_path)
    assert {task: state.name for task, state in slurm.wait(job).items()} == {1: "COMPLETED", 2: "COMPLETED"}
    for task in (1, 2):
        assert (tmp_path / f"{task}.txt").read_text() == f"batch|a b.tif|-o|out|{more}"
        assert (tmp_path / f"contextem-{job}_{task}.log").read_text() == ""


@pytest.fixture
def fields(tmp_path):
    """Return seven crops of the packaged micrograph as files, and the options that say what they show."""
    image = demo_micrograph().micrograph
    paths = [tmp_path / f"field{i}.tif" for i in range(7)]
    for i, path in enumerate(paths):
        tifffile.imwrite(path, image.data[10 * i : 10 * i + 200, :200])
    (tmp_path / "context.yaml").write_text(
        f"host: WSe2\ndopants: [Cr]\nenergy_kev: 80\ndetector: HAADF\nsampling: {image.sampling}\n"
    )
    return [*map(str, paths), "--context", str(tmp_path / "context.yaml"), "-o", str(tmp_path / "out")]


def columns_found(folder):
    """Return the number of columns of each micrograph, by its name, after comparing it with the tables."""
    with (folder / "micrographs.csv").open(newline="") as file:
        found = {row["micrograph"]: int(row["columns"]) for row in csv.DictReader(file)}
    dataset = pytest.importorskip("pyarrow.dataset")
    assert dataset.dataset(folder / "columns").count_rows() == sum(found.values())
    return found


def test_batch_array_goes_on_after_a_task_was_killed_and_is_merged(slurm, commands, fields, tmp_path):
    """Task 2 of three is killed at first; the merge says so, and the same two submissions again complete it."""
    program = tmp_path / "bin" / "contextem"
    whole = program.read_text()
    program.write_text(whole.replace("exec", '[ "$SLURM_ARRAY_TASK_ID" != 2 ] || kill -KILL $$\nexec', 1))
    given = {"env": commands, "cwd": tmp_path}

    def submit(log):
        one = ("--cpus-per-task=1",)
        array = slurm.sbatch(JOBS / "slurm_array.sh", *fields, options=one, array="1-3", **given)
        options = (f"--dependency=afterany:{array}", f"--output={log}")
        merge = slurm.sbatch("#!/bin/sh\ncontextem batch merge out", options=options, **given)
        merged = slurm.wait(merge, 180)[0]
        states = slurm.states(array)
        assert states[1].name == states[3].name == "COMPLETED", (tmp_path / f"contextem-{array}_1.log").read_text()
        return states[2], merged, (tmp_path / log).read_text()

    state, merged, said = submit("merge1.log")
    assert (state.name, state.signal) == ("FAILED", 9)
    assert (merged.name, merged.exit_code) == ("FAILED", 1)
    assert said.startswith("5 micrographs") and "parts not done yet: 2" in said
    assert set(columns_found(tmp_path / "out")) == {f"field{i}.tif" for i in (0, 2, 3, 5, 6)}

    program.write_text(whole)
    state, merged, said = submit("merge2.log")
    assert state.name == merged.name == "COMPLETED", said
    assert said.startswith("7 micrographs")
    found = columns_found(tmp_path / "out")
    assert set(found) == {f"field{i}.tif" for i in range(7)} and min(found.values()) > 100


def test_batch_is_done_by_dask_workers_that_slurm_starts(slurm, fields, tmp_path):
    """The packaged example, which dask-jobqueue submits jobs for; they end with it."""
    pytest.importorskip("dask_jobqueue")
    environment = {"DASK_JOBQUEUE__SLURM__INTERFACE": "lo"}
    said = slurm.run(sys.executable, JOBS / "dask_slurm.py", *fields, env=environment, cwd=tmp_path)
    assert "7 of 7 parts done" in said
    assert len(columns_found(tmp_path / "out")) == 7
    jobs = {log.stem.rpartition("-")[2] for log in (tmp_path / "contextem-logs").glob("dask-worker-*")}
    assert jobs
    for job in jobs:
        assert slurm.wait(int(job))[0].name in ("CANCELLED", "COMPLETED")


def processes_in(space):
    """Return the processes of a namespace."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns" / "pid").readlink() == space:
                found.append(process.name)
        except OSError:  # has ended, or is a zombie
            continue
    return found
