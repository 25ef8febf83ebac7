"""Backtests done by hand, in a loop of numpy numbers, beside the engine: fees, slippage, shorts, splits, margin."""

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from backtest import backtest
from engine.kernel import codes
from engine.kernel.events import Bar
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param
from engine.store import open_tape


class Hold(Strategy):
    qty: float = param(100.0)
    n: int

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.n += 1
        if self.n == 1:
            ctx.target(self.qty)


class Flip(Strategy):
    """Another side at every third bar."""

    qty: float = param(7.0)
    n: int

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.n += 1
        if self.n % 3 == 0:
            ctx.target(self.qty if self.n % 2 == 0 else -self.qty)


def walk(n: int = 400, seed: int = 5) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.01, n))), 2)
    opened = np.round(np.append(100.0, close[:-1]) * np.exp(rng.normal(0, 0.002, n)), 2)
    high, low = np.maximum(opened, close) + 0.3, np.minimum(opened, close) - 0.3
    time = np.datetime64("2020-01-01T00:01", "ns") + np.arange(n) * np.timedelta64(60, "s")
    return pl.DataFrame({"time": time, "open": opened, "high": high, "low": low, "close": close, "volume": 1e5})


@pytest.mark.parametrize(
    ("bps", "slip", "unit", "least"), [(0, 0, 0, 0), (5, 0, 0, 0), (5, 3, 0, 0), (0, 0, 0.005, 1.0), (2, 4, 0.01, 0)]
)
def test_fees_and_slippage_long_and_short(bps: float, slip: float, unit: float, least: float) -> None:
    data = walk()
    costs: dict[str, Any] = {"taker_bps": bps, "slippage_bps": slip, "fee_per_unit": unit, "fee_min": least}
    result = backtest(Flip(), data, leverage=4, **costs)
    cash, held, wanted = 100_000.0, 0.0, 0.0
    for k, opened in enumerate(data["open"].to_list(), 1):
        change = wanted - held
        if change:
            price = opened * (1 + math.copysign(slip * 1e-4, change))
            cash -= change * price + max(least, abs(change) * (price * bps * 1e-4 + unit))
            held = wanted
        if k % 3 == 0:
            wanted = 7.0 if k % 2 == 0 else -7.0
    assert result.metrics["end_equity"] == pytest.approx(cash + held * data["close"][-1], rel=1e-12)
    assert result.metrics["fills"] > 60


def test_real_shares_through_their_splits_and_dividends() -> None:
    events = open_tape("equities_raw", ["AAPL"]).events
    cash, held, last = 1e6, 0.0, 0.0
    for event in events:
        if event["kind"] == codes.BAR:
            if last and not held:
                cash, held = cash - 100.0 * event["open"], 100.0
            last = event["close"]
        elif event["kind"] == codes.SPLIT:
            held *= event["amount"] if "ratio" not in events.dtype.names else event["ratio"]
        elif event["kind"] == codes.DIVIDEND:
            cash += held * event["amount"]
    result = backtest(Hold(), "equities_raw", instruments=["AAPL"], cash=1e6)
    assert result.metrics["end_equity"] == pytest.approx(cash + held * last, rel=1e-12)
    assert held == 400.0 == result.positions["qty"][-1]


@pytest.mark.parametrize(
    ("leverage", "qty"), [(1.0, 999.0), (1.0, 1100.0), (2.0, 1900.0), (2.0, 2200.0), (2.0, -2200.0)]
)
def test_margin(leverage: float, qty: float) -> None:
    data = walk(40)
    result = backtest(Hold(qty=qty), data, leverage=leverage)
    fits = abs(qty) * data["close"][0] <= leverage * 100_000.0
    assert result.refusals["reason"].to_list() == ([] if fits else ["margin"])
    gained = qty * (data["close"][-1] - data["open"][1]) if fits else 0.0
    assert result.metrics["end_equity"] == pytest.approx(100_000.0 + gained, rel=1e-12)
