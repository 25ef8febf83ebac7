"""The compiled backtest driver for quotes and trades: tape × kernel × simulated venue, each with its own clock.

The venue sees a market event at its `ts`, the kernel at its `recv` (and `feed_ns` later); an order reaches the venue
`order_ns` after it was sent, a report the kernel `report_ns` after it was made. Everything happens in order of time.
At the same moment: market events at the venue; then orders end whose time is up, orders arrive, reports reach the
kernel, and last the kernel's market events.
"""

from backtest.depth import absorb_depth, lose_all, show_best
from backtest.latency import feed_arrival, order_arrival
from backtest.loop import LATEST, ROW, flush_refusals, sample
from backtest.matching import split
from backtest.queues import has_book
from backtest.quotes import arrive, market_event, meet_book
from backtest.records import Loop, Venue, loop_at, venue_at, venue_books, venue_markets
from backtest.venue import EVENT_BYTES, absorb_action, expire, mark
from engine.kernel import codes
from engine.kernel.events import Event, event_at
from engine.kernel.primitives import Pointer, address_of, cold, hot, prefetch
from engine.kernel.records import Kernel, copy_line, order_at, outbox
from engine.kernel.signals import Ctx, kernel_of
from engine.kernel.step import close_slice, plain_at, start, step, step_tick

AHEAD = 32 * EVENT_BYTES  # between a prefetch and its use

ctx_at = Pointer(Ctx)


def room(lp: Loop, k: Kernel, v: Venue) -> bool:
    """Whether the buffers hold what one moment can produce at most."""
    orders = k.outbox_cap
    return (lp.curve_n < lp.curve_cap and lp.orders_n + orders <= lp.orders_cap
            and lp.reports_n + 4 * (v.opened + lp.orders_n - lp.arrived) + 2 * orders + v.levels <= lp.reports_cap
            and lp.refusals_n + k.refusal_cap <= lp.refusals_cap)  # fmt: skip


@cold
def send_out(lp: Loop, k: Kernel) -> None:
    """Orders leave for the venue, refusals for the output. What is under way waits in the output buffer."""
    for i in range(k.orders_out):
        if lp.orders_n < lp.orders_cap:
            copy_line(lp.orders + lp.orders_n * ROW, address_of(outbox(k, i)))
            lp.orders_n += 1
        else:
            lp.dropped += 1
    k.orders_out = 0
    if k.refusals_out:
        flush_refusals(lp, k)
    k.attention = 0


@hot
def venue_event(lp: Loop, v: Venue, ev: Event) -> bool:
    """A market event at the venue, whose clock it moves whatever it is. Whether there may be reports of it."""
    if ev.kind == codes.QUOTE or ev.kind == codes.TRADE:
        return market_event(lp, v, ev)
    return other_event(lp, v, ev)


def other_event(lp: Loop, v: Venue, ev: Event) -> bool:
    """Depth, a gap, a corporate action."""
    v.ts = max(v.ts, ev.ts)
    if ev.kind == codes.DEPTH or ev.kind == codes.GAP:
        depth_event(lp, v, ev)
    elif ev.instrument < v.instruments and ev.kind != codes.BAR:
        if ev.kind == codes.SPLIT:
            split(lp, v, ev)
        absorb_action(v, ev)
    return True


def depth_event(lp: Loop, v: Venue, ev: Event) -> None:
    """The venue's own view of depth, and our orders with it once the book is whole."""
    i = ev.instrument
    if i >= v.instruments:
        if ev.kind == codes.GAP:
            lose_all(v)
        return
    if not has_book(v, i) or not absorb_depth(v, ev):
        return
    m, b = venue_markets(v, i), venue_books(v, i)
    show_best(v, i)
    if m.head >= 0:
        meet_book(lp, v, ev)
    if b.bid > 0.0 and b.ask > 0.0:
        mark(v, m, 0.5 * (b.bid + b.ask))


@hot
def arrival(lp: Loop, v: Venue, last: int) -> int:
    """When the next order reaches the venue. Orders from number `last` on never do."""
    if lp.arrived >= min(lp.orders_n, last):
        return LATEST
    sent = order_at(lp.orders + lp.arrived * ROW).ts
    return drawn_arrival(v, sent) if v.sampled else sent + v.order_ns


@cold
def drawn_arrival(v: Venue, sent: int) -> int:
    """The same where the latency is a draw, of which each order has one."""
    if v.order_known == 0:
        v.order_known = 1
        v.order_due = order_arrival(v, sent)
    return v.order_due


@hot
def due(lp: Loop, v: Venue, last: int) -> int:
    """When the next order ends or reaches the venue, or the next report the kernel."""
    found = arrival(lp, v, last)
    if lp.taken < lp.reports_n:
        found = min(found, event_at(lp.reports + lp.taken * ROW).recv)
    return found if lp.closed else min(found, v.next_expiry)  # after the last event no order's time is up


@hot
def follow(lp: Loop, v: Venue, tape: int, at: int, end: int, until: int) -> int:
    """The venue sees the tape from `at` to the time `until`, or to where it has something to report: its place then."""
    reports = lp.reports_n
    while at < end:
        ev = event_at(tape + at)
        if ev.ts > until:
            break
        prefetch(tape + at + AHEAD)
        at += EVENT_BYTES
        if venue_event(lp, v, ev) and lp.reports_n != reports:
            break
    return at


@cold
def catch_up(lp: Loop, k: Kernel, ctx: Ctx, v: Venue, now: int, last: int) -> None:
    """All that happens up to `now` but for the kernel's own market events, while the tape reaches so far.

    Law: the venue has seen every event of the tape with ts <= t before anything else happens at t.
    """
    end = lp.length * EVENT_BYTES
    while True:
        reports, next_due = lp.reports_n, due(lp, v, last)
        at = lp.venue_index = follow(lp, v, lp.tape, lp.venue_index, end, min(now, next_due))
        if lp.reports_n != reports:
            continue
        if next_due > now or (at >= end and not lp.final):
            break
        ev = event_at(lp.reports + lp.taken * ROW)
        if v.next_expiry <= next_due and not lp.closed:
            expire(lp, v, next_due)
        elif lp.taken < reports and ev.recv == next_due and next_due < arrival(lp, v, last):
            step(k, ctx, ev)
            lp.taken += 1
            if k.attention:
                send_out(lp, k)
        else:
            arrive(lp, v, order_at(lp.orders + lp.arrived * ROW), next_due)
            lp.arrived += 1
            v.order_known = 0


@cold
def judge(lp: Loop, k: Kernel, faults: int, begin: int) -> None:
    """Whether a halt or a fault ends the drive; `begin` is the place of the moment on the tape."""
    if k.faulted != faults and lp.stop_on_fault:
        lp.status = codes.FAULTED
        lp.fault_index = begin // EVENT_BYTES
    elif k.halt != codes.RUNNING:
        lp.status = codes.HALTED


@hot
def reaching(lp: Loop, v: Venue, tape: int, at: int, late: bool) -> Event:
    """The event of the tape as it reaches the kernel, `late` if the feed has a latency."""
    return delayed(lp, v, at) if late else event_at(tape + at)


@cold
def delayed(lp: Loop, v: Venue, at: int) -> Event:
    """A copy of the event, received later."""
    copy_line(lp.scratch, lp.tape + at)
    ev = event_at(lp.scratch)
    ev.recv = feed_arrival(v, ev.recv)
    return ev


def run_ticks(address: int) -> None:
    """Drive the tape from `index` on, until its end, a full buffer, a fault or a halt. `lp.status` says which."""
    lp, ctx, v = loop_at(address), ctx_at(loop_at(address).ctx), venue_at(loop_at(address).venue)
    k = kernel_of(ctx)  # one register for both
    lp.status = codes.HALTED if k.halt != codes.RUNNING else 0
    if lp.status:
        return
    faults, n = k.faulted, k.instruments
    if not lp.started and lp.length > 0:
        lp.started = 1
        start(k, ctx, event_at(lp.tape))
    tape, at, end = lp.tape, lp.index * EVENT_BYTES, lp.stop * EVENT_BYTES
    seen, venue_end, reports, next_sample = lp.venue_index, lp.length * EVENT_BYTES, lp.reports_n, lp.next_sample
    full, next_due, late = not room(lp, k, v), due(lp, v, LATEST), v.feed_ns != 0
    open_recv = LATEST if lp.final or at >= end else reaching(lp, v, tape, end - EVENT_BYTES, late).recv
    while at < end:
        ev = reaching(lp, v, tape, at, late)
        recv = ev.recv
        if recv == open_recv:
            break  # more events of this moment may follow in the next chunk
        if full:
            lp.status = codes.DRAIN
            break
        while next_due > recv:
            seen = follow(lp, v, tape, seen, venue_end, recv)
            if lp.reports_n == reports:
                break
            reports, next_due = lp.reports_n, due(lp, v, LATEST)
        if next_due <= recv:
            lp.venue_index = seen
            catch_up(lp, k, ctx, v, recv, LATEST)
            seen = lp.venue_index
            full, reports, next_due = not room(lp, k, v), lp.reports_n, due(lp, v, LATEST)
            if k.faulted != faults or k.halt != codes.RUNNING:
                k.attention = 1  # at a report: told at the end of this moment
        if seen >= venue_end and not lp.final:
            break  # what the venue will have seen by now is still to come
        start_at = at
        plain = plain_at(k, ctx, recv)
        while True:
            if recv == plain and codes.QUOTE <= ev.kind <= codes.DEPTH and ev.instrument < n:
                if step_tick(k, ctx, ev):
                    plain = plain_at(k, ctx, recv)
            else:
                step(k, ctx, ev)
                plain = plain_at(k, ctx, recv)
            at += EVENT_BYTES
            if at >= end:
                break
            following = reaching(lp, v, tape, at, late)
            if following.recv != recv:
                break
            ev = following
        close_slice(k, ctx, event_at(tape + at - EVENT_BYTES))
        if k.attention:
            send_out(lp, k)
            full, next_due = not room(lp, k, v), due(lp, v, LATEST)
            judge(lp, k, faults, start_at)
        if recv >= next_sample:
            full = sample(lp, k) or full
            next_sample = lp.next_sample
        if lp.status:
            break
    lp.venue_index = seen
    if at >= end and lp.closing and lp.status == 0 and not lp.closed:
        lp.closed = 1
        catch_up(lp, k, ctx, v, LATEST - 1, lp.orders_n)
        judge(lp, k, faults, at)
    arrival(lp, v, LATEST)  # known at every return, wherever the tape was cut
    lp.index = at // EVENT_BYTES
