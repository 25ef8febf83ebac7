"""A sweep put to the test: its lanes over folds, their returns for PBO and SPA, and the verdict on its best lane."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from backtest.honesty import splits
from backtest.honesty.sharpe import Floats, Matrix, effective_lanes
from backtest.honesty.splits import DAY_NS, Fold, Span, TooShort
from backtest.honesty.validate import (
    Evaluate,
    Evaluation,
    Table,
    Validation,
    extent,
    of_lanes,
    unranked,
    validate,
)
from backtest.honesty.verdict import Verdict, verdict
from backtest.run import Prepared
from engine import tracking_names as names
from engine.ledger import Ledger

NUMBERS = 40_000_000  # returns in memory; of more lanes than that holds a sample is taken
Split = Literal["walk_forward", "anchored", "holdout", "purged", "combinatorial", "none"]
# What a verdict on the sweep says of each of its lanes, too.
OUT_OF_SAMPLE = (names.OOS_SHARPE, names.OOS_RETURN, names.OOS_ANNUAL, names.OOS_DRAWDOWN, names.OOS_PERIODS)
SHARED = (*OUT_OF_SAMPLE, names.PBO, names.SPA, names.REALITY_CHECK)


class Study(NamedTuple):
    """`returns` of the best lane; `lanes` [periods, lanes], the best first, perhaps a sample; `effective`: how many of
    all lanes are independent; `untested`: why nothing was validated."""

    returns: Floats
    per_year: float
    lanes: Matrix
    effective: float
    validation: Validation | None
    untested: str = ""

    def judge(self, ledger: Ledger, whole: bool, seed: int = 0, *, tried: int = 0, structures: int = 1) -> Verdict:
        """The verdict on the best lane, of `tried` in all, in so many `structures`."""
        oos = None if self.validation is None else self.validation.path.returns
        return verdict(self.returns, self.per_year, ledger=ledger, lanes=self.lanes, oos=oos, seed=seed, whole=whole,
                       tried=tried, structures=structures, untested=self.untested)  # fmt: skip


def study(prepared: Prepared, table: Table, *, split: Split = "walk_forward", folds: int = 5, objective: str = "sharpe",
          sign: int = 1, purge_days: float = 0.0, seed: int = 0, threads: int | None = None,
          told: Callable[[float], None] | None = None) -> Study:  # fmt: skip
    """Run the lanes of `table`, the best one first, over the whole tape and over the folds of a split.

    `folds`: parts of the tested time, of a combinatorial split the parts of all time, two of which are tested;
    `purge_days`: what lies so close to a test is not chosen on; `told`: hears of the lanes done;
    other arguments as in `validate`.
    """
    evaluate, (start, end) = of_lanes(prepared, threads=threads, told=told), extent(prepared)
    lanes = len(next(iter(table.values())))
    days = prepared.tape.events["recv"] // DAY_NS
    room = max(2, NUMBERS // (int(np.count_nonzero(np.diff(days))) + 2))
    rest = np.random.default_rng(seed).permutation(np.arange(1, lanes))[: room - 1]
    rows = np.append(0, np.sort(rest))
    found = evaluate({key: np.asarray(values)[rows] for key, values in table.items()}, Span(start, end, start), True)
    matrix, gap = np.asarray(found.returns), round(purge_days * DAY_NS)
    well = np.isfinite(matrix).all(axis=0)
    kept = matrix if well.all() else matrix[:, well]
    few = effective_lanes(kept)
    alike = (kept.shape[1] - few) / max(kept.shape[1] - 1, 1)  # average correlation
    made: Mapping[Split, Callable[[], list[Fold]]] = {
        "walk_forward": partial(splits.walk_forward, start, end, folds=folds, embargo=gap),
        "anchored": partial(splits.walk_forward, start, end, folds=folds, embargo=gap, anchored=True),
        "holdout": partial(splits.holdout, start, end, embargo=gap),
        "purged": partial(splits.purged, start, end, folds=folds, purge=gap, embargo=gap),
        "combinatorial": partial(splits.combinatorial, start, end, groups=folds, purge=gap, embargo=gap),
        "none": list,
    }
    tested, untested = None, ""
    try:
        over = made[split]()
        tested = (
            _validated(evaluate, table, over, objective, sign, found if len(rows) == lanes else None) if over else None
        )
    except TooShort as error:  # of the lanes there is still much to tell
        untested = str(error)
    return Study(np.asarray(matrix[:, 0], np.float64), found.per_year, matrix, lanes - alike * (lanes - 1), tested,
                 untested)  # fmt: skip


def _validated(evaluate: Evaluate, table: Table, over: list[Fold], objective: str, sign: int,
               whole: Evaluation | None = None) -> Validation:  # fmt: skip
    """Over the lanes in an order that knows nothing of how they fared: it decides where training leaves a tie."""
    order = unranked(table)
    plain = {key: np.asarray(values)[order] for key, values in table.items()}
    if whole is not None:
        whole = whole._replace(returns=np.asarray(whole.returns)[:, order])
    found = validate(evaluate, plain, over, objective=objective, sign=sign, whole=whole)
    named = [c._replace(lane=int(order[c.lane])) if c.lane >= 0 else c for c in found.choices]
    return replace(found, choices=named)


def shared(figures: Mapping[str, Any]) -> dict[str, float]:
    """Of the figures of a sweep's verdict those that hold for its lanes."""
    return {name: float(figures[name]) for name in SHARED if name in figures}
