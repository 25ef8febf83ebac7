"""The execution service without its wire: who may send, what was sent before, and what the desk made of it.

Law 1: an instruction is kept (`keep`) before the desk carries it out, and the ack comes after both.
Law 2: a repeated instruction has no effect; of all engines the one with the newest token and connection is heard.
Law 3: reports leave in the order of their exec ids, each once.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from engine.errors import TandemError
from engine.kernel import codes
from engine.live.account import Account
from engine.live.codec import SCHEMA, BadMessage, Names
from engine.live.messages import SIDES, orders_of, position_batch, report_batch
from engine.live.wire import execution_pb2 as pb
from engine.live.wire import order_pb2, position_pb2, report_pb2
from engine.ports import Events, Orders, Standing, VenueView

LOG = logging.getLogger("tandem.live")
MARKET, ORDERS, FENCE = 1, 2, 3  # what is kept
REPORTS = 10_000  # of one answer at most
STATES = {
    codes.WORKING: pb.STATE_WORKING, codes.DONE_FILLED: pb.STATE_FILLED, codes.DONE_CANCELLED: pb.STATE_CANCELLED,
    codes.DONE_REJECTED: pb.STATE_REJECTED, codes.DONE_EXPIRED: pb.STATE_EXPIRED,
}  # fmt: skip
Keep = Callable[[int, int, bytes], None]  # kind, the desk's time, bytes


class Desk(Protocol):
    """What a venue must be able to do; `backtest.desk.VenueDesk` is one."""

    @property
    def now(self) -> int:
        """Its clock, ns."""

    @property
    def last_exec(self) -> int:
        """The number of its latest report."""

    def market(self, events: Events) -> Events:
        """Market events in; reports out."""

    def orders(self, orders: Orders, now: int | None = None) -> Events:
        """Instructions in; reports out, those of repeated ones again."""

    def knows(self, order_id: int, action: int, cause: int) -> bool:
        """Whether it had an instruction before."""

    def positions(self) -> "np.ndarray[Any, Any]":
        """Net lots by instrument."""

    def view(self, ids: Sequence[int] = (), since: int = 0) -> VenueView:
        """Orders asked for, open ones, reports, positions."""


class Refused(TandemError):
    """The service does not do it, for sure. `fenced`: because somebody newer has spoken."""

    def __init__(self, message: str, fenced: bool = False) -> None:
        super().__init__(message)
        self.fenced = fenced


class Service:
    """One account at a desk. `publish` gets every new report once; `keep` gets every input before it is carried out."""

    def __init__(self, desk: Desk, names: Names, account: str, publish: Callable[[Events], None],
                 keep: Keep | None = None, clock: Callable[[], int] = time.time_ns) -> None:  # fmt: skip
        self.desk, self.names, self.account, self.counts = desk, names, account, Counter[str]()
        self._publish, self._keep, self._clock = publish, keep or (lambda kind, now, payload: None), clock
        self.fences: dict[str, tuple[int, int]] = {}  # engine -> highest token, highest connection of it
        self.told = Account()

    def market(self, events: Events) -> None:
        """Market events, in order of arrival."""
        if len(events):
            self._keep(MARKET, 0, events.tobytes())
            self.apply(MARKET, 0, events)

    def submit(self, batch: Any, only: int = 0) -> Any:
        """Carry out an OrderBatch; its Acks. `only`: the action that it may hold. Raises Refused."""
        received = self._clock()
        self._expect(batch.schema, batch.account)
        self._fence(batch.engine, batch.token, batch.connection)
        try:
            orders = orders_of(batch, self.names)
        except BadMessage as error:
            raise Refused(str(error)) from error
        if only and bool((orders["action"] != only).any()):
            raise Refused(f"this call takes {codes.NAMES['action'][only]} orders only; use Stream for several kinds")
        knows = self.desk.knows
        known = [knows(*key) for key in zip(*(orders[n].tolist() for n in ("id", "action", "seq")), strict=True)]
        fresh = orders[~np.array(known, bool)] if known else orders
        if len(fresh):
            now = self.desk.now if self.desk.now > 0 else received
            self._keep(ORDERS, now, fresh.tobytes())
            self.apply(ORDERS, now, fresh)
        self.counts["orders"] += len(fresh)
        self.counts["repeated"] += len(orders) - len(fresh)
        return pb.Acks(batch=batch.batch, accepted=len(fresh), repeated=len(orders) - len(fresh), ts=received)

    def apply(self, kind: int, now: int, rows: Any) -> None:
        """Let the desk see what was kept: now, or again when the service starts anew."""
        before = self.desk.last_exec
        reports = self.desk.market(rows) if kind == MARKET else self.desk.orders(rows, now)
        fresh = reports[reports["exec_id"] > before]
        if len(fresh):
            self.counts["reports"] += len(fresh)
            self.told.add(fresh)
            self._publish(fresh)

    def recall(self) -> None:
        """Count what the desk has reported before."""
        view = self.desk.view((), 0)
        if view.since:
            self.told.forget(max([*view.reports["order_id"].tolist(), *(one.id for one in view.working)], default=0))
        else:
            self.told.add(view.reports.copy())

    def _expect(self, schema: int, account: str) -> None:
        if schema != SCHEMA:
            raise Refused(f"schema {schema}; this service speaks {SCHEMA}")
        if account != self.account:
            raise Refused(f"no account {account!r} here, only {self.account!r}")

    def _fence(self, engine: str, token: int, connection: int) -> None:
        """Refuse whoever is not the newest; remember who is. Raises Refused."""
        highest = max(self.fences.values(), default=(0, 0))  # whoever it was: an account has one engine at a time
        if (token, connection) < highest:
            self.counts["fenced"] += 1
            raise Refused(f"engine {engine}: token {token}, connection {connection} is not the newest, which is "
                          f"{highest[0]}, {highest[1]}", fenced=True)  # fmt: skip
        if (token, connection) > highest:
            self.fences[engine] = (token, connection)
            self._keep(FENCE, 0, json.dumps([engine, token, connection]).encode())

    def query(self, request: Any) -> Any:
        """A QueryReply. Raises Refused."""
        self._expect(SCHEMA, request.account)
        if request.connection:  # else an observer asks
            self._fence(request.engine, request.token, request.connection)
        view = self.desk.view(list(request.order_ids), self.desk.last_exec)
        missing = [i for i in request.order_ids if i not in view.orders]
        if missing:
            raise Refused(f"order {missing[0]} is older than what is kept here; reconcile by positions and open orders")
        reply = pb.QueryReply(last_exec=view.last_exec)
        for order_id in request.order_ids:
            self._state(reply.orders.add(), order_id, view.orders[order_id])
        return reply

    def _state(self, state: Any, order_id: int, one: Standing | None) -> None:
        state.order_id = order_id
        if one is not None:
            state.state, state.side = STATES[one.state], SIDES[one.side]
            state.instrument = self.names.names[one.instrument]
            state.qty, state.filled, state.price, state.stop = one.qty, one.filled, one.price, one.stop

    def open_orders(self, request: Any) -> Any:
        """OrderStates. Raises Refused."""
        self._expect(SCHEMA, request.account)
        view = self.desk.view((), self.desk.last_exec)
        reply = pb.OrderStates(last_exec=view.last_exec)
        for one in view.working:
            self._state(reply.orders.add(), one.id, one)
        return reply

    def held(self) -> Mapping[int, tuple[int, float]]:
        """Instrument -> (signed lots, average price; 0: not known here)."""
        lots = self.desk.positions()
        return {i: (int(lots[i]), self.told.average(i, int(lots[i]))) for i in np.flatnonzero(lots).tolist()}

    def positions(self, request: Any) -> Any:
        """A PositionBatch. Raises Refused."""
        self._expect(SCHEMA, request.account)
        held = ((i, qty, average) for i, (qty, average) in self.held().items())
        return position_batch(held, self.names, self.account, self.desk.last_exec, self._clock())

    def reports(self, request: Any) -> Any:
        """A ReportBatch. Raises Refused when what is asked for is no longer kept."""
        self._expect(SCHEMA, request.account)
        view = self.desk.view((), request.since)
        if view.since > request.since:
            raise Refused(f"reports up to {view.since} are no longer kept; those after {request.since} were asked for")
        rows = view.reports.copy()
        self.told.recount(rows)
        return report_batch(rows[: request.limit or REPORTS], self.names, self.account, view.last_exec)


# name of the call -> its request, and how the service answers it
Answer = Callable[[Service, Any], Any]
CALLS: Mapping[str, tuple[Any, Answer]] = {
    "Submit": (order_pb2.OrderBatch, lambda service, batch: service.submit(batch, codes.NEW)),
    "Cancel": (order_pb2.OrderBatch, lambda service, batch: service.submit(batch, codes.CANCEL)),
    "Replace": (order_pb2.OrderBatch, lambda service, batch: service.submit(batch, codes.REPLACE)),
    "Query": (pb.QueryRequest, Service.query),
    "OpenOrders": (pb.AccountRequest, Service.open_orders),
    "Positions": (pb.AccountRequest, Service.positions),
    "Reports": (pb.ReportsRequest, Service.reports),
}
REPLIES: Mapping[str, Any] = {
    "Submit": pb.Acks, "Cancel": pb.Acks, "Replace": pb.Acks, "Query": pb.QueryReply, "OpenOrders": pb.OrderStates,
    "Positions": position_pb2.PositionBatch, "Reports": report_pb2.ReportBatch,
}  # fmt: skip
SERVICE = "tandem.v1.ExecutionService"
