"""The compiled backtest driver: tape × kernel × simulated venue, merged by time.

Per timestamp: the venue matches the orders it holds against the bars, its reports enter the kernel, then the bars do,
then the timestamp is closed; the orders that came of it reach the venue and are acknowledged at once.

This file and `engine.session` are the two drivers of the one `step`; law 6 welds them together.
"""

from backtest.matching import AHEAD, match_slice, split
from backtest.records import Loop, Venue, loop_at, venue_at, venue_markets
from backtest.venue import EVENT_BYTES, absorb_action, accept, mark
from engine.kernel import codes
from engine.kernel.events import Event, event_at
from engine.kernel.primitives import Pointer, address_of, cold, hot, prefetch
from engine.kernel.records import Curve, Kernel, copy_line, kernel_at, outbox, refusals
from engine.kernel.signals import Ctx
from engine.kernel.step import close_slice, plain_at, start, step, step_bar

ROUNDS = 8  # how often reports may cause orders that cause reports, within one timestamp
LATEST = (1 << 63) - 1
ROW = 64  # bytes of an order, a report, a refusal

ctx_at = Pointer(Ctx)
curve_at = Pointer(Curve)


def deliver(lp: Loop, k: Kernel, ctx: Ctx, v: Venue, first: int) -> None:
    """Orders to the venue, reports to the kernel, until nothing is left to say."""
    taken = first
    for left in range(ROUNDS, -1, -1):
        while taken < lp.reports_n:
            step(k, ctx, event_at(lp.reports + taken * ROW))
            taken += 1
        if k.orders_out == 0 or left == 0:
            break
        for i in range(k.orders_out):
            o = outbox(k, i)
            if lp.orders_n < lp.orders_cap:
                copy_line(lp.orders + lp.orders_n * ROW, address_of(o))
                lp.orders_n += 1
            else:
                lp.dropped += 1
            accept(lp, v, o, venue_markets(v, o.instrument).last)
        k.orders_out = 0


def flush_refusals(lp: Loop, k: Kernel) -> None:
    """Move the kernel's refusals into the output buffer."""
    for i in range(k.refusals_out):
        if lp.refusals_n < lp.refusals_cap:
            copy_line(lp.refusals + lp.refusals_n * ROW, address_of(refusals(k, i)))
            lp.refusals_n += 1
        else:
            lp.dropped += 1
    k.refusals_out = 0


@hot
def sample(lp: Loop, k: Kernel) -> bool:
    """A point of the equity curve; whether no more fit."""
    n, ts = lp.curve_n, k.ts
    if ts >= lp.next_sample:
        c = curve_at(lp.curve + n * 32)
        n += 1
        lp.curve_n = n
        lp.next_sample = ts + lp.sample_ns
        c.ts = ts
        c.equity = k.cash + k.value
        c.cash = k.cash
        c.gross = k.gross
    return n >= lp.curve_cap


def room(lp: Loop, k: Kernel, v: Venue) -> bool:
    """Whether the buffers hold what one timestamp can produce at most."""
    orders = ROUNDS * k.outbox_cap
    return (lp.curve_n < lp.curve_cap and lp.orders_n + orders <= lp.orders_cap
            and lp.reports_n + 4 * v.opened + 2 * orders <= lp.reports_cap
            and lp.refusals_n + k.refusal_cap <= lp.refusals_cap)  # fmt: skip


@cold
def match(lp: Loop, k: Kernel, ctx: Ctx, v: Venue, at: int, ts: int) -> bool:
    """The bars of a timestamp meet the orders that the venue holds. Returns whether the outputs are full."""
    first = lp.reports_n
    match_slice(lp, v, at, ts)
    if lp.reports_n != first or k.orders_out:
        deliver(lp, k, ctx, v, first)
    return not room(lp, k, v)


@hot
def show(v: Venue, ev: Event, at: int) -> None:
    """The venue's own view of a bar; `at` is its place on the tape."""
    m = venue_markets(v, ev.instrument)
    mark(v, m, ev.close)
    if m.bar < v.slice:
        m.bar = at


@cold
def meet_other(lp: Loop, k: Kernel, ctx: Ctx, v: Venue, ev: Event, at: int) -> None:
    """What is not one more bar of the moment.

    A split ends the orders at the old price, the last ones sent too; then the kernel hears of both.

    A tape has the actions of a moment after the bars that close at it, so the next bar is the first at the new price.
    """
    first = lp.reports_n
    if ev.instrument < v.instruments:  # otherwise it has no market for it, and the kernel halts
        if ev.kind == codes.BAR:
            show(v, ev, at)
        elif ev.kind == codes.SPLIT:
            if k.orders_out:
                deliver(lp, k, ctx, v, first)
            first = lp.reports_n
            split(lp, v, ev)
        absorb_action(v, ev)
    step(k, ctx, ev)
    if lp.reports_n != first:
        deliver(lp, k, ctx, v, first)
    lp.plain = plain_at(k, ctx, k.ts)


@cold
def carry_out(lp: Loop, k: Kernel, ctx: Ctx, v: Venue) -> bool:
    """What came of a timestamp: orders to the venue, refusals to the output. Returns whether the outputs are full."""
    if k.orders_out:
        deliver(lp, k, ctx, v, lp.reports_n)
    if k.refusals_out:
        flush_refusals(lp, k)
    k.attention = int(k.orders_out != 0)  # more rounds than one timestamp has: the rest goes with the next
    return not room(lp, k, v)


def run(address: int) -> None:
    """Drive the tape from `index` on, until its end, a full buffer, a fault or a halt. `lp.status` says which."""
    lp = loop_at(address)
    k = kernel_at(lp.kernel)
    ctx = ctx_at(lp.ctx)
    v = venue_at(lp.venue)
    lp.status = 0
    if k.halt != codes.RUNNING:  # what has halted stays so, however often it is asked to go on
        lp.status = codes.HALTED
        return
    faults, n = k.faulted, min(k.instruments, v.instruments)
    if not lp.started and lp.length > 0:
        lp.started = 1
        start(k, ctx, event_at(lp.tape))
    tape, at, end = lp.tape, lp.index * EVENT_BYTES, lp.length * EVENT_BYTES  # places on the tape are in bytes
    full = not room(lp, k, v)
    open_ts = LATEST if lp.final or at >= end else event_at(tape + end - EVENT_BYTES).ts
    while at < end:
        start_at, ts = at, event_at(tape + at).ts
        if ts == open_ts:
            break  # more events of this timestamp may follow in the next chunk
        if full:
            lp.status = codes.DRAIN
            break
        if v.opened:
            full = match(lp, k, ctx, v, at, ts)
        v.slice = start_at
        lp.plain = plain_at(k, ctx, event_at(tape + at).recv)
        while True:
            ev = event_at(tape + at)
            prefetch(tape + at + AHEAD)
            if ev.recv == lp.plain and ev.kind == codes.BAR and ev.instrument < n:
                show(v, ev, at)
                if step_bar(k, ctx, ev):
                    lp.plain = plain_at(k, ctx, lp.plain)
            else:
                meet_other(lp, k, ctx, v, ev, at)
            at += EVENT_BYTES
            if at >= end or event_at(tape + at).ts != ts:
                break
        v.ts = ts
        close_slice(k, ctx, event_at(tape + at - EVENT_BYTES))
        stop = False
        if k.attention:
            full = carry_out(lp, k, ctx, v)
            if k.faulted != faults and lp.stop_on_fault:  # first: whoever explains it tells of a halt beside it
                lp.status = codes.FAULTED
                lp.fault_index = start_at // EVENT_BYTES
            elif k.halt != codes.RUNNING:
                lp.status = codes.HALTED
            stop = lp.status != 0
        if sample(lp, k):
            full = True
        if stop:
            break
    lp.index = at // EVENT_BYTES
