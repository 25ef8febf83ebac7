"""A session's journal of ten million events: how fast it is replayed, and how soon a restart is ready.

    python -m bench replay --json     drives the kernel again over all of it and compares its orders
    python -m bench recovery --json   newest snapshot, then the tail, in a process of its own

The journal is made once (bench/data/journals): market making on a synthetic market, drained 50 events at a time, its
orders at the paper venue, a snapshot every million events. A restart is measured where the tail is longest.
"""

import argparse
import json
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import data, measure

JOURNALS = data.FOLDER / "journals"  # one, made by the kernel that is named in it
EVENTS, DRAIN, SNAPSHOTS = 10_000_000, 50, 1_000_000
LEAST_PER_S, MOST_S = 10e6, 3.0


def folder() -> Path:
    """Where the journal of this kernel is, or will be."""
    from engine.kernel import build
    from engine.session_loop import PROGRAM

    return JOURNALS / build.program_digest(*PROGRAM)[:12]


def make(folder: Path, events: int) -> None:
    """Drive a session beside the paper venue, without a seal: it has crashed."""
    from backtest.desk import VenueDesk
    from backtest.run import prepare
    from engine.journal import JournalWriter
    from engine.kernel.events import Event
    from engine.session import Session
    from engine.session_loop import PROGRAM
    from engine.store.market import market_tape
    from strategies import MarketMaking

    part = folder.with_suffix(".part")
    shutil.rmtree(JOURNALS, ignore_errors=True)  # other kernels cannot be asked for the same bytes
    prepared = prepare(MarketMaking(), market_tape(events), leverage=math.inf)
    journal = JournalWriter(part, prepared.plan(("market_making",)).header(PROGRAM), sync_ms=math.inf)
    session = Session(prepared.machine(), journal, snapshot_every=SNAPSHOTS)
    desk = VenueDesk(prepared.rows, prepared.cash, prepared.venue, leverage=math.inf, orders=prepared.sizes.orders,
                     ticks=True, keep=1 << 12)  # fmt: skip
    answers = np.zeros(0, "V64")
    for at in range(0, events, DRAIN):
        market = prepared.tape.events[at : at + DRAIN]
        reports = desk.market(market)
        rows = np.concatenate([answers, reports.view("V64"), market.view("V64")]).view(Event.dtype)
        rows["recv"] = market["recv"][-1]
        orders = session.advance(rows)
        answers = desk.orders(orders, desk.now).view("V64")
    journal.close()
    part.rename(folder)


def child(what: str) -> dict[str, Any]:
    """One measurement in this process."""
    from engine.registry import find

    begin = time.perf_counter()
    if what == "replay":
        from engine.replay import replay

        found = replay(folder(), find)
        seconds = time.perf_counter() - begin
        if found.difference:
            raise SystemExit(str(found))
        return {"events": found.events, "orders": found.orders, "seconds": seconds}
    from engine.recovery import recover

    copy = JOURNALS / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder(), copy)
    begin = time.perf_counter()
    back = recover(copy, find, sync_ms=math.inf)
    seconds = time.perf_counter() - begin
    events, tail = back.journal.place.events, back.journal.place.events - back.start.events
    shutil.rmtree(copy)
    return {"events": events, "tail": tail, "seconds": seconds}


def line(what: str) -> dict[str, Any]:
    """The line of a case: the best of three processes."""
    if not folder().exists():
        make(folder(), EVENTS)
    lines = [measure.child(sys.executable, "bench.journal", what) for _ in range(3)]
    wrong = [one["error"] for one in lines if "error" in one]
    if wrong:
        return {"case": what, "failed": wrong}
    best = min(lines, key=lambda one: one["seconds"])
    rate = best["events"] / best["seconds"]
    within = rate >= LEAST_PER_S if what == "replay" else best["seconds"] <= MOST_S
    shown = {f"{best['events']:,} events": round(best["seconds"], 3)}
    includes = ("reading, checksums, kernel, comparison of the orders" if what == "replay" else
                "snapshot, tail, comparison of the orders, a new segment")  # fmt: skip
    return {"case": what, **best, "events_per_s": round(rate), "within": within, "seconds": shown, "includes": includes}


def replay() -> dict[str, Any]:
    """Ten million events again."""
    return line("replay")


def recovery() -> dict[str, Any]:
    """A restart behind ten million events."""
    return line("recovery")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["replay", "recovery"])
    sys.stdout.write(json.dumps(child(parser.parse_args().what)) + "\n")
