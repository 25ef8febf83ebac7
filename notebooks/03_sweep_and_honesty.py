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
# # A sweep, and an honest answer about it
#
# Many parameter sets in one compiled pass, the surface, the best one out of sample, how likely it is luck, and the run
# that can be promoted.
#
# This notebook is made from `03_sweep_and_honesty.py`, which is what gets reviewed. After editing that file, run
# `jupytext --to ipynb notebooks/03_sweep_and_honesty.py`; a test compares the two and runs them.

# %%
import os
from pathlib import Path

if Path.cwd().name == "notebooks":  # data and runs of the repository, wherever Jupyter was started
    os.chdir("..")

# %% [markdown]
# ## Lanes
#
# A lane is one parameter set. All lanes go over one shared tape in compiled passes, and each equals the single run with
# its settings, byte for byte. On the command line the same is
# `tandem -m strategy.fast='range(5,60,5)' strategy.slow='range(20,200,20)'`.

# %%
import numpy as np
import plotly.graph_objects as go
import plotly.io
import polars as pl

from backtest.lanes import evaluate
from backtest.run import prepare
from strategies import Momentum

plotly.io.renderers.default = "plotly_mimetype+notebook"
prepared = prepare(Momentum(qty=100.0), "equities", taker_bps=2)
grid = [(fast, slow) for fast in range(5, 60, 5) for slow in range(20, 200, 20) if fast < slow]
table = {"strategy.fast": [fast for fast, _ in grid], "strategy.slow": [slow for _, slow in grid]}
found = evaluate(prepared, table)
frame = pl.DataFrame({**table, **{k: found.figures[k] for k in ("sharpe", "total_return", "max_drawdown", "trades")}})
frame = frame.sort("sharpe", descending=True)
frame.head()

# %% [markdown]
# ## The surface
#
# A broad hill is worth more than a peak.

# %%
surface = frame.pivot("strategy.slow", index="strategy.fast", values="sharpe").sort("strategy.fast")
slow = sorted(set(table["strategy.slow"]))
go.Figure(
    go.Heatmap(x=slow, y=surface["strategy.fast"], z=surface.select(str(s) for s in slow).to_numpy(), colorscale="RdBu"),
    layout={"title": "Sharpe ratio", "xaxis": {"title": "slow"}, "yaxis": {"title": "fast"}, "height": 420},
)

# %% [markdown]
# ## Out of sample
#
# The best of many lanes looks good on the data that chose it. Walk-forward chooses on the past, measures on what
# follows, moves on, and stitches what was measured. Each fold is warmed by the bars before it.

# %%
from backtest.honesty.splits import walk_forward
from backtest.honesty.validate import extent, of_lanes, validate

folds = walk_forward(*extent(prepared), folds=5)
validation = validate(of_lanes(prepared), table, folds)
pl.DataFrame(
    {
        "tested from": [str(np.datetime64(f.test[0].start, "ns").astype("M8[D]")) for f in folds],
        "fast, slow": [str(grid[c.lane]) for c in validation.choices],
        "Sharpe where chosen": [c.trained for c in validation.choices],
        "Sharpe in the test": [c.tested for c in validation.choices],
    }
)

# %%
path = validation.path
figure = go.Figure(layout={"title": "What walk-forward would have earned", "height": 380})
figure.add_scatter(x=path.ends.astype("M8[ns]"), y=100 * (np.cumprod(1 + path.returns) - 1), name="return, %")
figure

# %% [markdown]
# ## Is it luck?
#
# The ledger counts every lane that the experiment ever saw; here it is this sweep alone. The deflated Sharpe ratio asks
# whether the best lane beats what luck gives the best of so many; PBO, how often what is best in one half of the time is
# below the median in the other; SPA, how often a best lane without any edge would look as good.

# %%
from backtest.honesty.study import study
from engine import ledger
from engine import tracking_names as names

best_first = {key: frame[key].to_list() for key in table}
tested = study(prepared, best_first, folds=5)
book = ledger.count([{"tags": {names.KIND: names.SWEEP}, "metrics": ledger.figures(frame["sharpe"], tested.effective)}])
verdict = tested.judge(book, whole=True)
print(verdict.lead)
print(verdict.sentence)

# %%
pl.DataFrame(
    [{"figure": name, "value": i.value, "95 % from": i.low, "to": i.high} for name, i in verdict.intervals.items()]
)

# %% [markdown]
# The same lanes with noise in place of the market's returns: the best of them still has a handsome Sharpe ratio, and is
# told for what it is.

# %%
noise = np.random.default_rng(1).normal(0, 0.01, (1000, 80))
sharpe = noise.mean(axis=0) / noise.std(axis=0, ddof=1) * 252**0.5
lucky = int(sharpe.argmax())
from backtest.honesty import verdict as verdicts

tried = ledger.count([{"tags": {names.KIND: names.SWEEP}, "metrics": ledger.figures(sharpe)}])
print(verdicts.verdict(noise[:, lucky], 252, ledger=tried, lanes=noise).sentence)

# %% [markdown]
# ## In another order
#
# The trades of the best lane, drawn again a thousand times: how deep could the drawdown have been?

# %%
from backtest import backtest
from backtest.honesty.chances import monte_carlo

fast, slow_ = best_first["strategy.fast"][0], best_first["strategy.slow"][0]
result = backtest(Momentum(fast=fast, slow=slow_, qty=100.0), "equities", taker_bps=2)
drawn = monte_carlo(result.trades["pnl"].to_numpy(), result.start_equity, seed=1)
print(f"drawdown {result.metrics['max_drawdown']:.1%}; of drawn trades the median {np.median(drawn.drawdown):.1%}, "
      f"the worst twentieth below {np.quantile(drawn.drawdown, 0.05):.1%}")

# %% [markdown]
# ## Track it, promote it
#
# `tandem -m …` does all of this, writes the report and tracks one run with its best lanes below it. A lane's own run has
# the sweep's out-of-sample figure and its own deflated Sharpe ratio: the gates of `tandem mode=promote run=<id>`.

# %%
from backtest.honesty.study import shared

result.tested = shared(verdict.figures), verdict.lead
verdicts.judge(result, "sweep and honesty", book=(book, True))
run = result.track(experiment="sweep and honesty")
print(f"{result.label}: make ui, then http://127.0.0.1:5000/{run.url}")
print(result.verdict.text)
