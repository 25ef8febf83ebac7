"""What a breach does beyond its refusal, the kill switch, replaces under risk, and netting."""

import math

import pytest

from engine.kernel import codes
from tests.kernel.desk import WISHES, Desk, buy, sell, target


def test_breach_refuses_only() -> None:
    desk = Desk({"order_qty": 10}, breach={codes.ORDER_QTY: codes.REFUSE})
    assert len(desk.wish(buy(1, 99.0), buy(11), buy(1, 98.0))) == 2


def test_breach_cancels_every_open_order() -> None:
    desk = Desk({"order_qty": 10}, breach={codes.ORDER_QTY: codes.CANCEL_ORDERS}, strategies=2)
    (resting,) = desk.wish(buy(1, 99.0), s=1)
    desk.report(resting, codes.ACK)
    orders = desk.wish(buy(2, 99.0), buy(11), s=0)
    assert [(o["action"], o["qty"]) for o in orders[:1]] == [(codes.NEW, 2)]
    assert sorted((o["action"], o["strategy"]) for o in orders[1:]) == [(codes.CANCEL, 0), (codes.CANCEL, 1)]
    assert desk.refused()[0][0] == "order_qty"


def test_breach_flattens_every_position() -> None:
    desk = Desk({"daily_loss": 100.0}, breach={codes.DAILY_LOSS: codes.FLATTEN}, strategies=2)
    desk.hold(10)
    desk.hold(-4, i=1, s=1)
    desk.wish(buy(1, 50.0))
    desk.bar(80.0)
    orders = desk.sent()
    assert [(o["action"], o["instrument"], o["strategy"], o["side"] * o["qty"]) for o in orders] == [
        (codes.CANCEL, 0, 0, 1), (codes.NEW, 0, 0, -10), (codes.NEW, 1, 1, 4)]  # fmt: skip
    desk.bar(70.0)
    assert desk.sent() == []  # once
    for order in orders[1:]:
        desk.fill(order, price=80.0)
    assert (desk.market("net", 0), desk.market("net", 1), desk.k.held) == (0, 0, 0)


def test_breach_halts_after_flattening() -> None:
    desk = Desk({"daily_loss": 100.0}, breach={codes.DAILY_LOSS: codes.HALT})
    desk.hold(10)
    desk.bar(80.0)
    assert [o["side"] * o["qty"] for o in desk.sent()] == [-10]
    assert desk.k.halt == codes.HALT_RISK
    seq = desk.k.seq
    desk.wish(buy(1))
    assert (desk.k.seq, desk.k.orders_out) == (seq, 0)


@pytest.mark.parametrize(("flatten", "after"), [(0.0, [codes.CANCEL]), (1.0, [codes.CANCEL, codes.NEW])])
def test_kill_switch(flatten: float, after: list[int]) -> None:
    desk = Desk()
    desk.hold(10)
    (order,) = desk.wish(buy(1, 99.0))
    desk.event(codes.COMMAND, code=codes.KILL, amount=flatten)
    assert [o["action"] for o in desk.sent()] == after
    desk.report(order, codes.CANCELLED)
    desk.wish(buy(1), sell(1), target(3))
    assert desk.reasons() == ["killed"] * 3
    desk.event(codes.COMMAND, code=codes.CLEAR_KILL)
    assert len(desk.wish(buy(1))) == 1


def test_a_replace_is_judged_by_its_whole_new_shape() -> None:
    limits = {"order_qty": 10.0, "order_value": 990.0, "position": 12.0, "open_orders": 2}
    desk = Desk(limits)
    first, _second = desk.wish(buy(5, 90.0), buy(5, 90.0))

    def ask(qty: float, limit: float = 0.0) -> tuple[int, list[str]]:
        sent = desk.wish(lambda ctx: ctx.replace(first["id"], qty, limit))
        desk.report(first, codes.CANCEL_REJECT)
        return len(sent), desk.reasons()

    assert ask(4) == (1, [])
    assert ask(7) == (1, [])
    assert ask(5, 91.0) == (1, [])
    assert ask(8) == (0, ["position"])
    desk.k.limits.position = math.inf
    assert ask(10) == (1, [])
    assert ask(11) == (0, ["order_qty"])
    assert ask(10, 99.0) == (1, [])
    assert ask(10, 99.1) == (0, ["order_value"])


def test_a_reduction_of_an_order_at_the_limit_passes() -> None:
    desk = Desk({"position": 5.0, "open_orders": 1})
    (order,) = desk.wish(buy(5, 90.0))
    assert len(desk.wish(lambda ctx: ctx.replace(order["id"], 3, 91.0))) == 1
    assert desk.reasons() == []


def test_two_replaces_cannot_break_a_limit_together() -> None:
    desk = Desk({"position": 10.0})
    first, second = desk.wish(buy(3, 99.0), buy(3, 98.0))
    sent = desk.wish(lambda ctx: ctx.replace(first["id"], 7), lambda ctx: ctx.replace(second["id"], 7))
    assert (len(sent), desk.reasons()) == (1, ["position"])
    desk.report(first, codes.CANCEL_REJECT)  # the room comes back when the venue declines
    assert desk.market("buys") == 6
    assert len(desk.wish(lambda ctx: ctx.replace(second["id"], 7))) == 1
    desk.report(second, codes.REPLACED, 7, 98.0)
    assert desk.market("buys") == 10


def test_netting_crosses_what_opposes() -> None:
    desk = Desk({"netting": 1}, strategies=2)
    WISHES[1] = [target(-4)]
    orders = desk.wish(target(10))
    assert [(o["strategy"], o["side"] * o["qty"]) for o in orders] == [(0, 6)]
    assert (desk.position(0, 0), desk.position(0, 1), desk.market("net")) == (4, -4, 0)
    assert desk.k.cash == 1e6


@pytest.mark.parametrize("state", ["killed", "simulation", "blocked"])
def test_netting_does_nothing_where_nothing_may_trade(state: str) -> None:
    desk = Desk({"netting": 1}, strategies=2, blocked=int(state == "blocked"))
    desk.bar()
    if state == "killed":
        desk.event(codes.COMMAND, code=codes.KILL)
    if state == "simulation":
        desk.event(codes.COMMAND, code=codes.TRADING, amount=codes.SIMULATION)
    WISHES[1] = [target(-4)]
    assert desk.wish(target(10)) == []
    assert (desk.position(0, 0), desk.position(0, 1)) == (0, 0)
