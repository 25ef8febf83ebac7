"""The figures against independent computations: quantstats, pandas, scipy, and definitions written out."""

import math
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from backtest import metrics as m

DAY = m.DAY_NS
RETURNS = np.random.default_rng(11).normal(0.0006, 0.011, 700)
BENCHMARK = 0.6 * RETURNS + np.random.default_rng(12).normal(0.0003, 0.008, 700)


def weekdays(n: int) -> Any:
    """Closes of n weekdays, 21:00 UTC."""
    return pd.bdate_range("2019-01-01", periods=n, tz="UTC").as_unit("ns").asi8 + 21 * 3_600_000_000_000


def quantstats(name: str, *values: Any, **more: Any) -> Any:
    index = pd.to_datetime(weekdays(len(values[0])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantstats.stats

        return getattr(quantstats.stats, name)(*(pd.Series(v, index.tz_localize(None)) for v in values), **more)


@pytest.mark.parametrize(("ours", "theirs"), [
    (m.volatility(RETURNS, 252), ("volatility", {})),
    (m.sharpe(RETURNS, 252), ("sharpe", {})),
    (m.sortino(RETURNS, 252), ("sortino", {})),
    (m.skew(RETURNS), ("skew", {})),
    (m.kurtosis(RETURNS), ("kurtosis", {})),
    (m.tail_ratio(RETURNS), ("tail_ratio", {})),
    (m.annual_return(float(np.prod(1 + RETURNS) - 1), 700 / 252), ("cagr", {"periods": 252})),
])  # fmt: skip
def test_quantstats_agrees(ours: float, theirs: tuple[str, dict[str, Any]]) -> None:
    assert ours == pytest.approx(float(quantstats(theirs[0], RETURNS, **theirs[1])), rel=1e-9)


def test_quantstats_agrees_on_the_benchmark() -> None:
    greeks = quantstats("greeks", RETURNS, BENCHMARK, prepare_returns=False)
    assert m.beta(RETURNS, BENCHMARK) == pytest.approx(greeks["beta"], rel=1e-9)
    assert m.alpha(RETURNS, BENCHMARK, 252) == pytest.approx(greeks["alpha"], rel=1e-9)


def test_quantstats_agrees_on_drawdowns() -> None:
    equity = 1e5 * np.cumprod(np.concatenate(([1.0], 1 + RETURNS)))
    falls = m.drawdowns(weekdays(701), m.underwater(equity, 1e5))
    assert falls.worst == pytest.approx(float(quantstats("max_drawdown", equity)), rel=1e-9)
    total = m.total_return(1e5, float(equity[-1]))
    ours = m.calmar(m.annual_return(total, 700 / 252), falls.worst)
    assert ours == pytest.approx(float(quantstats("calmar", RETURNS)), rel=1e-9)


def test_scipy_and_pandas_agree() -> None:
    series = pd.Series(RETURNS)
    assert m.skew(RETURNS) == pytest.approx(scipy.stats.skew(RETURNS, bias=False), rel=1e-9)
    assert m.kurtosis(RETURNS) == pytest.approx(scipy.stats.kurtosis(RETURNS, bias=False), rel=1e-9)
    assert m.value_at_risk(RETURNS) == pytest.approx(series.quantile(0.05), rel=1e-12)
    assert m.expected_shortfall(RETURNS) == pytest.approx(series[series <= series.quantile(0.05)].mean(), rel=1e-12)
    slope = scipy.stats.linregress(BENCHMARK, RETURNS)
    assert m.beta(RETURNS, BENCHMARK) == pytest.approx(slope.slope, rel=1e-9)
    assert m.alpha(RETURNS, BENCHMARK, 1.0) == pytest.approx(slope.intercept, rel=1e-9)


@given(st.lists(st.floats(-0.2, 0.2), min_size=1, max_size=60))
def test_drawdowns_equal_a_plain_loop(steps: list[float]) -> None:
    equity = 100.0 * np.cumprod(1.0 + np.array(steps))
    ts = np.arange(len(equity)) * DAY
    peak, since, depth, depths, longest = 100.0, 0, 0.0, [], 0
    for i, value in enumerate(equity):
        if value >= peak:
            longest = max(longest, i - since) if depth < 0 else longest
            depths += [depth] if depth < 0 else []
            peak, since, depth = value, i, 0.0
        else:
            depth = min(depth, value / peak - 1.0)
            longest = max(longest, i - since)
    depths += [depth] if depth < 0 else []
    falls = m.drawdowns(ts, m.underwater(equity, 100.0))
    assert falls.worst == pytest.approx(min(depths, default=0.0))
    assert falls.average == pytest.approx(np.mean(depths) if depths else 0.0)
    assert falls.longest_days == longest


def test_intraday_curves_become_days_like_pandas() -> None:
    ts = pd.date_range("2024-01-01 00:15", "2024-01-20 00:00", freq="15min", tz="UTC").as_unit("ns")
    equity = 1e4 * np.cumprod(1 + np.random.default_rng(5).normal(0, 0.001, len(ts)))
    # A bar that closes at midnight belongs to the day that ends there.
    daily = pd.Series(equity, ts - pd.Timedelta(1, "ns")).resample("1D").last()
    expected = pd.concat([pd.Series([1e4]), daily]).pct_change().dropna()
    periods = m.periodic(ts.asi8, equity, 1e4)
    assert periods.returns == pytest.approx(expected.to_numpy(), rel=1e-12)
    assert periods.per_year == 365


CALENDARS = [
    ("weekdays", weekdays(300), 252, 299),
    ("every day", np.arange(1, 301) * DAY, 365, 299),
    ("weeks", np.arange(1, 101) * 7 * DAY, 52, 99),
    ("months", pd.date_range("2010-01-31", periods=60, freq="ME").as_unit("ns").asi8, 12, 59),
    ("stock exchange minutes", (weekdays(20)[:, None] - np.arange(390)[::-1] * 60_000_000_000).ravel(), 252, 20),
    # 2024-01-07 is a Sunday; currencies open in its evening.
    ("currencies", np.concatenate([np.arange(pd.Timestamp("2024-01-07 22:00").value + w * 7 * DAY,
                                             pd.Timestamp("2024-01-12 22:00").value + w * 7 * DAY, 3_600_000_000_000)
                                   for w in range(4)]), 252, 20),
]  # fmt: skip


@pytest.mark.parametrize(("name", "ts", "per_year", "count"), CALENDARS, ids=[c[0] for c in CALENDARS])
def test_periods_per_year(name: str, ts: Any, per_year: float, count: int) -> None:
    periods = m.periodic(ts, np.linspace(100, 110, len(ts)), 100.0)
    assert (periods.per_year, len(periods.returns)) == (per_year, count)


DEGENERATE = {
    "empty": ([], 100.0), "one row": ([100.0], 100.0), "constant": ([100.0] * 9, 100.0),
    "steady growth": (list(100 * 1.001 ** np.arange(9)), 100.0), "ruin": ([100.0, 50.0, 0.0, 0.0], 100.0),
    "debt": ([100.0, 10.0, -40.0, -10.0, 20.0], 100.0), "no capital": ([0.0, 1.0, 2.0], 0.0),
    "nan": ([100.0, math.nan, 100.0], 100.0),
}  # fmt: skip


@pytest.mark.parametrize("name", DEGENERATE)
def test_what_is_not_defined_is_nan(name: str) -> None:
    equity, start = DEGENERATE[name]
    ts = np.arange(1, len(equity) + 1, dtype=np.int64) * DAY
    found = m.curve_metrics(ts, np.array(equity, float), np.zeros(len(equity)), start, 0.0, None)
    assert all(isinstance(v, float) for v in found.values())
    assert not any(math.isinf(v) for v in found.values())
    assert math.isnan(found["sharpe"])
    if name == "debt":
        assert found["total_return"] == pytest.approx(-0.8)
        assert found["max_drawdown"] == pytest.approx(-1.4)
    if name == "ruin":
        assert found["annual_return"] == -1.0


def test_nothing_annual_is_said_of_a_single_period() -> None:
    hour = 3_600_000_000_000
    ts, equity = np.arange(1, 10) * hour, np.linspace(100.0, 101.0, 9)
    found = m.curve_metrics(ts, equity, equity, 100.0, 50.0)
    assert found["total_return"] == pytest.approx(0.01) and found["turnover"] > 0 and found["periods"] == 1
    assert all(math.isnan(found[name]) for name in ("annual_return", "calmar", "turnover_annual", "volatility"))


def test_figures_need_neither_polars_nor_pandas() -> None:
    code = ("import sys, backtest.result;"
            "heavy = {'polars', 'pandas', 'plotly', 'matplotlib', 'mlflow', 'numba', 'scipy'};"
            "print(sorted(heavy & set(sys.modules)))")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_million_rows_are_one_pass_each() -> None:
    n = 1_000_000
    ts = np.arange(1, n + 1) * 60_000_000_000
    equity = 1e5 + np.cumsum(np.random.default_rng(1).normal(0, 1, n))
    found = m.curve_metrics(ts, equity, np.ones(n), 1e5, 1e6)
    assert found["periods"] == math.ceil(n / 1440)
    assert found["max_drawdown"] == pytest.approx((equity / np.maximum(np.maximum.accumulate(equity), 1e5) - 1).min())
