"""`check_strategy`: every law that a strategy can break, run on it.

    from backtest.check import check_strategy
    check_strategy(MyStrategy)              # on seeded synthetic bars
    check_strategy(MyStrategy(fast=5), "equities")

What is registered is checked in our own tests; for a strategy of yours it is one line in a test of yours.
"""

import copy
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backtest.audit import audit
from backtest.drive import Drive, Outputs, has_ticks
from backtest.drive import uncompiled as plain
from backtest.parity import Parity, differing
from backtest.run import Prepared, prepare
from backtest.spool import joined
from engine.errors import StrategyError
from engine.journal import JournalWriter
from engine.kernel import codes, image
from engine.kernel.machine import Placed, python_handlers
from engine.kernel.records import slots
from engine.kernel.strategy import Strategy
from engine.replay import replay
from engine.session import halt_error
from engine.session_loop import PROGRAM
from engine.store.synthetic import synthetic_tape
from engine.store.tape import Tape, frozen

# What of the loop is state; the rest is where its buffers lie.
CARRIED = ("index", "venue_index", "started", "closed", "next_sample")
LAWS = {"replay": "law 1, ", "chunking": "law 2, ", "snapshot": "law 3, ", "interpreter": "law 5, ",
        "driver": "law 6, ", "causality": "law 7, ", "conservation": "law 8, "}  # fmt: skip


@dataclass(frozen=True)
class Checked:
    """What was checked, and on how much: laws that held, events, orders, fills, seconds."""

    strategy: str
    laws: tuple[str, ...]
    events: int
    orders: int
    fills: int
    seconds: float

    def __str__(self) -> str:
        quiet = " It sent no order: give it data on which it does." if self.orders == 0 else ""
        return (f"{self.strategy} keeps {', '.join(self.laws)} on {self.events:,} events "
                f"({self.orders:,} orders, {self.fills:,} fills, {self.seconds:.1f} s).{quiet}")  # fmt: skip


def check_strategy(strategy: "Strategy | type[Strategy]", data: Any = None, *, events: int = 2000, short: int = 300,
                   seed: int = 0, tries: int = 3, **settings: Any) -> Checked:  # fmt: skip
    """Run every law on a strategy; a report when all hold.

    `data` as in `backtest` (default: seeded synthetic bars of three instruments), of which the first `events` are used,
    and the first `short` for the uncompiled run, which is slow. `tries` random cuts are made for each law that cuts,
    from `seed`. `settings` as in `prepare`.

    Raises StrategyError naming the law, the first order that differs and its event; StrategyFault for a handler
    that fails.

    >>> from strategies import Momentum
    >>> check_strategy(Momentum(fast=3, slow=8), events=300, short=60).laws[:3]
    ('determinism', 'chunking', 'snapshot')
    """
    begin = time.perf_counter()
    given = strategy() if isinstance(strategy, type) else strategy
    source = synthetic_tape(max(1, events // 3), 3, seed) if data is None else data
    subject = Subject(prepare(given, source, **settings), events)
    rng = np.random.default_rng(seed)
    laws: dict[str, Callable[[], None]] = {
        "determinism": subject.determinism,
        "chunking": lambda: subject.chunking(rng, tries),
        "snapshot": lambda: subject.snapshot(rng, tries),
        "interpreter": lambda: subject.interpreter(short),
        "causality": lambda: subject.causality(rng, tries),
        "driver": subject.driver,
        "replay": subject.replay,
        "conservation": lambda: subject.conservation(rng, tries),
        "parameters": subject.parameters,
    }
    for law in laws.values():
        law()
    fills = int(np.count_nonzero(subject.whole.reports["code"] == codes.FILL))
    seconds = time.perf_counter() - begin
    return Checked(repr(given), tuple(laws), len(subject.events), len(subject.whole.orders), fills, seconds)


class Subject:
    """Strategies on a tape, run whole once; each method runs them another way, or raises StrategyError."""

    def __init__(self, prepared: Prepared, events: int | None = None) -> None:
        self.prepared = self.on(prepared, prepared.tape.events[:events])
        self.tape = self.prepared.tape
        self.events = self.tape.events
        self.name = ", ".join(repr(s) for s in prepared.strategies)
        self.drive = self.prepared.drive()
        self.finish(self.drive)
        self.whole = self.drive.outputs()

    @staticmethod
    def on(prepared: Prepared, events: "np.ndarray[Any, Any]") -> Prepared:
        """The same run on other events."""
        other = copy.copy(prepared)
        rows = events if not events.flags.writeable else frozen(events)
        other.tape = Tape(rows, prepared.tape.instruments, prepared.tape.digest, prepared.tape.name)
        return other

    def finish(self, drive: Drive, until: int | None = None) -> Drive:
        """Drive on; a fault raises as in a backtest, a halt that risk asked for is an end like any other."""
        status = drive.advance(until)
        if status == codes.FAULTED:
            raise self.prepared.explain_faults(drive)[0]
        if status == codes.HALTED and drive.machine.kernel.halt != codes.HALT_RISK:
            raise halt_error(drive.machine)
        return drive

    def determinism(self) -> None:
        """The same run again gives the same bytes."""
        again = self.finish(self.prepared.drive())
        self.same("determinism", again.outputs(), "a second run of the same")
        self.same_state("determinism", again, "a second run of the same")

    def chunking(self, rng: np.random.Generator, tries: int) -> None:
        """Any partition of the feed gives the same bytes."""
        for _ in range(tries):
            cuts = np.sort(rng.integers(0, len(self.events) + 1, rng.integers(1, 12)))
            drive = self.prepared.drive()
            for cut in cuts:
                self.finish(drive, int(cut))
            self.finish(drive)
            self.same("chunking", drive.outputs(), f"fed in pieces that end at {cuts.tolist()}")
            self.same_state("chunking", drive, f"fed in pieces that end at {cuts.tolist()}")

    def snapshot(self, rng: np.random.Generator, tries: int) -> None:
        """State to bytes and back into fresh objects at any event, then on: the same bytes."""
        for cut in rng.integers(0, len(self.events) + 1, tries).tolist():
            first = self.finish(self.prepared.drive(), cut)
            second = self.prepared.drive()
            move(first, second)
            self.finish(second)
            self.same("snapshot", together(first.outputs(), second.outputs()), f"stopped and restored at event {cut}")
            self.same_state("snapshot", second, f"stopped and restored at event {cut}")

    def interpreter(self, short: int) -> None:
        """Plain Python gives the same bytes as compiled code."""
        few = Subject(self.prepared, min(short, len(self.events)))
        python = uncompiled(few.prepared).drive()
        few.finish(python)
        few.same("interpreter", python.outputs(), "in plain Python")
        few.same_state("interpreter", python, "in plain Python")

    def driver(self) -> None:
        """A session with the paper venue gives the same bytes as the loop with the venue in it."""
        parity = Parity(self.prepared)
        outputs = parity.run()
        outputs.curve = self.whole.curve
        how = "driven by a session beside the paper venue"
        self.same("driver", outputs, how)
        if what := differing(self.drive.machine, parity.session.machine):
            raise StrategyError(f"{self.broken('driver')}: {how}, the orders are the same, but the kernel's {what} is "
                                "not.")  # fmt: skip

    def replay(self) -> None:
        """The journal of such a session, driven again, gives the same orders."""
        classes = {type(s).__qualname__: type(s) for s in self.prepared.strategies}
        with tempfile.TemporaryDirectory(dir=image.cache_folder("spool")) as folder:
            journal = JournalWriter(Path(folder), self.prepared.plan().header(PROGRAM), sync_ms=math.inf)
            Parity(self.prepared, journal).run()
            journal.seal()
            replayed = replay(folder, lambda name: classes[name])
        if replayed.difference or replayed.orders != len(self.whole.orders):
            raise StrategyError(f"{self.broken('replay')}: {replayed}")

    def causality(self, rng: np.random.Generator, tries: int) -> None:
        """Orders up to event k stay when all events after k change, or never come."""
        for cut in rng.integers(0, len(self.events) + 1, 5 * tries).tolist():
            known = self.finish(self.prepared.drive(), cut)
            done = known.loop.index
            if known.ticks:  # it may have heard reports of what came after event `done`, and then have had to wait
                known = self.prepared.drive()
                known.advance(done, whole=True)
            seq = known.machine.kernel.seq
            later = unseen(self.events, done, known.machine.kernel.ts)
            futures = {"changed": disturbed(self.events, later, rng)}
            if done:
                futures["cut off"] = self.events[:later]
            for what, events in futures.items():
                drive = Subject.on(self.prepared, events).drive()
                drive.loop.stop_on_fault = 0  # strange prices may break a strategy, which is not what this looks for
                drive.advance(None if cut % 5 == 0 else done, whole=True)
                how = f"with all events from {later} on {what}"
                self.same("causality", _upto(drive.outputs(), seq), how, _upto(self.whole, seq))

    def conservation(self, rng: np.random.Generator, tries: int) -> None:
        """Fills, positions, cash and open orders agree, at the end and on the way."""
        for cut in [*rng.integers(0, len(self.events) + 1, tries).tolist(), None]:
            drive = self.finish(self.prepared.drive(), cut)
            for problem in audit(drive, drive.outputs()):
                raise StrategyError(f"{self.broken('conservation')}: after {drive.loop.index} events, {problem}.")

    def parameters(self) -> None:
        """Parameters are as they were given."""
        machine = self.drive.machine
        for s, given in enumerate(self.prepared.strategies):
            for instance in range(slots(machine.kernel, s).instances):
                for name, value in machine.state(s, instance).values.items():
                    if value != getattr(given, name):
                        raise StrategyError(f"{given!r} changed its parameter {name} to {value!r} during the run; "
                                            f"keep what changes in a field of state.")  # fmt: skip

    def same(self, law: str, outputs: Outputs, how: str, wanted: Outputs | None = None) -> None:
        """Raise unless all outputs are equal byte for byte."""
        base = wanted or self.whole
        for what in ("orders", "reports", "refusals", "curve"):
            a, b = getattr(base, what), getattr(outputs, what)
            if a.tobytes() != b.tobytes():
                raise StrategyError(f"{self.broken(law)}: {how}, {self.difference(what, a, b)}")

    def same_state(self, law: str, drive: Drive, how: str) -> None:
        """Raise unless kernel and venue end in the same state, byte for byte."""
        for what, a, b in (("kernel", self.drive.machine.snapshot(), drive.machine.snapshot()),
                           ("venue", self.drive.venue.memory.tobytes(), drive.venue.memory.tobytes())):  # fmt: skip
            if a != b:
                at = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
                raise StrategyError(f"{self.broken(law)}: {how}, the orders are the same, but the state of the {what} "
                                    f"differs from its byte {at} on.")  # fmt: skip

    def broken(self, law: str) -> str:
        return f"{self.name} on {self.tape.name} breaks {LAWS.get(law, '')}{law}"

    def difference(self, what: str, a: "np.ndarray[Any, Any]", b: "np.ndarray[Any, Any]") -> str:
        """The first row that differs, in words, with the event that caused it."""
        both = min(len(a), len(b))
        row = next((i for i in range(both) if a[i].tobytes() != b[i].tobytes()), both)
        shown = [_row(what, x[row]) if row < len(x) else "nothing" for x in (a, b)]
        ts = min(int(x[row]["ts"]) for x in (a, b) if row < len(x))
        event = int(np.searchsorted(self.events["ts"], ts, side="right")) - 1
        where = f"event {event} ({np.datetime64(ts, 'ns')})"
        return f"{what[:-1] if what.endswith('s') else what} {row} differs, at {where}: {shown[0]} became {shown[1]}."


def uncompiled(prepared: Prepared) -> Prepared:
    """The same run in plain Python."""
    other = copy.copy(prepared)
    other.function, other.compiled = plain(has_ticks(prepared.tape.events)), False
    places = zip(prepared.places(), prepared.strategies, strict=True)
    other._places = [p if type(s).library else Placed(s, p.instruments, python_handlers(type(s))) for p, s in places]
    return other


def move(first: Drive, second: Drive) -> None:
    """Carry the whole state of one run over into fresh objects, through bytes."""
    second.machine.restore(first.machine.snapshot())
    second.venue.memory[:] = np.frombuffer(first.venue.memory.tobytes(), np.uint8)
    for name in CARRIED:
        setattr(second.loop, name, getattr(first.loop, name))
    if first.ticks:  # what is under way between kernel and venue
        for name, done in (("orders", first.loop.arrived), ("reports", first.loop.taken)):
            left = getattr(first.loop, f"{name}_n") - done
            second.buffers[name][:left] = first.buffers[name][done : done + left]
            setattr(second.loop, f"{name}_n", left)
            setattr(first.loop, f"{name}_n", done)


def together(first: Outputs, second: Outputs) -> Outputs:
    """Outputs of two parts of a run as those of one."""
    return Outputs(**{name: joined([rows, getattr(second, name)]) for name, rows in vars(first).items()})


def unseen(events: "np.ndarray[Any, Any]", done: int, now: int) -> int:
    """The first event that nobody has seen when the kernel has taken `done`, at `now`: the venue sees by `ts`."""
    if done == 0 or not has_ticks(events):
        return done
    seen = np.flatnonzero(events["ts"][done:] <= now)
    return done + (int(seen[-1]) + 1 if len(seen) else 0)


def disturbed(events: "np.ndarray[Any, Any]", start: int, rng: np.random.Generator) -> "np.ndarray[Any, Any]":
    """The events with every bar, quote, trade and level from `start` on replaced by another that is possible."""
    changed = np.array(events)
    kinds = events["kind"][start:]
    where = start + np.flatnonzero(kinds == codes.BAR)
    prices = np.sort(events["close"][where][:, None] * rng.uniform(0.5, 2.0, (len(where), 4)), axis=1)
    turned = rng.permuted(prices[:, 1:3], axis=1)
    columns = {"low": prices[:, 0], "high": prices[:, 3], "open": turned[:, 0], "close": turned[:, 1]}
    for name, column in columns.items():
        changed[name][where] = column
    changed["volume"][where] = np.floor(rng.uniform(0.0, 5_000.0, len(where)))
    where = start + np.flatnonzero(kinds == codes.QUOTE)
    scale = rng.uniform(0.5, 2.0, len(where))
    for name in ("bid", "ask"):
        changed[name][where] = events[name][where] * scale
    for name in ("bid_volume", "ask_volume"):
        changed[name][where] = np.floor(rng.uniform(0.0, 50.0, len(where)))
    where = start + np.flatnonzero(kinds == codes.TRADE)
    changed["price"][where] = events["price"][where] * rng.uniform(0.5, 2.0, len(where))
    changed["traded"][where] = np.floor(rng.uniform(1.0, 50.0, len(where)))
    where = start + np.flatnonzero(kinds == codes.DEPTH)
    changed["traded"][where] = np.floor(rng.uniform(0.0, 50.0, len(where)))
    for i in np.unique(events["instrument"][where]):  # prices on its tick: others of its own
        own = where[events["instrument"][where] == i]
        changed["price"][own] = rng.permutation(events["price"][own])
    return changed


def _upto(outputs: Outputs, seq: int) -> Outputs:
    """Orders and refusals that events up to number `seq` of the kernel caused."""
    orders, refusals = (rows[rows["seq"] <= seq] for rows in (outputs.orders, outputs.refusals))
    return Outputs(orders=orders, refusals=refusals, reports=outputs.reports[:0], curve=outputs.curve[:0])


def _row(what: str, row: "np.ndarray[Any, Any]") -> str:
    if what == "reports":
        code = codes.NAMES["report"].get(int(row["code"]), str(row["code"]))
        return f"{code} of order {row['order_id']}, {row['qty']} lots at {row['price']}"
    if what == "curve":
        return f"equity {row['equity']!r}, cash {row['cash']!r}"
    fields = row.dtype.names or ()
    words = [
        codes.NAMES[name].get(int(row[name]), "?") for name in ("action", "type", "tif", "reason") if name in fields
    ]
    side = "" if "side" not in fields else "buy " if row["side"] > 0 else "sell "
    number = row["id"] if "id" in fields else row["order_id"]
    what = f"{' '.join(words)} {side}{row['qty']} lots of instrument {row['instrument']}"
    return f"{what} at {row['price']} (order {number})"
