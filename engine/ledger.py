"""The ledger: how many lanes were ever evaluated for an idea on overlapping data, across sessions, from the tracker.

An idea is an experiment of the tracker, whatever strategies were tried in it. Whoever looked at many lanes and shows
the best one has to say so: the deflated Sharpe ratio is the figure after that, and this is the count that it needs.

Law 1: each lane counts once: a repetition of the same settings, parameters and code adds nothing. Of repetitions the
       one with the most lanes counts, and in whatever order rows come, the ledger is the same to the last bit.
Law 2: nothing can be taken back: failed and deleted runs count as long as the tracker has them.
Law 3: rows are runs, never lanes: a sweep states its count and moments, so a million lanes are a handful of rows.
Law 4: in doubt it counts: data overlap where their times do, whatever the instruments and the strategy, because to
       choose the best of those is a choice too; a run that does not say which data it saw overlaps with all.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine import tracking
from engine import tracking_names as names

if TYPE_CHECKING:
    from engine.store.tape import Tape


class Ledger(NamedTuple):
    """What was evaluated: `lanes` in `sweeps` and `backtests`; `effective` is how many of the lanes are independent, at
    most. `mean`, `var`: of the annual Sharpe ratios of those that have one (`scored`); zero where there is none.
    `idea`: whose lanes, in words."""

    lanes: int = 0
    effective: float = 0.0
    sweeps: int = 0
    backtests: int = 0
    scored: int = 0
    mean: float = 0.0
    var: float = 0.0
    idea: str = "of this idea"


def tags(kind: str, tape: "Tape", content: str, strategies: Iterable[str]) -> dict[str, str]:
    """The tags by which a run is found again: `kind` is one of `tracking_names`, `content` a hash of all that decides
    its result besides the data: settings, parameters (of all lanes), code; `strategies`: names of the classes."""
    found = {names.KIND: kind, names.CONTENT: content}
    own = ",".join(sorted({name.partition(" ")[0] for name in strategies}))
    found |= {names.STRATEGY: own} if own and len(own) <= tracking.LONGEST["tag"] else {}
    if len(tape.events):
        found |= {names.FIRST_NS: str(int(tape.events["ts"][0])), names.LAST_NS: str(int(tape.events["ts"][-1]))}
    listed = ",".join(info.name for info in tape.instruments)
    return found | ({names.INSTRUMENTS: listed} if len(listed) <= tracking.LONGEST["tag"] else {})


def widened(kept: float) -> float:
    """By how much a variance was larger at most before only the best share `kept` was looked at: that of a normal
    distribution over that of its upper tail. Source: N. L. Johnson, S. Kotz and N. Balakrishnan, Continuous Univariate
    Distributions, 1994, section 13.10.

    >>> round(widened(0.5), 3), widened(1.0)
    (2.752, 1.0)
    """
    if kept >= 1.0:
        return 1.0
    normal = NormalDist()
    cut = normal.inv_cdf(1.0 - kept)
    hazard = normal.pdf(cut) / kept
    return 1.0 / (1.0 - hazard * (hazard - cut))


def figures(sharpe: Sequence[float] | np.ndarray[Any, Any], effective: float | None = None,
            pruned: int = 0) -> dict[str, float]:  # fmt: skip
    """The figures of a sweep's parent run: `sharpe` is annual, one for each lane that was evaluated, NaN where there is
    none; `effective`: how many lanes are independent (`backtest.honesty.effective_lanes`), if somebody knows;
    `pruned`: how many lanes have none because they looked hopeless: the spread of all was `widened` at most.

    >>> figures([1.0, 3.0, float("nan")])
    {'lanes': 3.0, 'lanes_sharpe_mean': 2.0, 'lanes_sharpe_var': 2.0}
    """
    every = np.asarray(sharpe, np.float64)
    known = every[np.isfinite(every)]
    found = {names.LANES: float(len(every))}
    found |= {names.SHARPE_MEAN: float(known.mean())} if len(known) else {}
    wide = widened(len(known) / (len(known) + pruned)) if len(known) else 1.0
    found |= {names.SHARPE_VAR: float(known.var(ddof=1)) * wide} if len(known) > 1 else {}
    return found | ({} if effective is None else {names.LANES_EFFECTIVE: float(effective)})


def count(runs: Iterable[Mapping[str, Any]], first_ns: int | None = None, last_ns: int | None = None,
          idea: str = "of this idea") -> Ledger:  # fmt: skip
    """The ledger of runs (as `tracking.runs` gives them) whose data overlap with [first_ns, last_ns], both included.

    Moments are pooled: var = (sum (n-1) v + sum n (m - mean)^2) / (sum n - 1), over sweeps of n lanes and backtests of
    one. Source: T. F. Chan, G. H. Golub and R. J. LeVeque, Updating Formulae and a Pairwise Algorithm, 1979.

    >>> sweep = {"tags": {"kind": "sweep"}, "metrics": {"lanes": 3, "lanes_sharpe_mean": 2.0, "lanes_sharpe_var": 1.0}}
    >>> one = {"tags": {"kind": "backtest"}, "metrics": {"sharpe": 4.0}}
    >>> count([sweep, one])[:-1]
    (4, 4.0, 1, 1, 4, 2.5, 1.6666666666666667)
    """
    kept: dict[tuple[Any, ...], tuple[float, ...]] = {}
    for n, run in enumerate(runs):
        tag, metric = run["tags"], run["metrics"]
        kind, span = tag.get(names.KIND), (tag.get(names.FIRST_NS), tag.get(names.LAST_NS))
        if kind not in (names.SWEEP, names.BACKTEST) or not _overlap(*span, first_ns, last_ns):
            continue
        lanes = int(metric.get(names.LANES, 0)) if kind == names.SWEEP else 1
        mean = metric.get(names.SHARPE_MEAN if kind == names.SWEEP else names.SHARPE, math.nan)
        told = lanes if math.isfinite(mean) else 0
        row = (lanes, metric.get(names.LANES_EFFECTIVE, lanes), told, mean if told else 0.0,
               metric.get(names.SHARPE_VAR, 0.0), float(kind == names.SWEEP))  # fmt: skip
        key = (kind, *span, tag.get(names.CONTENT, n))
        kept[key] = max(row, kept.get(key, row))
    rows = np.array(sorted(kept.values()), np.float64).reshape(-1, 6)  # sorted: sums do not depend on the order
    sizes, effective, scored, mean, spread, swept = rows.T
    total = float(scored.sum())
    centre = float((scored * mean).sum() / total) if total else 0.0
    squares = float((np.maximum(scored - 1, 0.0) * spread + scored * (mean - centre) ** 2).sum())
    return Ledger(int(sizes.sum()), float(effective.sum()), int(swept.sum()), int(len(rows) - swept.sum()), int(total),
                  centre, squares / (total - 1) if total > 1 else 0.0, idea)  # fmt: skip


def _overlap(first: str | None, last: str | None, from_ns: int | None, until_ns: int | None) -> bool:
    early = first is not None and until_ns is not None and int(first) > until_ns
    late = last is not None and from_ns is not None and int(last) < from_ns
    return not (early or late)


def alone(run: Mapping[str, Any]) -> Ledger:
    """The ledger of one run, where nobody can be asked for others."""
    return count([run], idea="of " + str(run["tags"].get(names.STRATEGY, "this idea")).replace(",", ", "))


def read(experiment: str, first_ns: int | None = None, last_ns: int | None = None, *,
         also: Mapping[str, Any] | None = None, tracking_uri: str | None = None,
         helper: "tracking.Helper | None" = None) -> Ledger:  # fmt: skip
    """The ledger of an experiment on data that overlap with [first_ns, last_ns] (ns UTC).

    `also`: a run that is not tracked yet, `{"tags": tags(…), "metrics": …}`; it counts once, even if it is a
    repetition. Raises TrackingError.
    """
    kinds = (names.SWEEP, names.BACKTEST)
    found = tracking.runs(experiment, kinds=kinds, tracking_uri=tracking_uri, helper=helper)
    return count([*found, *([also] if also else [])], first_ns, last_ns, f"in experiment {experiment}")
