"""`open_tape`: one door from whatever holds bars to a tape.

Law 1: equal data and equal metadata give an equal digest, from wherever they are opened.
Law 2: a dataset that was opened before opens without Polars, calendars or a look into its Parquet files.
"""

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import ConfigError, DataError
from engine.store import calendars, merge
from engine.store.files import cache_dir, datasets_root, file_hash, text_hash
from engine.store.instruments import InstrumentInfo, override, to_json
from engine.store.spans import span
from engine.store.tape import Tape, Time, frozen, join, read_tape, schema_hash, to_bytes, write_tape

if TYPE_CHECKING:
    import polars as pl

IN_MEMORY = 1 << 21  # events (128 MiB): longer frames go through a file in the cache


def open_tape(data: "str | Path | pl.DataFrame | Tape", instruments: "str | Sequence[str] | None" = None,
              start: Time = None, end: Time = None, *, label: str | None = None, timezone: str | None = None,
              lot: float | None = None, tick: float | None = None,
              instrument_info: Mapping[str, Any] | None = None) -> Tape:  # fmt: skip
    """A tape of bars in [start, end) on their close time, of the named `instruments` (default: all).

    `data` is the name of a dataset under TANDEM_DATA (default ./data), the directory of one, a .parquet, .csv or
    .csv.gz file, or a polars frame with a time column, OHLCV and optionally `instrument`; files and frames
    follow the rules in `engine.store.frames` (`label`, `timezone`). `lot`, `tick` and `instrument_info` (fields for
    all, or under an instrument's name) override the metadata.

    Raises DataError for data that are missing, empty, damaged or lack a column, or an unknown instrument;
    ConfigError for a start that is not before its end, a time zone that does not exist, or metadata out of range.
    """
    if timezone is not None:
        calendars.check_zone(timezone)
    chosen = [instruments] if isinstance(instruments, str) else None if instruments is None else list(instruments)
    changes = {**(instrument_info or {}), **{k: v for k, v in (("lot", lot), ("tick", tick)) if v is not None}}
    if isinstance(data, Tape):
        tape = data
        if chosen is not None or changes:
            raise ConfigError("a Tape is opened as it is; give instruments and metadata where it is made.")
    elif isinstance(data, str | Path):
        tape = _open_path(data, chosen, changes, label, timezone)
    else:
        tape = _open_frame(_as_frame(data), "frame", "the frame", chosen, changes, label, timezone)
    return span(tape, start, end)


def choose(known: Sequence[str], chosen: Sequence[str] | None, where: str) -> list[str]:
    """`chosen`, checked against `known`; all of them for None. Raises DataError naming the choices."""
    if chosen is None:
        return list(known)
    for name in chosen:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1, 0.5) or [k for k in known if k.lower() == name.lower()]
            hint = f" Did you mean {close[0]}?" if close else ""
            shown = ", ".join(known[:20]) + (f", … ({len(known)} in all)" if len(known) > 20 else "")
            raise DataError(f"{where}: unknown instrument {name!r}.{hint} It has {shown}.")
    if len(set(chosen)) != len(chosen) or not chosen:
        raise DataError(f"{where}: instruments={list(chosen)} must name at least one instrument, each once.")
    return list(chosen)


def _as_frame(data: Any) -> "pl.DataFrame":
    import polars as pl

    if isinstance(data, pl.LazyFrame):
        return data.collect()
    if isinstance(data, pl.DataFrame):
        return data
    if type(data).__module__.split(".")[0] == "pandas":
        if data.index.name is not None or not str(type(data.index).__name__).startswith("RangeIndex"):
            data = data.rename_axis(data.index.name or "ts").reset_index()
        return pl.DataFrame({str(name): data[name].to_numpy() for name in data.columns})
    raise DataError(f"data is a {type(data).__name__}; give the name of a dataset, a path, or a polars frame.")


def _open_path(data: str | Path, chosen: list[str] | None, changes: Mapping[str, Any], label: str | None,
               timezone: str | None) -> Tape:  # fmt: skip
    path = Path(data)
    if path.is_file():
        return _open_file(path, chosen, changes, label, timezone)
    from engine.store.dataset import open_dataset

    if label is not None or timezone is not None:
        raise ConfigError(f"{data}: a dataset's times are settled; label and timezone are for files and frames.")
    if not (path / "dataset.json").is_file():
        found = _find_dataset(data)
        if isinstance(found, Tape):
            return _changed(found, chosen, changes)
        path = found
    return open_dataset(path, chosen, changes)


def _changed(tape: Tape, chosen: list[str] | None, changes: Mapping[str, Any]) -> Tape:
    """A sample's tape with other metadata; it is opened with all its instruments."""
    choose([info.name for info in tape.instruments], chosen, tape.name)
    infos = tuple(override(info, changes) for info in tape.instruments)
    if infos == tape.instruments:
        return tape
    return replace(tape, instruments=infos, digest=text_hash(tape.digest, to_json(infos)))


def _find_dataset(data: str | Path) -> Path | Tape:
    """The directory of a dataset; or the tape of a sample that has none."""
    root = datasets_root()
    path = root / data
    if (path / "dataset.json").is_file():
        return path
    from engine.store.samples import SAMPLES

    make = SAMPLES.get(str(data))
    if make is not None:
        return make(root) or path
    if path.is_dir() or Path(data).is_dir():
        raise DataError(f"{data}: a directory without dataset.json is no dataset; import it with "
                        "engine.store.import_bars.")  # fmt: skip
    known = sorted({*SAMPLES, *(item.parent.name for item in root.glob("*/dataset.json"))})
    close = difflib.get_close_matches(str(data), known, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise DataError(f"no dataset or file {str(data)!r}.{hint} Datasets in {root}: {', '.join(known)}. "
                    "Give one of them, a path, or set TANDEM_DATA.")  # fmt: skip


def read_table(path: Path, **options: Any) -> "pl.DataFrame":
    """A CSV or Parquet file as a frame. Raises DataError for a file that is damaged or of another type."""
    import polars as pl

    kind = "".join(path.suffixes).lower()
    try:
        if kind.endswith(".parquet"):
            return pl.read_parquet(path)
        if kind.endswith((".feather", ".arrow", ".ipc")):
            return pl.read_ipc(path)
        if kind.endswith((".csv", ".csv.gz", ".txt", ".txt.gz")):
            from engine.store.reading import separator_of

            given = {"separator": separator_of(path), **options}
            return pl.read_csv(path, try_parse_dates=True, infer_schema_length=10_000, **given)
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{path}: the file is empty; a tape needs at least one bar.") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: cannot be read, the file is damaged or not what its name says "
                        f"({str(error).splitlines()[0]}). Fetch or write it again.") from error  # fmt: skip
    raise DataError(f"{path}: unknown type of file {kind!r}; give .parquet or .csv.")


def _open_file(path: Path, chosen: list[str] | None, changes: Mapping[str, Any], label: str | None,
               timezone: str | None) -> Tape:  # fmt: skip
    key = text_hash(file_hash(path), schema_hash(), path.stem, repr(chosen), repr(sorted(changes.items())),
                    str(label), str(timezone))  # fmt: skip
    cached = cache_dir("tapes") / f"{key}.tape"
    if cached.is_file():
        try:
            return read_tape(cached)
        except DataError:  # A cache is rebuilt, not repaired: the file it came from is still here.
            cached.unlink(missing_ok=True)
    single = path.name.split(".")[0]
    tape = _open_frame(read_table(path), path.name, str(path), chosen, changes, label, timezone, single)
    with write_tape(cached, tape.instruments, tape.digest, tape.name) as writer:
        writer.append(tape.events)
    return read_tape(cached)


def _open_frame(frame: "pl.DataFrame", name: str, where: str, chosen: list[str] | None, changes: Mapping[str, Any],
                label: str | None, timezone: str | None, single: str = "instrument") -> Tape:  # fmt: skip
    from engine.store import frames

    table, bars = frames.canonical(frame, where, label=label, timezone=timezone, name=single)
    names = choose(list(bars), chosen, where)
    groups = {part["instrument"][0]: part for part in table.partition_by("instrument", maintain_order=True)}
    parts = [groups[one] for one in names]
    _refuse_bad_prices(parts, where)
    infos = tuple(override(frames.describe(part, bars[part["instrument"][0]]), changes) for part in parts)
    total = sum(part.height for part in parts)
    runs = [merge.bar_events(frames.columns(part), i) for i, part in enumerate(parts)]
    pieces = merge.merge(runs)
    if total <= IN_MEMORY:
        return Tape(frozen(join(list(pieces))), infos, _digest(runs, infos), name)
    digest = _digest(runs, infos)
    path = cache_dir("tapes") / f"{digest}.tape"
    if not path.is_file():
        with write_tape(path, infos, digest, name) as writer:
            for piece in pieces:
                writer.append(piece)
    return read_tape(path)


def _digest(runs: "Iterable[np.ndarray[Any, Any]]", infos: tuple[InstrumentInfo, ...]) -> str:
    digest = hashlib.sha256(to_json(infos).encode())
    for run in runs:
        digest.update(to_bytes(run))
    return digest.hexdigest()


def _refuse_bad_prices(parts: "Sequence[pl.DataFrame]", where: str) -> None:
    """A tape holds only prices that can be traded on: finite, positive, high not under low."""
    for part in parts:
        prices = part.select("open", "high", "low", "close").to_numpy()
        bad = ~(np.isfinite(prices) & (prices > 0)).all(axis=1)
        bad |= (prices[:, 1] < prices[:, 2]) | ~(part["volume"].to_numpy() >= 0)
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(f"{where}, instrument {part['instrument'][0]}, its row {row + 1}: open, high, low, close, "
                            f"volume = {part.row(row)[2:]} must be positive numbers with low <= high "
                            f"({int(bad.sum())} such rows). "
                            "Drop them, or import the data with on_error='quarantine'.")  # fmt: skip
