"""QuantConnect Lean ticks: <class>/<market>/tick/<ticker>/<YYYYMMDD>_<trade|quote>.zip, local times of the market.

An equity quote row carries one side; the last bid and the last ask are held, whichever venue they came from. Rows that
Lean marks as suspicious are left out and counted. A map file beside the market names the instrument through changes of
its ticker; factor files adjust for splits and dividends on request. A ZIP of futures holds one CSV for each contract.
Bars (daily, hour, minute, second) go through `import_bars`.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError, DataError
from engine.store import frames
from engine.store.vendors import Rows
from engine.store.vendors.tabular import Table, convert, decimal_ns, pieces

if TYPE_CHECKING:
    import polars as pl

TRADE = {"ts": "ts", "price": "price", "volume": "volume"}
QUOTE = {"ts": "ts", "bid": "bid", "ask": "ask", "bid_volume": "bid_volume", "ask_volume": "ask_volume"}
MARKS = ("venue", "condition", "suspicious")
# (class, kind) -> columns of the file, its meaning
FORMS: dict[tuple[str, str], tuple[tuple[str, ...], Table]] = {
    ("equity", "trade"): (("ms", "price", "volume", *MARKS), Table("trades", TRADE, price_scale=1e-4)),
    ("equity", "quote"): (("ms", "bid", "bid_volume", "ask", "ask_volume", *MARKS),
                          Table("quotes", QUOTE, price_scale=1e-4)),
    ("future", "trade"): (("ms", "price", "volume", *MARKS), Table("trades", TRADE)),
    ("future", "quote"): (("ms", "bid", "bid_volume", "ask", "ask_volume", *MARKS), Table("quotes", QUOTE)),
    ("crypto", "trade"): (("ms", "price", "volume"), Table("trades", TRADE)),
    ("crypto", "quote"): (("ms", "bid", "bid_volume", "ask", "ask_volume"), Table("quotes", QUOTE)),
    ("forex", "quote"): (("ms", "bid", "ask"), Table("quotes", {k: QUOTE[k] for k in ("ts", "bid", "ask")})),
    ("cfd", "quote"): (("ms", "bid", "ask"), Table("quotes", {k: QUOTE[k] for k in ("ts", "bid", "ask")})),
}  # fmt: skip
ZONES = {("equity", "usa"): "America/New_York", ("forex", "fxcm"): "Etc/GMT+5"}  # FXCM: UTC-05 the year round
PATH = "<class>/<market>/tick/<ticker>/<YYYYMMDD>_<trade|quote>.zip"
DIGITS = 6  # of a price that was scaled by a factor


@dataclass(frozen=True)
class Options:
    """`adjust`: "none" (as traded) or "apply" (the factor files beside the market: prices for splits and dividends,
    volumes for splits)."""

    adjust: str = "none"

    def __post_init__(self) -> None:
        if self.adjust not in ("none", "apply"):
            raise ConfigError(f"adjust={self.adjust!r}; choose 'none' or 'apply'.")


def read(sources: Sequence[tuple[str | None, Any]], options: Options) -> Iterator[Rows]:
    """All files in the order of their days; what lies beside them in other folders is left alone."""
    places = [(named, Path(source)) for named, source in sources if Path(source).suffix == ".zip"]
    for named, path in sorted(places, key=lambda item: item[1].name):
        try:
            group, market, resolution, listed, file = path.parts[-5:]
            day, _, kind = file.removesuffix(".zip").partition("_")
            midnight = datetime.strptime(day, "%Y%m%d")
            header, table = FORMS[group, kind]
        except (ValueError, KeyError) as error:
            raise DataError(f"{path}: no ticks of Lean; their place is {PATH}.") from error
        if resolution != "tick":
            raise DataError(f"{path}: {resolution} bars; ticks lie in the folder 'tick', bars go through import_bars.")
        name = named or _name(path.parents[2] / "map_files", listed, day)
        factors = _factors(path.parents[2] / "factor_files" / f"{name.lower()}.csv", day, options)
        zone = ZONES.get((group, market), "UTC")
        found = _file(path, header, table, name, midnight, zone, factors)
        yield from _held(found) if (group, kind) == ("equity", "quote") else found


def _file(path: Path, header: Sequence[str], table: Table, name: str, midnight: datetime, zone: str,
          factors: tuple[float, float]) -> Iterator[Rows]:  # fmt: skip
    """The rows of a ZIP; a member of a futures ZIP ends in its contract month, YYYYMM."""
    for label, row, frame in pieces(path, header):
        contract = label.removesuffix(".csv").rpartition("_")[2]
        own = f"{name}{contract}" if contract.isdigit() else name
        yield _rows(frame, table, label, row, own, midnight, zone, factors)


def _rows(frame: "pl.DataFrame", table: Table, label: str, row: int, name: str, midnight: datetime, zone: str,
          factors: tuple[float, float]) -> Rows:  # fmt: skip
    import polars as pl

    start = pl.Series([midnight]).cast(pl.Datetime("ns")).to_physical()[0]
    local = (decimal_ns(frame["ms"], "ms") + start).cast(pl.Datetime("ns"))
    found = convert(frame.with_columns(frames.zoned(local, zone).alias("ts")), table, label, row)
    found = found.with_columns(instrument=pl.lit(name))
    doubtful = frame["suspicious"] == "1" if "suspicious" in frame.columns else pl.Series([False] * frame.height)
    found = found.filter(~doubtful.fill_null(False))
    scaled = factors != (1.0, 1.0)
    for column in found.columns:
        if column in ("price", "bid", "ask"):
            value = found[column] * factors[0] * factors[1]
            found = found.with_columns(value.round(DIGITS if scaled else 8).alias(column))
        elif column.endswith("volume") and scaled:
            found = found.with_columns((found[column] / factors[1]).alias(column))
    return Rows(table.kind, found, label, notes={"suspicious rows, left out": int(doubtful.sum())})


def _held(rows: Iterator[Rows]) -> Iterator[Rows]:
    """Quotes of one day of which each row tells one side (the other is 0, 0), the last of the other side held."""
    import polars as pl

    state: dict[str, tuple[float, float]] = {}
    for one in rows:
        frame = one.frame
        for side in ("bid", "ask"):
            there = (frame[side] > 0) | (frame[f"{side}_volume"] > 0)
            before = state.get(side, (0.0, 0.0))
            for column, value in zip((side, f"{side}_volume"), before, strict=True):
                told = pl.select(pl.when(there).then(frame[column])).to_series()
                frame = frame.with_columns(told.forward_fill().fill_null(value).alias(column))
            if frame.height:
                state[side] = (frame[side][-1], frame[f"{side}_volume"][-1])
        yield replace(one, frame=frame)


def _name(folder: Path, listed: str, day: str) -> str:
    """The instrument that traded under a ticker on a day: the name of its map file, in capitals."""
    for path in sorted(folder.glob("*.csv")) if folder.is_dir() else ():
        start = ""
        for row in _table(path, 2):
            # The first row is the listing, each further one the last day of a ticker.
            if start and start <= day <= row[0] and row[1].lower() == listed.lower():
                return path.stem.upper()
            start = row[0]
    return listed.upper()


def _factors(path: Path, day: str, options: Options) -> tuple[float, float]:
    """Price and split factor of a day. Raises DataError if they are wanted and not there."""
    if options.adjust == "none":
        return 1.0, 1.0
    if not path.is_file():
        raise DataError(f"{path}: no factor file, which adjust='apply' needs; put it there, or import with "
                        "adjust='none'.")  # fmt: skip
    for row in _table(path, 3):
        if day <= row[0]:
            return float(row[1]), float(row[2])
    return 1.0, 1.0


def _table(path: Path, width: int) -> list[list[str]]:
    with open(path, newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    bad = next((i for i, row in enumerate(rows, 1) if len(row) < width or not row[0].isdigit()), None)
    if bad is not None:
        raise DataError(f"{path}, row {bad}: {rows[bad - 1]} is no row of a map or factor file of Lean; fetch it "
                        "again.")  # fmt: skip
    return rows
