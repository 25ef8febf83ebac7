"""`import_bars`: bars of any vendor into a canonical dataset, validated and atomic.

Law 1: an import completes or leaves nothing, whatever stops it.
Law 2: a dataset that exists is never touched, but with overwrite=True, and then only by a complete new one.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import ConfigError, DataError
from engine.store import adjust as corporate
from engine.store import calendars, frames, reading
from engine.store.files import atomic_dir, datasets_root, progress
from engine.store.instruments import InstrumentInfo, override
from engine.store.job import Job, close

if TYPE_CHECKING:
    import polars as pl

UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
CHOICES = {"label": (None, "start", "end"), "adjust": ("apply", "events", "none"),
           "on_error": ("refuse", "quarantine", "keep"), "dividend_base": ("previous", "ex")}  # fmt: skip


def duration(value: str | int | None, what: str) -> int | None:
    """'1m', '4h', '1d' or a number of ns, as ns. Raises ConfigError for anything else."""
    if value is None or isinstance(value, int):
        return value
    number = value.rstrip("nusmhd")
    unit = UNITS.get(value[len(number) :])
    if unit is None or not number.isdigit() or int(number) == 0:
        raise ConfigError(f"{what}={value!r}: write a whole number and a unit of {', '.join(UNITS)}, such as 5m or 1d.")
    return int(number) * unit


def import_bars(sources: Any, name: str, root: str | Path | None = None, *,
                columns: Mapping[str, str | Sequence[str]] | None = None, header: Sequence[str] | None = None,
                skip_rows: int = 0, separator: str | None = None, decimal: str = ".",
                reader: "Callable[[Path], pl.DataFrame] | None" = None,
                price_scale: float = 1.0, timezone: str = "UTC", label: str | None = None,
                interval: str | int | None = None, time_format: str | None = None,
                instruments: Mapping[str, Any] | None = None, actions: Any = None, adjust: str = "apply",
                dividend_base: str = "previous", on_error: str = "refuse", sort: bool = False,
                max_gap: str | int | None = None, overwrite: bool = False, source: str = "") -> Path:  # fmt: skip
    """Import bars as dataset `name` under `root` (default: TANDEM_DATA or ./data) and return its directory.

    `sources`: a file (CSV, .csv.gz, ZIP of CSV, Parquet, Feather), a directory, a polars frame, a list of such, or
    a mapping instrument -> such. Without an instrument column the name of the file is that of the instrument.
    `columns`: our name -> theirs, for ts (a list is joined by a blank), open, high, low, close, volume, instrument,
    adj_close, split, dividend; names that fit but for case need no mapping. `header`, `skip_rows`, `separator`
    (None: found in the first line), `decimal`, `price_scale`: form of the files; `reader`: path -> frame for others.
    `timezone`: of times that carry none; `label`: whether a time is the start or the end of its bar (dates become
    the session close of the instrument's calendar); `interval`: length of a bar (default: the median step).
    `instruments`: fields of InstrumentInfo for all, or under a name for that one.
    `actions`: rows (instrument, ts, kind, ratio, amount) as a frame or dictionaries; a date as ts is the ex-date.
    `adjust`: "apply" (back-adjust; from splits and dividends, or from adj_close), "events" (raw prices, actions
    as events) or "none". `sort` sorts the rows of each instrument by time first (then a source must fit in memory).
    `on_error`: "refuse", "quarantine" or "keep". `max_gap`: longest pause inside a session that is no problem;
    without it, pauses of intraday bars that chance does not explain are a warning, with "off" nothing is.

    Raises ValidationError (file, row, reason), DataError, ConfigError. On any error nothing is left behind.
    """
    for what, value in (("label", label), ("adjust", adjust), ("on_error", on_error), ("dividend_base", dividend_base)):
        if value not in CHOICES[what]:
            raise ConfigError(f"{what}={value!r}; choose one of {', '.join(map(repr, CHOICES[what]))}.")
    target = Path(root or datasets_root()).absolute() / name
    if not name or Path(name).name != name:
        raise ConfigError(f"dataset name {name!r}: give a plain name without slashes.")
    if target.exists() and not overwrite:
        raise DataError(f"{target} already exists; choose another name or pass overwrite=True.")
    calendars.check_zone(timezone)
    how = reading.Reading(columns or {}, header, skip_rows, separator, decimal, price_scale, reader)
    listed = reading.flatten(sources)
    settings = {"timezone": timezone, "label": label, "interval": interval, "adjust": adjust, "sort": sort,
                "dividend_base": dividend_base, "on_error": on_error, "max_gap": max_gap, "price_scale": price_scale,
                "columns": {k: v if isinstance(v, str) else list(v) for k, v in (columns or {}).items()}}  # fmt: skip
    given = read_actions(actions, instruments or {})
    with atomic_dir(target, overwrite) as part:
        job = Job(part, name, timezone, label, duration(interval, "interval"), time_format, adjust, dividend_base,
                  on_error, instruments or {}, given, None if max_gap == "off" else duration(max_gap, "max_gap"),
                  max_gap == "off")  # fmt: skip
        left: dict[str, str] = {}
        pieces = reading.read(listed, how, job.files, left)
        with progress(0, f"import {name}") as bar:
            for frame in _sorted(pieces, time_format, job.files) if sort else (piece.frame for piece in pieces):
                job.take(frame)
                bar.update(frame.height)
            for line in job.lines.values():
                job.finish(line)
        if left and adjust != "none" and not given:
            text = f"{next(iter(left.values()))}: {', '.join(left)} not read. If prices are as traded: "
            job.warnings.append(f"{text}{frames.mapped(('split', 'dividend'))} If already adjusted: adjust=none.")
        close(job, {"source": source, "settings": settings})
    return target


def summary(where: Path) -> str:
    """What a dataset holds, in lines for a person: instruments, rows, span, how times were read, rows set aside."""
    from engine.store.dataset import read_manifest

    manifest, infos = read_manifest(where)
    rows, ticks = manifest["rows"], manifest.get("kind") == "ticks"
    steps = " (tick {:g}, lot {:g})" if ticks else ""
    names = ", ".join(i.name + steps.format(i.tick, i.lot) for i in infos[:8]) + (", …" if len(infos) > 8 else "")
    total = sum(rows.values()) if isinstance(rows, dict) else rows
    lines = [("Rows", f"{total:,} of {_many(len(infos), 'instrument')}: {names}")]
    stems = Counter(match[1] for i in infos if (match := re.match(r"(.+?)[-_. ]?\d{4}[-_]?\d\d([-_]?\d\d)?$", i.name)))
    for stem, count in stems.most_common(1):
        if count > 1 and not ticks:
            lines.append(("Parts", f"{count} of them are {stem} with a date: files of one instrument are imported as "
                                   f"{{{stem!r}: [file, …]}} in Python"))  # fmt: skip
    if ticks:
        kinds: dict[str, int] = {}
        for key, count in rows.items():
            kinds[key.split(" ")[0]] = kinds.get(key.split(" ")[0], 0) + count
        lines.append(("Kinds", ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())))
    if "first" in manifest:
        first, last = (np.datetime64(manifest[end] // 10**9, "s") for end in ("first", "last"))
        lines.append(("Span", f"{first} to {last}".replace("T", " ") + " UTC, "
                      + ("as received" if ticks else "closes of bars")))  # fmt: skip
    zones, markets = (", ".join(sorted({getattr(i, key) for i in infos})) for key in ("timezone", "calendar"))
    naive = "; the source names no zone: if its times are local, say so with timezone=…"
    unsaid = naive if manifest.get("naive") and zones == "UTC" else ""
    lines.append(("Times", f"time zone {zones}, calendar {markets}{unsaid}"))
    aside = where / "quarantine.parquet"
    count = manifest.get("quarantined", 0)
    lines.append(("Aside", f"{_many(count, 'row')}, with the reasons in {aside.name}" if count else "no row"))
    problems = manifest.get("problems", {}).get("count", 0)
    if problems:
        lines.append(("Noted", f"{_many(problems, 'problem')}, in dataset.json"))
    lines += [("Note", f"{count:,} {text}") for text, count in manifest.get("notes", {}).items()]
    warned = manifest.get("warnings", ())
    lines += [("Warning", text) for text in warned[:5]]
    if len(warned) > 5:
        lines.append(("Warning", f"{len(warned) - 5:,} more, in dataset.json"))
    return "\n".join(f"{word:<8} {text}" for word, text in lines)


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _sorted(pieces: Any, style: str | None, files: list[str]) -> "list[pl.DataFrame]":
    import polars as pl

    frames_ = [piece.frame for piece in pieces]
    if not frames_:
        return []
    table = pl.concat(frames_)
    keys, _ = frames.local_times(table["ts"], files[0], style, lenient=True)
    order = table.with_columns(keys.alias("key")).sort("key", maintain_order=True)
    return [order.drop("key")]


def read_actions(actions: Any, meta: Mapping[str, Any]) -> dict[str, list[corporate.Action]]:
    """Corporate actions by instrument, from a frame or dictionaries. A date takes effect at its session's open."""
    import polars as pl

    rows = actions.iter_rows(named=True) if isinstance(actions, pl.DataFrame) else actions or ()
    found: dict[str, list[corporate.Action]] = {}
    for row in rows:
        name = str(row.get("instrument", ""))
        calendar = override(InstrumentInfo(name=name or "instrument"), meta).calendar
        found.setdefault(name, []).append(corporate.Action(
            calendars.action_time(row["ts"], calendar), str(row["kind"]), float(row.get("ratio") or 1.0),
            float(row.get("amount") or 0.0)))  # fmt: skip
    return found
