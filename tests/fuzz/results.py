"""Files of results: classifications, simulated micrographs, and the records of a batch."""

from __future__ import annotations

import atexit
import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from contextem.batch.store import Store, _is_below
from contextem.classification import Classification
from contextem.columns import CLASSES, Columns
from contextem.context import Context
from contextem.micrograph import Micrograph
from contextem.simulate.dataset import SimulatedMicrograph, manifest
from fuzz.arrays import array
from fuzz.draw import Broken, Draw, expected

INSTRUMENTED = (
    *("contextem.export.hdf5", "contextem.classification", "contextem.batch.store", "contextem.simulate.dataset"),
    *("contextem._bounds", "contextem.columns", "contextem.context", "contextem.micrograph"),
)

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

ARRAYS = {
    "positions": np.ones((3, 2)),
    "sublattice": np.zeros(3, np.int8),
    "grain": np.zeros(3, np.int32),
    "probabilities": np.full((3, 5), 0.2, np.float32),
    "patch_probabilities": np.full((3, 5), 0.2, np.float32),
    "familiarity": np.zeros(3, np.float32),
    **dict.fromkeys(("observed", "complete", "unknown", "contaminated"), np.ones(3, bool)),
}
HEADER = {"format": "contextem classification", "classes": list(CLASSES), "sampling": 0.2, "lattice_constant": 3.32}
PLAN = {"schema": 1, "parts": [{"name": "a", "input": "a", "path": "/a", "table": "a.parquet"}]}
RECORD = {
    "schema": 1,
    "part": "a",
    "fingerprint": "0",
    "micrographs": [{"name": "a", "frame": None, "columns": 3}],
    "failures": [{"name": "a", "reason": "none", "final": True}],
    "table_bytes": 0,
}
MANIFEST = {"preset": "small", "options": {}, "classes": list(CLASSES), "files": ["a-1.npz"]}


def _whole() -> tuple[bytes, bytes]:
    Classification(**ARRAYS, sampling=0.2, lattice_constant=3.32, provenance={"name": "a"}).to_hdf5(FOLDER / "a.h5")
    context = Context("WSe2", energy=80e3, detector="HAADF")
    micrograph = Micrograph(np.eye(8, dtype=np.float32), 0.2, 80e3, "HAADF", source="a")
    columns = Columns([[1.0, 2.0], [3.0, 4.0]], [0, 1])
    SimulatedMicrograph(micrograph, columns, np.zeros(2, np.int8), context, {}).save(FOLDER / "a.npz")
    return (FOLDER / "a.h5").read_bytes(), (FOLDER / "a.npz").read_bytes()


HDF5, NPZ = _whole()


def changed(draw: Draw, tree: object) -> object:
    """Return JSON with something else in one place."""
    if isinstance(tree, list) and tree and not draw.chance(4):
        return [changed(draw, tree[0]), *tree[1:]]
    if not isinstance(tree, dict) or not tree or draw.chance(6):
        return draw.choice((draw.value(), "../../a", "/etc/a"))
    key = draw.choice(sorted(tree))
    if draw.chance(8):
        return {name: value for name, value in tree.items() if name != key}
    return {**tree, draw.choice((key, key, key, draw.text())): changed(draw, tree[key])}


def _text(draw: Draw, tree: object) -> bytes:
    if draw.chance(4):
        return draw.rest()
    return json.dumps(changed(draw, tree)).encode("utf-8", "surrogatepass")


def _with_others(draw: Draw, whole: bytes) -> bytes:
    where, part = draw.below(len(whole)), draw.rest()
    return whole[:where] + part + whole[where + len(part) :]


def _hdf5(draw: Draw) -> None:
    """Write a classification with something else in a few places."""
    with h5py.File(FOLDER / "a.h5", "w") as file:
        for name, value in HEADER.items():
            if not draw.chance(24):
                file.attrs[name] = value
        for name, values in ARRAYS.items():
            kind = draw.below(40)
            try:
                if kind == 1:
                    file.create_group(name)
                elif kind == 2:
                    file.create_dataset(name, (draw.integer(), 2), "f4", fillvalue=draw.real(), chunks=(1, 2))
                elif kind == 3:
                    file[name] = h5py.ExternalLink("other.h5", "/a")
                elif kind == 4:
                    file[name] = h5py.SoftLink(draw.choice(("/", "/positions", "/absent")))
                elif kind == 5:
                    file.create_dataset(name, values.shape, values.dtype, external=[("/etc/hostname", 0, 64)])
                elif kind == 6:
                    file[name] = draw.text()
                elif kind == 7:
                    file.attrs[name] = draw.value()
                elif kind != 8:
                    file[name] = array(draw, *values.shape) if kind in (9, 10) else values
            except (TypeError, ValueError, OverflowError, OSError, RuntimeError, KeyError):
                pass  # nothing that a file can hold
        if draw.chance():
            file["provenance"] = json.dumps(draw.value())


def target(data: bytes) -> None:
    draw = Draw(data)
    kind = draw.below(8)
    path = FOLDER / "a.h5"
    with warnings.catch_warnings(), np.errstate(all="ignore"), expected(ValueError):
        warnings.simplefilter("ignore")
        if kind < 3:
            _hdf5(draw) if kind else path.write_bytes(_with_others(draw, HDF5))
            result = Classification.load(path)
            if len(result.table()["row"]) != len(result) or sum(result.counts.values()) > len(result):
                raise Broken(f"expected a table of {len(result)} columns")
        elif kind == 3:
            (FOLDER / "a.npz").write_bytes(_with_others(draw, NPZ))
            SimulatedMicrograph.load(FOLDER / "a.npz")
        elif kind == 4:
            with np.load(io.BytesIO(NPZ)) as whole:
                held = dict(whole)
            name = draw.choice(sorted(held))
            about = json.dumps(changed(draw, json.loads(str(held["about"]))))
            held[name] = np.array(about) if name == "about" else np.asarray(array(draw, *held[name].shape))
            np.savez(FOLDER / "a.npz", **held)
            SimulatedMicrograph.load(FOLDER / "a.npz")
        elif kind == 5:
            (FOLDER / "manifest.json").write_bytes(_text(draw, MANIFEST))
            if not all(Path(name).name == name for name in manifest(FOLDER)["files"]):
                raise Broken("a file of a data set lies outside its folder")
        else:
            batch = FOLDER / ".batch"
            (batch / "records").mkdir(parents=True, exist_ok=True)
            (batch / "plan.json").write_bytes(_text(draw, PLAN) if kind == 6 else json.dumps(PLAN).encode())
            (batch / "records" / "a.json").write_bytes(_text(draw, RECORD))
            store = Store(FOLDER)
            for part in store.plan().values():
                if not (_is_below(part["table"]) and _is_below(part["name"])):
                    raise Broken(f"{part} lies outside")
            record = store.record("a")
            if record is not None and record.columns < 0 and record.finished is None:
                raise Broken("expected a number of columns")


def seeds() -> Iterator[bytes]:
    for kind in range(8):
        for length in (4, 30, 90):
            for start in range(4):
                yield bytes([kind]) + bytes((11 * i + start * 37) % 256 for i in range(length))
