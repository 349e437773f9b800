"""Run a target: under atheris, guided by the branches that are taken, or plainly, by mutation of its seeds alone."""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import importlib
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import NoReturn

TARGETS = ("formula", "sidecar", "tables", "kernels", "core", "model", "results", "api", "store", "images", "scans")
MEMORY = 6 << 30  # bytes; what asks for more gets a MemoryError
LONGEST = 1 << 16  # bytes of an input
PATIENCE = 30  # s that an execution may take


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--executions", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--plain", action="store_true", help="without atheris: the same inputs every time")
    parser.add_argument("--corpus", type=Path, help="folder that keeps what was found interesting")
    parser.add_argument("--again", type=Path, help="file with one input, to be done once")
    parser.add_argument("--guided", action="store_true", help=argparse.SUPPRESS)
    given, rest = parser.parse_known_args()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    if given.again:
        _module(given.target).target(given.again.read_bytes())
        return 0
    if given.guided:
        _guided(given.target, rest)
    if given.plain:
        return _plain(_module(given.target), given.executions, given.seconds)
    return _under_atheris(given)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"fuzz.{name}")


def _plain(module: ModuleType, executions: int, seconds: float) -> int:
    faulthandler.enable()
    signal.signal(signal.SIGALRM, _hangs)
    chance, start, done = random.Random(1), time.monotonic(), 0
    seeds = list(module.seeds())
    for done in range(1, executions + 1):
        data = seeds[done - 1] if done <= len(seeds) else mutated(chance, seeds)
        signal.alarm(PATIENCE)
        try:
            module.target(data)
        except BaseException:
            print(f"input {done}: {data[:4096]!r}", file=sys.stderr)
            raise
        if time.monotonic() - start > seconds:
            break
    signal.alarm(0)
    print(f"{done} executions in {time.monotonic() - start:.1f} s")
    return 0


def _hangs(*_: object) -> NoReturn:
    raise TimeoutError(f"expected an end within {PATIENCE} s")


def mutated(chance: random.Random, seeds: list[bytes]) -> bytes:
    """Return a seed with some bytes changed, removed, doubled, or taken from another one."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        start = chance.randrange(len(data) + 1)
        stop = min(len(data), start + chance.choice((1, 1, 2, 4, 8, 32)))
        kind = chance.randrange(5)
        if kind == 0:
            data[start:stop] = chance.randbytes(stop - start)
        elif kind == 1:
            data[start:stop] = bytes([chance.choice((0, 1, 0x7F, 0x80, 0xFF))]) * (stop - start)
        elif kind == 2:
            del data[start:stop]
        elif kind == 3:
            data[start:start] = data[start:stop] * chance.choice((1, 1, 8))
        else:
            other = chance.choice(seeds)
            at = chance.randrange(len(other) + 1)
            data[start:stop] = other[at : at + chance.choice((1, 4, 16, 64))]
    return bytes(data[:LONGEST])


def _guided(name: str, options: list[str]) -> NoReturn:
    """Run this process under atheris; it does not return."""
    import atheris

    subject = f"fuzz.{name}"
    # what a target instruments stands at its top, before the package is imported
    text = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    included = re.findall(r'"([\w.]+)"', re.search(r"^INSTRUMENTED = \((.*?)\)$", text, re.MULTILINE | re.DOTALL)[1])
    with atheris.instrument_imports(include=[subject, *included]):
        module = importlib.import_module(subject)
    atheris.Setup([sys.argv[0], *options], module.target)
    atheris.Fuzz()
    raise SystemExit


def _under_atheris(given: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        corpus = given.corpus or Path(folder) / "corpus"
        corpus.mkdir(exist_ok=True)
        for number, seed in enumerate(_module(given.target).seeds()):
            (corpus / f"seed{number}").write_bytes(seed)
        options = {
            "runs": given.executions,
            "max_total_time": given.seconds,
            "max_len": LONGEST,
            "timeout": PATIENCE,
            "rss_limit_mb": 2 * MEMORY >> 20,
            "artifact_prefix": f"{Path.cwd()}/found-{given.target}-",
        }
        command = [sys.executable, "-m", "fuzz", given.target, "--guided", "--", str(corpus)]
        command += [f"-{name}={value}" for name, value in options.items()]
        start = time.monotonic()
        run = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace")
        print("\n".join(run.stderr.splitlines()[-60 if run.returncode else -2 :]), file=sys.stderr)
        counts = re.findall(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+)", run.stderr, re.MULTILINE)
        executions, edges, features = counts[-1] if counts else ("0", "0", "0")
        status = run.returncode
        if f"Done {executions} runs" in run.stderr:  # what libraries do when the interpreter ends is no finding
            status = 0
            (Path.cwd() / f"found-{given.target}-crash-{hashlib.sha1(b'').hexdigest()}").unlink(missing_ok=True)
        print(
            f"{given.target}: {executions} executions in {time.monotonic() - start:.0f} s, {edges} edges, "
            f"{features} features, exit status {status}"
        )
        return status


if __name__ == "__main__":
    sys.exit(main())
