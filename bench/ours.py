"""Our side of each case, through the public interface only: `prepare` once, then `run` as often as one likes.

Preparing is what the peers do outside their timed part too: read the data, compile it into a tape.
"""

from importlib.metadata import version
from typing import Any

from bench import cases, data, measure
from engine.kernel import codes
from engine.kernel.events import Bar
from engine.kernel.indicators import Mean
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy, param


class Crossing(Strategy):
    """Long from a cross of the fast average above the slow one to the next cross below, as the peers have it.

    An average that is above from the start is no cross, so this differs from Momentum until the first one.
    """

    fast: int = param(cases.FAST, ge=1)
    slow: int = param(cases.SLOW, ge=2)
    qty: float = param(cases.QTY, gt=0)

    fast_mean: Mean[64]  # windows no longer than the rule needs: the states of many instruments stay near
    slow_mean: Mean[64]
    known: bool
    above: bool

    def on_bar(self, bar: Bar, ctx: Ctx) -> None:
        """Act on the bar whose comparison differs from that of the bar before."""
        fast = self.fast_mean.update(bar.close, self.fast)
        slow = self.slow_mean.update(bar.close, self.slow)
        if self.slow_mean.ready:
            above = fast > slow
            if self.known and above != self.above:
                ctx.target(self.qty if above else 0.0)
            self.above = above
            self.known = True


def run_case(strategy: Any, path: Any, **options: Any) -> measure.Run:
    """A closure that runs the strategy on the prepared data and says how it ended; `options` as in open_tape."""
    from backtest import prepare

    prepared = prepare(strategy, path, cash=cases.CASH, taker_bps=cases.FEE * 1e4, open_options=options)

    def run() -> dict[str, Any]:
        raw = prepared.run().raw
        bought = (raw["reports"]["code"] == codes.FILL) & (raw["reports"]["qty"] > 0)
        return {"final_equity": raw["curve"]["equity"][-1], "orders": len(raw["orders"]), "trades": bought.sum()}

    return run


def single() -> measure.Run:
    """One instrument, one average crossing the other."""
    return run_case(Crossing(), data.SINGLE)


def portfolio() -> measure.Run:
    """The same rule on each of 500 instruments, in one account."""
    return run_case(Crossing(), data.PANEL)


def ranked() -> measure.Run:
    """One strategy over the universe: the best fifty by 12-1 momentum, monthly."""
    from strategies import CrossMomentum

    chosen = CrossMomentum(long=cases.LONG_DAYS, skip=cases.SKIP_DAYS, held=cases.HELD, gross=cases.INVESTED)
    return run_case(chosen, data.PANEL, lot=1e-6)


OURS = {"bars-single": single, "bars-portfolio": portfolio, "bars-momentum": ranked}

if __name__ == "__main__":
    said = measure.arguments()
    measure.take(OURS[said.case](), cases.CASES[said.case].bars, f"tandem {version('tandem')}", said.warm)
