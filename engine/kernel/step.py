"""One event through the kernel; the only control flow.

For each event, in this order, no exceptions:
  1 absorb     book, order table, position, account, risk day
  2 dispatch   the subscribed handlers, which queue signals
  3 aggregate  a later target replaced the earlier one already; opposing targets may be netted
  4 order      by priority, then by registration; within a priority, what reduces comes first
  5 risk       each refusal a record with a reason
  6 emit       orders into the outbox
"""

import math

from engine.kernel import codes
from engine.kernel.layout import address_of, hot, invoke
from engine.kernel.orders import ACK, CANCEL_REJECTED, CANCELLED, EXPIRED, OPEN, REJECTED
from engine.kernel.orders import ask_cancel, ask_replace, cancel_all, cancel_targets, closed, drop, filled, find
from engine.kernel.orders import recommit, replaced, send
from engine.kernel.positions import apply_cash, apply_fill, apply_mark, apply_split, correct, resum
from engine.kernel.records import Event, Kernel, OpenOrder, Signal
from engine.kernel.records import addresses, instruments, markets, open_orders, positions, routes, signals, slots
from engine.kernel.risk import check, flattening, new_day, refuse, watch_losses
from engine.kernel.signals import Ctx, order_of, reserve, to_lots, to_tick


def absorb_report(k: Kernel, ev: Event) -> int:
    """An execution report: order table, position, cash. Returns the strategy it concerns, -1 for an unknown order."""
    o = find(k, ev.order_id)
    if o.id != ev.order_id or o.state <= codes.RESERVED:
        k.unknown_reports += 1
        return -1
    if ev.exec_id != 0:
        if ev.exec_id <= k.last_exec:
            return -1  # seen before
        k.last_exec = ev.exec_id
    if ev.code == codes.FILL:
        k.fills += 1
        apply_fill(k, o.instrument, o.strategy, ev.qty, ev.price, ev.fee)
        filled(k, o, abs(ev.qty))
    elif ev.code == codes.ACK:
        closed(k, o, ACK)
    elif ev.code == codes.REJECT:
        closed(k, o, REJECTED)
    elif ev.code == codes.CANCELLED:
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


def absorb(k: Kernel, ev: Event) -> int:
    """Every kind but BAR. Returns the strategy to dispatch to, -1 for nobody, -2 for all that are subscribed."""
    kind, i = ev.kind, ev.instrument
    if kind == codes.REPORT:
        return absorb_report(k, ev)
    if kind == codes.COMMAND:
        absorb_command(k, ev)
        return -1
    if i >= k.instruments:
        k.halt = codes.HALT_INSTRUMENT
        return -1
    m = markets(k, i)
    if kind == codes.QUOTE:
        m.bid = ev.bid
        m.ask = ev.ask
        m.bid_volume = ev.bid_volume
        m.ask_volume = ev.ask_volume
        if ev.bid > 0.0 and ev.ask > 0.0:
            apply_mark(k, m, k.ts, 0.5 * (ev.bid + ev.ask))
    elif kind == codes.TRADE:
        apply_mark(k, m, k.ts, ev.price)
    elif kind == codes.SPLIT:
        apply_split(k, i, ev.amount)
        recommit(k, i)
    elif kind == codes.DIVIDEND:
        apply_cash(k, i, ev.amount)
    elif kind == codes.FUNDING:
        apply_cash(k, i, -ev.amount * m.mark * instruments(k, i).multiplier)
    elif kind == codes.CORRECTION:
        correct(k, i, ev.order_id, ev.qty, ev.price)
        recommit(k, i)
    return -2


@hot
def call(k: Kernel, ctx: Ctx, s: int, kind: int, instance: int, instrument: int, ev: Event) -> None:
    """One handler of one strategy. A fault stops the strategy and cancels its orders."""
    slot = slots(k, s)
    ctx.now = k.ts
    ctx.instrument = instrument
    ctx.strategy = s
    state = address_of(k) + slot.state_at + instance * slot.stride
    invoke(addresses(k, s * codes.KINDS + kind).value, state, address_of(ev), address_of(ctx))
    if ctx.fault != 0:
        stop_faulted(k, ctx, s)


def stop_faulted(k: Kernel, ctx: Ctx, s: int) -> None:
    """Stop a strategy whose handler failed; its queued signals are void, its orders are cancelled."""
    slot = slots(k, s)
    slot.fault = ctx.fault
    slot.fault_seq = k.seq
    slot.active = 0
    ctx.fault = 0
    k.faulted += 1
    for row in range(k.signals):
        q = signals(k, row)
        if q.strategy == s:
            void(k, q)
    cancel_all(k, s, -1)


def void(k: Kernel, q: Signal) -> None:
    """Take a signal out of the queue and give back what it reserved."""
    if q.kind == codes.SIGNAL_ORDER and q.order_id != 0:
        drop(k, order_of(k, q))
    if q.kind == codes.SIGNAL_TARGET or q.kind == codes.SIGNAL_WEIGHT:
        positions(k, q.strategy * k.instruments + q.instrument).signal = 0
    q.kind = 0


@hot
def dispatch(k: Kernel, ctx: Ctx, ev: Event, kind: int, instrument: int, only: int) -> None:
    """All running strategies that handle this kind for this instrument (`only` >= 0: just that one)."""
    bit = 1 << kind
    for s in range(k.strategies):
        if slots(k, s).active & bit and (only < 0 or only == s):
            instance = 0
            if kind != codes.SLICE:
                instance = routes(k, s * k.instruments + instrument).index
            if instance >= 0:
                call(k, ctx, s, kind, instance, instrument, ev)


def wanted(k: Kernel, q: Signal) -> int:
    """Lots (signed) that a target or weight signal asks for in total."""
    i = instruments(k, q.instrument)
    if q.kind == codes.SIGNAL_TARGET:
        return to_lots(q.qty, i.lot)
    m = markets(k, q.instrument)
    if not m.mark > 0.0:
        return 0
    return to_lots(q.qty * (k.cash + k.value) / (m.mark * i.multiplier), i.lot)


def propose(k: Kernel, strategy: int, instrument: int, lots: int, mask: int, priority: int) -> int:
    """Reserve a market order for `lots` (signed) and send it if risk approves; the reason if not."""
    order_id = reserve(k)
    if order_id == 0:
        refuse(k, strategy, instrument, 0, lots, 0.0, codes.OPEN_ORDERS)
        return codes.OPEN_ORDERS
    o = find(k, order_id)
    o.qty = abs(lots)
    o.side = codes.BUY if lots > 0 else codes.SELL
    o.type = codes.MARKET
    o.tif = codes.GTC
    o.price = 0.0
    o.stop = 0.0
    o.instrument = instrument
    o.strategy = strategy
    o.mask = mask
    o.priority = priority
    o.life_ms = 0
    return judge(k, o)


def judge(k: Kernel, o: OpenOrder) -> int:
    """Risk's verdict on a reserved order, carried out."""
    reason = codes.OK if o.mask & codes.RISK_EXIT else check(k, o)
    if reason != codes.OK:
        refuse(k, o.strategy, o.instrument, o.id, o.side * o.qty, o.price, reason)
        drop(k, o)
    elif k.trading == codes.LIVE:
        send(k, o)
    else:
        drop(k, o)
    return reason


def resolve_target(k: Kernel, q: Signal) -> None:
    """Turn a target into the market order that is still missing."""
    p = positions(k, q.strategy * k.instruments + q.instrument)
    p.signal = 0
    if not abs(q.qty) < math.inf:
        k.check_value = q.qty
        refuse(k, q.strategy, q.instrument, 0, 0, 0.0, codes.BAD_ORDER)
        return
    lots = wanted(k, q)
    delta = lots - p.qty - p.pending
    if p.pending != 0 and delta != 0 and (p.pending > 0) != (delta > 0):
        cancel_targets(k, q.strategy, q.instrument)
        delta = lots - p.qty - p.pending
    if delta != 0:
        propose(k, q.strategy, q.instrument, delta, codes.BY_TARGET, q.priority)


def resolve_order(k: Kernel, q: Signal) -> None:
    """Turn an explicit order signal into the order under its reserved id."""
    i = instruments(k, q.instrument)
    lots = to_lots(q.qty, i.lot)
    if q.order_id == 0:
        refuse(k, q.strategy, q.instrument, 0, lots * q.side, q.price, codes.OPEN_ORDERS)
        return
    o = order_of(k, q)
    o.qty = max(lots, 0)
    o.side = q.side
    o.type = q.type
    o.tif = q.tif
    o.price = to_tick(q.price, i.tick, q.side) if q.price > 0.0 else q.price
    o.stop = to_tick(q.stop, i.tick, -q.side) if q.stop > 0.0 else q.stop
    o.instrument = q.instrument
    o.strategy = q.strategy
    o.mask = q.mask
    o.priority = q.priority
    o.life_ms = q.life_ms
    judge(k, o)


def resolve_other(k: Kernel, q: Signal) -> None:
    """Cancel, cancel all, replace. A replace is checked like a new order for what it adds."""
    if q.kind == codes.SIGNAL_CANCEL_ALL:
        cancel_all(k, q.strategy, q.instrument)
        return
    o = find(k, q.order_id)
    if o.id != q.order_id or o.strategy != q.strategy or not OPEN[o.state]:
        refuse(k, q.strategy, q.instrument, q.order_id, 0, q.price, codes.UNKNOWN_ORDER)
    elif q.kind == codes.SIGNAL_CANCEL:
        ask_cancel(k, o)
    else:
        resolve_replace(k, q, o)


def resolve_replace(k: Kernel, q: Signal, o: OpenOrder) -> None:
    """Check the new shape of an open order as if it were new, on a reserved slot, then ask the venue."""
    i = instruments(k, o.instrument)
    lots = to_lots(q.qty, i.lot)
    trial_id = reserve(k)
    if trial_id == 0 or lots <= o.filled:
        refuse(
            k,
            q.strategy,
            o.instrument,
            o.id,
            lots * o.side,
            q.price,
            codes.OPEN_ORDERS if trial_id == 0 else codes.BAD_ORDER,
        )
        if trial_id != 0:
            drop(k, find(k, trial_id))
        return
    price = to_tick(q.price, i.tick, o.side) if q.price > 0.0 else o.price
    stop = to_tick(q.stop, i.tick, -o.side) if q.stop > 0.0 else o.stop
    trial = find(k, trial_id)
    trial.qty = max(lots - o.qty, 1)
    trial.side = o.side
    trial.type = o.type
    trial.tif = o.tif
    trial.price = price
    trial.stop = stop
    trial.instrument = o.instrument
    trial.strategy = o.strategy
    trial.mask = o.mask
    reason = check(k, trial)
    drop(k, trial)
    if reason != codes.OK:
        refuse(k, q.strategy, o.instrument, o.id, lots * o.side, price, reason)
    elif k.trading == codes.LIVE and not ask_replace(k, o, lots, price, stop):
        refuse(k, q.strategy, o.instrument, o.id, lots * o.side, price, codes.UNKNOWN_ORDER)


def reduces(k: Kernel, q: Signal) -> bool:
    """Whether a signal makes room: a cancel, or a target nearer to zero than what is held."""
    if q.kind == codes.SIGNAL_CANCEL or q.kind == codes.SIGNAL_CANCEL_ALL:
        return True
    if q.kind == codes.SIGNAL_TARGET or q.kind == codes.SIGNAL_WEIGHT:
        p = positions(k, q.strategy * k.instruments + q.instrument)
        return p.qty != 0 and abs(wanted(k, q)) < abs(p.qty)
    return False


def resolve_one(k: Kernel, q: Signal) -> None:
    """One signal through risk."""
    if q.deadline != 0 and k.ts > q.deadline:
        refuse(k, q.strategy, q.instrument, q.order_id, 0, q.price, codes.EXPIRED_SIGNAL)
        void(k, q)
    elif q.kind == codes.SIGNAL_TARGET or q.kind == codes.SIGNAL_WEIGHT:
        resolve_target(k, q)
    elif q.kind == codes.SIGNAL_ORDER:
        resolve_order(k, q)
    else:
        resolve_other(k, q)
    q.kind = 0


def net_targets(k: Kernel) -> None:
    """Cross opposing target changes of different strategies at the last price, without the venue."""
    for a in range(k.signals):
        qa = signals(k, a)
        if qa.kind != codes.SIGNAL_TARGET and qa.kind != codes.SIGNAL_WEIGHT:
            continue
        m = markets(k, qa.instrument)
        pa = positions(k, qa.strategy * k.instruments + qa.instrument)
        for b in range(a + 1, k.signals):
            qb = signals(k, b)
            if (qb.kind == codes.SIGNAL_TARGET or qb.kind == codes.SIGNAL_WEIGHT) and qb.instrument == qa.instrument:
                pb = positions(k, qb.strategy * k.instruments + qb.instrument)
                da = wanted(k, qa) - pa.qty - pa.pending
                db = wanted(k, qb) - pb.qty - pb.pending
                if m.mark > 0.0 and da * db < 0:
                    crossed = min(abs(da), abs(db))
                    apply_fill(k, qa.instrument, qa.strategy, crossed if da > 0 else -crossed, m.mark, 0.0)
                    apply_fill(k, qb.instrument, qb.strategy, crossed if db > 0 else -crossed, m.mark, 0.0)


def resolve(k: Kernel) -> None:
    """All queued signals: by priority, reductions first, then in order of registration."""
    n = k.signals
    if k.trading == codes.OBSERVATION:
        for row in range(n):
            void(k, signals(k, row))
        k.signals = 0
        return
    if k.limits.netting and n > 1:
        net_targets(k)
    if n == 1:
        resolve_one(k, signals(k, 0))
    else:
        below = 128
        while True:
            top = -129
            for row in range(n):
                q = signals(k, row)
                if q.kind != 0 and top < q.priority < below:
                    top = q.priority
            if top == -129:
                break
            for row in range(n):
                q = signals(k, row)
                if q.kind != 0 and q.priority == top and reduces(k, q):
                    resolve_one(k, q)
            for row in range(n):
                q = signals(k, row)
                if q.kind != 0 and q.priority == top:
                    resolve_one(k, q)
            below = top
    k.signals = 0


def carry_out_breach(k: Kernel) -> None:
    """What a breached limit asks for beyond the refusal: cancel, flatten, halt."""
    what = k.breach
    k.breach = codes.REFUSE
    cancel_all(k, -1, -1)
    if what == codes.FLATTEN or what == codes.HALT:
        for s in range(k.strategies):
            for i in range(k.instruments):
                lots = flattening(k, i, s)
                if lots != 0:
                    propose(k, s, i, lots, codes.RISK_EXIT | codes.BY_TARGET, 127)
    if what == codes.HALT and k.halt == codes.RUNNING:
        k.halt = codes.HALT_RISK


@hot
def step(k: Kernel, ctx: Ctx, ev: Event) -> None:
    """One event. A halted kernel does nothing more."""
    if k.halt != codes.RUNNING:
        return
    k.seq += 1
    if ev.recv < k.ts:
        k.halt = codes.HALT_CLOCK
        return
    k.ts = ev.recv
    if k.ts >= k.next_day:
        if k.held > 1:
            resum(k)
        new_day(k)
    if ev.kind == codes.BAR:
        i = ev.instrument
        if i >= k.instruments:
            k.halt = codes.HALT_INSTRUMENT
            return
        apply_mark(k, markets(k, i), k.ts, ev.close)
        dispatch(k, ctx, ev, codes.BAR, i, -1)
    else:
        only = absorb(k, ev)
        if only != -1:
            i = ev.instrument
            dispatch(k, ctx, ev, ev.kind, i if i < k.instruments else 0, only)
    if k.signals != 0:
        resolve(k)
    if k.breach != codes.REFUSE:
        carry_out_breach(k)


@hot
def close_slice(k: Kernel, ctx: Ctx, ev: Event) -> None:
    """The end of a timestamp: universe strategies act, losses are watched. `ev` is the last event of it."""
    if k.halt != codes.RUNNING:
        return
    if k.slices:
        dispatch(k, ctx, ev, codes.SLICE, 0, -1)
        if k.signals != 0:
            resolve(k)
    watch_losses(k)
    if k.breach != codes.REFUSE:
        carry_out_breach(k)


def count_open(k: Kernel) -> int:
    """How many orders are open, counted from the table: the invariant behind `opened`."""
    n = 0
    for i in range(k.order_cap):
        n += OPEN[open_orders(k, i).state]
    return n
