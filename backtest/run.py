"""A backtest from strategies and data to a result.

`prepare` opens the data, compiles what is not compiled and lays everything out; `Prepared.run` drives it, as often as
one likes; `backtest` is both in one call.
"""

import math
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from backtest import record
from backtest.drive import (
    CURVE_POINTS,
    PROGRAMS,
    Drive,
    Outputs,
    SimulatedVenue,
    has_ticks,
    program,
    told_depth,
    uncompiled,
)
from backtest.latency import read_latencies
from backtest.result import Result
from engine.config import Risk, VenueModel, config_hash, unknown
from engine.errors import ConfigError, StrategyError, StrategyFault
from engine.faults import Caught, told
from engine.kernel import build, codes, image
from engine.kernel.machine import Machine, Placed, Sizes, python_handlers
from engine.kernel.records import Curve, slots
from engine.kernel.strategy import HANDLERS, Strategy
from engine.plan import Plan, instrument_rows, sizes_for
from engine.session import halt_error
from engine.store import open_tape
from engine.store.calendars import hours_of
from engine.store.files import progress
from engine.store.tape import fetch

PIECE = 1 << 22  # events between two looks at the outside world
Span = Any  # str, date, datetime or None


def backtest(strategy: "Strategy | Sequence[Strategy]", data: Any, **settings: Any) -> Result:
    """Run one strategy, or several in one account, over data; settings as in `prepare`.

    >>> from strategies import Momentum
    >>> from engine.store.synthetic import synthetic_frame
    >>> backtest(Momentum(fast=5, slow=20), synthetic_frame(500, seed=7)).metrics["fills"] > 0
    True
    """
    return prepare(strategy, data, **settings).run()


TOLD = {"on_bar": "bars", "on_quote": "quotes", "on_trade": "trades", "on_depth": "depth"}


def prepare(strategy: "Strategy | Sequence[Strategy]", data: Any, *, instruments: Any = None,
            start: Span = None, end: Span = None, cash: float = 100_000.0, risk: Risk | None = None,
            venue: VenueModel | None = None, compiled: bool = True,
            sizes: Sizes | None = None, on_fault: str = "raise", name: str | None = None,
            open_options: dict[str, Any] | None = None,
            **short: Any) -> "Prepared":  # fmt: skip
    """Everything ready to run.

    `data`: a dataset's name, a path, or a polars frame with a time column and OHLCV. `start`, `end`: [start, end) on
    the bars' close times. `open_options`: what `open_tape` takes besides, such as `{"timezone": "Europe/Berlin"}`.
    `cash` in account currency. Fields of Risk and VenueModel may be given by their name
    (`taker_bps=5, leverage=2`). `on_fault`: "raise" stops at the first fault of a strategy, "continue" lets the others
    go on. `compiled=False` runs the same code in plain Python, thousands of times slower, for a debugger.

    Raises ConfigError, DataError, StrategyError with what is wrong and what to do.
    """
    given: list[Any] = list(strategy) if isinstance(strategy, list | tuple) else [strategy]
    if not given:
        raise ConfigError("A backtest needs at least one strategy, the list is empty.")
    for one in given:
        if not isinstance(one, Strategy):
            hint = f"; write {one.__name__}()" if isinstance(one, type) else ""
            raise ConfigError(f"A strategy must be an instance of a Strategy class, got {one!r}{hint}.")
    if isinstance(cash, bool) or not isinstance(cash, int | float) or not 0 < cash < math.inf:
        raise ConfigError(f"cash must be a number above 0, got {cash!r}.")
    if on_fault not in ("raise", "continue"):
        raise ConfigError(f"on_fault must be raise or continue, got {on_fault!r}.")
    risk, venue = _with(Risk() if risk is None else risk, VenueModel() if venue is None else venue, short)
    tape = open_tape(data, instruments, start, end, **(open_options or {}))
    found = Prepared(given, tape, float(cash), risk, venue, compiled, sizes, on_fault, name)
    for one, its in zip(given, found.images, strict=True):
        check_heard(one, its.addresses if its is not None else one.handlers, tape)
    found.opened = {"source": _source(data), "start": _plain(start), "end": _plain(end), "options": open_options or {},
                    "instruments": [instruments] if isinstance(instruments, str) else instruments}  # fmt: skip
    return found


def check_heard(strategy: Strategy, handlers: Iterable[str], tape: Any) -> None:
    """Raise StrategyError for a strategy that no event of the tape would ever reach."""
    if {"on_slice", "on_start", "on_timer"} & set(handlers):
        return
    wanted, kinds = [HANDLERS[name][0] for name in handlers if name in TOLD], tape.events["kind"]
    if np.isin(kinds[:4096], wanted).any() or np.isin(kinds, wanted).any():
        return
    held = [name for name in TOLD if (kinds == HANDLERS[name][0]).any()]
    raise StrategyError(
        f"{type(strategy).__qualname__} has {', '.join(handlers)}, and {tape.name or 'the data'} holds "
        f"{' and '.join(TOLD[name] for name in held) or 'no market data'}: none of its handlers would ever run. Choose "
        f"data that it listens to, or write {' or '.join(held) or 'another handler'}."
    )


def _source(data: Any) -> str | None:
    """How data are opened again: a dataset's name, or the whole path; None for what was in memory only."""
    if not isinstance(data, str | Path):
        return None
    path = Path(data)
    return str(path.absolute()) if path.is_file() or (path / "dataset.json").is_file() else str(data)


def _plain(when: Span) -> str | None:
    return None if when is None else when if isinstance(when, str) else when.isoformat()


def _with(risk: Risk, venue: VenueModel, short: dict[str, Any]) -> tuple[Risk, VenueModel]:
    """Settings given by their bare name, each to where it belongs. Raises ConfigError for what is no settings."""
    for name, given, kind in (("risk", risk, Risk), ("venue", venue, VenueModel)):
        if not isinstance(given, kind):
            what = f"{kind.__name__}({', '.join(f'{f.name}=…' for f in fields(kind)[:2])})"
            raise ConfigError(f"{name} must be a {kind.__name__}, such as {name}={what} from engine.config, got "
                              f"{given!r}. A single field may be given by its name; the presets of conf/{name} belong "
                              f"to the command line: tandem mode=backtest {name}=….")  # fmt: skip
    first, second = dict(vars(risk)), dict(vars(venue))
    for key, value in short.items():
        if key in first:
            first[key] = value
        elif key in second:
            second[key] = value
        else:
            raise unknown("setting", key, ["instruments", "start", "end", "cash", "open_options", *first, *second])
    return Risk(**first), VenueModel(**second)


class Prepared:
    """A backtest that is ready to run; each run starts afresh."""

    def __init__(self, strategies: list[Strategy], tape: Any, cash: float, risk: Risk, venue: VenueModel,
                 compiled: bool,
                 sizes: Sizes | None, on_fault: str, name: str | None) -> None:  # fmt: skip
        self.strategies, self.tape, self.cash, self.risk, self.venue = strategies, tape, cash, risk, venue
        self.compiled, self.on_fault = compiled, on_fault
        self.opened: dict[str, Any] = {"source": None}  # how the data are opened again
        self.rows = instrument_rows(tape.instruments, risk, venue.fees())
        span = int(tape.events["ts"][0]), int(tape.events["ts"][-1])
        self.sessions, self.rows["day_offset_ns"] = hours_of(tape.instruments, *span)
        self.latencies = None if venue.latency is None else read_latencies(venue.latency)
        self.sizes = sizes or sizes_for(len(self.rows), len(strategies))
        self.images = [build.handlers(type(s)) if compiled or type(s).library else None for s in strategies]
        ticks = has_ticks(tape.events)
        self.depth = [i for i in told_depth(tape.events) if i < len(self.rows)]
        self.function = program(ticks) if compiled else uncompiled(ticks)
        self.name = name or strategies[0].__class__.__name__.lower()
        self._places: list[Placed] | None = None

    def places(self) -> list[Placed]:
        """The strategies with their handlers' addresses."""
        if self._places is None:
            everything = tuple(range(len(self.rows)))
            found = [
                i.addresses if i is not None else python_handlers(type(s))
                for s, i in zip(self.strategies, self.images, strict=True)
            ]
            self._places = [Placed(s, everything, a) for s, a in zip(self.strategies, found, strict=True)]
        return self._places

    def machine(self, sizes: Sizes | None = None) -> Machine:
        """A fresh kernel."""
        return Machine(self.places(), self.rows, cash=self.cash, limits=self.risk.limits(),
                       breach=self.risk.breaches(), sizes=sizes or self.sizes, depth=self.depth)  # fmt: skip

    def simulated(self) -> SimulatedVenue:
        """A fresh venue."""
        return SimulatedVenue(self.rows, self.cash, self.venue, self.risk.leverage, self.sizes.orders,
                              has_ticks(self.tape.events), self.depth, self.sessions, self.latencies)  # fmt: skip

    def plan(self, names: Sequence[str] = (), session: int = 1) -> Plan:
        """What the kernel is built of, for a session; `names`: by which the classes of the strategies are found."""
        found = tuple(names) or tuple(type(s).__qualname__ for s in self.strategies)
        return Plan(tuple(self.strategies), found, self.tape.instruments, self.rows, self.cash, self.risk.limits(),
                    self.risk.breaches(), self.sizes, session, self.compiled, depth=tuple(self.depth))  # fmt: skip

    def drive(self, function: Any = None) -> Drive:
        """A fresh kernel and venue on the tape."""
        machine, venue, events = self.machine(), self.simulated(), self.tape.events
        span = int(events["ts"][-1]) - int(events["ts"][0])
        sample = 0 if len(events) <= CURVE_POINTS else span // (CURVE_POINTS // 2)
        return Drive(machine, venue, events, sample, self.on_fault == "raise", function or self.function)

    def run(self) -> Result:
        """One run. Raises StrategyFault or KernelHalted."""
        begin = time.perf_counter()
        drive = self.drive()
        status = self._advance(drive)
        if status == codes.FAULTED:
            raise self.fault(drive)
        if status == codes.HALTED and drive.machine.kernel.halt != codes.HALT_RISK:
            raise halt_error(drive.machine)
        return self.result(drive.outputs(), drive, time.perf_counter() - begin)

    def fault(self, drive: Drive) -> StrategyFault:
        """The first fault of the timestamp that a drive stopped at, which tells of a halt beside it."""
        found = self.explain_faults(drive)[0]
        if drive.machine.kernel.halt != codes.RUNNING:
            found.args = (f"{found}\nAt the same time: {halt_error(drive.machine)}", *found.args[1:])
        return found

    def names(self) -> list[str]:
        """One name for each strategy; a class that comes twice is numbered."""
        found: list[str] = []
        for strategy in self.strategies:
            name = type(strategy).__name__
            again = sum(type(other) is type(strategy) for other in self.strategies[: len(found)])
            found.append(f"{name} {again + 1}" if again else name)
        return found

    def title(self) -> str:
        """What tells this run from others of its strategies: their names, and the parameters that are not default."""
        changed = [[f"{k}={v}" for k, v in s.values.items() if v != type(s).params[k].default] for s in self.strategies]
        return ", ".join(" ".join([name, *own]) for name, own in zip(self.names(), changed, strict=True))

    def _advance(self, drive: Drive) -> int:
        """To the end of the tape; a long one in pieces, so that a bar can move and Ctrl-C is heard."""
        total = len(self.tape.events)
        if total <= PIECE and self.compiled:
            return drive.advance()
        with progress(total, self.name, "events") as shown, ThreadPoolExecutor(1, "ahead") as ahead:
            status, step = 0, PIECE if self.compiled else 1000
            for until in range(step, total + step, step):
                ahead.submit(fetch, self.tape.events[until : until + step])
                before = drive.loop.index
                status = drive.advance(until)
                shown.update(drive.loop.index - before)
                if status:
                    break
        return status

    def result(self, outputs: Outputs, drive: Drive, seconds: float) -> Result:
        """The outputs as a result."""
        k = drive.machine.kernel
        last, curve = np.zeros(1, Curve.dtype), outputs.curve
        last["ts"], last["equity"], last["cash"], last["gross"] = k.ts, k.cash + k.value, k.cash, k.gross
        if len(curve) == 0 or curve[-1] != last[0]:  # a sampled curve still ends at the end, reports of then included
            outputs.curve = drive.ended(curve[: np.searchsorted(curve["ts"], k.ts)], last)
        identity = dict(self.identity)
        if k.faulted:  # on_fault="continue": the others went on, but nobody is stopped in silence
            identity["faults"] = [str(fault) for fault in self.faults()]
            print("\n".join(f"tandem: stopped by a fault: {text}" for text in identity["faults"]), file=sys.stderr)
        refused = int((outputs.refusals["reason"] != codes.NETTED).sum())
        if refused < k.refused:
            print(f"tandem: of {k.refused:,} refusals {k.refused - refused:,} were counted but not kept: more at one "
                  f"time than sizes.refusals={self.sizes.refusals:,} holds; raise it: sizes=Sizes(refusals=…), from "
                  "engine.kernel.machine.", file=sys.stderr)  # fmt: skip
        return Result(outputs.orders, outputs.reports, outputs.refusals, outputs.curve, self.tape, self.names(),
                      self.cash, self.config, identity, seconds, self.title(), int(k.refused),
                      partial(record.write, self))  # fmt: skip

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved settings as plain values."""
        return {
            "name": self.name, "cash": self.cash, "risk": asdict(self.risk), "venue": asdict(self.venue),
            "strategies": [{"class": type(s).__name__, "params": s.values} for s in self.strategies],
            "data": {"name": self.tape.name, "digest": self.tape.digest,
                     "instruments": [i.name for i in self.tape.instruments]},
        }  # fmt: skip

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What ran: the images and the hash of the settings."""
        kernel = build.program_digest(*PROGRAMS[has_ticks(self.tape.events)]) if self.compiled else "uncompiled"
        return {"kernel": kernel, "strategies": [i.digest if i else "uncompiled" for i in self.images],
                "config": config_hash(self.config), "platform": image.platform_words()[:6]}  # fmt: skip

    def faults(self) -> list[StrategyFault]:
        """The run once more, with what each strategy that stopped raised."""
        drive, found = self.drive(), []
        drive.loop.stop_on_fault = 1
        while drive.advance() == codes.FAULTED:
            found += self.explain_faults(drive)
        return found

    def explain_faults(self, drive: Drive) -> list[StrategyFault]:
        """The faults of the timestamp that `drive` stopped at, from running it again, uncompiled, on the same state."""
        at, until = drive.loop.fault_index, drive.loop.index
        again = self.drive()
        again.loop.stop_on_fault = 0
        again.advance(at, whole=True)
        fresh = [s for s in range(len(self.strategies)) if _fault(drive, s) and not _fault(again, s)]
        caught: dict[int, list[Caught]] = {s: [] for s in fresh}
        for s in fresh:
            if not self.strategies[s].library:
                again.machine.retarget(
                    s, python_handlers(type(self.strategies[s]), lambda *what, s=s: caught[s].append(what))
                )
        again.function = uncompiled(again.ticks)
        if at < len(self.tape.events):
            again.advance(until, whole=True)
        else:
            again.advance()  # after the last event, at a report that was still under way
        return [self.told(s, _fault(drive, s), at, caught[s]) for s in fresh]

    def told(self, faulty: int, code: int, at: int, caught: list[Caught]) -> StrategyFault:
        """One fault as an exception, which the original one caused."""
        ts = int(self.tape.events["ts"][min(at, len(self.tape.events) - 1)])
        return told(self.strategies[faulty], code, caught, ts=ts, place=f"event {at} of the tape",
                    names=[info.name for info in self.tape.instruments], signals=self.sizes.signals)  # fmt: skip


def _fault(drive: Drive, strategy: int) -> int:
    return slots(drive.machine.kernel, strategy).fault
