"""The feed of market data from Redis: channels (pub/sub) and streams, by name or pattern.

Law 1: losing the connection, or losing messages in it, is seen: by sequence, by epoch, by silence.
Law 2: what cannot be taken now stays in the socket; a server that drops us for that is a lost connection.
Law 3: a stream goes on after the last entry taken, whatever happened in between.

Keys: `tandem:instruments:<crc>` is the JSON list of names behind the numbers of raw events.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from engine.errors import WireError
from engine.live.codec import HEAD, BadMessage, Names
from engine.live.inbox import Events, Inbox
from engine.live.redis_wire import Backoff, Connection, connect, shown

LOG = logging.getLogger("tandem.live")
BEAT_S = 0.25
PING_S, DEAD_S = 1.0, 3.0  # how often a quiet connection is asked, and how long it may be quiet
BLOCK_MS, ENTRIES, DISCOVER_S = 1000, 1024, 1.0  # of streams: longest wait, entries of one read, search for new ones
HELD = 10_000  # messages that may wait for their list of instruments


def table_key(crc: int) -> str:
    """The key of a list of instruments."""
    return f"tandem:instruments:{crc:08x}"


def is_pattern(name: str) -> bool:
    """Whether a name stands for several."""
    return any(c in name for c in "*?[")


class RedisFeed:
    """Market data from Redis as events; see `engine.ports.Feed`.

    `channels` and `streams`: names or patterns. `after`: stream -> id of the entry after which to begin (default: what
    comes from now on). `silent_s`: how long a source that numbers its events may say nothing.
    """

    def __init__(self, url: str, inbox: Inbox, channels: Sequence[str], streams: Sequence[str] = (),
                 after: Mapping[str, str] | None = None, silent_s: float = 5.0) -> None:  # fmt: skip
        self.url, self.inbox, self.channels, self.streams = url, inbox, tuple(channels), tuple(streams)
        self.ids: dict[str, str] = dict(after or {})
        self.counts, self.connected = inbox.counts, False
        self._silent = max(1, round(silent_s / BEAT_S))
        self._held: deque[tuple[bytes, bytes]] = deque()
        self._room = asyncio.Event()
        self._tables: dict[int, list[tuple[bytes, bytes]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._open: set[Connection] = set()
        self._wake: Callable[[], None] = lambda: None
        self._told, self._searched = False, False
        self._up: dict[str, bool] = {}
        self._room.set()

    async def start(self, wake: Callable[[], None]) -> None:
        """Connect and begin to receive. Raises WireError when Redis cannot be reached now."""
        self._wake = wake
        (await connect(self.url)).abort("it was a look")
        ways = [("channels", self._channels)] if self.channels else []
        ways += [("streams", self._streams)] if self.streams else []
        self._up = {name: False for name, _ in ways}
        for name, session in ways:
            self._spawn(self._keep(name, session))
        self._spawn(self._beats())

    def drain(self) -> Events:
        """What has come since the last call."""
        self._told = False
        events = self.inbox.drain()
        while self._held and self._taken(*self._held[0]):
            self._held.popleft()
        if not self._held and not self._room.is_set():
            self._room.set()
            for connection in self._open:
                connection.pause(False)
        if self.inbox.pending:
            self._tell()
        return events

    async def stop(self) -> None:
        """Receive no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._open:
            connection.abort("closed by us")

    @property
    def waiting(self) -> int:
        """Messages that have come and have no room yet."""
        return len(self._held) + sum(map(len, self._tables.values()))

    def _spawn(self, what: Any) -> None:
        task = asyncio.get_running_loop().create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._wake()

    def _pushed(self, message: list[Any]) -> None:
        """A message of a channel, or the answer to a ping."""
        if message[0] == b"message":
            self._offer(message[1], message[2])
        elif message[0] == b"pmessage":
            self._offer(message[2], message[3])

    def _offer(self, channel: bytes, payload: bytes) -> None:
        if self._held or not self._taken(channel, payload):
            self._held.append((channel, payload))
            if self._room.is_set():
                self._room.clear()
                self.counts["slow"] += 1
                for connection in self._open:
                    connection.pause(True)
        self._tell()

    def _taken(self, channel: bytes, payload: bytes) -> bool:
        """Whether the inbox took it, or it waits for its list of instruments."""
        try:
            return self.inbox.take(channel, payload)
        except BadMessage:
            crc = int(HEAD.unpack_from(payload)[6])
            if crc not in self._tables:
                self._tables[crc] = []
                self._spawn(self._fetch(crc))
            if len(self._tables[crc]) < HELD:
                self._tables[crc].append((channel, payload))
            else:
                self._no_table(crc, channel, payload)
            return True

    def _no_table(self, crc: int, channel: bytes, payload: bytes) -> None:
        why = f"it numbers instruments by a list that {table_key(crc)} does not hold"
        self.inbox.quarantine.put("table", channel.decode(errors="replace"), why, payload)

    async def _fetch(self, crc: int) -> None:
        """Get a list of instruments, then take what waited for it."""
        found: Any = None
        try:
            connection = await connect(self.url)
            found = await connection.call("GET", table_key(crc))
            await connection.close()
            names = json.loads(found) if found else []
        except (WireError, ValueError) as error:
            LOG.warning("%s: %s", table_key(crc), error)
            names = []
        waiting = self._tables.pop(crc)
        known = Names(list(map(str, names))).table == crc
        if known:
            self.inbox.learn(names)
        for channel, payload in waiting:
            if known:
                self._offer(channel, payload)
            else:
                self._no_table(crc, channel, payload)

    async def _keep(self, name: str, session: Callable[[Backoff], Awaitable[str]]) -> None:
        """Hold a session, and begin anew when it ends."""
        backoff = Backoff()
        while True:
            try:
                why = await session(backoff)
            except (WireError, OSError) as error:
                why = str(error)
            self.counts["disconnects"] += self._up[name]
            if self._up[name] or backoff.tries == 0:
                LOG.warning("Redis %s at %s: lost (%s); connecting again", name, shown(self.url), why)
            self._up[name] = self.connected = False
            await asyncio.sleep(backoff.next())

    def _is_up(self, name: str, backoff: Backoff) -> None:
        backoff.reset()
        if self.counts["disconnects"]:
            self.counts["reconnects"] += 1
            LOG.warning("Redis %s at %s: connected again", name, shown(self.url))
        self._up[name] = True
        self.connected = all(self._up.values())

    async def _channels(self, backoff: Backoff) -> str:
        """Subscribe and receive until the connection ends; why it did."""
        connection = await connect(self.url, self._pushed)
        self._open.add(connection)
        try:
            for name in self.channels:
                await connection.call("PSUBSCRIBE" if is_pattern(name) else "SUBSCRIBE", name)
            connection.pause(not self._room.is_set())
            self._is_up("channels", backoff)
            while not connection.closed.done():
                heard = connection.heard
                await asyncio.wait([connection.closed], timeout=PING_S)
                if connection.heard == heard and self._room.is_set():
                    connection.say("PING")
                    await asyncio.wait([connection.closed], timeout=DEAD_S - PING_S)
                    if connection.heard == heard and self._room.is_set():
                        connection.abort(f"it has said nothing for {DEAD_S:g} s")
            return connection.closed.result()
        finally:
            self._open.discard(connection)
            connection.abort("closed by us")

    async def _streams(self, backoff: Backoff) -> str:
        """Read streams after the last id until the connection ends; why it did."""
        connection = await connect(self.url)
        loop, searched = asyncio.get_running_loop(), 0.0
        try:
            while not connection.closed.done():
                if loop.time() - searched > DISCOVER_S or not searched:
                    await self._discover(connection)
                    searched = loop.time()
                    if not self._up["streams"]:
                        self._is_up("streams", backoff)
                if not self.ids:
                    await asyncio.sleep(BEAT_S)
                    continue
                reply = await connection.call("XREAD", "COUNT", ENTRIES, "BLOCK", BLOCK_MS, "STREAMS", *self.ids,
                                              *self.ids.values())  # fmt: skip
                for stream, entries in reply or ():
                    for _, fields in entries:
                        self._offer(stream, fields[1])
                    self.ids[stream.decode()] = entries[-1][0].decode()
                await self._room.wait()
            return connection.closed.result()
        finally:
            connection.abort("closed by us")

    async def _discover(self, connection: Connection) -> None:
        """Find the streams. At first we begin after their last entries; what appears later is read from its start."""
        found = {name for name in self.streams if not is_pattern(name)}
        for pattern in filter(is_pattern, self.streams):
            cursor = b"0"
            while True:
                cursor, page = await connection.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, "TYPE", "stream")
                found |= {name.decode() for name in page if fnmatchcase(name.decode(), pattern)}
                if cursor == b"0":
                    break
        for name in sorted(found - set(self.ids)):
            last = await connection.call("XREVRANGE", name, "+", "-", "COUNT", 1) if not self._searched else []
            self.ids[name] = last[0][0].decode() if last else "0-0"
        self._searched = True

    async def _beats(self) -> None:
        """Look after silence."""
        while True:
            await asyncio.sleep(BEAT_S)
            if self.inbox.beat(self._silent):
                self._tell()
