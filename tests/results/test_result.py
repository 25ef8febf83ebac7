"""Frames, texts and files of a result."""

import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from backtest.figures import FIGURES
from backtest.result import FRAMES, Result
from engine.errors import DataError


@pytest.fixture(scope="module")
def result(crossing: Any) -> Any:
    return crossing()


def test_every_figure_has_a_label_and_every_label_a_figure(result: Any) -> None:
    assert set(result.metrics) == {key for key, *_ in FIGURES}


def test_frames_fit_each_other(result: Any) -> None:
    fills, trades, equity = result.fills, result.trades, result.equity
    assert fills.columns == ["time", "instrument", "strategy", "side", "qty", "price", "fee", "order_id"]
    assert fills.schema["time"] == pl.Datetime("ns", "UTC")
    signed = fills.select(pl.col("qty") * pl.when(pl.col("side") == "buy").then(1).otherwise(-1)).to_series()
    last = result.positions.group_by("instrument", maintain_order=True).last()
    by_instrument = fills.with_columns(signed=signed).group_by("instrument", maintain_order=True).agg(pl.sum("signed"))
    ends = dict(zip(last["instrument"], last["qty"], strict=True))
    assert ends == dict(zip(by_instrument["instrument"], by_instrument["signed"], strict=True))
    assert trades["open"].sum() == result.metrics["open_trades"] == 2
    assert trades.filter(~pl.col("open")).height == result.metrics["trades"]
    assert trades["pnl"].sum() == pytest.approx(equity["equity"][-1] - 10_000.0)
    assert equity["drawdown"].min() == pytest.approx(result.metrics["max_drawdown"])
    assert result.orders["status"].unique().to_list() == ["filled"]
    assert (result.orders["filled"] == result.orders["qty"]).all()
    assert result.refusals["reason"].unique().to_list() == ["daily_loss"]


def test_the_summary_says_why_nothing_was_traded(result: Any, book: Any) -> None:
    count = int(result.metrics["refusals"])
    assert result.summary().endswith(f"\nRefused: {count:,} daily_loss")
    assert (
        "No order was sent: the strategy asked for none, or for less than a lot (1)"
        in book["run"](book["tape"]([[10.0]]), []).summary()
    )


def test_a_ruined_account_is_told(book: Any) -> None:
    ruined = book["run"](book["tape"]([[10.0], [10.0], [500.0], [400.0]]), [book["fill"](0, 0, -100, 10.0)])
    assert "Equity fell below zero at" in ruined.summary()


def test_another_label_is_no_other_trial(result: Any) -> None:
    tags = result.tags
    again = Result(*result.raw.values(), result.tape, result.strategies, result.start_equity,
                   {**result.config, "name": "another"}, result.identity)  # fmt: skip
    assert again.tags == tags


def test_benchmark_is_equal_weight_buy_and_hold(result: Any) -> None:
    closes = result.tape.events["close"].reshape(-1, 2)
    assert result.metrics["benchmark_return"] == pytest.approx(np.mean(closes[-1] / closes[0]) - 1)
    assert result.hold == pytest.approx((closes / closes[0]).mean(axis=1))


def test_benchmark_of_late_and_absent_instruments(book: Any) -> None:
    nan = math.nan
    tape = book["tape"]([[10.0, nan, nan], [11.0, 50.0, nan], [12.0, 60.0, nan], [15.0, nan, nan]])
    result = book["run"](tape, [])
    # The second enters at 50, rests at 60; the third never traded and is left out.
    assert result.hold.tolist() == pytest.approx([1.0, (1.1 + 1.0) / 2, (1.2 + 1.2) / 2, (1.5 + 1.2) / 2])


def test_benchmark_sees_through_splits_and_keeps_dividends(book: Any) -> None:
    actions = [(1, 0, 11, 4.0), (2, 0, 12, 1.0)]
    tape = book["tape"]([[100.0], [25.0], [24.0], [30.0]], actions=actions)
    result = book["run"](tape, [])
    assert result.hold.tolist() == pytest.approx([1.0, 1.0, 1.0, 1.24])


def test_chunks_do_not_change_history(crossing: Any, book: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import backtest.history as history

    closes = book["walk"](60, 3)
    closes[:20, 2] = math.nan
    actions = [(25, 0, 11, 2.0), (30, 1, 12, 0.5), (48, 0, 11, 0.5)]
    tape = book["tape"](closes, actions=actions)
    grid = np.unique(tape.events["ts"])[5::7]
    whole = history.scan(tape.events, 3, grid)
    monkeypatch.setattr(history, "CHUNK", 17)
    pieces = history.scan(tape.events, 3, grid)
    for a, b in zip((*whole[:4], *whole.actions), (*pieces[:4], *pieces.actions), strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.actions.mark[0] == closes[24, 0]


def test_summary_and_notebook_html(result: Any) -> None:
    text = result.summary()
    assert text.splitlines()[0] == "momentum fast=10 slow=50 on made-up (I0, I1)"
    assert "Sharpe ratio" in text
    assert max(map(len, text.splitlines())) <= 80
    assert repr(result) == text
    assert "<table>" in result._repr_html_()


def test_params_are_flat(result: Any) -> None:
    assert result.params == {"strategy": "momentum", "fast": 10, "slow": 50, "name": "momentum", "cash": 1e4,
                             "risk.leverage": 2.0, "risk.drawdown": math.inf, "risk.allow": ""}  # fmt: skip


def test_saved_files_read_back(result: Any, tmp_path: Path) -> None:
    place = result.save(tmp_path / "deep" / "run")
    assert sorted(p.name for p in place.iterdir()) == sorted([*(f"{f}.parquet" for f in FRAMES), "metrics.json",
                                                              "config.json"])  # fmt: skip
    for name in FRAMES:
        assert pl.read_parquet(place / f"{name}.parquet").equals(getattr(result, name))
    figures = json.loads((place / "metrics.json").read_text())
    assert figures["sharpe"] == result.metrics["sharpe"]
    about = json.loads((place / "config.json").read_text())
    assert about["config"]["risk"]["drawdown"] == "inf"
    assert about["data"]["digest"] == result.tape.digest


def test_saving_again_replaces_the_whole(result: Any, crossing: Any, tmp_path: Path) -> None:
    place = result.save(tmp_path / "run")
    (place / "stale.txt").write_text("x")
    crossing(fast=5).save(place)
    assert not (place / "stale.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_failure_leaves_the_older_result(result: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = result.save(tmp_path / "run")
    before = (place / "metrics.json").read_bytes()

    def interrupted(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("backtest.result.json.dumps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        result.save(place)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert (place / "metrics.json").read_bytes() == before


@pytest.mark.parametrize("what", ["save", "report", "image"])
def test_a_full_disk_leaves_nothing(what: str, tmp_path: Path, root: Path) -> None:
    """The kernel of the operating system refuses to let any file grow beyond 4 kB."""
    code = f"""
        import importlib.util, resource, signal, sys
        spec = importlib.util.spec_from_file_location("made_up", {str(Path(__file__).with_name("conftest.py"))!r})
        made_up = importlib.util.module_from_spec(spec)
        sys.modules["made_up"] = made_up
        spec.loader.exec_module(made_up)
        closes = made_up.walk(5000, 1)
        result = made_up.run(made_up.make_tape(closes), [])
        result.metrics
        import matplotlib.figure, matplotlib.backends.backend_agg
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        from engine.errors import DataError
        try:
            getattr(result, {what!r})({str(tmp_path / "out")!r})
        except DataError as error:
            sys.exit(0 if "nothing was left behind" in str(error) else f"wrong words: {{error}}")
        sys.exit("it was written after all")
    """
    done = subprocess.run([sys.executable, "-B", "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=root,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_a_file(result: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"file/run: cannot be written"):
        result.save(tmp_path / "file" / "run")


def test_a_fill_without_its_order(book: Any) -> None:
    result = book["run"](book["tape"]([[1.0], [2.0]]), [book["fill"](0, 0, 1, 1.0)])
    result.raw["orders"] = result.raw["orders"][:0]
    with pytest.raises(DataError, match="1 fills belong to no order"):
        _ = result.metrics


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
def test_short_runs(book: Any, rows: int, tmp_path: Path) -> None:
    prices = np.linspace(10, 11, rows).reshape(rows, 1)
    result = book["run"](book["tape"](prices), [book["fill"](0, 0, 3, 10.0)] if rows else [])
    assert result.metrics["orders"] == float(rows > 0)
    assert result.summary()
    assert result.report(tmp_path / "report.html").stat().st_size > 1_000_000
    assert result.image(tmp_path / "report.png").stat().st_size > 5_000
    assert result.save(tmp_path / "saved").is_dir()
    assert result.plot().data


@pytest.mark.parametrize("gap", [False, True])
def test_one_instrument_is_read_like_many(book: Any, monkeypatch: pytest.MonkeyPatch, gap: bool) -> None:
    import backtest.history as history

    closes = book["walk"](60, 1)
    tape = book["tape"](closes, actions=[(30, 0, 12, 0.5)] if gap else [])
    grid = book["first"] + np.arange(-2, 70, 5) * 86_400_000_000_000
    expected = [closes[min(i, 59), 0] if i >= 0 else math.nan for i in range(-2, 70, 5)]
    for chunk in (7, 1 << 20):
        monkeypatch.setattr(history, "CHUNK", chunk)
        found = history.scan(tape.events, 1, grid)
        np.testing.assert_array_equal(found.closes[:, 0], expected)
        assert (found.first[0], found.last[0]) == (closes[0, 0], closes[-1, 0])
