"""Monte-Carlo on trades: the same trades in another order, or drawn again, and where the account might have stood.

Law 1: shuffled trades end where the trades end; only the way there differs. Drawn trades end elsewhere, too.
Law 2: chance comes from the seed alone.
"""

from typing import Literal, NamedTuple

import numpy as np

from backtest.honesty.sharpe import Floats

PIECE = 250  # series of trades in memory at a time


class Chances(NamedTuple):
    """One row for each series of trades: equity at its end, and its deepest drawdown (a fraction, negative or 0)."""

    end: Floats
    drawdown: Floats


def monte_carlo(pnl: Floats, start_equity: float, *, seed: int, count: int = 1000,
                how: Literal["shuffle", "draw"] = "draw") -> Chances:  # fmt: skip
    """`count` series of the trades with profits `pnl` (account currency): in another order, or drawn with repetition.

    Trades follow one another here; those that overlapped in time lose that. Without trades there are no series. Source:
    R. Pardo, The Evaluation and Optimization of Trading Strategies (2008), and for drawing B. Efron, Bootstrap Methods,
    Annals of Statistics 7 (1979).
    """
    own, rng = np.asarray(pnl, np.float64), np.random.default_rng(seed)
    if len(own) == 0:
        return Chances(np.zeros(0), np.zeros(0))
    ends, falls = [], []
    for first in range(0, count, PIECE):
        shape = (min(PIECE, count - first), len(own))
        if how == "draw":
            series = own[rng.integers(0, len(own), shape)]
        else:
            series = rng.permuted(np.tile(own, (shape[0], 1)), axis=1)
        equity = start_equity + np.cumsum(series, axis=1)
        peak = np.maximum(np.maximum.accumulate(equity, axis=1), start_equity)
        ends.append(equity[:, -1])
        falls.append(np.minimum((equity / peak - 1.0).min(axis=1), 0.0))
    return Chances(np.concatenate(ends), np.concatenate(falls))
