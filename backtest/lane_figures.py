"""Tallies to figures: those of metrics.py and trades.py that can be streamed, for all lanes at once.

Each formula is that of the function of the same name there; sums of powers stand in for the arrays of returns.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.metrics import DAY_NS, NAN

CANCELLED = 1e-4  # of the sum of squares: what is left of it as variance is exact to 1e-9 only above this share


def figures(t: Any, start: Any, rows: int, per_year: float, last: int,
            resampled: bool) -> tuple[dict[str, Any], NDArray[np.bool_]]:  # fmt: skip
    """Columns by name, and which lanes have to be run alone to be sure.

    `t`: structured array of Tally; `start`: equity at the begin; `rows`, `last`: how many points the curve of a whole
    run has, and when the last one is.
    """
    n, final = t["returns"].astype("f8"), t["final"]
    with np.errstate(all="ignore"):
        years = np.where(n > 1, n / per_year, NAN)
        total = final["equity"] / start - 1.0
        annual = np.where(years > 0, np.maximum(0.0, 1.0 + total) ** (1.0 / years) - 1.0, NAN)
        annual[~np.isfinite(annual)] = NAN
        mean = t["first"] / n
        sure = (n >= 2) & np.isfinite(t["first"])
        away = np.maximum(t["second"] - t["first"] * mean, 0.0)
        spread = np.where(sure, np.sqrt(away / (n - 1)), NAN)
        down = np.sqrt(t["down"] / n)
        equity, gross = t["equity"] / t["rows"], t["gross"] / t["rows"]
        turned = np.where(equity > 0, _ratio(t["traded"], equity), NAN)
        m2, closed = away / n, t["trades"].astype("f8")
        m3 = t["third"] / n - 3.0 * mean * t["second"] / n + 2.0 * mean**3
        m4 = t["fourth"] / n - 4.0 * mean * t["third"] / n + 6.0 * mean**2 * t["second"] / n - 3.0 * mean**4
        skew = np.where(sure & (n >= 3) & (m2 > 0), (n * (n - 1)) ** 0.5 / (n - 2) * m3 / m2**1.5, NAN)
        tails = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (m4 / m2**2 - 3.0) + 6.0)
        found = {
            "start_equity": start.copy(), "end_equity": final["equity"].copy(), "total_return": total,
            "annual_return": annual, "volatility": spread * per_year**0.5,
            "sharpe": np.where(sure, _ratio(mean * per_year**0.5, spread), NAN),
            "sortino": np.where(sure, _ratio(mean * per_year**0.5, down), NAN),
            "calmar": _ratio(annual, np.abs(t["worst"])), "max_drawdown": t["worst"].copy(),
            "max_drawdown_days": t["longest"] / DAY_NS,
            "average_drawdown": np.where(t["falls"] > 0, t["fallen"] / t["falls"], 0.0),
            "exposure": t["exposed"] / t["rows"], "average_leverage": np.where(equity > 0, _ratio(gross, equity), NAN),
            "turnover": turned, "turnover_annual": _ratio(turned, years), "skew": skew,
            "kurtosis": np.where(sure & (n >= 4) & (m2 > 0), tails, NAN), "periods": n, "trades": closed,
            "win_rate": _ratio(t["won"].astype("f8"), closed), "profit_factor": _ratio(t["gained"], t["lost"]),
            "expectancy": _ratio(t["gained"] - t["lost"], closed), "fees": t["fees"].copy(),
            "fills": t["fills"].astype("f8"), "orders": t["orders"].astype("f8"),
            "refusals": t["refused"].astype("f8"),
        }  # fmt: skip
    doubtful = sure & (t["second"] > 0) & (away < CANCELLED * t["second"])
    # A report after the last event is one point more; then nothing else may have moved.
    later = resampled & (t["rows"] == rows + 1) & ((final["ts"] - 1) // DAY_NS == (last - 1) // DAY_NS)
    return found, doubtful | ~((t["rows"] == rows) & (final["ts"] == last) | later)


def _ratio(top: Any, bottom: Any) -> Any:
    """top / bottom; nan where there is none."""
    return np.where((bottom != 0) & np.isfinite(bottom), top / bottom, NAN)
