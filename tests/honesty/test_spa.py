"""Reality check and SPA beside `arch`, beside a loop that follows the papers word by word, and as laws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.honesty.bootstrap import resampled
from backtest.honesty.spa import _spread, superior


def lanes(n: int, count: int, seed: int, better: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    returns = rng.normal(0, 0.01, (n, count)) * rng.uniform(0.5, 2.0, count)
    returns[:, 0] += better
    return returns


@pytest.mark.parametrize("better", [-0.004, 0.0, 0.0006, 0.0015])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_as_arch(better: float, seed: int) -> None:
    arch = pytest.importorskip("arch.bootstrap", reason="arch is the independent implementation: pip install arch")
    returns = lanes(500, 12, seed, better) - 0.0004

    def close(ours: float, returns: np.ndarray, which: str) -> None:
        # arch compares losses, and its random numbers are others: three standard deviations of two drawn shares.
        theirs = arch.SPA(np.zeros(500), -returns, block_size=5, reps=2000, bootstrap="stationary", seed=11)
        theirs.compute()
        p = theirs.pvalues[which]
        assert ours == pytest.approx(p, abs=3 * math.sqrt(2 * max(p * (1 - p), 0.002) / 2000) + 0.001)

    found = superior(returns, seed=7, count=2000, block=5.0)
    close(found.reality_check, returns, "upper")  # what arch calls SPA compares means that are not studentised
    # So it is Hansen's test where all lanes have the same long-run variance.
    even = returns / np.sqrt(_spread(returns - returns.mean(axis=0), 1 / 5))
    if even.mean(axis=0).max() > 0:  # Hansen's statistic is at least zero, arch's is not
        for ours, which in ((found.lower, "lower"), (found.spa, "consistent"), (found.upper, "upper")):
            close(ours, even, which)


def test_variance_is_what_the_bootstrap_gives() -> None:
    noise = np.random.default_rng(5).normal(size=(301, 3))
    series = noise[1:] + 0.6 * noise[:-1]
    series -= series.mean(axis=0)
    means = np.concatenate([series[rows].mean(axis=1) for rows in resampled(300, 8000, 6.0, 1)])
    assert _spread(series, 1 / 6) == pytest.approx(300 * means.var(axis=0), rel=0.06)


@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([0.0, 0.001]))
@settings(max_examples=10)
def test_as_the_papers_say_it(seed: int, count: int, base: float) -> None:
    returns = lanes(60, count, seed, 0.002)
    found = superior(returns, base, seed=seed, count=40, block=3.0)
    n, diff = 60, returns - base
    draws = np.concatenate([diff[rows].mean(axis=1) for rows in resampled(n, 40, 3.0, seed)])
    mean, larger = diff.mean(axis=0), np.zeros(4)
    q, wide = 1 / 3, np.zeros(count)
    for k in range(count):
        away = diff[:, k] - mean[k]
        wide[k] = away @ away / n
        for i in range(1, n):
            kernel = (n - i) / n * (1 - q) ** i + i / n * (1 - q) ** (n - i)
            wide[k] += 2 * kernel * (away[i:] @ away[:-i]) / n
    wide = np.sqrt(wide)
    best = max(0.0, max(n**0.5 * mean[k] / wide[k] for k in range(count)))
    for row in draws:
        bars = [0.0, 0.0, 0.0, -math.inf]
        for k in range(count):
            keeps = mean[k] >= -wide[k] * math.sqrt(2 * math.log(math.log(n)) / n)
            for j, centre in enumerate((mean[k] if keeps else 0.0, max(mean[k], 0.0), mean[k])):
                bars[j] = max(bars[j], n**0.5 * (row[k] - centre) / wide[k])
            bars[3] = max(bars[3], n**0.5 * (row[k] - mean[k]))
        larger += [*(bar >= best for bar in bars[:3]), bars[3] >= n**0.5 * mean.max()]
    assert found[:4] == pytest.approx((larger + 1) / 41)


@given(st.integers(0, 10**6), st.floats(0.01, 100))
@settings(max_examples=10)
def test_order_scale_and_idle_lanes_do_not_matter(seed: int, scale: float) -> None:
    returns = lanes(80, 6, seed, 0.001)
    order = np.random.default_rng(seed).permutation(6)
    one = superior(returns, seed=1, count=60, block=2.0)
    two = superior(returns[:, order] * scale, seed=1, count=60, block=2.0)
    idle = superior(np.hstack([np.zeros((80, 2)), returns]), seed=1, count=60, block=2.0)
    assert one[:4] == two[:4] == idle[:4]
    assert order[two.best] == one.best == idle.best - 2
    assert one.lower <= one.spa <= one.upper


def test_size_and_power() -> None:
    noise = [superior(lanes(200, 10, s), seed=s, count=200, block=1.0) for s in range(150)]
    for kind in ("spa", "reality_check"):
        assert 0.02 <= np.mean([getattr(p, kind) <= 0.1 for p in noise]) <= 0.18
    true = [superior(lanes(200, 10, s, 0.003), seed=s, count=200, block=1.0) for s in range(40)]
    assert np.mean([p.spa <= 0.05 for p in true]) > 0.6
    # Many hopeless lanes weaken the reality check and not SPA: the reason why Hansen wrote his paper.
    crowd = lanes(200, 60, 1, 0.002)
    crowd[:, 1:] = crowd[:, 1:] * 4 - 0.01
    found = superior(crowd, seed=1, block=1.0)
    assert found.spa < found.reality_check / 2


def test_many_lanes_come_in_pieces() -> None:
    returns = lanes(100, 1300, 3).astype(np.float32)
    found = superior(returns, seed=2, count=50)
    means = returns.astype(np.float64).mean(axis=0)
    assert 0 < found.reality_check <= 1 and found.best == superior(returns[:, ::-1], seed=2, count=50).best * -1 + 1299
    assert means[found.best] > 0


def test_nothing_to_test_is_nan() -> None:
    for returns in (np.zeros((50, 3)), np.zeros((50, 0)), np.ones((3, 2))):
        found = superior(returns, seed=0)
        assert math.isnan(found.spa) and found.best == -1
