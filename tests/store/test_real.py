"""Bars of many vendors, with the warts that SOURCES names, imported by mapping alone."""

import csv
import gzip
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from engine.errors import ValidationError
from engine.kernel import codes
from engine.store import import_bars, open_tape
from engine.store.adjust import lean_actions

NEW_YORK = {"calendar": "XNYS", "timezone": "America/New_York"}
LEAN = ["ts", "open", "high", "low", "close", "volume"]


def ns(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 10**9  # type: ignore[misc]


def test_yahoo_dates_become_session_closes(places: Path, real_data: Path) -> None:
    import_bars(real_data / "yahoo" / "GOOG.csv", "goog", instruments=NEW_YORK, timezone="America/New_York")
    tape = open_tape("goog")
    assert [info.name for info in tape.instruments] == ["GOOG"]
    assert len(tape) == 2148
    assert tape.events["ts"][0] == ns(2004, 8, 19, 20)  # 16:00 in New York, summer
    assert tape.events["ts"][-1] == ns(2013, 3, 1, 21)  # and winter
    half_day = open_tape("goog", start="2012-11-23", end="2012-11-24")
    assert half_day.events["ts"][0] == ns(2012, 11, 23, 18)  # the day after Thanksgiving closes at 13:00
    assert tape.instruments[0].bar_ns == int(6.5 * 3600e9)
    assert tape.instruments[0].tick == 0.01


YAHOO = [("orcl-1995-2014", 5036), ("nvda-1999-2014", 4012), ("yhoo-1996-2014", 4713)]


@pytest.mark.parametrize(("name", "rows"), YAHOO)
def test_yahoo_adjusted_close_is_reproduced(places: Path, real_data: Path, name: str, rows: int) -> None:
    """The close of the tape is the vendor's adjusted close, and the shape of each bar stays."""
    file = real_data / "yahoo" / f"{name}.txt"
    import_bars(file, "y", instruments=NEW_YORK)
    raw = pl.read_csv(file)
    events = open_tape("y").events
    assert len(events) == rows
    np.testing.assert_allclose(events["close"], raw["Adj Close"], atol=1e-6)
    np.testing.assert_allclose(events["open"] / events["close"], raw["Open"] / raw["Close"], rtol=5e-5)


def test_wiki_newest_first_is_refused_then_sorted(places: Path, real_data: Path) -> None:
    """Quandl WIKI is newest first: refused with rows, or sorted on request; its splits and dividends are columns."""
    file = real_data / "quandl_wiki" / "WIKI-ORCL-2000-quandl.csv"
    with pytest.raises(ValidationError, match=r"WIKI-ORCL-2000-quandl.csv, row 2 .*timestamp goes back"):
        import_bars(file, "orcl", instruments=NEW_YORK)
    columns = {"split": "Split Ratio", "dividend": "Ex-Dividend"}
    import_bars({"ORCL": file}, "orcl", columns=columns, instruments=NEW_YORK, sort=True, dividend_base="ex")
    raw = pl.read_csv(file).reverse()
    events = open_tape("orcl").events
    # The vendor also adjusts for what came after the file: one constant factor.
    ratio = events["close"] / raw["Adj. Close"].to_numpy()
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
    volume = events["volume"] / raw["Adj. Volume"].to_numpy()
    np.testing.assert_allclose(volume, volume[0], rtol=1e-6)


def test_wiki_split_and_dividends_as_events(places: Path, real_data: Path) -> None:
    files = {"ORCL": real_data / "quandl_wiki/WIKI-ORCL-2000-quandl.csv",
             "AAPL": real_data / "quandl_wiki/WIKI-AAPL-2012-quandl.csv"}  # fmt: skip
    import_bars(files, "wiki", columns={"split": "Split Ratio", "dividend": "Ex-Dividend"}, instruments=NEW_YORK,
                sort=True, adjust="events")  # fmt: skip
    tape = open_tape("wiki", ["AAPL", "ORCL"])
    actions = tape.events[tape.events["kind"] != codes.BAR]
    raw = pl.read_csv(files["ORCL"])
    splits = raw.filter(pl.col("Split Ratio") != 1).sort("Date")
    assert [(int(e["kind"]), float(e["amount"]), int(e["instrument"])) for e in actions] == [
        (codes.SPLIT, 2.0, 1), (codes.SPLIT, 2.0, 1), (codes.DIVIDEND, 2.65, 0), (codes.DIVIDEND, 2.65, 0)]  # fmt: skip
    places_of = np.flatnonzero(tape.events["kind"] == codes.SPLIT)
    for at, day, close in zip(places_of, splits["Date"], splits["Close"], strict=True):
        assert str(datetime.fromtimestamp(int(tape.events["ts"][at]) / 1e9, UTC).date()) == day
        assert tape.events["close"][at - 1] > 1.7 * close  # raw prices on both sides
        assert tape.events["close"][at + 1] == close


def test_lean_daily_with_factor_file(places: Path, real_data: Path) -> None:
    """Prices in 1/10000 dollar without a header; the factor file gives the splits, 7:1 on 2014-06-09 among them."""
    folder = real_data / "lean/equity/usa"
    with (folder / "factor_files/aapl.csv").open() as file:
        rows = [(int(day), float(price), float(split), float(ref)) for day, price, split, ref in csv.reader(file)]
    actions = lean_actions(rows, "aapl")
    splits = {str(row["ts"]): row["ratio"] for row in actions if row["kind"] == "split"}
    assert splits == {"2000-06-21": 2, "2005-02-26": 2, "2014-06-07": 7, "2020-08-29": 4}
    import_bars(folder / "daily/aapl.zip", "aapl", header=LEAN, price_scale=1e-4, instruments=NEW_YORK,
                actions=actions, adjust="events", on_error="quarantine")  # fmt: skip
    tape = open_tape("aapl", start="2014-06-05", end="2014-06-11")
    kinds = tape.events["kind"].tolist()
    assert kinds == [codes.BAR, codes.BAR, codes.SPLIT, codes.BAR, codes.BAR]
    assert tape.events["amount"][2] == pytest.approx(7, rel=1e-3)
    before, after = tape.events["close"][1], tape.events["close"][3]
    assert before == pytest.approx(645.57)
    assert after == pytest.approx(93.70)


def test_lean_minutes_through_a_reader(places: Path, real_data: Path) -> None:
    """Milliseconds since midnight, the day in the name, start of the bar; absent minutes are no error."""

    def reader(path: Path) -> pl.DataFrame:
        with zipfile.ZipFile(path) as archive:
            frame = pl.read_csv(archive.read(archive.namelist()[0]), has_header=False, new_columns=LEAN)
        day = pl.lit(path.name[:8]).str.to_datetime("%Y%m%d", time_unit="ns")
        prices = [(pl.col(name) / 10_000).alias(name) for name in LEAN[1:5]]
        return frame.with_columns((day + pl.duration(milliseconds=pl.col("ts"))).alias("ts"), *prices)

    files = sorted((real_data / "lean/equity/usa/minute/aapl").glob("*_trade.zip"))
    import_bars({"AAPL": files}, "minutes", reader=reader, timezone="America/New_York", label="start", interval="1m",
                instruments=NEW_YORK)  # fmt: skip
    tape = open_tape("minutes", start="2014-06-09")
    first = tape.events[0]
    assert first["ts"] == ns(2014, 6, 9, 8, 1)  # 04:00 in New York, and the bar ends a minute later
    assert (first["high"], first["close"]) == (645.57, 92.42)  # the last price before the split, reported again
    assert tape.instruments[0].bar_ns == 60 * 10**9


def test_binance_hour_that_is_missing(places: Path, real_data: Path) -> None:
    """Spot 2023-03-24 has no bar at 13:00: fine by session, a problem by `max_gap`."""
    file = real_data / "binance_vision/spot/BTCUSDT-1h-2023-03.zip"
    with pytest.raises(ValidationError, match="gap: 7200 s since the bar before"):
        import_bars({"BTCUSDT": file}, "btc", label="start", max_gap="1h")
    import_bars({"BTCUSDT": file}, "btc", label="start", max_gap="1h", on_error="quarantine")
    tape = open_tape("btc")
    assert len(tape) == 743
    assert tape.events["ts"][0] == ns(2023, 3, 1, 1)
    assert tape.events["close"][0] == 23101.0
    problems = json.loads((places / "data/btc/dataset.json").read_text())["problems"]
    assert problems["count"] == 1
    assert not (places / "data/btc/quarantine.parquet").exists()


def test_binance_as_a_plain_frame(real_data: Path, places: Path) -> None:
    """Without an import: `open_time` says that the time is the start of the bar."""
    with zipfile.ZipFile(real_data / "binance_vision/spot/BTCUSDT-1h-2023-01.zip") as archive:
        frame = pl.read_csv(archive.read(archive.namelist()[0]))
    tape = open_tape(frame)
    assert (tape.events["ts"][0], len(tape)) == (ns(2023, 1, 1, 1), 744)


def test_ninjatrader(places: Path, real_data: Path) -> None:
    """Semicolons, no header, `YYYYMMDD HHMMSS` at the end of the minute."""
    import_bars({"SPY": real_data / "ninjatrader/nt-spy-minute-2011.csv.gz"}, "spy", header=LEAN, separator=";",
                label="end", instruments={"calendar": "XNYS"})  # fmt: skip
    tape = open_tape("spy")
    assert (len(tape), tape.events["ts"][0], tape.events["close"][0]) == (14180, ns(2011, 1, 3, 9, 1), 126.39)


def test_backtrader_header_with_one_name_too_few(places: Path, real_data: Path) -> None:
    """Date and Time are two columns under one name; local time of Frankfurt; a tick of half a point or a point."""
    header = ["date", "clock", "open", "high", "low", "close", "volume", "interest"]
    import_bars({"FUT": real_data / "backtrader/2006-01-02-volume-min-001.txt.gz"}, "fut", header=header, skip_rows=1,
                columns={"ts": ["date", "clock"]}, timezone="Europe/Berlin", label="end",
                instruments={"calendar": "XFRA", "FUT": {"multiplier": 10.0, "tick": 1.0}})  # fmt: skip
    tape = open_tape("fut")
    assert (len(tape), tape.events["ts"][0]) == (30889, ns(2006, 1, 2, 8, 1))
    assert (tape.instruments[0].multiplier, tape.instruments[0].timezone) == (10.0, "Europe/Berlin")


def test_freqtrade_feather(places: Path, real_data: Path) -> None:
    """676 minutes without trades are absent; the volume is in the coin."""
    import_bars({"XRP/ETH": real_data / "freqtrade/XRP_ETH-1m.feather"}, "xrp", label="start")
    raw = pl.read_ipc(real_data / "freqtrade/XRP_ETH-1m.feather")
    tape = open_tape("xrp", "XRP/ETH")
    assert len(tape) == raw.height
    np.testing.assert_array_equal(tape.events["close"], raw["close"])
    assert tape.events["ts"][0] == raw["date"].cast(pl.Datetime("ns")).cast(pl.Int64)[0] + 60 * 10**9
    assert (places / "data/xrp/bars/instrument=XRP%2FETH/part-0.parquet").is_file()
    hive = pl.read_parquet(places / "data/xrp/bars", hive_partitioning=True)
    assert hive["instrument"].unique().to_list() == ["XRP/ETH"]


def test_fxcm_and_hourly_yahoo(places: Path, real_data: Path) -> None:
    """No volume at all; the last row is the first of the next month; weekends are no sessions of 24/5."""
    week = {"calendar": "24/5"}
    import_bars({"USDJPY": real_data / "fxcm/usdjpy-m1-bid-2013.csv.gz"}, "fx", label="start", instruments=week)
    fx = open_tape("fx")
    assert (fx.events["volume"] == 0).all()
    assert fx.instruments[0].tick == 0.001
    import_bars(real_data / "backtesting_py/EURUSD.csv", "eurusd", label="end", instruments=week, on_error="quarantine")
    assert len(open_tape("eurusd")) == 5000


def test_kraken_json(places: Path, real_data: Path) -> None:
    """Rows of [time s, open, high, low, close, vwap, volume, count] as texts; minutes without trades are level."""

    def reader(path: Path) -> pl.DataFrame:
        rows = next(iter(json.loads(path.read_text())["result"].values()))
        names = ["ts", "open", "high", "low", "close", "vwap", "volume", "count"]
        return pl.DataFrame([[str(cell) for cell in row] for row in rows], schema=names, orient="row")

    import_bars({"XBTUSDT": real_data / "kraken/http_ohlc_XBTUSDT.json"}, "kraken", reader=reader, label="start")
    tape = open_tape("kraken")
    assert tape.events["ts"][0] == (1762777020 + 60) * 10**9
    assert tape.events["close"][0] == 106038.2


def test_plain_gzip_path(places: Path, real_data: Path) -> None:
    """A path opens without an import, and from the cache the second time."""
    file = real_data / "ftx/btc-perp-20211231-20220201_1m.csv.gz"
    first, second = open_tape(file), open_tape(file)
    with gzip.open(file, "rt") as text:
        assert len(first) == sum(1 for _ in text) - 1
    assert isinstance(second.events, np.memmap)
    assert first.digest == second.digest
    assert first.instruments[0].name == "btc-perp-20211231-20220201_1m"
