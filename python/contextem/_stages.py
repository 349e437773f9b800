"""Where the time goes: seconds of each stage, logged, and gathered where someone asks for them and nowhere else."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

logger = logging.getLogger("contextem.stages")

_seconds: ContextVar[dict[str, float] | None] = ContextVar("seconds", default=None)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time of the block to a stage."""
    seconds = _seconds.get()
    if seconds is None and not logger.isEnabledFor(logging.DEBUG):
        yield
        return
    start = time.perf_counter()
    try:
        yield
    finally:
        took = time.perf_counter() - start
        logger.debug("%s: %.3f s", name, took)
        if seconds is not None:
            seconds[name] = seconds.get(name, 0.0) + took


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
