"""The grammar of the command line: what it runs, what it writes, and that it is the same program as the Python API."""

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from backtest import backtest
from backtest.run import Prepared, prepare
from engine import registry
from engine.app import main
from engine.config import CONF, Risk, Settings, VenueModel, keys, options
from engine.errors import TrackingError
from engine.modes import MODES, Backtest
from engine.store import open_tape
from engine.store.importer import import_bars
from engine.store.ticks_import import import_ticks
from strategies import BUILT_IN, Momentum
from tests.app.words import QUICK, Said

Tandem = Callable[..., Said]


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every result of a run, as the command line got it."""
    found: list[Any] = []
    run = Prepared.run

    def keep(self: Prepared, *args: Any, **kwargs: Any) -> Any:
        found.append(run(self, *args, **kwargs))
        return found[-1]

    monkeypatch.setattr(Prepared, "run", keep)
    return found


def same(a: Any, b: Any) -> bool:
    """Whether two results hold the same bytes and the same settings."""
    equal = all(np.array_equal(a.raw[k].view("u1"), b.raw[k].view("u1")) for k in a.raw)
    return equal and a.identity["config"] == b.identity["config"] and a.config == b.config


def test_the_command_line_is_the_python_api(tandem: Tandem, results: list[Any]) -> None:
    words = ("strategy.fast=20", "strategy.qty=50", "strategy.short=true", "start=2003-01-01", "end=2009-06-30")
    said = tandem("mode=backtest", "strategy=momentum", "data=equities", *words, "instruments=[AAPL,IBM]",
                  "venue.taker_bps=5", "risk.leverage=2", "cash=50000", *QUICK)  # fmt: skip
    assert said.code == 0 and said.err == ""
    by_hand = backtest(Momentum(fast=20, slow=50, qty=50, short=True), "equities", start="2003-01-01", end="2009-06-30",
                       instruments=["AAPL", "IBM"], taker_bps=5, leverage=2, cash=50_000)  # fmt: skip
    assert same(results[0], by_hand)
    assert len(by_hand.raw["reports"]) > 50
    assert said.out == by_hand.summary() + "\n"


def test_the_defaults_are_those_of_the_python_api(tandem: Tandem, results: list[Any]) -> None:
    assert tandem("mode=backtest", *QUICK).code == 0
    assert same(results[0], backtest(Momentum(qty=100), "equities"))


def test_settings_make_a_difference(results: list[Any], tandem: Tandem) -> None:
    """The comparison above could not fail if it did not look."""
    for extra in ("strategy.qty=101", "venue.slippage_bps=1"):
        tandem("mode=backtest", extra, *QUICK)
    assert not any(same(a, b) for a, b in itertools.combinations(results, 2))


def test_artifacts(tandem: Tandem, place: Path) -> None:
    said = tandem("mode=backtest", "track=false", "end=2003-01-01", "name=my run")
    assert said.code == 0 and said.err == ""
    (where,) = (place / "outputs").iterdir()
    assert where.name.endswith("Z-my-run")
    assert {p.name for p in where.iterdir()} == {
        "config.json", "config.yaml", "metrics.json", "report.html", "report.png", "orders.parquet", "fills.parquet",
        "trades.parquet", "positions.parquet", "equity.parquet", "refusals.parquet", "recorded",
    }  # fmt: skip
    assert str(where.relative_to(place) / "report.html") in said.out
    assert pl.read_parquet(where / "fills.parquet").height == json.loads((where / "metrics.json").read_text())["fills"]
    config = yaml.safe_load((where / "config.yaml").read_text())
    assert config["strategy"] == {"name": "momentum", "fast": 10, "slow": 50, "qty": 100.0, "short": False}
    assert config["end"] == "2003-01-01" and config["risk"]["leverage"] == 1.0


def test_runs_of_the_same_moment_have_directories_of_their_own(tandem: Tandem, place: Path) -> None:
    for _ in range(2):
        assert tandem("mode=backtest", "track=false", "end=2001-01-01").code == 0
    assert len(list((place / "outputs").iterdir())) == 2


@pytest.mark.parametrize("strategy", ["ideas.py", "ideas.py:Breakout", "./ideas.py:Breakout"])
def test_a_strategy_of_a_file(tandem: Tandem, results: list[Any], strategy: str) -> None:
    said = tandem("mode=backtest", f"strategy={strategy}", "strategy.length=40", *QUICK)
    assert said.code == 0 and said.out.startswith("Breakout length=40 qty=10.0 on equities")
    assert len(results[0].raw["orders"]) > 10
    assert tandem("mode=backtest", f"strategy.path={strategy}", "strategy.length=40", *QUICK).out == said.out


def test_an_edited_helper_beside_the_file_takes_effect(process: Any, place: Path) -> None:
    helper = "def limit(high: float) -> float:\n    return {} * high\n"
    text = (place / "ideas.py").read_text().replace("0.9 * high", "limit(high)")
    (place / "ideas.py").write_text(text.replace("from engine", "from besides import limit\n\nfrom engine", 1))
    outputs = []
    for factor in (0.9, 0.5):
        (place / "besides.py").write_text(helper.format(factor))
        with process("mode=backtest", "strategy=ideas.py", *QUICK) as running:
            out, err = running.communicate(timeout=120)
        assert running.returncode == 0, err
        outputs.append(out)
    assert outputs[0] != outputs[1]


def test_a_plugin(tandem: Tandem, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """A package that names its class under `tandem.strategies` is found by that name."""
    (place / "tandem_vendor.py").write_text((place / "ideas.py").read_text())
    (place / "vendor-1.dist-info").mkdir()
    (place / "vendor-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor\nVersion: 1\n")
    points = "[tandem.strategies]\nbreakout = tandem_vendor:Breakout\nlost = tandem_vendor:Nothing\n"
    (place / "vendor-1.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(place))
    said = tandem("mode=backtest", "strategy=breakout", "strategy.length=30", *QUICK)
    assert said.code == 0 and said.out.startswith("Breakout length=30"), said
    assert tandem("mode=backtest", "strategy=brekout", *QUICK).err.count("breakout") == 2
    lost = tandem("mode=backtest", "strategy=lost", *QUICK)
    assert lost.code == 2 and "does not load" in lost.err
    assert "breakout: Long from a new high" in tandem("--help").out


def test_data_of_a_file(tandem: Tandem, results: list[Any], place: Path) -> None:
    days = pl.date_range(pl.date(2020, 1, 1), pl.date(2020, 12, 31), eager=True)
    close = np.round(100 + np.cumsum(np.random.default_rng(5).normal(size=len(days))), 2)
    bars = {"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": close * 0 + 1e6}
    frame = pl.DataFrame({"date": days, **bars})
    frame.write_csv(place / "my bars.csv")
    frame.write_parquet(place / "bars.parquet")
    for source in ("my bars.csv", "bars.parquet"):
        said = tandem("mode=backtest", f"data={source}", "strategy.slow=20", "data.lot=0.5", *QUICK)
        assert said.code == 0, said
    assert len(results[0].raw["orders"]) > 2
    assert np.array_equal(results[0].raw["orders"], results[1].raw["orders"])
    assert results[0].lot[0] == 0.5


def test_import(tandem: Tandem, results: list[Any], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_DATA", str(place / "sets"))
    rows = ["day;clock;o;h;l;c;v", *(f"{d:02d}.01.2024;16:00;{d};{d + 1};{d - 0.5};{d + 0.5};9" for d in range(2, 30))]
    (place / "X.csv").write_text("\n".join(rows))
    words = ("sources=X.csv", "columns={ts: [day, clock], open: o, high: h, low: l, close: c, volume: v}",
             "separator=;", "time_format='%d.%m.%Y %H:%M'", "timezone=America/New_York", "label=end", "interval=1d",
             "instruments.tick=0.5", "max_gap=9d")  # fmt: skip
    said = tandem("mode=import", "name=mine", *words)
    assert said.code == 0 and "data=mine" in said.out, said
    assert "2024-01-02" in str(pl.read_parquet(next((place / "sets/mine").rglob("*.parquet")))["ts"][0])
    said = tandem("mode=backtest", "data=mine", "strategy.fast=2", "strategy.slow=3", *QUICK)
    assert said.code == 0 and "on mine (X)" in said.out, said
    assert results[0].tape.instruments[0].tick == 0.5
    again = tandem("mode=import", "name=mine", *words)
    assert again.code == 2 and "already exists" in again.err
    assert tandem("mode=import", "name=mine", "overwrite=true", *words).code == 0
    said = tandem("mode=backtest", "data=mien", *QUICK)
    assert said.code == 2 and "Did you mean mine?" in said.err


def test_import_of_ticks(tandem: Tandem, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_DATA", str(place / "sets"))
    (place / "q.csv").write_text("when,bid,ask\n2024-01-02 10:00:00,99,101\n2024-01-02 10:00:01,99,100\n")
    words = ("mode=import", "sources=q.csv", "name=quotes", "instrument=X")
    said = tandem(*words, "vendor=generic", "options={columns: {ts: when}}", "instruments.tick=0.5")
    assert said.code == 0 and "data=quotes" in said.out, said
    assert open_tape("quotes").events["ask"].tolist() == [101.0, 100.0]
    said = tandem(*words, "vendor=generic", "timezone=Europe/Berlin", "overwrite=true")
    assert said.code == 2 and "options={timezone: ...}" in said.err, said
    said = tandem(*words, "vendor=nobody", "overwrite=true")
    assert said.code == 2 and "choose one of generic, binance" in said.err, said


def test_import_has_the_settings_of_import_bars() -> None:
    import inspect

    theirs = inspect.signature(import_bars).parameters
    ours = {f.name: f for f in fields(MODES["import"][0])}
    of_ticks = {"vendor", "instrument", "recv_shift", "book", "options"}
    assert set(theirs) - set(ours) == {"reader", "source"}
    assert set(ours) - of_ticks <= set(theirs)
    ticks = inspect.signature(import_ticks).parameters
    assert of_ticks <= set(ticks)
    assert set(ticks) - set(ours) == {"source"}
    plain = {n: p.default for n, p in theirs.items() if n in ours and isinstance(p.default, bool | int | float | str)}
    assert {name: ours[name].default for name in plain if name != "name"} == plain


def test_backtest_has_the_settings_of_prepare() -> None:
    import inspect

    theirs = inspect.signature(prepare).parameters
    of_code = {"compiled", "sizes", "short", "open_options"}
    assert set(theirs) - of_code <= {f.name for f in fields(Backtest)}
    assert theirs["cash"].default == Backtest().cash and theirs["on_fault"].default == Backtest().on_fault


def test_a_conf_folder_of_the_user(process: Any, place: Path) -> None:
    """Its files are choices, ours included; that Python could import it as `conf` does no harm."""
    (place / "conf/strategy").mkdir(parents=True)
    (place / "conf/risk").mkdir()
    (place / "conf/__init__.py").write_text("raise SystemExit('this is not the package conf')\n")
    (place / "conf/strategy/calm.yaml").write_text("path: ideas.py:Breakout\nlength: 60\n")
    (place / "conf/risk/default.yaml").write_text("leverage: 3\n")
    with process("mode=backtest", "strategy=calm", *QUICK, "--cfg", "job") as running:
        out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    config = yaml.safe_load(out)
    assert config["strategy"] == {"path": "ideas.py:Breakout", "length": 60, "qty": 10.0}
    assert config["risk"]["leverage"] == 3.0 and config["venue"]["slippage_bps"] == 0.0


def test_cfg_is_complete_and_can_be_given_back(tandem: Tandem) -> None:
    words = ("mode=backtest", "strategy.fast=7", "risk.drawdown=0.3", "risk.breach={drawdown: flatten}", *QUICK)
    text = tandem(*words, "--cfg", "job").out
    config = yaml.safe_load(text)
    assert config.pop("mode") == "backtest"
    assert set(config) == {f.name for f in fields(Backtest)}
    assert set(config["risk"]) == {f.name for f in fields(Risk)}
    again = Backtest.of(config)
    assert again.risk == Risk(drawdown=0.3, breach={"drawdown": "flatten"}) and again.made().values["fast"] == 7
    assert "hydra:" in tandem(*words, "--cfg", "all").out


def test_cfg_without_a_mode_is_of_a_backtest(tandem: Tandem) -> None:
    assert tandem("--cfg", "job").out == tandem("mode=backtest", "--cfg", "job").out != ""
    assert yaml.safe_load(tandem("strategy.fast=7", "--cfg", "job").out)["strategy"]["fast"] == 7
    assert tandem("--help", "--cfg", "job").out == tandem("--help").out


def test_help_shows_the_strategy_of_the_readme(tandem: Tandem, root: Path) -> None:
    """A newcomer pastes the example of the help after the class of the README."""
    shown = re.search(r"strategy=ideas.py:Breakout strategy\.(\w+)=", tandem("--help").out)
    program = (root / "README.md").read_text().partition("# file: ideas.py\n")[2].partition("```")[0]
    assert shown and f"    {shown[1]}: int = param(" in program


def test_help_names_everything(tandem: Tandem) -> None:
    said = tandem("--help")
    assert said.code == 0 and said.err == ""
    wanted = [*MODES, *registry.names(), *keys(Backtest), "equities", "cautious", "retail", "file.py:Class"]
    wanted += [p for cls in BUILT_IN.values() for p in cls.params]
    assert not [word for word in wanted if word not in said.out]
    assert ">= 1 and <= 500" in said.out  # the range of momentum's fast
    assert tandem().out == said.out
    for mode, (kind, _, _) in MODES.items():
        told = tandem(f"mode={mode}", "--help").out
        assert not [key for key in keys(kind) if key not in told]


def test_help_shows_what_would_run(tandem: Tandem, place: Path) -> None:
    """The defaults of the configuration files, the user's own first, not those of the classes behind them."""

    def shown(key: str, words: tuple[str, ...] = ("--help",)) -> list[str]:
        return re.findall(rf"^ +{re.escape(key)} +(\S+|{{.*?}})(?:  |$)", tandem(*words).out, re.MULTILINE)

    assert shown("held") == ["2"] and shown("fast")[0] == "10" and shown("risk.leverage") == ["1"]
    for group, name, text in (("strategy", "momentum", "name: momentum\nfast: 7\n"),
                              ("risk", "default", "leverage: 3\nbreach: {drawdown: halt}\n")):  # fmt: skip
        (place / "conf" / group).mkdir(parents=True)
        (place / "conf" / group / f"{name}.yaml").write_text(text)
    assert shown("fast")[0] == "7" and shown("risk.leverage") == ["3"] and shown("risk.breach") == ["{drawdown: halt}"]
    for mode in MODES:
        composed = yaml.safe_load(tandem(f"mode={mode}", *(["strategy=momentum"] if mode == "header" else []),
                                         "--cfg", "job").out)  # fmt: skip
        rows = {line.split()[0]: line for line in tandem(f"mode={mode}", "--help").out.splitlines() if line[:2] == "  "}
        for key, value in composed.items():
            if isinstance(value, bool | int):
                assert re.match(rf"  {key} +{str(value).lower()}\b", rows[key]), (mode, key)


def test_every_built_in_has_its_file() -> None:
    assert set(BUILT_IN) == set(options("strategy")) - {"custom"}
    for name, cls in BUILT_IN.items():
        values = yaml.safe_load((CONF / "strategy" / f"{name}.yaml").read_text())
        assert values.pop("name") == name
        assert set(values) == set(cls.params)
        cls(**values)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_runs(tandem: Tandem, name: str, results: list[Any]) -> None:
    data = [] if {"on_bar", "on_slice"} & set(BUILT_IN[name].handlers) else ["data=ticks"]
    assert tandem("mode=backtest", f"strategy={name}", *QUICK, *data).code == 0
    assert len(results[0].raw["orders"]) > 20


GROUPS = [
    (group, name) for group in ("data", "risk", "venue", "tracking") for name in options(group) if name != "custom"
]


@pytest.mark.parametrize(("group", "name"), GROUPS)
def test_every_preset_is_valid(tandem: Tandem, group: str, name: str) -> None:
    said = tandem("mode=backtest", f"{group}={name}", "--cfg", "job")
    assert said.code == 0, said.err
    given = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    assert {k: v for k, v in yaml.safe_load(said.out)[group].items() if k in given} == given


def test_completion(tandem: Tandem, monkeypatch: pytest.MonkeyPatch) -> None:
    def complete(line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        return tandem("--complete", "tandem", line.split(" ")[-1], "").out.split()

    assert "mode=backtest" in complete("tandem mode=")
    assert complete("tandem mode=backtest strategy=mom") == ["strategy=momentum"]
    assert "strategy.fast=" in complete("tandem mode=backtest strategy=momentum strategy.")
    assert "strategy.leave=" in complete("tandem mode=backtest strategy=rsi_reversion strategy.")
    assert complete("tandem mode=import ove") == ["overwrite="]
    assert "--complete" in tandem("--completion", "bash").out


def test_a_tracker_that_is_needed_and_does_not_answer(tandem: Tandem, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error like others: 3 would say that results are on disk."""

    def refuse(*_: Any) -> None:
        raise TrackingError("tracker nowhere: it does not answer.")

    monkeypatch.setattr("engine.tracking_models.Models.__init__", refuse)
    said = tandem("mode=promote", "run=0a1b2c3d")
    assert said.code == 2 and "does not answer" in said.err


def test_a_tracker_that_does_not_answer(tandem: Tandem, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results are on disk, the status says that the tracking is missing."""

    def refuse(self: Any, *_: Any, **__: Any) -> None:
        raise TrackingError("tracker nowhere: it does not answer.")

    monkeypatch.setattr("backtest.result.Result.track", refuse)
    monkeypatch.setattr("engine.tracking.Helper.runs", refuse)
    monkeypatch.setattr("engine.tracking.Helper.__init__", lambda self, uri: None)
    monkeypatch.setattr("engine.tracking.Helper.__exit__", lambda self, *_: None)
    said = tandem("mode=backtest", "end=2002-01-01")
    assert said.code == 3
    (where,) = (place / "outputs").iterdir()
    assert "does not answer" in said.err and str(where.relative_to(place)) in said.err and "Total return" in said.out
    assert (where / "report.html").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of MLflow about itself, when we read its store
def test_a_tracked_run(process: Any, place: Path) -> None:
    from mlflow.tracking import MlflowClient

    with process("mode=backtest", "end=2004-01-01", "tracking.experiment=mine") as running:
        out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert "Tracked" in out and "make ui" in out
    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["fast"] == "10" and run.info.status == "FINISHED"
    assert run.data.metrics["sharpe"] == pytest.approx(
        json.loads(next(place.glob("outputs/*/metrics.json")).read_text())["sharpe"]
    )
    assert {"report.html", "report.png", "config.yaml"} <= {f.path for f in client.list_artifacts(run.info.run_id)}


def test_a_reader_that_goes_away_loses_nothing(process: Callable[..., Any], place: Path) -> None:
    with process("mode=backtest", "track=false", "name=left") as child:
        child.stdout.close()
        assert child.wait(timeout=120) == 0, child.stderr.read()
    (where,) = (place / "outputs").glob("*-left")
    assert (where / "report.html").exists() and (where / "fills.parquet").exists()


def test_header(tandem: Tandem, place: Path) -> None:
    said = tandem("mode=header", "strategy=ideas.py:Breakout")
    assert said.code == 0 and "#pragma once" in said.out and "length" in said.out
    assert tandem("mode=header", "strategy=ideas.py:Breakout", "output=breakout.h").code == 0
    assert (place / "breakout.h").read_text() == said.out


def test_check(tandem: Tandem) -> None:
    said = tandem("mode=check", "strategy=ideas.py:Breakout", "events=200", "short=40", "tries=1")
    assert said.code == 0 and "causality" in said.out, said


@pytest.mark.parametrize("more", ["data=equities", "data=bars.csv", "data=bars.csv,data.label=end", "data=null"])
def test_check_on_data(tandem: Tandem, place: Path, more: str) -> None:
    """A dataset, a file, and none; `conf` has a group of the same name, which Hydra would not let us add to."""
    close = [10.0 + i % 7 for i in range(60)]
    pl.DataFrame({"ts": pl.datetime_range(datetime(2024, 1, 1), datetime(2024, 3, 1), "1d", eager=True)[:60],
                  "open": close, "high": close, "low": close, "close": close}).write_csv("bars.csv")  # fmt: skip
    words = ("mode=check", "strategy.fast=2", "strategy.slow=3", "events=50", "short=20", "tries=1")
    said = tandem(*words, *more.split(","))
    assert said.code == 0 and f"on {48 if more == 'data=null' else 50} events" in said.out, said
    assert " 0 orders" not in said.out


def test_compile(tandem: Tandem) -> None:
    said = tandem("mode=compile", "strategies=[momentum,ideas.py:Breakout]")
    assert said.code == 0 and [line.split()[0] for line in said.out.splitlines()] == [
        "backtest",
        "ticks",
        "lanes",
        "session",
        "reader",
        "venue",
        "gate",
        "look",
        "momentum",
        "ideas.py:Breakout",
    ]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        known = version("tandem")
    except PackageNotFoundError:
        pytest.skip("tandem is not installed in this environment")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tandem {known}\n"


def test_settings_are_values() -> None:
    assert Risk(leverage=2) == Risk(leverage=2.0) and VenueModel(taker_bps=5).taker_bps == 5.0
    assert isinstance(Risk(leverage=2).leverage, float)  # equal settings, equal hash, however they were written
    assert issubclass(Risk, Settings)
