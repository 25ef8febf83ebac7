"""mode=backtest: one strategy on history, its results on disk, then in the tracker."""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

from engine import registry
from engine.config import Data, Risk, Settings, Tracking, VenueModel, setting
from engine.errors import ConfigError, TrackingError
from engine.kernel.strategy import Strategy

Dump = Callable[[], str]  # the resolved settings as YAML


@dataclass(frozen=True)
class Chosen(Settings):
    """Settings of the modes that are about one strategy."""

    strategy: dict[str, Any] = setting({}, "name or path, and parameters by their name")

    def made(self) -> Strategy:
        """The strategy with its parameters."""
        given = {str(k): v for k, v in self.strategy.items()}
        name, path = given.pop("name", None), given.pop("path", None)
        if not (name or path):
            raise ConfigError("strategy has neither name nor path; name a strategy: strategy=momentum, "
                              "or a class of yours: strategy=path/to/file.py:Class.")  # fmt: skip
        return registry.find(str(path or name))(**given)


@dataclass(frozen=True)
class Backtest(Chosen):
    """Settings of mode=backtest."""

    data: Data = setting(Data, "where the bars come from")
    instruments: tuple[str, ...] | None = setting(None, "which of the data's instruments (null: all)")
    start: str | None = setting(None, "first bar's close time at the earliest; ISO 8601, UTC if it names no zone")
    end: str | None = setting(None, "bars close before this time")
    cash: float = setting(100_000.0, "at the start, account currency", gt=0)
    risk: Risk = setting(Risk, "limits of the account")
    venue: VenueModel = setting(VenueModel, "the simulated venue")
    on_fault: Literal["raise", "continue"] = setting("raise", "whether one strategy's failure ends the run")
    track: bool = setting(True, "log the run to MLflow")
    report: bool = setting(True, "write report, image, frames and figures below `output`")
    tracking: Tracking = setting(Tracking, "where runs are tracked")
    name: str | None = setting(None, "of the run and its directory (default: the strategy's)")
    output: str = setting("outputs", "directory that gets one directory for each run")

    def prepared(self, strategy: Strategy) -> Any:
        """A run of these settings with a strategy."""
        from backtest import prepare

        return prepare(strategy, self.data.source, instruments=self.instruments, start=self.start, end=self.end,
                       cash=self.cash, risk=self.risk, venue=self.venue, on_fault=self.on_fault, name=self.name,
                       open_options=self.data.options())  # fmt: skip


def run_backtest(settings: Backtest, dump: Dump, checked: Callable[[Any], None] = lambda result: None,
                 tags: Mapping[str, str] | None = None) -> int:  # fmt: skip
    """Run, print, write, track; 3 when only the tracking failed. `checked` looks at the result before all that; `tags`
    are the tracked run's."""
    from backtest.honesty.verdict import judge

    prepared = settings.prepared(settings.made())
    with _helper(settings) as helper:  # not before all settings have proved right: it takes seconds to end
        result = prepared.run()
        checked(result)
        say(result.summary())
        if settings.track and (said := judge(result, settings.tracking.experiment, settings.tracking.uri, helper)).many:
            say(f"\n{fill(said.text, 100)}")
        where = _write(result, settings, dump) if settings.report else None
        if where:
            say(f"\nReport   {where / 'report.html'}")
        return _track(result, settings, where, helper, tags or {}) if settings.track else 0


def say(text: str) -> None:
    """Print; whoever reads us may go away (`| head`): what is still to be written is written all the same."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _helper(settings: Backtest) -> Any:
    """The tracker's process, which imports MLflow while the backtest runs."""
    if not settings.track:
        return nullcontext()
    from engine.tracking import Helper

    return Helper(settings.tracking.uri)


def _write(result: Any, settings: Backtest, dump: Dump) -> Path:
    """All artifacts of a run in one new directory, which appears when it is complete."""
    from engine.store.files import atomic_dir

    where = fresh(settings.output, settings.name or result.config["name"])
    with atomic_dir(where) as part:
        result.save(part)
        result.report(part / "report.html")
        result.image(part / "report.png")
        (part / "config.yaml").write_text(dump(), encoding="utf-8")
    return where


def _track(result: Any, settings: Backtest, where: Path | None, helper: Any, tags: Mapping[str, str]) -> int:
    if sys.stderr.isatty():
        print("Tracking the run; MLflow takes a few seconds ...", file=sys.stderr, flush=True)
    try:
        run = result.track(experiment=settings.tracking.experiment, name=settings.name,
                           tracking_uri=settings.tracking.uri, artifacts_dir=where, helper=helper,
                           tags=tags)  # fmt: skip
    except TrackingError as error:
        kept = f"The results are complete in {where}." if where else "Run it with report=true to keep its results."
        print(f"\nNot tracked: {error}\n{kept} The same command tracks it once the tracker answers.", file=sys.stderr)
        return 3
    print("\n" * (where is None) + f"Tracked  run {run.run_id[:8]} in experiment {settings.tracking.experiment}; open "
          "it with " + (run.url if run.url.startswith("http") else "make ui (or tandem mode=ui)"))  # fmt: skip
    return 0


def fresh(output: str, title: str) -> Path:
    """A directory that does not exist yet, named by the time and a title."""
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in title)
    now = datetime.now(UTC)  # to the millisecond: runs may start together
    first = f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{name}"
    names = (first + (f"-{n}" if n > 1 else "") for n in range(1, sys.maxsize))
    return next(path for name in names if not (path := Path(output) / name).exists())
