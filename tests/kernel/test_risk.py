"""Every risk check by table: just inside, at, and just outside the limit; what a refusal says; what a breach does."""

import math

import pytest

from engine.kernel import codes
from tests.kernel.desk import DAY, SECOND, Desk, Wish, buy, sell, target

# limits, wishes at a price of 100, reason (None: all pass), the value and the limit that were compared
TABLE: list[tuple[dict[str, float], list[Wish], str | None, float, float]] = [
    ({"order_qty": 10}, [buy(9)], None, 0, 0),
    ({"order_qty": 10}, [buy(10)], None, 0, 0),
    ({"order_qty": 10}, [buy(11)], "order_qty", 11, 10),
    ({"order_qty": 10}, [target(-11)], "order_qty", 11, 10),
    ({"order_value": 1000}, [buy(9)], None, 0, 0),
    ({"order_value": 1000}, [buy(10)], None, 0, 0),
    ({"order_value": 1000}, [buy(11)], "order_value", 1100, 1000),
    ({"order_value": 1000}, [buy(10, 100.01)], "order_value", 1000.1, 1000),
    ({"order_value": 1000}, [sell(11, 90.0)], None, 0, 0),
    ({"position": 10}, [buy(9)], None, 0, 0),
    ({"position": 10}, [buy(10)], None, 0, 0),
    ({"position": 10}, [buy(11)], "position", 11, 10),
    ({"position": 10}, [sell(11)], "position", 11, 10),
    ({"position": 10}, [buy(6), buy(4)], None, 0, 0),
    ({"position": 10}, [buy(6), buy(5)], "position", 11, 10),  # two orders cannot break together what each keeps
    ({"position": 10}, [buy(6, 99.0), buy(5, 98.0)], "position", 11, 10),
    ({"position": 10}, [buy(10, 99.0), sell(10, 101.0)], None, 0, 0),  # the worst of both sides, not their sum
    ({"position": 10}, [sell(6, 101.0), sell(5, 102.0)], "position", 11, 10),
    ({"gross": 1000}, [buy(9)], None, 0, 0),
    ({"gross": 1000}, [buy(10)], None, 0, 0),
    ({"gross": 1000}, [buy(11)], "gross_exposure", 1100, 1000),
    ({"gross": 1000}, [sell(11)], "gross_exposure", 1100, 1000),
    ({"gross": 1000}, [buy(6, 99.0), buy(5, 99.0)], "gross_exposure", 1100, 1000),
    ({"net": 1000}, [buy(9)], None, 0, 0),
    ({"net": 1000}, [buy(10)], None, 0, 0),
    ({"net": 1000}, [buy(11)], "net_exposure", 1100, 1000),
    ({"net": 1000}, [sell(11)], "net_exposure", 1100, 1000),
    ({"net": 1000}, [buy(6), buy(5)], "net_exposure", 1100, 1000),
    ({"open_orders": 2}, [buy(1, 99.0)], None, 0, 0),
    ({"open_orders": 2}, [buy(1, 99.0)] * 2, None, 0, 0),
    ({"open_orders": 2}, [buy(1, 99.0)] * 3, "open_orders", 3, 2),
    ({"rate": 1.0, "burst": 2.0}, [buy(1)] * 2, None, 0, 0),
    ({"rate": 1.0, "burst": 2.0}, [buy(1)] * 3, "order_rate", 0, 1),
    ({"collar": 0.1}, [buy(1, 109.9)], None, 0, 0),
    ({"collar": 0.1}, [buy(1, 110.0)], None, 0, 0),
    ({"collar": 0.1}, [buy(1, 110.1)], "price_collar", 0.101, 0.1),
    ({"collar": 0.1}, [sell(1, 90.0)], None, 0, 0),
    ({"collar": 0.1}, [sell(1, 89.9)], "price_collar", 0.101, 0.1),
    ({"collar": 0.1}, [buy(1, stop=110.0)], None, 0, 0),
    ({"collar": 0.1}, [buy(1, stop=110.1)], "price_collar", 0.101, 0.1),
    ({"leverage": 1}, [buy(9_999)], None, 0, 0),
    ({"leverage": 1}, [buy(10_000)], None, 0, 0),
    ({"leverage": 1}, [buy(10_001)], "margin", 1_000_100, 1_000_000),
    ({"leverage": 1}, [sell(10_001)], "margin", 1_000_100, 1_000_000),
    ({"leverage": 2}, [buy(20_000)], None, 0, 0),
    ({"leverage": 1}, [buy(6_000), buy(4_001, 99.0)], "margin", 1_000_100, 1_000_000),
    ({"short": 0}, [sell(1)], "short_sale", -1, 0),
    ({"short": 1}, [sell(1)], None, 0, 0),
    ({"self_match": 1}, [buy(1, 99.0), sell(1, 99.01)], None, 0, 0),
    ({"self_match": 1}, [buy(1, 99.0), sell(1, 99.0)], "self_match", 99.0, 99.0),
    ({"self_match": 1}, [buy(1, 99.0), sell(1, 98.0)], "self_match", 98.0, 99.0),
    ({"self_match": 1}, [sell(1, 101.0), buy(1)], "self_match", 0.0, 101.0),
    ({"self_match": 1}, [buy(1, 99.0), buy(1, 99.0)], None, 0, 0),
    ({"self_match": 0}, [buy(1, 99.0), sell(1, 99.0)], None, 0, 0),
    ({}, [buy(0)], "bad_order", 0, 0),
    ({}, [buy(0.9)], "bad_order", 0, 0),
    ({}, [buy(-1)], "bad_order", 0, 0),
    ({}, [buy(math.nan)], "bad_order", 0, 0),
    ({}, [buy(math.inf)], "bad_order", 0, 0),
    ({}, [buy(1e300)], "bad_order", 0, 0),
    ({}, [buy(1, -1.0)], "bad_order", 0, 0),
    ({}, [buy(1, math.nan)], "bad_order", 0, 0),
    ({}, [buy(1, math.inf)], "bad_order", 0, 0),
    ({}, [buy(1, stop=-1.0)], "bad_order", 0, 0),
    ({}, [buy(1, stop=math.nan)], "bad_order", 0, 0),
    ({}, [buy(1, 0.001)], "bad_order", 0, 0),  # less than a tick: nothing is left of the price
    ({}, [sell(1, stop=0.001)], "bad_order", 0, 0),
    ({}, [buy(1, 99.0, tif=0)], "bad_order", 0, 0),
    ({}, [buy(1, 99.0, tif=6)], "bad_order", 0, 0),
    ({}, [buy(1, mask=codes.POST_ONLY)], "bad_order", 0, 0),
    ({}, [buy(1, 99.0, stop=101.0, mask=codes.POST_ONLY)], "bad_order", 0, 0),
    ({}, [target(math.nan)], "bad_order", 0, 0),
    ({}, [target(math.inf)], "bad_order", 0, 0),
    ({}, [target(1e300)], "bad_order", 0, 0),
    ({}, [sell(1, mask=codes.REDUCE_ONLY)], "reduce_only_side", -1, 0),
]  # fmt: skip


@pytest.mark.parametrize(("limits", "wishes", "reason", "value", "limit"), TABLE)
def test_limit(limits: dict[str, float], wishes: list[Wish], reason: str | None, value: float, limit: float) -> None:
    desk = Desk(limits)
    orders = desk.wish(*wishes)
    refused = desk.refused()
    if reason is None:
        assert (len(orders), refused) == (len(wishes), [])
        return
    assert [r[0] for r in refused] == [reason]
    assert len(orders) == len(wishes) - 1
    if limit or value:
        assert refused[0][1:] == (pytest.approx(value), pytest.approx(limit))
    table = desk.machine.table("open_at")
    assert desk.k.opened == len(orders) == (table["state"] != codes.FREE).sum()  # what was refused gave its slot back


def test_a_refusal_says_when_who_what_and_why() -> None:
    desk = Desk({"order_qty": 10}, strategies=2)
    desk.wish(lambda ctx: ctx.sell(11, 105.0), i=1, s=1)
    row = desk.machine.table("refusals_at")[0]
    said = {name: row[name].item() for name in row.dtype.names}
    assert said == {"ts": desk.now, "seq": 1, "order_id": row["order_id"], "qty": -11, "price": 105.0, "value": 11.0,
                    "limit": 10.0, "instrument": 1, "strategy": 1, "reason": codes.ORDER_QTY, "breach": 0}  # fmt: skip


@pytest.mark.parametrize(
    ("info", "reason"),
    [({"allowed": 0}, "not_allowed"), ({"blocked": 1}, "blocked"), ({"shortable": 0}, "short_sale"), ({}, None)],
)
def test_lists(info: dict[str, int], reason: str | None) -> None:
    desk = Desk(**info)
    desk.wish(sell(1))
    assert desk.reasons() == ([] if reason is None else [reason])


@pytest.mark.parametrize("cash", [0.0, -50.0, 1.0])
def test_without_a_leverage_limit_margin_is_never_the_reason(cash: float) -> None:
    desk = Desk({"leverage": float("inf")}, cash=cash)
    assert len(desk.wish(buy(3), sell(4, 101.0))) == 2 and desk.reasons() == []


def test_units_count_with_lot_multiplier_and_margin() -> None:
    desk = Desk({"position": 2.0, "gross": 1_000.0, "leverage": 1.0}, lot=0.5, multiplier=5.0, margin=0.2, cash=200.0)
    assert [o["qty"] for o in desk.wish(buy(2.0))] == [4]  # 2 units of 5 x 100 = 1,000 gross, 200 of margin
    desk.wish(buy(0.5))
    assert desk.reasons() == ["position"]


def test_no_market_before_the_first_price() -> None:
    desk = Desk()
    desk.wish(lambda ctx: ctx.target(1, 1), buy(1))
    assert desk.reasons() == ["no_market"]


@pytest.mark.parametrize(("age", "passes"), [(9, True), (10, True), (11, False)])
def test_stale_market(age: int, passes: bool) -> None:
    desk = Desk({"stale_ns": 10 * SECOND})
    desk.bar(i=1)
    desk.wish(lambda ctx: ctx.buy(1, instrument=1), after=age * SECOND)
    assert desk.refused() == ([] if passes else [("stale_market", 11.0 * SECOND, 10.0 * SECOND)])


def test_tokens_return_with_event_time() -> None:
    desk = Desk({"rate": 0.5, "burst": 2.0})
    desk.wish(buy(1), buy(1), buy(1))
    assert desk.reasons() == ["order_rate"]
    desk.wish(buy(1))  # one second gives half a token
    assert desk.reasons() == ["order_rate"]
    assert len(desk.wish(buy(1))) == 1
    assert len(desk.wish(buy(1), buy(1), buy(1), after=3600 * SECOND)) == 2  # never more than the burst
    assert desk.reasons() == ["order_rate"]


def test_cancels_need_no_token() -> None:
    desk = Desk({"rate": 0.0, "burst": 1.0})
    (order,) = desk.wish(buy(1, 99.0))
    assert [o["action"] for o in desk.wish(lambda ctx: ctx.cancel(order["id"]))] == [codes.CANCEL]


# what is held, a limit, wishes: a reduction passes what an increase does not
REDUCTIONS: list[tuple[int, dict[str, float], Wish, str | None]] = [
    (10, {"position": 5}, sell(10), None),
    (10, {"position": 5}, sell(4, 101.0), None),
    (10, {"position": 5}, sell(16), "position"),  # beyond zero it is no reduction
    (-10, {"position": 5}, buy(10), None),
    (-10, {"position": 5}, buy(16), "position"),
    (10, {"gross": 500}, sell(3), None),
    (10, {"net": 500}, sell(3), None),
    (10, {"leverage": 1e-6}, sell(10), None),
    (10, {"short": 0}, sell(10), None),
    (10, {"short": 0}, sell(11), "short_sale"),
    (10, {"order_qty": 5}, sell(6), "order_qty"),  # limits on the order itself hold for all
    (10, {"collar": 0.1}, sell(1, 120.0), "price_collar"),
]


@pytest.mark.parametrize(("held", "limits", "wish", "reason"), REDUCTIONS)
def test_reductions(held: int, limits: dict[str, float], wish: Wish, reason: str | None) -> None:
    desk = Desk()
    desk.hold(held)
    for name, value in limits.items():
        setattr(desk.k.limits, name, value)
    orders = desk.wish(wish)
    assert (desk.reasons(), len(orders)) == (([], 1) if reason is None else ([reason], 0))


def test_two_reductions_together_do_not_pass_zero() -> None:
    desk = Desk()
    desk.hold(10)
    desk.k.limits.position = 5.0
    assert len(desk.wish(sell(6, 101.0), sell(10, 102.0))) == 1
    assert desk.reasons() == ["position"]


@pytest.mark.parametrize(("loss", "breached"), [(99, False), (100, False), (101, True)])
def test_daily_loss(loss: int, breached: bool) -> None:
    desk = Desk({"daily_loss": 100.0})
    desk.hold(1, price=1000.0)
    desk.bar(1000.0 - loss)
    assert desk.refused() == ([("daily_loss", 1e6 - loss, 1e6 - 100)] if breached else [])
    desk.wish(buy(1), price=1000.0 - loss)
    assert desk.reasons() == (["daily_loss"] if breached else [])


@pytest.mark.parametrize(("price", "breached"), [(901, False), (900, False), (899, True)])
def test_drawdown_from_the_peak(price: int, breached: bool) -> None:
    desk = Desk({"drawdown": 0.1}, cash=1_000.0)
    desk.hold(1, price=500.0)
    desk.bar(1_500.0)  # equity 2,000: the floor is 1,800
    desk.bar(price + 400.0)
    assert desk.refused() == ([("drawdown", 1_799.0 + price - 899, 1_800.0)] if breached else [])
    desk.wish(buy(1), i=1)
    assert desk.reasons() == (["drawdown"] if breached else [])


def test_a_reduction_passes_loss_limits() -> None:
    desk = Desk({"daily_loss": 100.0})
    desk.hold(10)
    desk.bar(80.0)
    assert desk.reasons() == ["daily_loss"]
    assert len(desk.wish(sell(4), sell(6, 81.0, mask=codes.REDUCE_ONLY), price=80.0)) == 2
    assert desk.reasons() == []


def test_the_day_ends_its_loss_but_not_the_drawdown() -> None:
    desk = Desk({"daily_loss": 100.0})
    desk.hold(10)
    desk.bar(80.0)
    desk.wish(buy(1), price=80.0)
    assert desk.reasons() == ["daily_loss", "daily_loss"]
    assert len(desk.wish(buy(1), price=80.0, after=DAY)) == 1
    desk.bar(69.0)
    assert desk.reasons() == ["daily_loss"]  # 110 lost since the day began
    desk = Desk({"drawdown": 0.0001})
    desk.hold(10)
    desk.bar(80.0)
    desk.wish(buy(1), price=100.0, after=DAY)
    assert desk.reasons() == ["drawdown", "drawdown"]


def test_a_drawdown_after_a_daily_loss_is_seen() -> None:
    desk = Desk({"daily_loss": 100.0, "drawdown": 0.0005})
    desk.hold(10)
    desk.bar(89.0)
    assert desk.reasons() == ["daily_loss"]
    desk.bar(40.0)
    assert desk.reasons() == ["drawdown"]
    desk.wish(buy(1), price=100.0, after=DAY)
    assert desk.reasons() == ["drawdown"]


@pytest.mark.parametrize("confirmed", [False, True])
def test_an_order_that_only_moves_counts_at_the_present_price(confirmed: bool) -> None:
    """Limits on exposure see what it may come to now, not when it was sent."""
    desk = Desk({"gross": 2_500.0})
    (order,) = desk.wish(buy(10, 90.0))
    desk.report(order, codes.ACK)
    assert desk.k.extra == 1_000.0
    (order,) = desk.wish(lambda ctx: ctx.replace(order["id"], 10, 120.0), price=140.0)
    assert desk.k.extra == 1_400.0
    desk.bar(160.0)
    if confirmed:
        desk.report(order, codes.REPLACED, 10, 120.0)
        assert desk.k.extra == 1_600.0
    assert not desk.wish(buy(12), i=1) and desk.refused()[0][0] == "gross_exposure"
