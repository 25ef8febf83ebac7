"""The command line: `tandem mode=backtest strategy=momentum strategy.fast=20`, composed by Hydra.

Law 1: one grammar, `key=value`, for everything; a mode is a root of the configuration and one callable.
Law 2: what is wrong with a setting is said in one paragraph with the choices; a traceback means a bug of ours.
Law 3: nothing is imported before it is needed: the way to the figures of a backtest decides how the tool feels.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args

from engine.errors import ConfigError, TandemError
from engine.interrupts import INTERRUPTED, end_when_stuck

if TYPE_CHECKING:
    from engine.config import Settings

OPEN = {"strategy": "name", "data": "source"}  # groups that take any name or path, and the key that gets it
FLAGS = "-m, --help, --cfg job|hydra|all, --version, --completion bash|zsh"
COMPUTES = ("backtest", "best", "check")  # modes that run handlers of a user's


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0, 2 for an error, 130 for Ctrl-C; a mode may give another."""
    try:
        return run(list(sys.argv[1:] if argv is None else argv))
    except TandemError as error:
        print(f"tandem: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ntandem: interrupted; nothing half-written was left behind.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # `tandem --help | head` closes our output; Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def run(argv: list[str]) -> int:
    """What the arguments ask for. Raises TandemError."""
    flags, given = split(argv)
    if "--version" in flags:
        from importlib.metadata import version

        print(f"tandem {version('tandem')}")
        return 0
    if "--completion" in flags or "--complete" in flags:
        from engine import guide

        print(guide.completion(flags["--completion"]) if "--completion" in flags else guide.complete(given))
        return 0
    from engine.modes import MODES

    mode = chosen_mode(given, MODES, optional=bool({"--help", "--cfg", "--multirun"} & set(flags)))
    if "--help" not in flags and (mode in COMPUTES or "--multirun" in flags):
        end_when_stuck()
    if "--multirun" in flags and "--help" not in flags:
        return multirun(mode, given, flags)
    if not mode and "--cfg" in flags and "--help" not in flags:
        mode = "backtest"  # the mode whose keys the help lists, too
    if "--help" in flags or not mode:
        from engine import guide

        kind = MODES[mode or "backtest"][0]
        print(guide.text(mode, compose(mode or "backtest", kind, [])[0]))
        return 0
    kind, function, _ = MODES[mode]
    composed, hydra = compose(mode, kind, given, full="--cfg" in flags)
    settings = kind.of(composed)
    if "--cfg" in flags:
        print(shown(mode, settings, hydra, flags["--cfg"]), end="")
        return 0
    return function(settings, lambda: shown(mode, settings, {}, "job"))


def multirun(mode: str, given: list[str], flags: Mapping[str, str]) -> int:
    """`-m`: the swept keys of a backtest as lanes. Raises ConfigError for a mode that nobody can sweep."""
    from engine import launchers, sweeper
    from engine.modes_sweep import run_sweep

    if mode not in ("", "backtest", "sweep"):
        raise ConfigError(f"-m sweeps backtests; mode={mode} takes one value for each key.")
    mine, given = launchers.chosen(given)
    axes, found = sweeper.sweep([w for w in given if not w.startswith("mode=")], compose)
    own = {key for structure, _, _ in found for key in structure} | {axis.key for axis in axes}
    swept = {key: value for key, _, value in (w.lstrip("+").partition("=") for w in given) if key in own}

    def text() -> str:
        return shown("sweep", found[0][1], {"swept": swept}, "all")

    if "--cfg" in flags:
        print(text(), end="")
        return 0
    executor = launchers.Launched(mine, found[0][1].sweep.threads) if mine else None
    return run_sweep(axes, found, text, executor)


def split(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Flags with their values, and the overrides. Raises ConfigError for what is neither."""
    flags: dict[str, str] = {}
    given: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word in ("-h", "--help", "--version", "-m", "--multirun"):
            flags[{"-h": "--help", "-m": "--multirun"}.get(word, word)] = ""
        elif word == "--complete":
            return {word: ""}, list(rest)
        elif word in ("--cfg", "-c", "--completion"):
            flags["--cfg" if word == "-c" else word] = next(rest, "")
        elif ("=" in word and not word.startswith("-")) or word.startswith("~"):
            given.append(word)
        else:
            raise ConfigError(f"{word!r} is no setting; write key=value, such as mode=backtest or strategy.fast=20. "
                              f"Flags are {FLAGS}.")  # fmt: skip
    choices = {"--cfg": ("job", "hydra", "all"), "--completion": ("bash", "zsh")}
    for flag, known in choices.items():
        if flags.get(flag, known[0]) not in known:
            raise ConfigError(f"{flag} takes one of {', '.join(known)}.")
    return flags, given


def chosen_mode(given: list[str], known: Mapping[str, Any], optional: bool = False) -> str:
    """The mode among the overrides; without any, the empty text."""
    named = [word.partition("=")[2] for word in given if word.partition("=")[0] == "mode"]
    if not named and given and not optional:
        raise ConfigError(f"Name a mode: tandem mode=backtest {' '.join(given)}. There are {', '.join(known)}.")
    if named and named[-1] not in known:
        from engine.config import unknown

        raise unknown("mode", named[-1], known)
    return named[-1] if named else ""


def compose(mode: str, kind: "type[Settings]", given: list[str], full: bool = False, raw: bool = False) -> Any:
    """The composed settings as plain values, and Hydra's own if `full`; with `raw` as Hydra has them, interpolations
    unresolved. Raises ConfigError."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    from engine.config import CONF

    own_folder_first()
    words = [w for w in rewritten(kind, given) if w.partition("=")[0] != "mode"]
    with _foreign(), initialize_config_dir(str(CONF), version_base="1.3", job_name="tandem"):
        found = hydra_compose(mode, words, return_hydra_config=full)
        if raw:
            OmegaConf.set_readonly(found, False)
            OmegaConf.set_struct(found, False)
            return found
        hydra = OmegaConf.to_container(found.hydra, resolve=False) if full else {}
        if full:
            OmegaConf.set_readonly(found, False)
            OmegaConf.set_struct(found, False)
            del found["hydra"]
        plain = OmegaConf.to_container(found, resolve=True, throw_on_missing=True)
    settings: Any = plain
    return {str(k): v for k, v in settings.items()}, {"hydra": hydra} if full else {}


@functools.cache
def own_folder_first() -> None:
    """Let Hydra look into `conf` of the working directory before ours."""
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    from engine.config import folders

    class OwnConf(SearchPathPlugin):
        """`conf` of the working directory comes before ours."""

        def manipulate_search_path(self, search_path: Any) -> None:
            for folder in folders()[:-1]:
                search_path.prepend("own", f"file://{folder}")

    Plugins.instance().register(OwnConf)


def rewritten(kind: "type[Settings]", given: list[str]) -> list[str]:
    """Overrides as Hydra wants them: a name or path that is no file of its group becomes the group's `custom`, and
    keys need no `+`, because our own schema judges them."""
    from engine.config import keys, options, spoken, unknown

    known = [spoken(f.name) for f in fields(kind)]
    texts = {name for name in keys(kind) if hints_of(kind, name) in (str, str | None)}
    words: list[str] = []
    check_brought(kind, given)
    if any(w.startswith("strategy.path=") for w in given) and not any(w.startswith("strategy=") for w in given):
        given = ["strategy=custom", *given]
    for word in given:
        key, _, value = word.partition("=")
        if key.startswith(("+", "~", "hydra.", "hydra/")) or key == "mode":
            words.append(word)
        elif key.partition(".")[0] not in known:
            # Hydra would speak of its groups, where `conf` has one of that name that this mode does not know.
            raise unknown("key", key, known)
        elif is_group(kind, key):
            if value == "null" and optional(kind, key):
                words = [w for w in words if w.lstrip("+").partition("=")[0].partition(".")[0] != key]
            elif value in options(key):
                words.append(word)
            elif key not in OPEN:
                raise unknown(f"choice of {key}", value, options(key))
            elif "," in value and not os.path.exists(value):
                words.append(word)  # a sweep, which Hydra knows how to speak about
            else:
                check_name(key, value)
                words += [f"{key}=custom", f"++{key}.{open_key(key, value)}={quoted(value)}"]
        else:
            words.append(f"++{key}={quoted(value) if key in texts or key == 'strategy.path' else value}")
    return words


def check_brought(kind: "type[Settings]", given: list[str]) -> None:
    """Raises ConfigError for a setting beside one that brings it."""
    for key, others in kind.brought.items():
        if any(word.startswith(f"{key}=") and word not in (f"{key}=", f"{key}=null") for word in given):
            for word in given:
                named = word.lstrip("+~").partition("=")[0]
                if named.partition(".")[0] in others:
                    raise ConfigError(f"{named}: {key}=… brings {', '.join(others)} as they were tested; leave it out, "
                                      "or run and promote what you want.")  # fmt: skip


def check_name(group: str, value: str) -> None:
    """Raises ConfigError for a strategy that is no file of its group, no class by its path and no plugin."""
    from engine.config import options
    from engine.registry import is_path, names, no_strategy

    if group == "strategy" and not is_path(value) and value not in names():
        raise no_strategy(value, options(group))


def is_group(kind: "type[Settings]", key: str) -> bool:
    """Whether a key chooses a file of a group."""
    from engine.config import Settings, hints

    found = [hint for hint in either(hints(kind).get(key)) if isinstance(hint, type) and issubclass(hint, Settings)]
    return key in hints(kind) and (key == "strategy" or bool(found))


def optional(kind: "type[Settings]", key: str) -> bool:
    """Whether a key may be null."""
    from engine.config import hints

    return type(None) in either(hints(kind)[key])


def either(hint: Any) -> tuple[Any, ...]:
    """The types that a hint allows, one by one."""
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)


def open_key(group: str, value: str) -> str:
    """Which key of an open group gets a name or a path."""
    from engine.registry import is_path

    return "path" if group == "strategy" and is_path(value) else OPEN[group]


def hints_of(kind: "type[Settings]", key: str) -> Any:
    """The type of a dotted key."""
    from engine.config import hints

    first, _, rest = key.partition(".")
    return hints_of(hints(kind)[first], rest) if rest else hints(kind)[first]


def quoted(value: str) -> str:
    """A text that Hydra's grammar would not take as one word, in quotes; quoted, empty and null ones as they are."""
    plain = all(c.isalnum() or c in "_-./:,$@*?%+|" for c in value)
    if plain or value[:1] in "'\"[" or "${" in value:
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@contextlib.contextmanager
def _foreign() -> Iterator[None]:
    """Errors of Hydra and OmegaConf in our words."""
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
    from yaml import MarkedYAMLError, YAMLError

    try:
        yield
    except MissingMandatoryValue as error:
        key = error.full_key
        raise ConfigError(f"{key} is missing; give it: {key}=…") from error
    except MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        where = f"{at.name}, line {at.line + 1}" if at else "a configuration file"
        raise ConfigError(f"{where}: no YAML that can be read ({error.problem or error.context}); correct it. "
                          "A line is `key: value`.") from error  # fmt: skip
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"A file of conf is no text in UTF-8 ({error}); write it again.") from error
    except (HydraException, OmegaConfBaseException) as error:
        text = str(error)
        lines = [line.strip() for line in text.splitlines() if line.strip() and "hydra.cc" not in line]
        cure = "A list is written key=[a,b]; a text with commas or brackets is quoted twice: \"key='a,b'\"."
        if "To sweep over it" in text:
            what = lines[0].removeprefix("Ambiguous value for argument ").replace("++", "")
            raise ConfigError(f"{what}: several values ask for a sweep: tandem -m …. {cure}") from error
        if isinstance(error, OverrideParseException):
            raise ConfigError(f"{error.override.lstrip('+')!r} cannot be read ({lines[-1]}). {cure}") from error
        raise ConfigError(f"The configuration cannot be composed: {' '.join(lines)}") from error


def shown(mode: str, settings: "Settings", hydra: Mapping[str, Any], part: str) -> str:
    """The resolved settings as YAML, with every default in its place."""
    from omegaconf import OmegaConf

    from engine.config import spoken

    plain = {"mode": mode, **{spoken(key): value for key, value in asdict(settings).items()}}
    if hasattr(settings, "made") and mode != "sweep":  # a sweep's own strategy may be none: its lanes are
        plain["strategy"] = {**plain["strategy"], **settings.made().values}
    chosen = {"job": plain, "hydra": dict(hydra), "all": {**plain, **hydra}}[part]
    return OmegaConf.to_yaml(chosen)


if __name__ == "__main__":
    sys.exit(main())
