"""mode=sweep (`tandem -m …`).

Law 1: results are on disk, whole, before the tracker hears of them.
Law 2: whoever waits hears what is being done, at a terminal or not.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

from engine import registry
from engine.config import Settings, setting, unknown
from engine.errors import ClusterError, ConfigError
from engine.executors import Executor, opened, pack
from engine.modes_backtest import Backtest, Dump, fresh
from engine.modes_best import Best, check_same, run_best, tested
from engine.modes_upload import Upload, counted, requests, run_upload, upload

if TYPE_CHECKING:
    import polars as pl

APART = ("sweep", "executor", "track", "report", "output", "tracking")  # settings that decide nothing in a lane
LONG = 50_000_000  # events of lanes that take a second or so
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
    prune: float = setting(0.0, "with optuna: part of the time after which hopeless lanes end (0: none does)",
                           ge=0, lt=1)  # fmt: skip
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


Structures = list[tuple[dict[str, str], Sweep, Callable[[Any], Any]]]


def run_sweep(axes: list[Any], found: Structures, dump: Dump, executor: Any = None) -> int:
    """Run all lanes, print the best, write, track; 3 when only the tracking failed. `executor`: in place of that of the
    settings."""
    from backtest import sweep as sweeps
    from backtest.ranking import Objective
    from backtest.sampling import chosen, count
    from engine.store.files import notice, progress

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
    work = sweeps.Sweep(axes, structures, [Objective.of(o) for o in rules.objective], rules.sampler, rules.lanes,
                        rules.seed, rules.batch, rules.threads, prune=rules.prune)  # fmt: skip
    sweeps_known(rules.objective)
    if rules.prune and (chosen(axes, rules.sampler) != "optuna" or len(rules.objective) > 1):
        raise ConfigError("sweep.prune is for sweep.sampler=optuna and one objective: all lanes of a grid or a sample "
                          "are run, and by several objectives none is hopeless.")  # fmt: skip
    least = {"purged": 2, "combinatorial": 3}.get(rules.split, 1)
    if rules.folds < least:
        raise ConfigError(f"sweep.folds must be >= {least} with sweep.split={rules.split}, got {rules.folds}.")
    root = Path(settings.output) / STORE / work.hash
    work.store = root if rules.resume else None
    start = time.perf_counter()
    work.prepare()
    helper = settings.track and _helper(settings)  # which takes seconds to end, so only once some lanes may run
    try:
        begin = time.perf_counter()
        try:
            announce(work, total, f"tandem: sweep: {total:,} lanes of {structures[0].cls.__name__} on {{}} events")
            with opened(settings.executor) as own, progress(total, "sweep", "lanes") as shown:
                work.executor, work.told = executor or own, shown.update
                table = work.run()
        except (KeyboardInterrupt, ClusterError):
            if root.exists():
                print(f"\ntandem: interrupted; finished shards are in {root}, the same command goes on with them.",
                      file=sys.stderr)  # fmt: skip
            raise
        about = sweeps.manifest(work, table, time.perf_counter() - begin, begin - start)
        print(said(about, table, rules), flush=True)
        notice("Asking how likely this is luck ...")
        how = "tests of luck" if rules.split == "none" else f"{rules.split} over {rules.folds} folds and tests of luck"
        announce(work, total, f"tandem: validation: {table.height:,} lanes, {how}")
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


def announce(work: Any, total: int, text: str) -> None:
    """What begins, for who reads elsewhere than at a terminal; not of a sweep that is over at once."""
    events = max((len(s.prepared.tape.events) for s in work.structures if s.prepared is not None), default=0)
    if not sys.stderr.isatty() and total * events > LONG:
        print(text.format(f"{events:,}"), file=sys.stderr, flush=True)


def said(about: Mapping[str, Any], table: "pl.DataFrame", rules: Rules) -> str:
    """The best lanes and what became of the others, for a terminal."""
    from backtest.report.surface import lanes_text

    counts = [f"{about['lanes']:,} lanes x {about['data']['events']:,} events in {about['seconds']:.1f} s"]
    if about["preparing"] >= 1.0:
        counts[0] += f", after {about['preparing']:.1f} s to read the data and to compile"
    for key, text in (("skipped", "skipped by the strategy's own rule"), ("nan", "without a figure, ranked last"),
                      ("idle", "closed no trade, so that their figures are those of what they hold"),
                      ("failed", "failed or halted"),
                      ("pruned", "pruned after the first part of the time"), ("alone", "run alone for exact figures"),
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
    from backtest.ranking import Objective
    from backtest.report.surface import value
    from backtest.sweep import PRUNED, columns, day
    from engine.ledger import alone
    from engine.store.files import progress

    rules, number = settings.sweep, table["structure"][0]
    mine, chosen = table.filter((table["structure"] == number) & (table["status"] != PRUNED)), work.structures[number]
    lanes = columns(mine, [k for k in mine.columns if (k == "cash" or "." in k) and k not in chosen.names])
    goal = Objective.of(rules.objective[0])
    with progress(None, "validation", "lanes") as shown:
        found = study(chosen.prepared, lanes, split=rules.split, folds=rules.folds, objective=goal.name,
                      sign=goal.sign, purge_days=rules.purge_days, seed=rules.seed, threads=rules.threads or None,
                      told=shown.update)  # fmt: skip
    known = counted(work, about, table, found.effective * table.height / mine.height)
    place = settings.tracking
    book = heard(place.experiment, known, place.uri, helper) if helper else (alone(known), False)
    several = table["structure"].n_unique()
    said = found.judge(*book, rules.seed, tried=table.height, structures=several)
    tests = found.validation
    choices = [] if tests is None else [choice._asdict() for choice in tests.choices]
    spans = [] if tests is None else [span for fold in tests.folds for span in fold.test]
    edges = [min(s.start for s in spans), max(s.end for s in spans) - 1] if spans else []
    assumed = ", ".join(f"{k}={value(table[k][0])}" for k in about["axes"] if k.startswith("venue.")
                        and table[k].n_unique() > 1)  # fmt: skip
    free = f" The choice was free to take {assumed}, which nobody can choose: ask again with what you expect."
    about["verdict"] = {"word": said.word, "lead": said.lead, "text": said.text + free * bool(assumed),
                        "figures": said.figures,
                        "choices": choices, "split": rules.split, "tested": [day(edge) for edge in edges]}  # fmt: skip
    return known, book


def _write(settings: Sweep, work: Any, table: "pl.DataFrame", about: dict[str, Any], dump: Dump,
           known: Mapping[str, Any], book: Any) -> Path:  # fmt: skip
    """Everything of a sweep in one new directory, which appears when it is complete."""
    from backtest.report import surface
    from engine.store.files import atomic_dir

    given = about["structures"][0]["settings"]["strategy"].get("name") or work.structures[0].cls.__name__.lower()
    name = settings.name or str(given)
    where = fresh(settings.output, name if name.endswith("sweep") else f"{name}-sweep")
    with atomic_dir(where) as part:
        table.write_parquet(part / "lanes.parquet")
        (part / "sweep.json").write_text(json.dumps(about, indent=2, default=str) + "\n", encoding="utf-8")
        (part / "config.yaml").write_text(dump(), encoding="utf-8")
        best = [again(work, about, row, rank, part / "best" / str(rank), book)
                for rank, row in chosen_rows(table, settings)]  # fmt: skip
        if settings.report:
            surface.write(about, table, part)
        asked = requests(settings.tracking.experiment, settings.name, work, about, table, best, known)
        (part / "track.json").write_text(json.dumps(asked), encoding="utf-8")
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


def _forget(root: Path) -> None:
    """Shards whose lanes are in a table now."""
    from engine.store.files import remove

    remove(root)
    if root.parent.is_dir() and not any(root.parent.iterdir()):
        root.parent.rmdir()


def no_sweep(settings: Sweep, dump: Dump) -> int:
    """What `mode=sweep` is without an axis. Raises ConfigError."""
    return run_sweep([], [({}, settings, dict)], dump)


MODES: Mapping[str, tuple[type[Settings], Callable[[Any, Dump], int], str]] = {
    "sweep": (Sweep, no_sweep, "many lanes over one tape: `tandem -m strategy.fast='range(5,60)'`"),
    "best": (Best, run_best, "one lane of a sweep as a full run of its own"),
    "upload": (Upload, run_upload, "send a sweep to the tracker that did not answer when it ended"),
}
