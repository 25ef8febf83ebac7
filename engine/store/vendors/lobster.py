"""LOBSTER: a message file and an order book file for each day, row by row together.

Each message gives its trade first (executions, visible or hidden), then what changed in the book of the requested
levels, then the top of the book if that changed. Direction is that of the resting order: the aggressor is its opposite.
The book is the vendor's: a level that leaves the requested range is removed, one that comes back is added.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import DataError
from engine.store import frames
from engine.store.vendors import Rows
from engine.store.vendors.tabular import decimal_ns, pieces

if TYPE_CHECKING:
    import polars as pl

MESSAGE = ("time", "type", "order", "volume", "price", "direction")
NAME = re.compile(r"(?P<name>[^_/]+)_(?P<day>\d{4}-\d\d-\d\d)_\d+_\d+_message_(?P<levels>\d+)")
EXECUTED, CROSS = (4, 5), 6  # visible and hidden; an auction has no aggressor
UNIT = 10_000.0
NOBODY = 9_999_999_999  # the price of a level that is empty
ZONE = "America/New_York"
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Options:
    """Nothing to choose."""


def read(sources: Sequence[tuple[str | None, Any]], options: Options) -> Iterator[Rows]:
    """All pairs of files; the order book file of a message file lies beside it."""
    start = 0
    for named, source in sources:
        path = Path(source)
        if "_orderbook_" in path.name:
            continue
        told = NAME.search(path.name)
        if told is None:
            raise DataError(f"{path}: no name of a LOBSTER file, such as "
                            "AMZN_2012-06-21_34200000_57600000_message_10.csv.")  # fmt: skip
        book = path.with_name(path.name.replace("_message_", "_orderbook_"))
        if not book.is_file():
            raise DataError(f"{book}: the order book file of {path.name} is missing; put it beside the message file.")
        levels = int(told["levels"])
        width = 2 + 4 * levels  # a message gives at most one trade, one quote and a change of every level
        before: Array | None = None
        for row, message, rows in _together(path, book, levels):
            seq = start + np.arange(len(rows), dtype=np.int64) * width
            base = _base(message, told["day"], named or told["name"], row)
            yield from _rows(base, message, rows, before, seq, path.name)
            before, start = rows[-1], start + len(rows) * width


def _together(path: Path, book: Path, levels: int) -> "Iterator[tuple[int, pl.DataFrame, Array]]":
    """Pieces of both files with the same rows: number of the first, messages, books (rows, 4 * levels)."""
    import polars as pl

    names = [f"{k}" for k in range(4 * levels)]
    others = pieces(book, names)
    held: list[pl.DataFrame] = []
    for _, row, message in pieces(path, MESSAGE):
        while sum(part.height for part in held) < message.height:
            following = next(others, None)
            if following is None:
                raise DataError(f"{book}: fewer rows than {path.name}; fetch both again.")
            held.append(following[2])
        joined = pl.concat(held)
        values = joined[: message.height].cast(pl.Int64, strict=False)
        if values.null_count().sum_horizontal()[0]:
            raise DataError(f"{book}: a cell after row {row} is missing or no whole number, or the file has not "
                            f"{levels} levels; fetch it again.")  # fmt: skip
        yield row, message, values.to_numpy()
        held = [joined[message.height :]]
    if any(part.height for part in held) or next(others, None) is not None:
        raise DataError(f"{book}: more rows than {path.name}; fetch both again.")


def _base(message: "pl.DataFrame", day: str, name: str, row: int) -> "pl.DataFrame":
    """instrument, row, ts, recv of each message."""
    import polars as pl

    midnight = pl.Series([datetime.fromisoformat(day)]).cast(pl.Datetime("ns")).to_physical()[0]
    local = (decimal_ns(message["time"], "s") + midnight).cast(pl.Datetime("ns"))
    ts = frames.zoned(local, ZONE).to_physical()
    return pl.DataFrame(
        {
            "instrument": pl.Series([name]).new_from_index(0, message.height),
            "row": pl.Series(range(row, row + message.height), dtype=pl.Int64),
            "ts": ts,
            "recv": ts,
        }
    )


def _rows(base: "pl.DataFrame", message: "pl.DataFrame", book: Array, before: Array | None, seq: Array,
          file: str) -> Iterator[Rows]:  # fmt: skip
    import polars as pl

    kind, price, volume, direction = (message[c].str.strip_chars().cast(pl.Int64, strict=False).fill_null(-1).to_numpy()
                                      for c in ("type", "price", "volume", "direction"))  # fmt: skip
    traded = np.flatnonzero(np.isin(kind, (*EXECUTED, CROSS)))
    side = np.where(kind == CROSS, 0, -direction)
    yield Rows("trades", base[traded].with_columns(
        price=pl.Series(price[traded] / UNIT), volume=pl.Series(volume[traded].astype(float)),
        side=pl.Series(side[traded]), seq=pl.Series(seq[traded])), file, mixed=True,
        notes={"trading halts and resumptions": int((kind == 7).sum())})  # fmt: skip
    yield Rows("depth", _depth(base, book, before, seq), file, mixed=True)
    top = book[:, :4]
    last = top[:1] - 1 if before is None else before[None, :4]
    changed = np.flatnonzero((top != np.concatenate([last, top[:-1]])).any(axis=1))
    ask, bid = (np.where(np.abs(top[changed, k]) == NOBODY, 0, top[changed, k]) / UNIT for k in (0, 2))
    yield Rows("quotes", base[changed].with_columns(
        bid=pl.Series(bid), ask=pl.Series(ask), bid_volume=pl.Series(top[changed, 3].astype(float)),
        ask_volume=pl.Series(top[changed, 1].astype(float)), seq=pl.Series(seq[changed] + book.shape[1] + 1)),
        file, mixed=True)  # fmt: skip


def _depth(base: "pl.DataFrame", book: Array, before: Array | None, seq: Array) -> "pl.DataFrame":
    """What changed from row to row: removals first, then new volumes; the very first row is a snapshot."""
    import polars as pl

    old = np.concatenate([np.zeros_like(book[:1]) if before is None else before[None], book[:-1]])
    found = []
    for place, side in ((2, 1), (0, -1)):
        was, is_ = (np.stack([rows[:, place::4], rows[:, place + 1 :: 4]], axis=2) for rows in (old, book))
        gone = (was[:, :, None, 0] != is_[:, None, :, 0]).all(axis=2) & (was[:, :, 1] > 0)
        fresh = (was[:, None, :, :] != is_[:, :, None, :]).any(axis=3).all(axis=2) & (is_[:, :, 1] > 0)
        for mask, prices, volumes in ((gone, was, np.zeros_like(was)), (fresh, is_, is_)):
            at, level = np.nonzero(mask)
            found.append(np.stack([at, prices[at, level, 0], volumes[at, level, 1], np.full(len(at), side)]))
    rows = np.concatenate(found, axis=1)
    rows = rows[:, np.argsort(rows[0], kind="stable")]
    at = rows[0]
    first = np.concatenate([[True], at[1:] != at[:-1]]) if len(at) else np.zeros(0, bool)
    place_ = np.arange(len(at)) - np.maximum.accumulate(np.where(first, np.arange(len(at)), 0))
    snapshot = (at == 0) & (before is None)
    body: pl.DataFrame = base[at].with_columns(
        price=pl.Series(rows[1] / UNIT), volume=pl.Series(rows[2].astype(float)), side=pl.Series(rows[3]),
        last=pl.Series(np.append(first[1:], True)[: len(at)].astype(np.int64)),
        snapshot=pl.Series(snapshot.astype(np.int64)), seq=pl.Series(seq[at] + 1 + place_))  # fmt: skip
    return body
