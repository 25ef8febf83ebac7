"""The book against a dictionary: any levels in any order, near and far, forgotten only behind the horizon."""

import math
from collections.abc import Iterator
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.kernel import books, codes, levels
from engine.kernel.books import Book
from engine.kernel.events import Event
from engine.kernel.levels import NONE, Half

# Keys around a place that wanders: within a word, a block, the ring, and far outside of it.
STEPS = st.one_of(st.integers(-70, 70), st.integers(-5_000, 5_000), st.integers(-60_000, 60_000))
ROWS = st.lists(st.tuples(STEPS, st.sampled_from([0.0, 0.0, 1.0, 2.5])), min_size=1, max_size=60)


def fresh(tick: float = 0.1) -> tuple[Book, Half, Half]:
    """An empty book."""
    book, bids, asks = Book.new(), Half.new(), Half.new()
    books.begin(book, bids, asks, tick)
    return book, bids, asks


def walk(half: Half) -> Iterator[tuple[int, float]]:
    """All levels from the best on."""
    key = half.best
    while key != NONE:
        yield key, levels.volume_at(half, key)
        key = levels.below(half, key)


@pytest.mark.parametrize("side", [1, -1])
@example(rows=[(0, 1.0), (-1, 1.0), (-1, 0.0)], wander=False)  # the highest bit of a word, set and removed again
@given(rows=ROWS, wander=st.booleans())
def test_a_side_is_a_sorted_dictionary(side: int, rows: list[tuple[int, float]], wander: bool) -> None:
    """In plain Python, which would look for the next far level in a table of the full size for long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(levels, "FAR", 128)
        _, half, _ = fresh()
        known: dict[int, float] = {}
        place = side * 600_000
        for step, volume in rows:
            key = place + step
            place = key if wander else place
            levels.put(half, key, volume)
            known.pop(key, None)
            if volume:
                known[key] = volume
            assert half.best == max(known, default=NONE)
            assert list(walk(half)) == sorted(known.items(), reverse=True)
            assert levels.volume_at(half, key) == volume
            assert levels.below(half, key) == max((k for k in known if k < key), default=NONE)
        assert [levels.level(half, k) for k in range(len(known) + 1)] == [*sorted(known, reverse=True), NONE]
        levels.clear(half)
        assert half.best == NONE and half.tobytes() == emptied(half)


def emptied(half: Half) -> bytes:
    """What a side that was cleared looks like: only where the ring is and what is left in free places may differ."""
    clean = Half.new()
    clean.best = clean.horizon = NONE
    clean.top, clean.dropped = half.top, half.dropped
    for i in range(levels.FAR):
        clean.far_volumes[i] = half.far_volumes[i]
    return clean.tobytes()


@given(rows=st.lists(st.tuples(st.integers(1, 400), st.sampled_from([0.0, 1.0, 2.0, 3.0])), max_size=80))
def test_the_horizon_is_exact(rows: list[tuple[int, float]]) -> None:
    """A table of six levels: down to the horizon the side is right, behind it nothing is claimed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(levels, "FAR", 32)
        patch.setattr(levels, "FAR_LIMIT", 6)
        _, half, _ = fresh()
        known: dict[int, float] = {10_000_000: 1.0}
        levels.put(half, 10_000_000, 1.0)
        for step, volume in rows:
            key = 10_000_000 - step * 20_000
            levels.put(half, key, volume)
            known.pop(key, None)
            if volume:
                known[key] = volume
            assert list(walk(half)) == sorted(((k, v) for k, v in known.items() if k >= half.horizon), reverse=True)
            assert half.far <= 6 and (half.dropped > 0) == (half.horizon != NONE)
        if half.horizon != NONE:  # who removes all that is left does not trust the rest
            for key, _ in list(walk(half)):
                levels.put(half, key, 0.0)
            book, _, asks = fresh()
            books.close_group(book, half, asks, 5)
            assert book.stale == 1 and book.lost == 1 and half.horizon == NONE


def row(price: float, volume: float, side: int, code: int = codes.UPDATE, last: int = 1) -> Event:
    event = Event.new()
    event.kind, event.price, event.traded, event.side, event.code, event.last = (
        codes.DEPTH,
        price,
        volume,
        side,
        code,
        last,
    )
    return event


def shown(book: Book, bids: Half, asks: Half) -> tuple[float, float]:
    return books.price_of(book, bids.best), books.price_of(book, asks.best)


def test_a_snapshot_replaces_everything() -> None:
    book, _, asks = whole = fresh()
    for event in (row(99.9, 5, 1), row(100.0, 4, -1), row(100.1, 3, -1)):
        books.update(*whole, event)
        books.close_group(*whole, 1)
    assert shown(*whole) == (99.9, 100.0)
    for event in (row(98.0, 1, 1, codes.SNAPSHOT, 0), row(98.5, 2, -1, codes.SNAPSHOT)):
        books.update(*whole, event)
    books.close_group(*whole, 2)
    assert shown(*whole) == (98.0, 98.5) and levels.below(asks, asks.best) == NONE
    assert (book.groups, book.crossed, book.locked, book.lost) == (4, 0, 0, 0)


@pytest.mark.parametrize(("bid", "counted"), [(100.2, (1, 0)), (100.1, (0, 1)), (100.0, (0, 0))])
def test_crossed_and_locked_books_are_counted(bid: float, counted: tuple[int, int]) -> None:
    book, *_ = whole = fresh()
    books.update(*whole, row(100.1, 1, -1, last=0))
    books.update(*whole, row(bid, 1, 1))
    books.close_group(*whole, 1)
    assert (book.crossed, book.locked) == counted and shown(*whole) == (bid, 100.1)


@pytest.mark.parametrize("bad", [(100.05, 1.0, 1), (math.nan, 1.0, 1), (-100.0, 1.0, 1), (0.0, 1.0, 1), (1e30, 1.0, 1),
                                 (100.0, -1.0, 1), (100.0, math.nan, 1), (100.0, math.inf, 1), (100.0, 1.0, 0),
                                 (100.0, 1.0, 2)])  # fmt: skip
def test_a_row_that_makes_no_sense_loses_the_book_until_the_next_snapshot(bad: tuple[float, float, int]) -> None:
    book, *_ = whole = fresh()
    books.update(*whole, row(100.0, 1, 1))
    books.update(*whole, row(*bad))
    assert shown(*whole) == (0.0, 0.0) and (book.stale, book.wrong, book.lost) == (1, 1, 1)
    books.update(*whole, row(100.0, 1, 1))
    assert shown(*whole) == (0.0, 0.0) and book.skipped == 1
    books.update(*whole, row(99.0, 1, 1, codes.SNAPSHOT))
    assert shown(*whole) == (99.0, 0.0) and book.stale == 0


@pytest.mark.parametrize("tick", [0.1, 0.01, 0.25, 0.0025, 5.0, 1.0, 1e-8, 0.3])
@given(steps=st.integers(1, 10**9))
def test_a_price_comes_back_as_it_was_told(tick: float, steps: int) -> None:
    book, _, _ = fresh(tick)
    price = float(Decimal(str(tick)) * steps)
    key = books.key_of(book, price)
    assert key == steps
    assert books.price_of(book, key) == price or tick == 0.3
    assert books.price_of(book, -key) == pytest.approx(price, rel=1e-15)
