"""Events: what can enter the kernel, and how a handler sees each kind.

Law 1: an event is 64 bytes, one cache line: a header of 24 bytes, then a body that is overlaid per kind.
Law 2: the kernel reads the overlay; a handler gets the view of its kind, so that `bar.bid` does not compile.
"""

from typing import Annotated

from engine.kernel.layout import Record
from engine.kernel.primitives import Pointer


class Event(Record):
    """One immutable event; the body (bytes 24 to 63) is overlaid per kind. The kernel reads this overlay.

    `ts` is when it became knowable at the source (a bar carries its close time), `recv` when we received it.
    """

    ts: Annotated[int, "i8", 0]
    recv: Annotated[int, "i8", 8]
    kind: Annotated[int, "u1", 16]
    code: Annotated[int, "u1", 17]
    source: Annotated[int, "u2", 18]
    instrument: Annotated[int, "u4", 20]
    # BAR
    open: Annotated[float, "f8", 24]
    high: Annotated[float, "f8", 32]
    low: Annotated[float, "f8", 40]
    close: Annotated[float, "f8", 48]
    volume: Annotated[float, "f8", 56]
    # QUOTE
    bid: Annotated[float, "f8", 24]
    ask: Annotated[float, "f8", 32]
    bid_volume: Annotated[float, "f8", 40]
    ask_volume: Annotated[float, "f8", 48]
    # TRADE and DEPTH share price, volume (as `traded`), side; `last` closes a group of depth updates
    price: Annotated[float, "f8", 24]
    traded: Annotated[float, "f8", 32]
    side: Annotated[int, "i8", 40]
    last: Annotated[int, "i8", 48]
    # REPORT: price as above; CORRECTION: qty and price
    qty: Annotated[int, "i8", 32]
    order_id: Annotated[int, "i8", 40]
    fee: Annotated[float, "f8", 48]
    exec_id: Annotated[int, "i8", 56]
    # FUNDING rate, SPLIT ratio (new shares for one old), DIVIDEND amount for one unit, COMMAND argument
    amount: Annotated[float, "f8", 24]
    strategy: Annotated[int, "i8", 32]


class Bar(Record):
    """A BAR event as `on_bar` sees it. `ts` is the close of the bar, `volume` in units."""

    ts: Annotated[int, "i8", 0]
    recv: Annotated[int, "i8", 8]
    source: Annotated[int, "u2", 18]
    instrument: Annotated[int, "u4", 20]
    open: Annotated[float, "f8", 24]
    high: Annotated[float, "f8", 32]
    low: Annotated[float, "f8", 40]
    close: Annotated[float, "f8", 48]
    volume: Annotated[float, "f8", 56]


class Quote(Record):
    """A QUOTE event as `on_quote` sees it: top of book, volumes in units."""

    ts: Annotated[int, "i8", 0]
    recv: Annotated[int, "i8", 8]
    source: Annotated[int, "u2", 18]
    instrument: Annotated[int, "u4", 20]
    bid: Annotated[float, "f8", 24]
    ask: Annotated[float, "f8", 32]
    bid_volume: Annotated[float, "f8", 40]
    ask_volume: Annotated[float, "f8", 48]


class Trade(Record):
    """A TRADE event as `on_trade` sees it; `side` is the aggressor's, 1 buy, -1 sell, 0 unknown."""

    ts: Annotated[int, "i8", 0]
    recv: Annotated[int, "i8", 8]
    source: Annotated[int, "u2", 18]
    instrument: Annotated[int, "u4", 20]
    price: Annotated[float, "f8", 24]
    volume: Annotated[float, "f8", 32]
    side: Annotated[int, "i8", 40]


class Depth(Record):
    """The DEPTH event that closes a group as `on_depth` sees it: what it tells of one level; the book is whole.

    `side` is 1 for a bid, -1 for an ask, `volume` the whole volume at `price` from now on, 0 when it is gone; `code`
    is UPDATE or SNAPSHOT. The levels of the book are in `ctx`.
    """

    ts: Annotated[int, "i8", 0]
    recv: Annotated[int, "i8", 8]
    code: Annotated[int, "u1", 17]
    source: Annotated[int, "u2", 18]
    instrument: Annotated[int, "u4", 20]
    price: Annotated[float, "f8", 24]
    volume: Annotated[float, "f8", 32]
    side: Annotated[int, "i8", 40]


class Report(Record):
    """A REPORT event as `on_report` sees it: `code` is the kind of report, `qty` signed lots."""

    ts: Annotated[int, "i8", 0]
    recv: Annotated[int, "i8", 8]
    code: Annotated[int, "u1", 17]
    instrument: Annotated[int, "u4", 20]
    price: Annotated[float, "f8", 24]
    qty: Annotated[int, "i8", 32]
    order_id: Annotated[int, "i8", 40]
    fee: Annotated[float, "f8", 48]
    exec_id: Annotated[int, "i8", 56]


class Slice(Record):
    """The end of a timestamp, as `on_slice` of a universe strategy sees it."""

    ts: Annotated[int, "i8", 0]
    recv: Annotated[int, "i8", 8]


class Timer(Record):
    """A TIMER event as `on_timer` sees it."""

    ts: Annotated[int, "i8", 0]
    recv: Annotated[int, "i8", 8]
    code: Annotated[int, "u1", 17]


event_at = Pointer(Event)
