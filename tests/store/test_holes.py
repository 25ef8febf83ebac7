"""Pauses of intraday bars inside sessions, and the form of CSV: what is found without being asked for."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.errors import ConfigError, DataError, ValidationError
from engine.store import import_bars, open_tape
from engine.store.calendars import sessions
from engine.store.importer import summary

RNG = np.random.default_rng(3)


def minutes(calendar: str, days: int = 20) -> Any:
    """The closes of all one-minute bars of some sessions, ns UTC."""
    first = int(np.datetime64("2024-01-02", "D").astype(int))
    known = sessions(calendar, first, first + days)
    return np.concatenate(
        [np.arange(o, c + 1, 60_000_000_000)[1:] for o, c in zip(known.opens, known.closes, strict=True)]
    )


def frame(ts: Any) -> pl.DataFrame:
    return pl.DataFrame({"ts": pl.Series(ts).cast(pl.Datetime("ns", "UTC")), "open": 10.0, "high": 11.0, "low": 9.0,
                         "close": 10.0, "volume": 5.0})  # fmt: skip


def warned(tmp_path: Path, ts: Any, calendar: str = "XNYS", **given: Any) -> list[str]:
    about = {"instruments": {"calendar": calendar}, "interval": "1m", "overwrite": True, **given}
    where = import_bars({"X": frame(ts)}, "holes", tmp_path, **about)
    found: list[str] = json.loads((where / "dataset.json").read_text())["warnings"]
    assert all(text in summary(where) for text in found)
    return found


def without(ts: Any, start: str, end: str) -> Any:
    low, high = (np.datetime64(text, "ns").astype("i8") for text in (start, end))
    return ts[(ts <= low) | (ts > high)]


def test_a_hole_is_told_and_a_policy_makes_it_a_problem(tmp_path: Path) -> None:
    ts = without(minutes("XNYS"), "2024-01-10T15:00", "2024-01-10T15:40")
    (text,) = warned(tmp_path, ts)
    assert "X: a pause of 40 bars (2024-01-10 15:00:00 to 2024-01-10 15:41:00 UTC)" in text and "max_gap=off" in text
    assert warned(tmp_path, ts, max_gap="off") == [] == warned(tmp_path, ts, max_gap="1h")
    with pytest.raises(ValidationError, match=r"gap: 2460 s since the bar before, inside a session"):
        warned(tmp_path, ts, max_gap="30m")
    two = without(ts, "2024-01-12T16:00", "2024-01-12T17:00")
    assert "2 pauses, the longest 60 bars (2024-01-12 16:00:00" in warned(tmp_path, two)[0]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.95])
def test_minutes_without_a_trade_are_no_holes(tmp_path: Path, share: float) -> None:
    ts = minutes("XNYS", 40)
    assert warned(tmp_path, ts[RNG.random(len(ts)) >= share]) == []


def test_breaks_and_nights_of_the_market_are_no_holes(tmp_path: Path) -> None:
    """Hong Kong rests from 12:00 to 13:00; a market that never closes has its own maintenance."""
    hour = 3_600_000_000_000
    ts = minutes("XHKG")
    assert warned(tmp_path, ts[~((ts > 4 * hour) & (ts % (24 * hour) > 4 * hour) & (ts % (24 * hour) <= 5 * hour))],
                  "XHKG") == []  # fmt: skip
    always = minutes("24/7", 8)
    assert (
        warned(tmp_path, always[~((always % (24 * hour) > 2 * hour) & (always % (24 * hour) < 3 * hour))], "24/7") == []
    )
    assert len(warned(tmp_path, without(always, "2024-01-05T07:00", "2024-01-05T09:00"), "24/7")) == 1


def test_many_warnings_are_counted(tmp_path: Path) -> None:
    ts = without(minutes("XNYS"), "2024-01-10T15:00", "2024-01-10T15:40")
    where = import_bars({f"S{i}": frame(ts) for i in range(9)}, "many", tmp_path, interval="1m",
                        instruments={"calendar": "XNYS"})  # fmt: skip
    assert summary(where).count("a pause of 40 bars") == 5 and "Warning  4 more, in dataset.json" in summary(where)


ROWS = (("2024-01-02", "10.5", "11.5", "9.5", "10.25", "900"), ("2024-01-03", "10.25", "12.5", "10", "11.75", "800"))


def written(tmp_path: Path, separator: str, kind: str = ".csv", comma: bool = False) -> Path:
    text = "\n".join(separator.join(row) for row in (("Date", "Open", "High", "Low", "Close", "Volume"), *ROWS)) + "\n"
    content = (text.replace(".", ",") if comma else text).encode()
    path = tmp_path / f"X{kind}"
    if kind == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("X.csv", content)
    else:
        path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("kind", [".csv", ".csv.gz", ".zip"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found(tmp_path: Path, separator: str, kind: str) -> None:
    path = written(tmp_path, separator, kind)
    import_bars(path, "x", tmp_path)
    tapes = [open_tape(tmp_path / "x"), *([open_tape(path)] if kind != ".zip" else [])]
    for tape in tapes:
        assert tape.events["close"].tolist() == [10.25, 11.75] and [i.name for i in tape.instruments] == ["X"]


def test_a_decimal_comma_is_told_and_taken(tmp_path: Path) -> None:
    path = written(tmp_path, ";", comma=True)
    with pytest.raises(DataError, match=r"'10,25' have a decimal comma; give decimal=','"):
        import_bars(path, "x", tmp_path)
    import_bars(path, "x", tmp_path, decimal=",")
    assert open_tape(tmp_path / "x").events["high"].tolist() == [11.5, 12.5]
    with pytest.raises(DataError, match="decimal"):
        open_tape(path)


def test_a_wrong_separator_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, ";")
    for wrong, said in ((";;", "one character"), ("", "one character")):
        with pytest.raises(ConfigError, match=said):
            import_bars(path, "x", tmp_path, separator=wrong)
    with pytest.raises(ConfigError, match="point or a comma"):
        import_bars(path, "x", tmp_path, decimal=";")
    with pytest.raises(DataError, match=r"no column ts, open, high, low, close; it has Date;Open"):
        import_bars(path, "x", tmp_path, separator=",")
    import_bars(written(tmp_path, "\t"), "x", tmp_path, separator="tab")
