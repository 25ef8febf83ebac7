"""Execution reports and positions: from a venue onto NATS, and from NATS into an engine.

Law 1: with JetStream a report that a venue has published reaches the engine, however often either of them stops:
       the consumer is durable, and a message is acknowledged after `journalled`, never before.
Law 2: without JetStream (`durable=False`) what is published while nobody is connected is gone; the hole in the exec ids
       shows it, with the next report or position, and the venue is asked.
Law 3: whatever is delivered, reports enter the engine with exec ids one after another, each once. A hole holds back
       what follows it.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np

from engine.errors import TandemError, WireError
from engine.kernel.events import Event
from engine.live.clock import NONE
from engine.live.codec import BadMessage, Names
from engine.live.messages import parsed, position_batch, positions_of, report_batch, reports_of
from engine.live.nats_bus import Bus, checked
from engine.live.quarantine import Quarantine
from engine.live.wire import position_pb2, report_pb2

LOG = logging.getLogger("tandem.live")
Rows = np.ndarray[Any, Any]
WAIT_S, RETRY_S, WATCH_S = 5.0, 0.25, 0.1
BEHIND_S = 0.5  # for how long the venue counts fewer reports than we have; what waited in a queue does so for less
BATCH = 2000  # reports in one message
Fetch = Callable[[int], Awaitable[Rows]]


class Sequencer:
    """Puts reports in order. `last`: exec id of the latest that came out."""

    def __init__(self, last: int = 0) -> None:
        self.last, self.repeated = last, 0
        self._held: dict[int, bytes] = {}

    @property
    def hole(self) -> bool:
        """Whether something waits for a report that is missing."""
        return bool(self._held)

    def offer(self, rows: Rows) -> Rows:
        """Reports in any order, known ones among them; those that come out now."""
        if not len(rows):
            return NONE
        numbers = rows["exec_id"]
        whole = not self._held and numbers[0] == self.last + 1 and numbers[-1] == self.last + len(rows)
        if whole and (len(rows) == 1 or bool((np.diff(numbers) == 1).all())):
            self.last += len(rows)
            return rows
        for row in rows:
            self._hold(int(row["exec_id"]), row.tobytes())
        return self._release()

    def skip(self, exec_id: int) -> Rows:
        """A report that cannot be used counts as seen; what comes out now."""
        self._hold(exec_id, b"")
        return self._release()

    def _hold(self, exec_id: int, row: bytes) -> None:
        if exec_id <= self.last or exec_id in self._held:
            self.repeated += 1
        else:
            self._held[exec_id] = row

    def _release(self) -> Rows:
        found = []
        while (row := self._held.pop(self.last + 1, None)) is not None:
            self.last += 1
            found.append(row)
        return np.frombuffer(b"".join(found), Event.dtype).copy() if found else NONE


class ReportFeed:
    """Execution reports of an account as events; see `engine.ports.Feed`. `last`: the latest exec id that is applied.

    `fetch(since)`: reports after an exec id, from the venue; it is asked when a hole does not fill in `hole_s`.
    `missing`: reports are, and the venue does not give them.
    `positions` is what the venue said last: instrument -> (signed lots, average price), as of exec id `positions_exec`.
    """

    def __init__(self, bus: Bus, names: Names, account: str, engine: str, quarantine: Quarantine, fetch: Fetch,
                 last: int = 0, durable: bool = True, hole_s: float = 0.5, source: int = 0) -> None:  # fmt: skip
        self.bus, self.names, self.account, self.quarantine = bus, names, checked(account, "account"), quarantine
        self.sequencer, self.counts = Sequencer(last), Counter[str]()
        self.positions: Mapping[int, tuple[int, float]] = {}
        self.positions_exec, self.behind, self.missing = -1, False, False  # -1: nothing is said yet
        self._durable, self._hole_s, self._fetch, self._source = durable, hole_s, fetch, source
        self._name = f"tandem-{checked(engine, 'engine')}-{account}"
        self._ready: list[Rows] = []
        self._unacknowledged: list[tuple[int, Any]] = []
        self._drained, self._highest, self._before, self._below = last, last, 0, 0.0
        self._wake: Callable[[], None] = lambda: None
        self._tasks: list[asyncio.Task[None]] = []
        self._subscriptions: list[Any] = []
        self._acknowledge, self._journalled = asyncio.Event(), last

    async def start(self, wake: Callable[[], None]) -> None:
        """Begin to receive. Raises WireError."""
        self._wake = wake
        reports, positions = f"tandem.reports.{self.account}", f"tandem.positions.{self.account}"
        self._subscriptions = [await self.bus.listen(positions, self._on_positions)]
        if self._durable:
            self._subscriptions.append(await self.bus.bind(reports, self._name, self._on_reports))
        else:
            self._subscriptions.append(await self.bus.listen(reports, self._on_reports))
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watch()), loop.create_task(self._acknowledging())]

    def drain(self) -> Rows:
        """The reports since the last call, in the order of their exec ids."""
        if not self._ready:
            return NONE
        rows = self._ready[0] if len(self._ready) == 1 else np.concatenate([r.view("V64") for r in self._ready])
        self._ready = []
        self._drained = self.sequencer.last
        return rows.view(Event.dtype)

    def journalled(self) -> None:
        """All that was drained is in the journal: now it may be acknowledged."""
        if self._journalled != self._drained or self._unacknowledged:
            self._journalled = self._drained
            self._acknowledge.set()

    async def stop(self) -> None:
        """Receive no more; the durable consumer stays."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._acknowledge_done()
        for subscription in self._subscriptions:
            await self.bus.leave(subscription)

    def _take(self, rows: Rows) -> None:
        if len(rows):
            self._ready.append(rows)
            self.counts["reports"] += len(rows)
            self._wake()

    async def _on_reports(self, message: Any) -> None:
        highest = 0
        try:
            batch = parsed(report_pb2.ReportBatch, message.data)
            rows, aside = reports_of(batch, self.names, self._source)
            for exec_id, why, payload in aside:
                self.quarantine.put("report", message.subject, why, payload)
                self._take(self.sequencer.skip(exec_id))
            highest = max([batch.reports[-1].exec_id if batch.reports else 0, *(n for n, _, _ in aside)])
            self._highest = max(self._highest, batch.last_exec)
            self._take(self.sequencer.offer(rows))
        except BadMessage as error:
            self.quarantine.put(error.kind, message.subject, str(error), message.data)
        if not self._ready and self._drained == self._journalled:  # what cannot be used waits for no journal
            self._drained = self._journalled = self.sequencer.last
        if self._durable:
            self._unacknowledged.append((highest, message))
            if highest <= self._journalled:
                self._acknowledge.set()

    async def _on_positions(self, message: Any) -> None:
        try:
            batch = parsed(position_pb2.PositionBatch, message.data)
            self.positions, self.positions_exec = positions_of(batch, self.names), batch.exec_id
        except BadMessage as error:
            self.quarantine.put(error.kind, message.subject, str(error), message.data)
            return
        self._highest = max(self._highest, batch.exec_id)
        now = asyncio.get_running_loop().time()
        self._below = (self._below or now) if batch.exec_id < self._before else 0.0
        if self._below and now - self._below > BEHIND_S and not self.behind:
            self.behind = True
            LOG.error("account %s: the venue counts reports up to %d, %d of them were applied: it has lost its state, "
                      "and nothing it says is new here; stop and reconcile", self.account, batch.exec_id,
                      self._before)  # fmt: skip
        self._before = self.sequencer.last

    async def _watch(self) -> None:
        """Ask the venue for what is missing."""
        since, loop = 0.0, asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCH_S)
            if not self.sequencer.hole and self._highest <= self.sequencer.last:
                since, self.missing = 0.0, False
            elif not since:
                since = loop.time()
            elif loop.time() - since >= self._hole_s:
                self.counts["holes"] += 1
                last, since = self.sequencer.last, loop.time()
                try:
                    rows = await self._fetch(last)
                    self._take(self.sequencer.offer(rows))
                    upto = int(rows["exec_id"][-1]) if len(rows) else last
                    for exec_id in sorted({*range(last + 1, upto)} - {*rows["exec_id"].tolist()}):
                        self._take(self.sequencer.skip(exec_id))  # the venue has none of that number that is of use
                    self.missing = self.sequencer.hole
                except TandemError as error:
                    if not self.missing:
                        LOG.error("account %s: reports after %d are missing and the venue does not give them (%s); "
                                  "asking again", self.account, last, error)  # fmt: skip
                    self.missing = True

    async def _acknowledging(self) -> None:
        while True:
            await self._acknowledge.wait()
            self._acknowledge.clear()
            await self._acknowledge_done()

    async def _acknowledge_done(self) -> None:
        done: set[int] = set()
        try:
            for message in [one for highest, one in self._unacknowledged if highest <= self._journalled]:
                await self.bus.acknowledge(message)
                done.add(id(message))
        finally:  # also when we are stopped in the middle
            self._unacknowledged = [pair for pair in self._unacknowledged if id(pair[1]) not in done]


class ReportPublisher:
    """A venue's side: reports of an account, in order, each at least once; JetStream drops repetitions."""

    def __init__(self, bus: Bus, names: Names, account: str, durable: bool = True) -> None:
        self.bus, self.names, self.account = bus, names, checked(account, "account")
        self.subject, self.counts, self.published = f"tandem.reports.{account}", Counter[str](), 0
        self._durable = durable
        self._pending: deque[Rows] = deque()
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Begin to publish; the latest exec id that the stream has, 0 when it has none. Raises WireError."""
        last = 0
        if self._durable:
            payload = await self.bus.last_of(self.subject)
            last = 0 if payload is None else int(parsed(report_pb2.ReportBatch, payload).last_exec)
        self.published = last
        self._task = asyncio.get_running_loop().create_task(self._send())
        return last

    def publish(self, rows: Rows) -> None:
        """Reports to publish, in order; never blocks."""
        if len(rows):
            self._pending.append(rows)
            self._more.set()

    def positions(self, held: Mapping[int, tuple[int, float]], exec_id: int, ts: int) -> None:
        """What the account holds as of an exec id: instrument -> (signed lots, average price)."""
        rows = [(i, qty, average) for i, (qty, average) in held.items()]
        batch = position_batch(rows, self.names, self.account, exec_id, ts)
        self.bus.publish(f"tandem.positions.{self.account}", batch.SerializeToString())

    @property
    def waiting(self) -> int:
        """Reports that are not published yet."""
        return sum(map(len, self._pending))

    async def stop(self) -> None:
        """Publish what waits, if that is possible now."""
        until = asyncio.get_running_loop().time() + WAIT_S
        while self._pending and self.bus.connected and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.01)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _send(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._pending:
                parts = [self._pending[0]]
                for rows in list(self._pending)[1:]:
                    if sum(map(len, parts)) + len(rows) > BATCH:
                        break
                    parts.append(rows)
                joined = np.concatenate([rows.view("V64") for rows in parts]).view(Event.dtype)
                for at in range(0, len(joined), BATCH):
                    await self._one(joined[at : at + BATCH])
                for _ in parts:
                    self._pending.popleft()

    async def _one(self, rows: Rows) -> None:
        """Publish until it is confirmed; the id of the message makes a repetition harmless."""
        first, last = int(rows["exec_id"][0]), int(rows["exec_id"][-1])
        payload = report_batch(rows, self.names, self.account, last).SerializeToString()
        while True:
            try:
                if self._durable:
                    await self.bus.keep(self.subject, payload, f"{self.account}-{first}-{last}")
                else:
                    await self.bus.say(self.subject, payload)
                self.published = last
                return
            except WireError as error:
                self.counts["retries"] += 1
                LOG.debug("NATS at %s: reports up to %d are not confirmed (%s); again", self.bus.url, last, error)
                await asyncio.sleep(RETRY_S)
