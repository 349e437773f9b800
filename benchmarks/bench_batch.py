"""Sixty-four micrographs of 1024 x 1024 px, half a million columns, by `contextem batch` from files to merged tables.

Beside it atomap on a quarter of one of them: its column finding and the refinement by two-dimensional Gaussians alone.
It runs in a process of its own, by the interpreter that CONTEXTEM_ATOMAP names, or else by this one; where that has no
atomap, our own figures are printed alone.  Times are by the clock on the wall, the start of our processes included.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
from roofline import warn_of_blas_settings

from contextem.batch.engines import local_cluster
from contextem.batch.memory import default_memory
from contextem.batch.part import Work
from contextem.batch.plan import Options, make_parts, model_digest
from contextem.context import Context
from contextem.model import packaged_model
from contextem.sidecar import read_settings
from contextem.simulate.dataset import simulate_micrograph

COUNT, SIDE, SAMPLING = 64, 1024, 0.19
RATE, ADVANTAGE, SCALING = 25_000, 20, 1.7
"""The bars on two cores: columns a second, times atomap, and times one dask worker that two are."""
ATOMAP = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
import hyperspy.api as hs
from atomap.api import Sublattice, get_atom_positions
image, separation = np.load(sys.argv[1]), int(sys.argv[2])
start = time.perf_counter()
positions = get_atom_positions(hs.signals.Signal2D(image), separation=separation)
found = time.perf_counter()
sublattice = Sublattice(positions, image=image)
sublattice.find_nearest_neighbors()
sublattice.refine_atom_positions_using_2d_gaussian(show_progressbar=False)
end = time.perf_counter()
positions = sublattice.atom_positions.tolist()
print(json.dumps({"finding": found - start, "refinement": end - found, "positions": positions}))
"""


class Batch(NamedTuple):
    """Files to classify, and what is true of them."""

    files: list[Path]
    context: Path
    columns: int
    """In all of them together."""
    first: np.ndarray
    """Positions in the first, px."""
    host: Context


def render(folder: Path) -> Batch:
    """Write the micrographs as TIFF, each with another lattice, dose, defects and drift, and what is said of them."""
    files, positions = [], []
    for seed in range(COUNT):
        simulated = simulate_micrograph(
            "WSe2", "Cr", 80e3, "HAADF", seed, size=SIDE * SAMPLING, sampling=SAMPLING, dose=5000.0
        )
        files.append(folder / f"field{seed:02}.tif")
        tifffile.imwrite(files[-1], simulated.micrograph.data)
        positions.append(simulated.columns.positions)
    assert len({each.tobytes() for each in positions}) == COUNT
    context = folder / "context.yaml"
    context.write_text(f"host: WSe2\ndopants: [Cr]\nenergy_kev: 80\ndetector: HAADF\nsampling: {SAMPLING}\n")
    return Batch(files, context, sum(map(len, positions)), positions[0], simulated.context)


@pytest.fixture(scope="module")
def batch(tmp_path_factory) -> Batch:
    warn_of_blas_settings()
    return render(tmp_path_factory.mktemp("micrographs"))


def atomap_seconds(batch: Batch, folder: Path) -> float | None:
    """Return what atomap needs for a column, s, after checking that what it finds are columns."""
    python = os.environ.get("CONTEXTEM_ATOMAP", sys.executable)
    if subprocess.run([python, "-c", "import atomap"], capture_output=True, check=False).returncode:
        print(f"{python} has no atomap: pip install 'contextem[bench]'")
        return None
    from scipy.spatial import cKDTree

    image = tifffile.imread(batch.files[0])[: SIDE // 2, : SIDE // 2]
    np.save(folder / "image.npy", image)
    bond = batch.host.lattice_constant / SAMPLING / np.sqrt(3)
    separation = str(round(bond / 2))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-c", ATOMAP, folder / "image.npy", separation]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    said = json.loads(done.stdout)
    positions = np.array(said["positions"])[:, ::-1]
    gap, _ = cKDTree(batch.first).query(positions)
    assert len(positions) > 0.6 * (batch.first < SIDE // 2).all(axis=1).sum()
    assert np.mean(gap < 0.3 * bond) > 0.9
    each = {name: said[name] / len(positions) for name in ("finding", "refinement")}
    print(
        f"atomap: {len(positions)} columns in {' x '.join(map(str, image.shape))} px, a column "
        f"{1e6 * each['finding']:.0f} us to find and {1e3 * each['refinement']:.2f} ms to refine"
    )
    return sum(each.values())


def test_batch_of_half_a_million_columns(batch, tmp_path, capsys):
    command = [sys.executable, "-m", "contextem.cli", "batch", *batch.files]
    start, before = time.perf_counter(), children_seconds()
    subprocess.run([*command, "--context", batch.context, "-o", tmp_path / "out"], check=True, capture_output=True)
    seconds, busy = time.perf_counter() - start, children_seconds() - before
    found = columns_of(tmp_path / "out")
    assert found == pytest.approx(batch.columns, rel=0.01)
    rate = found / seconds
    with capsys.disabled():
        print(f"\n{found} columns of {COUNT} micrographs in {seconds:.1f} s: {rate:,.0f} columns/s (bar {RATE:,})")
        print(f"{busy:.1f} s of computing time: {busy / seconds:.2f} cores were to be had")
        rival = atomap_seconds(batch, tmp_path)
        if rival is not None:
            print(f"{rate * rival:.0f} times atomap (bar {ADVANTAGE})")
            assert rate * rival >= ADVANTAGE


def children_seconds() -> float:
    """Return the computing time of all processes that this one has started and seen end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_two_dask_workers_against_one(batch, tmp_path, capsys):
    """Workers of one thread each, that run already and have done one part."""
    pytest.importorskip("distributed")
    said = read_settings(batch.context)
    parts = make_parts(dict.fromkeys(batch.files, said), {}, "frames")
    seconds, found = {}, {}
    for workers in (1, 2):
        options = Options(str(packaged_model()), model_digest(packaged_model()))
        work = Work(str(tmp_path / str(workers)), options, None, default_memory(), 1)
        with local_cluster(workers, 1, default_memory()) as engine:
            list(engine.run(parts[: 2 * workers], work))
            start = time.perf_counter()
            found[workers] = sum(outcome.record.columns for outcome in engine.run(parts, work))
            seconds[workers] = time.perf_counter() - start
    assert found[1] == found[2] == pytest.approx(batch.columns, rel=0.01)
    tables = [sorted((tmp_path / str(workers) / "columns").iterdir()) for workers in (1, 2)]
    assert all(one.read_bytes() == two.read_bytes() for one, two in zip(*tables, strict=True))
    with capsys.disabled():
        rates = " and ".join(f"{found[workers] / each:,.0f}" for workers, each in seconds.items())
        print(f"\n1 and 2 dask workers: {rates} columns/s, {seconds[1] / seconds[2]:.2f} times (bar {SCALING})")


def columns_of(folder: Path) -> int:
    """Return how many columns the tables have."""
    import pyarrow.dataset

    return pyarrow.dataset.dataset(folder / "columns").count_rows()
