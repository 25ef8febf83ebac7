"""Matching of quotes and trades: where held orders meet an order book of which the top is shown.

An order acts on the book that exists when it arrives. What takes, takes what is shown, at the touch; the rest of a
market order waits for the next quote. What rests joins the queue behind the volume shown at its price:
  a trade at our price     takes the volume ahead first, then fills us with what it has left
  a trade through it       fills us, as far as it traded; the queue before us is gone
  a quote of the other     side at or through our price fills us, as far as it shows
How the queue moves otherwise is in queues.py.
No two of our orders take the same liquidity: the better price is served first, then the earlier arrival.
"""

from backtest.depth import consume, deeper, enough, lots_of, outdated, touch
from backtest.hours import day_end
from backtest.matching import fill
from backtest.queues import SAME, has_book, join_queue, requeue
from backtest.records import (
    Loop,
    Venue,
    VenueBook,
    VenueOrder,
    venue_books,
    venue_instruments,
    venue_markets,
    venue_orders,
)
from backtest.stops import at_limit, at_market, follow, reached, stopped
from backtest.venue import MS, change, find, last_until, mark, reject_new, remove, report, take_in
from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.primitives import cold, hot
from engine.kernel.records import Order

RESTING_BUY, RESTING_SELL, WAITS = 1, 2, 4


def reaches(b: VenueBook, side: int, price: float) -> bool:
    """Whether an order at the price could trade at once."""
    other = touch(b, side)
    return other > 0.0 and (price - other) * side >= -SAME * price


def serve(lp: Loop, v: Venue, row: int, ts: int, price: float, volume: float, maker: bool) -> float:
    """Fill an order with at most `volume` units of liquidity; the volume it took. The order may be gone afterwards."""
    o = venue_orders(v, row)
    i = o.instrument
    m = venue_markets(v, i)
    offered = lots_of(v, i, volume)
    if offered <= 0 and o.tif != codes.FOK:
        return 0.0
    m.budget = offered
    fill(lp, v, row, ts, price, maker)
    return (offered - m.budget) * venue_instruments(v, i).lot


def take(lp: Loop, v: Venue, row: int, ts: int) -> None:
    """An order that may trade at once takes what is shown: at the touch, and with depth level by level behind it."""
    o = venue_orders(v, row)
    b = venue_books(v, o.instrument)
    side, order_id = o.side, o.id
    price = touch(b, side)
    i = o.instrument
    if o.tif == codes.FOK and has_book(v, i) and enough(v, o):
        o.tif = codes.IOC  # it will be filled whole, level by level
    while price > 0.0 and takes(b, o):
        consume(v, i, side, serve(lp, v, row, ts, price, b.ask_volume if side > 0 else b.bid_volume, False))
        if not (o.used and o.id == order_id) or (touch(b, side) == price and not deeper(v, i, side)):
            break
        price = touch(b, side)
    if o.used and o.id == order_id and (o.tif == codes.IOC or o.tif == codes.FOK):
        report(lp, v, o, codes.CANCELLED, ts, 0, 0.0, float(codes.NO_LIQUIDITY))
        remove(v, row)


def takes(b: VenueBook, o: VenueOrder) -> bool:
    """Whether the order acts as a taker now."""
    return at_market(o) or (at_limit(o) and reaches(b, o.side, o.price))


def crosses_own(v: Venue, order: Order) -> bool:
    """Whether a new order could trade with one of our own that rests."""
    if order.type != codes.MARKET and order.type != codes.LIMIT:
        return False
    row = venue_markets(v, order.instrument).head
    while row >= 0:
        o = venue_orders(v, row)
        against = o.side != order.side and o.type == codes.LIMIT and o.id != order.id
        if against and (order.type == codes.MARKET or (order.price - o.price) * order.side >= 0.0):
            return True
        row = o.next
    return False


@cold
def arrive(lp: Loop, v: Venue, order: Order, ts: int) -> None:
    """An instruction reaches the venue at `ts`."""
    v.ts = max(v.ts, ts)
    b = venue_books(v, order.instrument)
    late = order.life_ms > 0 and ts > order.ts + order.life_ms * MS
    if order.action == codes.CANCEL:
        if late:
            reject_new(lp, v, order, codes.EXPIRED_SIGNAL)
            return
    else:
        crossing = order.type == codes.LIMIT and reaches(b, order.side, order.price)
        if order.mask & codes.POST_ONLY and crossing:
            reject_new(lp, v, order, codes.POST_ONLY_CROSS)
            return
        if crosses_own(v, order):
            reject_new(lp, v, order, codes.SELF_MATCH)
            return
    kept = False
    if order.action == codes.NEW:
        row = take_in(lp, v, order, touch(b, order.side))
    else:
        row = find(v, order.instrument, order.id)
        if row >= 0:  # fewer lots at the same price keep their place in the queue
            o = venue_orders(v, row)
            kept = abs(o.price - order.price) <= SAME * o.price and order.qty <= o.qty
        row = change(lp, v, order, row, touch(b, order.side))
    if row < 0:
        return
    o = venue_orders(v, row)
    if late:
        report(lp, v, o, codes.EXPIRED, v.ts, 0, 0.0, 0.0)
        remove(v, row)
        return
    if kept:
        return
    if order.action == codes.NEW and o.tif == codes.DAY:
        last_until(v, o, day_end(v, order.instrument, ts))
    if stopped(o) and reached(o, touch(b, o.side), SAME):
        o.triggered = 1
    at_once = o.tif == codes.IOC or o.tif == codes.FOK
    if takes(b, o) or (at_once and not stopped(o)):
        take(lp, v, row, v.ts)
    if o.used and at_limit(o):
        join_queue(v, o)


def best_row(v: Venue, instrument: int, side: int, worst: float) -> int:
    """The resting order of a side to serve next among those at `worst` or better that this event has not met; or -1."""
    found, price = -1, 0.0
    row = venue_markets(v, instrument).head
    while row >= 0:
        o = venue_orders(v, row)
        meets = o.side == side and o.met == 0 and at_limit(o) and (o.price - worst) * side >= -SAME * worst
        if meets and (found < 0 or (o.price - price) * side > SAME * price):
            found, price = row, o.price
        row = o.next
    return found


def forget_met(v: Venue, instrument: int) -> None:
    """Before the next event: no order has been served yet."""
    row = venue_markets(v, instrument).head
    while row >= 0:
        o = venue_orders(v, row)
        o.met = 0
        row = o.next


def trade_meets(lp: Loop, v: Venue, ev: Event, side: int) -> None:
    """A trade meets the resting orders of one side: those through it, then those at its price behind their queue."""
    left, ts = ev.traded, ev.ts
    forget_met(v, ev.instrument)
    row = best_row(v, ev.instrument, side, ev.price)
    while row >= 0:
        o = venue_orders(v, row)
        o.met = 1
        offered = left
        if abs(o.price - ev.price) <= SAME * o.price:
            offered -= o.ahead  # what an earlier one of ours took has not come to this one's queue
            o.traded += ev.traded
        o.ahead = max(0.0, -offered)  # a trade through the price has left nobody before us
        if offered > 0.0:
            left -= serve(lp, v, row, ts, o.price, offered, True)
        row = best_row(v, ev.instrument, side, ev.price)


def quote_meets(lp: Loop, v: Venue, ev: Event, side: int) -> None:
    """A quote whose other side has come to our resting orders: it would have traded with them."""
    i, b = ev.instrument, venue_books(v, ev.instrument)
    forget_met(v, i)
    while True:
        shown = b.ask_volume if side > 0 else b.bid_volume
        row = best_row(v, i, side, touch(b, side)) if shown > 0.0 else -1
        if row < 0:
            break
        o = venue_orders(v, row)
        o.met = 1
        price = touch(b, side)
        consume(v, i, side, serve(lp, v, row, ev.ts, o.price, shown, True))
        empty = lots_of(v, i, b.ask_volume if side > 0 else b.bid_volume) == 0
        if touch(b, side) != price or (empty and deeper(v, i, side)):
            forget_met(v, i)  # more is shown behind


def trigger(lp: Loop, v: Venue, ev: Event, low: float, high: float) -> None:
    """Stops whose price has come, and takers that still wait for liquidity, meet the book. `low`, `high`: prices."""
    b = venue_books(v, ev.instrument)
    row = venue_markets(v, ev.instrument).head
    while row >= 0:
        o = venue_orders(v, row)
        following = o.next
        if stopped(o):
            if reached(o, high if o.side > 0 else low, SAME):
                o.triggered = 1
                if o.type == codes.STOP_LIMIT and not reaches(b, o.side, o.price):
                    join_queue(v, o)
            elif o.type == codes.TRAILING:
                follow(v, o, touch(b, o.side))
        if o.type != codes.LIMIT and takes(b, o):
            take(lp, v, row, ev.ts)
        row = following


def concern(o: VenueOrder, hit: bool) -> int:
    """Whom a market event concerns: a resting purchase or sale that it hit, and whoever waits for more than that."""
    if o.type == codes.LIMIT:
        return (RESTING_BUY if o.side > 0 else RESTING_SELL) if hit else 0
    return RESTING_BUY | RESTING_SELL | WAITS


@cold
def meet_quote(lp: Loop, v: Venue, ev: Event) -> None:
    """A new top of the book meets our orders of the instrument."""
    b, concerns = venue_books(v, ev.instrument), 0
    row = venue_markets(v, ev.instrument).head
    while row >= 0:
        o = venue_orders(v, row)
        concerns |= concern(o, at_limit(o) and requeue(v, ev, o))
        row = o.next
    show(b, ev)
    if concerns:
        meet_touch(lp, v, ev, concerns, ev.bid, ev.ask)


def meet_touch(lp: Loop, v: Venue, ev: Event, concerns: int, bid: float, ask: float) -> None:
    """The orders of the instrument that the touch, at `bid` and `ask`, concerns."""
    if concerns & RESTING_BUY:
        quote_meets(lp, v, ev, codes.BUY)
    if concerns & RESTING_SELL:
        quote_meets(lp, v, ev, codes.SELL)
    if concerns & WAITS:
        trigger(lp, v, ev, bid, ask)


def comes_to(o: VenueOrder, price: float) -> bool:
    """Whether a price is at or through that of an order."""
    return (o.price - price) * o.side >= -SAME * price


@cold
def meet_book(lp: Loop, v: Venue, ev: Event) -> None:
    """A changed book meets our orders of the instrument."""
    b, concerns = venue_books(v, ev.instrument), 0
    row = venue_markets(v, ev.instrument).head
    while row >= 0:
        o = venue_orders(v, row)
        concerns |= concern(o, comes_to(o, b.ask if o.side > 0 else b.bid))
        row = o.next
    if concerns:
        meet_touch(lp, v, ev, concerns, b.bid, b.ask)


@cold
def meet_trade(lp: Loop, v: Venue, ev: Event) -> None:
    """A trade meets our orders of the instrument; one of unknown side may have met either."""
    concerns, row = 0, venue_markets(v, ev.instrument).head
    while row >= 0:
        o = venue_orders(v, row)
        concerns |= concern(o, comes_to(o, ev.price))
        row = o.next
    if concerns & RESTING_BUY and ev.side <= 0:
        trade_meets(lp, v, ev, codes.BUY)
    if concerns & RESTING_SELL and ev.side >= 0:
        trade_meets(lp, v, ev, codes.SELL)
    if concerns & WAITS:
        trigger(lp, v, ev, ev.price, ev.price)


@hot
def show(b: VenueBook, ev: Event) -> None:
    """Take over a quote."""
    b.bid = ev.bid
    b.ask = ev.ask
    b.bid_volume = ev.bid_volume
    b.ask_volume = ev.ask_volume


@hot
def market_event(lp: Loop, v: Venue, ev: Event) -> bool:
    """The venue's own view of a quote or a trade, and our orders with it. Whether it met any."""
    kind, i, met_some = ev.kind, ev.instrument, False
    v.ts = max(v.ts, ev.ts)
    if i >= v.instruments:
        return False  # the kernel halts on it
    m, b = venue_markets(v, i), venue_books(v, i)
    if kind == codes.QUOTE:
        if v.depth_at != 0 and outdated(v, ev):
            return False
        bid, ask = ev.bid, ev.ask
        if m.head >= 0:
            meet_quote(lp, v, ev)
            met_some = True
        else:
            show(b, ev)
        if bid > 0.0 and ask > 0.0:
            mark(v, m, 0.5 * (bid + ask))
    else:
        if m.head >= 0:
            meet_trade(lp, v, ev)
            met_some = True
        if m.last == 0.0:
            m.last = ev.price
    return met_some
