"""Every registered strategy keeps every law, on made and on recorded data; what breaks one is told which, and where."""

import itertools
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from backtest.check import check_strategy
from engine.config import VenueModel
from engine.errors import StrategyError, StrategyFault
from engine.kernel.events import Bar
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param
from strategies import BUILT_IN
from tests.backtest.test_ticks import random_ticks
from tests.laws.world import QUICK, Fuzz, FuzzAll, FuzzTicks

CANDIDATES = {
    **{name: cls(**QUICK.get(name, {})) for name, cls in BUILT_IN.items()},
    "fuzz": Fuzz(),
    "fuzz_all": FuzzAll(),
    "fuzz_ticks": FuzzTicks(),
}
on_ticks = pytest.mark.parametrize(
    "name", [name for name, one in CANDIDATES.items() if {"on_quote", "on_trade", "on_slice"} & set(one.handlers)]
)
on_bars = pytest.mark.parametrize(
    "name", [name for name, one in CANDIDATES.items() if "on_bar" in one.handlers or "on_slice" in one.handlers]
)
COSTS: dict[str, Any] = {"taker_bps": 5.0, "slippage_bps": 2.0, "leverage": 2.0, "participation": 0.2}


@on_bars
def test_on_made_bars(name: str) -> None:
    checked = check_strategy(CANDIDATES[name], events=900, short=120, **COSTS)
    assert checked.laws == (
        "determinism",
        "chunking",
        "snapshot",
        "interpreter",
        "causality",
        "driver",
        "replay",
        "conservation",
        "parameters",
    )


@on_ticks
def test_on_ticks(name: str) -> None:
    """Quotes and trades."""
    late = VenueModel(order_ms=2.0, report_ms=1.0, queue="power", taker_bps=2.0, maker_bps=-0.1)
    checked = check_strategy(CANDIDATES[name], random_ticks(1, 1000), short=120, tries=2, venue=late, leverage=4.0)
    assert checked.orders > 0 or "on_quote" not in CANDIDATES[name].handlers


@on_bars
def test_on_recorded_equities(name: str) -> None:
    """Daily bars with splits and dividends kept as events."""
    checked = check_strategy(CANDIDATES[name], "equities", events=2400, short=100, tries=2, **COSTS)
    assert checked.orders > 0, f"{name} does nothing on real data"


@on_bars
def test_on_recorded_currencies(name: str, real_data: Path) -> None:
    path = real_data / "backtesting_py" / "EURUSD.csv"
    if not path.is_file():
        pytest.skip("no recorded hours of EURUSD")
    frame = pl.read_csv(path, try_parse_dates=True).rename({"": "time"})
    options = {"timezone": "UTC", "label": "end", "tick": 0.00001}
    checked = check_strategy(CANDIDATES[name], frame, events=1200, short=80, tries=2, open_options=options, **COSTS)
    assert checked.events == 1200


@pytest.mark.slow
@on_bars
@pytest.mark.parametrize("seed", range(2))
def test_on_much(name: str, seed: int) -> None:
    check_strategy(CANDIDATES[name], events=20_000, short=1_000, seed=seed, tries=10, **COSTS)


COUNT = itertools.count()


class Forgetful(Strategy):
    """Keeps state outside of itself. Possible in plain Python only."""

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        ctx.target(float(next(COUNT) % 7))


class Careless(Strategy):
    """Writes to a parameter. Possible in plain Python only."""

    qty: float = param(1.0)

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.qty = 2.0


class Broken(Strategy):
    """Fails at its third bar."""

    n: int

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.n += 1
        ctx.target(1.0 / (3 - self.n))


def test_state_outside_of_the_strategy_is_found_out() -> None:
    with pytest.raises(StrategyError, match=r"Forgetful.*determinism: a second run.*order \d+ differs, at event"):
        check_strategy(Forgetful, events=100, compiled=False)


def test_a_changed_parameter_is_found_out() -> None:
    with pytest.raises(StrategyError, match=r"Careless\(qty=1.0\) changed its parameter qty to 2.0"):
        check_strategy(Careless, events=100, compiled=False)


def test_a_fault_is_a_fault() -> None:
    with pytest.raises(StrategyFault, match=r"1.0 / \(3 - self.n\)"):
        check_strategy(Broken, events=100, compiled=False)


def test_the_report_says_what_was_done() -> None:
    checked = check_strategy(Fuzz(seed=4), events=200, short=20)
    assert str(checked).startswith("Fuzz(seed=4, often=60, most=6.0) keeps determinism, chunking, snapshot")
    assert checked.events == 198 and checked.orders > checked.fills > 0
