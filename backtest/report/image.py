"""The report as one image: equity against buy and hold, drawdown, and price with trades."""

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.figures import LEADING_TICKS, figure
from backtest.history import decimate, price_line
from backtest.metrics import underwater
from backtest.report import ticks
from backtest.report.charts import BLUE, GREEN, GREY, RED, TRADES, VIOLET, busiest, comparable
from backtest.trades import split_factors

if TYPE_CHECKING:
    from backtest.result import Result

POINTS, TITLE = 2_000, 140  # of a line; characters of one line of the title


def draw(result: "Result", path: Path) -> None:
    """Write the image (1,400 × 1,000 pixels, PNG)."""
    # The canvas is used directly, because pyplot would choose a window system and keep the figure alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    if result.ticks:
        _draw_ticks(result, path)
        return
    canvas = FigureCanvasAgg(Figure(figsize=(14, 10), dpi=100, layout="constrained"))
    top, low, bottom = canvas.figure.subplots(3, 1, sharex=True, height_ratios=[3, 1, 3])
    ts, equity, _ = result.curve
    rows = decimate(equity, POINTS)
    top.plot(_days(ts[rows]), equity[rows], color=BLUE, lw=1.4, label="Equity")
    hold = result.hold * result.start_equity
    if comparable(equity, hold):
        top.plot(_days(result.history.grid), hold, color=GREY, lw=1.1, label="Buy and hold")
    top.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    main = ("total_return", "benchmark_return", "annual_return", "sharpe", "max_drawdown", "trades")
    words = ("return", "buy and hold", "CAGR", "Sharpe", "drawdown", "trades")
    facts = "   ".join(f"{word} {figure(result.metrics, key)}" for key, word in zip(main, words, strict=True))
    _title(result, facts, top)
    depth = underwater(equity, result.start_equity)
    rows = decimate(depth, POINTS)
    low.fill_between(_days(ts[rows]), depth[rows], 0.0, color=RED, alpha=0.25, lw=0)
    low.plot(_days(ts[rows]), depth[rows], color=RED, lw=0.9)
    low.yaxis.set_major_formatter(PercentFormatter(1.0))
    low.set_ylabel("Drawdown")
    index = busiest(result)[0] if result.instruments else -1
    if index >= 0:
        _price(result, index, bottom)
    for axes in (top, low, bottom):
        axes.grid(color="#e8ebef", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    for axes in (top, bottom):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", frameon=False, ncols=6, fontsize=10)
            axes.margins(y=0.14)
    canvas.figure.savefig(path, format="png")


def _title(result: "Result", facts: str, axes: Any) -> None:
    """The run and its figures, in as many lines as they need: what is wider than the image would be cut off."""
    lines = (line for text in (f"{result.label} on {result.tape.name}", facts) for line in wrap(text, TITLE))
    axes.set_title("\n".join(lines).replace("$", r"\$"), loc="left", fontsize=12)


def _days(ts: Any) -> Any:
    return np.asarray(ts).astype("datetime64[ns]")


def _price(result: "Result", index: int, axes: Any) -> None:
    trips, actions = result.trips, result.history.actions
    ts, close = price_line(result.tape.events, index, actions, POINTS)
    axes.plot(_days(ts), close, color=GREY, lw=1.0, label=result.instruments[index].replace("$", r"\$"))
    rows = np.flatnonzero(trips.instrument == index)
    rows = rows[np.argsort(-np.abs(trips.pnl[rows]), kind="stable")[:TRADES]]
    factor = split_factors(trips.exit_ts[rows], actions, actions.instrument == index)
    entry, leave = trips.entry_price[rows] / factor, trips.exit_price[rows] / factor
    long, won, done = trips.side[rows] > 0, trips.pnl[rows] > 0, ~trips.open[rows]
    for name, mask, when, price, mark, color in (
        ("long entry", long, trips.entry_ts, entry, "^", BLUE),
        ("short entry", ~long, trips.entry_ts, entry, "v", VIOLET),
        ("exit, profit", won & done, trips.exit_ts, leave, "x", GREEN),
        ("exit, loss", ~won & done, trips.exit_ts, leave, "x", RED),
    ):
        if mask.any():
            x, y = _days(when[rows][mask]), price[mask]
            axes.scatter(x, y, marker=mark, color=color, s=54 if mark != "x" else 22, lw=1.3, label=name, zorder=3)
    axes.set_ylabel("Price")


def _draw_ticks(result: "Result", path: Path) -> None:
    """The same for a run on quotes and trades, from the very charts of the page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = FigureCanvasAgg(Figure(figsize=(14, 10), dpi=100, layout="constrained"))
    panels = canvas.figure.subplots(4, 1, sharex=True, height_ratios=[3, 1, 3, 1])
    account, prices = ticks.account(result), ticks.prices(result)
    market: dict[str, Any] = prices[0] if prices else {"name": "Price", "data": []}
    facts = "   ".join(f"{word} {figure(result.metrics, key)}" for key, word in LEADING_TICKS.items())
    _title(result, facts, panels[0])
    for axes, chart, side in zip(panels, (account, account, market, market), (None, "y2") * 2, strict=True):
        for trace in chart["data"]:
            if trace.get("yaxis") == side and trace.get("visible", True):
                _trace(axes, trace)
        axes.grid(color="#e8ebef", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    for axes, word in zip(panels, ("Profit", "Drawdown", market["name"], "Inventory"), strict=True):
        axes.set_ylabel(word.replace("$", r"\$"))
    for axes in (panels[0], panels[2]):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", frameon=False, ncols=6, fontsize=10)
            axes.margins(y=0.14)
    canvas.figure.savefig(path, format="png")


def _trace(axes: Any, trace: dict[str, Any]) -> None:
    """One line, or one set of marks, of a chart of the page."""
    x, y = np.array(trace["x"], "datetime64[ns]"), np.array(trace["y"], "f8")
    if trace["mode"] == "markers":
        shape = "^" if "up" in trace["marker"]["symbol"] else "v"
        inside = "none" if "open" in trace["marker"]["symbol"] else trace["marker"]["color"]
        axes.scatter(x, y, marker=shape, facecolors=inside, edgecolors=trace["marker"]["color"], s=22, lw=0.8,
                     label=trace["name"], zorder=3)  # fmt: skip
        return
    style = "steps-post" if trace["line"].get("shape") == "hv" else "default"
    label = trace["name"] if trace.get("showlegend", True) else None
    axes.plot(x, y, color=trace["line"]["color"], lw=trace["line"]["width"], label=label, drawstyle=style)
