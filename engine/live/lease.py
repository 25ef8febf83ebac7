"""One live engine for each id: a lease in Redis with a fencing token.

Law 1: at most one holder at a time; `valid` is false before the lease can go to another, whatever the network does.
Law 2: tokens grow from holder to holder, also when Redis has lost its data: they are its clock in ms, or one more.

Keys: `tandem:lease:<engine>` holds the owner and expires, `tandem:token:<engine>` holds the latest token.
"""

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable

from engine.errors import WireError
from engine.live.redis_wire import Connection, connect

LOG = logging.getLogger("tandem.live")
MARGIN = 0.2  # of the ttl: how long before its end we stop to believe in it

TAKE = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return {0, owner, redis.call('PTTL', KEYS[1])} end
local now = redis.call('TIME')
local token = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, now[1] * 1000 + math.floor(now[2] / 1000))
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], string.format('%.0f', token))
return {1, string.format('%.0f', token), 0}
"""
# A lease that expired and that nobody took in between is still ours: the token is.
RENEW = """
local owner = redis.call('GET', KEYS[1])
if redis.call('GET', KEYS[2]) ~= ARGV[3] or (owner and owner ~= ARGV[1]) then return owner or 'another token' end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 'OK'
"""
LEAVE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Lease:
    """Holds the lease of an engine id for `ttl_s` seconds at a time and renews it at a third of that.

    `lost` is called once, on the loop, when it cannot be held; after that `valid` stays false.
    """

    def __init__(self, url: str, engine: str, ttl_s: float = 10.0, lost: Callable[[str], None] | None = None) -> None:
        self.url, self.engine, self.ttl_s, self.token = url, engine, ttl_s, 0
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._lost = lost or (lambda why: None)
        self._until, self._task = 0.0, None  # type: tuple[float, asyncio.Task[None] | None]
        self._keys = (f"tandem:lease:{engine}", f"tandem:token:{engine}")

    @property
    def valid(self) -> bool:
        """Whether we hold it for sure."""
        return time.monotonic() < self._until

    async def acquire(self) -> int:
        """Take the lease; the fencing token. Raises WireError when another engine has it, or Redis is not reachable."""
        connection = await connect(self.url)
        asked = time.monotonic()
        taken, what, left = await connection.call("EVAL", TAKE, 2, *self._keys, self.owner, int(self.ttl_s * 1000))
        if not taken:
            await connection.close()
            raise WireError(f"engine {self.engine} runs already: {what.decode()} holds its lease for another "
                            f"{left / 1000:.1f} s. Stop it, or give this one another id.")  # fmt: skip
        self.token, self._until = int(what), self._end(asked)
        self._task = asyncio.get_running_loop().create_task(self._hold(connection))
        return self.token

    def _end(self, asked: float) -> float:
        return asked + self.ttl_s * (1.0 - MARGIN)

    async def _hold(self, connection: Connection) -> None:
        """Renew until it is lost; a Redis that does not answer is asked until the lease could go to another."""
        open_now = [connection]
        try:
            why = await self._renew(open_now)
        finally:
            self._until = 0.0
            open_now[0].abort("the lease is given up")
        LOG.error("engine %s: its lease is lost (%s); nothing more is sent", self.engine, why)
        self._lost(why)

    async def _renew(self, open_now: list[Connection]) -> str:
        why = "Redis did not answer in time"
        while self.valid:
            await asyncio.sleep(min(self.ttl_s / 3, max(0.0, self._until - time.monotonic())))
            asked = time.monotonic()
            try:
                if open_now[0].closed.done():
                    open_now[0] = await asyncio.wait_for(connect(self.url), max(0.01, self._until - asked))
                renewal = open_now[0].call(
                    "EVAL", RENEW, 2, *self._keys, self.owner, int(self.ttl_s * 1000), self.token
                )
                said = await asyncio.wait_for(renewal, max(0.01, self._until - asked))
            except (WireError, OSError, TimeoutError) as error:
                why = f"Redis: {error}"
                await asyncio.sleep(min(0.1, self.ttl_s / 20))
                continue
            if said != b"OK":
                return f"{said.decode()} has taken it"
            self._until = self._end(asked)
        return why

    async def release(self) -> None:
        """Give it back, so that another may start at once."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._until, self._task = 0.0, None
        try:
            connection = await connect(self.url)
            await connection.call("EVAL", LEAVE, 1, self._keys[0], self.owner)
            await connection.close()
        except WireError as error:
            LOG.warning("engine %s: its lease is not given back (%s); it ends by itself", self.engine, error)
