"""The compiled backtest driver: tape × kernel × simulated venue, merged by time.

Per timestamp: the venue matches the orders it holds against the bars, its reports enter the kernel, then the bars do,
then the timestamp is closed; the orders that came of it reach the venue and are acknowledged at once.

This file and `engine.session` are the two drivers of the one `step`; law 6 welds them together.
"""

from backtest.matching import match_slice
from backtest.records import Loop, Venue, loop_at, venue_at
from backtest.venue import EVENT_BYTES, absorb, accept
from engine.kernel import codes
from engine.kernel.events import event_at
from engine.kernel.primitives import Pointer, hot, prefetch
from engine.kernel.records import Curve, Kernel, Order, Refusal, kernel_at, outbox, refusals, routes, slots
from engine.kernel.resolve import resolve
from engine.kernel.signals import Ctx
from engine.kernel.step import close_slice, dispatch, step

ROUNDS = 8  # how often reports may cause orders that cause reports, within one timestamp
AHEAD = 512  # events between a prefetch into the second cache and its use: a timestamp of many instruments
ROW = 64  # bytes of an order, a report, a refusal

ctx_at = Pointer(Ctx)
order_at = Pointer(Order)
curve_at = Pointer(Curve)
refusal_at = Pointer(Refusal)


def copy_order(out: Order, o: Order) -> None:
    """Copy an order into the output buffer."""
    out.id = o.id
    out.seq = o.seq
    out.ts = o.ts
    out.qty = o.qty
    out.price = o.price
    out.stop = o.stop
    out.instrument = o.instrument
    out.strategy = o.strategy
    out.action = o.action
    out.side = o.side
    out.type = o.type
    out.tif = o.tif
    out.mask = o.mask
    out.priority = o.priority
    out.life_ms = o.life_ms


def copy_refusal(out: Refusal, r: Refusal) -> None:
    """Copy a refusal into the output buffer."""
    out.ts = r.ts
    out.seq = r.seq
    out.order_id = r.order_id
    out.qty = r.qty
    out.price = r.price
    out.value = r.value
    out.limit = r.limit
    out.instrument = r.instrument
    out.strategy = r.strategy
    out.reason = r.reason
    out.breach = r.breach


def deliver(lp: Loop, k: Kernel, ctx: Ctx, v: Venue, first: int) -> None:
    """Orders to the venue, reports to the kernel, until nothing is left to say."""
    taken = first
    for _ in range(ROUNDS):
        while taken < lp.reports_n:
            step(k, ctx, event_at(lp.reports + taken * EVENT_BYTES))
            taken += 1
        if k.orders_out == 0:
            break
        for i in range(k.orders_out):
            o = outbox(k, i)
            if lp.orders_n < lp.orders_cap:
                copy_order(order_at(lp.orders + lp.orders_n * ROW), o)
                lp.orders_n += 1
            else:
                lp.dropped += 1
            accept(lp, v, o)
        k.orders_out = 0
    while taken < lp.reports_n:
        step(k, ctx, event_at(lp.reports + taken * EVENT_BYTES))
        taken += 1


def flush_refusals(lp: Loop, k: Kernel) -> None:
    """Move the kernel's refusals into the output buffer."""
    for i in range(k.refusals_out):
        if lp.refusals_n < lp.refusals_cap:
            copy_refusal(refusal_at(lp.refusals + lp.refusals_n * ROW), refusals(k, i))
            lp.refusals_n += 1
        else:
            lp.dropped += 1
    k.refusals_out = 0


@hot
def sample(lp: Loop, k: Kernel) -> None:
    """A point of the equity curve."""
    if k.ts >= lp.next_sample:
        c = curve_at(lp.curve + lp.curve_n * 32)
        c.ts = k.ts
        c.equity = k.cash + k.value
        c.cash = k.cash
        c.gross = k.gross
        lp.curve_n += 1
        lp.next_sample = k.ts + lp.sample_ns


def room(lp: Loop, k: Kernel, v: Venue) -> bool:
    """Whether the buffers hold what one timestamp can produce at most."""
    orders = ROUNDS * k.outbox_cap
    return (lp.curve_n < lp.curve_cap and lp.orders_n + orders <= lp.orders_cap
            and lp.reports_n + 4 * v.opened + 2 * orders <= lp.reports_cap
            and lp.refusals_n + k.refusal_cap <= lp.refusals_cap)  # fmt: skip


def start(lp: Loop, k: Kernel, ctx: Ctx) -> None:
    """Before the first event: `on_start` of every strategy."""
    lp.started = 1
    for s in range(k.strategies):
        if slots(k, s).active & (1 << codes.START):
            instances = slots(k, s).instances
            for i in range(k.instruments):  # each instance once, under its instrument
                if instances > 0 and routes(k, s * k.instruments + i).index >= 0:
                    instances -= 1
                    dispatch(k, ctx, event_at(lp.tape), codes.START, i, s)
    if k.signals:
        resolve(k)


@hot
def slice_end(tape: int, at: int, length: int, ts: int) -> int:
    """Where the timestamp that begins at `at` ends."""
    end = at + 1
    while end < length and event_at(tape + end * EVENT_BYTES).ts == ts:
        prefetch(tape + (end + AHEAD) * EVENT_BYTES)
        end += 1
    return end


def run(address: int) -> None:
    """Drive the tape from `index` on, until its end, a full buffer, a fault or a halt. `lp.status` says which."""
    lp = loop_at(address)
    k = kernel_at(lp.kernel)
    ctx = ctx_at(lp.ctx)
    v = venue_at(lp.venue)
    at, length = lp.index, lp.length
    lp.status = 0
    if k.halt != codes.RUNNING:  # what has halted stays so, however often it is asked to go on
        lp.status = codes.HALTED
        return
    faults = k.faulted
    if not lp.started and length > 0:
        start(lp, k, ctx)
    if at >= length:
        return
    tape, full = lp.tape, not room(lp, k, v)
    last_ts = event_at(tape + (length - 1) * EVENT_BYTES).ts
    while at < length:
        ts = event_at(tape + at * EVENT_BYTES).ts
        if ts == last_ts and not lp.final:
            break  # more events of this timestamp may follow in the next chunk
        if full or lp.curve_n >= lp.curve_cap:
            lp.status = codes.DRAIN
            break
        if v.opened:
            first = lp.reports_n
            match_slice(lp, v, at, slice_end(tape, at, length, ts))
            if lp.reports_n != first or k.orders_out:
                deliver(lp, k, ctx, v, first)
                full = not room(lp, k, v)
        end = at
        while end < length and event_at(tape + end * EVENT_BYTES).ts == ts:
            prefetch(tape + (end + AHEAD) * EVENT_BYTES)
            ev = event_at(tape + end * EVENT_BYTES)
            if ev.instrument < k.instruments:  # otherwise the venue has no market for it, and the kernel halts
                absorb(v, ev)
            step(k, ctx, ev)
            end += 1
        close_slice(k, ctx, event_at(tape + (end - 1) * EVENT_BYTES))
        if k.orders_out:
            deliver(lp, k, ctx, v, lp.reports_n)
            full = not room(lp, k, v)
        if k.refusals_out:
            flush_refusals(lp, k)
            full = not room(lp, k, v)
        sample(lp, k)
        begin, at = at, end
        if k.halt != codes.RUNNING:
            lp.status = codes.HALTED
            break
        if k.faulted != faults and lp.stop_on_fault:
            lp.status = codes.FAULTED
            lp.fault_index = begin
            break
    lp.index = at
