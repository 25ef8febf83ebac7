"""A tape into Redis: what a live source would say, at N times the speed of history, at a rate, or flat out.

Law 1: events leave in the order of the tape; each channel's sequence has no hole.
Law 2: a server that takes no more slows us down; nothing waits in memory without bound.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import ConfigError
from engine.kernel.events import Event
from engine.live.codec import ENCODERS, Names
from engine.live.redis_feed import table_key
from engine.live.redis_wire import Connection, connect

Events = np.ndarray[Any, Any]
UNANSWERED = 512  # messages that Redis has not confirmed
HEARTBEAT_S, NAP_S = 1.0, 0.001  # uvloop counts in milliseconds: of half a one it makes no sleep at all


@dataclass(frozen=True)
class Pace:
    """When events are due: `speed` times as fast as they arrived (inf: at once), or `rate` events per second."""

    speed: float = 1.0
    rate: float | None = None

    def seconds(self, events: Events, first: int, begin: int) -> "np.ndarray[Any, Any]":
        """When each is due, seconds after the start. `first`: number of the first of them; `begin`: recv of event 0."""
        if self.rate is not None:
            return (first + np.arange(len(events))) / self.rate
        return (events["recv"] - begin) / (1e9 * self.speed)


@dataclass
class Channel:
    """Where events go and how far its sequence has come."""

    name: str
    sequence: int = 1
    said: float = 0.0  # when the last message left, seconds


class Publisher:
    """Sends events of instruments `names` to Redis. `target`: channel or stream name without its encoding.

    `split`: one channel for each instrument. `batch`: events of a message at most. `stream_len`: entries that a stream
    keeps, None for channels. `restamp`: `ts` becomes the moment of sending. `told`: called with what is done so far.
    """

    def __init__(self, url: str, target: str, names: Names, *, encoding: str = "raw", source: int = 1,
                 split: bool = False, batch: int = 256, stream_len: int | None = None, restamp: bool = True,
                 told: Callable[[int], None] = lambda events: None) -> None:  # fmt: skip
        if encoding not in ENCODERS:
            raise ConfigError(f"encoding={encoding} must be one of {', '.join(ENCODERS)}.")
        self.url, self.names, self.source, self.batch, self.told = url, names, source, batch, told
        self._encode, self._stream_len, self._restamp = ENCODERS[encoding], stream_len, restamp
        ends = [f"{target}.{name}" for name in names.names] if split else [target]
        self.channels = [Channel(f"{end}.{encoding}") for end in ends]
        self.epoch, self.sent, self.messages, self.receivers = 0, 0, 0, 0
        self._answers: list[asyncio.Future[Any]] = []

    async def run(self, pieces: Iterator[Events], pace: Pace, stop: asyncio.Event | None = None,
                  began_with: Callable[[tuple[str, ...]], None] = lambda channels: None) -> float:  # fmt: skip
        """Send everything; how many seconds it took. `began_with` hears the names once connected.

        Raises WireError when Redis is lost."""
        connection = await connect(self.url)
        began_with(tuple(channel.name for channel in self.channels))
        await connection.call("SET", table_key(self.names.table), json.dumps(self.names.names))
        self.epoch, began, first, begin = time.time_ns(), time.monotonic(), 0, None
        for piece in pieces:
            if stop and stop.is_set():
                break  # pieces may be without end
            begin = int(piece["recv"][0]) if begin is None else begin
            due = pace.seconds(piece, first, begin)
            first += len(piece)
            at = 0
            while at < len(piece) and not (stop and stop.is_set()):
                now = time.monotonic() - began
                upto = int(np.searchsorted(due, now, side="right"))
                if upto <= at:
                    await self._heartbeats(connection, now)
                    await asyncio.sleep(min(max(float(due[at]) - now, NAP_S), HEARTBEAT_S / 4))
                    continue
                upto = min(upto, at + 64 * self.batch)
                await self._send(connection, piece[at:upto], now)
                at = upto
        await self._settle(0)
        await connection.close()
        return time.monotonic() - began

    async def _send(self, connection: Connection, events: Events, now: float) -> None:
        rows = events.view("V64").copy().view(Event.dtype)
        if self._restamp:
            rows["ts"] = time.time_ns()
        rows["source"] = self.source
        if len(self.channels) == 1:
            parts = [(self.channels[0], rows)]
        else:
            parts = [(self.channels[i], rows[rows["instrument"] == i]) for i in np.unique(rows["instrument"]).tolist()]
        for channel, part in parts:
            for at in range(0, len(part), self.batch):
                self._say(connection, channel, part[at : at + self.batch], now)
        self.told(self.sent)
        await self._settle(UNANSWERED)

    def _say(self, connection: Connection, channel: Channel, events: Events, now: float) -> None:
        payload = self._encode(events, self.names, self.source, self.epoch, channel.sequence)
        if self._stream_len is None:
            answer = connection.ask("PUBLISH", channel.name, payload)
        else:
            answer = connection.ask("XADD", channel.name, "MAXLEN", "~", self._stream_len, "*", "p", payload)
        self._answers.append(answer)
        channel.sequence += len(events)
        channel.said = now
        self.sent += len(events)
        self.messages += 1

    async def _heartbeats(self, connection: Connection, now: float) -> None:
        for channel in self.channels:
            if now - channel.said >= HEARTBEAT_S:
                self._say(connection, channel, np.zeros(0, Event.dtype), now)
        await self._settle(UNANSWERED)

    async def _settle(self, most: int) -> None:
        """Wait until at most so many messages are not confirmed."""
        if len(self._answers) > most:
            done, self._answers = self._answers, []
            for answer in await asyncio.gather(*done):
                if isinstance(answer, int):
                    self.receivers = answer


def pieces_of(events: Events, repeat: int = 1, piece: int = 1 << 16) -> Iterator[Events]:
    """A tape in pieces; `repeat` times (0: without end), each time later by the whole of its length."""
    span = int(events["recv"][-1] - events["recv"][0]) + 1
    turn = 0
    while repeat == 0 or turn < repeat:
        for at in range(0, len(events), piece):
            part = events[at : at + piece]
            if turn:
                part = part.view("V64").copy().view(Event.dtype)
                part["recv"] += turn * span
                part["ts"] += turn * span
            yield part
        turn += 1
