"""Vendors of single events: one small file each, whose heart is a table of columns.

A vendor is a module with `Options`, a frozen dataclass of what the caller may say, and
`read(sources, options) -> Iterator[Rows]`. Adding one is adding a file and a line below.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import ConfigError, DataError

if TYPE_CHECKING:
    import polars as pl

VENDORS = {
    "generic": "CSV or Parquet of anyone, with a mapping of columns",
    "binance": "Binance public data: trades, aggTrades, bookTicker, T_DEPTH",
    "binance_ws": "Binance websocket as recorded: diffs with snapshot, trades, bookTicker, markPrice",
    "databento": "Databento DBN: mbo, mbp-1, mbp-10, tbbo, bbo, trades",
    "dukascopy": "Dukascopy bi5 quotes",
    "journal": "the journal of a session: what was traded live",
    "lean": "QuantConnect Lean ticks of equities, FX and futures",
    "lobster": "LOBSTER message and order book files",
    "tardis": "Tardis.dev CSV: trades, quotes, incremental books, book snapshots",
}


@dataclass(frozen=True)
class Rows:
    """Rows of one kind from one file, in their order of arrival.

    `frame`: instrument (null: the file does not say), row (in the file, from 1), ts, recv (Int64, ns UTC, null:
    unreadable) and the columns of the kind; `seq` as well if the reader keeps one order over all kinds (`mixed`),
    counting over all files. A frame of depth holds whole groups. `problems`: rows that the vendor's own rules
    refuse, with the reason. `notes`: what was left out by rule, counted.
    """

    kind: str
    frame: "pl.DataFrame"
    file: str
    mixed: bool = False
    problems: "Sequence[tuple[np.ndarray[Any, Any], str]]" = ()
    notes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Vendor:
    """How the files of a vendor are read."""

    name: str
    options: Any
    read: "Callable[[Sequence[tuple[str | None, Any]], Any], Iterator[Rows]]"


def vendor(name: str, given: dict[str, Any]) -> Vendor:
    """The reader of a vendor with the caller's options. Raises ConfigError for unknown names."""
    if name not in VENDORS:
        raise ConfigError(f"vendor={name!r}; choose one of {', '.join(VENDORS)}.")
    module = import_module(f"engine.store.vendors.{name}")
    known = [item.name for item in fields(module.Options)]
    for key in given:
        if key not in known:
            raise ConfigError(f"vendor {name}: unknown option {key!r}; it has {', '.join(known) or 'none'}.")
    return Vendor(name, module.Options(**given), module.read)


def sources_of(source: Any) -> list[tuple[str | None, Any]]:
    """(instrument or None, path or frame) from a path, a frame, a list, a directory (searched deeply) or a mapping
    by instrument; files of a directory in the order of their names. Raises DataError for a path that is not there."""
    if isinstance(source, dict):
        return [(str(name), item) for name, part in source.items() for _, item in sources_of(part)]
    if isinstance(source, list | tuple):
        return [one for part in source for one in sources_of(part)]
    if not isinstance(source, str | Path):
        return [(None, source)]
    path = Path(source)
    if path.is_dir():
        return [(None, item) for item in sorted(path.rglob("*")) if item.is_file() and not item.name.startswith(".")]
    if not path.is_file():
        raise DataError(f"{path}: no such file or directory; give what the vendor delivered.")
    return [(None, path)]
