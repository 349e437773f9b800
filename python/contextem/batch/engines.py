"""Who does the parts of a batch: threads of this process, or workers of dask, such as one for each card.

An engine yields an outcome for every part, in the order in which they come to an end.  What a part comes to depends on
none of this: every worker does it with the same arithmetic, torch on one thread, and writes the result by itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from contextem._extras import needs_extra
from contextem._threads import available_cores
from contextem.batch.part import Outcome, Work, do_part, failed
from contextem.batch.plan import Part
from contextem.batch.store import NoRoom
from contextem.remarks import ContextemWarning

PARTS_ON_A_CARD = 3
"""Parts that share a card: while one is computed, others are read and written."""

CARD = "GPU"
"""What dask calls a card among the resources of a worker: ``dask worker --resources GPU=1``."""

_MEMORY_SHARE = 0.6
"""Of the memory at which dask pauses a worker, what parts may take."""

_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": 32 << 20, "MALLOC_TRIM_THRESHOLD_": 256 << 20}
"""What a worker of this machine lets malloc do: dask has it give back memory at once, which takes half of the time."""


class Engine(Protocol):
    """Does parts."""

    def run(self, parts: Sequence[Part], work: Work) -> Iterator[Outcome]:
        """Yield the outcome of every part as it comes to an end.

        Raises
        ------
        NoRoom
            If the disk of the output folder is full.
        """


class Threads:
    """Threads of this process, which share its cores and its memory.

    Parameters
    ----------
    count : int, optional
        Threads; by default one a core, or `PARTS_ON_A_CARD` where a card computes.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = count

    def run(self, parts: Sequence[Part], work: Work) -> Iterator[Outcome]:
        """Yield the outcome of every part as it comes to an end."""
        import torch

        cores = available_cores()
        usual = cores if work.device is None else PARTS_ON_A_CARD
        count = max(1, min(usual if self.count is None else self.count, len(parts)))
        work = replace(work, threads=max(1, cores // count))
        left, running = iter(parts), dict[Future[Outcome], Part]()
        before = torch.get_num_threads()
        with warnings.catch_warnings(), ThreadPoolExecutor(count) as pool:
            warnings.simplefilter("ignore")  # what there is to tell of a micrograph stands in its summary
            try:
                while True:
                    while len(running) < 2 * count and (part := next(left, None)) is not None:
                        running[pool.submit(do_part, part, work)] = part
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        yield _outcome(future, running.pop(future), work)
            finally:
                for future in running:
                    future.cancel()
                torch.set_num_threads(before)


class Dask:
    """Workers of a dask cluster, which see the inputs and the output folder under the same paths.

    A part whose worker dies is given to another one.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster.
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def run(self, parts: Sequence[Part], work: Work) -> Iterator[Outcome]:
        """Yield the outcome of every part as it comes to an end."""
        with needs_extra("batch"):
            from distributed import as_completed

        self.client.wait_for_workers(1)
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        limits = [each["memory_limit"] for each in workers if each["memory_limit"]]
        if limits:
            work = replace(work, memory=min(work.memory, int(_MEMORY_SHARE * min(limits))))
        resources = None if work.device is None else {CARD: 1.0 / PARTS_ON_A_CARD}
        if resources and not any(CARD in each["resources"] for each in workers):
            raise ValueError(
                f"--device: expected workers that have a card, got none; start them with `dask worker --resources "
                f"{CARD}=1`, one for each card"
            )
        ahead = 4 * sum(each["nthreads"] for each in workers) + 16
        left, running = iter(parts), dict[str, Part]()

        def submit() -> list[Any]:
            submitted = []
            while len(running) < ahead and (part := next(left, None)) is not None:
                future = self.client.submit(_do_part_quietly, part, work, pure=False, resources=resources)
                running[future.key] = part
                submitted.append(future)
            return submitted

        done = as_completed(submit(), loop=self.client.loop)
        for future in done:
            yield _outcome(future, running.pop(future.key), work)
            for more in submit():
                done.add(more)


def _do_part_quietly(part: Part, work: Work) -> Outcome:
    """Do a part in a process of a cluster, without a word of what stands in the summaries anyhow."""
    warnings.simplefilter("ignore", ContextemWarning)
    return do_part(part, work)


def _outcome(future: Any, part: Part, work: Work) -> Outcome:
    try:
        outcome: Outcome = future.result()
        return outcome
    except NoRoom:
        raise
    except Exception as error:  # noqa: BLE001 - whatever ended a worker is told in the summary
        return failed(part, work.options, error)


@contextmanager
def connected(address: str) -> Iterator[Dask]:
    """Yield the engine of a cluster that runs already.

    Parameters
    ----------
    address : str
        Of its scheduler, or the name of the file in which that has left it.

    Raises
    ------
    OSError
        If no scheduler answers there.
    """
    with needs_extra("batch"):
        from distributed import Client
    where = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    with Client(**where, set_as_default=False) as client:
        yield Dask(client)


@contextmanager
def local_cluster(workers: int, threads: int, memory: int) -> Iterator[Dask]:
    """Yield the engine of a cluster of processes on this machine, which listens on the loopback only.

    Parameters
    ----------
    workers : int
        Processes.
    threads : int
        Of each: parts that it does at once.
    memory : int
        Bytes that all of them may take.
    """
    with needs_extra("batch"):
        from distributed import Client, LocalCluster
    with (
        _kept_memory(),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            processes=True,
            host="127.0.0.1",
            memory_limit=memory // workers,
            dashboard_address=None,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield Dask(client)


@contextmanager
def card_cluster(cards: Sequence[str], memory: int) -> Iterator[Dask]:
    """Yield the engine of a cluster on this machine with a process for each card, which sees no other.

    Parameters
    ----------
    cards : sequence of str
        What CUDA calls them, as in CUDA_VISIBLE_DEVICES.
    memory : int
        Bytes of the machine that all processes may take.
    """
    with needs_extra("batch"):
        from distributed import Client, Nanny, Scheduler, SpecCluster
    workers = {
        card: {
            "cls": Nanny,
            "options": {
                "nthreads": PARTS_ON_A_CARD,
                "host": "127.0.0.1",
                "memory_limit": memory // len(cards),
                "resources": {CARD: 1.0},
                "env": {"CUDA_VISIBLE_DEVICES": card},
            },
        }
        for card in cards
    }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard": False}}
    with (
        _kept_memory(),
        SpecCluster(workers=workers, scheduler=scheduler) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield Dask(client)


def _kept_memory() -> Any:
    """Return a context in which workers start that keep memory for the next part."""
    with needs_extra("batch"):
        import dask

    before = "distributed.nanny.pre-spawn-environ."
    return dask.config.set({f"{before}{name}": value for name, value in _KEEP_MEMORY.items()})
