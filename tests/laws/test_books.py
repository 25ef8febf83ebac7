"""Laws 2, 3, 5, 7 and 8 over whole books: groups of depth, snapshots, gaps and trades, near and far levels."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.check import Subject, check_strategy
from engine.config import VenueModel
from engine.kernel import codes
from engine.kernel.levels import NONE, Half, below, volume_at
from engine.store import import_ticks, open_tape
from strategies.market_making import MarketMaking
from tests.laws.world import Fuzz, decode_depth, stage, subjects
from tests.store.test_ticks_real import REAL, books

real = pytest.mark.skipif(not REAL.is_dir(), reason="the shared sample of real data is not here")


@given(subjects(150, depth=True), st.integers(0, 1 << 30))
def test_any_strategy_keeps_every_law_on_books(subject: Subject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    subject.determinism()
    subject.chunking(rng, 2)
    subject.snapshot(rng, 2)
    subject.causality(rng, 1)
    subject.conservation(rng, 2)


@settings(max_examples=15)
@given(subjects(25, depth=True))
def test_plain_python_is_an_oracle_of_books(subject: Subject) -> None:
    subject.interpreter(25)


def test_one_event_at_a_time() -> None:
    """Groups are cut too: a book that is not whole waits like any other state."""
    subject = stage([Fuzz(seed=3)], decode_depth(np.random.default_rng(5).bytes(800), 2))
    drive = subject.prepared.drive()
    for until in range(len(subject.events) + 1):
        drive.advance(until)
    subject.same("chunking", drive.outputs(), "one event at a time")
    assert len(subject.whole.orders) > 10


@real
@pytest.mark.slow
def test_laws_on_a_recorded_book(tmp_path: Path) -> None:
    """And the book of the kernel is that of a dictionary, at any moment."""
    source = REAL / "binance_ws/usdm/btcusdt_20240718.gz"
    tape = open_tape(import_ticks("ws", source, vendor="binance_ws", recv_shift="auto", root=tmp_path))
    late = VenueModel(order_ms=1.0, report_ms=1.0, queue="power")
    done = check_strategy(MarketMaking(qty=0.01, limit=0.2), tape, events=40_000, short=2_300, tries=1, venue=late,
                          leverage=100.0)  # fmt: skip
    assert done.orders > 50
    subject = stage([MarketMaking(qty=0.01, move_ticks=1e9)], tape)
    for until in (5_000, 60_000, len(tape)):
        drive = subject.prepared.drive()
        drive.advance(until)
        past = tape.events[: drive.loop.index]
        bids, asks = [(b, a) for _, b, a in books(past)][-1]
        headers, sides = drive.machine.table("books_at"), drive.machine.table("halves_at")
        assert headers["groups"][0] == (past["last"][past["kind"] == codes.DEPTH] == 1).sum()
        assert (headers["crossed"], headers["lost"], headers["wrong"]) == (0, 0, 0)
        for row, sign, wanted in ((0, 1, bids), (1, -1, asks)):
            half, found = Half.view(sides, row), {}
            key = half.best
            while key != NONE:
                found[round(sign * key * 0.1, 1)] = volume_at(half, key)
                key = below(half, key)
            assert half.dropped == 0 and found == {round(p, 1): v for p, v in wanted.items()}
