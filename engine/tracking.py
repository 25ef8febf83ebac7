"""The one door to MLflow: a finished run goes in as plain values and comes out as a run that people can compare.

Law 1: tracking comes after the results are on disk; when it fails, they stay, and the failure is a TrackingError.
Law 2: importing this module costs nothing. MLflow takes seconds to import, so `Helper` lets another process do that
       while the backtest runs.
"""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine import tracking_names as names
from engine import tracking_view
from engine.errors import TrackingError

POINTS = 300  # of the equity and drawdown curves
LONGEST = {"param": 6_000, "tag": 5_000}
# MLflow imports these if they are there, for a second and a half; it has no use for them here.
NOT_NEEDED = ("pandas", "polars", "scipy", "sklearn", "matplotlib")
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # seven, the default, is minutes of silence when a server is down
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # nine processes of the UI for jobs that we do not have
}


@dataclass(frozen=True)
class TrackedRun:
    """A run in the tracker; `url` is where the UI shows it, relative to the UI's address for a local store."""

    run_id: str
    experiment_id: str
    tracking_uri: str
    url: str


def store_uri(tracking_uri: str | None = None) -> str:
    """Where runs go: what is asked for, else MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory."""
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def artifact_root(uri: str) -> str | None:
    """Where artifacts of a local store go: `mlartifacts` beside its database. A server decides for itself."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()


def git_commit() -> str | None:
    """The commit of the working directory, with `-dirty` where files differ from it; None outside of a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # there is no git, or it hangs on a network drive; a run without the tag is still a run
    return done.stdout.strip() or None if done.returncode == 0 else None


def curve_points(ts: Any, equity: Any, start_equity: float, points: int = POINTS) -> list[tuple[int, float, float]]:
    """(milliseconds UTC, equity, drawdown) at evenly spaced rows; each drawdown is the worst since the row before.

    >>> curve_points(np.array([0, 10**6, 2 * 10**6]), np.array([100.0, 80.0, 110.0]), 100.0, points=2)
    [(0, 100.0, 0.0), (2, 110.0, -0.2)]
    """
    if len(ts) == 0:
        return []
    peak = np.maximum(np.maximum.accumulate(equity), start_equity)
    fall = np.divide(equity, peak, out=np.ones(len(peak)), where=peak > 0) - 1.0
    rows = np.unique(np.linspace(0, len(ts) - 1, points).astype(np.int64))
    worst = np.minimum.reduceat(fall, np.concatenate(([0], rows[:-1] + 1)))
    return [(int(ts[r]) // 1_000_000, float(equity[r]), round(float(w), 12)) for r, w in zip(rows, worst, strict=True)]


def track(*, experiment: str, name: str, params: Mapping[str, Any], metrics: Mapping[str, float],
          curve: tuple[Any, Any], start_equity: float, dataset: tuple[str, str], tracking_uri: str | None = None,
          artifacts_dir: str | os.PathLike[str] | None = None, note: str = "", tags: Mapping[str, str] | None = None,
          helper: "Helper | None" = None, context: str = "backtest",
          points: list[tuple[int, float, float]] | None = None) -> TrackedRun:  # fmt: skip
    """Log one finished run.

    `params`: flat; `metrics`: NaN and infinity are left out; `curve`: `ts` ns UTC and equity, logged as the step
    metrics `equity` and `drawdown` whose timestamps are the times of the bars; `dataset`: name and content hash;
    `artifacts_dir`: a directory whose files are copied; `note`: Markdown for the run's description; `context`: what the
    dataset was used for; `points`: what `curve_points` made of the curve, in its place. With `helper`, the helper's
    process does it.

    Raises TrackingError; the files in `artifacts_dir` are not touched.
    """
    commit = git_commit()
    known = {str(k): str(v) for k, v in (tags or {}).items()} | ({"mlflow.source.git.commit": commit} if commit else {})
    request = {
        "experiment": experiment, "name": name, "uri": store_uri(tracking_uri), "note": note,
        "dataset": [*dataset, context],
        "params": {k: str(v)[: LONGEST["param"]] for k, v in params.items()},
        "metrics": {k: float(v) for k, v in metrics.items() if math.isfinite(v)},
        "points": curve_points(*curve, start_equity) if points is None else points,
        "tags": {k: v[: LONGEST["tag"]] for k, v in known.items()},
        "artifacts": None if artifacts_dir is None else str(Path(artifacts_dir).resolve()),
    }  # fmt: skip
    return helper.log(request) if helper else _log(request)


def artifacts(run_id: str, wanted: tuple[str, ...], tracking_uri: str | None = None) -> Path:
    """A directory with files of a run, fetched into a temporary place. Raises TrackingError."""
    uri, folder = store_uri(tracking_uri), tempfile.mkdtemp(prefix="tandem-")
    with _contained(uri, None):
        for name in wanted:
            _client(uri).download_artifacts(run_id, name, folder)
    return Path(folder)


def runs(experiment: str, *, kinds: tuple[str, ...] = (), tracking_uri: str | None = None,
         helper: "Helper | None" = None) -> list[dict[str, Any]]:  # fmt: skip
    """The runs of an experiment, newest first, those that were deleted too: run_id, name, tags, params, metrics.

    `kinds`: values of the tag `tracking_names.KIND`; none means all. An experiment that does not exist has no runs.
    Raises TrackingError.
    """
    request = {"experiment": experiment, "uri": store_uri(tracking_uri), "kinds": list(kinds)}
    return helper.runs(request) if helper else _runs(request)


def _runs(request: Mapping[str, Any], client: Any = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with _contained(request["uri"], None):
        client = client or _client(request["uri"])
        experiment = client.get_experiment_by_name(request["experiment"])
        for where in [f"tags.{names.KIND} = '{kind}'" for kind in request["kinds"]] or [""]:
            token = "" if experiment else None
            while token is not None:
                page = client.search_runs([experiment.experiment_id], where, run_view_type=3, max_results=10_000,
                                          page_token=token or None)  # fmt: skip
                found += [{"run_id": r.info.run_id, "name": r.info.run_name, "tags": dict(r.data.tags),
                           "params": dict(r.data.params), "metrics": dict(r.data.metrics)} for r in page]  # fmt: skip
                token = page.token or None
    return found


@contextmanager
def _contained(uri: str, kept: str | None) -> Iterator[None]:
    """MLflow's settings and warnings stay inside; whatever it raises becomes a TrackingError."""
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except TrackingError:
        raise
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        where = f" The results are safe in {kept}." if kept else ""
        advice = (" Check that the place is writable or that the server answers, set another by MLFLOW_TRACKING_URI, "
                  "or switch tracking off.")  # fmt: skip
        if getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            advice = ""  # it did answer
        raise TrackingError(f"tracker {uri}: {first[:300].rstrip('.')}.{where}{advice}") from error


def _client(uri: str) -> Any:
    absent = [name for name in NOT_NEEDED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # an import of them fails, and takes no time
    try:
        from mlflow.tracking import MlflowClient
    finally:
        for name in absent:
            del sys.modules[name]

    client = MlflowClient(tracking_uri=uri)
    client.search_experiments(max_results=1)  # opens the store, and creates its tables the first time
    return client


def _experiment(client: Any, name: str, uri: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage != "active":
        raise TrackingError(f"tracker {uri}: experiment {name!r} was deleted; restore it in the UI, or use another.")
    if found is None:
        try:
            # Without its kind the UI takes an experiment for one of language models and hides the runs.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(name, artifact_location=_location(uri, name), tags=kind))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)  # another run may have created it in this moment
            if found is None:
                raise TrackingError(f"tracker {uri}: experiment {name!r} cannot be created ({error}).") from error
    return str(found.experiment_id)


def _location(uri: str, name: str) -> str | None:
    root = artifact_root(uri)
    return f"{root}/{''.join(c if c.isalnum() or c in '-_.' else '-' for c in name)}" if root else None


def _log(request: Mapping[str, Any], client: Any = None) -> TrackedRun:
    uri = request["uri"]
    with _contained(uri, request["artifacts"]):
        client = client or _client(uri)
        experiment_id = _experiment(client, request["experiment"], uri)
        _show(client, experiment_id, request["params"], request["metrics"])
        run = client.create_run(experiment_id, run_name=request["name"], start_time=int(time.time() * 1000))
        run_id = str(run.info.run_id)
        try:
            _fill(client, run_id, request)
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
    path = f"#/experiments/{experiment_id}/runs/{run_id}"
    return TrackedRun(run_id, experiment_id, uri, f"{uri.rstrip('/')}/{path}" if uri.startswith("http") else path)


def _show(client: Any, experiment_id: str, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Give the experiment the view that `ui` opens, with columns for these parameters and figures."""
    before = client.get_experiment(experiment_id).tags.get(tracking_view.TAG, "")
    text = tracking_view.view(tracking_view.tuned(params), before, metrics)
    if text != before:
        client.set_experiment_tag(experiment_id, tracking_view.TAG, text)


def _fill(client: Any, run_id: str, request: Mapping[str, Any]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    now = int(time.time() * 1000)
    figures = [Metric(key, value, now, 0) for key, value in request["metrics"].items()]
    for step, (when, equity, fall) in enumerate(request["points"]):
        figures += [Metric("equity", equity, when, step), Metric("drawdown", fall, when, step)]
    own = {"mlflow.note.content": request["note"], "mlflow.source.name": "tandem", "mlflow.source.type": "LOCAL"}
    tags = [RunTag(key, value) for key, value in {**own, **request["tags"]}.items()]
    params = [Param(key, value) for key, value in request["params"].items()]
    # One call takes at most 1,000 metrics, 100 params and 100 tags.
    for i in range(max(-(-len(figures) // 900), -(-len(params) // 100), -(-len(tags) // 100))):
        rows, few = slice(i * 900, (i + 1) * 900), slice(i * 100, (i + 1) * 100)
        client.log_batch(run_id, metrics=figures[rows], params=params[few], tags=tags[few])
    name, digest, context = request["dataset"]
    # The store takes 36 characters of a digest and the UI shows them all; the whole of it is in the source.
    source = json.dumps({"uri": name, "digest": digest})
    dataset = Dataset(name=name, digest=digest[:16], source_type="local", source=source)
    client.log_inputs(run_id, [DatasetInput(dataset=dataset, tags=[InputTag("mlflow.data.context", context)])])
    if request["artifacts"]:
        if not Path(request["artifacts"]).is_dir():  # MLflow would log nothing and say nothing
            raise TrackingError(f"run {run_id}: there is no directory {request['artifacts']}; save the result first.")
        client.log_artifacts(run_id, request["artifacts"])


class Helper:
    """A process that imports MLflow and opens the store while this one does something else.

    Start it first, run the backtest, then pass it to `track`. It ends with `close`, or when this process ends.
    """

    def __init__(self, tracking_uri: str | None = None) -> None:
        self.uri = store_uri(tracking_uri)
        paths = os.pathsep.join(p or str(Path.cwd()) for p in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "engine.tracking", self.uri], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**SETTINGS, **os.environ, "PYTHONPATH": paths},
        )  # fmt: skip

    def log(self, request: Mapping[str, Any]) -> TrackedRun:
        """Hand over one run and wait until it is logged."""
        return TrackedRun(**self._ask(request))

    def runs(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What `runs` finds, asked in the helper's process."""
        return list(self._ask({"find": dict(request), "uri": request["uri"]})["runs"])

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise TrackingError(f"tracker {self.uri}: the process that loads MLflow ended with status "
                                f"{self.process.wait(timeout=60)}; its last words are above.")  # fmt: skip
        reply: dict[str, Any] = json.loads(answer)
        if "error" in reply:
            raise TrackingError(reply["error"])
        return reply

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=60)

    def __enter__(self) -> "Helper":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(uri: str) -> None:
    """What a Helper's process does: open the store, then log one run for each line of JSON it reads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, whose end ends us, between two runs
    for name in NOT_NEEDED:
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails, as where it is not installed
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what MLflow prints must not look like an answer
    client, failed = None, ""
    try:
        with _contained(uri, None):
            client = _client(uri)
    except TrackingError as error:
        failed = str(error)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if failed:
                raise TrackingError(failed)
            known = client if request["uri"] == uri else None
            reply: dict[str, Any]
            reply = {"runs": _runs(request["find"], known)} if "find" in request else asdict(_log(request, known))
        except TrackingError as error:
            reply = {"error": str(error)}
        print(json.dumps(reply), file=out, flush=True)
    os._exit(0)  # all is committed; to take MLflow down in order costs another half of a second


if __name__ == "__main__":
    serve(sys.argv[1])
