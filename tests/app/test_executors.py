"""Sweeps on other machines: what leaves this one, and a Ray cluster of two nodes of which one is killed.

Ray itself (80 MB) is in no environment of ours; the slow test lays its own.
"""

import json
import os
import pickle
import re
import secrets
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from backtest import sweep as sweeps
from backtest.run import prepare
from backtest.sampling import Axis, Table
from backtest.sweep import Objective, Structure, Sweep
from backtest.work import Shard, Work
from engine import registry
from engine.config import VenueModel
from engine.errors import ClusterError, ConfigError, DataError
from engine.executors import Executor, pack
from engine.kernel.strategy import Strategy, param
from strategies import Momentum
from tests.app.test_sweep import SHORT
from tests.app.words import Said

Tandem = Callable[..., Said]
IDEAS = (
    "import helping_hand\nfrom engine.kernel.strategy import Strategy, param\n\n\n"
    "class Follows(Strategy):\n    n: int = param(1)\n    qty: float = param(1.0)\n    last: float\n\n"
    "    def on_bar(self, bar, ctx):\n"
    "        ctx.target(helping_hand.half(self.qty * self.n) if bar.close > self.last else 0.0)\n"
    "        self.last = bar.close\n"
)


class Elsewhere:
    """What any executor on other machines does: pickles, and answers in its own order."""

    def map(self, work: Work, shards: Iterable[Shard]) -> Iterator[tuple[Shard, Table]]:
        copy = pickle.loads(pickle.dumps(work))
        yield from reversed([(shard, copy(shard)) for shard in shards])


def sweep(**more: Any) -> Sweep:
    axes = [Axis("strategy.fast", (5, 10, 20)), Axis("strategy.slow", range(30, 60)), Axis("venue.taker_bps", (0, 5))]
    structure = Structure({}, Momentum, {}, lambda s: prepare(s, "equities", end="2002-01-01"), {}, pack=pack)
    return Sweep(axes, [structure], [Objective.of("sharpe")], **more)


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_the_launchers_of_hydra_run_shards(launcher: str, tandem: Tandem, place: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.setattr(sweeps, "LANES", 8)
    words = (*SHORT, "strategy.fast=range(5,20)", "strategy.slow=40,60", "sweep.split=none")
    assert tandem(*words).code == 0
    said = tandem(*words, f"hydra/launcher={launcher}", "name=launched")
    assert said.code == 0 and said.err == "" and sorted(p.name for p in place.iterdir()) == ["ideas.py", "outputs"]
    tables = [pl.read_parquet(path) for path in sorted(place.glob("outputs/*/lanes.parquet"))]
    assert tables[0].height == 30 and tables[0].equals(tables[1])


def test_a_launcher_that_is_not_there(tandem: Tandem) -> None:
    said = tandem(*SHORT, "strategy.fast=5,10", "hydra/launcher=moon")
    assert said.code == 2 and "Could not find 'hydra/launcher/moon' Available options" in said.err
    assert "name the launcher, too" in tandem(*SHORT, "strategy.fast=5,10", "hydra.launcher.n_jobs=2").err


def test_results_are_the_same_whoever_runs_the_shards(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "LANES", 32)
    heard: list[float] = []
    here = sweep().run()
    there = sweep(executor=Elsewhere(), store=tmp_path / "kept", told=heard.append).run()
    assert there.equals(here) and there.columns == here.columns
    assert sum(heard) == pytest.approx(180) and len(list((tmp_path / "kept").iterdir())) == 6
    resumed = sweep(store=tmp_path / "kept")
    assert resumed.run().equals(here) and resumed.kept == 180


def test_a_file_of_a_user_comes_along_with_its_helpers(place: Path, tmp_path: Path, root: Path) -> None:
    """Another process, another directory, another cache: nothing but the pickle."""
    (place / "mine").mkdir()
    (place / "mine/ideas_away.py").write_text(IDEAS)
    (place / "mine/helping_hand.py").write_text("def half(x):\n    return x / 2\n")
    cls = registry.find("mine/ideas_away.py:Follows")
    work = Work(prepare(cls(), "equities", end="2002-01-01"), pack)
    shard = Shard(0, 0, {"strategy.n": np.arange(1, 9)})
    (tmp_path / "work").write_bytes(pickle.dumps((work, shard)))
    (tmp_path / "away").mkdir()
    for path in (place / "mine").glob("*.py"):
        path.unlink()
    script = ("import pickle, sys; work, shard = pickle.load(open('../work', 'rb')); import engine.kernel.build as b; "
              "b.may_compile = False; pickle.dump(work(shard), open('found', 'wb')); "
              "assert 'numba' not in sys.modules")  # fmt: skip
    env = {"PYTHONPATH": str(root), "TANDEM_CACHE": str(tmp_path / "cache"), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "away", env=env, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    found = pickle.loads((tmp_path / "away/found").read_bytes())
    here = work(shard)
    assert found.keys() == here.keys() and all(found[k].tobytes() == here[k].tobytes() for k in here)


def test_what_cannot_leave_or_arrives_altered(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cell(Strategy):
        qty: float = param(1.0)

        def on_bar(self, bar: Any, ctx: Any) -> None:
            ctx.target(self.qty)

    with pytest.raises(ConfigError, match=r"Cell is written in a notebook cell.*%%writefile"):
        pickle.dumps(Work(prepare(Cell(), "equities", end="2001-01-01"), pack))
    with pytest.raises(ClusterError, match="cannot leave this process"):
        pickle.dumps(Work(prepare(Momentum(), "equities", end="2001-01-01")))
    sent = pickle.dumps(Work(prepare(Momentum(), "equities", end="2001-01-01"), pack))
    with monkeypatch.context() as patched, pytest.raises(ClusterError, match=r"programs.*instead of"):
        patched.setattr("backtest.work.programs", lambda: ("another",))
        pickle.loads(sent)
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(
        Work(prepare(Momentum(), "equities", end="2001-01-01"), pack), 5, buffer_callback=buffers.append
    )
    (events,) = (np.frombuffer(b.raw(), np.uint8).copy() for b in buffers)
    events[100] ^= 1
    with pytest.raises(DataError, match="did not arrive as they were sent"):
        pickle.loads(head, buffers=[events])


def test_latencies_are_those_of_the_same_file(place: Path, tmp_path: Path) -> None:
    table = tmp_path / "latency.csv"
    table.write_text("ts,order_ns,report_ns,feed_ns\n2000-01-01,1000,1000,0\n")
    prepared = prepare(Momentum(), "equities", end="2001-01-01", venue=VenueModel(latency=str(table)))
    sent = pickle.dumps(Work(prepared, pack))
    table.write_text("ts,order_ns,report_ns,feed_ns\n2000-01-01,2000,1000,0\n")
    with pytest.raises(DataError, match="another one here"):
        pickle.loads(sent)


WRONG = [
    (("executor=rye",), r"Unknown choice of executor 'rye'. Did you mean ray\? There are local, ray"),
    (("executor=ray",), "executor=ray needs executor.address=host:6379"),
    (("executor.adress=x:1",), "Did you mean executor.address"),
    (("executor.address=x:1",), "executor.address is for a cluster"),
    (("executor=ray", "executor.address=auto", "executor.attempts=0"), "executor.attempts must be >= 1"),
    (("executor=ray", "executor.address=a:1,b:1"), "executor.address belongs to the whole sweep"),
    (("executor=ray", "executor.address=ray://head:10001"), "this machine must be a node"),
    (("executor=ray", "executor.address=127.0.0.1:6379"), r"pip install 'tandem\[ray\]'"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(w) for w, _ in WRONG])
def test_bad_input(tandem: Tandem, words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    said = tandem(*SHORT, "strategy.fast=2,3", *words)
    assert said.code == 2 and re.search(message, said.err), said.err


def test_a_cluster_without_tokens_is_refused(tandem: Tandem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    said = tandem(*SHORT, "strategy.fast=2,3", "executor=ray", "executor.address=auto")
    assert said.code == 2 and "Start all nodes with RAY_AUTH_MODE=token" in said.err
    assert Executor().kind == "local"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """An interpreter with Ray on top of this environment, laid once and kept."""
    where = root / ".pytest_cache/tandem/ray"
    pins = [line for line in (root / "constraints.txt").read_text().splitlines() if line.startswith("ray==")]
    made = where / "bin/python"
    if not (where / "pins.txt").is_file() or (where / "pins.txt").read_text() != pins[0]:
        venv.create(where, clear=True, with_pip=True)
        (own,) = where.glob("lib/python*/site-packages")
        (own / "base.pth").write_text(sysconfig.get_paths()["purelib"])
        pip = [str(made), "-m", "pip", "install", "-q", "--disable-pip-version-check", pins[0]]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"Ray cannot be installed here: {done.stderr[-300:]}")
        (where / "pins.txt").write_text(pins[0])
    return made


@pytest.mark.slow
def test_two_nodes_of_ray_and_one_is_killed(place: Path, root: Path, python: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(root), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
           "RAY_USAGE_STATS_ENABLED": "0"}  # fmt: skip
    done = subprocess.run([python, root / "tests/app/ray_nodes.py"], cwd=place, env=env, capture_output=True, text=True)
    assert (place / "found.json").exists(), done.stderr[-3000:]
    found = json.loads((place / "found.json").read_text())
    assert found["killed"] == {"same": True, "lanes": 180, "lost": [False, True], "heard": 180}
    assert "is left out: its worker died" in done.stderr
    code, _, said = found["token"]
    assert code == 2 and "token must be the cluster's" in said
    code, left, said = found["stopped"]
    assert code == 130 and left >= 3 and "the same command goes on with them" in said
    code, more, said = found["dead"]
    assert code == 2 and more >= 6 and "is dead: its head has not answered" in said
    assert "the same command goes on with them" in said
