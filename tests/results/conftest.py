"""A plain account, kept by hand: it turns a list of fills over made-up bars into the raw arrays of a backtest."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from backtest.result import Result
from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.records import Curve, Order, Refusal
from engine.store.instruments import InstrumentInfo

DAY = 86_400_000_000_000
FIRST = 19_000 * DAY + 21 * 3_600_000_000_000  # 2022-01-08, a Saturday, 21:00 UTC


@dataclass
class Tape:
    """What a result needs of a tape."""

    events: Any
    instruments: tuple[InstrumentInfo, ...]
    digest: str = "d" * 64
    name: str = "made-up"


@dataclass
class Fill:
    """One fill: `bar` is the row of the time axis at whose close it happens."""

    bar: int
    instrument: int
    lots: int
    price: float
    fee: float = 0.0
    strategy: int = 0
    order: int = 0  # 0 = an order of its own


def make_tape(closes: Any, ts: Any = None, infos: Any = None, actions: Any = ()) -> Tape:
    """Bars of `closes` (rows = times, columns = instruments); `actions`: (row, instrument, kind, amount)."""
    closes = np.atleast_2d(np.asarray(closes, float).T).T
    n, m = closes.shape
    ts = FIRST + np.arange(n) * DAY if ts is None else np.asarray(ts)
    rows = []
    for i in range(n):
        for row, instrument, kind, amount in actions:
            if row == i:
                event = np.zeros((), Event.dtype)
                event["ts"] = event["recv"] = ts[i] - 1
                event["kind"], event["instrument"], event["amount"] = kind, instrument, amount
                rows.append(event)
        for j in range(m):
            if np.isfinite(closes[i, j]):
                event = np.zeros((), Event.dtype)
                event["ts"] = event["recv"] = ts[i]
                event["kind"], event["instrument"], event["volume"] = codes.BAR, j, 1e6
                for name in ("open", "high", "low", "close"):
                    event[name] = closes[i, j]
                rows.append(event)
    events = np.array(rows, Event.dtype) if rows else np.zeros(0, Event.dtype)
    infos = infos or [InstrumentInfo(name=f"I{j}") for j in range(m)]
    return Tape(events, tuple(infos))


def run(tape: Tape, fills: list[Fill], start: float = 10_000.0, strategies: Any = ("momentum",), config: Any = None,
        refusals: int = 0, identity: Any = None) -> Result:  # fmt: skip
    """The result of exactly these fills. Splits pay fractions of a lot in cash; dividends go to cash."""
    times = np.unique(tape.events["ts"][tape.events["kind"] == codes.BAR])
    unit = [i.lot * i.multiplier for i in tape.instruments]
    cash, held, mark = start, {}, {}
    orders, reports, curve = [], [], []
    seen: set[int] = set()
    events = list(tape.events)
    for row, ts in enumerate(times):
        while events and events[0]["ts"] <= ts:
            event = events.pop(0)
            j = int(event["instrument"])
            if event["kind"] == codes.BAR:
                mark[j] = float(event["close"])
            elif event["kind"] == codes.DIVIDEND:
                units = sum(q for (_, i), q in held.items() if i == j) * tape.instruments[j].lot
                cash += units * float(event["amount"])
            else:
                ratio = float(event["amount"])
                before = after = 0
                for key in sorted(k for k in held if k[1] == j):
                    before += held[key]
                    whole = int(before * ratio + (1e-9 if before > 0 else -1e-9)) - after
                    after += whole
                    cash += (held[key] * ratio - whole) * mark[j] / ratio * unit[j]
                    held[key] = whole
        for f in (f for f in fills if f.bar == row):
            cash -= f.lots * f.price * unit[f.instrument] + f.fee
            held[f.strategy, f.instrument] = held.get((f.strategy, f.instrument), 0) + f.lots
            number = f.order or 1_000 + len(reports)
            if number not in seen:
                order = np.zeros((), Order.dtype)
                order["id"], order["ts"], order["qty"] = number, ts, abs(f.lots)
                order["instrument"], order["strategy"], order["side"] = f.instrument, f.strategy, np.sign(f.lots)
                order["action"], order["type"], order["tif"] = codes.NEW, codes.MARKET, codes.GTC
                orders.append(order)
                seen.add(number)
            report = np.zeros((), Event.dtype)
            report["ts"], report["kind"], report["code"] = ts, codes.REPORT, codes.FILL
            report["instrument"], report["price"], report["qty"] = f.instrument, f.price, f.lots
            report["order_id"], report["fee"] = number, f.fee
            reports.append(report)
        values = [q * mark[i] * unit[i] for (_, i), q in held.items()]
        point = np.zeros((), Curve.dtype)
        point["ts"], point["cash"], point["gross"] = ts, cash, sum(map(abs, values))
        point["equity"] = cash + sum(values)
        curve.append(point)
    refused = np.zeros(refusals, Refusal.dtype)
    refused["reason"] = codes.DAILY_LOSS
    raw = [np.array(rows, kind) for rows, kind in ((orders, Order.dtype), (reports, Event.dtype))]
    points = np.array(curve, Curve.dtype) if curve else np.zeros(0, Curve.dtype)
    return Result(*raw, refused, points, tape, list(strategies), start, config or {}, identity or {}, 0.25)


def walk(rows: int, columns: int = 1, seed: int = 7) -> Any:
    """Prices that wander: a seeded geometric walk from 100."""
    steps = np.random.default_rng(seed).normal(0.0004, 0.012, (rows, columns))
    return 100.0 * np.exp(np.cumsum(steps, axis=0))


def cross(closes: Any, fast: int, slow: int, lots: int = 30) -> list[Fill]:
    """Fills of a moving-average cross, long and short, at the next close."""
    fills = []
    for j in range(closes.shape[1]):
        held = 0
        for i in range(slow, len(closes) - 1):
            wish = lots if closes[i - fast : i, j].mean() > closes[i - slow : i, j].mean() else -lots
            if wish != held:
                price = float(closes[i + 1, j])
                fills.append(Fill(i + 1, j, wish - held, price, fee=0.0005 * abs(wish - held) * price))
                held = wish
    return fills


@pytest.fixture(scope="session")
def crossing() -> Callable[..., Result]:
    """A result that looks like a real one: a cross over two walking instruments, 900 days."""

    def make(fast: int = 10, slow: int = 50, rows: int = 900, columns: int = 2, **more: Any) -> Result:
        closes = walk(rows, columns)
        weekdays = np.array([d for d in range(2 * rows) if d % 7 > 1][:rows]) if rows else np.arange(0)
        config = {"name": "momentum", "cash": 1e4, "risk": {"leverage": 2.0, "drawdown": float("inf"), "allow": []},
                  "strategies": [{"class": "momentum", "params": {"fast": fast, "slow": slow}}]}  # fmt: skip
        identity = {"kernel": "abc123def456", "strategies": ["0123456789abcdef"], "config": "feed00beef"}
        tape = make_tape(closes, FIRST + weekdays * DAY)
        return run(tape, cross(closes, fast, slow), config=config, identity=identity, refusals=3, **more)

    return make


@pytest.fixture(scope="session")
def book() -> Any:
    """The helpers of this file for the tests beside it."""
    return {"tape": make_tape, "run": run, "fill": Fill, "walk": walk, "first": FIRST, "info": InstrumentInfo}
