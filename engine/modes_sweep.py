"""mode=sweep (`tandem -m …`) and mode=best.

Law 1: results are on disk, whole, before the tracker hears of them.
Law 2: a lane that is run again must give the figures that the sweep had for it; if not, that is an error.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

from engine import registry
from engine.config import Settings, Tracking, setting, unknown
from engine.errors import ClusterError, ConfigError, TandemError
from engine.executors import Executor, opened, pack
from engine.modes_backtest import Backtest, Dump, fresh, run_backtest
from engine.modes_upload import TRACKED, Upload, counted, requests, run_upload, upload

if TYPE_CHECKING:
    import polars as pl

SAME = 1e-9  # relative: figures that are streamed and figures that are not
APART = ("sweep", "executor", "track", "report", "output", "tracking")  # settings that decide nothing in a lane
STORE = ".sweeps"  # below the output: shards of sweeps that are not finished


@dataclass(frozen=True)
class Rules(Settings):
    """How a sweep goes about its lanes."""

    where = "sweep"

    objective: tuple[str, ...] = setting(("sharpe",), "figures to maximise, with a minus before them to minimise")
    sampler: Literal["auto", "grid", "random", "sobol", "optuna"] = setting(
        "auto", "which points are lanes (auto: the grid; sobol where an axis is an interval)"
    )
    lanes: int = setting(1000, "how many, unless all of a grid", gt=0)
    seed: int = setting(0, "of what is drawn", ge=0)
    batch: int = setting(256, "lanes between two looks of optuna at what came of them", gt=0)
    most: int = setting(1_000_000, "lanes that need no sweep.force", gt=0)
    force: bool = setting(False, "insist on more lanes than sweep.most")
    best: int = setting(5, "lanes that are run again in full, with reports", ge=0, le=50)
    show: int = setting(10, "lanes that are printed", ge=1)
    threads: int = setting(0, "of this machine (0: one for each core)", ge=0)
    split: Literal["walk_forward", "anchored", "holdout", "purged", "combinatorial", "none"] = setting(
        "walk_forward", "how the time is cut to choose lanes on one part and measure them on another"
    )
    folds: int = setting(5, "parts of the tested time (combinatorial: of all time)", ge=1)
    purge_days: float = setting(0.0, "what lies so close to a test is not chosen on", ge=0)
    resume: bool = setting(True, "go on with what an interrupted sweep of the same lanes has left on disk")


@dataclass(frozen=True)
class Sweep(Backtest):
    """Settings of mode=sweep: those of a backtest, any of them swept, and the sweep's own."""

    sweep: Rules = setting(Rules, "how the sweep goes about its lanes")
    executor: Executor = setting(Executor, "which machines run the lanes")


@dataclass(frozen=True)
class Best(Settings):
    """Settings of mode=best."""

    sweep: str = setting("", "folder of a sweep, or the id of its run in the tracker, or how it begins")
    rank: int = setting(1, "which lane, counted from the best", ge=1)
    track: bool = setting(True, "log the run to MLflow")
    report: bool = setting(True, "write report, image, frames and figures below `output`")
    tracking: Tracking = setting(Tracking, "where runs are tracked")
    output: str = setting("outputs", "directory that gets one directory for each run")


Structures = list[tuple[dict[str, str], Sweep, Callable[[Any], Any]]]


def run_sweep(axes: list[Any], found: Structures, dump: Dump) -> int:
    """Run all lanes, print the best, write, track; 3 when only the tracking failed."""
    from backtest import sweep as sweeps
    from backtest.sampling import chosen, count
    from engine.store.files import notice

    settings = found[0][1]
    rules = settings.sweep
    if not axes and len(found) == 1:
        raise ConfigError("Nothing is swept: give a key several values, such as strategy.fast=5,10,20, "
                          "strategy.fast='range(5,60)' or venue.taker_bps='interval(0,10)'.")  # fmt: skip
    if not axes:
        raise ConfigError("Only structures are swept and no number; run them one by one, or add an axis such as "
                          "strategy.fast=5,10.")  # fmt: skip
    structures = [structure(*one) for one in found]
    total = len(found) * count(axes, rules.sampler, rules.lanes)
    if total > rules.most:
        sweeps.check_size(total, structures[0].events(), rules.most, rules.force)
    work = sweeps.Sweep(axes, structures, [sweeps.Objective.of(o) for o in rules.objective], rules.sampler, rules.lanes,
                        rules.seed, rules.batch, rules.threads)  # fmt: skip
    if chosen(axes, rules.sampler) != "optuna":
        sweeps_known(rules.objective)
    root = Path(settings.output) / STORE / work.hash
    work.store = root if rules.resume else None
    helper = settings.track and _helper(settings)
    try:
        begin = time.perf_counter()
        try:
            with opened(settings.executor) as work.executor, _progress(total) as shown:
                work.told = shown.update
                table = work.run()
        except (KeyboardInterrupt, ClusterError):
            if root.exists():
                print(f"\ntandem: interrupted; finished shards are in {root}, the same command goes on with them.",
                      file=sys.stderr)  # fmt: skip
            raise
        about = sweeps.manifest(work, table, time.perf_counter() - begin)
        print(said(about, table, rules), flush=True)
        notice("Asking how likely this is luck ...")
        known, book = judged(settings, work, table, about, helper or None)
        print(f"\n{fill(about['verdict']['text'], 100)}", flush=True)
        notice("Writing the results ...")
        where = _write(settings, work, table, about, dump, known, book)
        page = f"Report   {where / 'sweep.html'}\n" if settings.report else ""
        print(f"\nLanes    {where / 'lanes.parquet'}\n{page}"
              f"Again    tandem mode=best sweep={where} rank=1", flush=True)  # fmt: skip
        _forget(root)
        return upload(where, settings.tracking, helper or None) if settings.track else 0
    finally:
        if helper:
            helper.close()


def sweeps_known(objectives: tuple[str, ...]) -> None:
    """Raises ConfigError for an objective that is no figure of a lane, before anything has run."""
    import numpy as np

    from backtest.lane_figures import figures
    from backtest.tally import Tally

    known = figures(np.zeros(1, Tally.dtype), np.ones(1), 1, 252.0, 0, False)[0]
    for text in objectives:
        if text.removeprefix("-") not in known:
            raise unknown("figure in sweep.objective", text.removeprefix("-"), known)


def structure(names: dict[str, str], settings: Sweep, extend: Callable[[Any], Any]) -> Any:
    """One structural combination as the harness wants it."""
    from backtest.sweep import Structure
    from engine.store import open_tape

    given = {str(k): v for k, v in settings.strategy.items()}
    name, path = given.pop("name", None), given.pop("path", None)
    if not (name or path):
        settings.made()  # says what is missing
    data = settings.data
    resolved = {k: v for k, v in asdict(settings).items() if k not in APART}
    return Structure(names, registry.find(str(path or name)), given, settings.prepared, resolved,
                     lambda: len(open_tape(data.source, settings.instruments, settings.start, settings.end,
                                           **data.options())), extend, pack=pack)  # fmt: skip


def _helper(settings: Any) -> Any:
    from engine.tracking import Helper

    return Helper(settings.tracking.uri)


def _progress(total: int) -> Any:
    from engine.store.files import progress

    return progress(total, "sweep", "lanes")


def said(about: Mapping[str, Any], table: "pl.DataFrame", rules: Rules) -> str:
    """The best lanes and what became of the others, for a terminal."""
    from backtest.report.surface import lanes_text

    counts = [f"{about['lanes']:,} lanes x {about['data']['events']:,} events in {about['seconds']:.1f} s"]
    for key, text in (("skipped", "skipped by the strategy's own rule"), ("nan", "without a figure, ranked last"),
                      ("failed", "failed or halted"), ("alone", "run alone for exact figures"),
                      ("from_disk", "taken from an interrupted sweep")):  # fmt: skip
        if about[key]:
            counts.append(f"{about[key]:,} {text}")
    return f"{lanes_text(about, table, rules.show)}\n\n{'; '.join(counts)}."


def judged(settings: Sweep, work: Any, table: "pl.DataFrame", about: dict[str, Any], helper: Any) -> Any:
    """The row by which the ledger counts this sweep, and what it was told; the verdict is written into `about`.

    Of several structures, the one of the best lane is put to the test: the choice among them has seen all data.
    """
    from backtest.honesty.study import study
    from backtest.honesty.verdict import heard
    from backtest.sweep import Objective, columns
    from engine.ledger import alone

    rules, number = settings.sweep, table["structure"][0]
    mine, chosen = table.filter(table["structure"] == number), work.structures[number]
    lanes = columns(mine, [k for k in mine.columns if (k == "cash" or "." in k) and k not in chosen.names])
    goal = Objective.of(rules.objective[0])
    found = study(chosen.prepared, lanes, split=rules.split, folds=rules.folds,
                  objective=goal.name, sign=goal.sign, purge_days=rules.purge_days, seed=rules.seed,
                  threads=rules.threads or None)  # fmt: skip
    known = counted(work, about, table, found.effective * table.height / mine.height)
    place = settings.tracking
    book = heard(place.experiment, known, place.uri, helper) if helper else (alone(known), False)
    several = table["structure"].n_unique()
    said = found.judge(*book, rules.seed, tried=table.height, structures=several)
    choices = [] if found.validation is None else [choice._asdict() for choice in found.validation.choices]
    about["verdict"] = {"word": said.word, "lead": said.lead, "text": said.text, "figures": said.figures,
                        "choices": choices}  # fmt: skip
    return known, book


def _write(settings: Sweep, work: Any, table: "pl.DataFrame", about: dict[str, Any], dump: Dump,
           known: Mapping[str, Any], book: Any) -> Path:  # fmt: skip
    """Everything of a sweep in one new directory, which appears when it is complete."""
    from backtest.report import surface
    from engine.store.files import atomic_dir

    name = settings.name or str(about["structures"][0]["settings"]["strategy"].get("name") or "sweep")
    where = fresh(settings.output, f"{name}-sweep")
    with atomic_dir(where) as part:
        table.write_parquet(part / "lanes.parquet")
        (part / "sweep.json").write_text(json.dumps(about, indent=2, default=str) + "\n", encoding="utf-8")
        (part / "config.yaml").write_text(dump(), encoding="utf-8")
        best = [
            again(work, about, row, rank, part / "best" / str(rank), book) for rank, row in chosen_rows(table, settings)
        ]
        if settings.report:
            surface.write(about, table, part)
        (part / "track.json").write_text(
            json.dumps(requests(settings.tracking.experiment, settings.name, work, about, table, best, known)),
            encoding="utf-8",
        )
    return where


def chosen_rows(table: "pl.DataFrame", settings: Sweep) -> list[tuple[int, dict[str, Any]]]:
    """Rank and row of the lanes that are run again: the best that have a figure."""
    objective = settings.sweep.objective[0].removeprefix("-")
    few = table.head(settings.sweep.best if settings.report else 0).to_dicts()
    return [(n, row) for n, row in enumerate(few, 1) if row["status"] == 0 and not math.isnan(row[objective])]


def again(work: Any, about: Mapping[str, Any], row: Mapping[str, Any], rank: int, where: Path,
          book: Any) -> dict[str, Any]:  # fmt: skip
    """One lane as a full run with its report, below `where`; what the tracker is to hear of it."""
    from backtest.honesty.verdict import judge
    from backtest.record import promotable
    from backtest.report.surface import lane_name
    from backtest.sweep import settings_of
    from engine import tracking_names as names

    settings = Backtest.of({**settings_of(about, row), "track": False, "report": False})
    result = settings.prepared(settings.made()).run()
    check_same(result.metrics, row)
    tested(result, about, rank)
    judge(result, "", book=book)
    result.save(where)
    result.report(where / "report.html")
    result.image(where / "report.png")
    with promotable(result, where) as (_, seals):
        told: dict[str, Any] = result.request({**seals, names.KIND: names.LANE, names.RANK: str(rank)},
                                              lane_name(result, about, row))  # fmt: skip
    return {**told, "artifacts_dir": f"best/{where.name}"}


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


def _forget(root: Path) -> None:
    """Shards whose lanes are in a table now."""
    from engine.store.files import remove

    remove(root)
    if root.parent.is_dir() and not any(root.parent.iterdir()):
        root.parent.rmdir()


def run_best(settings: Best, dump: Dump) -> int:
    """One lane of a sweep as a run of its own, in full."""
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
        result.kind = names.LANE

    tags = {names.RANK: str(settings.rank), **({names.SWEEP_RUN: tracked} if tracked else {})}
    return run_backtest(lane, lambda: dumped(lane), checked, tags)


def dumped(settings: Backtest) -> str:
    """Settings as YAML, as config.yaml has them."""
    from engine.config import yaml_of

    return yaml_of({"mode": "backtest", **asdict(settings)})


def no_sweep(settings: Sweep, dump: Dump) -> int:
    """What `mode=sweep` is without an axis. Raises ConfigError."""
    return run_sweep([], [({}, settings, dict)], dump)


MODES: Mapping[str, tuple[type[Settings], Callable[[Any, Dump], int], str]] = {
    "sweep": (Sweep, no_sweep, "many lanes over one tape: `tandem -m strategy.fast='range(5,60)'`"),
    "best": (Best, run_best, "one lane of a sweep as a full run of its own"),
    "upload": (Upload, run_upload, "send a sweep to the tracker that did not answer when it ended"),
}
