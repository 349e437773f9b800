"""How many threads a stage may use: all cores, unless the calling thread shares them with others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from contextem import _core


def available_cores() -> int:
    """Return how many cores this process may run on, which a scheduler may have made fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count() -> int:
    """Return how many threads a stage called from this thread may use."""
    return _core.thread_limit() or available_cores()


@contextmanager
def thread_limit(count: int) -> Iterator[None]:
    """Let kernels and other stages called from this thread within the block use so many threads, not all cores.

    Parameters
    ----------
    count : int
        At least 1.

    Examples
    --------
    >>> with thread_limit(3):
    ...     thread_count()
    3
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1 thread, got {count}")
    before = _core.set_thread_limit(count)
    try:
        yield
    finally:
        _core.set_thread_limit(before)
