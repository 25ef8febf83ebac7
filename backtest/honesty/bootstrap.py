"""The stationary bootstrap: resampling that keeps what neighbouring periods have to do with each other.

Law 1: chance comes from the seed alone: same returns, same seed, same bits.
Law 2: figures of resampled returns are those of `backtest.metrics`, for many series at once.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from backtest.honesty.sharpe import NAN, Floats, Matrix
from backtest.metrics import TIE, Ints

PIECE = 250  # resampled series in memory at a time


def block_length(returns: Matrix) -> float:
    """Average block of a stationary bootstrap of one series: (2 G^2 / D)^(1/3) n^(1/3), at least 1, at most
    min(3 sqrt(n), n / 3); with the flat-top window, G = sum l(k/M) |k| R(k) and D = 2 (sum l(k/M) R(k))^2.

    M is twice the first lag of a run of insignificant autocorrelations. Source: D. N. Politis and H. White, Automatic
    Block-Length Selection for the Dependent Bootstrap, Econometric Reviews 23 (2004), with the correction of A. Patton,
    D. N. Politis and H. White, Econometric Reviews 28 (2009).
    """
    away = np.asarray(returns, np.float64) - np.mean(returns)
    n = len(away)
    if n < 8 or not float(away @ away) > 0:
        return 1.0
    run = max(5, int(math.log10(n)))
    most = min(math.ceil(math.sqrt(n)) + run, n - 1)
    cov = np.array([away[k:] @ away[: n - k] for k in range(most + 1)]) / n
    small = np.abs(cov[1:] / cov[0]) < 2.0 * math.sqrt(math.log10(n) / n)
    quiet = next((k + 1 for k in range(most - run + 1) if small[k : k + run].all()), None)
    if quiet is None:  # never quiet: up to the last lag that matters
        quiet = int(np.flatnonzero(~small)[-1]) + 1
    lags = np.arange(1, min(2 * quiet, most) + 1)
    weight = np.minimum(1.0, 2.0 * (1.0 - lags / lags[-1]))
    slope = 2.0 * float(np.sum(weight * lags * cov[lags]))
    level = float(cov[0] + 2.0 * np.sum(weight * cov[lags]))
    if level == 0.0:
        return 1.0
    best = (2.0 * slope**2 / (2.0 * level**2)) ** (1 / 3) * n ** (1 / 3)
    return float(min(max(best, 1.0), math.ceil(min(3.0 * math.sqrt(n), n / 3.0))))


def resampled(n: int, count: int, block: float, seed: int) -> Iterator[Ints]:
    """Rows to take, [series, n], some series at a time, `count` in all: blocks begin anywhere, go around the end, and
    their lengths are geometric with mean `block`.

    Source: D. N. Politis and J. P. Romano, The Stationary Bootstrap, JASA 89 (1994).
    """
    rng, steps = np.random.default_rng(seed), np.arange(n)
    for first in range(0, count, PIECE):
        shape = (min(PIECE, count - first), n)
        begins = rng.random(shape) < 1.0 / max(block, 1.0)
        begins[:, 0] = True
        since = np.maximum.accumulate(np.where(begins, steps, 0), axis=1)
        at = np.take_along_axis(rng.integers(0, n, shape), since, axis=1)
        yield (at + steps - since) % n


def _drawdown(r: Floats) -> Floats:
    equity = np.cumprod(1.0 + r, axis=1)
    deepest: Floats = np.min(equity / np.maximum(np.maximum.accumulate(equity, axis=1), 1.0) - 1.0, axis=1)
    return deepest


def _shortfall(r: Floats) -> Floats:
    worst = r <= np.quantile(r, 0.05, axis=1, keepdims=True) + TIE
    mean: Floats = np.where(worst, r, 0.0).sum(axis=1) / worst.sum(axis=1)
    return mean


def _annual(r: Floats, per_year: float) -> Floats:
    growth: Floats = np.maximum(np.prod(1.0 + r, axis=1), 0.0) ** (per_year / r.shape[1]) - 1.0
    return growth


Figure = Callable[[Floats, float], Floats]
# Of [series, periods] and periods per year, one figure for each series; formulas and sources are in backtest.metrics.
HEADLINE: dict[str, Figure] = {
    "total_return": lambda r, y: np.prod(1.0 + r, axis=1) - 1.0,
    "annual_return": _annual,
    "volatility": lambda r, y: np.std(r, axis=1, ddof=1) * y**0.5,
    "sharpe": lambda r, y: r.mean(axis=1) / np.std(r, axis=1, ddof=1) * y**0.5,
    "sortino": lambda r, y: r.mean(axis=1) / np.sqrt(np.mean(np.minimum(r, 0.0) ** 2, axis=1)) * y**0.5,
    "calmar": lambda r, y: _annual(r, y) / -_drawdown(r),
    "max_drawdown": lambda r, y: _drawdown(r),
    "value_at_risk": lambda r, y: np.quantile(r, 0.05, axis=1),
    "expected_shortfall": lambda r, y: _shortfall(r),
}


def figures(returns: Matrix, per_year: float) -> dict[str, Floats]:
    """Every headline figure of many series, `returns` [series, periods]; NaN or infinite where it is not defined."""
    r = np.asarray(returns, np.float64)
    with np.errstate(all="ignore"):
        return {name: figure(r, per_year) for name, figure in HEADLINE.items()}


class Interval(NamedTuple):
    """The figure, and the bounds between which it lies with the confidence asked for."""

    value: float
    low: float
    high: float


def intervals(returns: Matrix, per_year: float, *, seed: int, confidence: float = 0.95, count: int = 1000,
              block: float | None = None) -> dict[str, Interval]:  # fmt: skip
    """A percentile interval for each headline figure of one series of periodic returns.

    `count` resampled series; `block`: their average block (None: `block_length`). Resampled series without the figure
    are left out; a figure that the series itself does not have is NaN throughout. Source: B. Efron and R. Tibshirani,
    An Introduction to the Bootstrap (1993), chapter 13.
    """
    r = np.asarray(returns, np.float64)
    if len(r) < 4 or not np.isfinite(r).all():
        return {name: Interval(NAN, NAN, NAN) for name in HEADLINE}
    own = figures(r[None, :], per_year)
    drawn: dict[str, list[Floats]] = {name: [] for name in HEADLINE}
    for rows in resampled(len(r), count, block_length(r) if block is None else block, seed):
        for name, values in figures(r[rows], per_year).items():
            drawn[name].append(values)
    tail, found = (1.0 - confidence) / 2.0, {}
    for name in HEADLINE:
        known = np.concatenate(drawn[name])
        known = known[np.isfinite(known)]
        defined = math.isfinite(own[name][0]) and len(known) > 0
        low, high = np.quantile(known, [tail, 1.0 - tail]) if defined else (NAN, NAN)
        found[name] = Interval(float(own[name][0]) if defined else NAN, float(low), float(high))
    return found
