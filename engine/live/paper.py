"""The paper venue as a process: a desk behind gRPC, fed from Redis, its reports on NATS.

Law 1: whatever is killed and started again, exec ids go on by one, and every report is published.
Law 2: a state that was refused, or that could not be kept, stays as it was.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from engine.errors import DataError, TandemError
from engine.live.codec import Names
from engine.live.gate import Admission
from engine.live.grpc_service import GrpcService
from engine.live.inbox import Inbox
from engine.live.nats_bus import Bus
from engine.live.quarantine import Quarantine
from engine.live.redis_feed import RedisFeed
from engine.live.reports import ReportPublisher
from engine.live.service import Desk, Service
from engine.live.settings import Execution, Feed, Nats
from engine.live.state import Memory, State, revive

LOG = logging.getLogger("tandem.live")
POSITIONS_S = 1.0  # between two messages of what the account holds


class PaperDesk(Desk, Memory, Protocol):
    """A desk that can be put away, and whose numbers can begin after another's."""

    def begin_after(self, exec_id: int) -> None:
        """The next report is the one after this exec id."""

    def reports(self, after: int) -> Any:
        """The reports after an exec id."""


def feed_of(settings: Feed, names: Names, quarantine: Quarantine) -> RedisFeed:
    """The feed that the settings describe."""
    admission = Admission(len(names.names), settings.late_s, settings.early_s, settings.jump)
    inbox = Inbox(names, admission, quarantine, time.time_ns, settings.rows)
    return RedisFeed(settings.url, inbox, settings.channels, settings.streams, silent_s=settings.silent_s)


class PaperVenue:
    """Runs until `stop` is set. `ready` is called with the port when everything is connected."""

    def __init__(self, desk: PaperDesk, names: Names, feed: Feed, nats: Nats, execution: Execution,
                 quarantine: Quarantine, state: State | None = None) -> None:  # fmt: skip
        self.desk, self.state = desk, state
        self.feed = feed_of(feed, names, quarantine)
        self.bus = Bus(nats.url, f"tandem-venue-{execution.account}", nats.ca, nats.credentials)
        self.publisher = ReportPublisher(self.bus, names, execution.account, nats.durable)
        self.service = Service(desk, names, execution.account, self._publish, state.keep if state else None)
        self.server = GrpcService(self.service, execution.address, execution.tls.files())
        self._reviving, self._due = True, False
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def _publish(self, reports: Any) -> None:
        if not self._reviving:
            self.publisher.publish(reports)

    async def run(self, stop: asyncio.Event, ready: Callable[[int], None] = lambda port: None) -> None:
        """Serve. Raises ConfigError, DataError, WireError when it cannot begin."""
        await self.bus.start()
        try:
            published = await self.publisher.start()
            self._revive(published)
            await self.server.start()
            await self.feed.start(self._news)
            ready(self.server.port)
            await self._serve(stop)
        finally:
            await self.feed.stop()
            await self.server.stop()
            await self.publisher.stop()
            await self.bus.stop()
            if self.state is not None:
                if not (self._reviving or self._failed.done()):
                    self.state.snapshot(self.desk.snapshot(), self.service.fences)
                self.state.close()

    def _revive(self, published: int) -> None:
        if self.state is None:
            self.desk.begin_after(published)
        elif (again := revive(self.state, self.desk, self.service)) or self.desk.last_exec:
            LOG.warning("paper venue: goes on from %s: %d inputs carried out again, %d reports so far",
                        self.state.folder, again, self.desk.last_exec)  # fmt: skip
        else:
            self.desk.begin_after(published)
        if self.desk.last_exec < published:
            raise DataError(f"NATS has reports up to {published} of account {self.service.account}, the state has "
                            f"{self.desk.last_exec}: it is old. Give the latest, or another account.")  # fmt: skip
        self._reviving = False
        untold = self.desk.reports(published).copy()
        self.service.told.recount(untold)
        self.publisher.publish(untold)

    def _news(self) -> None:
        """Market data have come: the book has them as soon as the loop is free."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._take)

    def _take(self) -> None:
        """What has come goes to the desk. An error ends the venue: `_serve` raises it."""
        self._due = False
        if self._failed.done():
            return
        try:
            self.service.market(self.feed.drain())
        except TandemError as error:
            self._failed.set_exception(error)
        except Exception as error:
            self._failed.set_exception(error)
            raise

    async def _serve(self, stop: asyncio.Event) -> None:
        stopping = asyncio.get_running_loop().create_task(stop.wait())
        either: list[asyncio.Future[Any]] = [stopping, self._failed]
        try:
            while not (stop.is_set() or self._failed.done()):
                self.publisher.positions(self.service.held(), self.desk.last_exec, time.time_ns())
                if self.state is not None and self.state.due:
                    self.state.snapshot(self.desk.snapshot(), self.service.fences)
                await asyncio.wait(either, timeout=POSITIONS_S, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
        finally:
            stopping.cancel()
