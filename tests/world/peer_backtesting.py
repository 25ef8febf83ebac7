"""backtesting.py's side of the comparison: `python peer_backtesting.py JOB.json OUT.json`, in its own environment.

Nothing of Tandem is imported here. The rules are written once more, with pandas for the indicators. They are kept as
plain arrays rather than declared with `I`, because backtesting.py begins one bar after the first bar on which all
declared indicators exist, and Tandem on that bar itself.

Quantities are whole numbers of `lot` units, so prices are multiplied by the lot and divided again at the end, as
`backtesting.lib.FractionalBacktest` does.
"""

import functools
import json
import sys
import warnings

import backtesting
import numpy as np
import pandas as pd
from backtesting import Backtest, Strategy

OPENED, PRICES = "opened", ("open", "high", "low", "close")


def rsi(close: pd.Series, length: int) -> pd.Series:
    """Wilder's index: an exponential mean with alpha 1/length, seeded by the plain mean of the first changes."""
    change = close.diff()
    means = []
    for side in (change.clip(lower=0), -change.clip(upper=0)):
        seeded = side.copy()
        seeded.iloc[length] = side.iloc[1 : length + 1].mean()
        means.append(seeded.iloc[length:].ewm(alpha=1 / length, adjust=False).mean().reindex(close.index))
    return 100 - 100 / (1 + means[0] / means[1])


class Market(Strategy):
    """Brings the position to what the rule wants with market orders, a reversal as a close and a new trade."""

    case: dict = {}

    def init(self) -> None:
        case, close = self.case, pd.Series(np.asarray(self.data.Close) / self.case["lot"])
        self.side, self.bar, self.nearest = 0, 0, np.inf
        if case["rule"] == "cross":
            fast, slow = (close.rolling(case[name]).mean() for name in ("fast", "slow"))
            level = slow * (1 + case["band"])
            self.signals = (fast > level).where(slow.notna())
            self.nearest = float((fast / level - 1).abs().min())
        else:
            self.index = rsi(close, case["length"])
            self.nearest = min(float((self.index - case[name]).abs().min()) for name in ("low", "leave", "high"))

    def wanted(self) -> int:
        """-1, 0 or 1."""
        case = self.case
        if case["rule"] == "cross":
            above = self.signals.iloc[self.bar]
            return 0 if pd.isna(above) else 1 if above else -1 if case["short"] else 0
        value = self.index.iloc[self.bar]
        if value < case["low"]:
            self.side = 1
        elif value > case["high"] and case["short"]:
            self.side = -1
        elif (self.side > 0 and value > case["leave"]) or (self.side < 0 and value < case["leave"]):
            self.side = 0
        return self.side

    def next(self) -> None:
        self.bar = len(self.data) - 1
        want = self.wanted() * self.case["lots"]
        held = self.position.size
        if want == held:
            return
        if held:
            self.position.close()
        worth = abs(want) * self.data.Close[-1]
        if want and not (self.case["checked"] and worth > self.equity * (1 + 1e-9)):
            (self.buy if want > 0 else self.sell)(size=abs(want))


class Working(Strategy):
    """Orders that wait at a price. Levels are prices of bars, so that both engines see the same numbers."""

    case: dict = {}

    def init(self) -> None:
        n = self.case["length"]
        self.lowest = pd.Series(np.asarray(self.data.Low)).rolling(n).min().to_numpy()
        self.highest = pd.Series(np.asarray(self.data.High)).rolling(n).max().to_numpy()
        self.nearest = np.inf

    def next(self) -> None:
        bar = len(self.data) - 1
        if bar >= self.case["length"] - 1:
            getattr(self, self.case["rule"])(bar, self.case["lots"])

    def bracket(self, bar: int, lots: int) -> None:
        """Flat: buy at the low of this bar. Long: a stop at the lowest low, which trails, and a target."""
        if not self.position:
            for order in list(self.orders):
                order.cancel()
            self.buy(size=lots, limit=self.data.Low[-1])
            return
        trade = self.trades[0]
        if trade.sl is None:
            trade.sl, trade.tp = self.lowest[bar], self.highest[bar]
        elif self.lowest[bar] > trade.sl:
            trade.sl = self.lowest[bar]

    def fade(self, bar: int, lots: int) -> None:
        """Flat: sell at the high of this bar. Short: buy back at its low, a new price on every bar."""
        for order in list(self.orders):
            order.cancel()
        if self.position:
            self.buy(size=lots, limit=self.data.Low[-1])
        else:
            self.sell(size=lots, limit=self.data.High[-1])

    def reverse(self, bar: int, lots: int) -> None:
        """Always a stop on the other side of the channel, which closes and opens: one fill of twice the quantity."""
        for order in list(self.orders):
            order.cancel()
        if self.position.size > 0:
            self.sell(size=2 * lots, stop=self.lowest[bar])
        else:
            self.buy(size=2 * lots if self.position else lots, stop=self.highest[bar])


def run(case: dict, bars: dict) -> dict:
    """One case: fills as [bar, signed units, price], final equity, distance of the nearest decision."""
    lot = case["lot"]
    frame = pd.DataFrame({p.capitalize(): np.asarray(bars[p]) * lot for p in PRICES})
    frame.index = pd.DatetimeIndex(bars[OPENED].astype("datetime64[ns]"))
    rules = Market if case["rule"] in ("cross", "rsi") else Working
    rules.case = case
    test = Backtest(frame, rules, cash=case["cash"], commission=case["fee"], finalize_trades=False)
    told = test.run()
    strategy, fills = told["_strategy"], []
    for trade in (*strategy.closed_trades, *strategy.trades):
        fills.append([trade.entry_bar, trade.size * lot, trade.entry_price / lot])
        if trade.exit_bar is not None:
            fills.append([trade.exit_bar, -trade.size * lot, trade.exit_price / lot])
    return {"fills": fills, "equity": float(told["Equity Final [$]"]), "nearest": strategy.nearest}


def main(job: str, out: str) -> None:
    """Run all cases of a job."""
    warnings.simplefilter("ignore")  # open trades at the end and refused orders are part of the comparison
    backtesting.backtesting._tqdm = functools.partial(backtesting.backtesting._tqdm, disable=True)
    with open(job) as file:
        told = json.load(file)
    bars = {name: dict(np.load(path)) for name, path in told["bars"].items()}
    found = {case["id"]: run(case, bars[case["bars"]]) for case in told["cases"]}
    with open(out, "w") as file:
        json.dump({"version": backtesting.__version__, "cases": found}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
