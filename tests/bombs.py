"""Files of a few bytes that ask for all the memory there is, or for code to be run; read in a process that has little.

Prints, as JSON, what became of each by its name, and the most memory that the process held, MiB.
"""

import io
import json
import pickle
import resource
import sqlite3
import struct
import sys
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import tifffile
import torch
from microscope_files import write_zspy

from contextem.classification import Classification
from contextem.columns import CLASSES, Columns
from contextem.diffraction import read_scan
from contextem.labels.commands import _read_columns
from contextem.labels.votes import VoteStore
from contextem.micrograph import Micrograph, open_series, read
from contextem.model import load_model, packaged_model
from contextem.responses import load as load_responses
from contextem.sidecar import read_settings
from contextem.simulate.dataset import SimulatedMicrograph

LIMIT = 2 << 30  # bytes
SIDE = 1 << 20  # px; a square of them is a TiB


class Touches:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (open, (str(self.path), "w"))


def npy(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(64)


def npz(path: Path) -> None:
    """An archive whose first member tells that it unpacks to a TiB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", npy((SIDE, SIDE)))
        archive.filelist[0].file_size = 1 << 40


def png(side: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def tif(path: Path, side: int = SIDE) -> None:
    tifffile.imwrite(path, np.zeros((8, 8), np.uint16), compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[name].overwrite(side)


def hspy(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update(file_format="HyperSpy", file_format_version="3.1")
        group = file.create_group("Experiments/a")
        group.create_dataset("data", (SIDE, SIDE), "f4", fillvalue=1.0, chunks=(1024, 1024), compression="gzip")


def results(path: Path, **options: object) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "contextem classification", "classes": list(CLASSES)})
        file.create_dataset("positions", **options)


def zarray(folder: Path, **told: object) -> None:
    folder.mkdir()
    plain = {"chunks": [64, 64], "compressor": None, "dtype": "<f4", "fill_value": 1, "filters": None}
    plain |= {"order": "C", "shape": [64, 64], "zarr_format": 2}
    (folder / ".zarray").write_text(json.dumps(plain | told))


def model(folder: Path, *, header: dict | None = None, weights: bytes | None = None, **config: object) -> Path:
    """The packaged model with another header, weights or config."""
    facts = json.loads((packaged_model() / "model.json").read_text())
    whole = (packaged_model() / "model.safetensors").read_bytes()
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps(facts | {"config": facts["config"] | config}))
    if header is not None:
        packed = json.dumps(header).encode()
        weights = struct.pack("<Q", len(packed)) + packed + bytes(64)
    (folder / "model.safetensors").write_bytes(whole if weights is None else weights)
    return folder


def store(path: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    with VoteStore(path) as made:
        made.add_image(Micrograph(np.eye(64, dtype=np.float32), 0.2), Columns([[5.0, 5.0]]), name="a")
        made.add_expert("Ada")
    connection = sqlite3.connect(path, isolation_level=None)
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement, values in statements:
        connection.execute(statement, values)
    for _, statement in triggers:
        connection.execute(statement)
    connection.close()


def read_store(path: Path) -> None:
    with VoteStore(path) as opened:
        opened.micrograph(1)
        opened.columns(1, opened.experts()[0])
        opened.labels(1)


def bombs(folder: Path, touched: Path):
    """Yield name, what makes the file, what reads it."""
    pickled = pickle.dumps(Touches(touched))

    def write(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    def saved(function, name: str, *arguments, **options) -> Path:
        function(folder / name, *arguments, **options)
        return folder / name

    huge = {"a": {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4 * 10**15]}}
    a_tib = {"shape": (SIDE, SIDE), "dtype": "f4", "fillvalue": 1.0, "chunks": (1024, 1024), "compression": "gzip"}
    outside = {"shape": (4, 2), "dtype": "f8", "external": [("/etc/passwd", 0, 64)]}
    unpacked = zlib.compress(bytes(1 << 27))
    aliases = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}' if i else 'x'] * 9)}]\n" for i in range(10))
    archive = io.BytesIO()
    torch.save({"a": Touches(touched)}, archive)

    yield "npy", lambda: read(write("a.npy", npy((SIDE, SIDE))), sampling=0.2)
    yield "npy, overflow", lambda: read(write("b.npy", npy((1 << 40, 1 << 40))), sampling=0.2)
    yield "npy, pickle", lambda: read(write("c.npy", pickle_npy(pickled)), sampling=0.2)
    yield "npy, lazily", lambda: open_series(write("d.npy", npy((SIDE, SIDE))), sampling=0.2)
    yield "scan", lambda: read_scan(write("e.npy", npy((SIDE, SIDE, 64, 64))))
    yield "npz", lambda: SimulatedMicrograph.load(saved(npz, "a.npz"))
    yield "npz of responses", lambda: load_responses(saved(npz, "b.npz"))
    yield "png", lambda: read(write("a.png", png(50_000)), sampling=0.2)
    yield "tif", lambda: read(saved(tif, "a.tif"), sampling=0.2)
    yield "tif of nothing", lambda: read(saved(tif, "b.tif", 20_000), sampling=0.2)
    yield "hspy", lambda: read(saved(hspy, "a.hspy"), sampling=0.2)
    yield "hspy, lazily", lambda: open_series(saved(hspy, "b.hspy"), sampling=0.2)[0]
    yield "results", lambda: Classification.load(saved(results, "a.h5", **a_tib))
    yield "results of another file", lambda: Classification.load(saved(results, "b.h5", **outside))
    yield "columns", lambda: _read_columns(saved(results, "c.h5", **a_tib))
    yield "zspy, pickle", lambda: read(pickled_zspy(folder / "a.zspy", pickled), sampling=0.2)
    yield "zarr, pickle", lambda: read_scan(pickled_zspy(folder / "a.zarr", pickled, name="pickle"))
    yield "zspy", lambda: read(huge_zspy(folder / "b.zspy"), sampling=0.2)
    yield "safetensors", lambda: load_model(model(folder / "m0", header=huge))
    yield "safetensors, header", lambda: load_model(model(folder / "m1", weights=struct.pack("<Q", 10**15) + b"{}"))
    yield "safetensors, pickle", lambda: load_model(model(folder / "m2", weights=archive.getvalue()))
    yield "config, depth", lambda: load_model(model(folder / "m3", depth=10**9))
    yield "config, width", lambda: load_model(model(folder / "m4", width=10**9))
    yield "config, hidden", lambda: load_model(model(folder / "m5", hidden=8192, width=1024, tokens=1024))
    yield "yaml, aliases", lambda: read_settings(write("a.yaml", f"{aliases}host: *l9\n".encode()))
    yield "yaml, brackets", lambda: read_settings(write("b.yaml", b"[" * 5000))
    yield "yaml, length", lambda: read_settings(write("c.yaml", b"# " + b"x" * (1 << 20)))
    yield (
        "store, tile",
        lambda: read_store(saved(store, "a.db", ("UPDATE tile SET pixels = ? WHERE level = 0", (unpacked,)))),
    )
    yield "store, size", lambda: read_store(saved(store, "b.db", ("UPDATE image SET height = 1 << 40", ())))
    yield "store, columns", lambda: read_store(saved(store, "c.db", ("UPDATE column SET number = 1 << 40", ())))
    yield (
        "store, view",
        lambda: read_store(saved(store, "d.db", ("CREATE VIEW more AS SELECT randomblob(1 << 40)", ()))),
    )


def pickle_npy(pickled: bytes) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    return file.getvalue() + pickled


def pickled_zspy(folder: Path, pickled: bytes, name: str = "p\\u0069ckle") -> Path:
    """An array of objects whose one chunk is a pickle; in JSON the codec may be spelt with escapes."""
    zarray(folder, shape=[1], chunks=[1], dtype="|O", fill_value=None, filters=[{"id": "codec"}])
    described = (folder / ".zarray").read_text()
    (folder / ".zarray").write_text(described.replace("codec", name))
    (folder / "0").write_bytes(pickled)
    return folder


def huge_zspy(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_zspy(folder, np.ones((8, 6), np.float32))
    described = next(path for path in folder.rglob("zarr.json") if json.loads(path.read_text()).get("shape") == [8, 6])
    told = json.loads(described.read_text())
    described.write_text(json.dumps(told | {"shape": [SIDE, SIDE]}))
    return folder


def main() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    became = {}
    with tempfile.TemporaryDirectory() as name:
        touched = Path(name) / "touched"
        for bomb, read_it in bombs(Path(name), touched):
            try:
                became[bomb] = ["result", repr(read_it())[:80]]
            except Exception as error:  # noqa: BLE001 - whatever it is, is what is asked for
                became[bomb] = [type(error).__name__, str(error)]
        became["touched"] = touched.exists()
    # of this program; that of getrusage counts the process it was forked from as well
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    became["peak"] = int(status.split("VmHWM:")[1].split()[0]) >> 10
    json.dump(became, sys.stdout)


if __name__ == "__main__":
    main()
