"""mode=live: a strategy on live feeds.

Law: what runs was compiled before; this process never imports numba, and it sends nothing before lease, journal and
reconciliation.
"""

import asyncio
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from engine import registry
from engine.config import Data, Risk, Settings, Tracking, config_hash, setting
from engine.errors import ConfigError, ImageError, TrackingError, WireError
from engine.live.settings import Admin, Execution, Feed, Lease, Nats

Dump = Callable[[], str]
CASH = 100_000.0  # account currency
ASKED = "trading"  # the file beside a journal with the trading that the settings asked for


@dataclass(frozen=True)
class Live(Settings):
    """Settings of mode=live."""

    brought: ClassVar[Mapping[str, tuple[str, ...]]] = {"from": ("strategy", "data", "instruments", "fees", "risk")}

    from_: str | None = setting(None, "a promoted model, momentum@live or momentum/3: it brings strategy, instruments, "
                            "fees and risk as they were tested, and the machine code (null: what follows)")  # fmt: skip
    strategy: dict[str, Any] = setting({}, "name or path, and parameters by their name")
    data: Data = setting(Data, "which instruments there are: those of a dataset or a file")
    instruments: tuple[str, ...] | None = setting(None, "which of the data's instruments (null: all)")
    engine: str = setting("tandem", "id: one engine runs under it at a time; letters, digits, - and _")
    trading: Literal["observation", "simulation", "live"] = setting(
        "observation", "observation: no signals; simulation: signals and verdicts, nothing is sent; live: orders"
    )
    cash: float | None = setting(None, "of the account when its first session begins (null: that of the promoted run, "
                                       "else 100,000)", gt=0)  # fmt: skip
    fees: dict[str, float] = setting({}, "maker_bps, taker_bps and so on, instead of the instruments' own")
    risk: Risk = setting(Risk, "limits of the account")
    journal: str = setting("journals", "directory that gets one directory for each engine, and in it one a session")
    session: Literal["auto", "new"] = setting("auto", "auto: go on with the latest; new: begin another")
    sync_ms: float = setting(0.0, "0: orders are on the disk before they are sent; n: the disk may lag n ms", ge=0)
    snapshot_every: int = setting(1_000_000, "events between two snapshots (0: only at the end)", ge=0)
    timer_ms: int = setting(0, "between two TIMER events (0: none)", ge=0)
    spin_cpu: int | None = setting(None, "processor that the engine keeps to and never lets sleep (null: none)", ge=0)
    on_stop: Literal["cancel", "keep"] = setting("cancel", "what becomes of working orders at the end")
    feed: Feed = setting(Feed, "market data")
    nats: Nats = setting(Nats, "reports in, signals and refusals out")
    execution: Execution = setting(Execution, "where orders go")
    lease: Lease = setting(Lease, "one engine for each id, and for each account")
    admin: Admin = setting(Admin, "metrics, health and commands over HTTP")
    track: bool = setting(True, "log the session to MLflow when it has ended")
    tracking: Tracking = setting(Tracking, "where sessions are tracked")


def run_live(settings: Live, dump: Dump) -> int:
    """Trade until Ctrl-C."""
    from engine.kernel import build, codes
    from engine.live import loop, track
    from engine.live.admin import Admin as Server
    from engine.live.engine import Engine
    from engine.live.lease import Lease as HeldLease
    from engine.live.logs import Logs
    from engine.live.nats_bus import checked
    from engine.live.opening import ended_half

    checked(settings.engine, "engine")
    checked(settings.execution.account, "account")
    root, promoted = Path(settings.journal) / settings.engine, None
    if settings.from_:
        plan, promoted = promoted_plan(settings, root)
    else:
        plan = planned(settings)
        compiled_before(plan)
    build.may_compile = False
    words = {"engine": settings.engine, "account": settings.execution.account, "trading": settings.trading,
             "config": dump(), "config_hash": config_hash(asdict(settings)),
             "promoted": None if promoted is None else asdict(promoted)}  # fmt: skip
    level = {"live": codes.LIVE, "simulation": codes.SIMULATION, "observation": codes.OBSERVATION}[settings.trading]

    async def main(stop: asyncio.Event) -> int:
        held: list[Engine] = []

        def lost(why: str) -> None:
            for one in held:
                one.stop(f"its lease is lost ({why})")

        lease = HeldLease(settings.feed.url, settings.engine, settings.execution.account, settings.lease.ttl_s, lost,
                          whole=level != codes.OBSERVATION)  # fmt: skip
        await lease.acquire()
        found, new = await held_open(settings, plan, root, words, lease)
        kernel = found.session.machine.kernel
        asked = new or asked_before(found.journal) != settings.trading
        if not asked and kernel.trading != level:
            print(f"Trading  {codes.NAMES['trading'][kernel.trading]}, as it was set while it ran", flush=True)
            if kernel.trading != codes.OBSERVATION:
                await held_for(lease, lease.take_account())
        engine = engine_of(settings, plan, found, lease, held)
        if kernel.killed and await held_for(lease, asyncio.to_thread(ended_half, found.journal)):
            engine.at_first(codes.CLEAR_KILL, 0.0)
        if asked:
            engine.at_first(codes.TRADING, float(level))
        served = Server(engine, settings.admin, settings.engine, root)
        await held_for(lease, served.start())
        try:
            await engine.run(stop, lambda: told(settings, engine, served, found.journal.folder / ASKED))
        finally:
            await served.stop()
            engine.quarantine.close()
            ended(engine)
            sessions.append(engine)
        return 0

    sessions: list[Engine] = []
    with Logs():
        try:
            return loop.run(main, settings.spin_cpu)
        finally:  # after the loop: MLflow takes seconds
            for one in sessions if settings.track else ():
                track.log(track.request(one, settings.engine, settings.tracking), promoted)


async def held_for(lease: Any, what: Any) -> Any:
    """Await something; when it fails, the lease is given back."""
    try:
        return await what
    except BaseException:
        await lease.release()
        raise


async def held_open(settings: Live, plan: Any, root: Path, words: Mapping[str, Any], lease: Any) -> tuple[Any, bool]:
    """The session to run and whether it is new; the lease, which is held, is given back when there is none."""
    from engine.live.opening import opened

    loop = asyncio.get_running_loop()
    found = await held_for(lease, loop.run_in_executor(
        None, opened, root, plan, registry.find, settings.session == "new", words, settings.sync_ms,
        settings.snapshot_every, lambda text: print(f"Journal  {text}", flush=True),
        lambda least: asyncio.run_coroutine_threadsafe(lease.number(least), loop).result()))  # fmt: skip
    if not lease.valid:
        await lease.release()
        raise WireError(f"engine {settings.engine}: its lease was lost while its journal was read")
    return found  # type: ignore[no-any-return]


def engine_of(settings: Live, plan: Any, found: Any, lease: Any, held: list[Any]) -> Any:
    """The engine of a session, not connected yet; it is put into `held`, where its parts look for it."""
    from engine.live.codec import Names
    from engine.live.engine import Engine, Seat
    from engine.live.grpc_venue import GrpcVenue
    from engine.live.nats_bus import Bus
    from engine.live.paper import feed_of
    from engine.live.quarantine import Quarantine

    e, names = settings.execution, Names([info.name for info in plan.infos])
    seat = Seat(settings.engine, e.account, e.resend_s, settings.timer_ms, settings.on_stop == "cancel",
                settings.nats.durable)  # fmt: skip
    quarantine = Quarantine(Path(settings.feed.quarantine or found.session.journal.folder / "quarantine.jsonl"))
    bus = Bus(settings.nats.url, f"tandem-{settings.engine}", settings.nats.ca, settings.nats.credentials)
    venue = GrpcVenue(e.address, names, e.account, settings.engine, lease.token, tls=e.tls.files(),
                      deadline_s=e.deadline_s, heartbeat_s=e.heartbeat_s, resend_s=e.resend_s, stream=e.stream,
                      allowed=lambda: lease.valid, wake=lambda: held[0].wake(), looks=not lease.whole)  # fmt: skip
    engine = Engine(seat, plan, found.session, names, feed_of(settings.feed, names, quarantine), venue, lease, bus,
                    quarantine, registry.find, found.start)  # fmt: skip
    held.append(engine)
    return engine


def asked_before(journal: Any) -> str | None:
    """The trading that the settings asked for when the session was begun or gone on with last.

    Only when they ask for another does it change: what was set while it ran outlives a restart.
    """
    asked = journal.folder / ASKED
    said: str | None = asked.read_text() if asked.exists() else journal.header.get("trading")
    return said


def told(settings: Live, engine: Any, served: Any, asked: Path) -> None:
    """Say what has begun, and keep what was asked for."""
    from engine.kernel import codes

    asked.write_text(settings.trading)
    trading = codes.NAMES["trading"][engine.session.machine.kernel.trading]
    looks = "" if engine.lease.whole else ": none is sent, another engine may trade it"
    run = ", ".join(repr(engine.session.running(n)) for n in range(len(engine.plan.strategies)))  # after reloads, too
    print(
        f"Engine   {settings.engine}, {run}, trading={trading}\n"
        f"Admin    {served.url}, token in {served.token_file or 'admin.token'}\n"
        f"Orders   {settings.execution.address}, account {settings.execution.account}{looks}\n"
        f"Data     {', '.join([*settings.feed.channels, *settings.feed.streams])} at {settings.feed.url}",
        flush=True,
    )


def ended(engine: Any) -> None:
    """Say what was done."""
    s, q = engine.stats, engine.stats.latency.quantile
    quick = "" if math.isnan(q(0.5)) else f", {q(0.5) / 1e3:.3g} µs (p50) and {q(0.99) / 1e3:.3g} µs (p99) inside"
    count, signals = int(s.refusals.sum()), f", {s.signals:,} signals not sent" if s.signals else ""
    print(f"Ended    {s.events:,} events, {s.orders:,} orders, {s.fills:,} fills, {count:,} refusals{signals}{quick}")
    print(f"Replay   tandem mode=replay journal={engine.session.journal.folder}", flush=True)


def planned(settings: Live) -> Any:
    """The kernel that the settings describe; as in a backtest on those data, books and trading days included."""
    from backtest.drive import told_depth
    from engine.plan import Plan, instrument_rows, sizes_for
    from engine.store import open_tape
    from engine.store.calendars import hours_of

    given = {str(k): v for k, v in settings.strategy.items()}
    name, path = given.pop("name", None), given.pop("path", None)
    if not (name or path):
        raise ConfigError("strategy has neither name nor path; name one: strategy=momentum, or "
                          "strategy=path/to/file.py:Class.")  # fmt: skip
    called = str(path or name)
    strategy = registry.find(called)(**given)
    tape = open_tape(settings.data.source, settings.instruments, **settings.data.options())
    rows = instrument_rows(tape.instruments, settings.risk, settings.fees)
    _, rows["day_offset_ns"] = hours_of(tape.instruments, int(tape.events["ts"][0]), int(tape.events["ts"][-1]))
    return Plan((strategy,), (called,), tuple(tape.instruments), rows, settings.cash or CASH, settings.risk.limits(),
                settings.risk.breaches(), sizes_for(len(rows), 1), depth=tuple(told_depth(tape.events)))  # fmt: skip


def programs() -> dict[str, tuple[str, dict[str, Any]]]:
    """What a live session runs besides its strategies."""
    from engine.live import gate
    from engine.session_loop import PROGRAM, READER

    return {"session": PROGRAM, "reader": READER, "gate": gate.PROGRAM}


def promoted_plan(settings: Live, root: Path) -> tuple[Any, Any]:
    """The kernel of a promoted model with its images, and which version that is; its bundle is kept below `root`."""
    from engine.bundle import Bundle
    from engine.kernel import build
    from engine.store.files import atomic_dir
    from engine.tracking_models import Models

    build.may_compile = False
    models = Models(settings.tracking.uri)
    version = models.resolve(str(settings.from_))
    if version.gates != "passed":
        raise TrackingError(f"{version} is no model to trade: its gates are {version.gates or 'unchecked'}. See which "
                            f"with tandem mode=promote run={version.run_id[:8]} model={version.name}.")  # fmt: skip
    folder = (root / "bundles" / version.bundle[:16]).absolute()
    if not folder.exists():
        with atomic_dir(folder) as part:
            models.fetch_version(version, part)
    bundle = Bundle.open(folder, version.bundle, f"the bundle of {version}", programs(), registry.find)
    said = f"Promoted {settings.from_} is {version}, bundle {version.bundle[:12]}, of run {version.run_id[:8]}"
    print(said, flush=True)
    plan = bundle.plan(registry.find)
    return (plan if settings.cash is None else replace(plan, cash=settings.cash)), version


def compiled_before(plan: Any) -> None:
    """See to it that everything that will run is in the store: a child process compiles what is not."""
    from engine.kernel import build

    build.may_compile = False
    try:
        for name, entries in programs().values():
            build.program(name, entries)
        for strategy in plan.strategies:
            build.handlers(type(strategy))
    except ImageError:
        words = ", ".join(f"'{name}'" for name in plan.names)
        command = [sys.executable, "-m", "engine.app", "mode=compile", f"strategies=[{words}]",
                   f"programs=[{','.join(programs())}]"]  # fmt: skip
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            raise ImageError(f"{', '.join(plan.names)} cannot be compiled; see above.") from None


MODES: Mapping[str, tuple[type[Settings], Callable[[Any, Dump], int], str]] = {
    "live": (Live, run_live, "a strategy on live feeds: data from Redis, reports from NATS, orders by gRPC"),
}
