"""Sharpe inference beside the numbers that its authors published, and as laws."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from backtest.honesty.sharpe import (
    Moments,
    deflated,
    effective_lanes,
    expected_max,
    min_backtest_years,
    min_track_record,
    moments,
    probabilistic,
)


def normal(annual: float, per_year: float, periods: int = 0) -> Moments:
    return Moments(periods, annual / per_year**0.5, 0.0, 3.0)


# The Sharpe Ratio Efficient Frontier, section 5: two years of a hedge fund, as if normal and as it is.
@pytest.mark.parametrize(("skew", "kurtosis", "published"), [(0.0, 3.0, 0.982), (-2.448, 10.164, 0.913)])
def test_probabilistic_as_published(skew: float, kurtosis: float, published: float) -> None:
    assert probabilistic(Moments(24, 0.458, skew, kurtosis)) == pytest.approx(published, abs=5e-4)


# Same paper, section 6: years for an annual Sharpe ratio of 2 to be above 1, with 95 %.
@pytest.mark.parametrize(
    ("per_year", "skew", "kurtosis", "years"),
    [(252, 0, 3, 2.73), (52, 0, 3, 2.83), (12, 0, 3, 3.24), (12, -0.72, 5.78, 4.99)],
)
def test_min_track_record_as_published(per_year: float, skew: float, kurtosis: float, years: float) -> None:
    found = Moments(0, 2 / per_year**0.5, skew, kurtosis)
    assert min_track_record(found, 1 / per_year**0.5) / per_year == pytest.approx(years, abs=5e-3)


# The Deflated Sharpe Ratio, its numerical example: 2.5 a year over five years of days, variance of lanes 1/2 a year.
@pytest.mark.parametrize(
    ("lanes", "skew", "kurtosis", "published"), [(100, -3, 10, 0.9004), (46, -3, 10, 0.9505), (88, 0, 3, 0.9505)]
)
def test_deflated_as_published(lanes: int, skew: float, kurtosis: float, published: float) -> None:
    found = Moments(1250, 2.5 / 250**0.5, skew, kurtosis)
    assert deflated(found, lanes, 0.5 / 250) == pytest.approx(published, abs=1e-4)
    assert expected_max(100, 0.5 / 250) == pytest.approx(0.1132, abs=5e-5)


def test_min_backtest_length_as_published() -> None:
    # Pseudo-Mathematics and Financial Charlatanism: the best of ten is 1.57; five years bear 45 tries.
    assert expected_max(10) == pytest.approx(1.57, abs=6e-3)
    assert min_backtest_years(45) < 5.0 < min_backtest_years(46)
    assert all(min_backtest_years(n) < 2 * math.log(n) for n in (5, 10, 100, 10**4, 10**6))


@pytest.mark.parametrize("lanes", [5, 20, 100, 1000])
def test_expected_max_is_what_drawing_gives(lanes: int) -> None:
    drawn = np.random.default_rng(lanes).normal(size=(4000, lanes)).max(axis=1)
    assert expected_max(lanes) == pytest.approx(drawn.mean(), rel=0.025)


RETURNS = st.lists(st.floats(-0.1, 0.1), min_size=5, max_size=80).map(np.array)


@given(RETURNS, st.floats(1e-3, 1e3))
def test_scale_does_not_matter_and_scipy_agrees(returns: np.ndarray, scale: float) -> None:
    assume(returns.std() > 1e-4)
    found, scaled = moments(returns), moments(returns * scale)
    assert scaled == pytest.approx(found, rel=1e-6, abs=1e-9)
    assert found.skew == pytest.approx(scipy.stats.skew(returns), rel=1e-6, abs=1e-9)
    assert found.kurtosis == pytest.approx(scipy.stats.kurtosis(returns, fisher=False), rel=1e-6)


SOME = st.builds(Moments, st.integers(10, 5000), st.floats(-0.3, 0.3), st.just(0.0), st.floats(3, 12))


@given(SOME, st.floats(2, 1e6), st.floats(1, 100), st.floats(1e-6, 0.1))
def test_more_lanes_and_more_spread_are_worth_less(found: Moments, lanes: float, more: float, var: float) -> None:
    one = deflated(found, lanes, var)
    assert 0 <= deflated(found, lanes * more, var) <= one <= probabilistic(found) + 1e-12
    assert deflated(found, lanes, var * more) <= one
    assert deflated(found, 1, var) == probabilistic(found)


@given(SOME, st.floats(-0.2, 0.2))
def test_min_track_record_is_where_psr_reaches_the_confidence(found: Moments, benchmark: float) -> None:
    length = min_track_record(found, benchmark, 0.95)
    if found.sharpe <= benchmark:
        assert length == math.inf
    elif found.sharpe - benchmark > 1e-3:
        there = probabilistic(found._replace(periods=math.ceil(length)), benchmark)
        before = probabilistic(found._replace(periods=max(2, math.ceil(length) - 1)), benchmark)
        assert there >= 0.95 - 1e-9
        assert before < 0.95 + 1e-9 or math.ceil(length) <= 2


@given(st.integers(2, 40), st.floats(0.0, 0.95), st.integers(0, 2**31))
def test_effective_lanes_are_those_of_the_average_correlation(lanes: int, rho: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    returns = rho**0.5 * rng.normal(size=(60, 1)) + (1 - rho) ** 0.5 * rng.normal(size=(60, lanes))
    table = np.corrcoef(returns.T)
    average = max(0.0, (table.sum() - lanes) / (lanes * (lanes - 1)))
    found = effective_lanes(returns)
    assert found == pytest.approx(average + (1 - average) * lanes, rel=1e-9)
    order = rng.permutation(lanes)
    assert effective_lanes(returns[:, order] * rng.uniform(0.1, 9, lanes)) == pytest.approx(found, rel=1e-9)
    assert effective_lanes(np.hstack([returns, np.zeros((60, 3))])) == pytest.approx(found + 1, rel=1e-9)


@pytest.mark.parametrize("returns", [[], [0.1], [0.0] * 9, [0.1] * 9, [0.1, math.nan, 0.2]])
def test_what_is_not_defined_is_nan(returns: list[float]) -> None:
    found = moments(np.array(returns))
    assert math.isnan(found.sharpe)
    assert all(math.isnan(f) for f in (probabilistic(found), deflated(found, 9, 1.0), min_track_record(found)))
    assert math.isnan(expected_max(math.nan))
