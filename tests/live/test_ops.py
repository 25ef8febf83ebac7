"""What looks at an engine and commands it: metrics, health, admin API, terminal view, logs, tracked runs."""

import asyncio
import json
import logging
import math
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.config import Tracking
from engine.errors import ConfigError, JournalError, KernelHalted, WireError
from engine.kernel import codes
from engine.live import logs, settings, status, track
from engine.live.admin import Admin
from engine.live.observe import Observer, table
from engine.live.stats import Histogram
from tests.live.engines import FakeEngine

Run = Callable[..., Any]
ANY = settings.Admin(port=0)


@pytest.fixture
def fake(tmp_path: Path) -> FakeEngine:
    """An engine."""
    return FakeEngine(tmp_path / "journals" / "mine")


def values(engine: FakeEngine) -> dict[str, float]:
    """All samples of a scrape, as Prometheus' own parser reads them."""
    found = {}
    for family in text_string_to_metric_families(Observer(engine).text().decode()):
        for one in family.samples:
            labels = ",".join(one.labels[key] for key in sorted(one.labels))
            found[one.name + (f"{{{labels}}}" if labels else "")] = one.value
    return found


def test_metrics_are_what_the_engine_has(fake: FakeEngine) -> None:
    """Every kind of value once: kernel, arrays, counters, histogram."""
    got = values(fake)
    k = fake.session.machine.kernel
    assert got["tandem_equity"] == k.cash + k.value == pytest.approx(1005.75)
    assert got["tandem_position_units{A,momentum#0}"] == 1.5
    assert got["tandem_position_pnl{A,momentum#0}"] == pytest.approx(3 * 1.0 * 2.0 - 0.25)
    assert got["tandem_refusals_total{position}"] == 6 and got["tandem_refusals_total{killed}"] == 0
    assert got["tandem_feed_gaps_total"] == 2 and got["tandem_venue_errors_total{unavailable}"] == 2
    assert got["tandem_trading{live}"] == 1 and got["tandem_trading{observation}"] == 0
    assert got["tandem_order_latency_seconds_bucket{1e-05}"] == 5
    assert got["tandem_order_latency_seconds_bucket{0.0001}"] == 9
    assert got["tandem_order_latency_seconds_bucket{+Inf}"] == got["tandem_order_latency_seconds_count"] == 10
    assert got["tandem_order_latency_seconds_sum"] == pytest.approx(2.000405)
    assert got["tandem_feed_lag_seconds"] == pytest.approx(0.002) and got["process_resident_memory_bytes"] > 1e6
    fake.why = ["the lease is not held"]
    k.killed = 1
    again = values(fake)
    assert again["tandem_ready"] == 0 and again["tandem_killed"] == 1 and got["tandem_ready"] == 1


def test_every_metric_of_the_table_is_there_and_named_as_prometheus_wants(fake: FakeEngine) -> None:
    """Counters end in _total, times are seconds, and nothing is exported that the table does not have."""
    names = {name.partition("{")[0] for name in values(fake)}
    for name, _, kind, about in table():
        assert (kind == "counter") == name.endswith("_total") and about
        assert not any(f"_{unit}" in name for unit in ("ns", "us", "ms", "percent"))
        assert f"tandem_{name}" in names or kind == "histogram", name
    ours = {n.removeprefix("tandem_") for n in names if n.startswith("tandem_")}
    extra = {n for n in ours - {name for name, _, _, _ in table()} if not n.startswith("order_latency_seconds_")}
    assert not extra


def test_quantiles_lie_inside_their_bucket() -> None:
    one = Histogram()
    assert math.isnan(one.quantile(0.5))
    for ns in range(10_001, 20_001, 100):  # all in the bucket from 10 to 20 µs
        one.add(ns)
    assert [round(one.quantile(part)) for part in (0.1, 0.5, 0.99, 1.0)] == [11_000, 15_000, 19_900, 20_000]
    one.add(2_000_000_000)
    assert math.isinf(one.quantile(1.0))


def test_pauses_of_the_collector_are_measured(fake: FakeEngine) -> None:
    import gc

    one = Observer(fake)
    one.start()
    gc.collect()
    one.stop()
    gc.collect()
    assert one.pauses.count == 1 and one.pauses.longest > 0 and one.pauses not in gc.callbacks


def serve(run: Run, fake: FakeEngine, what: Callable[..., Any], given: settings.Admin = ANY) -> Any:
    """Run `what(admin, ask)` against a served engine; `ask` gives status and words."""

    async def main() -> Any:
        admin = Admin(fake, given, "mine", fake.session.journal.folder)
        await admin.start()
        try:
            async with aiohttp.ClientSession(admin.url) as http:

                async def ask(path: str, body: Any = None, token: str | None = admin.token) -> tuple[int, Any]:
                    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
                    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
                    way = "GET" if body is None else "POST"
                    async with http.request(way, path, data=data, headers=headers) as reply:
                        text = await reply.text()
                        return reply.status, json.loads(text) if reply.content_type.endswith("json") else text

                return await what(admin, ask)
        finally:
            await admin.stop()

    return run(main())


COMMANDS: list[tuple[str, Any, tuple[Any, ...]]] = [
    ("/trading", {"level": "live"}, ("trading", 0.0, -1)),
    ("/trading", {"level": "observation"}, ("trading", 2.0, -1)),
    ("/kill", {}, ("kill", 0.0, -1)),
    ("/kill", b"", ("kill", 0.0, -1)),
    ("/kill", {"flatten": True}, ("kill", 1.0, -1)),
    ("/clear_kill", {}, ("clear_kill", 0.0, -1)),
    ("/pause", {"strategy": 1}, ("pause", 0.0, 1)),
    ("/resume", {"strategy": "other"}, ("resume", 0.0, 1)),
    ("/reload", {"strategy": 0, "params": {"fast": 7}}, ("reload", 0, None, {"fast": 7})),
    ("/reload", {"strategy": 0, "name": "a.py:B"}, ("reload", 0, "a.py:B", {})),
]  # fmt: skip


def test_commands_reach_the_engine(run: Run, fake: FakeEngine) -> None:
    fake.plan.names = ("momentum", "other")

    async def what(admin: Admin, ask: Any) -> None:
        for path, body, expected in COMMANDS:
            code, words = await ask(path, body)
            assert code == 200 and words["done"], words
            assert fake.asked.pop() == expected
            assert path != "/reload" or words["image"] == "f" * 12

    serve(run, fake, what)


REFUSED: list[tuple[str, Any, int, str]] = [
    ("/trading", {"level": "lvie"}, 400, "one of live, simulation, observation"),
    ("/trading", {}, 400, "one of live"),
    ("/trading", {"level": "live", "flatten": True}, 400, "Unknown key 'flatten'"),
    ("/kill", {"flatten": "no"}, 400, "flatten cannot be 'no'"),
    ("/kill", b"{", 400, "no JSON"),
    ("/kill", b"[" * 60_000, 400, "no JSON"),
    ("/kill", b"\xff\xfe", 400, "no JSON"),
    ("/kill", b"[]", 400, "must be a JSON object"),
    ("/kill", b" " * 70_000, 413, ""),
    ("/clear_kill", {"x": 1}, 400, "takes none"),
    ("/pause", {}, 400, "by number or by a name"),
    ("/pause", {"strategy": 2}, 400, "0 momentum, 1 momentum"),
    ("/pause", {"strategy": -1}, 400, "0 momentum"),
    ("/pause", {"strategy": True}, 400, "cannot be True"),
    ("/resume", {"strategy": "momentum"}, 400, "only one has"),
    ("/reload", {"strategy": 0}, 400, "Give name"),
    ("/reload", {"strategy": 0, "params": {"fast": 99}}, 409, "the old one runs on"),
    ("/status", {}, 405, "takes GET, HEAD"),
    ("/kil", {}, 404, "there are /clear_kill, /healthz, /kill"),
]  # fmt: skip


def test_what_is_refused_says_why_and_changes_nothing(run: Run, fake: FakeEngine) -> None:
    async def what(admin: Admin, ask: Any) -> None:
        for path, body, expected, text in REFUSED:
            code, words = await ask(path, body)
            assert (code, text in words["error"]) == (expected, True), (path, body, code, words)
        for error, expected in ((KernelHalted("it halted"), 409), (JournalError("the disk is full"), 503)):
            fake.fails = error
            assert await ask("/kill", {}) == (expected, {"error": str(error)})

    serve(run, fake, what)
    assert not fake.asked


def test_the_token(run: Run, fake: FakeEngine, tmp_path: Path) -> None:
    """Its file is for the owner only, is new at each start, and goes with the engine."""
    path = tmp_path / "journals" / "mine" / "admin.token"
    path.write_text("left by one that was killed")
    path.chmod(0o644)

    async def what(admin: Admin, ask: Any) -> str:
        assert admin.token_file == path and path.read_text().strip() == admin.token and len(admin.token) >= 32
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for wrong in (None, "", "x", admin.token[:-1], "ü"):
            code, words = await ask("/kill", {}, wrong)
            assert code == 401 and "Bearer" in words["error"] and admin.token not in json.dumps(words)
            assert (await ask("/status", None, wrong))[0] == 401
        for path_ in ("/metrics", "/healthz", "/readyz"):
            assert (await ask(path_, None, None))[0] == 200
        return admin.token

    first, second = serve(run, fake, what), serve(run, fake, what)
    assert first != second and not path.exists() and not fake.asked
    serve(run, fake, lambda admin, ask: ask("/kill", {}, "chosen"), settings.Admin(port=0, token="chosen"))
    assert fake.asked == [("kill", 0.0, -1)]
    with pytest.raises(ConfigError, match=r"admin\.token is empty"):
        serve(run, fake, what, settings.Admin(port=0, token=" "))


def test_health_and_readiness(run: Run, fake: FakeEngine) -> None:
    async def what(admin: Admin, ask: Any) -> None:
        assert await ask("/readyz") == (200, {"ready": True, "why": []})
        fake.why, fake.well = ["no market data for 6 s", "an order is in doubt"], False
        assert await ask("/readyz") == (503, {"ready": False, "why": fake.why})
        assert await ask("/healthz") == (503, {"healthy": False})
        code, words = await ask("/status")
        assert code == 200 and words["latency"] == {"p50_us": 10.0, "p99_us": None} and words["pnl_today"] == 5.75

    serve(run, fake, what)


def test_a_port_that_is_taken(run: Run, fake: FakeEngine) -> None:
    async def what(admin: Admin, ask: Any) -> None:
        with pytest.raises(ConfigError, match=rf"admin\.port={admin.port} cannot be had"):
            await Admin(fake, settings.Admin(port=admin.port), "b", fake.session.journal.folder).start()

    serve(run, fake, what)


def tandem(place: Path, root: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The command line as a user starts it."""
    env = {**{k: v for k, v in os.environ.items() if k != "TANDEM_TOKEN"}, "PYTHONPATH": str(root), "COLUMNS": "100"}
    return subprocess.run([sys.executable, "-m", "engine.app", *words], cwd=place, text=True, capture_output=True,
                          env=env, timeout=60, check=False)  # fmt: skip


def test_the_terminal_view(run: Run, fake: FakeEngine, tmp_path: Path, root: Path) -> None:
    """`tandem mode=status` finds the token, shows what the engine says, and says what is wrong."""
    fake.why = ["no market data for 6 s"]

    async def what(admin: Admin, ask: Any) -> None:
        def look(*words: str) -> Any:
            return asyncio.to_thread(tandem, tmp_path, root, "mode=status", f"url={admin.url}", *words)

        one, wrong = await asyncio.gather(look("once=true"), look("token=x"))
        assert one.returncode == 0, one.stderr
        for text in ("mine", "live", "not ready: no market data for 6 s", "1,005.75", "fast=10",
                     "position", "5.75", "–"):  # fmt: skip
            assert text in one.stdout, (text, one.stdout)
        assert wrong.returncode == 2 and "not the engine's" in wrong.stderr

    serve(run, fake, what)
    none = tandem(tmp_path, root, "mode=status", "url=http://127.0.0.1:9", "token=x")
    assert none.returncode == 2 and "no engine answers" in none.stderr and "Traceback" not in none.stderr
    lost = tandem(tmp_path, root, "mode=status")
    assert lost.returncode == 2 and "no engine runs that was started from" in lost.stderr


def test_which_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that listens, of those that were started here; the demo's too; which one, where there are several."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TANDEM_TOKEN", raising=False)
    urls, sockets = {}, []
    for name in ("journals/a", "outputs/x-demo/journals/demo", "journals/killed"):
        place = tmp_path / name
        place.mkdir(parents=True)
        sockets.append(socket.create_server(("127.0.0.1", 0)))
        urls[place.name] = f"http://127.0.0.1:{sockets[-1].getsockname()[1]}"
        (place / "admin.url").write_text(urls[place.name] + "\n")
        (place / "admin.token").write_text(f"of {place.name}\n")
    sockets.pop().close()
    assert status.place_of(status.Status(engine="demo")) == (urls["demo"], "of demo")
    assert status.place_of(status.Status(url=urls["a"])) == (urls["a"], "of a")
    with pytest.raises(ConfigError, match=r"several engines run from here.* engine=a url=http\S+, engine=demo"):
        status.place_of(status.Status())
    with pytest.raises(ConfigError, match=r"no engine runs that was started from .*Go to its directory"):
        status.place_of(status.Status(engine="killed"))
    sockets.pop().close()
    assert status.place_of(status.Status()) == (urls["a"], "of a")
    (tmp_path / "journals/a/admin.token").unlink()
    with pytest.raises(ConfigError, match=r"token is missing: that of http"):
        status.place_of(status.Status())
    monkeypatch.setenv("TANDEM_TOKEN", "t")
    assert status.place_of(status.Status()) == (urls["a"], "t")
    assert status.place_of(status.Status(url="http://b:1", token="u")) == ("http://b:1", "u")
    sockets.pop().close()
    assert status.place_of(status.Status()) == (status.URL, "t")


@pytest.mark.parametrize("body", [b"hello", b"[]", b""])
def test_what_is_no_engine(run: Run, body: bytes) -> None:
    async def main() -> None:
        async def serve(reader: Any, writer: Any) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + body if body else b"")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(WireError, match="no engine"):
            await asyncio.to_thread(status.ask, f"http://127.0.0.1:{port}", "t")
        server.close()
        await server.wait_closed()

    run(main())


def test_logs_are_json_and_never_wait(tmp_path: Path) -> None:
    path, log = tmp_path / "logs" / "engine.log", logging.getLogger("tandem.live")
    before = logging.getLogger().handlers[:]
    changing = ["one"]
    with logs.Logs(path):
        log.info("a %s", changing, extra={"engine": "mine"})
        changing[0] = "two"
        log.debug("not of this level")
        logging.getLogger("aiohttp").info("nor this")
        try:
            raise ValueError("why")
        except ValueError:
            log.exception("failed")
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["message"], first["level"], first["engine"]) == ("a ['one']", "info", "mine")
    assert first["ts"].endswith("+00:00") and "ValueError: why" in second["error"] and second["message"] == "failed"
    assert logging.getLogger().handlers == before


def test_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    one, before = logs.Logs(tmp_path / "x.log", room=5), logs.dropped()
    for n in range(9):  # its thread does not run yet
        one._in.handle(logging.makeLogRecord({"msg": str(n)}))
    assert logs.dropped() == before + 4
    with one:
        pass
    assert len((tmp_path / "x.log").read_text().splitlines()) == 5
    with pytest.raises(ConfigError, match="cannot be written"):
        logs.Logs(tmp_path / "x.log" / "y")


def test_a_session_is_a_run_of_kind_live(fake: FakeEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                         new_store: Callable[[Path], str]) -> None:  # fmt: skip
    """Read back from a real store; an outage is a warning."""
    uri = new_store(tmp_path)
    told = track.request(fake, "mine", Tracking(experiment="live tests", uri=uri))
    made = track.log(told)
    assert made is not None
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        run, points = client.get_run(made.run_id), client.get_metric_history(made.run_id, "equity")
    assert run.data.tags["kind"] == "live" and run.data.tags["engine"] == "mine"
    assert run.data.metrics["refused_position"] == 6 and run.data.metrics["total_return"] == pytest.approx(0.00575)
    assert run.data.metrics["latency_p50_us"] == 10 and "latency_p99_us" not in run.data.metrics
    assert run.data.params["1.fast"] == "10" and run.data.params["cash"] == "1000.0"
    assert [p.value for p in points] == [1000.0 - n % 3 for n in range(9)]
    assert run.inputs.dataset_inputs[0].tags[0].value == "live"
    (tmp_path / "file").write_text("x")
    with caplog.at_level(logging.WARNING, "tandem.live"):
        assert track.log({**told, "tracking_uri": f"sqlite:///{tmp_path / 'file' / 'm.db'}"}) is None
    assert "the session is not tracked" in caplog.text


def test_levels_are_those_of_the_kernel() -> None:
    from engine.live import admin, observe

    assert {code: word for word, code in admin.LEVELS.items()} == observe.LEVELS
    assert set(observe.LEVELS) == {codes.LIVE, codes.SIMULATION, codes.OBSERVATION}
