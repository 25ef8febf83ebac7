"""The charts of a report as plain plotly specifications, so that writing one needs no plotly."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from backtest.history import decimate, price_line
from backtest.metrics import Floats, Ints, underwater
from backtest.trades import split_factors

if TYPE_CHECKING:
    from backtest.result import Result

POINTS = 4_000  # of one line
INSTRUMENTS = 12  # with a price chart
TRADES = 400  # marked on one price chart
BLUE, GREY, GREEN, RED, VIOLET = "#1f5fbf", "#8a929c", "#17803d", "#c02626", "#7a3fb5"
AXIS: dict[str, Any] = {"gridcolor": "#e8ebef", "zeroline": False, "automargin": True, "linecolor": "#c6ccd4"}
Chart = dict[str, Any]


def plain(values: Floats) -> list[float | None]:
    """Numbers for JSON: seven significant digits, null for what is not finite."""
    return [float(f"{v:.7g}") if np.isfinite(v) else None for v in values.tolist()]


def times(ts: Ints, unit: Literal["s", "ms"] = "s") -> list[str]:
    """ISO texts in UTC, to the second (or to what `unit` says)."""
    return [str(t) for t in np.datetime_as_string(ts.astype("datetime64[ns]"), unit=unit)]


def layout(**more: Any) -> Chart:
    """The look that all charts share."""
    return {
        "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13, "color": "#1c2430"},
        "paper_bgcolor": "#fff", "plot_bgcolor": "#fff", "margin": {"l": 64, "r": 16, "t": 8, "b": 32},
        "hovermode": "x unified", "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        "xaxis": {**AXIS}, "yaxis": {**AXIS}, **more,
    }  # fmt: skip


def axis(title: str, **more: Any) -> Chart:
    """An axis with its title clear of the numbers."""
    return {**AXIS, "title": {"text": title, "standoff": 12}, **more}


def line(x: list[str], y: list[float | None], name: str, color: str, **more: Any) -> Chart:
    """One line of a chart."""
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": {"color": color, "width": 1.5},
            **more}  # fmt: skip


def comparable(equity: Floats, hold: Floats) -> bool:
    """Whether buy and hold can share an axis with equity and leave its shape visible."""
    known = hold[np.isfinite(hold)]
    return len(known) > 0 and float(np.ptp(known)) <= 25 * float(np.ptp(equity))


def account(result: "Result") -> Chart:
    """Equity against buy and hold above, drawdown below, one time axis."""
    ts, equity, _ = result.curve
    rows = decimate(equity, POINTS)
    depth = underwater(equity, result.start_equity)
    low = decimate(depth, POINTS)
    hold = result.hold * result.start_equity
    held = decimate(hold, POINTS)
    data = [
        line(times(ts[rows]), plain(equity[rows]), "Equity", BLUE, hovertemplate="%{y:,.2f}"),
        line(times(result.history.grid[held]), plain(hold[held]), "Buy and hold", GREY, hovertemplate="%{y:,.2f}",
             visible=comparable(equity, hold)),
        line(times(ts[low]), plain(depth[low]), "Drawdown", RED, yaxis="y2", fill="tozeroy", showlegend=False,
             fillcolor="rgba(192,38,38,0.12)", hovertemplate="%{y:.2%}"),
    ]  # fmt: skip
    return {"data": data, "layout": layout(
        xaxis={**AXIS, "anchor": "y2"}, yaxis=axis("Equity", domain=[0.34, 1.0]),
        yaxis2=axis("Drawdown", domain=[0.0, 0.27], tickformat="~%"),
    )}  # fmt: skip


def busiest(result: "Result") -> list[int]:
    """The instruments to draw: those with the most trades, then by their order; at most a dozen."""
    count = np.bincount(result.trips.instrument, minlength=len(result.instruments))
    return [int(i) for i in np.argsort(-count, kind="stable")[:INSTRUMENTS]]


def markers(result: "Result", index: int) -> tuple[list[Chart], int]:
    """Entries, exits and the lines between them for the trades that mattered most, and how many trades there are."""
    trips = result.trips
    rows = np.flatnonzero(trips.instrument == index)
    total = len(rows)
    rows = np.sort(rows[np.argsort(-np.abs(trips.pnl[rows]), kind="stable")[:TRADES]])
    actions = result.history.actions
    # A trade is told in units of its exit, the chart in units of the end.
    factor = split_factors(trips.exit_ts[rows], actions, actions.instrument == index)
    entry, leave = trips.entry_price[rows] / factor, trips.exit_price[rows] / factor
    long, won, done = trips.side[rows] > 0, trips.pnl[rows] > 0, ~trips.open[rows]
    text = [f"{'long' if s > 0 else 'short'} {q:,.6g}, {p:+,.2f} ({r:+.2%})" for s, q, p, r in
            zip(trips.side[rows], trips.qty[rows], trips.pnl[rows], trips.returns[rows], strict=True)]  # fmt: skip
    data = []
    for name, mask, color in (("profit", won, GREEN), ("loss", ~won, RED)):
        x, y = _segments(trips.entry_ts[rows][mask], trips.exit_ts[rows][mask], entry[mask], leave[mask])
        data.append({**line(x, y, name, color, showlegend=False, hoverinfo="skip"),
                     "line": {"color": color, "width": 1.2, "dash": "dot"}})  # fmt: skip
    for name, mask, when, price, shape, color in (
        ("Long entry", long, trips.entry_ts, entry, "triangle-up", BLUE),
        ("Short entry", ~long, trips.entry_ts, entry, "triangle-down", VIOLET),
        ("Exit, profit", won & done, trips.exit_ts, leave, "x", GREEN),
        ("Exit, loss", ~won & done, trips.exit_ts, leave, "x", RED),
    ):
        if mask.any():
            size = 12 if shape != "x" else 6  # a reversal draws its exit upon its entry
            data.append({
                "type": "scatter", "mode": "markers", "name": name, "x": times(when[rows][mask]),
                "y": plain(price[mask]), "text": [t for t, m in zip(text, mask, strict=True) if m],
                "hovertemplate": "%{y:,.6g} · %{text}",
                "marker": {"symbol": shape, "size": size, "color": color, "line": {"color": "#fff", "width": 0.8}},
            })  # fmt: skip
    return data, total


def _segments(begin: Ints, end: Ints, low: Floats, high: Floats) -> tuple[list[Any], list[Any]]:
    """Coordinates of separate strokes, as one line with gaps."""
    x, y = [], []
    for a, b, p, q in zip(times(begin), times(end), plain(low), plain(high), strict=True):
        x += [a, b, None]
        y += [p, q, None]
    return x, y


def prices(result: "Result") -> list[Chart]:
    """One chart for each of the busiest instruments: closes, and trades on top."""
    charts = []
    for index in busiest(result):
        ts, close = price_line(result.tape.events, index, result.history.actions, POINTS)
        if len(ts) == 0:
            continue
        data, total = markers(result, index)
        name = result.instruments[index]
        note = f"the {TRADES} largest of {total:,} trades" if total > TRADES else f"{total:,} trades"
        if (result.history.actions.ratio[result.history.actions.instrument == index] != 1.0).any():
            note += ", prices adjusted for splits"
        shape = line(times(ts), plain(close), "Close", GREY, hovertemplate="%{y:,.6g}")
        charts.append({"name": name, "note": note, "data": [shape, *data],
                       "layout": layout(yaxis=axis("Price"), hovermode="closest")})  # fmt: skip
    return charts


def rolling_sharpe(result: "Result") -> Chart | None:
    """Sharpe ratio over a moving window of half a year of periods (or a quarter of a short run)."""
    ends, returns, per_year = result.periods
    window = int(per_year // 2) if len(returns) >= per_year else len(returns) // 4
    if window < 10 or not np.isfinite(returns).all():
        return None
    views = np.lib.stride_tricks.sliding_window_view(returns, window)
    spread = views.std(axis=1, ddof=1)
    ratio = np.divide(views.mean(axis=1), spread, out=np.full(len(views), np.nan), where=spread > 1e-12) * per_year**0.5
    keep = decimate(ratio, POINTS)
    x, y = times(result.curve[0][ends[window - 1 :]][keep]), plain(ratio[keep])
    zero = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "line": {"color": GREY, "width": 1}}
    title = f"Sharpe ratio over {window} periods"
    return {"data": [line(x, y, title, BLUE, hovertemplate="%{y:.2f}")], "title": title,
            "layout": layout(shapes=[zero], showlegend=False)}  # fmt: skip


def distribution(result: "Result") -> Chart | None:
    """Histogram of periodic returns, with their mean and the 95 % value at risk."""
    returns = result.periods.returns
    if len(returns) < 10 or not np.isfinite(returns).all() or np.ptp(returns) == 0:
        return None
    low, high = np.quantile(returns, [0.002, 0.998])
    low, high = (low, high) if high > low else (float(returns.min()), float(returns.max()))
    count, edges = np.histogram(np.clip(returns, low, high), bins=min(60, max(10, len(returns) // 15)))
    middle = (edges[1:] + edges[:-1]) / 2
    marks = ((float(returns.mean()), "mean", BLUE), (result.metrics["value_at_risk"], "VaR 95 %", RED))
    shapes = [{"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1,
               "line": {"color": color, "width": 1.5, "dash": "dash"}} for x, _, color in marks]  # fmt: skip
    notes = [{"x": x, "y": 1, "yref": "paper", "text": name, "showarrow": False, "yanchor": "bottom",
              "font": {"color": color}, "xanchor": "left" if name == "mean" else "right"}
             for x, name, color in marks]  # fmt: skip
    bars = {"type": "bar", "x": plain(middle), "y": count.tolist(), "marker": {"color": "#9db8e0"}, "name": "periods",
            "width": float(edges[1] - edges[0]) * 0.94, "hovertemplate": "%{x:.2%}: %{y}<extra></extra>"}  # fmt: skip
    return {"data": [bars], "layout": layout(
        shapes=shapes, annotations=notes, margin={"l": 64, "r": 16, "t": 24, "b": 32}, showlegend=False,
        hovermode="closest", bargap=0,
        xaxis={**AXIS, "tickformat": "~%"}, yaxis=axis("Periods"),
    )}  # fmt: skip


def all_charts(result: "Result") -> Chart:
    """Everything the page draws, ready for JSON."""
    if result.ticks:
        from backtest.report import ticks

        return {"account": ticks.account(result), "prices": ticks.prices(result), "markouts": ticks.markouts(result),
                "rolling": rolling_sharpe(result), "distribution": distribution(result)}  # fmt: skip
    return {"account": account(result), "prices": prices(result), "rolling": rolling_sharpe(result),
            "distribution": distribution(result)}  # fmt: skip
