"""Our side of each case, through the public interface only: `prepare` once, then `run` as often as one likes.

Preparing is what the peers do outside their timed part too: read the data, compile it into a tape.
"""

from importlib.metadata import version
from typing import Any

from bench import cases, data, measure
from engine.kernel import codes


def run_case(strategy: Any, path: Any) -> measure.Run:
    """A closure that runs the strategy on the prepared data and says how it ended."""
    from backtest import prepare

    prepared = prepare(strategy, path, cash=cases.CASH, taker_bps=cases.FEE * 1e4)

    def run() -> dict[str, Any]:
        result = prepared.run()
        bought = (result.reports["code"] == codes.FILL) & (result.reports["qty"] > 0)
        return {
            "final_equity": result.curve["equity"][-1],
            "orders": len(result.orders),
            "trades": bought.sum(),
        }

    return run


def single() -> measure.Run:
    """One instrument, one average crossing the other."""
    from strategies import Momentum

    return run_case(Momentum(fast=cases.FAST, slow=cases.SLOW, qty=cases.QTY), data.SINGLE)


def portfolio() -> measure.Run:
    """The same rule on each of 500 instruments, in one account."""
    from strategies import Momentum

    return run_case(Momentum(fast=cases.FAST, slow=cases.SLOW, qty=cases.QTY), data.PANEL)


def ranked() -> measure.Run:
    """One strategy over the universe: the best fifty by 12-1 momentum, monthly."""
    from strategies import CrossMomentum

    chosen = CrossMomentum(long=cases.LONG_DAYS, skip=cases.SKIP_DAYS, held=cases.HELD)
    return run_case(chosen, data.PANEL)


OURS = {"bars-single": single, "bars-portfolio": portfolio, "bars-momentum": ranked}

if __name__ == "__main__":
    said = measure.arguments()
    measure.take(OURS[said.case](), cases.CASES[said.case].bars, f"tandem {version('tandem')}", said.warm)
