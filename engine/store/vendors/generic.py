"""CSV, Parquet or frames of anyone: columns found by their usual names or mapped by the caller.

import_ticks("mine", "ticks.csv", kind="quotes", columns={"ts": "when", "bid": "b", "ask": "a"})
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import ConfigError, DataError
from engine.store.frames import GROUPS, TIMES, mapped, pick
from engine.store.ticks import KINDS
from engine.store.vendors import Rows
from engine.store.vendors.tabular import SIDES, Table, pieces, rows_of

USUAL: dict[str, tuple[str, ...]] = {
    "ts": ("ts", "exchange_timestamp", "event_time", *TIMES),
    "recv": ("recv", "received", "local_timestamp", "local_time", "receive_time"),
    "instrument": GROUPS,
    "price": ("price",), "volume": ("volume", "amount", "size", "qty", "quantity"), "side": ("side",),
    "bid": ("bid", "bid_price"), "ask": ("ask", "ask_price", "offer"),
    "bid_volume": ("bid_volume", "bid_amount", "bid_size", "bid_qty"),
    "ask_volume": ("ask_volume", "ask_amount", "ask_size", "ask_qty"),
    "last": ("last", "is_last"), "snapshot": ("snapshot", "is_snapshot"), "rate": ("rate", "funding_rate"),
}  # fmt: skip
NEEDED = {"quotes": ("bid", "ask"), "trades": ("price", "volume"), "depth": ("price", "volume", "side"),
          "funding": ("rate",)}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """`kind`: quotes, trades, depth or funding (default: by the columns; depth must be said).
    `columns`: our name -> theirs; `header`: names for files without one; `unit` of times as numbers: s, ms, us, ns or
    auto; `timezone` of times that carry none; `time_format` of times in another form, in the words of strftime;
    `sides`: their words -> 1, -1, 0; `group`: their columns that are equal in the rows of one update of a book."""

    kind: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    header: Sequence[str] | None = None
    separator: str = ","
    skip_rows: int = 0
    unit: str = "auto"
    timezone: str = "UTC"
    sides: Mapping[str, int] = field(default_factory=dict)
    group: Sequence[str] = ()
    price_scale: float = 1.0
    volume_scale: float = 1.0
    time_format: str | None = None


def read(sources: Sequence[tuple[str | None, Any]], options: Options) -> Iterator[Rows]:
    """All sources, one after another."""
    for named, source in sources:
        first = next(pieces(source, options.header, options.separator, options.skip_rows), None)
        if first is None:
            continue
        label, _, frame = first
        table = _table(frame.columns, options, label)
        yield from rows_of(source, table, named, options.header, options.separator, options.skip_rows)


def _table(names: Sequence[str], options: Options, where: str) -> Table:
    found = {ours: theirs for ours, usual in USUAL.items() if (theirs := pick(names, usual)) is not None}
    unknown = sorted(set(options.columns) - set(USUAL))
    if unknown:
        raise ConfigError(f"columns: unknown name {unknown[0]!r}; map {', '.join(USUAL)}.")
    found |= dict(options.columns)
    kind = options.kind
    if kind is None:
        kind = next((k for k in ("quotes", "funding", "trades") if all(name in found for name in NEEDED[k])), None)
        if kind is None:
            raise DataError(f"{where}: columns {', '.join(names)} are neither quotes, trades nor funding; give kind= "
                            "and map them with columns={...}.")  # fmt: skip
    wanted = {"ts", "recv", "instrument", *KINDS[kind].fields} if kind in KINDS else set(found)
    missing = [name for name in NEEDED.get(kind, ()) if name not in found]
    if missing:
        raise DataError(f"{where}: no column {', '.join(missing)} for {kind}; it has {', '.join(names)}. "
                        f"{mapped(missing)}")  # fmt: skip
    return Table(kind, {k: v for k, v in found.items() if k in wanted}, options.unit, options.timezone,
                 {**SIDES, **{str(k).lower(): v for k, v in options.sides.items()}}, tuple(options.group),
                 options.price_scale, options.volume_scale, options.time_format)  # fmt: skip
