"""The engine between real servers and a paper venue: it trades, stops, goes on, and its journal gives the same bytes.

Law 9: killed at any step of journal -> send -> ack -> report -> apply and started again, the venue's book is the
journal's: no order twice, none lost, positions equal.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtest import desk
from engine import session_loop
from engine.config import Risk
from engine.errors import DataError, VenueError, WireError
from engine.journal import Journal, JournalWriter
from engine.journal.format import EVENTS, ORDERS
from engine.kernel import build, codes
from engine.live import gate, opening, redis_feed
from engine.live.codec import Names
from engine.live.engine import Engine, Seat
from engine.live.grpc_venue import GrpcVenue
from engine.live.lease import Lease
from engine.live.nats_bus import Bus
from engine.live.paper import PaperVenue, feed_of
from engine.live.publisher import Pace, Publisher
from engine.live.quarantine import Quarantine
from engine.live.servers import Server
from engine.live.service import FENCE
from engine.live.settings import Execution, Feed, Nats
from engine.live.state import State
from engine.plan import Plan, instrument_rows, sizes_for
from engine.registry import find
from engine.replay import replay
from engine.session import event
from engine.store import open_tape
from engine.store.instruments import InstrumentInfo
from strategies import MarketMaking
from tests.live.conftest import until
from tests.live.test_modes import Process

Run = Callable[..., Any]
INFO = InstrumentInfo("SYNTH", tick=0.01)
NAMES = Names(("SYNTH",))
STEPS = ("before the events", "after the events", "before the orders", "after the orders", "before the send",
         "after the send", "before the acknowledgement", "after the acknowledgement", "before the snapshot",
         "after the snapshot")  # fmt: skip
# The command line, which kills itself the n-th time that it comes to a step.
KILLED = """
import os, signal, sys
from engine.journal import JournalWriter
from engine.live.grpc_venue import GrpcVenue
from engine.live.reports import ReportFeed
from engine.kernel.codes import CLEAR_KILL
from engine.live.engine import Engine
from engine.session import Session
step, left = sys.argv[1], [int(sys.argv[2])]
def die(owner, name, when):
    plain = getattr(owner, name)
    def instead(self, *rows):
        if rows and not len(rows[0]):
            return plain(self, *rows)
        left[0] -= 1
        if when == "before" and left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        done = plain(self, *rows)
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    setattr(owner, name, instead)
def clearing(self, code, *rest, plain=Engine._order):
    if code == CLEAR_KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    plain(self, code, *rest)
if step == "at the end":
    Engine._order, step = clearing, ""
places = {"snapshot": (Session, "snapshot"),
          "events": (JournalWriter, "events"), "orders": (JournalWriter, "orders"), "send": (GrpcVenue, "send"),
          "acknowledgement": (ReportFeed, "journalled")}
if step:
    when, place = step.split(" the ")
    die(*places[place], when)
from engine.app import main
code = main(sys.argv[3:])
print("numba imported:", "numba" in sys.modules)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def images() -> None:
    """What a live process must find compiled."""
    for program in (desk.PROGRAM, gate.PROGRAM, session_loop.PROGRAM, session_loop.READER):
        build.program(*program)
    build.handlers(MarketMaking)


class Floor:
    """A paper venue on real servers, and engines at it, all in this process."""

    def __init__(self, redis: Server, nats: Server, place: Path, name: str) -> None:
        self.redis, self.nats, self.place, self.name = redis, nats, place, name
        self.feed = Feed(url=redis.url, channels=(f"md.{name}.*",), jump=0.5)
        self.plan = Plan((MarketMaking(limit=5.0),), ("market_making",), (INFO,), instrument_rows([INFO], Risk(), {}),
                         1e6, Risk().limits(), Risk().breaches(), sizes_for(1, 1))  # fmt: skip
        self.stop, self.port, self.tasks = asyncio.Event(), 0, list[Any]()
        self.venue: Any = None

    async def open(self, state: State | None = None) -> None:
        """Start the venue."""
        rows = instrument_rows([INFO], Risk(), {})
        self.venue = PaperVenue(desk.VenueDesk(rows, 1e6, desk.VenueModel(), ticks=True), NAMES, self.feed,
                                Nats(url=self.nats.url), Execution(address="127.0.0.1:0", account=self.name),
                                Quarantine(), state)  # fmt: skip
        self.tasks.append(asyncio.create_task(self.venue.run(self.stop, lambda port: setattr(self, "port", port))))
        await until(lambda: self.port or self.tasks[-1].done(), 15.0)

    async def close(self) -> None:
        """End the venue."""
        self.stop.set()
        await asyncio.gather(*self.tasks)

    def publish(self, rate: float) -> "asyncio.Task[float]":
        """Quotes and trades of the sample."""
        tape = open_tape("ticks")
        publisher = Publisher(self.redis.url, f"md.{self.name}", NAMES)
        return asyncio.create_task(publisher.run(iter([tape.events[:300_000].copy()]), Pace(rate=rate), self.stop))

    async def engine(self, during: Callable[[Engine], Any], name: str = "", looks: bool = False, **seat: Any) -> Engine:
        """An engine from beginning to end; `during` is awaited while it runs."""
        lease = Lease(self.redis.url, name or self.name, self.name, 5.0, lambda why: None, whole=not looks)
        token = await lease.acquire()
        number = await lease.number(1 << 21)
        found, _ = opening.opened(self.place / "journals" / name, self.plan, find, False, {}, 0.0, 500, print,
                                  lambda least: number)  # fmt: skip
        bus, quarantine = Bus(self.nats.url, "engine"), Quarantine()
        held: list[Engine] = []
        venue = GrpcVenue(f"127.0.0.1:{self.port}", NAMES, self.name, name or self.name, token,
                          allowed=lambda: lease.valid, wake=lambda: held[0].wake(), looks=looks)  # fmt: skip
        feed = feed_of(self.feed, NAMES, quarantine)
        engine = Engine(Seat(name or self.name, self.name, **seat), self.plan, found.session, NAMES, feed, venue,
                        lease, bus, quarantine, find, found.start)  # fmt: skip
        held.append(engine)
        if looks:
            engine.at_first(codes.TRADING, float(codes.OBSERVATION))
        stop, began = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(engine.run(stop, began.set))
        waiting = asyncio.create_task(began.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        try:
            if not task.done():
                await during(engine)
        finally:
            stop.set()
            await task
        return engine


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def positions(engine: Engine) -> list[int]:
    """What the kernel holds."""
    return engine.session.machine.table("markets_at")["net"].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("known", [True, False])
def test_a_venue_that_cannot_keep_its_data_ends(run: Run, redis: Server, nats: Server, tmp_path: Path, images: None,
                                                known: bool) -> None:  # fmt: skip
    error = DataError("the disk is full") if known else OSError(28, "No space left on device")

    def refuse(events: Any) -> None:
        if len(events):
            raise error

    async def main() -> None:
        floor = Floor(redis, nats, tmp_path, f"full{known}")
        await floor.open(State(tmp_path / "s", "about"))
        before = files(tmp_path / "s")
        floor.venue.service.market = refuse
        publisher = floor.publish(200.0)
        with pytest.raises(type(error), match=r"disk is full|No space left"):
            async with asyncio.timeout(20.0):
                await floor.tasks[0]
        assert files(tmp_path / "s") == before, "the inputs are kept; a snapshot would need room"
        floor.stop.set()
        await publisher

    run(main())


@pytest.mark.parametrize("damage", ["settings", "inputs", "snapshot"])
def test_a_state_that_is_refused_stays_as_it_was(run: Run, redis: Server, nats: Server, tmp_path: Path, images: None,
                                                 damage: str) -> None:  # fmt: skip
    """Whoever sees what is wrong with it can still put it right: nothing was written over it."""
    place, about = tmp_path / "s", "about"
    one = desk.VenueDesk(instrument_rows([INFO], Risk(), {}), 1e6, desk.VenueModel(), ticks=True)
    memory = State(place, about)
    memory.load()
    memory.snapshot(one.snapshot(), {})
    for token in (1, 2):
        memory.keep(FENCE, 0, f'["e", {token}, 1]'.encode())
    memory.close()
    if damage == "settings":
        about = "another"
    else:
        (path,) = place.glob(f"{damage}-000001.*")
        path.write_bytes((whole := path.read_bytes())[:22] + b"\xff" + whole[23:])

    async def main() -> None:
        before = files(place)
        floor = Floor(redis, nats, tmp_path, f"refused{damage}")
        with pytest.raises(DataError, match=r"damaged|other instruments, cash or settings"):
            await floor.open(State(place, about))
            await floor.tasks[0]
        assert files(place) == before

    run(main())


def test_it_trades_stops_and_goes_on(images: None, redis: Server, nats: Server, tmp_path: Path, run: Run) -> None:
    """Two runs of one session: orders, commands, a reload; everything settled at the end, and all of it replays."""
    floor = Floor(redis, nats, tmp_path, f"engine{os.getpid()}")

    async def first(engine: Engine) -> None:
        await until(lambda: engine.stats.fills >= 5, 30.0)
        assert engine.readiness() == [] and engine.healthy()
        await engine.command(codes.TRADING, amount=float(codes.OBSERVATION))
        await asyncio.sleep(0.1)
        orders = engine.stats.orders
        await asyncio.sleep(0.3)
        assert engine.stats.orders == orders
        await engine.command(codes.TRADING, amount=float(codes.LIVE))
        await until(lambda: engine.stats.orders > orders)
        image = await engine.reload(0, None, {"qty": 2.0})
        assert image == engine.session.reloads[0]["image"]
        orders = engine.stats.orders
        await until(lambda: engine.stats.orders > orders)

    async def second(engine: Engine) -> None:
        assert engine.session.reloads[0]["params"]["qty"] == 2.0
        await until(lambda: engine.stats.fills >= 3, 30.0)
        await engine.command(codes.KILL)
        await until(lambda: not engine.session.machine.kernel.opened)
        assert engine.readiness() == ["the kill switch is on"]

    async def third(engine: Engine) -> None:
        assert engine.session.machine.kernel.killed, "a kill lasts until it is cleared"
        await engine.command(codes.CLEAR_KILL)
        await until(lambda: engine.stats.orders > 0)

    async def main() -> None:
        await floor.open()
        publishing = floor.publish(2000.0)
        for during in (first, second, third):
            engine = await floor.engine(during, timer_ms=50)
            k = engine.session.machine.kernel
            assert k.opened == 0 and floor.venue.desk.positions().tolist() == positions(engine)
            assert engine.stats.latency.count and not engine.stats.corrected
        await floor.close()
        await publishing

    run(main(), 120.0)
    (folder,) = opening.folders(tmp_path / "journals")
    done = replay(folder, find)
    journal = Journal(folder)
    kinds = np.concatenate([b.rows()["kind"] for b in journal.blocks() if b.kind == EVENTS])
    assert done.difference == "" and done.orders > 20 and journal.sealed
    assert {codes.QUOTE, codes.TRADE, codes.REPORT, codes.COMMAND, codes.TIMER} <= set(kinds.tolist())


def test_an_observer_beside_the_one_that_trades(images: None, redis: Server, nats: Server, tmp_path: Path,
                                                run: Run) -> None:  # fmt: skip
    """On one account; it sends nothing, disturbs nobody, and takes over when the account is free."""
    floor = Floor(redis, nats, tmp_path, f"beside{os.getpid()}")

    async def trading(engine: Engine) -> None:
        async def observing(observer: Engine) -> None:
            orders, seen = engine.stats.orders, observer.stats.events
            await until(lambda: engine.stats.orders > orders + 3 and observer.stats.events > seen, 30.0)
            with pytest.raises(WireError, match="is traded already"):
                await observer.command(codes.TRADING, amount=float(codes.LIVE))
            assert observer.stats.orders == 0 and not engine.venue.fenced and engine.readiness() == []
            assert observer.differs == ""

        await until(lambda: engine.stats.fills >= 2, 30.0)
        await floor.engine(observing, "observer", looks=True)
        orders = engine.stats.orders
        await until(lambda: engine.stats.orders > orders)

    async def entering(observer: Engine) -> None:
        query = observer.venue.query

        async def silent(ids: Any, since: int) -> Any:
            raise VenueError("the venue does not answer Query.")

        observer.venue.query = silent  # type: ignore[method-assign]
        asks = [asyncio.create_task(observer.command(codes.TRADING, amount=float(codes.LIVE))) for _ in range(2)]
        await asyncio.sleep(0.5)
        assert not any(one.done() for one in asks), "who asks twice does not trade sooner"
        assert observer.session.machine.kernel.trading == codes.OBSERVATION and not observer.stats.orders
        observer.venue.query = query  # type: ignore[method-assign]
        await asyncio.gather(*asks)
        held = floor.venue.desk.positions().tolist()
        assert observer.lease.whole and observer.reconciled
        await until(lambda: observer.stats.fills >= 2, 30.0)
        assert held != [0] or observer.stats.fills

    async def main() -> None:
        await floor.open()
        publishing = floor.publish(2000.0)
        await floor.engine(trading)
        observer = await floor.engine(entering, "observer", looks=True)
        assert floor.venue.desk.positions().tolist() == positions(observer)
        await floor.close()
        await publishing

    run(main(), 120.0)
    (folder,) = opening.folders(tmp_path / "journals" / "observer")
    done = replay(folder, find)
    assert done.difference == "" and done.orders > 3


def test_a_second_one_does_not_start(redis: Server, run: Run) -> None:
    async def main() -> None:
        one, two = Lease(redis.url, "alone", "a"), Lease(redis.url, "alone", "b")
        await one.acquire()
        with pytest.raises(WireError, match="engine alone runs already"):
            await two.acquire()
        await one.release()

    run(main())


def test_an_idle_connection_is_kept(redis: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked, and its answers are a sign of life."""

    async def main() -> None:
        monkeypatch.setattr(redis_feed, "PING_S", 0.05)
        monkeypatch.setattr(redis_feed, "DEAD_S", 1.05)
        feed = feed_of(Feed(url=redis.url, channels=("nobody.*",)), NAMES, Quarantine())
        await feed.start(lambda: None)
        await until(lambda: feed.connected)
        (connection,) = feed._open
        heard = connection.heard
        await until(lambda: connection.heard >= heard + 2)
        assert feed.connected and not feed.counts["disconnects"]
        await feed.stop()

    run(main())


@pytest.mark.slow
def test_law_9_exactly_once(images: None, redis: Server, nats: Server, tmp_path: Path, root: Path, run: Run) -> None:
    """Killed at every step in turn, and in the end stopped properly."""
    floor = Floor(redis, nats, tmp_path, f"law9-{os.getpid()}")

    async def start(step: str, count: int) -> Process:
        process = Process.__new__(Process)
        process.log = tmp_path / f"{time.monotonic_ns()}.log"
        words = ["mode=live", "trading=live", "cash=1e6", "data=ticks", "strategy.limit=5", f"engine={floor.name}",
                 f"feed.url={redis.url}", f"feed.channels=[md.{floor.name}.*]", f"nats.url={nats.url}",
                 f"execution.address=127.0.0.1:{floor.port}", f"execution.account={floor.name}", "lease.ttl_s=1",
                 f"journal={tmp_path / 'journals'}", "snapshot_every=300", "admin.port=0",
                 "track=false"]  # fmt: skip
        with process.log.open("wb") as out:
            process.process = subprocess.Popen(
                [sys.executable, "-c", KILLED, step, str(count), *words], cwd=tmp_path, stdout=out, stderr=out,
                env={**os.environ, "PYTHONPATH": str(root)})  # fmt: skip
        return process

    async def main() -> None:
        await floor.open()
        publishing = floor.publish(1000.0)
        for count, step in enumerate(STEPS):
            process = await start(step, 1 if "snapshot" in step else 20 + count)
            await until(lambda p=process: p.process.poll() is not None, 60.0)
            assert process.process.returncode == -signal.SIGKILL, process.said()
            await asyncio.sleep(1.2)  # until its lease has ended
        for step, code in (("at the end", -signal.SIGKILL), ("", 0)):  # between its own kill and what takes that back
            process = await start(step, 0)
            await until(lambda p=process: "Data" in p.said() or p.process.poll() is not None, 60.0)
            await asyncio.sleep(2.0)
            process.process.send_signal(signal.SIGTERM)
            await until(lambda p=process: p.process.poll() is not None, 30.0)
            assert process.process.returncode == code, process.said()
            await asyncio.sleep(1.2)
        orders = re.search(r"Ended .* ([\d,]+) orders", process.said())
        assert orders and int(orders[1].replace(",", "")) > 1, "it is not killed: it was its own kill"
        assert process.process.returncode == 0 and "numba imported: False" in process.said(), process.said()
        agree(floor, tmp_path / "journals" / floor.name)
        await floor.close()
        await publishing

    run(main(), 600.0)


def test_whose_kill_it_was(tmp_path: Path) -> None:
    """The engine's own, at an end that it did not live to see, or an operator's."""
    writer = JournalWriter(tmp_path / "j", {"session": 1})
    assert not opening.ended_half(Journal(tmp_path / "j"))
    for amount, ours in ((opening.ENDING, True), (0.0, False), (1.0, False), (opening.ENDING, True)):
        writer.events(event(codes.COMMAND, 5, code=codes.KILL, amount=amount))
        writer.events(event(codes.TIMER, 6))
        assert opening.ended_half(Journal(tmp_path / "j")) == ours
    writer.close()


def agree(floor: Floor, folder: Path) -> None:
    """The venue's book against the journal."""
    (folder,) = opening.folders(folder)
    assert replay(folder, find).difference == ""
    journal = Journal(folder)
    orders, events = journal.rows(ORDERS), journal.rows(EVENTS)
    reports = events[events["kind"] == codes.REPORT]
    ours, sent = reports[reports["exec_id"] == 0], orders[orders["action"] == codes.NEW]["id"].tolist()
    assert len(set(sent)) == len(sent), "an id is used twice"
    assert len(sent) > len(STEPS), "more orders than deaths"
    told = floor.venue.desk.reports(0)
    assert np.unique(reports["exec_id"]).tolist()[-1] == len(told), "every report has come"
    accepted = told[told["code"] == codes.ACK]["order_id"]
    acks = accepted.tolist()
    never = set(ours[ours["code"] == codes.REJECT]["order_id"].tolist())
    assert len(set(acks)) == len(acks), "the venue took no order twice"
    rejected = set(told[told["code"] == codes.REJECT]["order_id"].tolist())
    assert set(acks) | never | rejected == set(sent), "none is lost, and none is there that the journal does not have"
    fills = told[told["code"] == codes.FILL]
    assert floor.venue.desk.positions().tolist() == [int(fills["qty"].sum())]
    assert int(reports[reports["code"] == codes.FILL]["qty"].sum()) == int(fills["qty"].sum())
