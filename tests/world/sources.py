"""Real bars for the comparison with other engines, as Tandem opens them and as plain columns for the others.

The columns that the others get come from the same frame that Tandem is given, without passing through Tandem, except
for the sample `equities`, which is proved against its file elsewhere. `opened` is when each bar began: a market order
is filled then.
"""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from engine.store import open_tape
from engine.store.calendars import sessions

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "real"
MINUTE, HOUR = 60 * 10**9, 3600 * 10**9
PRICES = ("open", "high", "low", "close")
FRACTION = {"lot": 1e-3}  # units of instruments that are traded in fractions


@dataclass(frozen=True)
class Source:
    """`data` and `options` are what `backtest` takes; `bars` has opened (ns UTC) and the prices, shape (n,) each."""

    data: Any
    options: dict[str, Any]
    bars: dict[str, Any]

    @property
    def lot(self) -> float:
        """The smallest quantity; 1 when only whole units are traded."""
        return float(self.options.get("open_options", {}).get("lot", 1.0))


def sample(name: str) -> Source:
    """One instrument of the sample that is always available."""
    tape = open_tape("equities", name)
    events = tape.events
    days, info = events["ts"] // 86_400_000_000_000, tape.instruments[0]
    hours = sessions(info.calendar, int(days[0]), int(days[-1]))  # half days are shorter than the others
    opened = np.maximum(events["ts"] - info.bar_ns, hours.opens[np.searchsorted(hours.closes, events["ts"])])
    bars = {"opened": opened, **{p: np.array(events[p]) for p in PRICES}}
    return Source("equities", {"instruments": [name]}, bars)


def framed(frame: pl.DataFrame, shift: int, **options: Any) -> Source:
    """A frame with a time and prices; the time less `shift` ns is when a bar began."""
    opened = frame[frame.columns[0]].cast(pl.Datetime("ns")).cast(pl.Int64).to_numpy() - shift
    bars = {p: frame[p].cast(pl.Float64).to_numpy() for p in PRICES}
    return Source(frame, {"open_options": options} if options else {}, {"opened": opened, **bars})


def csv(path: str, time: str, rows: int, shift: int, **options: Any) -> Source:
    """The first rows of a CSV file; `time` is the name of its first column."""
    frame = pl.read_csv(REAL / path, try_parse_dates=True, n_rows=rows)
    frame = frame.rename({name: name.lower() for name in frame.columns if name.lower() in PRICES})
    return framed(frame.select(pl.col(frame.columns[0]).alias(time), *PRICES), shift, **options)


def binance(path: str, rows: int) -> Source:
    """Minutes of a future of Binance: `open_time` in ms, to be traded in thousandths."""
    with zipfile.ZipFile(REAL / path) as archive:
        frame = pl.read_csv(io.BytesIO(archive.read(archive.namelist()[0])), n_rows=rows)
    time = pl.from_epoch("open_time", "ms").cast(pl.Datetime("ns"))
    return framed(frame.select(time, *PRICES), 0, label="start", **FRACTION)


def lean(name: str) -> Source:
    """Minutes of a stock, one file a day, in 1/10,000 dollar and ms since midnight; absent minutes are no bars."""
    days = []
    for path in sorted((REAL / f"lean/equity/usa/minute/{name}").glob("2013*_trade.zip")):
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0])
        frame = pl.read_csv(text, has_header=False, new_columns=["ms", *PRICES, "volume"])
        day = pl.lit(path.name[:8]).str.to_datetime("%Y%m%d", time_unit="ns")
        prices = (pl.Series(p, [value / 10_000 for value in frame[p]]) for p in PRICES)
        days.append(frame.select((day + pl.duration(milliseconds="ms")).alias("ts"), *prices))
    return framed(pl.concat(days), 0, label="start")


SOURCES: dict[str, Callable[[], Source]] = {
    "AAPL": lambda: sample("AAPL"),
    "GOOG": lambda: sample("GOOG"),
    "IBM": lambda: sample("IBM"),
    "MSFT": lambda: sample("MSFT"),
    "goog-daily": lambda: csv("yahoo/GOOG.csv", "date", 10_000, 0),
    "nvda-daily": lambda: csv("yahoo/nvda-1999-2014.txt", "date", 10_000, 0),
    "eurusd-hourly": lambda: csv("backtesting_py/EURUSD.csv", "time", 10_000, HOUR),
    "ftx-minutes": lambda: csv("ftx/btc-perp-20211231-20220201_1m.csv.gz", "time", 5_000, MINUTE, **FRACTION),
    "link-minutes": lambda: binance("binance_vision/futures_um/LINKUSDT-1m-2023-02.zip", 5_000),
    "near-minutes": lambda: binance("binance_vision/futures_um/NEARUSDT-1m-2025-02.zip", 5_000),
    "bac-minutes": lambda: lean("bac"),
}
SAMPLES = ("AAPL", "GOOG", "IBM", "MSFT")
