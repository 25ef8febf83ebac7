"""The names, units and order in which people read the figures of a run, and the text that shows them.

One table decides what the terminal, the report and the tracker call a figure and how it is written.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

PERCENT, NUMBER, MONEY, COUNT, DAYS = "percent", "number", "money", "count", "days"

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
LABELS = {key: label for key, label, _, _ in FIGURES}
UNITS = {key: unit for key, _, unit, _ in FIGURES}
LEADING = {
    "total_return": "Total return", "annual_return": "CAGR", "sharpe": "Sharpe", "max_drawdown": "Max drawdown",
    "trades": "Trades", "win_rate": "Win rate", "profit_factor": "Profit factor", "exposure": "In market",
}  # fmt: skip
COMPACT = (
    ("total_return", "sharpe"), ("benchmark_return", "sortino"), ("annual_return", "calmar"),
    ("volatility", "max_drawdown"), ("alpha", "max_drawdown_days"), ("beta", "exposure"), ("trades", "turnover"),
    ("win_rate", "fees"), ("profit_factor", "refusals"), ("expectancy", "start_equity"), ("sqn", "end_equity"),
)  # fmt: skip


def number(value: float, unit: str = NUMBER) -> str:
    """A figure as people write it; what is not defined is a dash, what is small keeps two digits.

    >>> number(0.1234, PERCENT), number(1234.5, MONEY), number(float("nan")), number(12.0, COUNT), number(0.00123)
    ('12.34 %', '1,234.50', '–', '12', '0.0012')
    """
    if not math.isfinite(value):
        return "–"
    if unit == PERCENT:
        return f"{number(value * 100)} %"
    if unit == COUNT:
        return f"{value:,.0f}"
    if unit == DAYS:
        return f"{value:,.0f} days" if value >= 10 else f"{value:,.2f} days"
    if unit == NUMBER and 0 < abs(value) < 0.01:
        return np.format_float_positional(value, precision=2, fractional=False, trim="-")
    return f"{value:,.2f}"


def figure(metrics: Mapping[str, float], key: str) -> str:
    """The text of one figure of `metrics`."""
    return number(metrics.get(key, math.nan), UNITS[key])


def table(metrics: Mapping[str, float]) -> str:
    """The compact table for a terminal: two figures on a line."""
    rows = [(LABELS[a], figure(metrics, a), LABELS[b], figure(metrics, b)) for a, b in COMPACT]
    wide = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        f"{a:<{wide[0]}}  {b:>{wide[1]}}    {c:<{wide[2]}}  {d:>{wide[3]}}" for a, b, c, d in rows
    )  # fmt: skip


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
    cells = [f"{name} | {figure(metrics, key)}" for key, name, _, _ in FIGURES]
    half = -(-len(cells) // 2)
    lines = [f"| {left} | {right} |" for left, right in zip(cells[:half], [*cells[half:], " | "], strict=False)]
    head = ["| figure | value | figure | value |", "|---|---:|---|---:|"]
    return "\n".join([f"**{label}** on **{data}**, {span[0]} to {span[1]}", "", *head, *lines])
