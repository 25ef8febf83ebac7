"""The compiled entries of the paper venue: the venue of the loops, a piece of the feed or an order at a time.

The buffer at `lp.tape` begins with one row for each instrument, its latest bar: an order meets a bar only when it was
sent before that bar began. New events stand behind these rows, from `index` to `length`; `orders` holds instructions
from `arrived` to `orders_n`. Reports are appended; with no room left for more, `status` is DRAIN.
"""

from backtest.latency import order_arrival
from backtest.matching import match_slice, split
from backtest.quotes import arrive
from backtest.records import Loop, Venue, loop_at, venue_at, venue_markets
from backtest.ticks import venue_event
from backtest.venue import EVENT_BYTES, absorb_action, accept, expire, mark
from engine.kernel import codes
from engine.kernel.events import event_at
from engine.kernel.records import copy_line, order_at


def room(lp: Loop, v: Venue) -> bool:
    """Whether the buffer holds what one more event or order can bring about."""
    return lp.reports_n + 4 * (v.opened + 1) + v.levels <= lp.reports_cap


def bars_meet(address: int) -> None:
    """The bars of one timestamp meet the orders that are held: what happens before they close."""
    lp = loop_at(address)
    v = venue_at(lp.venue)
    lp.status = 0
    if not room(lp, v):
        lp.status = codes.DRAIN
    elif v.opened and lp.index < lp.length:
        at = lp.index * EVENT_BYTES
        match_slice(lp, v, at, event_at(lp.tape + at).ts)


def bars_close(address: int) -> None:
    """The events of one timestamp are over: last prices, splits, dividends, funding."""
    lp = loop_at(address)
    v = venue_at(lp.venue)
    lp.status = 0
    while lp.index < lp.length:
        if not room(lp, v):
            lp.status = codes.DRAIN
            return
        ev = event_at(lp.tape + lp.index * EVENT_BYTES)
        lp.index += 1
        i = ev.instrument
        if i >= v.instruments:
            continue  # the kernel halts on it
        m = venue_markets(v, i)
        if ev.kind == codes.BAR:
            mark(v, m, ev.close)
            copy_line(lp.tape + i * EVENT_BYTES, lp.tape + (lp.index - 1) * EVENT_BYTES)
            m.bar = i * EVENT_BYTES
        else:
            if ev.kind == codes.SPLIT:
                split(lp, v, ev)
            absorb_action(v, ev)
        v.ts = max(v.ts, ev.ts)


def bars_order(address: int) -> None:
    """Instructions arrive between two bars."""
    lp = loop_at(address)
    v = venue_at(lp.venue)
    lp.status = 0
    while lp.arrived < lp.orders_n:
        if not room(lp, v):
            lp.status = codes.DRAIN
            return
        o = order_at(lp.orders + lp.arrived * EVENT_BYTES)
        accept(lp, v, o, venue_markets(v, o.instrument).last)
        lp.arrived += 1


def ticks_meet(address: int) -> None:
    """Quotes, trades and actions, until one of them brings about a report."""
    lp = loop_at(address)
    v = venue_at(lp.venue)
    lp.status = 0
    if not room(lp, v):
        lp.status = codes.DRAIN
        return
    before = lp.reports_n
    while lp.index < lp.length and lp.reports_n == before:
        ev = event_at(lp.tape + lp.index * EVENT_BYTES)
        if ev.ts > v.next_expiry:
            expire(lp, v, v.next_expiry)
        else:
            venue_event(lp, v, ev)
            lp.index += 1


def ticks_expire(address: int) -> None:
    """The next order whose time is up ends."""
    lp = loop_at(address)
    v = venue_at(lp.venue)
    lp.status = 0
    if not room(lp, v):
        lp.status = codes.DRAIN
    else:
        expire(lp, v, v.next_expiry)


def ticks_order(address: int) -> None:
    """Instructions arrive at `stop`, or, when that is 0, each as long after it was sent as its way takes."""
    lp = loop_at(address)
    v = venue_at(lp.venue)
    lp.status = 0
    while lp.arrived < lp.orders_n:
        if not room(lp, v):
            lp.status = codes.DRAIN
            return
        o = order_at(lp.orders + lp.arrived * EVENT_BYTES)
        ts = lp.stop if lp.stop != 0 else order_arrival(v, o.ts)
        while v.next_expiry <= ts:
            expire(lp, v, v.next_expiry)
        arrive(lp, v, o, ts)
        lp.arrived += 1
