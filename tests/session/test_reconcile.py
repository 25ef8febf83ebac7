"""Reconciliation by a table: what the kernel believes, what the venue says, the events that make them agree.

Each case also applies its events to the kernel and reconciles again: nothing may be left.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import JournalError
from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.records import Order
from engine.ports import Standing, VenueView
from engine.reconcile import KernelView, Reconciled, cut_known, reconcile
from engine.session import Session
from tests.kernel.desk import SECOND, Desk

W, F, C, R, X = codes.WORKING, codes.DONE_FILLED, codes.DONE_CANCELLED, codes.DONE_REJECTED, codes.DONE_EXPIRED
Case = tuple[Callable[["Stage"], None], dict[str, Any], list[tuple[Any, ...]], str]


class Stage:
    """A kernel with one order to buy 10 at 99, sent and not acknowledged."""

    def __init__(self) -> None:
        self.desk = Desk()
        (self.order,) = self.desk.wish(lambda ctx: ctx.buy(10.0, 99.0))
        self.id = self.order["id"]

    def told(self, code: int, qty: int = 0, **fields: Any) -> None:
        self.desk.report(self.order, code, qty, 99.0, **fields)

    def asked(self, wish: Callable[[Any], Any]) -> None:
        self.instruction = self.desk.wish(wish)[-1]


def sent(stage: Stage) -> None:
    """Nothing more."""


def working(stage: Stage) -> None:
    stage.told(codes.ACK)


def partly(stage: Stage) -> None:
    stage.told(codes.ACK)
    stage.told(codes.FILL, 4)


def cancelling(stage: Stage) -> None:
    stage.told(codes.ACK)
    stage.asked(lambda ctx: ctx.cancel(stage.id))


def replacing(stage: Stage) -> None:
    stage.told(codes.ACK)
    stage.asked(lambda ctx: ctx.replace(stage.id, 6.0, 98.0))


def standing(
    qty: int = 10, filled: int = 0, price: float = 99.0, state: int = W, stage: Stage | None = None
) -> Standing:
    return Standing(stage.id if stage else 0, 0, 1, qty, filled, price, 0.0, state)


def row(code: int, exec_id: int, qty: int = 0, price: float = 99.0, fee: float = 0.0, recv: int = 0) -> dict[str, Any]:
    return {"code": code, "exec_id": exec_id, "qty": qty, "price": price, "fee": fee, "recv": recv}


# kernel; the venue: order (None: it never had it, absent key: no answer), reports, position; the events; an alert.
CASES: dict[str, Case] = {
    "all agree": (working, {"order": standing()}, [], ""),
    "the ack is on its way": (sent, {"order": standing()}, [("ack", 0)], "the venue has it; entered as ack"),
    "the ack had not come": (sent, {"order": standing(), "reports": [row(codes.ACK, 1)]}, [("ack", 0)],
                             r"ack of order \d+ \(exec id 1\) had not come"),
    "a fill had not come": (
        working, {"order": standing(filled=4), "reports": [row(codes.FILL, 2, 4)], "net": 4}, [("fill", 4)],
        r"fill of order \d+ \(exec id 2\) had not come"),
    "a fill that is told again": (
        partly, {"order": standing(filled=4), "reports": [row(codes.FILL, 9, 4, recv=4)], "net": 4}, [("fill", 0)],
        r"fill of order \d+ \(exec id 9\) had not come; 4 lots of it are known"),
    "a fill of which a part is known": (
        partly, {"order": standing(filled=7), "reports": [row(codes.FILL, 9, 5, recv=7)], "net": 7}, [("fill", 3)],
        "2 lots of it are known"),
    "all fills had not come": (
        sent, {"order": standing(filled=10, state=F), "net": 10,
               "reports": [row(codes.ACK, 1), row(codes.FILL, 2, 4), row(codes.FILL, 3, 6)]},
        [("ack", 0), ("fill", 4), ("fill", 6)], "exec id 3"),
    "what was seen before is not told again": (
        partly, {"order": standing(filled=4), "reports": [row(codes.ACK, 1), row(codes.FILL, 2, 4)], "net": 4}, [], ""),
    "a fill that no report tells of": (
        partly, {"order": standing(filled=7), "net": 7}, [("fill", 3)], "filled 3 lots more than it reported"),
    "filled, and nothing was told": (
        working, {"order": standing(filled=10, state=F), "net": 10}, [("fill", 10)], "filled 10 lots more"),
    "cancelled, and nothing was told": (
        partly, {"order": standing(filled=4, state=C), "net": 4}, [("cancelled", 0)], "done_cancelled"),
    "expired": (working, {"order": standing(state=X)}, [("expired", 0)], "done_expired"),
    "rejected": (sent, {"order": standing(state=R)}, [("reject", 0)], "done_rejected"),
    "it never arrived": (sent, {"order": None}, [("reject", 0)], "never reached the venue, and is too old"),
    "it never arrived, and is young": (sent, {"order": None, "young": True}, [("again", codes.NEW)], "sent again"),
    "it was acknowledged and is gone": (working, {"order": None}, [("cancelled", 0)], "does not have it, though"),
    "no answer": (sent, {}, [("doubt", 0)], r"order \d+ is in doubt: the venue did not answer for it"),
    "no answer, but among the open ones": (sent, {"open": standing()}, [("ack", 0)], "the venue has it"),
    "no answer may explain the position": (
        working, {"net": 3}, [("doubt", 0)], "I0: the venue holds 3 lots, we 0; an order in doubt may explain it"),
    "the cancel never arrived": (cancelling, {"order": standing()}, [("again", codes.CANCEL)], "its cancel never"),
    "cancelled in the meantime": (
        cancelling, {"order": standing(state=C), "reports": [row(codes.CANCELLED, 2)]}, [("cancelled", 0)],
        "exec id 2"),
    "filled before the cancel": (
        cancelling, {"order": standing(filled=10, state=F), "net": 10, "reports": [row(codes.FILL, 2, 10)]},
        [("fill", 10)], "exec id 2"),
    "neither the order nor its cancel arrived": (cancelling, {"order": None}, [("reject", 0)], "never reached"),
    "replaced, and nothing was told": (
        replacing, {"order": standing(6, price=98.0)}, [("replaced", 6)], "the venue has changed it"),
    "the replace never arrived": (
        replacing, {"order": standing()}, [("cancel_reject", 0)], "the request is too old; entered as cancel_reject"),
    "the replace never arrived, and is young": (
        replacing, {"order": standing(), "young": True}, [("again", codes.REPLACE)], "its replace never reached"),
    "replaced and filled": (
        replacing, {"order": standing(6, 6, 98.0, F), "net": 6}, [("fill", 6), ("cancelled", 0)], "done_filled"),
    "another quantity than asked for": (working, {"order": standing(8)}, [], "another quantity or price"),
    "a position that nothing explains": (
        working, {"order": standing(), "net": -5}, [("correction", -5)],
        r"I0: the venue holds -5 lots, we 0, and no report explains it; corrected by -5 lots at 100.0, for strategy 0; "
        r"that price is of \d{4}-\S+Z"),
    "reports that are still missing may explain it": (
        working, {"order": standing(), "net": 5, "last_exec": 9}, [], "its reports have not all come"),
    "the position is not said": (working, {"order": standing()}, [], ""),
    "an order that nobody knows": (
        working, {"order": standing(), "other": 5}, [], r"order 5 is open at the venue, and nobody here knows it"),
}  # fmt: skip


def looked_at(stage: Stage, says: dict[str, Any], recv: int) -> Reconciled:
    """One reconciliation with what the venue says."""
    reports = np.zeros(len(says.get("reports", ())), Event.dtype)
    for at, fields in enumerate(says.get("reports", ())):
        reports["kind"][at], reports["order_id"][at] = codes.REPORT, stage.id
        for name, value in fields.items():
            reports[name][at] = value
    given = {key: says[key] for key in ("order", "open") if key in says}
    found = {key: one and Standing(**{**vars(one), "id": stage.id}) for key, one in given.items()}
    orders = {stage.id: found["order"]} if "order" in found else {}
    open_ = [one for one in found.values() if one and one.state == W]
    if "other" in says:
        open_.append(Standing(says["other"], 0, 1, 1, 0, 0.0, 0.0, W))
    net = np.array([says["net"], 0]) if "net" in says else None
    latest = max([0, *reports["exec_id"].tolist()])
    view = VenueView(orders, open_, reports, 0, says.get("last_exec", latest), net)
    instruction = np.zeros(1, Order.dtype)
    for name, value in getattr(stage, "instruction", stage.order).items():
        instruction[name] = value
    age = 3600 * SECOND if says.get("young") else 0
    return reconcile(KernelView.of(stage.desk.machine), view, recv, names=["I0", "I1"], resend_ns=age,
                     instructions={stage.id: instruction})  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_by_table(name: str) -> None:
    prepare, says, wanted, alert = CASES[name]
    stage = Stage()
    prepare(stage)
    stage.desk.now += SECOND
    found = looked_at(stage, says, stage.desk.now)
    shown: list[tuple[Any, ...]] = [
        (codes.NAMES["report"][int(e["code"])], int(e["qty"])) if e["kind"] == codes.REPORT else
        ("correction", int(e["qty"])) for e in found.events
    ]  # fmt: skip
    shown += [("again", int(order["action"])) for order in found.resend]
    assert [*shown, *(("doubt", 0) for _ in found.doubt)] == wanted
    assert (found.findings == []) == (alert == "")
    if alert:
        import re

        assert re.search(alert, "\n".join(found.findings)), found.findings
    session = Session(stage.desk.machine, compiled=False)
    session.advance(found.events)
    stage.desk.now += SECOND
    again = looked_at(stage, {**says, "young": False} if not len(found.resend) else says, stage.desk.now)
    assert not len(again.events) and len(again.resend) == len(found.resend) and again.doubt == found.doubt
    nothing = ("fill", 0) in wanted  # it is counted
    assert stage.desk.machine.kernel.unknown_reports == nothing and not session.halted
    if "net" in says and not found.doubt and "last_exec" not in says:
        assert stage.desk.machine.table("markets_at")["net"].tolist() == [says["net"], 0]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(0, 6), st.lists(st.integers(0, 5), max_size=4),
       st.booleans())  # fmt: skip
def test_a_fill_counts_once_however_often_it_is_told(lots: list[int], entered: int, again: list[int],
                                                     sells: bool) -> None:  # fmt: skip
    """The venue fills an order; the first fills are entered on its word, then told, some of them several times, all
    under new exec ids."""
    desk, sign, total = Desk(), -1 if sells else 1, sum(lots)
    (order,) = desk.wish(lambda ctx: ctx.sell(30.0, 99.0) if sells else ctx.buy(30.0, 99.0))
    desk.report(order, codes.ACK)
    known = sum(lots[:entered])
    if known:
        view = VenueView({order["id"]: Standing(order["id"], 0, sign, 30, known, 99.0, 0.0, W)}, [], last_exec=1)
        Session(desk.machine, compiled=False).advance(reconcile(KernelView.of(desk.machine), view, desk.now).events)
    assert desk.position() == sign * known
    told = [n for n in again if n < len(lots)]
    rows = np.zeros(len(lots) + len(told), Event.dtype)
    rows["kind"], rows["code"], rows["order_id"], rows["price"] = codes.REPORT, codes.FILL, order["id"], 99.0
    rows["exec_id"] = 2 + np.arange(len(rows))
    for at, n in enumerate([*range(len(lots)), *told]):
        rows["qty"][at], rows["recv"][at] = sign * lots[n], sum(lots[: n + 1])
    session = Session(desk.machine, compiled=False)
    for part in np.split(rows.view("V64"), [len(rows) // 2]):
        part = part.view(Event.dtype).copy()
        cut_known(desk.machine, part)
        part["recv"] = desk.now
        session.advance(part)
    assert desk.position() == sign * total and desk.k.last_exec == rows["exec_id"][-1]
    assert desk.machine.table("open_at")["filled"][order["id"] & desk.k.order_mask] == total


def test_a_venue_that_does_not_count_is_believed() -> None:
    desk = Desk()
    (order,) = desk.wish(lambda ctx: ctx.buy(10.0, 99.0))
    rows = np.zeros(2, Event.dtype)
    rows["kind"], rows["code"], rows["order_id"], rows["qty"] = codes.REPORT, codes.FILL, order["id"], 4
    rows["exec_id"] = (1, 2)
    assert cut_known(desk.machine, rows) == [] and rows["qty"].tolist() == [4, 4]
    rows["recv"], rows["order_id"] = 4, order["id"] + 1
    assert cut_known(desk.machine, rows) == [], "an order that is not known here"


def test_ids_are_never_used_twice() -> None:
    """A venue that knows orders which the journal does not have: the end of the journal was lost."""
    stage = Stage()
    known = {**vars(standing()), "id": stage.id + 1}
    view = VenueView({}, [Standing(**known)])
    with pytest.raises(JournalError, match=rf"The venue knows order {stage.id + 1} of session 1, .*another session"):
        reconcile(KernelView.of(stage.desk.machine), view, stage.desk.now)


@pytest.mark.parametrize("lots", [1000, -1000])
def test_a_position_is_not_taken_over_without_a_price(lots: int) -> None:
    """At price 0 a long position would be a gain that hides losses, a short one a breach."""
    desk = Desk({"daily_loss": 1000.0}, cash=100_000.0)
    view, kernel = VenueView(positions=np.array([lots, 0])), KernelView.of(desk.machine)
    found = reconcile(kernel, view, desk.now + 1)
    assert not len(found.events) and found.unpriced == [0]
    assert f"holds {lots} lots, we 0; corrected as soon as the market shows a price" in found.findings[0]
    kernel.marks[0] = 50.0
    session = Session(desk.machine, compiled=False)
    session.advance(reconcile(kernel, view, desk.now + 1).events)
    k = desk.k
    assert k.cash + k.value == k.day_equity == k.peak == 100_000.0
    for price, breached in ((50.0, 0), (50.0 - math.copysign(0.9, lots), 0),
                            (50.0 - math.copysign(1.1, lots), codes.DAILY_LOSS)):  # fmt: skip
        desk.now += SECOND
        desk.bar(price)
        assert k.breached == breached
