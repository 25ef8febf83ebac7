"""raptorbt, Rust behind Python: arrays of signals in, curve and metrics out, filled at the next open.

Its sizing is a fraction of equity floored to a lot. Half a unit more than one unit's worth, floored to a lot
of one, is the one unit that the case asks for.
"""

from typing import Any

import numpy as np
import raptorbt

from bench import cases, data, measure

LONG, FULL_WEIGHT = 1, 1.0


def signals(closes: Any, quick: int = cases.FAST, steady: int = cases.SLOW) -> tuple[Any, Any]:
    """Enter on the bar that crosses above, leave on the bar that crosses below."""
    fast, slow = raptorbt.sma(closes, quick), raptorbt.sma(closes, steady)
    with np.errstate(invalid="ignore"):
        above = fast > slow
    known = ~np.isnan(slow[:-1])
    enter, leave = np.zeros(closes.size, bool), np.zeros(closes.size, bool)
    enter[1:] = above[1:] & ~above[:-1] & known
    leave[1:] = ~above[1:] & above[:-1] & known
    return enter, leave


def settings() -> Any:
    """The account and the fill rule that all cases share."""
    return raptorbt.BacktestConfig(initial_capital=cases.CASH, fees=cases.FEE, fill_timing="next_bar_open")


def single(n: int) -> tuple[measure.Run, int]:
    """One series of minutes."""
    columns = data.load(data.SINGLE, n)
    bars = [columns["time"].astype("i8"), *(columns[name] for name in data.FIELDS)]
    closes = columns["close"]
    fractions = 1.5 * closes / cases.CASH
    lot = raptorbt.InstrumentConfig(lot_size=cases.QTY)

    def run() -> dict[str, Any]:
        enter, leave = signals(closes)
        done = raptorbt.run_single_backtest(*bars, enter, leave, LONG, FULL_WEIGHT, "X", settings(), fractions, lot)
        return {"final_equity": done.equity_curve()[-1], "trades": done.metrics.total_trades}

    return run, closes.size


def portfolio(n: int) -> tuple[measure.Run, int]:
    """The panel in one account, its equal-weight budgets."""
    panel = data.load_panel(n)
    time = panel["time"].astype("i8")
    columns = [np.ascontiguousarray(panel[name].T) for name in data.FIELDS]
    closes = columns[3]

    def run() -> dict[str, Any]:
        instruments = [
            (time, *(column[j] for column in columns), *signals(closes[j]), LONG, FULL_WEIGHT, str(j))
            for j in range(len(closes))
        ]
        done = raptorbt.run_portfolio_backtest(instruments, settings(), "equal_weight")
        return {"final_equity": done.result.equity_curve()[-1], "trades": done.metrics.total_trades}

    return run, closes.size


def sweep(lanes: int) -> Any:
    """Lanes in its own batches, 250 at a time: results keep their curves alive."""

    def prepared(n: int) -> tuple[measure.Run, int]:
        columns = data.load(data.SINGLE, cases.SWEEP_BARS)
        bars = [columns["time"].astype("i8"), *(columns[name] for name in data.FIELDS)]
        closes, grid = columns["close"], cases.grid(lanes)
        fractions, lot = 1.5 * closes / cases.CASH, raptorbt.InstrumentConfig(lot_size=cases.QTY)

        def run() -> dict[str, Any]:
            equity, trades = 0.0, 0
            for begin in range(0, lanes, 250):
                items = [
                    raptorbt.BatchSingleItem(
                        f"{f}_{s}", *signals(closes, f, s), position_sizes=fractions, instrument_config=lot
                    )
                    for f, s in grid[begin : begin + 250]
                ]
                for _, done in raptorbt.batch_single_backtest(*bars, items, settings()):
                    equity += cases.CASH * (1.0 + done.metrics.total_return_pct / 100.0)
                    trades += done.metrics.total_trades
            return {"final_equity": equity, "trades": trades}

        return run, lanes * closes.size

    return prepared


CASES = {"bars-single": single, "bars-portfolio": portfolio, "bars-sweep": sweep(1_000),
         "bars-sweep-10k": sweep(10_000)}  # fmt: skip

if __name__ == "__main__":
    said = measure.arguments()
    measure.take(*CASES[said.case](said.n), raptorbt.__version__, said.warm)
