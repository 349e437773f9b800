"""Headers of 4D scans in each format, and the patterns that are read behind them."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
from microscope_files import write_blo, write_dm, write_mib, write_mrc

from contextem.diffraction import read_scan
from fuzz.arrays import DTYPES
from fuzz.draw import Broken, Draw, expected
from fuzz.images import with_others
from fuzz.results import changed

INSTRUMENTED = (
    *("contextem._scan_files", "contextem._patterns", "contextem.diffraction", "contextem._files", "contextem._bounds"),
    *("rsciio.quantumdetector", "rsciio.blockfile", "rsciio.mrc", "rsciio.digitalmicrograph"),
)

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

MEMORY = 1 << 22
UNITS = ("A", "nm", "1/nm", "A^-1", "mrad", "rad", "", "x")


def _samples() -> dict[str, bytes]:
    data = np.random.default_rng(0).integers(0, 250, (2, 3, 4, 4)).astype(np.uint8)
    folder = FOLDER / "samples"
    folder.mkdir()
    write_blo(folder / "a.blo", data)
    write_mib(folder / "a.mib", data.astype(np.uint16), description=True)
    write_mrc(folder / "a.mrc", data.reshape(6, 4, 4).astype(np.uint16), (1.6, 1.2))
    write_dm(folder / "a.dm4", [{"data": data.astype(np.uint16), "units": "nm"}], 4)
    np.save(folder / "a.npy", data)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


SAMPLES = _samples()
ZARR = {"shape": [2, 3, 4, 4], "chunks": [1, 3, 4, 4], "dtype": "<u2", "fill_value": 0, "order": "C"}
ZARR |= {"filters": None, "compressor": None, "zarr_format": 2}


def _hdf5(draw: Draw, path: Path) -> None:
    """Write arrays of any shape and dtype with axes of any units."""
    with h5py.File(path, "w") as file:
        for number in range(1 + draw.below(2)):
            group = file.require_group(draw.choice(("Experiments/a", "data", f"data/scan{number}")))
            if draw.chance(3):
                group.attrs["emd_group_type"] = draw.choice((1, "array", draw.real()))
            shape = [draw.choice((1, 2, 3, 4, 8)) for _ in range(draw.choice((4, 4, 3, 2)))]
            if draw.chance(4):
                shape[draw.below(len(shape))] = draw.integer()
            dtype = np.dtype(draw.choice(DTYPES))
            try:
                options = (
                    {
                        "chunks": tuple(max(1, min(side, 8)) for side in shape),
                        "compression": draw.choice((None, "gzip")),
                    }
                    if draw.chance()
                    else {}
                )
                made = group.create_dataset("data", shape, dtype, **options)
                if made.nbytes < 1 << 16 and draw.chance() and dtype.kind in "iuf":
                    made[...] = 1
                for axis in range(draw.below(5)):
                    of = group.create_group(f"axis-{axis}") if draw.chance() else None
                    place = (
                        of.attrs
                        if of is not None
                        else group.create_dataset(f"dim{axis + 1}", data=[0.0, draw.real()]).attrs
                    )
                    place["scale"] = draw.choice((0.02, draw.real(), draw.text(), [1.0, 2.0]))
                    place["units"] = draw.choice((*UNITS, draw.real()))
                if draw.chance(4):
                    file.require_group("microscope").attrs["voltage"] = draw.choice((8e4, draw.real(), "x"))
            except (TypeError, ValueError, OverflowError, OSError, RuntimeError, KeyError, MemoryError):
                pass  # nothing that a file can hold


def _zarr(draw: Draw, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / ".zarray").write_text(json.dumps(changed(draw, ZARR)), encoding="utf-8", errors="replace")
    (folder / "0.0.0.0").write_bytes(draw.rest()[:200])


def target(data: bytes) -> None:
    draw = Draw(data)
    name = draw.choice((*(name for name in SAMPLES), "a.h5", "a.hspy", "a.emd", "a.zarr"))
    path = FOLDER / name
    if name == "a.zarr":
        _zarr(draw, path)
    elif name in SAMPLES:
        (FOLDER / "a.hdr").write_bytes(SAMPLES["a.hdr"])
        path.write_bytes(draw.rest() if draw.chance(12) else with_others(draw, SAMPLES[name]))
        path = path.with_suffix(".mib") if name == "a.hdr" else path
        if name == "a.hdr":
            path.write_bytes(SAMPLES["a.mib"])
    else:
        _hdf5(draw, path)
    scan_shape = draw.choice((None, None, (2, 3), (3, 2), (draw.integer(), draw.integer()), draw.value()))
    energy, signal = draw.choice((80e3, None)), draw.choice((None, None, 0, "data", draw.text()))
    with warnings.catch_warnings(), np.errstate(all="ignore"), expected(ValueError):
        warnings.simplefilter("ignore")
        scan = read_scan(path, energy=energy, scan_shape=scan_shape, signal=signal)
        if len(scan.shape) != 4 or min(scan.shape) < 1 or scan.dtype.kind not in "iuf":
            raise Broken(f"expected patterns of numbers, got {scan!r}")
        for first, block in islice(scan.blocks(MEMORY), 4):
            if first < 0 or block.shape[1:] != scan.shape[2:] or block.dtype != scan.dtype:
                raise Broken(f"expected patterns of {scan.shape} {scan.dtype}, got {block.shape} {block.dtype}")


def seeds() -> Iterator[bytes]:
    for kind in range(len(SAMPLES) + 4):
        for length in (8, 24, 60):
            for start in range(4):
                yield bytes([kind]) + bytes((11 * i + start * 37) % 256 for i in range(length))
