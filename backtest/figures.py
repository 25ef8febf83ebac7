"""The names, units and order in which people read the figures of a run, and the text that shows them.

One table decides what the terminal, the report and the tracker call a figure and how it is written.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.kernel import codes

PERCENT, NUMBER, MONEY, COUNT, DAYS, BPS, SECONDS = "percent", "number", "money", "count", "days", "bps", "seconds"

# key, label, unit, group
FIGURES: tuple[tuple[str, str, str, str], ...] = (
    ("total_return", "Total return", PERCENT, "Return"),
    ("annual_return", "Annual return (CAGR)", PERCENT, "Return"),
    ("benchmark_return", "Buy and hold return", PERCENT, "Return"),
    ("alpha", "Alpha (annual)", PERCENT, "Return"),
    ("beta", "Beta", NUMBER, "Return"),
    ("start_equity", "Start equity", MONEY, "Return"),
    ("end_equity", "End equity", MONEY, "Return"),
    ("sharpe", "Sharpe ratio", NUMBER, "Risk"),
    ("sortino", "Sortino ratio", NUMBER, "Risk"),
    ("calmar", "Calmar ratio", NUMBER, "Risk"),
    ("volatility", "Volatility (annual)", PERCENT, "Risk"),
    ("max_drawdown", "Maximum drawdown", PERCENT, "Risk"),
    ("max_drawdown_days", "Longest drawdown", DAYS, "Risk"),
    ("average_drawdown", "Average drawdown", PERCENT, "Risk"),
    ("value_at_risk", "Value at risk 95 %", PERCENT, "Risk"),
    ("expected_shortfall", "Expected shortfall 95 %", PERCENT, "Risk"),
    ("best_period", "Best period", PERCENT, "Risk"),
    ("worst_period", "Worst period", PERCENT, "Risk"),
    ("skew", "Skewness", NUMBER, "Risk"),
    ("kurtosis", "Excess kurtosis", NUMBER, "Risk"),
    ("tail_ratio", "Tail ratio", NUMBER, "Risk"),
    ("trades", "Closed trades", COUNT, "Trades"),
    ("win_rate", "Win rate", PERCENT, "Trades"),
    ("profit_factor", "Profit factor", NUMBER, "Trades"),
    ("expectancy", "Expectancy per trade", MONEY, "Trades"),
    ("sqn", "SQN", NUMBER, "Trades"),
    ("average_trade", "Average trade", PERCENT, "Trades"),
    ("average_win", "Average win", MONEY, "Trades"),
    ("average_loss", "Average loss", MONEY, "Trades"),
    ("best_trade", "Best trade", PERCENT, "Trades"),
    ("worst_trade", "Worst trade", PERCENT, "Trades"),
    ("average_trade_days", "Average time in trade", DAYS, "Trades"),
    ("open_trades", "Open trades at the end", COUNT, "Trades"),
    ("exposure", "Time in market", PERCENT, "Activity"),
    ("average_leverage", "Average leverage", NUMBER, "Activity"),
    ("turnover", "Turnover (× equity)", NUMBER, "Activity"),
    ("turnover_annual", "Turnover a year", NUMBER, "Activity"),
    ("fees", "Fees", MONEY, "Activity"),
    ("orders", "Orders", COUNT, "Activity"),
    ("fills", "Fills", COUNT, "Activity"),
    ("refusals", "Refused orders", COUNT, "Activity"),
    ("periods", "Periods", COUNT, "Activity"),
    ("periods_per_year", "Periods per year", COUNT, "Activity"),
    ("days", "Calendar days", DAYS, "Activity"),
)
# What a run on quotes and trades has besides, and puts first: `quality.quality_metrics`.
TICK_FIGURES: tuple[tuple[str, str, str, str], ...] = (
    ("net_pnl", "Net profit", MONEY, "Execution"),
    ("spread_pnl", "Profit from spread", MONEY, "Execution"),
    ("inventory_pnl", "Profit from inventory", MONEY, "Execution"),
    ("carry_pnl", "Funding and dividends", MONEY, "Execution"),
    ("spread_captured", "Spread captured", BPS, "Execution"),
    ("markout_1s", "Mark-out after 1 s", BPS, "Execution"),
    ("markout_5s", "Mark-out after 5 s", BPS, "Execution"),
    ("markout_30s", "Mark-out after 30 s", BPS, "Execution"),
    ("adverse_selection", "Adverse selection, 5 s", BPS, "Execution"),
    ("maker_share", "Maker share of volume", PERCENT, "Execution"),
    ("fill_ratio", "Fill ratio", PERCENT, "Execution"),
    ("quote_trade_ratio", "Instructions per fill", NUMBER, "Execution"),
    ("queue_ahead", "Volume ahead at joining", NUMBER, "Execution"),
    ("queue_seconds", "Time in the queue", SECONDS, "Execution"),
    ("average_inventory", "Average inventory", MONEY, "Execution"),
    ("max_inventory", "Largest inventory", MONEY, "Execution"),
)
ALL = (*TICK_FIGURES, *FIGURES)
LABELS = {key: label for key, label, _, _ in ALL}
UNITS = {key: unit for key, _, unit, _ in ALL}
LEADING = {
    "total_return": "Total return", "annual_return": "CAGR", "sharpe": "Sharpe", "max_drawdown": "Max drawdown",
    "trades": "Trades", "win_rate": "Win rate", "profit_factor": "Profit factor", "exposure": "In market",
}  # fmt: skip
LEADING_TICKS = {
    "net_pnl": "Net profit", "spread_pnl": "From spread", "inventory_pnl": "From inventory", "fees": "Fees",
    "markout_5s": "Mark-out 5 s", "fills": "Fills", "fill_ratio": "Fill ratio", "max_inventory": "Largest inventory",
}  # fmt: skip
COMPACT = (
    ("total_return", "sharpe"), ("benchmark_return", "sortino"), ("annual_return", "calmar"),
    ("volatility", "max_drawdown"), ("alpha", "max_drawdown_days"), ("beta", "exposure"), ("trades", "turnover"),
    ("win_rate", "fees"), ("profit_factor", "refusals"), ("expectancy", "start_equity"), ("sqn", "end_equity"),
)  # fmt: skip
COMPACT_TICKS = (
    ("net_pnl", "spread_captured"), ("spread_pnl", "markout_1s"), ("inventory_pnl", "markout_5s"),
    ("carry_pnl", "markout_30s"), ("fees", "adverse_selection"), ("total_return", "fills"),
    ("max_drawdown", "fill_ratio"), ("sharpe", "quote_trade_ratio"), ("average_inventory", "maker_share"),
    ("max_inventory", "queue_ahead"), ("end_equity", "queue_seconds"),
)  # fmt: skip


def number(value: float, unit: str = NUMBER) -> str:
    """A figure as people write it; what is not defined is a dash, what is small keeps two digits.

    >>> number(0.1234, PERCENT), number(1234.5, MONEY), number(float("nan")), number(12.0, COUNT), number(0.00123)
    ('12.34 %', '1,234.50', '–', '12', '0.0012')
    >>> number(0.25, BPS), number(0.5, DAYS), number(90.0, SECONDS)
    ('0.25 bps', '12.00 h', '1.50 min')
    """
    if not math.isfinite(value):
        return "–"
    if unit == PERCENT:
        return f"{number(value * 100)} %"
    if unit == COUNT:
        return f"{value:,.0f}"
    if unit == BPS:
        return f"{number(value)} bps"
    if unit == DAYS and value < 1:
        return number(value * 86_400, SECONDS)
    if unit == DAYS:
        return f"{value:,.0f} days" if value >= 10 else f"{value:,.2f} days"
    if unit == SECONDS:
        scale, word = next((s, w) for s, w in ((3600, "h"), (60, "min"), (1, "s")) if value >= s or s == 1)
        return f"{number(value / scale)} {word}"
    if 0 < abs(value) < 0.01:
        return np.format_float_positional(value, precision=2, fractional=False, trim="-")
    return f"{value:,.2f}"


def figure(metrics: Mapping[str, float], key: str) -> str:
    """The text of one figure of `metrics`."""
    return number(metrics.get(key, math.nan), UNITS[key])


def compact(metrics: Mapping[str, float]) -> tuple[tuple[str, str], ...]:
    """The figures of the compact table, two on a line: those that fit the run."""
    return COMPACT_TICKS if "net_pnl" in metrics else COMPACT


def table(metrics: Mapping[str, float]) -> str:
    """The compact table for a terminal: two figures on a line."""
    rows = [(LABELS[a], figure(metrics, a), LABELS[b], figure(metrics, b)) for a, b in compact(metrics)]
    wide = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        f"{a:<{wide[0]}}  {b:>{wide[1]}}    {c:<{wide[2]}}  {d:>{wide[3]}}" for a, b, c, d in rows
    )  # fmt: skip


def remarks(result: Any) -> list[str]:
    """What a reader of the figures must know besides: why nothing was traded, or what makes them mean nothing."""
    found, (ts, equity, _) = list[str](), result.curve
    reasons = Counter(codes.NAMES["reason"][int(code)] for code in result.refused_rows["reason"].tolist())
    if reasons:
        found.append("Refused: " + ", ".join(f"{count:,} {word}" for word, count in reasons.most_common(3)))
    elif not len(result.raw["orders"]):
        lots = ", ".join(sorted({f"{i.lot:g}" for i in result.tape.instruments}))
        found.append(f"No order was sent: the strategy asked for none, or for less than a lot ({lots}) each time.")
    if (below := equity < 0.0).any():
        at = np.datetime64(int(ts[below.argmax()]), "ns").astype("datetime64[s]")
        found.append(f"Equity fell below zero at {at}: no figure means anything after that; see risk.leverage.")
    return found


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dictionary with dotted keys; lists of plain values become one text.

    >>> flat({"risk": {"allow": ["A", "B"]}, "strategies": [{"fast": 10}]})
    {'risk.allow': 'A, B', 'strategies.0.fast': 10}
    """
    items = config.items() if isinstance(config, Mapping) else enumerate(config)
    found: dict[str, Any] = {}
    for key, value in items:
        name, nested = f"{prefix}{key}", isinstance(value, Mapping | list | tuple)
        if nested and (isinstance(value, Mapping) or any(isinstance(v, Mapping | list | tuple) for v in value)):
            found.update(flat(value, f"{name}."))
        else:
            found[name] = ", ".join(str(v) for v in value) if nested else value
    return found


def strategies_of(config: Mapping[str, Any], names: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Name and parameters of each strategy, from whichever way the settings state them.

    `strategy` (or `strategies`) is a name, a mapping with `name` and `params` or with the parameters themselves, or a
    list of those. A strategy that the settings do not mention has no parameters here.

    >>> strategies_of({"strategy": {"name": "momentum", "fast": 10}}, ["momentum"])
    [('momentum', {'fast': 10})]
    """
    given = config.get("strategies") or config.get("strategy") or []
    entries = list(given) if isinstance(given, list | tuple) else [given]
    found = []
    for i, name in enumerate(names):
        entry = entries[i] if i < len(entries) else {}
        if isinstance(given, Mapping) and isinstance(given.get(name), Mapping):
            entry = given[name]
        params = entry.get("params", entry) if isinstance(entry, Mapping) else config.get("params", {})
        found.append((name, {k: v for k, v in flat(params).items() if k != "name" and not k.startswith("_")}))
    return found


def label_of(config: Mapping[str, Any], names: list[str]) -> str:
    """What to call a run: the strategies with their parameters.

    >>> label_of({"strategy": {"name": "momentum", "params": {"fast": 10, "slow": 50}}}, ["momentum"])
    'momentum fast=10 slow=50'
    """
    return ", ".join(" ".join([name, *(f"{k}={v}" for k, v in params.items())])
                     for name, params in strategies_of(config, names)) or "no strategy"  # fmt: skip


def note(metrics: Mapping[str, float], label: str, data: str, span: tuple[str, str]) -> str:
    """The figures in Markdown, for the tracker's description of a run."""
    cells = [f"{name} | {figure(metrics, key)}" for key, name in LABELS.items() if key in metrics]
    half = -(-len(cells) // 2)
    lines = [f"| {left} | {right} |" for left, right in zip(cells[:half], [*cells[half:], " | "], strict=False)]
    head = ["| figure | value | figure | value |", "|---|---:|---|---:|"]
    return "\n".join([f"**{label}** on **{data}**, {span[0]} to {span[1]}", "", *head, *lines])
