"""The venue of quotes and trades, by tables small enough to read: event n happens at millisecond n.

A wish under n is made when the kernel sees event n. Everything here runs uncompiled; the laws run compiled.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from backtest.audit import audit
from backtest.check import check_strategy
from backtest.drive import Drive
from backtest.run import prepare
from engine.config import VenueModel
from engine.errors import ConfigError
from engine.kernel import codes
from engine.kernel.events import Quote, Trade
from engine.kernel.signals import Ctx
from engine.kernel.strategy import Strategy
from engine.store.instruments import InstrumentInfo
from engine.store.tape import Tape, blank, frozen
from strategies.market_making import MarketMaking, glft

MS = 1_000_000
START = 20_000 * 86_400_000_000_000
WISHES: dict[int, Sequence[Callable[[Ctx], Any]]] = {}
IDS: list[int] = []
REFUSED: list[str] = []


class Trader(Strategy):
    """Wishes at each event what the test wrote down. It runs uncompiled only."""

    n: int

    def wish(self, ctx: Ctx) -> None:
        for one in WISHES.get(self.n, ()):
            found = one(ctx)
            if isinstance(found, int) and found:
                IDS.append(found)
        self.n += 1

    def on_quote(self, quote: Quote, ctx: Ctx) -> None:
        self.wish(ctx)

    def on_trade(self, trade: Trade, ctx: Ctx) -> None:
        self.wish(ctx)


def q(bid: float, bid_volume: float, ask: float, ask_volume: float) -> tuple[Any, ...]:
    """A quote."""
    return (codes.QUOTE, bid, ask, bid_volume, ask_volume)


def t(price: float, volume: float, side: int) -> tuple[Any, ...]:
    """A trade; `side` is the aggressor's."""
    return (codes.TRADE, price, volume, side)


def tape(*rows: tuple[Any, ...], feed: float = 0.0, **info: Any) -> Tape:
    """One event a millisecond, received `feed` milliseconds later."""
    events = blank(len(rows))
    for n, (event, row) in enumerate(zip(events, rows, strict=True)):
        event["ts"], event["recv"], event["kind"] = START + n * MS, START + n * MS + round(feed * MS), row[0]
        names = ("bid", "ask", "bid_volume", "ask_volume") if row[0] == codes.QUOTE else ("price", "traded", "side")
        for name, value in zip(names, row[1:], strict=True):
            event[name] = value
    return Tape(frozen(events), (InstrumentInfo("T", **{"tick": 0.01, **info}),), "0" * 16, "ticks")


def driven(events: Tape, wishes: dict[int, Any], trader: Trader | None = None, **settings: Any) -> Drive:
    """A run to the end, audited."""
    WISHES.clear()
    WISHES.update({n: w if isinstance(w, list | tuple) else [w] for n, w in wishes.items()})
    IDS.clear()
    given = {"leverage": 1e9, "self_match": False, **settings}
    drive = prepare(trader or Trader(), events, cash=1e6, compiled=False, **given).drive()
    assert drive.advance() == 0, drive.machine.kernel.halt
    assert audit(drive, drive.outputs()) == []
    return drive


def play(events: Tape, wishes: dict[int, Any], trader: Trader | None = None, **settings: Any) -> list[tuple[Any, ...]]:
    """What the venue reported: (word, millisecond, lots, price) of fills, (word, millisecond, reason) of the rest."""
    drive = driven(events, wishes, trader, **settings)
    outputs = drive.outputs()
    REFUSED[:] = [codes.NAMES["reason"][int(r)] for r in outputs.refusals["reason"]]
    found: list[tuple[Any, ...]] = []
    for row in outputs.reports[outputs.reports["code"] != codes.ACK]:
        word, at = codes.NAMES["report"][int(row["code"])], (int(row["ts"]) - START) / MS
        if word == "fill":
            found.append((word, at, int(row["qty"]), round(float(row["price"]), 9)))
        elif word == "replaced":
            found.append((word, at, int(row["qty"])))
        else:
            found.append((word, at, codes.NAMES["reason"].get(int(row["fee"]), "") if row["fee"] else ""))
    return found


def buy(qty: float, limit: float = 0.0, **options: Any) -> Callable[[Ctx], Any]:
    return lambda ctx: ctx.buy(qty, limit, **options)


def sell(qty: float, limit: float = 0.0, **options: Any) -> Callable[[Ctx], Any]:
    return lambda ctx: ctx.sell(qty, limit, **options)


BOOK = q(10.00, 5, 10.02, 4)
FOK, IOC, GTD, DAY = codes.FOK, codes.IOC, codes.GTD, codes.DAY
POST, REDUCE = codes.POST_ONLY, codes.REDUCE_ONLY

# Each case: the events, the wishes, what is reported.
TAKING = {
    "a market order takes what is shown, the rest what the next quote shows": (
        [BOOK, BOOK, q(10.00, 5, 10.03, 9)], {0: buy(6)}, [("fill", 0, 4, 10.02), ("fill", 1, 2, 10.02)]),
    "a limit above the ask takes at the ask": ([BOOK, BOOK], {0: buy(3, 10.05)}, [("fill", 0, 3, 10.02)]),
    "what a marketable limit does not get rests in front": (
        [BOOK, q(10.00, 5, 10.04, 4), t(10.03, 2, -1)], {0: buy(6, 10.03)},
        [("fill", 0, 4, 10.02), ("fill", 2, 2, 10.03)]),
    "IOC takes and goes": ([BOOK, BOOK], {0: buy(6, 10.02, tif=IOC)},
                           [("fill", 0, 4, 10.02), ("cancelled", 0, "no_liquidity")]),
    "IOC that reaches nothing goes": ([BOOK, BOOK], {0: buy(6, 10.01, tif=IOC)}, [("cancelled", 0, "no_liquidity")]),
    "FOK too large goes untouched": ([BOOK, BOOK], {0: buy(6, 10.02, tif=FOK)}, [("cancelled", 0, "no_liquidity")]),
    "FOK that fits is filled": ([BOOK, BOOK], {0: buy(4, 10.02, tif=FOK)}, [("fill", 0, 4, 10.02)]),
    "post-only that crosses is rejected": ([BOOK, BOOK], {0: buy(1, 10.02, mask=POST)},
                                           [("reject", 0, "post_only_cross")]),
    "two takers do not take the same liquidity": (
        [BOOK, q(10.00, 5, 10.02, 1)], {0: [buy(3, 10.02), buy(3, 10.02)]},
        [("fill", 0, 3, 10.02), ("fill", 0, 1, 10.02), ("fill", 1, 1, 10.02)]),
    "our own resting order is not hit": ([BOOK, BOOK, BOOK], {0: sell(1, 10.01), 1: buy(1, 10.01)},
                                         [("reject", 1, "self_match")]),
    "reduce-only sells no more than is held": ([BOOK, BOOK, BOOK], {0: buy(2), 1: sell(2, 9.0, mask=REDUCE)},
                                               [("fill", 0, 2, 10.02), ("fill", 1, -2, 10.00)]),
}  # fmt: skip
RESTING = {
    "the volume ahead goes first": ([BOOK, t(10.00, 5, -1), t(10.00, 2, -1)], {0: buy(3, 10.00)},
                                    [("fill", 2, 2, 10.00)]),
    "one trade can take the queue and us": ([BOOK, t(10.00, 7, -1)], {0: buy(3, 10.00)}, [("fill", 1, 2, 10.00)]),
    "and the queue is gone for what is left": (
        [BOOK, t(9.99, 2, -1), t(10.00, 2, -1)], {0: buy(5, 10.00)}, [("fill", 1, 2, 10.00), ("fill", 2, 2, 10.00)]),
    "a trade through fills at our price": ([BOOK, t(9.99, 2, -1)], {0: buy(3, 10.00)}, [("fill", 1, 2, 10.00)]),
    "an aggressive buyer does not fill a buy": ([BOOK, t(10.00, 50, 1)], {0: buy(3, 10.00)}, []),
    "better than the bid: nothing is ahead": ([BOOK, t(10.01, 2, -1)], {0: buy(3, 10.01)}, [("fill", 1, 2, 10.01)]),
    "an ask that comes to our price fills us": ([BOOK, q(9.98, 5, 10.00, 2)], {0: buy(3, 10.00)},
                                                [("fill", 1, 2, 10.00)]),
    "cancels behind us leave the queue as it is": (
        [BOOK, q(10.00, 9, 10.02, 4), q(10.00, 6, 10.02, 4), t(10.00, 5, -1), t(10.00, 1, -1)], {0: buy(1, 10.00)},
        [("fill", 4, 1, 10.00)]),
    "but the queue is never longer than what is shown": (
        [BOOK, q(10.00, 1, 10.02, 4), t(10.00, 2, -1)], {0: buy(1, 10.00)}, [("fill", 2, 1, 10.00)]),
    "behind the touch everything shown later is ahead": (
        [BOOK, q(9.99, 8, 10.02, 4), t(9.99, 8, -1), t(9.99, 1, -1)], {0: buy(1, 9.99)}, [("fill", 3, 1, 9.99)]),
    "our orders share one trade, the better price first": (
        [BOOK, t(9.98, 4, -1)], {0: [buy(3, 10.00), buy(3, 10.01)]}, [("fill", 1, 3, 10.01), ("fill", 1, 1, 10.00)]),
    "and at one price the earlier one": (
        [BOOK, t(10.01, 4, -1)], {0: [buy(3, 10.01), buy(3, 10.01)]}, [("fill", 1, 3, 10.01), ("fill", 1, 1, 10.01)]),
    "what the first takes does not come to the second's queue": (
        [BOOK, t(10.00, 9, -1), t(10.00, 2, -1)], {0: [buy(3, 10.00), buy(3, 10.00)]},
        [("fill", 1, 3, 10.00), ("fill", 1, 1, 10.00), ("fill", 2, 2, 10.00)]),
    "nor what a better one takes": (
        [BOOK, t(10.00, 7, -1), t(10.00, 1, -1)], {0: [buy(2, 10.00), buy(2, 10.01)]},
        [("fill", 1, 2, 10.01), ("fill", 2, 1, 10.00)]),
    "who joined later waits for those in between": (
        [BOOK, q(10.00, 8, 10.02, 4), t(10.00, 6, -1), t(10.00, 4, -1), t(10.00, 2, -1)],
        {0: buy(2, 10.00), 1: buy(2, 10.00)}, [("fill", 2, 1, 10.00), ("fill", 3, 1, 10.00), ("fill", 4, 2, 10.00)]),
    "a trade of unknown side may have met either": ([BOOK, t(9.99, 2, 0)], {0: buy(1, 10.00)},
                                                    [("fill", 1, 1, 10.00)]),
    "the same for a sale": ([BOOK, t(10.02, 4, 1), t(10.02, 3, 1)], {0: sell(2, 10.02)}, [("fill", 2, -2, 10.02)]),
    "GTD ends": ([BOOK] * 6, {0: buy(1, 9.0, tif=GTD, life_ms=3)}, [("expired", 3, "")]),
    "a cancel": ([BOOK] * 3, {0: buy(1, 9.0), 1: lambda ctx: ctx.cancel(IDS[0])}, [("cancelled", 1, "")]),
    "a cancel after the fill comes too late": (
        [BOOK, t(9.0, 5, -1), BOOK], {0: buy(1, 10.00), 2: lambda ctx: ctx.cancel(IDS[0])}, [("fill", 1, 1, 10.00)]),
    "another price loses the place": (
        [BOOK, BOOK, BOOK, t(10.00, 4, -1)],
        {0: buy(1, 10.01), 1: lambda ctx: ctx.replace(IDS[0], 1, 10.00)}, [("replaced", 1, 1)]),
    "fewer lots keep it": (
        [BOOK, t(10.00, 5, -1), BOOK, t(10.00, 1, -1)],
        {0: buy(3, 10.00), 2: lambda ctx: ctx.replace(IDS[0], 2, 10.00)}, [("replaced", 2, 2), ("fill", 3, 1, 10.00)]),
    "a replace into the other side is refused for post-only": (
        [BOOK, BOOK], {0: buy(1, 10.00, mask=POST), 1: lambda ctx: ctx.replace(IDS[0], 1, 10.02)},
        [("cancel_reject", 1, "post_only_cross")]),
}  # fmt: skip
STOPS = {
    "a stop waits for its price, then takes": (
        [BOOK, q(10.01, 5, 10.03, 4), q(10.03, 5, 10.05, 4)], {0: buy(2, stop=10.05)}, [("fill", 2, 2, 10.05)]),
    "a trade triggers it too": ([BOOK, t(10.03, 1, 1), BOOK], {0: buy(2, stop=10.03)}, [("fill", 1, 2, 10.02)]),
    "one that the book is past already takes on arrival": ([BOOK, BOOK], {0: buy(2, stop=10.02)},
                                                           [("fill", 0, 2, 10.02)]),
    "a stop-limit rests when the market is past it": (
        [BOOK, q(9.95, 5, 9.97, 4), t(9.99, 3, 1), t(10.00, 3, 1)], {0: sell(2, 9.99, stop=9.98)},
        [("fill", 3, -2, 9.99)]),
}  # fmt: skip


@pytest.mark.parametrize("table", [TAKING, RESTING, STOPS], ids=["taking", "resting", "stops"])
def test_tables(table: dict[str, Any]) -> None:
    for what, (events, wishes, reported) in table.items():
        assert play(tape(*events), wishes) == reported, what


LATE = [BOOK, q(10.00, 5, 10.03, 4), q(10.00, 5, 10.04, 4), q(10.00, 5, 10.05, 4)]
LATENCY = [  # feed of the tape, settings, when and at what a market buy of event 0 is filled
    (0.0, {}, (0, 10.02)),
    (0.0, {"order_ms": 0.5}, (0.5, 10.02)),
    (0.0, {"order_ms": 1.0}, (1, 10.03)),  # at the same moment the market moves first
    (0.5, {"order_ms": 1.0}, (1.5, 10.03)),
    (0.0, {"feed_ms": 0.5, "order_ms": 1.5}, (2, 10.04)),
    (0.0, {"report_ms": 9.0}, (0, 10.02)),
]


@pytest.mark.parametrize(("feed", "settings", "filled"), LATENCY)
def test_an_order_acts_on_the_book_that_exists_when_it_arrives(
    feed: float, settings: dict[str, float], filled: tuple[float, float]
) -> None:
    assert play(tape(*LATE, feed=feed), {0: buy(1)}, **settings) == [("fill", filled[0], 1, filled[1])]


def test_the_kernel_hears_of_a_fill_one_latency_later() -> None:
    seen: list[float] = []
    wishes: dict[int, Any] = {0: buy(1), **{n: lambda ctx: seen.append(ctx.position) for n in range(1, 6)}}
    play(tape(*[BOOK] * 6), wishes, order_ms=1.0, report_ms=2.0)
    assert seen == [0, 0, 1, 1, 1]  # filled at 1, heard at 3, before the market event of that moment


def test_a_replace_that_comes_too_late_leaves_the_order_its_place() -> None:
    """Two of three lots are filled, unheard of, when the replace to two arrives: nothing changes, nobody is ahead."""
    events = tape(BOOK, BOOK, t(10.00, 7, -1), BOOK, t(10.00, 1, -1))
    wishes = {0: buy(3, 10.00), 2: lambda ctx: ctx.replace(IDS[0], 2, 9.99)}
    assert play(events, wishes, order_ms=1.0, report_ms=3.0) == [
        ("fill", 2, 2, 10.00), ("cancel_reject", 3, "bad_order"), ("fill", 4, 1, 10.00)]  # fmt: skip


@pytest.mark.parametrize(("model", "power", "filled"), [("back", 1.0, 0), ("front", 1.0, 1), ("power", 1.0, 0)])
def test_queue_models(model: str, power: float, filled: int) -> None:
    """6 ahead; 3 join behind, then 3 of the 9 are cancelled; 4 trade: only who lost all 3 ahead is next."""
    events = tape(q(10.00, 6, 10.02, 4), q(10.00, 9, 10.02, 4), q(10.00, 6, 10.02, 4), t(10.00, 4, -1))
    assert len(play(events, {0: buy(1, 10.00)}, queue=model, queue_power=power)) == filled


def test_quote_keeps_two_orders_and_moves_what_changed() -> None:
    def two(bid: float, ask: float) -> Callable[[Ctx], Any]:
        return lambda ctx: ctx.quote(bid, ask, 1.0)

    events = tape(*[BOOK] * 6)
    found = play(events, {0: two(9.99, 10.03), 1: two(9.99, 10.03), 2: two(9.98, 10.03), 3: two(9.98, 0.0)})
    assert found == [("replaced", 2, 1), ("cancelled", 3, "")]


def random_ticks(seed: int, n: int) -> Tape:
    """A market in which everything happens: moves, thin and missing sides, trades through the touch."""
    rng = np.random.default_rng(seed)
    mid = 1000 + np.cumsum(rng.choice([-2, -1, 0, 0, 0, 1, 2], n))
    events = blank(n)
    ts = START + np.cumsum(rng.choice([0, MS // 3, MS, 40 * MS], n))
    events["ts"], events["recv"] = ts, np.maximum.accumulate(ts + rng.integers(0, MS, n))
    for event, middle in zip(events, mid.tolist(), strict=True):
        if rng.random() < 0.4:
            event["kind"], event["side"] = codes.TRADE, rng.integers(-1, 2)
            event["price"], event["traded"] = (middle + rng.integers(-1, 3)) * 0.01, rng.integers(1, 9)
        else:
            event["kind"] = codes.QUOTE
            event["bid"], event["ask"] = middle * 0.01, (middle + rng.integers(1, 3)) * 0.01
            event["bid_volume"], event["ask_volume"] = rng.integers(0, 9, 2)
            if rng.random() < 0.02:
                event["ask"], event["ask_volume"] = 0.0, 0.0
    return Tape(frozen(events), (InstrumentInfo("T", tick=0.01),), "0" * 16, "random ticks")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("model", [VenueModel(), VenueModel(order_ms=1.0, report_ms=0.7, feed_ms=0.2, queue="power")],
                         ids=["at once", "late"])  # fmt: skip
def test_laws(seed: int, model: VenueModel) -> None:
    done = check_strategy(MarketMaking(qty=2.0, limit=8.0), random_ticks(seed, 1500), short=300, venue=model)
    assert done.fills > 20


def test_no_fill_is_better_than_the_market_or_larger_than_what_traded_or_was_shown() -> None:
    """Each fill of a maker: at its own price, at a trade there or through it, or at a quote that came to it."""
    events = random_ticks(9, 6000)
    result = prepare(MarketMaking(qty=3.0), events, cash=1e6, order_ms=0.4, report_ms=0.4).run()
    reports, orders = result.raw["reports"], result.raw["orders"]
    fills = reports[reports["code"] == codes.FILL]
    assert len(fills) > 200
    asked = {int(o): set(orders["price"][orders["id"] == o].round(9).tolist()) for o in np.unique(fills["order_id"])}
    assert all(round(float(f["price"]), 9) in asked[int(f["order_id"])] for f in fills)
    rows = events.events
    for ts in np.unique(fills["ts"]):
        here = rows[rows["ts"] == ts]
        trades, quotes = here[here["kind"] == codes.TRADE], here[here["kind"] == codes.QUOTE]
        for side, other in ((1, "ask"), (-1, "bid")):
            ours = fills[(fills["ts"] == ts) & (np.sign(fills["qty"]) == side)]
            if len(ours) == 0:
                continue
            limit = (ours["price"] * side).max() + 1e-9  # the most that any of them paid
            met = trades["traded"][(trades["price"] * side <= limit) & (trades["side"] != side)].sum()
            came = (quotes[other] > 0.0) & (quotes[other] * side <= limit)
            assert np.abs(ours["qty"]).sum() <= met + quotes[f"{other}_volume"][came].sum()


@pytest.mark.parametrize("model", ["back", "front", "power"])
def test_an_order_in_pieces_is_filled_as_if_it_were_whole(model: str) -> None:
    """At one price our orders stand one behind the other: what they get together is the same, however many they are."""

    def got(sizes: tuple[int, ...], seed: int) -> dict[tuple[Any, ...], int]:
        wishes = {n: [lambda ctx, size=size, off=n % 3 * 0.01: ctx.buy(size, ctx.bid - off) for size in sizes]
                  for n in range(3, 240, 12)}  # fmt: skip
        found: dict[tuple[Any, ...], int] = {}
        for word, at, *rest in play(random_ticks(seed, 300), wishes, queue=model, order_ms=0.4):
            if word == "fill":
                found[at, rest[1]] = found.get((at, rest[1]), 0) + rest[0]
        return found

    for seed in range(2):
        whole = got((6,), seed)
        assert len(whole) > 20
        assert got((1, 2, 3), seed) == whole


def test_glft_leans_and_widens_with_volatility() -> None:
    calm, wild = glft(0.1, 0.1, 1.5, 0.9), glft(0.1, 0.4, 1.5, 0.9)
    assert wild[0] > calm[0] and wild[1] == pytest.approx(4 * calm[1])
    assert calm[0] == pytest.approx(math.log(1 + 0.1 / 1.5) / 0.1 + calm[1] / 2)


def test_settings_out_of_range() -> None:
    with pytest.raises(ConfigError, match="queue"):
        VenueModel(queue="middle")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="order_ms"):
        VenueModel(order_ms=-1.0)


def test_to_look_at_the_outputs_changes_nothing() -> None:
    """Orders and reports under way are told with the rest, and still arrive when the drive goes on."""
    rows = [q(10.00, 5, 10.02, 4), t(10.00, 6, -1), q(9.99, 5, 10.01, 4), t(9.99, 7, -1)] * 6
    WISHES.clear()
    WISHES.update({n: [buy(1, 9.99)] for n in range(0, 20, 3)})
    prepared = prepare(Trader(), tape(*rows), cash=1e6, compiled=False, leverage=1e9, order_ms=3.0, report_ms=2.0)
    whole, seen = prepared.drive(), prepared.drive()
    assert whole.advance() == 0
    for cut in range(2, len(rows), 3):
        assert seen.advance(cut) == 0
        seen.drain()
        told = seen.outputs()
        assert told.orders.tobytes() == seen.outputs().orders.tobytes()
    assert seen.advance() == 0
    for name in ("orders", "reports", "refusals", "curve"):
        assert getattr(seen.outputs(), name).tobytes() == getattr(whole.outputs(), name).tobytes(), name
    assert (whole.outputs().reports["code"] == codes.FILL).sum() > 3
