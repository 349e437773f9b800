"""What a bug report needs to know: build, machine, libraries and model, without names of people or places.

No path is told: the package lies in "site-packages" or in a "source tree", and of a variable of the environment that
holds a path it is told that it is set.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from contextem import __version__, _kernels
from contextem._threads import available_cores, thread_count
from contextem.batch.memory import default_memory
from contextem.model import packaged_model

VARIABLES = (
    "CONTEXTEM_SIMD",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "PYTHONWARNINGS",
)
"""Variables of the environment that change what is computed, or how fast; those that begin with ``CONTEXTEM_`` too."""

NO_USER_EXTRAS = ("all", "bench", "docs", "fuzz", "mutation", "test")
"""Extras whose packages are not told of."""

_WIDTH = 110
_PATH = re.compile(r"(?:(?<![\w.])/|\b[A-Za-z]:\\)(?:[^\s/\\:'\",]+[/\\])+")


def info() -> dict[str, Any]:
    """Return what `contextem info --json` prints.

    Returns
    -------
    dict
        Plain values by name: "contextem", "python", "build", "cuda", "threads", "memory", "libraries", "missing",
        "model" and "environment".  Sizes are bytes.

    Examples
    --------
    >>> found = info()
    >>> found["contextem"]["version"] == __version__, found["model"]["schema"]
    (True, 1)
    """
    kernels = _kernels.describe()
    torch, torch_facts = _torch()
    libraries, missing = _libraries()
    if torch is not None:
        libraries["torch"] = torch
    facts = {
        "contextem": {"version": __version__, "installed in": _place()},
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "platform": platform.platform(),
            "processor": _processor(),
        },
        "build": {name: kernels[name] for name in ("compiler", "simd", "simd_available")},
        "cuda": {
            "extension": kernels["cuda"],
            "architectures": kernels["cuda_architectures"],
            "runtime": _cuda_version(kernels["cuda_runtime"]),
            "driver": _cuda_version(kernels["cuda_driver"]),
            "devices": kernels["cuda_devices"],
            "device_names": torch_facts["devices"],
        },
        "threads": {
            "cores": os.cpu_count(),
            "cores_usable": available_cores(),
            "cores_by_control_group": _group_cores(),
            "kernels": thread_count(),
            "torch": torch_facts["threads"],
        },
        "memory": {"of_a_batch": default_memory()},
        "libraries": libraries,
        "missing": missing,
        "model": _model(packaged_model()),
        "environment": _environment(os.environ),
    }
    told: dict[str, Any] = _without_paths(facts)
    return told


def info_text(facts: Mapping[str, Any]) -> str:
    """Return facts as a table of two columns, a line each, that can be read where it is pasted.

    Parameters
    ----------
    facts : mapping
        From `info`.
    """
    python, build, cuda, threads, model = (facts[name] for name in ("python", "build", "cuda", "threads", "model"))
    limit = threads["cores_by_control_group"]
    cores = f"{threads['cores_usable']} of {threads['cores']} cores"
    rows = {
        "contextem": f"{facts['contextem']['version']}, in a {facts['contextem']['installed in']}",
        "Python": f"{python['version']} ({python['implementation']}), {python['platform']}",
        "processor": f"{python['processor']}, {cores}{'' if limit is None else f', control group: {limit:g}'}",
        "kernels": build["simd"],
        "instruction sets": ", ".join(build["simd_available"]),
        "compiler": build["compiler"],
        "CUDA": ", ".join(_cuda_words(cuda)),
        "threads": f"kernels {threads['kernels']}, torch {threads['torch'] or 'none'}",
        "memory": f"a batch takes {facts['memory']['of_a_batch'] / 2**30:.1f} GiB at most",
        "model": ", ".join(_model_words(model)),
        "libraries": ", ".join(f"{name} {version}" for name, version in facts["libraries"].items()),
        "not installed": ", ".join(f"{', '.join(names)} ({extra})" for extra, names in facts["missing"].items()),
        "environment": ", ".join(f"{name}={value}" for name, value in facts["environment"].items()),
    }
    width = max(map(len, rows)) + 2
    lines = [
        textwrap.wrap(value or "none", _WIDTH - width, subsequent_indent=" " * width, break_long_words=False)
        for value in rows.values()
    ]
    return "\n".join(f"{name:<{width}}" + "\n".join(line) for name, line in zip(rows, lines, strict=True))


def _cuda_words(cuda: Mapping[str, Any]) -> Iterator[str]:
    yield cuda["extension"]
    if cuda["architectures"]:
        yield f"for {' '.join(cuda['architectures'])}"
    if cuda["extension"] == "built":
        yield f"runtime {cuda['runtime']}"
        yield f"driver for {cuda['driver']}" if cuda["driver"] else "no driver"
    yield f"{cuda['devices']} devices"
    yield from cuda["device_names"]


def _model_words(model: Mapping[str, Any]) -> Iterator[str]:
    yield f"{model['name']} (schema {model['schema']}, sha256 {model['sha256'][:12]})"
    yield f"by contextem {model['written_by']}{' on ' + model['trained'] if model['trained'] else ''}"
    yield from (f"{count:,} {name}" for name, count in model["trained_on"].items())


def _place() -> str:
    parts = Path(__file__).resolve().parts
    return "site-packages" if {"site-packages", "dist-packages"} & set(parts) else "source tree"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _group_cores(told: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """Return how many cores the control group of a container or a scheduler allows, None where it does not tell."""
    with suppress(OSError, ValueError):
        quota, period = told.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    return None


def _torch() -> tuple[str | None, dict[str, Any]]:
    """Return which torch there is, and what it sees; None without one."""
    nothing: dict[str, Any] = {"threads": None, "devices": []}
    try:
        import torch
    except ModuleNotFoundError:
        return None, nothing
    except Exception as error:  # noqa: BLE001 - a library that it needs, which is what the report is about
        return f"does not load ({type(error).__name__}: {error})", nothing
    devices = [torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count())]
    return str(torch.__version__), {"threads": torch.get_num_threads(), "devices": devices}


def _libraries() -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return versions of the packages that this one needs or may use, and by extra those that are not there."""
    libraries: dict[str, str] = {}
    missing: dict[str, list[str]] = {}
    try:
        needed = importlib.metadata.requires("contextem") or []
    except importlib.metadata.PackageNotFoundError:  # a source tree that was never installed
        needed = ["numpy", "scipy", "torch"]
    for requirement in needed:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if name == "contextem" or (extra and extra[1] in NO_USER_EXTRAS):
            continue
        try:
            libraries[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            there = missing.setdefault(extra[1] if extra else "required", [])
            if name not in there:
                there.append(name)
    return libraries, missing


def _model(folder: Path) -> dict[str, Any]:
    """Return name, schema and checksum of a model, and what it was trained on."""
    told = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    training = told.get("training", {})
    counts = {
        name: len(value) if isinstance(value, list) else value
        for name, value in training.items()
        if name in ("images", "columns", "hosts", "dopants")
    }
    return {
        "name": told.get("name", "unnamed"),
        "schema": told.get("schema", 1),
        "sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "written_by": told.get("version"),
        "trained": told.get("trained"),
        "trained_on": counts,
    }


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that matter; of a value that may be a path, that it is set."""
    own = sorted(name for name in variables if name.startswith("CONTEXTEM_") and name not in VARIABLES)
    told = {name: variables[name] for name in VARIABLES if name in variables}
    plain = {name: value if re.fullmatch(r"[\w,.:-]{1,40}", value) else "set" for name, value in told.items()}
    return plain | dict.fromkeys(own, "set")


def _cuda_version(number: int | None) -> str | None:
    return f"{number // 1000}.{number % 1000 // 10}" if number else None


def _without_paths(value: Any) -> Any:
    """Return facts with the last part of every path only: what comes before names people and places."""
    if isinstance(value, str):
        return _PATH.sub(".../", value)
    if isinstance(value, Mapping):
        return {name: _without_paths(each) for name, each in value.items()}
    return [_without_paths(each) for each in value] if isinstance(value, list) else value
