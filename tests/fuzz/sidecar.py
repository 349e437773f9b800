"""YAML files beside micrographs."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from contextem.sidecar import Settings, read_settings, settings_of
from fuzz.draw import Broken, expected

INSTRUMENTED = ("contextem.sidecar", "contextem.context", "contextem.elements", "contextem.micrograph", "yaml")

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


def target(data: bytes) -> None:
    path = FOLDER / "field.yaml"
    path.write_bytes(data)
    with expected(ValueError, TypeError):
        settings = read_settings(path)
        if not isinstance(settings, Settings):
            raise Broken(f"expected Settings, got {settings!r}")
        if settings != settings_of(path.with_suffix(".dm4")):
            raise Broken("a file beside a micrograph is read in another way")
        if settings.host is not None:
            settings.context()


def seeds() -> Iterator[bytes]:
    whole = b"""host: WSe2
dopants: [Cr, V]
fractions: {Cr: 0.02, V: 0.01}
lattice_constant: 3.32
energy_kev: 80
detector: {name: HAADF, inner: 70, outer: 200}
sampling: 0.2
signal: HAADF
frame: 0
scan_shape: [256, 256]
angular_sampling: 1.5
centre: [127.5, 128]
detectors:
  - {name: HAADF, inner: 70, outer: 200}
  - {name: MAADF, inner: 40, outer: 70}
"""
    yield whole
    yield from (line + b"\n" for line in whole.splitlines())
    yield b"a: &a [x, x]\nb: &b [*a, *a]\nhost: [*b, *b]\n"
    yield b"- &a [*a]\n"
    yield b"host: !!python/object/apply:os.system ['true']\n"
    yield b"? [1]\n: 2\n--- \n...\n%YAML 1.1\n!!binary aGk=\n2001-12-14t21:59:43.10-05:00\n"
    yield b"energy_kev: 0x10\nsampling: .nan\nframe: 1_000\nsignal: ~\nlattice_constant: 1:30\n"
