"""The engine: a session on live feeds, with its orders going to an execution service.

    reports (NATS) -> commands -> timers -> market data (Redis)  =  one drain, one time of receipt
    drain -> journal -> kernel -> journal -> disk -> venue (gRPC); then acknowledge reports, tell NATS

Law 1: the session decides, this file carries: nothing here changes what a drain leads to, so a replay needs the
       journal alone.
Law 2: nothing is sent before the venue has been heard (`reconcile`), nor without the lease, nor what is not on the
       journal.
Law 3: whoever cannot go on stops with a reason: a lost lease, a halted kernel, a journal that takes no more.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.errors import ConfigError, JournalError, TandemError, VenueError
from engine.journal.format import Place
from engine.kernel import codes
from engine.live import ready
from engine.live.agree import agree, entered
from engine.live.announce import Voice
from engine.live.clock import NONE, Clock
from engine.live.codec import Names
from engine.live.commands import Commands
from engine.live.departure import Batch, Departure
from engine.live.grpc_venue import GrpcVenue
from engine.live.lease import Lease
from engine.live.nats_bus import Bus
from engine.live.opening import ENDING
from engine.live.prices import Prices
from engine.live.ready import STALL_S
from engine.live.redis_feed import RedisFeed
from engine.live.reports import ReportFeed
from engine.live.stats import Stats
from engine.plan import Find, Plan, handlers_of
from engine.reconcile import cut_known
from engine.session import Rows, Session, check_layout, event, together

LOG = logging.getLogger("tandem.live")
DRAIN_S = 5.0  # at the end: how long we wait for answers about what is open
BEAT_S = 0.5  # the loop turns at least so often


@dataclass(frozen=True)
class Seat:
    """Who we are and how we behave. `timer_ms` 0: no timers; `cancel`: whether orders end with us."""

    engine: str
    account: str
    resend_s: float = 2.0
    timer_ms: int = 0
    cancel: bool = True
    durable: bool = True


class Engine:
    """Drives `session` until it is told to stop, or cannot go on.

    `lease` is held already: before that nobody may touch the journal. `start`: where the session's state was taken up.
    """

    def __init__(self, seat: Seat, plan: Plan, session: Session, names: Names, feed: RedisFeed, venue: GrpcVenue,
                 lease: Lease, bus: Bus, quarantine: Any, find: Find, start: Place | None = None,
                 clock: Callable[[], int] = time.time_ns) -> None:  # fmt: skip
        self.seat, self.plan, self.session, self.names = seat, plan, session, names
        self.feed, self.venue, self.lease, self.bus, self.find = feed, venue, lease, bus, find
        self.reports: ReportFeed | None = None
        self.voice = Voice(bus, names, seat.engine, seat.account)
        self.quarantine, self.stats, self.reconciled = quarantine, Stats(), False
        self.why, self.differs = "", ""  # why it has stopped; which positions are not the venue's
        self.time, self.start = Clock(clock, int(session.machine.kernel.ts), seat.timer_ms), start or Place()
        self._since, self._turned = 0, time.monotonic()
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._commands = Commands(self._take)
        self._faults, self._second = len(session.faults), 0
        self._first: list[tuple[int, float]] = []
        self.departure = Departure(session.journal, self._leave, self._fail)
        self._hearing, self.listening = False, False  # commands; feeds
        self.prices: Prices | None = None
        self.entering: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._turn_due, self._ended = False, self._loop.create_future()

    # What others may ask for.

    async def command(self, code: int, *, amount: float = 0.0, strategy: int = -1) -> None:
        """A journalled COMMAND, carried out when this returns."""
        if code == codes.TRADING and amount != float(codes.OBSERVATION):
            await entered(self)
        done = self._commands.ask(event(codes.COMMAND, 0, code=code, amount=amount, strategy=strategy))
        self.wake()
        await done

    async def reload(self, strategy: int, name: str | None, params: dict[str, Any]) -> str:
        """Other code or parameters for a strategy between two events; the digest of its image.

        The class must be compiled already (`tandem mode=compile strategies=[…]`). Raises ConfigError, StrategyError,
        ImageError; the old one then still runs. JournalError ends the engine.
        """
        if self.ending:
            raise Commands.too_late()
        running = self.session.machine.placed
        if not 0 <= strategy < len(running):
            raise ConfigError(f"There is no strategy {strategy}; there are {len(running)}, numbered from 0 on.")
        known = self.session.reloads.get(strategy, {})
        name = name or str(known.get("name", self.plan.names[strategy]))
        kind = self.find(name)
        check_layout(self.session.machine, strategy, kind)
        fresh = kind(**{**running[strategy].strategy.values, **known.get("params", {}), **params})
        addresses, image = handlers_of(type(fresh), self.plan.compiled)
        try:
            self.send(self.session.reload(self.time.receipt(), strategy, fresh, addresses, name=name, image=image))
        except JournalError as error:
            self._fail(error)
            raise
        LOG.warning("strategy %d: %r from now on (image %s)", strategy, fresh, image)
        return image

    def at_first(self, code: int, amount: float) -> None:
        """A command that the session gets before anything else."""
        self._first.append((code, amount))

    def wake(self) -> None:
        """There is something to do."""
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    @property
    def ending(self) -> bool:
        """Whether it has been told to end, or has to."""
        return self._stopping.is_set() or self._ended.done()

    def turned(self) -> None:
        """The loop turns."""
        self._turned = time.monotonic()

    def stop(self, why: str = "") -> None:
        """End in good order; with a reason, as a failure."""
        self.why = self.why or why
        self._stopping.set()
        self.wake()

    def readiness(self) -> list[str]:
        """Why no order would be sent now; empty when it would."""
        return ready.why_not(self)

    def healthy(self) -> bool:
        """Whether the loop turns, the disk answers and the kernel runs."""
        return max(time.monotonic() - self._turned, self.departure.slow_s) < STALL_S and not self.session.halted

    # Beginning and end.

    async def run(self, stop: asyncio.Event, ready: Callable[[], None] = lambda: None) -> None:
        """From the first connection to the seal. Raises TandemError when it cannot begin or go on."""
        watcher = self._loop.create_task(stop.wait())
        watcher.add_done_callback(lambda _: self.stop())
        try:
            await self.bus.start()
            await self.venue.start()
            for code, amount in self._first:
                self._order(code, amount)
            self._hearing = True
            self.wake()
            await agree(self)
            if not self.ending:
                await self._listen()
                ready()
                self.listening = True
                self._tick()
                await self._ended
        except TandemError as error:
            self._fail(error)
            raise
        finally:
            self._hearing = self.listening = False
            self._commands.close()
            for one in (self._alarm, watcher, self.entering):
                if one is not None:
                    one.cancel()
            await self._end()
        if self._ended.done():
            self._ended.result()
        if self.why:
            raise VenueError(f"engine {self.seat.engine} has stopped: {self.why}.")

    async def _listen(self) -> None:
        last, self._since = int(self.session.machine.kernel.last_exec), 0
        self.reports = ReportFeed(self.bus, self.names, self.seat.account, self.seat.engine, self.quarantine,
                                  self.venue.reports, last, self.seat.durable)  # fmt: skip
        await self.reports.start(self.wake)
        if self.prices is None:
            await self.feed.start(self.heard)
        gc.collect()
        gc.freeze()  # what is there now stays: a full collection would stop the loop for tens of milliseconds

    def heard(self) -> None:
        """Market data has come."""
        if not self._since:
            self._since = time.perf_counter_ns()
        self.wake()

    async def _end(self) -> None:
        """Stop signals, settle what is open, keep the state, let go."""
        try:
            if self.reports is not None or self.prices is not None:
                await self.feed.stop()
            if self.reports is not None and not self.why:
                await self._settle()
            if not await self.departure.flush():
                self.why = self.why or "the disk does not answer"
            if self.reports is not None:
                await self.reports.stop()
            if not self.why:  # else the journal alone says what was: what we have need not be what it has
                if not self.session.halted:
                    self.session.snapshot()
                if self.session.journal is not None:
                    self.session.journal.seal()
        finally:
            self.departure.close()
            await self.venue.stop()
            await self.lease.release()
            await self.bus.stop()

    async def _settle(self) -> None:
        """Cancel what works, if that is asked for, and wait for what the venue has to say."""
        k, until = self.session.machine.kernel, self._loop.time() + DRAIN_S
        self._drain(self.feed.drain())
        cancel = self.seat.cancel and self.lease.whole
        if kill := cancel and k.opened and not k.killed:
            self._order(codes.KILL, ENDING)  # until all has ended: a strategy that hears of it must not order anew
        while self._loop.time() < until and ((cancel and k.opened) or self.venue.in_doubt
                                             or self.venue.waiting or self.departure.waiting):  # fmt: skip
            await asyncio.sleep(0.02)
            self._drain(NONE)
        if kill:
            self._order(codes.CLEAR_KILL)
        if cancel and k.opened:
            LOG.error("%d orders are open at the venue still: it did not confirm their cancellation", k.opened)

    # The loop.

    def _tick(self) -> None:
        """A turn for a timer, or for a sign of life, again and again."""
        self.wake()
        self._alarm = self._loop.call_later(self.time.wait_s(BEAT_S), self._tick)

    def _turn(self) -> None:
        """What has come goes through the session. An error ends the engine."""
        self._turn_due = False
        if not self._hearing or self._ended.done():
            return
        try:
            self._turned = now = time.monotonic()
            self._commands.carry_out(self.reconciled)
            if self.listening:
                self._drain(self.feed.drain())
                self._every_second(int(now))
            if self.session.halted:
                self.stop("the kernel has halted; its journal says why")
        except TandemError as error:
            self._fail(error)
            return
        except Exception as error:
            self._fail(error)
            raise
        if self.listening and self._stopping.is_set():
            self._ended.set_result(None)

    def _take(self, row: Rows) -> None:
        """A command through the session."""
        row["ts"] = row["recv"] = self.time.receipt()
        self.send(self.session.advance(row))

    def _drain(self, market: Rows) -> None:
        """Everything that has come, through the session; orders out."""
        since, self._since = self._since, 0
        reports = self.reports.drain() if self.reports else NONE
        own, due, rows = self.venue.drain(), self.time.due(), market
        if len(reports):
            for said in cut_known(self.session.machine, reports):
                LOG.warning("%s: they were entered when it was reconciled", said)
                self.stats.retold += 1
        if len(reports) or len(own) or len(due):
            rows = together([part for part in (reports, own, due, market) if len(part)], market.dtype)
        if not len(rows):
            return
        rows["recv"] = self.time.receipt()
        orders = self.session.advance(rows)
        if self.reports is not None and len(reports):
            self.reports.journalled()
        self.send(orders, since)
        stats = self.stats
        if since and not len(orders):
            stats.latency.add(time.perf_counter_ns() - since)
        stats.drained(market, reports, self.time.latest)
        if len(self.session.refused):
            stats.judge(self.session.refused, self.names.names)
            self.voice.verdicts(self.session.refused)

    def send(self, orders: Rows, since: int = 0) -> None:
        """Orders to the venue, once they are on the disk."""
        if len(orders):
            self.departure.put(Batch(orders, since))

    def _leave(self, batch: Batch) -> None:
        """Orders to the venue; then whoever listens is told, after the task that writes them has had its turn."""
        self.venue.send(batch.orders)
        self.stats.orders += len(batch.orders)
        if batch.since:
            self.stats.latency.add(time.perf_counter_ns() - batch.since)
        self._loop.call_soon(self.voice.orders, batch.orders)

    def _order(self, code: int, amount: float = 0.0) -> None:
        """A command of our own."""
        self.send(self.session.advance(event(codes.COMMAND, self.time.receipt(), code=code, amount=amount)))

    def _fail(self, error: Exception) -> None:
        self.why = self.why or str(error)
        if not self._ended.done():
            self._ended.set_exception(error)

    def _every_second(self, second: int) -> None:
        """What need not be done for each drain."""
        if second == self._second:
            return
        self._second, k = second, self.session.machine.kernel
        if self.venue.fenced:
            self.stop("the execution service listens to a newer engine")
        ready.compare(self)
        self.stats.curve.append((self.time.latest, k.cash + k.value))
        for strategy, seq in self.session.faults[self._faults :]:
            LOG.error("strategy %d (%s) failed at event %d: it is stopped, its orders are cancelled; a replay of the "
                      "journal shows where", strategy, self.plan.names[strategy], seq)  # fmt: skip
        self._faults = len(self.session.faults)
