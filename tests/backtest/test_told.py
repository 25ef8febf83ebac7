"""What once went unsaid: internal crosses, refusals beyond the table's room, a halt beside a fault."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from backtest import backtest, prepare
from backtest.audit import audit
from engine.errors import StrategyFault
from engine.kernel import codes
from engine.kernel.events import Bar, Quote
from engine.kernel.machine import Sizes
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param
from engine.store.synthetic import synthetic_frame

FRAME = synthetic_frame(300, 2, seed=1)


class Sways(Strategy):
    """Long, flat and short in turn; `sign` turns it round."""

    sign: float = param(1.0)
    qty: float = param(3.0)
    n: int

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.n += 1
        ctx.target(self.sign * self.qty * float(self.n % 3 - 1))

    def on_quote(self, quote: Quote, ctx: Ctx) -> None:
        self.n += 1
        if self.n % 5 == 0:
            ctx.target(self.sign * self.qty * float(self.n % 15 // 5 - 1))


@pytest.mark.parametrize("data", [FRAME, "ticks"], ids=["bars", "ticks"])
@pytest.mark.parametrize("compiled", [True, False])
def test_crosses_are_fills_that_all_tables_know(data: Any, compiled: bool) -> None:
    both = [Sways(), Sways(sign=-1.0, qty=5.0)]
    late = {"order_ms": 1.0, "report_ms": 1.0, "end": "2024-01-02T00:01:00"} if isinstance(data, str) else {}
    prepared = prepare(both, data, netting=True, taker_bps=10, self_match=False, compiled=compiled, **late)
    drive = prepared.drive()
    assert drive.advance() == 0 and audit(drive, drive.outputs()) == []
    result = prepared.run()
    crossed = result.fills.filter(pl.col("order_id").is_null())
    assert len(crossed) == len(result.netted) > 20 and crossed["fee"].sum() == 0.0
    assert crossed["side"].to_list()[:2] in (["buy", "sell"], ["sell", "buy"]) and len(result.fills) > len(crossed)
    assert len(result.refusals) == result.metrics["refusals"] == 0
    lots = dict(zip(result.strategies, drive.machine.table("positions_at")["qty"].reshape(2, -1), strict=True))
    for name, held in lots.items():
        mine = result.fills.filter(pl.col("strategy") == name)
        signed = mine["qty"] * mine["side"].replace_strict({"buy": 1, "sell": -1}, return_dtype=pl.Int64)
        assert signed.sum() == held.sum()
    gained = result.trades["pnl"].sum()
    assert gained == pytest.approx(result.metrics["end_equity"] - 100_000.0, abs=1e-6)
    alone = backtest(both, data, taker_bps=10, self_match=False, compiled=compiled, **late)
    assert alone.metrics["fees"] > result.metrics["fees"] and len(alone.netted) == 0


def test_without_room_for_the_records_nothing_is_crossed() -> None:
    both = [Sways(), Sways(sign=-1.0)]
    result = backtest(both, FRAME.head(60), netting=True, self_match=False, compiled=False,
                      sizes=Sizes(orders=64, signals=64, outbox=64, refusals=1))  # fmt: skip
    assert len(result.netted) == 0 and len(result.fills) > 20


def test_refusals_beyond_the_room_are_counted_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    class Insists(Strategy):
        def on_bar(self, bar: Bar, ctx: Ctx) -> None:
            for _ in range(10):
                ctx.buy(1e9)

    few = backtest(Insists(), FRAME, compiled=False, sizes=Sizes(orders=64, signals=64, outbox=64, refusals=4))
    told = capsys.readouterr().err
    full = backtest(Insists(), FRAME, compiled=False)
    assert few.metrics["refusals"] == full.metrics["refusals"] == len(full.refusals) == 6000 > len(few.refusals) == 1200
    assert "of 6,000 refusals 4,800 were counted but not kept" in told and "sizes.refusals=4" in told
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("compiled", [True, False])
def test_a_fault_tells_of_a_halt_at_the_same_time(compiled: bool) -> None:
    class Breaks(Strategy):
        n: int

        def on_bar(self, bar: Bar, ctx: Ctx) -> None:
            self.n += 1
            ctx.target(10.0)
            if bar.close < 0.97 * bar.open:
                ctx.target(1.0 / float(self.n - self.n))

    time = np.datetime64("2024-01-01", "ns") + np.arange(1, 9) * np.timedelta64(60, "s")
    price = np.array([100.0, 100, 100, 90, 90, 90, 90, 90])
    frame = pl.DataFrame({"time": time, "open": np.append(100.0, price[:-1]), "high": 101.0, "low": 89.0,
                          "close": price, "volume": 1e6})  # fmt: skip
    about = {"drawdown": 0.0001, "breach": {"drawdown": "halt"}, "compiled": compiled}
    with pytest.raises(StrategyFault, match=r"ZeroDivisionError[\s\S]*At the same time: .*halted \(halt_risk\)"):
        backtest(Breaks(), frame, **about)
    result = backtest(Breaks(), frame, on_fault="continue", **about)
    assert "ZeroDivisionError" in result.identity["faults"][0] and len(result.equity) == 4
    assert set(result.refusals["reason"]) == {codes.NAMES["reason"][codes.DRAWDOWN]}
