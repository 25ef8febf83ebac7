"""Sources of bars, read in pieces: CSV (also in gzip or ZIP), Parquet and Feather files, or frames.

Law 1: every row keeps its file and its number in it (from 1), through every later step.
Law 2: prices are read as text and turned into numbers here, so that one bad cell is one bad row, not a lost file.
"""

import gzip
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError, DataError
from engine.store.frames import FIELDS, GROUPS, TIMES, mapped, pick

if TYPE_CHECKING:
    import polars as pl

PIECE = 1 << 18  # rows
SEPARATORS, LINE = (",", ";", "\t", "|"), 1 << 16
OPTIONAL = ("adj_close", "split", "dividend")
NAMES = ("ts", "instrument", *FIELDS, *OPTIONAL)


@dataclass(frozen=True)
class Reading:
    """How files are read. `columns`: our name -> theirs (`ts` may be a list, joined by a blank); `header`: names
    for files that have none, or a wrong one (then with `skip_rows=1`); `separator`: None finds it in the first line;
    `decimal`: of numbers, a point or a comma; `reader`: path -> frame, for other formats."""

    columns: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    header: Sequence[str] | None = None
    skip_rows: int = 0
    separator: str | None = None
    decimal: str = "."
    price_scale: float = 1.0
    reader: "Callable[[Path], pl.DataFrame] | None" = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.columns) - set(NAMES))
        if unknown:
            raise ConfigError(f"columns: unknown name {unknown[0]!r}; map {', '.join(NAMES)}.")
        if self.separator in ("tab", "\\t"):  # as one types it in a shell
            object.__setattr__(self, "separator", "\t")
        if self.separator is not None and len(self.separator.encode()) != 1:
            raise ConfigError(f"separator={self.separator!r} must be one character, such as ; or tab.")
        if self.decimal not in (".", ","):
            raise ConfigError(f"decimal={self.decimal!r} must be a point or a comma.")


@dataclass(frozen=True)
class Piece:
    """Rows of one file: `frame` has file (index into the list of files), row, instrument, ts (as in the source) and
    numbers."""

    frame: "pl.DataFrame"
    file: str
    size: int


def flatten(sources: Any) -> list[tuple[str | None, Any]]:
    """(instrument or None, path or frame) from a path, a frame, a list, a directory or a mapping by instrument."""
    if isinstance(sources, Mapping):
        return [(str(name), item) for name, part in sources.items() for _, item in flatten(part)]
    if isinstance(sources, list | tuple):
        return [one for part in sources for one in flatten(part)]
    if isinstance(sources, str | Path):
        path = Path(sources)
        if path.is_dir():
            inside = sorted(item for item in path.iterdir() if item.is_file() and not item.name.startswith("."))
            return [(None, item) for item in inside]
        if not path.is_file():
            raise DataError(f"{path}: no such file; give the path of a CSV or Parquet file with bars.")
        return [(None, path)]
    return [(None, sources)]


def read(sources: Sequence[tuple[str | None, Any]], how: Reading, files: list[str], left: dict[str, str]
         ) -> Iterator[Piece]:  # fmt: skip
    """All sources in pieces of at most about 260,000 rows; `files` grows by their names, `left` by columns that look
    like splits or dividends, hold some, and are mapped to nothing, each with the first file where it is so.

    Raises DataError for a file that is damaged or lacks a column.
    """
    for name, source in sources:
        for label, single, size, frames in _frames(source, how):
            files.append(label)
            row = 1
            for frame in frames:
                left.update({one: label for one in _left(frame, how) if one not in left})
                yield Piece(_numbers(frame, how, label, name or single, len(files) - 1, row), label,
                            size * frame.height // max(frame.height, 1))  # fmt: skip
                row += frame.height


def _left(frame: "pl.DataFrame", how: Reading) -> "Iterator[str]":
    """Columns with splits or dividends that nobody reads; an adjusted close knows of both."""
    import polars as pl

    for name in frame.columns if _find(frame, how, "adj_close", "") is None else ():
        kind = "split" if "split" in name.lower() else "dividend" if "dividend" in name.lower() else None
        if kind and kind not in how.columns:
            value = frame[name].cast(pl.Float64, strict=False).fill_nan(0.0)
            if ((value != 0.0) & (value != float(kind == "split"))).any():
                yield name


def _frames(source: Any, how: Reading) -> "Iterator[tuple[str, str, int, Iterator[pl.DataFrame]]]":
    """(name of the file, instrument by its name, bytes, frames) for each table in a source."""
    import polars as pl

    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if isinstance(source, pl.DataFrame):
        yield "frame", "instrument", source.height, source.iter_slices(PIECE)
        return
    if not isinstance(source, str | Path):
        raise DataError(f"a source is a {type(source).__name__}; give paths or polars frames.")
    path = Path(source)
    single, size = path.name.split(".")[0], path.stat().st_size
    if how.reader is not None:
        yield path.name, single, size, how.reader(path).iter_slices(PIECE)
    elif path.suffix.lower() == ".zip":
        yield from _zipped(path, how)
    else:
        yield path.name, single, size, _lazy(path, how)


def _lazy(path: Path, how: Reading) -> "Iterator[pl.DataFrame]":
    import polars as pl

    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            scan = pl.scan_parquet(path, hive_partitioning=False)
        elif kind in (".feather", ".arrow", ".ipc"):
            scan = pl.scan_ipc(path)
        else:
            scan = pl.scan_csv(path, **_csv(how, path))
        yield from (frame for frame in scan.collect_batches(chunk_size=PIECE, maintain_order=True) if frame.height)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise damaged(path, error) from error


def _zipped(path: Path, how: Reading) -> "Iterator[tuple[str, str, int, Iterator[pl.DataFrame]]]":
    import polars as pl

    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                content = archive.read(member)
                frames = pl.read_csv(content, **_csv(how, content)).iter_slices(PIECE)
                yield f"{path.name}:{member.filename}", path.name.split(".")[0], member.file_size, frames
    except (pl.exceptions.PolarsError, zipfile.BadZipFile, OSError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> DataError:
    """The error for a source that cannot be read."""
    why = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(f"{path}: cannot be read, the file is empty, damaged or not what its name says ({why}). "
                     "Fetch or write it again.")  # fmt: skip


def _csv(how: Reading, source: Path | bytes) -> dict[str, Any]:
    return {"has_header": how.header is None, "new_columns": how.header, "skip_rows": how.skip_rows,
            "separator": how.separator or separator_of(source, how.skip_rows), "infer_schema": False}  # fmt: skip


def separator_of(source: Path | bytes, skip: int = 0) -> str:
    """What stands between the cells of CSV, as its first line after `skip` tells: the most frequent of the usual."""
    opened = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115  closed below
    with opened as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        lines = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if packed else raw
        for _ in range(skip):
            lines.readline(LINE)
        first = lines.readline(LINE)
    return max(SEPARATORS, key=lambda one: first.count(one.encode()))


def _numbers(frame: "pl.DataFrame", how: Reading, where: str, single: str, file: int, row: int) -> "pl.DataFrame":
    """Our columns from theirs. Raises DataError for a missing column."""
    import polars as pl

    # Some writers put an unnamed index before the header; it is the time.
    names = {"": "ts"} if "" in frame.columns and pick(frame.columns, TIMES) is None else {}
    frame = frame.rename(names)
    ours: dict[str, Any] = {"file": pl.Series([file], dtype=pl.UInt32).new_from_index(0, frame.height),
                            "row": pl.Series(range(row, row + frame.height), dtype=pl.UInt64)}  # fmt: skip
    missing = [name for name in ("ts", *FIELDS[:4]) if _find(frame, how, name, where) is None]
    if missing:
        had = ", ".join(frame.columns)
        raise DataError(f"{where}: no column {', '.join(missing)}; it has {had}. {mapped(missing)}")
    for name in NAMES:
        theirs = _find(frame, how, name, where)
        if theirs is None:
            if name == "instrument":
                ours[name] = pl.Series([single]).new_from_index(0, frame.height)
            if name == "volume":
                ours[name] = pl.zeros(frame.height, dtype=pl.Float64, eager=True)
        elif name == "ts":
            ours[name] = theirs
        elif name == "instrument":
            ours[name] = theirs.cast(pl.String).fill_null("")
        else:
            text = theirs.str.strip_chars() if theirs.dtype == pl.String else theirs
            if how.decimal == "," and text.dtype == pl.String:
                text = text.str.replace(",", ".", literal=True)
            value = text.cast(pl.Float64, strict=False).fill_null(float("nan"))
            if name == "close" and text.dtype == pl.String and how.decimal == ".":
                _refuse_commas(text, value, where)
            ours[name] = value * how.price_scale if name in FIELDS[:4] and how.price_scale != 1.0 else value
    return pl.DataFrame(ours)


def _refuse_commas(text: "pl.Series", value: "pl.Series", where: str) -> None:
    """Raise DataError where no price can be read, and each would with a decimal comma."""
    if text.len() and bool(value.is_nan().all()) and bool(text.str.contains(r"^[+-]?\d+,\d+$").all()):
        raise DataError(f"{where}: prices such as {text[0]!r} have a decimal comma; give decimal=','.")


def _find(frame: "pl.DataFrame", how: Reading, name: str, where: str) -> "pl.Series | None":
    import polars as pl

    wish = how.columns.get(name)
    if wish is None:
        usual = {"ts": TIMES, "instrument": GROUPS, "adj_close": ("adj_close", "adjusted_close")}.get(name, (name,))
        # Splits and dividends are taken only where the caller names them: such words mean many things.
        found = None if name in ("split", "dividend") else pick(frame.columns, usual)
        return None if found is None else frame[found]
    parts = [wish] if isinstance(wish, str) else list(wish)
    for part in parts:
        if part not in frame.columns:
            raise DataError(f"{where}: no column {part!r} (mapped to {name}); it has {', '.join(frame.columns)}.")
    if len(parts) == 1:
        return frame[parts[0]]
    return frame.select(pl.concat_str([pl.col(part).cast(pl.String) for part in parts], separator=" ")).to_series()
