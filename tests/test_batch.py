"""Batches: the same to the bit whoever does them, in whatever shares, and however often they were stopped."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from batches import contextem, digests, write_campaign
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import contextem as ctm
from contextem.batch.lock import Occupied, is_alone, locked
from contextem.batch.plan import Shard, named
from contextem.batch.store import Store
from contextem.cli import main

parquet = pytest.importorskip("pyarrow.parquet")


def run(*arguments):
    return CliRunner().invoke(main, ["batch", *map(str, arguments)])


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return write_campaign(tmp_path_factory.mktemp("campaign") / "data")


@pytest.fixture(scope="module")
def done(campaign, tmp_path_factory):
    """Output of an undisturbed run with one thread."""
    output = tmp_path_factory.mktemp("done") / "out"
    result = run(campaign, "-o", output, "--workers", 1)
    assert result.exit_code == 1, result.output  # there are failures
    return output


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# What comes out


def test_each_input_has_a_table_and_all_of_them_are_one(done):
    names = ["field 0.tif", "field 1.tif", "field 2.tif", "series.npy"]
    assert sorted(path.name for path in (done / "columns").iterdir()) == [f"{name}.parquet" for name in names]
    table = parquet.read_table(done / "columns")
    assert len(table) == sum(int(row["columns"]) for row in rows_of(done / "micrographs.csv"))
    series = parquet.read_table(done / "columns" / "series.npy.parquet")
    assert sorted(set(series["frame"].to_pylist())) == [0, 1, 3]


def test_columns_are_those_of_classify(campaign, done):
    context = ctm.Context("WSe2", ("Cr",), energy=80e3, detector="HAADF")
    expected = ctm.classify(ctm.read(campaign / "field 1.tif"), context)
    table = parquet.read_table(done / "columns" / "field 1.tif.parquet")
    np.testing.assert_array_equal(table["row"].to_numpy(), expected.positions[:, 0])
    np.testing.assert_allclose(table["probability"].to_numpy(), expected.probabilities.max(axis=1), atol=1e-6)
    assert set(table["micrograph"].to_pylist()) == {"field 1.tif"}
    assert table["frame"].null_count == len(table)
    (row,) = (row for row in rows_of(done / "micrographs.csv") if row["micrograph"] == "field 1.tif")
    assert {name: int(row[name]) for name in expected.counts} == expected.counts
    told = expected.summary()["dopant_fraction"]
    assert float(row["dopant_fraction"]) == pytest.approx(told["value"], rel=1e-4)
    assert float(row["dopant_fraction_high"]) == pytest.approx(told["interval_95"][1], rel=1e-4)


def test_failures_are_listed_with_their_reasons_and_stop_nothing(done):
    reasons = {row["micrograph"]: row["reason"] for row in rows_of(done / "failures.csv")}
    assert set(reasons) == {"damaged.tif", "series.npy[2]"}
    assert "damaged" in reasons["damaged.tif"] and "expected an image with contrast" in reasons["series.npy[2]"]
    summary = json.loads((done / "summary.json").read_text())
    assert (summary["micrographs"], summary["failures"], summary["not_done"]) == (6, 2, 0)


def test_log_has_a_line_a_part(done):
    lines = [json.loads(line) for line in (done / "log" / "shard-1-of-1.jsonl").read_text().splitlines()]
    assert [line["part"] for line in lines] == [
        "damaged.tif", "field 0.tif", "field 1.tif", "field 2.tif", "series.npy"
    ]  # fmt: skip
    for line in lines[1:]:
        assert line["device"] == "cpu" and line["columns_per_second"] > 0 and line["peak_memory_bytes"] > 1e8
        assert {"read", "columns", "moments", "classifier", "table"} <= set(line["stages"])


def test_average_of_a_series_is_one_micrograph(campaign, tmp_path):
    shutil.copy(campaign / "contextem.yaml", tmp_path)
    np.save(tmp_path / "series.npy", np.load(campaign / "series.npy")[:2])
    result = run(tmp_path / "series.npy", "-o", tmp_path / "out", "--series", "average", "--sampling", 0.2)
    assert result.exit_code == 0, result.output
    (row,) = rows_of(tmp_path / "out" / "micrographs.csv")
    assert row["micrograph"] == "series.npy" and row["frame"] == ""


def test_long_series_is_cut_into_stretches_with_the_same_columns(campaign, done, tmp_path, monkeypatch):
    monkeypatch.setattr("contextem.batch.plan.SPLIT", -(-(campaign / "series.npy").stat().st_size // 2))
    result = run(campaign / "series.npy", "-o", tmp_path / "out")
    assert result.exit_code == 1, result.output
    stretches = sorted((tmp_path / "out" / "columns" / "series.npy.parquet").iterdir())
    assert [path.name for path in stretches] == ["frames-000000.parquet", "frames-000002.parquet"]
    cut, whole = (
        parquet.read_table(path / "columns" / "series.npy.parquet").sort_by([("frame", "ascending")])
        for path in (tmp_path / "out", done)
    )
    assert cut.drop_columns("micrograph").equals(whole.drop_columns("micrograph"))
    assert cut["micrograph"].to_pylist() == whole["micrograph"].to_pylist()


def test_series_that_is_cut_otherwise_is_done_again_when_that_is_said(campaign, done, tmp_path, monkeypatch):
    output = tmp_path / "out"
    shutil.copytree(done, output)
    monkeypatch.setattr("contextem.batch.plan.SPLIT", -(-(campaign / "series.npy").stat().st_size // 2))
    refused = run(campaign, "-o", output)
    assert refused.exit_code == 2 and "holds results of series.npy that were made" in refused.output
    assert digests(output) == digests(done)
    assert run(campaign, "-o", output, "--overwrite").exit_code == 1
    assert (output / "columns" / "series.npy.parquet").is_dir()
    monkeypatch.undo()
    assert run(campaign, "-o", output, "--overwrite").exit_code == 1
    assert digests(output) == digests(done)


# The same whoever does it


@pytest.mark.parametrize("workers", [2, 4])
def test_threads_come_to_the_same(campaign, done, tmp_path, workers):
    assert run(campaign, "-o", tmp_path / "out", "--workers", workers).exit_code == 1
    assert digests(tmp_path / "out") == digests(done)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_shards_come_to_the_same(campaign, done, tmp_path, count):
    output = tmp_path / "out"
    for number in range(count, 0, -1):
        result = run(campaign, "-o", output, "--shard", f"{number}/{count}", "--workers", 1)
        assert result.exit_code in (0, 1), result.output
    merged = run("merge", output)
    assert merged.exit_code == 1 and "6 micrographs" in merged.output
    assert digests(output) == digests(done)


def test_shards_that_are_not_done_are_told_by_merge(campaign, tmp_path):
    assert run(campaign, "-o", tmp_path / "out", "--shard", "1/3").exit_code == 1
    merged = run("merge", tmp_path / "out")
    assert merged.exit_code == 1 and "parts not done yet: 3" in merged.output
    reasons = [row["reason"] for row in rows_of(tmp_path / "out" / "failures.csv")]
    assert sum("not done yet" in reason for reason in reasons) == 3


@given(st.integers(0, 50), st.integers(1, 9))
def test_shards_share_out_every_part_once(parts, count):
    shares = [Shard(number, count).of(range(parts)) for number in range(1, count + 1)]
    assert sorted(part for share in shares for part in share) == list(range(parts))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_impossible_shards_are_refused(campaign, tmp_path, text):
    result = run(campaign, "-o", tmp_path / "out", "--shard", text)
    assert result.exit_code == 2 and "--shard: expected i/n" in result.output
    assert not (tmp_path / "out").exists()


def test_tasks_of_an_array_know_their_shard():
    def task(number, first, last, step, count):
        names = ("ID", "MIN", "MAX", "STEP", "COUNT")
        values = (number, first, last, step, count)
        return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in zip(names, values, strict=True)}

    assert Shard.of_slurm({}) is None
    assert [Shard.of_slurm(task(k, 0, 2, 1, 3)) for k in range(3)] == [Shard(k, 3) for k in (1, 2, 3)]
    assert [Shard.of_slurm(task(k, 10, 30, 10, 3)) for k in (10, 20, 30)] == [Shard(k, 3) for k in (1, 2, 3)]
    with pytest.raises(ValueError, match="expected an array of regular tasks such as 1-3, got 3 of 1 to 7"):
        Shard.of_slurm(task(2, 1, 7, 1, 3))


def test_processes_come_to_the_same_also_when_one_is_killed(campaign, done, tmp_path):
    """A dask worker is killed while it works: another one does its part."""
    pytest.importorskip("distributed")
    output = tmp_path / "out"
    command = [sys.executable, "-m", "contextem.cli", "batch", campaign, "-o", output, "--processes", "--workers", "2"]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as batch:
        _kill_a_worker(batch.pid, output)
        told, _ = batch.communicate(timeout=120)
    assert batch.returncode == 1, told
    assert digests(output) == digests(done)


def _kill_a_worker(parent, output):
    """Kill the busier worker when the first part is done and others are being worked on; return its number."""
    psutil = pytest.importorskip("psutil")
    end = time.monotonic() + 60
    while not list((output / ".batch" / "records").glob("*.json")):
        assert time.monotonic() < end
        time.sleep(0.005)
    workers = [
        each for each in psutil.Process(parent).children(recursive=True) if "spawn_main" in " ".join(each.cmdline())
    ]
    busiest = max(workers, key=lambda each: each.cpu_times().user)
    busiest.kill()
    return busiest.pid


def test_scheduler_of_a_cluster_that_runs_already(campaign, done, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        result = contextem("batch", campaign, "-o", tmp_path / "out", "--scheduler", cluster.scheduler_address)
    assert result.returncode == 1, result.stderr
    assert digests(tmp_path / "out") == digests(done)


# However often it is stopped


def test_what_is_finished_is_not_done_again(campaign, done, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(done, output)
    before = {path: path.stat().st_mtime_ns for path in (output / "columns").rglob("*.parquet")}
    result = run(campaign, "-o", output)
    assert "0 of 5 parts done" in result.output and "5 were finished before" in result.output
    assert {path: path.stat().st_mtime_ns for path in (output / "columns").rglob("*.parquet")} == before


@pytest.mark.parametrize("after", [0.0, 0.1, 0.2, 0.35, 0.6, 1.0])
def test_killed_run_goes_on_and_comes_to_the_same(campaign, done, tmp_path, after):
    output = tmp_path / "out"
    command = [sys.executable, "-m", "contextem.cli", "batch", str(campaign), "-o", str(output), "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as batch:
        end = time.monotonic() + 60
        while not (output / ".batch" / "plan.json").exists() and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(after)
        batch.kill()
    finished = list((output / ".batch" / "records").rglob("*.json"))
    for record in finished:  # whatever is there is whole
        assert json.loads(record.read_text())["schema"] == 1
    assert run(campaign, "-o", output).exit_code == 1
    assert digests(output) == digests(done)
    assert not [path for path in output.rglob(".*") if path.is_file() and path.suffix != ".lock"]


def test_table_that_was_lost_or_cut_is_made_again(campaign, done, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(done, output)
    (output / "columns" / "field 0.tif.parquet").unlink()
    (output / "columns" / "field 1.tif.parquet").write_bytes(b"PAR1")
    result = run(campaign, "-o", output)
    assert "2 of 5 parts done" in result.output
    assert digests(output) == digests(done)


def test_files_that_came_later_are_added(campaign, done, tmp_path):
    output = tmp_path / "out"
    assert run(campaign / "field 0.tif", campaign / "series.npy", "-o", output).exit_code == 1
    result = run(campaign, "-o", output)
    assert "3 of 5 parts done" in result.output
    assert digests(output) == digests(done)


def test_damaged_file_that_is_replaced_is_done(campaign, tmp_path):
    data, output = tmp_path / "data", tmp_path / "out"
    shutil.copytree(campaign, data)
    assert run(data, "-o", output).exit_code == 1
    shutil.copy(campaign / "field 0.tif", data / "damaged.tif")
    result = run(data, "-o", output)
    assert "1 of 5 parts done" in result.output
    assert [row["micrograph"] for row in rows_of(output / "failures.csv")] == ["series.npy[2]"]


def test_results_with_other_settings_are_replaced_only_when_that_is_said(campaign, done, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(done, output)
    before = digests(output)
    refused = run(campaign, "-o", output, "--energy-kev", 60)
    assert refused.exit_code == 2 and "field 0.tif and of 3 more" in refused.output and "--overwrite" in refused.output
    assert digests(output) == before
    assert run(campaign, "-o", output, "--energy-kev", 60, "--overwrite").exit_code == 1
    assert {row["energy_kev"] for row in rows_of(output / "micrographs.csv")} == {"60"}


# When something is in the way


def test_second_run_on_the_same_output_is_refused_with_the_name_of_the_first(campaign, tmp_path):
    locks = Store(tmp_path / "out").locks
    holder = (
        "import sys; from pathlib import Path; from contextem.batch.lock import locked\n"
        "with locked(Path(sys.argv[1]), None): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holder, str(locks)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        refused = run(campaign, "-o", tmp_path / "out")
        assert refused.exit_code == 2
        assert f"is being worked on by process {first.pid} of " in refused.output
        assert os.uname().nodename in refused.output
        first.kill()  # what was killed holds nothing any more
        first.wait()
        assert run(campaign / "field 0.tif", "-o", tmp_path / "out").exit_code == 0


def test_shares_of_one_division_work_side_by_side_and_no_others(tmp_path):
    with locked(tmp_path, Shard(1, 3)):
        assert is_alone(tmp_path, Shard(1, 3))
        with locked(tmp_path, Shard(2, 3)):
            assert not is_alone(tmp_path, Shard(1, 3))
        for other in (Shard(1, 3), Shard(1, 2), Shard(1, 1), None):
            with pytest.raises(Occupied, match=r"process \d+ of .* \(shard 1 of 3\)"), locked(tmp_path, other):
                pass
    with locked(tmp_path, None):
        assert is_alone(tmp_path, None)


def test_full_disk_ends_with_a_sentence_and_goes_on_when_there_is_room(campaign, done, tmp_path):
    """`ulimit -f` lets no file grow beyond 8 KiB, less than a table has."""
    output = tmp_path / "out"
    command = f'ulimit -f 8; exec "{sys.executable}" -m contextem.cli batch "{campaign}" -o "{output}" --workers 1'
    uncounted = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")
    }  # its file is larger
    full = subprocess.run(["bash", "-c", command], env=uncounted, capture_output=True, text=True)
    assert full.returncode == 2, full.stderr
    assert "cannot take any more (file too large)" in full.stderr and "run the same command again" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list((output / "columns").glob("*.parquet"))
    assert run(campaign, "-o", output).exit_code == 1
    assert digests(output) == digests(done)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_small_file_system_that_fills_up(campaign, done, tmp_path):
    output = tmp_path / "small"
    output.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", output], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        full = contextem("batch", campaign, "-o", output, "--workers", "1")
        assert full.returncode == 2 and "no space left on device" in full.stderr, full.stderr
        assert not list(output.rglob(".*.parquet"))
        subprocess.run(["mount", "-o", "remount,size=64m", output], check=True)
        assert run(campaign, "-o", output).exit_code == 1
        assert digests(output) == digests(done)
    finally:
        subprocess.run(["umount", output], check=True)


def test_what_is_missing_is_told_before_anything_is_done(campaign, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(campaign / "field 0.tif", data)
    refused = run(data, "-o", tmp_path / "out")
    assert refused.exit_code == 2 and "host: expected the formula" in refused.output
    refused = run(tmp_path / "nowhere", "-o", tmp_path / "out", "--host", "WSe2")
    assert refused.exit_code == 1 and "there is no file" in refused.output
    assert run(data, "-o", tmp_path / "new", "--memory", "12").exit_code == 2
    assert not (tmp_path / "new").exists()


def test_extra_that_is_missing_is_named(campaign, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused = run(campaign, "-o", tmp_path / "out")
    assert refused.exit_code == 2 and not (tmp_path / "out").exists()
    assert "pyarrow: is not installed, it comes with pip install 'contextem[batch]'" in refused.output


def test_names_tell_files_apart():
    paths = ["/a/x/f.tif", "/b/x/f.tif", "/b/g.tif"]
    assert named(paths, set()) == {"/a/x/f.tif": "a/x/f.tif", "/b/x/f.tif": "b/x/f.tif", "/b/g.tif": "g.tif"}
    assert named(["/c/g.tif"], {"g.tif"}) == {"/c/g.tif": "c/g.tif"}


@given(st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=4), unique_by=tuple, max_size=12))
def test_names_are_different_and_end_their_paths(folders):
    paths = ["/" + "/".join(parts) for parts in folders]
    names = named(paths, set())
    assert len(set(names.values())) == len(paths)
    assert all(path.endswith(f"/{name}") for path, name in names.items())
