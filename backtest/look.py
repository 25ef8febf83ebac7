"""What a tape of quotes and trades showed at given moments: one compiled pass after the run, beside its hot path.

Law 1: marks follow the rule of the kernel: the middle of a quote with two sides; without one, the last trade. Books
       are the kernel's own, and the younger of quote and book is the quote.
Law 2: a moment is answered before the first event beyond it, just as the venue sees its tape. One nanosecond before a
       fill is therefore the book that its cause met.
"""

import ctypes
import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from backtest.drive import told_depth
from backtest.metrics import Floats, Ints
from engine.kernel import books, build, codes, image
from engine.kernel.books import Book, close_group, key_of, lose, price_of, update
from engine.kernel.events import Event, event_at
from engine.kernel.layout import F8, I8, Record
from engine.kernel.levels import Half, best_volume, volume_at
from engine.kernel.primitives import Pointer, address_of

SAME = 1e-9  # relative: prices nearer to each other are one price
VENUE, KERNEL = 0, 8  # clocks: place in an event of the time at which the venue, or the kernel, sees it


class Moment(Record):
    """A question, `ts` to `price` (`side` 0: no order), and its answer; `ahead` is nan where nothing is shown."""

    ts: I8
    instrument: I8
    side: I8
    price: F8
    bid: F8
    ask: F8
    mark: F8
    ahead: F8  # volume that an order of `side` at `price` would join behind, units


class Top(Record):
    """The top of the book of one instrument, its first and latest mark, and where its strokes are (0: not drawn)."""

    bid: F8
    ask: F8
    bid_volume: F8
    ask_volume: F8
    mark: F8
    first: F8
    strokes: I8
    book: I8  # address of its book and of that book's two halves; 0: the tape tells no depth
    halves: I8


class Stroke(Record):
    """Lowest and highest mark of one stretch of time, and when they were; `seen` counts its marks."""

    low: F8
    high: F8
    low_ts: I8
    high_ts: I8
    seen: I8


class Look(Record):
    """What the loop is given: addresses, sizes, the clock, and how time is cut into strokes."""

    events: I8
    length: I8
    instruments: I8
    tops: I8
    moments: I8
    count: I8
    clock: I8
    shift: I8
    begin: I8
    width: I8
    strokes: I8
    done: I8  # moments answered


class Number(Record):
    """One integer of an event."""

    value: I8


look_at, moment_at, top_at, stroke_at = Pointer(Look), Pointer(Moment), Pointer(Top), Pointer(Stroke)
number_at, book_at, half_at = Pointer(Number), Pointer(Book), Pointer(Half)
EVENT_BYTES, MOMENT_BYTES, TOP_BYTES, STROKE_BYTES, HALF_BYTES = (
    record.dtype.itemsize for record in (Event, Moment, Top, Stroke, Half)
)


def answer(m: Moment, t: Top) -> None:
    """What is known at the moment. Behind the touch only a book shows anything, better than it nobody stands."""
    m.bid = t.bid
    m.ask = t.ask
    m.mark = t.mark
    m.ahead = math.nan
    if m.side != 0:
        best = t.bid if m.side > 0 else t.ask
        if best > 0.0 and abs(m.price - best) <= SAME * m.price:
            m.ahead = t.bid_volume if m.side > 0 else t.ask_volume
        elif best <= 0.0 or (m.price - best) * m.side > 0.0:
            m.ahead = 0.0
        elif t.book != 0:
            b, h = book_at(t.book), half_at(t.halves + (0 if m.side > 0 else HALF_BYTES))
            key = key_of(b, m.price) * m.side
            if key != 0 and b.stale == 0 and key >= h.horizon:
                m.ahead = volume_at(h, key)


def remark(job: Look, t: Top, price: float, now: int) -> None:
    """A new mark."""
    t.mark = price
    if t.first == 0.0:
        t.first = price
    if t.strokes != 0:
        s = stroke_at(t.strokes + min((now - job.begin) // job.width, job.strokes - 1) * STROKE_BYTES)
        if s.seen == 0 or price < s.low:
            s.low = price
            s.low_ts = now
        if s.seen == 0 or price > s.high:
            s.high = price
            s.high_ts = now
        s.seen += 1


def meet_depth(job: Look, t: Top, ev: Event, now: int) -> None:
    """A change of a book, or a gap; what is whole is shown, unless a younger quote is known."""
    b, bids, asks = book_at(t.book), half_at(t.halves), half_at(t.halves + HALF_BYTES)
    if ev.kind == codes.GAP:
        lose(b, bids, asks)
        b.fresh = 0
    else:
        update(b, bids, asks, ev)
        if ev.last == 0:
            return
        close_group(b, bids, asks, ev.ts)
    if b.ts >= b.quoted:
        t.bid = price_of(b, bids.best)
        t.ask = price_of(b, asks.best)
        t.bid_volume = best_volume(bids)
        t.ask_volume = best_volume(asks)
        if t.bid > 0.0 and t.ask > 0.0:
            remark(job, t, 0.5 * (t.bid + t.ask), now)


def outdated(t: Top, ev: Event) -> bool:
    """Whether the book of the instrument is younger than this quote."""
    b = book_at(t.book)
    b.quoted = max(b.quoted, ev.ts)
    return ev.ts < b.ts


def meet(job: Look, ev: Event, now: int) -> None:
    """One event of the tape."""
    if ev.instrument >= job.instruments:
        if ev.kind == codes.GAP:  # of all instruments
            for i in range(job.instruments):
                t = top_at(job.tops + i * TOP_BYTES)
                if t.book != 0:
                    meet_depth(job, t, ev, now)
        return
    t = top_at(job.tops + ev.instrument * TOP_BYTES)
    if ev.kind == codes.QUOTE:
        if t.book != 0 and outdated(t, ev):
            return
        t.bid = ev.bid
        t.ask = ev.ask
        t.bid_volume = ev.bid_volume
        t.ask_volume = ev.ask_volume
        if ev.bid > 0.0 and ev.ask > 0.0:
            remark(job, t, 0.5 * (ev.bid + ev.ask), now)
    elif t.book != 0 and (ev.kind == codes.DEPTH or ev.kind == codes.GAP):
        meet_depth(job, t, ev, now)
    elif ev.kind == codes.BAR:
        remark(job, t, ev.close, now)
    elif ev.kind == codes.TRADE and not (t.bid > 0.0 and t.ask > 0.0):
        remark(job, t, ev.price, now)
    elif ev.kind == codes.SPLIT:
        t.mark /= ev.amount


def run(address: int) -> None:
    """All events, and each moment before the first event beyond it."""
    job = look_at(address)
    at, end = job.events, job.events + job.length * EVENT_BYTES
    while at < end:
        ev = event_at(at)
        now = number_at(address_of(ev) + job.clock).value + job.shift
        while job.done < job.count:
            m = moment_at(job.moments + job.done * MOMENT_BYTES)
            if now <= m.ts:
                break
            answer(m, top_at(job.tops + m.instrument * TOP_BYTES))
            job.done += 1
        meet(job, ev, now)
        at += EVENT_BYTES
    while job.done < job.count:
        m = moment_at(job.moments + job.done * MOMENT_BYTES)
        answer(m, top_at(job.tops + m.instrument * TOP_BYTES))
        job.done += 1


def look_image() -> image.Image:
    """The image of the pass, compiled if it is not in the store."""
    return build.loop("look", run, Look)


@cache
def compiled() -> Callable[[int], None]:
    """The machine code of the pass."""
    return ctypes.CFUNCTYPE(None, ctypes.c_int64)(look_image().addresses["run"])


class Looked(NamedTuple):
    """`moments`: the questions, answered, in the order they were given; `first`, `last`: marks of each instrument
    (nan: never any); `lines`: times and marks to draw, for each instrument that was asked for."""

    moments: Any
    first: Floats
    last: Floats
    lines: dict[int, tuple[Ints, Floats]]


def questions(ts: Any, instrument: Any, side: Any = 0, price: Any = 0.0) -> Any:
    """Moments to ask about; columns of one length, or one value for all."""
    rows: Any = np.zeros(len(ts), Moment.dtype)
    rows["ts"], rows["instrument"], rows["side"], rows["price"] = ts, instrument, side, price
    return rows


def look(
    events: Any,
    ticks: Any,
    asked: Any,
    *,
    clock: int = VENUE,
    shift: int = 0,
    until: int | None = None,
    drawn: tuple[int, ...] = (),
    points: int = 4_000,
    function: Callable[[int], None] | None = None,
) -> Looked:
    """Answer `asked` (see `questions`) from a tape on one of its two clocks. `ticks`: of each instrument.

    `shift`: ns that events are late by; `until`: last time that counts; `drawn`: instruments to make lines of, with
    about `points` points each; `function`: the pass, compiled unless given.
    """
    length = len(events)
    times = events["recv"] if clock == KERNEL else events["ts"]
    if until is not None:  # only the kernel's clock never goes back
        length = int(np.searchsorted(times, until - shift, "right"))
    order = np.argsort(asked["ts"], kind="stable")
    instruments, depth = len(ticks), told_depth(events)
    moments, tops = asked[order], np.zeros(max(1, instruments), Top.dtype)
    headers, halves = np.zeros(instruments, Book.dtype), np.zeros(2 * len(depth), Half.dtype)
    books.begin_all(headers, halves, ticks, depth)
    for row, index in enumerate(depth):
        tops["book"][index] = headers[index:].ctypes.data
        tops["halves"][index] = halves[2 * row :].ctypes.data
    tops["mark"] = math.nan
    job, begin = Look.new(), int(times[0]) + shift if length else 0
    span = int(times[:length].max()) + shift - begin + 1 if drawn and length else 1
    strokes = np.zeros((max(1, len(drawn)), max(1, points // 2)), Stroke.dtype)
    for row, index in enumerate(drawn):
        tops["strokes"][index] = strokes[row].ctypes.data
    job.events, job.length, job.instruments = events.ctypes.data, length, instruments
    job.tops, job.moments, job.count = tops.ctypes.data, moments.ctypes.data, len(moments)
    job.clock, job.shift, job.begin = clock, shift, begin
    job.strokes, job.width = strokes.shape[1], -(-span // strokes.shape[1])
    (function or compiled())(job._address)
    assert job.done == job.count, "the compiled pass was cut short"
    answered = np.empty_like(asked)
    answered[order] = moments
    first = np.where(tops["first"] == 0.0, math.nan, tops["first"])
    lines = {index: _line(strokes[row]) for row, index in enumerate(drawn)}
    return Looked(answered, first[:instruments], tops["mark"][:instruments].copy(), lines)


def _line(strokes: Any) -> tuple[Ints, Floats]:
    """Lows and highs in the order of time."""
    seen = strokes[strokes["seen"] > 0]
    ts = np.stack((seen["low_ts"], seen["high_ts"]), axis=1)
    marks = np.stack((seen["low"], seen["high"]), axis=1)
    turned = ts[:, 0] > ts[:, 1]
    ts[turned], marks[turned] = ts[turned, ::-1], marks[turned, ::-1]
    keep = np.append(True, np.diff(ts.ravel()) > 0) if len(seen) else np.zeros(0, bool)
    return ts.ravel()[keep], marks.ravel()[keep]
