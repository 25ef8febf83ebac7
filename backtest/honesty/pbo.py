"""Probability of backtest overfitting by combinatorially symmetric cross-validation (CSCV).

Does the lane that is best on one half of the blocks of time stay above the median on the other half? Over every way to
choose the halves, the share in which it does not is the PBO: 1/2 on noise, near 0 where one lane is truly better.

Law 1: neither the order of lanes nor the scale of all returns matters, and there is no chance in it.
Law 2: ties are worth their middle rank, so among lanes that are all the same the best is in the middle: logit 0.

Source: D. H. Bailey, J. M. Borwein, M. López de Prado and Q. J. Zhu, The Probability of Backtest Overfitting, Journal
of Computational Finance 20 (2017).
"""

import math
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np

from backtest.honesty.sharpe import NAN, Floats, Matrix

NUMBERS = 1 << 22  # of Sharpe ratios in memory at a time


class Overfit(NamedTuple):
    """`pbo`; `loss`: share of the choices whose out-of-sample Sharpe ratio is below zero; `slope`: what one unit of
    in-sample Sharpe is worth out of sample (regression over the choices); `logits`: one for each choice."""

    pbo: float
    loss: float
    slope: float
    logits: Floats


def overfitting(returns: Matrix, blocks: int = 16) -> Overfit:
    """PBO of choosing by Sharpe ratio among the lanes of `returns` [periods, lanes].

    The periods are cut into `blocks` (even) of nearly equal length; for each of the C(S, S/2) halves the best lane n*
    of the half has rank w = rank / (N + 1) among all lanes on the other half, logit = ln(w / (1 - w)), and PBO is the
    share of logits <= 0. A lane that does not move has Sharpe ratio 0. NaN with fewer than 2 lanes or periods that give
    a block less than 2, and for returns that are not finite (leave such lanes out). Raises ValueError for odd `blocks`.
    """
    if blocks < 2 or blocks % 2:
        raise ValueError(f"blocks must be even and at least 2, got {blocks}.")
    n, lanes = returns.shape
    nothing = Overfit(NAN, NAN, NAN, np.zeros(0))
    if lanes < 2 or n < 2 * blocks:
        return nothing
    cut = np.linspace(0, n, blocks + 1).round().astype(np.int64)
    size = np.diff(cut).astype(np.float64)
    scale = max(float(returns.max()), -float(returns.min()))
    if not math.isfinite(scale):
        return nothing
    # Sharpe ratios of any half follow from sums over its blocks; away from the mean, so that squares keep their digits.
    centre = returns.mean(axis=0, dtype=np.float64)
    total, square = np.zeros((blocks, lanes)), np.zeros((blocks, lanes))
    for k, (a, b) in enumerate(pairwise(cut)):  # in float64 a block at a time: the whole would be twice the matrix
        part = returns[a:b].astype(np.float64) - centre
        total[k], square[k] = part.sum(axis=0), (part**2).sum(axis=0)
    halves = np.array([[k in half for k in range(blocks)] for half in combinations(range(blocks), blocks // 2)], float)
    inside, outside = [np.zeros(0)], [np.zeros(0)]
    logits = [np.zeros(0)]
    step = max(1, NUMBERS // lanes)
    for first in range(0, len(halves), step):
        mine = halves[first : first + step]
        here, there = (_sharpe(w, size, total, square, centre, scale) for w in (mine, 1.0 - mine))
        best, rows = here.argmax(axis=1), np.arange(len(mine))
        own = there[rows, best][:, None]
        rank = (there < own).sum(axis=1) + ((there == own).sum(axis=1) + 1) / 2
        omega = rank / (lanes + 1)
        logits.append(np.log(omega / (1.0 - omega)))
        inside.append(here[rows, best])
        outside.append(own[:, 0])
    logit, x, y = (np.concatenate(parts) for parts in (logits, inside, outside))
    away = x - x.mean()
    slope = float(away @ y / (away @ away)) if float(away @ away) > 0 else NAN
    return Overfit(float((logit <= 0).mean()), float((y < 0).mean()), slope, logit)


def _sharpe(halves: Floats, size: Floats, total: Floats, square: Floats, centre: Floats, scale: float) -> Floats:
    count = (halves @ size)[:, None]
    away = halves @ total / count
    variance = np.maximum(halves @ square / count - away**2, 0.0)
    moves = variance > (1e-9 * scale) ** 2
    found: Floats = np.divide(centre + away, np.sqrt(variance), out=np.zeros_like(away), where=moves)
    return found.round(12)  # a tie is a tie, whatever the order of sums
