"""Importers of single events on files of real vendors, against what the same vendors say elsewhere."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.errors import DataError, ValidationError
from engine.kernel import codes
from engine.store import import_ticks, open_tape
from engine.store.tape import Events

REAL = Path(__file__).resolve().parents[2] / "../shared/data/real"
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="the shared sample of real data is not here")
MINUTE = 60 * 10**9


def books(events: Events) -> Iterator[tuple[Any, dict[float, float], dict[float, float]]]:
    """Every event with the bids and asks as the depth up to it tells; books are given at the end of a group."""
    sides: dict[int, dict[float, float]] = {1: {}, -1: {}}
    fields = ("kind", "code", "price", "traded", "side", "last")
    start = True
    for row in zip(*(events[field].tolist() for field in fields), strict=True):
        kind, code, price, volume, side, last = row
        if kind != codes.DEPTH:
            yield row, sides[1], sides[-1]
            continue
        if code == codes.SNAPSHOT and start:
            sides[1].clear()
            sides[-1].clear()
        start = bool(last)
        if volume:
            sides[side][price] = volume
        else:
            sides[side].pop(price, None)
        if last:
            yield row, sides[1], sides[-1]


def ends(events: Events) -> Any:
    """Which events end a group of depth."""
    return (events["kind"] == codes.DEPTH) & (events["last"] == 1)


def crossings(events: Events) -> list[bool]:
    """After each group of depth: is the book crossed or locked?"""
    return [bool(bids and asks and max(bids) >= min(asks))
            for row, bids, asks in books(events) if row[0] == codes.DEPTH]  # fmt: skip


def crossed(events: Events) -> tuple[int, int]:
    """How many groups there are, and after how many of them the book is crossed or locked."""
    found = crossings(events)
    return len(found), sum(found)


def minute_bars(events: Events) -> pl.DataFrame:
    """Bars of whole minutes, made here from the trades alone."""
    rows = events[events["kind"] == codes.TRADE]
    trades = pl.DataFrame({name: rows[name] for name in ("ts", "price", "traded")})
    return trades.group_by((pl.col("ts") // MINUTE * MINUTE).alias("ts"), maintain_order=True).agg(
        open=pl.col("price").first(), high=pl.col("price").max(), low=pl.col("price").min(),
        close=pl.col("price").last(), volume=pl.col("traded").sum())  # fmt: skip


def same_bars(ours: pl.DataFrame, theirs: pl.DataFrame) -> int:
    """Compare the bars of the minutes that both have; returns how many."""
    both = ours.join(theirs, on="ts", suffix=" of vendor")
    for name in ("open", "high", "low", "close", "volume"):
        assert np.allclose(both[name], both[f"{name} of vendor"], rtol=1e-12, atol=1e-9), name
    return both.height


def test_trades_of_xrp_make_the_vendors_bars(places: Path) -> None:
    rows = json.loads(gzip.decompress((REAL / "freqtrade/XRP_ETH-trades.json.gz").read_bytes()))
    frame = pl.DataFrame({"ts": [r[0] for r in rows], "side": [r[3] for r in rows], "price": [r[4] for r in rows],
                          "amount": [r[5] for r in rows]})  # fmt: skip
    import_ticks("xrp", frame, instrument="XRP_ETH")
    bars = minute_bars(open_tape("xrp").events)
    vendor = pl.read_ipc(REAL / "freqtrade/XRP_ETH-1m.feather")
    theirs = vendor.with_columns(ts=pl.col("date").dt.cast_time_unit("ns").to_physical())
    assert bars.height == same_bars(bars, theirs) > 1000
    span = theirs.filter(pl.col("ts").is_between(bars["ts"][0], bars["ts"][-1]))
    assert span.height == bars.height


def test_trades_of_kraken_make_the_vendors_bars(places: Path) -> None:
    result = json.loads((REAL / "kraken/http_trades_XBTUSDT.json").read_text(), parse_float=str)["result"]
    rows = next(value for key, value in result.items() if key != "last")
    frame = pl.DataFrame({"time": [str(r[2]) for r in rows], "price": [r[0] for r in rows],
                          "volume": [r[1] for r in rows], "side": [r[3] for r in rows]})  # fmt: skip
    import_ticks("kraken", frame, instrument="XBTUSDT")
    bars = minute_bars(open_tape("kraken").events)[1:-1]  # the first and the last minute are not whole
    ohlc = json.loads((REAL / "kraken/http_ohlc_XBTUSDT.json").read_text())["result"]
    rows = next(value for key, value in ohlc.items() if key != "last")
    theirs = pl.DataFrame({"ts": [r[0] * 10**9 for r in rows[:-1]], **{
        name: [float(r[k]) for r in rows[:-1]] for name, k in
        {"open": 1, "high": 2, "low": 3, "close": 4, "volume": 6}.items()}})  # fmt: skip
    assert same_bars(bars, theirs) > 150


BINANCE = [
    (["usdm/btcusdt_20240718.gz"], 3322, 0),
    (["usdm/btcusdt_20230404.dat.gz"], 4323, 0),
    (["spot/btcusdt_20240808.gz"], 3450, 0),
]


@pytest.mark.parametrize(
    ("files", "groups", "wrong"),
    [pytest.param(*one, marks=[pytest.mark.slow] * (n > 0), id=one[0][0]) for n, one in enumerate(BINANCE)],
)
def test_books_of_binance_never_cross(places: Path, files: list[str], groups: int, wrong: int) -> None:
    paths = [REAL / "binance_ws" / name for name in files]
    import_ticks("ws", paths, vendor="binance_ws", recv_shift="auto")
    events = open_tape("ws").events
    assert crossed(events) == (groups, wrong)
    # The best of each rebuilt book is one that the other stream quoted; spot quotes and books are told apart in time.
    quoted = set(events[events["kind"] == codes.QUOTE][["bid", "ask"]].tolist())
    best = [(max(bids), min(asks)) in quoted for row, bids, asks in books(events) if row[0] == codes.DEPTH]
    assert sum(best) >= len(best) - ("spot" in files[0]) * 3
    assert int((events["recv"] - events["ts"]).min()) == 0
    assert (events["source"] == 0).all()


@pytest.mark.slow
def test_the_second_day_of_binance_goes_on_from_the_first(places: Path) -> None:
    first, day = REAL / "binance_ws/usdm/btcusdt_20240718.gz", places / "second.gz"
    with gzip.open(REAL / "binance_ws/usdm/btcusdt_20240719.gz") as file:
        day.write_bytes(gzip.compress(b"".join(next(file) for _ in range(4000)), 1))
    with pytest.raises(ValidationError, match=r"second.gz, row \d+ \(BTCUSDT\): missing snapshot"):
        import_ticks("ws", day, vendor="binance_ws", recv_shift="2s")
    with pytest.raises(ValidationError, match="recv is before ts"):
        import_ticks("ws", first, vendor="binance_ws")
    import_ticks("ws", [first, day], vendor="binance_ws", recv_shift="2s")
    import_ticks("first", first, vendor="binance_ws", recv_shift="2s")
    both, one = open_tape("ws").events, open_tape("first").events
    assert len(both) > len(one) + 4000
    assert (both[: len(one)]["price"] == one["price"]).all()
    assert crossings(both[len(one) - 50_000 :])[-100:] == [False] * 100


def test_a_gap_in_a_real_recording_is_found(places: Path) -> None:
    lines = gzip.decompress((REAL / "binance_ws/usdm/btcusdt_20240718.gz").read_bytes()).splitlines(keepends=True)
    at = next(i for i in range(2000, len(lines)) if b"depthUpdate" in lines[i])
    path = places / "btcusdt.gz"
    path.write_bytes(gzip.compress(b"".join(lines[:at] + lines[at + 1 : 4000]), 1))
    with pytest.raises(ValidationError, match="out of sequence: update"):
        import_ticks("ws", path, vendor="binance_ws", recv_shift="auto")
    where = import_ticks("ws", path, vendor="binance_ws", recv_shift="auto", on_error="quarantine")
    *_, (_, bids, asks) = books(open_tape("ws").events)
    assert (bids, asks) == ({}, {})
    aside = pl.read_parquet(where / "quarantine.parquet")
    assert set(aside["kind"]) == {"depth"}
    assert aside["row"].min() > at


def test_depth_files_of_binance(places: Path) -> None:
    names = [REAL / f"binance_vision/T_DEPTH/btcusdt-depth-{kind}.csv" for kind in ("snap", "update")]
    import_ticks("snap", names[0], vendor="binance")
    assert len(open_tape("snap")) == 100
    with pytest.raises(ValidationError, match="out of sequence: its pu"):  # the two are ten minutes apart
        import_ticks("both", names, vendor="binance")


def test_executions_of_lobster_are_at_the_best_quote(places: Path) -> None:
    message = next((REAL / "lobster").glob("*message*"))
    where = import_ticks("amzn", message, vendor="lobster")
    assert json.loads((where / "dataset.json").read_text())["rows"]["trades AMZN"] == 8974 + 2445
    events = open_tape("amzn").events
    types = pl.read_csv(message, has_header=False)["column_1"].to_numpy()
    visible = iter((types[np.isin(types, (4, 5))] == 4).tolist())
    seen = inside = hidden = 0
    for (kind, _, price, _, side, _), bids, asks in books(events):
        if kind == codes.TRADE:
            best_bid, best_ask = max(bids, default=0.0), min(asks, default=np.inf)
            if next(visible):
                seen += 1
                assert price == (best_ask if side == 1 else best_bid)
            else:
                hidden += 1
                inside += 0 < best_bid < price < best_ask  # but the first, which comes before any book
    assert (seen, hidden, inside) == (8974, 2445, 2444)
    assert crossed(events)[1] == 0
    quotes = events[events["kind"] == codes.QUOTE]
    assert bool((quotes["bid"] < quotes["ask"]).all())


def test_quotes_of_dukascopy(places: Path) -> None:
    import_ticks("duka", REAL / "dukascopy/GBPJPY", vendor="dukascopy")
    tape = open_tape("duka")
    events = tape.events
    assert len(tape) == sum(1 for _ in events) > 40_000
    assert (tape.instruments[0].name, tape.instruments[0].tick) == ("GBPJPY", 0.001)
    assert str(events["ts"][0].astype("M8[ns]")).startswith("2012-12-03T00:00")
    assert bool((events["bid"] <= events["ask"]).all())
    assert 130 < float(events["bid"].min()) < float(events["ask"].max()) < 134


def test_trades_of_databento_make_the_vendors_bars(places: Path) -> None:
    dbn = pytest.importorskip("databento_dbn")
    folder = REAL / "databento"
    import_ticks("trades", folder / "futures_trades_2024-07-01T23-58_2024-07-02T00-02.dbn.zst", vendor="databento")
    import_ticks("mbp", folder / "futures_mbp-1_2024-07-01T23-58_2024-07-02T00-02.dbn.zst", vendor="databento")
    trades, mbp = open_tape("trades").events, open_tape("mbp").events
    printed = mbp[mbp["kind"] == codes.TRADE]
    for name in ("ts", "recv", "price", "traded", "side"):
        assert (printed[name] == trades[name]).all()
    decoder = dbn.DBNDecoder(compression=dbn.Compression.ZSTD)
    decoder.write((folder / "futures_ohlcv-1m_2024-07-01T23-40_2024-07-02T00-10.dbn.zst").read_bytes())
    bars = [r for r in decoder.decode() if isinstance(r, dbn.OHLCVMsg) and r.instrument_id == 118]
    theirs = pl.DataFrame(
        {
            "ts": [r.ts_event for r in bars],
            "volume": [float(r.volume) for r in bars],
            **{n: [getattr(r, n) / 1e9 for r in bars] for n in ("open", "high", "low", "close")},
        }
    )
    ours = minute_bars(trades)
    assert same_bars(ours, theirs) == ours.height == 4
    # Each trade is at the quote that stood before it.
    quote: tuple[float, float] | None = None
    hits = 0
    for kind, price, side, bid, ask in mbp[["kind", "price", "side", "bid", "ask"]].tolist():
        if kind == codes.QUOTE:
            quote = (bid, ask)
        elif quote is not None:
            hits += price == (quote[1] if side == 1 else quote[0])
    assert hits >= 110


def test_orders_of_databento_fold_into_a_book(places: Path) -> None:
    pytest.importorskip("databento_dbn")
    path = REAL / "databento/esh4-glbx-mdp3-20231225.mbo.dbn.zst"
    import_ticks("mbo", path, vendor="databento")
    events = open_tape("mbo").events
    trades = events[events["kind"] == codes.TRADE]
    opening = int(np.datetime64("2023-12-25T23:00", "ns").astype(np.int64))
    # Orders may cross before the opening, when nothing trades; from the first trade on they never do.
    assert len(trades) == 2973
    assert int(trades["ts"][0]) == opening
    wrong = [row for row in zip(events["ts"][ends(events)].tolist(), crossings(events), strict=True) if row[1]]
    assert 0 < len(wrong) < 1000
    assert max(ts for ts, _ in wrong) < opening
    cut = places / "cut.dbn.zst"
    cut.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="its last block is incomplete, it was cut"):
        import_ticks("cut", cut, vendor="databento")


def test_samples_of_databento(places: Path) -> None:
    pytest.importorskip("databento_dbn")
    folder = REAL / "databento/GLBX.MDP3"
    found = {}
    for schema in ("mbp-1", "mbp-10", "tbbo", "trades", "bbo-1s", "bbo-1m"):
        import_ticks(schema, folder / f"test_data.{schema}.dbn.zst", vendor="databento")
        kinds = open_tape(schema).events["kind"].tolist()
        found[schema] = {codes.NAMES["kind"][k]: kinds.count(k) for k in sorted(set(kinds))}
    assert found == {"mbp-1": {"quote": 4}, "mbp-10": {"quote": 4, "depth": 23}, "tbbo": {"quote": 4, "trade": 4},
                     "trades": {"trade": 4}, "bbo-1s": {"quote": 4}, "bbo-1m": {"quote": 4}}  # fmt: skip
    with pytest.raises(DataError, match="bars go through import_bars"):
        import_ticks("bars", folder / "test_data.ohlcv-1s.dbn.zst", vendor="databento")


OTHERS: list[tuple[str, dict[str, Any], int, Callable[[Events], bool]]] = [
    ("truefx/usdjpy-ticks.csv", {"instrument": "USDJPY"}, 1000, lambda e: bool((e["bid"] <= e["ask"]).all())),
    ("histdata/quote_tick_data.csv.gz",
     {"instrument": "EURUSD", "header": ["ts", "bid", "ask", "volume"], "timezone": "Etc/GMT+5",
      "time_format": "%Y%m%d %H%M%S%3f"}, 9500, lambda e: int(e["ts"][0]) == 1577916000065000000),
    ("kraken/trades_csv/BCHEUR.csv", {"instrument": "BCHEUR", "header": ["ts", "price", "volume"]}, 0,
     lambda e: len(e) > 100),
    ("tardis/bitmex_trades_XBTUSD.csv", {"vendor": "tardis"}, 10, lambda e: bool((e["recv"] > e["ts"]).all())),
    ("tardis/huobi-dm-swap_quotes_BTC-USD.csv", {"vendor": "tardis"}, 10, lambda e: bool((e["bid"] < e["ask"]).all())),
    ("tardis/deribit_incremental_book_L2_BTC-PERPETUAL.csv", {"vendor": "tardis"}, 15,
     lambda e: int(e["last"].sum()) == 1),
    ("tardis/binance-futures_book_snapshot_25_BTCUSDT.csv", {"vendor": "tardis"}, 500,
     lambda e: crossed(e) == (10, 0)),
    ("tardis/binance-futures_book_snapshot_5_BTCUSDT.csv", {"vendor": "tardis"}, 100, lambda e: crossed(e) == (10, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("file", "given", "count", "rule"), OTHERS, ids=[name for name, *_ in OTHERS])
def test_other_vendors(places: Path, file: str, given: Any, count: int, rule: Callable[[Events], bool]) -> None:
    import_ticks("x", REAL / file, **given)
    events = open_tape("x").events
    assert rule(events)
    assert count in (0, len(events))


def test_a_trade_of_nothing_in_bitstamp(places: Path) -> None:
    given: dict[str, Any] = {"instrument": "BTCUSD", "header": ["ts", "price", "volume"]}
    file = REAL / "bitcoincharts/bitstampUSD.csv.gz"
    with pytest.raises(ValidationError, match=r"1 problem, .*\n.*volume is zero: nothing was traded"):
        import_ticks("x", file, **given)
    where = import_ticks("x", file, on_error="quarantine", **given)
    assert pl.read_parquet(where / "quarantine.parquet").height == 1
