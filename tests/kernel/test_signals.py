"""Signals: the bounded queue, aggregation, priority, and how quantities and prices meet their grids."""

import math
from typing import Any

import pytest

from engine.kernel import codes
from engine.kernel.machine import Sizes
from engine.kernel.wishes import TOO_MANY, to_lots, to_tick
from tests.kernel.desk import WISHES, Desk, grid


@pytest.mark.parametrize(
    ("qty", "lot", "lots"),
    [
        (10.0, 1.0, 10),
        (10.9, 1.0, 10),
        (-10.9, 1.0, -10),
        (0.3, 0.1, 3),
        (-0.3, 0.1, -3),
        (0.7, 0.1, 7),
        (2.9999999, 1.0, 3),
        (0.0, 1.0, 0),
        (0.4, 1.0, 0),
        (math.nan, 1.0, 0),
        (math.inf, 1.0, int(TOO_MANY)),
        (-1e300, 1.0, -int(TOO_MANY)),
        (1e15, 1.0, 10**15),
        (1e-8, 1e-8, 1),
    ],
)
def test_to_lots(qty: float, lot: float, lots: int) -> None:
    assert to_lots(qty, lot) == lots


@pytest.mark.parametrize(
    ("price", "tick", "side", "on_grid"),
    [
        (100.0, 0.01, 1, 100.0),
        (100.004, 0.01, 1, 100.0),
        (100.004, 0.01, -1, 100.01),
        (99.999, 0.25, 1, 99.75),
        (99.999, 0.25, -1, 100.0),
        (0.001, 0.01, 1, 0.0),
        (0.001, 0.01, -1, 0.01),
        (0.1 + 0.2, 0.1, -1, 0.3),
        (1e300, 0.01, 1, 1e300),
    ],
)
def test_to_tick(price: float, tick: float, side: int, on_grid: float) -> None:
    assert to_tick(price, grid(tick), side) == pytest.approx(on_grid, rel=1e-15)


def test_a_later_target_replaces_an_earlier_one() -> None:
    desk = Desk()
    orders = desk.wish(
        lambda ctx: ctx.target(10), lambda ctx: ctx.target(3), lambda ctx: ctx.target(2, 1), lambda ctx: ctx.target(4)
    )
    desk.bar(i=1)
    assert [(o["instrument"], o["qty"]) for o in orders] == [(0, 4)]
    assert desk.reasons() == ["no_market"]


def test_targets_of_strategies_stand_side_by_side() -> None:
    desk = Desk(strategies=2)
    WISHES[1] = [lambda ctx: ctx.target(-4)]
    assert [(o["strategy"], o["side"] * o["qty"]) for o in desk.wish(lambda ctx: ctx.target(10))] == [(0, 10), (1, -4)]


def test_weights_are_of_equity_at_the_last_price() -> None:
    desk = Desk(cash=10_000.0, multiplier=2.0)
    assert [o["qty"] for o in desk.wish(lambda ctx: ctx.target_weight(0.5), price=30.0)] == [83]  # 5,000 / 60
    assert desk.wish(lambda ctx: ctx.target_weight(math.nan), price=30.0) == []
    assert desk.reasons() == ["bad_order"]


def test_priority_then_reductions_then_registration() -> None:
    desk = Desk({"gross": 1000.0}, instruments=3, strategies=2)
    desk.hold(10, i=0)
    desk.bar(i=1)
    desk.bar(i=2)
    orders = desk.wish(lambda ctx: ctx.target(10, 1), lambda ctx: ctx.target(0, 0), i=2)
    assert [(o["instrument"], o["side"]) for o in orders] == [(0, -1), (1, 1)]  # the sale makes room first
    desk = Desk()
    wishes = [lambda ctx, p=p: ctx.buy(9 + p, 99.0, priority=p) for p in (0, 5, -3, 5)]
    assert [o["priority"] for o in desk.wish(*wishes)] == [5, 5, 0, -3]


def test_a_full_queue_stops_the_strategy_and_nobody_else() -> None:
    desk = Desk(strategies=2, sizes=Sizes(orders=16, signals=8, outbox=64, refusals=64))
    WISHES[1] = [lambda ctx: ctx.buy(2)]
    orders = desk.wish(*[lambda ctx: ctx.buy(1)] * 9)
    assert orders == []  # its signals are void, and they had filled the queue for the other
    table = desk.machine.table("slots_at")
    assert table["fault"].tolist() == [codes.FAULT_QUEUE, codes.FAULT_QUEUE]
    desk = Desk(strategies=2, sizes=Sizes(orders=16, signals=8, outbox=64, refusals=64))
    desk.wish(*[lambda ctx: ctx.buy(1)] * 9)
    assert desk.machine.table("slots_at")["fault"].tolist() == [codes.FAULT_QUEUE, 0]
    assert [o["qty"] for o in desk.wish(lambda ctx: ctx.buy(2), s=1)] == [2]
    assert desk.k.faulted == 1
    assert (desk.machine.table("open_at")["state"] == codes.RESERVED).sum() == 0


@pytest.mark.parametrize("instrument", [2, 99])
def test_an_instrument_that_does_not_exist_is_a_fault(instrument: int) -> None:
    desk = Desk()
    assert desk.wish(lambda ctx: ctx.target(1, instrument)) == []
    assert desk.machine.table("slots_at")["fault"][0] == codes.FAULT_QUEUE
    assert desk.reasons() == []


def test_a_fault_voids_signals_and_cancels_orders() -> None:
    desk = Desk(strategies=2)
    desk.hold(5)
    (resting,) = desk.wish(lambda ctx: ctx.buy(1, 99.0))
    (other,) = desk.wish(lambda ctx: ctx.buy(1, 98.0), s=1)
    orders = desk.wish(lambda ctx: ctx.buy(7), lambda ctx: 1 // 0)
    assert [(o["action"], o["id"]) for o in orders] == [(codes.CANCEL, resting["id"])]
    assert (desk.state(other), desk.position()) == ("sent", 5)
    assert desk.reasons() == []  # a signal that is void is not refused on top
    assert desk.wish(lambda ctx: ctx.buy(1)) == []
    slot = desk.machine.table("slots_at")[0]
    assert (slot["fault"], slot["active"], desk.k.faulted) == (codes.FAULT_HANDLER, 0, 1)
    desk.event(codes.COMMAND, code=codes.RESUME, strategy=0)
    assert desk.machine.table("slots_at")["active"][0] == 0  # what has failed does not come back by a command


def test_a_signal_past_its_deadline() -> None:
    desk = Desk()

    def late(ctx: Any) -> None:
        ctx.target(3)
        ctx.buy(2, 99.0)
        for row in desk.machine.table("signals_at")[:2]:
            row["deadline"] = desk.now - 1

    desk.bar()
    assert desk.wish(late) == []
    assert desk.reasons() == ["expired_signal"] * 2
    assert len(desk.wish(lambda ctx: ctx.target(3))) == 1
