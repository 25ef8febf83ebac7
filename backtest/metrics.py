"""Performance figures of a run: numpy only, one function for each figure, each with its formula and source.

Law 1: the same arrays give the same figures, bit for bit; nothing here draws on a clock or on chance.
Law 2: what is not defined (no trade, no variance, one row, equity below zero) is NaN; nothing raises or warns.
Law 3: rates are fractions (0.12 means 12 %), money is in account currency, spans are in days.

`returns` is always the array of periodic simple returns that `periodic` makes of an equity curve.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAY_NS = 86_400_000_000_000
NAN = float("nan")
TIE = 1e-12  # returns nearer to each other are equal ones: they come from an equity, with its rounding
INTRADAY_NS = 20 * 3_600_000_000_000  # a curve with shorter steps than this is resampled to days
# The longest usual step in days, and how many such periods make a year.
PERIODS = ((4.5, 0.0), (10.0, 52.0), (45.0, 12.0), (135.0, 4.0), (float("inf"), 1.0))


class Periods(NamedTuple):
    """`ends`: rows of the curve that end a period; `returns`: one for each; `per_year`: how many make a year."""

    ends: Ints
    returns: Floats
    per_year: float


class Drawdowns(NamedTuple):
    """Figures of the falls of an equity curve below its running peak; fractions are negative or zero."""

    worst: float
    average: float
    longest_days: float


def _finite(values: Floats, least: int) -> bool:
    return len(values) >= least and bool(np.isfinite(values).all())


def ratio(top: float, bottom: float) -> float:
    """top / bottom; nan where there is none."""
    return top / bottom if bottom != 0 and np.isfinite(bottom) else NAN


def _spread(values: Floats) -> float:
    """Sample standard deviation, and exactly zero where only rounding error is left."""
    spread = float(np.std(values, ddof=1))
    return spread if spread > 1e-12 * float(np.abs(values).max()) else 0.0


def period_ends(ts: Ints) -> tuple[Ints, float, bool]:
    """Rows that end a period, periods per year, and whether the curve was resampled to UTC days.

    A bar that closes at midnight belongs to the day that ends there. A year has 365 periods when Saturdays
    occur and 252 when they do not; then a Sunday evening belongs to Monday, as in currency markets.

    >>> period_ends(np.arange(1, 49) * 3_600_000_000_000)[0]
    array([23, 47])
    """
    if len(ts) < 2:
        return np.arange(len(ts)), 252.0, False
    probe = np.unique(np.linspace(0, len(ts) - 2, 20_001).astype(np.int64))
    step = float(np.median(ts[probe + 1] - ts[probe]))
    intraday = step < INTRADAY_NS
    per_year = next(year for most, year in PERIODS if step / DAY_NS <= most)
    if not intraday and per_year:
        return np.arange(len(ts)), per_year, False
    day = (ts - 1) // DAY_NS
    ends = np.append(np.flatnonzero(day[1:] != day[:-1]), len(ts) - 1) if intraday else np.arange(len(ts))
    weekday = (day[ends] + 3) % 7  # Monday is 0: 1 January 1970 was a Thursday
    if np.count_nonzero(weekday == 5) > 0.02 * len(ends):
        return ends, 365.0, intraday
    if intraday and (weekday == 6).any():
        day = day[ends] + (weekday == 6)
        ends = ends[np.append(day[1:] != day[:-1], True)]
    return ends, 252.0, intraday


def periodic(ts: Ints, equity: Floats, start_equity: float) -> Periods:
    """Simple returns r = E(i) / E(i-1) - 1 for each period of an equity curve (`ts` ns UTC, sorted).

    Curves with steps under 20 hours are resampled to the last equity of each UTC day, and the first day
    counts from `start_equity`; others are used as they are, and their first row begins the first period.

    >>> day = 86_400_000_000_000
    >>> periodic(np.arange(1, 4) * day, np.array([100.0, 110.0, 99.0]), 100.0).returns.round(4)
    array([ 0.1, -0.1])
    """
    ends, per_year, resampled = period_ends(ts)
    marks = equity[ends]
    if resampled:
        marks = np.concatenate(([start_equity], marks))
    else:
        ends = ends[1:]
    with np.errstate(all="ignore"):
        returns = np.where(marks[:-1] > 0, marks[1:] / marks[:-1] - 1.0, NAN)
    return Periods(ends, returns, per_year)


def total_return(first: float, last: float) -> float:
    """last / first - 1.

    >>> round(total_return(100.0, 125.0), 4)
    0.25
    """
    return last / first - 1.0 if first > 0 else NAN


def annual_return(total: float, years: float) -> float:
    """Compound annual growth rate: (1 + total) ** (1 / years) - 1; a total loss is -1.

    `years` = number of returns / periods per year, so that it fits the other annual figures.

    >>> round(annual_return(0.21, 2.0), 4)
    0.1
    """
    if not years > 0 or not np.isfinite(total):
        return NAN
    with np.errstate(all="ignore"):
        growth = float(np.float64(max(0.0, 1.0 + total)) ** (1.0 / years) - 1.0)
    return growth if np.isfinite(growth) else NAN


def volatility(returns: Floats, per_year: float) -> float:
    """Annual standard deviation: std(r, ddof=1) * sqrt(per_year).

    >>> round(volatility(np.array([0.01, -0.01, 0.02, 0.0]), 252), 4)
    0.2049
    """
    return _spread(returns) * per_year**0.5 if _finite(returns, 2) else NAN


def sharpe(returns: Floats, per_year: float) -> float:
    """Sharpe ratio with a risk-free rate of zero: mean(r) / std(r, ddof=1) * sqrt(per_year).

    Source: W. F. Sharpe, The Sharpe Ratio, Journal of Portfolio Management 21 (1994).

    >>> round(sharpe(np.array([0.01, -0.01, 0.02, 0.0]), 252), 4)
    6.1482
    """
    return ratio(float(returns.mean()) * per_year**0.5, _spread(returns)) if _finite(returns, 2) else NAN


def sortino(returns: Floats, per_year: float) -> float:
    """mean(r) / sqrt(mean(min(r, 0) ** 2)) * sqrt(per_year), target zero, over all periods.

    Source: F. A. Sortino and L. N. Price, Performance Measurement in a Downside Risk Framework,
    Journal of Investing 3 (1994).

    >>> round(sortino(np.array([0.01, -0.01, 0.02, 0.0]), 252), 4)
    15.8745
    """
    if not _finite(returns, 2):
        return NAN
    downside = float(np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2)))
    return ratio(float(returns.mean()) * per_year**0.5, downside)


def calmar(annual: float, worst: float) -> float:
    """Annual return / |maximum drawdown|. Source: T. W. Young, Calmar Ratio, Futures 20 (1991).

    >>> calmar(0.12, -0.24)
    0.5
    """
    return ratio(annual, abs(worst))


def underwater(equity: Floats, start_equity: float) -> Floats:
    """Drawdown of each row: equity / running peak - 1, where the peak begins at `start_equity`.

    >>> underwater(np.array([100.0, 120.0, 90.0, 130.0]), 100.0)
    array([ 0.  ,  0.  , -0.25,  0.  ])
    """
    peak = np.maximum.accumulate(equity)
    np.maximum(peak, start_equity, out=peak)
    with np.errstate(all="ignore"):
        return equity / peak - 1.0


def drawdowns(ts: Ints, depth: Floats) -> Drawdowns:
    """Worst, average and longest fall, from `underwater`. The average is over falls, each at its deepest.

    A fall lasts from the peak before it to the row that reaches the peak again, or to the last row.

    >>> days = np.arange(5) * 86_400_000_000_000
    >>> drawdowns(days, np.array([0.0, -0.1, 0.0, -0.2, -0.3]))
    Drawdowns(worst=-0.3, average=-0.2, longest_days=2.0)
    """
    if len(depth) == 0:
        return Drawdowns(NAN, NAN, NAN)
    edge = np.diff((depth < 0).astype(np.int8), prepend=np.int8(0), append=np.int8(0))
    first, after = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
    if len(first) == 0:
        return Drawdowns(0.0, 0.0, 0.0)
    deepest = np.minimum.reduceat(depth, first)  # rows between two falls are zero, so they cannot be deeper
    spans = ts[np.minimum(after, len(ts) - 1)] - ts[np.maximum(first - 1, 0)]
    return Drawdowns(float(deepest.min()), float(deepest.mean()), float(spans.max()) / DAY_NS)


def exposure(gross: Floats) -> float:
    """Share of the rows of the curve that hold a position.

    >>> exposure(np.array([0.0, 5.0, 5.0, 0.0]))
    0.5
    """
    return float(np.count_nonzero(gross)) / len(gross) if len(gross) else NAN


def turnover(traded: float, average_equity: float) -> float:
    """Traded value, buys and sells, over average equity: how often the account was turned over in the run.

    >>> turnover(500.0, 100.0)
    5.0
    """
    return ratio(traded, average_equity) if average_equity > 0 else NAN


def value_at_risk(returns: Floats, tail: float = 0.05) -> float:
    """Historical value at risk: the `tail` quantile of returns (linear interpolation), negative for a loss.

    >>> round(value_at_risk(np.arange(-10, 11) / 100), 4)
    -0.09
    """
    return float(np.quantile(returns, tail)) if _finite(returns, 2) else NAN


def expected_shortfall(returns: Floats, tail: float = 0.05) -> float:
    """Mean of the returns at or below the value at risk.

    Source: C. Acerbi and D. Tasche, On the Coherence of Expected Shortfall, 2002.

    >>> round(expected_shortfall(np.arange(-10, 11) / 100), 4)
    -0.095
    """
    return float(returns[returns <= value_at_risk(returns, tail) + TIE].mean()) if _finite(returns, 2) else NAN


def tail_ratio(returns: Floats) -> float:
    """|95 % quantile / 5 % quantile|: above one, large gains outweigh large losses.

    >>> round(tail_ratio(np.array([-0.02, -0.01, 0.0, 0.01, 0.04])), 4)
    1.8889
    """
    return abs(ratio(value_at_risk(returns, 0.95), value_at_risk(returns, 0.05)))


def skew(returns: Floats) -> float:
    """Adjusted Fisher–Pearson skewness G1 = sqrt(n (n-1)) / (n-2) * m3 / m2 ** 1.5.

    Source: D. N. Joanes and C. A. Gill, Comparing measures of sample skewness and kurtosis, 1998.

    >>> round(skew(np.array([0.0, 0.0, 0.0, 1.0])), 4)
    2.0
    """
    n = len(returns)
    if not _finite(returns, 3) or _spread(returns) == 0:
        return NAN
    d = returns - returns.mean()
    return float((n * (n - 1)) ** 0.5 / (n - 2) * np.mean(d**3) / np.mean(d**2) ** 1.5)


def kurtosis(returns: Floats) -> float:
    """Excess kurtosis G2 = (n-1) / ((n-2) (n-3)) * ((n+1) (m4 / m2 ** 2 - 3) + 6); normal is zero. Source as `skew`.

    >>> round(kurtosis(np.array([0.0, 0.0, 0.0, 1.0])), 4)
    4.0
    """
    n = len(returns)
    if not _finite(returns, 4) or _spread(returns) == 0:
        return NAN
    d = returns - returns.mean()
    excess = float(np.mean(d**4) / np.mean(d**2) ** 2) - 3.0
    return (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * excess + 6.0)


def beta(returns: Floats, benchmark: Floats) -> float:
    """cov(r, b) / var(b) of periodic returns. Source: W. F. Sharpe, Capital Asset Prices, 1964.

    >>> b = np.array([0.01, -0.02, 0.03]); round(beta(2 * b, b), 4)
    2.0
    """
    if not (_finite(returns, 2) and _finite(benchmark, 2)) or _spread(benchmark) == 0:
        return NAN
    away = benchmark - benchmark.mean()
    return float(np.dot(returns - returns.mean(), away) / np.dot(away, away))


def alpha(returns: Floats, benchmark: Floats, per_year: float) -> float:
    """Jensen's alpha for a year, risk-free rate zero: (mean(r) - beta * mean(b)) * per_year.

    Source: M. C. Jensen, The Performance of Mutual Funds in the Period 1945–1964, Journal of Finance 23 (1968).

    >>> b = np.array([0.01, -0.02, 0.03]); round(alpha(2 * b + 0.001, b, 252), 4)
    0.252
    """
    slope = beta(returns, benchmark)
    return float(returns.mean() - slope * benchmark.mean()) * per_year if np.isfinite(slope) else NAN


def curve_metrics(ts: Ints, equity: Floats, gross: Floats, start_equity: float, traded: float,
                  benchmark: Floats | None = None) -> dict[str, float]:  # fmt: skip
    """All figures that follow from the curve.

    `ts`, `equity`, `gross`: one row for each point; `traded`: value of all fills; `benchmark`: worth of one unit
    of money held in the instruments, at the start and at the end of each period (one more than the returns).
    """
    _, returns, per_year = periodic(ts, equity, start_equity)
    years = len(returns) / per_year if len(returns) > 1 else NAN  # of hours or a day nothing annual can be said
    last = float(equity[-1]) if len(equity) else NAN
    falls = drawdowns(ts, underwater(equity, start_equity)) if len(equity) else Drawdowns(NAN, NAN, NAN)
    total = total_return(start_equity, last)
    annual = annual_return(total, years)
    mean_equity = float(equity.mean()) if len(equity) else NAN
    mean_gross = float(gross.mean()) if len(gross) else NAN
    turned = turnover(traded, mean_equity)
    figures: dict[str, float] = {
        "start_equity": start_equity, "end_equity": last, "total_return": total, "annual_return": annual,
        "volatility": volatility(returns, per_year), "sharpe": sharpe(returns, per_year),
        "sortino": sortino(returns, per_year), "calmar": calmar(annual, falls.worst),
        "max_drawdown": falls.worst, "max_drawdown_days": falls.longest_days, "average_drawdown": falls.average,
        "exposure": exposure(gross), "average_leverage": turnover(mean_gross, mean_equity),
        "turnover": turned, "turnover_annual": ratio(turned, years),
        "skew": skew(returns), "kurtosis": kurtosis(returns), "tail_ratio": tail_ratio(returns),
        "value_at_risk": value_at_risk(returns), "expected_shortfall": expected_shortfall(returns),
        "best_period": float(returns.max()) if _finite(returns, 1) else NAN,
        "worst_period": float(returns.min()) if _finite(returns, 1) else NAN,
    }  # fmt: skip
    worth = benchmark if benchmark is not None and len(benchmark) == len(returns) + 1 else np.full(1, NAN)
    held = worth[1:] / worth[:-1] - 1.0
    figures["benchmark_return"] = total_return(float(worth[0]), float(worth[-1]))
    figures["alpha"], figures["beta"] = alpha(returns, held, per_year), beta(returns, held)
    figures["periods_per_year"], figures["periods"] = per_year, float(len(returns))
    figures["days"] = float(ts[-1] - ts[0]) / DAY_NS if len(ts) else NAN
    return figures
