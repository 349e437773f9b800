"""How much memory a batch takes: what is asked for before it is taken, and never more at once than allowed."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contextem._bounds import in_words, usable_memory

BYTES_PER_PIXEL = 40
"""What classifying a large micrograph takes for each of its pixels at most, its columns included."""

BYTES_PER_MICROGRAPH = 64 << 20
"""What classifying takes beside that."""


class Budget:
    """Memory that the threads of a process share.

    Parameters
    ----------
    total : int
        Bytes of the process, those that it holds already included.

    Examples
    --------
    >>> budget = Budget(held_memory() + (1 << 30))
    >>> before = budget.left
    >>> with budget.reserved(1 << 20, "field.dm4"):
    ...     before - budget.left
    1048576
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.left = max(0, total - held_memory())
        self._most = self.left
        self._changed = threading.Condition()

    @contextmanager
    def reserved(self, size: int, name: str) -> Iterator[None]:
        """Wait until so much is left, and hold it for the block.

        Raises
        ------
        MemoryError
            If it is more than there will ever be.
        """
        if size > self._most:
            raise MemoryError(
                f"memory: {name} takes about {in_words(size)}, beside {in_words(self.total - self._most)} that the "
                f"program takes, and {in_words(self.total)} are allowed for a process; allow more with --memory, or "
                "have fewer processes with --workers"
            )
        with self._changed:
            self._changed.wait_for(lambda: self.left >= size)
            self.left -= size
        try:
            yield
        finally:
            with self._changed:
                self.left += size
                self._changed.notify_all()


def default_memory() -> int:
    """Return half of the memory that this process may use, bytes: that of the machine, or less by its control group."""
    return usable_memory() // 2


def peak_memory() -> int:
    """Return the most bytes that this process has held in memory."""
    with suppress(OSError, StopIteration):  # what `getrusage` tells a process has from the one that started it
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def held_memory() -> int:
    """Return the bytes that this process holds in memory now, or the most it has held where that is not told."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_memory()
    return pages * os.sysconf("SC_PAGE_SIZE")
