"""A price level is what its decimals say: rounding makes no touch into a cross, and no touch into a miss.

Prices come from files as decimals and orders are snapped to the tick by arithmetic. 1.15 read and 115 * 0.01 computed
are different doubles; whether a limit is filled must not hang on that.
"""

import polars as pl
import pytest

from backtest import backtest
from engine.kernel.events import Bar
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param
from engine.kernel.wishes import to_tick
from tests.kernel.desk import grid


class Waiting(Strategy):
    """Every third bar: a limit, or a stop, to buy or to sell one unit, a tenth away from the close; then cancel it."""

    side: int = param(1)
    stop: bool = param(False)

    bars: int

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.bars += 1
        if self.bars % 3 == 1:
            away = -0.1 if (self.side > 0) != self.stop else 0.1
            limit = 0.0 if self.stop else bar.close + away
            stop = bar.close + away if self.stop else 0.0
            if self.side > 0:
                ctx.buy(1.0, limit=limit, stop=stop)
            else:
                ctx.sell(1.0, limit=limit, stop=stop)
        elif self.bars % 3 == 2:
            ctx.cancel_all()


def bars(reach: float, scale: float = 1.0) -> pl.DataFrame:
    """Triples of bars around 0.50, 0.51, … 20.50; the second of each reaches from its middle `reach` to both sides.

    Prices are the doubles nearest to their decimals, or products with `scale` as of a file in other units.
    """
    rows = []
    for cent in range(50, 2050):
        middle, far = f"{cent / 100:.2f}", round(reach * 100)
        low, high = (f"{(cent + way * far) / 100:.2f}" for way in (-1, 1))
        rows += [[middle] * 4, [middle, high, low, middle], [middle] * 4]
    if scale != 1.0:
        values = [[round(float(text) / scale) * scale for text in row] for row in rows]
    else:
        values = [[float(text) for text in row] for row in rows]
    times = pl.Series(range(len(rows))).cast(pl.Int64) * 60 + 1_600_000_000
    return pl.DataFrame(values, schema=["open", "high", "low", "close"], orient="row").with_columns(times.alias("ts"))


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-6])
@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize(
    ("reach", "touch", "stop", "fills"),
    [
        (0.10, False, False, 0), (0.10, True, False, 2000), (0.11, False, False, 2000), (0.09, True, False, 0),
        (0.10, False, True, 2000), (0.09, False, True, 0),
    ],
)  # fmt: skip
def test_levels(reach: float, touch: bool, stop: bool, fills: int, side: int, scale: float) -> None:
    """Exactly at the level a limit is touched and not crossed, and a stop is reached."""
    strategy = Waiting(side=side, stop=stop)
    result = backtest(strategy, bars(reach, scale), touch=touch, cash=1e6, open_options={"tick": 0.01})
    assert len(result.fill_columns.ts) == fills


@pytest.mark.parametrize("digits", range(1, 9))
def test_an_order_price_is_the_double_that_its_decimals_read_as(digits: int) -> None:
    instrument = grid(float(f"1e-{digits}"))
    for steps in (*range(1, 3000), *range(10**8 - 500, 10**8)):
        price = float(f"{steps}e-{digits}")
        for asked in (price, steps * instrument.tick, price * (1 + 2e-16)):
            assert to_tick(asked, instrument, 1) == to_tick(asked, instrument, -1) == price


@pytest.mark.parametrize("tick", [0.25, 0.05, 0.005, 1 / 64, 2.5, 5.0, 0.3])
def test_ticks_that_are_no_power_of_ten(tick: float) -> None:
    for steps in range(1, 1000):
        assert to_tick(steps * tick, grid(tick), 1) == pytest.approx(steps * tick, rel=1e-15)
        assert to_tick((steps + 0.5) * tick, grid(tick), 1) == pytest.approx(steps * tick, rel=1e-15)
        assert to_tick((steps + 0.5) * tick, grid(tick), -1) == pytest.approx((steps + 1) * tick, rel=1e-15)
