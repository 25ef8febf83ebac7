"""The stationary bootstrap beside `arch`, its figures beside those of the report, its intervals beside known truth."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backtest import metrics
from backtest.honesty.bootstrap import HEADLINE, block_length, figures, intervals, resampled

DAY = metrics.DAY_NS


def related(n: int, rho: float, seed: int) -> np.ndarray:
    """An AR(1) series."""
    noise, out = np.random.default_rng(seed).normal(0, 0.01, n), np.zeros(n)
    for k in range(1, n):
        out[k] = rho * out[k - 1] + noise[k]
    return out


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6, 0.9, -0.5])
@pytest.mark.parametrize("n", [200, 1500])
def test_block_length_as_arch(rho: float, n: int) -> None:
    arch = pytest.importorskip("arch.bootstrap", reason="arch is the independent implementation: pip install arch")
    for seed in range(4):
        series = related(n, rho, seed)
        theirs = float(arch.optimal_block_length(series)["stationary"].iloc[0])
        assert block_length(series) == pytest.approx(max(theirs, 1.0), rel=0.02)


def test_block_length_grows_with_what_neighbours_share() -> None:
    lengths = [np.mean([block_length(related(2000, rho, s)) for s in range(5)]) for rho in (0.0, 0.4, 0.8, 0.95)]
    assert lengths == sorted(lengths)
    assert lengths[0] < 6 < 20 < lengths[-1]


@given(st.integers(2, 60), st.floats(1, 30), st.integers(0, 2**31))
def test_rows_follow_each_other_and_wrap(n: int, block: float, seed: int) -> None:
    (rows,) = resampled(n, 50, block, seed)
    assert rows.shape == (50, n) and rows.min() >= 0 and rows.max() < n
    assert (rows == next(resampled(n, 50, block, seed))).all()
    if block == 1:
        return
    (whole,) = resampled(n, 3, 1e12, seed)
    assert ((whole[:, 1:] - whole[:, :-1]) % n == 1).all()


def test_blocks_are_geometric_and_every_period_is_as_likely() -> None:
    rows = np.vstack(list(resampled(400, 1000, 8.0, 3)))
    goes_on = (rows[:, 1:] - rows[:, :-1]) % 400 == 1
    assert goes_on.mean() == pytest.approx(1 - 1 / 8 + 1 / 8 / 400, abs=2e-3)
    assert np.bincount(rows.ravel(), minlength=400) == pytest.approx(np.full(400, 1000), rel=0.35)
    assert len(np.unique(rows[:, 0])) > 350


@given(st.lists(st.integers(-2000, 2000).map(lambda k: k / 1e4), min_size=4, max_size=60))
@example([*[0.0] * 18, -0.0001, -0.0001, -0.0002])
def test_figures_are_those_of_the_report(values: list[float]) -> None:
    returns = np.array(values)
    ts = np.arange(len(values) + 1) * DAY
    equity = 100.0 * np.cumprod(np.append(1.0, 1.0 + returns))
    theirs = metrics.curve_metrics(ts, equity, np.zeros(len(ts)), 100.0, 0.0)
    ours = figures(returns[None, :], theirs["periods_per_year"])
    for name in HEADLINE:
        # Of rounding error alone, the report makes nothing and the bootstrap something huge.
        if np.isfinite(theirs[name]) and (returns.std() > 1e-9 or name in ("total_return", "max_drawdown")):
            assert ours[name][0] == pytest.approx(theirs[name], rel=1e-6, abs=1e-9), name


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    truth, held = 0.05 * 252**0.5, 0
    for seed in range(100):
        returns = np.random.default_rng(seed).normal(0.0005, 0.01, 400)
        found = intervals(returns, 252.0, seed=seed, confidence=0.9, count=150, block=1)["sharpe"]
        held += found.low <= truth <= found.high
    assert 0.82 <= held / 100 <= 0.97


def test_intervals_are_wider_where_neighbours_agree() -> None:
    series = related(1000, 0.7, 1)
    alone, together = (intervals(series, 252.0, seed=1, block=b)["total_return"] for b in (1.0, None))
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


@given(st.integers(0, 1000), st.floats(0.1, 3))
def test_intervals_scale_and_come_from_the_seed(seed: int, scale: float) -> None:
    returns = np.random.default_rng(seed).normal(0.001, 0.01, 60)
    once = intervals(returns, 252.0, seed=seed, count=40)
    assert once == intervals(returns, 252.0, seed=seed, count=40)
    assert all(math.isnan(i.low) or i.low <= i.high for i in once.values())
    scaled = intervals(returns * scale, 252.0, seed=seed, count=40)
    assert scaled["sharpe"] == pytest.approx(once["sharpe"], rel=1e-9)
    assert scaled["volatility"] == pytest.approx(np.array(once["volatility"]) * scale, rel=1e-9)


@pytest.mark.parametrize("values", [[], [0.1, 0.2], [0.1, math.nan, 0.1, 0.1, 0.2]])
def test_too_little_is_nan(values: list[float]) -> None:
    assert all(math.isnan(x) for i in intervals(np.array(values), 252.0, seed=0).values() for x in i)
