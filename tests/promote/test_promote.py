"""Promotion on a real MLflow store: what passes is live, byte for byte; what does not says what, and what to do."""

import importlib.util
import py_compile
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from backtest import backtest
from backtest.record import Repeat
from engine import modes_engine, registry
from engine import tracking_names as names
from engine.bundle import Bundle
from engine.config import Risk
from engine.errors import ConfigError, DataError, ImageError, StrategyError, TandemError, TrackingError
from engine.kernel import build, image
from engine.promote import GATES, Again, Case, Ceiling, Gates, Promoted, looser, promote
from engine.store.files import file_hash
from engine.store.synthetic import synthetic_frame
from engine.tracking import track
from engine.tracking_models import Models, Run
from strategies import Momentum
from tests.app.words import BREAKOUT

# Tracking contains the warnings of MLflow, but the client that reads back is MLflow's own.
pytestmark = pytest.mark.filterwarnings("ignore")
GOOD = {names.OOS_SHARPE: 0.8, names.DSR: 0.97}
LIMITS = {"leverage": 1.0, "drawdown": 0.2, "breach": {"drawdown": "flatten"}}


class Desk:
    """A store, data and a strategy of a user's, in files."""

    def __init__(self, place: Path, uri: str) -> None:
        self.place, self.uri = place, uri
        self.data = place / "bars.parquet"
        synthetic_frame(600, seed=28, step_ns=86_400_000_000_000).write_parquet(self.data)
        (place / "wide.py").write_text("TENTH = 0.9\n")
        text = BREAKOUT.replace("0.9", "wide.TENTH").replace("\nfrom engine", "\nimport wide\nfrom engine", 1)
        (place / "ideas.py").write_text(text)
        self.models = Models(self.uri)

    def run(self, strategy: Any, figures: dict[str, float] = GOOD, data: Any = None, experiment: str = "tests",
            **settings: Any) -> str:  # fmt: skip
        """A tracked run with figures of validation; its id."""
        result = backtest(strategy, str(self.data) if data is None else data, **{**LIMITS, **settings})
        made = result.track(tracking_uri=self.uri, experiment=experiment)
        for key, value in figures.items():
            self.models._do("log_metric", made.run_id, key, value)
        return made.run_id

    def mine(self) -> Any:
        """The user's strategy."""
        return registry.find(f"{self.place / 'ideas.py'}:Breakout")(length=5, qty=100.0)

    def artifacts(self, run: str) -> Path:
        """Where the store keeps a run's files."""
        return self.place / "mlartifacts" / "tests" / run / "artifacts"

    def promote(self, run: str, **given: Any) -> Promoted:
        """Promote it as the command line does."""
        named = {"model": "m", "alias": "live", "gates": Gates(), "ceiling": Ceiling(drawdown=0.2), **given}
        return promote(self.models, run, Repeat(registry.find), modes_engine.programs(), registry.find, **named)

    def bundle(self, version: Any, to: Path) -> Path:
        """A version's bundle."""
        self.models.fetch_version(version, to)
        return to


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, new_store: Any) -> Desk:
    """One for all tests: creating a store takes seconds."""
    place = tmp_path_factory.mktemp("desk")
    return Desk(place, new_store(place))


@pytest.fixture(scope="module")
def promoted(desk: Desk) -> Promoted:
    """The user's strategy, promoted; the files that it came from are gone."""
    run = desk.run(desk.mine())
    for name in ("ideas.py", "wide.py"):
        (desk.place / name).rename(desk.place / f"{name}.gone")
    try:
        return desk.promote(run[:8], model="breakout")
    finally:
        for name in ("ideas.py", "wide.py"):
            (desk.place / f"{name}.gone").rename(desk.place / name)


@pytest.fixture
def bundle(desk: Desk, promoted: Promoted, tmp_path: Path) -> Path:
    """Its bundle, to be spoilt."""
    return desk.bundle(promoted.version, tmp_path / "bundle")


def opened(folder: Path, promoted: Promoted) -> Bundle:
    return Bundle.open(folder, promoted.version.bundle, "the bundle", modes_engine.programs(), registry.find)


def test_what_passes_is_live(desk: Desk, promoted: Promoted, bundle: Path) -> None:
    assert promoted.moved, str(promoted)
    assert list(promoted.outcomes) == list(GATES)
    assert "passed   out of sample    0.8 (wanted: at least 0)" in str(promoted)
    assert "breakout@live is version 1 now" in str(promoted)
    assert desk.models.resolve("breakout@live") == replace(promoted.version, gates="passed")
    assert desk.models.resolve("breakout/1") == replace(promoted.version, gates="passed")
    run = desk.models.run(promoted.version.run_id)
    assert run.tags[names.MODEL] == "breakout/1"
    assert "Promoted as [breakout/1](#/models/breakout/versions/1)" in run.tags["mlflow.note.content"]
    found = opened(bundle, promoted)
    assert found.words["run"] == run.run_id and found.words["metrics"][names.OOS_SHARPE] == 0.8
    assert found.recorded.words["data"]["digest"] and found.recorded.words["risk"]["drawdown"] == 0.2
    assert {p.name for p in (bundle / "recorded" / "source").iterdir()} == {"ideas.py", "wide.py"}


def test_the_bundle_gives_the_kernel_that_was_tested(desk: Desk, promoted: Promoted, bundle: Path) -> None:
    """Its plan is that of the run, its images are those of the bundle, and they load where the store is empty."""
    found = opened(bundle, promoted)
    plan = found.plan(registry.find)
    assert plan.images == tuple(found.words["strategies"]) and plan.limits["drawdown"] == 0.2
    assert plan.strategies[0].values == desk.mine().values
    assert Path(plan.names[0].rpartition(":")[0]).is_relative_to(bundle)
    header, kept = plan.header(("session", {})), found.recorded.plan
    assert all(header[key] == kept[key] for key in ("instruments", "rows", "limits", "breach", "sizes", "cash"))
    for digest in (*found.words["programs"].values(), *plan.images):
        loaded = image.load(digest)
        assert loaded and (bundle / "images" / loaded.manifest["object"]).is_file()
        assert file_hash(bundle / "images" / loaded.manifest["object"]) == loaded.manifest["sha256"]


def test_the_same_again_is_the_same_version(desk: Desk, promoted: Promoted) -> None:
    again = desk.promote(promoted.version.run_id, model="breakout")
    assert again.version.version == promoted.version.version and again.moved


@pytest.mark.parametrize(("figures", "said"), [
    ({}, r"FAILED   out of sample    missing \(wanted: at least 0\)\n +the run has no figure oos_sharpe: test it on"),
    ({names.OOS_SHARPE: -0.1}, r"sample    -0\.1 \(wanted[^F]*FAILED   deflated Sharpe  0\.\d+ \(wanted: "),
    (GOOD, r"FAILED   deflated Sharpe  0\.\d+ after \d+ lanes of today, 0\.97 when it ran, after \d+ \("),
])  # fmt: skip
def test_a_shut_gate_leaves_the_alias(desk: Desk, promoted: Promoted, figures: dict[str, float], said: str) -> None:
    found = desk.promote(desk.run(Momentum(fast=3, slow=9), figures), model="breakout")
    assert not found.moved and re.search(said, str(found)), str(found)
    assert "Stays    breakout@live is what it was" in str(found)
    assert desk.models.resolve("breakout@live").version == promoted.version.version
    assert desk.models.resolve(f"breakout/{found.version.version}").gates == "failed"


def test_the_figure_out_of_sample_may_be_the_sweep_s(desk: Desk) -> None:
    """How the choice fares is a figure of the sweep; how likely a lane is luck is its own."""
    result = backtest(Momentum(fast=3, slow=9), str(desk.data), **LIMITS)
    told = {"tracking_uri": desk.uri, "experiment": "tests"}
    sweep = result.track(**told, tags={names.KIND: names.SWEEP}).run_id
    for key, value in GOOD.items():
        desk.models._do("log_metric", sweep, key, value)
    for tag in (names.SWEEP_RUN, "mlflow.parentRunId"):
        found = desk.promote(result.track(**told, tags={tag: sweep, names.RANK: "1"}).run_id)
        assert found.outcomes["out of sample"].passed
        assert found.outcomes["out of sample"].value == f"0.8, of its sweep {sweep[:8]}"
        assert not found.outcomes["deflated Sharpe"].passed and not found.moved
        assert f"promoted as {found.version.link}" in desk.models.run(sweep).tags["mlflow.note.content"]

    for rank in ({names.RANK: "2"}, {}):  # what was tested is the procedure, which takes the first
        shut = desk.promote(result.track(**told, tags={names.SWEEP_RUN: sweep, **rank}).run_id).outcomes[
            "out of sample"
        ]
        assert not shut.passed and shut.value == f"rank {rank.get(names.RANK, 'unknown')} of its sweep"
        assert f"tandem mode=best sweep={sweep[:8]} rank=1" in shut.cure


def test_what_was_tried_since_counts(desk: Desk) -> None:
    run, gates = desk.run(desk.mine(), experiment="since"), Gates(deflated_sharpe=0.9)
    assert desk.promote(run, gates=gates).outcomes["deflated Sharpe"].passed
    words = {"params": {}, "curve": ([], []), "start_equity": 1.0, "dataset": ("d", "0"), "tracking_uri": desk.uri}
    figures = {names.LANES: 500, names.SHARPE_MEAN: 0.0, names.SHARPE_VAR: 1.0}
    for experiment, passes in (("another", True), ("since", False)):
        track(experiment=experiment, name="more", metrics=figures, tags={names.KIND: "sweep"}, **words)
        found = desk.promote(run, gates=gates).outcomes["deflated Sharpe"]
        assert found.passed == passes, found
    assert re.match(r"0\.\d+ after 501 lanes of today, 0\.97 when it ran, after 1$", found.value)
    assert "of 501 lanes tried in experiment since" in found.cure


def test_a_short_record_does_not_pass(desk: Desk) -> None:
    """However high its Sharpe ratio is: there is a least number of periods for all, and one for each ratio."""
    found = desk.promote(desk.run(desk.mine(), end="2020-03-01"))
    assert found.outcomes["track record"].value == "58 periods" and not found.moved
    assert found.outcomes["track record"].wanted.startswith("at least ")
    whole = desk.promote(desk.run(desk.mine()), gates=Gates(periods=600)).outcomes["track record"]
    assert (whole.passed, whole.value, whole.wanted) == (False, "599 periods", "at least 600")
    few = desk.promote(desk.run(desk.mine()), gates=Gates(periods=2)).outcomes["track record"]
    assert few.passed and few.wanted == "at least 352"  # the minimum track record length of its Sharpe ratio


def test_data_that_changed(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    shutil.copyfile(desk.data, path)
    run = desk.run(Momentum(fast=3, slow=9), data=str(path))
    pl.read_parquet(path).with_columns(pl.col("close") * 1.0000001, high=pl.col("high") * 1.01).write_parquet(path)
    found = desk.promote(run)
    assert not found.outcomes["data"].passed and "bars.parquet has changed since" in found.outcomes["data"].cure
    assert not found.moved


def test_another_outcome_than_the_run_s(desk: Desk) -> None:
    run = desk.run(Momentum(fast=3, slow=9))
    desk.models._do("set_tag", run, names.ORDERS_SHA256, "0" * 64)
    found = desk.promote(run)
    assert not found.outcomes["re-run"].passed and "orders differ" in found.outcomes["re-run"].cure


def test_looser_limits_than_the_ceiling(desk: Desk) -> None:
    found = desk.promote(desk.run(Momentum(fast=3, slow=9), leverage=2.0), ceiling=Ceiling(leverage=1.5, short=False))
    assert found.outcomes["risk limits"].value == "risk.leverage=2.0, risk.short=True"
    assert "run it again with risk.leverage=1.5 risk.short=False" in found.outcomes["risk limits"].cure


@pytest.mark.parametrize(("mine", "most", "keys"), [
    ({}, {}, []), ({"leverage": 2.0}, {"leverage": 2.0}, []), ({"rate": 5.0}, {"rate": 4.0}, ["rate"]),
    ({}, {"drawdown": 0.2}, ["drawdown"]), ({"drawdown": 0.1}, {"drawdown": 0.2}, []),
    ({"self_match": False}, {}, ["self_match"]), ({"netting": True}, {}, ["netting"]),
    ({}, {"allow": ["A"]}, ["allow"]),
    ({"allow": ["A"]}, {"allow": ["A", "B"]}, []), ({"block": ["A"]}, {"block": ["A", "B"]}, ["block"]),
    ({"breach": {"drawdown": "halt"}}, {"breach": {"drawdown": "flatten"}}, []),
    ({"breach": {"drawdown": "cancel"}}, {"breach": {"drawdown": "flatten"}}, ["breach"]),
    ({}, {"breach": {"drawdown": "flatten"}}, ["breach"]),
])  # fmt: skip
def test_what_is_looser(mine: dict[str, Any], most: dict[str, Any], keys: list[str]) -> None:
    assert [key for key, _, _ in looser(Risk(**mine), Risk(**most))] == keys


def test_nothing_passes_by_absence() -> None:
    """A run without figures, orders or a fall from a peak opens only the gates that were tested."""
    recorded: Any = type("R", (), {"words": {"data": {"digest": "d", "source": "s"}, "risk": {}, "orders": {"count": 0},
                                             "fills": {"count": 0}}})()  # fmt: skip
    other = {"orders": {"count": 1, "sha256": "1"}, "fills": {"count": 1, "sha256": "1"}}
    recorded.words |= {key: {"count": 0, "sha256": "0"} for key in other}
    again = Again("another", other, {}, "", 0, 100, ("backtest", {}))
    case = Case(Run("r", "1", "n", "FINISHED", {}, {}), recorded, again, Gates(), Ceiling(leverage=0.5))
    assert not any(gate(case).passed for gate in GATES.values())
    assert all(gate(case).cure for gate in GATES.values())
    ahead = GATES["causality"](replace(case, again=replace(again, causality="breaks law 7", sent=5)))
    assert not ahead.passed and ahead.value == "breaks law 7" and "mode=check" in ahead.cure


def test_runs_that_cannot_be_promoted(desk: Desk, tmp_path: Path) -> None:
    def gone(run: str) -> None:
        shutil.rmtree(desk.artifacts(run) / "recorded")

    def altered(run: str) -> None:
        (desk.artifacts(run) / "recorded" / "source" / "ideas.py").write_text("pass\n")

    def resealed(run: str) -> None:
        path = desk.artifacts(run) / "recorded" / "seal.json"
        path.write_text(path.read_text().replace('"leverage": 1.0', '"leverage": 9.0'))

    def source_deleted(run: str) -> None:
        (desk.artifacts(run) / "recorded" / "source" / "ideas.py").unlink()

    cases: list[tuple[type[TandemError], str, Callable[[str], None]]] = [
        (TrackingError, "has no files in recorded; they were deleted", gone),
        (DataError, r"source/ideas\.py was altered\. Run it again", altered),
        (DataError, r"was altered: its seal\.json has the hash", resealed),
        (DataError, r"source/ideas\.py is missing\. Run it again", source_deleted),
    ]
    for kind, said, spoil in cases:
        run = desk.run(desk.mine(), {})
        spoil(run)
        with pytest.raises(kind, match=said):
            desk.promote(run)
    with pytest.raises(TrackingError, match="no run begins with 00000000; give the id"):
        desk.promote("00000000")
    with pytest.raises(TrackingError, match="is no id of a run"):
        desk.promote("")
    frame = desk.run(Momentum(fast=3, slow=9), data=synthetic_frame(50, seed=1))
    with pytest.raises(DataError, match="ran on a frame in memory"):
        desk.promote(frame)
    plain = desk.run(Momentum(fast=3, slow=9), compiled=False)
    with pytest.raises(ImageError, match="ran in plain Python"):
        desk.promote(plain)
    spec = importlib.util.spec_from_loader("no_file", None)
    assert spec
    cell = type("Cell", (Momentum,), {"__module__": "no_file", "__annotations__": {}})
    with pytest.raises(StrategyError, match="Cell was defined in a notebook"):
        desk.promote(desk.run(cell(fast=3, slow=9)))
    old = desk.models._do("create_run", "1", run_name="old").info.run_id
    for status, said in (("FINISHED", "recorded nothing"), ("FAILED", "is FAILED")):
        desk.models._do("set_terminated", old, status)
        with pytest.raises(TrackingError, match=said):
            desk.promote(old)


@pytest.mark.parametrize("name", ["seal.json", "recorded/seal.json", "recorded/source/ideas.py", "images/*.o",
                                  "images/*.json"])  # fmt: skip
@pytest.mark.parametrize("how", ["altered", "missing"])
def test_a_bundle_that_differs_is_refused(promoted: Promoted, bundle: Path, name: str, how: str) -> None:
    path = sorted(bundle.glob(name))[0]
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    wanted = "seal.json" if name == "seal.json" else path.relative_to(bundle).as_posix()
    with pytest.raises(DataError, match=f"{wanted}.*Download it again, or promote its run again"):
        opened(bundle, promoted)


def test_a_file_too_many(promoted: Promoted, bundle: Path) -> None:
    (bundle / "recorded" / "source" / "numpy.py").write_text("")
    with pytest.raises(DataError, match=r"numpy\.py does not belong to it"):
        opened(bundle, promoted)


def test_what_python_compiled_beside_sources_is_not_run(promoted: Promoted, bundle: Path) -> None:
    """No seal covers it, and Python takes it in place of the source, without a look at that if it says so."""
    source = bundle / "recorded" / "source" / "ideas.py"
    text = source.read_text()
    source.write_text("raise SystemExit('not what was sealed')\n")
    py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    source.write_text(text)
    assert opened(bundle, promoted).recorded.names()


def test_shut_gates_do_not_trade(desk: Desk, promoted: Promoted, tmp_path: Path, monkeypatch: Any) -> None:
    """By its number, or by an alias that somebody moved."""
    monkeypatch.setattr(build, "may_compile", True)  # put back afterwards
    shut = desk.promote(desk.run(Momentum(fast=3, slow=9), {}), model="breakout").version
    desk.models._do("set_registered_model_alias", "breakout", "moved", shut.version)
    for wanted in (str(shut), "breakout@moved"):
        live = modes_engine.Live.of({"from": wanted, "tracking": {"uri": desk.uri}})
        with pytest.raises(TrackingError, match=rf"{shut} is no model to trade: its gates are failed"):
            modes_engine.promoted_plan(live, tmp_path)
    live = modes_engine.Live.of({"from": str(promoted.version), "tracking": {"uri": desk.uri}})
    assert modes_engine.promoted_plan(live, tmp_path)[1].version == promoted.version.version


def test_another_processor_version_or_kernel(promoted: Promoted, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = image.platform_words()
    for at, other, said in ((5, "z80", "another processor: .* there, z80 here"), (1, "9.9", "numba: .*9.9 here"),
                            (6, f"{words[6]},+wings", r"features of the processor: \+wings differ")):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(image, "platform_words", lambda at=at, other=other: (*words[:at], other, *words[at + 1 :]))
            with pytest.raises(ImageError, match=said):
                opened(bundle, promoted)
    with monkeypatch.context() as patch:
        patch.setattr(image, "kernel_words", lambda: (*words, "edited"))
        with pytest.raises(ImageError, match=r"built with another kernel: its program session is \w+, that of this"):
            opened(bundle, promoted)


def test_a_strategy_of_a_package_that_was_edited(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = desk.promote(desk.run(Momentum(fast=3, slow=9)))
    folder = desk.bundle(found.version, tmp_path / "b")
    assert opened(folder, found).recorded.names() == ["strategies.momentum:Momentum"]
    plain = build.handlers_digest
    monkeypatch.setattr(build, "handlers_digest", lambda strategy: plain(strategy)[:-1] + "?")
    with pytest.raises(ImageError, match=r"strategies\.momentum:Momentum is not what was tested: its image is"):
        opened(folder, found)


def test_models_that_are_not_there(desk: Desk) -> None:
    model = desk.promote(desk.run(Momentum(fast=3, slow=9))).version.name
    for wanted, said in (("nobody@live", "Promote a run first"), (f"{model}/99", "Promote a run first"),
                         (f"{model}@nope", r"alias nope not found\. Promote a run first"),
                         ("breakout", "names no model; write from=momentum@live")):  # fmt: skip
        with pytest.raises(TrackingError, match=said) as told:
            desk.models.resolve(wanted)
        assert "writable" not in str(told.value)
    with pytest.raises(TrackingError, match="a name for a model"):
        desk.promote(desk.run(Momentum(fast=3, slow=9)), model="a/b")


def test_what_a_model_brings_is_not_given_beside_it() -> None:
    from engine.app import compose
    from engine.modes_engine import Live

    for word in ("strategy.fast=3", "risk=cautious", "++risk.leverage=3", "data=ticks", "instruments=[A]"):
        with pytest.raises(ConfigError, match=r"from=… brings strategy, data, instruments, fees, risk as they were"):
            compose("live", Live, ["from=m@live", word])
    assert compose("live", Live, ["from=m@live", "cash=5"])[0]["from"] == "m@live"
    assert Live.of({"from": "m@live"}).from_ == "m@live"
