"""Single events from anyone's tables: columns, times, groups, and one total order over kinds and instruments."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.errors import ConfigError, DataError, ValidationError
from engine.kernel import codes
from engine.store import import_ticks, merge, open_tape
from engine.store.importer import summary
from tests.store.conftest import left_in

S = 10**9
T0 = 1_600_000_000 * S


def quotes(n: int = 6) -> pl.DataFrame:
    return pl.DataFrame({
        "ts": [T0 + i * S for i in range(n)], "recv": [T0 + i * S + 5 for i in range(n)],
        "bid": [99.5] * n, "ask": [100.0 + i for i in range(n)], "bid_volume": [1.0] * n, "ask_volume": [2.0] * n,
    })  # fmt: skip


def depth() -> pl.DataFrame:
    """A snapshot of two levels, then three updates, the second of two rows."""
    return pl.DataFrame({
        "ts": [T0, T0, T0 + 1, T0 + 2, T0 + 2, T0 + 3],
        "price": [99.0, 101.0, 99.5, 99.5, 98.0, 100.5], "volume": [5.0, 4.0, 1.0, 0.0, 7.0, 3.0],
        "side": ["bid", "ask", "b", "bid", "bid", "ask"], "snapshot": [1, 1, 0, 0, 0, 0],
    })  # fmt: skip


def test_quotes_of_a_csv(places: Path) -> None:
    path = places / "q.csv"
    path.write_text("when,b,a,bs\n2020-01-01T00:00:00.000000001Z,99.5,100,3\n2020-01-01T00:00:01Z,,100.5,\n")
    where = import_ticks("q", path, kind="quotes", columns={"ts": "when", "bid": "b", "ask": "a", "bid_volume": "bs"},
                         instrument="X", instruments={"currency": "EUR"})  # fmt: skip
    tape = open_tape("q")
    events = tape.events
    assert [int(t) for t in events["ts"]] == [1577836800_000000001, 1577836801_000000000]
    assert (events["recv"] == events["ts"]).all()
    assert (events["kind"] == codes.QUOTE).all()
    assert events["bid"].tolist() == [99.5, 0.0]  # an empty cell is a side that is not there
    assert events["bid_volume"].tolist() == [3.0, 0.0]
    assert (tape.instruments[0].name, tape.instruments[0].currency) == ("X", "EUR")
    manifest = json.loads((where / "dataset.json").read_text())
    assert (manifest["kind"], manifest["rows"]) == ("ticks", {"quotes X": 2})
    assert open_tape("q").digest == tape.digest


@pytest.mark.parametrize(("text", "ns"), [
    ("1583020803", 1583020803 * S), ("1583020803.145", 1583020803_145000000), ("1583020803145", 1583020803_145000000),
    ("1583020803145001", 1583020803_145001000), ("1583020803145001002", 1583020803_145001002),
    ("2020-03-01 00:00:03.145+00:00", 1583020803_145000000),
])  # fmt: skip
def test_times_of_every_form_are_exact(places: Path, text: str, ns: int) -> None:
    (places / "t.csv").write_text(f"time,price,qty\n{text},10,1\n")
    import_ticks("t", places / "t.csv", instrument="X")
    assert int(open_tape("t").events["ts"][0]) == ns


def test_local_times_and_scales(places: Path) -> None:
    (places / "t.csv").write_text("20200101 170000065;11212;3;S\n20200701 170000065;11212;3;B\n")
    import_ticks("t", places / "t.csv", instrument="X", header=["ts", "price", "volume", "side"], separator=";",
                 timezone="America/New_York", time_format="%Y%m%d %H%M%S%3f", price_scale=1e-4,
                 volume_scale=100)  # fmt: skip
    events = open_tape("t").events
    assert [str(np.datetime64(int(t), "ms"))[:19] for t in events["ts"] // 10**6] == [
        "2020-01-01T22:00:00", "2020-07-01T21:00:00"]  # fmt: skip
    assert events["price"].tolist() == pytest.approx([1.1212, 1.1212])
    assert (events["traded"].tolist(), events["side"].tolist()) == ([300.0, 300.0], [-1, 1])


def test_groups_of_depth(places: Path) -> None:
    import_ticks("d", depth(), kind="depth", instrument="X")
    events = open_tape("d").events
    assert events["last"].tolist() == [0, 1, 1, 0, 1, 1]
    assert events["code"].tolist() == [codes.SNAPSHOT] * 2 + [codes.UPDATE] * 4
    assert events["side"].tolist() == [1, -1, 1, 1, 1, -1]
    told = depth().with_columns(ts=pl.lit(T0), last=pl.Series([0, 1, 1, 1, 1, 1]))
    import_ticks("told", told, kind="depth", instrument="X")
    assert open_tape("told").events["last"].tolist() == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("block", [40, 64, 200, 1 << 20])
def test_the_size_of_blocks_does_not_matter(places: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    path = places / "d.csv"
    depth().write_csv(path)
    import_ticks("whole", path, kind="depth", instrument="X")
    monkeypatch.setattr("engine.store.blocks.BLOCK", block)
    monkeypatch.setattr("engine.store.ticks_job.PART", 2)
    monkeypatch.setattr("engine.store.ticks.GROUP", 1)
    packed = places / "d.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    import_ticks("cut", packed, kind="depth", instrument="X")
    whole, cut = open_tape("whole").events, open_tape("cut").events
    assert bytes(merge.to_bytes(whole)) == bytes(merge.to_bytes(cut))


def mixed() -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(5)
    frames = {}
    for name in ("A", "B", "C"):
        recv = T0 + np.sort(rng.integers(0, 20, 50)) * S
        frames[name] = pl.DataFrame({
            "ts": recv - rng.integers(0, 3, 50) * S, "recv": recv, "price": 100.0 + rng.integers(0, 9, 50),
            "volume": 1.0 + np.arange(50)})  # fmt: skip
    times = np.concatenate([frame["recv"].to_numpy() for frame in frames.values()])
    return frames, np.argsort(times, kind="stable")


@pytest.mark.parametrize("piece", [1, 7, 1 << 18])
def test_one_total_order_over_instruments(places: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    frames, order = mixed()
    monkeypatch.setattr(merge.merge, "__defaults__", (piece,))
    import_ticks("m", frames)
    events = open_tape("m").events
    volumes = np.concatenate([frame["volume"].to_numpy() for frame in frames.values()])[order]
    assert events["traded"].tolist() == volumes.tolist()
    assert events["instrument"].tolist() == (order // 50).tolist()
    assert (events["exec_id"] == 0).all()
    alone = open_tape("m", "B").events
    assert len(alone) == 50
    assert (alone["instrument"] == 0).all()


def test_a_span_is_cut_by_the_time_of_receipt(places: Path) -> None:
    import_ticks("q", quotes().with_columns(recv=pl.col("ts") + 10 * S), instrument="X")
    tape = open_tape("q", start="2020-09-13T12:26:52+00:00")
    assert int(tape.events["recv"][0]) == T0 + 12 * S
    assert int(tape.events["ts"][0]) == T0 + 2 * S


def test_funding_and_parquet(places: Path) -> None:
    path = places / "f.parquet"
    pl.DataFrame({"ts": [T0, T0 + 1], "funding_rate": [1e-4, -2e-4], "symbol": ["X", "Y"]}).write_parquet(path)
    import_ticks("f", path)
    events = open_tape("f").events
    assert (events["kind"] == codes.FUNDING).all()
    assert events["amount"].tolist() == [1e-4, -2e-4]
    assert events["instrument"].tolist() == [0, 1]
    import_ticks("y", path, instrument="Y")
    assert [info.name for info in open_tape("y").instruments] == ["Y"]


def bad(column: str, row: int, value: Any, frame: pl.DataFrame | None = None) -> pl.DataFrame:
    frame = quotes() if frame is None else frame
    cells = frame[column].to_list()
    cells[row] = value
    return frame.with_columns(pl.Series(column, cells, strict=False))


TRADES = quotes().select("ts", "recv", pl.col("bid").alias("price"), pl.col("bid_volume").alias("volume"),
                         pl.lit("buy").alias("side"))  # fmt: skip
BAD = [
    (bad("recv", 2, T0 + S), "row 3 .X.: recv is before ts"),
    (bad("recv", 2, T0 + 3 * S + S // 2), "row 4 .X.: recv goes back"),
    (bad("bid", 1, -3.0), "row 2 .X.: bid is not a number or negative"),
    (bad("ask_volume", 5, -1.0), "row 6 .X.: ask volume is missing or negative"),
    (bad("ask", 0, float("inf")), "row 1 .X.: ask is not a number"),
    (bad("ask", 3, 100.255), "row 4 .X.: ask is off the tick of 0.5"),
    (bad("ts", 3, None), "row 4 .X.: time is missing"),
    (bad("price", 3, 0.0, TRADES), "row 4 .X.: price is missing, zero or negative"),
    (bad("volume", 3, -1.0, TRADES), "row 4 .X.: volume is missing or negative"),
    (bad("volume", 3, 0.0, TRADES), "row 4 .X.: volume is zero"),
    (bad("side", 3, "up", TRADES), "row 4 .X.: side is neither buy"),
    (bad("price", 3, "1o0", TRADES), "row 4 .X.: price is missing"),
]


@pytest.mark.parametrize(("frame", "reason"), BAD, ids=[reason.split(": ")[1] for _, reason in BAD])
def test_bad_rows(places: Path, frame: pl.DataFrame, reason: str) -> None:
    about: dict[str, Any] = {"instrument": "X", "instruments": {"tick": 0.5}}
    with pytest.raises(ValidationError, match=f"frame, {reason}"):
        import_ticks("x", frame, **about)
    assert left_in(places / "data") == []
    where = import_ticks("x", frame, on_error="quarantine", **about)
    assert len(open_tape("x")) == frame.height - 1
    assert reason.split(": ")[1] in pl.read_parquet(where / "quarantine.parquet")["reason"][0]


def test_keep_sorts_and_keeps(places: Path) -> None:
    import_ticks("x", bad("recv", 2, T0 + 9 * S), instrument="X", on_error="keep")
    events = open_tape("x").events
    assert events["ask"].tolist() == [100.0, 101.0, 103.0, 104.0, 105.0, 102.0]


@pytest.mark.parametrize(
    ("first", "step", "n", "tick"),
    [(99.5, 0.25, 5000, 0.25), (99.5, 0.25, 4999, 0.01), (1.0, 0.00005, 5000, 5e-5), (500.0, 5.0, 5000, 5.0),
     (99.02, 0.02, 5000, 0.02), (100.01, 0.01, 5000, 0.01), (32_000.0, 100.0, 5000, 25.0)],
)  # fmt: skip
def test_the_tick_is_the_step_of_many_prices(places: Path, first: float, step: float, n: int, tick: float) -> None:
    frame = quotes(n).with_columns(bid=first + step * pl.int_range(n), ask=first + step * (pl.int_range(n) + 1))
    import_ticks("x", frame.with_columns(pl.col("bid", "ask").round(5)), instrument="X")
    assert open_tape("x").instruments[0].tick == tick


def test_quotes_without_volumes_are_told(places: Path) -> None:
    where = import_ticks("x", quotes().drop("bid_volume", "ask_volume"), instrument="X")
    told = summary(where).splitlines()
    assert "Note     6 quotes without volumes: no order is filled on them" in told
    assert "Rows     6 of 1 instrument: X (tick 0.01, lot 1)" in told


def test_nothing_at_all_is_no_unknown_instrument(places: Path) -> None:
    (places / "empty").mkdir()
    for source in (places / "empty", quotes(0), []):
        with pytest.raises(DataError, match="no events to import"):
            import_ticks("x", source, instrument="X")


def test_the_recorder_was_behind(places: Path) -> None:
    late = quotes().with_columns(recv=pl.col("ts") - 1_270_000_000 + pl.Series([0, 1, 2, 3, 4, 5]))
    with pytest.raises(ValidationError, match="recv is before ts"):
        import_ticks("x", late, instrument="X")
    import_ticks("x", late, instrument="X", recv_shift="auto")
    events = open_tape("x").events
    assert (events["recv"] - events["ts"]).tolist() == [0, 1, 2, 3, 4, 5]
    import_ticks("y", late, instrument="X", recv_shift="1.27s")
    assert open_tape("y").digest == open_tape("x").digest


def test_a_lost_book_is_empty_until_the_next_snapshot(places: Path) -> None:
    again = depth().with_columns(ts=pl.col("ts") + 10)
    frame = pl.concat([bad("volume", 3, -1.0, depth()), again])
    with pytest.raises(ValidationError, match=r"row 4 .X.: volume is missing or negative"):
        import_ticks("x", frame, kind="depth", instrument="X")
    where = import_ticks("x", frame, kind="depth", instrument="X", on_error="quarantine")
    events = open_tape("x").events
    # Snapshot and first update stay; in place of the second an empty snapshot; then the new snapshot.
    assert events["ts"].tolist() == [T0, T0, T0 + 1, T0 + 2, *again["ts"].to_list()]
    assert (int(events["code"][3]), float(events["traded"][3]), int(events["last"][3])) == (codes.SNAPSHOT, 0.0, 1)
    aside = pl.read_parquet(where / "quarantine.parquet")
    assert aside["row"].to_list() == [4, 5, 6]
    assert "bad row" in aside["reason"][1]
    assert "no valid book since row 4" in aside["reason"][2]


@pytest.mark.parametrize("block", [30, 1 << 20])
@pytest.mark.parametrize(("column", "value"), [("recv", 0), ("recv", T0 + 1), ("ts", None), ("volume", -1.0)])
def test_an_emptied_book_keeps_the_order_of_time(
    places: Path, monkeypatch: pytest.MonkeyPatch, block: int, column: str, value: Any
) -> None:
    later = depth().with_columns(ts=pl.col("ts") + 10)
    frame = pl.concat([depth(), later]).with_columns(recv=pl.col("ts") + 2)
    path = places / "d.csv"
    bad(column, 3, value, frame).write_csv(path)
    monkeypatch.setattr("engine.store.blocks.BLOCK", block)
    import_ticks("x", path, kind="depth", instrument="X", on_error="quarantine")
    events = open_tape("x").events
    assert bool((np.diff(events["recv"]) >= 0).all() and (events["ts"] <= events["recv"]).all())
    emptied = (events["code"] == codes.SNAPSHOT) & (events["traded"] == 0)
    assert np.flatnonzero(emptied).tolist() == [3]
    assert len(events) == 3 + 1 + 6


def test_a_book_needs_a_snapshot(places: Path) -> None:
    with pytest.raises(ValidationError, match=r"row 1 .X.: missing snapshot"):
        import_ticks("x", depth()[2:], kind="depth", instrument="X")
    with pytest.raises(DataError, match="no events to import"):
        import_ticks("x", depth()[2:], kind="depth", instrument="X", on_error="quarantine")
    import_ticks("x", depth()[2:], kind="depth", instrument="X", book="empty")
    assert len(open_tape("x")) == 4


def test_names_and_options_are_checked(places: Path) -> None:
    frame = quotes()
    for error, words, given in [
        (DataError, "give instrument=", {}),
        (DataError, "unknown instrument 'Y'", {"source": frame.with_columns(symbol=pl.lit("X")), "instrument": "Y"}),
        (ConfigError, "vendor='lobsterr'", {"vendor": "lobsterr"}),
        (ConfigError, "unknown option 'kindd'", {"kindd": "quotes"}),
        (ConfigError, "on_error='no'", {"on_error": "no"}),
        (ConfigError, "unknown name 'bidd'", {"columns": {"bidd": "bid"}, "instrument": "X"}),
        (DataError, "no column price, volume for trades", {"kind": "trades", "instrument": "X"}),
        (DataError, "neither quotes, trades", {"source": frame.rename({"bid": "b"}), "instrument": "X"}),
    ]:
        with pytest.raises(error, match=words):
            import_ticks("x", **{"source": frame, **given})
    assert left_in(places / "data") == []
    import_ticks("x", frame, instrument="X")
    with pytest.raises(DataError, match="already exists"):
        import_ticks("x", frame, instrument="X")


@pytest.mark.parametrize("kind", ["gz", "zip"])
def test_a_cut_file_is_an_error(places: Path, kind: str) -> None:
    import zipfile

    rng = np.random.default_rng(1)
    text = quotes(4000).with_columns(bid=pl.Series(rng.uniform(1, 9, 4000))).write_csv().encode()
    path = places / f"q.csv.{kind}"
    if kind == "gz":
        path.write_bytes(gzip.compress(text))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("q.csv", text)
    import_ticks("x", path, instrument="X")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="cannot be read"):
        import_ticks("y", path, instrument="X")
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        import_ticks("y", path, instrument="X")
    assert left_in(places / "data")[0].startswith("x")


def test_an_import_says_what_it_holds(places: Path) -> None:
    frame = quotes().with_columns(bid=pl.Series([99.5, 99.5, -1.0, 99.5, 99.5, 99.5]))
    trades = pl.DataFrame({"ts": [T0 + 7 * S], "price": [100.0], "volume": [2.0], "side": [1]})
    where = import_ticks("q", [frame, trades], instrument="X", on_error="quarantine")
    manifest = json.loads((where / "dataset.json").read_text())
    assert (manifest["first"], manifest["last"], manifest["quarantined"]) == (T0 + 5, T0 + 7 * S, 1)
    assert summary(where).splitlines() == [
        "Rows     6 of 1 instrument: X (tick 0.01, lot 1)", "Kinds    5 quotes, 1 trades",
        "Span     2020-09-13 12:26:40 to 2020-09-13 12:26:47 UTC, as received", "Times    time zone UTC, calendar 24/7",
        "Aside    1 row, with the reasons in quarantine.parquet", "Noted    1 problem, in dataset.json",
    ]  # fmt: skip
    part = open_tape("q", start="2020-09-13T12:26:43", end="2020-09-13T12:26:45").events
    assert part["recv"].tolist() == [T0 + 3 * S + 5, T0 + 4 * S + 5]
    with pytest.raises(DataError, match="the data run from 2020-09-13T12:26:40Z to 2020-09-13T12:26:47Z"):
        open_tape("q", start="2021-01-01")
