"""One event through the kernel; the only control flow.

For each event, in this order, no exceptions:
  1 absorb     book, order table, position, account, risk day
  2 dispatch   the subscribed handlers, which queue signals
  3 aggregate  a later target replaced the earlier one already; opposing targets may be netted
  4 order      by priority, then by registration; within a priority, what reduces comes first
  5 risk       each refusal a record with a reason
  6 emit       orders into the outbox
"""

from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.market import absorb_depth, absorb_gap, absorb_tick
from engine.kernel.orders import (
    ACK,
    CANCEL_REJECTED,
    CANCELLED,
    EXPIRED,
    REJECTED,
    cancel_all,
    closed,
    filled,
    find,
    halt,
    recommit,
    replaced,
)
from engine.kernel.positions import apply_cash, apply_fill, apply_mark, apply_split, correct, resum
from engine.kernel.primitives import address_of, cold, hot, invoke
from engine.kernel.records import Kernel, Slot, address_at, instruments, markets, route_at, signals, slot_at, slots
from engine.kernel.resolve import carry_out_breach, resolve, void
from engine.kernel.risk import new_day, watch_losses
from engine.kernel.signals import Ctx

NEVER = -(1 << 63)  # no event is received then


def absorb_report(k: Kernel, ev: Event) -> int:
    """An execution report: order table, position, cash. Returns the strategy it concerns, -1 for an unknown order."""
    if ev.exec_id != 0:
        if ev.exec_id <= k.last_exec:
            return -1  # seen before
        k.last_exec = ev.exec_id
    o = find(k, ev.order_id)
    if o.id != ev.order_id or o.state <= codes.RESERVED:
        k.unknown_reports += 1
        return -1
    if ev.code == codes.FILL and ev.qty == 0:  # told again, and cut to what was new of it
        k.unknown_reports += 1
        return -1
    if ev.code == codes.FILL and ev.qty * o.side <= 0:
        k.unknown_reports += 1  # no fill, or one on the other side
    elif ev.code == codes.FILL:
        k.fills += 1
        apply_fill(k, o.instrument, o.strategy, ev.qty, ev.price, ev.fee)
        filled(k, o, abs(ev.qty))
    elif ev.code == codes.ACK:
        closed(k, o, ACK)
    elif ev.code == codes.REJECT:
        closed(k, o, REJECTED)
    elif ev.code == codes.CANCELLED:
        if o.mask & codes.RISK_EXIT and o.state != codes.CANCELLING:
            k.breach = max(k.breach, codes.FLATTEN)  # an exit that the venue ended is still owed
        closed(k, o, CANCELLED)
    elif ev.code == codes.EXPIRED:
        closed(k, o, EXPIRED)
    elif ev.code == codes.REPLACED:
        replaced(k, o, abs(ev.qty), ev.price, ev.fee)
    elif ev.code == codes.CANCEL_REJECT:
        closed(k, o, CANCEL_REJECTED)
    else:
        k.unknown_reports += 1
    return o.strategy


def absorb_command(k: Kernel, ev: Event) -> None:
    """An operator's command; it is an event, so a replay repeats it."""
    if ev.code == codes.KILL:
        k.killed = 1
        k.breach = max(k.breach, codes.FLATTEN if ev.amount > 0.0 else codes.CANCEL_ORDERS)
    elif ev.code == codes.CLEAR_KILL:
        k.killed = 0
    elif ev.code == codes.TRADING:
        k.trading = int(ev.amount)
    elif 0 <= ev.strategy < k.strategies:
        s = slots(k, ev.strategy)
        if ev.code == codes.PAUSE:
            s.active = 0
        elif ev.code == codes.RESUME and s.fault == 0:
            s.active = s.handles
        elif ev.code == codes.RELOAD:
            s.fault = 0  # other code: it may be resumed


def absorb(k: Kernel, ev: Event) -> int:
    """Every kind but BAR. Returns the strategy to dispatch to, -1 for nobody, -2 for all that are subscribed."""
    kind, i = ev.kind, ev.instrument
    if kind == codes.REPORT:
        return absorb_report(k, ev)
    if kind == codes.COMMAND:
        absorb_command(k, ev)
        return -1
    if kind == codes.GAP:
        absorb_gap(k, i)
        return -1
    if i >= k.instruments:
        halt(k, codes.HALT_INSTRUMENT)
        return -1
    m = markets(k, i)
    if kind == codes.QUOTE or kind == codes.TRADE:
        absorb_tick(k, m, ev, kind)
    elif kind == codes.DEPTH:
        absorb_depth(k, m, ev)
        return -2 if ev.last != 0 else -1  # handlers see whole books
    elif kind == codes.SPLIT:
        apply_split(k, i, ev.amount)
        recommit(k, i)
    elif kind == codes.DIVIDEND:
        apply_cash(k, i, ev.amount)
    elif kind == codes.FUNDING:
        apply_cash(k, i, -ev.amount * m.mark * instruments(k, i).multiplier)
    elif kind == codes.CORRECTION:
        if 0 <= ev.order_id < k.strategies and ev.qty != 0:
            correct(k, i, ev.order_id, ev.qty, ev.price)
            recommit(k, i)
        else:
            k.unknown_reports += 1
    return -2


@hot
def call(k: Kernel, ctx: Ctx, slot: Slot, kind: int, state_at: int, instrument: int, ev: Event) -> None:
    """One handler of one strategy. A fault stops the strategy and cancels its orders."""
    here = address_of(k)
    ctx.instrument = instrument
    ctx.strategy = slot.strategy
    invoke(address_at(here + slot.handlers_at + 8 * kind).value, here + state_at, address_of(ev), address_of(ctx))
    if ctx.fault != 0:
        stop_faulted(k, ctx, slot)


@cold
def stop_faulted(k: Kernel, ctx: Ctx, slot: Slot) -> None:
    """Stop a strategy whose handler failed; its queued signals are void, its orders are cancelled."""
    s = slot.strategy
    slot.fault = ctx.fault
    slot.fault_seq = k.seq
    slot.active = 0
    ctx.fault = 0
    k.faulted += 1
    k.attention = 1
    for row in range(k.signals):
        q = signals(k, row)
        if q.strategy == s:
            void(k, q)
    cancel_all(k, s, -1, 0)


@hot
def dispatch(k: Kernel, ctx: Ctx, ev: Event, kind: int, instrument: int, only: int) -> None:
    """All running strategies that handle this kind for this instrument (`only` >= 0: just that one)."""
    here = address_of(k)
    at = markets(k, instrument).route
    while at != 0:
        route = route_at(here + at)
        slot = slot_at(here + route.slot_at)
        if slot.active & (1 << kind) and (only < 0 or only == slot.strategy):
            call(k, ctx, slot, kind, route.state_at, instrument, ev)
        at = route.next


@cold
def settle(k: Kernel) -> None:
    """Queued signals become orders; a breach is carried out."""
    if k.signals != 0:
        resolve(k)
    if k.breach != codes.REFUSE and k.halt == codes.RUNNING:
        carry_out_breach(k)


@cold
def step(k: Kernel, ctx: Ctx, ev: Event) -> None:
    """One event, whatever it is. A halted kernel does nothing more."""
    if k.halt != codes.RUNNING:
        return
    k.seq += 1
    if ev.recv < k.ts:
        halt(k, codes.HALT_CLOCK)
        return
    k.ts = ev.recv
    ctx.now = ev.recv
    if k.ts >= k.next_day:
        if k.seq >= k.next_sum:
            resum(k)
        new_day(k)
    i, only = ev.instrument, -2
    if ev.kind == codes.BAR and i < k.instruments:
        apply_mark(k, markets(k, i), k.ts, ev.close)
    else:
        only = absorb(k, ev)
    if only != -1:
        dispatch(k, ctx, ev, ev.kind, i if i < k.instruments else 0, only)
    if k.signals or k.breach != codes.REFUSE:
        settle(k)


@hot
def plain_at(k: Kernel, ctx: Ctx, ts: int) -> int:
    """Move the clock to `ts` if nothing else is due: the `recv` of events that `step_bar` and `step_tick` may take."""
    if k.halt == codes.RUNNING and k.ts <= ts < k.next_day:
        k.ts = ts
        ctx.now = ts
        return ts
    return NEVER


@hot
def step_bar(k: Kernel, ctx: Ctx, ev: Event) -> bool:
    """`step` for one more bar at the time of `plain_at`, of an instrument that there is. Whether any wish came."""
    i = ev.instrument
    k.seq += 1
    apply_mark(k, markets(k, i), ev.recv, ev.close)
    dispatch(k, ctx, ev, codes.BAR, i, -1)
    if k.signals:
        settle(k)
        return True
    return False


@hot
def step_tick(k: Kernel, ctx: Ctx, ev: Event) -> bool:
    """The same for one more quote, trade or change of a book; `on_depth` is called when the book is whole."""
    i, kind = ev.instrument, ev.kind
    k.seq += 1
    if kind == codes.DEPTH:
        absorb_depth(k, markets(k, i), ev)
        if ev.last == 0:
            return False
    else:
        absorb_tick(k, markets(k, i), ev, kind)
    dispatch(k, ctx, ev, kind, i, -1)
    if k.signals:
        settle(k)
        return True
    return False


@cold
def call_slice(k: Kernel, ctx: Ctx, ev: Event) -> None:
    """The universe strategies act on the timestamp as a whole."""
    for s in range(k.strategies):
        slot = slots(k, s)
        if slot.active & (1 << codes.SLICE) and k.halt == codes.RUNNING:
            call(k, ctx, slot, codes.SLICE, slot.state_at, 0, ev)
    if k.signals != 0:
        resolve(k)


@hot
def close_slice(k: Kernel, ctx: Ctx, ev: Event) -> None:
    """The end of a timestamp: universe strategies act, losses are watched. `ev` is the last event of it."""
    if k.slices:
        call_slice(k, ctx, ev)
    if watch_losses(k):
        settle(k)


def routed(k: Kernel, instrument: int, strategy: int) -> bool:
    """Whether an instrument concerns a strategy."""
    at = markets(k, instrument).route
    while at != 0:
        route = route_at(address_of(k) + at)
        if slot_at(address_of(k) + route.slot_at).strategy == strategy:
            return True
        at = route.next
    return False


@cold
def start(k: Kernel, ctx: Ctx, ev: Event) -> None:
    """Before the first event `ev`: `on_start` of every strategy."""
    for s in range(k.strategies):
        if slots(k, s).active & (1 << codes.START):
            instances = slots(k, s).instances
            for i in range(k.instruments):  # each instance once, under its first instrument
                if instances > 0 and routed(k, i, s):
                    instances -= 1
                    dispatch(k, ctx, ev, codes.START, i, s)
    if k.signals:
        resolve(k)
