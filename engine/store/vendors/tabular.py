"""Tables of a vendor into rows: times to ns, words to sides, and update groups, by one literal `Table`.

Law 1: every cell is read as text, so that one bad cell is one bad row with its number.
Law 2: a group of depth is never split: the last, perhaps unfinished one waits for the next piece.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError, DataError
from engine.store import blocks, frames, reading
from engine.store.ticks import FLAGS, KINDS
from engine.store.vendors import Rows

if TYPE_CHECKING:
    import polars as pl

UNITS = {"s": 9, "ms": 6, "us": 3, "ns": 0}  # decimal places down to a nanosecond
SIDES = {"buy": 1, "b": 1, "bid": 1, "1": 1, "+1": 1, "sell": -1, "s": -1, "ask": -1, "a": -1, "-1": -1,
         "0": 0, "n": 0, "none": 0, "unknown": 0, "": 0}  # fmt: skip
SAME = ("recv", "ts", "snapshot", "instrument")  # equal in the rows of one update of a book
YES = ("true", "1", "t", "yes", "snap", "snapshot", "y")


@dataclass(frozen=True)
class Table:
    """What a vendor's table means. `columns`: ours -> theirs; `unit` of times as numbers ("auto": by their size);
    `timezone` of times without one; `sides`: their words, in lower case, -> side; `group`: columns that are equal
    in the rows of one update of the book; `keep`: columns to hand on as whole numbers, for the vendor's own rules."""

    kind: str
    columns: Mapping[str, str]
    unit: str = "auto"
    timezone: str = "UTC"
    sides: Mapping[str, int] = field(default_factory=lambda: SIDES)
    group: Sequence[str] = ()
    price_scale: float = 1.0
    volume_scale: float = 1.0
    time_format: str | None = None
    keep: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind={self.kind!r}; choose one of {', '.join(KINDS)}.")
        if self.unit not in ("auto", *UNITS):
            raise ConfigError(f"unit={self.unit!r}; choose one of auto, {', '.join(UNITS)}.")


def pieces(source: Any, header: Sequence[str] | None = None, separator: str = ",", skip_rows: int = 0
           ) -> "Iterator[tuple[str, int, pl.DataFrame]]":  # fmt: skip
    """(file, number of the first row, frame of texts) of a CSV (packed or not), Parquet file or frame.

    `header`: names of the columns of a file without a header; a first line without any number is a header.
    """
    import polars as pl

    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if isinstance(source, pl.DataFrame):
        yield "frame", 1, source
        return
    if not isinstance(source, str | Path):
        raise DataError(f"a source is a {type(source).__name__}; give paths or polars frames.")
    path = Path(source)
    if path.suffix.lower() in (".parquet", ".feather", ".arrow", ".ipc"):
        row = 1
        for frame in reading._lazy(path, reading.Reading()):
            yield path.name, row, frame
            row += frame.height
        return
    for label, file in blocks.members(path):
        yield from _csv(path, label, file, header, separator, skip_rows)


def _csv(path: Path, label: str, file: Any, header: Sequence[str] | None, separator: str, skip: int
         ) -> "Iterator[tuple[str, int, pl.DataFrame]]":  # fmt: skip
    import polars as pl

    names, row = list(header or ()), 1
    for number, block in enumerate(blocks.blocks(path, file)):
        if number == 0:
            for _ in range(skip):
                block = block[block.find(b"\n") + 1 :]
            first = block[: block.find(b"\n")].decode("utf-8-sig", "replace").strip().split(separator)
            if not any(_numeric(cell) for cell in first) and any(cell.strip() for cell in first):
                block = block[block.find(b"\n") + 1 :]
                names = names or [cell.strip().strip('"') for cell in first]
            names = names[: len(first)]
        if not names:
            raise DataError(f"{label}: the first line has numbers, so the file has no header; name its columns with "
                            "header=[...].")  # fmt: skip
        if not block.strip():
            continue
        try:
            frame = pl.read_csv(io.BytesIO(block), has_header=False, separator=separator, infer_schema=False,
                                schema=dict.fromkeys(names, pl.String), missing_columns="insert")  # fmt: skip
        except pl.exceptions.PolarsError as error:
            raise reading.damaged(path, error) from error
        yield label, row, frame
        row += frame.height


def _numeric(cell: str) -> bool:
    try:
        float(cell.strip().strip('"') or "x")
    except ValueError:
        return False
    return True


def decimal_ns(text: "pl.Series", unit: str) -> "pl.Series":
    """Numbers as text into ns, exactly: 1583107203.145 s has no room in a float. Others become null."""
    import polars as pl

    digits = UNITS[unit]
    clean = text.str.strip_chars()
    whole = clean.str.extract(r"^(\d+)(?:\.\d*)?$", 1).cast(pl.Int64, strict=False)
    part = clean.str.extract(r"\.(\d*)$", 1).fill_null("").str.pad_end(9, "0").str.slice(0, digits)
    nanos: pl.Series = whole * 10**digits + (part.cast(pl.Int64, strict=False).fill_null(0) if digits else 0)
    return nanos


def to_ns(series: "pl.Series", table: Table, where: str, known: dict[str, str]) -> "pl.Series":
    """Times of any form as ns UTC (Int64); what cannot be read is null. Raises DataError if nothing can be.

    `known`: the units found in earlier pieces, by column; it grows.
    """
    import polars as pl

    if series.dtype.is_temporal():
        local, _ = frames.local_times(series, where)
        return frames.zoned(local, table.timezone).to_physical()
    text = series.cast(pl.String)
    if table.unit != "auto":
        return decimal_ns(text, table.unit)
    if table.time_format is None and series.name not in known:
        number = text.str.extract(r"^\s*(\d{9,})(?:\.\d*)?\s*$", 1).drop_nulls()
        if len(number):
            known[series.name] = _unit(number[0])
    if series.name in known:
        return decimal_ns(text, known[series.name])
    if text.is_null().all() or (text.str.strip_chars() == "").all():
        return text.str.to_integer(strict=False)
    local, _ = frames.local_times(text, where, table.time_format, lenient=True)
    return frames.zoned(local, table.timezone).to_physical()


def _unit(number: str) -> str:
    digits = len(number)
    return "s" if digits <= 11 else "ms" if digits <= 14 else "us" if digits <= 17 else "ns"


def convert(frame: "pl.DataFrame", table: Table, where: str, row: int,
            known: dict[str, str] | None = None) -> "pl.DataFrame":  # fmt: skip
    """Our columns from theirs; `known`: see `to_ns`. Raises DataError for a column that is not there."""
    import polars as pl

    for ours, theirs in table.columns.items():
        if theirs not in frame.columns:
            raise DataError(f"{where}: no column {theirs!r} (mapped to {ours}); it has {', '.join(frame.columns)}. "
                            "Map the columns with columns={...}, or give another kind.")  # fmt: skip

    def get(name: str) -> "pl.Series | None":
        return frame[table.columns[name]] if name in table.columns else None

    ts = get("ts")
    recv = get("recv")
    if ts is None and recv is None:
        raise DataError(f"{where}: no time; map it with columns={{'ts': ...}}.")
    units = {} if known is None else known
    moments = [None if one is None else to_ns(one, table, where, units) for one in (ts, recv)]
    name = get("instrument")
    found: dict[str, Any] = {
        "instrument": pl.Series([None], dtype=pl.String).new_from_index(0, frame.height) if name is None
        else name.cast(pl.String).str.strip_chars().fill_null(""),
        "row": pl.Series(range(row, row + frame.height), dtype=pl.Int64),
        "ts": moments[0] if moments[0] is not None else moments[1],
        "recv": moments[1] if moments[1] is not None else moments[0],
    }  # fmt: skip
    for field_name in KINDS[table.kind].fields:
        found[field_name] = _field(get(field_name), field_name, table, frame.height)
    found |= {name: frame[name].cast(pl.Int64, strict=False).fill_null(-1) for name in table.keep}
    result = pl.DataFrame(found)
    if "last" in table.columns:
        result = result.with_columns(group=pl.col("last").shift(1).fill_null(0).cum_sum())
    elif table.kind == "depth":
        result = result.with_columns(frame[one].cast(pl.String).alias(f"by {one}") for one in table.group)
        keys = [*SAME, *(f"by {one}" for one in table.group)]
        result = result.with_columns(group=result.select(pl.struct(keys).rle_id()).to_series())
    return result


def _field(series: "pl.Series | None", name: str, table: Table, height: int) -> "pl.Series":
    import polars as pl

    if series is None:
        return pl.zeros(height, dtype=pl.Int64 if name in FLAGS else pl.Float64, eager=True)
    if name in ("last", "snapshot"):
        return series.cast(pl.String).str.strip_chars().str.to_lowercase().is_in(YES).fill_null(False).cast(pl.Int64)
    text = series.cast(pl.String).str.strip_chars()
    if name == "side":
        word = text.fill_null("").str.to_lowercase()
        return word.replace_strict(dict(table.sides), default=9, return_dtype=pl.Int64)
    value = text.cast(pl.Float64, strict=False)
    # An empty bid or ask is a side that is not there; any other cell that is no number is a bad row.
    absent = 0.0 if name in KINDS["quotes"].fields else float("nan")
    value = pl.select(pl.when(text.is_null() | (text == "")).then(absent).otherwise(value)).to_series()
    value = value.fill_null(float("nan"))
    scale = table.price_scale if name in ("price", "bid", "ask") else table.volume_scale if name != "rate" else 1.0
    return value if scale == 1.0 else value * scale


def closed(parts: "Iterator[tuple[str, pl.DataFrame]]", told: bool = False) -> "Iterator[tuple[str, pl.DataFrame]]":
    """Depth of one file in pieces of whole groups, `last` set on the final row of each (column `group` is used up).

    `told`: the file itself says which rows are the last ones."""
    import polars as pl

    held: tuple[str, pl.DataFrame] | None = None
    for file, frame in parts:
        part = frame
        if held is not None:
            waiting = held[1]
            # Numbers of groups begin again in each piece: the first one goes on if its key fits.
            keys = [] if told else [*SAME, *(name for name in part.columns if name.startswith("by "))]
            same = waiting["last"][-1] == 0 and all(waiting[c][-1] == part[c][0] for c in keys)
            step = (0 if same else 1) - int(part["group"][0]) + int(waiting["group"][-1])
            part = part.with_columns(pl.col("group").cast(pl.Int64) + step)
            frame = pl.concat([waiting, part], how="vertical_relaxed")
        cut = frame.height - int((frame["group"] == frame["group"][-1]).sum())
        if cut:
            yield file, _last(frame[:cut])
        held = (file, frame[cut:])
    if held is not None:
        yield held[0], _last(held[1])


def _last(frame: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    ends = (pl.col("group") != pl.col("group").shift(-1)).fill_null(True).cast(pl.Int64)
    return frame.with_columns(last=ends).drop("group", *(name for name in frame.columns if name.startswith("by ")))


def rows_of(source: Any, table: Table, named: str | None, header: Sequence[str] | None = None,
            separator: str = ",", skip_rows: int = 0) -> Iterator[Rows]:  # fmt: skip
    """A source as rows of one kind. `named`: the instrument the caller gave to it."""
    import polars as pl

    units: dict[str, str] = {}

    def parts() -> "Iterator[tuple[str, pl.DataFrame]]":
        for label, row, frame in pieces(source, header, separator, skip_rows):
            found = convert(frame, table, label, row, units)
            if named is not None:
                found = found.with_columns(instrument=pl.lit(named))
            yield label, found

    for label, frame in closed(parts(), "last" in table.columns) if table.kind == "depth" else parts():
        yield Rows(table.kind, frame, label)
