"""Ticks of Lean: places and days, held quotes, contracts, names through map files, factors, and the real files."""

import json
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from engine.errors import ConfigError, DataError, ValidationError
from engine.kernel import codes
from engine.store import import_ticks, open_tape

REAL = Path(__file__).resolve().parents[2] / "../shared/data/real/lean"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the shared sample of real data is not here")


def packed(path: Path, members: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


QUOTES = "14400054,0,0,1836300,100,Q,1,0\n14400241,1800100,300,0,0,P,1,0\n14400241,0,0,1818000,30,P,1,0\n" \
         "14400300,0,0,1000,9,P,1,1\n14400301,1810000,7,0,0,Q,1,0\n"  # fmt: skip


def test_each_quote_tells_one_side(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(places / "equity/usa/tick/ibm/20131007_quote.zip", {"20131007_ibm_Quote_Tick.csv": QUOTES})
    for name, block in (("whole", 1 << 20), ("pieces", 40)):
        monkeypatch.setattr("engine.store.blocks.BLOCK", block)
        where = import_ticks(name, path, vendor="lean")
        events = open_tape(name).events
        assert events[["bid", "ask", "bid_volume", "ask_volume"]].tolist() == [
            (0.0, 183.63, 0.0, 100.0), (180.01, 183.63, 300.0, 100.0), (180.01, 181.8, 300.0, 30.0),
            (181.0, 181.8, 7.0, 30.0)]  # fmt: skip
        assert str(events["ts"][0].astype("M8[ns]")) == "2013-10-07T08:00:00.054000000"  # 4 h in New York in summer
        assert json.loads((where / "dataset.json").read_text())["notes"]["suspicious rows, left out"] == 1


def test_contracts_and_currencies(places: Path) -> None:
    path = packed(
        places / "future/comex/tick/gc/20131007_trade.zip",
        {f"20131007_gc_tick_trade_{month}.csv": "276,1313.7,1,usa,,0\n" for month in ("201312", "201402")},
    )
    import_ticks("gc", path, vendor="lean")
    assert [info.name for info in open_tape("gc").instruments] == ["GC201312", "GC201402"]
    path = packed(places / "forex/fxcm/tick/eurusd/20140501_quote.zip", {"x.csv": "1787.25,1.38727,1.38729\n"})
    import_ticks("fx", path, vendor="lean")
    events = open_tape("fx").events
    assert events[["bid", "ask", "bid_volume"]].tolist() == [(1.38727, 1.38729, 0.0)]
    assert str(events["ts"][0].astype("M8[ns]")) == "2014-05-01T05:00:01.787250000"


def test_names_and_factors(places: Path) -> None:
    usa = places / "equity/usa"
    path = packed(usa / "tick/nb/19980320_trade.zip", {"t.csv": "34200000,500000,100,N,0,0\n"})
    (usa / "map_files").mkdir()
    (usa / "map_files/bac.csv").write_text("19980102,nb,N\n19980930,nb,N\n20501231,bac,N\n")
    import_ticks("raw", path, vendor="lean")
    tape = open_tape("raw")
    assert tape.instruments[0].name == "BAC"
    assert tape.events[["price", "traded"]].tolist() == [(50.0, 100.0)]
    with pytest.raises(DataError, match="no factor file"):
        import_ticks("adjusted", path, vendor="lean", adjust="apply")
    (usa / "factor_files").mkdir()
    (usa / "factor_files/bac.csv").write_text("19980319,0.1,0.1,1\n19980320,0.8,0.5,1\n20501231,1,1,0\n")
    import_ticks("adjusted", path, vendor="lean", adjust="apply")
    assert open_tape("adjusted").events[["price", "traded"]].tolist() == [(20.0, 200.0)]
    (usa / "factor_files/bac.csv").write_text("what\n")
    with pytest.raises(DataError, match=r"row 1: .* is no row of a map or factor file"):
        import_ticks("bad", path, vendor="lean", adjust="apply")


def test_other_places_are_refused(places: Path) -> None:
    for place, words in (("equity/usa/minute/ibm/20131007_trade.zip", "minute bars; ticks lie in"),
                         ("equity/usa/tick/ibm/20131007_other.zip", "their place is"),
                         ("equity/usa/tick/ibm/today_trade.zip", "their place is")):  # fmt: skip
        with pytest.raises(DataError, match=words):
            import_ticks("x", packed(places / place, {"t.csv": "1,1,1,N,0,0\n"}), vendor="lean")
    with pytest.raises(ConfigError, match="adjust='all'"):
        import_ticks("x", places, vendor="lean", adjust="all")


@real
def test_ibm(places: Path) -> None:
    files = [REAL / f"equity/usa/tick/ibm/20131007_{kind}.zip" for kind in ("trade", "quote")]
    import_ticks("ibm", files, vendor="lean")
    events = open_tape("ibm").events
    trades, quotes = (events[events["kind"] == kind] for kind in (codes.TRADE, codes.QUOTE))
    assert (len(trades), float(trades["traded"].sum()), len(quotes)) == (24_293, 3_960_352.0, 109_066)
    both = (quotes["bid"] > 0) & (quotes["ask"] > 0)
    assert int((quotes["bid"] > quotes["ask"])[both].sum()) <= 199


@real
def test_gold_with_rows_of_no_volume(places: Path) -> None:
    with pytest.raises(ValidationError, match="147 problems"):
        import_ticks("gc", REAL / "future/comex/tick/gc", vendor="lean")
    where = import_ticks("gc", REAL / "future/comex/tick/gc", vendor="lean", on_error="quarantine")
    assert len(open_tape("gc")) == 40_192 - 147 == 40_192 - pl.read_parquet(where / "quarantine.parquet").height


@real
def test_ticks_of_eurusd_close_the_vendors_seconds(places: Path) -> None:
    import_ticks("fx", REAL / "forex/fxcm/tick/eurusd/20140502_quote.zip", vendor="lean")
    events = open_tape("fx").events
    second = events["ts"] // 10**9
    last = np.flatnonzero(np.append(second[1:] != second[:-1], True))
    ours = pl.DataFrame({"second": second[last], "bid": events["bid"][last], "ask": events["ask"][last]})
    names = ["ms", *(f"b{k}" for k in "ohlcv"), *(f"a{k}" for k in "ohlcv")]
    with zipfile.ZipFile(REAL / "forex/fxcm/second/eurusd/20140502_quote.zip") as archive:
        theirs = pl.read_csv(archive.read(archive.namelist()[0]), has_header=False, new_columns=names)
    start = int(np.datetime64("2014-05-02T05:00").astype("M8[s]").astype(np.int64))
    both = ours.join(theirs.with_columns(second=start + pl.col("ms") // 1000), on="second")
    assert both.height > 0.99 * theirs.height
    assert (both["bid"] == both["bc"]).mean() > 0.99
