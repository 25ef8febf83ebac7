"""Step 1 of market data: the quote and the mark of an instrument, its book, and what a gap takes from both.

Law: where quotes and depth are both told, the younger of quote and book is the quote that strategies see.
"""

from engine.kernel import codes
from engine.kernel.books import Book, books, close_group, halves, lose, price_of, update
from engine.kernel.events import Event
from engine.kernel.levels import Half, best_volume
from engine.kernel.positions import apply_mark
from engine.kernel.primitives import cold, hot
from engine.kernel.records import Kernel, Market, markets

LOST = -(1 << 62)  # of Market.ts: longer ago than any limit on stale prices allows


def absorb_gap(k: Kernel, instrument: int) -> None:
    """Events of an instrument were lost (of all, when there is no such): its market is stale until the next one.

    Its book is lost until the next snapshot, and with it the quote that the book told.
    """
    for i in range(k.instruments):
        if i == instrument or instrument >= k.instruments:
            m = markets(k, i)
            if k.books_at != 0 and books(k, i).first >= 0:
                b = books(k, i)
                bids, asks = halves(k, b.first), halves(k, b.first + 1)
                lose(b, bids, asks)
                b.fresh = 0
                if b.ts >= b.quoted:
                    show(k, m, b, bids, asks)
            m.ts = LOST


@hot
def absorb_tick(k: Kernel, m: Market, ev: Event, kind: int) -> None:
    """The top of the book, or a trade. The mark is the middle of the quote; without one, the last trade."""
    if kind == codes.QUOTE:
        if k.books_at != 0 and outdated(k, ev):
            return
        bid, ask, bid_volume, ask_volume = ev.bid, ev.ask, ev.bid_volume, ev.ask_volume
        m.bid = bid
        m.ask = ask
        m.bid_volume = bid_volume
        m.ask_volume = ask_volume
        if bid > 0.0 and ask > 0.0:
            apply_mark(k, m, k.ts, 0.5 * (bid + ask))
    elif m.bid > 0.0 and m.ask > 0.0:
        m.ts = k.ts
    else:
        apply_mark(k, m, k.ts, ev.price)


@cold
def outdated(k: Kernel, ev: Event) -> bool:
    """Whether the book of the instrument is younger than this quote."""
    b = books(k, ev.instrument)
    b.quoted = max(b.quoted, ev.ts)
    return ev.ts < b.ts


def absorb_depth(k: Kernel, m: Market, ev: Event) -> None:
    """One change of a book; at the end of a group its best levels are the quote, unless a younger one is known."""
    if k.books_at == 0 or books(k, ev.instrument).first < 0:
        return
    b = books(k, ev.instrument)
    bids, asks = halves(k, b.first), halves(k, b.first + 1)
    update(b, bids, asks, ev)
    if ev.last != 0:
        close_group(b, bids, asks, ev.ts)
        if b.ts >= b.quoted:
            show(k, m, b, bids, asks)


def show(k: Kernel, m: Market, b: Book, bids: Half, asks: Half) -> None:
    """The best levels of a book are the quote."""
    m.bid = price_of(b, bids.best)
    m.ask = price_of(b, asks.best)
    m.bid_volume = best_volume(bids)
    m.ask_volume = best_volume(asks)
    if m.bid > 0.0 and m.ask > 0.0:
        apply_mark(k, m, k.ts, 0.5 * (m.bid + m.ask))
