"""The venue over whole books, by tables small enough to read: item n of a tape happens at millisecond n.

An item is a quote, a trade, or a list of levels that make a group of depth; the handler is called once for each.
Everything here runs uncompiled; the laws run compiled.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.check import check_strategy
from engine.config import VenueModel
from engine.kernel import codes
from engine.kernel.signals import Ctx
from engine.store.instruments import InstrumentInfo
from engine.store.tape import Tape, blank, frozen
from strategies.market_making import MarketMaking
from tests.backtest.test_ticks import FOK, GTD, IOC, MS, POST, START, Trader, buy, driven, q, sell, t
from tests.backtest.test_ticks import play as play_ticks

Levels = list[tuple[int, float, float]]
B, S = codes.BUY, codes.SELL


class Reader(Trader):
    """The same wishes, at groups of depth too."""

    def on_depth(self, depth: Any, ctx: Ctx) -> None:
        self.wish(ctx)


def levels(*rows: tuple[int, float, float]) -> Levels:
    """A group of updates: side, price, volume."""
    return list(rows)


def snapshot(*rows: tuple[int, float, float]) -> tuple[Any, ...]:
    """A group that replaces the book."""
    return (codes.SNAPSHOT, list(rows))


GAP = (codes.GAP,)


def tape(*items: Any, **info: Any) -> Tape:
    """One item a millisecond."""
    rows: list[dict[str, Any]] = []
    for n, item in enumerate(items):
        code, group = item if isinstance(item, tuple) and len(item) == 2 else (codes.UPDATE, item)
        when = {"ts": START + n * MS, "recv": START + n * MS}
        if isinstance(group, list):
            rows += [{**when, "kind": codes.DEPTH, "code": code, "side": side, "price": price, "traded": volume,
                      "last": int(k == len(group))} for k, (side, price, volume) in enumerate(group, 1)]  # fmt: skip
        else:
            names = (
                ("bid", "ask", "bid_volume", "ask_volume") if item[0] == codes.QUOTE else ("price", "traded", "side")
            )
            rows.append({**when, "kind": item[0], **dict(zip(names, item[1:], strict=False))})
    events = blank(len(rows))
    for event, row in zip(events, rows, strict=True):
        for name, value in row.items():
            event[name] = value
    return Tape(frozen(events), (InstrumentInfo("T", **{"tick": 0.01, **info}),), "0" * 16, "depth")


def play(items: list[Any], wishes: dict[int, Any], **settings: Any) -> list[tuple[Any, ...]]:
    return play_ticks(tape(*items, **settings.pop("info", {})), wishes, trader=Reader(), **settings)


BOOK = levels((B, 10.00, 5), (B, 9.99, 7), (B, 9.97, 9), (S, 10.02, 4), (S, 10.03, 6), (S, 10.06, 8))
SAME = levels((B, 9.90, 1))  # an update that changes nothing near the touch

TAKING: dict[str, tuple[list[Any], dict[int, Any], list[Any]]] = {
    "a market order walks the book": ([BOOK, SAME], {0: buy(12)},
                                      [("fill", 0, 4, 10.02), ("fill", 0, 6, 10.03), ("fill", 0, 2, 10.06)]),
    "a sale too": ([BOOK, SAME], {0: sell(6)}, [("fill", 0, -5, 10.00), ("fill", 0, -1, 9.99)]),
    "what the book does not have waits for more": (
        [BOOK, SAME, levels((S, 10.04, 9))], {0: buy(20)},
        [("fill", 0, 4, 10.02), ("fill", 0, 6, 10.03), ("fill", 0, 8, 10.06), ("fill", 2, 2, 10.04)]),
    "a limit walks up to its price, the rest joins": (
        [BOOK, SAME, t(10.03, 2, -1)], {0: buy(12, 10.03)},
        [("fill", 0, 4, 10.02), ("fill", 0, 6, 10.03), ("fill", 2, 2, 10.03)]),
    "IOC walks and goes": ([BOOK, SAME], {0: buy(12, 10.03, tif=IOC)},
                           [("fill", 0, 4, 10.02), ("fill", 0, 6, 10.03), ("cancelled", 0, "no_liquidity")]),
    "FOK counts all levels": ([BOOK, SAME], {0: buy(10, 10.03, tif=FOK)},
                              [("fill", 0, 4, 10.02), ("fill", 0, 6, 10.03)]),
    "and goes untouched when they are too few": ([BOOK, SAME], {0: buy(11, 10.03, tif=FOK)},
                                                 [("cancelled", 0, "no_liquidity")]),
    "two takers share the levels": ([BOOK, SAME], {0: [buy(5), buy(5)]},
                                    [("fill", 0, 4, 10.02), ("fill", 0, 1, 10.03), ("fill", 0, 5, 10.03)]),
    "what was taken stays taken": ([BOOK, SAME, SAME], {0: buy(4), 1: buy(1)},
                                   [("fill", 0, 4, 10.02), ("fill", 1, 1, 10.03)]),
    "until the level is told anew": ([BOOK, levels((S, 10.02, 3)), SAME], {0: buy(4), 1: buy(1)},
                                     [("fill", 0, 4, 10.02), ("fill", 1, 1, 10.02)]),
    "an emptied level does not reject post-only": (
        [BOOK, SAME, t(10.02, 1, -1)], {0: buy(4), 1: buy(1, 10.02, mask=POST)},
        [("fill", 0, 4, 10.02), ("fill", 2, 1, 10.02)]),
    "less than a lot of a level is passed by": (
        [levels((B, 10.00, 1), (S, 10.02, 1.5), (S, 10.03, 9)), SAME], {0: buy(3)},
        [("fill", 0, 1, 10.02), ("fill", 0, 2, 10.03)]),
    "a group is not seen before it is whole": (
        [BOOK, levels((S, 10.02, 0), (S, 10.03, 0)), SAME], {1: buy(1)}, [("fill", 1, 1, 10.06)]),
    "after a gap nothing is shown until the next snapshot": (
        [BOOK, GAP, levels((S, 10.01, 5)), snapshot((B, 9.0, 1), (S, 10.05, 5))], {0: buy(20)},
        [("fill", 0, 4, 10.02), ("fill", 0, 6, 10.03), ("fill", 0, 8, 10.06), ("fill", 3, 2, 10.05)]),
}  # fmt: skip
RESTING: dict[str, tuple[list[Any], dict[int, Any], list[Any]]] = {
    "behind the touch the queue is known": (
        [BOOK, t(9.99, 7, -1), t(9.99, 2, -1)], {0: buy(3, 9.99)}, [("fill", 2, 2, 9.99)]),
    "between two levels nothing is ahead": ([BOOK, t(9.98, 2, -1)], {0: buy(3, 9.98)}, [("fill", 1, 2, 9.98)]),
    "a level that shrinks shortens the queue": (
        [BOOK, levels((B, 9.99, 2)), t(9.99, 3, -1)], {0: buy(3, 9.99)}, [("fill", 2, 1, 9.99)]),
    "a level that is gone was all ahead": (
        [BOOK, levels((B, 9.99, 0)), levels((B, 9.99, 50)), t(9.99, 1, -1)], {0: buy(1, 9.99)}, [("fill", 3, 1, 9.99)]),
    "a trade that the level tells later counts once": (
        [BOOK, t(10.00, 2, -1), levels((B, 10.00, 3)), t(10.00, 3, -1), t(10.00, 1, -1)], {0: buy(1, 10.00)},
        [("fill", 4, 1, 10.00)]),
    "asks that come to our price fill us level by level": (
        [BOOK, levels((S, 9.98, 2), (S, 9.99, 1), (S, 10.00, 9))], {0: buy(4, 9.99)},
        [("fill", 1, 2, 9.99), ("fill", 1, 1, 9.99)]),
    "our orders share what came, the better price first": (
        [BOOK, levels((S, 9.99, 3))], {0: [buy(2, 9.99), buy(2, 10.00)]},
        [("fill", 1, 2, 10.00), ("fill", 1, 1, 9.99)]),
    "a snapshot tells the level too": (
        [BOOK, snapshot((B, 9.99, 2), (S, 10.02, 4)), t(9.99, 3, -1)], {0: buy(3, 9.99)}, [("fill", 2, 1, 9.99)]),
    "through a gap the place is kept": (
        [BOOK, GAP, snapshot((B, 10.00, 9), (S, 10.02, 1)), t(10.00, 5, -1), t(10.00, 1, -1)], {0: buy(1, 10.00)},
        [("fill", 4, 1, 10.00)]),
    "GTD ends at a group": ([BOOK, SAME, SAME, SAME, SAME], {0: buy(1, 9.0, tif=GTD, life_ms=3)},
                            [("expired", 3, "")]),
    "a stop waits for the book": ([BOOK, levels((S, 10.02, 0)), SAME], {0: buy(2, stop=10.03)},
                                  [("fill", 1, 2, 10.03)]),
}  # fmt: skip
TOGETHER: dict[str, tuple[list[Any], dict[int, Any], list[Any]]] = {
    "a quote tells the touch, the book what is behind": (
        [BOOK, q(10.00, 5, 10.03, 1), SAME], {1: buy(3)}, [("fill", 1, 1, 10.03), ("fill", 1, 2, 10.06)]),
    "a younger book tells it again": ([BOOK, q(10.00, 5, 10.03, 1), SAME, SAME], {2: buy(1)}, [("fill", 2, 1, 10.02)]),
    "a quote moves the queue at the touch": (
        [BOOK, q(10.00, 1, 10.02, 4), t(10.00, 2, -1)], {0: buy(1, 10.00)}, [("fill", 2, 1, 10.00)]),
    "and leaves it behind the touch": (
        [BOOK, q(10.01, 1, 10.02, 4), t(9.99, 8, -1)], {0: buy(1, 9.99)}, [("fill", 2, 1, 9.99)]),
}  # fmt: skip


def random_depth(seed: int, n: int, *, quotes: bool = True, tick: float = 0.01) -> Tape:
    """A market of whole books in which everything happens: moves, thin and missing sides, snapshots, gaps, crossings,
    trades through the touch; levels far away, so that the ring moves."""
    rng = np.random.default_rng(seed)
    events = blank(n)
    ts, mid, row = START, 100_000, 0
    while row < n:
        ts += int(rng.choice([0, MS // 3, MS, 40 * MS]))
        mid += int(rng.choice([-2, -1, 0, 0, 0, 1, 2])) if rng.random() > 0.01 else int(rng.integers(-9_000, 9_000))
        what, size = rng.random(), min(int(rng.integers(1, 9)), n - row)
        recv = max(ts + int(rng.integers(0, MS)), int(events["recv"][row - 1]) if row else 0)
        group = events[row : row + (size if what < 0.6 else 1)]
        group["ts"], group["recv"] = ts, recv
        if what < 0.6:
            far = rng.choice([1, 2, 3, 5, 40, 5_000, 30_000], len(group))
            side = rng.choice([1, -1], len(group))
            group["kind"], group["side"], group["last"] = codes.DEPTH, side, 0
            group["code"] = codes.SNAPSHOT if row == 0 or what < 0.05 else codes.UPDATE
            group["price"] = np.round((mid - side * far + (rng.random() < 0.05) * 4 * side) * tick, 9)
            group["traded"] = rng.choice([0.0, 1.0, 2.5, 7.0], len(group))
            group["last"][-1] = 1
        elif what < 0.8:
            group["kind"], group["side"] = codes.TRADE, rng.integers(-1, 2)
            group["price"], group["traded"] = round((mid + int(rng.integers(-2, 3))) * tick, 9), rng.integers(1, 9)
        elif what < 0.99 and quotes:
            group["kind"] = codes.QUOTE
            group["bid"], group["ask"] = round((mid - 1) * tick, 9), round((mid + int(rng.integers(0, 3))) * tick, 9)
            group["bid_volume"], group["ask_volume"] = rng.integers(0, 9), rng.integers(0, 9)
        else:
            group["kind"] = codes.GAP if what > 0.995 else codes.FUNDING
        row += len(group)
    events["last"][-1] = 1
    return Tape(frozen(events), (InstrumentInfo("T", tick=tick),), "0" * 16, "random depth")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("model", [VenueModel(), VenueModel(order_ms=1.0, report_ms=0.7, feed_ms=0.2, queue="power")],
                         ids=["at once", "late"])  # fmt: skip
def test_laws(seed: int, model: VenueModel) -> None:
    events = random_depth(seed, 1500, quotes=seed != 1)
    done = check_strategy(MarketMaking(qty=2.0, limit=8.0), events, short=300, venue=model)
    assert done.fills > 20


@pytest.mark.parametrize("table", [TAKING, RESTING, TOGETHER], ids=["taking", "resting", "with quotes"])
def test_tables(table: dict[str, Any]) -> None:
    for what, (items, wishes, reported) in table.items():
        assert play(items, wishes) == reported, what


class Ledger:
    """The book as the tape tells it less what our fills took: whoever takes more than is there, or passes by what is
    better, is found out. It knows nothing of the venue but its reports."""

    def __init__(self) -> None:
        self.left: dict[int, dict[float, float]] = {1: {}, -1: {}}

    def tell(self, group: Any) -> None:
        """A group of depth: absolute volumes."""
        if group["code"][0] == codes.SNAPSHOT:
            self.left = {1: {}, -1: {}}
        for side, price, volume in zip(group["side"], group["price"], group["traded"], strict=True):
            self.left[int(side)].pop(float(price), None)
            if volume:
                self.left[int(side)][float(price)] = float(volume)

    def take(self, side: int, price: float, qty: float) -> None:
        """A fill of ours at a level's own price: the best one that holds a lot, and no more than it holds."""
        levels = {p: v for p, v in self.left[-side].items() if v >= 1.0 - 1e-9}
        best = min(levels) if side > 0 else max(levels)
        assert price == pytest.approx(best, abs=1e-9) and qty <= levels[best] + 1e-9, (price, qty, levels)
        self.left[-side][best] -= qty

    def met(self, side: int, limit: float, qty: float) -> None:
        """A resting order of ours that a group came to: out of the levels at its price or better, the best first."""
        for price in sorted(self.left[-side], reverse=side < 0):
            if qty > 0 and (limit - price) * side >= -1e-9 and self.left[-side][price] >= 1.0 - 1e-9:
                took = min(qty, float(int(self.left[-side][price] + 1e-9)))
                self.left[-side][price] -= took
                qty -= took
        assert qty <= 1e-9, (limit, qty)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1 << 30))
def test_nothing_is_taken_twice_nor_better_than_the_book(seed: int) -> None:
    """Takers of every kind between groups, makers at groups and trades, against a ledger of the tape alone."""
    rng = np.random.default_rng(seed)
    items: list[Any] = []
    for n in range(60):
        mid = 10.0 + 0.01 * int(rng.integers(-2, 3))
        if rng.random() < 0.3 and n:
            items.append(
                t(round(mid + 0.01 * int(rng.integers(-3, 4)), 2), int(rng.integers(1, 6)), int(rng.choice([-1, 1])))
            )
            continue
        found = {}
        for _ in range(int(rng.integers(2, 9))):
            side = int(rng.choice([B, S]))
            found[side, round(mid - side * 0.01 * int(rng.integers(1, 7)), 2)] = float(rng.choice([0, 0.5, 1, 2.5, 6]))
        rows = [(side, price, volume) for (side, price), volume in found.items()]
        items.append(
            snapshot(*rows, (B, 9.5, 50.0), (S, 10.5, 50.0)) if n == 0 or rng.random() < 0.3 else levels(*rows)
        )
    wishes: dict[int, Any] = {}
    for n in range(58):
        verb = buy if rng.random() < 0.5 else sell
        limit = round(10.0 + 0.01 * int(rng.integers(-6, 7)), 2) if rng.random() < 0.8 else 0.0
        wishes[n] = verb(float(rng.integers(1, 9)), limit, tif=int(rng.choice([codes.GTC, codes.GTC, IOC, FOK])))
    events = tape(*items)
    drive = driven(events, wishes, Reader(), order_ms=0.4)
    orders, rows, ledger = drive.outputs().orders, events.events, Ledger()
    asked = {int(o["id"]): o for o in orders[orders["action"] == codes.NEW]}
    fills = drive.outputs().reports
    fills = fills[fills["code"] == codes.FILL]
    moments = sorted({int(x) for x in rows["ts"]} | {int(x) for x in fills["ts"]})
    for ts in moments:
        here, ours = rows[rows["ts"] == ts], fills[fills["ts"] == ts]
        if len(here) and here["kind"][0] == codes.DEPTH:
            ledger.tell(here)
        traded = float(here["traded"].sum()) if len(here) and here["kind"][0] == codes.TRADE else 0.0
        for fill in ours:
            order, side, qty = asked[int(fill["order_id"])], int(np.sign(fill["qty"])), abs(float(fill["qty"]))
            limit = float(order["price"])
            assert limit == 0.0 or (limit - float(fill["price"])) * side >= -1e-9
            if len(here) == 0 or limit == 0.0:
                ledger.take(side, float(fill["price"]), qty)
            elif here["kind"][0] == codes.TRADE:
                assert float(fill["price"]) == pytest.approx(limit) and (limit - here["price"][0]) * side >= -1e-9
                traded -= qty
            else:
                ledger.met(side, limit, qty)
        assert traded >= -1e-9
    filled = {i: int(np.abs(fills["qty"][fills["order_id"] == i]).sum()) for i in asked}
    assert all(filled[i] <= asked[i]["qty"] for i in asked) and (len(fills) > 0 or not wishes)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from([B, S]), st.integers(0, 3))
def test_nobody_is_filled_before_the_volume_ahead_is_gone(seed: int, side: int, behind: int) -> None:
    """One order rests at a level; only that level changes and trades. Cancels come from behind: trades, and what the
    level tells, are all that moves it forward."""
    rng, price = np.random.default_rng(seed), round(10.00 - side * 0.01 * behind, 2)
    book = levels(
        *((side, round(10.00 - side * 0.01 * k, 2), 9.0) for k in range(5)), (-side, 10.00 + side * 0.05, 9.0)
    )
    items, ahead, owed, expected = [book], 9.0, 30, []
    for n in range(1, 25):
        if rng.random() < 0.5:
            volume = float(rng.integers(0, 15))
            items.append(levels((side, price, volume)))
            ahead = min(ahead, volume)
        else:
            volume = int(rng.integers(1, 7))
            items.append(t(price, volume, -side))
            got = min(owed, max(0, int(volume - ahead)))
            ahead, owed = max(0.0, ahead - volume), owed - got
            expected += [("fill", n, side * got, price)] if got else []
    assert play(items, {0: (buy if side > 0 else sell)(30, price)}) == expected


@pytest.mark.parametrize(("model", "filled"), [("back", 0), ("front", 1), ("power", 0)])
def test_queue_models(model: str, filled: int) -> None:
    """6 ahead; 3 join behind, then 3 of the 9 are cancelled; 4 trade: only who lost all 3 ahead is next."""
    items = [levels((B, 10.00, 6), (S, 10.02, 4)), levels((B, 10.00, 9)), levels((B, 10.00, 6)), t(10.00, 4, -1)]
    assert len(play(items, {0: buy(1, 10.00)}, queue=model)) == filled


def test_an_order_walks_the_book_that_exists_when_it_arrives() -> None:
    items = [BOOK, levels((S, 10.02, 0)), levels((S, 10.03, 1)), SAME, SAME]
    assert play(items, {0: buy(3)}, order_ms=2.0) == [("fill", 2, 1, 10.03), ("fill", 2, 2, 10.06)]


def seen(items: list[Any], what: Any) -> list[Any]:
    """What the strategy reads at each item."""
    found: list[Any] = []
    play(items, {n: lambda ctx: found.append(what(ctx)) for n in range(len(items))})
    return found


def test_a_strategy_reads_the_book() -> None:
    touch = seen([BOOK, levels((B, 10.00, 0), (S, 10.01, 3))], lambda c: (c.bid, c.bid_volume, c.ask, c.ask_volume))
    assert touch == [(10.00, 5, 10.02, 4), (9.99, 7, 10.01, 3)]
    assert seen([BOOK], lambda c: [c.level_price(S, k) for k in (-1, 0, 1, 2, 3)]) == [[0, 10.02, 10.03, 10.06, 0]]
    assert seen([BOOK], lambda c: [c.level_volume(B, k) for k in (-1, 0, 1, 2, 3)]) == [[0, 5, 7, 9, 0]]
    assert seen([BOOK], lambda c: [c.volume_at(B, p) for p in (9.99, 9.98, 10.02, 1e9)]) == [[7, 0, 0, 0]]
    assert seen([BOOK], lambda c: [c.volume_of(B, n) for n in (0, 2, 9)]) == [[0, 12, 21]]
    assert seen([BOOK], lambda c: (c.imbalance_of(2), c.imbalance_of(0), c.imbalance))[0] == (2 / 22, 0, 1 / 9)
    assert seen([BOOK], lambda c: (c.mid, c.microprice, c.spread))[0] == pytest.approx(
        (10.01, (10.00 * 4 + 10.02 * 5) / 9, 0.02))  # fmt: skip


def test_crossed_and_stale_books_are_seen() -> None:
    items = [BOOK, levels((B, 10.02, 1)), levels((B, 10.02, 0)), GAP, SAME, snapshot((B, 9.0, 1), (S, 9.1, 1))]
    what = seen([i for i in items if i != GAP], lambda c: c.crossed)
    assert what == [False, True, False, False, False]
    assert seen([BOOK, GAP, SAME, snapshot((B, 9.0, 1), (S, 9.1, 1))], lambda c: (c.stale, c.bid, c.level_price(S, 0)))[
        :3
    ] == [(False, 10.00, 10.02), (True, 0.0, 0.0), (False, 9.0, 9.1)]


def test_without_depth_there_are_no_levels() -> None:
    what = seen([q(10.00, 5, 10.02, 4)], lambda c: (c.level_price(B, 0), c.level_volume(S, 0), c.volume_at(B, 10.0),
                                                    c.volume_of(B, 3), c.imbalance_of(2), c.stale))  # fmt: skip
    assert what == [(0, 0, 0, 0, 0, False)]


@pytest.mark.parametrize("queue", ["back", "front", "power"])
def test_a_book_takes_back_what_a_quote_has_told(queue: str) -> None:
    """Joined while the book was unknown, an order stands behind what a quote shows, until a book has nothing there."""
    items = [BOOK, GAP, q(10.00, 5, 10.02, 4), q(9.98, 7, 10.02, 4),
             snapshot((B, 10.00, 5), (B, 9.97, 5), (S, 10.02, 4)), t(9.98, 3, -1)]  # fmt: skip
    assert play(items, {1: buy(1, 9.98)}, queue=queue) == [("fill", 5.0, 1, 9.98)]
