"""The report of a run: one HTML file that needs no network, an image, and a figure for notebooks.

Law 1: every text that comes from a name, a setting or a file is escaped.
Law 2: what is drawn is thinned first, lows and highs kept, so that a million bars make a small file.
"""

import json
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from backtest.report import charts, tables

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from backtest.result import Result


def page(result: "Result") -> str:
    """The whole HTML text of the report."""
    from plotly.offline import get_plotlyjs

    # A JSON text inside a script element must not be able to close it.
    data = json.dumps(charts.all_charts(result), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    template = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    return template.substitute(tables.sections(result), data=data, plotly=get_plotlyjs())


def notebook_figure(result: "Result") -> "go.Figure":
    """Equity, drawdown and the first instrument's price with trades in one plotly figure."""
    import plotly.graph_objects as go

    drawn = charts.all_charts(result)
    account, prices = drawn["account"], drawn["prices"]
    layout: dict[str, Any] = {**account["layout"], "height": 720}
    layout["yaxis"]["domain"], layout["yaxis2"]["domain"] = [0.55, 1.0], [0.40, 0.52]
    layout["xaxis"]["anchor"] = "y3"
    traces = list(account["data"])
    traces += [{**t, "yaxis": "y3"} for t in (prices[0]["data"] if prices else []) if "yaxis" not in t]
    layout["yaxis3"] = charts.axis(prices[0]["name"] if prices else "", domain=[0.0, 0.37])
    return go.Figure(data=traces, layout=layout)
