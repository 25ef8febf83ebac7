"""The charts of a run on quotes and trades: profit by its causes, the market with our fills, inventory, mark-outs."""

from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.history import decimate
from backtest.look import KERNEL, look, questions
from backtest.quality import CURVE, markout_curve, profit_lines
from backtest.report.charts import (
    AXIS,
    BLUE,
    GREEN,
    GREY,
    POINTS,
    RED,
    VIOLET,
    Chart,
    axis,
    busiest,
    layout,
    line,
    plain,
    times,
)
from backtest.trades import split_factors

if TYPE_CHECKING:
    from backtest.result import Result

FILLS = 1_000  # marked on one chart
PARTS = (("net", "Net", BLUE), ("spread", "Spread", GREEN), ("inventory", "Inventory", VIOLET),
         ("carry", "Funding and dividends", "#b7791f"), ("fees", "Fees", RED))  # fmt: skip


def account(result: "Result") -> Chart:
    """Profit and its causes above, drawdown in money below, one time axis."""
    ts, equity, _ = result.curve
    rows = decimate(equity, POINTS)
    x, lines = times(ts[rows], "ms"), profit_lines(result, rows)
    data = [line(x, plain(lines[key]), name, color, hovertemplate="%{y:,.6g}", visible=bool(lines[key].any()))
            for key, name, color in PARTS]  # fmt: skip
    data[0]["visible"], data[0]["line"]["width"] = True, 2.2
    peak = np.maximum(np.maximum.accumulate(equity), result.start_equity)
    low = decimate(equity - peak, POINTS)
    data.append(line(times(ts[low], "ms"), plain((equity - peak)[low]), "Drawdown", RED, yaxis="y2", fill="tozeroy",
                     showlegend=False, fillcolor="rgba(192,38,38,0.12)", hovertemplate="%{y:,.6g}"))  # fmt: skip
    return {"data": data, "layout": layout(
        xaxis={**AXIS, "anchor": "y2"},
        yaxis=axis("Profit", domain=[0.34, 1.0], zeroline=True, zerolinecolor=GREY),
        yaxis2=axis("Drawdown", domain=[0.0, 0.27]),
    )}  # fmt: skip


def fill_marks(result: "Result", index: int) -> tuple[list[Chart], int]:
    """Fills of one instrument as marks that tell what each won, and how many there are."""
    fills, done = result.fill_columns, result.executions
    rows = np.flatnonzero(fills.instrument == index)
    total = len(rows)
    rows = rows[np.unique(np.linspace(0, total - 1, FILLS).astype("i8"))] if total > FILLS else rows
    actions = result.history.actions
    price = fills.price[rows] / split_factors(fills.ts[rows], actions, actions.instrument == index)
    data = []
    for name, side, shape, color in (("Buy", 1, "triangle-up", BLUE), ("Sell", -1, "triangle-down", VIOLET)):
        for maker, more in ((True, ""), (False, "-open")):
            mask = (np.sign(fills.lots[rows]) == side) & (done.maker[rows] == maker)
            if not mask.any():
                continue
            text = [_told(result, row) for row in rows[mask]]
            data.append({
                "type": "scatter", "mode": "markers", "name": f"{name}, {'maker' if maker else 'taker'}", "text": text,
                "x": times(fills.ts[rows][mask], "ms"), "y": plain(price[mask]),
                "hovertemplate": "%{y:,.8g} · %{text}",
                "marker": {"symbol": shape + more, "size": 9, "color": color, "line": {"color": "#fff", "width": 0.6}
                           if maker else {"width": 1.5}},
            })  # fmt: skip
    return data, total


def _told(result: "Result", row: int) -> str:
    """One fill in words."""
    done, qty = result.executions, abs(result.fill_columns.lots[row]) * result.lot[result.fill_columns.instrument[row]]
    words = [f"{qty:,.6g}", f"spread {done.spread[row]:+.3g}"]
    words += [f"5 s {done.markouts[1, row]:+.3g}"] if np.isfinite(done.markouts[1, row]) else []
    words += [f"rested {done.rested[row]:,.3g} s"] if done.maker[row] else []
    words += [f"behind {done.ahead[row]:,.6g}"] if np.isfinite(done.ahead[row]) else []
    return ", ".join(words)


def prices(result: "Result") -> list[Chart]:
    """One chart for each of the busiest instruments: the market with our fills, and what we held below."""
    drawn, ts = tuple(busiest(result)), result.curve[0]
    until = int(ts[-1]) if len(ts) else 0
    lines = look(result.tape.events, result.tick, questions([], 0), clock=KERNEL, shift=result.feed_ns,
                 until=until, drawn=drawn, points=POINTS).lines  # fmt: skip
    found, held = [], result.positions
    for index in drawn:
        when, mark = lines[index]
        if len(when) == 0:
            continue
        name, actions = result.instruments[index], result.history.actions
        mark = mark / split_factors(when, actions, actions.instrument == index)
        marks, total = fill_marks(result, index)
        own = held.filter(held["instrument"] == name)
        step, qty = own["time"].to_physical().to_numpy(), own["qty"].to_numpy()
        step, qty = (
            np.concatenate((when[:1], step, when[-1:])),
            np.concatenate(([0.0], qty, qty[-1:] if len(qty) else [0.0])),
        )
        keep = decimate(qty, POINTS)
        data = [line(times(when, "ms"), plain(mark), "Mid", GREY, hovertemplate="%{y:,.8g}"), *marks,
                line(times(step[keep], "ms"), plain(qty[keep]), "Inventory", BLUE, yaxis="y2", showlegend=False,
                     line={"shape": "hv", "color": BLUE, "width": 1.2}, hovertemplate="%{y:,.6g}", fill="tozeroy",
                     fillcolor="rgba(31,95,191,0.10)")]  # fmt: skip
        note = f"{FILLS:,} of {total:,} fills, evenly chosen" if total > FILLS else f"{total:,} fills"
        found.append({"name": name, "note": note, "data": data, "layout": layout(
            hovermode="closest", xaxis={**AXIS, "anchor": "y2", "range": times(when[[0, -1]], "ms")},
            yaxis=axis("Price", domain=[0.36, 1.0]), yaxis2=axis("Inventory", domain=[0.0, 0.28]),
        )})  # fmt: skip
    return found


def markouts(result: "Result") -> Chart | None:
    """Mean mark-out by time after the fill, with two standard errors to both sides."""
    maker = result.executions.maker
    data: list[Any] = []
    words = [f"{h:g} s" for h in CURVE]
    for name, chosen, color in (("Maker", maker, BLUE), ("Taker", ~maker, RED)):
        means, errors = markout_curve(result, chosen)
        if np.isfinite(means).any():
            bars = {"array": plain(2.0 * errors), "color": color, "thickness": 1, "width": 3}
            data.append({**line(words, plain(means), f"{name}, {np.count_nonzero(chosen):,} fills", color),
                         "mode": "lines+markers", "hovertemplate": "%{y:.3f} bps", "error_y": bars})  # fmt: skip
    if not data:
        return None
    return {"data": data, "layout": layout(yaxis=axis("bps of the price", zeroline=True, zerolinecolor=GREY),
                                           xaxis=axis("after the fill", type="category"))}  # fmt: skip
