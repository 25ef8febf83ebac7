"""Any table with a time and OHLCV columns, made canonical: instrument, ts, open, high, low, close, volume.

How a time becomes the close of its bar (`label`, default None = by the data):
* a date without a time of day (a Date column, or midnights at least a day apart in a column without time zone) is a
  whole UTC day: the bar opens at 00:00 and closes in the last nanosecond of that day, so that it belongs to its own
  date for `start` and `end`;
* a column called `open_time` is the start of the bar; every other time is its end, taken as it is;
* `label="start"` adds the interval (the median step between bars), `label="end"` takes the time as it is.
Times without a time zone are UTC unless `timezone` is given.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import DataError
from engine.store.instruments import InstrumentInfo

if TYPE_CHECKING:
    import polars as pl

TIMES = ("ts", "timestamp", "time", "date", "datetime", "open_time")
GROUPS = ("instrument", "symbol", "ticker")
FIELDS = ("open", "high", "low", "close", "volume")
DAY_NS = 86_400_000_000_000
SAMPLE = 50_000
STYLES = (("day", "%Y-%m-%d"), ("day", "%Y%m%d"), ("day", "%Y/%m/%d"), (None, None), (None, "%Y%m%d %H%M%S"),
          (None, "%Y%m%d %H:%M"), (None, "%Y%m%d %H:%M:%S"))  # fmt: skip
# A whole number is an epoch in the unit that puts it between 1973 and 2200.
EPOCHS = ((10**8, 10**10, 10**9), (10**11, 10**13, 10**6), (10**14, 10**16, 10**3), (10**17, 10**19, 1))


def mapped(missing: "Sequence[str]") -> str:
    """How columns of other names are given, in Python and on the command line."""
    python = ", ".join(f"{name!r}: 'Its name'" for name in missing)
    words = ",".join(f'{name}:"Its name"' for name in missing)
    return f"Map them with columns={{{python}}} in Python, 'columns={{{words}}}' on the command line."


def pick(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The column with the first of `names`, whatever its case; `Adj. Close` and `adj_close` are the same."""
    plain = {_plain(column): column for column in reversed(columns)}
    return next((plain[name] for name in map(_plain, names) if name in plain), None)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def time_column(frame: "pl.DataFrame", where: str) -> str:
    """The column that holds the time: by name, else the first temporal one. Raises DataError if there is none."""
    found = pick(frame.columns, TIMES)
    if found is None:
        found = next((name for name, kind in frame.schema.items() if kind.is_temporal()), None)
    if found is None:
        raise DataError(f"{where}: no time column; it has {', '.join(frame.columns) or 'no columns'}. "
                        f"Name one of {', '.join(TIMES)}, or give a column a date type.")  # fmt: skip
    return found


def to_utc(series: "pl.Series", timezone: str | None, where: str) -> "tuple[pl.Series, bool]":
    """Times as Datetime(ns, UTC), and whether they are dates without a time of day.

    `timezone` is that of times which do not carry their own. Raises DataError for what is not a time.
    """
    series, days = local_times(series, where)
    if days or getattr(series.dtype, "time_zone", None):
        return zoned(series, None if days else timezone), days
    midnight = not timezone and bool(((series.to_physical() % DAY_NS) == 0).all())
    return zoned(series, timezone), midnight


def zoned(series: "pl.Series", timezone: str | None) -> "pl.Series":
    """Datetime(ns) as UTC; times without a zone are read in `timezone`. A local time that does not exist is null,
    one that exists twice is the earlier."""
    if not getattr(series.dtype, "time_zone", None):
        series = series.dt.replace_time_zone(timezone or "UTC", ambiguous="earliest", non_existent="null")
    return series.dt.convert_time_zone("UTC")


def local_times(series: "pl.Series", where: str, style: str | None = None, lenient: bool = False
                ) -> "tuple[pl.Series, bool]":  # fmt: skip
    """Times as Datetime(ns) with the zone they carry, if any, and whether they are a Date type or date texts.

    Raises DataError for what is not a time; with `lenient`, texts that cannot be read become null if others can.
    """
    import polars as pl

    if series.dtype == pl.String:
        series = parse_times(series, where, style, lenient)
    if series.dtype.is_integer():
        return (series * epoch_unit(series, where)).cast(pl.Datetime("ns", "UTC")), False
    if not series.dtype.is_temporal() or series.dtype in (pl.Time, pl.Duration):
        raise DataError(f"{where}: column {series.name!r} is {series.dtype}, not a time; "
                        "give dates, datetimes or epoch integers (s, ms, us, ns).")  # fmt: skip
    return series.cast(pl.Datetime("ns", getattr(series.dtype, "time_zone", None))), series.dtype == pl.Date


def epoch_unit(series: "pl.Series", where: str) -> int:
    """Nanoseconds for one step of an epoch column. Raises DataError if its numbers fit no usual unit."""
    low = series.min()
    for least, most, unit in EPOCHS:
        if isinstance(low, int) and least <= low < most:
            return unit
    raise DataError(f"{where}: column {series.name!r} holds whole numbers (from {low!r}) that are no epoch "
                    "in s, ms, us or ns.")  # fmt: skip


def parse_times(series: "pl.Series", where: str, style: str | None, lenient: bool) -> "pl.Series":
    """Texts as dates, datetimes or epoch integers: ISO forms, YYYYMMDD with and without a time of day, or `style`."""
    import polars as pl

    text = series.str.strip_chars()
    said = text.drop_nulls()
    slashed = style is None and len(said) and bool(said.str.contains(r"^\d\d?[/-]\d\d?[/-]\d{4}").all())
    if slashed and not bool((said.str.extract(r"^(\d+)").cast(pl.Int64) > 12).any()):  # else it is a day for sure
        raise DataError(f"{where}: {said[0]!r} in column {series.name!r} may be day/month or month/day; say which: "
                        "time_format='%d/%m/%Y' or '%m/%d/%Y', and more for times of day.")  # fmt: skip
    if style is None and bool(said.str.contains(r"^(\d{10}|\d{13}|\d{16}|\d{19})$").all()):
        return text.cast(pl.Int64)
    best: pl.Series | None = None
    for kind, form in [(None, style)] if style else STYLES:
        try:
            if kind == "day":
                parsed = text.str.strptime(pl.Date, form, strict=False, exact=True)
            else:
                parsed = text.str.to_datetime(form, time_unit="ns", strict=False)
        except pl.exceptions.PolarsError:
            continue  # Not even the first text has this form; the next one may fit.
        if parsed.null_count() == text.null_count():
            return parsed
        best = parsed if best is None or parsed.null_count() < best.null_count() else best
    if lenient and best is not None and best.null_count() < len(best):
        return best
    bad = next((i for i in range(len(text)) if text[i] is not None and (best is None or best[i] is None)), 0)
    raise DataError(f"{where}, row {bad + 1}: {series[bad]!r} in column {series.name!r} cannot be read as a "
                    "time; use ISO 8601, or import it with time_format='%d.%m.%Y' or the like.")  # fmt: skip


def steps(ts: "np.ndarray[Any, Any]") -> int:
    """The median step of sorted times in ns, 0 for fewer than two."""
    return int(np.median(np.diff(ts))) if len(ts) > 1 else 0


def infer_tick(prices: "np.ndarray[Any, Any]") -> float:
    """The smallest power of ten, between 1e-8 and 0.01, that all (at most 50,000 sampled) prices are multiples of."""
    flat = prices.ravel()
    flat = flat[:: max(1, len(flat) // SAMPLE)]
    flat = flat[np.isfinite(flat)]
    for digits in range(2, 8):
        if np.allclose(np.round(flat, digits), flat, rtol=0, atol=10.0 ** (-digits - 4)):
            return float(f"1e-{digits}")
    return 1e-8


def canonical(frame: "pl.DataFrame", where: str, *, label: str | None = None, timezone: str | None = None,
              name: str = "instrument") -> "tuple[pl.DataFrame, dict[str, int]]":  # fmt: skip
    """The canonical frame, in its own order of rows, and bar_ns for each instrument in order of appearance.

    A missing volume column is all zero. Raises DataError for a missing column, an empty frame, values that
    are not numbers, or times that are null or go back.
    """
    import polars as pl

    if label not in (None, "start", "end"):
        raise DataError(f"label={label!r}; choose 'start' or 'end' (of the bar).")
    if frame.height == 0:
        raise DataError(f"{where}: no rows; a tape needs at least one bar.")
    stamp = time_column(frame, where)
    found = {field: pick(frame.columns, (field,)) for field in FIELDS}
    missing = [field for field in FIELDS[:4] if found[field] is None]
    if missing:
        raise DataError(f"{where}: no column {', '.join(missing)}; it has {', '.join(frame.columns)}. "
                        "Rename the columns to open, high, low, close, volume.")  # fmt: skip
    group = pick(frame.columns, GROUPS)
    ts, days = to_utc(frame[stamp], timezone, where)
    table = pl.DataFrame({
        "instrument": frame[group].cast(pl.String) if group else pl.Series([name]).new_from_index(0, frame.height),
        "ts": ts.cast(pl.Int64),
        **{field: _number(frame, column, where) for field, column in found.items()},
    })  # fmt: skip
    if table["ts"].null_count() or table["instrument"].null_count():
        row = int((table["ts"].is_null() | table["instrument"].is_null()).arg_max() or 0)
        raise DataError(f"{where}, row {row + 1}: the time or the instrument is missing; drop or fill such rows.")
    if label is None and _plain(stamp) == "opentime" and not days:
        label = "start"
    return _close_times(table, days and label is None, label or "end", where)


def _number(frame: "pl.DataFrame", column: str | None, where: str) -> "pl.Series":
    import polars as pl

    if column is None:
        return pl.zeros(frame.height, dtype=pl.Float64, eager=True)
    try:
        return frame[column].cast(pl.Float64).fill_null(float("nan"))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{where}: column {column!r} is not all numbers ({str(error).splitlines()[0]}).") from error


def _close_times(table: "pl.DataFrame", days: bool, label: str, where: str) -> "tuple[pl.DataFrame, dict[str, int]]":
    """Check the order of each instrument's times, move them to the close of the bar, and measure the bars."""
    import polars as pl

    lengths: dict[str, int] = {}
    parts = table.partition_by("instrument", maintain_order=True)
    for part in parts:
        ts = part["ts"].to_numpy()
        bad = np.flatnonzero(np.diff(ts) <= 0)
        if len(bad):
            kind = "repeats" if ts[bad[0] + 1] == ts[bad[0]] else "is earlier than"
            raise DataError(f"{where}, instrument {part['instrument'][0]}, its row {bad[0] + 2}: the time {kind} "
                            "that of the row before; sort the rows by time and drop repeated ones.")  # fmt: skip
        lengths[part["instrument"][0]] = steps(ts)
    if days and all(step == 0 or step >= DAY_NS for step in lengths.values()):
        shift, lengths = DAY_NS - 1, dict.fromkeys(lengths, DAY_NS - 1)
    elif label == "start":
        if 0 in lengths.values():
            raise DataError(f"{where}: one bar does not tell its length, so its start does not tell its close; "
                            "give the closes and label='end'.")  # fmt: skip
        return pl.concat(part.with_columns(pl.col("ts") + lengths[part["instrument"][0]]) for part in parts), lengths
    else:
        shift = 0
    return table.with_columns(pl.col("ts") + shift), lengths


def columns(part: "pl.DataFrame") -> dict[str, "np.ndarray[Any, Any]"]:
    """The numpy columns that `merge.bar_events` takes."""
    return {name: part[name].to_numpy() for name in ("ts", *FIELDS)}


def describe(part: "pl.DataFrame", bar_ns: int) -> InstrumentInfo:
    """Metadata as far as the prices tell: the tick from their decimals, the bar from its step."""
    tick = infer_tick(part.select(FIELDS[:4]).to_numpy())
    return InstrumentInfo(name=part["instrument"][0], tick=tick, bar_ns=bar_ns)
