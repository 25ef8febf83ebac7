"""Law 6: a session and the paper venue, side by side on a tape, in place of the loop that holds kernel and venue.

Everything goes where it goes in live: market events to the venue and to the session, orders from one to the other,
reports back; only the order of things is that of the tape's clock, and nothing is lost on the way.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.desk import VenueDesk
from backtest.drive import Outputs, has_ticks
from backtest.latency import feed_arrival, order_arrival
from backtest.loop import LATEST, ROUNDS
from engine.journal import JournalWriter
from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.machine import Machine
from engine.kernel.records import Curve, Order, Refusal, slots
from engine.session import OPAQUE, Rows, Session, together

if TYPE_CHECKING:
    from backtest.run import Prepared

NOTHING: Rows = np.zeros(0, Event.dtype)


class Parity:
    """A prepared backtest, driven by a session. `run` gives what the loop gives, but for the curve."""

    def __init__(self, prepared: "Prepared", journal: JournalWriter | None = None) -> None:
        self.events = prepared.tape.events
        self.ticks = has_ticks(self.events)
        self.session = Session(prepared.machine(), journal, compiled=prepared.compiled)
        self.desk = VenueDesk(prepared.rows, prepared.cash, prepared.venue, leverage=prepared.risk.leverage,
                              orders=prepared.sizes.orders, ticks=self.ticks, compiled=prepared.compiled,
                              depth=prepared.depth, sessions=prepared.sessions)  # fmt: skip
        self.arrives: int | None = None  # when the first of the waiting orders reaches the venue
        self.waiting: list[Rows] = []  # orders that have left the kernel and not reached the venue
        self.told: list[Rows] = []  # reports that have left the venue and not reached the kernel
        self.written: dict[str, list[Rows]] = {"orders": [], "reports": [], "refusals": []}
        self.seen = 0  # events that the venue has seen

    def run(self) -> Outputs:
        """To the end of the tape, or to a halt."""
        if self.ticks:
            self.run_ticks()
        else:
            for part in np.split(self.events, np.flatnonzero(np.diff(self.events["ts"])) + 1):
                self.slice(part)
                if self.session.halted:
                    break
        kinds = {"orders": Order, "reports": Event, "refusals": Refusal}
        found = {name: together(parts, kinds[name].dtype) for name, parts in self.written.items()}
        return Outputs(**found, curve=np.zeros(0, Curve.dtype))

    def step(self, events: Rows, closing: bool = False) -> None:
        """Events to the kernel; a halted one hears nothing more."""
        if not self.session.halted:
            orders = self.session.advance(events, closing)
            self.written["refusals"].append(self.session.refused)
            self.written["orders"].append(orders)
            self.waiting += [orders[n : n + 1] for n in range(len(orders))]

    def heard(self, reports: Rows) -> Rows:
        """Reports as the venue makes them."""
        self.written["reports"].append(reports)
        return reports

    def deliver(self, reports: Rows) -> None:
        """Reports to the kernel, orders to the venue, until nothing is left to say; see `loop.deliver`."""
        for left in range(ROUNDS, -1, -1):
            if len(reports):
                self.step(reports)
            if not self.waiting or left == 0:
                break
            orders, self.waiting = together(self.waiting, Order.dtype), []
            reports = self.heard(self.desk.orders(orders))

    def slice(self, part: Rows) -> None:
        """The bars of one timestamp, and its actions; see `loop.run`."""
        reports = self.heard(self.desk.meet(part))
        if len(reports) or self.waiting:
            self.deliver(reports)
        splits = np.flatnonzero(part["kind"] == codes.SPLIT)
        for run in np.split(part, np.unique(np.concatenate([splits, splits + 1]))):
            is_split = len(run) > 0 and run["kind"][0] == codes.SPLIT
            if is_split and self.waiting:
                self.deliver(NOTHING)
            reports = self.heard(self.desk.close(run))
            self.step(run)
            if len(reports):
                self.deliver(reports)
        self.step(NOTHING, closing=True)
        if self.waiting:
            self.deliver(NOTHING)

    def run_ticks(self) -> None:
        """Quotes and trades, each side with its own clock; see `ticks.run_ticks`."""
        feed = self.events.view(OPAQUE).copy().view(Event.dtype)
        feed["recv"] = [feed_arrival(self.desk.venue.header, recv) for recv in feed["recv"].tolist()]
        for moment in np.split(feed, np.flatnonzero(np.diff(feed["recv"])) + 1):
            self.catch_up(int(moment["recv"][0]))
            self.step(moment, closing=True)
            if self.session.halted:
                return
        under_way = len(self.waiting)  # what they bring about never arrives
        self.catch_up(LATEST - 1, under_way)

    def catch_up(self, now: int, last: int | None = None) -> None:
        """All that happens up to `now` but for the kernel's own market events; see `ticks.catch_up`."""
        v, sent = self.desk.venue.header, 0
        while True:
            arrival = LATEST
            if self.waiting and (last is None or sent < last):
                if self.arrives is None:
                    self.arrives = order_arrival(v, int(self.waiting[0]["ts"][0]))
                arrival = self.arrives
            due = min(arrival, int(self.told[0]["recv"][0]) if self.told else LATEST)
            if last is None:
                due = min(due, v.next_expiry)
            reports = self.follow(min(now, due))
            if len(reports):
                continue
            if due > now:
                return
            if last is None and v.next_expiry <= due:
                self.tell(self.desk.expire())
            elif self.told and int(self.told[0]["recv"][0]) < arrival:
                self.step(self.told.pop(0))
            else:
                self.tell(self.desk.orders(self.waiting.pop(0), arrival))
                self.arrives = None
                sent += 1

    def follow(self, until: int) -> Rows:
        """The venue sees the tape up to `until`, or until it has something to report."""
        later = np.flatnonzero(self.events["ts"][self.seen :] > until)
        end = self.seen + int(later[0]) if len(later) else len(self.events)
        done, reports = self.desk.until_report(self.events[self.seen : end])
        self.seen += done
        return self.tell(reports)

    def tell(self, reports: Rows) -> Rows:
        """Reports on their way."""
        self.heard(reports)
        self.told += [reports[n : n + 1] for n in range(len(reports))]
        return reports


def differing(one: Machine, other: Machine) -> str:
    """The first table in which two kernels' states differ, empty when none does. What outboxes held is no state."""
    for name in one.tables:
        if name not in ("outbox_at", "refusals_at") and one.table(name).tobytes() != other.table(name).tobytes():
            return name.removesuffix("_at")
    a, b = (vars_of(machine) for machine in (one, other))
    return next((name for name in a if a[name] != b[name]), "")


def vars_of(machine: Machine) -> dict[str, Any]:
    """The header of a kernel and the states of its strategies."""
    states = {}
    for n in range(machine.kernel.strategies):
        every = range(slots(machine.kernel, n).instances)
        states[f"state of strategy {n}"] = [machine.state(n, instance).tobytes() for instance in every]
    return {**machine.kernel.asdict(), "attention": 0, **states}
