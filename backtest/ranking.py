"""Which lanes are best: by one figure, and of several those that no other lane beats in all of them (Pareto)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine.config import unknown

if TYPE_CHECKING:
    import polars as pl


class Objective(NamedTuple):
    """A figure and whether more of it is better (1) or less (-1)."""

    name: str
    sign: int

    @classmethod
    def of(cls, text: str) -> "Objective":
        """`sharpe` is maximised, `-max_drawdown_days` minimised."""
        return cls(text.removeprefix("-"), -1 if text.startswith("-") else 1)


def ranked(table: "pl.DataFrame", objectives: Sequence[Objective]) -> "pl.DataFrame":
    """Best first by the first objective, lanes without a figure last; with several, `front` says which lanes no other
    one beats in all of them (Pareto)."""
    import polars as pl

    for o in objectives:
        if o.name not in table.columns:
            raise unknown("figure in sweep.objective", o.name, table.columns)
    scores = np.stack([table[o.name].to_numpy().astype("f8") * o.sign for o in objectives], axis=1)
    bad = np.isnan(scores).any(axis=1)
    order = np.lexsort((table["lane"].to_numpy(), table["structure"].to_numpy(), -np.where(bad, -np.inf, scores[:, 0]),
                        bad))  # fmt: skip
    if len(objectives) > 1:
        table = table.with_columns(front=pl.Series(front(np.where(bad[:, None], -np.inf, scores)) & ~bad))
    return table[order]


def front(scores: Any) -> Any:
    """Which rows no other row beats or equals in all columns while beating it in one.

    >>> front(np.array([[1.0, 3.0], [2.0, 2.0], [1.0, 1.0]])).tolist()
    [True, True, False]
    """
    order = np.lexsort(tuple(-scores[:, i] for i in range(scores.shape[1] - 1, -1, -1)))
    kept, best = np.zeros(len(scores), bool), np.zeros((0, scores.shape[1]))
    for row in order:
        beaten = ((best >= scores[row]).all(axis=1) & (best > scores[row]).any(axis=1)).any()
        if not beaten:
            kept[row] = True
            best = np.vstack((best, scores[row]))
    return kept
