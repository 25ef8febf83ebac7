"""The wires on real servers: how many events a feed takes without loss, and how long an order is on its way.

    python -m bench.wires feed --rate 200000 --seconds 60 --encoding raw
    python -m bench.wires orders --rate 1000 --seconds 10

`feed`: a publisher in a process of its own → Redis → the feed of this process, drained as it comes, judged by the gate.
`orders`: batches of one → gRPC on loopback → a service in a process of its own; from `send` to its receipt (one clock).
The last line is one JSON object.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.records import Order
from engine.live import loop, servers
from engine.live.codec import Names
from engine.live.gate import Admission
from engine.live.grpc_service import GrpcService
from engine.live.grpc_venue import GrpcVenue
from engine.live.inbox import Inbox
from engine.live.publisher import Pace, Publisher, pieces_of
from engine.live.quarantine import Quarantine
from engine.live.redis_feed import RedisFeed
from engine.live.service import Service
from engine.ports import VenueView

NAMES = Names(("BENCH",))


class NoDesk:
    """Takes every order and says nothing: the wire alone is measured."""

    now, last_exec = 1, 0

    def orders(self, orders: Any, now: int | None = None) -> Any:
        """Nothing happens."""
        return np.zeros(0, Event.dtype)

    market = orders

    def knows(self, order_id: int, action: int, cause: int) -> bool:
        """Nothing was here before."""
        return False

    def positions(self) -> Any:
        """Nothing is held."""
        return np.zeros(1, np.int64)

    def view(self, ids: Any = (), since: int = 0) -> VenueView:
        """Nothing is known."""
        return VenueView(orders=dict.fromkeys(ids), positions=self.positions())


def publish(url: str, encoding: str, rate: float, count: int) -> None:
    """The publisher's process."""
    rows = np.zeros(1 << 16, Event.dtype)
    rows["kind"], rows["bid"], rows["ask"] = codes.QUOTE, 10.0, 10.01
    rows["recv"] = rows["ts"] = np.arange(len(rows))
    publisher = Publisher(url, "md.bench", NAMES, encoding=encoding)
    turns = -(-count // len(rows))
    asyncio.run(publisher.run(pieces_of(rows, turns), Pace(rate=rate)))


async def feed(url: str, said: argparse.Namespace) -> dict[str, Any]:
    """Drain until everything is here."""
    inbox = Inbox(NAMES, Admission(1, 0.0, 60.0, 0.5), Quarantine(), time.time_ns)
    one, news = RedisFeed(url, inbox, ["md.*"]), asyncio.Event()
    await one.start(news.set)
    count = -(-int(said.rate * said.seconds) // (1 << 16)) * (1 << 16)
    process = multiprocessing.get_context("spawn").Process(target=publish, args=(url, said.encoding, said.rate, count))
    process.start()
    got, lags, cpu, began = 0, [], 0.0, 0.0
    while got < count:
        await news.wait()
        news.clear()
        rows = one.drain()
        if not began and len(rows):
            began, cpu = time.monotonic(), time.process_time()
        if len(rows):
            lags.append(time.time_ns() - int(rows["ts"][-1]))
        got += len(rows)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    process.join()
    await one.stop()
    lag = np.percentile(np.array(lags) / 1e3, [50, 99])
    return {"events": got, "rate": round(got / seconds), "missed": inbox.counts["missed"], "slow": inbox.counts["slow"],
            "set_aside": inbox.counts["set_aside"], "cpu_us_per_event": round(cpu / got * 1e6, 3),
            "lag_us": {"p50": round(lag[0]), "p99": round(lag[1])}}  # fmt: skip


def serve(pipe: Any) -> None:
    """The service's process: tells its port, then when each batch came."""

    async def main(stop: asyncio.Event) -> int:
        times: list[int] = []
        service = Service(NoDesk(), NAMES, "bench", lambda rows: None)
        submit = service.submit

        def noted(batch: Any, only: int = 0) -> Any:
            times.append(time.monotonic_ns())
            return submit(batch, only)

        service.submit = noted  # type: ignore[method-assign]
        server = GrpcService(service, "127.0.0.1:0")
        await server.start()
        pipe.send(server.port)
        while not pipe.poll():
            await asyncio.sleep(0.1)
        pipe.send(times)
        await server.stop()
        return 0

    loop.run(main)


async def orders(said: argparse.Namespace) -> dict[str, Any]:
    """Send one order after another."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,))
    process.start()
    venue = GrpcVenue(f"127.0.0.1:{ours.recv()}", NAMES, "bench", "bench", resend_s=60.0)
    await venue.start()
    while not venue.connected:
        await asyncio.sleep(0.01)
    row = np.zeros(1, Order.dtype)
    row["action"], row["qty"], row["side"], row["type"], row["tif"] = codes.NEW, 1, codes.BUY, codes.LIMIT, codes.GTC
    sent: list[int] = []
    began, count = time.monotonic(), int(said.rate * said.seconds)
    while len(sent) < count:
        await asyncio.sleep(max(0.0, began + len(sent) / said.rate - time.monotonic()))
        row["id"], row["ts"] = len(sent) + 1, time.time_ns()
        sent.append(time.monotonic_ns())
        venue.send(row)
    while venue.in_doubt or venue.waiting:
        await asyncio.sleep(0.01)
    ours.send("end")
    received = ours.recv()
    process.join()
    await venue.stop()
    if len(received) != count:  # several orders went as one batch: the wire was not fast enough for single ones
        return {"orders": count, "batches": len(received), "connections": venue.counts["connections"]}
    took = np.percentile((np.array(received) - np.array(sent)) / 1e3, [50, 99])
    return {"orders": count, "us": {"p50": round(took[0]), "p99": round(took[1])}}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.wires")
    parser.add_argument("what", choices=["feed", "orders"])
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--encoding", default="raw")
    said = parser.parse_args()
    found: dict[str, Any] = {}

    async def feeding(stop: asyncio.Event) -> int:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, servers.redis_server(Path(folder)) as redis:
            found.update(await feed(redis.url, said))
        return 0

    async def ordering(stop: asyncio.Event) -> int:
        found.update(await orders(said))
        return 0

    loop.run(feeding if said.what == "feed" else ordering)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    line = {"case": f"wires {said.what}", **vars(said), **found, "peak_rss_mb": round(usage.ru_maxrss / 1024),
            "cores": os.cpu_count()}  # fmt: skip
    print(json.dumps(line))
    return int(bool(found.get("missed")))


if __name__ == "__main__":
    raise SystemExit(main())
