"""The bounded queue of signals, and what a strategy's wishes become on their way into it.

Law 1: the queue is bounded; a strategy that overflows it is stopped with a fault, nobody else is.
Law 2: a strategy's later target for an instrument replaces its earlier one, in place.
"""

import math
from typing import Annotated

from engine.kernel import codes
from engine.kernel.layout import Record
from engine.kernel.primitives import cold, hot
from engine.kernel.records import (
    Instrument,
    Kernel,
    OpenOrder,
    Signal,
    instruments,
    open_orders,
    positions,
    signals,
)

TOO_MANY = 4_000_000_000_000_000.0  # lots beyond this are not exact in a float
LONGEST_MS = 1 << 42  # a life beyond this is no longer counted


class Caller(Record):
    """Whose handler runs, when and about what; `fault` stops it."""

    now: Annotated[int, "i8", 0]
    instrument: Annotated[int, "i8", 8]
    strategy: Annotated[int, "i8", 16]
    fault: Annotated[int, "i8", 24]


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


def deadline(ctx: Caller, life_ms: int) -> int:
    """When a wish with so many milliseconds to live is void, ns; 0 = never."""
    return ctx.now + min(life_ms, LONGEST_MS) * 1_000_000 if life_ms > 0 else 0


def queue(k: Kernel, ctx: Caller, kind: int, instrument: int, qty: float, priority: int, life_ms: int) -> int:
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
    s.deadline = deadline(ctx, life_ms)
    s.side = 0
    s.type = codes.MARKET
    s.tif = codes.GTC
    s.mask = 0
    return row


def queue_target(k: Kernel, ctx: Caller, kind: int, instrument: int, qty: float, priority: int,
                 life_ms: int) -> None:  # fmt: skip
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
        s.deadline = deadline(ctx, life_ms)
    else:
        row = queue(k, ctx, kind, instrument, qty, priority, life_ms)
        if row >= 0:
            p.signal = row + 1


@hot
def keep(k: Kernel, ctx: Caller, order_id: int, side: int, price: float, qty: float, instrument: int,
         priority: int, life_ms: int) -> int:  # fmt: skip
    """One side of `Ctx.quote`: the id of its order from now on."""
    o, tick = open_orders(k, order_id & k.order_mask), instruments(k, instrument).tick
    ours = (o.id == order_id) & (codes.RESERVED <= o.state) & (o.state < codes.DONE_FILLED)
    still = (o.state != codes.SENT) & (o.state != codes.WORKING)  # on its way out, or to another price
    there = (0.0 <= (price - o.price) * side) & ((price - o.price) * side < 0.999 * tick)
    if (still | there) if ours else not price > 0.0:
        return order_id if ours else 0
    return move(k, ctx, order_id if ours else 0, side, price, qty, instrument, priority, life_ms)


@cold
def move(k: Kernel, ctx: Caller, order_id: int, side: int, price: float, qty: float, instrument: int,
         priority: int, life_ms: int) -> int:  # fmt: skip
    """One side of `Ctx.quote` that needs another order (`order_id` 0), another price, or none any more."""
    o, i = open_orders(k, order_id & k.order_mask), instruments(k, instrument)
    if order_id == 0:
        return queue_order(k, ctx, side, qty, price, 0.0, 0.0, codes.GTC, codes.POST_ONLY, instrument, priority,
                           life_ms)  # fmt: skip
    if not price > 0.0:
        queue_cancel(k, ctx, order_id, instrument, priority, 0)
    elif abs(to_tick(price, i, side) - o.price) > 0.5 * i.tick:
        queue_replace(k, ctx, order_id, instrument, o.filled * i.lot + qty, price, 0.0, 0.0, priority, life_ms)
    return order_id


def queue_cancel(k: Kernel, ctx: Caller, order_id: int, instrument: int, priority: int, life_ms: int) -> None:
    """Queue the wish to cancel an order."""
    row = queue(k, ctx, codes.SIGNAL_CANCEL, instrument, 0.0, priority, life_ms)
    if row >= 0:
        signals(k, row).order_id = order_id


def queue_replace(k: Kernel, ctx: Caller, order_id: int, instrument: int, qty: float, limit: float, stop: float,
                  trail: float, priority: int, life_ms: int) -> None:  # fmt: skip
    """Queue the wish to change an order."""
    row = queue(k, ctx, codes.SIGNAL_REPLACE, instrument, qty, priority, life_ms)
    if row >= 0:
        s = signals(k, row)
        s.order_id = order_id
        s.price = trailing(limit, trail)
        s.stop = stop
        s.type = codes.TRAILING if trail != 0.0 else codes.MARKET


def trailing(limit: float, trail: float) -> float:
    """The price of an order: its limit or its distance; not a number, which risk refuses, when both are given."""
    if trail == 0.0:
        return limit
    return trail if limit == 0.0 else math.nan


def queue_order(k: Kernel, ctx: Caller, side: int, qty: float, limit: float, stop: float, trail: float, tif: int,
                mask: int, instrument: int, priority: int, life_ms: int) -> int:  # fmt: skip
    """Reserve an id and queue the order under it."""
    row = queue(k, ctx, codes.SIGNAL_ORDER, instrument, qty, priority, life_ms)
    if row < 0:
        return 0
    s = signals(k, row)
    s.side = side
    s.price = trailing(limit, trail)
    s.stop = stop
    s.tif = tif
    s.mask = mask & (codes.POST_ONLY | codes.REDUCE_ONLY)
    if trail != 0.0:
        s.type = codes.TRAILING
    elif stop > 0.0:
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


def to_tick(price: float, i: Instrument, side: int) -> float:
    """The price on the tick grid that is no worse for us than asked: down for a buy, up for a sale.

    A tick that divides one is divided by: 115 / 100 is the 1.15 of a file, 115 * 0.01 is the double beside it.
    """
    steps = price * i.per_one if i.per_one > 0.0 else price / i.tick
    if not steps < TOO_MANY:
        return price  # beyond any grid; risk judges it
    near = math.floor(steps + 0.5)
    if abs(steps - near) >= 1e-6:
        near = math.floor(steps) if side > 0 else math.ceil(steps)
    return near / i.per_one if i.per_one > 0.0 else near * i.tick


def order_of(k: Kernel, s: Signal) -> OpenOrder:
    """The reserved order of a signal."""
    return open_orders(k, s.order_id & k.order_mask)
