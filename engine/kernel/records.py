"""Every record of the kernel: what enters, what leaves, and the whole state in between.

Law 1: an event and an order are 64 bytes each, one cache line.
Law 2: the kernel's state is one block of memory, the arena; tables are found by offsets inside it, so
       snapshot = bytes, restore = bytes, at any address.
Law 3: quantities and positions are whole lots (int64), prices and cash float64, times ns UTC (int64).

The arena begins with Ctx (what a strategy sees), then Kernel (header), then the tables.
"""

from engine.kernel.layout import F8, I1, I4, I8, U1, U2, U4, Array, Record
from engine.kernel.primitives import Pointer, Table


class Order(Record):
    """An instruction to a venue, 64 bytes; `qty` in lots (unsigned), `seq` of the event that caused it.

    The `price` of a TRAILING order is the distance of its stop, `stop` where that begins at the latest, 0 = anywhere.
    """

    id: I8
    seq: I8
    ts: I8
    qty: I8
    price: F8
    stop: F8
    instrument: U4
    strategy: U2
    action: U1
    side: I1
    type: U1
    tif: U1
    mask: U1  # order flags
    priority: I1
    life_ms: U4  # it is void so many milliseconds after ts, 0 = never


class Instrument(Record):
    """What the kernel needs to know of an instrument; written at start, then constant.

    Prices snap to `tick`; `lot` is the smallest quantity; one unit is worth `price * multiplier`.
    Fees: `max(fee_min, |notional| * bps / 1e4 + units * fee_per_unit)`; a sum below zero is a rebate.
    """

    tick: F8
    lot: F8
    multiplier: F8
    unit: F8  # worth of one lot at price 1: lot * multiplier
    per_one: F8  # ticks in one unit of price where they are a whole number, else 0
    maker_bps: F8
    taker_bps: F8
    fee_per_unit: F8
    fee_min: F8
    margin: F8  # initial margin as a fraction of notional, 1 = fully paid
    bar_ns: I8  # open to close of one bar, 0 = unknown
    day_offset_ns: I8  # trading day = floor((ts - offset) / 24 h)
    currency: U4
    allowed: U1
    blocked: U1
    shortable: U1


class Market(Record):
    """The changing side of an instrument: last price, our net position and orders. Two cache lines, hot one first."""

    ts: I8
    mark: F8
    worth: F8  # of our net position at price 1: net * unit
    weight: F8  # |worth|
    carry: F8  # its margin at price 1: |worth| * the instrument's margin
    net: I8  # our position over all strategies, lots
    route: I8  # bytes from Kernel to the first of its routes: the strategies that it concerns; 0 = none
    extra_net: F8  # what the market orders will add to value
    bid: F8
    ask: F8
    certain: I8  # signed lots of our open market orders
    buys: I8  # lots of our other open orders, by side
    sells: I8
    bid_volume: F8
    ask_volume: F8
    extra: F8  # what the open orders may add to |value|


class Position(Record):
    """What one strategy holds of one instrument. Written by `apply_fill` only, but for `pending`."""

    qty: I8
    pending: I8  # signed lots still open in orders that work towards a target
    average: F8
    realised: F8
    fees: F8
    fills: I8
    signal: I8  # 1 + index of its queued target, 0 = none


class Desk(Record):
    """The two resting orders that one strategy keeps in one instrument through `ctx.quote`; 0 = none."""

    buy: I8
    sell: I8


class OpenOrder(Record):
    """An order the kernel is responsible for, from signal to terminal state. Slot = id & mask."""

    id: I8
    asked: I8  # lots that a replace under way asks for, 0 = none
    qty: I8
    filled: I8
    price: F8
    stop: F8
    instrument: U4
    strategy: U2
    state: U1
    side: I1
    type: U1
    tif: U1
    mask: U1
    priority: I1
    life_ms: U4


class Signal(Record):
    """A strategy's wish, queued until the end of dispatch. `qty` in units of the instrument, or a weight.

    `deadline`: when the wish, and the order that comes of it, is void. Of a TRAILING order `price` is the distance.
    """

    qty: F8
    price: F8
    stop: F8
    order_id: I8
    deadline: I8  # ns; 0 = none
    instrument: U4
    strategy: U2
    kind: U1
    side: I1
    type: U1
    tif: U1
    mask: U1
    priority: I1


class Refusal(Record):
    """A wish that risk refused: what was asked, why not, and the two numbers that were compared.

    With the reason OK one that it let pass and that did not leave, because trading is simulation.

    With the reason NETTED one side of an internal cross: what the strategy got, at what price, and in `value` how many
    fills of the venue came before it.
    """

    ts: I8
    seq: I8
    order_id: I8
    qty: I8  # signed lots
    price: F8
    value: F8
    limit: F8
    instrument: U4
    strategy: U2
    reason: U1
    breach: U1


class Curve(Record):
    """One point of the equity curve, at the end of a timestamp. `gross` is the sum of |position values|."""

    ts: I8
    equity: F8
    cash: F8
    gross: F8


class Slot(Record):
    """One strategy of the kernel: a class with parameters, on the instruments whose `routes` lead to it."""

    state_at: I8  # of instance 0, bytes from Kernel
    stride: I8  # bytes from one instance to the next
    handlers_at: I8  # addresses of its handlers, bytes from Kernel
    fault_seq: I8
    handles: U4  # bit mask of the event kinds it subscribes to
    active: U4  # the same mask while it runs, 0 while it is paused or stopped
    instances: U4
    fault: U4
    strategy: I8  # its own row
    spare: I8  # a row is a cache line


class Address(Record):
    """The machine address of a handler. Not part of the state: it changes with each process."""

    value: I8


class Route(Record):
    """One strategy that an instrument concerns, in order of registration. All in bytes from Kernel."""

    state_at: I8  # of the instance
    slot_at: I8
    next: I8  # the following route of the instrument, 0 = none


class Line(Record):
    """Eight words: an order, a refusal or an event as it is copied."""

    words: Array[int, 8]


class Limits(Record):
    """Risk limits. A limit allows values up to and including itself; inf (or the largest integer) is off."""

    order_qty: F8  # units
    order_value: F8
    position: F8  # units, per instrument
    gross: F8
    net: F8
    open_orders: I8
    daily_loss: F8
    drawdown: F8  # fraction of the peak
    rate: F8  # orders per second of event time
    burst: F8  # orders at once
    collar: F8  # fraction of the mark
    stale_ns: I8
    leverage: F8  # gross exposure over equity that margin allows; 1 = cash account
    short: U1
    self_match: U1  # 1 = refuse orders that could trade with our own
    netting: U1  # 1 = cross opposing targets of our strategies internally
    breach: Array[int, 32]  # reason -> REFUSE, CANCEL_ORDERS, FLATTEN or HALT


class Kernel(Record):
    """Header of the arena: account, clock, counters, limits, and where the tables are."""

    # clock and counters
    seq: I8
    ts: I8
    next_day: I8  # first ns of the next trading day
    next_sum: I8  # event from which a new day sums the account afresh
    signals: I8  # queued signals
    orders_out: I8  # orders in the outbox
    # account: written by positions.py only
    cash: F8
    value: F8  # of all positions at their marks
    gross: F8
    used: F8  # margin that the positions use
    held: I8  # instruments with a position
    fees: F8
    realised: F8
    turnover: F8
    # limits on the account
    start_equity: F8
    day_equity: F8
    peak: F8
    floor: F8  # equity under which a loss limit is breached, less the rounding that is forgiven
    tokens: F8  # of the order-rate bucket
    tokens_ts: I8
    # orders
    session: I8
    next_order: I8
    opened: I8  # open orders
    extra: F8  # what open orders may add to gross, net and margin
    extra_net: F8
    extra_margin: F8
    fills: I8
    late_fills: I8
    unknown_reports: I8
    last_exec: I8
    # refusals
    refused: I8
    refusals_out: I8
    check_value: F8
    check_limit: F8
    # state of the whole
    slices: I4  # strategies that want the end of a timestamp
    halt: I4
    attention: I4  # whoever drives the kernel has more to do than go on: orders, refusals, a fault, a halt
    killed: I4
    trading: I4
    breach: I4
    breached: I4  # the loss limit that is breached, until the next day
    faulted: I4
    # sizes
    instruments: I4
    strategies: I4
    order_mask: I4
    order_cap: I4
    signal_cap: I4
    outbox_cap: I4
    refusal_cap: I4
    day_offset_ns: I8
    # tables, bytes from Kernel
    instruments_at: I8
    markets_at: I8
    positions_at: I8
    open_at: I8
    signals_at: I8
    slots_at: I8
    routes_at: I8
    outbox_at: I8
    refusals_at: I8
    addresses_at: I8
    desks_at: I8
    books_at: I8  # 0: nobody tells depth
    halves_at: I8
    limits: Limits


order_at = Pointer(Order)
slot_at = Pointer(Slot)
route_at = Pointer(Route)
address_at = Pointer(Address)
line_at = Pointer(Line)
kernel_at = Pointer(Kernel)


def copy_line(to: int, start: int) -> None:
    """Copy a line from one address to another."""
    there, here = line_at(to), line_at(start)
    for i in range(8):
        there.words[i] = here.words[i]


instruments = Table(Kernel, "instruments_at", Instrument)
markets = Table(Kernel, "markets_at", Market)
positions = Table(Kernel, "positions_at", Position)  # row = strategy * instruments + instrument
desks = Table(Kernel, "desks_at", Desk)  # row = strategy * instruments + instrument
open_orders = Table(Kernel, "open_at", OpenOrder)
signals = Table(Kernel, "signals_at", Signal)
slots = Table(Kernel, "slots_at", Slot)
outbox = Table(Kernel, "outbox_at", Order)
refusals = Table(Kernel, "refusals_at", Refusal)
