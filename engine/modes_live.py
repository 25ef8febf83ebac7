"""The modes of the wires: the paper venue, and a dataset published as if it were live; the rest is in engine/modes.py.

Law: what such a process needs is compiled before it listens; it never imports numba.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.config import Data, Risk, Settings, VenueModel, config_hash, setting
from engine.errors import ConfigError
from engine.live.settings import REDIS, Execution, Feed, Nats
from engine.live.status import Status, run_status

Dump = Callable[[], str]


@dataclass(frozen=True)
class Venue(Settings):
    """Settings of mode=venue."""

    data: Data = setting(Data, "which instruments there are: those of a dataset or a file")
    instruments: tuple[str, ...] | None = setting(None, "which of the data's instruments (null: all)")
    market: Literal["auto", "ticks", "bars"] = setting("auto", "what orders meet (auto: what the data hold)")
    cash: float = setting(100_000.0, "at the start, account currency", gt=0)
    leverage: float = setting(1.0, "what positions may be worth, as a multiple of equity", gt=0)
    orders: int = setting(1024, "orders that it holds at most", gt=0)
    keep: int = setting(1 << 17, "reports and orders that it can be asked about", ge=1024)
    state: str | None = setting(None, "directory with its memory, so that a restart goes on (null: it begins anew)")
    venue: VenueModel = setting(VenueModel, "the simulated venue")
    feed: Feed = setting(Feed, "market data")
    nats: Nats = setting(Nats, "where its reports go")
    execution: Execution = setting(Execution, "where it listens")


@dataclass(frozen=True)
class Publish(Settings):
    """Settings of mode=publish."""

    data: Data = setting(Data, "what is published")
    instruments: tuple[str, ...] | None = setting(None, "which of the data's instruments (null: all)")
    start: str | None = setting(None, "first event at the earliest; ISO 8601, UTC if it names no zone")
    end: str | None = setting(None, "events before this time")
    url: str = setting(REDIS, "of Redis; see feed.url")
    target: str = setting("md.tandem", "channel or stream without its encoding, which becomes the end of the name")
    encoding: Literal["raw", "pb", "json"] = setting("raw", "of the messages")
    split: bool = setting(False, "one channel for each instrument: target.INSTRUMENT.encoding")
    stream: bool = setting(False, "Redis Streams instead of pub/sub")
    stream_len: int = setting(100_000, "entries that a stream keeps, about", gt=0)
    speed: float = setting(1.0, "times as fast as it happened (.inf: flat out)", gt=0)
    rate: float | None = setting(None, "events per second, instead of the speed of history", gt=0)
    batch: int = setting(256, "events in a message at most", gt=0, le=8192)
    source: int = setting(1, "number of the source", ge=0, lt=65_536)
    restamp: bool = setting(True, "the time of an event becomes that of its sending; false: history's")
    repeat: int = setting(1, "times over (0: without end)", ge=0)


def run_venue(settings: Venue, dump: Dump) -> int:
    """Serve as the paper venue until Ctrl-C."""
    from backtest.desk import VenueDesk
    from backtest.drive import has_ticks, told_depth
    from engine.live import loop
    from engine.live.codec import Names
    from engine.live.nats_bus import checked
    from engine.live.paper import PaperVenue
    from engine.live.quarantine import Quarantine
    from engine.live.state import State
    from engine.plan import instrument_rows
    from engine.store import open_tape

    checked(settings.execution.account, "account")
    tape = open_tape(settings.data.source, settings.instruments, **settings.data.options())
    names = Names([info.name for info in tape.instruments])
    ticks = has_ticks(tape.events) if settings.market == "auto" else settings.market == "ticks"
    depth = told_depth(tape.events) if ticks else []
    desk = VenueDesk(instrument_rows(tape.instruments, Risk(), settings.venue.fees()), settings.cash, settings.venue,
                     leverage=settings.leverage, orders=settings.orders, ticks=ticks, keep=settings.keep,
                     depth=depth)  # fmt: skip
    about = config_hash(
        {"names": names.names, "cash": settings.cash, "ticks": ticks, "depth": depth, "venue": vars(settings.venue)}
    )
    quarantine = Quarantine(Path(settings.feed.quarantine) if settings.feed.quarantine else None)
    state = State(Path(settings.state), about) if settings.state else None

    def ready(port: int) -> None:
        host, account = settings.execution.address.rpartition(":")[0], settings.execution.account
        meets = "quotes and trades" if ticks else "bars"
        print(f"Venue    paper at {host}:{port}, account {account}, {meets} of {shown(names.names)}\n"
              f"Data     {', '.join([*settings.feed.channels, *settings.feed.streams])} at {settings.feed.url}\n"
              f"Reports  tandem.reports.{account} at {settings.nats.url}", flush=True)  # fmt: skip

    async def main(stop: asyncio.Event) -> int:
        venue = PaperVenue(desk, names, settings.feed, settings.nats, settings.execution, quarantine, state)
        await venue.run(stop, ready)
        done, heard = venue.service.counts, venue.feed.counts
        print(f"Ended    {done['orders']:,} orders, {done['reports']:,} reports, {heard['events']:,} events, "
              f"{heard['missed']:,} missed", flush=True)  # fmt: skip
        return 0

    try:
        return loop.run(main)
    finally:
        quarantine.close()


def shown(names: tuple[str, ...]) -> str:
    """A few names, and how many there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def run_publish(settings: Publish, dump: Dump) -> int:
    """Publish a dataset."""
    from engine.live import loop
    from engine.live.codec import Names
    from engine.live.publisher import Pace, Publisher, pieces_of
    from engine.store import open_tape
    from engine.store.files import progress

    if settings.rate is not None and settings.speed != 1.0:
        raise ConfigError("speed and rate exclude each other: one is relative to history, the other is not.")
    tape = open_tape(
        settings.data.source, settings.instruments, settings.start, settings.end, **settings.data.options()
    )
    names, total = Names([info.name for info in tape.instruments]), len(tape) * settings.repeat
    pace = Pace(settings.speed, settings.rate)
    rate = "flat out" if math.isinf(pace.speed) else f"{pace.speed:g} times as fast as it happened"

    def began(channels: tuple[str, ...]) -> None:
        print(f"Publish  {tape.name} to {shown(channels)} at {settings.url}, "
              f"{rate if pace.rate is None else f'{pace.rate:g} events per second'}", flush=True)  # fmt: skip

    async def main(stop: asyncio.Event) -> int:
        with progress(total, f"publish {tape.name}", "events") as bar:
            publisher = Publisher(
                settings.url, settings.target, names, encoding=settings.encoding, source=settings.source,
                split=settings.split, batch=settings.batch, restamp=settings.restamp,
                stream_len=settings.stream_len if settings.stream else None, told=lambda sent: bar.update(sent - bar.n),
            )  # fmt: skip
            seconds = await publisher.run(pieces_of(tape.events, settings.repeat), pace, stop, began)
        hears = "" if settings.stream else f", {publisher.receivers} subscribers at the end"
        print(f"Done     {publisher.sent:,} events in {publisher.messages:,} messages, {seconds:.1f} s, "
              f"{publisher.sent / max(seconds, 1e-9):,.0f} per second{hears}", flush=True)  # fmt: skip
        return 0

    return loop.run(main)


MODES: Mapping[str, tuple[type[Settings], Callable[[Any, Dump], int], str]] = {
    "venue": (Venue, run_venue, "the paper venue: the simulated venue behind gRPC, fed from Redis, reports on NATS"),
    "publish": (Publish, run_publish, "a dataset into Redis as if it were live, at N times its speed or flat out"),
    "status": (Status, run_status, "a running engine in the terminal: positions, profit, rates, last refusals"),
}
