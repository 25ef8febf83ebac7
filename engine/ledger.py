"""The ledger: how many lanes were ever evaluated for an idea on overlapping data, across sessions, from the tracker.

An idea is an experiment of the tracker. Whoever looked at many lanes and shows the best one has to say so: the
deflated Sharpe ratio is the figure after that, and this is the count that it needs.

Law 1: each lane counts once: a repetition of the same settings, parameters and code adds nothing.
Law 2: nothing can be taken back: failed and deleted runs count as long as the tracker has them.
Law 3: rows are runs, never lanes: a sweep states its count and moments, so a million lanes are a handful of rows.
Law 4: in doubt it counts: data overlap where their times do, whatever the instruments, because to choose the best
       instrument is a choice too; a run that does not say which data it saw overlaps with all.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine import tracking
from engine import tracking_names as names

if TYPE_CHECKING:
    from engine.store.tape import Tape


class Ledger(NamedTuple):
    """What was evaluated: `lanes` in `sweeps` and `backtests`; `effective` is how many of the lanes are independent, at
    most. `mean`, `var`: of the annual Sharpe ratios of those that have one (`scored`); zero where there is none."""

    lanes: int = 0
    effective: float = 0.0
    sweeps: int = 0
    backtests: int = 0
    scored: int = 0
    mean: float = 0.0
    var: float = 0.0


def tags(kind: str, tape: "Tape", content: str) -> dict[str, str]:
    """The tags by which a run is found again: `kind` is one of `tracking_names`, `content` a hash of all that decides
    its result besides the data: settings, parameters (of all lanes), code."""
    found = {names.KIND: kind, names.CONTENT: content}
    if len(tape.events):
        found |= {names.FIRST_NS: str(int(tape.events["ts"][0])), names.LAST_NS: str(int(tape.events["ts"][-1]))}
    listed = ",".join(info.name for info in tape.instruments)
    return found | ({names.INSTRUMENTS: listed} if len(listed) <= tracking.LONGEST["tag"] else {})


def figures(sharpe: Sequence[float] | np.ndarray[Any, Any], effective: float | None = None) -> dict[str, float]:
    """The figures of a sweep's parent run: `sharpe` is annual, one for each lane that was evaluated, NaN where there is
    none; `effective`: how many lanes are independent (`backtest.honesty.effective_lanes`), if somebody knows.

    >>> figures([1.0, 3.0, float("nan")])
    {'lanes': 3.0, 'lanes_sharpe_mean': 2.0, 'lanes_sharpe_var': 2.0}
    """
    every = np.asarray(sharpe, np.float64)
    known = every[np.isfinite(every)]
    found = {names.LANES: float(len(every))}
    found |= {names.SHARPE_MEAN: float(known.mean())} if len(known) else {}
    found |= {names.SHARPE_VAR: float(known.var(ddof=1))} if len(known) > 1 else {}
    return found | ({} if effective is None else {names.LANES_EFFECTIVE: float(effective)})


def count(runs: Iterable[Mapping[str, Any]], first_ns: int | None = None, last_ns: int | None = None) -> Ledger:
    """The ledger of runs (as `tracking.runs` gives them) whose data overlap with [first_ns, last_ns], both included.

    Moments are pooled: var = (sum (n-1) v + sum n (m - mean)^2) / (sum n - 1), over sweeps of n lanes and backtests of
    one. Source: T. F. Chan, G. H. Golub and R. J. LeVeque, Updating Formulae and a Pairwise Algorithm, 1979.

    >>> sweep = {"tags": {"kind": "sweep"}, "metrics": {"lanes": 3, "lanes_sharpe_mean": 2.0, "lanes_sharpe_var": 1.0}}
    >>> one = {"tags": {"kind": "backtest"}, "metrics": {"sharpe": 4.0}}
    >>> count([sweep, one])
    Ledger(lanes=4, effective=4.0, sweeps=1, backtests=1, scored=4, mean=2.5, var=1.6666666666666667)
    """
    seen: set[tuple[Any, ...]] = set()
    lanes, effective, of_kind = 0, 0.0, {names.SWEEP: 0, names.BACKTEST: 0}
    groups: list[tuple[int, float, float]] = []
    for n, run in enumerate(runs):
        tag, metric = run["tags"], run["metrics"]
        kind, span = tag.get(names.KIND), (tag.get(names.FIRST_NS), tag.get(names.LAST_NS))
        key = (kind, *span, tag.get(names.CONTENT, n))
        if kind not in of_kind or key in seen or not _overlap(*span, first_ns, last_ns):
            continue
        seen.add(key)
        size = int(metric.get(names.LANES, 0)) if kind == names.SWEEP else 1
        mean = metric.get(names.SHARPE_MEAN if kind == names.SWEEP else names.SHARPE)
        lanes, of_kind[kind] = lanes + size, of_kind[kind] + 1
        effective += metric.get(names.LANES_EFFECTIVE, size)
        groups += [(size, mean, metric.get(names.SHARPE_VAR, 0.0))] if mean is not None and size else []
    sizes, means, spreads = (np.array([g[i] for g in groups], np.float64) for i in range(3))
    scored = int(sizes.sum())
    centre = float((sizes * means).sum() / scored) if scored else 0.0
    squares = float(((sizes - 1) * spreads + sizes * (means - centre) ** 2).sum())
    spread = squares / (scored - 1) if scored > 1 else 0.0
    return Ledger(lanes, effective, of_kind[names.SWEEP], of_kind[names.BACKTEST], scored, centre, spread)


def _overlap(first: str | None, last: str | None, from_ns: int | None, until_ns: int | None) -> bool:
    early = first is not None and until_ns is not None and int(first) > until_ns
    late = last is not None and from_ns is not None and int(last) < from_ns
    return not (early or late)


def read(experiment: str, first_ns: int | None = None, last_ns: int | None = None, *,
         also: Mapping[str, Any] | None = None, tracking_uri: str | None = None,
         helper: "tracking.Helper | None" = None) -> Ledger:  # fmt: skip
    """The ledger of an experiment on data that overlap with [first_ns, last_ns] (ns UTC).

    `also`: a run that is not tracked yet, `{"tags": tags(…), "metrics": …}`; it counts once,
    even if it is a repetition. Raises TrackingError.
    """
    kinds = (names.SWEEP, names.BACKTEST)
    found = tracking.runs(experiment, kinds=kinds, tracking_uri=tracking_uri, helper=helper)
    return count([*found, *([also] if also else [])], first_ns, last_ns)
