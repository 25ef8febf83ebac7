"""The feed, the publisher and the lease against a real Redis."""

import asyncio
import contextlib
import itertools
import json
import math
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.errors import ConfigError, WireError
from engine.kernel import codes
from engine.kernel.events import Event
from engine.live import codec, inbox
from engine.live import publisher as publisher_module
from engine.live.codec import Names
from engine.live.gate import Admission
from engine.live.inbox import Inbox
from engine.live.lease import Lease
from engine.live.publisher import Pace, Publisher, pieces_of
from engine.live.quarantine import Quarantine
from engine.live.redis_feed import RedisFeed
from engine.live.redis_wire import Backoff, Connection, connect
from engine.live.servers import Server
from tests.live.conftest import until
from tests.live.events import NAMES, quote, quotes, same

Run = Callable[..., Any]
numbers = itertools.count()


def box(rows: int = 1 << 12, names: Names = NAMES) -> Inbox:
    """An inbox without limits on times and prices."""
    admission = Admission(len(names.names), math.inf, math.inf, math.inf)
    return Inbox(names, admission, Quarantine(), time.time_ns, rows)


class Reader:
    """A feed and all that it has drained."""

    def __init__(self, feed: RedisFeed) -> None:
        self.feed, self.parts, self.woken = feed, [], 0

    def wake(self) -> None:
        self.woken += 1

    def read(self) -> Any:
        """Drain once more; all rows so far."""
        events = self.feed.drain()
        if len(events):
            self.parts.append(events.view("V64").copy())
        return np.concatenate(self.parts).view(Event.dtype) if self.parts else events[:0]

    def market(self) -> Any:
        """All rows so far but the gaps."""
        rows = self.read()
        return rows[rows["kind"] != codes.GAP]

    def gaps(self) -> list[tuple[int, float]]:
        """Code and amount of the gaps so far."""
        rows = self.read()
        return [(int(r["code"]), float(r["amount"])) for r in rows[rows["kind"] == codes.GAP]]


@contextlib.asynccontextmanager
async def reading(url: str, *channels: str, **more: Any) -> AsyncIterator[Reader]:
    """A feed that runs."""
    feed = RedisFeed(url, more.pop("inbox", None) or box(), channels, **more)
    reader = Reader(feed)
    await feed.start(reader.wake)
    await until(lambda: feed.connected)
    try:
        yield reader
    finally:
        await feed.stop()


def fresh() -> str:
    """A name that no other test uses."""
    return f"md.t{next(numbers)}"


async def command(url: str, *words: Any) -> Any:
    """One command on a connection of its own."""
    connection = await connect(url)
    try:
        return await connection.call(*words)
    finally:
        await connection.close()


async def say(
    connection: Connection, channel: str, rows: Any, sequence: int, epoch: int = 1, names: Names = NAMES
) -> Any:
    """Publish one message."""
    word = codec.encoding(channel) or "raw"
    return await connection.call("PUBLISH", channel, codec.ENCODERS[word](rows, names, 7, epoch, sequence))


@pytest.mark.parametrize("word", codec.ENCODERS)
@pytest.mark.parametrize("pattern", [False, True])
def test_channels(redis: Server, run: Run, word: str, pattern: bool) -> None:
    async def main() -> None:
        base = fresh()
        async with reading(redis.url, f"{base}.*" if pattern else f"{base}.x.{word}") as reader:
            connection = await connect(redis.url)
            assert await say(connection, f"{base}.x.{word}", quotes(3), 1) == 1
            await say(connection, f"{base}.x.{word}", quotes(2, 3), 4)
            await until(lambda: len(reader.read()) == 5)
            assert reader.woken >= 1
            expected = quotes(5)
            expected["source"] = 7 if word != "raw" else 0
            assert same(reader.read(), expected)
            assert reader.feed.counts["gaps"] == 0
            await connection.close()

    run(main())


def test_holes_repetitions_and_restarts(redis: Server, run: Run) -> None:
    async def main() -> None:
        channel = f"{fresh()}.raw"
        async with reading(redis.url, channel) as reader:
            connection = await connect(redis.url)
            for rows, sequence, epoch in [
                (quotes(2, 0), 10, 5),  # the first that is seen: no gap
                (quotes(2, 2), 12, 5),
                (quotes(2, 6), 16, 5),  # two are missing
                (quotes(2, 6), 16, 5),  # a repetition
                (quotes(4, 6), 16, 5),  # two of these are new
                (quotes(0), 25, 5),  # a heartbeat: five are missing
                (quotes(1, 99), 1, 4),  # an older publisher
                (quotes(1, 20), 3, 6),  # a new one, of which we missed two
            ]:
                await say(connection, channel, rows, sequence, epoch)
            await until(lambda: reader.feed.counts["messages"] == 7)
            assert reader.market()["bid_volume"].tolist() == [0, 1, 2, 3, 6, 7, 8, 9, 20]
            assert reader.gaps() == [(inbox.MISSED, 2.0), (inbox.MISSED, 5.0), (inbox.RESTARTED, 2.0)]
            counts = reader.feed.counts
            assert (counts["gaps"], counts["missed"], counts["repeated"]) == (2, 7, 4)
            assert counts["restarts"] == 1 and reader.feed.inbox.quarantine.counts == {"epoch": 1}
            kinds = reader.read()["kind"].tolist()
            assert kinds[4] == codes.GAP and kinds[5] == codes.QUOTE
            await connection.close()

    run(main())


def test_an_older_publisher_is_no_sign_of_life() -> None:
    """A second one begins beside it as the same source, and ends: who goes on is told of, not taken for the source."""
    one = box()

    def said(n: int, epoch: int) -> None:
        assert one.take(b"a.raw", codec.encode_raw(quotes(2), NAMES, 7, epoch, 2 * n + 1))

    said(0, 5)
    said(1, 5)
    said(0, 6)
    assert len(one.drain()) == 6 + len(set(quotes(2)["instrument"].tolist()))
    for n in range(2, 8):
        one.beat(3)
        said(n, 5)
    gaps = one.drain()
    assert len(one.silent) == 1 and len(gaps) and set(gaps["code"].tolist()) == {inbox.SILENT}
    assert one.counts["events"] == 6 and one.quarantine.counts == {"epoch": 6}


def test_a_source_that_falls_silent(redis: Server, run: Run) -> None:
    async def main() -> None:
        channel = f"{fresh()}.raw"
        async with reading(redis.url, channel, silent_s=0.5) as reader:
            connection = await connect(redis.url)
            await say(connection, channel, quotes(1), 1)
            await until(lambda: reader.feed.inbox.silent == [f"{channel} (source 7)"], 3.0)
            assert reader.gaps() == [(inbox.SILENT, 0.0)]
            await say(connection, channel, quotes(0), 2)
            await until(lambda: not reader.feed.inbox.silent)
            assert len(reader.gaps()) == 1 and reader.feed.counts["silences"] == 1
            await connection.close()

    run(main())


def test_bad_messages_do_no_harm(redis: Server, run: Run) -> None:
    async def main() -> None:
        base = fresh()
        async with reading(redis.url, f"{base}*") as reader:
            connection = await connect(redis.url)
            for channel, payload in [(f"{base}.raw", b"junk"), (f"{base}.json", b"{"), (f"{base}.pb", b"\xff\xff"),
                                     (f"{base}.xml", b"<a/>"), (f"{base}.raw", b"")]:  # fmt: skip
                await connection.call("PUBLISH", channel, payload)
            bad = quotes(2)
            bad["kind"][0] = codes.REPORT
            await say(connection, f"{base}.raw", bad, 1)
            await until(lambda: len(reader.read()) == 1)
            assert reader.feed.inbox.quarantine.counts == {"malformed": 4, "channel": 1, "kind": 1}
            await connection.close()

    run(main())


def test_an_event_that_cannot_be_read_is_a_gap() -> None:
    """A book without it would be wrong; what is of another instrument is not missed."""
    inbox_, names = box(), Names(("AAPL", "ORCL"))
    assert inbox_.take(b"md.x.json", codec.encode_json(quotes(1), NAMES, 7, 1, 1))
    rows = np.concatenate([quote(n, n % 2).view("V64") for n in range(4)]).view(Event.dtype)
    payload = codec.encode_json(rows, names, 7, 1, 2).replace(b'"bid":10.0', b'"bid":"ten"', 1)
    assert inbox_.take(b"md.x.json", payload)
    found = inbox_.drain()
    assert found["kind"].tolist() == [codes.QUOTE, codes.GAP, codes.QUOTE] and found["amount"][1] == 1.0
    assert inbox_.quarantine.counts == {"malformed": 1, "instrument": 2}


def test_a_list_of_instruments_other_than_ours(redis: Server, run: Run) -> None:
    async def main() -> None:
        channel, theirs = f"{fresh()}.raw", Names(("ORCL", "MSFT", "IBM"))
        async with reading(redis.url, channel) as reader:
            connection = await connect(redis.url)
            await say(connection, channel, quote(0, 1), 1, names=theirs)
            await until(lambda: reader.feed.inbox.quarantine.counts["table"] == 1)
            await connection.call("SET", f"tandem:instruments:{theirs.table:08x}", json.dumps(theirs.names))
            for n, i in enumerate((1, 2, 0)):
                await say(connection, channel, quote(n, i), 2 + n, names=theirs)
            await until(lambda: len(reader.read()) == 2)
            assert reader.read()["instrument"].tolist() == [2, 1]
            assert reader.feed.inbox.quarantine.counts == {"table": 1, "instrument": 1}
            await connection.close()

    run(main())


def test_a_slow_reader_holds_back_and_loses_nothing(redis: Server, run: Run) -> None:
    async def main() -> None:
        channel = f"{fresh()}.raw"
        async with reading(redis.url, channel, inbox=box(rows=256)) as reader:
            connection = await connect(redis.url)
            for n in range(100):
                await say(connection, channel, quotes(50, 50 * n), 1 + 50 * n)
            assert reader.feed.counts["slow"] == 1 and reader.feed.waiting > 0
            await until(lambda: len(reader.read()) == 5000)
            assert reader.read()["bid_volume"].tolist() == list(range(5000))
            assert reader.feed.waiting == 0 and reader.feed.counts["gaps"] == 0
            await say(connection, channel, quotes(300), 5001)
            await until(lambda: reader.feed.inbox.quarantine.counts["too_long"] == 1)
            await connection.close()

    run(main())


@pytest.mark.slow
def test_a_reader_that_the_server_drops(own_redis: Server, run: Run) -> None:
    """Beyond its limit Redis closes the connection: it is seen, counted, told as a gap, and the feed goes on."""

    async def main() -> None:
        connection = await connect(own_redis.url)
        await connection.call("CONFIG", "SET", "client-output-buffer-limit", "pubsub 100000 100000 0")
        async with reading(own_redis.url, "md.x.raw", inbox=box(rows=256)) as reader:
            await say(connection, "md.x.raw", quotes(1), 1)
            await until(lambda: len(reader.read()) == 1)
            sequence = 2
            while await say(connection, "md.x.raw", quotes(200, sequence), sequence):
                sequence += 200
            await until(lambda: (reader.read(), reader.feed.counts["reconnects"])[1] == 1)
            await say(connection, "md.x.raw", quotes(1, sequence + 200), sequence + 200)
            await until(lambda: len(reader.gaps()) == 1)
            ((code, missing),) = reader.gaps()
            assert code == inbox.MISSED and missing == sequence + 200 - 1 - len(reader.market()) + 1
            assert reader.feed.counts["disconnects"] == 1 and reader.feed.counts["slow"] >= 1
            await connection.close()

    run(main())


@pytest.mark.parametrize("start_again", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_redis_restarts(own_redis: Server, run: Run, start_again: bool) -> None:
    """Also one that only stands still for a while: it is left, and found again."""

    async def main() -> None:
        async with reading(own_redis.url, "md.*") as reader:
            connection = await connect(own_redis.url)
            await say(connection, "md.x.raw", quotes(2), 1)
            await until(lambda: len(reader.read()) == 2)
            if start_again:
                own_redis.kill()
                await until(lambda: not reader.feed.connected)
                await asyncio.sleep(0.3)
                own_redis.start()
            else:
                own_redis.freeze(True)
                await until(lambda: not reader.feed.connected)
                own_redis.freeze(False)
            await until(lambda: reader.feed.connected)
            await connection.close()
            connection = await connect(own_redis.url)
            await say(connection, "md.x.raw", quotes(2, 4), 5)
            await until(lambda: len(reader.market()) == 4)
            assert reader.gaps() == [(inbox.MISSED, 2.0)]
            assert reader.feed.counts["disconnects"] == reader.feed.counts["reconnects"] == 1
            await connection.close()

    run(main())


def test_streams_resume(own_redis: Server, run: Run) -> None:
    async def main() -> None:
        async def add(sequence: int) -> None:
            payload = codec.encode_raw(quotes(1, sequence), NAMES, 7, 1, sequence)
            await command(own_redis.url, "XADD", "st.x.raw", "*", "p", payload)

        await add(1)  # before we began
        async with reading(own_redis.url, streams=("st.*",)) as reader:
            for n in range(2, 7):
                await add(n)
            await until(lambda: len(reader.read()) == 5)
            own_redis.stop()
            await until(lambda: not reader.feed.connected)
            own_redis.start()
            for n in range(7, 10):
                await add(n)
            await until(lambda: len(reader.read()) == 8)
            ids = dict(reader.feed.ids)
        await add(10)
        await add(11)
        async with reading(own_redis.url, streams=("st.*",), after=ids) as later:
            payload = codec.encode_raw(quotes(1), NAMES, 8, 1, 1)
            await command(own_redis.url, "XADD", "st.new.raw", "*", "p", payload)
            await until(lambda: len(later.read()) == 3)
            assert later.read()["bid_volume"].tolist() == [10, 11, 0]
        assert reader.read()["bid_volume"].tolist() == list(range(2, 10))
        assert reader.feed.counts["gaps"] == later.feed.counts["gaps"] == 0

    run(main())


def test_a_trimmed_stream_is_a_gap(redis: Server, run: Run) -> None:
    async def main() -> None:
        name, connection = f"{fresh()}.raw", await connect(redis.url)
        async with reading(redis.url, streams=(name,), inbox=box(rows=8)) as reader:
            for n in range(1, 40):
                payload = codec.encode_raw(quotes(1, n), NAMES, 7, 1, n)
                await connection.call("XADD", name, "MAXLEN", "5", "*", "p", payload)
            await until(lambda: len(reader.read()) and reader.market()["bid_volume"][-1] == 39)
            total = sum(int(amount) for _, amount in reader.gaps())
            assert len(reader.market()) + total == 39
        await connection.close()

    run(main())


@pytest.mark.parametrize(("word", "stream"), [("raw", False), ("pb", False), ("json", False), ("raw", True)])
def test_publisher_to_feed(redis: Server, run: Run, word: str, stream: bool) -> None:
    async def main() -> None:
        target, rows = fresh(), quotes(500)
        rows["instrument"] = np.arange(500) % 3
        rows["recv"] = rows["ts"]
        where: dict[str, Any] = {"streams": (f"{target}.*",)} if stream else {}
        async with reading(redis.url, *(() if stream else (f"{target}.*",)), **where) as reader:
            publisher = Publisher(redis.url, target, NAMES, encoding=word, source=3, split=True, batch=7, restamp=False,
                                  stream_len=10_000 if stream else None)  # fmt: skip
            await publisher.run(pieces_of(rows, repeat=2, piece=100), Pace(speed=math.inf))
            await until(lambda: len(reader.read()) == 1000)
            for i in range(3):
                mine = reader.read()[reader.read()["instrument"] == i]
                assert mine["bid_volume"].tolist() == [n for n in range(500) if n % 3 == i] * 2
            assert (np.diff(np.sort(reader.read()["ts"])) > 0).all()
            assert set(reader.read()["source"].tolist()) == {3}
            assert publisher.sent == 1000 and (stream or publisher.receivers == 1)
            assert reader.feed.counts["gaps"] == 0

    run(main())


def test_publisher_keeps_its_pace_and_its_heartbeats(redis: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves while the publisher sleeps, and stands still otherwise."""
    now = [0.0]

    async def sleep(seconds: float) -> None:
        assert seconds >= 0.001, "an event loop that counts in milliseconds would not sleep at all"
        now[0] += seconds
        await asyncio.sleep(0)

    clock = SimpleNamespace(monotonic=lambda: now[0], time_ns=lambda: 10**18 + round(now[0] * 1e9))
    monkeypatch.setattr(publisher_module, "time", clock)
    monkeypatch.setattr(publisher_module, "asyncio", SimpleNamespace(gather=asyncio.gather, sleep=sleep))

    async def main() -> None:
        rows = quotes(3)
        rows["recv"] = rows["ts"] = np.array([0, 100, 2600]) * 10**6 + 10**18
        target, connection = fresh(), await connect(redis.url)
        async with reading(redis.url, f"{target}.raw") as reader:
            publisher = Publisher(redis.url, target, NAMES)
            seconds = await publisher.run(pieces_of(rows), Pace(speed=2.0))
            assert seconds == pytest.approx(1.3, abs=0.002)
            assert publisher.messages == 4  # one of them a heartbeat
            await until(lambda: len(reader.read()) == 3)
            assert np.diff(reader.read()["ts"]) / 1e9 == pytest.approx([0.05, 1.25], abs=0.002)
            for rate in (500.0, 5000.0):
                seconds = await Publisher(redis.url, target, NAMES).run(pieces_of(quotes(100)), Pace(rate=rate))
                assert seconds == pytest.approx(99 / rate, abs=0.002)
        await connection.close()

    run(main())


async def renewed(lease: Lease) -> None:
    """Wait until it holds for longer than it did."""
    ends = lease._until
    await until(lambda: lease._until > ends)


def test_lease_excludes_and_returns(redis: Server, run: Run) -> None:
    async def main() -> None:
        name, told = fresh(), []
        first, second = Lease(redis.url, name, name, 2.0), Lease(redis.url, name, name, 2.0, told.append)
        token = await first.acquire()
        with pytest.raises(WireError, match=r"runs already: .* holds its lease for another [12]\.\d s"):
            await second.acquire()
        await renewed(first)
        assert first.valid, "it is renewed"
        await first.release()
        assert not first.valid
        later = await second.acquire()
        assert later > token > time.time_ns() // 10**6 - 60_000
        connection = await connect(redis.url)
        await connection.call("SET", f"tandem:lease:{name}", "somebody else")
        await until(lambda: told)
        assert not second.valid and "somebody else has taken it" in told[0]
        await connection.close()

    run(main())


def test_lease_that_redis_has_forgotten(redis: Server, run: Run) -> None:
    """A Redis that keeps nothing was started again: nobody has taken it, and nobody knows whether one had."""

    async def main() -> None:
        name, told = fresh(), []
        lease = Lease(redis.url, name, name, 2.0, told.append)
        await lease.acquire()
        connection = await connect(redis.url)
        await connection.call("DEL", *(f"tandem:{what}:{name}" for what in ("lease", "token")))
        await until(lambda: told)
        assert not lease.valid and told == ["Redis has lost its data"]
        await connection.close()

    run(main())


def test_lease_of_an_account(redis: Server, run: Run) -> None:
    """Another engine on the same account does not start, holds nothing then, and ends when the account goes."""

    async def main() -> None:
        account, told = fresh(), []
        first, second = Lease(redis.url, fresh(), account, 2.0), Lease(redis.url, fresh(), account, 2.0, told.append)
        token = await first.acquire()
        said = rf"account {account} is traded already: engine {first.engine}@\S+ holds its lease for another [12]\.\d s"
        with pytest.raises(WireError, match=said):
            await second.acquire()
        elsewhere = Lease(redis.url, second.engine, fresh(), 2.0)
        await elsewhere.acquire()
        await elsewhere.release()
        numbers = [await first.number(7), await first.number(7)]
        await first.release()
        assert await second.acquire() > token, "tokens grow from engine to engine of an account"
        assert [*numbers, await second.number(7), await second.number(20)] == [7, 8, 9, 20]
        connection = await connect(redis.url)
        await connection.call("SET", f"tandem:lease:account:{account}", "somebody else")
        await until(lambda: told)
        assert not second.valid and "somebody else has taken it" in told[0]
        await second.release()
        assert await connection.call("EXISTS", f"tandem:lease:{second.engine}") == 0, "what is ours is given back"
        await connection.close()

    run(main())


def test_lease_of_an_observer(redis: Server, run: Run) -> None:
    """It runs beside the engine that trades its account, twice under one id it does not; it may take the account over
    when that is free, and nobody else has it then."""

    async def main() -> None:
        account = fresh()
        looks = Lease(redis.url, fresh(), account, 2.0, whole=False)
        trades, third = Lease(redis.url, fresh(), account, 2.0), Lease(redis.url, fresh(), account, 2.0)
        token = await looks.acquire()
        with pytest.raises(WireError, match="runs already"):
            await Lease(redis.url, looks.engine, account, 2.0, whole=False).acquire()
        latest = await trades.acquire()
        with pytest.raises(WireError, match=f"account {account} is traded already: engine {trades.engine}@"):
            await looks.take_account()
        assert looks.valid and looks.token == token and not looks.whole
        await trades.release()
        assert await looks.take_account() > max(token, latest)
        with pytest.raises(WireError, match="is traded already"):
            await third.acquire()
        await renewed(looks)
        assert looks.valid and looks.whole, "it is renewed"
        await looks.release()
        await third.acquire()
        await third.release()

    run(main())


def test_lease_given_back_with_its_renewal(redis: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cancels the renewal in the moment its answer is there ends it all the same."""

    async def main() -> None:
        lease, ask, ends = Lease(redis.url, fresh(), fresh(), 1.0), Connection.ask, []
        await lease.acquire()

        def asked(connection: Connection, *words: str | bytes | int) -> "asyncio.Future[Any]":
            future = ask(connection, *words)
            if not ends:
                future.add_done_callback(lambda _: ends.append(asyncio.ensure_future(lease.release())))
            return future

        monkeypatch.setattr(Connection, "ask", asked)
        await until(lambda: ends)
        await ends[0]
        assert not lease.valid

    run(main())


@pytest.mark.slow
def test_lease_ends_with_us_before_it_ends_in_redis(own_redis: Server, run: Run) -> None:
    async def main() -> None:
        told: list[float] = []
        lease = Lease(own_redis.url, "e", "e", 3.0, lambda why: told.append(time.monotonic()))
        token = await lease.acquire()
        own_redis.freeze(True)
        frozen = time.monotonic()
        await until(lambda: told)
        assert not lease.valid and told[0] - frozen < 3.0
        own_redis.freeze(False)
        other = Lease(own_redis.url, "e", "e", 3.0)
        await until_acquired(other)
        assert other.token > token
        own_redis.kill()
        own_redis.start()
        await asyncio.sleep(3.0)
        assert other.valid, "a Redis that was away for less than the lease lasts changes nothing"
        await other.release()

    async def until_acquired(lease: Lease) -> None:
        for _ in range(100):
            try:
                await lease.acquire()
                return
            except WireError:
                await asyncio.sleep(0.05)

    run(main())


def test_addresses(redis: Server, run: Run) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="write redis://host:port"):
            await connect("http://localhost")
        with pytest.raises(WireError, match="is not reachable"):
            await connect("redis://127.0.0.1:1")
        with pytest.raises(WireError, match="refuses"):
            await connect(redis.url.replace("://", "://:secret@"))
        connection = await connect(redis.url + "/3")
        await connection.call("SET", "a", 1)
        assert await connection.call("GET", "a") == b"1"
        with pytest.raises(WireError, match="wrong number of arguments"):
            await connection.call("GET")
        await connection.close()
        with pytest.raises(WireError, match="closed"):
            await connection.call("GET", "a")

    run(main())


def test_backoff_grows_within_bounds() -> None:
    backoff = Backoff(0.1, 2.0)
    waits = [backoff.next() for _ in range(40)]
    assert all(0.05 * 2**n <= w <= 0.1 * 2**n for n, w in enumerate(waits[:4])) and max(waits) <= 2.0
    backoff.reset()
    assert backoff.next() <= 0.1
