"""Tardis.dev CSV datasets: trades, quotes, incremental_book_L2, book_snapshot_N, told by their header.

`timestamp` is the venue's time, `local_timestamp` the arrival, both in microseconds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import DataError
from engine.store.vendors import Rows
from engine.store.vendors.tabular import Table, convert, pieces, rows_of

if TYPE_CHECKING:
    import polars as pl

TIMES = {"ts": "timestamp", "recv": "local_timestamp", "instrument": "symbol"}
TABLES = {
    "trades": Table("trades", {**TIMES, "price": "price", "volume": "amount", "side": "side"}, "us"),
    "quotes": Table("quotes", {**TIMES, "bid": "bid_price", "ask": "ask_price", "bid_volume": "bid_amount",
                               "ask_volume": "ask_amount"}, "us"),
    "incremental": Table("depth", {**TIMES, "price": "price", "volume": "amount", "side": "side",
                                   "snapshot": "is_snapshot"}, "us"),
    "snapshot": Table("depth", {**TIMES, "price": "price", "volume": "amount", "side": "side",
                                "snapshot": "snapshot"}, "us"),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Nothing to choose."""


def read(sources: Sequence[tuple[str | None, Any]], options: Options) -> Iterator[Rows]:
    """All files, one after another."""
    for named, source in sources:
        first = next(pieces(source), None)
        if first is None:
            continue
        names = set(first[2].columns)
        if "asks[0].price" in names:
            yield from _snapshots(source, named)
        elif "is_snapshot" in names:
            yield from rows_of(source, TABLES["incremental"], named)
        elif "bid_price" in names:
            yield from rows_of(source, TABLES["quotes"], named)
        elif {"price", "amount", "side"} <= names:
            yield from rows_of(source, TABLES["trades"], named)
        else:
            raise DataError(f"{first[0]}: columns {', '.join(first[2].columns)} are no Tardis trades, quotes or books.")


def _snapshots(source: Any, named: str | None) -> Iterator[Rows]:
    """Each row is a whole book: it becomes one snapshot group, bids then asks, best level first."""
    import polars as pl

    for label, row, frame in pieces(source):
        long = convert(_long(frame), TABLES["snapshot"], label, 1).drop("group")
        count = _levels(frame) * 2
        place = pl.int_range(long.height, eager=True)
        long = long.with_columns(row=place // count + row, place=place % count, price_there=long["price"].is_finite())
        # A book with fewer levels leaves the rest of its row empty.
        long = long.filter(pl.col("price_there") | pl.col("volume").is_finite()).drop("price_there")
        long = long.with_columns(last=(pl.col("row") != pl.col("row").shift(-1)).fill_null(True).cast(pl.Int64))
        if named is not None:
            long = long.with_columns(instrument=pl.lit(named))
        yield Rows("depth", long.drop("place"), label)


def _levels(frame: "pl.DataFrame") -> int:
    return sum(name.startswith("bids[") and name.endswith(".price") for name in frame.columns)


def _long(frame: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    keys = ["symbol", "timestamp", "local_timestamp"]
    parts: list[pl.DataFrame] = []
    for side, word in (("bids", "bid"), ("asks", "ask")):
        for level in range(_levels(frame)):
            parts.append(frame.with_row_index("at").select(
                "at", *keys, pl.lit(f"{len(parts):04d}").alias("place"), pl.lit(word).alias("side"),
                pl.lit("1").alias("snapshot"), pl.col(f"{side}[{level}].price").alias("price"),
                pl.col(f"{side}[{level}].amount").alias("amount")))  # fmt: skip
    return pl.concat(parts).sort("at", "place")
