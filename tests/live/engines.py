"""An engine without wires, for what looks at engines: a real kernel, and everything else as plain values."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from engine.errors import StrategyError
from engine.kernel import codes
from engine.kernel.machine import LIMITS_OFF, Machine, Placed
from engine.kernel.positions import apply_fill, apply_mark
from engine.kernel.records import Instrument, markets
from engine.live.stats import Stats
from strategies.momentum import Momentum


class FakeEngine:
    """Two instruments, two strategies; the first holds 3 lots of A, bought at 10 and worth 12."""

    def __init__(self, folder: Path) -> None:
        rows = np.zeros(2, Instrument.dtype)
        rows["tick"], rows["lot"], rows["multiplier"], rows["margin"], rows["allowed"] = 0.01, 0.5, 2.0, 1.0, 1
        placed = [Placed(Momentum(fast=f, slow=50, qty=1.0), (0, 1), {}) for f in (5, 10)]
        machine = Machine(placed, rows, cash=1000.0, session=7)
        apply_fill(machine.kernel, 0, 0, 3, 10.0, 0.25)
        apply_mark(machine.kernel, markets(machine.kernel, 0), 5, 12.0)
        folder.mkdir(parents=True, exist_ok=True)
        journal = SimpleNamespace(
            folder=folder, place=SimpleNamespace(events=11, orders=4, chain=99), header={}, sync_ns=1_500_000
        )
        self.session = SimpleNamespace(machine=machine, faults=[], halted=0, journal=journal, reloads={})
        self.names = SimpleNamespace(names=("A", "B"))
        self.plan = SimpleNamespace(names=("momentum", "momentum"), limits=LIMITS_OFF, cash=1000.0)
        self.feed = SimpleNamespace(counts=Counter(gaps=2, events=10), connected=True, waiting=3,
                                    inbox=SimpleNamespace(silent=()))  # fmt: skip
        self.quarantine = SimpleNamespace(counts=Counter(malformed=3))
        self.reports = SimpleNamespace(counts=Counter(holes=1), behind=False)
        counts = Counter({"orders": 4, "status_unavailable": 2})
        self.venue = SimpleNamespace(counts=counts, connected=True, in_doubt=1, waiting=0, fenced=False)
        self.lease, self.bus = (
            SimpleNamespace(valid=True, token=42, whole=True),
            SimpleNamespace(counts=Counter(), connected=True),
        )
        refusals = np.zeros(codes.REASONS, np.int64)
        refusals[codes.POSITION] = 6
        refused = {
            "ts": 1,
            "instrument": "B",
            "qty": 5,
            "reason": "position",
            "value": 9.0,
            "limit": 8.0,
            "strategy": 0,
        }
        self.stats = Stats(cycles=20, events=11, orders=4, reports=3, fills=1, lag_ns=2_000_000, refusals=refusals)
        self.stats.last_refusals.append(refused)
        self.stats.curve.extend((10**18 + n * 10**9, 1000.0 - n % 3) for n in range(9))
        for ns in (9_000,) * 5 + (90_000,) * 4 + (2_000_000_000,):
            self.stats.latency.add(ns)
        self.why: list[str] = []
        self.well = True
        self.asked: list[tuple[Any, ...]] = []
        self.fails: Exception | None = None

    def readiness(self) -> list[str]:
        """Why not."""
        return self.why

    def healthy(self) -> bool:
        """Whether it is."""
        return self.well

    async def command(self, code: int, *, amount: float = 0.0, strategy: int = -1) -> None:
        """Note it."""
        if self.fails:
            raise self.fails
        self.asked.append((codes.NAMES["command"][code], amount, strategy))

    async def reload(self, strategy: int, name: str | None, params: dict[str, Any]) -> str:
        """Note it."""
        if params.get("fast", 0) > 40:
            raise StrategyError("Momentum: fast must be below slow; the old one runs on")
        self.asked.append(("reload", strategy, name, params))
        return "f" * 12
