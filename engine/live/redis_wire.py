"""One connection to Redis: the protocol's parser is hiredis', the rest is this file, the only one that knows Redis.

A connection of our own instead of a client library: a message reaches the feed in a third of the processor time, and a
lost connection is lost, not silently replaced by one that missed something.

Law 1: what the server says comes in order; what cannot be delivered stays in the socket (`pause`).
Law 2: a connection that ends fails every call that waits on it, and sets `closed`; nobody reconnects behind our back.
"""

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis

from engine.errors import ConfigError, WireError

ANSWER_S = 5.0  # how long a call may take
PUSHES = (b"message", b"pmessage", b"pong")
Push = Callable[[list[Any]], None]


class Backoff:
    """How long to wait before the next attempt, seconds: grows twofold, at random within the upper half."""

    def __init__(self, first: float = 0.05, most: float = 2.0) -> None:
        self.first, self.most, self.tries = first, most, 0

    def next(self) -> float:
        """The wait before the next attempt."""
        wait = min(self.most, self.first * 2.0 ** min(self.tries, 30))
        self.tries += 1
        return wait * (0.5 + 0.5 * random.random())

    def reset(self) -> None:
        """It works again."""
        self.tries = 0


class Connection(asyncio.Protocol):
    """One connection. `push` gets messages of channels; replies to calls come to who called."""

    def __init__(self, push: Push | None = None) -> None:
        self._reader, self._push, self._transport = hiredis.Reader(), push, None
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._paused = False
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.heard = 0  # chunks of bytes that have come

    def connection_made(self, transport: Any) -> None:
        """Asyncio: it is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Asyncio: bytes have come."""
        self.heard += 1
        reader, push = self._reader, self._push
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                if push is not None and type(reply) is list and reply and reply[0] in PUSHES:
                    push(reply)
                elif self._waiting:
                    self._answer(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"what it says is not Redis' protocol ({error})")

    def _answer(self, reply: Any) -> None:
        future = self._waiting.popleft()
        if future.done():
            return
        if isinstance(reply, hiredis.ReplyError):
            future.set_exception(WireError(f"Redis refuses: {reply}"))
        else:
            future.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        """Asyncio: it has ended."""
        why = str(error) if error else "the server closed the connection"
        for future in self._waiting:
            if not future.done():
                future.set_exception(WireError(f"Redis: {why}"))
        self._waiting.clear()
        if not self.closed.done():
            self.closed.set_result(why)

    def ask(self, *words: "str | bytes | int") -> "asyncio.Future[Any]":
        """Send a command; its reply is a future, which raises WireError."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._transport is None or self.closed.done():
            future.set_exception(WireError("Redis: the connection is closed"))
            return future
        self._waiting.append(future)
        self._transport.write(hiredis.pack_command(words))
        return future

    def say(self, *words: "str | bytes | int") -> None:
        """Send a command whose answer, if there is one, is pushed."""
        if self._transport is not None:
            self._transport.write(hiredis.pack_command(words))

    async def call(self, *words: "str | bytes | int") -> Any:
        """Send a command and wait for its reply. Raises WireError, also when it takes too long."""
        try:
            async with asyncio.timeout(ANSWER_S):  # `wait_for` loses a cancellation that comes with the answer
                return await self.ask(*words)
        except TimeoutError as error:
            self.abort("it does not answer")
            raise WireError(f"Redis: no answer to {words[0]!r} within {ANSWER_S:g} s") from error

    def pause(self, paused: bool) -> None:
        """Read no more for now, or go on; the server keeps what it sends, up to its limit."""
        if self._transport is not None and paused is not self._paused and not self.closed.done():
            self._paused = paused
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def abort(self, why: str) -> None:
        """End it at once."""
        if not self.closed.done():
            self.closed.set_result(why)
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """End it."""
        self.abort("closed by us")
        await asyncio.sleep(0)


async def connect(url: str, push: Push | None = None) -> Connection:
    """A connection to redis://[user:password@]host[:port][/db], rediss:// (TLS) or unix:///path/to/socket[?db=1].

    Raises ConfigError for another address, WireError when there is nobody or we are refused.
    """
    parts = urlsplit(url)
    secure = ssl.create_default_context() if parts.scheme == "rediss" else None
    loop = asyncio.get_running_loop()
    try:
        if parts.scheme in ("redis", "rediss"):
            opening: Any = loop.create_connection(lambda: Connection(push), parts.hostname or "127.0.0.1",
                                                  parts.port or 6379, ssl=secure)  # fmt: skip
        elif parts.scheme == "unix":
            opening = loop.create_unix_connection(lambda: Connection(push), parts.path)
        else:
            raise ConfigError(f"redis address {url!r}: write redis://host:port, rediss://host:port or unix:///path.")
        async with asyncio.timeout(ANSWER_S):
            _, made = await opening
    except (OSError, TimeoutError) as error:
        raise WireError(f"Redis at {shown(url)} is not reachable ({error or 'no answer'}).") from error
    connection: Connection = made
    database = parts.query.partition("db=")[2] if parts.scheme == "unix" else parts.path.strip("/")
    try:
        if parts.password:
            user = [unquote(parts.username)] if parts.username else []
            await connection.call("AUTH", *user, unquote(parts.password))
        if database:
            await connection.call("SELECT", database)
    except WireError:
        connection.abort("we are refused")
        raise
    return connection


def shown(url: str) -> str:
    """An address without its password."""
    parts = urlsplit(url)
    return url.replace(f":{parts.password}@", ":…@") if parts.password else url
