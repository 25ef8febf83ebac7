"""One live engine for each id and one for each account: a lease of both in Redis, with one fencing token.

Law 1: at most one holder at a time; `valid` is false before the lease can go to another, whatever the network does.
Law 2: tokens grow from holder to holder, also when Redis has lost its data: they are its clock in ms, or one more.
Law 3: both are taken, kept, lost and given back together.
Law 4: an observer has that of its id only, whoever trades the account; it sends nothing.
Law 5: no two sessions of an account have one number: it is in every order id.

Keys: `tandem:lease:<engine>` and `tandem:lease:account:<account>` hold the owner and expire, `tandem:token:…` the
latest token of each, `tandem:session:<account>` the latest number of a session.
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
local token = redis.call('TIME')
token = token[1] * 1000 + math.floor(token[2] / 1000)
for i = 1, #KEYS, 2 do
  local owner = redis.call('GET', KEYS[i])
  if owner and owner ~= ARGV[1] then return {0, owner, redis.call('PTTL', KEYS[i]), KEYS[i]} end
  token = math.max(token, tonumber(redis.call('GET', KEYS[i + 1]) or '0') + 1)
end
for i = 1, #KEYS, 2 do
  redis.call('SET', KEYS[i], ARGV[1], 'PX', ARGV[2])
  redis.call('SET', KEYS[i + 1], string.format('%.0f', token))
end
return {1, string.format('%.0f', token), 0, ''}
"""
# A lease that expired and that nobody took in between is still ours: the token is. One that names us is ours whatever
# the token: the answer that told us of it may have been lost.
RENEW = """
for i = 1, #KEYS, 2 do
  local owner = redis.call('GET', KEYS[i])
  if owner and owner ~= ARGV[1] then return owner .. ' has taken it' end
  local token = redis.call('GET', KEYS[i + 1])
  if not owner and token ~= ARGV[3] then return token and 'another token has taken it' or 'Redis has lost its data' end
end
for i = 1, #KEYS, 2 do redis.call('SET', KEYS[i], ARGV[1], 'PX', ARGV[2]) end
return 'OK'
"""
LEAVE = """
for i = 1, #KEYS, 2 do if redis.call('GET', KEYS[i]) == ARGV[1] then redis.call('DEL', KEYS[i]) end end
return 0
"""
NUMBER = """
local number = math.max(tonumber(ARGV[1]), tonumber(redis.call('GET', KEYS[1]) or '0') + 1)
redis.call('SET', KEYS[1], string.format('%.0f', number))
return number
"""


class Lease:
    """Holds the lease of an engine id and an account for `ttl_s` seconds at a time and renews it at a third of that.

    `whole`: whether it has the account; one that begins without takes it with `take_account`. `lost` is called once, on
    the loop, when it cannot be held; after that `valid` stays false.
    """

    def __init__(self, url: str, engine: str, account: str, ttl_s: float = 10.0,
                 lost: Callable[[str], None] | None = None, whole: bool = True) -> None:  # fmt: skip
        self.url, self.engine, self.account, self.ttl_s, self.token = url, engine, account, ttl_s, 0
        self.whole = whole
        self.owner = f"{engine}@{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._lost = lost or (lambda why: None)
        self._until, self._task = 0.0, None  # type: tuple[float, asyncio.Task[None] | None]
        self._asking = asyncio.Lock()  # one question at a time: what we hold and what we say that we hold agree

    @property
    def valid(self) -> bool:
        """Whether we hold it for sure."""
        return time.monotonic() < self._until

    def _keys(self, whole: bool) -> tuple[str, ...]:
        whose = (self.engine, f"account:{self.account}") if whole else (self.engine,)
        return tuple(f"tandem:{what}:{one}" for one in whose for what in ("lease", "token"))

    async def acquire(self) -> int:
        """Take the lease; the fencing token. Raises WireError when another engine has it, or Redis is not reachable."""
        connection = await connect(self.url)
        await self._take(connection, self.whole)
        self._task = asyncio.get_running_loop().create_task(self._hold(connection))
        await asyncio.sleep(0)  # it has begun: whenever it is cancelled, it closes the connection
        return self.token

    async def take_account(self) -> int:
        """Take the account, too; the new fencing token. Raises WireError as `acquire`; what is held stays held."""
        async with self._asking:
            if not self.whole:
                connection = await connect(self.url)
                await self._take(connection, True)
                await connection.close()
                self.whole = True
        return self.token

    async def _take(self, connection: Connection, whole: bool) -> None:
        asked, keys = time.monotonic(), self._keys(whole)
        said = await connection.call("EVAL", TAKE, len(keys), *keys, self.owner, int(self.ttl_s * 1000))
        taken, what, left, key = said
        if not taken:
            await connection.close()
            holder, rest = what.decode(), f"for another {left / 1000:.1f} s"
            if key.decode() == keys[0]:
                raise WireError(f"engine {self.engine} runs already: {holder} holds its lease {rest}. Stop it, wait "
                                "if it has crashed, or give this one another id.")  # fmt: skip
            raise WireError(f"account {self.account} is traded already: engine {holder} holds its lease {rest}. Two on "
                            "one account would take each other's orders and positions for their own. Stop that one, or "
                            "give this one another account; trading=observation may run beside it.")  # fmt: skip
        self.token, self._until = int(what), self._end(asked)

    async def number(self, least: int) -> int:
        """A number for a new session that no other of this account has, and not below `least`. Raises WireError."""
        connection = await connect(self.url)
        found = await connection.call("EVAL", NUMBER, 1, f"tandem:session:{self.account}", least)
        await connection.close()
        return int(found)

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
                async with asyncio.timeout(max(0.01, self._until - asked)), self._asking:
                    if open_now[0].closed.done():
                        open_now[0] = await connect(self.url)
                    keys = self._keys(self.whole)
                    said = await open_now[0].call("EVAL", RENEW, len(keys), *keys, self.owner, int(self.ttl_s * 1000),
                                                  self.token)  # fmt: skip
            except (WireError, OSError, TimeoutError) as error:
                why = f"Redis: {error}" if str(error) else "Redis did not answer in time"
                await asyncio.sleep(min(0.1, self.ttl_s / 20))
                continue
            if said != b"OK":
                return str(said.decode())
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
            keys = self._keys(self.whole)
            await connection.call("EVAL", LEAVE, len(keys), *keys, self.owner)
            await connection.close()
        except WireError as error:
            LOG.warning("engine %s: its lease is not given back (%s); it ends by itself", self.engine, error)
