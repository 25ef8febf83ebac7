"""Records of the simulated venue and of the loop: the second state machine, of the same shape as the kernel.

The venue's state is one block of memory too: Venue, then its tables, found by offsets.
"""

from typing import Annotated

from engine.kernel.books import Book
from engine.kernel.layout import F8, I1, I4, I8, U1, U2, U4, Array, Record
from engine.kernel.levels import Half
from engine.kernel.primitives import Pointer, Table
from engine.kernel.records import Instrument


class VenueOrder(Record):
    """An order that the venue holds. `next` chains the orders of one instrument in order of arrival, -1 ends."""

    id: I8
    ts: I8
    expires: I8  # ns
    qty: I8
    left: I8
    next: I8
    price: F8  # of a trailing stop its distance
    stop: F8
    ahead: F8  # volume before it in the queue at its price, units
    shown: F8  # volume of its level as it was last told, 0 = unknown; of use with a queue model or with depth
    traded: F8  # at its price since then
    instrument: U4
    strategy: U2
    side: I1
    type: U1
    tif: U1
    mask: U1
    used: U1
    triggered: U1
    fresh: U1  # has not met a market event yet
    met: U1  # has met the open of the bar at hand


class VenueMarket(Record):
    """What the venue knows of one instrument.

    Instruments with open orders are busy: a list through `before` and `after`, -1 ends.
    """

    last: F8
    worth: F8  # of the account's position at price 1, and its margin
    carry: F8
    bar: I8  # place of its latest bar on the tape, bytes
    head: I4  # first order, -1 = none
    tail: I4
    before: I4
    after: I4
    net: I8  # the account's position, lots
    budget: I8  # lots that the bar at hand may still fill
    previous: I8  # place of the bar before, when an order meets the latest
    unit: F8
    margin: F8
    begin: I8  # when the bar at hand began
    spare: Array[int, 4]  # a row is two cache lines, the first has what every bar needs


class VenueBook(Record):
    """The top of the book of one instrument as the venue has it, less what our own orders took of it."""

    bid: F8
    ask: F8
    bid_volume: F8
    ask_volume: F8


class Side(Record):
    """One side of a quote: what lies there of `VenueBook`, and of a quote 24 bytes on; asks are 8 bytes behind bids."""

    price: Annotated[float, "f8", 0]
    volume: Annotated[float, "f8", 16]


class Session(Record):
    """One session of a calendar, ns UTC."""

    opens: I8
    closes: I8


class Hours(Record):
    """Where the sessions of one instrument are in the table, in order of time; none = its days have 24 hours."""

    first: I8
    count: I8
    latest: I8  # row that was found last: where the next search begins


class Latency(Record):
    """Latencies measured at a time; `feed_floor` is when the last market event before it has arrived."""

    time: I8
    order_ns: I8
    report_ns: I8
    feed_ns: I8
    feed_floor: I8


class Draws(Record):
    """The state of a generator of random numbers."""

    first: I8
    second: I8


class Venue(Record):
    """Header of the venue: its models' parameters, the account it enforces margin on, its tables.

    `slippage_bps` worsens market and stop fills; `participation` caps our share of a bar's volume (0 = no cap);
    `touch` lets a limit fill when the price only touches it.
    """

    slippage_bps: F8
    participation: F8
    leverage: F8
    cash: F8
    value: F8  # of what is held, at last prices
    used: F8  # margin of what is held
    held: I8  # instruments held
    next_exec: I8
    opened: I8
    free: I8
    orders_cap: I8
    instruments: I8
    touch: I8
    ts: I8
    slice: I8  # place on the tape where the latest timestamp begins, bytes
    busy: I8  # instruments with open orders
    first: I8  # of them, -1 = none
    last: I8
    order_ns: I8  # from the kernel to the venue
    report_ns: I8  # and back
    feed_ns: I8  # added to the arrival of market events; -1 = by the table
    sampled: I8  # 1 = latencies of orders and reports are no constants
    jitter: F8
    order_due: I8  # when the next order arrives, if it is `order_known`
    order_known: I8
    order_last: I8  # when the latest order and the latest report arrive
    report_last: I8
    order_draws: Draws
    report_draws: Draws
    latencies: I8  # rows of the table, 0 = none
    queue: I8  # how cancels ahead of us are shared: 0 none, 1 all, 2 by power
    power: F8
    next_expiry: I8
    orders_at: I8
    markets_at: I8
    instruments_at: I8
    books_at: I8
    depth_at: I8  # whole books, less what our own orders took; 0: the tape tells no depth
    halves_at: I8
    levels: I8  # that all of them hold at most
    hours_at: I8
    sessions_at: I8
    latencies_at: I8


class Loop(Record):
    """What `run` is given: where everything is, how far it has come, and why it returned.

    Outputs are written to buffers that the caller drains when `status` is DRAIN.
    """

    kernel: I8  # addresses
    ctx: I8
    venue: I8
    tape: I8
    orders: I8
    reports: I8
    refusals: I8
    curve: I8
    index: I8  # next event of the tape
    length: I8
    stop: I8  # where the kernel stops, at most `length`: the venue may see further
    venue_index: I8  # place of the next event for the venue, whose clock is its own, bytes
    arrived: I8  # orders that have reached the venue
    taken: I8  # reports that have reached the kernel
    closing: I8  # 1 = at the end of the tape, what is under way shall arrive
    closed: I8  # 1 = what was under way at the end of the tape has arrived
    scratch: I8  # an event whose arrival is delayed
    lone: I8  # 1 = one strategy on one instrument, which may go the short way
    final: I8  # 1 = no event follows after `length`
    orders_n: I8
    orders_cap: I8
    reports_n: I8
    reports_cap: I8
    refusals_n: I8
    refusals_cap: I8
    curve_n: I8
    curve_cap: I8
    sample_ns: I8  # least distance of two points of the curve, 0 = every timestamp
    next_sample: I8
    stop_on_fault: I8
    status: I8
    dropped: I8
    started: I8
    fault_index: I8  # first event of the timestamp in which a strategy failed


venue_at = Pointer(Venue)
loop_at = Pointer(Loop)
side_at = Pointer(Side)

venue_orders = Table(Venue, "orders_at", VenueOrder)
venue_markets = Table(Venue, "markets_at", VenueMarket)
venue_instruments = Table(Venue, "instruments_at", Instrument)
venue_books = Table(Venue, "books_at", VenueBook)
venue_depth = Table(Venue, "depth_at", Book)
venue_halves = Table(Venue, "halves_at", Half)
venue_hours = Table(Venue, "hours_at", Hours)
venue_sessions = Table(Venue, "sessions_at", Session)
venue_latencies = Table(Venue, "latencies_at", Latency)
