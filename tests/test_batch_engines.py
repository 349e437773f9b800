"""Who does the parts: what an engine yields where workers fail, and what memory they wait for."""

import csv
import errno
import json
import re
import threading
from pathlib import Path

import pytest
from batches import contextem, digests, write_campaign
from click.testing import CliRunner

from contextem._bounds import _group_limits
from contextem.batch import engines, part
from contextem.batch.engines import Threads, card_cluster
from contextem.batch.memory import Budget, default_memory, held_memory, peak_memory
from contextem.batch.part import Work
from contextem.batch.plan import Options, make_parts, model_digest
from contextem.batch.run import run
from contextem.batch.store import NoRoom
from contextem.cli import main
from contextem.model import packaged_model
from contextem.sidecar import settings_of

pytest.importorskip("pyarrow")
GIB = 1 << 30


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return write_campaign(tmp_path_factory.mktemp("campaign") / "data")


@pytest.fixture
def parts(campaign):
    files = sorted(path for path in campaign.iterdir() if path.suffix != ".yaml")
    return make_parts({file: settings_of(file) for file in files}, {}, "frames")


def work_in(folder, **told):
    options = Options(str(packaged_model()), model_digest(packaged_model()))
    return Work(**{"output": str(folder), "options": options, "device": None, "memory": 4 * GIB, "threads": 1, **told})


def test_worker_that_fails_leaves_its_part_undone(parts, tmp_path, monkeypatch):
    def broken(each, work):
        if each.name == "field 1.tif":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return part.do_part(each, work)

    monkeypatch.setattr(engines, "do_part", broken)
    work = work_in(tmp_path)
    first = run(parts, work, Threads(2))
    (failure,) = (each for each in first.failures if each["name"] == "field 1.tif")
    assert failure["reason"].startswith("RuntimeError: CUDA error") and failure["final"] is False
    monkeypatch.undo()
    second = run(parts, work, Threads(2))
    assert (second.parts, second.skipped) == (5, 4)
    assert "field 1.tif" not in {each["name"] for each in second.failures}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_stops_the_others(parts, tmp_path, monkeypatch, code):
    begun = []

    def full(path):
        begun.append(path)
        raise OSError(code, "as the system says")

    monkeypatch.setattr(part, "_table", full)
    with pytest.raises(NoRoom, match=r"^output: .* cannot take any more"):
        run(parts, work_in(tmp_path), Threads(1))
    assert len(begun) < len(parts)


@pytest.fixture(scope="module")
def by_threads(campaign, tmp_path_factory):
    """Output of threads of this process."""
    output = tmp_path_factory.mktemp("threads") / "out"
    assert CliRunner().invoke(main, ["batch", str(campaign), "-o", str(output)]).exit_code == 1
    return output


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_processes_comes_to_the_same(parts, by_threads, tmp_path, workers):
    pytest.importorskip("distributed")
    with engines.local_cluster(workers, 1, 8 * GIB) as engine:
        assert len(engine.client.scheduler_info(n_workers=-1)["workers"]) == workers
        run(parts, work_in(tmp_path), engine)
    assert digests(tmp_path, merged=False) == digests(by_threads, merged=False)


def test_processes_do_not_print_what_stands_in_the_summaries(campaign, tmp_path):
    """The context of the whole campaign is wrong."""
    pytest.importorskip("distributed")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "field.tif").symlink_to(campaign / "field 0.tif")
    given = ["--host", "WSe2", "--energy-kev", "80", "--detector", "ADF", "--no-estimate-angles"]
    command = ["batch", tmp_path / "data", "-o", tmp_path / "out", *given]
    done = contextem(*command, "--processes", "--workers", "1")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "micrographs.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert "check" in row["warnings"]
    assert "Warning" not in done.stderr, done.stderr


def test_a_process_for_each_card_comes_to_the_same(parts, by_threads, tmp_path):
    """The processes are those of cards, the device that they compute on is the CPU."""
    pytest.importorskip("distributed")
    with card_cluster(["0", "1"], 4 * GIB) as cards:
        workers = cards.client.scheduler_info(n_workers=-1)["workers"].values()
        assert sorted(each["resources"]["GPU"] for each in workers) == [1.0, 1.0]
        seen = cards.client.run(lambda: __import__("os").environ["CUDA_VISIBLE_DEVICES"])
        assert sorted(seen.values()) == ["0", "1"]
        assert all(address.startswith("tcp://127.0.0.1:") for address in seen)
        run(parts, work_in(tmp_path / "cards", device="cpu"), cards)
    assert digests(tmp_path / "cards", merged=False) == digests(by_threads, merged=False)
    lines = (tmp_path / "cards" / "log" / "shard-1-of-1.jsonl").read_text().splitlines()
    assert {json.loads(line)["device"] for line in lines} == {"cpu"}


def test_workers_without_cards_are_refused(parts, tmp_path):
    pytest.importorskip("distributed")
    with (
        engines.local_cluster(1, 1, 2 * GIB) as engine,
        pytest.raises(ValueError, match="expected workers that have a"),
    ):
        run(parts, work_in(tmp_path, device="cuda"), engine)


def test_cards_that_are_not_there_are_told(campaign, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    result = CliRunner().invoke(main, ["batch", str(campaign), "-o", str(tmp_path), "--device", "cuda:all"])
    assert result.exit_code == 2 and "--device: expected cards for cuda:all, torch sees none" in result.output


# Memory


def test_what_needs_too_much_memory_fails_and_is_done_when_more_is_allowed(parts, tmp_path):
    little = run(parts, work_in(tmp_path, memory=held_memory() + (8 << 20)), Threads(1))
    reasons = {each["name"]: each["reason"] for each in little.failures}
    assert re.match(r"MemoryError: memory: field 0\.tif takes about 6\d MiB, beside", reasons["field 0.tif"])
    assert "allow more with --memory" in reasons["field 0.tif"]
    enough = run(parts, work_in(tmp_path), Threads(1))
    assert {each["name"] for each in enough.failures} == {"damaged.tif", "series.npy[2]"}


def test_memory_is_waited_for():
    budget, order = Budget(held_memory() + 100 * GIB), []
    inside, go_on = threading.Event(), threading.Event()

    def first():
        with budget.reserved(80 * GIB, "first"):
            order.append("first in")
            inside.set()
            go_on.wait(10)
            order.append("first out")

    def second():
        inside.wait(10)
        with budget.reserved(40 * GIB, "second"):
            order.append("second in")

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first in", "first out", "second in"]


def test_memory_comes_back_where_the_block_fails():
    budget = Budget(held_memory() + GIB)
    before = budget.left
    with pytest.raises(KeyError), budget.reserved(GIB // 2, "field.dm4"):
        raise KeyError
    assert budget.left == before


def test_half_of_the_memory_is_the_default():
    (total,) = (line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    assert 0 < default_memory() <= (int(total) << 10) // 2
    assert 0 < held_memory() <= peak_memory()


def test_limits_of_control_groups_are_those_of_all_groups_above(tmp_path):
    root, told = tmp_path / "cgroup", tmp_path / "told"
    (root / "slurm" / "job_7").mkdir(parents=True)
    (root / "slurm" / "memory.max").write_text("4000000000\n")
    (root / "slurm" / "job_7" / "memory.max").write_text("max\n")
    told.write_text("0::/slurm/job_7\n")
    assert list(_group_limits(root, told)) == [4000000000]
    (root / "memory" / "job").mkdir(parents=True)
    (root / "memory" / "job" / "memory.limit_in_bytes").write_text("1000\n")
    told.write_text("3:cpu:/job\n2:memory,pids:/job\n")
    assert list(_group_limits(root, told)) == [1000]
    assert list(_group_limits(root, tmp_path / "nothing")) == []


@pytest.mark.parametrize(
    ("text", "size"),
    [("8G", 8 * GIB), ("512M", GIB // 2), ("1.5 GiB", 3 * GIB // 2), ("2gb", 2 * GIB), ("1T", 1024 * GIB)],
)
def test_sizes_are_read_with_their_units(text, size):
    from contextem.batch.commands import _bytes

    assert _bytes(text) == size


@pytest.mark.parametrize("text", ["", "8X", "-1G", "1.2.3G", "100M", "lots"])
def test_what_is_no_size_is_refused(text):
    from contextem.batch.commands import _bytes

    with pytest.raises(ValueError, match=r"^--memory: expected a size of at least 256M, such as 8G, got"):
        _bytes(text)
