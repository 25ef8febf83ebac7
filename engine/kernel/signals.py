"""What a strategy sees and says: the context of a handler, and the bounded queue of its signals.

Law 1: a signal has no effect until it has passed risk, at the end of the dispatch.
Law 2: a strategy's later target for an instrument replaces its earlier one, in place.
Law 3: the queue is bounded; a strategy that overflows it is stopped with a fault, nobody else is.

`instrument=-1` in a verb means the instrument of the event at hand.
"""

import math
from typing import Annotated

from engine.kernel import codes
from engine.kernel.layout import Record
from engine.kernel.primitives import Behind, hot
from engine.kernel.records import Kernel, OpenOrder, Signal, instruments, markets, open_orders, positions, signals

CTX_BYTES = 64  # Ctx comes first in the arena, Kernel follows
TOO_MANY = 4_000_000_000_000_000.0  # lots beyond this are not exact in a float


def reserve(k: Kernel) -> int:
    """The id of a fresh order whose slot is free, or 0 when as many orders are open as may be."""
    for _ in range(k.order_cap):
        counter = k.next_order
        o = open_orders(k, counter & k.order_mask)
        k.next_order = counter + 1
        if o.state == codes.FREE or o.state >= codes.DONE_FILLED:
            o.state = codes.RESERVED
            o.id = (k.session << 40) | counter
            o.asked = 0
            o.filled = 0
            return o.id
    return 0


def queue(k: Kernel, ctx: "Ctx", kind: int, instrument: int, qty: float, priority: int) -> int:
    """Append a signal; its row, or -1 when the queue is full (the strategy is then stopped)."""
    row = k.signals
    if row >= k.signal_cap or not 0 <= instrument < k.instruments:
        ctx.fault = codes.FAULT_QUEUE
        return -1
    k.signals = row + 1
    s = signals(k, row)
    s.kind = kind
    s.strategy = ctx.strategy
    s.instrument = instrument
    s.qty = qty
    s.priority = priority
    s.price = 0.0
    s.stop = 0.0
    s.order_id = 0
    s.deadline = 0
    s.side = 0
    s.type = codes.MARKET
    s.tif = codes.GTC
    s.mask = 0
    s.life_ms = 0
    return row


def queue_target(k: Kernel, ctx: "Ctx", kind: int, instrument: int, qty: float, priority: int) -> None:
    """Queue a target, or overwrite the one that the strategy queued for the instrument a moment ago."""
    if not 0 <= instrument < k.instruments:
        ctx.fault = codes.FAULT_QUEUE
        return
    p = positions(k, ctx.strategy * k.instruments + instrument)
    if p.signal > 0:
        s: Signal = signals(k, p.signal - 1)
        s.kind = kind
        s.qty = qty
        s.priority = priority
    else:
        row = queue(k, ctx, kind, instrument, qty, priority)
        if row >= 0:
            p.signal = row + 1


class Ctx(Record):
    """The second argument of every handler: what is known now, and the verbs.

    `now` is the time of the event (ns UTC), `instrument` its index, `strategy` our own.
    """

    now: Annotated[int, "i8", 0]
    instrument: Annotated[int, "i8", 8]
    strategy: Annotated[int, "i8", 16]
    fault: Annotated[int, "i8", 24]

    @property
    def instruments(self) -> int:
        """How many instruments there are."""
        return kernel_of(self).instruments

    @property
    def position(self) -> float:
        """What this strategy holds of the instrument, in units, signed."""
        k = kernel_of(self)
        return positions(k, self.strategy * k.instruments + self.instrument).qty * instruments(k, self.instrument).lot

    @property
    def pending(self) -> float:
        """Units, signed, still open in orders that work towards this strategy's target."""
        k = kernel_of(self)
        return (
            positions(k, self.strategy * k.instruments + self.instrument).pending * instruments(k, self.instrument).lot
        )

    @property
    def entry_price(self) -> float:
        """Average price of the position, 0 when flat."""
        k = kernel_of(self)
        return positions(k, self.strategy * k.instruments + self.instrument).average

    @property
    def equity(self) -> float:
        """Cash plus positions at their last prices."""
        k = kernel_of(self)
        return k.cash + k.value

    @property
    def cash(self) -> float:
        """Cash of the account."""
        return kernel_of(self).cash

    def position_of(self, instrument: int) -> float:
        """What this strategy holds of any instrument, in units, signed."""
        k = kernel_of(self)
        if not 0 <= instrument < k.instruments:
            raise IndexError("position_of: no such instrument")
        return positions(k, self.strategy * k.instruments + instrument).qty * instruments(k, instrument).lot

    def mark(self, instrument: int) -> float:
        """Last price of any instrument, 0 before its first."""
        k = kernel_of(self)
        if not 0 <= instrument < k.instruments:
            raise IndexError("mark: no such instrument")
        return markets(k, instrument).mark

    @hot
    def target(self, qty: float, instrument: int = -1, priority: int = 0) -> None:
        """Wish to hold `qty` units (signed); market orders make up the difference."""
        k = kernel_of(self)
        i = self.instrument if instrument < 0 else instrument
        if k.signals == 0 and 0 <= i < k.instruments:
            p = positions(k, self.strategy * k.instruments + i)
            if qty == (p.qty + p.pending) * instruments(k, i).lot:
                return  # already there, or on the way
        queue_target(k, self, codes.SIGNAL_TARGET, i, qty, priority)

    def target_weight(self, weight: float, instrument: int = -1, priority: int = 0) -> None:
        """Wish to hold `weight` of the account's equity (0.5 = half, negative = short), at the last price."""
        queue_target(
            kernel_of(self),
            self,
            codes.SIGNAL_WEIGHT,
            self.instrument if instrument < 0 else instrument,
            weight,
            priority,
        )

    def buy(self, qty: float, limit: float = 0.0, stop: float = 0.0, tif: int = codes.GTC, mask: int = 0,
            instrument: int = -1, priority: int = 0, life_ms: int = 0) -> int:  # fmt: skip
        """Order to buy `qty` units: market, or limit and/or stop when those prices are given.

        `tif` and `mask` are codes (IOC, REDUCE_ONLY, ...), `life_ms` the life of a GTD order.
        Returns the order id, 0 when full.
        """
        i = self.instrument if instrument < 0 else instrument
        return queue_order(kernel_of(self), self, codes.BUY, qty, limit, stop, tif, mask, i, priority, life_ms)

    def sell(self, qty: float, limit: float = 0.0, stop: float = 0.0, tif: int = codes.GTC, mask: int = 0,
             instrument: int = -1, priority: int = 0, life_ms: int = 0) -> int:  # fmt: skip
        """Order to sell `qty` units; arguments as in `buy`."""
        i = self.instrument if instrument < 0 else instrument
        return queue_order(kernel_of(self), self, codes.SELL, qty, limit, stop, tif, mask, i, priority, life_ms)

    def cancel(self, order_id: int, priority: int = 0) -> None:
        """Ask to cancel one of our orders."""
        k = kernel_of(self)
        row = queue(k, self, codes.SIGNAL_CANCEL, self.instrument, 0.0, priority)
        if row >= 0:
            signals(k, row).order_id = order_id

    def cancel_all(self, instrument: int = -1, priority: int = 0) -> None:
        """Ask to cancel all orders of this strategy for the instrument."""
        queue(
            kernel_of(self),
            self,
            codes.SIGNAL_CANCEL_ALL,
            self.instrument if instrument < 0 else instrument,
            0.0,
            priority,
        )

    def replace(self, order_id: int, qty: float, limit: float = 0.0, stop: float = 0.0, priority: int = 0) -> None:
        """Ask to change an open order: its whole quantity in units (filled part included), and its prices."""
        k = kernel_of(self)
        row = queue(k, self, codes.SIGNAL_REPLACE, self.instrument, qty, priority)
        if row >= 0:
            s = signals(k, row)
            s.order_id = order_id
            s.price = limit
            s.stop = stop

    def is_open(self, order_id: int) -> bool:
        """Whether an order of ours is still on its way or working."""
        k = kernel_of(self)
        o = open_orders(k, order_id & k.order_mask)
        return o.id == order_id and codes.RESERVED <= o.state < codes.DONE_FILLED


def queue_order(k: Kernel, ctx: Ctx, side: int, qty: float, limit: float, stop: float, tif: int, mask: int,
                instrument: int, priority: int, life_ms: int) -> int:  # fmt: skip
    """Reserve an id and queue the order under it."""
    row = queue(k, ctx, codes.SIGNAL_ORDER, instrument, qty, priority)
    if row < 0:
        return 0
    s = signals(k, row)
    s.side = side
    s.price = limit
    s.stop = stop
    s.tif = tif
    s.mask = mask & (codes.POST_ONLY | codes.REDUCE_ONLY)
    s.life_ms = life_ms
    if stop > 0.0:
        s.type = codes.STOP_LIMIT if limit > 0.0 else codes.STOP
    elif limit > 0.0:
        s.type = codes.LIMIT
    s.order_id = reserve(k)
    return s.order_id


def to_lots(qty: float, lot: float) -> int:
    """Whole lots in a quantity of units, towards zero; 0 for what is not a number, TOO_MANY for what is beyond."""
    exact = qty / lot
    if exact != exact:
        return 0
    if abs(exact) >= TOO_MANY:
        return int(TOO_MANY) if exact > 0.0 else -int(TOO_MANY)
    lots = math.floor(abs(exact) + 1e-6)
    return lots if exact > 0.0 else -lots


def to_tick(price: float, tick: float, side: int) -> float:
    """The price on the tick grid that is no worse for us than asked: down for a buy, up for a sale.

    A tick that divides one is divided by: 115 / 100 is the 1.15 of a file, 115 * 0.01 is the double beside it.
    """
    steps = price / tick
    if not steps < TOO_MANY:
        return price  # beyond any grid; risk judges it
    near = math.floor(steps + 0.5)
    if abs(steps - near) >= 1e-6:
        near = math.floor(steps) if side > 0 else math.ceil(steps)
    per_one = math.floor(1.0 / tick + 0.5)
    if abs(per_one * tick - 1.0) < 1e-12:
        return near / per_one
    return near * tick


def order_of(k: Kernel, s: Signal) -> OpenOrder:
    """The reserved order of a signal."""
    return open_orders(k, s.order_id & k.order_mask)


kernel_of = Behind(Ctx, CTX_BYTES, Kernel)
