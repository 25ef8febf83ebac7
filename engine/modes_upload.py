"""What the tracker hears of a sweep, and mode=upload, which tells it later.

Law 1: what is to be told lies in the folder of the sweep, complete, before anybody is told.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import Settings, Tracking, setting
from engine.errors import ConfigError, TrackingError

if TYPE_CHECKING:
    import polars as pl

TRACKED = "tracked"  # in the folder: id and experiment of the run that the tracker made of it


@dataclass(frozen=True)
class Upload(Settings):
    """Settings of mode=upload."""

    run: str = setting("", "folder of a sweep that the tracker did not take")
    tracking: Tracking = setting(Tracking, "where runs are tracked")


def requests(experiment: str, title: str | None, work: Any, about: Mapping[str, Any], table: "pl.DataFrame",
             best: list[dict[str, Any]], known: Mapping[str, Any]) -> dict[str, Any]:  # fmt: skip
    """What the tracker is to hear: the sweep, and the best lanes as its children. Paths are within the folder."""
    from backtest.report.surface import note
    from engine import tracking_names as names

    first = table.row(0, named=True)
    params = {"objective": ", ".join(about["objectives"]), "sampler": about["sampler"], "seed": about["seed"]}
    for key in about["axes"]:
        params[key.removeprefix("strategy.")] = f"{table[key].min()} to {table[key].max()}"
    strategy = ", ".join(dict.fromkeys(type(s.prepared.strategies[0]).__name__ for s in work.structures if s.prepared))
    metrics = {f"best_{k}": first[k] for k in ("sharpe", "total_return", "max_drawdown", "trades")}
    goal = about["objectives"][0].removeprefix("-")
    metrics |= {"best_objective": first[goal], names.LANES_SKIPPED: about["skipped"], "lanes_nan": about["nan"],
                "lanes_failed": about["failed"], "seconds": about["seconds"], **known["metrics"],
                **about["verdict"]["figures"]}  # fmt: skip
    title = title or f"{strategy} sweep of {', '.join(a.removeprefix('strategy.') for a in about['axes'])}"
    parent = {"name": title, "params": {"strategy": strategy, **params}, "metrics": metrics, "tags": known["tags"],
              "curve": [[], []], "points": [], "start_equity": 0.0, "note": note(about, table),
              "dataset": [about["data"]["name"], about["data"]["digest"]]}  # fmt: skip
    return {"experiment": experiment, "parent": parent, "children": best}


def counted(work: Any, about: Mapping[str, Any], table: "pl.DataFrame", effective: float) -> dict[str, Any]:
    """The row by which the ledger counts a sweep."""
    from backtest.sweep import PRUNED
    from engine import ledger
    from engine import tracking_names as names
    from engine.config import config_hash

    ran = [s.prepared for s in work.structures if s.prepared is not None]
    code = [digest for prepared in ran for digest in prepared.identity["strategies"]]
    words = {"lanes": about["hash"], "code": code, "data": ",".join(prepared.tape.digest for prepared in ran)}
    classes = [type(s).__name__ for prepared in ran for s in prepared.strategies]
    every = [ledger.tags(names.SWEEP, prepared.tape, config_hash(words), classes) for prepared in ran]
    tags = dict(every[0])  # its lanes count wherever one of its structures saw data
    for key, most in ((names.FIRST_NS, min), (names.LAST_NS, max)):
        tags |= {key: most((one[key] for one in every), key=int)} if all(key in one for one in every) else {}
    pruned = int((table["status"] == PRUNED).sum())
    return {"tags": tags, "metrics": ledger.figures(table["sharpe"].to_numpy(), effective, pruned)}


def upload(where: Path, tracking: Tracking, helper: Any) -> int:
    """Send what the folder has for the tracker; 3 when it does not answer."""
    from engine import tracking as door

    if sys.stderr.isatty():
        print("Tracking the sweep; MLflow takes a few seconds ...", file=sys.stderr, flush=True)
    told = json.loads((where / "track.json").read_text(encoding="utf-8"))
    try:
        run = send(told, where, tracking, helper, door)
    except TrackingError as error:
        print(f"\nNot tracked: {error}\nThe results are complete in {where}. Send them once the tracker answers: "
              f"tandem mode=upload run={where}", file=sys.stderr)  # fmt: skip
        return 3
    (where / TRACKED).write_text(f"{run.run_id} {told['experiment']}\n", encoding="utf-8")
    place = run.url if run.url.startswith("http") else "make ui (or tandem mode=ui)"
    its_best = f" with its best {len(told['children'])}" if told["children"] else ""
    print(f"Tracked  run {run.run_id[:8]}{its_best} in experiment {told['experiment']}; "
          f"open it with {place}")  # fmt: skip
    return 0


def send(told: Mapping[str, Any], where: Path, tracking: Tracking, helper: Any, door: Any) -> Any:
    """The parent run with the folder's own files, then the children with theirs."""
    common = {"experiment": told["experiment"], "tracking_uri": tracking.uri, "helper": helper}
    with tempfile.TemporaryDirectory(prefix="tandem-") as folder:  # the children's files are not the parent's
        for item in where.iterdir():
            if item.is_file() and item.name not in ("track.json", TRACKED):
                os.symlink(item.resolve(), Path(folder) / item.name)
        run = door.track(**told["parent"], **common, artifacts_dir=folder, context="sweep")
    for child in told["children"]:
        tags = {**child["tags"], "mlflow.parentRunId": run.run_id}
        door.track(**{**child, "tags": tags, "artifacts_dir": where / child["artifacts_dir"]}, **common)
    return run


def run_upload(settings: Upload, dump: Callable[[], str]) -> int:
    """Send a sweep to the tracker that did not take it then."""
    where = Path(settings.run)
    if not settings.run or not (where / "track.json").is_file():
        raise ConfigError(f"mode=upload needs the folder of a sweep, got {settings.run or 'none'}: "
                          "tandem mode=upload run=outputs/<folder>.")  # fmt: skip
    return upload(where, settings.tracking, None)
