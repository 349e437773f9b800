"""Code blocks of a Markdown page, run in their order as a reader would: one folder and one namespace for the page."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

FENCE = re.compile(r"^ *```(\w+)?[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
REASON = re.compile(r"(?:%|<!--) (not run|slow): (.+?)(?: -->)?\s*$")
"""What stands in the line before a block that is not run, or run with the slow tests only."""

SERVER = re.compile(r"^(contextem label serve (?:.|\\\n)+)$", re.MULTILINE)


class Block(NamedTuple):
    """A block of code: its language, its text, its line in the page, and why it isn't run or is run seldom."""

    language: str
    code: str
    line: int
    reason: str | None


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page that are Python or for a POSIX shell; `console` is for the eye."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        if match[1] in ("python", "sh"):
            before = text[: match.start()]
            said = REASON.search(before.rstrip("\n").rsplit("\n", 1)[-1])
            reason = f"{said[1]}: {said[2]}" if said else None
            found.append(Block(match[1], match[2], before.count("\n") + 2, reason))
    return found


def run_shell(code: str, folder: Path) -> None:
    """Run shell commands, `contextem` being the package under test; a server goes on until the block has ended."""
    tools = folder / ".bin"
    tools.mkdir(exist_ok=True)
    for name, options in {"contextem": "-W error -m contextem.cli", "python": ""}.items():
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {options} "$@"\n')
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "MPLBACKEND": "Agg"}
    server = None
    try:
        for part in SERVER.split(code):
            if SERVER.match(part):
                server = _serve(part, folder, environment)
                continue
            command = ["bash", "-euo", "pipefail", "-c", part]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{part}\n{done.stdout}{done.stderr}"
    finally:
        if server is not None:
            server.terminate()
            assert server.wait(30) in (0, -15)


def _serve(line: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a server and wait until it prints a link."""
    log = folder / ".server.log"
    with log.open("w") as file:
        command = ["bash", "-c", f"exec {line}"]
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
    end = time.monotonic() + 60
    while "http" not in log.read_text():
        assert server.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    return server


def run_python(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    """Run a block of Python in this process."""
    exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), namespace)
