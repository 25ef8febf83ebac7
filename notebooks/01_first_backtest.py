# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A first backtest
#
# Load data, look at it, write a strategy in a cell, run it, compare two runs, open MLflow.
#
# This notebook is made from `01_first_backtest.py`, which is what gets reviewed. After editing that file, run
# `jupytext --to ipynb notebooks/01_first_backtest.py`; a test compares the two and runs them.

# %%
import os
from pathlib import Path

if Path.cwd().name == "notebooks":  # data and runs of the repository, wherever Jupyter was started
    os.chdir("..")

# %% [markdown]
# ## Data
#
# `equities` is a dataset of real daily bars (AAPL, GOOG, IBM, MSFT, 2000 to 2013, adjusted). It makes itself on first
# use. A dataset is a directory of Parquet files; a tape is what a backtest reads from it: one 64-byte event for each bar.

# %%
import plotly.graph_objects as go
import plotly.io
import polars as pl

from engine.store import open_tape
from engine.store.files import datasets_root

plotly.io.renderers.default = "plotly_mimetype+notebook"  # figures live in Jupyter, and in pages made by nbconvert
tape = open_tape("equities")
print(f"{len(tape):,} events of {', '.join(i.name for i in tape.instruments)}, content {tape.digest[:12]}")
tape.instruments[0]

# %%
bars = pl.read_parquet(datasets_root() / "equities" / "bars" / "**" / "*.parquet", hive_partitioning=True)
bars.group_by("instrument", maintain_order=True).agg(
    pl.len().alias("bars"),
    pl.col("ts").min().dt.date().alias("first"),
    pl.col("ts").max().dt.date().alias("last"),
    pl.col("close").first().alias("first close"),
    pl.col("close").last().alias("last close"),
)

# %%
figure = go.Figure(layout={"title": "Closes", "yaxis": {"type": "log"}, "height": 420})
for (name,), part in bars.group_by("instrument", maintain_order=True):
    figure.add_scatter(x=part["ts"], y=part["close"], name=str(name))
figure

# %% [markdown]
# ## A strategy
#
# Parameters are declared with `param`; everything else that has a type is state and starts at zero. One instance runs
# for each instrument. `ctx.target(qty)` says which position the strategy wants; risk checks and the venue do the rest.
# The order that follows from a bar fills at the open of the next one.
#
# The handler is compiled when the class first runs. An indicator can also be tried on a whole array: `EMA.scan`.

# %%
from engine.kernel.indicators import EMA, Highest, Lowest
from engine.kernel.strategy import Strategy, param


class Pullback(Strategy):
    """In a rising market, buy the lowest close of `dip` bars and sell the highest."""

    length: int = param(100, ge=2, le=500, doc="bars in the average that tells a rising market")
    dip: int = param(5, ge=2, le=100, doc="bars to look back for a low or a high")
    qty: float = param(100.0, gt=0, doc="units to hold")

    trend: EMA
    low: Lowest
    high: Highest

    def on_bar(self, bar, ctx):
        trend = self.trend.update(bar.close, self.length)
        if self.trend.ready:
            if bar.close < trend or bar.close > self.high.latest:
                ctx.target(0.0)
            elif bar.close < self.low.latest:
                ctx.target(self.qty)
        self.low.update(bar.close, self.dip)
        self.high.update(bar.close, self.dip)


EMA.scan(bars.filter(pl.col("instrument") == "IBM")["close"].to_numpy(), 100)[-3:]

# %% [markdown]
# ## Run it

# %%
from backtest import backtest

result = backtest(Pullback(), "equities", taker_bps=5)
result

# %%
result.plot()

# %%
result.trades.sort("pnl", descending=True).head()

# %% [markdown]
# `result.orders`, `fills`, `positions`, `equity` and `refusals` are polars frames too. `result.report("report.html")`
# writes a page that needs no network.
#
# ## Compare two runs
#
# Same data, same costs; only one number differs.

# %%
patient = backtest(Pullback(dip=20), "equities", taker_bps=5)
chosen = ["total_return", "annual_return", "sharpe", "max_drawdown", "trades", "win_rate", "profit_factor", "fees"]
pl.DataFrame({"figure": chosen, **{r.label: [r.metrics[key] for key in chosen] for r in (result, patient)}})

# %%
both = go.Figure(layout={"title": "Equity", "height": 420})
for one in (result, patient):
    both.add_scatter(x=one.equity["time"], y=one.equity["equity"], name=one.label)
both

# %% [markdown]
# ## Is it sound?
#
# The laws that a strategy can break: it must not look ahead, and it must give the same bytes however it is run.

# %%
from backtest.check import check_strategy

print(check_strategy(Pullback(length=10, dip=2, qty=10), events=300, short=90, tries=1))

# %% [markdown]
# ## Track it
#
# Each run goes to MLflow with its parameters, figures, curves and the hash of its data. `make ui` (or
# `tandem mode=ui`) opens the tracked runs in the browser: mark both and compare them.

# %%
for one in (result, patient):
    run = one.track(experiment="first backtest")
    print(f"{one.label}: make ui, then http://127.0.0.1:5000/{run.url}")
