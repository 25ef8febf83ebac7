"""Matching of bars: where held orders meet the market.

The venue sees a bar as time passes through it, the strategy only at its close. Bars that share a timestamp are
matched together, in three passes, so that a sale at the open pays for a purchase at the same open:
  1 the open, orders that reduce a position    market orders, stops that the open has gapped through, limits that
  2 the open, all other orders                 the open has reached: all at the open
  3 inside the bar, pessimistic                stops before limits; a stop fills at its price, a limit only when the
                                               price went through it (or touched it, by config)
An order meets a bar that opens after it was sent, or that follows the bar of its instrument it was sent at: with
instruments of different hours, what has passed of a bar when the order comes is not for it.
A trailing stop follows the open, meets the bar with the stop that it then has, and follows the far end of the bar
last: the near end came first, which is the worst for it. If the close lies beyond it by then, it was passed on the way
from the far end; it trades at the close.
A stop-limit that triggers inside a bar fills in the same bar only when the path proves it: at the stop when the limit
is no better than the stop, at the limit when the close lies beyond it.
Slippage worsens market and stop fills. A fill that would break margin is rejected, unless it reduces.
Every fill is explainable from the tape: an open, a stop price, or a limit price of that bar, plus the stated slippage.
"""

import math

from backtest.hours import bar_begin, day_end
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
from backtest.stops import at_limit, at_market, follow, reached, stopped
from backtest.venue import EVENT_BYTES, expire, hold, last_until, link, remove, report, unlink
from engine.kernel import codes
from engine.kernel.events import Event, event_at
from engine.kernel.primitives import prefetch

UNLIMITED = 1 << 62
LATER = 2  # of VenueOrder.met: not before the next bar
FEW = 32  # busy instruments
AHEAD = 512 * EVENT_BYTES  # between a prefetch into the second cache and its use: a timestamp of many instruments
SAME = 1e-12  # relative: prices nearer to each other are one price, read or computed in two ways


def affordable(v: Venue, o: VenueOrder, m: VenueMarket, lots: int, price: float, fee: float) -> bool:
    """Whether the account can carry the fill: margin of all positions within equity times leverage."""
    after = m.net + lots
    if abs(after) <= abs(m.net) and after * m.net >= 0:
        return True
    if v.leverage == math.inf:
        return True
    equity = v.cash + v.value + m.net * (price - m.last) * m.unit - fee
    used = v.used + (abs(after) * price - abs(m.net) * m.last) * m.unit * m.margin
    return used <= equity * v.leverage * (1.0 + 1e-9)


def fee_of(v: Venue, instrument: int, lots: int, price: float, maker: bool) -> float:
    """max(minimum, |notional| * bps / 10,000 + units * fee per unit); a negative sum is a rebate, paid in full."""
    i = venue_instruments(v, instrument)
    units = abs(lots) * i.lot
    bps = i.maker_bps if maker else i.taker_bps
    fee = units * i.multiplier * price * bps * 1e-4 + units * i.fee_per_unit
    return fee if fee < 0.0 else max(i.fee_min, fee)


def fill(lp: Loop, v: Venue, row: int, ts: int, price: float, maker: bool) -> bool:
    """Fill an order at a price, as far as reduce-only, participation cap and margin allow; False when it is gone."""
    o = venue_orders(v, row)
    m = venue_markets(v, o.instrument)
    room = o.left
    if o.mask & codes.REDUCE_ONLY:
        room = min(room, -m.net if o.side > 0 else m.net)
    if room <= 0:
        report(lp, v, o, codes.CANCELLED, ts, 0, 0.0, float(codes.REDUCE_ONLY_SIDE))
        remove(v, row)
        return False
    if o.tif == codes.FOK and room > m.budget:
        report(lp, v, o, codes.CANCELLED, ts, 0, 0.0, float(codes.NO_LIQUIDITY))
        remove(v, row)
        return False
    lots = min(room, m.budget)
    if lots <= 0:
        return True
    if not maker and o.type != codes.LIMIT:
        price += price * v.slippage_bps * 1e-4 * o.side
        if o.type == codes.STOP_LIMIT:
            price = min(price, o.price) if o.side > 0 else max(price, o.price)
    fee = fee_of(v, o.instrument, lots, price, maker)
    if not affordable(v, o, m, lots * o.side, price, fee):
        report(lp, v, o, codes.REJECT, ts, 0, price, float(codes.MARGIN))
        remove(v, row)
        return False
    hold(v, m, m.net + lots * o.side, price)
    m.budget -= lots
    v.cash -= lots * o.side * price * m.unit + fee
    o.left -= lots
    report(lp, v, o, codes.FILL, ts, lots * o.side, price, fee)
    if o.left > 0:
        if lots < room:
            return True
        report(lp, v, o, codes.CANCELLED, ts, 0, 0.0, float(codes.REDUCE_ONLY_SIDE))  # nothing is left to reduce
    remove(v, row)
    return False


def at_open(lp: Loop, v: Venue, row: int, bar: Event, ts: int) -> None:
    """The first price of the bar meets one order."""
    o = venue_orders(v, row)
    price, alive, resting = bar.open, True, not o.fresh
    if stopped(o):
        if not reached(o, price, SAME):
            if o.type == codes.TRAILING:
                follow(v, o, price)
            return
        o.triggered = 2 if o.type == codes.STOP_LIMIT else 1  # at the open: it rests through the bar
        resting = False
    if at_market(o):
        alive = fill(lp, v, row, ts, price, False)
    elif (o.price - price) * o.side >= -SAME * price:
        if o.mask & codes.POST_ONLY and o.fresh:
            report(lp, v, o, codes.REJECT, ts, 0, price, float(codes.POST_ONLY_CROSS))
            remove(v, row)
            return
        alive = fill(lp, v, row, ts, price, resting)
    if alive:
        end_at_once(lp, v, row, ts)


def end_at_once(lp: Loop, v: Venue, row: int, ts: int) -> None:
    """What is left of an order that was to be filled at once is cancelled."""
    o = venue_orders(v, row)
    if o.tif == codes.IOC or o.tif == codes.FOK:
        report(lp, v, o, codes.CANCELLED, ts, 0, 0.0, float(codes.NO_LIQUIDITY))
        remove(v, row)


def stop_inside(lp: Loop, v: Venue, row: int, bar: Event) -> None:
    """A stop meets the range of the bar."""
    o = venue_orders(v, row)
    alive, price = True, o.stop
    if o.triggered:
        return
    if not reached(o, bar.high if o.side > 0 else bar.low, SAME):
        if o.type != codes.TRAILING:
            return
        follow(v, o, bar.low if o.side > 0 else bar.high)
        price = bar.close
        if not reached(o, price, SAME):
            return
    o.triggered = 1
    if o.type != codes.STOP_LIMIT or (o.price - o.stop) * o.side >= 0.0:
        alive = fill(lp, v, row, bar.ts, price, False)
    elif (o.price - bar.close) * o.side > SAME * bar.close:
        alive = fill(lp, v, row, bar.ts, o.price, True)
    if alive:
        end_at_once(lp, v, row, bar.ts)


def limit_inside(lp: Loop, v: Venue, row: int, bar: Event) -> None:
    """A resting limit meets the range of the bar."""
    o = venue_orders(v, row)
    best = bar.low if o.side > 0 else bar.high
    through = (o.price - best) * o.side
    if through > SAME * best or (v.touch and through >= -SAME * best):
        fill(lp, v, row, bar.ts, o.price, True)


def reduces(v: Venue, o: VenueOrder) -> bool:
    """Whether a fill of the order would bring the account's position nearer to zero."""
    net = venue_markets(v, o.instrument).net
    return net * o.side < 0 and o.left <= abs(net)


def begin_bar(lp: Loop, v: Venue, bar: Event) -> None:
    """Before matching: the bar's budget, and the orders whose time has run out."""
    m = venue_markets(v, bar.instrument)
    m.budget = UNLIMITED
    i = venue_instruments(v, bar.instrument)
    if v.participation > 0.0:
        share = bar.volume * v.participation / i.lot + 1e-9
        if not share >= UNLIMITED:
            m.budget = math.floor(share) if share > 0.0 else 0
    m.begin = begin = bar_begin(v, bar)
    since = begin if m.previous < 0 else max(begin, event_at(lp.tape + m.previous).ts)
    row = m.head
    while row >= 0:
        o = venue_orders(v, row)
        following = o.next
        o.met = LATER if o.ts > since else 0
        if o.met == LATER:
            pass  # sent while this bar was under way: who knows which part of it came afterwards
        elif begin >= o.expires:
            report(lp, v, o, codes.EXPIRED, o.expires, 0, 0.0, 0.0)
            remove(v, row)
        elif o.tif == codes.DAY and o.fresh and venue_hours(v, bar.instrument).count == 0:
            last_until(v, o, day_end(v, bar.instrument, begin))  # sent after a close, it lives through the next day
        row = following


def match_open(lp: Loop, v: Venue, bar: Event, reducing: bool) -> None:
    """Passes 1 and 2: the open meets the orders of the instrument, in order of arrival."""
    ts = max(v.ts, venue_markets(v, bar.instrument).begin)  # never before what the venue has seen
    row = venue_markets(v, bar.instrument).head
    while row >= 0:
        o = venue_orders(v, row)
        following = o.next
        if o.met == 0 and (not reducing or reduces(v, o)):
            o.met = 1
            at_open(lp, v, row, bar, ts)
        row = following


def match_inside(lp: Loop, v: Venue, bar: Event) -> None:
    """Pass 3: stops, then limits."""
    for limits in range(2):
        row = venue_markets(v, bar.instrument).head
        while row >= 0:
            o = venue_orders(v, row)
            following = o.next
            if o.met == LATER:
                pass
            elif limits == 1 and at_limit(o) and o.triggered != 1:
                limit_inside(lp, v, row, bar)
            elif limits == 0 and o.type >= codes.STOP:
                stop_inside(lp, v, row, bar)
            row = following
    row = venue_markets(v, bar.instrument).head
    while row >= 0:
        o = venue_orders(v, row)
        if o.met != LATER:
            o.fresh = 0
            if o.triggered == 1:
                o.triggered = 2  # from the next bar on a triggered stop-limit is a resting limit
        o.met = 0
        row = o.next


def split(lp: Loop, v: Venue, ev: Event) -> None:
    """A split cancels open orders at the old price; the position scales when the venue absorbs the event."""
    m = venue_markets(v, ev.instrument)
    row = m.head
    while row >= 0:
        o = venue_orders(v, row)
        following = o.next
        report(lp, v, o, codes.CANCELLED, max(v.ts, ev.ts), 0, 0.0, 0.0)
        remove(v, row)
        row = following


def bar_at(lp: Loop, at: int, ts: int, instrument: int) -> bool:
    """Whether the tape has a bar of the instrument at `ts` there."""
    if at >= lp.length * EVENT_BYTES:
        return False
    ev = event_at(lp.tape + at)
    return ev.ts == ts and ev.instrument == instrument and ev.kind == codes.BAR


def find_bars(lp: Loop, v: Venue, begin: int, ts: int) -> bool:
    """The bars of the busy instruments at `ts`, each where it was within the timestamp before; sorted by place.

    False when one is not there, or when so many are busy that a look at the whole timestamp is cheaper.
    """
    if v.busy > FEW:
        return False
    i = v.first
    while i >= 0:
        m = venue_markets(v, i)
        following = m.after
        at = begin + m.bar - v.slice
        if at < begin or not bar_at(lp, at, ts, i):
            return False
        m.previous = m.bar
        m.bar = at
        before = m.before
        while before >= 0 and venue_markets(v, before).bar > at:
            before = venue_markets(v, before).before
        if before != m.before:
            unlink(v, i)
            link(v, i, before)
        i = following
    return True


def look_for_bars(lp: Loop, v: Venue, begin: int, ts: int) -> None:
    """The bars of the busy instruments at `ts`; the list of these gets the order of their bars."""
    at = begin
    while at < lp.length * EVENT_BYTES:
        ev = event_at(lp.tape + at)
        if ev.ts != ts:
            break
        prefetch(lp.tape + at + AHEAD)
        if ev.kind == codes.BAR and ev.instrument < v.instruments:
            m = venue_markets(v, ev.instrument)
            if m.head >= 0 and not begin <= m.bar < at:
                if m.bar < begin:
                    m.previous = m.bar
                m.bar = at
                unlink(v, ev.instrument)
                link(v, ev.instrument, int(v.last))
        at += EVENT_BYTES


def match_slice(lp: Loop, v: Venue, begin: int, ts: int) -> None:
    """All bars of one timestamp: expiry, then the three passes over the busy instruments."""
    while ts >= v.next_expiry:
        expire(lp, v, v.next_expiry)
    if not find_bars(lp, v, begin, ts):
        look_for_bars(lp, v, begin, ts)
    for stage in range(4):
        i = v.first
        while i >= 0:
            m = venue_markets(v, i)
            following = m.after
            if m.bar >= begin:
                bar = event_at(lp.tape + m.bar)
                if stage == 0:
                    begin_bar(lp, v, bar)
                elif stage < 3:
                    match_open(lp, v, bar, stage == 1)
                else:
                    match_inside(lp, v, bar)
            i = following
