"""Is the best of many lanes better than a benchmark, after all that were looked at? White's and Hansen's tests.

Law 1: the order of lanes and the scale of returns do not matter; a p-value is never 0, as only so much was drawn.
Law 2: a lane that never moves from the benchmark cannot win and cannot harm.
"""

import math
from typing import NamedTuple

import numpy as np

from backtest.honesty.bootstrap import block_length, resampled
from backtest.honesty.sharpe import NAN, Floats, Matrix
from backtest.metrics import Ints

LANES = 512  # at a time, in float64


class Superior(NamedTuple):
    """p-values of "no lane is better than the benchmark": `spa` is Hansen's consistent one, `lower` and `upper` its
    bounds, `reality_check` White's; `best` is the lane with the largest studentised mean, -1 where there is none."""

    spa: float
    lower: float
    upper: float
    reality_check: float
    best: int


def _spread(away: Floats, restart: float) -> Floats:
    """Long-run variance of each column under the stationary bootstrap: R(0) + 2 sum k(i) R(i), with
    k(i) = (n-i)/n (1-q)^i + i/n (1-q)^(n-i): a sum over frequencies, of power times the transform of the weights."""
    n = len(away)
    size = 1 << (2 * n - 1).bit_length()  # so that nothing goes around
    lag = np.arange(n)
    weight = np.zeros(size)
    weight[:n] = (n - lag) / n * (1 - restart) ** lag + lag / n * (1 - restart) ** (n - lag)
    weight[0], weight[size - n + 1 :] = 1.0, weight[n - 1 : 0 : -1]
    at = np.fft.rfft(weight).real / size
    at[1:-1] *= 2.0  # a frequency and its mirror
    wave = np.fft.rfft(np.ascontiguousarray(away.T), size, axis=1)
    found: Floats = (wave.real**2 + wave.imag**2) @ at / n
    return found


def superior(returns: Matrix, benchmark: Matrix | float = 0.0, *, seed: int, count: int = 1000,
             block: float | None = None) -> Superior:  # fmt: skip
    """Test the lanes of `returns` [periods, lanes] against `benchmark` (returns of the same periods, or a constant).

    Reality check: V = max sqrt(n) d_k against V* = max sqrt(n) (d*_k - d_k), d the mean difference from the benchmark,
    d* the same of resampled periods. SPA: T = max(0, max sqrt(n) d_k / w_k) against the same with d*_k - g(d_k), where
    g(d) = d, but 0 below -w sqrt(2 ln ln n / n), where the lane is too bad to matter (bounds: g = max(d, 0), g = d).
    p = (1 + those as large) / (1 + count). `block`: average block (None: `block_length` of the mean over lanes).

    Sources: H. White, A Reality Check for Data Snooping, Econometrica 68 (2000); P. R. Hansen, A Test for Superior
    Predictive Ability, Journal of Business & Economic Statistics 23 (2005).
    """
    n, lanes = returns.shape
    base = np.broadcast_to(np.asarray(benchmark, np.float64), (n,))[:, None]
    if n < 8 or lanes == 0:
        return Superior(NAN, NAN, NAN, NAN, -1)
    if block is None:
        middle = sum(returns[:, k : k + LANES].astype(np.float64).sum(axis=1) for k in range(0, lanes, LANES))
        block = block_length(middle / lanes - base[:, 0])
    # How often a resampled series takes each period: a mean is then one product of matrices.
    taken = np.vstack([_counts(rows) for rows in resampled(n, count, block, seed)])
    seen, drawn = np.full(2, -np.inf), np.full((4, count), -np.inf)
    best = -1
    for first in range(0, lanes, LANES):
        diff = returns[:, first : first + LANES].astype(np.float64) - base
        mean = diff.mean(axis=0)
        wide = np.sqrt(np.maximum(_spread(diff - mean, 1.0 / max(block, 1.0)), 0.0))
        moves = np.isfinite(wide) & (wide > 1e-12 * np.abs(diff).max(axis=0))
        if not moves.any():
            continue
        at = np.flatnonzero(moves) + first
        diff, mean, wide = diff[:, moves], mean[moves], wide[moves]
        score, again = math.sqrt(n) * mean / wide, taken @ diff / n
        if score.max() > seen[1]:
            best = int(at[score.argmax()])
        seen = np.maximum(seen, [math.sqrt(n) * mean.max(), score.max()])
        matters = score >= -math.sqrt(2.0 * math.log(math.log(n)))
        for k, centre in enumerate((mean * matters, np.maximum(mean, 0.0), mean)):
            drawn[k] = np.maximum(drawn[k], (math.sqrt(n) * (again - centre) / wide).max(axis=1))
        drawn[3] = np.maximum(drawn[3], math.sqrt(n) * (again - mean).max(axis=1))
    if best < 0:
        return Superior(NAN, NAN, NAN, NAN, -1)
    drawn[:3] = np.maximum(drawn[:3], 0.0)
    asked = [max(seen[1], 0.0)] * 3 + [seen[0]]
    p = [(1.0 + float((row >= bar).sum())) / (1.0 + count) for row, bar in zip(drawn, asked, strict=True)]
    return Superior(p[0], p[1], p[2], p[3], best)


def _counts(rows: Ints) -> Floats:
    series, n = rows.shape
    flat = (rows + n * np.arange(series)[:, None]).ravel()
    return np.bincount(flat, minlength=series * n).reshape(series, n).astype(np.float64)
