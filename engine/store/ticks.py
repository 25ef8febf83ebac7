"""Datasets of single events: quotes, trades, depth and funding on disk, and how they are compiled into a tape.

    <root>/<name>/dataset.json                              "kind": "ticks"
                  instruments.json, quarantine.parquet      as for bars
                  quotes/instrument=X/part-0.parquet        ts, recv, seq, bid, ask, bid_volume, ask_volume
                  trades/…                                  ts, recv, seq, price, volume, side
                  depth/…                                   ts, recv, seq, price, volume, side, last, snapshot
                  funding/…                                 ts, recv, seq, rate

`ts` is when it happened at the venue, `recv` when it was received (both ns UTC), `seq` the order of arrival within
its source: a recording of everything is one source, files of one kind are a source for each kind.

Law 1: a tape holds all events in one total order: (recv, source, seq).
Law 2: at one moment what was recorded apart comes as trades, depth, quotes, funding: the cause before the effect.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from engine.errors import DataError
from engine.kernel import codes
from engine.kernel.events import Event
from engine.store import merge
from engine.store.tape import ROW, Events, blank

TIMES = ("ts", "recv", "seq")
GROUP = 1 << 18  # rows of a Parquet row group
SEQUENCE = "exec_id"  # the bytes 56 to 63 are free in these kinds; they carry `seq` until the order is made


@dataclass(frozen=True)
class Kind:
    """One kind of event: its code, the number of its own source, and column -> field of the event."""

    code: int
    source: int
    fields: Mapping[str, str]


MIXED = 0  # the source of a recording that holds all kinds in their order of arrival
KINDS: dict[str, Kind] = {
    "trades": Kind(codes.TRADE, 1, {"price": "price", "volume": "traded", "side": "side"}),
    "depth": Kind(codes.DEPTH, 2, {"price": "price", "volume": "traded", "side": "side", "last": "last",
                                   "snapshot": "code"}),
    "quotes": Kind(codes.QUOTE, 3, {name: name for name in ("bid", "ask", "bid_volume", "ask_volume")}),
    "funding": Kind(codes.FUNDING, 4, {"rate": "amount"}),
}  # fmt: skip
FLAGS = ("side", "last", "snapshot")  # whole numbers; every other column of a body is a float


def folder(kind: str, name: str) -> str:
    """The hive directory of one kind of one instrument, relative to its dataset."""
    return f"{kind}/instrument={quote(name, safe=' ')}"


def tick_events(kind: str, columns: Mapping[str, "np.ndarray[Any, Any]"], instrument: int, source: int) -> Events:
    """Events of a kind from its columns; `seq` waits in a field that the kind leaves free."""
    events = blank(len(columns["ts"]))
    for name in ("ts", "recv"):
        events[name] = columns[name]
    events[SEQUENCE] = columns["seq"]
    events["kind"], events["source"], events["instrument"] = KINDS[kind].code, source, instrument
    for name, field in KINDS[kind].fields.items():
        events[field] = columns[name]
    return events


def in_order(events: Events) -> "np.ndarray[Any, Any]":
    """The indices that sort events by (recv, source, seq)."""
    return np.lexsort((events[SEQUENCE], events["source"], events["recv"]))


def tick_runs(root: Path, names: Sequence[str], sources: Mapping[str, int]) -> list[Iterator[Events]]:
    """One run of events, in order of arrival, for each folder of the chosen instruments.

    `sources`: folder -> number of its source. Raises DataError if an instrument has no folder.
    """
    runs = []
    for number, name in enumerate(names):
        found = [(kind, sources[where]) for kind in KINDS if (where := folder(kind, name)) in sources]
        if not found:
            raise DataError(f"{root}: no events of instrument {name} in dataset.json; import the dataset again.")
        runs += [_run(root / folder(kind, name), kind, number, source) for kind, source in found]
    return runs


def merged(runs: Sequence[Iterator[Events]], scratch: Path) -> Iterator[Events]:
    """All runs in their one order, in pieces; the field that carried `seq` is clean again."""
    for piece in merge.spill(runs, scratch, in_order):
        clean = piece.view(ROW).copy().view(Event.dtype)
        clean[SEQUENCE] = 0
        yield clean


def _run(where: Path, kind: str, instrument: int, source: int) -> Iterator[Events]:
    import polars as pl

    found = sorted(where.glob("part-*.parquet"), key=lambda p: (len(p.name), p.name))
    if not found:
        raise DataError(f"{where}: no Parquet files; import the dataset again.")
    names = (*TIMES, *KINDS[kind].fields)
    for path in found:
        try:
            rows = pl.scan_parquet(path).select(pl.len()).collect().item()
            for at in range(0, rows, GROUP):
                piece = pl.scan_parquet(path).slice(at, GROUP).collect()
                yield tick_events(kind, {c: piece[c].to_physical().to_numpy() for c in names}, instrument, source)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{path}: cannot be read, the Parquet file is damaged ({str(error).splitlines()[0]}); "
                            "import the dataset again with overwrite=True.") from error  # fmt: skip
