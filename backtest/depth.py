"""The venue's own books: depth as the tape tells it, less what our own orders took of it.

The best level is the touch, unless a younger quote tells that. What our orders took of a level stays taken until the
tape tells the level anew. A GAP, or a row that makes no sense, empties the book until the next snapshot: nothing is
shown then, nobody is filled, and whoever rests keeps his place.
"""

import math

from backtest.queues import SAME, has_book, told
from backtest.records import (
    Venue,
    VenueBook,
    VenueOrder,
    venue_books,
    venue_depth,
    venue_halves,
    venue_instruments,
    venue_markets,
    venue_orders,
)
from engine.kernel import codes
from engine.kernel.books import close_group, key_of, lose, price_of, update
from engine.kernel.events import Event
from engine.kernel.levels import NONE, below, best_volume, put, volume_at
from engine.kernel.primitives import cold

DUST = 1e-9  # of a lot: what a subtraction leaves of a level that was taken whole


def lots_of(v: Venue, instrument: int, volume: float) -> int:
    """Whole lots in a volume of the market."""
    lots = volume / venue_instruments(v, instrument).lot + 1e-9
    if not lots > 0.0:
        return 0
    return math.floor(lots) if lots < 4e15 else 1 << 52


def touch(b: VenueBook, side: int) -> float:
    """The best price of the other side, 0 when there is none."""
    return b.ask if side > 0 else b.bid


def absorb_depth(v: Venue, ev: Event) -> bool:
    """One change of a book; whether it ends a group, or the book."""
    d = venue_depth(v, ev.instrument)
    bids, asks = venue_halves(v, d.first), venue_halves(v, d.first + 1)
    if ev.kind == codes.GAP:
        lose_book(v, ev.instrument)
        return True
    update(d, bids, asks, ev)
    if ev.last == 0:
        return False
    close_group(d, bids, asks, ev.ts)
    return True


def lose_book(v: Venue, i: int) -> None:
    """Nothing is known of the book of an instrument any more; what it showed is gone."""
    d = venue_depth(v, i)
    lose(d, venue_halves(v, d.first), venue_halves(v, d.first + 1))
    d.fresh = 0


@cold
def lose_all(v: Venue) -> None:
    """A gap in all that is told: no book is left."""
    for i in range(v.instruments):
        if has_book(v, i):
            lose_book(v, i)
            show_best(v, i)


def outdated(v: Venue, ev: Event) -> bool:
    """Whether the book of the instrument is younger than this quote."""
    d = venue_depth(v, ev.instrument)
    d.quoted = max(d.quoted, ev.ts)
    return ev.ts < d.ts


def show_best(v: Venue, i: int) -> None:
    """The book is whole: its levels tell the resting orders their places, its best ones are the touch."""
    d, b = venue_depth(v, i), venue_books(v, i)
    bids, asks = venue_halves(v, d.first), venue_halves(v, d.first + 1)
    row = venue_markets(v, i).head
    while row >= 0 and not d.stale:
        o = venue_orders(v, row)
        retell(v, o)
        row = o.next
    if d.ts >= d.quoted:
        b.bid = price_of(d, bids.best)
        b.ask = price_of(d, asks.best)
        b.bid_volume = best_volume(bids)
        b.ask_volume = best_volume(asks)


def retell(v: Venue, o: VenueOrder) -> None:
    """The level of a resting order, when it has changed."""
    d, b = venue_depth(v, o.instrument), venue_books(v, o.instrument)
    best, h = b.bid if o.side > 0 else b.ask, venue_halves(v, d.first + (0 if o.side > 0 else 1))
    key = key_of(d, o.price) * o.side
    if key == 0 or key < h.horizon or (d.ts < d.quoted and key == key_of(d, best) * o.side):
        return  # of the touch the younger quote knows more
    volume = volume_at(h, key)
    if volume != o.shown:
        told(v, o, volume)


def consume(v: Venue, i: int, side: int, took: float) -> None:
    """Our order of that side took some volume at the touch; when a book has no more there, the touch moves on."""
    b = venue_books(v, i)
    if side > 0:
        b.ask_volume -= took
    else:
        b.bid_volume -= took
    if took <= 0.0 or not has_book(v, i):
        return
    d, dust = venue_depth(v, i), DUST * venue_instruments(v, i).lot
    h, key = venue_halves(v, d.first + (1 if side > 0 else 0)), key_of(d, touch(b, side)) * -side
    known = volume_at(h, key) if key != 0 else 0.0
    if known > 0.0:
        put(h, key, known - took if known - took > dust else 0.0)
    if (b.ask_volume if side > 0 else b.bid_volume) <= dust:
        deeper(v, i, side)


def deeper(v: Venue, i: int, side: int) -> bool:
    """An order of that side wants more than the touch had: the next level is the touch. False when there is none."""
    if not has_book(v, i):
        return False
    d, b = venue_depth(v, i), venue_books(v, i)
    h, key = venue_halves(v, d.first + (1 if side > 0 else 0)), key_of(d, touch(b, side)) * -side
    key = below(h, key) if key != 0 else NONE
    if key < h.horizon or key == NONE:
        return False
    if side > 0:
        b.ask = price_of(d, key)
        b.ask_volume = volume_at(h, key)
    else:
        b.bid = price_of(d, key)
        b.bid_volume = volume_at(h, key)
    return True


def enough(v: Venue, o: VenueOrder) -> bool:
    """Whether the levels of the book that an order accepts hold all of it."""
    i, b, d = o.instrument, venue_books(v, o.instrument), venue_depth(v, o.instrument)
    h, wanted = venue_halves(v, d.first + (1 if o.side > 0 else 0)), o.left
    if o.mask & codes.REDUCE_ONLY:
        wanted = min(wanted, -venue_markets(v, i).net * o.side)
    price, key = touch(b, o.side), key_of(d, touch(b, o.side)) * -o.side
    wanted -= lots_of(v, i, b.ask_volume if o.side > 0 else b.bid_volume)
    while wanted > 0 and key != 0 and key != NONE:
        key = below(h, key)
        price = price_of(d, key)
        if key < h.horizon or (o.type != codes.MARKET and (o.price - price) * o.side < -SAME * price):
            break
        wanted -= lots_of(v, i, volume_at(h, key))
    return wanted <= 0
