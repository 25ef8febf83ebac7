"""The paper venue and the publisher as processes, between real servers: what a user starts."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backtest import desk
from engine.config import VenueModel, keys
from engine.errors import DataError
from engine.kernel import build, codes
from engine.kernel.records import Instrument
from engine.live import gate, service, state
from engine.live.codec import Names
from engine.live.grpc_venue import GrpcVenue
from engine.live.nats_bus import Bus
from engine.live.quarantine import Quarantine
from engine.live.reports import ReportFeed
from engine.live.servers import Server
from engine.live.service import Service
from engine.live.state import State, revive
from engine.modes_engine import ASKED, asked_before
from engine.modes_live import MODES
from tests.live.conftest import until
from tests.live.events import order, quotes, same

Run = Callable[..., Any]
NAMES = Names(("SYNTH",))
CODE = ("import sys\nfrom engine.app import main\ncode = main(sys.argv[1:])\n"
        "print('numba imported:', 'numba' in sys.modules)\nsys.exit(code)")  # fmt: skip


@pytest.fixture(scope="module")
def images() -> None:
    """What a live process must find compiled."""
    for program in (desk.PROGRAM, gate.PROGRAM):
        build.program(*program)


class Process:
    """The command line as a process; its lines are in a file."""

    def __init__(self, place: Path, root: Path, *words: str) -> None:
        self.log = place / f"{words[0].partition('=')[2]}-{time.monotonic_ns()}.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen([sys.executable, "-c", CODE, *words], cwd=place, stdout=out, stderr=out,
                                            env={**os.environ, "PYTHONPATH": str(root)})  # fmt: skip

    def said(self) -> str:
        """All that it has printed."""
        return self.log.read_text()

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(30)


@pytest.fixture
def tandem(images: None, tmp_path: Path, root: Path) -> Iterator[Callable[..., Process]]:
    """Start the command line."""
    started: list[Process] = []

    def start(*words: str) -> Process:
        started.append(Process(tmp_path, root, *words))
        return started[-1]

    yield start
    for one in started:
        one.end(signal.SIGKILL)


async def port_of(process: Process) -> int:
    """Where a venue listens, when it does."""
    await until(lambda: "Reports" in process.said() or process.process.poll() is not None, 30.0)
    found = re.search(r"paper at 127\.0\.0\.1:(\d+)", process.said())
    assert found, process.said()
    return int(found[1])


@contextlib.asynccontextmanager
async def engine(port: int, nats: str, account: str) -> AsyncIterator[tuple[GrpcVenue, ReportFeed]]:
    """What an engine has: a way to the venue, and its reports."""
    bus = Bus(nats, "engine")
    await bus.start()
    venue = GrpcVenue(f"127.0.0.1:{port}", NAMES, account, "e", 1, resend_s=30.0)
    await venue.start()
    feed = ReportFeed(bus, NAMES, account, "e", Quarantine(), venue.reports)
    await feed.start(lambda: None)
    await until(lambda: venue.connected, 15.0)
    try:
        yield venue, feed
    finally:
        await feed.stop()
        await venue.stop()
        await bus.stop()


def buy(number: int, price: float) -> Any:
    """An order that trades at once, or rests, by its price."""
    rows = order(number, price=price)
    rows["ts"], rows["mask"] = time.time_ns(), 0
    return rows


def conserved(reports: Any, sent: int) -> int:
    """The position by the reports, after a look at every order: acknowledged once, filled no more than whole."""
    assert reports["exec_id"].tolist() == list(range(1, len(reports) + 1))
    acks = reports[reports["code"] == codes.ACK]["order_id"]
    assert sorted(acks.tolist()) == list(range(1, sent + 1))
    fills = reports[reports["code"] == codes.FILL]
    for number in range(1, sent + 1):
        assert int(fills["qty"][fills["order_id"] == number].sum()) in range(6)
    return int(fills["qty"].sum())


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_paper_trading(redis: Server, nats: Server, tandem: Callable[..., Process], run: Run, killed: bool) -> None:
    """Orders over gRPC, market data from Redis, reports over NATS; also when the venue is killed in the middle."""
    account, target = f"paper-{os.getpid()}-{killed}", f"md.modes{killed}"

    async def main() -> None:
        words = ["mode=venue", f"feed.url={redis.url}", f"feed.channels=[{target}.*]", f"nats.url={nats.url}",
                 f"execution.account={account}", "state=memory", "execution.address=127.0.0.1:"]  # fmt: skip
        venue = tandem(*words[:-1], words[-1] + "0")
        port = await port_of(venue)
        publisher = tandem("mode=publish", f"url={redis.url}", f"target={target}", "rate=2000")
        got: list[Any] = []
        async with engine(port, nats.url, account) as (way, feed):
            sent = 0

            def read() -> Any:
                got.append(feed.drain().view("V64").copy())
                feed.journalled()
                return np.concatenate(got).view(feed.drain().dtype)

            async def trade(count: int) -> None:
                nonlocal sent
                for _ in range(count):
                    sent += 1
                    way.send(buy(sent, 1e6 if sent % 3 else 0.01))
                    await asyncio.sleep(0.01)

            await until(lambda: "Publish" in publisher.said(), 20.0)
            await trade(30)
            if killed:
                venue.end(signal.SIGKILL)
                await trade(20)
                venue = tandem(*words[:-1], words[-1] + str(port))
                await port_of(venue)
                await trade(20)
            await until(lambda: not way.in_doubt and not way.waiting, 20.0)
            await until(
                lambda: len(set(read()["order_id"].tolist())) == sent and (read()["code"] == codes.FILL).any(), 20.0
            )
            view = await way.query(list(range(1, sent + 1)), 0)
            await until(lambda: len(read()) >= view.last_exec)
            held = conserved(read()[: view.last_exec], sent)
            assert same(read()[: view.last_exec], view.reports)
            assert view.positions is not None and view.positions.tolist() == [held] and held > 0
            assert {one.id for one in view.working} >= set(range(3, sent + 1, 3))
            await until(lambda: feed.positions and feed.positions_exec >= view.last_exec)
            assert not len(way.drain())
        assert publisher.end() == 0 and "events in" in publisher.said()
        assert venue.end() == 0, venue.said()
        for process in (venue, publisher):
            assert "numba imported: False" in process.said() and "Traceback" not in process.said()
        assert f"{sent if not killed else ''} orders" in venue.said() or killed

    run(main(), 120.0)


def small() -> Any:
    """A real desk of one instrument."""
    rows = np.zeros(1, Instrument.dtype)
    rows["tick"], rows["lot"], rows["multiplier"], rows["margin"], rows["allowed"] = 0.01, 1.0, 1.0, 1.0, 1
    return desk.VenueDesk(rows, 1e9, VenueModel(), ticks=True)


@pytest.mark.parametrize("torn", [True, False])
def test_a_restart_carries_out_again_what_was_kept(images: None, tmp_path: Path, torn: bool) -> None:
    """Market data, orders and fences since the snapshot; a cut end, or zeros there, is cut off, damage is refused."""
    told: list[int] = []

    def begin(limit: int = 1 << 20) -> tuple[Any, Service, State]:
        memory, one = State(tmp_path / "s", "about", limit), small()
        made = Service(one, NAMES, "a", lambda rows: told.extend(rows["exec_id"].tolist()), memory.keep)
        revive(memory, one, made)
        return one, made, memory

    one, made, memory = begin()
    for n in range(1, 40):
        made.market(quotes(3, 3 * n))
        made._fence("e", 7, n)
        rows = buy(n, 10.0 + n % 2)
        made._keep(service.ORDERS, one.now, rows.tobytes())
        made.apply(service.ORDERS, one.now, rows)
        if n == 20:
            memory.snapshot(one.snapshot(), made.fences)
    before, reports, fences = one.snapshot(), one.reports(0), dict(made.fences)
    assert len(told) == len(reports) and one.positions()[0] > 0
    memory.close()
    (log,) = (tmp_path / "s").glob("inputs-*.log")
    whole = log.read_bytes()
    log.write_bytes(whole + whole[:50] if torn else whole + bytes(50))
    told.clear()
    again, service_again, memory = begin()
    assert again.snapshot() == before and same(again.reports(0), reports) and service_again.fences == fences
    assert log.read_bytes() == whole and 0 < len(told) < len(reports)
    memory.close()
    for at in (5, 12, 100):  # a length, a time, an input
        log.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        with pytest.raises(DataError, match="damaged at byte 0"):
            begin()
    with pytest.raises(DataError, match="other instruments, cash or settings"):
        State(tmp_path / "s", "another").load()


def test_a_full_disk_leaves_no_piece_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = State(tmp_path / "s", "about")
    memory.load()
    memory.keep(service.FENCE, 0, b"one")
    with monkeypatch.context() as patch:
        patch.setattr(state.os, "write", lambda file, record, plain=os.write: plain(file, record[:10]))
        with pytest.raises(DataError, match="the disk is full"):
            memory.keep(service.FENCE, 0, b"two")
    memory.keep(service.FENCE, 0, b"three")
    memory.close()
    assert [payload for _, _, payload in State(tmp_path / "s", "about").load()[2]] == [b"one", b"three"]


def test_what_an_operator_has_set_outlives_a_restart(tmp_path: Path) -> None:
    """Begun as observation, gone on with as live: the next start with live changes nothing that was set meanwhile."""
    journal = SimpleNamespace(folder=tmp_path, header={"trading": "observation"})
    assert asked_before(journal) == "observation"
    (tmp_path / ASKED).write_text("live")
    assert asked_before(journal) == "live"


def test_every_key_is_explained() -> None:
    for kind, _, about in MODES.values():
        assert about and all(field.metadata["doc"] for field in keys(kind).values())
