"""RSI mean reversion: buy what has fallen too fast, sell when it has recovered.

Thesis: short-term losers rebound (Lehmann 1990, "Fads, Martingales, and Market Efficiency"); the relative strength
index of Wilder (1978) measures how one-sided the last moves were.
"""

from engine.kernel.events import Bar
from engine.kernel.indicators import RSI
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param


class RsiReversion(Strategy):
    """Long `qty` units from below `low` until above `leave`; with `short`, the mirror image from above `high`.

    >>> RsiReversion(length=2, low=10)
    RsiReversion(length=2, low=10.0, leave=50.0, high=70.0, qty=1.0, short=False)
    """

    length: int = param(14, ge=2, le=500, doc="bars in the index")
    low: float = param(30.0, gt=0, lt=100, doc="buy below this")
    leave: float = param(50.0, gt=0, lt=100, doc="leave when the index has crossed this")
    high: float = param(70.0, gt=0, lt=100, doc="sell short above this")
    qty: float = param(1.0, gt=0, doc="units to hold")
    short: bool = param(False, doc="sell short above `high`")

    rsi: RSI
    side: int

    def validate(self) -> None:
        if not self.low < self.leave < self.high:
            raise ValueError(f"low < leave < high must hold, got {self.low}, {self.leave}, {self.high}")

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        rsi = self.rsi.update(bar.close, self.length)
        if rsi < self.low:
            self.side = 1
        elif self.short and rsi > self.high:
            self.side = -1
        elif (self.side > 0 and rsi > self.leave) or (self.side < 0 and rsi < self.leave):
            self.side = 0
        ctx.target(self.side * self.qty)
