"""The compiled part of a sweep: many lanes over one tape, a tile of it at a time, so that the tile stays in the cache.

Law 1: a lane is driven by the very machine code that drives a single run, through its address; so lane i equals single
       run i byte for byte. What is new here, feeding it the tape in tiles, is law 2. Where each moment is one bar of
       the only instrument there is a shorter way, made of the same functions: `lane_walk`.
Law 2: buffers and the tables that are empty between two timestamps belong to the block of lanes, not to a lane.
"""

from backtest.lane_walk import walk
from backtest.records import Loop, loop_at
from backtest.tally import HALTED, LOST, ROW, Tally, finish, fold_curve, fold_fills, tally_at
from engine.kernel import codes
from engine.kernel.layout import I8, Record
from engine.kernel.primitives import Pointer, address_of, cold, invoke
from engine.kernel.records import Kernel, copy_line, kernel_at, outbox, refusals


class Block(Record):
    """What `run_lanes` is given: lanes side by side, one `stride` after the other, and what they share."""

    run: I8  # address of the driver
    memory: I8
    stride: I8
    lanes: I8
    kernel_at: I8  # places in a lane
    loop_at: I8
    tally_at: I8
    queues_at: I8
    store_at: I8
    queue_cap: I8  # entries of a queue, rows of a lane's store
    store_cap: I8
    length: I8  # events of the tape
    begin: I8  # where trading and counting begin
    tile: I8
    ticks: I8
    single: I8  # 1 = each moment of the tape is one bar of the only instrument: `lane_walk`
    ends: I8  # points of the curve that end a period, a last one beyond all
    returns: I8  # where the returns of the first lane go, 0 = nowhere
    returns_row: I8  # how many there is room for
    cancel: I8  # set from outside: stop soon
    done: I8  # events of lanes so far


block_at = Pointer(Block)


@cold
def restore(b: Block, here: int, t: Tally, lp: Loop, k: Kernel) -> None:
    """Rows under way at the end of the last tile come back to where they were."""
    at = here + b.store_at
    for n in range(t.kept_outbox):
        copy_line(address_of(outbox(k, n)), at)
        at += ROW
    for n in range(t.kept_refusals):
        copy_line(address_of(refusals(k, n)), at)
        at += ROW
    for n in range(t.kept_orders):
        copy_line(lp.orders + n * ROW, at)
        at += ROW
    for n in range(t.kept_reports):
        copy_line(lp.reports + n * ROW, at)
        at += ROW


@cold
def store(b: Block, here: int, t: Tally, lp: Loop, k: Kernel) -> None:
    """Rows under way at the end of a tile are put by, because the buffers are the next lane's now."""
    t.kept_outbox, t.kept_refusals = k.orders_out, k.refusals_out
    t.kept_orders, t.kept_reports = lp.orders_n, lp.reports_n
    if t.kept_outbox + t.kept_refusals + t.kept_orders + t.kept_reports > b.store_cap:
        t.status = LOST
        return
    at = here + b.store_at
    for n in range(t.kept_outbox):
        copy_line(at, address_of(outbox(k, n)))
        at += ROW
    for n in range(t.kept_refusals):
        copy_line(at, address_of(refusals(k, n)))
        at += ROW
    for n in range(t.kept_orders):
        copy_line(at, lp.orders + n * ROW)
        at += ROW
    for n in range(t.kept_reports):
        copy_line(at, lp.reports + n * ROW)
        at += ROW


def compact(b: Block, t: Tally, lp: Loop) -> None:
    """Drop what has been counted; what is under way moves to the begin of its buffer."""
    orders, reports = 0, 0
    if b.ticks:
        orders, reports = lp.orders_n - lp.arrived, lp.reports_n - lp.taken
        for n in range(orders):
            copy_line(lp.orders + n * ROW, lp.orders + (lp.arrived + n) * ROW)
        for n in range(reports):
            copy_line(lp.reports + n * ROW, lp.reports + (lp.taken + n) * ROW)
    lp.orders_n = orders
    lp.reports_n = reports
    lp.arrived = 0
    lp.taken = 0
    lp.refusals_n = 0
    lp.curve_n = 0
    t.orders_seen = orders
    t.reports_seen = reports


def advance(b: Block, here: int, t: Tally, until: int, returns: int) -> None:
    """One lane through one tile."""
    lp, k = loop_at(here + b.loop_at), kernel_at(here + b.kernel_at)
    if t.kept_outbox + t.kept_refusals + t.kept_orders + t.kept_reports != 0:
        restore(b, here, t, lp, k)
    warming = until <= b.begin
    lp.stop = until
    lp.length = b.length if b.ticks and until == b.begin else until
    lp.final = int(until == b.length or until == b.begin)
    lp.closing = int(until == b.length)
    k.trading = codes.OBSERVATION if warming else codes.LIVE
    if b.single and t.kept_outbox + k.orders_out + k.refusals_out == 0 and k.slices == 0:
        walk(lp, t, until, not warming, here + b.queues_at, b.queue_cap, b.ends, returns, b.returns_row, b.length)
        settled(b, here, t, lp, k)
        return
    while True:
        invoke(b.run, address_of(lp), 0, 0)
        if not warming:
            if lp.orders_n != t.orders_seen or lp.reports_n != t.reports_seen:
                fold_fills(t, here + b.queues_at, b.queue_cap, k, lp)
            fold_curve(t, lp, b.ends, returns, b.returns_row)
        compact(b, t, lp)
        if lp.status != codes.DRAIN or lp.dropped != 0:
            break
    settled(b, here, t, lp, k)


def settled(b: Block, here: int, t: Tally, lp: Loop, k: Kernel) -> None:
    """The end of a tile: how the lane stands, and what of it is under way."""
    if lp.dropped != 0:
        t.status = LOST
    elif t.status == 0:
        t.status = lp.status
    if k.orders_out + k.refusals_out + lp.orders_n + lp.reports_n + t.kept_outbox + t.kept_refusals != 0 or b.ticks:
        store(b, here, t, lp, k)


def run_lanes(address: int) -> None:
    """All lanes of a block over the whole tape; a lane that faults or halts goes no further."""
    b = block_at(address)
    until = 0
    while until < b.length and b.cancel == 0:
        start = until
        until = min(until + b.tile, b.length)
        if start < b.begin:
            until = min(until, b.begin)
        for lane in range(b.lanes):
            here = b.memory + lane * b.stride
            t = tally_at(here + b.tally_at)
            if t.status == 0:
                returns = b.returns + lane * b.returns_row * 8 if b.returns else 0
                advance(b, here, t, until, returns)
        b.done += (until - start) * b.lanes
    for lane in range(b.lanes):
        here = b.memory + lane * b.stride
        t, k = tally_at(here + b.tally_at), kernel_at(here + b.kernel_at)
        if t.status == 0 or t.status == HALTED:
            returns = b.returns + lane * b.returns_row * 8 if b.returns else 0
            finish(t, k, here + b.queues_at, b.queue_cap, b.ends, returns, b.returns_row)
