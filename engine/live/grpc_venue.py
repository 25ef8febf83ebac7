"""The way to an execution service: one long stream of batches and acks, or single calls.

Law 1: an instruction whose ack did not come is in doubt until the venue has answered a query; a network error says
       nothing about it, and nothing else is sent before it is settled.
Law 2: the venue is asked on a new connection, which ends the old one: what it does not know then, it never carries out.
Law 3: what never reached the venue and has become old is not sent any more; it is told as a rejection of our own
       (`drain`, exec id 0), never in silence.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from engine.errors import VenueError
from engine.kernel import codes
from engine.kernel.events import Event
from engine.kernel.records import Order
from engine.live.asking import reports_after, view
from engine.live.clock import NONE
from engine.live.codec import Names
from engine.live.messages import order_batch
from engine.live.redis_wire import Backoff
from engine.live.service import CALLS, REPLIES, SERVICE
from engine.live.tls import Tls
from engine.live.wire import execution_pb2 as pb
from engine.ports import Events, Orders, VenueView

LOG = logging.getLogger("tandem.live")
OPTIONS = [("grpc.keepalive_time_ms", 1000), ("grpc.keepalive_timeout_ms", 1000), ("grpc.http2.ping_timeout_ms", 1000),
           ("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_pings_without_data", 0),
           ("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50),
           ("grpc.max_reconnect_backoff_ms", 1000), ("grpc.use_local_subchannel_pool", 1)]  # fmt: skip
SINGLE = {codes.NEW: "Submit", codes.CANCEL: "Cancel", codes.REPLACE: "Replace"}


@dataclass
class Sent:
    """A batch on its way: its rows, and when it left, seconds."""

    rows: Orders
    at: float


class GrpcVenue:
    """Sends the orders of one account to an execution service at `address`.

    `token`: the fencing token. `allowed`: whether orders may leave at all, asked at each `send` (the lease). Times in
    seconds: `deadline_s` for an ack or an answer, `heartbeat_s` between signs of life, three of which may be missing,
    `resend_s` until an order that did not arrive is too old. `stream` False: single calls only. `looks`: it only asks,
    and ends nobody's connection, until `enter`.
    """

    def __init__(self, address: str, names: Names, account: str, engine: str, token: int = 0, *, tls: Tls | None = None,
                 deadline_s: float = 1.0, heartbeat_s: float = 1.0, resend_s: float = 2.0, stream: bool = True,
                 allowed: Callable[[], bool] = lambda: True, wake: Callable[[], None] = lambda: None,
                 clock: Callable[[], int] = time.time_ns, looks: bool = False) -> None:  # fmt: skip
        self.address, self.names, self.account, self.engine, self.token = address, names, account, engine, token
        self.counts, self.connected, self.fenced = Counter[str](), False, False
        self._deadline_s, self._heartbeat_s, self._resend_ns = deadline_s, heartbeat_s, int(resend_s * 1e9)
        self._streaming, self._allowed, self._wake, self._clock, self._tls = stream, allowed, wake, clock, tls
        self._looks, self._pending = looks, deque[Orders]()
        self._waiting: dict[int, Sent] = {}
        self._doubtful: list[Orders] = []
        self._own: list[Events] = []
        self._batch, self._connection, self._heard, self._beat = 0, 0, 0.0, False
        self._more, self._backoff = asyncio.Event(), Backoff()
        self._channel: Any = None
        self._calls: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, and stay connected until `stop`."""
        if self._tls is None:
            self._channel = grpc.aio.insecure_channel(self.address, options=OPTIONS)
        else:
            credentials = grpc.ssl_channel_credentials(self._tls.ca, self._tls.key, self._tls.cert)
            self._channel = grpc.aio.secure_channel(self.address, credentials, options=OPTIONS)
        for name, (kind, _) in CALLS.items():
            self._calls[name] = self._channel.unary_unary(f"/{SERVICE}/{name}", kind.SerializeToString,
                                                          REPLIES[name].FromString)  # fmt: skip
        if not self._looks:
            self.enter(self.token)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def enter(self, token: int) -> None:
        """From now on orders may leave, with this fencing token."""
        self.token, self._looks = token, False
        self._connection = time.time_ns() // 10**6  # grows from process to process, also without a lease

    async def stop(self) -> None:
        """Send what waits, if that is possible within the deadline, then disconnect."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._deadline_s
        while self.connected and (self._pending or self._waiting) and loop.time() < until:
            await asyncio.sleep(0.005)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()
        self.connected = False

    def send(self, orders: Orders) -> None:
        """Hand orders over, their memory with them; never blocks."""
        if not len(orders):
            return
        if self.fenced or self._looks or not self._allowed():
            self._reject(orders, codes.NOT_ALLOWED)
            return
        self._pending.append(orders)
        self._more.set()

    def drain(self) -> Events:
        """Our own reports about orders that never reached the venue, exec id 0."""
        if not self._own:
            return NONE
        found, self._own = self._own, []
        return np.concatenate([np.zeros(0, "V64"), *(r.view("V64") for r in found)]).view(Event.dtype)

    @property
    def in_doubt(self) -> int:
        """Instructions that left and were not answered."""
        return sum(len(sent.rows) for sent in self._waiting.values()) + sum(map(len, self._doubtful))

    @property
    def waiting(self) -> int:
        """Instructions that have not left yet."""
        return sum(map(len, self._pending))

    def _reject(self, orders: Orders, reason: int) -> None:
        rows = np.zeros(len(orders), Event.dtype)
        rows["ts"], rows["kind"], rows["fee"] = self._clock(), codes.REPORT, float(reason)
        rows["order_id"], rows["instrument"] = orders["id"], orders["instrument"]
        rows["code"] = np.where(orders["action"] == codes.NEW, codes.REJECT, codes.CANCEL_REJECT)
        self._own.append(rows)
        self.counts["unsent"] += len(orders)
        LOG.warning("execution service at %s: %d orders did not leave (%s)", self.address, len(orders),
                    codes.NAMES["reason"][reason])  # fmt: skip
        self._wake()

    async def _run(self) -> None:
        """Settle what is in doubt, talk until the connection ends, begin anew."""
        while not self.fenced:
            try:
                await self._settle()
                self.counts["connections"] += 1
                why = await (self._talk() if self._streaming else self._call_singly())
            except grpc.aio.AioRpcError as error:
                why = self._judge(error)
            self.connected = False
            self._connection += not self._looks
            self._doubtful += [sent.rows for sent in self._waiting.values()]
            self._waiting.clear()
            if self._backoff.tries == 0:
                LOG.warning("execution service at %s: not connected (%s), %d instructions in doubt; trying again",
                            self.address, why, self.in_doubt)  # fmt: skip
            await asyncio.sleep(self._backoff.next())

    def _judge(self, error: Any) -> str:
        code, why = error.code(), f"{error.code().name}: {error.details()}"
        self.counts[f"status_{code.name.lower()}"] += 1
        if code == grpc.StatusCode.FAILED_PRECONDITION:
            self.fenced = True
            LOG.error("execution service at %s: %s; nothing more is sent", self.address, why)
            for rows in self._pending:
                self._reject(rows, codes.NOT_ALLOWED)
            self._pending.clear()
        elif code == grpc.StatusCode.INVALID_ARGUMENT:
            named = dict(error.trailing_metadata() or ()).get("batch", "0")
            sent = self._waiting.pop(int(named), None)
            if sent is not None:  # nothing of this batch was carried out: the service says so
                self._reject(sent.rows, codes.BAD_ORDER)
            LOG.error("execution service at %s: %s", self.address, why)
        elif code == grpc.StatusCode.UNIMPLEMENTED and self._streaming:
            self._streaming = False
            LOG.warning("execution service at %s has no Stream; single calls from now on", self.address)
        return why

    async def _ask(self, name: str, request: Any) -> Any:
        return await self._calls[name](request, timeout=self._deadline_s, wait_for_ready=False)

    def _question(self, ids: Sequence[int]) -> Any:
        return pb.QueryRequest(account=self.account, engine=self.engine, token=self.token,
                               connection=self._connection, order_ids=ids)  # fmt: skip

    async def _settle(self) -> None:
        """Ask what became of what is in doubt: what the venue has is done with, the rest is sent again or told."""
        rows = np.concatenate(self._doubtful) if self._doubtful else np.zeros(0, Order.dtype)
        ids = list(dict.fromkeys(rows["id"].tolist()))
        reply = await self._ask("Query", self._question(ids))
        states = {one.order_id: one.state for one in reply.orders}
        answered = np.array([i in states for i in rows["id"].tolist()], bool)
        self._doubtful, rows = [rows[~answered]] if not answered.all() else [], rows[answered]
        if not len(rows):
            return
        unknown = np.array([states[i] == pb.STATE_UNKNOWN for i in rows["id"].tolist()])
        again = np.array([states[i] == pb.STATE_WORKING for i in rows["id"].tolist()]) & (rows["action"] != codes.NEW)
        young = self._clock() - rows["ts"] <= self._resend_ns
        lost, again = unknown & ~young, unknown & young | again
        LOG.warning("execution service at %s: of %d in doubt it has %d; %d are sent again, %d are too old",
                    self.address, len(rows), int((~unknown).sum()), int(again.sum()), int(lost.sum()))  # fmt: skip
        if lost.any():
            self._reject(rows[lost], codes.EXPIRED_SIGNAL)
        if again.any():
            self._pending.appendleft(rows[again])
            self.counts["resent"] += int(again.sum())

    def _next(self, one_action: bool = False) -> Any:
        """The next batch as a message; None when all that waits is too old, or may not leave any more."""
        rows = np.concatenate(self._pending) if len(self._pending) > 1 else self._pending[0]
        self._pending.clear()
        if not self._allowed():
            self._reject(rows, codes.NOT_ALLOWED)
            return None
        if one_action and len(others := np.flatnonzero(rows["action"] != rows["action"][0])):
            self._pending.append(rows[others[0] :])  # before whatever comes while this one is asked about
            rows = rows[: others[0]]
        if rows["ts"].min() < (since := self._clock() - self._resend_ns):
            old = (rows["ts"] < since) & (rows["action"] != codes.CANCEL)
            if old.any():
                self._reject(rows[old], codes.EXPIRED_SIGNAL)
            if old.all():
                return None
            rows = rows[~old]
        self._batch += 1
        self._waiting[self._batch] = Sent(rows, time.monotonic())
        self.counts["orders"] += len(rows)
        return order_batch(rows, self.names, account=self.account, engine=self.engine, token=self.token,
                           connection=self._connection, batch=self._batch)  # fmt: skip

    async def _talk(self) -> str:
        """Stream until it ends; why it did."""
        call = self._channel.stream_stream(f"/{SERVICE}/Stream", pb.StreamRequest.SerializeToString,
                                           pb.StreamReply.FromString)(wait_for_ready=False)  # fmt: skip
        self._heard = time.monotonic()
        loop, why = asyncio.get_running_loop(), ["the service ended it"]
        helpers = [loop.create_task(self._write(call)), loop.create_task(self._guard(call, why))]
        try:
            while (reply := await call.read()) is not grpc.aio.EOF:
                self._heard = time.monotonic()
                if not self.connected:
                    self._is_up()
                if reply.WhichOneof("body") == "acks":
                    self._acked(reply.acks)
            return f"{(await call.code()).name}: {await call.details()}"
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise  # we are to stop; else our guard has cancelled the call
            return why[0]
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            call.cancel()

    def _is_up(self) -> None:
        self.connected = True
        self._backoff.reset()
        LOG.info("execution service at %s: connected", self.address)

    def _acked(self, acks: Any) -> None:
        sent = self._waiting.pop(acks.batch, None)
        self.counts["acked"] += acks.accepted + acks.repeated
        if sent is not None:
            self.counts["repeated"] += acks.repeated

    async def _write(self, call: Any) -> None:
        """Batches as they come."""
        await call.write(pb.StreamRequest(heartbeat=pb.Heartbeat(ts=self._clock())))
        while True:
            if not (self._pending or self._beat):
                self._more.clear()
                await self._more.wait()
            batch = self._next() if self._pending else None
            if batch is not None:
                await call.write(pb.StreamRequest(batch=batch))
            if self._beat:
                self._beat = False
                await call.write(pb.StreamRequest(heartbeat=pb.Heartbeat(ts=self._clock())))

    async def _guard(self, call: Any, why: list[str]) -> None:
        """Signs of life; a service that gives none, or no ack in time, is left."""
        beat = time.monotonic()
        while True:
            await asyncio.sleep(min(self._heartbeat_s, self._deadline_s) / 4)
            now = time.monotonic()
            oldest = next(iter(self._waiting.values()), None)
            if oldest is not None and now - oldest.at > self._deadline_s:
                why[0] = f"no ack within {self._deadline_s:g} s"
                self.counts["late_acks"] += 1
                call.cancel()
            elif now - self._heard > 3 * self._heartbeat_s:
                why[0] = f"no sign of life within {3 * self._heartbeat_s:g} s"
                call.cancel()
            elif now - beat >= self._heartbeat_s and not oldest:
                beat, self._beat = now, True
                self._more.set()

    async def _call_singly(self) -> str:
        """Without a stream: one call for each run of equal actions, one after another."""
        self._is_up()
        while True:
            if not self._pending:
                self._more.clear()
                await self._more.wait()
            batch = self._next(one_action=True)
            if batch is not None:
                self._acked(await self._ask(SINGLE[batch.orders[0].action], batch))

    async def query(self, ids: Sequence[int], since: int) -> VenueView:
        """What the venue has, all as of one report. Raises VenueError when it cannot be reached or does not answer.

        Who has no order and no report yet is told the latest report only: none before it can be his.
        """
        if not (ids or since):
            held = await self._asked(self._ask("Positions", pb.AccountRequest(account=self.account)))
            since = max(0, int(held.exec_id) - 1)
        found: VenueView = await self._asked(view(self._ask, self.names, self._question(ids), since))
        return found

    async def reports(self, since: int) -> Events:
        """Reports after an exec id. Raises VenueError."""
        found: tuple[Events, int] = await self._asked(reports_after(self._ask, self.names, self.account, since))
        return found[0]

    async def _asked(self, asking: Awaitable[Any]) -> Any:
        try:
            return await asking
        except grpc.aio.AioRpcError as error:
            raise VenueError(f"execution service at {self.address}: {error.code().name}: {error.details()}.") from error
