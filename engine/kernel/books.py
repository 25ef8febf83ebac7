"""The order book of one instrument: the absolute volume at each price, as the DEPTH events tell it.

Law 1: a book that may be wrong is empty and stale until the next snapshot: after a GAP, after a row that makes no sense
       (a price off the tick, a volume below zero, no side), or when a side has run out down to its horizon.
Law 2: a group of events changes the book row by row; it is whole, and shown, at the last of them.
"""

import math
from collections.abc import Sequence
from typing import Any

from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.layout import F8, I8, Record
from engine.kernel.levels import NONE, Half, clear, put
from engine.kernel.primitives import Table, cold, hot
from engine.kernel.records import Kernel

LARGEST = 1e12  # ticks in a price, less than 1 << 40
GRID = 1e-6  # of a tick: how far from the grid a price may lie


class Book(Record):
    """Header of a book; its bids are row `first` of the halves, its asks the row behind."""

    ts: I8  # of the last group
    quoted: I8  # time of the last QUOTE: the younger of quote and book tells the touch
    first: I8  # -1: the instrument has no book
    scale: F8  # ticks in a price of 1
    per_one: F8  # the same when it is whole, else 0
    tick: F8
    fresh: I8  # 1 = a snapshot is under way and has cleared the book
    stale: I8  # 1 = lost until the next snapshot
    groups: I8
    crossed: I8  # groups after which the best bid was above the best ask
    locked: I8  # or equal to it
    wrong: I8  # rows that made no sense
    lost: I8  # how often the book was lost
    skipped: I8  # rows that found no book to change


books = Table(Kernel, "books_at", Book)
halves = Table(Kernel, "halves_at", Half)


def begin_all(headers: Any, sides: Any, ticks: Any, depth: Sequence[int]) -> None:
    """Empty books in arrays of Book, for each instrument, and of Half, two for each instrument in `depth`."""
    headers["first"], headers["ts"], headers["quoted"] = -1, NONE, NONE
    for row, i in enumerate(depth):
        headers["first"][i] = 2 * row
        begin(Book.view(headers, i), Half.view(sides, 2 * row), Half.view(sides, 2 * row + 1), float(ticks[i]))


def begin(b: Book, bids: Half, asks: Half, tick: float) -> None:
    """An empty book."""
    b.tick = tick
    b.scale = 1.0 / tick
    per_one = int(1.0 / tick + 0.5)
    if abs(per_one * tick - 1.0) < 1e-12:  # a tick that divides one is divided by, as in wishes.to_tick
        b.scale = b.per_one = float(per_one)
    b.ts = b.quoted = NONE
    for h in (bids, asks):
        h.best = h.horizon = NONE


@hot
def key_of(b: Book, price: float) -> int:
    """The price in ticks, 0 when it is on no tick."""
    steps = price * b.scale
    if not 0.5 <= steps < LARGEST:
        return 0
    key = int(steps + 0.5)
    return key if abs(steps - key) <= GRID else 0


def price_of(b: Book, key: int) -> float:
    """The price of a level as a file would tell it, 0 for none."""
    if key == NONE:
        return 0.0
    return abs(key) / b.per_one if b.per_one > 0.0 else abs(key) * b.tick


@hot
def update(b: Book, bids: Half, asks: Half, ev: Event) -> None:
    """One DEPTH event. The first snapshot row of a group clears the book."""
    if ev.code == codes.SNAPSHOT and b.fresh == 0:
        clear(bids)
        clear(asks)
        b.stale = 0
        b.fresh = 1
    if b.stale:
        b.skipped += 1
        return
    key, volume, side = key_of(b, ev.price), ev.traded, ev.side
    if key == 0 or not 0.0 <= volume < math.inf or side * side != 1:
        b.wrong += 1
        lose(b, bids, asks)
        return
    put(bids if side > 0 else asks, key * side, volume)


def close_group(b: Book, bids: Half, asks: Half, ts: int) -> None:
    """The end of a group of DEPTH events: the book is whole."""
    b.ts = ts
    b.fresh = 0
    b.groups += 1
    if bids.best < bids.horizon or asks.best < asks.horizon:
        lose(b, bids, asks)
    elif bids.best + asks.best >= 0:
        if bids.best + asks.best > 0:
            b.crossed += 1
        else:
            b.locked += 1


@cold
def lose(b: Book, bids: Half, asks: Half) -> None:
    """Nothing is known of the book any more."""
    clear(bids)
    clear(asks)
    if not b.stale:
        b.lost += 1
    b.stale = 1
