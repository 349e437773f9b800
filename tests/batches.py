"""Micrographs for tests of batches, and what a batch has left."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from contextem.export.images import write_image
from contextem.micrograph import Detector
from contextem.simulate.dataset import column_groups, simulate_micrograph
from contextem.simulate.render import superpose

CONTEXT = "host: WSe2\ndopants: [Cr]\nenergy_kev: 80\ndetector: HAADF\n"
RESULTS = ("columns", "images", ".batch/records")
MERGED = ("micrographs.csv", "failures.csv", "summary.json", "report.html")


def write_campaign(folder: Path) -> Path:
    """Write three micrographs, a series of four frames of which one is blank, and a file that is none."""
    folder.mkdir()
    images = [
        simulate_micrograph("WSe2", "Cr", 80e3, "HAADF", seed, size=30.0, sampling=0.2, dose=5000.0).micrograph
        for seed in range(4)
    ]
    for number, image in enumerate(images[:3]):
        write_image(folder / f"field {number}.tif", image)
    frames = np.stack([images[3].data] * 4)
    frames[2] = 7
    np.save(folder / "series.npy", frames)
    (folder / "series.yaml").write_text("sampling: 0.2\n")
    (folder / "contextem.yaml").write_text(CONTEXT)
    (folder / "damaged.tif").write_bytes(b"II*\0 and nothing more")
    return folder


def digests(output: Path, *, merged: bool = True) -> dict[str, str]:
    """Return a digest of every file that a batch has come to, apart from when and by whom it was done."""
    files = [path for name in RESULTS for path in (output / name).rglob("*") if path.is_file()]
    files += [output / name for name in MERGED if merged]
    files += [path for path in (output / "figures").rglob("*") if merged]
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def contextem(*arguments, cwd=None, **environment) -> subprocess.CompletedProcess:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "contextem.cli", *map(str, arguments)],
        env={**os.environ, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
    )


ANNULI = {"HAADF": (70.0, 190.0), "MAADF": (40.0, 70.0)}
ANGULAR_SAMPLING = 6.0
"""mrad/px of the patterns that `write_scan` writes."""


def write_scan(path: Path, images: dict[str, np.ndarray], *, side: int = 64) -> None:
    """Write the patterns of `scan_patterns` as NPY."""
    np.save(path, scan_patterns(images, side=side))


def scan_patterns(images: dict[str, np.ndarray], *, side: int = 64) -> np.ndarray:
    """Return diffraction patterns whose sums over the annuli are the images, counts, and which have a bright disc."""
    shape = next(iter(images.values())).shape
    patterns = np.zeros((*shape, side, side), np.uint16)
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    angle = ANGULAR_SAMPLING * np.hypot(rows, columns)
    patterns[..., angle < 30.0] = 2000
    for name, counts in images.items():
        seen = np.flatnonzero(((angle >= ANNULI[name][0]) & (angle < ANNULI[name][1])).ravel())
        share, rest = np.divmod(counts, len(seen))
        flat = patterns.reshape(*shape, -1)
        flat[..., seen] = share[..., None] + (np.arange(len(seen)) < rest[..., None])
    return patterns


def scan_images(dopant: str = "Cr", size: float = 22.0) -> dict[str, np.ndarray]:
    """Return what two detectors see of the same monolayer, WSe2, counts, at 0.2 Å/px."""
    detectors = {name: Detector(name, *angles) for name, angles in ANNULI.items()}
    made = simulate_micrograph("WSe2", dopant, 80e3, detectors["HAADF"], 5, size=size, sampling=0.2, dose=5000.0)
    groups = column_groups(
        made.scene.layer,
        "WSe2",
        dopant,
        80e3,
        detectors["MAADF"],
        source_size=made.conditions["source_size"],
        aberrations=made.scene.aberrations,
    )
    image = superpose(groups, made.micrograph.shape, 0.2, made.scene.offsets)
    counts = np.random.default_rng(7).poisson(5000.0 * np.maximum(image, 0.0))
    return {"HAADF": np.rint(made.micrograph.data).astype(np.int64), "MAADF": counts}
