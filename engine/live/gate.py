"""The gate: what market data must be before the kernel sees it. Compiled, one call for all that a drain holds.

Law 1: what passes keeps its order and its bytes; what does not is set aside with a reason. A row of depth that is set
       aside leaves a GAP in its place: a book without it would be wrong.
Law 2: a single absurd price is set aside; a second one that agrees with it is the new truth, so that a market that
       really jumped is not shut out.
"""

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from engine.kernel import build, codes
from engine.kernel.events import Event, event_at
from engine.kernel.layout import F8, I8, U1, Record
from engine.kernel.primitives import Pointer
from engine.kernel.records import line_at

KIND, INSTRUMENT, PRICE, LATE, EARLY, ABSURD = 1, 2, 3, 4, 5, 6
WHY = {KIND: ("kind", "no kind of market data"), INSTRUMENT: ("instrument", "no such instrument here"),
       PRICE: ("price", "prices and volumes must be finite, and positive where something was traded"),
       LATE: ("late", "older than the last of its kind and instrument"), EARLY: ("early", "from the future"),
       ABSURD: ("absurd", "further from the last price than feed.jump allows")}  # fmt: skip
MISSED, RESTARTED, SILENT = 1, 2, 3  # the `code` of a GAP
LINES = 4096  # sources on channels that can be told apart
ASIDE = 256  # events set aside in one drain that are kept; more are counted


class Cell(Record):
    """What was last seen of one kind of one instrument."""

    ts: I8
    price: F8


class Flag(Record):
    """One byte of a table that lies outside of the gate."""

    on: U1


class Gate(Record):
    """What the compiled call is given: where the events are, what was seen before, and the limits."""

    events: I8  # addresses
    aside: I8
    seen: I8  # a Cell for each instrument and kind; that of kind 0 has the last price, of kind 1 a suspect
    shown: I8  # a Flag for each line and instrument: whether the line has shown it
    count: I8
    kept: I8
    refused: I8
    aside_cap: I8
    instruments: I8
    now: I8  # receiver's clock, ns
    late_ns: I8
    early_ns: I8
    jump: F8  # largest move from one price to the next, as a fraction


gate_at, cell_at, flag_at = Pointer(Gate), Pointer(Cell), Pointer(Flag)


def sound(x: float) -> bool:
    """Whether a volume or the price of a side that may be empty is a number that can be."""
    return math.isfinite(x) and x >= 0.0


def real(x: float) -> bool:
    """Whether it is a price."""
    return math.isfinite(x) and x > 0.0


def sane(ev: Event) -> bool:
    """Whether the numbers of an event can be."""
    if ev.kind == codes.QUOTE:
        return sound(ev.bid) and sound(ev.ask) and sound(ev.bid_volume) and sound(ev.ask_volume)
    if ev.kind == codes.TRADE:
        return real(ev.price) and sound(ev.traded) and -1 <= ev.side <= 1
    if ev.kind == codes.DEPTH:
        return real(ev.price) and sound(ev.traded) and (ev.side == 1 or ev.side == -1)
    if ev.kind == codes.BAR:
        ordered = ev.low <= ev.open <= ev.high and ev.low <= ev.close <= ev.high
        return real(ev.low) and real(ev.high) and ordered and sound(ev.volume)
    if ev.kind == codes.SPLIT:
        return real(ev.amount)
    return math.isfinite(ev.amount)


def price_of(ev: Event) -> float:
    """The price that an event shows, 0 when it shows none."""
    if ev.kind == codes.QUOTE:
        return 0.5 * (ev.bid + ev.ask) if ev.bid > 0.0 and ev.ask > 0.0 else 0.0
    if ev.kind == codes.TRADE:
        return ev.price
    return ev.close if ev.kind == codes.BAR else 0.0


def cell(g: Gate, instrument: int, kind: int) -> Cell:
    """A row of what was seen."""
    return cell_at(g.seen + (instrument * codes.KINDS + kind) * 16)


def absurd(g: Gate, ev: Event) -> bool:
    """Whether a price lies too far from the last one, and the one before does not agree with it."""
    price = price_of(ev)
    if price <= 0.0:
        return False
    last, suspect = cell(g, ev.instrument, 0), cell(g, ev.instrument, 1)
    far = last.price > 0.0 and abs(price / last.price - 1.0) > g.jump
    if far and not (suspect.price > 0.0 and abs(price / suspect.price - 1.0) <= g.jump):
        suspect.price = price
        return True
    last.price = price
    suspect.price = 0.0
    return False


def judge(g: Gate, ev: Event) -> int:
    """Why an event does not pass, 0 when it does."""
    kind = ev.kind
    if kind == codes.GAP:
        return 0 if ev.instrument < g.instruments else INSTRUMENT
    market = codes.BAR <= kind <= codes.DEPTH
    if not market and kind != codes.FUNDING and kind != codes.SPLIT and kind != codes.DIVIDEND:
        return KIND
    if ev.instrument >= g.instruments:
        return INSTRUMENT
    if not sane(ev):
        return PRICE
    last = cell(g, ev.instrument, kind)
    if ev.ts > g.now + g.early_ns:
        return EARLY
    if ev.ts < last.ts - g.late_ns:
        return LATE
    if absurd(g, ev):
        return ABSURD
    last.ts = max(last.ts, ev.ts)
    flag_at(g.shown + ev.recv * g.instruments + ev.instrument).on = 1
    if kind == codes.SPLIT:
        cell(g, ev.instrument, 0).price = 0.0
    return 0


def copy(to: int, start: int) -> None:
    """Copy an event from one address to another."""
    there, here = line_at(to), line_at(start)
    for i in range(8):
        there.words[i] = here.words[i]


def leave_gap(g: Gate, ev: Event) -> None:
    """Turn an event into the GAP of one missing event of its instrument."""
    ev.ts = g.now
    ev.kind = codes.GAP
    ev.code = MISSED
    ev.amount = 1.0


def admit(address: int) -> None:
    """Judge `count` events; those that pass move together, the others go aside with the reason as their `recv`.

    Before, `recv` is the number of the line that an event came on.
    """
    g = gate_at(address)
    g.kept = 0
    g.refused = 0
    for n in range(g.count):
        here = g.events + n * 64
        why = judge(g, event_at(here))
        if why == 0:
            if g.kept != n:
                copy(g.events + g.kept * 64, here)
            g.kept += 1
        else:
            if g.refused < g.aside_cap:
                copy(g.aside + g.refused * 64, here)
                event_at(g.aside + g.refused * 64).recv = why
            g.refused += 1
            if event_at(here).kind == codes.DEPTH and why != INSTRUMENT:
                leave_gap(g, event_at(here))
                if g.kept != n:
                    copy(g.events + g.kept * 64, here)
                g.kept += 1


PROGRAM: tuple[str, dict[str, Callable[[int], None]]] = ("gate", {"admit": admit})


class Admission:
    """Owns the gate's memory. `late_s`, `early_s` in seconds, `jump` as a fraction; inf switches each off.

    `shown[line, instrument]` is 1 when an event of that instrument has passed that came on that line.
    """

    def __init__(self, instruments: int, late_s: float, early_s: float, jump: float, compiled: bool = True) -> None:
        g, self._aside = Gate.new(), np.zeros(ASIDE, Event.dtype)
        self._seen = np.zeros(instruments * codes.KINDS, Cell.dtype)
        self.shown = np.zeros((LINES, instruments), np.uint8)
        self._gate, self._address = g, g._address
        g.aside, g.aside_cap, g.seen = self._aside.ctypes.data, ASIDE, self._seen.ctypes.data
        g.instruments, g.jump, g.shown = instruments, jump, self.shown.ctypes.data
        g.late_ns, g.early_ns = (int(min(s, 1e9) * 1e9) for s in (late_s, early_s))
        cells = (g.cell(name) for name in ("events", "count", "now", "kept", "refused"))
        self._events, self._count, self._now, self._kept, self._refused = cells
        self._call: Callable[[int], None] = admit
        if compiled:
            self._call = ctypes.CFUNCTYPE(None, ctypes.c_int64)(build.program(*PROGRAM).addresses["admit"])

    def __call__(self, address: int, count: int, now: int) -> int:
        """Judge the events at an address; how many passed. They lie at its beginning afterwards."""
        self._events.value, self._count.value, self._now.value = address, count, now
        self._call(self._address)
        return int(self._kept.value)

    def refused(self) -> "tuple[int, np.ndarray[Any, Any]]":
        """How many the last call set aside, and the first of them; `recv` is the reason (`WHY`)."""
        count = int(self._refused.value)
        return count, self._aside[: min(count, ASIDE)]

    def forget(self) -> None:
        """What comes now is another history: a publisher has started anew."""
        self._seen[:] = 0
