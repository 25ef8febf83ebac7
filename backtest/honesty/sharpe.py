"""Inference on the Sharpe ratio: how sure it is, how long a record has to be, what the best of many is worth.

Law 1: Sharpe ratios, their variance and lengths are per period here, unless a name says annual; kurtosis is 3 for
       normal returns, not 0. Mixing these up is the usual way to get these figures wrong.
Law 2: what is not defined is NaN; nothing raises.
"""

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Matrix = NDArray[Any]  # float32 or float64, a row for each period and a column for each lane

NAN = float("nan")
EULER = 0.5772156649015329  # Euler–Mascheroni
NORMAL = NormalDist()


class Moments(NamedTuple):
    """Of periodic returns: how many, the Sharpe ratio per period, skewness, and kurtosis (normal is 3)."""

    periods: int
    sharpe: float
    skew: float
    kurtosis: float


def moments(returns: Matrix) -> Moments:
    """Sharpe = mean / std(ddof=1); skew = m3 / m2^1.5; kurtosis = m4 / m2^2, of one lane's periodic returns.

    >>> found = moments(np.array([0.01, -0.01, 0.02, 0.0])); round(found.sharpe, 4), round(found.kurtosis, 4)
    (0.3873, 1.64)
    """
    r = np.asarray(returns, np.float64)
    if len(r) < 2 or not np.isfinite(r).all():
        return Moments(len(r), NAN, NAN, NAN)
    away = r - r.mean()
    if float(np.abs(away).max()) <= 1e-12 * float(np.abs(r).max()):  # rounding error is no spread
        return Moments(len(r), NAN, NAN, NAN)
    away /= np.abs(away).max()  # squares of small returns would underflow
    second = float(np.mean(away**2))
    skew, kurtosis = float(np.mean(away**3)) / second**1.5, float(np.mean(away**4)) / second**2
    return Moments(len(r), float(r.mean() / r.std(ddof=1)), skew, kurtosis)


def probabilistic(found: Moments, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio is above `benchmark` (PSR):
    Z((SR - SR*) sqrt(n - 1) / sqrt(1 - skew SR + (kurtosis - 1) / 4 SR^2)).

    Source: D. H. Bailey and M. López de Prado, The Sharpe Ratio Efficient Frontier, Journal of Risk 15 (2012), eq. 9.

    >>> round(probabilistic(Moments(24, 0.458, -2.448, 10.164)), 3)
    0.913
    """
    spread = _spread(found)
    if not spread > 0 or found.periods < 2 or not math.isfinite(benchmark):
        return NAN
    return NORMAL.cdf((found.sharpe - benchmark) * math.sqrt((found.periods - 1) / spread))


def _spread(found: Moments) -> float:
    """Variance of an estimated Sharpe ratio, times the number of periods less one."""
    return 1.0 - found.skew * found.sharpe + (found.kurtosis - 1.0) / 4.0 * found.sharpe**2


def min_track_record(found: Moments, benchmark: float = 0.0, confidence: float = 0.95) -> float:
    """Periods that it takes until PSR(benchmark) reaches `confidence`; infinite where the Sharpe ratio is not above it:
    1 + (1 - skew SR + (kurtosis - 1) / 4 SR^2) (Z^-1(confidence) / (SR - SR*))^2.

    Source: as `probabilistic`, eq. 11.

    >>> round(min_track_record(Moments(0, 2 / 252**0.5, 0.0, 3.0), 1 / 252**0.5) / 252, 2)
    2.73
    """
    spread = _spread(found)
    if not spread >= 0 or not math.isfinite(benchmark):
        return NAN
    ahead = found.sharpe - benchmark
    if not ahead > 0:
        return math.inf
    ratio = NORMAL.inv_cdf(confidence) / ahead
    return 1.0 + spread * ratio * ratio


def expected_max(lanes: float, var: float = 1.0) -> float:
    """The best Sharpe ratio that `lanes` independent lanes without any skill show on average; `var` is the variance of
    Sharpe ratios across lanes: sqrt(var) ((1 - g) Z^-1(1 - 1/N) + g Z^-1(1 - 1/(N e))), g = Euler–Mascheroni.
    One lane, or less, is no choice: 0.

    Source: D. H. Bailey and M. López de Prado, The Deflated Sharpe Ratio, Journal of Portfolio Management 40 (2014).

    >>> round(expected_max(10), 3), expected_max(1)
    (1.575, 0.0)
    """
    if not (lanes >= 0 and var >= 0):
        return NAN
    if lanes <= 1:
        return 0.0
    best = -(1 - EULER) * NORMAL.inv_cdf(1 / lanes) - EULER * NORMAL.inv_cdf(1 / (lanes * math.e))
    return math.sqrt(var) * max(0.0, best)  # the formula is for many; near one it would fall below zero


def deflated(found: Moments, lanes: float, var: float) -> float:
    """Probability that the true Sharpe ratio of the chosen lane is above what luck gives the best of `lanes` (DSR):
    PSR(expected_max(lanes, var)). `lanes` may be an effective number; `var` is per period, so an annual one is divided
    by the periods of a year. Source: as `expected_max`.

    >>> round(deflated(Moments(1250, 2.5 / 250**0.5, -3.0, 10.0), 100, 0.5 / 250), 4)
    0.9004
    """
    return probabilistic(found, expected_max(lanes, var))


def effective_lanes(returns: Matrix) -> float:
    """How many independent lanes correlated ones amount to: rho + (1 - rho) M, rho the average correlation, or 0.

    Lanes without variance are repetitions of "do nothing": one lane in all. The average comes from the sum of the
    standardised lanes, so it takes no M x M matrix. Source: Bailey and López de Prado (2014), appendix A.3.

    >>> r = np.random.default_rng(1).normal(size=(500, 1)); effective_lanes(np.repeat(r, 50, axis=1)).__round__(6)
    1.0
    """
    total, lanes, idle = np.zeros(len(returns)), 0, 0
    for first in range(0, returns.shape[1], 512):
        part = returns[:, first : first + 512].astype(np.float64)
        part -= part.mean(axis=0)
        norm = np.sqrt((part**2).sum(axis=0))
        moves = np.isfinite(norm) & (norm > 0)
        total += (part[:, moves] / norm[moves]).sum(axis=1)
        lanes, idle = lanes + int(moves.sum()), idle + int((~moves).sum())
    alone = float(min(idle, 1))
    if lanes < 2:
        return lanes + alone
    rho = (float(total @ total) - lanes) / (lanes * (lanes - 1))
    return alone + lanes - min(max(rho, 0.0), 1.0) * (lanes - 1)


def min_backtest_years(lanes: float, annual_sharpe: float = 1.0) -> float:
    """Years of data below which the best of `lanes` lanes without skill shows `annual_sharpe` by luck (MinBTL):
    (expected_max(N) / SR)^2, which is below 2 ln(N) / SR^2.

    Source: D. H. Bailey, J. M. Borwein, M. López de Prado and Q. J. Zhu, Pseudo-Mathematics and Financial Charlatanism,
    Notices of the AMS 61 (2014), theorem 2.

    >>> round(min_backtest_years(45), 1)
    5.0
    """
    return (expected_max(lanes) / annual_sharpe) ** 2 if annual_sharpe > 0 else NAN
