"""Strategies by name: built in, installed as a plugin, or a class in any file.

Law 1: a plugin or a file can do all that a built-in can, and is checked alike.
Law 2: a built-in's name cannot be taken by a plugin.
"""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.config import unknown
from engine.errors import ConfigError, StrategyError, TandemError
from engine.kernel.strategy import Strategy

GROUP = "tandem.strategies"  # the entry points of plugins
FILE = "tandem_file_"  # how the module of a file is called
PATH_WORDS = ".py or module, a colon and the class, such as ideas.py:Breakout"


def plugins() -> dict[str, EntryPoint]:
    """Strategies of installed packages, by the name of their entry point."""
    return {point.name: point for point in entry_points(group=GROUP)}


def names() -> list[str]:
    """All names that `find` knows."""
    from strategies import BUILT_IN

    return [*BUILT_IN, *sorted(set(plugins()) - set(BUILT_IN))]


def find(name: str) -> type[Strategy]:
    """The class of a built-in, a plugin, `path/to/file.py:Class` or `package.module:Class`.

    Raises ConfigError for an unknown name and StrategyError for a file that does not load or hold the class.
    """
    from strategies import BUILT_IN

    if is_path(name):
        return _from_path(name)
    if name in BUILT_IN:
        return BUILT_IN[name]
    known = plugins()
    if name not in known:
        raise no_strategy(name)
    try:
        found = known[name].load()
    except (ImportError, AttributeError) as error:
        raise StrategyError(f"The plugin {name!r} ({known[name].value}) does not load: {error}. "
                            "Install it again or remove its package.") from error  # fmt: skip
    return _strategy(found, f"the plugin {name!r} ({known[name].value})")


def no_strategy(name: str, more: Iterable[str] = ()) -> ConfigError:
    """The error for a strategy that has no such name, among ours and `more`."""
    error = unknown("strategy", name, dict.fromkeys([*names(), *(n for n in more if n != "custom")]))
    return ConfigError(f"{error} A class of your own is named by its file: strategy=path/to/file.py:Class.")


def is_path(name: str) -> bool:
    """Whether a strategy is named by its file or module rather than by its own name."""
    return ":" in name or name.endswith(".py")


def _strategy(found: Any, where: str) -> type[Strategy]:
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise StrategyError(f"{where} is no Strategy class; write `class Mine(Strategy)`, from engine.kernel.strategy.")
    return found


def _from_path(name: str) -> type[Strategy]:
    place, _, wanted = name.rpartition(":") if not name.endswith(".py") else (name, "", "")
    if not place:
        raise StrategyError(f"strategy {name!r}: write the path of a {PATH_WORDS}.")
    module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    own = {k: v for k, v in vars(module).items()
           if isinstance(v, type) and issubclass(v, Strategy) and v.__module__ == module.__name__}  # fmt: skip
    if wanted:
        if not hasattr(module, wanted):
            error = unknown("class", wanted, own)
            raise StrategyError(f"{place}: {error}")
        return _strategy(getattr(module, wanted), f"{wanted} in {place}")
    if len(own) != 1:
        raise StrategyError(f"{place} has {len(own) or 'no'} strategies; name one: {place}:Class. "
                            f"There are {', '.join(own) or 'none'}.")  # fmt: skip
    return next(iter(own.values()))


def _load_module(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ImportError as error:
        raise StrategyError(f"module {place} cannot be imported: {error}. A file is named by its path, "
                            "such as ideas.py:Breakout.") from error  # fmt: skip


def _load_file(path: Path) -> ModuleType:
    """A file as a module; the modules beside it can be imported from it, as from a script."""
    full = path.expanduser().resolve()
    if not full.is_file():
        raise StrategyError(f"{path}: there is no such file (looked for {full}).")
    name = f"{FILE}{full.stem}"
    spec = importlib.util.spec_from_file_location(name, full)
    if spec is None or spec.loader is None:
        raise StrategyError(f"{path}: Python cannot load this file as a module.")
    module = importlib.util.module_from_spec(spec)
    if str(full.parent) not in sys.path:
        sys.path.append(str(full.parent))
    sys.modules[name] = module  # where inspect looks for the sources of a class
    try:
        spec.loader.exec_module(module)
    except TandemError:
        raise
    except SyntaxError as error:
        raise StrategyError(f"{path}, line {error.lineno}: {error.msg}: {(error.text or '').strip()}") from error
    except Exception as error:
        line = next(
            (f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == str(full)), 0
        )
        raise StrategyError(f"{path}, line {line}: {type(error).__name__}: {error}") from error
    return module
