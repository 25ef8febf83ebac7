"""The twin of a live session: the same strategies on the market data that its journal holds, at the simulated venue.

Law 1: the twin is given what the session was given: strategies, instruments, limits, cash, and the time that its orders
       and their reports took (the median of the journal, half each way).
Law 2: orders are the same until an execution report comes at another moment or says something else; from there the
       difference is measured, not explained away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backtest.run import Prepared
from engine.config import Risk, VenueModel
from engine.errors import DataError
from engine.journal import Journal
from engine.journal.format import EVENTS, ORDERS
from engine.kernel import codes
from engine.kernel.machine import Machine
from engine.plan import Find, Plan
from engine.replay import rebuilt
from engine.store.tape import Tape, frozen

MARKET = (codes.BAR, codes.QUOTE, codes.TRADE, codes.DEPTH, codes.FUNDING, codes.SPLIT, codes.DIVIDEND)
SAME = ("instrument", "strategy", "action", "side", "type", "tif", "qty", "price", "stop")  # what an order asks for
Rows = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Twin:
    """Figures of both by the same names; `same`: orders that are equal from the first on; `round_trip_ms`: measured."""

    live: Mapping[str, float]
    backtest: Mapping[str, float]
    same: int
    round_trip_ms: float

    def __str__(self) -> str:
        lines = [f"{'':<18}{'Live':>16}{'Backtest':>16}"]
        for name, value in self.live.items():
            cells = [f"{v:,.2f}" if name in MONEY else f"{v:,.0f}" for v in (value, self.backtest[name])]
            lines.append(f"{name:<18}{cells[0]:>16}{cells[1]:>16}")
        first = min(int(self.live["Orders"]), int(self.backtest["Orders"]))
        said = "all orders are the same" if self.same == first else f"the first {self.same:,} orders are the same"
        return "\n".join([*lines, f"With a round trip of {self.round_trip_ms:.2f} ms, as measured, {said}."])


MONEY = ("Profit and loss", "Fees", "Turnover")


def twin(folder: Path | str, find: Find, *, risk: Risk | None = None, venue: VenueModel | None = None) -> Twin:
    """Run the backtest of a journal and lay both side by side. `find`: classes of strategies by name.

    `risk`: the limits of then; `venue`: what the simulated venue is like, but for its latencies. Raises JournalError
    for a journal that is damaged, DataError for one without market data.
    """
    journal = Journal(folder)
    events, orders = journal.rows(EVENTS), journal.rows(ORDERS)
    market = events[np.isin(events["kind"], MARKET)]
    if not len(market):
        raise DataError(f"{journal.name} holds no market data; there is nothing to run a backtest on.")
    plan, trip = Plan.of(journal.header, find, exact=False), round_trip_ns(events, orders) / 1e6
    model = VenueModel(**{**vars(venue or VenueModel()), "order_ms": trip / 2, "report_ms": trip / 2})
    tape = Tape(frozen(market), plan.infos, journal.name, journal.name)
    prepared = Prepared(list(plan.strategies), tape, plan.cash, risk or Risk(), model, plan.compiled, plan.sizes,
                        "raise", journal.name)  # fmt: skip
    drive = prepared.drive()
    drive.advance()
    rerun = rebuilt(journal, find)
    rerun.drive()
    found, multiplier = drive.outputs(), plan.rows["multiplier"] * plan.rows["lot"]
    reports = events[events["kind"] == codes.REPORT]
    live = figures(len(market), orders, reports, rerun.session.machine, plan.cash, multiplier)
    back = figures(len(market), found.orders, found.reports, drive.machine, plan.cash, multiplier)
    return Twin(live, back, equal(orders, found.orders), trip)


def round_trip_ns(events: Rows, orders: Rows) -> float:
    """The median time from an order to the first report about it; 0 without any."""
    reports = events[(events["kind"] == codes.REPORT) & (events["order_id"] != 0)]
    ids, first = np.unique(reports["order_id"], return_index=True)
    sent = orders[orders["action"] == codes.NEW]
    at = np.searchsorted(ids, sent["id"])
    known = (at < len(ids)) & (ids[np.minimum(at, max(len(ids) - 1, 0))] == sent["id"]) if len(ids) else at < 0
    took = reports["recv"][first[at[known]]] - sent["ts"][known]
    return float(np.median(took)) if len(took) else 0.0


def figures(events: int, orders: Rows, reports: Rows, machine: Machine, cash: float, unit: Rows) -> dict[str, float]:
    """What is compared."""
    fills, kernel = reports[reports["code"] == codes.FILL], machine.kernel
    traded = np.abs(fills["qty"]) * fills["price"] * unit[fills["instrument"]]
    return {
        "Market events": events, "Orders": len(orders), "Fills": len(fills), "Turnover": float(traded.sum()),
        "Fees": float(fills["fee"].sum()), "Profit and loss": float(kernel.cash + kernel.value - cash),
    }  # fmt: skip


def equal(ours: Rows, theirs: Rows) -> int:
    """How many orders ask for the same, from the first on."""
    n = min(len(ours), len(theirs))
    differ = np.flatnonzero(np.any([ours[name][:n] != theirs[name][:n] for name in SAME], axis=0))
    return int(differ[0]) if len(differ) else n
