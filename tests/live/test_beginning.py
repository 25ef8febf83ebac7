"""An engine before its venue has been heard, and what it says of itself; all but the kernel is plain values."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.errors import JournalError, VenueError
from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.records import Order
from engine.live import agree as module
from engine.live import engine as engine_module
from engine.live import ready
from engine.live.engine import Engine, Seat
from engine.ports import Standing, VenueView
from engine.session import Session
from tests.kernel.desk import SECOND, Desk
from tests.live.conftest import until

Run = Callable[..., Any]
NONE = np.zeros(0, Event.dtype)


class Venue:
    """Away until `says` is given."""

    def __init__(self) -> None:
        self.says: Callable[[list[int]], VenueView] | None = None
        self.asked, self.fenced, self.connected, self.waiting, self.in_doubt = 0, False, True, 0, 0
        self.sent: list[tuple[int, int, int]] = []  # action, id, lots

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def reports(self, since: int) -> Any:
        return NONE

    def drain(self) -> Any:
        return NONE

    def send(self, orders: Any) -> None:
        self.sent += [(int(o["action"]), int(o["id"]), int(o["qty"] * o["side"])) for o in orders]

    async def query(self, ids: list[int], since: int) -> VenueView:
        self.asked += 1
        await asyncio.sleep(0)
        if self.says is None:
            raise VenueError("away.")
        return self.says(ids)


class Quiet:
    """A bus or a feed on which nothing happens, and which is there."""

    def __init__(self) -> None:
        self.connected, self.counts, self.inbox = True, Counter({"events": 1}), SimpleNamespace(silent=())
        self.rows: list[Any] = []

    async def start(self, *wake: Any) -> None: ...

    async def stop(self) -> None: ...

    async def listen(self, *words: Any) -> None: ...

    async def bind(self, *words: Any) -> None: ...

    async def leave(self, *words: Any) -> None: ...

    def publish(self, *words: Any) -> None: ...

    def drain(self) -> Any:
        return self.rows.pop(0) if self.rows else NONE


def begun(desk: Desk, venue: Venue, feed: Quiet) -> Engine:
    """An engine on all that."""

    async def nothing() -> None: ...

    lease = SimpleNamespace(valid=True, whole=True, release=nothing)
    plan = SimpleNamespace(names=("scripted",), compiled=False)
    session, names = Session(desk.machine, compiled=False), SimpleNamespace(names=("A", "B"))
    everything: Any = (plan, session, names, feed, venue, lease, Quiet(), None, None)
    seat = Seat("e", "a", resend_s=3600.0, cancel=False, durable=False)
    return Engine(seat, *everything, clock=lambda: desk.now + SECOND)


@pytest.mark.parametrize("flatten", [False, True])
def test_a_kill_is_heard_while_the_venue_is_away(flatten: bool, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is done at once, and of what never arrived nothing new is sent again; positions are flattened as they are."""
    desk, venue = Desk(), Venue()
    desk.report(desk.wish(lambda ctx: ctx.buy(4.0, 99.0))[0], codes.FILL, 4, 99.0)
    (order,) = desk.wish(lambda ctx: ctx.buy(10.0, 99.0))
    row = np.zeros(1, Order.dtype)
    for name, value in order.items():
        row[name] = value
    monkeypatch.setattr(module, "instructions", lambda *words: {order["id"]: row})

    async def main() -> None:
        engine, stop = begun(desk, venue, Quiet()), asyncio.Event()
        engine.session.journal = SimpleNamespace(  # type: ignore[assignment]
            folder=Path(), events=lambda rows: None, orders=lambda rows: None, refusals=lambda rows: None,
            sync=lambda: None, seal=lambda: None, written=0, place=SimpleNamespace(orders=0))  # fmt: skip
        engine.session.snapshot = lambda: None  # type: ignore[method-assign]
        monkeypatch.setattr(module, "Journal", lambda folder: None)
        running = asyncio.create_task(engine.run(stop))
        await until(lambda: venue.asked)
        killing = asyncio.create_task(engine.command(codes.KILL, amount=float(flatten)))
        await until(lambda: desk.k.killed and (flatten or killing.done()))
        assert venue.sent == [(codes.CANCEL, order["id"], 10)]
        venue.says = lambda ids: VenueView(dict.fromkeys(ids), [], NONE, 0, desk.exec_id, np.array([3, 0]))
        await killing
        await until(lambda: engine.reconciled)
        fresh = [lots for action, _, lots in venue.sent if action == codes.NEW]
        assert fresh == ([-3] if flatten else []), "what is flattened is what the venue holds"
        stop.set()
        await running

    run(main())


def test_a_position_is_taken_over_at_the_first_price(run: Run) -> None:
    """Feeds begin before the venue is agreed with; what they show is looked at only."""

    async def main() -> None:
        desk, venue, feed = Desk(cash=100_000.0), Venue(), Quiet()
        venue.says = lambda ids: VenueView({}, [], NONE, 0, 0, np.array([1000, 0]))
        engine, stop = begun(desk, venue, feed), asyncio.Event()
        running = asyncio.create_task(engine.run(stop))
        await until(lambda: venue.asked >= 3)
        assert not engine.reconciled and desk.k.held == 0
        rows = np.zeros(2, Event.dtype)
        rows["kind"], rows["instrument"] = codes.QUOTE, (1, 0)
        rows["bid"], rows["ask"] = 49.0, 51.0
        feed.rows.append(rows)
        await until(lambda: engine.reconciled)
        assert desk.machine.table("markets_at")["net"].tolist() == [1000, 0]
        assert desk.k.cash == 50_000.0 and desk.k.cash + desk.k.value == desk.k.day_equity == 100_000.0
        stop.set()
        await running

    run(main())


def test_positions_are_compared_while_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    desk.report(desk.wish(lambda ctx: ctx.buy(4.0, 99.0))[0], codes.FILL, 4, 99.0)
    reports = SimpleNamespace(positions={0: (4, 0.0)}, positions_exec=desk.exec_id)
    engine = SimpleNamespace(session=SimpleNamespace(machine=desk.machine), reports=reports, differs="",
                             lease=SimpleNamespace(whole=True), names=SimpleNamespace(names=("A", "B")))  # fmt: skip
    ready.compare(engine)
    assert engine.differs == ""
    reports.positions, reports.positions_exec = {1: (2, 0.0)}, desk.exec_id + 1
    ready.compare(engine)
    assert engine.differs == "", "they are as of a report that we do not have yet"
    reports.positions_exec = desk.exec_id
    for _ in range(2):
        ready.compare(engine)
    assert engine.differs == "A 0 (ours 4), B 2 (ours 0)"
    assert len(caplog.records) == 1 and "as of report 1: A 0 (ours 4)" in caplog.text
    reports.positions = {0: (4, 0.0)}
    ready.compare(engine)
    assert engine.differs == ""


def test_feeds_that_are_not_fresh(run: Run) -> None:
    async def main() -> None:
        desk, feed = Desk(), Quiet()
        engine = begun(desk, Venue(), feed)
        engine.reconciled = True
        assert engine.readiness() == []
        feed.inbox.silent, engine.differs = ["md.raw (source 1)"], "A 0 (ours 4)"
        assert engine.readiness() == ["market data are silent: md.raw (source 1)",
                                      "the venue holds other positions than we do: A 0 (ours 4)"]  # fmt: skip
        feed.inbox.silent, engine.differs, feed.counts = [], "", Counter()
        assert engine.readiness() == ["no market data has come yet"]
        engine.departure.close()

    run(main())


def test_who_waits_when_it_ends_is_told(run: Run) -> None:
    """A flatten that waits for the venue, and whatever comes later."""

    async def main() -> None:
        desk, venue = Desk(), Venue()
        desk.report(desk.wish(lambda ctx: ctx.buy(4.0, 99.0))[0], codes.FILL, 4, 99.0)
        engine, stop = begun(desk, venue, Quiet()), asyncio.Event()
        running = asyncio.create_task(engine.run(stop))
        await until(lambda: venue.asked)
        killing = asyncio.create_task(engine.command(codes.KILL, amount=1.0))
        await until(lambda: desk.k.killed, 1.0)
        stop.set()
        for waiting in (killing, running):
            with contextlib.suppress(VenueError):
                await waiting
        for late in (killing, asyncio.create_task(engine.command(codes.CLEAR_KILL)), engine.reload(0, None, {})):
            with pytest.raises(VenueError, match="the engine is ending: nothing was done"):
                await late

    run(main())


def test_a_reload_that_the_journal_does_not_take_ends_the_engine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        desk, venue = Desk(), Venue()
        venue.says = lambda ids: VenueView({}, [], NONE, 0, desk.exec_id, np.array([0, 0]))
        engine, stop = begun(desk, venue, Quiet()), asyncio.Event()
        engine.find = lambda name: type(desk.machine.placed[0].strategy)  # type: ignore[assignment]
        monkeypatch.setattr(engine_module, "handlers_of", lambda kind, compiled: ({}, "f" * 12))

        def full(*words: Any, **more: Any) -> Any:
            raise JournalError("the disk is full.")

        engine.session.reload = full  # type: ignore[method-assign]
        running = asyncio.create_task(engine.run(stop))
        await until(lambda: engine.listening)
        with pytest.raises(JournalError, match="the disk is full"):
            await engine.reload(0, None, {})
        with pytest.raises(JournalError, match="the disk is full"):
            await running
        assert engine.why == "the disk is full." and not venue.sent

    run(main())


def test_a_view_that_is_older_than_the_kernel_is_not_reconciled(run: Run) -> None:
    """A report came while the venue was asked: what it said of positions is no longer so."""

    async def main() -> None:
        desk, venue = Desk(), Venue()
        (order,) = desk.wish(lambda ctx: ctx.buy(4.0, 99.0))
        desk.report(order, codes.ACK)

        def says(ids: list[int]) -> VenueView:
            if venue.asked == 1:  # after it has answered the fill is reported, and is here first
                old = VenueView({i: Standing(i, 0, 1, 4, 0, 99.0, 0.0, codes.WORKING) for i in ids}, [], NONE, 0,
                                desk.exec_id, np.array([0, 0]))  # fmt: skip
                desk.report(order, codes.FILL, 4, 99.0)
                return old
            return VenueView({}, [], NONE, 0, desk.exec_id, np.array([4, 0]))

        venue.says = says
        engine, stop = begun(desk, venue, Quiet()), asyncio.Event()
        running = asyncio.create_task(engine.run(stop))
        await until(lambda: engine.reconciled)
        assert venue.asked == 2 and desk.position() == 4 and engine.stats.corrected == 0
        stop.set()
        await running

    run(main())
