"""Risk checks: approve an order or refuse it with a reason.

Law 1: the same checks, in the same order, in every mode; nothing here knows where events come from.
Law 2: a limit allows values up to and including itself. inf, or the largest integer, switches it off.
Law 3: an order that only reduces a position passes the limits on exposure and on losses.
Law 4: every refusal is a record with a reason and the two numbers that were compared.
"""

import math

from engine.kernel import codes
from engine.kernel.primitives import cold, hot
from engine.kernel.records import Kernel, Market, OpenOrder, instruments, markets, open_orders, positions, refusals

SLACK = 1e-9  # relative rounding that a limit forgives
HIGHEST = 1e300  # a price beyond is none


def over(k: Kernel, value: float, limit: float) -> bool:
    """Whether a value breaks a limit; keeps both for the refusal."""
    if value <= limit + SLACK * abs(limit):
        return False
    k.check_value = value  # not a number breaks every limit
    k.check_limit = limit
    return True


def record(
    k: Kernel, strategy: int, instrument: int, order_id: int, lots: int, price: float, reason: int, breach: int
) -> None:
    """What became of a wish that is no order, beside the two numbers kept last; only counted when the table is full."""
    k.attention = 1
    if k.refusals_out < k.refusal_cap:
        r = refusals(k, k.refusals_out)
        k.refusals_out += 1
        r.ts = k.ts
        r.seq = k.seq
        r.order_id = order_id
        r.qty = lots
        r.price = price
        r.value = k.check_value
        r.limit = k.check_limit
        r.instrument = instrument
        r.strategy = strategy
        r.reason = reason
        r.breach = breach
    k.check_value = 0.0
    k.check_limit = 0.0


def refuse(k: Kernel, strategy: int, instrument: int, order_id: int, lots: int, price: float, reason: int) -> None:
    """Record a refusal and what the breach of this limit does beyond it."""
    breach = k.limits.breach[reason]
    if breach > k.breach:
        k.breach = breach
    k.refused += 1
    record(k, strategy, instrument, order_id, lots, price, reason, breach)


def surely(m: Market, o: OpenOrder, freed: int) -> int:
    """Lots (signed) of market orders under way, without the `freed` ones of the order itself."""
    return m.certain - freed * o.side if o.type == codes.MARKET else m.certain


def beside(m: Market, o: OpenOrder, freed: int) -> int:
    """Lots of the other orders on its side that may rest, without the `freed` ones of the order itself."""
    return (m.buys if o.side > 0 else m.sells) - (0 if o.type == codes.MARKET else freed)


def reducing(k: Kernel, o: OpenOrder, freed: int) -> bool:
    """Whether the order can only bring the net position closer to zero, all open orders on its side counted.

    A reduce-only order counts alone, as the venue fills no more of it than is held: a stop and a target may share a
    position.
    """
    m = markets(k, o.instrument)
    if o.mask & codes.REDUCE_ONLY:
        return m.net * o.side < 0 and o.qty <= abs(m.net)
    if m.net * o.side >= 0:
        return False
    return o.qty + beside(m, o, freed) + max(surely(m, o, freed) * o.side, 0) <= abs(m.net)


def take_token(k: Kernel) -> bool:
    """The order rate as a token bucket on event time."""
    rate, burst = k.limits.rate, k.limits.burst
    if rate == math.inf:
        return True
    if k.tokens_ts == 0:
        k.tokens = burst
    else:
        k.tokens = min(burst, k.tokens + rate * (k.ts - k.tokens_ts) * 1e-9)
    k.tokens_ts = k.ts
    k.check_value = k.tokens
    k.check_limit = 1.0
    if k.tokens < 1.0 - SLACK:
        return False
    k.tokens -= 1.0
    return True


def self_match(k: Kernel, o: OpenOrder) -> bool:
    """Whether the order could trade with one of our own that is open on the other side."""
    m = markets(k, o.instrument)
    if (m.sells if o.side > 0 else m.buys) == 0:
        return False
    left, last = k.opened, k.next_order
    for back in range(1, k.order_cap + 1):
        if left == 0:
            break
        other = open_orders(k, (last - back) & k.order_mask)
        if codes.SENT <= other.state < codes.DONE_FILLED:
            left -= 1
            if other.instrument == o.instrument and other.side != o.side and other.type == codes.LIMIT:
                if o.type == codes.MARKET or (o.type == codes.LIMIT and (o.price - other.price) * o.side >= 0.0):
                    k.check_value = o.price
                    k.check_limit = other.price
                    return True
    return False


def check_market(k: Kernel, o: OpenOrder) -> int:
    """May this instrument be traded now, and does the order make sense?"""
    i = instruments(k, o.instrument)
    m = markets(k, o.instrument)
    if k.killed:
        return codes.KILLED
    if not i.allowed:
        return codes.NOT_ALLOWED
    if i.blocked:
        return codes.BLOCKED
    if m.ts == 0 or not m.mark > 0.0:
        return codes.NO_MARKET
    if k.ts - m.ts > k.limits.stale_ns and over(k, float(k.ts - m.ts), float(k.limits.stale_ns)):
        return codes.STALE_MARKET
    if o.qty <= 0 or not 0.0 <= o.price <= HIGHEST or not 0.0 <= o.stop <= HIGHEST:
        return codes.BAD_ORDER
    if (o.price == 0.0 and o.type != codes.MARKET and o.type != codes.STOP) or (o.stop == 0.0 and o.type == codes.STOP):
        return codes.BAD_ORDER  # less than a tick: nothing is left of the price
    if o.tif < codes.GTC or o.tif > codes.GTD or (o.mask & codes.POST_ONLY and o.type != codes.LIMIT):
        return codes.BAD_ORDER
    if o.tif == codes.GTD and o.life_ms == 0:
        return codes.BAD_ORDER  # good till when?
    if o.price > 0.0 and o.type != codes.TRAILING and over(k, abs(o.price / m.mark - 1.0), k.limits.collar):
        return codes.PRICE_COLLAR
    if o.stop > 0.0 and over(k, abs(o.stop / m.mark - 1.0), k.limits.collar):
        return codes.PRICE_COLLAR
    return codes.OK


def check_exposure(k: Kernel, o: OpenOrder, freed: int) -> int:
    """Would the account, with all open orders done at their worst, stay within its limits?"""
    m = markets(k, o.instrument)
    i = instruments(k, o.instrument)
    sure = m.net + surely(m, o, freed)
    after = sure + (beside(m, o, freed) + o.qty) * o.side
    if over(k, abs(after) * i.lot, k.limits.position):
        return codes.POSITION
    if after < 0 and o.side < 0 and not (k.limits.short and i.shortable):
        k.check_value = after * i.lot
        return codes.SHORT_SALE
    worth = m.mark * i.unit
    other = abs(sure - m.sells) if o.side > 0 else abs(sure + m.buys)
    more = (max(abs(after), other) - abs(m.net)) * worth - m.extra
    if over(k, k.gross + k.extra + more, k.limits.gross):
        return codes.GROSS_EXPOSURE
    more_net = sure - m.net + o.side * o.qty
    if over(k, abs(k.value + k.extra_net - m.extra_net + more_net * worth), k.limits.net):
        return codes.NET_EXPOSURE
    free = k.limits.leverage == math.inf
    if not free and over(k, k.used + k.extra_margin + more * i.margin, (k.cash + k.value) * k.limits.leverage):
        return codes.MARGIN
    return codes.OK


def check(k: Kernel, o: OpenOrder, freed: int) -> int:
    """The verdict on an order: OK, or the reason of the refusal. `freed`: lots that count already, as an open order in
    its new shape stands for itself, not beside itself."""
    reason = check_market(k, o)
    if reason != codes.OK:
        return reason
    m = markets(k, o.instrument)
    i = instruments(k, o.instrument)
    price = o.price if o.price > 0.0 and o.type != codes.TRAILING else m.mark
    reduces = reducing(k, o, freed)
    if o.mask & codes.REDUCE_ONLY and not reduces:
        k.check_value = float(o.side * o.qty)
        k.check_limit = float(-m.net)
        return codes.REDUCE_ONLY_SIDE
    if over(k, o.qty * i.lot, k.limits.order_qty):
        return codes.ORDER_QTY
    if over(k, o.qty * i.unit * price, k.limits.order_value):
        return codes.ORDER_VALUE
    if not reduces:
        if k.breached:
            k.check_value = k.cash + k.value
            k.check_limit = least_equity(k)
            return k.breached
        reason = check_exposure(k, o, freed)
        if reason != codes.OK:
            return reason
    if over(k, float(k.opened + (0 if freed > 0 else 1)), float(k.limits.open_orders)):
        return codes.OPEN_ORDERS
    if k.limits.self_match and self_match(k, o):
        return codes.SELF_MATCH
    if not take_token(k):
        return codes.ORDER_RATE
    k.check_value = 0.0
    k.check_limit = 0.0
    return codes.OK


def least_equity(k: Kernel) -> float:
    """The equity under which a loss limit is breached."""
    return max(k.peak * (1.0 - k.limits.drawdown), k.day_equity - k.limits.daily_loss)


def set_floor(k: Kernel) -> None:
    """Keep the least equity, less the rounding that a limit forgives."""
    least = least_equity(k)
    k.floor = least - SLACK * abs(least)


@cold
def judge_loss(k: Kernel, equity: float) -> None:
    """Equity is below the floor: which loss limit it breaks, if that is news.

    The breach of the drawdown lasts, that of the daily loss ends with the day.
    """
    if k.breached == codes.DRAWDOWN or k.halt != codes.RUNNING:
        return
    least = k.peak * (1.0 - k.limits.drawdown)
    drawn = equity < least - SLACK * abs(least)
    if drawn or not k.breached:  # a drawdown is news even on a day that has lost too much already
        k.breached = codes.DRAWDOWN if drawn else codes.DAILY_LOSS
        k.check_value = equity
        k.check_limit = least if drawn else least_equity(k)
        refuse(k, 0, 0, 0, 0, 0.0, k.breached)


@hot
def watch_losses(k: Kernel) -> bool:
    """At the end of a timestamp: a new peak, or perhaps a breach of a loss limit; whether one was."""
    equity = k.cash + k.value
    if equity > k.peak:
        k.peak = equity
        set_floor(k)
    elif equity < k.floor:
        judge_loss(k, equity)
    return k.breach != codes.REFUSE


def new_day(k: Kernel) -> None:
    """The first event of a trading day: its loss limit starts afresh."""
    day = 86_400_000_000_000
    k.next_day = ((k.ts - k.day_offset_ns) // day + 1) * day + k.day_offset_ns
    k.day_equity = k.cash + k.value
    if k.breached == codes.DAILY_LOSS:
        k.breached = codes.OK
    set_floor(k)


def flattening(k: Kernel, instrument: int, strategy: int) -> int:
    """Lots (signed) still missing to bring one position to zero."""
    p = positions(k, strategy * k.instruments + instrument)
    return -p.qty - p.pending
