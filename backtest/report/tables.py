"""The texts and tables of a report as escaped HTML."""

import re
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.figures import (
    ALL,
    COUNT,
    LABELS,
    LEADING,
    LEADING_TICKS,
    MONEY,
    PERCENT,
    UNITS,
    compact,
    figure,
    flat,
    number,
)
from backtest.report.charts import times
from engine.kernel import codes

if TYPE_CHECKING:
    from backtest.honesty.verdict import Verdict
    from backtest.result import Result

ROWS = 500  # of the trade table
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DIGEST = re.compile("[0-9a-f]{8,}")
# Cards whose sign has a colour.
SIGNED = ("total_return", "annual_return", "sharpe", "net_pnl", "spread_pnl", "inventory_pnl", "markout_5s")

MAKING = """<section>
<div class="head"><h2>Mark-outs</h2><small>What a fill had won, by the middle of the quote so long after it; bars: two
standard errors. Above zero the spread outweighs adverse selection.</small></div>
<div id="markouts" class="chart" style="height:300px"></div></section>"""


def rows_html(rows: Iterable[tuple[str, str]]) -> str:
    """Rows of a two-column table."""
    return "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)


def tone(value: float) -> str:
    """The class that colours a number."""
    return "up" if value > 0 else "down" if value < 0 else ""


def cards(result: "Result") -> str:
    """The leading figures, large."""
    found = []
    for key, name in (LEADING_TICKS if result.ticks else LEADING).items():
        value = result.metrics[key]
        color = tone(value) if key in SIGNED else ""
        under = f"buy and hold {figure(result.metrics, 'benchmark_return')}" if key == "total_return" else ""
        found.append(f'<div class="card"><span>{escape(name)}</span>'
                     f'<b class="{color}">{escape(figure(result.metrics, key))}</b>'
                     f"<small>{escape(under)}</small></div>")  # fmt: skip
    return "".join(found)


def figures_html(result: "Result") -> str:
    """All figures, one table for each group."""
    parts = []
    known = [row for row in ALL if row[0] in result.metrics]
    for group in dict.fromkeys(row[3] for row in known):
        rows = rows_html((label, figure(result.metrics, key)) for key, label, _, g in known if g == group)
        parts.append(f"<div><h3>{escape(group)}</h3><table>{rows}</table></div>")
    return "".join(parts)


def monthly(result: "Result") -> str:
    """Compounded returns for each month, and for each year, as a table with a coloured ground."""
    ends, returns, _ = result.periods
    if len(returns) == 0:
        return '<p class="none">The run is too short for monthly returns.</p>'
    month = (result.curve[0][ends] - 1).astype("datetime64[ns]").astype("datetime64[M]").astype("i8")
    first = np.flatnonzero(np.append(True, month[1:] != month[:-1]))
    compound = np.multiply.reduceat(1.0 + returns, first) - 1.0
    by_month = dict(zip(month[first].tolist(), compound.tolist(), strict=True))
    digits = 1 if np.nanmax(np.abs(compound)) >= 0.01 else 3
    rows = []
    for year in range(min(by_month) // 12, max(by_month) // 12 + 1):
        of_year = [by_month.get(year * 12 + m) for m in range(12)]
        known = [r for r in of_year if r is not None]
        total = float(np.prod([1.0 + r for r in known]) - 1.0) if known else None
        rows.append(f"<tr><th>{1970 + year}</th>{''.join(_cell(r, digits) for r in of_year)}"
                    f"{_cell(total, digits, 'total')}</tr>")  # fmt: skip
    head = "".join(f"<th>{name}</th>" for name in MONTHS)
    head = f"<thead><tr><th></th>{head}<th>Year</th></tr></thead>"
    return f'<table class="heat">{head}<tbody>{"".join(rows)}</tbody></table>'


def _cell(value: float | None, digits: int, kind: str = "") -> str:
    if value is None or not np.isfinite(value):
        return f'<td class="{kind}"></td>'
    text = f"{value * 100:.{digits}f}"
    text = text[1:] if float(text) == 0 and value < 0 else text
    strength = min(1.0, abs(value) / (0.30 if kind else 0.10)) * 0.55
    color = f"rgba(23,128,61,{strength:.2f})" if value >= 0 else f"rgba(192,38,38,{strength:.2f})"
    return f'<td class="{kind}" style="background:{color}">{text}</td>'


def trades(result: "Result") -> tuple[str, str]:
    """The latest trades as table rows that sort by their `data-v`, and a note on what is shown."""
    trips = result.trips
    total = len(trips.pnl)
    shown = range(max(0, total - ROWS), total)
    entry, leave = (times(ts, "ms" if result.ticks else "s") for ts in (trips.entry_ts, trips.exit_ts))
    rows = []
    for i in shown:
        cells: list[tuple[Any, str, str]] = [
            (i, f"{i + 1:,}", ""), (*[result.instruments[trips.instrument[i]]] * 2, "text"),
            (*[result.strategies[trips.strategy[i]]] * 2, "text"),
            (side := "long" if trips.side[i] > 0 else "short", side, "text"),
            (trips.qty[i], f"{trips.qty[i]:,.6g}", ""),
            (entry[i], entry[i].replace("T", " "), "time"), (trips.entry_price[i], f"{trips.entry_price[i]:,.6g}", ""),
            (leave[i], "open" if trips.open[i] else leave[i].replace("T", " "), "time"),
            (trips.exit_price[i], f"{trips.exit_price[i]:,.6g}", ""),
            (trips.pnl[i], number(float(trips.pnl[i]), MONEY), tone(trips.pnl[i])),
            (trips.returns[i], number(float(trips.returns[i]), PERCENT), tone(trips.returns[i])),
            (trips.fees[i], number(float(trips.fees[i]), MONEY), ""),
        ]  # fmt: skip
        rows.append("<tr>" + "".join(f'<td class="{kind}" data-v="{escape(str(key))}">{escape(text)}</td>'
                                     for key, text, kind in cells) + "</tr>")  # fmt: skip
    count = f"The latest {ROWS} of {total:,} trades; trades.parquet has all" if total > ROWS else f"{total:,} trades"
    return "".join(rows), count + ". Click a heading to sort."


def refused(result: "Result") -> str:
    """How often risk refused, by reason."""
    reasons, counts = np.unique(result.refused_rows["reason"], return_counts=True)
    if len(reasons) == 0:
        return '<p class="none">Risk refused nothing.</p>'
    order = np.argsort(-counts, kind="stable")
    rows = [(codes.NAMES["reason"].get(int(reasons[i]), str(reasons[i])).replace("_", " "),
             number(float(counts[i]), COUNT)) for i in order]  # fmt: skip
    return f"<table>{rows_html(rows)}</table>"


def verdict(found: "Verdict | None") -> str:
    """How likely it is luck, and the bounds of each headline figure; nothing where nobody asked."""
    if found is None:
        return ""
    rows = "".join(
        f"<tr><th>{escape(LABELS[key])}</th>"
        + "".join(f"<td>{escape(number(value, UNITS[key]))}</td>" for value in interval) + "</tr>"
        for key, interval in found.intervals.items() if np.isfinite(interval.low)
    )  # fmt: skip
    head = "<tr><th></th><td>value</td><td>95 % from</td><td>to</td></tr>"
    return (f'<section id="verdict"><div class="head"><h2>Is it luck?</h2></div><p><b>{escape(found.lead)}</b></p>'
            f"<p>{escape(found.sentence)}</p>{f'<table>{head}{rows}</table>' if rows else ''}</section>")  # fmt: skip


def sections(result: "Result") -> dict[str, str]:
    """The values of the page template, all but the charts."""
    first, last = result.span()
    names = result.instruments
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    body, note = trades(result)
    identity = {"data": [result.tape.digest], **{k: v if isinstance(v, list | tuple) else [v]
                                                 for k, v in result.identity.items()}}  # fmt: skip
    short = {k: [str(x)[:12] for x in v] for k, v in identity.items() if all(DIGEST.fullmatch(str(x)) for x in v)}
    ran = f"{result.seconds:.3f} s" if np.isfinite(result.seconds) else "–"
    return {
        "title": escape(result.label), "data_name": escape(result.tape.name), "instruments": escape(shown),
        "verdict": verdict(result.verdict), "first": escape(first), "last": escape(last), "cards": cards(result),
        "figures": figures_html(result),
        "kind": "ticks" if result.ticks else "bars", "price_height": "520" if result.ticks else "420",
        "curve_title": "Profit and drawdown" if result.ticks else "Equity and drawdown",
        "price_title": "Market, fills and inventory" if result.ticks else "Price and trades",
        "making": MAKING if result.ticks else "", "monthly": monthly(result), "trades": body,
        "trades_note": escape(note), "refusals": refused(result),
        "config": "".join(f"<div><span>{escape(k)}</span><span>{escape(str(v))}</span></div>"
                          for k, v in flat(result.config).items()) or '<p class="none">None were recorded.</p>',
        "identity": rows_html([*((k, ", ".join(map(str, v))) for k, v in identity.items()), ("run time", ran)]),
        "hashes": " · ".join(f"{escape(k)} <code>{escape(' '.join(v))}</code>" for k, v in short.items()),
    }  # fmt: skip


def summary_html(result: "Result") -> str:
    """What a notebook shows for a result: the leading figures and the compact table."""
    rows = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{escape(LABELS[k])}</td><td style="text-align:right">'
                         f"<b>{escape(figure(result.metrics, k))}</b></td>" for k in pair) + "</tr>"
        for pair in compact(result.metrics)
    )  # fmt: skip
    first, last = result.span()
    return (f"<div><b>{escape(result.label)}</b> on {escape(result.tape.name)}, {escape(first)} to {escape(last)}"
            f"<table>{rows}</table></div>")  # fmt: skip
