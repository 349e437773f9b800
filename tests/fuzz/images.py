"""Files of micrographs in each format, with bytes that are others, cut short, or claims that are none.

Readers of other packages do the reading, and raise everything; what comes out of this package is one sentence.
"""

from __future__ import annotations

import atexit
import json
import shutil
import struct
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from microscope_files import write_dm, write_emi, write_mrc, write_py4dstem, write_signal, write_velox, write_zspy
from PIL import Image

from contextem.micrograph import Micrograph, open_series, read, read_series
from fuzz.draw import Broken, Draw, expected

INSTRUMENTED = (
    *("contextem._files", "contextem._bounds", "contextem.micrograph", "rsciio.digitalmicrograph", "rsciio.tia"),
    *("rsciio.mrc", "rsciio.tiff", "tifffile", "PIL.PngImagePlugin", "numpy.lib._format_impl"),
)

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


def _samples() -> dict[str, bytes]:
    """Write a small file in each format; return their bytes by name."""
    pixels = np.random.default_rng(0).integers(0, 60_000, (8, 6)).astype(np.uint16)
    stack = np.stack([pixels, pixels + 1, pixels + 2])
    dm = {"data": pixels, "scale": (0.02, 0.02), "units": "nm", "tags": {"Microscope Info": {"Voltage": 8e4}}}
    folder = FOLDER / "samples"
    folder.mkdir()
    write_dm(folder / "a.dm3", [dm], 3)
    write_dm(folder / "a.dm4", [dm | {"name": "HAADF"}], 4, thumbnails=(0,))
    write_emi(folder / "b.emi", 80.0, pixels, (2e-11, 2e-11))
    write_mrc(folder / "a.mrc", stack, (1.6, 1.2))
    write_velox(folder / "a.emd", {"HAADF": pixels, "BF": pixels}, 2e-11, 8e4)
    write_py4dstem(folder / "c.emd", np.zeros((2, 2, 3, 3), np.float32), pixels.astype("f4"), np.eye(3), 0.2)
    for name in ("a.hspy", "a.tif"):
        write_signal(folder / name, pixels)
    np.save(folder / "a.npy", stack)
    np.save(folder / "c.npy", np.asfortranarray(pixels.astype(np.float64)))
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray(pixels).save(folder / "c.tif", compression="tiff_adobe_deflate")
    write_zspy(folder / "a.zspy", pixels)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


SAMPLES = _samples()
METADATA = {
    path.relative_to(FOLDER / "samples"): json.loads(path.read_text())
    for path in sorted((FOLDER / "samples" / "a.zspy").rglob("*"))
    if path.name.startswith(".z") or path.suffix == ".json"
}
NUMBERS = (0, 1, -1, 7, 255, 2**15, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**62, 2**63 - 1)


def with_others(draw: Draw, whole: bytes) -> bytes:
    """Return a file with other bytes or numbers in a few places, or cut short."""
    data = bytearray(whole)
    for _ in range(1 + draw.below(4)):
        where = draw.below(len(data) or 1)
        if draw.chance():
            where = draw.below(min(len(data), 256) or 1)
        kind = draw.below(5)
        if kind == 0:
            data[where : where + 1] = draw.take(1)
        elif kind == 1:
            part = draw.take(draw.below(16))
            data[where : where + len(part)] = part
        elif kind == 4:
            del data[where:]
        else:
            number, size = int(draw.choice(NUMBERS)), draw.choice((2, 4, 8))
            packed = struct.pack(draw.choice("<>") + "q", number)
            data[where : where + size] = packed[:size] if draw.chance() else packed[-size:]
    return bytes(data)


def target(data: bytes) -> None:
    draw = Draw(data)
    name = draw.choice((*SAMPLES, "a.zspy"))
    path = FOLDER / name
    if name == "a.zspy":
        from fuzz.results import changed

        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(FOLDER / "samples" / name, path)
        which = draw.choice(sorted(METADATA))
        (FOLDER / which).write_text(json.dumps(changed(draw, METADATA[which])), encoding="utf-8", errors="replace")
    elif name.endswith((".emd", ".hspy")):
        # HDF5 itself is no part of this package, and not made for bytes like these: see docs/security.md
        path.write_bytes(SAMPLES[name] if draw.chance(4) else SAMPLES[name][: draw.below(len(SAMPLES[name]))])
    else:
        if name.endswith((".emi", ".ser")):
            for each in ("b.emi", "b_1.ser"):
                (FOLDER / each).write_bytes(SAMPLES[each])
        path.write_bytes(draw.rest() if draw.chance(12) else with_others(draw, SAMPLES[name]))
    sampling = draw.choice((0.2, None))
    frame = draw.choice((None, None, 0, 1))
    signal = draw.choice((None, None, 0, "HAADF"))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        with expected(ValueError):
            micrograph = read(path, sampling=sampling, frame=frame, signal=signal)
            if not isinstance(micrograph, Micrograph) or not np.isfinite(micrograph.as_float("float64")).all():
                raise Broken(f"expected finite pixels, got {micrograph!r}")
        with expected(ValueError):
            series = open_series(path, sampling=0.2, signal=signal)
            series[len(series) - 1]
        with expected(ValueError):
            read_series(path, sampling=0.2, signal=signal)


def seeds() -> Iterator[bytes]:
    for kind in range(len(SAMPLES) + 1):
        for length in (8, 24, 60):
            for start in range(3):
                yield bytes([kind]) + bytes((11 * i + start * 37) % 256 for i in range(length))
