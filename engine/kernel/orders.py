"""Orders from request to terminal state.

Law 1: an order changes state in `transition` only, along the literal table LEGAL.
Law 2: the id alone gives the slot (`id & mask`); ids are a pure function of session and sequence.
Law 3: what open orders may still do to the exposure is known at any time (`extra`), so that two orders
       that are each within a limit cannot break it together.
"""

import numpy as np

from engine.kernel import codes
from engine.kernel.primitives import address_of
from engine.kernel.records import (
    Kernel,
    OpenOrder,
    Order,
    instruments,
    markets,
    open_orders,
    order_at,
    outbox,
    positions,
)

# What can happen to an order.
SEND, ACK, PART, FULL, ASK_CANCEL, ASK_REPLACE, CANCELLED, REJECTED, EXPIRED, CANCEL_REJECTED, REPLACED, DROP = range(
    12
)

_F, _R, _S, _W, _C, _P = (codes.FREE, codes.RESERVED, codes.SENT, codes.WORKING, codes.CANCELLING, codes.REPLACING)
_DF, _DC, _DR, _DE = codes.DONE_FILLED, codes.DONE_CANCELLED, codes.DONE_REJECTED, codes.DONE_EXPIRED
_X = -1  # illegal: the kernel halts, or, when a venue caused it, counts an anomaly

LEGAL = np.array([
    # SEND ACK  PART FULL ASKC ASKR CANC REJ  EXP  CREJ REPL DROP
    [_X,   _X,  _X,  _X,  _X,  _X,  _X,  _X,  _X,  _X,  _X,  _X],  # FREE
    [_S,   _X,  _X,  _X,  _X,  _X,  _X,  _X,  _X,  _X,  _X,  _F],  # RESERVED
    [_X,   _W,  _W,  _DF, _C,  _P,  _DC, _DR, _DE, _X,  _X,  _X],  # SENT
    [_X,   _W,  _W,  _DF, _C,  _P,  _DC, _DR, _DE, _X,  _X,  _X],  # WORKING
    [_X,   _C,  _C,  _DF, _C,  _X,  _DC, _DR, _DE, _W,  _C,  _X],  # CANCELLING
    [_X,   _P,  _P,  _DF, _C,  _P,  _DC, _DR, _DE, _W,  _W,  _X],  # REPLACING
    [_X] * 12, [_X] * 12, [_X] * 12, [_X] * 12,  # terminal states stay
], dtype=np.int8)  # fmt: skip

OPEN = np.array([0, 0, 1, 1, 1, 1, 0, 0, 0, 0], dtype=np.int8)  # states in which the venue may still fill it


def halt(k: Kernel, code: int) -> None:
    """The terminal state: this kernel does nothing more."""
    k.halt = code
    k.attention = 1


def recommit(k: Kernel, instrument: int) -> None:
    """Bring `extra` up to date: the largest |value| that open orders can lead to, less the present one.

    Market orders count as done (so a sale makes room for a purchase), all others at their worst.
    """
    m, i = markets(k, instrument), instruments(k, instrument)
    worth = m.mark * i.unit
    sure = m.net + m.certain
    worst = max(abs(sure + m.buys), abs(sure - m.sells))
    extra = (worst - abs(m.net)) * worth
    extra_net = m.certain * worth
    k.extra += extra - m.extra
    k.extra_margin += (extra - m.extra) * i.margin
    k.extra_net += extra_net - m.extra_net
    m.extra = extra
    m.extra_net = extra_net
    if k.opened == 0:
        k.extra = 0.0
        k.extra_margin = 0.0
        k.extra_net = 0.0


def count_working(k: Kernel, o: OpenOrder, lots: int) -> None:
    """Add `lots` (negative: remove) to what is open for the order's instrument and target."""
    m = markets(k, o.instrument)
    if o.type == codes.MARKET:
        m.certain += lots * o.side
    elif o.side > 0:
        m.buys += lots
    else:
        m.sells += lots
    if o.mask & codes.BY_TARGET:
        positions(k, o.strategy * k.instruments + o.instrument).pending += lots * o.side


def more_asked(o: OpenOrder) -> int:
    """Lots that a replace under way may add to the order."""
    return max(o.asked - o.qty, 0) if o.asked else 0


def transition(k: Kernel, o: OpenOrder, what: int) -> bool:
    """Move an order along the table and keep the counts of open orders; False when the move is illegal."""
    before = o.state
    after = LEGAL[before, what]
    if after < 0:
        return False
    o.state = after
    if before == codes.REPLACING and after != codes.REPLACING:
        count_working(k, o, -more_asked(o))
        o.asked = 0
    was, now = OPEN[before], OPEN[after]
    if was != now:
        if now:
            k.opened += 1
            count_working(k, o, o.qty - o.filled)
        else:
            k.opened -= 1
            count_working(k, o, o.filled - o.qty)
    return True


def write_out(k: Kernel, o: OpenOrder, action: int, life_ms: int) -> None:
    """Put an instruction about the order into the outbox; a full outbox halts the kernel."""
    if k.orders_out >= k.outbox_cap:
        halt(k, codes.HALT_OVERFLOW)
        return
    out: Order = outbox(k, k.orders_out)
    k.orders_out += 1
    k.attention = 1
    out.id = o.id
    out.seq = k.seq
    out.ts = k.ts
    out.qty = o.qty
    out.price = o.price
    out.stop = o.stop
    out.instrument = o.instrument
    out.strategy = o.strategy
    out.action = action
    out.side = o.side
    out.type = o.type
    out.tif = o.tif
    out.mask = o.mask
    out.priority = o.priority
    out.life_ms = life_ms


def send(k: Kernel, o: OpenOrder) -> None:
    """Send a reserved order that risk approved."""
    if transition(k, o, SEND):
        recommit(k, o.instrument)
        write_out(k, o, codes.NEW, o.life_ms)
    else:
        halt(k, codes.HALT_TRANSITION)


def drop(k: Kernel, o: OpenOrder) -> None:
    """Give back the slot of a reserved order that was refused."""
    if not transition(k, o, DROP):
        halt(k, codes.HALT_TRANSITION)


def find(k: Kernel, order_id: int) -> OpenOrder:
    """The slot that belongs to an id; compare its `id` before use."""
    return open_orders(k, order_id & k.order_mask)


def ask_cancel(k: Kernel, o: OpenOrder, life_ms: int) -> bool:
    """Ask the venue to cancel, 0 or so many ms from now; False when the order is not open or already asked for."""
    if not OPEN[o.state] or o.state == codes.CANCELLING:
        return False
    if o.mask & codes.BY_TARGET:  # it no longer works towards the target
        left = o.qty - o.filled + more_asked(o)
        positions(k, o.strategy * k.instruments + o.instrument).pending -= left * o.side
        o.mask &= ~codes.BY_TARGET
    transition(k, o, ASK_CANCEL)
    write_out(k, o, codes.CANCEL, life_ms)
    return True


def cancel_all(k: Kernel, strategy: int, instrument: int, life_ms: int) -> None:
    """Ask to cancel every open order of a strategy and an instrument; -1 means any."""
    left, order_id = k.opened, k.next_order
    for back in range(1, k.order_cap + 1):
        if left == 0:
            break
        o = open_orders(k, (order_id - back) & k.order_mask)
        if OPEN[o.state]:
            left -= 1
            ours = (strategy < 0 or o.strategy == strategy) and (instrument < 0 or o.instrument == instrument)
            if ours and not o.mask & codes.RISK_EXIT:  # exits that risk asked for run to their end
                ask_cancel(k, o, life_ms)


def cancel_targets(k: Kernel, strategy: int, instrument: int) -> None:
    """Ask to cancel the open orders that work towards a target which has changed its direction."""
    left, order_id = k.opened, k.next_order
    for back in range(1, k.order_cap + 1):
        if left == 0:
            break
        o = open_orders(k, (order_id - back) & k.order_mask)
        if OPEN[o.state]:
            left -= 1
            works = o.mask & codes.BY_TARGET and not o.mask & codes.RISK_EXIT
            if works and o.strategy == strategy and o.instrument == instrument:
                ask_cancel(k, o, 0)


def ask_replace(k: Kernel, o: OpenOrder, qty: int, price: float, stop: float, life_ms: int) -> bool:
    """Ask the venue for another quantity, price or life (0: as it is) under the same id. What it adds counts as open
    from now on."""
    if o.state != codes.WORKING and o.state != codes.SENT:
        return False
    transition(k, o, ASK_REPLACE)
    o.asked = qty
    count_working(k, o, more_asked(o))
    if o.qty != qty or k.instruments > 1:  # orders for others are checked against what this one comes to now
        recommit(k, o.instrument)
    write_out(k, o, codes.REPLACE, life_ms)
    if k.halt == codes.RUNNING:
        out = order_at(address_of(outbox(k, k.orders_out - 1)))
        out.qty = qty
        out.price = price
        out.stop = stop
    return True


def replaced(k: Kernel, o: OpenOrder, qty: int, price: float, stop: float) -> None:
    """The venue confirmed a replace."""
    same = qty == o.qty and more_asked(o) == 0
    if transition(k, o, REPLACED):
        count_working(k, o, qty - o.qty)
        o.qty = qty
        if not same or k.instruments > 1:
            recommit(k, o.instrument)
        o.price = price
        o.stop = stop
    else:
        k.unknown_reports += 1


def filled(k: Kernel, o: OpenOrder, lots: int) -> None:
    """The venue filled `lots` (unsigned) of the order. More than was open is counted as an anomaly."""
    if OPEN[o.state]:
        counted = min(lots, o.qty - o.filled)
        count_working(k, o, -counted)
        o.filled += counted
        transition(k, o, FULL if o.filled == o.qty else PART)
        if counted != lots:
            k.late_fills += 1
    else:
        k.late_fills += 1
    recommit(k, o.instrument)


def closed(k: Kernel, o: OpenOrder, what: int) -> None:
    """The venue acknowledged, cancelled, rejected or expired the order."""
    if not transition(k, o, what):
        k.unknown_reports += 1
    elif what != ACK:  # it was counted when it was sent
        recommit(k, o.instrument)
