"""From tick to order through the whole engine, on real servers: how long, and without loss?

    python -m bench.engine --rate 1000 --seconds 20

Processes: publisher → Redis → engine (journal on, orders on the disk before they are sent) → gRPC → paper venue, whose
reports come back over NATS. An order is caused by one quote in `every`. `tick_to_order_us`: from the publisher's time
in the event to the order's receipt at the service. `inside_us`: from the first byte of a drain to the hand-over.
`lost`: events that were published and are neither on the journal nor set aside by the gate. `rss_mb`: of the engine
after a warm-up and at the end. `gc_ms`: the most that Python's collector took between two looks, a second apart, once
warm; no single pause was longer. With `--spin` the engine has the last processor for itself, all others share the rest.
The last line is one JSON object.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engine.kernel.events import Quote
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param

TANDEM = (sys.executable, "-m", "engine.app")
ALL = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()


@contextlib.contextmanager
def on(processors: set[int]) -> Iterator[None]:
    """Who is started within may use these."""
    before = os.sched_getaffinity(0) if ALL else ALL
    if ALL:
        os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        if ALL:
            os.sched_setaffinity(0, before)


class Echo(Strategy):
    """An order that the venue ends at once, for one quote in `every`."""

    every: int = param(10, ge=1)
    seen: int

    def on_quote(self, quote: Quote, ctx: Ctx) -> None:
        """Far from the market, immediate or cancel."""
        self.seen += 1
        if self.seen % self.every == 0:
            ctx.buy(1.0, limit=quote.bid * 0.9, tif=3)


def serve(pipe: Any, redis: str, nats: str) -> None:
    """The paper venue in a process of its own; it notes when each order came."""
    from backtest.desk import VenueDesk
    from engine.config import Risk, VenueModel
    from engine.live import loop
    from engine.live.codec import Names
    from engine.live.paper import PaperVenue
    from engine.live.quarantine import Quarantine
    from engine.live.settings import Execution, Feed, Nats
    from engine.plan import instrument_rows
    from engine.store import open_tape

    infos = open_tape("ticks").instruments
    names = Names([info.name for info in infos])
    desk = VenueDesk(instrument_rows(infos, Risk(), {}), 1e9, VenueModel(), ticks=True)
    came: dict[int, int] = {}

    async def main(stop: asyncio.Event) -> int:
        venue = PaperVenue(desk, names, Feed(url=redis), Nats(url=nats), Execution(address="127.0.0.1:0"), Quarantine())
        submit = venue.service.submit

        def noted(batch: Any, only: int = 0) -> Any:
            now = time.time_ns()
            for one in batch.orders:
                came.setdefault(one.order_id, now)
            return submit(batch, only)

        venue.service.submit = noted  # type: ignore[method-assign]
        task = asyncio.ensure_future(venue.run(stop, pipe.send))
        while not pipe.poll():
            await asyncio.sleep(0.1)
        stop.set()
        await task
        pipe.send(came)
        return 0

    loop.run(main)


def measure(said: argparse.Namespace, folder: Path, redis: str, nats: str) -> dict[str, Any]:
    """One run."""
    from engine.journal import Journal
    from engine.journal.format import EVENTS, ORDERS
    from engine.kernel import codes

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    venue = context.Process(target=serve, args=(theirs, redis, nats))
    venue.start()
    port, log = ours.recv(), folder / "engine.log"
    words = ["mode=live", f"strategy={__file__}:Echo", f"strategy.every={said.every}", "trading=live", "data=ticks",
             f"feed.url={redis}", f"nats.url={nats}", f"execution.address=127.0.0.1:{port}", "cash=1e9",
             f"journal={folder / 'journals'}", "admin.port=0", "track=false", f"sync_ms={said.sync_ms}"]  # fmt: skip
    own = [f"spin_cpu={max(ALL)}"] if said.spin else []
    with log.open("wb") as out:
        with on(ALL):
            engine = subprocess.Popen([*TANDEM, *words, *own], stdout=out, stderr=out)
        while "Data" not in log.read_text() and engine.poll() is None:
            time.sleep(0.1)
        publisher = subprocess.Popen([*TANDEM, "mode=publish", "data=ticks", f"url={redis}", f"rate={said.rate}",
                                      "repeat=0", f"encoding={said.encoding}"], stdout=subprocess.PIPE)  # fmt: skip
        assert publisher.stdout is not None
        publisher.stdout.readline()
        looks = watched(engine, folder / "journals" / "tandem", said.seconds)
        publisher.send_signal(signal.SIGINT)
        published = re.search(rb"Done +([\d,]+) events", publisher.communicate()[0])
        time.sleep(2.0)  # what is on its way
        aside = int(metric(folder / "journals" / "tandem", "feed_set_aside_total"))
        engine.send_signal(signal.SIGTERM)
        engine.wait()
    ours.send("end")
    came = ours.recv()
    venue.join()
    told = log.read_text()
    (place,) = (folder / "journals" / "tandem").iterdir()
    journal = Journal(place)
    orders, events = journal.rows(ORDERS), journal.rows(EVENTS)
    events = events[events["kind"] != codes.SLICE]
    new = orders[orders["action"] == codes.NEW]
    arrived = np.array([came.get(int(i), 0) for i in new["id"]], np.int64)
    took = (arrived - events["ts"][new["seq"] - 1])[arrived > 0][len(new) // 10 :] / 1e3
    quick = re.search(r"([\d.e+]+|inf) µs \(p50\) and ([\d.e+]+|inf) µs", told)
    market = int(np.isin(events["kind"], (codes.QUOTE, codes.TRADE)).sum())
    gaps, sent = int((events["kind"] == codes.GAP).sum()), int(published[1].replace(b",", b"")) if published else 0
    return {"events": market, "published": sent, "lost": sent - market - aside, "aside": aside, "gaps": gaps,
            "orders": len(new), "arrived": int((arrived > 0).sum()),
            "tick_to_order_us": {f"p{part}": round(float(np.percentile(took, part))) for part in (50, 99)},
            "inside_us": {"p50": float(quick[1]), "p99": float(quick[2])} if quick else None,
            **looks}  # fmt: skip


def metric(place: Path, name: str) -> float:
    """A metric of the engine whose journals are there."""
    url = (place / "admin.url").read_text().strip() + "/metrics"
    with urllib.request.urlopen(url, timeout=5.0) as reply:
        text = reply.read().decode()
    return float(re.findall(rf"(?m)^tandem_{name} (\S+)$", text)[0])


def watched(engine: "subprocess.Popen[bytes]", place: Path, seconds: float) -> dict[str, Any]:
    """Memory and pauses of an engine for so many seconds, of which the first tenth is its warm-up."""
    until, rss, paused = time.monotonic() + seconds, list[float](), list[float]()
    time.sleep(seconds / 10)
    while time.monotonic() < until and engine.poll() is None:
        status = Path(f"/proc/{engine.pid}/status").read_text()
        rss.append(int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024)
        paused.append(metric(place, "gc_pause_seconds_total"))
        time.sleep(min(1.0, max(0.0, until - time.monotonic())))
    most = float(np.diff(paused).max(initial=0.0)) * 1e3
    return {"rss_mb": {"warm": round(rss[0], 1), "end": round(rss[-1], 1), "most": round(max(rss), 1)},
            "gc_ms": round(most, 3)}  # fmt: skip


def run(said: argparse.Namespace) -> dict[str, Any]:
    """One run on servers of its own."""
    from engine.live import servers

    others = ALL - {max(ALL)} if said.spin else ALL
    with on(others), tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with servers.redis_server(folder / "redis") as redis, servers.nats_server(folder / "nats") as nats:
            return measure(said, folder, redis.url, nats.url)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.engine")
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--encoding", default="raw")
    parser.add_argument("--sync-ms", default="0", help="as in mode=live")
    parser.add_argument("--spin", action="store_true")
    said = parser.parse_args()
    found = run(said)
    print(json.dumps({"case": "engine", **vars(said), **found, "cores": os.cpu_count()}))
    return int(bool(found["gaps"] or found["lost"]) or found["orders"] != found["arrived"])


if __name__ == "__main__":
    sys.exit(main())
