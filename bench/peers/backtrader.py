"""backtrader: indicators in one pass, Python per bar, filled at the next open. Too slow for the whole cases."""

from typing import Any

import backtrader
import pandas as pd

from bench import cases, data, measure


class Crossing(backtrader.Strategy):  # type: ignore[misc]
    """Long one unit of each feed while its fast average is above its slow one."""

    def __init__(self) -> None:
        averages = ((d, *(backtrader.ind.SMA(d.close, period=p) for p in (cases.FAST, cases.SLOW))) for d in self.datas)
        self.crosses = {d: backtrader.ind.CrossOver(fast, slow) for d, fast, slow in averages}
        self.bought = 0

    def notify_order(self, order: Any) -> None:
        """Count the fills that open a trade."""
        self.bought += order.status == order.Completed and order.isbuy()

    def next(self) -> None:
        """Buy on the cross above, sell on the cross below."""
        for d, cross in self.crosses.items():
            if cross[0] > 0:
                self.buy(data=d, size=cases.QTY)
            elif cross[0] < 0 and self.getposition(d).size > 0:
                self.sell(data=d, size=cases.QTY)


def measured(frames: list[pd.DataFrame]) -> tuple[measure.Run, int]:
    """All frames in one account."""

    def run() -> dict[str, Any]:
        brain = backtrader.Cerebro(stdstats=False)
        for i, frame in enumerate(frames):
            brain.adddata(backtrader.feeds.PandasData(dataname=frame), name=str(i))
        brain.addstrategy(Crossing)
        brain.broker.setcash(cases.CASH)
        brain.broker.setcommission(commission=cases.FEE)
        (done,) = brain.run()
        return {"final_equity": brain.broker.getvalue(), "trades": done.bought}

    return run, sum(map(len, frames))


def single(n: int) -> tuple[measure.Run, int]:
    """One series of minutes."""
    columns = data.load(data.SINGLE, n)
    return measured([pd.DataFrame({f: columns[f] for f in data.FIELDS}, pd.DatetimeIndex(columns["time"]))])


def portfolio(n: int) -> tuple[measure.Run, int]:
    """The panel in one account."""
    panel = data.load_panel(n)
    index = pd.DatetimeIndex(panel["time"])
    width = panel["close"].shape[1]
    return measured([pd.DataFrame({f: panel[f][:, j] for f in data.FIELDS}, index) for j in range(width)])


CASES = {"bars-single": single, "bars-portfolio": portfolio}

if __name__ == "__main__":
    said = measure.arguments()
    measure.take(*CASES[said.case](said.n), backtrader.__version__, said.warm)
