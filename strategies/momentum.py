"""Momentum: hold the direction of the faster of two moving averages.

Thesis: trends persist longer than chance allows (Moskowitz, Ooi & Pedersen 2012, "Time series momentum"), and a
fast average above a slow one is the oldest filter for them.
"""

from engine.kernel.events import Bar
from engine.kernel.indicators import Mean
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param


class Momentum(Strategy):
    """Long `qty` units while the fast average is above the slow one, else flat (or short, if `short`).

    >>> Momentum(fast=10, slow=50)
    Momentum(fast=10, slow=50, qty=100.0, short=False)
    """

    fast: int = param(10, ge=1, le=500, doc="bars in the fast average")
    slow: int = param(50, ge=2, le=1000, doc="bars in the slow average")
    qty: float = param(100.0, gt=0, doc="units to hold")
    short: bool = param(False, doc="sell short when the fast average is below")

    fast_mean: Mean
    slow_mean: Mean

    def validate(self) -> None:
        if self.fast >= self.slow:
            raise ValueError(f"fast must be below slow, got fast={self.fast}, slow={self.slow}")

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        fast = self.fast_mean.update(bar.close, self.fast)
        slow = self.slow_mean.update(bar.close, self.slow)
        if self.slow_mean.ready:
            if fast > slow:
                ctx.target(self.qty)
            elif self.short:
                ctx.target(-self.qty)
            else:
                ctx.target(0.0)
