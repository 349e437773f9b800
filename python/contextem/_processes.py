"""A pool of processes that share the cores instead of fighting over them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def process_pool(workers: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool whose processes run their linear algebra on one thread each.

    Without that, every process starts a thread a core, and small matrices spend their time waiting for each other.

    Parameters
    ----------
    workers : int, optional
        Processes; one a core by default.
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    # The libraries read the variables when they are loaded, so a process must be born with them: spawned, not forked.
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            yield pool
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def each_image(task: Callable[[Item], Any], sources: Sequence[Item], *, workers: int | None, label: str) -> list[Any]:
    """Return what a task makes of each image, in order, with a progress bar on a terminal.

    Parameters
    ----------
    task : callable
        That can be pickled.
    sources : sequence
        What it is called with.
    workers : int or None
        Processes; one a core for None, none but this one for 1.
    label : str
        Of the progress bar.
    """
    bar: dict[str, Any] = {"total": len(sources), "desc": label, "unit": "image", "disable": None}
    if workers == 1:
        return list(tqdm(map(task, sources), **bar))
    with process_pool(workers) as pool:
        return list(tqdm(pool.map(task, sources, chunksize=8), **bar))
