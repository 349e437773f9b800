"""Where the time goes: seconds spent in each stage, gathered where someone asks for them and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_seconds: ContextVar[dict[str, float] | None] = ContextVar("seconds", default=None)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time of the block to a stage."""
    seconds = _seconds.get()
    if seconds is None:
        yield
        return
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


@contextmanager
def timed_stages() -> Iterator[dict[str, float]]:
    """Yield the seconds by stage, which fill up as this thread goes through stages within the block.

    Examples
    --------
    >>> with timed_stages() as seconds:
    ...     with stage("columns"):
    ...         pass
    >>> list(seconds)
    ['columns']
    """
    seconds: dict[str, float] = {}
    token = _seconds.set(seconds)
    try:
        yield seconds
    finally:
        _seconds.reset(token)
