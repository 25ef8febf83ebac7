"""Replay: drive a kernel again over the events of a journal and compare what comes out with what came out then.

Law 1: replay(journal) = its orders, byte for byte: the same images, the same plan, the same platform.
Law 2: the first difference is named: the order, its fields, the event that caused it.

A reload that the journal tells of is done again at its command. What a crash kept from being written (the orders of
the last events of a journal that has no seal) is no difference.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ConfigError, ImageError, StrategyFault
from engine.faults import Caught, told
from engine.journal import Journal
from engine.journal import format as form
from engine.journal.format import EVENTS, ORDERS, RELOADS, ROW, Block, Place
from engine.journal.scan import Scanner
from engine.kernel import build, codes
from engine.kernel.events import Event
from engine.kernel.machine import OnError, python_handlers
from engine.kernel.records import Order, slots
from engine.plan import UNCOMPILED, Find, Plan, handlers_of
from engine.session import Rows, Session
from engine.session_loop import PROGRAM, READER, program

CHUNK = 1 << 16  # events in one drive


@dataclass(frozen=True)
class Replayed:
    """The outcome: numbers, the first difference in words (empty: identical), what is to be noted beside it."""

    events: int
    orders: int
    difference: str
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        same = f"identical: {self.events:,} events, {self.orders:,} orders"
        return "\n".join([self.difference or same, *self.notes])


@dataclass
class Piece:
    """Some events of a journal in order, with the orders that stand among and right behind them, and reloads."""

    events: Rows
    orders: bytes
    reloads: dict[int, dict[str, Any]]  # number of the reload -> what it puts in place


def pieces(blocks: Iterator[Block], size: int = CHUNK) -> Iterator[Piece]:
    """The blocks of a journal in pieces of at least `size` events (the last has fewer), each used before the next."""
    events: list[np.ndarray[Any, Any]] = []
    orders: list[bytes] = []
    reloads: dict[int, dict[str, Any]] = {}
    count = 0
    for kind, first, records, payload in blocks:
        if kind == EVENTS:
            if count >= size:
                whole = events[0] if len(events) == 1 else np.concatenate(events)
                yield Piece(whole.view(Event.dtype), b"".join(orders), reloads)
                events, orders, reloads, count = [], [], {}, 0
            events.append(np.frombuffer(payload, form.OPAQUE))
            count += records
        elif kind == ORDERS:
            orders.append(bytes(payload))
        elif kind == RELOADS:
            reloads[first] = Block(kind, first, records, payload).words()
    yield Piece(np.concatenate([np.zeros(0, form.OPAQUE), *events]).view(Event.dtype), b"".join(orders), reloads)


class Rerun:
    """A session driven over a journal. `wanted`, `made`: bytes of orders from the journal and from the kernel that have
    not been compared yet; `orders`: how many were equal."""

    def __init__(self, journal: Journal, plan: Plan, find: Find) -> None:
        self.journal, self.plan, self.find = journal, plan, find
        self.session = Session(plan.machine(), compiled=plan.compiled)
        self.scanner = Scanner(program(which=READER)) if plan.compiled else None
        self.reloads: dict[int, dict[str, Any]] = {}
        self.wanted, self.made, self.orders = b"", b"", 0

    def drive(self, start: Place | None = None) -> bool:
        """To the end of the journal; False at the first order that differs."""
        for piece in pieces(self.journal.blocks(start, self.scanner), CHUNK // 2):
            self.reloads |= piece.reloads
            for events in at_reloads(piece.events) if self.reloads else [piece.events]:
                if not self.session.halted:
                    self.made += self.session.advance(events, closing=False).tobytes()
                if len(events) and events["kind"][-1] == codes.COMMAND and events["code"][-1] == codes.RELOAD:
                    self.put(self.reloads[int(events["order_id"][-1])])
            self.wanted += piece.orders
            if not self.compare():
                return False
        if not self.session.halted:
            self.made += self.session.advance(np.zeros(0, Event.dtype), closing=True).tobytes()
        return self.compare()

    def drive_to_fault(self, strategy: int, seq: int, on_error: OnError) -> int:
        """Until a strategy fails, in plain Python from the kernel's event `seq` on; the time of that event, ns."""
        kernel, ts, plain = self.session.machine.kernel, 0, False
        for piece in pieces(self.journal.blocks()):
            self.reloads |= piece.reloads
            for events in at_reloads(piece.events):
                whole = kernel.seq + len(events) < seq
                for part in [events] if whole else np.split(events, len(events)):
                    if not whole and not plain and kernel.seq >= seq - 1:
                        plain = True
                        handlers = python_handlers(type(self.session.running(strategy)), on_error)
                        self.session.machine.retarget(strategy, handlers)
                    self.session.advance(part, closing=False)
                    ts = int(part["ts"][-1])
                    if slots(kernel, strategy).fault:
                        return ts
                if len(events) and events["kind"][-1] == codes.COMMAND and events["code"][-1] == codes.RELOAD:
                    self.put(self.reloads[int(events["order_id"][-1])])
                    plain = False
        self.session.advance(np.zeros(0, Event.dtype), closing=True)
        return ts

    def compare(self) -> bool:
        """Drop what both sides have, whole orders at a time; False when the next order differs."""
        both = min(len(self.wanted), len(self.made)) // ROW * ROW
        if self.wanted[:both] != self.made[:both]:
            same = next(n for n in range(0, both, ROW) if self.wanted[n : n + ROW] != self.made[n : n + ROW])
            self.orders += same // ROW
            self.wanted, self.made = self.wanted[same:], self.made[same:]
            return False
        self.orders += both // ROW
        self.wanted, self.made = self.wanted[both:], self.made[both:]
        return True

    def put(self, words: dict[str, Any]) -> None:
        """Do again what a RELOAD command did."""
        fresh = self.find(words["name"])(**words["params"])
        exact = words["image"] if self.plan.images else ""
        addresses, _ = handlers_of(type(fresh), self.plan.compiled, exact)
        self.session.swap(words["strategy"], fresh, addresses, words)


def at_reloads(events: Rows) -> list[Rows]:
    """Events cut behind each RELOAD command."""
    commands = np.flatnonzero(events["kind"] == codes.COMMAND)
    cuts = commands[events["code"][commands] == codes.RELOAD] + 1
    return np.split(events, cuts) if len(cuts) else [events]


def rebuilt(journal: Journal, find: Find, exact: bool = True) -> Rerun:
    """The kernel of a journal as it was at its start. Raises ImageError when `exact` and the driver is another one."""
    own, then = build.program_digest(*PROGRAM), journal.header["kernel"]
    if exact and then not in (own, UNCOMPILED):
        raise ImageError(f"{journal.name} was written by the kernel {then}, this is {own}: same bytes are promised for "
                         "the same images only. Replay it with the version that wrote it, or add images=present to see "
                         "whether this one does the same.")  # fmt: skip
    return Rerun(journal, Plan.of(journal.header, find, exact=exact), find)


def replay(folder: Path | str, find: Find, *, exact: bool = True) -> Replayed:
    """Replay a journal. `find`: classes of strategies by name; `exact`: with the images of then, else the present ones.

    Raises JournalError for a journal that is damaged, ImageError when what ran then is not to be had.
    """
    journal = Journal(folder)
    rerun = rebuilt(journal, find, exact)
    same, notes = rerun.drive(), [journal.torn] if journal.torn else []
    if not exact:
        notes.append("with the images of the present sources, which need not be those that ran then")
    left, more = len(rerun.wanted) // ROW, len(rerun.made) // ROW
    difference = ""
    if not same or left or (more and journal.sealed):
        difference = differs(journal, rerun)
    elif more:
        notes.append(f"{more} orders of the last events were not written before it ended; they were never sent")
    return Replayed(journal.place.events, rerun.orders, difference, notes)


def explain(folder: Path | str, find: Find, strategy: int) -> StrategyFault:
    """The fault that stopped a strategy of a session, from running its event again in plain Python.

    Off the path of the session: kernels of its own drive the journal from the beginning, twice. Raises ConfigError when
    the strategy has no fault there.
    """
    journal = Journal(folder)
    first, again = (rebuilt(journal, find, exact=False) for _ in range(2))
    first.drive()
    slot = slots(first.session.machine.kernel, strategy)
    code, seq = slot.fault, slot.fault_seq
    if not code:
        raise ConfigError(f"{journal.name}: strategy {strategy} has not failed.")
    caught: list[Caught] = []
    ts = again.drive_to_fault(strategy, seq, lambda *what: caught.append(what))
    failed = again.session.running(strategy)
    names = [info.name for info in again.plan.infos]
    return told(failed, code, caught, ts=ts, place=f"event {seq} of {journal.name}", names=names,
                signals=again.plan.sizes.signals)  # fmt: skip


def differs(journal: Journal, rerun: Rerun) -> str:
    """The first order that is not what it was, in words, with the event that caused it."""
    was, now = (np.frombuffer(rows[:ROW], Order.dtype) for rows in (rerun.wanted, rerun.made))
    number = rerun.orders
    if len(was) and len(now):
        byte = next(n for n in range(ROW) if rerun.wanted[n] != rerun.made[n])
        names = [n for n in Order.dtype.names or () if was[n].tobytes() != now[n].tobytes()]
        changes = ", ".join(f"{n} {was[n][0]!s} became {now[n][0]!s}" for n in names)
        what = f"byte {number * ROW + byte:,} of the orders differs: order {number} ({was['id'][0]}), {changes}"
    elif len(was):
        what = f"order {number} ({was['id'][0]}) did not come again"
    else:
        what = f"order {number} ({now['id'][0]}) did not exist"
    seq = min(int(rows["seq"][0]) for rows in (was, now) if len(rows))
    return f"{what}. Before it: {cause(journal, seq)}."


def cause(journal: Journal, seq: int) -> str:
    """The kernel's event number `seq` (from 1) in words."""
    passed = 0
    for block in journal.blocks():
        if block.kind == EVENTS:
            events = block.rows()
            real = np.flatnonzero(events["kind"] != codes.SLICE)
            if seq <= passed + len(real):
                return event_words(journal, events[real[seq - passed - 1]], block.first + int(real[seq - passed - 1]))
            passed += len(real)
    return f"event {seq}, which the journal does not have"


def event_words(journal: Journal, event: Any, number: int) -> str:
    """An event in words: number, kind, instrument, time, and what it says."""
    kind = codes.NAMES["kind"].get(int(event["kind"]), f"kind {event['kind']}")
    infos = journal.header["instruments"]
    name = infos[int(event["instrument"])]["name"] if int(event["instrument"]) < len(infos) else "no instrument"
    body = {
        codes.BAR: ("open", "high", "low", "close", "volume"), codes.QUOTE: ("bid", "ask", "bid_volume", "ask_volume"),
        codes.TRADE: ("price", "traded", "side"), codes.REPORT: ("code", "order_id", "qty", "price", "exec_id"),
        codes.COMMAND: ("code", "amount", "strategy"), codes.CORRECTION: ("qty", "price"),
    }  # fmt: skip
    said = ", ".join(f"{field} {event[field]!s}" for field in body.get(int(event["kind"]), ("amount",)))
    return f"event {number}, {kind} of {name} at {np.datetime64(int(event['recv']), 'ns')} ({said})"
