"""Orders wait for the disk: what it does not take never leaves, and one that does not answer is seen."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import JournalError
from engine.journal import JournalWriter, writer
from engine.kernel.events import Event
from engine.live import departure
from engine.live.departure import Batch, Departure
from tests.live.conftest import until
from tests.live.events import order

Run = Callable[..., Any]
FULL = OSError(errno.ENOSPC, "No space left on device")


class Gate:
    """A journal, its departure, what has left, what has failed."""

    def __init__(self, folder: Path) -> None:
        self.journal = JournalWriter(folder / "j", {"session": 1})
        self.left, self.failures = list[int](), list[str]()
        self.departure = Departure(self.journal, lambda batch: self.left.extend(batch.orders["id"].tolist()),
                                   lambda error: self.failures.append(str(error)))  # fmt: skip

    def put(self, number: int) -> None:
        rows = order(number)
        self.journal.orders(rows)
        self.departure.put(Batch(rows, 0))


def refuse(error: OSError) -> Callable[..., Any]:
    def refusing(*args: Any) -> Any:
        raise error

    return refusing


def test_orders_leave_in_their_order_once_the_disk_has_them(run: Run, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    async def main() -> None:
        gate, may, plain = Gate(tmp_path), threading.Event(), os.fdatasync
        monkeypatch.setattr(writer.os, "fdatasync", lambda file: (may.wait(5.0), plain(file)))
        for n in (1, 2, 3):
            gate.put(n)
        await asyncio.sleep(0.05)
        assert not gate.left and gate.departure.slow_s > 0.04
        may.set()
        assert await gate.departure.flush()
        assert gate.left == [1, 2, 3] and not gate.failures and gate.departure.slow_s == 0.0
        gate.departure.close()

    run(main())


@pytest.mark.parametrize(("took_ns", "at_once"), [(0, False), (999_999, True), (1_000_000, False)])
def test_a_quick_disk_is_waited_for_at_once(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took_ns: int,
                                            at_once: bool) -> None:  # fmt: skip
    """`took_ns`: the last time, 0 when there was none."""

    async def main() -> None:
        gate = Gate(tmp_path)
        gate.journal.sync_ns = took_ns
        gate.put(1)
        assert gate.left == [1] * at_once and gate.departure.waiting == int(not at_once)
        assert await gate.departure.flush() and gate.left == [1] and gate.journal.sync_ns > 0
        gate.journal.sync_ns = took_ns
        monkeypatch.setattr(writer.os, "fdatasync", refuse(OSError(errno.EIO, "Input/output error")))
        gate.put(2)
        await until(lambda: gate.failures)
        assert gate.left == [1] and "Input/output" in gate.failures[0]
        gate.departure.close()

    run(main())


@pytest.mark.parametrize("name", ["fdatasync", "dup"])
def test_what_the_disk_does_not_take_never_leaves(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  name: str) -> None:  # fmt: skip
    async def main() -> None:
        gate = Gate(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(writer.os, name, refuse(OSError(errno.EMFILE, "Too many open files")))
            gate.put(1)
            await until(lambda: gate.failures)
        with pytest.raises(JournalError):
            gate.put(2)
        assert await gate.departure.flush() and not gate.left and len(gate.failures) == 1
        gate.departure.close()

    run(main())


def test_an_error_that_the_system_told_somebody_else_counts(run: Run, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """The system tells of a failed write once; who asks next is told that all is well."""

    async def main() -> None:
        gate, may = Gate(tmp_path), threading.Event()
        monkeypatch.setattr(writer.os, "fdatasync", lambda file: may.wait(5.0))
        gate.put(1)
        with monkeypatch.context() as patch:
            patch.setattr(writer, "forcing", lambda file, close=False: OSError(errno.EIO, "Input/output error"))
            with pytest.raises(JournalError, match="Input/output"):
                gate.journal.sync()
        may.set()
        await until(lambda: gate.failures)
        assert not gate.left
        gate.departure.close()

    run(main())


def test_a_disk_that_does_not_answer_is_not_waited_for_forever(run: Run, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    async def main() -> None:
        gate, may = Gate(tmp_path), threading.Event()
        monkeypatch.setattr(writer.os, "fdatasync", lambda file: may.wait(20.0))
        monkeypatch.setattr(departure, "LIMIT_S", 0.1)
        gate.put(1)
        assert not await gate.departure.flush()
        gate.departure.close()
        assert not gate.left
        may.set()

    run(main())


def test_nothing_follows_orders_that_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has gone on, its orders are on no journal: whatever came behind could not be replayed."""
    journal = JournalWriter(tmp_path / "j", {"session": 1})
    journal.events(np.zeros(1, Event.dtype))
    with monkeypatch.context() as patch:
        patch.setattr(writer.os, "pwritev", refuse(FULL))
        with pytest.raises(JournalError, match="the disk is full"):
            journal.events(np.zeros(1, Event.dtype))
    journal.events(np.zeros(1, Event.dtype))  # the kernel has not seen those: they may come again
    with monkeypatch.context() as patch:
        patch.setattr(writer.os, "pwritev", refuse(FULL))
        with pytest.raises(JournalError, match="the disk is full"):
            journal.orders(order(1))
    for again in (lambda: journal.events(np.zeros(1, Event.dtype)), journal.sync, journal.seal):
        with pytest.raises(JournalError, match="open it again"):
            again()
