"""mode=demo: a live session on this machine in one command, its replay and its twin."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine import registry
from engine.config import Settings, setting

Dump = Callable[[], str]


@dataclass(frozen=True)
class Demo(Settings):
    """Settings of mode=demo."""

    strategy: dict[str, Any] = setting({}, "name or path, and parameters by their name")
    data: str = setting("ticks", "name of the dataset that is published")
    speed: float = setting(30.0, "times as fast as it happened", gt=0)
    seconds: float = setting(60.0, "of trading", gt=0)
    cash: float = setting(100_000.0, "at the start, account currency", gt=0)
    output: str = setting("outputs", "directory that gets one directory for each demo: journal and logs")


def run_demo(settings: Demo, dump: Dump) -> int:
    """Trade, stop, replay, compare; 1 when the replay differs."""
    from backtest.twin import twin
    from engine.live.demo import Demo as Played
    from engine.replay import replay

    now = datetime.now(UTC)
    folder = (Path(settings.output) / f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-demo").absolute()
    folder.mkdir(parents=True)
    given = {str(k): v for k, v in settings.strategy.items()}
    name, path = given.pop("name", None), given.pop("path", None)
    words = [f"strategy={path or name}", *(f"strategy.{k}={v}" for k, v in given.items())]
    played = Played(folder, words, settings.data, settings.speed, settings.seconds, settings.cash)
    journal = played.run(lambda line: print(line, flush=True))
    shown = journal.relative_to(Path.cwd()) if journal.is_relative_to(Path.cwd()) else journal
    print(f"Journal  {shown}\nReplay   ", end="", flush=True)
    found = replay(journal, registry.find)
    print(f"{found}\n\n{twin(journal, registry.find)}", flush=True)
    return 1 if found.difference else 0


MODES: Mapping[str, tuple[type[Settings], Callable[[Any, Dump], int], str]] = {
    "demo": (Demo, run_demo, "a live session on this machine: servers, venue, data, engine; then its replay and its "
             "twin"),
}  # fmt: skip
