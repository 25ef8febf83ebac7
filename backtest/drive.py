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
from backtest.hours import NEVER
from backtest.latency import read_latencies, seeded
from backtest.records import Hours, Latency, Loop, Session, Venue, VenueBook, VenueMarket, VenueOrder
from backtest.spool import Spool, buffer, joined
from engine.config import VenueModel
from engine.errors import KernelHalted
from engine.kernel import books, build, codes, levels
from engine.kernel.books import Book
from engine.kernel.events import Event
from engine.kernel.layout import Record
from engine.kernel.levels import Half
from engine.kernel.machine import Machine, set_grids
from engine.kernel.records import Curve, Instrument, Order, Refusal

# Two programs, so that who never trades on ticks never compiles their loop. `PROGRAMS[has_ticks(events)]`.
PROGRAMS: tuple[tuple[str, dict[str, Callable[[int], None]]], ...] = (
    ("backtest", {"run": loop.run}),
    ("ticks", {"run": tick_loop.run_ticks}),
)
CURVE_POINTS = 1 << 20
ROOM, EVENTS_PER_ORDER = 1 << 21, 2  # orders between two drains: buffers take memory only as they are written to
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

    def __init__(self, instruments: "np.ndarray[Any, Any]", cash: float, model: VenueModel, leverage: float,
                 orders: int, ticks: bool, depth: Sequence[int] = (),
                 sessions: "Sequence[np.ndarray[Any, Any]]" = (),
                 latencies: "np.ndarray[Any, Any] | None" = None) -> None:  # fmt: skip
        """`depth`: the instruments whose depth is told. `sessions`: for each instrument the opens and closes of its
        calendar, ns UTC, as rows of two, none where the market never closes. `latencies`: the table of the model, which
        is read if it is not given.
        """
        n, kinds = len(instruments), {id(hours): hours for hours in sessions}
        late = np.zeros(0, Latency.dtype)
        if ticks and model.latency is not None:
            late = read_latencies(model.latency) if latencies is None else latencies
        parts: dict[str, tuple[type[Record], int]] = {
            "orders_at": (VenueOrder, orders), "markets_at": (VenueMarket, n), "instruments_at": (Instrument, n),
            "books_at": (VenueBook, n), "hours_at": (Hours, n), "latencies_at": (Latency, len(late)),
            "sessions_at": (Session, sum(map(len, kinds.values()))), "depth_at": (Book, n if depth else 0),
            "halves_at": (Half, 2 * len(depth)),
        }  # fmt: skip
        where, at = {}, Venue.dtype.itemsize
        for name, (record, rows) in parts.items():
            where[name] = at = -(-at // 64) * 64
            at += record.dtype.itemsize * rows
        self.memory = np.zeros(at, np.uint8)
        self.header = v = Venue.at(self.memory.ctypes.data)
        tables: dict[str, Any] = {}
        for name, (record, rows) in parts.items():
            setattr(v, name, where[name])
            tables[name] = self.memory[where[name] :][: record.dtype.itemsize * rows].view(record.dtype)
        v.queue, v.power, v.next_expiry = QUEUES[model.queue], model.queue_power, NEVER
        v.slippage_bps, v.participation, v.touch = model.slippage_bps, model.participation, int(model.touch)
        v.leverage, v.cash, v.instruments, v.orders_cap, v.ts = leverage, cash, n, orders, -(1 << 62)
        v.first = v.last = -1
        tables["orders_at"]["next"] = [*range(1, orders), -1]
        markets: np.ndarray[Any, Any] = tables["markets_at"]
        self.markets = markets
        for name in ("head", "tail", "before", "after", "bar", "previous"):
            markets[name] = -1
        markets["unit"] = instruments["lot"] * instruments["multiplier"]
        markets["margin"] = instruments["margin"]
        tables["instruments_at"][:] = instruments
        set_grids(tables["instruments_at"])
        if depth:
            v.levels = 2 * len(depth) * (levels.NEAR + levels.FAR)
            books.begin_all(tables["depth_at"], tables["halves_at"], instruments["tick"], depth)
        else:
            v.depth_at = v.halves_at = 0
        if ticks:
            tables["instruments_at"]["bar_ns"] = 0
            self._delay(model, tables["latencies_at"], late)
        ends = np.cumsum([len(hours) for hours in kinds.values()], dtype=np.int64)
        for (key, hours), end in zip(kinds.items(), ends.tolist(), strict=True):
            tables["sessions_at"]["opens"][end - len(hours) : end] = hours[:, 0]
            tables["sessions_at"]["closes"][end - len(hours) : end] = hours[:, 1]
            mine = [i for i, other in enumerate(sessions) if id(other) == key]
            tables["hours_at"]["first"][mine], tables["hours_at"]["count"][mine] = end - len(hours), len(hours)
            tables["hours_at"]["latest"][mine] = end - len(hours)

    def _delay(self, model: VenueModel, table: "np.ndarray[Any, Any]", late: "np.ndarray[Any, Any]") -> None:
        """Latencies: only quotes and trades have time for them."""
        v = self.header
        v.order_ns, v.report_ns, v.feed_ns = (
            round(ms * 1e6) for ms in (model.order_ms, model.report_ms, model.feed_ms)
        )
        table[:] = late
        v.latencies, v.jitter, v.sampled = len(late), model.jitter, int(len(late) > 0 or model.jitter > 0.0)
        if late["feed_ns"].any():
            v.feed_ns = -1
        seeded(v.order_draws, 2 * model.seed)
        seeded(v.report_draws, 2 * model.seed + 1)


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
        margin = loop.ROUNDS * z.outbox  # what one timestamp may need
        most = ROOM if len(self.events) < LONG else LONG_ROOM
        room = max(1024, min(len(self.events) // EVENTS_PER_ORDER, most))
        caps = {
            "orders": margin + room,
            "reports": margin * 2 + 4 * z.orders + self.venue.header.levels + 2 * room,
            "refusals": z.refusals * 2 + 1024,
            "curve": max(1, min(len(self.events), CURVE_POINTS)),
        }
        kinds = {"orders": Order, "reports": Event, "refusals": Refusal, "curve": Curve}
        self.buffers = {name: buffer(kinds[name].dtype, cap) for name, cap in caps.items()}
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
        k = self.machine.kernel
        lp.lone = int(k.instruments == 1 and k.strategies == 1 and k.slices == 0)
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
            self.drain()

    def place(self, name: str) -> None:
        """Tell the loop where a buffer is."""
        rows = self.buffers[name]
        setattr(self.loop, name, rows.ctypes.data)
        setattr(self.loop, f"{name}_cap", len(rows))

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

    def ended(self, curve: "np.ndarray[Any, Any]", last: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """A curve and one more point: in place if it lies in the buffer and that has room. The drive is over."""
        rows, n = self.buffers["curve"], len(curve)
        if n == len(rows) or curve.ctypes.data != rows.ctypes.data:
            return joined([curve, last])
        rows[n] = last[0]
        return rows[: n + 1]
