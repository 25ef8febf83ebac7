"""What an engine counts: plain numbers and arrays of fixed size, written by the engine alone, copied by who looks."""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.kernel import codes

# Upper bounds of the buckets, ns: from a microsecond to a second.
EDGES_NS = np.array([1_000 * step * 10**power for power in range(6) for step in (1, 2, 5)] + [1_000_000_000], np.int64)
EDGES = EDGES_NS.tolist()
CURVE, REFUSALS = 100_000, 50  # points and refusals that are kept


class Histogram:
    """Counts of durations by bucket: `counts[i]` are those up to `EDGES_NS[i]`, the last one all longer ones."""

    def __init__(self) -> None:
        self.counts, self.total_ns, self.count = np.zeros(len(EDGES_NS) + 1, np.int64), 0, 0

    def add(self, ns: int) -> None:
        """One duration."""
        self.counts[bisect_left(EDGES, ns)] += 1
        self.total_ns += ns
        self.count += 1

    def quantile(self, part: float) -> float:
        """A quantile, ns, as if durations lay evenly in their bucket; nan while there is nothing, inf beyond all."""
        if not self.count:
            return math.nan
        upto, wanted = np.cumsum(self.counts), part * self.count
        bucket = int(np.searchsorted(upto, wanted))
        if bucket >= len(EDGES):
            return math.inf
        low, inside = (EDGES[bucket - 1] if bucket else 0), int(self.counts[bucket])
        return float(low + (EDGES[bucket] - low) * (wanted - int(upto[bucket]) + inside) / max(inside, 1))


@dataclass
class Stats:
    """Since the start of the process. `lag_ns`: from source to us, of the latest market event."""

    cycles: int = 0
    events: int = 0
    reports: int = 0
    orders: int = 0
    fills: int = 0
    signals: int = 0  # of a simulation
    corrected: int = 0  # findings of the reconciliation
    retold: int = 0  # fills that the venue told again
    lag_ns: int = 0
    refusals: "np.ndarray[Any, Any]" = field(default_factory=lambda: np.zeros(codes.REASONS, np.int64))
    latency: Histogram = field(default_factory=Histogram)  # from the first byte of a drain to the orders' departure
    last_refusals: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=REFUSALS))
    curve: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=CURVE))  # ts ns, equity; one a second

    def drained(self, market: "np.ndarray[Any, Any]", reports: "np.ndarray[Any, Any]", now: int) -> None:
        """A drain is over, which was received at `now`."""
        self.cycles += 1
        if len(reports):
            self.reports += len(reports)
            self.fills += int(((reports["code"] == codes.FILL) & (reports["qty"] != 0)).sum())
        if len(market):
            self.events += len(market)
            self.lag_ns = int(now - market["ts"][-1])

    def judge(self, rows: "np.ndarray[Any, Any]", names: Sequence[str]) -> None:
        """Count what passed in a simulation, and refusals by reason; keep the latest of these in words."""
        passed = rows["reason"] == codes.OK
        self.signals += int(passed.sum())
        rows = rows[~passed]
        np.add.at(self.refusals, rows["reason"], 1)
        for row in rows[-REFUSALS:]:
            self.last_refusals.append({
                "ts": int(row["ts"]), "instrument": names[int(row["instrument"])], "qty": int(row["qty"]),
                "reason": codes.NAMES["reason"][int(row["reason"])], "value": float(row["value"]),
                "limit": float(row["limit"]), "strategy": int(row["strategy"]),
            })  # fmt: skip
