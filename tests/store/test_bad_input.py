"""What is wrong with data is said with what, where and what to do; one case, one test."""

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.errors import ConfigError, DataError, ValidationError
from engine.store import InstrumentInfo, import_bars, open_tape, synthetic_frame
from engine.store.importer import summary
from engine.store.instruments import from_json, override, to_json

T = "2020-01-01T00:0{}:00"


def rows(**changes: tuple[int, object]) -> pl.DataFrame:
    """Six good minute bars as texts, with single cells changed: name=(row from 1, value)."""
    table: dict[str, list[Any]] = {"ts": [T.format(i) for i in range(6)], "open": ["10"] * 6, "high": ["12"] * 6,
                                   "low": ["9"] * 6, "close": ["11"] * 6, "volume": ["5"] * 6}  # fmt: skip
    for name, (row, value) in changes.items():
        table[name][row - 1] = value
    return pl.DataFrame(table, schema=dict.fromkeys(table, pl.String))


BAD_ROWS = [
    ({"close": (3, None)}, "row 3 .*price is missing"),
    ({"close": (3, "NaN")}, "row 3 .*price is missing"),
    ({"close": (3, "n/a")}, "row 3 .*price is missing"),
    ({"open": (2, "inf")}, "row 2 .*not finite"),
    ({"low": (4, "0")}, "row 4 .*zero or negative"),
    ({"low": (4, "-9")}, "row 4 .*zero or negative"),
    ({"high": (5, "8")}, "row 5 .*high is below low"),
    ({"open": (1, "12.5")}, "row 1 .*open is outside"),
    ({"close": (6, "8.5")}, "row 6 .*close is outside"),
    ({"volume": (2, "-1")}, "row 2 .*volume is missing or negative"),
    ({"volume": (2, "")}, "row 2 .*volume is missing or negative"),
    ({"ts": (3, T.format(1))}, "row 3 .*repeats|row 3 .*goes back"),
    ({"ts": (3, "2019-01-01T00:00:00")}, "row 3 .*goes back"),
    ({"ts": (6, "soon")}, "row 6 .*time is missing"),
]


@pytest.mark.parametrize(("change", "reason"), BAD_ROWS)
def test_a_bad_row_is_named_set_aside_or_kept(places: Path, change: dict[str, tuple[int, object]], reason: str) -> None:
    frame = rows(**change)
    with pytest.raises(ValidationError, match=reason) as caught:
        import_bars({"X": frame}, "x")
    assert len(caught.value.problems) == 1
    assert not (places / "data" / "x").exists()

    import_bars({"X": frame}, "x", on_error="quarantine")
    aside = pl.read_parquet(places / "data/x/quarantine.parquet")
    bad = int(reason[4])
    assert aside["row"].to_list() == [bad]
    assert aside["reason"][0] in caught.value.problems[0]
    tape = open_tape("x")
    assert len(tape) == 5
    if "ts" not in change:
        import_bars({"X": frame}, "kept", on_error="keep")
        assert len(open_tape("kept")) == 6


@pytest.mark.parametrize("days", [["01/02/2024", "01/03/2024"], ["1-2-2024 09:30", "1-3-2024 09:30"]])
def test_whether_day_or_month_comes_first_is_not_guessed(places: Path, days: list[str]) -> None:
    frame = rows().head(2).with_columns(ts=pl.Series(days))
    with pytest.raises(DataError, match=r"may be day/month or month/day; say which: time_format='%d/%m/%Y'"):
        import_bars({"X": frame}, "x")
    style = "%m/%d/%Y" if "/" in days[0] else "%m-%d-%Y %H:%M"
    import_bars({"X": frame}, "x", time_format=style, label="end")
    assert str(np.datetime64(int(open_tape("x").events["ts"][0]), "ns"))[:10] in ("2024-01-02", "2024-01-03")


def test_days_beyond_twelve_tell_which_comes_first(places: Path) -> None:
    import_bars({"X": rows().head(2).with_columns(ts=pl.Series(["11/01/2024", "15/01/2024"]))}, "x", label="end")
    assert len(open_tape("x").events) == 2


def test_rows_that_are_not_sorted_can_be(places: Path) -> None:
    frame = rows().reverse()
    with pytest.raises(ValidationError, match="sort=True"):
        import_bars({"X": frame}, "x")
    import_bars({"X": frame}, "x", sort=True)
    assert len(open_tape("x").events) == 6


def test_repeated_times_are_kept_in_order(places: Path) -> None:
    import_bars({"X": rows(ts=(3, T.format(0)), close=(3, "10.5"))}, "x", on_error="keep")
    events = open_tape("x").events
    assert (np.diff(events["ts"]) >= 0).all()
    assert events["close"][1] == 10.5  # the row that went back follows the one it repeats


def test_the_first_ten_of_many_problems_are_shown(places: Path) -> None:
    frame = synthetic_frame(500, 1).with_columns(close=pl.lit(-1.0))
    with pytest.raises(ValidationError, match=r"500 problems.*\n(.*\n){10}.*490 more") as caught:
        import_bars(frame, "x")
    assert len(caught.value.problems) == 500


def test_gaps_are_reported_and_nothing_is_removed(places: Path) -> None:
    days = [date(2024, 3, d) for d in (4, 5, 7, 8)]  # Wednesday the 6th is missing
    frame = pl.DataFrame({"date": days, "open": [1.0] * 4, "high": [2.0] * 4, "low": [1.0] * 4, "close": [1.5] * 4})
    with pytest.raises(ValidationError, match=r"row 3 .*no bar in the session of 2024-03-06"):
        import_bars(frame, "x", instruments={"calendar": "XNYS"})
    import_bars(frame, "x", instruments={"calendar": "XNYS"}, on_error="quarantine")
    assert len(open_tape("x")) == 4
    assert json.loads((places / "data/x/dataset.json").read_text())["problems"]["count"] == 1


def days_of(wanted: list[date], **changes: Any) -> pl.DataFrame:
    """A daily bar for each date."""
    price = [1.0] * len(wanted)
    return pl.DataFrame({"date": wanted, "open": price, "high": price, "low": price, "close": price, **changes})


def test_weekends_under_24_7_ask_for_a_calendar(places: Path) -> None:
    """Not for quarantine, which has no row to set aside; that the named cure works is part of it."""
    frame = days_of([date(2024, 3, d) for d in (1, 4, 5, 6, 7, 8, 11)])
    with pytest.raises(ValidationError, match=r"2024-03-02(.*\n)+No bar lies .*instruments\.calendar=XNYS") as caught:
        import_bars({"X": frame}, "x")
    assert "quarantine" not in str(caught.value)
    import_bars({"X": frame}, "x", instruments={"calendar": "XNYS"})


@pytest.mark.parametrize(
    ("wanted", "calendar"), [((1, 2, 3, 5, 6), "24/7"), ((4, 5, 7, 8), "24/7"), ((4, 5, 7, 8), "XNYS")]
)
def test_a_gap_of_the_data_is_no_matter_of_weekends(places: Path, wanted: tuple[int, ...], calendar: str) -> None:
    frame = days_of([date(2024, 3, d) for d in wanted])
    meta = {"calendar": calendar}
    with pytest.raises(ValidationError, match=f"no row that could be set aside.*now {calendar}.*'keep'") as caught:
        import_bars({"X": frame}, "x", instruments=meta)
    assert "quarantine" not in str(caught.value) and "Saturday" not in str(caught.value)
    import_bars({"X": frame}, "x", instruments=meta, on_error="keep")


def test_bad_rows_beside_gaps_have_both_cures(places: Path) -> None:
    frame = days_of([date(2024, 3, d) for d in (1, 4, 5, 6)], volume=[1.0, -1.0, 1.0, 1.0])
    with pytest.raises(ValidationError, match=r"No bar lies on a Saturday.*\n.*on_error='quarantine'"):
        import_bars({"X": frame}, "x")


def test_bars_outside_the_sessions_show_the_wrong_time_zone(places: Path) -> None:
    """New York's hours read as UTC: 60 of the 78 five-minute bars close before or at 14:30 UTC, the open in winter."""
    times = pl.datetime_range(datetime(2024, 1, 2, 9, 35), datetime(2024, 1, 2, 16), "5m", eager=True)
    frame = days_of([date(2024, 1, 2)] * len(times)).drop("date").with_columns(ts=times)
    meta = {"calendar": "XNYS"}
    about = r"row 1 .*60 of 78 bars lie outside the sessions of XNYS(.*\n)+.* 0 would .*timezone=America/New_York"
    with pytest.raises(ValidationError, match=about) as caught:
        import_bars({"X": frame}, "x", instruments=meta)
    assert "quarantine" not in str(caught.value) and "1 problem," in str(caught.value)
    where = import_bars({"X": frame}, "x", instruments=meta, timezone="America/New_York")
    assert "Warning" not in summary(where)


@pytest.mark.parametrize(("hour", "text"), [(8, "12 of 24 bars lie outside the sessions of XNYS"), (9, "label=start")])
def test_bars_before_the_open_are_a_warning(places: Path, hour: int, text: str) -> None:
    """Trading before the open is no error, and no other time zone would explain it."""
    start = datetime(2024, 1, 2, 8, 35) if hour == 8 else datetime(2024, 1, 2, 9, 30)
    times = pl.datetime_range(start, interval="5m", end=start.replace(hour=hour + 2, minute=30), eager=True)
    frame = days_of([date(2024, 1, 2)] * len(times)).drop("date").with_columns(ts=times)
    where = import_bars({"X": frame}, "x", instruments={"calendar": "XNYS"}, timezone="America/New_York")
    assert "Warning  X: " in summary(where) and text in summary(where)
    assert ("label=start" in summary(where)) == (hour == 9)


def test_the_summary_of_an_import(places: Path) -> None:
    frame = days_of([date(2024, 3, d) for d in (4, 5, 6)], volume=[1.0, 2.0, -1.0])
    where = import_bars({"X": frame, "Y": frame}, "x", instruments={"calendar": "XNYS"}, on_error="quarantine")
    assert summary(where).splitlines() == [
        "Rows     4 of 2 instruments: X, Y",
        "Span     2024-03-04 21:00:00 to 2024-03-05 21:00:00 UTC, closes of bars",
        "Times    time zone UTC, calendar XNYS",
        "Aside    2 rows, with the reasons in quarantine.parquet",
        "Noted    2 problems, in dataset.json",
    ]


def test_files_of_one_instrument_are_seen_when_they_become_several(places: Path) -> None:
    months = {f"BTC-1h-2023-0{n}": rows() for n in (1, 2, 3)}
    text = summary(import_bars(months, "parts"))
    assert "3 of them are BTC-1h with a date: files of one instrument are imported as {'BTC-1h': [file, …]}" in text
    assert "Parts" not in summary(import_bars({"BTC": rows(), "ES2024": rows()}, "whole"))


def test_splits_and_dividends_that_nobody_reads_are_told(places: Path) -> None:
    """The columns of Yahoo's files: whether their prices are adjusted is known to the caller alone."""
    frame = days_of([date(2024, 3, d) for d in (4, 5, 6)])
    acted = frame.with_columns(pl.Series("Dividends", [0.0, 0.5, 0.0]), pl.Series("Stock Splits", [0.0, 0.0, 2.0]))
    said = summary(import_bars({"X": acted}, "raw"))
    assert "Warning  frame: Dividends, Stock Splits not read. If prices are as traded: Map them with" in said
    names = {"split": "Stock Splits", "dividend": "Dividends"}
    assert "not read" not in summary(import_bars({"X": acted}, "named", columns=names))
    assert "not read" not in summary(import_bars({"X": acted}, "none", adjust="none"))
    nothing = frame.with_columns(pl.lit("0").alias("Dividends"), pl.lit(1.0).alias("split"), pl.lit("a").alias("Split"))
    assert "not read" not in summary(import_bars({"X": nothing}, "nothing"))
    closed = acted.with_columns(pl.col("close").alias("Adj Close"))
    assert "not read" not in summary(import_bars({"X": closed}, "closed"))


def test_a_date_without_session(places: Path) -> None:
    frame = pl.DataFrame({"date": [date(2024, 3, 8), date(2024, 3, 9), date(2024, 3, 11)], "open": [1.0] * 3,
                          "high": [1.0] * 3, "low": [1.0] * 3, "close": [1.0] * 3})  # fmt: skip
    with pytest.raises(ValidationError, match=r"row 2 .*no session of the calendar XNYS"):
        import_bars(frame, "x", instruments={"calendar": "XNYS"})


ZONES = [("Foo", "UTC"), ("New_York", r"Did you mean America/New_York\?"),
         ("america/new york", r"Did you mean America/New_York\?"), ("Europe/Berln", r"Did you mean Europe/Berlin\?"),
         ("Frankfrt", "UTC"), ("Londn", r"Did you mean Europe/London\?"), ("", "UTC")]  # fmt: skip


@pytest.mark.parametrize(("zone", "hint"), ZONES)
@pytest.mark.parametrize("frame", [rows(), rows().with_columns(ts=pl.lit("2024-03-08"))[:1]])
def test_a_time_zone_that_does_not_exist(places: Path, frame: pl.DataFrame, zone: str, hint: str) -> None:
    """Also for dates, which have no use for it: a wrong setting is never passed over."""
    for use in (lambda: import_bars(frame, "x", timezone=zone), lambda: open_tape(frame, timezone=zone)):
        with pytest.raises(ConfigError, match=f"timezone={zone!r} is no time zone.*{hint}"):
            use()
    assert not (places / "data").exists()


def empty(path: Path) -> Path:
    path.write_text("")
    return path


@pytest.mark.parametrize("data", [pl.DataFrame({"ts": [], "open": [], "high": [], "low": [], "close": []}), "file"])
def test_empty(places: Path, data: object) -> None:
    what = empty(places / "nothing.csv") if isinstance(data, str) else data
    with pytest.raises(DataError, match=r"no rows|empty"):
        open_tape(what)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"no bars|empty"):
        import_bars(what, "x")
    assert not (places / "data" / "x").exists()


def test_missing_columns(bars: pl.DataFrame, places: Path) -> None:
    with pytest.raises(DataError, match=r"the frame: no column low; it has .*close.*Rename"):
        open_tape(bars.drop("low"))
    with pytest.raises(DataError, match=r"no time column; it has instrument, open"):
        open_tape(bars.drop("ts"))
    with pytest.raises(DataError, match=r"frame: no column high; .*Map them with columns"):
        import_bars(bars.drop("high"), "x")
    with pytest.raises(DataError, match=r"no column 'Kurs' \(mapped to close\)"):
        import_bars(bars, "x", columns={"close": "Kurs"})
    with pytest.raises(ConfigError, match="columns: unknown name 'klose'"):
        import_bars(bars, "x", columns={"klose": "close"})


def test_unknown_instrument_and_dataset(bars: pl.DataFrame, places: Path) -> None:
    with pytest.raises(DataError, match=r"unknown instrument 'SYN000'. Did you mean SYN0000\?.*It has SYN0000"):
        open_tape(bars, "SYN000")
    with pytest.raises(DataError, match=r"no dataset or file 'equites'. Did you mean equities\?"):
        open_tape("equites")
    with pytest.raises(DataError, match="each once"):
        open_tape(bars, ["SYN0000", "SYN0000"])
    (places / "data" / "plain").mkdir(parents=True)
    with pytest.raises(DataError, match=r"without dataset\.json"):
        open_tape("plain")


def test_spans(bars: pl.DataFrame) -> None:
    with pytest.raises(ConfigError, match="start=2021-01-01 is not before end=2020-01-01"):
        open_tape(bars, start="2021-01-01", end="2020-01-01")
    with pytest.raises(DataError, match=r"no events in .*the data run from 2020-01-01T00:01:00Z"):
        open_tape(bars, start="2021-01-01")
    with pytest.raises(ConfigError, match="start='first of May' is not a date"):
        open_tape(bars, start="first of May")
    part = open_tape(bars, start="2020-01-01T00:10", end=datetime(2020, 1, 1, 0, 20))
    assert len(part) == 10  # closes at :10 to :19
    assert part.digest != open_tape(bars).digest
    assert open_tape(bars, start="2019-01-01").digest == open_tape(bars).digest


def test_corrupt_parquet(bars: pl.DataFrame, places: Path) -> None:
    file = places / "bars.parquet"
    bars.write_parquet(file)
    file.write_bytes(file.read_bytes()[:-40])
    for call in (lambda: open_tape(file), lambda: import_bars(file, "x")):
        with pytest.raises(DataError, match=r"bars.parquet: cannot be read.*damaged"):
            call()
    import_bars(bars, "good")
    part = places / "data/good/bars/instrument=SYN0000/part-0.parquet"
    raw = bytearray(part.read_bytes())
    raw[200] ^= 255
    part.write_bytes(raw)
    with pytest.raises(DataError, match=r"part-0\.parquet: its bytes changed after the import"):
        open_tape("good")
    part.write_bytes(raw[:50])
    with pytest.raises(DataError, match="50 bytes instead of"):
        open_tape("good")
    part.unlink()
    with pytest.raises(DataError, match="a file of the dataset is missing"):
        open_tape("good")


def test_bad_prices_in_a_frame(bars: pl.DataFrame) -> None:
    wrong = bars.with_columns(close=pl.when(pl.int_range(pl.len()) == 4).then(float("nan")).otherwise("close"))
    with pytest.raises(DataError, match=r"its row 5: .*must be positive numbers"):
        open_tape(wrong)
    with pytest.raises(DataError, match="its row 2: the time is earlier than"):
        open_tape(bars.reverse())
    with pytest.raises(DataError, match="column 'close' is not all numbers"):
        open_tape(bars.with_columns(close=pl.lit("high")))


def test_choices(bars: pl.DataFrame, places: Path) -> None:
    wrong = {"on_error": "skip", "adjust": "yes", "label": "middle", "interval": "1 day", "max_gap": "0m"}
    for name, value in wrong.items():
        with pytest.raises(ConfigError, match=name):
            import_bars(bars, "x", **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"calendar 'XNYC' is unknown. Did you mean .*XNYS"):
        import_bars(bars, "x", instruments={"calendar": "XNYC"})
    with pytest.raises(ConfigError, match="without slashes"):
        import_bars(bars, "../x")


@pytest.mark.parametrize(("field", "value"), [("tick", 0.0), ("lot", -1), ("margin", float("nan")), ("bar_ns", -1),
                                              ("bar_ns", 1.5), ("shortable", 1), ("timezone", "Mars"), ("name", " "),
                                              ("currency", ""), ("fee_min", float("inf"))])  # fmt: skip
def test_metadata_out_of_range(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        InstrumentInfo(**{"name": "X", field: value})  # type: ignore[arg-type]


def test_metadata_round_trip_and_overrides() -> None:
    info = InstrumentInfo("A/B", tick=0.25, maker_bps=-0.5, calendar="XNYS")
    assert from_json(to_json([info])) == (info,)
    assert override(info, {"taker_bps": 5.0, "A/B": {"lot": 0.1}, "C": {"lot": 9.0}}) == InstrumentInfo(
        "A/B", tick=0.25, maker_bps=-0.5, calendar="XNYS", taker_bps=5.0, lot=0.1)  # fmt: skip
    with pytest.raises(ConfigError, match="unknown field 'tik'"):
        override(info, {"tik": 1})
    with pytest.raises(ConfigError, match="not valid JSON"):
        from_json("[{")


def test_sample_without_its_package(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.store.samples.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install bokeh_sampledata"):
        open_tape("equities")
    assert not (places / "data" / "equities").exists()
