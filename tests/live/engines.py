"""An engine without wires, for what looks at engines: a real kernel, and everything else as plain values."""

from collections import Counter, deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from engine.errors import StrategyError
from engine.kernel import codes
from engine.kernel.machine import LIMITS_OFF, Machine, Placed
from engine.kernel.positions import apply_fill, apply_mark
from engine.kernel.records import Instrument, markets
from strategies.momentum import Momentum

EDGES = np.array([1_000, 10_000, 100_000, 1_000_000], np.int64)


class FakeEngine:
    """Two instruments, two strategies; the first holds 3 lots of A, bought at 10 and worth 12."""

    def __init__(self, folder: Path) -> None:
        rows = np.zeros(2, Instrument.dtype)
        rows["tick"], rows["lot"], rows["multiplier"], rows["margin"], rows["allowed"] = 0.01, 0.5, 2.0, 1.0, 1
        placed = [Placed(Momentum(fast=f, slow=50), (0, 1), {}) for f in (5, 10)]
        machine = Machine(placed, rows, cash=1000.0, session=7)
        apply_fill(machine.kernel, 0, 0, 3, 10.0, 0.25)
        apply_mark(machine.kernel, markets(machine.kernel, 0), 5, 12.0)
        folder.mkdir(parents=True, exist_ok=True)
        journal = SimpleNamespace(folder=folder, place=SimpleNamespace(events=11, orders=4, chain=99), header={})
        self.session = SimpleNamespace(machine=machine, faults=[], halted=0, journal=journal)
        self.names = SimpleNamespace(names=("A", "B"))
        self.plan = SimpleNamespace(names=("momentum", "momentum"), limits=LIMITS_OFF, cash=1000.0)
        self.feed = SimpleNamespace(counts=Counter(gaps=2, events=10), connected=True, waiting=3)
        self.reports = SimpleNamespace(counts=Counter(holes=1), behind=False)
        counts = Counter({"orders": 4, "status_unavailable": 2})
        self.venue = SimpleNamespace(counts=counts, connected=True, in_doubt=1, waiting=0, fenced=False)
        self.lease, self.bus = SimpleNamespace(valid=True, token=42), SimpleNamespace(counts=Counter(), connected=True)
        refusals = np.zeros(codes.REASONS, np.int64)
        refusals[codes.POSITION] = 6
        latency = SimpleNamespace(counts=np.array([0, 5, 4, 0, 1], np.int64), edges=EDGES, sum=2_300_000, count=10)
        self.stats = SimpleNamespace(
            cycles=20,
            events=11,
            orders=4,
            reports=3,
            fills=1,
            refusals=refusals,
            latency_ns=latency,
            lag_ns=2_000_000,
            sync_ns=1_500_000,
            last_refusals=deque(),
            curve=[(10**18 + n * 10**9, 1000.0 - n % 3) for n in range(9)],
        )
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

    def status(self) -> dict[str, Any]:
        """As an engine says it."""
        k = self.session.machine.kernel
        strategies = [{"name": name, "params": placed.strategy.values, "active": True, "fault": ""}
                      for name, placed in zip(self.plan.names, self.session.machine.placed, strict=True)]  # fmt: skip
        return {
            "time": "2026-01-02T03:04:05Z", "engine": "mine", "trading": "simulation", "killed": False, "halted": "",
            "readiness": self.why, "equity": k.cash + k.value, "cash": k.cash, "pnl_today": np.float64(5.75),
            "positions": [{"instrument": "A", "qty": 1.5, "average": 10.0, "mark": 12.0, "pnl": 5.75}],
            "rates": {"events": 1234.5, "orders": 2.0, "fills": 0.5}, "in_doubt": 1,
            "refusals": [{"time": "03:04:01", "strategy": "momentum", "instrument": "B", "qty": 5, "reason": "position",
                          "value": 9.0, "limit": 8.0}],
            "strategies": strategies, "gaps": 2, "reconnects": 0, "latency": {"p50_us": 10.0, "p99_us": float("nan")},
            "journal": {"folder": str(self.session.journal.folder), "events": 11, "orders": 4},
        }  # fmt: skip
