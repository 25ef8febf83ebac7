"""Sweep, best, promotion, paper session, replay, comparison, as a user types it: MLflow, Redis, NATS are real."""

import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from engine import tracking_names as names
from engine.live.demo import Child
from engine.live.servers import Server
from engine.tracking import SETTINGS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
RISK = ("risk.leverage=2", "risk.drawdown=0.2", "risk.breach={drawdown: flatten}")


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[str]:
    """An MLflow server with a store of its own; where it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = tmp_path / "server"
    store.mkdir()
    words = ["--backend-store-uri", f"sqlite:///{store / 'db'}", "--artifacts-destination", str(store / "files"),
             "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip
    with (store / "log").open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "mlflow", "server", *words], stdout=out, stderr=out,
                                   env={**SETTINGS, **os.environ}, start_new_session=True)  # fmt: skip
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (store / "log").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


@pytest.fixture
def env(mlflow: str, root: Path) -> dict[str, str]:
    """What each process finds."""
    return {**os.environ, "PYTHONPATH": str(root), "MLFLOW_TRACKING_URI": mlflow}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a strategy of the user's in a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ideas.py").write_text(
        'from strategies import MarketMaking\n\n\nclass Maker(MarketMaking):\n    """Mine."""\n\n'
        "    def on_bar(self, bar, ctx):\n        ctx.target(self.qty)\n"
    )
    # A day of quotes is no track record: what is tested is years of days that rise, of the instrument that is traded.
    closes = [100 * 1.001**n + math.sin(n) for n in range(700)]
    days = [f"{date(2020, 1, 1) + timedelta(n)},{c},{c + 2},{c - 2},{c},1000" for n, c in enumerate(closes)]
    (tmp_path / "SYNTH.csv").write_text("\n".join(["Date,Open,High,Low,Close,Volume", *days]) + "\n")
    return tmp_path


@pytest.fixture
def tandem(place: Path, env: Mapping[str, str]) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """A command, to its end."""

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-m", "engine.app", *words], cwd=place, env=env, text=True, timeout=400,
                              capture_output=True, check=False)  # fmt: skip

    return run


@pytest.fixture
def start(place: Path, env: Mapping[str, str]) -> Iterator[Callable[..., Child]]:
    """A command that goes on."""
    started: list[Child] = []

    def begin(*words: str) -> Child:
        folder = place / f"logs-{len(started)}"
        folder.mkdir()
        started.append(Child(folder, env, *words))
        return started[-1]

    yield begin
    for one in started:
        one.kill()


def session(start: Callable[..., Child], redis: Server, nats: Server, model: str, seconds: float) -> str:
    """A paper session of a promoted model, from servers to seal; what the engine said."""
    wires = (f"feed.url={redis.url}", "feed.channels=[md.promoted.*]", f"nats.url={nats.url}")
    account = f"execution.account=promoted-{os.getpid()}"
    venue = start("mode=venue", "data=ticks", "execution.address=127.0.0.1:0", account, *wires)
    address = venue.wait_for(r"paper at (\S+:\d+),")[1]
    engine = start("mode=live", f"from={model}", "engine=desk", "trading=live", f"execution.address={address}", account,
                   "admin.port=0", "lease.ttl_s=60", *wires)  # fmt: skip
    engine.wait_for(r"(?m)^Admin +\S+,")
    publisher = start("mode=publish", "data=ticks", f"url={redis.url}", "target=md.promoted", "speed=50", "repeat=0")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for one in (venue, engine, publisher):
            one.check()
        time.sleep(0.2)
    for one in (publisher, engine, venue):
        one.end()
    return engine.said()


def test_from_a_sweep_to_a_paper_session(tandem: Any, start: Callable[..., Child], redis: Server, nats: Server,
                                       mlflow: str, place: Path) -> None:  # fmt: skip
    from mlflow.tracking import MlflowClient

    def tracked(*words: str) -> str:
        done = tandem(*words, "report=false")
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.search(r"Tracked  run (\w{8})", done.stdout)
        assert found, done.stdout
        return found[1]

    assert (
        tandem(
            "mode=import", "sources=SYNTH.csv", "name=days", "overwrite=true", "instruments.tick=0.000001"
        ).returncode
        == 0
    )
    sweep = tracked("-m", "strategy=ideas.py:Maker", "strategy.half_ticks=0.5,1.5", "data=days", *RISK)
    run = tracked("mode=best", f"sweep={sweep}")
    shut = tandem("mode=promote", f"run={run}", "model=maker", "gates.oos_sharpe=99")
    assert shut.returncode == 1 and shut.stdout.count("FAILED") == 1, shut.stdout + shut.stderr
    none = tandem("mode=live", "from=maker@live")
    assert none.returncode == 2 and "Promote a run first: tandem mode=promote run=… model=maker" in none.stderr
    client = MlflowClient(mlflow)
    (known,) = client.search_runs(["1"], f"tags.{names.KIND} = 'lane'")
    (parent,) = client.search_runs(["1"], f"tags.{names.KIND} = 'sweep'")
    (place / "ideas.py").unlink()  # what was tested goes with the bundle
    passed = tandem("mode=promote", f"run={run}", "model=maker")
    assert passed.returncode == 0 and "Trade    tandem mode=live from=maker@live" in passed.stdout, passed
    said = session(start, redis, nats, "maker@live", 8.0)
    assert re.search(r"^Promoted maker@live is maker/1, bundle \w{12}, of run " + run, said, re.MULTILINE), said
    assert "compiling" not in said and "Traceback" not in said
    (journal,) = (place / "journals" / "desk").glob("0*")
    replayed = tandem("mode=replay", f"journal={journal}")
    assert replayed.returncode == 0 and re.match(r"identical: [\d,]+ events, [1-9][\d,]* orders", replayed.stdout)
    compared(client, known.info.run_id, parent.info.run_id)
    spoilt(tandem, place)


def compared(client: Any, tested: str, parent: str) -> None:
    """The session, the run that it trades and its sweep point at each other, and a page lays them side by side."""
    live, run, sweep = (
        client.search_runs(["1"], "tags.kind = 'live'")[0],
        client.get_run(tested),
        client.get_run(parent),
    )
    assert live.data.tags[names.MODEL] == run.data.tags[names.MODEL] == "maker/1"
    assert live.data.tags[names.PROMOTED_RUN] == tested
    assert live.data.tags[names.SWEEP_RUN] == run.data.tags[names.SWEEP_RUN] == parent
    texts = [one.data.tags["mlflow.note.content"] for one in (live, run, sweep)]
    assert f"runs/{tested})" in texts[0] and f"runs/{parent})" in texts[0]
    assert all(f"runs/{live.info.run_id})" in text for text in texts[1:])
    assert f"runs/{tested}) was promoted as [maker/1](#/models/maker/versions/1): gates passed." in texts[2]
    assert all("[compare](#/compare-runs?runs=%5B%22" + live.info.run_id in text for text in texts)
    assert {"total_return", "max_drawdown", "orders", "fills"} <= set(live.data.metrics) & set(run.data.metrics)
    assert {"qty", "limit", "risk.leverage", "strategy"} <= set(live.data.params) & set(run.data.params)
    assert live.data.params["strategy"] == run.data.params["strategy"] == "Maker"


def spoilt(tandem: Any, place: Path) -> None:
    """A bundle that was altered after it was fetched does not trade."""
    (bundle,) = (place / "journals" / "desk" / "bundles").iterdir()
    path = bundle / "recorded" / "source" / "ideas.py"
    path.write_text(path.read_text() + "\n")
    refused = tandem("mode=live", "from=maker@live", "engine=desk")
    assert refused.returncode == 2, refused.stdout
    assert "the bundle of maker/1: recorded/source/ideas.py was altered. Download it again" in refused.stderr
    shutil.rmtree(bundle)
