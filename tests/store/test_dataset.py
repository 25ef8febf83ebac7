"""Datasets, their tapes and the samples: layout, cache, corporate actions, sources in pieces."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataError
from engine.kernel import codes
from engine.store import import_bars, merge, open_tape, reading, synthetic_frame
from engine.store.adjust import Action, factors, infer_actions
from engine.store.tape import to_bytes

NEW_YORK = {"calendar": "XNYS", "timezone": "America/New_York"}


def same(a: object, b: object) -> bool:
    return bytes(to_bytes(a.events)) == bytes(to_bytes(b.events))  # type: ignore[attr-defined]


def test_layout_and_equal_tapes_from_everywhere(places: Path) -> None:
    """A frame, a CSV, a Parquet file, a dataset by name and by path hold the same events."""
    frame = synthetic_frame(500, 3, seed=4)
    want = open_tape(frame)
    frame.write_parquet(places / "bars.parquet")
    frame.write_csv(places / "bars.csv")
    import_bars(places / "bars.csv", "x", instruments={"taker_bps": 2.0})
    for data in (places / "bars.parquet", places / "bars.csv", "x", places / "data" / "x", str(places / "data" / "x")):
        assert same(open_tape(data), want), data
    manifest = json.loads((places / "data/x/dataset.json").read_text())
    assert (manifest["format"], manifest["kind"], manifest["interval_ns"]) == (1, "bars", 60 * 10**9)
    assert sorted(manifest["files"]) == [f"bars/instrument=SYN000{i}/part-0.parquet" for i in range(3)]
    part = pl.read_parquet(places / "data/x/bars/instrument=SYN0001/part-0.parquet", hive_partitioning=False)
    numbers = dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64)
    assert part.schema == {"ts": pl.Datetime("ns", "UTC"), **numbers}
    assert open_tape("x").instruments[0].taker_bps == 2.0
    assert not open_tape("x").events.flags.writeable


def test_selection_order_and_overrides(places: Path) -> None:
    import_bars(synthetic_frame(50, 3), "x")
    tape = open_tape("x", ["SYN0002", "SYN0000"], instrument_info={"fee_min": 1.0, "SYN0000": {"lot": 0.5}})
    assert [(i.name, i.fee_min, i.lot) for i in tape.instruments] == [("SYN0002", 1.0, 1.0), ("SYN0000", 1.0, 0.5)]
    assert tape.events["instrument"].tolist() == [0, 1] * 50
    assert len({open_tape("x", one).digest for one in ("SYN0000", "SYN0001", None)}) == 3
    assert open_tape("x").digest == open_tape("x").digest


def test_edited_metadata_takes_effect(places: Path) -> None:
    import_bars(synthetic_frame(50), "x")
    before = open_tape("x")
    file = places / "data/x/instruments.json"
    file.write_text(file.read_text().replace('"taker_bps": 0.0', '"taker_bps": 7.0'))
    after = open_tape("x")
    assert after.instruments[0].taker_bps == 7.0
    assert after.digest != before.digest


def test_a_touched_file_is_looked_at_again(places: Path) -> None:
    import_bars(synthetic_frame(50), "x")
    tape = open_tape("x")
    part = places / "data/x/bars/instrument=SYN0000/part-0.parquet"
    os.utime(part, (1, 1))
    assert open_tape("x").digest == tape.digest


def test_a_warm_open_imports_no_polars(places: Path) -> None:
    import_bars(synthetic_frame(50), "x")
    open_tape("x")
    code = (
        "import sys; from engine.store import open_tape; t = open_tape('x', start='2020-01-01T00:10');"
        "heavy = {'polars', 'exchange_calendars', 'pandas', 'numba'}; print(len(t), heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[2], env=os.environ)  # fmt: skip
    assert done.stdout.strip() == "41 set()"


@pytest.mark.parametrize("piece", [1, 7, 64, 1000])
def test_pieces_of_sources_and_merge_do_not_matter(places: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    frame = synthetic_frame(300, 3, seed=5)
    frame.write_parquet(places / "bars.parquet")
    import_bars(places / "bars.parquet", "whole")
    whole = open_tape("whole")
    monkeypatch.setattr(reading, "PIECE", max(piece, 7))
    monkeypatch.setattr("engine.store.job.GROUP", max(piece, 7))
    monkeypatch.setattr("engine.store.dataset.GROUP", piece)
    monkeypatch.setattr(merge.merge, "__defaults__", (piece,))
    import_bars(frame, "pieces")
    parts = len(list((places / "data/pieces/bars/instrument=SYN0000").iterdir()))
    assert parts > 1 or piece > 300
    assert same(open_tape("pieces"), whole)


def test_several_files_of_one_instrument_follow_each_other(places: Path) -> None:
    frame = synthetic_frame(90, seed=8).drop("instrument")
    files = []
    for i in range(3):
        files.append(places / f"{i}.csv")
        frame[i * 30 : i * 30 + 30].write_csv(files[-1])
    import_bars({"A": files}, "x")
    assert same(open_tape("x"), open_tape(frame))
    with pytest.raises(DataError, match=r"1.csv, row 1 \(A\): timestamp goes back"):
        import_bars({"A": files[::-1]}, "y")
    import_bars({"A": files[::-1]}, "y", sort=True)
    assert same(open_tape("y"), open_tape("x"))


def test_the_sample_equals_the_vendor(places: Path) -> None:
    """Closes are the vendor's adjusted closes to six decimals; volumes before AAPL's 2005 split are doubled."""
    from bokeh_sampledata.stocks import AAPL

    tape = open_tape("equities")
    assert [i.name for i in tape.instruments] == ["AAPL", "GOOG", "IBM", "MSFT"]
    assert (len(tape), tape.instruments[0].calendar, tape.instruments[0].bar_ns) == (11958, "XNYS", int(6.5 * 3600e9))
    aapl = tape.events[tape.events["instrument"] == 0]
    np.testing.assert_array_equal(aapl["close"], np.round(AAPL["adj_close"], 6))
    days = [str(datetime.fromtimestamp(ts / 1e9, UTC).date()) for ts in aapl["ts"].tolist()]
    assert days == AAPL["date"]
    split = days.index("2005-02-28")
    assert aapl["volume"][split - 1] == 2 * AAPL["volume"][split - 1]
    assert aapl["volume"][split] == AAPL["volume"][split]
    assert np.abs(np.diff(np.log(aapl["close"][split - 2 : split + 2]))).max() < 0.05


def test_the_raw_sample_has_the_known_actions(places: Path) -> None:
    """Splits of AAPL 2000 and 2005 and MSFT 2003; Apple's 2.65 of 2012, Microsoft's 3.08 of 2004."""
    tape = open_tape("equities_raw")
    names = [info.name for info in tape.instruments]
    large = [e for e in tape.events if e["kind"] == codes.SPLIT or (e["kind"] == codes.DIVIDEND and e["amount"] > 1)]
    found = [(names[e["instrument"]], str(datetime.fromtimestamp(int(e["ts"]) / 1e9, UTC)), float(e["amount"]))
             for e in large]  # fmt: skip
    assert found[:3] == [("AAPL", "2000-06-21 13:30:00+00:00", 2.0), ("MSFT", "2003-02-18 14:30:00+00:00", 2.0),
                         ("MSFT", "2004-11-15 14:30:00+00:00", 3.08)]  # fmt: skip
    assert found[3][:2] == ("AAPL", "2005-02-28 14:30:00+00:00")
    assert [amount for name, _, amount in found[4:] if name == "AAPL"] == [2.65, 2.65, 2.65]
    aapl = tape.events[tape.events["instrument"] == 0]
    at = int(np.flatnonzero(aapl["kind"] == codes.SPLIT)[1])
    assert (aapl["close"][at - 1], aapl["open"][at + 1]) == (88.99, 44.68)


PRICES = st.lists(st.floats(10, 1000), min_size=6, max_size=40)


@given(PRICES, st.data())
def test_inferred_actions_are_those_that_were_applied(prices: list[float], data: st.DataObject) -> None:
    """Adjusting by actions and inferring them from the adjusted close is the identity, by both conventions."""
    close = np.round(np.array(prices), 2)
    close = np.round(close[0] * np.cumprod(np.linspace(0.99, 1.02, len(close))), 2)
    opens = np.arange(len(close), dtype=np.int64) * 100
    ts = opens + 50
    split_at = data.draw(st.integers(1, len(close) - 1))
    pay_at = data.draw(st.integers(1, len(close) - 1).filter(lambda i: i != split_at))
    ratio = data.draw(st.sampled_from([2.0, 3.0, 1.5, 7.0, 0.05]))
    close[split_at:] = np.round(close[split_at:] / ratio, 4)
    amount = round(float(close[pay_at]) * data.draw(st.floats(0.002, 0.05)), 4)
    pair = [Action(int(opens[split_at]), "split", ratio=ratio), Action(int(opens[pay_at]), "dividend", amount=amount)]
    actions = sorted(pair, key=lambda a: a.ts)
    for base in ("previous", "ex"):
        price, volume = factors(ts, close, actions, base)
        assert price[-1] == volume[-1] == 1
        assert volume[0] == pytest.approx(ratio)
        found = infer_actions(opens, close, close * price, base)
        assert [(a.ts, a.kind, a.ratio) for a in found] == [(a.ts, a.kind, a.ratio) for a in actions]
        assert sum(a.amount for a in found) == pytest.approx(amount, abs=2e-4)


def test_actions_given_as_rows(places: Path) -> None:
    """A date acts at the open of its session, so on a Saturday at Monday's; applied or kept as events."""
    days = pl.date_range(pl.date(2024, 3, 4), pl.date(2024, 3, 15), eager=True).filter(
        pl.date_range(pl.date(2024, 3, 4), pl.date(2024, 3, 15), eager=True).dt.weekday() < 6
    )
    raw = [100.0] * 5 + [50.0] * 5
    frame = pl.DataFrame({"date": days, "open": raw, "high": raw, "low": raw, "close": raw, "volume": [10.0] * 10})
    actions = [{"instrument": "A", "ts": "2024-03-09", "kind": "split", "ratio": 2.0},
               {"instrument": "A", "ts": "2024-03-13", "kind": "dividend", "amount": 5.0}]  # fmt: skip
    import_bars({"A": frame}, "applied", instruments=NEW_YORK, actions=actions)
    import_bars({"A": frame}, "events", instruments=NEW_YORK, actions=actions, adjust="events")
    import_bars({"A": frame}, "none", instruments=NEW_YORK, actions=actions, adjust="none")
    applied = open_tape("applied").events
    np.testing.assert_allclose(applied["close"], [45.0] * 7 + [50.0] * 3)
    np.testing.assert_allclose(applied["volume"], [20.0] * 5 + [10.0] * 5)
    events = open_tape("events").events
    bar, split, pays = codes.BAR, codes.SPLIT, codes.DIVIDEND
    assert events["kind"].tolist() == [bar] * 5 + [split] + [bar] * 2 + [pays] + [bar] * 3
    assert datetime.fromtimestamp(int(events["ts"][5]) / 1e9, UTC) == datetime(2024, 3, 11, 13, 30, tzinfo=UTC)
    assert len(open_tape("none")) == 10
    with pytest.raises(DataError, match="corporate actions for 'B', which has no bars"):
        import_bars({"B2": frame}, "wrong", instruments=NEW_YORK, actions=[{**actions[0], "instrument": "B"}])


def test_time_rules_of_frames() -> None:
    """Dates are whole UTC days; start labels move by the interval; zones are honoured."""
    day = 86_400 * 10**9
    days = pl.DataFrame({"Date": pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 1, 9), eager=True),
                         "Open": 1.0, "High": 1.0, "Low": 1.0, "Close": 1.0})  # fmt: skip
    first = 1704067200 * 10**9
    tape = open_tape(days)
    assert (tape.events["ts"][0], tape.instruments[0].bar_ns) == (first + day - 1, day - 1)
    assert len(open_tape(days, start="2024-01-03", end="2024-01-05")) == 2
    as_midnights = days.with_columns(pl.col("Date").cast(pl.Datetime("us")))
    assert same(open_tape(as_midnights), tape)
    assert open_tape(as_midnights, label="end").events["ts"][0] == first
    assert open_tape(as_midnights, label="start").events["ts"][0] == first + day
    hours = pl.DataFrame({"time": pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 2), "1h", eager=True),
                          "open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0})  # fmt: skip
    assert open_tape(hours, timezone="Europe/Berlin").events["ts"][0] == first - 3600 * 10**9
    assert open_tape(hours.with_columns(pl.col("time").dt.epoch("ms"))).events["ts"][0] == first
    assert open_tape(hours.rename({"time": "open_time"})).events["ts"][0] == first + 3600 * 10**9
    fine = hours.with_columns(close=pl.lit(1.2345), high=pl.lit(2.0))
    assert open_tape(fine).instruments[0].tick == 1e-4


def test_pandas_with_a_date_index(bars: pl.DataFrame) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({name: bars[name].to_numpy() for name in ("open", "high", "low", "close", "volume")},
                             index=pandas.DatetimeIndex(bars["ts"].dt.replace_time_zone(None).to_numpy()))  # fmt: skip
    assert same(open_tape(frame), open_tape(bars))


def test_a_long_frame_goes_through_a_file(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = synthetic_frame(100, 2)
    small = open_tape(frame)
    monkeypatch.setattr("engine.store.opening.IN_MEMORY", 10)
    large = open_tape(frame)
    assert isinstance(large.events, np.memmap)
    assert (large.digest, same(large, small)) == (small.digest, True)
