"""Cross-sectional 12-1 momentum: hold the instruments that rose most, but for the last month.

Thesis: Jegadeesh & Titman (1993), "Returns to Buying Winners and Selling Losers": past winners go on winning for
months, while the very last month tends to reverse and is left out.
"""

from engine.kernel.clock import month_of
from engine.kernel.events import Bar, Slice
from engine.kernel.indicators import Window
from engine.kernel.layout import PerInstrument
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param


class CrossMomentum(Strategy):
    """Equal weights in the `held` best of the universe by return from `long` to `skip` bars ago, renewed monthly.

    >>> CrossMomentum(held=10).values["skip"]
    21
    """

    universe = True
    long: int = param(252, ge=2, le=511, doc="bars back to where the return begins")
    skip: int = param(21, ge=0, le=510, doc="last bars that are left out")
    held: int = param(50, ge=1, doc="how many instruments to hold")
    gross: float = param(0.95, gt=0, doc="share of the equity to invest; room for gaps at the open")

    closes: PerInstrument[Window[512]]
    scores: PerInstrument[float]
    month: int

    def validate(self) -> None:
        if self.skip >= self.long:
            raise ValueError(f"skip must be below long, got skip={self.skip}, long={self.long}")

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        self.closes[bar.instrument].push(bar.close)

    def on_slice(self, close: Slice, ctx: Ctx) -> None:
        month = month_of(ctx.now)
        if month == self.month:
            return
        self.month = month
        for i in range(ctx.instruments):
            window = self.closes[i]
            self.scores[i] = window.value(self.skip) / window.value(self.long) if window.n > self.long else 0.0
        for _ in range(self.held):
            best = 0
            for i in range(ctx.instruments):
                if self.scores[i] > self.scores[best]:
                    best = i
            if self.scores[best] > 0.0:
                ctx.target_weight(self.gross / self.held, instrument=best)
                self.scores[best] = -1.0
        for i in range(ctx.instruments):
            if self.scores[i] >= 0.0 and ctx.position_of(i) != 0.0:
                ctx.target(0.0, instrument=i)
