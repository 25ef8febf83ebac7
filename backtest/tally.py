"""What is kept of a lane: streaming statistics, folded out of its outputs tile by tile, so that buffers are reused.

Law 1: the figures that `lane_figures` makes of a tally are those of metrics.py and trades.py on the same run, to 1e-9.
Law 2: a tally is of fixed size. What it cannot hold exactly (more open entries than its queue has) is a status, and
       whoever asked runs that lane alone; nothing is ever left out in silence.
"""

import math

from backtest.records import Loop
from engine.kernel import codes
from engine.kernel.events import Event, event_at
from engine.kernel.layout import F8, I8, Record
from engine.kernel.primitives import Pointer, cold, hot
from engine.kernel.records import Curve, Instrument, Kernel, instruments

RUNNING, FAULTED, HALTED, LOST, CROWDED = 0, codes.FAULTED, codes.HALTED, 4, 5  # of a lane
ROW, POINT = 64, 32  # bytes of an event and of a point of the curve


class Tally(Record):
    """Statistics of one lane. `peak` begins at the start equity; `mark` is the equity where the last period ended."""

    status: I8
    rows: I8  # points of the curve so far
    period: I8  # which end of a period comes next
    waiting: I8  # 1 = the latest point is not counted yet: the end of the run may replace it
    point: Curve
    # of the points
    equity: F8  # sums
    gross: F8
    exposed: I8  # points with a position
    peak: F8
    low: F8  # of the fall at hand
    worst: F8
    fallen: F8  # sum of the falls, each at its deepest
    falls: I8
    falling: I8
    begin: I8  # when the fall at hand began
    longest: I8
    last_ts: I8
    # of the periods
    marked: I8
    mark: F8
    returns: I8
    first: F8  # sums of powers
    second: F8
    third: F8
    fourth: F8
    down: F8  # sum of squares below zero
    best: F8
    least: F8
    # of the orders, fills and round trips
    orders: I8
    fills: I8
    fees: F8
    traded: F8
    trades: I8
    won: I8
    gained: F8
    lost: F8
    # rows at the begin of the buffers that are counted already, because they are still under way
    orders_seen: I8
    reports_seen: I8
    kept_orders: I8  # rows in the lane's own store between two tiles
    kept_reports: I8
    kept_outbox: I8
    kept_refusals: I8
    # of the end
    final: Curve
    refused: I8
    halt: I8


class Entry(Record):
    """A fill whose lots are not all closed yet."""

    order_id: I8
    left: I8  # lots, unsigned
    price: F8
    fee: F8  # of one lot


class Queue(Record):
    """Open entries of one instrument, first in first out, all on one side, and the round trip that is being closed."""

    head: I8
    count: I8
    side: I8
    entry: I8  # orders of the round trip at hand, 0 = none
    leave: I8
    long: I8
    units: F8
    bought: F8  # units times prices of entry and of exit
    sold: F8
    fees: F8


EVEN = 1e-12  # of what a round trip cost: a profit that small is what rounding has left of none

tally_at, queue_at, entry_at, curve_at = Pointer(Tally), Pointer(Queue), Pointer(Entry), Pointer(Curve)
QUEUE_BYTES, ENTRY_BYTES = Queue.dtype.itemsize, Entry.dtype.itemsize


@cold
def settle(t: Tally, q: Queue, worth: float) -> None:
    """A round trip has ended: its profit after fees, as `trades.round_trips` has it."""
    profit = q.long * q.units * (q.sold / q.units - q.bought / q.units) * worth - q.fees
    if abs(profit) <= EVEN * q.bought * worth:
        profit = 0.0
    t.trades += 1
    if profit > 0.0:
        t.won += 1
        t.gained += profit
    elif profit < 0.0:
        t.lost -= profit
    q.entry = 0


@cold
def book(t: Tally, queues: int, cap: int, i: Instrument, ev: Event) -> None:
    """A fill: it closes the oldest entries on the other side, and what is left of it is an entry."""
    here = queues + ev.instrument * (QUEUE_BYTES + cap * ENTRY_BYTES)
    q = queue_at(here)
    entries = here + QUEUE_BYTES
    left, side = abs(ev.qty), 1 if ev.qty > 0 else -1
    fee = ev.fee / left
    t.fills += 1
    t.fees += ev.fee
    t.traded += abs(ev.qty * ev.price * (i.lot * i.multiplier))
    while left > 0 and q.count > 0 and q.side != side:
        e = entry_at(entries + q.head * ENTRY_BYTES)
        if q.entry != 0 and (q.entry != e.order_id or q.leave != ev.order_id or q.long != q.side):
            settle(t, q, i.multiplier)
        if q.entry == 0:
            q.entry = e.order_id
            q.leave = ev.order_id
            q.long = q.side
            q.units = 0.0
            q.bought = 0.0
            q.sold = 0.0
            q.fees = 0.0
        lots = min(left, e.left)
        units = lots * i.lot
        q.units += units
        q.bought += units * e.price
        q.sold += units * ev.price
        q.fees += lots * (e.fee + fee)
        e.left -= lots
        left -= lots
        if e.left == 0:
            q.head = q.head + 1 if q.head + 1 < cap else 0
            q.count -= 1
    if left > 0:
        if q.count >= cap:
            t.status = CROWDED
            return
        at = q.head + q.count
        e = entry_at(entries + (at if at < cap else at - cap) * ENTRY_BYTES)
        e.order_id = ev.order_id
        e.left = left
        e.price = ev.price
        e.fee = fee
        q.side = side
        q.count += 1


@cold
def fold_fills(t: Tally, queues: int, cap: int, k: Kernel, lp: Loop) -> None:
    """The orders and reports that are new in the buffers."""
    t.orders += lp.orders_n - t.orders_seen
    for row in range(t.reports_seen, lp.reports_n):
        ev = event_at(lp.reports + row * ROW)
        if ev.code == codes.FILL:
            book(t, queues, cap, instruments(k, ev.instrument), ev)


@hot
def end_period(t: Tally, equity: float, returns: int, single: int) -> None:
    """A period ends at this equity: its simple return, if another one ended before."""
    if t.marked != 0:
        r = equity / t.mark - 1.0 if t.mark > 0.0 else math.nan
        square = r * r
        if returns != 0:
            keep(returns, single, t.returns, r)
        t.returns += 1
        t.first += r
        t.second += square
        t.third += square * r
        t.fourth += square * square
        if r < 0.0:
            t.down += square
        if r > t.best:
            t.best = r
        if r < t.least:
            t.least = r
    t.marked = 1
    t.mark = equity


class Double(Record):
    """One number of a row of returns."""

    value: F8


double_at = Pointer(Double)


@cold
def keep(returns: int, row: int, n: int, r: float) -> None:
    """A return into the lane's row of the matrix."""
    if n < row:
        double_at(returns + 8 * n).value = r


@hot
def fold_point(t: Tally, c: Curve, end: int, returns: int, row: int) -> None:
    """One point of the curve; `end`: which point ends the period at hand."""
    equity = c.equity
    t.equity += equity
    t.gross += c.gross
    t.exposed += int(c.gross != 0.0)
    if equity >= t.peak:
        if t.falling != 0:
            rise(t, c.ts)
        t.peak = equity
    elif t.falling == 0:
        t.falling = 1
        t.begin = t.last_ts if t.rows != 0 else c.ts
        t.low = equity
    elif equity < t.low:
        t.low = equity
    t.last_ts = c.ts
    if t.rows == end:
        end_period(t, equity, returns, row)
        t.period += 1
    t.rows += 1


@cold
def rise(t: Tally, ts: int) -> None:
    """A fall has ended: the peak is reached again, or the run is over."""
    depth = t.low / t.peak - 1.0
    t.worst = min(t.worst, depth)
    t.fallen += depth
    t.falls += 1
    t.longest = max(t.longest, ts - t.begin)
    t.falling = 0


@hot
def fold_curve(t: Tally, lp: Loop, ends: int, returns: int, row: int) -> None:
    """The points that are new in the buffer; the latest of all waits."""
    count, at = lp.curve_n, lp.curve
    if count == 0:
        return
    if t.waiting != 0:
        fold_point(t, t.point, event_number(ends + 8 * t.period), returns, row)
    end = event_number(ends + 8 * t.period)
    last = at + (count - 1) * POINT
    while at < last:
        before = t.period
        fold_point(t, curve_at(at), end, returns, row)
        if t.period != before:
            end = event_number(ends + 8 * t.period)
        at += POINT
    c = curve_at(last)
    copy_point(t.point, c)
    t.waiting = 1


def copy_point(to: Curve, c: Curve) -> None:
    """Copy a point of the curve."""
    to.ts = c.ts
    to.equity = c.equity
    to.cash = c.cash
    to.gross = c.gross


class Number(Record):
    """One integer of the table of the points that end a period."""

    value: I8


number_at = Pointer(Number)


@hot
def event_number(address: int) -> int:
    """The integer at an address."""
    return number_at(address).value


@cold
def finish(t: Tally, k: Kernel, queues: int, cap: int, ends: int, returns: int, row: int) -> None:
    """The end of a run: what the account is worth then is the last point, and it ends a period."""
    c = t.final
    c.ts = k.ts
    c.equity = k.cash + k.value
    c.cash = k.cash
    c.gross = k.gross
    if t.waiting != 0 and t.point.ts < k.ts:
        fold_point(t, t.point, event_number(ends + 8 * t.period), returns, row)
    t.waiting = 0
    fold_point(t, c, t.rows, returns, row)
    if t.falling != 0:
        rise(t, k.ts)
    for n in range(k.instruments):
        q = queue_at(queues + n * (QUEUE_BYTES + cap * ENTRY_BYTES))
        if q.entry != 0:
            settle(t, q, instruments(k, n).multiplier)
    t.refused = k.refused
    t.halt = k.halt
