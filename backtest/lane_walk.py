"""The short way through a tape of one instrument's bars: what `loop.run` does, without what lanes do not need.

Law 1: every change of kernel and venue is made by the functions that `loop.run` calls, in its order, or is what they
       come to where nothing is open (`flat`, `invested`); so orders, fills and states are those of `run`, byte by byte.
       Only the curve is never written: its points go into the tally at once.
Law 2: it is taken only where each moment of the tape is one bar, on which one strategy and no end of a slice waits.
"""

from backtest.loop import carry_out, ctx_at, match, morning, room, wish
from backtest.records import Loop, Venue, VenueMarket, venue_at, venue_markets
from backtest.tally import Tally, event_number, fold_fills, fold_point, rise
from backtest.venue import EVENT_BYTES, mark
from engine.kernel import codes
from engine.kernel.events import Event, event_at
from engine.kernel.positions import apply_mark
from engine.kernel.primitives import address_of, cold, hot, invoke
from engine.kernel.records import Kernel, Market, Slot, address_at, kernel_at, markets, route_at, slot_at
from engine.kernel.risk import set_floor
from engine.kernel.signals import Ctx
from engine.kernel.step import call, close_slice, start

BAR_BIT = 1 << codes.BAR


@cold
def empty(lp: Loop, k: Kernel, t: Tally, queues: int, cap: int, counts: bool) -> None:
    """Orders and fills into the tally; nothing of bars is ever under way between two moments."""
    if counts:
        fold_fills(t, queues, cap, k, lp)
    lp.orders_n = 0
    lp.reports_n = 0
    lp.refusals_n = 0


@hot
def flat(k: Kernel, ctx: Ctx, v: Venue, m: Market, vm: VenueMarket, t: Tally, handler: int, state: int, tape: int,
         at: int, end: int) -> int:  # fmt: skip
    """Bars on which nothing is held or open: the equity stands still, so limits and falls do too.

    Returns the place of the bar that ended it: `end`, the first of a day, or one on which the handler wished or failed.
    """
    begin, day, here = at, k.next_day, address_of(ctx)
    while at < end:
        ev = event_at(tape + at)
        ts, price = ev.recv, ev.close
        if ts >= day:
            break
        k.ts = ts
        ctx.now = ts
        m.ts = ts
        m.mark = price
        vm.last = price
        invoke(handler, state, tape + at, here)
        if k.signals | ctx.fault:
            break
        at += EVENT_BYTES
    count = (at - begin) // EVENT_BYTES
    if count > 0:
        passed(k, v, vm, t, event_at(tape + at - EVENT_BYTES).recv, at, count)
        t.equity += count * (k.cash + k.value)
    return at


@hot
def passed(k: Kernel, v: Venue, vm: VenueMarket, t: Tally, ts: int, at: int, count: int) -> None:
    """So many bars have passed on the short way, the last of them at `ts`, before place `at`."""
    k.seq += count
    v.ts = ts
    v.slice = at - EVENT_BYTES
    vm.bar = at - EVENT_BYTES
    t.rows += count
    t.last_ts = ts


@hot
def invested(k: Kernel, ctx: Ctx, v: Venue, m: Market, vm: VenueMarket, t: Tally, handler: int, state: int, tape: int,
             at: int, end: int) -> int:  # fmt: skip
    """Bars on which something is held, nothing open. Returns as `flat`, or at a bar that breaks a limit on losses."""
    begin, day, here = at, k.next_day, address_of(ctx)
    peak, low, falling, before = t.peak, t.low, t.falling, t.last_ts
    worth, weight, cash, highest, floor = m.worth, m.weight, k.cash, k.peak, k.floor
    theirs, carry, value, used, price = vm.worth, vm.carry, v.value, v.used, vm.last
    equities, prices = 0.0, 0.0
    while at < end and price >= 0.0:
        ev = event_at(tape + at)
        ts, close = ev.recv, ev.close
        if ts >= day or not close >= 0.0:
            break
        value += theirs * (close - price)  # the venue's sums move from price to price, the kernel's are taken over
        used += carry * (close - price)
        price = close
        mine = worth * price
        k.ts = ts
        ctx.now = ts
        m.ts = ts
        m.mark = price
        k.value = mine
        invoke(handler, state, tape + at, here)
        equity = cash + mine
        if k.signals | ctx.fault or equity < floor:
            break
        if equity > highest:
            highest = equity
            k.peak = equity
            set_floor(k)
            floor = k.floor
        equities += equity
        prices += price
        if equity >= peak:
            if falling:
                t.low = low
                rise(t, ts)
                falling = 0
            peak = equity
            t.peak = equity
        elif falling == 0:
            falling = 1
            t.begin = before
            low = equity
        elif equity < low:
            low = equity
        before = ts
        at += EVENT_BYTES
    vm.last = price
    v.value = value
    v.used = used
    k.gross = weight * abs(price)
    k.used = m.carry * abs(price)
    count = (at - begin) // EVENT_BYTES
    t.low = low
    t.falling = falling
    if count > 0:
        passed(k, v, vm, t, before, at, count)
        t.equity += equities
        t.gross += weight * prices
        t.exposed += count
    return at


@hot
def bar(k: Kernel, ctx: Ctx, v: Venue, m: Market, vm: VenueMarket, slot: Slot, state_at: int, ev: Event,
        at: int) -> None:  # fmt: skip
    """One bar in full, up to and with its handler."""
    ts = ev.recv
    v.slice = at
    vm.bar = at
    mark(v, vm, ev.close)
    k.seq += 1
    k.ts = ts
    if ts >= k.next_day:
        morning(k)
    ctx.now = ts
    apply_mark(k, m, ts, ev.close)
    if slot.active & BAR_BIT:
        call(k, ctx, slot, codes.BAR, state_at, 0, ev)


def walk(lp: Loop, t: Tally, until: int, counts: bool, queues: int, cap: int, ends: int, returns: int, row: int,
         length: int) -> None:  # fmt: skip
    """The bars from `lp.index` up to event `until`. The last point of a run waits in the tally: see `finish`."""
    k, ctx, v = kernel_at(lp.kernel), ctx_at(lp.ctx), venue_at(lp.venue)
    lp.status = 0
    if k.halt != codes.RUNNING:
        lp.status = codes.HALTED
        return
    faults, tape, at, end = k.faulted, lp.tape, lp.index * EVENT_BYTES, until * EVENT_BYTES
    if not lp.started and at < end:
        lp.started = 1
        start(k, ctx, event_at(tape))
    m, vm, here = markets(k, 0), venue_markets(v, 0), address_of(k)
    route = route_at(here + m.route)
    slot, state_at = slot_at(here + route.slot_at), route.state_at
    handler = address_at(here + slot.handlers_at + 8 * codes.BAR).value
    last, period = (length - 1) * EVENT_BYTES, event_number(ends + 8 * t.period)
    full = not room(lp, k, v)
    while at < end and lp.status == 0:
        called = False
        if v.opened == 0 and t.rows != 0 and k.attention == 0 and counts and slot.active & BAR_BIT and k.breach == 0:
            stop = min(end, last, at + (period - t.rows) * EVENT_BYTES) if period < length else min(end, last)
            ctx.instrument = 0
            ctx.strategy = slot.strategy
            if k.held == 0:
                at = flat(k, ctx, v, m, vm, t, handler, here + state_at, tape, at, stop)
            else:
                at = invested(k, ctx, v, m, vm, t, handler, here + state_at, tape, at, stop)
            if at >= end:
                break
            met = event_at(tape + at)  # `invested` leaves a bar to the long way where a price is below zero
            called = at < stop and met.recv < k.next_day and (k.held == 0 or (vm.last >= 0.0 and met.close >= 0.0))
        ev = event_at(tape + at)
        if full:
            empty(lp, k, t, queues, cap, counts)
            full = False
        if called:
            v.slice = at
            vm.bar = at
            k.seq += 1
        else:
            if v.opened:
                full = match(lp, k, ctx, v, at, ev.recv)
            bar(k, ctx, v, m, vm, slot, state_at, ev, at)
        if k.signals | ctx.fault:
            wish(k, ctx, slot)
        v.ts = ev.recv
        close_slice(k, ctx, ev)
        if k.attention:
            full = not carry_out(lp, k, ctx, v, faults)
        if counts and count_point(t, k, period, returns, row, at == last or lp.status != 0):
            period = event_number(ends + 8 * t.period)
        at += EVENT_BYTES
    if lp.orders_n + lp.reports_n + lp.refusals_n != 0:
        empty(lp, k, t, queues, cap, counts)
    lp.index = at // EVENT_BYTES


@hot
def count_point(t: Tally, k: Kernel, period: int, returns: int, row: int, waits: bool) -> bool:
    """A moment's point into the tally, or to wait there; whether a period has ended."""
    c = t.point
    c.ts = k.ts
    c.equity = k.cash + k.value
    c.cash = k.cash
    c.gross = k.gross
    if waits:
        t.waiting = 1
        return False
    before = t.period
    fold_point(t, c, period, returns, row)
    return t.period != before
