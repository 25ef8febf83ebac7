"""Reports over a real NATS: in order, each once, however they are delivered; and the order itself, without a server."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError, VenueError, WireError
from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.records import Refusal
from engine.live import nats_bus
from engine.live.announce import Voice
from engine.live.messages import orders_of, parsed, report_batch
from engine.live.nats_bus import Bus, checked
from engine.live.quarantine import Quarantine
from engine.live.reports import BEHIND_S, ReportFeed, ReportPublisher, Sequencer
from engine.live.servers import Server
from engine.live.wire import order_pb2, status_pb2
from tests.live.conftest import until
from tests.live.events import NAMES, order, report, same

Run = Callable[..., Any]
numbers = itertools.count()


def reports(first: int, last: int) -> Any:
    """Reports with exec ids from first to last."""
    rows = np.repeat(report(1).view("V64"), last - first + 1).view(Event.dtype)
    rows["exec_id"] = np.arange(first, last + 1)
    return rows


@given(batches=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 5)), max_size=40), last=st.integers(0, 5))
def test_whatever_is_delivered_comes_out_in_order(batches: list[tuple[int, int]], last: int) -> None:
    sequencer, out = Sequencer(last), []
    for first, count in batches:
        out += sequencer.offer(reports(first, first + count - 1))["exec_id"].tolist()
    seen = {n for first, count in batches for n in range(first, first + count)}
    reach = next(n for n in itertools.count(last + 1) if n not in seen)
    assert out == list(range(last + 1, reach)) and sequencer.last == reach - 1
    assert sequencer.hole == any(n > reach for n in seen)
    out += sequencer.skip(reach)["exec_id"].tolist()
    assert out == [n for n in range(last + 1, sequencer.last + 1) if n != reach]


class Side:
    """An engine's side: a feed, all that it has drained, and a venue that can be asked."""

    def __init__(self, url: str, account: str, last: int, durable: bool) -> None:
        self.bus, self.rows, self.asked = Bus(url, "engine"), list[int](), list[int]()
        self.venue: Any = reports(1, 0)
        self.feed = ReportFeed(self.bus, NAMES, account, "e1", Quarantine(), self.fetch, last, durable, hole_s=0.2)

    async def fetch(self, since: int) -> Any:
        self.asked.append(since)
        if self.venue is None:
            raise VenueError("venue: not reachable")
        return self.venue[self.venue["exec_id"] > since]

    def read(self) -> list[int]:
        """Drain, and say that it is journalled; all exec ids so far."""
        self.rows += self.feed.drain()["exec_id"].tolist()
        self.feed.journalled()
        return self.rows


@contextlib.asynccontextmanager
async def side(url: str, account: str, last: int = 0, durable: bool = True) -> AsyncIterator[Side]:
    one = Side(url, account, last, durable)
    await one.bus.start()
    await one.feed.start(lambda: None)
    try:
        yield one
    finally:
        await one.feed.stop()
        await one.bus.stop()


@contextlib.asynccontextmanager
async def venue(url: str, account: str, durable: bool = True) -> AsyncIterator[ReportPublisher]:
    bus = Bus(url, "venue")
    await bus.start()
    publisher = ReportPublisher(bus, NAMES, account, durable)
    await publisher.start()
    try:
        yield publisher
    finally:
        await publisher.stop()
        await bus.stop()


def fresh() -> str:
    """An account that no other test uses."""
    return f"a{next(numbers)}-{random.randrange(1 << 32)}"


@pytest.mark.parametrize("durable", [True, False])
def test_from_a_venue_to_an_engine(nats: Server, run: Run, durable: bool) -> None:
    async def main() -> None:
        account = fresh()
        async with side(nats.url, account, 0, durable) as engine, venue(nats.url, account, durable) as publisher:
            for n in range(1, 100, 3):
                publisher.publish(reports(n, n + 2))
            publisher.publish(reports(100, 5000))
            await until(lambda: len(engine.read()) == 5000)
            assert engine.rows == list(range(1, 5001))
            await until(lambda: publisher.published == 5000 and publisher.waiting == 0)
            publisher.positions({0: (5, 10.5), 1: (0, 0.0)}, 5000, 1)
            await until(lambda: engine.feed.positions)
            assert (engine.feed.positions, engine.feed.positions_exec) == ({0: (5, 10.5)}, 5000)
            assert not engine.asked and not engine.feed.behind

    run(main())


def test_what_was_not_journalled_comes_again(nats: Server, run: Run) -> None:
    async def main() -> None:
        account = fresh()
        async with venue(nats.url, account) as publisher:
            async with side(nats.url, account) as first:
                publisher.publish(reports(1, 4))
                await until(lambda: len(first.read()) == 4)
                await until(lambda: not first.feed._unacknowledged)
                publisher.publish(reports(5, 8))
                await until(lambda: len(first.feed.drain()) == 4)  # drained, but never in a journal
            publisher.publish(reports(9, 12))  # while nobody is there
            await until(lambda: publisher.published == 12)
            async with side(nats.url, account, last=4) as again:
                await until(lambda: len(again.read()) == 8, 15.0)
                assert again.rows == list(range(5, 13))
            async with side(nats.url, account, last=12) as third:
                await asyncio.sleep(0.3)
                assert third.read() == [] and third.feed.sequencer.repeated == 0, "all of it is acknowledged"

    run(main())


def test_a_hole_is_filled_by_the_venue(nats: Server, run: Run) -> None:
    async def main() -> None:
        account = fresh()
        async with side(nats.url, account, 0, durable=False) as engine, venue(nats.url, account, False) as publisher:
            engine.venue = None
            publisher.publish(reports(3, 4))
            await until(lambda: len(engine.asked) == 2)
            assert engine.read() == []
            engine.venue = reports(1, 9)
            await until(lambda: len(engine.read()) == 9)
            assert engine.asked == [0] * len(engine.asked)
            engine.venue = reports(1, 12)
            publisher.positions({}, 12, 1)  # the tail was lost: only the positions tell
            await until(lambda: len(engine.read()) == 12)
            assert engine.rows == list(range(1, 13)) and engine.asked[-1] == 9

    run(main())


def test_a_venue_that_lost_its_state_is_noticed(nats: Server, run: Run) -> None:
    async def main() -> None:
        account = fresh()
        async with side(nats.url, account, 100, durable=False) as engine, venue(nats.url, account, False) as publisher:
            for n in (3, 4, 5):
                assert not engine.feed.behind
                publisher.positions({}, n, 1)
                await until(lambda n=n: engine.feed.positions_exec == n)
                await asyncio.sleep((n == 4) * 1.1 * BEHIND_S)
            assert engine.feed.behind

    run(main())


def test_positions_that_waited_are_no_lost_state(nats: Server, run: Run) -> None:
    """Who was held up for seconds, by a disk or a debugger, hears old positions after newer reports."""

    async def main() -> None:
        account = fresh()
        async with side(nats.url, account, 0, durable=False) as engine, venue(nats.url, account, False) as publisher:
            publisher.publish(reports(1, 9))
            await until(lambda: len(engine.read()) == 9)
            for n in (3, 5, 7):
                publisher.positions({}, n, 1)
            await until(lambda: engine.feed.positions_exec == 7)
            await asyncio.sleep(1.1 * BEHIND_S)
            publisher.positions({}, 9, 1)
            await until(lambda: engine.feed.positions_exec == 9)
            assert not engine.feed.behind

    run(main())


def test_bad_messages_do_no_harm(nats: Server, run: Run) -> None:
    async def main() -> None:
        account = fresh()
        async with side(nats.url, account) as engine, venue(nats.url, account) as publisher:
            for payload in (b"\xff\xff", b"", report_batch(reports(1, 1), NAMES, "a", 1).SerializeToString()[2:]):
                await publisher.bus.keep(publisher.subject, payload, f"{account}{len(payload)}")
            strange = report_batch(reports(1, 3), NAMES, "a", 3)
            strange.reports[1].instrument = "ORCL"
            await publisher.bus.keep(publisher.subject, strange.SerializeToString(), account)
            await until(lambda: len(engine.read()) == 2)
            assert engine.rows == [1, 3], "the sequence goes on behind what cannot be used"
            assert engine.feed.quarantine.counts.total() == 4 and engine.feed.quarantine.counts["report"] == 1
            await until(lambda: engine.read() and not engine.feed._unacknowledged)

    run(main())


def test_what_cannot_be_used_is_acknowledged_all_the_same(nats: Server, run: Run) -> None:
    async def main() -> None:
        account = fresh()
        async with side(nats.url, account) as engine, venue(nats.url, account) as publisher:
            publisher.publish(reports(1, 1))
            await until(lambda: len(engine.read()) == 1)
            for n, (name, value) in enumerate((("instrument", "ORCL"), ("price", float("nan")), ("fee", float("inf")))):
                strange = report_batch(reports(n + 2, n + 2), NAMES, "a", n + 2)
                setattr(strange.reports[0], name, value)
                strange.reports[0].code = codes.FILL
                await publisher.bus.keep(publisher.subject, strange.SerializeToString(), f"{account}{n}")
            await until(lambda: engine.feed.quarantine.counts["report"] == 3)
            await until(lambda: not engine.feed._unacknowledged)
            assert engine.read() == [1] and engine.feed.sequencer.last == 4

    run(main())


def test_a_hole_that_cannot_be_used_does_not_hold_back_the_rest(nats: Server, run: Run) -> None:
    """The venue's answer leaves out what is of no instrument of ours."""

    async def main() -> None:
        account = fresh()
        async with side(nats.url, account, 0, durable=False) as engine, venue(nats.url, account, False) as publisher:
            engine.venue = np.concatenate([reports(1, 2).view("V64"), reports(4, 6).view("V64")]).view(Event.dtype)
            publisher.publish(reports(5, 6))
            await until(lambda: len(engine.read()) == 5)
            assert engine.rows == [1, 2, 4, 5, 6] and not engine.feed.missing
            engine.venue = None
            publisher.publish(reports(8, 8))
            await until(lambda: engine.feed.missing)

    run(main())


@pytest.mark.slow
def test_nats_restarts(own_nats: Server, run: Run) -> None:
    async def main() -> None:
        account = fresh()
        async with side(own_nats.url, account) as engine, venue(own_nats.url, account) as publisher:
            publisher.publish(reports(1, 3))
            await until(lambda: len(engine.read()) == 3)
            own_nats.kill()
            for n in range(4, 40, 3):
                publisher.publish(reports(n, n + 2))
                await asyncio.sleep(0.05)
            assert publisher.waiting > 0
            own_nats.start()
            await until(lambda: len(engine.read()) == 39, 25.0)
            assert engine.rows == list(range(1, 40))
            await until(lambda: publisher.published == 39)
            assert engine.bus.counts["reconnects"] >= 1
            publisher.publish(reports(40, 41))
            await until(lambda: len(engine.read()) == 41)
            engine.bus.publish("tandem.e1.status", b"x")

    run(main(), 60.0)


def test_a_restarted_venue_knows_what_it_has_published(nats: Server, run: Run) -> None:
    async def main() -> None:
        account = fresh()
        async with venue(nats.url, account) as publisher:
            publisher.publish(reports(1, 7))
            await until(lambda: publisher.published == 7)
        async with venue(nats.url, account) as again, side(nats.url, account) as engine:
            assert again.published == 7
            again.publish(reports(7, 9))  # one of them it had published
            await until(lambda: len(engine.read()) == 9)
            assert engine.rows == list(range(1, 10))

    run(main())


def test_signals_and_status_are_published(nats: Server, run: Run) -> None:
    async def main() -> None:
        said: list[tuple[str, bytes]] = []

        async def hear(message: Any) -> None:
            said.append((message.subject, message.data))

        engine, ear = Bus(nats.url, "engine"), Bus(nats.url, "ear")
        await engine.start()
        await ear.start()
        await ear.listen("tandem.e9.>", hear)
        voice, refusal = Voice(engine, NAMES, "e9", "a"), np.zeros(3, Refusal.dtype)
        refusal["reason"][1] = codes.ORDER_QTY
        voice.orders(order(5))
        voice.verdicts(refusal)
        voice.status(state="running", trading="live", events=7)
        await until(lambda: len(said) == 4)
        words = ("orders", "signals", "refusals", "status")
        assert [subject for subject, _ in said] == [f"tandem.e9.{word}" for word in words]
        assert same(orders_of(parsed(order_pb2.OrderBatch, said[0][1]), NAMES), order(5))
        for at, reasons in ((1, ["ok", "ok"]), (2, ["order_qty"])):
            assert [one.reason for one in parsed(order_pb2.RefusalBatch, said[at][1]).refusals] == reasons
        status = parsed(status_pb2.EngineStatus, said[3][1])
        assert (status.engine, status.state, status.trading, status.events) == ("e9", "running", "live", 7)
        voice.orders(order(5)[:0])
        engine.publish("tandem.e9.status", b"last")
        await engine.stop()
        await until(lambda: len(said) == 5)
        await ear.stop()

    run(main())


def test_nobody_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(nats_bus, "WAIT_S", 0.5)
        with pytest.raises(WireError, match="is not reachable"):
            await Bus("nats://127.0.0.1:1", "x").start()

    run(main())
    with pytest.raises(ConfigError, match=r"account='a\.b'"):
        checked("a.b", "account")
