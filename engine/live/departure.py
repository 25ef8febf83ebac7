"""Between the journal and the venue: orders wait until the disk has them.

Law 1: an order leaves after the journal's record of it is as safe as `sync_ms` asks for, and after all before it.
Law 2: what the disk does not take never leaves.

A disk that took less than a millisecond the last time is waited for at once: to wake a thread and to be woken by it
costs more. A slower one is waited for in a thread, and what is decided meanwhile goes with the next time.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from engine.errors import JournalError
from engine.journal import JournalWriter

Rows = np.ndarray[Any, Any]
QUICK_NS = 1_000_000
LIMIT_S = 10.0  # at the end: how long we wait for the disk


class Batch(NamedTuple):
    """Orders of one drain. `since`: when the first byte that led to them came, perf_counter ns; 0 unknown."""

    orders: Rows
    since: int


class Departure:
    """`leave` is called with each batch when it may go, `failed` with the error when the disk takes no more."""

    def __init__(self, journal: JournalWriter | None, leave: Callable[[Batch], None],
                 failed: Callable[[JournalError], None]) -> None:  # fmt: skip
        self._journal, self._leave, self._failed = journal, leave, failed
        self._held: list[Batch] = []
        self._forcing: asyncio.Future[Any] | None = None
        self._asked = 0.0
        self._thread = ThreadPoolExecutor(1, "disk")
        if journal is not None:
            journal.deferred = True

    @property
    def waiting(self) -> int:
        """Orders that wait for the disk."""
        return sum(len(batch.orders) for batch in self._held) + int(self._forcing is not None)

    @property
    def slow_s(self) -> float:
        """For how many seconds the disk has not answered."""
        return time.monotonic() - self._asked if self._forcing is not None else 0.0

    def put(self, batch: Batch) -> None:
        """Orders that the journal has."""
        if self._forcing is None and not (self._journal and self._journal.owed):
            self._leave(batch)
            return
        self._held.append(batch)
        if self._forcing is None:
            self._force()

    def _force(self) -> None:
        held, self._held = self._held, []
        assert self._journal is not None
        if 0 < self._journal.sync_ns < QUICK_NS:
            self._forced(self._journal.force()(), held)
            return
        self._asked = time.monotonic()
        self._forcing = asyncio.get_running_loop().run_in_executor(self._thread, self._journal.force())
        self._forcing.add_done_callback(lambda done: self._forced(done.result(), held))

    def _forced(self, result: "int | OSError", held: list[Batch]) -> None:
        self._forcing = None
        assert self._journal is not None
        try:
            self._journal.forced(result)
        except JournalError as error:
            self._failed(error)
            return
        for batch in held:
            self._leave(batch)
        if self._held:
            self._force()

    async def flush(self) -> bool:
        """Until everything has left, or never will; False when the disk does not answer in time."""
        until = time.monotonic() + LIMIT_S
        while self._forcing is not None and time.monotonic() < until:
            await asyncio.wait([self._forcing], timeout=until - time.monotonic())
            await asyncio.sleep(0)
        return self._forcing is None

    def close(self) -> None:
        """No thread any more."""
        self._thread.shutdown(wait=False)
