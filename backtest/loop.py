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
from engine.kernel.positions import apply_mark, resum
from engine.kernel.primitives import Pointer, address_of, cold, hot, invoke, prefetch
from engine.kernel.records import (
    Curve,
    Kernel,
    Slot,
    address_at,
    copy_line,
    markets,
    outbox,
    refusals,
    route_at,
    slot_at,
)
from engine.kernel.risk import new_day, watch_losses
from engine.kernel.signals import Ctx, kernel_of
from engine.kernel.step import close_slice, plain_at, settle, start, step, step_bar, stop_faulted

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
    """A point of the equity curve, when one is due; whether no more fit then."""
    if k.ts < lp.next_sample:
        return False
    n = lp.curve_n + 1
    point(lp.curve + lp.curve_n * 32, k.ts, k.cash + k.value, k.cash, k.gross)
    lp.next_sample = k.ts + lp.sample_ns
    lp.curve_n = n
    return n >= lp.curve_cap


@hot
def point(address: int, ts: int, equity: float, cash: float, gross: float) -> None:
    """A row of the curve."""
    c = curve_at(address)
    c.ts = ts
    c.equity = equity
    c.cash = cash
    c.gross = gross


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
def meet_other(lp: Loop, k: Kernel, ctx: Ctx, v: Venue, ev: Event, at: int) -> int:
    """What is not one more bar of the moment. Returns the `recv` of the bars that need nothing but themselves.

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
    return plain_at(k, ctx, k.ts)


@cold
def carry_out(lp: Loop, k: Kernel, ctx: Ctx, v: Venue, faults: int) -> bool:
    """What came of a timestamp: orders to the venue, refusals to the output. Returns whether the drive may go on.

    A halt or a fault is told by `lp.status`, full outputs are not.
    """
    if k.orders_out:
        deliver(lp, k, ctx, v, lp.reports_n)
    if k.refusals_out:
        flush_refusals(lp, k)
    k.attention = int(k.orders_out != 0)  # more rounds than one timestamp has: the rest goes with the next
    if k.faulted != faults and lp.stop_on_fault:  # first: whoever explains it tells of a halt beside it
        lp.status = codes.FAULTED
        lp.fault_index = v.slice // EVENT_BYTES
    elif k.halt != codes.RUNNING:
        lp.status = codes.HALTED
    return lp.status == 0 and room(lp, k, v)


def closed_end(lp: Loop) -> int:
    """The place up to which the tape may be driven: of its last timestamp more events may follow in the next chunk."""
    begin, end = lp.index * EVENT_BYTES, lp.length * EVENT_BYTES
    if not lp.final and begin < end:
        open_ts = event_at(lp.tape + end - EVENT_BYTES).ts
        while begin < end and event_at(lp.tape + end - EVENT_BYTES).ts == open_ts:
            end -= EVENT_BYTES
    return end


@cold
def morning(k: Kernel) -> None:
    """The first event of a day, as `step` has it."""
    if k.seq >= k.next_sum:
        resum(k)
    new_day(k)


@cold
def wish(k: Kernel, ctx: Ctx, slot: Slot) -> None:
    """What a handler left behind: a fault, signals."""
    if ctx.fault != 0:
        stop_faulted(k, ctx, slot)
    if k.signals:
        settle(k)


@hot
def alone(lp: Loop, k: Kernel, ctx: Ctx, v: Venue, tape: int, at: int, last: int) -> int:
    """The short way: bars of the only instrument, each a timestamp of its own, while nothing is open at the venue.

    Returns the place of the first event that needs the long way, or where something is to be carried out.
    Law: what happens to each bar is what `run` would do with it, in its order; what cannot be is left out.
    """
    here, m, vm = address_of(k), markets(k, 0), venue_markets(v, 0)
    route = route_at(here + m.route)
    slot = slot_at(here + route.slot_at)
    if m.route == 0 or not slot.active & (1 << codes.BAR) or k.breach != codes.REFUSE:
        return at
    handler, state = address_at(here + slot.handlers_at + 8 * codes.BAR).value, here + route.state_at
    n, cap, curve, next_sample, sample_ns = lp.curve_n, lp.curve_cap, lp.curve, lp.next_sample, lp.sample_ns
    begin = at
    ctx.instrument = 0
    ctx.strategy = slot.strategy
    while at < last and n < cap:
        ev = event_at(tape + at)
        ts, recv, close = ev.ts, ev.recv, ev.close
        lone = at + EVENT_BYTES >= last or event_at(tape + at + EVENT_BYTES).ts != ts
        if ev.kind != codes.BAR or ev.instrument != 0 or recv < k.ts or not lone:
            break
        at += EVENT_BYTES
        mark(v, vm, close)
        k.seq += 1
        k.ts = recv
        ctx.now = recv
        if recv >= k.next_day:
            morning(k)
        apply_mark(k, m, recv, close)
        invoke(handler, state, tape + at - EVENT_BYTES, address_of(ctx))
        if k.signals | ctx.fault:
            wish(k, ctx, slot)
        v.ts = ts
        equity, cash, gross = k.cash + k.value, k.cash, k.gross
        if (k.breach != codes.REFUSE or not k.floor <= equity <= k.peak) and watch_losses(k):
            settle(k)
        if recv >= next_sample:
            point(curve + n * 32, recv, equity, cash, gross)
            next_sample = recv + sample_ns
            n += 1
        if k.attention:
            break
    if at != begin:
        v.slice = at - EVENT_BYTES
        vm.bar = at - EVENT_BYTES
    lp.curve_n = n
    lp.next_sample = next_sample
    return at


def run(address: int) -> None:
    """Drive the tape from `index` on, until its end, a full buffer, a fault or a halt. `lp.status` says which."""
    lp = loop_at(address)
    ctx, v = ctx_at(lp.ctx), venue_at(lp.venue)
    k = kernel_of(ctx)  # one register for both
    lp.status = 0
    if k.halt != codes.RUNNING:  # what has halted stays so, however often it is asked to go on
        lp.status = codes.HALTED
        return
    faults, n = k.faulted, min(k.instruments, v.instruments)
    if not lp.started and lp.length > 0:
        lp.started = 1
        start(k, ctx, event_at(lp.tape))
    tape, at, last = lp.tape, lp.index * EVENT_BYTES, closed_end(lp)  # places on the tape are in bytes
    end, lone = last if room(lp, k, v) else at, lp.lone
    while at < end:  # brought forward to end after the timestamp at hand
        if lone and v.opened == 0 and k.attention == 0:  # else what is left over goes with this timestamp
            at = alone(lp, k, ctx, v, tape, at, last)
            if (k.attention and not carry_out(lp, k, ctx, v, faults)) or lp.curve_n >= lp.curve_cap:
                end = 0
            if at >= end:
                break
        if v.opened and match(lp, k, ctx, v, at, event_at(tape + at).ts):
            end = 0
        v.slice = at
        plain = plain_at(k, ctx, event_at(tape + at).recv)
        while True:
            ev = event_at(tape + at)
            prefetch(tape + at + AHEAD)
            if ev.recv == plain and ev.kind == codes.BAR and ev.instrument < n:
                show(v, ev, at)
                if step_bar(k, ctx, ev):
                    plain = plain_at(k, ctx, plain)
            else:
                plain = meet_other(lp, k, ctx, v, ev, at)
            at += EVENT_BYTES
            if at >= last or event_at(tape + at).ts != event_at(tape + at - EVENT_BYTES).ts:
                break
        v.ts = event_at(tape + at - EVENT_BYTES).ts
        close_slice(k, ctx, event_at(tape + at - EVENT_BYTES))
        if k.attention and not carry_out(lp, k, ctx, v, faults):
            end = 0
        if sample(lp, k):
            end = 0
    if at < last and lp.status == 0:
        lp.status = codes.DRAIN
    lp.index = at // EVENT_BYTES
