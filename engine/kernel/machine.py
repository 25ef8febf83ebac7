"""A kernel in memory: the arena with its tables, and the addresses of the handlers.

Layout of the arena: Ctx, Kernel, tables, states of the strategies; then, outside the snapshot, handler addresses.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import ConfigError
from engine.kernel import books, codes, levels, records
from engine.kernel.layout import Record
from engine.kernel.primitives import Invoke
from engine.kernel.signals import CTX_BYTES, Ctx
from engine.kernel.strategy import HANDLERS, Strategy

LARGE = (1 << 62) - 1
LIMITS_OFF: dict[str, float] = {
    "order_qty": math.inf, "order_value": math.inf, "position": math.inf, "gross": math.inf, "net": math.inf,
    "open_orders": LARGE, "daily_loss": math.inf, "drawdown": math.inf, "rate": math.inf, "burst": 1.0,
    "collar": math.inf, "stale_ns": LARGE, "leverage": math.inf, "short": 1, "self_match": 0, "netting": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Placed:
    """A strategy with the instruments it runs on (indices), and where its handlers are."""

    strategy: Strategy
    instruments: tuple[int, ...]
    addresses: dict[str, int]


@dataclass(frozen=True)
class Sizes:
    """Bounds of the tables; full is a code, never a resize."""

    orders: int = 1024
    signals: int = 1024
    outbox: int = 2048
    refusals: int = 1024


def set_grids(rows: "np.ndarray[Any, Any]") -> None:
    """What follows from the ticks of instruments, an array of Instrument."""
    per_one = np.floor(1.0 / rows["tick"] + 0.5)
    rows["per_one"] = np.where(np.abs(per_one * rows["tick"] - 1.0) < 1e-12, per_one, 0.0)


class Machine:
    """Owns the arena of one kernel."""

    def __init__(
        self,
        placed: Sequence[Placed],
        instruments: "np.ndarray[Any, Any]",
        *,
        cash: float,
        limits: dict[str, float] | None = None,
        breach: dict[int, int] | None = None,
        session: int = 1,
        sizes: Sizes | None = None,
        depth: Sequence[int] = (),
    ) -> None:
        """`depth`: the instruments that have a book."""
        if not placed:
            raise ConfigError("A kernel needs at least one strategy.")
        if instruments.dtype != records.Instrument.dtype or len(instruments) == 0:
            raise ConfigError("A kernel needs at least one instrument.")
        self.placed, self.sizes = tuple(placed), sizes or Sizes()
        if self.sizes.orders & (self.sizes.orders - 1):
            raise ConfigError(f"sizes.orders must be a power of two, got {self.sizes.orders}.")
        n, s, z = len(instruments), len(placed), self.sizes
        tables: dict[str, tuple[type[Record], int]] = {
            "instruments_at": (records.Instrument, n), "markets_at": (records.Market, n),
            "positions_at": (records.Position, n * s), "open_at": (records.OpenOrder, z.orders),
            "signals_at": (records.Signal, z.signals), "slots_at": (records.Slot, s),
            "routes_at": (records.Route, n * s), "outbox_at": (records.Order, z.outbox),
            "refusals_at": (records.Refusal, z.refusals), "desks_at": (records.Desk, n * s),
            "books_at": (books.Book, n if depth else 0), "halves_at": (levels.Half, 2 * len(depth)),
        }  # fmt: skip
        where, at = {}, CTX_BYTES + _round(records.Kernel.dtype.itemsize)
        for name, (record, rows) in tables.items():
            where[name] = at
            at += _round(record.dtype.itemsize * rows)
        states = []
        for p in placed:
            cls = type(p.strategy)
            stride, instances = cls.state_bytes(n if cls.universe else 0), 1 if cls.universe else len(p.instruments)
            states.append((at, stride, instances))
            at += stride * instances
        self.snapshot_bytes = at
        where["addresses_at"] = at
        at += _round(8 * s * codes.KINDS)
        # Unlike zeros, numpy asks the system for large pages for this: many states, few misses.
        self.memory = np.empty(at + 64, np.uint8)
        self.memory.fill(0)
        self._shift = -self.memory.ctypes.data % 64  # so that records start on cache lines
        self.arena = self.memory[self._shift : self._shift + at]
        self._where, self.tables = where, tables
        self.ctx = Ctx.at(self.arena.ctypes.data)
        self.kernel = records.Kernel.at(self.arena.ctypes.data + CTX_BYTES)
        self._header(instruments, cash, limits or {}, breach or {}, session)
        if depth:
            books.begin_all(self.table("books_at"), self.table("halves_at"), instruments["tick"], depth)
        self._strategies(states)

    def table(self, name: str) -> "np.ndarray[Any, Any]":
        """A structured view of a table: `machine.table("positions_at")`."""
        record, rows = self.tables[name]
        at = self._where[name]
        return self.arena[at : at + rows * record.dtype.itemsize].view(record.dtype)

    def state(self, strategy: int, instance: int = 0) -> Strategy:
        """A live view of a strategy's state."""
        slot = records.slots(self.kernel, strategy)
        return type(self.placed[strategy].strategy).at(self.kernel._address + slot.state_at + instance * slot.stride)

    def snapshot(self) -> bytes:
        """The whole state."""
        return self.arena[: self.snapshot_bytes].tobytes()

    def restore(self, state: bytes) -> None:
        """Back to a snapshot of a kernel of the same shape."""
        if len(state) != self.snapshot_bytes:
            raise ConfigError(
                f"The snapshot has {len(state)} bytes, this kernel {self.snapshot_bytes}: "
                "strategies, instruments or sizes differ."
            )
        self.arena[: self.snapshot_bytes] = np.frombuffer(state, np.uint8)

    def retarget(self, strategy: int, addresses: dict[str, int]) -> None:
        """Let other code handle a strategy's events from now on; the state stays."""
        for name, address in addresses.items():
            self._addresses()[strategy * codes.KINDS + HANDLERS[name][0]] = address

    def reload(self, strategy: int, fresh: Strategy, addresses: dict[str, int]) -> None:
        """Other code and other parameters for a strategy, whose state stays; its layout is the same."""
        slot = records.slots(self.kernel, strategy)
        handles = sum(1 << HANDLERS[name][0] for name in addresses)
        self.kernel.slices += (handles >> codes.SLICE & 1) - (slot.handles >> codes.SLICE & 1)
        slot.active = handles if slot.active else 0
        slot.handles = handles
        self.retarget(strategy, addresses)
        for instance in range(slot.instances):
            for name, value in fresh.values.items():
                setattr(self.state(strategy, instance), name, value)

    def _addresses(self) -> "np.ndarray[Any, Any]":
        return self.arena[self._where["addresses_at"] :][: 8 * len(self.placed) * codes.KINDS].view(np.int64)

    def _header(
        self, instruments: Any, cash: float, limits: dict[str, float], breach: dict[int, int], session: int
    ) -> None:
        k, z = self.kernel, self.sizes
        for name, at in self._where.items():
            setattr(k, name, at - CTX_BYTES if self.tables.get(name, (None, 1))[1] else 0)
        k.instruments, k.strategies = len(instruments), len(self.placed)
        k.order_cap, k.order_mask = z.orders, z.orders - 1
        k.signal_cap, k.outbox_cap, k.refusal_cap = z.signals, z.outbox, z.refusals
        k.session, k.next_order, k.next_day = session, 1, -LARGE
        k.cash = k.start_equity = k.day_equity = k.peak = float(cash)
        k.floor = -math.inf
        k.day_offset_ns = int(instruments["day_offset_ns"][0])
        unknown = set(limits) - set(LIMITS_OFF)
        if unknown:
            raise ConfigError(f"Unknown risk limit {', '.join(sorted(unknown))}; there are {', '.join(LIMITS_OFF)}.")
        for name, value in {**LIMITS_OFF, **limits}.items():
            integral = k.limits.fields[name].kind != "f8"
            setattr(
                k.limits,
                name,
                min(int(value), LARGE) if integral and value != math.inf else LARGE if integral else value,
            )
        for reason, what in breach.items():
            k.limits.breach[reason] = what
        rows = self.table("instruments_at")
        rows[:] = instruments
        rows["unit"] = rows["lot"] * rows["multiplier"]
        set_grids(rows)

    def _strategies(self, states: list[tuple[int, int, int]]) -> None:
        n = self.kernel.instruments
        found: list[list[tuple[int, int]]] = [[] for _ in range(n)]  # instrument -> (where its state is, strategy)
        for s, (p, (at, stride, instances)) in enumerate(zip(self.placed, states, strict=True)):
            cls = type(p.strategy)
            slot = records.slots(self.kernel, s)
            slot.state_at, slot.stride, slot.instances, slot.strategy = at - CTX_BYTES, stride, instances, s
            slot.handlers_at = self.kernel.addresses_at + 8 * s * codes.KINDS
            for order, i in enumerate(p.instruments):
                found[i].append((at - CTX_BYTES + (0 if cls.universe else order * stride), s))
            template = np.frombuffer(p.strategy.tobytes(), np.uint8)
            memory = self.arena[at : at + instances * stride].reshape(instances, stride)
            memory[:, : len(template)] = template
            if cls.per_instrument():
                cls.place_tables(self.state(s), n)
            for name in p.addresses:
                slot.handles |= 1 << HANDLERS[name][0]
            self.retarget(s, p.addresses)
            slot.active = slot.handles
            if slot.handles >> codes.SLICE & 1:
                self.kernel.slices += 1
        self._routes(found)

    def _routes(self, found: list[list[tuple[int, int]]]) -> None:
        first, length = self._where["routes_at"] - CTX_BYTES, records.Route.dtype.itemsize
        slots, slot_bytes = self._where["slots_at"] - CTX_BYTES, records.Slot.dtype.itemsize
        rows = [place for places in found for place in places]
        if not rows:
            return
        counts = np.array([len(places) for places in found])
        ends = np.cumsum(counts)
        states, owners = np.array(rows).T
        following = first + length * np.arange(1, len(rows) + 1)
        following[ends[counts > 0] - 1] = 0  # the last route of an instrument
        routes = self.table("routes_at")[: len(rows)]
        routes["state_at"], routes["slot_at"], routes["next"] = states, slots + owners * slot_bytes, following
        self.table("markets_at")["route"] = np.where(counts > 0, first + length * (ends - counts), 0)


def _round(length: int) -> int:
    return -(-length // 64) * 64


OnError = Callable[[Exception, dict[str, Any], dict[str, Any]], None]  # exception, state and event just before
_numbers = itertools.count(1)


def python_handlers(strategy: type[Strategy], on_error: OnError | None = None) -> dict[str, int]:
    """Numbers under which the uncompiled handlers can be invoked: the oracle of law 5, and the source of tracebacks."""
    addresses = {}
    for name, function in strategy.handlers.items():
        number = next(_numbers)
        Invoke.python[number] = _bound(strategy, function, HANDLERS[name][1], on_error)
        addresses[name] = number
    return addresses


def _bound(
    strategy: type[Strategy], function: Any, event: type[Record], on_error: OnError | None
) -> Callable[[int, int, int], None]:
    def call(state: int, ev: int, ctx: int) -> None:
        view, happening = strategy.at(state), event.at(ev)
        before = view.asdict() if on_error is not None else {}
        try:
            function(view, happening, Ctx.at(ctx))
        except Exception as error:  # the compiled guard does the same: the fault is a code, the driver decides
            Ctx.at(ctx).fault = codes.FAULT_HANDLER
            if on_error is not None:
                on_error(error, before, happening.asdict())

    return call
