"""Axes of a sweep, and which points of them become lanes: all, or a sample.

Law 1: the same axes, sampler and seed give the same lanes in the same order.
Law 2: how many lanes there will be is known before any of them is made.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from engine.errors import ConfigError

Sampler = Literal["auto", "grid", "random", "sobol", "optuna"]
Table = dict[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Axis:
    """One swept key: listed `values`, or an interval from `low` to `high` (both may be drawn), of whole numbers or on a
    logarithmic scale if so said."""

    key: str
    values: Sequence[Any] = ()
    low: float = math.nan
    high: float = math.nan
    whole: bool = False
    log: bool = False

    def __post_init__(self) -> None:
        if not self.continuous and not len(self.values):
            raise ConfigError(f"{self.key}: the axis is empty. A range ends before its second number: "
                              f"{self.key}='range(5,60)' goes from 5 to 59.")  # fmt: skip
        if self.continuous and not self.low < self.high:
            raise ConfigError(f"{self.key}: an interval goes up, got interval({self.low:g},{self.high:g}).")
        if self.log and not self.low > 0:
            raise ConfigError(f"{self.key}: a logarithmic scale begins above 0, got {self.low:g}.")

    @property
    def continuous(self) -> bool:
        """Whether it is an interval."""
        return not math.isnan(self.low)

    def at(self, u: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """The values at places in [0, 1).

        >>> Axis("fast", (5, 10, 20)).at(np.array([0.0, 0.5, 0.99])).tolist()
        [5, 10, 20]
        """
        if not self.continuous:
            rows = np.minimum((u * len(self.values)).astype("i8"), len(self.values) - 1)
            found: np.ndarray[Any, Any] = column(self.values)[rows]
            return found
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        if self.whole and not self.log:
            return np.minimum(np.floor(low + u * (high - low + 1)), high).astype("i8")
        found = low + u * (high - low)
        found = np.clip(np.exp(found), self.low, self.high) if self.log else found
        return np.rint(found).astype("i8") if self.whole else found


def column(values: Sequence[Any]) -> "np.ndarray[Any, Any]":
    """Values as an array, texts among them kept as they are."""
    if any(isinstance(v, str) for v in values[:1000]) or None in values[:1000]:
        return np.array(list(values), object)
    return np.asarray(values)


def chosen(axes: Sequence[Axis], sampler: Sampler) -> Sampler:
    """The sampler that `auto` stands for: the whole grid, or Sobol points where an axis is an interval."""
    intervals = [axis.key for axis in axes if axis.continuous]
    if sampler == "grid" and intervals:
        raise ConfigError(f"{intervals[0]}: an interval has no grid; list its values, or sweep.sampler=sobol.")
    return ("sobol" if intervals else "grid") if sampler == "auto" else sampler


def count(axes: Sequence[Axis], sampler: Sampler, lanes: int) -> int:
    """How many lanes there will be, before any rule across parameters skips some."""
    return math.prod(len(axis.values) for axis in axes) if chosen(axes, sampler) == "grid" else lanes


def sample(axes: Sequence[Axis], sampler: Sampler, lanes: int, seed: int) -> Table:
    """Columns of the lanes; the last axis of a grid runs fastest. Optuna's lanes come in batches: `Adaptive`.

    Source of `sobol`: I. M. Sobol 1967, scrambled after Owen 1998, as scipy has it.

    >>> sample([Axis("a", (1, 2)), Axis("b", (3, 4))], "auto", 0, 0)["b"].tolist()
    [3, 4, 3, 4]
    """
    kind = chosen(axes, sampler)
    if kind == "grid":
        total = count(axes, kind, lanes)
        rows = np.unravel_index(np.arange(total), [len(axis.values) for axis in axes])
        return {axis.key: column(axis.values)[row] for axis, row in zip(axes, rows, strict=True)}
    if kind == "random":
        points = np.random.default_rng(seed).random((lanes, len(axes)))
    else:
        from scipy.stats import qmc

        engine = qmc.Sobol(len(axes), scramble=True, rng=np.random.default_rng(seed))
        points = engine.random_base2(max(0, math.ceil(math.log2(lanes))))[:lanes]
    return {axis.key: axis.at(points[:, i]) for i, axis in enumerate(axes)}


class Adaptive:
    """Optuna's ask and tell, a batch of lanes at a time. Raises ConfigError when it is not installed."""

    def __init__(self, axes: Sequence[Axis], directions: Sequence[int], seed: int) -> None:
        """`directions`: 1 for each objective to maximise, -1 to minimise."""
        try:
            import optuna
        except ImportError as error:
            raise ConfigError("sweep.sampler=optuna needs Optuna: pip install 'tandem[optuna]', or "
                              "choose grid, random or sobol.") from error  # fmt: skip
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        words = ["maximize" if d > 0 else "minimize" for d in directions]
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self.study = optuna.create_study(directions=words, sampler=sampler, pruner=optuna.pruners.MedianPruner())
        self.states, self.axes, self.asked = optuna.trial.TrialState, axes, list[Any]()

    def ask(self, lanes: int) -> Table:
        """The next lanes to try."""
        self.asked = [self.study.ask() for _ in range(lanes)]
        rows = [[self._suggest(one, axis) for axis in self.axes] for one in self.asked]
        return {axis.key: column([row[i] for row in rows]) for i, axis in enumerate(self.axes)}

    def _suggest(self, one: Any, axis: Axis) -> Any:
        if not axis.continuous:
            values = [v.item() if isinstance(v, np.generic) else v for v in axis.values]
            if all(isinstance(v, int) and not isinstance(v, bool) for v in values) and len(values) > 1:
                step = values[1] - values[0]
                if step > 0 and values == list(range(values[0], values[-1] + 1, step)):  # an order that it can use
                    return one.suggest_int(axis.key, values[0], values[-1], step=step)
            return one.suggest_categorical(axis.key, values)
        if axis.whole:
            return one.suggest_int(axis.key, int(axis.low), int(axis.high), log=axis.log)
        return one.suggest_float(axis.key, axis.low, axis.high, log=axis.log)

    def hopeless(self, early: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """Which of them are worse on a first part of the time than the median there of those that went on to the end; a
        lane without a figure there (NaN) may still earn one."""
        known = [math.isfinite(value) for value in early.tolist()]
        for one, value, well in zip(self.asked, early.tolist(), known, strict=True):
            if well:
                one.report(value, 1)
        return np.array([well and one.should_prune() for one, well in zip(self.asked, known, strict=True)], bool)

    def tell(self, scores: "np.ndarray[Any, Any]", pruned: "np.ndarray[Any, Any]") -> None:
        """What came of them: (lanes, objectives); a lane without a figure has failed, unless it was pruned."""
        for one, row, gone in zip(self.asked, scores.tolist(), pruned.tolist(), strict=True):
            if all(math.isfinite(v) for v in row):
                self.study.tell(one, row)
            else:
                self.study.tell(one, state=self.states.PRUNED if gone else self.states.FAIL)


def shards(table: Mapping[str, Any], size: int) -> Iterator[tuple[int, Table]]:
    """A table in pieces: number of the first lane, columns."""
    (total,) = {len(values) for values in table.values()}
    for begin in range(0, total, size):
        yield begin, {key: values[begin : begin + size] for key, values in table.items()}
