"""Choose on one part of the time, measure on another: the figure that no choice of parameters has seen.

    folds = walk_forward(*extent(prepared), folds=5)
    validate(of_lanes(prepared), {"strategy.fast": [5, 10], "strategy.slow": [50, 50]}, folds).figures["sharpe"]

Law 1: the test spans decide nothing. Where folds train on one span before their test, lanes run once and are not begun
       anew in each fold: what is chosen depends on their returns in the span, and so on nothing after it. Else, and for
       lanes that ended early, each span is a run of its own.
Law 2: out-of-sample returns are stitched in the order of time; each test begins flat and ends marked to the market.
Law 3: how lanes are run is somebody else's business: everything here goes through `evaluate`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from backtest.honesty.bootstrap import HEADLINE, figures
from backtest.honesty.sharpe import Floats, Matrix
from backtest.honesty.splits import Fold, Span, TooShort
from backtest.lanes import between
from backtest.lanes import evaluate as evaluate_lanes
from backtest.metrics import Ints
from backtest.run import Prepared
from engine.errors import ConfigError

Table = Mapping[str, Sequence[Any]]
LANES = 8192  # whose returns in training are in memory at a time


class Evaluation(NamedTuple):
    """Lanes over one span: `figures` by name, one for each lane; `returns` [periods, lanes] of the periods that end at
    `ends` (ns UTC), None unless asked for; NaN where a lane failed."""

    figures: Mapping[str, Any]
    returns: Matrix | None
    ends: Ints
    per_year: float


Evaluate = Callable[[Table, Span, bool], Evaluation]  # the lanes, where, whether returns are wanted


class Choice(NamedTuple):
    """What a fold chose: the row of the table (-1: no lane had a figure, nothing is traded), its objective in both."""

    lane: int
    trained: float
    tested: float


NOTHING = Choice(-1, math.nan, math.nan)


class Path(NamedTuple):
    """Out-of-sample returns through the tested time, and the ends of their periods."""

    ends: Ints
    returns: Floats


@dataclass(frozen=True)
class Validation:
    """`choices`: one for each fold; `paths`: one where each moment is tested once, several of a combinatorial split."""

    folds: list[Fold]
    choices: list[Choice]
    paths: list[Path]
    per_year: float
    objective: str

    @cached_property
    def sharpes(self) -> Floats:
        """The annual Sharpe ratio of each path."""
        return np.array([figures(p.returns[None, :], self.per_year)["sharpe"][0] for p in self.paths])

    @cached_property
    def path(self) -> Path:
        """The path to report: of several the one with the median Sharpe ratio, the lower of two."""
        order = np.argsort(np.where(np.isfinite(self.sharpes), self.sharpes, -np.inf), kind="stable")
        return self.paths[int(order[(len(order) - 1) // 2])]

    @cached_property
    def figures(self) -> dict[str, float]:
        """The headline figures of `path`; NaN where they are not defined."""
        found = figures(self.path.returns[None, :], self.per_year)
        return {name: float(v[0]) if math.isfinite(v[0]) else math.nan for name, v in found.items()}


def validate(evaluate: Evaluate, table: Table, folds: Sequence[Fold], *, objective: str = "sharpe",
             sign: int = 1, whole: Evaluation | None = None) -> Validation:  # fmt: skip
    """In each fold choose the lane of `table` with the best `objective` in training, and run it over the tests.

    `objective`: a figure of lanes, the larger the better (`sign` -1: the smaller); where folds train on several spans,
    one of `bootstrap.HEADLINE`, else ConfigError. Of lanes that are alike in training the first is taken, so the order
    of `table` must not come from what it is tested on: see `unranked`. `whole`: of all lanes over all that is trained
    on, with returns, if somebody has it. Raises TooShort for a test of less than two periods.
    """
    if objective not in HEADLINE and any(len(fold.train) > 1 for fold in folds):
        raise ConfigError(f"Where folds train before and after a test, {objective!r} cannot be told from returns; take "
                          f"a split that looks back only, or one of {', '.join(HEADLINE)}.")  # fmt: skip
    choices, tests, per_year = [], [], math.nan
    for n, (fold, score) in enumerate(zip(folds, _trained(evaluate, table, folds, objective, whole), strict=True)):
        parts = []
        lane = int(np.argmax(np.where(np.isfinite(score), sign * score, -np.inf))) if np.isfinite(score).any() else -1
        for span in fold.test:
            found = evaluate({key: [values[max(lane, 0)]] for key, values in table.items()}, span, True)
            own, per_year = np.asarray(found.returns, np.float64)[:, 0], found.per_year
            if len(own) < 2:
                raise TooShort(f"Fold {n + 1} of {len(folds)} is tested on {len(own)} period of returns, which is too "
                               "little; take a longer span, or fewer folds (sweep.folds).")  # fmt: skip
            # A lane that failed is known by NaN from there on: whoever traded it was flat then.
            parts.append(Path(found.ends, np.where(np.isfinite(own), own, 0.0) if lane >= 0 else np.zeros(len(own))))
        tests.append(parts)
        joined = np.concatenate([part.returns for part in parts])[None]
        tested = found.figures[objective] if len(parts) == 1 else _score(joined, objective, per_year)
        choices.append(Choice(lane, float(score[lane]), float(tested[0])) if lane >= 0 else NOTHING)
    return Validation(list(folds), choices, _stitched(folds, tests), per_year, objective)


def unranked(table: Table) -> Any:
    """Rows of a table in the order of its values, whatever order they came in, say the best of all time first.

    >>> unranked({"a": [2, 1, 1], "b": [1, 9, 5]}).tolist()
    [2, 1, 0]
    """
    codes = [np.unique(v.astype(str) if (v := np.asarray(values)).dtype == object else v, return_inverse=True)[1]
             for values in table.values()]  # fmt: skip
    return np.lexsort([code.reshape(-1) for code in reversed(codes)])


def _trained(evaluate: Evaluate, table: Table, folds: Sequence[Fold], objective: str,
             whole: Evaluation | None) -> Iterable[Floats]:  # fmt: skip
    """For each fold the objective of every lane on what it trains on."""
    back = objective in HEADLINE and all(len(f.train) == 1 and f.train[0].end <= f.test[0].start for f in folds)
    scores = []
    for k in range(0, len(next(iter(table.values()))), LANES):
        piece = {key: values[k : k + LANES] for key, values in table.items()}
        if back:
            part = None if whole is None else np.asarray(whole.returns)[:, k : k + LANES]
            scores.append(_looked_back(evaluate, piece, folds, objective, whole, part))
        else:
            scores.append([_trained_piece(evaluate, piece, fold, objective) for fold in folds])
    return (np.concatenate(of_fold) for of_fold in zip(*scores, strict=True))


def _looked_back(evaluate: Evaluate, table: Table, folds: Sequence[Fold], objective: str, whole: Evaluation | None,
                 part: Matrix | None) -> list[Floats]:  # fmt: skip
    spans = [fold.train[0] for fold in folds]
    last = max(span.end for span in spans)
    if whole is None or part is None:
        whole = evaluate(table, Span(min(s.start for s in spans), last, min(s.warm for s in spans)), True)
        part = np.asarray(whole.returns)
    found = []
    for span in spans:
        begin, end = np.searchsorted(whole.ends, span[:2])
        score = _scored(part[begin:end], objective, whole.per_year)
        ended = np.flatnonzero(~np.isfinite(part[:end]).all(axis=0))  # by then: what comes later decides nothing
        if len(ended):
            few = {key: [values[int(lane)] for lane in ended] for key, values in table.items()}
            score[ended] = evaluate(few, span, False).figures[objective]
        found.append(score)
    return found


def _scored(returns: Matrix, objective: str, per_year: float) -> Floats:
    """Of returns [periods, lanes]; in float64, some lanes at a time."""
    lanes = range(0, returns.shape[1], 512)
    return np.concatenate([_score(returns[:, k : k + 512].T, objective, per_year) for k in lanes])


def _trained_piece(evaluate: Evaluate, table: Table, fold: Fold, objective: str) -> Floats:
    if len(fold.train) == 1:
        return np.asarray(evaluate(table, fold.train[0], False).figures[objective], np.float64)
    found = [evaluate(table, span, True) for span in fold.train]
    together = np.concatenate([np.asarray(part.returns) for part in found])
    return _scored(together, objective, found[0].per_year)


def _score(returns: Matrix, objective: str, per_year: float) -> Floats:
    if returns.shape[1] < 2:
        return np.full(len(returns), math.nan)
    with np.errstate(all="ignore"):
        return HEADLINE[objective](np.asarray(returns, np.float64), per_year)


def _stitched(folds: Sequence[Fold], tests: list[list[Path]]) -> list[Path]:
    """Path j takes of each tested span the j-th fold that tests it."""
    of_part: dict[int, list[Path]] = {}
    for fold, parts in zip(folds, tests, strict=True):
        for span, part in zip(fold.test, parts, strict=True):
            of_part.setdefault(span.start, []).append(part)
    found = []
    for j in range(min(len(parts) for parts in of_part.values())):
        parts = [of_part[start][j] for start in sorted(of_part)]
        found.append(Path(np.concatenate([p.ends for p in parts]), np.concatenate([p.returns for p in parts])))
    return found


def extent(prepared: Prepared) -> tuple[int, int]:
    """[start, end) of the tape of a run, ns UTC: what to cut into folds."""
    times = prepared.tape.events["recv"]
    return int(times[0]), int(times[-1]) + 1


def of_lanes(prepared: Prepared, kind: Any = np.float32, threads: int | None = None,
             told: Callable[[float], None] | None = None) -> Evaluate:  # fmt: skip
    """Evaluate by compiled passes over slices of the tape of `prepared`, warmed by the events before each span.

    `kind` is the type of the returns in memory; `told` hears of lanes, in parts, as they pass. Raises
    ConfigError for a span without events.
    """
    times = prepared.tape.events["recv"]

    def evaluate(table: Table, span: Span, wanted: bool) -> Evaluation:
        warm, start, end = (int(i) for i in np.searchsorted(times, (span.warm, span.start, span.end)))
        if start >= end:
            raise ConfigError(f"{prepared.tape.name}: no events in [{span.start}, {span.end}) ns; ask for fewer folds.")
        part = between(prepared, warm, end)
        heard = 0.0

        def passed(events: int) -> None:
            nonlocal heard
            if told is not None:
                told(events / (end - warm) - heard)
            heard = events / (end - warm)

        found = evaluate_lanes(part, table, warmup=start - warm, returns=kind if wanted else None, threads=threads,
                               told=passed)  # fmt: skip
        matrix = None if found.returns is None else found.returns.T
        return Evaluation(found.figures, matrix, found.ends, found.per_year)

    return evaluate
