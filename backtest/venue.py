"""The simulated venue: orders in, execution reports out.

Holding, acknowledging, cancelling; matching is in matching.py (bars) and quotes.py (quotes and trades).

Law 1: the venue's state is one block of memory; it knows nothing of the kernel.
Law 2: its clock never goes back, and every report has a number of its own.
"""

import math

from backtest.hours import NEVER, day_end
from backtest.latency import report_arrival
from backtest.records import (
    Loop,
    Venue,
    VenueMarket,
    VenueOrder,
    venue_hours,
    venue_instruments,
    venue_markets,
    venue_orders,
)
from backtest.stops import set_prices
from engine.kernel import codes
from engine.kernel.events import Event, event_at
from engine.kernel.primitives import cold, hot
from engine.kernel.records import Order

EVENT_BYTES = 64
MS = 1_000_000  # ns


def report(lp: Loop, v: Venue, o: VenueOrder, code: int, ts: int, lots: int, price: float, fee: float) -> None:
    """Append an execution report; it waits in the loop's buffer until the kernel has taken it."""
    if lp.reports_n >= lp.reports_cap:
        lp.dropped += 1
        return
    ev: Event = event_at(lp.reports + lp.reports_n * EVENT_BYTES)
    lp.reports_n += 1
    v.next_exec += 1
    ts = max(ts, v.ts)  # the venue's clock never goes back
    v.ts = ts
    ev.ts = ts
    ev.recv = report_arrival(v, ts)
    ev.kind = codes.REPORT
    ev.code = code
    ev.source = 0
    ev.instrument = o.instrument
    ev.price = price
    ev.qty = lots
    ev.order_id = o.id
    ev.fee = fee
    ev.exec_id = v.next_exec


def reject_new(lp: Loop, v: Venue, order: Order, reason: int) -> None:
    """Reject an order or a request that the venue does not hold; the reason travels in `fee`."""
    if lp.reports_n >= lp.reports_cap:
        lp.dropped += 1
        return
    v.ts = max(order.ts, v.ts)  # an order that a report caused is as old as that report
    ev: Event = event_at(lp.reports + lp.reports_n * EVENT_BYTES)
    lp.reports_n += 1
    v.next_exec += 1
    ev.ts = v.ts
    ev.recv = report_arrival(v, v.ts)
    ev.kind = codes.REPORT
    ev.code = codes.REJECT if order.action == codes.NEW else codes.CANCEL_REJECT
    ev.source = 0
    ev.instrument = order.instrument
    ev.price = 0.0
    ev.qty = 0
    ev.order_id = order.id
    ev.fee = float(reason)
    ev.exec_id = v.next_exec


def remove(v: Venue, row: int) -> None:
    """Take an order out of its instrument's chain and free its row."""
    o = venue_orders(v, row)
    m = venue_markets(v, o.instrument)
    at, before = m.head, -1
    while at != row:
        before = at
        at = venue_orders(v, at).next
    if before < 0:
        m.head = o.next
    else:
        venue_orders(v, before).next = o.next
    if m.tail == row:
        m.tail = before
    if m.head < 0:
        unlink(v, o.instrument)
        v.busy -= 1
    o.used = 0
    o.next = v.free
    v.free = row
    v.opened -= 1


def find(v: Venue, instrument: int, order_id: int) -> int:
    """The row of an order, -1 when the venue does not hold it."""
    row = venue_markets(v, instrument).head
    while row >= 0 and venue_orders(v, row).id != order_id:
        row = venue_orders(v, row).next
    return row


def last_until(v: Venue, o: VenueOrder, end: int) -> None:
    """An order lasts until `end` at most."""
    o.expires = min(o.expires, end)
    v.next_expiry = min(v.next_expiry, o.expires + venue_instruments(v, o.instrument).bar_ns)


def give_life(v: Venue, o: VenueOrder, order: Order) -> None:
    """The life that an order is sent or replaced with, if any, counts from then; the end of a DAY order stays."""
    if order.life_ms > 0:
        if o.tif != codes.DAY:
            o.expires = NEVER
        last_until(v, o, order.ts + order.life_ms * MS)


@cold
def expire(lp: Loop, v: Venue, ts: int) -> None:
    """End the orders whose time has come by `ts`, and note when the next one's will.

    A bar that is still to come may have begun before `ts`: an order ends when the longest can no more have met it.
    """
    v.next_expiry = NEVER
    i = v.first
    while i >= 0:
        m, bar_ns = venue_markets(v, i), venue_instruments(v, i).bar_ns
        following, row = m.after, m.head
        while row >= 0:
            o = venue_orders(v, row)
            after = o.next
            if ts >= o.expires + bar_ns:
                report(lp, v, o, codes.EXPIRED, o.expires, 0, 0.0, 0.0)
                remove(v, row)
            else:
                v.next_expiry = min(v.next_expiry, o.expires + bar_ns)
            row = after
        i = following


def accept(lp: Loop, v: Venue, order: Order, last: float) -> None:
    """An instruction arrives: hold and acknowledge it, cancel, or replace. `last`: where a trailing stop begins."""
    if order.action == codes.NEW:
        take_in(lp, v, order, last)
    else:
        change(lp, v, order, find(v, order.instrument, order.id), last)


def take_in(lp: Loop, v: Venue, order: Order, last: float) -> int:
    """Hold and acknowledge a new order: its row, -1 when there is no room."""
    row = v.free
    if row < 0:
        reject_new(lp, v, order, codes.OPEN_ORDERS)
        return row
    o = venue_orders(v, row)
    v.free = o.next
    o.id = order.id
    o.ts = order.ts
    o.qty = order.qty
    o.left = order.qty
    o.instrument = order.instrument
    o.strategy = order.strategy
    o.side = order.side
    o.type = order.type
    o.tif = order.tif
    o.mask = order.mask
    o.used = 1
    o.triggered = 0
    o.fresh = 1
    o.met = 0
    o.ahead = 0.0
    o.price = 0.0
    set_prices(v, o, order, last)
    o.expires = NEVER
    give_life(v, o, order)
    if o.tif == codes.DAY and venue_hours(v, o.instrument).count > 0:
        last_until(v, o, day_end(v, o.instrument, order.ts))
    append(v, row)
    report(lp, v, o, codes.ACK, order.ts, 0, 0.0, 0.0)
    return row


def change(lp: Loop, v: Venue, order: Order, row: int, last: float) -> int:
    """Cancel or replace the order in a row, -1 = none: the row of what it replaced, else -1."""
    if row < 0:
        reject_new(lp, v, order, codes.UNKNOWN_ORDER)
        return row
    o = venue_orders(v, row)
    if order.action == codes.CANCEL:
        report(lp, v, o, codes.CANCELLED, order.ts, 0, 0.0, 0.0)
        remove(v, row)
        return -1
    if order.qty <= o.qty - o.left:
        reject_new(lp, v, order, codes.BAD_ORDER)
        return -1
    o.ts = order.ts
    o.left += order.qty - o.qty
    o.qty = order.qty
    set_prices(v, o, order, last)
    give_life(v, o, order)
    report(lp, v, o, codes.REPLACED, order.ts, order.qty, o.price, o.stop)
    return row


def append(v: Venue, row: int) -> None:
    """Put an order at the end of its instrument's chain."""
    o = venue_orders(v, row)
    m = venue_markets(v, o.instrument)
    o.next = -1
    if m.head < 0:
        m.head = row
        link(v, o.instrument, int(v.last))
        v.busy += 1
    else:
        venue_orders(v, m.tail).next = row
    m.tail = row
    v.opened += 1


def unlink(v: Venue, instrument: int) -> None:
    """Take an instrument out of the list of the busy ones."""
    m = venue_markets(v, instrument)
    if m.before < 0:
        v.first = m.after
    else:
        venue_markets(v, m.before).after = m.after
    if m.after < 0:
        v.last = m.before
    else:
        venue_markets(v, m.after).before = m.before


def link(v: Venue, instrument: int, before: int) -> None:
    """Put an instrument into the list of the busy ones behind `before`, -1 = at its head."""
    m = venue_markets(v, instrument)
    m.before = before
    if before < 0:
        m.after = v.first
        v.first = instrument
    else:
        m.after = venue_markets(v, before).after
        venue_markets(v, before).after = instrument
    if m.after < 0:
        v.last = instrument
    else:
        venue_markets(v, m.after).before = instrument


@hot
def mark(v: Venue, m: VenueMarket, last: float) -> None:
    """A new last price of one instrument; when any is held the account's totals follow."""
    if v.held != 0:
        value, used, worth, carry, before = v.value, v.used, m.worth, m.carry, m.last
        if last < 0.0 or before < 0.0:
            v.value = value + worth * (last - before)
            v.used = used + carry * (abs(last) - abs(before))
        else:
            v.value = value + worth * (last - before)
            v.used = used + carry * (last - before)
    m.last = last


def hold(v: Venue, m: VenueMarket, net: int, last: float) -> None:
    """A new position of one instrument and the price it came at; flat is exactly zero."""
    mark(v, m, last)
    worth = net * m.unit
    carry = abs(worth) * m.margin
    v.held += int(net != 0) - int(m.net != 0)
    v.value += (worth - m.worth) * last
    v.used += (carry - m.carry) * abs(last)
    m.net = net
    m.worth = worth
    m.carry = carry
    if v.held == 0:
        v.value = 0.0
        v.used = 0.0


def absorb_action(v: Venue, ev: Event) -> None:
    """Corporate actions and funding on the account's position."""
    m = venue_markets(v, ev.instrument)
    if ev.kind == codes.DIVIDEND:
        v.cash += m.net * venue_instruments(v, ev.instrument).lot * ev.amount
    elif ev.kind == codes.FUNDING:
        v.cash -= m.net * m.unit * m.last * ev.amount
    elif ev.kind == codes.SPLIT:
        exact = m.net * ev.amount
        whole = math.floor(abs(exact) + 1e-9)
        whole = whole if exact > 0 else -whole
        v.cash += (exact - whole) * m.last / ev.amount * m.unit
        hold(v, m, whole, m.last / ev.amount)
