"""From tick to order through the whole engine, on real servers: how long, and without loss?

    python -m bench.engine --rate 1000 --seconds 20

Processes: publisher → Redis → engine (journal on, orders on the disk before they are sent) → gRPC → paper venue, whose
reports come back over NATS. An order is caused by one quote in `every`. `tick_to_order_us`: from the publisher's time
in the event to the order's receipt at the service. `inside_us`: from the first byte of a drain to the hand-over.
The last line is one JSON object.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from engine.kernel.events import Quote
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param

TANDEM = (sys.executable, "-m", "engine.app")


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
    with log.open("wb") as out:
        engine = subprocess.Popen([*TANDEM, *words], stdout=out, stderr=out)
        while "Data" not in log.read_text() and engine.poll() is None:
            time.sleep(0.1)
        publisher = subprocess.Popen([*TANDEM, "mode=publish", "data=ticks", f"url={redis}", f"rate={said.rate}",
                                      "repeat=0", f"encoding={said.encoding}"], stdout=subprocess.DEVNULL)  # fmt: skip
        time.sleep(said.seconds)
        rss = int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{engine.pid}/status").read_text())[0]) / 1024
        publisher.send_signal(signal.SIGINT)
        publisher.wait()
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
    gaps = int((events["kind"] == codes.GAP).sum())
    return {"events": market, "gaps": gaps, "orders": len(new), "arrived": int((arrived > 0).sum()),
            "tick_to_order_us": {f"p{part}": round(float(np.percentile(took, part))) for part in (50, 99)},
            "inside_us": {"p50": float(quick[1]), "p99": float(quick[2])} if quick else None,
            "rss_mb": round(rss)}  # fmt: skip


def main() -> int:
    """The command line."""
    from engine.live import servers

    parser = argparse.ArgumentParser(prog="python -m bench.engine")
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--encoding", default="raw")
    parser.add_argument("--sync-ms", default="0", help="as in mode=live")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with servers.redis_server(folder / "redis") as redis, servers.nats_server(folder / "nats") as nats:
            found = measure(said, folder, redis.url, nats.url)
    print(json.dumps({"case": "engine", **vars(said), **found, "cores": os.cpu_count()}))
    return int(bool(found["gaps"]) or found["orders"] != found["arrived"])


if __name__ == "__main__":
    sys.exit(main())
