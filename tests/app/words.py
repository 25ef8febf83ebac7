"""What the tests of the command line share."""

from dataclasses import dataclass

QUICK = ("track=false", "report=false")
BREAKOUT = '''"""A strategy of a user, in a file of its own."""

from engine.kernel.indicators import Highest
from engine.kernel.strategy import Strategy, param


class Breakout(Strategy):
    """Long from a new high until a tenth below it."""

    length: int = param(20, ge=2, le=500)
    qty: float = param(10.0, gt=0)

    top: Highest

    def on_bar(self, bar, ctx):
        high = self.top.update(bar.high, self.length)
        if self.top.ready and bar.close >= high:
            ctx.target(self.qty)
        elif bar.close < 0.9 * high:
            ctx.target(0.0)
'''


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit status."""

    code: int
    out: str
    err: str
