"""How long messages are under way, by direction: orders to the venue, its reports back, market events to the kernel.

  constant     `order_ms`, `report_ms`, `feed_ms`
  measured     a table by time: the last measurement at or before a message is sent holds for it, before the first
               row the first; of the feed it is what comes on top of the tape's own delay, and what leaves just before
               a row is taken to be there before what leaves after it
  sampled      `jitter`: each order and report takes a factor exp(jitter * z) more or less than that, z standard normal

Law 1: within a direction nothing overtakes: what is sent later arrives no earlier than what was sent before.
Law 2: the state of the draws is a field of the venue, one for each direction; the feed is a function of time alone.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from backtest.hours import NEVER
from backtest.records import Draws, Latency, Venue, venue_latencies
from engine.errors import DataError

LONGEST_NS = 10**12


def uniform(d: Draws) -> float:
    """The next number between 0 and 1, both excluded. Source: L'Ecuyer 1988, "Efficient and portable combined random
    number generators"; its products fit 64 bits, so that plain Python draws the same.
    """
    d.first = 40014 * d.first % 2147483563
    d.second = 40692 * d.second % 2147483399
    z = (d.first - d.second) % 2147483562
    return (z if z > 0 else 2147483562) / 2147483563.0


def normal(d: Draws) -> float:
    """The next standard normal number. Source: Marsaglia & Bray 1964, the polar method; its second one is dropped."""
    while True:
        x, y = 2.0 * uniform(d) - 1.0, 2.0 * uniform(d) - 1.0
        square = x * x + y * y
        if 0.0 < square < 1.0:
            return x * math.sqrt(-2.0 * math.log(square) / square)


def measured(v: Venue, ts: int) -> Latency:
    """The row of the table that holds at a time."""
    low, high = 0, v.latencies - 1
    while low < high:
        middle = (low + high + 1) // 2
        if venue_latencies(v, middle).time <= ts:
            low = middle
        else:
            high = middle - 1
    return venue_latencies(v, low)


def drawn(v: Venue, d: Draws, median: int) -> int:
    """A latency about its median."""
    if v.jitter == 0.0:
        return median
    return math.floor(min(median * math.exp(v.jitter * normal(d)), float(LONGEST_NS)))


def order_arrival(v: Venue, ts: int) -> int:
    """When an order sent at `ts` reaches the venue; to be asked once for each order, in their order."""
    if v.sampled == 0:
        return ts + v.order_ns
    median = measured(v, ts).order_ns if v.latencies else v.order_ns
    v.order_last = max(v.order_last, ts + drawn(v, v.order_draws, median))
    return v.order_last


def report_arrival(v: Venue, ts: int) -> int:
    """When a report made at `ts` reaches the kernel; to be asked once for each report, in their order."""
    if v.sampled == 0:
        return ts + v.report_ns
    median = measured(v, ts).report_ns if v.latencies else v.report_ns
    v.report_last = max(v.report_last, ts + drawn(v, v.report_draws, median))
    return v.report_last


def feed_arrival(v: Venue, recv: int) -> int:
    """When a market event that the tape has at `recv` reaches the kernel."""
    if v.feed_ns >= 0:
        return recv + v.feed_ns
    row = measured(v, recv)
    return max(recv + row.feed_ns, row.feed_floor)


def seeded(d: Draws, seed: int) -> None:
    """Start a generator; seeds that differ in their lower 31 bits give other numbers."""
    d.first, d.second = 1 + seed % 2147483562, 1 + seed % 2147483398
    for _ in range(8):
        uniform(d)


def read_latencies(path: str) -> "np.ndarray[Any, Any]":
    """A table of measured latencies from CSV or Parquet: time, order_ns, report_ns and, if it likes, feed_ns.

    `time` as in any file of bars (ISO text, datetime, epoch); times without a zone are UTC. Raises DataError for a
    file without these columns, without rows, unsorted, or with latencies that are no whole ns from 0 to 1,000 s.
    """
    from engine.store.frames import time_column, to_utc
    from engine.store.opening import read_table

    if not Path(path).is_file():
        raise DataError(f"venue.latency={path}: no such file; give a CSV or Parquet file with the columns time, "
                        "order_ns, report_ns and, if the feed was measured too, feed_ns.")  # fmt: skip
    frame = read_table(Path(path))
    missing = [name for name in ("order_ns", "report_ns") if name not in frame.columns]
    if missing or frame.height == 0:
        what = f"no column {' and '.join(missing)}; it has {', '.join(frame.columns)}" if missing else "no row"
        raise DataError(f"venue.latency={path}: {what}. It needs time, order_ns, report_ns (and feed_ns).")
    time = to_utc(frame[time_column(frame, path)], None, path)[0]
    rows = np.zeros(frame.height, Latency.dtype)
    rows["time"] = time.dt.epoch("ns").fill_null(-1).to_numpy()
    wrong = np.flatnonzero(np.diff(rows["time"], prepend=rows["time"][0]) < 0)
    if time.null_count() or len(wrong):
        where = f"row {int(wrong[0]) + 1} is older than the one before it" if len(wrong) else "a time is missing"
        raise DataError(f"venue.latency={path}: {where}; sort the table by time.")
    for name in ("order_ns", "report_ns", *(["feed_ns"] if "feed_ns" in frame.columns else [])):
        column = frame[name]
        if not column.dtype.is_integer() or column.null_count() or not column.is_between(0, LONGEST_NS).all():
            raise DataError(f"venue.latency={path}: {name} must hold whole ns from 0 to {LONGEST_NS:,}, in every row.")
        rows[name] = column.to_numpy()
    rows["feed_floor"][0] = -NEVER
    before = rows["time"] + np.concatenate([rows["feed_ns"][:1], rows["feed_ns"][:-1]])
    rows["feed_floor"][1:] = np.maximum.accumulate(before)[1:]  # the last that was sent under the row before arrives
    return rows
