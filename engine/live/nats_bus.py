"""NATS, and the only file that knows it: one connection that comes back by itself.

Core NATS says things to whoever listens now; JetStream keeps them in the stream TANDEM_REPORTS until they are
acknowledged. Subjects: `tandem.reports.<account>` (kept), `tandem.positions.<account>`, `tandem.<engine>.orders`,
`.refusals`, `.status`.
"""

import asyncio
import logging
import re
import ssl
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any

import nats
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from engine.errors import ConfigError, WireError

LOG = logging.getLogger("tandem.live")
STREAM, SUBJECTS = "TANDEM_REPORTS", "tandem.reports.*"
WAIT_S, RETRY_S = 5.0, 0.25
KEPT_S, TWICE_S = 30 * 24 * 3600, 120  # how long the stream keeps a report; within which time it knows a repetition
ACK_S, PENDING = 2, 20_000  # after which a message comes again; messages that are not acknowledged at once
Handler = Callable[[Any], Awaitable[None]]
FAILS = (NatsError, TimeoutError, OSError)


def checked(word: str, what: str) -> str:
    """A name that may stand in a subject. Raises ConfigError."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", word):
        raise ConfigError(f"{what}={word!r}: use letters, digits, - and _ only, it is a part of NATS subjects.")
    return word


class Bus:
    """A connection to NATS that comes back by itself. `ca`: file of certificates for tls://; `credentials`: file."""

    def __init__(self, url: str, name: str, ca: str | None = None, credentials: str | None = None) -> None:
        self.url, self.name, self.counts = url, name, Counter[str]()
        self._options: dict[str, Any] = {}
        if ca:
            self._options["tls"] = ssl.create_default_context(cafile=ca)
        if credentials:
            self._options["user_credentials"] = credentials
        self._client: Any = None
        self._stopping = False
        self._outgoing: deque[tuple[str, bytes]] = deque(maxlen=10_000)
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect. Raises WireError when there is nobody."""
        opening = nats.connect(
            self.url, name=self.name, max_reconnect_attempts=-1, reconnect_time_wait=RETRY_S, ping_interval=2,
            max_outstanding_pings=2, connect_timeout=2, error_cb=self._error, disconnected_cb=self._lost,
            reconnected_cb=self._back, **self._options,
        )  # fmt: skip
        try:
            async with asyncio.timeout(WAIT_S):
                self._client = await opening
        except FAILS as error:
            raise WireError(f"NATS at {self.url} is not reachable ({error or 'no answer'}).") from error
        self._task = asyncio.get_running_loop().create_task(self._send())

    async def stop(self) -> None:
        """Send what waits, then disconnect."""
        self._stopping = True
        if self._client is None:
            return
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            if self.connected:
                while self._outgoing:
                    await self._client.publish(*self._outgoing.popleft())
                await self._flush(1.0)
        except FAILS as error:
            LOG.warning("NATS at %s: what was still to be said is lost (%s)", self.url, error)
        try:
            await self._client.close()
        except (*FAILS, RuntimeError) as error:  # uvloop's word for a connection that the other side has closed already
            LOG.debug("NATS at %s: %s", self.url, error)

    @property
    def connected(self) -> bool:
        """Whether it is."""
        return self._client is not None and bool(self._client.is_connected)

    def publish(self, subject: str, payload: bytes) -> None:
        """Say something that nobody depends on (signals, refusals, status); never blocks. Old ones give way."""
        if len(self._outgoing) == self._outgoing.maxlen:
            self.counts["unsaid"] += 1
        self._outgoing.append((subject, payload))
        self._more.set()

    async def _send(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._outgoing and self.connected:
                try:
                    await self._client.publish(*self._outgoing[0])
                except FAILS as error:
                    self.counts["errors"] += 1
                    LOG.debug("NATS at %s: %s", self.url, error)
                    break
                self._outgoing.popleft()

    async def _error(self, error: Exception) -> None:
        self.counts["errors"] += 1
        kind = type(error).__name__
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            LOG.warning("NATS at %s: %s: %s (further ones are counted)", self.url, kind, error)

    async def _lost(self) -> None:
        if self._stopping:
            return
        self.counts["disconnects"] += 1
        LOG.warning("NATS at %s: the connection is lost; connecting again", self.url)

    async def _back(self) -> None:
        self.counts["reconnects"] += 1
        self._more.set()
        LOG.warning("NATS at %s: connected again", self.url)

    async def _flush(self, limit: float) -> None:
        """The server has had all that was said before. A ping overtakes what waits in the library, hence two."""
        for _ in range(2):
            await self._client.flush(timeout=limit)

    async def listen(self, subject: str, handler: Handler) -> Any:
        """Core NATS: what is said from now on, while we are connected. Raises WireError."""
        try:
            subscription = await self._client.subscribe(subject, cb=handler)
            await self._flush(WAIT_S)  # the server has it: nothing said after this is missed
        except FAILS as error:
            raise WireError(f"NATS at {self.url}: cannot subscribe to {subject} ({error})") from error
        return subscription

    async def bind(self, subject: str, durable: str, handler: Handler) -> Any:
        """JetStream: what was and will be said, each until it is acknowledged; a former self is waited for.

        Raises WireError.
        """
        config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, deliver_policy=DeliverPolicy.ALL, ack_wait=ACK_S,
                                max_ack_pending=PENDING)  # fmt: skip
        context, loop = await self.kept(), asyncio.get_running_loop()
        until = loop.time() + WAIT_S
        while True:
            try:
                return await context.subscribe(subject, durable=durable, stream=STREAM, cb=handler, manual_ack=True,
                                               config=config)  # fmt: skip
            except FAILS as error:
                if loop.time() > until:
                    why = f"NATS consumer {durable}: {error}; another engine may be bound to it."
                    raise WireError(why) from error
                await asyncio.sleep(RETRY_S)

    async def kept(self) -> Any:
        """JetStream with the stream of reports, made if it is not there. Raises WireError."""
        context = self._client.jetstream(timeout=WAIT_S)
        try:
            try:
                await context.stream_info(STREAM)
            except NotFoundError:
                await context.add_stream(StreamConfig(name=STREAM, subjects=[SUBJECTS], storage=StorageType.FILE,
                                                      max_age=KEPT_S, duplicate_window=TWICE_S))  # fmt: skip
        except FAILS as error:
            raise WireError(f"NATS at {self.url}: no JetStream ({error}); start nats-server with -js, "
                            "or set nats.durable=false for core NATS with its weaker promise.") from error  # fmt: skip
        return context

    async def last_of(self, subject: str) -> bytes | None:
        """The last message that the stream keeps of a subject. Raises WireError."""
        context = await self.kept()
        try:
            return (await context.get_last_msg(STREAM, subject)).data or b""
        except NotFoundError:
            return None
        except FAILS as error:
            raise WireError(f"NATS stream {STREAM}: its last message cannot be read ({error}).") from error

    async def keep(self, subject: str, payload: bytes, number: str) -> None:
        """Say something that JetStream keeps; `number` makes a repetition harmless. Raises WireError: say it again."""
        try:
            await self._client.jetstream().publish(subject, payload, timeout=1.0, headers={"Nats-Msg-Id": number})
        except FAILS as error:
            raise WireError(f"NATS at {self.url}: {error or 'no answer'}") from error

    async def say(self, subject: str, payload: bytes) -> None:
        """Say something to whoever listens now. Raises WireError when we are not connected."""
        try:
            if not self.connected:
                raise WireError(f"NATS at {self.url}: not connected")
            await self._client.publish(subject, payload)
        except FAILS as error:
            raise WireError(f"NATS at {self.url}: {error}") from error

    async def acknowledge(self, message: Any) -> None:
        """A kept message is done with; one whose acknowledgement is lost comes again."""
        try:
            await message.ack()
        except FAILS as error:
            self.counts["acks_lost"] += 1
            LOG.debug("NATS at %s: an acknowledgement did not leave (%s)", self.url, error)

    async def leave(self, subscription: Any) -> None:
        """End a subscription; a durable consumer stays at the server."""
        try:
            if self.connected:
                await subscription.unsubscribe()
        except FAILS as error:
            LOG.debug("NATS at %s: %s", self.url, error)
