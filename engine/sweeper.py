"""`tandem -m`: Hydra's sweep grammar, split into structures that are composed once each, and axes of numbers.

Law 1: a structure (strategy, data, start, …) is composed once; an axis value never is, unless another key interpolates
       an axis: then each lane's settings are resolved one by one, and that is said.
Law 2: what may be an axis is decided by the type of the key alone: parameters of the strategy, numbers of risk and
       venue, the queue model, cash.
"""

import copy
import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import ConfigError

if TYPE_CHECKING:
    from backtest.sampling import Axis

# Keys of the sweep, not of a lane.
NEVER = ("sweep", "executor", "track", "report", "tracking", "output", "name", "on_fault")
Compose = Callable[..., Any]  # `engine.app.compose`


def sweep(given: Sequence[str], compose: Compose) -> "tuple[list[Axis], list[tuple[dict[str, str], Any, Any]]]":
    """The axes, and for each structural combination its own words, its settings and what resolves its lanes."""
    from engine.modes_sweep import Sweep

    axes, structural, fixed = split(given)
    keys = list(structural)
    found = []
    for values in itertools.product(*structural.values()):
        own = dict(zip(keys, values, strict=True))
        words = [*(f"{key}={value}" for key, value in own.items()), *fixed]
        raw = compose("sweep", Sweep, words, raw=True)
        found.append((own, Sweep.of(plain(raw)), extender(raw, axes)))
    return axes, found


def plain(raw: Any) -> dict[str, Any]:
    """A composed configuration as plain values."""
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(raw, resolve=True, throw_on_missing=True)
    return {str(k): v for k, v in found.items()}


def split(given: Sequence[str]) -> "tuple[list[Axis], dict[str, list[str]], list[str]]":
    """Words into axes, structural keys with their choices, and all other words. Raises ConfigError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    axes: list[Axis] = []
    structural: dict[str, list[str]] = {}
    fixed: list[str] = []
    parser = OverridesParser.create()
    for word in given:
        key = word.partition("=")[0].lstrip("+")
        try:
            swept = parser.parse_override(word)
        except HydraException:
            swept = None  # a path or a text that is no grammar of Hydra's: the composer judges it
        if swept is None or not swept.is_sweep_override():
            fixed.append(word)
        elif key.partition(".")[0] in NEVER:
            raise ConfigError(f"{key} belongs to the whole sweep and takes one value, got {word!r}.")
        elif is_axis(key):
            axes.append(axis(key, swept))
        elif swept.is_interval_sweep():
            raise ConfigError(f"{key} is no number, so it takes listed choices and no interval: {word!r}.")
        else:
            structural[key] = list(swept.sweep_string_iterator())
    repeated = [a.key for n, a in enumerate(axes) if a.key in {b.key for b in axes[:n]}]
    if repeated:
        raise ConfigError(f"{repeated[0]} is swept twice; write one list or range.")
    return axes, structural, fixed


def is_axis(key: str) -> bool:
    """Whether the values of a key are lanes of one pass, rather than structures of their own."""
    from backtest.lanes import numeric
    from engine.config import Risk, VenueModel, hints

    group, _, name = key.partition(".")
    if group == "strategy":
        return name not in ("", "name", "path")
    kind: Any = {"risk": Risk, "venue": VenueModel}.get(group)
    return key == "cash" or (kind is not None and bool(name) and (name not in hints(kind) or numeric(kind, name)))


def axis(key: str, swept: Any) -> "Axis":
    """An axis from Hydra's own reading of the word."""
    from backtest.sampling import Axis

    value = swept.value()
    if swept.is_interval_sweep():
        low, high = value.start, value.end
        whole = isinstance(low, int) and isinstance(high, int)
        return Axis(key, (), float(low), float(high), whole, "log" in value.tags)
    if swept.is_range_sweep():
        start, stop, step = value.start, value.stop, value.step
        if all(isinstance(v, int) for v in (start, stop, step)):
            return Axis(key, range(start, stop, step))
        return Axis(key, np.round(start + step * np.arange(max(0, math.ceil((stop - start) / step - 1e-9))), 12))
    if swept.is_choice_sweep() and hasattr(value, "list"):  # a glob has none
        return Axis(key, tuple(number(item) for item in value.list))
    raise ConfigError(f"{key}: a sweep takes a list (5,10,20), range(5,60), choice(…) or interval(0,1).")


def number(item: Any) -> Any:
    """A listed value as Python's own; `.inf` is a text to Hydra's grammar."""
    text = str(getattr(item, "text", item))
    words = {".inf": math.inf, "inf": math.inf, "-.inf": -math.inf}
    return words.get(text, item if isinstance(item, int | float) or item is None else text)


def extender(raw: Any, axes: "Sequence[Axis]") -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What adds to a table of lanes the columns that depend on its axes through interpolation."""
    from omegaconf import OmegaConf

    if "${" not in str(OmegaConf.to_container(raw, resolve=False)):
        return dict
    said = False

    def extend(table: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal said
        point, base = copy.deepcopy(raw), flat(plain(raw))
        (total,) = {len(values) for values in table.values()}
        moved: dict[str, list[Any]] = {}
        for lane in range(total):
            for key, values in table.items():
                OmegaConf.update(point, key, values[lane].item() if hasattr(values[lane], "item") else values[lane],
                                 force_add=True)  # fmt: skip
            for key, value in flat(plain(point)).items():
                if key not in table and value != base.get(key):
                    moved.setdefault(key, [base.get(key)] * total)[lane] = value
        for key in moved:
            if not is_axis(key):
                raise ConfigError(f"{key} interpolates a swept key, but is no number that lanes may differ in; sweep "
                                  "what it depends on as a structure, or give it a value.")  # fmt: skip
        if moved and not said:
            said = True
            print(f"tandem: {', '.join(moved)} depends on swept keys, so each of {total:,} lanes is resolved by "
                  "itself, which is slower.", file=sys.stderr)  # fmt: skip
        return {**table, **{key: np.asarray(values) for key, values in moved.items()}}

    return extend


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping)
        found.update(flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value})
    return found
