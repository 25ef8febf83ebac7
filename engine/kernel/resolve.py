"""From queued signals to orders in the outbox.

Law 1: order of resolution: by priority, what reduces first, then by registration.
Law 2: every order passes `judge`; only exits that risk itself asked for skip the checks.
Law 3: unless trading is live, strategies are judged and nothing of theirs leaves; risk's cancels and exits always do.
       What would have been an order, new or changed, is a record with the reason OK; a cancel is none.
"""

from engine.kernel import codes
from engine.kernel.orders import (
    OPEN,
    ask_cancel,
    ask_replace,
    cancel_all,
    cancel_targets,
    drop,
    find,
    halt,
    send,
)
from engine.kernel.positions import apply_fill
from engine.kernel.records import (
    Instrument,
    Kernel,
    OpenOrder,
    Signal,
    instruments,
    markets,
    positions,
    signals,
)
from engine.kernel.risk import check, flattening, over, record, refuse
from engine.kernel.wishes import TOO_MANY, order_of, reserve, to_lots, to_tick

MOST_MS = (1 << 32) - 1  # that an order can say: 49 days


def void(k: Kernel, q: Signal) -> None:
    """Take a signal out of the queue and give back what it reserved."""
    if q.kind == codes.SIGNAL_ORDER and q.order_id != 0:
        drop(k, order_of(k, q))
    if q.kind == codes.SIGNAL_TARGET or q.kind == codes.SIGNAL_WEIGHT:
        positions(k, q.strategy * k.instruments + q.instrument).signal = 0
    q.kind = 0


def wanted(k: Kernel, q: Signal) -> int:
    """Lots (signed) that a target or weight signal asks for in total."""
    i = instruments(k, q.instrument)
    if q.kind == codes.SIGNAL_TARGET:
        return to_lots(q.qty, i.lot)
    m = markets(k, q.instrument)
    if not m.mark > 0.0:
        return 0
    return to_lots(q.qty * (k.cash + k.value) / (m.mark * i.multiplier), i.lot)


def life_of(k: Kernel, q: Signal) -> int:
    """Milliseconds that a wish has to live, 0 = without end."""
    return (q.deadline - k.ts) // 1_000_000 if q.deadline != 0 else 0


def lasting(tif: int, life_ms: int) -> int:
    """The time in force of an order with a life: without another end, it is good till that time."""
    return codes.GTD if tif == codes.GTC and life_ms > 0 else tif


def propose(k: Kernel, strategy: int, instrument: int, lots: int, mask: int, priority: int, life_ms: int) -> int:
    """Reserve a market order for `lots` (signed) and send it if risk approves; the reason if not."""
    order_id = reserve(k)
    if order_id == 0:
        refuse(k, strategy, instrument, 0, lots, 0.0, codes.OPEN_ORDERS)
        return codes.OPEN_ORDERS
    o = find(k, order_id)
    o.qty = abs(lots)
    o.side = codes.BUY if lots > 0 else codes.SELL
    o.type = codes.MARKET
    o.tif = lasting(codes.GTC, life_ms)
    o.price = 0.0
    o.stop = 0.0
    o.instrument = instrument
    o.strategy = strategy
    o.mask = mask
    o.priority = priority
    o.life_ms = life_ms
    return judge(k, o)


def judge(k: Kernel, o: OpenOrder) -> int:
    """Risk's verdict on a reserved order, carried out."""
    reason = codes.OK if o.mask & codes.RISK_EXIT else check(k, o, 0)
    if reason != codes.OK:
        refuse(k, o.strategy, o.instrument, o.id, o.side * o.qty, o.price, reason)
        drop(k, o)
    elif k.trading == codes.LIVE or o.mask & codes.RISK_EXIT:
        send(k, o)
    else:
        record(k, o.strategy, o.instrument, o.id, o.side * o.qty, o.price, codes.OK, codes.REFUSE)
        drop(k, o)
    return reason


def resolve_target(k: Kernel, q: Signal) -> None:
    """Turn a target into the market order that is still missing."""
    p = positions(k, q.strategy * k.instruments + q.instrument)
    p.signal = 0
    lots, life = wanted(k, q), life_of(k, q)
    if q.qty != q.qty or abs(lots) >= TOO_MANY or life > MOST_MS:
        k.check_value = q.qty
        refuse(k, q.strategy, q.instrument, 0, 0, 0.0, codes.BAD_ORDER)
        return
    delta = lots - p.qty - p.pending
    if p.pending != 0 and delta != 0 and (p.pending > 0) != (delta > 0) and k.trading == codes.LIVE:
        cancel_targets(k, q.strategy, q.instrument)
        delta = lots - p.qty - p.pending
    if delta != 0:
        propose(k, q.strategy, q.instrument, delta, codes.BY_TARGET, q.priority, life)


def resolve_order(k: Kernel, q: Signal) -> None:
    """Turn an explicit order signal into the order under its reserved id."""
    i = instruments(k, q.instrument)
    lots = to_lots(q.qty, i.lot)
    if q.order_id == 0:
        refuse(k, q.strategy, q.instrument, 0, lots * q.side, q.price, codes.OPEN_ORDERS)
        return
    o, life = order_of(k, q), life_of(k, q)
    o.qty = lots if 0 < lots < TOO_MANY and life <= MOST_MS else 0
    o.side = q.side
    o.type = q.type
    o.tif = lasting(q.tif, life)
    o.price = on_grid(q.price, i, q.side, q.type)
    o.stop = to_tick(q.stop, i, -q.side) if q.stop > 0.0 else q.stop
    o.instrument = q.instrument
    o.strategy = q.strategy
    o.mask = q.mask
    o.priority = q.priority
    o.life_ms = life
    judge(k, o)


def on_grid(price: float, i: Instrument, side: int, kind: int) -> float:
    """A limit no worse for us than asked, or a distance no shorter; what is no price stays for risk to refuse."""
    if not price > 0.0:
        return price
    return to_tick(price, i, codes.SELL if kind == codes.TRAILING else side)


def resolve_other(k: Kernel, q: Signal) -> None:
    """Cancel, cancel all, replace. A replace is checked like a new order for what it adds."""
    if q.kind == codes.SIGNAL_CANCEL_ALL:
        if k.trading == codes.LIVE:
            cancel_all(k, q.strategy, q.instrument, min(life_of(k, q), MOST_MS))
        return
    o = find(k, q.order_id)
    if o.id != q.order_id or o.strategy != q.strategy or not OPEN[o.state]:
        refuse(k, q.strategy, q.instrument, q.order_id, 0, q.price, codes.UNKNOWN_ORDER)
    elif q.kind == codes.SIGNAL_CANCEL:
        if k.trading == codes.LIVE:
            ask_cancel(k, o, min(life_of(k, q), MOST_MS))
    else:
        resolve_replace(k, q, o)


def check_replace(k: Kernel, o: OpenOrder, lots: int, price: float, stop: float, life: int) -> int:
    """The verdict on an open order's new shape, as if it were new: it has that shape for the time of the check."""
    if over(k, lots * instruments(k, o.instrument).lot, k.limits.order_qty):
        return codes.ORDER_QTY
    qty, was_price, was_stop, was_life = o.qty, o.price, o.stop, o.life_ms
    o.qty = lots - o.filled
    o.price = price
    o.stop = stop
    o.life_ms = life if life > 0 else was_life
    reason = check(k, o, qty - o.filled)
    o.qty = qty
    o.price = was_price
    o.stop = was_stop
    o.life_ms = was_life
    return reason


def resolve_replace(k: Kernel, q: Signal, o: OpenOrder) -> None:
    """Check the new shape of an open order, then ask the venue."""
    i = instruments(k, o.instrument)
    lots, life = to_lots(q.qty, i.lot), life_of(k, q)
    other_kind = q.price > 0.0 and (q.type == codes.TRAILING) != (o.type == codes.TRAILING)
    if not o.filled < lots < TOO_MANY or other_kind or not q.price >= 0.0 or life > MOST_MS:
        refuse(k, q.strategy, o.instrument, o.id, lots * o.side, q.price, codes.BAD_ORDER)
        return
    price = on_grid(q.price, i, o.side, o.type) if q.price > 0.0 else o.price
    stop = to_tick(q.stop, i, -o.side) if q.stop > 0.0 else o.stop
    if o.type == codes.TRAILING and not q.stop > 0.0:
        stop = 0.0  # the venue knows where it has come to
    reason = codes.UNKNOWN_ORDER  # a change is under way already
    if o.state == codes.WORKING or o.state == codes.SENT:
        reason = check_replace(k, o, lots, price, stop, life)
    if reason != codes.OK:
        refuse(k, q.strategy, o.instrument, o.id, lots * o.side, price, reason)
    elif k.trading == codes.LIVE:
        ask_replace(k, o, lots, price, stop, life)
    else:
        record(k, q.strategy, o.instrument, o.id, lots * o.side, price, codes.OK, codes.REFUSE)


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


def crosses(k: Kernel, q: Signal) -> bool:
    """Whether a signal is a sound target for an instrument that may be traded now."""
    i, m = instruments(k, q.instrument), markets(k, q.instrument)
    if (
        (q.kind != codes.SIGNAL_TARGET and q.kind != codes.SIGNAL_WEIGHT)
        or not i.allowed
        or i.blocked
        or not m.mark > 0.0
    ):
        return False
    return k.ts - m.ts <= k.limits.stale_ns and q.qty == q.qty and abs(wanted(k, q)) < TOO_MANY


def cross(k: Kernel, q: Signal, lots: int, price: float) -> None:
    """One side of a cross: a fill without an order and a fee, with a record that says after how many fills it came."""
    apply_fill(k, q.instrument, q.strategy, lots, price, 0.0)
    k.check_value = float(k.fills)
    record(k, q.strategy, q.instrument, 0, lots, price, codes.NETTED, codes.REFUSE)


def net_targets(k: Kernel) -> None:
    """Cross opposing target changes of different strategies at the last price, without the venue.

    Without room for its two records nothing is crossed: both go to the venue.
    """
    for a in range(k.signals):
        qa = signals(k, a)
        if not crosses(k, qa):
            continue
        m = markets(k, qa.instrument)
        pa = positions(k, qa.strategy * k.instruments + qa.instrument)
        for b in range(a + 1, k.signals):
            qb = signals(k, b)
            if qb.instrument == qa.instrument and crosses(k, qb):
                pb = positions(k, qb.strategy * k.instruments + qb.instrument)
                da = wanted(k, qa) - pa.qty - pa.pending
                db = wanted(k, qb) - pb.qty - pb.pending
                if da * db < 0 and k.refusals_out + 2 <= k.refusal_cap:
                    crossed = min(abs(da), abs(db))
                    cross(k, qa, crossed if da > 0 else -crossed, m.mark)
                    cross(k, qb, crossed if db > 0 else -crossed, m.mark)


def alike(k: Kernel, n: int) -> bool:
    """Whether signals are to be resolved as they stand: of one priority, and none that makes room for others."""
    for row in range(n):
        q = signals(k, row)
        if q.kind == 0 or q.priority != signals(k, 0).priority or reduces(k, q):
            return False
    return True


def resolve(k: Kernel) -> None:
    """All queued signals: by priority, reductions first, then in order of registration."""
    n = k.signals
    if k.trading == codes.OBSERVATION:
        for row in range(n):
            void(k, signals(k, row))
        k.signals = 0
        return
    if k.limits.netting and n > 1 and k.trading == codes.LIVE and not k.killed:
        net_targets(k)
    if n == 1 and signals(k, 0).kind != 0:
        resolve_one(k, signals(k, 0))
    elif alike(k, n):
        for row in range(n):
            resolve_one(k, signals(k, row))
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
            for rest in range(2):  # what makes room, then the rest
                for row in range(n):
                    q = signals(k, row)
                    if q.kind != 0 and q.priority == top and (rest == 1 or reduces(k, q)):
                        resolve_one(k, q)
            below = top
    k.signals = 0


def carry_out_breach(k: Kernel) -> None:
    """What a breached limit asks for beyond the refusal: cancel, flatten, halt."""
    what = k.breach
    k.breach = codes.REFUSE
    cancel_all(k, -1, -1, 0)
    if what == codes.FLATTEN or what == codes.HALT:
        for s in range(k.strategies):
            for i in range(k.instruments):
                lots = flattening(k, i, s)
                mask = codes.RISK_EXIT | codes.BY_TARGET
                full = lots != 0 and propose(k, s, i, lots, mask, 127, 0) != codes.OK
                if full and what == codes.FLATTEN:
                    k.breach = what  # no room yet: again when an order has ended
    if what == codes.HALT and k.halt == codes.RUNNING:
        halt(k, codes.HALT_RISK)
