"""Driving the compiled loop: buffers, chunks, and what comes back as arrays.

Nothing here decides anything; it owns memory and calls `run` until the tape is done.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backtest import loop, queues
from backtest import ticks as tick_loop
from backtest.records import Loop, Venue, VenueBook, VenueMarket, VenueOrder
from backtest.spool import Spool, joined
from engine.config import VenueModel
from engine.errors import KernelHalted
from engine.kernel import books, build, codes, levels
from engine.kernel.books import Book
from engine.kernel.events import Event
from engine.kernel.layout import Record
from engine.kernel.levels import Half
from engine.kernel.machine import Machine
from engine.kernel.records import Curve, Instrument, Order, Refusal

# Two programs, so that who never trades on ticks never compiles their loop. `PROGRAMS[has_ticks(events)]`.
PROGRAMS: tuple[tuple[str, dict[str, Callable[[int], None]]], ...] = (
    ("backtest", {"run": loop.run}),
    ("ticks", {"run": tick_loop.run_ticks}),
)
CURVE_POINTS = 1 << 20
ROOM = 1 << 21  # orders between two drains at most; a buffer grows up to it
EVENTS_PER_ORDER = 16  # assumed at first: small buffers are taken from memory that the process has already
LONG, LONG_ROOM = 1 << 24, 1 << 16  # from so many events on the buffers are small and used in turn


QUEUES = {"back": 0, "front": queues.FRONT, "power": queues.POWER}


def program(ticks: bool = False) -> Callable[[int], None]:
    """The compiled loop, for bars or for ticks."""
    address = build.program(*PROGRAMS[ticks]).addresses["run"]
    return ctypes.CFUNCTYPE(None, ctypes.c_int64)(address)


def uncompiled(ticks: bool) -> Callable[[int], None]:
    """The same loop in plain Python."""
    return PROGRAMS[ticks][1]["run"]


def has_ticks(events: "np.ndarray[Any, Any]") -> bool:
    """Whether a tape holds quotes, trades or depth: its first events say so."""
    return bool(np.isin(events["kind"][:4096], (codes.QUOTE, codes.TRADE, codes.DEPTH)).any())


def told_depth(events: "np.ndarray[Any, Any]") -> list[int]:
    """The instruments whose depth a tape tells."""
    return np.unique(events["instrument"][events["kind"] == codes.DEPTH]).tolist() if has_ticks(events) else []


class SimulatedVenue:
    """Owns the venue's memory."""

    def __init__(
        self,
        instruments: "np.ndarray[Any, Any]",
        cash: float,
        model: VenueModel,
        leverage: float,
        orders: int,
        depth: Sequence[int] = (),
    ) -> None:
        n = len(instruments)
        parts = [(Venue, 1), (VenueOrder, orders), (VenueMarket, n), (Instrument, n), (VenueBook, n),
                 (Book, n if depth else 0), (Half, 2 * len(depth))]  # fmt: skip
        offsets, at = [], 0
        for record, count in parts:
            offsets.append(at)
            at += -(-record.dtype.itemsize * count // 64) * 64
        self.memory = np.zeros(at, np.uint8)
        self.header = Venue.at(self.memory.ctypes.data)
        v = self.header
        v.orders_at, v.markets_at, v.instruments_at, v.books_at = offsets[1:5]
        if depth:
            v.depth_at, v.halves_at, v.levels = *offsets[5:], 2 * len(depth) * (levels.NEAR + levels.FAR)
            sides = self._rows(Half, offsets[6], 2 * len(depth))
            books.begin_all(self._rows(Book, offsets[5], n), sides, instruments["tick"], depth)
        v.order_ns, v.report_ns, v.feed_ns = (
            round(ms * 1e6) for ms in (model.order_ms, model.report_ms, model.feed_ms)
        )
        v.queue, v.power, v.next_expiry = QUEUES[model.queue], model.queue_power, (1 << 63) - 1
        v.slippage_bps, v.participation, v.touch = model.slippage_bps, model.participation, int(model.touch)
        v.leverage, v.cash, v.instruments, v.orders_cap, v.ts = leverage, cash, n, orders, -(1 << 62)
        self._rows(VenueOrder, offsets[1], orders)["next"] = [*range(1, orders), -1]
        self.markets = markets = self._rows(VenueMarket, offsets[2], n)
        for name in ("head", "tail", "before", "after", "bar", "previous"):
            markets[name] = -1
        v.first = v.last = -1
        markets["unit"] = instruments["lot"] * instruments["multiplier"]
        markets["margin"] = instruments["margin"]
        self._rows(Instrument, offsets[3], n)[:] = instruments

    def _rows(self, record: type[Record], at: int, count: int) -> "np.ndarray[Any, Any]":
        return self.memory[at:][: record.dtype.itemsize * count].view(record.dtype)


@dataclass
class Outputs:
    """What a run wrote: orders, reports, refusals and the equity curve, as structured arrays."""

    orders: "np.ndarray[Any, Any]"
    reports: "np.ndarray[Any, Any]"
    refusals: "np.ndarray[Any, Any]"
    curve: "np.ndarray[Any, Any]"


@dataclass
class Drive:
    """One kernel, one venue, one tape; `advance` may be called with any partition of the tape (law 2)."""

    machine: Machine
    venue: SimulatedVenue
    events: "np.ndarray[Any, Any]"
    sample_ns: int = 0
    stop_on_fault: bool = True
    function: Callable[[int], None] | None = None
    spools: dict[str, Spool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        z = self.machine.sizes
        margin = loop.ROUNDS * z.outbox
        self.margins = {
            "orders": margin,
            "reports": margin * 2 + 4 * z.orders + self.venue.header.levels,
        }  # what one timestamp may need
        self.most = ROOM if len(self.events) < LONG else LONG_ROOM
        room = max(1024, min(len(self.events) // EVENTS_PER_ORDER, self.most))
        caps = {
            "orders": self.margins["orders"] + room,
            "reports": self.margins["reports"] + 2 * room,
            "refusals": z.refusals * 2 + 1024,
            "curve": max(1, min(len(self.events), CURVE_POINTS)),
        }
        kinds = {"orders": Order, "reports": Event, "refusals": Refusal, "curve": Curve}
        self.buffers = {name: np.empty(cap, kinds[name].dtype) for name, cap in caps.items()}
        self.spools = {name: Spool(kinds[name].dtype) for name in caps}
        self.spares: dict[str, np.ndarray[Any, Any]] = {}
        self.loop, self.scratch = Loop.new(), np.zeros(1, Event.dtype)
        self.ticks = has_ticks(self.events)
        lp = self.loop
        lp.scratch = self.scratch.ctypes.data
        lp.kernel, lp.ctx = self.machine.kernel._address, self.machine.ctx._address
        lp.venue, lp.tape = self.venue.header._address, self.events.ctypes.data
        for name in caps:
            self.place(name)
        lp.sample_ns, lp.next_sample, lp.stop_on_fault = self.sample_ns, -(1 << 62), int(self.stop_on_fault)

    def advance(self, until: int | None = None, whole: bool = False) -> int:
        """Drive on to `until` (default: the end); the status: 0 done, FAULTED, HALTED.

        The last timestamp before `until` waits for the rest of its events, unless it is said to be `whole`.
        """
        function = self.function or program(self.ticks)
        lp = self.loop
        lp.stop = lp.length = len(self.events) if until is None else min(until, len(self.events))
        lp.final = int(whole or lp.length == len(self.events))
        lp.closing = int(not whole and lp.stop == len(self.events))
        if whole and self.ticks:  # the venue is ahead of the kernel by the latency of the feed
            lp.length = len(self.events)
        while True:
            function(lp._address)
            if lp.dropped:
                raise KernelHalted(
                    f"The run lost {lp.dropped} output rows: the buffers are too small for these sizes.",
                    codes.HALT_OVERFLOW,
                )
            if lp.status != codes.DRAIN:
                return lp.status
            if not self.grow():
                self.drain()

    def place(self, name: str) -> None:
        """Tell the loop where a buffer is."""
        rows = self.buffers[name]
        setattr(self.loop, name, rows.ctypes.data)
        setattr(self.loop, f"{name}_cap", len(rows))

    def grow(self) -> bool:
        """Larger buffers for orders and reports where these are filling up and not at their bound yet."""
        grown = False
        for name, margin in self.margins.items():
            rows, count = self.buffers[name], getattr(self.loop, f"{name}_n")
            most = margin + self.most * (1 if name == "orders" else 2)
            if len(rows) < most and 2 * (count + margin) > len(rows):
                self.buffers[name] = np.empty(min(4 * len(rows), most), rows.dtype)
                self.buffers[name][:count] = rows[:count]
                self.place(name)
                grown = True
        return grown

    def drain(self) -> None:
        """Move the outputs out of the buffers; one that is still being written is changed for its spare."""
        lp = self.loop
        under_way = {"orders": lp.orders_n - lp.arrived, "reports": lp.reports_n - lp.taken} if self.ticks else {}
        for name, spool in self.spools.items():
            rows, count = self.buffers[name], getattr(lp, f"{name}_n")
            left = under_way.get(name, 0)
            if count > left:
                if spool.add(rows[: count - left]):
                    self.buffers[name] = self.spares.pop(name) if name in self.spares else np.empty_like(rows)
                    self.spares[name] = rows
                    self.place(name)
                self.buffers[name][:left] = rows[count - left : count].copy()
            setattr(lp, f"{name}_n", left)
        lp.arrived = lp.taken = 0

    def outputs(self) -> Outputs:
        """Everything written so far, what is still under way included; the drive can go on.

        The arrays are views where that saves a copy, so they hold until then: who keeps them longer copies them.
        """
        if not any(spool.count for spool in self.spools.values()):  # the usual case: one buffer held it all
            return Outputs(**{name: self.buffers[name][: getattr(self.loop, f"{name}_n")] for name in self.spools})
        self.drain()
        found = {}
        for name, spool in self.spools.items():  # what is left is still under way
            rest = self.buffers[name][: getattr(self.loop, f"{name}_n")]
            found[name] = joined([spool.array(), rest]) if len(rest) else spool.array()
        return Outputs(**found)
