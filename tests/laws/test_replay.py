"""Law 1: replay(journal) = its orders, byte for byte; and what is not the same is named."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.check import Subject, uncompiled
from backtest.parity import Parity
from backtest.run import Prepared
from engine.config import Risk, VenueModel
from engine.errors import ConfigError, ImageError, JournalError
from engine.journal import Journal, JournalWriter
from engine.journal import format as form
from engine.journal.format import EVENTS, ORDERS
from engine.kernel import codes
from engine.replay import pieces, replay
from engine.session_loop import PROGRAM
from strategies import MarketMaking
from tests.backtest.test_ticks import random_ticks
from tests.laws.world import MINUTE, SIZES, Fuzz, FuzzAll, decode, stage, subjects

CLASSES = {"Fuzz": Fuzz, "FuzzAll": FuzzAll, "MarketMaking": MarketMaking}


@given(subjects())
def test_on_bars(subject: Subject) -> None:
    subject.replay()


@given(st.integers(0, 999), st.sampled_from([Fuzz, FuzzAll, MarketMaking]))
def test_on_ticks(seed: int, kind: type) -> None:
    given_ = [kind() if kind is MarketMaking else kind(seed=seed)]
    venue = VenueModel(order_ms=1.0, report_ms=1.0, feed_ms=0.5)
    Subject(
        Prepared(given_, random_ticks(seed, 300), 1e5, Risk(leverage=4.0), venue, True, SIZES, "raise", None)
    ).replay()


def journal_of(folder: Path, seed: int = 4, compiled: bool = False, seal: bool = True, **settings: Any) -> Parity:
    """A session in plain Python, with its journal."""
    tape = decode(np.random.default_rng(seed).bytes(6 * 60), 2, MINUTE)
    prepared = stage([Fuzz(seed=8), FuzzAll(seed=9)], tape).prepared
    prepared = prepared if compiled else uncompiled(prepared)
    journal = JournalWriter(folder, prepared.plan().header(PROGRAM), sync_ms=math.inf, **settings)
    parity = Parity(prepared, journal)
    parity.run()
    if seal:
        journal.seal()
    return parity


def test_the_outcome_in_words(tmp_path: Path) -> None:
    parity = journal_of(tmp_path / "j", segment_bytes=10_000)
    orders = sum(len(rows) for rows in parity.written["orders"])
    assert len(list((tmp_path / "j").glob("*.tape"))) > 1
    journal = Journal(tmp_path / "j")
    events = len(journal.rows(EVENTS))
    assert str(replay(tmp_path / "j", CLASSES.__getitem__)) == f"identical: {events} events, {orders} orders"


def rewritten(folder: Path, change: Any) -> None:
    """The same journal with some of its blocks changed."""
    journal = Journal(folder)
    blocks = [(b.kind, np.array(b.rows()) if b.kind in form.RECORDS else b.words()) for b in journal.blocks()]
    for path in folder.glob("*.tape"):
        path.unlink()
    writer = JournalWriter(folder, journal.header, sync_ms=math.inf)
    for kind, rows in change(blocks):
        {EVENTS: writer.events, ORDERS: writer.orders, form.REFUSALS: writer.refusals}[kind](rows)
    writer.seal()


def test_the_first_difference_is_named(tmp_path: Path) -> None:
    journal_of(tmp_path / "j")

    first = [b.first for b in Journal(tmp_path / "j").blocks() if b.kind == ORDERS][3]

    def change(blocks: Any) -> Any:
        orders = [rows for kind, rows in blocks if kind == ORDERS]
        orders[3]["qty"][0] += 7
        orders[5]["side"][0] = 0
        return blocks

    rewritten(tmp_path / "j", change)
    said = str(replay(tmp_path / "j", CLASSES.__getitem__))
    number = sum(len(b.rows()) for b in Journal(tmp_path / "j").blocks() if b.kind == ORDERS and b.first < first)
    assert f"of the orders differs: order {number} (" in said and ", qty " in said and "side" not in said
    assert ". Before it: event " in said and " of I" in said and " at 2020-01-0" in said


def test_orders_that_are_missing_or_too_many(tmp_path: Path) -> None:
    journal_of(tmp_path / "j")
    rewritten(tmp_path / "j", lambda blocks: [b for b in blocks if b[0] != ORDERS])
    assert str(replay(tmp_path / "j", CLASSES.__getitem__)).startswith("order 0 (1099511627777) did not exist")
    journal_of(tmp_path / "k")
    rewritten(tmp_path / "k", lambda blocks: [*blocks, next(b for b in blocks if b[0] == ORDERS)])
    assert "did not come again. Before it: event " in str(replay(tmp_path / "k", CLASSES.__getitem__))


def test_a_changed_event_is_found_out(tmp_path: Path) -> None:
    """Any price that mattered: the orders are not those of the journal."""
    journal_of(tmp_path / "j")

    def change(blocks: Any) -> Any:
        for rows in [rows for kind, rows in blocks if kind == EVENTS and rows["kind"][0] == codes.BAR][5:]:
            rows["close"] *= 1.5
        return blocks

    rewritten(tmp_path / "j", change)
    assert replay(tmp_path / "j", CLASSES.__getitem__).difference


def test_a_journal_without_a_seal_may_lack_its_last_orders(tmp_path: Path) -> None:
    journal_of(tmp_path / "j", seal=False)
    path = tmp_path / "j" / "000000.tape"
    blocks = list(Journal(tmp_path / "j").blocks())
    last = max(n for n, b in enumerate(blocks) if b.kind == ORDERS)
    behind = sum(64 + b.payload.nbytes for b in blocks[last:])
    path.write_bytes(path.read_bytes()[: -behind + 100])
    found = replay(tmp_path / "j", CLASSES.__getitem__)
    assert not found.difference and "The last block of 000000.tape is not whole" in found.notes[0]
    assert "orders of the last events were not written" in found.notes[1]


def test_what_ran_then_must_be_what_runs(tmp_path: Path) -> None:
    journal_of(tmp_path / "j", compiled=True)
    journal = Journal(tmp_path / "j")
    assert not replay(tmp_path / "j", CLASSES.__getitem__).difference
    changed = {**journal.header, "kernel": "0" * 32}
    strategies = [{**one, "image": "f" * 32} for one in journal.header["strategies"]]
    layouts = [{**one, "layout": "?"} for one in journal.header["strategies"]]
    for header, error, words in (
        (changed, ImageError, r"written by the kernel 0{32}.*images=present"),
        ({**journal.header, "strategies": strategies}, ImageError, r"Fuzz is not what it was.*f{32} is asked for"),
        ({**journal.header, "strategies": layouts}, ConfigError, "the fields of Fuzz are not those that ran then"),
    ):
        for path in (tmp_path / "j").glob("*"):
            path.unlink()
        JournalWriter(tmp_path / "j", header).seal()
        with pytest.raises(error, match=words):
            replay(tmp_path / "j", CLASSES.__getitem__)
    assert "present sources" in str(replay_present(tmp_path / "k"))


def replay_present(folder: Path) -> Any:
    journal_of(folder, compiled=True)
    return replay(folder, CLASSES.__getitem__, exact=False)


def test_other_layouts_of_records_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(form, "layouts", lambda: "00000000")
        JournalWriter(tmp_path / "j", {"versions": "0.1"}).seal()
    with pytest.raises(JournalError, match=r"other record layouts .* \(0.1\)"):
        Journal(tmp_path / "j")


@given(st.integers(1, 50))
def test_pieces_lose_nothing(size: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        journal = JournalWriter(Path(folder), {}, sync_ms=math.inf)
        rng = np.random.default_rng(size)
        for _ in range(30):
            journal.events(np.frombuffer(rng.bytes(64 * int(rng.integers(1, 9))), form.RECORDS[EVENTS]))
            journal.orders(np.frombuffer(rng.bytes(64 * int(rng.integers(0, 3))), form.RECORDS[ORDERS]))
        journal.close()
        found = list(pieces(Journal(folder).blocks(), size))
        assert b"".join(p.events.tobytes() for p in found) == Journal(folder).rows(EVENTS).tobytes()
        assert b"".join(p.orders for p in found) == Journal(folder).rows(ORDERS).tobytes()
        assert all(len(p.events) >= size for p in found[:-1])
