"""Orders by table: every state with every event, late and doubled reports, reuse of slots, ids."""

from typing import Any

import numpy as np
import pytest

from engine.kernel import codes, orders
from engine.kernel.machine import Sizes
from engine.kernel.records import open_orders
from tests.kernel.desk import Desk


def counted(desk: Desk) -> int:
    """How many orders are open, counted from the table."""
    return int(np.count_nonzero(orders.OPEN[desk.machine.table("open_at")["state"]]))


STATES = [codes.FREE, codes.RESERVED, codes.SENT, codes.WORKING, codes.CANCELLING, codes.REPLACING, codes.DONE_FILLED,
          codes.DONE_CANCELLED, codes.DONE_REJECTED, codes.DONE_EXPIRED]  # fmt: skip
EVENTS = ["SEND", "ACK", "PART", "FULL", "ASK_CANCEL", "ASK_REPLACE", "CANCELLED", "REJECTED", "EXPIRED",
          "CANCEL_REJECTED", "REPLACED", "DROP"]  # fmt: skip
# The table again, in words and by state, so that a slip in the one shows against the other.
WORDS: dict[str, dict[str, str]] = {
    "free": {},
    "reserved": {"SEND": "sent", "DROP": "free"},
    "sent": {
        "ACK": "working",
        "PART": "working",
        "FULL": "done_filled",
        "ASK_CANCEL": "cancelling",
        "ASK_REPLACE": "replacing",
        "CANCELLED": "done_cancelled",
        "REJECTED": "done_rejected",
        "EXPIRED": "done_expired",
    },
    "working": {
        "ACK": "working",
        "PART": "working",
        "FULL": "done_filled",
        "ASK_CANCEL": "cancelling",
        "ASK_REPLACE": "replacing",
        "CANCELLED": "done_cancelled",
        "REJECTED": "done_rejected",
        "EXPIRED": "done_expired",
    },
    "cancelling": {
        "ACK": "cancelling",
        "PART": "cancelling",
        "FULL": "done_filled",
        "ASK_CANCEL": "cancelling",
        "CANCELLED": "done_cancelled",
        "REJECTED": "done_rejected",
        "EXPIRED": "done_expired",
        "CANCEL_REJECTED": "working",
        "REPLACED": "cancelling",
    },
    "replacing": {
        "ACK": "replacing",
        "PART": "replacing",
        "FULL": "done_filled",
        "ASK_CANCEL": "cancelling",
        "ASK_REPLACE": "replacing",
        "CANCELLED": "done_cancelled",
        "REJECTED": "done_rejected",
        "EXPIRED": "done_expired",
        "CANCEL_REJECTED": "working",
        "REPLACED": "working",
    },
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", [codes.MARKET, codes.LIMIT])
def test_every_state_meets_every_event(state: int, event: str, kind: int) -> None:
    desk = Desk()
    o = open_orders(desk.k, 3)
    o.id, o.qty, o.filled, o.side, o.type, o.state, o.instrument = 3, 10, 4, -1, kind, state, 1
    o.mask = codes.BY_TARGET
    if orders.OPEN[state]:
        desk.k.opened = 1
        orders.count_working(desk.k, o, 6)
    before = o.tobytes()
    word = WORDS.get(codes.NAMES["state"][state], {}).get(event)
    assert orders.transition(desk.k, o, getattr(orders, event)) == (word is not None)
    if word is None:
        assert o.tobytes() == before
    else:
        assert codes.NAMES["state"][o.state] == word
    open_now = int(orders.OPEN[o.state])
    assert desk.k.opened == counted(desk) == open_now
    assert desk.market("certain", 1) == (-6 * open_now if kind == codes.MARKET else 0)
    assert desk.market("sells", 1) == (6 * open_now if kind == codes.LIMIT else 0)
    assert desk.machine.table("positions_at")["pending"][1] == -6 * open_now
    assert desk.k.halt == codes.RUNNING


# what the venue says of an order to buy 10, one report after another (code, lots): state, filled, late fills, unknown
A, F, R, X, E, P, C = (
    codes.ACK,
    codes.FILL,
    codes.REJECT,
    codes.CANCELLED,
    codes.EXPIRED,
    codes.REPLACED,
    codes.CANCEL_REJECT,
)
STORIES: list[tuple[list[tuple[int, int]], str, int, int, int]] = [
    ([(A, 0)], "working", 0, 0, 0),
    ([(A, 0), (A, 0)], "working", 0, 0, 0),
    ([(F, 10)], "done_filled", 10, 0, 0),  # a fill may overtake its acknowledgement
    ([(F, 10), (A, 0)], "done_filled", 10, 0, 1),
    ([(F, 4)], "working", 4, 0, 0),
    ([(F, 4), (F, 6)], "done_filled", 10, 0, 0),
    ([(F, 4), (X, 0)], "done_cancelled", 4, 0, 0),
    ([(F, 4), (E, 0)], "done_expired", 4, 0, 0),
    ([(F, 4), (R, 0)], "done_rejected", 4, 0, 0),
    ([(A, 0), (R, 0)], "done_rejected", 0, 0, 0),
    ([(F, 12)], "done_filled", 12, 1, 0),  # more than was asked for: ours all the same
    ([(F, 10), (F, 3)], "done_filled", 13, 1, 0),
    ([(X, 0), (F, 3)], "done_cancelled", 3, 1, 0),  # after the end: ours all the same
    ([(R, 0), (F, 3)], "done_rejected", 3, 1, 0),
    ([(E, 0), (X, 0)], "done_expired", 0, 0, 1),
    ([(X, 0), (X, 0)], "done_cancelled", 0, 0, 1),
    ([(F, -3)], "sent", 0, 0, 1),  # the other side
    ([(F, 0)], "sent", 0, 0, 1),
    ([(P, 12)], "sent", 0, 0, 1),  # nobody asked
    ([(C, 0)], "sent", 0, 0, 1),
    ([(99, 0)], "sent", 0, 0, 1),
]


@pytest.mark.parametrize("wish", ["target", "limit"])
@pytest.mark.parametrize(("story", "state", "held", "late", "unknown"), STORIES)
def test_stories(story: list[tuple[int, int]], state: str, held: int, late: int, unknown: int, wish: str) -> None:
    desk = Desk()
    (order,) = desk.wish(lambda ctx: ctx.target(10) if wish == "target" else ctx.buy(10, 99.0))
    for code, qty in story:
        desk.report(order, code, qty)
    assert (desk.state(order), desk.position(), desk.k.late_fills, desk.k.unknown_reports) == (
        state,
        held,
        late,
        unknown,
    )
    still = 10 - held if state in ("sent", "working") else 0
    assert (desk.market("certain") + desk.market("buys"), desk.market("sells")) == (still, 0)
    assert desk.machine.table("positions_at")["pending"][0] == (still if wish == "target" else 0)
    assert desk.k.opened == counted(desk) == bool(still)
    assert desk.k.cash == 1e6 - held * 100.0
    if not still:
        assert (desk.k.extra, desk.k.extra_net, desk.k.extra_margin) == (0.0, 0.0, 0.0)


def test_a_report_is_heard_once() -> None:
    desk = Desk()
    (order,) = desk.wish(lambda ctx: ctx.buy(10))
    desk.report(order, codes.FILL, 4, exec_id=7)
    desk.report(order, codes.FILL, 4, exec_id=7)
    desk.report(order, codes.FILL, 4, exec_id=6)
    assert (desk.position(), desk.k.fills) == (4, 1)
    desk.report(order, codes.FILL, 4, exec_id=0)  # a venue without numbers is believed
    assert desk.position() == 8


@pytest.mark.parametrize("order_id", [0, 1, -1, 5, 1 << 40 | 9, 2 << 40 | 1, (1 << 62) - 1])
def test_orders_that_nobody_sent(order_id: int) -> None:
    desk = Desk()
    (order,) = desk.wish(lambda ctx: ctx.buy(10))
    for code in (A, F, R, X, E, P, C):
        desk.report(order_id, code, 1)
    assert (desk.k.unknown_reports, desk.position(), desk.k.cash, desk.state(order)) == (7, 0, 1e6, "sent")


def test_a_reserved_order_hears_nothing() -> None:
    desk = Desk()
    heard: list[Any] = []

    def early(ctx: Any) -> None:
        order_id = ctx.buy(1)
        heard.append((order_id, ctx.is_open(order_id)))

    desk.wish(early)
    assert heard == [(1 << 40 | 1, True)]


def cycle(desk: Desk, n: int) -> list[int]:
    """Ids of n orders that are sent and filled one after another."""
    found = []
    for _ in range(n):
        (order,) = desk.wish(lambda ctx: ctx.buy(1))
        found.append(order["id"])
        desk.fill(order)
    return found


def test_ids_are_unique_and_slots_are_reused() -> None:
    desk = Desk()
    (resting,) = desk.wish(lambda ctx: ctx.buy(1, 50.0))
    found = cycle(desk, 50)
    assert len(set(found)) == 50
    assert resting["id"] & 15 not in {order_id & 15 for order_id in found}  # 16 slots: an open order keeps its own
    assert (desk.state(resting), desk.k.opened, desk.position()) == ("sent", 1, 50)
    desk.report(found[0], codes.FILL, 1)
    assert (desk.position(), desk.k.unknown_reports) == (50, 1)  # too late: its slot belongs to another


def test_ids_depend_on_session_and_sequence_only() -> None:
    first, second = Desk(), Desk()
    assert cycle(first, 5) == cycle(second, 5) == [1 << 40 | n for n in range(1, 6)]
    third = Desk()
    third.k.session = 2
    assert cycle(third, 2) == [2 << 40 | 1, 2 << 40 | 2]


def test_a_full_table_refuses() -> None:
    desk = Desk(sizes=Sizes(orders=4, signals=32, outbox=64, refusals=64))
    sent = desk.wish(*[lambda ctx: ctx.buy(1, 99.0)] * 6)
    assert (len(sent), desk.reasons()) == (4, ["open_orders"] * 2)
    desk.wish(lambda ctx: ctx.target(1), lambda ctx: ctx.replace(sent[0]["id"], 2))
    assert desk.reasons() == ["open_orders"], "a replace needs no slot of its own"
    desk.report(sent[2], codes.CANCELLED)
    assert len(desk.wish(lambda ctx: ctx.buy(1))) == 1


def test_a_full_outbox_halts() -> None:
    desk = Desk(sizes=Sizes(orders=16, signals=32, outbox=4, refusals=64))
    desk.wish(*[lambda ctx: ctx.buy(1, 99.0)] * 5)
    assert desk.k.halt == codes.HALT_OVERFLOW


# asked of an open order to buy 10 at 99, then reported: the state, the lots that count as open, refusals
ASKED: list[tuple[list[Any], list[tuple[int, int]], str, int, list[str]]] = [
    (["cancel"], [], "cancelling", 10, []),
    (["cancel", "cancel"], [(X, 0)], "done_cancelled", 0, []),
    (["cancel"], [(C, 0)], "working", 10, []),
    (["cancel"], [(F, 4)], "cancelling", 6, []),
    (["cancel"], [(F, 10), (C, 0)], "done_filled", 0, []),
    ([15], [], "replacing", 15, []),
    ([15], [(P, 15)], "working", 15, []),
    ([15], [(C, 0)], "working", 10, []),
    ([15], [(F, 4)], "replacing", 11, []),
    ([15], [(F, 4), (P, 15)], "working", 11, []),
    ([15], [(F, 4), (C, 0)], "working", 6, []),
    ([15], [(F, 10)], "done_filled", 0, []),  # filled before the change arrived
    ([15], [(F, 10), (C, 0)], "done_filled", 0, []),
    ([15], [(X, 0)], "done_cancelled", 0, []),
    ([6], [], "replacing", 10, []),  # less counts when the venue says so
    ([6], [(P, 6)], "working", 6, []),
    ([15, 20], [(P, 15)], "working", 15, ["unknown_order"]),  # one change at a time
    ([15, "cancel"], [], "cancelling", 10, []),
    ([15, "cancel"], [(P, 15)], "cancelling", 15, []),
    ([15, "cancel"], [(P, 15), (X, 0)], "done_cancelled", 0, []),
    (["cancel", 15], [], "cancelling", 10, ["unknown_order"]),
    ([0], [], "sent", 10, ["bad_order"]),
    ([-3], [], "sent", 10, ["bad_order"]),
    ([1e300], [], "sent", 10, ["bad_order"]),
]


@pytest.mark.parametrize(("asked", "story", "state", "left", "refused"), ASKED)
def test_cancel_and_replace(
    asked: list[Any], story: list[tuple[int, int]], state: str, left: int, refused: list[str]
) -> None:
    desk = Desk()
    (order,) = desk.wish(lambda ctx: ctx.buy(10, 99.0))
    for what in asked:
        order_id = order["id"]
        desk.wish(lambda ctx, w=what, i=order_id: ctx.cancel(i) if w == "cancel" else ctx.replace(i, w))
    for code, qty in story:
        desk.report(order, code, qty, price=99.0)
    assert (desk.state(order), desk.market("buys"), desk.reasons()) == (state, left, refused)
    under_way = asked == [15, "cancel"] and not story  # the change may yet come before the cancel
    assert desk.k.extra == (15 if under_way else left) * 100.0
    assert desk.k.opened == counted(desk) == bool(left)


def test_an_order_belongs_to_its_strategy() -> None:
    desk = Desk(strategies=2)
    (order,) = desk.wish(lambda ctx: ctx.buy(10, 99.0), s=0)
    assert desk.wish(lambda ctx: ctx.cancel(order["id"]), lambda ctx: ctx.replace(order["id"], 3), s=1) == []
    assert desk.reasons() == ["unknown_order"] * 2
    assert desk.wish(lambda ctx: ctx.cancel_all(), s=1) == []


def test_a_target_counts_what_is_on_its_way() -> None:
    desk = Desk()
    (order,) = desk.wish(lambda ctx: ctx.target(10))
    assert desk.wish(lambda ctx: ctx.target(10)) == []
    assert [o["qty"] for o in desk.wish(lambda ctx: ctx.target(15))] == [5]
    changed = desk.wish(lambda ctx: ctx.target(-5))  # the other direction: what is on its way is called back
    assert sorted((o["action"], o["side"] * o["qty"]) for o in changed) == [(1, -5), (2, 5), (2, 10)]
    desk.fill(order)  # too late to call back
    assert [o["side"] * o["qty"] for o in desk.wish(lambda ctx: ctx.target(-5))] == [-10]


def test_the_table_is_literal() -> None:
    assert orders.LEGAL.shape == (10, 12)
    assert [getattr(orders, name) for name in EVENTS] == list(range(12))
    assert np.all(orders.LEGAL[codes.DONE_FILLED :] == -1)
