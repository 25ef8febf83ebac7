"""What MLflow's UI opens with: the columns and charts that compare two runs, instead of none and of forty-six.

The UI reads such a view from a tag of the experiment (it is how its own "share view" works) and shows its
default when it does not understand one, so a later MLflow can only lose the comfort.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

KEY = "tandem"
TAG = f"mlflow.sharedViewState.{KEY}"
# Without the workflow the UI opens a page for language models.
QUERY = f"?viewStateShareKey={KEY}&workflowType=machine_learning&compareRunsMode=CHART"
COLUMNS = ("total_return", "annual_return", "sharpe", "max_drawdown", "trades", "win_rate", "profit_factor", "exposure")
BARS = ("total_return", "sharpe", "max_drawdown", "profit_factor", "trades", "turnover")
# Of a run on quotes and trades, which is known by the first.
TICKS = ("net_pnl", "spread_pnl", "inventory_pnl", "markout_5s", "adverse_selection", "fill_ratio", "max_inventory")
SWEEP = ("best_objective", "oos_sharpe", "deflated_sharpe", "pbo", "lanes")  # of a sweep, which is known by the first
NOT_TUNED = {"name", "strategy", "cash", "seconds", "objective", "sampler", "seed"}
LONGEST = 5_000  # of a tag


def tuned(params: Mapping[str, Any]) -> list[str]:
    """The strategy's own parameters: flat names without a dot.

    >>> tuned({"strategy": "momentum", "fast": 10, "risk.leverage": 1})
    ['fast']
    """
    return [key for key in params if "." not in key and key not in NOT_TUNED]


def _chart(kind: str, key: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "uuid": f"{KEY}-{key}", "runsCountToCompare": 10, "metricSectionId": f"{KEY}-main",
            "deleted": False, "isGenerated": False, "metricKey": key, "displayName": key} | more  # fmt: skip


def _curve(key: str) -> dict[str, Any]:
    return _chart(
        "LINE", key, metricSectionId=f"{KEY}-curves", selectedMetricKeys=[key], lineSmoothness=0, range={},
        xAxisScaleType="linear", scaleType="linear",
        xAxisKey="time", selectedXAxisMetricKey="", yAxisKey="metric", yAxisExpressions=[], ignoreOutliers=False,
        useGlobalXaxisKey=False, useGlobalLineSmoothing=True,
    )  # fmt: skip


def view(params: Iterable[str], before: str = "", metrics: Iterable[str] = ()) -> str:
    """The view as the tag's text; `params` get columns, and so do those that the view had `before`.

    Where `metrics` are, or were, those of a run on quotes and trades, these have columns and charts too; those of a
    sweep have columns.
    """
    old = json.loads(before)["selectedColumns"] if before else []
    own = list(dict.fromkeys([*(c for c in old if c.startswith("params.")), *(f"params.`{p}`" for p in params)]))
    ticks = TICKS if TICKS[0] in metrics or f"metrics.`{TICKS[0]}`" in old else ()
    swept = SWEEP if SWEEP[0] in metrics or f"metrics.`{SWEEP[0]}`" in old else ()
    charts = [_curve("equity"), _curve("drawdown"), *(_chart("BAR", key) for key in BARS)]
    charts += [_chart("BAR", key, metricSectionId=f"{KEY}-ticks") for key in ticks]
    section = {"display": True, "isReordered": False, "deleted": False, "isGenerated": False}
    sections = [{**section, "uuid": f"{KEY}-curves", "name": "Curves", "columns": 2},
                {**section, "uuid": f"{KEY}-main", "name": "Main figures"},
                *([{**section, "uuid": f"{KEY}-ticks", "name": "Quotes and trades"}] if ticks else []),
                {**section, "uuid": f"{KEY}-rest", "name": "Model metrics", "display": False}]  # fmt: skip
    while True:
        text = json.dumps({
            "selectedColumns": [*own, *(f"metrics.`{key}`" for key in dict.fromkeys((*COLUMNS, *swept, *ticks)))],
            "compareRunCharts": charts, "compareRunSections": sections, "isAccordionReordered": False,
        }, separators=(",", ":"))  # fmt: skip
        if len(text) <= LONGEST or not own:
            return text
        own.pop()
