"""`tandem -m`, mode=best and mode=upload, as people use them."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from backtest import backtest
from backtest.lanes import evaluate
from backtest.ranking import front
from backtest.report.surface import lane_name
from backtest.run import prepare
from backtest.sampling import Axis, sample
from backtest.sweep import PRUNED, Sweep
from engine.errors import ConfigError
from strategies import Momentum
from tests.app.words import QUICK, Said

Tandem = Callable[..., Said]
SHORT = ("-m", "data=equities", "end=2003-01-01", *QUICK)


def lanes(place: Path) -> pl.DataFrame:
    """The table of the only sweep."""
    (where,) = place.glob("outputs/*-sweep")
    return pl.read_parquet(where / "lanes.parquet")


def test_a_grid_is_what_single_runs_are(tandem: Tandem, place: Path) -> None:
    said = tandem(*SHORT, "strategy.fast=range(5,60,5)", "strategy.slow=20,40", "venue.taker_bps=0,5")
    assert said.code == 0 and said.err == ""
    table = lanes(place)
    assert table.height == 2 * (3 + 7) and "24 skipped by the strategy's own rule" in said.out
    assert "free to take venue.taker_bps=0, which nobody can choose" in " ".join(said.out.split())
    assert table["sharpe"].to_list() == sorted(table["sharpe"].to_list(), reverse=True)
    row = table.row(3, named=True)
    alone = backtest(Momentum(fast=row["strategy.fast"], slow=row["strategy.slow"], qty=100.0), "equities",
                     end="2003-01-01", taker_bps=row["venue.taker_bps"]).metrics  # fmt: skip
    for name in ("sharpe", "total_return", "max_drawdown", "trades", "win_rate", "fees"):
        assert row[name] == pytest.approx(alone[name], rel=1e-9)
    first = table.row(0, named=True)
    assert re.search(rf"^ +1 +{first['strategy.fast']} +{first['strategy.slow']} ", said.out, re.MULTILINE)


def test_an_interval_of_a_whole_parameter_draws_whole_numbers(tandem: Tandem, place: Path) -> None:
    words = ("strategy.fast=interval(5,20)", "venue.taker_bps=interval(0,10)", "sweep.lanes=8", "sweep.best=0")
    assert tandem(*SHORT, *words).code == 0
    table = lanes(place)
    assert table.schema["strategy.fast"] == pl.Int64 and set(table["strategy.fast"]) <= set(range(5, 21))
    assert not (table["venue.taker_bps"] % 1 == 0).all()


def test_without_a_report_none_is_named_and_a_terminal_hears_what_takes_time(
    tandem: Tandem, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    said = tandem(*SHORT, "strategy.fast=5,10", "report=false")
    assert said.code == 0 and "how likely this is luck" in said.err and "Report" not in said.out
    assert not list(place.rglob("sweep.html"))


def test_who_reads_elsewhere_than_at_a_terminal_hears_too(tandem: Tandem, place: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("engine.modes_sweep.LONG", 0)
    monkeypatch.setattr("engine.store.files.LINE_S", 0.0)
    said = tandem(*SHORT[:-1], "strategy.fast=5,10", "sweep.best=0")
    assert "tandem: sweep: 2 lanes of Momentum on 2,136 events\n" in said.err
    assert "tandem: validation: 2 lanes, walk_forward over 5 folds and tests of luck\n" in said.err
    assert re.search(r"^tandem: sweep: 2 of 2 lanes after 0 s, 0 s to go$", said.err, re.MULTILINE)
    (where,) = place.glob("outputs/*-sweep")
    assert "swept:\n  strategy.fast: 5,10\n" in (where / "config.yaml").read_text()
    page = (where / "sweep.html").read_text()
    assert "Sweep of Momentum over fast on equities" in page
    assert "(AAPL, GOOG, IBM, MSFT), 2000-03-01 to 2002-12-31: 2 lanes by sharpe; tested out of sample by" in page


def test_a_lane_is_named_by_its_axes() -> None:
    about = {"structures": [{"names": {"venue": "retail"}}], "axes": ["strategy.fast", "cash"]}
    row = {"venue": "retail", "strategy.fast": 10, "cash": 1e5}
    found = lane_name(SimpleNamespace(strategies=["Momentum"]), about, row)
    assert found == "Momentum venue=retail fast=10 cash=100000"


def test_structures_texts_and_settings_are_axes_too(tandem: Tandem, place: Path) -> None:
    said = tandem(*SHORT, "instruments=[AAPL],[IBM]", "start=2001-01-01,2002-01-01", "strategy.fast=5,10",
                  "cash=1e4,1e5", "risk.leverage=1,2", "venue.queue=back,front",
                  "strategy.short=true,false")  # fmt: skip
    assert said.code == 0 and said.err == ""
    table = lanes(place)
    assert table.height == 4 * 32 and set(table["instruments"]) == {"[AAPL]", "[IBM]"}
    assert set(table["cash"]) == {1e4, 1e5} and set(table["venue.queue"]) == {"back", "front"}


def test_nothing_is_a_value_too(tandem: Tandem, place: Path) -> None:
    """null: the fee of the instrument itself. It is so in the table, under test, and in a lane that is run again."""
    said = tandem(*SHORT, "strategy.fast=5,10", "venue.taker_bps=null,50")
    assert said.code == 0 and said.err == "" and lanes(place)["venue.taker_bps"].null_count() == 2
    (where,) = place.glob("outputs/*-sweep")
    assert tandem("mode=best", f"sweep={where}", "rank=1", "track=false", "report=false").code == 0


def test_samples(tandem: Tandem, place: Path) -> None:
    words = ("strategy.fast=int(interval(2,60))", "strategy.slow=int(tag(log,interval(70,300)))",
             "venue.slippage_bps=interval(0,20)", "sweep.lanes=50")  # fmt: skip
    assert tandem(*SHORT, *words).code == 0
    assert tandem(*SHORT, *words, "sweep.sampler=random", "sweep.seed=3", "name=drawn").code == 0
    one, other = (pl.read_parquet(w / "lanes.parquet") for w in sorted(place.glob("outputs/*-sweep")))
    for table in (one, other):
        assert table.height == 50 and table["venue.slippage_bps"].n_unique() == 50
        assert table["strategy.fast"].min() >= 2 and table["strategy.slow"].max() <= 300  # type: ignore[operator]
    assert set(one["venue.slippage_bps"]) != set(other["venue.slippage_bps"])


def test_the_sampler_fills_its_axes() -> None:
    axes = [Axis("a", range(5)), Axis("b", (), 0.01, 100.0, log=True), Axis("c", (), 1, 4, whole=True)]
    for kind in ("random", "sobol"):
        table = sample(axes, kind, 2000, 1)  # type: ignore[arg-type]
        assert set(table["a"].tolist()) == set(range(5)) and set(table["c"].tolist()) == {1, 2, 3, 4}
        assert abs(np.log(table["b"]).mean()) < 0.3 and 0.01 <= table["b"].min() <= table["b"].max() <= 100.0
        assert all((table[k] == sample(axes, kind, 2000, 1)[k]).all() for k in table)  # type: ignore[arg-type]


def test_several_objectives_have_a_front(tandem: Tandem, place: Path) -> None:
    words = ("strategy.fast=range(3,30)", "sweep.objective=[total_return,-max_drawdown_days]")
    said = tandem(*SHORT, *words)
    table = lanes(place)
    mine = table["front"].to_numpy()
    assert said.code == 0 and len(re.findall(r"^ +\d+ +\* ", said.out, re.MULTILINE)) == mine[:10].sum()
    scores = np.stack([table["total_return"].to_numpy(), -table["max_drawdown_days"].to_numpy()], axis=1)
    assert mine.tolist() == front(scores).tolist() and 0 < mine.sum() < table.height


def test_what_depends_on_a_swept_key_follows_it(tandem: Tandem, place: Path) -> None:
    (place / "conf" / "venue").mkdir(parents=True)
    (place / "conf/venue/tied.yaml").write_text("taker_bps: 1\nslippage_bps: ${.taker_bps}\n")
    said = tandem(*SHORT, "venue=tied", "venue.taker_bps=5,6,7")
    assert said.code == 0 and "venue.slippage_bps depends on swept keys" in said.err
    table = lanes(place)
    assert (table["venue.slippage_bps"] == table["venue.taker_bps"]).all()
    alone = backtest(Momentum(qty=100.0), "equities", end="2003-01-01", taker_bps=5, slippage_bps=5).metrics["sharpe"]
    assert table.filter(pl.col("venue.taker_bps") == 5)["sharpe"][0] == pytest.approx(alone, rel=1e-9)


WRONG = [
    (("strategy.fsat=5,10",), "no parameter `fsat`.*Did you mean fast"),
    (("strategy.fast=range(5,5)",), "strategy.fast: the axis is empty"),
    (("strategy.fast=a,b",), "fast must be an integer, got 'a'"),
    (("strategy.fast=5,1.5",), "fast must be an integer, got 1.5"),
    (("strategy.fast=5,900",), "fast must be >= 1 and <= 500, got 900"),
    (("risk.levrage=1,2",), "Unknown key 'risk.levrage'. Did you mean risk.leverage"),
    (("venue.taker_bps=1,20000",), "venue.taker_bps must be"),
    (("strategy.fast=60,70", "strategy.slow=20,30"), "None of the 4 lanes may run.*fast must be below slow"),
    (("strategy.fast=5,10", "sweep.objective=sharp"), "sharp.*Did you mean sharpe"),
    (("strategy.fast=range(1,500)", "strategy.slow=range(2,1000)", "strategy.qty=range(1,3000)"),
     r"1,493,\d+,\d+ lanes x 2,136 events: about .* sweep.force=true"),
    (("strategy.fast=5,10", "sweep.most=1"), "2 lanes x"),
    (("track=true,false",), "track belongs to the whole sweep"),
    (("start=interval(1,2)",), "takes listed choices and no interval"),
    (("strategy.fast=interval(5,2)",), "an interval goes up"),
    (("strategy.fast=interval(5.5,20)",), "Momentum.fast must be an integer"),
    (("strategy.fast=glob(*)",), r"strategy.fast: a sweep takes a list"),
    (("strategy.fast=5,10", "sweep.split=combinatorial", "sweep.folds=2"), "sweep.folds must be >= 3 with"),
    (("strategy.fast=5,10", "sweep.split=purged", "sweep.folds=1"), "sweep.folds must be >= 2 with"),
    (("strategy.fast=10",), "Nothing is swept"),
    (("mode=ui", "strategy.fast=5,10"), "-m sweeps backtests"),
    (("strategy.fast=5,10", "strategy.fast=5,10"), "swept twice"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[str(w[0]) for w, _ in WRONG])
def test_bad_input(tandem: Tandem, place: Path, words: tuple[str, ...], message: str) -> None:
    said = tandem(*SHORT, *words)
    assert said.code == 2 and re.search(message, said.err, re.DOTALL), said.err
    assert said.err.count("\n") <= 2 and not list(place.glob("outputs/*"))


def test_a_lane_without_a_figure_is_last_and_counted(tandem: Tandem, place: Path) -> None:
    said = tandem(*SHORT, "strategy.slow=50,100,900", "end=2001-01-01")
    assert said.code == 0 and "1 without a figure, ranked last" in said.out
    assert lanes(place)["strategy.slow"][2] == 900


def test_a_lane_whose_handler_fails_is_counted(tandem: Tandem, place: Path) -> None:
    (place / "ideas.py").write_text(
        "from engine.kernel.layout import Array\nfrom engine.kernel.strategy import Strategy, param\n\n\n"
        "class Breaks(Strategy):\n    n: int = param(0)\n    qty: float = param(1.0)\n    cells: Array[float, 4]\n\n"
        "    def on_bar(self, bar, ctx):\n        self.cells[self.n] = bar.close\n        ctx.target(self.qty)\n"
    )
    said = tandem(*SHORT, "strategy=ideas.py:Breaks", "strategy.n=0,3,9")
    assert said.code == 0 and "1 failed or halted" in said.out and "1 without a figure" in said.out
    assert "2 closed no trade, so that their figures are those of what they hold" in said.out
    assert lanes(place)["status"].to_list() == [0, 0, 2]


def test_the_best_again(tandem: Tandem, place: Path) -> None:
    assert tandem(*SHORT, "strategy.fast=5,10,20", "strategy.slow=50,60").code == 0
    (where,) = place.glob("outputs/*-sweep")
    said = tandem("mode=best", f"sweep={where}", "rank=2", *QUICK)
    row = pl.read_parquet(where / "lanes.parquet").row(1, named=True)
    assert said.code == 0 and f"Momentum fast={row['strategy.fast']} slow={row['strategy.slow']}" in said.out
    assert f"{row['total_return']:.2%}".replace("%", " %") in said.out
    assert "rank=9: the sweep has 6 lanes" in tandem("mode=best", f"sweep={where}", "rank=9").err
    assert "no folder of a sweep" in tandem("mode=best", "sweep=outputs").err
    # As a tracked run it would be one lane to the ledger, which has not heard of the six.
    said = tandem(
        "mode=best", f"sweep={where}", "report=false", "track=true", f"tracking.uri=sqlite:///{place}/runs.db"
    )
    assert said.code == 2 and "does not count its 6 lanes" in said.err and not (place / "runs.db").exists()
    table = pl.read_parquet(where / "lanes.parquet")
    table.with_columns(sharpe=table["sharpe"] + 0.1).write_parquet(where / "lanes.parquet")
    assert "are not those of the sweep" in tandem("mode=best", f"sweep={where}", *QUICK).err


DYING = """
import os, signal, sys, backtest.sweep as s
from engine.app import main
left, counted = [5], s.Sweep._counted
def after_the_fifth(self, *shard):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return counted(self, *shard)
s.LANES, s.Sweep._counted = 8, after_the_fifth
main(sys.argv[1:])
"""


def test_a_sweep_that_died_goes_on_where_it_was(place: Path, tandem: Tandem, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed between two shards; the next one computes only what is missing."""
    monkeypatch.setattr("backtest.sweep.LANES", 8)
    words = [*SHORT, "strategy.fast=range(2,32)", "strategy.slow=range(40,55)"]
    child = subprocess.run([sys.executable, "-c", DYING, *words], stdout=subprocess.DEVNULL, check=False)
    assert child.returncode == -signal.SIGKILL
    done = len(list(place.glob("outputs/.sweeps/*/*.npz")))
    assert 5 <= done < 57 and not list(place.glob("outputs/*-sweep"))
    said = tandem(*words)
    assert said.code == 0 and f"{8 * done:,} taken from an interrupted sweep" in said.out
    assert lanes(place).height == 450 and not list(place.glob("outputs/.sweeps"))
    assert not list(place.glob("outputs/.sweeps"))


def test_optuna_looks_where_it_is_better(tandem: Tandem, place: Path) -> None:
    pytest.importorskip("optuna")
    words = ("strategy.fast=range(2,60)", "strategy.slow=range(61,300)", "sweep.sampler=optuna", "sweep.lanes=60",
             "sweep.batch=20")  # fmt: skip
    assert tandem(*SHORT, *words).code == 0
    assert lanes(place).height == 60


def test_hopeless_lanes_end_early_and_the_others_are_whole_runs(tandem: Tandem, place: Path) -> None:
    pytest.importorskip("optuna")
    words = ("strategy.fast=range(2,60)", "strategy.slow=range(61,300)", "sweep.sampler=optuna", "sweep.lanes=60",
             "sweep.batch=20", "sweep.prune=0.4")  # fmt: skip
    said = tandem(*SHORT, *words)
    table = lanes(place)
    gone, kept = table.filter(pl.col("status") == PRUNED), table.filter(pl.col("status") == 0)
    assert said.code == 0 and f"{gone.height} pruned after the first part" in said.out and 5 < gone.height < 55
    assert kept.height + gone.height == 60 and gone["sharpe"].is_nan().all() and "without a figure" not in said.out
    assert table["lane"].n_unique() == 60 and "Of 60 lanes tried of Momentum" in " ".join(said.out.split())
    axes = {key: kept[key].to_list() for key in ("strategy.fast", "strategy.slow")}
    whole = evaluate(prepare(Momentum(), "equities", end="2003-01-01"), axes).figures
    for name in ("sharpe", "total_return", "trades"):
        assert (whole[name] == kept[name].to_numpy()).all()
    assert "one objective" in tandem(*SHORT, "strategy.fast=5,10", "sweep.prune=0.4").err


def test_without_optuna_it_says_so(tandem: Tandem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    said = tandem(*SHORT, "strategy.fast=2,3", "sweep.sampler=optuna")
    assert said.code == 2 and "pip install 'tandem[optuna]'" in said.err


@pytest.mark.slow
def test_results_are_on_disk_before_the_tracker_hears(tandem: Tandem, place: Path) -> None:
    words = (*SHORT[:-2], "strategy.fast=5,10,20", "venue.taker_bps=0,10,20,40", "sweep.best=1")
    said = tandem(*words, "tracking.uri=http://127.0.0.1:9")
    (where,) = place.glob("outputs/*-sweep")
    assert said.code == 3 and f"tandem mode=upload run={where.relative_to(place)}" in said.err.replace(f"{place}/", "")
    files = {"lanes.parquet", "sweep.json", "sweep.html", "sweep.png", "config.yaml", "track.json", "best"}
    assert {p.name for p in where.iterdir()} == files
    text = (where / "sweep.html").read_text()
    assert "breaks even at venue.taker_bps" in text or "earns" in text
    assert "<script src" not in text and "cdn" not in text.partition("<body>")[2]
    uri = f"sqlite:///{place}/runs.db"
    assert tandem("mode=upload", f"run={where}", f"tracking.uri={uri}").code == 0
    from engine import ledger, tracking

    found = tracking.runs("tandem", tracking_uri=uri)
    kinds = sorted(run["tags"]["kind"] for run in found)
    assert kinds == ["lane", "sweep"]
    parent, child = (next(r for r in found if r["tags"]["kind"] == k) for k in ("sweep", "lane"))
    assert child["tags"]["mlflow.parentRunId"] == parent["run_id"]
    assert ledger.read("tandem", tracking_uri=uri).lanes == 12
    table = lanes(place)
    assert child["metrics"]["sharpe"] == pytest.approx(table["sharpe"][0], rel=1e-9)
    again = tandem("mode=best", f"sweep={parent['run_id']}", f"tracking.uri={uri}", *QUICK)
    assert again.code == 0 and f"{table['total_return'][0]:.2%}".replace("%", " %") in again.out
    assert "mode=upload needs the folder" in tandem("mode=upload", "run=nowhere").err


def test_a_pass_over_nothing_is_an_error() -> None:
    prepared = prepare(Momentum(), "equities", end="2001-01-01")
    for table, message in (({}, "columns of one length"), ({"strategy.fast": []}, "above 0"),
                           ({"strategy.fast": [1], "cash": [1.0, 2.0]}, "one length"),
                           ({"strategy.fast": [1], "data": [2]}, "cannot differ"),
                           ({"cash": [-1.0]}, "above 0")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            evaluate(prepared, table)
    assert json.dumps(Sweep([Axis("cash", (1.0, 2.0))], [], []).hash)
