"""The strategies that Tandem and the others both run, and the cases."""

from dataclasses import asdict, dataclass

from engine.kernel import codes
from engine.kernel.events import Bar
from engine.kernel.indicators import Highest, Lowest, Mean
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param
from strategies import Momentum, RsiReversion

BAND = 1e-9  # relative: far above the rounding of any average, far below a tick
FEE = 0.001


class Banded(Strategy):
    """Momentum that counts a tie of the averages as below, whatever way rounding takes it."""

    fast: int = param(10, ge=1)
    slow: int = param(50, ge=2)
    qty: float = param(1.0, gt=0)
    short: bool = param(False)

    fast_mean: Mean
    slow_mean: Mean

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        fast = self.fast_mean.update(bar.close, self.fast)
        slow = self.slow_mean.update(bar.close, self.slow)
        if self.slow_mean.ready:
            if fast > slow * (1.0 + 1e-9):
                ctx.target(self.qty)
            else:
                ctx.target(-self.qty if self.short else 0.0)


class Bracket(Strategy):
    """Flat: buy at the low of this bar. Long: a stop at the lowest low, which trails, and a target."""

    length: int = param(10, ge=2)
    qty: float = param(1.0, gt=0)

    low: Lowest
    high: Highest
    stop: int
    level: float

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        lowest = self.low.update(bar.low, self.length)
        highest = self.high.update(bar.high, self.length)
        if not self.low.ready:
            return
        if ctx.position == 0.0:
            self.level = 0.0
            ctx.cancel_all()
            ctx.buy(self.qty, limit=bar.low)
        elif self.level == 0.0:
            self.level = lowest
            self.stop = ctx.sell(self.qty, stop=lowest, mask=codes.REDUCE_ONLY)
            ctx.sell(self.qty, limit=highest, mask=codes.REDUCE_ONLY)
        elif lowest > self.level:
            self.level = lowest
            ctx.replace(self.stop, self.qty, stop=lowest)


class Fade(Strategy):
    """Flat: sell at the high of this bar. Short: buy back at its low, a new price on every bar."""

    length: int = param(10, ge=2)
    qty: float = param(1.0, gt=0)

    bars: int

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.bars += 1
        if self.bars < self.length:
            return
        ctx.cancel_all()
        if ctx.position < 0.0:
            ctx.buy(self.qty, limit=bar.low)
        else:
            ctx.sell(self.qty, limit=bar.high)


class Reverse(Strategy):
    """Always a stop on the other side of the channel, which closes and opens: one fill of twice the quantity."""

    length: int = param(10, ge=2)
    qty: float = param(1.0, gt=0)

    low: Lowest
    high: Highest

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        lowest = self.low.update(bar.low, self.length)
        highest = self.high.update(bar.high, self.length)
        if not self.low.ready:
            return
        ctx.cancel_all()
        if ctx.position > 0.0:
            ctx.sell(2.0 * self.qty, stop=lowest)
        else:
            ctx.buy(2.0 * self.qty if ctx.position < 0.0 else self.qty, stop=highest)


@dataclass(frozen=True)
class Case:
    """One run of all engines. `checked`: with orders that the last close shows to be too large left out."""

    bars: str
    rule: str  # cross, rsi; bracket, fade, reverse
    lots: int
    lot: float = 1.0
    short: bool = False
    band: float = 0.0
    fast: int = 10
    slow: int = 50
    length: int = 14
    low: float = 30.0
    leave: float = 50.0
    high: float = 70.0
    cash: float = 1e7
    fee: float = FEE
    checked: bool = False

    @property
    def id(self) -> str:
        """Its name in the job and in the output of the tests."""
        way = "" if self.rule in ("bracket", "fade", "reverse") else "-both" if self.short else "-long"
        return f"{self.bars}-{self.rule}{'-banded' if self.band else ''}{way}{'-poor' if self.cash < 1e7 else ''}"

    def plain(self) -> dict[str, object]:
        """For the job."""
        return {"id": self.id, **asdict(self)}

    def strategy(self) -> Strategy:
        """As a strategy of ours."""
        qty = self.lots * self.lot
        if self.rule == "cross":
            return (Banded if self.band else Momentum)(fast=self.fast, slow=self.slow, qty=qty, short=self.short)
        if self.rule == "rsi":
            levels = {"low": self.low, "leave": self.leave, "high": self.high}
            return RsiReversion(length=self.length, qty=qty, short=self.short, **levels)
        return {"bracket": Bracket, "fade": Fade, "reverse": Reverse}[self.rule](length=self.length, qty=qty)
