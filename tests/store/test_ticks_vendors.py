"""Vendors of single events on hand-made files small enough to read, and what each refuses."""

import gzip
import json
import lzma
import struct
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.errors import ConfigError, DataError, ValidationError
from engine.kernel import codes
from engine.store import import_ticks, open_tape
from tests.store.conftest import left_in

T = 1_700_000_000_000  # ms


def wire(path: Path, messages: list[dict[str, Any]], step: int = 10) -> Path:
    """A recording: each message received `step` ms after the one before, the first 5 ms after T."""
    lines = (f"{(T + 5 + i * step) * 10**6} {json.dumps(message)}" for i, message in enumerate(messages))
    path.write_bytes(gzip.compress("\n".join(lines).encode() + b"\n"))
    return path


def update(first: int, final: int, bids: Any = (), asks: Any = (), pu: int | None = None) -> dict[str, Any]:
    data = {"e": "depthUpdate", "E": T, "s": "X", "U": first, "u": final, "b": bids, "a": asks}
    return {"stream": "x@depth", "data": data | ({} if pu is None else {"pu": pu, "T": T})}


SNAPSHOT = {"lastUpdateId": 20, "bids": [["99", "5"]], "asks": [["101", "4"], ["102", "1"]]}
TICKER = {"stream": "x@bookTicker", "data": {"u": 1, "s": "X", "b": "99", "B": "5", "a": "101", "A": "4"}}
TRADE = {
    "stream": "x@trade",
    "data": {"e": "trade", "E": T, "s": "X", "t": 1, "p": "101", "q": "0.5", "T": T, "m": False},
}


def rows_of(name: str) -> list[tuple[Any, ...]]:
    fields = ("kind", "code", "price", "traded", "side", "last")
    events = open_tape(name).events
    return list(zip(*(events[field].tolist() for field in fields), strict=True))


def test_the_rules_of_a_futures_book(places: Path) -> None:
    """Updates before the snapshot wait for it, old ones go, the first spans it, the others follow by pu."""
    recording = wire(places / "r.gz", [
        update(1, 10, [["98", "1"]], pu=0), update(15, 25, [["99", "6"]], pu=10), TICKER, SNAPSHOT, TRADE,
        update(26, 30, [["99", "0"], ["98.5", "2"]], pu=25)])  # fmt: skip
    where = import_ticks("r", recording, vendor="binance_ws")
    assert rows_of("r") == [
        (codes.QUOTE, 0, 99.0, 101.0, 4617315517961601024, 4616189618054758400),  # the bytes of 5.0 and 4.0
        (codes.DEPTH, codes.SNAPSHOT, 99.0, 5.0, 1, 0), (codes.DEPTH, codes.SNAPSHOT, 101.0, 4.0, -1, 0),
        (codes.DEPTH, codes.SNAPSHOT, 102.0, 1.0, -1, 1), (codes.DEPTH, codes.UPDATE, 99.0, 6.0, 1, 1),
        (codes.TRADE, 0, 101.0, 0.5, 1, 0), (codes.DEPTH, codes.UPDATE, 99.0, 0.0, 1, 0),
        (codes.DEPTH, codes.UPDATE, 98.5, 2.0, 1, 1)]  # fmt: skip
    events = open_tape("r").events
    assert ((events["recv"] - T * 10**6) // 10**6).tolist() == [25, 35, 35, 35, 35, 45, 55, 55]
    assert (events["source"] == 0).all()
    assert json.loads((where / "dataset.json").read_text())["notes"] == {
        "updates older than their snapshot, dropped": 1
    }


def test_the_rules_of_a_spot_book(places: Path) -> None:
    recording = wire(
        places / "r.gz",
        [TICKER, update(11, 20, [["98", "1"]]), SNAPSHOT, update(21, 22, [["98", "2"]]), update(23, 23, [["98", "3"]])],
    )
    import_ticks("r", recording, vendor="binance_ws")
    assert [row[3] for row in rows_of("r") if row[0] == codes.DEPTH] == [5.0, 4.0, 1.0, 2.0, 3.0]


GAP = [TICKER, SNAPSHOT, update(21, 22, [["98", "2"]]), update(24, 25, [["98", "3"]]), update(26, 26, [["98", "4"]])]


def test_a_gap_is_an_error_or_an_empty_book(places: Path) -> None:
    again = {"lastUpdateId": 30, "bids": [["97", "7"]], "asks": [["103", "7"]]}
    recording = wire(places / "r.gz", [*GAP, again, update(31, 31, [["97", "8"]])])
    with pytest.raises(
        ValidationError, match=r"r.gz, row 4 \(X\): out of sequence: update 24 to 25 does not follow 22"
    ):
        import_ticks("r", recording, vendor="binance_ws")
    assert left_in(places / "data") == []
    where = import_ticks("r", recording, vendor="binance_ws", on_error="quarantine")
    depth = [row[1:4] for row in rows_of("r") if row[0] == codes.DEPTH]
    assert depth[:4] == [(1, 99.0, 5.0), (1, 101.0, 4.0), (1, 102.0, 1.0), (0, 98.0, 2.0)]
    assert (depth[4][0], depth[4][2]) == (codes.SNAPSHOT, 0.0)  # the lost book is empty
    assert depth[5:] == [(1, 97.0, 7.0), (1, 103.0, 7.0), (0, 97.0, 8.0)]
    aside = pl.read_parquet(where / "quarantine.parquet")
    assert aside["row"].to_list() == [4, 5]
    assert "no valid book since row 4" in aside["reason"][1]


def test_a_gap_behind_the_snapshot_and_in_an_update_without_rows(places: Path) -> None:
    for i, (messages, words) in enumerate(
        [
            ([TICKER, SNAPSHOT, update(25, 26, [["98", "2"]])], "the first update after snapshot 20 begins at 25"),
            ([TICKER, SNAPSHOT, update(21, 22), update(24, 24), update(25, 25, [["98", "2"]])], "row 5 .*24 to 24"),
            ([TICKER, update(21, 22, [["98", "2"]])], "row 2 .*missing snapshot"),
        ]
    ):
        with pytest.raises(ValidationError, match=words):
            import_ticks(f"r{i}", wire(places / "r.gz", messages), vendor="binance_ws")


def test_updates_without_a_snapshot_are_not_held_for_ever(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [update(i, i, [["98", str(i)]]) for i in range(1, 2500)]
    with pytest.raises(ValidationError, match=r"1 problem, .*\n.*row 1 .*missing snapshot"):
        import_ticks("r", wire(places / "r.gz", messages, 1), vendor="binance_ws")
    import_ticks("r", wire(places / "r.gz", messages, 1), vendor="binance_ws", book="empty")
    assert [row[3] for row in rows_of("r")] == list(range(1, 2500))


def test_damage_in_a_recording(places: Path) -> None:
    path = wire(places / "r.gz", [TICKER, SNAPSHOT, TRADE] * 300)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(DataError, match=r"r.gz: cannot be read"):
        import_ticks("r", path, vendor="binance_ws")
    path.write_bytes(gzip.compress(gzip.decompress(whole)[:-40]))
    with pytest.raises(DataError, match=r"row 900: .* is no local time and message"):
        import_ticks("r", path, vendor="binance_ws")
    with pytest.raises(DataError, match="a snapshot does not say its instrument"):
        import_ticks("r", wire(path, [SNAPSHOT]), vendor="binance_ws")
    with pytest.raises(ConfigError, match="trades='x'"):
        import_ticks("r", path, vendor="binance_ws", trades="x")
    assert left_in(places / "data") == []


def test_funding_falls_due(places: Path) -> None:
    def mark(rate: str, due: int) -> dict[str, Any]:
        return {"stream": "x", "data": {"e": "markPriceUpdate", "E": T, "s": "X", "p": "1", "r": rate, "T": due}}

    import_ticks("r", wire(places / "r.gz", [mark("0.01", T), mark("0.02", T), mark("0.05", T + 1000)]),
                 vendor="binance_ws")  # fmt: skip
    events = open_tape("r").events
    assert events[["kind", "amount"]].tolist() == [(codes.FUNDING, 0.02)]
    assert events["ts"].tolist() == [T * 10**6]


AGG = "1,100.5,0.25,1,1,1700000000000,True,True\n2,100.6,0.5,2,2,1700000000001,False,True\n"


@pytest.mark.parametrize(("name", "text", "found"), [
    ("X-aggTrades-2023-11-14.csv", AGG, [(100.5, 0.25, -1), (100.6, 0.5, 1)]),
    ("X-aggTrades-2025-11-14.csv", AGG.replace("170000000000", "170000000000000")[:-1],
     [(100.5, 0.25, -1), (100.6, 0.5, 1)]),
    ("X-trades-2023-11-14.csv", "id,price,qty,quote_qty,time,is_buyer_maker\n7,100.5,2,201,1700000000000,true\n",
     [(100.5, 2.0, -1)]),
])  # fmt: skip
def test_binance_trades(places: Path, name: str, text: str, found: list[Any]) -> None:
    (places / name).write_text(text)
    import_ticks("b", places / name, vendor="binance")
    tape = open_tape("b")
    assert tape.events[["price", "traded", "side"]].tolist() == found
    assert tape.instruments[0].name == "X"
    assert str(tape.events["ts"][0]).startswith("1700000000000")


def test_binance_book_ticker_and_names(places: Path) -> None:
    path = places / "X-bookTicker-2023-11-14.csv"
    path.write_text("update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time\n"
                    f"1,99,5,101,4,{T},{T + 3}\n")  # fmt: skip
    import_ticks("b", path, vendor="binance")
    events = open_tape("b").events
    assert events[["bid", "ask", "bid_volume", "ask_volume"]].tolist() == [(99.0, 101.0, 5.0, 4.0)]
    assert int(events["recv"][0] - events["ts"][0]) == 3_000_000
    for name, words in (("X-1m-2024.csv", "klines are bars"), ("X.csv", "give form=")):
        path.rename(places / name)
        with pytest.raises(DataError, match=words):
            import_ticks("c", places / name, vendor="binance")
        (places / name).rename(path)
    with pytest.raises(ConfigError, match="form='x'"):
        import_ticks("c", path, vendor="binance", form="x")


TDEPTH = ["symbol,timestamp,first_update_id,last_update_id,side,update_type,price,qty,pu",
          f"X,{T},20,20,b,snap,99,5,-1", f"X,{T},20,20,a,snap,101,4,-1", f"X,{T + 1},18,22,b,set,98,1,17",
          f"X,{T + 1},23,24,b,set,98,2,22", f"X,{T + 2},26,27,b,set,98,3,25"]  # fmt: skip


def test_binance_depth_files_keep_their_sequence(places: Path) -> None:
    path = places / "x-depth.csv"
    path.write_text("\n".join(TDEPTH[:-1]))
    import_ticks("d", path, vendor="binance")
    assert [row[1:] for row in rows_of("d")] == [
        (1, 99.0, 5.0, 1, 0), (1, 101.0, 4.0, -1, 1), (0, 98.0, 1.0, 1, 1), (0, 98.0, 2.0, 1, 1)]  # fmt: skip
    path.write_text("\n".join(TDEPTH))
    with pytest.raises(ValidationError, match=r"row 5 .X.: out of sequence: its pu"):
        import_ticks("e", path, vendor="binance")


def bi5(path: Path, rows: list[tuple[int, int, int, float, float]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = b"".join(struct.pack(">IIIff", *row) for row in rows)
    path.write_bytes(lzma.compress(packed, lzma.FORMAT_ALONE))
    return path


def test_dukascopy(places: Path) -> None:
    path = bi5(places / "EURUSD/2024/00/31/23h_ticks.bi5", [(1500, 108_013, 108_010, 1.5, 0.75)])
    (path.parent / "22h_ticks.bi5").write_bytes(b"")
    where = import_ticks("d", places / "EURUSD", vendor="dukascopy")
    events = open_tape("d").events
    assert events[["bid", "ask", "bid_volume", "ask_volume"]].tolist() == [(1.08010, 1.08013, 750_000.0, 1_500_000.0)]
    assert int(events["ts"][0]) == 1_706_742_001_500_000_000  # 31 January 2024, 23:00:01.5 UTC
    assert json.loads((where / "dataset.json").read_text())["notes"] == {"empty hours": 1}
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="cannot be read"):
        import_ticks("e", path, vendor="dukascopy")
    path.write_bytes(lzma.compress(b"x" * 21, lzma.FORMAT_ALONE))
    with pytest.raises(DataError, match="no whole number of quotes"):
        import_ticks("e", path, vendor="dukascopy")
    path.rename(places / "lost.bi5")
    with pytest.raises(DataError, match="months count from 00"):
        import_ticks("e", places / "lost.bi5", vendor="dukascopy")


MESSAGES = [
    "34200.01746,1,7,10,1000100,-1",
    "34200.5,4,7,4,1000100,-1",
    "34201,5,0,3,1000050,1",
    "34202,3,7,6,1000100,-1",
]
BOOKS = ["1000100,10,1000000,5,9999999999,0,999900,2", "1000100,6,1000000,5,9999999999,0,999900,2",
         "1000100,6,1000000,5,9999999999,0,999900,2", "9999999999,0,1000000,5,9999999999,0,999900,2"]  # fmt: skip


def test_lobster(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"X_2012-06-21_34200000_57600000_{kind}_2.csv" for kind in ("message", "orderbook")]
    for name, lines in zip(names, (MESSAGES, BOOKS), strict=True):
        (places / name).write_text("\n".join(lines) + "\n")
    import_ticks("l", places / names[0], vendor="lobster")
    events = open_tape("l").events
    seconds = (events["ts"] - 1340285400 * 10**9) / 1e9  # 9:30 in New York in summer is 13:30 UTC
    assert seconds.tolist() == [0.01746] * 4 + [0.5] * 3 + [1.0] + [2.0] * 2
    sold = [(codes.TRADE, 100.01, 4.0, 1), (codes.TRADE, 100.005, 3.0, -1)]
    trades = events[events["kind"] == codes.TRADE]
    assert trades[["kind", "price", "traded", "side"]].tolist() == sold
    assert events["kind"].tolist() == [4, 4, 4, 2, 3, 4, 2, 3, 4, 2]
    depth = events[events["kind"] == codes.DEPTH]
    assert depth[["price", "traded", "side", "last", "code"]].tolist() == [
        (100.0, 5.0, 1, 0, 1), (99.99, 2.0, 1, 0, 1), (100.01, 10.0, -1, 1, 1), (100.01, 6.0, -1, 1, 0),
        (100.01, 0.0, -1, 1, 0)]  # fmt: skip
    assert events["ask"][-1] == 0.0
    monkeypatch.setattr("engine.store.blocks.BLOCK", 64)
    import_ticks("pieces", places / names[0], vendor="lobster")
    assert open_tape("pieces").digest != ""
    assert bytes(open_tape("pieces").events.tobytes()) == bytes(events.tobytes())
    (places / names[1]).write_text("\n".join(BOOKS[:3]))
    with pytest.raises(DataError, match="fewer rows than"):
        import_ticks("m", places / names[0], vendor="lobster")
    (places / names[1]).unlink()
    with pytest.raises(DataError, match=r"order book file of X_2012-06-21.* is missing"):
        import_ticks("m", places / names[0], vendor="lobster")


def test_tardis(places: Path) -> None:
    head = "exchange,symbol,timestamp,local_timestamp,"
    at = f"e,X,{T}000,{T}007,"
    path = places / "t.csv"
    path.write_text(f"{head}id,side,price,amount\n{at}1,sell,10,2\n{at}2,buy,10.5,3\n")
    import_ticks("t", path, vendor="tardis")
    assert open_tape("t").events[["price", "traded", "side"]].tolist() == [(10.0, 2.0, -1), (10.5, 3.0, 1)]
    path.write_text(f"{head}ask_amount,ask_price,bid_price,bid_amount\n{at}4,101,99,5\n{at},,99,6\n")
    import_ticks("q", path, vendor="tardis")
    assert open_tape("q").events[["bid", "ask", "bid_volume"]].tolist() == [(99.0, 101.0, 5.0), (99.0, 0.0, 6.0)]
    path.write_text(f"{head}is_snapshot,side,price,amount\n{at}true,bid,99,5\n{at}true,ask,101,4\n{at}false,bid,99,0\n")
    import_ticks("i", path, vendor="tardis")
    assert [row[1:] for row in rows_of("i")] == [(1, 99.0, 5.0, 1, 0), (1, 101.0, 4.0, -1, 1), (0, 99.0, 0.0, 1, 1)]
    levels = ",".join(
        f"{side}[{k}].{what}" for k in (0, 1) for side in ("asks", "bids") for what in ("price", "amount")
    )
    path.write_text(f"{head}{levels}\n{at}101,4,99,5,,,98,6\n{at}102,1,99,5,103,2,98,6\n")
    import_ticks("s", path, vendor="tardis")
    assert [row[1:] for row in rows_of("s")] == [
        (1, 99.0, 5.0, 1, 0), (1, 98.0, 6.0, 1, 0), (1, 101.0, 4.0, -1, 1), (1, 99.0, 5.0, 1, 0), (1, 98.0, 6.0, 1, 0),
        (1, 102.0, 1.0, -1, 0), (1, 103.0, 2.0, -1, 1)]  # fmt: skip
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="are no Tardis trades, quotes or books"):
        import_ticks("x", path, vendor="tardis")
