"""What the program can do: one class of settings and one callable for each mode.

Law 1: a mode composes parts from below and decides nothing that they decide.
Law 2: what a run writes is complete or absent, and it is on disk before the tracker hears of it.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

from engine import modes_demo, modes_engine, modes_live, modes_promote, modes_sweep, registry
from engine.config import Data, Settings, Tracking, VenueModel, setting
from engine.errors import ConfigError
from engine.modes_backtest import Backtest, Chosen, Dump, run_backtest


@dataclass(frozen=True)
class Import(Settings):
    """Settings of mode=import: those of `engine.store.import_bars`, or with `vendor` of `engine.store.import_ticks`."""

    sources: tuple[str, ...] = setting((), "files (CSV, .csv.gz, ZIP, Parquet, Feather) or directories of such")
    name: str = setting("", "of the new dataset")
    root: str | None = setting(None, "directory of the datasets (default: TANDEM_DATA, else ./data)")
    columns: dict[str, Any] = setting({}, "our name -> theirs, for ts, open, high, low, close, volume, instrument, …")
    header: tuple[str, ...] | None = setting(None, "names of the columns of files that have none")
    skip_rows: int = setting(0, "rows before the header", ge=0)
    separator: str | None = setting(None, "between the cells of CSV (null: found in its first line)")
    decimal: Literal[".", ","] = setting(".", "of numbers in CSV")
    price_scale: float = setting(1.0, "factor on all prices", gt=0)
    timezone: str = setting("UTC", "of times that carry none")
    label: Literal["start", "end"] | None = setting(None, "whether times start or end their bars")
    interval: str | None = setting(None, "length of a bar, such as 1m or 1d (default: the median step)")
    time_format: str | None = setting(None, "of times as text, such as %d.%m.%Y")
    instruments: dict[str, Any] = setting({}, "metadata for all, or under an instrument's name for that one")
    actions: str | None = setting(None, "CSV or Parquet of splits and dividends: instrument, ts, kind, ratio, amount")
    adjust: Literal["apply", "events", "none"] = setting("apply", "what becomes of splits and dividends")
    dividend_base: Literal["previous", "ex"] = setting("previous", "close that a dividend's factor refers to")
    on_error: Literal["refuse", "quarantine", "keep"] = setting("refuse", "what becomes of rows that break a rule")
    sort: bool = setting(False, "sort rows by time first")
    max_gap: str | None = setting(None, "longest pause inside a session that is no problem, such as 5m (null: a "
                                        "warning; off)")  # fmt: skip
    overwrite: bool = setting(False, "replace a dataset of that name")
    vendor: str | None = setting(None, "of quotes, trades and depth: generic, binance, binance_ws, databento, "
                                       "dukascopy, journal, lean, lobster, tardis (null: bars)")  # fmt: skip
    instrument: str | None = setting(None, "with vendor: the name, for files that carry none, or which to take")
    recv_shift: str = setting("0", "with vendor: added to the time of receipt, such as 1.5s, or auto")
    book: Literal["snapshot", "empty"] = setting("snapshot", "with vendor: what depth begins with")
    options: dict[str, Any] = setting({}, "with vendor: its own options, such as kind or columns")


@dataclass(frozen=True)
class Check(Chosen):
    """Settings of mode=check."""

    data: Data | None = setting(None, "a dataset or file (null: seeded synthetic bars of three instruments)")
    events: int = setting(2000, "of the data, at most", gt=0)
    short: int = setting(300, "of them for the uncompiled run, which is slow", gt=0)
    tries: int = setting(3, "random cuts for each law that cuts", gt=0)
    seed: int = setting(0, "of the cuts and the synthetic bars", ge=0)


@dataclass(frozen=True)
class Header(Chosen):
    """Settings of mode=header."""

    output: str | None = setting(None, "file to write (null: print it)")


@dataclass(frozen=True)
class Replay(Settings):
    """Settings of mode=replay."""

    journal: str = setting("", "directory of the journal")
    images: Literal["recorded", "present"] = setting(
        "recorded", "whose code runs: that of then, or what sources say now"
    )


@dataclass(frozen=True)
class Twin(Replay):
    """Settings of mode=twin."""

    venue: VenueModel = setting(VenueModel, "the simulated venue")


@dataclass(frozen=True)
class Compile(Settings):
    """Settings of mode=compile."""

    strategies: tuple[str, ...] = setting((), "names or paths (none: all that are known)")
    programs: tuple[str, ...] = setting((), "of the kernel, such as session (none: all)")


@dataclass(frozen=True)
class Ui(Settings):
    """Settings of mode=ui."""

    port: int = setting(5000, "of the UI on this machine", gt=0, lt=65_536)
    tracking: Tracking = setting(Tracking, "where runs are tracked")


TICKS_ONLY = ("vendor", "instrument", "recv_shift", "book", "options")
BOTH = ("sources", "name", "root", "instruments", "on_error", "overwrite")


def _import_ticks(settings: Import, paths: list[Path]) -> Path:
    """Import single events. Raises ConfigError for a setting that only bars have."""
    from engine.store.ticks_import import import_ticks

    for item in fields(settings):
        if item.name not in (*TICKS_ONLY, *BOTH) and getattr(settings, item.name) != getattr(Import(), item.name):
            raise ConfigError(f"{item.name}: for bars only; what a vendor can be told goes into options, such as "
                              f"'options={{{item.name}: ...}}'.")  # fmt: skip
    if settings.vendor == "journal":
        from engine.store.vendors.journal import import_journal

        return import_journal(settings.name, paths[0], root=settings.root, instruments=settings.instruments,
                              on_error=settings.on_error, overwrite=settings.overwrite)  # fmt: skip
    return import_ticks(
        settings.name, paths, vendor=str(settings.vendor), instrument=settings.instrument, root=settings.root,
        instruments=settings.instruments, on_error=settings.on_error, recv_shift=settings.recv_shift,
        book=settings.book, overwrite=settings.overwrite, **settings.options)  # fmt: skip


def run_import(settings: Import, dump: Dump) -> int:
    """Import bars as a dataset."""
    from engine.store.importer import import_bars, summary
    from engine.store.opening import read_table

    if not settings.sources or not settings.name:
        raise ConfigError("mode=import needs what to read and a name: tandem mode=import sources=bars.csv name=mine.")
    for text in settings.sources:
        if not Path(text).exists():
            raise ConfigError(f"sources: {text} does not exist (looked for {Path(text).absolute()}).")
    paths = [Path(text) for text in settings.sources]
    if settings.vendor:
        where = _import_ticks(settings, paths)
    else:
        left = {"sources", "name", "root", "actions", *TICKS_ONLY}
        given: dict[str, Any] = {k: v for k, v in vars(settings).items() if k not in left}
        actions = read_table(Path(settings.actions)) if settings.actions else None
        where = import_bars(paths, settings.name, settings.root, actions=actions, source=", ".join(settings.sources),
                            **given)  # fmt: skip
    shown = where.relative_to(Path.cwd()) if where.is_relative_to(Path.cwd()) else where
    print(f"Imported {shown}\n{summary(where)}\nRun      tandem mode=backtest data={settings.name}")
    return 0


def run_compile(settings: Compile, dump: Dump) -> int:
    """Compile the programs and the strategies that have no image yet, and name all images."""
    from backtest import desk, lane_pass
    from backtest.drive import PROGRAMS
    from backtest.look import look_image
    from engine import session_loop
    from engine.kernel import build
    from engine.live import gate

    found = {name: registry.find(name) for name in settings.strategies or registry.names()}
    every = dict((*PROGRAMS, lane_pass.PROGRAM, session_loop.PROGRAM, session_loop.READER, desk.PROGRAM, gate.PROGRAM))
    images = {name: partial(build.program, name, entries) for name, entries in every.items()} | {"look": look_image}
    if unknown := sorted(set(settings.programs) - set(images)):
        raise ConfigError(f"no program {unknown[0]!r}; there are {', '.join(images)}.")
    for name in settings.programs or images:
        print(f"{name:<24} {images[name]().digest}", flush=True)
    for name, strategy in found.items():
        print(f"{name:<24} {build.handlers(strategy).digest}", flush=True)
    return 0


def run_check(settings: Check, dump: Dump) -> int:
    """Hold a strategy to every law."""
    from backtest.check import check_strategy

    about: dict[str, Any] = {"open_options": settings.data.options()} if settings.data else {}
    print(check_strategy(settings.made(), settings.data and settings.data.source, events=settings.events,
                         short=settings.short, tries=settings.tries, seed=settings.seed, **about))  # fmt: skip
    return 0


def run_header(settings: Header, dump: Dump) -> int:
    """The C header for a strategy in another language."""
    from engine.kernel.header import header
    from engine.store.files import atomic_file

    text = header(type(settings.made()))
    if settings.output is None:
        print(text, end="")
        return 0
    with atomic_file(Path(settings.output)) as part:
        part.write_text(text, encoding="utf-8")
    print(f"Header   {settings.output}")
    return 0


def run_replay(settings: Replay, dump: Dump) -> int:
    """Drive the kernel of a journal again; 1 when an order differs."""
    from engine.replay import replay

    if not settings.journal:
        raise ConfigError("mode=replay needs a journal: tandem mode=replay journal=journals/mine.")
    print(found := replay(settings.journal, registry.find, exact=settings.images == "recorded"))
    return 1 if found.difference else 0


def run_twin(settings: Twin, dump: Dump) -> int:
    """What happened in a session, beside what the simulated venue makes of the same market."""
    from backtest.twin import twin

    if not settings.journal:
        raise ConfigError("mode=twin needs a journal: tandem mode=twin journal=journals/mine.")
    print(twin(settings.journal, registry.find, settings.venue, exact=settings.images == "recorded"))
    return 0


def check_port(port: int) -> None:
    """Raise ConfigError for a port of this machine that somebody else listens on, or that we may not have."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if sys.platform != "win32":  # else a port whose last user has just left would look taken
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"port={port} cannot be had on 127.0.0.1 ({error.strerror}): end the program that uses it, which may "
                f"be another UI, or choose another: tandem mode=ui port={port + 1 if port < 65_535 else port - 1}."
            ) from error


def run_ui(settings: Ui, dump: Dump) -> int:
    """Serve the tracker's UI until Ctrl-C."""
    from engine.tracking_ui import ui

    check_port(settings.port)
    return ui(settings.port, settings.tracking.uri)


MODES: Mapping[str, tuple[type[Settings], Callable[[Any, Dump], int], str]] = {
    "backtest": (Backtest, run_backtest, "run a strategy on history: figures, report, tracked run"),
    "import": (Import, run_import, "bars, or quotes, trades and depth of a vendor, into a dataset, validated"),
    "check": (Check, run_check, "hold a strategy to every law: no look-ahead, same bytes however it is run"),
    "replay": (Replay, run_replay, "drive the kernel of a journal again: the same orders, byte for byte"),
    "twin": (Twin, run_twin, "the market of a journal at the simulated venue, beside what really happened"),
    "header": (Header, run_header, "the C header for a strategy in C, Rust or Go"),
    "compile": (Compile, run_compile, "compile the kernel and the strategies ahead"),
    "ui": (Ui, run_ui, "the tracked runs in the browser"),
    **modes_sweep.MODES,
    **modes_live.MODES,
    **modes_engine.MODES,
    **modes_demo.MODES,
    **modes_promote.MODES,
}
