"""`import_ticks`: quotes, trades, depth and funding of any vendor into a dataset, checked and atomic.

Law 1: an import completes or leaves nothing; a dataset that exists is replaced only by a complete new one.
Law 2: no row is changed or dropped silently: refused, set aside with its reason, kept as it is, or counted in notes.
Law 3: memory holds pieces of files, not files; with on_error="keep" one folder at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ConfigError, DataError
from engine.store import vendors
from engine.store.files import atomic_dir, datasets_root, progress
from engine.store.importer import duration
from engine.store.opening import choose
from engine.store.ticks_job import TickJob, close
from engine.store.vendors import Rows, Vendor, sources_of

CHOICES = {"on_error": ("refuse", "quarantine", "keep"), "book": ("snapshot", "empty")}


def import_ticks(name: str, source: Any, *, vendor: str = "generic", instrument: str | Sequence[str] | None = None,
                 root: str | Path | None = None, instruments: Mapping[str, Any] | None = None,
                 on_error: str = "refuse", recv_shift: str | int = 0, book: str = "snapshot",
                 overwrite: bool = False, **options: Any) -> Path:  # fmt: skip
    """Import single events as dataset `name` under `root` (default: TANDEM_DATA or ./data); return its directory.

    `source`: a file, a directory (searched deeply, in the order of the names), a polars frame, a list of such in the
    order of time, or a mapping instrument -> such. `vendor`: see `engine.store.vendors`; `options` are the vendor's.
    `instrument`: the name, for files that carry none; else which to take of those in the files.
    `instruments`: fields of InstrumentInfo for all, or under a name for that one; tick and lot are found in the
    data unless they are given, and with a given tick prices must lie on it.
    `recv_shift`: added to the time of receipt, for a recorder whose clock was behind: a duration such as "1.5s", or
    "auto" for the least that puts no event before it happened (the sources are read twice).
    `book`: depth must begin with a "snapshot", or the book is "empty" before the first row.
    `on_error`: "refuse", "quarantine" (bad rows aside; with a row of depth all up to the next snapshot, and the book
    is emptied), or "keep".

    Raises ValidationError (file, row, reason), DataError, ConfigError. On any error nothing is left behind.
    """
    for what, value in (("on_error", on_error), ("book", book)):
        if value not in CHOICES[what]:
            raise ConfigError(f"{what}={value!r}; choose one of {', '.join(CHOICES[what])}.")
    target = Path(root or datasets_root()).absolute() / name
    if not name or Path(name).name != name:
        raise ConfigError(f"dataset name {name!r}: give a plain name without slashes.")
    if target.exists() and not overwrite:
        raise DataError(f"{target} already exists; choose another name or pass overwrite=True.")
    reader = vendors.vendor(vendor, options)
    reading = Reading(reader, sources_of(source), [instrument] if isinstance(instrument, str) else instrument)
    shift = least_shift(reading) if recv_shift == "auto" else shift_ns(recv_shift)
    settings = {"vendor": vendor, "instrument": instrument, "on_error": on_error, "recv_shift_ns": shift, "book": book,
                "options": {key: str(value) for key, value in options.items()}}  # fmt: skip
    with atomic_dir(target, overwrite) as part:
        job = TickJob(part, name, on_error, dict(instruments or {}), book)
        with progress(0, f"import {name}") as bar:
            for rows in reading:
                job.take(shifted(rows, shift))
                bar.update(rows.frame.height)
        reading.finish()
        close(job, {"settings": settings, "source": f"{vendor}: {', '.join(reading.files[:20])}"})
    return target


def shift_ns(value: str | int) -> int:
    """'1.5s', '-20ms' or a number of ns. Raises ConfigError for anything else."""
    if isinstance(value, int) or value.isdigit():
        return int(value)
    sign, text = (-1, value[1:]) if value.startswith("-") else (1, value)
    number = text.rstrip("nusmhd")
    whole, _, part = number.partition(".")
    if part.isdigit() and whole.isdigit():
        unit = duration("1" + text[len(number) :], "recv_shift") or 0
        return int(sign * (int(whole) * unit + int(part) * unit // 10 ** len(part)))
    return sign * (duration(text, "recv_shift") or 0)


def shifted(rows: Rows, shift: int) -> Rows:
    """The same rows, received `shift` ns later."""
    if shift == 0:
        return rows
    return replace(rows, frame=rows.frame.with_columns(recv=rows.frame["recv"] + shift))


def least_shift(reading: "Reading") -> int:
    """The least shift, in ns, after which no row was received before it happened."""
    least = 0
    for rows in reading:
        early = (rows.frame["ts"] - rows.frame["recv"]).max()
        least = max(least, int(early)) if isinstance(early, int) else least
    return least


@dataclass
class Reading:
    """The rows of all sources, of the chosen instruments, as often as they are asked for."""

    vendor: Vendor
    sources: "list[tuple[str | None, Any]]"
    chosen: Sequence[str] | None

    def __iter__(self) -> Iterator[Rows]:
        import polars as pl

        self.files: list[str] = []
        self.seen: dict[str, None] = {}
        single = self.chosen[0] if self.chosen is not None and len(self.chosen) == 1 else None
        for rows in self.vendor.read(self.sources, self.vendor.options):
            if rows.file not in self.files[-1:]:
                self.files.append(rows.file)
            nameless = rows.frame["instrument"].is_null()
            if nameless.any():
                if single is None:
                    raise DataError(f"{rows.file}: the file does not name its instrument; give instrument='...', or a "
                                    "mapping instrument -> files.")  # fmt: skip
                rows = replace(rows, frame=rows.frame.with_columns(pl.col("instrument").fill_null(single)))
            self.seen.update(dict.fromkeys(rows.frame["instrument"].unique(maintain_order=True)))
            if self.chosen is not None:
                keep = rows.frame["instrument"].is_in(list(self.chosen))
                if not keep.all():
                    mask = keep.to_numpy()
                    rows = replace(rows, frame=rows.frame.filter(keep),
                                   problems=[(np.asarray(bad)[mask], why) for bad, why in rows.problems])  # fmt: skip
            if rows.frame.height or rows.notes:
                yield rows

    def finish(self) -> None:
        """Raise DataError if an instrument was asked for that no file has, unless there is nothing at all."""
        choose(list(self.seen), self.chosen if self.seen else None, ", ".join(self.files[:3]))
