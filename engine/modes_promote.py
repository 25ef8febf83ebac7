"""mode=promote: a tracked run into a bundle, a version of a model, and, past every gate, what its alias means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine import modes_engine, registry
from engine.config import Settings, Tracking, setting
from engine.errors import ConfigError
from engine.promote import Ceiling, Gates, promote

Dump = Callable[[], str]


@dataclass(frozen=True)
class Promote(Settings):
    """Settings of mode=promote."""

    run: str = setting("", "id of the tracked run, or how it begins")
    model: str | None = setting(None, "name of the model (null: that of the run, such as momentum)")
    alias: str = setting("live", "what points at the version if all gates pass")
    gates: Gates = setting(Gates, "what the run must show")
    ceiling: Ceiling = setting(Ceiling, "the loosest risk limits that may go live")
    events: int = setting(20_000, "of the run's data, at most, for the causality law", gt=0)
    tries: int = setting(3, "random cuts for it", gt=0)
    seed: int = setting(0, "of the cuts", ge=0)
    tracking: Tracking = setting(Tracking, "where runs are tracked")


def run_promote(settings: Promote, dump: Dump) -> int:
    """Promote; 1 when a gate is shut."""
    from backtest.record import Repeat
    from engine.tracking_models import Models

    if not settings.run:
        raise ConfigError("mode=promote needs a run: tandem mode=promote run=0a1b2c3d, as mode=backtest printed it.")
    repeat = Repeat(registry.find, settings.events, settings.tries, settings.seed)
    found = promote(
        Models(settings.tracking.uri), settings.run, repeat,
        modes_engine.programs(), registry.find, model=settings.model, alias=settings.alias, gates=settings.gates,
        ceiling=settings.ceiling)  # fmt: skip
    print(found)
    if found.moved:
        print(f"Trade    tandem mode=live from={found.version.name}@{settings.alias}")
    return 0 if found.moved else 1


MODES: Mapping[str, tuple[type[Settings], Callable[[Any, Dump], int], str]] = {
    "promote": (Promote, run_promote, "a tracked run to live: bundle, gates, a version of a model"),
}
