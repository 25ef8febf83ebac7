"""vectorbt, open source. Signals are moved by one bar and filled at that bar's open."""

from typing import Any

import numpy as np
import pandas as pd
import vectorbt as vbt

from bench import cases, data, measure

MARKET: dict[str, Any] = {"fees": cases.FEE, "init_cash": cases.CASH}


def crossing(opens: Any, closes: Any, freq: str) -> Any:
    """The portfolio of SMA crosses, one independent account per column."""
    fast, slow = vbt.MA.run(closes, cases.FAST), vbt.MA.run(closes, cases.SLOW)
    enter = fast.ma_crossed_above(slow).vbt.signals.fshift(1)
    leave = fast.ma_crossed_below(slow).vbt.signals.fshift(1)
    if isinstance(closes, pd.DataFrame):
        enter, leave = (pd.DataFrame(x.to_numpy(), closes.index, closes.columns) for x in (enter, leave))
    return vbt.Portfolio.from_signals(closes, enter, leave, price=opens, size=cases.QTY, freq=freq, **MARKET)


def single(n: int) -> tuple[measure.Run, int]:
    """One series of minutes."""
    columns = data.load(data.SINGLE, n)
    index = pd.DatetimeIndex(columns["time"])
    opens, closes = (pd.Series(columns[name], index, name=name) for name in ("open", "close"))

    def run() -> dict[str, Any]:
        book = crossing(opens, closes, "1min")
        return {"final_equity": book.final_value(), "trades": book.trades.count()}

    return run, len(closes)


def frames(n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Opens and closes of the panel, a column per instrument."""
    panel = data.load_panel(n)
    opens, closes = (pd.DataFrame(panel[x], pd.DatetimeIndex(panel["time"])) for x in ("open", "close"))
    return opens, closes


def portfolio(n: int) -> tuple[measure.Run, int]:
    """The panel; vectorbt gives each column its own cash, so the profits are summed onto one."""
    opens, closes = frames(n)

    def run() -> dict[str, Any]:
        book = crossing(opens, closes, "1D")
        profit = float((book.final_value() - cases.CASH).sum())
        return {"final_equity": cases.CASH + profit, "trades": book.trades.count().sum()}

    return run, closes.size


def ranked(n: int) -> tuple[measure.Run, int]:
    """12-1 momentum by target weights of the equity at the close that decides, shared cash."""
    opens, closes = frames(n)

    def run() -> dict[str, Any]:
        past = closes.shift(cases.SKIP_DAYS) / closes.shift(cases.LONG_DAYS) - 1.0
        firsts = pd.Series(closes.index, closes.index).groupby(closes.index.to_period("M")).first()
        weights = pd.DataFrame(np.nan, closes.index, closes.columns)
        for first in firsts:
            row = past.loc[first]
            if row.notna().all():
                weights.loc[first] = 0.0
                weights.loc[first, row.nlargest(cases.HELD).index] = cases.INVESTED / cases.HELD
        book = vbt.Portfolio.from_orders(
            closes, size=weights.shift(1), size_type="targetpercent", price=opens, val_price=closes.shift(1),
            cash_sharing=True, group_by=True, call_seq="auto", freq="1D", **MARKET,
        )  # fmt: skip
        return {"final_equity": book.final_value(), "orders": book.orders.count()}

    return run, closes.size


def sweep(lanes: int) -> Any:
    """Lanes as columns, 250 at a time; with the engine `metrics` Sharpe and drawdown too. `n`: lanes at most."""

    def prepared(n: int) -> tuple[measure.Run, int]:
        columns = data.load(data.SINGLE, cases.SWEEP_BARS)
        index = pd.DatetimeIndex(columns["time"])
        opens, closes = (pd.Series(columns[name], index, name=name) for name in ("open", "close"))
        grid = cases.grid(lanes)[: n or lanes]

        def run() -> dict[str, Any]:
            equity, trades = 0.0, 0
            for begin in range(0, len(grid), 250):
                quick, steady = (list(column) for column in zip(*grid[begin : begin + 250], strict=True))
                fast, slow = vbt.MA.run(closes, quick), vbt.MA.run(closes, steady)
                enter = fast.ma_crossed_above(slow).vbt.signals.fshift(1)
                leave = fast.ma_crossed_below(slow).vbt.signals.fshift(1)
                market = {**MARKET, "size": cases.QTY, "freq": "1min"}
                book = vbt.Portfolio.from_signals(closes, enter, leave, price=opens, **market)
                equity, trades = equity + float(book.final_value().sum()), trades + int(book.trades.count().sum())
                if said.engine == "metrics":
                    book.sharpe_ratio()
                    book.max_drawdown()
            return {"final_equity": equity, "trades": trades}

        return run, len(grid) * len(closes)

    return prepared


CASES = {"bars-sweep": sweep(1_000), "bars-sweep-10k": sweep(10_000), "bars-single": single,
         "bars-portfolio": portfolio, "bars-momentum": ranked}  # fmt: skip

if __name__ == "__main__":
    said = measure.arguments()
    vbt.settings["engine"] = (
        said.engine.replace("metrics", "auto") or "numba"
    )  # auto: Rust wherever it has the function
    measure.take(*CASES[said.case](said.n), vbt.__version__, said.warm)
