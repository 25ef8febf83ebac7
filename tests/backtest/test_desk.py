"""The paper venue, talked to by hand: what it reports, what it can be asked, what a repetition does.

That it is the venue of the loops is law 6. Everything here runs uncompiled.
"""

from typing import Any

import numpy as np
import pytest

from backtest.desk import VenueDesk
from engine.config import VenueModel
from engine.kernel import codes
from engine.kernel.records import Instrument, Order
from engine.ports import Events, Orders
from tests.backtest.stage import MINUTE, START, action, bars
from tests.backtest.test_ticks import BOOK, q, t
from tests.backtest.test_ticks import START as TICK_START
from tests.backtest.test_ticks import tape as ticks

ONE = 1 << 40  # ids of session 1


def desk(count: int = 1, *, quotes: bool = False, keep: int = 1 << 20, model: VenueModel | None = None) -> VenueDesk:
    rows = np.zeros(count, Instrument.dtype)
    for name, value in {"tick": 0.01, "lot": 1.0, "multiplier": 1.0, "margin": 1.0, "bar_ns": MINUTE}.items():
        rows[name] = value
    return VenueDesk(rows, 1e6, model or VenueModel(), leverage=10.0, orders=8, ticks=quotes, compiled=False, keep=keep)


def order(number: int, qty: int, *, seq: int = 1, ts: int = START, act: int = codes.NEW, **given: Any) -> Orders:
    """An instruction; a negative `qty` sells."""
    row = np.zeros(1, Order.dtype)
    row["id"], row["seq"], row["ts"], row["qty"], row["side"] = ONE | number, seq, ts, abs(qty), np.sign(qty)
    row["action"], row["type"], row["tif"] = act, codes.MARKET, codes.GTC
    for name, value in given.items():
        row[name] = value
    if "price" in given:
        row["type"] = codes.LIMIT
    return row


def said(reports: Events) -> list[tuple[str, int, int]]:
    """(word, order number, lots) of reports."""
    return [(codes.NAMES["report"][int(r["code"])], int(r["order_id"]) - ONE, int(r["qty"])) for r in reports]


FLAT = bars(*[(10.0, 11.0, 9.0, 10.0)] * 4).events


def test_an_order_that_arrives_after_a_bar_meets_the_next() -> None:
    venue = desk()
    assert said(venue.market(FLAT[:1])) == []
    assert said(venue.orders(order(1, 5), venue.now)) == [("ack", 1, 0)]
    assert said(venue.orders(order(2, -3, price=12.0), venue.now)) == [("ack", 2, 0)]
    assert said(venue.market(FLAT[1:3])) == [("fill", 1, 5)]
    assert venue.positions().tolist() == [5]
    assert venue.open_orders()["id"].tolist() == [ONE | 2]
    late = order(3, 1, ts=int(FLAT["ts"][2]) + 5)  # after the next bar has begun: not for that one
    assert said(venue.orders(late)) == [("ack", 3, 0)]
    assert said(venue.market(FLAT[3:])) == []


def test_splits_end_orders_and_scale_positions() -> None:
    venue = desk()
    venue.market(FLAT[:1])
    venue.orders(order(1, 5), venue.now)
    venue.market(FLAT[1:2])
    venue.orders(order(2, 5, price=9.0), venue.now)
    assert said(venue.market(action(codes.SPLIT, 2.5, 2.0))) == [("cancelled", 2, 0)]
    assert venue.positions().tolist() == [10]


def test_a_repetition_changes_nothing_and_gets_the_same_reports() -> None:
    venue = desk(quotes=True)
    venue.market(ticks(BOOK).events)
    first = venue.orders(order(1, 2))
    assert said(first) == [("ack", 1, 0), ("fill", 1, 2)]
    assert venue.orders(order(1, 2)).tobytes() == first.tobytes()
    assert venue.positions().tolist() == [2] and venue.last_exec == 2
    rest = order(2, 4, price=9.99)
    venue.orders(rest)
    gone = venue.orders(order(2, 4, seq=7, act=codes.CANCEL))
    assert said(gone) == [("cancelled", 2, 0)]
    assert venue.orders(order(2, 4, seq=7, act=codes.CANCEL)).tobytes() == gone.tobytes()
    assert said(venue.orders(order(2, 4, seq=8, act=codes.CANCEL))) == [("cancel_reject", 2, 0)]  # another one
    assert said(venue.orders(rest)) == [("ack", 2, 0)] and len(venue.open_orders()) == 0


def test_what_it_can_be_asked() -> None:
    venue = desk(quotes=True)
    venue.market(ticks(BOOK).events)
    venue.orders(order(1, 9))  # 4 are shown
    venue.orders(order(2, -1, price=10.5))
    venue.orders(order(2, -3, seq=2, act=codes.REPLACE, price=10.6))
    venue.orders(order(3, 1, price=5.0, tif=codes.IOC))
    view = venue.view([ONE | n for n in (1, 2, 3, 4)])
    got = {n - ONE: one and (one.side, one.qty, one.filled, one.price, one.state) for n, one in view.orders.items()}
    assert got == {
        1: (1, 9, 4, 0.0, codes.WORKING),
        2: (-1, 3, 0, 10.6, codes.WORKING),
        3: (1, 1, 0, 5.0, codes.DONE_CANCELLED),
        4: None,
    }
    assert [one.id - ONE for one in view.working] == [1, 2]
    assert view.last_exec == 6 and view.positions is not None and view.positions.tolist() == [4]
    assert venue.view(since=4).reports["exec_id"].tolist() == [5, 6]
    assert said(venue.market(ticks(q(10.0, 5, 10.02, 5), feed=0).events)) == [("fill", 1, 5)]
    assert venue.lookup(ONE | 1).state == codes.DONE_FILLED  # type: ignore[union-attr]


def test_what_is_forgotten_is_never_done_twice() -> None:
    venue = desk(quotes=True, keep=2)
    venue.market(ticks(BOOK, BOOK, BOOK).events)
    for n in range(1, 5):
        venue.orders(order(n, 1, seq=n))
    assert venue.positions().tolist() == [4]
    assert said(venue.orders(order(1, 1, seq=1))) == [] and venue.positions().tolist() == [4]
    assert ONE | 1 not in venue.view([ONE | 1]).orders  # not answered, which is not "unknown"
    assert venue.view([ONE | 9]).orders == {ONE | 9: None}
    view = venue.view(since=0)
    assert view.since == 8 - len(view.reports) > 0 and view.reports["exec_id"].tolist()[-1] == 8


def test_an_order_that_outlives_what_is_kept_is_still_shown() -> None:
    venue = desk(quotes=True, keep=2)
    venue.market(ticks(BOOK, BOOK, BOOK).events)
    venue.orders(order(1, 3, seq=1, price=9.0))
    (before,) = venue.view().working
    for n in range(2, 6):
        venue.orders(order(n, 1, seq=n))
    view = venue.view([ONE | 1, ONE | 2])
    assert view.working == [before] and view.orders == {ONE | 1: before}


@pytest.mark.parametrize("quotes", [False, True])
def test_a_snapshot_goes_on(quotes: bool) -> None:
    events = ticks(BOOK, t(9.99, 7, -1), q(9.9, 1, 9.95, 3)).events if quotes else FLAT
    one, two = desk(quotes=quotes), desk(quotes=quotes)
    one.market(events[:1])
    one.orders(order(1, 3, price=9.98, ts=TICK_START if quotes else START), one.now)
    two.restore(one.snapshot())
    for venue in (one, two):
        venue.market(events[1:])
        venue.orders(order(1, 3, price=9.98), venue.now)
    assert one.snapshot() == two.snapshot() and one.last_exec > 1
    assert said(one.reports(0)) == said(two.reports(0))


def test_many_reports_at_once_are_all_told() -> None:
    """More than the buffer between two drains holds."""
    venue = desk()
    venue.market(FLAT[:1])
    many = np.concatenate([order(n, 1, seq=n).view(np.uint8) for n in range(1, 1500)]).view(Order.dtype)
    told = said(venue.orders(many, venue.now))
    assert len(told) == 1499 and told[8] == ("reject", 9, 0)  # it holds 8
