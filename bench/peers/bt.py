"""bt: portfolios by weights, filled at the close of the bar that decided (it has no next open)."""

from importlib.metadata import version
from typing import Any

import bt
import pandas as pd

from bench import cases, data, measure


def fees(qty: float, price: float) -> float:
    """5 bps of the value of the fill."""
    return abs(qty) * price * cases.FEE


def ranked(n: int) -> tuple[measure.Run, int]:
    """12-1 momentum, the best fifty at equal weight, monthly."""
    panel = data.load_panel(n)
    names = data.names()[: n or None]
    closes = pd.DataFrame(panel["close"], pd.DatetimeIndex(panel["time"]), names)

    def run() -> dict[str, Any]:
        pick = bt.algos.SelectMomentum(cases.HELD, lookback=pd.DateOffset(months=11), lag=pd.DateOffset(months=1))
        rules = [bt.algos.RunAfterDays(cases.LONG_DAYS), bt.algos.RunMonthly(), bt.algos.SelectAll(), pick]
        rules += [bt.algos.WeighEqually(), bt.algos.ScaleWeights(cases.INVESTED), bt.algos.Rebalance()]
        test = bt.Backtest(
            bt.Strategy("momentum", rules), closes, initial_capital=cases.CASH, commissions=fees,
            integer_positions=False, progress_bar=False,
        )  # fmt: skip
        bt.run(test)
        changed = test.positions.diff().fillna(0.0).abs() > 0.0
        return {"final_equity": test.strategy.values.iloc[-1], "orders": changed.to_numpy().sum()}

    return run, closes.size


CASES = {"bars-momentum": ranked}

if __name__ == "__main__":
    said = measure.arguments()
    measure.take(*CASES[said.case](said.n), version("bt"), said.warm)
