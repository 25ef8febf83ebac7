"""The compiled half of a session: one kernel driven over the events of a drain, its orders and refusals collected.

Law: the same `step` as in `backtest.loop`; law 6 welds the two drivers together.
"""

import ctypes
from collections.abc import Callable

from engine.journal.scan import scan_blocks
from engine.kernel import build, codes
from engine.kernel.events import Event, event_at
from engine.kernel.layout import I8, Record
from engine.kernel.primitives import Pointer, address_of, cold, hot, prefetch
from engine.kernel.records import Kernel, copy_line, kernel_at, outbox, refusals
from engine.kernel.signals import Ctx
from engine.kernel.step import NEVER, close_slice, plain_at, start, step, step_tick

ROW = 64  # bytes of an event, an order, a refusal
AHEAD = 32 * ROW  # between a prefetch and its use


class Pace(Record):
    """What a session remembers between two drains, beside the kernel: part of every snapshot."""

    started: I8
    opened: I8  # a moment is under way
    moment: I8  # the latest one's recv
    last: Event  # its latest event


class SessionLoop(Record):
    """What `run_session` is given: where everything is, how far it has come, and why it returned."""

    kernel: I8  # addresses
    ctx: I8
    tape: I8
    orders: I8
    refusals: I8
    index: I8  # next event
    length: I8
    closing: I8  # 1 = the moment at the end is over
    orders_n: I8
    orders_cap: I8
    refusals_n: I8
    refusals_cap: I8
    status: I8
    pace: Pace


session_at = Pointer(SessionLoop)
ctx_at = Pointer(Ctx)


@cold
def collect(s: SessionLoop, k: Kernel) -> None:
    """Orders and refusals into the buffers; a halt ends the drive."""
    for i in range(k.orders_out):
        copy_line(s.orders + s.orders_n * ROW, address_of(outbox(k, i)))
        s.orders_n += 1
    for i in range(k.refusals_out):
        copy_line(s.refusals + s.refusals_n * ROW, address_of(refusals(k, i)))
        s.refusals_n += 1
    k.orders_out = 0
    k.refusals_out = 0
    k.attention = 0
    if k.halt != codes.RUNNING:
        s.status = codes.HALTED


@hot
def room(s: SessionLoop, k: Kernel) -> bool:
    """Whether the buffers hold what one event can produce at most."""
    return s.orders_n + k.outbox_cap <= s.orders_cap and s.refusals_n + k.refusal_cap <= s.refusals_cap


def over(s: SessionLoop, k: Kernel, ctx: Ctx, last: int) -> None:
    """The moment is over; `last` is where its latest event lies."""
    s.pace.opened = 0
    close_slice(k, ctx, event_at(last))
    if k.attention:
        collect(s, k)


def run_session(address: int) -> None:
    """Drive the events from `index` on, until their end, a full buffer or a halt. `status` says which."""
    s = session_at(address)
    k = kernel_at(s.kernel)
    ctx = ctx_at(s.ctx)
    p = s.pace
    s.status = codes.HALTED if k.halt != codes.RUNNING else 0
    tape, at, end, last, plain = s.tape, s.index * ROW, s.length * ROW, address_of(p.last), NEVER
    while s.status == 0 and (at < end or (p.opened and s.closing)):
        if not room(s, k):
            s.status = codes.DRAIN
        elif p.opened and (at >= end or event_at(tape + at).recv > p.moment or event_at(tape + at).kind == codes.SLICE):
            over(s, k, ctx, last)
        else:
            ev = event_at(tape + at)
            prefetch(tape + at + AHEAD)
            kind = ev.kind
            if kind != codes.REPORT and kind != codes.COMMAND and kind != codes.CORRECTION and kind != codes.SLICE:
                last = tape + at
                p.moment = ev.recv
                p.opened = 1
                if not p.started:
                    p.started = 1
                    start(k, ctx, ev)
            if ev.recv != plain:
                plain = plain_at(k, ctx, ev.recv)
            if ev.recv == plain != NEVER and codes.QUOTE <= kind <= codes.DEPTH and ev.instrument < k.instruments:
                if step_tick(k, ctx, ev):
                    plain = NEVER
            elif kind != codes.SLICE:
                step(k, ctx, ev)
                plain = NEVER
            at += ROW
            if k.attention:
                collect(s, k)
    if last != address_of(p.last):
        copy_line(address_of(p.last), last)
    s.index = at // ROW


Program = tuple[str, dict[str, Callable[[int], None]]]
PROGRAM: Program = ("session", {"run": run_session})  # its digest is the kernel's identity in a journal
READER: Program = ("reader", {"run": scan_blocks})  # apart: another way to read a journal is no other kernel


def program(compiled: bool = True, which: Program = PROGRAM) -> Callable[[int], None]:
    """The compiled driver (or what reads a journal, READER), or the same in plain Python."""
    if not compiled:
        return which[1]["run"]
    return ctypes.CFUNCTYPE(None, ctypes.c_int64)(build.program(*which).addresses["run"])
