"""Lanes: many parameter sets of one strategy over one shared tape, in compiled passes on all cores.

    evaluate(prepare(Momentum(), "equities"), {"strategy.fast": [5, 10], "strategy.slow": [50, 50]}).figures["sharpe"]

Law 1: lane i equals the single run with its settings, byte for byte, at any number of threads (law 4 of the design).
Law 2: memory is bounded: a block of lanes at a time, and of a lane only its figures stay (and its returns, on request).
Law 3: what a pass cannot tell exactly (a lane that risk halted, more open entries than are kept) is run alone, as a
       single run, and counted.
"""

import copy
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from backtest import lane_figures, tally
from backtest.drive import Drive
from backtest.lane_pass import Pass
from backtest.metrics import Ints, period_ends
from backtest.run import Prepared
from backtest.tally import Tally
from engine.config import Risk, VenueModel, hints, unknown
from engine.errors import ConfigError
from engine.kernel import codes
from engine.kernel.records import slots
from engine.kernel.strategy import Strategy
from engine.plan import instrument_rows

NUMBERS = (int, float, bool)


def numeric(kind: type, key: str) -> bool:
    """Whether a key of Risk or VenueModel is a number, or the model of the queue, and so may differ between lanes."""
    hint = hints(kind).get(key)
    return hint in NUMBERS or hint == float | None or key == "queue"


@dataclass(frozen=True)
class Evaluated:
    """What a pass found, one row for each lane.

    `figures`: column by name, as in `Result.metrics`, NaN for a lane that failed; `status`: codes of tally.py, 0 is
    well; `returns`: (lanes, periods) simple returns of the periods that end at `ends` (ns UTC), NaN where a lane ended
    early, None unless asked for; `alone`: how many lanes were run as single runs.
    """

    figures: dict[str, Any]
    status: Any
    returns: Any
    ends: Ints
    per_year: float
    alone: int


def evaluate(prepared: Prepared, table: Mapping[str, Any], *, warmup: int = 0, returns: Any = None,
             threads: int | None = None, told: Callable[[int], None] | None = None) -> Evaluated:  # fmt: skip
    """Figures of many lanes over the tape of `prepared`, whose settings hold for what `table` does not name.

    `table`: columns of one length by dotted key: parameters (`strategy.fast`), numbers of risk and venue
    (`risk.drawdown`, `venue.taker_bps`), `cash`. `warmup`: so many events at the begin are seen, not traded on, not
    counted. `returns`: np.float32 or np.float64 keeps each lane's periodic returns. `told`: hears of the events done.
    For a part of the tape: `evaluate(between(prepared, start, end), …)`.

    Raises ConfigError for a key or a column that does not fit, StrategyError for a value out of range.
    """
    return Lanes(prepared, table, warmup=warmup, returns=returns).run(threads, told)


def between(prepared: Prepared, start: int, end: int) -> Prepared:
    """The same run on the events [start, end) of its tape."""
    tape = replace(prepared.tape, events=prepared.tape.events[start:end])
    return Prepared(prepared.strategies, tape, prepared.cash, prepared.risk, prepared.venue, prepared.compiled,
                    prepared.sizes, prepared.on_fault, prepared.name)  # fmt: skip


class Lanes:
    """The lanes of one structure: checked, grouped by what they have in common, ready to run."""

    def __init__(self, prepared: Prepared, table: Mapping[str, Any], *, warmup: int = 0,
                 returns: Any = None) -> None:  # fmt: skip
        if len(prepared.strategies) != 1:
            raise ConfigError(f"Lanes run one strategy each, got {len(prepared.strategies)}; run several by prepare().")
        self.prepared, self.warmup, self.kind = prepared, warmup, returns
        self.columns = {key: np.asarray(values) for key, values in table.items()}
        lengths = {len(values) for values in self.columns.values()}
        if len(lengths) != 1 or not lengths - {0}:
            raise ConfigError(f"A table of lanes needs columns of one length above 0, got {sorted(lengths)}.")
        (self.count,) = lengths
        self.cls: type[Strategy] = type(prepared.strategies[0])
        self.own = {k.removeprefix("strategy."): v for k, v in self.columns.items() if k.startswith("strategy.")}
        self.others = {k: v for k, v in self.columns.items() if not k.startswith("strategy.")}
        for key, values in self.others.items():
            check_key(key)
            for value in dict.fromkeys(values.tolist()):
                check_value(key, value)
        for name, values in self.own.items():
            if name not in self.cls.params:
                self.cls(**{name: values[0]})  # raises, with the names that there are
            for value in dict.fromkeys(values.tolist()):
                self.cls.params[name].check(f"{self.cls.__qualname__}.{name}", value, str(self.cls.fields[name].kind))

    def strategy(self, lane: int) -> Strategy:
        """The strategy of one lane. Raises StrategyError when its parameters do not go together."""
        base = self.prepared.strategies[0].values
        return self.cls(**{**base, **{name: plain(values[lane]) for name, values in self.own.items()}})

    def single(self, lane: int) -> Prepared:
        """One lane as a run of its own."""
        found = self.world(lane)
        found.strategies, found._places = [self.strategy(lane)], None
        vars(found).pop("config", None)
        vars(found).pop("identity", None)
        return found

    def world(self, lane: int) -> Prepared:
        """What a lane has beside its parameters: money, limits, the venue."""
        p = copy.copy(self.prepared)
        apart: dict[str, dict[str, Any]] = {"risk": {}, "venue": {}}
        for key, values in self.others.items():
            group, _, name = key.partition(".")
            if group == "cash":
                p.cash = float(values[lane])
            else:
                apart[group][name] = plain(values[lane])
        if apart["risk"]:
            p.risk = Risk(**{**vars(p.risk), **apart["risk"]})
        if apart["venue"]:
            p.venue = VenueModel(**{**vars(p.venue), **apart["venue"]})
            p.rows = instrument_rows(p.tape.instruments, p.risk, p.venue.fees())
            p.rows["day_offset_ns"] = self.prepared.rows["day_offset_ns"]
        return p

    @cached_property
    def groups(self) -> tuple[Any, Any]:
        """Lanes by what they share: (order in which they run, number of each lane's world)."""
        if not self.others:
            return np.arange(self.count), np.zeros(self.count, "i8")
        codes_ = [np.unique(v.astype(str), return_inverse=True)[1].reshape(-1) for v in self.others.values()]
        world = np.unique(np.stack(codes_, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
        return np.argsort(world, kind="stable"), world

    def run(self, threads: int | None = None, told: Callable[[int], None] | None = None) -> Evaluated:
        """All lanes. Ctrl-C stops the threads within a tile of each block."""
        order, world = self.groups
        clocks: dict[float, list[int]] = {}
        feeds = np.asarray(self.others.get("venue.feed_ms", np.zeros(self.count)), "f8")
        for lane in order.tolist():
            clocks.setdefault(float(feeds[lane]), []).append(lane)
        tallies = np.zeros(self.count, Tally.dtype)
        found: Evaluated | None = None
        for lanes in clocks.values():  # a delayed feed moves the times of the curve: a grid of its own
            grid = Grid(self.world(lanes[0]), self.warmup)
            matrix = None if self.kind is None else np.full((self.count, grid.most), math.nan, self.kind)
            Pass(self, grid, np.array(lanes), world, tallies, matrix).run(threads or cores(), told)
            part = self.found(grid, np.array(lanes), tallies, matrix)
            found = part if found is None else merged(found, part, np.array(lanes))
        assert found is not None
        return found

    def found(self, grid: "Grid", lanes: Any, tallies: Any, matrix: Any) -> Evaluated:
        """The figures of the lanes of one grid; what a pass could not tell is told by single runs."""
        start = np.asarray(self.columns.get("cash", np.full(self.count, self.prepared.cash)), "f8")
        figures, doubtful = lane_figures.figures(tallies, start, grid.rows, grid.per_year, grid.last, grid.resampled)
        status = tallies["status"].copy()
        doubtful |= np.isin(status, (tally.LOST, tally.CROWDED)) | grid.actions
        halted = status == codes.HALTED
        doubtful |= halted & (tallies["halt"] == codes.HALT_RISK)
        doubtful &= (status != codes.FAULTED) & ~(halted & (tallies["halt"] != codes.HALT_RISK))
        mine = np.zeros(self.count, bool)
        mine[lanes] = True
        again = np.flatnonzero(doubtful & mine)
        for lane in again.tolist():
            result = self.alone(lane)
            for name, column in figures.items():
                column[lane] = result.metrics[name]
            status[lane] = 0
            if matrix is not None:
                own = result.periods.returns[: matrix.shape[1]]
                matrix[lane] = math.nan
                matrix[lane, : len(own)] = own
        for column in figures.values():
            column[status != 0] = math.nan
        return Evaluated(figures, status, matrix, grid.period_ts, grid.per_year, len(again))

    def alone(self, lane: int) -> Any:
        """A lane as a single run, after the same warm-up."""
        p = self.single(lane)
        if not self.warmup:
            return p.run()
        drive = p.drive()
        seen = warm(drive, self.warmup)
        drive.advance()
        outputs = drive.outputs()
        outputs.curve = outputs.curve[seen:]
        return p.result(outputs, drive, math.nan)


def warm(drive: Drive, events: int) -> int:
    """Let a drive see the first events without trading; how many points of the curve came of it."""
    drive.machine.kernel.trading = codes.OBSERVATION
    drive.advance(events, whole=True)
    drive.machine.kernel.trading = codes.LIVE
    return len(drive.outputs().curve)


def merged(one: Evaluated, other: Evaluated, lanes: Any) -> Evaluated:
    """The rows `lanes` of the other in place of those of the one."""
    for name, column in one.figures.items():
        column[lanes] = other.figures[name][lanes]
    one.status[lanes] = other.status[lanes]
    if one.returns is not None:
        width = min(one.returns.shape[1], other.returns.shape[1])
        one.returns[lanes, :width] = other.returns[lanes, :width]
    return replace(one, alone=one.alone + other.alone)


def check_value(key: str, value: Any) -> None:
    """Raises ConfigError for a value of another type or out of its range."""
    group, _, name = key.partition(".")
    if group == "cash":
        good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
        if not good:
            raise ConfigError(f"cash must be a number above 0, got {value!r}.")
    elif group == "risk":
        Risk(**{name: value})
    else:
        VenueModel(**{name: value})


def check_key(key: str) -> None:
    """Raises ConfigError for a key that no lane can have a value of its own for."""
    group, _, name = key.partition(".")
    kind: Any = {"risk": Risk, "venue": VenueModel}.get(group)
    if kind is not None and name not in hints(kind):
        raise unknown("key", key, [f.name for f in fields(kind)])
    if key != "cash" and (kind is None or not numeric(kind, name)):
        raise ConfigError(f"{key} cannot differ between lanes; what can are strategy.*, the numbers of risk.* and "
                          "venue.*, and cash.")  # fmt: skip


def plain(value: Any) -> Any:
    """A value of numpy's as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Grid:
    """The points of the curve that every lane has, and which of them end a period: found by a run without orders."""

    def __init__(self, prepared: Prepared, warmup: int) -> None:
        drive = prepared.drive()
        for s in range(len(prepared.strategies)):
            slots(drive.machine.kernel, s).active = 0
        seen = warm(drive, warmup) if warmup else 0
        drive.advance()
        ts: Ints = np.ascontiguousarray(drive.outputs().curve["ts"][seen:])
        if len(ts) == 0:
            raise ConfigError("The tape has no point of time behind its warm-up; take fewer events of warm-up.")
        ends, self.per_year, self.resampled = period_ends(ts)
        self.rows, self.last, self.period_ts = len(ts), int(ts[-1]), ts[ends if self.resampled else ends[1:]]
        self.most = len(self.period_ts)
        self.ends = np.append(ends[:-1], np.iinfo("i8").max)  # the last point ends one anyway
        events = prepared.tape.events
        kinds = events["kind"]
        bars = bool((kinds == codes.BAR).all() and (events["ts"] == events["recv"]).all())
        bars = bars and not events["instrument"].any()
        self.single = bars and bool((np.diff(events["ts"]) > 0).all()) and drive.sample_ns == 0
        self.actions = bool(np.isin(kinds, (codes.SPLIT, codes.DIVIDEND)).any())
        self.sample_ns = drive.sample_ns
