"""Promotion: a tracked run becomes a bundle, a version of a model, and, if every gate is open, what `live` points at.

Law 1: all gates are checked, each says what it found, what it wants and what to do; the alias moves only if all pass.
Law 2: what is not there does not pass: a missing figure, a law that was not put to the test.
Law 3: what can be found out again is found out again, today, and not believed: orders, fills, data, drawdown, and how
       likely it is luck after all that was tried up to now.
"""

import math
import operator
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from engine import ledger
from engine import tracking_names as names
from engine.bundle import RECORDED, Programs, Recorded, pack
from engine.config import BREACHES, Risk, Settings, setting
from engine.errors import TrackingError
from engine.plan import Find
from engine.tracking_models import Models, Run, Version


@dataclass(frozen=True)
class Gates(Settings):
    """What a run must show to go live."""

    where: ClassVar[str] = "gates"

    oos_sharpe: float = setting(0.0, "annual Sharpe ratio on data that no choice has seen, at least")
    deflated_sharpe: float = setting(0.95, "probability that the Sharpe ratio is no luck of many lanes, at least", ge=0,
                                     le=1)  # fmt: skip
    periods: int = setting(250, "of returns (days, or bars where they are longer), at least", ge=2)
    drawdown: float = setting(0.25, "fraction lost since the highest equity, at most", ge=0, le=1)


@dataclass(frozen=True)
class Ceiling(Risk):
    """The loosest risk limits that may go live; their meaning is that of `risk`."""

    where: ClassVar[str] = "ceiling"


@dataclass(frozen=True)
class Again:
    """A run that was run again: `hashes` as recorded (count and sha256 of orders and fills), `causality`: how that law
    was broken (empty: it was kept) on `events` with `sent` orders; `honest`: figures after so many tries."""

    data: str
    hashes: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, float]
    causality: str
    sent: int
    events: int
    program: tuple[str, dict[str, Any]]  # of the loop that ran it
    honest: Callable[[ledger.Ledger], Mapping[str, float]] = lambda book: {}


NOBODY = ledger.Ledger()


@dataclass(frozen=True)
class Case:
    """What the gates look at."""

    run: Run
    recorded: Recorded
    again: Again
    gates: Gates
    ceiling: Risk
    sweep: Run | None = None
    book: ledger.Ledger = NOBODY

    @cached_property
    def honest(self) -> Mapping[str, float]:
        """How sure it is after the ledger of today; NaN where that is not defined."""
        return {names.DSR: math.nan, names.MIN_TRACK_RECORD: math.nan, **self.again.honest(self.book)}


@dataclass(frozen=True)
class Outcome:
    """What a gate found and wants; `cure` says what to do where it is shut."""

    passed: bool
    value: str
    wanted: str
    cure: str = ""


def same_data(case: Case) -> Outcome:
    """The data of today are those of the run."""
    then, data = case.recorded.words["data"]["digest"], case.recorded.words["data"]
    return Outcome(case.again.data == then, case.again.data[:12], then[:12],
                   f"{data['source']} has changed since: bring it back, or run again on what it is now.")  # fmt: skip


def same_outcome(case: Case) -> Outcome:
    """The run of today sends the same orders and gets the same fills, byte for byte."""
    found, wanted, words = [], [], []
    for what, tag in (("orders", names.ORDERS_SHA256), ("fills", names.FILLS_SHA256)):
        now, then = case.again.hashes[what], case.recorded.words[what]
        found.append(f"{now['count']:,} {what} {now['sha256'][:8]}")
        wanted.append(f"{then['count']:,} {what} {then['sha256'][:8]}")
        if now != then or case.run.tags.get(tag) != then["sha256"]:
            words.append(what)
    return Outcome(not words, ", ".join(found), ", ".join(wanted),
                   f"{' and '.join(words)} differ: Tandem, the strategy or the data are not what they were. Look at "
                   "what changed, run again, and promote that run.")  # fmt: skip


def causality(case: Case) -> Outcome:
    """No order depends on what came after it."""
    a = case.again
    value = a.causality or f"kept, {a.sent:,} orders on {a.events:,} events"
    cure = ("the strategy looks ahead; tandem mode=check shows where." if a.causality else
            "it was not put to the test: raise events until there are orders among them.")  # fmt: skip
    return Outcome(not a.causality and a.sent > 0, value, "kept, with orders", cure)


def out_of_sample(case: Case) -> Outcome:
    """The figure on data that no choice has seen: the run's, or its sweep's. That of a sweep is its procedure's, which
    takes the first lane, so it says nothing of any other."""
    least, rank = case.gates.oos_sharpe, case.run.tags.get(names.RANK, "unknown")
    cure = "test it on data that its choice has not seen; validation of a sweep does."
    if case.sweep and rank != "1":
        return Outcome(False, f"rank {rank} of its sweep", f"at least {least:g}, of rank 1",
                       "the sweep tested how its best lane fares, chosen anew each time, and no other: promote that "
                       f"(tandem mode=best sweep={case.sweep.run_id[:8]} rank=1), or sweep fewer lanes.")  # fmt: skip
    value, of = case.run.metrics.get(names.OOS_SHARPE, math.nan), ""
    if math.isnan(value) and case.sweep:
        value, of = case.sweep.metrics.get(names.OOS_SHARPE, math.nan), f", of its sweep {case.sweep.run_id[:8]}"
    if math.isnan(value):
        return Outcome(False, "missing", f"at least {least:g}", f"the run has no figure {names.OOS_SHARPE}: {cure}")
    return Outcome(value >= least, f"{value:.4g}{of}", f"at least {least:g}", cure)


def deflated(case: Case) -> Outcome:
    """The probability that it is no luck, after all lanes that were tried up to now."""
    now, then, least = case.honest[names.DSR], case.run.metrics.get(names.DSR, math.nan), case.gates.deflated_sharpe
    tried = case.run.metrics.get(names.LEDGER_LANES, math.nan)
    before = "" if math.isnan(then) or abs(then - now) < 5e-5 else (
        f" after {case.book.lanes:,} lanes of today, {then:.4g} when it ran"
        + ("" if math.isnan(tried) else f", after {tried:,.0f}"))  # fmt: skip
    return Outcome(now >= least, "missing" if math.isnan(now) else f"{now:.4g}{before}", f"at least {least:g}",
                   f"luck explains too much of it, of {case.book.lanes:,} lanes tried {case.book.idea}: look at "
                   "fewer lanes, or at more data.")  # fmt: skip


def track_record(case: Case) -> Outcome:
    """There are enough periods to tell a Sharpe ratio of this size from zero, and no fewer than is asked of any."""
    has, needs = case.again.metrics.get("periods", 0.0), case.honest[names.MIN_TRACK_RECORD]
    cure = "run it on a longer span, or say gates.periods=…."
    if not math.isfinite(needs):
        return Outcome(False, f"{has:,.0f} periods", "a Sharpe ratio above zero", f"no record is long enough: {cure}")
    least = max(case.gates.periods, math.ceil(needs))
    return Outcome(has >= least, f"{has:,.0f} periods", f"at least {least:,}", cure)


def drawdown(case: Case) -> Outcome:
    """The worst fall from a peak, in the run of today."""
    fall, most = -case.again.metrics.get(names.MAX_DRAWDOWN, math.nan), case.gates.drawdown
    return Outcome(fall <= most, "missing" if math.isnan(fall) else f"{fall:.2%}", f"at most {most:.2%}",
                   "trade less of it, limit it (risk.drawdown=…, risk.breach), or say gates.drawdown=….")  # fmt: skip


def limits(case: Case) -> Outcome:
    """No risk limit is looser than the ceiling."""
    loose = looser(Risk(**case.recorded.words["risk"]), case.ceiling)
    said = [f"risk.{key}={shown(value)}" for key, value, _ in loose]
    cure = [f"risk.{key}={shown(most)}" for key, _, most in loose]
    return Outcome(not loose, ", ".join(said) or "within", ", ".join(cure) or "within the ceiling",
                   f"run it again with {' '.join(cure)}; the ceiling is conf/ceiling.")  # fmt: skip


GATES: Mapping[str, Callable[[Case], Outcome]] = {
    "data": same_data,
    "re-run": same_outcome,
    "causality": causality,
    "out of sample": out_of_sample,
    "deflated Sharpe": deflated,
    "track record": track_record,
    "drawdown": drawdown,
    "risk limits": limits,
}  # fmt: skip
LARGER: Callable[[Any, Any], bool] = operator.gt
# Of a limit: whether a value is looser than what is allowed. All others are looser when they are larger.
LOOSER: Mapping[str, Callable[[Any, Any], bool]] = {
    "short": lambda mine, most: mine and not most,
    "netting": lambda mine, most: mine and not most,
    "self_match": lambda mine, most: most and not mine,
    "allow": lambda mine, most: bool(most) and (not mine or not set(mine) <= set(most)),
    "block": lambda mine, most: not set(most) <= set(mine),
    "breach": lambda mine, most: any(BREACHES[mine.get(k, "refuse")] < BREACHES[v] for k, v in most.items()),
}


def looser(mine: Risk, most: Risk) -> list[tuple[str, Any, Any]]:
    """The limits of `mine` that are looser than those of `most`: key, value, what is allowed.

    >>> looser(Risk(leverage=3.0), Risk(leverage=2.0))
    [('leverage', 3.0, 2.0)]
    """
    found = ((f.name, getattr(mine, f.name), getattr(most, f.name)) for f in fields(Risk))
    return [(key, a, b) for key, a, b in found if LOOSER.get(key, LARGER)(a, b)]


def shown(value: Any) -> str:
    """A limit as one types it."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}: {v}" for k, v in value.items()) + "}"
    return f"[{','.join(value)}]" if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Promoted:
    """The version and what each gate said; `moved`: the alias points at it now."""

    version: Version
    outcomes: Mapping[str, Outcome]
    alias: str

    @property
    def moved(self) -> bool:
        """Whether all gates were open."""
        return all(one.passed for one in self.outcomes.values())

    def __str__(self) -> str:
        width = max(map(len, self.outcomes))
        rows = [f"{'passed' if o.passed else 'FAILED'}   {name:<{width}}  {o.value} (wanted: {o.wanted})"
                + (f"\n{'':<{width + 11}}{o.cure}" if not o.passed else "")
                for name, o in self.outcomes.items()]  # fmt: skip
        shut, model = sum(not o.passed for o in self.outcomes.values()), self.version.name
        end = (f"Live     {model}@{self.alias} is version {self.version.version} now" if self.moved else
               f"Stays    {model}@{self.alias} is what it was: {shut} of {len(rows)} gates failed")  # fmt: skip
        return "\n".join([f"Bundle   {self.version}, {self.version.bundle[:12]}", *rows, end])

    def markdown(self) -> str:
        """The same for the tracker."""
        rows = [f"| {name} | {'passed' if o.passed else '**failed**'} | {o.value} | {o.wanted} |"
                for name, o in self.outcomes.items()]  # fmt: skip
        return "\n".join(["| gate | | found | wanted |", "|---|---|---|---|", *rows])


def book(models: Models, run: Run, sweep: Run | None) -> ledger.Ledger:
    """What was tried up to now in the run's experiment, on its data; the run itself, or the sweep that it is a lane of,
    counts in any case."""
    own = sweep or replace(run, tags={**run.tags, names.KIND: names.BACKTEST})
    span = [int(run.tags[key]) if key in run.tags else None for key in (names.FIRST_NS, names.LAST_NS)]
    return ledger.read(models.where(run)[1], *span, also={"tags": own.tags, "metrics": own.metrics},
                       tracking_uri=models.uri)  # fmt: skip


def promote(models: Models, beginning: str, repeat: Callable[[Recorded], Again], programs: Programs, find: Find, *,
            model: str | None, alias: str, gates: Gates, ceiling: Risk) -> Promoted:  # fmt: skip
    """Bundle a run, register the bundle, check every gate, and move the alias if all are open.

    `repeat` runs what was recorded again. Raises TrackingError for a run that is not there or keeps nothing, DataError
    for one that was altered, and what `repeat` raises.
    """
    run = models.run(beginning)
    if run.status != "FINISHED" or names.RECORDED not in run.tags:
        why = f"is {run.status}" if run.status != "FINISHED" else "recorded nothing that could be run again"
        raise TrackingError(f"{run.about} {why}; promote a finished backtest (a lane of a sweep: tandem mode=best).")
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        recorded = Recorded.read(models.fetch(run.run_id, RECORDED, place), run.tags[names.RECORDED], run.about)
        again = repeat(recorded)
        words = {"run": run.run_id, "name": run.name, "metrics": dict(run.metrics)}
        folder = place / names.BUNDLE
        folder.mkdir()
        digest = pack(folder, recorded, {**programs, "backtest": again.program}, find, words)
        version = models.register(model or str(recorded.words["name"]), run, folder, digest)
    sweep = models.sweep_of(run)
    case = Case(run, recorded, again, gates, ceiling, sweep, book(models, run, sweep))
    found = Promoted(version, {name: gate(case) for name, gate in GATES.items()}, alias)
    models.judge(version, "passed" if found.moved else "failed", f"{run.link}\n\n{found.markdown()}",
                 alias if found.moved else None)  # fmt: skip
    done = f"as {version.link}: gates {'passed' if found.moved else 'failed'}."
    models.tag(run, {names.MODEL: str(version)}, f"Promoted {done}")
    if sweep:
        models.tag(sweep, {}, f"Its lane {run.link} was promoted {done}")
    return found
