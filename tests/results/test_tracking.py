"""Tracked runs, read back from a real store."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backtest.figures import TICK_FIGURES
from engine import tracking, tracking_ui, tracking_view
from engine.errors import TrackingError

# Tracking contains the warnings of MLflow, but the client that reads back is MLflow's own.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def tracked(crossing: Any, tmp_path_factory: pytest.TempPathFactory, new_store: Any) -> Any:
    """One store with two runs, and a client on it; creating its tables takes seconds."""
    place = tmp_path_factory.mktemp("tracked")
    uri = new_store(place)
    runs = []
    for fast in (10, 20):
        result = crossing(fast=fast)
        saved = result.save(place / f"run-{fast}")
        (saved / "report.html").write_text("<p>report</p>")
        made = result.track(experiment="tests", tracking_uri=uri, artifacts_dir=saved, tags={"who": "test"})
        runs.append((result, made))
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri), runs, uri


def test_a_run_reads_back(tracked: Any) -> None:
    client, runs, uri = tracked
    result, made = runs[0]
    run = client.get_run(made.run_id)
    assert run.info.run_name == "momentum fast=10 slow=50"
    assert run.info.status == "FINISHED"
    assert run.data.params["fast"] == "10"
    assert run.data.params["risk.leverage"] == "2.0"
    assert run.data.metrics["sharpe"] == pytest.approx(result.metrics["sharpe"])
    assert run.data.metrics["equity"] == pytest.approx(result.metrics["end_equity"])
    assert run.data.tags["kernel"] == "abc123def456"
    assert run.data.tags["config"] == "feed00beef"
    assert run.data.tags["who"] == "test"
    assert "| Sharpe ratio |" in run.data.tags["mlflow.note.content"]
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("made-up", "d" * 16)
    assert json.loads(dataset.dataset.source)["digest"] == "d" * 64
    assert made.tracking_uri == uri
    assert made.url.endswith(made.run_id)


def test_curves_are_step_metrics(tracked: Any) -> None:
    client, runs, _ = tracked
    result, made = runs[0]
    equity = client.get_metric_history(made.run_id, "equity")
    drawdown = client.get_metric_history(made.run_id, "drawdown")
    assert [m.step for m in equity] == list(range(300))
    assert equity[-1].timestamp == result.curve[0][-1] // 1_000_000
    assert min(m.value for m in drawdown) == pytest.approx(result.metrics["max_drawdown"])


def test_artifacts_are_copied(tracked: Any) -> None:
    client, runs, _ = tracked
    names = {f.path for f in client.list_artifacts(runs[0][1].run_id)}
    assert {"report.html", "metrics.json", "config.json", "trades.parquet", "equity.parquet"} <= names


def test_runs_of_one_experiment_compare(tracked: Any) -> None:
    client, runs, _ = tracked
    ids = {made.experiment_id for _, made in runs}
    assert len(ids) == 1
    experiment = client.get_experiment(ids.pop())
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    found = client.search_runs([experiment.experiment_id], order_by=["metrics.sharpe DESC"])
    assert len(found) == 2
    assert found[0].data.metrics.keys() == found[1].data.metrics.keys()


def test_the_ui_opens_with_what_people_compare(tracked: Any) -> None:
    client, runs, _ = tracked
    text = client.get_experiment(runs[0][1].experiment_id).tags[tracking_view.TAG]
    view = json.loads(text)
    assert view["selectedColumns"][:3] == ["params.`fast`", "params.`slow`", "metrics.`total_return`"]
    known = client.get_run(runs[0][1].run_id).data.metrics
    assert {chart["metricKey"] for chart in view["compareRunCharts"]} | set(tracking_view.COLUMNS) <= set(known)
    sections = {section["uuid"] for section in view["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in view["compareRunCharts"]} <= sections
    # A run on quotes and trades adds its own figures, which stay when a run on bars follows.
    assert "Quotes and trades" not in text
    swept = tracking_view.view(["fast"], text, ["best_objective"])
    assert {f"metrics.`{key}`" for key in tracking_view.SWEEP} <= set(json.loads(swept)["selectedColumns"])
    assert "metrics.`pbo`" in tracking_view.view([], swept) and "pbo" not in text
    ticks = tracking_view.view(["half"], tracking_view.view(["half"], text, ["net_pnl"]), ["sharpe"])
    assert "metrics.`markout_5s`" in json.loads(ticks)["selectedColumns"] and "Quotes and trades" in ticks
    assert set(tracking_view.TICKS) <= {key for key, *_ in TICK_FIGURES}
    # Another strategy adds its columns, and however many there are, the tag fits.
    other = tracking_view.view(["window", "fast"], text)
    assert json.loads(other)["selectedColumns"][:3] == ["params.`fast`", "params.`slow`", "params.`window`"]
    many = tracking_view.view([f"parameter_number_{i}" for i in range(500)], text)
    assert len(many) <= tracking_view.LONGEST
    assert json.loads(many)["selectedColumns"][0] == "params.`fast`"


@pytest.mark.slow
def test_helper_logs_the_same(tracked: Any, crossing: Any) -> None:
    client, _, uri = tracked
    result = crossing(fast=5)
    with tracking.Helper(uri) as helper:
        made = result.track(experiment="tests", tracking_uri=uri, helper=helper, name="by helper")
    run = client.get_run(made.run_id)
    assert run.info.run_name == "by helper"
    assert run.data.metrics["sharpe"] == pytest.approx(result.metrics["sharpe"])
    assert helper.process.returncode == 0


def test_failures_are_ours_and_keep_the_files(crossing: Any, tmp_path: Path) -> None:
    result = crossing()
    saved = result.save(tmp_path / "run")
    (tmp_path / "blocked").write_text("a file, not a directory")
    uri = f"sqlite:///{tmp_path / 'blocked' / 'mlflow.db'}"
    with pytest.raises(TrackingError, match=r"The results are safe in .*run"):
        result.track(tracking_uri=uri, artifacts_dir=saved)
    assert (saved / "metrics.json").exists()


@pytest.mark.slow
def test_an_unreachable_server_fails_soon(crossing: Any) -> None:
    with pytest.raises(TrackingError, match=r"http://127.0.0.1:9: .*MLFLOW_TRACKING_URI"):
        crossing().track(tracking_uri="http://127.0.0.1:9")


def test_a_run_that_breaks_midway_is_marked(tracked: Any, crossing: Any, tmp_path: Path) -> None:
    client, runs, uri = tracked
    with pytest.raises(TrackingError, match="save the result first"):
        crossing().track(experiment="tests", tracking_uri=uri, artifacts_dir=tmp_path / "missing", name="broken")
    experiment_id = runs[0][1].experiment_id
    (run,) = client.search_runs([experiment_id], filter_string="attributes.run_name = 'broken'")
    assert run.info.status == "FAILED"


def test_where_runs_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.store_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking.artifact_root(tracking.store_uri()) == (tmp_path / "mlartifacts").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert tracking.store_uri() == "http://there:5000"
    assert tracking.store_uri("sqlite:////a/b.db") == "sqlite:////a/b.db"
    assert tracking.artifact_root("http://there:5000") is None
    with pytest.raises(TrackingError, match="has its own UI"):
        tracking_ui.ui(5999)


def test_commit_of_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert tracking.git_commit() is None
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-qm", "first"]):
        subprocess.run(["git", *command], check=True, env={**os.environ, **who})
    commit = tracking.git_commit()
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "file").write_text("2")
    assert tracking.git_commit() == f"{commit}-dirty"


def test_importing_tracking_does_not_import_mlflow() -> None:
    code = "import sys, engine.tracking; sys.exit('mlflow' in sys.modules or 'subprocess' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
