"""The simulated venue by table: a few bars written by hand, and the reports that must come of them."""

from typing import Any

import pytest

from engine.kernel import codes
from tests.backtest.stage import REPLIES, Row, action, bars, play, tape_of

FLAT: Row = (100, 101, 99, 100)
IOC, FOK, DAY, GTD = codes.IOC, codes.FOK, codes.DAY, codes.GTD


def buy(qty: float, limit: float = 0.0, stop: float = 0.0, **more: Any) -> Any:
    return lambda ctx: ctx.buy(qty, limit, stop, **more)


def sell(qty: float, limit: float = 0.0, stop: float = 0.0, **more: Any) -> Any:
    return lambda ctx: ctx.sell(qty, limit, stop, **more)


def filled(minute: float, lots: int, price: float) -> tuple[Any, ...]:
    return ("fill", minute, lots, price)


# name, the order, the bar that it meets, the reports; the bar before is FLAT, the order meets minute 1 to 2
ONE_BAR: list[tuple[str, Any, Row, list[tuple[Any, ...]]]] = [
    ("market buys at the next open", buy(10), (102, 103, 98, 99), [filled(1, 10, 102)]),
    ("market sells at the next open", sell(10), (102, 103, 98, 99), [filled(1, -10, 102)]),
    ("limit below the bar rests", buy(10, 95), (100, 101, 96, 100), []),
    ("limit inside the bar fills at its price", buy(10, 97), (100, 101, 96, 100), [filled(2, 10, 97)]),
    ("limit that is touched rests", buy(10, 96), (100, 101, 96, 100), []),
    ("limit above the open fills at the open", buy(10, 103), (100, 105, 96, 100), [filled(1, 10, 100)]),
    ("limit at the open fills", buy(10, 100), (100, 101, 100, 101), [filled(1, 10, 100)]),
    ("sell limit inside", sell(10, 103), (100, 104, 96, 100), [filled(2, -10, 103)]),
    ("sell limit touched rests", sell(10, 104), (100, 104, 96, 100), []),
    ("sell limit below the open", sell(10, 98), (100, 104, 96, 100), [filled(1, -10, 100)]),
    ("stop inside fills at its price", buy(10, 0, 103), (100, 104, 99, 101), [filled(2, 10, 103)]),
    ("stop at the high fills", buy(10, 0, 104), (100, 104, 99, 101), [filled(2, 10, 104)]),
    ("stop above the bar rests", buy(10, 0, 105), (100, 104, 99, 101), []),
    ("stop that the open gaps through fills at the open", buy(10, 0, 103), (106, 107, 105, 106), [filled(1, 10, 106)]),
    ("stop at the open", buy(10, 0, 106), (106, 107, 105, 106), [filled(1, 10, 106)]),
    ("sell stop inside", sell(10, 0, 97), (100, 104, 96, 101), [filled(2, -10, 97)]),
    ("sell stop gapped", sell(10, 0, 97), (95, 96, 94, 95), [filled(1, -10, 95)]),
    ("sell stop rests", sell(10, 0, 95), (100, 104, 96, 101), []),
    ("stop-limit: inside, limit beyond stop", buy(10, 104, 103), (100, 105, 99, 101), [filled(2, 10, 103)]),
    ("stop-limit: limit at the stop", buy(10, 103, 103), (100, 105, 99, 101), [filled(2, 10, 103)]),
    ("stop-limit: not triggered", buy(10, 104, 103), (100, 102, 99, 101), []),
    ("stop-limit: limit better, close proves it", buy(10, 101, 103), (102, 105, 99, 100), [filled(2, 10, 101)]),
    ("stop-limit: limit better, nothing proves it", buy(10, 101, 103), (102, 105, 99, 104), []),
    ("stop-limit: open beyond stop, within limit", buy(10, 105, 103), (104, 107, 103, 106), [filled(1, 10, 104)]),
    ("stop-limit: open beyond both, comes back", buy(10, 105, 103), (106, 107, 104, 106), [filled(2, 10, 105)]),
    ("stop-limit: open beyond both, stays", buy(10, 105, 103), (106, 107, 105.5, 106), []),
    ("sell stop-limit inside", sell(10, 96, 97), (100, 101, 95, 100), [filled(2, -10, 97)]),
    ("sell stop-limit gapped", sell(10, 93, 97), (95, 96, 92, 95), [filled(1, -10, 95)]),
    ("IOC market", buy(10, tif=IOC), (102, 103, 98, 99), [filled(1, 10, 102)]),
    ("IOC limit at the open", buy(10, 103, tif=IOC), (102, 103, 98, 99), [filled(1, 10, 102)]),
    ("IOC limit off the open", buy(10, 99, tif=IOC), (102, 103, 98, 99), [("cancelled", 1, "no_liquidity")]),
    ("FOK limit at the open", buy(10, 103, tif=FOK), (102, 103, 98, 99), [filled(1, 10, 102)]),
    ("FOK limit off the open", buy(10, 99, tif=FOK), (102, 103, 98, 99), [("cancelled", 1, "no_liquidity")]),
    ("post-only crosses", buy(10, 103, mask=codes.POST_ONLY), (102, 103, 98, 99), [("reject", 1, "post_only_cross")]),
    ("post-only rests", buy(10, 99, mask=codes.POST_ONLY), (102, 103, 98, 99), [filled(2, 10, 99)]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "wish", "bar", "reports"), ONE_BAR, ids=[row[0] for row in ONE_BAR])
def test_one_bar(name: str, wish: Any, bar: Row, reports: list[tuple[Any, ...]]) -> None:
    assert play(bars(FLAT, bar), {0: wish}).reports == reports


def test_touch_by_config() -> None:
    tape = bars(FLAT, (100, 104, 96, 100))
    assert play(tape, {0: buy(10, 96)}, touch=True).reports == [filled(2, 10, 96)]
    assert play(tape, {0: sell(10, 104)}, touch=True).reports == [filled(2, -10, 104)]


def test_a_stop_comes_before_a_limit_in_one_bar() -> None:
    played = play(bars(FLAT, FLAT, (100, 110, 90, 100)), {0: buy(10), 1: [sell(10, 105), sell(10, 0, 95)]})
    assert [r[3] for r in played.reports] == [100, 95, 105]
    assert [r[1] for r in played.reports] == [1, 3, 3]


def test_a_triggered_stop_limit_rests_in_the_next_bar() -> None:
    tape = bars(FLAT, (102, 105, 99, 104), (104, 106, 100, 105))
    assert play(tape, {0: buy(10, 101, 103)}).reports == [filled(3, 10, 101)]
    gap = bars(FLAT, (102, 105, 99, 104), (100, 106, 99, 105))
    assert play(gap, {0: buy(10, 101, 103)}, slippage_bps=10).reports == [filled(2, 10, 100)]  # at rest: no slippage


# order, bar, the price with 100 bps of slippage
SLIPPED: list[tuple[Any, Row, float]] = [
    (buy(10), (100, 101, 99, 100), 101.0),
    (sell(10), (100, 101, 99, 100), 99.0),
    (buy(10, 0, 103), (100, 104, 99, 100), 104.03),
    (sell(10, 0, 97), (100, 104, 96, 100), 96.03),
    (buy(10, 100.5), (100, 101, 99, 100), 100.0),  # a limit never pays more than it meets
    (buy(10, 99.5), (100, 101, 99, 100), 99.5),
    (buy(10, 103.5, 103), (100, 104, 99, 100), 103.5),  # a stop-limit not more than its limit
    (buy(10, 110, 103), (100, 104, 99, 100), 104.03),
    (sell(10, 96.5, 97), (100, 104, 96, 100), 96.5),
]


@pytest.mark.parametrize(("wish", "bar", "price"), SLIPPED)
def test_slippage(wish: Any, bar: Row, price: float) -> None:
    assert [r[3] for r in play(bars(FLAT, bar), {0: wish}, slippage_bps=100).reports] == [price]


def thin(volume: float) -> Row:
    return (100, 101, 99, 100, volume)


def test_participation_over_several_bars() -> None:
    tape = bars(FLAT, thin(40), thin(0), thin(25), thin(1000))
    played = play(tape, {0: buy(9)}, participation=0.1)
    assert played.reports == [filled(1, 4, 100), filled(3, 2, 100), filled(4, 3, 100)]


def test_participation_of_a_limit_and_a_stop() -> None:
    tape = bars(FLAT, (100, 101, 98, 100, 40), (102, 103, 98, 100, 1000))
    assert play(tape, {0: buy(9, 99)}, participation=0.1).reports == [filled(2, 4, 99), filled(3, 5, 99)]
    stop = play(tape, {0: buy(9, 0, 101)}, participation=0.1).reports
    assert stop == [filled(2, 4, 101), filled(2, 5, 102)]  # the rest of a triggered stop takes the next open


def test_two_orders_share_one_participation() -> None:
    played = play(bars(FLAT, thin(100), thin(100)), {0: [buy(7), buy(7)]}, participation=0.1)
    assert played.reports == [filled(1, 7, 100), filled(1, 3, 100), filled(2, 4, 100)]


def test_participation_counts_lots() -> None:
    tape = bars(FLAT, (100, 101, 99, 100, 3.0), lot=0.1)
    assert play(tape, {0: buy(5)}, participation=0.1).reports == [filled(1, 3, 100)]


def test_volume_matters_only_with_a_cap() -> None:
    assert play(bars(FLAT, thin(0)), {0: buy(9)}).reports == [filled(1, 9, 100)]
    assert play(bars(FLAT, thin(0)), {0: buy(9)}, participation=1.0).reports == []


def test_ioc_and_fok_with_too_little_volume() -> None:
    tape = bars(FLAT, thin(40), thin(1000))
    rest = ("cancelled", 1, "no_liquidity")
    assert play(tape, {0: buy(9, tif=IOC)}, participation=0.1).reports == [filled(1, 4, 100), rest]
    assert play(tape, {0: buy(9, tif=FOK)}, participation=0.1).reports == [rest]
    assert play(tape, {0: buy(4, tif=FOK)}, participation=0.1).reports == [filled(1, 4, 100)]


def test_day_orders_end_with_the_day() -> None:
    night = 24 * 60
    tape = bars(FLAT, FLAT, FLAT, minutes=[0, 1, night])
    assert play(tape, {0: buy(9, 90, tif=DAY)}).reports == [("expired", night, "")]
    assert play(bars(FLAT, FLAT, (95, 96, 89, 95), minutes=[0, 1, 2]), {0: buy(9, 90, tif=DAY)}).reports == [
        filled(3, 9, 90)
    ]
    after_close = bars(FLAT, FLAT, FLAT, FLAT, minutes=[0, night, night + 1, 2 * night])
    assert play(after_close, {0: buy(9, 90, tif=DAY)}).reports == [
        ("expired", 2 * night, "")
    ]  # lives through the next day


@pytest.mark.parametrize(("life", "reports"), [(60_000, [("expired", 2, "")]), (60_001, [filled(3, 9, 90)])])
def test_gtd_ends_at_the_first_open_after_its_life(life: int, reports: list[Any]) -> None:
    tape = bars(FLAT, FLAT, (95, 96, 89, 95))
    assert play(tape, {0: buy(9, 90, tif=GTD, life_ms=life)}).reports == reports


def test_gtc_stays() -> None:
    tape = bars(FLAT, FLAT, (95, 96, 89, 95), minutes=[0, 1, 90 * 24 * 60])
    assert play(tape, {0: buy(9, 90)}).reports == [filled(90 * 24 * 60 + 1, 9, 90)]


REDUCE = codes.REDUCE_ONLY


def test_reduce_only_is_clipped_when_the_position_has_shrunk() -> None:
    played = play(bars(FLAT, FLAT, FLAT, (100, 106, 99, 100)), {0: buy(10), 1: sell(10, 105, mask=REDUCE), 2: sell(4)})
    assert played.reports == [
        filled(1, 10, 100),
        filled(3, -4, 100),
        filled(4, -6, 105),
        ("cancelled", 4, "reduce_only_side"),
    ]
    assert played.net == [0]


def test_reduce_only_with_nothing_left_is_cancelled() -> None:
    played = play(bars(FLAT, FLAT, FLAT, (100, 106, 99, 100)), {0: buy(10), 1: sell(10, 105, mask=REDUCE), 2: sell(10)})
    assert played.reports == [filled(1, 10, 100), filled(3, -10, 100), ("cancelled", 4, "reduce_only_side")]


def test_reduce_only_in_thin_bars() -> None:
    tape = bars(FLAT, thin(1e4), thin(30), thin(50), thin(1e4))
    played = play(tape, {0: buy(10), 1: sell(10, mask=REDUCE)}, participation=0.1)
    assert [r[2] for r in played.reports] == [10, -3, -5, -2]


def first(ctx: Any) -> int:
    """The id of the first order of a session."""
    return 1 << 40 | 1


# what is asked at bar 1 of an order to buy 10 at 95 that is open since bar 0; the bar that follows; the reports
CHANGES: list[tuple[str, Any, list[tuple[Any, ...]]]] = [
    ("cancel", lambda ctx: ctx.cancel(first(ctx)), [("cancelled", 2, "")]),
    ("cancel all", lambda ctx: ctx.cancel_all(), [("cancelled", 2, "")]),
    ("more", lambda ctx: ctx.replace(first(ctx), 15), [("replaced", 2, 15), filled(3, 15, 95)]),
    ("less", lambda ctx: ctx.replace(first(ctx), 4), [("replaced", 2, 4), filled(3, 4, 95)]),
    ("another price", lambda ctx: ctx.replace(first(ctx), 10, 97), [("replaced", 2, 10), filled(3, 10, 97)]),
    ("through the open", lambda ctx: ctx.replace(first(ctx), 10, 101), [("replaced", 2, 10), filled(2, 10, 100)]),
]


@pytest.mark.parametrize(("name", "wish", "reports"), CHANGES, ids=[row[0] for row in CHANGES])
def test_cancel_and_replace(name: str, wish: Any, reports: list[tuple[Any, ...]]) -> None:
    assert play(bars(FLAT, FLAT, (100, 101, 94, 100)), {0: buy(10, 95), 1: wish}).reports == reports


def test_replace_of_a_partly_filled_order() -> None:
    tape = bars(FLAT, thin(40), thin(1000), thin(1000))
    more = play(tape, {0: buy(9), 1: lambda ctx: ctx.replace(first(ctx), 12)}, participation=0.1)
    assert more.reports == [filled(1, 4, 100), ("replaced", 2, 12), filled(2, 8, 100)]
    less = play(tape, {0: buy(9), 1: lambda ctx: ctx.replace(first(ctx), 4)}, participation=0.1)
    assert (less.reports, less.refused) == ([filled(1, 4, 100), filled(2, 5, 100)], ["bad_order"])


def test_a_cancel_that_comes_too_late() -> None:
    REPLIES.append(lambda report, ctx: ctx.cancel(first(ctx) + 1) if report.code == codes.FILL else None)
    try:
        played = play(
            bars(FLAT, FLAT), {0: [buy(1), buy(2)]}
        )  # the second is filled while the first one's fill is heard
    finally:
        REPLIES.clear()
    assert played.reports[:2] == [filled(1, 1, 100), filled(1, 2, 100)]
    assert played.reports[2][0] == "cancel_reject"
    assert played.net == [3]


def test_a_late_cancel_with_bars_of_other_lengths() -> None:
    """The cancel leaves when the early fill is heard, the order has been filled later in the same timestamp."""
    REPLIES.append(lambda report, ctx: ctx.cancel(first(ctx) + 1) if report.code == codes.FILL else None)
    try:
        played = play(bars(FLAT, (100, 101, 94, 100)), {0: [buy(1), buy(2, 95)]})
    finally:
        REPLIES.clear()
    assert [r[0] for r in played.reports] == ["fill", "fill", "cancel_reject"]
    assert [r[1] for r in played.reports] == [1, 2, 2]


def test_short_selling() -> None:
    assert play(bars(FLAT, FLAT), {0: sell(5)}).net == [-5]
    assert play(bars(FLAT, FLAT), {0: sell(5)}, short=False).refused == ["short_sale"]
    assert play(bars(FLAT, FLAT, shortable=False), {0: sell(5)}).refused == ["short_sale"]


def test_margin_when_it_is_asked_for_and_when_it_is_filled() -> None:
    asked = play(bars(FLAT, FLAT), {0: buy(11)}, cash=1000.0, leverage=1.0)
    assert (asked.refused, asked.reports) == (["margin"], [])
    gapped = play(bars(FLAT, (101, 102, 100, 101)), {0: buy(10)}, cash=1000.0, leverage=1.0)
    assert (gapped.refused, gapped.reports) == ([], [("reject", 1, "margin")])
    assert gapped.cash == 1000.0
    fee = play(bars(FLAT, FLAT), {0: buy(10)}, cash=1000.0, leverage=1.0, taker_bps=1.0)
    assert fee.reports == [("reject", 1, "margin")]
    assert play(bars(FLAT, FLAT, margin=0.1), {0: buy(100)}, cash=1000.0, leverage=1.0).net == [100]


def test_a_sale_pays_for_a_purchase_at_the_same_open() -> None:
    tape = bars(FLAT, FLAT, FLAT, others=[[FLAT, FLAT, FLAT]])
    swap = [lambda ctx: ctx.target(10, 1), lambda ctx: ctx.target(0, 0)]
    played = play(tape, {0: buy(10), 1: swap}, cash=1000.0, leverage=1.0)
    assert (played.net, played.refused, played.cash) == ([0, 10], [], 0.0)
    assert [(r[1], r[2]) for r in played.reports] == [(1, 10), (2, -10), (2, 10)]


# order, the fee of a fill of 10 lots at 100 (or 99 for the resting limit)
FEES: list[tuple[dict[str, float], Any, float]] = [
    ({"taker_bps": 10.0, "maker_bps": 2.0}, buy(10), 1.0),
    ({"taker_bps": 10.0, "maker_bps": 2.0}, buy(10, 99.5), 0.199),
    ({"taker_bps": 10.0, "maker_bps": 2.0}, buy(10, 100.5), 1.0),  # a limit that meets the open takes
    ({"taker_bps": 10.0, "maker_bps": 2.0}, buy(10, 0, 100.5), 1.005),
    ({"maker_bps": -2.0, "fee_min": -1.0}, buy(10, 99.5), 0.0),
    ({"fee_per_unit": 0.005}, buy(10), 0.05),
    ({"fee_per_unit": 0.005, "fee_min": 1.0}, buy(10), 1.0),
    ({"fee_per_unit": 0.2, "fee_min": 1.0}, buy(10), 2.0),
    ({"fee_per_unit": 0.1, "taker_bps": 10.0}, buy(10), 2.0),
]


@pytest.mark.parametrize(("fees", "wish", "fee"), [row for row in FEES if row[0].get("fee_min", 0) >= 0])
def test_fees(fees: dict[str, float], wish: Any, fee: float) -> None:
    assert play(bars(FLAT, FLAT), {0: wish}, **fees).fees == [pytest.approx(fee, abs=1e-12)]


# lots held, ratio: lots after, cash for the fraction at the last close of 100
SPLITS = [
    (10, 2.0, 20, 0.0),
    (15, 0.1, 1, 50 * 10.0),
    (-15, 0.1, -1, -50 * 10.0),
    (3, 1.5, 4, 0.5 * 100 / 1.5),
    (-10, 2.0, -20, 0.0),
]


@pytest.mark.parametrize("at", [2.0, 2.5])  # at the close of the bar before it, and between two bars
@pytest.mark.parametrize(("held", "ratio", "after", "paid"), SPLITS)
def test_split(held: int, ratio: float, after: int, paid: float, at: float) -> None:
    before = bars(FLAT, FLAT)
    later = bars((100 / ratio,) * 4, minutes=[3])
    events = [*(before.events[i : i + 1] for i in range(2)), action(codes.SPLIT, at, ratio), later.events]
    played = play(tape_of(events), {0: lambda ctx: ctx.target(held)})
    assert played.net == [after]
    assert played.cash == pytest.approx(1e6 - held * 100 + paid, abs=1e-6)
    assert played.cash + after * 100 / ratio == pytest.approx(1e6)


def test_a_split_cancels_orders_after_the_bar_that_closed_before_it() -> None:
    before, later = bars(FLAT, (100, 101, 94, 100)), bars((50, 51, 44, 50), minutes=[2])
    events = [before.events[:1], before.events[1:], action(codes.SPLIT, 2.0, 2.0), later.events]
    played = play(tape_of(events), {0: [buy(10, 95), buy(5, 90)]})
    assert played.reports == [filled(2, 10, 95), ("cancelled", 2, "")]
    assert played.net == [20]


@pytest.mark.parametrize(("held", "paid"), [(10, 15.0), (-10, -15.0)])
def test_dividend(held: int, paid: float) -> None:
    before, later = bars(FLAT, FLAT), bars(FLAT, minutes=[3])
    events = [before.events[:1], before.events[1:], action(codes.DIVIDEND, 2.5, 1.5), later.events]
    assert play(tape_of(events), {0: lambda ctx: ctx.target(held)}).cash == 1e6 - held * 100 + paid


def test_funding() -> None:
    before, later = bars(FLAT, FLAT), bars(FLAT, minutes=[3])
    events = [before.events[:1], before.events[1:], action(codes.FUNDING, 2.5, 0.001), later.events]
    assert play(tape_of(events), {0: buy(10)}).cash == 1e6 - 1000 - 1.0


def test_two_strategies_share_the_lots_of_a_split() -> None:
    before, later = bars(FLAT, FLAT), bars((67, 67, 67, 67), minutes=[3])
    events = [before.events[:1], before.events[1:], action(codes.SPLIT, 2.5, 1.5), later.events]
    assert play(tape_of(events), {0: buy(1)}, strategies=2).net == [3]
