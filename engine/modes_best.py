"""mode=best: a lane of a sweep again, in full.

Law: a lane that is run again must give the figures that the sweep had for it; if not, that is an error.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.config import Settings, Tracking, setting
from engine.errors import ConfigError, TandemError
from engine.modes_backtest import Backtest, run_backtest
from engine.modes_upload import TRACKED

SAME = 1e-9  # relative: figures that are streamed and figures that are not


@dataclass(frozen=True)
class Best(Settings):
    """Settings of mode=best."""

    sweep: str = setting("", "folder of a sweep, or the id of its run in the tracker, or how it begins")
    rank: int = setting(1, "which lane, counted from the best", ge=1)
    track: bool = setting(True, "log the run to MLflow")
    report: bool = setting(True, "write report, image, frames and figures below `output`")
    tracking: Tracking = setting(Tracking, "where runs are tracked")
    output: str = setting("outputs", "directory that gets one directory for each run")


def run_best(settings: Best, dump: Callable[[], str]) -> int:
    """One lane of a sweep as a run of its own, in full."""
    from backtest.report.surface import lane_name
    from backtest.sweep import load, settings_of
    from engine import tracking_names as names
    from engine.tracking import artifacts
    from engine.tracking_models import Models

    if not settings.sweep:
        raise ConfigError("mode=best needs a sweep: tandem mode=best sweep=outputs/<folder>, or the id of its run.")
    folder, tracked, experiment = Path(settings.sweep), "", ""
    if not folder.is_dir() and os.sep not in settings.sweep:
        tracked, experiment = (models := Models(settings.tracking.uri)).where(models.run(settings.sweep))
        folder = artifacts(tracked, ("sweep.json", "lanes.parquet"), settings.tracking.uri)
    elif (folder / TRACKED).is_file():
        tracked, experiment = (folder / TRACKED).read_text(encoding="utf-8").rstrip("\n").split(" ", 1)
    about, table = load(folder)
    if settings.rank > table.height:
        raise ConfigError(f"rank={settings.rank}: the sweep has {table.height:,} lanes.")
    row = table.row(settings.rank - 1, named=True)
    if row["status"] != 0:
        raise ConfigError(f"rank={settings.rank}: this lane failed in the sweep (status {row['status']}); run it as a "
                          "backtest to see why.")  # fmt: skip
    lane = Backtest.of({**settings_of(about, row), "track": settings.track, "report": settings.report,
                        "output": settings.output})  # fmt: skip
    lane = replace(lane, tracking=settings.tracking)
    if settings.track and experiment != settings.tracking.experiment:  # else its ledger would count one lane for many
        where = f"in experiment {experiment}" if experiment else "not tracked"
        cure = f"tracking.experiment='{experiment}'" if experiment else f"tandem mode=upload run={folder} first"
        raise ConfigError(f"The sweep is {where}, so experiment {settings.tracking.experiment} does not count its "
                          f"{table.height:,} lanes, and calls luck skill: say {cure}, or track=false.")  # fmt: skip

    def checked(result: Any) -> None:
        check_same(result.metrics, row)
        tested(result, about, settings.rank)
        result.kind, result.title = names.LANE, lane_name(result, about, row)

    tags = {names.RANK: str(settings.rank), **({names.SWEEP_RUN: tracked} if tracked else {})}
    return run_backtest(lane, lambda: dumped(lane), checked, tags)


def dumped(settings: Backtest) -> str:
    """Settings as YAML, as config.yaml has them."""
    from engine.config import yaml_of

    return yaml_of({"mode": "backtest", **asdict(settings)})


def tested(result: Any, about: Mapping[str, Any], rank: int) -> None:
    """What the sweep found out about its choices, for a lane that is run again: out of sample its procedure was tested,
    which takes the best lane, and no other."""
    from backtest.honesty.study import OUT_OF_SAMPLE, shared

    figures, lead = shared(about["verdict"]["figures"]), about["verdict"]["lead"]
    if rank != 1:
        figures = {name: value for name, value in figures.items() if name not in OUT_OF_SAMPLE}
        lead = f"Out of sample: untested; the sweep tested how its best lane fares, and this is the one of rank {rank}."
    result.tested = figures, lead


def check_same(metrics: Mapping[str, float], row: Mapping[str, Any]) -> None:
    """Raises TandemError when a lane that was run again is not what the sweep had found."""
    for name, value in metrics.items():
        had = row.get(name)
        if had is None or (math.isnan(had) and math.isnan(value)):
            continue
        if not abs(had - value) <= SAME * max(1.0, abs(had), abs(value)):
            raise TandemError(f"Lane {row['lane']} gives {name} {value:.12g}, the sweep had {had:.12g}: data, code or "
                              "settings are not those of the sweep. Run the sweep again.")  # fmt: skip
