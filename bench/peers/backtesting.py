"""backtesting.py: Python per bar, indicators beforehand with pandas, filled at the next open."""

from functools import partial
from typing import Any

import backtesting
import pandas as pd
from backtesting import Backtest, Strategy
from backtesting.lib import crossover

from bench import cases, data, measure


def average(values: Any, length: int) -> Any:
    """The simple moving average."""
    return pd.Series(values).rolling(length).mean()


class Crossing(Strategy):  # type: ignore[misc]
    """Long one unit while the fast average is above the slow one."""

    def init(self) -> None:
        """Compute both averages once."""
        self.fast = self.I(average, self.data.Close, cases.FAST)
        self.slow = self.I(average, self.data.Close, cases.SLOW)

    def next(self) -> None:
        """Buy on the cross above, close on the cross below."""
        if crossover(self.fast, self.slow):
            self.buy(size=int(cases.QTY))
        elif crossover(self.slow, self.fast):
            self.position.close()


def single(n: int) -> tuple[measure.Run, int]:
    """One series of minutes."""
    columns = data.load(data.SINGLE, n)
    frame = pd.DataFrame({name.capitalize(): columns[name] for name in data.FIELDS}, pd.DatetimeIndex(columns["time"]))

    def run() -> dict[str, Any]:
        told = Backtest(frame, Crossing, cash=cases.CASH, commission=cases.FEE, finalize_trades=False).run()
        return {"final_equity": told["Equity Final [$]"], "trades": told["# Trades"]}

    return run, len(frame)


CASES = {"bars-single": single}

if __name__ == "__main__":
    said = measure.arguments()
    backtesting.backtesting._tqdm = partial(backtesting.backtesting._tqdm, disable=True)
    measure.take(*CASES[said.case](said.n), backtesting.__version__, said.warm)
