"""Positions and account: fills, splits, dividends, corrections, and what broken reports may not do."""

import math

import pytest

from engine.kernel import codes
from tests.kernel.desk import ON_REPORT, Desk


def test_average_price_and_profit_through_a_flip() -> None:
    desk = Desk()
    for qty, price in ((10, 100.0), (20, 110.0), (-5, 120.0)):
        orders = desk.wish(lambda ctx, qty=qty: ctx.target(qty), price=price)
        for order in orders:
            desk.fill(order, price=price, fee=1.0)
    p = desk.machine.table("positions_at")[0]
    assert (p["qty"], p["average"], p["fees"], p["fills"]) == (-5, 120.0, 3.0, 3)
    assert p["realised"] == pytest.approx(20 * (120.0 - 105.0))
    assert desk.k.cash == 1e6 - 10 * 100 - 10 * 110 + 25 * 120 - 3
    assert desk.k.cash + desk.k.value == pytest.approx(1e6 + 300 - 3)


def test_flat_is_exactly_zero() -> None:
    desk = Desk(lot=0.1)
    desk.hold(0.3, price=0.1)
    desk.hold(0.7, i=1, price=0.3)
    desk.bar(0.7)
    desk.hold(0, price=0.7)
    desk.hold(0, i=1, price=0.9)
    assert (desk.k.held, desk.k.value, desk.k.gross, desk.k.used) == (0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("held", "ratio", "after"),
    [
        ((10,), 2.0, (20,)),
        ((-10,), 2.0, (-20,)),
        ((10,), 0.1, (1,)),
        ((15,), 0.1, (1,)),  # half a lot is paid out
        ((-15,), 0.1, (-1,)),
        ((5,), 0.1, (0,)),
        ((1, 1), 1.5, (1, 2)),  # the account's three lots, not one and one
        ((1, 1, 1), 1 / 3, (0, 0, 1)),
        ((1, -1), 1.5, (1, -1)),
        ((3, -4), 0.5, (1, -1)),
        ((-1, -1), 1.5, (-1, -2)),
    ],
)
def test_split(held: tuple[int, ...], ratio: float, after: tuple[int, ...]) -> None:
    desk = Desk(strategies=len(held))
    for s, qty in enumerate(held):
        desk.hold(qty, s=s, price=90.0)
    desk.bar(100.0)
    before = desk.k.cash + desk.k.value
    desk.event(codes.SPLIT, amount=ratio)
    assert tuple(desk.position(0, s) for s in range(len(held))) == after
    assert desk.market("net") == int(abs(sum(held)) * ratio + 1e-9) * (1 if sum(held) >= 0 else -1)
    assert desk.market("mark") == pytest.approx(100.0 / ratio)
    assert desk.k.cash + desk.k.value == pytest.approx(before, rel=1e-12)
    table = desk.machine.table("positions_at")
    unrealised = sum(r["qty"] * (100.0 / ratio - r["average"]) for r in table[:: desk.k.instruments])
    assert desk.k.cash + desk.k.value == pytest.approx(1e6 + desk.k.realised + unrealised, rel=1e-12)


@pytest.mark.parametrize(("qty", "paid"), [(10, 5.0), (-10, -5.0), (0, 0.0)])
def test_dividend(qty: int, paid: float) -> None:
    desk = Desk()
    desk.hold(qty)
    cash = desk.k.cash
    desk.event(codes.DIVIDEND, amount=0.5)
    assert desk.k.cash - cash == paid


def test_funding_is_paid_by_longs() -> None:
    desk = Desk(multiplier=2.0)
    desk.hold(10)
    cash = desk.k.cash
    desk.event(codes.FUNDING, amount=0.01)
    assert desk.k.cash - cash == -10 * 100.0 * 2.0 * 0.01


def test_correction_takes_a_position_over_without_a_fill() -> None:
    desk = Desk(strategies=2)
    desk.bar()
    desk.event(codes.CORRECTION, order_id=1, qty=7, price=50.0)
    assert (desk.position(0, 0), desk.position(0, 1)) == (0, 7)
    assert desk.k.cash == 1e6 - 350.0
    assert desk.machine.table("positions_at")["fills"].sum() == 0


@pytest.mark.parametrize("strategy", [-1, 1, 99])
def test_correction_of_no_strategy_is_an_anomaly(strategy: int) -> None:
    desk = Desk()
    desk.bar()
    desk.event(codes.CORRECTION, order_id=strategy, qty=7, price=50.0)
    assert desk.k.unknown_reports == 1
    assert (desk.market("net", 0), desk.market("net", 1), desk.k.cash) == (0, 0, 1e6)


def test_correction_of_nothing_changes_nothing() -> None:
    desk = Desk()
    desk.bar()
    desk.event(codes.CORRECTION, order_id=0, qty=0, price=50.0)
    assert desk.machine.table("positions_at")["average"][0] == 0.0


def test_fill_of_nothing_is_an_anomaly_that_no_strategy_hears_of() -> None:
    desk = Desk()
    (order,) = desk.wish(lambda ctx: ctx.buy(5))
    heard: list[int] = []
    ON_REPORT.append(lambda report, ctx: heard.append(1))
    desk.report(order, codes.FILL, 0)
    assert (desk.k.unknown_reports, desk.state(order), heard) == (1, "sent", [])
    desk.report(order, codes.ACK)
    assert heard == [1]
    assert not math.isnan(desk.machine.table("positions_at")["average"][0])
