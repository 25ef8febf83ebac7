"""What a result derives from fills equals what the kernel kept in its account, splits and dividends included."""

from dataclasses import replace
from typing import Any

import pytest

from backtest import backtest
from engine.kernel import codes
from engine.kernel.events import Bar
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy
from engine.store.tape import Tape
from strategies import Momentum
from tests.backtest.stage import action, bars, tape_of

HOUR = 3_600_000_000_000


@pytest.mark.parametrize("several", [False, True])
def test_trades_and_positions_are_the_kernels(book: Any, several: bool) -> None:
    prices = book["walk"](300, 2, 3)
    actions = [(120, 0, codes.DIVIDEND, 0.4), (200, 1, codes.DIVIDEND, 0.9)]
    for row, instrument, ratio in ((100, 0, 1.5), (180, 1, 0.3), (250, 0, 2.0)):
        prices[row:, instrument] /= ratio
        actions.append((row, instrument, codes.SPLIT, ratio))
    made = book["tape"](prices, actions=actions)
    events = made.events
    # A corporate action stands at the open of its first bar.
    events["ts"][events["kind"] != codes.BAR] += 1 - 6 * HOUR
    events["recv"] = events["ts"]
    events.flags.writeable = False
    tape = Tape(events, tuple(replace(i, bar_ns=6 * HOUR) for i in made.instruments), made.digest, made.name)
    strategies = [Momentum(fast=5, slow=20, qty=7, short=True), Momentum(fast=10, slow=40, qty=5)]
    result = backtest(strategies if several else strategies[:1], tape, taker_bps=3, leverage=2)
    last = result.raw["curve"][-1]
    assert len(result.history.actions.ts) == 5
    assert result.trips.pnl.sum() == pytest.approx(float(last["equity"]) - result.start_equity, abs=1e-7)
    held = result.positions.group_by("instrument", maintain_order=True).last()
    close = dict(zip(result.instruments, prices[-1], strict=True))
    values = [qty * close[name] for name, qty in held.select("instrument", "qty").rows()]
    assert sum(map(abs, values)) == pytest.approx(float(last["gross"]), abs=1e-7)
    assert float(last["cash"]) + sum(values) == pytest.approx(float(last["equity"]), abs=1e-7)


class Resting(Strategy):
    """Buys at a limit below the market at the first bar, and sells half of it at the market at the fourth."""

    bars: int

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.bars += 1
        if self.bars == 1:
            ctx.buy(4.0, 9.5)
        if self.bars == 3:
            ctx.buy(1.0)
        if self.bars == 4:
            ctx.sell(3.0)


@pytest.mark.parametrize("ratio", [2.0, 0.5, 1.5])
def test_a_fill_inside_the_bar_at_whose_close_a_split_comes(ratio: float) -> None:
    """Bars of 24 hours a day: one opens at the moment at which the last one closed and the split came."""
    after = [(p / ratio,) * 4 for p in (10.0, 11.0, 12.0, 11.0)]
    tape = bars((10, 10, 10, 10), (10, 10, 9, 10), *after, minutes=None)
    split = action(codes.SPLIT, 2.0, ratio)
    made = tape_of([tape.events[i : i + 1] for i in range(2)] + [split] + [tape.events[i : i + 1] for i in range(2, 6)])
    result = backtest(Resting(), made, compiled=False, cash=1e4)
    fills, last = result.fill_columns, result.raw["curve"][-1]
    assert fills.ts[0] == made.events["ts"][2] and fills.lots.tolist() == [4, 1, -3]
    whole = int(4 * ratio + 1e-9)
    assert result.positions["qty"].to_list() == [4.0, whole, whole + 1, whole - 2]
    assert result.trips.pnl.sum() == pytest.approx(float(last["equity"]) - 1e4, abs=1e-9)
    assert result.trips.entry_price[0] == pytest.approx(9.5 / ratio)
    assert result.trips.entry_ts[0] == fills.ts[0]
