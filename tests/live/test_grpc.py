"""Orders over a real gRPC service that behaves, is slow, refuses, is silent or goes away: each once, none lost."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError, VenueError
from engine.kernel import codes
from engine.kernel.positions import apply_fill
from engine.live import service as module
from engine.live.account import Account
from engine.live.codec import Names
from engine.live.grpc_service import GrpcService
from engine.live.grpc_venue import GrpcVenue
from engine.live.messages import order_batch
from engine.live.service import SERVICE, Service
from engine.live.tls import Tls
from engine.live.wire import execution_pb2 as pb
from tests.kernel.desk import Desk
from tests.live.conftest import until
from tests.live.desks import SmallDesk
from tests.live.events import NAMES, order, quote, report, same

Run = Callable[..., Any]


def fresh(number: int, **more: Any) -> Any:
    """An order that was decided on now."""
    rows = order(number, **more)
    rows["ts"] = time.time_ns()
    return rows


def trade(instrument: int = 0) -> Any:
    """A trade that fills what the small desk holds."""
    rows = quote(instrument=instrument)
    rows["kind"], rows["price"], rows["traded"] = codes.TRADE, 10.5, 1.0
    return rows


@pytest.mark.parametrize("own", [None, "", "-event_engine_dns"])
def test_the_poller_is_chosen_before_the_library_starts_and_it_knows_the_words(own: str | None) -> None:
    """In a process of its own: what the library does not know it says on stderr."""
    code = ("import os, engine.live.grpc_venue, grpc; grpc.insecure_channel('127.0.0.1:1'); "
            "print(os.environ['GRPC_EXPERIMENTS'])")  # fmt: skip
    env = {k: v for k, v in os.environ.items() if k != "GRPC_EXPERIMENTS"} | (
        {} if own is None else {"GRPC_EXPERIMENTS": own}
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ("-event_engine_client,-event_engine_listener" if own is None else own)
    assert ("Unknown experiment" in done.stderr) == (own == "-event_engine_dns")


class Rough(GrpcService):
    """A service that treats the next batches as told: `script` holds one word for each, then it behaves."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.script: list[str] = []
        self.batches = 0

    async def _stream(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            word = self.script.pop(0) if self.script and request.WhichOneof("body") == "batch" else ""
            self.batches += request.WhichOneof("body") == "batch"
            if word in ("accept, no answer", "accept, then UNAVAILABLE", "accept, then DEADLINE_EXCEEDED"):
                self.service.submit(request.batch)
            if word == "slow":
                await asyncio.sleep(0.25)
            if word.endswith("UNAVAILABLE"):
                await context.abort(grpc.StatusCode.UNAVAILABLE, "away for lunch")
            if word.endswith("DEADLINE_EXCEEDED"):
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "too late")
            if word.endswith("no answer"):
                continue

            async def one(item: Any = request) -> AsyncIterator[Any]:
                yield item

            async for reply in super()._stream(one(), context):
                yield reply


class World:
    """A desk, its service, and what it has published."""

    def __init__(self, address: str = "127.0.0.1:0", tls: Tls | None = None) -> None:
        self.desk, self.published = SmallDesk(), list[int]()
        self.service = Service(self.desk, NAMES, "a", lambda rows: self.published.extend(rows["exec_id"].tolist()))
        self.server = Rough(self.service, address, tls)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def client(self, **more: Any) -> GrpcVenue:
        return GrpcVenue(self.address, NAMES, "a", "e", **{"deadline_s": 0.5, "heartbeat_s": 0.2, "token": 1, **more})


@contextlib.asynccontextmanager
async def world(**more: Any) -> AsyncIterator[tuple[World, GrpcVenue]]:
    made = World()
    await made.server.start()
    client = made.client(**more)
    await client.start()
    try:
        if more.get("stream", True):
            await until(lambda: client.connected)
        yield made, client
    finally:
        await client.stop()
        await made.server.stop()


def settled(client: GrpcVenue, made: World, orders: int) -> Callable[[], bool]:
    return lambda: len(made.desk.known) >= orders and not client.in_doubt and not client.waiting


@pytest.mark.parametrize("stream", [True, False])
def test_orders_arrive_once_and_in_order(run: Run, stream: bool) -> None:
    async def main() -> None:
        async with world(stream=stream) as (made, client):
            for n in range(1, 51):
                client.send(np.concatenate([fresh(2 * n), fresh(2 * n + 1, instrument=1)]))
            client.send(np.concatenate([fresh(4, action=codes.CANCEL), fresh(5, action=codes.REPLACE, qty=7)]))
            await until(settled(client, made, 102))
            assert list(made.desk.placed) == list(range(2, 102)) and made.desk.done == {4: codes.DONE_CANCELLED}
            assert made.published == list(range(1, 103))
            made.service.market(trade())
            view = await client.query([2, 4, 5, 999], 102)
            assert view.orders[999] is None and view.last_exec == 102 + 49
            states = [view.orders[i].state for i in (2, 4, 5)]  # type: ignore[union-attr]
            assert states == [codes.DONE_FILLED, codes.DONE_CANCELLED, codes.WORKING]
            assert [one.id for one in view.working] == [2 * n + 1 for n in range(1, 51)]
            assert len(view.reports) == 49 and view.positions is not None
            assert view.positions.tolist() == [5 * 49, 0, 0]
            assert same(await client.reports(0), made.desk.reports(0))
            assert not len(client.drain()) and client.counts["acked"] == 102

    run(main())


@pytest.mark.parametrize("word", [
    "UNAVAILABLE", "accept, then UNAVAILABLE", "DEADLINE_EXCEEDED", "accept, then DEADLINE_EXCEEDED",
    "no answer", "accept, no answer", "slow",
])  # fmt: skip
def test_in_doubt_is_settled_by_asking(run: Run, word: str) -> None:
    async def main() -> None:
        async with world() as (made, client):
            client.send(fresh(1))
            await until(settled(client, made, 1))
            made.server.script = [word, "", word]
            for n in (2, 3, 4, 5):
                client.send(fresh(n))
                await asyncio.sleep(0.02)
            client.send(fresh(1, action=codes.CANCEL))
            await until(settled(client, made, 6))
            assert sorted(made.desk.placed) == [1, 2, 3, 4, 5] and made.desk.done == {1: codes.DONE_CANCELLED}
            assert made.published == list(range(1, 7)) and not len(client.drain())
            if word != "slow":
                assert client.counts["connections"] >= 2
            if word in ("UNAVAILABLE", "no answer"):
                assert client.counts["resent"] >= 1
            if word == "accept, then UNAVAILABLE":
                assert made.service.counts["repeated"] == 0, "it was asked, not told again"

    run(main())


def test_the_venue_goes_away_and_comes_back(run: Run) -> None:
    async def main() -> None:
        async with world(resend_s=10.0) as (made, client):
            client.send(fresh(1))
            await until(settled(client, made, 1))
            await made.server.stop()
            await until(lambda: not client.connected)
            with pytest.raises(VenueError, match="UNAVAILABLE"):
                await client.query([1], 0)
            old = np.concatenate([fresh(2), fresh(1, action=codes.CANCEL)])
            old["ts"] -= 20 * 10**9
            client.send(old)
            client.send(fresh(3))
            again = Rough(made.service, made.address)
            await again.start()
            await until(settled(client, made, 3), 15.0)
            assert sorted(made.desk.placed) == [1, 3] and made.desk.done == {1: codes.DONE_CANCELLED}
            own = client.drain()
            assert own["order_id"].tolist() == [2] and own["code"].tolist() == [codes.REJECT]
            assert own["exec_id"].tolist() == [0] and own["fee"].tolist() == [codes.EXPIRED_SIGNAL]
            await again.stop()

    run(main())


def test_what_left_and_got_lost_is_told_when_it_is_old(run: Run) -> None:
    async def main() -> None:
        async with world(resend_s=0.1) as (made, client):
            made.server.script = ["no answer"]
            client.send(np.concatenate([fresh(1), fresh(2)]))
            await until(lambda: client.counts["unsent"] == 2)
            await until(lambda: client.connected and not client.in_doubt)
            assert not made.desk.placed and client.drain()["order_id"].tolist() == [1, 2]

    run(main())


def test_a_refused_batch_is_certain(run: Run) -> None:
    async def main() -> None:
        for stream in (True, False):
            async with world(stream=stream) as (made, client):
                client.names = Names(("AAPL", "IBM", "ORCL"))
                client.send(fresh(1))
                await until(settled(client, made, 1))
                client.send(fresh(2, instrument=2))
                await until(lambda c=client: c.counts["unsent"] == 1)
                client.send(fresh(3))
                await until(settled(client, made, 2))
                assert sorted(made.desk.placed) == [1, 3]
                assert client.drain()["fee"].tolist() == [codes.BAD_ORDER]

    run(main())


def test_fencing(run: Run) -> None:
    """A newer token ends the older engine; a newer connection ends what is still under way on the older one."""

    async def main() -> None:
        async with world(token=5) as (made, client):
            client.send(fresh(1))
            await until(settled(client, made, 1))
            channel = grpc.aio.insecure_channel(made.address)
            submit = channel.unary_unary(f"/{SERVICE}/Submit", lambda m: m.SerializeToString(), pb.Acks.FromString)
            for engine, token in (("e", 5), ("another one on the account", 4)):
                late = order_batch(fresh(9), NAMES, account="a", engine=engine, token=token, connection=1, batch=1)
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await submit(late)
                assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            for schema, account in ((1, "b"), (2, "a")):
                wrong = order_batch(fresh(9), NAMES, account=account)
                wrong.schema = schema
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await submit(wrong)
                assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            newer = made.client(token=6)
            await newer.start()
            await until(lambda: newer.connected)
            client.send(fresh(2))
            await until(lambda: client.fenced)
            client.send(fresh(3))
            newer.send(fresh(4))
            await until(settled(newer, made, 2))
            assert sorted(made.desk.placed) == [1, 4] and 3 in client.drain()["order_id"]
            assert client.in_doubt == 1, "nobody has said what became of order 2"
            await newer.stop()
            await channel.close()

    run(main())


def test_an_observer_asks_and_ends_nobody(run: Run) -> None:
    """Who trades goes on while it asks; it sends nothing until it enters, and then it is the newest."""

    async def main() -> None:
        async with world() as (made, client):
            other = made.client(looks=True, token=9)
            await other.start()
            await until(lambda: other.connected)
            client.send(fresh(1))
            await until(settled(client, made, 1))
            view = await other.query([1], 1)
            assert view.orders[1] is not None and made.service.counts["fenced"] == 0
            other.send(fresh(2))
            assert other.drain()["code"].tolist() == [codes.REJECT]
            client.send(fresh(3))
            await until(settled(client, made, 2))
            assert not client.fenced and made.service.counts["fenced"] == 0
            other.enter(9)
            other.send(fresh(4))
            await until(settled(other, made, 3))
            client.send(fresh(5))
            await until(lambda: client.fenced)
            assert list(made.desk.placed) == [1, 3, 4]
            await other.stop()

    run(main())


def test_what_the_venue_counts(run: Run) -> None:
    """Fills with the lots of their order, positions with their average, live or asked for later."""

    async def main() -> None:
        async with world() as (made, client):
            told: list[Any] = []
            made.service._publish = lambda rows: told.append(rows)
            client.send(np.concatenate([fresh(1, qty=5), fresh(2, qty=3)]))
            await until(settled(client, made, 2))
            made.service.market(trade())
            fills = np.concatenate([rows.view("V64") for rows in told]).view(told[0].dtype)
            fills = fills[fills["code"] == codes.FILL]
            assert fills["recv"].tolist() == [5, 3]
            again = await client.reports(0)
            assert again["recv"][again["code"] == codes.FILL].tolist() == [5, 3]
            assert made.service.held() == {0: (8, 10.5)}
            held = await client._ask("Positions", pb.AccountRequest(account="a"))
            assert [(one.qty, one.average) for one in held.positions] == [(8, 10.5)]

    run(main())


def fill_of(number: int, qty: int, price: float = 10.0, exec_id: int = 1) -> Any:
    return report(exec_id, number, codes.FILL, qty, price)


def test_an_account_says_nothing_rather_than_what_is_not_so() -> None:
    account, rows = Account(keep=2), [fill_of(1, 5), fill_of(1, 2, 17.0), fill_of(2, -3, 20.0), fill_of(3, -6, 9.0)]
    for one in rows:
        account.add(one)
    assert [int(one["recv"][0]) for one in rows] == [5, 7, 3, 6]
    assert account.average(0, -2) == 9.0 and account.average(0, 4) == 0.0, "that is not what the reports explain"
    late = [fill_of(1, 1), fill_of(3, -1), fill_of(4, 9)]
    for one in late:
        account.add(one)
    assert [int(one["recv"][0]) for one in late] == [0, 7, 9], "order 1 is no longer kept"
    account.forget(7)
    account.add(one := fill_of(6, 1))
    assert one["recv"][0] == 0
    part = np.concatenate([r.view("V64") for r in (*rows[3:], *late)]).view(one.dtype)
    part["recv"] = 99
    account.recount(part)
    assert part["recv"].tolist() == [6, 0, 7, 9]


@given(st.lists(st.tuples(st.integers(-4, 4).filter(bool), st.integers(1, 9)), max_size=12))
def test_averages_are_the_kernels(fills: list[tuple[int, int]]) -> None:
    desk, account = Desk(), Account()
    for lots, price in fills:
        apply_fill(desk.k, 0, 0, lots, float(price), 0.0)
        account.add(fill_of(1, lots, float(price)))
    p = desk.machine.table("positions_at")[0]
    assert account.average(0, int(p["qty"])) == pytest.approx(float(p["average"]))


def test_without_the_lease_nothing_leaves(run: Run) -> None:
    async def main() -> None:
        held, woken = [True], []
        async with world(allowed=lambda: held[0], wake=lambda: woken.append(1)) as (made, client):
            client.send(fresh(1))
            await until(settled(client, made, 1))
            held[0] = False
            client.send(np.concatenate([fresh(2), fresh(1, action=codes.CANCEL)]))
            own = client.drain()
            assert own["code"].tolist() == [codes.REJECT, codes.CANCEL_REJECT] and woken
            assert own["fee"].tolist() == [codes.NOT_ALLOWED] * 2 and list(made.desk.placed) == [1]

    run(main())


def test_single_calls_where_there_is_no_stream(run: Run) -> None:
    async def main() -> None:
        made = World()
        made.server._stream = None  # type: ignore[method-assign, assignment]
        original = grpc.stream_stream_rpc_method_handler
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grpc, "method_handlers_generic_handler", without_stream(grpc.method_handlers_generic_handler))
            patch.setattr(grpc, "stream_stream_rpc_method_handler", lambda *_: original(lambda *_: None))
            await made.server.start()
        client = made.client()
        await client.start()
        client.send(fresh(1))
        client.send(np.concatenate([fresh(1, action=codes.CANCEL), fresh(2), fresh(3)]))
        await until(settled(client, made, 4))
        assert sorted(made.desk.placed) == [1, 2, 3] and client.counts["status_unimplemented"] == 1
        await client.stop()
        await made.server.stop()

    def without_stream(make: Any) -> Any:
        return lambda name, handlers: make(name, {k: v for k, v in handlers.items() if k != "Stream"})

    run(main())


def test_single_calls_keep_the_order_of_decisions(run: Run) -> None:
    """What is decided while a call is under way goes behind what waited before, and never into another's call."""

    async def main() -> None:
        async with world(stream=False) as (made, client):
            arrived, plain, later = list[tuple[int, int]](), made.service.submit, [[fresh(4)]]

            def submit(batch: Any, only: int = 0) -> Any:
                arrived.extend((one.order_id, one.action) for one in batch.orders)
                for rows in later.pop() if later else ():
                    client.send(rows)
                return plain(batch, only)

            made.service.submit = submit  # type: ignore[method-assign]
            client.send(np.concatenate([fresh(1), fresh(1, action=codes.CANCEL), fresh(2), fresh(3)]))
            await until(settled(client, made, 5))
            assert not client.counts["unsent"] and not len(client.drain())
            assert arrived == [(1, codes.NEW), (1, codes.CANCEL), (2, codes.NEW), (3, codes.NEW), (4, codes.NEW)]

    run(main())


def test_what_waits_does_not_outlive_the_lease(run: Run) -> None:
    async def main() -> None:
        held = [True]
        async with world(allowed=lambda: held[0], resend_s=60.0) as (made, client):
            await made.server.stop()
            await until(lambda: not client.connected)
            client.send(np.concatenate([fresh(2), fresh(1, action=codes.CANCEL)]))
            held[0] = False
            again = Rough(made.service, made.address)
            await again.start()
            await until(lambda: client.connected, 15.0)
            await until(lambda: not client.waiting)
            assert not made.desk.known
            assert client.drain()["fee"].tolist() == [codes.NOT_ALLOWED] * 2
            await again.stop()

    run(main())


def test_who_is_new_does_not_ask_for_what_was_before_him(run: Run) -> None:
    """An account may have more reports than its venue keeps; a session without orders needs none of them."""

    async def main() -> None:
        async with world() as (made, client):
            for n in range(1, 6):
                client.send(fresh(n))
            await until(settled(client, made, 5))
            view = await client.query([], 0)
            assert view.reports["exec_id"].tolist() == [5] and view.last_exec == 5
            assert len((await client.query([1], 0)).reports) == 5

    run(main())


def test_a_service_that_gives_no_sign_of_life_is_left(run: Run) -> None:
    async def main() -> None:
        async def deaf(requests: Any, context: Any) -> AsyncIterator[Any]:
            await asyncio.sleep(100)
            yield None

        made = World()
        made.server._stream = deaf  # type: ignore[method-assign, assignment]
        await made.server.start()
        client = made.client(heartbeat_s=0.1)
        await client.start()
        await until(lambda: client.counts["connections"] == 3)
        assert not client.connected
        await client.stop()
        await made.server.stop()

    run(main())


def certificates() -> dict[str, tuple[bytes, bytes]]:
    """A certificate authority, and by it one certificate for 127.0.0.1 and one for a client: (PEM, key)."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now, made = datetime.datetime.now(datetime.UTC), {}
    ca_name, ca_key = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ca")]),
        ec.generate_private_key(ec.SECP256R1()),
    )
    for name in ("ca", "service", "client"):
        key = ca_key if name == "ca" else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        where = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        built = (x509.CertificateBuilder().subject_name(subject).issuer_name(ca_name).public_key(key.public_key())
                 .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
                 .not_valid_after(now + datetime.timedelta(hours=1)).add_extension(where, False)
                 .add_extension(x509.BasicConstraints(name == "ca", None), True)
                 .sign(ca_key, hashes.SHA256()))  # fmt: skip
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        made[name] = (built.public_bytes(pem), private)
    return made


def test_tls_and_mtls(run: Run, tmp_path: Any) -> None:
    pytest.importorskip("cryptography")
    made = certificates()
    (ca, _), (cert, key), (client_cert, client_key) = made["ca"], made["service"], made["client"]

    async def reaches(server: Tls, client: Tls | None, limit: float = 10.0) -> bool:
        there = World(tls=server)
        await there.server.start()
        venue = there.client(tls=client)
        await venue.start()
        try:
            await until(lambda: venue.connected, limit)
            venue.send(fresh(1))
            await until(settled(venue, there, 1))
        except AssertionError:
            return False
        finally:
            await venue.stop()
            await there.server.stop()
        return True

    async def main() -> None:
        assert await reaches(Tls(None, cert, key), Tls(ca=ca))
        assert await reaches(Tls(ca, cert, key), Tls(ca, client_cert, client_key))
        assert not await reaches(Tls(ca, cert, key), Tls(ca=ca), 1.0), "mTLS asks for a certificate"
        assert not await reaches(Tls(None, cert, key), None, 1.0)

    run(main())
    (tmp_path / "ca.pem").write_bytes(ca)
    assert Tls.read(str(tmp_path / "ca.pem"), None, None, "execution.tls") == Tls(ca=ca)
    assert Tls.read(None, None, None, "execution.tls") is None
    with pytest.raises(ConfigError, match="belong together"):
        Tls.read(None, "x", None, "execution.tls")
    with pytest.raises(ConfigError, match=r"execution\.tls\.ca=.*cannot be read"):
        Tls.read(str(tmp_path / "none"), None, None, "execution.tls")


def test_a_port_that_is_taken(run: Run) -> None:
    async def main() -> None:
        first = World()
        await first.server.start()
        with pytest.raises(ConfigError, match="cannot be had"):
            await World(first.address).server.start()
        await first.server.stop()

    run(main())


def test_a_view_is_of_one_moment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account that trades between the calls of a query is looked at again, and given up when it goes on."""

    async def main() -> None:
        moves = [2]

        def busy(service: Service, request: Any) -> Any:
            if moves[0]:
                moves[0] -= 1
                made.desk.rows.append(report(made.desk.last_exec + 1))
            return Service.positions(service, request)

        monkeypatch.setitem(module.CALLS, "Positions", (pb.AccountRequest, busy))  # type: ignore[arg-type]
        async with world() as (made, client):
            view = await client.query([], 0)
            assert (len(view.reports), view.last_exec) == (2, 2)
            moves[0] = 1000
            with pytest.raises(VenueError, match="does not stand still"):
                await client.query([], 0)

    run(main())
