"""Long runs: outputs in small buffers that are written while the loop goes on, pages that come ahead of it."""

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtest import drive, prepare, run, spool
from backtest.spool import Spool
from engine.errors import DataError
from engine.kernel.machine import Sizes
from engine.kernel.records import Order
from engine.store.synthetic import synthetic_frame, synthetic_tape
from engine.store.tape import fetch, read_tape, write_tape
from strategies import MarketMaking, Momentum

SMALL = Sizes(orders=64, signals=64, outbox=64, refusals=64)


@pytest.mark.parametrize("in_memory", [0, 20_000, 1 << 24])
@pytest.mark.parametrize("data", [synthetic_frame(4000, 2, seed=3), "ticks"], ids=["bars", "ticks"])
def test_small_buffers_give_the_same_bytes(data: Any, in_memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = MarketMaking() if isinstance(data, str) else Momentum(fast=2, slow=5, short=True)
    about = {"end": "2024-01-02T09:40"} if isinstance(data, str) else {}
    one = prepare(strategy, data, sizes=SMALL, **about).run()
    assert len(one.raw["orders"]) > 800
    monkeypatch.setattr(drive, "LONG", 10)
    monkeypatch.setattr(drive, "LONG_ROOM", 64)
    monkeypatch.setattr(spool, "IN_MEMORY", in_memory)
    monkeypatch.setattr(run, "PIECE", 700)
    two = prepare(strategy, data, sizes=SMALL, **about).run()
    for name in ("orders", "reports", "refusals", "curve"):
        assert one.raw[name].tobytes() == two.raw[name].tobytes(), name
    assert isinstance(two.raw["reports"], np.memmap) == (in_memory < 1 << 20)


def test_a_full_disk_is_told_whenever_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 0)
    rows = np.zeros(100, Order.dtype)

    class Full:
        def write(self, content: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    for second in ("add", "array"):
        found = Spool(Order.dtype)
        found.add(rows)
        found.array()
        found._file.close()
        found._file = Full()
        found.add(rows)
        with pytest.raises(DataError, match=r"do not fit into .*No space left.*TANDEM_CACHE"):
            found.array() if second == "array" else found.add(rows)


def test_pages_come_ahead_and_change_nothing(tmp_path: Path) -> None:
    tape = synthetic_tape(5000, 2, seed=1)
    with write_tape(tmp_path / "x.tape", tape.instruments, tape.digest, "x") as writer:
        writer.append(tape.events)
    mapped = read_tape(tmp_path / "x.tape").events
    before = mapped.tobytes()
    for events in (mapped, mapped[3:7], mapped[9_000:], mapped[:0], tape.events):
        fetch(events)
    assert mapped.tobytes() == before == tape.events.tobytes()


def test_buffers_are_used_again_and_never_shared() -> None:
    """In several threads, and while others end: what somebody looks into is nobody else's."""

    def work(number: int) -> bool:
        good = True
        for turn in range(200):
            rows = spool.buffer(np.dtype("i8"), 1 + (number * 37 + turn) % 500)
            good &= len(rows) >= 1 + (number * 37 + turn) % 500
            rows[:] = number
            part = rows[len(rows) // 2 :]
            del rows
            other = spool.buffer(np.dtype("i8"), 64)
            other[:] = -1
            good &= bool((part == number).all())
        return good

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    spool._free.clear()
    first = spool.buffer(np.dtype("i8"), 1 << 13)
    place = first.ctypes.data
    del first
    assert spool.buffer(np.dtype("i8"), 1 << 13).ctypes.data == place
