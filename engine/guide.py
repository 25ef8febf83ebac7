"""`tandem --help` and tab completion: everything they say is read from the settings and the strategies themselves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.config import Settings, allowed, hints, keys, options, preset
from engine.errors import StrategyError
from engine.kernel.strategy import BOUNDS, Strategy
from engine.modes import MODES

HEAD = """Tandem: one strategy core, two seats: history and live.

  tandem mode=backtest strategy=momentum strategy.fast=20 data=equities start=2005-01-01 venue.taker_bps=5
  tandem mode=backtest strategy=ideas.py:Breakout strategy.entry=40 data=bars.csv track=false
"""
TAIL = """Flags: -m (a sweep: keys take several values), --cfg job (print the resolved settings, of mode=backtest if
  none is named, and stop), --help, --version, --completion bash|zsh.
A file conf/GROUP/NAME.yaml in the working directory is a choice GROUP=NAME of your own."""
SHELLS = {
    "bash": "complete -o nospace -o default -C 'tandem --complete' tandem",
    "zsh": "autoload -U +X bashcompinit && bashcompinit\ncomplete -o nospace -o default -C 'tandem --complete' tandem",
}


def text(mode: str = "", composed: Mapping[str, Any] | None = None) -> str:
    """The help: modes, strategies, data, and the keys of a mode (backtest, unless one is named).

    `composed`: what the configuration files give without any setting; it goes before the defaults of the classes.
    """
    parts = [HEAD] if not mode else []
    if not mode:
        parts.append("Modes\n" + rows([(name, about) for name, (_, _, about) in MODES.items()]))
    if mode in ("", "backtest"):
        parts.append(strategies())
        parts.append("Data (data=NAME, or the path of a .parquet or .csv file)\n" + rows([(n, "") for n in datasets()]))
        groups = [(f"{group}=", ", ".join(options(group))) for group in ("risk", "venue", "tracking")]
        parts.append("Presets\n" + rows(groups))
    parts.append(f"Keys of mode={mode or 'backtest'}\n" + rows(key_rows(MODES[mode or "backtest"][0], composed)))
    others = ", ".join(f"tandem mode={name} --help" for name in MODES if name != "backtest")
    parts.append(f"Keys of the other modes: {others}.\n{TAIL}" if not mode else TAIL)
    return "\n\n".join(part.rstrip() for part in parts)


def rows(table: Sequence[tuple[str, ...]]) -> str:
    """Columns, each as wide as its widest cell."""
    wide = [max(len(row[i]) for row in table) for i in range(len(table[0]))] if table else []
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in table)
    return "\n".join(f"  {line}" for line in lines)


def value(given: Any) -> str:
    """A default as it is written on the command line."""
    if given is None or given == {}:
        return "null" if given is None else "{}"
    if isinstance(given, dict):
        return "{" + ",".join(f"{k}: {value(v)}" for k, v in given.items()) + "}"
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, list | tuple):
        return f"[{','.join(map(str, given))}]"
    return f"{given:g}" if isinstance(given, float) and (math.isinf(given) or given.is_integer()) else str(given)


def key_rows(kind: type[Settings], composed: Mapping[str, Any] | None = None) -> Sequence[tuple[str, ...]]:
    """Key, default, range and meaning of every setting; defaults that the configuration files give come first."""
    from dataclasses import MISSING
    from typing import Literal, get_args, get_origin

    found = []
    for name, field in keys(kind).items():
        default = field.default if field.default is not MISSING else {}
        owner: Any = kind
        given: Any = composed or {}
        *path, last = name.split(".")
        for step in path:
            owner, given = hints(owner)[step], given.get(step) or {}
        if last in given and name != "strategy":  # of which the list above tells
            default = given[last]
        hint = hints(owner)[last]
        listed = next((get_args(h) for h in (hint, *get_args(hint)) if get_origin(h) is Literal), ())
        limits = allowed(field.metadata.get("bounds", {})) or "|".join(map(str, listed))
        found.append((name, value(default), limits, str(field.metadata.get("doc", ""))))
    return found


def strategies() -> str:
    """Every known strategy with its parameters."""
    from engine.registry import find, names

    parts = ["Strategies (strategy=NAME strategy.PARAMETER=VALUE, or strategy=path/to/file.py:Class)"]
    for name in names():
        try:
            cls = find(name)
        except StrategyError as error:  # a plugin that does not load is no reason to withhold the help
            parts.append(f"  {name}: {error}")
            continue
        parts.append(f"  {name}: {(cls.__doc__ or '').strip().splitlines()[0] if cls.__doc__ else cls.__qualname__}")
        parts.append("\n".join("  " + line for line in rows(param_rows(cls, preset("strategy", name))).splitlines()))
    return "\n".join(part for part in parts if part.strip())


def param_rows(cls: type[Strategy], given: Mapping[str, Any]) -> Sequence[tuple[str, ...]]:
    """Name, default, range and meaning of every parameter; `given` are those of conf/strategy."""
    return [(key, value(given.get(key, p.default)), " and ".join(f"{BOUNDS[w][0]} {b}" for w, b in p.bounds.items()),
             p.doc) for key, p in cls.params.items()]  # fmt: skip


def datasets() -> list[str]:
    """Datasets that exist, and samples that make themselves."""
    from engine.store.files import datasets_root
    from engine.store.samples import SAMPLES

    return sorted({*SAMPLES, *(item.parent.name for item in datasets_root().glob("*/dataset.json"))})


def completion(shell: str) -> str:
    """What a shell must evaluate to complete `tandem`: eval "$(tandem --completion bash)"."""
    return SHELLS[shell]


def complete(words: list[str]) -> str:
    """Completions of the word under the cursor, one on a line; the shell gives command, word and the word before."""
    import os

    word = words[1] if len(words) > 1 else ""
    line = os.environ.get("COMP_LINE", "")
    mode = next((m for m in MODES if f"mode={m} " in line), "backtest")
    key, mark, _ = word.partition("=")
    choices: list[str] = []
    if mark:
        known = {"mode": list(MODES), "data": datasets(), "strategy": options("strategy")}
        listed = known.get(key) or options(key)
        choices = [f"{key}={name}" for name in listed]
    else:
        strategy = next((w.partition("=")[2] for w in line.split() if w.startswith("strategy=")), "momentum")
        choices = [
            "mode=",
            *(f"{key}=" for key in ("strategy", "data", "risk", "venue")),
            *(f"{k}=" for k in keys(MODES[mode][0])),
        ]
        choices += [f"strategy.{name}=" for name in _params(strategy)]
    return "\n".join(c for c in dict.fromkeys(choices) if c.startswith(word))


def _params(name: str) -> list[str]:
    from strategies import BUILT_IN

    return list(BUILT_IN[name].params) if name in BUILT_IN else []
