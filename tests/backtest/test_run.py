"""The Python door to a backtest: what it gives, and what it says to bad input."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from backtest import backtest, prepare
from engine.config import Risk, VenueModel
from engine.errors import ConfigError, DataError, KernelHalted, StrategyError, StrategyFault, TandemError
from engine.kernel.events import Bar, Slice
from engine.kernel.machine import Sizes
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param
from engine.store.synthetic import synthetic_frame, synthetic_tape
from strategies import Momentum

FRAME = synthetic_frame(200, 2, seed=1)
QUICK = Momentum(fast=3, slow=8, qty=10)


class Breaks(Strategy):
    """Fails at a bar of its choice."""

    last: int = param(5)
    n: int

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.n += 1
        ctx.target(1.0 / (self.last - self.n))


class Starts(Strategy):
    """Sets its state in on_start; each instance is one instrument's."""

    n: int

    def on_start(self, now: Slice, ctx: Ctx) -> None:
        self.n = 7 + ctx.instrument

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        ctx.target(float(self.n))


# what is asked for, the error, what it says
BAD: list[tuple[dict[str, Any], type[TandemError], str]] = [
    ({"strategy": Momentum}, ConfigError, r"instance.*write Momentum\(\)"),
    ({"strategy": "momentum"}, ConfigError, r"instance of a Strategy class"),
    ({"strategy": [QUICK, None]}, ConfigError, r"instance of a Strategy class, got None"),
    ({"strategy": []}, ConfigError, r"at least one strategy"),
    ({"data": FRAME.clear()}, DataError, r"empty|no rows|at least one"),
    ({"data": FRAME.drop("close")}, DataError, r"close"),
    ({"data": FRAME.drop("ts")}, DataError, r"time"),
    ({"data": "equitis"}, DataError, r"Did you mean equities"),
    ({"data": 3}, DataError, r"int"),
    ({"instruments": "SYN9"}, DataError, r"unknown instrument 'SYN9'"),
    ({"instruments": []}, DataError, r"at least one instrument"),
    ({"start": "2021-01-01", "end": "2020-01-01"}, ConfigError, r"start=2021-01-01 is not before end=2020-01-01"),
    ({"start": "2020-01-01", "end": "2020-01-01"}, ConfigError, r"not before"),
    ({"start": "2031-01-01"}, DataError, r"no events"),
    ({"start": "yesterday"}, ConfigError, r"start"),
    ({"cash": 0}, ConfigError, r"cash must be"),
    ({"cash": -1}, ConfigError, r"cash must be"),
    ({"cash": float("nan")}, ConfigError, r"cash must be"),
    ({"cash": float("inf")}, ConfigError, r"cash must be"),
    ({"cash": "many"}, ConfigError, r"cash must be"),
    ({"taker": 5}, ConfigError, r"taker"),
    ({"taker_bps": "five"}, ConfigError, r"taker_bps must be a number"),
    ({"slippage_bps": -1}, ConfigError, r"slippage_bps must be >= 0"),
    ({"participation": 1.5}, ConfigError, r"participation must be .*<= 1"),
    ({"leverage": 0}, ConfigError, r"leverage must be > 0"),
    ({"leverage": float("nan")}, ConfigError, r"leverage must be a number"),
    ({"short": 1}, ConfigError, r"short must be true or false"),
    ({"open_orders": 1.5}, ConfigError, r"open_orders must be a whole number"),
    ({"breach": {"drawdwn": "halt"}}, ConfigError, r"drawdown"),
    ({"breach": {"drawdown": "stop"}}, ConfigError, r"refuse, cancel, flatten, halt"),
    ({"allow": ("SYN9",)}, ConfigError, r"allow names SYN9"),
    ({"block": ("SYN9",)}, ConfigError, r"block names SYN9"),
    ({"on_fault": "ignore"}, ConfigError, r"on_fault must be raise or continue"),
    ({"sizes": Sizes(orders=1000)}, ConfigError, r"power of two"),
    ({"open_options": {"instrument_info": {"SYN0000": {"currency": "EUR"}}}}, ConfigError, r"one currency.*EUR, USD"),
]


@pytest.mark.parametrize(
    ("asked", "error", "says"), BAD, ids=[", ".join(row[0]) + f" {n}" for n, row in enumerate(BAD)]
)
def test_bad_input(asked: dict[str, Any], error: type[TandemError], says: str) -> None:
    strategy, data = asked.get("strategy", QUICK), asked.get("data", FRAME)
    settings = {k: v for k, v in asked.items() if k not in ("strategy", "data")}
    with pytest.raises(error, match=says):
        backtest(strategy, data, compiled=False, **settings)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"fast": 50, "slow": 10}, r"fast must be below slow, got fast=50, slow=10"),
        ({"fast": 10, "slow": 10}, r"fast must be below slow"),
        ({"fast": 0}, r"Momentum.fast must be >= 1 and <= 500, got 0"),
        ({"fast": 501}, r"Momentum.fast must be >= 1 and <= 500, got 501"),
        ({"fast": 2.5}, r"Momentum.fast must be an integer, got 2.5"),
        ({"fast": True}, r"Momentum.fast must be an integer"),
        ({"qty": 0}, r"Momentum.qty must be > 0, got 0"),
        ({"qty": float("nan")}, r"Momentum.qty must be a number"),
        ({"slwo": 10}, r"no parameter `slwo`.*Did you mean slow"),
    ],
)
def test_bad_parameters(values: dict[str, Any], says: str) -> None:
    with pytest.raises(StrategyError, match=says):
        Momentum(**values)


def test_one_bar_and_no_trade() -> None:
    result = backtest(QUICK, FRAME.head(1))
    assert (len(result.fills), result.metrics["total_return"]) == (0, 0.0)


def test_the_same_from_a_frame_a_tape_and_a_file(tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    FRAME.write_parquet(path)
    options = {"label": "end"}
    first = backtest(QUICK, FRAME, open_options=options)
    second = backtest(QUICK, path, open_options=options)
    third = backtest(QUICK, synthetic_tape(200, 2, seed=1))
    assert len(first.fills) > 5
    assert first.fills.equals(second.fills)
    assert first.fills.equals(third.fills)


def test_settings_by_group_and_by_name_are_the_same() -> None:
    one = backtest(QUICK, FRAME, risk=Risk(leverage=2.0), venue=VenueModel(taker_bps=5.0))
    two = backtest(QUICK, FRAME, leverage=2, taker_bps=5)
    assert one.fills.equals(two.fills)
    assert one.config["risk"] == two.config["risk"]
    assert one.identity["config"] == two.identity["config"]


def test_a_span_is_half_open() -> None:
    ts = FRAME["ts"].unique().sort()
    cut = ts[50].replace(tzinfo=UTC) if ts[50].tzinfo is None else ts[50]
    prepared = prepare(QUICK, FRAME, end=cut, compiled=False)
    assert prepared.tape.events["ts"][-1] < int(cut.timestamp() * 1e9)
    late = prepare(QUICK, FRAME, start=cut, compiled=False)
    assert len(prepared.tape) + len(late.tape) == len(FRAME)
    assert prepare(QUICK, FRAME, start=datetime(2019, 1, 1, tzinfo=UTC), compiled=False).tape.digest


def test_a_run_can_be_repeated() -> None:
    prepared = prepare([QUICK, Momentum(fast=2, slow=5, short=True)], FRAME)
    one, two = prepared.run(), prepared.run()
    assert one.fills.equals(two.fills) and one.equity.equals(two.equity)
    assert len(one.fills) > 20


def test_instruments_choose_and_order() -> None:
    tape = prepare(QUICK, FRAME, instruments=["SYN0001"], compiled=False).tape
    assert [info.name for info in tape.instruments] == ["SYN0001"]
    assert set(tape.events["instrument"]) == {0}


def test_blocked_instruments_do_not_trade() -> None:
    result = backtest(QUICK, FRAME, block=("SYN0000",))
    assert set(result.fills["instrument"]) == {"SYN0001"}
    assert set(result.refusals["reason"]) == {"blocked"}


def test_on_start_runs_for_every_instrument() -> None:
    drive = prepare(Starts(), FRAME, compiled=False).drive()
    drive.advance(20)
    assert drive.machine.table("positions_at")["qty"].tolist() == [7, 8]


def test_a_fault_stops_the_run_and_shows_the_line() -> None:
    with pytest.raises(
        StrategyFault, match=r"Breaks\(last=5\) failed at[\s\S]*self.last - self.n[\s\S]*ZeroDivisionError"
    ) as caught:
        backtest(Breaks(), FRAME)
    assert caught.value.state["n"] == 4  # type: ignore[index]


def test_a_fault_may_stop_one_strategy_only() -> None:
    result = backtest([Breaks(), QUICK], FRAME, on_fault="continue")
    alone = backtest(QUICK, FRAME)
    columns = ["time", "instrument", "side", "qty", "price"]
    assert result.fills.filter(pl.col("strategy") == "Momentum").select(columns).equals(alone.fills.select(columns))
    assert 0 < len(result.fills.filter(pl.col("strategy") == "Breaks")) < 10


def test_a_risk_halt_is_an_end_and_not_an_error() -> None:
    result = backtest(
        Momentum(fast=2, slow=5, qty=500), FRAME, daily_loss=50.0, breach={"daily_loss": "halt"}, leverage=5
    )
    assert result.refusals["reason"].to_list()[-1] == "daily_loss"
    assert len(result.equity) < 200


def test_an_overflow_is_an_error_with_its_cure() -> None:
    with pytest.raises(KernelHalted, match=r"sizes.outbox holds; raise it"):
        backtest([QUICK] * 3, FRAME, sizes=Sizes(orders=64, signals=64, outbox=1, refusals=64))


def test_uncompiled_is_the_same() -> None:
    few = FRAME.head(160)
    one, two = backtest(QUICK, few, taker_bps=3), backtest(QUICK, few, taker_bps=3, compiled=False)
    assert one.fills.equals(two.fills)
    assert np.array_equal(one.equity["equity"].to_numpy(), two.equity["equity"].to_numpy())
